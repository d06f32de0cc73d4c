"""Vector fields that the integrators follow: descent of a loss, ascent of a correlation function.

Both are gradient flows of one potential, so the same solvers, clocks and events serve the training
flow dw/dt = -grad L and the NCF flow du/dt = grad N (theory.md, sections 1 and 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gfsim.arrays import Array
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective


class Field(Protocol):
    """A gradient field dw/dt = direction * grad potential(w)."""

    @property
    def size(self) -> int: ...

    @property
    def degree(self) -> float | None:
        """Degree of the potential near zero; None when it has none.  It sets the rescaled clock."""
        ...

    @property
    def label(self) -> str:
        """What flows, with its convention, for results and plots."""
        ...

    def potential(self, w: Array) -> Array: ...

    def velocity(self, w: Array) -> Array: ...

    def jacobian(self, w: Array) -> Array:
        """The (symmetric) Jacobian of the velocity at one weight vector: (P, P)."""
        ...

    def jacobian_product(self, w: Array, v: Array) -> Array:
        """``jacobian(w) @ v``; w and v are (..., P) and broadcast."""
        ...

    def conserved(self, w: Array) -> Array: ...

    @property
    def kinked(self) -> bool:
        """Whether the velocity jumps across hypersurfaces (plain ReLU)."""
        ...

    @property
    def work_per_row(self) -> int:
        """Numbers that the largest intermediate array of one velocity holds; sets the size of batches."""
        ...


@dataclass(frozen=True)
class Descent:
    """dw/dt = -grad L(w) of an objective."""

    objective: Objective

    @property
    def size(self) -> int:
        return self.objective.model.n_params

    @property
    def degree(self) -> float | None:
        return self.objective.model.degree

    @property
    def label(self) -> str:
        o = self.objective
        return f"gradient flow of the {o.reduction} of the {o.loss.name} loss, {o.model.name}, n = {o.n_samples}"

    def potential(self, w: Array) -> Array:
        return self.objective.value(w)

    def velocity(self, w: Array) -> Array:
        return -self.objective.gradient(w)

    def jacobian(self, w: Array) -> Array:
        return -self.objective.hessian(w)

    def jacobian_product(self, w: Array, v: Array) -> Array:
        return -self.objective.hessian_product(w, v)

    def conserved(self, w: Array) -> Array:
        return self.objective.model.conserved(w)

    @property
    def kinked(self) -> bool:
        model = self.objective.model
        return isinstance(model, FeedForward) and model.depth > 1 and not model.activation.smooth

    @property
    def work_per_row(self) -> int:
        return self.objective.work_per_row


@dataclass(frozen=True)
class Ascent:
    """du/dt = grad N(u) of any function given by its value, gradient and Hessian."""

    value: Callable[[np.ndarray], np.ndarray]
    gradient: Callable[[np.ndarray], np.ndarray]
    hessian: Callable[[np.ndarray], np.ndarray]
    size: int
    degree: float | None
    label: str = "NCF flow"

    def potential(self, w: np.ndarray) -> np.ndarray:
        return self.value(w)

    def velocity(self, w: np.ndarray) -> np.ndarray:
        return self.gradient(w)

    def jacobian(self, w: np.ndarray) -> np.ndarray:
        return self.hessian(w)

    def jacobian_product(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        return _product_row_by_row(self, w, v)

    def conserved(self, w: np.ndarray) -> np.ndarray:
        return w[..., :0]

    kinked = False
    """Not known of a function given by its values; implicit and high-order methods are then the user's choice."""

    @property
    def work_per_row(self) -> int:
        return self.size


@dataclass(frozen=True)
class SphereAscent:
    """dv/ds = grad N(v) - K N(v) v: the direction v = u/|u| of an NCF flow, in ds = |u|^(K-2) dt.

    It does not depend on |u|, so a direction can be followed to its limit however far |u| would have
    grown by then.
    """

    of: Ascent

    @property
    def size(self) -> int:
        return self.of.size

    @property
    def degree(self) -> None:
        """None: on the sphere there is no scale, hence no rescaled clock."""
        return

    @property
    def label(self) -> str:
        return f"direction of the {self.of.label}"

    def potential(self, w: np.ndarray) -> np.ndarray:
        return self.of.value(w)

    def velocity(self, w: np.ndarray) -> np.ndarray:
        return self.of.gradient(w) - (self.of.degree or 0.0) * self.of.value(w) * w

    def jacobian(self, w: np.ndarray) -> np.ndarray:
        K = self.of.degree or 0.0
        return self.of.hessian(w) - K * (self.of.value(w) * np.eye(w.size) + np.outer(w, self.of.gradient(w)))

    def jacobian_product(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        return _product_row_by_row(self, w, v)

    def conserved(self, w: np.ndarray) -> np.ndarray:
        return w[..., :0]

    kinked = False
    """Not known of a function given by its values; implicit and high-order methods are then the user's choice."""

    @property
    def work_per_row(self) -> int:
        return self.of.work_per_row


def _product_row_by_row(field: Field, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """J v from the matrix itself, for fields that have no product of their own; w and v broadcast."""
    if w.ndim == 1:
        return v @ field.jacobian(w).T
    w, v = np.broadcast_arrays(w, v)
    out = np.empty_like(v)
    for k in np.ndindex(*w.shape[:-1]):
        out[k] = field.jacobian(w[k]) @ v[k]
    return out
