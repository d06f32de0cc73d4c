"""Notice that a flow without an end time will never meet its event, because nothing moves any more.

At a global minimum, or with dead neurons, an unbounded run would go on for ever: adaptive steps grow,
the clock runs through decade after decade, and the weights stay where they are.
"""

from __future__ import annotations

import numpy as np

DECADES = 3
"""Decades of the clock between two looks."""

LOOKS = 4
"""Looks in a row without a change, the first not before s = 1.

In a rescaled clock the weights move at a rate of the size of the NCF, so a flow that has not moved from
s = 1 to s = 1e12 would need an NCF below 1e-21.  In absolute time at degree > 2 no such bound exists (an
escape may take 1e30), and nothing is watched."""

CHANGE = 1e-9
"""A weight has moved if it changed by more than this fraction of itself and of its block."""


class Standstill:
    """Fed with the end of every step; ``floor`` (P,) is the size of each weight's block at the start."""

    def __init__(self, floor: np.ndarray) -> None:
        self._floor = floor
        self._s, self._w, self._quiet = 0.0, floor, 0

    def sees(self, s: float, w: np.ndarray) -> bool:
        """Whether nothing has moved over the last LOOKS x DECADES decades of the clock."""
        if self._s == 0.0:
            if s >= 1.0:
                self._s, self._w = s, w
        elif s >= 10.0**DECADES * self._s:
            still = bool((np.abs(w - self._w) <= CHANGE * (np.abs(w) + self._floor)).all())
            self._quiet = self._quiet + 1 if still else 0
            self._s, self._w = s, w
        return self._quiet >= LOOKS
