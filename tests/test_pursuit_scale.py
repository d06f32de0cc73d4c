"""Many samples: what growth costs, counted in passes over the data and in memory, not in seconds."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from gfsim import NeuronPursuitRegressor
from gfsim.models.activation import HomogeneousActivation
from gfsim.ncf import path
from gfsim.ncf.path import Branches, PathNCF, climb
from gfsim.pursuit import candidates, preparation
from gfsim.pursuit import null as null_module
from gfsim.pursuit import problem as problem_module
from gfsim.pursuit.candidates import Paths
from gfsim.pursuit.fit import LBFGS, Automatic
from gfsim.pursuit.growth import GrowthConfig, grow
from gfsim.pursuit.network import Network
from gfsim.pursuit.null import noise_null
from gfsim.pursuit.preparation import Scaling
from gfsim.pursuit.problem import LEFT_OUT, Problem
from gfsim.pursuit.risk import make_risk
from gfsim.pursuit.selection import Trials
from gfsim.pursuit.stopping import Budget

RELU = HomogeneousActivation(1, 0.0)


def teacher_problem(n: int, d: int = 5, neurons: int = 12, seed: int = 0) -> Problem:
    """More neurons than the tests grow, and noise: every addition lowers the loss."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    Y = np.maximum(X @ rng.normal(size=(d, neurons)), 0) @ rng.normal(size=(neurons, 1)) + rng.normal(size=(n, 1))
    return Problem(X, Y, np.full(n, 1 / n), make_risk("square"))


@dataclass
class Rows:
    """How many rows of data have gone through a network or an NCF."""

    parts: list[int] = field(default_factory=list)

    def count(self, n: int) -> None:
        self.parts.append(n)  # an append is safe where threads count together

    @property
    def seen(self) -> int:
        return sum(self.parts)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    counted = Rows()
    run, outputs, blocks = Network.run, Network.outputs, PathNCF._blocks

    def counted_run(self: Network, X: np.ndarray) -> object:
        counted.count(len(X))
        return run(self, X)

    def counted_outputs(self: Network, X: np.ndarray) -> np.ndarray:
        counted.count(len(X))
        return outputs(self, X)

    def counted_blocks(self: PathNCF, starts: int) -> object:
        for H, G in blocks(self, starts):
            counted.count(len(H))
            yield H, G

    monkeypatch.setattr(Network, "run", counted_run)
    monkeypatch.setattr(Network, "outputs", counted_outputs)
    monkeypatch.setattr(PathNCF, "_blocks", counted_blocks)
    return counted


def test_passes_per_addition_do_not_grow_with_the_samples(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not on all rows (starts of the climb) is on a bounded number of them."""
    monkeypatch.setattr(path, "SCREEN_SAMPLES", 500)
    additions = 4
    config = GrowthConfig(
        # 10 steps of L-BFGS an addition, no trials, no rescue: what a million samples get
        fitter=Automatic(largest=1.0, work=1.0),
        selection=Trials(largest=0.0),
        rescue=None,
        thin=None,
        rules=(Budget(additions),),
    )
    passes = []
    for n in (4_000, 16_000, 64_000):
        rows.parts.clear()
        grown = grow(teacher_problem(n), config, rng=np.random.default_rng(0))
        assert grown.net.n_neurons == len(grown.history) == additions
        # the climbs on 500 rows: at most 60 steps of 16 starts, and some looks at the starts
        passes.append((rows.seen - additions * 64 * 500) / n / additions)
    # 10 steps and a few line searches, at most 9 looks of the finish, the judgement, entry, pruning, bookkeeping
    assert max(passes) <= 40
    assert passes[2] <= 1.2 * passes[1] + 1


@pytest.mark.parametrize("weighted", [False, True])
def test_the_noise_of_many_samples_is_that_of_a_part(
    rows: Rows, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, rng = teacher_problem(8_000), np.random.default_rng(1)
    if weighted:
        v = rng.exponential(size=8_000)
        task = Problem(task.X, task.Y, v / v.sum(), task.risk)
    net = Network.empty(5, 1, 1, RELU, np.zeros(1))
    kept = net.run(task.X)
    monkeypatch.setattr(null_module, "LARGEST_FIT", -1.0)
    whole = noise_null(Paths(), task, net, kept, 40, rng)
    monkeypatch.setattr(null_module, "NULL_SAMPLES", 1_000)
    rows.parts.clear()
    part = noise_null(Paths(), task, net, kept, 40, rng)
    assert max(rows.parts) == 1_000
    # both are means of 40 maxima that scatter by about a third
    assert part == pytest.approx(whole, rel=0.35)


def test_a_fit_sees_its_start_once(rows: Rows) -> None:
    task = teacher_problem(300)
    rng = np.random.default_rng(0)
    net = Network((rng.normal(size=(3, 5)), rng.normal(size=(1, 3))), np.zeros(1), RELU)
    calls: list[np.ndarray] = []
    slope = Problem.loss_and_gradient

    class Counted(Problem):
        def loss_and_gradient(self, net: Network) -> tuple[float, np.ndarray]:
            calls.append(net.theta)
            return slope(self, net)

    counted = Counted(task.X, task.Y, task.weights, task.risk)
    fit = LBFGS(steps=5).run(counted, net)
    assert fit.loss < task.loss(net)
    assert sum(np.array_equal(theta, net.theta) for theta in calls) == 1
    assert rows.seen == 300 * (len(calls) + 1)  # nothing beside them but the line above


def test_rows_that_have_arrived_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start at its maximum already, one at a random place: the first is looked at twice."""
    rng = np.random.default_rng(2)
    H, G = rng.normal(size=(400, 6)), rng.normal(size=(400, 2))
    ncf = PathNCF(H, G, Branches.of(HomogeneousActivation(2, 0.0)))
    A = rng.normal(size=(8, 6))
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    A = climb(ncf, A, iterations=500, rtol=1e-12)
    A[1:] = rng.normal(size=(7, 6))
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    sizes: list[int] = []
    whole = PathNCF.phi_and_gradient

    def counted(self: PathNCF, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(A))
        return whole(self, A)

    monkeypatch.setattr(PathNCF, "phi_and_gradient", counted)
    alone = [climb(ncf, a[None], iterations=60, rtol=1e-3)[0] for a in A]
    sizes.clear()
    together = climb(ncf, A, iterations=60, rtol=1e-3)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 8
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)


