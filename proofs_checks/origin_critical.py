"""The origin is a critical point, and what the loss does near it.

Hypotheses.  H homogeneous of degree D >= 2 in the weights; any data and a differentiable loss.

Conclusion.  grad L(0) = 0.  The Hessian at 0 is -Hess N(0), which vanishes for D > 2.  Along u the loss is
L(delta u) = L(0) - delta^D N(u) + O(delta^(2D)): it falls where N(u) > 0 and rises where N(u) < 0.

Source.  [BEYOND], Lemma 1; [DEEP], section 2.

Control.  D = 1; a net whose activation does not vanish at 0.
"""

from __future__ import annotations

import numpy as np

from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.origin import OriginNCF
from gfsim.objective import Objective
from proofs_checks.instances import degree_formula, families, nets, random_objective, relative
from proofs_checks.statement import Context, Ledger
from proofs_checks.zero_preserving import EXACT, Shifted


def check(ctx: Context, ledger: Ledger) -> None:
    gradients, hessians, flat, changes = [], [], [], []
    models: list[tuple[Model, float]] = [(m, degree_formula(p, m.depth)) for m, p in nets()]
    for rng in ctx.draws("origin", 3):
        for model, D in [*models, *families()]:
            if D < 2:
                continue
            o = random_objective(model, rng, loss=str(rng.choice(["square", "logistic"])))
            zero = np.zeros(model.n_params)
            ncf = OriginNCF(o)
            H = o.hessian(zero)
            gradients.append(_gradient_at_zero(o, rng))
            hessians.append(relative(H + ncf.hessian(zero), _typical(o, rng)))
            if D > 2:
                flat.append(relative(H, _typical(o, rng)))
            changes += [_change(o, ncf, D, rng) for _ in range(4)]
    ledger.at_most("|grad L(0)|, relative to its size at |w| = 1", gradients, 0.0, EXACT)
    ledger.at_most("Hess L(0) + Hess N(0), relative", hessians, 1e-12, "the same sum in another order")
    ledger.at_most("Hess L(0) for D > 2, relative", flat, 0.0, EXACT)
    ledger.at_most(
        "L(0) - L(delta u) against delta^D N(u), relative to delta^D sum |ytilde H|",
        changes,
        1e-3,
        "at delta^D = 1e-6 the next term is 1e-6 times order one to 1e2, rounding 1e-10",
    )
    linear, shifted = [], []
    for rng in ctx.draws("control", 3):
        for model in (FeedForward((3, 2), "linear"), DiagonalLinear(3, 1, signed=True)):
            linear.append(_gradient_at_zero(random_objective(model, rng), rng))
        shifted.append(_gradient_at_zero(random_objective(FeedForward((3, 4, 2), Shifted()), rng), rng))
    ledger.control("|grad L(0)|, relative", linear, 0.0, "D = 1")
    ledger.control("|grad L(0)|, relative", shifted, 0.0, "s(0) = 1, no degree")


def _unit(o: Objective, rng: np.random.Generator) -> np.ndarray:
    w = rng.standard_normal(o.model.n_params)
    return w / np.linalg.norm(w)


def _gradient_at_zero(o: Objective, rng: np.random.Generator) -> float:
    return relative(o.gradient(np.zeros(o.model.n_params)), o.gradient(_unit(o, rng)))


def _typical(o: Objective, rng: np.random.Generator) -> np.ndarray:
    return o.hessian(_unit(o, rng))


def _change(o: Objective, ncf: OriginNCF, D: float, rng: np.random.Generator) -> float:
    u = _unit(o, rng)
    u *= 10 ** (-6.0 / D)
    H = o.model.forward(u, o.X)
    size = float(np.abs(ncf.ytilde * H).sum())
    if size == 0:  # dead on all data
        return 0.0
    if size < 1e-9 * float(np.abs(ncf.ytilde).sum()):  # the change would drown in the rounding of L
        return _change(o, ncf, D, rng)
    fall = float(o.value(np.zeros_like(u)) - o.value(u))
    return abs(fall - float(ncf.value(u))) / size
