"""Closed-form flows to the tolerance by every adaptive method of ours, with what each may cost.

Bounds are in units of the tolerance: what a controller promises per step, times the folds of growth.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import constant_field, power_field, toy, toy_flow, toy_start
from integrator_tools import OWN_ADAPTIVE, total
from scipy.integrate import quad

from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective

RTOLS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)


def tolerances(method: str) -> list[float]:
    """The second-order method would pay rtol^(-1/3) steps at the sharp end: it is not meant for that."""
    return [rtol for rtol in RTOLS if method != "rkc" or rtol >= 1e-6]


CASES = [(method, rtol) for method in OWN_ADAPTIVE for rtol in tolerances(method)]


ERRORS = {"dp5": 2, "dp8": 60, "ndf": 30, "auto": 60}


def allowed(method: str, rtol: float) -> float:
    """The error of one e-fold of growth at a tolerance, twice what is measured.

    The seventh-order interpolant of dp8, through which physical time is found, is worse than its steps; the
    stabilised method controls its second-order formula itself, whose global error goes as rtol^(2/3).
    """
    return rtol ** (2 / 3) if method == "rkc" else ERRORS[method] * rtol


def price(method: str, rtol: float) -> float:
    """Evaluations of all kinds for one e-fold: rtol^(-1/order) steps, about twice what is measured."""
    order, at_loose = {"dp5": (5, 40), "dp8": (8, 60), "rkc": (3, 65), "ndf": (7, 40), "auto": (7, 50)}[method]
    return at_loose * (1e-4 / rtol) ** (1 / order)


@pytest.mark.parametrize("clock", ["t", RescaledTime(1.0)], ids=["t", "rescaled"])
@pytest.mark.parametrize(("method", "rtol"), CASES)
def test_toy(method, rtol, clock):
    """Both weights keep their relative accuracy through both escapes, from 1e-2 and from 1e-8."""
    for delta in (1e-2, 1e-8):
        t_end = math.log(1 / delta) / 4 + 1
        grid = np.linspace(0, t_end, 40)
        run = simulate(toy(), toy_start(delta), t_end=t_end, method=method, rtol=rtol, clock=clock, t_eval=grid)
        assert run.ok, run.message
        folds = 1 + math.log(1 / delta)
        assert np.abs(run.w / toy_flow(run.t, delta) - 1).max() <= allowed(method, rtol) * folds
        assert total(run.counts) <= price(method, rtol) * (folds + 8)


@pytest.mark.parametrize(("method", "rtol"), CASES)
def test_scalar_product(method, rtol):
    """u v -> y from balanced 1e-4: p = u v is logistic, dp/dt = -4 p (p - y)."""
    p0, product = 1e-4, 2.0
    t_end = 2 * math.log(product / p0) / (4 * product)
    objective = Objective(DiagonalLinear(1, 2), [[1.0]], [product])
    grid = np.linspace(0, t_end, 21)
    run = simulate(objective, np.full(2, math.sqrt(p0)), t_end=t_end, method=method, rtol=rtol, t_eval=grid)
    exact = product / (1 + (product / p0 - 1) * np.exp(-4 * product * run.t))
    assert np.abs(run.w.prod(-1) / exact - 1).max() <= 20 * allowed(method, rtol)
    assert run.conserved_drift <= 2 * allowed(method, rtol)
    assert total(run.counts) <= 20 * price(method, rtol)


def two_layer_modes(rng, modes):
    """A linear net whose weights start in the singular bases of its target, and those modes."""
    d = len(modes)
    U, V, R = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(3))
    model = FeedForward((d, d, d), "linear")
    return Objective(model, np.eye(d), V @ np.diag(modes) @ U.T), U, V, R


@pytest.mark.parametrize(("method", "rtol"), CASES)
def test_singular_modes_of_a_linear_net(method, rtol):
    """Every mode of W2 W1 is logistic by itself, and the weights stay in the singular bases: no mode leaks."""
    modes, p0 = np.array([3.0, 1.5, 0.6]), np.array([1e-3, 1e-3, 1e-3])
    objective, U, V, R = two_layer_modes(np.random.default_rng(3), modes)
    W1, W2 = R @ np.diag(np.sqrt(p0)) @ V.T, U @ np.diag(np.sqrt(p0)) @ R.T
    t_end = math.log(modes[2] / p0[2]) / (4 * modes[2]) * 1.3
    grid = np.linspace(0, t_end, 15)
    run = simulate(objective, objective.model.pack([W1, W2]), t_end=t_end, method=method, rtol=rtol, t_eval=grid)
    assert run.ok
    for w, t in zip(run.w, run.t, strict=True):
        one, two = objective.model.unpack(w)
        product = U.T @ two @ one @ V
        exact = modes / (1 + (modes / p0 - 1) * np.exp(-4 * modes * t))
        # an early mode error is carried along by its own growth only
        np.testing.assert_allclose(np.diag(product), exact, rtol=60 * allowed(method, rtol))
        assert np.abs(product - np.diag(np.diag(product))).max() <= 3 * allowed(method, rtol)
    assert total(run.counts) <= 30 * price(method, rtol)


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
@pytest.mark.parametrize("depth", [3, 5])
def test_deep_scalar_chain(method, depth):
    """w_1 ... w_L -> y from balanced delta: t is the integral of dw / (2 w^(L-1) (y - w^L)), of order 1/delta^(L-2)."""
    target, rtol = 2.0, 1e-6
    objective = Objective(DiagonalLinear(1, depth), [[1.0]], [target])
    for delta in (1e-1, 1e-3):
        run = simulate(
            objective, np.full(depth, delta), t_end=math.inf, method=method, rtol=rtol, events=[norm_level(depth**0.5)]
        )

        def per_rate(x: float, target: float = target) -> float:
            w = math.exp(x)
            return w / (2 * w ** (depth - 1) * (target - w**depth))

        exact = quad(per_rate, math.log(delta), 0.0, epsabs=0, epsrel=1e-12)[0]
        assert run.t[-1] == pytest.approx(exact, rel=40 * allowed(method, rtol))
        assert run.final == pytest.approx(np.ones(depth), rel=1e-6 if method != "rkc" else 1e-5)
        assert total(run.counts) <= price(method, rtol) * (4 - 3 * math.log10(delta))


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_constant_velocity_is_exact_everywhere(method):
    v = np.array([1.0, -2.0])
    run = simulate(constant_field(v), np.ones(2), t_end=1.0, method=method, t_eval=np.linspace(0.013, 0.99, 40))
    np.testing.assert_allclose(run.w, 1 + run.t[:, None] * v, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
@pytest.mark.parametrize("power", [4.0, 5.0, 6.0])
def test_physical_time_of_a_long_escape(method, power):
    """dy/dt = y^6 from 1e-3 to 1 takes (1e15 - 1)/5, in its own clock and in two others."""
    for rtol in (1e-3, 1e-6):
        run = simulate(
            power_field(6),
            np.array([1e-3]),
            t_end=math.inf,
            events=[norm_level(1.0)],
            method=method,
            rtol=rtol,
            clock=RescaledTime(power),
        )
        assert run.t[-1] == pytest.approx((1e15 - 1) / 5, rel=10 * allowed(method, rtol))
        assert total(run.counts) <= 40 * price(method, rtol)
        assert math.fsum(run.dt) == pytest.approx(run.t[-1], rel=1e-13)
