"""The picture of a statement: every instance beside its bound, and the laws that exponents were fitted to.

Drawn from what the run measured and nothing else; a statement needs no code of its own for it.  A statement that calls
:meth:`proofs_checks.statement.Ledger.curve` gets a panel a quantity in addition, with the stated slope.

In the upper part each line is one piece of evidence and each dot one instance, at measured / bound (for "at least":
bound / measured).  Claims must lie left of 1 and negative controls right of it, whatever is measured.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gfsim.output import rendered
from paper_repro.figure import styled
from proofs_checks.statement import Curve, Evidence, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
WIDTH, LINE, PANEL = 10.0, 0.19, 3.6
"""Inches: the picture, a line of text, a panel of curves."""
CLAIM, CONTROL = "C0", "C1"
WRAP = 64
DECADES = 18.0
"""Ratios beyond 1e-18 and 1e18 are drawn at the edge with what is exact, or infinitely off."""
COLUMNS = 3
TITLE = 46
"""Characters in a line over a panel."""
LEGEND = 3
"""More instances than these are summed up over the panel, as a range of slopes, and not named one by one."""


def png(row: Row) -> bytes:
    """The picture as a PNG file."""
    with styled():
        picture = figure(row)
        return rendered(lambda f: picture.savefig(f, format="png", dpi=DPI, metadata={"Software": None}))


def figure(row: Row) -> Figure:
    """The picture of a statement that has evidence."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(curve.panel for curve in row.curves))
    groups = list(dict.fromkeys(curve.label for curve in row.curves if not curve.broken))
    labels = [_label(e) for e in row.evidence]
    lines = sum(label.count("\n") + 1.6 for label in labels)
    heights = [LINE * lines + 1.1] + [PANEL] * math.ceil(len(panels) / COLUMNS)
    fig = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    verdict = "" if row.holds else ": DOES NOT HOLD"
    fig.suptitle(f"{row.name}: {row.title}{verdict}", x=0.01, ha="left", fontsize=11)
    parts = fig.add_gridspec(len(heights), 1, height_ratios=heights)
    _margins(fig.add_subplot(parts[0]), row, labels)
    for k in range(1, len(heights)):
        here = panels[(k - 1) * COLUMNS : k * COLUMNS]
        places = parts[k].subgridspec(1, max(2, len(here)))
        for column, panel in enumerate(here):
            chosen = [curve for curve in row.curves if curve.panel == panel]
            _curves(fig.add_subplot(places[column]), chosen, groups)
    return fig


def _label(e: Evidence) -> str:
    text = f"{e.what} (broken: {e.why})" if e.kind == "control" else e.what
    return "\n".join(textwrap.wrap(f"{text}  [{e.instances}]", WRAP))


# -- margins --------------------------------------------------------------------------------------------


def ratio(value: float, e: Evidence) -> float:
    """How far an instance is on the wrong side of its bound: <= 1 where the inequality holds; NaN for a NaN.

    Where exactly zero is claimed, 0 for zero and inf for anything else.
    """
    if math.isnan(value):
        return math.nan
    measured, bound = (value, e.bound) if e.sense == "at most" else (e.bound, value)
    if bound == 0:
        return math.inf if measured > 0 else 0.0
    return measured / bound


def _margins(ax: Any, row: Row, labels: Sequence[str]) -> None:
    ratios = [np.array([ratio(v, e) for v in e.values]) for e in row.evidence]
    logs = [_clipped(r) for r in ratios]
    inner = np.concatenate([x[np.abs(x) < DECADES] for x in logs] + [np.zeros(1)])
    left, right = math.floor(inner.min()) - 1.0, math.ceil(inner.max()) + 1.0
    left, right = min(left, -2.0), max(right, 2.0)
    zero, infinite = left - 0.06 * (right - left), right + 0.06 * (right - left)
    middles, top = [], 0.0
    for label in labels:  # a line of text is one unit high
        height = label.count("\n") + 1.6
        middles.append(top + height / 2)
        top += height
    for y, x, e in zip(middles, logs, row.evidence, strict=True):
        spread = np.linspace(-0.35, 0.35, x.size) if x.size > 1 else np.zeros(1)
        places = np.where(x <= -DECADES, zero, np.where(x >= DECADES, infinite, x))
        good = np.isfinite(x)
        colour = CONTROL if e.kind == "control" else CLAIM
        ax.plot(places[good], (y + spread)[good], "x" if e.kind == "control" else "o", color=colour, ms=4, alpha=0.65)
        if not good.all():
            ax.text(infinite, y, "NaN", color="C3", ha="center", va="center")
        if e is not row.evidence[0]:
            ax.axhline(y - (labels[row.evidence.index(e)].count("\n") + 1.6) / 2, color="0.9", lw=0.6)
    ax.axvspan(0, infinite + 1, color=CONTROL, alpha=0.06, lw=0)
    ax.axvline(0, color="0.25", lw=1.2)
    step = max(1, math.ceil((right - left) / 9))
    ticks = [float(k) for k in range(math.ceil(left), math.floor(right) + 1) if k % step == 0]
    ax.set_xticks([zero, *ticks, infinite], ["0", *(_power(t) for t in ticks), "inf"])
    ax.set_yticks(middles, labels, fontsize=8)
    for tick, e in zip(ax.get_yticklabels(), row.evidence, strict=True):
        tick.set_color(CONTROL if e.kind == "control" else "0.1")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(zero - 0.03 * (right - left), infinite + 0.03 * (right - left)), ylim=(top, 0))
    ax.set_xlabel("measured / bound: claims (dots) are left of 1, negative controls (crosses) right of it")


