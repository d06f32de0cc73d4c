"""Other packages behind one small interface: one module a library, imported only in that library's own process.

An adapter module defines

    METHODS : dict of method name -> whether it takes a fixed step
    def prepare(problem) -> Session     raises :class:`Unsupported` with the reason in words

and a session solves the flow as well as its library allows: gradients in the library's own arrays, events where it
has them, the per-weight absolute tolerances that gfsim itself uses.
"""

from __future__ import annotations

import math
import time
from typing import Protocol

import numpy as np

from gfsim.compare.measure import Outcome, OutOfTime
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference
from gfsim.flow.scipy_stepper import block_tolerances


class Unsupported(Exception):
    """The library cannot take this problem; the message says why."""


class Session(Protocol):
    def solve(self, method: str, setting: float, reference: Reference, limit: float) -> Outcome: ...


class Counter:
    """Counts right-hand sides and stops the solver when the time is over."""

    def __init__(self, limit: float) -> None:
        self.calls = 0
        self._deadline = time.perf_counter() + limit if math.isfinite(limit) else math.inf

    def tick(self) -> None:
        self.calls += 1
        if time.perf_counter() > self._deadline:
            raise OutOfTime


def tolerances(problem: Problem, rtol: float) -> np.ndarray:
    """atol per weight, by the block rule of gfsim: (P,)."""
    return block_tolerances(problem.w0, rtol, problem.blocks or None)
