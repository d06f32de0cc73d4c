"""DataFrames of pandas, and exports for use without gfsim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from gfsim.errors import InvalidInput
from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.normal(size=(120, 3)), columns=["size", "age", "rooms"])
    data["rooms"] = rng.integers(1, 6, size=120)
    data["sold"] = rng.random(120) < 0.5
    return data


def target(frame: pd.DataFrame) -> pd.Series:
    return np.maximum(frame["size"], 0) - 2.0 * frame["sold"] + 0.1 * frame["rooms"]


def test_names_and_columns_of_numbers(frame: pd.DataFrame) -> None:
    y = target(frame)
    model = NeuronPursuitRegressor(random_state=0, max_neurons=4).fit(frame, y)
    assert list(model.feature_names_in_) == ["size", "age", "rooms", "sold"]
    plain = NeuronPursuitRegressor(random_state=0, max_neurons=4).fit(frame.to_numpy(dtype=float), y.to_numpy())
    np.testing.assert_array_equal(model.predict(frame), plain.predict(frame.to_numpy(dtype=float)))
    labels = [text.get_text() for text in model.plot_network().texts]
    assert labels[:4] == ["size", "age", "rooms", "sold"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["age", "size", "rooms", "sold"]])
    # nullable numbers are numbers
    nullable = frame.astype({"rooms": "Int64", "sold": "boolean"})
    np.testing.assert_array_equal(model.predict(nullable), model.predict(frame))
    many = NeuronPursuitRegressor(random_state=0, max_neurons=2).fit(frame, pd.DataFrame({"a": y, "b": -y}))
    assert many.predict(frame).shape == (120, 2)


def test_categories_are_refused_with_a_hint_and_encoded_ones_work(frame: pd.DataFrame) -> None:
    words = np.where(frame["sold"], "yes", "no")
    for column in (pd.Series(words), pd.Series(words).astype("category"), pd.Series([0, 1] * 60).astype("category")):
        mixed = frame.assign(kind=column)
        with pytest.raises(InvalidInput, match=r"'kind' hold categories; encode them first.*OneHotEncoder"):
            NeuronPursuitRegressor().fit(mixed, target(frame))
    mixed = frame.drop(columns="sold").assign(kind=words)
    encode = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    piped = make_pipeline(encode, NeuronPursuitRegressor(random_state=0, max_neurons=4)).fit(mixed, target(frame))
    assert piped.score(mixed, target(frame)) > 0.99


def test_missing_entries_are_refused(frame: pd.DataFrame) -> None:
    holed = frame.copy()
    holed.loc[3, "age"] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        NeuronPursuitRegressor().fit(holed, target(frame))


def test_labels_of_a_series(frame: pd.DataFrame) -> None:
    y = pd.Series(np.where(frame["size"] > 0, "large", "small"), dtype="category")
    model = NeuronPursuitClassifier(random_state=0, max_neurons=3).fit(frame, y)
    assert list(model.classes_) == ["large", "small"]
    assert np.mean(model.predict(frame) == y) > 0.95


@pytest.mark.parametrize("hidden_layers", [1, 2])
def test_onnx_computes_the_same(tmp_path: Path, hidden_layers: int) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3)) * [1.0, 10.0, 0.1] + [5.0, 0.0, 0.0]
    Y = np.column_stack([np.maximum(X[:, 0] - 5, 0) ** 2, X[:, 1]])
    model = NeuronPursuitRegressor(hidden_layers=hidden_layers, p=2, max_neurons=4, random_state=0).fit(X, Y)
    path = model.to_onnx(tmp_path / "model.onnx")
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded, full_check=True)
    for rows in (X, X[:1]):
        (out,) = ReferenceEvaluator(loaded).run(None, {"X": rows})
        np.testing.assert_allclose(out, model.predict(rows), rtol=1e-10, atol=1e-10)


def test_onnx_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame) -> None:
    model = NeuronPursuitRegressor(random_state=0, max_neurons=1).fit(frame, target(frame))
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(InvalidInput, match=r"gfsim\[onnx\]"):
        model.to_onnx(tmp_path / "model.onnx")
