"""The NCF of one new neuron in a hidden layer, and its maxima on the unit sphere.

docs/theory.md, section 4.  A neuron added to layer l, with incoming weights a from the active units
below and outgoing weights b to the active units above, changes the loss to first order by -N_l,

    N_l(a, b) = sum_i (G_i . b) s(a . H_i),      H_i = h_{l-1}(x_i),  G_i = sum_k ybar_ik g_{l+1,i}[k, :].

One forward and one backward pass of the network give H and G; after that everything is products
with these two matrices.  Given a, the best b of a fixed norm is parallel to P(a) = G' s(Ha), so that
only phi(a) = |P(a)| on the unit sphere of a remains to be maximised; the norms of a maximum are
|a|^2 = p/(p+1), |b|^2 = 1/(p+1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from gfsim.arrays import finite_array
from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.models.activation import Activation, HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.ncf import ridge
from gfsim.ncf.kkt import ZERO_VALUE, KKTPoint, make_point, polish
from gfsim.objective import Objective

HILL_COSINE = {True: 0.999, False: 0.95}
"""Ends of the common climb whose a's are closer than this are taken to be on the same hill.  On smooth
hills (True) the ends have all but arrived; on ridges (False) they are still on the way."""

RIPPLE_ROUNDS, RIPPLE_TRIALS = 6, 256
"""How often, and with how many trials, a better ripple is looked for around each corner."""

SCAN_ANGLES = 4096
"""Directions of the scan for neurons with two inputs."""


@dataclass(frozen=True, eq=False)
class NeuronNCF:
    """N(a, b) = sum_i (G_i . b) s(a . H_i); satisfies :class:`gfsim.ncf.kkt.Correlation`.

    Attributes
    ----------
    layer : int
        Hidden layer of the neuron, 1 .. L-1.
    inputs : (n, d_in)
        H, the outputs of the layer below (layer 1: the data).
    pull : (n, d_out)
        G, what the data ask the preactivations of the layer above to add.  It carries the loss's
        reduction factor.
    activation : HomogeneousActivation

    Points are flat vectors u = (a, b) of length ``size`` = d_in + d_out.
    """

    layer: int
    inputs: np.ndarray = field(repr=False)
    pull: np.ndarray = field(repr=False)
    activation: Activation

    def __post_init__(self) -> None:
        _degree_of(self.activation)
        H, G = finite_array(self.inputs, "inputs", ndim=2), finite_array(self.pull, "pull", ndim=2)
        if len(H) != len(G):
            raise InvalidInput(f"inputs has {len(H)} rows and pull {len(G)}; both have one row per sample")
        object.__setattr__(self, "inputs", H)
        object.__setattr__(self, "pull", G)

    @property
    def p(self) -> int:
        return _degree_of(self.activation)

    @property
    def degree(self) -> float:
        """K = p + 1."""
        return float(self.p + 1)

    @property
    def d_in(self) -> int:
        return self.inputs.shape[1]

    @property
    def d_out(self) -> int:
        return self.pull.shape[1]

    @property
    def size(self) -> int:
        return self.d_in + self.d_out

    def split(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(a, b) of flat points (..., size): views of (..., d_in) and (..., d_out)."""
        return u[..., : self.d_in], u[..., self.d_in :]

    # -- N and its derivatives ---------------------------------------------------------------------

    def value(self, u: np.ndarray) -> np.ndarray:
        """N at (..., size): (...)."""
        a, b = self.split(u)
        return ((self.activation.value(a @ self.inputs.T) @ self.pull) * b).sum(-1)

    def contributions(self, u: np.ndarray) -> np.ndarray:
        """What each sample adds to N at one point (size,): (n,)."""
        a, b = self.split(u)
        shares: np.ndarray = self.activation.value(self.inputs @ a) * (self.pull @ b)
        return shares

    def gradient(self, u: np.ndarray) -> np.ndarray:
        """grad N at (..., size): (..., size).  On a kink s' is the left slope."""
        a, b = self.split(u)
        s, slope = self.activation.value_and_slope(a @ self.inputs.T)
        return np.concatenate([((b @ self.pull.T) * slope) @ self.inputs, s @ self.pull], axis=-1)

    def hessian(self, u: np.ndarray) -> np.ndarray:
        """Hess N at one point (size,): (size, size)."""
        a, b = self.split(u)
        z = self.inputs @ a
        d = self.d_in
        out = np.zeros((self.size, self.size))
        bend = (self.pull @ b) * self.activation.curvature(z)
        out[:d, :d] = self.inputs.T @ (bend[:, None] * self.inputs)
        slope = self.activation.value_and_slope(z)[1] + 0.0 * z
        out[:d, d:] = self.inputs.T @ (slope[:, None] * self.pull)
        out[d:, :d] = out[:d, d:].T
        return out

    # -- b eliminated ------------------------------------------------------------------------------

    @property
    def norms(self) -> tuple[float, float]:
        """(|a|, |b|) at a maximum on the unit sphere: |a|^2 = p |b|^2 = p / (p + 1)."""
        return math.sqrt(self.p / (self.p + 1)), math.sqrt(1 / (self.p + 1))

    def phi(self, A: np.ndarray) -> np.ndarray:
        """|G' s(H a)| for (..., d_in): (...), the maximum of N(a, b) over unit b."""
        return np.linalg.norm(self.activation.value(A @ self.inputs.T) @ self.pull, axis=-1)

    def reduced(self, A: np.ndarray) -> np.ndarray:
        """The largest N(u) over unit u = (c a, b) with c > 0, for directions a (..., d_in): (...)."""
        norm_a, norm_b = self.norms
        length = np.linalg.norm(A, axis=-1)
        return norm_b * norm_a**self.p * self.phi(A) / np.where(length > 0, length, 1.0) ** self.p

    def complete(self, A: np.ndarray) -> np.ndarray:
        """The unit u = (a, b) at which :meth:`reduced` is attained: (..., size).

        Where N vanishes for every b, b is the first coordinate vector.
        """
        norm_a, norm_b = self.norms
        P = self.activation.value(A @ self.inputs.T) @ self.pull
        length = np.linalg.norm(P, axis=-1, keepdims=True)
        first = np.zeros(self.d_out)
        first[0] = 1.0
        b = np.where(length > 0, P / np.where(length > 0, length, 1.0), first)
        a = A / np.linalg.norm(A, axis=-1, keepdims=True)
        return np.concatenate([norm_a * a, norm_b * b], axis=-1)

    @property
    def bound(self) -> float:
        """An upper bound of |N| on the unit sphere, the scale against which N counts as zero."""
        norm_a, norm_b = self.norms
        steepest = max(1.0, abs(getattr(self.activation, "alpha", 1.0)))
        weights = np.linalg.norm(self.inputs, axis=1) ** self.p * np.linalg.norm(self.pull, axis=1)
        return float(norm_b * norm_a**self.p * steepest**self.p * weights.sum())


