"""A flow of ``gfsim simulate``, thinned to what the interactive view of the page shows.

The view moves through *frames*: recorded states chosen so that equal steps of the slider change the picture by
about equal amounts, and among them the first, the last, every event and the ends of every plateau.  Weights
are kept at some of the frames and for the largest rows and columns only, so that the page stays small whatever
the size of the net; the view says what was left out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.jsonable import Json
from gfsim.report.record import Record
from gfsim.report.sections import View

FRAMES = 400
"""Positions of the slider, the required ones not counted."""

CURVES = 40
"""Norm curves of a group; the largest are kept."""

ROWS, COLUMNS = 64, 128
"""Of a weight matrix; the largest are kept."""

WEIGHT_BYTES = 2_500_000
"""What all weights together may take in the page."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Stages:
    """stages.json and the arrays of stages.npz, and the name of the latter; nothing where there are none."""

    records: Sequence[Record] = ()
    arrays: Arrays = field(default_factory=dict)
    file: str = ""


def view(record: Record, arrays: Arrays, file: str, found: Stages) -> View:
    """What the script shows of a flow.

    Parameters
    ----------
    record : Record
        summary.json.
    arrays : of trajectory.npz
    file : str
        Its name, for messages.
    found : Stages

    Raises
    ------
    InvalidInput
        For arrays that are missing or do not fit each other.
    """
    t, s, w = (_array(arrays, key, file) for key in ("t", "s", "w"))
    loss, speed = _array(arrays, "loss", file), _array(arrays, "speed", file)
    names = record.inner("norms").texts("groups")
    norms = [_array(arrays, f"norms_{k}", file) for k in range(1, len(names) + 1)]
    for key, values in {"s": s, "w": w, "loss": loss, "speed": speed, **dict(zip(names, norms, strict=True))}.items():
        if len(values) != len(t):
            raise InvalidInput(f"{file}: {key} has {len(values)} rows and t has {len(t)}; run gfsim simulate again")
    required = [0, len(t) - 1]
    for stage in found.records:
        rows = stage.inner("rows")
        required += [rows.whole(key) for key in ("begin", "enter", "slowest", "exit", "end")]
    events = record.records("events")
    required += [int(np.abs(s - event.number("s")).argmin()) for event in events]
    if any(not 0 <= row < len(t) for row in required):
        raise InvalidInput(f"{file} has {len(t)} rows, fewer than the JSON files speak of; run gfsim simulate again")
    frames = choose_frames(change(s, loss, w), FRAMES, required)
    clocks: list[Json] = []
    if not np.array_equal(s, t):
        clocks.append({"label": f"clock s, {record.text('clock')}", "symbol": "s", "values": packed(s[frames], "<f8")})
    clocks.append({"label": "physical time t", "symbol": "t", "values": packed(t[frames], "<f8")})
    return View(
        {
            "title": str(record.value.get("title") or record.text("what")),
            "frames": len(frames),
            "recorded": len(t),
            "clocks": clocks,
            "loss": packed(loss[frames], "<f8"),
            "speed": packed(speed[frames], "<f8"),
            "convention": record.text("convention"),
            "norms": record.inner("norms").text("what"),
            "groups": [_group(name, values, frames) for name, values in zip(names, norms, strict=True)],
            "events": [
                {"name": event.text("name"), "frame": int(np.abs(s[frames] - event.number("s")).argmin())}
                for event in events
            ],
            "stages": [_stage(stage, k, found, frames) for k, stage in enumerate(found.records, start=1)],
            **_weights(record, w, frames, file),
        }
    )


def change(s: np.ndarray, loss: np.ndarray, w: np.ndarray) -> np.ndarray:
    """How far the picture has moved up to each row: (m + 1,), from 0 to 3.

    One third each for the clock, the logarithm of the loss and the direction of the weights.
    """
    with np.errstate(all="ignore"):
        size = np.linalg.norm(w, axis=1, keepdims=True)
        unit = np.nan_to_num(w / np.where(size > 0, size, 1.0), posinf=0.0, neginf=0.0)
        floor = np.nanmax(np.abs(loss), initial=1e-300) * 1e-16
        height = np.nan_to_num(np.log(np.maximum(np.abs(loss), floor)), posinf=0.0)
        steps = [np.abs(np.diff(s)), np.abs(np.diff(height)), np.linalg.norm(np.diff(unit, axis=0), axis=1)]
    total = np.zeros(len(s))
    for step in steps:
        path = np.concatenate([[0.0], np.cumsum(np.nan_to_num(step, posinf=0.0))])
        if path[-1] > 0:
            total += path / path[-1]
    return total


def choose_frames(path: np.ndarray, most: int, required: Sequence[int]) -> np.ndarray:
    """Increasing rows: at most ``most`` at equal distances along ``path`` (increasing), and the required ones.

    Rows between which nothing happens fall together, so a standstill takes one position however long it is.
    """
    marks = np.linspace(path[0], path[-1], most)
    rows = np.searchsorted(path, marks).clip(0, len(path) - 1)
    return np.unique(np.concatenate([rows, np.asarray(required, dtype=int)]))


