"""What came of a batch: the record of every trajectory, and all of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.flow.events import EventRecord
from gfsim.flow.field import Field
from gfsim.flow.result import Counts, FlowResult, Phase, Status


@dataclass
class Trace:
    """One trajectory of a batch while it runs."""

    w: list[np.ndarray]
    s: list[float] = dataclasses.field(default_factory=lambda: [0.0])
    t: list[float] = dataclasses.field(default_factory=lambda: [0.0])
    dt: list[float] = dataclasses.field(default_factory=list)
    pending: float = 0.0
    events: list[EventRecord] = dataclasses.field(default_factory=list)
    hits: dict[str, int] = dataclasses.field(default_factory=dict)
    at_targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    status: Status = Status.MAX_STEPS
    detail: str = ""
    counts: Counts = dataclasses.field(default_factory=Counts)
    phases: list[Phase] = dataclasses.field(default_factory=list)

    def add(self, s: float, t: float, w: np.ndarray, elapsed: float) -> None:
        """A row at ``elapsed`` after the last one that was added or left pending."""
        self.s.append(s)
        self.t.append(t)
        self.w.append(w)
        self.dt.append(self.pending + elapsed)
        self.pending = 0.0


@dataclass
class BatchResult:
    """B trajectories; ``result[k]`` is the k-th as a :class:`gfsim.flow.result.FlowResult`.

    Attributes
    ----------
    field : Field
        What flowed; ``field.label`` says it with its convention (sum or mean).
    method, clock, rtol
        Of the integration; ``rtol`` is None for a fixed step.
    traces : list of Trace
        What was recorded, a row each.
    targets : (len(t_eval),) or None
        The times asked for.
    final : (B, P)
        Where each ended.
    t : (B,)
        Physical time of the end, in the objective's convention (sum or mean).
    ok : (B,) of bool
        Whether the end time or a terminal event was reached.
    status : list of Status
    at_times : (B, len(t_eval), P)
        Weights at ``t_eval``; NaN at times that a trajectory did not reach.
    """

    field: Field = dataclasses.field(repr=False)
    method: str
    clock: str
    rtol: float | None
    traces: list[Trace] = dataclasses.field(repr=False)
    targets: np.ndarray | None = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.traces)

    def __iter__(self) -> Iterator[FlowResult]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> FlowResult:
        trace = self.traces[k]
        return FlowResult(
            field=self.field,
            method=self.method,
            clock=self.clock,
            s=np.array(trace.s),
            t=np.array(trace.t),
            w=np.array(trace.w),
            dt=np.array(trace.dt),
            events=trace.events,
            status=trace.status,
            detail=trace.detail,
            counts=trace.counts,
            rtol=self.rtol,
            phases=trace.phases,
        )

    @property
    def final(self) -> np.ndarray:
        """Where each flow ended: (B, P)."""
        return np.array([trace.w[-1] for trace in self.traces])

    @property
    def t(self) -> np.ndarray:
        """Physical time of each end, in the objective's convention: (B,)."""
        return np.array([trace.t[-1] for trace in self.traces])

    @property
    def status(self) -> list[Status]:
        """How each flow ended."""
        return [trace.status for trace in self.traces]

    @property
    def ok(self) -> np.ndarray:
        """Whether each reached its end time or a terminal event: (B,) of bool."""
        return np.array([trace.status.ok for trace in self.traces])

    @property
    def counts(self) -> Counts:
        """The cost of all rows together."""
        total = Counts()
        for name in total.__dataclass_fields__:
            setattr(total, name, sum(getattr(trace.counts, name) for trace in self.traces))
        return total

    @property
    def at_times(self) -> np.ndarray:
        """Weights at ``t_eval``: (B, len(t_eval), P); NaN where a flow did not get."""
        if self.targets is None:
            raise InvalidInput("no t_eval was given to simulate_batch; pass the times to be recorded")
        out = np.full((len(self), len(self.targets), self.field.size), np.nan)
        for k, trace in enumerate(self.traces):
            if trace.at_targets:
                out[k, : len(trace.at_targets)] = trace.at_targets
        return out

    def summary(self) -> str:
        """A few lines: how many ended how, what it cost."""
        kinds: dict[str, int] = {}
        for status in self.status:
            kinds[status.name.lower()] = kinds.get(status.name.lower(), 0) + 1
        c = self.counts
        lines = [
            f"{len(self)} flows: {self.field.label}",
            f"  {self.method}, clock {self.clock}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()),
            f"  {c.accepted} steps, {c.velocity} velocities, {c.jacobian} Jacobians, "
            f"{c.hessian_product} Hessian-vector products, {c.overflow_rejected} overflows rejected",
        ]
        lines += [
            f"  row {k}: {trace.detail}. Try: {trace.status.value[2]}."
            for k, trace in enumerate(self.traces)
            if not trace.status.ok
        ][:5]
        return "\n".join(lines)
