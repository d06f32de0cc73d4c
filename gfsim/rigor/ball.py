"""Ball arithmetic for certificates: exact numbers in, two theorems out.

Numbers are Arb balls (python-flint): every operation encloses the exact result.  A comparison of balls is true only if
it holds for all their members, so a test that comes out true is a proof; NaN compares false.

Two tests decide everything:

* :func:`krawczyk`, existence and uniqueness of a zero in a box (Krawczyk 1969; Moore 1977; Rump 2010, section 13);
* :func:`signature`, the signs of the eigenvalues of a symmetric matrix (Sylvester and Gershgorin).

Approximate inverses and eigenvectors come from float64 linear algebra.  They are only guesses: what is proved does not
depend on how good they are, a bad guess makes the test fail.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flint import arb, arb_mat


class Undecided(Exception):
    """A test did not come out true.  The claim may hold, but this is no proof of it."""


def ball(centre: float, radius: float) -> arb:
    """All numbers within ``radius`` of ``centre``."""
    return arb(centre, radius)


def column(entries: Sequence[arb]) -> arb_mat:
    return arb_mat(len(entries), 1, list(entries))


def square(rows: Sequence[Sequence[arb]]) -> arb_mat:
    return arb_mat(len(rows), len(rows), [x for row in rows for x in row])


def middle(M: arb_mat) -> np.ndarray:
    """Midpoints, rounded to float64: (rows, columns)."""
    return np.array([[float(x.mid()) for x in row] for row in M.tolist()]).reshape(M.nrows(), M.ncols())


def lifted(M: np.ndarray) -> arb_mat:
    """A float64 matrix, exactly."""
    return arb_mat(M.shape[0], M.shape[1], [arb(float(x)) for x in M.ravel()])


def identity(n: int) -> arb_mat:
    return square([[arb(int(i == j)) for j in range(n)] for i in range(n)])


def guessed_inverse(J: arb_mat) -> arb_mat:
    """A float64 inverse of the midpoint matrix, exactly as it came out."""
    try:
        Y = np.linalg.inv(middle(J))
    except np.linalg.LinAlgError:
        raise Undecided("the Jacobian is singular at the centre: the zero is not isolated") from None
    if not np.isfinite(Y).all():
        raise Undecided("the Jacobian has no finite inverse at the centre")
    return lifted(Y)


def displacement(F: arb_mat, J: arb_mat, radii: Sequence[float]) -> list[arb]:
    """Krawczyk's operator minus the centre, -Y F + (I - Y J)(X - c), for the box X of half-widths ``radii``."""
    Y = guessed_inverse(J)
    sides = column([ball(0.0, r) for r in radii])
    moved = (identity(len(radii)) - Y * J) * sides - Y * F
    return [moved[i, 0] for i in range(len(radii))]


def krawczyk(F: arb_mat, J: arb_mat, radii: Sequence[float]) -> None:
    """Prove that f has exactly one zero in the box c + [-radii, radii], or raise :class:`Undecided`.

    Parameters
    ----------
    F : (n, 1)
        Encloses f(c).
    J : (n, n)
        Encloses f'(x) for all x in the box.
    radii : n positive floats

    If c - Y f(c) + (I - Y J)(X - c) lies in the interior of X, then Y and every member of J are nonsingular and f has
    exactly one zero in X.  If f depends on parameters, and F and J enclose it for all of them, this holds for each.
    """
    for k, moved in enumerate(displacement(F, J, radii)):
        if not abs(moved) < arb(radii[k]):
            raise Undecided(f"Krawczyk's operator does not map the box of radius {max(radii):.3g} into its interior")


def signature(M: arb_mat) -> tuple[int, int]:
    """(negative, positive) eigenvalues of every symmetric matrix enclosed by ``M``; none of them is zero.

    With V the float64 eigenvectors of the midpoint, V' M V is almost diagonal.  If it is strictly diagonally dominant,
    it is nonsingular, hence V too, and its diagonal has the signs of its eigenvalues (Gershgorin, and continuity in the
    off-diagonal part); M has as many of each sign (Sylvester).
    """
    n = M.nrows()
    if n == 0:
        return 0, 0
    A = middle(M)
    if not np.isfinite(A).all():
        raise Undecided("a matrix whose signature is asked for is not finite")
    V = lifted(np.linalg.eigh(0.5 * (A + A.T))[1])
    T = (V.transpose() * M * V).tolist()
    negative = positive = 0
    for i, row in enumerate(T):
        others = sum((abs(x) for j, x in enumerate(row) if j != i), arb(0))
        if row[i] > others:
            positive += 1
        elif -row[i] > others:
            negative += 1
        else:
            raise Undecided("the sign of an eigenvalue cannot be told from zero")
    return negative, positive
