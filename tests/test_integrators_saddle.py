"""Near a sparse saddle and from the origin: small weights keep their accuracy, at a cost free of delta."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from integrator_tools import saddle_direction, square_saddle, total
from scipy.integrate import solve_ivp

from gfsim.compare.problems import SEEDS, saddle_start, small_net_saddle
from gfsim.flow.batch import simulate_batch
from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import loss_level, norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.saddle import origin

GROWTH = 1.15
"""Equal level: states are compared where |w_z| has grown by this factor, not at equal t (docs/theory.md, section 4).
The small block has then moved by more than a quarter of its size; later the escape itself amplifies errors."""


@cache
def at_level(delta: float) -> np.ndarray:
    """The state where |w_z| = GROWTH delta, by scipy's Radau: (P,).

    At 1e-6 and below its Newton iterations would stall on rounding, which is 1e-16 and not 1e-16 delta; LSODA's do not.
    """
    return run_to_level("Radau", delta, 1e-10).final if delta > 1e-5 else run_to_level("LSODA", delta, 1e-9).final


def run_to_level(method, delta, rtol, **options):
    saddle = square_saddle()
    event = norm_level(GROWTH * delta, saddle.index_z, name="w_z")
    start = saddle.start(delta, saddle_direction())
    return simulate(
        saddle.objective, start, t_end=math.inf, method=method, rtol=rtol, clock=saddle.clock, blocks=saddle.blocks,
        events=[event], **options,
    )  # fmt: skip


def block_errors(w: np.ndarray, delta: float) -> tuple[float, float]:
    """Relative errors of w_z and of w_n against the reference."""
    saddle, exact = square_saddle(), at_level(delta)
    return tuple(
        float(np.linalg.norm(w[index] - exact[index]) / np.linalg.norm(exact[index]))
        for index in (saddle.index_z, saddle.index_n)
    )


def test_the_reference_is_right():
    """Scipy's own driver in absolute time, and DOP853, where their cost allows it."""
    delta, saddle = 0.1, square_saddle()
    assert max(block_errors(run_to_level("DOP853", delta, 1e-11).final, delta)) <= 1e-8
    f, z, w0 = saddle.objective, saddle.index_z, saddle.start(delta, saddle_direction())

    def grown(_, w):
        return np.linalg.norm(w[z]) - GROWTH * delta

    grown.terminal = True
    run = solve_ivp(
        lambda _, w: -f.gradient(w), (0, 100 / delta), w0, "LSODA", events=grown, rtol=1e-10, atol=1e-13,
        jac=lambda _, w: -f.hessian(w),
    )  # fmt: skip
    assert max(block_errors(run.y_events[0][0], delta)) <= 1e-7


