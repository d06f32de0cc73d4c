"""scikit-sundae: CVODE with dense BDF and the exact Hessian, or with GMRES on Hessian-vector products."""

from __future__ import annotations

from typing import Any

import numpy as np
from sksundae.cvode import CVODE, CVODEJacTimes

from gfsim.compare.adapters import Counter, tolerances
from gfsim.compare.measure import Outcome, sampled_way
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference

METHODS = {"BDF": False, "BDF-GMRES": False, "Adams": False}

HORIZON = 2.0


class Sundials:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def solve(self, method: str, setting: float, reference: Reference, limit: float) -> Outcome:
        o, sections = self.problem.objective, self.problem.sections
        counter = Counter(limit)
        calls = {"jacobian": 0, "hvp": 0}

        def velocity(t: float, w: np.ndarray, out: np.ndarray) -> None:
            del t
            counter.tick()
            out[:] = -o.gradient(w)

        def jacobian(t: float, w: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
            del t, v
            calls["jacobian"] += 1
            out[:] = -o.hessian(w)

        def product(t: float, w: np.ndarray, v: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
            del t, v
            calls["hvp"] += 1
            out[:] = -o.hessian_product(w, x)

        def gauges(t: float, w: np.ndarray, out: np.ndarray) -> None:
            del t
            out[:] = [section.value(o, w) / section.level - 1.0 for section in sections]

        gauges.terminal = [k == len(sections) - 1 for k in range(len(sections))]  # type: ignore[attr-defined]
        gauges.direction = [section.direction for section in sections]  # type: ignore[attr-defined]
        options: dict[str, Any] = {"method": "Adams" if method == "Adams" else "BDF"}
        if method == "BDF":
            options["jacfn"] = jacobian
        elif method == "BDF-GMRES":
            options |= {"linsolver": "gmres", "krylov_dim": 20, "jactimes": CVODEJacTimes(None, product)}
        else:
            options |= {"linsolver": "gmres", "jactimes": CVODEJacTimes(None, product)}
        solver = CVODE(
            velocity,
            rtol=setting,
            atol=tolerances(self.problem, setting),
            eventsfn=gauges,
            num_events=len(sections),
            max_num_steps=10_000_000,
            **options,
        )
        solution = solver.solve([0.0, HORIZON * reference.t_end], self.problem.w0)
        outcome = Outcome(counts={"rhs": counter.calls, "steps": len(solution.t) - 1, **calls})
        found_t = [] if solution.t_events is None else solution.t_events
        found_w = [] if solution.y_events is None else solution.y_events
        mets = [] if solution.i_events is None else solution.i_events
        for w, met, _ in zip(found_w, mets, found_t, strict=True):
            for k in np.flatnonzero(np.asarray(met)):
                outcome.states.setdefault(int(k), np.array(w))
        if not solution.success:
            outcome.failure = f"CVODE: {solution.message}"
        outcome.way = sampled_way(o, np.diff(solution.t), np.asarray(solution.y))
        return outcome


def prepare(problem: Problem) -> Sundials:
    return Sundials(problem)
