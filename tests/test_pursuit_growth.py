"""The default mode of Neuron Pursuit: its parts against oracles, its invariances, and targets it must recover."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gfsim.errors import InvalidInput, NotHomogeneous, UnknownName
from gfsim.models.activation import HomogeneousActivation
from gfsim.ncf.path import chains
from gfsim.pursuit import problem as problem_module
from gfsim.pursuit.candidates import Paths, RandomDirections, SingleNeurons
from gfsim.pursuit.fit import LBFGS, Automatic, Fit, Flow, LevenbergMarquardt, make_fitter
from gfsim.pursuit.growth import Growth, GrowthConfig, grow
from gfsim.pursuit.network import Network
from gfsim.pursuit.penalties import L2_GRID, _thinned, grow_over_l2
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk
from gfsim.pursuit.selection import Entered, FixedNorm, LargestDecrease, LargestNCF, LineSearch, Trials
from gfsim.pursuit.stopping import Budget, NoiseOnly, Patience, State, default_rules
from gfsim.pursuit.tidy import Prune, Thin, contributions, split, turned

RELU, RELU2, SQUARE = HomogeneousActivation(1, 0.0), HomogeneousActivation(2, 0.0), HomogeneousActivation(2, -1.0)
LEAKY = HomogeneousActivation(1, 0.2)


def network(
    widths: tuple[int, ...], activation: HomogeneousActivation, seed: int = 0, intercept: bool = True
) -> Network:
    """Random weights, mostly positive above the first layer, so that no ReLU layer is dead."""
    rng = np.random.default_rng(seed)
    matrices = tuple(
        (rng.normal(size=(b, a)) if l == 0 else rng.normal(0.7, 0.5, size=(b, a))) / np.sqrt(a)
        for l, (a, b) in enumerate(pairwise(widths))
    )
    return Network(matrices, rng.normal(size=widths[-1]) if intercept else np.zeros(0), activation)


def problem(
    X: np.ndarray, Y: np.ndarray, risk: str = "square", l2: float = 0.0, weights: np.ndarray | None = None
) -> Problem:
    v = np.ones(len(X)) if weights is None else weights
    return Problem(X, Y.reshape(len(X), -1), v / v.sum(), make_risk(risk), l2)


def some_problem(risk: str, net: Network, n: int = 40, seed: int = 1, l2: float = 0.0) -> Problem:
    rng = np.random.default_rng(seed)
    X, K = rng.normal(size=(n, net.widths[0])), net.n_outputs
    targets = {
        "square": lambda: rng.normal(size=(n, K)),
        "logistic": lambda: rng.integers(0, 2, size=(n, K)).astype(float),
        "softmax": lambda: np.eye(K)[rng.integers(0, K, size=n)],
    }
    return problem(X, targets[risk](), risk, l2, rng.uniform(0.5, 2, size=n))


# -- the network ---------------------------------------------------------------------------------------


def test_many_classes_go_down_by_first_order_steps() -> None:
    """Where the normal matrix of the softmax is dear: to a minimum below which there is nothing that counts."""
    rng = np.random.default_rng(4)
    X = rng.standard_normal((200, 5))
    labels = (X[:, :3] + 0.5 * rng.standard_normal((200, 3))).argmax(axis=1)
    task = Problem(X, np.eye(3)[labels], np.full(200, 1 / 200), make_risk("softmax"), l2=1e-2)
    net = network((5, 3, 3), RELU)
    size = 200 * 3 * float(net.n_params) ** 2
    assert Automatic(largest=3.1 * size).cheap(task, net)
    dear = Automatic(largest=2.9 * size)
    assert not dear.cheap(task, net)
    found = dear.run(task, net)
    exact = LevenbergMarquardt(steps=500).run(task, found.net)
    assert found.reason == "stationary"
    assert found.loss < task.loss(net)
    assert found.loss - exact.loss <= 1e-3 * (task.loss(net) - exact.loss)
    assert dear.run(task, net, steps=3).steps <= 3


@pytest.mark.parametrize("activation", [RELU2, SQUARE, LEAKY], ids=lambda a: a.name)
def test_derivatives_of_the_network(activation: HomogeneousActivation) -> None:
    net = network((4, 3, 2, 2), activation)
    X = np.random.default_rng(3).normal(size=(5, 4))
    kept = net.run(X)
    np.testing.assert_allclose(kept.output, net.outputs(X))
    J, theta, eps = net.jacobian(kept), net.theta, 1e-6
    for j in range(net.n_params):
        step = np.zeros(net.n_params)
        step[j] = eps
        numeric = (net.with_theta(theta + step).outputs(X) - net.with_theta(theta - step).outputs(X)) / (2 * eps)
        np.testing.assert_allclose(J[:, :, j], numeric, atol=1e-6)
    C = np.random.default_rng(4).normal(size=(5, 2))
    np.testing.assert_allclose(net.gradient(kept, C), np.einsum("nk,nkp->p", C, J), rtol=1e-10)


def test_feed_forward_agrees() -> None:
    net = network((4, 3, 2, 2), LEAKY)
    model, w = net.feed_forward()
    X = np.random.default_rng(3).normal(size=(5, 4))
    np.testing.assert_allclose(model.forward(w, X) + net.intercept, net.outputs(X), rtol=1e-12)
    empty = Network.empty(4, 2, 2, RELU, np.ones(2))
    model, w = empty.feed_forward()
    assert model.widths == (4, 1, 1, 2)
    assert not w.any()
    np.testing.assert_array_equal(empty.outputs(X), np.ones((5, 2)))


@pytest.mark.parametrize("activation", [RELU, RELU2, SQUARE, LEAKY], ids=lambda a: a.name)
def test_balanced_is_the_same_function(activation: HomogeneousActivation) -> None:
    net = network((4, 3, 2, 2), activation)
    balanced = net.balanced()
    X = np.random.default_rng(3).normal(size=(50, 4))
    np.testing.assert_allclose(balanced.outputs(X), net.outputs(X), rtol=1e-9, atol=1e-10)
    for W, V in zip(balanced.matrices[:-1], balanced.matrices[1:], strict=True):
        np.testing.assert_allclose((W**2).sum(1), activation.p * (V**2).sum(0), rtol=1e-8)


def test_paths_that_cannot_be() -> None:
    net = network((4, 3, 2, 2), RELU)
    with pytest.raises(InvalidInput, match="a path from layer 2 to 1"):
        net.with_path(2, 1, np.ones(3), [], np.ones(2))
    with pytest.raises(InvalidInput, match="0 links"):
        net.with_path(1, 2, np.ones(4), [], np.ones(2))


# -- losses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "K"), [("square", 3), ("logistic", 1), ("softmax", 3)])
def test_risks_against_finite_differences(name: str, K: int) -> None:
    rng = np.random.default_rng(0)
    q = 2 * rng.normal(size=(6, K))
    y = np.eye(3)[rng.integers(0, 3, size=6)] if name == "softmax" else rng.integers(0, 2, size=(6, K)).astype(float)
    risk, eps = make_risk(name), 1e-5
    hessian = np.einsum("nkm,nkl->nml", *(2 * [risk.root(q, np.broadcast_to(np.eye(K), (6, K, K)))]))
    for k in range(K):
        step = eps * np.eye(K)[k]
        numeric = (risk.value(q + step, y) - risk.value(q - step, y)) / (2 * eps)
        np.testing.assert_allclose(risk.slope(q, y)[:, k], numeric, atol=1e-8)
        numeric = (risk.slope(q + step, y) - risk.slope(q - step, y)) / (2 * eps)
        np.testing.assert_allclose(hessian[:, k], numeric, atol=1e-8)
    v = rng.uniform(size=6)
    v /= v.sum()
    y[:K] = np.eye(K) if K > 1 else y[:K]
    y[0], y[1] = (y[0], y[1]) if K > 1 else (0.0, 1.0)
    best = risk.constant(y, v)
    np.testing.assert_allclose(v @ risk.slope(np.broadcast_to(best, y.shape), y), 0.0, atol=1e-12)
    with pytest.raises(UnknownName, match="'softmax'"):
        make_risk("softmacks")


@pytest.mark.parametrize(("risk", "K"), [("square", 2), ("logistic", 1), ("softmax", 3)])
def test_gradient_and_normal_matrix(risk: str, K: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network((4, 3, 2, K), RELU2)
    task = some_problem(risk, net, l2=0.1)
    loss, g = task.loss_and_gradient(net)
    loss2, g2, A = task.gauss_newton(net)
    assert loss == pytest.approx(loss2) == pytest.approx(task.loss(net))
    np.testing.assert_allclose(g, g2, rtol=1e-9, atol=1e-12)
    theta, eps = net.theta, 1e-6
    for j in range(net.n_params):
        step = np.zeros(net.n_params)
        step[j] = eps
        numeric = task.loss(net.with_theta(theta + step)) - task.loss(net.with_theta(theta - step))
        assert g[j] == pytest.approx(numeric / (2 * eps), abs=1e-6)
    # v'Av is the curvature of the loss along the linearised outputs, plus the penalty's
    v = np.random.default_rng(0).normal(size=net.n_params)
    kept = net.run(task.X)
    along = task.curvature_along(kept.output, np.einsum("nkp,p->nk", net.jacobian(kept), v))
    penalty = 2 * 0.1 * float((v[: net.n_params - K] ** 2).sum())
    assert v @ A @ v == pytest.approx(along + penalty, rel=1e-9)
    monkeypatch.setattr(problem_module, "CHUNK_ENTRIES", 100)  # a few rows at a time
    np.testing.assert_allclose(task.gauss_newton(net)[2], A, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(task.loss_and_gradient(net)[1], g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("risk", "K"), [("square", 1), ("square", 2), ("square", 4), ("logistic", 3), ("softmax", 4)])
def test_the_normal_matrix_is_that_of_the_jacobian(risk: str, K: int, intercept: bool) -> None:
    """Few outputs go through a root of the curvature, many block by block: either is sum v J' l'' J."""
    for widths in ((4, 3, K), (4, 3, 2, K), (4, 0, K), (4, 0, 0, K)):
        net = network(widths, LEAKY, intercept=intercept)
        task = some_problem(risk, net)
        kept = net.run(task.X)
        J = net.jacobian(kept)
        expected = np.einsum("n,nkp,nkq->pq", task.weights, J, task.risk.bend(kept.output, J))
        np.testing.assert_allclose(task.gauss_newton(net)[2], expected, rtol=1e-10, atol=1e-14)