def test_the_forward_pass_of_all_rows_keeps_what_growth_looks_at() -> None:
    rng = np.random.default_rng(3)
    for widths in ((5, 4, 1), (5, 4, 3, 2, 1)):
        net = Network(tuple(rng.normal(size=(b, a)) for a, b in pairwise(widths)), np.ones(1), RELU)
        task = teacher_problem(300)
        whole, kept = net.run(task.X), task.forward(net)
        np.testing.assert_allclose(kept.output, whole.output, rtol=1e-13)
        assert kept.hidden[0] is task.X
        assert kept.hidden[-1] is kept.slopes[0] is LEFT_OUT
        for l in range(1, net.depth - 1):
            np.testing.assert_allclose(kept.hidden[l], whole.hidden[l], rtol=1e-13)
            np.testing.assert_array_equal(kept.slopes[l], whole.slopes[l])
        with pytest.raises(ValueError, match="broadcast"):
            net.backpropagate(kept, task.pull(kept.output))  # down to the first layer, whose slopes are not there


def test_inputs_are_scaled_in_any_order_of_rows() -> None:
    rng = np.random.default_rng(4)
    X = 3 + 2 * rng.normal(size=(700, 4))
    scaling = Scaling.of(X, X[:, :1], np.ones(700), standardise=True, targets=True, bias=True)
    order = rng.permutation(700)[:600]
    np.testing.assert_array_equal(scaling.inputs(X, order), scaling.inputs(X)[order])


def test_a_fit_holds_the_table_once_more_and_little_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaled copy, and per row a few numbers: no hidden layer of all rows, no second copy for the split."""
    entries = 200_000
    for place in (preparation, problem_module):
        monkeypatch.setattr(place, "CHUNK_ENTRIES", entries)
    monkeypatch.setattr(path, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(preparation, "MERGE_ENTRIES", 1_000_000)  # as for tables of more than that by default
    for place in (path, candidates):
        monkeypatch.setattr(place, "SCREEN_SAMPLES", 500)
    monkeypatch.setattr(candidates, "ASCENT_ENTRIES", entries // 8)
    rng = np.random.default_rng(5)
    n, d, neurons = 20_000, 160, 12
    X = rng.normal(size=(n, d))
    y = np.maximum(X @ rng.normal(size=(d, 20)), 0) @ rng.normal(size=20)
    model = NeuronPursuitRegressor(
        max_neurons=neurons, selection="decrease", fitter=LBFGS(steps=5), l2=0.0, permutations=0, random_state=0
    )
    tracemalloc.start()
    model.fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.n_neurons_ == neurons
    numbers_a_row, chunks = 20, 4
    assert peak < X.nbytes * (d + 1) / d + 8 * (numbers_a_row * n + chunks * entries)
