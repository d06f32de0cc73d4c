"""``stages.json`` and ``stages.npz`` of ``gfsim simulate``: the flow saddle by saddle, beside its trajectory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from gfsim.output import arrays_bytes

if TYPE_CHECKING:
    from gfsim.flow.result import FlowResult
    from gfsim.ncf.stages import Stage

NAMES = ("stages.npz", "stages.json")


def stages_of(result: FlowResult, seed: int) -> list[Stage] | None:
    """None where stages are not defined: another model than a net, or too short a trajectory."""
    from gfsim.flow.field import Descent
    from gfsim.models.feedforward import FeedForward
    from gfsim.ncf.stages import find_stages

    field = result.field
    if not isinstance(field, Descent) or not isinstance(field.objective.model, FeedForward) or len(result.t) < 3:
        return None
    print("looking for the saddles behind the plateaus ...", file=sys.stderr)
    return find_stages(result, rng=np.random.default_rng([seed, 3]))


def contents(stages: list[Stage]) -> dict[str, bytes]:
    """The two files; the JSON comes last: where it is, the set is complete."""
    from gfsim.jsonable import dumps

    arrays: dict[str, np.ndarray] = {}
    for k, stage in enumerate(stages, start=1):
        arrays[f"rows_{k}"] = stage.rows
        if stage.saddle is not None:
            arrays[f"saddle_{k}"] = stage.saddle.w
        if stage.targets:
            arrays[f"cosines_{k}"] = np.stack([target.cosine for target in stage.targets], axis=1)
    record = {"stages": [_record(stage) for stage in stages]}
    return {"stages.npz": arrays_bytes(arrays), "stages.json": dumps(record).encode()}


def _record(stage: Stage) -> dict[str, Any]:
    """What stages.json says of a stage; row numbers are those of trajectory.npz."""
    plateau, saddle = stage.plateau, stage.saddle
    return {
        "t_enter": plateau.t_enter,
        "t_exit": plateau.t_exit,
        "loss": plateau.loss,
        "speed": plateau.speed,
        "active": stage.active.units,
        "rows": {
            "begin": stage.begin,
            "enter": plateau.first,
            "slowest": plateau.slowest,
            "exit": plateau.last,
            "end": stage.end,
        },
        "saddle": None if saddle is None else {"loss": saddle.loss, "distance": stage.distance},
        "predicted_from": stage.predicted_from,
        "kkt": [
            {
                "layer": target.layer,
                "unit": target.unit,
                "value": target.value,
                "gap": target.gap,
                "hits": target.hits,
                "predicted": target.predicted,
            }
            for target in stage.targets
        ],
        "remarks": stage.remarks,
    }
