"""Arguments that a single flow and a batch of flows have in common, checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gfsim.arrays import finite_array
from gfsim.errors import InvalidInput, unknown_name
from gfsim.flow.clock import Clock, PhysicalTime, RescaledTime
from gfsim.flow.events import Event
from gfsim.flow.field import Descent, Field
from gfsim.objective import Objective


def as_field(problem: Objective | Field) -> Field:
    """An objective's descent; a field as it is."""
    field = Descent(problem) if isinstance(problem, Objective) else problem
    if not hasattr(field, "velocity"):
        raise InvalidInput(f"problem is a {type(problem).__name__}; pass an Objective(model, X, y) or a Field")
    return field


def largest_array(field: Field) -> int:
    """Numbers in the largest array of a trajectory that forms no matrix of the size of its Jacobian."""
    return max(field.work_per_row, field.size)


def check_events(events: Sequence[Event]) -> None:
    if not isinstance(events, (list, tuple)) or not all(isinstance(event, Event) for event in events):
        raise InvalidInput(f"events = {events!r}; give a list of events, such as [loss_level(0.1)]")
    names = [event.name for event in events]
    if len(set(names)) != len(names):
        raise InvalidInput(f"event names must be distinct; got {names}")
    for event in events:
        if event.after and event.after not in names:
            raise unknown_name("event", event.after, names)


def check_end(t_end: float, events: Sequence[Event]) -> float:
    try:
        end = float(t_end)
    except (TypeError, ValueError):
        end = math.nan
    if not end > 0:
        raise InvalidInput(f"t_end = {t_end!r}; it must be a positive time (math.inf when an event ends the run)")
    if math.isinf(end) and not any(event.terminal for event in events):
        raise InvalidInput(
            "t_end is infinite and no terminal event can end the run; give a finite t_end or a terminal event"
        )
    return end


def check_outputs(t_eval: np.ndarray | Sequence[float] | None, t_end: float) -> np.ndarray | None:
    if t_eval is None:
        return None
    times = finite_array(t_eval, "t_eval", ndim=1)
    if (np.diff(times) <= 0).any() or times[0] < 0 or times[-1] > t_end:
        raise InvalidInput(
            f"t_eval must increase strictly within [0, t_end = {t_end:g}]; got {times[0]:g} .. {times[-1]:g}"
        )
    return times[times > 0]


def make_clock(clock: str | Clock, field: Field) -> Clock:
    if not isinstance(clock, str):
        if not (hasattr(clock, "rate") and hasattr(clock, "rate_gradient")):
            raise InvalidInput(f"clock = {clock!r}; give 'rescaled', 't', or a clock such as saddle.clock")
        return clock
    if clock == "t":
        return PhysicalTime()
    if clock == "rescaled":
        degree = field.degree
        return RescaledTime(degree - 2.0) if degree is not None and degree > 2 else PhysicalTime()
    raise unknown_name("clock", clock, ["t", "rescaled"])


def check_rate(clock: Clock, start: np.ndarray) -> None:
    try:
        with np.errstate(all="ignore"):
            rate = float(clock.rate(start))
    except IndexError as exc:
        raise InvalidInput(f"clock {clock.name}: its block does not fit {start.size} weights ({exc})") from None
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidInput(
            f"clock {clock.name} has dt/ds = {rate:g} at w0; the weights that set its pace must not be zero "
            "or too small for float64: choose another block, or clock='t'"
        )
