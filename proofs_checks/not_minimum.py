"""Where wbar_n is critical but no minimum, the large weights leave first.

Hypotheses.  As near_saddle, but wbar_n is a saddle of the active net's own loss, with -lambda the most negative
eigenvalue of the Hessian there; the start is (wbar_n + delta n, delta z) with a share of n along its eigenvector.

Conclusion.  |w_n - wbar_n| reaches a fixed level after ln(1/delta)/lambda + O(1), whatever K is: long before the time
1/delta^(K-2) of near_saddle.  So the O(delta) bound of that statement fails, and its hypothesis cannot be dropped.

Source.  Ours: the linearisation at wbar_n; the statement that it bounds is [NP], Theorem 7, in our reading.

Control.  The same construction with wbar_n a minimum: w_n does not leave.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.events import departure
from gfsim.flow.simulate import simulate
from gfsim.saddles.saddle import SparseSaddle
from proofs_checks.fitting import EQUAL, power_law
from proofs_checks.saddle_starts import coordinate_saddle
from proofs_checks.statement import Context, Ledger

DELTAS = np.logspace(-3, -8, 6)
LEVEL = 0.1
"""|w_n - wbar_n| at the departure."""


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    slopes, early, counts, eigen, moves, stays = ([] for _ in range(6))
    for rng in ctx.draws("saddles", 4):
        for signs in (1.0, -1.0):
            # rates apart, so that the faster direction alone decides within the decades used
            label = signs * float(rng.uniform(0.7, 1.5))
            labels = (label, 0.4 * label)
            saddle = coordinate_saddle(labels)
            e = np.linalg.eigvalsh(saddle.active_objective.hessian(saddle.w_n))
            n, z = saddle.directions(rng)
            if signs > 0:
                rate = -float(e[0])
                # the formula of the construction: the neuron turns to the sample with the larger label at rate 4 y b
                eigen.append(abs(rate / (4 * max(labels)) - 1.0))
                times = np.array([leave(saddle, float(d), n, z, 1.0 / float(d)) for d in DELTAS])
                slopes.append(abs(float(np.polyfit(np.log(1 / DELTAS), times, 1)[0]) * rate - 1.0))
                early.append(float((times * DELTAS).max()))
                moves.append(power_law(DELTAS, [shift(saddle, float(d), n, z, 0.1 / float(d)) for d in DELTAS]))
                counts.append(float(np.abs(saddle.objective.gradient(saddle.w)).max()))
            else:  # near_saddle's own case: the weights stay, so that the failure above is owed to the hypothesis
                stays.append(power_law(DELTAS, [shift(saddle, float(d), n, z, 0.1 / float(d)) for d in DELTAS]))
    ledger.at_most("|grad L| at the constructed points", counts, 1e-14, "critical, to rounding")
    ledger.at_most("most negative eigenvalue of the active Hessian against -4 y", eigen, 1e-10, "rounding")
    ledger.at_most(
        "slope of the departure time over ln(1/delta) against 1/lambda, relative",
        slopes,
        EQUAL,
        "a linearisation, exact as delta -> 0; fitted over five decades",
    )
    ledger.at_most("departure time over the horizon 1/delta, delta = 1e-3 to 1e-8", early, 0.1, "ln(1/delta) delta")
    what = "max |w_n - wbar_n| up to 0.1/delta"
    ledger.exponent(f"{what}, wbar_n no minimum", moves, 0.0, "w_n leaves: no power of delta is left")
    ledger.exponent_control(what, stays, 0.0, "wbar_n is a minimum")


def _symbols(ledger: Ledger) -> None:
    """Around (a, b) = (sqrt 2, 1) the active neuron's loss falls along the other inputs at the rate 4 y."""
    import sympy as sp

    a1, a2, b, y = sp.symbols("a1 a2 b y", real=True)
    loss = (b * a1**2 - 2) ** 2 + (b * a2**2 - y) ** 2
    at = {a1: sp.sqrt(2), a2: 0, b: 1}
    ledger.identity(
        "the constructed point is critical, and d2L/da2^2 = -4 y there",
        [*(sp.diff(loss, v).subs(at) for v in (a1, a2, b)), sp.diff(loss, a2, 2).subs(at) + 4 * y],
    )
    ledger.identity("no cross term: a2 is an eigenvector", [sp.diff(loss, a2, v).subs(at) for v in (a1, b)])


def leave(saddle: SparseSaddle, delta: float, n: np.ndarray, z: np.ndarray, t_end: float) -> float:
    """When |w_n - wbar_n| passes LEVEL; NaN if it has not by ``t_end``."""
    run = _run(saddle, delta, n, z, t_end, stop=True)
    return run[0]


def shift(saddle: SparseSaddle, delta: float, n: np.ndarray, z: np.ndarray, t_end: float) -> float:
    """Largest |w_n - wbar_n| up to ``t_end``."""
    return _run(saddle, delta, n, z, t_end, stop=False)[1]


def _run(
    saddle: SparseSaddle, delta: float, n: np.ndarray, z: np.ndarray, t_end: float, *, stop: bool
) -> tuple[float, float]:
    """The departure time and the largest displacement of w_n; the event reads w_n only."""
    run = simulate(
        saddle.objective,
        saddle.start(delta, z, n),
        t_end=t_end,
        method="LSODA",
        clock="t",
        blocks=saddle.blocks,
        rtol=1e-9,
        events=[departure(saddle.w, LEVEL, name="saddle")] if stop else [],
        max_steps=20_000,
    )
    off = float(np.linalg.norm(run.w[:, saddle.index_n] - saddle.w_n, axis=1).max())
    if not run.ok:
        return math.nan, math.nan
    return (float(run.events[0].t) if run.events else math.nan), off
