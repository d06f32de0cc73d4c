"""Neuron Pursuit and its ablations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.pursuit.method import Clock, Fitted
from benchmarks.pursuit.tasks import Draw, Task
from gfsim.pursuit.candidates import Paths, RandomDirections
from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor
from gfsim.pursuit.minimise import Descent


@dataclass(frozen=True)
class Pursuit:
    """The estimator with the given parameters; it holds out a fifth of the rows and refits by itself.

    Attributes
    ----------
    parameters : mapping
        Of the estimator.
    only : tuple of str
        Tasks whose name starts with one of these; all if empty.
    """

    name: str
    title: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()

    def refuses(self, task: Task) -> str | None:
        if self.only and task.group != "core":
            return "not run here: too slow"
        if self.only and not any(task.name.startswith(start) for start in self.only):
            return "not run here: too slow"
        return None

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted:
        kind = NeuronPursuitClassifier if task.classes else NeuronPursuitRegressor
        progress: list[tuple[float, float]] = []

        def look(row: object, *_: object) -> bool:
            if isinstance(row, Mapping):  # paper mode shows a step of its record, which has no held-out rows
                progress.append((clock.spent(), float(row["validation"])))
            return not clock.over()

        given: dict[str, Any] = {
            "hidden_layers": task.hidden_layers,
            "activation": "leaky",
            "p": task.p,
            "alpha": task.alpha,
            "bias": task.bias,
            "standardise": task.bias,  # a shift of the data could not be undone without biases
            "max_neurons": task.neurons,
            "random_state": seed,
            "callback": look,
        }
        model = kind(**(given | dict(self.parameters))).fit(draw.X, draw.y)
        stop = f"stopped by {model.stop_} after {len(model.history_)} additions"
        return Fitted(model.predict, model.n_neurons_, model.network_.n_params, stop, tuple(progress))


def variants() -> list[Pursuit]:
    """The default mode, each part of it taken away, and paper mode."""
    one_random = RandomDirections(keep=1)
    descent = Descent(step=0.01, max_steps=10_000)
    return [
        Pursuit("np", "Neuron Pursuit, default mode"),
        Pursuit("np-mean", "the mean of five grown networks (networks=5)", {"networks": 5}),
        Pursuit("np-random", "random directions in place of the NCF's", {"candidates": "random"}),
        Pursuit("np-no-paths", "single neurons only, no paths", {"candidates": "neurons"}),
        Pursuit(
            "np-no-ascent",
            "the NCF's own maxima, no ascent on the predicted decrease",
            {"candidates": Paths(ascents=0)},
        ),
        Pursuit("np-no-retreat", "no way back to the best network", {"settings": {"retreat": None}}),
        Pursuit("np-no-restart", "growths that go astray are not set aside", {"settings": {"restart": None}}),
        Pursuit("np-no-trials", "no trials: the largest predicted decrease enters", {"selection": "decrease"}),
        Pursuit(
            "np-random-no-trials",
            "no trials, one random direction a path",
            {"selection": "decrease", "candidates": one_random},
        ),
        Pursuit(
            "np-no-paths-no-trials",
            "no trials, single neurons only",
            {"selection": "decrease", "candidates": "neurons"},
        ),
        Pursuit(
            "np-paper",
            "paper mode: single neurons, raw NCF, gradient descent",
            {"mode": "paper", "max_neurons": 10, "settings": {"minimiser": descent}},
            only=("teacher", "staircase-relu2-d15", "merged-square-d15"),
        ),
    ]
