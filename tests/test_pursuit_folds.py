"""Penalty and size chosen on samples that are held out in turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsim.pursuit.folds import Enough, Folds
from gfsim.pursuit.growth import GrowthConfig, grow
from gfsim.pursuit.preparation import fold_parts, split_rows
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk


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


def noisy(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, np.maximum(X[:, 0] + X[:, 1], 0) - np.abs(X[:, 2]) + rng.normal(size=n)


def folds_of(X: np.ndarray, y: np.ndarray) -> Folds:
    n = len(X)
    problem = Problem(np.column_stack([X, np.ones(n)]), y[:, None], np.full(n, 1 / n), make_risk("square"))
    split = split_rows(np.ones(n, dtype=int), 0.25, np.random.default_rng(0))
    parts = fold_parts(np.ones(n, dtype=int), split, 4, np.random.default_rng(1))
    return Folds(problem, parts, GrowthConfig(), seed=7)


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
