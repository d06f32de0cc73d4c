"""From a folder to the sections of a page: find what gfsim's commands wrote there, and read it.

What a file is follows from its content, not from its name, so outputs of several commands may share a folder
and folders may be nested.  Files that no command wrote are listed on the page, never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gfsim.errors import InvalidInput, unreadable
from gfsim.report.folder import MEDIA, Folder, folders
from gfsim.report.readers import certificate, check, compare, figure, flow, pursuit
from gfsim.report.sections import Section

Recognises = Callable[[Any], bool]
Reads = Callable[[Folder, str, Any], Section | list[Section]]

SINGLE_FILES: tuple[tuple[Recognises, Reads], ...] = (
    (figure.recognises, figure.read),
    (check.recognises, check.read),
    (compare.recognises, compare.read),
    (certificate.recognises, certificate.read),
)

WRITERS = "reproduce, simulate, pursue, compare, check --json or --plots, certify"


@dataclass
class Content:
    """What a folder holds.

    Attributes
    ----------
    path : Path
    sections : list of Section
    others : list of str
        Files that belong to no output, as paths within the folder.
    """

    path: Path
    sections: list[Section] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def collect(path: Path, *, without: Path | None = None) -> Content:
    """Read the outputs in ``path`` and its subfolders.

    Parameters
    ----------
    without : Path, optional
        A file to pass over: the page that an earlier report wrote there.

    Raises
    ------
    InvalidInput
        For a folder that is missing, a file, or without any output, and for a broken file, which is named.
    """
    if not path.exists():
        raise InvalidInput(f"{path} does not exist; name a folder that a gfsim command has written ({WRITERS})")
    if not path.is_dir():
        raise InvalidInput(f"{path} is a file; name the folder that it is in")
    content = Content(path)
    try:
        for folder in folders(path):
            _read(folder, content, without)
    except OSError as exc:
        raise unreadable(exc.filename or path, exc, "change its mode") from None
    if not content.sections:
        seen = f"; it holds {', '.join(content.others[:5])}" if content.others else "; it is empty"
        raise InvalidInput(f"{path} holds no output of gfsim{seen}: run a command with --out {path} first ({WRITERS})")
    return content


def _read(folder: Folder, content: Content, without: Path | None) -> None:
    found: list[Section] = []
    whole: set[str] = set()
    if flow.recognises(folder):
        found.append(flow.read(folder))
        whole |= {*flow.FILES, *flow.STAGE_FILES}
    if pursuit.recognises(folder):
        found.append(pursuit.read(folder))
        whole |= {*pursuit.FILES, *(name for name in pursuit.BESIDE if name in folder.names)}
    for name in folder.names:
        if name.endswith(figure.ERROR):
            found.append(figure.read_error(folder, name))
        elif name.endswith(".json") and name not in whole:
            value = folder.json(name)
            for recognises, read in SINGLE_FILES:
                if recognises(value):
                    section = read(folder, name, value)
                    found += section if isinstance(section, list) else [section]
                    break
            else:
                folder.taken()
    used = {source.path for section in found for source in section.sources}
    found += _pictures(folder, used)
    for section in found:
        section.where = folder.where
    content.sections += found
    used |= {source.path for section in found for source in section.sources}
    belongs = {Path(path).stem for path in used} | set(COMPANIONS)
    content.others += [
        folder.spelled(name)
        for name in folder.names
        if folder.spelled(name) not in used
        and Path(name).stem not in belongs
        and not (without is not None and (folder.path / name).resolve() == without.resolve())
    ]


COMPANIONS = ("claims", "predictions", "model", "trajectory", "pursuit")
"""Files that repeat what a section shows, or hold the arrays behind it."""


def _pictures(folder: Folder, used: set[str]) -> list[Section]:
    """Pictures without a record, such as those of ``gfsim check --plots``, in one section."""
    stems = dict.fromkeys(
        Path(name).stem
        for name in folder.names
        if Path(name).suffix in MEDIA and f"{folder.where}/{Path(name).stem}".lstrip("/") not in _stems(used)
    )
    if not stems:
        return []
    section = Section(
        kind="pictures",
        title="Pictures",
        subtitle="without a record of numbers beside them, so without claims",
        pictures=[p for stem in stems for p in folder.picture(stem, caption=stem.replace("_", " "))],
    )
    section.sources = folder.taken()
    return [section]


def _stems(paths: set[str]) -> set[str]:
    return {path.rpartition(".")[0] for path in paths}
