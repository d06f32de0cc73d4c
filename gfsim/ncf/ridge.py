"""Maxima of one-neuron functions with kinks (p = 1), which sit on ridges where many a.h_i = 0.

For p = 1, phi(a) = |G' s(Ha)| is linear in a on each cone of the arrangement {a.h_i = 0}.  Where the
samples on one hyperplane pull downwards together, phi has a ridge along it, and its maxima are
corners of such ridges: there the gradient does not exist, and gradient ascent zig-zags.  Two exact
tools replace it:

* :func:`arc_maxima`: all local maxima of phi on a great circle, from one sort of the kinks;
* :func:`ascent_direction`: the direction of steepest ascent of a function with kinks, the smallest
  element of its Clarke differential.

docs/theory.md, sections 2 and 4.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import lsq_linear

from gfsim.models.activation import HomogeneousActivation
from gfsim.ncf.kkt import Correlation

ON_KINK = 1e-10
"""A sample counts as on its kink when |a.h_i| <= ON_KINK |h_i| for a unit vector a."""

REACH = 0.3
"""How far, in radians, one line search may go: further would leave the basin of its start."""


def branch_slopes(activation: HomogeneousActivation) -> tuple[float, float]:
    """(left, right): the two slopes of a p = 1 activation; left < right, as max(z, alpha z) is convex."""
    return min(1.0, activation.alpha), max(1.0, activation.alpha)


def arc_maxima(z: np.ndarray, w: np.ndarray, G: np.ndarray, left: float, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima of phi(theta) = |G' s(cos(theta) z + sin(theta) w)| on the whole circle, exactly.

    ``z``, ``w`` are (n,), ``G`` is (n, d_out); returns angles in [0, 2 pi) and their phi, (m,) each,
    in the order of the angles.  Between two kinks phi^2 is a quadratic form of (cos, sin), whose
    coefficients change by one sample's share at every kink: one sort and cumulative sums do it.
    """
    root = np.arctan2(-z, w)  # here z cos + w sin rises through zero; at root + pi it falls
    angle = np.concatenate([root, root + np.pi]) % (2 * np.pi)
    jump = np.repeat([right - left, left - right], z.size)
    sample = np.tile(np.arange(z.size), 2)
    # measure angles from the middle of the widest gap: there the side of every kink is beyond doubt
    ordered = np.sort(angle)
    gaps = np.append(np.diff(ordered), ordered[0] + 2 * np.pi - ordered[-1])
    widest = int(np.argmax(gaps))
    base = ordered[widest] + 0.5 * gaps[widest]
    z, w = np.cos(base) * z + np.sin(base) * w, np.cos(base) * w - np.sin(base) * z
    angle = (angle - base) % (2 * np.pi)
    order = np.argsort(angle, kind="stable")
    angle, jump, sample = angle[order], jump[order], sample[order]
    slope = np.where(z > 0, right, left)
    step_u, step_v = (jump * z[sample])[:, None] * G[sample], (jump * w[sample])[:, None] * G[sample]
    u = (slope * z) @ G + np.cumsum(step_u, axis=0)  # coefficients on the arc after kink k
    v = (slope * w) @ G + np.cumsum(step_v, axis=0)
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    end = np.append(angle[1:], angle[0] + 2 * np.pi)

    def slope_of_square(theta: np.ndarray, k: np.ndarray | slice) -> np.ndarray:
        return 2 * uv[k] * np.cos(2 * theta) - (uu[k] - vv[k]) * np.sin(2 * theta)

    peak = 0.5 * np.arctan2(2 * uv, uu - vv)
    first = angle + (peak - angle) % np.pi  # the first peak of the arc's own form after its start
    candidates = []
    for shift in (0.0, np.pi):  # an arc may be longer than pi when there are few kinks
        inside = first + shift < end
        candidates.append((first + shift)[inside])
    rises = slope_of_square(end, slice(None)) >= 0
    falls = slope_of_square(angle, slice(None)) <= 0
    candidates.append(angle[np.roll(rises, 1) & falls])
    theta = np.concatenate(candidates) % (2 * np.pi)
    value = np.empty(theta.size)
    for k in range(0, theta.size, 256):  # evaluated afresh: cumulative sums carry rounding
        part = theta[k : k + 256, None]
        x = np.cos(part) * z + np.sin(part) * w
        value[k : k + 256] = np.linalg.norm((np.where(x > 0, right, left) * x) @ G, axis=1)
    turned = (theta + base) % (2 * np.pi)
    order = np.argsort(turned)
    return turned[order], value[order]


