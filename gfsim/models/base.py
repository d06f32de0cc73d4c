"""What every model owes the rest of gfsim.

A model is a map H(x; w) from a flat weight vector and an input to ``n_outputs`` numbers.  The whole
library talks to it through six methods.  Two of them are *weighted* second derivatives, because that
is the only form in which second derivatives are ever needed: for a loss L(w) = sum_i l(H(x_i; w), y_i),

    grad L = pullback(C),            C = l'        and
    Hess L = curvature(C, Q),        Q = l'',

and for the neural correlation function, which is linear in H, C = -l'(0, y) and Q = 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gfsim.arrays import Array, namespace
from gfsim.errors import InvalidInput, NotHomogeneous


class Model(ABC):
    """A network or another parametrised function H(x; w).

    Shapes used in every docstring: ``w`` is (..., P) with optional leading batch axes, ``X`` is
    (n, d), outputs and the weights ``C``, ``Q`` on them are (..., n, k), with P = ``n_params``,
    d = ``n_inputs``, k = ``n_outputs``.
    """

    n_inputs: int
    n_outputs: int
    n_params: int

    @property
    @abstractmethod
    def degree(self) -> float | None:
        """D with H(x; c w) = c^D H(x; w) for every c >= 0; None when there is no such D."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A short description for tables and figures."""

    @abstractmethod
    def forward(self, w: Array, X: Array) -> Array:
        """H(x_i; w) for all samples: (..., n, k)."""

    @abstractmethod
    def pullback(self, w: Array, X: Array, C: Array) -> Array:
        """The gradient of sum_ik C_ik H_k(x_i; w) with respect to w: (..., P)."""

    @abstractmethod
    def jacobian(self, w: Array, X: Array) -> Array:
        """dH_k(x_i; w) / dw for one weight vector: (n, k, P)."""

    @abstractmethod
    def curvature(self, w: Array, X: Array, C: Array, Q: Array | None = None) -> Array:
        """sum_ik [ Q_ik grad H_ik grad H_ik' + C_ik Hess H_ik ] for one weight vector: (P, P).

        ``Q = None`` leaves the first (Gauss-Newton) part out.
        """

    @abstractmethod
    def curvature_product(self, w: Array, X: Array, C: Array, Q: Array | None, v: Array) -> Array:
        """``curvature(w, X, C, Q) @ v`` without forming the matrix; ``w`` and ``v`` are (..., P)."""

    def conserved(self, w: Array) -> Array:
        """Quantities that any exact gradient flow keeps constant: (..., number of them).

        None are known for a general model; feed-forward nets return the balance of every neuron.
        """
        return w[..., :0]

    def check_shape(self, w: Array) -> None:
        """Refuse a last axis that does not hold P entries; cheap enough for every evaluation."""
        if w.shape[-1:] != (self.n_params,):
            raise InvalidInput(
                f"weights of shape {tuple(w.shape)}; the last axis must hold the {self.n_params} weights of {self.name}"
            )

    def check_weights(self, w: Array, name: str = "weights") -> Array:
        """``w`` if its last axis has P entries and they are all finite, else :class:`InvalidInput`."""
        xp = namespace(w)
        if w.shape[-1:] != (self.n_params,):
            raise InvalidInput(
                f"{name} has shape {tuple(w.shape)}; the last axis must hold the {self.n_params} weights of {self.name}"
            )
        if not xp.isfinite(w).all():
            where = tuple(int(i) for i in xp.argwhere(~xp.isfinite(w))[0])
            raise InvalidInput(
                f"{name}: {float(w[where])} at index {where}; every weight must be a finite number: "
                "check the initialisation, or the step size that produced them"
            )
        return w


def spread(v: Array, w: Array) -> Array:
    """``v`` with at least the batch axes of ``w`` (a view), so that results have them too."""
    return v if v.ndim >= w.ndim else namespace(w).broadcast_to(v, (*w.shape[: w.ndim - v.ndim], *v.shape))


def require_homogeneous(model: Model, purpose: str, *, least: float = 0.0) -> float:
    """The model's degree, or :class:`NotHomogeneous` saying what needed it."""
    degree = model.degree
    if degree is None:
        raise NotHomogeneous(
            f"{purpose} needs a homogeneous model, H(x; c w) = c^D H(x; w), and {model.name} is not one; "
            "use an activation max(z, alpha z)^p, or declare the degree of your own function"
        )
    if degree < least:
        raise NotHomogeneous(f"{purpose} needs a degree of at least {least:g}; {model.name} has degree {degree:g}")
    return float(degree)
