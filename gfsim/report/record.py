"""A JSON object whose missing or misshapen entries are errors that name the file and the entry."""

from __future__ import annotations

import math
from typing import Any

from gfsim.report.folder import Folder, wrong


class Record:
    """One JSON object of a file; ``where`` is its place there, such as ``claims[3]``."""

    def __init__(self, folder: Folder, name: str, value: Any, where: str = "") -> None:
        self._folder, self._name, self._where = folder, name, where
        if not isinstance(value, dict):
            raise self.wrong("", f"a JSON object is expected, not {_kind(value)}")
        self.value: dict[str, Any] = value

    def wrong(self, key: str, what: str) -> Exception:
        place = ".".join(part for part in (self._where, key) if part)
        return wrong(self._folder, self._name, f"{place}: {what}" if place else what)

    def _get(self, key: str, kinds: type | tuple[type, ...], rule: str) -> Any:
        if key not in self.value:
            raise self.wrong(key, f"missing; it must be {rule}")
        value = self.value[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise self.wrong(key, f"{_kind(value)}; it must be {rule}")
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, str, "a text")
        return value

    def flag(self, key: str) -> bool:
        value: bool = self._get(key, bool, "true or false")
        return value

    def number(self, key: str) -> float:
        """A number; ``"nan"``, ``"inf"`` and ``"-inf"`` are read as such."""
        value = self._get(key, (int, float, str), "a number")
        try:
            return float(value)
        except ValueError:
            raise self.wrong(key, f"{value!r}; it must be a number") from None

    def whole(self, key: str) -> int:
        value: int = self._get(key, int, "a whole number")
        return value

    def entries(self, key: str) -> list[Any]:
        value: list[Any] = self._get(key, list, "a list")
        return value

    def texts(self, key: str) -> list[str]:
        return [str(entry) for entry in self.entries(key)]

    def layers(self, key: str) -> list[list[int]]:
        """Units of every hidden layer: a list of lists of whole numbers."""
        value = self.entries(key)
        if not all(isinstance(units, list) and all(type(unit) is int for unit in units) for units in value):
            raise self.wrong(key, "it must be a list of units for every hidden layer")
        return value

    def inner(self, key: str) -> Record:
        return Record(self._folder, self._name, self._get(key, dict, "an object"), self._place(key))

    def records(self, key: str) -> list[Record]:
        return [
            Record(self._folder, self._name, entry, f"{self._place(key)}[{k}]")
            for k, entry in enumerate(self.entries(key))
        ]

    def _place(self, key: str) -> str:
        return ".".join(part for part in (self._where, key) if part)


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def versions(record: Record) -> tuple[str, str]:
    """The row of a provenance table that every output has."""
    found = record.inner("versions").value
    return "versions", ", ".join(f"{name} {release}" for name, release in found.items())


def command(*words: object) -> str:
    """A command line to be copied: words with blanks or special characters quoted for a shell."""
    import shlex

    return shlex.join(str(word) for word in words)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")
