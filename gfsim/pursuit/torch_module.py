"""A grown network as a plain torch module, for use outside gfsim."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from gfsim.errors import InvalidInput
from gfsim.pursuit.network import Network
from gfsim.pursuit.preparation import Scaling


class GrownNetwork(nn.Module):
    """``nn.Linear`` layers with max(z, alpha z)^p in between; the first and the last have biases.

    Scaling of inputs and targets is folded into these two layers: it maps raw rows to raw outputs.

        torch.save({"config": module.config, "state": module.state_dict()}, path)
        saved = torch.load(path)
        module = GrownNetwork(**saved["config"]); module.load_state_dict(saved["state"])

    Parameters
    ----------
    widths : sequence of int
        (inputs, hidden ..., outputs).
    p, alpha
        The activation's.
    """

    def __init__(self, widths: Sequence[int], p: int = 1, alpha: float = 0.0) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise InvalidInput(f"widths = {widths!r}; give whole numbers >= 1 as (inputs, hidden ..., outputs)")
        self.config: dict[str, Any] = {"widths": [int(k) for k in widths], "p": int(p), "alpha": float(alpha)}
        self.p, self.alpha = int(p), float(alpha)
        ends = (0, len(widths) - 2)
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=l in ends, dtype=torch.float64) for l, (a, b) in enumerate(pairwise(widths))
        )

    @classmethod
    def of(cls, scaling: Scaling, net: Network) -> GrownNetwork:
        """The module that computes what ``net`` does behind ``scaling``."""
        matrices, first, last = scaling.folded(net)
        widths = [matrices[0].shape[1], *(len(W) for W in matrices)]
        module = cls(widths, net.activation.p, net.activation.alpha)
        state = {f"layers.{l}.weight": torch.tensor(np.asarray(W)) for l, W in enumerate(matrices)}
        biases = {"layers.0.bias": torch.tensor(first), f"layers.{len(matrices) - 1}.bias": torch.tensor(last)}
        module.load_state_dict(state | biases)
        return module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs) -> (n, outputs)."""
        for layer in self.layers[:-1]:
            z = layer(x)
            x = torch.maximum(z, self.alpha * z) ** self.p
        return self.layers[-1](x)
