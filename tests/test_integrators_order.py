"""Observed orders within 0.15 of nominal, of every method and of its interpolant, with step and order forced.

On a nonlinear gradient field, and on a non-autonomous problem through one more variable t' = 1: a wrong
node (as in a published fourth-order method that is of first order) shows there.
"""

from __future__ import annotations

import numpy as np
import pytest
from integrator_tools import exact_end, forced, make_own, quartic, rows_of
from scipy.integrate import solve_ivp

import gfsim.flow.ndf as ndf
from gfsim.flow.fixed_rows import FixedRows
from gfsim.flow.tableaus import FIXED

T_END = 1.0
FIELDS = {
    "gradient": (quartic(), np.array([[0.9, -0.4], [0.3, 0.8]])),
    "non-autonomous": (forced(), np.array([[0.9, 0.0], [0.3, 0.0]])),
}
ORDERS = {"euler": 1, "heun": 2, "rk4": 4, "bs3": 3, "dp5": 5, "dp8": 8, "rkc": 2}
# steps in [0, 1]: rounding must stay far below the errors, and the leading term must dominate
COUNTS = {
    "euler": (64, 128, 256, 512),
    "heun": (32, 64, 128, 256),
    "rk4": (32, 64, 96, 128),
    "bs3": (16, 32, 64, 128),
    "dp5": (32, 48, 64, 80),
    "dp8": (6, 8, 10, 12),
    "rkc": (32, 64, 128, 256),
}


def slope(counts, errors) -> float:
    return float(np.polyfit(np.log(1.0 / np.asarray(counts)), np.log(errors), 1)[0])


def reference(field, w0, times):
    """scipy's DOP853 at its sharpest with its own output at the times: (len(times), P)."""
    run = solve_ivp(
        lambda _, w: field.velocity(w), (0.0, float(times[-1])), w0, "DOP853", t_eval=times, rtol=1e-13, atol=1e-14
    )
    return run.y.T


def forced_run(name, field, w, n):
    """n equal steps over [0, 1]; the integrator and the attempts.  atol = 1e6 accepts whatever the step gives."""
    if name in FIXED:
        integrator = FixedRows(rows_of(field, w), w.copy(), FIXED[name], step=T_END / n)
    else:
        integrator = make_own(name, field, w, rtol=1e-3, atol=1e6, h=np.full(len(w), T_END / n))
    for _ in range(n):
        if name not in FIXED:
            integrator.h = np.full(len(w), T_END / n)
        yield integrator, integrator.attempt()


@pytest.mark.parametrize("problem", FIELDS)
@pytest.mark.parametrize("name", ORDERS)
def test_order_of_the_step(name, problem):
    field, w = FIELDS[problem]
    exact = np.array([exact_end(field, row, T_END) for row in w])
    errors = []
    for n in COUNTS[name]:
        for integrator, attempt in forced_run(name, field, w, n):  # noqa: B007 - its end is looked at below
            assert attempt.accepted.all()
        np.testing.assert_allclose(integrator.s, T_END, rtol=1e-13)
        errors.append(np.abs(integrator.w - exact).max())
    assert min(errors) > 1e-13
    assert slope(COUNTS[name], errors) == pytest.approx(ORDERS[name], abs=0.15)


@pytest.mark.parametrize("name", [*ORDERS, "ndf"])
def test_an_interpolant_gives_the_part_that_is_asked_for(name):
    field, w = FIELDS["gradient"]
    (*_, (_, attempt)) = forced_run(name, field, w, 8)
    inside = attempt.start[:, None] + (attempt.end - attempt.start)[:, None] * np.array([0.0, 0.3, 1.0])
    whole = attempt.at(np.arange(2), inside)
    assert whole.shape == (2, 3, 2)
    np.testing.assert_allclose(whole[:, 2], attempt.w_end, rtol=1e-12)
    for rows in ([0, 1], [1]):
        for part in ([1], [1, 0]):
            found = attempt.at(np.array(rows), inside[rows], np.array(part))
            np.testing.assert_allclose(found, whole[rows][..., part], rtol=1e-13)


BETWEEN = {"euler": 1, "heun": 2, "rk4": 4, "bs3": 3, "dp5": 5, "dp8": 7, "rkc": 2}


