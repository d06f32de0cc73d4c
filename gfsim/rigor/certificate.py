"""What a certificate says, read strictly: every field is asked for, none is left over, every number is exact."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flint import arb

from gfsim.errors import CertificateRefused
from gfsim.rigor.enclosure import (
    Data,
    Loss,
    Pair,
    Power,
    diagonal_correlation,
    entries,
    network_correlation,
    neuron_correlation,
    neuron_pairs,
)
from gfsim.rigor.systems import KKTSystem, SaddleSystem, System, cube, prove_zero

FORMAT = "gfsim certificate 1"


class Reader:
    """Fields of one JSON object; every one must be asked for, and no other may be there."""

    def __init__(self, content: Any, where: str, *keys: str) -> None:
        if not isinstance(content, Mapping):
            raise CertificateRefused(f"{where} is not a JSON object; a certificate of gfsim has one there")
        for key in keys:
            if key not in content:
                raise CertificateRefused(f"{where} has no {key!r}; it needs {', '.join(keys)}")
        for key in content:
            if key not in keys:
                raise CertificateRefused(f"{where} has the unknown field {key!r}; it may have {', '.join(keys)}")
        self.content, self.where = content, where

    def refuse(self, key: str, rule: str) -> CertificateRefused:
        shown = repr(self.content[key])
        return CertificateRefused(f"{self.where}.{key} = {shown[:60]}{'...' * (len(shown) > 60)}; it must be {rule}")

    def whole(self, key: str, allowed: range) -> int:
        value = self.content[key]
        if type(value) is not int or value not in allowed:
            raise self.refuse(key, f"a whole number from {allowed[0]} to {allowed[-1]}")
        return value

    def wholes(self, key: str, count: int) -> tuple[int, ...]:
        value = self.content[key]
        if not isinstance(value, list) or len(value) != count or any(type(k) is not int or k < 0 for k in value):
            raise self.refuse(key, f"{count} whole numbers >= 0")
        return tuple(value)

    def choice(self, key: str, *options: str) -> str:
        value = self.content[key]
        if value not in options:
            raise self.refuse(key, f"one of {', '.join(options)}")
        return str(value)

    def real(self, key: str) -> float:
        return self._number(key, self.content[key])

    def positive(self, key: str) -> float:
        value = self.real(key)
        if not value > 0:
            raise self.refuse(key, "positive")
        return value

    def vector(self, key: str, size: int) -> list[float]:
        value = self.content[key]
        if not isinstance(value, list) or len(value) != size:
            raise self.refuse(key, f"a list of {size} numbers")
        return [self._number(key, x) for x in value]

    def table(self, key: str, columns: int | None = None) -> list[list[float]]:
        rows = self.content[key]
        if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
            raise self.refuse(key, "a list of rows")
        width = len(rows[0]) if columns is None else columns
        if any(len(row) != width for row in rows):
            raise self.refuse(key, f"rows of {width} numbers each")
        return [[self._number(key, x) for x in row] for row in rows]

    def interval(self, key: str) -> tuple[float, float]:
        low, high = self.vector(key, 2)
        if not low <= high:
            raise self.refuse(key, "an interval [low, high]")
        return low, high

    def _number(self, key: str, text: Any) -> float:
        try:
            value = float.fromhex(text) if isinstance(text, str) else math.nan
        except (ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value) or value.hex() != text:
            raise self.refuse(key, "made of float64 numbers in hexadecimal, as float.hex writes them")
        return value


def digest(certificate: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the certificate but the digest: shows that a file was changed, not that it is right."""
    content = {key: value for key, value in certificate.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def weights(widths: Sequence[int]) -> int:
    """Number of weights of a network."""
    return sum(a * b for a, b in pairwise(widths))


@dataclass(frozen=True)
class Problem:
    """What the claims are about: ``kind`` network, diagonal or neuron, with exact data."""

    kind: str
    s: Power
    loss: Loss
    widths: tuple[int, ...]
    depth: int
    X: Data
    y: Data

    @classmethod
    def read(cls, content: Any) -> Problem:
        kind = content.get("kind") if isinstance(content, Mapping) else None
        if kind == "neuron":
            r = Reader(content, "problem", "kind", "p", "alpha", "inputs", "pull")
            H, G = r.table("inputs"), r.table("pull")
            if len(H) != len(G):
                raise CertificateRefused(f"problem.inputs has {len(H)} rows and problem.pull {len(G)}; one per sample")
            power = Power(r.whole("p", range(1, 17)), r.real("alpha"))
            return cls("neuron", power, Loss("square", arb(1)), (len(H[0]), 1, len(G[0])), 2, H, G)
        shape = ("widths", "p", "alpha") if kind == "network" else ("depth",)
        r = Reader(content, "problem", "kind", *shape, "loss", "reduction", "X", "y")
        r.choice("kind", "network", "diagonal")
        X = r.table("X")
        if kind == "network":
            widths = content["widths"]
            if not isinstance(widths, list) or len(widths) < 3 or any(type(k) is not int or k < 1 for k in widths):
                raise r.refuse("widths", "at least three whole numbers >= 1: inputs, hidden layers, outputs")
            power, depth = Power(r.whole("p", range(1, 17)), r.real("alpha")), len(widths) - 1
        else:
            widths, power, depth = [len(X[0]), 1], Power(1, 1.0), r.whole("depth", range(2, 17))
        X, y = r.table("X", widths[0]), r.table("y", widths[-1])
        if len(X) != len(y):
            raise CertificateRefused(f"problem.X has {len(X)} rows and problem.y {len(y)}; one per sample")
        name = r.choice("loss", "square", "logistic")
        if name == "logistic" and any(abs(label) != 1 for row in y for label in row):
            raise r.refuse("y", "labels -1 and +1 for the logistic loss")
        mean = r.choice("reduction", "sum", "mean") == "mean"
        return cls(str(kind), power, Loss(name, arb(1) / len(X) if mean else arb(1)), tuple(widths), depth, X, y)

    @property
    def origin_degree(self) -> int:
        """D of a network, the depth of a diagonal one, K = p + 1 of a neuron."""
        return self.depth if self.kind == "diagonal" else sum(self.s.p**k for k in range(self.depth))

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.widths[0] if self.kind == "diagonal" else weights(self.widths)

    def correlation(self) -> KKTSystem:
        """N at the origin, or of the given neuron."""
        if self.kind == "neuron":
            pairs: list[Pair] = [(entries(H), entries(G)) for H, G in zip(self.X, self.y, strict=True)]
            return KKTSystem(lambda u: neuron_correlation(self.s, pairs, u), self.s.p + 1)
        if self.kind == "diagonal":
            return KKTSystem(
                lambda u: diagonal_correlation(self.loss, self.depth, u, self.X, self.y), self.origin_degree
            )
        return KKTSystem(
            lambda u: network_correlation(self.s, self.loss, self.widths, u, self.X, self.y), self.origin_degree
        )

    def active(self, counts: Sequence[int]) -> SaddleSystem:
        """The system of the net with ``counts`` active neurons a layer."""
        return SaddleSystem(self.s, self.loss, (self.widths[0], *counts, self.widths[-1]), self.X, self.y)

    def neuron(self, active: SaddleSystem, w: Sequence[arb], layer: int) -> KKTSystem:
        """N of a neuron added to ``layer`` for all active weights in the box ``w``."""
        pairs = neuron_pairs(self.s, self.loss, active.widths, w, self.X, self.y, layer)
        return KKTSystem(lambda u: neuron_correlation(self.s, pairs, u), self.s.p + 1)


@dataclass(frozen=True)
class Zero:
    """A centre with the two radii of its box; multipliers have boxes ``stretch`` times as wide."""

    centre: list[float]
    radius: float
    unique: float
    stretch: float
    multipliers: int

    FIELDS = ("centre", "radius", "unique_radius", "stretch")

    def radii(self, radius: float) -> list[float]:
        n = len(self.centre) - self.multipliers
        wide = radius * self.stretch
        if not math.isfinite(wide):
            raise CertificateRefused(f"radius {radius:g} times stretch {self.stretch:g} is not finite; no box is that")
        return [radius] * n + [wide] * self.multipliers

    @property
    def box(self) -> list[arb]:
        return cube(self.centre, self.radii(self.radius))

    @classmethod
    def read(cls, r: Reader, size: int, multipliers: list[float]) -> Zero:
        radius, unique = r.positive("radius"), r.positive("unique_radius")
        if unique < radius:
            raise r.refuse("unique_radius", f"at least the radius {radius!r}")
        centre = [*r.vector("centre", size), *multipliers]
        return cls(centre, radius, unique, r.positive("stretch"), len(multipliers))

    def prove(self, system: System) -> None:
        prove_zero(system, self.centre, self.radii(self.radius))
        if self.unique > self.radius:
            prove_zero(system, self.centre, self.radii(self.unique))
