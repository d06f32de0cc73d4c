"""The NCF at the origin: N(u) = <ytilde, H(X; u)> over all weights, and its maxima on the sphere.

docs/theory.md, section 2; ytilde = -l'(0, y) times the objective's reduction factor.  From small
weights the training flow first follows du/dt = grad N(u), so the maxima of N on the unit sphere are
the directions in which it can leave the origin, and the first step of Neuron Pursuit.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.base import Model, require_homogeneous
from gfsim.models.feedforward import FeedForward
from gfsim.ncf import ridge
from gfsim.ncf.kkt import ZERO_VALUE, KKTPoint, distinct, make_point, polish
from gfsim.objective import Objective

BATCH_ENTRIES = 4_000_000
"""Numbers that one batch of starts may hold per layer; more starts are taken in turns."""

NEWTON_SIZE = 1200
"""Above this many weights the (P, P) systems of the polish are left out and the ascent decides."""


class OriginNCF:
    """N(u) = sum_ik ytilde_ik H_k(x_i; u); satisfies :class:`gfsim.ncf.kkt.Correlation`.

    Any homogeneous model of degree >= 2 will do.  ``u`` is (..., P), P the number of weights.  Values are in the
    convention of the objective: with a mean they are smaller by the number of samples, and times longer.

    Parameters
    ----------
    objective : Objective
        Its data and loss give ytilde = -l'(0, y), its model H.

    Raises
    ------
    NotHomogeneous
        For a model without a degree, or of a degree below 2 (the origin is then no saddle).
    """

    def __init__(self, objective: Objective) -> None:
        self.degree = require_homogeneous(objective.model, "the NCF at the origin", least=2.0)
        self.objective = objective
        self.model = objective.model
        self.size = objective.model.n_params
        self.ytilde: np.ndarray = objective.pull(np.zeros_like(objective.y))

    def __repr__(self) -> str:
        return f"OriginNCF({self.objective!r})"

    def value(self, u: np.ndarray) -> np.ndarray:
        """N at (..., P): (...)."""
        return (self.ytilde * self.model.forward(u, self.objective.X)).sum((-2, -1))

    def contributions(self, u: np.ndarray) -> np.ndarray:
        """What each sample adds to N at one point (P,): (n,)."""
        shares: np.ndarray = (self.ytilde * self.model.forward(u, self.objective.X)).sum(-1)
        return shares

    def gradient(self, u: np.ndarray) -> np.ndarray:
        """grad N at (..., P): (..., P)."""
        return self.model.pullback(u, self.objective.X, self.ytilde)

    def value_and_gradient(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both at (..., P), from one gradient: N = <u, grad N> / D by Euler's identity."""
        g = self.gradient(u)
        return (u * g).sum(-1) / self.degree, g

    def hessian(self, u: np.ndarray) -> np.ndarray:
        """Hess N at one point (P,): (P, P)."""
        return self.model.curvature(u, self.objective.X, self.ytilde)

    @property
    def scale(self) -> float:
        """sum_i |ytilde_i| |x_i|^(degree in x), against which N counts as zero.

        It bounds |N| on the unit sphere up to the slopes of the activation for feed-forward nets; for
        another model |x| does not enter, as nothing is known of how H grows with x.
        """
        pull = np.linalg.norm(self.ytilde, axis=1)
        if isinstance(self.model, FeedForward) and self.model.activation.power is not None:
            power = self.model.activation.power ** (self.model.depth - 1)
            return float((pull * np.linalg.norm(self.objective.X, axis=1) ** power).sum())
        return float(pull.sum())


