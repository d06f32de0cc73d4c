"""Deep linear nets learn the singular modes of the target one after the other, at times of order 1/delta^(L-2).

Hypotheses.  H = W_L ... W_1 x, L >= 3 layers, orthonormal inputs (X'X = I), sum of squares (q - y)^2; a start of size
delta; the target has singular values s_1 > s_2 > ... > 0.

Conclusion.  A balanced, aligned mode with weights a in every layer obeys da/dt = 2 a^(L-1) (s - a^L), that is du/dt
= 2 L u^(2-2/L) (s - u) for u = a^L, and the modes do not see each other: mode k reaches s_k/2 at a time t_k with t_k
delta^(L-2) -> 1/(2 (L-2) s_k).  From starts that are aligned but for random parts of the same order the modes still
come in the order of their singular values, and between two of them the product is the best approximation of its
rank: a sparse saddle.  (From a wholly random one the last mode may have the wrong sign, and come very late.)

Source.  Saxe, McClelland and Ganguli 2014; Arora, Cohen and Hazan 2018; docs/theory.md, section 7.

Control.  Inputs that are not orthonormal, against the singular values of the same target; a wrong power of delta.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad

from gfsim.flow.events import Event, Probe
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from proofs_checks.fitting import Fit, power_law
from proofs_checks.statement import Context, Ledger

SIZE = 3
DELTAS = np.logspace(-1, -5, 5)
DEPTHS = (3, 4)
JOINT = 1e-2
"""delta of the flows in which all modes start: late modes make them stiff, by 1/delta^(L-2)."""
RANDOM_DELTA = {3: 1e-4, 4: 1e-3}
"""Small enough that the plateaus are there; the time between modes is 1/delta^(L-2)."""


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    together, limits, fits, powers, order, plateaus, skewed, wrong_power = ([] for _ in range(8))
    for rng in ctx.draws("modes", 2, 10):
        for depth in DEPTHS:
            target, frame = _target(rng), np.linalg.qr(rng.standard_normal((SIZE + 2, SIZE)))[0]
            s = np.linalg.svd(target)[1]
            o = problem(depth, target, frame)
            # all modes at once against the equation of one: they do not see each other
            times = passages(o, target, aligned(target, depth, JOINT), JOINT, s)[0]
            together += [abs(times[k] / _time(depth, float(s[k]), JOINT) - 1.0) for k in range(SIZE)]
            for k in range(SIZE):
                alone = np.array([one_mode(o, target, depth, k, float(d)) for d in DELTAS])
                fits.append(_fit(alone))
                powers.append(float(depth - 2))
                wrong_power.append(float(depth - 1))
                limits.append(abs(alone[-1] * 2 * (depth - 2) * s[k] * DELTAS[-1] ** (depth - 2) - 1.0))
            d = RANDOM_DELTA[depth]
            start = aligned(target, depth, d) + 0.2 * d * rng.standard_normal(o.model.n_params)
            found, off = passages(o, target, start, d, s)
            order.append(float(np.isnan(found).any() or (np.diff(found) <= 0).any()))
            plateaus += off
            bent = problem(depth, target, frame * np.array([1.4, 1.0, 0.8]))
            times = passages(bent, target, aligned(target, depth, JOINT), JOINT, s)[0]
            law = np.array([_time(depth, float(sk), JOINT) for sk in s])
            skewed.append(float(np.nanmax(np.abs(times / law - 1.0))))
    ledger.at_most(
        "times of the modes of one flow against the integral of their own equation", together, 1e-5, "rtol 1e-9"
    )
    ledger.exponent("t_k in 1/delta", fits, powers, "L - 2")
    ledger.at_most(
        "t_k delta^(L-2) against 1/(2 (L-2) s_k), delta = 1e-5", limits, 1e-3, "a limit; the correction is O(delta)"
    )
    ledger.at_most("perturbed starts from which the modes come out of order", order, 0.0, "a count")
    ledger.at_most(
        "distance from the best approximation of rank k on its plateau, relative, perturbed starts",
        plateaus,
        0.01,
        "the modes to come are of order delta^L, those that have come within the flow's settling",
    )
    ledger.exponent_control("t_k in 1/delta", fits, wrong_power, "L - 1 in place of L - 2")
    ledger.control("times of the modes of one flow", skewed, 1e-5, "the inputs are not orthonormal")


def _fit(times: np.ndarray) -> Fit:
    """The power of 1/delta, with the correction of relative order delta that the time of order one at the end makes."""
    fit = power_law(DELTAS, times, correction=1.0)
    return Fit(-fit.slope, fit.error, fit.constant, fit.decades)


def _target(rng: np.random.Generator) -> np.ndarray:
    left, right = (np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0] for _ in range(2))
    s = np.array([2.4, 1.5, 0.9]) * rng.uniform(0.95, 1.05, SIZE)
    return (left * s) @ right.T


def problem(depth: int, target: np.ndarray, X: np.ndarray) -> Objective:
    """A square linear net of the depth on the outputs of ``target`` at the rows of ``X``."""
    return Objective(FeedForward((SIZE,) * (depth + 1), "linear"), X, X @ target.T)


def aligned(target: np.ndarray, depth: int, delta: float, modes: slice | int = slice(None)) -> np.ndarray:
    """Every layer delta times the identity on the given modes, in the bases of the target's singular vectors."""
    left, _, right = np.linalg.svd(target)
    share = np.zeros(SIZE)
    share[modes] = delta
    layers = [share[:, None] * right, *[np.diag(share)] * (depth - 2), left * share]
    return np.concatenate([W.ravel() for W in layers])


