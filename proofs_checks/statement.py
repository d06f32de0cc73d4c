"""What a check is made of: pieces of evidence, and the row of a statement that they add up to.

A piece of evidence compares the worst of its instances with a bound.  A statement holds when every piece
holds AND it has a negative control that behaves as it should: the same measurement, made where one
hypothesis is broken, must violate the same bound.  Without that a check might be one that cannot fail.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gfsim.errors import InvalidInput
from proofs_checks.fitting import DECADES, EQUAL, Fit, Frequency

Kind = Literal["symbolic", "numerical", "control"]
Sense = Literal["at most", "at least"]


@dataclass(frozen=True)
class Exponent:
    """A fitted exponent beside the one that the statement gives."""

    fit: Fit
    stated: float

    @property
    def distance(self) -> float:
        """From the stated one, two standard errors added."""
        return abs(self.fit.slope - self.stated) + 2 * self.fit.error

    @property
    def excess(self) -> float:
        """The fitted exponent, less two standard errors, in units of the stated one; 0 when it is negative."""
        if self.stated <= 0:
            return math.nan
        low = (self.fit.slope - 2 * self.fit.error) / self.stated
        return low if math.isnan(low) else max(0.0, low)


@dataclass(frozen=True)
class Evidence:
    """One comparison.

    Attributes
    ----------
    kind : "symbolic", "numerical" or "control"
    what : str
        The measured quantity, in words.
    measured : float >= 0
        The instance that comes nearest to refuting the claim.  Of a control: the instance that comes
        nearest to meeting the bound although its hypothesis is broken.
    sense, bound : the inequality that the claim asserts
    instances : int
        How many instances ``measured`` is the worst of.
    why : str
        Where the bound comes from; of a control, which hypothesis was broken.
    values : tuple of float
        All instances, as they were measured.
    exponents : tuple of Exponent
        The fits that ``measured`` was made of, one an instance; empty for what is no exponent.
    """

    kind: Kind
    what: str
    measured: float
    sense: Sense
    bound: float
    instances: int
    why: str
    values: tuple[float, ...] = field(default=(), repr=False)
    exponents: tuple[Exponent, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the inequality holds; never for a NaN."""
        return self.measured <= self.bound if self.sense == "at most" else self.measured >= self.bound

    @property
    def as_it_should(self) -> bool:
        """Met for a claim; violated (by a number, not by a NaN) for a control."""
        if self.kind == "control":
            return not self.met and not math.isnan(self.measured)
        return self.met

    @property
    def margin(self) -> float:
        """The factor by which the worst instance is on its right side; below 1 means that it is not.

        Infinite for what is met exactly (zero, where at most zero is claimed, included).
        """
        if math.isnan(self.measured):
            return 0.0
        inside, outside = (self.bound, self.measured) if self.sense == "at most" else (self.measured, self.bound)
        if self.kind == "control":
            inside, outside = outside, inside
        if outside == 0:
            return math.inf if self.as_it_should else 0.0
        return inside / outside


Axes = Literal["log-log", "semilog"]


@dataclass(frozen=True)
class Curve:
    """A size along a parameter, from which evidence was read off; for the picture only, it decides nothing.

    Attributes
    ----------
    panel : str
        The quantity, in words; curves of one panel are drawn together.
    label : str
        Which instance.
    x, y : tuples of float
        x > 0, mostly delta.
    stated : float or None
        The exponent of x that the statement gives; on semilog axes (t over ln 1/x) the slope.
    axes : "log-log" or "semilog"
    broken : bool
        Whether this is the negative control.
    """

    panel: str
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    stated: float | None = None
    axes: Axes = "log-log"
    broken: bool = False


