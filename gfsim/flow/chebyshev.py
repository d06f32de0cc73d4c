"""Runge-Kutta-Chebyshev: an explicit second-order method whose stability grows with the square of its stages.

With q stages it is stable up to h |lambda| ~ 0.65 q^2 on the negative real axis, where all the eigenvalues of
a gradient flow near a minimum lie, so a stiff flow costs the square root of what other explicit methods
pay, without a linear system (Sommeijer, Shampine and Verwer, 1997).  The spectral radius is measured by
power iteration on Hessian-vector products, never assumed.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from gfsim.arrays import Array, taken
from gfsim.flow.integrator import Attempt, first_step, no_costs, smallest_step
from gfsim.flow.rows import RowField, at_rows, clamped, rms
from gfsim.flow.runge_kutta import OVERFLOW_SHRINK

DAMPING = 2.0 / 13.0
MOST_STAGES = 400
SAFETY, SHRINK, GROW = 0.8, 0.1, 5.0
RENEW = 25
"""Accepted steps after which the spectral radius is measured anew."""

POWER_STEPS, MARGIN = 20, 1.15
"""Power iterations at first (a quarter of them later, from where the last ended), and the factor put on top."""


@cache
def coefficients(q: int) -> tuple[np.ndarray, ...]:
    """(mu, nu, mu~, gamma~) of q stages, each (q + 1,), from the recurrence of Chebyshev polynomials."""
    w0 = 1.0 + DAMPING / q**2
    T, dT, ddT = np.zeros(q + 1), np.zeros(q + 1), np.zeros(q + 1)
    T[0], T[1], dT[1] = 1.0, w0, 1.0
    for j in range(2, q + 1):
        T[j] = 2 * w0 * T[j - 1] - T[j - 2]
        dT[j] = 2 * T[j - 1] + 2 * w0 * dT[j - 1] - dT[j - 2]
        ddT[j] = 4 * dT[j - 1] + 2 * w0 * ddT[j - 1] - ddT[j - 2]
    w1 = dT[q] / ddT[q]
    b = np.empty(q + 1)
    b[2:] = ddT[2:] / dT[2:] ** 2
    b[0] = b[1] = b[2]
    mu, nu, mut, gammat = (np.zeros(q + 1) for _ in range(4))
    mut[1] = b[1] * w1
    for j in range(2, q + 1):
        mu[j] = 2 * b[j] * w0 / b[j - 1]
        nu[j] = -b[j] / b[j - 2]
        mut[j] = 2 * b[j] * w1 / b[j - 1]
        gammat[j] = -(1.0 - b[j - 1] * T[j - 1]) * mut[j]
    return mu, nu, mut, gammat


def stability_edge(q: np.ndarray) -> np.ndarray:
    """h |lambda| up to which q stages are stable."""
    return 2.0 / 3.0 * (q * q - 1.0) * (1.0 - 2.0 * DAMPING / 15.0)


def stages_for(edge: np.ndarray) -> np.ndarray:
    """The fewest stages stable up to h |lambda| = edge; at least two."""
    q = np.ceil(np.sqrt(1.5 * edge / (1.0 - 2.0 * DAMPING / 15.0) + 1.0))
    return np.maximum(2, np.where(np.isfinite(q), q, 2)).astype(int)


class Chebyshev:
    """Rows w (B, P); satisfies :class:`gfsim.flow.integrator.Integrator`.

    Rows take the number of stages that their own h |lambda| asks for; ``stiffness`` (B,) is that h |lambda|.
    Parameters as for :class:`gfsim.flow.runge_kutta.ExplicitPair`.
    """

    def __init__(
        self, rows: RowField, w: Array, *, rtol: float, atol: Array, s: Array | None = None, h: Array | None = None
    ) -> None:
        xp = rows.xp
        self.rows, self.w, self.rtol, self.atol = rows, w, rtol, atol + 0.0 * w
        self.s = 0.0 * w[:, 0] if s is None else s
        self.counts = no_costs(w, xp)
        self.v = rows.velocity(w)
        self.counts["velocity"] += 1
        self.direction = self.v * 1.0
        self.radius = 0.0 * self.s
        self._measure(self.counts["accepted"] == 0, POWER_STEPS)
        if h is None:
            h, _ = first_step(rows, w, self.v, self.atol + rtol * abs(w), 2)
            self.counts["velocity"] += 1
        self.h = h
        self.since = self.counts["accepted"] * 0
        self.last_error = 1.0 + 0.0 * self.s
        self.last_h = 0.0 * self.s

    @property
    def stiffness(self) -> Array:
        return self.h * self.radius

    def _measure(self, which: Array, steps: int) -> None:
        """Largest |lambda| of the rows of the mask ``which`` (B,) by power iteration."""
        xp = self.rows.xp
        index = which.nonzero()[0] if xp is np else which.nonzero()[:, 0]
        w, x = self.w[index], self.direction[index]
        rate = self.rows.rate(w)[:, None]
        size = (x * x).sum(-1, keepdims=True) ** 0.5
        x = xp.where(size > 0, x / xp.where(size > 0, size, 1.0), x.shape[1] ** -0.5)
        for _ in range(steps):
            image = rate * self.rows.hessian_product(w, x[:, None])[:, 0]
            size = (image * image).sum(-1, keepdims=True) ** 0.5
            x = xp.where(size > 0, image / xp.where(size > 0, size, 1.0), x)
        self.direction[index], self.radius[index] = x, MARGIN * size[:, 0]
        self.counts["hessian_product"][index] += steps

    def attempt(self) -> Attempt:
        xp, w, h = self.rows.xp, self.w, self.h
        edge = h * self.radius
        stages = stages_for(edge if xp is np else edge.detach().cpu().numpy())
        most = stages > MOST_STAGES
        if most.any():
            # a longer step would need more stages than are worth taking: shorten it
            limit = self.rows.const(np.where(most, stability_edge(np.array(MOST_STAGES)) * 0.99, np.inf), w)
            h = xp.minimum(h, limit / xp.where(self.radius > 0, self.radius, 1.0))
            stages = np.minimum(stages, MOST_STAGES)
        new = self._stages(w, h, stages)
        v_new = self.rows.velocity(new)
        self.counts["velocity"] += 1
        scale = self.atol + self.rtol * xp.maximum(abs(w), abs(new))
        estimate = 0.8 * (w - new) + (0.4 * h)[:, None] * (self.v + v_new)
        error = rms(estimate, scale)
        finite = xp.isfinite(error)
        error = xp.where(finite, error, np.inf)
        accepted = error < 1.0
        bounded = clamped(error, 1e-10)
        plain = SAFETY * bounded ** (-1.0 / 3.0)
        ratio = h / xp.where(self.last_h > 0, self.last_h, h)
        predictive = plain * ratio * (self.last_error / bounded) ** (1.0 / 3.0)
        grow = xp.where(self.last_h > 0, xp.minimum(plain, predictive), plain)
        factor = xp.where(accepted, clamped(grow, SHRINK, GROW), clamped(plain, SHRINK, 0.9))
        factor = xp.where(finite, factor, OVERFLOW_SHRINK)
        start, w_start, v_start, used = self.s, w, self.v, h
        end = xp.where(accepted, start + h, start)
        took = accepted[:, None]
        self.w, self.v, self.s = xp.where(took, new, w), xp.where(took, v_new, self.v), end
        self.last_error = xp.where(accepted, bounded, self.last_error)
        self.last_h = xp.where(accepted, h, 0.0)
        self.h = h * factor
        self.counts["accepted"] += accepted
        self.counts["rejected"] += ~accepted
        self.counts["overflow_rejected"] += ~finite
        self.since = self.since + 1
        # a rejected step may have met a larger eigenvalue than was measured
        due = (self.since >= RENEW) | ~accepted
        if bool(due.any()):
            self._measure(due, POWER_STEPS // 4)
            self.since = xp.where(due, 0, self.since)
        stuck = ~accepted & ~(self.h >= smallest_step(self.s))  # a step that is no number is none
        at = Hermite(start, used, w_start, v_start, new, v_new)
        return Attempt(accepted, stuck, start, end, w_start, self.w, at)

    def _stages(self, w: Array, h: Array, stages: np.ndarray) -> Array:
        """All rows up to their own number of stages."""
        new = 0.0 * w
        for q in np.unique(stages):
            index = self.rows.const(np.flatnonzero(stages == q), w)
            whole = len(index) == len(w)
            w0, v0, step = (w, self.v, h) if whole else (w[index], self.v[index], h[index])
            step = step[:, None]
            mu, nu, mut, gammat = coefficients(int(q))
            before, now = w0, w0 + mut[1] * step * v0
            for j in range(2, q + 1):
                f = self.rows.velocity(now)
                later = (1.0 - mu[j] - nu[j]) * w0 + mu[j] * now + nu[j] * before
                before, now = now, later + step * (mut[j] * f + gammat[j] * v0)
            self.counts["velocity"][index] += int(q) - 1
            if whole:
                return now
            new[index] = now
        return new

    def keep(self, index: Array) -> None:
        names = ("w", "v", "s", "h", "atol", "direction", "radius", "since", "last_error", "last_h")
        for name in names:
            setattr(self, name, getattr(self, name)[index])
        self.counts = {name: values[index] for name, values in self.counts.items()}


class Hermite:
    """The cubic through both ends of a step and their velocities; the chord for a method of order one."""

    def __init__(
        self, start: Array, h: Array, w0: Array, v0: Array, w1: Array, v1: Array, *, linear: bool = False
    ) -> None:
        self.start, self.h, self.ends, self.linear = start, h, (w0, v0, w1, v1), linear

    def __call__(self, rows: Array, s: Array, part: Array | None = None) -> Array:
        at = at_rows(rows, len(self.h))
        w0, v0, w1, v1 = (taken(end[at], part)[:, None] for end in self.ends)
        h = self.h[at][:, None, None]
        x = (s[:, :, None] - self.start[at][:, None, None]) / h
        chord = (1.0 - x) * w0 + x * w1
        if self.linear:
            return chord
        slope0, slope1 = h * v0 - (w1 - w0), (w1 - w0) - h * v1
        return chord + x * (1.0 - x) * ((1.0 - x) * slope0 + x * slope1)
