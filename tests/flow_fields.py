"""Small vector fields with exact solutions, shared by the tests of the flow layer."""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.field import Ascent
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective

ADAPTIVE = ("RK23", "RK45", "DOP853", "BDF", "Radau", "LSODA")


def power_field(exponent: int, sign: float = 1.0, size: int = 1) -> Ascent:
    """dy/dt = sign y^exponent, entry by entry; the potential has degree exponent + 1."""
    k = exponent
    return Ascent(
        value=lambda w: sign * (w ** (k + 1)).sum(-1) / (k + 1),
        gradient=lambda w: sign * w**k,
        hessian=lambda w: np.diag(sign * k * w ** (k - 1)),
        size=size,
        degree=float(k + 1),
        label=f"dy/dt = {sign:+g} y^{k}",
    )


def constant_field(velocity: np.ndarray) -> Ascent:
    """dy/dt = velocity: every method and interpolant is exact on it."""
    v = np.asarray(velocity, dtype=float)
    return Ascent(
        lambda w: w @ v, lambda w: v + 0.0 * w, lambda _: np.zeros((v.size, v.size)), v.size, None, "constant field"
    )


def linear_field(A: np.ndarray) -> Ascent:
    """dy/dt = A y (a gradient flow for symmetric A)."""
    return Ascent(lambda w: 0.5 * (w * (w @ A.T)).sum(-1), lambda w: w @ A.T, lambda _: A, len(A), 2.0, "linear field")


def rotation() -> Ascent:
    """dy/dt = (y_2, -y_1): |y| is constant and the phase is the time."""
    return linear_field(np.array([[0.0, 1.0], [-1.0, 0.0]]))


def logistic_field() -> Ascent:
    """dy/dt = y - y^2, solved by y0 / (y0 + (1 - y0) e^-t)."""
    return Ascent(
        lambda w: (w**2 / 2 - w**3 / 3).sum(-1), lambda w: w - w**2, lambda w: np.diag(1 - 2 * w), 1, None, "logistic"
    )


def logistic(y0: float, t: np.ndarray) -> np.ndarray:
    return y0 / (y0 + (1 - y0) * np.exp(-t))


def toy() -> Objective:
    """docs/theory.md, section 3: L = (w1^2 - 4)^2 + (w2^2 - 1)^2."""
    return Objective(DiagonalLinear(2, 2, tied=True), np.eye(2), [4.0, 1.0])


def toy_start(delta: float) -> np.ndarray:
    return delta * np.ones(2) / math.sqrt(2)


def toy_flow(t: np.ndarray, delta: float) -> np.ndarray:
    """The closed form of the toy's flow from ``toy_start(delta)``: (..., 2)."""
    d2 = delta * delta
    return np.stack(
        [
            2 * delta / np.sqrt(d2 + (8 - d2) * np.exp(-32 * t)),
            delta / np.sqrt(d2 + (2 - d2) * np.exp(-8 * t)),
        ],
        -1,
    )
