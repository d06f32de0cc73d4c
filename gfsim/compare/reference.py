"""The reference solution of a problem: two independent accurate runs that must agree, kept in a cache.

At every section the reference knows the state not only at the section's own level but at nine levels around it, so
that a state which some integrator calls the same place, and is not quite, can be compared at ITS level.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from gfsim.compare.problems import Problem
from gfsim.compare.section import Section, crossed
from gfsim.errors import GfsimError, InvalidInput, OutputError
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.neurons import split_by_norm

NODES = 9
"""Levels at which a section's neighbourhood is known: Chebyshev points in ln(level), the section in the middle."""

RECIPES: tuple[tuple[str, float, int], ...] = (
    ("DOP853", 1e-12, 4000),
    ("LSODA", 1e-11, 60_000),
    ("Radau", 1e-10, 8000),
)
"""Method, rtol and steps allowed, in the order in which they are tried; the first two that finish are compared.

On a stiff flow DOP853 runs out of steps and the two implicit families check each other."""

LARGE = 2000
"""Above this many weights dense Hessians are out of the question, and two explicit pairs check each other."""

LARGE_RECIPES: tuple[tuple[str, float, int], ...] = (("DOP853", 1e-12, 20_000), ("RK45", 1e-10, 100_000))

FORMAT = "5"
"""Of the cached files; part of their key."""

WINDOW = 1e-7
"""Where interpolation between the nodes is worse than this, the flow is followed from the nearest of them instead."""

ON_THE_SPOT = 1e-7
"""A state whose level is this close to the section's, relatively, is taken to be on it."""

PROFILE = 64
"""Points along the reference at which its largest curvature is measured."""


class ReferenceRefused(GfsimError, RuntimeError):
    """The two reference solutions do not agree, or could not be computed."""


