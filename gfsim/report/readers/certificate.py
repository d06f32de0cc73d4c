"""A certificate of ``gfsim certify``, verified again where python-flint is installed."""

from __future__ import annotations

from typing import Any

from gfsim.errors import CertificateRefused, MissingExtra
from gfsim.report.folder import Folder
from gfsim.report.record import Record, command
from gfsim.report.sections import Claim, Section

FORMAT = "gfsim certificate"
BASIS = "proved in ball arithmetic, checked again for this page"


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and str(value.get("format", "")).startswith(FORMAT)


def read(folder: Folder, file: str, value: Any) -> Section:
    record = Record(folder, file, value)
    problem = record.inner("problem")
    of = "a sparse saddle" if record.value.get("saddle") else "KKT points at the origin"
    widths = "-".join(str(width) for width in problem.value.get("widths", []))
    return Section(
        kind="certificate",
        title=f"{file.removesuffix('.json')}: certificate of {of}",
        subtitle=f"{widths or problem.text('kind')} {problem.value.get('loss', '')} loss".strip(),
        claims=_claims(value, file),
        provenance=[
            ("checked by", command("gfsim", "verify", file)),
            ("format", record.text("format")),
            ("precision", f"{record.whole('precision')} bits"),
            ("sha256 of its content", record.text("sha256")),
        ],
        sources=folder.taken(),
    )


def _claims(value: Any, file: str) -> list[Claim]:
    try:
        from gfsim.rigor.verify import verify

        report = verify(value)
    except MissingExtra as exc:
        return [Claim(f"{file} is accepted by the checker", "accepted", "not checked", str(exc), "unchecked")]
    except CertificateRefused as exc:
        return [Claim(f"{file} is accepted by the checker", "accepted", f"refused: {exc}", BASIS, "failed")]
    return [Claim(sentence, "proved", "proved", BASIS, "held") for sentence in report.sentences]