def maximise(
    ncf: OriginNCF, *, starts: int = 64, rng: np.random.Generator, keep: int = 8, iterations: int = 2000
) -> list[KKTPoint]:
    """Local maxima of N on the unit sphere with N > 0, best first.

    ``starts`` random unit vectors follow u <- grad N / |grad N| + c u together, c >= 0 raised where a
    step would lower N.  The best ``keep`` ends, up to permutations and sign changes of hidden neurons
    (:func:`canonical`), are refined: by Newton's method where N is smooth; exactly, corner by corner,
    for p = 1 nets with one neuron a layer.  For wider p = 1 nets the ascent's own end is returned and
    its ``residual`` tells how sharp it is: at a maximum on a kink it need not be small.

    Starts at which N and its gradient vanish (dead ReLU units) stay there and are not counted.

    Returns
    -------
    list of KKTPoint
        Empty when no start finds N > 0, for instance because N vanishes identically.
    """
    if isinstance(starts, bool) or starts < 1 or keep < 1 or iterations < 1:
        raise InvalidInput(f"starts = {starts}, keep = {keep}, iterations = {iterations}; each must be at least 1")
    U = rng.normal(size=(starts, ncf.size))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    widest = max(ncf.model.widths) if isinstance(ncf.model, FeedForward) else max(ncf.size, 1)
    batch = max(1, BATCH_ENTRIES // (ncf.objective.n_samples * widest))
    U = np.concatenate([_ascend(ncf, U[k : k + batch], iterations) for k in range(0, starts, batch)])
    value = ncf.value_and_gradient(U)[0]
    floor = ZERO_VALUE * ncf.scale
    ends = [
        KKTPoint(canonical(ncf.model, u) if isinstance(ncf.model, FeedForward) else u, float(v), math.nan, math.nan, 1)
        for u, v in zip(U, value, strict=True)
        if v > floor
    ]
    if _is_kinked_chain(ncf.model):  # the ends are still on their way along ridges
        groups = distinct(ends, cosine=0.95, value_rtol=0.1)[:keep]
        points = [_refine_chain(ncf, group.u, group.hits) for group in groups]
    else:
        groups = distinct(ends, cosine=1 - 1e-4, value_rtol=1e-4)[:keep]
        points = [_refine(ncf, group.u, group.hits) for group in groups]
    return distinct([point for point in points if point.value > floor])


def _ascend(ncf: OriginNCF, U: np.ndarray, iterations: int) -> np.ndarray:
    """Normalised ascent of all rows at once; N never decreases on any of them."""
    U = U.copy()
    value, g = ncf.value_and_gradient(U)
    shift = np.zeros(len(U))
    running = np.linalg.norm(g, axis=1) > 0
    for _ in range(iterations):
        rows = np.flatnonzero(running)
        if rows.size == 0:
            break
        size = np.linalg.norm(g[rows], axis=1, keepdims=True)
        trial = g[rows] / size + shift[rows, None] * U[rows]
        length = np.linalg.norm(trial, axis=1, keepdims=True)
        trial = np.where(length > 0, trial / np.where(length > 0, length, 1.0), U[rows])
        new_value, new_g = ncf.value_and_gradient(trial)
        better = new_value > value[rows]
        up, down = rows[better], rows[~better]
        gain = new_value[better] - value[up]
        U[up], value[up], g[up] = trial[better], new_value[better], new_g[better]
        shift[up] *= 0.7
        shift[down] = 2.0 * shift[down] + 0.5
        running[up[gain <= 1e-15 * np.abs(value[up])]] = False
        running[down[shift[down] > 1e6]] = False
        running[np.linalg.norm(g, axis=1) == 0] = False
    return U


def _refine(ncf: OriginNCF, u: np.ndarray, hits: int) -> KKTPoint:
    model = ncf.model
    if ncf.size <= NEWTON_SIZE and not _kinked(model):
        better = polish(ncf, u)
        if float(ncf.value(better)) >= float(ncf.value(u)) * (1 - 1e-9):
            u = better
    return make_point(ncf, canonical(model, u) if isinstance(model, FeedForward) else u, hits=hits)


def _kinked(model: Model) -> bool:
    return (
        isinstance(model, FeedForward)
        and isinstance(model.activation, HomogeneousActivation)
        and not model.activation.smooth
    )


# -- one neuron a layer, with kinks --------------------------------------------------------------------


def _is_kinked_chain(model: Model) -> bool:
    return isinstance(model, FeedForward) and _kinked(model) and set(model.hidden_widths) == {1}


def _refine_chain(ncf: OriginNCF, u: np.ndarray, hits: int) -> KKTPoint:
    """The maximum uphill of ``u`` for H = W_L s(w_{L-1} s(... s(a.x))), p = 1, w_l scalars.

    For fixed signs of the w_l the composed activation is again piecewise linear with one kink at zero,
    so N is |product of the w_l| times a one-neuron function of (a, W_L), and at a maximum all L
    matrices have the same norm, 1/sqrt(L) (balance with p = 1).
    """
    model = ncf.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"{model.name} is not a feed-forward chain")
    first, *middle, last = model.unpack(u)
    signs = [1.0 if float(w[0, 0]) >= 0 else -1.0 for w in middle]
    side = np.array([-1.0, 1.0])
    s = model.activation.value(side)
    for sign in signs:
        s = model.activation.value(sign * s)
    left, right = -float(s[0]), float(s[1])
    X, G = ncf.objective.X, ncf.ytilde
    if left > right:  # concave: the same function is convex with the pull reversed
        left, right, G = -left, -right, -G
    a = first[0] / np.linalg.norm(first)
    if left < right:
        a = ridge.climb(a, X, G, left, right)
    z = X @ a
    P = G.T @ (np.where(z > 0, right, left) * z)
    b = P / np.linalg.norm(P) if P.any() else last[:, 0] / np.linalg.norm(last)
    norm = 1 / math.sqrt(model.depth)
    out = model.pack([norm * a[None], *[np.full((1, 1), norm * sign) for sign in signs], norm * b[:, None]])
    value = float(ncf.value(out))
    share = norm ** (model.depth - 1)  # of everything above the first layer
    rest = ncf.gradient(out) - ncf.degree * value * out
    of_a = ridge.distance(ncf.degree * value * norm * a, a, X, share * (G @ b), left, right)
    basis = np.eye(ncf.size)[:, first.size :]
    E = ridge.kink_basis(a, X)
    basis = np.concatenate([np.vstack([E, np.zeros((ncf.size - first.size, E.shape[1]))]), basis], axis=1)
    return KKTPoint(
        u=out,
        value=value,
        residual=float(np.hypot(of_a, np.linalg.norm(rest[first.size :]))),
        gap=ridge.gap_within(ncf, out, basis),
        hits=hits,
    )


# -- symmetries ----------------------------------------------------------------------------------------


def canonical(model: FeedForward, u: np.ndarray) -> np.ndarray:
    """One representative of ``u`` (P,) under permutations and sign changes of hidden neurons.

    H is unchanged.  Layer by layer: where s(-z) = +-s(z), the largest incoming weight of each neuron is
    made positive; then the neurons are ordered by norm and, among equals, by their incoming weights.
    """
    matrices = [W.copy() for W in model.unpack(u)]
    flip = model.activation.flips_sign
    for incoming, l in zip(matrices[:-1], range(1, model.depth), strict=True):
        outgoing = matrices[l]
        if flip:
            largest = incoming[np.arange(len(incoming)), np.argmax(np.round(np.abs(incoming), 9), axis=1)]
            sign = np.where(largest < 0, -1.0, 1.0)
            incoming *= sign[:, None]
            if flip < 0:
                outgoing *= sign
        norm = np.sqrt((incoming**2).sum(1) + (outgoing**2).sum(0))
        keys = np.round(np.column_stack([norm, incoming]), 6)
        order = np.lexsort(-keys.T[::-1])
        incoming[:] = incoming[order]
        outgoing[:] = outgoing[:, order]
    return model.pack(matrices) + 0.0
