"""scikit-learn's networks and linear models: four settings each, chosen on held-out rows, fitted to all rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.pursuit.method import Clock, Fitted, held_out
from benchmarks.pursuit.tasks import Draw, Task


@dataclass(frozen=True)
class Scikit:
    """An estimator behind a scaler; ``make`` gets the task and one of ``settings``.  ``refused``: group -> reason."""

    name: str
    title: str
    make: Callable[[Task, float, int], Any] = field(repr=False)
    settings: tuple[float, ...]
    refused: Mapping[str, str] = field(default_factory=dict)

    def refuses(self, task: Task) -> str | None:
        return self.refused.get(task.group)

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning

        train, held = held_out(task, draw, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the iteration limit is part of the setting
            values = []
            for setting in self.settings:
                if clock.over():
                    break
                model = self._pipeline(task, setting, seed, draw.y).fit(draw.X[train], draw.y[train])
                values.append(model.score(draw.X[held], draw.y[held]))
            chosen = self.settings[int(np.argmax(values))]
            model = self._pipeline(task, chosen, seed, draw.y).fit(draw.X, draw.y)
        inner = model[-1]
        inner = getattr(inner, "regressor_", inner)
        coefficients = inner.coefs_ + inner.intercepts_ if hasattr(inner, "coefs_") else [inner.coef_, inner.intercept_]
        neurons = sum(len(b) for b in inner.intercepts_[:-1]) if hasattr(inner, "coefs_") else 0
        return Fitted(model.predict, neurons, int(sum(np.size(c) for c in coefficients)), f"penalty {chosen:g}")

    def _pipeline(self, task: Task, setting: float, seed: int, y: np.ndarray) -> Any:
        from sklearn.compose import TransformedTargetRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = self.make(task, setting, seed)
        if not task.classes and y.ndim == 1:
            model = TransformedTargetRegressor(model, transformer=StandardScaler())
        return make_pipeline(StandardScaler(), model)


def _mlp(solver: str) -> Callable[[Task, float, int], Any]:
    def make(task: Task, alpha: float, seed: int) -> Any:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        kind = MLPClassifier if task.classes else MLPRegressor
        return kind(
            hidden_layer_sizes=(100,) * task.hidden_layers,
            solver=solver,
            alpha=alpha,
            max_iter=500,
            random_state=seed,
        )

    return make


def _linear(task: Task, penalty: float, seed: int) -> Any:
    del seed
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(C=1.0 / penalty, max_iter=2000) if task.classes else Ridge(alpha=penalty)


def methods() -> list[Scikit]:
    alphas = (1e-4, 1e-2, 1e-1, 1.0)
    return [
        Scikit("mlp-adam", "scikit-learn's MLP, width 100, Adam", _mlp("adam"), alphas),
        Scikit(
            "mlp-lbfgs",
            "scikit-learn's MLP, width 100, L-BFGS",
            _mlp("lbfgs"),
            alphas,
            # its gradient is off by the number of outputs there (scikit-learn issue 8349)
            {"student": "its gradient is wrong for several outputs"},
        ),
        Scikit("linear", "ridge or logistic regression", _linear, (1e-1, 1.0, 10.0, 100.0)),
    ]
