"""Plain ReLU: what the expansion around a sparse saddle does at a kink, and how far from one it is safe.

Hypotheses.  s(z) = max(z, alpha z), three layers; at (w_n, 0) an active neuron k of the second layer has
preactivation -eta, eta >= 0, on every sample; the inactive neurons below push it by delta^2 q, q = sum_j b_kj s(a_j
. x).

Conclusion.  Off the kink, for delta^2 |q| < eta, H = H(w_n, 0) + H1 + R with R of degree 2p + 1 = 3 at least, as for
smooth activations.  On the kink (eta = 0) there is one more term of degree 2, v_k (s(q) - alpha q), v_k the outgoing
weights: it is homogeneous but not part of H1, and with it R is of degree 3 again.  So the NCF of the smooth case is
wrong there, by as much as it is large, and the library refuses the point.

Source.  docs/theory.md, section 4 ("needs s differentiable at the active preactivations"); the term at the kink is
ours.

Control.  The expansion without that term, on the kink, where q > 0.
"""

from __future__ import annotations

from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np

from gfsim.errors import NotHomogeneous
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.neurons import ActiveNeurons
from proofs_checks.expansion import DIGITS, Expansion, exponent, precise
from proofs_checks.fitting import EQUAL
from proofs_checks.statement import Context, Ledger

ETA = 1e-6
"""Distance from the kink of the instances beside it: 1e-3 in delta, ten times what the fits use at most."""


def check(ctx: Context, ledger: Ledger) -> None:
    mpmath.mp.dps = DIGITS
    deltas = [mpmath.mpf(10) ** -k for k in range(6, 12)]
    on, beside, shares, bare, refused, silent = ([] for _ in range(6))
    for rng in ctx.draws("kinks", 6):
        for alpha in (0.0, 0.3):
            for push in (1.0, -1.0):
                e = instance(rng, alpha, push, 0.0)
                bend = kink_term(e)
                rest, plain = remainders(e, deltas, bend), remainders(e, deltas, 0 * bend)
                on.append(_degree(deltas, rest))
                size = float(np.abs(bend).max() / np.abs(e.first_order()).max())
                if push > 0:
                    shares.append(size)
                    bare.append(_degree(deltas, plain))
                else:
                    silent.append(size)
                refused.append(float(accepted(e)))
                near = instance(rng, alpha, push, ETA)
                beside.append(_degree(deltas, remainders(near, deltas, 0 * bend)))
                refused.append(float(not accepted(near)))
    bound = 3 - EQUAL
    ledger.at_least("degree of R off the kink, eta = 1e-6 (inf: R = 0)", beside, bound, "a lower bound: 2p + 1 = 3")
    ledger.at_least("degree of R on the kink, less v_k (s(q) - alpha q) (inf: R = 0)", on, bound, "2p + 1 = 3")
    ledger.at_least("size of that term over H1 where q > 0", shares, 1e-3, "it is of the same degree: order one")
    ledger.at_most("size of that term over H1 where q < 0", silent, 0.0, "the library's slope at 0 is the left one")
    ledger.at_most("points on a kink that the library accepts, or beside one that it refuses", refused, 0.0, "a count")
    ledger.control("degree of R on the kink", bare, bound, "H1 alone, q > 0", sense="at least")


def _degree(deltas: list[Any], sizes: list[Any]) -> float:
    slope, error = exponent(deltas, sizes)
    return slope - 2 * error


def instance(rng: np.random.Generator, alpha: float, push: float, eta: float) -> Expansion:
    """Widths 2-3-3-1 with two active units a layer; unit 0 of layer 2 at -eta on every sample, ``push`` the sign of q.

    The first two units of layer 1 are twins and enter unit 0 with opposite signs; a constant input moves it off.
    """
    model = FeedForward((3, 3, 3, 1), "leaky", alpha=alpha)
    units = ActiveNeurons.of(model, (2, 2))
    X = np.column_stack([rng.uniform(0.5, 1.5, (3, 2)), np.ones(3)])
    w = rng.uniform(0.5, 1.5, model.n_params)
    w[units.index_z(model)] = 0.0
    first, second, _ = model.unpack(w)
    first[1] = first[0]
    first[1, 2] -= eta
    second[0, :2] = -1.0, 1.0  # -z + (z - eta)
    u = rng.uniform(0.5, 1.5, model.n_params)
    model.unpack(u)[1][0, 2] *= push
    u = u[units.index_z(model)]
    return Expansion(Objective(model, X, rng.standard_normal(3)), units, w, u / np.linalg.norm(u))


def kink_term(e: Expansion) -> np.ndarray:
    """v_k (s(q) - alpha q) for the unit on its kink, k = 0: (n, 1) of mpmath numbers."""
    direction = precise(np.zeros(e.model.n_params))
    direction[e.active.index_z(e.model)] = precise(e.u)
    first, second, _ = e.model.unpack(direction)
    s = e.model.activation
    q = second[0, 2] * s.value(precise(e.objective.X) @ first[2])
    v = precise(e.model.unpack(e.w)[2])[:, 0]
    alpha = getattr(s, "alpha", 0.0)
    return np.asarray((s.value(q) - alpha * q)[:, None] * v)


def remainders(e: Expansion, deltas: list[Any], bend: np.ndarray) -> list[Any]:
    """The largest |H(delta) - H(0) - delta^2 (H1 + bend)| over samples."""
    start, first = e.at(mpmath.mpf(0)), e.first_order()
    return [np.abs(e.at(d) - start - d**2 * (first + bend)).max() for d in deltas]


def accepted(e: Expansion) -> bool:
    """Whether the library defines an NCF at the point."""
    try:
        SaddleNCF(e.point)
    except NotHomogeneous:
        return False
    return True
