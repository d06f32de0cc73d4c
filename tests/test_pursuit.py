"""Neuron Pursuit: its parts, the algorithm on teachers it must recover, its stops, its record and replay."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfsim.errors import InvalidInput, NotHomogeneous, OutputError, UnknownName
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import MatrixFactorisation
from gfsim.objective import Objective
from gfsim.pursuit.algorithm import pursue
from gfsim.pursuit.choice import choose_neuron, correlation
from gfsim.pursuit.config import PursuitConfig
from gfsim.pursuit.descent_loop import DescentLoop
from gfsim.pursuit.grow import append_neuron
from gfsim.pursuit.minimise import Descent, FlowMinimiser, Outcome, Polish, make_minimiser
from gfsim.pursuit.record import Addition, Minimisation, Record, Start, Stop
from gfsim.pursuit.replay import replay

QUICK = Descent(step=0.01, max_steps=3000)


def square_teacher(n: int = 120, d: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """y = (v1.x)^2 - (v2.x)^2, v1 and v2 orthonormal: two square neurons."""
    X = np.random.default_rng(seed).normal(size=(n, d))
    return X, square_target(X)


def square_target(X: np.ndarray) -> np.ndarray:
    V = np.linalg.qr(np.random.default_rng(5).normal(size=(X.shape[1], 2)))[0]
    return (X @ V[:, 0]) ** 2 - (X @ V[:, 1]) ** 2


def square_config(**changes: Any) -> PursuitConfig:
    return PursuitConfig(**{"hidden_layers": 1, "activation": "square", "max_neurons": 4, "minimiser": QUICK} | changes)


# -- growing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [1, 2])
def test_append_neuron_keeps_everything_else(layer: int) -> None:
    rng = np.random.default_rng(0)
    model = FeedForward((3, 2, 4, 2), "relu")
    w = rng.normal(size=model.n_params)
    a, b = rng.normal(size=model.widths[layer - 1]), rng.normal(size=model.widths[layer + 1])
    grown, v = append_neuron(model, w, layer, a, b)
    assert grown.widths == tuple(k + (j == layer) for j, k in enumerate(model.widths))
    old, new = model.unpack(w), grown.unpack(v)
    for l, (W, V) in enumerate(zip(old, new, strict=True)):
        np.testing.assert_array_equal(V[: W.shape[0], : W.shape[1]], W)
        if l not in (layer - 1, layer):
            assert V.shape == W.shape
    np.testing.assert_array_equal(new[layer - 1][-1], a)
    np.testing.assert_array_equal(new[layer][:, -1], b)
    X = rng.normal(size=(6, 3))
    silent, zero = append_neuron(model, w, layer, a, 0 * b)
    np.testing.assert_allclose(silent.forward(zero, X), model.forward(w, X), rtol=1e-14)


def test_append_neuron_refuses() -> None:
    model = FeedForward((3, 2, 1), "relu")
    w = np.ones(model.n_params)
    with pytest.raises(InvalidInput, match="hidden layers 1 to 1"):
        append_neuron(model, w, 2, np.ones(2), np.ones(1))
    with pytest.raises(InvalidInput, match="3 incoming and 1 outgoing"):
        append_neuron(model, w, 1, np.ones(2), np.ones(1))
    with pytest.raises(InvalidInput, match="8 weights"):
        append_neuron(model, np.ones(5), 1, np.ones(3), np.ones(1))


# -- minimisers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "square", "leaky", "linear", "tanh"])
@pytest.mark.parametrize("loss", ["square", "logistic"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_descent_loop_is_gradient_descent(activation: str, loss: str, reduction: str) -> None:
    rng = np.random.default_rng(0)
    model = FeedForward((4, 3, 2, 2), activation)
    y = rng.choice([-1.0, 1.0], size=(9, 2))
    objective = Objective(model, rng.normal(size=(9, 4)), y, loss=loss, reduction=reduction)  # type: ignore[arg-type]
    w = rng.normal(size=model.n_params) / 2
    start = w.copy()
    loop = DescentLoop(objective, w, 1e-3)
    loop.advance(7)
    loop.advance(13)
    np.testing.assert_array_equal(w, start)
    for _ in range(20):
        w = w - 1e-3 * objective.gradient(w)
    np.testing.assert_allclose(loop.w, w, atol=1e-13)


def test_descent_of_another_model() -> None:
    objective = Objective(MatrixFactorisation(2, 2, 1), np.eye(4), [2.0, 0.0, 0.0, 1.0])
    outcome = Descent(step=0.01, max_steps=4000).run(objective, np.array([0.1, 0.01, 0.1, 0.01]))
    assert outcome.reason == "stationary"
    assert outcome.loss_after == pytest.approx(1.0, rel=1e-10)  # rank one leaves the smaller singular value
    assert outcome.time == pytest.approx(0.01 * outcome.steps)


def test_why_descent_ends() -> None:
    X, y = square_teacher()
    objective = Objective(FeedForward((5, 2, 1), "square"), X, y, reduction="mean")
    w = 0.3 * np.random.default_rng(1).normal(size=12)
    full = Descent(step=0.01, max_steps=40_000).run(objective, w)
    assert full.reason == "stationary"
    assert full.gradient_norm <= 1e-6
    assert full.loss_before == pytest.approx(float(objective.value(w)))
    assert full.loss_after == pytest.approx(float(objective.value(full.w)))
    assert (np.diff(full.trace_loss) <= 1e-15).all()
    assert full.trace_time[-1] == pytest.approx(full.time)
    assert Descent(step=0.01, max_steps=150).run(objective, w).reason == "budget"
    assert Descent(step=0.01, max_steps=150).run(objective, w).steps == 150
    goal = Descent(step=0.01, max_steps=40_000).run(objective, w, loss_goal=0.5 * (full.loss_before + full.loss_after))
    assert goal.reason == "loss"
    assert goal.steps < full.steps
    wild = Descent(step=3.0).run(objective, w)
    assert wild.reason == "diverged"
    assert np.isfinite(wild.w).all()
    assert "smaller step" in wild.message


def test_a_start_next_to_a_saddle_is_not_taken_for_a_minimum() -> None:
    """Near the origin of a degree-3 net |grad| = O(delta^2), far below gtol: the run must go on and escape."""
    X, y = square_teacher()
    objective = Objective(FeedForward((5, 2, 1), "square"), X, y, reduction="mean")
    w = np.random.default_rng(1).normal(size=12)
    w *= 3e-4 / np.linalg.norm(w)
    first = float(np.linalg.norm(objective.gradient(w)))
    assert first < 1e-6
    outcome = Descent(step=1.0, max_steps=2000, check_every=50).run(objective, w)
    assert outcome.reason != "stationary" or outcome.gradient_norm <= 0.1 * first


def test_flow_and_descent_agree() -> None:
    """The flow's minimum is that of descent with a small step, at the same physical time (mean convention)."""
    X, y = square_teacher()
    objective = Objective(FeedForward((5, 2, 1), "square"), X, y, reduction="mean")
    w = 0.3 * np.random.default_rng(1).normal(size=12)
    t = 3.0
    flow = FlowMinimiser(t_end=t, rtol=1e-9).run(objective, w)
    assert flow.reason == "budget"
    assert flow.time == pytest.approx(t)
    errors = [np.abs(Descent(step=h, max_steps=round(t / h)).run(objective, w).w - flow.w).max() for h in (2e-3, 1e-3)]
    assert errors[1] == pytest.approx(0.5 * errors[0], rel=0.1)  # Euler: the error halves with the step
    done = FlowMinimiser(t_end=1e4).run(objective, w)
    assert done.reason == "stationary"
    assert FlowMinimiser().run(objective, w, loss_goal=0.5 * (done.loss_before + done.loss_after)).reason == "loss"
    assert FlowMinimiser(max_steps=3).run(objective, w).reason == "budget"
    assert FlowMinimiser().run(objective, np.zeros(12)).steps == 0  # a critical point: nothing to do


