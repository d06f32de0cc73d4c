"""The validation split: samples are dealt out, whether or not their rows coincide."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gfsim import NeuronPursuitClassifier
from gfsim.pursuit.preparation import counts, merged, split_rows


@given(
    copies=st.lists(st.integers(1, 40), min_size=60, max_size=120),
    fraction=st.floats(0.2, 0.5),
    classes=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_every_copy_is_in_one_part(copies: list[int], fraction: float, classes: int, seed: int) -> None:
    c = np.array(copies)
    groups = np.arange(len(c)) % classes
    split = split_rows(c, fraction, np.random.default_rng(seed), groups)
    trained, held = (
        np.bincount(rows, shares * c[rows], len(c))
        for rows, shares in zip(
            (split.train, split.validation), np.split(split.shares, [len(split.train)]), strict=True
        )
    )
    np.testing.assert_allclose(trained + held, c, rtol=1e-12)
    np.testing.assert_allclose(held, np.round(held), atol=1e-9)
    assert trained[split.train].min() > 0.5
    assert held[split.validation].min() > 0.5
    for g in range(classes):
        assert abs(held[groups == g].sum() - fraction * c[groups == g].sum()) <= 0.5 + 1e-9


def test_rows_that_are_one_sample_each_are_split_whole() -> None:
    split = split_rows(np.ones(100, dtype=int), 0.2, np.random.default_rng(0))
    assert len(split.validation) == 20
    assert (split.shares == 1.0).all()
    np.testing.assert_array_equal(np.sort(split.order), np.arange(100))
    few = split_rows(np.ones(40, dtype=int), 0.2, np.random.default_rng(0))
    assert len(few.validation) == 0
    assert len(few.train) == 40


def test_weights_count_copies_only_if_they_are_whole() -> None:
    np.testing.assert_array_equal(counts(np.array([1.0, 3.0])), [1, 3])
    np.testing.assert_array_equal(counts(np.array([1.0, 2.5])), [1, 1])
    np.testing.assert_array_equal(counts(np.array([1e300, 1.0])), [1, 1])
    many = counts(np.array([*np.full(100, 2e7), 4e7]))  # NumPy deals out less than a thousand million
    split_rows(many, 0.2, np.random.default_rng(0))
    assert (many == 1).all()


def test_a_table_of_few_values_is_validated_on_what_it_holds() -> None:
    """Each input occurs with both labels, hundreds of times: a row held out whole would leave the other label alone."""
    rng = np.random.default_rng(3)
    X = rng.integers(0, 3, size=(4000, 2)).astype(float)
    chance = 1.0 / (1.0 + np.exp(-2.0 * (np.abs(X[:, 0] - 1.0) + np.abs(X[:, 1] - 1.0) - 1.0)))
    y = (rng.uniform(size=len(X)) < chance).astype(int)
    assert len(merged(X, y[:, None], np.ones(len(X)))[0]) == 18
    model = NeuronPursuitClassifier(l2=0.0, random_state=0).fit(X, y)
    for row in model.history_:
        assert row["validation"] < 1.15 * row["train"] + 0.02
    truth = (chance > 0.5).astype(int)
    clear = np.abs(chance - 0.5) > 0.1
    assert np.mean(model.predict(X)[clear] == truth[clear]) > 0.97
