"""The methods of a comparison that run in this process: plain scipy, everything that ``simulate`` knows, descent.

``simulate`` itself is asked which methods it has, so a method that the library gains takes part without a word here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from gfsim.compare.measure import Outcome, Run, Watched, execute, sampled_way, unit_costs
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference
from gfsim.compare.section import crossed
from gfsim.errors import InvalidInput, UnknownName, unknown_name
from gfsim.flow.result import Status
from gfsim.flow.scipy_stepper import IMPLICIT, METHODS, block_tolerances
from gfsim.flow.simulate import simulate
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective

STEPS = (1.0, 0.3, 0.1)
"""Steps of the fixed-step methods, in units of 1/lambda_max of the reference; Euler is unstable from 2 on."""

HORIZON = 2.0
"""Plain scipy needs an end time: this many times the reference's."""

Solve = Callable[[Problem, Reference, Watched, float], Outcome]


@dataclass(frozen=True)
class Method:
    """A method under test.

    Attributes
    ----------
    library : ``"scipy"`` (plain ``solve_ivp``), ``"gfsim"`` (``simulate``) or ``"descent"``
    name : str
    clock : ``"t"`` or ``"s"``
    fixed : bool
        Whether it takes a step instead of a tolerance.
    solve : callable
        (problem, reference, watched objective, rtol or step) -> Outcome.
    stages : int
        Right-hand sides a step of a fixed-step method, to tell hopeless requests beforehand.
    """

    library: str
    name: str
    clock: str
    solve: Solve = field(repr=False)
    fixed: bool = False
    stages: int = 1

    @property
    def id(self) -> str:
        return f"{self.library}:{self.name}"

    def settings(self, rtols: Sequence[float]) -> tuple[float, ...]:
        return STEPS if self.fixed else tuple(rtols)

    def run(self, problem: Problem, reference: Reference, setting: float, *, limit: float) -> Run:
        """One run; a fixed step is ``setting`` / lambda_max."""
        record = Run(self.library, self.name, self.clock, setting, self.fixed)
        if not self.fixed:
            return execute(
                problem, reference, record, lambda o: self.solve(problem, reference, o, setting), limit=limit
            )
        step = setting / max(reference.stiffest, 1e-300)
        seconds = reference.t_end / step * self.stages * unit_costs(problem.objective, problem.w0)["rhs"]
        if seconds > limit:
            record.failure = (
                f"not tried: {reference.t_end / step:.2g} steps of {step:.2g} would take {in_words(seconds)}, "
                f"the limit is {limit:g} s"
            )
            return record
        return execute(problem, reference, record, lambda o: self.solve(problem, reference, o, step), limit=limit)


