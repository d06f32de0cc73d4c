"""Neuron Pursuit as a scikit-learn estimator: the default mode, paper mode, bad input, exports."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, make_friedman1
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gfsim.errors import InvalidInput, UnknownName
from gfsim.pursuit.algorithm import pursue
from gfsim.pursuit.config import PursuitConfig
from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor
from gfsim.pursuit.fit import LevenbergMarquardt
from gfsim.pursuit.minimise import Descent

QUICK = Descent(step=0.01, max_steps=3000)


def regressor(**changes: Any) -> NeuronPursuitRegressor:
    return NeuronPursuitRegressor(**{"activation": "square", "random_state": 0} | changes)


def paper(**settings: Any) -> NeuronPursuitRegressor:
    return regressor(mode="paper", max_neurons=4, settings={"minimiser": QUICK} | settings)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X, V = rng.normal(size=(120, 5)), np.linalg.qr(rng.normal(size=(5, 2)))[0]
    return X, (X @ V[:, 0]) ** 2 - (X @ V[:, 1]) ** 2


# -- scikit-learn --------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [NeuronPursuitRegressor, NeuronPursuitClassifier])
def test_checks_of_scikit_learn(estimator: type) -> None:
    """Its whole conformity suite, sample weights and repeated samples included, on the default settings."""
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of checks that it skips
        results = check_estimator(estimator(), on_fail=None)
    assert len(results) > 50
    assert [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")] == []


def test_fit_and_predict(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    model = regressor()
    assert model.fit(X, y) is model
    assert model.predict(X).shape == (120,)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-6)
    assert model.n_neurons_ == 2
    assert model.model_.hidden_widths == (2,)
    assert model.weights_.shape == (model.model_.n_params,)
    assert model.stop_ == "loss"
    row = model.history_[0]
    assert {"layers", "ncf", "null", "predicted", "decrease", "validation", "neurons", "seconds"} <= set(row)
    assert [r["neurons"] for r in model.history_] == [1, 2]


def test_clone_pickle_and_reproducibility(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    first = regressor().fit(X, y)
    second = clone(first).fit(X, y)
    np.testing.assert_array_equal(first.weights_, second.weights_)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first)).predict(X), first.predict(X))
    for state in (None, np.random.RandomState(0), np.random.default_rng(0)):
        assert regressor(random_state=state).fit(X, y).score(X, y) > 0.999


def test_order_of_samples_and_repetition_do_not_matter(data: tuple[np.ndarray, np.ndarray]) -> None:
    """Bit for bit: a weight 2 is two copies, a weight 0 none, and the validation split does not see the order."""
    X, y = data
    y = y + np.random.default_rng(5).normal(size=120)
    order = np.random.default_rng(1).permutation(120)
    weights = np.random.default_rng(2).integers(0, 4, size=120)
    reference = regressor().fit(X, y, sample_weight=weights)
    shuffled = regressor().fit(X[order], y[order], sample_weight=weights[order])
    repeated = regressor().fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_array_equal(shuffled.weights_, reference.weights_)
    np.testing.assert_array_equal(repeated.weights_, reference.weights_)


@pytest.mark.parametrize("x_unit", [1e-9, 1e200])
@pytest.mark.parametrize("y_unit", [1e-200, 1e9])
def test_units_do_not_matter(data: tuple[np.ndarray, np.ndarray], x_unit: float, y_unit: float) -> None:
    X, y = data
    model = regressor().fit(x_unit * X + x_unit, y_unit * (y + 3))
    np.testing.assert_allclose(model.predict(x_unit * X + x_unit) / y_unit, y + 3, atol=1e-4)


def test_several_outputs(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    two = np.column_stack([y, 5 - 2 * y])
    model = regressor().fit(X, two)
    assert model.predict(X).shape == (120, 2)
    assert model.score(X, two) > 1 - 1e-8
    assert model.n_neurons_ == 2
    many = np.random.default_rng(0).normal(size=(6, 9))  # more outputs than samples
    assert regressor().fit(X[:6], many).predict(X[:6]).shape == (6, 9)


def test_in_a_pipeline_and_a_grid_search(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    scores = cross_val_score(make_pipeline(StandardScaler(), regressor()), X, y, cv=3)
    assert scores.min() > 0.999
    search = GridSearchCV(NeuronPursuitRegressor(random_state=0), {"activation": ["linear", "square"]}, cv=2).fit(X, y)
    assert search.best_params_ == {"activation": "square"}


def test_smooth_target_with_noise_gets_few_neurons() -> None:
    """friedman1: error within 40 % of the noise variance, with at most a dozen neurons of 10 inputs each."""
    X, y = make_friedman1(n_samples=600, noise=1.0, random_state=0)
    X_test, f_test = make_friedman1(n_samples=4000, noise=0.0, random_state=1)
    model = NeuronPursuitRegressor(p=2, random_state=0).fit(X, y)
    assert np.mean((model.predict(X_test) - f_test) ** 2) < 0.4
    assert model.n_neurons_ <= 12
    assert model.stop_ in ("null", "validation")


def test_pure_noise_is_not_fitted() -> None:
    """By chance a network validates better than none on one split of a few: not on two of five."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 10)), rng.normal(size=300)
    neurons = [NeuronPursuitRegressor(random_state=seed).fit(X, y).n_neurons_ for seed in range(5)]
    assert sorted(neurons)[3] == 0


