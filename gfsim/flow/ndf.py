"""Backward differentiation of order 1 to 5 for a batch of rows, each with its own order and step.

The numerical differentiation formulas of Shampine and Reichelt (1997) on backward differences D_j of the
last values at equal steps.  Newton's systems are those of :mod:`gfsim.flow.newton`, which use that the
Jacobian of a gradient field is symmetric; the rate at which Newton's iteration converges is remembered, so
that most steps take one or two evaluations.

Everything that depends on a row's order is looked up in small tables, so rows of different orders advance
in the same matrix products.
"""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from gfsim.arrays import Array, taken
from gfsim.flow.frame import Frame
from gfsim.flow.integrator import Attempt, first_step, no_costs, smallest_step
from gfsim.flow.newton import make_newton
from gfsim.flow.rows import ONLY, OneNumber, RowField, at_rows, clamped, join_rows, keep_rows, rms, row_numbers

MAX_ORDER = 5
WIDTH = MAX_ORDER + 3
"""Differences kept: up to MAX_ORDER + 2."""

KAPPA = np.array([0.0, -0.1850, -1.0 / 9.0, -0.0823, -0.0415, 0.0])
"""Shampine and Reichelt's parameters: smaller error constants at the same angle of stability."""

GAMMA = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, MAX_ORDER + 1))])
ALPHA = (1.0 - KAPPA) * GAMMA
ERROR = KAPPA * GAMMA + 1.0 / np.arange(1, MAX_ORDER + 2)

SHARE = 0.3
"""Part of the tolerance that one step may use: a block that grows by half takes a dozen steps, whose errors add up.
Measured near a sparse saddle (tests/test_integrators_saddle.py): 4 to 10 rtol after that growth, for a tenth more
velocities than at 1, where it is 16 to 31 rtol."""
NEWTON_STEPS, NEWTON_TOL = 7, 0.1
"""Iterations, and the part of the error test's unit to which Newton's iteration is carried."""

DOUBT = 2.0
"""Factor on the remembered rate of convergence after a step of one iteration, which measures none: without it a rate
that has grown worse goes unnoticed until the differences are full of what the iterations left."""

SLOW = 0.4
"""A convergence rate above which the curvature is taken anew at the next step."""

DRIFT = 0.25
"""Relative change of c dt/ds after which the systems are prepared anew, with the old curvature."""

SHRINK, GROW, OVERFLOW_SHRINK = 0.2, 10.0, 0.1
IDLE_BAND = (0.85, 1.25)
"""Step factors within which the step stays as it is: a new one costs a new factorisation."""

ROWS = ("D", "s", "h", "atol", "order", "equal_steps", "ready", "age", "rate", "after_rejection")


def _tables() -> dict[str, np.ndarray]:
    orders = range(MAX_ORDER + 1)
    predict = np.zeros((MAX_ORDER + 1, 2, WIDTH))
    update = np.stack([np.eye(WIDTH)] * (MAX_ORDER + 1))
    inject, slope = np.zeros((MAX_ORDER + 1, WIDTH)), np.zeros((MAX_ORDER + 1, WIDTH))
    for k in orders[1:]:
        predict[k, 0, : k + 1] = 1.0
        predict[k, 1, 1 : k + 1] = GAMMA[1 : k + 1] / ALPHA[k]
        for i in range(k + 1):
            update[k, i, i : k + 1] = 1.0
        update[k, k + 1], update[k, k + 2] = 0.0, 0.0
        update[k, k + 2, k + 1] = -1.0
        inject[k, : k + 3] = 1.0
        slope[k, 1 : k + 1] = 1.0 / np.arange(1, k + 1)
    signs = np.array([[(-1.0) ** m * comb(j, m) for m in range(WIDTH)] for j in range(WIDTH)])
    inside = np.array([[[i <= k and j <= k for j in range(WIDTH)] for i in range(WIDTH)] for k in orders])
    return {"predict": predict, "update": update, "inject": inject, "slope": slope, "signs": signs, "inside": inside}


TABLES = _tables()
RISING = np.arange(WIDTH - 1.0)


