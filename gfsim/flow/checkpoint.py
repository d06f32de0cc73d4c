"""Checkpoints of a flow: everything that an integrator knows, to go on with bit for bit.

The data and the model are not part of it; they are given again to :func:`gfsim.flow.simulate.resume`.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gfsim.errors import InvalidInput, OutputError
from gfsim.flow.clock import Clock
from gfsim.flow.field import Field


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after an accepted step.

    Attributes
    ----------
    clock : Clock
    s, t : float
        Clock and physical time, the latter in the objective's convention (sum or mean).
    w : (P,)
    steps : int
        Accepted steps so far.
    state : bytes
        The integrator and its history, without the data.
    """

    clock: Clock
    s: float
    t: float
    w: np.ndarray = field(repr=False)
    steps: int
    state: bytes = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write it to a file."""
        target = Path(path)
        try:
            target.write_bytes(pickle.dumps(self))
        except OSError as exc:
            raise OutputError(f"the checkpoint cannot be written to {target} ({exc.strerror})") from None
        return target

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read what :meth:`save` wrote.  It is a pickle: load only files that you trust."""
        try:
            loaded = pickle.loads(Path(path).read_bytes())
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError) as exc:
            raise InvalidInput(f"{path} holds no checkpoint that can be read ({exc}); save it again") from None
        if not isinstance(loaded, cls):
            raise InvalidInput(f"{path} holds a {type(loaded).__name__}, not a checkpoint")
        return loaded


class _Freezer(pickle.Pickler):
    def __init__(self, target: io.BytesIO, flow: Field) -> None:
        super().__init__(target, protocol=pickle.HIGHEST_PROTOCOL)
        self._flow = flow

    def persistent_id(self, obj: Any) -> str | None:
        return "field" if obj is self._flow else None


class _Thawer(pickle.Unpickler):
    def __init__(self, source: io.BytesIO, flow: Field) -> None:
        super().__init__(source)
        self._flow = flow

    def persistent_load(self, pid: Any) -> Any:
        if pid != "field":
            raise pickle.UnpicklingError(f"unknown reference {pid!r}")
        return self._flow


def freeze(state: Any, flow: Field) -> bytes:
    """``state`` as bytes; every reference to the field ``flow`` is left open."""
    target = io.BytesIO()
    _Freezer(target, flow).dump(state)
    return target.getvalue()


def thaw(state: bytes, flow: Field) -> Any:
    """What :func:`freeze` was given, with ``flow`` for the references left open."""
    return _Thawer(io.BytesIO(state), flow).load()
