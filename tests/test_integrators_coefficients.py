"""Runge-Kutta-Chebyshev and the numerical differentiation formulas by what defines their coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from flow_fields import constant_field
from hypothesis import given
from hypothesis import strategies as st
from integrator_tools import Timed, make_own
from numpy.polynomial import Polynomial

import gfsim.flow.ndf as ndf
from gfsim.flow.chebyshev import MOST_STAGES, coefficients, stability_edge, stages_for
from gfsim.flow.ndf import ALPHA, ERROR, GAMMA, KAPPA, MAX_ORDER, TABLES, WIDTH

# -- Runge-Kutta-Chebyshev ---------------------------------------------------------------------------------


def growth(q: int, z):
    """What one step of q stages makes of y = 1 under y' = z y with h = 1; z is an array or a polynomial."""
    mu, nu, mut, gammat = coefficients(q)
    before, now = 1.0 + 0.0 * z, 1.0 + mut[1] * z
    for j in range(2, q + 1):
        later = (1 - mu[j] - nu[j]) + mu[j] * now + nu[j] * before + mut[j] * z * now + gammat[j] * z
        before, now = now, later
    return now


@pytest.mark.parametrize("q", range(2, 16))
def test_chebyshev_is_of_second_order(q):
    """The stability polynomial of q stages has degree q and begins 1 + z + z^2/2, and not as exp further on."""
    p = growth(q, Polynomial([0.0, 1.0])).coef
    assert len(p) == q + 1
    np.testing.assert_allclose(p[:3], [1.0, 1.0, 0.5], rtol=1e-11)
    if q > 2:
        assert abs(p[3] - 1 / 6) > 1e-2


@pytest.mark.parametrize("q", [2, 3, 4, 5, 7, 10, 25, 60, 150, MOST_STAGES])
def test_chebyshev_is_stable_up_to_its_edge(q):
    """|P| <= 1 on all of [-edge, 0], damped below 0.96 away from zero, and no longer stable a little further on."""
    edge = float(stability_edge(np.array(q)))
    z = -edge * np.sort(np.concatenate([np.linspace(0, 1, 40 * q), np.geomspace(1e-6, 1, 500)]))
    assert np.abs(growth(q, z)).max() <= 1 + 1e-10
    if q > 4:
        assert np.abs(growth(q, z[z < -0.1 * edge])).max() <= 0.96
        assert np.abs(growth(q, -edge * np.linspace(1.0, 1.1, 200))).max() > 1
    assert edge >= 0.62 * (q * q - 1)


@given(edge=st.floats(0.0, 1e5))
def test_the_fewest_stages_that_are_stable(edge):
    q = int(stages_for(np.array([edge]))[0])
    assert q >= 2
    assert stability_edge(np.array(q)) >= edge * (1 - 1e-12)
    assert q == 2 or stability_edge(np.array(q - 1)) < edge


def test_stages_for_what_was_not_measured():
    assert stages_for(np.array([np.nan, np.inf, 0.0])).tolist() == [2, 2, 2]


# -- numerical differentiation formulas ------------------------------------------------------------------


def test_constants():
    """Shampine and Reichelt (1997), table 1; gamma_k the harmonic numbers; order 5 is plain BDF."""
    np.testing.assert_allclose(KAPPA[1:], [-37 / 200, -1 / 9, -0.0823, -0.0415, 0.0])
    np.testing.assert_allclose(GAMMA[1:], [1, 3 / 2, 11 / 6, 25 / 12, 137 / 60])
    for k in range(1, MAX_ORDER + 1):
        assert ALPHA[k] == pytest.approx((1 - KAPPA[k]) * GAMMA[k])
        assert ERROR[k] == pytest.approx(KAPPA[k] * GAMMA[k] + 1 / (k + 1))


def _formula(k: int) -> np.ndarray:
    """Coefficients of y_n, y_{n-1}, ... in sum_m (1/m) D^m y_n - kappa gamma (y_n - guess): from the constants."""
    rows = TABLES["signs"]
    a = sum(rows[m] / m for m in range(1, k + 1)) - KAPPA[k] * GAMMA[k] * rows[k + 1]
    return a[: k + 2]


@pytest.mark.parametrize(("k", "angle"), [(1, 90), (2, 90), (3, 80), (4, 66), (5, 51)])
def test_stability_angles(k, angle):
    """Zero-stable, stable on the whole negative axis, and A(alpha)-stable to the published angle."""
    a = _formula(k)
    at_zero = np.roots(a)
    assert (np.abs(at_zero) <= 1 + 1e-10).all()
    assert (np.abs(at_zero) > 1 - 1e-6).sum() == 1
    for degrees, stable in ((0, True), (angle - 1, True), (angle + 2, False)):
        if degrees > 90:
            continue
        z = -np.geomspace(1e-3, 1e4, 600) * np.exp(1j * np.radians(degrees))
        worst = max(np.abs(np.roots(np.concatenate([[a[0] - zeta], a[1:]]))).max() for zeta in z)
        assert (worst <= 1 + 1e-9) == stable


def _values(p: Polynomial, s: float, h: float, q: int) -> np.ndarray:
    return p(s - h * np.arange(q))


