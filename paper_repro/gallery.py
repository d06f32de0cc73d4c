"""Whether the figures of one folder agree with those of another: the committed gallery with a fresh run.

    python -m paper_repro.gallery figures out/figures

compares every NAME.json of the second folder with that of the first; a figure in error there does not agree.
Claims must be the same and hold or fail alike.  Numbers must agree to :data:`RTOL` of the largest of their list, or to
:data:`ATOL`, below which they are rounding on whatever machine they come from; counts of evaluations and steps to
:data:`COUNTS`, since one rejected step more is no change of a result.  What an adaptive integrator recorded at steps
of its own choice is kept under :data:`paper_repro.figure.AS_TAKEN` and not compared: the same curve may be sampled
elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paper_repro.figure import AS_TAKEN

RTOL, ATOL, COUNTS = 1e-3, 1e-6, 0.1
COUNTED = ("evaluations", "steps", "probes")
"""Endings of the names of counts."""


def differences(committed: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """What differs between two records of one figure, in words; empty if they agree."""
    if (committed["seed"], committed["full"]) != (fresh["seed"], fresh["full"]):
        return ["not comparable: another seed, or the full form against the quick one; run it with the same"]
    found = list(_claims(committed["claims"], fresh["claims"]))
    return found + list(_tree("numbers", committed["numbers"], fresh["numbers"]))


def _claims(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    before, after = ({claim["name"]: claim for claim in claims} for claims in (old, new))
    for name in before.keys() ^ after.keys():
        yield f"claim {name!r} is only in the {'committed' if name in before else 'fresh'} run"
    for name in before.keys() & after.keys():
        if before[name]["holds"] != after[name]["holds"]:
            yield f"claim {name!r}: holds was {before[name]['holds']}, is {after[name]['holds']}"


def _tree(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in old.keys() ^ new.keys():
            yield f"{path}.{key} is only in the {'committed' if key in old else 'fresh'} run"
        for key in old.keys() & new.keys():
            if key != AS_TAKEN:
                yield from _tree(f"{path}.{key}", old[key], new[key])
        return
    a, b = _numbers(old), _numbers(new)
    if a is None or b is None:
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for k, (x, y) in enumerate(zip(old, new, strict=True)):
                yield from _tree(f"{path}[{k}]", x, y)
        elif old != new:
            yield f"{path}: was {_short(old)}, is {_short(new)}"
    elif a.shape != b.shape:
        yield f"{path}: had shape {a.shape}, has {b.shape}"
    else:
        with np.errstate(invalid="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            gap = np.where(same, 0.0, np.abs(a - b))
        scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
        allowed = COUNTS * scale if path.endswith(COUNTED) else RTOL * scale + ATOL
        if not (gap <= allowed).all():
            yield f"{path}: differs by {float(gap.max()):.3g}, {allowed:.3g} is allowed"


def _numbers(value: Any) -> np.ndarray | None:
    """A number or an even list of numbers (the strings nan and inf among them) as an array, else None."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return None if value is None or (isinstance(value, str) and value not in ("nan", "inf", "-inf")) else array


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def main(arguments: Sequence[str]) -> int:
    """0 if every figure of the second folder agrees with the first, 1 if one does not, 2 for a wrong request."""
    if len(arguments) != 2 or not all(Path(name).is_dir() for name in arguments):
        print("usage: python -m paper_repro.gallery COMMITTED FRESH   (two folders of figures)", file=sys.stderr)
        return 2
    committed, fresh = map(Path, arguments)
    records = sorted(fresh.glob("*.json"))
    errors = sorted(fresh.glob("*.error.txt"))
    if not records and not errors:
        print(f"{fresh} holds no figure to compare; make some with gfsim reproduce --out {fresh}", file=sys.stderr)
        return 2
    worst = int(bool(errors))
    for path in errors:
        print(f"{path.name.removesuffix('.error.txt')}: DIFFERS\n  it is in error: see {path}")
    for path in records:
        twin = committed / path.name
        found = [f"not in {committed}"]
        if twin.is_file():
            found = differences(json.loads(twin.read_text("utf-8")), json.loads(path.read_text("utf-8")))
        print(f"{path.stem}: {'agrees' if not found else 'DIFFERS'}")
        for line in found:
            print(f"  {line}")
        worst |= bool(found)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
