"""Batches: every row is what it would be alone, whatever becomes of its neighbours."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from flow_fields import logistic, logistic_field, power_field, toy, toy_flow, toy_start
from hypothesis import given, settings
from hypothesis import strategies as st
from integrator_tools import IN_A_BATCH, make_own, quartic, rapids, saddle_direction, square_saddle

from gfsim.errors import InvalidInput, UnknownName
from gfsim.flow.batch import simulate_batch
from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import Event, norm_level
from gfsim.flow.field import Ascent
from gfsim.flow.result import Status
from gfsim.flow.simulate import simulate

FIXED = ("euler", "heun", "rk4")
DELTAS = (1e-1, 1e-3, 1e-6)


def starts(deltas=DELTAS) -> np.ndarray:
    return np.stack([toy_start(delta) for delta in deltas])


# -- a row and its single run ------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["t", RescaledTime(1.0)], ids=["t", "rescaled"])
@pytest.mark.parametrize("method", IN_A_BATCH)
def test_rows_are_the_single_runs(method, clock):
    """Step for step: the same recorded steps, counts, events and end as ``simulate`` gives each row."""
    options = {
        "t_end": 4.0, "method": method, "rtol": 1e-6, "clock": clock,
        "events": [norm_level(1e-2, terminal=0), norm_level(0.4, np.array([1]), name="w2")],
    }  # fmt: skip
    batch = simulate_batch(toy(), starts(), record="steps", **options)
    for k, row in enumerate(batch):
        alone = simulate(toy(), starts()[k], **options)
        assert row.status is alone.status
        assert row.message == alone.message
        for name in ("accepted", "rejected", "jacobian", "factorisations", "overflow_rejected"):
            assert getattr(row.counts, name) == getattr(alone.counts, name), name
        # the single driver keeps events that do not end the run as rows of their own
        kept = np.isin(alone.s, row.s)
        assert len(row.s) <= len(alone.s) <= len(row.s) + len(alone.events)
        np.testing.assert_allclose(row.final, alone.final, rtol=1e-9)
        assert row.t[-1] == pytest.approx(alone.t[-1], rel=1e-9)
        assert math.fsum(row.dt) == pytest.approx(row.t[-1], rel=1e-12)
        assert kept.any()
        assert [e.name for e in row.events] == [e.name for e in alone.events]
        for ours, theirs in zip(row.events, alone.events, strict=True):
            assert ours.t == pytest.approx(theirs.t, rel=1e-9, abs=1e-12)
            np.testing.assert_allclose(ours.w, theirs.w, rtol=1e-8)


@pytest.mark.parametrize("method", IN_A_BATCH)
def test_rows_of_a_net_are_the_single_runs(method):
    """Near a sparse saddle, where a batch takes Hessian-vector products and a single run the Hessian itself."""
    saddle, z = square_saddle(), saddle_direction()
    deep = (0.3, 1e-2, 1e-4)
    deltas = {"ndf": deep, "auto": deep, "rkc": (0.3, 1e-2)}.get(method, (0.3, 0.2))
    w0 = np.stack([saddle.start(delta, z) for delta in deltas])
    level = [norm_level(0.4, saddle.index_z, name="w_z")]
    options = {"t_end": math.inf, "method": method, "rtol": 1e-6, "clock": saddle.clock, "blocks": saddle.blocks,
               "events": level}  # fmt: skip
    batch = simulate_batch(saddle.objective, w0, **options)
    assert batch.ok.all(), batch.summary()
    for k, w in enumerate(w0):
        alone = simulate(saddle.objective, w, **options)
        assert batch.t[k] == pytest.approx(alone.t[-1], rel=1e-8 if method in ("dp5", "dp8") else 5e-5)
        np.testing.assert_allclose(batch.final[k], alone.final, atol=1e-8 if method in ("dp5", "dp8") else 5e-5)


@given(size=st.integers(1, 5), seed=st.integers(0, 999), method=st.sampled_from([*IN_A_BATCH, *FIXED]))
@settings(max_examples=40)
def test_neighbours_never_matter(size, seed, method):
    """Row 0 among any others, in any company: the same accepted steps, the same numbers to rounding."""
    rng = np.random.default_rng(seed)
    w0 = rng.normal(size=(size, 2)) * 10.0 ** rng.uniform(-3, 0.3, size=(size, 1))
    w0[0] = [0.4, -0.3]
    more = {"step": 0.01} if method in FIXED else {"rtol": 1e-5}
    row = simulate_batch(quartic(), w0, t_end=2.0, method=method, record="steps", **more)[0]
    alone = simulate_batch(quartic(), w0[:1], t_end=2.0, method=method, record="steps", **more)[0]
    for name in row.counts.__dataclass_fields__:
        # the eighth-order interpolant is evaluated for all rows when one of them ends
        if (method, name) != ("dp8", "velocity"):
            assert getattr(row.counts, name) == getattr(alone.counts, name), name
    # sums of another order: rounding, which the eighth-order estimate of a tiny error passes on to the steps
    np.testing.assert_allclose(row.s, alone.s, rtol=1e-6)
    np.testing.assert_allclose(row.final, alone.final, rtol=1e-9, atol=1e-12)


def test_every_row_has_the_phases_of_its_single_run():
    """Stiff at times that differ from row to row: each hands over when it would have done so alone."""
    field, w0 = rapids(), np.array([[0.5, 0.0], [0.1, 1.5], [0.9, 3.5], [0.7, 9.0]])
    options = {"t_end": 12.0, "method": "auto", "rtol": 1e-5, "clock": "t"}
    batch = simulate_batch(field, w0, record="steps", **options)
    methods = []
    for row, start in zip(batch, w0, strict=True):
        alone = simulate(field, start, **options)
        assert [(p.method, p.steps) for p in row.phases] == [(p.method, p.steps) for p in alone.phases]
        np.testing.assert_allclose([p.end for p in row.phases], [p.end for p in alone.phases], rtol=1e-4)
        assert row.counts == dataclasses.replace(alone.counts, event_probes=0)
        np.testing.assert_allclose(row.final, alone.final, rtol=1e-7)
        methods.append([phase.method for phase in row.phases])
    assert methods == [["dp5", "ndf", "dp5"], ["dp5", "ndf", "dp5"], ["dp5", "ndf", "dp5"], ["dp5"]]


@pytest.mark.parametrize("name", ["bs3", "dp5", "dp8", "ndf"])
def test_join_changes_no_number(name):
    """Rows that come from another integrator in the middle of its run go on there as they would have done."""
    w = np.array([[0.9, -0.4], [0.3, 0.8], [2.0, 1.5], [0.05, 0.02]])
    whole = make_own(name, quartic(), w, rtol=1e-5)
    some, others = (make_own(name, quartic(), part, rtol=1e-5) for part in (w[[0, 2]], w[[1, 3]]))
    for _ in range(7):
        whole.attempt(), some.attempt(), others.attempt()
    some.join(others)
    index = np.array([0, 2, 1, 3])
    for _ in range(9):
        a, b = whole.attempt(), some.attempt()
        np.testing.assert_array_equal(a.accepted[index], b.accepted)
        np.testing.assert_allclose(a.end[index], b.end, rtol=1e-12)
        np.testing.assert_allclose(a.w_end[index], b.w_end, rtol=1e-12, atol=1e-14)
        x = a.start + 0.3 * (a.end - a.start)
        inside = a.at(np.arange(4), x[:, None])[index], b.at(np.arange(4), x[index][:, None])
        np.testing.assert_allclose(*inside, rtol=1e-12, atol=1e-14)
    for key, values in whole.counts.items():
        np.testing.assert_array_equal(values[index], some.counts[key], err_msg=key)


@pytest.mark.parametrize("name", ["bs3", "dp5", "dp8", "rkc", "ndf", "auto"])
def test_keep_changes_no_number(name):
    """Dropping rows in the middle of a run: the others' next attempts are as they would have been."""
    w = np.array([[0.9, -0.4], [0.3, 0.8], [2.0, 1.5], [0.05, 0.02]])
    whole, cut = (make_own(name, quartic(), w, rtol=1e-5) for _ in range(2))
    for _ in range(7):
        whole.attempt(), cut.attempt()
    index = np.array([3, 1])
    cut.keep(index)
    for _ in range(9):
        a, b = whole.attempt(), cut.attempt()
        np.testing.assert_array_equal(a.accepted[index], b.accepted)
        np.testing.assert_allclose(a.end[index], b.end, rtol=1e-12)
        np.testing.assert_allclose(a.w_end[index], b.w_end, rtol=1e-12, atol=1e-14)
    for key, values in whole.counts.items():
        np.testing.assert_array_equal(values[index], cut.counts[key], err_msg=key)


