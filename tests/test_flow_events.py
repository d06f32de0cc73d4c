"""Events: which crossings count, where they are, and what the trajectory is after them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import (
    ADAPTIVE,
    constant_field,
    linear_field,
    logistic_field,
    power_field,
    rotation,
    toy,
    toy_flow,
    toy_start,
)

from gfsim.errors import InvalidInput, UnknownName
from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import Event, arrival, departure, loss_level, norm_level, slow, stationarity
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate

CLIMB = constant_field(np.array([1.0]))  # y = t: with Euler and a binary step all arithmetic is exact


def level(name, at, direction=0, terminal=0, **more):
    return Event(name, lambda p: float(p.w[0] - at), direction, terminal, **more)


def climb(events, *, t_end=1.0, step=0.25, start=1e-300, **options):
    return simulate(CLIMB, np.array([start]), t_end=t_end, method="euler", step=step, events=events, **options)


# -- where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["t", RescaledTime(2.0)], ids=["t", "rescaled"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_times_and_places_of_roots(method, clock):
    """Zeros of cos t and sin t along a rotation: exact times, both directions, in either clock (|w| = 1, or 2)."""
    rtol = 1e-8 if method in ("RK23", "BDF") else 1e-10
    size = 1.0 if clock == "t" else 2.0
    events = [
        level("x", 0.0),
        Event("y falls", lambda p: float(p.w[1]), -1),
        Event("y rises", lambda p: float(p.w[1]), 1),
    ]
    run = simulate(rotation(), np.array([size, 0.0]), t_end=10.0, method=method, rtol=rtol, clock=clock, events=events)
    exact = {
        "x": [math.pi / 2, 1.5 * math.pi, 2.5 * math.pi],  # y = -sin t starts at zero: that is no crossing
        "y falls": [2 * math.pi],
        "y rises": [math.pi, 3 * math.pi],
    }
    accuracy = 3e-6 if rtol == 1e-8 else 1e-8
    for name, times in exact.items():
        found = [e for e in run.events if e.name == name]
        np.testing.assert_allclose([e.t for e in found], times, rtol=0, atol=accuracy)
        for e in found:
            np.testing.assert_allclose(e.w, size * np.array([math.cos(e.t), -math.sin(e.t)]), atol=3 * accuracy)
            if clock != "t":
                assert e.s == pytest.approx(e.t * size**2, rel=1e-6)
    assert [e.t for e in run.events] == sorted(e.t for e in run.events)
    assert run.counts.event_probes <= 2 * run.counts.accepted + 1 + 12 * len(run.events)


@pytest.mark.parametrize("method", ["RK45", "DOP853", "Radau", "LSODA"])
def test_levels_on_the_toy_against_its_closed_form(method):
    """Loss, norm, block norm and saddle events at delta = 1e-6, in a rescaled clock, to 1e-7 of exact roots."""
    from scipy.optimize import brentq

    delta, saddle = 1e-6, np.array([2.0, 0.0])
    radius, goal = 1e-2, 0.3
    w = lambda t: toy_flow(t, delta)  # noqa: E731
    exact = {
        "loss": brentq(lambda t: ((w(t) ** 2 - [4, 1]) ** 2).sum() - 5.0, 0.3, 1.2, xtol=1e-14),
        "|w| >": brentq(lambda t: np.linalg.norm(w(t)) - 1e-3, 0, 1, xtol=1e-14),
        "|w_z|": brentq(lambda t: w(t)[1] - goal, 1, 5, xtol=1e-14),
        "arrival": brentq(lambda t: np.linalg.norm(w(t) - saddle) - radius, 0.5, 1.5, xtol=1e-14),
        "exit": brentq(lambda t: np.linalg.norm(w(t) - saddle) - radius, 2, 5, xtol=1e-14),
    }
    run = simulate(
        toy(),
        toy_start(delta),
        t_end=5.0,
        method=method,
        rtol=1e-10,
        clock=RescaledTime(1.0),
        events=[
            loss_level(5.0, terminal=0),
            norm_level(1e-3, terminal=0),
            norm_level(goal, np.array([1]), name="|w_z|", terminal=0),
            arrival(saddle, radius, terminal=0),
            departure(saddle, radius, terminal=0),
        ],
    )
    assert run.status is Status.END_TIME
    assert len(run.events) == 5
    for name, t in exact.items():
        assert run.event(name).t == pytest.approx(t, abs=1e-7)
    assert run.time_between(run.event("arrival").row, run.event("exit").row) == pytest.approx(
        exact["exit"] - exact["arrival"], abs=1e-7
    )


def test_an_event_row_is_its_place_in_the_trajectory():
    run = simulate(rotation(), np.array([1.0, 0.0]), t_end=7.0, events=[level("x", 0.0), level("end", 0.5, 1, 2)])
    assert run.status is Status.END_TIME or run.events[-1].name == "end"
    for e in run.events:
        assert run.t[e.row] == e.t
        assert run.s[e.row] == e.s
        np.testing.assert_array_equal(run.w[e.row], e.w)
    assert (np.diff(run.t) > 0).all()
    np.testing.assert_allclose(np.cumsum(run.dt), run.t[1:], rtol=1e-12)


# -- which: exact arithmetic, the loop without numerics ----------------------------------------------


def test_crossing_exactly_at_a_step_end_counts_once():
    run = climb([level("half", 0.5)])
    assert [(e.name, e.t) for e in run.events] == [("half", 0.5)]


def test_crossing_exactly_at_the_end_time():
    run = climb([level("end", 1.0)])
    assert [e.t for e in run.events] == [1.0]
    assert run.status is Status.END_TIME
    stopped = climb([level("end", 1.0, terminal=1)])
    assert stopped.status is Status.EVENT
    assert stopped.t[-1] == 1.0


def test_an_end_time_inside_a_step_hides_what_comes_after_it():
    run = climb([level("before", 0.6), level("after", 0.7)], t_end=0.625, step=0.5)
    assert [e.name for e in run.events] == ["before"]
    assert run.t[-1] == 0.625
    assert run.final[0] == 0.625


@pytest.mark.parametrize("method", ["RK45", "Radau", "LSODA"])
def test_an_end_time_inside_a_step_of_the_rescaled_clock(method):
    """dy/dt = -y^3, y = (1 + 2 t)^(-1/2): the clock's step goes past t_end, events there must not."""
    field = power_field(3, -1.0)
    cross = lambda t: Event(f"t = {t}", lambda p, y=(1 + 2 * t) ** -0.5: float(p.w[0] - y))  # noqa: E731
    run = simulate(
        field,
        np.ones(1),
        t_end=0.7,
        method=method,
        rtol=1e-9,
        clock="rescaled",
        events=[cross(0.69999), cross(0.70001)],
    )
    assert [e.name for e in run.events] == ["t = 0.69999"]
    assert run.t[-1] == 0.7
    assert run.final[0] == pytest.approx(2.4**-0.5, rel=1e-8)


