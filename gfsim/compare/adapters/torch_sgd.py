"""Plain gradient descent as it is usually written: torch modules, autograd and ``torch.optim.SGD``."""

from __future__ import annotations

import numpy as np
import torch

from gfsim.compare.adapters import Counter, Unsupported
from gfsim.compare.measure import Outcome
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference
from gfsim.compare.section import LossLevel, crossed
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward

METHODS = {"sgd": True}


class TorchSGD:
    """A ``torch.nn`` twin of a feed-forward net, trained by full-batch SGD without momentum."""

    def __init__(self, problem: Problem, model: FeedForward, activation: HomogeneousActivation) -> None:
        self.problem = problem
        self.model = model
        self.X = torch.as_tensor(np.array(problem.objective.X))
        self.y = torch.as_tensor(np.array(problem.objective.y))
        self._p, self._alpha = activation.p, activation.alpha
        self._mean = problem.objective.reduction == "mean"

    def _loss(self, layers: list[torch.nn.Linear]) -> torch.Tensor:
        h = self.X
        for layer in layers[:-1]:
            z = layer(h)
            h = torch.maximum(z, self._alpha * z) ** self._p
        loss = ((layers[-1](h) - self.y) ** 2).sum()
        return loss / len(self.X) if self._mean else loss

    def solve(self, method: str, setting: float, reference: Reference, limit: float) -> Outcome:
        del method
        counter = Counter(limit)
        layers = [torch.nn.Linear(cols, rows, bias=False, dtype=torch.float64) for rows, cols in self.model.shapes]
        with torch.no_grad():
            for layer, W in zip(layers, self.model.unpack(self.problem.w0), strict=True):
                layer.weight.copy_(torch.as_tensor(np.array(W)))
        step = setting / max(reference.stiffest, 1e-300)
        optimiser = torch.optim.SGD([layer.weight for layer in layers], lr=step)
        sections, o = self.problem.sections, self.problem.objective
        values = [section.value(o, self.problem.w0) for section in sections]
        states: dict[int, np.ndarray] = {}
        before = self.problem.w0
        look = any(not isinstance(section, LossLevel) for section in sections)
        last = len(sections) - 1
        while last not in states:
            counter.tick()
            optimiser.zero_grad()
            loss = self._loss(layers)
            loss.backward()
            value = float(loss.detach())
            w: np.ndarray | None = None
            for k, section in enumerate(sections):
                if k in states:
                    continue
                near = section.direction < 0 and value <= section.level
                if w is None and (look or near):
                    w = self._flat(layers)
                now = value if section.direction < 0 else section.value(o, w if w is not None else before)
                if w is not None and crossed(section, values[k], now):
                    states[k] = w  # a step of descent moves little; the error says how much
                values[k] = now
            optimiser.step()
        return Outcome(states, {"rhs": counter.calls, "steps": counter.calls})

    def _flat(self, layers: list[torch.nn.Linear]) -> np.ndarray:
        return np.concatenate([layer.weight.detach().numpy().ravel() for layer in layers]).copy()


def prepare(problem: Problem) -> TorchSGD:
    model = problem.objective.model
    if not isinstance(model, FeedForward) or not isinstance(model.activation, HomogeneousActivation):
        raise Unsupported("the torch twin is written for feed-forward nets with max(z, alpha z)^p")
    if problem.objective.loss.name != "square":
        raise Unsupported("the torch twin is written for the square loss")
    return TorchSGD(problem, model, model.activation)
