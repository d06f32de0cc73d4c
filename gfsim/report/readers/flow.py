"""A folder of ``gfsim simulate``: how the flow ended, and the flow itself to walk through."""

from __future__ import annotations

from gfsim.report.folder import Folder, wrong
from gfsim.report.record import Record, command, number, versions
from gfsim.report.sections import Claim, Section, Table, Text
from gfsim.report.trajectory import Stages, view
from paper_repro.claims import show

FILES = ("summary.json", "trajectory.npz")
STAGE_FILES = ("stages.json", "stages.npz")


def recognises(folder: Folder) -> bool:
    return FILES[0] in folder.names


def read(folder: Folder) -> Section:
    record = Record(folder, FILES[0], folder.json(FILES[0]))
    if FILES[1] not in folder.names:
        raise wrong(folder, FILES[0], f"{FILES[1]} is missing beside it")
    arrays, stages = folder.arrays(FILES[1]), _stages(folder)
    ok, status = record.flag("ok"), record.text("status")
    cost = tuple((name, show(count)) for name, count in record.inner("counts").value.items())
    return Section(
        kind="flow",
        title=str(record.value.get("title") or record.text("what")),
        subtitle=record.text("what"),
        claims=[
            Claim("the flow reached its end time or the event that was to stop it", "an end of that kind",
                  status.replace("_", " "), "gfsim simulate",
                  "held" if ok and status in ("end_time", "event") else "failed", record.text("message"))
        ],
        pictures=folder.picture("flow", caption=f"Loss and neuron norms in time. Start: {record.text('start')}."),
        tables=[_summary(record), *_plateaus(stages), Table("Cost", ("what", "how many"), cost)],
        texts=[Text("Request (the file given to gfsim simulate)", record.text("config"))],
        view=view(record, arrays, str(folder.path / FILES[1]), stages),
        provenance=[
            ("made by", command("gfsim", "simulate", "request.toml", "--seed", record.whole("seed"), "--out", "DIR")
             + " with the request below"),
            ("convention of the loss", record.text("convention")),
            ("seconds", number(record.number("seconds"))),
            versions(record),
        ],
        sources=folder.taken(),
    )  # fmt: skip


def _summary(record: Record) -> Table:
    rows = [
        ("start", record.text("start")),
        ("loss", f"{number(record.number('loss_start'))} at the start, {number(record.number('loss_end'))} at the end"),
        ("end time t", number(record.number("t_end"))),
        ("drift of conserved quantities (relative)", number(record.number("conserved_drift"))),
    ]
    rows += [(f"event {event.text('name')}", f"t = {number(event.number('t'))}") for event in record.records("events")]
    return Table("The flow in numbers", ("what", "value"), tuple(rows))


def _stages(folder: Folder) -> Stages:
    """Absent for other models than nets, and where the search for them was interrupted."""
    if STAGE_FILES[0] not in folder.names:
        return Stages()
    if STAGE_FILES[1] not in folder.names:
        raise wrong(folder, STAGE_FILES[0], f"{STAGE_FILES[1]} is missing beside it")
    record = Record(folder, STAGE_FILES[0], folder.json(STAGE_FILES[0]))
    return Stages(record.records("stages"), folder.arrays(STAGE_FILES[1]), str(folder.path / STAGE_FILES[1]))


def _plateaus(found: Stages) -> list[Table]:
    """Saddle by saddle: what was predicted and what came alive."""
    stages, rows = found.records, []
    if not stages:
        return []
    for k, stage in enumerate(stages, start=1):
        following = stages[k] if k < len(stages) else None
        saddle = stage.inner("saddle") if stage.value.get("saddle") is not None else None
        predicted = [point for point in stage.records("kkt") if point.flag("predicted")]
        rows.append(
            (
                str(k),
                f"{_shown(stage, 't_enter')} .. {_shown(stage, 't_exit')}",
                _units(stage.layers("active")),
                _shown(saddle, "loss") if saddle else "not found",
                _shown(saddle, "distance") if saddle else "",
                ", ".join(_place(point) for point in predicted) or "none",
                _units(_grown(stage, following)) if following else "the flow ends here",
            )
        )
    header = ("plateau", "t", "active neurons", "loss of the saddle", "distance from it",
              "neuron at which the NCF flow from here ends", "neurons active next, not here")  # fmt: skip
    return [Table("Saddle by saddle", header, tuple(rows))]


def _shown(record: Record, key: str) -> str:
    return number(record.number(key))


def _place(point: Record) -> str:
    layer = point.whole("layer")
    return f"layer {layer}: {point.whole('unit')}" if layer else "one of every layer"


def _units(layers: list[list[int]]) -> str:
    """``layer 1: 0, 3; layer 2: 1``, or "none"."""
    named = [f"layer {l}: {', '.join(map(str, units))}" for l, units in enumerate(layers, start=1) if units]
    return "; ".join(named) or "none"


def _grown(stage: Record, following: Record) -> list[list[int]]:
    before, after = stage.layers("active"), following.layers("active")
    return [[unit for unit in now if unit not in old] for old, now in zip(before, after, strict=False)]
