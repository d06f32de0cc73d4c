"""Work-precision diagrams: error against wall time, and against evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gfsim.compare.advice import methods_of
from gfsim.compare.measure import Run
from gfsim.compare.runner import GOAL, Comparison
from gfsim.output import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = {"scipy": "o", "gfsim": "s", "descent": "x"}
LINES = {"scipy": ":", "gfsim": "-", "descent": "--"}
OTHER_MARKERS = "^vDP*"


def work_precision(result: Comparison) -> Figure:
    """Both diagrams side by side; a method keeps its colour in either clock, the marker says whose it is."""
    from matplotlib.figure import Figure

    from paper_repro.figure import styled

    with styled():
        figure = Figure(figsize=(12.5, 5.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        groups = [[run for run in rows if run.ok] for rows in methods_of(result.runs)]
        groups = [rows for rows in groups if rows]
        colours = _colours(groups)
        libraries = sorted({rows[0].library for rows in groups} - set(MARKERS))
        for rows in groups:
            _curve(left, rows, [run.wall for run in rows], colours, libraries)
            _curve(right, rows, [float(max(run.evaluations, 1)) for run in rows], colours, libraries)
        for ax, what in ((left, "wall time, s"), (right, "RHS + HVP + Jacobian evaluations")):
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xlabel(what)
            ax.axhline(GOAL, color="0.6", lw=0.8, ls="--", zorder=0)
        errors = [run.error for rows in groups for run in rows]
        if errors:
            left.set_ylim(max(0.3 * min(errors), 1e-14), 3.0 * max(errors))
            bottom = left.get_ylim()[0]
            if result.floor > bottom:
                for ax in (left, right):
                    ax.axhspan(bottom, result.floor, color="0.9", zorder=-1)
                right.text(
                    0.99,
                    result.floor,
                    "below: not resolved by the reference ",
                    fontsize=7,
                    color="0.4",
                    ha="right",
                    va="top",
                    transform=right.get_yaxis_transform(),
                )
        else:
            left.text(0.5, 0.5, "no run reached the end", transform=left.transAxes, ha="center")
        left.set_ylabel("largest relative error of a block, at equal loss or size")
        handles, labels = left.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside right upper", fontsize=7)
        figure.suptitle(f"{result.problem.name}: {result.problem.title}", fontsize=9)
    return figure


def _colours(groups: Sequence[Sequence[Run]]) -> dict[str, Any]:
    from matplotlib import colormaps

    names = list(dict.fromkeys(rows[0].method for rows in groups))
    palette = [colormaps["tab20"](k) for k in range(0, 20, 2)] + [colormaps["tab20b"](k) for k in range(0, 20, 4)]
    return {name: palette[k % len(palette)] for k, name in enumerate(names)}


def _curve(ax: Any, rows: Sequence[Run], x: Sequence[float], colours: dict[str, Any], libraries: Sequence[str]) -> None:
    library = rows[0].library
    marker = MARKERS.get(library) or OTHER_MARKERS[libraries.index(library) % len(OTHER_MARKERS)]
    order = sorted(range(len(rows)), key=lambda k: rows[k].setting, reverse=True)
    ax.plot(
        [x[k] for k in order],
        [max(rows[k].error, 1e-15) for k in order],
        color=colours[rows[0].method],
        ls=LINES.get(library, "-."),
        marker=marker,
        ms=4.5,
        lw=1.2,
        mfc="none" if library == "scipy" else None,
        label=f"{rows[0].id} ({rows[0].clock})",
    )


def pictures(name: str, figure: Figure, dpi: int = 160) -> dict[str, bytes]:
    """NAME.png and NAME.svg."""
    return {
        f"{name}.png": rendered(lambda f: figure.savefig(f, format="png", dpi=dpi)),
        f"{name}.svg": rendered(lambda f: figure.savefig(f, format="svg", metadata={"Date": None})),
    }
