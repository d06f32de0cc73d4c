"""Minimise the training loss between two additions of Neuron Pursuit, by descent or by the flow.

docs/theory.md, section 6.  The algorithm asks for the minimum that the FLOW reaches from the start: a
step so large that it leaves the flow's basin ends at another minimum and the next neuron is then
another one.  Every minimiser therefore reports its step, and its time in the objective's own
convention (sum or mean).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from gfsim.arrays import positive
from gfsim.errors import InvalidInput, unknown_name
from gfsim.losses import SquareLoss
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.pursuit.descent_loop import DescentLoop

GROWTH = 1e3
"""A descent whose loss has grown by this factor is unstable; weights get out of hand long before they overflow."""

Reason = Literal["stationary", "loss", "budget", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How a minimisation went.

    Attributes
    ----------
    w : (P,)
        Where it ended; finite always.
    loss_before, loss_after : float
    gradient_norm : float
        |grad L| at the end.
    steps : int
        Descent steps, accepted integrator steps, or evaluations of a polish.
    time : float
        Physical time, step x number of steps for descent; NaN for a polish, which follows no flow.
    reason : str
        ``stationary`` (the gradient is small), ``loss`` (the goal is reached), ``budget``, ``diverged``,
        ``failed`` (an integrator gave up), ``interrupted``.
    message : str
        The same in words, with the remedy if one is needed.
    trace_time, trace_loss : (m,)
        The loss along the way.
    """

    w: np.ndarray = field(repr=False)
    loss_before: float
    loss_after: float
    gradient_norm: float
    steps: int
    time: float
    reason: Reason
    message: str
    trace_time: np.ndarray = field(repr=False)
    trace_loss: np.ndarray = field(repr=False)


class Minimiser(Protocol):
    """A way down.  ``settings()`` plus ``name`` must be enough for :func:`make_minimiser` to make it again."""

    @property
    def name(self) -> str: ...

    def settings(self) -> dict[str, Any]: ...

    def run(self, objective: Objective, w: np.ndarray, *, loss_goal: float = 0.0, progress: bool = False) -> Outcome:
        """Go down from ``w`` (P,) until stationary, or until L <= ``loss_goal``, or the budget is spent."""
        ...


def near_stationary(gtol: float, first: float) -> float:
    """The gradient norm at which a run from a gradient of norm ``first`` counts as stationary.

    Next to a saddle the first gradient is itself of order delta^p: an absolute bound alone would stop
    the run before it has moved.
    """
    return min(gtol, 0.1 * first)


@dataclass(frozen=True)
class Descent:
    """Gradient descent with a fixed step; time = step x number of steps.

    Parameters
    ----------
    step : float
        Step size, in the objective's time.  It must resolve the flow: for a mean square loss with
        outputs of order one, 0.004 does and 0.02 does not.
    max_steps : int
    gtol : float
        Stationary when |grad L| <= gtol (and <= 0.1 of its first value).
    check_every : int
        Steps between two looks at loss and gradient.
    """

    step: float = 0.004
    max_steps: int = 40_000
    gtol: float = 1e-6
    check_every: int = 100
    name: str = field(default="descent", init=False)

    def __post_init__(self) -> None:
        positive(self.step, "step")
        positive(self.gtol, "gtol")
        _at_least_one(self.max_steps, "max_steps")
        _at_least_one(self.check_every, "check_every")

    def settings(self) -> dict[str, Any]:
        return _settings(self)

    def run(self, objective: Objective, w: np.ndarray, *, loss_goal: float = 0.0, progress: bool = False) -> Outcome:
        w, advance = _stepper(objective, w, self.step)
        with np.errstate(over="ignore", invalid="ignore"):
            loss, g = objective.value_and_gradient(w)
            before, goal = float(loss), near_stationary(self.gtol, float(np.linalg.norm(g)))
            times, losses = [0.0], [before]
            safe, safe_steps, done = w.copy(), 0, 0
            reason: Reason = "budget"
            bar = _bar(progress, self.max_steps, "descent")
            try:
                while done < self.max_steps:
                    chunk = min(self.check_every, self.max_steps - done)
                    advance(chunk)
                    done += chunk
                    loss, g = objective.value_and_gradient(w)
                    if not float(loss) <= GROWTH * before or not np.isfinite(g).all():
                        reason = "diverged"
                        break
                    safe, safe_steps = w.copy(), done
                    times.append(done * self.step)
                    losses.append(float(loss))
                    if bar is not None:
                        bar.update(chunk)
                        bar.set_postfix_str(f"loss {float(loss):.4g}", refresh=False)
                    if float(loss) <= loss_goal:
                        reason = "loss"
                        break
                    if float(np.linalg.norm(g)) <= goal:
                        reason = "stationary"
                        break
            except KeyboardInterrupt:
                reason = "interrupted"
            finally:
                if bar is not None:
                    bar.close()
        if reason in ("diverged", "interrupted"):
            w, done = safe, safe_steps
        remedy = {
            "diverged": (
                f"the loss grew {GROWTH:g}-fold or overflowed after step {safe_steps}, which no flow does; "
                f"take a smaller step than {self.step:g}"
            ),
            "budget": f"{self.max_steps} steps were taken; raise max_steps for a sharper minimum",
            "interrupted": f"interrupted after {done} steps; the weights so far are kept",
        }
        return _outcome(objective, w, before, done, done * self.step, reason, remedy.get(reason, ""), times, losses)


