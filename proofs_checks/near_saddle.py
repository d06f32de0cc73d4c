"""The flow near a sparse saddle follows the flow of the NCF there.

Hypotheses.  (wbar_n, 0) with wbar_n a local minimum of the active net's loss; s(z) = max(z, alpha z)^p differentiable
at the active preactivations; K = p + 1; the start is (wbar_n + delta n, delta z).

Conclusion.  Up to time T/delta^(K-2), |w_z| and |w_n - wbar_n| are O(delta), and w_z/delta follows the NCF flow phi
from z in the time tau = delta^(K-2) t.  If z lies in the stable set of a positive KKT point u*, then the direction of
w_z tends to u*, and the time t at which |w_z| reaches a fixed level obeys t delta^(K-2) -> the blow-up time of phi
(K > 2), or t / ln(1/delta) -> 1/(2 N*) (K = 2).  If phi goes from z to 0, then w_z/delta collapses with it.

Source.  [NP], Theorem 7, in our reading; docs/theory.md, section 4.  Linear nets of more than two layers are no
instance at K = 2: one neuron alone raises no rank, so N vanishes at their saddles.

Control.  wbar_n critical but no minimum: w_n leaves long before 1/delta.  The blow-up time of another z; a direction
that is not u*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfsim.errors import SaddleNotFound
from gfsim.flow.clock import PhysicalTime
from gfsim.flow.events import norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.directions import cosine_deficit
from gfsim.ncf.phi import PhiLimit, limit, ncf_field
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import find_saddle
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.saddle import SparseSaddle
from proofs_checks.statement import Context, Ledger

Case = tuple[tuple[int, ...], tuple[int, ...], str, int, str]

CASES: tuple[Case, ...] = (
    # widths, active, activation, p, loss
    ((3, 4, 1), (1,), "square", 2, "square"),
    ((3, 3, 3, 1), (1, 1), "square", 2, "square"),
    ((3, 3, 1), (1,), "linear", 3, "square"),
    ((3, 3, 1), (1,), "square", 2, "logistic"),
    ((3, 3, 2), (1,), "linear", 1, "square"),
)
EQUAL = 0.02
DECADES = {2: (-3.0, -7.0), 3: (-3.0, -7.0), 4: (-1.3, -5.3)}
"""log10 delta, first and last, by K: at K = 4 the escape takes 1/delta^2 and the flow's stiffness grows with it."""
LEVEL = 0.3
"""|w_z| at the escape, relative to |wbar_n|."""


@dataclass(frozen=True)
class Start:
    """A saddle, the directions of a start, and what the NCF predicts for it."""

    saddle: SparseSaddle
    n: np.ndarray
    z: np.ndarray
    phi: PhiLimit
    target: np.ndarray

    @property
    def K(self) -> float:
        return self.saddle.escape_degree

    @property
    def horizon(self) -> float:
        """In tau: 0.9 of the blow-up time, or three e-folding times."""
        return (0.9 if self.K > 2 else 3.0) * self.phi.time


@dataclass(frozen=True)
class Measured:
    """One flow: largest |w_z| and |w_n - wbar_n| up to the horizon, relative distance of w_z/delta from phi there,
    w_z on its way out, where |w_z| = sqrt(delta) |wbar_n| / 2, and the escape time."""

    small: float
    shift: float
    gap: float
    turned: np.ndarray
    escape: float


def deltas_for(K: float, full: bool) -> np.ndarray:
    first, last = DECADES[int(K)]
    return np.logspace(first, last, 9 if full else 5)


