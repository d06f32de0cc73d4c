"""Neurons that do nothing are taken out; neurons that cannot be helped by new ones are split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gfsim.arrays import positive, whole_number
from gfsim.pursuit.fit import Fitter
from gfsim.pursuit.network import Kept, Network
from gfsim.pursuit.problem import Problem
from gfsim.threads import over

AT_REST = 0.1
"""A fit that lowers its loss by a smaller part than this between two looks has come to rest."""


@dataclass(frozen=True)
class Prune:
    """Take out neurons whose effect on the outputs is below ``rtol`` of the outputs' own spread."""

    rtol: float = 1e-8

    def __post_init__(self) -> None:
        positive(self.rtol, "rtol")

    def apply(self, problem: Problem, net: Network) -> Network:
        """``net`` without its dead neurons; at least one neuron of each hidden layer stays."""
        sizes, spread = contributions(problem, net)
        dead = [
            (layer, unit)
            for layer, layer_sizes in enumerate(sizes, start=1)
            for unit, size in enumerate(layer_sizes)
            if size <= self.rtol * spread
        ]
        for layer, unit in reversed(dead):
            if net.widths[layer] > 1:
                net = net.without(layer, unit)
        return net


def contributions(problem: Problem, net: Network) -> tuple[list[np.ndarray], float]:
    """Per hidden layer, the root mean square first-order change of the outputs when a neuron is taken out; and the
    root mean square of the outputs themselves, without the intercept."""

    def squares(part: slice) -> tuple[float, list[np.ndarray]]:
        kept, v = net.run(problem.X[part]), problem.weights[part]
        total = float(v @ ((kept.output - net.intercept_or_zero) ** 2).sum(axis=1))
        layers = []
        for layer, width in enumerate(net.hidden_widths, start=1):
            W, h = net.matrices[layer], kept.hidden[layer]
            if layer == net.depth - 1:  # the effect on output k is h_j W_kj
                layers.append((v @ h**2) * (W**2).sum(axis=0))
                continue
            effects = (net.lift(kept, layer + 1, h[:, [j]] * W[:, j]) for j in range(width))
            layers.append(np.array([float(v @ (effect**2).sum(axis=1)) for effect in effects]))
        return total, layers

    found = over(problem.chunks(4 * max(net.widths)), squares)
    sizes = [np.sqrt(sum(layers[l] for _, layers in found)) for l in range(net.depth - 1)]
    return sizes, float(np.sqrt(sum(total for total, _ in found)))


@dataclass(frozen=True)
class Thin:
    """After growth: take out one neuron after another as long as what is left does as well after a fit.

    Greedy growth overshoots: a neuron that helped early may be idle in the end, though not dead.  In turns, the
    ``tries`` neurons of the smallest contribution are left out on trial.  The fit starts from two places: from the
    other neurons as they are, and from where they stand in for the one that left (:func:`stand_in`), which merges
    neurons that do nearly the same; where the goal was reached also from where some are turned round (:func:`turned`).

    Parameters
    ----------
    tries : int
        Trials before a turn is given up.
    look : int
        Where the network has reached ``goal``, as a smaller one then must too, a fit is looked at after so many steps
        and twice as many, and given up if it has come to rest in between.
    largest : float
        Most samples x outputs x parameters; with more the network stays as it is.
    """

    tries: int = 8
    look: int = 6
    largest: float = 2e7

    def __post_init__(self) -> None:
        whole_number(self.tries, "tries")
        whole_number(self.look, "look")

    def apply(
        self, problem: Problem, net: Network, *, fitter: Fitter, good: Callable[[Network, float], bool], goal: float
    ) -> Network:
        """The smallest network found for which ``good(net, loss)`` holds; ``problem`` is that of the training."""
        if problem.Y.size * net.n_params > self.largest:
            return net
        while net.n_neurons > net.depth - 1:
            sizes = contributions(problem, net)[0]
            order = sorted((float(s), l, u) for l, layer in enumerate(sizes, start=1) for u, s in enumerate(layer))
            for _, layer, unit in order[: self.tries]:
                if net.widths[layer] == 1:
                    continue
                smaller = self._fitted(problem, net, layer, unit, fitter, good, goal)
                if smaller is not None:
                    net = smaller.balanced()
                    break
            else:
                return net
        return net

    def _fitted(
        self,
        problem: Problem,
        net: Network,
        layer: int,
        unit: int,
        fitter: Fitter,
        good: Callable[[Network, float], bool],
        goal: float,
    ) -> Network | None:
        exact = problem.data_loss(net) <= goal
        starts = [net.without(layer, unit), stand_in(problem, net, layer, unit)]
        if exact:
            starts += turned(problem, net, layer, unit)
        for start in starts:
            if exact:
                first = fitter.run(problem, start, goal=goal, steps=self.look)
                fit = fitter.run(problem, first.net, goal=goal, steps=self.look)
                if fit.loss > goal and fit.loss > (1 - AT_REST) * first.loss:
                    continue
                start = fit.net
            fit = fitter.run(problem, start, goal=goal)
            if good(fit.net, fit.loss):
                return fit.net
        return None


