"""torchdiffeq: explicit pairs on torch tensors, one event at a time (``odeint_event``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchdiffeq

from gfsim.compare.adapters import Counter, tolerances
from gfsim.compare.measure import Outcome
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference
from gfsim.compare.section import LossLevel, Section

METHODS = {"dopri5": False, "dopri8": False, "bosh3": False}


class Torchdiffeq:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.objective = problem.objective.to_torch("cpu")

    def solve(self, method: str, setting: float, reference: Reference, limit: float) -> Outcome:
        del reference  # it stops at its own events
        counter = Counter(limit)
        outcome = Outcome()

        def velocity(t: Any, w: Any) -> Any:
            del t
            counter.tick()
            return -self.objective.gradient(w)

        # its event search takes one scalar atol only: the smallest scale of any block
        atol = float(tolerances(self.problem, setting).min())
        t, w = torch.zeros((), dtype=torch.float64), torch.as_tensor(self.problem.w0)
        with torch.no_grad():
            for k, section in enumerate(self.problem.sections):
                # it has no terminal event but one: go from section to section
                try:
                    t, path = torchdiffeq.odeint_event(
                        velocity, w, t, event_fn=self._gauge(section), method=method, rtol=setting, atol=atol
                    )
                except AssertionError as exc:
                    outcome.failure = f"torchdiffeq: {' '.join(str(exc).split())}"
                    break
                w = path[-1]
                outcome.states[k] = w.numpy().astype(np.float64)
        outcome.counts = {"rhs": counter.calls}
        return outcome

    def _gauge(self, section: Section) -> Any:
        if isinstance(section, LossLevel):
            return lambda _, w: self.objective.value(w) / section.level - 1.0
        block = torch.as_tensor(section.block)
        return lambda _, w: w[block].norm() / section.level - 1.0


def prepare(problem: Problem) -> Torchdiffeq:
    return Torchdiffeq(problem)
