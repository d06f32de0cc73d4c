"""The NCF flow phi: du/dt = grad N(u), its limit direction and its blow-up time.

docs/theory.md, sections 2 and 4.  The limit of phi from a given start, not the best KKT point of
all, is what the near-saddle theorem predicts for the training flow from the same start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gfsim.arrays import finite_array
from gfsim.errors import InvalidInput
from gfsim.flow.clock import PhysicalTime, RescaledTime
from gfsim.flow.events import Event, Probe, slow
from gfsim.flow.field import Ascent, SphereAscent
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.ncf.kkt import Correlation, KKTPoint, make_point, polish, residual

Fate = Literal["escape", "collapse", "still", "undecided"]

SMALLEST_GROWTH = 100.0
"""Below this an escape cannot be told from a transient, nor the weights that take part from the others."""


@dataclass(frozen=True)
class PhiLimit:
    """Where the NCF flow goes from one start.

    Attributes
    ----------
    fate : "escape", "collapse", "still" or "undecided"
        To a KKT point while |u| grows; to zero; nowhere, since grad N vanishes at the start to rounding
        (dead neurons; a linear net of depth >= 3, where one neuron cannot raise the rank); or neither
        within the budget (the path says why).
    point : KKTPoint or None
        The limit direction, polished; None unless it escapes.
    time : float
        K > 2: the blow-up time, in the time of du/dt = grad N.  K = 2: the exponential rate 2 N*,
        inverted (the e-folding time of |u|^2 is 1/(4 N*)), that is 1/(2 N*).
    path : FlowResult
        The computed flow, in the clock ds = |u|^(K-2) dt.
    """

    fate: Fate
    point: KKTPoint | None
    time: float
    path: FlowResult = field(repr=False)


def ncf_field(ncf: Correlation) -> Ascent:
    """The field of phi, for :func:`gfsim.flow.simulate.simulate`."""
    return Ascent(ncf.value, ncf.gradient, ncf.hessian, ncf.size, ncf.degree, f"NCF flow of degree {ncf.degree:g}")


def limit(
    ncf: Correlation,
    z: np.ndarray,
    *,
    growth: float = 1e8,
    collapse: float = 1e-4,
    rtol: float = 1e-9,
    max_steps: int = 20_000,
) -> PhiLimit:
    """Follow phi from ``z`` (size,) until its direction has settled.

    Parameters
    ----------
    growth : float
        An escape is followed until |u| = growth |z|; weights that do not take part in it are then a
        fraction 1/growth of the rest.
    collapse : float
        A start is said to collapse when |u| <= collapse |z| with N <= 0 all the way.
    rtol, max_steps
        Of the integration (DOP853).

    The blow-up time adds to the integrated time the exact remainder 1/(K (K-2) N(u/|u|) |u|^(K-2)) of
    a flow that is already aligned.
    """
    start = finite_array(z, "z", ndim=1)
    if start.size != ncf.size:
        raise InvalidInput(f"z has {start.size} entries; this NCF has {ncf.size}")
    if not start.any():
        raise InvalidInput("z = 0 is a critical point of the NCF: phi stays there; give it a direction")
    if not growth >= SMALLEST_GROWTH or not 0 < collapse < 1:
        raise InvalidInput(
            f"growth = {growth!r}, collapse = {collapse!r}; growth must be at least {SMALLEST_GROWTH:g} "
            "and collapse lie between 0 and 1"
        )
    K = float(ncf.degree)
    size = float(np.linalg.norm(start))
    steep = float(np.linalg.norm(ncf.gradient(start / size)))
    if steep <= 1e-13 * K * float(getattr(ncf, "bound", 0.0)):
        return PhiLimit("still", None, math.inf, _standing(ncf, start))

    def grown(p: Probe) -> float:
        return math.log(float(np.linalg.norm(p.w)) / (growth * size))

    def shrunk(p: Probe) -> float:
        return math.log(max(float(np.linalg.norm(p.w)), 1e-300) / (collapse * size))

    path = simulate(
        ncf_field(ncf),
        start,
        t_end=math.inf,
        method="DOP853",  # in this clock the flow is not stiff, and no Hessian has to be factored
        clock=RescaledTime(K - 2.0) if K > 2 else PhysicalTime(),
        rtol=rtol,
        events=[Event("grown", grown, 1, 1), Event("collapsed", shrunk, -1, 1)],
        max_steps=max_steps,
    )
    u = path.final
    fate: Fate = "undecided"
    if path.events:
        fate = "escape" if path.events[-1].name == "grown" else "collapse"
    if fate != "escape":
        return PhiLimit(fate, None, math.inf, path)
    norm = float(np.linalg.norm(u))
    aligned = u / norm
    value = float(ncf.value(aligned))
    time = float(path.t[-1]) + 1.0 / (K * (K - 2.0) * value * norm ** (K - 2.0)) if K > 2 else 1.0 / (2.0 * value)
    return PhiLimit("escape", make_point(ncf, polish(ncf, _settle(ncf, aligned, growth))), time, path)


def _standing(ncf: Correlation, start: np.ndarray) -> FlowResult:
    """The record of a start that does not move."""
    return simulate(ncf_field(ncf), start, t_end=1.0, clock=PhysicalTime(), method="RK45", max_steps=1)


def _settle(ncf: Correlation, v: np.ndarray, growth: float) -> np.ndarray:
    """The limit of the direction flow from ``v``, where |u| has outgrown its start by ``growth``.

    With a second-order gap much smaller than N the direction is still turning at that point, and |u|
    would overflow long before it has settled.
    """
    v = v.copy()
    v[np.abs(v) < 10.0 / growth] = 0.0  # what did not take part is zero in the limit
    v /= np.linalg.norm(v)
    speed = float(np.linalg.norm(ncf.gradient(v)))
    if residual(ncf, v) <= 1e-6 * speed:
        return v
    run = simulate(
        SphereAscent(ncf_field(ncf)),
        v,
        t_end=1e6 / max(speed, 1e-300),
        method="LSODA",
        rtol=1e-8,
        events=[slow(1e-7 * speed)],
        max_steps=5_000,
    )
    return run.final
