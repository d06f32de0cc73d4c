"""Explicit embedded Runge-Kutta methods for a batch of rows, with a PI step controller and a measure of stiffness.

Steps grow and shrink by the errors of this step and of the last (Hairer and Wanner, section IV.2): near
the stability limit of a stiff flow a controller that knows only one error makes the step oscillate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gfsim.arrays import Array, taken
from gfsim.flow.integrator import Attempt, first_step, no_costs, smallest_step
from gfsim.flow.rows import OneNumber, RowField, at_rows, clamped, inner, join_rows, keep_rows, rms
from gfsim.flow.tableaus import Tableau

SAFETY, SHRINK, GROW = 0.9, 0.2, 8.0
OVERFLOW_SHRINK = 0.1
"""Factor of the step after a trial that was not finite."""

POWERS = 2
"""Hessian-vector products of an estimate of the largest |lambda|."""

ROWS = ("w", "v", "s", "h", "atol", "last_error", "after_rejection", "stiffness", "first_change")


class ExplicitPair:
    """Rows w (B, P) advanced by an embedded pair; satisfies :class:`gfsim.flow.integrator.Integrator`.

    Parameters
    ----------
    rows : RowField
    w : (B, P)
    tableau : Tableau with an error estimate
    rtol : float
    atol : (B, P) or (P,)
        The error of a weight is measured in units of rtol |w| + atol.
    h : (B,), optional
        First steps; chosen by :func:`gfsim.flow.integrator.first_step` otherwise.

    After each accepted step ``stiffness`` (B,) is h |lambda| for the fastest direction that the step met,
    from the last two evaluations at its end (Hairer and Wanner, section IV.2).
    """

    def __init__(
        self,
        rows: RowField,
        w: Array,
        tableau: Tableau,
        *,
        rtol: float,
        atol: Array,
        s: Array | None = None,
        h: Array | None = None,
    ) -> None:
        xp = rows.xp
        self.rows, self.tableau, self.rtol = rows, tableau, rtol
        self.w, self.atol = w, atol + 0.0 * w
        self.sums = [self._row(tableau.b), *(self._row(row[:i]) for i, row in enumerate(tableau.A) if i)]
        """b, then the rows of A as far as they are not zero."""
        self.error_sums = self._row(np.array(tableau.E))
        """The error estimates, one or two rows."""
        if tableau.P is not None:
            self.powers, self.bend = self._row(np.arange(1.0, tableau.P.shape[1] + 1.0)), self._row(tableau.P.T)
        self.s = 0.0 * w[:, 0] if s is None else s
        self.counts = no_costs(w, xp)
        self.cost = rows.const(np.array(tableau.stages), w)
        self.v = rows.velocity(w)
        self.counts["velocity"] += 1
        if h is None:
            h, _ = first_step(rows, w, self.v, self.atol + rtol * abs(w), tableau.error_order)
            self.counts["velocity"] += 1
        self.h = h
        self.last_error = 1e-4 + 0.0 * self.s
        self.after_rejection = self.s != self.s
        self.stiffness = 0.0 * self.s
        self.first_change = 0.0 * w
        """Change of the velocity over the first stage of the last trial, of rows that it was rejected on: along what is
        fast."""

    def fastest(self, index: Array) -> Array:
        """An estimate, from below, of the largest |lambda| where the rows ``index`` (m,) are, by Hessian-vector
        products: (m,).

        A rejected trial may have gone where the flow looks quite different; the first stage is the shortest way.
        """
        w, x, size = self.w[index], self.first_change[index], 0.0 * self.s[index]
        for _ in range(POWERS):
            x = x / (inner(x, x)[:, None] ** 0.5 + 1e-300)
            x = self.rows.hessian_product(w, x[:, None])[:, 0]
            size = inner(x, x) ** 0.5
            self.counts["hessian_product"][index] += 1
        return self.rows.rate(w) * size

    def attempt(self) -> Attempt:
        xp, t, h = self.rows.xp, self.tableau, self.h
        w, n, size = self.w, len(self.w), self.w.shape[1]
        q = t.stages
        K = self._empty(q + 1)
        flat = K.reshape(q + 1, -1)
        K[0] = self.v
        step = h[:, None]
        trial = w
        for i in range(1, q):
            trial = w + step * (self.sums[i] @ flat[:i]).reshape(n, size)
            K[i] = self.rows.velocity(trial)
        new = w + step * (self.sums[0] @ flat[:q]).reshape(n, size)
        K[q] = self.rows.velocity(new)
        scale = self.atol + self.rtol * xp.maximum(abs(w), abs(new))
        measured = (h, *self._sizes(K, step, scale, new - trial), self.last_error, self.after_rejection)
        one = xp is np and n == 1
        if one:
            pick: Any = OneNumber
            control = _control(t.error_order, pick, *(x.item() for x in measured))
            took = control[0]
            accepted, finite, self.last_error, self.stiffness = (np.array([x]) for x in (*control[:2], *control[3:]))
        else:
            pick = xp
            control = _control(t.error_order, pick, *measured)
            accepted, finite, _, self.last_error, self.stiffness = control
            took = accepted[:, None]
        start, w_start = self.s, w
        end = pick.where(took if one else accepted, start + h, start)
        self.w, self.v, self.s = pick.where(took, new, w), pick.where(took, K[q], self.v), end
        self.after_rejection = ~accepted
        self.h = h * control[2]
        self.counts["velocity"] += self.cost
        self.counts["accepted"] += accepted
        stuck = self.after_rejection
        if not (one and took):
            self.counts["rejected"] += ~accepted
            self.counts["overflow_rejected"] += ~finite
            self.first_change = K[1] - K[0]
            stuck = stuck & ~(self.h >= smallest_step(end))  # a step that is no number is none
        interpolant = _Interpolant(self, K, start, h, w_start, new)
        return Attempt(accepted, stuck, start, end, w_start, self.w, interpolant)

    def _row(self, values: np.ndarray) -> Array:
        return self.rows.const(np.ascontiguousarray(values), self.w)

    def _empty(self, count: int) -> Array:
        shape = (count, *self.w.shape)
        return np.empty(shape) if self.rows.xp is np else self.w.new_empty(shape)

    def _sizes(self, K: Array, step: Array, scale: Array, way: Array) -> tuple[Array, Array, Array]:
        """In units of ``scale``: the error, the way from the last stage to the new point, and the change of the
        velocity along it.  Both lie at the same clock value: their velocities differ by lambda alone."""
        m = len(self.error_sums)
        parts = self._empty(m + 2)
        parts[:m] = step * (self.error_sums @ K.reshape(len(K), -1)).reshape(m, *scale.shape)
        parts[m], parts[m + 1] = way, K[-1] - K[-2]
        *estimates, edge, gap = rms(parts, scale)
        if m == 1:
            return estimates[0], edge, gap
        fifth, third = estimates
        return fifth**2 / ((fifth**2 + 0.01 * third**2) ** 0.5 + 1e-300), edge, gap

    def keep(self, index: Array) -> None:
        keep_rows(self, ROWS, index)
        self.counts = {name: values[index] for name, values in self.counts.items()}

    def join(self, other: ExplicitPair) -> None:
        """Take in the rows of ``other``, of the same field, method and tolerance, after those that are here."""
        xp = self.rows.xp
        join_rows(self, other, ROWS, xp)
        self.counts = {name: xp.concatenate([values, other.counts[name]]) for name, values in self.counts.items()}


def _control(
    order: int, xp: Any, h: Array, error: Array, edge: Array, gap: Array, last_error: Array, after_rejection: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """accepted, finite, factor of the step, error to remember, h |lambda|: of rows (B,), or of one in floats."""
    finite = (error < np.inf) & (edge < np.inf)  # a weight that is not finite leaves no number in the edge
    accepted = finite & (error < 1.0)
    exponent = 1.0 / (order + 1)
    bounded = clamped(xp.where(finite, error, np.inf), 1e-10)
    plain = SAFETY * bounded**-exponent
    grow = SAFETY * bounded ** (-0.85 * exponent) * last_error ** (0.2 * exponent)
    factor = xp.where(accepted, clamped(grow, SHRINK, GROW), clamped(plain, SHRINK, 1.0))
    factor = xp.where(accepted & after_rejection, clamped(factor, 0.0, 1.0), factor)
    factor = xp.where(finite, factor, OVERFLOW_SHRINK)
    known = accepted & (edge > 0)
    stiffness = xp.where(known, h * gap / xp.where(known, edge, 1.0), 0.0)
    return accepted, finite, factor, xp.where(accepted, bounded, last_error), stiffness


class _Interpolant:
    """w at clock values inside the step just taken; further stages are evaluated once, when first needed."""

    def __init__(self, of: ExplicitPair, K: Array, start: Array, h: Array, w0: Array, w1: Array) -> None:
        self.of, self.K, self.start, self.h, self.w0, self.w1 = of, K, start, h, w0, w1
        self._bent: Array | None = None

    def __call__(self, rows: Array, s: Array, part: Array | None = None) -> Array:
        t = self.of.tableau
        at = at_rows(rows, len(self.w0))
        h = self.h[at][:, None]
        x = ((s - self.start[at][:, None]) / h)[:, :, None]
        w0 = taken(self.w0[at], part)[:, None]
        if t.P is not None:
            weights = x**self.of.powers @ self.of.bend
            return w0 + h[:, :, None] * (weights @ taken(self.K.swapaxes(0, 1)[at], part))
        F = taken(self._coefficients()[:, at], part)
        out = 0.0 * w0
        for i, f in enumerate(reversed(list(F))):
            out = (out + f[:, None]) * (x if (len(F) - 1 - i) % 2 == 0 else 1.0 - x)
        return w0 + out

    def _coefficients(self) -> Array:
        """The nested polynomial of the eighth-order method: (7, B, P)."""
        if self._bent is None:
            of, xp = self.of, self.of.rows.xp
            extra = of.tableau.extra
            q, n, size = self.K.shape
            stages, step = [*self.K], self.h[:, None]
            A, D = extra if extra is not None else (np.zeros((0, q)), np.zeros((0, q)))
            for row in A:
                flat = xp.stack(stages).reshape(len(stages), -1)
                shift = (of._row(row[: len(stages)]) @ flat).reshape(n, size)
                stages.append(of.rows.velocity(self.w0 + step * shift))
            of.counts["velocity"] += len(A)
            change, v0, v1 = self.w1 - self.w0, step * self.K[0], step * self.K[q - 1]
            F = [change, v0 - change, 2 * change - v0 - v1]
            flat = xp.stack(stages).reshape(len(stages), -1)
            bent = (of._row(D) @ flat).reshape(len(D), n, size)
            F += [step * b for b in bent]
            self._bent = xp.stack(F)
        return self._bent