# -- candidates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [RELU, RELU2, SQUARE, LEAKY], ids=lambda a: a.name)
@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 2), (3, 3), (1, 2), (2, 3), (1, 3)])
def test_a_path_enters_as_promised(activation: HomogeneousActivation, first: int, last: int) -> None:
    """Outputs change by t H1 to first order, with balanced sizes; the old units keep all their weights."""
    net = network((4, 3, 2, 3, 2), activation)
    task = some_problem("square", net)
    kept = net.run(task.X)
    pull = task.pull(kept.output)
    found = [c for c in Paths(starts=16).propose(task, net, kept, pull, np.random.default_rng(0))
             if (c.first, c.last) == (first, last)]  # fmt: skip
    assert found
    for candidate in found[:2]:
        branches = dict(chains(activation, last - first + 1))[candidate.links]
        z = kept.hidden[first - 1] @ candidate.a
        effect = net.lift(kept, last + 1, branches.value(z)[:, None] * candidate.b)
        t = 1e-7
        grown = candidate.enter(net, t)
        # a sample that silences a whole layer sits on the kinks of the next one, where there is no first order
        off = np.all([h.any(axis=1) for h in kept.hidden], axis=0)
        change = (grown.outputs(task.X) - kept.output) / t
        moved = effect + candidate.shift  # the intercept moves along
        np.testing.assert_allclose(change[off], moved[off], atol=1e-3 * np.abs(effect).max())
        assert (effect * pull).sum() == pytest.approx(candidate.ncf, rel=1e-6)
        for l, (W, V) in enumerate(zip(net.matrices, grown.matrices, strict=True)):
            np.testing.assert_array_equal(V[: W.shape[0], : W.shape[1]], W)
            new_row, new_column = first <= l + 1 <= last, first <= l <= last
            assert V.shape == (W.shape[0] + new_row, W.shape[1] + new_column)
        for layer in range(first, last + 1):
            incoming, outgoing = grown.matrices[layer - 1][-1], grown.matrices[layer][:, -1]
            assert (incoming**2).sum() == pytest.approx(activation.p * (outgoing**2).sum(), rel=1e-9)


