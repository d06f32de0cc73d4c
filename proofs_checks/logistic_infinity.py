"""The logistic loss: where the path p(t) goes to infinity, the flow goes far along it, and stays sparse up to there.

Hypotheses.  Logistic loss; H homogeneous of degree D >= 2; w(0) = delta w0 with w0 in the stable set of a
second-order positive KKT point w*, whose vanishing weights are w_z; the weights that do not vanish at w* can
separate the data.

Conclusion.  There is no saddle at a finite distance.  For every eps and delta small enough the flow reaches a time at
which |grad L| <= eps, the margin of every sample is of order ln(1/eps), so that |w| is of order ln(1/eps)^(1/D), and
|w_z| <= eps.

Source.  [BEYOND], Corollaries 6 (D = 2) and 12 (D > 2), in our reading: their text was not at hand.

Control.  Data that no weights separate: margins stay below 0.  w_z taken from another neuron (coordinate).
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.events import norm_level, slow
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.origin import OriginNCF
from gfsim.ncf.phi import limit
from gfsim.objective import Objective
from proofs_checks.first_saddle import rest_of
from proofs_checks.fitting import power_law
from proofs_checks.instances import Search
from proofs_checks.origin_starts import Start, unit
from proofs_checks.statement import Context, Ledger

DELTAS = np.logspace(-2, -6, 5)
EPS = (1e-2, 1e-4, 1e-6)
SAMPLES = 8


def cases() -> list[tuple[Model, float]]:
    """With their degrees.  In each one neuron (coordinate) can separate the data of :func:`labelled`."""
    return [
        (DiagonalLinear(3, 2, tied=True), 2.0),
        (FeedForward((3, 3, 2), "square"), 3.0),
        (FeedForward((3, 2, 1), "linear", p=3), 4.0),
        (FeedForward((3, 2, 2, 2), "square"), 7.0),
    ]


def check(ctx: Context, ledger: Ledger) -> None:
    margins, gradients, rates, wrong, mixed, growth, arrived = ([] for _ in range(7))
    for rng in ctx.draws("starts", 1, 4):
        for model, D in cases():
            start, small = far_start(model, rng, separable=True)
            other = rest_of(model, small)
            stops = [[stop(start, float(d), eps) for eps in EPS] for d in DELTAS]
            for row in stops:
                margins += [_margin(start.objective, w) / math.log(1 / eps) for w, eps in zip(row, EPS, strict=True)]
                norms = [float(np.linalg.norm(w)) ** D for w in row]
                growth.append((norms[2] - norms[1]) / (norms[1] - norms[0]))
            for k, eps in enumerate(EPS):
                rates.append(_positive([float(np.linalg.norm(row[k][small])) for row in stops]))
                wrong.append(_positive([float(np.linalg.norm(row[k][other])) for row in stops]))
                gradients.append(float(np.linalg.norm(start.objective.gradient(stops[-1][k]))) / eps)
                arrived.append(float(np.linalg.norm(stops[-1][k][small])))
            tangled, _ = far_start(model, rng, separable=False)
            end = simulate(
                tangled.objective, 1e-2 * tangled.w0, t_end=1e6 * tangled.phi.time, method="LSODA", max_steps=20_000
            )
            mixed.append(max(0.0, _margin(tangled.objective, end.final)) / math.log(1 / max(EPS)))
    ledger.at_most("|grad L| over eps where the flow is stopped", gradients, 1.0 + 1e-6, "the event's accuracy")
    why = "L is e^-margin of the worst sample up to factors of order |w|^D n, which ln(1/eps) outgrows"
    ledger.at_least("smallest margin over ln(1/eps), every delta and eps", margins, 0.3, why)
    ledger.at_least(
        "growth of |w|^D from eps = 1e-4 to 1e-6 over that from 1e-2 to 1e-4", growth, 0.5, "1 if |w|^D ~ ln(1/eps)"
    )
    ledger.at_most("|w_z| at |grad L| = eps, delta = 1e-6", arrived, 1e-2, "eps")
    why = "positive: it goes to 0 with delta; 0.1 is beyond any error of a fit over four decades"
    ledger.at_least("exponent of |w_z| at |grad L| = eps in delta", rates, 0.1, why)
    ledger.control("smallest margin over ln(1/eps)", mixed, 0.3, "the data cannot be separated", "at least")
    ledger.control("exponent of |w_z| in delta", wrong, 0.1, "w_z holds the neuron that grows", "at least")


def _positive(sizes: list[float]) -> float:
    slope = power_law(DELTAS, sizes).slope
    return slope if math.isnan(slope) else max(0.0, slope)


def labelled(model: Model, rng: np.random.Generator, *, separable: bool) -> Objective:
    """Random data that one neuron separates with a margin, or the same with every sample given both labels.

    A coordinate whose sign is the label (diagonal nets), an odd function of a projection (z^3), or one output for each
    class (z^2, whose outputs have one sign).
    """
    X = rng.standard_normal((SAMPLES, model.n_inputs))
    if model.n_outputs == 2:
        y = np.tile([1.0, -1.0], (SAMPLES, 1))
        X = rng.uniform(0.5, 1.5, X.shape)  # no sample is orthogonal to the neuron
    else:
        y = np.where(np.arange(SAMPLES) % 2 == 0, 1.0, -1.0)[:, None]
        X *= 0.3  # the first coordinate decides
        X[:, 0] = y[:, 0] * rng.uniform(0.7, 1.5, SAMPLES)
    if not separable:
        X, y = np.concatenate([X, 0.9 * X]), np.concatenate([y, -y])
    return Objective(model, X, y, loss="logistic", reduction="mean")


def far_start(model: Model, rng: np.random.Generator, *, separable: bool) -> tuple[Start, np.ndarray]:
    """A start whose NCF flow ends at a strict maximum, which separates the data if they can be, and the mask of w_z."""
    search = Search("a start that goes to a strict, sparse maximum")
    while True:
        search.draw()
        o = labelled(model, rng, separable=separable)
        w0 = unit(rng, model.n_params)
        phi = limit(OriginNCF(o), w0, max_steps=3000)
        if phi.point is None or phi.point.gap < 0.5 * phi.point.value:
            continue
        small = np.abs(phi.point.u) < 1e-7
        if small.any() and (not separable or _margin(o, phi.point.u) > 0.1 * _largest(o, phi.point.u)):
            return Start(o, w0, phi, phi.point.u), small


def _margin(o: Objective, w: np.ndarray) -> float:
    return float((o.y * o.model.forward(w, o.X)).min())


def _largest(o: Objective, w: np.ndarray) -> float:
    return float(np.abs(o.model.forward(w, o.X)).max())


def stop(start: Start, delta: float, eps: float) -> np.ndarray:
    """The weights where |grad L| falls to ``eps`` after the escape: (P,)."""
    escape = norm_level(0.3, name="escape")
    run = simulate(start.objective, delta * start.w0, t_end=math.inf, method="LSODA", rtol=1e-9, events=[escape])
    if not run.ok:
        return np.full(start.w0.size, math.nan)
    run = simulate(
        start.objective,
        run.final,
        t_end=math.inf,
        method="LSODA",
        clock="t",
        rtol=1e-8,
        events=[slow(eps)],
        max_steps=20_000,
    )
    return run.final if run.ok else np.full(start.w0.size, math.nan)
