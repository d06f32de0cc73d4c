"""Nets to 120 digits: the expansion around (w_n, 0) in the size of the weights of inactive neurons.

A remainder of order delta^7 beside terms of order one drowns in float64 after one decade of delta, so the library's own
forward and backward passes are run on mpmath numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np

from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.saddle import SparseSaddle

DIGITS = 120


def precise(x: np.ndarray) -> np.ndarray:
    """The same numbers, as mpmath ones."""
    return np.array([mpmath.mpf(float(v)) for v in np.ravel(x)], dtype=object).reshape(np.shape(x))


@dataclass(frozen=True)
class Expansion:
    """A net around weights ``w`` (P,) whose inactive neurons vanish, and a direction ``u`` (size of w_z,)."""

    objective: Objective
    active: ActiveNeurons
    w: np.ndarray
    u: np.ndarray

    @property
    def point(self) -> SparseSaddle:
        """The point as the library's saddle object; it need not be critical for what is expanded here."""
        return SparseSaddle(self.objective, self.active, self.w)

    @property
    def model(self) -> FeedForward:
        return self.point.model

    def at(self, delta: Any, u: np.ndarray | None = None) -> np.ndarray:
        """H(X; w_n, delta u) to DIGITS digits: (n, k)."""
        w = precise(self.w)
        w[self.active.index_z(self.model)] = delta * precise(self.u if u is None else u)
        return self.model.forward(w, precise(self.objective.X))

    def first_order(self) -> np.ndarray:
        """H1(X; w_n, u), from its formula: sum over layers and inactive j of (g . b_j) s(a_j . h): (n, k).

        h and g of the whole net at (w_n, 0): h vanishes at inactive units below and g at inactive units above,
        so weights between two inactive neurons drop out by themselves.
        """
        model, X = self.model, precise(self.objective.X)
        kept = model.run(precise(self.w), X)
        direction = precise(np.zeros(model.n_params))
        direction[self.active.index_z(model)] = precise(self.u)
        matrices = model.unpack(direction)
        out = precise(np.zeros(self.objective.y.shape))
        for k in range(model.n_outputs):
            C = precise(np.zeros(self.objective.y.shape))
            C[:, k] = mpmath.mpf(1)
            g = model.backpropagate(precise(self.w), kept, C)
            for layer, units in enumerate(self.active.inactive(model), start=1):
                for j in units:
                    into = kept.hidden[layer - 1] @ matrices[layer - 1][j]
                    out[:, k] = out[:, k] + (g[layer] @ matrices[layer][:, j]) * model.activation.value(into)
        return out

    def remainders(self, deltas: Sequence[Any], degree: int) -> list[Any]:
        """The largest |H(w_n, delta u) - H(w_n, 0) - delta^degree H1(u)| over samples and outputs, for every delta."""
        start, first = self.at(mpmath.mpf(0)), self.first_order()
        return [np.abs(self.at(d) - start - d**degree * first).max() for d in deltas]


def exponent(deltas: Sequence[Any], sizes: Sequence[Any]) -> tuple[float, float]:
    """Slope of log(size) over log(delta) with its standard error; (inf, 0) when all sizes vanish to DIGITS/2 digits."""
    if max(sizes) < mpmath.mpf(10) ** (-DIGITS // 2):
        return float("inf"), 0.0
    if min(sizes) == 0:
        return float("nan"), float("inf")
    x = np.array([float(mpmath.log(d)) for d in deltas])
    y = np.array([float(mpmath.log(s)) for s in sizes])
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float(np.sqrt(rest @ rest / max(len(x) - 2, 1) / (x @ x)))