def ascent_direction(
    a: np.ndarray, H: np.ndarray, G: np.ndarray, left: float, right: float
) -> tuple[np.ndarray, np.ndarray]:
    """Steepest ascent of phi at the unit vector ``a`` (d_in,), tangent to the sphere, and its kinks.

    Samples off their kink have a slope.  Among those on it, the ones that pull down (c_i = G_i.b < 0)
    make phi concave across their hyperplane: their slope is free in [left, right], and the smallest
    resulting gradient is the direction.  The ones that pull up make phi convex: each takes the side on
    which the direction itself lies, found by iteration (the concave-convex procedure).

    Returns (t, kinks): t is (d_in,), zero at a stationary point; kinks is (n,) of bool.
    """
    z = H @ a
    kinks = np.abs(z) <= ON_KINK * np.linalg.norm(H, axis=1)
    s = np.where(z > 0, right, left) * z
    P = G.T @ np.where(kinks, 0.0, s)
    norm = np.linalg.norm(P)
    if norm == 0:
        return np.zeros_like(a), kinks
    c = G @ (P / norm)
    slope = np.where(z > 0, right, left)
    g = H.T @ np.where(kinks, 0.0, c * slope)
    g = g - (g @ a) * a
    if not kinks.any():
        return g, kinks
    up, down = kinks & (c > 0), kinks & (c < 0)
    D = H[down] * c[down, None]
    t = g
    sides: np.ndarray | None = None
    for _ in range(20):
        new = H[up] @ t > 0
        if sides is not None and (new == sides).all():
            break
        sides = new
        v = g + (c[up] * np.where(sides, right, left)) @ H[up]
        t = _smallest(v - (v @ a) * a, D - (D @ a)[:, None] * a, left, right)
    return t, kinks


def _smallest(v: np.ndarray, D: np.ndarray, left: float, right: float) -> np.ndarray:
    """The smallest v + sum_i lambda_i D_i over lambda in [left, right]: (d_in,)."""
    if len(D) == 0:
        return v
    fit = lsq_linear(D.T, -v, bounds=(left, right), method="bvls" if len(D) <= 64 else "trf", tol=1e-14, max_iter=400)
    return v + D.T @ fit.x


def distance(target: np.ndarray, a: np.ndarray, H: np.ndarray, c: np.ndarray, left: float, right: float) -> float:
    """Distance of ``target`` from the Clarke differential at ``a`` of sum_i c_i s(a.H_i), c (n,).

    KKT residuals of docs/theory.md, section 2, are measured with it: at a maximum on a ridge it
    vanishes for target = K N a, where no single gradient equals the target.
    """
    z = H @ a
    kinks = np.abs(z) <= ON_KINK * np.linalg.norm(H, axis=1) * np.linalg.norm(a)
    v = H.T @ np.where(kinks, 0.0, c * np.where(z > 0, right, left)) - target
    return float(np.linalg.norm(_smallest(v, H[kinks] * c[kinks, None], left, right)))


