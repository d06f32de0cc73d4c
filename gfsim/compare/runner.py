"""Sweep the methods over the tolerances on one problem; keep what is done, whatever happens to the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gfsim.compare.measure import Run, floor_of, unit_costs
from gfsim.compare.methods import Method, choose
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference, check_order, reference_for
from gfsim.errors import InvalidInput
from gfsim.interrupt import Stop
from gfsim.jsonable import to_jsonable
from gfsim.provenance import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUICK_RTOLS = (1e-3, 1e-5, 1e-7)
FULL_RTOLS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
QUICK_LIMIT, FULL_LIMIT = 3.0, 60.0
"""Seconds a run may take before it counts as hopeless."""

GOAL = 1e-3
"""The error at which methods are compared first: small blocks known to three digits."""


@dataclass
class Comparison:
    """What was measured on one problem.

    Attributes
    ----------
    problem : Problem
    reference : Reference
    runs : list of Run
    unit : dict
        Seconds of one right-hand side, Hessian-vector product, Jacobian and factorisation.
    skipped : list of str
        Peers that take no part, and why.
    interrupted : bool
        Whether the sweep was cut short; the runs up to there are whole.
    """

    problem: Problem
    reference: Reference
    runs: list[Run] = field(default_factory=list)
    unit: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def floor(self) -> float:
        """Errors below this are not resolved by the reference."""
        return floor_of(self.reference)

    def table(self, goal: float = GOAL) -> str:
        from gfsim.compare.report import table

        return table(self, goal)

    def all_runs(self) -> str:
        from gfsim.compare.report import all_runs

        return all_runs(self)

    def advice(self, goal: float = GOAL) -> str:
        from gfsim.compare.advice import advice

        return advice(self, goal)

    def figure(self) -> Figure:
        from gfsim.compare.plots import work_precision

        return work_precision(self)

    def to_json(self) -> dict[str, Any]:
        r = self.reference
        record = {
            "name": self.problem.name,
            "title": self.problem.title,
            "label": repr(self.problem.objective),
            "convention": self.problem.convention,
            "note": self.problem.note,
            "weights": self.problem.size,
            "samples": self.problem.objective.n_samples,
            "interrupted": self.interrupted,
            "skipped": self.skipped,
            "reference": {
                "solvers": list(r.solvers),
                "accuracy": r.accuracy,
                "t_end": r.t_end,
                "stiffness": r.stiffness,
                "largest_curvature": r.stiffest,
                "curve": {"t": r.curve[:, 0], "loss": r.curve[:, 1], "curvature": r.curve[:, 2]},
                "sections": [{"name": p.section.name, "t": p.t, "blocks": list(p.blocks)} for p in r.places],
            },
            "unit_seconds": self.unit,
            "runs": self.runs,
            "versions": versions(),
        }
        return {name: to_jsonable(value, name) for name, value in record.items()}


def compare(
    problem: Problem,
    *,
    methods: Sequence[str] = (),
    rtols: Sequence[float] = QUICK_RTOLS,
    limit: float = QUICK_LIMIT,
    peers: Sequence[str] = (),
    cache: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
    stop: Stop | None = None,
) -> Comparison:
    """Run every method at every tolerance on a problem.

    Parameters
    ----------
    problem : Problem
    methods : names as :func:`gfsim.compare.methods.choose` takes them; all by default
    rtols : tolerances of the adaptive methods
    limit : float
        Seconds a run; a method that runs out of time is not tried at tighter tolerances.
    peers : names of peer libraries (:data:`gfsim.compare.peers.LIBRARIES`), each in a process of its own
    cache : Path, optional
        Folder of the cached references.
    note : callable
        Told what is being done.
    stop : Stop, optional
        Of the caller's ``interruptible()`` block.  Ctrl-C between or inside runs ends the sweep, and what is done is
        returned with ``interrupted`` set.

    Raises
    ------
    ReferenceRefused, UnknownName, InvalidInput
    """
    settings = check_rtols(rtols)
    if not (math.isfinite(limit) and limit > 0):
        raise InvalidInput(f"limit = {limit!r} seconds a run; it must be a finite number > 0")
    chosen = choose(methods) if methods or not peers else choose(())
    reference = reference_for(problem, folder=cache, note=note)
    check_order(problem, reference)
    result = Comparison(problem, reference, unit=unit_costs(problem.objective, reference.places[0].state))
    try:
        for method in chosen:
            _sweep(result, method, settings, limit, note, stop)
        if peers:
            from gfsim.compare.peers import sweep_peers

            sweep_peers(result, peers, settings, limit, note, stop)
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _sweep(
    result: Comparison,
    method: Method,
    rtols: Sequence[float],
    limit: float,
    note: Callable[[str], None],
    stop: Stop | None,
) -> None:
    hopeless = ""
    for setting in sorted(method.settings(rtols), reverse=True):
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if hopeless:
            skipped = Run(method.library, method.name, method.clock, setting, method.fixed)
            skipped.failure = f"not tried: {hopeless}"
            result.runs.append(skipped)
            continue
        note(f"{method.id} {describe(method.fixed, setting)}")
        run = method.run(result.problem, result.reference, setting, limit=limit)
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt  # a solver may have swallowed it, and this run is not whole
        result.runs.append(run)
        hopeless = out_of_time(run, setting)


def out_of_time(run: Run, setting: float) -> str:
    """Why there is no sense in a tighter setting after this run; empty if there is."""
    if "time limit" in run.failure or "no answer" in run.failure or run.failure.startswith("not tried"):
        return f"already too slow at {describe(run.fixed, setting)}"
    return ""


def describe(fixed: bool, setting: float) -> str:
    return f"step {setting:g}/lambda" if fixed else f"rtol {setting:g}"


def check_rtols(rtols: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(r) for r in rtols)
    if not values or not all(1e-13 <= r <= 0.5 for r in values):
        raise InvalidInput(f"rtols = {list(rtols)}; give at least one number between 1e-13 and 0.5")
    return tuple(sorted(set(values), reverse=True))


def cheapest(runs: Sequence[Run], goal: float, *, by: str = "wall") -> Run | None:
    """The cheapest run with an error of at most ``goal``, by ``wall`` seconds or ``evaluations``."""
    good = [run for run in runs if run.ok and run.error <= goal]
    return min(good, key=lambda run: float(getattr(run, by)), default=None)


def wall_at(runs: Sequence[Run], goal: float) -> float:
    """Wall seconds at exactly this error, between the runs on either side of it on log-log axes.

    The measured wall of the cheapest good run where no run is worse than the goal; NaN where none is good enough.
    """
    good = sorted((run for run in runs if run.ok), key=lambda run: run.error)
    best = cheapest(good, goal)
    if best is None:
        return math.nan
    worse = [run for run in good if run.error > goal and run.wall < best.wall]
    if not worse:
        return best.wall
    near = min(worse, key=lambda run: run.error)
    x = np.log([best.error, near.error])
    part = (math.log(goal) - x[0]) / (x[1] - x[0])
    return float(math.exp((1 - part) * math.log(best.wall) + part * math.log(near.wall)))
