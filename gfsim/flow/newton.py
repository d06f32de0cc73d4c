"""The linear systems of an implicit step: (I - c J) x = b, J the Jacobian of a gradient field in its clock.

In the clock s, J = -rho H + v g' with the symmetric Hessian H of the potential, rho = dt/ds, v = dw/dt and
g = d rho/dw (docs/theory.md, section 4): a symmetric matrix and one rank-one term, which is taken in by
the Sherman-Morrison formula.  What is left is A = E + a H with a = c rho and a diagonal E: the unit matrix, or
1 + c mu at the weights whose growth is taken out (:mod:`gfsim.flow.frame`).  It is solved in one of two ways:

* :class:`DenseNewton`: the exact H and a Cholesky factor of A, half the work of an LU factor;
* :class:`KrylovNewton`: H is never formed.  Its stiff directions, few near a sparse saddle and never more
  than the outputs (the Gauss-Newton part has that rank), are found by a block Krylov iteration on
  Hessian-vector products, the others share one middle value, and conjugate gradients do the rest where
  that is too coarse.

Both serve a batch of rows.  Rows that start close together borrow one row's stiff directions, so a row's numbers
depend on its neighbours by a small part of its tolerance; its errors are its own.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from gfsim.arrays import Array
from gfsim.flow.rows import RowField, at_rows, inner, join_rows, keep_rows, rms

DENSE_UP_TO = 200
"""Weights up to which one trajectory forms H; with more, or in a batch, its stiff directions are cheaper."""

BLOCK, MOST_DIRECTIONS, SWEEPS = 10, 60, 3
"""Directions of the first search, the most that are kept, and applications of H to a block in one search; a
search that starts from known directions needs one less."""

DIRECTION_NUMBERS = 12_000_000
"""Numbers that the directions of one row may hold: a net of a million weights keeps a dozen of them."""

LOOSE = 0.5
"""a times the largest eigenvalue that is not resolved: above it conjugate gradients take over."""

FAINT = 0.05
"""a |lambda| below which a direction is left to the middle value of all that is not resolved."""

NEARBY = 0.2
"""Rows whose distance is below this part of their norm borrow each other's stiff directions."""

CG_RTOL, CG_STEPS = 0.05, 40

KRYLOV_ROWS = ("point", "unit", "Q", "lam", "last", "a", "largest", "alone", "extra", "rest", "core")


class Newton(Protocol):
    @property
    def stiffest(self) -> Array:
        """(B,) largest |eigenvalue| of rho H as last taken; NaN before the first refresh."""
        ...

    @property
    def borrowed(self) -> Array:
        """(B,) whether a row's curvature may be that of another row, so that its own might serve it better."""
        ...

    def refresh(self, index: Array, w: Array, v: Array, c: Array, rho: Array, extra: Array | None) -> Array:
        """Take the curvature of the rows ``index`` (m,) at ``w`` (m, P), then :meth:`prepare`."""
        ...

    def prepare(self, index: Array, w: Array, v: Array, c: Array, rho: Array, extra: Array | None) -> Array:
        """Make ready to solve with c (m,), dt/ds = rho (m,), the clock's other term and E = 1 + ``extra`` (m, P), H as
        it is.

        The clock's term wants the weights ``w`` (m, P) and their speed ``v`` = dw/dt (m, P), for which an estimate will
        do.  ``extra`` is None where it would be zero.

        False where the step is too long for the growth it meets: (m,).
        """
        ...

    def solve(self, index: Array, b: Array) -> Array:
        """x with (E - c J) x = b for b (m, P), exactly or nearly: (m, P)."""
        ...

    def keep(self, index: Array) -> None: ...

    def join(self, other: Any) -> None:
        """Take in the rows of another one of the same kind."""
        ...


def make_newton(rows: RowField, w: Array, unit: Array, counts: dict[str, Array], kind: str) -> Newton:
    """Of the named kind, for rows w (B, P) whose errors count in ``unit`` (B, P).

    ``"dense"``, ``"krylov"``, or ``"auto"``: dense for a single trajectory of at most DENSE_UP_TO weights."""
    if kind == "auto":
        kind = kind_for(w)
    return DenseNewton(rows, w, counts) if kind == "dense" else KrylovNewton(rows, w, unit, counts)


def kind_for(w: Array) -> str:
    """The kind that is cheaper for rows w (B, P)."""
    small = w.shape[1] <= 64 or (len(w) == 1 and w.shape[1] <= DENSE_UP_TO)
    return "dense" if small else "krylov"


