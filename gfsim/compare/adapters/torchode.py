"""torchode: batched explicit pairs in torch; it has no events, so it runs to the reference's times.

A state at the right time is at a slightly wrong place, and is compared with the reference at its own level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchode

from gfsim.compare.adapters import Counter, tolerances
from gfsim.compare.measure import Outcome
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference

METHODS = {"dopri5": False, "tsit5": False}


class Torchode:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.objective = problem.objective.to_torch("cpu")

    def solve(self, method: str, setting: float, reference: Reference, limit: float) -> Outcome:
        counter = Counter(limit)

        def velocity(t: Any, w: Any) -> Any:
            del t
            counter.tick()
            return -self.objective.gradient(w)

        stepper = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5}[method]
        term = torchode.ODETerm(velocity)
        # one scalar atol is all it takes: the smallest scale of any block
        atol = float(tolerances(self.problem, setting).min())
        controller = torchode.IntegralController(atol=atol, rtol=setting, term=term)
        solver = torchode.AutoDiffAdjoint(stepper(term=term), controller)
        times = torch.tensor([[0.0, *(place.t for place in reference.places)]], dtype=torch.float64)
        start = torch.as_tensor(self.problem.w0)[None]
        with torch.no_grad():
            solution = solver.solve(torchode.InitialValueProblem(y0=start, t_eval=times))
        status = int(solution.status[0])
        counts = {"rhs": counter.calls, "steps": int(solution.stats["n_accepted"][0])}
        if status != 0:
            return Outcome(
                counts=counts, failure=f"torchode: status {status} ({torchode.status_codes.Status(status).name})"
            )
        states = {k: solution.ys[0, k + 1].numpy().astype(np.float64) for k in range(len(reference.places))}
        return Outcome(states, counts)


def prepare(problem: Problem) -> Torchode:
    return Torchode(problem)