# -- bad rows ------------------------------------------------------------------------------------------------


def trap() -> Ascent:
    """dy/dt = y - y^2 where 0 <= y <= 2, y^6 beyond 2 (it blows up), not a number below zero."""

    def gradient(w):
        with np.errstate(all="ignore"):
            return np.where(w > 2, w**6, np.where(w < 0, np.nan, w - w**2))

    def hessian(w):
        return np.diag(np.where(w > 2, 6 * w**5, np.where(w < 0, np.nan, 1 - 2 * w)))

    return Ascent(lambda w: (w**2).sum(-1), gradient, hessian, 1, None, "trap")


@pytest.mark.parametrize("method", [*IN_A_BATCH, *FIXED])
def test_bad_rows_end_by_themselves(method):
    """One blows up, one is not a number from the start; the three good ones are as without them."""
    more = {"step": 0.01} if method in FIXED else {"rtol": 1e-6}
    w0 = np.array([[0.1], [3.0], [0.3], [-1.0], [1.7]])
    result = simulate_batch(trap(), w0, t_end=3.0, method=method, **more)
    good, bad = [0, 2, 4], [1, 3]
    assert result.ok.tolist() == [True, False, True, False, True]
    assert {result.status[k] for k in bad} <= {Status.OVERFLOW, Status.STEP_UNDERFLOW}
    assert result.t[1] <= 3.0**-5 / 5 * (1 + 1e-3) or method in FIXED
    assert np.isfinite(result.final).all()
    np.testing.assert_array_equal(result.final[3], w0[3])
    clean = simulate_batch(trap(), w0[good], t_end=3.0, method=method, **more)
    np.testing.assert_allclose(result.final[good], clean.final, rtol=1e-11)  # sums of another order
    assert [result[k].counts for k in good] == [r.counts for r in clean]
    text = result.summary()
    assert "row 1" in text
    assert "row 3" in text


