"""``gfsim check``: the statements of the theory, each with a negative control."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfsim.cli.parser import Parser, seed
from gfsim.errors import OutputError

if TYPE_CHECKING:
    from proofs_checks.statement import Row

DESCRIPTION = """\
Check the statements of the theory, each by symbols, by random instances, or both.

Every statement also has a negative control: the same check where one hypothesis is broken, which must
fail.  A margin is the factor by which the worst instance is inside its bound (below 1: it is not).
"""

EPILOG = """\
examples:
  gfsim check --list                   what there is
  gfsim check                          all of it, in the quick form
  gfsim check balance kkt --details    two of them, with every bound and the reason for it
  gfsim check --seed 7 --json out.json on draws of your own, everything recorded
  gfsim check near_saddle --plots out  its picture: every instance beside its bound, and the fitted laws

Ctrl-C keeps the statements that are done, in the table and in FILE, and names the others.

exit codes: 0 only if every statement holds and every control failed as it should; 1 otherwise; 2 wrong request;
130 interrupted.  Statements that need an extra which is not installed are shown as skipped, with how to get it;
naming such a statement makes the exit code 1.
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "check", help="check the statements of the theory", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="statements to check; all of them by default")
    parser.add_argument("--list", action="store_true", help="list the statements and exit")
    parser.add_argument("--full", action="store_true", help="more instances and longer ranges, which take longer")
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of everything that is drawn (default: %(default)s)"
    )
    parser.add_argument("--details", action="store_true", help="print every piece of evidence too")
    parser.add_argument("--json", metavar="FILE", help="write every measured number to FILE")
    parser.add_argument("--plots", metavar="DIR", help="draw a picture of every statement, DIR/NAME.png")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.interrupt import interruptible
    from proofs_checks.registry import run as check
    from proofs_checks.registry import select
    from proofs_checks.report import details, exponents, notes, problems, record, table, verdict
    from proofs_checks.statement import Context

    chosen = select(args.names)
    if args.list:
        width = max(len(s.name) for s in chosen)
        for s in chosen:
            print(f"{s.name.ljust(width)}  {s.title} ({s.source})")
        return 0
    target = Path(args.json) if args.json else None
    if target is not None and target.is_dir():
        raise OutputError(f"--json {target}: that is a folder; name a file in it, such as {target / 'checks.json'}")
    if target is not None and not target.parent.is_dir():
        raise OutputError(f"--json {target}: the folder {target.parent} does not exist; make it first")
    pictures = None
    if args.plots:
        from gfsim.output import OutputDirectory

        pictures = OutputDirectory(args.plots)
    context = Context(seed=args.seed, full=args.full)
    rows: list[Row] = []
    with interruptible() as stop:
        for statement in chosen:
            print(f"checking {statement.name} ...", file=sys.stderr, flush=True)
            try:
                row = check(statement, context)
            except KeyboardInterrupt:
                break
            if stop.is_set():
                break  # a solver took Ctrl-C for the end of its own run: this row is of half a check
            rows.append(row)
            if pictures is not None and row.evidence:
                from proofs_checks.plots import png

                pictures.write({f"{statement.name}.png": png(row)})
    missing = [statement.name for statement in chosen[len(rows) :]]
    if missing and not rows:
        raise KeyboardInterrupt
    if args.details:
        print(details(rows) + "\n")
    print(table(rows))
    fitted = exponents(rows)
    if fitted:
        print(f"\n{fitted}")
    beside = notes(rows)
    if beside:
        print(f"\n{beside}")
    trouble = problems(rows)
    if trouble:
        print(f"\n{trouble}")
    print(f"\n{verdict(rows)}")
    if target is not None:
        _write(target, record(rows, context) | ({"holds": False, "missing": missing} if missing else {}))
    if missing:
        print(f"gfsim: interrupted; not checked: {', '.join(missing)}", file=sys.stderr)
        return 130
    missed = [row for row in rows if not row.holds and not (row.skipped and row.name not in args.names)]
    return 1 if missed else 0


def _write(target: Path, content: dict[str, Any]) -> None:
    from gfsim.jsonable import dumps

    # under another name first: an interrupted run leaves no half file
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_text(dumps(content), encoding="utf-8")
        partial.replace(target)
    except OSError as exc:
        raise OutputError(f"cannot write {target}: {(exc.strerror or str(exc)).lower()}; choose another FILE") from None
