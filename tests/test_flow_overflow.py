"""Overflow: a trial step beyond the range of float64 is rejected and counted, never raised, and the status explains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import ADAPTIVE, constant_field, power_field

from gfsim.flow.events import Event, norm_level
from gfsim.flow.field import Ascent
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective


@pytest.mark.parametrize("clock", ["t", "rescaled"])
@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_blow_up_is_a_status(method, rtol, clock):
    """dy/dt = y^6 from several sizes, asked to go far beyond its blow-up time.

    Warnings are errors here: a RuntimeWarning, a LinAlgWarning or LSODA's UserWarning from inside a
    rejected step would fail the test just as an exception would.
    """
    for y0 in (1e-3, 0.1, 1.0, 1e3, 1e30):
        blow_up = y0**-5.0 / 5
        run = simulate(power_field(6), np.array([y0]), t_end=10 * blow_up, method=method, rtol=rtol, clock=clock)
        assert run.status in (Status.OVERFLOW, Status.STEP_UNDERFLOW)
        assert "blow" in run.message
        assert run.t[-1] <= blow_up * (1 + 60 * rtol)
        if clock == "rescaled" or y0 <= 1:
            assert run.t[-1] >= blow_up * (1 - 60 * rtol)
        assert np.isfinite(run.w).all()
        assert run.final[0] >= y0
        assert run.counts.velocity <= (20_000 if clock == "t" else 5000)


@pytest.mark.parametrize("clock", ["t", "rescaled"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_blow_up_stopped_by_a_norm_event(method, clock):
    run = simulate(
        power_field(6),
        np.array([0.1]),
        t_end=math.inf,
        method=method,
        rtol=1e-5,
        clock=clock,
        events=[norm_level(10.0)],
    )
    assert run.status is Status.EVENT
    # in absolute time one spacing of t = 2e4 already moves y by 4e-6
    assert run.final[0] == pytest.approx(10.0, rel=1e-12 if clock == "rescaled" else 1e-5)
    assert run.t[-1] == pytest.approx((1e5 - 1e-5) / 5, rel=2e-3)


@pytest.mark.parametrize("clock", ["t", "rescaled"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_degree_seven_net(method, clock):
    """From 0.1 on to a fit, at loose tolerances: the trial steps of a z^2 cascade overshoot by orders of magnitude."""
    rng = np.random.default_rng(5)
    model = FeedForward((4, 3, 3, 1), "square")
    objective = Objective(model, rng.normal(size=(15, 4)), 1 + rng.normal(size=15), reduction="mean")
    w0 = np.abs(rng.normal(size=model.n_params))
    w0 *= 0.1 / np.linalg.norm(w0)
    for rtol in (1e-2, 1e-3, 1e-4):
        run = simulate(objective, w0, t_end=3e5, method=method, rtol=rtol, clock=clock, max_steps=200)
        assert run.status in (Status.END_TIME, Status.MAX_STEPS)
        assert np.isfinite(run.loss).all()
        assert run.loss[-1] <= run.loss[0]


@pytest.mark.parametrize("method", ADAPTIVE)
def test_decay_over_27_decades(method):
    """dy/dt = -y^7 to t = 1e20: the step grows tenfold each time and overshoots; the sign must survive."""
    for rtol in (1e-2, 1e-3, 1e-4):
        for y0, clock in ((0.1, "rescaled"), (0.1, "t"), (1.0, "t")):  # LSODA gets stuck from 1.0 and starts anew
            run = simulate(power_field(7, -1.0), np.array([y0]), t_end=1e20, method=method, rtol=rtol, clock=clock)
            assert run.status is Status.END_TIME
            exact = (y0**-6 + 6e20) ** (-1 / 6)
            assert abs(run.final[0] - exact) <= y0 * 20 * rtol  # relative to the start, as the tolerance is
            assert run.counts.accepted <= 1500


def wall(height: float) -> Ascent:
    """dy/dt = 1 that is not a number from y = height on: every step has to stop short of it."""
    return Ascent(
        lambda w: w.sum(-1),
        lambda w: np.where(w < height, 1.0, np.nan),
        lambda _: np.zeros((1, 1)),
        1,
        None,
        "a wall",
    )


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_wall_is_approached_and_reported(method):
    """Rejections shrink the step tenfold and restart from the last accepted state: y stays y0 + t throughout."""
    run = simulate(wall(1.0), np.array([0.25]), t_end=2.0, method=method, rtol=1e-6)
    assert run.status is Status.OVERFLOW
    assert run.counts.overflow_rejected >= 1
    np.testing.assert_allclose(run.w[:, 0], 0.25 + run.t, rtol=1e-12)
    assert run.final[0] == pytest.approx(1.0, abs=1e-3)
    assert run.counts.velocity <= 10_000


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("call", [2, 3, 4, 7, 12, 25])
def test_one_bad_evaluation_changes_nothing_but_the_count(method, call):
    """A single NaN at any call: one rejection, and the result is as accurate as ever.

    Catches a restart from a half-made step (LSODA works in the array it is given).
    """
    seen = 0

    def velocity(w):
        nonlocal seen
        seen += 1
        return w * np.nan if seen == call else -w

    field = Ascent(lambda w: -(w**2).sum(-1) / 2, velocity, lambda _: -np.eye(2), 2, None, "one bad call")
    w0 = np.array([1.0, 2.0])
    run = simulate(field, w0, t_end=4.0, method=method, rtol=1e-7)
    assert run.status is Status.END_TIME
    assert run.counts.overflow_rejected == 1
    np.testing.assert_allclose(run.w, np.exp(-run.t)[:, None] * w0, rtol=0, atol=3e-6)


@pytest.mark.parametrize("method", ["BDF", "Radau"])
def test_costs_add_up_over_a_rejection(method):
    """A rejection starts scipy's solver anew; what the first one spent is not forgotten."""

    def run(bad):
        seen = 0

        def velocity(w):
            nonlocal seen
            seen += 1
            return w * np.nan if seen == bad else -w

        field = Ascent(lambda w: -(w**2).sum(-1) / 2, velocity, lambda _: -np.eye(2), 2, None, "one bad call")
        return simulate(field, np.array([1.0, 2.0]), t_end=4.0, method=method, rtol=1e-7).counts

    clean = run(0)
    late = run(clean.velocity - 5)
    assert late.factorisations > clean.factorisations
    assert late.accepted >= clean.accepted
    assert late.velocity > clean.velocity


