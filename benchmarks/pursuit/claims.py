"""What is claimed of Neuron Pursuit, with bounds set before anything was measured, and whether it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.pursuit.registry import NEURAL
from benchmarks.pursuit.results import Results
from benchmarks.pursuit.summary import Duel, Entry, duel, entries, standing
from benchmarks.pursuit.tasks import all_tasks

GROMO_FACTOR = 20.0


@dataclass(frozen=True)
class Claim:
    """A sentence, its bound, what was measured, and whether that is enough (None: not measured)."""

    text: str
    asked: str
    measured: str
    holds: bool | None


def claims(found: Results) -> list[Claim]:
    """All claims; each looks at all cells that there are for it."""
    table = entries(found.cells)
    groups = {
        group: [task.name for task in all_tasks().values() if task.group == group]
        for group in ("example", "core", "d30", "noise", "real")
    }
    return [
        _example(table),
        _share(table, groups["core"], "np", "the fourteen settings solved", 65, 70),
        _share(table, groups["d30"], "np-no-trials", "seventeen settings at d = 30, no trials", 50, 85),
        _more(found, groups["d30"]),
        _share(table, ["teacher-relu-3-3"], "np", "relu teacher (3, 3) solved", 5, 5),
        _staircases(table),
        _gromo(found, groups["core"]),
        *(_real(table, groups["real"], method, foreseen) for method in ("np", "np-mean") for foreseen in (False, True)),
        _better(duel(found.cells, groups["core"], "np", "np-no-paths"), "paths: more is solved with them"),
        _better(
            duel(found.cells, [*groups["core"], *groups["d30"]], "np", "np-no-ascent"),
            "the ascent on the predicted decrease: more is solved with it",
        ),
        _better(
            duel(found.cells, [*groups["core"], *groups["d30"]], "np", "np-no-retreat"),
            "the way back to the best network: more is solved with it",
        ),
        _better(
            duel(found.cells, groups["core"], "np", "np-no-restart"),
            "setting growths aside that go astray: more is solved with it",
        ),
        _better(duel(found.cells, groups["core"], "np", "np-no-trials"), "trials: more is solved with them"),
        _better(
            duel(found.cells, groups["core"], "np-no-trials", "np-random-no-trials"),
            "without trials the NCF's direction solves more than a random one",
        ),
        _cheaper(
            duel(found.cells, groups["core"], "np", "np-random"),
            "with trials random directions solve as much, but the NCF's in at most two thirds of the CPU time",
        ),
    ]


def _example(table: dict[tuple[str, str], Entry]) -> Claim:
    text = "the public example: every draw to 1e-10, at most 6 hidden neurons and 5 CPU s"
    e = table.get(("public-example", "np"))
    if e is None:
        return Claim(text, "all", "-", None)
    measured = f"{e.solved} of {e.tried} draws, at most {e.most_neurons} neurons, slowest {e.cpus.max():.2g} s"
    quick = float(e.cpus.max()) <= 5.0
    return Claim(text, "all", measured, e.solved == e.tried and quick and e.most_neurons <= 6)


def _share(
    table: dict[tuple[str, str], Entry], tasks: list[str], method: str, text: str, least: int, fits: int
) -> Claim:
    """At least ``least`` of ``fits``: open until there are that many."""
    rows = [table[name, method] for name in tasks if (name, method) in table]
    solved, tried = sum(r.solved for r in rows), sum(r.tried for r in rows)
    asked, measured = f"{least} of {fits}", f"{solved} of {tried}"
    if tried < fits:
        return Claim(text, asked, f"{measured}, fits are missing", None)
    return Claim(text, asked, measured, solved >= least / fits * tried - 1e-9)


def _more(found: Results, tasks: list[str]) -> Claim:
    return _better(duel(found.cells, tasks, "np", "np-no-trials"), "d = 30: more is solved with trials")


def _staircases(table: dict[tuple[str, str], Entry]) -> Claim:
    rows = [e for (task, method), e in table.items() if method == "np" and task.startswith("staircase-relu2-d15-n400")]
    rows = [e for e in rows if not e.task.endswith("noise")]
    text, asked = "the relu^2 staircase exact (1e-10) with at most 12 neurons", "all"
    if not rows:
        return Claim(text, asked, "-", None)
    exact = all(bool((e.errors < 1e-10).all()) for e in rows)
    measured = f"largest error {max(e.span[1] for e in rows):.0e}, at most {max(e.most_neurons for e in rows)} neurons"
    return Claim(text, asked, measured, exact and all(e.most_neurons <= 12 for e in rows))


def _gromo(found: Results, core: list[str]) -> Claim:
    """The CPU time of a whole fit of gromo over ours until the held-out error is no larger than gromo's in the end.

    The error of our whole fit must be no larger either.
    """
    text = f"gromo: at least {GROMO_FACTOR:g} times its CPU time saved at equal or lower error, on every teacher"
    cells = {(c.task, c.method, c.seed): c for c in found.cells if c.status == "fitted"}
    told, factors, worse = [], [], []
    for name in (name for name in core if name.startswith("teacher")):
        ratios = []
        for (task, method, seed), theirs in cells.items():
            ours = cells.get((name, "np", seed))
            if task != name or method != "gromo-tiny" or ours is None:
                continue
            if not ours.error <= theirs.error:
                worse.append(f"{name} {seed}")
            until = next((cpu for cpu, error in ours.progress if error <= theirs.error), ours.cpu)
            ratios.append(theirs.cpu / until)
        if ratios:
            factors.append(float(np.median(ratios)))
            told.append(f"{factors[-1]:.3g} ({len(ratios)})")
    if not factors:
        return Claim(text, "all", "-", None)
    measured = f"median factors (seeds) {', '.join(told)}; " + (
        f"larger error on {', '.join(worse)}" if worse else "our error is lower on each"
    )
    return Claim(text, "all", measured, not worse and min(factors) >= GROMO_FACTOR)


def _real(table: dict[tuple[str, str], Entry], tables: list[str], method: str, foreseen: bool) -> Claim:
    """Against the network with the smallest error on the same splits, or the one that the other splits foresee."""
    which = "network that does best on the other splits" if foreseen else "best other network"
    text = f"real tables: within one standard error of the {which}, with at most a third of its parameters ({method})"
    found = [s for s in (standing(table, name, NEURAL, method) for name in tables) if s is not None]
    if not found:
        return Claim(text, "80 %", "-", None)
    stands = [s.foreseen if foreseen else s for s in found]
    good = sum(s.within and s.share <= 1 / 3 for s in stands)
    small = float(np.median([s.share for s in stands]))
    measured = f"{good} of {len(stands)} tables; {sum(s.within for s in stands)} are within, median share {small:.2g}"
    return Claim(text, "80 %", measured, good >= 0.8 * len(stands))


def _better(d: Duel, text: str) -> Claim:
    """More solved by the first: yes or no only where chance is ruled out at the usual 5 %."""
    asked = "p < 0.05"
    if not d.pairs:
        return Claim(text, asked, "-", None)
    measured = f"{_counts(d)}, p = {d.chance:.2g}"
    return Claim(text, asked, measured, d.alone[0] > d.alone[1] if d.chance < 0.05 else None)


def _cheaper(d: Duel, text: str) -> Claim:
    """As much solved by the second as far as chance allows, at a higher price."""
    asked = "ratio <= 0.67"
    if not d.pairs or math.isnan(d.usual_ratio):
        return Claim(text, asked, "-", None)
    measured = f"{_counts(d)}, p = {d.chance:.2g}; CPU ratio {d.usual_ratio:.2g} where both solve"
    return Claim(text, asked, measured, d.chance >= 0.05 and d.usual_ratio <= 0.67)


def _counts(d: Duel) -> str:
    return f"{d.solved[0]} against {d.solved[1]} of {d.pairs} fits ({d.first} against {d.second})"