@dataclass(frozen=True)
class Place:
    """The reference near one section.

    Attributes
    ----------
    section : Section
    levels : (NODES,), states : (NODES, P)
        The middle one is the section itself.
    t : float
        Physical time there, in the problem's convention.
    blocks : dict
        Named blocks of weights whose relative errors are reported: the "large" and the "small" neurons there.
    window : float
        Relative error of interpolating between the nodes.
    """

    section: Section
    levels: np.ndarray = field(repr=False)
    states: np.ndarray = field(repr=False)
    t: float
    blocks: dict[str, np.ndarray] = field(repr=False)
    window: float

    @property
    def state(self) -> np.ndarray:
        return self.states[len(self.levels) // 2]

    def at(self, level: float, problem: Problem) -> np.ndarray | None:
        """The state at a level near the section's; None where the reference does not reach that far."""
        if abs(level / self.section.level - 1.0) <= ON_THE_SPOT:
            return self.state
        if not self.levels.min() <= level <= self.levels.max():
            return None
        if self.window <= WINDOW or problem.kinked:
            return barycentric(np.log(self.levels), self.states, math.log(level))
        return self._followed(level, problem)

    def _followed(self, level: float, problem: Problem) -> np.ndarray | None:
        """The state at ``level`` by following the flow from the last node before it."""
        direction = self.section.direction
        before = [k for k, node in enumerate(self.levels) if direction * (node - level) < 0]
        if not before:
            return self.states[int(np.argmin(np.abs(np.log(self.levels / level))))]
        nearest = max(before, key=lambda k: direction * self.levels[k])
        result = simulate(
            problem.objective,
            self.states[nearest],
            t_end=math.inf,
            method="LSODA",
            clock=problem.clock,
            rtol=1e-10,
            blocks=list(problem.blocks) or None,
            events=[self.section.at(level).event("there", terminal=True)],
            max_steps=20_000,
        )
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return result.final if result.status is Status.EVENT else None


@dataclass(frozen=True)
class Reference:
    """What a problem's runs are compared with.

    Attributes
    ----------
    places : list of Place, one a section
    accuracy : float
        Largest relative difference of the two solutions in any block at any section: errors below it mean nothing.
    solvers : tuple of str
        The two solutions.
    curve : (m, 3)
        Physical time, loss and largest Hessian eigenvalue (0 if none is positive) along the flow.
    seconds : float
        What it cost, when it was computed.
    cached : bool
    """

    places: list[Place]
    accuracy: float
    solvers: tuple[str, ...]
    curve: np.ndarray = field(repr=False)
    seconds: float
    cached: bool = False

    @property
    def t_end(self) -> float:
        return self.places[-1].t

    @property
    def stiffest(self) -> float:
        """Largest curvature met on the way."""
        return float(self.curve[:, 2].max())

    @property
    def stiffness(self) -> float:
        """lambda_max integrated over physical time: the number of explicit unit steps the horizon holds."""
        t, _, lam = self.curve.T
        a, b = np.maximum(lam[:-1], 1e-300), np.maximum(lam[1:], 1e-300)
        # the logarithmic mean: from the origin the curvature grows by many decades between two points
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(np.abs(b / a - 1.0) < 1e-6, a, (b - a) / np.log(b / a))
        return float((np.diff(t) * mean).sum())

    def curvature_at(self, loss: np.ndarray) -> np.ndarray:
        """Largest Hessian eigenvalue where the flow has these losses: like ``loss``."""
        order = np.argsort(self.curve[:, 1])
        return np.interp(loss, self.curve[order, 1], self.curve[order, 2])


def barycentric(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    """The polynomial through (x (m,), y (m, P)) at one point: (P,)."""
    gap = at - x
    if (gap == 0).any():
        return y[int(np.argmin(np.abs(gap)))]
    differences = x[:, None] - x[None, :] + np.eye(len(x))
    weight = 1.0 / (differences.prod(axis=1) * gap)
    return (weight @ y) / weight.sum()


# -- computing it ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Solution:
    """One accurate run: times and states at the levels asked for, and some states of the way: (m,), (m, P)."""

    name: str
    t: np.ndarray
    w: np.ndarray
    way_t: np.ndarray
    way_w: np.ndarray


def reference_for(
    problem: Problem, *, folder: Path | None = None, note: Callable[[str], None] = lambda _: None
) -> Reference:
    """The reference of a problem, from the cache if it is there.

    Parameters
    ----------
    folder : Path, optional
        Of the cache; :func:`cache_folder` by default.
    note : callable
        Told what is being done.

    Raises
    ------
    ReferenceRefused
    """
    place = cache_folder() if folder is None else folder
    path = place / f"{problem.name}-{key(problem)}.npz"
    found = _load(path, problem)
    if found is not None:
        return found
    note("computing the reference")
    reference = compute(problem, note=note)
    _save(path, reference, note)
    return reference


def compute(problem: Problem, *, note: Callable[[str], None] = lambda _: None) -> Reference:
    """Both solutions, cross-checked."""
    began = time.perf_counter()
    levels = [_levels(problem, section) for section in problem.sections]
    extra = [float(np.exp(np.log(rows[NODES // 2]) + 0.31 * np.log(rows[0] / rows[NODES // 2]))) for rows in levels]
    wanted = [
        (section.at(float(level)), section)
        for section, rows, test in zip(problem.sections, levels, extra, strict=True)
        for level in [*rows, test]
    ]
    marks = [mark for mark, _ in wanted]
    first, second = _two_solutions(problem, marks, note)
    places, differences = [], []
    for k, (section, rows) in enumerate(zip(problem.sections, levels, strict=True)):
        start = k * (NODES + 1)
        states, test = first.w[start : start + NODES], first.w[start + NODES]
        middle = start + NODES // 2
        blocks = error_blocks(problem, first.w[middle])
        guess = barycentric(np.log(rows), states, math.log(extra[k]))
        window = max(relative_errors(blocks, guess, test).values())
        places.append(Place(section, rows, states, float(first.t[middle]), blocks, window))
        differences.append(max(relative_errors(blocks, second.w[middle], first.w[middle]).values()))
    accuracy = max(differences)
    if not accuracy <= problem.agreement:
        worst = int(np.argmax(differences))
        raise ReferenceRefused(
            f"{problem.name}: the reference solutions {first.name} and {second.name} differ by {accuracy:.1e} at "
            f"{problem.sections[worst].name}, more than the {problem.agreement:.0e} allowed; nothing can be measured "
            "against them: end the problem earlier, or take a start that is less sensitive"
        )
    curve = _curve(problem.objective, first)
    return Reference(places, accuracy, (first.name, second.name), curve, time.perf_counter() - began)


def _levels(problem: Problem, section: Section) -> np.ndarray:
    """Chebyshev levels around a section, none of them beyond the start: (NODES,), the furthest from the end first."""
    start = section.value(problem.objective, problem.w0)
    room = abs(math.log(start / section.level)) if start > 0 else math.inf
    half = min(math.log(section.spread), 0.7 * room)
    x = np.cos(np.pi * np.arange(NODES) / (NODES - 1))
    x[NODES // 2] = 0.0
    return np.asarray(section.level * np.exp(-section.direction * half * x))


def _two_solutions(
    problem: Problem, marks: Sequence[Section], note: Callable[[str], None]
) -> tuple[_Solution, _Solution]:
    found: list[_Solution] = []
    problems: list[str] = []
    if problem.kinked:
        for step in (0.5 * problem.step, problem.step):
            note(f"reference: Heun with step {step:g}")
            found.append(_heun(problem, marks, step))
        return found[0], found[1]
    for method, rtol, steps in LARGE_RECIPES if problem.size > LARGE else RECIPES:
        note(f"reference: {method}, rtol {rtol:g}")
        solution, problem_met = _accurate(problem, marks, method, rtol, steps)
        if solution is not None:
            found.append(solution)
        else:
            problems.append(problem_met)
        if len(found) == 2:
            return found[0], found[1]
    raise ReferenceRefused(
        f"{problem.name}: fewer than two reference solutions reached {problem.end.name} ({'; '.join(problems)}); "
        "end the problem earlier"
    )


def _accurate(
    problem: Problem, marks: Sequence[Section], method: str, rtol: float, steps: int
) -> tuple[_Solution | None, str]:
    last = _furthest(problem, marks)
    result = simulate(
        problem.objective,
        problem.w0,
        t_end=math.inf,
        method=method,
        clock=problem.clock,
        rtol=rtol,
        blocks=list(problem.blocks) or None,
        events=[mark.event(str(k), terminal=k == last) for k, mark in enumerate(marks)],
        max_steps=steps,
    )
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if result.status is not Status.EVENT:
        return None, f"{method}: {result.message}"
    at = {record.name: record for record in reversed(result.events)}  # the first crossing of each
    missing = [marks[k].name for k in range(len(marks)) if str(k) not in at]
    if missing:
        return None, f"{method} met no {missing[0]} on its way"
    rows = [at[str(k)] for k in range(len(marks))]
    name = f"{method} at rtol {rtol:g}"
    return _Solution(name, np.array([r.t for r in rows]), np.array([r.w for r in rows]), result.t, result.w), ""


def _furthest(problem: Problem, marks: Sequence[Section]) -> int:
    """The mark that comes last along the flow: the outermost level of the last section."""
    own = [k for k in range(len(marks)) if k >= len(marks) - (NODES + 1)]
    return max(own, key=lambda k: problem.end.direction * marks[k].level)


def _heun(problem: Problem, marks: Sequence[Section], step: float) -> _Solution:
    """Heun's method with a small fixed step; crossings by the chord of the step they lie in."""
    o, w = problem.objective, problem.w0.copy()
    times, states = np.full(len(marks), np.nan), np.full((len(marks), w.size), np.nan)
    values = np.array([mark.value(o, w) for mark in marks])
    last, t, k = _furthest(problem, marks), 0.0, 0
    way_t, way_w = [0.0], [w.copy()]
    stride = 64
    while np.isnan(times[last]):
        g = o.gradient(w)
        new = w - step * 0.5 * (g + o.gradient(w - step * g))
        if not np.isfinite(new).all() or k > 5_000_000:
            raise ReferenceRefused(f"{problem.name}: Heun with step {step:g} did not reach {problem.end.name}")
        loss = float(o.value(new))
        after = np.array(
            [loss if mark.direction < 0 else mark.value(o, new) for mark in marks]
        )  # every loss level shares one evaluation
        for m in np.flatnonzero(np.isnan(times)).tolist():
            if crossed(marks[m], values[m], after[m]):
                part = (marks[m].level - values[m]) / (after[m] - values[m])
                times[m], states[m] = t + part * step, w + part * (new - w)
        w, values, t, k = new, after, t + step, k + 1
        if k % stride == 0:
            way_t.append(t)
            way_w.append(w.copy())
            if len(way_t) > 400:
                way_t, way_w, stride = way_t[::2], way_w[::2], 2 * stride
    if np.isnan(times).any():
        missing = marks[int(np.flatnonzero(np.isnan(times))[0])].name
        raise ReferenceRefused(f"{problem.name}: Heun with step {step:g} met no {missing} on its way")
    return _Solution(f"Heun, step {step:g}", times, states, np.array(way_t), np.array(way_w))


def error_blocks(problem: Problem, w: np.ndarray) -> dict[str, np.ndarray]:
    """Blocks whose relative errors count at ``w``: the neurons that are large there and those that are small.

    A single norm over all weights would not see an error of 100 % in weights of size delta.
    """
    model = problem.objective.model
    if isinstance(model, FeedForward) and model.depth > 1 and not problem.kinked:
        small = split_by_norm(model, w).index_z(model)
        if 0 < small.size < w.size:
            rest = np.setdiff1d(np.arange(w.size), small)
            return {"large": rest, "small": small}
    elif problem.blocks and not problem.kinked:
        return {f"block {k}": np.asarray(block) for k, block in enumerate(problem.blocks, start=1)}
    return {"all": np.arange(w.size)}


def relative_errors(blocks: dict[str, np.ndarray], w: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """|w_b - r_b| / |r_b| of every block (against |r| where the reference block is zero)."""
    whole = float(np.linalg.norm(reference))
    out = {}
    for name, index in blocks.items():
        size = float(np.linalg.norm(reference[index])) or whole
        out[name] = float(np.linalg.norm(w[index] - reference[index])) / size
    return out


def _curve(objective: Objective, solution: _Solution) -> np.ndarray:
    """Time, loss and largest curvature at some states of the way, evenly spread over its steps: (m, 3)."""
    chosen = np.unique(np.linspace(0, len(solution.way_t) - 1, PROFILE).astype(int))
    rows = [
        (
            float(solution.way_t[k]),
            float(objective.value(solution.way_w[k])),
            largest_curvature(objective, solution.way_w[k]),
        )
        for k in chosen
    ]
    return np.array(rows)


def largest_curvature(objective: Objective, w: np.ndarray) -> float:
    """Largest eigenvalue of Hess L(w), 0 if none is positive; to about one per cent."""
    if w.size <= 64:
        return max(float(np.linalg.eigvalsh(objective.hessian(w))[-1]), 0.0)
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator((w.size, w.size), matvec=lambda v: objective.hessian_product(w, v.ravel()), dtype=float)
    try:
        top = eigsh(operator, k=1, which="LA", tol=1e-2, v0=np.ones(w.size), maxiter=200, return_eigenvectors=False)
    except ArpackNoConvergence:
        # a Hessian that is zero to rounding has no largest eigenvalue to converge to
        return max(
            float(w.size**0.5 * np.linalg.norm(objective.hessian_product(w, np.ones(w.size) / w.size**0.5))), 0.0
        )
    return max(float(top[0]), 0.0)


# -- the cache ------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """``$GFSIM_CACHE``, else gfsim's folder in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("GFSIM_CACHE")
    if given:
        return Path(given).expanduser() / "references"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "gfsim" / "references"


def key(problem: Problem) -> str:
    """A hash of everything that the reference follows from."""
    o = problem.objective
    digest = hashlib.sha256()
    clock = problem.clock if isinstance(problem.clock, str) else problem.clock.name
    words = [FORMAT, repr(o.model), o.loss.name, o.reduction, clock, repr(problem.step), repr((RECIPES, LARGE_RECIPES))]
    words += [f"{section.key()} spread {section.spread!r}" for section in problem.sections]
    for word in words:
        digest.update(word.encode() + b"\0")
    for array in (o.X, o.y, problem.w0, *problem.blocks):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:20]


def _save(path: Path, reference: Reference, note: Callable[[str], None]) -> None:
    from gfsim.output import OutputDirectory

    arrays: dict[str, np.ndarray] = {
        "accuracy": np.array(reference.accuracy),
        "solvers": np.array(reference.solvers),
        "curve": reference.curve,
        "seconds": np.array(reference.seconds),
    }
    for k, place in enumerate(reference.places):
        arrays |= {
            f"levels{k}": place.levels,
            f"states{k}": place.states,
            f"t{k}": np.array(place.t),
            f"window{k}": np.array(place.window),
            f"names{k}": np.array(list(place.blocks)),
        }
        arrays |= {f"block{k}_{name}": index for name, index in place.blocks.items()}
    try:
        OutputDirectory(path.parent).write_arrays(path.name, arrays)
    except OutputError as exc:
        note(f"the reference is not kept for another time: {exc}")


def _load(path: Path, problem: Problem) -> Reference | None:
    try:
        # read whole first: numpy leaves a file open that it cannot make sense of
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        places = [
            Place(
                section,
                arrays[f"levels{k}"],
                arrays[f"states{k}"],
                float(arrays[f"t{k}"]),
                {str(name): arrays[f"block{k}_{name}"] for name in arrays[f"names{k}"]},
                float(arrays[f"window{k}"]),
            )
            for k, section in enumerate(problem.sections)
        ]
        return Reference(
            places,
            float(arrays["accuracy"]),
            tuple(str(s) for s in arrays["solvers"]),
            arrays["curve"],
            float(arrays["seconds"]),
            cached=True,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # a damaged file is computed again and overwritten


def check_order(problem: Problem, reference: Reference) -> None:
    """Refuse sections that the flow does not meet in the order in which the problem lists them."""
    for before, after in pairwise(reference.places):
        if not before.t <= after.t:
            raise InvalidInput(
                f"problem {problem.name!r}: {after.section.name} comes before {before.section.name} on the flow; "
                "list the sections in the order in which they are met"
            )
