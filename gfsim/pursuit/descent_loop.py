"""The inner loop of gradient descent, tens of thousands of steps long: fixed buffers, samples as columns.

The formulas are those of :mod:`gfsim.models.feedforward`; with few neurons a step costs little more
than its calls into NumPy, so they are kept to a minimum, and are the cheaper ones of equal result: ``np.dot`` rather
than ``@``, and ``np.maximum`` with an array of zeros rather than the number.
"""

from __future__ import annotations

import numpy as np

from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective


class DescentLoop:
    """w <- w - step grad L(w), repeated in place on ``self.w`` (P,), for a feed-forward objective."""

    def __init__(self, objective: Objective, w: np.ndarray, step: float) -> None:
        model = objective.model
        if not isinstance(model, FeedForward):
            raise TypeError("DescentLoop is for feed-forward objectives")
        self.activation = model.activation
        self.relu = isinstance(model.activation, HomogeneousActivation) and model.activation.name == "relu"
        self.loss, self.scale, self.step = objective.loss, objective.scale * step, step
        self.w = np.array(w, dtype=np.float64)
        self.update = np.empty_like(self.w)
        self.matrices = model.unpack(self.w)
        self.parts = model.unpack(self.update)
        self.X_columns = np.ascontiguousarray(objective.X.T)
        self.y_columns = np.ascontiguousarray(objective.y.T)
        shapes = [(len(W), self.X_columns.shape[1]) for W in self.matrices[:-1]]
        self.inputs, self.deltas = [np.empty(s) for s in shapes], [np.empty(s) for s in shapes]
        self.zeros = [np.zeros(s) for s in shapes]

    def advance(self, steps: int) -> None:
        """Take ``steps`` steps."""
        *inner, last = self.matrices
        parts, w, update = self.parts, self.w, self.update
        top = len(inner)
        for _ in range(steps):
            h = self.X_columns
            hidden, slopes = [h], []
            for W, z, zeros in zip(inner, self.inputs, self.zeros, strict=True):
                np.dot(W, h, out=z)
                if self.relu:
                    slopes.append(z > 0)
                    h = np.maximum(z, zeros, out=z)
                else:
                    h, slope = self.activation.value_and_slope(z)
                    slopes.append(slope)
                hidden.append(h)
            delta = self.loss.slope(np.dot(last, h), self.y_columns)
            delta *= self.scale
            np.dot(delta, h.T, out=parts[top])
            for l in range(top - 1, -1, -1):
                delta = np.dot(self.matrices[l + 1].T, delta, out=self.deltas[l])
                delta *= slopes[l]
                np.dot(delta, hidden[l].T, out=parts[l])
            w -= update