@pytest.mark.parametrize("method", IN_A_BATCH)
def test_step_budget_of_a_row(method):
    """A row that needs more steps than allowed keeps what it has; the others have ended before."""
    field = power_field(3, -1.0)
    w0 = np.array([[1e-3], [1e3]])
    result = simulate_batch(field, w0, t_end=1e-2, method=method, rtol=1e-6, clock="t", max_steps=25)
    assert result.status == [Status.END_TIME, Status.MAX_STEPS]
    assert 0 < result.t[1] < 1e-2
    exact = (1e-6 + 2 * result.t[1]) ** -0.5
    assert result.final[1, 0] == pytest.approx(exact, rel=1e-3)
    assert "max_steps" in result[1].message
    assert result[1].counts.accepted + result[1].counts.rejected == 25


@pytest.mark.parametrize("record", ["ends", "steps"])
def test_a_row_that_stands_still(record):
    """Without an end time: one row meets its event, one sits in a minimum for ever and says so.

    Only an implicit method gets that far in the clock: the steps of the others stay at 3 / lambda.
    """
    field = Ascent(
        lambda w: (w**2 / 2 - w**3 / 3).sum(-1), lambda w: w - w**2, lambda w: np.diag(1 - 2 * w), 1, 2.0, "logistic"
    )
    stop = Event("half", lambda p: p.w[..., 0] - 0.5, 0, 1)
    result = simulate_batch(
        field, np.array([[0.1], [0.6]]), t_end=math.inf, method="ndf", events=[stop], rtol=1e-6, record=record
    )
    assert result.status == [Status.EVENT, Status.STANDSTILL]
    assert result.t[0] == pytest.approx(math.log(9), rel=1e-4)
    # the end is where it came to rest, not where it started
    assert result.final[1, 0] == pytest.approx(1.0, abs=1e-5)
    assert result.t[1] > 1e6
    assert result[1].counts.accepted < 2000


class Racing:
    """dt/ds = 1e300 for y > 0, and 1 below."""

    name, physical, block = "racing", False, None

    def rate(self, w):
        return np.where(w[..., 0] > 0, 1e300, 1.0)

    def rate_of(self, part):
        return self.rate(part)

    def rate_gradient(self, w):
        return 0.0 * w

    def placed_like(self, w):
        del w
        return self


