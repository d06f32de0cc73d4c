"""The NCF at a sparse saddle is a sum of one-neuron functions, and its maxima sit on one neuron.

Hypotheses.  A feed-forward net with s(z) = max(z, alpha z)^p around (w_n, 0), s differentiable at the active
preactivations; K = p + 1 > 2 for the second part.

Conclusion.  N(u) = sum_l sum_{j in Z_l} N_l(a_j, b_j), N_l(a, b) = sum_i (G_i . b) s(a . h_i).  On the unit sphere
every strict maximum with N > 0 has all of its weight on one neuron, where it is a maximum of one N_l.  For K = 2 a
maximum may be shared by several neurons; each of them then points to a maximum of its own N_l, and these are equal.

Source.  [NP], section 3, in our reading; docs/theory.md, section 4.

Control.  K = 2 (a linear net), where the mass may be shared by several neurons; the same additivity for the whole net
at delta = 1 instead of in the limit.
"""

from __future__ import annotations

import mpmath  # type: ignore[import-untyped]
import numpy as np

from gfsim.ncf.kkt import make_point, polish
from gfsim.ncf.saddle import SaddleNCF
from proofs_checks.expansion import DIGITS, Expansion, precise
from proofs_checks.partial_homogeneity import ADJACENT, APART, Case, draw
from proofs_checks.statement import Context, Ledger

STEEP: tuple[Case, ...] = (
    ((3, 4, 1), (1,), "square", 2, -1.0),
    ((3, 4, 3, 1), (1, 1), "square", 2, -1.0),
    ((3, 3, 3, 2), (1, 1), "leaky", 3, 0.3),
)
LINEAR: Case = ((3, 4, 3, 1), (1, 1), "linear", 1, 1.0)
LINEARS: tuple[Case, ...] = (((3, 4, 2), (1,), "linear", 1, 1.0), ((3, 4, 3, 2), (2, 1), "linear", 1, 1.0))


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    mpmath.mp.dps = DIGITS
    sums, library = [], []
    for rng in ctx.draws("sums", 2):
        for case in (*ADJACENT, *APART):
            e = draw(case, rng)
            ncf = SaddleNCF(e.point)
            parts = [precise_limit(e, part) for part in single_neurons(e)]
            whole = precise_limit(e, e.u)
            size = sum(abs(part) for part in parts)
            sums.append(abs(whole - sum(parts)) / size)
            library.append(abs(whole - float(ncf.value(e.u))) / size)
    ledger.at_most(
        "lim <ybar, H(w_n, delta u) - H(w_n, 0)>/delta^K against its sum over neurons, relative",
        sums,
        1e-12,
        "at delta = 1e-18 and 120 digits the next order is below 1e-17",
    )
    ledger.at_most("the same limit against the library's N, relative", library, 1e-10, "float64 rounding")
    shares, values, excess = [], [], []
    for rng in ctx.draws("maxima", 2):
        for case in STEEP:
            ncf = SaddleNCF(draw(case, rng).point)
            known = ncf.neuron_maxima(starts=32, rng=rng)
            for u in ascents(ncf, rng, 6):
                value = float(ncf.value(u))
                if value <= 0 or make_point(ncf, u).gap <= 1e-3 * value:
                    continue  # no strict maximum: the ascent ended on a ridge or at a saddle of N
                shares.append(off_neuron(ncf, u))
                values.append(min(abs(value / d.value - 1.0) for d in known))
                excess.append(max(0.0, value / known[0].value - 1.0))
    ledger.at_most("weight off the largest neuron at maxima of N, K > 2", shares, 1e-6, "ascent, then Newton")
    ledger.at_most("value there against the nearest one-neuron maximum, relative", values, 1e-8, "two Newton polishes")
    ledger.at_most("excess over the best one-neuron maximum, relative", excess, 1e-8, "two Newton polishes")
    ties = []
    for rng in ctx.draws("ties", 3):
        for case in LINEARS:
            ncf = SaddleNCF(draw(case, rng).point)
            best = ncf.neuron_maxima(starts=16, rng=rng)[0].value
            for u in ascents(ncf, rng, 4):
                ties += [abs(value / best - 1.0) for value in own_values(ncf, u)]
    ledger.at_most("K = 2: N_l of every neuron in a maximum against the best one, relative", ties, 1e-6, "two polishes")
    spread, coupled = [], []
    for rng in ctx.draws("control", 3):
        ncf = SaddleNCF(draw(LINEAR, rng).point)
        spread.append(max(off_neuron(ncf, u) for u in ascents(ncf, rng, 4)))
        e = draw(ADJACENT[0], rng)
        ybar = precise(e.objective.pull(e.model.forward(e.w, e.objective.X)))
        start = e.at(mpmath.mpf(0))
        effects = [float((ybar * (e.at(mpmath.mpf(1), u) - start)).sum()) for u in (e.u, *single_neurons(e))]
        coupled.append(abs(effects[0] - sum(effects[1:])) / sum(map(abs, effects[1:])))
    ledger.control("weight off the largest neuron at maxima of N", spread, 1e-6, "K = 2: ties")
    ledger.control("<ybar, H - H0> against its sum over neurons", coupled, 1e-12, "delta = 1 instead of delta -> 0")


