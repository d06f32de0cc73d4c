"""Numbers of the comparison's page, from its cells alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

from benchmarks.pursuit.cells import Cell


@dataclass(frozen=True)
class Entry:
    """All seeds of one task and method.

    Attributes
    ----------
    errors, cpus : (seeds,)
        Of the seeds that were fitted, in the order of the seeds.
    seeds : tuple of int
    solved : int
        Seeds with an error below the task's goal; a seed that failed is one that was not solved.
    tried : int
    neurons, parameters, cpu : float
        Medians.
    most_neurons : int
    """

    task: str
    method: str
    errors: np.ndarray = field(repr=False)
    cpus: np.ndarray = field(repr=False)
    seeds: tuple[int, ...]
    solved: int
    tried: int
    neurons: float
    parameters: float
    cpu: float
    most_neurons: int

    @property
    def median(self) -> float:
        return float(np.median(self.errors)) if self.errors.size else math.inf

    @property
    def mean(self) -> float:
        return float(np.mean(self.errors)) if self.errors.size else math.inf

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest error: an interval for the median of confidence 1 - 2^(1 - seeds), 94 % for five seeds,
        whatever the distribution."""
        return (float(self.errors.min()), float(self.errors.max())) if self.errors.size else (math.inf, math.inf)

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of the mean by Student's t; infinite for one seed."""
        n = self.errors.size
        if n < 2:
            return math.inf
        return float(student.ppf(0.975, n - 1) * np.std(self.errors, ddof=1) / np.sqrt(n))


def entries(cells: Iterable[Cell]) -> dict[tuple[str, str], Entry]:
    """By (task, method); what was refused everywhere is left out."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.status != "refused":
            groups.setdefault((cell.task, cell.method), []).append(cell)
    return {key: _entry(*key, sorted(group, key=lambda cell: cell.seed)) for key, group in groups.items()}


def _entry(task: str, method: str, group: Sequence[Cell]) -> Entry:
    fitted = [cell for cell in group if cell.status == "fitted"]

    def median(name: str) -> float:
        return float(np.median([getattr(cell, name) for cell in fitted])) if fitted else math.nan

    return Entry(
        task,
        method,
        np.array([cell.error for cell in fitted]),
        np.array([cell.cpu for cell in fitted]),
        tuple(cell.seed for cell in fitted),
        sum(bool(cell.solved) for cell in fitted),
        len(group),
        median("neurons"),
        median("parameters"),
        median("cpu"),
        max((cell.neurons for cell in fitted), default=0),
    )


@dataclass(frozen=True)
class Duel:
    """Two methods on the tasks and seeds that both were fitted to.

    Attributes
    ----------
    first, second : str
    pairs : int
    solved : (int, int)
    alone : (int, int)
        Pairs that only the first, and only the second solved.
    cpu_ratio : float
        CPU seconds of the first over those of the second, summed over the pairs.
    usual_ratio : float
        The median of that ratio over the pairs that both solved; NaN if there are none.
    """

    first: str
    second: str
    pairs: int
    solved: tuple[int, int]
    alone: tuple[int, int]
    cpu_ratio: float
    usual_ratio: float

    @property
    def chance(self) -> float:
        """How likely so uneven a split of the pairs that only one solved is if neither is better (McNemar's test)."""
        n = sum(self.alone)
        return float(binomtest(self.alone[0], n).pvalue) if n else 1.0


def duel(cells: Iterable[Cell], tasks: Iterable[str], first: str, second: str) -> Duel:
    """``first`` against ``second`` on ``tasks``, seed by seed: the only fair way while some seeds are missing."""
    names = set(tasks)
    by: dict[str, dict[tuple[str, int], Cell]] = {first: {}, second: {}}
    for cell in cells:
        if cell.task in names and cell.method in by and cell.status != "refused":
            by[cell.method][(cell.task, cell.seed)] = cell
    common = sorted(by[first].keys() & by[second].keys())
    cpu = [sum(by[m][key].cpu for key in common) for m in (first, second)]
    outcomes = [(bool(by[first][key].solved), bool(by[second][key].solved)) for key in common]
    both = [by[first][k].cpu / by[second][k].cpu for k, o in zip(common, outcomes, strict=True) if all(o)]
    return Duel(
        first,
        second,
        len(common),
        (sum(a for a, _ in outcomes), sum(b for _, b in outcomes)),
        (sum(a and not b for a, b in outcomes), sum(b and not a for a, b in outcomes)),
        cpu[0] / cpu[1] if cpu[1] else math.nan,
        float(np.median(both)) if both else math.nan,
    )


@dataclass(frozen=True)
class Margin:
    """Neuron Pursuit on one real table against another network.

    Attributes
    ----------
    gap, error : float
        Mean and standard error, over the common splits, of our error minus theirs.
    share : float
        Our parameters over theirs.
    """

    gap: float
    error: float
    share: float

    @property
    def within(self) -> bool:
        return self.gap <= self.error + 1e-12  # two equal splits differ by rounding


@dataclass(frozen=True)
class Standing(Margin):
    """Neuron Pursuit on one real table against the best network of another kind.

    Attributes
    ----------
    ours, best : Entry
        ``best`` has the smallest mean error on the common splits.
    foreseen : Margin
        Against the network that one would have taken for the best: on each split the one with the smallest mean error
        on the OTHER splits.  Of several networks that are equally good, the one with the smallest error on the very
        splits that it is judged by owes that to luck.  ``share`` is of the median of their parameters.
    """

    ours: Entry
    best: Entry
    foreseen: Margin


def _gap(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of the difference."""
    difference = ours - theirs
    return float(np.mean(difference)), float(np.std(difference, ddof=1) / np.sqrt(difference.size))


def standing(
    found: dict[tuple[str, str], Entry], task: str, rivals: Sequence[str], method: str = "np"
) -> Standing | None:
    """Of our ``method``; None without fits of it or without a rival's on at least two of the same splits."""
    ours = found.get((task, method))
    if ours is None:
        return None
    errors = dict(zip(ours.seeds, ours.errors, strict=True))
    met: list[tuple[Entry, dict[int, float]]] = []
    for rival in rivals:
        theirs = found.get((task, rival))
        if theirs is not None:
            common = {k: e for k, e in zip(theirs.seeds, theirs.errors, strict=True) if k in errors}
            if len(common) >= 2:
                met.append((theirs, common))
    if not met:
        return None

    def gap(theirs: dict[int, float]) -> tuple[float, float]:
        return _gap(np.array([errors[k] for k in theirs]), np.array(list(theirs.values())))

    best, common = max(met, key=lambda one: gap(one[1])[0])
    share = ours.parameters / best.parameters
    return Standing(*gap(common), share, ours, best, _foreseen(ours, errors, met))


def _foreseen(ours: Entry, errors: dict[int, float], met: Sequence[tuple[Entry, dict[int, float]]]) -> Margin:
    taken: dict[int, tuple[Entry, float]] = {}
    for k in errors:
        others = [(entry, theirs) for entry, theirs in met if k in theirs]
        if others:
            entry, theirs = max(others, key=lambda one: np.mean([errors[j] - e for j, e in one[1].items() if j != k]))
            taken[k] = entry, theirs[k]
    gap, error = _gap(np.array([errors[k] for k in taken]), np.array([e for _, e in taken.values()]))
    return Margin(gap, error, ours.parameters / float(np.median([entry.parameters for entry, _ in taken.values()])))


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share k of n."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.96, k / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))
