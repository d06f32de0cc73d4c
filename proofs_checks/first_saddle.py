"""After the escape from the origin the flow comes close to a sparse saddle.

Hypotheses.  H homogeneous of degree D >= 2 with a finite minimum of the loss on the path's own weights; w(0) = delta
w0, w0 in the stable set of a second-order positive KKT point w*, whose vanishing weights are w_z.

Conclusion.  For every eps and delta small enough the flow comes within eps of the saddle lim p(t), where w_z = 0, and
|grad L| <= eps there.  It need not stay.

Source.  [BEYOND], Corollary 5 (D = 2) and 11 (D > 2).  They state no rate; asked is that the exponent be positive.

Control.  The saddle of another neuron (coordinate) than that of w*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfsim.flow.events import Event, Probe, norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective
from proofs_checks.fitting import power_law
from proofs_checks.instances import Search
from proofs_checks.origin_starts import Start, draw
from proofs_checks.statement import Context, Ledger

DELTAS = np.logspace(-2, -6, 5)
ESCAPED = 0.3
"""|w| at the escape, in units of the size that the labels ask for."""
FLOOR = 1e-9
"""rtol of the flows: distances below it are rounding."""
GROWN = 0.3
"""Where |w_z| is this share of |w| the flow has left the neighbourhood of the first saddle."""


def cases() -> list[tuple[Model, float]]:
    """With their degrees, from the definitions."""
    return [
        (DiagonalLinear(3, 2, tied=True), 2.0),
        (FeedForward((3, 3, 1), "square"), 3.0),
        (FeedForward((3, 3, 2), "square"), 3.0),
        (FeedForward((3, 2, 1), "linear", p=3), 4.0),
        (FeedForward((3, 2, 2, 1), "square"), 7.0),
    ]


@dataclass(frozen=True)
class Visit:
    """Least distance from the predicted saddle and from another one, relative to its norm, and |grad L| where the
    former is attained, relative to its largest value before."""

    distance: float
    gradient: float
    wrong: float


def check(ctx: Context, ledger: Ledger) -> None:
    gradients, distances, rates, ratios, wrong, saddles = ([] for _ in range(6))
    for rng in ctx.draws("starts", 1, 4):
        for model, D in cases():
            start, small = sparse_start(model, rng)
            there = predicted(start, small)
            other = np.roll(there, 1) if not isinstance(model, FeedForward) else rolled(model, there)
            visits = [visit(start, D, small, float(d), there, other) for d in DELTAS]
            gradients.append(visits[-1].gradient)
            distances.append(visits[-1].distance)
            rates.append(_rate(np.array([v.distance for v in visits])))
            ratios += [v.gradient / (v.distance + FLOOR) for v in visits]
            wrong.append(min(v.wrong for v in visits))
            H = float(np.linalg.norm(start.objective.hessian(there)))
            saddles.append(float(np.linalg.norm(start.objective.gradient(there))) / (H * float(np.linalg.norm(there))))
    ledger.at_most("|grad L| at lim p(t), relative to |w| |Hess L|", saddles, 1e-9, "Newton's method")
    ledger.at_most("least distance from lim p(t), relative, delta = 1e-6", distances, 1e-2, "eps")
    ledger.at_most("|grad L| there over its peak, delta = 1e-6", gradients, 1e-2, "eps")
    why = "positive: it goes to 0 with delta; 0.1 is beyond any error of a fit over four decades"
    ledger.at_least("exponent of that distance in delta", rates, 0.1, why)
    why = "it vanishes with the distance: a constant of the problem's own, |w| |Hess L| over the peak of |grad L|"
    ledger.at_most("|grad L| there over its peak, over the relative distance, all deltas", ratios, 300.0, why)
    ledger.control(
        "least distance from a saddle, every delta", wrong, 1e-2, "the saddle of another neuron than that of w*"
    )


def _rate(off: np.ndarray) -> float:
    """The exponent of the distances that are above rounding; infinite where fewer than three are.

    A point that is the end of the flow and no saddle is reached to rounding, whatever delta is.
    """
    if np.isnan(off).any():
        return math.nan
    seen = off > FLOOR
    return positive(power_law(DELTAS[seen], off[seen]).slope) if seen.sum() >= 3 else math.inf


def positive(slope: float) -> float:
    """A slope as a size that may be reported: 0 where it is negative, NaN where it is NaN."""
    return slope if math.isnan(slope) else max(0.0, slope)


def sparse_start(model: Model, rng: np.random.Generator) -> tuple[Start, np.ndarray]:
    """A start whose NCF flow ends at a strict maximum with vanishing weights, and the mask of these: (P,) of bool.

    Delta is at least N*/2, so that the directions have settled well before the escape at these deltas.
    """
    search = Search("a start that goes to a strict, sparse maximum")
    while True:
        search.draw()
        start = draw(model, rng)
        point = start.phi.point
        small = np.abs(start.target) < 1e-7
        if point is not None and point.gap > 0.5 * point.value and small.any():
            return start, small


def rolled(model: FeedForward, w: np.ndarray) -> np.ndarray:
    """The weights (P,) with every hidden layer's neurons moved on by one place: another neuron is the large one."""
    matrices = [W.copy() for W in model.unpack(w)]
    for l in range(model.depth - 1):
        matrices[l], matrices[l + 1] = np.roll(matrices[l], 1, axis=0), np.roll(matrices[l + 1], 1, axis=1)
    return model.pack(matrices)


