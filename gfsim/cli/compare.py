"""``gfsim compare``: integrators on the suite, or on a flow of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfsim.cli.parser import Parser, seed

if TYPE_CHECKING:
    from gfsim.compare.problems import Problem
    from gfsim.compare.runner import Comparison
    from gfsim.interrupt import Stop
    from gfsim.output import OutputDirectory

DESCRIPTION = """\
Compare integrators on gradient flows: which one is cheapest at the accuracy you need, and why.

Every method is run at several tolerances: those of scipy in physical time (plain solve_ivp), all that
gfsim.simulate has in its rescaled clock, gradient descent at several steps, and with --peers the other
packages that are installed.  Its states are compared with a reference solution at EQUAL LOSS (or equal size
of the escaping weights), never at equal time: two runs whose clocks differ by a thousandth are far apart
while a saddle is being left, though both trace the same curve.  The error is the largest relative error of
any block of weights, so weights of size delta count as much as those of size one.

For each PROBLEM (those of the quick form by default) this writes into DIR

  NAME.png, NAME.svg   work-precision diagrams: error against wall time and against evaluations
  NAME.json            every run: evaluations, factorisations, steps, seconds, errors, reasons of failure
  NAME.txt             the tables and the advice

and prints the table at --goal and the advice.  Ctrl-C keeps what is done.
"""

EPILOG = """\
examples:
  gfsim compare --list                               what there is
  gfsim compare                                      the quick form of the suite: a few minutes
  gfsim compare saddle-relu2-1e-2 --rtol 1e-4 1e-6   one problem, tolerances of your own
  gfsim compare toy --methods RK45 gfsim:LSODA       RK45 in both clocks, LSODA in the rescaled one
  gfsim compare passage-relu2 --peers                with the packages of pip install 'gfsim[bench]'
  gfsim compare --own near-saddle.toml --goal 1e-5   your own flow (gfsim simulate --example prints a file)

How to read the table: RHS, Jac, HVP, LU count gradients, Hessians, Hessian-vector products and factorisations;
h*lambda is the median of step times largest Hessian eigenvalue: an explicit method near 2.5 (RK23), 3.3 (RK45)
or 6 (DOP853) is held by stability, not by accuracy, and an implicit one will be cheaper.  A method whose run
exceeds --limit is stopped and reported as such.

Reference solutions are two independent runs that must agree; they are kept in $GFSIM_CACHE, or ~/.cache/gfsim.

