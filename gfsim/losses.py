"""Losses l(q, y) of a prediction q and a label y, entrywise, with two derivatives in q.

theory.md, section 1.  The square loss is (p - q)^2, without 1/2 and without 1/n: whether a sum or a
mean over samples is taken is said by the :class:`gfsim.objective.Objective`, because it rescales time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gfsim.arrays import Array, namespace
from gfsim.errors import InvalidInput, unknown_name


class Loss(Protocol):
    @property
    def name(self) -> str: ...

    def value(self, q: Array, y: Array) -> Array: ...

    def slope(self, q: Array, y: Array) -> Array: ...

    def bend(self, q: Array, y: Array) -> Array: ...

    def check_labels(self, y: np.ndarray) -> None: ...


@dataclass(frozen=True)
class SquareLoss:
    """(q - y)^2."""

    name: str = "square"

    def value(self, q: Array, y: Array) -> Array:
        return (q - y) ** 2

    def slope(self, q: Array, y: Array) -> Array:
        return 2.0 * (q - y)

    def bend(self, q: Array, y: Array) -> Array:  # noqa: ARG002 - the square loss bends equally everywhere
        return namespace(q).full_like(q, 2.0)

    def check_labels(self, y: np.ndarray) -> None:
        """Any finite label is allowed."""


@dataclass(frozen=True)
class LogisticLoss:
    """log(1 + exp(-y q)) with labels y in {-1, +1}."""

    name: str = "logistic"

    def value(self, q: Array, y: Array) -> Array:
        m = -y * q
        # log(1 + e^m) without overflow, and without losing the tail for m << 0
        return m.clip(min=0) + namespace(m).log1p(namespace(m).exp(-abs(m)))

    def slope(self, q: Array, y: Array) -> Array:
        return -y * _sigmoid(-y * q)

    def bend(self, q: Array, y: Array) -> Array:
        tail = namespace(q).exp(-abs(y * q))
        return y * y * tail / (1.0 + tail) ** 2

    def check_labels(self, y: np.ndarray) -> None:
        bad = ~np.isin(y, (-1.0, 1.0))
        if bad.any():
            raise InvalidInput(
                f"label {y[bad][0]:g} with the logistic loss; labels must be -1 or +1: recode the two classes first"
            )
        if (y == y.flat[0]).all():
            raise InvalidInput(
                f"every label is {y.flat[0]:+g}; the logistic loss needs both classes, -1 and +1, in the data"
            )


def _sigmoid(m: Array) -> Array:
    """1 / (1 + exp(-m)) without overflow and to full relative accuracy in both tails.

    The lower tail drives the late flow of a separated data set; 0.5 (1 + tanh(m / 2)) would round it to 0.
    """
    xp = namespace(m)
    tail = xp.exp(-abs(m))
    return xp.where(m >= 0, 1.0, tail) / (1.0 + tail)


_NAMED: dict[str, type[SquareLoss] | type[LogisticLoss]] = {"square": SquareLoss, "logistic": LogisticLoss}


def make_loss(loss: str | Loss) -> Loss:
    """A loss by name, ``square`` or ``logistic``; a loss object is returned as it is."""
    if not isinstance(loss, str):
        return loss
    if loss not in _NAMED:
        raise unknown_name("loss", loss, _NAMED)
    return _NAMED[loss]()
