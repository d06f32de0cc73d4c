"""Two-layer linear nets learn the singular modes of the target one after the other.

Hypotheses.  H = W_2 W_1 x with orthonormal inputs (X'X = I), or the factorisation U V' of a fully observed matrix; sum
of squares (q - y)^2; a start of size delta; the target has singular values s_1 > s_2 > ... > 0.

Conclusion.  A balanced, aligned mode obeys du/dt = 4 u (s - u), hence u = s e^(4st) / (e^(4st) - 1 + s/u_0).  From a
random start mode k reaches s_k/2 at a time t_k with t_k / ln(1/delta) -> 1/(2 s_k), so the modes come in the order of
their singular values, and between t_1 and t_2 the product is the best approximation of rank one: a sparse saddle.

Source.  Saxe, McClelland and Ganguli 2014; Gidel, Bach and Lacoste-Julien 2019; Li, Luo and Lyu 2021.

Control.  Inputs that are not orthonormal, against the singular values of the same target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gfsim.flow.events import Event, Probe
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import MatrixFactorisation
from gfsim.objective import Objective
from proofs_checks.statement import Context, Ledger

SIZE = 3
DELTAS = np.logspace(-2, -6, 5)


@dataclass(frozen=True)
class Problem:
    """An objective whose product matrix (SIZE, SIZE) is to become ``target``."""

    objective: Objective
    target: np.ndarray
    product: Callable[[np.ndarray], np.ndarray]


def problems(rng: np.random.Generator) -> list[Problem]:
    """The same target for the factorisation and for the two-layer net."""
    target = _target(rng)
    return [_factorisation(target), _net(target, np.linalg.qr(rng.standard_normal((SIZE + 2, SIZE)))[0])]


def _target(rng: np.random.Generator) -> np.ndarray:
    left, right = (np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0] for _ in range(2))
    # ratios of at least 1.3 between neighbours, so that the plateaus are there at these deltas
    s = np.array([2.4, 1.5, 0.9]) * rng.uniform(0.95, 1.05, SIZE)
    return (left * s) @ right.T


def _factorisation(target: np.ndarray) -> Problem:
    model = MatrixFactorisation(SIZE, SIZE, SIZE)

    def product(w: np.ndarray) -> np.ndarray:
        U, V = model.unpack(w)
        return U @ V.mT

    return Problem(Objective(model, np.eye(SIZE * SIZE), target.ravel()), target, product)


def _net(target: np.ndarray, X: np.ndarray) -> Problem:
    model = FeedForward((SIZE, SIZE, SIZE), "linear")

    def product(w: np.ndarray) -> np.ndarray:
        first, second = model.unpack(w)
        return second @ first

    return Problem(Objective(model, X, X @ target.T), target, product)


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    closed, rates, order, ranks, control = [], [], [], [], []
    for rng in ctx.draws("modes", 1, 4):
        for problem in problems(rng):
            closed.append(_closed_form_error(problem))
            w0 = rng.standard_normal(problem.objective.model.n_params)
            w0 /= np.linalg.norm(w0)
            rates += _rate_errors(problem, w0, ledger)
            times, gap = passage(problem, w0, float(DELTAS[-1]))
            order.append(float((np.diff(times) <= 0).sum()))
            ranks.append(gap)
        frame = np.linalg.qr(rng.standard_normal((SIZE + 2, SIZE)))[0]
        skewed = _net(_target(rng), frame * np.array([1.4, 1.0, 0.8]))
        control.append(max(_rate_errors(skewed, w0, ledger, broken=True)))
    ledger.at_most("aligned modes against the closed form", closed, 1e-7, "rtol 1e-10 over some hundred steps")
    ledger.at_most("t_k per ln(1/delta) against 1/(2 s_k), relative", rates, 0.02, "a limit; fitted over four decades")
    ledger.at_most("modes that come out of order", order, 0.0, "a count")
    ledger.at_most(
        "distance from the best rank-one matrix between t_1 and t_2, relative, delta = 1e-6",
        ranks,
        0.02,
        "mode 2 is then still of order delta^(1 - s_2/s_1), about 1e-2 or less",
    )
    ledger.control("t_k per ln(1/delta) against 1/(2 s_k), relative", control, 0.02, "the inputs are not orthonormal")


def passage(problem: Problem, w0: np.ndarray, delta: float) -> tuple[np.ndarray, float]:
    """Times at which the modes reach half of their singular values, and the distance from rank one in between."""
    left, s, right = np.linalg.svd(problem.target)

    def mode(k: int) -> Event:
        def gap(p: Probe) -> float:
            return float(left[:, k] @ problem.product(p.w) @ right[k]) - 0.5 * float(s[k])

        return Event(f"mode {k}", gap, 1)

    run = simulate(
        problem.objective,
        delta * w0,
        t_end=2.0 * math.log(1 / delta) / float(s[-1]),  # four times the law's time for the last mode
        method="LSODA",
        rtol=1e-8,
        events=[mode(k) for k in range(SIZE)],
    )
    names = {e.name: e.t for e in run.events}
    times = np.array([names.get(f"mode {k}", math.nan) for k in range(SIZE)])
    between = [row for t, row in zip(run.t, run.w, strict=True) if times[0] < t < times[1]]
    first = float(s[0]) * np.outer(left[:, 0], right[0])
    gaps = [float(np.linalg.norm(problem.product(w) - first)) / float(s[0]) for w in between]
    return times, min(gaps, default=math.nan)


def _rate_errors(problem: Problem, w0: np.ndarray, ledger: Ledger, *, broken: bool = False) -> list[float]:
    s = np.linalg.svd(problem.target)[1]
    times = np.array([passage(problem, w0, float(d))[0] for d in DELTAS])
    if np.isnan(times).any():
        return [math.nan]
    slopes = np.polyfit(np.log(1 / DELTAS), times, 1)[0]
    panel = f"2 s_k t_k, {'inputs not orthonormal (control)' if broken else problem.objective.model.name}"
    for k, sigma in enumerate(s):
        scaled = 2 * float(sigma) * times[:, k]
        ledger.curve(panel, f"mode {k + 1}", DELTAS, scaled, stated=1.0, axes="semilog", broken=broken)
    return [float(e) for e in np.abs(slopes * 2 * s - 1.0)]


def _closed_form_error(problem: Problem) -> float:
    """From a balanced start aligned with the target's singular vectors."""
    left, s, right = np.linalg.svd(problem.target)
    u0 = 1e-3
    into = math.sqrt(u0) * right
    out = math.sqrt(u0) * left
    model = problem.objective.model
    net = isinstance(model, FeedForward)
    w0 = np.concatenate([into.ravel(), out.ravel()] if net else [out.ravel(), into.T.ravel()])
    t = np.linspace(0.1, 4.0, 20)
    run = simulate(problem.objective, w0, t_end=4.0, method="DOP853", rtol=1e-10, t_eval=t)
    if not run.ok:
        return math.nan
    worst = 0.0
    for w, time in zip(run.w[1:], t, strict=True):
        u = s * np.exp(4 * s * time) / (np.exp(4 * s * time) - 1 + s / u0)
        worst = max(worst, float(np.abs(problem.product(w) - (left * u) @ right).max()))
    return worst


