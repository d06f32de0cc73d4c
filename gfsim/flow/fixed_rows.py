"""Euler, Heun and RK4 with one fixed step for a batch of rows: gradient descent is Euler, t = step x iteration."""

from __future__ import annotations

from gfsim.arrays import Array
from gfsim.flow.chebyshev import Hermite
from gfsim.flow.integrator import Attempt, no_costs
from gfsim.flow.rows import RowField
from gfsim.flow.tableaus import Tableau


class FixedRows:
    """Rows w (B, P) in physical time; satisfies :class:`gfsim.flow.integrator.Integrator`.

    A row whose step is not finite is stuck: a fixed step cannot be made smaller.
    """

    def __init__(self, rows: RowField, w: Array, tableau: Tableau, *, step: float) -> None:
        self.rows, self.w, self.tableau = rows, w, tableau
        self.s, self.h = 0.0 * w[:, 0], 0.0 * w[:, 0] + step
        self.step, self.steps = step, 0
        self.counts = no_costs(w, rows.xp)
        self.v = rows.velocity(w)
        self.counts["velocity"] += 1

    @property
    def stiffness(self) -> Array:
        return 0.0 * self.s

    def attempt(self) -> Attempt:
        xp, t, h, w = self.rows.xp, self.tableau, self.step, self.w
        stages = [self.v]
        for row in t.A[1:]:
            shift = sum(float(a) * k for a, k in zip(row, stages, strict=False) if a)
            stages.append(self.rows.velocity(w + h * shift))
        new = w + h * sum(float(b) * k for b, k in zip(t.b, stages, strict=True) if b)
        v = self.rows.velocity(new)
        self.counts["velocity"] += t.stages
        accepted = xp.isfinite(new).all(-1) & xp.isfinite(v).all(-1)
        took = accepted[:, None]
        self.steps += 1
        start, w_start, v_start = self.s, w, self.v
        # a multiple of the step, not a sum: iteration k sits at k times the step exactly
        self.s = xp.where(accepted, self.steps * h + 0.0 * start, start)
        self.w, self.v = xp.where(took, new, w), xp.where(took, v, self.v)
        self.counts["accepted"] += accepted
        self.counts["overflow_rejected"] += ~accepted
        at = Hermite(start, self.h, w_start, v_start, self.w, self.v, linear=t.order == 1)
        return Attempt(accepted, ~accepted, start, self.s, w_start, self.w, at)

    def keep(self, index: Array) -> None:
        for name in ("w", "v", "s", "h"):
            setattr(self, name, getattr(self, name)[index])
        self.counts = {name: values[index] for name, values in self.counts.items()}
