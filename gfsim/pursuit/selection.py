"""Which candidate enters, and at what scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from gfsim.arrays import positive, whole_number
from gfsim.pursuit.candidates import Candidate
from gfsim.pursuit.fit import Fitter
from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem


@dataclass(frozen=True, eq=False)
class Entered:
    """A candidate in the network.

    Attributes
    ----------
    candidate : Candidate
    scale : float
        Its scale t.
    net : Network
        Right after entering, or after a short trial from there.
    loss_entered : float
        Loss right after entering.
    loss : float
        Loss of ``net``.
    """

    candidate: Candidate
    scale: float
    net: Network = field(repr=False)
    loss_entered: float
    loss: float


class Entry(Protocol):
    """How large a candidate enters."""

    def enter(self, problem: Problem, net: Network, candidate: Candidate, loss: float) -> Entered | None: ...


@dataclass(frozen=True)
class LineSearch:
    """The closed-form scale <H1, ybar> / (H1' l'' H1), reduced until the loss falls.

    Parameters
    ----------
    factors : tuple of float
        Tried in this order; the first that lowers the loss is taken, and if none does the candidate is dropped.
    """

    factors: tuple[float, ...] = (1.0, 0.5, 0.2, 0.05, 0.01)

    def enter(self, problem: Problem, net: Network, candidate: Candidate, loss: float) -> Entered | None:
        for factor in self.factors:
            t = factor * candidate.scale
            if not (0 < t < np.inf):
                continue
            grown = candidate.enter(net, t)
            with np.errstate(over="ignore", invalid="ignore"):
                now = problem.loss(grown)
            if now < loss:
                return Entered(candidate, t, grown, now, now)
        return None


@dataclass(frozen=True)
class FixedNorm:
    """Every candidate enters with weights of the norm ``delta``, as published."""

    delta: float = 0.03

    def __post_init__(self) -> None:
        positive(self.delta, "delta")

    def enter(self, problem: Problem, net: Network, candidate: Candidate, loss: float) -> Entered | None:
        del loss  # a small neuron lowers the loss by O(delta^(p+1)), which may be below rounding
        p, k = net.activation.p, candidate.n_neurons
        sizes = float(p) ** (0.5 * np.arange(k + 1))
        r = self.delta / np.linalg.norm(sizes)
        t = float(np.prod((r * sizes) ** (float(p) ** np.arange(k + 1))))
        grown = candidate.enter(net, t)
        now = problem.loss(grown)
        return Entered(candidate, t, grown, now, now)


class Selection(Protocol):
    """Which of the candidates enters."""

    def choose(
        self,
        problem: Problem,
        net: Network,
        candidates: Sequence[Candidate],
        *,
        loss: float,
        entry: Entry,
        fitter: Fitter,
        goal: float,
    ) -> Entered | None:
        """The winner, or None when no candidate lowers the loss."""
        ...


@dataclass(frozen=True)
class LargestNCF:
    """The largest raw NCF value of the balanced network; as published with candidates that are the NCF's maxima."""

    def choose(
        self,
        problem: Problem,
        net: Network,
        candidates: Sequence[Candidate],
        *,
        loss: float,
        entry: Entry,
        fitter: Fitter,
        goal: float,
    ) -> Entered | None:
        del fitter, goal
        return _first_that_enters(sorted(candidates, key=lambda c: -c.ncf), problem, net, loss, entry)


@dataclass(frozen=True)
class LargestDecrease:
    """The largest predicted decrease per neuron, without trying: invariant under rescaling of neurons."""

    def choose(
        self,
        problem: Problem,
        net: Network,
        candidates: Sequence[Candidate],
        *,
        loss: float,
        entry: Entry,
        fitter: Fitter,
        goal: float,
    ) -> Entered | None:
        del fitter, goal
        ranked = sorted(candidates, key=lambda c: -c.predicted / c.n_neurons)
        return _first_that_enters(ranked, problem, net, loss, entry)


@dataclass(frozen=True)
class Trials:
    """Short trainings of the best few of every path; the largest gain per neuron wins.

    In two rounds: all are trained for a few steps, and the best of every path for the rest.  A path of several neurons
    starts more slowly than a single one, so the first round compares within paths only.  Short paths come first, and
    no trial is made that could not win even by reaching the goal.

    Parameters
    ----------
    per_path : int
        Candidates tried of each (first, last).
    steps : int
        Steps of a full trial.
    glance : int
        Steps of the first round.
    finalists : int
        Candidates of each path that are tried in full.
    largest : float
        Most samples x outputs x parameters at which candidates are tried; with more data the largest
        predicted decrease per neuron enters without trying, as one trial would cost as much as many fits.
    """

    per_path: int = 6
    steps: int = 36
    glance: int = 12
    finalists: int = 3
    largest: float = 2e7

    def __post_init__(self) -> None:
        whole_number(self.per_path, "per_path")
        whole_number(self.steps, "steps")
        whole_number(self.glance, "glance")
        whole_number(self.finalists, "finalists")

    def choose(
        self,
        problem: Problem,
        net: Network,
        candidates: Sequence[Candidate],
        *,
        loss: float,
        entry: Entry,
        fitter: Fitter,
        goal: float,
    ) -> Entered | None:
        if problem.n_samples * problem.n_outputs * net.n_params > self.largest:
            return LargestDecrease().choose(problem, net, candidates, loss=loss, entry=entry, fitter=fitter, goal=goal)

        def trained(entered: Entered, steps: int) -> Entered:
            fit = fitter.run(problem, entered.net, goal=goal, steps=steps)
            return replace(entered, net=fit.net, loss=fit.loss)

        best: Entered | None = None

        def settled(n_neurons: int) -> bool:
            """Whether no path of so many neurons can do better: not even one that reaches the goal."""
            return best is not None and _gain(best, loss) >= (loss - goal) / n_neurons

        found = self._entries(problem, net, candidates, loss, entry)
        # short paths first: one neuron that halves the loss spares the trials of all pairs
        for (first, last), entries in sorted(found.items(), key=lambda item: item[0][1] - item[0][0]):
            glanced: list[Entered] = []
            for entered in entries:
                if settled(last - first + 1):
                    break
                glanced.append(trained(entered, min(self.glance, self.steps)))
                if glanced[-1].loss <= goal:
                    break
            for entered in sorted(glanced, key=lambda e: e.loss)[: self.finalists]:
                if settled(last - first + 1):
                    break
                if entered.loss > goal and self.glance < self.steps:
                    entered = trained(entered, self.steps - self.glance)
                if best is None or _gain(entered, loss) > _gain(best, loss):
                    best = entered
        return best

    def _entries(
        self, problem: Problem, net: Network, candidates: Sequence[Candidate], loss: float, entry: Entry
    ) -> dict[tuple[int, int], list[Entered]]:
        """By (first, last), the first few candidates that lower the loss."""
        found: dict[tuple[int, int], list[Entered]] = {}
        for candidate in candidates:
            entries = found.setdefault((candidate.first, candidate.last), [])
            if len(entries) < self.per_path:
                entered = entry.enter(problem, net, candidate, loss)
                if entered is not None:
                    entries.append(entered)
        return found


def _gain(entered: Entered, loss: float) -> float:
    return (loss - entered.loss) / entered.candidate.n_neurons


def _first_that_enters(
    ranked: Sequence[Candidate], problem: Problem, net: Network, loss: float, entry: Entry
) -> Entered | None:
    for candidate in ranked:
        entered = entry.enter(problem, net, candidate, loss)
        if entered is not None:
            return entered
    return None
