"""Feed-forward networks H(x; W_1..W_L) = W_L s(W_{L-1} ... s(W_1 x)), without biases.

theory.md, section 1.  A bias is a constant input coordinate.  Weights live in one flat vector,
layer after layer, each W_l row by row; row j of W_l holds the incoming weights of neuron j of
layer l.  First and second derivatives are the closed formulas of backpropagation, written as matrix
products over all samples and neurons at once.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from gfsim.arrays import Array, identity, namespace, zeros
from gfsim.errors import InvalidInput
from gfsim.models.activation import Activation, make_activation
from gfsim.models.base import Model, spread


@dataclass(frozen=True)
class Pass:
    """One forward pass: ``hidden[l]`` = h_l (h_0 = X), ``slopes[l]`` = s'(z_{l+1}), and the output.

    Entries are (..., n, width of the layer).
    """

    hidden: list[Array]
    slopes: list[Array]
    preactivations: list[Array]
    output: Array


class FeedForward(Model):
    """A bias-free network of given widths.

    Parameters
    ----------
    widths : sequence of int
        (inputs, hidden_1, ..., hidden_{L-1}, outputs); at least inputs and outputs.
    activation : str or Activation
        A name known to :func:`gfsim.models.activation.make_activation`, or an activation object.
    p, alpha : optional
        Passed on with a name: ``FeedForward((20, 50, 1), "relu", p=2)``.

    Raises
    ------
    InvalidInput, UnknownName
        For widths that are no whole numbers >= 1, or an activation that is not known.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation = "relu",
        *,
        p: int | None = None,
        alpha: float | None = None,
    ) -> None:
        try:
            sizes = tuple(operator.index(k) for k in widths)
        except TypeError:
            sizes = ()
        if len(sizes) < 2 or min(sizes) < 1:
            raise InvalidInput(f"widths = {widths!r}; give whole numbers >= 1 as (inputs, hidden widths ..., outputs)")
        self.widths = sizes
        self.activation = make_activation(activation, p, alpha)
        self.n_inputs, self.n_outputs = sizes[0], sizes[-1]
        self.shapes = tuple((rows, cols) for cols, rows in pairwise(sizes))
        ends = np.cumsum([rows * cols for rows, cols in self.shapes])
        self._slices = tuple(slice(int(b) - r * c, int(b)) for b, (r, c) in zip(ends, self.shapes, strict=True))
        self.n_params = int(ends[-1])

    def __repr__(self) -> str:
        return f"FeedForward({self.widths}, {self.activation.name!r})"

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.shapes)

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers alone."""
        return self.widths[1:-1]

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.widths))} {self.activation.name} net"

    @property
    def degree(self) -> float | None:
        """D = 1 + p + ... + p^(L-1)."""
        if self.depth == 1:
            return 1.0
        power = self.activation.power
        return None if power is None else float(sum(power**k for k in range(self.depth)))

    def with_hidden_widths(self, hidden: Sequence[int]) -> FeedForward:
        """The same network with other hidden widths."""
        return FeedForward((self.n_inputs, *hidden, self.n_outputs), self.activation)

    # -- the flat vector and the matrices ---------------------------------------------------------

    def unpack(self, w: Array) -> list[Array]:
        """The matrices [W_1, ..., W_L] as views of ``w``: (..., rows, columns)."""
        self.check_shape(w)
        batch = w.shape[:-1]
        return [w[..., part].reshape(*batch, *shape) for part, shape in zip(self._slices, self.shapes, strict=True)]

    def pack(self, matrices: Sequence[Array]) -> Array:
        """The flat vector of the matrices; the inverse of :meth:`unpack`."""
        if len(matrices) != self.depth or any(
            tuple(W.shape[-2:]) != shape for W, shape in zip(matrices, self.shapes, strict=False)
        ):
            got = [tuple(W.shape) for W in matrices]
            raise InvalidInput(f"weight matrices of shapes {got}; {self.name} takes {list(self.shapes)}")
        flat = [W.reshape(*W.shape[:-2], -1) for W in matrices]
        return namespace(flat[0]).concatenate(flat, -1)

    @cached_property
    def index(self) -> list[np.ndarray]:
        """``index[l][j, k]``: the place of W_{l+1}[j, k] in the flat vector."""
        return self.unpack(np.arange(self.n_params))

    # -- first order -------------------------------------------------------------------------------

    def run(self, w: Array, X: Array) -> Pass:
        """One forward pass that keeps what the derivatives need."""
        *inner, last = self.unpack(w)
        h, hidden, slopes, preactivations = X, [X], [], []
        for W in inner:
            z = h @ W.mT
            h, slope = self.activation.value_and_slope(z)
            hidden.append(h)
            slopes.append(slope)
            preactivations.append(z)
        return Pass(hidden, slopes, preactivations, h @ last.mT)

    def forward(self, w: Array, X: Array) -> Array:
        *inner, last = self.unpack(w)
        h = X
        for W in inner:
            h = self.activation.value(h @ W.mT)
        return h @ last.mT

    def backpropagate(self, w: Array, kept: Pass, C: Array) -> list[Array]:
        """``[delta_1, ..., delta_L]`` with delta_l = d(sum C H)/dz_l: each (..., n, width of layer l)."""
        matrices = self.unpack(w)
        delta, deltas = C, [C]
        for W, slope in zip(reversed(matrices[1:]), reversed(kept.slopes), strict=True):
            delta = (delta @ W) * slope
            deltas.append(delta)
        return deltas[::-1]

    def pullback_from(self, w: Array, kept: Pass, C: Array) -> Array:
        """:meth:`pullback` when the forward pass at ``w`` is at hand."""
        if self.depth == 1:  # no layer below lends its batch axes to the result
            C = spread(C, w[..., None])
        deltas = self.backpropagate(w, kept, C)
        parts = [delta.mT @ h for delta, h in zip(deltas, kept.hidden, strict=True)]
        return namespace(w).concatenate([g.reshape(*g.shape[:-2], -1) for g in parts], -1)

    def pullback(self, w: Array, X: Array, C: Array) -> Array:
        return self.pullback_from(w, self.run(w, X), C)

    # -- second order ------------------------------------------------------------------------------

    def _layer_jacobians(self, w: Array, kept: Pass, top: int) -> list[list[Array]]:
        """``B[m][l]`` = dz_m / dz_l for l <= m < top, layers counted from 0: (n, width_m, width_l)."""
        matrices = self.unpack(w)
        n = kept.output.shape[0]
        B: list[list[Array]] = []
        for m in range(top):
            eye = identity(self.widths[m + 1], like=w)
            eye = namespace(w).broadcast_to(eye, (n, *eye.shape))
            row = []
            for l in range(m):
                lower = kept.slopes[m - 1][:, :, None] * B[m - 1][l]
                row.append(matrices[m] @ lower)
            B.append([*row, eye])
        return B

    def jacobian(self, w: Array, X: Array) -> Array:
        kept = self.run(w, X)
        return self._jacobian_from(kept, self._layer_jacobians(w, kept, self.depth)[-1])

    def _jacobian_from(self, kept: Pass, B: list[Array]) -> Array:
        """:meth:`jacobian` from ``B[l]`` = dH / dz_l."""
        parts = [b[:, :, :, None] * h[:, None, None, :] for b, h in zip(B, kept.hidden, strict=True)]
        return namespace(parts[0]).concatenate([g.reshape(*g.shape[:2], -1) for g in parts], -1)

    def curvature(self, w: Array, X: Array, C: Array, Q: Array | None = None) -> Array:
        """The exact (P, P) matrix, block by block.

        The block of (W_l[a, b], W_m[c, e]), l <= m, is
        sum_i h_{l-1}[b] ( M_lm[a, c] h_{m-1}[e] + [l < m] delta_m[c] dh_{m-1}[e]/dz_l[a] ),
        where M_lm is the second derivative with respect to shifts of z_l and z_m: a sum over the layers
        above m of the curvature that each activation (and the loss, through Q) puts in.
        """
        kept = self.run(w, X)
        L, n = self.depth, X.shape[0]
        matrices = self.unpack(w)
        deltas = self.backpropagate(w, kept, C)
        B = self._layer_jacobians(w, kept, L)
        # bends[k]: the curvature that enters at preactivation z_k; None where it is identically zero.
        bends: list[Array | None] = [None] * (L - 1)
        if self.activation.power != 1:
            bends = [
                (deltas[k + 1] @ matrices[k + 1]) * self.activation.curvature(z)
                for k, z in enumerate(kept.preactivations)
            ]
        # The loss's own curvature: with one output J' Q J is cheaper than its sum over pairs of layers.
        if Q is not None and self.n_outputs == 1:
            bends.append(None)
            J = self._jacobian_from(kept, B[-1])[:, 0, :]
            H = _gram(J, Q)
        else:
            bends.append(Q)
            H = zeros((self.n_params, self.n_params), like=w)
        for l in range(L):
            for m in range(l, L):
                h_l, h_m = kept.hidden[l], kept.hidden[m]
                a, b, c, e = self.widths[l + 1], self.widths[l], self.widths[m + 1], self.widths[m]
                block = H[self._slices[l], self._slices[m]].reshape(a, b, c, e)  # a view
                above = [(k, upper) for k, upper in enumerate(bends) if k > m and upper is not None]
                terms = [(B[k][l] * upper[:, :, None]).mT @ B[k][m] for k, upper in above]
                bend = bends[m]
                if bend is not None and l < m:
                    terms.append(B[m][l].mT * bend[:, None, :])
                if terms:
                    outer = (h_l[:, :, None] * h_m[:, None, :]).reshape(n, b * e)
                    M = sum(terms[1:], start=terms[0])
                    block += _transpose((M.reshape(n, a * c).mT @ outer).reshape(a, c, b, e), (0, 2, 1, 3))
                if bend is not None and l == m:
                    # a neuron's own curvature meets only its own incoming weights: M is diagonal
                    own = (bend.mT[:, None, :] * h_l.mT) @ h_l
                    units = np.arange(a)
                    block[units, :, units, :] += own
                if l < m:
                    lift = kept.slopes[m - 1][:, :, None] * B[m - 1][l]  # dh_m / dz_l: (n, e, a)
                    left = (deltas[m][:, :, None] * h_l[:, None, :]).reshape(n, c * b)
                    cross = (left.mT @ lift.reshape(n, e * a)).reshape(c, b, e, a)
                    block += _transpose(cross, (3, 1, 0, 2))
                    H[self._slices[m], self._slices[l]] = H[self._slices[l], self._slices[m]].mT
        return H

    def curvature_product(self, w: Array, X: Array, C: Array, Q: Array | None, v: Array) -> Array:
        """Forward-over-backward: the directional derivative of :meth:`pullback` along ``v``."""
        return self.curvature_product_from(w, self.run(w, X), C, Q, v)

    def curvature_product_from(self, w: Array, kept: Pass, C: Array, Q: Array | None, v: Array) -> Array:
        """:meth:`curvature_product` when the forward pass at ``w`` is at hand."""
        matrices, tangents = self.unpack(w), self.unpack(spread(v, w))
        deltas = self.backpropagate(w, kept, C)
        # forward: dz_l and dh_l along v
        dh: list[Array | None] = [None]
        dz: list[Array] = []
        for l, (W, V) in enumerate(zip(matrices, tangents, strict=True)):
            z = kept.hidden[l] @ V.mT
            if dh[l] is not None:
                z = z + dh[l] @ W.mT
            dz.append(z)
            if l < self.depth - 1:
                dh.append(kept.slopes[l] * z)
        # backward: d(delta_l) along v
        ddelta = 0.0 * dz[-1] if Q is None else Q * dz[-1]
        parts: list[Array] = []
        for l in range(self.depth - 1, -1, -1):
            g = ddelta.mT @ kept.hidden[l]
            if dh[l] is not None:
                g = g + deltas[l].mT @ dh[l]
            parts.append(g.reshape(*g.shape[:-2], -1))
            if l > 0:
                bend = self.activation.curvature(kept.preactivations[l - 1]) * (deltas[l] @ matrices[l])
                ddelta = ddelta @ matrices[l] + deltas[l] @ tangents[l]
                ddelta = ddelta * kept.slopes[l - 1] + bend * dz[l - 1]
        return namespace(w).concatenate(parts[::-1], -1)

    # -- structure ---------------------------------------------------------------------------------

    def conserved(self, w: Array) -> Array:
        """Neuron balances |W_l[j, :]|^2 - p |W_{l+1}[:, j]|^2, layer by layer: (..., hidden neurons).

        Constant along any exact gradient flow (theory.md, section 1); the gauge of an integrator's
        accuracy.  Empty for an activation without a degree.
        """
        power = self.activation.power
        if power is None or self.depth == 1:
            return w[..., :0]
        matrices = self.unpack(w)
        parts = [(W * W).sum(-1) - power * (V * V).sum(-2) for W, V in pairwise(matrices)]
        return namespace(w).concatenate(parts, -1)

    def neuron_norms(self, w: Array) -> list[Array]:
        """Per hidden layer, sqrt(|incoming|^2 + |outgoing|^2) of every neuron: (..., width)."""
        matrices = self.unpack(w)
        return [((W * W).sum(-1) + (V * V).sum(-2)) ** 0.5 for W, V in pairwise(matrices)]

    def hidden_neurons(self) -> Iterator[tuple[int, int]]:
        """All (layer, unit), layers counted 1..L-1 as in the papers, units from 0."""
        for layer, width in enumerate(self.hidden_widths, start=1):
            for unit in range(width):
                yield layer, unit


def _gram(J: Array, Q: Array) -> Array:
    """J' diag(Q) J for J (n, P) and Q (n, 1): (P, P)."""
    if (Q >= 0).all():  # every convex loss: a product of a matrix with itself costs half
        J = Q**0.5 * J
        return J.mT @ J
    return J.mT @ (Q * J)


def _transpose(x: Array, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes) if isinstance(x, np.ndarray) else x.permute(axes)
