"""The NCF flow du/dt = grad N(u), N homogeneous of degree D.

Hypotheses.  D >= 2.

Conclusion.  d|u|^2/dt = 2 D N(u), and N(u/|u|) never decreases.  From an aligned start u0 = c u*, |u| grows as
e^(2 N* t) for D = 2 and blows up at 1/(D (D-2) N* c^(D-2)) for D > 2.  From any start u either goes to 0 or its
direction converges to a KKT point with N >= 0.

Source.  [2L], Lemma 2; [DEEP], section 3; docs/theory.md, section 2.

Control.  The aligned start's blow-up time from starts that are not aligned.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.clock import PhysicalTime, RescaledTime
from gfsim.flow.events import norm_level
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, MatrixFactorisation
from gfsim.ncf.kkt import KKTPoint
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.ncf.phi import limit, ncf_field
from gfsim.objective import Objective
from proofs_checks.instances import ROUNDING, ROUNDING_WHY, random_objective
from proofs_checks.statement import Context, Ledger

RTOL = 1e-10


def models() -> list[Model]:
    """Degrees 2, 2, 3, 3, 4, 7."""
    return [
        FeedForward((3, 3, 2), "linear"),
        MatrixFactorisation(2, 3, 2),
        FeedForward((3, 3, 1), "square"),
        FeedForward((3, 2, 2, 1), "linear"),
        DiagonalLinear(3, 4, tied=True),
        FeedForward((3, 2, 2, 1), "square"),
    ]


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    rates, drops, blow_ups, library, growths, ends, unaligned = [], [], [], [], [], [], []
    for rng in ctx.draws("flows", 1):
        for model in models():
            ncf = OriginNCF(random_objective(model, rng, reduction="mean"))
            for u in rng.standard_normal((4, ncf.size)):
                lhs, rhs = 2 * float(u @ ncf.gradient(u)), 2 * _degree(model) * float(ncf.value(u))
                rates.append(abs(lhs - rhs) / (2 * float(np.abs(u) @ np.abs(ncf.gradient(u)))))
            points = maximise(ncf, starts=12, rng=rng, keep=1)
            if not points:  # every label pulls down: the flow from any start then goes to zero
                continue
            best = points[0]
            size = float(rng.uniform(0.5, 2.0))
            time = _grow(ncf, size * best.u)
            expected = _law(_degree(model), best.value, size)
            if _degree(model) > 2:
                blow_ups.append(abs(time / expected - 1))
                # not followed far, so that the remainder that the library adds can be seen (1e-3 of it at D = 3)
                library.append(abs(limit(ncf, size * best.u, growth=1e3).time / expected - 1))
            else:
                growths.append(abs(time / (math.log(GROWTH) / (2 * best.value)) - 1))
                library.append(abs(limit(ncf, size * best.u, growth=1e3).time * 2 * best.value - 1))
            start = rng.standard_normal(ncf.size)
            phi = limit(ncf, start / np.linalg.norm(start))
            drops.append(_largest_drop(ncf, phi.path))
            ends.append(
                _limit_error(ncf, phi.point) if phi.fate == "escape" else 0.0 if phi.fate == "collapse" else math.nan
            )
            if _degree(model) > 2:
                tilted = size * _tilt(best.u, rng)
                unaligned.append(abs(_grow(ncf, tilted) / expected - 1))
    ledger.at_most("d|u|^2/dt against 2 D N(u), relative", rates, ROUNDING, ROUNDING_WHY)
    ledger.at_most("largest fall of N(u/|u|) between steps, relative to its largest value", drops, 1e-7, "rtol 1e-9")
    ledger.at_most(
        "blow-up time of aligned starts against 1/(D(D-2)N* c^(D-2)), relative", blow_ups, 1e-6, "rtol 1e-10"
    )
    ledger.at_most("time to grow by 1e4 against ln(1e4)/(2 N*), D = 2, relative", growths, 1e-6, "rtol 1e-10")
    ledger.at_most("the library's time scale against the same laws, relative", library, 1e-6, "rtol 1e-9")
    ledger.at_most(
        "KKT residual of the limit direction over N (random starts; 0 for a collapse)", ends, 1e-6, "polished by Newton"
    )
    ledger.at_most("end of |u| over its start where all labels pull down", _collapses(ctx), 1e-3, "followed until 1e-4")
    ledger.control(
        "blow-up time against 1/(D(D-2)N* c^(D-2)), relative", unaligned, 1e-6, "the start is 30 degrees off u*"
    )


GROWTH = 1e4


def _degree(model: Model) -> float:
    """From the definition of the model, for the nets used here."""
    if isinstance(model, FeedForward):
        p = 2 if model.activation.name == "square" else 1
        return float(sum(p**k for k in range(len(model.widths) - 1)))
    return 4.0 if isinstance(model, DiagonalLinear) else 2.0


def _law(D: float, value: float, size: float) -> float:
    return 1 / (D * (D - 2) * value * size ** (D - 2)) if D > 2 else 1 / (2 * value)


def _grow(ncf: OriginNCF, start: np.ndarray) -> float:
    """The time from ``start`` to |u| = GROWTH |start|; at D > 2 the blow-up comes 1e-4 of it later, or less.

    The rest is at most GROWTH^-(D-2) of the whole for any start, and is added from the aligned law's own
    scaling: time left ~ |u|^-(D-2), hence whole = run / (1 - GROWTH^-(D-2)).
    """
    D = ncf.degree
    path = simulate(
        ncf_field(ncf),
        start,
        t_end=math.inf,
        method="DOP853",
        clock=RescaledTime(D - 2.0) if D > 2 else PhysicalTime(),
        rtol=RTOL,
        events=[norm_level(GROWTH * float(np.linalg.norm(start)))],
    )
    if not path.ok:
        return math.nan
    return float(path.t[-1]) / (1 - GROWTH ** -(D - 2) if D > 2 else 1.0)


def _tilt(u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    b = rng.standard_normal(u.size)
    b -= (b @ u) * u
    return math.cos(math.pi / 6) * u + math.sin(math.pi / 6) * b / np.linalg.norm(b)


def _largest_drop(ncf: OriginNCF, path: FlowResult) -> float:
    v = path.w / np.linalg.norm(path.w, axis=1, keepdims=True)
    values = ncf.value(v)
    return float(max(0.0, -np.diff(values).min()) / np.abs(values).max())


def _limit_error(ncf: OriginNCF, point: KKTPoint | None) -> float:
    if point is None or point.value <= 0:
        return math.nan
    return float(np.linalg.norm(ncf.gradient(point.u) - ncf.degree * point.value * point.u)) / point.value


def _collapses(ctx: Context) -> list[float]:
    """Diagonal nets w_j^D x_j, D even, with every label negative: N <= 0 everywhere, so no stable set is entered."""
    ends = []
    for rng in ctx.draws("collapse", 2):
        for depth in (2, 4):
            model = DiagonalLinear(3, depth, tied=True)
            ncf = OriginNCF(Objective(model, np.eye(3), -rng.uniform(0.5, 1.5, 3)))
            phi = limit(ncf, rng.standard_normal(3))
            last = float(np.linalg.norm(phi.path.final) / np.linalg.norm(phi.path.w[0]))
            ends.append(last if phi.fate == "collapse" else math.nan)
    return ends


def _symbols(ledger: Ledger) -> None:
    import sympy as sp

    t, c, N = sp.symbols("t c N", positive=True)
    growth = []
    for D in (3, 4, 7):
        r = (c ** (2 - D) - D * (D - 2) * N * t) ** sp.Rational(-1, D - 2)
        growth += [sp.diff(r, t) - D * N * r ** (D - 1), r.subs(t, 0) - c]
        blow = sp.solve(c ** (2 - D) - D * (D - 2) * N * t, t)[0]
        growth.append(blow - 1 / (D * (D - 2) * N * c ** (D - 2)))
    r = c * sp.exp(2 * N * t)
    growth += [sp.diff(r, t) - 2 * N * r]
    ledger.identity(
        "aligned: dr/dt = D N* r^(D-1), its solution, and where that blows up", [sp.powsimp(g) for g in growth]
    )
    # for every form in two variables: the right-hand side is a square
    x, y = sp.symbols("x y", positive=True)
    monotone = []
    for D in (2, 3, 4):
        form = sum(sp.Symbol(f"k{i}", real=True) * x**i * y ** (D - i) for i in range(D + 1))
        gx, gy = sp.diff(form, x), sp.diff(form, y)
        r2 = x**2 + y**2
        on_sphere = form / r2 ** sp.Rational(D, 2)
        rate = sp.diff(on_sphere, x) * gx + sp.diff(on_sphere, y) * gy
        monotone.append(sp.expand(sp.simplify(rate * r2 ** sp.Rational(D + 2, 2)) - (gx * y - gy * x) ** 2))
    ledger.identity("dN(u/|u|)/dt = |u|^-(D+2) (|grad N|^2 |u|^2 - <u, grad N>^2) for general forms", monotone)
