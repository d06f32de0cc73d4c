"""gfsim's own integrators as steppers of a single trajectory: a batch of one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gfsim.flow.chebyshev import Chebyshev
from gfsim.flow.clock import Clock
from gfsim.flow.field import Field
from gfsim.flow.integrator import Attempt, Integrator
from gfsim.flow.ndf import NDF
from gfsim.flow.result import Counts, Status
from gfsim.flow.rows import RowField
from gfsim.flow.runge_kutta import ExplicitPair
from gfsim.flow.stepper import Segment, StepFailure
from gfsim.flow.tableaus import dormand_prince_5, dormand_prince_8

Maker = Callable[..., Integrator]

OWN: dict[str, Maker] = {
    "dp5": lambda rows, w, **options: ExplicitPair(rows, w, dormand_prince_5(), **options),
    "dp8": lambda rows, w, **options: ExplicitPair(rows, w, dormand_prince_8(), **options),
    "rkc": Chebyshev,
    "ndf": NDF,
}
"""Name -> maker of an integrator from (rows, w, rtol=, atol=, s=, h=)."""

MAX_REJECTIONS = 200
"""Rejections in a row before a step counts as impossible."""

ONLY = np.zeros(1, dtype=int)


class OneRow:
    """An integrator of one row as a :class:`gfsim.flow.stepper.Stepper`."""

    def __init__(self, integrator: Integrator, counts: Counts, name: str, rtol: float) -> None:
        self.integrator, self.counts, self.name, self.rtol = integrator, counts, name, rtol
        self.s, self.w = float(integrator.s[0]), integrator.w[0].copy()

    def advance(self, limit: float) -> Segment:
        del limit  # an adaptive step goes where its error control says
        overflows = 0
        for _ in range(MAX_REJECTIONS):
            overflows = int(self.integrator.counts["overflow_rejected"][0])
            attempt = self.integrator.attempt()
            if attempt.accepted[0]:
                return self._segment(attempt)
            if attempt.stuck[0]:
                break
        self._count()
        overflowed = int(self.integrator.counts["overflow_rejected"][0]) > overflows  # the last trial
        raise StepFailure(
            Status.OVERFLOW if overflowed else Status.STEP_UNDERFLOW,
            f"{type(self.integrator).__name__} stopped at s = {self.s:.6g}, |w| = {np.linalg.norm(self.w):.3g} "
            f"(step {float(self.integrator.h[0]):.3g})",
        )

    def _segment(self, attempt: Attempt) -> Segment:
        w_start, start = self.w, self.s
        self.s, self.w = float(attempt.end[0]), attempt.w_end[0]
        self._count()
        return Segment(start, self.s, w_start, self.w, _Inside(attempt))

    def _count(self) -> None:
        for name, values in self.integrator.counts.items():
            setattr(self.counts, name, int(values[0]))


class _Inside:
    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __call__(self, s: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
        return self._attempt.at(ONLY, np.atleast_1d(s)[None], part)[0]


def one_row(
    method: str,
    field: Field,
    clock: Clock,
    w0: np.ndarray,
    *,
    rtol: float,
    atol: np.ndarray,
    counts: Counts,
) -> OneRow:
    """A stepper of the named method from ``w0`` (P,)."""
    w = w0[None].copy()
    return OneRow(OWN[method](RowField(field, clock, w), w, rtol=rtol, atol=atol), counts, method, rtol)
