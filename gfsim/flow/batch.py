"""Run many gradient flows at once: one loop, B trajectories, each with its own step, clock, events and end.

Rows share evaluations and nothing else.  A row that fails, blows up or has met its last event is taken
out; the others go on with the numbers they would have had alone (to a small part of their tolerance).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from threading import Event as Flag
from typing import get_args

import numpy as np

from gfsim.arrays import Array, finite_array, positive, whole_number
from gfsim.errors import InvalidInput, unknown_name
from gfsim.flow.batch_result import BatchResult
from gfsim.flow.batch_run import BatchRun, Record, as_numpy, progress_bar
from gfsim.flow.capture import captured
from gfsim.flow.clock import Clock, PhysicalTime
from gfsim.flow.events import Event
from gfsim.flow.field import Field
from gfsim.flow.fixed_rows import FixedRows
from gfsim.flow.fixed_stepper import on_device
from gfsim.flow.integrator import Integrator
from gfsim.flow.one_row import OWN
from gfsim.flow.rows import RowField
from gfsim.flow.scipy_stepper import block_tolerances
from gfsim.flow.settings import as_field, check_end, check_events, check_outputs, largest_array, make_clock
from gfsim.flow.tableaus import FIXED
from gfsim.objective import Objective
from gfsim.threads import alone


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
        ``ndf`` (implicit, the default: it is also cheap where the flow is not stiff), ``auto`` (each row explicit or
        implicit as it needs; ``result[k].phases``), ``rkc`` (stabilised explicit), ``dp5``, ``dp8`` (explicit), or
        ``euler``, ``heun``, ``rk4`` with a fixed ``step``.
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
            atol = rows.const(block_tolerances(as_numpy(w), tolerance, blocks), w)
            return OWN[method](rows, w, rtol=tolerance, atol=atol)
    else:
        raise unknown_name("batch method", method, [*OWN, *FIXED])
    asked = None if t_eval is None else np.asarray(t_eval, dtype=float)
    floor = block_tolerances(start, 1.0, blocks)
    stop = Flag()
    bar = progress_bar(progress, len(start))
    runs: list[BatchRun] = []
    jobs: list[Callable[[], None]] = []
    for part in (np.arange(k, len(start), threads) for k in range(min(threads, len(start)))):
        place, w = (flow, start[part].copy()) if device is None else on_device(flow, start[part], device)
        if capture:
            place = captured(place, device)
        run = BatchRun(
            flow, place, ticking, start[part], tuple(events), targets, end[part], floor[part], record, part, stop, bar
        )
        if asked is not None and asked[0] == 0:
            for trace in run.traces:
                trace.at_targets.append(trace.w[0])
        runs.append(run)
        jobs.append(partial(run.go, partial(build, place, w), max_steps))
    try:
        # of loops that run side by side each has its own thread already; torch has a setting of its own
        with nullcontext() if device is not None else alone(0 if len(jobs) > 1 else largest_array(flow)):
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
