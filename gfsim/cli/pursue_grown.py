"""``gfsim pursue`` in its default mode: the estimators on CSV data, and the files that they leave."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from typing import Any

import numpy as np

from gfsim.cli.model_card import card
from gfsim.cli.tabular import Samples
from gfsim.errors import InvalidInput
from gfsim.output import OutputDirectory, arrays_bytes
from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor

Estimator = NeuronPursuitRegressor | NeuronPursuitClassifier


def run(args: argparse.Namespace, samples: Samples) -> int:
    from gfsim.interrupt import interruptible

    if args.test_fraction + args.validation_fraction >= 1:
        raise InvalidInput(
            f"test and validation fractions {args.test_fraction:g} and {args.validation_fraction:g} leave nothing to "
            "train on"
        )
    rows = _split(samples, args.test_fraction, args.classify, args.seed)
    estimator = _estimator(args)
    out = OutputDirectory(args.out)
    began = time.perf_counter()
    X, y = samples.X[rows["train"]], samples.y[rows["train"]]
    print(
        f"{len(samples.features)} features, target {samples.target!r}"
        + (f" (classes {', '.join(np.unique(samples.y)[:10])})" if args.classify else "")
        + f"; {len(X)} rows to grow on, {len(rows['test'])} to test",
        file=sys.stderr,
    )
    with interruptible() as stop:
        estimator.fit(X, y)
        with stop.held():
            _write(args, samples, rows, estimator, out, time.perf_counter() - began)
    for row in estimator.history_:
        first, last = row["layers"]
        where = f"layer {first}" if first == last else f"layers {first}-{last}"
        print(f"{row['kind']:6s} in {where}: hidden {row['hidden']}, training loss {row['train']:.4g}")
    if len(estimator.growths_) > 1:
        print(f"(the first of {len(estimator.growths_)} networks; their mean is kept, as one network)")
    print(f"kept: hidden {estimator.model_.hidden_widths}, l2 = {estimator.l2_:g}; stopped: {estimator.message_}")
    for part, values in _metrics(estimator, samples, rows).items():
        print(f"{part:10s} " + "  ".join(f"{name} {value:.6g}" for name, value in values.items()))
    print(f"model.npz, model_card.md, metrics.json, history.json, predictions.csv and pictures are in {out.path}")
    if stop.is_set() or estimator.stop_ == "interrupted":
        print("gfsim: interrupted; the best network so far is kept", file=sys.stderr)
        return 130
    return 0


def _estimator(args: argparse.Namespace) -> Estimator:
    kind: type[Estimator] = NeuronPursuitClassifier if args.classify else NeuronPursuitRegressor
    return kind(
        hidden_layers=args.hidden_layers or 1,
        activation=args.activation,
        p=args.p,
        alpha=args.alpha,
        max_neurons=args.max_neurons,
        patience=args.patience,
        l2="auto" if args.l2 is None else args.l2,
        networks=args.networks or 1,
        # of the rows that are not for testing
        validation_fraction=args.validation_fraction / (1 - args.test_fraction),
        bias=not args.no_bias,
        random_state=args.seed,
        progress=True,
    )


def _split(samples: Samples, fraction: float, classify: bool, seed: int) -> dict[str, np.ndarray]:
    """Row numbers to grow on ("train", from which validation rows are taken) and to test."""
    n = len(samples.y)
    order = np.random.default_rng([seed, 0]).permutation(n)
    test = round(fraction * n)
    rows = {"train": np.sort(order[test:]), "test": np.sort(order[:test])}
    y = samples.y[rows["train"]]
    if len(y) < 2:
        raise InvalidInput(
            f"{n} rows leave {len(y)} to train on; at least 2 are needed: add rows, or lower the fractions"
        )
    if (y == y[0]).all():
        what = f"holds the one class {str(y[0])!r}" if classify else f"is {y[0]:g}"
        raise InvalidInput(f"the target {samples.target!r} {what} in every training row; nothing can be learned")
    if classify:
        lost = sorted(set(samples.y) - set(y))
        if lost:
            raise InvalidInput(
                f"no training row has {samples.target!r} = {lost[0]}; every class is needed there: take another "
                "--seed or a smaller --test-fraction"
            )
        if len(set(y)) > max(2, len(y) // 2):
            raise InvalidInput(
                f"the target {samples.target!r} holds {len(set(y))} different values in {len(y)} training rows; "
                "these are hardly classes: leave out --classify"
            )
    return rows


def _metrics(estimator: Estimator, samples: Samples, rows: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    out = {}
    mean = samples.y[rows["train"]].mean() if isinstance(estimator, NeuronPursuitRegressor) else None
    for part, index in rows.items():
        if not len(index):
            continue
        X, y = samples.X[index], samples.y[index]
        if isinstance(estimator, NeuronPursuitClassifier):
            proba = estimator.predict_proba(X)
            own = np.searchsorted(estimator.classes_, y)
            likelihood = np.maximum(proba[np.arange(len(y)), own], 1e-300)
            out[part] = {
                "accuracy": float(np.mean(estimator.predict(X) == y)),
                "log_loss": float(-np.log(likelihood).mean()),
                "largest_class": float(np.bincount(own).max() / len(y)),
            }
        else:
            mse = float(np.mean((estimator.predict(X) - y) ** 2))
            baseline = float(np.mean((y - mean) ** 2))
            out[part] = {"mse": mse, "rmse": mse**0.5, "r2": 1 - mse / baseline if baseline > 0 else float("nan")}
    return out


def _arrays(estimator: Estimator, samples: Samples) -> dict[str, np.ndarray]:
    """What ``model.npz`` holds; :mod:`gfsim.cli.model_file` reads it."""
    scaling, net = estimator._scaling, estimator.network_
    model = estimator.model_
    matrices = {f"W{l}": W for l, W in enumerate(model.unpack(estimator.weights_), start=1)}
    rest: dict[str, Any] = {
        "w": estimator.weights_,
        "intercept": net.intercept_or_zero,
        "widths": model.widths,
        "p": net.activation.p,
        "alpha": net.activation.alpha,
        "input_mean": scaling.center,
        "input_scale": scaling.scale,
        "label_mean": scaling.target_center,
        "label_scale": scaling.target_scale,
        "bias": scaling.bias,
        "features": samples.features,
        "target": samples.target,
        "classes": getattr(estimator, "classes_", ()),
    }
    return matrices | {name: np.asarray(value) for name, value in rest.items()}


def _predictions(estimator: Estimator, samples: Samples, rows: dict[str, np.ndarray]) -> str:
    """row (from 1, header not counted), part, label, prediction."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "part", samples.target, "prediction"])
    where = {int(i): part for part, index in rows.items() for i in index}
    classes = isinstance(estimator, NeuronPursuitClassifier)
    for i, (y, q) in enumerate(zip(samples.y, estimator.predict(samples.X), strict=True)):
        pair = [str(y), str(q)] if classes else [repr(float(y)), repr(float(q))]
        writer.writerow([i + 1, where[i], *pair])
    return text.getvalue()