exit codes: 0 all problems were compared; 1 a problem could not be (its reference was refused, or no method
got there); 2 wrong request; 130 interrupted (what is complete is kept).
"""


def add_parser(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "compare",
        help="compare integrators on a suite of flows, or on your own",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("names", nargs="*", metavar="PROBLEM", help="problems; those of the quick form by default")
    parser.add_argument("--list", action="store_true", help="list the problems and the methods, and exit")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="a name (RK45), library:name (gfsim:RK45), or library",
    )
    parser.add_argument("--full", action="store_true", help="all problems, more tolerances, a longer limit")
    parser.add_argument(
        "--peers",
        nargs="*",
        metavar="LIBRARY",
        help="also other packages: torchdiffeq, torchode, diffrax, sundials, torch; all without a name",
    )
    parser.add_argument("--rtol", nargs="+", type=float, default=[], metavar="X", help="relative tolerances to sweep")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="of one run (default: 3, with --full 60)")
    parser.add_argument(
        "--goal", type=float, default=1e-3, metavar="ERROR", help="the error at which methods are ranked (%(default)g)"
    )
    parser.add_argument("--own", metavar="CONFIG.toml", help="a flow of your own, in the format of gfsim simulate")
    parser.add_argument("--seed", type=seed, metavar="N", help="replaces the top-level seed of the --own file")
    parser.add_argument("--all", action="store_true", help="print every run, not only the best of each method")
    parser.add_argument("--out", default="out/compare", metavar="DIR", help="where to write (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from gfsim.compare.methods import choose
    from gfsim.compare.peers import LIBRARIES, missing_packages
    from gfsim.compare.problems import select
    from gfsim.compare.runner import FULL_LIMIT, FULL_RTOLS, QUICK_LIMIT, QUICK_RTOLS, check_rtols
    from gfsim.errors import InvalidInput
    from gfsim.interrupt import interruptible
    from gfsim.output import OutputDirectory

    if args.list:
        return _list()
    if args.own is not None and args.names:
        raise InvalidInput("name problems of the suite or a file with --own, not both")
    if args.seed is not None and args.own is None:
        raise InvalidInput("--seed goes with --own; the problems of the suite are fixed by their names")
    if not args.goal > 0:
        raise InvalidInput(f"--goal {args.goal:g}; an error to reach is a number > 0")
    choose(args.methods)  # a wrong name is told before anything is computed
    peers = list(LIBRARIES) if args.peers == [] else args.peers or []
    for library in peers:
        missing_packages(library)
    options = {
        "methods": args.methods,
        "rtols": check_rtols(args.rtol or (FULL_RTOLS if args.full else QUICK_RTOLS)),
        "limit": args.limit if args.limit is not None else FULL_LIMIT if args.full else QUICK_LIMIT,
        "peers": peers,
    }
    entries = [] if args.own else select(args.names, quick=not args.full)
    out = OutputDirectory(args.out)
    code = 0
    with interruptible() as stop:
        jobs = [(entry.name, entry.build) for entry in entries] or [_own_job(args)]
        done: list[str] = []
        for name, build in jobs:
            if stop.is_set():
                break
            state = _one(name, build, options, args, out, stop)
            if state == "interrupted":
                break
            code = max(code, 0 if state == "done" else 1)
            done.append(name)
        missing = [name for name, _ in jobs if name not in done]
    if missing:
        print(
            f"interrupted: {', '.join(missing)} not complete; the files of the others are in {out.path}",
            file=sys.stderr,
        )
        return 130
    print(f"Diagrams, tables and JSON are in {out.path}")
    return code


def _own_job(args: argparse.Namespace) -> tuple[str, Any]:
    from gfsim.cli.own_problem import own_problem

    path = Path(args.own)
    return path.stem, lambda: own_problem(path, seed=args.seed, note=lambda text: _note(path.stem, text))


def _one(
    name: str, build: Any, options: dict[str, Any], args: argparse.Namespace, out: OutputDirectory, stop: Stop
) -> str:
    """Compare on one problem and write its files: ``"done"``, ``"failed"`` or ``"interrupted"``."""
    from gfsim.compare.reference import ReferenceRefused
    from gfsim.compare.runner import compare

    try:
        problem: Problem = build()
        result = compare(problem, **options, note=lambda text: _note(name, text), stop=stop)
    except KeyboardInterrupt:
        return "interrupted"
    except ReferenceRefused as exc:
        print(f"{exc}\n")
        return "failed"
    with stop.held():
        if result.runs:
            _write(out, result, args.goal)
    print(f"{result.all_runs() if args.all else result.table(args.goal)}\n\n{result.advice(args.goal)}\n", flush=True)
    if result.interrupted:
        return "interrupted"
    return "done" if any(run.ok for run in result.runs) else "failed"


def _note(name: str, text: str) -> None:
    print(f"{name}: {text}", file=sys.stderr, flush=True)


def _write(out: OutputDirectory, result: Comparison, goal: float) -> None:
    from gfsim.compare.plots import pictures
    from gfsim.jsonable import dumps

    name = result.problem.name
    text = f"{result.table(goal)}\n\n{result.advice(goal)}\n\nevery run\n\n{result.all_runs()}\n"
    files = pictures(name, result.figure())
    # the JSON file comes last: where it is, the set is complete
    out.write({**files, f"{name}.txt": text.encode(), f"{name}.json": dumps(result.to_json()).encode()})


def _list() -> int:
    from gfsim.compare.methods import catalogue
    from gfsim.compare.peers import LIBRARIES, missing_packages
    from gfsim.compare.problems import SUITE

    width = max(len(entry.name) for entry in SUITE)
    print("problems (* in the quick form)")
    for entry in SUITE:
        print(f"  {entry.name.ljust(width)} {'*' if entry.quick else ' '} {entry.title}")
    print("\nmethods")
    for library in ("scipy", "gfsim", "descent"):
        names = [method.name for method in catalogue() if method.library == library]
        print(f"  {library.ljust(width)}   {', '.join(names)}")
    print("\npeers")
    for library in LIBRARIES:
        absent = missing_packages(library)
        print(f"  {library.ljust(width)}   {'not installed: ' + ', '.join(absent) if absent else 'installed'}")
    return 0
