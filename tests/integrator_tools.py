"""Fields, saddles and drivers that the tests of gfsim's own integrators share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.integrate import solve_ivp

from gfsim.flow.auto import Auto
from gfsim.flow.chebyshev import Chebyshev
from gfsim.flow.clock import Clock, PhysicalTime
from gfsim.flow.field import Ascent, Field
from gfsim.flow.integrator import Attempt, Integrator
from gfsim.flow.ndf import NDF
from gfsim.flow.result import Counts
from gfsim.flow.rows import RowField
from gfsim.flow.runge_kutta import ExplicitPair
from gfsim.flow.tableaus import Tableau, bogacki_shampine, dormand_prince_5, dormand_prince_8
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle

OWN_ADAPTIVE = ("dp5", "dp8", "rkc", "ndf", "auto")
IN_A_BATCH = ("dp5", "dp8", "rkc", "ndf", "auto")
PAIRS: dict[str, Callable[[], Tableau]] = {"bs3": bogacki_shampine, "dp5": dormand_prince_5, "dp8": dormand_prince_8}


@dataclass(frozen=True)
class Timed:
    """y' = f(y, t) as a field of w = (y, t): the clock is one more variable with t' = 1.

    ``slope`` and ``bend`` take y (..., m) and t (...); ``bend`` is df/dy (m, m) at one point.  The Jacobian
    leaves out df/dt, so that it is symmetric as the integrators assume: a Newton iteration with it still
    ends at the right answer.
    """

    slope: Callable[[np.ndarray, np.ndarray], np.ndarray]
    bend: Callable[[np.ndarray, float], np.ndarray]
    m: int = 1
    degree: float | None = None
    label: str = "a field with a clock"
    kinked: bool = False

    @property
    def size(self) -> int:
        return self.m + 1

    @property
    def work_per_row(self) -> int:
        return self.size

    def potential(self, w):
        return w[..., -1]

    def velocity(self, w):
        y, t = w[..., :-1], w[..., -1]
        return np.concatenate([self.slope(y, t), np.ones_like(w[..., -1:])], -1)

    def jacobian(self, w):
        J = np.zeros((self.size, self.size))
        J[:-1, :-1] = self.bend(w[:-1], float(w[-1]))
        return J

    def jacobian_product(self, w, v):
        if w.ndim == 1:
            return v @ self.jacobian(w)
        w, v = np.broadcast_arrays(w, v)
        out = np.empty_like(v)
        for k in np.ndindex(*w.shape[:-1]):
            out[k] = self.jacobian(w[k]) @ v[k]
        return out

    def conserved(self, w):
        return w[..., :0]


def forced() -> Timed:
    """y' = y^2/(1 + t) - 3 y: nonlinear in y and not autonomous; each power of h shows in its errors."""
    return Timed(lambda y, t: y**2 / (1 + t)[..., None] - 3 * y, lambda y, t: np.diag(2 * y / (1 + t) - 3), degree=None)


def rapids() -> Timed:
    """y' = -k(t) (y - sin t), k = 1 but for 1e4 between t = 3 and t = 8: smooth, stiff, smooth."""

    def k(t):
        return 1.0 + 1e4 * 0.25 * (1 + np.tanh(8 * (t - 3))) * (1 - np.tanh(8 * (t - 8)))

    return Timed(
        lambda y, t: -k(t)[..., None] * (y - np.sin(t)[..., None]), lambda _y, t: np.array([[-k(np.asarray(t))]])
    )


def quartic() -> Ascent:
    """The gradient field of a coupled, non-quadratic potential of two weights."""

    def value(w):
        x, y = w[..., 0], w[..., 1]
        return -((x * y - 1) ** 2) / 2 - x**4 / 8 - np.sin(y)

    def gradient(w):
        x, y = w[..., 0], w[..., 1]
        return np.stack([-(x * y - 1) * y - x**3 / 2, -(x * y - 1) * x - np.cos(y)], -1)

    def hessian(w):
        x, y = w
        cross = 1 - 2 * x * y
        return np.array([[-(y * y) - 1.5 * x * x, cross], [cross, -x * x + math.sin(y)]])

    return Ascent(value, gradient, hessian, 2, None, "quartic")


def quadratic_flow(A: np.ndarray) -> Ascent:
    """dy/dt = -A y for symmetric A."""
    return Ascent(
        lambda w: -0.5 * (w * (w @ A)).sum(-1), lambda w: -(w @ A), lambda _: -A, len(A), 2.0, "quadratic flow"
    )


def exact_end(field: Field, w0: np.ndarray, t_end: float) -> np.ndarray:
    """The flow's end by scipy's DOP853 at its sharpest: another code, another step control."""
    run = solve_ivp(lambda _, w: field.velocity(w), (0.0, t_end), w0, method="DOP853", rtol=1e-13, atol=1e-14)
    return run.y[:, -1]


# -- integrators in hand ---------------------------------------------------------------------------------


def rows_of(field: Field, w: np.ndarray, clock: Clock | None = None) -> RowField:
    return RowField(field, clock or PhysicalTime(), w)


def make_own(name: str, field: Field, w: np.ndarray, *, rtol: float = 1e-6, atol: float | np.ndarray = 1e-9,
             clock: Clock | None = None, **options) -> Integrator:  # fmt: skip
    """The named integrator on the rows w (B, P)."""
    rows = rows_of(field, w, clock)
    tolerances = np.broadcast_to(atol, w.shape) + 0.0
    if name in PAIRS:
        return ExplicitPair(rows, w.copy(), PAIRS[name](), rtol=rtol, atol=tolerances, **options)
    kind = {"rkc": Chebyshev, "ndf": NDF, "auto": Auto}[name]
    return kind(rows, w.copy(), rtol=rtol, atol=tolerances, **options)


def run_to(integrator: Integrator, s_end: float, most: int = 100_000) -> Attempt:
    """Attempts until every row has passed ``s_end``; the last one."""
    for _ in range(most):
        attempt = integrator.attempt()
        if (np.asarray(attempt.end) >= s_end).all():
            return attempt
    raise RuntimeError(f"not at s = {s_end} after {most} attempts: {integrator.s}")


def total(counts: Counts) -> int:
    """Everything that was paid for: velocities, Jacobians, products and factorisations."""
    return counts.velocity + counts.jacobian + counts.hessian_product + counts.factorisations


# -- saddles ---------------------------------------------------------------------------------------------


@cache
def square_saddle() -> SparseSaddle:
    """A three-layer z^2 net (degree 7) of 4-4-3-1 neurons at the best fit of one neuron a layer to random labels."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(30, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = rng.normal(size=30)
    objective = Objective(FeedForward((4, 4, 3, 1), "square"), X, y, reduction="mean")
    return find_saddle(objective, (1, 1), rng=np.random.default_rng(1))


@cache
def saddle_direction() -> np.ndarray:
    """A unit direction of w_z along which the flow escapes."""
    return square_saddle().directions(np.random.default_rng(7))[1]
