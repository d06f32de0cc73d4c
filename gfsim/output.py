"""Output directories in which every file is either whole or absent.

Each file is written under a temporary name in the same directory, flushed to disk and renamed; a
reader, or a run cut off by a signal, never meets half of one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from gfsim.errors import OutputError
from gfsim.jsonable import dumps

_PARTIAL = re.compile(r"^\..+\.(\d+)\.gfsim-partial$")


class OutputDirectory:
    """A directory that is ready to be written to: made if needed, checked, and swept.

    Parameters
    ----------
    path : str or Path
        Missing parents are created.

    Attributes
    ----------
    path : Path
    swept : tuple of str
        Partial files of runs that were cut off, now removed.

    Raises
    ------
    OutputError
        If ``path`` is a file, cannot be created, or cannot be written to.  This happens at
        construction, so before any computing starts.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        if str(path) == "":
            raise OutputError("the output directory is the empty string; name a directory")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            culprit = next((p for p in [self.path, *self.path.parents] if p.exists() and not p.is_dir()), self.path)
            raise OutputError(
                f"{culprit} is a file, so {self.path} cannot be an output directory; name another one"
            ) from None
        except OSError as exc:
            raise OutputError(f"cannot create the directory {self.path}: {_reason(exc)}; name another one") from None
        self.swept = tuple(self._sweep())
        self._probe()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def _sweep(self) -> Iterator[str]:
        try:
            names = sorted(os.listdir(self.path))
        except OSError as exc:
            raise OutputError(f"cannot read the directory {self.path}: {_reason(exc)}; name another one") from None
        for name in names:
            match = _PARTIAL.match(name)
            if match and not _alive(int(match[1])):
                with contextlib.suppress(OSError):
                    os.unlink(self.path / name)
                    yield name

    def _probe(self) -> None:
        try:
            with self._partial("write-test") as handle:
                handle.write(b"gfsim")
                temporary = handle.name
            os.unlink(temporary)
        except OSError as exc:
            raise OutputError(
                f"cannot write in the directory {self.path}: {_reason(exc)}; change its permissions or name another one"
            ) from None

    def _partial(self, name: str) -> IO[bytes]:
        return open(self.path / f".{name}.{os.getpid()}.gfsim-partial", "wb")

    def write(self, files: Mapping[str, bytes]) -> list[Path]:
        """Write all the files, then rename them one after the other in the order given.

        All the contents are safely on disk before the first name changes, so a full disk leaves the
        earlier versions untouched.  The last file of a set is removed first and comes back last: where
        it is, the set is complete and of one run.
        """
        ready: list[tuple[str, Path]] = []
        try:
            for name, content in files.items():
                with self._partial(name) as handle:
                    ready.append((handle.name, self.path / name))
                    handle.write(content)
                    handle.flush()
                    os.fsync(handle.fileno())
            if len(ready) > 1:
                ready[-1][1].unlink(missing_ok=True)
            for temporary, final in ready:
                os.replace(temporary, final)
        except OSError as exc:
            raise OutputError(f"cannot write {', '.join(files)} in {self.path}: {_reason(exc)}") from None
        finally:
            for temporary, _ in ready:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
        return [final for _, final in ready]

    def write_text(self, name: str, text: str) -> Path:
        return self.write({name: text.encode()})[0]

    def write_json(self, name: str, value: object) -> Path:
        return self.write({name: dumps(value).encode()})[0]

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> Path:
        """A compressed ``.npz``."""
        return self.write({name: arrays_bytes(arrays)})[0]

    def remove(self, *names: str) -> None:
        """Remove files of an earlier run; absent ones are no error."""
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as exc:
                raise OutputError(f"cannot remove the old {self.path / name}: {_reason(exc)}") from None


def arrays_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    return rendered(lambda buffer: np.savez_compressed(buffer, allow_pickle=False, **dict(arrays)))


def rendered(save: Callable[[IO[bytes]], object]) -> bytes:
    """What ``save`` writes to a binary file."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
