"""Models and objectives against independent references, and the identities that the theory rests on.

The references in ``oracles`` are loops over samples and neurons.  Sizes are odd on purpose: one
sample, one neuron, one layer, more outputs than samples, so that an axis mistaken for another, or one
that broadcasts by luck, shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.models.activation import HomogeneousActivation, make_activation
from gfsim.models.base import Model, require_homogeneous
from gfsim.models.custom import TorchModel
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, MatrixFactorisation, deep_linear
from gfsim.objective import Objective

ALPHAS = (0.0, 1.0, -1.0, 0.3, -0.5, 1.7)
ACTIVATIONS: dict[str, tuple[object, Callable[[oracles.Jet], oracles.Jet]]] = {
    f"p={p} alpha={alpha}": (HomogeneousActivation(p, alpha), oracles.homogeneous(p, alpha))
    for p in (1, 2, 3)
    for alpha in ALPHAS
}
ACTIVATIONS["tanh"] = (make_activation("tanh"), oracles.tanh)
ACTIVATIONS["gelu"] = (make_activation("gelu"), oracles.gelu)


def close(got: object, wanted: object, *, rtol: float = 1e-11) -> None:
    """Equal to ``rtol`` of the largest entry: sums of terms of mixed sign lose relative accuracy entrywise."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=rtol * max(float(np.abs(wanted).max(initial=0.0)), 1e-300))


def sweep() -> list[tuple[str, str, str, int, tuple[int, ...]]]:
    """Every activation with every loss and reduction, over n = 1..20, depths 1..4, widths 1..7, 1..3 outputs."""
    rng = np.random.default_rng(7)
    cases = []
    samples = itertools.cycle(range(1, 21))
    depths = itertools.cycle((1, 2, 3, 4, 2, 3, 4))
    for name in ACTIVATIONS:
        for loss, reduction in itertools.product(("square", "logistic"), ("sum", "mean")):
            n, depth = next(samples), next(depths)
            widths = [*(int(k) for k in rng.integers(1, 8, size=depth)), int(rng.integers(1, 4))]
            if loss == "logistic" and n * widths[-1] == 1:
                widths[-1] = 2  # two classes need two labels
            cases.append((name, loss, reduction, n, tuple(widths)))
    return cases


SWEEP = sweep()


def test_the_sweep_covers_every_size() -> None:
    assert {case[3] for case in SWEEP} == set(range(1, 21))
    assert {len(case[4]) - 1 for case in SWEEP} == {1, 2, 3, 4}
    assert {k for case in SWEEP for k in case[4]} == set(range(1, 8))
    assert {case[4][-1] for case in SWEEP} == {1, 2, 3}


def labels(rng: np.random.Generator, loss: str, shape: tuple[int, ...]) -> np.ndarray:
    if loss == "square":
        return rng.normal(size=shape)
    y = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    y.flat[0], y.flat[-1] = -1.0, 1.0
    return y


def away_from_kinks(rng: np.random.Generator, net: FeedForward, X: np.ndarray, margin: float) -> np.ndarray:
    """Random weights with no preactivation within ``margin`` of 0 (0 itself, behind dead ReLUs, is allowed).

    Every layer is scaled to preactivations of at most 2, so that four cubed layers neither overflow
    the reference nor die out.
    """
    for _ in range(10_000):
        matrices, h, near = [], X, np.inf
        for shape in net.shapes:
            W = rng.normal(size=shape)
            z = h @ W.T
            largest = abs(z).max()
            factor = 2.0 / largest if largest > 0 else 1.0
            matrices.append(factor * W)
            z = factor * z
            if len(matrices) < net.depth:
                near = min([near, *abs(z[z != 0])])
            h = net.activation.value(z)
        if near > margin:
            return net.pack(matrices)
    raise AssertionError("no point away from the kinks was drawn")