def test_predicted_decrease_is_the_real_one_in_the_last_layer() -> None:
    """With the square loss a neuron of the last hidden layer enters linearly: the prediction is exact."""
    net = network((4, 3, 2, 2), RELU)
    task = some_problem("square", net)
    kept = net.run(task.X)
    found = Paths().propose(task, net, kept, task.pull(kept.output), np.random.default_rng(0))
    assert [c.predicted for c in found] == sorted((c.predicted for c in found), reverse=True)
    before = task.loss(net)
    for candidate in (c for c in found if c.last == 2):
        drop = before - task.loss(candidate.enter(net, candidate.scale))
        assert drop == pytest.approx(candidate.predicted, rel=1e-8)
        for factor in (0.9, 1.1):  # and the scale is the best one
            assert before - task.loss(candidate.enter(net, factor * candidate.scale)) < drop
    # in a lower layer it is the decrease to first order
    low = next(c for c in found if c.last == 1)
    t = 1e-5 * low.scale
    assert (before - task.loss(low.enter(net, t))) / (2e-5 * low.predicted) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("activation", [RELU, RELU2, SQUARE], ids=lambda a: a.name)
def test_what_is_predicted_does_not_depend_on_scale_or_order_of_neurons(activation: HomogeneousActivation) -> None:
    """Raw NCF values change when neurons are rescaled without changing the function; predictions do not."""
    net = network((4, 3, 3, 1), activation)
    W1, W2, W3 = net.matrices
    p = activation.p
    each = np.array([4.0, 0.5, 3.0])
    permuted = Network((W1, W2[[2, 0, 1]], W3[:, [2, 0, 1]]), net.intercept, activation)
    layer = Network((W1, 4.0 * W2, W3 * 4.0**-p), net.intercept, activation)
    neurons = Network((W1, each[:, None] * W2, W3 * each**-p), net.intercept, activation)
    task = some_problem("square", net)

    def propose(one: Network) -> dict[tuple[int, int], tuple[float, float]]:
        np.testing.assert_allclose(one.outputs(task.X), net.outputs(task.X), rtol=1e-9)
        kept = one.run(task.X)
        found = Paths(starts=200, keep=1).propose(task, one, kept, task.pull(kept.output), np.random.default_rng(0))
        return {(x.first, x.last): (x.predicted, x.ncf) for x in found}

    def same(
        got: dict[tuple[int, int], tuple[float, float]], wanted: dict[tuple[int, int], tuple[float, float]]
    ) -> None:
        assert got.keys() == wanted.keys()
        for place, (predicted, _) in wanted.items():
            assert got[place][0] == pytest.approx(predicted, rel=1e-3)

    reference = propose(net)
    same(propose(permuted), reference)
    same(propose(layer), reference)
    assert propose(layer)[1, 1][1] == pytest.approx(reference[1, 1][1] / 4.0, rel=1e-3)  # the raw value did change
    same(propose(neurons.balanced()), propose(net.balanced()))


