"""The table that ``gfsim check`` prints, and the record that it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from proofs_checks.statement import Context, Evidence, Row

HEADER = ("statement", "evidence", "instances", "worst margin", "control", "holds", "seconds")
EXPONENTS = ("statement", "exponent of", "stated", "fitted (worst)", "decades", "fits", "by how much")


def show_margin(margin: float) -> str:
    """``x1.02``, ``x3e+04``: the factor by which the worst instance is inside its bound."""
    if math.isinf(margin):
        return "exact"
    return f"x{margin:.3g}" if margin < 1000 else f"x{margin:.0e}"


def table(rows: Sequence[Row]) -> str:
    """One line a statement."""
    return _aligned([HEADER, *(_cells(row) for row in rows)])


def exponents(rows: Sequence[Row]) -> str:
    """One line for every kind of exponent that was fitted: what is stated, what was found; empty without any.

    Shown is the instance that comes nearest to refuting the statement.  An upper bound's exponent may be exceeded, and
    the last column says by how much; ``=`` marks those that have to be met.
    """
    lines = [
        (row.name, e.what, *_exponent_cells(e))
        for row in rows
        for e in row.evidence
        if e.exponents and e.kind != "control"
    ]
    return _aligned([EXPONENTS, *lines]) if lines else ""


def _exponent_cells(e: Evidence) -> tuple[str, ...]:
    bound = e.sense == "at least"
    worst = min(e.exponents, key=lambda x: x.excess) if bound else max(e.exponents, key=lambda x: x.distance)
    fit = worst.fit
    found = "zero throughout" if math.isinf(fit.slope) else f"{fit.slope:.4f} +- {fit.error:.0e}"
    return (
        f"{'>=' if bound else '='} {worst.stated:.4g}",
        found,
        f"{fit.decades:.2g}",
        str(len(e.exponents)),
        f"x{fit.slope / worst.stated:.3g}" if bound else f"off by {abs(fit.slope - worst.stated):.1e}",
    )


def _aligned(cells: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    kinds = [
        f"{len(found)} {kind}"
        for kind in ("symbolic", "numerical")
        if (found := [e for e in row.evidence if e.kind == kind])
    ]
    tightest = row.tightest
    controls = row.of_kind("control")
    if not controls:
        control = "" if row.skipped else "NONE"
    else:
        worst = min(controls, key=lambda e: e.margin)
        # where exactly zero is claimed, by how much the control misses it is no factor
        factor = "" if math.isinf(worst.margin) else f" {show_margin(worst.margin)}"
        control = f"fails{factor}" if row.control_failed else "DOES NOT FAIL"
    return (
        row.name,
        " + ".join(kinds) or "none",
        str(sum(e.instances for e in row.evidence)),
        "" if tightest is None else show_margin(tightest.margin),
        control,
        "ERROR" if row.error else "skipped" if row.skipped else "yes" if row.holds else "NO",
        f"{row.seconds:.1f}",
    )


def problems(rows: Sequence[Row]) -> str:
    """One paragraph for every piece of evidence that is not as it should be; empty when all is well."""
    out = []
    for row in rows:
        if row.error:
            out.append(f"{row.name}: in error: {row.error}")
        if row.skipped:
            out.append(f"{row.name}: SKIPPED, not checked: {row.skipped}")
        out += [f"{row.name}: {_sentence(e)}" for e in row.evidence if not e.as_it_should]
    return "\n".join(out)


def details(rows: Sequence[Row]) -> str:
    """Every piece of evidence of every row, with its bound and the reason for it."""
    out = []
    for row in rows:
        out.append(f"{row.name}: {row.title} ({row.source})")
        out += [f"  [{e.kind}] {_sentence(e)}" for e in row.evidence]
        out += [f"  [note] {text}" for text in row.notes]
    return "\n".join(out)


def _sentence(e: Evidence) -> str:
    verdict = "as it should be" if e.as_it_should else "NOT AS IT SHOULD BE"
    if e.kind == "control":
        return (
            f"{e.what}: {e.measured:.3g} where the claim is {e.sense} {e.bound:.3g} "
            f"({e.instances}; broken: {e.why}): {verdict}"
        )
    return f"{e.what}: {e.measured:.3g}, {e.sense} {e.bound:.3g} ({e.instances}; {e.why}): {verdict}"


def notes(rows: Sequence[Row]) -> str:
    """What the checks measured beside their claims, one line each; empty without any."""
    return "\n".join(f"{row.name}: {text}" for row in rows for text in row.notes)


def verdict(rows: Sequence[Row]) -> str:
    """One sentence on the whole run."""
    held = sum(row.holds for row in rows)
    total = sum(row.seconds for row in rows)
    wrong = [row.name for row in rows if not row.holds and not row.skipped]
    skipped = [row.name for row in rows if row.skipped]
    tail = f"; not: {', '.join(wrong)}" if wrong else ""
    tail += f"; skipped: {', '.join(skipped)}" if skipped else ""
    return f"{held} of {len(rows)} statements hold{tail} ({total:.0f} s)"


def record(rows: Sequence[Row], context: Context) -> dict[str, Any]:
    """Everything that was measured, for a JSON file."""
    return {
        "seed": context.seed,
        "full": context.full,
        "holds": all(row.holds for row in rows),
        "statements": [
            {
                "name": row.name,
                "title": row.title,
                "source": row.source,
                "holds": row.holds,
                "seconds": round(row.seconds, 2),
                "error": row.error,
                "skipped": row.skipped,
                "notes": list(row.notes),
                "evidence": [
                    {
                        "kind": e.kind,
                        "what": e.what,
                        "measured": e.measured,
                        "sense": e.sense,
                        "bound": e.bound,
                        "margin": e.margin,
                        "instances": e.instances,
                        "values": e.values,
                        "why": e.why,
                        "as_it_should": e.as_it_should,
                        "exponents": [
                            {
                                "stated": x.stated,
                                "fitted": x.fit.slope,
                                "standard_error": x.fit.error,
                                "constant": x.fit.constant,
                                "decades": x.fit.decades,
                            }
                            for x in e.exponents
                        ],
                    }
                    for e in row.evidence
                ],
                "curves": row.curves,
            }
            for row in rows
        ],
    }
