"""Run figures one after the other, keep what is finished, and say what is not.

A figure that is complete in the output folder and whose inputs have not changed (:mod:`paper_repro.inputs`) is not
run again, so a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gfsim.errors import GfsimError, OutputError
from gfsim.interrupt import Stop, interruptible
from gfsim.jsonable import Json, dumps
from gfsim.output import OutputDirectory, rendered
from gfsim.provenance import versions
from paper_repro.claims import Claim, check_basis
from paper_repro.figure import Context, Outcome, mark_failures, styled
from paper_repro.inputs import fingerprint
from paper_repro.progress import Progress
from paper_repro.registry import Entry

DPI = 200

PICTURES = ("png", "svg", "gif")
"""Endings of the files that a figure may have beside its JSON; a GIF only if it is animated."""

State = Literal["complete", "error", "missing"]


@dataclass
class Report:
    """What became of one figure.

    Attributes
    ----------
    state : ``"complete"``, ``"error"`` (its traceback is in NAME.error.txt) or ``"missing"`` (the run was
        interrupted before it ended)
    claims : list of Claim
        Empty unless complete.
    seed, full
        What it was run with.
    seconds : float
    problem : str
        One line: what went wrong, for a figure in error; for a missing one, what its files are if there are any.
    notes : sequence of str
        What the figure has to say beyond its claims.
    caption : str
        The full set-up; empty unless complete.
    inputs : str
        Fingerprint of what it was computed from; empty if that is not known.
    unchanged : bool
        Whether it was found complete, with the same inputs, and not run again.
    """

    entry: Entry
    seed: int
    full: bool
    state: State = "missing"
    claims: list[Claim] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""
    notes: Sequence[str] = ()
    caption: str = ""
    inputs: str = ""
    unchanged: bool = False

    @property
    def ok(self) -> bool:
        return self.state == "complete" and all(claim.holds for claim in self.claims)


@dataclass
class Summary:
    """What became of a run: one report a figure, in order."""

    reports: list[Report]
    seed: int
    full: bool
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything ran and every claim held."""
        return not self.interrupted and all(report.ok for report in self.reports)

    @property
    def exit_code(self) -> int:
        return 130 if self.interrupted else 0 if self.ok else 1


