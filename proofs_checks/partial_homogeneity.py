"""The expansion of a net in the weights of its inactive neurons.

Hypotheses.  A feed-forward net with s(z) = max(z, alpha z)^p, w = (w_n, w_z), w_z all weights into and out of a set Z
of hidden neurons with some neurons left in every layer; s differentiable at the active preactivations.

Conclusion.  H(x; w_n, w_z) = H(x; w_n, 0) + H1 + R with H1 = sum_l sum_{j in Z_l} (g_{l+1}' b_j) s(a_j' h_{l-1}), of
degree p + 1 in w_z and free of the weights between inactive neurons.  R is of degree 2p + 1 if Z has neurons in
adjacent layers, 2p + 2 otherwise, and vanishes for two layers.

Source.  [NP], section 3, in our reading; docs/theory.md, section 4.

Control.  ReLU with an active neuron on its kink: the remainder is then of degree p + 1 = 2, like H1 itself (and the
library refuses the point); tanh in two layers: R does not vanish.
"""

from __future__ import annotations

from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np

from gfsim.errors import NotHomogeneous
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.neurons import ActiveNeurons
from proofs_checks.expansion import DIGITS, Expansion, exponent, precise
from proofs_checks.instances import Search, polynomial, symbolic
from proofs_checks.statement import Context, Ledger

Case = tuple[tuple[int, ...], tuple[int, ...], str, int, float]

ADJACENT: tuple[Case, ...] = (
    # widths, active units, activation, p, alpha: inactive neurons in neighbouring layers
    ((2, 3, 3, 1), (1, 1), "square", 2, -1.0),
    ((2, 3, 2, 2), (2, 1), "leaky", 3, 0.3),
    ((2, 2, 2, 2), (1, 1), "linear", 1, 1.0),
    ((2, 2, 2, 2, 1), (1, 1, 1), "leaky", 2, 0.5),
)
APART: tuple[Case, ...] = (
    ((2, 3, 2, 1), (1, 2), "square", 2, -1.0),
    ((2, 3, 1, 2), (2, 1), "leaky", 3, 0.3),
    ((2, 2, 1, 2, 1), (1, 1, 1), "square", 2, -1.0),
)
EXACT: tuple[Case, ...] = (
    ((3, 4, 2), (2,), "square", 2, -1.0),
    ((3, 3, 1), (1,), "relu", 1, 0.0),
    ((3, 3, 2), (1,), "leaky", 3, 0.2),
    ((2, 2, 3, 1), (2, 1), "square", 2, -1.0),  # inactive neurons below the output only
)
EQUAL = 0.02
"""Exponents that the statement gives exactly are met to this much."""


def draw(case: Case, rng: np.random.Generator) -> Expansion:
    """A random instance with all active preactivations off zero.

    For ReLU a draw may have an active layer that is dead on a sample: the next one is then on its kink.
    """
    widths, active, name, p, alpha = case
    model = FeedForward(widths, name, p=p, alpha=alpha)
    units = ActiveNeurons.of(model, active)
    search = Search("an instance off its kinks")
    while True:
        search.draw()
        X = rng.standard_normal((3, model.n_inputs))
        w = rng.standard_normal(model.n_params)
        w[units.index_z(model)] = 0.0
        layers = zip(model.run(w, X).preactivations, units.units, strict=True)
        off_kinks = min(float(np.abs(z[:, list(chosen)]).min()) for z, chosen in layers) > 1e-3
        if off_kinks and float(np.abs(model.forward(w, X)).max()) > 1e-3:  # and not dead on all samples
            break
    u = rng.standard_normal(units.index_z(model).size)
    o = Objective(model, X, rng.standard_normal((3, model.n_outputs)))
    return Expansion(o, units, w, u / np.linalg.norm(u))


