"""The two square systems of a certificate, and what is proved about their zeros.

*KKT point.*  (u, lambda) solves grad N(u) = lambda u, |u|^2 = 1; lambda = K N(u) by Euler.  u is an eigenvector of
Hess N(u) with eigenvalue (K - 1) lambda, so that the eigenvalues of lambda I - Hess N(u) + s u u' are those on the
tangent space and (2 - K) lambda + s; for s large enough the smallest one is the gap Delta.

*Saddle.*  In the active net's weights (w, mu), mu a multiplier for the balance of each active neuron,

    grad L(w) + sum_j mu_j xi_j(w) = 0,   |in_j|^2 - p |out_j|^2 = 0,   xi_j = (in_j, -p out_j).

L does not change along xi_j (in -> c in, out -> c^-p out), so <grad L, xi_j> = 0 for all w; where the xi_j are linearly
independent (certified) a zero of the system has mu = 0, hence grad L = 0.  There Hess L xi_j = 0 exactly.  With
Xi = (xi_j), Hess L + s Xi Xi' is nonsingular, and its signature gives that of Hess L off these known zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from flint import arb, arb_mat

from gfsim.rigor.ball import Undecided, ball, column, identity, krawczyk, middle, signature
from gfsim.rigor.enclosure import Data, Jet, Loss, Power, matrices, neuron_pairs, training_loss, unknowns


@dataclass(frozen=True)
class KKTSystem:
    """grad N(u) = lambda u, (1 - |u|^2)/2 = 0, unknowns (u, lambda)."""

    correlation: Callable[[list[Jet]], Jet]
    degree: int

    def residual(self, point: Sequence[arb]) -> arb_mat:
        *u, level = point
        N = self.correlation(unknowns(u))
        rows = [N.slope[k, 0] - level * x for k, x in enumerate(u)]
        return column([*rows, (1 - sum((x * x for x in u), arb(0))) / 2])

    def jacobian(self, box: Sequence[arb]) -> arb_mat:
        *u, level = box
        return bordered(self.correlation(unknowns(u)).bend - identity(len(u)) * level, column([-x for x in u]))

    def prove_multiplier(self, centre: Sequence[float], radii: Sequence[float]) -> None:
        """That lambda = K N(u) stays in its interval for all u in the box, so that the box of u alone may be spoken of.

        By the mean value theorem, from N at the centre and grad N over the box.
        """
        *c, level = centre
        *r, reach = radii
        change = self.correlation(unknowns(cube(c, r))).slope
        N = self.correlation(unknowns([arb(x) for x in c])).value
        N += sum((change[k, 0] * ball(0.0, radius) for k, radius in enumerate(r)), arb(0))
        if not abs(N * self.degree - arb(level)) <= arb(reach):
            raise Undecided("the multiplier may leave its interval while u stays in its box")

    def gap_matrix(self, box: Sequence[arb], reach: float) -> arb_mat:
        """lambda I - Hess N + s u u', whose eigenvalue on u is certified to exceed ``reach``."""
        *u, level = box
        H = self.correlation(unknowns(u)).bend
        top = float(np.abs(middle(H)).sum(axis=1).max(initial=0.0))
        s = arb(2.0 * (abs(reach) + top + (self.degree + 1) * abs(float(level.mid())) + 1e-300))
        if not (2 - self.degree) * level + s > reach:
            raise Undecided("the eigenvalue on u cannot be moved away from those on the tangent space")
        side = column(u)
        return identity(len(u)) * level - H + side * side.transpose() * s


@dataclass(frozen=True)
class SaddleSystem:
    """grad L + sum mu_j xi_j = 0, (|in|^2 - p |out|^2)/2 = 0, unknowns (w, mu), of the active net."""

    s: Power
    loss: Loss
    widths: tuple[int, ...]
    X: Data
    y: Data

    def neurons(self) -> list[tuple[list[int], list[int]]]:
        """Flat indices of the incoming and outgoing weights of every hidden neuron."""
        ends = [0]
        for cols, rows in pairwise(self.widths):
            ends.append(ends[-1] + rows * cols)
        out = []
        for l in range(1, len(self.widths) - 1):
            below, here, above = self.widths[l - 1 : l + 2]
            for j in range(here):
                incoming = [ends[l - 1] + j * below + i for i in range(below)]
                out.append((incoming, [ends[l] + k * here + j for k in range(above)]))
        return out

    def generators(self, w: Sequence[arb]) -> arb_mat:
        """Xi: (P, neurons)."""
        neurons = self.neurons()
        Xi = arb_mat(len(w), len(neurons))
        for j, (incoming, outgoing) in enumerate(neurons):
            for i in incoming:
                Xi[i, j] = w[i]
            for i in outgoing:
                Xi[i, j] = -self.s.p * w[i]
        return Xi

    def loss_jet(self, w: Sequence[arb]) -> Jet:
        return training_loss(self.s, self.loss, self.widths, unknowns(w), self.X, self.y)

    def split(self, point: Sequence[arb]) -> tuple[list[arb], list[arb]]:
        m = len(self.neurons())
        return list(point[:-m]), list(point[-m:])

    def residual(self, point: Sequence[arb]) -> arb_mat:
        w, mu = self.split(point)
        top = self.loss_jet(w).slope + self.generators(w) * column(mu)
        balances = [
            (sum((w[i] * w[i] for i in a), arb(0)) - self.s.p * sum((w[i] * w[i] for i in b), arb(0))) / 2
            for a, b in self.neurons()
        ]
        return column([*(top[k, 0] for k in range(len(w))), *balances])

    def jacobian(self, box: Sequence[arb]) -> arb_mat:
        w, mu = self.split(box)
        H = self.loss_jet(w).bend
        for (incoming, outgoing), factor in zip(self.neurons(), mu, strict=True):
            for i in incoming:
                H[i, i] += factor
            for i in outgoing:
                H[i, i] -= self.s.p * factor
        return bordered(H, self.generators(w))

    def lifted_hessian(self, w: Sequence[arb], reach: float) -> arb_mat:
        """Hess L + s Xi Xi', whose eigenvalues on span Xi are certified to exceed ``reach`` and 0."""
        Xi = self.generators(w)
        gram = Xi.transpose() * Xi
        least = float(np.linalg.eigvalsh(middle(gram))[0])
        if not least > 0:
            raise Undecided("an active neuron has no weights: its balance direction vanishes")
        H = self.loss_jet(w).bend
        level = max(abs(reach), float(np.abs(middle(H)).max(initial=0.0)), 1e-300)
        s = arb(4.0 * level / least)
        # the eigenvalues of s Xi Xi' on span Xi are those of s Xi' Xi
        if signature(gram * s - identity(gram.nrows()) * arb(max(reach, 0.0)))[0]:
            raise Undecided("the balance directions are not certified to be linearly independent")
        return H + Xi * Xi.transpose() * s


