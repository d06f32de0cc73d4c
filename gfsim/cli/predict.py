"""``gfsim predict``: apply a network that ``gfsim pursue`` grew to new rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gfsim.cli.parser import Parser
from gfsim.cli.pursue import DELIMITERS

DESCRIPTION = """\
Predict the target for every row of DATA.csv with the network in DIR.

DATA.csv needs the columns that the network was grown on, in any order; other columns are left unread.
The predictions are written to standard output as CSV, or to a file with --out: one line a row, in the
order of DATA.csv; for classes the predicted class and the probability of each.
"""

EPILOG = """\
example:
  gfsim pursue houses.csv --target price --out out/houses
  gfsim predict out/houses new_houses.csv > prices.csv

exit codes: 0 all rows predicted; 2 wrong request.
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "predict", help="apply a grown network to new rows", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("model", metavar="DIR", help="a directory that gfsim pursue has written")
    parser.add_argument("data", metavar="DATA.csv", help="a table with a header line")
    parser.add_argument("--out", metavar="FILE", help="write there instead of to standard output")
    parser.add_argument("--delimiter", choices=sorted(DELIMITERS), default="comma", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import csv
    import io

    from gfsim.cli.model_file import load
    from gfsim.cli.tabular import read_features
    from gfsim.output import OutputDirectory

    model = load(Path(args.model))
    X = read_features(Path(args.data), model.features, delimiter=DELIMITERS[args.delimiter])
    header, rows = model.table(X)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    if args.out is None:
        print(text.getvalue(), end="")
        return 0
    target = Path(args.out)
    OutputDirectory(target.parent).write_text(target.name, text.getvalue())
    return 0