def _degree_of(activation: Activation) -> int:
    power = activation.power
    if power is None:
        raise NotHomogeneous(
            f"a neuron's NCF needs a homogeneous activation max(z, alpha z)^p; {activation.name} is not one"
        )
    return power


def neuron_ncfs(objective: Objective, w: np.ndarray) -> list[NeuronNCF]:
    """The one-neuron NCFs of all hidden layers of a feed-forward objective at weights ``w`` (P,).

    ``out[l - 1]`` belongs to layer l.  Values carry the objective's reduction: with ``"mean"`` they are
    1/n of those with ``"sum"``.

    Raises
    ------
    InvalidInput
        If the model is not a feed-forward net with a hidden layer, or ``w`` has a wrong shape.
    NotHomogeneous
        For an activation without a degree.
    """
    model = objective.model
    if not isinstance(model, FeedForward) or model.depth < 2:
        raise InvalidInput(
            f"one-neuron NCFs exist for feed-forward nets with a hidden layer; {model.name} has none: "
            "for another model use gfsim.ncf.origin.OriginNCF"
        )
    _degree_of(model.activation)
    weights = model.check_weights(finite_array(w, "weights", ndim=1))
    kept = model.run(weights, objective.X)
    deltas = model.backpropagate(weights, kept, objective.pull(kept.output))
    return [NeuronNCF(l, kept.hidden[l - 1], deltas[l], model.activation) for l in range(1, model.depth)]


# -- maxima --------------------------------------------------------------------------------------------


