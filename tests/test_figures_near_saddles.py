"""The parts that the near-saddle and Neuron Pursuit figures are made of, each against an independent answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gfsim.models.feedforward import FeedForward
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.pursuit.algorithm import PursuitConfig, pursue
from gfsim.pursuit.minimise import Descent
from gfsim.saddles.neurons import ActiveNeurons
from paper_repro import (
    basins,
    beyond_theorem,
    escape_times,
    pursuit,
    pursuit_animation,
    pursuit_versus_fixed,
    staircase,
)
from paper_repro.claims import check_basis
from paper_repro.figure import Context, styled
from paper_repro.registry import FIGURES

NEW = ["basins", "escape_times", "staircase", "beyond_theorem", "pursuit_versus_fixed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NEW)
def test_claims_hold_on_another_seed(name: str) -> None:
    entry = next(e for e in FIGURES if e.name == name)
    with styled():
        made = entry.load()(Context(name, seed=5))
    check_basis(made.claims, made.numbers)
    failed = [f"{c.name}: {c.measured}, expected {c.expected}" for c in made.claims if not c.holds]
    assert not failed, "; ".join(failed)
    assert made.convention == "mean"
    assert len(made.caption) > 300


@pytest.fixture(scope="module")
def flat() -> tuple[SaddleNCF, list]:
    ncf = SaddleNCF(basins.flat_saddle(4))
    return ncf, ncf.neuron_maxima(rng=np.random.default_rng(0))


class TestBasins:
    def test_a_start_at_a_kkt_point_blows_up_when_theory_says(self, flat: tuple) -> None:
        """1/(3 N*), and the winner is that neuron and that point; a wrong remainder shows at 1e-4."""
        ncf, kinds = flat
        unit = 2
        Z = np.stack([ncf.embed(kind, unit) for kind in kinds])
        race = basins.race_of_phi(ncf, kinds, Z)
        np.testing.assert_allclose(race.time, [1 / (3 * kind.value) for kind in kinds], rtol=1e-6)
        assert race.kind.tolist() == list(range(len(kinds)))
        assert set(race.unit.tolist()) == {unit}
        np.testing.assert_allclose(race.cosine, 1.0, atol=1e-9)

    def test_the_lead_of_two_aligned_neurons(self, flat: tuple) -> None:
        """Blow-up times 1/(3 N x) and 1/(3 N y): the lead is x/y - 1, and LEAD where y is far behind."""
        ncf, kinds = flat
        one, other = ncf.embed(kinds[0], 1), ncf.embed(kinds[0], 3)
        Z = np.stack([one + y * other for y in (0.95, 0.8, 0.1)])
        race = basins.race_of_phi(ncf, kinds, Z)
        assert race.unit.tolist() == [1, 1, 1]
        np.testing.assert_allclose(basins.leads(ncf, Z, race), [1 / 0.95 - 1, 0.25, basins.LEAD], rtol=1e-3)

    def test_a_negative_start_collapses(self, flat: tuple) -> None:
        """(a, -b) of a positive KKT point has N < 0 and shrinks for ever."""
        ncf, kinds = flat
        u = ncf.embed(kinds[0], 1)
        place = ncf.places[0][0]
        u[place[-1]] *= -1
        race = basins.race_of_phi(ncf, kinds, u[None], horizon=100.0 / kinds[-1].value)
        # it may yet turn round a hill of the other sign; it must not be counted for its own point
        assert race.kind[0] != 0

    def test_directions_cover_the_sphere(self) -> None:
        points = basins.spread(400)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, rtol=1e-12)
        np.testing.assert_allclose(points.T @ points / 400, np.eye(3) / 3, atol=2e-2)
        longitude, latitude = basins.where(points)
        np.testing.assert_allclose(np.sin(latitude), points[:, 2], atol=1e-12)
        np.testing.assert_allclose(np.cos(latitude) * np.cos(longitude), points[:, 0], atol=1e-12)

    def test_balanced_starts(self) -> None:
        ncf = SaddleNCF(basins.flat_saddle(2))
        Z = basins.balanced(ncf, basins.spread(5), -1.0)
        a, b = Z[:, ncf.places[0][0][:3]], Z[:, ncf.places[0][0][3]]
        np.testing.assert_allclose((a**2).sum(1), 2 * b**2, rtol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(Z, axis=1), 1.0, rtol=1e-12)
        assert (b < 0).all()


class TestEscapeTimes:
    def test_the_line_and_its_error(self) -> None:
        rng = np.random.default_rng(0)
        x = np.linspace(0, 3, 9)
        y = 2.5 * x + rng.normal(size=9)
        coefficients, covariance = np.polyfit(x, y, 1, cov=True)
        slope, error = escape_times.line(x, y)
        assert slope == pytest.approx(coefficients[0], rel=1e-12)
        assert error == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-9)

    @pytest.mark.parametrize("family", escape_times.FAMILIES, ids=lambda f: f.key)
    def test_limits_from_a_kkt_point(self, family: escape_times.Family) -> None:
        """1/((p+1)(p-1) N*) for K > 2, 1/(2 N*) for K = 2."""
        saddle = escape_times.saddle_of(family)
        assert saddle.escape_degree == family.K
        ncf = SaddleNCF(saddle)
        best = ncf.neuron_maxima(rng=np.random.default_rng(1))[0]
        z = 0.5 * ncf.embed(best, saddle.active.inactive(saddle.model)[best.layer - 1][0])
        (found,) = escape_times.limits(ncf, best.value, z[None])
        K = family.K
        expected = 1 / (2 * best.value) if K == 2 else 1 / (K * (K - 2) * best.value * 0.5 ** (K - 2))
        assert found == pytest.approx(expected, rel=1e-6)


class TestStaircase:
    def test_wilson_interval(self) -> None:
        """8 of 10: 0.4902 to 0.9433 (Wilson's own formula, as tabulated)."""
        low, high = staircase.wilson(8, 10)
        assert low == pytest.approx(0.4902, abs=1e-4)
        assert high == pytest.approx(0.9433, abs=1e-4)

    def test_what_has_grown(self) -> None:
        before, now = ActiveNeurons(((0,), (1,))), ActiveNeurons(((0, 3), (1, 2)))
        assert staircase.grown(before, now) == [(1, 3), (2, 2)]
        assert staircase.grown(now, now) == []

    def test_the_pursuit_sequence_is_that_of_greedy_neurons(self) -> None:
        """Widths count up by one and the loss falls; a neuron that is not added would leave both as they are."""
        net = staircase.NETS[0]
        objective, _ = staircase.problem(net, np.random.default_rng(net.shown))
        rows = staircase.pursuit_sequence(Context("staircase"), objective, np.random.default_rng(0), 4)
        assert [row["widths"] for row in rows] == [(1,), (2,), (3,), (4,)][: len(rows)]
        losses = [row["loss"] for row in rows]
        assert (np.diff(losses) < 0).all()


def test_small_gelu_neurons_follow_a_linear_flow() -> None:
    """The predicted direction against the exponential of the linear flow a' = M b, b' = M.a, neuron by neuron."""
    from scipy.linalg import expm

    saddle, _ = beyond_theorem.saddle_of("gelu")
    z = saddle.directions(np.random.default_rng(2))[1]
    told = beyond_theorem.predicted(saddle, z, np.random.default_rng(0))
    ybar = saddle.objective.pull(saddle.model.forward(saddle.w, saddle.objective.X))[:, 0]
    M = 0.5 * saddle.objective.X.T @ ybar
    A = np.zeros((M.size + 1, M.size + 1))
    A[:-1, -1] = A[-1, :-1] = M
    grow = expm(A * 30 / np.linalg.norm(M))
    u = np.zeros_like(z)
    for place in beyond_theorem.neurons(saddle):
        u[place] = grow @ z[place]
    assert told.rate == pytest.approx(float(np.linalg.eigvalsh(A)[-1]), rel=1e-12)
    np.testing.assert_allclose(told.u, u / np.linalg.norm(u), atol=1e-9)


class TestAnimation:
    def test_the_network_on_the_whole_cube(self) -> None:
        rng = np.random.default_rng(0)
        model = FeedForward((20, 3, 2, 1), "relu")
        w = rng.normal(size=model.n_params)
        values = pursuit_animation.on_the_cube(model, w).ravel()
        for first in (0, 77_777, (1 << 20) - 500):
            np.testing.assert_allclose(
                values[first : first + 500],
                model.forward(w, pursuit.cube(first, first + 500))[:, 0],
                rtol=1e-12,
                atol=1e-12,
            )

    def test_the_descents_are_repeated_to_the_bit(self) -> None:
        """The last picture of every iteration shows the recorded weights."""
        rng = np.random.default_rng(0)
        X = rng.choice([-1.0, 1.0], size=(60, 20))
        y = pursuit.target(X)
        config = PursuitConfig(
            hidden_layers=2, max_neurons=3, minimiser=Descent(step=0.004, max_steps=700), polish=False, loss_rtol=0.0
        )
        result = pursue(X, y, config, rng=rng)
        shots = pursuit_animation.frames(Context("pursuit"), result, X, y, 4)
        for k, step in enumerate(result.record.minimisations):
            (*_, last) = [shot for shot in shots if shot.iteration == k]
            np.testing.assert_array_equal(last.w, step.weights_after)
            assert last.loss == step.loss_after
        assert pursuit_animation.new_units(result, 0) == [(1, 0), (2, 0)]
        layer = result.record.additions[0].layer
        assert pursuit_animation.new_units(result, 1) == [(layer, 1)]


class TestVersusFixed:
    def test_adam_is_adam(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against torch's, at a constant rate: a wrong bias correction shows in the first steps."""
        import torch

        monkeypatch.setitem(pursuit_versus_fixed.ADAM, "last", pursuit_versus_fixed.ADAM["rate"])
        rng = np.random.default_rng(0)
        model = FeedForward((3, 4, 1), "relu")
        X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
        objective = Objective(model, X, y, reduction="mean")
        w = rng.normal(size=model.n_params)
        loop = pursuit_versus_fixed.AdamLoop(objective, w, 50)
        loop.advance(50)
        theirs = torch.tensor(w, requires_grad=True)
        optimiser = torch.optim.Adam([theirs], lr=1e-2)
        for _ in range(50):
            optimiser.zero_grad()
            theirs.grad = torch.tensor(objective.gradient(theirs.detach().numpy()))
            optimiser.step()
        np.testing.assert_allclose(loop.w, theirs.detach().numpy(), rtol=1e-5, atol=1e-7)

    def test_the_interval_covers(self) -> None:
        """95 % of intervals from five normal numbers hold their mean; with the normal quantile it would be 88 %."""
        rng = np.random.default_rng(0)
        pairs = [pursuit_versus_fixed.interval(rng.normal(size=5)) for _ in range(2000)]
        assert np.mean([abs(m) <= h for m, h in pairs]) == pytest.approx(0.95, abs=0.015)

    def test_targets_are_what_their_labels_say(self) -> None:
        x = np.array([[1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
        by_name = {t.name: t for t in pursuit_versus_fixed.TARGETS}
        rng = np.random.default_rng(0)
        np.testing.assert_allclose(by_name["staircase"].values(x, rng), [1 - 1 - 1, 1 + 1 - 1])
        np.testing.assert_allclose(by_name["product"].values(x, rng), [-1, 1])
        np.testing.assert_allclose(by_name["parity"].values(x, rng), [-1, -1])
        data = pursuit_versus_fixed.draw(by_name["relu_3_noise"], np.random.default_rng(1))
        clean = pursuit_versus_fixed.draw(by_name["relu_3"], np.random.default_rng(1))
        np.testing.assert_array_equal(data.y_test, clean.y_test)  # noise in the training labels only
        assert np.std(data.y - clean.y) == pytest.approx(0.5, rel=0.15)
