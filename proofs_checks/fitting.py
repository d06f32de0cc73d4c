"""Exponents, as power laws fitted on log-log axes with the standard error of the slope; and frequencies.

A size that is C delta^k shows as a straight line of slope k.  What bends the line (the next power of delta, a
logarithm, a floor of rounding) shows as misfit, hence in the standard error; it is counted against the claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gfsim.errors import InvalidInput

EQUAL = 0.02
"""To this much an exponent that a statement gives exactly must be met, two standard errors included."""
DECADES = 4.0
"""Over at least so many decades of delta an exponent has to be fitted before it counts."""


@dataclass(frozen=True)
class Fit:
    """size ~ constant * delta^slope over ``decades`` of delta; ``error`` is the standard error of the slope.

    ``slope`` is infinite when every size is exactly zero, and NaN when a size is NaN or only some of them vanish.
    """

    slope: float
    error: float
    constant: float
    decades: float
    points: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)
    """The pairs (delta, size) that were fitted."""


def power_law(
    deltas: Sequence[float] | np.ndarray, sizes: Sequence[float] | np.ndarray, *, correction: float | None = None
) -> Fit:
    """The least-squares line of log(size) over log(delta); at least three pairs, all deltas positive and distinct.

    With ``correction`` = q the law is constant delta^slope (1 + c delta^q + ...), c fitted too, for sizes whose next
    term is known to be of that order: a bend at the large end is then not taken for a slope.  Takes four pairs.
    """
    x, y = np.asarray(deltas, dtype=float), np.asarray(sizes, dtype=float)
    unknowns = 2 if correction is None else 3
    if x.shape != y.shape or x.ndim != 1 or len(x) <= unknowns or not (x > 0).all() or len(set(x)) < len(x):
        raise InvalidInput(
            f"deltas {x.shape} and sizes {y.shape}; a fit needs {unknowns + 1} pairs or more, with deltas > 0, distinct"
        )
    decades = float(np.log10(x.max() / x.min()))
    points = tuple(zip(x.tolist(), y.tolist(), strict=True))
    if (y == 0).all():
        return Fit(math.inf, 0.0, 0.0, decades, points)
    if not (y > 0).all():  # a NaN among them, or a zero: no line
        return Fit(math.nan, math.inf, math.nan, decades, points)
    columns = [np.ones_like(x), np.log(x), *([] if correction is None else [x**correction])]
    A = np.stack(columns, axis=1)
    found = np.linalg.lstsq(A, np.log(y), rcond=None)[0]
    rest = np.log(y) - A @ found
    covariance = float(rest @ rest) / (len(x) - unknowns) * np.linalg.inv(A.T @ A)
    return Fit(float(found[1]), math.sqrt(float(covariance[1, 1])), math.exp(float(found[0])), decades, points)


@dataclass(frozen=True)
class Frequency:
    """``hits`` of ``total`` independent instances, with Wilson's 95 per cent interval for the probability."""

    hits: int
    total: int

    def _interval(self) -> tuple[float, float]:
        z, n = 1.959964, self.total
        share = self.hits / n
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    @property
    def low(self) -> float:
        return self._interval()[0]

    @property
    def high(self) -> float:
        return self._interval()[1]

    def __str__(self) -> str:
        return f"{self.hits} of {self.total} = {self.hits / self.total:.2f} (95 %: {self.low:.2f} to {self.high:.2f})"
