"""Plain reference implementations, written from the definitions and from nothing in gfsim.

Two independent routes to a derivative:

* :class:`Jet`: scalar arithmetic that carries a value, its gradient and its Hessian by the product and
  chain rules.  The network is then its definition, sample by sample and neuron by neuron, and an
  activation max(z, a z)^p is a choice of branch and p multiplications: no formula for a derivative of
  a network or of s is ever written down, so none can be copied wrongly from the library.
* :func:`torch_output`: the network in torch, for torch.autograd.

Both are slow on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Jet:
    """A number that depends on P variables: value, gradient (P,), Hessian (P, P)."""

    v: float
    g: np.ndarray
    h: np.ndarray

    def __add__(self, other: Jet | float) -> Jet:
        if isinstance(other, Jet):
            return Jet(self.v + other.v, self.g + other.g, self.h + other.h)
        return Jet(self.v + other, self.g, self.h)

    def __mul__(self, other: Jet | float) -> Jet:
        if isinstance(other, Jet):
            cross = np.outer(self.g, other.g)
            return Jet(
                self.v * other.v,
                self.v * other.g + other.v * self.g,
                self.v * other.h + other.v * self.h + cross + cross.T,
            )
        return Jet(self.v * other, self.g * other, self.h * other)

    def through(self, f: float, df: float, d2f: float) -> Jet:
        """f of this number, given f, f' and f'' at its value."""
        return Jet(f, df * self.g, df * self.h + d2f * np.outer(self.g, self.g))


def exp(z: Jet) -> Jet:
    e = math.exp(z.v)
    return z.through(e, e, e)


def reciprocal(z: Jet) -> Jet:
    return z.through(1 / z.v, -1 / z.v**2, 2 / z.v**3)


def log(z: Jet) -> Jet:
    return z.through(math.log(z.v), 1 / z.v, -1 / z.v**2)


def erf(z: Jet) -> Jet:
    slope = 2 / math.sqrt(math.pi) * math.exp(-(z.v**2))
    return z.through(math.erf(z.v), slope, -2 * z.v * slope)


def homogeneous(p: int, alpha: float) -> Callable[[Jet], Jet]:
    """s(z) = max(z, alpha z)^p; of ReLU's two branches at z = 0 the dead one is taken."""

    def s(z: Jet) -> Jet:
        base = z if z.v > alpha * z.v else z * alpha
        out = base
        for _ in range(p - 1):
            out = out * base
        return out

    return s


def tanh(z: Jet) -> Jet:
    """1 - 2 / (exp(2 z) + 1)."""
    return reciprocal(exp(z * 2.0) + 1.0) * -2.0 + 1.0


def gelu(z: Jet) -> Jet:
    """z times the Gaussian distribution function."""
    return z * (erf(z * math.sqrt(0.5)) + 1.0) * 0.5


def square_loss(q: Jet, y: float) -> Jet:
    residual = q + -y
    return residual * residual


def logistic_loss(q: Jet, y: float) -> Jet:
    return log(exp(q * -y) + 1.0)


LOSSES = {"square": square_loss, "logistic": logistic_loss}


def variables(w: np.ndarray) -> list[Jet]:
    """The independent variables themselves: gradient e_k, no curvature."""
    P = len(w)
    eye, zero = np.eye(P), np.zeros((P, P))
    return [Jet(float(value), eye[k], zero) for k, value in enumerate(w)]


def network_outputs(
    widths: Sequence[int], activation: Callable[[Jet], Jet], w: np.ndarray, x: Sequence[float]
) -> tuple[list[Jet], list[float]]:
    """(outputs, preactivation values) for one input, weights read in the documented order.

    Layer after layer, row by row: row j holds the incoming weights of neuron j.
    """
    P = len(w)
    zero = np.zeros((P, P))
    weights = iter(variables(w))
    units = [Jet(float(value), np.zeros(P), zero) for value in x]
    preactivations = []
    last = len(widths) - 1
    for layer in range(1, last + 1):
        following = []
        for _ in range(widths[layer]):
            z = Jet(0.0, np.zeros(P), zero)
            for unit in units:
                z = z + next(weights) * unit
            if layer < last:
                preactivations.append(z.v)
                z = activation(z)
            following.append(z)
        units = following
    return units, preactivations


def network_loss(
    widths: Sequence[int],
    activation: Callable[[Jet], Jet],
    w: np.ndarray,
    X: np.ndarray,
    y: np.ndarray,
    loss: str,
    reduction: str,
) -> tuple[Jet, float]:
    """(the loss with its derivatives, the distance of the nearest nonzero preactivation to the kink at 0).

    Behind a layer of dead ReLUs preactivations are 0 exactly, not by rounding.
    """
    P = len(w)
    total = Jet(0.0, np.zeros(P), np.zeros((P, P)))
    margin = math.inf
    for x, labels in zip(X, y, strict=True):
        outputs, preactivations = network_outputs(widths, activation, w, x)
        for q, label in zip(outputs, labels, strict=True):
            total = total + LOSSES[loss](q, float(label))
        margin = min([margin, *(abs(z) for z in preactivations if z != 0)])
    return (total * (1 / len(X)) if reduction == "mean" else total), margin


def diagonal_output(w: np.ndarray, x: Sequence[float], depth: int, tied: bool, signed: bool) -> Jet:
    """sum_j (prod_l u_l[j] - prod_l v_l[j]) x_j, weights ordered by sign, then layer, then coordinate."""
    d = len(x)
    all_weights = variables(w)
    total = all_weights[0] * 0.0
    for sign in range(2 if signed else 1):
        for j in range(d):
            term = all_weights[0] * 0.0 + 1.0
            for l in range(depth):
                layer = (sign if tied else sign * depth + l) * d
                term = term * all_weights[layer + j]
            total = total + term * ((-1.0) ** sign * float(x[j]))
    return total


def factorisation_output(w: np.ndarray, x: Sequence[float], rows: int, cols: int, rank: int, symmetric: bool) -> Jet:
    """sum_ab A[a, b] sum_r U[a, r] V[b, r], A read row by row from x."""
    entries = variables(w)
    total = entries[0] * 0.0
    for a in range(rows):
        for b in range(cols):
            for r in range(rank):
                left = entries[a * rank + r]
                right = entries[b * rank + r] if symmetric else entries[rows * rank + b * rank + r]
                total = total + left * right * float(x[a * cols + b])
    return total


def torch_output(widths: Sequence[int], p: int, alpha: float, w, X):  # type: ignore[no-untyped-def]
    """H of a network with s(z) = max(z, alpha z)^p, as plain torch operations: (n, k)."""
    import torch

    h, start = X, 0
    for fan_in, fan_out in pairwise(widths):
        if start:
            h = torch.maximum(h, alpha * h) ** p
        W = w[start : start + fan_in * fan_out].reshape(fan_out, fan_in)
        start += fan_in * fan_out
        h = torch.einsum("ni,oi->no", h, W)
    return h


def central_difference(f: Callable[[np.ndarray], np.ndarray], w: np.ndarray, step: float) -> np.ndarray:
    """df/dw, one weight at a time; the derivative is the last axis."""
    columns = []
    for k in range(len(w)):
        e = np.zeros_like(w)
        e[k] = step
        columns.append((f(w + e) - f(w - e)) / (2 * step))
    return np.stack(columns, axis=-1)
