"""Several grown networks as one, and when the estimators grow several."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsim.errors import InvalidInput
from gfsim.models.activation import HomogeneousActivation
from gfsim.pursuit.average import mean_network
from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor
from gfsim.pursuit.network import Network

RELU = HomogeneousActivation(1)


def network(widths: tuple[int, ...], seed: int, *, intercept: bool = True) -> Network:
    rng = np.random.default_rng(seed)
    matrices = tuple(rng.normal(size=(b, a)) for a, b in pairwise(widths))
    return Network(matrices, rng.normal(size=widths[-1]) if intercept else np.zeros(0), RELU)


@given(
    hidden=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5),
    intercept=st.booleans(),
    outputs=st.integers(1, 3),
)
def test_outputs_are_the_mean(hidden: list[tuple[int, int]], intercept: bool, outputs: int) -> None:
    """Empty layers included, where a block has rows without columns."""
    nets = [network((3, a, b, outputs), k, intercept=intercept) for k, (a, b) in enumerate(hidden)]
    X = np.random.default_rng(9).normal(size=(20, 3))
    mean = mean_network(nets)
    assert mean.n_neurons == sum(net.n_neurons for net in nets)
    expected = np.mean([net.outputs(X) for net in nets], axis=0)
    np.testing.assert_allclose(mean.outputs(X), expected, rtol=1e-9, atol=1e-9)


def test_networks_that_do_not_fit_are_refused() -> None:
    net = network((3, 2, 1), 0)
    for other in (
        network((4, 2, 1), 0),
        network((3, 2, 2), 0),
        network((3, 2, 2, 1), 0),
        replace(net, activation=HomogeneousActivation(2)),
        replace(net, intercept=np.zeros(0)),
    ):
        with pytest.raises(InvalidInput, match="same inputs, depth, outputs and activation"):
            mean_network([net, other])
    with pytest.raises(InvalidInput, match="at least one"):
        mean_network([])


def noisy(seed: int, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, np.maximum(X[:, 0] + X[:, 1], 0) - np.abs(X[:, 2]) + rng.normal(size=n)


def test_noise_is_averaged() -> None:
    """The mean predicts better than its parts do on average, as a mean of estimators with noise of their own must."""
    X, y = noisy(0)
    fresh = np.random.default_rng(1).normal(size=(2000, 4))
    truth = np.maximum(fresh[:, 0] + fresh[:, 1], 0) - np.abs(fresh[:, 2])
    model = NeuronPursuitRegressor(networks=4, refit=False, random_state=0).fit(X, y)
    assert len(model.growths_) == 4
    assert model.growths_[0] is model.growth_
    assert model.n_neurons_ == sum(growth.net.n_neurons for growth in model.growths_)
    assert len({growth.grown_l2 for growth in model.growths_}) == 1
    assert len({growth.validation for growth in model.growths_}) == 4  # each held out rows of its own
    scaled = model._scaling.inputs(fresh)
    parts = [model._scaling.outputs(growth.net.outputs(scaled))[:, 0] for growth in model.growths_]
    np.testing.assert_allclose(model.predict(fresh), np.mean(parts, axis=0), rtol=1e-9, atol=1e-9)
    errors = [float(np.mean((part - truth) ** 2)) for part in parts]
    assert float(np.mean((model.predict(fresh) - truth) ** 2)) < np.mean(errors)


def test_the_first_of_several_is_the_only_one_of_one() -> None:
    X, y = noisy(2)
    one = NeuronPursuitRegressor(random_state=5).fit(X, y)
    more = NeuronPursuitRegressor(networks=2, random_state=5).fit(X, y)
    for first, row in zip(one.history_, more.history_, strict=True):
        np.testing.assert_equal({**row, "seconds": 0}, {**first, "seconds": 0})


def test_without_noise_there_is_one() -> None:
    X, _ = noisy(3)
    y = np.maximum(X[:, 0] + X[:, 1], 0) - np.maximum(X[:, 2], 0)
    model = NeuronPursuitRegressor(networks=5, random_state=0).fit(X, y)
    assert len(model.growths_) == 1
    assert model.growth_.explained


def test_one_where_nothing_can_be_held_out() -> None:
    X, y = noisy(4)
    given = NeuronPursuitRegressor(networks=3, max_neurons=3, random_state=0).fit(
        X[:100], y[:100], None, X[100:], y[100:]
    )
    none = NeuronPursuitRegressor(networks=3, max_neurons=3, validation_fraction=0, random_state=0).fit(X, y)
    assert len(given.growths_) == len(none.growths_) == 1


def test_a_warm_start_grows_one() -> None:
    """Each of several would hold the present network whole, and their mean as many copies of it."""
    X, y = noisy(7)
    model = NeuronPursuitRegressor(networks=3, max_neurons=3, l2=1e-3, warm_start=True, random_state=0).fit(X, y)
    before = model.n_neurons_
    assert len(model.growths_) == 3
    model.fit(X, y)
    assert len(model.growths_) == 1
    assert model.n_neurons_ <= max(before, 3)


def test_the_callback_ends_them_all() -> None:
    X, y = noisy(5)
    seen: list[int] = []

    def few(_: object, net: Network) -> bool:
        seen.append(net.n_neurons)
        return len(seen) < 3

    model = NeuronPursuitRegressor(networks=3, l2=0.0, random_state=0, callback=few).fit(X, y)
    assert (len(seen), len(model.growths_), model.stop_) == (3, 1, "callback")


def test_classes() -> None:
    X, y = noisy(6)
    labels = np.digitize(y, [-1.0, 0.5])
    model = NeuronPursuitClassifier(networks=2, max_neurons=4, l2=1e-3, random_state=0).fit(X, labels)
    assert len(model.growths_) == 2
    assert model.predict_proba(X).shape == (150, 3)
    with pytest.raises(InvalidInput, match="networks = 0"):
        NeuronPursuitClassifier(networks=0).fit(X, labels)