def _symbols(ledger: Ledger) -> None:
    import sympy as sp

    t, s, u0 = sp.symbols("t s u0", positive=True)
    u = s * sp.exp(4 * s * t) / (sp.exp(4 * s * t) - 1 + s / u0)
    ledger.identity(
        "the formula solves du/dt = 4 u (s - u), u(0) = u0", [sp.diff(u, t) - 4 * u * (s - u), u.subs(t, 0) - u0]
    )
    # the library's gradient of one balanced mode: a = b, u = a b
    a = sp.Symbol("a", positive=True)
    o = Objective(FeedForward((1, 1, 1), "linear"), [[1.0]], [1.0])
    o.y = np.array([[s]], dtype=object)
    g = o.gradient(np.array([a, a], dtype=object))
    ledger.identity("a balanced mode of the net obeys that equation", [-(g[0] + g[1]) * a - 4 * a**2 * (s - a**2)])
    half = sp.log((s / u0) - 1) / (4 * s)
    d = sp.Symbol("d", positive=True)
    rate = sp.limit(half.subs({u0: d**2, s: sp.Rational(3, 2)}) / -sp.log(d), d, 0, "+")
    ledger.identity(
        "u = s/2 at ln(s/u0 - 1)/(4s): ln(1/delta)/(2s) for u0 = delta^2",
        [u.subs(t, half) - s / 2, rate - sp.Rational(1, 3)],
    )
