"""Pictures of a growth and of the network that came out; matplotlib is imported when they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.pursuit.network import Network

MOST_UNITS = 40
"""Units of a layer that a picture can show and still be read; the largest ones are shown."""


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(7.0, 4.5), layout="constrained").subplots()


def plot_history(history: Sequence[Mapping[str, Any]], ax: Any = None) -> Any:
    """Training and validation loss after every addition, labelled by what was added.

    Rows of the default mode and of paper mode (one a minimisation) are understood.
    """
    if not history:
        raise InvalidInput("the history is empty: nothing was added, so there is nothing to plot")
    ax = _axes(ax)
    x = np.arange(1, len(history) + 1)
    train = np.array([row["train"] if "train" in row else row["loss_after"] for row in history])
    ax.plot(x, train, "o-", label="training")
    validation = np.array([row["validation"] for row in history])
    if np.isfinite(validation).any():
        ax.plot(x, validation, "s--", label="validation")
    if (train > 0).all():
        ax.set_yscale("log")
    ax.set_xticks(x, ["-".join(map(str, row["hidden"])) for row in history], rotation=60 if len(x) > 6 else 0)
    ax.set_xlabel("hidden widths after each addition")
    ax.set_ylabel("mean loss")
    ax.legend()
    return ax


def plot_network(net: Network, features: Sequence[str] | None = None, *, bias: bool = False, ax: Any = None) -> Any:
    """Units as dots, weights as lines: red positive, blue negative, width by size within the layer."""
    ax = _axes(ax)
    names = [str(f) for f in features] if features is not None else [f"x{k}" for k in range(net.widths[0] - bias)]
    names += ["1"] if bias else []
    shown = [_largest(net.matrices[0], axis=0)]
    for l in range(1, net.depth):
        shown.append(_largest(net.matrices[l - 1], axis=1))
    shown.append(np.arange(net.n_outputs)[:MOST_UNITS])
    for l, W in enumerate(net.matrices):
        top = float(np.abs(W).max(initial=0.0))
        for j, row in enumerate(shown[l + 1]):
            for k, column in enumerate(shown[l]):
                weight = W[row, column] / top if top else 0.0
                if abs(weight) > 1e-3:
                    ax.plot(
                        [l, l + 1],
                        [_height(k, shown[l]), _height(j, shown[l + 1])],
                        color="C3" if weight > 0 else "C0",
                        lw=3.0 * abs(weight),
                        alpha=0.7,
                        zorder=1,
                    )
    for l, units in enumerate(shown):
        ax.plot(np.full(len(units), l), [_height(k, units) for k in range(len(units))], "ok", ms=6, zorder=2)
    for k, column in enumerate(shown[0]):
        ax.annotate(names[column], (0, _height(k, shown[0])), (-8, 0), textcoords="offset points", ha="right",
                    va="center", fontsize=8)  # fmt: skip
    hidden = [f"layer {l}\n{k} neuron{'s' * (k != 1)}" for l, k in enumerate(net.hidden_widths, start=1)]
    ax.set_xticks(range(net.depth + 1), ["inputs", *hidden, "output"])
    ax.set_yticks([])
    ax.set_xlim(-0.5, net.depth + 0.2)
    return ax


def _largest(W: np.ndarray, axis: int) -> np.ndarray:
    """The units whose weights are largest, in their order."""
    size = np.linalg.norm(W, axis=axis)
    return np.sort(np.argsort(-size, kind="stable")[:MOST_UNITS])


def _height(k: int, units: np.ndarray) -> float:
    return 0.5 * (len(units) - 1) - k
