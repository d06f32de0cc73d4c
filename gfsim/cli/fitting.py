"""A table made ready for Neuron Pursuit, and a grown net in the table's own units."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gfsim.cli.tabular import Samples
from gfsim.errors import InvalidInput
from gfsim.pursuit.algorithm import PursuitResult

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """Samples, how their rows are split, and how columns become inputs and labels of the net.

    Attributes
    ----------
    samples : Samples
    rows : one index array for each of train, validation, test
    input_mean, input_scale : (n_features,)
        The net sees (X - mean) / scale, and a last input 1 if ``bias``.
    label_mean, label_scale : float
        The net's target is (y - mean) / scale; classes are -1 and +1 for it.
    classes : () or the two label values (negative, positive)
    """

    samples: Samples
    rows: dict[Part, np.ndarray] = field(repr=False)
    input_mean: np.ndarray
    input_scale: np.ndarray
    label_mean: float
    label_scale: float
    bias: bool
    classes: tuple[float, ...]

    def inputs(self, X: np.ndarray) -> np.ndarray:
        """What the net sees of rows of the table: (n, n_features (+ 1))."""
        Z = (X - self.input_mean) / self.input_scale
        return np.column_stack([Z, np.ones(len(Z))]) if self.bias else Z

    def targets(self, y: np.ndarray) -> np.ndarray:
        if self.classes:
            return np.where(y == self.classes[1], 1.0, -1.0)
        return (y - self.label_mean) / self.label_scale

    def part(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows[part]
        return self.inputs(self.samples.X[rows]), self.targets(self.samples.y[rows])

    def sizes(self) -> dict[str, int]:
        return {part: len(rows) for part, rows in self.rows.items()}

    def constant_columns(self) -> list[str]:
        """Features without any variation on the training rows; they say nothing beyond a bias."""
        X = self.samples.X[self.rows["train"]]
        return [name for name, column in zip(self.samples.features, X.T, strict=True) if np.ptp(column) == 0]

    def describe(self) -> str:
        sizes = ", ".join(f"{count} {part}" for part, count in self.sizes().items())
        kind = f"classes {self.classes[0]:g} and {self.classes[1]:g}" if self.classes else "regression"
        text = f"{len(self.samples.features)} features, target {self.samples.target!r} ({kind}); rows: {sizes}"
        constant = self.constant_columns()
        return text + (f"; constant on the training rows: {', '.join(constant)}" if constant else "")


def prepare(
    samples: Samples,
    *,
    logistic: bool,
    standardise: str,
    bias: bool,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> Task:
    """Split the rows at random and take means and scales from the training rows alone."""
    n = len(samples.y)
    if test_fraction + validation_fraction >= 1:
        raise InvalidInput(
            f"test and validation fractions {test_fraction:g} and {validation_fraction:g} leave nothing to train on"
        )
    order = np.random.default_rng([seed, 0]).permutation(n)
    test, validation = round(test_fraction * n), round(validation_fraction * n)
    rows: dict[Part, np.ndarray] = {
        "train": np.sort(order[test + validation :]),
        "validation": np.sort(order[test : test + validation]),
        "test": np.sort(order[:test]),
    }
    if len(rows["train"]) < 2:
        raise InvalidInput(
            f"{n} rows leave {len(rows['train'])} to train on; at least 2 are needed: add rows, or lower the fractions"
        )
    X, y = samples.X[rows["train"]], samples.y[rows["train"]]
    classes = _classes(samples, rows) if logistic else ()
    if not logistic and np.ptp(y) == 0:
        raise InvalidInput(f"the target {samples.target!r} is {y[0]:g} in every training row; nothing can be learned")
    mean, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    if standardise in ("both", "inputs"):
        mean, deviation = X.mean(axis=0), X.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1.0)
    label_mean, label_scale = 0.0, 1.0
    if standardise == "both" and not logistic:
        label_mean, label_scale = float(y.mean()), float(y.std())
    return Task(samples, rows, mean, scale, label_mean, label_scale, bias, classes)


def _classes(samples: Samples, rows: dict[Part, np.ndarray]) -> tuple[float, ...]:
    found = np.unique(samples.y)
    if len(found) != 2:
        some = ", ".join(f"{v:g}" for v in found[:5]) + (", ..." if len(found) > 5 else "")
        raise InvalidInput(
            f"the target {samples.target!r} has {len(found)} value(s): {some}; "
            "--mode paper --classify separates exactly two"
        )
    for part, index in rows.items():
        if part != "test" and len(index) and len(np.unique(samples.y[index])) < 2:
            raise InvalidInput(
                f"every {part} row has {samples.target!r} = {samples.y[index[0]]:g}; both classes are needed there: "
                "take another --seed or other fractions"
            )
    return tuple(float(v) for v in found)


@dataclass(frozen=True)
class Fitted:
    """A grown net that speaks the table's units."""

    task: Task
    result: PursuitResult

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predicted labels; for a classification the net's output, positive for the second class: (n,)."""
        out = self.result.predict(self.task.inputs(X))[:, 0]
        return self.task.label_mean + self.task.label_scale * out

    def metrics(self) -> dict[str, dict[str, float]]:
        """By part: mean square error, its root, R^2; or accuracy and mean logistic loss."""
        out: dict[str, dict[str, float]] = {}
        measure: Callable[[np.ndarray, np.ndarray], dict[str, float]] = (
            self._classification if self.task.classes else self._regression
        )
        for part in PARTS:
            rows = self.task.rows[part]
            if len(rows):
                out[part] = measure(self.task.samples.y[rows], self.predict(self.task.samples.X[rows]))
        return out

    def _regression(self, y: np.ndarray, q: np.ndarray) -> dict[str, float]:
        mse = float(np.mean((q - y) ** 2))
        # against the mean of the TRAINING labels: what one would predict without any input
        baseline = float(np.mean((y - self.task.samples.y[self.task.rows["train"]].mean()) ** 2))
        return {"mse": mse, "rmse": mse**0.5, "r2": 1.0 - mse / baseline if baseline > 0 else float("nan")}

    def _classification(self, y: np.ndarray, q: np.ndarray) -> dict[str, float]:
        signs = self.task.targets(y)
        share = float(np.mean(signs == 1.0))
        return {
            "accuracy": float(np.mean((q > 0) == (signs > 0))),
            "logistic_loss": float(np.mean(np.logaddexp(0.0, -signs * q))),
            "largest_class": max(share, 1.0 - share),
        }

    def table(self) -> str:
        """The metrics, one line a part."""
        return "\n".join(
            f"{part:10s} " + "  ".join(f"{name} {value:.6g}" for name, value in values.items())
            for part, values in self.metrics().items()
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """What ``model.npz`` holds: enough to predict without the table."""
        model, task = self.result.model, self.task
        matrices = {f"W{l}": W for l, W in enumerate(model.unpack(self.result.weights), start=1)}
        scalars: dict[str, Any] = {
            "w": self.result.weights,
            "intercept": np.zeros(1),
            "target": task.samples.target,
            "widths": model.widths,
            "p": model.activation.power,
            "alpha": getattr(model.activation, "alpha", np.nan),
            "input_mean": task.input_mean,
            "input_scale": task.input_scale,
            "label_mean": task.label_mean,
            "label_scale": task.label_scale,
            "bias": task.bias,
            "features": task.samples.features,
            "classes": task.classes,
        }
        return matrices | {name: np.asarray(value) for name, value in scalars.items()}

    def predictions_csv(self) -> str:
        """row (from 1, header not counted), part, label, prediction."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "part", self.task.samples.target, "prediction"])
        q = self.predict(self.task.samples.X)
        where = {int(i): part for part, rows in self.task.rows.items() for i in rows}
        for i, (y, value) in enumerate(zip(self.task.samples.y, q, strict=True)):
            writer.writerow([i + 1, where[i], repr(float(y)), repr(float(value))])
        return text.getvalue()