def test_ablations_propose_what_they_say() -> None:
    net = network((4, 3, 2, 1), RELU)
    task = some_problem("square", net)
    kept = net.run(task.X)
    pull = task.pull(kept.output)
    rng = np.random.default_rng(0)
    assert {(c.first, c.last) for c in Paths().propose(task, net, kept, pull, rng)} == {(1, 1), (2, 2), (1, 2)}
    assert {(c.first, c.last) for c in SingleNeurons().propose(task, net, kept, pull, rng)} == {(1, 1), (2, 2)}
    best = Paths().propose(task, net, kept, pull, rng)[0]
    blind = RandomDirections().propose(task, net, kept, pull, rng)
    assert max(c.ncf for c in blind if (c.first, c.last) == (best.first, best.last)) < best.ncf
    empty = Network.empty(4, 1, 2, RELU, np.zeros(1))
    kept = empty.run(task.X)
    found = SingleNeurons().propose(task, empty, kept, task.pull(kept.output), rng)
    assert {(c.first, c.last) for c in found} == {(1, 2)}  # from nothing only a path leads anywhere


# -- fits ----------------------------------------------------------------------------------------------


def teacher(n: int = 300, d: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).normal(size=(n, d))
    return X, np.maximum(X @ np.arange(1, d + 1), 0) ** 2 / 50


@pytest.mark.parametrize("fitter", ["lm", "lbfgs", "auto"])
@pytest.mark.parametrize(("risk", "K"), [("square", 2), ("logistic", 1), ("softmax", 3)])
def test_fits_go_down_to_a_stationary_point(fitter: str, risk: str, K: int) -> None:
    net = network((4, 2, K), RELU2)
    task = some_problem(risk, net, n=80, l2=1e-2)
    start = task.loss(net)
    fit = make_fitter(fitter).run(task, net, steps=400)
    assert fit.loss < start
    assert fit.loss == pytest.approx(task.loss(fit.net))
    assert np.linalg.norm(task.loss_and_gradient(fit.net)[1]) < 2e-4
    again = make_fitter(fitter).run(task, fit.net, steps=400)
    assert again.loss <= fit.loss


def test_fits_reach_a_goal_and_keep_a_budget() -> None:
    X, y = teacher()
    task = problem(X, y)
    net = network((5, 1, 1), RELU2, intercept=False)
    for fitter in (LevenbergMarquardt(), LBFGS()):
        done = fitter.run(task, net, goal=1e-8, steps=500)
        assert done.reason == "loss"
        assert done.loss <= 1e-8
        assert fitter.run(task, net, steps=2).steps <= 2
    flow = Flow().run(task, net, goal=1e-4)
    assert flow.loss <= 1.01e-4
    with pytest.raises(InvalidInput, match="plain mean square loss"):
        Flow().run(task.with_l2(1.0), net)
    with pytest.raises(UnknownName, match="'lbfgs'"):
        make_fitter("lbgfs")


def test_the_automatic_fitter_looks_at_the_cost() -> None:
    X, y = teacher()
    net = network((5, 3, 1), RELU2)
    assert Automatic().cheap(problem(X, y), net)
    assert not Automatic(largest=300 * net.n_params**2 - 1).cheap(problem(X, y), net)


# -- tidying -------------------------------------------------------------------------------------------


def test_dead_neurons_are_pruned_and_nothing_else() -> None:
    net = network((4, 3, 2, 1), RELU)
    W1, W2, W3 = (W.copy() for W in net.matrices)
    W2[:, 1] = 0.0  # neuron 1 of layer 1 is not heard
    dead = Network((W1, W2, W3), net.intercept, RELU)
    task = some_problem("square", net)
    pruned = Prune().apply(task, dead)
    assert pruned.hidden_widths == (2, 2)
    np.testing.assert_allclose(pruned.outputs(task.X), dead.outputs(task.X), atol=1e-12)
    assert Prune().apply(task, net).hidden_widths == (3, 2)
    sizes, spread = contributions(task, dead)
    assert spread == pytest.approx(float(np.sqrt(task.weights @ ((dead.outputs(task.X) - dead.intercept) ** 2)[:, 0])))
    assert sizes[0][1] == 0.0 < min(sizes[0][0], sizes[0][2])


def test_splitting_escapes_where_every_ncf_vanishes() -> None:
    """Candidates are withheld, as if every NCF vanished: the rescue must lower the loss by itself."""

    class Nothing:
        def propose(self, *_: Any) -> list[Any]:
            return []

    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = X[:, 0] ** 2 + X[:, 1] ** 2 - 1.5 * X[:, 2] ** 2
    task = problem(X, y)
    start = LevenbergMarquardt().run(task, network((3, 1, 1), SQUARE, intercept=False)).net
    config = GrowthConfig(activation="square", fit_intercept=False, candidates=Nothing(), rules=(Budget(3),))
    grown = grow(task, config, rng=rng, start=start)
    assert grown.history[0]["kind"] == "split"
    assert grown.loss < 0.9 * task.loss(start)
    without = GrowthConfig(
        activation="square", fit_intercept=False, candidates=Nothing(), rescue=None, rules=(Budget(3),)
    )
    stuck = grow(task, without, rng=rng, start=start)
    assert stuck.ending == "no_escape"
    assert stuck.loss == pytest.approx(task.loss(start))


