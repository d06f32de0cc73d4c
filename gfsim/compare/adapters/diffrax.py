"""diffrax: the flow compiled by JAX, events located by its root finder, from section to section.

JAX differentiates and fuses a twin of the objective; time spent compiling is measured apart, by solving twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gfsim.compare.adapters import Unsupported, tolerances
from gfsim.compare.measure import Outcome
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference
from gfsim.compare.section import LossLevel, Section
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward

jax.config.update("jax_enable_x64", True)

import diffrax  # noqa: E402 - after the switch to float64
import jax.numpy as jnp  # noqa: E402
import optimistix  # noqa: E402

METHODS = {"Tsit5": False, "Dopri8": False, "Kvaerno5": False}

MAX_STEPS = 2_000_000
HORIZON = 2.0


class Diffrax:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.loss = jax_loss(problem)
        self._gradient = jax.grad(self.loss)
        self._solvers: dict[tuple[str, int], Callable[..., Any]] = {}

    def solve(self, method: str, setting: float, reference: Reference, limit: float) -> Outcome:
        del limit  # compiled code cannot be stopped from within: the parent process does it
        compiled = 0.0
        atol = jnp.asarray(tolerances(self.problem, setting))
        rtol = jnp.asarray(setting)
        end = HORIZON * reference.t_end
        for k in range(len(self.problem.sections)):
            if (method, k) not in self._solvers:
                self._solvers[method, k] = jax.jit(self._stage(method, self.problem.sections[k]))
                began = time.perf_counter()
                # the first call compiles; its result is thrown away
                out = self._solvers[method, k](
                    jnp.asarray(reference.places[k].states[0]), jnp.asarray(0.0), jnp.asarray(end), rtol, atol
                )
                jax.block_until_ready(out)
                compiled += time.perf_counter() - began
        outcome = Outcome(compile_seconds=compiled)
        steps = rejected = 0
        w, t = jnp.asarray(self.problem.w0), jnp.asarray(0.0)
        for k, section in enumerate(self.problem.sections):
            w, t, met, accepted, refused = jax.block_until_ready(
                self._solvers[method, k](w, t, jnp.asarray(end), rtol, atol)
            )
            steps, rejected = steps + int(accepted), rejected + int(refused)
            if not bool(met):
                outcome.failure = (
                    f"diffrax: {section.name} was not met by {HORIZON:g} times the time it takes, "
                    f"or in {MAX_STEPS} steps ({steps} accepted)"
                )
                break
            outcome.states[k] = np.asarray(w)
        stages = {"Tsit5": 6, "Dopri8": 13}.get(method, 0)
        outcome.counts = {"steps": steps, "rhs": stages * (steps + rejected)}
        return outcome

    def _stage(self, method: str, section: Section) -> Callable[..., Any]:
        solver = getattr(diffrax, method)()
        level = section.level
        block = None if isinstance(section, LossLevel) else jnp.asarray(section.block)

        # diffrax passes these arguments by name
        def velocity(t: Any, y: Any, args: Any) -> Any:
            del t, args
            return -self._gradient(y)

        def gauge(t: Any, y: Any, args: Any, **rest: Any) -> Any:
            del t, args, rest
            return (self.loss(y) if block is None else jnp.linalg.norm(y[block])) / level - 1.0

        term = diffrax.ODETerm(velocity)
        event = diffrax.Event(gauge, optimistix.Newton(1e-10, 1e-12), direction=section.direction > 0)

        def run(w: Any, t0: Any, t1: Any, rtol: Any, atol: Any) -> Any:
            solution = diffrax.diffeqsolve(
                term,
                solver,
                t0,
                t1,
                None,
                w,
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
                event=event,
                max_steps=MAX_STEPS,
                throw=False,
                adjoint=diffrax.ForwardMode(),
            )
            met = solution.result == diffrax.RESULTS.event_occurred
            s = solution.stats
            return solution.ys[-1], solution.ts[-1], met, s["num_accepted_steps"], s["num_rejected_steps"]

        return run


def jax_loss(problem: Problem) -> Callable[[Any], Any]:
    """L(w) in JAX for feed-forward nets with max(z, alpha z)^p."""
    o = problem.objective
    model = o.model
    if not isinstance(model, FeedForward) or not isinstance(model.activation, HomogeneousActivation):
        raise Unsupported("the JAX twin is written for feed-forward nets with max(z, alpha z)^p")
    p, alpha = model.activation.p, model.activation.alpha
    X, y, scale = jnp.asarray(o.X), jnp.asarray(o.y), o.scale
    logistic = o.loss.name == "logistic"
    ends = np.cumsum([rows * cols for rows, cols in model.shapes])
    shapes = model.shapes

    def loss(w: Any) -> Any:
        parts = [w[end - rows * cols : end].reshape(rows, cols) for end, (rows, cols) in zip(ends, shapes, strict=True)]
        h = X
        for W in parts[:-1]:
            z = h @ W.T
            base = z if alpha == 1.0 else jnp.maximum(z, alpha * z)
            h = base * base if p == 2 else base**p
        q = h @ parts[-1].T
        each = jnp.logaddexp(0.0, -y * q) if logistic else (q - y) ** 2
        return scale * each.sum()

    return loss


def prepare(problem: Problem) -> Diffrax:
    return Diffrax(problem)
