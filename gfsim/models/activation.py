"""Activations of the networks: s(z) = max(z, alpha z)^p, and two that are not homogeneous.

theory.md, section 1.  ``alpha = 0`` is ReLU^p, ``alpha = 1, p = 1`` linear, ``alpha = -1, p = 2``
(or ``alpha = 1, p = 2``) the square z^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from gfsim.arrays import Array, namespace
from gfsim.errors import InvalidInput, unknown_name


class Activation(Protocol):
    """What a feed-forward network asks of its activation; all maps are entrywise."""

    @property
    def name(self) -> str: ...

    @property
    def power(self) -> int | None:
        """p with s(c z) = c^p s(z) for c >= 0; None when s is not homogeneous."""
        ...

    @property
    def smooth(self) -> bool:
        """Whether s is differentiable everywhere."""
        ...

    @property
    def flips_sign(self) -> int:
        """+1 if s(-z) = s(z), -1 if s(-z) = -s(z), 0 if neither: the neuron's sign symmetry."""
        ...

    def value(self, z: Array) -> Array: ...

    def value_and_slope(self, z: Array) -> tuple[Array, Array]: ...

    def curvature(self, z: Array) -> Array: ...


@dataclass(frozen=True)
class HomogeneousActivation:
    """s(z) = max(z, alpha z)^p.

    At the kink z = 0 the slope and the curvature are the left ones, so ReLU has s'(0) = 0; this is
    one element of the Clarke differential, which is all that the theory needs.

    Parameters
    ----------
    p : int >= 1
        Degree of homogeneity.
    alpha : float
        Slope of the other branch before the power is taken.

    Raises
    ------
    InvalidInput
        If ``p`` is no whole number >= 1, or ``alpha`` not finite.
    """

    p: int = 1
    alpha: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.p, bool) or not isinstance(self.p, (int, np.integer)) or self.p < 1:
            raise InvalidInput(f"activation power p = {self.p!r}; p must be a whole number >= 1")
        real = isinstance(self.alpha, (int, float, np.integer, np.floating)) and not isinstance(self.alpha, bool)
        if not real or not math.isfinite(self.alpha):
            raise InvalidInput(f"activation slope alpha = {self.alpha!r}; alpha must be a finite real number")
        object.__setattr__(self, "p", int(self.p))
        object.__setattr__(self, "alpha", float(self.alpha))

    @property
    def power(self) -> int:
        """p, the degree."""
        return self.p

    @property
    def name(self) -> str:
        """As it is named in tables: relu, relu^2, square, linear, leaky(alpha)."""
        base = {0.0: "relu", 1.0: "linear"}.get(self.alpha, f"leaky({self.alpha:g})")
        if self.flips_sign == 1 and self.p == 2:
            return "square"
        return base if self.p == 1 else f"{base}^{self.p}"

    @cached_property
    def smooth(self) -> bool:
        """Whether s is differentiable everywhere, as Theorem 7 of [NP] asks (p >= 2, or linear)."""
        return self.p >= 2 or self.alpha == 1.0

    @property
    def flips_sign(self) -> int:
        """+1 if s(-z) = s(z), -1 if s(-z) = -s(z), 0 if neither."""
        if self.alpha == 1.0:
            return 1 if self.p % 2 == 0 else -1
        return 1 if self.alpha == -1.0 else 0

    def _base(self, z: Array) -> Array:
        """max(z, alpha z)."""
        if self.alpha == 1.0:
            return z
        if self.alpha == 0.0:
            return np.maximum(z, 0.0) if isinstance(z, np.ndarray) else z.clip(min=0)  # ``clip`` costs more there
        return namespace(z).maximum(z, self.alpha * z)

    def _base_slope(self, z: Array) -> Array | float:
        if self.alpha == 1.0:
            return 1.0
        # in z's own precision: torch would turn a mask times a Python float into float32
        right_of_kink = (z > 0).astype(z.dtype) if isinstance(z, np.ndarray) else (z > 0).to(z.dtype)
        if self.alpha == 0.0:
            return right_of_kink
        right, left = (1.0, self.alpha) if self.alpha < 1 else (self.alpha, 1.0)
        return right_of_kink * (right - left) + left

    def value(self, z: Array) -> Array:
        """s(z), entry by entry."""
        base = self._base(z)
        return base * base if self.p == 2 else base if self.p == 1 else base**self.p

    def value_and_slope(self, z: Array) -> tuple[Array, Array]:
        """s(z) and s'(z), entry by entry."""
        base = self._base(z)
        if self.p == 1:
            return base, namespace(z).ones_like(z) if self.alpha == 1.0 else self._base_slope(z)
        if self.p == 2:
            # (max(z, az)^2)' = 2 max(z, az) max'(z); for ReLU the second factor is already in the first.
            return base * base, 2.0 * base if self.alpha in (0.0, 1.0) else 2.0 * base * self._base_slope(z)
        lower = base ** (self.p - 1)
        return lower * base, self.p * lower * self._base_slope(z)

    def curvature(self, z: Array) -> Array:
        """s''(z); zero for p = 1 away from the kink."""
        if self.p == 1:
            return namespace(z).zeros_like(z)
        slope = self._base_slope(z)
        if self.p == 2:
            return namespace(z).full_like(z, 2.0) if self.alpha in (1.0, -1.0) else 2.0 * slope * slope
        return self.p * (self.p - 1) * self._base(z) ** (self.p - 2) * slope * slope


