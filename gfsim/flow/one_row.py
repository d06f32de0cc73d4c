"""gfsim's own integrators as steppers of a single trajectory: a batch of one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gfsim.flow.auto import Auto
from gfsim.flow.chebyshev import Chebyshev
from gfsim.flow.clock import Clock
from gfsim.flow.field import Field
from gfsim.flow.integrator import COSTS, Attempt, Integrator
from gfsim.flow.ndf import NDF
from gfsim.flow.result import Counts, Phase, Status
from gfsim.flow.rows import ONLY, RowField
from gfsim.flow.runge_kutta import ExplicitPair
from gfsim.flow.stepper import Segment, StepFailure
from gfsim.flow.tableaus import dormand_prince_5, dormand_prince_8

Maker = Callable[..., Integrator]

OWN: dict[str, Maker] = {
    "auto": Auto,
    "dp5": lambda rows, w, **options: ExplicitPair(rows, w, dormand_prince_5(), **options),
    "dp8": lambda rows, w, **options: ExplicitPair(rows, w, dormand_prince_8(), **options),
    "rkc": Chebyshev,
    "ndf": NDF,
}
"""Name -> maker of an integrator from (rows, w, rtol=, atol=, s=, h=)."""

MAX_REJECTIONS = 200
"""Rejections in a row before a step counts as impossible."""


class OneRow:
    """An integrator of one row as a :class:`gfsim.flow.stepper.Stepper`."""

    def __init__(self, integrator: Integrator, counts: Counts, name: str, rtol: float) -> None:
        """``counts`` goes on from what it holds already."""
        self.integrator, self.counts, self.name, self.rtol = integrator, counts, name, rtol
        self.s, self.w = float(integrator.s[0]), integrator.w[0].copy()
        self._before = {name: getattr(counts, name) for name in COSTS}
        self._overflows = 0

    def advance(self, limit: float) -> Segment:
        del limit  # an adaptive step goes where its error control says
        for _ in range(MAX_REJECTIONS):
            segment = self.trial()
            if segment is not None:
                return segment
        raise self.failure()

    def trial(self) -> Segment | None:
        """One trial step; None if it was rejected and a shorter one may do."""
        self._overflows = self.integrator.counts["overflow_rejected"].item()
        attempt = self.integrator.attempt()
        if attempt.accepted[0]:
            w_start, start = self.w, self.s
            self.s, self.w = attempt.end.item(), attempt.w_end[0]
            self.tally()
            return Segment(start, self.s, w_start, self.w, _Inside(attempt))
        if attempt.stuck[0]:
            raise self.failure()
        return None

    @property
    def phases(self) -> list[Phase]:
        """What ``auto`` used when; empty for the other methods."""
        return self.integrator.phases[0] if isinstance(self.integrator, Auto) else []

    def failure(self) -> StepFailure:
        """Why no further step is possible."""
        self.tally()
        overflowed = self.integrator.counts["overflow_rejected"].item() > self._overflows  # the last trial
        return StepFailure(
            Status.OVERFLOW if overflowed else Status.STEP_UNDERFLOW,
            f"{type(self.integrator).__name__} stopped at s = {self.s:.6g}, |w| = {np.linalg.norm(self.w):.3g} "
            f"(step {float(self.integrator.h[0]):.3g})",
        )

    def tally(self) -> None:
        """Bring ``counts`` up to date."""
        now, before = self.integrator.counts, self._before
        self.counts.__dict__.update({name: before[name] + now[name].item() for name in COSTS})


class _Inside:
    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __call__(self, s: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
        return self._attempt.at(ONLY, s[None], part)[0]


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
