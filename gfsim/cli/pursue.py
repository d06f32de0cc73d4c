"""``gfsim pursue``: grow a network on CSV data by Neuron Pursuit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gfsim.cli.parser import Parser, count, seed

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}

PAPER_ONLY = (
    "standardise", "reduction", "delta0", "delta", "starts", "trials", "minimiser", "t_end", "step", "max_steps",
    "no_polish",
)  # fmt: skip
"""Options of ``--mode paper`` alone; None or False when not given."""

DESCRIPTION = """\
Grow a network on your own data, neuron by neuron.

Neuron Pursuit starts from nothing.  At every step it asks the neural correlation functions (NCFs) of all hidden
layers for the neuron, or the chain of neurons, that would lower the loss most, adds it and minimises the loss
of the whole network again.  It stops when validation rows, or a comparison with pure noise, say that nothing is
left to learn, and returns the smallest network that does as well.

DATA.csv has a header line and numbers only; --target names the label column, all others are inputs unless --drop
names them.  Rows with missing values and columns of categories are refused, not guessed.  With --classify the
target may hold numbers or words, two or more classes.

--mode paper is the algorithm as published: single neurons of a small fixed size, gradient descent, no penalty.

This writes into DIR

  model.npz                   the network and what maps your columns to its inputs, for gfsim predict
  model_card.md               data, network, errors and limits, to be read by people
  metrics.json                errors by part of the rows; how the data were split; why growth stopped
  history.json                one row an addition: where, NCF values, predicted and real decrease, losses
  predictions.csv             label and prediction of every row
  pursuit.png, .svg           growth, the network (paper mode: NCF values), fit
  pursuit.json, pursuit.npz   paper mode: the complete record, which gfsim.pursuit.replay can replay

Ctrl-C ends the growth; the best network so far is written and its metrics say so.
"""

EPILOG = """\
examples:
  gfsim pursue houses.csv --target price --out out/houses
  gfsim pursue flowers.csv --target species --classify --out out/flowers
  gfsim predict out/houses new_houses.csv > prices.csv
  gfsim pursue houses.csv --target price --mode paper --activation square --hidden-layers 1 --out out/paper

to predict new rows X (the columns in the order of features) without gfsim predict:
  m = numpy.load("out/houses/model.npz")
  Z = (X - m["input_mean"]) / m["input_scale"]
  Z = numpy.column_stack([Z, numpy.ones(len(Z))])              # if m["bias"]
  net = gfsim.FeedForward(m["widths"], "relu", p=int(m["p"]), alpha=float(m["alpha"]))
  y = m["label_mean"] + m["label_scale"] * (m["intercept"] + net.forward(m["w"], Z))

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
    parser.add_argument("--classify", action="store_true", help="the target holds classes")
    parser.add_argument("--mode", choices=("pursuit", "paper"), default="pursuit", help="default: %(default)s")

    data = parser.add_argument_group("data")
    data.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="leave a column out (repeatable)")
    data.add_argument("--delimiter", choices=sorted(DELIMITERS), default="comma", help="default: %(default)s")
    data.add_argument("--no-bias", action="store_true", help="no constant input 1 (and no output intercept)")
    data.add_argument("--test-fraction", type=_fraction, default=0.2, metavar="F", help="default: %(default)s")
    data.add_argument(
        "--validation-fraction",
        type=_fraction,
        default=0.2,
        metavar="F",
        help="of all rows, to stop the growth by; 0: grow by the training loss alone (default: %(default)s)",
    )
    data.add_argument("--seed", type=seed, default=0, metavar="N", help="of the split and of all random starts")

    net = parser.add_argument_group("network")
    net.add_argument("--hidden-layers", type=count, metavar="N", help="default: 1; paper mode: 2")
    net.add_argument(
        "--activation", choices=("relu", "leaky", "linear", "square"), default="relu", help="default: %(default)s"
    )
    net.add_argument("--p", type=count, metavar="P", help="power of max(z, alpha z)^p")
    net.add_argument("--alpha", type=float, metavar="A", help="slope of its other branch")
    net.add_argument("--max-neurons", type=count, metavar="N", help="hidden ones (default: 50; paper mode: 20)")
    net.add_argument(
        "--patience", type=count, metavar="N", help="additions without a better validation loss (8; paper mode: 6)"
    )
    net.add_argument(
        "--l2", type=float, metavar="C", help="penalty on squared weights (default: chosen on validation rows)"
    )
    net.add_argument(
        "--networks", type=count, metavar="N", help="on noisy data the mean of so many, as one network (default: 1)"
    )

    paper = parser.add_argument_group("--mode paper only")
    paper.add_argument(
        "--standardise",
        choices=("both", "inputs", "none"),
        help="mean 0 and deviation 1, from the training rows: of inputs and label, inputs only, or nothing "
        "(default: both; labels of a classification are -1 and +1 always)",
    )
    paper.add_argument("--reduction", choices=("mean", "sum"), help="default: mean")
    paper.add_argument("--delta0", type=float, metavar="D", help="norm of the start (default: 0.2)")
    paper.add_argument("--delta", type=float, metavar="D", help="norm of a new neuron (default: 0.03)")
    paper.add_argument("--starts", type=count, metavar="N", help="random starts of every NCF maximisation (64)")
    paper.add_argument(
        "--trials",
        type=count,
        metavar="N",
        help="of NCF maxima that the data cannot tell apart, minimise from up to N and keep the best (default: 1, "
        "the largest)",
    )
    paper.add_argument(
        "--minimiser",
        choices=("descent", "flow"),
        help="descend with a fixed small step, or follow the gradient flow by an implicit solver, which is fast for "
        "smooth activations (p >= 2) and slow on kinks (default: descent)",
    )
    paper.add_argument("--t-end", type=float, metavar="T", help="flow: longest time of one minimisation (default: 160)")
    paper.add_argument("--step", type=float, metavar="H", help="descent: step size (default: 0.004)")
    paper.add_argument("--max-steps", type=count, metavar="N", help="most steps of one minimisation")
    paper.add_argument("--no-polish", action="store_true", help="no second-order refinement at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.cli.tabular import read_csv
    from gfsim.errors import InvalidInput

    path, delimiter = Path(args.data), DELIMITERS[args.delimiter]
    if args.mode == "paper":
        from gfsim.cli import pursue_paper

        if args.l2 is not None:
            raise InvalidInput("--l2 goes with --mode pursuit: the published algorithm has no penalty")
        if args.networks is not None:
            raise InvalidInput("--networks goes with --mode pursuit: the published algorithm grows one network")
        return pursue_paper.run(args, read_csv(path, args.target, drop=args.drop, delimiter=delimiter))
    from gfsim.cli import pursue_grown

    for name in PAPER_ONLY:
        if getattr(args, name) not in (None, False):
            raise InvalidInput(f"--{name.replace('_', '-')} goes with --mode paper")
    samples = read_csv(path, args.target, drop=args.drop, delimiter=delimiter, classes=args.classify)
    return pursue_grown.run(args, samples)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction; give a number >= 0 and < 1")
    return value
