"""Networks that fit by cancellation are told from others, and are never what a fit ends with."""

from __future__ import annotations

import numpy as np
import pytest

from gfsim.models.activation import HomogeneousActivation
from gfsim.pursuit import estimator as estimator_module
from gfsim.pursuit import growth as growth_module
from gfsim.pursuit.cancellation import cancellation
from gfsim.pursuit.estimator import NeuronPursuitRegressor
from gfsim.pursuit.fit import LevenbergMarquardt
from gfsim.pursuit.growth import grow
from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk

RELU = HomogeneousActivation(1, 0.0)


def task(seed: int = 0, n: int = 400) -> Problem:
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(n, 2)), np.ones(n)])
    Y = np.maximum(X[:, :1], 0) + 0.3 * rng.normal(size=(n, 1))
    return Problem(X, Y, np.full(n, 1 / n), make_risk("square"))


@pytest.mark.parametrize("size", [1e2, 1e5, 1e9])
def test_the_measure_is_the_size_of_the_terms(size: float) -> None:
    """size (relu(x + 1/size) - relu(x)) is of order one, and its terms are of order size."""
    W1 = np.array([[1.0, 0.0, 1.0 / size], [1.0, 0.0, 0.0]])
    net = Network((W1, np.array([[size, -size]])), np.array([5.0]), RELU)
    assert 0.5 * size < cancellation(task(), net) < 5 * size
    balanced = Network((W1 * 7.0, np.array([[size, -size]]) / 7.0), net.intercept, RELU)
    assert cancellation(task(), balanced) == pytest.approx(cancellation(task(), net), rel=1e-6)


def test_ordinary_networks_do_not_cancel() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        net = Network((rng.normal(size=(8, 3)), rng.normal(size=(6, 8)), rng.normal(size=(1, 6))), np.zeros(1), RELU)
        assert 0.1 < cancellation(task(), net) < 30
    nothing = Network((np.zeros((0, 3)), np.zeros((1, 0))), np.ones(1), RELU)
    assert cancellation(task(), nothing) == 1.0


def test_a_network_that_cancels_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = task()
    train, held = whole.rows(slice(0, 300)), whole.rows(slice(300, None))
    config = growth_module.GrowthConfig(activation=RELU)
    assert grow(train, config, rng=np.random.default_rng(0), validation=held).net.n_neurons > 0
    monkeypatch.setattr(growth_module, "cancellation", lambda *_: 2e6)
    assert grow(train, config, rng=np.random.default_rng(0), validation=held).net.n_neurons == 0


def test_a_refit_that_ends_in_cancellation_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = task()
    net = Network((np.array([[1.0, 0.1, 0.0]]), np.array([[0.5]])), np.zeros(1), RELU)
    fitter = LevenbergMarquardt()
    fitted = estimator_module._refitted(net, whole, fitter, 0.0)
    assert whole.loss(fitted) < whole.loss(net)
    monkeypatch.setattr(estimator_module, "cancellation", lambda *_: 2e6)
    assert whole.loss(estimator_module._refitted(net, whole, fitter, 0.0)) == pytest.approx(whole.loss(net), rel=1e-12)


def test_corners_of_a_cube_that_were_not_seen() -> None:
    """A draw on which growth ended at 1e17 off the samples: at rare corners the terms did not cancel."""
    from benchmarks.pursuit.tasks import all_tasks

    draw = all_tasks()["staircase-relu2-d15-n400"].draw(2)
    model = NeuronPursuitRegressor(
        hidden_layers=2, activation="leaky", p=2, alpha=0.0, max_neurons=50, random_state=2
    ).fit(draw.X, draw.y)
    assert np.mean((model.predict(draw.X_test) - draw.y_test) ** 2) < 1e-6
