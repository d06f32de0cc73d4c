"""Figure 2 of [BEYOND]: the escape from the origin that can be solved in closed form.

H(x; w) = w1^2 x1 + w2^2 x2 on the data (1,0) -> 4 and (0,1) -> 1, so L = (w1^2 - 4)^2 + (w2^2 - 1)^2 (sum of
squares).  From w(0) = d (1, 1)/sqrt 2 both weights have closed forms (docs/theory.md, section 3); the flow
passes the saddle (2, 0), which it reaches after about ln(1/d)/16, and leaves it for the minimum (2, 1) at
about ln(1/d)/4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gfsim.flow.events import arrival, departure
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective
from paper_repro.claims import CLOSED_FORM, Claim
from paper_repro.figure import Context, Outcome

SHOWN = (0.1, 0.05, 0.001)
"""The paper's values of delta."""

SADDLE, MINIMUM = np.array([2.0, 0.0]), np.array([2.0, 1.0])
RADIUS = 0.25
"""Size of the ball around the saddle whose entry and exit are timed."""


def objective() -> Objective:
    return Objective(DiagonalLinear(2, 2, tied=True), np.eye(2), np.array([4.0, 1.0]), reduction="sum")


def closed_form(t: np.ndarray, d: float) -> np.ndarray:
    """psi(t, d (1,1)/sqrt 2): (len(t), 2)."""
    w1 = 2 * d / np.sqrt(d**2 + (8 - d**2) * np.exp(-32 * t))
    w2 = d / np.sqrt(d**2 + (2 - d**2) * np.exp(-8 * t))
    return np.stack([w1, w2], axis=-1)


def limit_path(t: np.ndarray) -> np.ndarray:
    """p(t), the path along which the flow escapes as delta -> 0: (len(t), 2)."""
    return np.stack([2 / np.sqrt(1 + 4 * np.exp(-32 * t)), 0 * t], axis=-1)


def flow(d: float, t_end: float, t_eval: np.ndarray) -> FlowResult:
    events = [arrival(SADDLE, RADIUS, terminal=0), departure(SADDLE, RADIUS, terminal=0)]
    start = d * np.ones(2) / math.sqrt(2)
    return simulate(objective(), start, t_end=t_end, method="DOP853", rtol=1e-11, events=events, t_eval=t_eval)


def run(ctx: Context) -> Outcome:
    deltas = np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
    points = 2000 if ctx.full else 400
    errors, arrivals, exits, exact_exits, velocities = [], [], [], [], []
    for d in deltas:
        ctx.note(f"delta = {d:g}")
        t_end = 0.5 * math.log(1 / d) + 2.0
        t = np.linspace(t_end / points, t_end, points)
        result = flow(float(d), t_end, t)
        rows = np.searchsorted(t, result.t[1:])
        errors.append(float(np.abs(result.w[1:] - closed_form(t[np.minimum(rows, points - 1)], float(d))).max()))
        arrivals.append(result.event("arrival").t)
        exits.append(result.event("exit").t)
        exact_exits.append(_exact_exit(float(d)))
        velocities.append(result.counts.velocity)
    small = deltas <= 1e-3
    logs = np.log(1 / deltas[small])
    arrival_rate = float(np.polyfit(logs, np.array(arrivals)[small], 1)[0])
    exit_rate = float(np.polyfit(logs, np.array(exits)[small], 1)[0])
    exit_error = np.abs(np.array(exits) - np.array(exact_exits))

    numbers = {
        "delta": deltas,
        "error": errors,
        "velocity_evaluations": velocities,
        "arrival": arrivals,
        "exit": exits,
        "exit_closed_form": exact_exits,
        "exit_error": exit_error,
        "arrival_rate": arrival_rate,
        "exit_rate": exit_rate,
    }
    claims = [
        Claim.at_most(
            "largest error of the flow against the closed form", errors, 1e-6, of="error", source=CLOSED_FORM
        ),
        Claim.at_most("error of the exit time from the saddle", exit_error, 1e-7, of="exit_error", source=CLOSED_FORM),
        Claim.close(
            "time to the saddle per ln(1/delta)", arrival_rate, 1 / 16, rtol=1e-3, of="arrival_rate", source=CLOSED_FORM
        ),
        Claim.close(
            "time of the exit per ln(1/delta)", exit_rate, 1 / 4, rtol=1e-3, of="exit_rate", source=CLOSED_FORM
        ),
    ]
    return Outcome(
        figure=_draw(ctx, numbers),
        claims=claims,
        numbers=numbers,
        caption=(
            "Gradient flow of L = (w1^2 - 4)^2 + (w2^2 - 1)^2 (sum of squares) from delta (1, 1)/sqrt 2. Left: "
            "contours of log10 L, the computed flow for t in [0, 3] and the limit path p(t), t in [-1, 1], which "
            "stops at the saddle (2, 0). Middle: the same flows in time, dots: closed form. Right: the largest "
            "distance between the computed flow (DOP853, rtol 1e-11) and the closed form up to t = ln(1/delta)/2 + 2."
        ),
        convention="sum",
    )