def one_mode(o: Objective, target: np.ndarray, depth: int, k: int, delta: float) -> float:
    """The time at which mode k alone reaches half of its singular value."""
    left, s, right = np.linalg.svd(target)

    def gap(p: Probe) -> float:
        return float(left[:, k] @ product(p.w, depth) @ right[k]) - 0.5 * float(s[k])

    run = simulate(
        o,
        aligned(target, depth, delta, k),
        t_end=math.inf,
        method="DOP853",
        rtol=1e-9,
        events=[Event("half", gap, 1, 1)],
        max_steps=5000,
    )
    return float(run.t[-1]) if run.ok else math.nan


def product(w: np.ndarray, depth: int) -> np.ndarray:
    """W_L ... W_1 of square layers: (SIZE, SIZE)."""
    out = np.eye(SIZE)
    for W in w.reshape(depth, SIZE, SIZE):
        out = W @ out
    return out


def passages(
    o: Objective, target: np.ndarray, start: np.ndarray, delta: float, s: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """Times at which the modes reach half of their singular values; distance from rank k between modes k and k + 1."""
    left, _, right = np.linalg.svd(target)
    depth = start.size // SIZE**2

    def mode(k: int) -> Event:
        def gap(p: Probe) -> float:
            return float(left[:, k] @ product(p.w, depth) @ right[k]) - 0.5 * float(s[k])

        return Event(f"mode {k}", gap, 1, 1 if k == SIZE - 1 else 0)

    run = simulate(
        o,
        start,
        # from a perturbed start the modes wait for each other: many times the aligned law
        t_end=200.0 / (float(s[-1]) * delta ** (depth - 2)),
        method="LSODA",
        clock="t",
        rtol=1e-9,
        events=[mode(k) for k in range(SIZE)],
        max_steps=20_000,
    )
    at = {e.name: e.t for e in run.events}
    times = np.array([at.get(f"mode {k}", math.nan) for k in range(SIZE)])
    offs = []
    for k in range(1, SIZE):
        best = (left[:, :k] * s[:k]) @ right[:k]
        between = run.w[(run.t > times[k - 1]) & (run.t < times[k])]
        offs.append(
            min((float(np.linalg.norm(product(w, depth) - best)) / float(s[0]) for w in between), default=math.nan)
        )
    return times, offs


def _time(depth: int, s: float, delta: float) -> float:
    """From a = delta to a^depth = s/2 by da/dt = 2 a^(depth-1) (s - a^depth)."""
    end = (0.5 * s) ** (1 / depth)
    # in log a, where the integrand varies over few orders
    value = quad(
        lambda x: math.exp(-(depth - 2) * x) / (2 * (s - math.exp(depth * x))),
        math.log(delta),
        math.log(end),
        epsabs=0.0,
        epsrel=1e-10,
        limit=400,
    )[0]
    return float(value)


def _symbols(ledger: Ledger) -> None:
    """The library's gradient of one aligned mode, for depths 3, 4, 5."""
    import sympy as sp

    a, s = sp.symbols("a s", positive=True)
    single, chain = [], []
    for depth in (3, 4, 5):
        o = Objective(FeedForward((1,) * (depth + 1), "linear"), [[1.0]], [1.0])
        o.y = np.array([[s]], dtype=object)
        g = o.gradient(np.array([a] * depth, dtype=object))
        single += [sp.expand(-part - 2 * a ** (depth - 1) * (s - a**depth)) for part in g]
        rate = sum(-part * a ** (depth - 1) for part in g)  # du/dt for u = a^depth
        u = a**depth
        chain.append(sp.expand(sp.simplify(rate - 2 * depth * u ** (2 - sp.Rational(2, depth)) * (s - u))))
    ledger.identity("an aligned mode obeys da/dt = 2 a^(L-1) (s - a^L)", single)
    ledger.identity("that is du/dt = 2 L u^(2-2/L) (s - u)", chain)
    d = sp.Symbol("d", positive=True)
    early = [sp.integrate(1 / (2 * s * a ** (L - 1)), (a, d, 1)) * d ** (L - 2) for L in (3, 4, 5)]
    ledger.identity(
        "while u << s the time from delta is 1/(2 (L-2) s delta^(L-2)) in the limit",
        [sp.limit(t, d, 0, "+") - 1 / (2 * (L - 2) * s) for t, L in zip(early, (3, 4, 5), strict=True)],
    )
