"""A user's torch function as a model: equal to the built-in family that it copies, or refused with a remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import oracles
import pytest
import torch

from gfsim.errors import InvalidInput
from gfsim.models.custom import TorchModel
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective

WIDTHS = (3, 4, 3, 2)


def net(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    return oracles.torch_output(WIDTHS, 2, 0.3, w, X)


def linear(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    return X @ w


@pytest.mark.parametrize(("loss", "n"), [("square", 1), ("square", 7), ("logistic", 7)])
def test_a_copied_network_is_the_network(loss: str, n: int) -> None:
    rng = np.random.default_rng(0)
    built_in = FeedForward(WIDTHS, "leaky", p=2, alpha=0.3)
    own = TorchModel(net, built_in.n_params, 3, 2, degree=7)
    assert own.degree == built_in.degree
    X, y = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
    y = np.sign(y) if loss == "logistic" else y
    a, b = Objective(built_in, X, y, loss=loss), Objective(own, X, y, loss=loss)
    w, v = rng.normal(size=(2, 4, built_in.n_params)) / 2
    for wanted, got in (
        (a.value(w), b.value(w)),
        (a.gradient(w), b.gradient(w)),
        (a.hessian(w[0]), b.hessian(w[0])),
        (a.hessian_product(w, v), b.hessian_product(w, v)),
        (built_in.jacobian(w[0], X), own.jacobian(w[0], X)),
    ):
        assert isinstance(got, np.ndarray)
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12 * abs(np.asarray(wanted)).max())


def test_both_directions_of_the_jacobian() -> None:
    """More outputs than weights, and fewer: forward and reverse mode are two pieces of code."""
    rng = np.random.default_rng(1)
    for n in (2, 9):
        X, w = rng.normal(size=(n, 4)), rng.normal(size=4)
        model = TorchModel(lambda w, X: (X @ w) ** 2, 4, 4, degree=2)
        np.testing.assert_allclose(model.jacobian(w, X), (2 * (X @ w)[:, None] * X)[:, None], rtol=1e-13)


def test_flat_and_column_outputs_are_the_same_model() -> None:
    rng = np.random.default_rng(2)
    X, w = rng.normal(size=(5, 3)), rng.normal(size=3)
    flat = TorchModel(linear, 3, 3, degree=1)
    column = TorchModel(lambda w, X: X @ w[:, None], 3, 3, degree=1)
    assert flat.forward(w, X).shape == (5, 1)
    np.testing.assert_array_equal(flat.forward(w, X), column.forward(w, X))


def test_read_only_strided_and_integer_arrays_are_taken() -> None:
    """torch warns about the first and refuses the second; neither is the user's business."""
    model = TorchModel(linear, 3, 3, degree=1)
    w = np.arange(3.0)
    w.setflags(write=False)
    X = np.arange(12.0).reshape(3, 4).T[::-1]
    np.testing.assert_array_equal(model.forward(w, X)[:, 0], X @ w)
    np.testing.assert_array_equal(model.forward(np.arange(3), X)[:, 0], X @ w)
    with pytest.raises(InvalidInput, match="got list"):
        model.forward(w, [[1.0, 2.0, 3.0]])


def test_the_same_function_always_meets_the_same_check() -> None:
    """Without a generator of its own the check draws from a fresh one: no global state is read or moved."""
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002
    torch_before = torch.random.get_rng_state()
    seen: list[list[float]] = []

    def spy(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        if not seen[-1]:  # the first call is on plain tensors
            seen[-1].extend(w.tolist())
        return X @ w

    for rng in (None, None, np.random.default_rng(5)):
        seen.append([])
        TorchModel(spy, 3, 3, degree=1, rng=rng)
    assert seen[0] == seen[1] != seen[2]
    assert str(np.random.get_state(legacy=False)) == before  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_before)


