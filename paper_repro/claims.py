"""Claims: a measured number beside what theory, or the authors' own run, says it must be.

Whether a claim holds is computed from its numbers by :func:`compare`, and everything that this takes
is written to the JSON file, so other code can compute it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.jsonable import Json, to_jsonable

Relation = Literal["<=", ">=", "==", "close", "between"]

THEOREM = "theorem"
READING = "theorem, our reading"
"""A statement of [NP] as reconstructed in docs/theory.md; its text was not at hand."""
PRINTED = "the authors' printed number"
CLOSED_FORM = "closed form"
OURS = "ours"


@dataclass(frozen=True)
class Claim:
    """``measured relation bound``.

    Attributes
    ----------
    name : str
        What is claimed, in words.
    measured : number, string or (nested) list
        A list must satisfy the relation entry by entry.
    relation : str
        ``<=``, ``>=``, ``==``, ``close`` (|measured - bound| <= rtol |bound| + atol) or ``between``
        (bound = [low, high], both included).
    bound : like ``measured``
    of : tuple of str
        Dotted paths of the entries of ``numbers`` that the measured value is computed from.
    source : str
        Where the bound comes from: :data:`THEOREM`, :data:`READING`, :data:`PRINTED`, :data:`CLOSED_FORM`,
        :data:`OURS`, or a fuller citation.
    rtol, atol : float
        For ``close`` only.
    """

    name: str
    measured: Json
    relation: Relation
    bound: Json
    of: tuple[str, ...]
    source: str = OURS
    rtol: float = 0.0
    atol: float = 0.0

    def __post_init__(self) -> None:
        if not self.of:
            raise InvalidInput(
                f"claim {self.name!r} names no entry of numbers; pass of='...' so that it can be recomputed"
            )
        if self.relation != "==":
            _numeric(self.bound, f"bound of claim {self.name!r}")
            if not np.isfinite(_numeric(self.bound, "bound")).all():
                raise InvalidInput(
                    f"claim {self.name!r} has the bound {self.bound!r}, which could not fail; use a finite one"
                )

    # -- the ways to make one ------------------------------------------------------------------------

    @classmethod
    def at_most(
        cls, name: str, measured: object, bound: float, *, of: str | Sequence[str], source: str = OURS
    ) -> Claim:
        """measured <= bound."""
        return cls(name, to_jsonable(measured), "<=", to_jsonable(bound), _paths(of), source)

    @classmethod
    def at_least(
        cls, name: str, measured: object, bound: float, *, of: str | Sequence[str], source: str = OURS
    ) -> Claim:
        """measured >= bound."""
        return cls(name, to_jsonable(measured), ">=", to_jsonable(bound), _paths(of), source)

    @classmethod
    def between(
        cls, name: str, measured: object, low: float, high: float, *, of: str | Sequence[str], source: str = OURS
    ) -> Claim:
        """low <= measured <= high."""
        if not low <= high:
            raise InvalidInput(f"claim {name!r}: low = {low!r} is not below high = {high!r}")
        return cls(name, to_jsonable(measured), "between", to_jsonable([low, high]), _paths(of), source)

    @classmethod
    def close(
        cls,
        name: str,
        measured: object,
        expected: object,
        *,
        of: str | Sequence[str],
        rtol: float = 0.0,
        atol: float = 0.0,
        source: str = OURS,
    ) -> Claim:
        """|measured - expected| <= rtol |expected| + atol, entry by entry."""
        if not (rtol >= 0 and atol >= 0 and rtol + atol > 0 and math.isfinite(rtol + atol)):
            raise InvalidInput(f"claim {name!r}: rtol = {rtol!r}, atol = {atol!r}; one must be > 0, both finite")
        return cls(name, to_jsonable(measured), "close", to_jsonable(expected), _paths(of), source, rtol, atol)

    @classmethod
    def equal(
        cls, name: str, measured: object, expected: object, *, of: str | Sequence[str], source: str = OURS
    ) -> Claim:
        """measured == expected exactly: counts, widths, names."""
        return cls(name, to_jsonable(measured), "==", to_jsonable(expected), _paths(of), source)

    # -- what follows from it ------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        return compare(self.measured, self.relation, self.bound, rtol=self.rtol, atol=self.atol)

    @property
    def digits(self) -> int:
        """Significant digits that a table must show: enough to see the margin of ``close``."""
        if self.relation != "close":
            return 4
        bound = np.abs(_numeric(self.bound, "bound"))
        bound = bound[bound > 0]
        with np.errstate(over="ignore"):
            relative = float((self.rtol + self.atol / bound).min(initial=1.0))
        return max(4, min(math.ceil(-math.log10(max(relative, 1e-12))) + 1, 12))

    @property
    def expected(self) -> Json:
        """The rule in words, e.g. ``"<= 1e-06"``; the plain value for ``==``."""
        if self.relation == "==":
            return self.bound
        if self.relation == "between":
            return " .. ".join(map(show, np.ravel(np.asarray(self.bound)).tolist()))
        if self.relation == "close":
            margins = [f"± {100 * self.rtol:.3g}%"] * bool(self.rtol) + [f"± {self.atol:.3g}"] * bool(self.atol)
            return " ".join([show(self.bound, limit=24, digits=self.digits), *margins])
        return f"{self.relation} {show(self.bound)}"

    def to_json(self) -> dict[str, Json]:
        out: dict[str, Json] = {
            "name": self.name,
            "expected": self.expected,
            "measured": self.measured,
            "holds": self.holds,
            "relation": self.relation,
            "bound": self.bound,
            "source": self.source,
            "of": list(self.of),
        }
        if self.relation == "close":
            out |= {"rtol": self.rtol, "atol": self.atol}
        return out

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Claim:
        """The claim that :meth:`to_json` wrote; whether it holds is computed again."""
        return cls(
            row["name"],
            row["measured"],
            row["relation"],
            row["bound"],
            tuple(row["of"]),
            row["source"],
            rtol=float(row.get("rtol", 0.0)),
            atol=float(row.get("atol", 0.0)),
        )


def compare(measured: Json, relation: Relation, bound: Json, *, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether ``measured relation bound``; False whenever a number that must be compared is NaN."""
    if relation == "==":
        return measured == bound
    m = _numeric(measured, "measured value")
    b = _numeric(bound, "bound")
    if m.size == 0:
        return False  # nothing was measured
    with np.errstate(invalid="ignore"):
        if relation == "<=":
            return bool((m <= b).all())
        if relation == ">=":
            return bool((m >= b).all())
        if relation == "between":
            return bool(((m >= b[0]) & (m <= b[1])).all())
        if np.shape(m) != np.shape(b) and b.ndim:
            return False
        return bool((np.abs(m - b) <= rtol * np.abs(b) + atol).all())


