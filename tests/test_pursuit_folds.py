"""Penalty and size chosen on samples that are held out in turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pursuit.tasks import all_tasks
from gfsim.pursuit import estimator
from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor
from gfsim.pursuit.folds import A_FEW, CROWDED, L2_LADDER, Choice, Enough, Folds
from gfsim.pursuit.growth import GrowthConfig, grow
from gfsim.pursuit.penalties import L2_GRID, SEVERAL
from gfsim.pursuit.preparation import fold_parts, split_rows
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk
from gfsim.pursuit.stopping import Solved


@given(
    copies=st.lists(st.integers(1, 4), min_size=60, max_size=120),
    folds=st.integers(2, 7),
    classes=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_every_sample_is_held_out_once(copies: list[int], folds: int, classes: int, seed: int) -> None:
    c = np.array(copies)
    groups = np.arange(len(c)) % classes
    split = split_rows(c, 1.0 / folds, np.random.default_rng(seed), groups)
    parts = fold_parts(c, split, folds, np.random.default_rng(seed), groups)
    held = parts * c
    np.testing.assert_allclose(held, np.round(held), atol=1e-9)
    np.testing.assert_allclose(parts.sum(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(np.flatnonzero(parts[0]), split.validation)
    sizes = held.sum(axis=1)
    assert sizes.max() - sizes.min() <= classes + 1
    for g in range(classes):
        assert (held[:, groups == g].sum(axis=1) < c[groups == g].sum()).all()


def test_the_only_sample_of_a_class_always_trains() -> None:
    c, groups = np.ones(61, dtype=int), np.repeat([0, 1, 2], [30, 30, 1])
    split = split_rows(c, 0.2, np.random.default_rng(0), groups)
    parts = fold_parts(c, split, 5, np.random.default_rng(0), groups)
    assert parts[:, 60].sum() == 0.0
    assert (parts[:, :60].sum(axis=0) == 1.0).all()


def noisy(n: int = 120, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, np.maximum(X[:, 0] + X[:, 1], 0) - np.abs(X[:, 2]) + noise * rng.normal(size=n)


def folds_of(X: np.ndarray, y: np.ndarray, config: GrowthConfig | None = None) -> Folds:
    n = len(X)
    problem = Problem(np.column_stack([X, np.ones(n)]), y[:, None], np.full(n, 1 / n), make_risk("square"))
    split = split_rows(np.ones(n, dtype=int), 0.25, np.random.default_rng(0))
    parts = fold_parts(np.ones(n, dtype=int), split, 4, np.random.default_rng(1))
    return Folds(problem, parts, config or GrowthConfig(), seed=7)


def test_the_folds_grow_as_each_would_alone() -> None:
    folds = folds_of(*noisy())
    curve = folds.curve(1e-2)
    for k, (train, held) in enumerate(zip(folds.train, folds.held, strict=True)):
        assert train.n_samples + held.n_samples == 120
        rng = np.random.default_rng([7, k])
        config = GrowthConfig(
            selection=folds.config.selection, fitter=folds.config.fitter, rules=(Enough(3),), retreat=None, thin=None
        )
        alone = grow(train.with_l2(1e-2), config, rng=rng)
        np.testing.assert_allclose(curve.losses[k][3], held.sample_losses(alone.net), rtol=1e-9)


def test_the_smallest_network_that_does_as_well_is_taken() -> None:
    folds = folds_of(*noisy())
    choice = folds.choose((1e-3, 1e-2, 1e-1, 1.0), 1e-2)
    value = {t: float(folds.weights @ choice.curve.at(t)) for t in range(len(choice.pooled))}
    assert list(value.values()) == pytest.approx(choice.pooled)
    assert 0 < choice.additions < len(choice.pooled) - 1
    grown = folds.grown(choice)
    assert len(grown.history) == choice.additions
    assert grown.l2 == choice.curve.l2 < 1.0  # which shrinks all that there is to find
    assert [row["validation"] for row in grown.history] == choice.pooled[1 : choice.additions + 1]
    assert grown.validation == choice.pooled[choice.additions] < choice.pooled[0]


def test_noise_alone_grows_nothing() -> None:
    rng = np.random.default_rng(3)
    folds = folds_of(rng.normal(size=(120, 4)), rng.normal(size=120))
    assert folds.choose((1e-3, 1e-2), 1e-2).additions == 0


def test_a_penalty_that_falls_behind_is_given_up() -> None:
    folds = folds_of(*noisy())
    best = folds.curve(1e-2)
    additions = min(range(len(best.first)), key=lambda t: folds.weights @ best.at(t))
    assert len(folds.curve(0.1, best).first) - 1 == additions


def test_a_penalty_that_is_far_behind_is_given_up_before_it_is_as_large() -> None:
    X, e = np.random.default_rng(0).normal(size=(400, 4)), np.random.default_rng(1).normal(size=400)
    folds = folds_of(X, np.abs(X).sum(axis=1) + 0.1 * e)
    best = folds.curve(1e-3)
    mark = min(range(len(best.first)), key=lambda t: folds.weights @ best.at(t))
    assert mark > A_FEW
    assert A_FEW <= len(folds.curve(0.1, best).first) - 1 < mark


def test_a_network_that_is_clearly_better_on_the_first_fold_wins() -> None:
    folds = folds_of(*noisy(400, noise=0.3))
    curve = folds.curve(1e-3)
    last = len(curve.first) - 1
    none, all_ = (Choice(curve, t, [0.0] * (last + 1), None) for t in (0, last))
    assert folds.loses(none, curve.first[last])  # against a constant
    assert not folds.loses(all_, curve.first[last])
    assert not folds.loses(all_, curve.first[0])


def test_noisy_numbers_are_held_out_in_turn() -> None:
    X, y = noisy(400)
    model = NeuronPursuitRegressor(random_state=0).fit(X, y)
    assert "held out in turn" in model.message_
    assert model.l2_ in L2_LADDER
    assert len(model.history_) == model.growth_.net.n_neurons
    X_test, _ = noisy(4000, 1)
    truth = np.maximum(X_test[:, 0] + X_test[:, 1], 0) - np.abs(X_test[:, 2])
    assert np.mean((model.predict(X_test) - truth) ** 2) < 0.12  # of 1.1, with noise of 1
    for deep in ({"hidden_layers": 2}, {"settings": {"hidden_layers": 2}}):
        assert "held out in turn" not in NeuronPursuitRegressor(**deep, random_state=0).fit(X, y).message_


def test_rows_that_come_twice_are_not_held_out_in_turn() -> None:
    """Their noise would be in what trains and in what is held out, and whatever follows it would look right."""
    X, y = noisy(200, noise=0.5)
    twice = NeuronPursuitRegressor(random_state=0).fit(np.vstack([X, X]), np.concatenate([y, y]))
    assert "held out in turn" not in twice.message_
    assert twice.n_neurons_ < 10


def test_the_search_goes_on_where_the_folds_do_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = noisy(400)
    monkeypatch.setattr(Folds, "loses", lambda *_: True)
    model = NeuronPursuitRegressor(random_state=0).fit(X, y)
    assert "held out in turn" not in model.message_
    assert model.l2_ in L2_GRID


def test_growths_end_without_a_rule_for_it() -> None:
    curve = folds_of(*noisy(120), GrowthConfig(rules=(Solved(),))).curve(0.0)
    assert curve.first[-1].n_params <= CROWDED * 90 + 6


def test_a_target_without_noise_is_searched_for_to_the_end() -> None:
    X, y = noisy(400, noise=0.0)
    model = NeuronPursuitRegressor(random_state=0).fit(X, y)
    assert model.stop_ == "loss"
    # at the first penalty no neuron helps the parity, which is found with another
    parity = all_tasks()["parity-relu2-d15-n400"].draw(11)
    grid = {"p": 2, "alpha": 0.0, "activation": "leaky", "max_neurons": 50, "random_state": 11}
    first = NeuronPursuitRegressor(**grid, l2=0.0).fit(parity.X, parity.y)
    assert first.n_neurons_ < SEVERAL
    found = NeuronPursuitRegressor(**grid).fit(parity.X, parity.y)
    assert np.mean((found.predict(parity.X_test) - parity.y_test) ** 2) < 1e-10


def labels(n: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, (X[:, 0] ** 2 + X[:, 1] ** 2 + 0.5 * rng.normal(size=n) > 1.5).astype(int)


def test_a_classifier_of_few_samples_sees_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """And holds out one part where they are many: that part's rows then say how good the network is."""
    X, y = labels()
    model = NeuronPursuitClassifier(random_state=0).fit(X, y)
    assert model.stop_ == "validation"
    assert "held out in turn" in model.message_
    assert len(model.history_) == model.growth_.net.n_neurons
    assert model.validation_loss_ == model.history_[-1]["validation"] < 0.6
    X_test, y_test = labels(2000, 1)
    assert model.score(X_test, y_test) > 0.8
    again = NeuronPursuitClassifier(random_state=0).fit(X[::-1], y[::-1])
    np.testing.assert_allclose(again.predict_proba(X_test), model.predict_proba(X_test), rtol=1e-6, atol=1e-9)
    monkeypatch.setattr(estimator, "LARGEST_TABLE", 150 * 4 - 1)
    one_part = NeuronPursuitClassifier(random_state=0).fit(X, y)
    assert "held out in turn" not in one_part.message_
    assert one_part.validation_loss_ != model.validation_loss_


