"""The one-neuron NCF against its definition, and its maximiser against closed forms, grids and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.models.activation import HomogeneousActivation, Tanh, make_activation
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.ncf import ridge
from gfsim.ncf.neuron import NeuronNCF, maximise, neuron_ncfs
from gfsim.objective import Objective

SMOOTH = [(1, 1.0), (2, 0.0), (2, -1.0), (2, -0.5), (3, 0.0), (3, 1.0)]
KINKED = [(1, 0.0), (1, 0.3), (1, -1.0), (1, -0.5), (1, 2.0)]


def instance(p: int, alpha: float, n: int, d: int, k: int, seed: int = 0) -> NeuronNCF:
    rng = np.random.default_rng(seed)
    return NeuronNCF(1, rng.normal(size=(n, d)), rng.normal(size=(n, k)) / n, HomogeneousActivation(p, alpha))


def plain_value(ncf: NeuronNCF, a: np.ndarray, b: np.ndarray) -> float:
    """sum_i (G_i . b) s(a . H_i), one sample at a time, from the definition of s."""
    alpha = ncf.activation.alpha  # type: ignore[attr-defined]
    total = 0.0
    for h, g in zip(ncf.inputs, ncf.pull, strict=True):
        z = sum(x * y for x, y in zip(a, h, strict=True))
        total += sum(x * y for x, y in zip(g, b, strict=True)) * max(z, alpha * z) ** ncf.p
    return total


@pytest.mark.parametrize(("p", "alpha"), SMOOTH + KINKED)
def test_value_and_derivatives(p: int, alpha: float) -> None:
    ncf = instance(p, alpha, 13, 4, 3)
    rng = np.random.default_rng(1)
    U = rng.normal(size=(2, 3, ncf.size))
    flat = U.reshape(-1, ncf.size)
    wanted = [plain_value(ncf, u[:4], u[4:]) for u in flat]
    np.testing.assert_allclose(ncf.value(U).ravel(), wanted, rtol=1e-12)
    u, eps = flat[0], 1e-6
    steps = eps * np.eye(ncf.size)
    slope = (ncf.value(u + steps) - ncf.value(u - steps)) / (2 * eps)
    np.testing.assert_allclose(ncf.gradient(U)[0, 0], slope, atol=1e-8)
    bend = (ncf.gradient(u + steps) - ncf.gradient(u - steps)) / (2 * eps)
    np.testing.assert_allclose(ncf.hessian(u), bend, atol=1e-7)
    assert ncf.degree == p + 1
    assert abs(u @ ncf.gradient(u) - ncf.degree * ncf.value(u)) < 1e-12  # Euler's identity


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("widths", "p"), [((3, 4, 1), 2), ((3, 2, 3, 2), 2), ((3, 2, 2, 2, 1), 3)])
def test_first_order_effect_of_a_new_neuron_on_the_loss(widths: tuple[int, ...], p: int, reduction: str) -> None:
    """The definition that matters: L(net with the neuron eps u) = L - eps^(p+1) N(u) + smaller.

    It would catch a wrong layer, a missing 1/n or factor 2, and incoming mixed up with outgoing.
    """
    rng = np.random.default_rng(2)
    model = FeedForward(widths, "relu", p=p)
    objective = Objective(model, rng.normal(size=(9, 3)), rng.normal(size=(9, widths[-1])), reduction=reduction)  # type: ignore[arg-type]
    w = rng.normal(size=model.n_params)
    ncfs = neuron_ncfs(objective, w)
    assert [ncf.layer for ncf in ncfs] == list(range(1, len(widths) - 1))
    for ncf in ncfs:
        u = rng.normal(size=ncf.size)
        l = ncf.layer
        wider = model.with_hidden_widths([k + (j == l) for j, k in enumerate(model.hidden_widths, start=1)])

        def loss_with(
            eps: float, ncf: NeuronNCF = ncf, u: np.ndarray = u, l: int = l, wider: FeedForward = wider
        ) -> float:
            matrices = [W.copy() for W in model.unpack(w)]
            a, b = ncf.split(eps * u)
            matrices[l - 1] = np.vstack([matrices[l - 1], a])
            matrices[l] = np.column_stack([matrices[l], b])
            return float(objective.with_model(wider).value(wider.pack(matrices)))

        eps = 1e-2 if p == 2 else 3e-2
        measured = -(loss_with(eps) - objective.value(w)) / eps ** (p + 1)
        assert measured == pytest.approx(float(ncf.value(u)), rel=0.02 if p == 2 else 0.05, abs=1e-9)


@pytest.mark.parametrize(("p", "alpha"), SMOOTH + KINKED)
def test_reduced_is_the_best_over_the_outgoing_weights(p: int, alpha: float) -> None:
    ncf = instance(p, alpha, 20, 3, 4)
    rng = np.random.default_rng(3)
    A = rng.normal(size=(5, 3))
    best = ncf.reduced(A)
    U = ncf.complete(A)
    np.testing.assert_allclose(np.linalg.norm(U, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(ncf.value(U), best, rtol=1e-12)
    directions = A / np.linalg.norm(A, axis=1, keepdims=True)
    for angle in rng.uniform(0, np.pi / 2, size=200):  # any split of the norm and any b does worse
        b = rng.normal(size=4)
        rival = np.concatenate(
            [np.cos(angle) * directions, np.tile(np.sin(angle) * b / np.linalg.norm(b), (5, 1))], axis=1
        )
        assert (ncf.value(rival) <= best * (1 + 1e-12)).all()
    assert (best <= ncf.bound).all()


# -- maxima against closed forms -----------------------------------------------------------------------


def test_square_into_one_unit_is_an_eigenvalue_problem() -> None:
    ncf = instance(2, -1.0, 30, 6, 1)
    M = sum(g * np.outer(h, h) for h, g in zip(ncf.inputs, ncf.pull[:, 0], strict=True))
    values, vectors = np.linalg.eigh(M)
    points = maximise(ncf, rng=np.random.default_rng(0))
    factor = 2 / 3 * 3**-0.5  # |a|^2 |b| at |a|^2 = 2/3, |b|^2 = 1/3
    wanted = sorted([values[-1], -values[0]], reverse=True)
    np.testing.assert_allclose([q.value for q in points], factor * np.array(wanted), rtol=1e-12)
    top = vectors[:, -1] if values[-1] > -values[0] else vectors[:, 0]
    assert abs(points[0].u[:6] @ top) == pytest.approx((2 / 3) ** 0.5, rel=1e-12)
    assert np.sign(points[0].u[6]) == (1 if values[-1] > -values[0] else -1)
    assert all(q.residual < 1e-14 and q.gap > 0 for q in points)


def test_square_search_finds_what_the_eigenvectors_say() -> None:
    """The same function, hidden from the closed form behind a second output that asks for nothing."""
    exact = instance(2, -1.0, 30, 6, 1)
    searched = NeuronNCF(1, exact.inputs, np.column_stack([exact.pull, 0 * exact.pull]), exact.activation)
    rng = np.random.default_rng(0)
    wanted, got = maximise(exact, rng=rng), maximise(searched, rng=rng)
    np.testing.assert_allclose(got[0].value, wanted[0].value, rtol=1e-13)
    assert got[0].hits > 32  # most starts climb the higher hill


def test_linear_is_the_top_singular_pair() -> None:
    ncf = instance(1, 1.0, 30, 5, 4)
    [point] = maximise(ncf, rng=np.random.default_rng(0))
    assert point.value == pytest.approx(0.5 * np.linalg.svd(ncf.pull.T @ ncf.inputs)[1][0], rel=1e-13)


@pytest.mark.parametrize(("p", "alpha"), [(1, 0.0), (2, 0.0), (3, 0.0), (1, 0.4)])
def test_one_input(p: int, alpha: float) -> None:
    """a is +1 or -1: |sum of s(h) g| over the samples on either side."""
    ncf = instance(p, alpha, 11, 1, 2)
    h, s = ncf.inputs[:, 0], ncf.activation.value
    factor = (p / (p + 1)) ** (p / 2) / (p + 1) ** 0.5
    wanted = sorted((factor * float(np.linalg.norm(s(sign * h) @ ncf.pull)) for sign in (1, -1)), reverse=True)
    np.testing.assert_allclose([q.value for q in maximise(ncf, rng=np.random.default_rng(0))], wanted, rtol=1e-13)


@pytest.mark.parametrize(("p", "alpha"), SMOOTH[1:] + KINKED)
@pytest.mark.parametrize("k", [1, 3])
def test_two_inputs_against_a_dense_grid(p: int, alpha: float, k: int) -> None:
    """Every local maximum on the circle, not only the best one."""
    ncf = instance(p, alpha, 12, 2, k, seed=7)
    theta = np.linspace(0, 2 * np.pi, 400_000, endpoint=False)
    value = np.concatenate([ncf.reduced(np.stack([np.cos(t), np.sin(t)], 1)) for t in np.array_split(theta, 40)])
    peaks = (value > np.roll(value, 1)) & (value >= np.roll(value, -1)) & (value > 1e-9)
    angles = theta[peaks] % (np.pi if ncf.activation.flips_sign else 2 * np.pi)
    wanted = np.sort(value[peaks])[::-1]
    if ncf.activation.flips_sign:
        assert len(wanted) % 2 == 0
        wanted = wanted[::2]
    points = maximise(ncf, rng=np.random.default_rng(0))
    found = np.array([q.value for q in points])
    assert found.shape == wanted.shape
    assert (found >= wanted - 1e-12).all()  # the grid misses a corner by up to half its spacing
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for point in points:
        a = point.u[:2]
        turn = 2 * np.pi if not ncf.activation.flips_sign else np.pi
        away = np.abs((np.arctan2(a[1], a[0]) - angles + turn / 2) % turn - turn / 2)
        assert away.min() < 1e-4


# -- maxima against brute force ------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "alpha"), SMOOTH[1:] + KINKED)
@pytest.mark.parametrize("k", [1, 3])
def test_best_value_against_derivative_free_search(p: int, alpha: float, k: int) -> None:
    ncf = instance(p, alpha, 40, 4, k, seed=5)
    rng = np.random.default_rng(6)
    A = rng.normal(size=(4000, 4))
    tops = A[np.argsort(-ncf.reduced(A))[:4]]
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 3000}
    rivals = [-minimize(lambda a: -float(ncf.reduced(a)), a, method="Nelder-Mead", options=options).fun for a in tops]
    points = maximise(ncf, rng=np.random.default_rng(0))
    assert points[0].value >= max(rivals) * (1 - 1e-12)
    for point in points:
        assert np.linalg.norm(point.u) == pytest.approx(1.0, rel=1e-12)
        assert float(ncf.value(point.u)) == pytest.approx(point.value, rel=1e-12)
        assert point.residual <= 1e-12 * ncf.bound
        a, b = ncf.split(point.u)
        assert a @ a == pytest.approx(p * (b @ b), rel=1e-6)  # balance of positive KKT points
        near = a + np.repeat([1e-5, 1e-4, 1e-3], 300)[:, None] * rng.normal(size=(900, 4)) / 2
        assert (ncf.reduced(near) <= point.value * (1 + 1e-12)).all()  # a local maximum


def discrete_instance(seed: int, p: int = 1) -> NeuronNCF:
    """Inputs +-1 with pulls of a sparse target: the maxima are corners where dozens of kinks meet."""
    rng = np.random.default_rng(seed)
    X = rng.choice([-1.0, 1.0], size=(300, 8))
    y = np.abs(X[:, 0] + X[:, 1] - X[:, 2]) - 2 * np.abs(X[:, 2] - X[:, 1])
    return NeuronNCF(1, X, (y - y.mean())[:, None] / 300, HomogeneousActivation(p, 0.0))


@pytest.mark.parametrize("seed", range(4))
def test_ridges_of_discrete_data_are_climbed_to_their_corners(seed: int) -> None:
    """Gradient ascent stalls on ridges, at another height from every start; the corners are few and exact."""
    ncf = discrete_instance(seed)
    points = maximise(ncf, starts=32, rng=np.random.default_rng(0))
    again = maximise(ncf, starts=32, rng=np.random.default_rng(1))
    assert points[0].value == pytest.approx(again[0].value, rel=1e-10)
    assert points[0].residual <= 1e-9 * ncf.bound
    on_kink = np.abs(ncf.inputs @ points[0].u[:8]) < 1e-9
    assert on_kink.sum() >= 3  # it is a corner indeed
    # brute force: many random directions around the best one and anywhere
    rng = np.random.default_rng(2)
    a = points[0].u[:8] / np.linalg.norm(points[0].u[:8])
    for spread in (1e-4, 1e-3, 1e-2, 1e-1):
        assert (ncf.reduced(a + spread * rng.normal(size=(2000, 8))) <= points[0].value * (1 + 1e-12)).all()
    assert (ncf.reduced(rng.normal(size=(20_000, 8))) <= points[0].value).all()


def test_ascent_direction_is_the_steepest() -> None:
    """At a corner: no direction's measured rate of growth exceeds that of the direction returned."""
    ncf = discrete_instance(0)
    rng = np.random.default_rng(4)
    a = np.array([1.0, 1.0, -1.0, 1.0, 0, 0, 0, 0]) / 2  # a quarter of the samples sit on its kink
    t, kinks = ridge.ascent_direction(a, ncf.inputs, ncf.pull, 0.0, 1.0)
    assert kinks.sum() > 50
    assert abs(t @ a) < 1e-12

    def rate(direction: np.ndarray) -> float:
        eps = 1e-7
        unit = direction / np.linalg.norm(direction)
        return float(ncf.phi(np.cos(eps) * a + np.sin(eps) * unit) - ncf.phi(a)) / eps

    assert rate(t) == pytest.approx(np.linalg.norm(t), rel=1e-4)
    rivals = rng.normal(size=(3000, 8))
    rivals -= (rivals @ a)[:, None] * a
    rivals[:1500] = t / np.linalg.norm(t) + 0.1 * rivals[:1500]
    rivals -= (rivals @ a)[:, None] * a
    assert max(rate(x) for x in rivals) <= rate(t) * (1 + 1e-5)


