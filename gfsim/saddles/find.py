"""Find sparse saddles: train the active neurons alone, polish to machine precision, embed.

A point of the wide net at which the inactive neurons vanish is critical exactly when its active part
is a critical point of the active subnet's loss ([BEYOND], Lemma 16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize

from gfsim.arrays import generator, whole_number
from gfsim.errors import InvalidInput, SaddleNotFound
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.balance import balance
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.saddle import SparseSaddle

STATIONARY = 1e3
"""A gradient below this many units of its own rounding error counts as zero."""


def rounding_level(objective: Objective, w: np.ndarray) -> float:
    """The size of the rounding errors in grad L(w): eps times the norm of the sum of absolute terms.

    At a critical point the terms of the sum over samples cancel; what is left cannot be smaller than
    this, and "machine-level stationarity" means being within a small multiple of it.
    """
    J = objective.model.jacobian(w, objective.X)
    slope = np.abs(objective.pull(objective.model.forward(w, objective.X)))
    size = np.einsum("nkp,nk->p", np.abs(J), slope)
    # labels and outputs that cancel in the residual leave a rounding error of their own size
    scale = objective.scale * 2.0 * (np.abs(objective.y) if objective.loss.name == "square" else 0.0 * slope)
    size = size + np.einsum("nkp,nk->p", np.abs(J), scale)
    return float(np.finfo(float).eps * np.linalg.norm(size))


def newton(objective: Objective, w: np.ndarray, *, iterations: int = 60) -> np.ndarray:
    """Newton's method on grad L = 0 from near a minimum, to the rounding level: (P,).

    Least-squares steps: minima of homogeneous nets come in continua (balance), so the Hessian is
    singular along them and the smallest step is the right one.  Stops as soon as |grad L| no longer
    falls, so the result is never worse than the start.
    """
    best, g = w, objective.gradient(w)
    level = float(np.linalg.norm(g))
    for _ in range(iterations):
        step = np.linalg.lstsq(objective.hessian(best), -g, rcond=1e-11)[0]
        for factor in (1.0, 0.5, 0.1):
            trial = best + factor * step
            g_trial = objective.gradient(trial)
            now = float(np.linalg.norm(g_trial))
            if now < level:
                break
        else:
            break
        best, g, level = trial, g_trial, now
    return best


@dataclass(frozen=True)
class Minimum:
    """A critical point of the active subnet found from one start."""

    w: np.ndarray = field(repr=False)
    loss: float
    gradient: float
    """|grad L| in units of its rounding level."""
    curvature: float
    """Smallest Hessian eigenvalue, relative to the largest."""
    live: bool
    """Whether every active neuron has incoming and outgoing weights."""
    hits: int = 1


def train(objective: Objective, w0: np.ndarray) -> np.ndarray:
    """A local minimum from ``w0`` by a trust-region Newton method with exact Hessians, polished: (P,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = minimize(
            objective.value,
            w0,
            jac=objective.gradient,
            hess=objective.hessian,
            method="trust-exact",
            options={"gtol": 1e-9 * max(1.0, float(np.linalg.norm(objective.gradient(w0)))), "maxiter": 2000},
        )
    return newton(objective, result.x)


def subnet_minima(
    objective: Objective, *, starts: int, rng: np.random.Generator, balanced: bool = True
) -> list[Minimum]:
    """Distinct minima of a (small) feed-forward objective from random starts, lowest loss first.

    Parameters
    ----------
    objective : Objective of a FeedForward model
    starts : int >= 1
        Random Gaussian starts, scaled so that outputs and labels have comparable size.
    balanced : bool
        Move along the continuum of equivalent minima to the balanced one (homogeneous nets).
    """
    if starts < 1:
        raise InvalidInput(f"starts = {starts}; at least one start is needed")
    model = objective.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"subnets are feed-forward networks; got {model.name}")
    found: list[Minimum] = []
    for _ in range(starts):
        w = train(objective, _random_start(objective, model, rng))
        if not np.isfinite(w).all():
            continue
        if balanced and model.degree is not None:
            w = newton(objective, balance(model, w))
        minimum = _describe(objective, model, w)
        for k, other in enumerate(found):
            if abs(other.loss - minimum.loss) <= 1e-8 * max(abs(other.loss), 1e-12 * float(objective.n_samples)):
                better = min(other, minimum, key=lambda m: m.gradient)
                found[k] = Minimum(
                    better.w, better.loss, better.gradient, better.curvature, better.live, other.hits + 1
                )
                break
        else:
            found.append(minimum)
    return sorted(found, key=lambda m: m.loss)


