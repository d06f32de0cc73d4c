"""The loop of a single flow: it joins an integrator with clock, events and outputs.

Integrators step in the clock s (:mod:`gfsim.flow.clock`); physical time is recovered on every step by
Gauss-Legendre quadrature of dt/ds on the integrator's own interpolant.  Each increment is kept, so
time differences stay accurate even where t itself is 1e30.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from gfsim.errors import InvalidInput
from gfsim.flow.checkpoint import Checkpoint, freeze
from gfsim.flow.clock import Clock
from gfsim.flow.events import HALVES, WHOLE, Event, EventRecord, Past, Probe
from gfsim.flow.field import Field
from gfsim.flow.one_row import OneRow
from gfsim.flow.result import Counts, Phase, Status
from gfsim.flow.scipy_stepper import ScipyStepper, quiet
from gfsim.flow.standstill import DECADES, LOOKS, Standstill
from gfsim.flow.stepper import Segment, StepFailure, Stepper

NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
PLACES = np.concatenate([0.5 * (NODES + 1.0), 0.25 * (NODES + 1.0), 0.5 + 0.25 * (NODES + 1.0)])
SHARES = np.stack(
    [np.concatenate([0.5 * WEIGHTS, np.zeros(12)]), np.concatenate([np.zeros(6), 0.25 * WEIGHTS, 0.25 * WEIGHTS])]
)
"""Quadrature of dt/ds, exact to degree 11, on a panel of a step and on its halves at once: at the ``PLACES`` of the
panel [0, 1], by the rows of ``SHARES``."""

AGREEMENT, MAX_PANELS = 1e-8, 100
"""A panel is halved while it differs from its halves by more than AGREEMENT (the halves are then about
2^12 times better), up to MAX_PANELS in one step, where only rounding in s is left to blame."""

FIXED_STEP_ROWS = 200
"""Rows that a fixed-step run records when no ``t_eval`` is given (at most twice as many when its end is
not known beforehand): a quarter of a million iterations of a thousand weights would otherwise take 2 GB."""


class Row(NamedTuple):
    s: float
    t: float
    w: np.ndarray
    dt: float
    """Physical time since the row before."""


class Run:
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
        save_every: int = 0,
        start_s: float = 0.0,
        start_t: float = 0.0,
    ) -> None:
        self.field, self.clock, self.events = field, clock, events
        self.targets, self.t_end, self.counts = targets, t_end, counts
        self.past = Past()
        self.s, self.t, self.w = start_s, start_t, start
        self.next_target = 0
        self.records: list[EventRecord] = []
        self.hits = [0] * len(events)
        self.before: list[float] = []
        self.rows = [Row(start_s, start_t, start.copy(), 0.0)]
        self.phases: list[Phase] = []
        self.save_every, self.checkpoints = save_every, list[Checkpoint]()
        self.stride = 1
        self.thin = thin
        self.looks_at_ends_only = all(event.monotone for event in events)
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
                    steps = self.counts.accepted
                    outcome = self._one_segment(stepper)
                    if self.save_every and self.counts.accepted // self.save_every > steps // self.save_every:
                        self.checkpoints.append(self._save(stepper))
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
            if isinstance(stepper, OneRow):
                self.phases = stepper.phases
            if bar is not None:
                bar.close()

    # -- saving and going on -----------------------------------------------------------------------

    def _save(self, stepper: Stepper) -> Checkpoint:
        hits = {event.name: count for event, count in zip(self.events, self.hits, strict=True)}
        state = (stepper, self.counts, self.past, hits, self.standstill)
        return Checkpoint(self.clock, self.s, self.t, self.w.copy(), self.counts.accepted, freeze(state, self.field))

    def go_on(self, hits: dict[str, int], past: Past, standstill: Standstill | None) -> None:
        """Take over what a checkpoint knows of the past."""
        self.past, self.hits = past, [hits.get(event.name, 0) for event in self.events]
        if self.standstill is not None and standstill is not None:
            self.standstill = standstill

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
        if not math.isfinite(elapsed) or (math.isinf(self.t_end) and math.isinf(self._at(segment.end, elapsed))):
            raise StepFailure(Status.OVERFLOW, f"physical time overflows after s = {self.s:.6g}, t = {self.t:.6g}")
        end = Row(segment.end, self._at(segment.end, elapsed), segment.w_end, elapsed)
        stop = None
        if elapsed >= self.t_end - self.t:
            end = self._cut(segment, self._place(segment, self.t_end), self.t_end, self.t_end - self.t)
            stop = (Status.END_TIME, "")
        marks: list[Row] = []
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
            rate = self.clock.rate_of(segment.at(a + (b - a) * PLACES, self.clock.block))
            whole, halves = ((b - a) * (SHARES @ rate)).tolist()
            spare -= 1
            if spare > 0 and abs(halves - whole) > AGREEMENT * halves:
                middle = 0.5 * (a + b)
                panels += [(middle, b), (a, middle)]
            else:
                total += halves
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

    def _cut(self, segment: Segment, s: float, t: float, elapsed: float) -> Row:
        """The state at ``s`` as a row whose ``dt`` counts from the end of the last segment."""
        w = segment.w_end if s == segment.end else segment.at(np.array([s]))[0]
        return Row(s, t, w, elapsed)

    def _record(self, segment: Segment, marks: list[Row], end: Row, *, last: bool) -> None:
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

    def _add_row(self, row: Row) -> None:
        self.rows.append(row._replace(dt=row.dt + self._pending))
        self._pending = 0.0
        if self.thin and len(self.rows) > 2 * FIXED_STEP_ROWS:
            self.stride *= 2
            pairs = zip(self.rows[1::2], self.rows[2::2], strict=False)
            self.rows = [self.rows[0], *(late._replace(dt=early.dt + late.dt) for early, late in pairs)]

    def _close_row(self) -> None:
        if self._pending > 0:
            self._add_row(Row(self.s, self.t, self.w, 0.0))

    # -- events ------------------------------------------------------------------------------------

    def _gauges(self, w: np.ndarray, *, inside: bool = False) -> list[float]:
        """The events' values at ``w``; ``inside`` a step 0 for those that are not looked for there."""
        if not self.events:
            return []
        self.counts.event_probes += 1
        probe = Probe(self.field, w, self.past)
        return [0.0 if inside and event.monotone else _gauge(event, probe) for event in self.events]

    def _crossings(self, segment: Segment) -> list[tuple[float, str, bool]]:
        """(clock value, name, stops the flow) of every crossing in the segment, in order."""
        if not self.events:
            return []
        middle = 0.5 * (segment.start + segment.end)
        stations = [segment.start, middle, segment.end]
        between = (
            self.before if self.looks_at_ends_only else self._gauges(segment.at(np.array([middle]))[0], inside=True)
        )
        values = [self.before, between, self._gauges(segment.w_end)]
        found: list[tuple[float, int]] = []
        for k, event in enumerate(self.events):
            for left, right in WHOLE if event.monotone else HALVES:
                a, b = values[left][k], values[right][k]
                if event.crossed(a, b):
                    found.append((self._root(event, segment, stations[left], stations[right], a, b), k))
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


def _show(bar: Any, run: Run) -> None:
    grown = run.counts.accepted - bar.n
    if bar.update(grown):
        bar.set_postfix_str(
            f"t={run.t:.4g} L={float(run.field.potential(run.w)):.4g} |w|={np.linalg.norm(run.w):.3g}", refresh=False
        )
