"""The training loss as a function of the weights: L(w) = sum_i l(H(x_i; w), y_i), or its mean.

A mean only rescales time: with n samples, the flow of the mean at time n t is the flow of the sum at
time t.  The reduction is therefore part of every clock that gfsim reports.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from gfsim.arrays import Array, finite_array
from gfsim.errors import InvalidInput, unknown_name
from gfsim.losses import Loss, make_loss
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward

Reduction = Literal["sum", "mean"]

CHUNK_NUMBERS = 1 << 22
"""Numbers a layer's activations may hold: more samples than that are taken in turns, so that memory stays
bounded.  (A dense Hessian is not taken in turns: a net that is too large for one has no use for the other.)"""


class Objective:
    """The loss of a model on a data set, with exact derivatives.

    Parameters
    ----------
    model : Model
    X : (n_samples, n_inputs)
    y : (n_samples,) or (n_samples, n_outputs)
    loss : ``"square"``, ``"logistic"`` or a loss object
    reduction : ``"sum"`` or ``"mean"`` over samples (outputs are always summed)

    Weights may be NumPy arrays, or torch tensors after :meth:`to_torch`; shapes are (..., P).

    Raises
    ------
    InvalidInput, UnknownName
        If X and y do not fit the model or each other, hold a NaN, or (logistic loss) labels other than -1 and +1;
        if the loss or the reduction is not known.
    """

    def __init__(
        self, model: Model, X: object, y: object, *, loss: str | Loss = "square", reduction: Reduction = "sum"
    ) -> None:
        self.model = model
        self.loss = make_loss(loss)
        if reduction not in get_args(Reduction):
            raise InvalidInput(f"reduction = {reduction!r}; choose 'sum' or 'mean' over samples")
        self.reduction: Reduction = reduction
        inputs = finite_array(X, "X", ndim=2)
        labels = finite_array(y, "y", ndim=(1, 2))
        given = labels.shape
        if labels.ndim == 1:
            labels = labels[:, None]
        if inputs.shape[1] != model.n_inputs:
            raise InvalidInput(
                f"X has shape {inputs.shape}; {model.name} takes {model.n_inputs} inputs: X is (n_samples, n_features)"
            )
        if labels.shape != (len(inputs), model.n_outputs):
            raise InvalidInput(
                f"y has shape {given} for X of shape {inputs.shape}; "
                f"{model.name} needs ({len(inputs)}, {model.n_outputs})"
            )
        self.loss.check_labels(labels)
        self.X: Array = inputs
        self.y: Array = labels
        self.scale = 1.0 if reduction == "sum" else 1.0 / len(inputs)

    def __repr__(self) -> str:
        return f"Objective({self.model.name}, n={len(self.X)}, {self.reduction} of {self.loss.name})"

    @property
    def n_samples(self) -> int:
        """n, the number of rows of X."""
        return len(self.X)

    def with_model(self, model: Model) -> Objective:
        """The same data and loss under another model."""
        if isinstance(self.X, np.ndarray):
            return Objective(model, self.X, self.y, loss=self.loss, reduction=self.reduction)
        X, y = self.X.cpu().numpy(), self.y.cpu().numpy()
        twin = Objective(model, X, y, loss=self.loss, reduction=self.reduction)
        return twin.to_torch(str(self.X.device), str(self.X.dtype).removeprefix("torch."))

    def to_torch(self, device: str = "cpu", dtype: str = "float64") -> Objective:
        """A copy whose data are torch tensors; its methods then take and return tensors.

        ``device`` is a name that torch knows (``"cpu"``, ``"cuda"``); ``dtype`` is ``"float64"`` or ``"float32"``.
        """
        import torch

        kinds = {"float64": torch.float64, "float32": torch.float32}
        if dtype not in kinds:
            raise unknown_name("dtype", dtype, kinds)
        try:
            place = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as exc:  # torch built without CUDA raises the latter
            reason = str(exc).splitlines()[0]
            raise InvalidInput(f"device = {device!r} cannot be used here ({reason}); 'cpu' always can") from None
        twin = object.__new__(Objective)
        twin.__dict__.update({key: value for key, value in self.__dict__.items() if key != "_chunks"})
        for key in ("X", "y"):
            data = getattr(self, key)
            # a NumPy array is copied: torch would share its memory, and warn if it is read-only
            data = torch.tensor(data) if isinstance(data, np.ndarray) else data
            setattr(twin, key, data.to(device=place, dtype=kinds[dtype]))
        return twin

    # -- the loss and its derivatives --------------------------------------------------------------

    @property
    def work_per_row(self) -> int:
        """Numbers in the largest array that one evaluation makes: samples of a chunk times neurons of a layer."""
        return len(self._chunks[0][0]) * self._widest

    @property
    def _widest(self) -> int:
        return max(self.model.widths[1:]) if isinstance(self.model, FeedForward) else self.model.n_params

    @cached_property
    def _chunks(self) -> list[tuple[Array, Array]]:
        """(X, y) in pieces whose activations hold at most CHUNK_NUMBERS numbers a layer."""
        most = max(1, CHUNK_NUMBERS // self._widest)
        return [(self.X[k : k + most], self.y[k : k + most]) for k in range(0, len(self.X), most)]

    def value(self, w: Array) -> Array:
        """L(w): (...)."""
        return self._sum(lambda X, y: self.scale * self.loss.value(self.model.forward(w, X), y).sum((-2, -1)))

    def gradient(self, w: Array) -> Array:
        """grad L(w): (..., P)."""
        return self._sum(lambda X, y: self._gradient(w, X, y))

    def _gradient(self, w: Array, X: Array, y: Array) -> Array:
        model = self.model
        if isinstance(model, FeedForward):
            kept = model.run(w, X)
            return model.pullback_from(w, kept, self.scale * self.loss.slope(kept.output, y))
        return model.pullback(w, X, self.scale * self.loss.slope(model.forward(w, X), y))

    def value_and_gradient(self, w: Array) -> tuple[Array, Array]:
        """(L, grad L) from one forward and one backward pass."""
        value, gradient = self._value_and_gradient(w, *self._chunks[0])
        for X, y in self._chunks[1:]:
            more_value, more_gradient = self._value_and_gradient(w, X, y)
            value, gradient = value + more_value, gradient + more_gradient
        return value, gradient

    def _value_and_gradient(self, w: Array, X: Array, y: Array) -> tuple[Array, Array]:
        model = self.model
        if isinstance(model, FeedForward):
            kept = model.run(w, X)
            gradient = model.pullback_from(w, kept, self.scale * self.loss.slope(kept.output, y))
            return self.scale * self.loss.value(kept.output, y).sum((-2, -1)), gradient
        out = model.forward(w, X)
        gradient = model.pullback(w, X, self.scale * self.loss.slope(out, y))
        return self.scale * self.loss.value(out, y).sum((-2, -1)), gradient

    def hessian(self, w: Array) -> Array:
        """Hess L(w) for one weight vector: (P, P)."""
        out = self.model.forward(w, self.X)
        return self.model.curvature(
            w, self.X, self.scale * self.loss.slope(out, self.y), self.scale * self.loss.bend(out, self.y)
        )

    def hessian_product(self, w: Array, v: Array) -> Array:
        """Hess L(w) v: (..., P); w and v broadcast."""
        return self._sum(lambda X, y: self._hessian_product(w, v, X, y))

    def _hessian_product(self, w: Array, v: Array, X: Array, y: Array) -> Array:
        model = self.model
        if isinstance(model, FeedForward):
            kept = model.run(w, X)
            slope, bend = self.scale * self.loss.slope(kept.output, y), self.scale * self.loss.bend(kept.output, y)
            return model.curvature_product_from(w, kept, slope, bend, v)
        out = model.forward(w, X)
        slope, bend = self.scale * self.loss.slope(out, y), self.scale * self.loss.bend(out, y)
        return model.curvature_product(w, X, slope, bend, v)

    def _sum(self, part: Callable[[Array, Array], Array]) -> Array:
        """The sum of ``part`` over the chunks of the data."""
        total = part(*self._chunks[0])
        for X, y in self._chunks[1:]:
            total = total + part(X, y)
        return total

    def pull(self, out: Array) -> Array:
        """-dL/dH at the outputs ``out``: what the data ask the network to add, (..., n, k).

        theory.md writes ytilde for it at H = 0 and ybar at a saddle (sections 2 and 4).  It carries
        the reduction's factor, so that clocks computed from it are those of this objective's flow.
        """
        return -self.scale * self.loss.slope(out, self.y)
