"""NAME.json, NAME.svg and NAME.png of ``gfsim reproduce``, and NAME.error.txt of a figure that did not finish."""

from __future__ import annotations

from typing import Any, get_args

from gfsim.errors import InvalidInput
from gfsim.report import sections
from gfsim.report.folder import Folder
from gfsim.report.record import Record, command, number, versions
from paper_repro.claims import Claim, Relation, show

ERROR = ".error.txt"


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and "claims" in value and "numbers" in value


def read(folder: Folder, file: str, value: Any) -> sections.Section:
    record = Record(folder, file, value)
    name = record.text("name")
    numbers = record.inner("numbers").value
    scalars = [(key, show(entry)) for key, entry in numbers.items() if not isinstance(entry, (list, dict))]
    again = ["gfsim", "reproduce", name, "--seed", record.whole("seed")] + ["--full"] * record.flag("full")
    section = sections.Section(
        kind="figure",
        title=record.text("title"),
        subtitle=record.text("source"),
        claims=[_claim(row) for row in record.records("claims")],
        notes=record.texts("notes"),
        provenance=[
            ("made by", command(*again)),
            ("convention of the loss", record.text("convention") or "does not matter here"),
            ("seconds", number(record.number("seconds"))),
            versions(record),
        ],
    )
    if record.value.get("inputs"):
        section.provenance.append(("fingerprint of the inputs", str(record.value["inputs"])))
    section.pictures = folder.picture(file.removesuffix(".json"), caption=record.text("caption"))
    if not section.pictures:
        section.notes.insert(0, f"Its picture is missing; what it says: {record.text('caption')}")
    if scalars:
        section.tables.append(sections.Table("Single numbers", ("number", "value"), tuple(scalars)))
    section.sources = folder.taken()
    return section


def _claim(row: Record) -> sections.Claim:
    """A claim whose verdict is computed again from its numbers; a file that says otherwise is told on."""
    try:
        claim = Claim.from_json(row.value)
        if claim.relation not in get_args(Relation):
            raise ValueError(f"its relation {claim.relation!r} is none of {', '.join(get_args(Relation))}")
        holds = claim.holds
    except (InvalidInput, KeyError, TypeError, ValueError) as exc:
        raise row.wrong("", f"not a claim ({' '.join(str(exc).split())})") from None
    detail = f"computed from {', '.join(claim.of)}"
    written = row.value.get("holds")
    if written is not holds:
        says = "holds" if written is True else "does not hold" if written is False else f"is {written!r}"
        detail += f"; the file says that it {says}, its own numbers say otherwise: the file was changed"
    verdict: sections.Verdict = "held" if holds and written is True else "failed"
    return sections.Claim(claim.name, show(claim.expected), show(claim.measured), claim.source, verdict, detail)


def read_error(folder: Folder, file: str) -> sections.Section:
    name, traceback = file.removesuffix(ERROR), folder.text(file)
    last = traceback.strip().splitlines()[-1] if traceback.strip() else "no details were written"
    claim = sections.Claim(f"the figure {name} finishes", "no error", last, "gfsim reproduce", "failed")
    return sections.Section(
        kind="figure",
        title=name,
        subtitle="did not finish",
        claims=[claim],
        texts=[sections.Text("What went wrong", traceback)],
        sources=folder.taken(),
    )
