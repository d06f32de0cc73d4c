"""The balanced representative of a network: |incoming|^2 = p |outgoing|^2 at every hidden neuron.

Scaling a neuron's incoming weights by c and its outgoing ones by c^-p changes nothing in H; so minima
come in continua.  A flow from small weights keeps the balances near zero, and positive KKT points of
the NCF are balanced ([BEYOND], Lemma 17): the balanced point is the canonical one.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gfsim.models.base import require_homogeneous
from gfsim.models.feedforward import FeedForward


def balance(model: FeedForward, w: np.ndarray, *, sweeps: int = 500) -> np.ndarray:
    """The balanced weights with the same function as ``w`` (P,): (P,).

    Neurons with no incoming or no outgoing weights are left alone: no scale balances them.
    """
    require_homogeneous(model, "balancing neurons")
    p = model.activation.power or 1
    matrices = [W.copy() for W in model.unpack(w)]
    for _ in range(sweeps):
        largest = 0.0
        for W, V in pairwise(matrices):
            into, out = np.linalg.norm(W, axis=1), np.linalg.norm(V, axis=0)
            live = (into > 0) & (out > 0)
            scale = np.ones(len(into))
            scale[live] = (np.sqrt(p) * out[live] / into[live]) ** (1.0 / (p + 1))
            W *= scale[:, None]
            V *= scale**-p
            largest = max(largest, float(np.abs(np.log(scale)).max(initial=0.0)))
        if largest < 1e-15:
            break
    return model.pack(matrices)