def on_kink(rng: np.random.Generator) -> Expansion:
    """A ReLU net in which an active unit of layer 2 is exactly at zero for all inputs, pushed up by inactive units."""
    model = FeedForward((2, 3, 3, 1), "relu")
    units = ActiveNeurons.of(model, (2, 2))
    X = rng.uniform(0.5, 1.5, (3, 2))
    w = rng.uniform(0.5, 1.5, model.n_params)
    w[units.index_z(model)] = 0.0
    first, second, _ = model.unpack(w)
    first[1] = first[0]
    second[0, :2] = 1.0, -1.0
    u = rng.uniform(0.5, 1.5, units.index_z(model).size)
    return Expansion(Objective(model, X, rng.standard_normal(3)), units, w, u / np.linalg.norm(u))


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    mpmath.mp.dps = DIGITS
    # far enough inside that neither the next order nor an inactive neuron's kink bends the line
    deltas = [mpmath.mpf(10) ** -k for k in range(6, 12)]
    why = "an equality of exponents; fitted over five decades, standard error apart"
    for label, cases, gap in (("2p + 1, adjacent layers", ADJACENT, 1), ("2p + 2, no adjacent layers", APART, 2)):
        off, errors = [], []
        for rng in ctx.draws(label, 2, 8):
            for case in cases:
                sizes = draw(case, rng).remainders(deltas, case[3] + 1)
                slope, error = exponent(deltas, sizes)
                ledger.curve(f"R, {label}", _name(case), deltas, sizes, stated=2.0 * case[3] + gap)
                off.append(abs(slope - (2 * case[3] + gap)))
                errors.append(error)
        ledger.at_most(f"fitted degree of R against {label}", off, EQUAL, why)
        ledger.at_most(f"standard error of that fit ({label})", errors, 5e-3, "a straight line on log-log axes")
    zeros = [
        float(max(draw(case, rng).remainders([mpmath.mpf(0.5)], case[3] + 1)))
        for rng in ctx.draws("exact", 3)
        for case in EXACT
    ]
    ledger.at_most("R at delta = 1/2, depth 2 or last hidden layer only", zeros, 1e-60, "rounding at 120 digits")
    relus = []
    for rng in ctx.draws("relu", 4):
        relu = draw(((2, 3, 3, 1), (2, 2), "relu", 1, 0.0), rng)
        relus.append(exponent(deltas, relu.remainders(deltas, 2))[0])
    ledger.at_least("degree of R for ReLU off its kinks (inf: R = 0)", relus, 3 - EQUAL, "a lower bound: 2p + 1 = 3")
    _library(ctx, ledger)
    _controls(ctx, ledger, deltas)


def _name(case: Case) -> str:
    return f"{'-'.join(map(str, case[0]))}, p = {case[3]}"


def _library(ctx: Context, ledger: Ledger) -> None:
    """SaddleNCF against <ybar, H1> at 120 digits."""
    values, degrees, scaled, silent, counted = [], [], [], [], []
    for rng in ctx.draws("library", 2):
        for case in (*ADJACENT, *APART, *EXACT):
            e = draw(case, rng)
            ncf = SaddleNCF(e.point)
            ybar = e.objective.pull(e.model.forward(e.w, e.objective.X))
            first = precise(ybar) * e.first_order()
            N = float(ncf.value(e.u))
            size = float(np.abs(first).sum())
            values.append(abs(N - float(first.sum())) / max(size, 1e-300) if size else abs(N))
            degrees.append(abs(ncf.degree - (case[3] + 1)))
            scaled.append(abs(float(ncf.value(1.9 * e.u)) - 1.9 ** (case[3] + 1) * N) / max(size, 1e-300))
            between = np.isin(e.active.index_z(e.model), _between_inactive(e))
            silent.append(float(np.abs(ncf.gradient(e.u)[between]).max(initial=0.0)))
            counted.append(float((ncf.coupled == between).sum()))
    ledger.at_most("N at the point against <ybar, H1>, relative", values, 1e-10, "float64 rounding")
    ledger.at_most("declared degree of N against p + 1", degrees, 0.0, "whole numbers")
    ledger.at_most("N(1.9 u) against 1.9^(p+1) N(u), relative", scaled, 1e-10, "float64 rounding")
    ledger.at_most("dN/dw for weights between inactive neurons", silent, 0.0, "they do not enter")
    ledger.at_most("weights wrongly counted as entering H1 or not", counted, 0.0, "sets of indices")