def turned(problem: Problem, net: Network, layer: int, unit: int) -> list[Network]:
    """``net`` without a neuron that is linear on the data, some others turned round in its place; empty if it is not
    linear, or none can be.

    As s(z) = (1 + alpha) z + s(-z) for p = 1, a neuron can be had the other way round at the price of a linear
    function.  Growth that has found some of a target's neurons the wrong way round pays it with one neuron more, whose
    kink lies beyond the data: the fit is exact, and wrong where an input lies beyond it.
    """
    alpha, below = net.activation.alpha, net.run(problem.X).hidden[layer - 1]
    W, V = net.matrices[layer - 1], net.matrices[layer]
    z = below @ W[unit]
    if net.activation.p != 1 or abs(alpha) == 1.0 or not ((z >= 0).all() or (z <= 0).all()):
        return []
    linear = np.einsum("kj,ji->jki", V, W).reshape(len(W), -1)  # what every neuron does for s(z) = z
    rest, slope = np.arange(len(W)) != unit, (max if (z >= 0).all() else min)(1.0, alpha)
    shares = np.linalg.lstsq((1.0 + alpha) * linear[rest].T, -slope * linear[unit])[0]
    if not (shares > 0.5).any():
        return []
    flipped = W.copy()
    flipped[np.flatnonzero(rest)[shares > 0.5]] *= -1.0
    matrices = [*net.matrices[: layer - 1], flipped, *net.matrices[layer:]]
    start = replace(net, matrices=tuple(matrices)).without(layer, unit)
    if start.intercept.size:  # what the linear function was on average
        moved = problem.weights @ (net.outputs(problem.X) - start.outputs(problem.X))
        start = replace(start, intercept=start.intercept + moved)
    return [start]


def stand_in(problem: Problem, net: Network, layer: int, unit: int) -> Network:
    """``net`` without one neuron, the outgoing weights of the others such that the next layer's inputs change least.

    That is a least-squares problem for h_unit in the other neurons of the layer (and the constant, below an
    intercept); where they do not span it, plain removal is what is left of it.
    """
    width = net.widths[layer]
    last = layer == net.depth - 1 and net.intercept.size > 0
    gram = np.zeros((width + 1, width + 1))
    for part in problem.chunks(4 * max(net.widths)):
        h = net.run(problem.X[part]).hidden[layer]
        H = np.column_stack([h, np.full(len(h), float(last))])
        gram += (problem.weights[part, None] * H).T @ H
    others = np.delete(np.arange(width + 1), unit)
    share = np.linalg.lstsq(gram[np.ix_(others, others)], gram[others, unit], rcond=1e-10)[0]
    smaller = net.without(layer, unit)
    matrices = list(smaller.matrices)
    moved = net.matrices[layer][:, unit]
    matrices[layer] = matrices[layer] + np.outer(moved, share[:-1])
    intercept = smaller.intercept + moved * share[-1] if last else smaller.intercept
    return replace(smaller, matrices=tuple(matrices), intercept=intercept)


@dataclass(frozen=True)
class Splitting:
    """Split one neuron in two where no new neuron helps.

    Two copies of a neuron, each with half the outgoing weights and incoming weights a + eps v, a - eps v,
    change the loss to second order by -eps^2/2 v'Sv,  S = sum_i c_i s''(a.h_i) h_i h_i', c_i the pull on the
    neuron's output: directions that no NCF sees.  For p = 1, where s'' is a point mass at the kink,
    samples within ``kink`` of it (relative to the preactivation's spread) stand for it.

    Parameters
    ----------
    sizes : tuple of float
        eps / |a|; the one with the lowest loss is taken.
    steps : int
        Steps of the trial of each neuron.
    largest : float
        Most samples x parameters; with more no neuron is split.
    """

    sizes: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1, 0.03)
    steps: int = 25
    kink: float = 0.5
    largest: float = 2e7

    def apply(
        self, problem: Problem, net: Network, kept: Kept, pull: np.ndarray, *, loss: float, fitter: Fitter, goal: float
    ) -> tuple[int, Network, float] | None:
        """(layer, network, loss) of the split that gains most after a short training; None if none does."""
        if problem.n_samples * net.n_params > self.largest:
            return None
        deltas = net.backpropagate(kept, pull, lowest=2)
        best: tuple[int, Network, float] | None = None
        for layer in range(1, net.depth):
            H = kept.hidden[layer - 1]
            on_output = deltas[layer + 1] @ net.matrices[layer]  # (n, width): the pull on each neuron's output
            for unit in range(net.widths[layer]):
                a = net.matrices[layer - 1][unit]
                size = float(np.linalg.norm(a))
                if size == 0.0:
                    continue
                S = (H * (on_output[:, unit] * self._bend(net, H @ a))[:, None]).T @ H
                values, vectors = np.linalg.eigh(S)
                if not values[-1] > 0:
                    continue
                splits = [split(net, layer, unit, eps * size * vectors[:, -1]) for eps in self.sizes]
                losses = [problem.loss(s) for s in splits]
                fit = fitter.run(problem, splits[int(np.argmin(losses))], goal=goal, steps=self.steps)
                if fit.loss < (loss if best is None else best[2]):
                    best = (layer, fit.net, fit.loss)
        return best

    def _bend(self, net: Network, z: np.ndarray) -> np.ndarray:
        if net.activation.p > 1:
            return net.activation.curvature(z)
        width = self.kink * float(np.sqrt(np.mean(z**2)))
        return (np.abs(z) <= width) / max(width, 1e-300) * abs(1.0 - net.activation.alpha)


def split(net: Network, layer: int, unit: int, shift: np.ndarray) -> Network:
    """Neuron ``unit`` of ``layer`` replaced by two, a + shift and a - shift, with half the outgoing weights each."""
    matrices = [W.copy() for W in net.matrices]
    a, b = matrices[layer - 1][unit].copy(), 0.5 * matrices[layer][:, unit]
    matrices[layer - 1][unit] = a + shift
    matrices[layer][:, unit] = b
    matrices[layer - 1] = np.vstack([matrices[layer - 1], a - shift])
    matrices[layer] = np.column_stack([matrices[layer], b])
    return replace(net, matrices=tuple(matrices))