def maximise(
    ncf: NeuronNCF, *, starts: int = 64, rng: np.random.Generator, keep: int = 16, iterations: int = 400
) -> list[KKTPoint]:
    """Local maxima of N on the unit sphere with N > 0, best first.

    Every start is a direction of a; b is optimal throughout.  Besides ``starts`` random directions the
    top singular vectors of G'H and the samples of largest weight are tried.  All starts climb together
    in matrix products; the ends are grouped into hills, and the best ``keep`` hills are refined one by
    one: by Newton's method on the KKT equations where N is smooth, corner by corner
    (:mod:`gfsim.ncf.ridge`) for p = 1.  Where a closed form exists it is used instead:

    * linear activation: the top singular pair of G'H;
    * square activation into one unit: extreme eigenvectors of sum_i G_i H_i H_i';
    * one input: a = 1 and a = -1;  two inputs: every local maximum on the circle (p = 1 exactly, else
      from a scan of 4096 directions).

    Points related by the neuron's own symmetry, s(-z) = s(z) or s(-z) = -s(z), count as one.

    Parameters
    ----------
    starts : int
        Number of random starts, >= 1.
    rng : numpy.random.Generator
    keep : int
        At most this many maxima are refined and returned.
    iterations : int
        Budget of the common climb.

    Returns
    -------
    list of KKTPoint
        ``hits`` is the number of starts on that hill, 0 for closed forms.  ``residual`` and ``gap`` of
        a maximum on a ridge are those of the Clarke differential and of N along the ridge.  Empty when
        N vanishes (to within 1e-12 of the bound set by the sizes of G and H).
    """
    if isinstance(starts, bool) or starts < 1 or keep < 1 or iterations < 1:
        raise InvalidInput(f"starts = {starts}, keep = {keep}, iterations = {iterations}; each must be at least 1")
    live = _drop_silent(ncf)
    if live is None:
        return []
    exact = _closed_form(live)
    if exact is not None:
        directions, hits = exact, np.zeros(len(exact), dtype=int)
    else:
        A = _starts(live, starts, rng)
        A = _climb_together(live, A, iterations)
        directions, hits = _hills(live, A, keep)
    points = [_refine(live, a, int(h), rng) for a, h in zip(directions, hits, strict=True)]
    floor = ZERO_VALUE * live.bound
    return _distinct(live, [point for point in points if point.value > floor])


def _drop_silent(ncf: NeuronNCF) -> NeuronNCF | None:
    """The same function without samples that contribute nothing; None if none is left."""
    speak = np.any(ncf.inputs != 0, axis=1) & np.any(ncf.pull != 0, axis=1)
    if not speak.any():
        return None
    return ncf if speak.all() else replace(ncf, inputs=ncf.inputs[speak], pull=ncf.pull[speak])


def _slopes(ncf: NeuronNCF) -> tuple[float, float] | None:
    """(left, right) slopes if the activation has a kink, else None."""
    activation = ncf.activation
    if isinstance(activation, HomogeneousActivation) and not activation.smooth:
        return ridge.branch_slopes(activation)
    return None


def _closed_form(ncf: NeuronNCF) -> np.ndarray | None:
    """Unit a's of all maxima where a formula gives them: (m, d_in), or None."""
    activation = ncf.activation
    if ncf.d_in == 1:
        return np.array([[1.0]]) if activation.flips_sign else np.array([[1.0], [-1.0]])
    if ncf.p == 1 and activation.flips_sign == -1:
        return np.linalg.svd(ncf.pull.T @ ncf.inputs)[2][:1]
    if ncf.p == 2 and activation.flips_sign == 1 and ncf.d_out == 1:
        vectors = np.linalg.eigh((ncf.inputs * ncf.pull).T @ ncf.inputs)[1]
        values = ncf.value(ncf.complete(vectors.T)) * np.sign(_sign_of_b(ncf, vectors.T))
        # the largest eigenvalue is the maximum with b > 0, the smallest the one with b < 0
        chosen = [k for k, good in ((-1, values[-1] > 0), (0, values[0] < 0)) if good]
        return vectors.T[chosen]
    if ncf.d_in == 2:
        slopes = _slopes(ncf)
        if slopes is None:
            return _scan(ncf)
        theta, _ = ridge.arc_maxima(ncf.inputs[:, 0], ncf.inputs[:, 1], ncf.pull, *slopes)
        return np.stack([np.cos(theta), np.sin(theta)], axis=1)
    return None


