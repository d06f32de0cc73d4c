"""The search for what explains most (gfsim.ncf.decrease), and the way back to the best network."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gfsim.errors import InvalidInput
from gfsim.models.activation import HomogeneousActivation
from gfsim.ncf.decrease import PathDecrease, ascend
from gfsim.ncf.path import Branches, PathNCF, chains
from gfsim.pursuit.candidates import Judge, Paths, RandomDirections
from gfsim.pursuit.growth import GrowthConfig, grow
from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.retreat import Retreat
from gfsim.pursuit.risk import make_risk
from gfsim.pursuit.stopping import default_rules

RELU, RELU2, SQUARE = HomogeneousActivation(1, 0.0), HomogeneousActivation(2, 0.0), HomogeneousActivation(2, -1.0)


def some_decrease(activation: HomogeneousActivation, links: tuple[int, ...], K: int) -> PathDecrease:
    rng = np.random.default_rng(0)
    n = 60
    q = rng.uniform(0.5, 2.0, size=n) / n
    # rows that an intercept could have: the bound |sum r s|^2 <= sum q s^2 holds
    r = np.sqrt(q)[:, None] * np.linalg.qr(rng.normal(size=(n, 2)))[0][:, :K]
    branches = Branches.of(activation, links)
    return PathDecrease(rng.normal(size=(n, 5)), rng.normal(size=n) / n, q, r, branches)


@pytest.mark.parametrize("activation", [RELU, RELU2, SQUARE], ids=lambda a: a.name)
@pytest.mark.parametrize(("links", "K"), [((), 0), ((), 1), ((1,), 2)])
def test_the_turn_is_the_gradient_on_the_sphere(
    activation: HomogeneousActivation, links: tuple[int, ...], K: int
) -> None:
    decrease = some_decrease(activation, links, K)
    rng = np.random.default_rng(1)
    A = rng.normal(size=(4, 5))
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    value, turn = decrease.value_and_turn(A)
    np.testing.assert_allclose((turn * A).sum(axis=1), 0.0, atol=1e-12)
    eps = 1e-6
    for direction in rng.normal(size=(3, 4, 5)):
        tangent = direction - (direction * A).sum(axis=1, keepdims=True) * A
        ends = []
        for sign in (1.0, -1.0):
            moved = A + sign * eps * tangent
            ends.append(decrease.value_and_turn(moved / np.linalg.norm(moved, axis=1, keepdims=True))[0])
        numeric = (np.log(ends[0]) - np.log(ends[1])) / (2 * eps)
        np.testing.assert_allclose((turn * tangent).sum(axis=1), numeric, rtol=1e-4, atol=1e-5)
    end, high = ascend([decrease], A, np.zeros(4, dtype=int), iterations=100)
    assert (high >= value).all()
    np.testing.assert_allclose(decrease.value_and_turn(end)[0], high)
    np.testing.assert_allclose(np.linalg.norm(end, axis=1), 1.0)


def network(widths: tuple[int, ...], intercept: bool) -> Network:
    rng = np.random.default_rng(2)
    matrices = tuple(rng.normal(0.5, 0.7, size=(b, a)) / np.sqrt(a) for a, b in pairwise(widths))
    return Network(matrices, rng.normal(size=widths[-1]) if intercept else np.zeros(0), RELU2)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("risk", "K"), [("square", 2), ("logistic", 1), ("softmax", 3)])
def test_what_is_climbed_is_what_is_predicted(risk: str, K: int, intercept: bool) -> None:
    """sqrt(2 D) of :class:`PathDecrease` against the decrease that the candidate itself predicts."""
    net = network((4, 3, 2, K), intercept)
    rng = np.random.default_rng(3)
    X = rng.normal(size=(50, 4))
    Y = {
        "square": rng.normal(size=(50, K)),
        "logistic": rng.integers(0, 2, size=(50, K)).astype(float),
        "softmax": np.eye(K)[rng.integers(0, K, size=50)],
    }[risk]
    v = rng.uniform(0.5, 2.0, size=50)
    task = Problem(X, Y, v / v.sum(), make_risk(risk))
    if intercept:  # at its best value, as growth has it: the pull then has no part along it
        for _ in range(30):
            kept = net.run(X)
            judge = Judge.at(task, net, kept, task.pull(kept.output))
            step = judge.answer @ judge.pull.sum(axis=0)
            net = Network(net.matrices, net.intercept + step, RELU2)
    kept = net.run(X)
    pull = task.pull(kept.output)
    judge = Judge.at(task, net, kept, pull)
    deltas = net.backpropagate(kept, pull, lowest=2)
    found = Paths(starts=8, ascents=2).propose(task, net, kept, pull, np.random.default_rng(0))
    assert {(c.first, c.last) for c in found} == {(1, 1), (2, 2), (1, 2)}
    for c in found:
        branches = dict(chains(RELU2, c.n_neurons))[c.links]
        ncf = PathNCF(kept.hidden[c.first - 1], deltas[c.last + 1], branches)
        value, turn = judge.along(ncf, c.last, c.b).value_and_turn(c.a[None])
        assert value[0] ** 2 / 2 == pytest.approx(c.predicted, rel=1e-6)
        assert turn.shape == (1, len(c.a))


def test_ascents_with_other_outgoing_weights_climb_together_as_each_would_alone() -> None:
    several = [some_decrease(RELU, (), 1) for _ in range(3)]
    rng = np.random.default_rng(4)
    several = [replace(one, pull=rng.normal(size=60) / 60) for one in several]
    A = rng.normal(size=(9, 5))
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    group = np.repeat(np.arange(3), [4, 0, 5])
    together, high = ascend(several, A, group, iterations=25)
    for g in (0, 2):
        alone, value = ascend([several[g]], A[group == g], np.zeros((group == g).sum(), dtype=int), iterations=25)
        np.testing.assert_allclose(together[group == g], alone, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(high[group == g], value)


def test_a_candidate_is_turned_to_where_the_loss_falls() -> None:
    """Away from the best intercept the better sign of b is that of the effect with the intercept's part."""
    net = replace(network((4, 3, 1), True), activation=RELU)
    rng = np.random.default_rng(5)
    task = Problem(rng.normal(size=(50, 4)), rng.normal(3.0, 1.0, size=(50, 1)), np.full(50, 0.02), make_risk("square"))
    kept = net.run(task.X)
    judge = Judge.at(task, net, kept, task.pull(kept.output))
    branches = Branches.of(RELU)
    ncf = PathNCF(task.X, net.backpropagate(kept, judge.pull)[2], branches)
    signs = set()
    for a in rng.normal(size=(20, 4)):
        c = judge(1, 1, (), branches, a / np.linalg.norm(a), np.ones(1), ncf)
        assert c.scale > 0
        assert task.loss(c.enter(net, 1e-6)) < task.loss(net)
        signs.add(np.sign(c.ncf))
    assert signs == {-1.0, 1.0}


