"""Places along a flow that do not depend on the clock: a loss level, or the size of a block of weights.

The loss falls strictly along every gradient flow, and the escaping block near a saddle grows; so "where L = 0.1" or
"where |w_z| has tripled" is one point of the trajectory, whatever the time an integrator thinks it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gfsim.arrays import positive
from gfsim.flow.events import Event, loss_level, norm_level
from gfsim.objective import Objective


@dataclass(frozen=True)
class LossLevel:
    """L falls through ``level``.

    ``spread`` is the factor by which the reference is known on either side of the place.
    """

    level: float
    spread: float = 1.3

    direction: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        positive(self.level, "loss level of a section")

    @property
    def name(self) -> str:
        return f"L = {self.level:.4g}"

    def value(self, objective: Objective, w: np.ndarray) -> float:
        return float(objective.value(w))

    def at(self, level: float) -> LossLevel:
        return LossLevel(level, self.spread)

    def event(self, name: str, *, terminal: bool) -> Event:
        return replace(loss_level(self.level, terminal=int(terminal)), name=name)

    def key(self) -> str:
        return f"loss {self.level!r}"


@dataclass(frozen=True)
class SizeLevel:
    """The norm of a block of weights (flat indices) rises through ``level``."""

    level: float
    block: np.ndarray = field(repr=False)
    label: str = "|w_z|"
    spread: float = 1.3

    direction: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        positive(self.level, "size level of a section")

    @property
    def name(self) -> str:
        return f"{self.label} = {self.level:.4g}"

    def value(self, objective: Objective, w: np.ndarray) -> float:
        del objective
        return float(np.linalg.norm(w[self.block]))

    def at(self, level: float) -> SizeLevel:
        return SizeLevel(level, self.block, self.label, self.spread)

    def event(self, name: str, *, terminal: bool) -> Event:
        return replace(norm_level(self.level, self.block, terminal=int(terminal)), name=name)

    def key(self) -> str:
        return f"size {self.level!r} of {np.asarray(self.block).tolist()}"


Section = LossLevel | SizeLevel


def crossed(section: Section, before: float, after: float) -> bool:
    """Whether a value that goes from ``before`` to ``after`` passes the section in its direction."""
    return section.direction * (before - section.level) < 0 <= section.direction * (after - section.level)
