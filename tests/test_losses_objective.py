"""Losses at extreme arguments, and objectives: conventions, refusals, and their torch twins."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfsim.errors import InvalidInput, UnknownName
from gfsim.losses import LogisticLoss, SquareLoss, make_loss
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective

ARRAYS = (np.array, partial(torch.tensor, dtype=torch.float64))

# -- losses ------------------------------------------------------------------------------------------


def exact_logistic(q: float, y: float) -> tuple[float, float, float]:
    """(value, slope, bend) of log(1 + exp(-y q)) in 400-digit decimals, where nothing cancels."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 400, -(10**9), 10**9
        m = -Decimal(y) * Decimal(q)
        e = m.exp()
        s = e / (1 + e)
        # 1 - s would cancel even in 400 digits at m = 1e4
        return float((1 + e).ln() if m > -300 else e), float(-Decimal(y) * s), float(e / (1 + e) ** 2)


@pytest.mark.parametrize("y", [-1.0, 1.0])
@pytest.mark.parametrize("q", [0.0, 1e-300, 1e-8, 0.3, 5.0, 36.0, 40.0, 100.0, 700.0, 745.0, 1e4])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("array", ARRAYS)
def test_logistic_loss_is_exact_from_the_centre_to_both_tails(q: float, y: float, sign: float, array: object) -> None:
    """No overflow at |q| = 1e4, and the tail exp(-100) kept: it is all that drives a separated data set."""
    loss, qs, ys = LogisticLoss(), array([sign * q]), array([y])  # type: ignore[operator]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        got = [float(f(qs, ys)[0]) for f in (loss.value, loss.slope, loss.bend)]
    # below the smallest normal number 2.2e-308 digits are lost whatever one does
    np.testing.assert_allclose(got, exact_logistic(sign * q, y), rtol=1e-13, atol=1e-307)


@pytest.mark.parametrize("array", ARRAYS)
def test_square_loss_has_neither_a_half_nor_a_mean(array: object) -> None:
    loss, q, y = SquareLoss(), array([3.0, -1.0]), array([1.0, 1.0])  # type: ignore[operator]
    assert loss.value(q, y).tolist() == [4.0, 4.0]
    assert loss.slope(q, y).tolist() == [4.0, -4.0]
    assert loss.bend(q, y).tolist() == [2.0, 2.0]


@given(q=st.floats(-30, 30), y=st.sampled_from([-1.0, 1.0]), loss=st.sampled_from(["square", "logistic"]))
def test_slopes_and_bends_are_derivatives(q: float, y: float, loss: str) -> None:
    l, h, Y = make_loss(loss), 1e-4, np.array([y])

    def at(x: float) -> np.ndarray:
        return np.array([x])

    wanted = (l.value(at(q + h), Y) - l.value(at(q - h), Y)) / (2 * h)
    np.testing.assert_allclose(l.slope(at(q), Y), wanted, rtol=1e-7, atol=1e-9)
    wanted = (l.slope(at(q + h), Y) - l.slope(at(q - h), Y)) / (2 * h)
    np.testing.assert_allclose(l.bend(at(q), Y), wanted, rtol=1e-7, atol=1e-9)


def test_losses_by_name() -> None:
    assert make_loss("square") == SquareLoss()
    own = LogisticLoss()
    assert make_loss(own) is own
    with pytest.raises(UnknownName, match=r"unknown loss 'sqaure'. Did you mean 'square'\? Known: logistic, square"):
        make_loss("sqaure")


# -- objectives --------------------------------------------------------------------------------------

NET = FeedForward((3, 4, 2), "relu", p=2)


def data(n: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 3)), rng.normal(size=(n, 2)), rng.normal(size=NET.n_params)