def test_an_end_by_the_user_keeps_the_best_so_far() -> None:
    X, y = labels()
    seen: list[int] = []

    def until(*_: object) -> bool:
        seen.append(1)
        return len(seen) < 18  # three additions to each of the five networks, and some

    model = NeuronPursuitClassifier(callback=until, random_state=0).fit(X, y)
    assert model.stop_ == "callback"
    assert len(seen) == 18
    assert 1 <= model.n_neurons_ <= 3
    assert model.score(X, y) > 0.8

    whole: list[int] = []

    def until_the_last_growth(*_: object) -> bool:
        whole.append(1)
        return len(whole) < last

    last = 10**9
    free = NeuronPursuitClassifier(callback=until_the_last_growth, random_state=0).fit(X, y)
    last, whole = len(whole), []
    cut = NeuronPursuitClassifier(callback=until_the_last_growth, random_state=0).fit(X, y)
    assert cut.stop_ == "callback"
    assert len(cut.history_) == cut.n_neurons_ == free.n_neurons_
    assert cut.validation_loss_ == free.validation_loss_

    def fails(*_: object) -> None:
        raise ValueError("no more")

    with pytest.warns(RuntimeWarning, match="no more"):
        model = NeuronPursuitClassifier(callback=fails, random_state=0).fit(X, y)
    assert model.stop_ == "callback"
    assert "no more" in model.message_