@pytest.mark.parametrize("record", ["ends", "steps"])
@pytest.mark.parametrize("method", IN_A_BATCH)
def test_physical_time_beyond_float64(method, record):
    """A row whose t runs past 1e308 keeps the state before; its neighbour meets its event."""
    field = Ascent(
        lambda w: w.sum(-1), lambda w: np.where(w > 0, 1e-300, 1.0), lambda _: np.zeros((1, 1)), 1, None, "creep"
    )
    stop = Event("half", lambda p: p.w[..., 0] + 0.5, 1, 1)
    result = simulate_batch(
        field, np.array([[1.0], [-1.0]]), t_end=math.inf, method=method, clock=Racing(), events=[stop], record=record
    )
    assert result.status == [Status.OVERFLOW, Status.EVENT]
    assert "physical time" in result[0].message
    assert result.t[1] == pytest.approx(0.5)
    assert np.isfinite(result.t).all()
    assert result.t[0] > 1e300
    # the kept state belongs to the kept time: y = 1 + 1e-300 t
    assert result.final[0, 0] == pytest.approx(1.0 + 1e-300 * result.t[0], rel=1e-9)
    assert math.fsum(result[0].dt) == pytest.approx(result.t[0], rel=1e-12)


# -- what is recorded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*IN_A_BATCH, *FIXED])
def test_outputs_at_given_times(method):
    """t_eval to the method's accuracy on every row; NaN where a row has ended before."""
    more = {"step": 1e-3} if method in FIXED else {"rtol": 1e-7}
    times = np.array([0.0, 0.1, 0.7, 0.70001, 2.0])
    stop = Event("near one", lambda p: p.w[..., 0] - 0.6, 0, 1)
    y0 = np.array([0.1, 0.3])
    result = simulate_batch(
        logistic_field(), y0[:, None], t_end=2.0, method=method, events=[stop], t_eval=times, **more
    )
    assert result.at_times.shape == (2, 5, 1)
    exact = np.stack([logistic(y, times) for y in y0])
    close = {"euler": 1e-3, "heun": 1e-6}.get(method, 2e-5 if method == "rkc" else 1e-5)
    ended = math.log(0.6 / 0.4) - math.log(y0[1] / (1 - y0[1]))  # 1.25
    assert result.t[1] == pytest.approx(ended, rel=10 * close)
    np.testing.assert_allclose(result.at_times[0, :, 0], exact[0], rtol=close)
    np.testing.assert_allclose(result.at_times[1, :4, 0], exact[1, :4], rtol=close)
    assert np.isnan(result.at_times[1, 4]).all()


@pytest.mark.parametrize("method", IN_A_BATCH)
def test_recording_steps_or_ends_is_the_same_flow(method):
    ends, steps = (
        simulate_batch(toy(), starts(), t_end=3.0, method=method, rtol=1e-5, record=r) for r in ("ends", "steps")
    )
    np.testing.assert_array_equal(ends.final, steps.final)
    np.testing.assert_array_equal(ends.t, steps.t)
    for short, long in zip(ends, steps, strict=True):
        assert len(short.w) == 2
        assert len(long.w) == long.counts.accepted + 1
        assert (np.diff(long.s) > 0).all()
        assert math.fsum(short.dt) == pytest.approx(math.fsum(long.dt), rel=1e-12)
        assert short.counts == long.counts


def test_no_times_were_asked_for():
    with pytest.raises(InvalidInput, match="t_eval"):
        _ = simulate_batch(toy(), starts(), t_end=0.1).at_times


