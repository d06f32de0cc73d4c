"""Plain tables of a comparison: one row a method at a goal, or every run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gfsim.compare.advice import methods_of, why_not
from gfsim.compare.measure import Run
from gfsim.compare.runner import Comparison, cheapest

HEAD = (
    "method",
    "clock",
    "setting",
    "error",
    "RHS",
    "Jac",
    "HVP",
    "LU",
    "steps",
    "h*lambda",
    "wall s",
    "CPU s",
    "compile s",
)
NOTE_WIDTH = 90


def table(result: Comparison, goal: float) -> str:
    """The cheapest run of every method with an error of at most ``goal``, best first; then those without, and why."""
    rows, others = [], []
    for runs in methods_of(result.runs):
        best = cheapest(runs, goal)
        if best is not None:
            rows.append(best)
        else:
            others.append(f"  {runs[0].id} ({runs[0].clock}): {why_not(runs, goal)}")
    rows.sort(key=lambda run: run.wall)
    lines = [title(result), f"cheapest run of each method with an error of at most {goal:g}:", ""]
    lines += grid([HEAD, *(cells(run) for run in rows)]) if rows else ["  none"]
    if others:
        lines += ["", "not there:", *others]
    if result.skipped:
        lines += ["", "not taking part:", *(f"  {text}" for text in result.skipped)]
    if result.interrupted:
        lines += ["", "interrupted: the methods that are missing were not run"]
    return "\n".join(lines)


def all_runs(result: Comparison) -> str:
    """Every run, in the order in which they were made."""
    body = [(*cells(run), run.failure) for run in result.runs]
    return "\n".join([title(result), "", *grid([(*HEAD, "failure"), *body])])


def title(result: Comparison) -> str:
    r, p = result.reference, result.problem
    where = "; ".join(f"{place.section.name} at t = {place.t:.6g}" for place in r.places)
    text = (
        f"{p.name}: {p.title}\n{p.objective!r}; times are those of the {p.convention}.\n"
        f"States compared at {where}.\n"
        f"Reference: {r.solvers[0]} against {r.solvers[1]}, which agree to {r.accuracy:.1e}."
    )
    return f"{text}\n{p.note}" if p.note else text


def cells(run: Run) -> tuple[str, ...]:
    c = run.counts
    setting = f"{run.setting:g}/lam" if run.fixed else f"{run.setting:g}"
    return (
        run.id,
        run.clock,
        setting,
        number(run.error, "{:.1e}"),
        *(str(c.get(key, 0)) if c else "-" for key in ("rhs", "jacobian", "hvp", "factorisations", "steps")),
        number(run.h_lambda[0], "{:.2g}"),
        number(run.wall, "{:.3g}"),
        number(run.cpu, "{:.3g}"),
        number(run.compile_seconds, "{:.2g}") if run.compile_seconds else "-",
    )


def number(x: float, form: str) -> str:
    return form.format(x) if math.isfinite(x) else "-"


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns: text to the left, numbers to the right; a last column called "failure" is free text."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    free = len(rows[0]) - 1 if rows[0][-1] == "failure" else len(rows[0])
    out = []
    for row in rows:
        parts = [
            text.ljust(width) if k in (0, 1) or k >= free else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.append(("  " + "  ".join(parts)).rstrip())
    return out