@pytest.mark.parametrize("n", [60, 9])  # more and fewer residuals than weights
def test_polish_of_a_square_loss(n: int) -> None:
    X, y = square_teacher(n=n)
    objective = Objective(FeedForward((5, 2, 1), "square"), X, y, reduction="mean")
    start = Descent(step=0.01, max_steps=1500).run(objective, 0.3 * np.random.default_rng(1).normal(size=12)).w
    outcome = Polish().run(objective, start)
    assert outcome.loss_after < 1e-20 < outcome.loss_before
    assert np.isnan(outcome.time)


def test_polish_of_a_logistic_loss() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = np.where(X[:, 0] + rng.normal(size=60) > 0, 1.0, -1.0)
    objective = Objective(FeedForward((3, 2, 1), "relu", p=2), X, y, loss="logistic", reduction="mean")
    start = Descent(step=0.05, max_steps=400).run(objective, 0.3 * rng.normal(size=8)).w
    outcome = Polish().run(objective, start)
    assert outcome.loss_after <= outcome.loss_before
    assert outcome.gradient_norm <= 1e-7
    assert outcome.reason == "stationary"


def test_minimisers_by_name() -> None:
    assert make_minimiser("descent", step=0.1) == Descent(step=0.1)
    for made in (Descent(step=0.1), FlowMinimiser(method="BDF"), Polish(max_steps=7)):
        assert make_minimiser(made.name, **made.settings()) == made
        json.dumps(made.settings())
    with pytest.raises(UnknownName, match="'descent'"):
        make_minimiser("decent")
    with pytest.raises(UnknownName, match="'max_steps'"):
        make_minimiser("descent", max_step=3)
    with pytest.raises(UnknownName, match="LSODA"):
        FlowMinimiser(method="LSODE")
    with pytest.raises(InvalidInput, match="max_steps = 0"):
        Descent(max_steps=0)
    with pytest.raises(InvalidInput, match="step = -1"):
        Descent(step=-1)
    with pytest.raises(InvalidInput, match="object"):
        make_minimiser(Descent(), step=0.1)


