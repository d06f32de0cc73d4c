"""Error control per block: weights of size delta keep relative accuracy beside weights of size one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gfsim.errors import InvalidInput
from gfsim.flow.clock import RescaledTime
from gfsim.flow.scipy_stepper import block_tolerances
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective


class NearSaddle:
    """A two-layer z^2 net at its best one-neuron fit of two-neuron labels; the other neurons have size delta.

    On the time scale 1/delta the small weights move by their own size while the large ones are stiff
    (docs/theory.md, section 4).
    """

    def __init__(self):
        rng = np.random.default_rng(11)
        d, width, n = 4, 4, 40
        X = rng.normal(size=(n, d)) / np.sqrt(d)
        y = (X @ rng.normal(size=d)) ** 2 + 0.6 * (X @ rng.normal(size=d)) ** 2
        small = FeedForward((d, 1, 1), "square")
        one = Objective(small, X, y, reduction="mean")
        start = 0.3 * rng.normal(size=small.n_params)
        start[-1] = abs(start[-1])
        fit = simulate(one, start, t_end=2000.0, method="LSODA", rtol=1e-9).final
        assert np.linalg.norm(one.gradient(fit)) < 1e-7
        self.model = FeedForward((d, width, 1), "square")
        self.objective = Objective(self.model, X, y, reduction="mean")
        W1, W2 = np.zeros((width, d)), np.zeros((1, width))
        W1[0], W2[0, 0] = fit[:d], fit[d]
        self.saddle = self.model.pack([W1, W2])
        self.index_z = np.concatenate([self.model.index[0][1:].ravel(), self.model.index[1][0, 1:]])
        z = rng.normal(size=self.index_z.size)
        self.z = z / np.linalg.norm(z)

    def start(self, delta):
        w = self.saddle.copy()
        w[self.index_z] = delta * self.z
        return w


@pytest.fixture(scope="module")
def near():
    return NearSaddle()


def _reference(near, delta, t_end, method="Radau", rtol=1e-11):
    """scipy's own driver with every weight's tolerance set far below its size."""
    w0 = near.start(delta)
    atol = np.full(w0.size, 1e-13)
    atol[near.index_z] *= delta
    jac = {"jac": lambda _, w: -near.objective.hessian(w)} if method == "Radau" else {}
    run = solve_ivp(
        lambda _, w: -near.objective.gradient(w), (0, t_end), w0, method=method, rtol=rtol, atol=atol, **jac
    )
    assert run.success
    return run.y[:, -1]


def _error(near, w, exact):
    z = near.index_z
    return np.linalg.norm(w[z] - exact[z]) / np.linalg.norm(exact[z])


def test_the_reference_is_right(near):
    """DOP853 at 1e-12, explicit and of another family, where its cost allows it."""
    exact = _reference(near, 1e-2, 1000.0)
    assert _error(near, _reference(near, 1e-2, 1000.0, "DOP853", 1e-12), exact) <= 1e-9


@pytest.mark.parametrize("method", ["LSODA", "Radau", "BDF"])
@pytest.mark.parametrize("delta", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(("horizon", "moved", "bound"), [(10, 0.25, 10), (30, 1.0, 100)])
def test_small_block_keeps_ten_rtol(near, delta, method, horizon, moved, bound):
    """Error <= 10 rtol after the small block has moved by a quarter of its size, at a cost free of delta.

    Three times later the escape is under way and amplifies any error tenfold itself.
    """
    t_end = horizon / delta
    w0 = near.start(delta)
    exact = _reference(near, delta, t_end)
    assert np.linalg.norm(exact[near.index_z] - w0[near.index_z]) >= moved * delta
    for rtol in (1e-4, 1e-6):
        for clock in ("t", RescaledTime(1.0, near.index_z)):
            run = simulate(
                near.objective, w0, t_end=t_end, method=method, rtol=rtol, clock=clock, blocks=[near.index_z]
            )
            assert run.ok
            assert _error(near, run.final, exact) <= bound * rtol
            assert run.counts.velocity <= 400
            assert run.counts.jacobian <= 25


@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_small_block_with_explicit_methods(near, method):
    exact = _reference(near, 1e-2, 1000.0)
    run = simulate(near.objective, near.start(1e-2), t_end=1000.0, method=method, rtol=1e-5, blocks=[near.index_z])
    assert _error(near, run.final, exact) <= 1e-4


@pytest.mark.parametrize("method", ["LSODA", "BDF"])
def test_one_scalar_tolerance_is_not_enough(near, method):
    """The guard of the tests above: without blocks the same runs lose the small weights."""
    delta, rtol = 1e-4, 1e-4
    t_end = 10 / delta
    exact = _reference(near, delta, t_end)
    w0 = near.start(delta)
    for lax in ({"atol": rtol}, {}):  # {}: one block of all weights
        run = simulate(near.objective, w0, t_end=t_end, method=method, rtol=rtol, clock="t", **lax)
        assert _error(near, run.final, exact) > 50 * rtol
    blocked = simulate(near.objective, w0, t_end=t_end, method=method, rtol=rtol, clock="t", blocks=[near.index_z])
    assert _error(near, blocked.final, exact) <= 10 * rtol


# -- the rule itself -------------------------------------------------------------------------------


def test_block_tolerances_are_rtol_times_the_rms_of_each_block():
    w0 = np.array([3.0, 4.0, 0.0, 0.06, 0.08, 0.0, 0.0])
    atol = block_tolerances(w0, 1e-3, [np.array([3, 4]), np.array([5, 6])])
    rest = np.sqrt(25 / 3)
    np.testing.assert_allclose(atol[[0, 1, 2]], 1e-3 * rest)
    np.testing.assert_allclose(atol[[3, 4]], 1e-3 * np.sqrt(0.005))
    np.testing.assert_allclose(atol[[5, 6]], 1e-3 * np.sqrt(np.mean(w0**2)))  # no scale of its own


def test_a_mask_is_a_block_too():
    w0 = np.array([1.0, 2.0, 0.01, 0.02])
    mask = np.array([False, True, False, True])  # not the integers 0 and 1
    np.testing.assert_array_equal(block_tolerances(w0, 1e-3, [mask]), block_tolerances(w0, 1e-3, [np.array([1, 3])]))


@pytest.mark.parametrize("blocks", [[[0, 1], [1, 2]], [[-1]], [[4]]])
def test_overlapping_or_foreign_blocks(blocks):
    with pytest.raises(InvalidInput, match="disjoint indices"):
        block_tolerances(np.ones(4), 1e-3, [np.array(b) for b in blocks])