def _differences(p: Polynomial, s: float, h: float) -> np.ndarray:
    """Backward differences by their definition, one subtraction at a time."""
    column, out = _values(p, s, h, WIDTH), []
    for _ in range(WIDTH):
        out.append(column[0])
        column = column[:-1] - column[1:]
    return np.array(out)


cubic = st.lists(st.floats(-2, 2), min_size=1, max_size=MAX_ORDER + 1)


@given(coef=cubic, s=st.floats(-3, 3), h=st.floats(0.05, 2))
def test_signs_make_backward_differences(coef, s, h):
    p = Polynomial(coef)
    got = TABLES["signs"] @ _values(p, s, h, WIDTH)
    scale = np.abs(_values(p, s, h, WIDTH)).max() + 1e-3
    np.testing.assert_allclose(got, _differences(p, s, h), atol=1e-12 * scale)


@given(coef=cubic, s=st.floats(-3, 3), h=st.floats(0.05, 2), theta=st.floats(-5, 1.5))
def test_newton_basis_is_the_polynomial(coef, s, h, theta):
    """sum_j D_j b_j(theta) = p(s + theta h)."""
    p = Polynomial(coef)
    got = _differences(p, s, h) @ ndf._newton_basis(np, np.array(theta))
    scale = np.abs(p(s + h * np.linspace(-7, 2, 50))).max() + 1e-3
    assert got == pytest.approx(p(s + theta * h), abs=1e-11 * scale)


@given(k=st.integers(1, MAX_ORDER), data=st.data(), factor=st.floats(0.1, 10), h=st.floats(0.05, 1.0))
def test_a_new_step_keeps_the_polynomial(k, data, factor, h):
    """The differences of a polynomial of degree <= k at steps h become those at steps factor h."""
    coef = data.draw(st.lists(st.floats(-2, 2), min_size=k + 1, max_size=k + 1))
    p, s = Polynomial(coef), 0.7
    integrator = make_own("ndf", constant_field([1.0]), np.zeros((1, 1)) + 1.0, h=np.array([h]))
    T = integrator._rescale(np.array([factor]), np.array([k]))[0]
    before, after = _differences(p, s, h), _differences(p, s, factor * h)
    scale = np.abs(p(s + max(factor, 1) * h * np.linspace(-MAX_ORDER, 1, 60))).max() + 1e-3
    np.testing.assert_allclose((T @ before)[: k + 1], after[: k + 1], atol=1e-11 * scale * (1 + factor))
    np.testing.assert_array_equal((T @ np.eye(WIDTH))[k + 1 :, : k + 1], 0.0)


def polynomial_in_time(p: Polynomial) -> Timed:
    slope = p.deriv()
    return Timed(lambda y, t: slope(t)[..., None] + 0.0 * y, lambda _y, _: np.zeros((1, 1)))


def _start_ndf(p: Polynomial, k: int, s: float, h: float):
    """An NDF of order k whose past are the values of (p(t), t) at s, s - h, ..."""
    past = np.stack([_values(p, s, h, k + 1), s - h * np.arange(k + 1)], -1)[None]
    integrator = make_own(
        "ndf", polynomial_in_time(p), past[:, 0], atol=1e3, rtol=1e-6, s=np.array([s]), h=np.array([h])
    )
    integrator.start_from(past, np.array([h]))
    return integrator


@pytest.mark.parametrize("k", range(1, MAX_ORDER + 1))
def test_takeover_and_step_are_exact_for_polynomials(k):
    """From exact past values one step of order k gives a polynomial of degree k exactly, and so does at()."""
    rng = np.random.default_rng(k)
    p, s, h = Polynomial(rng.normal(size=k + 1)), 0.3, 0.25
    integrator = _start_ndf(p, k, s, h)
    assert integrator.order.tolist() == [k]
    np.testing.assert_allclose(integrator.D[0, : k + 1, 0], _differences(p, s, h)[: k + 1], atol=1e-12)
    attempt = integrator.attempt()
    assert attempt.accepted.all()
    assert attempt.end[0] == pytest.approx(s + h)
    assert attempt.w_end[0, 0] == pytest.approx(p(s + h), abs=1e-12)
    inside = s + h * np.linspace(0, 1, 7)
    np.testing.assert_allclose(attempt.at(np.array([0]), inside[None])[0, :, 0], p(inside), atol=1e-12)


@pytest.mark.parametrize("k", range(1, MAX_ORDER + 1))
def test_local_error_constant(k):
    """On t^(k+1) one step errs by ERROR_k D^(k+1) y / ALPHA_k: the formula solved with the exact past."""
    p, s, h = Polynomial([0.0] * (k + 1) + [1.0]), 0.0, 0.5
    attempt = _start_ndf(p, k, s, h).attempt()
    top = _differences(p, s, h)[k + 1]  # D^(k+1) of a polynomial of degree k + 1 is constant
    # sum_m (1/m) D^m y - h y' - kappa gamma D^(k+1) y = -ERROR D^(k+1) y for the exact values
    assert attempt.w_end[0, 0] - p(s + h) == pytest.approx(ERROR[k] * top / ALPHA[k], rel=1e-10)
