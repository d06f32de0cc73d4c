"""Enclosures of networks, losses and correlation functions with two derivatives, written for the checker alone.

Derivatives come from second-order jets: value, gradient and Hessian in all unknowns, carried through sums, products and
compositions.  Nothing here is shared with the float64 code that finds the points (which differentiates by
backpropagation): an error in one does not repeat in the other.

``None`` stands for a number that is zero for all weights in the box, such as the output of a ReLU that is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from flint import arb, arb_mat

from gfsim.rigor.ball import Undecided


class Jet:
    """value : arb;  slope : (m, 1);  bend : (m, m), symmetric; of a function of m unknowns over a box."""

    __slots__ = ("bend", "slope", "value")

    def __init__(self, value: arb, slope: arb_mat, bend: arb_mat) -> None:
        self.value, self.slope, self.bend = value, slope, bend

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.value + other.value, self.slope + other.slope, self.bend + other.bend)

    def __mul__(self, other: Jet | arb) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.value * other, self.slope * other, self.bend * other)
        cross = self.slope * other.slope.transpose()
        return Jet(
            self.value * other.value,
            self.slope * other.value + other.slope * self.value,
            self.bend * other.value + other.bend * self.value + cross + cross.transpose(),
        )

    def through(self, f: arb, df: arb, ddf: arb) -> Jet:
        """f of this function, from enclosures of f, f' and f'' over its value."""
        return Jet(f, self.slope * df, self.bend * df + self.slope * self.slope.transpose() * ddf)


Number = TypeVar("Number", Jet, arb)
"""With derivatives, or without."""

Data = Sequence[Sequence[float]]
"""Exact numbers, one row a sample."""


def unknowns(box: Sequence[arb]) -> list[Jet]:
    """The coordinates of the box as jets."""
    m = len(box)
    return [
        Jet(x, arb_mat(m, 1, [int(i == k) for i in range(m)]), arb_mat(m, m))  # the zero matrix
        for k, x in enumerate(box)
    ]


def constant(like: Jet, value: arb) -> Jet:
    m = like.slope.nrows()
    return Jet(value, arb_mat(m, 1), arb_mat(m, m))


def total(terms: Sequence[Number | None]) -> Number | None:
    """The sum; None if every term vanishes identically."""
    out: Number | None = None
    for term in terms:
        if term is not None:
            out = term if out is None else out + term
    return out


def product(a: Number | None, b: Number | arb | None) -> Number | None:
    return None if a is None or b is None else a * b


def power(x: arb, k: int) -> arb:
    """x^k by multiplication, which also holds for balls around 0 (arb's own power goes through the logarithm there)."""
    out = arb(1)
    for _ in range(k):
        out = out * x
    return out


@dataclass(frozen=True)
class Power:
    """s(z) = max(z, alpha z)^p, on balls on which it is a polynomial."""

    p: int
    alpha: float

    @property
    def polynomial(self) -> bool:
        """Whether s is one polynomial on the whole line: z^p, as both branches agree."""
        return self.alpha == 1.0 or (self.alpha == -1.0 and self.p % 2 == 0)

    def branch(self, z: arb) -> arb | None:
        """c with s = (c z)^p on the ball ``z``; None if c = 0.  Raises :class:`Undecided` if the sign of z is open."""
        if self.polynomial:
            return arb(1)
        if not (z > 0 or z < 0):
            raise Undecided(
                "a preactivation may vanish within the box: which branch of the activation is taken is not certified"
            )
        # max(z, alpha z) is z where z (1 - alpha) >= 0
        slope = 1.0 if (z > 0) == (self.alpha <= 1.0) else self.alpha
        return None if slope == 0.0 else arb(slope)

    def __call__(self, z: Number | None) -> Number | None:
        if z is None:  # s(0) = 0, wherever in the box
            return None
        value = z.value if isinstance(z, Jet) else z
        c = self.branch(value)
        if c is None:
            return None
        p, C = self.p, power(c, self.p)
        if not isinstance(z, Jet):
            return C * power(value, p)
        second = C * p * (p - 1) * power(value, p - 2) if p >= 2 else arb(0)
        return z.through(C * power(value, p), C * p * power(value, p - 1), second)

    def slope(self, z: arb | None) -> arb | None:
        """s'(z).  At z = 0 identically it exists for p >= 2 (zero) and for a linear activation."""
        if z is None:
            if self.p >= 2:
                return None
            if self.polynomial:
                return arb(1)
            raise Undecided("an active neuron sits on its kink: the NCF is not defined there for p = 1")
        c = self.branch(z)
        return None if c is None else power(c, self.p) * self.p * power(z, self.p - 1)


def matrices(widths: Sequence[int], w: Sequence[Number]) -> list[list[list[Number]]]:
    """The flat weights, layer after layer, each row by row: row j holds the incoming weights of neuron j."""
    out: list[list[list[Number]]] = []
    k = 0
    for cols, rows in pairwise(widths):
        out.append([list(w[k + r * cols : k + (r + 1) * cols]) for r in range(rows)])
        k += rows * cols
    return out


def entries(row: Sequence[float]) -> list[arb | None]:
    """Exact numbers, zeros as None."""
    return [None if x == 0 else arb(x) for x in row]


