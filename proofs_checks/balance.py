"""The balance of every hidden neuron is conserved by the gradient flow.

Hypotheses.  A feed-forward net with activation max(z, alpha z)^p, any depth, any number of outputs, any
differentiable loss, any data.

Conclusion.  |W_l[j, :]|^2 - p |W_{l+1}[:, j]|^2 is constant along dw/dt = -grad L for every hidden neuron j
(Euler's identity for the neuron: both sides of d/dt are the same sum over samples).  Diagonal nets and
factorisations have their own conserved quantities.

Source.  docs/theory.md, section 1; Du, Hu and Lee 2018 for p = 1.

Control.  tanh, which has no degree, with p = 1; the factor p left out at p = 2; weight decay.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from proofs_checks.instances import (
    ROUNDING,
    ROUNDING_WHY,
    families,
    nets,
    polynomial,
    random_objective,
    relative,
    symbolic,
)
from proofs_checks.statement import Context, Ledger

RTOL = 1e-9


def neuron_balance(model: FeedForward, w: np.ndarray, p: float) -> np.ndarray:
    """The balances from the weight matrices, written apart from the library's: (hidden neurons,)."""
    return np.concatenate(
        [np.einsum("jk,jk->j", W, W) - p * np.einsum("kj,kj->j", V, V) for W, V in pairwise(model.unpack(w))]
    )


def rate(balance: Callable[[np.ndarray], np.ndarray], w: np.ndarray, v: np.ndarray) -> float:
    """Rate of change of quadratic quantities of ``w`` along ``v``, relative to |w| |v|.

    The central difference of a quadratic function is its derivative, whatever the step.
    """
    size = float(np.linalg.norm(v))
    if size == 0:
        return 0.0
    step = float(np.linalg.norm(w)) / size * v
    return relative(balance(w + step) - balance(w - step), 2.0 * float(w @ w))


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    rates, agreement, others = [], [], []
    for rng in ctx.draws("rates", 4):
        for model, p in nets():
            if model.depth < 2:
                continue
            for loss in ("square", "logistic"):
                o = random_objective(model, rng, loss=loss)
                w = rng.standard_normal(model.n_params)
                v = -o.gradient(w)
                rates.append(rate(model.conserved, w, v))
                agreement.append(relative(model.conserved(w) - neuron_balance(model, w, p), w @ w))
        for model2, _ in families():
            w = rng.standard_normal(model2.n_params)
            v = -random_objective(model2, rng).gradient(w)
            if model2.conserved(w).size:
                others.append(rate(model2.conserved, w, v))
    ledger.at_most("rate of change of the neuron balances, relative to |w| |dw/dt|", rates, ROUNDING, ROUNDING_WHY)
    ledger.at_most("library's balance against |in|^2 - p |out|^2", agreement, ROUNDING, ROUNDING_WHY)
    ledger.at_most("rate of the quantities that the linear families conserve, relative", others, ROUNDING, ROUNDING_WHY)
    _flows(ctx, ledger)
    _controls(ctx, ledger)


def _symbols(ledger: Ledger) -> None:
    """<grad B, grad (C . H)> = 0 for arbitrary weights C on the outputs, hence for every loss."""
    import sympy

    identities = []
    for widths, p in (((2, 2, 2), 1), ((2, 2, 2), 2), ((1, 2, 2), 3), ((2, 2, 2, 2), 1), ((1, 2, 1, 2), 2)):
        model = FeedForward(widths, "linear", p=p)
        w, X = symbolic("w", model.n_params), symbolic("x", (1, model.n_inputs))
        g = model.pullback(w, X, symbolic("c", (1, model.n_outputs)))
        for B in model.conserved(w):
            identities.append(polynomial(sum(sympy.diff(B, wk) * gk for wk, gk in zip(w, g, strict=True))))
    ledger.identity("<grad B, grad C.H> = 0 for symbols, s = z^p", identities)


def _flows(ctx: Context, ledger: Ledger) -> None:
    drifts = []
    for rng in ctx.draws("flows", 1):
        for widths, name, p in (((3, 4, 2), "relu", 2), ((3, 3, 2, 2), "square", 2), ((3, 3, 2), "linear", 3)):
            model = FeedForward(widths, name, p=p)
            o = random_objective(model, rng, reduction="mean")
            w = rng.standard_normal(model.n_params)
            t = 2.0 / float(np.linalg.norm(o.gradient(w)))
            drifts.append(simulate(o, w, t_end=t, method="DOP853", rtol=RTOL).conserved_drift)
    ledger.at_most(
        "drift along computed flows, relative to |w|^2", drifts, 1e3 * RTOL, "a thousand local errors of the solver"
    )


def _controls(ctx: Context, ledger: Ledger) -> None:
    unscaled, missing, decayed = [], [], []
    for rng in ctx.draws("control", 4):
        tanh = FeedForward((3, 4, 2), "tanh")
        w = rng.standard_normal(tanh.n_params)
        unscaled.append(_rate_of(tanh, 1.0, w, -random_objective(tanh, rng).gradient(w)))
        square = FeedForward((3, 4, 2), "square")
        w = rng.standard_normal(square.n_params)
        o: Objective = random_objective(square, rng)
        missing.append(_rate_of(square, 1.0, w, -o.gradient(w)))
        decayed.append(_rate_of(square, 2.0, w, -o.gradient(w) - w))
    what = "rate of change of the neuron balances, relative to |w| |dw/dt|"
    ledger.control(what, unscaled, ROUNDING, "s is tanh")
    ledger.control(what, missing, ROUNDING, "the factor p = 2 is left out")
    ledger.control(what, decayed, ROUNDING, "weight decay is added to the flow")


def _rate_of(model: FeedForward, p: float, w: np.ndarray, v: np.ndarray) -> float:
    return rate(lambda at: neuron_balance(model, at, p), w, v)