def parity(n: int, d: int, seed: int) -> Problem:
    X = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n, d))
    y = X[:, :4].prod(axis=1)
    return Problem(X, y[:, None] - y.mean(), np.full(n, 1 / n), make_risk("square"))


def test_spikes_do_not_hide_what_the_data_hold() -> None:
    """x1 x2 x3 x4 of thirty inputs by (a.x)^4: the raw NCF has its maxima along samples, the decrease in x1 .. x4."""
    right: dict[int, int] = {}
    for ascents in (0, 8):
        right[ascents] = 0
        for seed in range(4):
            task = parity(600, 30, seed)
            net = Network.empty(30, 1, 2, SQUARE, np.zeros(1))
            kept = net.run(task.X)
            found = Paths(ascents=ascents).propose(task, net, kept, task.pull(kept.output), np.random.default_rng(seed))
            right[ascents] += max(float((c.a[:4] ** 2).sum()) for c in found) > 0.95
    assert right[0] == 0
    assert right[8] >= 3


def test_more_starts_and_fewer() -> None:
    assert Paths().with_starts(4) == Paths(starts=256, ascents=32)
    assert Paths(starts=16).with_starts(0.1) == Paths(starts=8, ascents=1)
    assert Paths(ascents=0).with_starts(2).ascents == 0
    assert RandomDirections().with_starts(8).ascents == 0
    for make in (lambda: Paths(ascents=-1), lambda: Retreat(after=0), lambda: Retreat(wider=0)):
        with pytest.raises(InvalidInput, match="whole number"):
            make()


def test_growth_goes_back_once_and_looks_more_widely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pure noise: nothing validates, so the constant stays the best network."""
    rng = np.random.default_rng(4)
    X, y = rng.normal(size=(120, 6)), rng.normal(size=(120, 1))
    whole = Problem(X, y, np.full(120, 1 / 120), make_risk("square"))
    train, held = whole.rows(slice(0, 80)), whole.rows(slice(80, None))
    asked: list[float] = []
    real = Paths.with_starts

    def watched(self: Paths, factor: float) -> Paths:
        asked.append(factor)
        return real(self, factor)

    monkeypatch.setattr(Paths, "with_starts", watched)

    def widths(retreat: Retreat | None) -> list[Any]:
        config = GrowthConfig(rules=default_rules(50, 6, 0), retreat=retreat)
        grown = grow(train, config, rng=np.random.default_rng(0), validation=held)
        assert grown.net.n_neurons == 0
        return [row["neurons"] for row in grown.history]

    assert widths(None) == [1, 2, 3, 4, 5, 6]
    assert asked == []
    assert widths(Retreat(after=4, wider=3)) == [1, 2, 3, 4, 1, 2]
    assert asked == [3]
    # without validation data there is no best network to go back to
    grown = grow(train, GrowthConfig(rules=default_rules(6, 6, 0)), rng=np.random.default_rng(0))
    assert [row["neurons"] for row in grown.history] == [1, 2, 3, 4, 5, 6]


def test_many_samples_are_not_climbed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    task = parity(60, 5, 0)
    net = Network.empty(5, 1, 2, SQUARE, np.zeros(1))
    kept = net.run(task.X)

    def best(paths: Paths) -> float:
        return paths.propose(task, net, kept, task.pull(kept.output), np.random.default_rng(0))[0].predicted

    plain = best(Paths(ascents=0))
    assert best(Paths()) > plain
    monkeypatch.setattr("gfsim.pursuit.candidates.SCREEN_SAMPLES", 59)
    assert best(Paths()) == plain