def _exact_exit(d: float) -> float:
    """When psi leaves the ball of RADIUS around the saddle, from the closed form."""
    from scipy.optimize import brentq

    def gap(t: float) -> float:
        return float(np.linalg.norm(closed_form(np.array([t]), d)[0] - SADDLE)) - RADIUS

    t = np.linspace(0.0, math.log(1 / d) / 4 + 2.0, 20_001)
    inside = np.linalg.norm(closed_form(t, d) - SADDLE, axis=-1) < RADIUS
    last = int(np.flatnonzero(inside)[-1])
    return float(brentq(gap, t[last], t[last + 1], xtol=1e-14))


def _draw(ctx: Context, numbers: dict[str, Any]) -> Any:
    fig, (plane, time, error) = ctx.subplots(1, 3, size=(11.5, 3.8), width_ratios=[1.25, 1.15, 1.0])
    g1, g2 = np.meshgrid(np.linspace(-0.1, 2.35, 241), np.linspace(-0.1, 1.35, 161))
    loss = (g1**2 - 4) ** 2 + (g2**2 - 1) ** 2
    levels = np.log10(loss + 1e-3)
    plane.contourf(g1, g2, levels, levels=24, cmap="Greys", alpha=0.55)
    plane.grid(visible=False)
    for k, d in enumerate(SHOWN):
        result = flow(d, 3.0, np.linspace(0.005, 3.0, 600))
        plane.plot(result.w[:, 0], result.w[:, 1], color=f"C{k}", label=rf"$\psi$, $\delta$ = {d:g}")
        time.plot(result.t, result.w[:, 0], color=f"C{k}", label=rf"$\delta$ = {d:g}")
        time.plot(result.t, result.w[:, 1], color=f"C{k}", ls="--")
        t = np.linspace(0, 3, 26)
        time.plot(t, closed_form(t, d), ".", color=f"C{k}", ms=4)
    path = limit_path(np.linspace(-1, 1, 400))
    plane.plot(path[:, 0], path[:, 1], "k:", lw=2.2, label="$p(t)$")
    plane.plot(*SADDLE, "s", color="k", ms=6, mfc="white")
    plane.plot(*MINIMUM, "*", color="k", ms=11)
    plane.annotate("saddle", SADDLE, xytext=(-8, -14), textcoords="offset points", ha="right")
    plane.annotate("minimum", MINIMUM, xytext=(-4, 10), textcoords="offset points", ha="center")
    plane.set(xlabel="$w_1$", ylabel="$w_2$", title="Flow in the plane of weights")
    plane.legend(loc="upper left", frameon=True, framealpha=0.9)
    time.set(xlabel="time $t$ (sum of squares)", ylabel="weight", title="$w_1$ (solid) and $w_2$ (dashed)")
    time.legend(loc=(0.56, 0.55))
    error.loglog(numbers["delta"], numbers["error"], "o-")
    error.axhline(1e-6, color="C1", ls="--", lw=1)
    error.annotate("claimed bound", (1e-7, 1e-6), xytext=(0, -12), textcoords="offset points", color="C1")
    error.set(
        xlabel=r"$\delta$",
        ylabel="largest error",
        title="Against the closed form",
        ylim=(1e-12, 1e-5),
        xticks=10.0 ** np.arange(-12, 0, 3),
    )
    return fig
