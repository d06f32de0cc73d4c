"""The NCF at a saddle, its flow phi, and directions near a saddle, against definitions and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.flow.events import norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.directions import cosine, cosine_deficit, neuron_directions, track
from gfsim.ncf.kkt import make_point, polish, second_order_gap
from gfsim.ncf.origin import OriginNCF
from gfsim.ncf.phi import limit
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import embed, find_saddle
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.saddle import SparseSaddle, origin


def random_saddle(
    widths: tuple[int, ...],
    active: list[list[int]],
    activation: str = "square",
    *,
    seed: int = 0,
    p: int | None = None,
    loss: str = "square",
) -> SparseSaddle:
    """(w_n, 0) with arbitrary w_n: the expansion in w_z holds there whether or not w_n is a minimum."""
    rng = np.random.default_rng(seed)
    model = FeedForward(widths, activation, p=p)
    X = rng.normal(size=(12, widths[0]))
    y = np.sign(rng.normal(size=(12, widths[-1]))) if loss == "logistic" else rng.normal(size=(12, widths[-1]))
    objective = Objective(model, X, y, loss=loss)
    chosen = ActiveNeurons.of(model, active)
    small = chosen.subnet(model)
    first, *upper = small.unpack(rng.normal(size=small.n_params))
    # positive weights above the first layer keep a ReLU net from being dead on all data
    return embed(objective, chosen, small.pack([first, *(map(np.abs, upper) if activation == "relu" else upper)]))


def h1_by_definition(saddle: SparseSaddle, u: np.ndarray) -> np.ndarray:
    """H1(x_i; wbar_n, u), (n, k), sample by sample and neuron by neuron, with g by finite sums of chain rules."""
    model, active = saddle.model, saddle.active
    w_z = np.zeros(model.n_params)
    w_z[saddle.index_z] = u
    big, small = model.unpack(saddle.w), model.unpack(w_z)
    out = np.zeros((len(saddle.objective.X), model.n_outputs))
    channels = active.channels(model)
    for i, x in enumerate(saddle.objective.X):
        h, slopes = [x], []
        for W in big[:-1]:
            z = W @ h[-1]
            value, slope = model.activation.value_and_slope(z)
            h.append(value)
            slopes.append(slope)
        for layer in range(1, model.depth):
            # dH/dz_{layer+1}, from the top down
            g = np.eye(model.n_outputs)
            for upper in range(model.depth - 1, layer, -1):
                g = g @ big[upper] * slopes[upper - 1]
            for j in active.inactive(model)[layer - 1]:
                a = sum(small[layer - 1][j, k] * h[layer - 1][k] for k in channels[layer - 1])
                b = np.zeros(model.widths[layer + 1])
                b[list(channels[layer + 1])] = small[layer][list(channels[layer + 1]), j]
                out[i] += (g @ b) * float(model.activation.value(np.array(a)))
    return out


CASES = [
    ((3, 4, 1), [[1]], "square", None),
    ((3, 4, 2), [[0, 2]], "relu", 2),
    ((2, 3, 4, 1), [[1], [0, 3]], "square", None),
    ((2, 4, 3, 2), [[0, 2], [1]], "relu", 3),
    ((2, 3, 3, 3, 1), [[0], [1], [0, 2]], "relu", 2),
    ((3, 3, 3, 2), [[0], [1, 2]], "linear", None),
]


class TestExpansion:
    @pytest.mark.parametrize(("widths", "active", "activation", "p"), CASES)
    @pytest.mark.parametrize("loss", ["square", "logistic"])
    def test_value_is_ybar_times_h1(self, widths, active, activation, p, loss) -> None:  # type: ignore[no-untyped-def]
        saddle = random_saddle(widths, active, activation, p=p, loss=loss)
        u = np.random.default_rng(1).normal(size=saddle.index_z.size)
        ybar = saddle.objective.pull(saddle.objective.model.forward(saddle.w, saddle.objective.X))
        expected = float((ybar * h1_by_definition(saddle, u)).sum())
        assert SaddleNCF(saddle).value(u) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("widths", "active", "activation", "p"), CASES)
    def test_remainder_has_the_stated_degree(self, widths, active, activation, p) -> None:  # type: ignore[no-untyped-def]
        """2p+1 with inactive neurons in adjacent layers, absent at depth 2 (where H - H0 = H1 exactly)."""
        saddle = random_saddle(widths, active, activation, p=p, seed=2)
        model, X = saddle.model, saddle.objective.X
        power = model.activation.power or 1
        scales = 10.0 ** -np.array([0.75, 1.125, 1.5])
        exponents = []
        for seed in range(6):
            u = np.random.default_rng([3, seed]).normal(size=saddle.index_z.size)
            H1 = h1_by_definition(saddle, u)
            left = []
            for c in scales:
                w = saddle.w.copy()
                w[saddle.index_z] = c * u
                left.append(np.abs(model.forward(w, X) - model.forward(saddle.w, X) - c ** (power + 1) * H1).max())
            if model.depth == 2:
                assert max(left) < 1e-12 * np.abs(H1).max() + 1e-12
                continue
            exponents.append(np.polyfit(np.log(scales), np.log(left), 1)[0])
        if exponents:  # a ReLU neuron that is dead on all data hides the leading term of some draws
            assert min(exponents) == pytest.approx(2 * power + 1, abs=0.2)

    def test_degree_of_the_remainder_without_adjacent_inactive_neurons(self) -> None:
        saddle = random_saddle((2, 3, 1, 2, 1), [[0], [0], [0]], "square", seed=4)
        model, X = saddle.model, saddle.objective.X
        u = np.random.default_rng(5).normal(size=saddle.index_z.size)
        H1 = h1_by_definition(saddle, u)
        scales = 10.0 ** -np.arange(0.5, 2.1, 0.5)
        left = []
        for c in scales:
            w = saddle.w.copy()
            w[saddle.index_z] = c * u
            left.append(np.abs(model.forward(w, X) - model.forward(saddle.w, X) - c**3 * H1).max())
        assert np.polyfit(np.log(scales), np.log(left), 1)[0] == pytest.approx(6, abs=0.1)

    def test_weights_between_inactive_neurons_do_not_enter(self) -> None:
        saddle = random_saddle((2, 3, 4, 1), [[1], [0, 3]])
        ncf = SaddleNCF(saddle)
        model = saddle.model
        inside = {int(model.index[1][j, k]) for j in (1, 2) for k in (0, 2)}
        assert {int(i) for i in saddle.index_z[~ncf.coupled]} == inside
        u = np.random.default_rng(6).normal(size=ncf.size)
        assert (ncf.gradient(u)[~ncf.coupled] == 0).all()

    @pytest.mark.parametrize(("widths", "active", "activation", "p"), CASES)
    def test_derivatives_and_euler(self, widths, active, activation, p) -> None:  # type: ignore[no-untyped-def]
        ncf = SaddleNCF(random_saddle(widths, active, activation, p=p, seed=7))
        rng = np.random.default_rng(8)
        u, v = rng.normal(size=(2, ncf.size))
        e = 1e-6
        slope = (ncf.value(u + e * v) - ncf.value(u - e * v)) / (2 * e)
        assert ncf.gradient(u) @ v == pytest.approx(slope, rel=1e-6, abs=1e-6)
        turn = (ncf.gradient(u + e * v) - ncf.gradient(u - e * v)) / (2 * e)
        np.testing.assert_allclose(ncf.hessian(u) @ v, turn, rtol=1e-5, atol=1e-5 * np.abs(turn).max())
        assert ncf.gradient(u) @ u == pytest.approx(ncf.degree * ncf.value(u), rel=1e-11)
        batch = np.stack([u, v])
        np.testing.assert_allclose(ncf.value(batch), [ncf.value(u), ncf.value(v)], rtol=1e-13)
        np.testing.assert_allclose(ncf.gradient(batch)[1], ncf.gradient(v), rtol=1e-13)

    def test_two_layer_origin_is_the_same_function(self) -> None:
        """At depth 2 the origin's NCF is the one-neuron sum: both are written independently."""
        rng = np.random.default_rng(9)
        objective = Objective(FeedForward((3, 4, 2), "relu", p=2), rng.normal(size=(9, 3)), rng.normal(size=(9, 2)))
        quiet = SparseSaddle(objective, ActiveNeurons(((0,),)), np.zeros(objective.model.n_params))
        u = rng.normal(size=quiet.index_z.size)
        w = np.zeros(objective.model.n_params)
        w[quiet.index_z] = u
        assert SaddleNCF(quiet).value(u) == pytest.approx(float(OriginNCF(objective).value(w)), rel=1e-12)

    def test_refusals(self) -> None:
        rng = np.random.default_rng(10)
        objective = Objective(FeedForward((2, 3, 1), "tanh"), rng.normal(size=(5, 2)), rng.normal(size=5))
        with pytest.raises(NotHomogeneous, match="tanh"):
            SaddleNCF(embed(objective, ActiveNeurons(((0,),)), np.ones(3)))
        square = objective.with_model(FeedForward((2, 3, 1), "square"))
        with pytest.raises(InvalidInput, match="OriginNCF"):
            SaddleNCF(origin(square))
        kinked = Objective(FeedForward((2, 3, 1), "relu"), np.array([[1.0, -1.0], [1.0, 2.0]]), np.ones(2))
        with pytest.raises(NotHomogeneous, match="kink"):
            SaddleNCF(embed(kinked, ActiveNeurons(((0,),)), np.array([1.0, 1.0, 1.0])))
        away = SaddleNCF(embed(kinked, ActiveNeurons(((0,),)), np.array([1.0, 0.5, 1.0])))
        assert away.degree == 2


