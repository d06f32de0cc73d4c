"""One run of one method: what it cost, how far it is from the reference, and in words why it failed."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gfsim.compare.problems import Problem
from gfsim.compare.reference import ON_THE_SPOT, Reference, relative_errors
from gfsim.errors import GfsimError
from gfsim.jsonable import Json, to_jsonable
from gfsim.objective import Objective

SAMPLES = 40
"""Steps of a run at which h * lambda is looked at."""


class OutOfTime(Exception):
    """The time limit of a run has passed."""


class Watched(Objective):
    """An objective that counts its evaluations and stops whoever uses it when the time is over.

    The counts are of calls: an evaluation of a batch counts once.  ``seconds`` is the time spent in gradients, Hessians
    and products.
    """

    def __init__(self, objective: Objective, limit: float = math.inf) -> None:
        self.__dict__.update(objective.__dict__)
        self.calls = {"loss": 0, "rhs": 0, "jacobian": 0, "hvp": 0}
        self.seconds = 0.0
        self._deadline = time.perf_counter() + limit

    def _count(self, what: str) -> float:
        self.calls[what] += 1
        now = time.perf_counter()
        if now > self._deadline:
            raise OutOfTime
        return now

    def _timed(self, what: str, call: Callable[..., Any], *args: Any) -> Any:
        began = self._count(what)
        out = call(*args)
        self.seconds += time.perf_counter() - began
        return out

    def value(self, w: Any) -> Any:
        self._count("loss")
        return super().value(w)

    def gradient(self, w: Any) -> Any:
        return self._timed("rhs", super().gradient, w)

    def value_and_gradient(self, w: Any) -> Any:
        return self._timed("rhs", super().value_and_gradient, w)

    def hessian(self, w: Any) -> Any:
        return self._timed("jacobian", super().hessian, w)

    def hessian_product(self, w: Any, v: Any) -> Any:
        return self._timed("hvp", super().hessian_product, w, v)


@dataclass
class Outcome:
    """What a solver hands back: states at sections (by their number), its own counts, the steps it took.

    ``way`` is (physical step sizes (m,), losses (m,)) of some accepted steps, for h * lambda.  ``failure`` says in
    words what went wrong; empty if nothing did.
    """

    states: dict[int, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    way: tuple[np.ndarray, np.ndarray] | None = None
    failure: str = ""
    compile_seconds: float = 0.0


@dataclass
class Run:
    """A run beside the reference.

    Attributes
    ----------
    library, method, clock : str
        The clock is ``"t"`` (physical) or ``"s"`` (rescaled).
    setting : float
        rtol of an adaptive method, step times the largest curvature of a fixed-step one.
    fixed : bool
    errors : dict
        Section name -> block name -> relative error.
    error : float
        The largest of them; NaN for a failed run.
    counts : dict
        rhs, jacobian, hvp, factorisations, steps, loss (evaluations for events).
    wall, cpu : float
        Seconds, without compilation.
    evaluation_seconds : float
        The part of ``wall`` that went into gradients, Hessians and Hessian-vector products; 0 for a library that has
        its own.
    compile_seconds : float
    h_lambda : tuple of float
        Median and largest product of step and curvature; NaN when unknown.
    failure : str
        Empty for a run that reached its end.
    """

    library: str
    method: str
    clock: str
    setting: float
    fixed: bool = False
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    error: float = math.nan
    counts: dict[str, int] = field(default_factory=dict)
    wall: float = math.nan
    cpu: float = math.nan
    evaluation_seconds: float = 0.0
    compile_seconds: float = 0.0
    h_lambda: tuple[float, float] = (math.nan, math.nan)
    failure: str = ""

    @property
    def ok(self) -> bool:
        return not self.failure and math.isfinite(self.error)

    @property
    def id(self) -> str:
        return f"{self.library}:{self.method}"

    @property
    def evaluations(self) -> int:
        """Right-hand sides, Hessian-vector products and Jacobians, each counted once."""
        return sum(self.counts.get(name, 0) for name in ("rhs", "hvp", "jacobian"))

    def to_json(self) -> Json:
        return to_jsonable(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Run:
        """The run that :meth:`to_json` wrote."""
        values = {name: row[name] for name in cls.__dataclass_fields__}
        for name in ("setting", "error", "wall", "cpu", "evaluation_seconds", "compile_seconds"):
            values[name] = float(values[name])
        values["h_lambda"] = tuple(float(x) for x in values["h_lambda"])
        values["errors"] = {s: {b: float(e) for b, e in blocks.items()} for s, blocks in values["errors"].items()}
        return cls(**values)


def errors_against(
    reference: Reference, problem: Problem, states: Mapping[int, np.ndarray]
) -> tuple[dict[str, dict[str, float]], str]:
    """Relative error of every block at every section that was reached, and a complaint if one cannot be judged."""
    out: dict[str, dict[str, float]] = {}
    for k, w in sorted(states.items()):
        place = reference.places[k]
        level = place.section.value(problem.objective, w)
        if not np.isfinite(w).all() or not math.isfinite(level):
            return out, f"the state at {place.section.name} is not finite"
        ideal = place.at(level, problem)
        if ideal is None:
            low, high = place.levels.min(), place.levels.max()
            return out, (
                f"missed {place.section.name}: the state handed back for it has {level:.6g}, "
                f"and only {low:.4g} .. {high:.4g} can be judged"
            )
        out[place.section.name] = relative_errors(place.blocks, w, ideal)
    return out, ""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTime` inside the block after ``seconds``, wherever Python gets a chance to.

    Only in the main thread of a POSIX system; elsewhere the objective's own watch has to do.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable or not math.isfinite(seconds):
        yield
        return

    def handle(number: int, frame: Any) -> None:
        del number, frame
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def execute(
    problem: Problem,
    reference: Reference,
    run: Run,
    solve: Callable[[Watched], Outcome],
    *,
    limit: float,
    alarm: bool = True,
) -> Run:
    """Fill in ``run``: time the solver, judge its states, and turn whatever it raises into words.

    Without ``alarm`` nothing but the solver itself watches the limit: time that it spends compiling is not counted.
    """
    watched = Watched(problem.objective, limit if alarm else math.inf)
    outcome = Outcome()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        with time_limit(limit if alarm else math.inf), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a solver's trouble is told once, by the failure in words
            outcome = solve(watched)
    except OutOfTime:
        outcome.failure = f"stopped after the time limit of {limit:g} s"
    except KeyboardInterrupt:
        raise
    except GfsimError as exc:
        outcome.failure = " ".join(str(exc).split())
    except MemoryError:
        outcome.failure = "not enough memory"
    except Exception as exc:
        outcome.failure = f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}"
    run.compile_seconds = outcome.compile_seconds
    run.wall = time.perf_counter() - wall - outcome.compile_seconds
    run.cpu = time.process_time() - cpu
    run.evaluation_seconds = watched.seconds
    if outcome.compile_seconds:
        run.cpu = math.nan  # compilation cannot be told apart from it
    calls = watched.calls
    run.counts = {
        name: max(calls.get(name, 0), outcome.counts.get(name, 0))
        for name in ("rhs", "jacobian", "hvp", "factorisations", "steps", "loss")
    }
    run.errors, complaint = errors_against(reference, problem, outcome.states)
    run.failure = outcome.failure or complaint
    if not run.failure and len(problem.sections) - 1 not in outcome.states:
        run.failure = f"did not reach {problem.end.name}"
    if not run.failure:
        run.error = max(error for blocks in run.errors.values() for error in blocks.values())
    if outcome.way is not None:
        run.h_lambda = _h_lambda(reference, *outcome.way)
    return run


def _h_lambda(reference: Reference, steps: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    if not len(steps):
        return math.nan, math.nan
    products = steps * reference.curvature_at(losses)
    return float(np.median(products)), float(products.max())


def sampled_way(objective: Objective, dt: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some steps of a trajectory ``w`` (m + 1, P) with increments ``dt`` (m,), and the losses at their starts."""
    chosen = np.unique(np.linspace(0, len(dt) - 1, SAMPLES).astype(int)) if len(dt) else np.zeros(0, dtype=int)
    return dt[chosen], np.array([float(objective.value(w[k])) for k in chosen])


