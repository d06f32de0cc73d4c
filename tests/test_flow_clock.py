"""The rescaled clock: escape times at tiny scales, physical time at 1e30 and beyond, outputs at given times."""

from __future__ import annotations

import math
from importlib.resources import files

import numpy as np
import pytest
from flow_fields import ADAPTIVE, power_field, toy, toy_start

from gfsim.errors import InvalidInput
from gfsim.flow.clock import PhysicalTime, RescaledTime
from gfsim.flow.events import loss_level, norm_level
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective


def random_net(seed=0, widths=(6, 5, 5, 1), n=30):
    """A degree-7 problem: three layers of z^2, sum of squares, and a unit direction that escapes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, widths[0]))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = 2 + rng.normal(size=n)  # positive on average, so that a positive output weight grows
    model = FeedForward(widths, "square")
    w = np.abs(rng.normal(size=model.n_params))
    return Objective(model, X, y), w / np.linalg.norm(w)


def paper_net():
    """The arrays of the papers' three-layer example where they are installed, else a random net of its size."""
    path = files("paper_repro") / "data" / "three_layer_square.npz"
    if not path.is_file():
        return random_net(1, (20, 20, 20, 1), 100)
    with path.open("rb") as stream, np.load(stream) as data:
        X, y = data["X"].T, data["y"]
        model = FeedForward((20, 20, 20, 1), "square")
        return Objective(model, X, y), model.pack([data["W1"], data["W2"], data["W3"].reshape(1, -1)])


def half_time(objective, w0, rtol=1e-8, **options):
    start = float(objective.value(0 * w0))
    return simulate(objective, w0, t_end=math.inf, rtol=rtol, events=[loss_level(0.5 * start)], **options)


@pytest.mark.parametrize("method", ["RK45", "DOP853", "LSODA"])
def test_escape_time_scales_exactly(method):
    """T(delta) delta^(D-2) is one constant from delta = 1e-2 to 1e-8, T from 1e10 to 1e41 (section 3).

    In absolute time every solver fails from delta = 1e-3 on.  The cost must grow like log(1/delta).
    """
    objective, direction = random_net()
    deltas = [1e-2, 1e-4, 1e-6, 1e-8]
    runs = [half_time(objective, d * direction, method=method) for d in deltas]
    assert all(run.status is Status.EVENT for run in runs)
    constants = np.array([run.t[-1] * d**5 for run, d in zip(runs, deltas, strict=True)])
    assert np.abs(constants / constants[-1] - 1).max() <= 1e-5
    cost = [run.counts.velocity for run in runs]
    # a hundredfold smaller start costs the same few velocities each time: log(1/delta), not a power
    assert max(np.diff(cost)) <= {"RK45": 350, "DOP853": 250, "LSODA": 250}[method]


def test_escape_time_of_the_papers_arrays():
    objective, w0 = paper_net()
    runs = {d: half_time(objective, d * w0, rtol=1e-7, method="RK45", max_steps=5000) for d in (1e-2, 1e-8)}
    assert all(run.ok for run in runs.values())
    constants = [run.t[-1] * d**5 for d, run in runs.items()]
    assert constants[0] == pytest.approx(constants[1], rel=1e-4)


def test_absolute_time_fails_with_the_right_advice():
    objective, direction = random_net()
    for method in ("RK45", "LSODA", "BDF"):
        run = half_time(objective, 1e-5 * direction, rtol=1e-6, method=method, clock="t", max_steps=3000)
        assert run.status is Status.STEP_UNDERFLOW
        assert "rescaled" in run.message
        assert run.counts.velocity <= 20_000


def test_both_clocks_give_one_trajectory():
    objective, direction = random_net(2)
    w0 = 0.3 * direction
    t_end = 0.999 * half_time(objective, w0).t[-1]  # past it, equal t compares different phases
    t = np.sort(np.random.default_rng(0).uniform(0, t_end, 40))
    runs = [
        simulate(objective, w0, t_end=t_end, method="DOP853", rtol=1e-9, clock=clock, t_eval=t)
        for clock in ("t", "rescaled", RescaledTime(2.0), RescaledTime(1.0, np.arange(30)))
    ]
    for run in runs:
        np.testing.assert_array_equal(run.t[1:-1], t)
        assert run.t[-1] == t_end
        np.testing.assert_allclose(run.w, runs[0].w, rtol=0, atol=1e-6)
        assert math.fsum(run.dt) == pytest.approx(t_end, rel=1e-13)
        np.testing.assert_allclose(np.cumsum(run.dt), run.t[1:], rtol=1e-12)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_last_output_at_the_end_is_one_row(method):
    t = np.array([0.0, 0.5, 1.0])
    for clock in ("t", RescaledTime(1.0)):
        run = simulate(toy(), toy_start(0.1), t_end=1.0, method=method, clock=clock, t_eval=t)
        np.testing.assert_array_equal(run.t, t)
        assert run.status is Status.END_TIME


