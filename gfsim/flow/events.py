"""Events: scalar functions along a flow whose zeros are found to root accuracy.

An event is looked for at the ends and at the middle of every accepted step, on the solver's own
interpolant, so two crossings in different halves of one step are both seen; its place is then found by
Brent's method.  A function that is exactly zero at the start has not crossed.  A function may depend on
the past only through :class:`Past`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gfsim.arrays import finite_array, positive
from gfsim.errors import InvalidInput
from gfsim.flow.field import Field


@dataclass
class Past:
    """What an event may know of the trajectory so far."""

    peak_speed: float = 0.0
    """The largest |dw/dt| that any event has asked for up to now."""


class Probe:
    """The flow at one instant; loss and speed are computed once, when first asked for."""

    def __init__(self, field: Field, w: np.ndarray, past: Past) -> None:
        self.field, self.w, self.past = field, w, past

    @cached_property
    def potential(self) -> float:
        """L(w) (or N(u) along an NCF flow)."""
        return float(self.field.potential(self.w))

    @cached_property
    def speed(self) -> float:
        """|dw/dt| = |grad L(w)|."""
        speed = float(np.linalg.norm(self.field.velocity(self.w)))
        self.past.peak_speed = max(self.past.peak_speed, speed)
        return speed


@dataclass(frozen=True)
class Event:
    """``function(probe)`` changes sign.

    ``direction`` +1 counts upward crossings only, -1 downward, 0 both; after ``terminal`` of them
    (0: never) the integration stops.  With ``after`` only crossings count that come after the first one
    of the event of that name: "stationary, but not before the escape".
    """

    name: str
    function: Callable[[Probe], float]
    direction: int = 0
    terminal: int = 0
    after: str = ""

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

    ``row`` is its place in the trajectory, for :meth:`FlowResult.time_between`; None when the recorded
    rows were fixed beforehand (``t_eval``, fixed-step methods) and the crossing is not the last of them.
    """

    name: str
    t: float
    s: float
    w: np.ndarray = field(repr=False)
    row: int | None = None


def loss_level(level: float, *, terminal: int = 1) -> Event:
    """L falls through ``level``."""
    level = float(finite_array(level, "loss level"))
    return Event(f"loss <= {level:.4g}", lambda p: p.potential - level, -1, terminal)


def norm_level(level: float, block: np.ndarray | None = None, *, name: str = "|w|", terminal: int = 1) -> Event:
    """The norm of a block of weights (``None``: all) rises through ``level``."""
    goal = positive(level, "norm level")

    def gap(p: Probe) -> float:
        size = float(np.linalg.norm(p.w if block is None else p.w[block]))
        return float(np.log(max(size, 1e-300) / goal))  # a block may start at zero

    return Event(f"{name} >= {goal:.4g}", gap, 1, terminal)


def arrival(point: np.ndarray, radius: float, *, name: str = "saddle", terminal: int = 1) -> Event:
    """The flow enters the ball of the given radius around ``point`` (P,)."""
    centre, r = finite_array(point, "point", ndim=1), positive(radius, "radius")
    return Event(f"arrival at {name}", lambda p: float(np.linalg.norm(p.w - centre)) - r, -1, terminal)


def departure(point: np.ndarray, radius: float, *, name: str = "saddle", terminal: int = 1) -> Event:
    """The flow leaves the ball of the given radius around ``point`` (P,)."""
    centre, r = finite_array(point, "point", ndim=1), positive(radius, "radius")
    return Event(f"exit from {name}", lambda p: float(np.linalg.norm(p.w - centre)) - r, 1, terminal)


def stationarity(tolerance: float = 1e-6, *, after: str = "", terminal: int = 1) -> Event:
    """|grad L| falls below ``tolerance`` times the largest |grad L| met so far.

    Relative to the past, because near a saddle of degree K the gradient is of order delta^(K-1) from
    the start: an absolute bound would stop the flow before it has moved.
    """
    tol = positive(tolerance, "stationarity tolerance")

    def gap(p: Probe) -> float:
        speed = max(p.speed, 1e-300)  # first: asking for it updates the peak
        return float(np.log(speed / (tol * max(p.past.peak_speed, 1e-300))))

    return Event(f"|grad L| <= {tol:.2g} of its peak", gap, -1, terminal, after)


def slow(level: float, *, terminal: int = 1) -> Event:
    """|grad L| falls through the absolute ``level``."""
    goal = positive(level, "gradient level")
    return Event(f"|grad L| <= {goal:.2g}", lambda p: float(np.log(max(p.speed, 1e-300) / goal)), -1, terminal)