@pytest.mark.parametrize("name", BETWEEN)
def test_order_between_steps(name):
    """The largest error over points inside the steps, where events and outputs are taken."""
    field, w = FIELDS["gradient"]
    errors = []
    for n in COUNTS[name]:
        found, times = [], []
        for integrator, attempt in forced_run(name, field, w, n):  # noqa: B007 - its end is looked at below
            inside = attempt.start[:, None] + (attempt.end - attempt.start)[:, None] * np.array([0.31, 0.77])
            found.append(attempt.at(np.arange(len(w)), inside))
            times.append(inside[0])
        assert integrator.counts["accepted"].tolist() == [n] * len(w)
        grid = np.concatenate(times)
        exact = np.stack([reference(field, row, grid) for row in w])
        errors.append(np.abs(np.concatenate(found, 1) - exact).max())
    assert slope(COUNTS[name], errors) >= BETWEEN[name] - 0.15
    assert errors[-1] <= 0.02


# -- the multistep method at forced orders -------------------------------------------------------------

NDF_COUNTS = {
    1: (64, 128, 256, 512),
    2: (64, 128, 256, 512),
    3: (32, 64, 128, 256),
    4: (32, 48, 64, 96),
    5: (96, 128, 160, 192),
}


def ndf_run(field, w, k, n):
    """Steps of order k and length 1/n from an exact past, with Newton's iteration carried to rounding."""
    h = T_END / n
    past = []
    for row in w:
        back = solve_ivp(
            lambda _, y: -field.velocity(y),
            (0.0, k * h),
            row,
            "DOP853",
            t_eval=h * np.arange(k + 1),
            rtol=1e-13,
            atol=1e-14,
        )
        past.append(back.y.T)
    integrator = make_own("ndf", field, w, rtol=1e-3, atol=1.0, h=np.full(len(w), h))
    integrator.start_from(np.array(past), np.full(len(w), h))
    for _ in range(n):
        assert integrator.order.tolist() == [k] * len(w)
        integrator.equal_steps[:] = 0  # never enough of them to think of another order or step
        yield integrator, integrator.attempt()


@pytest.mark.parametrize("problem", FIELDS)
@pytest.mark.parametrize("k", NDF_COUNTS)
def test_order_of_the_multistep_method(monkeypatch, k, problem):
    """Orders 1 to 5 at the end and between the steps, with curvature of any age."""
    monkeypatch.setattr(ndf, "NEWTON_TOL", 1e-14)
    monkeypatch.setattr(ndf, "NEWTON_STEPS", 30)
    field, w = FIELDS[problem]
    exact = np.array([exact_end(field, row, T_END) for row in w])
    errors, between = [], []
    for n in NDF_COUNTS[k]:
        worst = 0.0
        for integrator, attempt in ndf_run(field, w, k, n):
            assert attempt.accepted.all()
            if integrator.counts["accepted"][0] in (n // 2, n):
                inside = attempt.start[:, None] + (attempt.end - attempt.start)[:, None] * np.array([0.5])
                for j, row in enumerate(w):
                    truth = exact_end(field, row, float(inside[j, 0]))
                    worst = max(worst, np.abs(attempt.at(np.array([j]), inside[j : j + 1])[0, 0] - truth).max())
        errors.append(np.abs(integrator.w - exact).max())
        between.append(worst)
    assert min(errors) > 1e-13
    assert slope(NDF_COUNTS[k], errors) == pytest.approx(k, abs=0.15)
    assert slope(NDF_COUNTS[k], between) >= k - 0.15


@pytest.mark.parametrize("name", ["bs3", "dp5", "dp8", "rkc", "ndf"])
def test_error_follows_the_tolerance(name):
    """What the step control promises, where nothing can go wrong: errors of a few tolerances at the ends of steps.

    The stabilised method controls its second-order formula itself, with no higher-order one to go on with, so
    its global error falls as the tolerance to the 2/3.
    """
    field, w = FIELDS["gradient"]
    power, least, bound = (2 / 3, 1e-7, 3) if name == "rkc" else (1.0, 1e-9, 15)
    tolerances = [10.0**-k for k in range(3, 10) if 10.0**-k >= 0.9 * least]
    errors = []
    for tol in tolerances:
        integrator = make_own(name, field, w, rtol=tol, atol=tol)
        while (integrator.s < T_END).any():
            integrator.attempt()
        ends = [exact_end(field, row, float(s)) for row, s in zip(w, integrator.s, strict=True)]
        errors.append(np.abs(integrator.w - ends).max())
        assert errors[-1] <= bound * tol**power
    # a step or three of the eighth-order pair is far better than a loose tolerance asks for
    leeway = 0.4 if name == "dp8" else 0.25
    assert np.polyfit(np.log(tolerances), np.log(errors), 1)[0] == pytest.approx(power, abs=leeway)
