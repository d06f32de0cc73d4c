"""From the NCF's maxima to those of the decrease that the quadratic model predicts (docs/theory.md, section 8).

The NCF says what escapes first from infinitesimal size.  A path that enters at its best finite scale lowers the loss by

    D(a) = phi(a)^2 / (2 Q(a)),    phi = sum_i c_i S(a.H_i),    Q = sum_i q_i S(a.H_i)^2 - |sum_i r_i S(a.H_i)|^2,

with c_i the pull on the path's output, q_i the curvature of the loss along it, and r_i what an output intercept that
moves along takes away.  D and not phi decides what is worth adding, and the two have other maxima: S grows like a
power of z, so that phi is large along single long samples, a.H_i = |H_i|, whose few outputs explain next to nothing.
In many dimensions such spikes outnumber and outvalue the direction that the data hold; D does not see them.

D is constant along rays.  :func:`ascend` follows its gradient on the sphere, all starts together, those with other
outgoing weights included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

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
        return self.at(A, *self.branches.value_and_slope(A @ self.inputs.T))

    def at(self, A: np.ndarray, s: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, given S and its slope at a.H_i: (m, n) each."""
        sums = s @ self._sums.T
        phi, means = sums[:, 0], sums[:, 1:]
        square = (s * s) @ self.bends
        Q = square - (means**2).sum(axis=1)
        # a path that is constant on the data is what the intercept does already
        live = (1e-9 * square < Q) & (phi != 0)
        phi, Q = np.where(live, phi, 1.0), np.where(live, Q, 1.0)
        g = np.concatenate([1.0 / phi[:, None], means / Q[:, None]], axis=1) @ self._sums
        g *= slope
        turn = g @ self.inputs - ((s * slope) @ self._bent_inputs) / Q[:, None]
        turn *= live[:, None]
        turn -= (turn * A).sum(axis=1, keepdims=True) * A
        return np.where(live, np.abs(phi) / np.sqrt(Q), 0.0), turn

    @cached_property
    def _sums(self) -> np.ndarray:
        """c and r, of which phi and the means are sums: (1 + K, n)."""
        return np.concatenate([self.pull[None], self.intercept.T])

    @cached_property
    def _bent_inputs(self) -> np.ndarray:
        return self.bends[:, None] * self.inputs


def ascend(
    decreases: Sequence[PathDecrease], A: np.ndarray, group: np.ndarray, *, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors A (m, d_in) uphill on D, and sqrt(2 D) at the ends (m,); D never decreases on any of them.

    Row k climbs on ``decreases[group[k]]``, which differ in their outgoing weights only; ``group`` does not decrease.
    Gradient steps on the sphere, each start with a step of its own that grows while D does; no turn is larger than
    45 degrees.
    """
    A = A.copy()
    value, turn = _together(decreases, A, group)
    step = np.full(len(A), 0.3)
    running = np.flatnonzero(value > 0)
    for _ in range(iterations):
        angle = _length(turn[running])
        far = step[running] * angle > ARRIVED
        running, angle = running[far], angle[far]
        if not len(running):
            break
        trial = A[running] + np.minimum(step[running], 1.0 / angle)[:, None] * turn[running]
        trial /= _length(trial)[:, None]
        new, new_turn = _together(decreases, trial, group[running])
        better = new > value[running]
        up = running[better]
        A[up], value[up], turn[up] = trial[better], new[better], new_turn[better]
        step[running] *= np.where(better, 1.5, 0.4)
    return A, value


def _together(decreases: Sequence[PathDecrease], A: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (m,) and turns (m, d_in) of all rows, with one product of all of them and the inputs."""
    s, slope = decreases[0].branches.value_and_slope(A @ decreases[0].inputs.T)
    if len(decreases) == 1:
        return decreases[0].at(A, s, slope)
    value, turn = np.empty(len(A)), np.empty_like(A)
    cuts = np.searchsorted(group, np.arange(len(decreases) + 1))
    for decrease, first, end in zip(decreases, cuts, cuts[1:], strict=False):
        if end > first:
            value[first:end], turn[first:end] = decrease.at(A[first:end], s[first:end], slope[first:end])
    return value, turn


def _length(A: np.ndarray) -> np.ndarray:
    return np.sqrt((A * A).sum(axis=1))
