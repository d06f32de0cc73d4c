"""From small weights the flow follows the NCF flow, and escapes along p(t).

Hypotheses.  H homogeneous of degree D >= 2, twice differentiable; w(0) = delta w0 with w0 in the stable set of a
positive KKT point w* of the NCF at the origin.

Conclusion.  Up to time T/delta^(D-2), |w| is O(delta), and w/delta follows the NCF flow phi from w0 in the time
tau = delta^(D-2) t, so that its direction tends to w*.  The time t at which |w| reaches a fixed level obeys
t delta^(D-2) -> the blow-up time of phi (D > 2), or t / ln(1/delta) -> 1/(2 N*) (D = 2).  From w0 = w* the shifted
flows psi(t + tau_delta, delta w*), with tau_delta = ln(1/delta)/(2 N*) or 1/(D (D-2) N* delta^(D-2)), converge to a
path p(t) as delta -> 0; from any other w0 of the stable set the flow joins the same path, at a time of its own.

Source.  [2L], Theorem 3; [DEEP], Theorem 1; [BEYOND], Theorems 4 and 10.

Control.  The blow-up time of another start; a direction that is not w*; a shift with a wrong constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfsim.flow.events import norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.directions import cosine_deficit
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.ncf.phi import PhiLimit, limit, ncf_field
from gfsim.objective import Objective
from proofs_checks.instances import random_objective
from proofs_checks.statement import Context, Ledger

EQUAL = 0.02
FLOOR = 1e-6
"""Relative accuracy of the computed flows (rtol 1e-9 to 1e-10 over some thousand steps), added to delta."""
PATH = {2: (1e-3, 1e-4), 3: (1e-2, 1e-3), 4: (3e-2, 1e-2), 7: (5e-2, 2e-2)}
"""Deltas at which p(t) is compared, by D: small for the gap, about delta^D, and large enough for rtol to resolve the
shift, of order 1/delta^(D-2)."""
LEVEL = 0.3
"""|w| at the escape, in units in which the labels ask for outputs of order one."""


def models() -> list[tuple[Model, float]]:
    """With their degrees, from the definitions."""
    return [
        (FeedForward((3, 3, 2), "linear"), 2.0),
        (FeedForward((3, 3, 1), "square"), 3.0),
        (DiagonalLinear(3, 4), 4.0),
        (FeedForward((3, 2, 2, 1), "square"), 7.0),
    ]


@dataclass(frozen=True)
class Start:
    objective: Objective
    w0: np.ndarray
    phi: PhiLimit
    target: np.ndarray


def draw(model: Model, rng: np.random.Generator) -> Start:
    """Random data, and a unit start from which phi escapes and is within 1e-4 (1 - cos) of its limit at |phi| = 100."""
    while True:
        o = random_objective(model, rng, reduction="mean")
        for _ in range(4):
            w0 = rng.standard_normal(model.n_params)
            w0 /= np.linalg.norm(w0)
            phi = limit(OriginNCF(o), w0, max_steps=3000)
            if phi.point is None:
                continue
            grown = phi.path.w[np.linalg.norm(phi.path.w, axis=1) >= 100]
            if len(grown) and cosine_deficit(grown[0], phi.point.u) < 1e-4:
                return Start(o, w0, phi, phi.point.u)


def check(ctx: Context, ledger: Ledger) -> None:
    sizes, gaps, deficits, blow, logs, wrong_time, wrong_way = ([] for _ in range(7))
    paths, shifted, joined, joins, strangers = [], [], [], [], []
    for rng in ctx.draws("starts", 1, 4):
        for model, D in models():
            start = draw(model, rng)
            deltas = np.logspace(-2, -6, 9 if ctx.full else 5)
            horizon = (0.9 if D > 2 else 3.0) * start.phi.time
            rows = [follow(start, D, horizon, float(d)) for d in deltas]
            slope = float(np.polyfit(np.log(deltas), np.log([row[0] for row in rows]), 1)[0])
            sizes.append(abs(slope - 1.0))
            gaps += [row[1] / (d + FLOOR) for row, d in zip(rows, deltas, strict=True)]
            deficits.append(cosine_deficit(rows[-1][2], start.target))
            wrong_way.append(cosine_deficit(rows[-1][2], _tilted(start.target, rng)))
            if D > 2:
                time = rows[-1][3] * float(deltas[-1]) ** (D - 2)
                blow.append(abs(time / start.phi.time - 1.0))
                wrong_time.append(abs(time / draw_time(start.objective, rng) - 1.0))
            else:
                rate = float(np.polyfit(np.log(1 / deltas), [row[3] for row in rows], 1)[0])
                logs.append(abs(rate / start.phi.time - 1.0))
            here, there = (
                on_path(start.objective, u) for u in (start.target, another_target(start.objective, start.target, rng))
            )
            off = [float(np.linalg.norm(row[4] - here)) / LEVEL for row in rows]
            joined.append(off[-1])
            joins.append(max(0.0, float(np.polyfit(np.log(deltas), np.log(off), 1)[0])))
            strangers.append(float(np.linalg.norm(rows[-1][4] - there)) / LEVEL)
            paths.append(path_gap(start.objective, D, rng, 1.0))
            shifted.append(path_gap(start.objective, D, rng, 1.1))
    span = "fitted over four decades"
    ledger.at_most("exponent of max |w| in delta, against 1", sizes, EQUAL, span)
    ledger.at_most("|w/delta - phi|/|phi| over delta, all deltas", gaps, 100.0, "O(delta), the problem's own constant")
    ledger.at_most("1 - cos(w, w*) on the way out, smallest delta", deficits, 1e-3, "phi's own is below 1e-4")
    ledger.at_most("t_escape delta^(D-2) against phi's blow-up time, D > 2", blow, 1e-3, "its limit as delta -> 0")
    ledger.at_most("slope of t_escape over ln(1/delta) against 1/(2 N*), D = 2", logs, EQUAL, span)
    ledger.at_most(
        "distance of the shifted flows at two deltas over |p|",
        paths,
        1e-3,
        "a gap of order delta^D, at most 1e-6, and the accuracy of the shift",
    )
    ledger.at_most("distance from p(t) at |w| = 0.3, any start of the stable set, delta = 1e-6", joined, 1e-2, "eps")
    ledger.at_least(
        "exponent of that distance in delta",
        joins,
        0.1,
        "positive: it goes to 0 with delta; 0.1 is beyond any error of the fit",
    )
    ledger.control("distance from p(t) at |w| = 0.3", strangers, 1e-2, "p(t) of another stable set")
    ledger.control("t_escape delta^(D-2) against a blow-up time", wrong_time, 1e-3, "phi from another start")
    ledger.control("1 - cos(w, u)", wrong_way, 1e-3, "u is 6 degrees off w*")
    ledger.control("distance of the shifted flows over |p|", shifted, 1e-3, "tau_delta with N* wrong by a tenth")


def follow(start: Start, D: float, horizon: float, delta: float) -> tuple[float, float, np.ndarray, float, np.ndarray]:
    """Largest |w| and relative distance from phi up to the horizon, w on its way out, the escape time, w there."""
    taus = np.linspace(0.04, 1.0, 25) * horizon
    field = ncf_field(OriginNCF(start.objective))
    path = simulate(field, start.w0, t_end=horizon * (1 + 1e-9), method="DOP853", rtol=1e-11, t_eval=taus)
    run = simulate(
        start.objective,
        delta * start.w0,
        t_end=math.inf,
        method="DOP853",
        rtol=1e-10,
        events=[
            norm_level(0.5 * math.sqrt(delta), name="turn", terminal=0),
            norm_level(LEVEL, name="escape"),
        ],
        t_eval=taus / delta ** (D - 2),
    )
    if not (run.ok and path.ok):
        lost = np.full(start.w0.size, math.nan)
        return math.nan, math.nan, lost, math.nan, lost
    w = run.w[1 : len(taus) + 1]
    phi_at = path.w[1 : len(taus) + 1]
    gap = np.linalg.norm(w / delta - phi_at, axis=1) / np.linalg.norm(phi_at, axis=1)
    turned, escape = run.event("turn").w, run.event("escape")
    return float(np.linalg.norm(w, axis=1).max()), float(gap.max()), turned, escape.t, escape.w


def on_path(o: Objective, u: np.ndarray) -> np.ndarray:
    """p where its norm is LEVEL: the end of a flow from an aligned start, exact to about delta^D."""
    run = simulate(o, 0.01 * u, t_end=math.inf, method="DOP853", rtol=1e-10, events=[norm_level(LEVEL)])
    return run.final if run.ok else np.full(u.size, math.nan)


def another_target(o: Objective, u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A KKT point to which phi goes from some other start, at least 8 degrees from ``u``."""
    while True:
        w0 = rng.standard_normal(u.size)
        phi = limit(OriginNCF(o), w0 / np.linalg.norm(w0), max_steps=3000)
        if phi.point is not None and float(phi.point.u @ u) < 0.99:
            return phi.point.u


