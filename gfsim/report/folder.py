"""The files of an output folder, read with errors that name the file, the rule and the remedy."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gfsim.errors import InvalidInput, unreadable
from gfsim.report.sections import Picture, Source

DEPTH = 3
"""Levels of subfolders that are looked through."""

LARGEST_SVG = 400_000
"""Bytes above which another form of a picture is taken, if there is one."""

MOVING = (".gif", ".webp")
MEDIA = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}


class Folder:
    """One folder of outputs below the root of a report, with a record of what was read.

    Attributes
    ----------
    root, path : Path
    names : list of str
        Its files, hidden and half-written ones left out.
    sources : list of Source
        Of every file read so far, in order.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path = root, path
        self.names = sorted(p.name for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        self.sources: list[Source] = []

    @property
    def where(self) -> str:
        """The folder as seen from the root; empty for the root itself."""
        return "" if self.path == self.root else self.path.relative_to(self.root).as_posix()

    def spelled(self, name: str) -> str:
        """A file as seen from the root."""
        return f"{self.where}/{name}".lstrip("/")

    def read(self, name: str) -> bytes:
        path = self.path / name
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise unreadable(path, exc, "change its mode") from None
        self.sources.append(Source(self.spelled(name), len(content), hashlib.sha256(content).hexdigest()))
        return content

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.read(name).decode("utf-8"))
        except (ValueError, RecursionError) as exc:
            raise InvalidInput(
                f"{self.path / name} is not valid JSON ({exc}); a report is made of files as gfsim wrote them: run the "
                "command that made it again, or move the file away"
            ) from None

    def text(self, name: str) -> str:
        return self.read(name).decode("utf-8", errors="replace")

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        content = io.BytesIO(self.read(name))
        try:
            with np.load(content, allow_pickle=False) as saved:
                return {key: saved[key] for key in saved.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, AttributeError) as exc:
            raise InvalidInput(
                f"{self.path / name} is not a .npz of plain arrays ({exc}); run the command that made it again"
            ) from None

    def picture(self, *stems: str, caption: str = "") -> list[Picture]:
        """The picture of each stem that has one, in vector form if that is not too large; then its animation."""
        found = []
        for stem in stems:
            names = [stem + suffix for suffix in MEDIA if stem + suffix in self.names]
            still = [name for name in names if Path(name).suffix not in MOVING]
            moving = [name for name in names if Path(name).suffix in MOVING]
            if still:
                name = min(still, key=lambda n: (self.path / n).stat().st_size > LARGEST_SVG)
                found.append(self._read_picture(name, caption))
            if moving:
                found.append(self._read_picture(moving[0], f"Animation. {caption}" if still else caption))
        return found

    def _read_picture(self, name: str, caption: str) -> Picture:
        return Picture(self.spelled(name), MEDIA[Path(name).suffix], self.read(name), caption)

    def taken(self) -> list[Source]:
        """The sources read since the last call."""
        out, self.sources = self.sources, []
        return out


def wrong(folder: Folder, name: str, what: str) -> InvalidInput:
    """The error for a file that is JSON but not what its neighbours say it is."""
    return InvalidInput(
        f"{folder.path / name}: {what}; a report is made of files as gfsim wrote them: run the command again"
    )


def folders(root: Path) -> Iterator[Folder]:
    """``root`` and its subfolders, hidden ones left out, in the order of their names."""

    def walk(path: Path, level: int) -> Iterator[Folder]:
        yield Folder(root, path)
        if level < DEPTH:
            for below in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
                yield from walk(below, level + 1)

    yield from walk(root, 0)
