"""The NCF of a path of new neurons, and a fast batched search for its maxima (docs/theory.md, section 8).

A chain of new neurons through hidden layers l .. m, with incoming weights a from layer l - 1, outgoing
weights b to layer m + 1 and links +-1 in between, changes the loss to first order by -N,

    N(a, b) = sum_i (G_i . b) S(a . H_i),        S = s(+-s( .. s)),

H_i = h_{l-1}(x_i), G_i = sum_k ybar_ik g_{m+1,i}[k, :].  S is again positively homogeneous, of degree
p^(m-l+1), with one kink at zero: the same function as that of one neuron with two other branches.
One neuron is the path l = m; the start of Neuron Pursuit is the path through all hidden layers.

:func:`climb` works on NumPy arrays and on torch tensors of any device; it uses no automatic
differentiation.  Where :func:`gfsim.ncf.neuron.maximise` finds maxima to rounding and certifies them,
this module finds directions quickly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from gfsim.arrays import Array, namespace
from gfsim.errors import InvalidInput
from gfsim.models.activation import HomogeneousActivation
from gfsim.threads import over

Out = TypeVar("Out")

BLOCK_ENTRIES = 1_000_000
"""Numbers that one block of samples may hold: its inputs, its pull, and one for every start.  Few enough for a cache to
keep the inputs between the product that needs them first and the one that needs them last."""

SCREEN_SAMPLES = 20_000
"""With more samples the starts first climb on a random part of this size, and only the best ends on all."""

FINISH_ITERATIONS, FINISH_RTOL = 8, 1e-2
"""Of the climb on all samples, from where the climb on a part of them has ended."""

SAME_HILL = 0.95
"""Ends with a larger cosine count as one maximum."""


@dataclass(frozen=True)
class Branches:
    """S(z) = right z^q for z > 0 and left |z|^q for z <= 0.

    At the kink the slope is the left one, as everywhere in gfsim.
    """

    q: int
    right: float
    left: float

    @classmethod
    def of(cls, activation: HomogeneousActivation, links: tuple[int, ...] = ()) -> Branches:
        """The activation composed with itself through the given links (+1 or -1)."""
        side = np.array([1.0, -1.0])
        value = activation.value(side)
        for link in links:
            value = activation.value(link * value)
        return cls(activation.p ** (1 + len(links)), float(value[0]), float(value[1]))

    @property
    def flips_sign(self) -> int:
        """+1 for an even, -1 for an odd function, else 0."""
        return 1 if self.left == self.right else -1 if self.left == -self.right else 0

    @property
    def silent(self) -> bool:
        return self.left == 0.0 and self.right == 0.0

    def value(self, z: Array) -> Array:
        return self.value_and_slope(z)[0]

    def value_and_slope(self, z: Array) -> tuple[Array, Array]:
        right, left, q = self.right, self.left, self.q
        if left == 0.0:
            base = z.clip(min=0)
            if q == 1:
                mask = _positive(z)
                return (base, mask) if right == 1.0 else (right * base, right * mask)
            power = right * _power(base, q - 1)
            return power * base, q * power
        if q % 2 == 0 and left == right:
            power = right * _power(z, q - 1)
            return power * z, q * power
        # to the left of the kink z is negative: left |z|^q has the slope -q left |z|^(q-1)
        mask, size = _positive(z), abs(z)
        lower = _power(size, q - 1) if q != 1 else 1.0
        return (left + (right - left) * mask) * lower * size, (q * (right + left) * mask - q * left) * lower


def chains(activation: HomogeneousActivation, length: int) -> Iterator[tuple[tuple[int, ...], Branches]]:
    """The links of a path of ``length`` neurons that make different, non-silent functions."""
    seen: list[Branches] = []
    for links in itertools.product((1, -1), repeat=length - 1):
        branches = Branches.of(activation, links)
        mirror = Branches(branches.q, branches.left, branches.right)  # the same function of -a
        opposite = Branches(branches.q, -branches.right, -branches.left)  # the same function with -b
        if branches.silent or branches in seen or mirror in seen or opposite in seen:
            continue
        seen.append(branches)
        yield links, branches


@dataclass(frozen=True)
class PathNCF:
    """N(a, b) = sum_i (G_i . b) S(a . H_i) of one path.

    Attributes
    ----------
    inputs : (n, d_in)
        H; NumPy or torch.
    pull : (n, d_out)
        G; it carries the sample weights.
    branches : Branches
        S.
    """

    inputs: Array = field(repr=False)
    pull: Array = field(repr=False)
    branches: Branches

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.pull.ndim != 2 or len(self.inputs) != len(self.pull):
            raise InvalidInput(
                f"inputs {tuple(self.inputs.shape)} and pull {tuple(self.pull.shape)} must be matrices with one row "
                "per sample"
            )

    @property
    def n_samples(self) -> int:
        return len(self.inputs)

    def _blocks(self, starts: int) -> Iterator[tuple[Array, Array]]:
        size = max(1, BLOCK_ENTRIES // (starts + self.inputs.shape[1] + self.pull.shape[1]))
        for k in range(0, self.n_samples, size):
            yield self.inputs[k : k + size], self.pull[k : k + size]

    def _over(self, starts: int, function: Callable[[Array, Array], Out]) -> list[Out]:
        """``function`` of the inputs and the pull of every block."""
        blocks = self._blocks(starts)
        if isinstance(self.inputs, np.ndarray):
            return over(blocks, lambda block: function(*block))
        return [function(H, G) for H, G in blocks]  # torch has threads of its own

    def response(self, A: Array) -> Array:
        """P(a) = G' S(H a), to which the best b is parallel: (m, d_in) -> (m, d_out)."""
        return sum(self._over(len(A), lambda H, G: self.branches.value(A @ H.T) @ G))

    def phi(self, A: Array) -> Array:
        """max of N(a, b) over unit b: (m,)."""
        return _norm(self.response(A))

    def phi_and_gradient(self, A: Array) -> tuple[Array, Array]:
        """phi (m,) and its gradient (m, d_in).

        The gradient needs the best b, and that all samples: a second pass over them.  For one unit b is the sign of P,
        and one pass will do.
        """
        if self.pull.shape[1] == 1:

            def both(H: Array, G: Array) -> tuple[Array, Array]:
                s, slope = self.branches.value_and_slope(A @ H.T)
                return s @ G, (slope * G[:, 0]) @ H

            responses, gradients = zip(*self._over(len(A), both), strict=True)
            P = sum(responses)
            return abs(P[:, 0]), namespace(P).sign(P) * sum(gradients)
        P = self.response(A)
        phi = _norm(P)
        b = P / namespace(P).where(phi > 0, phi, 1.0)[:, None]

        def gradient(H: Array, G: Array) -> Array:
            return ((b @ G.T) * self.branches.value_and_slope(A @ H.T)[1]) @ H

        return phi, sum(self._over(len(A), gradient))


