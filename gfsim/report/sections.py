"""What a page is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gfsim.jsonable import Json

Verdict = Literal["held", "failed", "unchecked"]
"""``unchecked``: the check could not be made here; the claim's detail says what it needs."""


@dataclass(frozen=True)
class Claim:
    """One row of a table of claims; everything is text as it will be read.

    ``basis`` is where the bound comes from, ``detail`` what else belongs to it.
    """

    name: str
    expected: str
    measured: str
    basis: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with its media type, such as ``image/svg+xml``, and the file it is from."""

    file: str
    media: str
    content: bytes = field(repr=False)
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Text:
    """Text that keeps its line breaks: a request, a log, a table in plain characters."""

    title: str
    body: str


@dataclass(frozen=True)
class Source:
    """A file that was read: its path within the folder, its size and its SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class View:
    """A trajectory to walk through: what the script is given (:mod:`gfsim.report.trajectory` says what that is)."""

    data: dict[str, Json] = field(repr=False)


@dataclass
class Section:
    """One output: a figure, a flow, a pursuit, a comparison, a check, a certificate.

    Attributes
    ----------
    kind : str
        In words: "figure", "flow", ...
    title, subtitle : str
    where : str
        The subfolder it is from; empty for the folder that the page is about.
    claims : list of Claim
    pictures : list of Picture
    notes : list of str
    tables, texts : lists
    view : View or None
        The trajectory to walk through.
    provenance : list of (str, str)
        Seed, versions, the command that makes it again.
    sources : list of Source
    """

    kind: str
    title: str
    subtitle: str = ""
    where: str = ""
    claims: list[Claim] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    view: View | None = None
    provenance: list[tuple[str, str]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
