"""The training loss as a function of the weights: L(w) = sum_i l(H(x_i; w), y_i), or its mean.

A mean only rescales time: with n samples, the flow of the mean at time n t is the flow of the sum at
time t.  The reduction is therefore part of every clock that gfsim reports.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from gfsim.arrays import Array, finite_array
from gfsim.errors import InvalidInput, unknown_name
from gfsim.losses import Loss, make_loss
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward

Reduction = Literal["sum", "mean"]


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
        twin.__dict__.update(self.__dict__)
        for key in ("X", "y"):
            data = getattr(self, key)
            # a NumPy array is copied: torch would share its memory, and warn if it is read-only
            data = torch.tensor(data) if isinstance(data, np.ndarray) else data
            setattr(twin, key, data.to(device=place, dtype=kinds[dtype]))
        return twin

    # -- the loss and its derivatives --------------------------------------------------------------

    def value(self, w: Array) -> Array:
        """L(w): (...)."""
        return self.scale * self.loss.value(self.model.forward(w, self.X), self.y).sum((-2, -1))

    def gradient(self, w: Array) -> Array:
        """grad L(w): (..., P)."""
        return self.value_and_gradient(w)[1]

    def value_and_gradient(self, w: Array) -> tuple[Array, Array]:
        """(L, grad L) from one forward and one backward pass."""
        model = self.model
        if isinstance(model, FeedForward):
            kept = model.run(w, self.X)
            slope = self.scale * self.loss.slope(kept.output, self.y)
            return (
                self.scale * self.loss.value(kept.output, self.y).sum((-2, -1)),
                model.pullback_from(w, kept, slope),
            )
        out = model.forward(w, self.X)
        slope = self.scale * self.loss.slope(out, self.y)
        return self.scale * self.loss.value(out, self.y).sum((-2, -1)), model.pullback(w, self.X, slope)

    def hessian(self, w: Array) -> Array:
        """Hess L(w) for one weight vector: (P, P)."""
        out = self.model.forward(w, self.X)
        return self.model.curvature(
            w, self.X, self.scale * self.loss.slope(out, self.y), self.scale * self.loss.bend(out, self.y)
        )

    def hessian_product(self, w: Array, v: Array) -> Array:
        """Hess L(w) v: (..., P)."""
        out = self.model.forward(w, self.X)
        return self.model.curvature_product(
            w, self.X, self.scale * self.loss.slope(out, self.y), self.scale * self.loss.bend(out, self.y), v
        )

    def pull(self, out: Array) -> Array:
        """-dL/dH at the outputs ``out``: what the data ask the network to add, (..., n, k).

        theory.md writes ytilde for it at H = 0 and ybar at a saddle (sections 2 and 4).  It carries
        the reduction's factor, so that clocks computed from it are those of this objective's flow.
        """
        return -self.scale * self.loss.slope(out, self.y)
