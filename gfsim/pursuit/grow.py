"""Add one neuron to a feed-forward net and keep all old weights (docs/theory.md, section 6, step 2)."""

from __future__ import annotations

import numpy as np

from gfsim.arrays import finite_array
from gfsim.errors import InvalidInput
from gfsim.models.feedforward import FeedForward


def append_neuron(
    model: FeedForward, w: np.ndarray, layer: int, a: np.ndarray, b: np.ndarray
) -> tuple[FeedForward, np.ndarray]:
    """The net with one more neuron, last in hidden layer ``layer``, and its weights.

    Parameters
    ----------
    model : FeedForward
    w : (P,)
        Its weights; they are kept as they are.
    layer : int
        1 .. L-1, counted as in the papers.
    a : (width of layer - 1,)
        Incoming weights of the new neuron, as they shall enter (already scaled by delta).
    b : (width of layer + 1,)
        Outgoing weights.

    Returns
    -------
    (FeedForward, (P',))
    """
    if not 1 <= layer <= model.depth - 1:
        raise InvalidInput(f"layer = {layer}; {model.name} has hidden layers 1 to {model.depth - 1}")
    old = model.check_weights(finite_array(w, "weights", ndim=1))
    incoming, outgoing = finite_array(a, "a", ndim=1), finite_array(b, "b", ndim=1)
    below, above = model.widths[layer - 1], model.widths[layer + 1]
    if incoming.size != below or outgoing.size != above:
        raise InvalidInput(
            f"a neuron of layer {layer} of {model.name} has {below} incoming and {above} outgoing weights; "
            f"got {incoming.size} and {outgoing.size}"
        )
    matrices = model.unpack(old)
    matrices[layer - 1] = np.vstack([matrices[layer - 1], incoming])
    matrices[layer] = np.column_stack([matrices[layer], outgoing])
    hidden = list(model.hidden_widths)
    hidden[layer - 1] += 1
    grown = model.with_hidden_widths(hidden)
    return grown, grown.pack(matrices)
