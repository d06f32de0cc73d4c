"""``gfsim pursue``: from a CSV file to a grown net, in the file's own units."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gfsim
from gfsim.cli import main, pursue_paper
from gfsim.cli.fitting import prepare
from gfsim.cli.tabular import Samples
from gfsim.errors import InvalidInput
from gfsim.pursuit.record import Minimisation

WHOLE = {
    *("model.npz", "metrics.json", "history.json", "predictions.csv"),
    *("pursuit.png", "pursuit.svg", "model_card.md"),
}
RECORD = {"pursuit.json", "pursuit.npz"}
FAST = ("--mode", "paper", "--activation", "square", "--hidden-layers", "1", "--minimiser", "flow", "--starts", "8")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = main(["pursue", *map(str, arguments)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, out, err = run(capsys, *arguments)
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    return err


def write(path: Path, columns: dict[str, Any]) -> Path:
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A label that one neuron with a bias explains exactly: y = 10 + 3 (a - b/2 + 1)^2; ``id`` is a nuisance."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=60), rng.normal(2.0, 3.0, size=60)
    y = 10 + 3 * (a - b / 2 + 1) ** 2
    return write(tmp_path / "data.csv", {"a": a, "b": b, "id": [f"r{k}" for k in range(60)], "y": y})


def test_a_net_grows_and_predicts_in_the_files_own_units(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, err = run(capsys, table, "--target", "y", "--drop", "id", "--out", out, *FAST)
    assert code == 0, err
    assert {p.name for p in out.iterdir()} == WHOLE | RECORD
    metrics = json.loads((out / "metrics.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert metrics["rows"] == {"train": 36, "validation": 12, "test": 12}
    assert metrics["convention"] == "mean"
    assert metrics["metrics"]["test"]["r2"] > 1 - 1e-10  # a constant and one square: two neurons and the bias input
    assert "test" in text

    # the metrics again, from the predictions alone
    with open(out / "predictions.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["row"]) for row in rows] == list(range(1, 61))
    for part in ("train", "validation", "test"):
        pairs = np.array([[float(r["y"]), float(r["prediction"])] for r in rows if r["part"] == part])
        assert len(pairs) == metrics["rows"][part]
        mse = np.mean((pairs[:, 0] - pairs[:, 1]) ** 2)
        assert metrics["metrics"][part]["mse"] == pytest.approx(mse, rel=1e-12)

    # the recipe that --help gives, on the saved file
    with np.load(out / "model.npz") as m:
        table_columns = np.genfromtxt(table, delimiter=",", skip_header=1, usecols=(0, 1))
        assert list(m["features"]) == ["a", "b"]
        Z = np.column_stack([(table_columns - m["input_mean"]) / m["input_scale"], np.ones(60)])
        net = gfsim.FeedForward(m["widths"], "relu", p=int(m["p"]), alpha=float(m["alpha"]))
        again = m["label_mean"] + m["label_scale"] * (m["intercept"] + net.forward(m["w"], Z))[:, 0]
        np.testing.assert_array_equal(net.unpack(m["w"])[0], m["W1"])
    np.testing.assert_allclose(again, [float(row["prediction"]) for row in rows], rtol=1e-9)

    history = json.loads((out / "history.json").read_text())
    assert history[0]["hidden"] == [1]
    assert history[-1]["hidden"] == metrics["hidden_widths"]


def test_the_seed_fixes_everything(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    for name, number in (("one", 1), ("two", 1), ("three", 2)):
        options = ("--drop", "id", "--seed", number, "--max-neurons", 1, "--no-polish")
        assert run(capsys, table, "--target", "y", "--out", tmp_path / name, *options, *FAST)[0] == 0
    one, two, three = ((tmp_path / n / "predictions.csv").read_text() for n in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_trials_reach_the_algorithm(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    options = ("--drop", "id", "--max-neurons", 1, "--trials", 3, *FAST)
    assert run(capsys, table, "--target", "y", "--out", tmp_path, *options)[0] == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["settings"]["trials"] == 3
    assert "not a count" in refused(capsys, table, "--target", "y", "--out", tmp_path, "--trials", 0)


def test_classes_are_mapped_and_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=80), rng.normal(size=80)
    path = write(tmp_path / "c.csv", {"a": a, "b": b, "kind": np.where(a**2 > 0.5, 2, 1)})
    options = ("--classify", "--max-neurons", 2, "--t-end", 30)
    code, text, err = run(capsys, path, "--target", "kind", "--out", tmp_path / "out", *options, *FAST)
    assert code == 0, err
    assert "classes 1 and 2" in err
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["task"], metrics["classes"]) == ("classification", [1.0, 2.0])
    assert metrics["standardisation"]["label_scale"] == 1.0
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").read_text().splitlines()))
    train = [(r["kind"] == "2.0", float(r["prediction"]) > 0) for r in rows if r["part"] == "train"]
    assert metrics["metrics"]["train"]["accuracy"] == pytest.approx(np.mean([x == y for x, y in train]))
    assert metrics["metrics"]["train"]["accuracy"] > 0.85
    assert "accuracy" in text


def test_scales_come_from_the_training_rows_alone() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.normal(5, 2, size=(50, 2)), rng.normal(100, 30, size=50)
    X[:, 1] = 7.0
    samples = Samples(X, y, ("a", "b"), "y")
    options: dict[str, Any] = {"bias": True, "test_fraction": 0.3, "validation_fraction": 0.1, "seed": 4}
    task = prepare(samples, logistic=False, standardise="both", **options)
    parts = np.concatenate([task.rows[part] for part in ("train", "validation", "test")])
    assert sorted(parts) == list(range(50))
    inputs, targets = task.part("train")
    np.testing.assert_allclose(inputs.mean(axis=0), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(inputs.std(axis=0), [1, 0, 0], atol=1e-12)
    assert (targets.mean(), targets.std()) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    assert task.constant_columns() == ["b"]
    assert abs(task.part("test")[0][:, 0].mean()) > 1e-6
    moved = Samples(X.copy(), y, ("a", "b"), "y")
    moved.X[task.rows["test"]] += 1e3
    np.testing.assert_array_equal(
        prepare(moved, logistic=False, standardise="both", **options).input_mean, task.input_mean
    )
    raw = prepare(samples, logistic=False, standardise="none", **(options | {"bias": False}))
    np.testing.assert_array_equal(raw.part("test")[0], X[raw.rows["test"]])
    np.testing.assert_array_equal(raw.part("test")[1], y[raw.rows["test"]])


@pytest.mark.parametrize(
    ("y", "logistic", "fractions", "message"),
    [
        ([1, 1, 1, 1, 1, 1], False, (0.0, 0.0), "is 1 in every training row"),
        ([1, 1, 1, 1, 1, 1], True, (0.0, 0.0), r"has 1 value\(s\): 1; --mode paper --classify separates exactly two"),
        ([1, 2, 3, 1, 2, 3], True, (0.0, 0.0), r"3 value\(s\): 1, 2, 3"),
        ([0, 1, 1, 1, 1, 1], True, (0.2, 0.2), "both classes are needed there"),
        ([0, 1, 2, 3, 4, 5], False, (0.5, 0.5), "leave nothing to train on"),
        ([0, 1, 2, 3, 4, 5], False, (0.4, 0.45), "leave 1 to train on"),
    ],
)
def test_targets_and_splits_that_cannot_work(
    y: list[float], logistic: bool, fractions: tuple[float, float], message: str
) -> None:
    samples = Samples(np.arange(6.0)[:, None], np.array(y, dtype=float), ("a",), "y")
    test, validation = fractions
    with pytest.raises(InvalidInput, match=message):
        prepare(
            samples,
            logistic=logistic,
            standardise="both",
            bias=True,
            test_fraction=test,
            validation_fraction=validation,
            seed=0,
        )


def test_wrong_requests_are_one_line(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "Did you mean 'y'" in refused(capsys, table, "--target", "Y", "--out", out)
    assert "'r0' is not a number" in refused(capsys, table, "--target", "y", "--out", out)
    common = (table, "--target", "y", "--drop", "id")
    assert "--delta goes with --mode paper" in refused(capsys, *common, "--out", out, "--delta", 1)
    assert "--l2 goes with --mode pursuit" in refused(capsys, *common, "--out", out, "--mode", "paper", "--l2", 1)
    assert "--networks goes with" in refused(capsys, *common, "--out", out, "--mode", "paper", "--networks", 2)
    common = (*common, "--mode", "paper")
    assert "is a file" in refused(capsys, *common, "--out", table)
    assert "--step goes with --minimiser descent" in refused(capsys, *common, "--out", out, "--step", 0.1, *FAST[2:])
    assert "alone has one" in refused(capsys, *common, "--out", out, "--max-neurons", 1)
    assert "delta = -1.0" in refused(capsys, *common, "--out", out, "--delta", -1)
    assert "'1.5' is not a fraction" in refused(capsys, *common, "--out", out, "--test-fraction", 1.5)
    assert "'0' is not a count" in refused(capsys, *common, "--out", out, "--starts", 0)
    assert "the following arguments are required: --target" in refused(capsys, table, "--out", out)
    assert not out.exists()


def test_ctrl_c_keeps_the_best_net_so_far(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0

    def press(step: Any, *_: object) -> None:
        nonlocal seen
        if isinstance(step, Minimisation):
            seen += 1
            if seen == 2:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pursue_paper, "_say", press)
    code, _, err = run(capsys, table, "--target", "y", "--drop", "id", "--out", tmp_path / "out", *FAST)
    assert code == 130
    assert "the best network so far is kept" in err
    assert {p.name for p in (tmp_path / "out").iterdir()} == WHOLE | RECORD
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["stop"]["reason"] == "interrupted"
    assert sum(metrics["hidden_widths"]) in (1, 2)


def test_a_step_that_diverges_is_exit_code_1(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    options = ("--mode", "paper", "--activation", "square", "--hidden-layers", 1, "--step", 50, "--starts", 4)
    code, text, _ = run(capsys, table, "--target", "y", "--drop", "id", "--out", tmp_path / "out", *options)
    assert code == 1
    assert "smaller step" in text
    assert json.loads((tmp_path / "out/metrics.json").read_text())["stop"]["reason"] == "diverged"


def test_a_target_in_words_is_told_to_be_recoded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = write(tmp_path / "words.csv", {"a": [1.0, 2.0, 3.0], "y": ["yes", "no", "yes"]})
    err = refused(capsys, table, "--target", "y", "--out", tmp_path / "out")
    assert "recode the target" in err
    assert "--drop" not in err


def test_numbers_whose_squares_overflow_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """They would end in NaN metrics after a whole run."""
    table = write(tmp_path / "huge.csv", {"a": [1e200, 2e200, 3e200], "y": [1.0, 2.0, 3.0]})
    assert "larger unit" in refused(capsys, table, "--target", "y", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- the default mode, and gfsim predict ----------------------------------------------------------------


def predict(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["predict", *map(str, arguments)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_default_mode_and_predict(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, err = run(
        capsys, table, "--target", "y", "--drop", "id", "--out", out, "--activation", "square", "--seed", 1
    )
    assert code == 0, err
    assert {p.name for p in out.iterdir()} == WHOLE
    metrics = json.loads((out / "metrics.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert metrics["rows"] == {"train": 48, "test": 12}
    assert metrics["metrics"]["test"]["r2"] > 1 - 1e-10
    assert metrics["hidden_widths"] == [1]
    assert "hidden (1,)" in text
    history = json.loads((out / "history.json").read_text())
    assert history[0]["neurons"] == 1
    assert history[0]["decrease"] > 0
    card = (out / "model_card.md").read_text()
    assert "# Network for `y`" in card
    assert "| test | " in card

    # new rows: the columns in another order, and one that the network does not know
    a, b = np.array([0.5, -1.0]), np.array([1.0, 7.0])
    new = write(tmp_path / "new.csv", {"note": ["x", "y"], "b": b, "a": a})
    code, text, _ = predict(capsys, out, new)
    assert code == 0
    header, *rows = list(csv.reader(text.splitlines()))
    assert header == ["y"]
    np.testing.assert_allclose([float(r[0]) for r in rows], 10 + 3 * (a - b / 2 + 1) ** 2, rtol=1e-6)
    code, text, _ = predict(capsys, out, new, "--out", tmp_path / "p" / "q.csv")
    assert text == ""
    assert (tmp_path / "p" / "q.csv").read_text().splitlines()[0] == "y"

    # the rows it has seen: as in predictions.csv
    code, text, _ = predict(capsys, out, table)
    again = [float(line) for line in text.splitlines()[1:]]
    known = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    np.testing.assert_allclose(again, [float(r["prediction"]) for r in known], rtol=1e-9)


def test_classes_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=150), rng.normal(size=150)
    kind = np.where(a > 0.3, "right", np.where(b > 0, "upper left", "lower left"))
    path = write(tmp_path / "c.csv", {"a": a, "b": b, "kind": kind})
    out = tmp_path / "out"
    code, _, err = run(capsys, path, "--target", "kind", "--classify", "--out", out)
    assert code == 0, err
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["classes"] == ["lower left", "right", "upper left"]
    assert metrics["metrics"]["test"]["accuracy"] > 0.85
    code, text, _ = predict(capsys, out, path)
    rows = list(csv.DictReader(text.splitlines()))
    assert np.mean([r["kind"] == k for r, k in zip(rows, kind, strict=True)]) > 0.9
    shares = [float(rows[0][f"probability of {c}"]) for c in metrics["classes"]]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)


def test_predict_works_for_paper_mode_too(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    run(capsys, table, "--target", "y", "--drop", "id", "--out", tmp_path / "out", *FAST)
    code, text, _ = predict(capsys, tmp_path / "out", table)
    assert code == 0
    known = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    np.testing.assert_allclose(
        [float(line) for line in text.splitlines()[1:]], [float(r["prediction"]) for r in known], rtol=1e-9
    )


def test_predict_refuses_in_one_line(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    code, out, err = predict(capsys, tmp_path, table)
    assert (code, out) == (2, "")
    assert "name a directory that gfsim pursue has written" in err
    (tmp_path / "model.npz").write_bytes(b"no zip")
    refusal = predict(capsys, tmp_path, table)[2]
    assert "holds no model" in refusal
    assert "; name a folder" in refusal
    run(capsys, table, "--target", "y", "--drop", "id", "--out", tmp_path / "m", "--max-neurons", 1)
    code, _, err = predict(capsys, tmp_path / "m", write(tmp_path / "n.csv", {"a": [1.0], "c": [2.0]}))
    assert code == 2
    assert "lacks the column(s) 'b'" in err
    assert err.count("\n") == 1


def test_targets_that_are_no_classes(capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path) -> None:
    common = (table, "--drop", "id", "--out", tmp_path / "o", "--classify")
    assert "hardly classes" in refused(capsys, *common, "--target", "y", "--test-fraction", 0)
    one = write(tmp_path / "one.csv", {"a": [1.0, 2.0, 3.0], "k": ["u", "u", "u"]})
    assert "one class 'u'" in refused(capsys, one, "--target", "k", "--classify", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_several_networks_are_one_and_the_files_say_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=120), rng.normal(size=120)
    y = np.maximum(a, 0) + 0.5 * rng.normal(size=120)
    path = write(tmp_path / "noisy.csv", {"a": a, "b": b, "y": y})
    code, text, err = run(capsys, path, "--target", "y", "--networks", 2, "--max-neurons", 2, "--out", tmp_path / "out")
    assert code == 0, err
    assert "the first of 2 networks" in text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["networks"] == 2
    assert "the mean of 2 grown networks" in (tmp_path / "out" / "model_card.md").read_text()