def test_split_halves_are_the_neuron() -> None:
    net = network((4, 2, 1), RELU2)
    X = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_allclose(split(net, 1, 1, np.zeros(4)).outputs(X), net.outputs(X), rtol=1e-12)
    eps, v = 1e-3, np.random.default_rng(1).normal(size=4)
    W1, W2 = net.matrices
    change = split(net, 1, 1, eps * v).outputs(X) - net.outputs(X)
    second = 0.5 * eps**2 * W2[0, 1] * RELU2.curvature(X @ W1[1]) * (X @ v) ** 2
    far = np.abs(X @ W1[1]) > 0.05
    np.testing.assert_allclose(change[far, 0], second[far], atol=1e-9)


def test_thinning_takes_out_what_is_not_needed() -> None:
    X, y = teacher()
    task = problem(X, y)
    fit = LevenbergMarquardt(steps=300).run(task, network((5, 4, 1), RELU2, intercept=False), goal=1e-12)
    assert fit.loss <= 1e-12
    thin = Thin().apply(task, fit.net, fitter=LevenbergMarquardt(), good=lambda _, loss: loss <= 1e-12, goal=1e-12)
    assert thin.hidden_widths == (1,)
    assert task.loss(thin) <= 1e-12


def test_with_noise_a_neuron_goes_only_if_the_training_data_do_not_miss_it() -> None:
    """Validation data that any smaller network pleases must not take out what the training data ask for."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1], 0) + 0.3 * rng.normal(size=200)
    task, misled = problem(X, y), problem(X, 0.0 * y)
    grown = grow(task, GrowthConfig(rules=(Budget(2),)), rng=np.random.default_rng(0))
    copied = split(grown.net, 1, 0, np.zeros(4))  # one neuron twice: that one may go
    found = replace(grown, net=copied, validation=1.1 * misled.data_loss(copied))
    thin = _thinned(found, task, misled, GrowthConfig())
    assert thin.net.n_neurons == grown.net.n_neurons == 2
    assert thin.loss <= 1.01 * grown.loss


def test_thinning_gives_up_fits_at_rest_where_the_goal_was_reached() -> None:
    """A network of the teacher's own size has no neuron to spare: each is tried from two places, for two looks."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1] + X[:, 2], 0)
    net = Network((np.array([[1.0, 0, 0, 0, 0], [0, 1, 1, 0, 0]]), np.array([[1.0, -1.0]])), np.zeros(1), RELU)
    budgets: list[int | None] = []

    class Counting(LevenbergMarquardt):
        def run(self, problem: Problem, net: Network, *, goal: float = 0.0, steps: int | None = None) -> Fit:
            budgets.append(steps)
            return super().run(problem, net, goal=goal, steps=steps)

    task, thin = problem(X, y), Thin(look=15)
    same = thin.apply(task, net, fitter=Counting(), good=lambda _, loss: loss <= 1e-12, goal=1e-12)
    assert same is net
    assert budgets == [15] * 8
    budgets.clear()  # a network that never reached the goal is measured by its validation: its fits go all the way
    thin.apply(task, net, fitter=Counting(), good=lambda *_: False, goal=-1.0)
    assert budgets == [None] * 4
    with pytest.raises(InvalidInput, match="look"):
        Thin(look=0)


