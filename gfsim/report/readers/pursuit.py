"""A folder of ``gfsim pursue``: errors by part of the rows, how the network grew, why growth ended."""

from __future__ import annotations

from typing import Any

from gfsim.report.folder import Folder
from gfsim.report.record import Record, command, number, versions
from gfsim.report.sections import Claim, Section, Table, Text
from paper_repro.claims import show

FILES = ("metrics.json", "history.json")
BESIDE = ("pursuit.json",)
"""The complete record of paper mode: it is not shown, and nothing of another kind."""

BROKEN_OFF = ("diverged", "interrupted")


def recognises(folder: Folder) -> bool:
    return set(FILES) <= set(folder.names)


def read(folder: Folder) -> Section:
    metrics = Record(folder, "metrics.json", folder.json("metrics.json"))
    history = folder.json("history.json")
    data, stop = metrics.inner("data"), metrics.inner("stop")
    hidden = "-".join(str(width) for width in metrics.entries("hidden_widths"))
    reason, message = stop.text("reason"), stop.text("message")
    seed = metrics.whole("seed")
    section = Section(
        kind="pursuit",
        title=f"Neuron Pursuit of {data.text('target')!r}",
        subtitle=f"{metrics.text('task')}, mode {metrics.text('mode')}; hidden neurons kept: {hidden or 'none'}",
        claims=[
            Claim("growth ended by one of its own rules", "a rule", f"{reason}: {message}" if message else reason,
                  "gfsim pursue", "failed" if reason in BROKEN_OFF else "held")
        ],
        pictures=folder.picture("pursuit", caption="How the network grew, the network, and its predictions."),
        tables=[_errors(metrics), _growth(folder, history)],
        provenance=[
            ("data", f"{data.text('path')}: {len(data.entries('features'))} features, target {data.text('target')}"),
            ("made by", command("gfsim", "pursue", data.text("path"), "--target", data.text("target"), "--seed", seed)
             + " ... (all settings are below)"),
            ("seconds", number(metrics.number("seconds"))),
            versions(metrics),
        ],
    )  # fmt: skip
    settings = metrics.inner("settings").value
    section.tables.append(Table("Settings", ("setting", "value"), tuple((k, show(v)) for k, v in settings.items())))
    if "model_card.md" in folder.names:
        section.texts.append(Text("Model card", folder.text("model_card.md")))
    section.sources = folder.taken()
    return section


def _errors(metrics: Record) -> Table:
    parts = metrics.inner("metrics").value
    names = list(dict.fromkeys(name for values in parts.values() for name in values))
    rows = tuple((part, *(show(values.get(name)) for name in names)) for part, values in parts.items())
    return Table("Errors by part of the rows", ("rows", *names), rows)


def _growth(folder: Folder, history: Any) -> Table:
    if not isinstance(history, list):
        raise Record(folder, "history.json", {}).wrong("", "a list with one entry an addition is expected")
    rows = [Record(folder, "history.json", row, f"entry {k}") for k, row in enumerate(history)]
    wanted = ("kind", "hidden", "layer", "layers", "ncf", "train", "loss_after", "validation", "reason")
    names = [name for name in wanted if rows and name in rows[0].value]
    body = tuple(tuple(show(row.value.get(name)) for name in names) for row in rows)
    spelled = {"ncf": "N of the new neuron", "train": "training loss", "loss_after": "training loss",
               "validation": "validation loss", "hidden": "hidden neurons", "reason": "minimisation ended"}  # fmt: skip
    return Table("Growth", tuple(spelled.get(name, name) for name in names), body)