def test_time_differences_where_t_itself_has_no_digits_left():
    """At delta = 1e-6, t is about 1e31: the whole escape, of order 1, is far below one spacing of t.

    The time between two events must still be that of an independent run which starts at the first.
    """
    objective, direction = random_net()
    start = float(objective.value(0 * direction))
    run = simulate(
        objective,
        1e-6 * direction,
        t_end=math.inf,
        method="DOP853",
        rtol=1e-10,
        events=[loss_level(0.9 * start, terminal=0), loss_level(0.5 * start)],
    )
    early, late = run.events
    assert late.t - early.t == 0.0
    assert np.spacing(late.t) > 1e12
    again = simulate(
        objective,
        early.w,
        t_end=1e6,
        method="RK45",
        rtol=1e-10,
        clock="t",
        events=[loss_level(0.5 * start)],
    )
    np.testing.assert_allclose(run.w[early.row], early.w)
    assert run.time_between(early.row, late.row) == pytest.approx(again.t[-1], rel=1e-6)


def test_slow_decay_to_1e20():
    """dy/dt = -y^7: y = (y0^-6 + 6 t)^(-1/6), over 26 decades of t."""
    t = np.array([1e-3, 1.0, 1e6, 1e13, 1e20])
    for method in ADAPTIVE:
        rtol = 1e-5 if method in ("RK23", "BDF") else 1e-8
        run = simulate(power_field(7, -1.0), np.ones(1), t_end=1e20, method=method, rtol=rtol, t_eval=t, atol=0.0)
        exact = (1 + 6 * run.t) ** (-1 / 6)
        assert run.ok
        assert np.abs(run.w[:, 0] / exact - 1).max() <= 100 * rtol
        assert run.counts.accepted <= 1000


def test_rate_gradient_is_the_derivative_of_the_rate():
    rng = np.random.default_rng(1)
    w = rng.normal(size=7)
    for clock in (RescaledTime(5.0), RescaledTime(1.5, np.array([1, 4, 6])), PhysicalTime()):
        h = 1e-6
        numeric = [(clock.rate(w + h * e) - clock.rate(w - h * e)) / (2 * h) for e in np.eye(7)]
        np.testing.assert_allclose(clock.rate_gradient(w), numeric, rtol=1e-7, atol=1e-9)
        assert clock.rate(np.stack([w, 2 * w])).shape == (2,)


def test_implicit_methods_get_the_jacobian_of_the_clock_too():
    """With the rate's gradient left out of the Jacobian, Newton's iteration would only creep."""
    objective, direction = random_net()
    for method, ceiling in (("BDF", 900), ("Radau", 1500)):
        run = half_time(objective, 1e-4 * direction, rtol=1e-5, method=method)
        assert run.ok
        assert run.counts.velocity <= ceiling


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (RescaledTime(2.0, np.array([1])), "dt/ds = inf"),
        (RescaledTime(2.0, np.array([7])), "does not fit"),
        ("absolute", "unknown clock"),
    ],
)
def test_clocks_that_cannot_tick_are_refused(clock, words):
    with pytest.raises((InvalidInput, KeyError), match=words):
        simulate(toy(), np.array([0.1, 0.0]), t_end=1.0, clock=clock)


def test_weights_too_small_for_float64_are_refused():
    with pytest.raises(InvalidInput, match="too small for float64"):
        simulate(power_field(6), np.array([1e-80]), t_end=1.0, events=[norm_level(1.0)])


@pytest.mark.parametrize("power", [-1.0, math.nan, math.inf])
def test_bad_power(power):
    with pytest.raises(InvalidInput, match="clock power"):
        RescaledTime(power)


def test_clocks_are_equal_when_they_tick_alike():
    """Also when their blocks are different arrays of the same indices; Python 3.13 compares field by field."""
    block = np.array([1, 2, 4])
    clock = RescaledTime(1.0, block)
    assert clock == RescaledTime(1.0, block.copy())
    assert hash(clock) == hash(RescaledTime(1.0, block.copy()))
    assert clock != RescaledTime(1.0, np.array([1, 2, 5]))
    assert clock != RescaledTime(1.0, np.array([1, 2]))
    assert clock != RescaledTime(2.0, block)
    assert clock != RescaledTime(1.0)
    assert RescaledTime(1.0) == RescaledTime(1.0)
    assert clock != PhysicalTime()
