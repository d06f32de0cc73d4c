"""KKT points of the neural correlation function.

Hypotheses.  N(u) = <ytilde, H(X; u)> at the origin, H homogeneous of degree D >= 2; u* a KKT point of "maximise N
on |u| = 1" with N(u*) > 0; two layers for the last part.

Conclusion.  grad N(u*) = D N(u*) u*.  Every hidden neuron is balanced, |incoming|^2 = p |outgoing|^2.  If
D N(u*) - b' Hess N(u*) b >= Delta > 0 for all unit b orthogonal to u*, then along every great circle from u* the
function N falls off as Delta theta^2 / 2 or faster.  A strict maximum of a two-layer net with p >= 2 sits on one
neuron; with p = 1 a neuron may be split into (cos t, sin t) copies at no cost, so there are ties.

Source.  [BEYOND], section 2 and Lemma 17; [2L], [DEEP]; the last part: docs/theory.md, section 4 (our reading).

Control.  Unit vectors that are no KKT points; zero KKT points (a dead ReLU^2 neuron), which need not be balanced; the
split at p = 2.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.models.feedforward import FeedForward
from gfsim.ncf.kkt import KKTPoint, make_point, residual, tangent_basis
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.objective import Objective
from proofs_checks.balance import neuron_balance
from proofs_checks.instances import random_objective
from proofs_checks.statement import Context, Ledger

NETS = (
    ((3, 3, 1), "square", 2),
    ((3, 3, 2), "relu", 2),
    ((3, 2, 2), "leaky", 3),
    ((3, 3, 2), "linear", 1),
    ((3, 2, 2, 1), "square", 2),
    ((3, 2, 2, 2), "linear", 1),
)

POLISHED = 1e-8
"""Newton's method leaves rounding; 1e-8 allows for a second-order gap that is small against N."""


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    residuals, unbalanced, shortfalls, deviations, neurons, splits = [], [], [], [], [], []
    for rng in ctx.draws("points", 3):
        for widths, name, p in NETS:
            model = FeedForward(widths, name, p=p)
            ncf = OriginNCF(random_objective(model, rng))
            points = maximise(ncf, starts=12, rng=rng, keep=3)
            for point in points:
                residuals.append(_kkt(ncf, point))
                unbalanced.append(float(np.abs(neuron_balance(model, point.u, p)).max()))
                if point.gap > 1e-2 * point.value:
                    shortfall, deviation = _falls(ncf, point, rng)
                    shortfalls.append(shortfall)
                    deviations.append(deviation)
                    if model.depth == 2 and p >= 2:
                        neurons.append(_rest(model, point.u))
            if model.depth == 2 and p == 1 and points:
                splits.append(_split_loss(ncf, model, points[0]))
    ledger.at_most("|grad N - D N u| at the points found, relative to N", residuals, POLISHED, "Newton's method")
    ledger.at_most("||in|^2 - p |out|^2| at positive KKT points", unbalanced, POLISHED, "Newton's method")
    why = "second differences at theta = 1e-4; terms of fourth order are below 1e-3 of it where Delta >= N/100"
    ledger.at_most("shortfall of N's fall along great circles against Delta theta^2 / 2", shortfalls, 0.01, why)
    ledger.at_most("deviation of the slowest fall from Delta theta^2 / 2 (Delta is sharp)", deviations, 0.01, why)
    ledger.at_most("weight off the largest neuron at strict maxima, p >= 2", neurons, 1e-8, "Newton's method")
    ledger.at_most("change of N when a neuron is split in two, p = 1", splits, 1e-12, "rounding of two sums")
    _controls(ctx, ledger)


def _kkt(ncf: OriginNCF, point: KKTPoint) -> float:
    """With grad N from the values of N alone, so that no formula for it is trusted."""
    h = 1e-4
    size = ncf.size
    steps = h * np.eye(size)
    # fourth order: the error is about 1e-16 h^-1 + h^4, both below 1e-11
    g = (
        8 * (ncf.value(point.u + steps) - ncf.value(point.u - steps))
        - (ncf.value(point.u + 2 * steps) - ncf.value(point.u - 2 * steps))
    ) / (12 * h)
    return float(np.linalg.norm(g - ncf.degree * point.value * point.u)) / point.value


def _falls(ncf: OriginNCF, point: KKTPoint, rng: np.random.Generator) -> tuple[float, float]:
    """Shortfall of N's fall against Delta theta^2 / 2 in random directions, and its deviation in the slowest one."""
    theta = 1e-4
    basis = tangent_basis(point.u)
    slowest = basis @ np.linalg.eigh(basis.T @ ncf.hessian(point.u) @ basis)[1][:, -1]
    ratios = []
    for b in [slowest, *(basis @ rng.standard_normal((basis.shape[1], 8))).T]:
        b = b / np.linalg.norm(b)
        sides = [float(ncf.value(math.cos(theta) * point.u + s * math.sin(theta) * b)) for s in (1, -1)]
        ratios.append((point.value - 0.5 * sum(sides)) / (0.5 * point.gap * theta**2))
    return max(0.0, 1.0 - min(ratios)), abs(ratios[0] - 1.0)


