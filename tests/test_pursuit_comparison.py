"""The comparison of Neuron Pursuit with other methods: its runner, its rules, its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.pursuit import page, results
from benchmarks.pursuit.cells import Cell, Store, measure
from benchmarks.pursuit.claims import Claim, claims
from benchmarks.pursuit.fixed_width import Data, adam, descent, methods
from benchmarks.pursuit.losses import losses
from benchmarks.pursuit.method import Clock, Fitted, error_of
from benchmarks.pursuit.registry import all_methods
from benchmarks.pursuit.results import Results
from benchmarks.pursuit.run import Plan, main
from benchmarks.pursuit.summary import duel, entries, standing, wilson
from benchmarks.pursuit.tasks import Draw, Task, all_tasks
from gfsim.errors import InvalidInput, UnknownName


def cell(task: str, method: str, seed: int, error: float = 0.0, cpu: float = 1.0, **changes: Any) -> Cell:
    given = {"solved": error < 1e-3, "neurons": 5, "parameters": 50} | changes
    return Cell(task, method, seed, "fitted", error, cpu=cpu, wall=cpu, **given)


def test_a_quick_run_is_rendered_and_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    assert "6 fits" in capsys.readouterr().out
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    assert "0 fits" in capsys.readouterr().out
    assert page.main([str(tmp_path / "run"), str(tmp_path / "docs")]) == 0
    text = (tmp_path / "docs" / "pursuit_comparison.md").read_text()
    assert "### teacher-relu2-5" in text
    assert (tmp_path / "docs" / "pursuit_comparison_core.png").stat().st_size > 10_000
    # the committed file alone gives the same page
    assert page.page(results.load(tmp_path / "docs" / "pursuit_comparison.json")) == text
    json.loads((tmp_path / "docs" / "pursuit_comparison.json").read_text(), parse_constant=pytest.fail)
    known = ["--known", str(tmp_path / "docs" / "pursuit_comparison.json")]
    assert main(["--quick", "--out", str(tmp_path / "elsewhere"), *known]) == 0
    assert "0 fits" in capsys.readouterr().out


def test_tasks_are_their_own_and_repeat() -> None:
    tasks = all_tasks()
    groups = [task.group for task in tasks.values()]
    assert [groups.count(name) for name in ("core", "d30")] == [14, 17]
    for task in tasks.values():
        if task.group not in ("core", "example", "noise"):
            continue
        one, again, other = task.draw(0), task.draw(0), task.draw(1)
        np.testing.assert_array_equal(one.X, again.X)
        np.testing.assert_array_equal(one.y, again.y)
        assert not np.array_equal(one.X, other.X)
        assert np.var(one.y_test) == pytest.approx(1.0, abs=0.35)  # degree four of normal inputs has heavy tails
    noisy, clean = (tasks[f"teacher-relu-5{end}"] for end in ("-noise", ""))
    assert not np.array_equal(noisy.draw(0).X, clean.draw(0).X)


def test_plans_refuse_what_they_do_not_know() -> None:
    with pytest.raises(UnknownName, match="'core'"):
        Plan.of(["cores"], [], 1, 1)
    with pytest.raises(UnknownName, match="'np-random'"):
        Plan.of([], ["np-randon"], 1, 1)
    with pytest.raises(InvalidInput, match="seeds = 0"):
        Plan.of([], [], 0, 1)
    fits = Plan.of(["teacher-relu-5"], ["np", "gd"], 3, 1).fits
    assert [(method.name, seed) for _, method, seed in fits] == [("np", 0), ("gd", 0), ("np", 1), ("np", 2)]


class Broken:
    name, title = "broken", "raises"

    def refuses(self, task: Task) -> str | None:
        return "never" if task.classes else None

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted:
        raise RuntimeError(f"no {task.name} {len(draw.X)} {seed} {clock.limit}")


def test_a_method_that_fails_is_a_result(tmp_path: Path) -> None:
    task = all_tasks()["teacher-relu-5"]
    failed = measure(task, Broken(), 0, 1.0)
    assert failed.status == "failed"
    assert "RuntimeError: no" in failed.note
    assert measure(replace(task, classes=True), Broken(), 0, 1.0).status == "refused"
    store = Store(tmp_path)
    store.write(failed)
    (tmp_path / "half.part").write_text("{")
    (read,) = store.read()
    assert np.isnan(read.error)
    assert replace(read, error=0.0, cpu=0.0, wall=0.0) == replace(failed, error=0.0, cpu=0.0, wall=0.0)
    found = entries([failed, replace(cell("teacher-relu-5", "broken", 1), solved=True)])["teacher-relu-5", "broken"]
    assert (found.solved, found.tried, found.errors.size) == (1, 2, 1)


def test_gromo_is_timed_until_its_own_error_is_reached(tmp_path: Path) -> None:
    ours = replace(cell("teacher-relu-5", "np", 0, 1e-9, 4.0), progress=((0.5, 0.3), (1.0, 0.05), (4.0, 1e-9)))
    store = Store(tmp_path)
    store.write(ours)
    assert store.read() == [ours]
    theirs = cell("teacher-relu-5", "gromo-tiny", 0, 0.1, 30.0)

    def claim(*cells: Cell) -> Claim:
        return next(c for c in claims(Results(cells, {})) if c.text.startswith("gromo"))

    assert claim(ours).holds is None
    assert (claim(ours, theirs).holds, claim(ours, theirs).measured.split(";")[0]) == (
        True,
        "median factors (seeds) 30 (1)",
    )
    assert claim(ours, replace(theirs, error=1e-9)).holds is False  # 30 s over 4 s
    assert claim(ours, replace(theirs, error=1e-10)).holds is False


def test_errors_are_measured_in_the_targets_own_units() -> None:
    X = np.zeros((4, 1))
    y = np.array([0.0, 2.0, 0.0, 2.0])
    draw = Draw(X, y, X, y)
    real = replace(all_tasks()["diabetes"])
    assert error_of(real, draw, np.ones(4)) == pytest.approx(1.0)
    assert error_of(replace(real, group="core"), draw, y + 0.1) == pytest.approx(0.01)
    assert error_of(replace(real, classes=True), draw, np.zeros(4)) == 0.5


def test_every_kind_of_loss_is_found() -> None:
    tasks = [all_tasks()[name] for name in ("teacher-relu-5", "teacher-relu2-5", "diabetes")]
    cells = [
        *(cell("teacher-relu-5", "np", k, [0.0, 1.0][k], 2.0) for k in range(2)),
        *(cell("teacher-relu-5", "lm", k, 0.0, 3.0) for k in range(2)),
        cell("teacher-relu-5", "adam", 1, 1.0, 0.1),  # solves nothing, however fast
        cell("teacher-relu2-5", "np", 0, 1e-9, 2.0),
        cell("teacher-relu2-5", "gd", 0, 1e-4, 1.0),  # as good a seed in less time
        cell("teacher-relu2-5", "lm", 0, 1e-12, 5.0),
        *(cell("diabetes", "np", k, 0.5) for k in range(3)),
        *(cell("diabetes", "linear", k, [0.6, 0.6, 0.1][k]) for k in range(3)),
        cell("diabetes", "lm", 0, 0.51),
    ]
    found = losses(entries(cells), tasks)
    assert {(loss.task, loss.method, loss.kind) for loss in found} == {
        ("teacher-relu-5", "lm", "solved"),
        ("teacher-relu2-5", "gd", "cpu"),
        ("diabetes", "linear", "error"),
    }


def test_pairs_are_compared_on_what_both_were_fitted_to() -> None:
    cells = [cell("a", "np", k, 0.0, 1.0) for k in range(3)] + [cell("a", "lm", 1, 1.0, 4.0)]
    found = duel(cells, ["a"], "np", "lm")
    assert (found.pairs, found.solved, found.alone, found.cpu_ratio) == (1, (1, 0), (1, 0), 0.25)
    assert np.isnan(found.usual_ratio)
    many = [cell("a", m, k, e, c) for k in range(7) for m, e, c in (("np", 0.0, 1.0), ("lm", float(k > 0), 2.0))]
    found = duel(many, ["a"], "np", "lm")
    assert (found.alone, found.usual_ratio) == ((6, 0), 0.5)
    assert found.chance == pytest.approx(2 * 0.5**6)
    assert duel(many, ["a"], "np", "np").chance == 1.0
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.normal(size=4)
    cells = [cell("a", "np", k, 0.50 + noise[k], parameters=30) for k in range(4)]
    cells += [cell("a", "gd", k, 0.60) for k in range(4)]
    cells += [cell("a", "lm", k, 0.40, parameters=90) for k in range(3)]
    stand = standing(entries(cells), "a", ("gd", "lm", "adam"))
    assert stand is not None
    assert stand.best.method == "lm"
    assert stand.gap == pytest.approx(0.1 + noise[:3].mean())
    assert stand.error == pytest.approx(noise[:3].std(ddof=1) / np.sqrt(3))
    assert not stand.within
    assert stand.share == pytest.approx(1 / 3)
    assert standing(entries(cells), "a", ("adam",)) is None
    assert standing(entries(cells), "a", ("gd",), "np-mean") is None
    cells += [cell("a", "np-mean", k, 0.30) for k in range(4)]
    mean = standing(entries(cells), "a", ("gd", "lm"), "np-mean")
    assert mean is not None
    assert (mean.best.method, mean.gap) == ("lm", pytest.approx(-0.1))


def test_the_rival_that_the_other_splits_foresee() -> None:
    """Two networks that are equally good, each better where chance has it: neither is foreseen to beat ours."""
    a, b = [0.1, 0.1, 0.5, 0.5], [0.5, 0.5, 0.1, 0.08]
    cells = [cell("a", "np", k, 0.3, parameters=20) for k in range(4)]
    cells += [cell("a", "gd", k, a[k], parameters=80) for k in range(4)]
    cells += [cell("a", "lm", k, b[k], parameters=60) for k in range(4)]
    stand = standing(entries(cells), "a", ("gd", "lm", "adam"))
    assert stand is not None
    assert (stand.best.method, stand.gap) == ("lm", pytest.approx(0.3 - np.mean(b)))
    # without split 0 or 1 lm is the better one, without 2 or 3 gd is
    chosen = np.array([b[0], b[1], a[2], a[3]])
    assert stand.foreseen.gap == pytest.approx(0.3 - chosen.mean())
    assert stand.foreseen.error == pytest.approx(chosen.std(ddof=1) / 2, abs=1e-12)
    assert stand.foreseen.share == pytest.approx(20 / 70)  # each was taken twice
    assert stand.foreseen.within


def test_the_interval_of_a_share() -> None:
    low, high = wilson(5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_claims_are_computed_from_cells() -> None:
    run = {"limit": 10.0}
    rows = {c.text: c for c in claims(results.Results([], run))}
    assert {c.holds for c in rows.values()} == {None}
    cells = [cell("public-example", "np", k, 1e-12, solved=True, neurons=6) for k in range(3)]

    def verdict(cells: list[Cell]) -> bool | None:
        return next(c for c in claims(results.Results(cells, run)) if "public example" in c.text).holds

    assert verdict(cells) is True
    assert verdict([*cells, cell("public-example", "np", 3, 1e-12, solved=True, neurons=7)]) is False
    assert verdict([*cells, cell("public-example", "np", 3, 1e-12, cpu=6.0, solved=True)]) is False
    assert verdict([*cells, cell("public-example", "np", 3, 1e-3, solved=False)]) is False


def test_baselines_train() -> None:
    """On a problem that each of them can solve; a baseline that does not train would flatter Neuron Pursuit."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 3))
    y = np.maximum(X[:, 0] + X[:, 1], 0) ** 2
    task = replace(all_tasks()["teacher-relu2-5"], width=2)
    draw = Draw(X, y / y.std(), X, y / y.std())
    data = Data.of(task, draw, 0)
    start = data.network(8, 1, 0.3, np.random.default_rng(1))
    for make, rate in ((descent, 0.0), (adam, 1e-2)):
        step, net = make(data.train, rate, np.random.default_rng(2)), start
        for k in range(300):
            net = step(net, k)
        assert data.train.loss(net) < 0.1 * data.train.loss(start)
    restarts = methods()[-1]
    fitted = restarts.fit(task, draw, 0, Clock(10.0))
    assert error_of(task, draw, fitted.predict(X)) < 1e-12
    assert fitted.parameters == 2 * 4 + 2 + 1


def test_the_clock_ends_a_fit() -> None:
    task = all_tasks()["teacher-relu-5"]
    draw = task.draw(0)
    for name in ("gd", "adam", "lm"):
        clock = Clock(0.2)
        fitted = all_methods()[name].fit(task, draw, 0, clock)
        assert clock.spent() < 1.5
        assert np.isfinite(fitted.predict(draw.X_test)).all()
