"""Run many gradient flows at once: one loop, B trajectories, each with its own step, clock, events and end.

Rows share evaluations and nothing else.  A row that fails, blows up or has met its last event is taken
out; the others go on with the numbers they would have had alone (to a small part of their tolerance).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Event as Flag
from typing import Any, Literal, get_args

import numpy as np
from scipy.optimize import elementwise

from gfsim.arrays import Array, finite_array, positive, whole_number
from gfsim.errors import InvalidInput, unknown_name
from gfsim.flow.capture import captured
from gfsim.flow.clock import Clock, PhysicalTime
from gfsim.flow.events import Event, EventRecord, Past, Probe
from gfsim.flow.field import Field
from gfsim.flow.fixed_rows import FixedRows
from gfsim.flow.fixed_stepper import on_device
from gfsim.flow.integrator import COSTS, Attempt, Integrator
from gfsim.flow.one_row import OWN
from gfsim.flow.result import Counts, FlowResult, Status
from gfsim.flow.rows import RowField
from gfsim.flow.scipy_stepper import block_tolerances
from gfsim.flow.settings import as_field, check_end, check_events, check_outputs, make_clock
from gfsim.flow.standstill import DECADES, LOOKS, Standstill
from gfsim.flow.tableaus import FIXED
from gfsim.objective import Objective

Record = Literal["ends", "steps"]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
CHECK_NODES, CHECK_WEIGHTS = np.polynomial.legendre.leggauss(4)
AGREEMENT, MAX_HALVINGS = 1e-7, 7
"""A stretch of the clock is halved while its quadratures with six and with four nodes differ by more than
this; that of six nodes is then far better still, since its error is of the twelfth order and the other's of the
eighth."""


def simulate_batch(
    problem: Objective | Field,
    w0: np.ndarray,
    *,
    t_end: float | np.ndarray,
    method: str = "ndf",
    clock: str | Clock = "rescaled",
    rtol: float = 1e-6,
    blocks: Sequence[np.ndarray] | None = None,
    events: Sequence[Event] = (),
    t_eval: np.ndarray | Sequence[float] | None = None,
    step: float | None = None,
    device: str | None = None,
    capture: bool = False,
    record: Record = "ends",
    threads: int = 1,
    max_steps: int = 200_000,
    progress: bool = False,
) -> BatchResult:
    """The flows from the rows of ``w0``, each up to physical time ``t_end`` or its own last event.

    Parameters
    ----------
    problem : Objective or Field
        As for :func:`gfsim.flow.simulate.simulate`, whose clock, tolerances and blocks are meant here, row by row.
    w0 : (B, P)
        Starts; none may be the zero vector.
    t_end : float or (B,)
        End in physical time, of all rows or of each; ``math.inf`` when an event ends the run.
    method : str
        ``ndf`` (implicit, the default: it is also cheap where the flow is not stiff), ``rkc`` (stabilised
        explicit), ``dp5``, ``dp8`` (explicit), or ``euler``, ``heun``, ``rk4`` with a fixed ``step``.
    clock, rtol, blocks, step
        As for :func:`gfsim.flow.simulate.simulate`.
    device : str, optional
        ``None`` computes on NumPy arrays; ``"cpu"``, ``"cuda"`` on torch tensors there, in float64.
    capture : bool
        On a CUDA device, record the evaluations that come back as graphs (:mod:`gfsim.flow.capture`): for small nets,
        whose kernels are shorter than their launches.
    record : ``"ends"`` or ``"steps"``
        Keep start, end and events of every row, or every accepted step as well.  ``t_eval`` times are kept
        in both cases.
    threads : int
        Every ``threads``-th row goes to a loop of its own, and the loops run side by side; NumPy lets go of the
        interpreter while it works.  Worth a second core from a few dozen rows on.  Not for a ``device``, where torch
        has threads of its own (``torch.set_num_threads``).
    events, t_eval, max_steps, progress
        As for :func:`gfsim.flow.simulate.simulate`; an event's function sees (m, P) weights and returns (m,).

    Returns
    -------
    BatchResult
        Never raises for a numerical failure: each row has its own status.

    Raises
    ------
    InvalidInput, UnknownName
        For arguments that make no sense.
    """
    flow = as_field(problem)
    start = _check_starts(flow, w0)
    check_events(events)
    end = _check_ends(t_end, len(start), events)
    max_steps = whole_number(max_steps, "max_steps")
    targets = check_outputs(t_eval, float(end.max()))
    if record not in get_args(Record):
        raise unknown_name("record", record, get_args(Record))
    threads = whole_number(threads, "threads")
    if threads > 1 and device is not None:
        raise InvalidInput(f"threads = {threads} with device={device!r}; use torch.set_num_threads there, or no device")
    used_rtol: float | None = None
    build: Callable[[Field, Array], Integrator]
    if method in FIXED:
        if step is None:
            raise InvalidInput(f"method {method!r} needs a fixed step in physical time: pass step=...")
        if clock not in ("rescaled", "t") and not getattr(clock, "physical", False):
            raise InvalidInput(f"method {method!r} steps in physical time; leave clock out")
        h, ticking = positive(step, "step"), PhysicalTime()
        if np.isfinite(end).all():
            max_steps = max(max_steps, math.ceil(float(end.max()) / h) + 1)
        build = lambda place, w: FixedRows(RowField(place, ticking, w), w, FIXED[method], step=h)  # noqa: E731
    elif method in OWN:
        if step is not None:
            raise InvalidInput(f"step belongs to the fixed-step methods {sorted(FIXED)}, not to {method!r}")
        chosen = make_clock(clock, flow)
        ticking = chosen  # type: ignore[assignment]
        with np.errstate(all="ignore"):
            rate = chosen.rate(start)
        if not (np.isfinite(rate) & (rate > 0)).all():
            bad = int(np.flatnonzero(~(np.isfinite(rate) & (rate > 0)))[0])
            raise InvalidInput(
                f"clock {chosen.name} has dt/ds = {rate[bad]:g} at row {bad} of w0; the weights that set its pace must "
                "not be zero or too small for float64: choose another block, or clock='t'"
            )
        tolerance = used_rtol = positive(rtol, "rtol")
        if tolerance < 2.3e-14:
            raise InvalidInput(f"rtol = {rtol:g} is below what float64 can resolve; use at least 1e-13")

        def build(place: Field, w: Array) -> Integrator:
            rows = RowField(place, chosen, w)
            atol = rows.const(block_tolerances(_numpy(w), tolerance, blocks), w)
            return OWN[method](rows, w, rtol=tolerance, atol=atol)
    else:
        raise unknown_name("batch method", method, [*OWN, *FIXED])
    asked = None if t_eval is None else np.asarray(t_eval, dtype=float)
    floor = block_tolerances(start, 1.0, blocks)
    stop = Flag()
    bar = _progress_bar(progress, len(start))
    runs: list[_BatchRun] = []
    jobs: list[Callable[[], None]] = []
    for part in (np.arange(k, len(start), threads) for k in range(min(threads, len(start)))):
        place, w = (flow, start[part].copy()) if device is None else on_device(flow, start[part], device)
        if capture:
            place = captured(place, device)
        run = _BatchRun(
            flow, place, ticking, start[part], tuple(events), targets, end[part], floor[part], record, part, stop, bar
        )
        if asked is not None and asked[0] == 0:
            for trace in run.traces:
                trace.at_targets.append(trace.w[0])
        runs.append(run)
        jobs.append(partial(run.go, partial(build, place, w), max_steps))
    try:
        _side_by_side(jobs, stop)
    finally:
        if bar is not None:
            bar.close()
    traces = [runs[k % len(runs)].traces[k // len(runs)] for k in range(len(start))]
    return BatchResult(flow, method, ticking.name, used_rtol, traces, asked)


def _side_by_side(jobs: Sequence[Callable[[], None]], stop: Flag) -> None:
    """Every job in a thread of its own; an error or Ctrl-C in one ends them all."""
    if len(jobs) == 1:
        jobs[0]()
        return

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(guarded, job) for job in jobs]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            stop.set()
            for future in futures:
                future.result()


def _check_starts(field: Field, w0: np.ndarray) -> np.ndarray:
    start = finite_array(w0, "w0", ndim=2)
    if start.shape[1] != field.size:
        raise InvalidInput(
            f"w0 has shape {start.shape}; {field.label} has {field.size} weights: pass (B, {field.size})"
        )
    zero = ~start.any(axis=1)
    if zero.any():
        raise InvalidInput(
            f"row {int(np.flatnonzero(zero)[0])} of w0 is the zero vector, a critical point: nothing moves there"
        )
    return start


def _check_ends(t_end: float | np.ndarray, rows: int, events: Sequence[Event]) -> np.ndarray:
    given = np.asarray(t_end)
    if given.shape not in ((), (rows,)):
        raise InvalidInput(f"t_end has shape {given.shape}; give one time, or one for each of the {rows} rows")
    ends = np.array([check_end(end, events) for end in given.ravel().tolist()])
    return np.broadcast_to(ends, (rows,)) if given.shape == () else ends


@dataclass
class Trace:
    """One trajectory of a batch while it runs."""

    w: list[np.ndarray]
    s: list[float] = dataclasses.field(default_factory=lambda: [0.0])
    t: list[float] = dataclasses.field(default_factory=lambda: [0.0])
    dt: list[float] = dataclasses.field(default_factory=list)
    pending: float = 0.0
    events: list[EventRecord] = dataclasses.field(default_factory=list)
    hits: dict[str, int] = dataclasses.field(default_factory=dict)
    at_targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    status: Status = Status.MAX_STEPS
    detail: str = ""
    counts: Counts = dataclasses.field(default_factory=Counts)

    def add(self, s: float, t: float, w: np.ndarray, elapsed: float) -> None:
        """A row at ``elapsed`` after the last one that was added or left pending."""
        self.s.append(s)
        self.t.append(t)
        self.w.append(w)
        self.dt.append(self.pending + elapsed)
        self.pending = 0.0


@dataclass
class BatchResult:
    """B trajectories; ``result[k]`` is the k-th as a :class:`gfsim.flow.result.FlowResult`.

    Attributes
    ----------
    field : Field
        What flowed; ``field.label`` says it with its convention (sum or mean).
    method, clock, rtol
        Of the integration; ``rtol`` is None for a fixed step.
    traces : list of Trace
        What was recorded, a row each.
    targets : (len(t_eval),) or None
        The times asked for.
    final : (B, P)
        Where each ended.
    t : (B,)
        Physical time of the end, in the objective's convention (sum or mean).
    ok : (B,) of bool
        Whether the end time or a terminal event was reached.
    status : list of Status
    at_times : (B, len(t_eval), P)
        Weights at ``t_eval``; NaN at times that a trajectory did not reach.
    """

    field: Field = dataclasses.field(repr=False)
    method: str
    clock: str
    rtol: float | None
    traces: list[Trace] = dataclasses.field(repr=False)
    targets: np.ndarray | None = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.traces)

    def __iter__(self) -> Iterator[FlowResult]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> FlowResult:
        trace = self.traces[k]
        return FlowResult(
            field=self.field,
            method=self.method,
            clock=self.clock,
            s=np.array(trace.s),
            t=np.array(trace.t),
            w=np.array(trace.w),
            dt=np.array(trace.dt),
            events=trace.events,
            status=trace.status,
            detail=trace.detail,
            counts=trace.counts,
            rtol=self.rtol,
        )

    @property
    def final(self) -> np.ndarray:
        """Where each flow ended: (B, P)."""
        return np.array([trace.w[-1] for trace in self.traces])

    @property
    def t(self) -> np.ndarray:
        """Physical time of each end, in the objective's convention: (B,)."""
        return np.array([trace.t[-1] for trace in self.traces])

    @property
    def status(self) -> list[Status]:
        """How each flow ended."""
        return [trace.status for trace in self.traces]

    @property
    def ok(self) -> np.ndarray:
        """Whether each reached its end time or a terminal event: (B,) of bool."""
        return np.array([trace.status.ok for trace in self.traces])

    @property
    def counts(self) -> Counts:
        """The cost of all rows together."""
        total = Counts()
        for name in total.__dataclass_fields__:
            setattr(total, name, sum(getattr(trace.counts, name) for trace in self.traces))
        return total

    @property
    def at_times(self) -> np.ndarray:
        """Weights at ``t_eval``: (B, len(t_eval), P); NaN where a flow did not get."""
        if self.targets is None:
            raise InvalidInput("no t_eval was given to simulate_batch; pass the times to be recorded")
        out = np.full((len(self), len(self.targets), self.field.size), np.nan)
        for k, trace in enumerate(self.traces):
            if trace.at_targets:
                out[k, : len(trace.at_targets)] = trace.at_targets
        return out

    def summary(self) -> str:
        """A few lines: how many ended how, what it cost."""
        kinds: dict[str, int] = {}
        for status in self.status:
            kinds[status.name.lower()] = kinds.get(status.name.lower(), 0) + 1
        c = self.counts
        lines = [
            f"{len(self)} flows: {self.field.label}",
            f"  {self.method}, clock {self.clock}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
            f"  {c.accepted} steps, {c.velocity} velocities, {c.jacobian} Jacobians, "
            f"{c.hessian_product} Hessian-vector products, {c.overflow_rejected} overflows rejected",
        ]
        lines += [
            f"  row {k}: {trace.detail}. Try: {trace.status.value[2]}."
            for k, trace in enumerate(self.traces)
            if not trace.status.ok
        ][:5]
        return "\n".join(lines)


