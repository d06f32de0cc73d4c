"""A neuron that is dead on all data is a zero KKT point and never escapes.

Hypotheses.  Activation max(z, 0)^p; a neuron of the first hidden layer whose incoming weights a satisfy a.x_i < 0 for
every sample.

Conclusion.  The unit vector with its weights alone is a KKT point with N = 0.  The neuron's weights move neither under
the flow of any net that holds it, so that it stays dead for ever, nor under the NCF flow at the origin.  The same is
true in a neighbourhood of a.

Source.  [BEYOND], Lemma 33.

Control.  A leaky activation; a neuron that one sample wakes.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.kkt import make_point
from gfsim.ncf.origin import OriginNCF
from gfsim.objective import Objective
from proofs_checks.instances import relative
from proofs_checks.statement import Context, Ledger
from proofs_checks.zero_preserving import EXACT

DEAD = 1
"""The unit of the first layer that is made dead."""


def instance(widths: tuple[int, ...], p: int, alpha: float, rng: np.random.Generator) -> tuple[Objective, np.ndarray]:
    """Positive inputs and weights (P,) whose unit DEAD has negative incoming weights."""
    model = FeedForward(widths, "relu", p=p, alpha=alpha)
    X = rng.uniform(0.2, 1.0, (6, widths[0]))
    o = Objective(model, X, rng.standard_normal((6, widths[-1])), reduction="mean")
    w = rng.standard_normal(model.n_params)
    model.unpack(w)[0][0] = np.abs(model.unpack(w)[0][0])  # one unit at least is alive
    model.unpack(w)[0][DEAD] = -rng.uniform(0.2, 1.0, widths[0])
    return o, w


def own(model: FeedForward) -> np.ndarray:
    """Flat indices of the weights into and out of the unit DEAD."""
    return np.concatenate([model.index[0][DEAD, :], model.index[1][:, DEAD]])


def check(ctx: Context, ledger: Ledger) -> None:
    points, rates, moved = [], [], []
    for rng in ctx.draws("dead", 4):
        for p in (1, 2, 3):
            for widths in ((3, 3, 2), (3, 3, 2, 1)):
                o, w = instance(widths, p, 0.0, rng)
                index = own(FeedForward(widths))
                point = make_point(OriginNCF(o), _alone(w, index))
                points += [abs(point.value), point.residual]
                for near in (w, w + 0.1 * rng.uniform(-1, 1, w.size)):
                    rates += [_rate(o, near, index), _ncf_rate(o, near, index)]
        o, w = instance((3, 3, 2), 2, 0.0, rng)
        run = simulate(o, 0.5 * w, t_end=5.0, method="LSODA", clock="t")
        moved.append(float(np.abs(run.w[:, own(FeedForward((3, 3, 2)))] - run.w[0, own(FeedForward((3, 3, 2)))]).max()))
        if not run.ok:
            moved[-1] = math.nan
    ledger.at_most("N and KKT residual at a dead neuron", points, 0.0, EXACT)
    ledger.at_most("speed of the dead neuron's weights, relative to |dw/dt|", rates, 0.0, EXACT)
    ledger.at_most("distance they have moved along flows", moved, 0.0, EXACT)
    leaky, woken = [], []
    for rng in ctx.draws("control", 4):
        for p in (1, 2):
            o, w = instance((3, 3, 2), p, 0.1, rng)
            leaky.append(_rate(o, w, own(FeedForward((3, 3, 2)))))
            o, w = instance((3, 3, 2), p, 0.0, rng)
            X = o.X.copy()
            X[0] = -X[0]
            woken.append(_rate(Objective(o.model, X, o.y), w, own(FeedForward((3, 3, 2)))))
    ledger.control("speed of the neuron's weights, relative to |dw/dt|", leaky, 0.0, "alpha = 0.1")
    ledger.control("speed of the neuron's weights, relative to |dw/dt|", woken, 0.0, "one sample has a.x > 0")


def _alone(w: np.ndarray, index: np.ndarray) -> np.ndarray:
    u = np.zeros_like(w)
    u[index] = w[index]
    return u


def _rate(o: Objective, w: np.ndarray, index: np.ndarray) -> float:
    g = o.gradient(w)
    return relative(g[index], g)


def _ncf_rate(o: Objective, w: np.ndarray, index: np.ndarray) -> float:
    g = OriginNCF(o).gradient(w)
    return relative(g[index], g)
