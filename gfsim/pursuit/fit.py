"""Minimise the loss of a grown network: Levenberg-Marquardt, L-BFGS, or the gradient flow.

The published algorithm follows the flow (:mod:`gfsim.pursuit.minimise`); the methods here go to a
minimum as fast as they can.  None ever returns a larger loss than that of its start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from scipy.linalg.lapack import dposv

from gfsim.arrays import positive, whole_number
from gfsim.errors import InvalidInput, unknown_name
from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem

ROUNDING = 1e-15
"""A step that is to lower the loss by a smaller part cannot be seen to do so, nor can a shorter one."""

FitReason = Literal["stationary", "loss", "budget", "failed"]


@dataclass(frozen=True, eq=False)
class Fit:
    """How a minimisation ended.

    Attributes
    ----------
    net : Network
    loss : float
        With the penalty.
    steps : int
        Accepted steps.
    reason : str
        ``stationary``, ``loss`` (the goal is reached), ``budget``, ``failed`` (nothing lower was found).
    """

    net: Network = field(repr=False)
    loss: float
    steps: int
    reason: FitReason


class Fitter(Protocol):
    """A way down; ``steps`` overrides its own budget, for short trials."""

    def run(self, problem: Problem, net: Network, *, goal: float = 0.0, steps: int | None = None) -> Fit: ...


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Damped Gauss-Newton; generalised Gauss-Newton for logistic and softmax.

    Solves (A + damping D) step = -g with A = sum_i v_i J_i' l''_i J_i and D the diagonal of A, raised to a small
    part of its mean (a plain diagonal would leave almost dead neurons undamped).

    Parameters
    ----------
    steps : int
        Most accepted steps.
    rtol : float
        Stop after ``flat`` steps in a row that each lower the loss by less than this relatively: next to a
        saddle the first steps are short, so one short step is no sign of arrival.
    flat : int
    """

    steps: int = 80
    rtol: float = 1e-7
    flat: int = 6

    def __post_init__(self) -> None:
        whole_number(self.steps, "steps")
        whole_number(self.flat, "flat")
        positive(self.rtol, "rtol")

    def run(self, problem: Problem, net: Network, *, goal: float = 0.0, steps: int | None = None) -> Fit:
        budget = self.steps if steps is None else steps
        theta, damping, here = net.theta, 1e-2, problem.at(net)
        done = short = 0
        reason: FitReason = "budget"
        while done < budget:
            if here.loss <= goal:
                break
            g, A = here.normal_equations()
            system = _Damped(g, A)
            there = None
            while damping < 1e12:
                step = system.step(damping)
                if step is not None:
                    with np.errstate(over="ignore", invalid="ignore"):
                        trial = problem.at(net.with_theta(theta + step))
                    if trial.loss < here.loss:
                        there = trial
                        break
                    if -float(g @ step) < ROUNDING * here.loss:
                        break
                damping *= 4.0
            if there is None or step is None:
                reason = "stationary" if done else "failed"
                break
            fell = here.loss - there.loss
            expected = -float(g @ step) - 0.5 * float(step @ (A @ step))
            ratio = fell / expected if expected > 0 else 1.0
            damping = max(damping * (0.1 if ratio > 0.75 else 0.5 if ratio > 0.25 else 2.0), 1e-14)
            short = short + 1 if fell < self.rtol * here.loss else 0
            theta, here, done = theta + step, there, done + 1
            if short >= self.flat:
                reason = "stationary"
                break
        if here.loss <= goal:
            reason = "loss"
        return Fit(here.net, here.loss, done, reason)


class _Damped:
    """(A + damping D) step = -g for one damping after another, scaled to D = 1 once."""

    def __init__(self, g: np.ndarray, A: np.ndarray) -> None:
        D = np.diag(A)
        self.scale = 1.0 / np.sqrt(np.maximum(D, 1e-6 * float(D.mean()) + 1e-300))
        self.M = A * self.scale
        self.M *= self.scale[:, None]
        self.slope = self.scale * g

    def step(self, damping: float) -> np.ndarray | None:
        """None where the matrix is not positive definite to rounding."""
        M = self.M.copy()
        M.flat[:: len(M) + 1] += damping
        # M is symmetric, so that its transpose, which needs no copy for LAPACK, will do
        _, solution, info = dposv(M.T, self.slope, overwrite_a=True)
        if info or not np.isfinite(solution).all():
            return None
        return -self.scale * solution


