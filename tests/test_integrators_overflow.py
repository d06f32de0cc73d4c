"""Trial steps that are not finite: rejected with a shorter step, never raised, and the row's status explains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import power_field, toy
from integrator_tools import IN_A_BATCH, OWN_ADAPTIVE, make_own

from gfsim.flow.batch import simulate_batch
from gfsim.flow.events import norm_level, slow, stationarity
from gfsim.flow.field import Ascent
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective

BLOWN = (Status.OVERFLOW, Status.STEP_UNDERFLOW)


@pytest.mark.parametrize("clock", ["t", "rescaled"])
@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_blow_up_is_a_status(method, rtol, clock):
    """dy/dt = y^6 from several sizes, asked to go ten times beyond its blow-up."""
    for y0 in (1e-3, 0.1, 1.0, 1e3, 1e30):
        blow_up = y0**-5.0 / 5
        run = simulate(power_field(6), np.array([y0]), t_end=10 * blow_up, method=method, rtol=rtol, clock=clock)
        assert run.status in BLOWN
        assert run.t[-1] == pytest.approx(blow_up, rel=60 * rtol) or (clock == "t" and y0 > 1)
        assert run.t[-1] <= blow_up * (1 + 60 * rtol)
        assert np.isfinite(run.w).all()
        assert run.final[0] >= y0
        assert run.counts.velocity <= (20_000 if clock == "t" else 5000)


@pytest.mark.parametrize("clock", ["t", "rescaled"])
@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_degree_seven_net(method, clock):
    """A z^2 cascade at loose tolerances: its trial steps overshoot by orders of magnitude."""
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


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_decay_over_27_decades(method):
    """dy/dt = -y^7 to t = 1e20: the step grows by large factors and overshoots; the sign must survive."""
    for rtol in (1e-2, 1e-3, 1e-4):
        for y0, clock in ((0.1, "rescaled"), (0.1, "t"), (1.0, "t")):
            run = simulate(power_field(7, -1.0), np.array([y0]), t_end=1e20, method=method, rtol=rtol, clock=clock)
            assert run.status is Status.END_TIME
            exact = (y0**-6 + 6e20) ** (-1 / 6)
            assert abs(run.final[0] - exact) <= y0 * 20 * rtol
            assert run.counts.accepted <= 1500


def wall(height: float) -> Ascent:
    """dy/dt = 1, and not a number from y = height on."""
    return Ascent(
        lambda w: w.sum(-1),
        lambda w: np.where(w < height, 1.0, np.nan),
        lambda _: np.zeros((1, 1)),
        1,
        None,
        "a wall",
    )


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_a_wall_is_approached_and_reported(method):
    run = simulate(wall(1.0), np.array([0.25]), t_end=2.0, method=method, rtol=1e-6)
    assert run.status is Status.OVERFLOW
    assert run.counts.overflow_rejected >= 1
    np.testing.assert_allclose(run.w[:, 0], 0.25 + run.t, rtol=1e-12)
    assert run.final[0] == pytest.approx(1.0, abs=1e-3)
    assert run.counts.velocity <= 10_000


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_start_where_the_velocity_is_not_finite(method):
    run = simulate(wall(1.0), np.array([3.0]), t_end=1.0, method=method)
    assert run.status is Status.OVERFLOW
    assert len(run.t) == 1
    assert run.counts.velocity <= 5000


@pytest.mark.parametrize("method", IN_A_BATCH)
def test_start_where_one_row_is_not_finite(method):
    """The row is given up at once, the others never notice."""
    result = simulate_batch(wall(1.0), np.array([[0.25], [3.0], [0.5]]), t_end=0.25, method=method, rtol=1e-6)
    assert result.status == [Status.END_TIME, Status.OVERFLOW, Status.END_TIME]
    np.testing.assert_allclose(result.final[[0, 2], 0], [0.5, 0.75], rtol=1e-12)
    assert result[1].counts.velocity <= 5000


@pytest.mark.parametrize("method", OWN_ADAPTIVE)
@pytest.mark.parametrize("call", [2, 3, 4, 7, 12, 25])
def test_one_bad_evaluation_changes_nothing_but_the_count(method, call):
    """A single NaN at any call after the first: the result is as accurate as ever."""
    seen = 0

    def velocity(w):
        nonlocal seen
        seen += 1
        return np.full_like(w, np.nan) if seen == call else w - w**2

    field = Ascent(lambda w: (w**2 / 2 - w**3 / 3).sum(-1), velocity, lambda w: np.diag(1 - 2 * w), 1, None, "once")
    run = simulate(field, np.array([0.01]), t_end=9.0, method=method, rtol=1e-6)
    exact = 0.01 / (0.01 + 0.99 * math.exp(-9.0))
    assert run.ok, run.message
    assert run.final[0] == pytest.approx(exact, rel=1e-4 if method == "rkc" else 3e-5)
    assert run.counts.overflow_rejected <= 2


@pytest.mark.parametrize("rtol", [1e-3, 1e-12])
@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_start_at_a_critical_point(method, rtol):
    """Nothing moves at the saddle (2, 0) of the toy: the flow reaches its end time there."""
    run = simulate(toy(), np.array([2.0, 0.0]), t_end=10.0, method=method, rtol=rtol)
    assert run.status is Status.END_TIME, run.message
    np.testing.assert_allclose(run.final, [2.0, 0.0], rtol=1e-12)


@pytest.mark.parametrize("event", [stationarity(1e-6), slow(1e-9), norm_level(1e100)], ids=lambda e: e.name)
@pytest.mark.parametrize("method", OWN_ADAPTIVE)
def test_a_blow_up_under_an_event_that_asks_for_the_speed(method, event):
    """|dy/dt| is beyond float64 long before y is: an event's function must not turn that into an exception."""
    run = simulate(power_field(6), np.array([0.1]), t_end=1e6, method=method, rtol=1e-4, events=[event])
    assert run.status in BLOWN
    batch = simulate_batch(
        power_field(6), np.array([[0.1], [1e-4]]), t_end=1e6, method="ndf" if method == "auto" else method,
        rtol=1e-4, events=[event],
    )  # fmt: skip
    assert batch.status[0] in BLOWN
    assert batch.status[1] is Status.END_TIME


@pytest.mark.parametrize("name", ["bs3", "dp5", "dp8", "rkc", "ndf"])
def test_a_rejected_row_stays_where_it_is(name):
    """Contract 2 and 3: bit for bit the same clock and weights, with a shorter step, while its neighbour goes on."""
    w = np.array([[0.25], [0.999]])
    integrator = make_own(name, wall(1.0), w, h=np.array([1e-3, 1e-2]))
    with np.errstate(all="ignore"):
        for _ in range(3):
            s, here, h = integrator.s.copy(), integrator.w.copy(), integrator.h.copy()
            attempt = integrator.attempt()
            rejected = ~attempt.accepted
            np.testing.assert_array_equal(integrator.w[rejected], here[rejected])
            np.testing.assert_array_equal(integrator.s[rejected], s[rejected])
            np.testing.assert_array_equal(attempt.end[rejected], attempt.start[rejected])
            assert (integrator.h[rejected] < h[rejected]).all()
            assert attempt.accepted[0]
    assert integrator.counts["overflow_rejected"][1] >= 1
    assert integrator.counts["overflow_rejected"][0] == 0
    np.testing.assert_array_equal(integrator.counts["accepted"] + integrator.counts["rejected"], [3, 3])
