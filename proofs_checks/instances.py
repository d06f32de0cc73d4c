"""Random instances and symbolic ones that several checks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, MatrixFactorisation
from gfsim.objective import Objective

ROUNDING = 1e-10
"""Bound for identities in float64: the quantities are sums of at most a few thousand products with
condition numbers up to about 1e3, so 1e-16 grows to 1e-12 or so; a wrong formula is off by order one."""

ROUNDING_WHY = "float64 rounding of well-conditioned sums"

NETS: tuple[tuple[tuple[int, ...], str, int, float], ...] = (
    # widths, family, p, alpha: every depth up to 4, several outputs, all shapes of activation
    ((3, 4), "linear", 1, 1.0),
    ((3, 4, 2), "relu", 1, 0.0),
    ((3, 4, 1), "square", 2, -1.0),
    ((2, 3, 3), "relu", 2, 0.0),
    ((3, 3, 2), "leaky", 3, 0.2),
    ((3, 3, 2, 1), "linear", 1, 1.0),
    ((3, 3, 3, 2), "leaky", 1, 0.3),
    ((2, 3, 2, 2), "square", 2, -1.0),
    ((2, 2, 2, 1), "relu", 3, 0.0),
    ((2, 3, 2, 2, 2), "relu", 1, 0.0),
    ((2, 2, 2, 2, 1), "relu", 2, 0.0),
)


class Search:
    """Draws of instances until one meets the hypotheses of a statement, and not for ever.

    With a library that is right one in a few draws will do; with a wrong one there may be none, and the check must end.
    ``search.draw()`` opens the loop's body and raises ``RuntimeError`` after ``DRAWS`` draws.
    """

    DRAWS = 500

    def __init__(self, what: str) -> None:
        self.what = what
        self.drawn = 0

    def draw(self) -> None:
        """Count one draw."""
        self.drawn += 1
        if self.drawn > self.DRAWS:
            raise RuntimeError(f"none of {self.DRAWS} draws is {self.what}")


def nets() -> Iterator[tuple[FeedForward, int]]:
    """Feed-forward nets with the power p of their activation."""
    for widths, name, p, alpha in NETS:
        yield FeedForward(widths, name, p=p, alpha=alpha), p


def families() -> Iterator[tuple[Model, float]]:
    """The other model families, with the degree that their definition gives."""
    for depth in (1, 2, 3, 4):
        for tied in (False, True):
            for signed in (False, True):
                yield DiagonalLinear(3, depth, tied=tied, signed=signed), float(depth)
    yield MatrixFactorisation(3, 2, 2), 2.0
    yield MatrixFactorisation(3, 3, 2, symmetric=True), 2.0


def degree_formula(p: int, depth: int) -> float:
    """1 + p + ... + p^(depth-1), as a closed form rather than as the library's sum."""
    return float(depth) if p == 1 else float((p**depth - 1) // (p - 1))


def random_objective(
    model: Model, rng: np.random.Generator, *, samples: int = 6, loss: str = "square", reduction: Any = "sum"
) -> Objective:
    """Normal inputs, with normal labels or labels -1, +1 of both classes."""
    X = rng.standard_normal((samples, model.n_inputs))
    y = rng.standard_normal((samples, model.n_outputs))
    if loss == "logistic":
        y = np.sign(y)
        y[0], y[1] = 1.0, -1.0
    return Objective(model, X, y, loss=loss, reduction=reduction)


def symbolic(name: str, shape: int | Sequence[int]) -> np.ndarray:
    """An array of real sympy symbols; the polynomial models run on it as they are."""
    import sympy

    size = (shape,) if isinstance(shape, int) else tuple(shape)
    flat = [sympy.Symbol(f"{name}{k}", real=True) for k in range(int(np.prod(size)))]
    return np.array(flat, dtype=object).reshape(size)


def polynomial(value: object) -> Any:
    """A sympy expression, expanded, with the floating-point whole numbers of the library made exact."""
    import sympy

    return sympy.expand(sympy.nsimplify(sympy.sympify(value), rational=True))


def relative(difference: np.ndarray, size: np.ndarray | float) -> float:
    """|difference| over the given size, in the maximum norm."""
    return float(np.abs(difference).max(initial=0.0) / max(float(np.abs(size).max(initial=0.0)), 1e-300))