def _stepper(objective: Objective, start: np.ndarray, step: float) -> tuple[np.ndarray, Callable[[int], None]]:
    """The weights, a copy of ``start``, and a function that moves them in place by so many steps."""
    if isinstance(objective.model, FeedForward):
        loop = DescentLoop(objective, start, step)
        return loop.w, loop.advance
    w = start.copy()

    def advance(steps: int) -> None:
        for _ in range(steps):
            np.subtract(w, step * objective.gradient(w), out=w)

    return w, advance


@dataclass(frozen=True)
class FlowMinimiser:
    """Follow the gradient flow itself with :func:`gfsim.flow.simulate.simulate`.

    Parameters
    ----------
    t_end : float
        Longest physical time.
    method : str
        Any method of ``simulate`` without a fixed step; an implicit one near a saddle.
    rtol : float
    gtol : float
        As for :class:`Descent`.
    max_steps : int
        Accepted steps.
    """

    t_end: float = 160.0
    method: str = "LSODA"
    rtol: float = 1e-6
    gtol: float = 1e-6
    max_steps: int = 20_000
    name: str = field(default="flow", init=False)

    def __post_init__(self) -> None:
        from gfsim.flow.scipy_stepper import METHODS

        positive(self.t_end, "t_end")
        positive(self.rtol, "rtol")
        positive(self.gtol, "gtol")
        _at_least_one(self.max_steps, "max_steps")
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)

    def settings(self) -> dict[str, Any]:
        return _settings(self)

    def run(self, objective: Objective, w: np.ndarray, *, loss_goal: float = 0.0, progress: bool = False) -> Outcome:
        from gfsim.flow.events import loss_level, slow
        from gfsim.flow.result import Status
        from gfsim.flow.simulate import simulate

        loss, g = objective.value_and_gradient(w)
        before, first = float(loss), float(np.linalg.norm(g))
        if before <= loss_goal or first == 0.0:
            reason: Reason = "loss" if before <= loss_goal else "stationary"
            return _outcome(objective, w.copy(), before, 0, 0.0, reason, "", [0.0], [before])
        events = [slow(near_stationary(self.gtol, first))]
        if loss_goal > 0:
            events.append(loss_level(loss_goal))
        result = simulate(
            objective,
            w,
            t_end=self.t_end,
            method=self.method,
            clock="t",
            rtol=self.rtol,
            events=events,
            max_steps=self.max_steps,
            progress=progress,
        )
        reasons: dict[Status, Reason] = {
            Status.END_TIME: "budget",
            Status.MAX_STEPS: "budget",
            Status.INTERRUPTED: "interrupted",
            Status.OVERFLOW: "diverged",
        }
        if result.status is Status.EVENT:
            reason = "stationary" if result.events[-1].name == events[0].name else "loss"
        else:
            reason = reasons.get(result.status, "failed")
        message = "" if result.status is Status.EVENT else result.message
        return _outcome(
            objective,
            result.final.copy(),
            before,
            result.counts.accepted,
            float(result.t[-1]),
            reason,
            message,
            result.t,
            result.potential,
        )