def in_words(seconds: float) -> str:
    for size, unit in ((3.156e7, "years"), (86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


# -- plain scipy in physical time -----------------------------------------------------------------------


def _plain_scipy(name: str) -> Solve:
    def solve(problem: Problem, reference: Reference, o: Watched, rtol: float) -> Outcome:
        from scipy.integrate import solve_ivp

        events = []
        for k, section in enumerate(problem.sections):
            gauge = _ScipyEvent(section, o, terminal=k == len(problem.sections) - 1)
            events.append(gauge)
        options = {"jac": lambda _, w: -o.hessian(w)} if name in IMPLICIT else {}
        solution = solve_ivp(
            lambda _, w: -o.gradient(w),
            (0.0, HORIZON * reference.t_end),
            problem.w0,
            method=name,
            rtol=rtol,
            atol=block_tolerances(problem.w0, rtol, problem.blocks or None),
            events=events,
            **options,
        )
        states = {k: rows[0] for k, rows in enumerate(solution.y_events) if len(rows)}
        failure = ""
        if solution.status == -1:
            failure = f"scipy: {solution.message}"
        elif solution.status == 0:
            failure = f"{problem.end.name} was not met by {HORIZON:g} times the time it takes"
        counts = {"rhs": solution.nfev, "jacobian": solution.njev, "factorisations": solution.nlu}
        counts["steps"] = len(solution.t) - 1
        way = sampled_way(problem.objective, np.diff(solution.t), solution.y.T)
        return Outcome(states, counts, way, failure)

    return solve


class _ScipyEvent:
    """A section as ``solve_ivp`` wants its events: a callable with ``terminal`` and ``direction``."""

    def __init__(self, section, objective: Objective, *, terminal: bool) -> None:  # type: ignore[no-untyped-def]
        self._section, self._objective = section, objective
        self.terminal, self.direction = terminal, float(section.direction)

    def __call__(self, t: float, w: np.ndarray) -> float:
        del t
        return self._section.value(self._objective, w) / self._section.level - 1.0


# -- whatever simulate knows ----------------------------------------------------------------------------


def _simulated(name: str, *, fixed: bool) -> Solve:
    def solve(problem: Problem, reference: Reference, o: Watched, setting: float) -> Outcome:
        del reference
        last = len(problem.sections) - 1
        events = [s.event(str(k), terminal=k == last) for k, s in enumerate(problem.sections)]
        options = (
            {"step": setting}
            if fixed
            else {"rtol": setting, "clock": problem.clock, "blocks": list(problem.blocks) or None}
        )
        result = simulate(
            o, problem.w0, t_end=math.inf, method=name, events=events, max_steps=10**9, **options
        )  # the time limit is what ends a hopeless run
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        states: dict[int, np.ndarray] = {}
        for record in result.events:
            states.setdefault(int(record.name), record.w)
        c = result.counts
        counts = {"rhs": c.velocity, "jacobian": c.jacobian, "factorisations": c.factorisations, "steps": c.accepted}
        counts["hvp"] = c.hessian_product
        failure = "" if result.status is Status.EVENT else result.message
        way = None if fixed else sampled_way(problem.objective, result.dt, result.w)
        return Outcome(states, counts, way, failure)

    return solve


@cache
def known_to_simulate() -> dict[str, bool]:
    """Every method that ``simulate`` accepts, and whether it wants a fixed step: {name: fixed}."""
    toy = Objective(DiagonalLinear(1, 1), [[1.0]], [1.0])
    try:
        simulate(toy, np.ones(1), t_end=1.0, method="?")
    except UnknownName as refusal:
        listed = re.search(r"Known: (.*)\.$", str(refusal))
        names = [name.strip() for name in listed[1].split(",")] if listed else []
    else:
        raise InvalidInput("simulate accepts a method of any name, so its methods cannot be listed")
    found = {}
    for name in names:
        try:
            simulate(toy, np.ones(1), t_end=1e-3, method=name, rtol=1e-3, max_steps=100)
        except InvalidInput as refusal:
            if "step" not in str(refusal):
                raise
            found[name] = True
        else:
            found[name] = False
    return found


# -- gradient descent -----------------------------------------------------------------------------------


def _descent(problem: Problem, reference: Reference, o: Watched, step: float) -> Outcome:
    """The bare loop, as one would write it: loss and gradient in one pass, crossings by the chord of a step."""
    most = int(HORIZON * reference.t_end / step) + 1
    w = problem.w0.copy()
    values = [section.value(o, w) for section in problem.sections]
    states: dict[int, np.ndarray] = {}
    last = len(problem.sections) - 1
    before = w
    for k in range(most):
        loss, g = o.value_and_gradient(w)
        for m, section in enumerate(problem.sections):
            if m in states:
                continue
            now = float(loss) if section.direction < 0 else section.value(o, w)
            if crossed(section, values[m], now):
                part = (section.level - values[m]) / (now - values[m])
                states[m] = before + part * (w - before)
            values[m] = now
        if last in states:
            return Outcome(states, {"rhs": k + 1, "steps": k})
        before, w = w, w - step * g
    return Outcome(states, {"rhs": most, "steps": most}, failure=f"{problem.end.name} was not met in {most} steps")


# -- the catalogue --------------------------------------------------------------------------------------


def catalogue() -> list[Method]:
    """All methods of this process, in the order in which they are run."""
    found = [Method("scipy", name, "t", _plain_scipy(name)) for name in METHODS]
    stages = {"heun": 2, "rk4": 4}
    for name, fixed in known_to_simulate().items():
        if name == "euler":
            continue  # gradient descent below is the same iteration without the driver around it
        found.append(
            Method("gfsim", name, "t" if fixed else "s", _simulated(name, fixed=fixed), fixed, stages.get(name, 1))
        )
    found.append(Method("descent", "gd", "t", _descent, fixed=True))
    return found


def choose(names: Sequence[str]) -> list[Method]:
    """Methods by ``library:name``, by name alone, or by library; none means all."""
    every = catalogue()
    if not names:
        return every
    for name in names:
        if not any(name in (m.id, m.name, m.library) for m in every):
            raise unknown_name("method", name, {m.id for m in every} | {m.library for m in every})
    return [m for m in every if {m.id, m.name, m.library} & set(names)]