# -- torch on the processor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*IN_A_BATCH, *FIXED])
def test_torch_gives_the_numbers_of_numpy(method):
    """The same arithmetic in another library: equal counts, equal numbers but for the order of sums."""
    saddle, z = square_saddle(), saddle_direction()
    w0 = np.stack([saddle.start(delta, z) for delta in (0.3, 0.1)])
    more = {"step": 0.02} if method in FIXED else {"rtol": 1e-5, "clock": saddle.clock}
    options = {"t_end": 8.0, "method": method, "blocks": saddle.blocks, "t_eval": [1.0, 5.0], **more}
    ours = simulate_batch(saddle.objective, w0, **options)
    torchs = simulate_batch(saddle.objective, w0, device="cpu", **options)
    assert ours.ok.all()
    assert torchs.ok.all()
    np.testing.assert_allclose(torchs.final, ours.final, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(torchs.at_times, ours.at_times, rtol=1e-7, atol=1e-9)
    assert torchs.final.dtype == np.float64
    for a, b in zip(torchs, ours, strict=True):
        assert a.counts.accepted == pytest.approx(b.counts.accepted, abs=1)


@pytest.mark.parametrize("method", IN_A_BATCH)
def test_torch_single_row_with_a_dense_hessian(method):
    """One row of few weights: the Cholesky path of torch, events included."""
    options = {"t_end": math.inf, "method": method, "rtol": 1e-6, "clock": RescaledTime(1.0),
               "events": [norm_level(0.5, np.array([1]), name="w2")]}  # fmt: skip
    ours, torchs = (simulate_batch(toy(), starts([1e-3]), device=d, **options) for d in (None, "cpu"))
    assert torchs.status == [Status.EVENT]
    assert torchs.t[0] == pytest.approx(ours.t[0], rel=1e-9)
    np.testing.assert_allclose(torchs.final, ours.final, rtol=1e-9)
    np.testing.assert_allclose(torchs.final, toy_flow(torchs.t, 1e-3), rtol=1e-3 if method == "rkc" else 1e-4)


# -- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"w0": np.ones(2)}, "dimension"),
        ({"w0": np.ones((2, 3))}, "2 weights"),
        ({"w0": np.array([[1.0, 1.0], [0.0, 0.0]])}, "row 1"),
        ({"w0": np.array([[1.0, np.nan]])}, "nan"),
        ({"t_end": math.inf}, "no terminal event"),
        ({"rtol": 1e-15}, "float64"),
        ({"step": 0.1}, "fixed-step"),
        ({"method": "euler"}, "step=..."),
        ({"method": "rk4", "step": 0.1, "clock": RescaledTime(1.0)}, "physical time"),
        ({"max_steps": 0}, "max_steps"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_bad_arguments(given, words):
    options = {"w0": starts(), "t_end": 1.0, **given}
    with pytest.raises(InvalidInput, match=words):
        simulate_batch(toy(), options.pop("w0"), **options)


@pytest.mark.parametrize(("given", "near"), [({"method": "npf"}, "ndf"), ({"record": "step"}, "steps")])
def test_unknown_names(given, near):
    with pytest.raises(UnknownName, match=near):
        simulate_batch(toy(), starts(), t_end=1.0, **given)


# -- threads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ndf", "dp5"])
def test_threads_share_the_rows_out_and_change_nothing(method):
    w0 = np.stack([toy_start(d) for d in np.logspace(-1, -5, 7)])
    options = {"t_end": np.linspace(1.0, 4.0, 7), "method": method, "rtol": 1e-7, "t_eval": [0.0, 0.5, 2.0],
               "events": [norm_level(1e-2, terminal=0)], "record": "steps"}  # fmt: skip
    one, three = simulate_batch(toy(), w0, **options), simulate_batch(toy(), w0, threads=3, **options)
    assert one.status == three.status
    np.testing.assert_allclose(three.final, one.final, rtol=1e-9)
    np.testing.assert_allclose(three.t, one.t, rtol=1e-12)
    np.testing.assert_allclose(three.at_times, one.at_times, rtol=1e-9)
    assert [[e.name for e in r.events] for r in three] == [[e.name for e in r.events] for r in one]
    assert [r.counts.accepted for r in three] == [r.counts.accepted for r in one]
    assert len(simulate_batch(toy(), w0[:2], t_end=1.0, threads=16)) == 2  # more threads than rows


def test_an_error_or_ctrl_c_in_one_thread_ends_all():
    w0 = np.stack([toy_start(d) for d in (1e-1, 1e-2, 1e-3, 1e-4)])
    with pytest.raises(InvalidInput, match="row 2"):
        simulate_batch(
            toy(), w0, t_end=4.0, threads=2,
            events=[Event("bad", lambda p: np.where(abs(np.linalg.norm(p.w, axis=-1) - 1e-3) < 5e-4, np.nan, 1.0))],
        )  # fmt: skip

    def interrupt(probe):
        if float(np.linalg.norm(probe.w, axis=-1).max()) > 0.3:
            raise KeyboardInterrupt
        return np.ones(len(probe.w))

    result = simulate_batch(toy(), w0, t_end=100.0, threads=2, events=[Event("key", interrupt)])
    assert Status.INTERRUPTED in result.status
    assert all(np.isfinite(row.final).all() for row in result)
    with pytest.raises(InvalidInput, match="set_num_threads"):
        simulate_batch(toy(), w0, t_end=1.0, threads=2, device="cpu")
