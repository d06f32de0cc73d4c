"""A field in a clock, for a batch of rows: the right-hand side that gfsim's own integrators see.

Rows are weights (B, P), one trajectory each, as a NumPy array or a torch tensor; in the clock s of
:mod:`gfsim.flow.clock`

    dw/ds = (dt/ds) f(w),     d(dw/ds)/dw = (dt/ds) J(w) + f(w) (d(dt/ds)/dw)',

with J symmetric, because every field here is a gradient field.  A batch of one costs what a single
vector costs: its leading axis is taken off before the model is called.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from gfsim.arrays import Array, namespace
from gfsim.flow.clock import Clock
from gfsim.flow.field import Field

CHUNK_NUMBERS = 1 << 16
"""Numbers a layer's activations may hold in one evaluation: more would leave the processor's cache, and a
row then costs twice to eight times as much.  Only on the CPU; a GPU takes the whole batch."""


class RowField:
    """``field`` in ``clock`` for rows of the same kind and place as ``like`` (B, P)."""

    def __init__(self, field: Field, clock: Clock, like: Array) -> None:
        self.field, self.clock = field, clock.placed_like(like)
        self.xp = namespace(like)
        on_cpu = self.xp is np or like.device.type == "cpu"
        self.rows_at_once = max(1, CHUNK_NUMBERS // field.work_per_row) if on_cpu else 1 << 30

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "xp": self.xp.__name__}  # a module cannot be pickled

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, xp=importlib.import_module(str(state["xp"])))

    def slope(self, w: Array) -> Array:
        """f(w) = dw/dt: (B, P)."""
        f, n = self.field.velocity, len(w)
        if n == 1:
            return f(w[0])[None]
        if n <= self.rows_at_once:
            return f(w)
        chunk = self.rows_at_once
        return self.xp.concatenate([f(w[k : k + chunk]) for k in range(0, n, chunk)])

    def rate(self, w: Array) -> Array:
        """dt/ds: (B,)."""
        return self.clock.rate(w)

    def velocity(self, w: Array) -> Array:
        """dw/ds: (B, P)."""
        v = self.slope(w)
        return v if self.clock.physical else v * self.clock.rate(w)[:, None]

    def hessian(self, w: Array) -> Array:
        """-J at one row (P,): (P, P), the Hessian of a loss."""
        return -self.field.jacobian(w)

    def hessian_product(self, w: Array, V: Array) -> Array:
        """-J v for w (B, P) and V (B, m, P): (B, m, P)."""
        product, (n, m) = self.field.jacobian_product, V.shape[:2]
        if n == 1:
            few = max(1, self.rows_at_once)
            parts = [product(w[0], V[0, k : k + few]) for k in range(0, m, few)]
            return -(parts[0] if len(parts) == 1 else self.xp.concatenate(parts))[None]
        chunk = max(1, self.rows_at_once // m)
        parts = [product(w[k : k + chunk, None, :], V[k : k + chunk]) for k in range(0, n, chunk)]
        return -(parts[0] if len(parts) == 1 else self.xp.concatenate(parts))

    # -- constants of the right kind and place -----------------------------------------------------

    def const(self, values: np.ndarray, like: Array) -> Array:
        """A NumPy table as an array of ``like``'s kind, on its device; floats take its dtype."""
        if self.xp is np:
            return values
        if values.dtype.kind == "f":
            return self.xp.as_tensor(values, dtype=like.dtype, device=like.device)
        return self.xp.as_tensor(values, device=like.device)


ONLY = np.zeros(1, dtype=int)
"""The row numbers of a batch of one."""


def at_rows(index: Array, count: int) -> Array | slice:
    """The rows ``index`` of ``count`` as a subscript: all of them in order are a slice, which copies nothing."""
    return slice(None) if len(index) == count else index


def inner(x: Array, y: Array) -> Array:
    """Scalar products of rows (B, P): (B,)."""
    return np.vecdot(x, y) if isinstance(x, np.ndarray) else (x * y).sum(-1)


def rms(x: Array, scale: Array) -> Array:
    """Root mean square of x / scale over the weights: (..., B) for x (..., B, P)."""
    q = x / scale
    return (inner(q, q) / q.shape[-1]) ** 0.5


def clamped(x: Array, least: float, most: float = math.inf) -> Array:
    """x kept within bounds; NaN stays.  (NumPy's ``clip`` costs five times as much on a few numbers.)"""
    if isinstance(x, float):
        return min(max(x, least), most)
    if isinstance(x, np.ndarray):
        return np.minimum(np.maximum(x, least), most)
    return x.clip(min=least, max=most)


class OneNumber:
    """Stands in for ``numpy`` in formulas that a batch of one evaluates on Python's numbers, at a tenth of the cost."""

    @staticmethod
    def where(condition: bool, yes: Any, no: Any) -> Any:
        return yes if condition else no


def row_numbers(like: Array) -> Array:
    """0, 1, 2, ..., one for each row of ``like``, where it is."""
    if isinstance(like, np.ndarray):
        return np.arange(len(like))
    return namespace(like).arange(len(like), device=like.device)


def keep_rows(of: object, names: tuple[str, ...], index: Array) -> None:
    """Only the rows ``index`` of the named attributes."""
    for name in names:
        setattr(of, name, getattr(of, name)[index])


def join_rows(of: object, other: object, names: tuple[str, ...], xp: Any) -> None:
    """The rows of ``other``'s attributes after those of ``of``."""
    for name in names:
        setattr(of, name, xp.concatenate([getattr(of, name), getattr(other, name)]))


def anywhere(mask: Array) -> bool:
    """Whether any entry is True (one synchronisation on a GPU)."""
    return bool(mask.any())