@pytest.mark.parametrize("rtol", [1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("delta", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("method", ["ndf", "auto"])
def test_small_block_keeps_ten_rtol(method, delta, rtol):
    run = run_to_level(method, delta, rtol)
    assert run.ok, run.message
    z, w0 = square_saddle().index_z, square_saddle().start(delta, saddle_direction())
    assert np.linalg.norm(run.final[z] - w0[z]) >= 0.25 * delta
    small, large = block_errors(run.final, delta)
    assert small <= 10 * rtol
    assert large <= 10 * rtol


@pytest.mark.parametrize("method", ["ndf", "auto"])
def test_small_block_at_a_sharp_tolerance(method):
    """The rounding of a sharp tolerance costs nothing yet: scipy's BDF has 12 rtol in the same runs."""
    for delta in (1e-2, 1e-4):
        assert max(block_errors(run_to_level(method, delta, 1e-8).final, delta)) <= 10e-8


@pytest.mark.parametrize("method", ["dp5", "dp8", "rkc"])
def test_small_block_with_explicit_methods(method):
    for delta, rtol in ((1e-1, 1e-4), (3e-2, 1e-5)):
        small, large = block_errors(run_to_level(method, delta, rtol).final, delta)
        allowed = 10 * (rtol if method != "rkc" else 0.3 * rtol ** (2 / 3))
        assert small <= allowed
        # the event lies inside a step at the edge of stability, where an eighth-order interpolant oscillates
        assert large <= allowed * (6 if method == "dp8" else 1)


# counts of everything (velocities, Jacobians, products, factorisations) to the level, 1.5 times what is measured
CEILING = {("ndf", 1e-4): 45, ("ndf", 1e-6): 70, ("auto", 1e-4): 70, ("auto", 1e-6): 100}


@pytest.mark.parametrize("rtol", [1e-4, 1e-6])
@pytest.mark.parametrize("method", ["ndf", "auto"])
def test_cost_is_flat_in_delta(method, rtol):
    """Accuracy is asserted above for the same runs; here what they cost, from 1e-2 to 1e-6 and on to 1e-8."""
    cost = {delta: total(run_to_level(method, delta, rtol).counts) for delta in (1e-2, 1e-4, 1e-6, 1e-8)}
    assert max(cost.values()) <= CEILING[method, rtol]
    assert cost[1e-6] <= 1.5 * cost[1e-2]


def test_a_degenerate_hessian_does_not_mix_large_and_small_weights():
    """390 weights, 378 of them small, two large directions flat: at 1e-8 the rounding errors of these must not reach
    the small weights through directions that are not stiff: Newton's iteration would stall, and look for new ones."""
    saddle = small_net_saddle("relu2")

    def escape(delta: float):
        run = simulate(
            saddle.objective,
            saddle_start(saddle, delta, SEEDS["relu2"]),
            t_end=math.inf,
            method="ndf",
            rtol=1e-5,
            clock=saddle.clock,
            blocks=saddle.blocks,
            events=[loss_level(0.99 * saddle.loss)],
        )
        assert run.ok
        return run

    shallow, deep = escape(1e-6), escape(1e-8)
    assert deep.t[-1] * 1e-8 == pytest.approx(shallow.t[-1] * 1e-6, rel=1e-4)
    assert deep.counts.hessian_product <= 2 * shallow.counts.hessian_product
    assert deep.counts.velocity <= 1.3 * shallow.counts.velocity


def test_explicit_cost_is_not():
    """The guard of the test above: explicit steps grow as 1/delta, stabilised ones as its square root."""
    cost = {
        (m, d): total(run_to_level(m, d, 1e-4, max_steps=10**6).counts)
        for m, ds in (("dp5", (1e-1, 1e-2)), ("rkc", (1e-2, 1e-4)))
        for d in ds
    }
    assert 5 <= cost["dp5", 1e-2] / cost["dp5", 1e-1] <= 20
    assert 5 <= cost["rkc", 1e-4] / cost["rkc", 1e-2] <= 20


def test_batch_of_saddle_starts():
    """Deltas from 1e-1 to 1e-8 in one batch: Hessian-vector products only, and the same accuracy and flat cost."""
    saddle = square_saddle()
    deltas = (1e-1, 1e-2, 1e-4, 1e-6, 1e-8)
    rtol = 1e-5
    for k, delta in enumerate(deltas):
        event = norm_level(GROWTH * delta, saddle.index_z, name="w_z")
        w0 = np.stack([saddle.start(d, saddle_direction()) for d in deltas])
        result = simulate_batch(
            saddle.objective, w0[k : k + 1], t_end=math.inf, method="ndf", rtol=rtol, clock=saddle.clock,
            blocks=saddle.blocks, events=[event],
        )  # fmt: skip
        assert max(block_errors(result.final[0], delta)) <= 10 * rtol
        assert result[0].counts.accepted <= 60
    # one batch, each row to its own time: T delta is nearly constant
    times = np.array([run_to_level("ndf", d, rtol).t[-1] for d in deltas])
    result = simulate_batch(
        saddle.objective, w0, t_end=times, method="ndf", rtol=rtol, clock=saddle.clock, blocks=saddle.blocks
    )
    assert result.ok.all()
    for k, delta in enumerate(deltas):
        assert block_errors(result.final[k], delta)[0] <= 100 * rtol  # equal time, not equal level
    total_each = [r.counts.accepted + r.counts.rejected for r in result]
    assert max(total_each) <= 1.6 * min(total_each)


# -- scaling laws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ndf", "auto"])
def test_escape_time_times_delta_converges(method):
    """T(delta) delta^(K-2) at |w_z| = GROWTH delta is a constant up to O(delta): 1e-5 from 1e-6 on."""
    scaled = [run_to_level(method, d, 1e-8).t[-1] * d for d in (1e-5, 1e-6, 1e-7, 1e-8)]
    assert scaled[1] == pytest.approx(scaled[-1], rel=1e-5)
    assert scaled[2] == pytest.approx(scaled[-1], rel=1e-5)
    assert abs(scaled[0] / scaled[-1] - 1) <= 1e-3


@cache
def authors_net() -> tuple[Objective, np.ndarray]:
    """The authors' arrays of the degree-7 net, 20-20-20-1, z^2, sum of squares; and a random unit direction."""
    data = np.load(Path(__file__).parents[1] / "paper_repro" / "data" / "three_layer_square.npz")
    objective = Objective(FeedForward((20, 20, 20, 1), "square"), data["X"].T, data["y"], reduction="sum")
    u = np.random.default_rng(2).standard_normal(objective.model.n_params)
    return objective, u / np.linalg.norm(u)


@pytest.mark.parametrize("method", ["auto", "dp8"])
def test_degree_seven_escape_scales(method):
    """From delta times a random unit direction to L = 0.9 L0: T delta^5 at 1e-6 within 1e-5 of its value at 1e-2.

    T is 1e33 at delta = 1e-6; no integrator in absolute time gets there.
    """
    objective, u = authors_net()
    level = 0.9 * float(objective.value(np.zeros_like(u)))
    scaled, cost = [], []
    for delta in (1e-2, 1e-4, 1e-6):
        run = simulate(objective, delta * u, t_end=math.inf, method=method, rtol=1e-9, events=[loss_level(level)])
        assert run.ok, run.message
        scaled.append(run.t[-1] * delta**5)
        cost.append(run.counts.velocity)
        assert run.conserved_drift <= 1e-7
    assert scaled[2] == pytest.approx(scaled[0], rel=1e-5)
    assert scaled[1] == pytest.approx(scaled[0], rel=1e-5)
    # the escape grows with log(1/delta) only
    assert cost[2] <= 2.5 * cost[0]
    assert cost[2] <= 8000


def test_passage_from_the_origin():
    """Origin to the first saddle and out of it again: one call of auto, at most 3,500 evaluations of all kinds."""
    saddle = square_saddle()
    f = saddle.objective
    start = origin(f).directions(np.random.default_rng(3))[1]
    L0 = float(f.value(0 * start))
    levels = [loss_level(0.95 * L0, terminal=0), norm_level(0.3, saddle.index_z, name="w_z", terminal=0)]
    cost = []
    for delta in (1e-1, 1e-2):
        options = {"t_end": math.inf, "clock": "rescaled", "events": [*levels, loss_level(0.75 * L0)]}
        run = simulate(f, delta * start, method="auto", rtol=1e-5, **options)
        assert run.ok, run.message
        assert run.conserved_drift <= 1e-3
        sharp = simulate(f, delta * start, method="Radau", rtol=1e-9, **options)
        np.testing.assert_allclose(run.final, sharp.final, atol=3e-3)
        cost.append(total(run.counts))
    assert max(cost) <= 3500


def test_a_clock_of_another_block():
    """The clock may follow any block: the state at equal level does not depend on it."""
    saddle = square_saddle()
    delta, rtol = 1e-3, 1e-5
    event = norm_level(GROWTH * delta, saddle.index_z, name="w_z")
    start = saddle.start(delta, saddle_direction())
    for clock in ("t", RescaledTime(2.0, saddle.index_z), RescaledTime(1.0)):
        run = simulate(
            saddle.objective, start, t_end=math.inf, method="ndf", rtol=rtol, clock=clock, blocks=saddle.blocks,
            events=[event],
        )  # fmt: skip
        assert max(block_errors(run.final, delta)) <= 10 * rtol
        assert total(run.counts) <= 200