def layers(
    s: Power, W: Sequence[list[list[Number]]], x: Sequence[arb | None]
) -> tuple[list[list[Number | None]], list[Sequence[Number | arb | None]]]:
    """Preactivations [z_1, ..., z_L] (z_L is the output) and activations [h_0 = x, ..., h_(L-1)] at one input."""
    h: list[Sequence[Number | arb | None]] = [x]
    z: list[list[Number | None]] = []
    for k, matrix in enumerate(W):
        z.append([total([product(w, below) for w, below in zip(row, h[-1], strict=True)]) for row in matrix])
        if k < len(W) - 1:
            h.append([s(entry) for entry in z[-1]])
    return z, h


# -- losses: l(q, y) with its derivatives in q ----------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """Square, (q - y)^2, or logistic, log(1 + exp(-y q)); times ``scale``, 1 or 1/n."""

    name: str
    scale: arb

    def derivatives(self, q: arb, y: float) -> tuple[arb, arb, arb]:
        """l, l' and l'' over the ball ``q``."""
        label = arb(y)
        if self.name == "square":
            d = q - label
            return self.scale * d * d, self.scale * 2 * d, self.scale * 2
        e = (-label * q).exp()
        share = 1 / (1 + 1 / e)
        # share = e/(1+e) and (1-share) = 1/(1+e); the product form keeps the second derivative positive
        return self.scale * e.log1p(), -self.scale * label * share, self.scale * label * label * share / (1 + e)


def training_loss(s: Power, loss: Loss, widths: Sequence[int], w: list[Jet], X: Data, y: Data) -> Jet:
    """L(w) with two derivatives over the box."""
    W = matrices(widths, w)
    zero = constant(w[0], arb(0))
    out = zero
    for x, labels in zip(X, y, strict=True):
        z, _ = layers(s, W, entries(x))
        for q, label in zip(z[-1], labels, strict=True):
            jet = q if isinstance(q, Jet) else zero
            out = out + jet.through(*loss.derivatives(jet.value, label))
    return out


# -- correlation functions ------------------------------------------------------------------------------


def pull(loss: Loss, q: arb, y: float) -> arb:
    """-l'(q, y)."""
    return -loss.derivatives(q, y)[1]


def network_correlation(s: Power, loss: Loss, widths: Sequence[int], u: list[Jet], X: Data, y: Data) -> Jet:
    """N(u) = sum_ik -l'(0, y_ik) H_k(x_i; u)."""
    W = matrices(widths, u)
    out = constant(u[0], arb(0))
    for x, labels in zip(X, y, strict=True):
        z, _ = layers(s, W, entries(x))
        for q, label in zip(z[-1], labels, strict=True):
            if isinstance(q, Jet):
                out = out + q * pull(loss, arb(0), label)
    return out


def diagonal_correlation(loss: Loss, depth: int, u: list[Jet], X: Data, y: Data) -> Jet:
    """The same for H(x; u) = sum_k u_k^depth x_k."""
    out = constant(u[0], arb(0))
    powers = []
    for coordinate in u:
        raised = coordinate
        for _ in range(depth - 1):
            raised = raised * coordinate
        powers.append(raised)
    for x, labels in zip(X, y, strict=True):
        for raised, entry in zip(powers, x, strict=True):
            out = out + raised * (arb(entry) * pull(loss, arb(0), labels[0]))
    return out


Pair = tuple[list[arb | None], list[arb | None]]
"""(H_i, G_i) of one sample: what a new neuron sees, and what its outgoing weights are asked to add."""


def neuron_correlation(s: Power, pairs: Sequence[Pair], u: list[Jet]) -> Jet:
    """N(a, b) = sum_i (G_i . b) s(a . H_i), u = (a, b)."""
    out = constant(u[0], arb(0))
    for H, G in pairs:
        a, b = u[: len(H)], u[len(H) :]
        term = product(
            s(total([product(w, h) for w, h in zip(a, H, strict=True)])),
            total([product(w, g) for w, g in zip(b, G, strict=True)]),
        )
        if isinstance(term, Jet):
            out = out + term
    return out


def neuron_pairs(
    s: Power, loss: Loss, widths: Sequence[int], w: Sequence[arb], X: Data, y: Data, layer: int
) -> list[Pair]:
    """(H_i, G_i) of a neuron added to hidden layer ``layer`` (1, 2, ...) of the active net, for all weights in a box.

    G_i = sum_k -l'(q_ik, y_ik) dq_ik / dz_(layer+1), by the chain rule from the output down.
    """
    W = matrices(widths, w)
    pairs: list[Pair] = []
    for x, labels in zip(X, y, strict=True):
        z, h = layers(s, W, entries(x))
        G: list[arb | None] = [
            pull(loss, arb(0) if q is None else q, label) for q, label in zip(z[-1], labels, strict=True)
        ]
        for m in range(len(W) - 1, layer, -1):  # from z_(m+1) to z_m
            columns = zip(*W[m], strict=True)
            back = [total([product(w, g) for w, g in zip(col, G, strict=True)]) for col in columns]
            G = [product(g, s.slope(entry)) for g, entry in zip(back, z[m - 1], strict=True)]
        pairs.append((list(h[layer - 1]), G))
    return pairs
