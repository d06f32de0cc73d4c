"""The comparison of integrators: problems, references, the error measure, failures in words, advice."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gfsim.compare import Comparison, Problem, Reference, compare, methods, problem, reference, reference_for
from gfsim.compare.advice import advice, why_not
from gfsim.compare.measure import Outcome, OutOfTime, Run, Watched, errors_against, execute, time_limit
from gfsim.compare.methods import Method, catalogue, choose, in_words, known_to_simulate
from gfsim.compare.problems import SUITE, deep_linear_target, select
from gfsim.compare.reference import ReferenceRefused, barycentric, key
from gfsim.compare.runner import cheapest, wall_at
from gfsim.compare.section import LossLevel, SizeLevel, crossed
from gfsim.errors import InvalidInput, UnknownName
from gfsim.flow.fixed_stepper import RULES
from gfsim.flow.scipy_stepper import METHODS
from gfsim.flow.simulate import simulate


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.fixture(scope="module")
def toy() -> Problem:
    return problem("toy")


@pytest.fixture(scope="module")
def toy_reference(toy: Problem, cache: Path) -> Reference:
    return reference_for(toy, folder=cache)


@pytest.fixture(scope="module")
def saddle() -> Problem:
    """delta = 1e-2, cut off while w_z is still small: cheap, and with a small block."""
    whole = problem("saddle-relu2-1e-2")
    return dataclasses.replace(whole, name="cut", sections=whole.sections[:1])


@pytest.fixture(scope="module")
def saddle_reference(saddle: Problem, cache: Path) -> Reference:
    return reference_for(saddle, folder=cache)


# -- problems ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", SUITE, ids=lambda entry: entry.name)
def test_problems_are_fixed_by_their_name(entry) -> None:  # type: ignore[no-untyped-def]
    """Drawing from global state, or from a generator that another problem advanced, would change the second build."""
    first, second = entry.build(), entry.build()
    assert first.name == entry.name
    assert key(first) == key(second)
    assert first.convention in ("sum", "mean")
    assert first.kinked == (first.objective.model.name.endswith(" relu net"))


def test_the_saddle_problems_start_at_distance_delta_from_one_saddle() -> None:
    coarse, fine = problem("saddle-z2-1e-1"), problem("saddle-z2-1e-3")
    index_n, index_z = coarse.blocks
    np.testing.assert_array_equal(coarse.w0[index_n], fine.w0[index_n])
    np.testing.assert_allclose(coarse.w0[index_z], 100.0 * fine.w0[index_z], rtol=1e-13)
    there = fine.w0.copy()
    there[index_z] = 0.0
    assert np.linalg.norm(fine.objective.gradient(there)) < 1e-13


def test_selection_keeps_the_suites_order_and_refuses_unknown_names() -> None:
    assert [e.name for e in select(["relu", "toy"])] == ["toy", "relu"]
    assert 5 < len(select([], quick=True)) < len(select([]))
    with pytest.raises(UnknownName, match="Did you mean 'logistic'"):
        select(["logistics"])


def test_a_place_that_the_start_has_passed_is_refused(toy: Problem) -> None:
    with pytest.raises(InvalidInput, match="already past L = 100"):
        dataclasses.replace(toy, sections=(LossLevel(100.0),))
    with pytest.raises(InvalidInput, match="no section"):
        dataclasses.replace(toy, sections=())


def test_crossing_is_seen_in_the_sections_own_direction_only() -> None:
    down, up = LossLevel(1.0), SizeLevel(1.0, np.array([0]))
    assert crossed(down, 1.1, 0.9)
    assert crossed(down, 1.1, 1.0)
    assert not crossed(down, 0.9, 1.1)
    assert crossed(up, 0.9, 1.1)
    assert not crossed(up, 1.1, 0.9)
    assert not crossed(up, 1.0, 1.1)  # already there


# -- references ----------------------------------------------------------------------------------------


def test_the_reference_of_the_toy_is_the_closed_form(toy: Problem, toy_reference: Reference) -> None:
    d = 0.01
    for place in toy_reference.places:
        t = place.t
        psi = [
            2 * d / math.sqrt(d**2 + (8 - d**2) * math.exp(-32 * t)),
            d / math.sqrt(d**2 + (2 - d**2) * math.exp(-8 * t)),
        ]
        np.testing.assert_allclose(place.state, psi, rtol=1e-9)
        assert float(toy.objective.value(place.state)) == pytest.approx(place.section.level, rel=1e-9)
    assert toy_reference.accuracy < 1e-9


def test_the_reference_of_the_deep_linear_net_follows_its_modes(cache: Path) -> None:
    task = problem("deep-linear")
    found = reference_for(task, folder=cache)
    _, _, (left, s, right) = deep_linear_target()
    for place in found.places:
        u = s * np.exp(4 * s * place.t) / (np.exp(4 * s * place.t) - 1 + s / 1e-4)
        first, second = task.objective.model.unpack(place.state)  # type: ignore[attr-defined]
        np.testing.assert_allclose(second @ first, (left * u) @ right.T, atol=1e-8)


def test_solutions_that_disagree_are_refused(toy: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "RECIPES", (("RK23", 1e-4, 1000), ("RK45", 1e-4, 1000)))
    with pytest.raises(ReferenceRefused, match=r"RK23 at rtol 0\.0001 and RK45 at rtol 0\.0001 differ by"):
        reference.compute(toy)


def test_one_solution_alone_is_refused(toy: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "RECIPES", (("DOP853", 1e-12, 1000), ("RK23", 1e-12, 5)))
    with pytest.raises(ReferenceRefused, match="fewer than two reference solutions reached"):
        reference.compute(toy)


def test_references_are_kept_and_a_damaged_file_is_made_again(toy: Problem, tmp_path: Path) -> None:
    first = reference_for(toy, folder=tmp_path)
    again = reference_for(toy, folder=tmp_path)
    assert (first.cached, again.cached) == (False, True)
    assert again.accuracy == first.accuracy
    assert again.solvers == first.solvers
    for a, b in zip(first.places, again.places, strict=True):
        np.testing.assert_array_equal(a.states, b.states)
        assert list(a.blocks) == list(b.blocks)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:500])
    assert not reference_for(toy, folder=tmp_path).cached


def test_a_cache_that_cannot_be_written_costs_only_the_cache(toy: Problem, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    said: list[str] = []
    assert reference_for(toy, folder=blocked, note=said.append).accuracy < 1e-9
    assert "not kept" in said[-1]


def test_the_key_depends_on_everything_that_the_reference_follows_from(toy: Problem) -> None:
    others = [
        dataclasses.replace(toy, w0=toy.w0 * (1 + 1e-15)),
        dataclasses.replace(toy, sections=(LossLevel(9.0), LossLevel(0.5), LossLevel(2e-3))),
        dataclasses.replace(toy, blocks=()),
        dataclasses.replace(toy, clock="t"),
        dataclasses.replace(toy, step=1e-3),
    ]
    assert len({key(p) for p in [toy, *others]}) == 6


def test_interpolation_is_exact_for_polynomials_of_its_degree() -> None:
    x = np.cos(np.arange(5))
    y = np.stack([x**4 - 2 * x, 3 * x**2], axis=1)
    at = 0.3
    np.testing.assert_allclose(barycentric(x, y, at), [at**4 - 2 * at, 3 * at**2], rtol=1e-12)
    np.testing.assert_array_equal(barycentric(x, y, float(x[2])), y[2])


# -- the error measure ---------------------------------------------------------------------------------


def test_the_reference_is_at_distance_zero_from_itself(toy: Problem, toy_reference: Reference) -> None:
    states = {k: place.state for k, place in enumerate(toy_reference.places)}
    errors, complaint = errors_against(toy_reference, toy, states)
    assert complaint == ""
    assert {e for blocks in errors.values() for e in blocks.values()} == {0.0}


def test_an_error_in_the_small_weights_counts_in_full(saddle: Problem, saddle_reference: Reference) -> None:
    """One norm over all weights would show 1 % of weights of size delta as 1e-4 or so."""
    place = saddle_reference.places[0]
    small = place.blocks["small"]
    w = place.state.copy()
    wrong = np.random.default_rng(0).standard_normal(small.size)
    wrong -= (wrong @ w[small]) / (w[small] @ w[small]) * w[small]  # keeps the size of the block to first order
    w[small] += 0.01 * np.linalg.norm(w[small]) * wrong / np.linalg.norm(wrong)
    errors, complaint = errors_against(saddle_reference, saddle, {0: w})
    assert complaint == ""
    (blocks,) = errors.values()
    assert blocks["small"] == pytest.approx(0.01, rel=0.02)
    assert blocks["large"] < 1e-6
    assert np.linalg.norm(w - place.state) / np.linalg.norm(w) < 1e-3


def test_a_state_further_along_the_curve_is_no_error(saddle: Problem, saddle_reference: Reference) -> None:
    """The right curve at a slightly wrong place: what a wrong clock gives."""
    place = saddle_reference.places[0]
    ahead = simulate(
        saddle.objective,
        place.state,
        t_end=0.02 * place.t,
        method="LSODA",
        clock=saddle.clock,
        blocks=saddle.blocks,
        rtol=1e-10,
    ).final
    small = place.blocks["small"]
    assert np.linalg.norm((ahead - place.state)[small]) > 0.01 * np.linalg.norm(place.state[small])
    errors, complaint = errors_against(saddle_reference, saddle, {0: ahead})
    assert complaint == ""
    assert max(next(iter(errors.values())).values()) < 1e-6


def test_a_state_far_from_the_section_is_not_judged(toy: Problem, toy_reference: Reference) -> None:
    _, complaint = errors_against(toy_reference, toy, {0: toy.w0})
    assert complaint.startswith("missed L = 9")
    _, complaint = errors_against(toy_reference, toy, {0: np.array([np.nan, 1.0])})
    assert "not finite" in complaint


# -- runs and their failures ---------------------------------------------------------------------------


def run_of(solve: Callable[[Watched], Outcome], toy: Problem, found: Reference, limit: float = 10.0) -> Run:
    return execute(toy, found, Run("test", "method", "t", 1e-3), solve, limit=limit)


def test_failures_are_told_in_words(toy: Problem, toy_reference: Reference) -> None:
    def raises(_: Watched) -> Outcome:
        raise ZeroDivisionError("a   b")

    def refuses(_: Watched) -> Outcome:
        raise InvalidInput("not this")

    run = run_of(raises, toy, toy_reference)
    assert (run.failure, run.ok) == ("ZeroDivisionError: a b", False)
    assert run_of(refuses, toy, toy_reference).failure == "not this"
    assert run_of(lambda _: Outcome(), toy, toy_reference).failure == "did not reach L = 0.001"


def test_a_run_that_takes_too_long_is_stopped(toy: Problem, toy_reference: Reference) -> None:
    def computes(o: Watched) -> Outcome:
        while True:
            o.gradient(toy.w0)

    def idles(_: Watched) -> Outcome:
        while True:
            pass

    for solve in (computes, idles):
        run = run_of(solve, toy, toy_reference, limit=0.05)
        assert run.failure == "stopped after the time limit of 0.05 s"
        assert run.wall < 5
    assert run_of(computes, toy, toy_reference, limit=0.05).counts["rhs"] > 1


def test_the_limit_is_taken_back(toy: Problem) -> None:
    with pytest.raises(OutOfTime), time_limit(0.01):
        time.sleep(30.0)
    with time_limit(30.0):
        pass
    watched = Watched(toy.objective)
    watched.gradient(toy.w0)
    watched.value(toy.w0)
    watched.hessian(toy.w0)
    watched.hessian_product(toy.w0, toy.w0)
    assert watched.calls == {"loss": 1, "rhs": 1, "jacobian": 1, "hvp": 1}


def test_every_method_of_the_library_takes_part() -> None:
    known = known_to_simulate()
    assert {*METHODS, *RULES} <= set(known)
    assert all(known[name] for name in RULES)
    assert not any(known[name] for name in METHODS)
    taking_part = {m.id for m in catalogue()}
    assert {f"scipy:{name}" for name in METHODS} <= taking_part
    assert {f"gfsim:{name}" for name in known if name != "euler"} <= taking_part
    assert "descent:gd" in taking_part


def test_methods_are_chosen_by_name_by_library_or_both() -> None:
    assert {m.id for m in choose(["RK45"])} == {"scipy:RK45", "gfsim:RK45"}
    assert {m.id for m in choose(["scipy:BDF", "descent"])} == {"scipy:BDF", "descent:gd"}
    with pytest.raises(UnknownName, match="Did you mean"):
        choose(["RK46"])


def test_a_hopeless_fixed_step_is_not_tried(cache: Path) -> None:
    task = problem("degree7-1e-2")
    found = reference_for(task, folder=cache)
    run = choose(["gd"])[0].run(task, found, 1.0, limit=2.0)
    assert "years" in run.failure
    assert run.counts == {}
    assert in_words(90.0) == "90 s"
    assert in_words(7200.0) == "2 hours"


def test_a_broken_method_does_not_stop_the_others(toy: Problem, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> Outcome:
        raise RuntimeError("no luck")

    broken = Method("gfsim", "broken", "s", breaks)
    whole = [broken, *(m for m in catalogue() if m.name == "LSODA")]
    monkeypatch.setattr(methods, "catalogue", lambda: whole)
    result = compare(toy, rtols=(1e-4, 1e-6), cache=cache)
    assert [run.ok for run in result.runs] == [False, False, True, True, True, True]
    assert "gfsim:broken (s): RuntimeError: no luck" in result.table()
    assert not result.interrupted


def test_tighter_tolerances_are_not_tried_after_the_time_is_up(
    toy: Problem, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def slow(_p: Problem, _r: Reference, _o: Watched, rtol: float) -> Outcome:
        calls.append(rtol)
        raise OutOfTime

    monkeypatch.setattr(methods, "catalogue", lambda: [Method("gfsim", "slow", "s", slow)])
    result = compare(toy, rtols=(1e-6, 1e-3, 1e-4), cache=cache)
    assert calls == [1e-3]
    assert [run.failure for run in result.runs][1:] == ["not tried: already too slow at rtol 0.001"] * 2


def test_an_interruption_keeps_what_is_done(toy: Problem, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = next(m for m in catalogue() if m.id == "scipy:RK45")

    def interrupted(*_: object) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(methods, "catalogue", lambda: [real, Method("gfsim", "never", "s", interrupted)])
    result = compare(toy, rtols=(1e-4,), cache=cache)
    assert result.interrupted
    assert [run.id for run in result.runs] == ["scipy:RK45"]
    assert "interrupted" in result.table()


@pytest.mark.parametrize("name", ["LSODA", "RK45", "BDF"])
def test_errors_fall_with_the_tolerance_and_cost_rises(toy: Problem, cache: Path, name: str) -> None:
    result = compare(toy, methods=[name], rtols=(1e-3, 1e-6, 1e-9), cache=cache)
    for library in ("scipy", "gfsim"):
        runs = [run for run in result.runs if run.library == library]
        assert all(run.ok for run in runs)
        assert runs[0].error > 30 * runs[1].error > 900 * runs[2].error
        assert runs[0].counts["rhs"] < runs[1].counts["rhs"] < runs[2].counts["rhs"]
        assert runs[-1].error < 1e-5


def test_descent_is_of_first_order_in_its_step(toy: Problem, cache: Path) -> None:
    result = compare(toy, methods=["gd"], rtols=(1e-3,), cache=cache)
    assert [run.setting for run in result.runs] == [1.0, 0.3, 0.1]
    fine = result.runs[1:]
    assert fine[0].error / fine[1].error == pytest.approx(3.0, rel=0.25)


def test_plain_relu_is_measured_against_two_fixed_step_solutions(cache: Path) -> None:
    task = problem("relu")
    found = reference_for(task, folder=cache)
    assert found.solvers == ("Heun, step 0.0005", "Heun, step 0.001")
    result = compare(task, methods=["gfsim:RK23"], rtols=(1e-6,), cache=cache)
    assert result.runs[0].error < 1e-3


def test_a_stiff_saddle_needs_few_evaluations_of_an_implicit_method(saddle: Problem, cache: Path) -> None:
    result = compare(saddle, methods=["gfsim:BDF", "scipy:RK45"], rtols=(1e-5,), limit=1e3, cache=cache)
    bdf = next(run for run in result.runs if run.method == "BDF")
    rk45 = next(run for run in result.runs if run.method == "RK45")
    assert max(bdf.error, rk45.error) < 5e-3
    assert bdf.evaluations < rk45.evaluations / 30
    assert rk45.h_lambda[0] == pytest.approx(3.3, rel=0.15)  # where the stability interval of the pair ends
    assert bdf.h_lambda[1] > 30
    assert "The flow is stiff" in result.advice(5e-3)
    assert "use gfsim:BDF" in result.advice(5e-3)


def test_bad_requests_are_refused(toy: Problem) -> None:
    with pytest.raises(InvalidInput, match=r"between 1e-13 and 0\.5"):
        compare(toy, rtols=(0.0,))
    with pytest.raises(InvalidInput, match="limit = 0"):
        compare(toy, limit=0.0)


# -- what is said about it -----------------------------------------------------------------------------


def made_up(method: str, error: float, wall: float, library: str = "gfsim", **more: object) -> Run:
    run = Run(library, method, "t" if library == "scipy" else "s", 1e-3, error=error, wall=wall, cpu=wall)
    run.counts = {"rhs": 1000}
    for name, value in more.items():
        setattr(run, name, value)
    return run


def test_wall_time_at_an_error_is_read_between_two_runs() -> None:
    runs = [made_up("RK45", 1e-2, 1.0), made_up("RK45", 1e-4, 4.0), made_up("RK45", math.nan, 9.0, failure="no")]
    assert wall_at(runs, 1e-3) == pytest.approx(2.0)
    assert wall_at(runs, 1e-2) == pytest.approx(1.0)
    assert wall_at(runs, 1.0) == pytest.approx(1.0)
    assert math.isnan(wall_at(runs, 1e-6))
    best = cheapest(runs, 1e-3)
    assert best is runs[1]


def test_the_advice_follows_from_the_numbers(toy: Problem, toy_reference: Reference) -> None:
    curve = np.array([[0.0, 17.0, 100.0], [100.0, 1e-3, 100.0]])
    stiff = dataclasses.replace(toy_reference, curve=curve)
    assert stiff.stiffness == pytest.approx(1e4)
    runs = [
        made_up("RK45", 1e-4, 5.0, "scipy", h_lambda=(3.2, 3.4)),
        made_up("BDF", 2e-4, 0.1, h_lambda=(20.0, 500.0), counts={"rhs": 100, "jacobian": 3}),
    ]
    text = advice(Comparison(toy, stiff, runs), 1e-3)
    assert "use gfsim:BDF in the rescaled clock, rtol 0.001: 0.1 s, 100 RHS + 3 Hessians" in text
    assert "The flow is stiff: the steps of scipy:RK45" in text
    assert "costs 50.0 times as much" in text

    runs = [
        made_up("RK45", 1e-4, 0.1, h_lambda=(0.2, 0.5)),
        made_up("BDF", 2e-4, 1.0, counts={"rhs": 100, "jacobian": 3}),
    ]
    text = advice(Comparison(toy, toy_reference, runs), 1e-3)
    assert "use gfsim:RK45" in text
    assert "not stiff at this accuracy" in text
    assert "costs 10.0 times as much" in text
    assert "No run reached an error of 1e-08" in advice(Comparison(toy, toy_reference, runs), 1e-8)
    failed = [made_up("RK45", math.nan, 1.0, failure="no luck")]
    assert "No method reached the end: no luck" in advice(Comparison(toy, toy_reference, failed), 1e-3)


def test_the_advice_says_what_the_clock_is_worth(toy: Problem, toy_reference: Reference) -> None:
    runs = [
        made_up("RK45", math.nan, 1.0, "scipy", failure="froze"),
        made_up("RK45", 1e-4, 0.1, h_lambda=(0.2, 0.5)),
    ]
    text = advice(Comparison(toy, toy_reference, runs), 1e-3)
    assert "In physical time RK45 did not get there (RK45: froze); in the rescaled clock they do." in text
    assert why_not([made_up("RK45", 0.1, 1.0)], 1e-3) == "least error 1.0e-01 > 0.001"


def test_runs_survive_json(toy: Problem, cache: Path) -> None:
    result = compare(toy, methods=["scipy:RK45", "scipy:BDF"], rtols=(1e-4,), cache=cache)
    result.runs.append(made_up("none", math.nan, math.nan, failure="no"))
    record = result.to_json()
    back = [Run.from_json(row) for row in record["runs"]]
    for a, b in zip(result.runs, back, strict=True):
        np.testing.assert_equal(dataclasses.asdict(a), dataclasses.asdict(b))
    assert record["convention"] == "sum"
    assert record["reference"]["accuracy"] == result.reference.accuracy


def test_the_seconds_of_evaluations_are_a_part_of_the_run(toy: Problem, cache: Path) -> None:
    result = compare(toy, methods=["scipy:BDF"], rtols=(1e-5,), cache=cache)
    (run,) = result.runs
    assert run.evaluations == run.counts["rhs"] + run.counts["jacobian"]
    assert 0 < run.evaluation_seconds < run.wall


def test_the_diagram_shows_every_method_that_got_there(toy: Problem, cache: Path) -> None:
    result = compare(toy, methods=["RK45", "gd"], rtols=(1e-3, 1e-6), cache=cache)
    figure = result.figure()
    assert {line.get_label() for line in figure.axes[0].get_lines()} >= {
        "scipy:RK45 (t)",
        "gfsim:RK45 (s)",
        "descent:gd (t)",
    }
    empty = Comparison(toy, result.reference, [made_up("RK45", math.nan, 1.0, failure="no")]).figure()
    assert [text.get_text() for text in empty.axes[0].texts] == ["no run reached the end"]
