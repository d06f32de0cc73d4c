"""A folder of ``gfsim simulate``: how the flow ended, and the flow itself to walk through."""

from __future__ import annotations

from gfsim.report.folder import Folder, wrong
from gfsim.report.record import Record, command, number, versions
from gfsim.report.sections import Claim, Section, Table, Text
from gfsim.report.trajectory import view
from paper_repro.claims import show

FILES = ("summary.json", "trajectory.npz")


def recognises(folder: Folder) -> bool:
    return FILES[0] in folder.names


def read(folder: Folder) -> Section:
    record = Record(folder, FILES[0], folder.json(FILES[0]))
    if FILES[1] not in folder.names:
        raise wrong(folder, FILES[0], f"{FILES[1]} is missing beside it")
    arrays = folder.arrays(FILES[1])
    ok, status = record.flag("ok"), record.text("status")
    counts = record.inner("counts").value
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
        tables=[_summary(record), Table("Cost", ("what", "how many"), tuple((k, show(v)) for k, v in counts.items()))],
        texts=[Text("Request (the file given to gfsim simulate)", record.text("config"))],
        view=view(record, arrays, str(folder.path / FILES[1])),
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