# -- classes -------------------------------------------------------------------------------------------


def test_two_classes() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = np.where(np.abs(X[:, 0]) > np.abs(X[:, 1]), "wide", "tall")
    model = NeuronPursuitClassifier(activation="square", random_state=0).fit(X[:200], y[:200])
    assert list(model.classes_) == ["tall", "wide"]
    assert model.score(X[200:], y[200:]) > 0.95
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1.0)
    np.testing.assert_array_equal(model.predict(X) == "wide", probability[:, 1] > 0.5)
    odds = model.decision_function(X)
    near = np.abs(odds) < 30
    assert near.any()
    np.testing.assert_allclose(np.log(probability[near, 1] / probability[near, 0]), odds[near], rtol=1e-6)


def test_three_classes() -> None:
    X, y = load_iris(return_X_y=True)
    model = NeuronPursuitClassifier(random_state=0).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.9
    assert model.decision_function(X).shape == (150, 3)
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1.0)
    np.testing.assert_array_equal(model.predict(X), probability.argmax(1))


# -- growing on, watching, ending early ------------------------------------------------------------------


def test_warm_start_goes_on(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    model = regressor(max_neurons=1, warm_start=True).fit(X, y)
    assert model.n_neurons_ == 1
    model.set_params(max_neurons=5).fit(X, y)
    assert model.n_neurons_ == 2
    assert [row["neurons"] for row in model.history_] == [2]
    with pytest.raises(InvalidInput, match="warm_start"):
        model.set_params(hidden_layers=2).fit(X, y)


def test_callback_sees_and_ends_growth(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    seen: list[int] = []

    def stop_at_one(row: dict[str, Any], net: Any) -> bool:
        seen.append(net.n_neurons)
        return row["neurons"] < 1

    model = regressor(callback=stop_at_one).fit(X, y)
    assert seen == [1]
    assert model.n_neurons_ == 1
    assert model.stop_ == "callback"


def test_a_callback_that_raises_loses_nothing(data: tuple[np.ndarray, np.ndarray]) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("disk full")

    with pytest.warns(RuntimeWarning, match="disk full"):
        model = regressor(callback=fail).fit(*data)
    assert model.n_neurons_ == 1
    assert "disk full" in model.message_


def test_ctrl_c_keeps_the_network(data: tuple[np.ndarray, np.ndarray]) -> None:
    def press(*_: Any) -> None:
        raise KeyboardInterrupt

    model = regressor(callback=press).fit(*data)
    assert model.stop_ == "interrupted"
    assert model.n_neurons_ == 1


# -- bad input -----------------------------------------------------------------------------------------


def test_degenerate_targets(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    constant = regressor().fit(X, np.full(120, 7.5))
    np.testing.assert_allclose(constant.predict(X), 7.5)
    assert constant.n_neurons_ == 0
    none = regressor(max_neurons=0).fit(X, y)
    np.testing.assert_allclose(none.predict(X), y.mean())
    assert none.stop_ == "budget"
    with pytest.raises(InvalidInput, match="1 class"):
        NeuronPursuitClassifier().fit(X, np.ones(120))
    flat = regressor().fit(np.ones((120, 2)), y)  # inputs without any variation
    np.testing.assert_allclose(flat.predict(np.ones((1, 2))), y.mean(), atol=1e-8)


class Frame:
    """As much of a DataFrame as the refusal of categories looks at; pandas is no dependency."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns = columns
        self.dtypes = {name: column.dtype for name, column in columns.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]


def test_refusals(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    with pytest.raises(NotFittedError):
        regressor().predict(X)
    with pytest.raises(ValueError, match="NaN"):
        regressor().fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match="n_samples=1"):
        regressor().fit(X[:1], y[:1])
    with pytest.raises(InvalidInput, match=r"'town' hold categories; encode them"):
        regressor().fit(Frame({"a": np.ones(3), "town": np.array(["x", "y", "x"], dtype=object)}), y[:3])
    with pytest.raises(UnknownName, match="'paper'"):
        regressor(mode="papers").fit(X, y)
    with pytest.raises(UnknownName, match="'paths'"):
        regressor(candidates="path").fit(X, y)
    with pytest.raises(UnknownName, match="'rescue'"):
        regressor(settings={"resque": None}).fit(X, y)
    with pytest.raises(InvalidInput, match="l2 = -1"):
        regressor(l2=-1.0).fit(X, y)
    with pytest.raises(InvalidInput, match="validation_fraction = 1"):
        regressor(validation_fraction=1.0).fit(X, y)
    with pytest.raises(ValueError, match="at least one non-zero"):
        regressor().fit(X, y, sample_weight=np.zeros(120))
    with pytest.raises(InvalidInput, match="both or neither"):
        regressor().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="features"):
        regressor().fit(X, y).predict(X[:, :4])
    with pytest.raises(InvalidInput, match="not one of the classes"):
        NeuronPursuitClassifier().fit(X, y > 0, X_val=X, y_val=np.full(120, 7))


# -- elsewhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_layers", [1, 2])
def test_torch_export_reloads_from_its_state(data: tuple[np.ndarray, np.ndarray], hidden_layers: int) -> None:
    torch = pytest.importorskip("torch")
    from gfsim.pursuit.torch_module import GrownNetwork

    X, y = data
    model = regressor(hidden_layers=hidden_layers).fit(3 * X + 1, 100 * y)
    module = model.to_torch()
    again = GrownNetwork(**module.config)
    again.load_state_dict(module.state_dict())
    with torch.no_grad():
        out = again(torch.tensor(3 * X + 1)).numpy()[:, 0]
    np.testing.assert_allclose(out, model.predict(3 * X + 1), rtol=1e-9, atol=1e-6)
    layers = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in layers] == [*model.model_.hidden_widths, 1]


def test_pictures(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    model = regressor().fit(X, y)
    history = model.plot_history()
    assert len(history.lines) == 2  # training and validation
    assert len(history.lines[0].get_xdata()) == len(model.history_)
    network = model.plot_network()
    labels = {text.get_text() for text in network.texts}
    assert labels == {"x0", "x1", "x2", "x3", "x4", "1"}


# -- paper mode ----------------------------------------------------------------------------------------


def test_paper_mode_is_the_published_algorithm(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    model = paper().fit(X, y)
    config = PursuitConfig(hidden_layers=1, activation="square", max_neurons=4, minimiser=QUICK)
    reference = pursue(X, y, config, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(model.weights_, reference.weights)
    np.testing.assert_array_equal(model.predict(X), reference.predict(X)[:, 0])
    assert [row["kind"] for row in model.history_] == ["minimise", "minimise", "polish"]
    assert model.result_.stop.reason == model.stop_ == "loss"


def test_paper_mode_with_validation_bias_and_classes(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    model = paper(loss_rtol=0.0).fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    assert all(np.isfinite(row["validation"]) for row in model.history_)
    ramp = np.maximum(X[:, 0] + 1.0, 0)
    with_bias = NeuronPursuitRegressor(
        mode="paper", bias=True, max_neurons=1, random_state=0, settings={"minimiser": QUICK}
    ).fit(X, ramp)
    assert with_bias.model_.n_inputs == 6
    assert with_bias.score(X, ramp) == pytest.approx(1.0, abs=1e-10)
    settings = {"minimiser": Descent(step=0.1, max_steps=1000), "polish": False}
    classes = NeuronPursuitClassifier(
        mode="paper", activation="square", max_neurons=3, random_state=0, settings=settings
    ).fit(X, np.abs(X[:, 0]) > np.abs(X[:, 1]))
    assert classes.score(X, np.abs(X[:, 0]) > np.abs(X[:, 1])) > 0.9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("l2", None),
        ("l2", [1.0]),
        ("validation_fraction", None),
        ("validation_fraction", "a fifth"),
        ("candidates", 3),
        ("selection", None),
        ("fitter", None),
        ("fitter", LevenbergMarquardt),
        ("settings", 1.5),
        ("settings", [("caution", 1.0)]),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(
    data: tuple[np.ndarray, np.ndarray], name: str, value: object
) -> None:
    with pytest.raises(InvalidInput, match=f"{name} = "):
        NeuronPursuitRegressor(**{name: value}).fit(*data)


@pytest.mark.parametrize("settings", [{"prune": 3}, {"retreat": True}, {"rules": None}, {"rules": (3,)}])
def test_a_part_that_is_none_is_refused_by_name(
    data: tuple[np.ndarray, np.ndarray], settings: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput, match=f"{next(iter(settings))} = "):
        NeuronPursuitRegressor(settings=settings).fit(*data)


def test_paper_mode_refuses_what_it_does_not_know(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    with pytest.raises(InvalidInput, match="sample weights"):
        paper().fit(X, y, sample_weight=np.arange(1, 121))
    with pytest.raises(InvalidInput, match="two classes only"):
        NeuronPursuitClassifier(mode="paper").fit(X, np.arange(120) % 3)
    with pytest.raises(UnknownName, match="'descent'"):
        paper(minimiser="descents").fit(X, y)
