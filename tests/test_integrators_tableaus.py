"""Tableaus by identities: row sums, every order condition through rooted trees, embedded weights, interpolants.

A wrong digit or a wrong node keeps a method convergent and lowers its order; nothing else would show it.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np
import pytest
from flow_fields import linear_field
from integrator_tools import PAIRS, make_own
from scipy.integrate import DOP853, RK23, RK45

from gfsim.flow.tableaus import EULER, FIXED, HEUN, RK4

ALL = {**FIXED, **{name: make() for name, make in PAIRS.items()}}

Tree = tuple  # a rooted tree is the sorted tuple of its branches


@cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with ``order`` nodes."""
    if order == 1:
        return ((),)
    found = set()
    for parts in _partitions(order - 1):
        found |= _forests(parts)
    return tuple(sorted(found))


def _partitions(n: int, most: int | None = None) -> list[tuple[int, ...]]:
    most = n if most is None else most
    if n == 0:
        return [()]
    return [(k, *rest) for k in range(min(n, most), 0, -1) for rest in _partitions(n - k, k)]


def _forests(parts: tuple[int, ...]) -> set[Tree]:
    sizes = sorted(set(parts))
    choices = [list(combinations_with_replacement(trees(size), parts.count(size))) for size in sizes]
    out: set[Tree] = {()}
    for choice in choices:
        out = {tuple(sorted(have + more)) for have in out for more in choice}
    return out


def nodes(tree: Tree) -> int:
    return 1 + sum(nodes(branch) for branch in tree)


def density(tree: Tree) -> int:
    return nodes(tree) * prod(density(branch) for branch in tree)


def weight(tree: Tree, A: np.ndarray) -> np.ndarray:
    """Phi_i(tree) of the stages i (Hairer, Norsett and Wanner, section II.2)."""
    out = np.ones(len(A))
    for branch in tree:
        out = out * (A @ weight(branch, A))
    return out


def broken(b: np.ndarray, A: np.ndarray, order: int, *, sum_is_one: bool = True) -> float:
    """The largest residual of the conditions up to ``order``; of an error estimate's, which must vanish."""
    worst = 0.0
    for k in range(1, order + 1):
        for tree in trees(k):
            goal = 1.0 / density(tree) if sum_is_one else 0.0
            worst = max(worst, abs(b @ weight(tree, A) - goal))
    return worst


def with_end(t) -> np.ndarray:
    """A of the stages and the velocity at the new point, which the next step shares."""
    q = t.stages
    A = np.zeros((q + 1, q + 1))
    A[:q, :q], A[q, :q] = t.A, t.b
    return A


def test_the_trees_themselves():
    """1, 1, 2, 4, 9, 20, 48, 115 rooted trees; the one without branching has density k!."""
    assert [len(trees(k)) for k in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]
    tall: Tree = ()
    for k in range(1, 6):
        assert density(tall) == factorial(k)
        tall = (tall,)


@pytest.mark.parametrize("name", ALL)
def test_row_sums_and_shape(name):
    t = ALL[name]
    np.testing.assert_allclose(t.A.sum(1), t.c, rtol=0, atol=2e-14)
    assert t.b.sum() == pytest.approx(1.0, abs=2e-15)
    assert (np.triu(t.A) == 0).all()
    assert t.A.shape == (t.stages, t.stages)


@pytest.mark.parametrize("name", ALL)
def test_order_conditions(name):
    """All 200 trees up to order 8 for dp8; and the stated order is not an understatement."""
    t = ALL[name]
    assert broken(t.b, t.A, t.order) <= 1e-14 * 10
    if t.order < 8:
        assert broken(t.b, t.A, t.order + 1) > 1e-4


@pytest.mark.parametrize("name", PAIRS)
def test_error_weights(name):
    """The estimate vanishes for all trees up to its order and not for the next: it is the next power of h."""
    t, A = ALL[name], with_end(ALL[name])
    stated = {"bs3": [2], "dp5": [4], "dp8": [5, 3]}[name]
    for E, order in zip(t.E, stated, strict=True):
        assert E.shape == (t.stages + 1,)
        assert broken(E, A, order, sum_is_one=False) <= 1e-14 * 10
        assert broken(E, A, order + 1, sum_is_one=False) > 1e-4


def test_coefficients_are_those_of_another_code():
    """The published numbers as scipy has them; Euler, Heun and RK4 from their definition."""
    for t, theirs in ((ALL["bs3"], RK23), (ALL["dp5"], RK45)):
        np.testing.assert_array_equal(t.b, theirs.B)
        np.testing.assert_array_equal(t.c, theirs.C)
    np.testing.assert_array_equal(ALL["dp8"].b, DOP853.B)
    assert EULER.b.tolist() == [1.0]
    assert HEUN.c.tolist() == [0.0, 1.0]
    assert RK4.c.tolist() == [0.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("name", ["bs3", "dp5"])
def test_interpolant_weights_at_the_ends(name):
    """At x = 1 the interpolant is the step; its slope is the velocity at both ends: K_0 and K_q."""
    t = ALL[name]
    P, q = t.P, t.stages
    np.testing.assert_allclose(P.sum(1), [*t.b, 0.0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(P[:, 0], np.eye(q + 1)[0], rtol=0, atol=1e-14)
    slope = P @ np.arange(1, P.shape[1] + 1)
    np.testing.assert_allclose(slope, np.eye(q + 1)[q], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "order"), [("bs3", 3), ("dp5", 4)])
@pytest.mark.parametrize("x", [0.2, 0.5, 0.9])
def test_interpolant_order_conditions(name, order, x):
    """b(x) integrates every tree of the interpolant's order up to x: sum b_i(x) Phi_i = x^k / density."""
    t, A = ALL[name], with_end(ALL[name])
    b = t.P @ x ** np.arange(1, t.P.shape[1] + 1)
    for k in range(1, order + 1):
        for tree in trees(k):
            assert b @ weight(tree, A) == pytest.approx(x**k / density(tree), abs=1e-13)


@pytest.mark.parametrize("name", ["bs3", "dp5", "dp8", "rkc", "ndf"])
def test_interpolant_joins_the_ends_of_a_step(name):
    """at(start) and at(end) are the ends of every accepted step, and the slopes there the velocities."""
    field = linear_field(np.array([[-1.0, 0.4], [0.4, -0.3]]))
    w = np.array([[1.0, 0.5], [0.2, -0.7]])
    integrator = make_own(name, field, w, rtol=1e-5)
    both = np.array([0, 1])
    for _ in range(12):
        attempt = integrator.attempt()
        if not attempt.accepted.all():
            continue
        h = attempt.end - attempt.start
        nodes = np.stack([attempt.start, attempt.end, attempt.start + 1e-4 * h, attempt.end - 1e-4 * h], 1)
        values = attempt.at(both, nodes)
        np.testing.assert_allclose(values[:, 1], attempt.w_end, rtol=1e-13, atol=1e-15)
        at_start = 1e-13 if name != "ndf" else 1e-3  # a multistep formula's polynomial passes the old VALUES only
        np.testing.assert_allclose(values[:, 0], attempt.w_start, rtol=at_start, atol=1e-15)
        if name != "ndf":
            step = 1e-4 * h[:, None]
            close = {"rtol": 2e-3, "atol": 1e-4}
            np.testing.assert_allclose((values[:, 2] - values[:, 0]) / step, field.velocity(attempt.w_start), **close)
            np.testing.assert_allclose((values[:, 1] - values[:, 3]) / step, field.velocity(attempt.w_end), **close)