# -- choosing a neuron ---------------------------------------------------------------------------------


def test_choice_is_the_layer_of_the_largest_ncf() -> None:
    rng = np.random.default_rng(0)
    model = FeedForward((4, 2, 3, 2), "relu", p=2)
    objective = Objective(model, rng.normal(size=(30, 4)), rng.normal(size=(30, 2)))
    for _ in range(3):
        w = rng.normal(size=model.n_params)
        found = choose_neuron(objective, w, starts=16, tie_rtol=1e-4, mirror_rtol=0.0, rng=rng)
        assert found is not None
        values = [m.best for m in found.maxima]
        assert found.layer == 1 + int(np.argmax(values))
        assert found.point.value == pytest.approx(max(values), rel=1e-4)
        # the loss falls by delta^(p+1) N to first order when the neuron enters
        delta = 1e-2
        grown, v = append_neuron(model, w, found.layer, delta * found.a, delta * found.b)
        drop = float(objective.value(w) - objective.with_model(grown).value(v))
        assert drop / delta**3 == pytest.approx(found.point.value, rel=0.02)
        # its correlation, from outputs alone
        eps = 1e-4
        grown, v = append_neuron(model, w, found.layer, eps * found.a, eps * found.b)
        H1 = (grown.forward(v, objective.X) - model.forward(w, objective.X)) / eps**3
        pull = objective.y - model.forward(w, objective.X)
        wanted = float((H1 * pull).sum() / np.linalg.norm(H1) / np.linalg.norm(pull))
        assert found.correlation == pytest.approx(wanted, rel=1e-3)


