"""Sparse saddles against closed forms (linear nets: Eckart-Young) and plain index loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gfsim.errors import InvalidInput, NotHomogeneous, SaddleNotFound
from gfsim.flow.clock import PhysicalTime, RescaledTime
from gfsim.flow.events import norm_level, stationarity
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.balance import balance
from gfsim.saddles.certificate import certify
from gfsim.saddles.find import embed, find_saddle, nearby_saddle, rounding_level, subnet_minima
from gfsim.saddles.neurons import ActiveNeurons, split_by_norm
from gfsim.saddles.plateaus import find_plateaus, saddle_behind
from gfsim.saddles.saddle import SparseSaddle, origin


def teacher_problem(
    activation: str, widths: tuple[int, ...], seed: int, *, p: int | None = None, n: int = 60
) -> Objective:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, widths[0]))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    teacher = FeedForward((widths[0], *[2] * (len(widths) - 2), widths[-1]), activation, p=p)
    first, *upper = teacher.unpack(rng.normal(size=teacher.n_params))
    y = teacher.forward(teacher.pack([first, *map(np.abs, upper)]), X)  # positive above: no dead ReLU teacher
    y /= np.sqrt(np.mean(y**2))
    return Objective(FeedForward(widths, activation, p=p), X, y, reduction="mean")


class TestActiveNeurons:
    @pytest.mark.parametrize("widths", [(3, 4, 1), (2, 3, 4, 2), (2, 3, 2, 3, 1)])
    def test_indices_agree_with_a_plain_loop_over_weights(self, widths: tuple[int, ...]) -> None:
        model = FeedForward(widths, "square")
        rng = np.random.default_rng(0)
        for _ in range(5):
            active = [sorted(rng.permutation(k)[: rng.integers(1, k + 1)].tolist()) for k in widths[1:-1]]
            chosen = ActiveNeurons.of(model, active)
            on = [set(range(widths[0])), *map(set, active), set(range(widths[-1]))]
            n, z, flat = [], [], 0
            for l, (rows, cols) in enumerate(model.shapes):
                for j, k in itertools.product(range(rows), range(cols)):
                    (n if j in on[l + 1] and k in on[l] else z).append(flat)
                    flat += 1
            assert chosen.index_n(model).tolist() == n
            assert chosen.index_z(model).tolist() == z

    def test_subnet_computes_the_same_function(self) -> None:
        model = FeedForward((3, 4, 5, 2), "relu", p=2)
        chosen = ActiveNeurons.of(model, [[1, 3], [0, 2, 4]])
        rng = np.random.default_rng(1)
        w = np.zeros(model.n_params)
        small = chosen.subnet(model)
        w_n = rng.normal(size=small.n_params)
        w[chosen.index_n(model)] = w_n
        X = rng.normal(size=(6, 3))
        np.testing.assert_allclose(model.forward(w, X), small.forward(w_n, X), rtol=1e-14)

    @pytest.mark.parametrize("active", [[1], [1, 1, 1], [[0, 0], 1], [[7], 1], [0, 1], [[-1], 1]])
    def test_bad_choices_are_refused(self, active: list) -> None:
        with pytest.raises(InvalidInput):
            ActiveNeurons.of(FeedForward((3, 4, 5, 1), "square"), active)

    def test_split_by_norm_places_the_cut_in_the_gap(self) -> None:
        model = FeedForward((3, 4, 5, 1), "square")
        rng = np.random.default_rng(2)
        w = 1e-4 * rng.normal(size=model.n_params)
        chosen = ActiveNeurons.of(model, [[1, 2], [4]])
        w[chosen.index_n(model)] += 1 + rng.random(chosen.index_n(model).size)
        assert split_by_norm(model, w) == chosen
        assert split_by_norm(model, np.zeros(model.n_params)).origin
        assert split_by_norm(model, rng.normal(size=model.n_params) + 3).widths == (4, 5)


class TestBalance:
    @pytest.mark.parametrize(
        ("activation", "p"), [("relu", 1), ("relu", 2), ("relu", 3), ("square", None), ("linear", None)]
    )
    def test_same_function_and_zero_balances(self, activation: str, p: int | None) -> None:
        model = FeedForward((3, 4, 5, 2), activation, p=p)
        rng = np.random.default_rng(3)
        w = rng.normal(size=model.n_params)
        X = rng.normal(size=(7, 3))
        b = balance(model, w)
        np.testing.assert_allclose(model.forward(b, X), model.forward(w, X), rtol=1e-11, atol=1e-12)
        assert np.abs(model.conserved(b)).max() < 1e-12 * (b @ b)

    def test_a_dead_neuron_is_left_alone(self) -> None:
        model = FeedForward((2, 2, 1), "relu")
        w = np.array([1.0, 2.0, 0.0, 0.0, 3.0, 4.0])
        b = balance(model, w)
        assert np.isfinite(b).all()
        assert b[5] == 4.0


class TestFind:
    @pytest.mark.parametrize("depth", [2, 3])
    @pytest.mark.parametrize("rank", [1, 2])
    def test_linear_net_reaches_the_best_low_rank_loss(self, depth: int, rank: int) -> None:
        """Eckart-Young: with orthonormal inputs the loss is the sum of the squared singular values left out."""
        rng = np.random.default_rng(4)
        U, _, Vt = np.linalg.svd(rng.normal(size=(4, 5)), full_matrices=False)
        s = np.array([3.0, 2.0, 1.0, 0.5])
        Y = (U * s) @ Vt  # (outputs, inputs)
        model = FeedForward((5, *[3] * (depth - 1), 4), "linear")
        objective = Objective(model, np.eye(5), Y.T, reduction="sum")
        saddle = find_saddle(objective, [rank] * (depth - 1), rng=rng, starts=6)
        assert saddle.loss == pytest.approx((s[rank:] ** 2).sum(), rel=1e-11)
        assert np.linalg.norm(objective.gradient(saddle.w)) < 1e-12

    @pytest.mark.parametrize(("activation", "p"), [("square", None), ("relu", 2), ("relu", 3), ("tanh", None)])
    def test_stationary_to_machine_precision_in_the_wide_net(self, activation: str, p: int | None) -> None:
        objective = teacher_problem(activation, (5, 4, 4, 1), 5, p=p)
        saddle = find_saddle(objective, (1, 1), rng=np.random.default_rng(0))
        g = np.linalg.norm(objective.gradient(saddle.w))
        assert g < 1e3 * rounding_level(saddle.active_objective, saddle.w_n)
        assert not saddle.w[saddle.index_z].any()
        assert (np.linalg.eigvalsh(saddle.active_objective.hessian(saddle.w_n)) > -1e-9).all()
        if activation != "tanh":
            assert g < 1e-12
            assert np.abs(saddle.model.conserved(saddle.w)).max() < 1e-12

    def test_logistic_loss_with_noisy_labels(self) -> None:
        rng = np.random.default_rng(6)
        X = rng.normal(size=(80, 4))
        y = np.sign(X[:, 0] * X[:, 1] + 1.5 * rng.normal(size=80))
        objective = Objective(FeedForward((4, 3, 1), "square"), X, y, loss="logistic", reduction="mean")
        saddle = find_saddle(objective, (1,), rng=rng)
        assert np.linalg.norm(objective.gradient(saddle.w)) < 1e-13

    def test_separable_logistic_loss_has_no_saddle(self) -> None:
        rng = np.random.default_rng(7)
        X = np.abs(rng.normal(size=(20, 2))) * np.sign(rng.normal(size=(20, 1)))
        objective = Objective(FeedForward((2, 3, 1), "linear"), X, np.sign(X[:, 0]), loss="logistic")
        with pytest.raises(SaddleNotFound, match="finite minimum"):
            find_saddle(objective, (1,), rng=rng, starts=3)

    def test_distinct_minima_are_ordered_and_counted(self) -> None:
        objective = teacher_problem("square", (5, 2, 2, 1), 8)
        small = objective.with_model(objective.model.with_hidden_widths((1, 1)))  # type: ignore[attr-defined]
        minima = subnet_minima(small, starts=8, rng=np.random.default_rng(0))
        assert sum(m.hits for m in minima) == 8
        assert [m.loss for m in minima] == sorted(m.loss for m in minima)

    def test_same_generator_same_saddle(self) -> None:
        objective = teacher_problem("relu", (4, 3, 1), 9, p=2)
        one, two = (find_saddle(objective, (1,), rng=np.random.default_rng(3), starts=4) for _ in range(2))
        assert (one.w == two.w).all()


class TestStart:
    saddle = embed(
        Objective(FeedForward((3, 4, 4, 1), "square"), np.eye(3), np.ones(3)),
        ActiveNeurons(((0,), (1,))),
        np.arange(1.0, 6.0),
    )

    def test_blocks_are_displaced_by_delta(self) -> None:
        n, z = self.saddle.directions(np.random.default_rng(0))
        assert np.linalg.norm(n) == pytest.approx(1)
        assert np.linalg.norm(z) == pytest.approx(1)
        w = self.saddle.start(1e-3, z, n)
        np.testing.assert_allclose(w[self.saddle.index_z], 1e-3 * z)
        np.testing.assert_allclose(w[self.saddle.index_n] - self.saddle.w_n, 1e-3 * n, atol=1e-16)

    @pytest.mark.parametrize("delta", [0.0, -1.0, float("nan"), float("inf")])
    def test_delta_must_be_positive(self, delta: float) -> None:
        with pytest.raises(InvalidInput, match="delta"):
            self.saddle.start(delta, np.ones(self.saddle.index_z.size))

    def test_zero_and_misshapen_directions_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="z = 0"):
            self.saddle.start(0.1, np.zeros(self.saddle.index_z.size))
        with pytest.raises(InvalidInput, match="entries"):
            self.saddle.start(0.1, np.ones(3))

    def test_escape_degree_and_clock(self) -> None:
        assert self.saddle.escape_degree == 3
        assert isinstance(self.saddle.clock, RescaledTime)
        assert self.saddle.clock.power == 1
        at_origin = origin(self.saddle.objective)
        assert at_origin.escape_degree == 7
        assert at_origin.index_z.size == at_origin.model.n_params
        linear = SparseSaddle(
            Objective(FeedForward((3, 4, 1), "linear"), np.eye(3), np.ones(3)), ActiveNeurons(((0,),)), np.zeros(16)
        )
        assert isinstance(linear.clock, PhysicalTime)
        with pytest.raises(NotHomogeneous):
            origin(Objective(FeedForward((3, 4, 1), "tanh"), np.eye(3), np.ones(3)))


class TestCertificate:
    def test_a_degenerate_saddle(self) -> None:
        objective = teacher_problem("square", (5, 4, 4, 1), 10)
        saddle = find_saddle(objective, (1, 1), rng=np.random.default_rng(0))
        seen = certify(saddle, rng=np.random.default_rng(1), starts=16)
        assert seen.verdict == "saddle"
        assert seen.inertia[0] == 0, "for K > 2 no Hessian eigenvalue shows the way down"
        assert seen.small_block < 1e-12
        assert seen.cross_block < 1e-12
        assert seen.leak == 0.0
        assert seen.measured_drop == pytest.approx(seen.predicted_drop, rel=1e-2)
        assert "saddle" in seen.summary()

    def test_a_strict_saddle_of_a_linear_net(self) -> None:
        rng = np.random.default_rng(11)
        objective = Objective(FeedForward((4, 3, 3), "linear"), rng.normal(size=(20, 4)), rng.normal(size=(20, 3)))
        saddle = find_saddle(objective, (1,), rng=rng)
        seen = certify(saddle, rng=rng, starts=16)
        assert seen.verdict == "saddle"
        assert seen.inertia[0] > 0, "K = 2: negative eigenvalues"
        assert seen.small_block < 1e-9 * seen.spectrum[-1]

    def test_a_global_minimum_is_not_called_a_saddle(self) -> None:
        rng = np.random.default_rng(12)
        teacher = FeedForward((4, 1, 1), "square")
        X = rng.normal(size=(40, 4))
        y = teacher.forward(rng.normal(size=teacher.n_params), X)
        saddle = find_saddle(Objective(FeedForward((4, 3, 1), "square"), X, y), (1,), rng=rng)
        assert saddle.loss < 1e-25
        assert certify(saddle, rng=rng, starts=8).verdict == "no escape found"

    def test_points_that_are_not_critical_or_not_minima_are_told_apart(self) -> None:
        objective = teacher_problem("square", (5, 4, 1), 13)
        saddle = find_saddle(objective, (2,), rng=np.random.default_rng(0))
        moved = saddle.w.copy()
        moved[saddle.index_n] *= 1.1
        assert (
            certify(SparseSaddle(objective, saddle.active, moved), rng=np.random.default_rng(0), starts=4).verdict
            == "not critical"
        )
        # a linear net's own saddle taken for an active minimum: singular vector 2 instead of 1
        Y = np.diag([2.0, 1.0])
        linear = Objective(FeedForward((2, 2, 2), "linear"), np.eye(2), Y)
        w = linear.model.pack([np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])])  # type: ignore[attr-defined]
        wrong = SparseSaddle(linear, ActiveNeurons(((0,),)), w)
        assert np.linalg.norm(linear.gradient(w)) == 0
        assert certify(wrong, rng=np.random.default_rng(0), starts=4).verdict == "active part is no minimum"

    def test_the_origin(self) -> None:
        objective = teacher_problem("square", (4, 3, 3, 1), 14)
        seen = certify(origin(objective), rng=np.random.default_rng(0), starts=16)
        assert seen.verdict == "saddle"
        assert seen.escape is not None
        assert seen.escape.residual < 1e-9 * seen.escape.value


class TestPlateaus:
    def test_a_linear_net_stops_at_each_rank(self) -> None:
        """Saddle to saddle with known losses: the squared singular values not yet learned."""
        s = np.array([4.0, 2.0, 1.0])
        objective = Objective(FeedForward((3, 6, 3), "linear"), np.eye(3), np.diag(s))
        w0 = 1e-8 * np.random.default_rng(15).normal(size=objective.model.n_params)
        result = simulate(objective, w0, t_end=60.0, method="BDF", rtol=1e-8)
        plateaus = find_plateaus(result, threshold=1e-2)
        losses = [p.loss for p in plateaus]
        expected = [21.0, 5.0, 1.0, 0.0]
        assert len(losses) == 4
        np.testing.assert_allclose(losses, expected, atol=1e-4)
        assert [p.t_enter for p in plateaus] == sorted(p.t_enter for p in plateaus)

    def test_the_saddle_behind_a_plateau(self) -> None:
        objective = teacher_problem("square", (5, 4, 1), 16)
        saddle = find_saddle(objective, (1,), rng=np.random.default_rng(0))
        n, z = saddle.directions(np.random.default_rng(1))
        escape = norm_level(0.5, saddle.index_z, name="escape", terminal=0)
        result = simulate(
            objective,
            saddle.start(1e-4, z, n),
            t_end=np.inf,
            method="BDF",
            clock=saddle.clock,
            blocks=saddle.blocks,
            events=[escape, stationarity(1e-5, after=escape.name)],
        )
        assert result.ok, result.message
        plateaus = find_plateaus(result)
        assert plateaus[0].active == saddle.active
        assert plateaus[-1].active.widths[0] >= 2
        behind = saddle_behind(result, plateaus[0])
        assert behind.loss == pytest.approx(saddle.loss, rel=1e-10)
        assert np.linalg.norm(objective.gradient(behind.w)) < 1e-12

    def test_bad_requests(self) -> None:
        objective = teacher_problem("square", (3, 2, 1), 17)
        result = simulate(objective, 0.1 * np.ones(8), t_end=1.0)
        with pytest.raises(InvalidInput, match="depth"):
            find_plateaus(result, depth=0.5)
        with pytest.raises(SaddleNotFound):
            nearby_saddle(_separable(), np.ones(4), ActiveNeurons(((0,),)))


def _separable() -> Objective:
    """Separable logistic data: the loss has no finite stationary point along the active neuron."""
    X = np.array([[1.0], [-1.0]])
    return Objective(FeedForward((1, 2, 1), "linear"), X, np.array([1.0, -1.0]), loss="logistic")


def test_a_saddle_without_inactive_neurons_says_why_there_is_no_start() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3))
    saddle = find_saddle(Objective(FeedForward((3, 2, 1), "square"), X, X[:, 0] ** 2), [2], rng=rng)
    with pytest.raises(InvalidInput, match="every hidden neuron is active"):
        saddle.start(1e-3, np.zeros(0))