def check_basis(claims: Sequence[Claim], numbers: Mapping[str, object]) -> None:
    """Refuse claims that could not be recomputed: two of one name, or an entry missing from ``numbers``."""
    if not claims:
        raise InvalidInput("the figure makes no claim; state at least one")
    names = [claim.name for claim in claims]
    for claim in claims:
        if names.count(claim.name) > 1:
            raise InvalidInput(f"two claims are called {claim.name!r}; give each a name of its own")
        for path in claim.of:
            node: Any = numbers
            for part in path.split("."):
                if not isinstance(node, Mapping) or part not in node:
                    raise InvalidInput(
                        f"claim {claim.name!r} is computed from {path!r}, which is not in numbers; "
                        f"known: {', '.join(map(str, numbers))}"
                    )
                node = node[part]


def show(value: Json, *, limit: int = 48, digits: int = 4) -> str:
    """A value for a table: ``digits`` significant digits, long lists of numbers as their range."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list):
        text = "[" + ", ".join(show(v, limit=10**9, digits=digits) for v in value) + "]"
        if len(text) > limit and all(isinstance(v, (int, float)) for v in value):
            low, high = show(min(value), digits=digits), show(max(value), digits=digits)
            return f"{len(value)} values: {low}" if low == high else f"{len(value)} values in {low} .. {high}"
        return text if len(text) <= 4 * limit else text[: 4 * limit - 3] + "..."
    return str(value)


def _numeric(value: Json, what: str) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)  # the strings "nan" and "inf" are read back as such
    except (TypeError, ValueError):
        raise InvalidInput(f"{what} is {value!r}, which is not a number; use Claim.equal for other things") from None


def _paths(of: str | Sequence[str]) -> tuple[str, ...]:
    return (of,) if isinstance(of, str) else tuple(of)
