"""What every gradient flow obeys, on our own integrators: balance, dL/dt = -|grad L|^2, a loss that only falls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integrator_tools import IN_A_BATCH, OWN_ADAPTIVE
from test_flow_invariants import problems

from gfsim.flow.batch import simulate_batch
from gfsim.flow.simulate import simulate

# neuron balances of the exact flow do not move: drift per unit of rtol on random small nets, three times the worst seen
DRIFT = {"dp5": 200, "dp8": 200, "ndf": 1000, "auto": 1000, "rkc": 1000}


@given(problem=problems(), method=st.sampled_from(OWN_ADAPTIVE), rescaled=st.booleans())
@settings(max_examples=40)
def test_balance_loss_and_time(problem, method, rescaled):
    objective, w0, t_end = problem
    rtol = 1e-5 if method == "rkc" else 1e-7
    run = simulate(objective, w0, t_end=t_end, method=method, rtol=rtol, clock="rescaled" if rescaled else "t")
    assert run.ok, run.message
    assert run.t[-1] == t_end
    assert (np.diff(run.s) > 0).all()
    assert (run.dt > 0).all()
    assert math.fsum(run.dt) == pytest.approx(t_end, rel=1e-12)
    assert run.conserved_drift <= DRIFT[method] * rtol
    slack = 100 * rtol * (run.speed * np.linalg.norm(run.w, axis=1)).max() + 1e-13 * run.loss[0]
    assert (np.diff(run.loss) <= slack).all()
    assert run.counts.accepted <= 4000


@given(problem=problems(), method=st.sampled_from(["dp5", "dp8", "ndf", "auto"]), rescaled=st.booleans())
@settings(max_examples=25)
def test_loss_falls_at_the_rate_of_the_squared_gradient(problem, method, rescaled):
    """L(0) - L(T) = integral of |grad L|^2 dt by Simpson's rule on a grid finer than the steps."""
    objective, w0, t_end = problem
    options = {"method": method, "rtol": 1e-8, "clock": "rescaled" if rescaled else "t"}
    steps = simulate(objective, w0, t_end=t_end, **options).t
    fine = (steps[:-1, None] + np.diff(steps)[:, None] * np.arange(4) / 4).ravel()
    run = simulate(objective, w0, t_end=t_end, t_eval=np.append(fine, t_end), **options)
    assert run.ok, run.message
    rate = run.speed**2
    panels = np.diff(steps) / 12 * (rate[:-1:4] + 4 * rate[1::4] + 2 * rate[2::4] + 4 * rate[3::4] + rate[4::4])
    assert run.loss[0] - run.loss[-1] == pytest.approx(panels.sum(), rel=1e-3, abs=1e-8 * run.loss[0])


@given(problem=problems(), method=st.sampled_from(IN_A_BATCH), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_batches_obey_it_too(problem, method, seed):
    """Rows of different sizes under one objective, each by itself."""
    objective, w0, t_end = problem
    rtol = 1e-4 if method == "rkc" else 1e-6
    scales = np.random.default_rng(seed).uniform(0.2, 1.5, size=4)
    result = simulate_batch(
        objective, scales[:, None] * w0, t_end=t_end, method=method, rtol=rtol, clock="rescaled", record="steps"
    )
    assert result.ok.all(), result.summary()
    np.testing.assert_array_equal(result.t, t_end)
    for row in result:
        assert row.conserved_drift <= DRIFT[method] * rtol
        slack = 100 * rtol * (row.speed * np.linalg.norm(row.w, axis=1)).max() + 1e-13 * row.loss[0]
        assert (np.diff(row.loss) <= slack).all()


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_drift_falls_with_the_tolerance(method):
    """Balance is an error gauge: it must be small BECAUSE the tolerance is, by the power of the method."""
    from gfsim.models.feedforward import FeedForward
    from gfsim.objective import Objective

    rng = np.random.default_rng(0)
    model = FeedForward((3, 3, 2, 1), "square")
    objective = Objective(model, rng.normal(size=(20, 3)), 1 + rng.normal(size=20), reduction="mean")
    w0 = 0.5 * rng.normal(size=model.n_params)
    rtols = (1e-3, 1e-5, 1e-7)
    drift = [simulate(objective, w0, t_end=20.0, method=method, rtol=rtol, clock="t").conserved_drift for rtol in rtols]
    assert drift[2] < drift[1] < drift[0] < 3e-2
    power = np.polyfit(np.log(rtols), np.log(drift), 1)[0]
    assert power >= (0.5 if method == "rkc" else 0.7)
