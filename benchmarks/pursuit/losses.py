"""Where another method does better than Neuron Pursuit's default mode: found by rule, so that none can be left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.pursuit.registry import OURS
from benchmarks.pursuit.summary import Entry
from benchmarks.pursuit.tasks import Task


@dataclass(frozen=True)
class Loss:
    """One task and one method that does better there, and in what: ``kind`` is ``solved``, ``error`` or ``cpu``."""

    task: str
    method: str
    kind: str
    ours: str
    theirs: str


def losses(found: dict[tuple[str, str], Entry], tasks: Iterable[Task]) -> list[Loss]:
    """On the common seeds of each pair.

    Functions with a goal: a larger share solved is a loss; so is, at the same positive share, less CPU time.  Real
    tables: a smaller mean error.  Neuron Pursuit's own variants count like any other method.
    """
    out = []
    for task in tasks:
        ours = found.get((task.name, "np"))
        if ours is None:
            continue
        for (name, method), theirs in found.items():
            if name != task.name or method == "np":
                continue
            loss = _real(ours, theirs) if np.isnan(task.goal) else _solving(ours, theirs, task.goal)
            if loss is not None:
                out.append(Loss(task.name, method, *loss))
    return out


def _common(ours: Entry, theirs: Entry) -> tuple[list[int], list[int]]:
    seeds = sorted(set(ours.seeds) & set(theirs.seeds))
    return [ours.seeds.index(k) for k in seeds], [theirs.seeds.index(k) for k in seeds]


def _solving(ours: Entry, theirs: Entry, goal: float) -> tuple[str, str, str] | None:
    a, b = _common(ours, theirs)
    if not a:
        return None
    mine, other = int((ours.errors[a] < goal).sum()), int((theirs.errors[b] < goal).sum())
    if other > mine:
        return "solved", f"{mine} of {len(a)}", f"{other} of {len(a)}"
    seconds = float(np.median(ours.cpus[a])), float(np.median(theirs.cpus[b]))
    if other == mine > 0 and seconds[1] < seconds[0]:
        return "cpu", f"{seconds[0]:.2g} s", f"{seconds[1]:.2g} s"
    return None


def _real(ours: Entry, theirs: Entry) -> tuple[str, str, str] | None:
    a, b = _common(ours, theirs)
    if not a:
        return None
    mine, other = float(ours.errors[a].mean()), float(theirs.errors[b].mean())
    return ("error", f"{mine:.3g}", f"{other:.3g}") if other < mine else None


def own(loss: Loss) -> bool:
    """Whether the better method is a variant of Neuron Pursuit itself."""
    return loss.method in OURS
