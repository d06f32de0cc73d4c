"""Boosted trees: four settings, early stopping on held-out rows, fitted to all rows with the chosen number of trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.pursuit.method import Clock, Fitted, absent, held_out
from benchmarks.pursuit.tasks import Draw, Task

SETTINGS = ((0.1, 31), (0.03, 31), (0.1, 7), (0.03, 7))
"""Learning rate and leaves."""

TREES, PATIENCE = 600, 30


@dataclass(frozen=True)
class Boosting:
    """A booster; ``make`` gets (classes, rate, leaves, trees, seed, stop early), ``watch`` adds the held-out rows."""

    name: str
    title: str
    package: str
    make: Callable[[bool, float, int, int, int, bool], Any] = field(repr=False)
    watch: Callable[[Any, np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[float, int]] = field(repr=False)
    leaves: Callable[[Any], int] = field(repr=False)

    def refuses(self, task: Task) -> str | None:
        return "several outputs" if task.group == "student" else absent(self.package)

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted:
        y = np.unique(draw.y, return_inverse=True)[1] if task.classes else draw.y
        labels = np.unique(draw.y)
        train, held = held_out(task, draw, seed)
        best = (np.inf, 1, SETTINGS[0])
        for rate, leaves in SETTINGS:
            if clock.over():
                break
            model = self.make(task.classes, rate, leaves, TREES, seed, True)
            value, trees = self.watch(model, draw.X[train], y[train], draw.X[held], y[held])
            if value < best[0]:
                best = (value, trees, (rate, leaves))
        _, trees, (rate, leaves) = best
        model = self.make(task.classes, rate, leaves, trees, seed, False).fit(draw.X, y)

        def predict(X: np.ndarray) -> np.ndarray:
            out = np.asarray(model.predict(X))
            return labels[out] if task.classes else out

        grown = self.leaves(model)
        # a split is a feature and a threshold, a leaf a value
        return Fitted(predict, grown, 3 * grown, f"rate {rate:g}, {leaves} leaves, {trees} trees")


def _make_lightgbm(classes: bool, rate: float, leaves: int, trees: int, seed: int, early: bool) -> Any:
    import lightgbm

    del early
    kind = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
    return kind(learning_rate=rate, num_leaves=leaves, n_estimators=trees, random_state=seed, n_jobs=1, verbose=-1)


def _watch_lightgbm(model: Any, X: np.ndarray, y: np.ndarray, Xv: np.ndarray, yv: np.ndarray) -> tuple[float, int]:
    import lightgbm

    model.fit(X, y, eval_X=Xv, eval_y=yv, callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)])
    return float(next(iter(model.best_score_["valid_0"].values()))), max(1, model.best_iteration_)


def _leaves_lightgbm(model: Any) -> int:
    return sum(tree["num_leaves"] for tree in model.booster_.dump_model()["tree_info"])


def _make_xgboost(classes: bool, rate: float, leaves: int, trees: int, seed: int, early: bool) -> Any:
    import xgboost

    kind = xgboost.XGBClassifier if classes else xgboost.XGBRegressor
    return kind(
        learning_rate=rate,
        max_leaves=leaves,
        max_depth=0,
        grow_policy="lossguide",
        tree_method="hist",
        n_estimators=trees,
        random_state=seed,
        n_jobs=1,
        early_stopping_rounds=PATIENCE if early else None,
    )


def _watch_xgboost(model: Any, X: np.ndarray, y: np.ndarray, Xv: np.ndarray, yv: np.ndarray) -> tuple[float, int]:
    model.fit(X, y, eval_set=[(Xv, yv)], verbose=False)
    return float(model.best_score), model.best_iteration + 1


def _leaves_xgboost(model: Any) -> int:
    return sum(tree.count("leaf=") for tree in model.get_booster().get_dump())


def methods() -> list[Boosting]:
    return [
        Boosting("lightgbm", "LightGBM", "lightgbm", _make_lightgbm, _watch_lightgbm, _leaves_lightgbm),
        Boosting("xgboost", "XGBoost", "xgboost", _make_xgboost, _watch_xgboost, _leaves_xgboost),
    ]
