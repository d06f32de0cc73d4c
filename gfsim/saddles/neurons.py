"""Which hidden neurons are active, and the split w = (w_n, w_z) of the weights that follows.

docs/theory.md, sections 3 and 4.  w_z holds ALL incoming and outgoing weights of the inactive neurons;
for any set of hidden neurons these form a zero-preserving subset: where they vanish, so does their
gradient, whatever the data ([BEYOND], Lemma 16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.models.feedforward import FeedForward


@dataclass(frozen=True)
class ActiveNeurons:
    """Indices of the active units of every hidden layer, from the first to the last.

    Either every hidden layer has an active unit, or none has (the origin): with an empty layer in
    between nothing reaches the output, and the point is the origin of a smaller net.
    """

    units: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: FeedForward, active: Sequence[int | Sequence[int]]) -> ActiveNeurons:
        """From one entry a hidden layer: a count k (units 0..k-1) or a list of unit indices."""
        widths = model.hidden_widths
        if isinstance(active, str) or not isinstance(active, Sequence):
            raise InvalidInput(
                f"active = {active!r}; give a list with one count, or one list of units, for each hidden layer"
            )
        if len(active) != len(widths):
            raise InvalidInput(
                f"active = {list(active)!r} has {len(active)} entries; {model.name} has {len(widths)} hidden layer(s)"
            )
        units = []
        for layer, (entry, width) in enumerate(zip(active, widths, strict=True), start=1):
            chosen = tuple(range(entry)) if isinstance(entry, (int, np.integer)) else tuple(int(j) for j in entry)
            if len(set(chosen)) != len(chosen) or any(not 0 <= j < width for j in chosen):
                raise InvalidInput(
                    f"active units {chosen} of hidden layer {layer}; give distinct indices in 0..{width - 1}"
                )
            units.append(tuple(sorted(chosen)))
        empty = [not u for u in units]
        if any(empty) and not all(empty):
            raise InvalidInput(
                f"active = {list(active)!r}: give every hidden layer an active neuron, or none at all (the origin)"
            )
        return cls(tuple(units))

    @property
    def origin(self) -> bool:
        """No neuron is active."""
        return not any(self.units)

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of active units, a hidden layer each."""
        return tuple(len(u) for u in self.units)

    def inactive(self, model: FeedForward) -> tuple[tuple[int, ...], ...]:
        """The other units of every hidden layer."""
        return tuple(
            tuple(j for j in range(width) if j not in chosen)
            for chosen, width in zip(self.units, model.hidden_widths, strict=True)
        )

    def channels(self, model: FeedForward) -> list[tuple[int, ...]]:
        """Active units of every layer with the inputs and outputs, which always count as active."""
        return [tuple(range(model.n_inputs)), *self.units, tuple(range(model.n_outputs))]

    def subnet(self, model: FeedForward) -> FeedForward:
        """The net of the active neurons alone."""
        if self.origin:
            raise InvalidInput("the origin has no active neuron, hence no active subnet")
        return model.with_hidden_widths(self.widths)

    def index_n(self, model: FeedForward) -> np.ndarray:
        """Flat indices of w_n in the wide net, in the order of the subnet's own flat vector."""
        if self.origin:
            return np.zeros(0, dtype=int)
        channels = self.channels(model)
        parts = [
            block[np.ix_(rows, cols)].ravel()
            for block, cols, rows in zip(model.index, channels[:-1], channels[1:], strict=True)
        ]
        return np.concatenate(parts)

    def index_z(self, model: FeedForward) -> np.ndarray:
        """Flat indices of w_z, increasing: every weight into or out of an inactive neuron."""
        small = np.zeros(model.n_params, dtype=bool)
        for layer, units in enumerate(self.inactive(model), start=1):
            for j in units:
                small[model.index[layer - 1][j, :]] = True
                small[model.index[layer][:, j]] = True
        return np.flatnonzero(small)


def split_by_norm(model: FeedForward, w: np.ndarray, *, threshold: float | None = None) -> ActiveNeurons:
    """Active and inactive neurons of the weights ``w`` (P,) by the size of in- and outgoing weights.

    The size of a neuron is the smaller of |incoming| and |outgoing|: a neuron acts only if both are
    there.  Without a ``threshold`` the cut is placed at the widest gap of the sorted logarithms, with
    the origin of the logarithm at 1e-12 of the largest; if no gap exceeds a factor of 10 every
    neuron counts as active.
    """
    matrices = model.unpack(w)
    sizes = [np.minimum(np.linalg.norm(W, axis=1), np.linalg.norm(V, axis=0)) for W, V in pairwise(matrices)]
    every = np.concatenate(sizes)
    if threshold is None:
        top = float(every.max())
        if top == 0:
            return ActiveNeurons(tuple(() for _ in sizes))
        logs = np.sort(np.log10(np.maximum(every, 1e-12 * top)))
        gaps = np.diff(logs)
        if gaps.size == 0 or gaps.max() < 1.0:
            threshold = 0.0
        else:
            k = int(gaps.argmax())
            threshold = float(10 ** (0.5 * (logs[k] + logs[k + 1])))
    return ActiveNeurons(tuple(tuple(int(j) for j in np.flatnonzero(s > threshold)) for s in sizes))
