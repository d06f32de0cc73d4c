"""``method="auto"``: explicit while the flow is not stiff, implicit where it is, and back, by the rule of
:mod:`gfsim.flow.switching`.

What was used when, and why it was left, is kept as :class:`gfsim.flow.result.Phase` records.
"""

from __future__ import annotations

import numpy as np

from gfsim.flow.clock import Clock
from gfsim.flow.field import Field
from gfsim.flow.ndf import NDF
from gfsim.flow.one_row import MAX_REJECTIONS, OneRow
from gfsim.flow.result import Counts, Phase
from gfsim.flow.rows import RowField
from gfsim.flow.runge_kutta import ExplicitPair
from gfsim.flow.stepper import Segment
from gfsim.flow.switching import HISTORY, IMPLICIT, Trail, Verdict, explicit_tableau


class Auto:
    """A :class:`gfsim.flow.stepper.Stepper` that hands the trajectory from one method to the other."""

    name = "auto"

    def __init__(
        self, field: Field, clock: Clock, w0: np.ndarray, *, rtol: float, atol: np.ndarray, counts: Counts
    ) -> None:
        self.counts, self.rtol, self.atol = counts, rtol, atol
        self.tableau = explicit_tableau(field, rtol)
        w = w0[None].copy()
        self.rows = RowField(field, clock, w)
        self._trail = Trail(self.tableau, 0.0)
        self._asked = False
        """Whether the stiffness at the start has been asked for."""
        self._explicit(w, np.zeros(1), None)

    @property
    def s(self) -> float:
        return self._stepper.s

    @property
    def w(self) -> np.ndarray:
        return self._stepper.w

    @property
    def phases(self) -> list[Phase]:
        return self._trail.phases

    def advance(self, limit: float) -> Segment:
        del limit  # an adaptive step goes where its error control says
        for _ in range(MAX_REJECTIONS):
            segment = self._stepper.trial()
            if segment is None:
                self._after_rejection()
                continue
            integrator = self._stepper.integrator
            verdict = self._trail.judge(
                start=segment.start,
                end=segment.end,
                stiffness=integrator.stiffness.item(),
                rejected=integrator.counts["rejected"].item(),
            )
            if verdict is Verdict.REDO:
                self._afresh(segment)
                continue
            if verdict is Verdict.HAND_OVER:
                self._hand_over(segment)
            return segment
        raise self._stepper.failure()

    # -- the two methods ---------------------------------------------------------------------------

    def _explicit(self, w: np.ndarray, s: np.ndarray, h: np.ndarray | None) -> None:
        self._pair = ExplicitPair(self.rows, w, self.tableau, rtol=self.rtol, atol=self.atol, s=s, h=h)
        self._stepper = OneRow(self._pair, self.counts, self.tableau.name, self.rtol)

    def _implicit(self, w: np.ndarray, s: float, h: float | None) -> NDF:
        first = None if h is None else np.array([h])
        ndf = NDF(self.rows, w[None].copy(), rtol=self.rtol, atol=self.atol, s=np.array([s]), h=first)
        self._stepper = OneRow(ndf, self.counts, IMPLICIT, self.rtol)
        return ndf

    def _hand_over(self, last: Segment) -> None:
        if self._trail.explicit:
            ndf = self._stepper.integrator
            self._explicit(ndf.w.copy(), ndf.s, ndf.h)
            return
        h = (last.end - last.start) / (HISTORY - 1)
        past = last.at(last.end - h * np.arange(HISTORY))
        past[0] = last.w_end
        self._implicit(last.w_end, last.end, h).start_from(past[None], np.array([h]))

    def _after_rejection(self) -> None:
        """After the first trial of all was rejected: measure whether a further one is worth its velocities."""
        if self._asked or not self._trail.untried:
            return
        self._asked = True
        if self._trail.hopeless((self._pair.h * self._pair.fastest()).item()):
            self._stepper.tally()
            self._implicit(self.w, self.s, None)

    def _afresh(self, last: Segment) -> None:
        """The implicit method in place of the last step."""
        self.counts.accepted -= 1
        self.counts.rejected += 1
        self._implicit(last.w_start, last.start, None)
