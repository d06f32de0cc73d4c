"""The escape from the origin in closed form.

Hypotheses.  H = w1^2 x1 + w2^2 x2, data (1,0) -> 4 and (0,1) -> 1, sum of squares, w(0) = d (1,1)/sqrt 2.

Conclusion.  w1 = 2d / sqrt(d^2 + (8-d^2) e^(-32t)), w2 = d / sqrt(d^2 + (2-d^2) e^(-8t)) solve the flow.  The best KKT
point of the NCF is w* = (1, 0) with N* = 8, and p(t) = lim psi(t + ln(1/d)/(2 N*), d w*) as d -> 0 is
(2/sqrt(1 + 4 e^(-32t)), 0), which ends at the saddle (2, 0).  The flow leaves it after ln(1/d)/4.

Source.  [BEYOND], Example 1 and Theorem 4.

Control.  The mean of the two squares instead of their sum, which halves the speed.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.events import departure
from gfsim.flow.simulate import simulate
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.objective import Objective
from proofs_checks.instances import polynomial, symbolic
from proofs_checks.statement import Context, Ledger

SADDLE, RADIUS = np.array([2.0, 0.0]), 0.25
RTOL = 1e-11


def objective(reduction: str = "sum") -> Objective:
    model = DiagonalLinear(2, 2, tied=True)
    return Objective(model, np.eye(2), np.array([4.0, 1.0]), reduction="sum" if reduction == "sum" else "mean")


def closed_form(t: np.ndarray, d: float) -> np.ndarray:
    """(len(t), 2)."""
    w1 = 2 * d / np.sqrt(d**2 + (8 - d**2) * np.exp(-32 * t))
    return np.stack([w1, d / np.sqrt(d**2 + (2 - d**2) * np.exp(-8 * t))], axis=-1)


def limit_path(t: np.ndarray) -> np.ndarray:
    """p(t): (len(t), 2)."""
    return np.stack([2 / np.sqrt(1 + 4 * np.exp(-32 * t)), 0 * t], axis=-1)


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    deltas = np.logspace(-1, -8, 5 if not ctx.full else 15)
    ledger.at_most(
        "largest distance of the flow from the closed form",
        [_distance(objective(), float(d)) for d in deltas],
        1e-6,
        "rtol 1e-11, amplified by the escape by at most about 1/d^(1/4) and by the number of steps",
    )
    ncf = OriginNCF(objective())
    best = maximise(ncf, starts=16, rng=ctx.rng("kkt"))[0]
    ledger.at_most("N* against 8", [abs(best.value - 8.0)], 1e-10, "Newton's method to rounding")
    ledger.at_most("w* against (1, 0)", [abs(abs(best.u[0]) - 1.0) + abs(best.u[1])], 1e-10, "Newton to rounding")
    ledger.at_most(
        "psi(t + ln(1/d)/(2 N*), d w*) against p(t) at d = 1e-6",
        [_path_gap(best.value, 1e-6)],
        1e-6,
        "the gap is O(d^2)",
    )
    exits = [_exit(float(d)) for d in deltas]
    slope = float(np.polyfit(np.log(1 / deltas), exits, 1)[0])
    ledger.curve("time of the exit from the saddle", "t_exit", deltas, exits, stated=0.25, axes="semilog")
    ledger.at_most("exit time per ln(1/d) against 1/4", [abs(slope - 0.25)], 0.005, "2 % of 1/4; the law is a limit")
    ledger.control(
        "largest distance of the flow from the closed form",
        [_distance(objective("mean"), float(d)) for d in deltas],
        1e-6,
        "the mean of squares instead of the sum",
    )


def _distance(o: Objective, d: float) -> float:
    t = np.linspace(0.01, 1.0, 60) * (0.5 * math.log(1 / d) + 2.0)
    run = simulate(o, d * np.ones(2) / math.sqrt(2), t_end=float(t[-1]), method="DOP853", rtol=RTOL, t_eval=t)
    return float(np.abs(run.w[1:] - closed_form(t, d)).max()) if run.ok else math.nan


def _path_gap(value: float, d: float) -> float:
    t = np.linspace(-0.3, 0.6, 31)
    times = t + math.log(1 / d) / (2 * value)
    run = simulate(objective(), np.array([d, 0.0]), t_end=float(times[-1]), method="DOP853", rtol=RTOL, t_eval=times)
    return float(np.abs(run.w[1:] - limit_path(t)).max()) if run.ok else math.nan


def _exit(d: float) -> float:
    leave = departure(SADDLE, RADIUS)
    run = simulate(
        objective(), d * np.ones(2) / math.sqrt(2), t_end=math.inf, method="DOP853", rtol=1e-9, events=[leave]
    )
    return run.event("exit").t if run.ok else math.nan


def _symbols(ledger: Ledger) -> None:
    import sympy as sp

    t, s = sp.symbols("t s", real=True)
    d, c = sp.symbols("d c", positive=True)
    w1 = 2 * d / sp.sqrt(d**2 + (8 - d**2) * sp.exp(-32 * t))
    w2 = d / sp.sqrt(d**2 + (2 - d**2) * sp.exp(-8 * t))
    w = symbolic("w", 2)
    # the library's own gradient, on symbols
    g = [polynomial(part).subs({w[0]: w1, w[1]: w2}) for part in objective().gradient(w)]
    ledger.identity("the formulas solve dw/dt = -grad L", [sp.diff(w1, t) + g[0], sp.diff(w2, t) + g[1]])
    start = d / sp.sqrt(2)
    ledger.identity("they start at d (1, 1)/sqrt 2", [w1.subs(t, 0) - start, w2.subs(t, 0) - start])
    aligned = 2 * d / sp.sqrt(d**2 + (4 - d**2) * sp.exp(-32 * t))
    ledger.identity(
        "the aligned start's formula solves it too",
        [
            sp.diff(aligned, t) + polynomial(objective().gradient(w)[0]).subs({w[0]: aligned, w[1]: 0}),
            aligned.subs(t, 0) - d,
        ],
    )
    # e^(-32 (t + ln(1/d)/16)) = d^2 e^(-32 t)
    shifted = sp.simplify(aligned.subs(t, s - sp.log(d) / 16))
    ledger.identity(
        "p(t) is the limit, and ends at the saddle",
        [
            sp.limit(shifted, d, 0, "+") - 2 / sp.sqrt(1 + 4 * sp.exp(-32 * s)),
            sp.limit(2 / sp.sqrt(1 + 4 * sp.exp(-32 * s)), s, sp.oo) - 2,
        ],
    )
    # w2 reaches a level c < 1 at this time
    leave = sp.log((2 - d**2) * c**2 / (d**2 * (1 - c**2))) / 8
    reached = sp.simplify((w2.subs(t, leave) ** 2 - c**2).subs(c, sp.Rational(1, 3)))
    ledger.identity(
        "w2 = c at ln((2-d^2) c^2 / (d^2 (1-c^2)))/8, and that is ln(1/d)/4 in the limit",
        [
            reached,
            sp.limit(sp.expand_log(leave.subs(c, sp.Rational(1, 3)), force=True) / -sp.log(d), d, 0, "+")
            - sp.Rational(1, 4),
        ],
    )