@pytest.mark.parametrize(("left", "right"), [(0.0, 1.0), (-1.0, 1.0), (0.3, 1.0)])
def test_arc_maxima_are_all_local_maxima_of_the_circle(left: float, right: float) -> None:
    rng = np.random.default_rng(8)
    z, w, G = rng.normal(size=25), rng.normal(size=25), rng.normal(size=(25, 2))
    z[3:6] = w[3:6] = 1e-17 * rng.normal(size=3)  # samples that stay on their kink all the way round
    z[7], w[7] = 0.0, 1.0  # and one whose kink is at the very start
    theta, value = ridge.arc_maxima(z, w, G, left, right)
    grid = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    x = np.cos(grid)[:, None] * z + np.sin(grid)[:, None] * w
    phi = np.linalg.norm((np.where(x > 0, right, left) * x) @ G, axis=1)
    peaks = (phi > np.roll(phi, 1)) & (phi >= np.roll(phi, -1))
    np.testing.assert_allclose(theta, grid[peaks], atol=4e-5)
    np.testing.assert_allclose(value, phi[peaks], rtol=1e-4)
    assert (value >= phi[peaks] - 1e-12).all()  # the grid misses a corner by up to half its spacing


# -- bookkeeping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["square", "linear"])
def test_a_neuron_and_its_mirror_image_count_once(name: str) -> None:
    rng = np.random.default_rng(0)
    ncf = NeuronNCF(1, rng.normal(size=(40, 5)), rng.normal(size=(40, 3)), make_activation(name))
    points = maximise(ncf, rng=rng)
    for i, point in enumerate(points):
        for other in points[:i]:
            assert abs(point.u[:5] @ other.u[:5]) < 0.999 * (point.u[:5] @ point.u[:5])
    values = [point.value for point in points]
    assert values == sorted(values, reverse=True)


