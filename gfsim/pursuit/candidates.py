"""Where and along which direction the network could grow: paths, and their NCF maxima at the current weights.

docs/theory.md, sections 4 and 8.  A :class:`Candidate` is a direction with its first-order effect H1 on
the outputs, an output intercept moving along; from H1 alone follow the closed-form scale and the decrease that the
quadratic model of the loss predicts, <H1, ybar>^2 / (2 H1' l'' H1).  For the square loss that is the squared normalised
correlation <H1, ybar>^2 / (|H1|^2 |ybar|^2) times |ybar|^2 / (4 v): unlike the raw NCF it does not
change when neurons are rescaled without changing the function.  The directions are maxima of that decrease, searched
from the NCF's maxima and from random ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from gfsim.arrays import whole_number
from gfsim.ncf.decrease import PathDecrease, ascend
from gfsim.ncf.path import SAME_HILL, SCREEN_SAMPLES, Branches, PathNCF, chains, maximise
from gfsim.pursuit.network import Kept, Network
from gfsim.pursuit.problem import Problem

ASCENT_ENTRIES = 2_000_000
"""Most random starts x samples of an ascent."""

SHORT_CLIMB = 10
"""Steps uphill on the NCF where the ascent on the predicted decrease goes on from there."""

ASCENT_WORK = 20_000_000
"""Most random starts x samples x inputs: a step of all starts is then a tenth of a second."""


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
    shift : (n_outputs,) or (0,)
        How the output intercept moves along, per unit t.
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
    shift: np.ndarray = field(repr=False)

    @property
    def n_neurons(self) -> int:
        return self.last - self.first + 1

    def enter(self, net: Network, t: float) -> Network:
        """``net`` with this path added at scale t > 0: to first order its outputs change by t H1, the intercept's part
        of which is exact.

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
        grown = net.with_path(self.first, self.last, sizes[k] * self.a, links, sizes[0] * self.b)
        return replace(grown, intercept=grown.intercept + t * self.shift)


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
    """Of all contiguous paths, the directions of largest predicted decrease.

    Parameters
    ----------
    starts : int
        Random starts of each maximisation of an NCF.
    keep : int
        Distinct directions kept of each path.
    ascents : int
        Random starts a dimension of the ascent on the predicted decrease, beside the NCF's maxima
        (:mod:`gfsim.ncf.decrease`); 0: no such ascent, the NCF's maxima are proposed as they are.  So they are with
        more than :data:`gfsim.ncf.path.SCREEN_SAMPLES` samples, among which a single one weighs little.
    """

    starts: int = 64
    keep: int = 6
    ascents: int = 8
    paths: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        whole_number(self.starts, "starts")
        whole_number(self.keep, "keep")
        whole_number(self.ascents, "ascents", least=0)

    def propose(
        self, problem: Problem, net: Network, kept: Kept, pull: np.ndarray, rng: np.random.Generator
    ) -> list[Candidate]:
        deltas = net.backpropagate(kept, pull, lowest=2)
        judge = Judge.at(problem, net, kept, pull)
        found: list[Candidate] = []
        for first, last in places(net, paths=self.paths):
            for links, branches in chains(net.activation, last - first + 1):
                ncf = PathNCF(kept.hidden[first - 1], deltas[last + 1], branches)
                A, B = self.directions(ncf, net, first, rng)
                if self._ascends(ncf) and len(A):
                    A, B = self._ascended(judge, ncf, last, A, B, rng)
                found += [judge(first, last, links, branches, a, b, ncf) for a, b in zip(A, B, strict=True)]
        return sorted((c for c in found if c.scale > 0), key=lambda c: -c.predicted)

    def with_starts(self, factor: float) -> Paths:
        """The same search with so many times the starts."""
        starts = max(8, round(factor * self.starts))
        if not self.ascents:
            return replace(self, starts=starts)
        return replace(self, starts=starts, ascents=max(1, round(factor * self.ascents)))

    def directions(
        self, ncf: PathNCF, net: Network, first: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Unit a (m, d_in) and b (m, d_out) of one path; the layer's present neurons are warm starts."""
        warm, steps = net.matrices[first - 1], SHORT_CLIMB if self._ascends(ncf) else 60
        maxima = maximise(ncf, starts=self.starts, rng=rng, keep=self.keep, warm=warm, iterations=steps)
        return maxima.directions, maxima.outgoing

    def _ascends(self, ncf: PathNCF) -> bool:
        return self.ascents > 0 and ncf.n_samples <= SCREEN_SAMPLES

    def _ascended(
        self, judge: Judge, ncf: PathNCF, last: int, A: np.ndarray, B: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best distinct ends of the ascent from A and from random directions, each with the b of one of B.

        The random starts are dealt out to the different b, and are fewer with many samples.
        """
        n, d_in = ncf.inputs.shape
        most = min(self.ascents * d_in, ASCENT_ENTRIES // n, ASCENT_WORK // (n * d_in))
        if B.shape[1] == 1:
            B = B[:1]
        random = most // len(B) if d_in > 1 else 0
        starts = rng.normal(size=(len(B), random, d_in))
        starts /= np.linalg.norm(starts, axis=2, keepdims=True)
        known = A[None] if len(B) == 1 else A[:, None]
        starts = np.concatenate([known, starts], axis=1)
        group = np.repeat(np.arange(len(B)), starts.shape[1])
        decreases = [judge.along(ncf, last, b) for b in B]
        # most starts soon merge or fall behind: the best few alone go all the way
        ends, value = ascend(decreases, starts.reshape(-1, d_in), group, iterations=6)
        few = np.sort(_distinct(ends, value, group, 4 * self.keep))
        ends, value = ascend(decreases, ends[few], group[few], iterations=60)
        group = group[few]
        best = _distinct(ends, value, group, self.keep)
        return ends[best], B[group[best]]


def _distinct(A: np.ndarray, value: np.ndarray, group: np.ndarray, keep: int) -> list[int]:
    """The best end of every hill of every group, best first."""
    leaders: list[int] = []
    left = np.argsort(-value, kind="stable")
    left = left[value[left] > 0]
    while len(left) and len(leaders) < keep:
        leader = left[0]
        leaders.append(int(leader))
        left = left[((A[left] @ A[leader] < SAME_HILL) | (group[left] != group[leader])) & (left != leader)]
    return leaders


@dataclass(frozen=True)
class SingleNeurons(Paths):
    """Single neurons only, as published; the start alone is a path.  For the ablation without paths."""

    paths: bool = field(default=False, init=False)


@dataclass(frozen=True)
class RandomDirections(Paths):
    """Random incoming directions with the best outgoing ones: the ablation without the NCF's direction."""

    ascents: int = field(default=0, init=False)

    def directions(
        self, ncf: PathNCF, net: Network, first: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        del net, first
        A = rng.normal(size=(self.keep, ncf.inputs.shape[1]))
        A /= np.linalg.norm(A, axis=1, keepdims=True)
        P = ncf.response(A)
        values = np.linalg.norm(P, axis=1)
        live = values > 0
        return A[live], P[live] / values[live, None]


@dataclass(frozen=True, eq=False)
class Judge:
    """The quadratic model of the loss at one network: what a change of the outputs is worth, and how far it should go.

    Attributes
    ----------
    pull : (n, K)
        ybar, true or permuted.
    answer : (K, K)
        The inverse curvature of the loss in the intercept; (0, 0) when there is none.
    """

    problem: Problem
    net: Network
    kept: Kept
    pull: np.ndarray
    answer: np.ndarray

    @classmethod
    def at(cls, problem: Problem, net: Network, kept: Kept, pull: np.ndarray) -> Judge:
        if not net.intercept.size:
            return cls(problem, net, kept, pull, np.zeros((0, 0)))
        K = net.n_outputs
        curvature = np.zeros((K, K))
        for part in problem.chunks(K * K):
            q, v = kept.output[part], problem.weights[part]
            bend = problem.risk.bend(q, np.broadcast_to(np.eye(K), (len(q), K, K)))
            curvature += np.einsum("n,nkm->km", v, bend)
        # the softmax does not bend along equal changes of all outputs: rounding must not be inverted there
        return cls(problem, net, kept, pull, np.linalg.pinv(curvature, rcond=1e-10, hermitian=True))

    def __call__(
        self,
        first: int,
        last: int,
        links: tuple[int, ...],
        branches: Branches,
        a: np.ndarray,
        b: np.ndarray,
        ncf: PathNCF,
    ) -> Candidate:
        """The candidate with its scale and predicted decrease, from its first-order effect."""
        effect = self.net.lift(self.kept, last + 1, branches.value(ncf.inputs @ a)[:, None] * b)
        shift = -self._intercept(self._bent(effect))
        # with the intercept, not yet at its best maybe, the better of b and -b need not be that of the larger NCF
        if float(((effect + shift if shift.size else effect) * self.pull).sum()) < 0:
            effect, b, shift = -effect, -b, -shift
        value = float((effect * self.pull).sum())
        if shift.size:
            effect = effect + shift
        rises = float((effect * self.pull).sum())
        bends = self.problem.curvature_along(self.kept.output, effect)
        if not (rises > 0 and bends > 0 and np.isfinite(bends)):
            return Candidate(first, last, links, a, b, value, 0.0, 0.0, 0.0, shift)
        predicted = rises**2 / (2.0 * bends)
        share = predicted / _removable(self.problem, self.pull)
        return Candidate(first, last, links, a, b, value, rises / bends, predicted, share, shift)

    def along(self, ncf: PathNCF, last: int, b: np.ndarray) -> PathDecrease:
        """The predicted decrease of one path with outgoing weights b as a function of a."""
        effect = self.net.lift(self.kept, last + 1, np.broadcast_to(b, (self.problem.n_samples, len(b))))
        bent = self._bent(effect)
        root = _root(self.answer)
        return PathDecrease(
            ncf.inputs,
            (effect * self.pull).sum(axis=1),
            (effect * bent).sum(axis=1),
            bent[:, : len(root)] @ root,
            ncf.branches,
        )

    def _bent(self, effect: np.ndarray) -> np.ndarray:
        """v_i l''_i effect_i: (n, K)."""
        return self.problem.weights[:, None] * self.problem.risk.bend(self.kept.output, effect[:, :, None])[:, :, 0]

    def _intercept(self, bent: np.ndarray) -> np.ndarray:
        """What of the intercept the effect stands for."""
        return self.answer @ bent.sum(axis=0)[: len(self.answer)]


def _root(M: np.ndarray) -> np.ndarray:
    """R with R R' = M, for M symmetric and positive semidefinite."""
    values, vectors = np.linalg.eigh(M)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _removable(problem: Problem, pull: np.ndarray) -> float:
    """sum_i |ybar_i|^2 / (2 l''_i v_i) with the square loss's curvature, the scale of ``share``."""
    v = problem.weights[:, None]
    return float((pull**2 / np.where(v > 0, 4.0 * v, np.inf)).sum())
