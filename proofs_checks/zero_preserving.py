"""The weights into and out of any set of hidden neurons form a zero-preserving subset.

Hypotheses.  A feed-forward net with a differentiable activation with s(0) = 0 (homogeneous or not), any
depth, any loss, any data; w_z = all incoming and all outgoing weights of a set of hidden neurons.

Conclusion.  Where w_z = 0, also dL/dw_z = 0: the flow keeps these weights at zero for ever.

Source.  [BEYOND], Lemma 16.

Control.  Only the outgoing weights of a neuron; only the incoming ones (s'(0) != 0); an activation with
s(0) != 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gfsim.arrays import Array, namespace
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.neurons import ActiveNeurons
from proofs_checks.instances import random_objective, relative
from proofs_checks.statement import Context, Ledger

EXACT = "the products have an exactly zero factor, so not even rounding is left"

ACTIVATIONS = (("tanh", None), ("gelu", None), ("relu", 1), ("relu", 2), ("square", 2), ("leaky", 1), ("linear", 3))


@dataclass(frozen=True)
class Shifted:
    """cos z, an activation that does not vanish at zero."""

    name: str = "cosine"
    power: None = None
    smooth: bool = True
    flips_sign: int = 1

    def value(self, z: Array) -> Array:
        return namespace(z).cos(z)

    def value_and_slope(self, z: Array) -> tuple[Array, Array]:
        return namespace(z).cos(z), -namespace(z).sin(z)

    def curvature(self, z: Array) -> Array:
        return -namespace(z).cos(z)


def neuron_mask(model: FeedForward, inactive: tuple[tuple[int, ...], ...], which: str) -> np.ndarray:
    """Weights into ("in"), out of ("out") or both of the given units, built on the matrices: (P,) of bool."""
    masks = [np.zeros(shape, dtype=bool) for shape in model.shapes]
    for layer, units in enumerate(inactive):
        for j in units:
            if which in ("in", "both"):
                masks[layer][j, :] = True
            if which in ("out", "both"):
                masks[layer + 1][:, j] = True
    return model.pack(masks)


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    leaks, sets, kept = [], [], []
    for rng in ctx.draws("leaks", 4):
        for name, p in ACTIVATIONS:
            for widths in ((3, 4, 2), (3, 4, 3, 1), (2, 3, 3, 3, 2)):
                model = FeedForward(widths, name, p=p)
                active = _some_units(model, rng)
                o = random_objective(model, rng, loss=str(rng.choice(["square", "logistic"])))
                mask = neuron_mask(model, active.inactive(model), "both")
                sets.append(float(np.setxor1d(np.flatnonzero(mask), active.index_z(model)).size))
                leaks.append(_leak(o, mask, rng))
    for rng in ctx.draws("flow", 2):
        model = FeedForward((3, 4, 3, 1), str(rng.choice(["tanh", "square"])))
        index = _some_units(model, rng).index_z(model)
        o = random_objective(model, rng, reduction="mean")
        w = 0.5 * rng.standard_normal(model.n_params)
        w[index] = 0.0
        run = simulate(o, w, t_end=2.0, method="RK45")
        kept.append(float(np.abs(run.w[:, index]).max()) if run.ok else np.nan)
    ledger.at_most("places where w_z differs from the neurons' rows and columns", sets, 0.0, "sets of indices")
    ledger.at_most("|dL/dw_z| where w_z = 0, relative to |dL/dw|", leaks, 0.0, EXACT)
    ledger.at_most("|w_z| along flows from w_z = 0", kept, 0.0, EXACT)
    _controls(ctx, ledger)


def _some_units(model: FeedForward, rng: np.random.Generator) -> ActiveNeurons:
    """Between one and all but one active unit in every layer."""
    return ActiveNeurons.of(
        model,
        [rng.choice(width, size=int(rng.integers(1, width)), replace=False).tolist() for width in model.hidden_widths],
    )


def _leak(o: Objective, mask: np.ndarray, rng: np.random.Generator) -> float:
    w = np.where(mask, 0.0, rng.standard_normal(mask.size))
    g = o.gradient(w)
    return relative(g[mask], g)


def _symbols(ledger: Ledger) -> None:
    import sympy

    leaks = []
    for p in (1, 2, 3):
        model = FeedForward((1, 2, 2, 1), "linear", p=p)
        for active in ((0,), (0, 1)), ((0, 1), (0,)), ((0,), (0,)):
            w = np.array(sympy.symbols(f"w:{model.n_params}", real=True), dtype=object)
            x, c = sympy.symbols("x c", real=True)
            index = ActiveNeurons.of(model, active).index_z(model)
            w[index] = sympy.Integer(0)
            g = model.pullback(w, np.array([[x]], dtype=object), np.array([[c]], dtype=object))
            leaks += list(g[index])
    ledger.identity("dH/dw_z = 0 where w_z = 0, for symbols, s = z^p", leaks)


def _controls(ctx: Context, ledger: Ledger) -> None:
    outgoing, incoming, shifted = [], [], []
    for rng in ctx.draws("control", 5):
        for widths in ((3, 4, 2), (3, 4, 3, 1)):
            model = FeedForward(widths, "tanh")
            units = _some_units(model, rng).inactive(model)[:1]
            o = random_objective(model, rng)
            outgoing.append(_leak(o, neuron_mask(model, units, "out"), rng))
            incoming.append(_leak(o, neuron_mask(model, units, "in"), rng))
            odd = FeedForward(widths, Shifted())
            shifted.append(_leak(random_objective(odd, rng), neuron_mask(odd, units, "both"), rng))
    what = "|dL/dw_z| where w_z = 0, relative to |dL/dw|"
    ledger.control(what, outgoing, 0.0, "w_z holds the outgoing weights only")
    ledger.control(what, incoming, 0.0, "w_z holds the incoming weights only")
    ledger.control(what, shifted, 0.0, "s(0) = 1")
