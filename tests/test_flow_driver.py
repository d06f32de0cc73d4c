"""The driver: interruptions, budgets, arguments, progress, and the result object."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flow_fields import ADAPTIVE, constant_field, logistic, logistic_field, power_field, rotation, toy, toy_start

from gfsim.errors import GfsimError, InvalidInput, UnknownName
from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import Event, norm_level
from gfsim.flow.field import Ascent
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate

START = np.array([0.01])
FIXED = ("euler", "heun", "rk4")


def interrupted(at, where="velocity"):
    """The logistic flow, with Ctrl-C at the ``at``-th call of its velocity or potential."""
    base, seen = logistic_field(), 0

    def count(function):
        def wrapped(w):
            nonlocal seen
            seen += 1
            if seen == at:
                raise KeyboardInterrupt
            return function(w)

        return wrapped

    return Ascent(
        count(base.value) if where == "potential" else base.value,
        count(base.gradient) if where == "velocity" else base.gradient,
        base.hessian,
        1,
        None,
        "interrupted",
    )


# -- interruption ------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["t", RescaledTime(1.0)], ids=["t", "rescaled"])
@pytest.mark.parametrize("call", [1, 2, 3, 10, 57])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_ctrl_c_keeps_the_trajectory(method, call, clock):
    """Every kept row is on the flow, and rows, times and increments fit together."""
    run = simulate(interrupted(call), START, t_end=50.0, method=method, rtol=1e-7, clock=clock)
    assert run.status is Status.INTERRUPTED
    assert not run.ok
    assert "kept" in run.message
    assert len(run.t) == len(run.w) == len(run.s) == len(run.dt) + 1
    np.testing.assert_allclose(run.w[:, 0], logistic(START[0], run.t), rtol=2e-5)
    assert run.counts.velocity >= call - 1
    if call == 57:
        assert run.t[-1] > 0


@pytest.mark.parametrize("method", FIXED)
def test_ctrl_c_with_fixed_steps(method):
    """At most the last thousand steps are lost, although one output was asked for only at the end."""
    run = simulate(interrupted(9000), START, t_end=9.0, method=method, step=1e-3, t_eval=[9.0])
    assert run.status is Status.INTERRUPTED
    stages = {"euler": 1, "heun": 2, "rk4": 4}[method]
    assert 9000 / stages - 1001 <= run.counts.accepted <= 9000 / stages
    assert run.t[-1] == pytest.approx(1e-3 * run.counts.accepted)
    np.testing.assert_allclose(run.w[:, 0], logistic(START[0], run.t), rtol=3e-3)


@pytest.mark.parametrize("outputs", [None, np.linspace(0, 50, 11)])
@pytest.mark.parametrize("call", [1, 2, 7, 12, 30])
def test_ctrl_c_inside_an_event_function(call, outputs):
    """The integrator is already one step ahead then: state and time of that step must not be mixed."""
    watch = Event("watch", lambda p: p.potential - 0.1)
    run = simulate(
        interrupted(call, "potential"), START, t_end=50.0, method="RK45", rtol=1e-8, events=[watch], t_eval=outputs
    )
    assert run.status is Status.INTERRUPTED
    np.testing.assert_allclose(run.w[:, 0], logistic(START[0], run.t), rtol=1e-5)
    np.testing.assert_allclose(np.cumsum(run.dt), run.t[1:], rtol=1e-12)


# -- budgets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [None, [0.001, 40.0]])
@pytest.mark.parametrize("clock", ["t", RescaledTime(1.0)], ids=["t", "rescaled"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_step_budget(method, clock, outputs):
    """The last row is where the integration stopped, also when outputs lie far ahead."""
    run = simulate(
        logistic_field(), START, t_end=50.0, method=method, rtol=1e-6, clock=clock, max_steps=7, t_eval=outputs
    )
    assert run.status is Status.MAX_STEPS
    assert run.counts.accepted == 7
    assert "max_steps" in run.message
    assert "7 steps" in run.message
    assert run.t[-1] > 0.001
    assert run.final[0] == pytest.approx(logistic(START[0], run.t[-1]), rel=1e-4)
    assert math.fsum(run.dt) == pytest.approx(run.t[-1], rel=1e-12)


# -- arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "near"), [("rk45", "RK45"), ("Lsoda", "LSODA"), ("Eulr", "euler"), ("BDF2", "BDF")])
def test_unknown_method_names_the_nearest(given, near):
    with pytest.raises(UnknownName, match=f"unknown method '{given}'. Did you mean '{near}'.*Known: .*RK45"):
        simulate(toy(), toy_start(0.1), t_end=1.0, method=given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"w0": np.zeros(2)}, "zero vector"),
        ({"w0": np.ones(3)}, "w0 has 3 weights"),
        ({"w0": np.ones((1, 2))}, "dimension"),
        ({"w0": np.array([1.0, math.nan])}, "w0 holds nan at index"),
        ({"t_end": 0.0}, "t_end = 0.0"),
        ({"t_end": -1}, "t_end = -1"),
        ({"t_end": math.nan}, "t_end = nan"),
        ({"t_end": "soon"}, "t_end = 'soon'"),
        ({"t_end": math.inf}, "no terminal event"),
        ({"t_end": math.inf, "events": [norm_level(2.0, terminal=0)]}, "no terminal event"),
        ({"t_eval": [0.5, 0.5]}, "increase strictly"),
        ({"t_eval": [0.5, 0.2]}, "increase strictly"),
        ({"t_eval": [-0.1, 0.2]}, "within"),
        ({"t_eval": [0.5, 1.5]}, "within"),
        ({"t_eval": []}, "empty"),
        ({"t_eval": [0.1, math.nan]}, "t_eval holds nan"),
        ({"rtol": 0.0}, "rtol"),
        ({"rtol": 1e-15}, "below what float64 can resolve"),
        ({"rtol": math.nan}, "rtol"),
        ({"atol": -1.0}, "atol"),
        ({"atol": [1e-6, 1e-6, 1e-6]}, "atol has shape"),
        ({"blocks": [np.array([0, 1]), np.array([1])]}, "disjoint"),
        ({"blocks": [np.array([5])]}, "disjoint"),
        ({"max_steps": 0}, "max_steps = 0"),
    ],
)
def test_bad_arguments(options, words):
    defaults = {"w0": toy_start(0.1), "t_end": 1.0}
    given = {**defaults, **options}
    with pytest.raises(InvalidInput, match=words):
        simulate(toy(), given.pop("w0"), **given)


def test_numpy_scalars_are_times_too():
    for t_end in (np.int64(1), np.float32(1.0), 1):
        assert simulate(toy(), toy_start(0.1), t_end=t_end).t[-1] == 1.0


def test_the_start_is_not_touched():
    for method in ADAPTIVE:
        w0 = toy_start(0.1)
        kept = w0.copy()
        run = simulate(toy(), w0, t_end=1.0, method=method)
        np.testing.assert_array_equal(w0, kept)
        np.testing.assert_array_equal(run.w[0], kept)


# -- progress ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"method": "RK45"}, {"method": "euler", "step": 1e-3}])
def test_progress_goes_to_standard_error_only(capsys, options):
    simulate(rotation(), np.array([1.0, 0.0]), t_end=20.0, progress=True, **options)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "flow" in shown.err
    simulate(rotation(), np.array([1.0, 0.0]), t_end=20.0, **options)
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


# -- the result ------------------------------------------------------------------------------------------


def test_result_views():
    run = simulate(
        logistic_field(), START, t_end=6.0, method="DOP853", rtol=1e-10, events=[norm_level(0.5, terminal=0)]
    )
    assert run.status.ok
    assert run.ok
    assert run.status.explanation == "the end time was reached."
    np.testing.assert_array_equal(run.final, run.w[-1])
    np.testing.assert_allclose(run.speed, run.w[:, 0] - run.w[:, 0] ** 2, rtol=1e-12)
    assert run.loss is run.potential
    for word in ("DOP853", "end_time", "logistic", "event |w| >= 0.5", "velocities"):
        assert word in run.summary()
    assert run.event("|w|").t == pytest.approx(math.log(99), rel=1e-8)
    with pytest.raises(UnknownName, match="loss"):
        run.event("loss")
    with pytest.raises(UnknownName, match="happened 1 time"):
        run.event("|w|", 1)


def test_at_time_is_linear_between_rows():
    run = simulate(constant_field(np.array([1.0, 3.0])), np.array([0.5, 0.0]), t_end=2.0, method="RK23")
    t = np.array([[0.0, 0.3], [1.7, 2.0]])
    np.testing.assert_allclose(run.at_time(t), np.stack([0.5 + t, 3 * t], -1), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(run.at_time(1.0), [1.5, 3.0], rtol=1e-12)
    for outside in (-0.1, 2.1):
        with pytest.raises(InvalidInput, match="outside the simulated interval"):
            run.at_time(outside)


def test_every_failure_says_what_to_try():
    for status in Status:
        assert status.ok == (status in (Status.END_TIME, Status.EVENT))
        assert status.ok or "Try: " in status.explanation
    failed = simulate(power_field(6), np.ones(1), t_end=1.0, method="RK45", clock="t")
    assert not failed.ok
    assert ". Try: " in failed.message


def test_every_refusal_is_a_gfsim_error():
    assert issubclass(InvalidInput, GfsimError)
    with pytest.raises(GfsimError):
        simulate(toy(), np.zeros(2), t_end=1.0)
