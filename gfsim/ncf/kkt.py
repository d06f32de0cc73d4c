"""KKT points of a correlation function N on the unit sphere.

theory.md, section 2.  For N of degree K, u* with |u*| = 1 is a KKT point when
grad N(u*) = K N(u*) u*; its sign is that of N(u*).  It is Delta-second-order when

    K N(u*) - b' Hess N(u*) b >= Delta > 0   for all unit b orthogonal to u*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

Sign = Literal["positive", "zero", "negative"]

ZERO_VALUE = 1e-12
"""|N| below this times the largest possible |N| counts as a zero KKT point."""


class Correlation(Protocol):
    """A positively homogeneous function N(u) on R^size."""

    @property
    def degree(self) -> float: ...

    @property
    def size(self) -> int: ...

    def value(self, u: np.ndarray) -> np.ndarray:
        """N at (..., size): (...)."""
        ...

    def gradient(self, u: np.ndarray) -> np.ndarray:
        """grad N at (..., size): (..., size)."""
        ...

    def hessian(self, u: np.ndarray) -> np.ndarray:
        """Hess N at one point: (size, size)."""
        ...


@dataclass(frozen=True, eq=False)
class KKTPoint:
    """A KKT point of N on the sphere.

    Attributes
    ----------
    u : (size,)
        Unit vector.
    value : float
        N(u*).
    residual : float
        |grad N(u*) - K N(u*) u*|, absolute.
    gap : float
        The largest Delta of the definition above; u* is a strict local maximum of N if it is > 0.
    hits : int
        How many of the starts of a search ended here (0 when it was not found by a search).
    """

    u: np.ndarray = field(repr=False)
    value: float
    residual: float
    gap: float
    hits: int = 0

    @property
    def sign(self) -> Sign:
        """The sign of N(u*); zero below :data:`ZERO_VALUE`."""
        if abs(self.value) <= ZERO_VALUE:
            return "zero"
        return "positive" if self.value > 0 else "negative"

    @property
    def second_order(self) -> bool:
        """Whether u* is a Delta-second-order point for some Delta > 0 (above rounding)."""
        return self.gap > 1e-10 * max(1.0, abs(self.value))


def residual(ncf: Correlation, u: np.ndarray) -> np.ndarray:
    """|grad N(u) - K N(u) u| for unit vectors (..., size): (...)."""
    g = ncf.gradient(u)
    return np.linalg.norm(g - ncf.degree * ncf.value(u)[..., None] * u, axis=-1)


def second_order_gap(ncf: Correlation, u: np.ndarray) -> float:
    """The smallest of K N(u) - b' Hess N(u) b over unit b orthogonal to the unit vector ``u``."""
    H = ncf.hessian(u)
    level = float(ncf.degree * ncf.value(u))
    live = _coupled(u, H)
    v = u[live]
    gaps = [level] if len(v) < len(u) else []  # b along a coordinate that N does not see here
    if v.size > 1:
        basis = tangent_basis(v)
        gaps.append(level - float(np.linalg.eigvalsh(basis.T @ H[np.ix_(live, live)] @ basis)[-1]))
    return min(gaps, default=level)  # a sphere of two points has no direction left


def _coupled(u: np.ndarray, H: np.ndarray) -> np.ndarray:
    """Coordinates that take part at ``u``: nonzero, or seen by the Hessian; (size,) of bool.

    At a saddle's one-neuron KKT point these are a few of thousands.
    """
    return (u != 0) | H.any(axis=1)


def tangent_basis(u: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the tangent space of the sphere at ``u``: (size, size - 1)."""
    return np.linalg.qr(np.column_stack([u, np.eye(u.size)]))[0][:, 1 : u.size]


def make_point(ncf: Correlation, u: np.ndarray, *, hits: int = 0) -> KKTPoint:
    """Measure value, residual and gap at ``u`` (normalised first)."""
    unit = u / np.linalg.norm(u)
    return KKTPoint(
        u=unit,
        value=float(ncf.value(unit)),
        residual=float(residual(ncf, unit)),
        gap=second_order_gap(ncf, unit),
        hits=hits,
    )


def polish(ncf: Correlation, u: np.ndarray, *, iterations: int = 30) -> np.ndarray:
    """Newton's method on the KKT equations from a unit vector near a KKT point: (size,).

    The step is the least-squares solution, so points on a continuum of KKT points (ties, K = 2) are
    moved by the least amount.  A step that does not lower the residual ends the iteration: the result
    is never worse than ``u``.
    """
    u = u / np.linalg.norm(u)
    best = float(residual(ncf, u))
    K = ncf.degree
    for _ in range(iterations):
        value, g, H = float(ncf.value(u)), ncf.gradient(u), ncf.hessian(u)
        live = _coupled(u, H) | (g != 0)
        v = u[live]
        P = np.eye(v.size) - np.outer(v, v)
        # derivative of grad N - K N u within the tangent space
        J = P @ (H[np.ix_(live, live)] - K * value * np.eye(v.size)) @ P
        step = np.zeros_like(u)
        step[live] = P @ np.linalg.lstsq(J, -(P @ g[live]), rcond=1e-12)[0]
        for factor in (1.0, 0.3, 0.1, 0.01):
            trial = u + factor * step
            trial /= np.linalg.norm(trial)
            now = float(residual(ncf, trial))
            if now < best:
                break
        else:
            break
        u, best = trial, now
    return u


def distinct(points: Sequence[KKTPoint], *, cosine: float = 1 - 1e-6, value_rtol: float = 1e-6) -> list[KKTPoint]:
    """One of each group of coinciding points, best value first; hits are added up."""
    kept: list[KKTPoint] = []
    for point in sorted(points, key=lambda p: -p.value):
        for k, other in enumerate(kept):
            close = abs(point.value - other.value) <= value_rtol * max(abs(other.value), ZERO_VALUE)
            if close and float(point.u @ other.u) >= cosine:
                kept[k] = KKTPoint(other.u, other.value, other.residual, other.gap, other.hits + point.hits)
                break
        else:
            kept.append(point)
    return kept