@dataclass(frozen=True)
class Tanh:
    """tanh: not homogeneous; simulated, but refused wherever the theory needs a degree."""

    name: str = "tanh"
    power: None = None
    smooth: bool = True
    flips_sign: int = -1

    def value(self, z: Array) -> Array:
        return namespace(z).tanh(z)

    def value_and_slope(self, z: Array) -> tuple[Array, Array]:
        value = namespace(z).tanh(z)
        return value, 1.0 - value * value

    def curvature(self, z: Array) -> Array:
        value = namespace(z).tanh(z)
        return -2.0 * value * (1.0 - value * value)


def _erf(z: Array) -> Array:
    if isinstance(z, np.ndarray):
        from scipy.special import erf

        return erf(z)
    return namespace(z).erf(z)


@dataclass(frozen=True)
class Gelu:
    """GELU(z) = z Phi(z) with the exact Gaussian distribution function; not homogeneous."""

    name: str = "gelu"
    power: None = None
    smooth: bool = True
    flips_sign: int = 0

    def value(self, z: Array) -> Array:
        return 0.5 * z * (1.0 + _erf(z / math.sqrt(2.0)))

    def value_and_slope(self, z: Array) -> tuple[Array, Array]:
        cdf = 0.5 * (1.0 + _erf(z / math.sqrt(2.0)))
        return z * cdf, cdf + z * _gauss(z)

    def curvature(self, z: Array) -> Array:
        return (2.0 - z * z) * _gauss(z)


def _gauss(z: Array) -> Array:
    return namespace(z).exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


_NAMED = {
    "relu": lambda p, alpha: HomogeneousActivation(1 if p is None else p, 0.0 if alpha is None else alpha),
    "leaky": lambda p, alpha: HomogeneousActivation(1 if p is None else p, 0.1 if alpha is None else alpha),
    "linear": lambda p, alpha: HomogeneousActivation(1 if p is None else p, 1.0 if alpha is None else alpha),
    "square": lambda p, alpha: HomogeneousActivation(2 if p is None else p, -1.0 if alpha is None else alpha),
    "tanh": lambda p, alpha: _plain(Tanh(), p, alpha),
    "gelu": lambda p, alpha: _plain(Gelu(), p, alpha),
}


def _plain(activation: Tanh | Gelu, p: int | None, alpha: float | None) -> Tanh | Gelu:
    if p is not None or alpha is not None:
        raise InvalidInput(
            f"{activation.name} takes neither p nor alpha (got p = {p!r}, alpha = {alpha!r}); leave both out"
        )
    return activation


def make_activation(activation: str | Activation, p: int | None = None, alpha: float | None = None) -> Activation:
    """An activation by name (``relu``, ``leaky``, ``linear``, ``square``, ``tanh``, ``gelu``).

    ``p`` and ``alpha`` override the named one's; ``make_activation("relu", p=2)`` is max(z, 0)^2.
    An activation object is returned as it is.
    """
    if not isinstance(activation, str):
        if not (hasattr(activation, "value_and_slope") and hasattr(activation, "power")):
            raise InvalidInput(
                f"activation = {activation!r} is a {type(activation).__name__}; give one of "
                f"{', '.join(sorted(_NAMED))}, or an activation object"
            )
        if p is not None or alpha is not None:
            raise InvalidInput(
                "p and alpha go with an activation's name, not with an activation object; set them on it"
            )
        return activation
    if activation not in _NAMED:
        raise unknown_name("activation", activation, _NAMED)
    return _NAMED[activation](p, alpha)
