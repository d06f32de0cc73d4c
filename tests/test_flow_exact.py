"""Flows with exact solutions: accuracy in units of the tolerance, cost in counts, observed orders."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import (
    ADAPTIVE,
    constant_field,
    linear_field,
    logistic,
    logistic_field,
    power_field,
    toy,
    toy_flow,
    toy_start,
)
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from gfsim.flow.clock import RescaledTime
from gfsim.flow.simulate import simulate
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective

RTOL = {"RK23": 1e-6, "RK45": 1e-8, "DOP853": 1e-9, "BDF": 1e-6, "Radau": 1e-7, "LSODA": 1e-8}
# velocities for one e-fold of growth or decay at that tolerance, roughly twice what is measured
PRICE = {"RK23": 350, "RK45": 250, "DOP853": 160, "BDF": 150, "Radau": 450, "LSODA": 130}


@pytest.mark.parametrize("clock", ["t", RescaledTime(1.0)], ids=["t", "rescaled"])
@pytest.mark.parametrize("delta", [1e-1, 1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_toy_follows_its_closed_form(method, delta, clock):
    """Both weights keep their RELATIVE accuracy through both escapes, on a grid of t.

    Catches: tolerances scaled by the big weight, physical time off by more than the flow itself,
    outputs placed to an absolute accuracy in s (s starts at 1e-12 in the rescaled clock).
    """
    t_end = math.log(1 / delta) / 4 + 2
    rtol = RTOL[method]
    run = simulate(
        toy(), toy_start(delta), t_end=t_end, method=method, rtol=rtol, clock=clock, t_eval=np.linspace(0, t_end, 60)
    )
    assert run.ok
    assert run.t[-1] == t_end
    error = np.abs(run.w / toy_flow(run.t, delta) - 1).max()
    folds = 1 + math.log(1 / delta)
    assert error <= 20 * rtol * folds
    assert run.counts.velocity <= PRICE[method] * (folds + 8)
    assert run.counts.jacobian <= (0 if method in ("RK23", "RK45", "DOP853") else 60)


@pytest.mark.parametrize(
    ("method", "step", "bound"), [("euler", 1e-4, 3e-2), ("heun", 2e-4, 3e-5), ("rk4", 1e-3, 2e-7)]
)
def test_toy_with_fixed_steps(method, step, bound):
    delta, t_end = 1e-3, 3.0
    run = simulate(toy(), toy_start(delta), t_end=t_end, method=method, step=step, t_eval=np.linspace(0, t_end, 31))
    assert np.abs(run.w / toy_flow(run.t, delta) - 1).max() <= bound
    stages = {"euler": 1, "heun": 2, "rk4": 4}[method]
    assert run.counts.accepted == pytest.approx(t_end / step, abs=1)
    assert run.counts.velocity == stages * run.counts.accepted + 1


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("product", [3.0, 0.5])
def test_scalar_product_is_logistic(method, product):
    """u v -> y from a balanced start: p = u v solves dp/dt = -4 p (p - y)."""
    p0 = 1e-6
    objective = Objective(DiagonalLinear(1, 2), [[1.0]], [product])
    t_end = 2 * math.log(product / p0) / (4 * product)
    t = np.linspace(0, t_end, 21)
    run = simulate(objective, np.full(2, math.sqrt(p0)), t_end=t_end, method=method, rtol=RTOL[method], t_eval=t)
    exact = product / (1 + (product / p0 - 1) * np.exp(-4 * product * run.t))
    assert np.abs(run.w.prod(-1) / exact - 1).max() <= 300 * RTOL[method]
    assert run.conserved_drift <= 10 * RTOL[method]


@pytest.mark.parametrize("method", ADAPTIVE)
def test_linear_system_against_the_matrix_exponential(method):
    rng = np.random.default_rng(3)
    A = rng.normal(size=(5, 5))
    A = (A + A.T) / 2
    w0 = rng.normal(size=5)
    t = np.linspace(0, 2, 9)
    run = simulate(linear_field(A), w0, t_end=2.0, method=method, rtol=RTOL[method], t_eval=t)
    exact = np.stack([expm(A * s) @ w0 for s in t])
    assert np.abs(run.w - exact).max() / np.abs(exact).max() <= 40 * RTOL[method]


@pytest.mark.parametrize("method", ADAPTIVE)
def test_physical_clock_is_scipy_itself(method):
    """Step for step the trajectory and the counts of solve_ivp: the driver adds nothing and loses nothing.

    Equal velocity counts also say that no interpolant is built when nobody asks for one (DOP853's costs 3).
    """
    objective = toy()
    rtol, w0 = 1e-5, toy_start(0.05)
    atol = rtol * 0.05 / math.sqrt(2)
    jac = {} if method in ("RK23", "RK45", "DOP853") else {"jac": lambda _, w: -objective.hessian(w)}
    ours = simulate(objective, w0, t_end=2.0, method=method, rtol=rtol, clock="t")
    theirs = solve_ivp(lambda _, w: -objective.gradient(w), (0, 2.0), w0, method=method, rtol=rtol, atol=atol, **jac)
    np.testing.assert_array_equal(ours.t, theirs.t)
    np.testing.assert_array_equal(ours.w, theirs.y.T)
    assert ours.counts.velocity == theirs.nfev
    assert ours.counts.accepted == len(theirs.t) - 1
    assert ours.counts.factorisations == theirs.nlu


# -- observed orders -----------------------------------------------------------------------------------


def _slope(steps, errors):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_observed_order(method, order):
    y0, t_end = 0.1, 3.0
    steps = 0.1 / 2.0 ** np.arange(2, 6)
    errors = [
        abs(
            simulate(logistic_field(), np.array([y0]), t_end=t_end, method=method, step=h).final[0]
            - logistic(y0, t_end)
        )
        for h in steps
    ]
    assert _slope(steps, errors) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_outputs_between_steps_keep_the_order(method, order):
    """t_eval in the middle of steps: cubic Hermite for rk4 (a chord would show order 2)."""
    y0 = 0.1
    steps = 0.1 / 2.0 ** np.arange(2, 6)
    errors = []
    for h in steps:
        t = (np.arange(1, round(3.0 / h), 7) + 0.37) * h
        run = simulate(logistic_field(), np.array([y0]), t_end=3.0, method=method, step=h, t_eval=t)
        np.testing.assert_array_equal(run.t[1:-1], t)
        errors.append(np.abs(run.w[:, 0] - logistic(y0, run.t)).max())
    assert _slope(steps, errors) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", [*ADAPTIVE, "euler", "heun", "rk4"])
def test_constant_velocity_is_exact_everywhere(method):
    v = np.array([1.0, -2.0])
    t = np.linspace(0.013, 0.99, 40)
    step = {"step": 0.1} if method in ("euler", "heun", "rk4") else {}
    run = simulate(constant_field(v), np.array([1.0, 1.0]), t_end=1.0, method=method, t_eval=t, **step)
    np.testing.assert_allclose(run.w, 1 + run.t[:, None] * v, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("power", [4.0, 5.0, 6.0])
def test_physical_time_of_a_long_escape(method, power):
    """dy/dt = y^6 from 1e-3 to 1 takes (1e15 - 1)/5.

    Also in clocks that are not the field's own: power 6 makes y linear in s, the solver takes giant
    steps, and a fixed quadrature of dt/ds loses most digits of t (measured: 5e4 rtol at rtol 1e-9).
    """
    from gfsim.flow.events import norm_level

    for rtol in (1e-3, 1e-6, 1e-9) if method not in ("RK23", "BDF") else (1e-3, 1e-6):
        run = simulate(
            power_field(6),
            np.array([1e-3]),
            t_end=math.inf,
            events=[norm_level(1.0)],
            method=method,
            rtol=rtol,
            clock=RescaledTime(power),
        )
        exact = (1e15 - 1) / 5
        assert abs(run.t[-1] / exact - 1) <= 50 * rtol
        assert run.counts.accepted <= 1000
        assert math.fsum(run.dt) == pytest.approx(run.t[-1], rel=1e-13)