@pytest.mark.parametrize(
    ("name", "loss", "reduction", "n", "widths"), SWEEP, ids=lambda v: str(v).replace(" ", "") if v else None
)
def test_loss_gradient_and_hessian_are_those_of_the_definition(
    name: str, loss: str, reduction: str, n: int, widths: tuple[int, ...]
) -> None:
    """Would catch a wrong branch, power, factor p, transposed matrix, missing layer, or sum/mean mix-up."""
    activation, reference = ACTIVATIONS[name]
    net = FeedForward(widths, activation)  # type: ignore[arg-type]
    rng = np.random.default_rng([n, *widths])
    X, y = rng.normal(size=(n, widths[0])), labels(rng, loss, (n, widths[-1]))
    # At a kink the two programs may choose different one-sided derivatives; rounding must not decide.
    w = away_from_kinks(rng, net, X, 1e-6)
    objective = Objective(net, X, y, loss=loss, reduction=reduction)  # type: ignore[arg-type]
    wanted, margin = oracles.network_loss(widths, reference, w, X, y, loss, reduction)
    assert margin > 1e-7
    close(objective.value(w), wanted.v)
    value, gradient = objective.value_and_gradient(w)
    close(value, wanted.v)
    close(gradient, wanted.g)
    close(objective.gradient(w), wanted.g)
    close(objective.hessian(w), wanted.h)
    v = rng.normal(size=w.shape)
    close(objective.hessian_product(w, v), wanted.h @ v)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_first_derivatives_are_those_of_autograd(p: int, alpha: float) -> None:
    """A second, differently built reference: 60 samples, a batch of weights, three outputs."""
    widths = (5, 7, 3, 6, 3)
    net = FeedForward(widths, HomogeneousActivation(p, alpha))
    rng = np.random.default_rng(p)
    X, C = rng.normal(size=(60, 5)), rng.normal(size=(60, 3))
    for _ in range(3):
        w = away_from_kinks(rng, net, X, 1e-9)
        leaf = torch.tensor(w, requires_grad=True)
        out = oracles.torch_output(widths, p, alpha, leaf, torch.tensor(X))
        close(net.forward(w, X), out.detach())
        (g,) = torch.autograd.grad((out * torch.tensor(C)).sum(), leaf)
        close(net.pullback(w, X, C), g)
        J = torch.autograd.functional.jacobian(
            lambda a: oracles.torch_output(widths, p, alpha, a, torch.tensor(X[:2])), leaf
        )
        close(net.jacobian(w, X[:2]), J)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_limits_of_difference_quotients_away_from_kinks(name: str) -> None:
    """The only test here that knows no calculus at all.

    A central difference across a kink measures the mean of two slopes (p = 1), or of two curvatures
    (p = 2), which is not the derivative at the point.  So points are drawn until every preactivation is
    further from 0 than the difference can move it.
    """
    step, widths = 1e-5, (3, 4, 3, 2)
    net = FeedForward(widths, ACTIVATIONS[name][0])  # type: ignore[arg-type]
    rng = np.random.default_rng(11)
    X, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    w = away_from_kinks(rng, net, X, 1e3 * step)
    objective = Objective(net, X, y)
    close(objective.gradient(w), oracles.central_difference(objective.value, w, step), rtol=1e-7)
    close(objective.hessian(w), oracles.central_difference(objective.gradient, w, step), rtol=1e-7)
    close(net.jacobian(w, X), oracles.central_difference(lambda a: net.forward(a, X), w, step), rtol=1e-7)


# -- every family ------------------------------------------------------------------------------------


