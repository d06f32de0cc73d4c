"""From a user's arrays to a :class:`gfsim.pursuit.problem.Problem`.

Scales, the constant input, merged rows, the validation split.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.pursuit.network import Network

MERGE_ENTRIES = 5_000_000
"""Tables with at most this many entries are searched for rows that coincide."""

CHUNK_ENTRIES = 1_000_000
"""Numbers of the table that are taken at a time: nothing of the table's own size is held beside it."""

LEAST_VALIDATION = 10
"""With fewer validation samples than this their loss says nothing, and growth does without."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """x -> ((x - center) / scale, 1) and back for targets.

    Attributes
    ----------
    center, scale : (n_features,)
        Weighted mean and deviation; the scale of a constant column is one.
    target_center, target_scale : (n_outputs,)
        Zeros and ones for classes.
    bias : bool
        Whether a constant 1 is appended to the inputs.
    """

    center: np.ndarray
    scale: np.ndarray
    target_center: np.ndarray
    target_scale: np.ndarray
    bias: bool

    @classmethod
    def of(
        cls, X: np.ndarray, Y: np.ndarray, weights: np.ndarray, *, standardise: bool, targets: bool, bias: bool
    ) -> Scaling:
        """Means and deviations of the columns of X, and of Y if ``targets``; nothing without ``standardise``."""
        center, scale = _moments(X, weights) if standardise else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        if standardise and targets:
            return cls(center, scale, *_moments(Y, weights), bias)
        return cls(center, scale, np.zeros(Y.shape[1]), np.ones(Y.shape[1]), bias)

    def inputs(self, X: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
        """What the network sees: (n, n_features (+ 1)), with the rows of X in the given order if there is one."""
        n, d = (len(X) if order is None else len(order)), X.shape[1]
        Z = np.empty((n, d + self.bias))
        step = max(1, CHUNK_ENTRIES // max(d, 1))
        for part in (slice(k, k + step) for k in range(0, n, step)):
            np.subtract(X[part] if order is None else X[order[part]], self.center, out=Z[part, :d])
            Z[part, :d] /= self.scale
        if self.bias:
            Z[:, -1] = 1.0
        return Z

    def targets(self, Y: np.ndarray) -> np.ndarray:
        return (Y - self.target_center) / self.target_scale

    def outputs(self, q: np.ndarray) -> np.ndarray:
        """Network outputs in the target's own units: (n, n_outputs)."""
        return self.target_center + self.target_scale * q

    def folded(self, net: Network) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """The same map from raw x to raw outputs as matrices, a bias of the first layer and one of the last.

        Returns
        -------
        (matrices [W_1, ..., W_L], first (width_1,), last (n_outputs,))
            Hidden layers without neurons hold one zero neuron.
        """
        model, w = net.feed_forward()
        matrices = [W.copy() for W in model.unpack(w)]
        d = len(self.center)
        first = matrices[0][:, d] if self.bias else np.zeros(len(matrices[0]))
        matrices[0] = matrices[0][:, :d] / self.scale
        first = first - matrices[0] @ self.center
        matrices[-1] = self.target_scale[:, None] * matrices[-1]
        return matrices, first, self.target_center + self.target_scale * net.intercept_or_zero


