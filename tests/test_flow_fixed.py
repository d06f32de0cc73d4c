"""Fixed steps: gradient descent bit for bit, NumPy against torch, what is recorded and what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import constant_field, power_field, toy, toy_start

from gfsim.errors import InvalidInput
from gfsim.flow.clock import RescaledTime
from gfsim.flow.driver import FIXED_STEP_ROWS
from gfsim.flow.events import Event, loss_level, stationarity
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective


@pytest.fixture
def net():
    rng = np.random.default_rng(4)
    model = FeedForward((5, 6, 1), "square")
    objective = Objective(model, rng.normal(size=(20, 5)) / 2, rng.normal(size=20), reduction="mean")
    return objective, 0.3 * rng.normal(size=model.n_params)


def descent(objective, w, step, iterations):
    """A plain loop of gradient descent: (iterations + 1, P)."""
    rows = [w.copy()]
    for _ in range(iterations):
        w = w - step * objective.gradient(w)
        rows.append(w)
    return np.array(rows)


def test_euler_is_gradient_descent_bit_for_bit(net):
    """Iteration k is at t = step k; step 0.005 is the papers' own and no binary number."""
    objective, w0 = net
    step, iterations = 0.005, 3000
    loop = descent(objective, w0, step, iterations)
    t = step * np.arange(iterations + 1)
    every = simulate(objective, w0, t_end=t[-1], method="euler", step=step, t_eval=t)
    np.testing.assert_array_equal(every.t, t)
    np.testing.assert_array_equal(every.w, loop)
    assert every.counts.velocity == iterations + 1
    picked = np.array([7, 1000, 1001, 2999])
    some = simulate(objective, w0, t_end=t[-1], method="euler", step=step, t_eval=t[picked])
    np.testing.assert_array_equal(some.w[1:-1], loop[picked])
    np.testing.assert_array_equal(some.final, loop[-1])


