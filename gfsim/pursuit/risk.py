"""Losses of a whole output vector, as growth needs them: value, slope, and a root of the curvature.

The entrywise losses of :mod:`gfsim.losses` are the papers'; growth also needs the softmax, whose
curvature couples the outputs.  The logistic loss here takes labels 0 and 1, which weights and
permutations leave alone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.special import expit

from gfsim.errors import unknown_name


class Risk(Protocol):
    """A convex loss l(q, y) of outputs q (n, K) and targets y (n, K)."""

    @property
    def name(self) -> str: ...

    def value(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,)."""
        ...

    def slope(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        """dl/dq: (n, K)."""
        ...

    def root(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        """R V for V (n, K, m), where R'R is the Hessian of l in q at each sample: (n, K, m)."""
        ...

    def bend(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        """l'' V for V (n, K, m): (n, K, m)."""
        ...

    def noise(self, q: np.ndarray, y: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """dl/dq at targets that differ from the outputs by noise only, the mean over the ``copies`` (n,) that a row
        stands for: (n, K); see :mod:`gfsim.pursuit.null`."""
        ...

    def constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The best constant output for targets (n, K) of weights (n,) that add up to one: (K,)."""
        ...


class SquareRisk:
    """|q - y|^2."""

    name = "square"

    def value(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ((q - y) ** 2).sum(axis=1)

    def slope(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 2.0 * (q - y)

    def root(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        del q
        return np.sqrt(2.0) * V

    def bend(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        del q
        return 2.0 * V

    def noise(self, q: np.ndarray, y: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del copies  # residuals that are exchanged are means over copies already
        return rng.permutation(self.slope(q, y))

    def constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return weights @ y


class LogisticRisk:
    """log(1 + exp(q)) - y q, y = 0 or 1: two classes, one output, the log-odds of class 1."""

    name = "logistic"

    def value(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.logaddexp(0.0, np.where(y > 0.5, -q, q)).sum(axis=1)

    def slope(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        # -expit(-q) for y = 1 keeps the tail that expit(q) - 1 would round away
        return np.where(y > 0.5, -expit(-q), expit(q))

    def root(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.sqrt(expit(q) * expit(-q))[:, :, None] * V

    def bend(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        return (expit(q) * expit(-q))[:, :, None] * V

    def noise(self, q: np.ndarray, y: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del y
        m = _whole(copies)[:, None]
        return expit(q) - rng.binomial(m, expit(q)) / m

    def constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        share = weights @ y
        return np.log(share / (1.0 - share))


class SoftmaxRisk:
    """-log softmax(q)_y with y one-hot: the multinomial likelihood of K >= 3 classes.

    A proper likelihood of all classes at once; one-against-rest models would be K separate problems
    whose probabilities do not add up to one.  Its curvature is diag(pi) - pi pi' = R'R with
    R = diag(sqrt pi) (1 - 1 pi').
    """

    name = "softmax"

    def value(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        columns = np.ascontiguousarray(q.T)
        top = columns.max(axis=0)
        return top + np.log(np.exp(columns - top).sum(axis=0)) - np.einsum("nk,nk->n", q, y)

    def slope(self, q: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _softmax(q) - y

    def root(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        pi = _softmax(q)
        mean = np.einsum("nk,nkm->nm", pi, V)
        return np.sqrt(pi)[:, :, None] * (V - mean[:, None, :])

    def bend(self, q: np.ndarray, V: np.ndarray) -> np.ndarray:
        pi = _softmax(q)
        return pi[:, :, None] * (V - np.einsum("nk,nkm->nm", pi, V)[:, None, :])

    def noise(self, q: np.ndarray, y: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del y
        m, pi = _whole(copies), _softmax(q)
        return pi - rng.multinomial(m, pi) / m[:, None]

    def constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        logs = np.log(weights @ y)
        return logs - logs.mean()


def _softmax(q: np.ndarray) -> np.ndarray:
    """Along axis 1, by sums down the columns of the transpose: NumPy's along short rows take several times as long."""
    columns = np.ascontiguousarray(q.T)
    shares = np.exp(columns - columns.max(axis=0))
    shares /= shares.sum(axis=0)
    return shares.T


def _whole(copies: np.ndarray) -> np.ndarray:
    """Numbers of labels to draw, at least one."""
    return np.maximum(np.rint(copies), 1.0).astype(np.int64)


_NAMED: dict[str, type[SquareRisk] | type[LogisticRisk] | type[SoftmaxRisk]] = {
    "square": SquareRisk,
    "logistic": LogisticRisk,
    "softmax": SoftmaxRisk,
}


def make_risk(name: str) -> Risk:
    """A risk by name: ``square``, ``logistic``, ``softmax``."""
    if name not in _NAMED:
        raise unknown_name("risk", name, _NAMED)
    return _NAMED[name]()