def test_the_mean_is_the_sum_over_n() -> None:
    """Over samples, not over outputs: time is rescaled by n = 5, not by 10."""
    X, y, w = data()
    total, mean = Objective(NET, X, y), Objective(NET, X, y, reduction="mean")
    assert (total.scale, mean.scale) == (1.0, 0.2)
    for method in ("value", "gradient", "hessian"):
        np.testing.assert_allclose(getattr(total, method)(w), 5 * getattr(mean, method)(w), rtol=1e-14)
    np.testing.assert_allclose(total.hessian_product(w, w), 5 * mean.hessian_product(w, w), rtol=1e-14)
    out = NET.forward(w, X)
    np.testing.assert_allclose(total.pull(out), 5 * mean.pull(out), rtol=1e-14)
    np.testing.assert_allclose(total.value(w), ((out - y) ** 2).sum(), rtol=1e-14)


def test_pull_at_zero_output_is_twice_the_labels() -> None:
    """ytilde = -l'(0, y) = 2 y for the square loss, y / 2 for the logistic one."""
    X, y, _ = data()
    np.testing.assert_array_equal(Objective(NET, X, y).pull(0 * y), 2 * y)
    signs = np.sign(y)
    np.testing.assert_array_equal(Objective(NET, X, signs, loss="logistic").pull(0 * y), signs / 2)


@pytest.mark.parametrize("loss", ["square", "logistic"])
def test_descent_lowers_the_loss_at_tiny_and_at_huge_weights(loss: str) -> None:
    """Signs and scales: weights of 1e-6 and outputs of 1e4 both stay finite, and -grad points downhill."""
    X, y, w = data()
    objective = Objective(NET, X, np.sign(y), loss=loss)
    for size in (1e-6, 1e-2, 1.0, 10.0):
        value, g = objective.value_and_gradient(size * w)
        slope = float(g @ g)
        assert math.isfinite(value)
        assert slope > 0
        step = 1e-3 * size / math.sqrt(slope)
        # by the derivative, since at 1e-6 the decrease itself is below the rounding of the loss
        assert float(objective.gradient(size * w - step * g) @ g) > 0.5 * slope
        assert np.isfinite(objective.hessian(size * w)).all()


def test_labels_of_shape_n_and_n_by_1_are_the_same_data() -> None:
    net = FeedForward((3, 2, 1), "relu")
    X, y, _ = data()
    w = np.arange(8.0)
    flat, column = Objective(net, X, y[:, 0]), Objective(net, X, y[:, :1])
    assert flat.y.shape == (5, 1)
    # were the labels left flat, (5, 1) - (5,) would broadcast to 25 residuals
    assert flat.value(w) == column.value(w)


def test_one_sample_and_one_weight() -> None:
    objective = Objective(FeedForward((1, 1), "linear"), [[2.0]], [3.0])
    w = np.array([5.0])
    assert objective.value(w) == 49.0
    assert objective.gradient(w).tolist() == [28.0]
    np.testing.assert_allclose(objective.hessian(w), [[8.0]], rtol=1e-15)
    assert objective.hessian_product(w, w).tolist() == [40.0]


def test_with_model_keeps_data_loss_and_reduction() -> None:
    X, y, w = data()
    wide = FeedForward((3, 6, 2), "relu", p=2)
    objective = Objective(NET, X, np.sign(y), loss="logistic", reduction="mean")
    other = objective.with_model(wide)
    assert other.model is wide
    assert (other.reduction, other.loss.name) == ("mean", "logistic")
    np.testing.assert_array_equal(other.with_model(NET).gradient(w), objective.gradient(w))
    twin = objective.to_torch().with_model(wide)
    assert isinstance(twin.X, torch.Tensor)
    v = np.random.default_rng(0).normal(size=wide.n_params)
    np.testing.assert_allclose(twin.gradient(torch.tensor(v)), other.gradient(v), rtol=1e-12)


