"""Butcher tableaus of the explicit methods, as data; their order conditions are checked in the tests.

A tableau of q stages is c (q,), A (q, q) strictly lower triangular, b (q,).  An embedded pair adds the
error weights E (q + 1, m), applied to the stages and the velocity at the new point, and the weights P
of its interpolant, w(s + x h) = w + h sum_i K_i sum_j P_ij x^(j+1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Tableau:
    """A Runge-Kutta method of the given order; ``error_order`` and ``E`` are those of its estimate."""

    name: str
    order: int
    A: np.ndarray
    b: np.ndarray
    c: np.ndarray
    error_order: int = 0
    E: tuple[np.ndarray, ...] = ()
    """One (q + 1,) vector for a plain estimate; two, of fifth and third order, for Dormand and Prince's
    eighth-order method, which combines them."""
    P: np.ndarray | None = None
    """(q + 1, degree) weights of the interpolant; None where the method has another one."""
    extra: tuple[np.ndarray, np.ndarray] | None = None
    """(A_extra (r, q + 1 + r), D (m, q + 1 + r)): r further stages and the weights of an interpolant that
    needs them."""
    stiff_edge: float = 3.3
    """h |lambda| at which the method stops being stable on the negative real axis."""

    @property
    def stages(self) -> int:
        return len(self.b)


EULER = Tableau("euler", 1, np.zeros((1, 1)), np.array([1.0]), np.array([0.0]))

HEUN = Tableau("heun", 2, np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([0.5, 0.5]), np.array([0.0, 1.0]))

RK4 = Tableau(
    "rk4",
    4,
    np.array([[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1.0, 0]]),
    np.array([1, 2, 2, 1]) / 6.0,
    np.array([0, 0.5, 0.5, 1.0]),
)

FIXED: dict[str, Tableau] = {t.name: t for t in (EULER, HEUN, RK4)}


@cache
def bogacki_shampine() -> Tableau:
    """The 3(2) pair of Bogacki and Shampine (1989) with its cubic interpolant; coefficients as scipy has them."""
    from scipy.integrate import RK23

    return Tableau("bs3", 3, RK23.A, RK23.B, RK23.C, 2, (RK23.E,), RK23.P, None, 2.5)


@cache
def dormand_prince_5() -> Tableau:
    """The 5(4) pair of Dormand and Prince (1980) with its quartic interpolant; coefficients as scipy has them."""
    from scipy.integrate import RK45

    A = np.pad(RK45.A, ((0, 0), (0, 1)))  # scipy leaves out the last column, which is zero
    return Tableau("dp5", 5, A, RK45.B, RK45.C, 4, (RK45.E,), RK45.P, None, 3.3)


@cache
def dormand_prince_8() -> Tableau:
    """The 8(5,3) method of Hairer, Norsett and Wanner; its interpolant takes three further velocities a step."""
    from scipy.integrate import DOP853

    q = DOP853.n_stages
    extra = (DOP853.A_EXTRA, DOP853.D)
    return Tableau("dp8", 8, DOP853.A[:q, :q], DOP853.B, DOP853.C[:q], 7, (DOP853.E5, DOP853.E3), None, extra, 6.1)