def precise_limit(e: Expansion, u: np.ndarray) -> float:
    """N(u) from values of the net alone."""
    delta = mpmath.mpf(10) ** -18
    ybar = precise(e.objective.pull(e.model.forward(e.w, e.objective.X)))
    p = e.model.activation.power or 1
    return float((ybar * (e.at(delta, u) - e.at(mpmath.mpf(0)))).sum() / delta ** (p + 1))


def single_neurons(e: Expansion) -> list[np.ndarray]:
    """u with all but one inactive neuron's weights from and to active units removed, for each of them."""
    channels, inactive = e.active.channels(e.model), e.active.inactive(e.model)
    z = e.active.index_z(e.model)
    out = []
    for layer, units in enumerate(inactive, start=1):
        for j in units:
            own = np.concatenate(
                [
                    e.model.index[layer - 1][j, list(channels[layer - 1])],
                    e.model.index[layer][list(channels[layer + 1]), j],
                ]
            )
            out.append(np.where(np.isin(z, own), e.u, 0.0))
    return out


def ascents(ncf: SaddleNCF, rng: np.random.Generator, starts: int) -> np.ndarray:
    """Ends of u <- normalised (grad N + c u) on the whole sphere of w_z, polished: (starts, size).

    c bounds the curvature from below, so that N never falls; nothing in it knows of neurons.
    """
    U = rng.standard_normal((starts, ncf.size))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    shift = np.zeros(starts)
    value = ncf.value(U)
    scale = float(np.abs(ncf.gradient(U)).max())
    for _ in range(3000):
        trial = ncf.gradient(U) + shift[:, None] * U
        trial /= np.linalg.norm(trial, axis=1, keepdims=True)
        new = ncf.value(trial)
        better = new > value
        U[better], value[better] = trial[better], new[better]
        shift = np.where(better, 0.8 * shift, np.minimum(2 * shift + 0.1 * scale, 1e6 * scale))
        if shift.min() >= 1e3 * scale:  # no start can be improved even by a small step
            break
    return np.array([polish(ncf, u) for u in U])


def off_neuron(ncf: SaddleNCF, u: np.ndarray) -> float:
    """Norm of all coordinates of the unit vector ``u`` but those of the largest neuron."""
    rows = [row for place in ncf.places for row in place]
    largest = max(rows, key=lambda row: float(np.linalg.norm(u[row])))
    rest = u.copy()
    rest[largest] = 0.0
    return float(np.linalg.norm(rest))


def own_values(ncf: SaddleNCF, u: np.ndarray) -> list[float]:
    """N_l of the direction of every neuron that has a thousandth of the unit mass |u|^2 or more."""
    out = []
    for neuron, place in zip(ncf.neurons, ncf.places, strict=True):
        for row in place:
            norm = float(np.linalg.norm(u[row]))
            if norm**2 > 1e-3:
                out.append(float(neuron.value(u[row] / norm)))
    return out


def _symbols(ledger: Ledger) -> None:
    import sympy as sp

    # two neurons with maxima v1, v2 > 0 share the unit mass: f(t) = v1 cos^K + v2 sin^K, 0 < t < pi/2
    t = sp.Symbol("t", positive=True)
    m = sp.Symbol("m", positive=True)
    second = []
    for K in (2, 3, 4, 5):
        v1, v2 = m / sp.cos(t) ** (K - 2), m / sp.sin(t) ** (K - 2)  # what f'(t) = 0 says
        a, b = sp.symbols("a b", positive=True)
        f = a * sp.cos(t) ** K + b * sp.sin(t) ** K
        second.append(sp.simplify(sp.diff(f, t).subs({a: v1, b: v2})))
        second.append(sp.simplify(sp.diff(f, t, 2).subs({a: v1, b: v2}) - K * (K - 2) * m))
    ledger.identity("two neurons that share the mass: f'' = K (K-2) m where f' = 0 (0 at K = 2)", second)
    a, b = sp.symbols("a b", positive=True)
    f = a * sp.cos(t) ** 2 + b * sp.sin(t) ** 2
    ledger.identity(
        "K = 2: f' = 0 off the ends needs equal maxima, and then f is constant",
        [sp.simplify(sp.diff(f, t) - (b - a) * sp.sin(2 * t)), sp.simplify(f.subs(b, a) - a)],
    )
    ledger.proved("which is positive, a minimum, for K > 2", [bool((K * (K - 2) * m).is_positive) for K in (3, 4, 5)])