def test_torch_twin() -> None:
    X, y, w = data()
    X.setflags(write=False)  # memory-mapped and cached data are often read-only
    objective = Objective(NET, X, y)
    twin = objective.to_torch()
    assert twin.X.dtype == torch.float64
    twin.X[0] = 0.0
    assert objective.X[0].any(), "the twin must not share memory with the user's data"
    assert isinstance(objective.X, np.ndarray)
    single = objective.to_torch(dtype="float32")
    g = single.gradient(torch.tensor(w, dtype=torch.float32))
    assert g.dtype == torch.float32
    np.testing.assert_allclose(g.numpy(), objective.gradient(w), rtol=1e-3, atol=1e-3)
    assert single.to_torch(dtype="float64").X.dtype == torch.float64
    with pytest.raises(UnknownName, match=r"unknown dtype 'float46'. Did you mean 'float64'"):
        objective.to_torch(dtype="float46")
    with pytest.raises(InvalidInput, match="device = 'cudaa' cannot be used here"):
        objective.to_torch(device="cudaa")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said() -> None:
    X, y, _ = data()
    with pytest.raises(InvalidInput, match=r"device = 'cuda' cannot be used here .*'cpu' always can"):
        Objective(NET, X, y).to_torch(device="cuda")


def test_the_description_names_model_data_and_convention() -> None:
    X, y, _ = data()
    assert repr(Objective(NET, X, y, reduction="mean")) == "Objective(3-4-2 relu^2 net, n=5, mean of square)"


GOOD_X, GOOD_Y, _ = data()


def replaced(x: np.ndarray, index: tuple[int, int], value: float) -> np.ndarray:
    out = x.copy()
    out[index] = value
    return out


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        (
            GOOD_X.T,
            GOOD_Y,
            {},
            r"X has shape \(3, 5\); 3-4-2 relu\^2 net takes 3 inputs: X is \(n_samples, n_features\)",
        ),
        (GOOD_X[0], GOOD_Y[0], {}, r"X has 1 dimension\(s\), shape \(3,\); it must have 2"),
        (GOOD_X, GOOD_Y[:4], {}, r"y has shape \(4, 2\) for X of shape \(5, 3\); 3-4-2 relu\^2 net needs \(5, 2\)"),
        (GOOD_X, GOOD_Y[:, 0], {}, r"y has shape \(5,\) .* needs \(5, 2\)"),
        (GOOD_X, GOOD_Y.T, {}, r"needs \(5, 2\)"),
        (GOOD_X[:0], GOOD_Y[:0], {}, r"X is empty \(shape \(0, 3\)\)"),
        (replaced(GOOD_X, (2, 1), np.nan), GOOD_Y, {}, r"X holds nan at index \(2, 1\)"),
        (GOOD_X, replaced(GOOD_Y, (4, 0), np.inf), {}, r"y holds inf at index \(4, 0\)"),
        ([["a", "b", "c"]], [[0.0, 1.0]], {}, "X is not numeric"),
        (GOOD_X, GOOD_Y, {"reduction": "average"}, "reduction = 'average'; choose 'sum' or 'mean'"),
        (GOOD_X, GOOD_Y, {"loss": "logistic"}, r"with the logistic loss; labels must be -1 or \+1: recode"),
        (GOOD_X, np.ones((5, 2)), {"loss": "logistic"}, r"every label is \+1; .* needs both classes"),
        (GOOD_X, -np.ones((5, 2)), {"loss": "logistic"}, r"every label is -1; .* needs both classes"),
        (GOOD_X, (GOOD_Y > 0) * 1.0, {"loss": "logistic"}, "label 0 with the logistic loss"),
    ],
)
def test_bad_data_are_refused_with_the_reason(X: object, y: object, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Objective(NET, X, y, **options)  # type: ignore[arg-type]


def test_weights_of_the_wrong_length_do_not_reach_the_arithmetic() -> None:
    objective = Objective(DiagonalLinear(2, 2), np.eye(2), [1.0, 2.0])
    with pytest.raises(InvalidInput, match=r"shape \(3,\); the last axis must hold the 4 weights of diagonal"):
        objective.gradient(np.ones(3))
