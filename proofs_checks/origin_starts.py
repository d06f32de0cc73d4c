"""Starts delta w0 near the origin, w0 in the stable set of a positive KKT point, for the checks that follow them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfsim.models.base import Model
from gfsim.ncf.directions import cosine_deficit
from gfsim.ncf.kkt import KKTPoint
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.ncf.phi import PhiLimit, limit
from gfsim.objective import Objective
from proofs_checks.instances import Search, random_objective


@dataclass(frozen=True)
class Start:
    """An objective, a unit w0 (P,), the NCF flow from it, and the KKT point (P,) in whose stable set it lies."""

    objective: Objective
    w0: np.ndarray
    phi: PhiLimit
    target: np.ndarray

    @property
    def size(self) -> float:
        """The size of |w| at which outputs along w* are those that the labels ask for; delta is small beside it."""
        ncf = OriginNCF(self.objective)
        return natural_size(self.objective, self.target, float(ncf.value(self.target)), ncf.degree)


def draw(model: Model, rng: np.random.Generator) -> Start:
    """Random data, and a unit start from which phi escapes and is within 1e-4 (1 - cos) of its limit at |phi| = 100."""
    search = Search("a start that turns soon")
    while True:
        search.draw()
        o = random_objective(model, rng, reduction="mean")
        for _ in range(4):
            w0 = unit(rng, model.n_params)
            phi = limit(OriginNCF(o), w0, max_steps=3000)
            if phi.point is None:
                continue
            grown = phi.path.w[np.linalg.norm(phi.path.w, axis=1) >= 100]
            if len(grown) and cosine_deficit(grown[0], phi.point.u) < 1e-4:
                return Start(o, w0, phi, phi.point.u)


def best_point(model: Model, rng: np.random.Generator) -> tuple[Objective, KKTPoint]:
    """Random data whose NCF has a strict maximum, and that maximum.

    Delta/(D N*), the exponent with which directions settle, is at least 0.5, so that over the decades used here their
    squares are small beside them, and at most 1.2: where N falls off even faster (every other direction pulled down)
    they are below rounding after a few decades.
    """
    search = Search("a strict maximum of the NCF")
    while True:
        search.draw()
        o = random_objective(model, rng, reduction="mean")
        points = maximise(OriginNCF(o), starts=12, rng=rng, keep=1)
        if points and 0.5 < points[0].gap / (points[0].value * OriginNCF(o).degree) < 1.2:
            return o, points[0]


def another_target(o: Objective, u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A KKT point to which phi goes from some other start, at least 8 degrees from ``u``."""
    search = Search("a start that goes to another KKT point")
    while True:
        search.draw()
        phi = limit(OriginNCF(o), unit(rng, u.size), max_steps=3000)
        if phi.point is not None and float(phi.point.u @ u) < 0.99:
            return phi.point.u


def unit(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random unit vector."""
    w = rng.standard_normal(size)
    return w / float(np.linalg.norm(w))


def tilted(u: np.ndarray, rng: np.random.Generator, angle: float = 0.1) -> np.ndarray:
    """A random unit vector at ``angle`` (radian; 0.1 is 6 degrees) from the unit vector ``u``."""
    b = rng.standard_normal(u.size)
    b -= (b @ u) * u
    return math.cos(angle) * u + math.sin(angle) * b / float(np.linalg.norm(b))


def natural_size(o: Objective, u: np.ndarray, value: float, degree: float) -> float:
    """The |w| at which a square loss is least along the ray of ``u``; delta counts as small in units of it.

    L = L(0) - N r^D + B r^(2D) along the ray, so that r^D = N/(2B).
    """
    B = o.scale * float((o.model.forward(u, o.X) ** 2).sum())
    return float((value / (2 * B)) ** (1 / degree))
