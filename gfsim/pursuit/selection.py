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
    """Short trainings of the best few of every path; the largest gain per parameter wins.

    Per parameter and not per neuron: one more neuron of a wide layer reads from all inputs, one of a narrow layer from
    a few neurons, and what it costs to estimate is its weights.  Counted per neuron, growth of two layers fills the
    first and leaves the second at a single neuron, from where it finds no way on.

    In two rounds: all are trained for a few steps, and the best of every path for the rest.  A path of several neurons
    starts more slowly than a single one, so the first round compares within paths only.  Small paths come first, and
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
    steps: int = 20
    glance: int = 6
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

        def added(entered: Entered) -> int:
            return entered.net.n_params - net.n_params

        def gain(entered: Entered) -> float:
            return (loss - entered.loss) / added(entered)

        def settled(entered: Entered) -> bool:
            """Whether this path cannot do better: not even if it reaches the goal."""
            return best is not None and gain(best) >= (loss - goal) / added(entered)

        found = self._entries(problem, net, candidates, loss, entry)
        # small paths first: one of few parameters that does much of what can be done spares the trials of the others
        for entries in sorted(filter(None, found.values()), key=lambda entries: added(entries[0])):
            glanced: list[Entered] = []
            for entered in entries:
                if settled(entered):
                    break
                glanced.append(trained(entered, min(self.glance, self.steps)))
                if glanced[-1].loss <= goal:
                    break
            for entered in sorted(glanced, key=lambda e: e.loss)[: self.finalists]:
                if settled(entered):
                    break
                if entered.loss > goal and self.glance < self.steps:
                    entered = trained(entered, self.steps - self.glance)
                if best is None or gain(entered) > gain(best):
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


def _first_that_enters(
    ranked: Sequence[Candidate], problem: Problem, net: Network, loss: float, entry: Entry
) -> Entered | None:
    for candidate in ranked:
        entered = entry.enter(problem, net, candidate, loss)
        if entered is not None:
            return entered
    return None
