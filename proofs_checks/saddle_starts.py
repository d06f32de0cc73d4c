"""Starts (wbar_n + delta n, delta z) near sparse saddles, for the checks that follow them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfsim.errors import SaddleNotFound
from gfsim.flow.events import norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.directions import cosine_deficit
from gfsim.ncf.phi import PhiLimit, limit
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import find_saddle, rounding_level
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.saddle import SparseSaddle
from proofs_checks.instances import Search

Case = tuple[tuple[int, ...], tuple[int, ...], str, int, str]
"""(widths, active units of every hidden layer, activation, p, loss)"""

ESCAPE = 0.3
"""|w_z| at the escape, in units of the size along u* (Start.size)."""
QUIET = {2: 1e-8, 3: 1e-6, 4: 1e-4}
"""Down to this delta, by K, a start is asked to be free of rounding (Start.noise): at a saddle with a weak way out the
escape lasts so long that float64 cannot follow it."""


@dataclass(frozen=True)
class Start:
    """A saddle, the displacements n, z of a start, and what the NCF predicts for it.

    ``size`` is the |w_z| at which the loss is least along the predicted direction; n and z have this norm, so that
    delta is in units of the problem's own.
    """

    saddle: SparseSaddle
    n: np.ndarray
    z: np.ndarray
    phi: PhiLimit
    target: np.ndarray
    size: float

    @property
    def K(self) -> float:
        return self.saddle.escape_degree

    def noise(self, delta: float) -> float:
        """What the rounding of grad L adds up to during the escape, relative to |w|.

        Along flat directions of the active net nothing pulls w_n back, and the escape lasts phi.time/delta^(K-2).
        """
        level = rounding_level(self.saddle.active_objective, self.saddle.w_n)
        return level * self.phi.time / delta ** (self.K - 2) / float(np.linalg.norm(self.saddle.w_n))


def draw(case: Case, rng: np.random.Generator) -> Start:
    """A saddle of the case, and a start from which phi escapes and is aligned soon enough to be seen."""
    search = Search("a start that turns soon")
    while True:
        search.draw()
        saddle = try_saddle(case, rng)
        if saddle is None:
            continue
        for _ in range(6):
            n, z = saddle.directions(rng)
            phi = limit(SaddleNCF(saddle), z, max_steps=3000)
            if phi.point is not None and _aligned(phi):
                size = _size_along(saddle, phi.point.u)
                if size is None:
                    continue
                phi = limit(SaddleNCF(saddle), size * z, max_steps=3000)
                start = Start(saddle, size * n, size * z, phi, phi.point.u, size) if phi.point is not None else None
                if start is None or start.noise(QUIET[int(start.K)]) > 0.1 * QUIET[int(start.K)]:
                    continue
                if _escapes(start):
                    return start


def _escapes(start: Start) -> bool:
    """Whether flows bring |w_z| to ESCAPE at all: the active weights may fit first what the new neuron would have."""
    saddle = start.saddle
    runs = (
        simulate(
            saddle.objective,
            saddle.start(delta, start.z, start.n),
            t_end=3.0 * math.log(10 / delta) * start.phi.time / delta ** (start.K - 2),
            method="LSODA",
            clock=saddle.clock,
            blocks=saddle.blocks,
            events=[norm_level(ESCAPE * start.size, saddle.index_z)],
            max_steps=5000,
        )
        for delta in (1e-1, 1e-3)
    )
    return all(run.events for run in runs)


def _size_along(saddle: SparseSaddle, u: np.ndarray) -> float | None:
    """The |w_z| at which the loss is least along ``u`` (unit vector of w_z), to the 5 per cent of a grid.

    None where that is at the end of the grid: a logistic loss may fall for ever.
    """
    steps = float(np.linalg.norm(saddle.w_n)) * np.geomspace(1e-2, 4.0, 120)
    w = np.tile(saddle.w, (len(steps), 1))
    w[:, saddle.index_z] += steps[:, None] * u
    best = int(np.argmin(saddle.objective.value(w)))
    return float(steps[best]) if 0 < best < len(steps) - 1 else None


def try_saddle(case: Case, rng: np.random.Generator) -> SparseSaddle | None:
    """A saddle of the case on the labels of a wider teacher; None where the draw has no minimum that says something.

    That is one at which the active net is not flat (but for its balances) and does not fit the labels by itself.
    """
    widths, active, name, p, loss = case
    model = FeedForward(widths, name, p=p)
    X = rng.standard_normal((16, widths[0]))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    teacher = FeedForward((widths[0], *[3] * (len(widths) - 2), widths[-1]), name, p=p)
    y = teacher.forward(rng.standard_normal(teacher.n_params), X)
    if loss == "logistic":  # a third of the labels is wrong, so that the minimum is at a finite distance
        y = np.sign(y * rng.choice([-1, 1, 1], size=y.shape))
        if abs(y.sum()) == y.size:
            return None
    else:
        y = y / np.sqrt(np.mean(y**2))
    try:
        saddle = find_saddle(Objective(model, X, y, loss=loss, reduction="mean"), active, rng=rng, starts=4)
    except SaddleNotFound:
        return None
    return None if saddle.loss < 1e-2 or _flat(saddle) else saddle


def _flat(saddle: SparseSaddle) -> bool:
    """Whether the active Hessian's smallest eigenvalue off the continuum of balances is below 1e-3 of its largest."""
    e = np.linalg.eigvalsh(saddle.active_objective.hessian(saddle.w_n))
    inner = e[e > 1e-9 * e[-1]]
    return bool(inner[0] < 1e-3 * e[-1])


def _aligned(phi: PhiLimit) -> bool:
    """Whether phi's own direction is within 1e-4 of its limit (1 - cos) once |phi| = 300 |z|."""
    if phi.point is None:
        return False
    grown = phi.path.w[np.linalg.norm(phi.path.w, axis=1) >= 300 * np.linalg.norm(phi.path.w[0])]
    return len(grown) > 0 and cosine_deficit(grown[0], phi.point.u) < 1e-4


# -- a saddle that can be written down ------------------------------------------------------------------


def coordinate_saddle(labels: tuple[float, float]) -> SparseSaddle:
    """A three-unit z^2 net on the unit vectors of R^3 with labels 2 and ``labels``; unit 0 fits the first sample alone.

    Its NCF is sum_j b_j (y_2 a_j2^2 + y_3 a_j3^2) times 2.  With negative labels the active neuron is at a minimum;
    with positive ones it can still turn to the other samples, and is at a saddle of its own.
    """
    model = FeedForward((3, 3, 1), "square")
    o = Objective(model, np.eye(3), np.array([2.0, *labels]))
    W, V = np.zeros((3, 3)), np.zeros((1, 3))
    W[0, 0], V[0, 0] = math.sqrt(2.0), 1.0
    return SparseSaddle(o, ActiveNeurons.of(model, (1,)), model.pack([W, V]))
