"""Events on our own integrators, in a single flow and in a batch: which crossings count, and exactly where."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import constant_field, rotation, toy, toy_flow, toy_start
from integrator_tools import IN_A_BATCH, OWN_ADAPTIVE
from scipy.optimize import brentq

from gfsim.errors import InvalidInput, UnknownName
from gfsim.flow.batch import simulate_batch
from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import Event, arrival, departure, loss_level, norm_level, stationarity
from gfsim.flow.field import Ascent
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate

CLIMB = constant_field(np.array([1.0]))  # y = t: with Euler and a binary step all arithmetic is exact


def level(name, at, direction=0, terminal=0, **more):
    return Event(name, lambda p: p.w[..., 0] - at, direction, terminal, **more)


def one(problem, w0, *, method, **options):
    return simulate(problem, w0, method=method, **options)


def in_company(problem, w0, *, method, **options):
    """The row between two others that start elsewhere."""
    batch = simulate_batch(problem, np.stack([0.9 * w0, w0, 1.1 * w0]), method=method, record="steps", **options)
    return batch[1]


DRIVERS = {"single": one, "batch": in_company}


def cases(methods):
    return [pytest.param(DRIVERS[d], m, id=f"{d}-{m}") for d in DRIVERS for m in methods if (d, m) != ("batch", "auto")]


def climb(run, events, *, t_end=1.0, step=0.25, start=1e-300, **options):
    return run(CLIMB, np.array([start]), t_end=t_end, method="euler", step=step, events=events, **options)


exact = pytest.mark.parametrize("run", DRIVERS.values(), ids=DRIVERS)


# -- where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["t", RescaledTime(2.0)], ids=["t", "rescaled"])
@pytest.mark.parametrize(("run", "method"), cases(OWN_ADAPTIVE))
def test_times_and_places_of_roots(run, method, clock):
    """Zeros of cos t and sin t along a rotation, with their directions; the Jacobian is not even symmetric here."""
    rtol = {"rkc": 1e-8, "ndf": 1e-8}.get(method, 1e-10)
    size = 1.0 if clock == "t" else 2.0
    events = [level("x", 0.0), Event("falls", lambda p: p.w[..., 1], -1), Event("rises", lambda p: p.w[..., 1], 1)]
    got = run(
        rotation(), np.array([size, 0.0]), t_end=7.0, method=method, rtol=rtol, clock=clock, events=events,
    )  # fmt: skip
    expected = {"x": [0.5, 1.5], "falls": [2.0], "rises": [1.0]}
    close = {"rkc": 3e-5, "ndf": 3e-6}.get(method, 1e-8)
    assert got.ok
    for name, times in expected.items():
        found = [e for e in got.events if e.name == name]
        np.testing.assert_allclose([e.t for e in found], math.pi * np.array(times), rtol=0, atol=close)
        for e in found:
            np.testing.assert_allclose(e.w, size * np.array([math.cos(e.t), -math.sin(e.t)]), atol=3 * close)
    assert [e.t for e in got.events] == sorted(e.t for e in got.events)


@pytest.mark.parametrize(("run", "method"), cases(["dp5", "dp8", "ndf", "auto"]))
def test_levels_on_the_toy(run, method):
    """Loss, norm, block and saddle events in a rescaled clock, against the roots of the closed form."""
    delta, saddle, radius, goal = 1e-5, np.array([2.0, 0.0]), 1e-2, 0.3
    w = lambda t: toy_flow(t, delta)  # noqa: E731
    expected = {
        "loss": brentq(lambda t: ((w(t) ** 2 - [4, 1]) ** 2).sum() - 5.0, 0.3, 1.2, xtol=1e-14),
        "|w| >": brentq(lambda t: np.linalg.norm(w(t)) - 1e-3, 0, 1, xtol=1e-14),
        "|w_z|": brentq(lambda t: w(t)[1] - goal, 1, 4, xtol=1e-14),
        "arrival": brentq(lambda t: np.linalg.norm(w(t) - saddle) - radius, 0.4, 1.2, xtol=1e-14),
        "exit": brentq(lambda t: np.linalg.norm(w(t) - saddle) - radius, 1.6, 4, xtol=1e-14),
    }
    events = [
        loss_level(5.0, terminal=0),
        norm_level(1e-3, terminal=0),
        norm_level(goal, np.array([1]), name="|w_z|", terminal=0),
        arrival(saddle, radius, terminal=0),
        departure(saddle, radius, terminal=0),
    ]
    got = run(toy(), toy_start(delta), t_end=4.0, method=method, rtol=1e-9, clock=RescaledTime(1.0), events=events)
    assert got.status is Status.END_TIME
    assert len(got.events) == 5
    for name, t in expected.items():
        assert got.event(name).t == pytest.approx(t, abs=3e-7 if method in ("ndf", "auto", "dp8") else 2e-8)


@pytest.mark.parametrize(("run", "method"), cases(OWN_ADAPTIVE))
def test_a_terminal_event_is_the_end(run, method):
    """State, time, row and counts belong to the event, not to the step that found it."""
    got = run(
        toy(), toy_start(1e-3), t_end=math.inf, method=method, rtol=1e-6, events=[norm_level(1.0, name="|w|")],
    )  # fmt: skip
    assert got.status is Status.EVENT
    assert "|w|" in got.message
    assert np.linalg.norm(got.final) == pytest.approx(1.0, rel=1e-12)
    assert got.events[-1].row == len(got.t) - 1
    np.testing.assert_array_equal(got.events[-1].w, got.final)
    assert got.events[-1].t == got.t[-1]
    assert math.fsum(got.dt) == pytest.approx(got.t[-1], rel=1e-12)


# -- which: exact arithmetic ---------------------------------------------------------------------------------


@exact
def test_crossing_at_a_step_end_counts_once(run):
    assert [(e.name, e.t) for e in climb(run, [level("half", 0.5)]).events] == [("half", 0.5)]


@exact
def test_crossing_at_the_end_time(run):
    got = climb(run, [level("end", 1.0)])
    assert [e.t for e in got.events] == [1.0]
    assert got.status is Status.END_TIME
    stopped = climb(run, [level("end", 1.0, terminal=1)])
    assert stopped.status is Status.EVENT
    assert stopped.t[-1] == 1.0


@exact
def test_an_end_time_inside_a_step_hides_what_comes_after(run):
    got = climb(run, [level("before", 0.6), level("after", 0.7)], t_end=0.625, step=0.5)
    assert [e.name for e in got.events] == ["before"]
    assert (got.t[-1], got.final[0]) == (0.625, 0.625)


@exact
def test_two_crossings_inside_one_step(run):
    def function(p):
        return (p.w[..., 0] - 0.3) * (p.w[..., 0] - 0.7)

    for direction, times in ((0, [0.3, 0.7]), (1, [0.7]), (-1, [0.3])):
        got = climb(run, [Event("bump", function, direction)], step=1.0)
        np.testing.assert_allclose([e.t for e in got.events], times, rtol=1e-13)
    stopped = climb(run, [Event("bump", function, 0, 2)], step=1.0)
    assert stopped.status is Status.EVENT
    assert stopped.t[-1] == pytest.approx(0.7, rel=1e-13)


@exact
def test_a_monotone_function_is_not_asked_inside_a_step_where_it_does_not_cross(run):
    asked = []

    def seen(at):
        def gap(p):
            asked.extend(np.ravel(p.w).tolist())
            return p.w[..., 0] - at

        return gap

    steps = 0.25 * np.arange(5)
    for others in ([], [level("any", 2.0)]):
        asked.clear()
        got = climb(run, [Event("late", seen(2.0), 1, monotone=True), *others])
        assert not got.events
        offsets = {round(y % 0.25, 9) for y in asked}
        assert 0.125 not in offsets
        assert len(asked) % len(steps) == 0
    asked.clear()
    got = climb(run, [Event("met", seen(0.6), 1, monotone=True), level("any", 0.7)])
    np.testing.assert_allclose([e.t for e in got.events], [0.6, 0.7], rtol=1e-13)


@exact
def test_nothing_after_the_terminal_event_of_the_same_step(run):
    got = climb(run, [level("late", 0.8), level("stop", 0.6, terminal=1), level("early", 0.2)], step=1.0)
    assert [e.name for e in got.events] == ["early", "stop"]
    assert got.status is Status.EVENT
    assert got.t[-1] == pytest.approx(0.6, rel=1e-14)
    assert got.final[0] == pytest.approx(0.6, rel=1e-14)


@exact
def test_of_simultaneous_events_the_first_listed_one_stops(run):
    got = climb(run, [level("a", 0.5), level("b", 0.5, terminal=1), level("c", 0.5)])
    assert [(e.name, e.t) for e in got.events] == [("a", 0.5), ("b", 0.5)]
    assert "event b" in got.message


@pytest.mark.parametrize("terminal", [1, 2, 3])
@pytest.mark.parametrize(("run", "method"), cases(OWN_ADAPTIVE))
def test_terminal_counts_crossings(run, method, terminal):
    got = run(
        rotation(), np.array([1.0, 0.0]), t_end=50.0, method=method, rtol=1e-7, events=[level("x", 0, 0, terminal)]
    )
    assert len(got.events) == terminal
    assert got.t[-1] == pytest.approx((terminal - 0.5) * math.pi, abs=1e-3)


@exact
def test_an_event_that_starts_at_zero_has_not_happened(run):
    got = climb(run, [level("start", 0.25, terminal=1)], start=0.25)
    assert not got.events
    assert got.status is Status.END_TIME


@exact
@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_direction(run, direction):
    assert len(climb(run, [level("up", 0.4, direction)]).events) == (direction >= 0)


@exact
def test_waiting_for_another_event(run):
    events = [level("gate", 0.5), level("b", 0.3, after="gate"), level("c", 0.7, after="gate")]
    assert [e.name for e in climb(run, events, step=1.0).events] == ["gate", "c"]
    with pytest.raises(UnknownName, match="gate"):
        climb(run, [level("b", 0.3, after="gate")])
    with pytest.raises(InvalidInput, match="distinct"):
        climb(run, [level("b", 0.3), level("b", 0.4)])


# -- rejected steps ----------------------------------------------------------------------------------------


def cliff() -> Ascent:
    """dy/dt = 1 up to y = 1, then a slope that drops to 1e-3 within 1e-3: steps across it are rejected."""

    def gradient(w):
        return 1.0 - 0.999 * 0.5 * (1 + np.tanh((w - 1.0) / 2e-4))

    def hessian(w):
        return np.diag(-0.999 * 0.5 / 2e-4 / np.cosh(np.clip((w - 1.0) / 2e-4, -300, 300)) ** 2)

    return Ascent(lambda w: w.sum(-1), gradient, hessian, 1, None, "cliff")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("method", IN_A_BATCH)
def test_rejected_steps_make_no_events(method, driver):
    """Trial steps reach far beyond y = 1.5, which the flow does not reach before t = 500: no crossing of it."""
    events = [level("here", 0.9), level("beyond", 1.5)]
    if driver == "single":
        got = simulate(cliff(), np.array([0.2]), t_end=3.0, method=method, rtol=1e-5, events=events)
    else:
        got = simulate_batch(
            cliff(), np.array([[0.2], [0.1]]), t_end=3.0, method=method, rtol=1e-5, events=events
        )[0]  # fmt: skip
    assert got.ok
    assert got.counts.rejected >= 1
    assert [e.name for e in got.events] == ["here"]
    assert got.events[0].t == pytest.approx(0.7, abs=1e-4)


# -- rows of a batch have their own ------------------------------------------------------------------------


@pytest.mark.parametrize("method", IN_A_BATCH)
def test_every_row_meets_its_own_event(method):
    """Different times, one row never: hits, gates and peaks are not shared between rows."""
    deltas = np.array([1e-1, 1e-3, 1e-5, 1e-3])
    w0 = np.stack([toy_start(d) for d in deltas])
    w0[3, 1] *= -1  # the mirror image: w2 falls to -1 and never rises through 0.3
    events = [
        norm_level(0.5, np.array([0]), name="first", terminal=0),
        Event("second", lambda p: p.w[..., 1] - 0.3, 1, 1, after=f"first >= {0.5:.4g}"),
    ]
    result = simulate_batch(toy(), w0, t_end=4.0, method=method, rtol=1e-6, events=events)
    assert result.status == [Status.EVENT] * 3 + [Status.END_TIME]
    assert [len(r.events) for r in result] == [2, 2, 2, 1]
    for k, delta in enumerate(deltas[:3]):
        t = brentq(lambda t, d=delta: toy_flow(t, d)[1] - 0.3, 0, 5, xtol=1e-13)
        assert result.t[k] == pytest.approx(t, abs=2e-3 if method == "rkc" else 2e-4)


@pytest.mark.parametrize("method", ["ndf", "dp5"])
def test_the_peak_speed_of_a_row_is_its_own(method):
    """Stationarity is relative to a row's own past: a fast neighbour must not make a slow row stationary."""
    w0 = np.array([[1e-4, 1e-4], [5.0, 5.0]])
    event = stationarity(1e-3)
    result = simulate_batch(toy(), w0, t_end=math.inf, method=method, rtol=1e-6, clock="t", events=[event])
    assert result.status == [Status.EVENT] * 2
    for k in range(2):
        alone = simulate(toy(), w0[k], t_end=math.inf, method=method, rtol=1e-6, clock="t", events=[event])
        assert result.t[k] == pytest.approx(alone.t[-1], rel=1e-6)


