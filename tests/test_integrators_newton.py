"""The linear systems (I - c J) x = b of an implicit step against a dense solve of the same matrix.

J is written out here from its definition, J = -rho H + v g', so the Sherman-Morrison correction, the deflation
and the conjugate gradients are all held to one answer.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from integrator_tools import quadratic_flow, saddle_direction, square_saddle

import gfsim.flow.newton as newton
from gfsim.flow.clock import Clock, PhysicalTime, RescaledTime
from gfsim.flow.integrator import no_costs
from gfsim.flow.newton import DenseNewton, KrylovNewton, make_newton
from gfsim.flow.rows import RowField

KINDS = ("dense", "krylov")


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_out():
    """Directions that are hardly stiff are left to a middle value: not here, where answers are compared to rounding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newton, "FAINT", 0.0)
        yield


def symmetric(eigenvalues, rng) -> np.ndarray:
    """A symmetric matrix with the given spectrum in a random basis."""
    lam = np.asarray(eigenvalues, dtype=float)
    Q = np.linalg.qr(rng.normal(size=(lam.size, lam.size)))[0]
    return (Q * lam) @ Q.T


def prepared(field, w, c, clock: Clock, kind: str, extra=None):
    """A solver ready for the rows w (B, P) with c (B,) and E = 1 + extra."""
    rows = RowField(field, clock, w)
    counts = no_costs(w, np)
    solver = make_newton(rows, w, np.ones_like(w), counts, kind)
    ok = solver.refresh(np.arange(len(w)), w, rows.slope(w), c, rows.rate(w), extra)
    return solver, ok, counts


def system(field, clock: Clock, w, c, extra=0.0) -> np.ndarray:
    """E - c J at one point, J the Jacobian of rate(w) f(w) by its definition."""
    J = clock.rate(w) * field.jacobian(w)
    if not clock.physical:
        J = J + np.outer(field.velocity(w), clock.rate_gradient(w))
    return np.eye(w.size) + np.diag(0.0 * w + extra) - c * J


def differences(field, clock: Clock, w, h=1e-6) -> np.ndarray:
    """The same Jacobian by central differences of dw/ds: the oracle of :func:`system`."""

    def f(x):
        return clock.rate(x) * field.velocity(x)

    return np.stack([(f(w + h * e) - f(w - h * e)) / (2 * h) for e in np.eye(w.size)], 1)


