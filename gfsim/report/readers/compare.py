"""NAME.json, NAME.txt and NAME.svg of ``gfsim compare``."""

from __future__ import annotations

import math
from typing import Any

from gfsim.report.folder import Folder
from gfsim.report.record import Record, number, versions
from gfsim.report.sections import Claim, Section, Table, Text

MOST_RUNS = 200


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and "runs" in value and "reference" in value


def read(folder: Folder, file: str, value: Any) -> Section:
    record = Record(folder, file, value)
    stem = file.removesuffix(".json")
    runs, reference = record.records("runs"), record.inner("reference")
    ended = [run for run in runs if not run.text("failure") and math.isfinite(run.number("error"))]
    whole = not record.flag("interrupted")
    claims = [
        Claim("some integrator reached the end", ">= 1 run", f"{len(ended)} of {len(runs)} runs", "gfsim compare",
              "held" if ended else "failed"),
        Claim("every run that was asked for was made", "yes", "yes" if whole else "interrupted", "gfsim compare",
              "held" if whole else "failed"),
    ]  # fmt: skip
    section = Section(
        kind="comparison",
        title=f"Integrators on {record.text('title')}",
        subtitle=record.text("label"),
        claims=claims,
        pictures=folder.picture(stem, caption="Work-precision diagrams: error against wall time and evaluations."),
        notes=[text for text in [record.text("note"), *record.texts("skipped")] if text],
        tables=[_table(runs)],
        provenance=[
            ("reference", f"{', '.join(reference.texts('solvers'))}; they agree to {_accuracy(reference)}"),
            ("convention of the loss", record.text("convention") or "does not matter here"),
            versions(record),
        ],
    )
    if f"{stem}.txt" in folder.names:
        section.texts.append(Text("Tables and advice", folder.text(f"{stem}.txt")))
    section.sources = folder.taken()
    return section


def _accuracy(reference: Record) -> str:
    accuracy = reference.value.get("accuracy")
    return number(accuracy) if isinstance(accuracy, (int, float)) else str(accuracy)


def _table(runs: list[Record]) -> Table:
    """The runs by wall time, those that failed last."""

    def wall(run: Record) -> float:
        seconds = run.number("wall")
        return math.inf if run.text("failure") or math.isnan(seconds) else seconds

    rows = [
        (
            f"{run.text('library')}:{run.text('method')}",
            run.text("clock"),
            number(run.number("setting")),
            number(run.number("error")),
            number(run.number("wall")),
            str(run.inner("counts").value.get("rhs", "")),
            run.text("failure"),
        )
        for run in sorted(runs, key=wall)
    ]
    title = "Runs, the fastest first" + (f" ({MOST_RUNS} of {len(rows)})" if len(rows) > MOST_RUNS else "")
    header = ("method", "clock", "tolerance", "error", "seconds", "velocities", "failure")
    return Table(title, header, tuple(rows[:MOST_RUNS]))
