"""Several grown networks as one: their mean, a network of as many blocks side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import block_diag

from gfsim.errors import InvalidInput
from gfsim.pursuit.network import Network


def mean_network(nets: Sequence[Network]) -> Network:
    """The balanced network whose outputs are the mean of those of ``nets``, for every input.

    The nets share inputs, depth, outputs and activation.  Their neurons stand side by side, with no weights between
    those of different nets, and outgoing weights of the last layer are divided by the number of nets.

    Raises
    ------
    InvalidInput
        For no net at all, or nets that differ in what they must share.
    """
    if not nets:
        raise InvalidInput("the mean of no networks; pass at least one")
    first, *others = nets
    for net in others:
        if (net.depth, net.widths[0], net.n_outputs, net.intercept.size, net.activation) != (
            first.depth,
            first.widths[0],
            first.n_outputs,
            first.intercept.size,
            first.activation,
        ):
            raise InvalidInput(
                f"the mean of {first} and {net}; they must have the same inputs, depth, outputs and activation"
            )
    if not others:
        return first
    stacks = list(zip(*(net.matrices for net in nets), strict=True))
    bottom = np.vstack(stacks[0])
    middle = [block_diag(*layer) for layer in stacks[1:-1]]
    top = np.hstack(stacks[-1]) / len(nets)
    intercept = np.mean([net.intercept for net in nets], axis=0)
    return Network((bottom, *middle, top), intercept, first.activation).balanced()