def test_hits_are_counted_over_all_starts() -> None:
    ncf = instance(2, 0.0, 60, 5, 3)
    points = maximise(ncf, starts=40, rng=np.random.default_rng(0))
    assert sum(point.hits for point in points) >= 40
    assert points[0].hits > 0


def test_same_generator_same_result() -> None:
    ncf = discrete_instance(1)
    first, second = (maximise(ncf, rng=np.random.default_rng(3)) for _ in range(2))
    assert len(first) == len(second)
    for p, q in zip(first, second, strict=True):
        np.testing.assert_array_equal(p.u, q.u)


@pytest.mark.parametrize(("p", "alpha"), [(1, 0.0), (2, 0.0), (2, -1.0)])
def test_vanishing_ncf_has_no_maxima(p: int, alpha: float) -> None:
    rng = np.random.default_rng(0)
    activation = HomogeneousActivation(p, alpha)
    H, G = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    for inputs, pull in ((H, 0 * G), (0 * H, G), (np.vstack([H, H]), np.vstack([G, -G]))):
        assert maximise(NeuronNCF(1, inputs, pull, activation), rng=rng) == []


def test_starts_on_dead_units_do_no_harm() -> None:
    """Nearly all directions are dead for ReLU; no NaN, and the live corner is found by the sample starts."""
    rng = np.random.default_rng(0)
    inputs = np.full((6, 12), -1.0) + 1e-3 * rng.normal(size=(6, 12))
    ncf = NeuronNCF(1, inputs, np.ones((6, 1)), HomogeneousActivation(2, 0.0))
    points = maximise(ncf, starts=1, rng=rng)
    assert points
    assert np.isfinite([point.value for point in points]).all()


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 12),
    d=st.integers(1, 5),
    k=st.integers(1, 3),
    kind=st.sampled_from(SMOOTH + KINKED),
    scale=st.sampled_from([2.0**-27, 1.0, 2.0**17]),  # powers of two: not even rounding may differ
)
def test_maxima_are_kkt_points_at_any_scale(
    seed: int, n: int, d: int, k: int, kind: tuple[int, float], scale: float
) -> None:
    """Value, KKT residual, norms; and N -> scale N has the same maximisers."""
    ncf = instance(*kind, n, d, k, seed=seed)
    scaled = NeuronNCF(1, ncf.inputs, scale * ncf.pull, ncf.activation)
    points = maximise(ncf, starts=6, rng=np.random.default_rng(0))
    rivals = maximise(scaled, starts=6, rng=np.random.default_rng(0))
    assert len(points) == len(rivals)
    for point, rival in zip(points, rivals, strict=True):
        assert rival.value == pytest.approx(scale * point.value, rel=1e-9)
        assert point.residual <= 1e-9 * ncf.bound
        assert point.value > 0
        assert abs(np.linalg.norm(point.u) - 1) < 1e-12
    random = np.random.default_rng(1).normal(size=(50, d))
    if points and d <= 2:
        assert (ncf.reduced(random) <= points[0].value * (1 + 1e-9)).all()