class _ClockTerm:
    """The rank-one term c v g' of every row, and its Sherman-Morrison correction."""

    def __init__(self, rows: RowField, w: Array) -> None:
        self.rows = rows
        self.rho = 1.0 + 0.0 * w[:, 0]
        self.c = 0.0 * self.rho
        self.physical = rows.clock.physical
        if not self.physical:
            self.v, self.g, self.sv, self.strength = 0.0 * w, 0.0 * w, 0.0 * w, 0.0 * self.rho

    def update(self, index: Array, w: Array, v: Array, c: Array, rho: Array) -> None:
        at = at_rows(index, len(self.c))
        self.c[at] = c
        if self.physical:
            return
        self.rho[at] = rho
        self.v[at] = v
        self.g[at] = self.rows.clock.rate_gradient(w)

    def solved(self, index: Array, sv: Array) -> None:
        """Take in ``sv`` = M^-1 v of the rows ``index``: (m, P)."""
        at = at_rows(index, len(self.c))
        c = self.c[at]
        self.sv[at], self.strength[at] = sv, c / (1.0 - c * inner(self.g[at], sv))

    def correct(self, index: Array, x: Array) -> Array:
        """x of (M - c v g') x = b from x = M^-1 b."""
        if self.physical:
            return x
        at = at_rows(index, len(self.c))
        share = self.strength[at] * inner(self.g[at], x)
        return x + share[:, None] * self.sv[at]

    @property
    def _names(self) -> tuple[str, ...]:
        return ("rho", "c") if self.physical else ("rho", "c", "v", "g", "sv", "strength")

    def keep(self, index: Array) -> None:
        keep_rows(self, self._names, index)

    def join(self, other: _ClockTerm) -> None:
        join_rows(self, other, self._names, self.rows.xp)


class DenseNewton:
    """Exact Hessians and Cholesky factors, one a row."""

    def __init__(self, rows: RowField, w: Array, counts: dict[str, Array]) -> None:
        self.rows, self.counts = rows, counts
        self.term = _ClockTerm(rows, w)
        self.H: list[Any] = [None] * len(w)
        self.factor: list[Any] = [None] * len(w)
        self.top = 0.0 * w + 1.0
        self.largest = np.nan * w[:, 0]

    @property
    def borrowed(self) -> Array:
        return self.largest != self.largest

    @property
    def stiffest(self) -> Array:
        return self.term.rho * self.largest

    def refresh(self, index: Array, w: Array, v: Array, c: Array, rho: Array, extra: Array | None) -> Array:
        for k, point in zip(index.tolist(), w, strict=True):
            self.H[k] = self.rows.hessian(point)
            self.counts["jacobian"][k] += 1
            self.largest[k] = self._largest(k)
        return self.prepare(index, w, v, c, rho, extra)

    def _largest(self, k: int) -> Array:
        """The largest |eigenvalue| of H, by power iteration from where the last one ended."""
        x, size = self.top[k], 0.0
        for _ in range(8):
            x = self.H[k] @ (x / (x * x).sum() ** 0.5)
            size = (x * x).sum() ** 0.5
            if not size > 0:
                return 0.0 * x.sum()
        self.top[k] = x / size
        return size

    def prepare(self, index: Array, w: Array, v: Array, c: Array, rho: Array, extra: Array | None) -> Array:
        self.term.update(index, w, v, c, rho)
        ok = c == c
        for j, k in enumerate(index.tolist()):
            self.counts["factorisations"][k] += 1
            ok[j] = self._factorise(k, float(c[j] * self.term.rho[k]), 1.0 if extra is None else 1.0 + extra[j])
        if not self.term.physical:
            good = index[ok]
            if len(good):
                self.term.solved(good, self._base(good, self.term.v[good]))
        return ok

    def _factorise(self, k: int, a: float, diagonal: Array | float) -> bool:
        if self.rows.xp is np:
            M = a * self.H[k]
            M.ravel()[:: len(M) + 1] += diagonal
            factor, info = dpotrf(M.T, lower=0, overwrite_a=1, clean=0)  # M is symmetric: .T makes it Fortran's
            self.factor[k] = factor
            return info == 0
        torch = self.rows.xp
        M = a * self.H[k]
        M.diagonal().add_(diagonal)
        factor, info = torch.linalg.cholesky_ex(M)
        self.factor[k] = factor
        return int(info) == 0

    def _base(self, index: Array, b: Array) -> Array:
        xp = self.rows.xp
        if xp is np:
            found = [dpotrs(self.factor[k], row, lower=0)[0] for k, row in zip(index.tolist(), b, strict=True)]
            return found[0][None] if len(found) == 1 else np.array(found)
        pairs = zip(index.tolist(), b, strict=True)
        return xp.stack([xp.cholesky_solve(row[:, None], self.factor[k])[:, 0] for k, row in pairs])

    def solve(self, index: Array, b: Array) -> Array:
        return self.term.correct(index, self._base(index, b))

    def keep(self, index: Array) -> None:
        self.term.keep(index)
        chosen = index.tolist()
        self.H, self.factor = [self.H[k] for k in chosen], [self.factor[k] for k in chosen]
        keep_rows(self, ("top", "largest"), index)

    def join(self, other: DenseNewton) -> None:
        self.term.join(other.term)
        self.H, self.factor = [*self.H, *other.H], [*self.factor, *other.factor]
        join_rows(self, other, ("top", "largest"), self.rows.xp)


