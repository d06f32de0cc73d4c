"""Near the origin the weights stay small and turn to a KKT point of the NCF, within a time T/delta^(D-2).

Hypotheses.  H homogeneous of degree D >= 2, twice differentiable; w(0) = delta w0 with w0 in the stable set of a
positive KKT point w* of the NCF at the origin.

Conclusion.  For every eps there are T and delta_0 such that for delta < delta_0 the flow is of size O(delta) on
[0, T/delta^(D-2)] and has 1 - cos(w, w*) = O(eps) at its end.  For D = 2 the horizon T is constant.

Source.  [2L], Theorem 3; [DEEP], Theorem 1; restated as [BEYOND], Lemma 3.  T is taken from the NCF flow: the time at
which its own direction is within eps for good.

Control.  A horizon longer or shorter by a factor 1/delta: the flow has left, or has not turned yet.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.events import Event, Probe, norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf.directions import cosine_deficit
from gfsim.ncf.origin import OriginNCF
from gfsim.ncf.phi import ncf_field
from proofs_checks.fitting import power_law
from proofs_checks.instances import Search
from proofs_checks.origin_starts import Start, draw
from proofs_checks.statement import Context, Ledger

EPS = (1e-1, 1e-2, 1e-3)
DELTAS = np.logspace(-4, -8, 5)
"""|phi| is at most 100 when its direction is within 1e-3, so that |w| <= 1e-2 all the way: the loss's next term is then
1e-2^D <= 1e-4 of the first."""
LEVEL = 0.3
"""|w| at the escape, in units of the size that the labels ask for."""
RESOLVED = 1e5
"""Largest |phi|^(D-2) at a horizon: phi's own time left is then 1e-5 of the whole, against clocks good to 1e-9.  At
D = 7 and |phi| = 100 it would be 1e-10 of it, beyond what they resolve."""


def models() -> list[tuple[Model, float]]:
    """With their degrees, from the definitions."""
    return [
        (FeedForward((3, 3, 2), "linear"), 2.0),
        (DiagonalLinear(3, 2, tied=True), 2.0),
        (FeedForward((3, 3, 1), "square"), 3.0),
        (DiagonalLinear(3, 4), 4.0),
        (FeedForward((3, 2, 2, 1), "square"), 7.0),
    ]


def check(ctx: Context, ledger: Ledger) -> None:
    sizes, turned, constants, late, early = ([] for _ in range(5))
    for rng in ctx.draws("starts", 1, 6):
        for model, D in models():
            start, passages = passing_start(model, D, rng)
            for eps, T, largest in passages:
                rows = [follow(start, T / float(d) ** (D - 2), float(d)) for d in DELTAS]
                sizes.append(power_law(DELTAS, [row[0] for row in rows]))
                turned.append(rows[-1][1] / eps)
                constants.append(abs(rows[-1][0] / (float(DELTAS[-1]) * largest) - 1.0))
                longer = [follow(start, T / float(d) ** (D - 1), float(d))[0] for d in DELTAS]
                late.append(power_law(DELTAS, longer))
                if eps == max(EPS):
                    continue  # w0 itself need not be much further off than that
                d = float(DELTAS[-1])
                early.append(follow(start, T * d / d ** (D - 2), d)[1] / eps)
    ledger.upper_bound("max |w| up to T/delta^(D-2)", sizes, 1.0, "O(delta)")
    ledger.at_most(
        "1 - cos(w, w*) at T/delta^(D-2), over eps, delta = 1e-8",
        turned,
        1.01,
        "the NCF flow's own is eps; the flow's is the same but for O(delta) and the solver's error",
    )
    ledger.at_most(
        "max |w|/delta there against the NCF flow's, relative, delta = 1e-8", constants, 1e-3, "its limit as delta -> 0"
    )
    ledger.upper_bound_control("max |w| up to T/delta^(D-1)", late, 1.0, "a horizon longer by 1/delta")
    ledger.control("1 - cos(w, w*) over eps", early, 1.01, "a horizon shorter by delta")


def passing_start(model: Model, D: float, rng: np.random.Generator) -> tuple[Start, list[tuple[float, float, float]]]:
    """A start that has still to turn, with at least one horizon that is resolved, and those horizons."""
    search = Search("a start that has still to turn")
    while True:
        search.draw()
        start = draw(model, rng)
        resolved = [h for h in horizons(start) if h[2] ** (D - 2) <= RESOLVED]
        if resolved and cosine_deficit(start.w0, start.target) > 0.05:
            return start, resolved


def horizons(start: Start) -> list[tuple[float, float, float]]:
    """(eps, T, largest |phi| up to T) for the EPS that the NCF flow from w0 has still to pass, T its last passage."""

    def passage(eps: float) -> Event:
        def gap(p: Probe) -> float:
            return cosine_deficit(p.w, start.target) - eps

        return Event(f"{eps:g}", gap, -1)

    field = ncf_field(OriginNCF(start.objective))
    events = [*(passage(eps) for eps in EPS), norm_level(100.0, name="grown")]
    path = simulate(field, start.w0, t_end=math.inf, method="DOP853", rtol=1e-11, events=events)
    last = {e.name: e for e in path.events}
    out = []
    for eps in EPS:
        record = last.get(f"{eps:g}")
        if record is not None:
            # N(phi) >= 0 from there on; before, |phi| may have shrunk
            norms = np.linalg.norm(path.w[path.t <= record.t], axis=1)
            out.append((eps, record.t, max(float(norms.max()), float(np.linalg.norm(record.w)))))
    return out


def follow(start: Start, t_end: float, delta: float) -> tuple[float, float]:
    """Largest |w| up to ``t_end`` and 1 - cos(w, w*) at the end; a flow that escapes is followed no further."""
    run = simulate(
        start.objective,
        delta * start.w0,
        t_end=t_end,
        method="DOP853",
        rtol=1e-10,
        events=[norm_level(LEVEL * start.size, name="escape")],
    )
    if not run.ok:
        return math.nan, math.nan
    return float(np.linalg.norm(run.w, axis=1).max()), cosine_deficit(run.final, start.target)