def _random_start(objective: Objective, model: FeedForward, rng: np.random.Generator) -> np.ndarray:
    w = model.pack([rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in model.shapes])
    out = float(np.sqrt(np.mean(model.forward(w, objective.X) ** 2)))
    goal = float(np.sqrt(np.mean(objective.y**2)))
    if model.degree is None or out == 0 or goal == 0:
        return w
    return w * (goal / out) ** (1.0 / model.degree)


def _describe(objective: Objective, model: FeedForward, w: np.ndarray) -> Minimum:
    eigenvalues = np.linalg.eigvalsh(objective.hessian(w))
    matrices = model.unpack(w)
    size = float(np.linalg.norm(w))
    live = all(
        min(np.linalg.norm(W, axis=1).min(), np.linalg.norm(V, axis=0).min()) > 1e-6 * size
        for W, V in pairwise(matrices)
    )
    return Minimum(
        w=w,
        loss=float(objective.value(w)),
        gradient=float(np.linalg.norm(objective.gradient(w))) / max(rounding_level(objective, w), 1e-300),
        curvature=float(eigenvalues[0] / max(eigenvalues[-1], 1e-300)),
        live=live,
    )


def embed(objective: Objective, active: ActiveNeurons, w_n: np.ndarray) -> SparseSaddle:
    """The subnet's weights placed in the wide net, all others zero."""
    model = objective.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"sparse saddles are defined by hidden neurons; {model.name} has none")
    w = np.zeros(model.n_params)
    w[active.index_n(model)] = w_n
    return SparseSaddle(objective, active, w)


def find_saddle(
    objective: Objective,
    active: Sequence[int | Sequence[int]],
    *,
    rng: np.random.Generator,
    starts: int = 12,
    rank: int = 0,
) -> SparseSaddle:
    """The sparse saddle with the given active neurons.

    Parameters
    ----------
    objective : Objective
        Of the wide FeedForward net.
    active : one entry a hidden layer
        A count k (units 0..k-1), or the indices of the active units.
    rng : numpy Generator
        Starts of the active subnet's training.
    starts : int
    rank : int
        0 for the subnet minimum of lowest loss, 1 for the next, ...

    Raises
    ------
    InvalidInput
        For a model without hidden neurons, or counts that do not fit it.
    SaddleNotFound
        When fewer than rank + 1 minima with all neurons alive reach machine-level stationarity.
    """
    model = objective.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"sparse saddles are defined by hidden neurons; {model.name} has none")
    generator(rng)
    whole_number(rank, "rank", least=0)
    chosen = ActiveNeurons.of(model, active)
    if chosen.origin:
        return SparseSaddle(objective, chosen, np.zeros(model.n_params))
    minima = subnet_minima(objective.with_model(chosen.subnet(model)), starts=starts, rng=rng)
    good = [m for m in minima if m.live and m.gradient <= STATIONARY and m.curvature > -1e-8]
    if len(good) <= rank:
        raise SaddleNotFound(
            f"{starts} starts of the active subnet {chosen.widths} gave {len(good)} live stationary minima "
            f"(best residual {min((m.gradient for m in minima), default=np.inf):.1e} rounding units) and rank = {rank} "
            "was asked for; raise starts, or check that the loss has a finite minimum (a separable logistic loss "
            "has none) and that the activation is smooth there"
        )
    return embed(objective, chosen, good[rank].w)


def nearby_saddle(objective: Objective, w: np.ndarray, active: ActiveNeurons) -> SparseSaddle:
    """The saddle that a trajectory passes: the active part of ``w`` polished, the rest set to zero.

    Parameters
    ----------
    objective : Objective
        Of the wide FeedForward net.
    w : (P,)
        A point of the plateau.
    active : ActiveNeurons
        Which neurons are alive there, e.g. by :func:`gfsim.saddles.neurons.split_by_norm`.

    Raises
    ------
    InvalidInput
        For a model without hidden neurons.
    SaddleNotFound
        When the polish does not reach machine-level stationarity.
    """
    model = objective.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"sparse saddles are defined by hidden neurons; {model.name} has none")
    if active.origin:
        return SparseSaddle(objective, active, np.zeros(model.n_params))
    small = objective.with_model(active.subnet(model))
    w_n = newton(small, w[active.index_n(model)])
    size = float(np.linalg.norm(small.gradient(w_n))) / max(rounding_level(small, w_n), 1e-300)
    if size > STATIONARY:
        w_n = train(small, w_n)
        size = float(np.linalg.norm(small.gradient(w_n))) / max(rounding_level(small, w_n), 1e-300)
    if size > STATIONARY:
        raise SaddleNotFound(
            f"no stationary point near the given weights: the residual stays at {size:.1e} rounding units; "
            "take a later point of the plateau, or another split of the neurons"
        )
    return embed(objective, active, w_n)
