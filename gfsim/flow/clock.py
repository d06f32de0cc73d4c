"""Clocks: the variable s in which a flow is integrated, and its rate dt/ds.

Near the origin a degree-D flow takes a time of order 1/delta^(D-2), near a sparse saddle 1/delta^(K-2)
(theory.md, sections 3 and 4).  In absolute time a solver then fails or freezes: at D = 7 and
delta = 1e-3 the spacing of doubles near the escape time is larger than the escape itself.  With

    ds = |w_B|^power dt

for the block B of small weights and power = D - 2 (or K - 2) the speed of w_B relative to its size
is of order one, and the whole escape takes a time of order log(1/delta) in s.  Physical time is
recovered by quadrature of dt/ds along the computed trajectory.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gfsim.arrays import Array, namespace, taken
from gfsim.errors import InvalidInput


class Clock(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def physical(self) -> bool:
        """Whether s is t itself."""
        ...

    @property
    def block(self) -> Array | None:
        """Flat indices of the weights that dt/ds depends on; None for all."""
        ...

    def rate(self, w: Array) -> Array:
        """dt/ds at the weights ``w`` (..., P): (...)."""
        ...

    def rate_of(self, part: Array) -> Array:
        """dt/ds from the weights of :attr:`block` alone, (..., m): (...)."""
        ...

    def rate_gradient(self, w: Array) -> Array:
        """d(dt/ds)/dw at the weights ``w`` (..., P): (..., P)."""
        ...

    def placed_like(self, w: Array) -> Clock:
        """The same clock for weights of ``w``'s kind, on its device."""
        ...


@dataclass(frozen=True)
class PhysicalTime:
    """s = t; ``name`` and ``physical`` are constants, there is nothing to choose."""

    name: str = "t"
    physical: bool = True

    @property
    def block(self) -> None:
        """None: it depends on no weights."""
        return

    def rate(self, w: Array) -> Array:
        """dt/ds = 1 at the weights ``w`` (..., P): (...)."""
        return namespace(w).ones_like(w[..., 0])

    def rate_of(self, part: Array) -> Array:
        """dt/ds = 1 for any ``part`` (..., m): (...)."""
        return self.rate(part)

    def rate_gradient(self, w: Array) -> Array:
        """Zero: (..., P)."""
        return 0.0 * w

    def placed_like(self, w: Array) -> PhysicalTime:
        """Itself: it holds no arrays."""
        del w
        return self


@dataclass(frozen=True, eq=False)
class RescaledTime:
    """ds = |w_B|^power dt, B a block of weights (``None``: all of them).

    Parameters
    ----------
    power : float >= 0
        D - 2 for an escape from the origin, K - 2 for an escape from a sparse saddle.
    block : (m,) int array, optional
        Flat indices of the block whose norm sets the pace.
    physical : bool
        False: s is not t.

    Raises
    ------
    InvalidInput
        If ``power`` is negative or not finite.
    """

    power: float
    block: Array | None = None
    physical: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.power) and self.power >= 0):
            raise InvalidInput(f"clock power = {self.power!r}; it must be a finite number >= 0 (a degree minus 2)")

    # written out, since the comparison that a dataclass makes of itself cannot take arrays
    def __eq__(self, other: object) -> bool:
        return isinstance(other, RescaledTime) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[float, tuple[int, ...] | None]:
        return float(self.power), None if self.block is None else tuple(np.asarray(self.block).tolist())

    @property
    def name(self) -> str:
        """The clock as a formula, for tables and messages."""
        return f"ds = |w{'' if self.block is None else '_z'}|^{self.power:g} dt"

    def rate(self, w: Array) -> Array:
        """dt/ds = |w_B|^-power at the weights ``w`` (..., P): (...)."""
        return self.rate_of(taken(w, self.block))

    def rate_of(self, part: Array) -> Array:
        """dt/ds = |w_B|^-power from w_B = ``part`` (..., m): (...)."""
        return (part * part).sum(-1) ** (-0.5 * self.power)

    def rate_gradient(self, w: Array) -> Array:
        """d(dt/ds)/dw at the weights ``w`` (..., P): (..., P)."""
        part = taken(w, self.block)
        slope = -self.power * (part * part).sum(-1) ** (-0.5 * self.power - 1.0)
        if self.block is None:
            return slope[..., None] * part
        gradient = namespace(w).zeros_like(w)
        gradient[..., self.block] = slope[..., None] * part
        return gradient

    def placed_like(self, w: Array) -> RescaledTime:
        """The same clock with its block on the device of ``w``."""
        if self.block is None or namespace(w) is np:
            return self
        return dataclasses.replace(self, block=namespace(w).as_tensor(self.block, device=w.device))
