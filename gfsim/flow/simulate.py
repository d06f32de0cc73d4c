"""Run a gradient flow: the one loop that joins integrator, clock, events and outputs.

Integrators step in the clock s (:mod:`gfsim.flow.clock`); physical time is recovered on every step by
Gauss-Legendre quadrature of dt/ds on the integrator's own interpolant.  Each increment is kept, so
time differences stay accurate even where t itself is 1e30.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from gfsim.arrays import finite_array, positive, whole_number
from gfsim.errors import InvalidInput, unknown_name
from gfsim.flow.clock import Clock, PhysicalTime, RescaledTime
from gfsim.flow.events import Event, EventRecord, Past, Probe
from gfsim.flow.field import Descent, Field
from gfsim.flow.fixed_stepper import RULES, FixedStepper
from gfsim.flow.result import Counts, FlowResult, Status
from gfsim.flow.scipy_stepper import METHODS, ScipyStepper, block_tolerances, quiet
from gfsim.flow.standstill import DECADES, LOOKS, Standstill
from gfsim.flow.stepper import Segment, StepFailure, Stepper
from gfsim.objective import Objective

NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
"""Quadrature of dt/ds, exact to degree 11, on a panel of a step and on its halves at once."""

AGREEMENT, MAX_PANELS = 1e-8, 100
"""A panel is halved while it differs from its halves by more than AGREEMENT (the halves are then about
2^12 times better), up to MAX_PANELS in one step, where only rounding in s is left to blame."""

FIXED_STEP_ROWS = 200
"""Rows that a fixed-step run records when no ``t_eval`` is given (at most twice as many when its end is
not known beforehand): a quarter of a million iterations of a thousand weights would otherwise take 2 GB."""


def simulate(
    problem: Objective | Field,
    w0: np.ndarray,
    *,
    t_end: float,
    method: str = "LSODA",
    clock: str | Clock = "rescaled",
    rtol: float = 1e-6,
    blocks: Sequence[np.ndarray] | None = None,
    atol: float | np.ndarray | None = None,
    events: Sequence[Event] = (),
    t_eval: np.ndarray | Sequence[float] | None = None,
    step: float | None = None,
    device: str | None = None,
    max_steps: int = 200_000,
    progress: bool = False,
) -> FlowResult:
    """The flow from ``w0`` up to physical time ``t_end`` or the first terminal event.

    Parameters
    ----------
    problem : Objective or Field
        An objective flows by dw/dt = -grad L, in its own sum or mean convention.
    w0 : (P,)
        Start; it must not be the zero vector, where nothing moves.
    t_end : float > 0
        End in physical time; ``math.inf`` when an event ends the run.
    method : str
        ``RK23``, ``RK45``, ``DOP853`` (explicit); ``BDF``, ``Radau``, ``LSODA`` (implicit, exact
        Jacobian); ``euler``, ``heun``, ``rk4`` with a fixed ``step``.  From the origin up to the first
        saddle the flow is non-stiff, near a saddle and at the end it is stiff.  A net whose activation
        has kinks (plain ReLU) comes to slide along them, where methods of high order and implicit ones
        take endless tiny steps: use ``RK23`` with an ``rtol`` of about 1e-4, or a fixed step.
    clock : ``"rescaled"``, ``"t"`` or a Clock
        ``"rescaled"`` is ds = |w|^(D-2) dt for a model of degree D > 2, and t itself otherwise.  Near a
        sparse saddle use the saddle's own clock.  Fixed-step methods always step in t.
    rtol : float
        Relative tolerance per weight.
    blocks : sequence of index arrays, optional
        Blocks whose own size at the start sets their absolute tolerance (:mod:`gfsim.flow.scipy_stepper`).
    atol : float or (P,), optional
        Overrides the block rule.
    events : sequence of Event
    t_eval : increasing times in (0, t_end], optional
        Record these (and start and end) instead of every accepted step and event.  Fixed-step methods
        record about :data:`FIXED_STEP_ROWS` equally spaced steps instead of all.
    step, device : for the fixed-step methods
        The step in physical time; ``None`` for NumPy, or a torch device such as ``"cuda"``.
    max_steps : int
        Of an adaptive method, or while waiting for an event with an infinite ``t_end``; a fixed-step run
        to a finite ``t_end`` takes the t_end / step steps that this means.
    progress : bool
        A progress line on standard error.

    Returns
    -------
    FlowResult
        Never raises for a numerical failure: see its ``status`` and ``message``.

    Raises
    ------
    InvalidInput, UnknownName
        For arguments that make no sense.
    """
    field = Descent(problem) if isinstance(problem, Objective) else problem
    if not hasattr(field, "velocity"):
        raise InvalidInput(f"problem is a {type(problem).__name__}; pass an Objective(model, X, y) or a Field")
    start = _check_start(field, w0)
    if not isinstance(events, (list, tuple)) or not all(isinstance(event, Event) for event in events):
        raise InvalidInput(f"events = {events!r}; give a list of events, such as [loss_level(0.1)]")
    end = _check_end(t_end, events)
    max_steps = whole_number(max_steps, "max_steps")
    targets = _check_outputs(t_eval, end)
    _check_events(events)
    counts = Counts()
    make: Callable[[], Stepper]
    thin = False
    if method in RULES:
        if step is None:
            raise InvalidInput(f"method {method!r} needs a fixed step in physical time: pass step=...")
        h = positive(step, "step")
        if clock not in ("rescaled", "t") and not getattr(clock, "physical", False):
            raise InvalidInput(f"method {method!r} steps in physical time; leave clock out")
        ticking: Clock = PhysicalTime()
        used_rtol = None
        if math.isfinite(end):
            max_steps = max(max_steps, math.ceil(end / h) + 1)
        if targets is None:
            thin = math.isinf(end)
            targets = None if thin else _every_so_often(end, h)
        floor = np.full(start.size, float(np.sqrt(np.mean(start**2))))
        make = lambda: FixedStepper(method, field, start, step=h, counts=counts, device=device)  # noqa: E731
    elif method in METHODS:
        if step is not None or device is not None:
            raise InvalidInput(f"step and device belong to the fixed-step methods {sorted(RULES)}, not to {method!r}")
        ticking = _make_clock(clock, field)
        _check_rate(ticking, start)
        rel = used_rtol = positive(rtol, "rtol")
        if rel < 2.3e-14:
            raise InvalidInput(f"rtol = {rtol:g} is below what float64 can resolve; use at least 1e-13")
        tolerances = block_tolerances(start, rel, blocks) if atol is None else _check_atol(atol, start)
        floor = block_tolerances(start, 1.0, blocks)
        s_end = end if ticking.physical else math.inf
        make = lambda: ScipyStepper(  # noqa: E731
            method, field, ticking, start, s_end=s_end, rtol=rel, atol=tolerances, counts=counts
        )
    else:
        raise unknown_name("method", method, [*METHODS, *RULES])
    run = _Run(field, ticking, start, tuple(events), targets, end, counts, floor, thin=thin)
    status, detail = run.go(make, max_steps, progress=progress)
    return FlowResult(
        field=field,
        method=method,
        clock=ticking.name,
        s=np.array([row.s for row in run.rows]),
        t=np.array([row.t for row in run.rows]),
        w=np.array([row.w for row in run.rows]),
        dt=np.array([row.dt for row in run.rows[1:]]),
        events=run.records,
        status=status,
        detail=detail,
        counts=counts,
        rtol=used_rtol,
    )


def _check_start(field: Field, w0: np.ndarray) -> np.ndarray:
    start = finite_array(w0, "w0", ndim=1).copy()
    if start.size != field.size:
        raise InvalidInput(f"w0 has {start.size} weights; {field.label} has {field.size}")
    if not start.any():
        raise InvalidInput(
            "w0 is the zero vector, a critical point: nothing moves there; start at delta * w0 with delta > 0"
        )
    return start


def _check_events(events: Sequence[Event]) -> None:
    names = [event.name for event in events]
    if len(set(names)) != len(names):
        raise InvalidInput(f"event names must be distinct; got {names}")
    for event in events:
        if event.after and event.after not in names:
            raise unknown_name("event", event.after, names)


def _check_end(t_end: float, events: Sequence[Event]) -> float:
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


def _check_outputs(t_eval: np.ndarray | Sequence[float] | None, t_end: float) -> np.ndarray | None:
    if t_eval is None:
        return None
    times = finite_array(t_eval, "t_eval", ndim=1)
    if (np.diff(times) <= 0).any() or times[0] < 0 or times[-1] > t_end:
        raise InvalidInput(
            f"t_eval must increase strictly within [0, t_end = {t_end:g}]; got {times[0]:g} .. {times[-1]:g}"
        )
    return times[times > 0]


def _every_so_often(t_end: float, h: float) -> np.ndarray:
    """Times of about FIXED_STEP_ROWS equally spaced steps, and the end."""
    steps = math.ceil(t_end / h)
    stride = math.ceil(steps / FIXED_STEP_ROWS)
    times = h * np.arange(stride, steps, stride)
    return np.append(times[times < t_end], t_end)


def _check_atol(atol: float | np.ndarray, start: np.ndarray) -> np.ndarray:
    given = finite_array(atol, "atol", ndim=(0, 1))
    if given.shape not in ((), start.shape) or (given < 0).any():
        raise InvalidInput(
            f"atol has shape {given.shape} and least entry {given.min():g}; "
            f"give one number >= 0, or {start.size} of them"
        )
    return np.broadcast_to(given, start.shape).copy()


def _make_clock(clock: str | Clock, field: Field) -> Clock:
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


def _check_rate(clock: Clock, start: np.ndarray) -> None:
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


class _Row(NamedTuple):
    s: float
    t: float
    w: np.ndarray
    dt: float
    """Physical time since the row before."""


class _Run:
    """State of one integration: rows, events, physical time.

    ``s``, ``t``, ``w`` are the end of the last finished segment.  They change together, after its rows
    and events were taken, so that an interruption at any moment leaves a trajectory that fits together.
    """

    def __init__(
        self,
        field: Field,
        clock: Clock,
        start: np.ndarray,
        events: tuple[Event, ...],
        targets: np.ndarray | None,
        t_end: float,
        counts: Counts,
        floor: np.ndarray,
        *,
        thin: bool,
    ) -> None:
        self.field, self.clock, self.events = field, clock, events
        self.targets, self.t_end, self.counts = targets, t_end, counts
        self.past = Past()
        self.s, self.t, self.w = 0.0, 0.0, start
        self.next_target = 0
        self.records: list[EventRecord] = []
        self.hits = [0] * len(events)
        self.before: list[float] = []
        self.rows = [_Row(0.0, 0.0, start.copy(), 0.0)]
        self.stride = 1
        self.thin = thin
        self._pending = 0.0  # physical time since the last row, as exact increments
        natural = not clock.physical or field.degree is None or field.degree <= 2
        self.standstill = Standstill(floor) if math.isinf(t_end) and natural else None

    # -- the loop ----------------------------------------------------------------------------------

    def go(self, make: Callable[[], Stepper], max_steps: int, *, progress: bool) -> tuple[Status, str]:
        bar = _progress_bar(progress)
        stepper: Stepper | None = None
        try:
            with quiet():
                stepper = make()
                self.before = self._gauges(self.w)
                while self.counts.accepted < max_steps:
                    outcome = self._one_segment(stepper)
                    if bar is not None:
                        _show(bar, self)
                    if outcome is not None:
                        return outcome
            self._close_row()
            return (
                Status.MAX_STEPS,
                f"{max_steps} steps were taken and t = {self.t:.6g} of {self.t_end:.6g} was reached",
            )
        except StepFailure as failure:
            self._close_row()
            return failure.status, failure.detail
        except KeyboardInterrupt:
            self._close_row()
            return Status.INTERRUPTED, f"interrupted at t = {self.t:.6g}; the trajectory so far is kept"
        finally:
            if isinstance(stepper, ScipyStepper):
                self.counts.factorisations = stepper.factorisations()
            if bar is not None:
                bar.close()

    def _limit(self) -> float:
        """How far a fixed-step method may run without looking up."""
        if self.events:
            return self.s  # one step at a time: an event may sit in any of them
        if self.targets is not None and self.next_target < len(self.targets):
            return min(float(self.targets[self.next_target]), self.t_end)
        return self.t_end

    def _one_segment(self, stepper: Stepper) -> tuple[Status, str] | None:
        segment = stepper.advance(self._limit())
        elapsed = self._elapsed(segment, segment.end)
        if not math.isfinite(elapsed):
            raise StepFailure(Status.OVERFLOW, f"physical time overflows after s = {self.s:.6g}, t = {self.t:.6g}")
        end = _Row(segment.end, self._at(segment.end, elapsed), segment.w_end, elapsed)
        stop = None
        if elapsed >= self.t_end - self.t:
            end = self._cut(segment, self._place(segment, self.t_end), self.t_end, self.t_end - self.t)
            stop = (Status.END_TIME, "")
        marks: list[_Row] = []
        for s, name, terminal in self._crossings(segment):
            if s > end.s:
                break
            passed = self._elapsed(segment, s)
            mark = self._cut(segment, s, self._at(s, passed), passed)
            row = None
            if terminal:
                end, stop = mark, (Status.EVENT, f"stopped by the event {name}")
            elif self.targets is None and not self.thin:
                marks.append(mark)
                row = len(self.rows) + len(marks) - 1
            self.records.append(EventRecord(name, mark.t, mark.s, mark.w, row))
            if terminal:
                break
        self._record(segment, marks, end, last=stop is not None)
        if stop is not None and stop[0] is Status.EVENT:
            self.records[-1] = dataclasses.replace(self.records[-1], row=len(self.rows) - 1)
        self.s, self.t, self.w = end.s, end.t, end.w
        if stop is None and self.standstill is not None and self.standstill.sees(self.s, self.w):
            raise StepFailure(
                Status.STANDSTILL,
                f"nothing has moved for {LOOKS * DECADES} decades of the clock, up to s = {self.s:.3g}",
            )
        return stop

    # -- physical time -----------------------------------------------------------------------------

    def _elapsed(self, segment: Segment, s: float) -> float:
        """Physical time from the end of the last segment to clock value ``s`` inside this one."""
        if self.clock.physical:
            return max(s - self.s, 0.0)
        if s <= segment.start:
            return 0.0
        total, panels, spare = 0.0, [(segment.start, s)], MAX_PANELS
        while panels:
            a, b = panels.pop()
            quarter, middle = 0.25 * (b - a), 0.5 * (a + b)
            grid = quarter * (NODES + 1.0)
            rate = self.clock.rate(segment.at(np.concatenate([a + 2.0 * grid, a + grid, middle + grid])))
            halves = quarter * (WEIGHTS @ rate[6:12] + WEIGHTS @ rate[12:])
            spare -= 1
            if spare > 0 and abs(halves - 2.0 * quarter * (WEIGHTS @ rate[:6])) > AGREEMENT * halves:
                panels += [(middle, b), (a, middle)]
            else:
                total += float(halves)
        return total

    def _at(self, s: float, elapsed: float) -> float:
        return s if self.clock.physical else self.t + elapsed

    def _place(self, segment: Segment, t: float) -> float:
        """Clock value in the segment at physical time ``t``."""
        if self.clock.physical:
            return min(max(t, segment.start), segment.end)
        wanted = t - self.t
        if wanted <= 0:
            return segment.start
        whole = self._elapsed(segment, segment.end)
        if wanted >= whole:
            return segment.end
        return _zero(lambda s: (self._elapsed(segment, s) - wanted) / whole, segment.start, segment.end)

    # -- rows --------------------------------------------------------------------------------------

    def _cut(self, segment: Segment, s: float, t: float, elapsed: float) -> _Row:
        """The state at ``s`` as a row whose ``dt`` counts from the end of the last segment."""
        w = segment.w_end if s == segment.end else segment.at(np.array([s]))[0]
        return _Row(s, t, w, elapsed)

    def _record(self, segment: Segment, marks: list[_Row], end: _Row, *, last: bool) -> None:
        if self.targets is not None:
            while self.next_target < len(self.targets) and self.targets[self.next_target] <= end.t:
                t = float(self.targets[self.next_target])
                marks.append(self._cut(segment, self._place(segment, t), t, t - self.t))
                self.next_target += 1
        done = 0.0
        for mark in marks:
            self._add_row(mark._replace(dt=mark.dt - done))
            done = mark.dt
        left = end.dt - done
        if last or (self.targets is None and self.counts.accepted % self.stride == 0):
            if self.rows[-1].t < end.t or self._pending + left > 0:
                self._add_row(end._replace(dt=left))
        else:
            self._pending += left

    def _add_row(self, row: _Row) -> None:
        self.rows.append(row._replace(dt=row.dt + self._pending))
        self._pending = 0.0
        if self.thin and len(self.rows) > 2 * FIXED_STEP_ROWS:
            self.stride *= 2
            pairs = zip(self.rows[1::2], self.rows[2::2], strict=False)
            self.rows = [self.rows[0], *(late._replace(dt=early.dt + late.dt) for early, late in pairs)]

    def _close_row(self) -> None:
        if self._pending > 0:
            self._add_row(_Row(self.s, self.t, self.w, 0.0))

    # -- events ------------------------------------------------------------------------------------

    def _gauges(self, w: np.ndarray) -> list[float]:
        if not self.events:
            return []
        self.counts.event_probes += 1
        probe = Probe(self.field, w, self.past)
        return [_gauge(event, probe) for event in self.events]

    def _crossings(self, segment: Segment) -> list[tuple[float, str, bool]]:
        """(clock value, name, stops the flow) of every crossing in the segment, in order."""
        if not self.events:
            return []
        middle = 0.5 * (segment.start + segment.end)
        stations = [segment.start, middle, segment.end]
        values = [self.before, self._gauges(segment.at(np.array([middle]))[0]), self._gauges(segment.w_end)]
        found: list[tuple[float, int]] = []
        for k, event in enumerate(self.events):
            for left in (0, 1):
                a, b = values[left][k], values[left + 1][k]
                if event.crossed(a, b):
                    found.append((self._root(event, segment, stations[left], stations[left + 1], a, b), k))
        self.before = values[-1]
        out: list[tuple[float, str, bool]] = []
        names = [event.name for event in self.events]
        for s, k in sorted(found):
            event = self.events[k]
            if event.after and self.hits[names.index(event.after)] == 0:
                continue
            self.hits[k] += 1
            out.append((s, event.name, event.terminal > 0 and self.hits[k] >= event.terminal))
        return out

    def _root(self, event: Event, segment: Segment, left: float, right: float, a: float, b: float) -> float:
        if b == 0 or not left < right:
            return right

        def gauge(s: float) -> float:
            # the ends are known from the steps themselves; the interpolant may differ there by rounding
            if s == left:
                return a
            if s == right:
                return b
            self.counts.event_probes += 1
            return _gauge(event, Probe(self.field, segment.at(np.array([s]))[0], self.past))

        return _zero(gauge, left, right)


def _zero(function: Callable[[float], float], left: float, right: float) -> float:
    """The sign change of ``function`` between two clock values, to rounding: s may be 1e-12 or 1e30 here."""
    smallest = 4 * np.spacing(max(abs(right), 1e-300))
    return float(brentq(function, left, right, xtol=smallest, rtol=1e-14, maxiter=200))


def _gauge(event: Event, probe: Probe) -> float:
    value = float(event.function(probe))
    if math.isnan(value):
        raise InvalidInput(
            f"event {event.name!r} is NaN at |w| = {np.linalg.norm(probe.w):.6g}; "
            "its function must return a number wherever the flow can go"
        )
    return value


def _progress_bar(wanted: bool) -> Any:
    if not wanted:
        return None
    from tqdm import tqdm

    return tqdm(desc="flow", unit=" steps", mininterval=0.3, leave=False)


def _show(bar: Any, run: _Run) -> None:
    grown = run.counts.accepted - bar.n
    if bar.update(grown):
        bar.set_postfix_str(
            f"t={run.t:.4g} L={float(run.field.potential(run.w)):.4g} |w|={np.linalg.norm(run.w):.3g}", refresh=False
        )
