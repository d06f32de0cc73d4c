"""The contract of gfsim's own integrators: many trajectories, each with its own step.

1. An integrator holds B rows: clock values ``s`` (B,), weights ``w`` (B, P), steps ``h`` (B,).
2. ``attempt()`` tries ONE step on every row.  A row is accepted or not by its own error alone; a rejected
   row stays where it is with a smaller step.  Rows influence each other by a small part of their tolerance at most.
3. A trial step that is not finite is a rejection with a much smaller step, never an error.  A row whose
   step falls below the spacing of its clock is marked in ``Attempt.stuck``; what becomes of it is the
   driver's to say.
4. ``Attempt.at`` interpolates the accepted steps and is valid until the next ``attempt``.
5. ``keep(index)`` drops all rows but some, at least one.  The numbers of the kept ones do not change.
6. All state is in attributes, so that a pickled integrator goes on bit for bit.

Arrays are NumPy's or torch's throughout (:mod:`gfsim.flow.rows`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from gfsim.arrays import Array
from gfsim.flow.rows import RowField

COSTS = ("velocity", "jacobian", "hessian_product", "factorisations", "accepted", "rejected", "overflow_rejected")
"""Names of the counters, (B,) integers each."""


TEN_SPACINGS = 10 * float(np.finfo(np.float64).eps)


class Interpolant(Protocol):
    def __call__(self, rows: Array, s: Array, part: Array | None = None) -> Array:
        """Weights inside the steps of ``rows`` (m,) at clock values ``s`` (m, q): (m, q, P).

        With flat indices ``part`` (p,) those weights only, (m, q, p).
        """
        ...


class Attempt(NamedTuple):
    """What one attempt did.

    Attributes
    ----------
    accepted, stuck : (B,) of bool
    start, end : (B,)
        Clock before and after; equal on rows that were not accepted.
    w_start, w_end : (B, P)
    at : Interpolant
    """

    accepted: Array
    stuck: Array
    start: Array
    end: Array
    w_start: Array
    w_end: Array
    at: Interpolant


class Integrator(Protocol):
    rows: RowField

    @property
    def counts(self) -> dict[str, Array]:
        """The :data:`COSTS` of each row, (B,) integers."""
        ...

    @property
    def s(self) -> Array: ...

    @property
    def w(self) -> Array: ...

    @property
    def h(self) -> Array: ...

    @property
    def stiffness(self) -> Array:
        """(B,) h |lambda| of the fastest direction met, 0 where it is not known."""
        ...

    def attempt(self) -> Attempt: ...

    def keep(self, index: Array) -> None: ...


def no_costs(like: Array, xp: object) -> dict[str, Array]:
    """All counters at zero for the rows of ``like`` (B, P)."""
    size = len(like)
    if xp is np:
        return {name: np.zeros(size, dtype=np.int64) for name in COSTS}
    return {name: like.new_zeros(size).long() for name in COSTS}


def smallest_step(s: Array) -> Array:
    """Ten spacings of the clock at ``s`` (B,): below this a step is lost to rounding."""
    return abs(s) * TEN_SPACINGS + 1e-300


def first_step(rows: RowField, w: Array, v: Array, scale: Array, order: int) -> tuple[Array, Array]:
    """A first step (B,) from the size of dw/ds and of its change over an Euler step, and the evaluations made.

    The change of the velocity over a short Euler step estimates the second derivative; the step is then
    such that the leading error term of a method of this order is about 1e-2 of the tolerance.
    """
    xp = rows.xp
    d0, d1 = ((w / scale) ** 2).mean(-1) ** 0.5, ((v / scale) ** 2).mean(-1) ** 0.5
    tiny = 1e-300
    moving = ~(d1 <= tiny)  # not a number: the step becomes none either, and the row is given up
    h0 = xp.where(moving, 0.01 * d0 / xp.where(moving, d1, 1.0), 1e-6)
    v1 = rows.velocity(w + h0[:, None] * v)
    d2 = (((v1 - v) / scale) ** 2).mean(-1) ** 0.5 / h0
    steepest = xp.maximum(d1, d2)
    h1 = (0.01 / (steepest + tiny)) ** (1.0 / (order + 1))
    h1 = xp.where(steepest > 1e-15, h1, 1e-3 * h0)
    out = xp.minimum(100 * h0, h1)
    return xp.where(xp.isfinite(out), out, 1e-3 * h0), v1
