"""Growths that are set aside, those that begin anew, and what they are for."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.pursuit.tasks import all_tasks
from gfsim import NeuronPursuitRegressor
from gfsim.errors import InvalidInput
from gfsim.pursuit.candidates import Candidates, Paths, RandomDirections, SingleNeurons
from gfsim.pursuit.growth import Grower, Growth, GrowthConfig
from gfsim.pursuit.penalties import L2_GRID, _Search, grow_over_l2
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.restart import Restart
from gfsim.pursuit.risk import make_risk


def problem(X: np.ndarray, y: np.ndarray, risk: str = "square") -> Problem:
    return Problem(np.column_stack([X, np.ones(len(X))]), y[:, None], np.full(len(X), 1 / len(X)), make_risk(risk))


def target(X: np.ndarray) -> np.ndarray:
    return np.maximum(X[:, 0] + X[:, 1], 0) - np.maximum(X[:, 2], 0)


def data(noise: float, n: int = 300) -> tuple[Problem, Problem]:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(n, 6))
    y = target(X) + noise * rng.normal(size=n)
    return problem(X[60:], y[60:]), problem(X[:60], y[:60])


def test_who_strays() -> None:
    restart = Restart(below=0.05, after=2, again=1)
    assert restart.strays(0.04, 2, False)
    assert not restart.strays(0.04, 1, False)
    assert restart.strays(0.04, 1, True)
    assert not restart.strays(0.04, 0, True)
    assert not restart.strays(0.06, 8, True)


def test_new_growths_search_elsewhere() -> None:
    single, few = Restart(fewer=8).searches(Paths(starts=64, ascents=8, keep=3))
    assert (type(single), type(few)) == (SingleNeurons, Paths)
    assert isinstance(single, Paths)
    assert isinstance(few, Paths)
    assert (few.starts, few.ascents, few.keep) == (single.starts, single.ascents, single.keep) == (8, 1, 3)
    assert [type(c) for c in Restart().searches(SingleNeurons())] == [SingleNeurons]
    assert [type(c) for c in Restart().searches(RandomDirections())] == [RandomDirections]


@pytest.mark.parametrize("wrong", [{"below": 0.0}, {"after": 0}, {"again": 0}, {"most": -1}, {"fewer": 0}])
def test_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Restart(**wrong)


def test_a_growth_goes_on_from_where_it_was_set_aside() -> None:
    train, held = data(0.1)

    def grower() -> Grower:
        return Grower(train, GrowthConfig(), np.random.default_rng(3), held, None, None, False, True)

    whole, parted, stops = grower().go(), grower(), 0
    waits = iter(range(1, 4))
    allowed = next(waits)

    def strays(left: float, waited: int) -> bool:
        return left > 0 and waited >= allowed

    while (found := parted.look(strays)) is None:
        assert parted.waited == allowed
        assert parted.so_far().validation == pytest.approx(parted.left * parted.null_loss)
        stops, allowed = stops + 1, next(waits, 1000)
    assert stops > 1
    assert (found.ending, found.message) == (whole.ending, whole.message)
    np.testing.assert_array_equal(found.net.theta, whole.net.theta)
    assert [row["loss"] for row in found.history] == [row["loss"] for row in whole.history]


@pytest.mark.parametrize("risk", ["square", "logistic"])
def test_noisy_targets_are_grown_as_without(risk: str) -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(200, 5))
    y = target(X) + 0.5 * rng.normal(size=200)
    if risk == "logistic":
        y = (y > 0).astype(float)
    train, held = problem(X[40:], y[40:], risk), problem(X[:40], y[:40], risk)
    rows: list[float] = []

    def keep(row: dict[str, Any], _: Any) -> None:
        rows.append(row["loss"])

    found = [
        grow_over_l2(train, GrowthConfig(restart=restart), (0.0, 1e-2), seed=0, validation=held, callback=keep)
        for restart in (None, Restart())
    ]
    np.testing.assert_array_equal(found[0].net.theta, found[1].net.theta)
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


@dataclass
class Planned:
    """A growth that leaves ``left`` at its first look, and arrives when its ``turns``-th turn comes."""

    number: int
    l2: float
    candidates: Candidates
    left: float
    turns: float
    log: list[tuple[int, str]]
    done: int = field(default=0, init=False)

    @property
    def problem(self) -> Any:
        return SimpleNamespace(l2=self.l2)

    def _growth(self) -> Growth:
        validation = 0.0 if self.done >= self.turns else self.left
        nothing: Any = None
        return Growth(nothing, [], "validation", "", 0.0, validation, 0.0, self.l2, False, 1.0, 0.0)

    def look(self, strays: Any) -> Growth | None:
        self.done += 1
        self.log.append((self.number, "look"))
        return self._growth() if self.done >= self.turns or not strays(self.left, 9) else None

    def go(self) -> Growth:
        self.done += 1
        self.log.append((self.number, "go"))
        return self._growth()

    so_far = _growth


def searched(lefts: list[float], turns: dict[int, float], restart: Restart | None) -> tuple[list[Any], list[Planned]]:
    """The order of the turns, and the growths that began; number 0 and 1 are those of the grid."""
    log: list[tuple[int, str]] = []
    begun: list[Planned] = []
    train, held = data(0.0)

    def begin(k: int, l2: float, candidates: Candidates) -> Any:
        begun.append(Planned(k, l2, candidates, lefts[k], turns.get(k, np.inf), log))
        return begun[-1]

    _Search(begin, GrowthConfig(restart=restart), train, held, relax=False).go((0.0, 1e-3))
    return log, begun


def test_the_order_of_growths() -> None:
    few = Restart(most=2)
    # nothing is set aside where much is left
    assert searched([0.3, 0.2], {}, few)[0] == [(0, "look"), (1, "look")]
    assert searched([0.01, 0.02], {}, None)[0] == [(0, "look"), (1, "look")]
    # the second of the grid arrives before the first goes on
    assert searched([0.01, 0.02], {0: 2, 1: 1}, few)[0] == [(0, "look"), (1, "look")]
    # new ones begin with the penalty that came furthest, and the first that arrives ends the search
    log, begun = searched([0.02, 0.01, 0.03, 0.03], {3: 1}, few)
    assert log == [(0, "look"), (1, "look"), (2, "look"), (3, "look")]
    assert [(one.l2, type(one.candidates)) for one in begun[2:]] == [(1e-3, SingleNeurons), (1e-3, Paths)]
    # else the growths of the grid go on, the furthest first, and before them a new one only if it is ahead
    first = [(k, "look") for k in range(4)]
    assert searched([0.02, 0.01, 0.03, 0.03], {}, few)[0] == [*first, (1, "go"), (0, "go")]
    assert searched([0.02, 0.01, 0.03, 0.001], {}, few)[0] == [*first, (3, "go"), (1, "go"), (0, "go")]
    assert searched([0.02, 0.01, 0.03, 0.03], {1: 2}, few)[0] == [*first, (1, "go")]


@pytest.mark.parametrize("seed", [1, 108])
def test_deep_teachers_that_the_first_growth_misses(seed: int) -> None:
    task = all_tasks()["teacher-relu-3-3"]
    draw = task.draw(seed)
    model = NeuronPursuitRegressor(hidden_layers=2, random_state=seed).fit(draw.X, draw.y)
    assert np.mean((model.predict(draw.X_test) - draw.y_test) ** 2) < 1e-8


def test_the_users_end_is_the_end() -> None:
    """What was set aside counts, too, when nothing goes on."""
    train, held = data(0.2)
    penalties: list[float] = []

    def stop(row: dict[str, Any], _: Any) -> bool:
        penalties.append(row["l2"])
        return row["l2"] == 0.0

    config = GrowthConfig(restart=Restart(below=1.0), thin=None)
    found = grow_over_l2(train, config, L2_GRID, seed=0, validation=held, callback=stop)
    assert (penalties[-2:], found.grown_l2, found.ending) == ([0.0, 1e-4], 0.0, "validation")
    assert "set aside" in found.message
