"""``method="auto"``: explicit while the flow is not stiff, implicit where it is, and back.

docs/theory.md, section 4: from the origin up to a saddle the flow moves on the scale of its own clock and
an explicit method is cheapest; near a saddle the large weights contract at the Hessian's fastest rate
while the small ones creep, and an explicit step is held near 3 / lambda_max.  Both methods measure
h |lambda| as they go, and the stepper follows the measurement:

* explicit -> implicit once steps at more than ``NEAR_EDGE`` of the stability limit, and rejections near it,
  outnumber the other steps by so many that they cost ``STIFF_WORK`` velocities, or at once after a step far beyond
  the limit;
* implicit -> explicit once steps with h |lambda| below ``EASY``, where an explicit one could be three times as
  long, outnumber the others by ``EASY_STEPS``.

An explicit step that turns out longer than its method may take, which the error estimate lets pass where the stiff
directions are at rest, is taken back and done again by the implicit method.

What was used when, and why it was left, is kept as :class:`Phase` records.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gfsim.flow.clock import Clock
from gfsim.flow.field import Field
from gfsim.flow.integrator import COSTS
from gfsim.flow.ndf import NDF
from gfsim.flow.one_row import ONLY, OneRow
from gfsim.flow.result import Counts, Phase
from gfsim.flow.rows import RowField
from gfsim.flow.runge_kutta import ExplicitPair
from gfsim.flow.stepper import Segment, StepFailure
from gfsim.flow.tableaus import Tableau, bogacki_shampine, dormand_prince_5, dormand_prince_8

STIFF_WORK, EASY_STEPS = 54, 4
"""Evidence for a change: velocities spent on stiff steps, about the price of a start of the implicit method on a small
net (nine steps of the fifth-order pair, five of the eighth-order one); easy implicit steps."""

NEAR_EDGE, BEYOND = 0.5, 2.0
"""In units of the explicit method's limit on h |lambda|: counted as stiff, and left at once."""

EASY = 1.0

FRESH = 6
"""Short steps with which an implicit method starts by itself and which are no evidence that the flow is easy."""

HISTORY = 4
"""Values handed from an explicit step to the implicit method, which so starts at order HISTORY - 1."""

EIGHTH_ORDER_BELOW = 3e-7
"""rtol below which the eighth-order pair is cheaper than the fifth-order one."""


def explicit_tableau(field: Field, rtol: float) -> Tableau:
    """Third order along kinks, where a higher order is lost; else fifth, or eighth for sharp tolerances."""
    if field.kinked:
        return bogacki_shampine()
    return dormand_prince_5() if rtol > EIGHTH_ORDER_BELOW else dormand_prince_8()


class Auto:
    """A :class:`gfsim.flow.stepper.Stepper` that hands the trajectory from one method to the other."""

    def __init__(
        self, field: Field, clock: Clock, w0: np.ndarray, *, rtol: float, atol: np.ndarray, counts: Counts
    ) -> None:
        self.counts, self.rtol, self.atol = counts, rtol, atol
        self.tableau = explicit_tableau(field, rtol)
        self.phases: list[Phase] = []
        self._spent = dict.fromkeys(COSTS, 0)
        self._evidence = 0
        w = w0[None].copy()
        self.rows = RowField(field, clock, w)
        self._explicit(w, np.zeros(1), None)

    name = "auto"

    @property
    def s(self) -> float:
        return self._stepper.s

    @property
    def w(self) -> np.ndarray:
        return self._stepper.w

    # -- the two methods ---------------------------------------------------------------------------

    def _explicit(self, w: np.ndarray, s: np.ndarray, h: np.ndarray | None) -> None:
        pair = ExplicitPair(self.rows, w, self.tableau, rtol=self.rtol, atol=self.atol, s=s, h=h)
        self._enter(OneRow(pair, Counts(), self.tableau.name, self.rtol))

    def _implicit(self, last: Segment) -> None:
        h = (last.end - last.start) / (HISTORY - 1)
        past = last.at(last.end - h * np.arange(HISTORY))
        past[0] = last.w_end
        ndf = NDF(self.rows, last.w_end[None].copy(), rtol=self.rtol, atol=self.atol, s=np.array([last.end]),
                  h=np.array([h]))  # fmt: skip
        ndf.start_from(past[None], np.array([h]))
        self._enter(OneRow(ndf, Counts(), "ndf", self.rtol))

    def _afresh(self, last: Segment) -> None:
        """The implicit method in place of the last step, which was longer than an explicit method may take.

        Such a step is accepted where the stiff directions are at rest; what it leaves in them is noise.
        """
        self._spent["accepted"] -= 1
        self._spent["rejected"] += 1
        phase = self.phases.pop()
        if phase.steps > 1:
            self.phases.append(replace(phase, end=last.start, steps=phase.steps - 1))
        ndf = NDF(self.rows, last.w_start[None].copy(), rtol=self.rtol, atol=self.atol, s=np.array([last.start]))
        self._enter(OneRow(ndf, Counts(), "ndf", self.rtol))
        self._evidence = -FRESH

    def _enter(self, stepper: OneRow) -> None:
        self._stepper, self._evidence, self._rejected = stepper, 0, 0
        self.phases.append(Phase(stepper.name, stepper.s, stepper.s, 0, 0.0))

    # -- stepping ----------------------------------------------------------------------------------

    def advance(self, limit: float) -> Segment:
        try:
            segment = self._stepper.advance(limit)
        except StepFailure:
            self._count()
            raise
        integrator = self._stepper.integrator
        stiffness = float(integrator.stiffness[ONLY[0]])
        phase = self.phases[-1]
        self.phases[-1] = Phase(
            phase.method, phase.start, segment.end, phase.steps + 1, max(phase.stiffness, stiffness or 0.0)
        )
        self._count()
        if isinstance(integrator, ExplicitPair):
            rejected = int(integrator.counts["rejected"][ONLY[0]])
            stiff = stiffness > NEAR_EDGE * self.tableau.stiff_edge
            # at a loose tolerance the step does not rest at the edge but jumps across it and is thrown back
            thrown_back = rejected - self._rejected if stiffness > 0.5 * NEAR_EDGE * self.tableau.stiff_edge else 0
            self._rejected = rejected
            self._evidence = max(0, self._evidence + thrown_back + (1 if stiff else 0 if thrown_back else -1))
            beyond = stiffness > BEYOND * self.tableau.stiff_edge
            if beyond or self._evidence * self.tableau.stages >= STIFF_WORK:
                self._leave()
                if stiffness > self.tableau.stiff_edge:
                    self._afresh(segment)
                    return self.advance(limit)
                self._implicit(segment)
        elif isinstance(integrator, NDF):
            self._evidence = max(min(0, self._evidence), self._evidence + (1 if stiffness < EASY else -1))
            if self._evidence >= EASY_STEPS:
                self._leave()
                self._explicit(integrator.w.copy(), integrator.s, integrator.h)
        return segment

    def _leave(self) -> None:
        for name in COSTS:
            self._spent[name] += int(self._stepper.integrator.counts[name][0])

    def _count(self) -> None:
        for name in COSTS:
            setattr(self.counts, name, self._spent[name] + int(self._stepper.integrator.counts[name][0]))
