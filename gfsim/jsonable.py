"""Results as strict JSON: every parser reads it, nothing is rounded, nothing is silently dropped."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from gfsim.errors import InvalidInput

Json = None | bool | int | float | str | list[Any] | dict[str, Any]


def to_jsonable(value: object, where: str = "value") -> Json:
    """``value`` as what :mod:`json` writes without extensions.

    NumPy arrays become nested lists and NumPy scalars Python numbers; dataclasses and mappings become
    objects; tuples and sets (sorted) become lists.  JSON has no NaN and no infinity, so those become the strings
    ``"nan"``, ``"inf"`` and ``"-inf"``.  Floats keep their shortest exact representation.

    Raises
    ------
    InvalidInput
        For anything else (a complex number, a function, ...), naming its place.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return to_jsonable(value.item(), where)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufUS":
            raise InvalidInput(f"{where} is an array of {value.dtype}, which JSON cannot hold; store real numbers")
        return to_jsonable(value.tolist(), where)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(k, where): to_jsonable(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if isinstance(value, (list, tuple)):
        return [to_jsonable(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise InvalidInput(f"{where} is a {type(value).__name__}, which JSON cannot hold; store numbers, strings or lists")


def dumps(value: object) -> str:
    """Strict JSON text, one key a line at the top levels and long number lists kept on one line."""
    return _layout(to_jsonable(value), "") + "\n"


def _key(key: object, where: str) -> str:
    if isinstance(key, (str, int, float, np.integer, np.floating)) and not isinstance(key, bool):
        return str(key)
    raise InvalidInput(f"{where} has the key {key!r}; keys in JSON must be strings or numbers")


def _layout(value: Json, indent: str) -> str:
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(k)}: {_layout(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        return "[\n" + ",\n".join(inner + _layout(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