def _write(
    args: argparse.Namespace,
    samples: Samples,
    rows: dict[str, np.ndarray],
    estimator: Estimator,
    out: OutputDirectory,
    seconds: float,
) -> None:
    from gfsim.cli.plots import grown_figure, pictures
    from gfsim.jsonable import dumps
    from gfsim.provenance import versions
    from paper_repro.figure import styled

    X = samples.X[rows["train"]]
    settings = {
        name: value
        for name, value in estimator.get_params().items()
        if isinstance(value, (bool, int, float, str)) or value is None
    }
    metrics = {
        "data": {"path": args.data, "target": args.target, "features": samples.features, "dropped": args.drop},
        "rows": {part: len(index) for part, index in rows.items()},
        "mode": "pursuit",
        "task": "classification" if args.classify else "regression",
        "classes": list(getattr(estimator, "classes_", ())),
        "hidden_widths": estimator.model_.hidden_widths,
        "networks": len(estimator.growths_),
        "stop": {"reason": estimator.stop_, "message": estimator.message_},
        "l2": estimator.l2_,
        "convention": "mean",
        "validation_loss": estimator.validation_loss_,
        "constant_columns": [n for n, column in zip(samples.features, X.T, strict=True) if np.ptp(column) == 0],
        "metrics": _metrics(estimator, samples, rows),
        "settings": settings,
        "seed": args.seed,
        "versions": versions(),
        "seconds": round(seconds, 3),
    }
    with styled():
        drawn = pictures("pursuit", grown_figure(estimator, samples, rows))
    # the metrics come last: where they are, the set is complete
    out.write(
        {
            "model.npz": arrays_bytes(_arrays(estimator, samples)),
            "history.json": dumps(estimator.history_).encode(),
            "predictions.csv": _predictions(estimator, samples, rows).encode(),
            **drawn,
            "model_card.md": card(metrics).encode(),
            "metrics.json": dumps(metrics).encode(),
        }
    )
