"""``gfsim reproduce``: the papers' figures, each beside the numbers that it must show."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from gfsim.cli.parser import Parser, count, seed
from gfsim.errors import InvalidInput

DESCRIPTION = """\
Run the figures of the papers and check their claims.

For each NAME (all of them by default) this writes into DIR

  NAME.png, NAME.svg   the figure
  NAME.json            its claims, and every number that they and the picture are made of
  claims.md            the table of claims of all figures in DIR

and prints the table.  A figure that is complete in DIR and whose inputs (sources, seed, form, data,
versions of the numerical packages) have not changed is not run again.  Files are written whole or not
at all; Ctrl-C keeps the figures that are complete and says which are missing, and the next run goes
on with those.  An error in one figure does not stop the others: its traceback goes to NAME.error.txt.

With --jobs N figures run in N processes, those that take longest first; numbers and pictures are the same.
"""

MOST_JOBS = 2
"""Processes unless --jobs says otherwise: each may take half a gigabyte, and the longest figure, which is not divided,
takes about a quarter of the whole."""

EPILOG = """\
examples:
  gfsim reproduce --list                       what there is
  gfsim reproduce                              all of it, in the quick form
  gfsim reproduce toy pursuit --out /tmp/figs  two of them
  gfsim reproduce --jobs 4                     four at a time
  gfsim reproduce pursuit --seed 7             on a draw of your own
  gfsim reproduce four_layer_digits --full --data ~/mnist   on all of MNIST's zeros and ones

exit codes: 0 only if everything ran and every claim held; 1 a claim failed or a figure is in error;
2 wrong request; 130 interrupted.
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "reproduce", help="run the papers' figures and check their claims", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to run; all of them by default")
    parser.add_argument("--list", action="store_true", help="list the figures and exit")
    parser.add_argument("--full", action="store_true", help="the papers' own sizes and ranges, which take longer")
    parser.add_argument("--out", default="out/figures", metavar="DIR", help="where to write (default: %(default)s)")
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of everything that is drawn (default: %(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="run figures even if nothing they depend on has changed")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="a folder with your own copies of data sets: the four IDX files of MNIST, as they are or gzipped",
    )
    parser.add_argument(
        "--jobs",
        type=count,
        default=min(_cores(), MOST_JOBS),
        metavar="N",
        help="figures that run at a time, each on one thread; 1: all in this process (default: the cores that this "
        f"process may use, at most {MOST_JOBS}: %(default)s here)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from paper_repro.registry import select

    chosen = select(args.names)
    if args.list:
        return _list(chosen)

    from gfsim.output import OutputDirectory
    from paper_repro.registry import FIGURES
    from paper_repro.report import markdown, plain_table, verdict
    from paper_repro.runner import earlier_report, run_figures

    data = None if args.data is None else _folder(args.data)
    out = OutputDirectory(args.out)
    if out.swept:
        print(f"removed half-written files of an earlier run: {', '.join(out.swept)}", file=sys.stderr)
    summary = run_figures(chosen, out, seed=args.seed, full=args.full, data=data, again=args.again, jobs=args.jobs)
    print(f"{plain_table(summary)}\n\n{verdict(summary)}")
    others = [report for entry in FIGURES if entry not in chosen and (report := earlier_report(entry, out))]
    out.write_text("claims.md", markdown(summary, others))
    print(f"Figures and claims.md are in {out.path}")
    return summary.exit_code


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise InvalidInput(f"--data {name}: there is no such folder; name the one that holds the data files")
    return folder


def _list(chosen: Any) -> int:
    width = max(len(entry.name) for entry in chosen)
    for entry in chosen:
        note = "" if entry.available else f"  [not available: the module {entry.module} is missing]"
        print(f"{entry.name.ljust(width)}  {entry.title} ({entry.source}){note}")
    return 0
