"""When ``method="auto"`` leaves one method for the other: the rule, and the record of what was used.

docs/theory.md, section 4: from the origin up to a saddle the flow moves on the scale of its own clock and
an explicit method is cheapest; near a saddle the large weights contract at the Hessian's fastest rate
while the small ones creep, and an explicit step is held near 3 / lambda_max.  Both methods measure
h |lambda| as they go, and the rule follows the measurement:

* explicit -> implicit once steps at more than ``NEAR_EDGE`` of the stability limit, and rejections near it,
  outnumber the other steps by so many that they cost ``STIFF_WORK`` velocities, or at once after a step far beyond
  the limit, or when the very first trial is rejected and the next would be ``FAR`` beyond it;
* implicit -> explicit once steps with h |lambda| below ``EASY``, where an explicit one could be three times as
  long, outnumber the others by ``EASY_STEPS``.

An explicit step that turns out longer than its method may take, which the error estimate lets pass where the stiff
directions are at rest, is taken back and done again by the implicit method.

The rule knows of one trajectory and of no arrays; :mod:`gfsim.flow.auto` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gfsim.flow.field import Field
from gfsim.flow.result import Phase
from gfsim.flow.tableaus import Tableau, bogacki_shampine, dormand_prince_5, dormand_prince_8

IMPLICIT = "ndf"

STIFF_WORK, EASY_STEPS = 54, 4
"""Evidence for a change: velocities spent on stiff steps, about the price of a start of the implicit method on a small
net (nine steps of the fifth-order pair, five of the eighth-order one); easy implicit steps."""

NEAR_EDGE, BEYOND = 0.5, 2.0
"""In units of the explicit method's limit on h |lambda|: counted as stiff, and left at once."""

FAR = 10.0
"""In the same units: a trial step that is not worth its velocities, since it would be rejected unless the fast
directions are at rest, where the implicit method takes it at once."""

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


class Verdict(Enum):
    """What follows from an accepted step."""

    STAY = "the method goes on"
    HAND_OVER = "the other method goes on from the end of the step"
    REDO = "the implicit method starts afresh where the step began; the step does not count"


@dataclass
class _Stretch:
    """A phase that is still growing."""

    method: str
    start: float
    end: float
    steps: int = 0
    stiffness: float = 0.0

    def frozen(self) -> Phase:
        return Phase(self.method, self.start, self.end, self.steps, self.stiffness)


class Trail:
    """The methods that carried one trajectory, and the evidence against the present one.

    Parameters
    ----------
    tableau : Tableau
        Of the explicit pair, which comes first.
    s : float
        Clock at the start.
    """

    def __init__(self, tableau: Tableau, s: float) -> None:
        self.edge, self.stages, self.explicit_name = tableau.stiff_edge, tableau.stages, tableau.name
        self._evidence = self._rejected = 0
        self._asked = False
        self._now = _Stretch(tableau.name, s, s)
        self._stretches = [self._now]

    @property
    def explicit(self) -> bool:
        """Whether the present method is the explicit one."""
        return self._now.method == self.explicit_name

    @property
    def phases(self) -> list[Phase]:
        """What was used when, so far."""
        return [stretch.frozen() for stretch in self._stretches]

    def judge(self, *, start: float, end: float, stiffness: float, rejected: int) -> Verdict:
        """Take in an accepted step from ``start`` to ``end`` of the clock and say what follows.

        ``stiffness`` is its h |lambda|, ``rejected`` the number of rejected trials so far.
        """
        now = self._now
        now.end, now.steps, now.stiffness = end, now.steps + 1, max(now.stiffness, stiffness or 0.0)
        new_rejections, self._rejected = rejected - self._rejected, rejected
        if self.explicit:
            return self._after_explicit(start, end, stiffness, new_rejections)
        self._evidence = max(min(0, self._evidence), self._evidence + (1 if stiffness < EASY else -1))
        if self._evidence < EASY_STEPS:
            return Verdict.STAY
        self._enter(self.explicit_name, end)
        return Verdict.HAND_OVER

    @property
    def untried(self) -> bool:
        """Whether nothing is known of the stiffness yet: no step of the explicit method, and no answer to this."""
        return self.explicit and self._now.steps == 0 and not self._asked

    def hopeless(self, stiffness: float) -> bool:
        """Whether the implicit method takes over from an untried explicit one, whose next trial has this h |lambda|."""
        self._asked = True
        if not stiffness > FAR * self.edge:
            return False
        self._redo(self._now.end)
        return True

    def _after_explicit(self, start: float, end: float, stiffness: float, rejected: int) -> Verdict:
        stiff = stiffness > NEAR_EDGE * self.edge
        # at a loose tolerance the step does not rest at the edge but jumps across it and is thrown back
        thrown_back = rejected if stiffness > 0.5 * NEAR_EDGE * self.edge else 0
        self._evidence = max(0, self._evidence + thrown_back + (1 if stiff else 0 if thrown_back else -1))
        if stiffness <= BEYOND * self.edge and self._evidence * self.stages < STIFF_WORK:
            return Verdict.STAY
        if stiffness > self.edge:
            # such a step is accepted where the stiff directions are at rest; what it leaves in them is noise
            self._now.end, self._now.steps = start, self._now.steps - 1
            return self._redo(start)
        self._enter(IMPLICIT, end)
        return Verdict.HAND_OVER

    def _redo(self, start: float) -> Verdict:
        if self._now.steps == 0:
            self._stretches.pop()
        self._enter(IMPLICIT, start)
        self._evidence = -FRESH
        return Verdict.REDO

    def _enter(self, method: str, s: float) -> None:
        self._evidence = 0
        if not (self._stretches and self._stretches[-1].method == method):
            self._stretches.append(_Stretch(method, s, s))
        self._now = self._stretches[-1]
