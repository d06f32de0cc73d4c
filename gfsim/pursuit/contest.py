"""Maxima of NCFs that the data cannot tell apart, and how a trial decides between them.

An NCF is a sum over samples, N(u) = sum_i c_i(u).  For samples drawn independently the difference of
two of its values, N(u) - N(v) = sum_i (c_i(u) - c_i(v)), has the standard error sqrt(n) times the
standard deviation of c_i(u) - c_i(v).  Where two maxima differ by less, another draw of the samples
could have ordered them the other way round, although the networks that grow from them may be quite
different.  docs/theory.md, section 6; ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def standard_error(first: np.ndarray, second: np.ndarray) -> float:
    """Standard error of sum_i (first_i - second_i) over a draw of n samples, (n,) each; 0 for n = 1."""
    difference = first - second
    return float(np.sqrt(difference.size) * np.std(difference, ddof=1)) if difference.size > 1 else 0.0


def rivals(contributions: Sequence[np.ndarray], sigmas: float, most: int) -> list[tuple[int, float]]:
    """The maxima that lie within ``sigmas`` standard errors of the first, which has the largest value.

    Parameters
    ----------
    contributions : sequence of (n,)
        c_i at each maximum, the largest value first.
    sigmas : float >= 0
    most : int >= 1
        At most this many are returned, the first included.

    Returns
    -------
    list of (place, standard error of the difference from the first)
        In the order given; the first itself comes first, with error 0.
    """
    out = [(0, 0.0)] if contributions else []
    for place in range(1, len(contributions)):
        if len(out) >= most:
            break
        error = standard_error(contributions[0], contributions[place])
        if contributions[0].sum() - contributions[place].sum() < sigmas * error:
            out.append((place, error))
    return out


def winner(losses: Sequence[float], rtol: float) -> int:
    """The place of the smallest loss; an earlier one within ``rtol`` of it is preferred."""
    least = min(losses)
    return next(k for k, loss in enumerate(losses) if loss <= least + rtol * abs(least))
