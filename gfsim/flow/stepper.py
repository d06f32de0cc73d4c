"""The contract between the driver and an integrator.

1. A stepper holds the current clock value ``s`` and weights ``w`` (P,), both of an ACCEPTED step.
2. ``advance(limit)`` moves to a later accepted step and returns the :class:`Segment` it covered.  An
   adaptive method takes one step and may pass ``limit`` (the driver interpolates back); a fixed-step
   method may take many, stops at the first step that reaches ``limit``, and covers only the last one.
3. A trial step that overflows is rejected inside the stepper and counted; it never reaches the driver.
4. When no further step is possible it raises :class:`StepFailure` and stays at its last accepted step.
5. A stepper never sees events, outputs or physical time: those are the driver's.
6. A segment's interpolant may be built only when it is first asked for, so it must be asked before
   the next ``advance``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from gfsim.flow.result import Status


class Inside(Protocol):
    def __call__(self, s: np.ndarray, part: np.ndarray | None = None) -> np.ndarray: ...


class Segment(NamedTuple):
    """The stretch [start, end] of the clock and the integrator's interpolant on it.

    ``at(s)`` takes clock values (k,) and returns weights (k, P); ``at(s, part)`` those of the flat indices ``part``.
    """

    start: float
    end: float
    w_start: np.ndarray
    w_end: np.ndarray
    at: Inside


class StepFailure(Exception):
    """No further step is possible; carries the status and the particulars."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Stepper(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def rtol(self) -> float | None: ...

    @property
    def s(self) -> float: ...

    @property
    def w(self) -> np.ndarray: ...

    def advance(self, limit: float) -> Segment: ...
