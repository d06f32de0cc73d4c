"""Weighted data and a loss, as functions of a :class:`Network`; every pass goes over rows in chunks.

L(net) = sum_i v_i l(H(x_i), y_i) + l2 |theta|^2, with sample weights v_i that add up to one: a MEAN.
Memory beyond the data is bounded by :data:`CHUNK_ENTRIES`, whatever n is; cost is linear in n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gfsim.pursuit.curvature import Pass
from gfsim.pursuit.network import Kept, Network
from gfsim.pursuit.risk import Risk
from gfsim.threads import over

CHUNK_ENTRIES = 1_000_000
"""Numbers that one pass may hold per array beyond the data: 8 MB, small enough for a cache to hold a chunk of X between
the way forward and the way back."""

LEFT_OUT = np.empty((0, 0))
"""In the place of an array that was not kept; it fits no product with one row a sample."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Data, weights, loss and penalty.

    Attributes
    ----------
    X : (n, n_inputs)
    Y : (n, n_outputs)
    weights : (n,)
        >= 0, sum one.
    risk : Risk
    l2 : float
        Coefficient of |W_1|^2 + .. + |W_L|^2; the intercept is free.
    size : float, optional
        How many independent samples the rows stand for; None: one each.  Rows that coincide are merged, and a row of
        two copies says twice as much as one: ``weights * size`` are the copies.
    """

    X: np.ndarray = field(repr=False)
    Y: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    risk: Risk
    l2: float = 0.0
    size: float | None = None

    @property
    def copies(self) -> np.ndarray:
        """How many samples each row stands for: (n,)."""
        return self.weights * (self.n_samples if self.size is None else self.size)

    def standard_error(self, values: np.ndarray) -> float:
        """Of the weighted mean of ``values`` (n,), one a row, over draws of the samples."""
        spread = float(self.weights @ (values - self.weights @ values) ** 2)
        return float(np.sqrt(spread / (self.n_samples if self.size is None else self.size)))

    @property
    def n_samples(self) -> int:
        return len(self.X)

    @property
    def n_outputs(self) -> int:
        return self.Y.shape[1]

    def with_l2(self, l2: float) -> Problem:
        return replace(self, l2=l2)

    def rows(self, index: np.ndarray | slice) -> Problem:
        """The problem of some samples, their weights scaled to add up to one; a slice copies no data."""
        weights = self.weights[index]
        share = float(weights.sum())
        size = None if self.size is None else self.size * share
        return replace(self, X=self.X[index], Y=self.Y[index], weights=weights / share, size=size)

    def chunks(self, width: int) -> Iterator[slice]:
        """Slices of the rows such that a chunk of ``width`` numbers a row stays below :data:`CHUNK_ENTRIES`."""
        size = max(1, CHUNK_ENTRIES // max(width, 1))
        for start in range(0, self.n_samples, size):
            yield slice(start, min(start + size, self.n_samples))

    def forward(self, net: Network) -> Kept:
        """A forward pass over all rows that keeps what growth looks at, and no more.

        No new neuron reads from the last hidden layer or writes into the first: the activations of the one and the
        slopes of the other, as large as all that is kept otherwise, are left out (:data:`LEFT_OUT`).
        """
        top, n = net.depth - 1, self.n_samples
        hidden = [self.X, *(np.empty((n, width)) for width in net.hidden_widths[:-1])]
        slopes = [np.empty((n, width)) for width in net.hidden_widths[1:]]
        output = np.empty((n, net.n_outputs))

        def run(part: slice) -> None:
            kept = net.run(self.X[part])
            output[part] = kept.output
            for l in range(1, top):
                hidden[l][part] = kept.hidden[l]
                slopes[l - 1][part] = kept.slopes[l]

        over(self.chunks(2 * max(net.widths)), run)
        return Kept([*hidden, LEFT_OUT], [LEFT_OUT, *slopes], output)

    # -- the loss ----------------------------------------------------------------------------------

    def penalty(self, net: Network) -> float:
        return self.l2 * sum(float((W * W).sum()) for W in net.matrices) if self.l2 else 0.0

    def sample_losses(self, net: Network) -> np.ndarray:
        """l(H(x_i), y_i): (n,)."""

        def losses(part: slice) -> np.ndarray:
            return self.risk.value(net.outputs(self.X[part]), self.Y[part])

        return np.concatenate(over(self.chunks(max(net.widths)), losses))

    def data_loss(self, net: Network) -> float:
        """Mean loss without the penalty."""
        return float(self.weights @ self.sample_losses(net))

    def loss(self, net: Network) -> float:
        return self.data_loss(net) + self.penalty(net)

    def loss_and_gradient(self, net: Network) -> tuple[float, np.ndarray]:
        """L and dL/dtheta (n_params,)."""

        def shares(part: slice) -> tuple[float, np.ndarray]:
            kept, v = net.run(self.X[part]), self.weights[part]
            loss = float(v @ self.risk.value(kept.output, self.Y[part]))
            return loss, net.gradient(kept, v[:, None] * self.risk.slope(kept.output, self.Y[part]))

        total, g = self.penalty(net), self._penalty_gradient(net)
        for loss, slope in over(self.chunks(2 * max(net.widths)), shares):
            total += loss
            g += slope
        return total, g

    def at(self, net: Network) -> Point:
        """The loss at ``net``, and the way to its normal equations."""
        parts = list(self.chunks(net.n_params * self.n_outputs))
        loss, kept = self.penalty(net), None
        for part in parts:
            kept = Pass.of(net, self.columns[:, part])
            loss += float(self.weights[part] @ self.risk.value(kept.output, self.Y[part]))
        return Point(self, net, loss, parts, kept if len(parts) == 1 else None)

    @cached_property
    def columns(self) -> np.ndarray:
        """X', (n_inputs, n), a copy: for fits by second-order methods, which large tables have none of."""
        return np.ascontiguousarray(self.X.T)

    def gauss_newton(self, net: Network) -> tuple[float, np.ndarray, np.ndarray]:
        """L, its gradient (P,) and sum_i v_i J_i' l''_i J_i + 2 l2 (P, P), J'J for the square loss."""
        point = self.at(net)
        return point.loss, *point.normal_equations()

    def _penalty_gradient(self, net: Network) -> np.ndarray:
        g = np.zeros(net.n_params)
        if self.l2:
            g[: net.n_params - net.intercept.size] = 2.0 * self.l2 * net.theta[: net.n_params - net.intercept.size]
        return g

    # -- what the data ask for ---------------------------------------------------------------------

    def pull(self, q: np.ndarray) -> np.ndarray:
        """ybar = -dL/dH at outputs (n, K) of all samples: (n, K)."""
        return -self.weights[:, None] * self.risk.slope(q, self.Y)

    def curvature_along(self, q: np.ndarray, V: np.ndarray) -> float:
        """sum_i v_i V_i' l''_i V_i for a change V (n, K) of the outputs."""
        return float(self.weights @ (self.risk.root(q, V[:, :, None]) ** 2).sum(axis=(1, 2)))


@dataclass(frozen=True, eq=False)
class Point:
    """A network and its loss.

    Attributes
    ----------
    loss : float
        With the penalty.
    parts : list of slice
        The chunks of rows.
    kept : Pass or None
        The forward pass, if the rows are one chunk.
    """

    problem: Problem
    net: Network
    loss: float
    parts: list[slice] = field(repr=False)
    kept: Pass | None = field(repr=False)

    def normal_equations(self) -> tuple[np.ndarray, np.ndarray]:
        """The gradient (P,) of L and the generalised Gauss-Newton matrix (P, P)."""
        problem, net = self.problem, self.net
        g = problem._penalty_gradient(net)
        A = np.zeros(())
        for part in self.parts:
            kept = self.kept or Pass.of(net, problem.columns[:, part])
            v = problem.weights[part]
            g += kept.gradient(v[:, None] * problem.risk.slope(kept.output, problem.Y[part]))
            share = kept.gauss_newton(problem.risk, v)
            A = A + share if A.ndim else share
        if problem.l2:
            A[np.diag_indices(net.n_params - net.intercept.size)] += 2.0 * problem.l2
        return g, A
