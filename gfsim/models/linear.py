"""Models that are linear in the input: H(x; w) = <x, theta(w)>, theta a homogeneous polynomial of the weights.

docs/theory.md, sections 1 and 7: diagonal linear networks, two-layer matrix factorisation and deep
linear networks, whose saddle-to-saddle dynamics have closed forms or a known order of jumps.  A family
states theta, its Jacobian in both directions and one second derivative; everything that the rest of
gfsim asks of a model follows from these by the chain rule, because H is linear in theta.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gfsim.arrays import Array, identity, namespace, whole_number
from gfsim.errors import InvalidInput
from gfsim.models.base import Model, spread
from gfsim.models.feedforward import FeedForward


class LinearPredictor(Model):
    """H(x; w) = <x, theta(w)> with one output; theta maps (P,) weights to (n_inputs,) coefficients.

    Subclasses implement :meth:`theta`, :meth:`push`, :meth:`pull` and :meth:`pull_tangent`, all
    broadcast over the leading axes of every argument.
    """

    n_outputs = 1

    @abstractmethod
    def theta(self, w: Array) -> Array:
        """The coefficients of the input: (..., d)."""

    @abstractmethod
    def push(self, w: Array, v: Array) -> Array:
        """The derivative of theta along ``v``: (..., d)."""

    @abstractmethod
    def pull(self, w: Array, g: Array) -> Array:
        """The gradient of <g, theta(w)> with respect to w, for ``g`` (..., d): (..., P)."""

    @abstractmethod
    def pull_tangent(self, w: Array, g: Array, v: Array) -> Array:
        """The derivative of :meth:`pull` along ``v`` at fixed ``g``: (..., P)."""

    def forward(self, w: Array, X: Array) -> Array:
        return X @ self.theta(w)[..., None]

    def pullback(self, w: Array, X: Array, C: Array) -> Array:
        return self.pull(w, _weighted_input(C, X))

    def jacobian(self, w: Array, X: Array) -> Array:
        return self.pull(w, X)[:, None, :]

    def curvature(self, w: Array, X: Array, C: Array, Q: Array | None = None) -> Array:
        H = self.pull_tangent(w, _weighted_input(C, X), identity(self.n_params, like=w))
        if Q is None:
            return H
        J = self.pull(w, X)
        return H + J.mT @ (Q * J)

    def curvature_product(self, w: Array, X: Array, C: Array, Q: Array | None, v: Array) -> Array:
        bent = self.pull_tangent(w, _weighted_input(C, X), v)
        if Q is None:
            return bent
        return bent + self.pull(w, _weighted_input(Q * (X @ self.push(w, v)[..., None]), X))


def _weighted_input(C: Array, X: Array) -> Array:
    """sum_i C_i x_i for C (..., n, 1): (..., d)."""
    return (C.mT @ X)[..., 0, :]


class DiagonalLinear(LinearPredictor):
    """A diagonal linear network: H(x; w) = sum_j theta_j x_j, each coefficient a product of weights.

    ===========  =========================================  =======================================
    ``tied``     ``signed=False``                           ``signed=True``
    ===========  =========================================  =======================================
    ``False``    theta_j = prod_l w_l[j]                    theta_j = prod_l u_l[j] - prod_l v_l[j]
    ``True``     theta_j = w[j]^depth                       theta_j = u[j]^depth - v[j]^depth
    ===========  =========================================  =======================================

    Weights are stored as (w_1, ..., w_depth), respectively (u_1, ..., u_depth, v_1, ..., v_depth), each
    of n_inputs entries; tied networks have one such vector, respectively two.  The degree is ``depth``.
    The tied network of depth 2 on two inputs is the closed-form toy w1^2 x1 + w2^2 x2 of
    docs/theory.md, section 3.

    Sources: Pesme and Flammarion 2023 (theta = u v, untied, depth 2: saddle-to-saddle jumps);
    Woodworth et al. 2020 (theta = u^D - v^D, tied and signed).

    Parameters
    ----------
    n_inputs : int >= 1
    depth : int >= 1
    tied, signed : bool
    """

    def __init__(self, n_inputs: int, depth: int, *, tied: bool = False, signed: bool = False) -> None:
        self.n_inputs = whole_number(n_inputs, "n_inputs")
        self.depth = whole_number(depth, "depth")
        self.tied, self.signed = bool(tied), bool(signed)
        self._grid = (2 if self.signed else 1, 1 if self.tied else self.depth, self.n_inputs)
        self.n_params = int(np.prod(self._grid))

    def __repr__(self) -> str:
        return f"DiagonalLinear({self.n_inputs}, {self.depth}, tied={self.tied}, signed={self.signed})"

    @property
    def degree(self) -> float:
        return float(self.depth)

    @property
    def name(self) -> str:
        words = ["tied"] * self.tied + ["signed"] * self.signed
        return " ".join([*words, f"diagonal linear net, {self.n_inputs} inputs, depth {self.depth}"])

    def unpack(self, w: Array) -> list[list[Array]]:
        """``unpack(w)[sign][layer]``: (..., n_inputs); one sign unless signed, one layer if tied."""
        self.check_shape(w)
        grid = w.reshape(*w.shape[:-1], *self._grid)
        signs, layers, _ = self._grid
        return [[grid[..., s, l, :] for l in range(layers)] for s in range(signs)]

    def _pack(self, parts: Sequence[Sequence[Array]], *shaped_like: Array) -> Array:
        """The inverse of :meth:`unpack`; the parts are first broadcast to the batch of all ``shaped_like``."""
        xp = namespace(parts[0][0])
        batch = np.broadcast_shapes(*(tuple(a.shape[:-1]) for a in shaped_like))
        flat = [xp.broadcast_to(part, (*batch, self.n_inputs)) for row in parts for part in row]
        return xp.concatenate(flat, -1)

    def _products(self, layers: list[Array]) -> tuple[list[Array], list[Array]]:
        """``before[l]``: the product of the layers below l; ``after[l]``: of those above.

        No division by a layer, because weights that vanish are the subject here.
        """
        one = namespace(layers[0]).ones_like(layers[0])
        before, after = [one], [one]
        for low, high in zip(layers[:-1], layers[:0:-1], strict=True):
            before.append(before[-1] * low)
            after.append(after[-1] * high)
        return before, after[::-1]

    def theta(self, w: Array) -> Array:
        signs = []
        for layers in self.unpack(w):
            if self.tied:
                signs.append(layers[0] ** self.depth)
            else:
                signs.append(self._products(layers)[0][-1] * layers[-1])
        return signs[0] - signs[1] if self.signed else signs[0]

    def _slopes(self, layers: list[Array]) -> list[Array]:
        """d(product) / d(layer l), for every l."""
        if self.tied:
            return [self.depth * layers[0] ** (self.depth - 1)]
        return [b * a for b, a in zip(*self._products(layers), strict=True)]

    def push(self, w: Array, v: Array) -> Array:
        signs = [
            sum(slope * t for slope, t in zip(self._slopes(layers), tangents, strict=True))
            for layers, tangents in zip(self.unpack(w), self.unpack(v), strict=True)
        ]
        return signs[0] - signs[1] if self.signed else signs[0]

    def pull(self, w: Array, g: Array) -> Array:
        parts = [
            [sign * g * slope for slope in self._slopes(layers)]
            for sign, layers in zip((1.0, -1.0), self.unpack(w), strict=False)
        ]
        return self._pack(parts, w, g)

    def pull_tangent(self, w: Array, g: Array, v: Array) -> Array:
        parts = [
            [sign * g * bend for bend in self._bends(layers, tangents)]
            for sign, layers, tangents in zip((1.0, -1.0), self.unpack(w), self.unpack(v), strict=False)
        ]
        return self._pack(parts, w, g, v)

    def _bends(self, layers: list[Array], tangents: list[Array]) -> list[Array]:
        """The derivative of every :meth:`_slopes` entry along the tangents."""
        if self.tied:
            if self.depth == 1:
                return [0.0 * tangents[0]]
            return [self.depth * (self.depth - 1) * layers[0] ** (self.depth - 2) * tangents[0]]
        before, after = self._products(layers)
        d_before = [0.0 * tangents[0]]
        d_after = [0.0 * tangents[0]]
        for l in range(self.depth - 1):
            d_before.append(d_before[-1] * layers[l] + before[l] * tangents[l])
            top = self.depth - 1 - l
            d_after.append(d_after[-1] * layers[top] + after[top] * tangents[top])
        d_after.reverse()
        return [db * a + b * da for db, a, b, da in zip(d_before, after, before, d_after, strict=True)]

    def conserved(self, w: Array) -> Array:
        """Quantities that any exact gradient flow keeps constant, whatever the loss and the data.

        Untied: the balances w_l[j]^2 - w_{l+1}[j]^2 of consecutive layers.  Tied and signed: u_j + v_j
        at depth 1 and u_j v_j at depth 2; at other depths the invariant u_j^(2-depth) + v_j^(2-depth)
        is singular at zero weights and is left out.  Tied and unsigned: none.
        """
        signs = self.unpack(w)
        if not self.tied:
            parts = [low * low - high * high for layers in signs for low, high in pairwise(layers)]
            return namespace(w).concatenate(parts, -1) if parts else w[..., :0]
        if self.signed and self.depth <= 2:
            (u,), (v,) = signs
            return u + v if self.depth == 1 else u * v
        return w[..., :0]


class MatrixFactorisation(LinearPredictor):
    """Two-layer matrix factorisation: H(A; U, V) = <A, U V'>, or <A, U U'> when symmetric.

    The input row is the measurement matrix A, flattened row by row (``A.ravel()``), so observing the
    entries of a target matrix is the data set ``X = numpy.eye(rows * cols)``, ``y = target.ravel()``.
    Weights are U (rows, rank) and then V (cols, rank), each row by row.  The degree is 2.

    Parameters
    ----------
    rows, cols, rank : int >= 1
        ``rank`` may exceed min(rows, cols): over-parametrised, as in the studies of greedy low rank.
    symmetric : bool
        V = U; needs rows == cols.

    Raises
    ------
    InvalidInput
        For sizes that are no whole numbers >= 1, or a symmetric matrix that is not square.
    """

    def __init__(self, rows: int, cols: int, rank: int, *, symmetric: bool = False) -> None:
        self.rows = whole_number(rows, "rows")
        self.cols = whole_number(cols, "cols")
        self.rank = whole_number(rank, "rank")
        self.symmetric = bool(symmetric)
        if self.symmetric and rows != cols:
            raise InvalidInput(
                f"symmetric factorisation of a {rows} x {cols} matrix; U U' is square: pass rows == cols, "
                "or symmetric=False"
            )
        self.n_inputs = self.rows * self.cols
        self.n_params = (self.rows if self.symmetric else self.rows + self.cols) * self.rank

    def __repr__(self) -> str:
        return f"MatrixFactorisation({self.rows}, {self.cols}, {self.rank}, symmetric={self.symmetric})"

    @property
    def degree(self) -> float:
        return 2.0

    @property
    def name(self) -> str:
        kind = "symmetric matrix" if self.symmetric else "matrix"
        return f"{kind} factorisation, {self.rows} x {self.cols}, rank {self.rank}"

    def unpack(self, w: Array) -> tuple[Array, Array]:
        """(U, V): (..., rows, rank) and (..., cols, rank); V is U when symmetric."""
        self.check_shape(w)
        batch, split = w.shape[:-1], self.rows * self.rank
        U = w[..., :split].reshape(*batch, self.rows, self.rank)
        return U, U if self.symmetric else w[..., split:].reshape(*batch, self.cols, self.rank)

    def _pack(self, to_U: Array, to_V: Array) -> Array:
        """Flat derivative from its U and V parts; they add up when the two are one matrix."""
        if self.symmetric:
            total = to_U + to_V
            return total.reshape(*total.shape[:-2], -1)
        flat = [part.reshape(*part.shape[:-2], -1) for part in (to_U, to_V)]
        return namespace(to_U).concatenate(flat, -1)

    def _measured(self, g: Array) -> Array:
        """A flattened matrix in matrix form: (..., rows, cols)."""
        return g.reshape(*g.shape[:-1], self.rows, self.cols)

    def theta(self, w: Array) -> Array:
        U, V = self.unpack(w)
        return self._flat(U @ V.mT)

    def _flat(self, M: Array) -> Array:
        return M.reshape(*M.shape[:-2], self.n_inputs)

    def push(self, w: Array, v: Array) -> Array:
        (U, V), (dU, dV) = self.unpack(w), self.unpack(v)
        return self._flat(dU @ V.mT + U @ dV.mT)

    def pull(self, w: Array, g: Array) -> Array:
        (U, V), G = self.unpack(w), self._measured(g)
        return self._pack(G @ V, G.mT @ U)

    def pull_tangent(self, w: Array, g: Array, v: Array) -> Array:
        self.check_shape(w)  # pull is linear in w, which therefore only lends its batch axes
        return self.pull(spread(v, w), g)

    def conserved(self, w: Array) -> Array:
        """The upper triangle of U'U - V'V, constant along any exact gradient flow: (..., rank (rank + 1) / 2).

        Empty when symmetric: U'U - U'U says nothing.
        """
        if self.symmetric:
            return w[..., :0]
        U, V = self.unpack(w)
        i, j = np.triu_indices(self.rank)
        return (U.mT @ U - V.mT @ V)[..., i, j]


def deep_linear(widths: Sequence[int]) -> FeedForward:
    """The deep linear network H(x; w) = W_L ... W_1 x of the given widths (inputs, hidden ..., outputs)."""
    return FeedForward(widths, "linear")
