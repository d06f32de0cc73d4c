"""One fit is one cell: a small JSON file, written when it is done, so that a broken run can be taken up again."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.pursuit.method import Clock, Method, error_of
from benchmarks.pursuit.tasks import Task

Status = Literal["fitted", "refused", "failed"]


@dataclass(frozen=True)
class Cell:
    """What came of one fit.

    Attributes
    ----------
    status : str
        ``fitted``, ``refused`` (``note`` says why) or ``failed`` (``note`` holds the exception).
    error : float
        Of the test rows; NaN if there is no model.
    solved : bool or None
        Whether it is below the task's goal; None where there is no goal.
    neurons, parameters : int
    cpu : float
        CPU seconds of the fit.
    note : str
    progress : sequence of (float, float)
        (CPU seconds, error on held-out rows) along a growth.
    """

    task: str
    method: str
    seed: int
    status: Status
    error: float = float("nan")
    solved: bool | None = None
    neurons: int = 0
    parameters: int = 0
    cpu: float = float("nan")
    wall: float = float("nan")
    note: str = ""
    progress: Sequence[tuple[float, float]] = ()

    @property
    def name(self) -> str:
        return f"{self.task}--{self.method}--{self.seed}"


def measure(task: Task, method: Method, seed: int, limit: float) -> Cell:
    """Fit and test; an exception of a method is its result, not the end of the run."""
    why = method.refuses(task)
    if why is not None:
        return Cell(task.name, method.name, seed, "refused", note=why)
    draw = task.draw(seed)
    began, clock = time.perf_counter(), Clock(limit)
    try:
        fitted = method.fit(task, draw, seed, clock)
        cpu, wall = clock.spent(), time.perf_counter() - began
        error = error_of(task, draw, fitted.predict(draw.X_test))
    except Exception as exc:
        where = traceback.extract_tb(exc.__traceback__)[-1]
        note = f"{type(exc).__name__}: {exc} ({Path(where.filename).name}, line {where.lineno})"
        return Cell(task.name, method.name, seed, "failed", cpu=clock.spent(), note=note)
    goal = None if math.isnan(task.goal) else bool(error < task.goal)
    return Cell(
        task.name, method.name, seed, "fitted", error, goal, fitted.neurons, fitted.parameters, cpu, wall, fitted.note,
        fitted.progress,
    )  # fmt: skip


class Store:
    """Cells in one folder, a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, task: str, method: str, seed: int) -> Path:
        return self.folder / f"{task}--{method}--{seed}.json"

    def has(self, task: str, method: str, seed: int) -> bool:
        return self._path(task, method, seed).exists()

    def write(self, cell: Cell) -> None:
        path = self._path(cell.task, cell.method, cell.seed)
        part = path.with_suffix(".part")  # a run that is killed must not leave half a file under the final name
        part.write_text(json.dumps(plain(cell)) + "\n", encoding="utf-8")
        part.replace(path)

    def read(self) -> list[Cell]:
        return [cell_of(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(self.folder.glob("*.json"))]


def plain(cell: Cell) -> dict[str, Any]:
    """For strict JSON, which has no NaN and no infinity; five digits are enough."""
    out = {key: _short(value) if isinstance(value, float) else value for key, value in asdict(cell).items()}
    return out | {"progress": [[_short(number) for number in pair] for pair in cell.progress]}


def _short(value: float) -> float | str:
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def cell_of(record: dict[str, Any]) -> Cell:
    fields: dict[str, Any] = {
        key: float(value) if value in ("nan", "inf", "-inf") else value for key, value in record.items()
    }
    fields["progress"] = tuple((float(cpu), float(error)) for cpu, error in fields.get("progress", ()))
    return Cell(**fields)
