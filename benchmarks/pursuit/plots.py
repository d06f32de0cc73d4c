"""Pictures of the comparison: who solves what and at what cost; error against size on the real tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.pursuit.registry import OURS, all_methods
from benchmarks.pursuit.results import Results
from benchmarks.pursuit.summary import Entry, entries
from benchmarks.pursuit.tasks import Task, all_tasks

PICTURED = ("core", "d30", "real")

STYLES = {
    "np": ("C3", "*"),
    "np-mean": ("C3", "P"),
    "linear": ("0.5", "x"),
    "lightgbm": ("C2", "^"),
    "xgboost": ("C2", "v"),
    "mlp-adam": ("C0", "o"),
    "mlp-lbfgs": ("C0", "s"),
    "lm": ("C1", "D"),
    "gd": ("C4", "p"),
    "adam": ("C4", "h"),
    "gromo-tiny": ("C5", "P"),
    "gromo-gradmax": ("C5", "X"),
}
"""Colour and marker of each method on the real tables."""


def all_plots(found: Results) -> dict[str, Any]:
    """File name (without suffix) -> figure, for the groups of which there are results."""
    from paper_repro.figure import styled

    table = entries(found.cells)
    figures = {}
    with styled():
        for group in PICTURED:
            tasks = [t for t in all_tasks().values() if t.group == group and any(n == t.name for n, _ in table)]
            if tasks:
                draw = _real if group == "real" else _solved
                figures[f"pursuit_comparison_{group}"] = draw(table, tasks)
    return figures


def _solved(table: dict[tuple[str, str], Entry], tasks: list[Task]) -> Any:
    """A cell for each task and method: colour and upper number say the seeds solved, the lower one CPU seconds."""
    from matplotlib.figure import Figure

    methods = [m for m in all_methods() if any((t.name, m) in table for t in tasks)]
    share = np.full((len(tasks), len(methods)), np.nan)
    figure = Figure(figsize=(max(7.0, 2.6 + 0.62 * len(methods)), 1.6 + 0.42 * len(tasks)), layout="constrained")
    ax = figure.subplots()
    for row, task in enumerate(tasks):
        for column, method in enumerate(methods):
            e = table.get((task.name, method))
            if e is None:
                continue
            share[row, column] = e.solved / e.tried
            ax.text(
                column,
                row,
                f"{e.solved}/{e.tried}\n{e.cpu:.2g} s" if np.isfinite(e.cpu) else "failed",
                ha="center",
                va="center",
                fontsize=6.5,
                color="black",
            )
    ax.imshow(np.ma.masked_invalid(share), cmap="RdYlGn", vmin=-0.3, vmax=1.3, aspect="auto")
    ax.set_xticks(range(len(methods)), methods, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(range(len(tasks)), [t.name for t in tasks], fontsize=8)
    ax.tick_params(length=0)
    ax.grid(False)
    own = sum(m in OURS for m in methods)
    if own < len(methods):
        ax.axvline(own - 0.5, color="black", lw=1.2)
    ax.set_title("seeds solved, and median CPU seconds of a fit (np...: Neuron Pursuit)", fontsize=9)
    return figure


def _real(table: dict[tuple[str, str], Entry], tasks: list[Task]) -> Any:
    """A panel for each table: mean error against the median number of parameters."""
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-(len(tasks) + 1) // columns)  # one place more, for the legend
    figure = Figure(figsize=(3.0 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, task in zip(axes, tasks, strict=False):
        for method, (colour, marker) in STYLES.items():
            e = table.get((task.name, method))
            if e is None or not e.errors.size:
                continue
            spread = float(np.std(e.errors, ddof=1) / np.sqrt(e.errors.size)) if e.errors.size > 1 else 0.0
            ax.errorbar(
                e.parameters,
                e.mean,
                yerr=spread,
                fmt=marker,
                color=colour,
                ms=11 if method == "np" else 6,
                mec="black" if method == "np" else colour,
                mew=0.8,
                elinewidth=0.8,
                zorder=3 if method == "np" else 2,
            )
        ax.set_xscale("log")
        ax.set_title(task.name, fontsize=9)
        ax.tick_params(labelsize=7)
    for ax in axes[len(tasks) :]:
        ax.axis("off")
    for ax in axes[::columns]:
        ax.set_ylabel("test error", fontsize=8)
    for k in range(max(0, len(tasks) - columns), len(tasks)):
        axes[k].set_xlabel("parameters", fontsize=8)
    shown = [m for m in STYLES if any((t.name, m) in table for t in tasks)]
    handles = [
        axes[len(tasks)].plot([], [], STYLES[m][1], color=STYLES[m][0], ms=9 if m == "np" else 6, label=m)[0]
        for m in shown
    ]
    axes[len(tasks)].legend(handles=handles, loc="center", ncols=2, fontsize=7.5, frameon=False)
    return figure