def torch_net(widths: tuple[int, ...], p: int, alpha: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda w, X: oracles.torch_output(widths, p, alpha, w, X)


FAMILIES: dict[str, Model] = {
    "relu": FeedForward((4, 5, 3, 2), "relu"),
    "leaky^2": FeedForward((4, 5, 3, 1), "leaky", p=2),
    "square": FeedForward((3, 4, 1), "square"),
    "relu^3, one neuron": FeedForward((1, 1, 1, 1), "relu", p=3),
    "abs": FeedForward((3, 2, 2), "leaky", alpha=-1.0),
    "depth 1": FeedForward((4, 3), "relu"),
    "depth 1, one weight": FeedForward((1, 1), "tanh"),
    "deep linear": deep_linear((3, 4, 2, 5, 2)),
    "tanh": FeedForward((3, 4, 2), "tanh"),
    "gelu": FeedForward((3, 2, 3, 1), "gelu"),
    "diagonal": DiagonalLinear(4, 3),
    "diagonal, depth 1": DiagonalLinear(3, 1),
    "diagonal, signed": DiagonalLinear(3, 2, signed=True),
    "diagonal, tied": DiagonalLinear(4, 3, tied=True),
    "diagonal, tied, depth 1": DiagonalLinear(4, 1, tied=True),
    "diagonal, tied, signed": DiagonalLinear(3, 2, tied=True, signed=True),
    "diagonal, tied, signed, depth 1": DiagonalLinear(2, 1, tied=True, signed=True),
    "diagonal, one input": DiagonalLinear(1, 4, signed=True),
    "factorisation": MatrixFactorisation(2, 3, 2),
    "factorisation, rank 1": MatrixFactorisation(1, 3, 1),
    "factorisation, wide": MatrixFactorisation(2, 2, 5),
    "factorisation, symmetric": MatrixFactorisation(3, 3, 2, symmetric=True),
    "own function": TorchModel(torch_net((3, 4, 2), 2, 0.0), 20, 3, 2, degree=3),
    "own function, no degree": TorchModel(lambda w, X: torch.tanh(X @ w), 3, 3),
}
HOMOGENEOUS = [name for name, model in FAMILIES.items() if model.degree is not None]


@dataclass
class Draw:
    """A model with weights, tangent, inputs and output weights."""

    name: str
    n: int
    model: Model = field(init=False)
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.model = FAMILIES[self.name]
        self.rng = np.random.default_rng([self.n, self.model.n_params])
        self.X = self.rng.normal(size=(self.n, self.model.n_inputs))

    def weights(self, *batch: int) -> np.ndarray:
        return self.rng.normal(size=(*batch, self.model.n_params))

    def outputs(self, *batch: int) -> np.ndarray:
        return self.rng.normal(size=(*batch, self.n, self.model.n_outputs))


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_six_methods_of_a_model_agree_with_each_other(name: str, n: int) -> None:
    d = Draw(name, n)
    m, X, w, v, C, Q = d.model, d.X, d.weights(), d.weights(), d.outputs(), d.outputs()
    P, k = m.n_params, m.n_outputs
    out, J = m.forward(w, X), m.jacobian(w, X)
    assert out.shape == (n, k)
    assert J.shape == (n, k, P)
    close(m.pullback(w, X, C), np.einsum("nk,nkp->p", C, J))
    bent, full = m.curvature(w, X, C), m.curvature(w, X, C, Q)
    assert bent.shape == full.shape == (P, P)
    close(bent, bent.T, rtol=1e-13)
    close(full, full.T, rtol=1e-13)
    close(full - bent, np.einsum("nk,nkp,nkq->pq", Q, J, J), rtol=1e-11)
    close(m.curvature(w, X, C, abs(Q)) - bent, np.einsum("nk,nkp,nkq->pq", abs(Q), J, J), rtol=1e-11)
    close(m.curvature_product(w, X, C, None, v), bent @ v)
    close(m.curvature_product(w, X, C, Q, v), full @ v)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_is_a_loop(name: str, n: int) -> None:
    """Weights batched with shared or batched C, Q and v: every combination has the batch's shape.

    At depth 1 the pullback does not depend on the weights; it must have their batch axes all the same.
    """
    d = Draw(name, n)
    m, X, batch = d.model, d.X, (2, 3)
    w, cells = d.weights(*batch), list(np.ndindex(*batch))

    def looped(f: Callable[..., np.ndarray]) -> np.ndarray:
        rows = [f(*cell) for cell in cells]
        return np.stack(rows).reshape(*batch, *rows[0].shape)

    close(m.forward(w, X), looped(lambda *c: m.forward(w[c], X)), rtol=1e-13)
    close(m.conserved(w), looped(lambda *c: m.conserved(w[c])), rtol=1e-13)
    for C, Q, v in itertools.product(
        (d.outputs(), d.outputs(*batch)), (None, d.outputs(), d.outputs(*batch)), (d.weights(), d.weights(*batch))
    ):

        def at(x: np.ndarray | None, cell: tuple[int, ...], own: int) -> np.ndarray | None:
            return x if x is None or x.ndim == own else x[cell]

        close(m.pullback(w, X, C), looped(lambda *c: m.pullback(w[c], X, at(C, c, 2))), rtol=1e-13)  # noqa: B023
        close(
            m.curvature_product(w, X, C, Q, v),
            looped(lambda *c: m.curvature_product(w[c], X, at(C, c, 2), at(Q, c, 2), at(v, c, 1))),  # noqa: B023
            rtol=1e-13,
        )
    # one weight vector, many tangents: how a Hessian is applied to a basis
    v, C, Q = d.weights(*batch), d.outputs(), d.outputs()
    close(
        m.curvature_product(w[0, 0], X, C, Q, v),
        looped(lambda *c: m.curvature_product(w[0, 0], X, C, Q, v[c])),
        rtol=1e-13,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_give_the_numbers_of_arrays(name: str) -> None:
    """In float64 to rounding: a slope mask in torch's default float32 is off by 1e-8."""
    d = Draw(name, 5)
    m, w, v, C, Q = d.model, d.weights(3), d.weights(3), d.outputs(3), d.outputs(3)
    X, W, V, CC, QQ = map(torch.tensor, (d.X, w, v, C, Q))
    for got, wanted in (
        (m.forward(W, X), m.forward(w, d.X)),
        (m.pullback(W, X, CC), m.pullback(w, d.X, C)),
        (m.jacobian(W[0], X), m.jacobian(w[0], d.X)),
        (m.curvature(W[0], X, CC[0]), m.curvature(w[0], d.X, C[0])),
        (m.curvature(W[0], X, CC[0], QQ[0]), m.curvature(w[0], d.X, C[0], Q[0])),
        (m.curvature_product(W, X, CC, None, V), m.curvature_product(w, d.X, C, None, v)),
        (m.curvature_product(W, X, CC, QQ, V), m.curvature_product(w, d.X, C, Q, v)),
        (m.conserved(W), m.conserved(w)),
    ):
        assert isinstance(got, torch.Tensor)
        assert got.dtype == torch.float64
        assert isinstance(wanted, np.ndarray)
        close(got, wanted, rtol=1e-13)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_tensors_give_the_numbers_of_arrays_for_every_activation(p: int, alpha: float) -> None:
    net = FeedForward((3, 4, 2, 1), HomogeneousActivation(p, alpha))
    rng = np.random.default_rng(0)
    X, y, w, v = (
        rng.normal(size=(5, 3)),
        rng.normal(size=5),
        rng.normal(size=net.n_params),
        rng.normal(size=net.n_params),
    )
    objective = Objective(net, X, y, reduction="mean")
    twin, W = objective.to_torch(), torch.tensor(w)
    close(twin.gradient(W), objective.gradient(w), rtol=1e-13)
    close(twin.hessian(W), objective.hessian(w), rtol=1e-13)
    close(twin.hessian_product(W, torch.tensor(v)), objective.hessian_product(w, v), rtol=1e-13)


# -- homogeneity -------------------------------------------------------------------------------------

scales = st.one_of(st.just(0.0), st.floats(1e-3, 10.0))
seeds = st.integers(0, 2**32 - 1)


@given(name=st.sampled_from(HOMOGENEOUS), seed=seeds, c=scales)
def test_homogeneous_models_satisfy_eulers_identity_and_lose_a_degree_by_derivative(
    name: str, seed: int, c: float
) -> None:
    m = FAMILIES[name]
    D = require_homogeneous(m, "the test")
    rng = np.random.default_rng(seed)
    w, X = rng.normal(size=m.n_params), rng.normal(size=(3, m.n_inputs))
    C = rng.normal(size=(3, m.n_outputs))
    out, g, H = m.forward(w, X), m.pullback(w, X, C), m.curvature(w, X, C)
    # rounding is relative to the terms, not to their sum
    size = (abs(m.jacobian(w, X)) @ abs(w)).max()
    assert abs(m.forward(c * w, X) - c**D * out).max() <= 1e-12 * c**D * size
    assert abs(m.jacobian(w, X) @ w - D * out).max() <= 1e-12 * size
    if c > 0:
        close(m.pullback(c * w, X, C), c ** (D - 1) * g, rtol=1e-9)
        close(m.curvature(c * w, X, C), c ** (D - 2) * H, rtol=1e-9)
    # Euler once more: grad has degree D - 1, so Hess w = (D - 1) grad
    assert abs(H @ w - (D - 1) * g).max() <= 1e-12 * (abs(H) @ abs(w) + abs(D * g)).max()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_degree_of_a_network(p: int, depth: int) -> None:
    wanted = {1: [1, 2, 3, 4], 2: [1, 3, 7, 15], 3: [1, 4, 13, 40]}[p][depth - 1]
    net = FeedForward((2,) * (depth + 1), "relu", p=p)
    assert net.degree == wanted
    # measured, too: the formula and the code could share a mistake
    rng = np.random.default_rng(0)
    w, X = abs(rng.normal(size=net.n_params)), abs(rng.normal(size=(1, 2)))
    ratio = net.forward(1.5 * w, X) / net.forward(w, X)
    np.testing.assert_allclose(np.log(ratio) / np.log(1.5), wanted, rtol=1e-12)


def test_degrees_of_the_other_families() -> None:
    assert deep_linear((3, 4, 5, 1)).degree == 3
    assert [DiagonalLinear(2, depth).degree for depth in (1, 2, 5)] == [1, 2, 5]
    assert MatrixFactorisation(2, 3, 4).degree == 2
    assert FeedForward((3, 2), "tanh").degree == 1  # no hidden layer, no tanh
    assert FeedForward((3, 2, 1), "tanh").degree is None


def test_what_needs_a_degree_refuses_a_model_without_one() -> None:
    with pytest.raises(NotHomogeneous, match=r"the NCF needs a homogeneous model.*3-2-1 tanh net is not one"):
        require_homogeneous(FeedForward((3, 2, 1), "tanh"), "the NCF")
    with pytest.raises(NotHomogeneous, match="declare the degree of your own function"):
        require_homogeneous(FAMILIES["own function, no degree"], "the NCF")
    with pytest.raises(NotHomogeneous, match=r"a degree of at least 2; .* has degree 1"):
        require_homogeneous(FeedForward((3, 1), "relu"), "a blow-up time", least=2)
    assert require_homogeneous(FeedForward((3, 2, 1), "square"), "the NCF", least=2) == 3


# -- conserved quantities ----------------------------------------------------------------------------

CONSERVING = {
    "relu": 8,
    "leaky^2": 8,
    "square": 4,
    "relu^3, one neuron": 2,
    "abs": 2,
    "deep linear": 11,
    "diagonal": 8,
    "diagonal, signed": 6,
    "diagonal, tied, signed": 3,
    "diagonal, tied, signed, depth 1": 2,
    "diagonal, one input": 6,
    "factorisation": 3,
    "factorisation, rank 1": 1,
    "factorisation, wide": 15,
}


def test_which_families_conserve_something() -> None:
    for name, model in FAMILIES.items():
        assert model.conserved(np.zeros(model.n_params)).shape == (CONSERVING.get(name, 0),), name


@given(
    name=st.sampled_from(sorted(CONSERVING)),
    seed=seeds,
    n=st.integers(2, 6),
    loss=st.sampled_from(["square", "logistic"]),
)
def test_conserved_quantities_do_not_move_along_the_flow(name: str, seed: int, n: int, loss: str) -> None:
    """d/dt q(w(t)) = <grad q, -grad L> = 0 identically, whatever the data, the loss and the weights.

    grad q comes from autograd, not from the balance formula.  A factor p missing in the balance, or
    rows taken for columns, fails at once.
    """
    m = FAMILIES[name]
    rng = np.random.default_rng(seed)
    w, X = rng.normal(size=m.n_params), rng.normal(size=(n, m.n_inputs))
    velocity = -Objective(m, X, labels(rng, loss, (n, m.n_outputs)), loss=loss).gradient(w)
    J = torch.autograd.functional.jacobian(m.conserved, torch.tensor(w)).numpy()
    assert abs(J @ velocity).max() <= 1e-12 * max((abs(J) @ abs(velocity)).max(), 1e-300)


@given(seed=seeds, p=st.integers(1, 4), alpha=st.sampled_from(ALPHAS))
def test_neuron_balance_is_kept_term_by_term(seed: int, p: int, alpha: float) -> None:
    """2 <w_in, -g_in> - 2 p <w_out, -g_out> = 0 for every hidden neuron, written out on the matrices."""
    net = FeedForward((3, 4, 2, 1), HomogeneousActivation(p, alpha))
    rng = np.random.default_rng(seed)
    w = rng.normal(size=net.n_params)
    g = Objective(net, rng.normal(size=(4, 3)), rng.normal(size=4)).gradient(w)
    W, G = net.unpack(w), net.unpack(g)
    for l, width in enumerate(net.hidden_widths):
        for j in range(width):
            incoming = float(W[l][j] @ G[l][j])
            outgoing = float(W[l + 1][:, j] @ G[l + 1][:, j])
            terms = abs(W[l][j]) @ abs(G[l][j]) + p * abs(W[l + 1][:, j]) @ abs(G[l + 1][:, j])
            assert abs(incoming - p * outgoing) <= 1e-12 * max(terms, 1e-300)


# -- linear families ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "tied", "signed"), [*itertools.product((1, 2, 3, 5), (False, True), (False, True))])
@pytest.mark.parametrize("zeros", [False, True])
def test_diagonal_networks_are_their_definition(depth: int, tied: bool, signed: bool, zeros: bool) -> None:
    """With exact zeros among the weights too, where a product "without one layer" cannot be a division."""
    d, n = 3, 4
    m = DiagonalLinear(d, depth, tied=tied, signed=signed)
    rng = np.random.default_rng(depth)
    w, X, C, Q = rng.normal(size=m.n_params), rng.normal(size=(n, d)), rng.normal(size=(n, 1)), rng.random((n, 1))
    if zeros:
        w[rng.random(m.n_params) < 0.5] = 0.0
    jets = [oracles.diagonal_output(w, x, depth, tied, signed) for x in X]
    check_against_jets(m, w, X, C, Q, jets)


@pytest.mark.parametrize(
    ("rows", "cols", "rank", "symmetric"),
    [(1, 1, 1, False), (2, 3, 1, False), (3, 2, 4, False), (1, 4, 2, False), (3, 3, 2, False), (1, 1, 3, True)]
    + [(3, 3, 2, True), (2, 2, 3, True)],
)
def test_matrix_factorisation_is_its_definition(rows: int, cols: int, rank: int, symmetric: bool) -> None:
    m = MatrixFactorisation(rows, cols, rank, symmetric=symmetric)
    rng = np.random.default_rng(rank)
    n = 3
    w, X, C, Q = (
        rng.normal(size=m.n_params),
        rng.normal(size=(n, rows * cols)),
        rng.normal(size=(n, 1)),
        rng.random((n, 1)),
    )
    jets = [oracles.factorisation_output(w, x, rows, cols, rank, symmetric) for x in X]
    check_against_jets(m, w, X, C, Q, jets)


def check_against_jets(
    m: Model, w: np.ndarray, X: np.ndarray, C: np.ndarray, Q: np.ndarray, jets: list[oracles.Jet]
) -> None:
    close(m.forward(w, X)[:, 0], [j.v for j in jets], rtol=1e-13)
    close(m.jacobian(w, X)[:, 0], np.stack([j.g for j in jets]), rtol=1e-13)
    close(m.pullback(w, X, C), sum(c * j.g for c, j in zip(C[:, 0], jets, strict=True)), rtol=1e-13)
    bent = sum(c * j.h for c, j in zip(C[:, 0], jets, strict=True))
    full = bent + sum(q * np.outer(j.g, j.g) for q, j in zip(Q[:, 0], jets, strict=True))
    close(m.curvature(w, X, C), bent, rtol=1e-13)
    close(m.curvature(w, X, C, Q), full, rtol=1e-12)


def test_the_closed_form_toy() -> None:
    """H = w1^2 x1 + w2^2 x2 on (1,0) -> 4, (0,1) -> 1 has the loss (w1^2 - 4)^2 + (w2^2 - 1)^2."""
    objective = Objective(DiagonalLinear(2, 2, tied=True), np.eye(2), [4.0, 1.0])
    a, b = 0.3, -1.2
    w = np.array([a, b])
    close(objective.value(w), (a**2 - 4) ** 2 + (b**2 - 1) ** 2)
    close(objective.gradient(w), [4 * a * (a**2 - 4), 4 * b * (b**2 - 1)])
    close(objective.hessian(w), np.diag([12 * a**2 - 16, 12 * b**2 - 4]))
    close(objective.gradient(np.array([2.0, 0.0])), [0.0, 0.0])  # the saddle
    assert np.linalg.eigvalsh(objective.hessian(np.array([2.0, 0.0])))[0] < 0


def test_deep_linear_is_the_product_of_its_matrices() -> None:
    net = deep_linear((3, 4, 2))
    rng = np.random.default_rng(0)
    W1, W2, X = rng.normal(size=(4, 3)), rng.normal(size=(2, 4)), rng.normal(size=(5, 3))
    close(net.forward(net.pack([W1, W2]), X), X @ (W2 @ W1).T)


def test_factorisation_observes_the_entries_of_the_product() -> None:
    m = MatrixFactorisation(2, 3, 2)
    U, V = np.arange(1.0, 5.0).reshape(2, 2), np.arange(6.0).reshape(3, 2)
    w = np.concatenate([U.ravel(), V.ravel()])
    close(m.forward(w, np.eye(6))[:, 0].reshape(2, 3), U @ V.T)
    got_U, got_V = m.unpack(w)
    close(got_U, U)
    close(got_V, V)


# -- structure and cost ------------------------------------------------------------------------------


def test_pack_is_the_inverse_of_unpack() -> None:
    net = FeedForward((3, 5, 2, 1), "relu")
    w = np.arange(2.0 * net.n_params).reshape(2, -1)
    close(net.pack(net.unpack(w)), w)
    close(net.unpack(w[0])[0], np.arange(15.0).reshape(5, 3))  # row j: the incoming weights of neuron j
    assert net.index[1][1, 4] == 15 + 9
    with pytest.raises(InvalidInput, match=r"takes \[\(5, 3\), \(2, 5\), \(1, 2\)\]"):
        net.pack(net.unpack(w)[:2])


def test_neuron_norms_collect_both_sides() -> None:
    net = FeedForward((2, 1, 1), "relu")
    (norms,) = net.neuron_norms(np.array([3.0, 4.0, 12.0]))
    close(norms, [13.0])
    assert list(FeedForward((2, 2, 1, 1), "relu").hidden_neurons()) == [(1, 0), (1, 1), (2, 0)]


class Counted(HomogeneousActivation):
    """ReLU^2 that counts how often it is asked."""

    calls = 0

    def value_and_slope(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Counted.calls += 1
        return super().value_and_slope(z)

    def curvature(self, z: np.ndarray) -> np.ndarray:
        Counted.calls += 1
        return super().curvature(z)


@pytest.mark.parametrize(("n", "width", "batch"), [(1, 1, ()), (20, 7, ()), (20, 7, (5,))])
def test_cost_does_not_grow_with_samples_neurons_or_batch(n: int, width: int, batch: tuple[int, ...]) -> None:
    """One forward and one backward pass: a Python loop over samples, neurons or starts would multiply the calls."""
    net = FeedForward((3, width, width, 1), Counted(2, 0.0))
    rng = np.random.default_rng(0)
    objective = Objective(net, rng.normal(size=(n, 3)), rng.normal(size=n))
    w = rng.normal(size=(*batch, net.n_params))
    for call, wanted in (
        (lambda: objective.value_and_gradient(w), 2),
        (lambda: objective.hessian_product(w, w), 4),
        (lambda: objective.hessian(w.reshape(-1, net.n_params)[0]), 4),
    ):
        Counted.calls = 0
        call()
        assert Counted.calls == wanted


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(3,), (), (3, 0, 1), (3, -2, 1), (3, 2.5, 1), (3, "4", 1), 5, None])
def test_impossible_widths_are_refused(widths: object) -> None:
    with pytest.raises(InvalidInput, match="give whole numbers >= 1 as"):
        FeedForward(widths)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DiagonalLinear(0, 2), "n_inputs = 0"),
        (lambda: DiagonalLinear(2, 1.5), "depth = 1.5"),  # type: ignore[arg-type]
        (lambda: DiagonalLinear(2, True), "depth = True"),
        (lambda: MatrixFactorisation(2, 3, 0), "rank = 0"),
        (lambda: MatrixFactorisation(2, 3, 1, symmetric=True), "pass rows == cols"),
    ],
)
def test_impossible_sizes_are_refused(build: Callable[[], Model], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build()


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_the_wrong_length_are_refused_by_every_method(name: str) -> None:
    """Too many weights must not be cut off silently."""
    d = Draw(name, 2)
    m, X, C = d.model, d.X, d.outputs()
    good = d.weights()
    for size in (m.n_params + 1, m.n_params - 1):
        w = np.ones(size)
        for call in (
            lambda w: m.forward(w, X),
            lambda w: m.pullback(w, X, C),
            lambda w: m.jacobian(w, X),
            lambda w: m.curvature(w, X, C),
            lambda w: m.curvature_product(w, X, C, None, good),
            lambda w: m.curvature_product(good, X, C, None, w),
            lambda w: m.check_weights(w),
        ):
            with pytest.raises(InvalidInput, match=f"must hold the {m.n_params} weights of"):
                call(w)


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_weights_that_are_not_finite_are_refused_with_their_place(make: Callable[..., object]) -> None:
    m = DiagonalLinear(2, 2)
    with pytest.raises(InvalidInput, match=r"w0: nan at index \(1, 2\)"):
        m.check_weights(make([[0.0] * 4, [0.0, 0.0, float("nan"), 0.0]]), "w0")
    w = make([1.0, 2.0, 3.0, 4.0])
    assert m.check_weights(w) is w
    with pytest.raises(InvalidInput, match="got list"):
        m.check_weights([1.0, 2.0, 3.0, 4.0])


def test_an_activation_object_with_a_power_is_refused() -> None:
    with pytest.raises(InvalidInput, match="go with an activation's name"):
        FeedForward((2, 2, 1), HomogeneousActivation(2, 0.0), p=3)