class Fast:
    """A clock with dt/ds = 1e300."""

    name, physical, block = "fast", False, None

    def rate(self, w):
        return 1e300 * np.ones(w.shape[:-1])

    def rate_of(self, part):
        return self.rate(part)

    def rate_gradient(self, w):
        return 0.0 * w


def test_physical_time_beyond_float64():
    field = constant_field(np.array([1e-300]))
    never = Event("never", lambda _: 1.0, 0, 1)
    run = simulate(field, np.ones(1), t_end=math.inf, method="RK45", clock=Fast(), events=[never])
    assert run.status is Status.OVERFLOW
    assert "physical time" in run.message
    assert np.isfinite(run.t).all()


def test_start_where_the_velocity_is_not_finite():
    for method in ADAPTIVE:
        run = simulate(wall(1.0), np.array([3.0]), t_end=1.0, method=method)
        assert run.status is Status.OVERFLOW
        assert len(run.t) == 1
        assert run.clock == "t"
        assert "|w| = 3" in run.message


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_fixed_step_divergence_stops_early(method):
    """A step far too large: OVERFLOW, soon after it happened and not at t_end, with the rows before it kept."""
    run = simulate(power_field(3), np.array([1.0]), t_end=1e6, method=method, step=0.5)
    assert run.status is Status.OVERFLOW
    assert "smaller step" in run.message
    assert run.counts.accepted <= 2000
    assert np.isfinite(run.w).all()


def test_newton_matrices_that_overflow_are_rejected():
    """Jacobian entries near the top of float64: scipy's LU refuses them with a ValueError."""
    run = simulate(power_field(6), np.array([1e40]), t_end=1.0, method="Radau", rtol=1e-3, clock="t")
    assert not run.ok


def test_other_value_errors_are_the_users_own():
    def velocity(_):
        raise ValueError("my own mistake")

    field = Ascent(lambda w: w.sum(-1), velocity, lambda _: np.zeros((1, 1)), 1, None, "broken")
    with pytest.raises(ValueError, match="my own mistake"):
        simulate(field, np.ones(1), t_end=1.0, method="Radau")


@pytest.mark.parametrize("method", ["BDF", "Radau", "LSODA"])
def test_a_flow_that_stands_still_ends_by_itself(method):
    """Dead inactive neurons at a fitted minimum: no event can come, and an unbounded run must not go on for ever."""
    X = np.array([[1.0, 0.0], [0.0, 1.0]])
    model = FeedForward((2, 2, 1), "relu", p=2)
    w = model.pack([np.array([[1.0, 1.0], [-1e-3, -1e-3]]), np.array([[1.1, 1e-3]])])
    objective = Objective(model, X, np.array([1.0, 1.0]))
    result = simulate(objective, w, t_end=np.inf, method=method, events=[norm_level(2.0, np.array([2, 3]))])
    assert result.status is Status.STANDSTILL, result.message
    assert result.counts.accepted < 2000
    assert "certify" in result.message
    assert not result.ok


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_a_slow_escape_is_no_standstill(method, size):
    """In the rescaled clock a potential of 1e-12 moves only after s = 1e11, from any size."""
    field = Ascent(
        lambda w: 1e-12 * w[..., 0] ** 3, lambda w: 3e-12 * w**2, lambda w: np.diag(6e-12 * w), 1, 3.0, "slow field"
    )
    result = simulate(field, np.array([size]), t_end=np.inf, method=method, events=[norm_level(2 * size)], rtol=1e-6)
    assert result.status is Status.EVENT, result.message
    assert result.t[-1] == pytest.approx(1 / (6e-12 * size), rel=1e-4)
