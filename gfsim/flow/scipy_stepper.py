"""The methods of ``scipy.integrate.solve_ivp`` as steppers, with exact Jacobians and safe overflow.

The error of weight i is measured in units of rtol |w_i| + atol_i, and atol_i is rtol times the root
mean square of its BLOCK at the start.  So weights of size delta keep their relative accuracy beside
weights of size one, which a single scalar atol cannot do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from scipy.integrate import BDF, DOP853, LSODA, RK23, RK45, OdeSolver, Radau

from gfsim.arrays import taken
from gfsim.errors import InvalidInput
from gfsim.flow.clock import Clock
from gfsim.flow.field import Field
from gfsim.flow.result import Counts, Status
from gfsim.flow.stepper import Segment, StepFailure

EXPLICIT: dict[str, type[OdeSolver]] = {"RK23": RK23, "RK45": RK45, "DOP853": DOP853}
IMPLICIT: dict[str, type[OdeSolver]] = {"BDF": BDF, "Radau": Radau, "LSODA": LSODA}
METHODS = {**EXPLICIT, **IMPLICIT}
MULTISTEP = ("BDF", "LSODA")

MAX_OVERFLOWS = 60
"""Consecutive tenfold reductions of an overflowing step before giving up (1e-60 of the first)."""


class _Overflow(Exception):
    """A velocity or Jacobian at a trial point was not finite."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what a rejected trial step may say: its overflow is counted and reported by the status."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lsoda:", category=UserWarning)
        warnings.filterwarnings("ignore", message="Diagonal number", category=RuntimeWarning)
        yield


def block_tolerances(w0: np.ndarray, rtol: float, blocks: Sequence[np.ndarray] | None) -> np.ndarray:
    """atol per weight: rtol times the root mean square of its block at the start ``w0`` (..., P): (..., P).

    ``blocks`` are disjoint index arrays; weights in no block form one more.  A block that starts at
    zero is measured against the whole vector: it has no scale of its own.
    """
    size = w0.shape[-1]
    rest = np.ones(size, dtype=bool)
    parts: list[np.ndarray] = []
    for block in blocks or ():
        given = np.asarray(block).ravel()
        index = np.flatnonzero(given) if given.dtype == bool else given.astype(int)
        if index.size and (index.min() < 0 or index.max() >= size or not rest[index].all()):
            raise InvalidInput(f"error blocks must be disjoint indices in 0..{size - 1}; got {index.tolist()[:8]} ...")
        rest[index] = False
        parts.append(index)
    parts.append(np.flatnonzero(rest))
    whole = np.sqrt(np.mean(w0**2, axis=-1, keepdims=True))
    whole = np.where(whole > 0, whole, 1.0)
    atol = np.empty(w0.shape)
    for index in parts:
        if index.size:
            own = np.sqrt(np.mean(w0[..., index] ** 2, axis=-1, keepdims=True))
            atol[..., index] = rtol * np.where(own > 0, own, whole)
    return atol