def check(ctx: Context, ledger: Ledger) -> None:
    small, shift, gaps, deficits, blow, logs, wrong_time, wrong_way = ([] for _ in range(8))
    for rng in ctx.draws("starts", 1, 4):
        for case in CASES:
            start = draw(case, rng)
            other = other_time(start.saddle, rng)
            deltas = deltas_for(start.K, ctx.full)
            rows = [follow(start, float(d)) for d in deltas]
            last = rows[-1]
            _picture(ledger, case, start, deltas, rows)
            small.append(abs(_rate(deltas, [row.small for row in rows]) - 1.0))
            shift.append(_rate(deltas, [row.shift for row in rows]))
            gaps += [row.gap / (delta + FLOOR) for row, delta in zip(rows, deltas, strict=True)]
            deficits.append(cosine_deficit(last.turned, start.target))
            wrong_way.append(cosine_deficit(last.turned, _tilted(start.target, rng)))
            if start.K > 2:
                time = last.escape * float(deltas[-1]) ** (start.K - 2)
                blow.append(abs(time / start.phi.time - 1.0))
                wrong_time.append(abs(time / other - 1.0))
            else:
                slope = float(np.polyfit(np.log(1 / deltas), [row.escape for row in rows], 1)[0])
                logs.append(abs(slope / start.phi.time - 1.0))
    span = "fitted over four decades"
    ledger.at_most("exponent of max |w_z| in delta, against 1", small, EQUAL, span)
    ledger.at_least("exponent of max |w_n - wbar_n| in delta", shift, 1 - EQUAL, f"an upper bound O(delta); {span}")
    ledger.at_most(
        "|w_z/delta - phi|/|phi| over delta, all deltas", gaps, 100.0, "O(delta) with a constant of the problem's own"
    )
    ledger.at_most("1 - cos(w_z, u*) on the way out, smallest delta", deficits, 1e-3, "phi's own is below 1e-4")
    ledger.at_most("t_escape delta^(K-2) against phi's blow-up time, K > 2", blow, 1e-3, "its limit as delta -> 0")
    ledger.at_most("slope of t_escape over ln(1/delta) against 1/(2 N*), K = 2", logs, EQUAL, span)
    _collapse(ctx, ledger)
    exponents = [_leaving(rng, deltas_for(3.0, False), ledger) for rng in ctx.draws("control", 2)]
    ledger.control("exponent of max |w_n - wbar_n| in delta", exponents, 1 - EQUAL, "wbar_n is no minimum", "at least")
    ledger.control("t_escape delta^(K-2) against a blow-up time", wrong_time, 1e-3, "phi from another z")
    ledger.control("1 - cos(w_z, u)", wrong_way, 1e-3, "u is 6 degrees off u*")


def _picture(ledger: Ledger, case: Case, start: Start, deltas: np.ndarray, rows: list[Measured]) -> None:
    widths, _, name, p, loss = case
    label = f"{'-'.join(map(str, widths))} {name}, p = {p}, {loss}"
    ledger.curve("max |w_z| up to the horizon", label, deltas, [row.small for row in rows], stated=1.0)
    ledger.curve("max |w_n - wbar_n| up to the horizon", label, deltas, [row.shift for row in rows], stated=1.0)
    ledger.curve("|w_z/delta - phi| / |phi|", label, deltas, [row.gap for row in rows])
    scaled = [row.escape * float(d) ** (start.K - 2) / start.phi.time for row, d in zip(rows, deltas, strict=True)]
    if start.K > 2:
        off = [abs(time - 1.0) for time in scaled]
        ledger.curve("t_escape delta^(K-2) over phi's blow-up time, less 1", label, deltas, off)
    else:
        ledger.curve("2 N* t_escape, K = 2", label, deltas, scaled, stated=1.0, axes="semilog")


FLOOR = 1e-6
"""Relative accuracy of the computed flows (rtol 1e-9 over some thousand steps), added to delta."""


def _rate(deltas: np.ndarray, sizes: list[float]) -> float:
    """Slope on log-log axes, 0 if it is negative: a size that grows as delta falls is not O(delta) at all."""
    slope = float(np.polyfit(np.log(deltas), np.log(sizes), 1)[0])
    return max(0.0, slope) if math.isfinite(slope) else math.nan


