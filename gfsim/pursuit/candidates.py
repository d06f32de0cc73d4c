"""Where and along which direction the network could grow: paths, and their NCF maxima at the current weights.

docs/theory.md, sections 4 and 8.  A :class:`Candidate` is a direction with its first-order effect H1 on
the outputs; from H1 alone follow the closed-form scale and the decrease that the quadratic model of
the loss predicts, <H1, ybar>^2 / (2 H1' l'' H1).  For the square loss that is the squared normalised
correlation <H1, ybar>^2 / (|H1|^2 |ybar|^2) times |ybar|^2 / (4 v): unlike the raw NCF it does not
change when neurons are rescaled without changing the function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gfsim.arrays import whole_number
from gfsim.ncf.path import Branches, PathNCF, chains, maximise
from gfsim.pursuit.network import Kept, Network
from gfsim.pursuit.problem import Problem


@dataclass(frozen=True, eq=False)
class Candidate:
    """One direction of growth.

    Attributes
    ----------
    first, last : int
        The path's hidden layers l .. m; equal for a single neuron.
    links : last - first times +1 or -1
    a : (width of layer first - 1,)
        Unit vector.
    b : (width of layer last + 1,)
        Unit vector.
    ncf : float
        N(a, b).
    scale : float
        The factor t at which the quadratic model of the loss along t H1 is smallest.
    predicted : float
        The decrease of the loss there, by that model (exact for the square loss and a last layer).
    share : float
        ``predicted`` over what an unconstrained change of the outputs could remove by the same model; for
        the square loss the squared normalised correlation.
    """

    first: int
    last: int
    links: tuple[int, ...]
    a: np.ndarray = field(repr=False)
    b: np.ndarray = field(repr=False)
    ncf: float
    scale: float
    predicted: float
    share: float

    @property
    def n_neurons(self) -> int:
        return self.last - self.first + 1

    def enter(self, net: Network, t: float) -> Network:
        """``net`` with this path added at scale t > 0: to first order its outputs change by t H1.

        Incoming weights, links and outgoing weights get the sizes of a balanced chain.
        """
        p, k = net.activation.p, self.n_neurons
        # with |b| = r balance makes the last link (or a) sqrt(p) r and every layer below as large again
        # times sqrt(p): sizes r p^(j/2), j = 0 (b), 1, ..., k (a); each enters to the power p^j
        log_p = np.log(p)
        exponents = np.array([float(p**j) for j in range(k + 1)])
        log_r = (np.log(t) - 0.5 * log_p * float(exponents @ np.arange(k + 1))) / exponents.sum()
        sizes = np.exp(log_r + 0.5 * log_p * np.arange(k + 1))
        links = [link * sizes[j] for link, j in zip(self.links, range(k - 1, 0, -1), strict=True)]
        return net.with_path(self.first, self.last, sizes[k] * self.a, links, sizes[0] * self.b)


class Candidates(Protocol):
    """A way to propose growth.  ``pull`` (n, K) may be a permuted ybar: the null asks what noise would give."""

    def propose(
        self, problem: Problem, net: Network, kept: Kept, pull: np.ndarray, rng: np.random.Generator
    ) -> list[Candidate]:
        """Candidates at the current network, largest predicted decrease first."""
        ...


def places(net: Network, *, paths: bool) -> Iterator[tuple[int, int]]:
    """(first, last) of all paths between layers that have units; without ``paths`` of single neurons only.

    From a network without neurons the only way is through all hidden layers.
    """
    top = net.depth - 1
    for first in range(1, top + 1):
        for last in range(first, top + 1):
            if not (net.widths[first - 1] and net.widths[last + 1]):
                continue
            if paths or first == last or net.n_neurons == 0:
                yield first, last


@dataclass(frozen=True)
class Paths:
    """Maxima of the NCFs of all contiguous paths.

    Parameters
    ----------
    starts : int
        Random starts of each maximisation.
    keep : int
        Distinct maxima kept of each path.
    """

    starts: int = 64
    keep: int = 6
    paths: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        whole_number(self.starts, "starts")
        whole_number(self.keep, "keep")

    def propose(
        self, problem: Problem, net: Network, kept: Kept, pull: np.ndarray, rng: np.random.Generator
    ) -> list[Candidate]:
        deltas = net.backpropagate(kept, pull, lowest=2)
        found: list[Candidate] = []
        for first, last in places(net, paths=self.paths):
            for links, branches in chains(net.activation, last - first + 1):
                ncf = PathNCF(kept.hidden[first - 1], deltas[last + 1], branches)
                A, B, values = self.directions(ncf, net, first, rng)
                found += [
                    judged(problem, net, kept, pull, first, last, links, branches, a, b, float(value))
                    for a, b, value in zip(A, B, values, strict=True)
                ]
        return sorted((c for c in found if c.scale > 0), key=lambda c: -c.predicted)

    def directions(
        self, ncf: PathNCF, net: Network, first: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit a (m, d_in), unit b (m, d_out) and N (m,) of one path; the layer's present neurons are warm starts."""
        maxima = maximise(ncf, starts=self.starts, rng=rng, keep=self.keep, warm=net.matrices[first - 1])
        return maxima.directions, maxima.outgoing, maxima.values


@dataclass(frozen=True)
class SingleNeurons(Paths):
    """Single neurons only, as published; the start alone is a path.  For the ablation without paths."""

    paths: bool = field(default=False, init=False)


@dataclass(frozen=True)
class RandomDirections(Paths):
    """Random incoming directions with the best outgoing ones: the ablation without the NCF's direction."""

    def directions(
        self, ncf: PathNCF, net: Network, first: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        del net, first
        A = rng.normal(size=(self.keep, ncf.inputs.shape[1]))
        A /= np.linalg.norm(A, axis=1, keepdims=True)
        P = ncf.response(A)
        values = np.linalg.norm(P, axis=1)
        live = values > 0
        return A[live], P[live] / values[live, None], values[live]


def judged(
    problem: Problem,
    net: Network,
    kept: Kept,
    pull: np.ndarray,
    first: int,
    last: int,
    links: tuple[int, ...],
    branches: Branches,
    a: np.ndarray,
    b: np.ndarray,
    value: float,
) -> Candidate:
    """The candidate with its scale and predicted decrease, from its first-order effect."""
    effect = net.lift(kept, last + 1, branches.value(kept.hidden[first - 1] @ a)[:, None] * b)
    rises = float((effect * pull).sum())
    bends = problem.curvature_along(kept.output, effect)
    if not (rises > 0 and bends > 0 and np.isfinite(bends)):
        return Candidate(first, last, links, a, b, value, 0.0, 0.0, 0.0)
    predicted = rises**2 / (2.0 * bends)
    return Candidate(first, last, links, a, b, value, rises / bends, predicted, predicted / _removable(problem, pull))


def _removable(problem: Problem, pull: np.ndarray) -> float:
    """sum_i |ybar_i|^2 / (2 l''_i v_i) with the square loss's curvature, the scale of ``share``."""
    v = problem.weights[:, None]
    return float((pull**2 / np.where(v > 0, 4.0 * v, np.inf)).sum())
