"""Trials: NCF maxima that the draw of the data, and not the target, puts in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfsim.errors import InvalidInput
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.neuron import neuron_ncfs
from gfsim.ncf.origin import OriginNCF
from gfsim.objective import Objective
from gfsim.pursuit.algorithm import pursue
from gfsim.pursuit.choice import choose_neuron, contenders
from gfsim.pursuit.config import PursuitConfig
from gfsim.pursuit.contest import rivals, standard_error, winner
from gfsim.pursuit.minimise import Descent, Outcome
from gfsim.pursuit.record import Record, Start
from gfsim.pursuit.replay import replay


def target(X: np.ndarray) -> np.ndarray:
    """The target of the author's public example."""

    def s(z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0)

    x1, x2, x3, x4 = X.T[:4]
    return 2 * s(s(2 * x1 + x3) - s(x3 - x2)) - s(s(2 * x2 + x4) + s(x4 + x3))


def draw(seed: int = 1, samples: int = 150) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).choice([-1.0, 1.0], size=(samples, 6))
    return X, target(X)


def config(**changed: Any) -> PursuitConfig:
    settings: dict[str, Any] = {
        "max_neurons": 6,
        "loss_rtol": 0.0,
        "minimiser": Descent(step=0.01, max_steps=8000),
        "trials": 3,
    }
    return PursuitConfig(**(settings | changed))


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_contributions_add_up_to_the_ncf(outputs: int, reduction: Any) -> None:
    rng = np.random.default_rng(0)
    model = FeedForward((3, 2, 4, outputs), "leaky")
    objective = Objective(model, rng.normal(size=(7, 3)), rng.normal(size=(7, outputs)), reduction=reduction)
    for ncf in (OriginNCF(objective), *neuron_ncfs(objective, rng.normal(size=model.n_params))):
        u = rng.normal(size=ncf.size)
        shares = ncf.contributions(u)
        assert shares.shape == (7,)
        assert shares.sum() == pytest.approx(float(ncf.value(u)), rel=1e-12)


