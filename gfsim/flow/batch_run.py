"""The loop of a batch: attempts of an integrator; times, events and records of the rows whose step was accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any, Literal

import numpy as np
from scipy.optimize import elementwise

from gfsim.arrays import Array
from gfsim.errors import InvalidInput
from gfsim.flow.auto import Auto
from gfsim.flow.batch_result import Trace
from gfsim.flow.clock import Clock
from gfsim.flow.events import HALVES, WHOLE, Event, EventRecord, Past, Probe
from gfsim.flow.field import Field
from gfsim.flow.integrator import COSTS, Attempt, Integrator
from gfsim.flow.result import Status
from gfsim.flow.rows import RowField
from gfsim.flow.standstill import DECADES, LOOKS, Standstill

Record = Literal["ends", "steps"]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
CHECK_NODES, CHECK_WEIGHTS = np.polynomial.legendre.leggauss(4)
AGREEMENT, MAX_HALVINGS = 1e-7, 7
"""A stretch of the clock is halved while its quadratures with six and with four nodes differ by more than
this; that of six nodes is then far better still, since its error is of the twelfth order and the other's of the
eighth."""


class BatchRun:
    """State of one batch; ``live`` are the rows that the integrator still holds, in its order."""

    def __init__(
        self,
        flow: Field,
        place: Field,
        clock: Clock,
        start: np.ndarray,
        events: tuple[Event, ...],
        targets: np.ndarray | None,
        t_end: np.ndarray,
        floor: np.ndarray,
        record: Record,
        numbers: np.ndarray,
        stop: Flag,
        bar: Any,
    ) -> None:
        self.flow, self.place, self.clock, self.events = flow, place, clock, events
        self.targets, self.t_end, self.record = targets, t_end, record
        self.numbers, self.stop, self.bar = numbers, stop, bar
        self.traces = [Trace([w.copy()]) for w in start]
        self.live = np.arange(len(start))
        self.t = np.zeros(len(start))
        self.next_target = np.zeros(len(start), dtype=int)
        self.past = Past(np.zeros(len(start)))
        natural = not clock.physical or flow.degree is None or flow.degree <= 2
        self.watch = [Standstill(row) for row in floor] if np.isinf(t_end).any() and natural else None
        self.next_look = np.ones(len(start))
        self.before = np.zeros((len(events), len(start)))

    # -- the loop ----------------------------------------------------------------------------------

    def go(self, make: Callable[[], Integrator], max_steps: int) -> None:
        integrator: Integrator | None = None
        try:
            # a rejected trial step may overflow: counted, and reported by the status
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                integrator = make()
                self.rows = integrator.rows
                self.ticking = integrator.rows.clock
                self.before = self._first_gauges(integrator.w)
                for _ in range(max_steps):
                    if not len(self.live):
                        break
                    if self.stop.is_set():
                        raise KeyboardInterrupt
                    before = len(self.live)
                    self._one_attempt(integrator)
                    if self.bar is not None:
                        self.bar.update(before - len(self.live))
                for row in self.live.tolist():
                    self._close(row, integrator, Status.MAX_STEPS, f"{max_steps} attempts were made")
        except KeyboardInterrupt:
            if integrator is not None:
                for row in self.live.tolist():
                    self._close(
                        row,
                        integrator,
                        Status.INTERRUPTED,
                        f"interrupted at t = {self.t[row]:.6g}; kept as far as it is",
                    )

    def _one_attempt(self, integrator: Integrator) -> None:
        attempt = integrator.attempt()
        accepted, stuck = as_numpy(attempt.accepted), as_numpy(attempt.stuck)
        slots = np.flatnonzero(accepted)  # places in the integrator's batch
        ended = np.zeros(len(self.live), dtype=bool)
        if len(slots):
            ended[slots] = self._take(integrator, attempt, slots)
        for slot in _places(stuck):
            row = int(self.live[slot])
            overflow = int(as_numpy(integrator.counts["overflow_rejected"])[slot]) > 0
            kind = Status.OVERFLOW if overflow else Status.STEP_UNDERFLOW
            s = float(as_numpy(integrator.s)[slot])
            self._close(row, integrator, kind, f"stopped at s = {s:.6g}, t = {self.t[row]:.6g}", slot=slot)
            ended[slot] = True
        if ended.any():
            index = np.flatnonzero(~ended)
            self.live = self.live[index]
            if len(index):
                integrator.keep(_like(index, attempt.w_end))

    def _take(self, integrator: Integrator, attempt: Attempt, slots: np.ndarray) -> np.ndarray:
        """Times, events and records of the accepted steps; which rows have ended."""
        rows = self.live[slots]
        s0, s1 = as_numpy(attempt.start)[slots], as_numpy(attempt.end)[slots]
        elapsed = self._elapsed(attempt, slots, s0, s1)
        t1 = s1.copy() if self.clock.physical else self.t[rows] + elapsed
        stop_s, stop_t, stop_dt = s1.copy(), t1.copy(), elapsed.copy()
        ended = np.zeros(len(slots), dtype=bool)
        broken = ~np.isfinite(elapsed) | (np.isinf(self.t_end[rows]) & np.isinf(t1))
        left = self.t_end[rows] - self.t[rows]
        late = ~broken & (elapsed >= left)
        if late.any():
            some = np.flatnonzero(late)
            stop_s[some] = self._place(attempt, slots[some], s0[some], s1[some], left[some])
            stop_t[some], stop_dt[some] = self.t_end[rows[some]], left[some]
            ended[some] = True
        kinds = [Status.END_TIME] * len(slots)
        details = [""] * len(slots)
        for j in _places(broken):
            ended[j], kinds[j] = True, Status.OVERFLOW
            details[j] = f"physical time overflows after s = {s0[j]:.6g}, t = {self.t[rows[j]]:.6g}"
            # the last state that has a time is the one before this step
            stop_s[j], stop_t[j] = s0[j], self.t[rows[j]]
            if self.traces[rows[j]].pending > 0:
                before = as_numpy(attempt.w_start)[slots[j]].copy()
                self.traces[rows[j]].add(float(s0[j]), float(stop_t[j]), before, 0.0)
        found, undefined = self._crossings(attempt, slots, s0, s1)
        for j, s, event in found:
            if s > stop_s[j] or (ended[j] and kinds[j] is Status.EVENT):
                continue
            trace = self.traces[rows[j]]
            if event.after and not trace.hits.get(event.after):
                continue
            trace.hits[event.name] = trace.hits.get(event.name, 0) + 1
            passed = float(self._elapsed(attempt, slots[j : j + 1], s0[j : j + 1], np.array([s]))[0])
            t = float(s) if self.clock.physical else float(self.t[rows[j]]) + passed
            w = self._state(attempt, slots[j : j + 1], np.array([s]))[0]
            terminal = event.terminal > 0 and trace.hits[event.name] >= event.terminal
            trace.events.append(EventRecord(event.name, t, float(s), w, None))
            if terminal:
                stop_s[j], stop_t[j], stop_dt[j], ended[j] = s, t, passed, True
                kinds[j], details[j] = Status.EVENT, f"stopped by the event {event.name}"
        for j, event in undefined:
            if not ended[j]:
                ended[j], kinds[j] = True, Status.EVENT_UNDEFINED
                details[j] = f"event {event.name!r} is NaN before s = {s1[j]:.6g}, t = {t1[j]:.6g}"
        self._targets(attempt, slots, rows, s0, s1, stop_t)
        if self.record == "steps" or ended.any():
            keep = np.arange(len(slots)) if self.record == "steps" else np.flatnonzero(ended)
            keep = keep[~broken[keep]]
            ends = as_numpy(attempt.w_end)[slots[keep]]
            cut = stop_s[keep] < s1[keep]
            if cut.any():
                ends[cut] = self._state(attempt, slots[keep[cut]], stop_s[keep[cut]])
            for j, w in zip(keep, ends, strict=True):
                self.traces[rows[j]].add(float(stop_s[j]), float(stop_t[j]), w, float(stop_dt[j]))
        if self.record == "ends":
            for j in _places(~ended):
                self.traces[rows[j]].pending += float(elapsed[j])
        self.t[rows] = stop_t
        if self.watch is not None:
            for j in _places(~ended & (s1 >= self.next_look[rows])):
                row = int(rows[j])
                self.next_look[row] = max(1.0, s1[j]) * 10.0**DECADES
                if self.watch[row].sees(float(s1[j]), as_numpy(attempt.w_end)[slots[j]]):
                    ended[j], kinds[j] = True, Status.STANDSTILL
                    details[j] = f"nothing has moved for {LOOKS * DECADES} decades of the clock"
        for j in _places(ended):
            if len(self.traces[rows[j]].events) and kinds[j] is Status.EVENT:
                last = self.traces[rows[j]].events[-1]
                self.traces[rows[j]].events[-1] = EventRecord(
                    last.name, last.t, last.s, last.w, len(self.traces[rows[j]].w) - 1
                )
            recorded = kinds[j] is not Status.STANDSTILL  # which is noticed after the step was taken in
            self._close(int(rows[j]), integrator, kinds[j], details[j], slot=int(slots[j]), finished=recorded)
        return ended

    def _close(
        self, row: int, integrator: Integrator, status: Status, detail: str, *, slot: int | None = None,
        finished: bool = False,
    ) -> None:  # fmt: skip
        trace = self.traces[row]
        place = int(np.flatnonzero(self.live == row)[0]) if slot is None else slot
        trace.status, trace.detail = status, detail
        counts = integrator.counts
        for name in COSTS:
            setattr(trace.counts, name, int(as_numpy(counts[name])[place]))
        if isinstance(integrator, Auto):
            trace.phases = integrator.trails[place].phases
        if not finished and trace.pending > 0:
            s, w = float(as_numpy(integrator.s)[place]), as_numpy(integrator.w)[place].copy()
            trace.add(s, float(self.t[row]), w, 0.0)

    # -- physical time -----------------------------------------------------------------------------

    def _rate(self, attempt: Attempt, slots: np.ndarray, s: np.ndarray) -> np.ndarray:
        part = attempt.at(_like(slots, attempt.w_end), _like(s, attempt.w_end), self.ticking.block)
        return as_numpy(self.ticking.rate_of(part))

    def _elapsed(
        self, attempt: Attempt, slots: np.ndarray, a: np.ndarray, b: np.ndarray, halvings: int = MAX_HALVINGS
    ) -> np.ndarray:
        """Physical time between clock values a and b (m,) of the accepted steps ``slots``."""
        if self.clock.physical:
            return b - a
        half = 0.5 * (b - a)[:, None]
        rate = self._rate(attempt, slots, a[:, None] + half * (np.concatenate([NODES, CHECK_NODES]) + 1.0))
        sharp = half[:, 0] * (rate[:, :6] @ WEIGHTS)
        rough = half[:, 0] * (rate[:, 6:] @ CHECK_WEIGHTS)
        coarse = np.flatnonzero(np.abs(sharp - rough) > AGREEMENT * sharp)
        if len(coarse) and halvings:
            some, left, right = slots[coarse], a[coarse], b[coarse]
            middle = 0.5 * (left + right)
            sharp[coarse] = self._elapsed(attempt, some, left, middle, halvings - 1) + self._elapsed(
                attempt, some, middle, right, halvings - 1
            )
        return sharp

    def _place(
        self, attempt: Attempt, slots: np.ndarray, s0: np.ndarray, s1: np.ndarray, wanted: np.ndarray
    ) -> np.ndarray:
        """Clock values at which ``wanted`` (m,) physical time has passed since s0."""
        if self.clock.physical:
            return np.clip(s0 + wanted, s0, s1)
        whole = self._elapsed(attempt, slots, s0, s1)

        def gap(s: np.ndarray, k: np.ndarray) -> np.ndarray:
            return (self._elapsed(attempt, slots[k], s0[k], s) - wanted[k]) / whole[k]

        inside = (wanted > 0) & (wanted < whole)
        out = np.where(wanted <= 0, s0, s1)
        if inside.any():
            k = np.flatnonzero(inside)
            out[k] = _roots(gap, s0[k], s1[k], k)
        return out

    def _state(self, attempt: Attempt, slots: np.ndarray, s: np.ndarray) -> np.ndarray:
        w = attempt.at(_like(slots, attempt.w_end), _like(s[:, None], attempt.w_end))
        return as_numpy(w)[:, 0]

    def _targets(
        self,
        attempt: Attempt,
        slots: np.ndarray,
        rows: np.ndarray,
        s0: np.ndarray,
        s1: np.ndarray,
        stop_t: np.ndarray,
    ) -> None:
        if self.targets is None:
            return
        while True:
            pending = self.next_target[rows] < len(self.targets)
            due = np.where(pending, self.targets[np.minimum(self.next_target[rows], len(self.targets) - 1)], np.inf)
            j = np.flatnonzero(due <= stop_t)
            if not len(j):
                return
            s = self._place(attempt, slots[j], s0[j], s1[j], due[j] - self.t[rows[j]])
            for k, w in zip(j, self._state(attempt, slots[j], s), strict=True):
                self.traces[rows[k]].at_targets.append(w)
            self.next_target[rows[j]] += 1

    # -- events ------------------------------------------------------------------------------------

    def _gauges(self, w: Array, rows: np.ndarray, *, inside: bool = False) -> np.ndarray:
        """(events, m) values at weights (m, P) of the rows (m,); ``inside`` steps 0 for events not looked for there."""
        probe = Probe(_Chunked(self.place, self.rows), w, self.past, rows)
        out = np.zeros((len(self.events), len(rows)))
        for k, event in enumerate(self.events):
            if inside and event.monotone:
                continue
            value = as_numpy(event.function(probe))
            if value.shape != (len(rows),):
                raise InvalidInput(
                    f"event {event.name!r} returned shape {value.shape} for {len(rows)} rows; in a batch its function "
                    "must work over a leading axis and return one number a row"
                )
            out[k] = value
        return out

    def _first_gauges(self, w: Array) -> np.ndarray:
        out = self._gauges(w, self.live)
        if np.isnan(out).any():
            k, j = (int(i) for i in np.argwhere(np.isnan(out))[0])
            raise InvalidInput(
                f"event {self.events[k].name!r} is NaN at the start of row {self.numbers[j]}; "
                "its function must return a number wherever the flow can go"
            )
        return out

    def _crossings(
        self, attempt: Attempt, slots: np.ndarray, s0: np.ndarray, s1: np.ndarray
    ) -> tuple[list[tuple[int, float, Event]], list[tuple[int, Event]]]:
        """(place in ``slots``, clock value, event) of every crossing, in the order of the clock; (place, event) of
        every event that is NaN."""
        if not self.events:
            return [], []
        rows = self.live[slots]
        middle = 0.5 * (s0 + s1)
        between = self.before[:, rows]
        if not all(event.monotone for event in self.events):
            at_middle = attempt.at(_like(slots, attempt.w_end), _like(middle[:, None], attempt.w_end))[:, 0]
            between = self._gauges(at_middle, rows, inside=True)
        ends = attempt.w_end if len(slots) == len(attempt.w_end) else attempt.w_end[_like(slots, attempt.w_end)]
        values = [self.before[:, rows], between, self._gauges(ends, rows)]
        self.before[:, rows] = values[-1]
        stations = [s0, middle, s1]
        found: list[tuple[int, float, Event]] = []
        undefined = [(int(j), self.events[k]) for k, j in np.argwhere(np.isnan(values[1]) | np.isnan(values[2]))]
        for k, event in enumerate(self.events):
            for left, right in WHOLE if event.monotone else HALVES:
                a, b = values[left][k], values[right][k]
                up, down = (a < 0) & (b >= 0), (a > 0) & (b <= 0)
                crossed = (up & (event.direction >= 0)) | (down & (event.direction <= 0))
                j = np.flatnonzero(crossed)
                if len(j):
                    s = self._event_roots(event, attempt, slots, j, stations[left], stations[right], a, b)
                    found += [(int(i), float(x), event) for i, x in zip(j, s, strict=True)]
        return sorted(found, key=lambda item: (item[1], item[0])), undefined

    def _event_roots(
        self,
        event: Event,
        attempt: Attempt,
        slots: np.ndarray,
        j: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
    ) -> np.ndarray:
        def gauge(s: np.ndarray, k: np.ndarray) -> np.ndarray:
            w = attempt.at(_like(slots[k], attempt.w_end), _like(s[:, None], attempt.w_end))[:, 0]
            value = as_numpy(event.function(Probe(_Chunked(self.place, self.rows), w, self.past, self.live[slots[k]])))
            # the ends are known from the steps themselves; the interpolant may differ there by rounding
            return np.where(s == left[k], a[k], np.where(s == right[k], b[k], value))

        out = right[j].copy()
        inner = (b[j] != 0) & (left[j] < right[j])
        if inner.any():
            k = j[inner]
            out[inner] = _roots(gauge, left[k], right[k], k)
        return out


@dataclass(frozen=True)
class _Chunked:
    """A field whose evaluations over many rows are cut to the size of the processor's cache."""

    of: Field
    rows: RowField

    def potential(self, w: Array) -> Array:
        chunk = self.rows.rows_at_once
        if len(w) <= chunk:
            return self.of.potential(w)
        return self.rows.xp.concatenate([self.of.potential(w[k : k + chunk]) for k in range(0, len(w), chunk)])

    def velocity(self, w: Array) -> Array:
        return self.rows.slope(w)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def _roots(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], left: np.ndarray, right: np.ndarray, which: np.ndarray
) -> np.ndarray:
    """Sign changes of ``function(s, which)`` in the brackets (m,), to rounding, all at once."""
    found = elementwise.find_root(
        lambda s, k: function(s, k.astype(int)),
        (left, right),
        args=(which.astype(float),),
        tolerances={"xatol": 0.0, "xrtol": 1e-14, "fatol": 0.0, "frtol": 0.0},
        maxiter=100,
    )
    return np.where(np.isfinite(found.x), found.x, right)


def _places(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


def as_numpy(x: Array) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else np.asarray(x) if np.isscalar(x) else x.detach().cpu().numpy()


def _like(values: np.ndarray, w: Array) -> Array:
    """An index or clock array where ``w`` is."""
    if isinstance(w, np.ndarray):
        return values
    import torch

    return torch.as_tensor(values, device=w.device)


def progress_bar(wanted: bool, total: int) -> Any:
    if not wanted:
        return None
    from tqdm import tqdm

    return tqdm(total=total, desc="flows", unit=" ended", mininterval=0.3, leave=False)
