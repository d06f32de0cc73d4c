"""When growth ends: small rules that look at the state of the growth and say why, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from gfsim.arrays import positive, whole_number
from gfsim.errors import InvalidInput

Ending = Literal["loss", "validation", "null", "budget", "no_escape", "no_improvement", "callback", "interrupted"]

BY_USER: tuple[Ending, ...] = ("callback", "interrupted")
"""Endings that the user wanted: nothing further is grown."""


def declined(answer: object) -> bool:
    """Whether a callback wants an end: it returned False, Python's or NumPy's."""
    return isinstance(answer, (bool, np.bool_)) and not answer


@dataclass(frozen=True)
class State:
    """What a rule may look at, before the next addition.

    Attributes
    ----------
    loss, goal : float
        Training loss without penalty, and the loss at which the task counts as solved.
    neurons : int
    crowding : float
        Parameters over residuals (samples x outputs).
    validated : bool
        Whether there are validation data.
    waited : int
        Additions since the best validation loss.
    falls : sequence of float
        By what part each addition has lowered the loss (with the penalty).
    predicted : float
        Largest decrease that a candidate predicts; NaN before candidates are known.
    null : function (float) -> float
        What candidates would predict if there were nothing left but noise, as exactly as a comparison with the given
        number needs it; costly, so asked for only when needed.
    """

    loss: float
    goal: float
    neurons: int
    crowding: float
    validated: bool
    waited: int
    falls: Sequence[float]
    predicted: float
    null: Callable[[float], float]


class Rule(Protocol):
    """A reason to stop."""

    def __call__(self, state: State) -> tuple[Ending, str] | None: ...


@dataclass(frozen=True)
class Solved:
    """The training loss has reached its goal, ``loss_rtol`` times that of the best constant."""

    def __call__(self, state: State) -> tuple[Ending, str] | None:
        if state.loss <= state.goal:
            return "loss", f"loss {state.loss:.3g} <= {state.goal:.3g}, loss_rtol times that of a constant"
        return None


@dataclass(frozen=True)
class Budget:
    """At most so many hidden neurons."""

    max_neurons: int = 50

    def __post_init__(self) -> None:
        whole_number(self.max_neurons, "max_neurons", least=0)

    def __call__(self, state: State) -> tuple[Ending, str] | None:
        if state.neurons >= self.max_neurons:
            return "budget", f"{state.neurons} hidden neurons, max_neurons = {self.max_neurons}"
        return None


@dataclass(frozen=True)
class Crowded:
    """More than ``ratio`` parameters a residual: such a network fits anything."""

    ratio: float = 2.0

    def __post_init__(self) -> None:
        positive(self.ratio, "ratio")

    def __call__(self, state: State) -> tuple[Ending, str] | None:
        if state.crowding >= self.ratio:
            return "budget", f"{state.crowding:.3g} parameters for every residual, limit {self.ratio:g}"
        return None


@dataclass(frozen=True)
class Patience:
    """No better validation loss in so many additions (parities need several neurons before any helps)."""

    additions: int = 8

    def __post_init__(self) -> None:
        whole_number(self.additions, "patience")

    def __call__(self, state: State) -> tuple[Ending, str] | None:
        if state.validated and state.waited >= self.additions:
            return "validation", f"no better validation loss in {state.waited} additions; the best network is returned"
        return None


@dataclass(frozen=True)
class Stalled:
    """Additions that hardly lower the loss any more, penalty included: the penalty eats what they gain.

    Parameters
    ----------
    additions : int
        So many in a row.
    rtol : float
        Each lowers the loss by less than this part.
    """

    additions: int = 3
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        whole_number(self.additions, "additions")
        positive(self.rtol, "rtol")

    def __call__(self, state: State) -> tuple[Ending, str] | None:
        last = state.falls[-self.additions :]
        if len(last) == self.additions and max(last) < self.rtol:
            return "no_improvement", (
                f"{self.additions} additions in a row lowered the loss by less than {self.rtol:.1%} each"
            )
        return None


@dataclass(frozen=True)
class NoiseOnly:
    """The best candidate predicts no more than it would on noise (:mod:`gfsim.pursuit.null`), on average.

    With validation data the test is made only when ``doubt`` additions have not helped: where neurons
    help only together (parities), the first ones look like noise.

    Parameters
    ----------
    permutations : int
        Draws of the noise; fewer where the answer is clear before.
    doubt : int
    """

    permutations: int = 19
    doubt: int = 4

    def __post_init__(self) -> None:
        whole_number(self.permutations, "permutations")

    def __call__(self, state: State) -> tuple[Ending, str] | None:
        if not np.isfinite(state.predicted) or (state.validated and state.waited < self.doubt):
            return None
        null = state.null(state.predicted)
        if state.predicted <= null:
            return "null", (
                f"the best candidate predicts a decrease of {state.predicted:.3g}, pure noise {null:.3g} on average: "
                "what is left looks like noise"
            )
        return None


def default_rules(max_neurons: int, patience: int, permutations: int) -> tuple[Rule, ...]:
    """Goal, budgets, patience, a loss that stalls, and (``permutations`` > 0) the test against noise."""
    if isinstance(permutations, bool) or not isinstance(permutations, (int, np.integer)) or permutations < 0:
        raise InvalidInput(f"permutations = {permutations!r}; it must be a whole number >= 0 (0: no such test)")
    rules: tuple[Rule, ...] = (Solved(), Budget(max_neurons), Crowded(), Patience(patience), Stalled())
    return (*rules, NoiseOnly(permutations)) if permutations else rules