def test_an_end_before_the_folds_can_tell_keeps_what_the_search_found() -> None:
    X, y = noisy(400, noise=0.6)
    seen: list[float] = []

    def until_the_folds(row: dict[str, float], _: object) -> bool:
        seen.append(row["l2"])
        return row["l2"] != L2_LADDER[len(L2_LADDER) // 2]  # which is no penalty of the search

    model = NeuronPursuitRegressor(callback=until_the_folds, random_state=0).fit(X, y)
    assert model.stop_ == "callback"
    assert len(seen) > len(L2_GRID)
    assert model.score(X, y) > 0.5  # the folds have come to a constant only
    whole = NeuronPursuitRegressor(random_state=0).fit(X, y)
    assert "held out in turn" in whole.message_
    assert whole.score(X, y) > model.score(X, y)


def test_ctrl_c_keeps_the_best_so_far() -> None:
    X, y = labels()
    seen: list[int] = []

    def stop(*_: object) -> None:
        seen.append(1)
        if len(seen) == 13:
            raise KeyboardInterrupt

    model = NeuronPursuitClassifier(callback=stop, random_state=0).fit(X, y)
    assert model.stop_ == "interrupted"
    assert 1 <= model.n_neurons_ <= 2
    assert model.score(X, y) > 0.6


def test_a_warm_start_is_gone_on_from() -> None:
    X, y = labels()
    model = NeuronPursuitClassifier(max_neurons=2, warm_start=True, random_state=0).fit(X, y)
    neurons: list[int] = []
    model.set_params(max_neurons=4, callback=lambda row, _: neurons.append(row["neurons"]) or True)
    assert model.fit(X, y).n_neurons_ >= 2
    assert min(neurons) == 3


def test_the_choice_is_told_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = labels()
    NeuronPursuitClassifier(progress=True, random_state=0).fit(X, y)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("l2 = 0.003, 5 parts held out in turn: up to ")
    assert len([line for line in lines if line.startswith("l2 = ")]) >= 3
    assert lines[-1].startswith("neuron in layer 1")
