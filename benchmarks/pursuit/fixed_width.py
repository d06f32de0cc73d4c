"""Networks of fixed width, trained on the same loss as Neuron Pursuit: gradient descent, Adam, Levenberg-Marquardt.

Each has four settings.  They are tried in turn on four fifths of the rows, the rest chooses, and the chosen one is
fitted to all rows; the search ends early when a setting explains the held-out rows to 1e-6, as Neuron Pursuit's does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from benchmarks.pursuit.method import Clock, Fitted, held_out
from benchmarks.pursuit.tasks import Draw, Task
from gfsim.models.activation import HomogeneousActivation
from gfsim.pursuit.fit import LevenbergMarquardt
from gfsim.pursuit.growth import EXPLAINED
from gfsim.pursuit.network import Network
from gfsim.pursuit.penalties import L2_GRID, L2_GRID_CLASSES
from gfsim.pursuit.preparation import Scaling
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk

LOOK_EVERY = 25
"""Steps between two looks at the held-out rows."""

REFIT_SHARE = 0.25
"""Part of the time limit that is kept for the fit on all rows."""


@dataclass(frozen=True)
class Data:
    """Scaled data of a task: all rows, those to train on, those to choose by, and the way back."""

    full: Problem = field(repr=False)
    train: Problem = field(repr=False)
    held: Problem = field(repr=False)
    scaling: Scaling = field(repr=False)
    classes: np.ndarray = field(repr=False)
    activation: HomogeneousActivation
    bias: bool

    @classmethod
    def of(cls, task: Task, draw: Draw, seed: int) -> Data:
        classes = np.unique(draw.y) if task.classes else np.zeros(0)
        if not task.classes:
            risk, Y = "square", draw.y.reshape(len(draw.X), -1)
        elif len(classes) == 2:
            risk, Y = "logistic", (draw.y == classes[1]).astype(float)[:, None]
        else:
            risk, Y = "softmax", (draw.y[:, None] == classes).astype(float)
        weights = np.full(len(Y), 1.0 / len(Y))
        # without biases a network could not undo a shift of the data
        scaling = Scaling.of(draw.X, Y, weights, standardise=task.bias, targets=risk == "square", bias=task.bias)
        full = Problem(scaling.inputs(draw.X), scaling.targets(Y), weights, make_risk(risk))
        train, held = held_out(task, draw, seed)
        activation = HomogeneousActivation(task.p, task.alpha)
        return cls(full, full.rows(train), full.rows(held), scaling, classes, activation, task.bias)

    def network(self, width: int, layers: int, size: float, rng: np.random.Generator) -> Network:
        """Normal weights of ``size`` times the deviation sqrt(2 / inputs), intercept at the best constant."""
        widths = (self.full.X.shape[1], *[width] * layers, self.full.n_outputs)
        matrices = tuple(size * np.sqrt(2.0 / a) * rng.normal(size=(b, a)) for a, b in pairwise(widths))
        constant = self.full.risk.constant(self.full.Y, self.full.weights) if self.bias else np.zeros(0)
        return Network(matrices, constant, self.activation)

    def fitted(self, net: Network, note: str) -> Fitted:
        def predict(X: np.ndarray) -> np.ndarray:
            out = self.scaling.outputs(net.outputs(self.scaling.inputs(X)))
            if not self.classes.size:
                return out
            return self.classes[(out[:, 0] > 0).astype(int) if out.shape[1] == 1 else out.argmax(axis=1)]

        return Fitted(predict, net.n_neurons, net.n_params, note)

    @property
    def penalties(self) -> tuple[float, ...]:
        return L2_GRID_CLASSES if self.classes.size else L2_GRID


@dataclass(frozen=True)
class Trained:
    """A network, how many steps led to it, and its loss on held-out rows."""

    net: Network = field(repr=False)
    steps: int
    value: float


Stepper = Callable[[Network, int], Network]
"""One step, or none where nothing lower was found."""


def watched(
    step: Stepper, net: Network, held: Problem, clock: Clock, until: float, most: int, patience: int
) -> Trained:
    """Steps until the held-out loss has not improved for as long as it took to get there, at least ``patience``."""
    best = Trained(net, 0, held.data_loss(net))
    done = 0
    while done < most and not clock.over(until) and done - best.steps <= max(patience, best.steps):
        before = net
        for _ in range(LOOK_EVERY):
            net = step(net, done)
            done += 1
        if net is before:
            break
        value = held.data_loss(net)
        if not np.isfinite(value):
            break
        if value < best.value:
            best = Trained(net, done, value)
    return best


def descent(problem: Problem, rate: float, rng: np.random.Generator) -> Stepper:
    """Gradient descent whose step grows after success and is halved until the loss falls enough (Armijo)."""
    del rate, rng
    state = {"step": 0.01}

    def step(net: Network, done: int) -> Network:
        del done
        loss, g = problem.loss_and_gradient(net)
        theta, slope = net.theta, float(g @ g)
        for _ in range(40):
            trial = net.with_theta(theta - state["step"] * g)
            with np.errstate(over="ignore", invalid="ignore"):
                if problem.loss(trial) <= loss - 0.1 * state["step"] * slope:
                    state["step"] *= 1.5
                    return trial
            state["step"] *= 0.5
        return net

    return step


def adam(problem: Problem, rate: float, rng: np.random.Generator, batch: int = 64) -> Stepper:
    """Adam on minibatches with its usual constants."""
    state: dict[str, np.ndarray] = {}

    def step(net: Network, done: int) -> Network:
        rows = rng.integers(problem.n_samples, size=min(batch, problem.n_samples))
        _, g = problem.rows(rows).loss_and_gradient(net)
        m = state["m"] = 0.9 * state.get("m", np.zeros_like(g)) + 0.1 * g
        v = state["v"] = 0.999 * state.get("v", np.zeros_like(g)) + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** (done + 1)), v / (1 - 0.999 ** (done + 1))
        return net.with_theta(net.theta - rate * m_hat / (np.sqrt(v_hat) + 1e-8))

    return step


@dataclass(frozen=True)
class FullWidth:
    """First-order training of a wide network; ``settings`` are (rate, l2) or, for descent, (0, l2)."""

    name: str
    title: str
    stepper: Callable[[Problem, float, np.random.Generator], Stepper]
    settings: Sequence[tuple[float, float]] | None
    size: float
    width: int = 50
    patience: int = 2000

    def refuses(self, task: Task) -> str | None:
        del task
        return None

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted:
        data = Data.of(task, draw, seed)
        settings = self.settings or [(0.0, l2) for l2 in data.penalties]
        start = data.network(self.width, task.hidden_layers, self.size, np.random.default_rng([1, seed]))
        null = data.held.data_loss(start.with_theta(0.0 * start.theta))
        best, chosen = None, settings[0]
        for k, (rate, l2) in enumerate(settings):
            step = self.stepper(data.train.with_l2(l2), rate, np.random.default_rng([2, seed]))
            until = (1.0 - REFIT_SHARE) * (k + 1) / len(settings)
            found = watched(step, start, data.held, clock, until, 10**6, self.patience)
            if best is None or found.value < best.value:
                best, chosen = found, (rate, l2)
            if best.value <= EXPLAINED * null:
                break
        if best is None:
            raise ValueError("no settings")
        # from the chosen weights on, as Neuron Pursuit's refit goes on: as many steps as a fifth more rows ask for
        step = self.stepper(data.full.with_l2(chosen[1]), chosen[0], np.random.default_rng([3, seed]))
        net = best.net
        for done in range(max(LOOK_EVERY, best.steps // 5)):
            if clock.over():
                break
            net = step(net, done)
        time_out = ", time ran out" if clock.over() else ""
        return data.fitted(net, f"rate {chosen[0]:g}, l2 {chosen[1]:g}, {best.steps} steps{time_out}")


@dataclass(frozen=True)
class Restarts:
    """Levenberg-Marquardt at fixed width from several random starts for each of four penalties."""

    name: str = "lm"
    title: str = "Levenberg-Marquardt at fixed width (8 a layer, 10 for the student), six restarts for each penalty"
    restarts: int = 6
    steps: int = 300

    def refuses(self, task: Task) -> str | None:
        del task
        return None

    def fit(self, task: Task, draw: Draw, seed: int, clock: Clock) -> Fitted:
        data, rng = Data.of(task, draw, seed), np.random.default_rng([4, seed])
        fitter = LevenbergMarquardt()
        null = data.held.data_loss(data.network(1, task.hidden_layers, 0.0, rng))
        best, chosen, tried = None, 0.0, 0
        for l2 in data.penalties:
            for _ in range(self.restarts):
                net = data.network(task.width, task.hidden_layers, 1.0, rng)
                problem, left, value = data.train.with_l2(l2), self.steps, data.held.data_loss(net)
                found = Trained(net, 0, value)
                while left > 0 and not clock.over(1.0 - REFIT_SHARE):
                    run = fitter.run(problem, net, steps=20)
                    net, left = run.net, left - 20
                    value = data.held.data_loss(net)
                    if value < found.value:
                        found = Trained(net, self.steps - left, value)
                    if run.reason != "budget":
                        break
                tried += 1
                if best is None or found.value < best.value:
                    best, chosen = found, l2
                if best.value <= EXPLAINED * null or clock.over(1.0 - REFIT_SHARE):
                    break
            if best is not None and (best.value <= EXPLAINED * null or clock.over(1.0 - REFIT_SHARE)):
                break
        if best is None:
            raise ValueError("no penalties")
        net = best.net
        for _ in range(20):
            run = fitter.run(data.full.with_l2(chosen), net, steps=20)
            net = run.net
            if run.reason != "budget" or clock.over():
                break
        time_out = ", time ran out" if clock.over(1.0 - REFIT_SHARE) else ""
        return data.fitted(net, f"l2 {chosen:g}, {tried} starts{time_out}")


def methods() -> list[FullWidth | Restarts]:
    return [
        FullWidth(
            "gd",
            "gradient descent from small weights, width 50",
            descent,
            None,
            size=0.2,
        ),
        FullWidth(
            "adam",
            "Adam, width 50",
            adam,
            [(1e-2, 0.0), (1e-3, 0.0), (1e-2, 1e-4), (1e-3, 1e-3)],
            size=1.0,
        ),
        Restarts(),
    ]