class TestMaxima:
    def test_maxima_sit_on_one_neuron_and_are_balanced(self) -> None:
        saddle = random_saddle((4, 5, 5, 1), [[0], [0]], seed=11)
        ncf = SaddleNCF(saddle)
        found = ncf.neuron_maxima(starts=24, rng=np.random.default_rng(0))
        assert found
        best = found[0]
        assert abs(best.balance(2)) < 1e-9
        u = ncf.embed(best, saddle.active.inactive(saddle.model)[best.layer - 1][1])
        point = make_point(ncf, u)
        assert point.residual < 1e-10 * point.value
        assert point.second_order
        # no mixture of neurons does better: ascent from random starts of the whole sum
        U = np.random.default_rng(1).normal(size=(200, ncf.size))
        U[:, ~ncf.coupled] = 0
        for _ in range(400):
            U /= np.linalg.norm(U, axis=1, keepdims=True)
            g = ncf.gradient(U)
            U = U + 0.3 * g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300)
        U /= np.linalg.norm(U, axis=1, keepdims=True)
        assert ncf.value(U).max() <= best.value * (1 + 1e-9)
        assert ncf.value(U).max() >= best.value * (1 - 1e-3)

    def test_embed_refuses_an_active_unit(self) -> None:
        saddle = random_saddle((3, 3, 1), [[0]], seed=12)
        ncf = SaddleNCF(saddle)
        best = ncf.neuron_maxima(starts=4, rng=np.random.default_rng(0))[0]
        with pytest.raises(InvalidInput, match="not inactive"):
            ncf.embed(best, 0)