# -- refusals ------------------------------------------------------------------------------------------


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5, 3)), rng.normal(size=5)
    with pytest.raises(NotHomogeneous, match="tanh"):
        neuron_ncfs(Objective(FeedForward((3, 2, 1), "tanh"), X, y), np.ones(8))
    with pytest.raises(NotHomogeneous, match="tanh"):
        NeuronNCF(1, X, y[:, None], Tanh())
    with pytest.raises(InvalidInput, match="hidden layer"):
        neuron_ncfs(Objective(FeedForward((3, 1)), X, y), np.ones(3))
    with pytest.raises(InvalidInput, match="feed-forward"):
        neuron_ncfs(Objective(DiagonalLinear(3, 2), X, y), np.ones(6))
    with pytest.raises(InvalidInput, match="8 weights"):
        neuron_ncfs(Objective(FeedForward((3, 2, 1)), X, y), np.ones(7))
    with pytest.raises(InvalidInput, match="one row per sample"):
        NeuronNCF(1, X, y[:4, None], make_activation("relu"))
    ncf = NeuronNCF(1, X, y[:, None], make_activation("relu"))
    for bad in ({"starts": 0}, {"keep": 0}, {"iterations": 0}, {"starts": True}):
        with pytest.raises(InvalidInput, match="at least 1"):
            maximise(ncf, rng=rng, **bad)
