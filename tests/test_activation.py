"""Activations s(z) = max(z, alpha z)^p, tanh and GELU: values, slopes, curvatures, names and symmetries."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfsim.errors import InvalidInput, UnknownName
from gfsim.models.activation import Activation, Gelu, HomogeneousActivation, Tanh, make_activation

ALPHAS = (0.0, 1.0, -1.0, 0.3, -0.5, 1.7)
POWERS = (1, 2, 3, 4, 7)
CASES = [(HomogeneousActivation(p, alpha), oracles.homogeneous(p, alpha)) for p in POWERS for alpha in ALPHAS] + [
    (Tanh(), oracles.tanh),
    (Gelu(), oracles.gelu),
]
GRID = np.concatenate([-np.geomspace(3, 1e-3, 9), np.geomspace(1e-3, 3, 9)])


def jet(z: float) -> oracles.Jet:
    return oracles.Jet(z, np.ones(1), np.zeros((1, 1)))


@pytest.mark.parametrize(("s", "reference"), CASES, ids=lambda c: getattr(c, "name", ""))
def test_value_slope_and_curvature_are_those_of_the_definition(s: Activation, reference: object) -> None:
    wanted = [reference(jet(z)) for z in GRID]  # type: ignore[operator]
    # at small z the reference's tanh subtracts numbers near 1: hence an absolute part
    same = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15)
    same(s.value(GRID), [j.v for j in wanted])
    value, slope = s.value_and_slope(GRID)
    same(value, [j.v for j in wanted])
    same(slope, [j.g[0] for j in wanted])
    same(s.curvature(GRID), [j.h[0, 0] for j in wanted])
    for out in (s.value(GRID), slope, s.curvature(GRID)):
        assert out.shape == GRID.shape
        assert out.dtype == np.float64


@pytest.mark.parametrize("s", [c[0] for c in CASES], ids=lambda s: s.name)
def test_tensors_keep_their_precision(s: Activation) -> None:
    """A mask times a Python float is float32 in torch: a slope of 0.3 would be off by 1e-8."""
    z = torch.tensor(GRID)
    value, slope = s.value_and_slope(z)
    for got, wanted in (
        (s.value(z), s.value(GRID)),
        (value, s.value_and_slope(GRID)[0]),
        (slope, s.value_and_slope(GRID)[1]),
        (s.curvature(z), s.curvature(GRID)),
    ):
        assert got.dtype == torch.float64
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-14, atol=1e-16)
    single = z.float()
    assert s.value_and_slope(single)[1].dtype == s.curvature(single).dtype == torch.float32


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_at_the_kink_derivatives_are_the_left_ones(p: int, alpha: float) -> None:
    """So a ReLU neuron at exactly 0 is dead: s'(0) = 0, one element of the Clarke differential."""
    s = HomogeneousActivation(p, alpha)
    zero = np.zeros(1)
    left = min(alpha, 1.0) if alpha > 1 else alpha
    assert s.value(zero) == 0
    assert s.value_and_slope(zero)[1] == (left if p == 1 else 0.0)
    assert s.curvature(zero) == (2 * left**2 if p == 2 else 0.0)


@given(
    p=st.integers(1, 5),
    alpha=st.floats(-3, 3),
    z=st.floats(-1e3, 1e3).filter(lambda z: z == 0 or abs(z) > 1e-3),
    c=st.one_of(st.just(0.0), st.floats(1e-3, 1e3)),
)
def test_homogeneity_of_every_alpha(p: int, alpha: float, z: float, c: float) -> None:
    s = HomogeneousActivation(p, alpha)
    here, there = np.array([z]), np.array([c * z])
    np.testing.assert_allclose(s.value(there), c**p * s.value(here), rtol=1e-12)
    # Euler: z s'(z) = p s(z), z s''(z) = (p - 1) s'(z)
    value, slope = s.value_and_slope(here)
    np.testing.assert_allclose(z * slope, p * value, rtol=1e-12)
    np.testing.assert_allclose(z * s.curvature(here), (p - 1) * slope, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("s", [c[0] for c in CASES], ids=lambda s: s.name)
def test_declared_sign_symmetry_is_the_measured_one(s: Activation) -> None:
    """0 must mean neither: a symmetry missed would leave duplicates among KKT points."""
    even = np.allclose(s.value(-GRID), s.value(GRID), rtol=1e-12)
    odd = np.allclose(s.value(-GRID), -s.value(GRID), rtol=1e-12)
    assert s.flips_sign == int(even) - int(odd)


@pytest.mark.parametrize(
    ("name", "p", "alpha", "shown", "smooth"),
    [
        ("relu", None, None, "relu", False),
        ("relu", 2, None, "relu^2", True),
        ("leaky", None, None, "leaky(0.1)", False),
        ("leaky", 3, -0.5, "leaky(-0.5)^3", True),
        ("linear", None, None, "linear", True),
        ("linear", 2, None, "square", True),
        ("linear", 3, None, "linear^3", True),
        ("square", None, None, "square", True),
        ("tanh", None, None, "tanh", True),
        ("gelu", None, None, "gelu", True),
    ],
)
def test_named_activations(name: str, p: int | None, alpha: float | None, shown: str, smooth: bool) -> None:
    s = make_activation(name, p, alpha)
    assert s.name == shown
    assert s.smooth is smooth  # type: ignore[attr-defined]
    assert s.power == (None if name in ("tanh", "gelu") else (p or (2 if name == "square" else 1)))
    assert make_activation(s) is s


def test_numpy_numbers_are_accepted() -> None:
    s = HomogeneousActivation(np.int64(2), np.int64(0))  # type: ignore[arg-type]
    assert s == HomogeneousActivation(2, 0.0)
    assert type(s.p) is int
    assert type(s.alpha) is float


@pytest.mark.parametrize("p", [0, -1, 1.5, 2.0, "2", None, True, math.nan])
def test_powers_that_are_not_whole_numbers_from_1_are_refused(p: object) -> None:
    with pytest.raises(InvalidInput, match="p must be a whole number >= 1"):
        HomogeneousActivation(p, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf, "0", None, 1j, True])
def test_slopes_that_are_not_finite_numbers_are_refused(alpha: object) -> None:
    with pytest.raises(InvalidInput, match="alpha must be a finite real number"):
        HomogeneousActivation(1, alpha)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "right"), [("rleu", "relu"), ("GELU", "gelu"), ("squared", "square"), ("tahn", "tanh")]
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown activation '{wrong}'. Did you mean '{right}'\\?"):
        make_activation(wrong)


def test_a_power_for_tanh_is_refused() -> None:
    with pytest.raises(InvalidInput, match="tanh takes neither p nor alpha"):
        make_activation("tanh", p=2)
    with pytest.raises(InvalidInput, match="gelu takes neither p nor alpha"):
        make_activation("gelu", alpha=0.1)
