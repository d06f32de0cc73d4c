"""NumPy and torch arrays side by side, and the checks that user data pass once at the door.

The feed-forward formulas are written with operations that both array types share (``@``, ``.mT``,
slicing, arithmetic), so one text serves scipy's solvers on NumPy and the torch integrators on any
device.  torch is never imported from here: an object can only be a tensor if its caller imported it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from gfsim.errors import InvalidInput

Array = Any
"""A ``numpy.ndarray`` or a ``torch.Tensor``; shapes are given in each docstring."""

KEPT_BYTES = 31 << 20


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of freed arrays for the next ones, where it learns from what it sees.

    glibc gives memory back to the system as soon as 128 kB at the end of its heap are free, and takes large blocks from
    the system one by one, until it has seen a larger block being freed.  An evaluation whose intermediate arrays are
    around that size then spends more time on page faults than on numbers: a Hessian, or a block of its products, of a
    net of 390 weights takes 2.2 times as long.  A block that is never touched costs nothing; elsewhere it does nothing.
    """
    np.empty(KEPT_BYTES, dtype=np.uint8)


_keep_freed_memory()


def namespace(x: Array) -> ModuleType:
    """``numpy`` for arrays, ``torch`` for tensors."""
    if isinstance(x, np.ndarray):
        return np
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch
    raise InvalidInput(
        f"expected a numpy array or a torch tensor, got {type(x).__name__}; convert it with numpy.asarray first"
    )


def identity(size: int, *, like: Array) -> Array:
    """The identity matrix of ``like``'s type, dtype and device: (size, size)."""
    xp = namespace(like)
    return xp.eye(size, dtype=like.dtype) if xp is np else xp.eye(size, dtype=like.dtype, device=like.device)


def zeros(shape: tuple[int, ...], *, like: Array) -> Array:
    """An array of zeros of ``like``'s type, dtype and device."""
    xp = namespace(like)
    return xp.zeros(shape, dtype=like.dtype) if xp is np else xp.zeros(shape, dtype=like.dtype, device=like.device)


def taken(x: Array, part: Array | None) -> Array:
    """The entries ``part`` (p,) of the last axis, (..., p); all of them for None.  A third of a subscript's cost."""
    if part is None:
        return x
    return x.take(part, -1) if isinstance(x, np.ndarray) else x.index_select(-1, part)


def finite_array(value: object, name: str, *, ndim: int | tuple[int, ...] | None = None) -> np.ndarray:
    """``value`` as a non-empty, finite float64 array.

    Raises :class:`InvalidInput` naming the first bad entry, or the wrong shape.
    """
    try:
        given = np.asarray(value)
        array = np.asarray(given, dtype=np.float64) if not np.iscomplexobj(given) else None
    except (TypeError, ValueError) as exc:
        raise InvalidInput(f"{name} is not numeric ({exc}); pass numbers, with categories encoded first") from None
    if array is None:
        raise InvalidInput(f"{name} is complex; the numbers must be real: split them into columns first")
    if ndim is not None:
        allowed = (ndim,) if isinstance(ndim, int) else ndim
        if array.ndim not in allowed:
            wanted = " or ".join(str(k) for k in allowed)
            raise InvalidInput(f"{name} has {array.ndim} dimension(s), shape {array.shape}; it must have {wanted}")
    if array.size == 0:
        raise InvalidInput(f"{name} is empty (shape {array.shape}); at least one entry is needed")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInput(
            f"{name} holds {array[where]} at index {where}; every entry must be finite: drop or impute such rows first"
        )
    return array


def positive(value: float, name: str) -> float:
    """``value`` as a finite float > 0, or :class:`InvalidInput`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} = {value!r} is not a number; it must be a finite number > 0") from None
    if not (np.isfinite(number) and number > 0):
        raise InvalidInput(f"{name} = {value!r}; it must be a finite number > 0")
    return number


def whole_number(value: object, name: str, *, least: int = 1) -> int:
    """``value`` as an int >= ``least``, or :class:`InvalidInput`; 3.0 is refused, as NumPy refuses it for a size."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidInput(f"{name} = {value!r}; it must be a whole number >= {least}")
    return int(value)


def generator(rng: object) -> np.random.Generator:
    """``rng`` itself, or :class:`InvalidInput` for anything but a NumPy Generator (a seed, None)."""
    if not isinstance(rng, np.random.Generator):
        raise InvalidInput(f"rng = {rng!r} is a {type(rng).__name__}; pass numpy.random.default_rng(seed)")
    return rng
