"""Run figures, keep what is finished, and say what is not.

Figures run one after the other, or several at a time in processes of their own (:mod:`paper_repro.workers`).

A figure that is complete in the output folder and whose inputs have not changed (:mod:`paper_repro.inputs`) is not
run again, so a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gfsim.errors import GfsimError, InvalidInput, OutputError
from gfsim.interrupt import Stop, interruptible
from gfsim.jsonable import Json, dumps
from gfsim.output import OutputDirectory, rendered
from gfsim.provenance import versions
from paper_repro.claims import Claim, check_basis
from paper_repro.figure import Context, Outcome, mark_failures, styled
from paper_repro.inputs import fingerprint
from paper_repro.progress import Progress
from paper_repro.registry import Entry
from paper_repro.workers import Ended, Lost, Noted, Started, work

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
    jobs: int = 1,
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
    jobs : int
        How many figures may run at a time: with more than one, in spawned processes (a script that calls this must
        then guard its main part by ``if __name__ == "__main__"``), the longest first.  The files are the same.
    """
    if jobs < 1:
        raise InvalidInput(f"jobs = {jobs}: at least one figure must run at a time; give a whole number >= 1")
    shown = Progress(len(entries)) if progress is None else progress
    summary = Summary([Report(entry, seed, full) for entry in entries], seed, full)
    for report in summary.reports:
        _clear_incomplete(out, report.entry.name)
    with interruptible() as stop:
        took = {report.entry.name: _look_back(report, out, data, again) for report in summary.reports}
        ahead = [report for report in summary.reports if not report.unchanged]
        jobs = max(1, min(jobs, len(ahead)))
        shown.expect({report.entry.name: took[report.entry.name] for report in ahead}, jobs)
        if jobs == 1:
            _run_in_turn(summary.reports, out, data, stop, shown)
        else:
            for report in summary.reports:
                if report.unchanged:
                    _say_unchanged(report, shown)
            # the longest first, so that none of them is left to run alone at the end
            ahead.sort(key=lambda report: took[report.entry.name] or report.entry.seconds, reverse=True)
            _run_apart(ahead, out, data, jobs, stop, shown)
    for report in summary.reports:
        if report.state == "missing":
            summary.interrupted = True
            if earlier_report(report.entry, out) is not None:
                report.problem = "the files there are those of an earlier run"
    return summary


def _run_in_turn(
    reports: Sequence[Report], out: OutputDirectory, data: Path | None, stop: Stop, shown: Progress
) -> None:
    """Run the figures one after the other in this process, until the user asks to stop."""
    for report in reports:
        name = report.entry.name
        if report.unchanged:
            _say_unchanged(report, shown)
            continue
        shown.start(name)
        ctx = Context(name, report.seed, report.full, partial(shown.note, name), stop.is_set, data)
        try:
            made = _made(report.entry, ctx, report.inputs)
            if isinstance(made, Failed) and stop.is_set():
                # a solver turned Ctrl-C into a result of its own, and the figure stumbled over it
                raise KeyboardInterrupt
            with stop.held():
                _keep(report, made, out)
                shown.finish(name, _outcome(report))
        except KeyboardInterrupt:
            if report.state == "missing":
                shown.finish(name, "interrupted")
        if stop.is_set() or report.state == "missing":
            return


def _run_apart(
    reports: Sequence[Report], out: OutputDirectory, data: Path | None, jobs: int, stop: Stop, shown: Progress
) -> None:
    """Run the figures in ``jobs`` processes, until the user asks to stop; files are written by this process alone."""
    tasks = [_Task(report.entry, report.seed, report.full, report.inputs, data) for report in reports]
    running: list[str] = []
    with stop.held(), contextlib.closing(work(_made_apart, tasks, jobs)) as events:
        for event in events:
            if event is not None:
                report = reports[event.number]
                name = report.entry.name
            match event:
                case Started():
                    shown.start(name)
                    running.append(name)
                case Noted(text=text):
                    shown.note(name, text)
                case Ended() | Lost():
                    _keep(report, event.result if isinstance(event, Ended) else _lost(name, event.how), out)
                    shown.finish(name, _outcome(report))
                    running.remove(name)
            if stop.is_set():
                break
    for name in running:
        shown.finish(name, "interrupted")


def _look_back(report: Report, out: OutputDirectory, data: Path | None, again: bool) -> float | None:
    """Take over an earlier run of the same inputs; else how long it will take, by the last run of this form.

    Without one, what the registry says of the quick form, and None for the full one.
    """
    rough = None if report.full else report.entry.seconds
    # a module that cannot even be read is an error of that figure, which running it will show
    with contextlib.suppress(OSError, SyntaxError, GfsimError):
        report.inputs = fingerprint(report.entry.module, seed=report.seed, full=report.full, data=data)
    earlier = earlier_report(report.entry, out)
    if earlier is None:
        return rough
    pictures = [out / f"{report.entry.name}.{kind}" for kind in ("png", "svg")]
    if not again and report.inputs and earlier.inputs == report.inputs and all(map(os.path.isfile, pictures)):
        report.state, report.claims, report.unchanged = "complete", earlier.claims, True
        report.seconds, report.notes, report.caption = earlier.seconds, earlier.notes, earlier.caption
        return None
    return earlier.seconds if earlier.full == report.full else rough