class NDF:
    """Rows w (B, P) advanced implicitly; satisfies :class:`gfsim.flow.integrator.Integrator`.

    Parameters
    ----------
    rows : RowField
    w : (B, P)
    rtol, atol
        As for :class:`gfsim.flow.runge_kutta.ExplicitPair`.
    h : (B,), optional
        First steps of order one.
    newton : ``"auto"``, ``"dense"`` or ``"krylov"``
        See :func:`gfsim.flow.newton.make_newton`.

    ``stiffness`` (B,) is h |lambda| for the largest eigenvalue at the last refresh of the curvature.
    """

    def __init__(
        self,
        rows: RowField,
        w: Array,
        *,
        rtol: float,
        atol: Array,
        s: Array | None = None,
        h: Array | None = None,
        newton: str = "auto",
    ) -> None:
        xp = rows.xp
        self.rows, self.rtol, self.atol = rows, SHARE * rtol, SHARE * (atol + 0.0 * w)
        self.s = 0.0 * w[:, 0] if s is None else s
        self.counts = no_costs(w, xp)
        v = rows.velocity(w)
        self.counts["velocity"] += 1
        if h is None:
            h, _ = first_step(rows, w, v, self.atol + rtol * abs(w), 1)
            self.counts["velocity"] += 1
        self.h = h
        n, size = w.shape
        self.D = np.zeros((n, WIDTH, size)) if xp is np else w.new_zeros((n, WIDTH, size))
        self.D[:, 0], self.D[:, 1] = w, h[:, None] * v
        ones = self.counts["accepted"] * 0 + 1
        self.order, self.equal_steps = ones, ones * 0
        self.frame = Frame(rows, w)
        self.newton = make_newton(rows, w, self.atol, self.counts, newton)
        self.ready = np.nan * self.s
        """c dt/ds for which the systems are prepared; NaN where the curvature is still to be taken, 0 where only the
        frame is new.  The stiffness changes with the step and with the clock, the curvature only with the weights."""
        self.age = ones * 0
        """Attempts since the curvature was taken; 0 when it belongs to this very step."""
        self.rate = 1.0 + 0.0 * self.s
        self.after_rejection = self.s != self.s

    @property
    def w(self) -> Array:
        return self.D[:, 0]

    @property
    def stiffness(self) -> Array:
        return self.h * self.newton.stiffest

    def start_from(self, past: Array, h: Array) -> None:
        """Take over at order q - 1 from values (B, q, P) at s, s - h, s - 2h, ... of another method."""
        q = past.shape[1]
        table = self._table("signs")[:q, :q]
        self.D[:, :q] = table @ past
        self.D[:, q:] = 0.0
        self.order = self.order * 0 + (q - 1)
        self.h, self.equal_steps = h, self.equal_steps * 0

    def _table(self, name: str) -> Array:
        return self.rows.const(TABLES[name], self.D)

    # -- one attempt -------------------------------------------------------------------------------

    def attempt(self) -> Attempt:
        xp, k, D, h = self.rows.xp, self.order, self.D, self.h
        start, w_start = self.s, self.w
        if self.frame.moving:  # its origin goes to the end of the step
            D = D * self.frame.factor(h)[:, None, :]
        start_values = self._table("predict")[k] @ D
        guess, psi = start_values[:, 0], start_values[:, 1]
        scale = self.atol + self.rtol * xp.maximum(abs(guess), abs(w_start))
        c = h / self._pick(ALPHA, k)
        solvable = self._prepare(c, guess, w_start)
        d, converged, finite, iterations = self._iterate(guess, psi, scale, c, solvable)
        error = xp.where(converged, self._pick(ERROR, k) * rms(d, scale), np.inf)
        accepted = error <= 1.0

        # the differences after the step, where it is accepted
        took = accepted[:, None]
        every = bool(accepted.all())
        update, inject = self._table("update")[k], self._table("inject")[k]
        if not every:
            update = xp.where(took[:, :, None], update, self._table("update")[0 * k])
            inject = xp.where(took, inject, 0.0)
            d = xp.where(took, d, 0.0)
        after = update @ D + inject[:, :, None] * d[:, None, :]
        if self.frame.moving and not every:
            after = xp.where(took[:, :, None], after, self.D)
        self.D = after
        end = xp.where(accepted, start + h, start)
        self.s = end
        self.equal_steps = xp.where(accepted, self.equal_steps + 1, self.equal_steps * 0)
        self.counts["accepted"] += accepted
        self.counts["rejected"] += ~accepted
        self.counts["overflow_rejected"] += ~finite
        frame = self.frame.copy() if self.frame.moving else None
        self._adapt(after, scale, error, accepted, converged, finite, iterations)
        stuck = ~accepted & ~(self.h >= smallest_step(self.s))  # a step that is no number is none
        interpolant = _Interpolant(self, after, end, h, k, frame)
        return Attempt(accepted, stuck, start, end, w_start, after[:, 0], interpolant)

    def _pick(self, table: np.ndarray, k: Array) -> Array:
        return self.rows.const(table, self.D)[k]

    def _index(self, mask: Array) -> Array:
        return mask.nonzero()[0] if self.rows.xp is np else mask.nonzero()[:, 0]

    def _prepare(self, c: Array, guess: Array, w: Array) -> Array:
        """Curvature where it is missing or stale, factors where c changed; False where no system can be solved.

        Curvature is taken at the last accepted point: along stiff directions the guess is an extrapolation of
        errors, and may lie where H looks quite different.
        """
        solvable = c == c
        xp = self.rows.xp
        rate = 1.0 + 0.0 * c if self.rows.clock.physical else self.rows.rate(guess)
        a = c * rate
        if not bool((abs(a - self.ready) <= DRIFT * self.ready).all()):
            missing = self.ready != self.ready
            drifted = (abs(a - self.ready) > DRIFT * self.ready) & ~missing
            for mask, make in ((missing, self.newton.refresh), (drifted, self.newton.prepare)):
                index = self._index(mask)
                usable = xp.isfinite(a[index])
                solvable[index[~usable]] = False
                good = index[usable]
                if len(good):
                    speed = self._slope(good) / rate[good][:, None]
                    extra = self.frame.extra(good, c[good])
                    solvable[good] = make(good, w[good], speed, c[good], rate[good], extra)
                    self.ready[good] = a[good]
                    if mask is missing:
                        self.age[good], self.rate[good] = 0, 1.0
        # along stiff directions the prepared systems answer too much or too little by the ratio of the two
        self.relax = 2.0 / (1.0 + a / self.ready)
        return solvable

    def _slope(self, index: Array | slice) -> Array:
        """dw/ds of the rows ``index`` by the differences, h dv/ds = sum_j D_j / j: no evaluation is spent on it."""
        along = (self._table("slope")[self.order[index]][:, None] @ self.D[index])[:, 0]
        slope = along / self.h[index][:, None]
        return slope + self.frame.velocity(index, self.D[index, 0]) if self.frame.moving else slope

    def _iterate(
        self, guess: Array, psi: Array, scale: Array, c: Array, solvable: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Newton's iteration for d with c f(guess + d) = psi + d: d, converged, finite, iterations."""
        xp = self.rows.xp
        if xp is np and len(guess) == 1 and solvable[0]:
            return self._iterate_one(guess, psi, scale, c)
        d = 0.0 * guess
        converged, finite = solvable & False, solvable | True
        iterations = self.age * 0
        old = 0.0 * c
        index = self._index(solvable)
        if len(index) < len(d):
            finite = solvable | xp.isfinite(guess).all(-1)
        for m in range(NEWTON_STEPS):
            if not len(index):
                break
            at = at_rows(index, len(d))
            point = guess[at] + d[at]
            f = self.rows.velocity(point)
            if self.frame.moving:
                f = f - self.frame.velocity(at, point)
            iterations[at] += 1
            residual = c[at][:, None] * f - psi[at] - d[at]
            step = self.newton.solve(index, residual) * self.relax[at][:, None]
            size = rms(step, scale[at])
            d[at] = d[at] + step
            rate, fine, done, hopeless = _judge(m, xp, size, old[at], self.rate[at])
            self.rate[at], old[at], converged[at] = rate, size, done
            finite[at] = fine  # a velocity that is not finite leaves a step that is not
            index = index[~(done | hopeless)]
        self.counts["velocity"] += iterations
        return d, converged, finite, iterations

    def _iterate_one(
        self, guess: np.ndarray, psi: np.ndarray, scale: np.ndarray, c: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """:meth:`_iterate` for a single row: decided on plain numbers, in three quarters of the time."""
        d, old, rate = 0.0 * guess, 0.0, self.rate.item()
        fine, done, m = True, False, 0
        for m in range(NEWTON_STEPS):
            point = guess + d
            f = self.rows.velocity(point)
            if self.frame.moving:
                f = f - self.frame.velocity(slice(None), point)
            step = self.newton.solve(ONLY, c * f - psi - d)
            step *= self.relax
            d += step
            size = rms(step, scale).item()
            rate, fine, done, hopeless = _judge(m, OneNumber, size, old, rate)
            old = size
            if done or hopeless:
                break
        self.rate[0] = rate
        self.counts["velocity"] += m + 1
        return d, np.array([done]), np.array([fine]), np.array([m + 1])

    # -- order and step ----------------------------------------------------------------------------

    def _adapt(
        self,
        after: Array,
        scale: Array,
        error: Array,
        accepted: Array,
        converged: Array,
        finite: Array,
        iterations: Array,
    ) -> None:
        xp, k = self.rows.xp, self.order
        factor = 1.0 + 0.0 * self.h
        order = k
        safety = 0.9 * (2 * NEWTON_STEPS + 1) / (2 * NEWTON_STEPS + iterations)
        stale = accepted & False
        if not bool(accepted.all()):
            missed = converged & ~accepted
            plain = clamped(safety * error ** (-1.0 / (k + 1.0)), SHRINK, 0.9)
            factor = xp.where(missed, plain, factor)
            # Newton did not converge: a new curvature first, a shorter step if that was new already
            old_curvature = ~converged & finite & ((self.age > 0) | self.newton.borrowed)
            stale = old_curvature
            factor = xp.where(~converged & finite & ~old_curvature, 0.5, factor)
            factor = xp.where(~finite, OVERFLOW_SHRINK, factor)
        due = accepted & (self.equal_steps > k)
        turned = due & False
        if bool(due.any()):
            after, error, turned = self._choose_frame(after, scale, error, k, due)
            best, order_due = self._choose(after, scale, error, k, safety)
            best = self.frame.bounded(best, self.h)
            idle = (best > IDLE_BAND[0]) & (best < IDLE_BAND[1]) & (order_due == k)
            best = xp.where(self.after_rejection, clamped(best, 0.0, 1.0), best)
            use = due & ~idle
            factor = xp.where(use, best, factor)
            order = xp.where(due, order_due, k)
        self.after_rejection = ~accepted
        changed = factor != 1.0
        self.order = order
        if bool(changed.any()):
            self.equal_steps = xp.where(changed, 0, self.equal_steps)
            self.h = self.h * factor
            self.D = self._rescale(factor, order) @ after
            turned = turned | (changed & (self.frame.mu > 0))
        elif bool((order != k).any()):
            self.equal_steps = xp.where(order != k, 0, self.equal_steps)
        self.ready = xp.where(turned & (self.ready == self.ready), 0.0, self.ready)
        self.age = self.age + 1
        # a slow iteration asks for a new curvature, unless it has just been taken
        stale = stale | (accepted & (self.rate > SLOW) & (iterations > 4) & (self.age > 3))
        self.ready = xp.where(stale, np.nan, self.ready)

    def _choose_frame(
        self, after: Array, scale: Array, error: Array, k: Array, due: Array
    ) -> tuple[Array, Array, Array]:
        """Differences and errors in the frames that suit the last values best, and the rows whose frame is new."""
        index = self._index(due)
        index, there = self.frame.choose(index, after, self._table("signs"), self.h, k, self._slope(index), scale)
        turned = due & False
        if len(index):
            self.D, error = 1.0 * after, 1.0 * error  # the step's interpolant holds the old ones
            self.D[index], turned[index] = there, True
            top = k[index]
            error[index] = self._pick(ERROR, top) * rms(there[row_numbers(top), top + 1], scale[index])
        return self.D, error, turned

    def _choose(self, after: Array, scale: Array, error: Array, k: Array, safety: Array) -> tuple[Array, Array]:
        """(step factor, order) that promises the longest next step, from the error at orders k - 1, k, k + 1."""
        xp = self.rows.xp
        rows = row_numbers(k)
        below = self._pick(ERROR, (k - 1).clip(min=0)) * rms(after[rows, k], scale)
        above = self._pick(ERROR, (k + 1).clip(max=MAX_ORDER)) * rms(after[rows, k + 2], scale)
        tiny = 1e-12
        here = clamped(error, tiny) ** (-1.0 / (k + 1.0))
        lower = xp.where(k > 1, clamped(below, tiny) ** (-1.0 / k), 0.0)
        higher = xp.where(k < MAX_ORDER, clamped(above, tiny) ** (-1.0 / (k + 2.0)), 0.0)
        best, order = here, k
        order = xp.where(lower > best, k - 1, order)
        best = xp.maximum(best, lower)
        order = xp.where(higher > best, k + 1, order)
        best = xp.maximum(best, higher)
        return clamped(safety * best, SHRINK, GROW), order

    def _rescale(self, factor: Array, order: Array) -> Array:
        """The (B, WIDTH, WIDTH) matrices that turn differences at steps h into those at factor h.

        They interpolate the differences 0 .. order and leave the higher ones, of which the next steps at
        the new length make new ones, alone.
        """
        xp = self.rows.xp
        m = self.rows.const(np.arange(WIDTH, dtype=float), self.D)
        values = _newton_basis(xp, -factor[:, None] * m)
        T = self._table("signs") @ values
        return xp.where(self._table("inside")[order], T, self._table("update")[0 * order])

    def keep(self, index: Array) -> None:
        keep_rows(self, ROWS, index)
        self.counts = {name: values[index] for name, values in self.counts.items()}
        self.frame.keep(index)
        self.newton.keep(index)
        self.newton.counts = self.counts  # type: ignore[attr-defined]

    def join(self, other: NDF) -> None:
        """Take in the rows of ``other``, of the same field and tolerance, after those that are here."""
        xp = self.rows.xp
        join_rows(self, other, ROWS, xp)
        self.counts = {name: xp.concatenate([values, other.counts[name]]) for name, values in self.counts.items()}
        self.frame.join(other.frame)
        self.newton.join(other.newton)
        self.newton.counts = self.counts  # type: ignore[attr-defined]


def _judge(m: int, xp: Any, size: Array, before: Array, rate: Array) -> tuple[Array, Array, Array, Array]:
    """rate of convergence, finite, converged, hopeless after step ``m`` of Newton's iteration: of rows, or of one in
    floats."""
    fine = size < np.inf
    if m:
        seen = size / before
        least = 0.2 * rate if m > 1 else 0.01 + 0.0 * seen
        rate = xp.where(seen > least, seen, least)
        rate = xp.where(rate < np.inf, rate, 1.0)
    left = clamped(rate, 0.0, 0.95)
    if not m:
        rate = DOUBT * rate
    ahead = size * left / (1.0 - left)
    hopeless = (size > 1e10) | xp.where(fine, False, True)
    if m:
        hopeless = hopeless | (rate >= 0.95)
    if m > 1:  # the iterations that are left would not even reach the error test's unit
        hopeless = hopeless | (ahead * left ** (NEWTON_STEPS - 1 - m) > 1.0)
    done = (ahead < NEWTON_TOL) | (size == 0.0)
    return rate, fine, xp.where(hopeless, False, done), hopeless


def _newton_basis(xp: object, theta: Array) -> Array:
    """prod_{i<l} (theta + i) / (i + 1) for l = 0 .. WIDTH - 1, as a last axis."""
    if xp is np:
        factors = np.ones((*theta.shape, WIDTH))
        factors[..., 1:] = (theta[..., None] + RISING) / (RISING + 1.0)
        return np.cumprod(factors, axis=-1)
    out = [1.0 + 0.0 * theta]
    for i in range(WIDTH - 1):
        out.append(out[-1] * (theta + i) / (i + 1))
    return xp.stack(out, -1)  # type: ignore[attr-defined]


class _Interpolant:
    """The polynomial through the last values, in their frame, at clock values inside the step just taken."""

    def __init__(self, of: NDF, D: Array, end: Array, h: Array, order: Array, frame: Frame | None) -> None:
        self.of, self.D, self.end, self.h, self.order, self.frame = of, D, end, h, order, frame

    def __call__(self, rows: Array, s: Array, part: Array | None = None) -> Array:
        at = at_rows(rows, len(self.D))
        theta = (s - self.end[at][:, None]) / self.h[at][:, None]
        basis = _newton_basis(self.of.rows.xp, theta)
        basis = basis * self.of._table("inside")[self.order[at], 0][:, None, :]
        values = basis @ taken(self.D[at], part)
        return values if self.frame is None else self.frame.inside(at, s - self.end[at][:, None], values, part)