def unit_costs(objective: Objective, w: np.ndarray, *, seconds: float = 0.01) -> dict[str, float]:
    """Seconds of one gradient, Hessian-vector product, Hessian and LU factorisation here and now."""
    from scipy.linalg import lu_factor

    with np.errstate(all="ignore"):
        v = np.ones_like(w)
        out = {
            "rhs": _seconds(lambda: objective.gradient(w), seconds),
            "hvp": _seconds(lambda: objective.hessian_product(w, v), seconds),
            "jacobian": math.nan,
            "factorisations": math.nan,
        }
        if w.size <= 2000:
            H = objective.hessian(w)
            out["jacobian"] = _seconds(lambda: objective.hessian(w), seconds)
            out["factorisations"] = _seconds(lambda: lu_factor(np.eye(w.size) + H), seconds)
    return out


def _seconds(call: Callable[[], object], budget: float) -> float:
    """The smallest of five medians of three calls or more, each over ``budget`` seconds: other programs only add."""
    call()
    medians = []
    for _ in range(5):
        times: list[float] = []
        while len(times) < 3 or (sum(times) < budget and len(times) < 200):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        medians.append(float(np.median(times)))
    return min(medians)


def floor_of(reference: Reference) -> float:
    """Errors below this cannot be told from those of the reference."""
    return 3.0 * max(reference.accuracy, ON_THE_SPOT * 1e-2)
