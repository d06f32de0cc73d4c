"""The test against noise, and neurons that stand in for one another."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gfsim.models.activation import HomogeneousActivation
from gfsim.pursuit.candidates import Paths
from gfsim.pursuit.network import Network
from gfsim.pursuit.null import LEAST_DRAWS, fitted_away, noise_null, noise_slopes
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk
from gfsim.pursuit.tidy import stand_in

RELU = HomogeneousActivation(1, 0.0)


def network(rng: np.random.Generator, *widths: int) -> Network:
    matrices = tuple(rng.normal(size=(b, a)) for a, b in pairwise(widths))
    return Network(matrices, rng.normal(size=widths[-1]), RELU)


def problem(rng: np.random.Generator, net: Network, name: str, n: int = 60) -> Problem:
    X = rng.normal(size=(n, net.widths[0]))
    weights = rng.uniform(0.5, 1.5, size=n)
    K = net.n_outputs
    Y = rng.normal(size=(n, K)) if name == "square" else np.eye(K)[rng.integers(K, size=n)]
    if name == "logistic":
        Y = rng.integers(2, size=(n, 1)).astype(float)
    return Problem(X, Y, weights / weights.sum(), make_risk(name))


@pytest.mark.parametrize(("name", "outputs"), [("square", 2), ("logistic", 1), ("softmax", 3)])
def test_what_the_weights_can_fit_is_taken_out_of_the_noise(name: str, outputs: int) -> None:
    """Afterwards the noise is orthogonal to all first-order changes of the outputs, as the residuals of a fit are."""
    rng = np.random.default_rng(0)
    net = network(rng, 4, 3, 2, outputs)
    task = problem(rng, net, name)
    kept = net.run(task.X)
    S = rng.normal(size=(*kept.output.shape, 5))
    if name == "softmax":
        S -= S.mean(axis=1, keepdims=True)  # slopes of the softmax add up to zero
    left = fitted_away(task, net, kept, S)
    J = net.jacobian(kept)
    before, after = (np.einsum("n,nkm,nkp->mp", task.weights, T, J) for T in (S, left))
    assert np.abs(after).max() < 1e-9 * np.abs(before).max()
    np.testing.assert_allclose(fitted_away(task, net, kept, left), left, atol=1e-9)


@pytest.mark.parametrize(("name", "outputs"), [("square", 2), ("logistic", 1), ("softmax", 3)])
def test_curvature_and_noise_of_the_losses(name: str, outputs: int) -> None:
    rng = np.random.default_rng(1)
    risk = make_risk(name)
    q, V = rng.normal(size=(7, outputs)), rng.normal(size=(7, outputs, 4))
    y = np.eye(outputs)[rng.integers(outputs, size=7)]
    # l'' is the derivative of the slope
    for m in range(4):
        h = 1e-6
        numeric = (risk.slope(q + h * V[:, :, m], y) - risk.slope(q - h * V[:, :, m], y)) / (2 * h)
        np.testing.assert_allclose(risk.bend(q, V)[:, :, m], numeric, atol=1e-8)
    if name == "square":
        np.testing.assert_allclose(
            np.sort(risk.noise(q, y, np.ones(7), rng), axis=0), np.sort(risk.slope(q, y), axis=0)
        )
        return
    # labels drawn from the outputs' own probabilities: slopes of mean zero and of the variance l''
    copies = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 0.3])  # less than one is one
    draws = np.stack([risk.noise(q, y, copies, rng) for _ in range(20_000)])
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.02)
    diagonal = np.stack([risk.bend(q, np.eye(outputs)[None, :, [k]].repeat(7, 0))[:, k, 0] for k in range(outputs)], 1)
    diagonal[5] /= 4.0
    np.testing.assert_allclose(draws.var(axis=0), diagonal, atol=0.02)


def test_the_noise_of_confident_classes_is_not_blown_up() -> None:
    """Labels drawn from a steep logistic model: what is left of them is noise, and the null must say about as much.

    Residuals that are exchanged between the samples put errors where the model is sure, and predicted a decrease
    about a hundred times too large: growth on classes stopped far too early.
    """
    rng = np.random.default_rng(2)
    net = Network((np.array([[3.0, 1.0]]), np.array([[6.0]])), np.array([-4.0]), RELU)
    X = rng.normal(size=(600, 2))
    q = net.outputs(X)
    Y = (rng.random(q.shape) < 1 / (1 + np.exp(-q))).astype(float)
    task = Problem(X, Y, np.full(600, 1 / 600), make_risk("logistic"))
    kept = net.run(X)
    true = Paths().propose(task, net, kept, task.pull(kept.output), rng)[0].predicted
    null = noise_null(Paths(), task, net, kept, 9, rng)
    assert 0.1 < true / null < 10
    exchanged = max(
        Paths(keep=1).propose(task, net, kept, rng.permutation(task.pull(kept.output)), rng)[0].predicted
        for _ in range(3)
    )
    assert exchanged > 10 * null


def test_many_samples_are_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    net = network(rng, 4, 3, 1)
    task = problem(rng, net, "square")
    kept = net.run(task.X)
    monkeypatch.setattr("gfsim.pursuit.null.LARGEST_FIT", 1.0)
    monkeypatch.setattr("gfsim.pursuit.null.fitted_away", None)
    for slopes in noise_slopes(task, net, kept, 3, rng):
        assert slopes.shape == (60, 1)
        assert abs(float(task.weights @ slopes[:, 0])) < 1e-12


def test_neurons_stand_in_for_one_that_leaves() -> None:
    rng = np.random.default_rng(4)
    for layer in (1, 2):
        net = network(rng, 4, 3, 3, 2)
        task = problem(rng, net, "square")
        matrices = [W.copy() for W in net.matrices]
        matrices[layer - 1][2] = 2.0 * matrices[layer - 1][0]  # the same neuron twice
        twin = Network(tuple(matrices), net.intercept, RELU)
        merged = stand_in(task, twin, layer, 2)
        assert merged.widths[layer] == 2
        np.testing.assert_allclose(merged.outputs(task.X), twin.outputs(task.X), atol=1e-9)
    # a neuron that is constant on the data goes into the intercept
    net = network(rng, 4, 3, 2)
    task = problem(rng, net, "square")
    X = np.column_stack([task.X[:, :3], np.ones(60)])
    task = Problem(X, task.Y, task.weights, task.risk)
    W = net.matrices[0].copy()
    W[1] = [0.0, 0.0, 0.0, 2.0]
    constant = Network((W, net.matrices[1]), net.intercept, RELU)
    merged = stand_in(task, constant, 1, 1)
    np.testing.assert_allclose(merged.outputs(X), constant.outputs(X), atol=1e-9)


def test_what_stands_in_is_the_nearest_in_mean_square() -> None:
    rng = np.random.default_rng(5)
    net = network(rng, 4, 3, 1)
    task = problem(rng, net, "square")
    smaller = stand_in(task, net, 1, 0)

    def distance(other: Network) -> float:
        return float(task.weights @ ((other.outputs(task.X) - net.outputs(task.X)) ** 2)[:, 0])

    assert distance(smaller) < distance(net.without(1, 0))
    for _ in range(20):
        moved = smaller.matrices[1] + 0.05 * rng.normal(size=smaller.matrices[1].shape)
        assert distance(smaller) <= distance(Network((smaller.matrices[0], moved), smaller.intercept, RELU))


def test_copies_count_in_standard_errors_and_in_noise() -> None:
    """Merged rows must say what the copies said: the same standard error, and a null that is no larger."""
    rng = np.random.default_rng(6)
    X, Y = rng.normal(size=(40, 2)), rng.integers(2, size=(40, 1)).astype(float)
    copies = rng.integers(1, 30, size=40)
    risk = make_risk("logistic")
    total = int(copies.sum())
    merged = Problem(X, Y, copies / total, risk, size=total)
    whole = Problem(np.repeat(X, copies, 0), np.repeat(Y, copies, 0), np.full(total, 1 / total), risk)
    values = rng.normal(size=40)
    assert merged.standard_error(values) == pytest.approx(whole.standard_error(np.repeat(values, copies)))
    np.testing.assert_allclose(merged.copies, copies)
    part = merged.rows(np.arange(10))
    np.testing.assert_allclose(part.copies, copies[:10])
    assert part.size == pytest.approx(copies[:10].sum())
    net = Network((rng.normal(size=(2, 2)), rng.normal(size=(1, 2))), np.zeros(1), RELU)
    nulls = [noise_null(Paths(), task, net, net.run(task.X), 40, rng) for task in (merged, whole)]
    assert nulls[0] == pytest.approx(nulls[1], rel=0.35)


def test_draws_end_when_the_comparison_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from the mean a few draws are enough, near it all are made; without a number to compare with, all too."""
    rng = np.random.default_rng(4)
    net = network(rng, 4, 3, 1)
    task = problem(rng, net, "square")
    kept = net.run(task.X)
    made: list[int] = []
    propose = Paths.propose

    def counted(self: Paths, *args: Any) -> Any:
        made.append(1)
        return propose(self, *args)

    monkeypatch.setattr(Paths, "propose", counted)

    def draws(against: float) -> tuple[float, int]:
        made.clear()
        mean = noise_null(Paths(), task, net, kept, 19, np.random.default_rng(0), against=against)
        return mean, len(made)

    mean, all_of_them = draws(float("nan"))
    assert all_of_them == 19
    assert draws(mean) == (mean, 19)
    for clear in (100.0 * mean, 0.01 * mean):
        rough, few = draws(clear)
        assert few == LEAST_DRAWS
        assert 0.3 * mean < rough < 3 * mean
