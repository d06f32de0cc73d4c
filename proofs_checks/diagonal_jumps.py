"""Diagonal linear nets jump from saddle to saddle, at times and to points that an algorithm tells beforehand.

Hypotheses.  H = <x, u v> (entrywise), sum of squares (q - y)^2, any inputs of full rank; the start u = delta, v = 0.

Conclusion.  In units of ln(1/delta) the flow tends, as delta -> 0, to a process that jumps: with
s(t) = -integral of grad_theta L / ln(1/delta), coordinate i of theta = u v is zero while |s_i| < 1; when s_i reaches +1
or -1, it is set free with that sign, and theta jumps to the least loss on the free coordinates under their signs (those
that come out zero are bound again).  Between jumps theta rests at sparse saddles.  For orthonormal inputs coordinate i
jumps at ln(1/delta)/(2 |<x_i, y>|), so that they come in the order of the correlations.

Source.  Pesme and Flammarion 2023 (for the square loss with 1/(4n); times are scaled to the sum here); Berthier 2023;
docs/theory.md, section 7.

Control.  Jump times from the correlations with the labels alone, <x_i, y>, on correlated inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import nnls

from gfsim.flow.events import Event, Probe
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective
from proofs_checks.fitting import EQUAL
from proofs_checks.instances import Search
from proofs_checks.statement import Context, Ledger

INPUTS = 4
DELTAS = np.logspace(-4, -9, 6)
SETTLED = 6.0
"""Relaxation times that every plateau must last at the largest delta: the flow is at the saddle when it leaves."""


@dataclass(frozen=True)
class Jump:
    """A jump of the limit process: its time in ln(1/delta), the coordinate set free, theta before and after, and s."""

    time: float
    coordinate: int
    before: np.ndarray
    after: np.ndarray
    s: np.ndarray


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    times, rests, wrong, order = [], [], [], []
    for rng in ctx.draws("problems", 5):
        o, jumps = problem(rng, correlated=True)
        times += slopes(o, jumps)
        rests += plateaus(o, jumps, float(DELTAS[-1]))
        naive = 1 / (2 * np.abs(o.X.T @ o.y[:, 0]))
        wrong.append(max(abs(naive[j.coordinate] / j.time - 1.0) for j in jumps))
        plain, straight = problem(rng, correlated=False)
        correlations = np.abs(plain.X.T @ plain.y[:, 0])
        times += slopes(plain, straight)
        order.append(max(abs(j.time * 2 * correlations[j.coordinate] - 1.0) for j in straight))
    ledger.at_most(
        "jump times per ln(1/delta) against the algorithm's, relative",
        times,
        EQUAL,
        "limits; slopes over five decades, free of the terms of order one",
    )
    ledger.at_most(
        "distance from the algorithm's saddles in mid-plateau, relative, delta = 1e-9",
        rests,
        0.01,
        "coordinates to come are delta^(2 - 2 |s_i|)/4 there, 5e-4 at |s_i| = 0.85",
    )
    ledger.at_most(
        "orthonormal inputs: the algorithm's jump times against 1/(2 |<x_i, y>|)", order, 1e-9, "float64 rounding"
    )
    ledger.control("jump times against 1/(2 |<x_i, y>|), correlated inputs", wrong, EQUAL, "the residual is not y")


def problem(rng: np.random.Generator, *, correlated: bool) -> tuple[Objective, list[Jump]]:
    """Random data whose jumps can be told apart at the largest delta, and the algorithm's jumps."""
    search = Search("data whose jumps come apart")
    while True:
        search.draw()
        frame = np.linalg.qr(rng.standard_normal((INPUTS + 4, INPUTS)))[0]
        X = frame @ (np.eye(INPUTS) + 0.5 * rng.standard_normal((INPUTS, INPUTS))) if correlated else frame
        # sizes that fall by 0.6 or so: orthonormal inputs, whose s_i grow in proportion, would hardly come apart else
        sizes = 3.0 * rng.permutation(0.6 ** np.arange(INPUTS)) * rng.uniform(0.9, 1.1, INPUTS)
        y = X @ (rng.choice([-1.0, 1.0], INPUTS) * sizes) + 0.05 * rng.standard_normal(len(X))
        jumps = algorithm(X, y)
        if len(jumps) >= 3 and all(_told_apart(X, a, b) for a, b in pairwise(jumps)):
            return Objective(DiagonalLinear(INPUTS, 2), X, y), jumps


def _told_apart(X: np.ndarray, a: Jump, b: Jump) -> bool:
    """Whether the plateau between two jumps is one at these deltas, and no coordinate is bound again.

    It has to last SETTLED times the slowest relaxation at theta, whose rates are the eigenvalues of 4 |theta| X'X on
    the free coordinates; half-way through and at its end the others have to be 0.15 and 0.25 away from their
    walls, or they are no longer small, delta^(2 - 2 |s_i|)/4.
    """
    free = np.abs(a.after) > 1e-9
    if (np.abs(a.s[~free]) > 1 - 1e-9).any() or np.abs(a.after[free]).min() < 0.1:
        return False
    root = np.sqrt(np.abs(a.after[free]))
    rates = np.linalg.eigvalsh(4 * root[:, None] * (X[:, free].T @ X[:, free]) * root)
    lasts = (b.time - a.time) * math.log(1 / DELTAS[0])
    middle, end = 0.5 * (a.s + b.s), b.s.copy()
    end[b.coordinate] = 0.0  # the one that jumps
    apart = np.abs(middle[~free]).max() < 0.85 and np.abs(end[~free]).max() < 0.75
    return bool(lasts * rates[0] > SETTLED and apart)