def test_rows_without_outputs_are_true_iterates(net):
    objective, w0 = net
    step, iterations = 0.005, 3000
    loop = descent(objective, w0, step, iterations)
    run = simulate(objective, w0, t_end=step * iterations, method="euler", step=step)
    assert len(run.t) == FIXED_STEP_ROWS + 1
    np.testing.assert_array_equal(run.w, loop[:: iterations // FIXED_STEP_ROWS])
    short = simulate(objective, w0, t_end=step * 40, method="euler", step=step)
    np.testing.assert_array_equal(short.w, loop[:41])
    np.testing.assert_array_equal(short.t, step * np.arange(41))


def test_rows_with_events_and_no_end_stay_few(net):
    """Descent until stationary: the memory must not grow with the iterations, nor the times drift."""
    objective, w0 = net
    run = simulate(objective, w0, t_end=math.inf, method="euler", step=0.01, events=[stationarity(1e-2)])
    assert run.status is Status.EVENT
    assert run.counts.accepted > 3 * FIXED_STEP_ROWS
    assert FIXED_STEP_ROWS / 2 <= len(run.t) <= 2 * FIXED_STEP_ROWS + 1
    loop = descent(objective, w0, 0.01, run.counts.accepted)
    where = np.rint(run.t[:-1] / 0.01).astype(int)
    np.testing.assert_array_equal(run.w[:-1], loop[where])
    np.testing.assert_array_equal(run.t[:-1], 0.01 * where)
    np.testing.assert_allclose(np.cumsum(run.dt), run.t[1:], rtol=1e-12)
    assert run.events[-1].row == len(run.t) - 1
    finite = simulate(
        objective, w0, t_end=20.0, method="euler", step=0.01, events=[loss_level(0.9 * run.loss[0], terminal=0)]
    )
    assert len(finite.t) == FIXED_STEP_ROWS + 1
    assert len(finite.events) == 1


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("activation", ["square", "relu", "tanh"])
def test_torch_on_the_cpu_equals_numpy(method, activation):
    rng = np.random.default_rng(9)
    model = FeedForward((4, 5, 3, 1), activation)
    objective = Objective(model, rng.normal(size=(15, 4)), rng.normal(size=15), reduction="mean")
    w0 = 0.5 * rng.normal(size=model.n_params)
    options = {"t_end": 2.0, "method": method, "step": 0.01, "t_eval": np.linspace(0.033, 1.97, 30)}
    ours = simulate(objective, w0, **options)
    torch_run = simulate(objective, w0, device="cpu", **options)
    assert isinstance(torch_run.w, np.ndarray)
    assert torch_run.w.dtype == np.float64
    np.testing.assert_array_equal(torch_run.t, ours.t)
    np.testing.assert_allclose(torch_run.w, ours.w, rtol=0, atol=1e-13)
    assert torch_run.counts == ours.counts


def test_torch_with_events(net):
    objective, w0 = net
    goal = 0.7 * float(objective.value(w0))
    runs = [
        simulate(objective, w0, t_end=math.inf, method="rk4", step=0.02, events=[loss_level(goal)], device=device)
        for device in (None, "cpu")
    ]
    assert runs[0].t[-1] == pytest.approx(runs[1].t[-1], rel=1e-12)
    assert runs[1].loss[-1] == pytest.approx(goal, rel=1e-12)


def test_a_missing_gpu_is_said_so(net):
    torch = pytest.importorskip("torch")
    objective, w0 = net
    if torch.cuda.is_available():
        run = simulate(objective, w0, t_end=1.0, method="rk4", step=0.05, device="cuda")
        ours = simulate(objective, w0, t_end=1.0, method="rk4", step=0.05)
        np.testing.assert_allclose(run.w, ours.w, rtol=0, atol=1e-12)
    else:
        with pytest.raises(InvalidInput, match="sees no CUDA device"):
            simulate(objective, w0, t_end=1.0, method="rk4", step=0.05, device="cuda")


@pytest.mark.parametrize("device", ["gpu", "cpu:x", ""])
def test_unknown_devices(net, device):
    objective, w0 = net
    with pytest.raises(InvalidInput, match="device"):
        simulate(objective, w0, t_end=1.0, method="euler", step=0.1, device=device)


def test_only_training_flows_run_on_a_device():
    with pytest.raises(InvalidInput, match="NCF flow"):
        simulate(power_field(2), np.ones(1), t_end=1.0, method="euler", step=0.1, device="cpu")


def test_an_end_between_steps_is_interpolated():
    run = simulate(constant_field(np.array([2.0])), np.array([1.0]), t_end=0.55, method="euler", step=0.1)
    assert run.t[-1] == 0.55
    assert run.final[0] == pytest.approx(2.1, rel=1e-14)
    assert run.counts.accepted == 6
    longer = simulate(constant_field(np.array([2.0])), np.array([1.0]), t_end=0.05, method="rk4", step=0.1)
    assert longer.final[0] == pytest.approx(1.1, rel=1e-14)


def test_a_finite_run_is_not_cut_by_the_step_budget_but_a_wait_is():
    run = simulate(toy(), toy_start(0.1), t_end=0.5, method="euler", step=1e-3, max_steps=10)
    assert run.status is Status.END_TIME
    assert run.counts.accepted == 500
    never = Event("never", lambda _: 1.0, 0, 1)
    wait = simulate(toy(), toy_start(0.1), t_end=math.inf, method="euler", step=1e-3, max_steps=10, events=[never])
    assert wait.status is Status.MAX_STEPS
    assert wait.counts.accepted == 10
    assert wait.t[-1] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "rk4"}, "pass step"),
        ({"method": "rk4", "step": 0.0}, "step = 0.0"),
        ({"method": "rk4", "step": -1.0}, "step"),
        ({"method": "rk4", "step": math.nan}, "step"),
        ({"method": "rk4", "step": 0.1, "clock": RescaledTime(1.0)}, "physical time"),
        ({"method": "RK45", "step": 0.1}, "fixed-step methods"),
        ({"method": "LSODA", "device": "cpu"}, "fixed-step methods"),
        ({"method": "euler", "step": 0.1, "t_end": math.inf}, "terminal event"),
        ({"method": "euler", "step": 0.1, "t_end": math.inf, "t_eval": [1.0]}, "terminal event"),
    ],
)
def test_bad_combinations(options, words):
    with pytest.raises(InvalidInput, match=words):
        simulate(toy(), toy_start(0.1), **{"t_end": 1.0, **options})
