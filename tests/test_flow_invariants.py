"""What every gradient flow obeys, over random small nets: balance, dL/dt = -|grad L|^2, a loss that only falls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective

SMOOTH = ["square", "linear", ("relu", 2), ("relu", 3), ("leaky", 2)]


@st.composite
def problems(draw, activations=SMOOTH):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hidden = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    kind = draw(st.sampled_from(activations))
    name, p = kind if isinstance(kind, tuple) else (kind, None)
    model = FeedForward((draw(st.integers(1, 3)), *hidden, draw(st.integers(1, 2))), name, p=p)
    loss = draw(st.sampled_from(["square", "logistic"]))
    n = draw(st.integers(2, 9))
    y = rng.normal(size=(n, model.n_outputs))
    if loss == "logistic":
        y = np.sign(y)
        y[0], y[1] = 1.0, -1.0
    objective = Objective(
        model, rng.normal(size=(n, model.n_inputs)), y, loss=loss, reduction=draw(st.sampled_from(["sum", "mean"]))
    )
    w0 = draw(st.sampled_from([0.1, 0.7])) * rng.normal(size=model.n_params)
    # a time on which the flow moves by about its own size, whatever the scale of the problem
    t_end = draw(st.sampled_from([1.0, 5.0])) * np.linalg.norm(w0) / (np.linalg.norm(objective.gradient(w0)) + 1e-3)
    return objective, w0, float(t_end)


@given(problem=problems(), method=st.sampled_from(["RK45", "DOP853", "LSODA", "BDF", "Radau"]), rescaled=st.booleans())
@settings(max_examples=40)
def test_balance_loss_and_energy(problem, method, rescaled):
    objective, w0, t_end = problem
    rtol = 1e-7
    clock = "rescaled" if rescaled else "t"
    run = simulate(objective, w0, t_end=t_end, method=method, rtol=rtol, clock=clock)
    assert run.ok, run.message
    assert run.t[-1] == t_end
    assert (np.diff(run.s) > 0).all()
    assert (run.dt > 0).all()
    assert math.fsum(run.dt) == pytest.approx(t_end, rel=1e-12)
    # neuron balances are invariants of the exact flow: their drift is the integrator's error
    assert run.conserved_drift <= 1000 * rtol
    # the loss may rise by no more than the error of one step allows
    slack = 100 * rtol * (run.speed * np.linalg.norm(run.w, axis=1)).max() + 1e-13 * run.loss[0]
    assert (np.diff(run.loss) <= slack).all()


@given(problem=problems(), method=st.sampled_from(["DOP853", "LSODA"]), rescaled=st.booleans())
@settings(max_examples=25)
def test_loss_falls_at_the_rate_of_the_squared_gradient(problem, method, rescaled):
    """L(0) - L(T) = integral of |grad L|^2 dt: catches a wrong physical time (any clock) or a wrong reduction."""
    objective, w0, t_end = problem
    options = {"method": method, "rtol": 1e-8, "clock": "rescaled" if rescaled else "t"}
    steps = simulate(objective, w0, t_end=t_end, **options).t
    fine = (
        steps[:-1, None] + np.diff(steps)[:, None] * np.arange(4) / 4
    ).ravel()  # where the flow is fast, and Simpson
    run = simulate(objective, w0, t_end=t_end, t_eval=np.append(fine, t_end), **options)
    assert run.ok, run.message
    np.testing.assert_array_equal(run.t, np.append(fine, t_end))
    fall = run.loss[0] - run.loss[-1]
    rate = run.speed**2
    panels = np.diff(steps) / 12 * (rate[:-1:4] + 4 * rate[1::4] + 2 * rate[2::4] + 4 * rate[3::4] + rate[4::4])
    assert fall == pytest.approx(panels.sum(), rel=3e-4, abs=1e-9 * run.loss[0])


@given(seed=st.integers(0, 2**32 - 1), p=st.sampled_from([1, 2]))
@settings(max_examples=15)
def test_relu_kinks_are_crossed_without_harm(seed, p):
    """ReLU's velocity jumps at kinks, along which the flow may slide; the balance is an invariant all the same."""
    rng = np.random.default_rng(seed)
    model = FeedForward((2, 4, 1), "relu", p=p)
    objective = Objective(model, rng.normal(size=(12, 2)), rng.normal(size=12), reduction="mean")
    run = simulate(objective, 0.5 * rng.normal(size=model.n_params), t_end=20.0, method="RK23", rtol=1e-3)
    assert run.ok, run.message
    assert run.conserved_drift <= 3e-2
    assert run.loss[-1] <= run.loss[0]
    assert run.counts.velocity <= 5000


def test_drift_measures_the_error_and_is_absent_without_invariants():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10, 3)), rng.normal(size=10)
    model = FeedForward((3, 2, 1), "square")
    w0 = 0.5 * rng.normal(size=model.n_params)
    objective = Objective(model, X, y, reduction="mean")
    drift = [
        simulate(objective, w0, t_end=5.0, method="RK45", rtol=rtol, clock="t").conserved_drift
        for rtol in (1e-3, 1e-5, 1e-7)
    ]
    assert 0 < drift[2] < drift[1] < drift[0] < 1e-2
    tanh = FeedForward((3, 2, 1), "tanh")
    assert math.isnan(simulate(Objective(tanh, X, y), w0, t_end=0.1).conserved_drift)
