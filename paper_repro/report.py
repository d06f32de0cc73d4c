"""The table of claims, for a terminal and as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from paper_repro.claims import show
from paper_repro.runner import Report, Summary

WIDTHS = {"claim": 56, "expected": 26, "measured": 26, "holds": 7}
"""Columns of the plain table, 121 characters with the gaps; longer cells are wrapped, never cut."""


def plain_table(summary: Summary) -> str:
    """The claims in aligned columns, under the name of each figure."""
    lines = [_line(list(WIDTHS)), _line(["-" * width for width in WIDTHS.values()])]
    for report in summary.reports:
        seconds = f", {report.seconds:.1f} s" if report.seconds else ""
        seconds = ", unchanged" if report.unchanged else seconds
        lines.append(f"{report.entry.name}: {report.entry.title}{seconds}")
        lines += [line for row in _rows(report) for line in _wrapped(row)]
        if report.state == "error":
            lines += textwrap.wrap(report.problem, 110, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


def markdown(summary: Summary, earlier: Sequence[Report] = ()) -> str:
    """``claims.md``: how the run went, then a table for each of its figures and for those of ``earlier`` runs."""
    lines = ["# Claims", "", verdict(summary)]
    for report in summary.reports:
        lines += _section(report)
    for report in earlier:
        lines += [*_section(report), "", "From an earlier run."]
    return "\n".join(lines) + "\n"


def _section(report: Report) -> list[str]:
    entry = report.entry
    lines = ["", f"## {entry.name}: {entry.title}", "", f"{entry.source}.", ""]
    if report.state == "missing":
        kept = f"; {report.problem}" if report.problem else ""
        return [*lines, f"**Missing**: the run was interrupted before this figure was complete{kept}."]
    if report.state == "error":
        return [*lines, f"**Error**: {_cell(report.problem)} The traceback is in `{entry.name}.error.txt`."]
    lines += [f"![{entry.title}]({entry.name}.png)", "", _paragraph(report.caption), ""]
    lines += ["| claim | expected | measured | from | holds |", "|---|---|---|---|---|"]
    lines += [
        f"| {_cell(c.name)} | {_cell(show(c.expected))} | {_cell(show(c.measured, digits=c.digits))} "
        f"| {_cell(c.source)} | {'yes' if c.holds else '**NO**'} |"
        for c in report.claims
    ]
    if report.notes:
        lines += ["", *(f"- {note}" for note in report.notes)]
    form = "full" if report.full else "quick"
    return [
        *lines,
        "",
        f"Seed {report.seed}, {form} form, {report.seconds:.1f} s; every number is in `{entry.name}.json`.",
    ]


def verdict(summary: Summary) -> str:
    """One sentence on the whole run."""
    reports = summary.reports
    claims = [claim for report in reports for claim in report.claims]
    held = sum(claim.holds for claim in claims)
    parts = [f"{held} of {len(claims)} claims hold"]
    errors = [r.entry.name for r in reports if r.state == "error"]
    if errors:
        parts.append(f"in error: {', '.join(errors)}")
    if summary.interrupted:
        complete = [r.entry.name for r in reports if r.state == "complete"]
        missing = [r.entry.name for r in reports if r.state == "missing"]
        parts.append(f"interrupted: complete are {', '.join(complete) or 'none'}; missing are {', '.join(missing)}")
    return "; ".join(parts) + "."


def _rows(report: Report) -> Iterator[tuple[str, str, str, str]]:
    if report.state == "error":
        yield f"did not finish: see {report.entry.name}.error.txt", "", "", "ERROR"
    elif report.state == "missing":
        kept = f" ({report.problem})" if report.problem else ""
        yield f"interrupted before it was complete{kept}", "", "", "MISSING"
    for claim in report.claims:
        yield (
            claim.name,
            show(claim.expected),
            show(claim.measured, digits=claim.digits),
            "yes" if claim.holds else "NO",
        )


def _wrapped(row: tuple[str, ...]) -> list[str]:
    # the claim is indented under its figure
    cells = [
        textwrap.wrap(text, width - (2 if column == "claim" else 0)) or [""]
        for text, (column, width) in zip(row, WIDTHS.items(), strict=True)
    ]
    cells[0] = [f"  {piece}" for piece in cells[0]]
    return [_line(pieces) for pieces in zip_longest(*cells, fillvalue="")]


def _line(cells: Sequence[str]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(cells, WIDTHS.values(), strict=True)).rstrip()


def _paragraph(text: str) -> str:
    """Text that Markdown shows as it is: no emphasis, no tags, no table."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text.replace("\n", " "))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
