"""Run the comparison; ``python -m benchmarks.pursuit.page`` renders what came out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pursuit.cells import Store, measure
from benchmarks.pursuit.method import Method
from benchmarks.pursuit.registry import all_methods, belongs, every_seed
from benchmarks.pursuit.results import conditions, load
from benchmarks.pursuit.tables import TABLES
from benchmarks.pursuit.tasks import Task, all_tasks
from gfsim.errors import GfsimError, InvalidInput, unknown_name

QUICK = (("teacher-relu2-5", "staircase-relu2-d15-n400"), ("np", "np-no-trials", "linear"), 1)
"""Tasks, methods and seeds of ``--quick``: a look at whether everything runs."""

GROUPS = ("example", "core", "d30", "noise", "student", "real")

DESCRIPTION = """\
Fit every method to every task and seed, one after another in this process, and write DIR/cells/TASK--METHOD--SEED.json
after each.  What is there already is not fitted again: Ctrl-C and a second run lose nothing.  Times are CPU seconds;
set OMP_NUM_THREADS=1 so that they mean the same for everyone.
"""


@dataclass(frozen=True)
class Plan:
    """The fits of a run, in order."""

    fits: tuple[tuple[Task, Method, int], ...]

    @classmethod
    def of(cls, tasks: Sequence[str], methods: Sequence[str], seeds: int, slow_seeds: int, first: int = 0) -> Plan:
        """Names of tasks or groups and of methods (all if empty); seed by seed, so that a broken run is even."""
        known_tasks, known_methods = all_tasks(), all_methods()
        chosen_tasks = [t for t in known_tasks.values() if not tasks or t.name in tasks or t.group in tasks]
        for name in tasks:
            if name not in known_tasks and name not in GROUPS:
                raise unknown_name("task", name, [*known_tasks, *GROUPS])
        for name in methods:
            if name not in known_methods:
                raise unknown_name("method", name, known_methods)
        chosen = [m for m in known_methods.values() if not methods or m.name in methods]
        for name, count in (("seeds", seeds), ("slow seeds", slow_seeds)):
            if count < 1:
                raise InvalidInput(f"{name} = {count}; give a whole number >= 1")
        return cls(
            tuple(
                (task, method, seed)
                for seed in range(first, first + seeds)
                for task in chosen_tasks
                for method in chosen
                if belongs(method, task) and (seed - first < slow_seeds or every_seed(method, task))
            )
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pursuit",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", default="out/pursuit", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help=f"tasks or groups: {', '.join(GROUPS)}")
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help=", ".join(all_methods()))
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--slow-seeds", type=int, default=3, metavar="N", help="of slow methods (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="K", help="default: %(default)s")
    parser.add_argument(
        "--limit", type=float, default=10.0, metavar="SECONDS", help="CPU seconds of one fit (default: %(default)g)"
    )
    parser.add_argument("--known", metavar="JSON", help="take over the fits of such a file as the page is made with")
    parser.add_argument("--quick", action="store_true", help="two tasks, three methods, one seed")
    parser.add_argument("--list", action="store_true", help="list tasks and methods, and what is missing")
    args = parser.parse_args(argv)
    try:
        if args.list:
            return _list()
        if args.quick:
            tasks, methods, seeds = QUICK
            args.tasks, args.methods = args.tasks or list(tasks), args.methods or list(methods)
            args.seeds = args.slow_seeds = seeds
        plan = Plan.of(args.tasks, args.methods, args.seeds, args.slow_seeds, args.first_seed)
        store = Store(Path(args.out) / "cells")
        if args.known is not None:
            for cell in load(Path(args.known)).cells:
                store.write(cell)
        return _run(plan, store, args.limit)
    except GfsimError as exc:
        print(f"benchmarks.pursuit: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        return 130


def _list() -> int:
    missing = {table.name: table.missing() for table in TABLES}
    for task in all_tasks().values():
        why = missing.get(task.name)
        print(f"{task.group:8} {task.name:32} {task.title}" + (f"  [{why}]" if why else ""))
    for method in all_methods().values():
        print(f"method   {method.name:32} {method.title}")
    return 0


def _run(plan: Plan, store: Store, limit: float) -> int:
    if os.environ.get("OMP_NUM_THREADS") != "1":
        print("OMP_NUM_THREADS is not 1: CPU seconds of several threads add up", file=sys.stderr)
    missing = {table.name: table.missing() for table in TABLES}
    todo = [fit for fit in plan.fits if not store.has(fit[0].name, fit[1].name, fit[2])]
    (store.folder.parent / "run.json").write_text(json.dumps(conditions(limit)) + "\n", encoding="utf-8")
    began, refused = time.perf_counter(), set()
    warnings.simplefilter("ignore")  # of other packages; nothing of what they warn about changes a number here
    for k, (task, method, seed) in enumerate(todo, start=1):
        why = missing.get(task.name)
        if why is not None:
            if task.name not in refused:
                print(f"{task.name}: skipped, {why}", file=sys.stderr)
                refused.add(task.name)
            continue
        cell = measure(task, method, seed, limit)
        store.write(cell)
        left = (time.perf_counter() - began) / k * (len(todo) - k)
        what = f"{cell.error:.2g}, {cell.cpu:.1f} s" if cell.status == "fitted" else f"{cell.status}: {cell.note}"
        print(f"[{k}/{len(todo)}, {left / 60:.0f} min left] {task.name} {method.name} {seed}: {what}", flush=True)
    print(f"{len(todo)} fits; cells are in {store.folder}")
    return 0