def _moments(A: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and deviation of each column without overflow or underflow; a constant column has scale one."""
    largest = np.maximum(np.maximum(A.max(axis=0), -A.min(axis=0)), 1e-290)
    share = weights / weights.sum()
    mean = np.zeros(A.shape[1])
    square = np.zeros(A.shape[1])
    step = max(1, CHUNK_ENTRIES // A.shape[1])
    for k in range(0, len(A), step):
        mean += share[k : k + step] @ (A[k : k + step] / largest)
    for k in range(0, len(A), step):
        square += share[k : k + step] @ (A[k : k + step] / largest - mean) ** 2
    deviation = np.sqrt(square)
    varies = deviation > 1e-13
    return mean * largest, np.where(varies, deviation * largest, np.where(largest > 1e150, largest, 1.0))


def merged(X: np.ndarray, Y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows without weight dropped, rows that coincide replaced by one with the sum of their weights.

    The result is sorted: neither the order of the samples nor the difference between a weight 2 and two
    copies can change a fit.  Tables of more than :data:`MERGE_ENTRIES` entries keep their rows and their order.
    """
    live = weights > 0
    if not live.all():
        X, Y, weights = X[live], Y[live], weights[live]
    if len(X) == 0:
        raise InvalidInput("every sample weight is 0; at least two samples need a positive one")
    if X.size + Y.size > MERGE_ENTRIES:
        return X, Y, weights
    table, where = np.unique(np.column_stack([X, Y]) + 0.0, axis=0, return_inverse=True)
    return table[:, : X.shape[1]].copy(), table[:, X.shape[1] :].copy(), np.bincount(where.ravel(), weights)


@dataclass(frozen=True)
class Split:
    """Row numbers for training and validation; ``validation`` is empty when there are too few samples.

    Attributes
    ----------
    train, validation : (m,), (k,)
        A row that stands for several copies may be in both.
    shares : (m + k,)
        The part of each row's weight that is there.
    """

    train: np.ndarray = field(repr=False)
    validation: np.ndarray = field(repr=False)
    shares: np.ndarray = field(repr=False)

    @property
    def order(self) -> np.ndarray:
        """Training rows, then validation rows."""
        return np.concatenate([self.train, self.validation])


def counts(weights: np.ndarray) -> np.ndarray:
    """How many samples each row (n,) stands for, where all weights are whole numbers; else one each.

    So it is where they add up to a thousand million or more, of which NumPy deals none.
    """
    whole = bool((weights == np.round(weights)).all()) and float(weights.sum()) < 1e9
    return weights.astype(np.int64) if whole else np.ones(len(weights), dtype=np.int64)


def split_rows(
    copies: np.ndarray, fraction: float, rng: np.random.Generator, groups: np.ndarray | None = None
) -> Split:
    """A random split of rows that stand for ``copies`` (n,) samples each; with ``groups`` (n,) each group (class) is
    split in the same proportion.

    Samples are dealt out, not rows: where inputs take few values, rows are many copies of one sample, and validation
    rows with inputs of their own would ask for something else than the table holds.
    """
    n = len(copies)
    if copies.sum() * fraction < LEAST_VALIDATION:
        return Split(np.arange(n), np.zeros(0, dtype=int), np.ones(n))
    held = np.zeros(n, dtype=np.int64)
    for part in [np.arange(n)] if groups is None else [np.flatnonzero(groups == g) for g in np.unique(groups)]:
        total = int(copies[part].sum())
        chosen = min(round(fraction * total), total - 1)  # of a class with one sample that sample trains
        if total == len(part):
            held[rng.permutation(part)[:chosen]] = 1
        else:
            held[part] = rng.multivariate_hypergeometric(copies[part], chosen, method="marginals")
    train, validation = np.flatnonzero(held < copies), np.flatnonzero(held)
    part_held = held / copies
    return Split(train, validation, np.concatenate([1.0 - part_held[train], part_held[validation]]))


def fold_parts(
    copies: np.ndarray, split: Split, folds: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    """What part of each row (n,) is held out in each fold: (folds, n).

    The first fold is the validation part of ``split``; all other samples are dealt out to the others, those of a group
    (class) evenly.  No fold holds all samples of a group: of a group with one sample that sample always trains.
    """
    held = np.zeros((folds, len(copies)), dtype=np.int64)
    held[0, split.validation] = np.rint(split.shares[len(split.train) :] * copies[split.validation])
    left, dealt = copies - held[0], 0
    for part in (
        [np.arange(len(copies))] if groups is None else [np.flatnonzero(groups == g) for g in np.unique(groups)]
    ):
        if copies[part].sum() > 1:
            samples = rng.permutation(np.repeat(part, left[part]))
            # where the last group ended the next one begins, so that folds are of one size
            np.add.at(held, (1 + (dealt + np.arange(len(samples))) % (folds - 1), samples), 1)
            dealt += len(samples)
    return held / copies