def _scan(ncf: NeuronNCF) -> np.ndarray:
    """Local maxima of a smooth phi over a grid of the circle, to be refined: (m, 2)."""
    theta = np.linspace(0, 2 * np.pi, SCAN_ANGLES, endpoint=False)
    A = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    chunk = max(1, 4_000_000 // len(ncf.inputs))
    value = np.concatenate([ncf.phi(A[k : k + chunk]) for k in range(0, len(A), chunk)])
    return A[(value > np.roll(value, 1)) & (value >= np.roll(value, -1))]


def _sign_of_b(ncf: NeuronNCF, A: np.ndarray) -> np.ndarray:
    return (ncf.activation.value(A @ ncf.inputs.T) @ ncf.pull)[:, 0]


def _starts(ncf: NeuronNCF, random: int, rng: np.random.Generator) -> np.ndarray:
    """Unit start directions: random ones, spectral ones and samples, (m, d_in)."""
    H, G = ncf.inputs, ncf.pull
    weight = np.linalg.norm(G, axis=1) * np.linalg.norm(H, axis=1) ** ncf.p
    share = max(2, min(random // 8, len(H)))
    samples = H[np.argsort(-weight, kind="stable")[:share]]
    spectral = np.linalg.svd(G.T @ H, full_matrices=False)[2][:share]
    A = np.concatenate([rng.normal(size=(random, ncf.d_in)), spectral, -spectral, samples, -samples])
    # a spectral direction may be a saddle of N exactly; a slight turn lets it leave
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    A += 1e-3 * rng.normal(size=A.shape) / math.sqrt(ncf.d_in)
    return A / np.linalg.norm(A, axis=1, keepdims=True)


def _phi_and_gradient(ncf: NeuronNCF, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi and its gradient at (m, d_in): (m,), (m, d_in)."""
    s, slope = ncf.activation.value_and_slope(A @ ncf.inputs.T)
    P = s @ ncf.pull
    phi = np.linalg.norm(P, axis=1)
    b = P / np.where(phi > 0, phi, 1.0)[:, None]
    return phi, ((b @ ncf.pull.T) * slope) @ ncf.inputs


def _climb_together(ncf: NeuronNCF, A: np.ndarray, iterations: int) -> np.ndarray:
    """All starts uphill on the sphere at once: (m, d_in).  Values never decrease; a start where N and
    its gradient vanish stays where it is."""
    smooth = _slopes(ncf) is None
    step = _pull_step if smooth else _tangent_step
    A = A.copy()
    value, g = _phi_and_gradient(ncf, A)
    control = np.full(len(A), 0.0 if smooth else 0.5)
    running = value > 0
    for _ in range(iterations):
        rows = np.flatnonzero(running)
        if rows.size == 0:
            break
        trial = step(A[rows], value[rows], g[rows], control[rows])
        new_value, new_g = _phi_and_gradient(ncf, trial)
        better = new_value > value[rows]
        up, down = rows[better], rows[~better]
        gain = (new_value[better] - value[up]) / value[up]
        A[up], value[up], g[up] = trial[better], new_value[better], new_g[better]
        if smooth:
            control[up] *= 0.7
            control[down] = 2.0 * control[down] + 0.5
            running[up[gain < 1e-15]] = False
            running[down[control[down] > 1e6]] = False
        else:
            control[up] = np.minimum(1.3 * control[up], 1e3)
            control[down] *= 0.5
            running[down[control[down] < 1e-6]] = False
    return A


def _pull_step(A: np.ndarray, value: np.ndarray, g: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """a <- grad phi / |grad phi| + shift a: the fixed-point iteration, held back where it overshot."""
    del value
    size = np.linalg.norm(g, axis=1, keepdims=True)
    new = g / np.where(size > 0, size, 1.0) + shift[:, None] * A
    length = np.linalg.norm(new, axis=1, keepdims=True)
    return np.where(length > 0, new / np.where(length > 0, length, 1.0), A)


def _tangent_step(A: np.ndarray, value: np.ndarray, g: np.ndarray, size: np.ndarray) -> np.ndarray:
    """A gradient step on the sphere, in units in which phi = 1."""
    tangent = g - (g * A).sum(1, keepdims=True) * A
    new = A + (size / value)[:, None] * tangent
    return new / np.linalg.norm(new, axis=1, keepdims=True)


def _hills(ncf: NeuronNCF, A: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Best direction and number of ends of each hill, best hill first: (m, d_in), (m,)."""
    value = ncf.phi(A)
    apart = HILL_COSINE[_slopes(ncf) is None]
    order = [int(k) for k in np.argsort(-value, kind="stable") if value[k] > 0]
    leaders: list[int] = []
    hits: list[int] = []
    for k in order:
        if leaders:
            cosines = A[leaders] @ A[k]
            cosines = np.abs(cosines) if ncf.activation.flips_sign else cosines
            nearest = int(np.argmax(cosines))
            if cosines[nearest] >= apart:
                hits[nearest] += 1
                continue
        if len(leaders) < keep:
            leaders.append(k)
            hits.append(1)
    return A[leaders], np.array(hits, dtype=int)


def _refine(ncf: NeuronNCF, a: np.ndarray, hits: int, rng: np.random.Generator) -> KKTPoint:
    slopes = _slopes(ncf)
    if slopes is None:
        u = polish(ncf, ncf.complete(a))
        return make_point(ncf, u, hits=hits)
    if ncf.d_in > 2:
        a = _climb_ripples(ncf, a, slopes, rng)
    return _ridge_point(ncf, ncf.complete(a), slopes, hits)


def _climb_ripples(ncf: NeuronNCF, a: np.ndarray, slopes: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """The best corner near ``a``: with finitely many samples a hill has ripples, maxima of their own a
    hundredth of a radian apart, so better points are looked for around each corner reached."""
    for _ in range(RIPPLE_ROUNDS):
        a = ridge.climb(a, ncf.inputs, ncf.pull, *slopes)
        radius = 10.0 ** rng.uniform(-3.5, -0.7, size=RIPPLE_TRIALS)
        around = a + radius[:, None] * rng.normal(size=(RIPPLE_TRIALS, ncf.d_in)) / math.sqrt(ncf.d_in)
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        value = ncf.phi(around)
        k = int(np.argmax(value))
        if value[k] <= ncf.phi(a) * (1 + 1e-12) or around[k] @ a < HILL_COSINE[False]:
            break
        a = around[k]
    return a


def _ridge_point(ncf: NeuronNCF, u: np.ndarray, slopes: tuple[float, float], hits: int) -> KKTPoint:
    """A KKT point of a function with kinks: Clarke residual, and the gap within the ridge."""
    a, b = ncf.split(u)
    value = float(ncf.value(u))
    of_a = ridge.distance(2 * value * a, a, ncf.inputs, ncf.pull @ b, *slopes)
    of_b = ncf.pull.T @ ncf.activation.value(ncf.inputs @ a) - 2 * value * b
    E = ridge.kink_basis(a, ncf.inputs)
    basis = np.zeros((ncf.size, E.shape[1] + ncf.d_out))
    basis[: ncf.d_in, : E.shape[1]] = E
    basis[ncf.d_in :, E.shape[1] :] = np.eye(ncf.d_out)
    return KKTPoint(
        u=u,
        value=value,
        residual=float(np.hypot(of_a, np.linalg.norm(of_b))),
        gap=ridge.gap_within(ncf, u, basis),
        hits=hits,
    )


def _distinct(ncf: NeuronNCF, points: list[KKTPoint]) -> list[KKTPoint]:
    """One of each group of coinciding maxima, up to the neuron's sign symmetry; saddles are dropped."""
    flip = ncf.activation.flips_sign
    kept: list[KKTPoint] = []
    for point in sorted(points, key=lambda q: -q.value):
        if point.gap < -1e-9 * ncf.bound:
            continue
        a, b = ncf.split(point.u)
        images = [point.u] + ([np.concatenate([-a, flip * b])] if flip else [])
        for k, other in enumerate(kept):
            if max(float(image @ other.u) for image in images) >= 1 - 1e-6:
                kept[k] = replace(other, hits=other.hits + point.hits)
                break
        else:
            kept.append(point)
    return kept