def test_two_crossings_inside_one_step():
    bump = Event("bump", lambda p: float((p.w[0] - 0.3) * (p.w[0] - 0.7)))
    run = climb([bump], step=1.0)
    np.testing.assert_allclose([e.t for e in run.events], [0.3, 0.7], rtol=1e-13)
    up = climb([Event("up", bump.function, 1)], step=1.0)
    np.testing.assert_allclose([e.t for e in up.events], [0.7], rtol=1e-13)
    down = climb([Event("down", bump.function, -1)], step=1.0)
    np.testing.assert_allclose([e.t for e in down.events], [0.3], rtol=1e-13)


def test_nothing_is_recorded_after_the_terminal_event_of_the_same_step():
    run = climb([level("late", 0.8), level("stop", 0.6, terminal=1), level("early", 0.2)], step=1.0)
    assert [e.name for e in run.events] == ["early", "stop"]
    assert run.status is Status.EVENT
    assert "stop" in run.message
    assert run.t[-1] == pytest.approx(0.6, rel=1e-14)
    assert run.final[0] == pytest.approx(0.6, rel=1e-14)
    assert run.events[-1].row == len(run.t) - 1


def test_of_simultaneous_events_the_first_listed_one_stops():
    run = climb([level("a", 0.5), level("b", 0.5, terminal=1), level("c", 0.5)])
    assert [(e.name, e.t) for e in run.events] == [("a", 0.5), ("b", 0.5)]
    assert run.message.endswith("event b")


@pytest.mark.parametrize("terminal", [1, 2, 3])
def test_terminal_counts_crossings(terminal):
    run = simulate(rotation(), np.array([1.0, 0.0]), t_end=50.0, rtol=1e-9, events=[level("x", 0.0, 0, terminal)])
    assert len(run.events) == terminal
    assert run.t[-1] == pytest.approx((terminal - 0.5) * math.pi, abs=1e-6)


