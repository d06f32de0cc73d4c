"""Neuron Pursuit in motion: the architecture, the weights, the function and the loss, epoch by epoch.

The record of a pursuit keeps the weights at both ends of every descent; the weights in between are had by running
the descent again, which repeats the same arithmetic.  The network's values on all 2^20 points of the cube
are those of two halves of the inputs added up: W1 x = W1[:, :10] x[:10] + W1[:, 10:] x[10:], 2^10 values of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.pursuit.algorithm import PursuitResult
from gfsim.pursuit.descent_loop import DescentLoop
from gfsim.pursuit.record import Minimisation
from paper_repro.figure import Context, gif

HALF = 10
"""Half the inputs; a block of 2^HALF neighbouring points is one column of the picture."""

SHOWN_INPUTS = 6
STEP = 0.004


@dataclass(frozen=True)
class Frame:
    """The network at one epoch of one iteration; ``epoch`` counts from the very start."""

    iteration: int
    epoch: int
    model: FeedForward
    w: np.ndarray
    loss: float


def chosen_steps(step: Minimisation, count: int) -> np.ndarray:
    """``count`` recorded rows of a descent, dense where the loss falls and not too sparse elsewhere."""
    loss = np.log(np.maximum(step.trace_loss, 1e-16))
    place = np.linspace(0, 1, len(loss))
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(loss)))])
    way = place + 2.0 * way / max(float(way[-1]), 1e-300)
    return np.unique(np.searchsorted(way, np.linspace(0, float(way[-1]), count)).clip(max=len(loss) - 1))


def frames(ctx: Context, result: PursuitResult, X: np.ndarray, y: np.ndarray, per_iteration: int) -> list[Frame]:
    """Every descent run again, stopped at the chosen epochs."""
    out = []
    before = 0
    for k, step in enumerate(result.record.minimisations):
        ctx.note(f"animation: descent {k + 1} again")
        model = FeedForward(step.widths, result.model.activation)
        loop = DescentLoop(Objective(model, X, y, reduction="mean"), step.weights_before, STEP)
        at = 0
        for row in chosen_steps(step, per_iteration):
            epoch = round(float(step.trace_time[row]) / STEP)
            loop.advance(epoch - at)
            at = epoch
            out.append(Frame(k, before + epoch, model, loop.w.copy(), float(step.trace_loss[row])))
        before += step.steps
    return out


def half_cube() -> np.ndarray:
    """{-1, +1}^10 in lexicographic order: (2^10, 10)."""
    k = np.arange(1 << HALF)
    return 2.0 * ((k[:, None] >> np.arange(HALF - 1, -1, -1)) & 1) - 1.0


def on_the_cube(model: FeedForward, w: np.ndarray) -> np.ndarray:
    """The network on all 2^20 points, in lexicographic order, as (2^10, 2^10): row = first ten inputs."""
    W1, *rest = model.unpack(w)
    points = half_cube()
    first, second = points @ W1[:, :HALF].T, points @ W1[:, HALF:].T
    h = [model.activation.value(first[:, [j]] + second[:, j]) for j in range(len(W1))]
    for l, W in enumerate(rest):
        z = [sum(float(weight) * unit for weight, unit in zip(row, h, strict=True)) for row in W]
        h = [np.asarray(v) if l == len(rest) - 1 else model.activation.value(v) for v in z]
    return h[0]


def architecture(ax: Any, model: FeedForward, w: np.ndarray, new: list[tuple[int, int]], *, size: float = 1.0) -> None:
    """Units as circles, weights as lines, red positive and blue negative; units of ``new`` (layer, unit) dashed.

    The first inputs are drawn one by one, the others as one dot with the largest of their weights.
    """
    matrices = [W.copy() for W in model.unpack(w)]
    W1 = matrices[0]
    rest = W1[:, SHOWN_INPUTS:]
    largest = rest[np.arange(len(rest)), np.abs(rest).argmax(axis=1)]
    matrices[0] = np.column_stack([W1[:, :SHOWN_INPUTS], largest])
    counts = [SHOWN_INPUTS + 1, *model.hidden_widths, 1]
    heights = [np.linspace(0.5, -0.5, k) * min(1.0, 0.3 * (k - 1)) if k > 1 else np.zeros(1) for k in counts]
    for l, W in enumerate(matrices):
        for j, row in enumerate(W):
            for i, weight in enumerate(row):
                if abs(weight) > 0.01:
                    ax.plot([l, l + 1], [heights[l][i], heights[l + 1][j]], color="C1" if weight > 0 else "C0",
                            lw=min(4.0, 1.8 * abs(float(weight))) * size, alpha=0.75, zorder=1)  # fmt: skip
    for l, levels in enumerate(heights):
        for j, level in enumerate(levels):
            if l == 0:
                ax.plot(l, level, "o", ms=5 * size, color="k", zorder=2)
                continue
            fresh = (l, j) in new
            ax.scatter([l], [level], s=(13 * size) ** 2, facecolors="w", edgecolors="k", lw=1.6 if fresh else 1.2,
                       linestyles="--" if fresh else "-", zorder=3)  # fmt: skip
    for i, level in enumerate(heights[0]):
        name = f"$x_{{{i + 1}}}$" if i < SHOWN_INPUTS else f"$x_{{{SHOWN_INPUTS + 1}\\ldots{W1.shape[1]}}}$"
        ax.annotate(name, (0, level), xytext=(-6, 0), textcoords="offset points", ha="right", va="center",
                    fontsize=9 * size**0.5)  # fmt: skip
    ax.set(xlim=(-0.45 / size, len(counts) - 0.75), ylim=(-0.62, 0.62), xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def new_units(result: PursuitResult, iteration: int) -> list[tuple[int, int]]:
    """(layer, unit) of the neurons with which an iteration begins."""
    if iteration == 0:
        return [(layer, 0) for layer in range(1, len(result.model.widths) - 1)]
    layer = result.record.additions[iteration - 1].layer
    return [(layer, result.record.minimisations[iteration].widths[layer] - 1)]


def what_was_added(result: PursuitResult, iteration: int) -> str:
    if iteration == 0:
        return "start at the best KKT point of the NCF at the origin"
    addition = result.record.additions[iteration - 1]
    values = ", ".join(f"layer {l}: {v:.2g}" for l, v in enumerate(addition.layer_values, start=1))
    return f"neuron added to layer {addition.layer} (largest NCF: {values})"


def animation(
    ctx: Context, result: PursuitResult, X: np.ndarray, y: np.ndarray, truth: np.ndarray, count: int
) -> bytes:
    """A GIF of about ``count`` pictures an iteration; ``truth`` (2^20,) are the target's values on the cube."""
    shots = frames(ctx, result, X, y, count)
    fig: Any = ctx.figure(size=(10.0, 6.4), layout="none")
    grid = fig.add_gridspec(3, 4, left=0.05, right=0.985, bottom=0.085, top=0.87, hspace=0.62, wspace=0.3,
                            width_ratios=[1, 1, 1.25, 0.45])  # fmt: skip
    net, function = fig.add_subplot(grid[:2, :2]), fig.add_subplot(grid[0, 2:])
    rows, second, third = fig.add_subplot(grid[1, 2:]), fig.add_subplot(grid[2, 2]), fig.add_subplot(grid[2, 3])
    loss = fig.add_subplot(grid[2, :2])
    bins = 1 << HALF
    place = np.arange(bins) * bins
    expected = truth.reshape(bins, bins).mean(1)
    low, high = float(truth.min()) - 0.8, float(truth.max()) + 2.2
    epochs = np.array([s.epoch for s in shots])
    total = sum(step.steps for step in result.record.minimisations)

    def show(k: int) -> None:
        ctx.note(f"animation: picture {k + 1} of {len(shots)}")
        shot = shots[k]
        for ax in (net, function, rows, second, third, loss):
            ax.clear()
        W = shot.model.unpack(shot.w)
        widths = ", ".join(map(str, shot.model.hidden_widths))
        fig.suptitle(
            f"Iteration {shot.iteration + 1}, hidden widths ({widths}), epoch {shot.epoch:,}, loss {shot.loss:.1e}\n"
            + what_was_added(result, shot.iteration),
            x=0.05, ha="left", fontsize=11,
        )  # fmt: skip
        architecture(net, shot.model, shot.w, new_units(result, shot.iteration))
        values = on_the_cube(shot.model, shot.w)
        function.plot(place, expected, color="C1", lw=4.0, alpha=0.45, label="f")
        function.fill_between(place, values.min(1), values.max(1), color="C0", alpha=0.5, lw=0)
        function.plot(place, values.mean(1), color="C0", lw=1.1, label="network, mean and range of 1024")
        function.set(ylim=(low, high), xticks=[], title="Function on all 2^20 points")
        function.legend(loc="upper left", ncols=2, fontsize=8)
        rows.imshow(W[0], cmap="RdBu_r", vmin=-2.2, vmax=2.2, aspect="auto")
        rows.set(title="Rows of W1", xticks=[0, 3, 9, 14, 19], yticks=range(len(W[0])))
        rows.set_xticklabels(["1", "4", "10", "15", "20"])
        rows.set_yticklabels([str(j + 1) for j in range(len(W[0]))])
        for ax, matrix, title in ((second, W[1], "W2"), (third, W[2].T, "W3")):
            ax.imshow(matrix, cmap="RdBu_r", vmin=-2.6, vmax=2.6, aspect="auto")
            ax.set(xticks=[], yticks=[], title=title)
            for (i, j), value in np.ndenumerate(matrix):
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9,
                        color="white" if abs(value) > 1.7 else "black")  # fmt: skip
        for ax in (rows, second, third):
            ax.grid(visible=False)
        loss.semilogy(epochs[: k + 1] / 1000, [max(s.loss, 1e-16) for s in shots[: k + 1]], color="C0")
        loss.plot(shot.epoch / 1000, max(shot.loss, 1e-16), "o", color="k")
        before = 0
        for step in result.record.minimisations[: shot.iteration + 1]:
            loss.axvline(before / 1000, color="0.6", ls="--", lw=0.8)
            before += step.steps
        loss.set(xlim=(-0.01 * total / 1000, 1.01 * total / 1000), ylim=(1e-10, 30), xlabel="thousand epochs",
                 title="Training loss (dashed: a neuron is added)")  # fmt: skip

    return gif(fig, show, len(shots))