def _power(exponent: float) -> str:
    return "1" if exponent == 0 else f"$10^{{{exponent:.0f}}}$"


def _clipped(r: np.ndarray) -> np.ndarray:
    """log10, kept within +- DECADES; NaN stays."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log10(r), -DECADES, DECADES)


# -- curves ---------------------------------------------------------------------------------------------


def _curves(ax: Any, curves: Sequence[Curve], groups: Sequence[str]) -> None:
    """One panel; ``groups`` are the labels of the whole picture, in the order of their colours."""
    log = curves[0].axes == "log-log"
    labelled = len({curve.label for curve in curves}) <= LEGEND
    seen: set[str] = set()
    fitted: list[float] = []
    for curve in curves:
        x, y = np.array(curve.x), np.array(curve.y)
        shown = np.isfinite(y) & ((y > 0) | (not log))
        if shown.sum() < 2:
            continue
        x, y = x[shown], y[shown]
        colour = "0.45" if curve.broken else f"C{groups.index(curve.label) % 7}"
        label = curve.label if labelled and curve.label not in seen else ""
        seen.add(curve.label)
        marker = "x" if curve.broken else "o"
        if curve.stated is None:
            ax.plot(x, y, f"{marker}-", color=colour, ms=4, lw=0.8, label=label or None)
            continue
        slope, at = _fit(x, y, log)
        fitted.append(slope)
        ends = np.array([x.min(), x.max()])
        ax.plot(x, y, marker, color=colour, ms=4)
        ax.plot(
            ends, _line(ends, slope, at, log), color=colour, lw=1.0, label=f"{label}: {slope:.3f}" if label else None
        )
        # the stated slope through the middle of the data
        ax.plot(ends, _line(ends, curve.stated, _through(x, y, curve.stated, log), log), ":", color="0.2", lw=1.1)
    ax.set_xscale("log")
    if log:
        ax.set_yscale("log")
    ax.set_xlabel(r"$\delta$")
    name = curves[0].panel + (" (broken)" if curves[0].broken else "")
    lines = textwrap.wrap(name, TITLE)
    if fitted:
        stated = [curve.stated for curve in curves if curve.stated is not None]
        lines += [f"slopes fitted: {_range(fitted)}", f"stated (dotted): {_range(stated)}"]
    ax.set_title("\n".join(lines), fontsize=8.5)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7, loc="best")


def _range(values: Sequence[float]) -> str:
    # + 0.0 turns a rounded -0 into 0
    least, most = (f"{round(v, 3) + 0.0:g}" for v in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


def _fit(x: np.ndarray, y: np.ndarray, log: bool) -> tuple[float, float]:
    """Slope and intercept of log y over log x, or of y over ln(1/x)."""
    u, v = (np.log(x), np.log(y)) if log else (-np.log(x), y)
    slope, at = np.polyfit(u, v, 1)
    return float(slope), float(at)


def _through(x: np.ndarray, y: np.ndarray, slope: float, log: bool) -> float:
    u, v = (np.log(x), np.log(y)) if log else (-np.log(x), y)
    return float(v.mean() - slope * u.mean())


def _line(x: np.ndarray, slope: float, at: float, log: bool) -> np.ndarray:
    line: np.ndarray = np.exp(slope * np.log(x) + at) if log else -slope * np.log(x) + at
    return line