class _BatchRun:
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
        accepted, stuck = _numpy(attempt.accepted), _numpy(attempt.stuck)
        slots = np.flatnonzero(accepted)  # places in the integrator's batch
        ended = np.zeros(len(self.live), dtype=bool)
        if len(slots):
            ended[slots] = self._take(integrator, attempt, slots)
        for slot in _places(stuck):
            row = int(self.live[slot])
            overflow = int(_numpy(integrator.counts["overflow_rejected"])[slot]) > 0
            kind = Status.OVERFLOW if overflow else Status.STEP_UNDERFLOW
            s = float(_numpy(integrator.s)[slot])
            self._close(row, integrator, kind, f"stopped at s = {s:.6g}, t = {self.t[row]:.6g}", slot=slot)
            ended[slot] = True
        if ended.any():
            index = np.flatnonzero(~ended)
            integrator.keep(_like(index, integrator.w))
            self.live = self.live[index]

    def _take(self, integrator: Integrator, attempt: Attempt, slots: np.ndarray) -> np.ndarray:
        """Times, events and records of the accepted steps; which rows have ended."""
        rows = self.live[slots]
        s0, s1 = _numpy(attempt.start)[slots], _numpy(attempt.end)[slots]
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
                before = _numpy(attempt.w_start)[slots[j]].copy()
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
            ends = _numpy(attempt.w_end)[slots[keep]]
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
                if self.watch[row].sees(float(s1[j]), _numpy(attempt.w_end)[slots[j]]):
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
        for name in COSTS:
            setattr(trace.counts, name, int(_numpy(integrator.counts[name])[place]))
        if not finished and trace.pending > 0:
            s, w = float(_numpy(integrator.s)[place]), _numpy(integrator.w)[place].copy()
            trace.add(s, float(self.t[row]), w, 0.0)

    # -- physical time -----------------------------------------------------------------------------

    def _rate(self, attempt: Attempt, slots: np.ndarray, s: np.ndarray) -> np.ndarray:
        part = attempt.at(_like(slots, attempt.w_end), _like(s, attempt.w_end), self.ticking.block)
        return _numpy(self.ticking.rate_of(part))

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
        return _numpy(w)[:, 0]

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

    def _gauges(self, w: Array, rows: np.ndarray) -> np.ndarray:
        """(events, m) values at weights (m, P) of the rows (m,)."""
        probe = Probe(_Chunked(self.place, self.rows), w, self.past, rows)
        out = np.empty((len(self.events), len(rows)))
        for k, event in enumerate(self.events):
            value = _numpy(event.function(probe))
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
        at_middle = attempt.at(_like(slots, attempt.w_end), _like(middle[:, None], attempt.w_end))[:, 0]
        ends = attempt.w_end if len(slots) == len(attempt.w_end) else attempt.w_end[_like(slots, attempt.w_end)]
        values = [self.before[:, rows], self._gauges(at_middle, rows), self._gauges(ends, rows)]
        self.before[:, rows] = values[-1]
        stations = [s0, middle, s1]
        found: list[tuple[int, float, Event]] = []
        undefined = [(int(j), self.events[k]) for k, j in np.argwhere(np.isnan(values[1]) | np.isnan(values[2]))]
        for k, event in enumerate(self.events):
            for left in (0, 1):
                a, b = values[left][k], values[left + 1][k]
                up, down = (a < 0) & (b >= 0), (a > 0) & (b <= 0)
                crossed = (up & (event.direction >= 0)) | (down & (event.direction <= 0))
                j = np.flatnonzero(crossed)
                if len(j):
                    s = self._event_roots(event, attempt, slots, j, stations[left], stations[left + 1], a, b)
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
            value = _numpy(event.function(Probe(_Chunked(self.place, self.rows), w, self.past, self.live[slots[k]])))
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


def _numpy(x: Array) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else np.asarray(x) if np.isscalar(x) else x.detach().cpu().numpy()


def _like(values: np.ndarray, w: Array) -> Array:
    """An index or clock array where ``w`` is."""
    if isinstance(w, np.ndarray):
        return values
    import torch

    return torch.as_tensor(values, device=w.device)


def _progress_bar(wanted: bool, total: int) -> Any:
    if not wanted:
        return None
    from tqdm import tqdm

    return tqdm(total=total, desc="flows", unit=" ended", mininterval=0.3, leave=False)
