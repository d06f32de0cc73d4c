"""The NCF at the origin against its definition, closed forms, and the one-neuron NCF it reduces to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.models.custom import TorchModel
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, MatrixFactorisation
from gfsim.ncf import neuron, origin
from gfsim.ncf.origin import OriginNCF, canonical, maximise
from gfsim.objective import Objective


def problem(
    widths: tuple[int, ...], activation: str = "relu", p: int | None = None, *, n: int = 30, **kw: object
) -> OriginNCF:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, widths[0])), rng.normal(size=(n, widths[-1]))
    if kw.get("loss") == "logistic":
        y = np.sign(y)
    return OriginNCF(Objective(FeedForward(widths, activation, p=p), X, y, **kw))  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["square", "logistic"])
@pytest.mark.parametrize(("widths", "activation", "p"), [((3, 2, 1), "relu", 1), ((3, 2, 2, 2), "relu", 2)])
def test_definition(widths: tuple[int, ...], activation: str, p: int, loss: str, reduction: str) -> None:
    """N(u) = sum_i -l'(0, y_i) H(x_i; u), and it is the slope of the loss in delta^D at the origin."""
    ncf = problem(widths, activation, p, loss=loss, reduction=reduction)
    objective = ncf.objective
    rng = np.random.default_rng(1)
    U = rng.normal(size=(4, ncf.size))
    ytilde = (2.0 if loss == "square" else 0.5) * objective.y / (30 if reduction == "mean" else 1)
    for u, value in zip(U, ncf.value(U), strict=True):
        assert value == pytest.approx(float((ytilde * ncf.model.forward(u, objective.X)).sum()), rel=1e-12)
        delta = 1e-6
        drop = objective.value(np.zeros(ncf.size)) - objective.value(delta ** (1 / ncf.degree) * u)
        assert float(drop) / delta == pytest.approx(value, rel=1e-3, abs=1e-4)
    u, eps = U[0], 1e-6 * np.eye(ncf.size)
    np.testing.assert_allclose(ncf.gradient(u), (ncf.value(u + eps) - ncf.value(u - eps)) / 2e-6, atol=1e-7)
    np.testing.assert_allclose(ncf.hessian(u), (ncf.gradient(u + eps) - ncf.gradient(u - eps)) / 2e-6, atol=1e-6)
    value, g = ncf.value_and_gradient(U)
    np.testing.assert_allclose(value, ncf.value(U), rtol=1e-10)
    np.testing.assert_array_equal(g, ncf.gradient(U))


@pytest.mark.parametrize(("activation", "p"), [("square", None), ("relu", 2), ("relu", 3), ("relu", 1), ("leaky", 1)])
def test_two_layers_reduce_to_one_neuron(activation: str, p: int | None) -> None:
    """At depth 2 with scalar outputs N is the one-neuron NCF with H = X, G = ytilde, for every maximum."""
    ncf = problem((4, 1, 1), activation, p)
    one = neuron.NeuronNCF(1, ncf.objective.X, ncf.ytilde, ncf.model.activation)  # type: ignore[attr-defined]
    u = np.random.default_rng(2).normal(size=(5, 5))
    np.testing.assert_allclose(ncf.value(u), one.value(u), rtol=1e-12)
    wanted = neuron.maximise(one, rng=np.random.default_rng(0))
    points = maximise(ncf, rng=np.random.default_rng(0), starts=256)
    assert points[0].value == pytest.approx(wanted[0].value, rel=1e-10)
    assert points[0].residual < 1e-11 * ncf.scale
    assert points[0].gap == pytest.approx(wanted[0].gap, rel=1e-6)
    image = (
        points[0].u if points[0].u @ wanted[0].u > 0 or activation != "square" else points[0].u * [-1, -1, -1, -1, 1]
    )
    np.testing.assert_allclose(image, wanted[0].u, atol=1e-7)


def test_the_saddle_formula_at_the_origin() -> None:
    """Two layers, all neurons inactive: neuron_ncfs at w = 0 gives the same function through another path."""
    ncf = problem((4, 3, 1), "square")
    [one] = neuron.neuron_ncfs(ncf.objective, np.zeros(ncf.size))
    np.testing.assert_array_equal(one.inputs, ncf.objective.X)
    # at w = 0 backpropagation from the output reaches the hidden layer's outgoing side unchanged
    np.testing.assert_allclose(one.pull, ncf.ytilde, rtol=1e-15)


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_relu_chain_has_the_exact_one_neuron_form(layers: int) -> None:
    """One ReLU neuron a layer, positive inside: N = (prod w) N_1, all L norms equal to 1/sqrt(L)."""
    ncf = problem((6, *[1] * (layers - 1), 1))
    one = neuron.NeuronNCF(1, ncf.objective.X, ncf.ytilde, ncf.model.activation)  # type: ignore[attr-defined]
    best = neuron.maximise(one, rng=np.random.default_rng(0))[0]
    points = maximise(ncf, rng=np.random.default_rng(0), starts=200)
    assert points[0].value == pytest.approx(2 * best.value * layers ** (-layers / 2), rel=1e-9)
    for point in points:
        norms = [np.linalg.norm(W) for W in ncf.model.unpack(point.u)]  # type: ignore[attr-defined]
        np.testing.assert_allclose(norms, layers**-0.5, rtol=1e-12)
        assert point.residual < 1e-11 * ncf.scale


