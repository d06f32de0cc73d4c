"""The file of ``gfsim check --json FILE`` and the pictures of ``--plots DIR`` beside it: a section a statement."""

from __future__ import annotations

from typing import Any

from gfsim.report.folder import Folder
from gfsim.report.record import Record, command, number
from gfsim.report.sections import Claim, Section, Source, Table, Verdict

BASIS = {"symbolic": "by symbols", "numerical": "random instances", "control": "negative control"}


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and "statements" in value and "holds" in value


def read(folder: Folder, file: str, value: Any) -> list[Section]:
    record = Record(folder, file, value)
    seed, full = record.whole("seed"), record.flag("full")
    shared = folder.taken()
    out = [_statement(folder, row, seed, full, shared) for row in record.records("statements")]
    missing = [str(name) for name in record.value.get("missing", [])]
    if missing:
        claim = Claim("every statement that was asked for was checked", "all", "interrupted", "gfsim check", "failed")
        out.append(
            Section("check", "Not checked", claims=[claim], notes=[f"Interrupted before: {', '.join(missing)}."])
        )
    return out


def _statement(folder: Folder, row: Record, seed: int, full: bool, shared: list[Source]) -> Section:
    name = row.text("name")
    section = Section(
        kind="check",
        title=row.text("title"),
        subtitle=row.text("source"),
        claims=[_claim(evidence) for evidence in row.records("evidence")],
        pictures=folder.picture(name, caption=f"Every instance of the check {name!r} beside its bound."),
        notes=row.texts("notes"),
        provenance=[
            ("made by", command("gfsim", "check", name, "--seed", seed, *["--full"] * full)),
            ("seconds", number(row.number("seconds"))),
        ],
    )
    for key, verdict in (("error", "failed"), ("skipped", "unchecked")):
        problem = row.value.get(key)
        if problem:
            section.claims.append(
                Claim("the check was carried out", "yes", str(problem), "gfsim check", _known(verdict))
            )
    fits = [
        (evidence.text("what"), *(number(fit.number(key)) for key in ("stated", "fitted", "standard_error", "decades")))
        for evidence in row.records("evidence")
        for fit in evidence.records("exponents")
    ]
    if fits:
        header = ("exponent of", "stated", "fitted", "standard error", "decades")
        section.tables.append(Table("Fitted exponents", header, tuple(fits)))
    section.sources = shared + folder.taken()
    return section


def _known(verdict: str) -> Verdict:
    return "failed" if verdict == "failed" else "unchecked"


def _claim(row: Record) -> Claim:
    kind, sense = row.text("kind"), row.text("sense")
    measured, bound = row.number("measured"), row.number("bound")
    if kind not in BASIS or sense not in ("at most", "at least"):
        raise row.wrong("kind", f"{kind!r} with the sense {sense!r} is no evidence that gfsim check writes")
    met = measured <= bound if sense == "at most" else measured >= bound
    # a control must break the bound, by a number
    right = (not met and measured == measured) if kind == "control" else met
    expected = f"not {sense} {number(bound)}" if kind == "control" else f"{sense} {number(bound)}"
    detail = f"{BASIS[kind]}, worst of {row.whole('instances')}"
    if row.value.get("as_it_should") is not right:
        right, detail = False, f"{detail}; the file says otherwise than its own numbers: it was changed"
    name = f"control, must fail: {row.text('what')}" if kind == "control" else row.text("what")
    return Claim(name, expected, number(measured), row.text("why"), "held" if right else "failed", detail)