@pytest.mark.parametrize(
    ("activation", "side"), [(RELU, 1.0), (LEAKY, 1.0), (LEAKY, -1.0), (HomogeneousActivation(1, 1.5), 1.0)]
)
def test_a_linear_neuron_leaves_when_others_are_turned_round(activation: HomogeneousActivation, side: float) -> None:
    """s(z) + s(u) as (1 + alpha) z + s(-z) + s(u), z by a neuron whose kink no sample reaches: exact up to there."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.uniform(-1.0, 1.0, size=(300, 3)), np.ones(300)])
    a, u = np.array([1.0, 0.5, 0.0, 0.2]), np.array([0.0, 1.0, -1.0, 0.1])
    slope = max(1.0, activation.alpha) if side > 0 else min(1.0, activation.alpha)
    far = np.array([0.0, 0.0, 0.0, 10.0 * side])
    weight, gain = 1.0 + activation.alpha, 1.0 / slope
    W = np.array([-a, weight * gain * a + far, u])
    net = Network((W, np.array([[1.0, 1.0, 1.0]])), np.array([-slope * 10.0 * side]), activation)
    y = activation.value(X @ a) + activation.value(X @ u)
    task = problem(X, y)
    assert task.loss(net) < 1e-25
    (start,) = turned(task, net, 1, 1)
    np.testing.assert_allclose(start.matrices[0], [a, u])
    assert turned(task, net, 1, 0) == []  # not linear
    thin = Thin().apply(task, net, fitter=LevenbergMarquardt(), good=lambda _, loss: loss <= 1e-20, goal=1e-20)
    assert thin.hidden_widths == (2,)
    beyond = 50.0 * X
    np.testing.assert_allclose(
        thin.outputs(beyond)[:, 0], activation.value(beyond @ a) + activation.value(beyond @ u), atol=1e-6
    )


# -- rules ---------------------------------------------------------------------------------------------


def state(**changes: Any) -> State:
    values: dict[str, Any] = {
        "loss": 1.0, "goal": 1e-8, "neurons": 3, "crowding": 0.1, "validated": True, "waited": 0, "falls": (),
        "predicted": 0.1, "null": lambda _: 0.2,
    }  # fmt: skip
    return State(**(values | changes))


def test_rules() -> None:
    rules = default_rules(5, 6, 19)

    def ending(**changes: Any) -> str | None:
        found = [stop[0] for rule in rules if (stop := rule(state(**changes))) is not None]
        return found[0] if found else None

    assert ending() is None
    assert ending(loss=1e-9) == "loss"
    assert ending(neurons=5) == "budget"
    assert ending(falls=(0.5, 1e-5, 1e-5, 1e-5)) == "no_improvement"
    assert ending(falls=(0.5, 1e-5, 1e-5)) is None
    assert ending(falls=(1e-5, 1e-5, 1e-5, 0.5, 1e-5)) is None
    assert ending(crowding=2.0) == "budget"
    assert ending(waited=6) == "validation"
    assert ending(waited=6, validated=False, predicted=0.3) is None
    assert ending(waited=4) == "null"  # in doubt, and no better than noise
    assert ending(waited=3) is None
    assert ending(waited=4, predicted=0.3) is None
    assert ending(validated=False) == "null"
    with pytest.raises(InvalidInput, match="permutations = -1"):
        default_rules(5, 4, -1)
    with pytest.raises(InvalidInput, match="patience = 0"):
        Patience(0)
    with pytest.raises(InvalidInput, match="max_neurons = -1"):
        Budget(-1)


def test_the_permutation_null_tells_signal_from_noise() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 10))
    config = GrowthConfig(rules=(NoiseOnly(9), Budget(3)))
    noise = grow(problem(X, rng.normal(size=300)), config, rng=rng)
    assert (noise.ending, noise.net.n_neurons) == ("null", 0)
    signal = grow(problem(X, np.maximum(X[:, 0] + X[:, 1], 0) + 0.3 * rng.normal(size=300)), config, rng=rng)
    assert signal.ending == "null"
    assert 1 <= signal.net.n_neurons <= 2
    assert signal.history[0]["predicted"] > signal.history[0]["null"] > 0


# -- growth --------------------------------------------------------------------------------------------


def with_one(X: np.ndarray) -> np.ndarray:
    return np.column_stack([X, np.ones(len(X))])


def solve(X: np.ndarray, y: np.ndarray, seed: int = 0, **changes: Any) -> Growth:
    """A fifth of the samples validates; penalties are chosen as the estimators do it."""
    m = len(X) // 5
    config = GrowthConfig(**changes)
    return grow_over_l2(problem(X[m:], y[m:]), config, L2_GRID, seed=seed, validation=problem(X[:m], y[:m]))


def published_target(X: np.ndarray) -> np.ndarray:
    def s(z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0)

    x1, x2, x3, x4 = X.T[:4]
    return 2 * s(s(2 * x1 + x3) - s(x3 - x2)) - s(s(2 * x2 + x4) + s(x4 + x3))


@pytest.mark.parametrize("seed", range(4))
def test_the_public_example_is_solved_with_six_neurons(seed: int) -> None:
    rng = np.random.default_rng([11, seed])
    X, X_test = rng.choice([-1.0, 1.0], size=(1000, 20)), rng.choice([-1.0, 1.0], size=(5000, 20))
    found = solve(with_one(X), published_target(X), seed, hidden_layers=2)
    assert np.mean((found.net.outputs(with_one(X_test))[:, 0] - published_target(X_test)) ** 2) < 1e-10
    assert found.net.n_neurons <= 6


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_deep_teachers_are_recovered(p: int, seed: int) -> None:
    rng = np.random.default_rng([12, seed])
    V1, V2 = (V / np.linalg.norm(V, axis=1, keepdims=True) for V in (rng.normal(size=(3, 15)), rng.normal(size=(3, 3))))
    out = rng.choice([-1.0, 1.0], size=3) * rng.uniform(0.5, 1.5, size=3)

    def f(X: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(X @ V1.T, 0) ** p @ V2.T, 0) ** p @ out

    X, X_test = rng.normal(size=(600, 15)), rng.normal(size=(4000, 15))
    scale = f(X).std()
    found = solve(X, f(X) / scale, seed, hidden_layers=2, p=p)
    assert np.mean((found.net.outputs(X_test)[:, 0] - f(X_test) / scale) ** 2) < 1e-8


@pytest.mark.parametrize("seed", range(2))
def test_a_staircase_needs_paths(seed: int) -> None:
    """x1 + x1 x2 + x1 x2 x3 exactly, with at most 12 neurons; without paths and trials it is not found."""
    rng = np.random.default_rng([13, seed])
    X, X_test = rng.choice([-1.0, 1.0], size=(400, 15)), rng.choice([-1.0, 1.0], size=(4000, 15))

    def f(X: np.ndarray) -> np.ndarray:
        return X[:, 0] + X[:, 0] * X[:, 1] + X[:, 0] * X[:, 1] * X[:, 2]

    def error(found: Growth) -> float:
        return float(np.mean((found.net.outputs(with_one(X_test))[:, 0] - f(X_test)) ** 2))

    full = solve(with_one(X), f(X), seed, hidden_layers=2, p=2)
    assert error(full) < 1e-10
    assert full.net.n_neurons <= 12
    bare = solve(with_one(X), f(X), seed, hidden_layers=2, p=2, candidates=SingleNeurons(), selection=LargestNCF(),
                 entry=FixedNorm(), thin=None, rescue=None, rules=(Budget(12), Patience(4)))  # fmt: skip
    assert error(bare) > 1e-3


def test_every_row_of_the_history_is_true() -> None:
    X, y = teacher()
    y = y + 0.5 * np.maximum(-X[:, 0], 0) ** 2
    task = problem(X, y)
    seen: list[tuple[dict[str, Any], Network]] = []
    config = GrowthConfig(p=2, rules=(Budget(2),), fit_intercept=True)
    grown = grow(task, config, rng=np.random.default_rng(0), callback=lambda row, net: seen.append((row, net)))
    assert [row for row, _ in seen] == grown.history
    before = task.loss(Network.empty(5, 1, 1, RELU2, np.array([y.mean()])))
    for k, (row, net) in enumerate(seen, start=1):
        assert row["addition"] == row["neurons"] == k
        assert row["loss"] == pytest.approx(task.loss(net))
        assert row["decrease"] == pytest.approx(before - row["loss"])
        assert row["decrease"] > 0
        assert row["entered"] == pytest.approx(row["predicted"], rel=1e-8)  # one hidden layer: exact
        assert row["parameters"] == net.n_params
        before = row["loss"]
    assert grown.ending == "budget"


def test_a_step_that_does_not_help_is_not_taken() -> None:
    class Useless:
        def run(self, task: Problem, net: Network, **_: Any) -> Any:
            from gfsim.pursuit.fit import Fit

            worse = net.with_theta(2.0 * net.theta + 1.0)
            return Fit(worse, task.loss(worse), 1, "budget")

    X, y = teacher()
    grown = grow(problem(X, y), GrowthConfig(fitter=Useless(), p=2), rng=np.random.default_rng(0))
    assert grown.ending == "no_improvement"
    assert grown.net.n_neurons == 0
    assert grown.history == []


def test_caution_prefers_the_smaller_network() -> None:
    """Noise fitted by a few neurons: without caution any lucky validation loss makes a network the best."""
    rng = np.random.default_rng(6)
    X, y = rng.normal(size=(80, 4)), rng.normal(size=80)
    train, held = problem(X[:50], y[:50]), problem(X[50:], y[50:])
    sizes = []
    for caution in (0.0, 50.0):
        config = GrowthConfig(caution=caution, rules=(Budget(4), Patience(9)), thin=None)
        grown = grow(train, config, rng=np.random.default_rng(0), validation=held)
        sizes.append(grown.net.n_neurons)
        losses = [row["validation"] for row in grown.history]
        if caution == 0.0:
            assert grown.validation == min(
                [*losses, held.data_loss(Network.empty(4, 1, 1, RELU, np.array([y[:50].mean()])))]
            )
    assert sizes[1] == 0 < sizes[0]


def test_selections_and_entries_can_be_exchanged() -> None:
    X, y = teacher()
    task = problem(X, y)
    for selection in (Trials(), LargestDecrease(), LargestNCF()):
        for entry in (LineSearch(), FixedNorm(0.1)):
            config = GrowthConfig(p=2, selection=selection, entry=entry, rules=(Budget(2),))
            assert grow(task, config, rng=np.random.default_rng(0)).loss < 1e-10
    added = FixedNorm(0.1).enter
    kept = Network.empty(5, 1, 2, RELU2, np.zeros(1))
    run = kept.run(X)
    candidate = Paths().propose(task, kept, run, task.pull(run.output), np.random.default_rng(0))[0]
    entered = added(task, kept, candidate, 1.0)
    assert entered is not None
    assert np.sqrt(sum((W**2).sum() for W in entered.net.matrices)) == pytest.approx(0.1)


def test_trials_glance_at_all_and_try_the_best_of_every_path() -> None:
    """The budget of steps is as said, and with as many finalists as candidates each gets all its steps."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 5))
    task = problem(X, rng.normal(size=60))
    net = Network.empty(5, 1, 1, RELU, np.zeros(1))
    kept = net.run(X)
    found = Paths(keep=5).propose(task, net, kept, task.pull(kept.output), rng)
    asked: list[int] = []

    class Counting(LevenbergMarquardt):
        def run(self, problem: Problem, net: Network, *, goal: float = 0.0, steps: int | None = None) -> Fit:
            asked.append(-1 if steps is None else steps)
            return super().run(problem, net, goal=goal, steps=steps)

    def choose(**changes: int) -> Entered | None:
        asked.clear()
        return Trials(**changes).choose(
            task, net, found, loss=task.loss(net), entry=LineSearch(), fitter=Counting(), goal=0.0
        )

    candidates = len(found)
    assert candidates > 3
    few = choose(glance=5, steps=20, finalists=1)
    assert asked == [5] * candidates + [15]
    best = choose(glance=5, steps=20, finalists=candidates)
    assert asked == [5] * candidates + [15] * candidates
    assert few is not None
    assert best is not None
    assert best.loss <= few.loss < task.loss(net)
    choose(glance=30, steps=20)
    assert asked == [20] * candidates


