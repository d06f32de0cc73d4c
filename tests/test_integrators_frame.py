"""The frame that grows with the weights: exact for exponentials, found by itself, left in time, and worth it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from integrator_tools import make_own, quadratic_flow, run_to, saddle_direction, square_saddle, total

import gfsim.flow.frame as frame
from gfsim.flow.checkpoint import Checkpoint
from gfsim.flow.events import norm_level
from gfsim.flow.field import Ascent
from gfsim.flow.frame import MOST
from gfsim.flow.ndf import TABLES, WIDTH
from gfsim.flow.simulate import resume, simulate

MU = 0.7


def differences(values: np.ndarray) -> np.ndarray:
    """Backward differences of values (WIDTH, P) at s, s - h, ... by their definition."""
    column, out = values, []
    for _ in range(WIDTH):
        out.append(column[0])
        column = column[:-1] - column[1:]
    return np.array(out)


@given(seed=st.integers(0, 999), power=st.floats(-1, 1))
def test_turned_differences(seed, power):
    """Differences of v_j are turned into those of e^(power j) v_j."""
    values = np.random.default_rng(seed).normal(size=(2, WIDTH, 3))
    powers = np.array([power, -0.5 * power])
    D = np.stack([differences(v) for v in values])
    turned = frame._turned(D, TABLES["signs"], powers)
    j = np.arange(WIDTH)
    for row in range(2):
        exact = differences(values[row] * np.exp(powers[row] * j)[:, None])
        np.testing.assert_allclose(turned[row], exact, atol=1e-11 * np.abs(exact).max())


def growth_and_rest() -> Ascent:
    """y1' = MU y1, y2' = 0: one weight grows, one does not."""
    return quadratic_flow(np.diag([-MU, 0.0]))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_step_in_the_frame_is_exact_for_an_exponential(k):
    """At mu h = 2 from an exponential past, at every order: the end, the inside, and no Newton steps to speak of."""
    h = 2.0 / MU
    past = np.stack([np.exp(-MU * h * np.arange(k + 1)), np.full(k + 1, 3.0)], -1)[None]
    ndf = make_own("ndf", growth_and_rest(), past[:, 0], rtol=1e-9, h=np.array([h]))
    ndf.start_from(past * np.exp(np.outer(MU * h * np.arange(k + 1), [1.0, 0.0])), np.array([h]))
    ndf.frame.mu, ndf.frame.grows, ndf.frame.moving = np.array([MU]), np.array([[1.0, 0.0]]), True
    attempt = ndf.attempt()
    assert attempt.accepted.all()
    np.testing.assert_allclose(attempt.w_end[0], [math.exp(MU * h), 3.0], rtol=1e-12)
    inside = h * np.linspace(0, 1, 5)
    w = attempt.at(np.array([0]), inside[None])[0]
    np.testing.assert_allclose(w[:, 0], np.exp(MU * inside), rtol=1e-12)
    np.testing.assert_allclose(w[:, 1], 3.0, rtol=1e-12)
    np.testing.assert_array_equal(attempt.at(np.array([0]), inside[None], np.array([1]))[0, :, 0], w[:, 1])


def test_the_frame_is_found_and_makes_long_growth_cheap(monkeypatch):
    """Forty e-folds beside a weight at rest: a few steps of at most MOST e-folds, and as accurate as without."""
    end = 40.0 / MU

    def grown() -> tuple[int, float]:
        ndf = make_own("ndf", growth_and_rest(), np.array([[1e-6, 2.0]]), rtol=1e-6, atol=1e-14)
        last = run_to(ndf, end)
        w = last.at(np.array([0]), np.array([[end]]))[0, 0]
        assert w[1] == pytest.approx(2.0, rel=1e-12)
        return int(ndf.counts["accepted"][0]), w[0] / (1e-6 * math.exp(40.0)) - 1

    steps, error = grown()
    assert abs(error) <= 1e-3
    monkeypatch.setattr(frame, "WORTH", math.inf)
    many, without = grown()
    assert many >= 4 * steps
    assert abs(error) <= 3 * abs(without)
    assert steps >= 40 / MOST


def logistic_growth() -> Ascent:
    """y' = y (1 - y) in both weights: growth, and its end."""
    return Ascent(
        lambda w: (w**2 / 2 - w**3 / 3).sum(-1), lambda w: w - w**2, lambda w: np.diag(1 - 2 * w), 2, None, "logistic"
    )


@pytest.mark.parametrize("method", ["ndf", "auto"])
@pytest.mark.parametrize("start", [1e-3, 1e-6, 1e-10])
def test_growth_that_ends(method, start):
    """From ``start`` to saturation against the closed form, at times on both sides of the bend."""
    w0 = np.array([start, 2 * start])
    bend = math.log(1 / start)
    times = bend + np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    run = simulate(logistic_growth(), w0, t_end=times[-1], t_eval=times, method=method, clock="t", rtol=1e-6)
    assert run.ok
    exact = 1 / (1 + (1 / w0 - 1) * np.exp(-times[:, None]))
    # an error in the growth is one of the time, with which the weights change by a factor a unit
    np.testing.assert_allclose(run.w[1:], exact, rtol=1e-4)


def deep_escape(delta: float, method: str):
    saddle = square_saddle()
    return simulate(
        saddle.objective,
        saddle.start(delta, saddle_direction()),
        t_end=math.inf,
        method=method,
        rtol=1e-5,
        clock=saddle.clock,
        blocks=saddle.blocks,
        events=[norm_level(0.3, saddle.index_z, name="w_z", terminal=True)],
    )


@pytest.mark.parametrize("method", ["ndf", "auto"])
def test_deeper_starts_cost_little_more(method, monkeypatch):
    """Once the direction has converged two more decades of delta are a few steps; without the frame they are many."""

    def two_decades() -> tuple[int, int]:
        shallow, deep = (deep_escape(delta, method) for delta in (1e-6, 1e-8))
        assert shallow.ok
        assert deep.ok
        return deep.counts.accepted - shallow.counts.accepted, total(deep.counts) - total(shallow.counts)

    steps, cost = two_decades()
    monkeypatch.setattr(frame, "WORTH", math.inf)
    many, dear = two_decades()
    assert steps <= 15
    assert steps <= 0.5 * many
    assert cost <= 0.5 * dear


def test_a_run_in_a_moving_frame_is_saved_whole(tmp_path):
    """Resuming from every saved step gives the same end bit for bit, those in the moving frame too."""
    w0, times = np.array([1e-8, 2e-8]), np.array([12.0, 18.0, 25.0])
    whole = simulate(logistic_growth(), w0, t_end=25.0, t_eval=times, method="ndf", clock="t", rtol=1e-6, save_every=1)
    moving = 0
    for k, checkpoint in enumerate(whole.checkpoints[:-1]):
        path = tmp_path / f"{k}.npz"
        checkpoint.save(path)
        again = resume(logistic_growth(), Checkpoint.load(path), t_end=25.0, t_eval=times)
        np.testing.assert_array_equal(again.final, whole.final)
        moving += b"moving" in checkpoint.state
    assert moving == len(whole.checkpoints) - 1