def run_figures(
    entries: Sequence[Entry],
    out: OutputDirectory,
    *,
    seed: int = 0,
    full: bool = False,
    data: Path | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Run the figures and write NAME.png, NAME.svg, NAME.json (and NAME.gif if it is animated) for each into ``out``.

    An exception loses one figure; Ctrl-C ends the run and keeps the figures that are complete.

    Parameters
    ----------
    data : Path, optional
        The user's folder of data sets, for the figures that take one.
    again : bool
        Run figures even if nothing that they are computed from has changed.
    """
    shown = Progress(len(entries)) if progress is None else progress
    summary = Summary([Report(entry, seed, full) for entry in entries], seed, full)
    for report in summary.reports:
        _clear_incomplete(out, report.entry.name)
    with interruptible() as stop:
        shown.expect([_look_back(report, out, data, again) for report in summary.reports])
        for number, report in enumerate(summary.reports, start=1):
            if report.unchanged:
                shown.skip(number, report.entry.name, f"unchanged: {_held(report)}")
                continue
            shown.start(number, report.entry.name)
            began = time.perf_counter()
            try:
                _run_one(
                    report, out, Context(report.entry.name, seed, full, shown.note, stop.is_set, data), stop, began
                )
            except KeyboardInterrupt:
                shown.finish("interrupted")
                break
            except Exception as exc:
                if stop.is_set():
                    # a solver turned Ctrl-C into a result of its own, and the figure stumbled over it
                    shown.finish("interrupted")
                    break
                report.seconds = time.perf_counter() - began
                with stop.held():
                    _record_error(report, out, exc)
                shown.finish("ERROR")
            else:
                shown.finish(_held(report))
            if stop.is_set():  # asked for while files were being written
                break
    for report in summary.reports:
        if report.state == "missing":
            summary.interrupted = True
            if earlier_report(report.entry, out) is not None:
                report.problem = "the files there are those of an earlier run"
    return summary


def _look_back(report: Report, out: OutputDirectory, data: Path | None, again: bool) -> float | None:
    """Take over an earlier run of the same inputs; else how long the last one of this form took, if there is one."""
    # a module that cannot even be read is an error of that figure, which running it will show
    with contextlib.suppress(OSError, SyntaxError, GfsimError):
        report.inputs = fingerprint(report.entry.module, seed=report.seed, full=report.full, data=data)
    earlier = earlier_report(report.entry, out)
    if earlier is None:
        return None
    pictures = [out / f"{report.entry.name}.{kind}" for kind in ("png", "svg")]
    if not again and report.inputs and earlier.inputs == report.inputs and all(map(os.path.isfile, pictures)):
        report.state, report.claims, report.unchanged = "complete", earlier.claims, True
        report.seconds, report.notes, report.caption = earlier.seconds, earlier.notes, earlier.caption
        return 0.0
    return earlier.seconds if earlier.full == report.full else None


def _held(report: Report) -> str:
    return f"{sum(claim.holds for claim in report.claims)} of {len(report.claims)} claims hold"


def _run_one(report: Report, out: OutputDirectory, ctx: Context, stop: Stop, began: float) -> None:
    entry = report.entry
    with styled():
        outcome = entry.load()(ctx)
        if stop.is_set():
            # a solver that turns Ctrl-C into a result of its own hands back a figure of half a run
            raise KeyboardInterrupt
        claims = list(outcome.claims)
        check_basis(claims, outcome.numbers)
        ctx.note("drawing")
        mark_failures(outcome.figure, claims)
        pictures = _pictures(outcome)
    seconds = time.perf_counter() - began
    record = figure_record(entry, outcome, claims, ctx, inputs=report.inputs, seconds=seconds)
    name = entry.name
    with stop.held():
        # the JSON file comes last: where it is, the figure is complete
        files = {f"{name}.{kind}": content for kind, content in pictures.items()}
        out.write(files | {f"{name}.json": dumps(record).encode()})
        out.remove(f"{name}.error.txt", *(f"{name}.{kind}" for kind in PICTURES if kind not in pictures))
        report.state, report.claims, report.seconds = "complete", claims, seconds
        report.notes, report.caption = outcome.notes, outcome.caption


def earlier_report(entry: Entry, out: OutputDirectory) -> Report | None:
    """The report of a figure that an earlier run left complete in ``out``; None where there is none."""
    try:
        with open(out / f"{entry.name}.json", encoding="utf-8") as handle:
            record = json.load(handle)
        return Report(
            entry,
            seed=int(record["seed"]),
            full=bool(record["full"]),
            state="complete",
            claims=[Claim.from_json(claim) for claim in record["claims"]],
            seconds=float(record["seconds"]),
            notes=[str(note) for note in record["notes"]],
            caption=str(record["caption"]),
            inputs=str(record.get("inputs", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or written by something else


def figure_record(
    entry: Entry, outcome: Outcome, claims: Sequence[Claim], ctx: Context, *, inputs: str, seconds: float
) -> dict[str, Any]:
    """What NAME.json holds."""
    claim_rows: list[Json] = [claim.to_json() for claim in claims]
    return {
        "name": entry.name,
        "title": entry.title,
        "source": entry.source,
        "caption": outcome.caption,
        "convention": outcome.convention,
        "files": [f"{entry.name}.{kind}" for kind in PICTURES if kind != "gif" or outcome.animation is not None],
        "full": ctx.full,
        "seed": ctx.seed,
        "inputs": inputs,
        "claims": claim_rows,
        "notes": list(outcome.notes),
        "versions": versions(),
        "seconds": round(seconds, 3),
        "numbers": dict(outcome.numbers),
    }


def _pictures(outcome: Outcome) -> dict[str, bytes]:
    # without a date, and with the style's hash salt, equal figures are equal files
    pictures = {
        "png": rendered(lambda f: outcome.figure.savefig(f, format="png", dpi=DPI)),
        "svg": rendered(lambda f: outcome.figure.savefig(f, format="svg", metadata={"Date": None})),
    }
    return pictures if outcome.animation is None else pictures | {"gif": outcome.animation}


def _record_error(report: Report, out: OutputDirectory, exc: Exception) -> None:
    name = report.entry.name
    report.state = "error"
    report.problem = f"{type(exc).__name__}: {' '.join(str(exc).split())}"
    if isinstance(exc, GfsimError):
        report.problem = " ".join(str(exc).split())
    with contextlib.suppress(OutputError):  # a full disk may be what went wrong
        # the files of an earlier run must not pass for this one's
        out.remove(f"{name}.json", *(f"{name}.{kind}" for kind in PICTURES))
        out.write_text(f"{name}.error.txt", "".join(traceback.format_exception(exc)))


def _clear_incomplete(out: OutputDirectory, name: str) -> None:
    """Remove pictures without a readable JSON file: a run was cut off between the two."""
    try:
        with open(out / f"{name}.json", encoding="utf-8") as handle:
            json.load(handle)
    except FileNotFoundError:
        out.remove(*(f"{name}.{kind}" for kind in PICTURES))
    except (ValueError, OSError):
        out.remove(f"{name}.json", *(f"{name}.{kind}" for kind in PICTURES))