def draw(case: Case, rng: np.random.Generator) -> Start:
    """A saddle of the case, and a start from which phi escapes and is aligned soon enough to be seen."""
    widths, active, name, p, loss = case
    model = FeedForward(widths, name, p=p)
    while True:
        X = rng.standard_normal((16, widths[0]))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        teacher = FeedForward((widths[0], *[3] * (len(widths) - 2), widths[-1]), name, p=p)
        y = teacher.forward(rng.standard_normal(teacher.n_params), X)
        y = np.sign(y * rng.choice([-1, 1, 1, 1], size=y.shape)) if loss == "logistic" else y / np.sqrt(np.mean(y**2))
        if loss == "logistic" and abs(y.sum()) == y.size:
            continue
        try:
            o = Objective(model, X, y, loss=loss, reduction="mean")
            saddle = find_saddle(o, active, rng=rng, starts=4)
        except SaddleNotFound:
            continue
        # a minimum of the active net that is flat, or that nothing leaves, says nothing about the escape
        if saddle.loss < 1e-3 or _flat(saddle):
            continue
        for _ in range(6):
            n, z = saddle.directions(rng)
            phi = limit(SaddleNCF(saddle), z, max_steps=3000)
            if phi.point is not None and _aligned(phi):
                return Start(saddle, n, z, phi, phi.point.u)


def _flat(saddle: SparseSaddle) -> bool:
    """Whether the active Hessian's smallest eigenvalue off the continuum of balances is below 1e-3 of its largest."""
    e = np.linalg.eigvalsh(saddle.active_objective.hessian(saddle.w_n))
    inner = e[e > 1e-9 * e[-1]]
    return bool(inner[0] < 1e-3 * e[-1])


def _aligned(phi: PhiLimit) -> bool:
    """Whether phi's own direction is within 1e-4 of its limit (1 - cos) once |phi| = 300 |z|."""
    if phi.point is None:
        return False
    grown = phi.path.w[np.linalg.norm(phi.path.w, axis=1) >= 300 * np.linalg.norm(phi.path.w[0])]
    return len(grown) > 0 and cosine_deficit(grown[0], phi.point.u) < 1e-4


def other_time(saddle: SparseSaddle, rng: np.random.Generator) -> float:
    """The blow-up time of phi from a fresh z."""
    while True:
        phi = limit(SaddleNCF(saddle), saddle.directions(rng)[1], max_steps=3000)
        if phi.point is not None:
            return phi.time