def _rest(model: FeedForward, u: np.ndarray) -> float:
    """Norm of all hidden neurons of a two-layer net but the largest."""
    return float(np.linalg.norm(np.sort(model.neuron_norms(u)[0])[:-1]))


def split(model: FeedForward, u: np.ndarray, angle: float) -> np.ndarray:
    """The largest neuron of a two-layer net shared out, (cos, sin) times its weights, over it and another one."""
    W, V = (M.copy() for M in model.unpack(u))
    order = np.argsort(-model.neuron_norms(u)[0])
    k, j = int(order[0]), int(order[-1])
    W[j], V[:, j] = math.sin(angle) * W[k], math.sin(angle) * V[:, k]
    W[k], V[:, k] = math.cos(angle) * W[k], math.cos(angle) * V[:, k]
    return model.pack([W, V])


def _split_loss(ncf: OriginNCF, model: FeedForward, point: KKTPoint) -> float:
    W, V = (M.copy() for M in model.unpack(point.u))
    keep = int(np.argmax(model.neuron_norms(point.u)[0]))
    for M in (W.T, V):  # on one neuron first; p = 1 leaves the maximum where it is
        M[:, [j for j in range(M.shape[1]) if j != keep]] = 0.0
    one = model.pack([W, V])
    one /= np.linalg.norm(one)
    return abs(float(ncf.value(split(model, one, 0.7))) / float(ncf.value(one)) - 1.0)


def _symbols(ledger: Ledger) -> None:
    import sympy as sp

    # one neuron: N = <b, P(a)>, <a, dN/da> = p N and <b, dN/db> = N; with grad N = D N u this is the balance
    p, N, D, a2, b2 = sp.symbols("p N D a2 b2", positive=True)
    solved = sp.solve([D * N * a2 - p * N, D * N * b2 - N], [a2, b2], dict=True)[0]
    ledger.identity("Euler for one neuron and the KKT equation give |a|^2 = p |b|^2", [solved[a2] - p * solved[b2]])
    t = sp.Symbol("t", real=True)
    ledger.identity("a split costs nothing at p = 1: cos^2 + sin^2 = 1", [sp.cos(t) ** 2 + sp.sin(t) ** 2 - 1])
    # with c, s >= 0, c^2 + s^2 = 1: 1 - c^K - s^K = c^2 (1 - c^(K-2)) + s^2 (1 - s^(K-2))
    c, s = sp.symbols("c s", nonnegative=True)
    costs = [
        (1 - c**K - s**K - c**2 * (1 - c ** (K - 2)) - s**2 * (1 - s ** (K - 2))).subs(s, sp.sqrt(1 - c**2))
        for K in (3, 4, 5)
    ]
    ledger.identity("and at p = 2, 3, 4 the sum of two terms c^2 (1 - c^(p-1)), positive for 0 < c < 1", costs)


def _controls(ctx: Context, ledger: Ledger) -> None:
    random, dead, splits = [], [], []
    for rng in ctx.draws("control", 4):
        for widths, name, p in NETS:
            ncf = OriginNCF(random_objective(FeedForward(widths, name, p=p), rng))
            u = rng.standard_normal(ncf.size)
            u /= np.linalg.norm(u)
            random.append(float(residual(ncf, u)) / max(abs(float(ncf.value(u))), 1e-300))
        model = FeedForward((3, 2, 1), "relu", p=2)
        X = np.abs(rng.standard_normal((5, 3)))
        ncf = OriginNCF(Objective(model, X, rng.standard_normal(5)))
        W = np.zeros((2, 3))
        W[0] = -np.abs(rng.standard_normal(3))  # dead on all data, and a KKT point with N = 0
        point = make_point(ncf, model.pack([W, np.zeros((1, 2))]))
        if point.residual <= POLISHED:
            dead.append(float(np.abs(neuron_balance(model, point.u, 2)).max()))
        square = FeedForward((3, 2, 1), "square")
        ncf = OriginNCF(random_objective(square, rng))
        found = maximise(ncf, starts=12, rng=rng, keep=1)[0]
        splits.append(abs(float(ncf.value(split(square, found.u, 0.7))) / found.value - 1.0))
    ledger.control("|grad N - D N u| over |N|", random, POLISHED, "random unit vectors")
    ledger.control("||in|^2 - p |out|^2| at KKT points", dead, POLISHED, "N = 0: a dead neuron")
    ledger.control("change of N when a neuron is split in two", splits, 1e-12, "p = 2")
