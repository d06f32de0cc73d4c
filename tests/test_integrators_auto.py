"""``method="auto"``: which method when, what the phases say, and that it never costs much more than its better part."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from flow_fields import linear_field, toy, toy_start
from integrator_tools import quartic, rapids, saddle_direction, square_saddle, total

from gfsim.flow.clock import PhysicalTime
from gfsim.flow.events import loss_level, norm_level
from gfsim.flow.field import Ascent, Descent
from gfsim.flow.one_row import one_row
from gfsim.flow.result import Counts, Status
from gfsim.flow.simulate import simulate
from gfsim.flow.switching import EASY_STEPS, STIFF_WORK, Trail, Verdict, explicit_tableau
from gfsim.flow.tableaus import dormand_prince_5
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.saddle import origin


def check_phases(run):
    """The record fits the trajectory: no gaps, all steps, alternating methods, nothing but what was spent."""
    phases = run.phases
    assert phases[0].start == 0.0
    assert phases[-1].end >= run.s[-1]
    for a, b in pairwise(phases):
        assert a.end == b.start
        assert a.method != b.method
        assert a.steps >= 1
        assert a.stiffness > 0
    assert sum(p.steps for p in phases) == run.counts.accepted
    assert all(p.method in ("bs3", "dp5", "dp8", "ndf") for p in phases)
    text = run.summary()
    for p in phases:
        assert f"{p.method} from s = {p.start:.6g}" in text


def test_there_and_back():
    """Explicit in smooth water, implicit through the rapids, explicit after them; accurate throughout."""
    field, rtol = rapids(), 1e-5
    times = np.linspace(0.5, 14.0, 28)
    options = {"t_end": 14.0, "rtol": rtol, "atol": rtol, "clock": "t", "t_eval": times}
    run = simulate(field, np.array([0.5, 0.0]), method="auto", **options)
    sharp = simulate(field, np.array([0.5, 0.0]), method="Radau", **{**options, "rtol": 1e-10, "atol": 1e-10})
    assert run.ok
    check_phases(run)
    assert [p.method for p in run.phases] == ["dp5", "ndf", "dp5"]
    assert 2.5 < run.phases[0].end < 4.0
    assert 7.0 < run.phases[1].end < 13.0
    assert run.phases[1].stiffness > 50
    np.testing.assert_allclose(run.w, sharp.w, atol=20 * rtol)
    parts = {m: simulate(field, np.array([0.5, 0.0]), method=m, **options) for m in ("dp5", "ndf")}
    assert total(run.counts) <= 1.3 * min(total(p.counts) for p in parts.values())
    assert total(run.counts) <= 0.2 * total(parts["dp5"].counts)


def test_a_flow_that_is_never_stiff_stays_explicit():
    run = simulate(toy(), toy_start(1e-8), t_end=0.5, method="auto", rtol=1e-6, clock="t")
    check_phases(run)
    assert [p.method for p in run.phases] == ["dp5"]
    same = simulate(toy(), toy_start(1e-8), t_end=0.5, method="dp5", rtol=1e-6, clock="t")
    np.testing.assert_array_equal(run.w, same.w)  # step for step
    assert run.counts == same.counts


def test_a_minimum_is_approached_implicitly():
    """Final convergence with curvatures 1 and 1e5: explicit steps would number 1e5 by t = 20."""
    A = -np.diag([1.0, 1e2, 1e5])
    run = simulate(linear_field(A), np.ones(3), t_end=20.0, method="auto", rtol=1e-5)
    check_phases(run)
    assert [p.method for p in run.phases] == ["dp5", "ndf"]
    assert run.final[0] == pytest.approx(math.exp(-20.0), abs=1e-4)
    assert np.abs(run.final[1:]).max() <= 1e-3
    assert total(run.counts) <= 500


def test_from_the_origin_over_a_saddle():
    """Explicit up to the plateau, implicit on it; the events are those of other methods."""
    saddle = square_saddle()
    f, delta = saddle.objective, 1e-2
    start = origin(f).directions(np.random.default_rng(3))[1]
    L0 = float(f.value(0 * start))
    options = {"t_end": math.inf, "events": [loss_level(0.9 * L0, terminal=0), loss_level(0.75 * L0)], "rtol": 1e-5}
    run = simulate(f, delta * start, method="auto", **options)
    assert run.ok
    check_phases(run)
    assert run.phases[0].method == "dp5"
    assert run.phases[0].stiffness < 4
    assert "ndf" in [p.method for p in run.phases]
    sharp = simulate(f, delta * start, method="LSODA", **{**options, "rtol": 1e-9})
    for e, exact in zip(run.events, sharp.events, strict=True):
        assert e.t == pytest.approx(exact.t, rel=2e-3)
    ndf = simulate(f, delta * start, method="ndf", **options)
    assert total(run.counts) <= 1.5 * total(ndf.counts) + 100


SUITE = {
    "toy": lambda: (toy(), toy_start(1e-4), {"t_end": 4.0}),
    "quartic": lambda: (quartic(), np.array([2.0, 1.5]), {"t_end": 50.0}),
    "stiff line": lambda: (linear_field(-np.diag([1.0, 1e3])), np.ones(2), {"t_end": 10.0}),
    "saddle 1e-1": lambda: near(1e-1),
    "saddle 1e-3": lambda: near(1e-3),
    "saddle 1e-6": lambda: near(1e-6),
}


def near(delta):
    saddle = square_saddle()
    event = norm_level(0.3, saddle.index_z, name="w_z")
    return (
        saddle.objective,
        saddle.start(delta, saddle_direction()),
        {"t_end": math.inf, "events": [event], "clock": saddle.clock, "blocks": saddle.blocks},
    )


# stiff steps until the explicit method is given up, and a fresh start of the implicit one
OVERHEAD = STIFF_WORK + 20


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("problem", SUITE)
def test_never_much_worse_than_the_better_part(problem, rtol):
    """In evaluations of all kinds: 1.3 times the better of its two methods and a start-up, at the same tolerance."""
    f, w0, options = SUITE[problem]()
    auto = simulate(f, w0, method="auto", rtol=rtol, **options)
    assert auto.ok, auto.message
    check_phases(auto)
    cheap = []
    for method in (auto.phases[0].method, "ndf"):
        run = simulate(f, w0, method=method, rtol=rtol, max_steps=600, **options)
        if run.ok:
            cheap.append(total(run.counts))
    assert total(auto.counts) <= 1.3 * min(cheap) + OVERHEAD


@pytest.mark.parametrize("delta", [1e-4, 1e-6, 1e-8])
def test_a_stiff_start_is_left_at_once(delta):
    """The first explicit step near a saddle is far beyond the stability limit: nothing of it stays."""
    f, w0, options = near(delta)
    event = norm_level(1.5 * float(np.linalg.norm(w0[square_saddle().index_z])), square_saddle().index_z, name="w_z")
    options = options | {"events": [event], "rtol": 1e-5}
    auto, ndf = (simulate(f, w0, method=method, **options) for method in ("auto", "ndf"))
    assert [phase.method for phase in auto.phases] == ["ndf"]
    np.testing.assert_allclose(auto.final, ndf.final, rtol=1e-12)
    assert total(auto.counts) <= total(ndf.counts) + 20  # one rejected trial and the products that say why


def trail() -> Trail:
    return Trail(dormand_prince_5(), 0.0)


def step(trail: Trail, stiffness: float, *, rejected: int = 0) -> Verdict:
    start = trail.phases[-1].end
    return trail.judge(start=start, end=start + 1.0, stiffness=stiffness, rejected=rejected)


def test_a_rejection_alone_says_nothing():
    """Steps that grew too fast are thrown back at large h |lambda| where nothing is stiff: the next shows it."""
    one = trail()
    for k in range(10 * STIFF_WORK):
        assert step(one, 0.1, rejected=5 * k) is Verdict.STAY
    assert one.explicit


def test_stiff_steps_hand_over_and_easy_ones_hand_back():
    one = trail()
    verdicts = [step(one, 2.0) for _ in range(STIFF_WORK // 6)]
    assert verdicts == [Verdict.STAY] * (len(verdicts) - 1) + [Verdict.HAND_OVER]
    verdicts = [step(one, 0.5) for _ in range(EASY_STEPS)]
    assert verdicts == [Verdict.STAY] * (EASY_STEPS - 1) + [Verdict.HAND_OVER]
    assert [(p.method, p.steps) for p in one.phases] == [("dp5", 9), ("ndf", 4), ("dp5", 0)]


def test_a_step_taken_back_leaves_the_phases_whole():
    """Beyond the limit right after the return: the implicit phase goes on as if it had not been left."""
    one = trail()
    for _ in range(STIFF_WORK // 6):
        step(one, 2.0)
    for _ in range(EASY_STEPS):
        step(one, 0.5)
    assert one.explicit
    assert step(one, 100.0) is Verdict.REDO
    assert [(p.method, p.start, p.end, p.steps) for p in one.phases] == [("dp5", 0.0, 9.0, 9), ("ndf", 9.0, 13.0, 4)]


def test_kinks_take_the_third_order_pair():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    for name, p, kinked in (("relu", 1, True), ("relu", 2, False), ("square", None, False), ("linear", None, False)):
        field = Descent(Objective(FeedForward((2, 4, 1), name, p=p), X, y, reduction="mean"))
        assert field.kinked == kinked
        assert explicit_tableau(field, 1e-4).name == ("bs3" if kinked else "dp5")
    model = FeedForward((2, 4, 1), "relu")
    objective = Objective(model, X, y, reduction="mean")
    w0 = 0.5 * rng.normal(size=model.n_params)
    run = simulate(objective, w0, t_end=20.0, method="auto", rtol=1e-4)
    assert run.ok, run.message
    check_phases(run)
    assert run.phases[0].method == "bs3"
    assert run.conserved_drift <= 1e-2
    sharp = simulate(objective, w0, t_end=20.0, method="RK23", rtol=1e-5)
    assert float(objective.value(run.final)) == pytest.approx(float(objective.value(sharp.final)), rel=1e-2)
    assert total(run.counts) <= 1.5 * simulate(objective, w0, t_end=20.0, method="RK23", rtol=1e-4).counts.velocity


def test_sharp_tolerances_take_the_eighth_order_pair():
    assert explicit_tableau(quartic(), 1e-6).name == "dp5"
    assert explicit_tableau(quartic(), 1e-8).name == "dp8"


def test_takeover_is_as_accurate_as_the_step_before():
    """Where the implicit method takes over from an interpolant its first steps must not lose what the pair had."""
    rng = np.random.default_rng(0)
    A = np.diag([1.0, 30.0, 2e3])
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    field = linear_field(-(Q @ A @ Q.T))
    w0 = np.ones(3)
    for rtol in (1e-3, 1e-5, 1e-7):
        stepper = one_row("auto", field, PhysicalTime(), w0, rtol=rtol, atol=np.full(3, rtol), counts=Counts())
        worst = 0.0
        while stepper.s < 5.0:
            segment = stepper.advance(math.inf)
            exact = Q @ (np.exp(-np.diag(A) * segment.end) * (Q.T @ w0))
            worst = max(worst, np.abs(segment.w_end - exact).max())
        assert [p.method for p in stepper.phases][:2] in (["dp5", "ndf"], ["dp8", "ndf"])
        assert worst <= 15 * rtol


def test_failure_keeps_the_phases():
    field = Ascent(
        lambda w: (w**7).sum(-1) / 7, lambda w: w**6, lambda w: np.diag(6 * w**5), 1, 7.0, "blow-up"
    )  # fmt: skip
    run = simulate(field, np.array([1.0]), t_end=5.0, method="auto", rtol=1e-5, clock="t")
    assert run.status in (Status.OVERFLOW, Status.STEP_UNDERFLOW)
    assert run.phases
    assert sum(p.steps for p in run.phases) == run.counts.accepted
