"""The inner loop of gradient descent, tens of thousands of steps long: fixed buffers, samples as columns.

The formulas are those of :mod:`gfsim.models.feedforward`; with few neurons a step costs little more
than its calls into NumPy, so they are kept to a minimum.
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

    def advance(self, steps: int) -> None:
        """Take ``steps`` steps."""
        *inner, last = self.matrices
        parts, w, update = self.parts, self.w, self.update
        top = len(inner)
        for _ in range(steps):
            h = self.X_columns
            hidden, slopes = [h], []
            for W in inner:
                z = W @ h
                if self.relu:
                    h = np.maximum(z, 0.0)
                    slopes.append(z > 0)
                else:
                    h, slope = self.activation.value_and_slope(z)
                    slopes.append(slope)
                hidden.append(h)
            delta = self.loss.slope(last @ h, self.y_columns)
            delta *= self.scale
            np.matmul(delta, h.T, out=parts[top])
            for l in range(top - 1, -1, -1):
                delta = self.matrices[l + 1].T @ delta
                delta *= slopes[l]
                np.matmul(delta, hidden[l].T, out=parts[l])
            w -= update