# -- the declared degree -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "degree"),
    [
        (lambda w, X: X @ w, 1),
        (lambda w, X: (X @ w) ** 2, 2),
        (lambda w, X: (X @ w) ** 40, 40),
        (lambda w, X: (X @ w) * torch.linalg.vector_norm(w) ** 0.5, 1.5),
        (lambda w, X: torch.relu(X @ w) ** 3, 3),
        (lambda w, X: torch.relu(X @ w) * torch.relu(-X @ w) + X @ w, 1),
        (lambda w, X: 1e-9 * (X @ w), 1),
        (lambda w, X: 1e9 * (X @ w) ** 3, 3),
    ],
)
def test_true_degrees_pass(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], degree: float) -> None:
    assert TorchModel(function, 3, 3, degree=degree).degree == degree


@pytest.mark.parametrize(
    ("function", "declared", "message"),
    [
        (lambda w, X: (X @ w) ** 3, 2, "declared with degree = 2, .* its values measure degree 3: pass degree=3"),
        (lambda w, X: X @ w, 1.01, "declared with degree = 1.01, .* measure degree 1: pass degree=1"),
        (
            lambda w, X: torch.tanh(X @ w),
            1,
            r"its values measure degrees from .* no single degree fits: pass degree=None",
        ),
        # a term of lower degree, a millionth of the value: only small c shows it
        (lambda w, X: (X @ w) ** 3 + 1e-6 * (X @ w), 3, r"is not c\^3 H\(x; w\) at c = 0.001"),
        (lambda w, X: X @ w + 0.25, 1, r"\|H\| = 0.25 at w = 0, where every homogeneous function vanishes"),
        (lambda w, X: 0.0 * (X @ w), 1, "is 0 at all 6 random weight vectors"),
        (lambda w, X: (X @ w) * torch.cos(torch.linalg.vector_norm(w)), 1, "no single degree fits"),
    ],
)
def test_false_degrees_are_refused_with_the_measured_one(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], declared: float, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        TorchModel(function, 3, 3, degree=declared)


