"""What a method of the comparison must deliver, and the clock that all of them run on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from typing import Protocol

import numpy as np

from benchmarks.pursuit.tasks import Draw, Task


class Clock:
    """CPU seconds of this process since the clock was made; every method has the same ``limit`` for one fit.

    Wall time on a shared machine says little.  A method that can stop between two of its steps asks :meth:`over`; the
    others are fast enough to need no limit.
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.began = limit, time.process_time()

    def spent(self) -> float:
        return time.process_time() - self.began

    def over(self, part: float = 1.0) -> bool:
        """Whether ``part`` of the limit is spent."""
        return self.spent() >= part * self.limit


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted.

    Attributes
    ----------
    predict : function of (n, d) -> predictions or classes
    neurons : int
        Hidden neurons; for boosting the leaves of all trees.
    parameters : int
        Numbers that were fitted.
    note : str
        What the method chose, and whether its time ran out.
    progress : tuple of (float, float)
        (CPU seconds, error on held-out rows) along a growth.
    """

    predict: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    neurons: int
    parameters: int
    note: str = ""
    progress: tuple[tuple[float, float], ...] = ()


class Method(Protocol):
    """One column of the comparison."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """What it is, in a line."""
        ...

    def refuses(self, task: Task) -> str | None:
        """Why it takes no part in a task, or None: a package that is missing, a setting it does not have."""
        ...

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted: ...


def absent(package: str) -> str | None:
    """``package is not installed``, or None if it is."""
    return None if util.find_spec(package) else f"{package} is not installed"


def held_out(task: Task, draw: Draw, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and a fifth to choose settings by, for methods that do not split by themselves."""
    from gfsim.pursuit.preparation import split_rows

    groups = np.unique(draw.y, return_inverse=True)[1] if task.classes else None
    split = split_rows(np.ones(len(draw.X), dtype=int), 0.2, np.random.default_rng([7, seed]), groups)
    return split.train, split.validation


def error_of(task: Task, draw: Draw, predicted: np.ndarray) -> float:
    """The error rate, or the mean square error over the variance of the training targets."""
    if task.classes:
        return float(np.mean(np.asarray(predicted) != draw.y_test))
    truth = draw.y_test
    squares = (np.reshape(predicted, truth.shape) - truth) ** 2
    if task.group != "real" and task.group != "student":
        return float(np.mean(squares))  # scaled to variance one already
    return float(np.mean(squares) / np.mean(np.var(draw.y, axis=0)))