def test_event_functions_of_a_batch_are_checked():
    with pytest.raises(InvalidInput, match="leading axis"):
        simulate_batch(toy(), np.ones((2, 2)), t_end=1.0, events=[Event("bad", lambda p: float(p.w.sum()))])
    with pytest.raises(InvalidInput, match="NaN at the start of row 1"):
        simulate_batch(
            toy(), np.array([[1.0, 1.0], [-1.0, 1.0]]), t_end=1.0,
            events=[Event("bad", lambda p: np.where(p.w[..., 0] > 0, 1.0, np.nan))],
        )  # fmt: skip


def test_an_event_that_becomes_nan_ends_its_row_only():
    w0 = np.array([[0.1, 0.02], [0.1, -0.02], [0.1, 0.01]])
    events = [Event("odd", lambda p: np.where((p.w[..., 1] < -0.1) & (p.w[..., 0] > 0), np.nan, 1.0))]
    result = simulate_batch(toy(), w0, t_end=4.0, rtol=1e-6, events=events)
    alone = simulate_batch(toy(), w0[[0, 2]], t_end=4.0, rtol=1e-6)
    assert result.status == [Status.END_TIME, Status.EVENT_UNDEFINED, Status.END_TIME]
    assert "odd" in result[1].message
    assert "odd" in result.summary()
    assert result[1].final[1] < -0.1  # the state at which it was noticed is kept
    assert 0 < result.t[1] < 4.0
    np.testing.assert_allclose(result.final[[0, 2]], alone.final, rtol=1e-9)