def test_the_standard_error_is_that_of_a_sum_over_a_draw() -> None:
    """Against the spread over 4000 draws of 200 samples."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 200))
    first, second = x + 0.5 * rng.normal(size=x.shape), 0.3 * x**2
    spread = (first - second).sum(1).std()
    estimate = np.mean([standard_error(a, b) for a, b in zip(first[:200], second[:200], strict=True)])
    assert estimate == pytest.approx(spread, rel=0.05)
    assert standard_error(np.ones(1), np.zeros(1)) == 0.0


def test_rivals_are_near_the_first_in_standard_errors() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=100) + 1.0
    noise = rng.normal(size=100)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    near, far = first + noise - 0.05, first + noise - 0.15  # the error of either difference is 10
    assert [place for place, _ in rivals([first, near, far], 1.0, 9)] == [0, 1]
    assert [place for place, _ in rivals([first, near, far], 2.0, 9)] == [0, 1, 2]
    assert [place for place, _ in rivals([first, near, far], 2.0, 2)] == [0, 1]
    assert rivals([first, near], 0.0, 9) == [(0, 0.0)]
    assert rivals([], 1.0, 3) == []
    assert rivals([first, near], 1.0, 2)[1][1] == pytest.approx(10.0)


def test_the_smallest_loss_wins_and_equal_losses_leave_the_order_alone() -> None:
    assert winner([2.0, 1.0, 3.0], 1e-4) == 1
    assert winner([1.00001, 1.0], 1e-4) == 0
    assert winner([0.0, 0.0], 1e-4) == 0
    assert winner([np.inf, 5.0], 1e-4) == 1


def test_the_first_contender_is_the_published_choice() -> None:
    X, y = draw()
    rng = np.random.default_rng(3)
    for _ in range(4):
        model = FeedForward((6, 2, 2, 1), "relu")
        objective = Objective(model, X, y, reduction="mean")
        w = rng.normal(size=model.n_params)
        settings: dict[str, Any] = {"starts": 16, "tie_rtol": 1e-4, "mirror_rtol": 5e-2}
        alone = choose_neuron(objective, w, rng=np.random.default_rng(0), **settings)
        several = contenders(objective, w, rng=np.random.default_rng(0), sigmas=3.0, most=4, **settings)
        assert alone is not None
        assert 1 <= len(several) <= 4
        np.testing.assert_array_equal(several[0].point.u, alone.point.u)
        assert several[0].error == 0.0
        values = [one.point.value for one in several]
        assert alone.point.value == pytest.approx(max(m.best for m in alone.maxima), rel=5e-2)
        for one in several[1:]:
            assert 0 < values[0] - one.point.value < 3.0 * one.error


def test_trials_find_the_branch_that_the_draw_hides() -> None:
    """150 samples put a wrong branch first; its rival within one standard error leads to f itself."""
    X, y = draw()
    astray = pursue(X, y, config(trials=1), rng=np.random.default_rng(0))
    assert all(step.trials == () for step in astray.record.steps if isinstance(step, Start))
    assert all(added.trials == () for added in astray.record.additions)
    assert astray.loss > 0.1
    result = pursue(X, y, config(), rng=np.random.default_rng(0))
    assert result.hidden_widths == [(1, 1), (2, 1), (2, 2), (3, 2), (4, 2)]
    assert result.loss < 1e-20
    assert "trials" in result.summary()


def test_the_record_holds_the_trials_and_replays(tmp_path: Path) -> None:
    X, y = draw()
    result = pursue(X, y, config(max_neurons=4), rng=np.random.default_rng(0))
    loaded = Record.load(result.save(tmp_path))
    tried = [step for step in loaded.steps if hasattr(step, "trials") and step.trials]
    assert tried
    after = dict(zip([s.widths for s in loaded.minimisations], loaded.minimisations, strict=True))
    for step in tried:
        losses = [trial.loss for trial in step.trials]
        # the winner's minimisation is the one that is recorded, and it is not worse than any other
        assert after[step.widths].loss_after in losses
        assert after[step.widths].loss_after <= min(losses) * (1 + 1e-4)
        best = step.trials[0].value
        assert all(best - trial.value < trial.error for trial in step.trials[1:])
    assert max(row["trials"] for row in loaded.rows()) >= 2
    for redone in replay(loaded, X, y):
        # descent repeats bit for bit; MINPACK's Levenberg-Marquardt, given the same numbers again, ends elsewhere in
        # the flat directions of a minimum, with weights 4e-5 and a loss 1e-11 away
        if redone.kind == "polish":
            assert redone.value_difference <= 1e-10
        else:
            assert redone.difference <= 1e-12


class Stopping:
    """A descent that is interrupted after a number of runs."""

    name = "descent"

    def __init__(self, runs: int) -> None:
        self.left, self.inner = runs, Descent(step=0.01, max_steps=500)

    def settings(self) -> dict[str, Any]:
        return self.inner.settings()

    def run(self, objective: Objective, w: np.ndarray, **options: Any) -> Outcome:
        from dataclasses import replace

        self.left -= 1
        outcome = self.inner.run(objective, w, **options)
        return outcome if self.left >= 0 else replace(outcome, reason="interrupted")


@pytest.mark.parametrize("runs", range(6))
def test_ctrl_c_during_a_trial_keeps_a_whole_network(runs: int) -> None:
    X, y = draw()
    result = pursue(X, y, config(minimiser=Stopping(runs), trial_sigmas=5.0), rng=np.random.default_rng(0))
    assert result.stop.reason == "interrupted"
    assert isinstance(result.record.steps[0], Start)
    assert result.record.minimisations[-1].reason == "interrupted"
    np.testing.assert_array_equal(result.record.minimisations[-1].weights_after, result.weights)
    assert np.isfinite(result.loss)


@pytest.mark.parametrize("bad", [{"trials": 0}, {"trials": 1.5}, {"trial_sigmas": -1.0}, {"trial_sigmas": np.nan}])
def test_settings_that_make_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        config(**bad)