def test_an_event_that_starts_at_zero_has_not_happened():
    run = climb([level("start", 0.25, terminal=1)], start=0.25)
    assert not run.events
    assert run.status is Status.END_TIME
    # but it can happen later: the circle comes back to its start
    back = simulate(rotation(), np.array([0.0, 1.0]), t_end=4.0, rtol=1e-10, events=[level("x", 0.0)])
    np.testing.assert_allclose([e.t for e in back.events], [math.pi], atol=1e-8)


@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_direction(direction):
    run = climb([level("up", 0.4, direction)])
    assert len(run.events) == (direction >= 0)


def test_waiting_for_another_event():
    events = [level("gate", 0.5), level("b", 0.3, after="gate"), level("c", 0.7, after="gate")]
    assert [e.name for e in climb(events, step=1.0).events] == ["gate", "c"]
    with pytest.raises(UnknownName, match="gate"):
        climb([level("b", 0.3, after="gate")])
    with pytest.raises(InvalidInput, match="distinct"):
        climb([level("b", 0.3), level("b", 0.4)])


# -- kinds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["RK45", "LSODA", "Radau"])
def test_stationarity_arms_only_after_its_peak(method):
    """Near the origin |grad L| is 1e-6 of its later peak from the start on: the flow must not stop there."""
    run = simulate(toy(), toy_start(1e-7), t_end=math.inf, method=method, rtol=1e-9, events=[stationarity(1e-4)])
    assert run.status is Status.EVENT
    assert run.t[-1] > math.log(1e7 * math.sqrt(8)) / 16
    np.testing.assert_allclose(run.final, [2.0, 0.0], atol=1e-3)  # the saddle is where it first becomes stationary
    # the exact peak of |dw_1/dt| = 4 w (4 - w^2) is at w = 2/sqrt 3; it is sampled at step ends and middles only
    peak = 4 * (2 / math.sqrt(3)) * (8 / 3)
    assert run.speed[-1] == pytest.approx(1e-4 * peak, rel=1e-2)


def test_slow_is_absolute():
    run = simulate(toy(), toy_start(0.5), t_end=math.inf, rtol=1e-9, events=[slow(1e-5)])
    assert run.speed[-1] == pytest.approx(1e-5, rel=1e-6)
    np.testing.assert_allclose(run.final, [2.0, 1.0], atol=1e-5)


def test_a_block_that_starts_at_zero_has_a_norm_event():
    run = simulate(
        linear_field(np.array([[0.0, 1.0], [1.0, 0.0]])),
        np.array([1.0, 0.0]),
        t_end=5.0,
        rtol=1e-10,
        events=[norm_level(1.0, np.array([1]))],
    )
    assert run.t[-1] == pytest.approx(math.asinh(1.0), abs=1e-8)


# -- with fixed steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "accuracy"), [("euler", 2e-3), ("heun", 2e-6), ("rk4", 1e-8)])
def test_events_of_fixed_step_methods(method, accuracy):
    y0, half = 0.01, math.log(99.0)
    run = simulate(
        logistic_field(),
        np.array([y0]),
        t_end=math.inf,
        method=method,
        step=1e-2 if method == "rk4" else 1e-3,
        events=[level("quarter", 0.25), level("half", 0.5, terminal=1)],
    )
    assert run.status is Status.EVENT
    assert run.t[-1] == pytest.approx(half, abs=accuracy * half)
    assert run.event("quarter").t == pytest.approx(math.log(99.0 / 3), abs=accuracy * half)
    assert run.final[0] == pytest.approx(0.5, abs=1e-12)


def test_an_event_beyond_float64_is_still_an_event():
    """log 0 = -inf has a sign; NaN has none and is the function's mistake."""
    edge = Event("edge", lambda p: -math.inf if p.w[0] < 0.4 else 1.0)
    assert [e.t for e in climb([edge]).events] == pytest.approx([0.4])
    with pytest.raises(InvalidInput, match="'bad' is NaN"):
        climb([Event("bad", lambda p: math.nan if p.w[0] > 0.3 else 1.0)])


@pytest.mark.parametrize("make", [lambda: Event("e", lambda _: 0.0, 2), lambda: Event("e", lambda _: 0.0, 0, -1)])
def test_bad_events(make):
    with pytest.raises(InvalidInput, match="direction is -1, 0 or 1"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: norm_level(0.0),
        lambda: arrival([1.0, 2.0], -1.0),
        lambda: departure([math.nan, 2.0], 1.0),
        lambda: stationarity(0.0),
        lambda: slow(math.inf),
        lambda: loss_level(math.nan),
    ],
)
def test_bad_levels(make):
    with pytest.raises(InvalidInput):
        make()
