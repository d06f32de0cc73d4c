"""The path p(t) along which the flow leaves the origin.

Hypotheses.  H homogeneous of degree D >= 2, twice differentiable; w* a positive KKT point of the NCF at the origin
with a second-order gap Delta > 0; w0 in its stable set.

Conclusion.  With tau_delta = ln(1/delta)/(2 N*) for D = 2 and 1/(D (D-2) N* delta^(D-2)) for D > 2, the shifted flows
psi(t + tau_delta, delta w*) tend to a path p(t), and at fixed t the gap is at most C delta^(Delta/(Delta + 8 N*)),
respectively C delta^(Delta/(2 D^2 N* + Delta)).  From any w0 in the stable set the flow joins the same path.

Source.  [BEYOND], Theorems 4 and 10.  Ours, measured here: the gap's exponent is 2 from w* itself, whatever D is; the
distance from the path's orbit falls with the exponent Delta/(D N*) when w0 is off w* along the slowest direction.

Control.  Half of delta w* under the shift of delta w*; the path of another stable set.

How the gap is measured.  For D = 7 the shift tau_delta is 1e20 and the gap sits in the second decimal of t: no clock
in float64 tells them apart.  So time is not subtracted but accounted for: Q(w) = -|w|^2/(D (D-2) N(w)) (D = 2:
ln|w|/(2 N*)) satisfies Q(delta w*) = -tau_delta and dQ/dt = 1 + e(w) along the flow, with an e(w) that is free of
cancellation and small near the origin, so that t - tau_delta = Q(w) - integral of e.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from gfsim.arrays import Array
from gfsim.flow.clock import Clock, PhysicalTime, RescaledTime
from gfsim.flow.events import Event, norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.kkt import KKTPoint, tangent_basis
from gfsim.ncf.origin import OriginNCF
from gfsim.objective import Objective
from proofs_checks.fitting import Fit, power_law
from proofs_checks.instances import Search
from proofs_checks.origin_starts import Start, another_target, best_point, draw, natural_size
from proofs_checks.statement import Context, Ledger

RTOL = 1e-12
NOISE = 64 * np.finfo(float).eps
"""Below this share of |grad N| its tangential part is rounding of w.  What the flow itself puts there is |w|^D, so that
leaving it out while it is that small changes the time by less than NOISE |w|^2."""


def models() -> list[tuple[Model, float]]:
    """With their degrees.  At D = 2 those whose maxima are strict: wider linear nets have ties, Delta = 0."""
    return [
        (FeedForward((3, 1, 2), "linear"), 2.0),
        (DiagonalLinear(3, 2, tied=True), 2.0),
        (FeedForward((3, 3, 1), "square"), 3.0),
        (FeedForward((3, 2, 1), "linear", p=3), 4.0),
        (FeedForward((3, 2, 2, 1), "square"), 7.0),
    ]


def stated(point: KKTPoint, D: float) -> float:
    """The exponent of Theorem 4 (D = 2) or 10 (D > 2)."""
    N, gap = point.value, point.gap
    return gap / (gap + 8 * N) if D == 2 else gap / (2 * D**2 * N + gap)


def check(ctx: Context, ledger: Ledger) -> None:
    cauchy, bounds, off, joins, join_bounds, slow, slow_rates, strangers, stranger_bounds = ([] for _ in range(9))
    for rng in ctx.draws("paths", 1, 6):
        for model, D in models():
            o, point = best_point(model, rng)
            shifted = Shifted(o, D, point.value)
            size = natural_size(o, point.u, point.value, D)
            first, gaps = differences(shifted, point.u, size)
            cauchy.append(first)
            bounds.append(stated(point, D))
            off.append(wrong_shift(shifted, point.u, size, gaps))
            slow.append(_joining(o, _slowest(o, point), point.u, size))
            slow_rates.append(point.gap / (D * point.value))
            start, own = _measurable(model, D, rng)
            size = natural_size(start.objective, own.u, own.value, D)
            joins.append(_joining(start.objective, start.w0, own.u, size))
            join_bounds.append(stated(own, D))
            if not isinstance(model, DiagonalLinear):  # whose orthant holds one path only
                other = another_target(start.objective, own.u, rng)
                strangers.append(_joining(start.objective, start.w0, other, size))
                stranger_bounds.append(stated(own, D))
    what = "the gap to p(t) at fixed t, from delta w*"
    ledger.upper_bound(what, cauchy, bounds, "an upper bound, Theorems 4 and 10")
    ledger.exponent(what, cauchy, 2.0, "ours: the loss's own term |w|^(2D) changes the time by O(delta^2)")
    what = "the distance from the orbit of p, from delta w0"
    ledger.upper_bound(what, joins, join_bounds, "an upper bound, Theorems 4 and 10")
    why = "ours: the slowest direction decays by (delta/|w|)^(Delta/(D N*))"
    ledger.exponent("the distance from the orbit of p, w0 off w* along the slowest direction", slow, slow_rates, why)
    ledger.upper_bound_control(
        "the gap to p(t) at fixed t", off, bounds, "half of delta w* under the shift of delta w*"
    )
    ledger.upper_bound_control(
        "the distance from the orbit of p", strangers, stranger_bounds, "p belongs to another stable set"
    )


def _measurable(model: Model, D: float, rng: np.random.Generator) -> tuple[Start, KKTPoint]:
    """A random start in the stable set of a second-order point (no tie), and that point.

    Delta/(D N*) is at most 1.2: a start that settles faster is below rounding after a few decades of delta.
    """
    search = Search("a start that goes to a strict maximum")
    while True:
        search.draw()
        start = draw(model, rng)
        point = start.phi.point
        if point is not None and 1e-2 * point.value < point.gap < 1.2 * D * point.value:
            return start, point


# -- the shifted clock ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shifted:
    """dw/dt = -grad L beside dE/dt = e(w), so that Q(w) - E is the time that has passed since -tau_delta.

    A field of gfsim on P + 1 coordinates, the last of which is E.  For the square loss, whose remainder
    L - L(0) + N is the sum of H^2 exactly.
    """

    objective: Objective
    degree: float
    value: float
    label: str = "gradient flow with a shifted clock"
    ncf: OriginNCF = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ncf", OriginNCF(self.objective))

    @property
    def size(self) -> int:
        return self.objective.model.n_params + 1

    @property
    def clock(self) -> Clock:
        return RescaledTime(self.degree - 2.0, np.arange(self.size - 1)) if self.degree > 2 else PhysicalTime()

    def potential(self, w: Array) -> Array:
        return self.objective.value(w[..., :-1])

    def velocity(self, w: Array) -> Array:
        return np.append(-self.objective.gradient(w[:-1]), self.excess(w[:-1]))

    def jacobian(self, w: Array) -> Array:
        raise NotImplementedError("only explicit methods are run on the shifted clock")

    def jacobian_product(self, w: Array, v: Array) -> Array:
        raise NotImplementedError("only explicit methods are run on the shifted clock")

    kinked = False

    @property
    def work_per_row(self) -> int:
        return self.objective.work_per_row

    def conserved(self, w: Array) -> Array:
        return w[..., :0]

    def excess(self, w: np.ndarray) -> float:
        """e(w) = dQ/dt - 1 along the training flow."""
        o, D, N = self.objective, self.degree, float(self.ncf.value(w))
        g, r2 = self.ncf.gradient(w), float(w @ w)
        # minus the part of the velocity that the NCF does not account for
        rest = o.model.pullback(w, o.X, 2.0 * o.scale * o.model.forward(w, o.X))
        if D == 2:
            return N / (r2 * self.value) - 1.0 - float(w @ rest) / (2 * self.value * r2)
        tangent = g - (D * N / r2) * w
        turning = float(tangent @ tangent)
        if turning <= NOISE**2 * float(g @ g):
            turning = 0.0
        # |grad N|^2 = D^2 N^2/|w|^2 + |tangent|^2 has been used to cancel the leading terms by hand
        return (r2 * turning / N**2 + 2 * float(w @ rest) / N - r2 * float(g @ rest) / N**2) / (D * (D - 2))

    def time(self, state: np.ndarray) -> float:
        """t - tau_delta at a state (w, E) of a flow from an aligned start."""
        w = state[:-1]
        if self.degree == 2:
            return math.log(float(np.linalg.norm(w))) / (2 * self.value) - float(state[-1])
        return -float(w @ w) / (self.degree * (self.degree - 2) * float(self.ncf.value(w))) - float(state[-1])

    def run(self, start: np.ndarray, event: Event, relative: float) -> np.ndarray:
        """The state (w, E) at the event, or NaNs; ``relative`` is delta in units of the natural size.

        E is allowed an error of 1e-5 of what the gap is made of, relative^2 in the flow's own unit of time.
        """
        n = start.size
        norm = float(np.linalg.norm(start))
        unit = norm**2 / relative**2 / (self.value * (norm / relative) ** self.degree)
        run = simulate(
            self,
            np.append(start, 0.0),
            t_end=math.inf,
            method="DOP853",
            clock=self.clock,
            rtol=RTOL,
            atol=np.append(np.full(n, RTOL * norm / math.sqrt(n)), 1e-5 * relative**2 * unit),
            events=[event],
            max_steps=3000,
        )
        return run.final if run.ok else np.full(n + 1, math.nan)


def _at_time(shifted: Shifted, t: float) -> Event:
    return Event("shifted time", lambda p: shifted.time(p.w) - t, 1, 1)


def deltas(D: float) -> np.ndarray:
    """Nine over four decades in units of the natural size, and one more for the last difference.

    The next term of the gap is (delta/size)^D smaller, so a higher degree may begin at a larger delta.
    """
    first = -1.0 if D < 3 else -0.5
    return 10.0 ** np.append(np.linspace(first, first - 4, 9), first - 4.5)


def differences(shifted: Shifted, u: np.ndarray, size: float) -> tuple[Fit, tuple[np.ndarray, float]]:
    """How fast psi(t + tau_delta, delta w*) settles, from its differences between neighbours of :func:`deltas`.

    At a t where half of the outputs' final size is reached.  Also returned: (p(t), t).
    """
    D = shifted.degree
    level = 0.5 ** (1 / D) * size
    grid = deltas(D)
    ends: list[np.ndarray] = []
    t = math.nan
    for d in grid:
        event = Event("level", lambda p: math.log(float(np.linalg.norm(p.w[:-1])) / level), 1, 1)
        end = shifted.run(d * size * u, event if not ends else _at_time(shifted, t), float(d))
        if not ends:
            t = shifted.time(end)
        ends.append(end[:-1])
    gaps = [float(np.linalg.norm(a - b)) / size for a, b in pairwise(ends)]
    return power_law(grid[:-1], gaps), (ends[-1], t)


def wrong_shift(shifted: Shifted, u: np.ndarray, size: float, limit: tuple[np.ndarray, float]) -> Fit:
    """The gap to p(t) at t + tau_delta, tau_delta that of delta w*, from half of delta w*."""
    p, t = limit
    grid = deltas(shifted.degree)[:-1:2]
    gaps = []
    for d in grid:
        start = 0.5 * d * size * u
        early = shifted.time(np.append(2 * start, 0.0)) - shifted.time(np.append(start, 0.0))
        end = shifted.run(start, _at_time(shifted, t - early), float(d))
        gaps.append(float(np.linalg.norm(end[:-1] - p)) / size)
    return power_law(grid, gaps)


# -- the orbit, whatever the time -----------------------------------------------------------------------


def _slowest(o: Objective, point: KKTPoint) -> np.ndarray:
    """A unit vector 0.1 off w* along the eigenvector of its second-order gap."""
    basis = tangent_basis(point.u)
    b = basis @ np.linalg.eigh(basis.T @ OriginNCF(o).hessian(point.u) @ basis)[1][:, -1]
    return math.cos(0.1) * point.u + math.sin(0.1) * b


def _joining(o: Objective, w0: np.ndarray, u: np.ndarray, size: float) -> Fit:
    """Distance of the flow from delta w0 from the orbit of p (of ``u``), where |w| passes 0.3 of the natural size."""
    grid = np.logspace(-2, -6, 9)
    there = _passing(o, 1e-7 * size * u, 0.3 * size)
    gaps = [float(np.linalg.norm(_passing(o, d * size * w0, 0.3 * size) - there)) / size for d in grid]
    return power_law(grid, gaps)


def _passing(o: Objective, start: np.ndarray, level: float) -> np.ndarray:
    run = simulate(o, start, t_end=math.inf, method="DOP853", rtol=RTOL, events=[norm_level(level)], max_steps=3000)
    return run.final if run.ok else np.full(start.size, math.nan)
