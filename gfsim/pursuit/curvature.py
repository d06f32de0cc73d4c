"""The generalised Gauss-Newton matrix of a network: what Levenberg-Marquardt spends its time on.

Everything here holds features by samples, the transpose of :class:`gfsim.pursuit.network.Kept`: a weight then is one
row of n consecutive numbers, and the products below run along it.

With G_l = dH/dz_l, (K, width_l) at every sample, and S the curvature of the loss there times the sample's weight, the
block of two layers is sum_i (G_l' S G_m)_i x (h_{l-1} h_{m-1}')_i, a Kronecker product at each sample.  With few
outputs it is quickest as B B', where B holds R dH/dtheta for a root R'R = S.  With many the first factor is summed over
the outputs before anything is as large as the parameters are many: that is K times less work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from gfsim.pursuit.network import Network
from gfsim.pursuit.risk import Risk

FEW_OUTPUTS = 2
"""Up to so many outputs the matrix is made as B B'."""


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass: ``hidden[l]`` = h_l (width_l, n), h_0 = X', ``slopes[l - 1]`` = s'(z_l), ``output`` (n, K)."""

    net: Network
    hidden: list[np.ndarray] = field(repr=False)
    slopes: list[np.ndarray] = field(repr=False)
    output: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, net: Network, inputs: np.ndarray) -> Pass:
        """At inputs (n_inputs, n)."""
        *inner, last = net.matrices
        h, hidden, slopes = inputs, [inputs], []
        for W in inner:
            h, slope = net.activation.value_and_slope(W @ h)
            hidden.append(h)
            slopes.append(slope)
        output = last @ h
        if net.intercept.size:
            output += net.intercept[:, None]
        return cls(net, hidden, slopes, output.T)

    def deltas(self, C: np.ndarray) -> list[np.ndarray]:
        """d(sum C H)/dz_l for l = 1 .. L, given C (..., K, n): (..., width_l, n)."""
        found = [C]
        for W, slope in zip(reversed(self.net.matrices[1:]), reversed(self.slopes), strict=True):
            found.append(slope * (W.T @ found[-1]))
        return found[::-1]

    def gradient(self, C: np.ndarray) -> np.ndarray:
        """Of sum_ik C_ik H_k(x_i) in theta, C (n, K): (n_params,)."""
        parts = [(delta @ h.T).ravel() for delta, h in zip(self.deltas(C.T), self.hidden, strict=True)]
        return np.concatenate([*parts, C.sum(axis=0) if self.net.intercept.size else self.net.intercept])

    def gauss_newton(self, risk: Risk, weights: np.ndarray) -> np.ndarray:
        """sum_i v_i J_i' l''_i J_i, for sample weights v (n,): (n_params, n_params)."""
        return self._by_root(risk, weights) if self.net.n_outputs <= FEW_OUTPUTS else self._by_blocks(risk, weights)

    def _by_root(self, risk: Risk, weights: np.ndarray) -> np.ndarray:
        n, K = self.output.shape
        roots = np.sqrt(weights)[:, None, None] * risk.root(self.output, np.broadcast_to(np.eye(K), (n, K, K)))
        B = np.empty((self.net.n_params, K, n))
        for k in range(K):
            start, root = 0, np.ascontiguousarray(roots[:, k].T)
            for delta, h in zip(self.deltas(root), self.hidden, strict=True):
                rows, columns = len(delta), len(h)
                into = B[start : start + rows * columns, k].reshape(rows, columns, n)
                np.multiply(delta[:, None, :], h, out=into)
                start += rows * columns
            B[start:, k] = root[: self.net.intercept.size]
        flat = B.reshape(len(B), K * n)
        return flat @ flat.T

    def _by_blocks(self, risk: Risk, weights: np.ndarray) -> np.ndarray:
        n, K = self.output.shape
        effects = self.deltas(np.broadcast_to(np.eye(K)[:, :, None], (K, K, n)))
        bent = []  # S G_l
        for effect in effects:
            turned = risk.bend(self.output, effect.transpose(2, 0, 1)).transpose(1, 2, 0)
            bent.append(np.ascontiguousarray(weights * turned))
        top, P = len(effects) - 1, self.net.n_params
        A = np.empty((P, P))
        starts = np.cumsum([0, *(W.size for W in self.net.matrices)])
        places = [slice(a, b) for a, b in pairwise(starts)]
        for l, h in enumerate(self.hidden):
            for m in range(l, top + 1):
                # the outputs' own effects are the identity
                factor = bent[l] if m == top else np.einsum("kjn,kin->ijn", bent[l], effects[m])
                _fill(A[places[l], places[m]], factor, h, self.hidden[m], symmetric=l == m)
                if m > l:
                    A[places[m], places[l]] = A[places[l], places[m]].T
            if self.net.intercept.size:
                shift = (bent[l].reshape(K * len(bent[l][0]), n) @ h.T).reshape(K, -1)
                A[starts[-1] :, places[l]], A[places[l], starts[-1] :] = shift, shift.T
        A[starts[-1] :, starts[-1] :] = bent[top].sum(axis=2)[: self.net.intercept.size, : self.net.intercept.size]
        return A


def _fill(block: np.ndarray, factor: np.ndarray, h: np.ndarray, g: np.ndarray, *, symmetric: bool) -> None:
    """``block`` <- sum_i factor[k, j, i] h_i g_i' at rows (j, .) and columns (k, .)."""
    above, below = factor.shape[:2]
    rows, columns = len(h), len(g)
    for j in range(below):
        first = j if symmetric else 0
        weighted = (factor[first:, j, None, :] * g).reshape((above - first) * columns, g.shape[1])
        part = h @ weighted.T
        block[j * rows : (j + 1) * rows, first * columns :] = part
        if symmetric:
            block[(j + 1) * rows :, j * rows : (j + 1) * rows] = part[:, columns:].T
