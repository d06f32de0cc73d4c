"""Homogeneity and Euler's identity, for every model family.

Hypotheses.  H(x; w) is a feed-forward net without biases and with activation s(z) = max(z, alpha z)^p, a
diagonal linear net, a two-layer matrix factorisation, or a user's function of a declared degree.

Conclusion.  H(x; c w) = c^D H(x; w) for c >= 0, with D = 1 + p + ... + p^(L-1) for L layers, the depth for a
diagonal net and 2 for a factorisation.  The gradient has degree D - 1, the Hessian D - 2, and
<w, grad H> = D H.  Where H has kinks (p = 1) the last holds for every element of the Clarke differential.

Source.  [2L] and [DEEP], section 2; docs/theory.md, section 1.

Control.  Activations that are not homogeneous (tanh, GELU), under the degree of the linear net.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gfsim.models.base import Model
from gfsim.models.custom import TorchModel
from gfsim.models.feedforward import FeedForward
from proofs_checks.instances import (
    ROUNDING,
    ROUNDING_WHY,
    degree_formula,
    families,
    nets,
    polynomial,
    relative,
    symbolic,
)
from proofs_checks.statement import Context, Ledger

SCALES = (0.0, 0.3, 2.5)


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    cases = [(model, degree_formula(p, model.depth)) for model, p in nets()]
    models: list[tuple[Model, float]] = [*cases, *families(), (_torch_model(), 3.0)]
    ledger.at_most(
        "declared degree against the formula", [abs((m.degree or 0.0) - D) for m, D in models], 0.0, "whole numbers"
    )
    values, eulers, gradients, hessians = [], [], [], []
    for rng in ctx.draws("models", 3):
        for model, D in models:
            w, X = rng.standard_normal(model.n_params), rng.standard_normal((4, model.n_inputs))
            values.append(max(_scaling(model, D, w, X, c) for c in SCALES))
            eulers.append(_euler(model, D, w, X))
            c = 1.7
            J, scaled = model.jacobian(w, X), model.jacobian(c * w, X)
            gradients.append(relative(scaled - c ** (D - 1) * J, scaled))
            C = rng.standard_normal((4, model.n_outputs))
            # H is linear at D = 1: its Hessian is zero, and is compared with the size of the gradient
            B, bent = model.curvature(w, X, C), model.curvature(c * w, X, C)
            hessians.append(relative(bent - c ** (D - 2) * B, np.abs(bent).max() + np.abs(J).max()))
    ledger.at_most("H(x; cw) against c^D H(x; w), relative", values, ROUNDING, ROUNDING_WHY)
    ledger.at_most("<w, grad H> against D H, relative", eulers, ROUNDING, ROUNDING_WHY)
    ledger.at_most("degree D - 1 of the gradient, relative", gradients, ROUNDING, ROUNDING_WHY)
    ledger.at_most("degree D - 2 of the Hessian, relative", hessians, ROUNDING, ROUNDING_WHY)
    _clarke(ctx, ledger)
    broken = [
        (FeedForward(widths, name), float(len(widths) - 1))
        for widths in ((3, 4, 2), (3, 3, 2, 1))
        for name in ("tanh", "gelu")
    ]
    off, off_euler = [], []
    for rng in ctx.draws("control", 3):
        for model, D in broken:
            w, X = rng.standard_normal(model.n_params), rng.standard_normal((4, model.n_inputs))
            off.append(max(_scaling(model, D, w, X, c) for c in SCALES))
            off_euler.append(_euler(model, D, w, X))
    ledger.control("H(x; cw) against c^D H(x; w), relative", off, ROUNDING, "s is tanh or GELU")
    ledger.control("<w, grad H> against D H, relative", off_euler, ROUNDING, "s is tanh or GELU")


def _scaling(model: Model, D: float, w: np.ndarray, X: np.ndarray, c: float) -> float:
    H, scaled = model.forward(w, X), model.forward(c * w, X)
    return relative(scaled - c**D * H, max(1.0, c**D) * np.abs(H).max())


def _euler(model: Model, D: float, w: np.ndarray, X: np.ndarray) -> float:
    H, J = model.forward(w, X), model.jacobian(w, X)
    return relative(J @ w - D * H, np.abs(J).reshape(-1, w.size) @ np.abs(w))


def _torch_model() -> TorchModel:
    def cubic(w: Any, X: Any) -> Any:
        return (w[0] ** 2 * w[1] + abs(w[2]) ** 3) * X[:, 0] + w[1] * w[2] * w[0] * X[:, 1]

    return TorchModel(cubic, 3, 2, degree=3, name="a cubic torch function")


def _symbols(ledger: Ledger) -> None:
    """The library's own forward and backward passes on symbols, for general weights, inputs and scale."""
    import sympy

    c = sympy.Symbol("c", positive=True)
    scaling, euler = [], []
    for widths, p in (((2, 2, 2), 1), ((2, 2, 1), 2), ((2, 2, 1), 3), ((1, 2, 2, 1), 1), ((2, 1, 2, 1), 2)):
        model = FeedForward(widths, "linear", p=p)
        D = int(degree_formula(p, model.depth))
        w, X = symbolic("w", model.n_params), symbolic("x", (1, model.n_inputs))
        for k in range(model.n_outputs):
            C = np.zeros((1, model.n_outputs), dtype=object)
            C[0, k] = sympy.Integer(1)
            H = model.forward(w, X)[0, k]
            scaling.append(polynomial(model.forward(c * w, X)[0, k] - c**D * H))
            euler.append(polynomial((w * model.pullback(w, X, C)).sum() - D * H))
    ledger.identity("H(x; cw) = c^D H(x; w) for symbols, s = z^p", scaling)
    ledger.identity("<w, grad H> = D H for symbols, s = z^p", euler)


def _clarke(ctx: Context, ledger: Ledger) -> None:
    """Preactivations that are exactly zero: limits of gradients from many sides, and their averages."""
    identities, spreads = [], []
    for rng in ctx.draws("clarke", 6):
        for model, w, X in _kinked(rng):
            D = degree_formula(1, model.depth)
            H = model.forward(w, X)
            # the gradient is constant on each side near w up to O(1e-9), so that this is its limit
            sides = np.array(
                [model.jacobian(w + 1e-9 * rng.standard_normal(w.size), X).reshape(-1, w.size) for _ in range(12)]
            )
            own = model.jacobian(w, X).reshape(-1, w.size)
            mixtures = np.tensordot(rng.dirichlet(np.ones(12), size=4), sides, axes=1)
            for J in (own, *sides, *mixtures):
                identities.append(relative(J @ w - D * H.ravel(), np.abs(J) @ np.abs(w)))
            spreads.append(relative(sides.max(0) - sides.min(0), own))
    ledger.at_most(
        "<w, g> against D H over Clarke elements g at kinks, relative",
        identities,
        1e-6,
        "one-sided limits are taken at a distance of 1e-9, times a condition number below 1e3",
    )
    ledger.at_least(
        "spread of the Clarke differential there, relative to the gradient",
        spreads,
        1e-3,
        "the points do sit on kinks; the spread is of order one",
    )


def _kinked(rng: np.random.Generator) -> Iterator[tuple[FeedForward, np.ndarray, np.ndarray]]:
    for widths in ((2, 2, 1), (2, 3, 2, 1)):
        model = FeedForward(widths, "relu")
        w = rng.uniform(0.5, 1.5, model.n_params)  # positive weights keep the layers above alive
        first = model.unpack(w)[0]
        first[0] = (1.0, -1.0)  # orthogonal to the input (1, 1): an exact zero
        yield model, w, np.array([[1.0, 1.0]])
