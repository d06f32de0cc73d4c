"""Events: scalar functions along a flow whose zeros are found to root accuracy.

An event is looked for at the ends and at the middle of every accepted step, on the solver's own
interpolant, so two crossings in different halves of one step are both seen; its place is then found by
Brent's method.  A level of the loss, which only falls along a flow, is looked for at the ends alone.  A
function that is exactly zero at the start has not crossed.  A function may depend on the past only
through :class:`Past`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gfsim.arrays import Array, finite_array, namespace, positive
from gfsim.errors import InvalidInput
from gfsim.flow.field import Field

HALVES, WHOLE = ((0, 1), (1, 2)), ((0, 2),)
"""Between which of a step's begin, middle and end a crossing is looked for: of any event, of a monotone one."""

LARGEST = float(np.finfo(float).max)


@dataclass
class Past:
    """What an event may know of the trajectory so far."""

    peak_speed: Array = 0.0
    """The largest |dw/dt| that any event has asked for up to now: one number, or (B,) for a batch."""


class Probe:
    """The flow at one instant; loss and speed are computed once, when first asked for.

    ``w`` is (P,), or (m, P) for the trajectories ``rows`` (m,) of a batch; everything else then has a
    leading axis m, and an event's function returns (m,) numbers.
    """

    def __init__(self, field: Field, w: Array, past: Past, rows: Array | None = None) -> None:
        self.field, self.w, self.past, self.rows = field, w, past, rows

    @cached_property
    def potential(self) -> Array:
        """L(w) (or N(u) along an NCF flow)."""
        return self.field.potential(self.w)

    @cached_property
    def speed(self) -> Array:
        """|dw/dt| = |grad L(w)|."""
        speed = norm(self.field.velocity(self.w))
        if self.rows is None:
            self.past.peak_speed = max(self.past.peak_speed, speed)
        else:
            self.past.peak_speed[self.rows] = namespace(speed).maximum(self.past.peak_speed[self.rows], speed)
        return speed

    @property
    def peak_speed(self) -> Array:
        """The largest speed that was asked for on this trajectory so far."""
        return self.past.peak_speed if self.rows is None else self.past.peak_speed[self.rows]


def norm(w: Array) -> Array:
    """|w| over the last axis."""
    return (w * w).sum(-1) ** 0.5


def log(x: Array) -> Array:
    """The logarithm of a number or array kept within float64: a block may start at zero, a speed overflow."""
    if isinstance(x, float):  # np.float64 too
        return np.log(min(max(x, 1e-300), LARGEST))
    return namespace(x).log(x.clip(min=1e-300, max=LARGEST))


@dataclass(frozen=True)
class Event:
    """``function(probe)`` changes sign.

    For :func:`gfsim.flow.batch.simulate_batch` the function must work over a leading axis, as those of this
    module do.

    ``direction`` +1 counts upward crossings only, -1 downward, 0 both; after ``terminal`` of them
    (0: never) the integration stops.  With ``after`` only crossings count that come after the first one
    of the event of that name: "stationary, but not before the escape".  A ``monotone`` function never
    turns round along a flow: the ends of a step tell all, and no evaluation is spent inside.
    """

    name: str
    function: Callable[[Probe], Array]
    direction: int = 0
    terminal: int = 0
    after: str = ""
    monotone: bool = False

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1) or self.terminal < 0:
            raise InvalidInput(
                f"event {self.name!r}: direction = {self.direction}, terminal = {self.terminal}; "
                "direction is -1, 0 or 1 and terminal the number of crossings that stop the flow (0: none)"
            )

    def crossed(self, before: float, after: float) -> bool:
        up = before < 0 <= after
        down = before > 0 >= after
        return (up and self.direction >= 0) or (down and self.direction <= 0)


@dataclass(frozen=True, eq=False)
class EventRecord:
    """One crossing: its physical time ``t``, clock ``s``, and weights (P,).

    ``row`` is its place in the trajectory, for :meth:`gfsim.flow.result.FlowResult.time_between`; None when
    the recorded rows were fixed beforehand (``t_eval``, fixed-step methods) and the crossing is not the last of them.
    """

    name: str
    t: float
    s: float
    w: np.ndarray = field(repr=False)
    row: int | None = None


def loss_level(level: float, *, terminal: int = 1) -> Event:
    """L falls through ``level``, in the objective's convention (sum or mean).

    After ``terminal`` such crossings the flow stops (0: never).
    """
    level = float(finite_array(level, "loss level"))
    return Event(f"loss <= {level:.4g}", lambda p: p.potential - level, -1, terminal, monotone=True)


def norm_level(level: float, block: np.ndarray | None = None, *, name: str = "|w|", terminal: int = 1) -> Event:
    """The norm of a block of weights rises through ``level``.

    ``block`` holds flat indices (``None``: all weights); ``name`` is what records and messages call the norm.
    After ``terminal`` such crossings the flow stops (0: never).
    """
    goal = positive(level, "norm level")

    def gap(p: Probe) -> Array:
        return log(norm(p.w if block is None else p.w[..., block])) - math.log(goal)

    return Event(f"{name} >= {goal:.4g}", gap, 1, terminal)


def arrival(point: np.ndarray, radius: float, *, name: str = "saddle", terminal: int = 1) -> Event:
    """The flow enters the ball of the given radius around ``point`` (P,), which records call ``name``.

    After ``terminal`` such crossings the flow stops (0: never).
    """
    centre, r = finite_array(point, "point", ndim=1), positive(radius, "radius")
    return Event(f"arrival at {name}", lambda p: _distance(p.w, centre) - r, -1, terminal)


def departure(point: np.ndarray, radius: float, *, name: str = "saddle", terminal: int = 1) -> Event:
    """The flow leaves the ball of the given radius around ``point`` (P,), which records call ``name``.

    After ``terminal`` such crossings the flow stops (0: never).
    """
    centre, r = finite_array(point, "point", ndim=1), positive(radius, "radius")
    return Event(f"exit from {name}", lambda p: _distance(p.w, centre) - r, 1, terminal)


def _distance(w: Array, centre: np.ndarray) -> Array:
    xp = namespace(w)
    return norm(w - (centre if xp is np else xp.as_tensor(centre, dtype=w.dtype, device=w.device)))


def stationarity(tolerance: float = 1e-6, *, after: str = "", terminal: int = 1) -> Event:
    """|grad L| falls below ``tolerance`` times the largest |grad L| met so far.

    Relative to the past, because near a saddle of degree K the gradient is of order delta^(K-1) from
    the start: an absolute bound would stop the flow before it has moved.  With ``after`` it counts only
    after the first event of that name.  After ``terminal`` such crossings the flow stops (0: never).
    """
    tol = positive(tolerance, "stationarity tolerance")

    def gap(p: Probe) -> Array:
        speed = log(p.speed)  # first: asking for it updates the peak
        return speed - log(p.peak_speed) - math.log(tol)

    return Event(f"|grad L| <= {tol:.2g} of its peak", gap, -1, terminal, after)


def slow(level: float, *, terminal: int = 1) -> Event:
    """|grad L| falls through the absolute ``level``.

    After ``terminal`` such crossings the flow stops (0: never).
    """
    goal = positive(level, "gradient level")
    return Event(f"|grad L| <= {goal:.2g}", lambda p: log(p.speed) - math.log(goal), -1, terminal)