def kink_basis(a: np.ndarray, H: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the directions that keep every sample on whose kink ``a`` sits there."""
    kinks = np.abs(H @ a) <= ON_KINK * np.linalg.norm(H, axis=1) * np.linalg.norm(a)
    return ridge_basis(H[kinks], a.size)


def gap_within(ncf: Correlation, u: np.ndarray, basis: np.ndarray) -> float:
    """The gap Delta of docs/theory.md, section 2, for directions in the span of ``basis`` (size, m),
    which contains the unit vector ``u``.  Across a ridge N falls linearly, which no second-order
    constant could express, so a maximum on a ridge is measured within it."""
    inner = basis.T @ u
    tangent = basis @ np.linalg.svd(inner[None] / np.linalg.norm(inner))[2][1:].T
    gap = float(ncf.degree * ncf.value(u))
    if tangent.shape[1] == 0:
        return gap
    return gap - float(np.linalg.eigvalsh(tangent.T @ ncf.hessian(u) @ tangent)[-1])


def climb(
    a: np.ndarray, H: np.ndarray, G: np.ndarray, left: float, right: float, *, iterations: int = 80
) -> np.ndarray:
    """From a unit vector to a local maximum of phi, corner by corner: (d_in,).

    Each step is an exact line search along the direction of steepest ascent; it lands on the next
    ridge and the following direction stays in it.  Inside a ridge phi = |M a| is linear-quadratic and
    its maximum, the top singular vector of M restricted to the ridge, is tried at once.
    """
    best = _phi(a, H, G, left, right)
    for _ in range(iterations):
        t, kinks = ascent_direction(a, H, G, left, right)
        size = np.linalg.norm(t)
        if size <= 1e-13 * max(best, 1e-300):
            break
        moved = False
        for direction in (_ridge_top(a, kinks, H, G, left, right) - a, t):
            trial = _line_search(a, direction, H, G, left, right)
            value = _phi(trial, H, G, left, right)
            if value > best * (1 + 1e-15):
                a, best, moved = trial, value, True
                break
        if not moved:
            break
    # phi is flat to second order at its maximum, so its values place it only to about 1e-8
    kinks = np.abs(H @ a) <= ON_KINK * np.linalg.norm(H, axis=1)
    top = _ridge_top(a, kinks, H, G, left, right)
    settled = np.linalg.norm(top - a) < 1e-5 and _phi(top, H, G, left, right) >= best * (1 - 1e-14)
    return top if settled else a


def _phi(a: np.ndarray, H: np.ndarray, G: np.ndarray, left: float, right: float) -> float:
    z = H @ a
    return float(np.linalg.norm((np.where(z > 0, right, left) * z) @ G))


def _ridge_top(a: np.ndarray, kinks: np.ndarray, H: np.ndarray, G: np.ndarray, left: float, right: float) -> np.ndarray:
    """The unit vector at which the current ridge's and cone's own linear map |M a| is largest."""
    slope = np.where(kinks, 0.0, np.where(H @ a > 0, right, left))
    E = ridge_basis(H[kinks], a.size)
    if E.shape[1] == 0:
        return a
    top = E @ np.linalg.svd((G.T @ (slope[:, None] * H)) @ E)[2][0]
    return top if top @ a >= 0 else -top


def ridge_basis(rows: np.ndarray, d: int) -> np.ndarray:
    """An orthonormal basis of {a : rows a = 0}: (d, dimension)."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows, norms = rows[norms[:, 0] > 0], norms[norms[:, 0] > 0]  # the zero sample holds nothing fast
    if len(rows) == 0:
        return np.eye(d)
    unit = rows / norms
    _, singular, Vt = np.linalg.svd(np.linalg.qr(unit, mode="r"), full_matrices=True)
    rank = int((singular > 1e-9 * singular[0]).sum())
    return Vt[rank:].T


def _line_search(
    a: np.ndarray, direction: np.ndarray, H: np.ndarray, G: np.ndarray, left: float, right: float
) -> np.ndarray:
    """The best point of the arc of length REACH that leaves ``a`` in the given direction."""
    t = direction - (direction @ a) * a
    size = np.linalg.norm(t)
    if size <= 1e-15:
        return a
    t = t / size
    theta, value = arc_maxima(H @ a, H @ t, G, left, right)
    end = np.cos(REACH) * a + np.sin(REACH) * t
    near = theta <= REACH
    theta, value = np.append(theta[near], REACH), np.append(value[near], _phi(end, H, G, left, right))
    k = int(np.argmax(value))
    x = np.cos(theta[k]) * a + np.sin(theta[k]) * t
    x = x / np.linalg.norm(x)
    # put the samples whose kink was just reached exactly on it, so that the next step sees the ridge
    z = H @ x
    rows = H[np.abs(z) <= 1e-8 * np.linalg.norm(H, axis=1)]
    if len(rows):
        E = ridge_basis(rows, a.size)
        if E.shape[1]:
            snapped = E @ (E.T @ x)
            snapped /= np.linalg.norm(snapped)
            if _phi(snapped, H, G, left, right) >= value[k] * (1 - 1e-13):
                return snapped
    return x
