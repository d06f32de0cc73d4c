"""A frame that grows with the weights: backward differences of e^(-mu s) w in place of those of w.

Near a saddle the small weights turn towards a KKT point of the NCF and then grow along it as e^(mu s), for a stretch
log(1/delta) / mu of the clock (docs/theory.md, section 4).  A polynomial follows an exponential only in steps of a
fraction of 1 / mu, so the cost of an escape would grow with log(1/delta).  For the weights that grow, with a rate mu
and an origin s0 of its own for every row,

    w(s) = e^(mu (s - s0)) v(s),      dv/ds = e^(-mu (s - s0)) dw/ds - mu v,

and v stands still while the growth is exponential: the formulas of :mod:`gfsim.flow.ndf` are applied to v.  With s0 at
the end of the step, where w = v, the only traces are the factor e^(mu h) on the differences of the past and the term
-mu w of the velocity.  Which weights grow, and how fast, is measured: those whose past is closer to a polynomial there.
"""

from __future__ import annotations

import copy

import numpy as np

from gfsim.arrays import Array, taken
from gfsim.flow.rows import RowField, inner, join_rows, keep_rows, rms, row_numbers

WORTH = 0.1
"""mu h above which a frame is looked for: below it, a polynomial of the order at hand follows the growth."""

JUMP = 1.0
"""The largest change of mu h that the past supports."""

BETTER = 0.8
"""Part of the present error below which the error in another frame makes it worth a change."""

ALIKE = 0.5
"""Part of mu by which a weight's own rate may differ from it."""

MOST = 1.0
"""The largest mu h: no step is tried over more than one e-fold of the growth.  Longer ones pass in the middle of a
plateau, but the first that meets its end is rejected several times.
"""


class Frame:
    """The frames of rows w (B, P): their rates ``mu`` (B,), 0 where there is none."""

    def __init__(self, rows: RowField, w: Array) -> None:
        self.rows = rows
        self.mu = 0.0 * w[:, 0]
        self.grows = 0.0 * w
        """1.0 at the weights that grow, 0.0 at the others."""
        self.moving = False
        """Whether any row has a rate."""

    def factor(self, h: Array) -> Array:
        """e^(mu h) at the weights that grow, 1 at the others: (B, P) for h (B,)."""
        return 1.0 + self.grows * (self.rows.xp.expm1(self.mu * h))[:, None]

    def velocity(self, index: Array | slice, w: Array) -> Array:
        """mu w of the weights that grow, (m, P), which the velocity of v lacks."""
        return self.grows[index] * (self.mu[index][:, None] * w)

    def extra(self, index: Array, c: Array) -> Array | None:
        """c mu at the weights that grow (m, P): what c times that term adds to the diagonal of Newton's matrix."""
        return self.grows[index] * (c * self.mu[index])[:, None] if self.moving else None

    def inside(self, at: Array | slice, past: Array, values: Array, part: Array | None) -> Array:
        """w (m, q, P) at ``past`` (m, q) <= 0 of the clock, counted from the end of the step, from the ``values`` of v,
        which are overwritten."""
        mu = self.mu[at]
        rows = mu > 0
        more = self.rows.xp.expm1(mu[rows][:, None] * past[rows])[:, :, None]
        values[rows] *= 1.0 + taken(self.grows[at][rows], part)[:, None, :] * more
        return values

    def bounded(self, factor: Array, h: Array) -> Array:
        """The factor (B,) by which steps h may change at most."""
        if not self.moving:
            return factor
        return self.rows.xp.where(self.mu * h * factor > MOST, MOST / (self.mu * h + 1e-300), factor)

    def choose(
        self, due: Array, D: Array, signs: Array, h: Array, k: Array, slope: Array, scale: Array
    ) -> tuple[Array, Array]:
        """Change the frame of those of the rows ``due`` (m,) whose past another one suits better.

        Parameters
        ----------
        D : (B, WIDTH, P)
            Differences of all rows in their present frames, valid up to order k + 2.
        signs : (WIDTH, WIDTH)
            Turns differences into past values, and those into differences.
        h, k : (B,)
            Steps and orders.
        slope : (m, P)
            dw/ds at the last values w = D[:, 0] of the rows ``due``.
        scale : (B, P)
            Unit of the errors.

        Returns
        -------
        rows : (n,)
            Those whose frame has changed.
        differences : (n, WIDTH, P)
            Theirs, in the new frame.
        """
        xp, none = self.rows.xp, due[:0]
        w, unit = D[due, 0], scale[due]
        # the rate that fits the weights which move most
        weight = (slope / unit**2) ** 2
        mu = inner(weight * w, slope) / (inner(weight * w, w) + 1e-300)
        step, before = h[due], self.mu[due]
        mu = xp.where((mu * step > WORTH) & (abs(mu - before) * step < JUMP), mu, 0.0)
        some = (mu > 0) | (before > 0)
        if not bool(some.any()):
            return none, D[none]
        due, mu, step, before, w, unit, slope = (x[some] for x in (due, mu, step, before, w, unit, slope))
        top, rows = k[due] + 1, row_numbers(due)
        now = rest = D[due]
        if bool((before > 0).any()):
            rest = xp.where(self.grows[due][:, None, :] > 0, _turned(now, signs, -before * step), now)
        grown = _turned(rest, signs, mu * step)
        alike = abs(slope - mu[:, None] * w) < ALIKE * abs(mu[:, None] * w)
        grows = alike & (abs(grown[rows, top]) < abs(rest[rows, top]))
        new = xp.where(grows[:, None, :], grown, rest)
        change = rms(new[rows, top], unit) < BETTER * rms(now[rows, top], unit)
        if not bool(change.any()):
            return none, D[none]
        due = due[change]
        self.mu, self.grows = 1.0 * self.mu, 1.0 * self.grows
        self.mu[due], self.grows[due] = xp.where(grows.any(-1), mu, 0.0)[change], grows[change] + 0.0 * w[change]
        self.moving = bool((self.mu > 0).any())
        return due, new[change]

    def copy(self) -> Frame:
        """A frame that stays as this one is now."""
        return copy.copy(self)  # its arrays are replaced, never written to

    def keep(self, index: Array) -> None:
        keep_rows(self, ("mu", "grows"), index)

    def join(self, other: Frame) -> None:
        join_rows(self, other, ("mu", "grows"), self.rows.xp)
        self.moving = self.moving or other.moving


def _turned(D: Array, signs: Array, power: Array) -> Array:
    """Differences of values that are e^(power j) as large j steps ago, (B, WIDTH, P) for power (B,)."""
    j = signs[:, 1] * -1.0  # 0, 1, 2, ...
    bend = (power[:, None] * j).exp() if not isinstance(power, np.ndarray) else np.exp(power[:, None] * j)
    return (signs * bend[:, None, :]) @ (signs @ D)