def packed(values: np.ndarray, dtype: str) -> dict[str, Json]:
    """An array for the script: little-endian floats ("<f4", "<f8", or "bf16": the upper half of "<f4"), base64."""
    with np.errstate(over="ignore"):  # what is too large for 4 bytes becomes infinite
        flat = np.ascontiguousarray(values, dtype="<f4" if dtype == "bf16" else dtype)
    content = half(flat).tobytes() if dtype == "bf16" else flat.tobytes()
    return {"shape": list(values.shape), "type": dtype, "data": base64.b64encode(content).decode("ascii")}


def half(values: np.ndarray) -> np.ndarray:
    """float32 rounded to its upper 16 bits: the full range of exponents, and 2 to 3 digits."""
    bits = values.view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    kept = np.where(np.isfinite(values), rounded, bits >> np.uint64(16))
    return kept.astype("<u2")


def _array(arrays: Arrays, key: str, file: str) -> np.ndarray:
    if key not in arrays:
        raise InvalidInput(
            f"{file} has no array {key!r} (it has {', '.join(arrays) or 'none'}); run gfsim simulate again"
        )
    values = arrays[key]
    if values.dtype.kind not in "fiu" or values.ndim == 0 or not len(values):
        raise InvalidInput(f"{file}: {key} is not an array of numbers with a row a state; run gfsim simulate again")
    return values


def _largest(sizes: np.ndarray, most: int) -> np.ndarray:
    """Indices of the ``most`` largest, in increasing order."""
    return np.sort(np.argsort(-np.nan_to_num(sizes), kind="stable")[:most])


def _group(name: str, values: np.ndarray, frames: np.ndarray) -> dict[str, Json]:
    kept = _largest(values.max(axis=0), CURVES)
    return {
        "name": name,
        "units": kept.tolist(),
        "of": values.shape[1],
        "curves": packed(values[np.ix_(frames, kept)], "<f4"),
    }


def _stage(stage: Record, number: int, found: Stages, frames: np.ndarray) -> dict[str, Json]:
    rows = stage.inner("rows")
    places = {
        key: int(np.searchsorted(frames, rows.whole(key))) for key in ("begin", "enter", "slowest", "exit", "end")
    }
    points = [
        {
            "layer": point.whole("layer"),
            "unit": point.whole("unit"),
            "value": point.number("value"),
            "gap": str(point.number("gap")),
            "predicted": point.flag("predicted"),
        }
        for point in stage.records("kkt")
    ]
    out: dict[str, Json] = {
        **places,
        "active": list(stage.layers("active")),
        "loss": stage.number("loss"),
        "saddle": None,
        "points": list(points),
        "cosines": None,
        "remarks": list(stage.texts("remarks")),
    }
    if stage.value.get("saddle") is not None:
        saddle = stage.inner("saddle")
        out["saddle"] = {"loss": saddle.number("loss"), "distance": saddle.number("distance")}
    if points:
        known = _array(found.arrays, f"rows_{number}", found.file)
        cosines = _array(found.arrays, f"cosines_{number}", found.file)
        if cosines.shape != (len(known), len(points)):
            raise InvalidInput(
                f"{found.file}: cosines_{number} has the shape {cosines.shape}; run gfsim simulate again"
            )
        inside = (frames >= known[0]) & (frames <= known[-1])
        tracks = [np.where(inside, np.interp(frames, known, track), np.nan) for track in cosines.T]
        out["cosines"] = packed(np.stack(tracks, axis=1), "<f4")
    return out


def _weights(record: Record, w: np.ndarray, frames: np.ndarray, file: str) -> dict[str, Json]:
    """The blocks of weights cut to their largest rows and columns, at as many frames as fit."""
    blocks = record.records("weights")
    shapes = [(block.text("name"), block.whole("rows"), block.whole("columns")) for block in blocks]
    if w.ndim != 2 or sum(rows * columns for _, rows, columns in shapes) != w.shape[1]:
        raise InvalidInput(f"{file}: w of shape {w.shape} does not hold the blocks of summary.json; simulate again")
    per_frame = sum(min(rows, ROWS) * min(columns, COLUMNS) for _, rows, columns in shapes)
    affordable = max(2, int(WEIGHT_BYTES / (per_frame * 2 * 4 / 3)))
    places = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), affordable)).round().astype(int))
    kept = w[frames[places]]
    out: list[Json] = []
    first = 0
    for name, rows, columns in shapes:
        block = kept[:, first : first + rows * columns].reshape(len(kept), rows, columns)
        first += rows * columns
        size = np.nan_to_num(np.abs(block), posinf=0.0)
        shown_rows = _largest(size.max(axis=(0, 2)), ROWS)
        shown_columns = _largest(size.max(axis=(0, 1)), COLUMNS)
        out.append(
            {
                "name": name,
                "rows": shown_rows.tolist(),
                "columns": shown_columns.tolist(),
                "of": [rows, columns],
                "entries": packed(block[:, shown_rows][:, :, shown_columns], "bf16"),
            }
        )
    nearest = np.abs(np.arange(len(frames))[:, None] - places).argmin(axis=1)
    return {"matrices": out, "weightFrames": places.tolist(), "nearestWeights": nearest.tolist()}