def _tilted(u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    b = rng.standard_normal(u.size)
    b -= (b @ u) * u
    return math.cos(0.1) * u + math.sin(0.1) * b / np.linalg.norm(b)


def follow(start: Start, delta: float) -> Measured:
    """The flow from (wbar_n + delta n, delta z) to its escape."""
    saddle, K = start.saddle, start.K
    taus = np.linspace(0.04, 1.0, 25) * start.horizon
    path = simulate(
        ncf_field(SaddleNCF(saddle)),
        start.z,
        t_end=start.horizon * (1 + 1e-9),
        method="DOP853",
        clock=PhysicalTime(),
        rtol=1e-11,
        t_eval=taus,
    )
    phi_at = path.w[1 : len(taus) + 1]
    size = float(np.linalg.norm(saddle.w_n))
    run = simulate(
        saddle.objective,
        saddle.start(delta, start.z, start.n),
        t_end=math.inf,
        method="LSODA",
        clock=saddle.clock,
        blocks=saddle.blocks,
        rtol=1e-9,
        events=[
            norm_level(0.5 * math.sqrt(delta) * size, saddle.index_z, name="turn", terminal=0),
            norm_level(LEVEL * size, saddle.index_z, name="escape"),
        ],
        t_eval=taus / delta ** (K - 2),
    )
    if not (run.ok and path.ok):
        return Measured(math.nan, math.nan, math.nan, np.full(start.z.size, math.nan), math.nan)
    rows = run.w[: len(taus) + 1]
    w_z = rows[1:, saddle.index_z] / delta
    gap = np.linalg.norm(w_z - phi_at, axis=1) / np.linalg.norm(phi_at, axis=1)
    return Measured(
        small=float(np.linalg.norm(rows[:, saddle.index_z], axis=1).max()),
        shift=float(np.linalg.norm(rows[:, saddle.index_n] - saddle.w_n, axis=1).max()),
        gap=float(gap.max()),
        turned=run.event("turn").w[saddle.index_z],
        escape=run.event("escape").t,
    )


# -- a saddle that can be written down ------------------------------------------------------------------


def coordinate_saddle(labels: tuple[float, float]) -> SparseSaddle:
    """A three-unit z^2 net on the unit vectors of R^3 with labels 2 and ``labels``; unit 0 fits the first sample alone.

    Its NCF is sum_j b_j (y_2 a_j2^2 + y_3 a_j3^2) times 2.  With negative labels the active neuron is at a minimum;
    with positive ones it can still turn to the other samples, and is at a saddle of its own.
    """
    model = FeedForward((3, 3, 1), "square")
    o = Objective(model, np.eye(3), np.array([2.0, *labels]))
    W, V = np.zeros((3, 3)), np.zeros((1, 3))
    W[0, 0], V[0, 0] = math.sqrt(2.0), 1.0
    return SparseSaddle(o, ActiveNeurons.of(model, (1,)), model.pack([W, V]))


def _collapse(ctx: Context, ledger: Ledger) -> None:
    """Balanced neurons with N < 0: both their weights decay like 1/tau."""
    ends, fates = [], []
    for rng in ctx.draws("collapse", 2):
        saddle = coordinate_saddle((-float(rng.uniform(0.5, 1.5)), -float(rng.uniform(0.5, 1.5))))
        sizes = rng.uniform(0.3, 1.0, 2)
        W, V = np.zeros((3, 3)), np.zeros((1, 3))
        W[1, 1], W[2, 2] = sizes
        V[0, 1:] = sizes / math.sqrt(2)
        z = saddle.model.pack([W, V])[saddle.index_z]
        phi = limit(SaddleNCF(saddle), z, collapse=0.02)
        fates.append(float(phi.fate != "collapse"))
        for delta in (1e-3, 1e-5):
            n = saddle.directions(rng)[0]
            end = float(phi.path.t[-1]) / delta
            run = simulate(
                saddle.objective,
                saddle.start(delta, z, n),
                t_end=end,
                method="LSODA",
                clock=saddle.clock,
                blocks=saddle.blocks,
                rtol=1e-9,
            )
            last = float(np.linalg.norm(run.final[saddle.index_z])) / (delta * float(np.linalg.norm(z)))
            ends.append(last if run.ok else math.nan)
    ledger.at_most("starts from which phi does not go to 0 as constructed", fates, 0.0, "a count")
    ledger.at_most("|w_z|/(delta |z|) when phi has fallen to 0.02", ends, 0.03, "0.02 and a correction of order delta")


def _leaving(rng: np.random.Generator, deltas: np.ndarray, ledger: Ledger) -> float:
    """Exponent of the displacement of w_n up to time 1/delta at a critical point that is no minimum."""
    saddle = coordinate_saddle((float(rng.uniform(0.5, 1.5)), float(rng.uniform(0.5, 1.5))))
    n, z = saddle.directions(rng)
    shifts = []
    for d in deltas:
        w = saddle.start(float(d), z, n)
        run = simulate(saddle.objective, w, t_end=0.1 / float(d), method="LSODA", clock="t", rtol=1e-9)
        shift = np.linalg.norm(run.w[:, saddle.index_n] - saddle.w_n, axis=1).max()
        shifts.append(float(shift) if run.ok else math.nan)
    ledger.curve("max |w_n - wbar_n| up to the horizon", "no minimum", deltas, shifts, stated=1.0, broken=True)
    return _rate(deltas, shifts)
