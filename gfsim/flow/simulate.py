"""Run a gradient flow, or go on with one: the checks, the choice of the method, and the result.

The loop itself is :mod:`gfsim.flow.driver`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gfsim.arrays import finite_array, positive, whole_number
from gfsim.errors import InvalidInput, unknown_name
from gfsim.flow.checkpoint import Checkpoint, thaw
from gfsim.flow.clock import Clock, PhysicalTime
from gfsim.flow.driver import FIXED_STEP_ROWS, Run
from gfsim.flow.events import Event
from gfsim.flow.field import Field
from gfsim.flow.fixed_stepper import RULES, FixedStepper
from gfsim.flow.one_row import OWN, one_row
from gfsim.flow.result import Counts, FlowResult, Status
from gfsim.flow.scipy_stepper import METHODS, ScipyStepper, block_tolerances
from gfsim.flow.settings import (
    as_field,
    check_end,
    check_events,
    check_outputs,
    check_rate,
    largest_array,
    make_clock,
)
from gfsim.flow.stepper import Stepper
from gfsim.objective import Objective
from gfsim.threads import alone


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
    save_every: int = 0,
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
        ``auto`` chooses as it goes, explicit or implicit, and records its phases.  Of its parts, ``dp5`` and
        ``dp8`` are explicit and ``ndf`` is implicit with the symmetric systems of gradient flows; ``rkc`` is
        a stabilised explicit method.  scipy's: ``RK23``, ``RK45``, ``DOP853`` (explicit); ``BDF``, ``Radau``,
        ``LSODA`` (implicit, exact Jacobian).  With a fixed ``step``: ``euler``, ``heun``, ``rk4``.
        From the origin up to the first saddle the flow is non-stiff, near a saddle and at the end it is
        stiff.  A net whose activation has kinks (plain ReLU) comes to slide along them, where methods of
        high order and implicit ones take endless tiny steps: use ``RK23`` (or ``auto``, which then takes a
        third-order pair) with an ``rtol`` of about 1e-4, or a fixed step.
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
        record about :data:`gfsim.flow.driver.FIXED_STEP_ROWS` equally spaced steps instead of all.
    step, device : for the fixed-step methods
        The step in physical time; ``None`` for NumPy, or a torch device such as ``"cuda"``.
    max_steps : int
        Of an adaptive method, or while waiting for an event with an infinite ``t_end``; a fixed-step run
        to a finite ``t_end`` takes the t_end / step steps that this means.
    progress : bool
        A progress line on standard error.
    save_every : int
        Keep a checkpoint every so many accepted steps (0: none), from which :func:`resume` goes on bit for
        bit.  Not for scipy's methods, whose state cannot be saved.

    Returns
    -------
    FlowResult
        Never raises for a numerical failure: see its ``status`` and ``message``.

    Raises
    ------
    InvalidInput, UnknownName
        For arguments that make no sense.
    """
    field = as_field(problem)
    start = _check_start(field, w0)
    check_events(events)
    end = check_end(t_end, events)
    max_steps = whole_number(max_steps, "max_steps")
    targets = check_outputs(t_eval, end)
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
    elif method in METHODS or method in OWN:
        if step is not None or device is not None:
            raise InvalidInput(f"step and device belong to the fixed-step methods {sorted(RULES)}, not to {method!r}")
        ticking = make_clock(clock, field)
        check_rate(ticking, start)
        rel = used_rtol = positive(rtol, "rtol")
        if rel < 2.3e-14:
            raise InvalidInput(f"rtol = {rtol:g} is below what float64 can resolve; use at least 1e-13")
        floor = block_tolerances(start, 1.0, blocks)
        tolerances = rel * floor if atol is None else _check_atol(atol, start)
        if method in METHODS:
            s_end = end if ticking.physical else math.inf
            make = lambda: ScipyStepper(  # noqa: E731
                method, field, ticking, start, s_end=s_end, rtol=rel, atol=tolerances, counts=counts
            )
        else:
            make = lambda: one_row(  # noqa: E731
                method, field, ticking, start, rtol=rel, atol=tolerances, counts=counts
            )
    else:
        raise unknown_name("method", method, [*OWN, *METHODS, *RULES])
    if save_every:
        save_every = whole_number(save_every, "save_every")
        if method in METHODS:
            raise InvalidInput(
                f"save_every = {save_every} with method {method!r}, one of scipy's, whose state cannot be saved; "
                f"use one of {[*OWN, *RULES]}"
            )
    run = Run(field, ticking, start, tuple(events), targets, end, counts, floor, thin=thin, save_every=save_every)
    with alone(field.size**2 if method in METHODS else largest_array(field)):
        status, detail = run.go(make, max_steps, progress=progress)
    return _result(run, method, used_rtol, status, detail)