class KrylovNewton:
    """The stiff directions of H by Hessian-vector products: H ~ sigma I + Q' diag(lambda - sigma) Q."""

    def __init__(self, rows: RowField, w: Array, unit: Array, counts: dict[str, Array]) -> None:
        self.rows, self.counts = rows, counts
        self.term = _ClockTerm(rows, w)
        n, size = w.shape
        self.width = min(BLOCK, size)
        self.point = w * 1.0
        self.unit = unit + 0.0 * w
        """The size of each weight that matters, (B, P): its absolute tolerance."""
        self.Q = self._zeros((n, 0, size), w)
        self.lam = self._zeros((n, 0), w)
        self.last = 0.0 * w[:, 0]
        """The smallest |eigenvalue| found: what is not resolved lies between 0 and it."""
        self.a = 0.0 * w[:, 0]
        self.largest = np.nan * w[:, 0]
        self.alone = self.a != self.a
        """Rows that look for directions of their own."""
        self.extra, self.rest = 0.0 * w[:, :0], 0.0 * w[:, :0]
        self.core = self._zeros((n, 0, 0), w)
        """E - 1, the inverse of A's diagonal part, and what the stiff directions add to it: empty where E = 1."""
        self._model: tuple[Array, Array, bool] | None = None
        """What :meth:`_shares` found; None after a change of what it depends on."""

    @property
    def borrowed(self) -> Array:
        return ~self.alone

    @property
    def stiffest(self) -> Array:
        return self.term.rho * self.largest

    def _zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        return np.zeros(shape) if self.rows.xp is np else like.new_zeros(shape)

    # -- the stiff directions ----------------------------------------------------------------------

    def refresh(self, index: Array, w: Array, v: Array, c: Array, rho: Array, extra: Array | None) -> Array:
        self.a[index] = c * rho
        # a row that comes back was not served well by what it had
        self.alone[index] = self.alone[index] | (self.largest[index] == self.largest[index])
        self._take(index, w)
        return self.prepare(index, w, v, c, rho, extra)

    @property
    def _room(self) -> int:
        size = self.point.shape[1]
        return min(MOST_DIRECTIONS, size, max(BLOCK, DIRECTION_NUMBERS // size))

    def _take(self, index: Array, w: Array) -> None:
        """The stiff directions at ``w`` (m, P), so many that those left out are not stiff if there is room.

        Starts near one saddle have nearly one Hessian: rows that are close to the stiffest of them borrow its
        directions, and look for their own only when Newton's iteration does not converge with those.
        """
        self.point[index] = w
        if self.Q.shape[1] == 0:
            self._widen(self.width)
        sharing = ~self.alone[index]
        if len(index) > 1 and bool(sharing.any()):
            lender = int((self.a[index] * sharing).argmax())
            close = ((w - w[lender]) ** 2).sum(-1) <= NEARBY**2 * (w[lender] ** 2).sum()
            near = sharing & close
            self._take_own(index[lender : lender + 1], w[lender : lender + 1])
            borrowers, own = index[near], ~near
            own[lender] = False
            source = index[lender]
            for name in ("Q", "lam", "last", "largest"):
                values = getattr(self, name)
                values[borrowers] = values[source] + 0.0 * values[borrowers]
            if not bool(own.any()):
                return
            index, w = index[own], w[own]
        self._take_own(index, w)

    def _take_own(self, index: Array, w: Array) -> None:
        while True:
            lam, Q = self._search(index, w)
            self.Q[index], self.lam[index] = Q, lam
            self.largest[index], self.last[index] = abs(lam[:, 0]), abs(lam[:, -1])
            if self.width >= self._room or not bool((self.a[index] * self.last[index] > LOOSE).any()):
                return
            self._widen(min(2 * self.width, self._room))

    def _widen(self, width: int) -> None:
        n, old, size = self.Q.shape
        Q, lam = self._zeros((n, width, size), self.Q), self._zeros((n, width), self.Q)
        Q[:, :old], lam[:, :old] = self.Q, self.lam
        self.Q, self.lam, self.width = Q, lam, width

    def _search(self, index: Array, w: Array) -> tuple[Array, Array]:
        """Ritz values and vectors of largest size from a block Krylov space, (m, r) and (m, r, P)."""
        xp, r, size = self.rows.xp, self.width, w.shape[1]
        start = self.Q[index]
        known = bool((start != 0).any())
        start = start + self._noise((r, size), w) * (1e-3 if known else 1.0)
        most = max(1, min(SWEEPS - known, size // r))
        V = self._zeros((len(index), r * most, size), w)
        HV = self._zeros((len(index), r * most, size), w)
        block = self._orthonormal(start)
        for sweep in range(most):
            part = slice(r * sweep, r * (sweep + 1))
            V[:, part] = block
            HV[:, part] = self.rows.hessian_product(w, block)
            self.counts["hessian_product"][index] += r
            if sweep + 1 < most:
                block, before = HV[:, part], V[:, : part.stop]
                for _ in range(2):  # twice is enough to stay orthogonal to rounding
                    block = block - (block @ before.mT) @ before
                block = self._orthonormal(block)
        T = V @ HV.mT
        values, vectors = xp.linalg.eigh(0.5 * (T + T.mT))
        order = (-abs(values)).argsort(-1)[:, :r] if xp is np else (-abs(values)).argsort(dim=-1)[:, :r]
        picked = (
            np.take_along_axis(vectors, order[:, None, :], 2)
            if xp is np
            else vectors.gather(2, order[:, None, :].expand(-1, vectors.shape[1], -1))
        )
        lam = np.take_along_axis(values, order, 1) if xp is np else values.gather(1, order)
        return lam, picked.mT @ V

    def _orthonormal(self, block: Array) -> Array:
        return self.rows.xp.linalg.qr(block.mT)[0].mT

    def _noise(self, shape: tuple[int, int], like: Array) -> Array:
        """The same numbers at every call, whatever the batch: only their not being special matters."""
        draw = np.random.default_rng(0).standard_normal(shape)
        return self.rows.const(draw, like)

    # -- solving -----------------------------------------------------------------------------------

    def prepare(self, index: Array, w: Array, v: Array, c: Array, rho: Array, extra: Array | None) -> Array:
        self.term.update(index, w, v, c, rho)
        self._model = None
        a = self.a[index] = c * rho
        coarse = a * self.last[index] > LOOSE
        if self.width < self._room and bool(coarse.any()):
            some = index[coarse]
            self._take(some, w[coarse])
        bend = 1.0 + a[:, None] * self.lam[index]
        if extra is not None:
            bend = bend + (self.Q[index] ** 2 @ extra[:, :, None])[:, :, 0]
        self._take_extra(index, extra)
        if not self.term.physical:
            self.term.solved(index, self._base(index, self.term.v[index]))
        return (bend > 0.1).all(-1)

    def _take_extra(self, index: Array, extra: Array | None) -> None:
        if extra is None and (not self.extra.shape[1] or len(index) == len(self.a)):
            self.extra, self.rest, self.core = self.extra[:, :0], self.rest[:, :0], self.core[:, :0, :0]
            return
        if not self.extra.shape[1]:
            self.extra = 0.0 * self.point
        self.extra[index] = 0.0 if extra is None else extra
        if self.core.shape[1] == self.Q.shape[1]:
            self.rest[index], self.core[index] = self._woodbury(index)
        else:
            self.rest, self.core = self._woodbury(slice(None))

    def _woodbury(self, index: Array | slice) -> tuple[Array, Array]:
        """R = (E + a sigma)^-1 (m, P) and, with S = a diag(lambda - sigma), (1 + S Q R Q')^-1 S (m, r, r): Woodbury's
        formula."""
        xp, a, Q, sigma = self.rows.xp, self.a[index][:, None], self.Q[index], 0.5 * self.last[index][:, None]
        R, S = 1.0 / (1.0 + self.extra[index] + a * sigma), self._strength(index)[:, :, None]
        unit = np.eye(Q.shape[1]) if xp is np else xp.eye(Q.shape[1], dtype=Q.dtype, device=Q.device)
        return R, xp.linalg.solve(unit + S * ((Q * R[:, None]) @ Q.mT), S * unit)

    def _strength(self, at: Array | slice) -> Array:
        """a (lambda - sigma) of the directions (m, r); 0 for those that are not stiff.

        Directions of a degenerate Hessian mix large weights with small ones, and through them the rounding errors of
        the large ones would reach the small ones."""
        a, lam = self.a[at][:, None], self.lam[at]
        return self.rows.xp.where(a * abs(lam) > FAINT, a * (lam - 0.5 * self.last[at][:, None]), 0.0)

    def _deflated(self, index: Array, b: Array) -> Array:
        """(E + a H~)^-1 b for the model H~ = sigma I + Q' diag(lambda - sigma) Q."""
        at = at_rows(index, len(self.a))
        if self.extra.shape[1]:
            R, Q = self.rest[at], self.Q[at]
            x = R * b
            along = self.core[at] @ (Q @ x[:, :, None])
            return x - R * (along.mT @ Q)[:, 0]
        rest, weight, _ = self._shares()
        Q = self.Q[at]
        along = (Q @ b[:, :, None])[:, :, 0]
        return rest[at] * b + ((weight[at] * along)[:, None, :] @ Q)[:, 0]

    def _shares(self) -> tuple[Array, Array, bool]:
        """Where E = 1, A^-1 = rest + Q' diag(weight) Q of all rows, (B, 1) and (B, r); and whether that is too coarse
        for any row."""
        if self._model is None:
            rest = 1.0 + 0.5 * (self.a * self.last)[:, None]
            weight = 1.0 / (rest + self._strength(slice(None))) - 1.0 / rest
            self._model = 1.0 / rest, weight, bool((self.a * self.last > LOOSE).any())
        return self._model

    def _base(self, index: Array, b: Array) -> Array:
        x = self._deflated(index, b)
        if not self._shares()[2]:
            return x
        coarse = self.a[index] * self.last[index] > LOOSE
        if not bool(coarse.any()):
            return x
        sub = coarse.nonzero()[0] if self.rows.xp is np else coarse.nonzero()[:, 0]
        x[sub] = self._conjugate_gradients(index[sub], b[sub], x[sub])
        return x

    def _conjugate_gradients(self, index: Array, b: Array, x: Array) -> Array:
        """Preconditioned conjugate gradients on (E + a H) x = b from x, rows frozen as they converge.

        Converged is measured in units of each weight's tolerance: small weights need their own accuracy.
        """
        a, w = self.a[index][:, None], self.point[index]
        E = 1.0 + self.extra[index] if self.extra.shape[1] else 1.0

        def apply(u: Array) -> Array:
            self.counts["hessian_product"][index] += 1
            return u * E + a * self.rows.hessian_product(w, u[:, None])[:, 0]

        residual = b - apply(x)
        z = self._deflated(index, residual)
        direction, rz = z, inner(residual, z)
        unit = self.unit[index]
        goal = CG_RTOL * rms(b, unit)
        for _ in range(CG_STEPS):
            going = rms(residual, unit) > goal
            if not bool(going.any()):
                break
            image = apply(direction)
            bend = inner(direction, image)
            going = going & (bend > 0)  # along a growing direction the model's answer stays
            alpha = self.rows.xp.where(going, rz / self.rows.xp.where(bend > 0, bend, 1.0), 0.0)
            x = x + alpha[:, None] * direction
            residual = residual - alpha[:, None] * image
            z = self._deflated(index, residual)
            new = inner(residual, z)
            beta = self.rows.xp.where(going, new / self.rows.xp.where(rz > 0, rz, 1.0), 0.0)
            direction, rz = z + beta[:, None] * direction, new
            if not bool(going.any()):
                break
        return x

    def solve(self, index: Array, b: Array) -> Array:
        return self.term.correct(index, self._base(index, b))

    def keep(self, index: Array) -> None:
        self.term.keep(index)
        keep_rows(self, KRYLOV_ROWS, index)
        self._model = None

    def join(self, other: KrylovNewton) -> None:
        width, known = max(self.width, other.width), self.Q.shape[1] + other.Q.shape[1] > 0
        turned = self.extra.shape[1] + other.extra.shape[1] > 0
        for one in (self, other):
            one.width = width
            if known and one.Q.shape[1] < width:
                one._widen(width)
            if turned:
                one.extra = one.extra if one.extra.shape[1] else 0.0 * one.point
                one.rest, one.core = one._woodbury(slice(None))
        self.term.join(other.term)
        join_rows(self, other, KRYLOV_ROWS, self.rows.xp)
        self._model = None