class Ledger:
    """Collects the evidence of one statement; every method takes all instances and keeps the worst."""

    def __init__(self) -> None:
        self.evidence: list[Evidence] = []
        self.curves: list[Curve] = []
        self.notes: list[str] = []

    def curve(
        self,
        panel: str,
        label: str,
        x: Iterable[float],
        y: Iterable[float],
        *,
        stated: float | None = None,
        axes: Axes = "log-log",
        broken: bool = False,
    ) -> None:
        """Keep a curve for the picture of the statement (see :class:`Curve`)."""
        self.curves.append(Curve(panel, label, tuple(map(float, x)), tuple(map(float, y)), stated, axes, broken))

    def identity(self, what: str, differences: Iterable[object]) -> None:
        """sympy expressions that must all vanish identically; those that do not are counted."""
        import sympy

        remainders = [sympy.nsimplify(sympy.sympify(d), rational=True) for d in differences]
        wrong = sum(1 for r in remainders if sympy.simplify(sympy.expand(r)) != 0)
        self._add("symbolic", what, [float(wrong)] * len(remainders), "at most", 0.0, "an identity: no tolerance")

    def proved(self, what: str, cases: Iterable[object]) -> None:
        """Propositions that sympy must have settled as true; the others are counted."""
        verdicts = [case is True or str(case) == "True" for case in cases]
        self._add("symbolic", what, [float(not v) for v in verdicts], "at most", 0.0, "settled by sympy: no tolerance")

    def at_most(self, what: str, values: Iterable[float], bound: float, why: str) -> None:
        self._add("numerical", what, values, "at most", bound, why)

    def at_least(self, what: str, values: Iterable[float], bound: float, why: str) -> None:
        self._add("numerical", what, values, "at least", bound, why)

    def exponent(self, what: str, fits: Iterable[Fit], stated: float | Iterable[float], why: str) -> None:
        """Exponents that the statement gives exactly: each must be met to EQUAL, two standard errors included."""
        pairs = _pairs(fits, stated)
        bound = f"{why}; an exponent is met to {EQUAL}, two standard errors included"
        self._add("numerical", what, [e.distance for e in pairs], "at most", EQUAL, bound, pairs)

    def upper_bound(self, what: str, fits: Iterable[Fit], stated: float | Iterable[float], why: str) -> None:
        """Exponents of upper bounds: what is measured may fall faster, and must not fall slower.

        Two standard errors are taken off; 2 per cent are allowed for a bound that is met with equality.
        """
        pairs = _pairs(fits, stated)
        bound = f"{why}; in units of the stated exponent, two standard errors taken off"
        self._add("numerical", what, [e.excess for e in pairs], "at least", 1 - EQUAL, bound, pairs)

    def upper_bound_control(self, what: str, fits: Iterable[Fit], stated: float | Iterable[float], broken: str) -> None:
        """The measurement of :meth:`upper_bound` where the hypothesis ``broken`` does not hold."""
        pairs = _pairs(fits, stated)
        self._add("control", what, [e.excess for e in pairs], "at least", 1 - EQUAL, broken, pairs)

    def exponent_control(self, what: str, fits: Iterable[Fit], stated: float | Iterable[float], broken: str) -> None:
        """The measurement of :meth:`exponent` where the hypothesis ``broken`` does not hold."""
        pairs = _pairs(fits, stated)
        # without the standard errors: a wild fit must not pass for a refuted one
        self._add("control", what, [abs(e.fit.slope - e.stated) for e in pairs], "at most", EQUAL, broken, pairs)

    def frequency(self, what: str, found: Frequency, at_least: float, why: str) -> None:
        """A share of random instances: the lower end of its 95 per cent interval counts.  Not a theorem."""
        self._add("numerical", f"{what}: {found}", [found.low], "at least", at_least, why, weight=found.total)

    def frequency_control(self, what: str, found: Frequency, at_least: float, broken: str) -> None:
        """The same share where the hypothesis ``broken`` does not hold: even the upper end must be below the bound."""
        self._add("control", f"{what}: {found}", [found.high], "at least", at_least, broken, weight=found.total)

    def note(self, text: str) -> None:
        """Something measured that is no claim, for the reader."""
        self.notes.append(text)

    def control(self, what: str, values: Iterable[float], bound: float, broken: str, sense: Sense = "at most") -> None:
        """The measurement of a claim where the hypothesis ``broken`` does not hold: each must violate ``bound``."""
        self._add("control", what, values, sense, bound, broken)

    def _add(
        self,
        kind: Kind,
        what: str,
        values: Iterable[float],
        sense: Sense,
        bound: float,
        why: str,
        exponents: tuple[Exponent, ...] = (),
        weight: int | None = None,
    ) -> None:
        numbers = [float(v) for v in values]
        if not numbers:
            raise InvalidInput(f"no instance of {what!r} was made; a claim about nothing is not evidence")
        if any(v < 0 for v in numbers):
            raise InvalidInput(f"{what!r} measured {min(numbers):g}; pass sizes of deviations, which are >= 0")
        # a NaN among the instances is the worst of them: max and min would pass over it
        largest = (sense == "at most") != (kind == "control")
        worst = math.nan if any(map(math.isnan, numbers)) else max(numbers) if largest else min(numbers)
        for k, exponent in enumerate(exponents, start=1):
            drawn = [(x, y) for x, y in exponent.fit.points if y > 0]
            if len(drawn) > 1:
                x, y = zip(*drawn, strict=True)
                self.curve(what, f"instance {k}", x, y, stated=exponent.stated, broken=kind == "control")
        self.evidence.append(
            Evidence(kind, what, worst, sense, bound, weight or len(numbers), why, tuple(numbers), exponents)
        )