class TestPhi:
    @pytest.mark.parametrize(("activation", "p"), [("square", None), ("relu", 2), ("relu", 3)])
    def test_blow_up_time_from_an_aligned_start(self, activation: str, p: int | None) -> None:
        saddle = random_saddle((4, 3, 2), [[0]], activation, p=p, seed=13)
        ncf = SaddleNCF(saddle)
        best = ncf.neuron_maxima(starts=16, rng=np.random.default_rng(0))[0]
        u = ncf.embed(best, 1)
        K = ncf.degree
        for size in (1.0, 0.3):
            found = limit(ncf, size * u)
            assert found.fate == "escape"
            assert found.time == pytest.approx(1 / (K * (K - 2) * best.value * size ** (K - 2)), rel=1e-7)
            assert found.point is not None
            assert cosine_deficit(found.point.u, u) < 1e-12

    def test_two_homogeneous_growth_rate(self) -> None:
        """Linear net: N(a, b) = b' M a, phi grows along the top singular pair of M at rate sigma = 2 N*."""
        saddle = random_saddle((4, 3, 3), [[0]], "linear", seed=14)
        ncf = SaddleNCF(saddle)
        M = ncf.neurons[0].pull.T @ ncf.neurons[0].inputs
        _, s, Vt = np.linalg.svd(M)
        found = limit(ncf, np.random.default_rng(0).normal(size=ncf.size))
        assert found.fate == "escape"
        assert found.point is not None
        assert found.point.value == pytest.approx(s[0] / 2, rel=1e-9)
        assert found.time == pytest.approx(1 / s[0], rel=1e-5)
        # K = 2 allows ties: both free neurons point along the top pair, with any split of the mass
        for row in ncf.places[0]:
            a = found.point.u[row][:4]
            assert abs(a @ Vt[0]) == pytest.approx(np.linalg.norm(a), rel=1e-6)

    def test_a_start_on_the_wrong_side_collapses(self) -> None:
        """From the mirror image of a maximum, b -> -b, N is negative and u' = K N u: phi goes to zero."""
        saddle = random_saddle((3, 2, 1), [[0]], "relu", p=2, seed=15)
        ncf = SaddleNCF(saddle)
        best = ncf.neuron_maxima(starts=16, rng=np.random.default_rng(0))[0]
        z = ncf.embed(best, 1)
        z[ncf.places[0][0][3:]] *= -1
        assert float(ncf.value(z)) == pytest.approx(-best.value, rel=1e-12)
        found = limit(ncf, z)
        assert found.fate == "collapse"
        assert found.point is None
        assert math.isinf(found.time)
        assert np.linalg.norm(found.path.final) == pytest.approx(1e-4, rel=1e-6)

    def test_the_value_never_falls_along_phi(self) -> None:
        ncf = SaddleNCF(random_saddle((3, 4, 3, 1), [[0], [1]], seed=16))
        path = limit(ncf, np.random.default_rng(1).normal(size=ncf.size)).path
        unit = path.w / np.linalg.norm(path.w, axis=1, keepdims=True)
        values = ncf.value(unit)
        assert (np.diff(values) >= -1e-9 * np.abs(values).max()).all()

    def test_bad_starts(self) -> None:
        ncf = SaddleNCF(random_saddle((3, 3, 1), [[0]], seed=17))
        with pytest.raises(InvalidInput, match="z = 0"):
            limit(ncf, np.zeros(ncf.size))
        with pytest.raises(InvalidInput, match="entries"):
            limit(ncf, np.ones(ncf.size + 1))
        with pytest.raises(InvalidInput, match="growth"):
            limit(ncf, np.ones(ncf.size), growth=5.0)

    def test_a_deep_linear_saddle_where_one_neuron_cannot_help(self) -> None:
        """Depth 3, linear: a single neuron cannot raise the rank, N vanishes and phi stands still."""
        rng = np.random.default_rng(20)
        objective = Objective(FeedForward((4, 3, 3, 3), "linear"), rng.normal(size=(30, 4)), rng.normal(size=(30, 3)))
        ncf = SaddleNCF(find_saddle(objective, (1, 1), rng=rng))
        found = limit(ncf, rng.normal(size=ncf.size))
        assert found.fate == "still"
        assert found.point is None


