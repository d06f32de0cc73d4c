"""Neuron Pursuit as a scikit-learn estimator."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gfsim.errors import InvalidInput, UnknownName
from gfsim.pursuit.algorithm import PursuitConfig
from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor
from gfsim.pursuit.minimise import Descent

QUICK = Descent(step=0.01, max_steps=3000)


def regressor(**changes: Any) -> NeuronPursuitRegressor:
    settings = {"activation": "square", "max_neurons": 4, "minimiser": QUICK, "random_state": 0}
    return NeuronPursuitRegressor(**settings | changes)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X, V = rng.normal(size=(120, 5)), np.linalg.qr(rng.normal(size=(5, 2)))[0]
    return X, (X @ V[:, 0]) ** 2 - (X @ V[:, 1]) ** 2


def test_fit_and_predict(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    model = regressor()
    assert model.fit(X, y) is model
    assert model.n_features_in_ == 5
    assert model.predict(X).shape == (120,)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-10)
    assert model.score(X, y) == pytest.approx(1.0)
    assert model.model_.hidden_widths == (2,)
    assert model.weights_.shape == (model.model_.n_params,)
    assert model.n_iter_ == 2
    assert [row["kind"] for row in model.history_] == ["minimise", "minimise", "polish"]
    assert model.result_.stop.reason == "loss"


def test_settings_reach_the_algorithm() -> None:
    """Every setting of PursuitConfig but the loss is a parameter of the estimator, with the same default."""
    estimator = NeuronPursuitRegressor()
    config = estimator._config()
    reference = PursuitConfig(hidden_layers=1, minimiser="descent")
    assert config == reference
    changed = {"delta": 0.5, "starts": 3, "on_worse": "refuse", "patience": 9, "mirror_rtol": 0.0, "polish": False}
    assert NeuronPursuitRegressor(**changed)._config() == PursuitConfig(hidden_layers=1, minimiser="descent", **changed)  # type: ignore[arg-type]


def test_clone_pickle_and_reproducibility(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    first = regressor().fit(X, y)
    second = clone(first).fit(X, y)
    np.testing.assert_array_equal(first.weights_, second.weights_)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first)).predict(X), first.predict(X))
    for state in (None, np.random.RandomState(0), np.random.default_rng(0)):
        assert regressor(random_state=state).fit(X, y).score(X, y) > 0.999


def test_several_outputs(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    two = np.column_stack([y, -2 * y])
    model = regressor().fit(X, two)
    assert model.predict(X).shape == (120, 2)
    assert model.score(X, two) > 0.999


def test_bias_is_a_constant_input() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 2))
    y = np.maximum(X[:, 0] + 1.0, 0)
    with_bias = NeuronPursuitRegressor(bias=True, max_neurons=1, minimiser=QUICK, random_state=0).fit(X, y)
    without = NeuronPursuitRegressor(bias=False, max_neurons=1, minimiser=QUICK, random_state=0).fit(X, y)
    assert with_bias.n_features_in_ == 2
    assert with_bias.model_.n_inputs == 3
    assert with_bias.score(X, y) == pytest.approx(1.0, abs=1e-10)
    assert without.score(X, y) < 0.95


def test_validation_data(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    model = regressor(loss_rtol=0.0).fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    assert all(np.isfinite(row["validation"]) for row in model.history_)


def test_checks_of_scikit_learn() -> None:
    """Its own conformity suite, on settings that keep each of its many fits short."""
    from sklearn.utils.estimator_checks import check_estimator

    short = Descent(step=0.01, max_steps=200)
    for estimator in (NeuronPursuitRegressor, NeuronPursuitClassifier):
        model = estimator(max_neurons=3, minimiser=short, random_state=0, starts=8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of checks that it skips
            results = check_estimator(model, on_fail=None)
        assert [r["check_name"] for r in results if r["status"] == "failed"] == []


def test_in_a_pipeline(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    scores = cross_val_score(make_pipeline(StandardScaler(with_mean=False), regressor()), X, y, cv=3)
    assert scores.min() > 0.999


def test_classifier() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = np.where(np.abs(X[:, 0]) > np.abs(X[:, 1]), "wide", "tall")
    model = NeuronPursuitClassifier(
        activation="square", max_neurons=3, minimiser=Descent(step=0.1, max_steps=1000), random_state=0, polish=False
    )
    model.fit(X[:150], y[:150])
    assert list(model.classes_) == ["tall", "wide"]
    assert model.score(X[150:], y[150:]) > 0.9
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1.0)
    np.testing.assert_array_equal(model.predict(X) == "wide", probability[:, 1] > 0.5)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-model.decision_function(X))), rtol=1e-10)


def test_refusals(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    with pytest.raises(NotFittedError):
        regressor().predict(X)
    with pytest.raises(ValueError, match="NaN"):
        regressor().fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(UnknownName, match="'descent'"):
        regressor(minimiser="descents").fit(X, y)
    with pytest.raises(InvalidInput, match="Only binary"):
        NeuronPursuitClassifier().fit(X, np.arange(120) % 3)
    fitted = regressor().fit(X, y)
    with pytest.raises(ValueError, match="features"):
        fitted.predict(X[:, :4])
    classifier = NeuronPursuitClassifier(max_neurons=1, minimiser=Descent(max_steps=10), polish=False)
    with pytest.raises(InvalidInput, match="not one of the classes"):
        classifier.fit(X, y > 0, X_val=X, y_val=np.full(120, 7))
