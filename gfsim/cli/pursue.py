"""``gfsim pursue``: grow a network on CSV data by Neuron Pursuit."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfsim.cli.parser import Parser, seed

if TYPE_CHECKING:
    from gfsim.cli.fitting import Fitted, Task
    from gfsim.output import OutputDirectory
    from gfsim.pursuit.algorithm import PursuitConfig

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}

DESCRIPTION = """\
Grow a network on your own data, neuron by neuron.

Neuron Pursuit starts with one neuron in every hidden layer, along the best direction out of the origin,
and minimises the loss.  Then it asks the neural correlation function of every layer for the neuron that
would lower the loss most, adds it with small weights, keeps all old ones, and minimises again.

DATA.csv has a header line and numbers only; --target names the label column, all others are inputs
unless --drop names them.  Rows with missing values and columns of categories are refused, not guessed.
A label column of two values and --loss logistic make it a classification.

This writes into DIR

  model.npz                   the weights W1, W2, ... and what maps your columns to the net's inputs
  metrics.json                errors on training, validation and test rows in the label's own units;
                              how the data were split and standardised; why growth stopped
  history.json                one row a minimisation: widths, which layer grew, NCF values, losses
  pursuit.json, pursuit.npz   the complete record, which gfsim.pursuit.replay can replay
  predictions.csv             label and prediction of every row
  pursuit.png, .svg           growth of the net, NCF values, fit

Ctrl-C ends the growth; the best network so far is written and its metrics say so.
"""

EPILOG = """\
examples:
  gfsim pursue houses.csv --target price --out out/houses
  gfsim pursue houses.csv --target price --drop id --hidden-layers 1 --activation square --out out/houses
  gfsim pursue flowers.csv --target is_rose --loss logistic --max-neurons 8 --out out/flowers

to predict new rows X (the columns in the order of features):
  m = numpy.load("out/houses/model.npz")
  Z = (X - m["input_mean"]) / m["input_scale"]
  Z = numpy.column_stack([Z, numpy.ones(len(Z))])              # if m["bias"]
  net = gfsim.FeedForward(m["widths"], "relu", p=int(m["p"]), alpha=float(m["alpha"]))
  y = m["label_mean"] + m["label_scale"] * net.forward(m["w"], Z)[:, 0]

exit codes: 0 the pursuit ended by one of its own rules; 1 the minimisation diverged (files are written);
2 wrong request; 130 interrupted (files are written).
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "pursue", help="grow a network on CSV data by Neuron Pursuit", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("data", metavar="DATA.csv", help="a table with a header line")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="the label column")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write")

    data = parser.add_argument_group("data")
    data.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="leave a column out (repeatable)")
    data.add_argument("--delimiter", choices=sorted(DELIMITERS), default="comma", help="default: %(default)s")
    data.add_argument(
        "--standardise",
        choices=("both", "inputs", "none"),
        default="both",
        help="mean 0 and deviation 1, from the training rows: of inputs and label, inputs only, or nothing "
        "(default: %(default)s; labels of a classification are -1 and +1 always)",
    )
    data.add_argument(
        "--no-bias", action="store_true", help="no constant input 1 (the nets have no biases of their own)"
    )
    data.add_argument("--test-fraction", type=_fraction, default=0.2, metavar="F", help="default: %(default)s")
    data.add_argument(
        "--validation-fraction",
        type=_fraction,
        default=0.2,
        metavar="F",
        help="of all rows, to stop the growth by; 0: grow by the training loss alone (default: %(default)s)",
    )
    data.add_argument("--seed", type=seed, default=0, metavar="N", help="of the split and of all random starts")

    net = parser.add_argument_group("network and loss")
    net.add_argument("--hidden-layers", type=_count, default=2, metavar="N", help="default: %(default)s")
    net.add_argument(
        "--activation", choices=("relu", "leaky", "linear", "square"), default="relu", help="default: %(default)s"
    )
    net.add_argument("--p", type=_count, metavar="P", help="power of max(z, alpha z)^p")
    net.add_argument("--alpha", type=float, metavar="A", help="slope of its other branch")
    net.add_argument("--loss", choices=("square", "logistic"), default="square", help="default: %(default)s")
    net.add_argument("--reduction", choices=("mean", "sum"), default="mean", help="default: %(default)s")

    growth = parser.add_argument_group("growth")
    growth.add_argument(
        "--max-neurons", type=_count, default=20, metavar="N", help="hidden ones (default: %(default)s)"
    )
    growth.add_argument(
        "--delta0", type=float, default=0.2, metavar="D", help="norm of the start (default: %(default)s)"
    )
    growth.add_argument(
        "--delta", type=float, default=0.03, metavar="D", help="norm of a new neuron (default: %(default)s)"
    )
    growth.add_argument(
        "--starts",
        type=_count,
        default=64,
        metavar="N",
        help="random starts of every NCF maximisation (default: %(default)s)",
    )
    growth.add_argument(
        "--patience",
        type=_count,
        default=6,
        metavar="N",
        help="additions without a better validation loss before it stops (default: %(default)s)",
    )
    growth.add_argument(
        "--trials",
        type=_count,
        default=1,
        metavar="N",
        help="of NCF maxima that the data cannot tell apart, minimise from up to N and keep the best (default: "
        "%(default)s, the largest)",
    )
    growth.add_argument(
        "--minimiser",
        choices=("descent", "flow"),
        default="descent",
        help="descend with a fixed small step, or follow the gradient flow by an implicit solver, which is fast for "
        "smooth activations (p >= 2) and slow on kinks (default: %(default)s)",
    )
    growth.add_argument(
        "--t-end", type=float, metavar="T", help="flow: longest time of one minimisation (default: 160)"
    )
    growth.add_argument("--step", type=float, metavar="H", help="descent: step size (default: 0.004)")
    growth.add_argument(
        "--max-steps",
        type=_count,
        metavar="N",
        help="most steps of one minimisation (default: 40000 for descent, 20000 for flow)",
    )
    growth.add_argument("--no-polish", action="store_true", help="no second-order refinement at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.cli import fitting
    from gfsim.cli.tabular import read_csv
    from gfsim.output import OutputDirectory

    samples = read_csv(Path(args.data), args.target, drop=args.drop, delimiter=DELIMITERS[args.delimiter])
    task = fitting.prepare(
        samples,
        logistic=args.loss == "logistic",
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
    from gfsim.pursuit.algorithm import PursuitConfig
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
    print(f"model.npz, metrics.json, history.json, predictions.csv and pictures are in {out.path}")
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
    from gfsim.cli.plots import pictures, pursuit_figure
    from gfsim.jsonable import dumps
    from gfsim.output import arrays_bytes
    from gfsim.provenance import versions
    from paper_repro.figure import styled

    result, task = fitted.result, fitted.task
    metrics = {
        "data": {"path": args.data, "target": args.target, "features": task.samples.features, "dropped": args.drop},
        "rows": task.sizes(),
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
            "metrics.json": dumps(metrics).encode(),
        }
    )


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction; give a number >= 0 and < 1")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count; give a whole number >= 1")
    return value
