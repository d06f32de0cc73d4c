"""A user's own torch function as a model, differentiated by torch.func and checked at construction.

docs/theory.md, section 1, "general homogeneous models".  Derivatives come from the function itself, so
the construction tries everything that will be asked of it once, at a few random points: shapes,
finiteness, the torch.func transforms, the gradient against differences of values, and the declared
degree.  A function that passes behaves like the built-in families; one that does not is refused there,
rather than hours later inside an integrator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gfsim.arrays import Array, finite_array, whole_number
from gfsim.errors import InvalidInput
from gfsim.models.base import Model
from gfsim.models.custom_check import check, declared_degree

if TYPE_CHECKING:
    import torch


class TorchModel(Model):
    """H(x; w) given by a torch function.

    Parameters
    ----------
    function : callable
        ``function(w, X)`` with float64 tensors ``w`` (n_params,) and ``X`` (n, n_inputs), returning
        (n, n_outputs), or (n,) if n_outputs is 1.  Row i may depend on row i of ``X`` only.
    n_params, n_inputs, n_outputs : int >= 1
    degree : float > 0, optional
        D with H(x; c w) = c^D H(x; w) for every c >= 0.  None: the model is not homogeneous; it can be
        simulated, and whatever needs a degree refuses it.
    rng : numpy.random.Generator, optional
        Draws the points of the check (standard normal).  None: a fresh ``default_rng(0)``, so that the
        same function always meets the same check.
    inputs : (m, n_inputs), optional
        Inputs that the check draws from, for a function that is defined for some inputs only
        (positive ones, one-hot rows, ...).  None: standard normal ones.
    name : str, optional
        For tables and messages; the function's own name by default.

    Raises
    ------
    InvalidInput
        For an output of the wrong shape or type, or not finite; a function that torch.func cannot
        transform or that mixes samples; a gradient that is not that of the values; a declared degree
        that the values, or Euler's identity <w, grad H> = D H, contradict (the message says which
        degree was measured).

    Notes
    -----
    Arrays are taken and given back in the caller's type: NumPy in, NumPy out; tensors in, tensors out.
    Values are differentiated as torch does: at a kink, one element of the subdifferential.
    """

    def __init__(
        self,
        function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        n_params: int,
        n_inputs: int,
        n_outputs: int = 1,
        degree: float | None = None,
        *,
        rng: np.random.Generator | None = None,
        inputs: object = None,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise InvalidInput(f"function = {function!r} is not callable; pass a function of (w, X)")
        self.function = function
        self.n_params = whole_number(n_params, "n_params")
        self.n_inputs = whole_number(n_inputs, "n_inputs")
        self.n_outputs = whole_number(n_outputs, "n_outputs")
        self._degree = declared_degree(degree)
        self._name = name or f"torch function {getattr(function, '__name__', type(function).__name__)}"
        rows = None if inputs is None else finite_array(inputs, "inputs", ndim=2)
        if rows is not None and rows.shape[1] != self.n_inputs:
            raise InvalidInput(f"inputs has shape {rows.shape}; it must be (m, {self.n_inputs}), one input a row")
        check(self, np.random.default_rng(0) if rng is None else rng, rows)

    def __repr__(self) -> str:
        return f"TorchModel({self._name!r}, {self.n_params}, {self.n_inputs}, {self.n_outputs}, degree={self._degree})"

    @property
    def degree(self) -> float | None:
        return self._degree

    @property
    def name(self) -> str:
        return self._name

    # -- the function and its derivatives on tensors -----------------------------------------------

    def evaluate(self, w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        """H at one weight vector: (n, k)."""
        import torch

        out = self.function(w, X)
        if not isinstance(out, torch.Tensor):
            raise InvalidInput(f"{self._name} returned a {type(out).__name__}; it must return a torch tensor")
        n, k = X.shape[0], self.n_outputs
        if k == 1 and out.shape == (n,):
            out = out[:, None]
        if out.shape != (n, k):
            wanted = f"({n},) or ({n}, 1)" if k == 1 else f"({n}, {k})"
            hint = "; a bare .squeeze() does this when n = 1: name its dimension" if out.ndim == 0 else ""
            raise InvalidInput(
                f"{self._name} returned shape {tuple(out.shape)} for X of shape {tuple(X.shape)}; "
                f"it must return {wanted}, one row a sample{hint}"
            )
        if out.dtype != w.dtype:
            raise InvalidInput(
                f"{self._name} returned {out.dtype} for weights of {w.dtype}; keep the weights' type: "
                "make constants with dtype=w.dtype, and cast nothing"
            )
        return out

    def _paired(self, w: Array, X: Array) -> tuple[torch.Tensor, torch.Tensor]:
        self.check_shape(w)
        return _tensor(w), _tensor(X)

    def forward(self, w: Array, X: Array) -> Array:
        W, inputs = self._paired(w, X)
        return _like(w, _mapped(lambda a: self.evaluate(a, inputs), W))

    def pullback(self, w: Array, X: Array, C: Array) -> Array:
        from torch.func import grad

        W, inputs = self._paired(w, X)
        return _like(w, _mapped(grad(self._weighted(inputs)), W, (_tensor(C), 2)))

    def _weighted(self, X: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """(w, C) -> sum_ik C_ik H_k(x_i; w)."""
        return lambda w, C: (self.evaluate(w, X) * C).sum()

    def jacobian(self, w: Array, X: Array) -> Array:
        from torch.func import jacfwd, jacrev

        W, inputs = self._paired(w, X)
        # one reverse pass an output entry, or one forward pass a weight: the fewer of the two
        transform = jacrev if inputs.shape[0] * self.n_outputs <= self.n_params else jacfwd
        return _like(w, transform(lambda a: self.evaluate(a, inputs))(W))

    def curvature(self, w: Array, X: Array, C: Array, Q: Array | None = None) -> Array:
        from torch.func import hessian

        W, inputs = self._paired(w, X)
        weights = _tensor(C)
        H = hessian(lambda a: self._weighted(inputs)(a, weights))(W)
        H = 0.5 * (H + H.mT)  # symmetric up to rounding already; eigenvalue routines want it exactly
        if Q is not None:
            J = _tensor(self.jacobian(w, X))
            H = H + J.reshape(-1, self.n_params).mT @ (_tensor(Q)[..., None] * J).reshape(-1, self.n_params)
        return _like(w, H)

    def curvature_product(self, w: Array, X: Array, C: Array, Q: Array | None, v: Array) -> Array:
        from torch.func import grad, jvp, vjp

        W, inputs = self._paired(w, X)
        self.check_shape(v)

        def bend(a: torch.Tensor, c: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return jvp(lambda b: grad(self._weighted(inputs))(b, c), (a,), (t,))[1]

        def gauss_newton(a: torch.Tensor, q: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            def at(b: torch.Tensor) -> torch.Tensor:
                return self.evaluate(b, inputs)

            return vjp(at, a)[1](q * jvp(at, (a,), (t,))[1])[0]

        tangent = (_tensor(v), 1)
        product = _mapped(bend, W, (_tensor(C), 2), tangent)
        if Q is not None:
            product = product + _mapped(gauss_newton, W, (_tensor(Q), 2), tangent)
        return _like(w, product)


def _tensor(x: Array) -> torch.Tensor:
    import torch

    if isinstance(x, torch.Tensor):
        return x
    if not isinstance(x, np.ndarray):
        raise InvalidInput(f"expected a numpy array or a torch tensor, got {type(x).__name__}; convert it first")
    # a copy only where torch would need one: read-only or strided arrays, other types
    return torch.from_numpy(np.require(x, dtype=np.float64, requirements=["C", "W"]))


def _like(w: Array, out: torch.Tensor) -> Array:
    return out.detach().numpy() if isinstance(w, np.ndarray) else out


def _mapped(function: Callable[..., torch.Tensor], w: torch.Tensor, *others: tuple[torch.Tensor, int]) -> torch.Tensor:
    """``function`` over all leading axes of ``w`` (..., P) and of the others, given with their own number of axes."""
    import torch
    from torch.func import vmap

    batch = torch.broadcast_shapes(w.shape[:-1], *(x.shape[: x.ndim - own] for x, own in others))
    if not batch:
        return function(w, *(x for x, _ in others))
    rows = math.prod(batch)
    flat = [
        x.broadcast_to(*batch, *x.shape[x.ndim - own :]).reshape(rows, *x.shape[x.ndim - own :])
        for x, own in ((w, 1), *others)
    ]
    out = vmap(function)(*flat)
    return out.reshape(*batch, *out.shape[1:])
