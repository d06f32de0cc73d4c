"""From small weights the flow follows the NCF flow, and escapes when that blows up.

Hypotheses.  H homogeneous of degree D >= 2, twice differentiable; w(0) = delta w0 with w0 in the stable set of a
positive KKT point w* of the NCF at the origin.

Conclusion.  w/delta follows the NCF flow phi from w0 in the time tau = delta^(D-2) t, within O(delta^D) at fixed
tau. The time t at which |w| reaches a fixed level obeys t delta^(D-2) -> the blow-up time of phi (D > 2), from w0 =
w* that is 1/(D (D-2) N*), or t / ln(1/delta) -> 1/(2 N*) (D = 2).  On the way out the direction is that of w*.

Source.  [2L], Theorem 3; [DEEP], Theorem 1; [BEYOND], Lemma 3.  The rate delta^D is ours: the loss's next term is of
degree 2D beside D.

Control.  The blow-up time of another start; a direction that is not w*.
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
from gfsim.ncf.origin import OriginNCF
from gfsim.ncf.phi import limit, ncf_field
from gfsim.objective import Objective
from proofs_checks.fitting import EQUAL
from proofs_checks.instances import Search
from proofs_checks.origin_starts import Start, best_point, draw, natural_size, tilted, unit
from proofs_checks.statement import Context, Ledger

FLOOR = 1e-6
"""Relative accuracy of the computed flows (rtol 1e-9 to 1e-10 over some thousand steps)."""
LEVEL = 0.3
"""|w| at the escape, in units of the size that the labels ask for."""


def models() -> list[tuple[Model, float]]:
    """With their degrees, from the definitions."""
    return [
        (FeedForward((3, 3, 2), "linear"), 2.0),
        (FeedForward((3, 3, 1), "square"), 3.0),
        (DiagonalLinear(3, 4), 4.0),
        (FeedForward((3, 2, 2, 1), "square"), 7.0),
    ]


def check(ctx: Context, ledger: Ledger) -> None:
    gaps, deficits, blow, aligned, logs, wrong_time, wrong_way = ([] for _ in range(7))
    deltas = np.logspace(-2, -6, 5)
    for rng in ctx.draws("starts", 1, 6):
        for model, D in models():
            start = draw(model, rng)
            rows = [follow(start, D, float(d)) for d in deltas]
            gaps += [row.gap / (float(d) ** D + FLOOR) for row, d in zip(rows, deltas, strict=True)]
            deficits.append(cosine_deficit(rows[-1].turned, start.target))
            wrong_way.append(cosine_deficit(rows[-1].turned, tilted(start.target, rng)))
            if D > 2:
                time = rows[-1].escape * float(deltas[-1]) ** (D - 2)
                blow.append(abs(time / start.phi.time - 1.0))
                wrong_time.append(abs(time / other_time(start.objective, rng) - 1.0))
                o, point = best_point(model, rng)
                law = 1 / (D * (D - 2) * point.value * float(deltas[-1]) ** (D - 2))
                aligned.append(
                    abs(
                        escape(o, float(deltas[-1]) * point.u, LEVEL * natural_size(o, point.u, point.value, D)) / law
                        - 1.0
                    )
                )
            else:
                rate = float(np.polyfit(np.log(1 / deltas), [row.escape for row in rows], 1)[0])
                logs.append(abs(rate / start.phi.time - 1.0))
    ledger.at_most(
        "|w/delta - phi|/|phi| up to 0.9 of the blow-up time, over delta^D + 1e-6, all deltas",
        gaps,
        1e4,
        "a constant of the problem's own: |phi|^D at 0.9 of the blow-up time",
    )
    ledger.at_most("1 - cos(w, w*) on the way out, delta = 1e-6", deficits, 1e-3, "phi's own is below 1e-4")
    ledger.at_most("t_escape delta^(D-2) against phi's blow-up time, D > 2", blow, 1e-3, "its limit as delta -> 0")
    ledger.at_most("the same from w0 = w*, against 1/(D (D-2) N*)", aligned, 1e-3, "its limit as delta -> 0")
    ledger.at_most(
        "slope of t_escape over ln(1/delta) against 1/(2 N*), D = 2", logs, EQUAL, "a limit; fitted over four decades"
    )
    ledger.control("t_escape delta^(D-2) against a blow-up time", wrong_time, 1e-3, "phi from another start")
    ledger.control("1 - cos(w, u)", wrong_way, 1e-3, "u is 6 degrees off w*")


@dataclass(frozen=True)
class Measured:
    """Largest relative distance from phi up to the horizon, w where |w| = sqrt(delta)/2, the escape time."""

    gap: float
    turned: np.ndarray
    escape: float


def horizon(start: Start, D: float) -> float:
    """In tau: 0.9 of the blow-up time, or three times that in which phi grows by e."""
    return (0.9 if D > 2 else 3.0) * start.phi.time


def follow(start: Start, D: float, delta: float) -> Measured:
    """The flow from delta w0 to its escape."""
    taus = np.linspace(0.04, 1.0, 25) * horizon(start, D)
    field = ncf_field(OriginNCF(start.objective))
    path = simulate(field, start.w0, t_end=taus[-1] * (1 + 1e-9), method="DOP853", rtol=1e-11, t_eval=taus)
    run = simulate(
        start.objective,
        delta * start.w0,
        t_end=math.inf,
        method="DOP853",
        rtol=1e-10,
        events=[
            norm_level(0.5 * math.sqrt(delta), name="turn", terminal=0),
            norm_level(LEVEL * start.size, name="escape"),
        ],
        t_eval=taus / delta ** (D - 2),
    )
    if not (run.ok and path.ok):
        return Measured(math.nan, np.full(start.w0.size, math.nan), math.nan)
    turned, escape = run.event("turn").w, run.event("escape").t
    if escape < taus[-1] / delta ** (D - 2):  # gone while phi has still to blow up
        return Measured(math.inf, turned, escape)
    w = run.w[1 : len(taus) + 1]
    phi_at = path.w[1 : len(taus) + 1]
    gap = np.linalg.norm(w / delta - phi_at, axis=1) / np.linalg.norm(phi_at, axis=1)
    return Measured(float(gap.max()), turned, escape)


def escape(o: Objective, start: np.ndarray, level: float) -> float:
    """The time at which |w| reaches ``level``."""
    run = simulate(o, start, t_end=math.inf, method="DOP853", rtol=1e-10, events=[norm_level(level)])
    return float(run.t[-1]) if run.ok else math.nan


def other_time(o: Objective, rng: np.random.Generator) -> float:
    """phi's blow-up time from a fresh start."""
    search = Search("a start from which phi escapes")
    while True:
        search.draw()
        phi = limit(OriginNCF(o), unit(rng, o.model.n_params), max_steps=3000)
        if phi.point is not None:
            return phi.time
