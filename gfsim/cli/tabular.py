"""CSV data as arrays, with errors that name the row and the column."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gfsim.errors import InvalidInput, unknown_name, unreadable

LARGEST = 1e100
"""Largest value a column may hold: sums of its squares must stay finite."""

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}


@dataclass(frozen=True)
class Samples:
    """A table of numbers.

    Attributes
    ----------
    X : (n_samples, n_features)
    y : (n_samples,)
        Numbers, or the words of a target of classes.
    features : names of the columns of X
    target : name of the label column
    """

    X: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    features: tuple[str, ...]
    target: str


def read_csv(
    path: Path, target: str, *, drop: Sequence[str] = (), delimiter: str = ",", classes: bool = False
) -> Samples:
    """The columns of a CSV file with a header line; ``target`` becomes y, the rest but ``drop`` X.

    With ``classes`` the target may hold words, and is kept as text.

    Raises
    ------
    InvalidInput
        Unreadable file, no header, uneven rows, missing or infinite values, categories.
    UnknownName
        A column that does not exist, with the nearest one that does.
    """
    rows = _rows(path, delimiter)
    header = _header(path, rows, delimiter)
    for name in (target, *drop):
        if name not in header:
            raise unknown_name(f"column of {path}", name, header)
    if target in drop:
        raise InvalidInput(f"column {target!r} is the target and is to be dropped; it cannot be both")
    kept = [k for k, name in enumerate(header) if name not in drop]
    features = [k for k in kept if header[k] != target]
    if not features:
        raise InvalidInput(f"{path} has no column besides the target {target!r}; at least one input is needed")
    if len(rows) == 1:
        raise InvalidInput(f"{path} has a header and no data rows; at least two samples are needed")
    place = header.index(target)
    values = _numbers(path, rows, header, features if classes else kept, target)
    if not classes:
        return Samples(values[:, features], values[:, place], tuple(header[k] for k in features), target)
    for line, cells in rows[1:]:
        if cells[place].lower() in MISSING:
            raise InvalidInput(f"{path}, line {line}: the class in column {target!r} is missing; remove the line")
    y = np.array([cells[place] for _, cells in rows[1:]])
    return Samples(values[:, features], y, tuple(header[k] for k in features), target)


def read_features(path: Path, features: Sequence[str], *, delimiter: str = ",") -> np.ndarray:
    """The named columns of a CSV file, in that order: (n, number of names).  Other columns are left unread.

    Raises :class:`InvalidInput` as :func:`read_csv` does, and for columns that are not there.
    """
    rows = _rows(path, delimiter)
    header = _header(path, rows, delimiter)
    missing = [name for name in features if name not in header]
    if missing:
        raise InvalidInput(f"{path} lacks the column(s) {', '.join(map(repr, missing))} that the model was grown on")
    places = [header.index(name) for name in features]
    return _numbers(path, rows, header, places, "")[:, places]


def _numbers(
    path: Path, rows: list[tuple[int, list[str]]], header: list[str], kept: Sequence[int], target: str
) -> np.ndarray:
    """The columns ``kept`` of all data rows as numbers: (n, number of columns), the others undefined."""
    values = np.empty((len(rows) - 1, len(header)))
    for i, (line, cells) in enumerate(rows[1:]):
        if len(cells) != len(header):
            raise InvalidInput(f"{path}, line {line}: {len(cells)} values for {len(header)} columns; repair that line")
        for k in kept:
            values[i, k] = _number(cells[k], path, line, header[k], is_target=header[k] == target)
    return values


def _rows(path: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, delimiter=delimiter, skipinitialspace=True, strict=True)
            return [(reader.line_num, [c.strip() for c in cells]) for cells in reader if any(c.strip() for c in cells)]
    except OSError as exc:
        raise unreadable(path, exc, "give a CSV file with a header line") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as exc:
        raise InvalidInput(
            f"{path} is not well-formed CSV: {exc}; quote cells that hold quotes, delimiters or line ends"
        ) from None


def _header(path: Path, rows: list[tuple[int, list[str]]], delimiter: str) -> list[str]:
    if not rows:
        raise InvalidInput(f"{path} is empty; a header line and at least two samples are needed")
    header = rows[0][1]
    if all(_is_number(cell) for cell in header):
        raise InvalidInput(f"the first line of {path} holds numbers only; a header line with column names is needed")
    for word, sign in DELIMITERS.items():
        if len(header) == 1 and sign != delimiter and sign in header[0]:
            raise InvalidInput(f"{path} seems to be separated by {word}s; pass --delimiter {word}")
    for k, name in enumerate(header):
        if not name:
            raise InvalidInput(f"column {k + 1} of {path} has no name; name every column in the header line")
        if header.index(name) != k:
            raise InvalidInput(f"{path} has two columns called {name!r}; give each a name of its own")
    return header


def _number(cell: str, path: Path, line: int, column: str, *, is_target: bool) -> float:
    if cell.lower() in MISSING:
        raise InvalidInput(
            f"{path}, line {line}, column {column!r}: the value {cell!r} is missing; fill it in or remove the line"
        )
    if not _is_number(cell):
        remedy = (
            "recode the target as a number, or pass --classify if it holds classes"
            if is_target
            else "encode categories as columns of 0 and 1, one a category, "
            f"or leave the column out with --drop {column}"
        )
        raise InvalidInput(f"{path}, line {line}, column {column!r}: {cell!r} is not a number; {remedy}")
    value = float(cell)
    if math.isfinite(value) and abs(value) > LARGEST:
        raise InvalidInput(
            f"{path}, line {line}, column {column!r}: {cell} is beyond {LARGEST:g}, where squares overflow; "
            "give the column in a larger unit"
        )
    if not math.isfinite(value):
        raise InvalidInput(f"{path}, line {line}, column {column!r}: {cell!r} is not finite; remove the line")
    return value


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # float() reads 1_000, no CSV reader does
