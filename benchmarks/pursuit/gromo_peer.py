"""gromo, the growing-network package that can be installed: TINY and GradMax through its own interface.

It has no loop of its own, so this one follows its tutorial: train, grow one layer, search the scale on a line, go on;
at the end a long training on all rows.  Training is Adam on minibatches with a falling rate, which does better here
than the tutorial's plain descent.  The layer is the one with the largest first-order improvement, as its
``select_best_update`` has it.  GradMax's new neurons have no incoming weights, and a ReLU at exactly zero never moves
from there: it gets SELU, the package's default.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.pursuit.fixed_width import Data
from benchmarks.pursuit.method import Clock, Fitted, absent
from benchmarks.pursuit.tasks import Draw, Task

SCALES = (0.0, 0.1, 0.5, 1.0)
"""The scales of the tutorial's line search."""

FIRST_WIDTH, ADDED, EPOCHS, LAST_EPOCHS, PATIENCE = 4, 2, 60, 400, 4
"""Neurons a layer at first and a growth, epochs between two growths and at the end, growths without a better held-out
loss."""

GROWING_SHARE = 0.75
"""Part of the time limit after which growth ends."""


@dataclass(frozen=True)
class Gromo:
    """Growth by gromo; ``flags`` go to ``compute_optimal_updates`` as its documentation sets them for a paper."""

    name: str
    title: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "ReLU"
    only: tuple[str, ...] = ()

    def refuses(self, task: Task) -> str | None:
        if task.group == "noise" or (task.group == "real" and task.classes):
            return "not run here: too slow"
        if self.only and not any(task.name.startswith(start) for start in self.only):
            return "not run here: too slow"
        return absent("gromo")

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted:
        import torch

        torch.manual_seed(seed)
        torch.set_num_threads(1)
        data = Data.of(task, draw, seed)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            best, widths, parameters, note = self._grow(task, data, clock)

        def predict(X: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                out = best(_tensor(data.scaling.inputs(X)[:, : draw.X.shape[1]])).double().numpy()
            return data.scaling.outputs(out)

        return Fitted(predict, sum(widths), parameters, note)

    def _grow(self, task: Task, data: Data, clock: Clock) -> tuple[Any, list[int], int, str]:
        import copy

        import torch
        from gromo.containers.growing_mlp import GrowingMLP

        d = data.train.X.shape[1] - data.bias  # gromo has biases of its own
        X, Y = _tensor(data.train.X[:, :d]), _tensor(data.train.Y)
        Xv, Yv = _tensor(data.held.X[:, :d]), _tensor(data.held.Y)
        model = GrowingMLP(
            d,
            Y.shape[1],
            FIRST_WIDTH,
            task.hidden_layers,
            activation=getattr(torch.nn, self.activation)(),
            use_bias=data.bias,
        )
        best, best_value, waited, growths = copy.deepcopy(model), np.inf, 0, 0
        while True:
            self._train(model, X, Y, EPOCHS, clock, GROWING_SHARE)
            value = float(((model(Xv) - Yv) ** 2).mean())
            improved = value < best_value
            waited = 0 if improved else waited + 1
            if improved:
                best, best_value = copy.deepcopy(model), value
            widths = [layer.out_features for layer in model.layers[:-1]]
            if clock.over(GROWING_SHARE) or waited > PATIENCE or sum(widths) + ADDED > task.neurons or value < 1e-8:
                break
            self._add(model, X, Y)
            growths += 1
        self._train(best, _tensor(data.full.X[:, :d]), _tensor(data.full.Y), LAST_EPOCHS, clock, 1.0)
        widths = [layer.out_features for layer in best.layers[:-1]]
        parameters = sum(p.numel() for p in best.parameters())
        note = f"{growths} growths" + (", time ran out" if clock.over() else "")
        return best, widths, parameters, note

    def _train(self, model: Any, X: Any, Y: Any, epochs: int, clock: Clock, until: float) -> None:
        import torch

        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
        for _ in range(epochs):
            for rows in torch.randperm(len(X)).split(64):
                optimiser.zero_grad()
                ((model(X[rows]) - Y[rows]) ** 2).mean().backward()
                optimiser.step()
            decay.step()
            if clock.over(until):
                return

    def _add(self, model: Any, X: Any, Y: Any) -> None:
        import torch
        from gromo.utils.training_utils import compute_statistics, evaluate_model

        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=len(X))
        model.set_growing_layers(scheduling_method="all")
        compute_statistics(model, loader, loss_function=torch.nn.MSELoss(reduction="sum"))
        model.compute_optimal_updates(maximum_added_neurons=ADDED, **self.flags)
        model.reset_computation()
        model.select_best_update()
        losses = []
        for scale in SCALES:
            model.set_scaling_factor(scale)
            losses.append(evaluate_model(model, loader, torch.nn.MSELoss(), use_extended_model=True)[0])
        model.set_scaling_factor(SCALES[int(np.argmin(losses))])
        model.apply_change()


def _tensor(A: np.ndarray) -> Any:
    import torch

    return torch.as_tensor(np.ascontiguousarray(A), dtype=torch.float32)


def methods() -> list[Gromo]:
    gradmax = {
        "compute_delta": False,
        "use_covariance": False,
        "alpha_zero": True,
        "use_projection": False,
        "ignore_singular_values": True,
    }
    feasible = ("teacher", "gradmax", "staircase-relu2-d15")
    return [
        Gromo("gromo-tiny", "gromo, TINY", {"compute_delta": False}),
        Gromo("gromo-gradmax", "gromo, GradMax flags", gradmax, "SELU", feasible),
    ]