@dataclass(frozen=True)
class Polish:
    """Second-order refinement at the end: Levenberg-Marquardt for the square loss, else Newton.

    It follows no flow, so a pursuit reports it as a step of its own, after and apart from the value
    that descent or flow reached.  The result is never worse than the start.

    Parameters
    ----------
    max_steps : int
        Evaluations of the residuals (square loss) or Newton iterations.
    """

    max_steps: int = 300
    name: str = field(default="polish", init=False)

    def __post_init__(self) -> None:
        _at_least_one(self.max_steps, "max_steps")

    def settings(self) -> dict[str, Any]:
        return _settings(self)

    def run(self, objective: Objective, w: np.ndarray, *, loss_goal: float = 0.0, progress: bool = False) -> Outcome:
        del loss_goal, progress  # it converges in a few evaluations and stops at rounding
        before = float(objective.value(w))
        try:
            refine = _levenberg_marquardt if isinstance(objective.loss, SquareLoss) else _newton
            trial, steps, reason, message = refine(objective, w, self.max_steps)
        except KeyboardInterrupt:
            return _outcome(objective, w.copy(), before, 0, np.nan, "interrupted", "interrupted", [], [])
        if not np.isfinite(trial).all() or not float(objective.value(trial)) <= before:
            return _outcome(objective, w.copy(), before, steps, np.nan, "failed", "no better point was found", [], [])
        return _outcome(objective, trial, before, steps, np.nan, reason, message, [], [])


def _levenberg_marquardt(objective: Objective, w: np.ndarray, max_steps: int) -> tuple[np.ndarray, int, Reason, str]:
    from scipy.optimize import least_squares

    model, X, y = objective.model, objective.X, objective.y
    enough = y.size >= w.size
    fit = least_squares(
        lambda v: (model.forward(v, X) - y).ravel(),
        w,
        jac=lambda v: model.jacobian(v, X).reshape(y.size, w.size),
        method="lm" if enough else "trf",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        max_nfev=max_steps,
    )
    if fit.status > 0:
        return fit.x, int(fit.nfev), "stationary", ""
    return fit.x, int(fit.nfev), "budget", f"{max_steps} evaluations were made; raise max_steps"


def _newton(objective: Objective, w: np.ndarray, max_steps: int) -> tuple[np.ndarray, int, Reason, str]:
    from scipy.optimize import minimize

    fit = minimize(
        lambda v: tuple(objective.value_and_gradient(v)),
        w,
        jac=True,
        hess=objective.hessian,
        method="trust-exact",
        options={"gtol": 1e-10, "maxiter": max_steps},
    )
    # at the limit of rounding the trust region fails to predict the last bit of improvement
    if fit.status == 0 or np.linalg.norm(fit.jac) <= 1e-7:
        return fit.x, int(fit.nit), "stationary", ""
    if fit.nit >= max_steps:
        return fit.x, int(fit.nit), "budget", f"{max_steps} iterations were made; raise max_steps"
    # on a kink no Newton step helps: the point is kept, and said to be less than stationary
    return fit.x, int(fit.nit), "failed", str(fit.message)


_NAMED: dict[str, type[Descent] | type[FlowMinimiser] | type[Polish]] = {
    "descent": Descent,
    "flow": FlowMinimiser,
    "polish": Polish,
}


def make_minimiser(minimiser: str | Minimiser, **settings: Any) -> Minimiser:
    """A minimiser by name (``descent``, ``flow``, ``polish``) and settings; an object is returned as it is."""
    if not isinstance(minimiser, str):
        if settings:
            raise InvalidInput("settings go with a minimiser's name, not with a minimiser object; set them on it")
        return minimiser
    if minimiser not in _NAMED:
        raise unknown_name("minimiser", minimiser, _NAMED)
    kind = _NAMED[minimiser]
    known = set(kind.__dataclass_fields__) - {"name"}
    for key in settings:
        if key not in known:
            raise unknown_name(f"setting of the minimiser {minimiser!r}", key, known)
    return kind(**settings)


def _settings(minimiser: Descent | FlowMinimiser | Polish) -> dict[str, Any]:
    settings = asdict(minimiser)
    del settings["name"]
    return settings


def _at_least_one(count: int, name: str) -> None:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise InvalidInput(f"{name} = {count!r}; it must be a whole number >= 1")


def _outcome(
    objective: Objective,
    w: np.ndarray,
    before: float,
    steps: int,
    time: float,
    reason: Reason,
    message: str,
    times: Any,
    losses: Any,
) -> Outcome:
    loss, g = objective.value_and_gradient(w)
    return Outcome(
        w=w,
        loss_before=before,
        loss_after=float(loss),
        gradient_norm=float(np.linalg.norm(g)),
        steps=steps,
        time=float(time),
        reason=reason,
        message=message,
        trace_time=np.asarray(times, dtype=float),
        trace_loss=np.asarray(losses, dtype=float),
    )


def _bar(wanted: bool, total: int, text: str) -> Any:
    if not wanted:
        return None
    from tqdm import tqdm

    return tqdm(total=total, desc=text, unit=" steps", mininterval=0.3, leave=False)