CLOCKS = {"t": PhysicalTime(), "all": RescaledTime(1.5), "block": RescaledTime(2.0, np.array([0, 2]))}


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_the_jacobian_of_the_clock(clock):
    rng = np.random.default_rng(0)
    field = quadratic_flow(symmetric([3.0, 1.0, 0.2, -0.5], rng))
    w = rng.normal(size=4)
    np.testing.assert_allclose(system(field, clock, w, 1.0), np.eye(4) - differences(field, clock, w), atol=1e-7)


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(3, 9),
    rows=st.integers(1, 4),
    stiff=st.floats(0, 6),
    c=st.floats(1e-3, 3.0),
)
def test_small_systems_are_solved_exactly(kind, clock, seed, size, rows, stiff, c):
    """Up to ten weights Krylov directions span everything: both kinds must give the dense answer, row by row."""
    rng = np.random.default_rng(seed)
    field = quadratic_flow(symmetric(np.r_[10**stiff, rng.uniform(0, 2, size - 1)], rng))
    w, b = rng.normal(size=(rows, size)) + 0.1, rng.normal(size=(rows, size))
    cs = c * rng.uniform(0.5, 1.0, size=rows)
    solver, ok, counts = prepared(field, w, cs, clock, kind)
    assert ok.all()
    x = solver.solve(np.arange(rows), b)
    for k in range(rows):
        M = system(field, clock, w[k], cs[k])
        exact = np.linalg.solve(M, b[k])
        assert np.abs(x[k] - exact).max() <= 1e-9 * np.linalg.cond(M) * (1 + np.abs(exact).max())
    name = "jacobian" if kind == "dense" else "hessian_product"
    assert (counts[name] > 0).all()
    assert (counts["factorisations"] == (kind == "dense")).all()


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), size=st.integers(3, 9), stiff=st.floats(0, 6), c=st.floats(1e-3, 3.0))
def test_a_diagonal_beside_the_unit_matrix(kind, clock, seed, size, stiff, c):
    """E = 1 + c mu at some weights, of some rows first and of all later, and none in the end."""
    rng = np.random.default_rng(seed)
    field = quadratic_flow(symmetric(np.r_[10**stiff, rng.uniform(0, 2, size - 1)], rng))
    w, b, cs = rng.normal(size=(3, size)) + 0.1, rng.normal(size=(3, size)), c * rng.uniform(0.5, 1.0, size=3)
    solver, ok, _ = prepared(field, w, cs, clock, kind)
    assert ok.all()
    rows, extra = RowField(field, clock, w), np.zeros_like(w)
    for index in ([1], [0, 2], [0, 1, 2]):
        extra[index] = rng.uniform(0, 3, size=(len(index), size)) * rng.integers(0, 2, size=(len(index), size))
        at = np.array(index)
        ready = solver.prepare(at, w[at], rows.slope(w[at]), cs[at], rows.rate(w[at]), extra[at])
        assert ready.all()
        x = solver.solve(np.arange(3), b)
        for k in range(3):
            M = system(field, clock, w[k], cs[k], extra[k])
            exact = np.linalg.solve(M, b[k])
            assert np.abs(x[k] - exact).max() <= 1e-9 * np.linalg.cond(M) * (1 + np.abs(exact).max())
    solver.prepare(np.arange(3), w, rows.slope(w), cs, rows.rate(w), None)
    x = solver.solve(np.arange(3), b)
    for k in range(3):
        M = system(field, clock, w[k], cs[k])
        exact = np.linalg.solve(M, b[k])
        assert np.abs(x[k] - exact).max() <= 1e-9 * np.linalg.cond(M) * (1 + np.abs(exact).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", ["t", "saddle"])
def test_solvers_join(kind, clock):
    """Rows prepared apart, with and without a diagonal, solve together as they did alone."""
    from gfsim.flow.field import Descent

    saddle = square_saddle()
    field, ticking = Descent(saddle.objective), PhysicalTime() if clock == "t" else saddle.clock
    w = np.stack([saddle.start(d, saddle_direction()) for d in (1e-1, 1e-2, 1e-3)])
    b, c = np.random.default_rng(1).normal(size=w.shape), np.array([0.5, 1.0, 2.0])
    extra = np.zeros_like(w)
    extra[0, saddle.index_z] = 0.7
    one, _, _ = prepared(field, w[:1], c[:1], ticking, kind, extra[:1])
    two, _, _ = prepared(field, w[1:], c[1:], ticking, kind)
    alone = [one.solve(np.array([0]), b[:1]), two.solve(np.array([0, 1]), b[1:])]
    two.join(one)
    together = two.solve(np.arange(3), b[[1, 2, 0]])
    np.testing.assert_allclose(together, np.concatenate(alone)[[1, 2, 0]], rtol=1e-10, atol=1e-12)
    two.keep(np.array([2, 0]))
    np.testing.assert_allclose(
        two.solve(np.arange(2), b[:2]), np.concatenate([alone[0], alone[1][:1]]), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clock", ["t", "saddle"])
def test_at_a_sparse_saddle(kind, clock):
    """The real thing: one stiff block, a degenerate one, the saddle's own clock; c far beyond 1/lambda."""
    saddle = square_saddle()
    from gfsim.flow.field import Descent

    field, ticking = Descent(saddle.objective), PhysicalTime() if clock == "t" else saddle.clock
    w = np.stack([saddle.start(d, saddle_direction()) for d in (1e-1, 1e-3)])
    b = np.random.default_rng(0).normal(size=w.shape)
    c = np.array([0.5, 2.0]) if clock == "t" else np.array([2.0, 0.5])
    solver, ok, _ = prepared(field, w, c, ticking, kind)
    assert ok.all()
    x = solver.solve(np.array([0, 1]), b)
    for k in range(2):
        exact = np.linalg.solve(system(field, ticking, w[k], c[k]), b[k])
        # Krylov directions share one middle value for what they leave out: LOOSE/2 of an error there at most
        assert np.linalg.norm(x[k] - exact) <= (1e-9 if kind == "dense" else 0.3) * np.linalg.norm(b[k])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("growth", [0.5, 0.89, 1.5, 30.0])
def test_growth_that_a_step_is_too_long_for(kind, growth):
    """I + a H must stay positive: a growing mode with a |lambda| >= 1 says no, and the row beside it does not care."""
    rng = np.random.default_rng(5)
    H = symmetric([40.0, 3.0, 1.0, 0.1, -1.0], rng)
    field = quadratic_flow(H)
    w, c = rng.normal(size=(2, 5)), np.array([growth, 0.2])
    with np.errstate(all="ignore"):
        solver, ok, _ = prepared(field, w, c, PhysicalTime(), kind)
    assert ok.tolist() == [growth < 1, True]
    for k in np.flatnonzero(ok):
        b = rng.normal(size=5)
        x = solver.solve(np.array([k]), b[None])[0]
        np.testing.assert_allclose(x, np.linalg.solve(np.eye(5) + c[k] * H, b), rtol=1e-9, atol=1e-10)


def spread_out(size: int, stiff: int, rng) -> np.ndarray:
    """``stiff`` eigenvalues from 1e3 to 10, the others below 0.1."""
    return symmetric(np.r_[np.geomspace(1e3, 10, stiff), rng.uniform(0, 0.1, size - stiff)], rng)


def test_few_stiff_directions_are_enough():
    """P = 80 with six stiff directions: nothing is widened, and the answer is exact along them."""
    rng = np.random.default_rng(1)
    H = spread_out(80, 6, rng)
    w, b, c = rng.normal(size=(2, 80)), rng.normal(size=(2, 80)), np.array([1.0, 0.5])
    solver, ok, counts = prepared(quadratic_flow(H), w, c, PhysicalTime(), "krylov")
    assert isinstance(solver, KrylovNewton)
    assert ok.all()
    assert solver.width == newton.BLOCK
    np.testing.assert_allclose(solver.stiffest, 1e3, rtol=1e-6)
    lam, V = np.linalg.eigh(H)
    for k in range(2):
        x = solver.solve(np.array([k]), b[k : k + 1])[0]
        exact = np.linalg.solve(np.eye(80) + c[k] * H, b[k])
        gap = V.T @ (x - exact)
        assert np.abs(gap[lam > 1]).max() <= 1e-4 * np.abs(V.T @ exact).max()
        assert np.linalg.norm(gap) <= 0.1 * np.linalg.norm(exact)
    assert counts["hessian_product"].max() <= 2 * newton.SWEEPS * newton.BLOCK


def test_many_stiff_directions_widen_the_search():
    """Thirty stiff directions do not fit into ten: the block grows, or conjugate gradients do the rest."""
    rng = np.random.default_rng(2)
    H = spread_out(120, 30, rng)
    w, b, c = rng.normal(size=(1, 120)), rng.normal(size=(1, 120)), np.array([1.0])
    solver, ok, _ = prepared(quadratic_flow(H), w, c, PhysicalTime(), "krylov")
    assert ok.all()
    assert solver.width >= 30
    x = solver.solve(np.array([0]), b)[0]
    exact = np.linalg.solve(np.eye(120) + H, b[0])
    assert np.linalg.norm(x - exact) <= 0.1 * np.linalg.norm(exact)


def test_conjugate_gradients_take_over():
    """A hundred and fifty stiff directions are more than are ever kept: the residual is CG's then."""
    rng = np.random.default_rng(3)
    H = symmetric(np.geomspace(1e3, 1e-2, 200), rng)
    w, b, c = rng.normal(size=(2, 200)), rng.normal(size=(2, 200)), np.array([1.0, 0.3])
    solver, ok, counts = prepared(quadratic_flow(H), w, c, PhysicalTime(), "krylov")
    assert ok.all()
    assert solver.width == newton.MOST_DIRECTIONS
    before = counts["hessian_product"].copy()
    x = solver.solve(np.array([0, 1]), b)
    for k in range(2):
        residual = b[k] - x[k] - c[k] * H @ x[k]
        assert np.linalg.norm(residual) <= 1.01 * newton.CG_RTOL * np.linalg.norm(b[k])
    steps = counts["hessian_product"] - before
    assert (steps >= 2).all()
    assert (steps <= newton.CG_STEPS + 2).all()


def test_conjugate_gradients_with_the_clock_term():
    rng = np.random.default_rng(4)
    H = symmetric(np.geomspace(1e3, 1e-2, 200), rng)
    field, clock = quadratic_flow(H), RescaledTime(1.0)
    w, b, c = rng.normal(size=(1, 200)), rng.normal(size=(1, 200)), np.array([2.0])
    solver, ok, _ = prepared(field, w, c, clock, "krylov")
    assert ok.all()
    x = solver.solve(np.array([0]), b)[0]
    residual = b[0] - system(field, clock, w[0], c[0]) @ x
    assert np.linalg.norm(residual) <= 0.5 * np.linalg.norm(b[0])


def test_which_kind_is_made():
    """Dense for few weights, directions for many or for a batch."""

    def kind(size, rows):
        w = np.ones((rows, size))
        field = quadratic_flow(np.eye(size))
        return type(make_newton(RowField(field, PhysicalTime(), w), w, w, no_costs(w, np), "auto"))

    assert kind(20, 1) is DenseNewton
    assert kind(20, 9) is DenseNewton
    assert kind(newton.DENSE_UP_TO + 1, 1) is KrylovNewton
    assert kind(100, 9) is KrylovNewton


@pytest.mark.parametrize("kind", KINDS)
def test_prepare_keeps_the_curvature(kind):
    """A new c needs no new Hessian: the answer follows c, the expensive counts do not move."""
    rng = np.random.default_rng(6)
    H = symmetric([50.0, 2.0, 0.3], rng)
    w, b = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    solver, _, counts = prepared(quadratic_flow(H), w, np.array([1.0, 1.0]), PhysicalTime(), kind)
    paid = {name: counts[name].copy() for name in ("jacobian", "hessian_product")}
    index = np.array([1])
    solver.prepare(index, w[index], np.zeros((1, 3)), np.array([0.1]), np.ones(1), None)
    for c, k in ((1.0, 0), (0.1, 1)):
        x = solver.solve(np.array([k]), b[k : k + 1])[0]
        np.testing.assert_allclose(x, np.linalg.solve(np.eye(3) + c * H, b[k]), rtol=1e-9, atol=1e-11)
    for name, values in paid.items():
        np.testing.assert_array_equal(counts[name], values)
    assert counts["factorisations"].tolist() == ([1, 2] if kind == "dense" else [0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_keep_drops_rows_only(kind):
    rng = np.random.default_rng(7)
    H = symmetric([50.0, 2.0, 0.3, -0.1], rng)
    w, b, c = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), np.array([1.0, 0.4, 2.0])
    for clock in (PhysicalTime(), RescaledTime(1.0)):
        solver, ok, _ = prepared(quadratic_flow(H), w, c, clock, kind)
        assert ok.all()
        before = solver.solve(np.arange(3), b)
        solver.keep(np.array([2, 0]))
        np.testing.assert_allclose(solver.solve(np.array([0, 1]), b[[2, 0]]), before[[2, 0]], rtol=1e-12)
