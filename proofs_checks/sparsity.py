"""The weights that vanish at the KKT point stay small up to the first saddle.

Hypotheses.  H homogeneous of degree D >= 2; w(0) = delta w0 with w0 in the stable set of a positive KKT point w*
with a second-order gap Delta > 0; w_z are weights that vanish at w* and form a zero-preserving subset.

Conclusion.  Before the escape |w_z|/|w| <= C delta^(2 Delta/(Delta + 8 N*)) for D = 2 and C delta^(D Delta/(Delta +
2 D^2 N*)) for D > 2; after it |w_z| <= C delta^(Delta/(Delta + 8 N*)), respectively C delta^(Delta/(2 D^2 N* +
Delta)).

Source.  [BEYOND], Theorem 18, for nets with p >= 2 or linear ones.  When "before" is, we read as the moment when |w|
passes sqrt(delta) on its way out; "after" as a fixed time after |w| has passed a fixed level.  Ours: the exponents
are Delta_z/(2 D N*) and Delta_z/(D N*), where Delta_z >= Delta is the gap within w_z: 1/2 and 1 for one neuron with
p >= 2. Two-layer linear nets with a neuron to spare have ties, Delta = 0, and the statement says nothing on them;
its case D = 2 is checked on diagonal nets.

Control.  w_z taken from another neuron (coordinate) than those that vanish at w*.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.events import norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.kkt import KKTPoint
from gfsim.ncf.origin import OriginNCF
from proofs_checks.first_saddle import rest_of, sparse_start
from proofs_checks.fitting import Fit, power_law
from proofs_checks.instances import Search
from proofs_checks.origin_starts import Start
from proofs_checks.statement import Context, Ledger

DELTAS = np.logspace(-4, -8, 9)
ESCAPED = 0.3
STEEP = 1.5
LATER = 2.0
"""How long after the escape w_z is watched, in units of the time 1/(N* size^(D-2)) of the escape itself."""


def cases() -> list[tuple[Model, float]]:
    """With their degrees, from the definitions."""
    return [
        (DiagonalLinear(3, 2, tied=True), 2.0),
        (FeedForward((3, 3, 1), "square"), 3.0),
        (FeedForward((3, 2, 1), "linear", p=3), 4.0),
        (FeedForward((3, 2, 2, 1), "square"), 7.0),
    ]


def check(ctx: Context, ledger: Ledger) -> None:
    fits: list[list[Fit]] = [[] for _ in range(6)]
    before, after, slow_before, slow_after, wrong_before, wrong_after = fits
    bounds_before, bounds_after, sharp = [], [], []
    for rng in ctx.draws("starts", 1, 6):
        for model, D in cases():
            start, small, point, own_gap, slow = _measurable(model, D, rng)
            N, gap = point.value, point.gap
            parts = [np.eye(small.size)[:, small], slow, np.eye(small.size)[:, rest_of(model, small)]]
            rows = np.array([shares(start, D, N, parts, float(d)) for d in DELTAS])
            for k, found in enumerate(fits):
                found.append(power_law(DELTAS, rows[:, k]))
            bounds_before.append(2 * gap / (gap + 8 * N) if D == 2 else D * gap / (gap + 2 * D**2 * N))
            bounds_after.append(gap / (gap + 8 * N) if D == 2 else gap / (2 * D**2 * N + gap))
            sharp.append(own_gap / (D * N))
    what_before, what_after = "|w_z|/|w| before the escape, at |w| = sqrt(delta)", "|w_z| up to a fixed time after it"
    ledger.upper_bound(what_before, before, bounds_before, "an upper bound, Theorem 18")
    ledger.upper_bound(what_after, after, bounds_after, "an upper bound, Theorem 18")
    why = "ours: w_z decays beside w by (delta/|w|)^(Delta_z/(D N*))"
    ledger.exponent(f"{what_before}, its slowest part", slow_before, [0.5 * s for s in sharp], why)
    ledger.exponent(f"{what_after}, its slowest part", slow_after, sharp, why)
    broken = "w_z holds another neuron than those that vanish at w*"
    ledger.upper_bound_control(what_before, wrong_before, bounds_before, broken)
    ledger.upper_bound_control(what_after, wrong_after, bounds_after, broken)


def _measurable(
    model: Model, D: float, rng: np.random.Generator
) -> tuple[Start, np.ndarray, KKTPoint, float, np.ndarray]:
    """A start, the mask of w_z, w*, and the gap within w_z with its directions (:func:`_slowest`).

    Delta_z/(D N*) is at most STEEP: what vanishes faster is rounding after the first decades of delta.
    """
    search = Search("a start whose vanishing weights stay above rounding")
    while True:
        search.draw()
        start, small = sparse_start(model, rng)
        own_gap, slow = _slowest(start, small)
        point = start.phi.point
        if point is not None and own_gap <= STEEP * D * point.value:
            return start, small, point, own_gap, slow


def _slowest(start: Start, small: np.ndarray) -> tuple[float, np.ndarray]:
    """The gap within w_z, and the directions that have it: (P, how many).

    It is the smallest of D N* - b' Hess N(w*) b over unit b within w_z.  Elsewhere in w_z the decay is faster, so that
    the whole of w_z shows a sum of powers when the start has little of the slowest.
    """
    ncf = OriginNCF(start.objective)
    z = np.flatnonzero(small)
    values, vectors = np.linalg.eigh(ncf.hessian(start.target)[np.ix_(z, z)])
    level = float(ncf.degree * ncf.value(start.target))
    slow = np.zeros((small.size, z.size))
    slow[z] = vectors
    return level - float(values[-1]), slow[:, level - values <= (level - values[-1]) * (1 + 1e-6)]


def shares(start: Start, D: float, N: float, parts: list[np.ndarray], delta: float) -> list[float]:
    """For each set of columns |w_z|/|w| where |w| = sqrt(delta), and the largest |w_z| from the escape to LATER after.

    |w_z| is the norm of w in the span of the columns (P, m), which are orthonormal.
    """
    o, size = start.objective, start.size
    run = simulate(
        o,
        delta * size * start.w0,
        t_end=math.inf,
        method="DOP853",
        rtol=1e-11,
        events=[
            norm_level(math.sqrt(delta) * size, name="before", terminal=0),
            norm_level(ESCAPED * size, name="escape"),
        ],
    )
    if not run.ok:
        return [math.nan] * (2 * len(parts))
    early = run.event("before").w
    later = simulate(o, run.final, t_end=LATER / (N * size ** (D - 2)), method="DOP853", clock="t", rtol=1e-11)
    out = []
    for part in parts:
        out += [
            float(np.linalg.norm(early @ part) / np.linalg.norm(early)),
            float(np.linalg.norm(later.w @ part, axis=1).max()) if later.ok else math.nan,
        ]
    return out