def draw_time(o: Objective, rng: np.random.Generator) -> float:
    while True:
        w0 = rng.standard_normal(o.model.n_params)
        phi = limit(OriginNCF(o), w0 / np.linalg.norm(w0), max_steps=3000)
        if phi.point is not None:
            return phi.time


def _tilted(u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    b = rng.standard_normal(u.size)
    b -= (b @ u) * u
    return math.cos(0.1) * u + math.sin(0.1) * b / np.linalg.norm(b)


def path_gap(o: Objective, D: float, rng: np.random.Generator, factor: float) -> float:
    """How far psi(t + tau_delta, delta w*) at the two deltas of PATH are from each other, relative to the path.

    Around the escape: |p| grows from about 0.1 to 0.3 there.  N* in tau_delta is multiplied by ``factor``.
    """
    best = maximise(OriginNCF(o), starts=12, rng=rng, keep=1)[0]
    N = factor * best.value
    # at these times the aligned solution of phi's equation has the norms 0.1 ... 0.3
    r = np.linspace(0.1, LEVEL, 9)
    t = np.log(r) / (2 * best.value) if D == 2 else -1 / (D * (D - 2) * best.value * r ** (D - 2))
    ends = []
    for delta in PATH[int(D)]:
        tau = math.log(1 / delta) / (2 * N) if D == 2 else 1 / (D * (D - 2) * N * delta ** (D - 2))
        times = t + tau
        if times[0] <= 0:
            return math.inf
        run = simulate(o, delta * best.u, t_end=float(times[-1]), method="DOP853", rtol=1e-11, t_eval=times)
        if not run.ok:
            return math.nan
        ends.append(run.w[1 : len(times) + 1])
    return float(np.abs(ends[0] - ends[1]).max() / np.abs(ends[1]).max())