def test_leaky_chain_with_a_negative_link() -> None:
    """Through a negative link the composed activation is concave; such maxima must be climbed as well."""
    ncf = problem((3, 1, 1, 1), "leaky", n=20)
    points = maximise(ncf, rng=np.random.default_rng(0), starts=200)
    rng = np.random.default_rng(1)
    for sign in (1.0, -1.0):
        mine = [q for q in points if np.sign(q.u[3]) == sign]
        assert mine
        # every balanced chain of this sign pattern is (a, sign, b) / sqrt(3): search a by brute force
        A = rng.normal(size=(40_000, 3))
        A /= np.linalg.norm(A, axis=1, keepdims=True)
        for b in (1.0, -1.0):
            rival = np.column_stack([A, np.full(len(A), sign), np.full(len(A), b)]) / math.sqrt(3)
            top = float(ncf.value(rival).max())
            assert top <= max(q.value for q in mine) * (1 + 1e-12) or top <= 0
        assert all(q.residual < 1e-11 * ncf.scale for q in mine)


def test_toy_of_the_papers() -> None:
    """H = w1^2 x1 + w2^2 x2, data (1,0) -> 4, (0,1) -> 1: N = 8 w1^2 + 2 w2^2, maximum 8 at (+-1, 0)."""
    ncf = OriginNCF(Objective(DiagonalLinear(2, 2, tied=True), np.eye(2), [4.0, 1.0]))
    points = maximise(ncf, rng=np.random.default_rng(0))
    assert len(points) == 2  # (1, 0) and (-1, 0)
    for point in points:
        assert point.value == pytest.approx(8.0, rel=1e-14)
        np.testing.assert_allclose(np.abs(point.u), [1.0, 0.0], atol=1e-12)
        assert point.gap == pytest.approx(2 * 8 - 4, rel=1e-12)  # D N - 2 * 2


def test_matrix_factorisation_is_half_the_top_singular_value() -> None:
    rng = np.random.default_rng(3)
    Y = rng.normal(size=(4, 3))
    ncf = OriginNCF(Objective(MatrixFactorisation(4, 3, 1), np.eye(12), Y.ravel()))
    points = maximise(ncf, rng=rng)
    assert points[0].value == pytest.approx(2 * np.linalg.svd(Y)[1][0] / 2, rel=1e-12)
    assert len(points) == 2  # (u, v) and (-u, -v)


def test_users_own_model() -> None:
    """Any homogeneous model will do: H = (w.x)^3 as a torch function."""
    model = TorchModel(lambda w, X: ((X @ w) ** 3)[:, None], n_params=2, n_inputs=2, degree=3)
    ncf = OriginNCF(Objective(model, np.eye(2), [3.0, 1.0]))
    points = maximise(ncf, rng=np.random.default_rng(0), starts=20)
    np.testing.assert_allclose(sorted(q.value for q in points), [2.0, 6.0], rtol=1e-9)  # 6 w1^3 + 2 w2^3


@pytest.mark.parametrize(("activation", "p"), [("square", None), ("relu", 2)])
def test_maxima_of_a_deep_net(activation: str, p: int | None) -> None:
    """KKT to rounding, second order, one neuron a layer, balanced; and no random point is higher."""
    ncf = problem((4, 3, 3, 1), activation, p)
    model = ncf.model
    assert isinstance(model, FeedForward)
    points = maximise(ncf, rng=np.random.default_rng(0))
    values = [point.value for point in points]
    assert values == sorted(values, reverse=True)
    for point in points:
        assert point.residual <= 1e-12 * ncf.scale
        assert np.linalg.norm(point.u) == pytest.approx(1, rel=1e-12)
        np.testing.assert_allclose(model.conserved(point.u), 0, atol=1e-9)  # |in|^2 = p |out|^2
    assert points[0].gap > 0
    active = [norms > 1e-6 for norms in model.neuron_norms(points[0].u)]
    assert [int(a.sum()) for a in active] == [1, 1]
    U = np.random.default_rng(1).normal(size=(5000, ncf.size))
    assert ncf.value(U / np.linalg.norm(U, axis=1, keepdims=True)).max() < values[0]