def _pairs(fits: Iterable[Fit], stated: float | Iterable[float]) -> tuple[Exponent, ...]:
    found = list(fits)
    values = [float(stated)] * len(found) if isinstance(stated, (int, float)) else [float(v) for v in stated]
    short = [fit.decades for fit in found if fit.decades < DECADES - 1e-9]
    if short:
        raise InvalidInput(f"an exponent fitted over {min(short):.2g} decades; take {DECADES:g} of them or more")
    return tuple(Exponent(fit, value) for fit, value in zip(found, values, strict=True))


@dataclass(frozen=True)
class Context:
    """What a module is run with: the seed of all draws, and whether to take the long form."""

    seed: int = 0
    full: bool = False

    def rng(self, *key: object) -> np.random.Generator:
        """A generator that depends on the seed and on ``key`` alone, not on what ran before."""
        return np.random.default_rng([self.seed, zlib.crc32(repr(key).encode())])

    def draws(self, key: str, quick: int, full: int | None = None) -> Iterator[np.random.Generator]:
        """One generator an instance: ``quick`` of them, or ``full`` (default: ten times as many)."""
        count = quick if not self.full else 10 * quick if full is None else full
        return (self.rng(key, k) for k in range(count))


@dataclass(frozen=True)
class Row:
    """The outcome of one statement."""

    name: str
    title: str
    source: str
    evidence: tuple[Evidence, ...] = field(repr=False)
    seconds: float = 0.0
    error: str = ""
    """What stopped the module, if something did; the statement then counts as not holding."""
    skipped: str = ""
    """What is missing for the module to run, if something is; the statement is then neither held nor refuted."""
    curves: tuple[Curve, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    """What was measured beside the claims."""

    def of_kind(self, *kinds: Kind) -> list[Evidence]:
        return [e for e in self.evidence if e.kind in kinds]

    @property
    def control_failed(self) -> bool:
        """Whether there is a negative control and every one failed as it should."""
        controls = self.of_kind("control")
        return bool(controls) and all(e.as_it_should for e in controls)

    @property
    def holds(self) -> bool:
        claims = self.of_kind("symbolic", "numerical")
        return (
            not self.error and not self.skipped and bool(claims) and all(e.met for e in claims) and self.control_failed
        )

    @property
    def tightest(self) -> Evidence | None:
        """The numerical evidence with the smallest margin; None when there is none."""
        return min(self.of_kind("numerical"), key=lambda e: e.margin, default=None)