@dataclass(frozen=True)
class LBFGS:
    """scipy's L-BFGS-B: memory and cost linear in samples and parameters.

    Parameters
    ----------
    steps : int
    rtol : float
        Relative decrease of the loss at which it stops.
    """

    steps: int = 300
    rtol: float = 1e-9

    def __post_init__(self) -> None:
        whole_number(self.steps, "steps")
        positive(self.rtol, "rtol")

    def run(self, problem: Problem, net: Network, *, goal: float = 0.0, steps: int | None = None) -> Fit:
        from scipy.optimize import minimize

        start, slope = problem.loss_and_gradient(net)
        if start <= goal or start == 0.0:
            return Fit(net, start, 0, "loss")
        origin = net.theta
        best = (start, origin)

        def function(theta: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal best
            if np.array_equal(theta, origin):  # scipy asks for the start first: known already
                return 1.0, slope / start
            with np.errstate(over="ignore", invalid="ignore"):
                loss, g = problem.loss_and_gradient(net.with_theta(theta))
            if not (np.isfinite(loss) and np.isfinite(g).all()):
                return 1e30, np.zeros_like(g)
            if loss < best[0]:
                best = (loss, theta.copy())
            # in units of the first loss: scipy's stopping rules are absolute
            return loss / start, g / start

        def look(intermediate_result: Any) -> None:
            if intermediate_result.fun * start <= goal:
                raise StopIteration

        end = minimize(
            function,
            origin,
            jac=True,
            method="L-BFGS-B",
            callback=look,
            options={"maxiter": self.steps if steps is None else steps, "ftol": self.rtol, "gtol": 1e-12, "maxcor": 20},
        )
        loss, theta = best
        reason: FitReason = "loss" if loss <= goal else "budget" if end.status == 1 else "stationary"
        return Fit(net.with_theta(theta), loss, int(end.nit), "failed" if loss >= start else reason)


@dataclass(frozen=True)
class Flow:
    """The gradient flow itself, by the integrator of :mod:`gfsim.flow`: slow, and true to the theory.

    For the square loss without penalty, intercept and sample weights.
    """

    t_end: float = 160.0
    method: str = "LSODA"

    def run(self, problem: Problem, net: Network, *, goal: float = 0.0, steps: int | None = None) -> Fit:
        from gfsim.objective import Objective
        from gfsim.pursuit.minimise import FlowMinimiser

        v = problem.weights
        if problem.risk.name != "square" or problem.l2 or net.intercept.size or float(np.ptp(v)) > 1e-12 * v.max():
            raise InvalidInput(
                "the flow is that of the plain mean square loss: set l2 = 0, fit_intercept = False, pass no sample "
                "weights, or take fitter = 'auto'"
            )
        model, w = net.feed_forward()
        objective = Objective(model, problem.X, problem.Y, reduction="mean")
        settings = {} if steps is None else {"max_steps": steps}
        outcome = FlowMinimiser(t_end=self.t_end, method=self.method, **settings).run(objective, w, loss_goal=goal)
        if not outcome.loss_after < outcome.loss_before:
            return Fit(net, outcome.loss_before, 0, "failed")
        reason: FitReason = {"stationary": "stationary", "loss": "loss"}.get(outcome.reason, "budget")  # type: ignore[assignment]
        return Fit(net.with_theta(outcome.w), outcome.loss_after, outcome.steps, reason)


@dataclass(frozen=True)
class Automatic:
    """Levenberg-Marquardt while its normal equations are cheap, else L-BFGS.

    Parameters
    ----------
    largest : float
        Most multiplications, samples x outputs x parameters^2, of one normal matrix; a third with more than two
        classes, whose outputs are coupled.
    work : float
        Samples x outputs x parameters x steps that one run of L-BFGS may cost; it makes at least 10 steps.  A
        network that grows is minimised again and again, so with many samples a short run each time is enough.
    second_order, first_order, classes
        The three ways down; ``classes`` is that of the softmax where Levenberg-Marquardt is dear: the last digits of a
        small loss are not what a penalised likelihood asks for.
    """

    largest: float = 3e8
    work: float = 3e9
    second_order: LevenbergMarquardt = field(default_factory=LevenbergMarquardt)
    first_order: LBFGS = field(default_factory=LBFGS)
    classes: LBFGS = field(default_factory=lambda: LBFGS(rtol=1e-6))

    def cheap(self, problem: Problem, net: Network) -> bool:
        """Whether Levenberg-Marquardt is used."""
        most = self.largest / 3.0 if problem.risk.name == "softmax" else self.largest
        return problem.n_samples * problem.n_outputs * float(net.n_params) ** 2 <= most

    def run(self, problem: Problem, net: Network, *, goal: float = 0.0, steps: int | None = None) -> Fit:
        if self.cheap(problem, net):
            return self.second_order.run(problem, net, goal=goal, steps=steps)
        if steps is None:
            steps = int(np.clip(self.work / (problem.Y.size * net.n_params), 10, self.first_order.steps))
        way = self.classes if problem.risk.name == "softmax" else self.first_order
        return way.run(problem, net, goal=goal, steps=steps)


_NAMED: dict[str, type[Automatic] | type[LevenbergMarquardt] | type[LBFGS] | type[Flow]] = {
    "auto": Automatic,
    "lm": LevenbergMarquardt,
    "lbfgs": LBFGS,
    "flow": Flow,
}


def make_fitter(fitter: str | Fitter) -> Fitter:
    """A fitter by name (``auto``, ``lm``, ``lbfgs``, ``flow``); an object is returned as it is."""
    if not isinstance(fitter, str):
        if isinstance(fitter, type) or not callable(getattr(fitter, "run", None)):
            raise InvalidInput(f"fitter = {fitter!r}; give one of {sorted(_NAMED)}, or an object with a method 'run'")
        return fitter
    if fitter not in _NAMED:
        raise unknown_name("fitter", fitter, _NAMED)
    return _NAMED[fitter]()
