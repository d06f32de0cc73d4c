"""``gfsim pursue --mode paper``: the published algorithm on CSV data, with a record that replays."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gfsim.cli.fitting import Fitted, Task
    from gfsim.cli.tabular import Samples
    from gfsim.output import OutputDirectory
    from gfsim.pursuit.config import PursuitConfig

DEFAULTS: dict[str, Any] = {
    "hidden_layers": 2,
    "max_neurons": 20,
    "patience": 6,
    "standardise": "both",
    "reduction": "mean",
    "delta0": 0.2,
    "delta": 0.03,
    "starts": 64,
    "trials": 1,
    "minimiser": "descent",
}


def run(args: argparse.Namespace, samples: Samples) -> int:
    from gfsim.cli import fitting
    from gfsim.output import OutputDirectory

    for name, value in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.loss = "logistic" if args.classify else "square"
    task = fitting.prepare(
        samples,
        logistic=args.classify,
        standardise=args.standardise,
        bias=not args.no_bias,
        test_fraction=args.test_fraction,
        validation_fraction=args.validation_fraction,
        seed=args.seed,
    )
    config = _config(args)
    return _pursue(args, task, config, OutputDirectory(args.out))


def _config(args: argparse.Namespace) -> PursuitConfig:
    from gfsim.errors import InvalidInput
    from gfsim.pursuit.config import PursuitConfig
    from gfsim.pursuit.minimise import make_minimiser

    settings: dict[str, Any] = {}
    for option, value, owner in (("step", args.step, "descent"), ("t_end", args.t_end, "flow")):
        if value is None:
            continue
        if args.minimiser != owner:
            raise InvalidInput(f"--{option.replace('_', '-')} goes with --minimiser {owner}, not {args.minimiser}")
        settings[option] = value
    if args.max_steps is not None:
        settings["max_steps"] = args.max_steps
    return PursuitConfig(
        hidden_layers=args.hidden_layers,
        activation=args.activation,
        p=args.p,
        alpha=args.alpha,
        loss=args.loss,
        reduction=args.reduction,
        delta0=args.delta0,
        delta=args.delta,
        minimiser=make_minimiser(args.minimiser, **settings),
        polish=not args.no_polish,
        starts=args.starts,
        trials=args.trials,
        max_neurons=args.max_neurons,
        patience=args.patience,
    )


def _pursue(args: argparse.Namespace, task: Task, config: PursuitConfig, out: OutputDirectory) -> int:
    import numpy as np

    from gfsim.cli.fitting import Fitted
    from gfsim.interrupt import interruptible
    from gfsim.pursuit.algorithm import pursue

    began = time.perf_counter()
    print(task.describe(), file=sys.stderr)
    validation = task.part("validation")
    with interruptible() as stop:
        result = pursue(
            *task.part("train"),
            config,
            rng=np.random.default_rng([args.seed, 1]),
            X_val=validation[0] if len(validation[0]) else None,
            y_val=validation[1] if len(validation[0]) else None,
            progress=sys.stderr.isatty(),
            callback=None if sys.stderr.isatty() else _say,
        )
        with stop.held():
            fitted = Fitted(task, result)
            _write(args, fitted, out, time.perf_counter() - began)
    print(result.summary())
    print(fitted.table())
    print(f"model.npz, model_card.md, metrics.json, history.json, predictions.csv and pictures are in {out.path}")
    if stop.is_set() or result.stop.reason == "interrupted":
        print("gfsim: interrupted; the best network so far is kept", file=sys.stderr)
        return 130
    return 1 if result.stop.reason == "diverged" else 0


def _say(step: Any, *_: object) -> None:
    """One line a minimisation, where there is no terminal for a progress bar."""
    from gfsim.pursuit.record import Minimisation

    if isinstance(step, Minimisation):
        print(f"{step.kind} {step.widths[1:-1]}: loss {step.loss_after:.6g} ({step.reason})", file=sys.stderr)


def _write(args: argparse.Namespace, fitted: Fitted, out: OutputDirectory, seconds: float) -> None:
    from gfsim.cli.model_card import card
    from gfsim.cli.plots import pictures, pursuit_figure
    from gfsim.jsonable import dumps
    from gfsim.output import arrays_bytes
    from gfsim.provenance import versions
    from paper_repro.figure import styled

    result, task = fitted.result, fitted.task
    metrics = {
        "data": {"path": args.data, "target": args.target, "features": task.samples.features, "dropped": args.drop},
        "rows": task.sizes(),
        "mode": "paper",
        "task": "classification" if task.classes else "regression",
        "classes": task.classes,
        "standardisation": {
            "choice": args.standardise,
            "input_mean": task.input_mean,
            "input_scale": task.input_scale,
            "label_mean": task.label_mean,
            "label_scale": task.label_scale,
            "bias": task.bias,
            "constant_columns": task.constant_columns(),
        },
        "hidden_widths": result.model.hidden_widths,
        "stop": {"reason": result.stop.reason, "message": result.stop.message},
        "convention": result.record.problem.get("reduction", args.reduction),
        "training_loss": result.loss,
        "metrics": fitted.metrics(),
        "settings": result.record.config,
        "seed": args.seed,
        "versions": versions(),
        "seconds": round(seconds, 3),
    }
    with styled():
        drawn = pictures("pursuit", pursuit_figure(fitted))
    result.save(out.path)
    # the metrics come last: where they are, the set is complete
    out.write(
        {
            "model.npz": arrays_bytes(fitted.arrays()),
            "history.json": dumps(result.record.rows()).encode(),
            "predictions.csv": fitted.predictions_csv().encode(),
            **drawn,
            "model_card.md": card(metrics).encode(),
            "metrics.json": dumps(metrics).encode(),
        }
    )
