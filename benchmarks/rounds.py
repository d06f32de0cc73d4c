"""One problem: the loosest setting of every method that reaches the goal, timed in interleaved rounds."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from gfsim.compare.measure import Run, unit_costs
from gfsim.compare.methods import STEPS
from gfsim.compare.peers import LIBRARIES, OWN, PeerLost, Worker, missing_packages
from gfsim.compare.problems import problem
from gfsim.compare.reference import reference_for
from gfsim.compare.runner import Comparison, out_of_time

SHORT, MOST = 0.5, 10
"""In a round a run is repeated until it has taken so many seconds or was made so often, and the fastest counts: what
other programs and a cold cache add to a few milliseconds would decide otherwise."""

RTOLS = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-8)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(
    name: str,
    *,
    peers: Sequence[str],
    methods: Sequence[str],
    goal: float,
    rounds: int,
    limit: float,
    threads: int,
) -> dict[str, Any]:
    """The sweep's runs and the medians of the rounds on one problem of the suite, as for the results file.

    Every library has a process of its own for the whole time; one of them works at a time.
    """
    task = problem(name)
    reference = reference_for(task, note=lambda text: say(f"{name}: {text}"))
    result = Comparison(task, reference, unit=unit_costs(task.objective, reference.places[0].state))
    timed: list[dict[str, Any]] = []
    with ExitStack() as stack:
        chosen: list[tuple[Worker, str, float]] = []
        for library in (OWN, *peers):
            absent = missing_packages(library) if library in LIBRARIES else []
            if absent:
                result.skipped.append(f"{library}: {', '.join(absent)} not installed")
                continue
            try:
                worker = stack.enter_context(Worker(library, task, reference, threads=threads))
            except (PeerLost, pickle.PicklingError, AttributeError, TypeError) as exc:
                result.skipped.append(f"{library}: {exc}")
                continue
            if worker.refusal:
                result.skipped.append(f"{library}: {worker.refusal}")
                continue
            for method, fixed in worker.methods.items():
                if methods and not {method, method.split(":")[-1], library} & set(methods):
                    continue
                setting = _loosest(result, worker, method, fixed, goal, limit)
                if setting is not None:
                    chosen.append((worker, method, setting))
        times: list[list[Run]] = [[] for _ in chosen]
        for number in range(rounds):
            say(f"{name}: round {number + 1} of {rounds}")
            for k, (worker, method, setting) in enumerate(chosen):
                times[k].append(_fastest(worker, method, setting, 4.0 * limit))
        for runs in times:
            timed.append(_median(runs))
    return {**result.to_json(), "goal": goal, "timed": timed, "threads": threads}


def _loosest(result: Comparison, worker: Worker, method: str, fixed: bool, goal: float, limit: float) -> float | None:
    """Sweep from the loosest setting on until the goal is reached or the time is over."""
    for setting in STEPS if fixed else RTOLS:
        run = worker.run(method, setting, limit)
        if not run.failure and run.wall > limit:
            run.failure = f"took {run.wall:.3g} s, more than the time limit of {limit:g} s"
            run.error = math.nan
        result.runs.append(run)
        shown = f"error {run.error:.1e}, {run.wall:.3g} s" if run.ok else run.failure
        say(f"{result.problem.name}: {run.id} at {setting:g}: {shown}")
        if run.ok and run.error <= goal:
            return setting
        if out_of_time(run, setting):
            return None
    return None


def _fastest(worker: Worker, method: str, setting: float, limit: float) -> Run:
    runs = [worker.run(method, setting, limit)]
    while runs[-1].ok and len(runs) < MOST and sum(run.wall for run in runs) < SHORT:
        runs.append(worker.run(method, setting, limit))
    return min(runs, key=lambda run: run.wall) if runs[-1].ok else runs[-1]


def _median(runs: Sequence[Run]) -> dict[str, Any]:
    good = [run for run in runs if run.ok]
    first = good[0] if good else runs[0]
    return {
        "id": first.id,
        "library": first.library,
        "method": first.method,
        "clock": first.clock,
        "setting": first.setting,
        "fixed": first.fixed,
        "error": first.error,
        "counts": first.counts,
        "wall": float(np.median([run.wall for run in good])) if good else math.nan,
        "cpu": float(np.median([run.cpu for run in good])) if good else math.nan,
        "evaluation_seconds": float(np.median([run.evaluation_seconds for run in good])) if good else math.nan,
        "walls": [run.wall for run in runs],
        "compile_seconds": max(run.compile_seconds for run in runs),
        "failures": [run.failure for run in runs if run.failure],
    }