def test_same_maximum_in_other_neurons_counts_once() -> None:
    ncf = problem((4, 5, 1), "square")
    points = maximise(ncf, rng=np.random.default_rng(0))
    M = (ncf.objective.X * ncf.ytilde).T @ ncf.objective.X
    eigenvalues = np.linalg.eigvalsh(M)
    wanted = sorted((x for x in (eigenvalues[-1], -eigenvalues[0]) if x > 0), reverse=True)
    np.testing.assert_allclose([q.value for q in points], 2 / 3 * 3**-0.5 * np.array(wanted), rtol=1e-10)
    assert sum(q.hits for q in points) == 64


@pytest.mark.parametrize("activation", ["relu", "square", "linear"])
def test_canonical_form(activation: str) -> None:
    rng = np.random.default_rng(0)
    model = FeedForward((3, 4, 3, 2), activation)
    X = rng.normal(size=(7, 3))
    for _ in range(5):
        u = rng.normal(size=model.n_params)
        W1, W2, W3 = (W.copy() for W in model.unpack(u))
        first, second = rng.permutation(4), rng.permutation(3)
        flip = model.activation.flips_sign
        sign = rng.choice([-1.0, 1.0], size=4) if flip else np.ones(4)
        W1s, W2s = W1 * sign[:, None], W2 * (sign if flip < 0 else 1.0)
        v = model.pack([W1s[first], W2s[:, first][second], W3[:, second]])
        np.testing.assert_allclose(model.forward(v, X), model.forward(u, X), rtol=1e-10)
        np.testing.assert_allclose(canonical(model, u), canonical(model, v), atol=1e-14)
        np.testing.assert_allclose(model.forward(canonical(model, u), X), model.forward(u, X), rtol=1e-10)


def test_dead_starts_are_harmless() -> None:
    """Inputs on one side and a positive target: most starts of a deep ReLU net are dead, none is NaN."""
    X = np.abs(np.random.default_rng(0).normal(size=(20, 3)))
    for widths in ((3, 1, 1, 1), (3, 2, 2, 2, 1)):
        ncf = OriginNCF(Objective(FeedForward(widths), X, X.sum(1)))
        points = maximise(ncf, rng=np.random.default_rng(0))
        assert points
        assert np.isfinite([q.value for q in points]).all()
        assert sum(q.hits for q in points) < 64


@pytest.mark.parametrize("widths", [(3, 1, 1), (3, 2, 1)])
def test_a_sample_at_the_origin_changes_nothing(widths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    plain = maximise(OriginNCF(Objective(FeedForward(widths), X, y)), rng=np.random.default_rng(0))
    padded = OriginNCF(Objective(FeedForward(widths), np.vstack([X, np.zeros((2, 3))]), np.r_[y, 5.0, -1.0]))
    found = maximise(padded, rng=np.random.default_rng(0))
    assert found[0].value == pytest.approx(plain[0].value, rel=1e-6)


def test_vanishing_ncf() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10, 3))
    ncf = OriginNCF(Objective(FeedForward((3, 2, 1), "square"), X, np.zeros(10)))
    assert maximise(ncf, rng=rng) == []
    mirrored = OriginNCF(Objective(FeedForward((3, 1, 1), "square"), np.vstack([X, X]), np.r_[X[:, 0], -X[:, 0]]))
    assert maximise(mirrored, rng=rng) == []  # an odd target and an even network


def test_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    ncf = problem((4, 2, 1), "square")
    whole = maximise(ncf, rng=np.random.default_rng(0))
    monkeypatch.setattr(origin, "BATCH_ENTRIES", 5 * 30 * 4)
    split = maximise(ncf, rng=np.random.default_rng(0))
    np.testing.assert_allclose([q.value for q in split], [q.value for q in whole], rtol=1e-12)
    assert [q.hits for q in split] == [q.hits for q in whole]


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5, 3)), rng.normal(size=5)
    with pytest.raises(NotHomogeneous, match="homogeneous"):
        OriginNCF(Objective(FeedForward((3, 2, 1), "gelu"), X, y))
    with pytest.raises(NotHomogeneous, match="at least 2"):
        OriginNCF(Objective(FeedForward((3, 1)), X, y))
    with pytest.raises(InvalidInput, match="at least 1"):
        maximise(OriginNCF(Objective(FeedForward((3, 2, 1)), X, y)), starts=0, rng=rng)


def test_points_can_be_looked_for_in_a_list() -> None:
    """Objects that hold arrays are equal only to themselves; comparing the arrays would raise."""
    from gfsim.ncf.kkt import KKTPoint

    first, second = (KKTPoint(np.ones(2), 1.0, 0.0, 1.0) for _ in range(2))
    assert [first, second].index(second) == 1
    assert first != second
    assert len({first, second, first}) == 2