def _say_unchanged(report: Report, shown: Progress) -> None:
    shown.skip(report.entry.name, f"unchanged: {_outcome(report)}")


def _outcome(report: Report) -> str:
    if report.state == "error":
        return "ERROR"
    return f"{sum(claim.holds for claim in report.claims)} of {len(report.claims)} claims hold"


@dataclass(frozen=True)
class Made:
    """A figure that came out: its files by name, the JSON file last, and what its report says."""

    files: dict[str, bytes]
    claims: list[Claim]
    seconds: float
    notes: Sequence[str]
    caption: str


@dataclass(frozen=True)
class Failed:
    """A figure that did not: the problem in one line, and all of it for NAME.error.txt."""

    problem: str
    details: str
    seconds: float = 0.0


@dataclass(frozen=True)
class _Task:
    """A figure to be made in another process."""

    entry: Entry
    seed: int
    full: bool
    inputs: str
    data: Path | None


def _made_apart(task: _Task, note: Callable[[str], None]) -> Made | Failed:
    ctx = Context(task.entry.name, task.seed, task.full, note, data_folder=task.data)
    return _made(task.entry, ctx, task.inputs)


def _made(entry: Entry, ctx: Context, inputs: str) -> Made | Failed:
    """Run one figure and render its files, none of which is written here."""
    began = time.perf_counter()
    try:
        with styled():
            outcome = entry.load()(ctx)
            # raises if a solver turned Ctrl-C into a result of its own and handed back a figure of half a run
            ctx.note("drawing")
            claims = list(outcome.claims)
            check_basis(claims, outcome.numbers)
            mark_failures(outcome.figure, claims)
            pictures = _pictures(outcome)
        seconds = time.perf_counter() - began
        record = figure_record(entry, outcome, claims, ctx, inputs=inputs, seconds=seconds)
        files = {f"{entry.name}.{kind}": content for kind, content in pictures.items()}
        # the JSON file comes last: where it is, the figure is complete
        files |= {f"{entry.name}.json": dumps(record).encode()}
        return Made(files, claims, seconds, outcome.notes, outcome.caption)
    except Exception as exc:
        return _failed(exc, time.perf_counter() - began)


def _failed(exc: Exception, seconds: float) -> Failed:
    text = " ".join(str(exc).split())
    problem = text if isinstance(exc, GfsimError) else f"{type(exc).__name__}: {text}"
    return Failed(problem, "".join(traceback.format_exception(exc)), seconds)


def _lost(name: str, how: str) -> Failed:
    """A figure whose process died."""
    problem = (
        f"the process that ran it {how}; if memory ran out, gfsim reproduce {name} --jobs 1 has more of it, "
        "and otherwise shows what happens"
    )
    return Failed(problem, problem + "\n")


def _keep(report: Report, made: Made | Failed, out: OutputDirectory) -> None:
    """Write what came out, and report it."""
    name = report.entry.name
    if isinstance(made, Made):
        try:
            out.write(made.files)
            out.remove(
                f"{name}.error.txt", *(f"{name}.{kind}" for kind in PICTURES if f"{name}.{kind}" not in made.files)
            )
        except OutputError as exc:
            made = _failed(exc, made.seconds)
    report.seconds = made.seconds
    if isinstance(made, Made):
        report.state, report.claims = "complete", made.claims
        report.notes, report.caption = made.notes, made.caption
        return
    report.state, report.problem = "error", made.problem
    with contextlib.suppress(OutputError):  # a full disk may be what went wrong
        # the files of an earlier run must not pass for this one's
        out.remove(f"{name}.json", *(f"{name}.{kind}" for kind in PICTURES))
        out.write_text(f"{name}.error.txt", made.details)


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
        "svg": _named_in_order(rendered(lambda f: outcome.figure.savefig(f, format="svg", metadata={"Date": None}))),
    }
    return pictures if outcome.animation is None else pictures | {"gif": outcome.animation}


def _named_in_order(svg: bytes) -> bytes:
    """With clip paths by number: matplotlib names them by their last digits, or by their address in memory."""
    for number, name in enumerate(re.findall(rb'<clipPath id="(p[0-9a-f]{10})">', svg)):
        svg = svg.replace(name, b"clip%d" % number)
    return svg


def _clear_incomplete(out: OutputDirectory, name: str) -> None:
    """Remove pictures without a readable JSON file: a run was cut off between the two."""
    try:
        with open(out / f"{name}.json", encoding="utf-8") as handle:
            json.load(handle)
    except FileNotFoundError:
        out.remove(*(f"{name}.{kind}" for kind in PICTURES))
    except (ValueError, OSError):
        out.remove(f"{name}.json", *(f"{name}.{kind}" for kind in PICTURES))
