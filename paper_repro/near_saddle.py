"""The saddle that the near-saddle figures share: one active neuron a layer in a three-layer z^2 net, or a few.

Ours: the text of [NP]'s own experiments was not at hand.  Widths 10-10-10-1, 100 inputs on the unit sphere, labels of
unit root mean square from a 10-2-2-1 teacher of the same kind, MEAN square loss.  The data and the saddle are
one fixed draw; ``--seed`` moves the directions of the starts, about which the theorem speaks.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.batch_result import BatchResult
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.kkt import Correlation
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


def blow_up(ncf: Correlation, run: BatchResult) -> tuple[np.ndarray, np.ndarray]:
    """Of NCF flows of degree K > 2 that an event stopped when they had grown: which did, and when they blow up.

    To the time reached is added the remainder 1/(K (K-2) N(u/|u|) |u|^(K-2)) of a flow that is aligned
    (docs/theory.md, section 2); infinity for the others.  Both (B,).
    """
    check(run)
    gone = np.array([bool(trace.events) for trace in run.traces])
    u = run.final[gone]
    time = np.full(len(run), math.inf)
    K = ncf.degree
    time[gone] = run.t[gone] + (u**2).sum(1) / (K * (K - 2.0) * ncf.value(u))
    return gone, time


def check(run: BatchResult) -> None:
    """Raises RuntimeError unless every flow reached its end."""
    if not run.ok.all():
        raise RuntimeError(f"a flow did not reach its end: {run.summary()}")