@pytest.mark.parametrize(("left", "sizes"), [(0.8, [3, 6, 10]), (0.6, [3, 6]), (0.4, [3]), (0.0, [3])])
def test_paths_that_cannot_win_are_not_tried(left: float, sizes: list[int]) -> None:
    """Three weights that take away a third of the loss gain more each than ten could, and if they take away half of it,
    more than six could; a neuron at the goal ends the trials."""
    net = network((4, 2, 2, 1), RELU)
    task = some_problem("square", net)
    kept = net.run(task.X)
    found = Paths().propose(task, net, kept, task.pull(kept.output), np.random.default_rng(0))
    assert {(c.first, c.last) for c in found} == {(1, 1), (2, 2), (1, 2)}
    loss, tried = task.loss(net), []

    class Promised:
        def run(self, _: Problem, grown: Network, **__: Any) -> Fit:
            tried.append(grown.n_params - net.n_params)
            return Fit(grown, left * loss, 1, "budget")

    chosen = Trials().choose(task, net, found, loss=loss, entry=LineSearch(), fitter=Promised(), goal=0.0)
    assert chosen is not None
    assert (chosen.candidate.first, chosen.candidate.last) == (2, 2)
    assert list(dict.fromkeys(tried)) == sizes
    assert len(tried) > 1 or left == 0.0