@dataclass(frozen=True)
class PathMaxima:
    """Local maxima of one path's NCF, best first.

    Attributes
    ----------
    directions : (m, d_in)
        Unit a.
    outgoing : (m, d_out)
        The best unit b for each.
    values : (m,)
        N(a, b) at unit a and unit b, > 0.
    hits : (m,)
        Starts that ended there; 0 for closed forms.
    exact : bool
        Whether a closed form gave the global maximum.
    """

    directions: np.ndarray = field(repr=False)
    outgoing: np.ndarray = field(repr=False)
    values: np.ndarray
    hits: np.ndarray
    exact: bool

    def __len__(self) -> int:
        return len(self.values)


def maximise(
    ncf: PathNCF,
    *,
    starts: int,
    rng: np.random.Generator,
    keep: int = 6,
    screen: int = 16,
    iterations: int = 60,
    rtol: float = 1e-4,
    warm: np.ndarray | None = None,
) -> PathMaxima:
    """Distinct local maxima of N over unit a and unit b.

    Starts are ``starts`` random directions, the leading singular vectors of G'H with both signs, the
    samples that weigh most, and ``warm`` (m, d_in).  The ``screen`` best climb by the fixed-point
    iteration a <- grad phi / |grad phi|, held back where it would overshoot, until phi gains less than
    ``rtol`` relatively; ends within a cosine of 0.95 count as one.

    With more than :data:`SCREEN_SAMPLES` samples the climb is made on that many random ones first, and
    its ends then climb on all of them for a few steps, block by block: the cost is linear in n and the
    memory bounded.

    Closed forms: S even of degree 2 into one unit (eigenvectors of sum_i G_i H_i H_i'), S odd of degree 1
    (singular vectors of G'H), one input.

    Returns
    -------
    PathMaxima
        At most ``keep``; none where N vanishes.
    """
    for name, count in (("starts", starts), ("keep", keep), ("screen", screen), ("iterations", iterations)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise InvalidInput(f"{name} = {count!r}; it must be a whole number >= 1")
    d_in = ncf.inputs.shape[1]
    exact = _closed_form(ncf, keep)
    if exact is not None:
        A, hits = exact, np.zeros(len(exact), dtype=int)
    else:
        sample = ncf
        if ncf.n_samples > SCREEN_SAMPLES:
            rows = np.sort(rng.choice(ncf.n_samples, SCREEN_SAMPLES, replace=False))
            sample = replace(ncf, inputs=ncf.inputs[rows], pull=ncf.pull[rows])
        A = _starts(sample, starts, rng)
        if warm is not None and len(warm):
            A = namespace(A).concatenate([A, _like(_unit(warm), A)])
        value = _numpy(sample.phi(A))
        best = A[np.argsort(-value, kind="stable")[:screen].copy()]
        A, hits = _hills(sample, *_ascent(sample, best, iterations, rtol), keep)
        if sample is not ncf and len(A):
            A, merged = _hills(ncf, *_ascent(ncf, A, FINISH_ITERATIONS, FINISH_RTOL), keep)
            hits = hits[: len(merged)]
    if len(A) == 0:
        return PathMaxima(np.zeros((0, d_in)), np.zeros((0, ncf.pull.shape[1])), np.zeros(0), np.zeros(0, int), False)
    P = _numpy(ncf.response(_like(A, ncf.inputs)))
    A, value = _numpy(A), np.linalg.norm(P, axis=1)
    good = np.flatnonzero(value > 1e-12 * _bound(ncf))
    good = good[np.argsort(-value[good], kind="stable")]
    return PathMaxima(A[good], P[good] / value[good, None], value[good], hits[good], exact is not None)


def climb(ncf: PathNCF, A: Array, *, iterations: int, rtol: float) -> Array:
    """All rows of A (m, d_in), unit vectors, uphill together; phi never decreases on any of them."""
    return _ascent(ncf, A, iterations, rtol)[0]


def _ascent(ncf: PathNCF, A: Array, iterations: int, rtol: float) -> tuple[Array, Array]:
    """The ends (m, d_in) of the climb and phi (m,) there.  Rows that have arrived cost nothing any more."""
    xp = namespace(A)
    value, g = ncf.phi_and_gradient(A)
    A, shift = A + 0.0, 0.0 * value
    running = value > 0
    for _ in range(iterations):
        live = xp.where(running)[0]
        if not len(live):
            break
        here, height, slope, back = A[live], value[live], g[live], shift[live]
        size = _norm(slope)
        trial = _unit(slope / xp.where(size > 0, size, 1.0)[:, None] + back[:, None] * here)
        new_height, new_slope = ncf.phi_and_gradient(trial)
        better = new_height > height
        gained = new_height > (1 + rtol) * height
        # after an overshoot the next gain is small without meaning arrival: shift must have come down again
        arrived = better & ~gained & (back <= 0.5)
        back = xp.where(better, 0.7 * back, 2.0 * back + 0.5)
        A[live] = xp.where(better[:, None], trial, here)
        g[live] = xp.where(better[:, None], new_slope, slope)
        value[live] = xp.where(better, new_height, height)
        shift[live] = back
        running[live] = ~arrived & (back < 1e4)
    return A, value


def _closed_form(ncf: PathNCF, keep: int) -> np.ndarray | None:
    branches, d_in, d_out = ncf.branches, ncf.inputs.shape[1], ncf.pull.shape[1]
    if d_in == 1:
        return np.array([[1.0]]) if branches.flips_sign else np.array([[1.0], [-1.0]])
    if branches.q == 2 and branches.flips_sign == 1 and d_out == 1:
        M = sum(ncf._over(d_in, lambda H, G: (H * G).T @ H))
        values, vectors = np.linalg.eigh(_numpy(M))
        order = np.argsort(-np.abs(values), kind="stable")
        # the largest |eigenvalue| is the global maximum; the other eigenvectors are saddles of N on the sphere,
        # worth proposing after it
        return vectors.T[order[:keep]]
    if branches.q == 1 and branches.flips_sign == -1:
        M = sum(ncf._over(d_in, lambda H, G: G.T @ H))
        return np.linalg.svd(_numpy(M), full_matrices=False)[2][:1]
    return None


def _starts(ncf: PathNCF, random: int, rng: np.random.Generator) -> Array:
    H, G = ncf.inputs, ncf.pull
    d = H.shape[1]
    share = min(max(2, random // 8), ncf.n_samples)
    weight = _numpy(_norm(G) * _norm(H) ** min(ncf.branches.q, 8))
    samples = _numpy(H[np.argsort(-weight, kind="stable")[:share].copy()])
    spectral = np.linalg.svd(_numpy(G.T @ H), full_matrices=False)[2][:share]
    A = np.concatenate([rng.normal(size=(random, d)), spectral, -spectral, samples, -samples])
    A = _unit(A)
    # a spectral direction may be a saddle of N exactly; a slight turn lets it leave
    return _like(_unit(A + 1e-3 * rng.normal(size=A.shape) / math.sqrt(d)), H)


def _hills(ncf: PathNCF, A: Array, heights: Array, keep: int) -> tuple[Array, np.ndarray]:
    """The best of the ends A (m, d_in), phi there ``heights``, on every hill, best first, and how many are on it."""
    value, ends = _numpy(heights), _numpy(A)
    leaders: list[int] = []
    hits: list[int] = []
    for k in np.argsort(-value, kind="stable"):
        if value[k] <= 0:
            break
        if leaders:
            cosines = ends[leaders] @ ends[k]
            cosines = np.abs(cosines) if ncf.branches.flips_sign else cosines
            nearest = int(np.argmax(cosines))
            if cosines[nearest] >= SAME_HILL:
                hits[nearest] += 1
                continue
        if len(leaders) < keep:
            leaders.append(int(k))
            hits.append(1)
    return A[leaders], np.array(hits, dtype=int)


def _bound(ncf: PathNCF) -> float:
    """The largest N there could be at unit a and b: the scale against which N counts as zero."""
    steepest = max(abs(ncf.branches.left), abs(ncf.branches.right))
    return steepest * sum(ncf._over(1, lambda H, G: float((_norm(H) ** ncf.branches.q * _norm(G)).sum())))


def _power(z: Array, k: int) -> Array:
    """z^k, k >= 1, by squaring: many times faster than ``z ** k`` for k > 2."""
    if k == 1:
        return z
    half = _power(z, k // 2)
    return half * half * z if k % 2 else half * half


def _positive(z: Array) -> Array:
    """1 where z > 0, else 0, in z's own precision."""
    return (z > 0).astype(z.dtype) if isinstance(z, np.ndarray) else (z > 0).to(z.dtype)


def _norm(x: Array) -> Array:
    return namespace(x).einsum("...i,...i->...", x, x) ** 0.5


def _unit(A: Array) -> Array:
    length = _norm(A)
    return A / namespace(A).where(length > 0, length, 1.0)[..., None]


def _numpy(x: Array) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()


def _like(x: Array, target: Array) -> Array:
    """``x`` as the same kind of array as ``target``."""
    if isinstance(target, np.ndarray):
        return _numpy(x)
    xp = namespace(target)
    return xp.as_tensor(x, dtype=target.dtype, device=target.device)