class ScipyStepper:
    """One of scipy's ODE solvers on the field in the clock s.

    ``s_end`` is the clock value that the last step must not pass (infinity when the end is not known
    in s).  ``atol`` is (P,).
    """

    def __init__(
        self,
        method: str,
        field: Field,
        clock: Clock,
        w0: np.ndarray,
        *,
        s_end: float,
        rtol: float,
        atol: np.ndarray,
        counts: Counts,
        max_step: float = np.inf,
    ) -> None:
        self.field, self.clock, self.counts = field, clock, counts
        self.s, self.w = 0.0, w0.copy()
        self._solver_class = METHODS[method]
        self._implicit, self._multistep = method in IMPLICIT, method in MULTISTEP
        self._s_end, self._max_step = s_end, max_step
        self.name, self.rtol = method, rtol
        self._rtol, self._atol = rtol, atol
        self._last_step: float | None = None
        self._earlier_lu = 0
        self._solver = self._start(None)

    # -- right-hand side and Jacobian in the clock s ----------------------------------------------

    def _rhs(self, _s: float, w: np.ndarray) -> np.ndarray:
        self.counts.velocity += 1
        v = self.field.velocity(w)
        if not self.clock.physical:
            v = v * self.clock.rate(w)
        if not np.isfinite(v).all():
            raise _Overflow
        return v

    def _jac(self, _s: float, w: np.ndarray) -> np.ndarray:
        self.counts.jacobian += 1
        J = self.field.jacobian(w)
        if not self.clock.physical:
            self.counts.velocity += 1
            J = self.clock.rate(w) * J + np.outer(self.field.velocity(w), self.clock.rate_gradient(w))
        if not np.isfinite(J).all():
            raise _Overflow
        return J

    # -- stepping ----------------------------------------------------------------------------------

    def _start(self, first_step: float | None) -> OdeSolver:
        """A solver at the current point; smaller and smaller first steps until none overflows."""
        for _ in range(MAX_OVERFLOWS):
            try:
                options = {"jac": self._jac} if self._implicit else {}
                room = self._s_end - self.s
                step = None if first_step is None else min(first_step, room)
                return self._solver_class(
                    self._rhs,
                    self.s,
                    self.w.copy(),  # LSODA works in the array it is given
                    self._s_end,
                    rtol=self._rtol,
                    atol=self._atol,
                    first_step=step,
                    max_step=self._max_step,
                    **options,
                )
            except _Overflow:
                self.counts.overflow_rejected += 1
                if first_step is None:
                    # the solver's own guess of a first step overflowed: start from a thousandth of |w|/|v|
                    self.counts.velocity += 1
                    v = self.field.velocity(self.w) * self.clock.rate(self.w)
                    speed = float(np.linalg.norm(v))
                    if not np.isfinite(speed):
                        break
                    first_step = 1e-3 * float(np.linalg.norm(self.w)) / max(speed, 1e-300)
                else:
                    first_step *= 0.1
        raise StepFailure(Status.OVERFLOW, f"velocity not finite near |w| = {np.linalg.norm(self.w):.3g}")

    def _restart(self, first_step: float | None) -> None:
        self._earlier_lu += int(self._solver.nlu)
        self._solver = self._start(first_step)

    def _attempted(self) -> float:
        step = getattr(self._solver, "h_abs", None) or self._last_step
        return float(step) if step else 1e-6

    def _try(self) -> str | None:
        """One step of scipy's solver; its message if it gave up."""
        try:
            message = self._solver.step()
        except ValueError as exc:  # scipy's linear algebra refuses a Newton matrix that overflowed
            if "infs or NaNs" in str(exc):
                raise _Overflow from None
            raise
        if not np.isfinite(self._solver.y).all():
            raise _Overflow
        return message

    def advance(self, limit: float) -> Segment:
        del limit  # an adaptive step goes where its error control says
        tries, fresh = 0, not self._multistep
        step = self._attempted()
        while True:
            try:
                message = self._try()
            except _Overflow:
                self.counts.overflow_rejected += 1
                tries += 1
                step *= 0.1
                if tries > MAX_OVERFLOWS or step < np.spacing(max(self.s, 1e-300)):
                    raise StepFailure(
                        Status.OVERFLOW, f"overflow at s = {self.s:.6g} with |w| = {np.linalg.norm(self.w):.3g}"
                    ) from None
                self._restart(step)
                continue
            if self._solver.t > self.s and self._solver.status != "failed":
                break
            if fresh:
                # LSODA does not fail but goes on accepting steps that no longer move the clock
                why = message.rstrip(".") if message else "the clock froze"
                raise StepFailure(
                    Status.STEP_UNDERFLOW,
                    f"{self._solver_class.__name__} stopped at s = {self.s:.6g}, |w| = {np.linalg.norm(self.w):.3g} "
                    f"({why})",
                )
            # a method may be stuck with its history of steps: give up only if a fresh start is stuck too
            fresh = True
            self._restart(None)
        previous_s, previous_w = self.s, self.w
        self.s, self.w = float(self._solver.t), self._solver.y.copy()
        self._last_step = self.s - previous_s
        self.counts.accepted += 1
        return Segment(previous_s, self.s, previous_w, self.w, _Interpolant(self._solver))

    def factorisations(self) -> int:
        return self._earlier_lu + int(self._solver.nlu)


class _Interpolant:
    """scipy's dense output of the step just taken, built when first asked for (DOP853 pays three velocities)."""

    def __init__(self, solver: OdeSolver) -> None:
        self._solver = solver
        self._dense: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, s: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
        if self._dense is None:
            try:
                self._dense = self._solver.dense_output()
            except _Overflow:
                raise StepFailure(
                    Status.OVERFLOW, f"overflow inside the step that ends at s = {self._solver.t:.6g}"
                ) from None
        return taken(self._dense(np.atleast_1d(s)).T, part)