def rest_of(model: Model, small: np.ndarray) -> np.ndarray:
    """The same mask (P,) with the large neuron (coordinate) exchanged for another one."""
    if not isinstance(model, FeedForward):
        return np.roll(small, 1)
    return np.asarray(rolled(model, small.astype(float)) > 0)


def saddle_of(o: Objective, w: np.ndarray, small: np.ndarray) -> np.ndarray:
    """The critical point with w_z = 0 near ``w``, by Newton's method on the other weights (least-squares steps)."""
    u = np.where(small, 0.0, w)
    n = np.flatnonzero(~small)
    for _ in range(30):
        u[n] += np.linalg.lstsq(o.hessian(u)[np.ix_(n, n)], -o.gradient(u)[n], rcond=1e-9)[0]
    return u


def predicted(start: Start, small: np.ndarray) -> np.ndarray:
    """lim p(t): the end of the flow from a small multiple of w* itself, on which w_z stays zero, polished: (P,)."""
    o, size = start.objective, start.size
    exact = np.where(small, 0.0, start.target)
    grown = simulate(o, 1e-2 * size * exact, t_end=math.inf, method="LSODA", events=[norm_level(ESCAPED * size)])
    speed = float(np.linalg.norm(o.gradient(grown.final)))
    end = simulate(o, grown.final, t_end=1e3 * size / speed, method="LSODA", clock="t", rtol=1e-8)
    if not (grown.ok and end.ok):
        return np.full(exact.size, math.nan)
    return saddle_of(o, end.final, small)


def visit(start: Start, D: float, small: np.ndarray, delta: float, there: np.ndarray, other: np.ndarray) -> Visit:
    """The flow from delta w0 through the escape until the weights of w_z have grown, or for a long time."""

    def share(p: Probe) -> float:
        return float(np.linalg.norm(p.w[small]) - GROWN * np.linalg.norm(p.w))

    escape = norm_level(ESCAPED * start.size, name="escape", terminal=0)
    run = simulate(
        start.objective,
        delta * start.size * start.w0,
        t_end=100.0 * start.phi.time / (delta * start.size) ** (D - 2),
        method="LSODA",
        rtol=1e-9,
        events=[escape, Event("departure", share, 1, 1, after=escape.name)],
        max_steps=5000,
    )
    if not run.events:
        return Visit(math.nan, math.nan, math.nan)
    off = np.linalg.norm(run.w - there, axis=1)
    best = int(np.argmin(off))
    size = float(np.linalg.norm(there))
    return Visit(
        float(off[best]) / size,
        float(run.speed[best] / run.speed[: best + 1].max()),
        float(np.linalg.norm(run.w - other, axis=1).min()) / size,
    )