def bordered(A: arb_mat, B: arb_mat) -> arb_mat:
    """((A, B), (B', 0))."""
    n, m = A.nrows(), B.ncols()
    out = arb_mat(n + m, n + m)
    for i in range(n):
        for j in range(n):
            out[i, j] = A[i, j]
        for j in range(m):
            out[i, n + j] = out[n + j, i] = B[i, j]
    return out


System = KKTSystem | SaddleSystem


def cube(centre: Sequence[float], radii: Sequence[float]) -> list[arb]:
    return [ball(c, r) for c, r in zip(centre, radii, strict=True)]


def prove_zero(system: System, centre: Sequence[float], radii: Sequence[float]) -> None:
    """Exactly one zero with its weights in the box, or :class:`Undecided`."""
    krawczyk(system.residual([arb(c) for c in centre]), system.jacobian(cube(centre, radii)), radii)
    if isinstance(system, KKTSystem):
        system.prove_multiplier(centre, radii)


def prove_smallest(M: Callable[[float], arb_mat], low: float, high: float) -> None:
    """That the smallest eigenvalue of M(reach) lies in [low, high]; M certifies what it adds to exceed ``reach``."""
    A = M(high)
    eye = identity(A.nrows())
    if signature(A - eye * arb(low))[0] != 0:
        raise Undecided(f"the smallest eigenvalue is below {low:.17g}")
    if signature(A - eye * arb(high))[0] < 1:
        raise Undecided(f"the smallest eigenvalue is above {high:.17g}")


def small_block_rank(system: SaddleSystem, widths: Sequence[int], w: Sequence[arb]) -> int:
    """How many negative eigenvalues, and as many positive ones, the Hessian's block of w_z has; the others are zero.

    The block is -Hess N(0).  For p >= 2 it vanishes, as N has degree K > 2.  For a linear net every inactive neuron of
    layer l contributes the matrix ((0, C), (C', 0)), C = sum_i H_i G_i', with rank C eigenvalues of each sign, and
    weights between inactive neurons contribute nothing.  At a critical point C' a = 0 and C b = 0 for the incoming and
    outgoing weights (a, b) of the active neurons of the layer, so its rank is found by showing that it has no further
    zeros: C C' + A A' or C'C + B B' is positive definite.
    """
    if system.s.p >= 2:
        return 0
    if not system.s.polynomial:
        raise Undecided("for p = 1 with a kink the loss has no second derivative in w_z")
    ways = 0
    W = matrices(system.widths, w)
    for layer in range(1, len(system.widths) - 1):
        inactive = widths[layer] - system.widths[layer]
        if not inactive:
            continue
        pairs = neuron_pairs(system.s, system.loss, system.widths, w, system.X, system.y, layer)
        d_in, d_out = system.widths[layer - 1], system.widths[layer + 1]
        C = arb_mat(d_in, d_out)
        for H, G in pairs:
            for i, h in enumerate(H):
                for j, g in enumerate(G):
                    if h is not None and g is not None:
                        C[i, j] += h * g
        k = system.widths[layer]
        A, B = transposed(W[layer - 1]), arb_mat(W[layer])
        if signature(A.transpose() * A) != (0, k) or signature(B.transpose() * B) != (0, k):
            raise Undecided("the active neurons of a layer are not certified to be linearly independent")
        side, other = (C * C.transpose(), A) if d_in <= d_out else (C.transpose() * C, B)
        if signature(side + other * other.transpose())[0]:
            raise Undecided("a positive semidefinite matrix was found to have a negative eigenvalue")
        ways += inactive * (min(d_in, d_out) - k)
    return ways


def transposed(rows: Sequence[Sequence[arb]]) -> arb_mat:
    return arb_mat([list(row) for row in rows]).transpose()
