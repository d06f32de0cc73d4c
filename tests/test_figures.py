"""The figures' own claims on seeds that are nobody's default, and the helpers they are made with."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paper_repro import first_saddle, pursuit, toy
from paper_repro.claims import check_basis
from paper_repro.figure import Context, Outcome, styled
from paper_repro.registry import FIGURES, Entry


def outcome(name: str, seed: int) -> Outcome:
    entry: Entry = next(e for e in FIGURES if e.name == name)
    with styled():
        return entry.load()(Context(name, seed=seed))


@pytest.mark.parametrize("name", ["toy", "first_saddle", "saddle_directions", "after_saddle"])
def test_claims_hold_on_another_seed(name: str) -> None:
    made = outcome(name, 5)
    check_basis(made.claims, made.numbers)
    failed = [f"{c.name}: {c.measured}, expected {c.expected}" for c in made.claims if not c.holds]
    assert not failed, "; ".join(failed)
    assert made.convention in ("sum", "mean")
    assert len(made.caption) > 100


@pytest.mark.slow
def test_pursuit_on_another_seed() -> None:
    made = outcome("pursuit", 5)
    assert all(c.holds for c in made.claims), [c.to_json() for c in made.claims if not c.holds]


class TestToy:
    def test_closed_form_solves_the_equation(self) -> None:
        """d psi/dt = -grad L along psi, by central differences; a wrong exponent or constant fails."""
        o = toy.objective()
        for d in (0.1, 0.05, 0.001):
            for t in (0.05, 0.3, 0.9):
                h = 1e-5
                slope = (toy.closed_form(np.array([t + h]), d) - toy.closed_form(np.array([t - h]), d))[0] / (2 * h)
                np.testing.assert_allclose(
                    slope, -o.gradient(toy.closed_form(np.array([t]), d)[0]), rtol=1e-5, atol=1e-9
                )
            np.testing.assert_allclose(toy.closed_form(np.zeros(1), d)[0], d / math.sqrt(2), rtol=1e-14)

    def test_limit_path_is_the_limit(self) -> None:
        """p(t) = lim psi(t + ln(1/d)/16, d w*), and w* = (1, 0): here with w2 = 0 exactly."""
        t = np.linspace(-0.5, 0.5, 11)
        d = 1e-9
        shifted = 2 / np.sqrt(1 + (4 / d**2 - 1) * np.exp(-32 * (t + math.log(1 / d) / 16)))
        np.testing.assert_allclose(toy.limit_path(t)[:, 0], shifted, rtol=1e-9)


class TestPursuitExample:
    def test_the_cube_is_lexicographic_and_complete(self) -> None:
        head = pursuit.cube(0, 4)
        assert (head[:, :18] == -1).all()
        np.testing.assert_array_equal(head[:, 18:], [[-1, -1], [-1, 1], [1, -1], [1, 1]])
        last = pursuit.cube((1 << 20) - 1, 1 << 20)
        assert (last == 1).all()

    def test_target_by_hand(self) -> None:
        """At x = (1, 1, 1, 1, ...): 2 s(s(3) - s(0)) - s(s(3) + s(2)) = 6 - 5."""
        assert pursuit.target(np.ones((1, 20)))[0] == 1.0
        x = np.ones((1, 20))
        x[0, :4] = [1, -1, 1, -1]  # 2 s(s(3) - s(2)) - s(0 + 0) = 2
        assert pursuit.target(x)[0] == 2.0

    def test_the_target_is_a_network_of_the_published_widths(self) -> None:
        from gfsim.models.feedforward import FeedForward

        W1 = np.zeros((4, 20))
        W1[0, [0, 2]] = [2, 1]
        W1[1, [2, 1]] = [1, -1]
        W1[2, [1, 3]] = [2, 1]
        W1[3, [3, 2]] = [1, 1]
        model = FeedForward((20, 4, 2, 1), "relu")
        w = model.pack([W1, np.array([[1.0, -1, 0, 0], [0, 0, 1, 1]]), np.array([[2.0, -1.0]])])
        X = pursuit.cube(0, 1 << 20)[:: 1 << 10]
        X = np.concatenate([X, np.random.default_rng(0).choice([-1.0, 1.0], size=(200, 20))])
        np.testing.assert_allclose(model.forward(w, X)[:, 0], pursuit.target(X), atol=1e-13)

    def test_beside_published_finds_the_order_of_neurons(self) -> None:
        from gfsim.models.feedforward import FeedForward

        W2, W3 = (np.array(v) for v in pursuit.PUBLISHED[4])
        model = FeedForward((20, 4, 2, 1), "relu")
        w = model.pack([np.zeros((4, 20)), W2[::-1][:, [2, 0, 3, 1]], W3[::-1][None]])
        found = pursuit.beside_published(model, w, 4)
        assert found is not None
        assert found[2] == 0.0
        np.testing.assert_array_equal(found[0], W2)
        assert pursuit.beside_published(model, w, 0) is None


def test_printed_losses_are_those_of_the_reference() -> None:
    assert first_saddle.PRINTED_LOSSES[130_000] == 10.7292128
    assert first_saddle.PRINTED_LOSSES[150_000] == 0.9864227
    objective, w0 = first_saddle.problem(Context("first_saddle"))
    assert objective.reduction == "mean"
    assert float(objective.value(w0)) == pytest.approx(10.72923, abs=5e-6)
