"""NCFs of paths and the batched search for their maxima, against finite differences and dense searches."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gfsim.errors import InvalidInput
from gfsim.models.activation import HomogeneousActivation
from gfsim.ncf import path
from gfsim.ncf.neuron import NeuronNCF
from gfsim.ncf.neuron import maximise as maximise_neuron
from gfsim.ncf.path import Branches, PathNCF, chains, climb, maximise

RELU, RELU2, SQUARE = HomogeneousActivation(1, 0.0), HomogeneousActivation(2, 0.0), HomogeneousActivation(2, -1.0)
LEAKY, LINEAR = HomogeneousActivation(1, 0.3), HomogeneousActivation(1, 1.0)
ALL = (RELU, RELU2, SQUARE, LEAKY, LINEAR, HomogeneousActivation(3, -0.5), HomogeneousActivation(3, 0.0))


def instance(seed: int, n: int = 200, d: int = 6, k: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, k)) / n


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
@pytest.mark.parametrize("links", [(), (1,), (-1,), (1, -1)])
def test_branches_are_the_composed_activation(activation: HomogeneousActivation, links: tuple[int, ...]) -> None:
    z = np.linspace(-2, 2, 41)
    wanted = activation.value(z)
    for link in links:
        wanted = activation.value(link * wanted)
    branches = Branches.of(activation, links)
    np.testing.assert_allclose(branches.value(z), wanted, rtol=1e-12, atol=1e-14)
    away = z[np.abs(z) > 1e-6]
    eps = 1e-6
    numeric = (branches.value(away + eps) - branches.value(away - eps)) / (2 * eps)
    np.testing.assert_allclose(branches.value_and_slope(away)[1], numeric, rtol=1e-6, atol=1e-6)


def test_chains_leave_out_silent_and_repeated_functions() -> None:
    assert [links for links, _ in chains(RELU, 3)] == [(1, 1)]  # s(-s(z)) = 0
    assert [links for links, _ in chains(SQUARE, 2)] == [(1,)]  # a sign before a square changes nothing
    # max(z, 0.3 z): s(s(z)) has branches 1 and -0.09; s(-s(z)) has -0.3 and 0.3, an odd function
    assert [links for links, _ in chains(LEAKY, 2)] == [(1,), (-1,)]
    assert [links for links, _ in chains(RELU2, 1)] == [()]


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
def test_gradient_of_phi(activation: HomogeneousActivation) -> None:
    H, G = instance(0)
    ncf = PathNCF(H, G, Branches.of(activation, (1,)))
    A = np.random.default_rng(1).normal(size=(3, 6))
    phi, g = ncf.phi_and_gradient(A)
    np.testing.assert_allclose(phi, np.linalg.norm(ncf.branches.value(A @ H.T) @ G, axis=1))
    eps = 1e-6
    for j in range(6):
        step = np.zeros(6)
        step[j] = eps
        numeric = (ncf.phi(A + step) - ncf.phi(A - step)) / (2 * eps)
        np.testing.assert_allclose(g[:, j], numeric, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
@pytest.mark.parametrize(("k", "length"), [(1, 1), (3, 1), (1, 2)])
def test_maxima_against_a_dense_search(activation: HomogeneousActivation, k: int, length: int) -> None:
    """Against 500 starts climbed far longer: the fast search gets at least 99 % of the best value known."""
    for seed in range(2):
        H, G = instance(seed, k=k)
        for _, branches in chains(activation, length):
            ncf = PathNCF(H, G, branches)
            A = np.random.default_rng(99).normal(size=(500, 6))
            dense = climb(ncf, A / np.linalg.norm(A, axis=1, keepdims=True), iterations=150, rtol=1e-10)
            found = maximise(ncf, starts=64, rng=np.random.default_rng(seed))
            assert found.values[0] >= 0.99 * ncf.phi(dense).max()
            np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1.0)
            N = (branches.value(found.directions @ H.T) @ G * found.outgoing).sum(1)
            np.testing.assert_allclose(N, found.values, rtol=1e-10)
            assert (np.diff(found.values) <= 1e-12).all()


@pytest.mark.parametrize("activation", [RELU, RELU2, SQUARE], ids=lambda a: a.name)
def test_the_certified_search_agrees(activation: HomogeneousActivation) -> None:
    H, G = instance(4, k=2)
    exact = maximise_neuron(NeuronNCF(1, H, G, activation), starts=256, rng=np.random.default_rng(0))[0]
    one = NeuronNCF(1, H, G, activation)
    found = maximise(PathNCF(H, G, Branches.of(activation)), starts=256, rng=np.random.default_rng(0))
    assert one.reduced(found.directions)[0] == pytest.approx(exact.value, rel=5e-3)
    assert one.reduced(found.directions)[0] <= exact.value * (1 + 1e-9)


def test_squares_into_one_unit_are_solved_exactly() -> None:
    H, G = instance(5, k=1)
    found = maximise(PathNCF(H, G, Branches.of(SQUARE)), starts=1, rng=np.random.default_rng(0))
    values = np.linalg.eigvalsh(sum(g * np.outer(h, h) for h, g in zip(H, G[:, 0], strict=True)))
    assert found.exact
    assert found.values[0] == pytest.approx(np.abs(values).max(), rel=1e-12)


def test_climbing_never_goes_down_and_zero_stays() -> None:
    H, G = instance(6)
    ncf = PathNCF(H, G, Branches.of(RELU))
    A = np.random.default_rng(0).normal(size=(40, 6))
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    values = [ncf.phi(climb(ncf, A, iterations=k, rtol=1e-12)) for k in range(1, 20)]
    for before, after in pairwise(values):
        assert (after >= before * (1 - 1e-12)).all()
    nothing = maximise(PathNCF(H, 0 * G, Branches.of(RELU)), starts=8, rng=np.random.default_rng(0))
    assert len(nothing) == 0


def test_an_orthogonal_change_of_inputs_turns_the_maxima() -> None:
    H, G = instance(7)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    for activation in (RELU, RELU2):
        branches = Branches.of(activation)
        one = maximise(PathNCF(H, G, branches), starts=128, rng=np.random.default_rng(1), rtol=1e-9, iterations=400)
        two = maximise(PathNCF(H @ Q, G, branches), starts=128, rng=np.random.default_rng(2), rtol=1e-9, iterations=400)
        assert two.values[0] == pytest.approx(one.values[0], rel=1e-3)
        assert (one.directions[0] @ Q) @ two.directions[0] > 0.99


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    H, G = instance(8, n=500)
    ncf = PathNCF(H, G, Branches.of(RELU2))
    A = np.random.default_rng(0).normal(size=(7, 6))
    whole = ncf.phi_and_gradient(A)
    monkeypatch.setattr(path, "BLOCK_ENTRIES", 7 * 30)
    parts = ncf.phi_and_gradient(A)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-10, atol=1e-14)


def test_many_samples_are_screened_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted direction is found although the starts see one sample in ten."""
    rng = np.random.default_rng(9)
    H = rng.normal(size=(4000, 8))
    v = rng.normal(size=8)
    G = (np.maximum(H @ v, 0) - np.maximum(H @ v, 0).mean())[:, None] / 4000
    ncf = PathNCF(H, G, Branches.of(RELU))
    whole = maximise(ncf, starts=32, rng=np.random.default_rng(0))
    monkeypatch.setattr(path, "SCREEN_SAMPLES", 400)
    found = maximise(ncf, starts=32, rng=np.random.default_rng(0))
    assert found.values[0] >= 0.98 * whole.values[0]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("activation", [RELU, RELU2, LEAKY, SQUARE], ids=lambda a: a.name)
def test_torch_tensors_give_the_same(device: str, activation: HomogeneousActivation) -> None:
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    H, G = instance(10)
    options: dict[str, Any] = {"starts": 64, "iterations": 200, "rtol": 1e-9}
    branches = Branches.of(activation)
    tensors = PathNCF(torch.tensor(H, device=device), torch.tensor(G, device=device), branches)
    one = maximise(PathNCF(H, G, branches), rng=np.random.default_rng(0), **options)
    two = maximise(tensors, rng=np.random.default_rng(0), **options)
    assert isinstance(two.directions, np.ndarray)
    assert two.directions.dtype == np.float64
    np.testing.assert_allclose(two.values[0], one.values[0], rtol=1e-6)


def test_refusals() -> None:
    H, G = instance(0)
    with pytest.raises(InvalidInput, match="one row per sample"):
        PathNCF(H, G[:-1], Branches.of(RELU))
    with pytest.raises(InvalidInput, match="starts = 0"):
        maximise(PathNCF(H, G, Branches.of(RELU)), starts=0, rng=np.random.default_rng(0))