def _between_inactive(e: Expansion) -> np.ndarray:
    """Flat indices of weights from an inactive to an inactive neuron."""
    inactive = e.active.inactive(e.model)
    blocks = [
        e.model.index[layer][np.ix_(inactive[layer], inactive[layer - 1])].ravel() for layer in range(1, len(inactive))
    ]
    return np.concatenate([np.zeros(0, dtype=int), *blocks])


def _controls(ctx: Context, ledger: Ledger, deltas: list[Any]) -> None:
    kinked, refused, curved = [], [], []
    for rng in ctx.draws("control", 4):
        e = on_kink(rng)
        sizes = e.remainders(deltas, 2)
        kinked.append(exponent(deltas, sizes)[0])
        ledger.curve("R, ReLU on a kink (control)", "2-3-3-1, p = 1", deltas, sizes, stated=3.0, broken=True)
        try:
            SaddleNCF(e.point)
            refused.append(1.0)
        except NotHomogeneous:
            refused.append(0.0)
        curved.append(_tanh_remainder(rng))
    ledger.at_most("points on a kink that the library lets pass", refused, 0.0, "they must be refused")
    ledger.control("degree of R", kinked, 3 - EQUAL, "an active ReLU neuron sits on its kink", sense="at least")
    ledger.control("R at delta = 1/2, depth 2", curved, 1e-60, "s is tanh, taken as p = 1")


def _tanh_remainder(rng: np.random.Generator) -> float:
    """The same R in float64, where it is of order 0.1."""
    model = FeedForward((2, 3, 1), "tanh")
    units = ActiveNeurons.of(model, (1,))
    X, w = rng.standard_normal((3, 2)), rng.standard_normal(model.n_params)
    small = np.isin(np.arange(w.size), units.index_z(model))
    start, whole, half = (model.forward(np.where(small, c * w, w), X) for c in (0.0, 1.0, 0.5))
    return float(np.abs(half - start - 0.25 * (whole - start)).max())  # H1(u) = whole - start at depth 2


def _symbols(ledger: Ledger) -> None:
    """The library's forward pass as a polynomial of delta with symbolic weights, coefficient by coefficient."""
    import sympy as sp

    delta = sp.Symbol("delta", positive=True)
    first, absent, present = [], [], []
    for widths, active, p, order in (
        ((1, 2, 2, 1), (1, 1), 1, 3),
        ((2, 2, 2, 1), (1, 1), 2, 5),
        ((1, 2, 1, 1), (1, 1), 2, 6),
        ((2, 2, 1), (1,), 2, None),
        ((1, 2, 2), (1,), 3, None),
    ):
        model = FeedForward(widths, "linear", p=p)
        units = ActiveNeurons.of(model, active)
        w = symbolic("w", model.n_params)
        z = units.index_z(model)
        X = symbolic("x", (1, model.n_inputs))
        scaled = w.copy()
        scaled[z] = delta * w[z]
        coefficients = sp.Poly(polynomial(model.forward(scaled, X)[0, 0]), delta).all_coeffs()[::-1]
        coefficients += [sp.Integer(0)] * (2 * p + 3 - len(coefficients))
        start = w.copy()
        start[z] = sp.Integer(0)
        kept = model.run(start, X)
        C = np.zeros((1, model.n_outputs), dtype=object)
        C[0, 0] = sp.Integer(1)
        g = model.backpropagate(start, kept, C)
        direction = np.zeros(model.n_params, dtype=object)
        direction[z] = w[z]
        matrices = model.unpack(direction)
        H1 = sum(
            (g[layer] @ matrices[layer][:, j])[0] * (kept.hidden[layer - 1] @ matrices[layer - 1][j])[0] ** p
            for layer, inactive in enumerate(units.inactive(model), start=1)
            for j in inactive
        )
        first.append(polynomial(coefficients[p + 1] - H1))
        lowest = len(coefficients) if order is None else order
        absent += [coefficients[k] for k in range(1, lowest) if k != p + 1]
        if order is not None:
            present.append(bool(coefficients[order] != 0))
    ledger.identity("the coefficient of delta^(p+1) is H1", first)
    ledger.identity("no other power below 2p + 1 / 2p + 2; none at all at depth 2", absent)
    ledger.proved("those powers do occur", present)