def test_one_output_of_another_degree_is_found_among_larger_ones() -> None:
    def mixed(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        return torch.stack([(X @ w) ** 2, 1e-3 * (X @ w)], dim=-1)

    with pytest.raises(InvalidInput, match=r"degree = 2, but H\(x; c w\) is not c\^2 H\(x; w\)"):
        TorchModel(mixed, 3, 3, 2, degree=2)


@pytest.mark.parametrize("degree", [0, -1, math.nan, math.inf, "2", True, 1j])
def test_impossible_degrees_are_refused(degree: object) -> None:
    with pytest.raises(InvalidInput, match="it must be a finite number > 0, or None"):
        TorchModel(linear, 3, 3, degree=degree)  # type: ignore[arg-type]


class ScaledBackward(torch.autograd.Function):
    """The identity, whose derivative claims to be 3; forward-mode and vmap rules given, so only values betray it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: torch.Tensor) -> torch.Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return 3.0 * g

    @staticmethod
    def jvp(ctx: object, t: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return 3.0 * t


@pytest.mark.parametrize("degree", [None, 1])
@pytest.mark.parametrize(
    "function",
    [lambda w, X: X @ w + X @ w.detach(), lambda w, X: ScaledBackward.apply(X @ w)],
    ids=["detached", "own backward"],
)
def test_a_gradient_that_is_not_that_of_the_values_is_refused(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], degree: float | None
) -> None:
    """Nothing else would notice: the flow would follow a field that descends no loss."""
    with pytest.raises(InvalidInput, match=r"by torch.func is .* but differences of its values give"):
        TorchModel(function, 3, 3, degree=degree)


def test_eulers_identity_tests_the_radial_derivative() -> None:
    """Where values are homogeneous and kinked at most of the drawn points, differences alone could excuse a wrong
    gradient; Euler's identity is tested on the same Jacobians without differences."""
    from gfsim.models import custom_check

    model = TorchModel(linear, 3, 3, degree=1)
    w, X = torch.ones(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    custom_check._check_euler(model, 1.0, [w], [model.forward(w, X)], [model.jacobian(w, X)])
    with pytest.raises(InvalidInput, match=r"Euler's identity <w, grad H> = D H reads 2 = 1 with"):
        custom_check._check_euler(model, 1.0, [w], [model.forward(w, X)], [2 * model.jacobian(w, X)])


# -- outputs and code that cannot be used ------------------------------------------------------------


def in_place(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(len(X), dtype=w.dtype)
    for j in range(3):
        out += X[:, j] * w[j]
    return out


def with_item(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    return X @ w * w.norm().item()


def with_branch(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    return X @ w if w.sum() > 0 else 2 * (X @ w)


def through_numpy(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(X.numpy() @ w.numpy())


@pytest.mark.parametrize("function", [in_place, with_item, with_branch, through_numpy])
def test_code_that_torch_func_cannot_transform_is_explained(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    with pytest.raises(InvalidInput) as caught:
        TorchModel(function, 3, 3, degree=1)
    text = str(caught.value)
    assert f"torch function {function.__name__} gives values, but torch.func's" in text
    assert "no in-place operation" in text
    assert ".item()" in text
    assert "Error" in text, "torch's own words are kept"
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("function", "outputs", "message"),
    [
        (
            lambda w, X: (X @ w).sum(),
            1,
            r"returned shape \(\) for X of shape \(5, 3\); it must return \(5,\) or \(5, 1\)",
        ),
        (lambda w, X: X * w, 1, r"returned shape \(5, 3\)"),
        (lambda w, X: X @ w, 2, r"returned shape \(5,\) .* it must return \(5, 2\)"),
        (
            lambda w, X: (X @ w[:, None]).squeeze(),
            1,
            r"returned shape \(\) for X of shape \(1, 3\).*a bare .squeeze\(\)",
        ),
        (
            lambda w, X: (X @ w).float(),
            1,
            r"returned torch.float32 for weights of torch.float64; keep the weights' type",
        ),
        (lambda w, X: X @ w > 0, 1, "returned torch.bool"),
        (lambda w, X: len(w) / len(X), 1, "returned a float; it must return a torch tensor"),
        (lambda w, X: X @ w.reshape(2, 2), 1, r"failed on w of shape \(3,\) and X of shape \(5, 3\), .*RuntimeError"),
        (lambda w, X: torch.log(X @ w), 1, "returned nan at weights of norm .*a logarithm"),
        (
            lambda w, X: X @ (w / w.norm()),
            1,
            "returned nan at weights of norm 0; it must be finite at every w, 0 included",
        ),
        (lambda w, X: X @ w - (X @ w).mean(), 1, "gives a sample another value alone than among others"),
        (lambda w, X: X @ w + torch.rand(1, dtype=w.dtype), 1, "it must be deterministic"),
    ],
)
def test_outputs_that_cannot_be_used_are_refused_with_the_reason(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], outputs: int, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        TorchModel(function, 3, 3, outputs, degree=1, name="mine")


def test_a_function_defined_on_some_inputs_only_is_checked_on_those() -> None:
    def roots(w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(X) @ w

    with pytest.raises(InvalidInput, match=r"\(inputs=... sets the inputs of this check"):
        TorchModel(roots, 3, 3, degree=1)
    assert TorchModel(roots, 3, 3, degree=1, inputs=[[1.0, 2.0, 3.0]]).degree == 1
    with pytest.raises(InvalidInput, match=re.escape("inputs has shape (1, 2); it must be (m, 3)")):
        TorchModel(roots, 3, 3, degree=1, inputs=[[1.0, 2.0]])


def test_sizes_and_functions_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(InvalidInput, match="is not callable"):
        TorchModel("relu", 3, 3)  # type: ignore[arg-type]
    for sizes in ((0, 3, 1), (3, 0, 1), (3, 3, 0), (3.0, 3, 1)):
        with pytest.raises(InvalidInput, match="it must be a whole number >= 1"):
            TorchModel(linear, *sizes)


def test_names() -> None:
    assert TorchModel(linear, 3, 3).name == "torch function linear"
    assert TorchModel(linear, 3, 3, name="mine").name == "mine"
    assert repr(TorchModel(linear, 3, 3, degree=1)) == "TorchModel('torch function linear', 3, 3, 1, degree=1.0)"
