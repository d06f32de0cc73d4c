"""What a simulated flow returns: the trajectory, its events, its cost, and how it ended."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from gfsim.errors import InvalidInput, UnknownName, unknown_name
from gfsim.flow.checkpoint import Checkpoint
from gfsim.flow.events import EventRecord
from gfsim.flow.field import Field


class Status(Enum):
    """How an integration ended; ``value`` is (went well, what happened, what to try)."""

    END_TIME = (True, "the end time was reached", "")
    EVENT = (True, "a terminal event happened", "")
    MAX_STEPS = (
        False,
        "the step budget was used up before the end",
        "raise max_steps; a stiff flow (explicit steps stay near 3/lambda_max) needs an implicit method; "
        "a plain-ReLU flow that slides along kinks needs method='RK23' with rtol about 1e-4, or a fixed step",
    )
    STEP_UNDERFLOW = (
        False,
        "the step fell below the spacing of floating-point numbers",
        "use the rescaled clock (clock='rescaled'); stop a flow that blows up by a norm event; "
        "loosen rtol if the activation has kinks",
    )
    OVERFLOW = (
        False,
        "the weights or their velocity overflowed and smaller steps did not help",
        "an NCF flow of degree > 2 blows up in finite time: stop it by a norm event; "
        "gradient descent with too large a step does so too: take a smaller step",
    )
    STANDSTILL = (
        False,
        "nothing moves any more, so no event will end the run",
        "look whether the start is near a minimum (gfsim.certify) or its neurons are dead; "
        "pick another saddle or direction, or give a finite t_end",
    )
    EVENT_UNDEFINED = (
        False,
        "an event's function returned NaN on this row of a batch",
        "make it return a number wherever the flow can go",
    )
    INTERRUPTED = (
        False,
        "interrupted by the user; the trajectory so far is kept",
        "run it again, or go on from .final",
    )

    @property
    def ok(self) -> bool:
        """Whether the integration ended as it was asked to."""
        return self.value[0]

    @property
    def explanation(self) -> str:
        """What happened and what to try, as a sentence."""
        _, what, remedy = self.value
        return f"{what}. Try: {remedy}." if remedy else f"{what}."


@dataclass
class Counts:
    """Cost of an integration, in evaluations rather than seconds."""

    velocity: int = 0
    jacobian: int = 0
    hessian_product: int = 0
    factorisations: int = 0
    accepted: int = 0
    rejected: int = 0
    overflow_rejected: int = 0
    event_probes: int = 0


@dataclass(frozen=True)
class Phase:
    """A stretch of the clock on which ``method="auto"`` used one method.

    ``start`` and ``end`` are clock values, ``steps`` accepted steps, ``stiffness`` the largest h |lambda| met.
    """

    method: str
    start: float
    end: float
    steps: int
    stiffness: float


@dataclass(eq=False)
class FlowResult:
    """A trajectory with m + 1 recorded states.

    Attributes
    ----------
    field : Field
        What flowed: the descent of an objective, or an NCF's ascent.
    method, clock, rtol
        Of the integration; ``rtol`` is None for a fixed step.
    s : (m + 1,)
        The clock of the integration.
    t : (m + 1,)
        Physical time, in the objective's convention (sum or mean: see ``label``).
    w : (m + 1, P)
        Weights; the last row is the end of the trajectory, not a best-so-far.
    dt : (m,)
        Physical time between consecutive rows, to full relative accuracy even when ``t`` itself is
        so large that its own differences would round to zero.
    events : list of EventRecord
    status, detail
        How it ended; ``detail`` adds the particulars (which event, where it failed).
    counts : Counts
    phases : list of Phase
        What ``method="auto"`` used when; empty for other methods.
    checkpoints : list of Checkpoint
        Those asked for by ``save_every``.
    """

    field: Field = dataclasses.field(repr=False)
    method: str
    clock: str
    s: np.ndarray = dataclasses.field(repr=False)
    t: np.ndarray = dataclasses.field(repr=False)
    w: np.ndarray = dataclasses.field(repr=False)
    dt: np.ndarray = dataclasses.field(repr=False)
    events: list[EventRecord] = dataclasses.field(repr=False)
    status: Status
    detail: str
    counts: Counts
    rtol: float | None = None
    phases: list[Phase] = dataclasses.field(default_factory=list, repr=False)
    checkpoints: list[Checkpoint] = dataclasses.field(default_factory=list, repr=False)

    @property
    def label(self) -> str:
        """What flowed, with its convention (sum or mean)."""
        return self.field.label

    @property
    def final(self) -> np.ndarray:
        """The weights at the end of the trajectory: (P,)."""
        return self.w[-1]

    @property
    def ok(self) -> bool:
        """Whether the end time or a terminal event was reached."""
        return self.status.ok

    @property
    def message(self) -> str:
        """What happened, with the particulars, and what to try."""
        return f"{self.detail or self.status.value[1]}" + (
            f". Try: {self.status.value[2]}" if self.status.value[2] else ""
        )

    @cached_property
    def potential(self) -> np.ndarray:
        """L along the recorded states (N along an NCF flow): (m + 1,)."""
        return np.array([float(self.field.potential(w)) for w in self.w])

    @property
    def loss(self) -> np.ndarray:
        """The potential of a training flow under its usual name: (m + 1,)."""
        return self.potential

    @cached_property
    def speed(self) -> np.ndarray:
        """|grad L| along the recorded states: (m + 1,)."""
        return np.array([float(np.linalg.norm(self.field.velocity(w))) for w in self.w])

    @cached_property
    def conserved_drift(self) -> float:
        """Largest change of any conserved quantity, relative to the largest |w|^2 on the way.

        Zero for an exact flow of a feed-forward net (its neuron balances are invariants); an
        integrator's error gauge that needs no reference solution.  NaN when the model has none.
        """
        values = self.field.conserved(self.w)
        if values.shape[-1] == 0:
            return math.nan
        return float(np.abs(values - values[0]).max() / (self.w**2).sum(-1).max())

    def time_between(self, first: int, last: int) -> float:
        """Physical time from row ``first`` to row ``last``, summed without cancellation."""
        return math.fsum(self.dt[first:last])

    def event(self, name: str, occurrence: int = 0) -> EventRecord:
        """The ``occurrence``-th record of the event whose name starts with ``name``."""
        found = [e for e in self.events if e.name.startswith(name)]
        if not found:
            raise unknown_name("recorded event", name, {e.name for e in self.events} or {"(none happened)"})
        if occurrence >= len(found):
            raise UnknownName(f"event {name!r} happened {len(found)} time(s); occurrence {occurrence} does not exist")
        return found[occurrence]

    def at_time(self, t: np.ndarray | float) -> np.ndarray:
        """Weights at physical times inside the run, linearly between recorded rows: (..., P).

        For values on a grid to the solver's own accuracy pass ``t_eval`` to
        :func:`gfsim.flow.simulate.simulate`, which records the interpolant there.
        """
        times = np.asarray(t, dtype=float)
        if (times < self.t[0]).any() or (times > self.t[-1]).any():
            raise InvalidInput(f"t outside the simulated interval [{self.t[0]:.6g}, {self.t[-1]:.6g}]")
        k = np.clip(np.searchsorted(self.t, times, side="right") - 1, 0, len(self.t) - 2)
        span = self.t[k + 1] - self.t[k]
        theta = np.where(span > 0, (times - self.t[k]) / np.where(span > 0, span, 1.0), 0.0)[..., None]
        return (1 - theta) * self.w[k] + theta * self.w[k + 1]

    def summary(self) -> str:
        """A few lines: how it ended, what it cost, how far invariants drifted."""
        c = self.counts
        drift = self.conserved_drift
        kept = (
            "no quantity is known to be conserved" if math.isnan(drift) else f"conserved quantities drift {drift:.1e}"
        )
        lines = [
            f"{self.label}",
            f"  {self.method}, clock {self.clock}: {self.status.name.lower()}: {self.message}",
            f"  t = {self.t[-1]:.6g}, loss {float(self.field.potential(self.w[0])):.6g} -> "
            f"{float(self.field.potential(self.w[-1])):.6g}",
            f"  {c.accepted} steps, {c.velocity} velocities, {c.jacobian} Jacobians, "
            f"{c.hessian_product} Hessian-vector products, {c.factorisations} factorisations, "
            f"{c.overflow_rejected} overflows rejected; "
            f"{kept}",
        ]
        lines += [
            f"  {p.method} from s = {p.start:.6g} to {p.end:.6g}: {p.steps} steps, h |lambda| up to {p.stiffness:.3g}"
            for p in self.phases
        ]
        lines += [f"  event {e.name}: t = {e.t:.6g}" for e in self.events]
        return "\n".join(lines)