class TestKKT:
    def test_gap_of_a_quadratic_form(self) -> None:
        """N(u) = u' diag(m) u: KKT points are the axes, gap 2 (m_1 - m_2)."""

        class Quadratic:
            degree, size = 2.0, 3
            m = np.array([3.0, 1.0, -2.0])

            def value(self, u: np.ndarray) -> np.ndarray:
                return (self.m * u * u).sum(-1)

            def gradient(self, u: np.ndarray) -> np.ndarray:
                return 2 * self.m * u

            def hessian(self, u: np.ndarray) -> np.ndarray:
                return 2 * np.diag(self.m) + 0 * u[0]

        axes = np.eye(3)
        assert second_order_gap(Quadratic(), axes[0]) == pytest.approx(4.0)
        assert second_order_gap(Quadratic(), axes[1]) == pytest.approx(-4.0)
        near = axes[0] + np.array([0, 0.1, -0.05])
        point = make_point(Quadratic(), polish(Quadratic(), near))
        assert point.residual < 1e-14
        assert point.sign == "positive"
        assert point.second_order
        assert not make_point(Quadratic(), axes[1]).second_order
        assert make_point(Quadratic(), axes[2]).sign == "negative"


class TestNearSaddle:
    """The theorem of docs/theory.md, section 4, on small instances; the figures do it at length."""

    @pytest.mark.parametrize("loss", ["square", "logistic"])
    def test_escape_time_is_the_blow_up_time_over_delta(self, loss: str) -> None:
        rng = np.random.default_rng(18)
        X = rng.normal(size=(60, 4))
        y = X[:, 0] * X[:, 1] + 0.5 * X[:, 2] ** 2 - 0.3
        y = np.sign(y + 0.5 * rng.normal(size=60)) if loss == "logistic" else y
        objective = Objective(FeedForward((4, 4, 1), "square"), X, y, loss=loss, reduction="mean")
        saddle = find_saddle(objective, (1,), rng=rng)
        ncf = SaddleNCF(saddle)
        n, z = saddle.directions(rng)
        phi = limit(ncf, z)
        assert phi.fate == "escape"
        assert phi.point is not None
        errors, deficits = [], []
        for delta in (1e-2, 1e-4, 1e-6):
            turned = norm_level(math.sqrt(delta), saddle.index_z, name="turned", terminal=0)
            gone = norm_level(0.3 * float(np.linalg.norm(saddle.w)), saddle.index_z, name="gone")
            result = simulate(
                objective,
                saddle.start(delta, z, n),
                t_end=math.inf,
                method="Radau",
                rtol=1e-9,
                clock=saddle.clock,
                blocks=saddle.blocks,
                events=[turned, gone],
            )
            assert result.ok, result.message
            assert result.counts.accepted < 1200, "flat cost: an explicit method would need 1/delta steps"
            errors.append(abs(result.event("gone").t * delta / phi.time - 1))
            deficits.append(cosine_deficit(result.event("turned").w[saddle.index_z], phi.point.u))
            followed = track(result, saddle, delta, phi.point.u)
            assert followed.small[0] == pytest.approx(1.0)
            assert followed.shift[0] == pytest.approx(1.0)
            assert followed.cosine is not None
            assert followed.cosine[-1] > 0.9
        assert errors[0] < 0.1
        assert errors[2] < 1e-5
        assert deficits[0] > deficits[1] > deficits[2]
        assert deficits[2] < 1e-3

    def test_cosines(self) -> None:
        u = np.array([[3.0, 4.0], [0.0, 2.0]])
        np.testing.assert_allclose(cosine(u, np.array([0.0, 1.0])), [0.8, 1.0])
        assert cosine_deficit(np.array([1.0, 1e-9]), np.array([1.0, 0.0])) == pytest.approx(5e-19, rel=1e-6)

    def test_neuron_directions_are_rows_with_columns(self) -> None:
        model = FeedForward((2, 3, 1), "square")
        W1 = np.array([[3.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
        W2 = np.array([[4.0, 0.0, -2.0]])
        (directions,) = neuron_directions(model, np.stack([model.pack([W1, W2]), model.pack([2 * W1, 2 * W2])]))
        np.testing.assert_allclose(directions[0], [[0.6, 0, 0.8], [0, 0, 0], [1 / 3, 2 / 3, -2 / 3]], rtol=1e-15)
        np.testing.assert_array_equal(directions[1], directions[0])

    def test_track_refuses_another_net(self) -> None:
        saddle = random_saddle((3, 3, 1), [[0]], seed=19)
        other = simulate(
            Objective(FeedForward((3, 2, 1), "square"), np.eye(3), np.ones(3)), 0.1 * np.ones(8), t_end=0.1
        )
        with pytest.raises(InvalidInput, match="weights"):
            track(other, saddle, 0.1)
        with pytest.raises(InvalidInput, match="delta"):
            track(other, saddle, 0.0)