def resume(
    problem: Objective | Field,
    checkpoint: Checkpoint,
    *,
    t_end: float,
    events: Sequence[Event] = (),
    t_eval: np.ndarray | Sequence[float] | None = None,
    max_steps: int = 200_000,
    progress: bool = False,
    save_every: int = 0,
) -> FlowResult:
    """Go on from a checkpoint of :func:`simulate`, bit for bit as if the run had not been cut.

    Parameters
    ----------
    problem : Objective or Field
        The one that the checkpoint comes from.
    checkpoint : Checkpoint
        ``result.checkpoints[k]``, or :meth:`gfsim.flow.checkpoint.Checkpoint.load`.
    t_end, events, t_eval, max_steps, progress, save_every
        As for :func:`simulate`; times count from the original start, and the steps already made count for
        ``max_steps``.  An event of a name that the first run had keeps its number of crossings.

    Returns
    -------
    FlowResult
        From the checkpoint on; its counts include those before it.

    Raises
    ------
    InvalidInput
        If the checkpoint belongs to a flow of another size, or the end lies before it.
    """
    field = as_field(problem)
    if not isinstance(checkpoint, Checkpoint):
        raise InvalidInput(f"checkpoint is a {type(checkpoint).__name__}; pass one of result.checkpoints")
    if checkpoint.w.size != field.size:
        raise InvalidInput(f"the checkpoint has {checkpoint.w.size} weights; {field.label} has {field.size}")
    check_events(events)
    end = check_end(t_end, events)
    if end <= checkpoint.t:
        raise InvalidInput(f"t_end = {end:g} lies before the checkpoint at t = {checkpoint.t:g}; give a later time")
    targets = check_outputs(t_eval, end)
    if targets is not None:
        targets = targets[targets > checkpoint.t]
    stepper, counts, past, hits, standstill = thaw(checkpoint.state, field)
    run = Run(
        field,
        checkpoint.clock,
        checkpoint.w.copy(),
        tuple(events),
        targets,
        end,
        counts,
        block_tolerances(checkpoint.w, 1.0, None),
        thin=targets is None and isinstance(stepper, FixedStepper),
        save_every=whole_number(save_every, "save_every") if save_every else 0,
        start_s=checkpoint.s,
        start_t=checkpoint.t,
    )
    run.go_on(hits, past, standstill)
    with alone(largest_array(field)):
        status, detail = run.go(lambda: stepper, whole_number(max_steps, "max_steps"), progress=progress)
    return _result(run, stepper.name, stepper.rtol, status, detail)


def _result(run: Run, method: str, rtol: float | None, status: Status, detail: str) -> FlowResult:
    return FlowResult(
        field=run.field,
        method=method,
        clock=run.clock.name,
        s=np.array([row.s for row in run.rows]),
        t=np.array([row.t for row in run.rows]),
        w=np.array([row.w for row in run.rows]),
        dt=np.array([row.dt for row in run.rows[1:]]),
        events=run.records,
        status=status,
        detail=detail,
        counts=run.counts,
        rtol=rtol,
        phases=run.phases,
        checkpoints=run.checkpoints,
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
