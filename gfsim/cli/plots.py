"""The pictures that ``simulate`` and ``pursue`` write, in the project's style."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gfsim.flow.result import FlowResult
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import LinearPredictor
from gfsim.output import rendered
from paper_repro.figure import Context, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gfsim.cli.fitting import Fitted

DPI = 200
MAX_LINES = 200
"""Curves that a panel can hold and still be read; the largest ones are kept."""


def pictures(name: str, figure: Figure) -> dict[str, bytes]:
    """NAME.png and NAME.svg."""
    return {
        f"{name}.png": rendered(lambda f: figure.savefig(f, format="png", dpi=DPI)),
        f"{name}.svg": rendered(lambda f: figure.savefig(f, format="svg", metadata={"Date": None})),
    }


def flow_pictures(name: str, result: FlowResult, model: Model, title: str) -> dict[str, bytes]:
    """Loss, and the size of every neuron, against physical time and against the clock of the integration."""
    with styled():
        return pictures(name, _flow_figure(result, model, title))


def _flow_figure(result: FlowResult, model: Model, title: str) -> Figure:
    clocks: list[tuple[np.ndarray, str]] = [(result.t, "physical time t")]
    if not np.array_equal(result.s, result.t):
        clocks.append((result.s, f"clock s of the integration, {result.clock}"))
    figure, axes = Context(name="").subplots(
        2, len(clocks), size=(5.0 * len(clocks) + 1.0, 6.0), sharex="col", sharey="row", squeeze=False
    )
    groups, what = sizes(model, result.w)
    for column, (x, label) in enumerate(clocks):
        top, bottom = axes[0, column], axes[1, column]
        top.plot(x, result.loss)
        _log_if_wide(top, result.loss)
        for k, (name, curves) in enumerate(groups):
            loudest = np.argsort(-curves.max(axis=0))[:MAX_LINES]
            for place, j in enumerate(loudest):
                bottom.plot(x, curves[:, j], color=f"C{k}", lw=1.1, alpha=0.8, label=name if place == 0 else None)
        _log_if_wide(bottom, np.concatenate([curves.ravel() for _, curves in groups]))
        bottom.set_xlabel(label)
        for event in result.events:
            for ax in (top, bottom):
                ax.axvline(event.t if column == 0 else event.s, color="0.55", lw=0.8, ls=":")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel(what)
    if len(groups) > 1:
        axes[1, 0].legend()
    axes[0, 0].set_title(f"{result.label}\n{title}")
    return figure


def sizes(model: Model, w: np.ndarray) -> tuple[list[tuple[str, np.ndarray]], str]:
    """Groups of curves (m, k) that show which parts of the weights ``w`` (m, P) have grown, and what they are."""
    if isinstance(model, FeedForward) and model.depth > 1:
        norms = model.neuron_norms(w)
        return [(f"hidden layer {l}", curves) for l, curves in enumerate(norms, start=1)], "norm of each neuron"
    if isinstance(model, LinearPredictor):
        return [("coefficients", np.abs(model.theta(w)))], "size of each coefficient"
    return [("weights", np.linalg.norm(w, axis=-1, keepdims=True))], "|w|"


def _log_if_wide(ax: Any, values: np.ndarray) -> None:
    """A logarithmic axis where positive values span more than a factor of 30; zeros are then left out."""
    positive = values[values > 0]
    if positive.size and positive.max() > 30 * positive.min():
        ax.set_yscale("log")
        floor = positive.max() * 1e-16
        ax.set_ylim(bottom=max(positive.min(), floor) * 0.5)


def pursuit_figure(fitted: Fitted) -> Figure:
    """Loss while the net grows; the NCF of every layer at each addition; labels against predictions."""
    figure, (left, middle, right) = Context(name="").subplots(1, 3, size=(13.0, 4.2))
    _growth_panel(left, fitted)
    _ncf_panel(middle, fitted)
    _fit_panel(right, fitted)
    return figure


def grown_figure(estimator: Any, samples: Any, rows: dict[str, np.ndarray]) -> Figure:
    """Growth, the network, and labels against predictions (classes: the confusion on the test rows)."""
    from gfsim.pursuit.plots import plot_history, plot_network

    figure, (left, middle, right) = Context(name="").subplots(1, 3, size=(14.0, 4.4))
    if estimator.history_:
        plot_history(estimator.history_, left)
    else:
        left.text(0.5, 0.5, "no neuron was added", transform=left.transAxes, ha="center")
    plot_network(estimator.network_, samples.features, bias=estimator._scaling.bias, ax=middle)
    middle.grid(visible=False)
    if hasattr(estimator, "classes_"):
        part = "test" if len(rows["test"]) else "train"
        _confusion(right, estimator, samples.X[rows[part]], samples.y[rows[part]], part)
        return figure
    low, high = float(samples.y.min()), float(samples.y.max())
    right.plot([low, high], [low, high], color="0.5", lw=0.8, zorder=0)
    for k, (part, index) in enumerate(rows.items()):
        if len(index):
            right.plot(samples.y[index], estimator.predict(samples.X[index]), "o", ms=3, alpha=0.6, color=f"C{k}",
                       label=part)  # fmt: skip
    right.set_xlabel(f"{samples.target} in the data")
    right.set_title(f"{samples.target} as predicted")
    right.legend()
    return figure


def _confusion(ax: Any, estimator: Any, X: np.ndarray, y: np.ndarray, part: str) -> None:
    classes = estimator.classes_
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (np.searchsorted(classes, y), np.searchsorted(classes, estimator.predict(X))), 1)
    ax.imshow(counts, cmap="Blues")
    ax.grid(visible=False)
    if len(classes) <= 12:
        for (i, j), count in np.ndenumerate(counts):
            ax.text(j, i, str(count), ha="center", va="center", color="white" if 2 * count > counts.max() else "black")
    ax.set_xticks(range(len(classes)), [str(c) for c in classes], rotation=60)
    ax.set_yticks(range(len(classes)), [str(c) for c in classes])
    ax.set_xlabel("predicted")
    ax.set_title(f"{part} rows by their class")


def _growth_panel(ax: Any, fitted: Fitted) -> None:
    runs = fitted.result.record.minimisations
    x = np.arange(1, len(runs) + 1)
    convention = fitted.result.record.problem.get("reduction", "")
    ax.plot(x, [run.loss_after for run in runs], "o-", label=f"training ({convention})")
    validation = np.array([run.validation for run in runs])
    if np.isfinite(validation).any():
        ax.plot(x, validation, "s--", label="validation (mean)")
    ax.set_yscale("log")
    ax.set_xticks(x, ["-".join(map(str, run.widths[1:-1])) for run in runs], rotation=60 if len(runs) > 6 else 0)
    ax.set_xlabel("hidden widths")
    ax.set_title("loss at the end of each minimisation")
    ax.legend()


def _ncf_panel(ax: Any, fitted: Fitted) -> None:
    additions = fitted.result.record.additions
    x = np.arange(2, len(additions) + 2)
    for layer in range(1, fitted.result.model.depth):
        ax.plot(x, [added.layer_values[layer - 1] for added in additions], "o-", label=f"layer {layer}")
    for place, added in zip(x, additions, strict=True):
        ax.plot(place, added.value, "o", ms=10, mfc="none", mec="black", label="chosen" if place == 2 else None)
    if any(value > 0 for added in additions for value in added.layer_values):
        ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("minimisation that follows")
    ax.set_title("largest NCF value of each layer")
    if additions:
        ax.legend()
    else:
        ax.text(0.5, 0.5, "no neuron was added", transform=ax.transAxes, ha="center")


def _fit_panel(ax: Any, fitted: Fitted) -> None:
    task = fitted.task
    ax.grid(visible=not task.classes)
    for k, (part, rows) in enumerate(task.rows.items()):
        if not len(rows):
            continue
        y, q = task.samples.y[rows], fitted.predict(task.samples.X[rows])
        if task.classes:
            for value, style in zip(task.classes, ("-", "--"), strict=True):
                chosen = np.sort(q[y == value])
                share = np.arange(1, len(chosen) + 1) / max(len(chosen), 1)
                ax.step(chosen, share, where="post", color=f"C{k}", ls=style, label=f"{part}, class {value:g}")
        else:
            ax.plot(y, q, "o", ms=3, alpha=0.6, color=f"C{k}", label=part)
    if task.classes:
        ax.axvline(0, color="0.5", lw=0.8)
        ax.set_xlabel("output of the net")
        ax.set_title("share of each class below an output")
    else:
        low, high = float(task.samples.y.min()), float(task.samples.y.max())
        ax.plot([low, high], [low, high], color="0.5", lw=0.8, zorder=0)
        ax.set_xlabel(f"{task.samples.target} in the data")
        ax.set_title(f"{task.samples.target} as predicted")
    ax.legend()
