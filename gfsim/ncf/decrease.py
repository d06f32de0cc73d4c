"""From the NCF's maxima to those of the decrease that the quadratic model predicts (docs/theory.md, section 8).

The NCF says what escapes first from infinitesimal size.  A path that enters at its best finite scale lowers the loss by

    D(a) = phi(a)^2 / (2 Q(a)),    phi = sum_i c_i S(a.H_i),    Q = sum_i q_i S(a.H_i)^2 - |sum_i r_i S(a.H_i)|^2,

with c_i the pull on the path's output, q_i the curvature of the loss along it, and r_i what an output intercept that
moves along takes away.  D and not phi decides what is worth adding, and the two have other maxima: S grows like a
power of z, so that phi is large along single long samples, a.H_i = |H_i|, whose few outputs explain next to nothing.
In many dimensions such spikes outnumber and outvalue the direction that the data hold; D does not see them.

D is constant along rays.  :func:`ascend` follows its gradient on the sphere, all starts together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gfsim.ncf.path import Branches

ARRIVED = 1e-2
"""An ascent whose next turn is smaller than this angle has arrived: the fit that follows does the rest."""


@dataclass(frozen=True)
class PathDecrease:
    """D(a) of one path with given outgoing weights, up to a constant as sqrt(2 D) = |phi| / sqrt(Q).

    Attributes
    ----------
    inputs : (n, d_in)
        H.
    pull : (n,)
        c; it carries the sample weights, as do the next two.
    bends : (n,)
        q.
    intercept : (n, K)
        r; K = 0 without an intercept.
    branches : Branches
        S.
    """

    inputs: np.ndarray = field(repr=False)
    pull: np.ndarray = field(repr=False)
    bends: np.ndarray = field(repr=False)
    intercept: np.ndarray = field(repr=False)
    branches: Branches

    def value_and_turn(self, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """sqrt(2 D) at unit a (m, d_in): (m,), and the gradient of its logarithm (m, d_in), tangent to the sphere."""
        s, slope = self.branches.value_and_slope(A @ self.inputs.T)
        phi, means = s @ self.pull, s @ self.intercept
        square = (s * s) @ self.bends
        Q = square - (means**2).sum(axis=1)
        # a path that is constant on the data is what the intercept does already
        live = (1e-9 * square < Q) & (phi != 0)
        phi, Q = np.where(live, phi, 1.0), np.where(live, Q, 1.0)
        g = self.pull / phi[:, None] - (self.bends * s - means @ self.intercept.T) / Q[:, None]
        turn = (g * slope) @ self.inputs * live[:, None]
        turn -= (turn * A).sum(axis=1, keepdims=True) * A
        return np.where(live, np.abs(phi) / np.sqrt(Q), 0.0), turn


def ascend(decrease: PathDecrease, A: np.ndarray, *, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors A (m, d_in) uphill on D, and sqrt(2 D) at the ends (m,); D never decreases on any of them.

    Gradient steps on the sphere, each start with a step of its own that grows while D does; no turn is larger than
    45 degrees.
    """
    A = A.copy()
    value, turn = decrease.value_and_turn(A)
    step = np.full(len(A), 0.3)
    running = np.flatnonzero(value > 0)
    for _ in range(iterations):
        angle = np.linalg.norm(turn[running], axis=1)
        running = running[step[running] * angle > ARRIVED]
        if not len(running):
            break
        angle = np.linalg.norm(turn[running], axis=1)
        trial = A[running] + np.minimum(step[running], 1.0 / angle)[:, None] * turn[running]
        trial /= np.linalg.norm(trial, axis=1, keepdims=True)
        new, new_turn = decrease.value_and_turn(trial)
        better = new > value[running]
        up = running[better]
        A[up], value[up], turn[up] = trial[better], new[better], new_turn[better]
        step[running] *= np.where(better, 1.5, 0.4)
    return A, value