@pytest.mark.parametrize("relax", [False, True])
def test_growth_with_a_penalty_ends_where_only_the_penalty_is_left(relax: bool) -> None:
    """The network that it stops at is exact without the penalty."""
    rng = np.random.default_rng(5)
    X = with_one(rng.normal(size=(300, 6)))
    y = np.maximum(X[:, 0] + X[:, 1], 0) - np.maximum(X[:, 2], 0)
    train, held = problem(X[60:], y[60:]).with_l2(1e-4), problem(X[:60], y[:60])
    found = grow(train, GrowthConfig(), rng=np.random.default_rng(0), validation=held, relax=relax)
    assert found.grown_l2 == 1e-4
    if relax:
        assert (found.ending, found.l2, found.solved, len(found.history)) == ("loss", 0.0, True, 2)
        assert found.explained
        assert "without the penalty" in found.message
    else:
        assert (found.ending, found.l2, found.solved) == ("no_improvement", 1e-4, False)


def test_growth_on_noise_is_not_taken_for_one_without() -> None:
    """With noise a fit without the penalty does not reach the goal, and the penalty stays."""
    rng = np.random.default_rng(6)
    X = with_one(rng.normal(size=(300, 6)))
    y = np.maximum(X[:, 0], 0) + 0.1 * rng.normal(size=300)
    train, held = problem(X[60:], y[60:]).with_l2(1e-2), problem(X[:60], y[:60])
    found = grow(train, GrowthConfig(), rng=np.random.default_rng(0), validation=held, relax=True)
    assert (found.l2, found.solved) == (1e-2, False)


def test_config_refuses() -> None:
    with pytest.raises(InvalidInput, match="hidden_layers = 0"):
        GrowthConfig(hidden_layers=0)
    with pytest.raises(NotHomogeneous, match="tanh"):
        GrowthConfig(activation="tanh")
    with pytest.raises(InvalidInput, match="loss_rtol = 2"):
        GrowthConfig(loss_rtol=2)
    with pytest.raises(InvalidInput, match="caution = nan"):
        GrowthConfig(caution=float("nan"))
    with pytest.raises(UnknownName, match="'auto'"):
        GrowthConfig(fitter="autos")


def test_many_samples_cost_a_bounded_amount_of_memory_and_steps() -> None:
    """A pass over 300,000 rows may hold a few chunks, not the hidden layer of all of them (72 MB)."""
    import tracemalloc

    rng = np.random.default_rng(0)
    net = network((5, 30, 1), RELU)
    X = rng.normal(size=(300_000, 5))
    task = problem(X, net.outputs(X)[:, 0] + rng.normal(size=300_000))
    small = task.rows(np.arange(150_000))
    peaks = []
    for one in (small, task):
        tracemalloc.start()
        one.loss_and_gradient(net)
        contributions(one, net)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 8 * 300_000 * 3
    start = net.with_theta(1.1 * net.theta)
    assert not Automatic().cheap(task, start)
    assert Automatic(work=1e6).run(task, start).steps == 10
    assert Automatic(work=12.5 * 300_000 * net.n_params).run(task, start).steps <= 12