def algorithm(X: np.ndarray, y: np.ndarray) -> list[Jump]:
    """The limit process, from theta = 0 to its end; times are for the sum of (q - y)^2."""
    s, theta, t, jumps = np.zeros(X.shape[1]), np.zeros(X.shape[1]), 0.0, []
    for _ in range(4 * X.shape[1]):
        pull = -2 * X.T @ (X @ theta - y)
        free = np.abs(s) >= 1 - 1e-12
        waits = np.full(s.size, math.inf)
        moving = np.abs(pull) > 1e-9
        # a bound coordinate moves to the wall that its pull leads to; a free one at rest has no pull
        waits[moving] = (np.sign(pull[moving]) - s[moving]) / pull[moving]
        waits[free & (waits < 1e-12)] = math.inf
        k = int(np.argmin(waits))
        if not math.isfinite(waits[k]):
            break
        t += waits[k]
        s = np.clip(s + waits[k] * pull, -1.0, 1.0)
        s[k] = np.sign(pull[k])
        at_wall = np.abs(s) >= 1 - 1e-12
        signs = np.where(at_wall, np.sign(s), 0.0)
        after = signs * nnls(X * signs, y)[0]
        jumps.append(Jump(t, k, theta, after, s))
        theta = after
    return jumps


def passage(o: Objective, jumps: list[Jump], delta: float) -> FlowResult:
    """The flow, with an event where the coordinate of each jump is half-way through it."""

    def half(k: int, j: Jump) -> Event:
        middle = 0.5 * (j.before[j.coordinate] + j.after[j.coordinate])
        way = 1 if j.after[j.coordinate] > j.before[j.coordinate] else -1

        def gap(p: Probe) -> float:
            u, v = p.w[:INPUTS], p.w[INPUTS:]
            return float(u[j.coordinate] * v[j.coordinate] - middle)

        return Event(f"jump {k}", gap, way)

    return simulate(
        o,
        np.concatenate([np.full(INPUTS, delta), np.zeros(INPUTS)]),
        t_end=1.3 * jumps[-1].time * math.log(1 / delta),
        method="LSODA",
        rtol=1e-9,
        events=[half(k, j) for k, j in enumerate(jumps)],
        max_steps=20_000,
    )


def slopes(o: Objective, jumps: list[Jump]) -> list[float]:
    """Relative deviations of the slopes of the jump times over ln(1/delta) from the algorithm's times."""
    times = np.full((len(DELTAS), len(jumps)), math.nan)
    for row, delta in zip(times, DELTAS, strict=True):
        seen = {e.name: e.t for e in reversed(passage(o, jumps, float(delta)).events)}  # the first of each
        row[:] = [seen.get(f"jump {k}", math.nan) for k in range(len(jumps))]
    if np.isnan(times).any():
        return [math.nan]
    found = np.polyfit(np.log(1 / DELTAS), times, 1)[0]
    return [abs(float(slope) / j.time - 1.0) for slope, j in zip(found, jumps, strict=True)]


def plateaus(o: Objective, jumps: list[Jump], delta: float) -> list[float]:
    """Relative distance of theta from the algorithm's saddle half-way (in time) between consecutive jumps."""
    middles = [0.5 * (a.time + b.time) for a, b in pairwise(jumps)]
    run = simulate(
        o,
        np.concatenate([np.full(INPUTS, delta), np.zeros(INPUTS)]),
        t_end=jumps[-1].time * math.log(1 / delta),
        method="LSODA",
        rtol=1e-9,
        t_eval=np.array(middles) * math.log(1 / delta),
        max_steps=20_000,
    )
    if not run.ok:
        return [math.nan]
    thetas = run.w[1 : len(middles) + 1, :INPUTS] * run.w[1 : len(middles) + 1, INPUTS:]
    return [
        float(np.linalg.norm(theta - j.after) / np.linalg.norm(j.after))
        for theta, j in zip(thetas, jumps[:-1], strict=True)
    ]


def _symbols(ledger: Ledger) -> None:
    """u + v and u - v move exponentially with S = -integral of the gradient, whatever that is."""
    import sympy as sp

    t, d, c = sp.symbols("t d c", positive=True)
    S = sp.Function("S")(t)
    u, v = d * sp.cosh(S), d * sp.sinh(S)
    pull = sp.diff(S, t)
    ledger.identity(
        "u = d cosh S, v = d sinh S solve du/dt = v dS/dt, dv/dt = u dS/dt from (d, 0)",
        [sp.diff(u, t) - v * pull, sp.diff(v, t) - u * pull],
    )
    product = sp.simplify((u * v - d**2 / 2 * sp.sinh(2 * S)).rewrite(sp.exp))
    ledger.identity("theta = u v = d^2 sinh(2 S)/2", [product])
    # S = c ln(1/d): theta tends to 0 for c < 1 and to infinity for c > 1
    theta = d**2 / 4 * (d ** (-2 * c) - d ** (2 * c))
    ends = [
        sp.limit(theta.subs(c, sp.Rational(9, 10)), d, 0, "+"),
        1 / sp.limit(theta.subs(c, sp.Rational(11, 10)), d, 0, "+"),
    ]
    ledger.identity(
        "so theta leaves 0 where S = ln(1/d)", [*ends, sp.limit(theta.subs(c, 1), d, 0, "+") - sp.Rational(1, 4)]
    )
    # the library's own gradient on symbols
    o = Objective(DiagonalLinear(1, 2), [[1.0]], [1.0])
    a, b, y = sp.symbols("a b y", real=True)
    o.y = np.array([[y]], dtype=object)
    g = o.gradient(np.array([a, b], dtype=object))
    slope = 2 * (a * b - y)
    ledger.identity("grad L = (v, u) dL/dtheta", [sp.expand(g[0] - b * slope), sp.expand(g[1] - a * slope)])