def test_no_choice_when_every_ncf_vanishes() -> None:
    X, y = square_teacher()
    model = FeedForward((5, 2, 1), "square")
    objective = Objective(model, X, y)
    rng = np.random.default_rng(0)
    exact = Polish().run(objective, 0.5 * rng.normal(size=12)).w
    exact_objective = Objective(model, X, model.forward(exact, X))
    assert choose_neuron(exact_objective, exact, starts=4, tie_rtol=0, mirror_rtol=0, rng=rng) is None
    assert correlation(exact_objective, exact, 1, X[0], np.ones(1)) == 0.0


def published_target(X: np.ndarray) -> np.ndarray:
    """The target of the author's public example, on {-1, 1}^d."""

    def s(z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0)

    x1, x2, x3, x4 = X.T[:4]
    return 2 * s(s(2 * x1 + x3) - s(x3 - x2)) - s(s(2 * x2 + x4) + s(x4 + x3))


def deep_relu_target(X: np.ndarray) -> np.ndarray:
    def s(z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0)

    return -s(s(2 * X[:, 0] - X[:, 1] + 1.5 * X[:, 2]) + s(X[:, 3] - X[:, 1])) + 0.3 * s(X[:, 0] + X[:, 3])


def test_mirror_images_tie_after_the_first_iteration_and_the_rule_decides() -> None:
    """N(a, b) = N(-a, b) for the layer-1 neuron of a (1, 1) ReLU net at its minimum; rounding must not choose.

    Reordering the samples changes every rounding error and must not change the neuron.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = deep_relu_target(X)
    model = FeedForward((4, 1, 1, 1), "relu")
    start = model.pack([np.array([[0.1, -0.05, 0.05, 0.0]]), np.array([[0.12]]), np.array([[-0.12]])])
    chosen = []
    for order in (np.arange(400), rng.permutation(400), rng.permutation(400)):
        objective = Objective(model, X[order], y[order], reduction="mean")
        w = Descent(max_steps=40_000).run(objective, start).w
        found = choose_neuron(objective, w, starts=32, tie_rtol=1e-4, mirror_rtol=5e-2, rng=np.random.default_rng(1))
        assert found is not None
        assert found.layer == 1
        assert found.tied == 2
        assert found.cosines[found.chosen] == max(found.cosines)
        assert min(found.cosines) == pytest.approx(-max(found.cosines), rel=1e-3)
        chosen.append(found.point.u)
    np.testing.assert_allclose(chosen[1], chosen[0], atol=1e-5)
    np.testing.assert_allclose(chosen[2], chosen[0], atol=1e-5)


# -- the algorithm -------------------------------------------------------------------------------------


def test_square_teacher_is_recovered_exactly() -> None:
    X, y = square_teacher()
    result = pursue(X, y, square_config(), rng=np.random.default_rng(1))
    assert result.hidden_widths == [(1,), (2,)]
    assert result.stop.reason == "loss"
    X_new = np.random.default_rng(9).normal(size=(500, 5))
    np.testing.assert_allclose(result.predict(X_new)[:, 0], square_target(X_new), atol=1e-11)
    # before the polish, descent itself must have come close
    assert result.record.minimisations[-1].loss_after <= 1e-8 * result.record.problem["null_loss"] * 1.0001
    assert result.record.polish is not None
    assert result.loss == pytest.approx(float(np.mean((result.predict(X)[:, 0] - y) ** 2)))


def test_the_record_tells_the_whole_story() -> None:
    X, y = square_teacher()
    config = square_config(max_neurons=3, loss_rtol=0.0, polish=False)
    result = pursue(X, y, config, rng=np.random.default_rng(1))
    steps = result.record.steps
    assert [type(s) for s in steps] == [
        Start, Minimisation, Addition, Minimisation, Addition, Minimisation, Stop,
    ]  # fmt: skip
    start, first, added = steps[0], steps[1], steps[2]
    assert isinstance(start, Start)
    assert isinstance(first, Minimisation)
    assert isinstance(added, Addition)
    np.testing.assert_allclose(np.linalg.norm(start.weights), 0.2, rtol=1e-12)
    assert start.maxima.layer == 0
    assert start.maxima.values[0] == start.maxima.best
    assert sum(start.maxima.hits) <= start.maxima.starts == 64
    np.testing.assert_array_equal(first.weights_before, start.weights)
    assert first.minimiser == "descent"
    assert first.settings == QUICK.settings()
    # the neuron enters where the minimisation ended, at norm delta, and old weights are kept
    np.testing.assert_array_equal(added.weights[:5], first.weights_after[:5])
    assert np.linalg.norm(np.r_[added.weights[5:10], added.weights[11]]) == pytest.approx(0.03, rel=1e-12)
    assert added.predicted_decrease == pytest.approx(0.03**3 * added.value)
    third = steps[3]
    assert isinstance(third, Minimisation)
    assert first.loss_after - third.loss_before == pytest.approx(added.predicted_decrease, rel=0.05)
    assert result.stop.reason == "budget"
    rows = result.record.rows()
    assert [row["hidden"] for row in rows] == [(1,), (2,), (3,)]
    assert "budget" in result.summary()
    assert result.hidden_widths == [(1,), (2,), (3,)]


@pytest.mark.parametrize("minimiser", ["flow", QUICK])
def test_flow_or_descent_by_choice(minimiser: Any) -> None:
    X, y = square_teacher()
    result = pursue(X, y, square_config(minimiser=minimiser), rng=np.random.default_rng(1))
    assert result.loss < 1e-20


def test_deep_relu_network_grows_in_both_layers() -> None:
    """The published example in small: 8 inputs on the cube; only the NCF values decide where to grow."""
    X = np.random.default_rng(1).choice([-1.0, 1.0], size=(300, 8))
    config = PursuitConfig(max_neurons=6, loss_rtol=0.0, minimiser=Descent(step=0.008, max_steps=15_000))
    result = pursue(X, published_target(X), config, rng=np.random.default_rng(0))
    assert result.hidden_widths == [(1, 1), (2, 1), (2, 2), (3, 2), (4, 2)]
    losses = [m.loss_after for m in result.record.minimisations]
    assert all(after < before for before, after in pairwise(losses))
    cube = 1.0 - 2.0 * ((np.arange(2**8)[:, None] >> np.arange(8)) & 1)
    np.testing.assert_allclose(result.predict(cube)[:, 0], published_target(cube), atol=1e-12)
    first = result.record.additions[0]
    assert first.tied == 2
    assert first.cosines[first.chosen] > 0 > min(first.cosines)
    for added in result.record.additions:
        assert added.layer_values[added.layer - 1] == max(added.layer_values)


@pytest.mark.slow
def test_published_example_on_a_fresh_draw() -> None:
    """1000 samples of {-1, 1}^20; all 2^20 points are then right."""
    X = np.random.default_rng(100).choice([-1.0, 1.0], size=(1000, 20))
    config = PursuitConfig(max_neurons=6, loss_rtol=0.0)
    result = pursue(X, published_target(X), config, rng=np.random.default_rng(0))
    assert result.hidden_widths == [(1, 1), (2, 1), (2, 2), (3, 2), (4, 2)]
    cube = 1.0 - 2.0 * ((np.arange(2**20)[:, None] >> np.arange(20)) & 1)
    assert np.mean((result.predict(cube)[:, 0] - published_target(cube)) ** 2) < 1e-6


def test_several_outputs_and_a_sum() -> None:
    rng = np.random.default_rng(0)
    X, V, U = rng.normal(size=(80, 4)), rng.normal(size=(2, 4)) / 2, rng.normal(size=(2, 3))
    y = (X @ V.T) ** 2 @ U
    config = square_config(reduction="sum", minimiser=Descent(step=1e-4, max_steps=20_000))
    result = pursue(X, y, config, rng=np.random.default_rng(0))
    assert result.predict(X).shape == (80, 3)
    assert result.loss < 1e-18


# -- stops ---------------------------------------------------------------------------------------------


def test_a_target_without_any_pull_gives_the_zero_function() -> None:
    X, _ = square_teacher()
    result = pursue(X, np.zeros(120), square_config(), rng=np.random.default_rng(0))
    assert result.stop.reason == "no_escape"
    assert "origin" in result.stop.message
    assert result.loss == 0.0
    np.testing.assert_array_equal(result.predict(X), np.zeros((120, 1)))


def test_no_escape_while_the_loss_is_positive() -> None:
    """Every input is seen twice with opposite labels around 1: no even neuron can do better than the mean."""
    X = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    y = np.array([2.0, 0.0, 2.0, 0.0])
    result = pursue(X, y, square_config(loss_rtol=0.0, ncf_tol=1e-6), rng=np.random.default_rng(0))
    assert result.stop.reason == "no_escape"
    assert "no single neuron helps" in result.stop.message
    assert result.loss == pytest.approx(1.0)


def test_validation_stops_and_the_best_network_is_returned() -> None:
    rng = np.random.default_rng(0)
    X, X_val = rng.normal(size=(24, 4)), rng.normal(size=(300, 4))

    def f(Z: np.ndarray) -> np.ndarray:
        return Z[:, 0] ** 2 - Z[:, 1] ** 2

    y = f(X) + 0.5 * rng.normal(size=24)
    config = PursuitConfig(hidden_layers=1, patience=2, minimiser=Descent(step=0.02, max_steps=3000), loss_rtol=0)
    result = pursue(X, y, config, rng=np.random.default_rng(0), X_val=X_val, y_val=f(X_val))
    assert result.stop.reason == "validation"
    entries = [s for s in result.record.steps if isinstance(s, Minimisation)]
    best = min(entries, key=lambda m: m.validation)
    assert result.model.widths == best.widths
    np.testing.assert_array_equal(result.weights, best.weights_after)
    assert float(np.mean((result.predict(X_val)[:, 0] - f(X_val)) ** 2)) == pytest.approx(best.validation)
    assert entries[-1].widths != best.widths


class Worse:
    """A minimiser that lets the first call through and then climbs."""

    name = "worse"

    def __init__(self) -> None:
        self.calls = 0

    def settings(self) -> dict[str, Any]:
        return {}

    def run(self, objective: Objective, w: np.ndarray, *, loss_goal: float = 0.0, progress: bool = False) -> Outcome:
        del progress
        self.calls += 1
        if self.calls == 1:
            return QUICK.run(objective, w, loss_goal=loss_goal)
        outcome = Descent(step=1e-3, max_steps=1).run(objective, 2 * w)
        return replace(outcome, loss_before=float(objective.value(w)))


def test_a_larger_loss_is_kept_or_refused_as_asked_and_always_said() -> None:
    X, y = square_teacher()
    kept = pursue(X, y, square_config(minimiser=Worse(), max_neurons=2, polish=False), rng=np.random.default_rng(0))
    assert kept.stop.reason == "budget"
    assert kept.record.minimisations[-1].worse
    assert kept.record.minimisations[-1].kept
    assert kept.model.hidden_widths == (2,)
    config = square_config(minimiser=Worse(), max_neurons=2, polish=False, on_worse="refuse")
    refused = pursue(X, y, config, rng=np.random.default_rng(0))
    assert refused.stop.reason == "no_improvement"
    assert not refused.record.minimisations[-1].kept
    assert refused.model.hidden_widths == (1,)
    np.testing.assert_array_equal(refused.weights, refused.record.minimisations[0].weights_after)
    assert refused.loss < kept.loss


def test_divergence_returns_the_network_before() -> None:
    X, y = square_teacher()
    result = pursue(X, y, square_config(minimiser=Descent(step=5.0)), rng=np.random.default_rng(0))
    assert result.stop.reason == "diverged"
    assert "smaller step" in result.stop.message
    assert np.isfinite(result.weights).all()
    np.testing.assert_array_equal(result.predict(X), np.zeros((120, 1)))


def test_ctrl_c_during_descent_keeps_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = square_teacher()
    real, calls = DescentLoop.advance, [0]

    def advance(self: DescentLoop, steps: int) -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        real(self, steps)

    monkeypatch.setattr(DescentLoop, "advance", advance)
    result = pursue(X, y, square_config(), rng=np.random.default_rng(0))
    assert result.stop.reason == "interrupted"
    last = result.record.minimisations[-1]
    assert last.reason == "interrupted"
    np.testing.assert_array_equal(result.weights, last.weights_after)
    assert result.loss < result.record.problem["null_loss"]
    assert result.record.polish is None


def test_ctrl_c_between_minimisations() -> None:
    X, y = square_teacher()

    def callback(step: object, *_: object) -> None:
        if isinstance(step, Addition):
            raise KeyboardInterrupt

    result = pursue(X, y, square_config(), rng=np.random.default_rng(0), callback=callback)
    assert result.stop.reason == "interrupted"
    assert result.model.n_params == result.weights.size


def test_callback_sees_the_growing_network_and_may_end_it() -> None:
    X, y = square_teacher()
    seen: list[tuple[str, tuple[int, ...], float]] = []

    def callback(step: object, model: FeedForward, w: np.ndarray) -> bool:
        loss = float(np.mean((model.forward(w, X)[:, 0] - y) ** 2))
        seen.append((type(step).__name__, model.hidden_widths, loss))
        w[:] = np.nan  # a copy: what the callback does to it must not matter
        return len(seen) < 2

    result = pursue(X, y, square_config(), rng=np.random.default_rng(0), callback=callback)
    assert [name for name, _, _ in seen[:2]] == ["Start", "Minimisation"]
    assert seen[1][2] < seen[0][2]
    assert result.stop.reason == "interrupted"
    assert result.model.hidden_widths == (1,)
    assert np.isfinite(result.weights).all()


def test_progress_goes_to_standard_error_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = square_teacher()
    pursue(X, y, square_config(), rng=np.random.default_rng(0))
    assert capsys.readouterr() == ("", "")
    pursue(X, y, square_config(), rng=np.random.default_rng(0), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "neuron 2 into layer 1" in err


# -- record and replay ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished() -> Any:
    X, y = square_teacher()
    return X, y, pursue(X, y, square_config(), rng=np.random.default_rng(1))


def test_record_survives_the_disk_and_replays(finished: Any, tmp_path: Path) -> None:
    X, y, result = finished
    record = Record.load(result.save(tmp_path / "new" / "folder"))
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["pursuit.json", "pursuit.npz"]
    np.testing.assert_equal(record.rows(), result.record.rows())
    assert record.stop == result.stop
    assert record.hidden_widths == result.hidden_widths
    for mine, theirs in zip(record.steps, result.record.steps, strict=True):
        assert type(mine) is type(theirs)
        for name in mine.__dataclass_fields__:
            np.testing.assert_equal(getattr(mine, name), getattr(theirs, name))
    json.loads((tmp_path / "new" / "folder" / "pursuit.json").read_text())  # strict JSON, no NaN
    assert "NaN" not in (tmp_path / "new" / "folder" / "pursuit.json").read_text()
    redone = replay(record, X, y)
    assert [r.kind for r in redone] == ["start", "minimise", "addition", "minimise", "polish"]
    assert all(r.difference == 0.0 and r.value_difference < 1e-12 for r in redone)


def test_same_seed_same_pursuit(finished: Any) -> None:
    X, y, result = finished
    again = pursue(X, y, square_config(), rng=np.random.default_rng(1))
    np.testing.assert_array_equal(again.weights, result.weights)


def test_replay_notices_a_changed_record(finished: Any) -> None:
    X, y, result = finished
    steps = list(result.record.steps)
    place = next(k for k, s in enumerate(steps) if isinstance(s, Minimisation))
    entry = steps[place]
    bent = entry.weights_after.copy()
    bent[0] += 1e-9
    steps[place] = replace(entry, weights_after=bent)
    steps = [*steps[: place + 1], Stop("budget", "")]
    redone = replay(Record(result.record.problem, result.record.config, result.record.data, steps), X, y)
    assert redone[place].difference == pytest.approx(1e-9, rel=1e-5)
    steps[place] = replace(entry, weights_before=bent)
    with pytest.raises(InvalidInput, match="does not start"):
        replay(Record(result.record.problem, result.record.config, result.record.data, steps), X, y)
    with pytest.raises(InvalidInput, match="not the data"):
        replay(result.record, X, y + 1e-9)


def test_unreadable_and_unwritable_records(finished: Any, tmp_path: Path) -> None:
    _, _, result = finished
    with pytest.raises(InvalidInput, match="no readable record"):
        Record.load(tmp_path)
    folder = result.save(tmp_path / "a")
    (folder / "pursuit.npz").write_bytes(b"half")
    with pytest.raises(InvalidInput, match="no readable record"):
        Record.load(folder)
    result.save(folder)
    plain = json.loads((folder / "pursuit.json").read_text())
    (folder / "pursuit.json").write_text(json.dumps(plain | {"format": 99}))
    with pytest.raises(InvalidInput, match="format 99"):
        Record.load(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="another folder"):
        result.save(tmp_path / "file" / "x")


# -- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_layers": 0}, "hidden_layers = 0"),
        ({"max_neurons": 0}, "max_neurons = 0"),
        ({"hidden_layers": 3, "max_neurons": 2}, "raise max_neurons"),
        ({"starts": 0}, "starts = 0"),
        ({"patience": 0}, "patience = 0"),
        ({"delta": 0.0}, "delta = 0.0"),
        ({"delta0": -1.0}, "delta0 = -1.0"),
        ({"tie_rtol": 2.0}, "tie_rtol = 2.0"),
        ({"ncf_tol": float("nan")}, "ncf_tol = nan"),
        ({"on_worse": "ignore"}, "'keep'"),
        ({"p": 0}, "p = 0"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        PursuitConfig(**{"hidden_layers": 1, "activation": "relu"} | changes)


def test_bad_names() -> None:
    with pytest.raises(UnknownName, match="'descent'"):
        PursuitConfig(minimiser="descend")
    with pytest.raises(UnknownName, match="'relu'"):
        PursuitConfig(activation="rellu")
    with pytest.raises(NotHomogeneous, match="tanh"):
        PursuitConfig(activation="tanh")


def test_bad_data() -> None:
    X, y = square_teacher()
    rng = np.random.default_rng(0)
    for bad_X, bad_y, words in (
        (X, y[:-1], "120 samples and y 119"),
        (X[:1], y[:1], "at least 2"),
        (X[0], y, "dimension"),
        (np.where(X > 2, np.nan, X), y, "nan at index"),
        (X, np.full(120, np.inf), "inf"),
        (np.empty((0, 5)), np.empty(0), "empty"),
    ):
        with pytest.raises(InvalidInput, match=words):
            pursue(bad_X, bad_y, square_config(), rng=rng)
    with pytest.raises(InvalidInput, match="both or neither"):
        pursue(X, y, square_config(), rng=rng, X_val=X)
    with pytest.raises(InvalidInput, match="default_rng"):
        pursue(X, y, square_config(), rng=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="labels must be"):
        pursue(X, y, square_config(loss="logistic"), rng=rng)
    result = pursue(X, y, square_config(polish=False), rng=rng)
    with pytest.raises(InvalidInput, match="takes 5 inputs"):
        result.predict(X[:, :4])
