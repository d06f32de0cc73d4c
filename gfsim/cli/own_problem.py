"""A user's own flow, in the format of ``gfsim simulate``, as a problem to compare integrators on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gfsim.cli import config
from gfsim.cli.config import EventSpec, Simulation
from gfsim.cli.experiment import Start, build_clock, build_event, build_objective, build_start
from gfsim.compare.problems import KINKED_AGREEMENT, SMOOTH_AGREEMENT, Problem
from gfsim.compare.section import LossLevel, Section, SizeLevel
from gfsim.errors import InvalidInput
from gfsim.flow.result import FlowResult, Status
from gfsim.flow.simulate import simulate
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective

HEUN_STEPS = 40_000
"""Fixed steps that the reference of a flow with kinks takes."""

FALL = (0.5, 0.999)
"""Fractions of the loss's whole fall at which states are compared when no loss or norm event ends the run."""


def own_problem(path: Path, *, seed: int | None = None, note: Callable[[str], None] = lambda _: None) -> Problem:
    """The problem that a TOML file describes.

    A loss or norm event that stops the run is the place of comparison.  A run that ends otherwise (by time, by
    standing still) is compared where half of its fall of the loss is done, and where all but a thousandth is; a
    pilot run finds these levels.

    Raises
    ------
    InvalidInput
        For a wrong file, or a flow whose end cannot be told apart from its start.
    """
    request = config.read(path, seed=seed)
    objective = build_objective(request)
    start = build_start(request.start, request.data, objective)
    stops = [event for event in request.events if event.stop and event.kind in ("loss", "norm")]
    kinked = _has_kinks(objective)
    pilot: FlowResult | None = None
    if not stops or kinked:
        note("a pilot run, to find where to compare")
        pilot = _pilot(request, objective, start, kinked=kinked)
    sections = (_section(stops[-1], start),) if stops else _levels(path, pilot)
    return Problem(
        path.stem,
        f"the flow of {path.name}",
        objective,
        start.w,
        sections,
        clock=build_clock(request, start),
        blocks=tuple(start.saddle.blocks) if start.saddle else (),
        agreement=KINKED_AGREEMENT if kinked else SMOOTH_AGREEMENT,
        step=float(pilot.t[-1]) / HEUN_STEPS if kinked and pilot is not None else 0.0,
        note=start.note,
    )


def _has_kinks(objective: Objective) -> bool:
    model = objective.model
    if not isinstance(model, FeedForward) or model.depth == 1:
        return False
    return isinstance(model.activation, HomogeneousActivation) and not model.activation.smooth


def _pilot(request: Simulation, objective: Objective, start: Start, *, kinked: bool) -> FlowResult:
    options: dict[str, Any] = {
        "method": "RK23" if kinked else "LSODA",
        "rtol": 1e-4 if kinked else 1e-7,
        "clock": build_clock(request, start),
        "blocks": start.saddle.blocks if start.saddle else None,
    }
    result = simulate(
        objective,
        start.w,
        t_end=request.flow.t_end,
        events=[build_event(event, start) for event in request.events],
        max_steps=request.flow.max_steps,
        **options,
    )
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if not result.ok:
        raise InvalidInput(
            f"the flow does not reach its end ({result.message}), so methods cannot be compared there: "
            "end it earlier, by a loss event or a smaller t_end"
        )
    return result


def _section(event: EventSpec, start: Start) -> Section:
    if event.kind == "loss":
        return LossLevel(event.level)
    if event.of == "small" and start.saddle is not None:
        return SizeLevel(event.level, start.saddle.index_z)
    return SizeLevel(event.level, np.arange(start.w.size), "|w|")


def _levels(path: Path, pilot: FlowResult | None) -> tuple[LossLevel, ...]:
    if pilot is None:
        raise InvalidInput(f"{path}: nothing says where the flow ends")
    first, last = float(pilot.loss[0]), float(pilot.loss[-1])
    if not first - last > 1e-6 * abs(first):
        raise InvalidInput(
            f"{path}: the loss falls from {first:.8g} to {last:.8g} only, so no place along the flow can be told from "
            "another; give it a longer t_end, or end it by a loss or norm event"
        )
    found = []
    for fraction in FALL:
        level = first - fraction * (first - last)
        # the neighbourhood that the reference covers must end before the flow does
        spread = math.exp(0.5 * abs(math.log(level / max(last, 1e-3 * level))))
        found.append(LossLevel(level, spread=min(1.3, spread)))
    return tuple(found)
