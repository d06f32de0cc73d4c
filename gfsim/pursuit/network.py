"""The network that grows: weight matrices whose hidden widths may be zero, and an output intercept.

docs/theory.md, sections 1, 4 and 8.  :class:`gfsim.models.feedforward.FeedForward` has fixed widths of
at least one; growth starts from NO hidden neuron, so that the first step (a path through all hidden
layers) is an addition like every other.  Layers count as in the papers: hidden layer l has the rows of
``matrices[l - 1]`` as incoming weights, l = 1 .. L-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward


@dataclass(frozen=True)
class Kept:
    """A forward pass: ``hidden[l]`` = h_l (h_0 = X), ``slopes[l - 1]`` = s'(z_l), ``output`` with the intercept."""

    hidden: list[np.ndarray]
    slopes: list[np.ndarray]
    output: np.ndarray


@dataclass(frozen=True, eq=False)
class Network:
    """W_L s(... s(W_1 x)) + c.

    Attributes
    ----------
    matrices : tuple of (width_l, width_{l-1})
        W_1 .. W_L.  Hidden widths may be zero: the function is then the constant c.
    intercept : (n_outputs,) or (0,)
        c; empty when none is trained.
    activation : HomogeneousActivation
    """

    matrices: tuple[np.ndarray, ...] = field(repr=False)
    intercept: np.ndarray = field(repr=False)
    activation: HomogeneousActivation

    @classmethod
    def empty(
        cls, n_inputs: int, n_outputs: int, hidden_layers: int, activation: HomogeneousActivation, intercept: np.ndarray
    ) -> Network:
        """No hidden neuron at all."""
        widths = (n_inputs, *[0] * hidden_layers, n_outputs)
        return cls(tuple(np.zeros((b, a)) for a, b in pairwise(widths)), intercept, activation)

    # -- shape -------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.matrices)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        return (self.matrices[0].shape[1], *(len(W) for W in self.matrices))

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        return self.widths[1:-1]

    @property
    def n_neurons(self) -> int:
        return sum(self.hidden_widths)

    @property
    def n_outputs(self) -> int:
        return self.widths[-1]

    @cached_property
    def n_params(self) -> int:
        return sum(W.size for W in self.matrices) + self.intercept.size

    @property
    def intercept_or_zero(self) -> np.ndarray:
        """c, (n_outputs,), zero when there is none."""
        return self.intercept if self.intercept.size else np.zeros(self.n_outputs)

    def __repr__(self) -> str:
        return f"Network({'-'.join(map(str, self.widths))} {self.activation.name}, {self.n_params} parameters)"

    @property
    def theta(self) -> np.ndarray:
        """All parameters in one vector (n_params,): matrices row by row, then the intercept."""
        return np.concatenate([*(W.ravel() for W in self.matrices), self.intercept])

    def with_theta(self, theta: np.ndarray) -> Network:
        """The same shapes with other numbers."""
        parts, start = [], 0
        for W in self.matrices:
            parts.append(theta[start : start + W.size].reshape(W.shape))
            start += W.size
        return Network(tuple(parts), theta[start:], self.activation)

    # -- function and derivatives ------------------------------------------------------------------

    def run(self, X: np.ndarray) -> Kept:
        """One forward pass that keeps what derivatives need; X is (n, n_inputs)."""
        *inner, last = self.matrices
        h, hidden, slopes = X, [X], []
        for W in inner:
            h, slope = self.activation.value_and_slope(h @ W.T)
            hidden.append(h)
            slopes.append(slope)
        output = h @ last.T
        return Kept(hidden, slopes, output + self.intercept if self.intercept.size else output)

    def outputs(self, X: np.ndarray) -> np.ndarray:
        """(n, n_outputs)."""
        *inner, last = self.matrices
        h = X
        for W in inner:
            h = self.activation.value(h @ W.T)
        output = h @ last.T
        return output + self.intercept if self.intercept.size else output

    def backpropagate(self, kept: Kept, C: np.ndarray, *, lowest: int = 1) -> dict[int, np.ndarray]:
        """``out[l]`` = d(sum C H)/dz_l for l = lowest .. L: (n, width of layer l)."""
        deltas = {self.depth: C}
        for l in range(self.depth - 1, lowest - 1, -1):
            deltas[l] = (deltas[l + 1] @ self.matrices[l]) * kept.slopes[l - 1]
        return deltas

    def gradient(self, kept: Kept, C: np.ndarray) -> np.ndarray:
        """The gradient of sum_ik C_ik H_k(x_i) in theta: (n_params,)."""
        deltas = self.backpropagate(kept, C)
        parts = [(deltas[l].T @ h).ravel() for l, h in enumerate(kept.hidden, start=1)]
        return np.concatenate([*parts, C.sum(axis=0) if self.intercept.size else self.intercept])

    def jacobian(self, kept: Kept) -> np.ndarray:
        """dH_k(x_i) / dtheta: (n, n_outputs, n_params)."""
        n, K = kept.output.shape
        J = np.empty((n, K, self.n_params))
        for k in range(K):
            C = np.zeros((n, K))
            C[:, k] = 1.0
            start, deltas = 0, self.backpropagate(kept, C)
            for l, h in enumerate(kept.hidden, start=1):
                delta = deltas[l]
                size = delta.shape[1] * h.shape[1]
                np.multiply(
                    delta[:, :, None], h[:, None, :], out=J[:, k, start : start + size].reshape(n, *_pair(delta, h))
                )
                start += size
            J[:, k, start:] = C[:, : self.intercept.size]
        return J

    def lift(self, kept: Kept, layer: int, V: np.ndarray) -> np.ndarray:
        """The first-order change of the outputs when z_layer changes by V (n, width of the layer): (n, n_outputs)."""
        for W, slope in zip(self.matrices[layer:], kept.slopes[layer - 1 :], strict=True):
            V = (slope * V) @ W.T
        return V

    # -- growing, shrinking, scaling ---------------------------------------------------------------

    def with_path(self, first: int, last: int, a: np.ndarray, links: Sequence[float], b: np.ndarray) -> Network:
        """One more neuron in each hidden layer first .. last, joined in a chain; all old weights are kept.

        Parameters
        ----------
        a : (width of layer first - 1,)
            Incoming weights of the first neuron.
        links : last - first numbers
            The weight between each new neuron and the next.
        b : (width of layer last + 1,)
            Outgoing weights of the last neuron.
        """
        if not 1 <= first <= last < self.depth or len(links) != last - first:
            raise InvalidInput(
                f"a path from layer {first} to {last} with {len(links)} links; the hidden layers are 1 .. "
                f"{self.depth - 1}, and a path has one link fewer than neurons"
            )
        matrices = list(self.matrices)
        matrices[first - 1] = np.vstack([matrices[first - 1], a])
        for l, weight in zip(range(first, last), links, strict=True):
            W = matrices[l]
            grown = np.zeros((len(W) + 1, W.shape[1] + 1))
            grown[:-1, :-1] = W
            grown[-1, -1] = weight
            matrices[l] = grown
        matrices[last] = np.column_stack([matrices[last], b])
        return replace(self, matrices=tuple(matrices))

    def without(self, layer: int, unit: int) -> Network:
        """Without one hidden neuron."""
        matrices = list(self.matrices)
        matrices[layer - 1] = np.delete(matrices[layer - 1], unit, axis=0)
        matrices[layer] = np.delete(matrices[layer], unit, axis=1)
        return replace(self, matrices=tuple(matrices))

    def balanced(self, *, sweeps: int = 100) -> Network:
        """The same function with |incoming|^2 = p |outgoing|^2 at every neuron ([BEYOND], Lemma 17).

        Raw NCF values of different layers can only be compared there (docs/theory.md, section 8).
        """
        p = self.activation.p
        matrices = [W.copy() for W in self.matrices]
        for _ in range(sweeps):
            largest = 0.0
            for W, V in pairwise(matrices):
                into, out = np.linalg.norm(W, axis=1), np.linalg.norm(V, axis=0)
                live = (into > 0) & (out > 0)
                scale = np.ones(len(into))
                scale[live] = (np.sqrt(p) * out[live] / into[live]) ** (1.0 / (p + 1))
                W *= scale[:, None]
                V *= scale**-p
                largest = max(largest, float(np.abs(np.log(scale)).max(initial=0.0)))
            if largest < 1e-12:
                break
        return replace(self, matrices=tuple(matrices))

    # -- elsewhere ---------------------------------------------------------------------------------

    def feed_forward(self) -> tuple[FeedForward, np.ndarray]:
        """The same weights as a FeedForward model and its flat vector, without the intercept.

        A hidden layer without neurons becomes one of a single zero neuron, which a FeedForward cannot do without.
        """
        widths = tuple(max(1, k) for k in self.widths)
        matrices = []
        for W, (columns, rows) in zip(self.matrices, pairwise(widths), strict=True):
            full = np.zeros((rows, columns))
            full[: W.shape[0], : W.shape[1]] = W
            matrices.append(full)
        model = FeedForward(widths, self.activation)
        return model, model.pack(matrices)


def _pair(delta: np.ndarray, h: np.ndarray) -> tuple[int, int]:
    return delta.shape[1], h.shape[1]
