"""The saddle that the near-saddle figures share: one active neuron a layer in a three-layer z^2 net, or a few.

Ours: the text of [NP]'s own experiments was not at hand.  Widths 10-10-10-1, 100 inputs on the unit sphere, labels of
unit root mean square from a 10-2-2-1 teacher of the same kind, MEAN square loss.  The data and the saddle are
one fixed draw; ``--seed`` moves the directions of the starts, about which the theorem speaks.
"""

from __future__ import annotations

import numpy as np

from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle

DATA_SEED = 0
SAMPLES, INPUTS, WIDTH = 100, 10, 10


def saddle(active: tuple[int, int] = (1, 1)) -> SparseSaddle:
    """The saddle of lowest loss of the fixed data set with so many active neurons a layer."""
    rng = np.random.default_rng(DATA_SEED)
    X = rng.normal(size=(SAMPLES, INPUTS))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    teacher = FeedForward((INPUTS, 2, 2, 1), "square")
    y = teacher.forward(rng.normal(size=teacher.n_params), X)
    y /= np.sqrt(np.mean(y**2))
    wide = FeedForward((INPUTS, WIDTH, WIDTH, 1), "square")
    return find_saddle(Objective(wide, X, y, reduction="mean"), active, rng=rng)
