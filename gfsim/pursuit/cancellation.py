"""Networks whose outputs are small differences of large terms.

Such a network can fit every sample and mean nothing: at other inputs the terms need not cancel.  Samples at corners of
a cube, of which most corners are never seen, do not tell it from a good one.
"""

from __future__ import annotations

import numpy as np

from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem
from gfsim.threads import over


def cancellation(problem: Problem, net: Network) -> float:
    """How much larger the outputs would be, in root mean square, if the terms of every sum had random signs.

    A sum of W_j h_j is then the root of the sum of its squares.  Of order one for most networks; 1 without neurons.
    """

    def squares(part: slice) -> tuple[float, float]:
        v = problem.weights[part]
        terms = problem.X[part] ** 2
        for W in net.matrices[:-1]:
            terms = net.activation.value(np.sqrt(terms @ (W**2).T)) ** 2
        outputs = net.outputs(problem.X[part]) - net.intercept_or_zero
        return float(v @ (terms @ (net.matrices[-1] ** 2).T).sum(axis=1)), float(v @ (outputs**2).sum(axis=1))

    found = over(problem.chunks(2 * max(net.widths)), squares)
    loose, actual = (sum(pair[k] for pair in found) for k in (0, 1))
    if loose == 0.0:
        return 1.0
    return float(np.sqrt(loose / actual)) if actual > 0.0 else float("inf")
