"""The checks of the theory: what counts as evidence, how exponents are fitted, and the command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import proofs_checks.registry as registry
from gfsim.cli import main
from gfsim.errors import InvalidInput, UnknownName
from gfsim.models.feedforward import FeedForward
from proofs_checks.fitting import EQUAL, Fit, Frequency, power_law
from proofs_checks.registry import Statement
from proofs_checks.report import exponents, notes, problems, table, verdict
from proofs_checks.statement import Context, Evidence, Ledger, Row

ELSEWHERE = Context(seed=20_261)
"""A seed that nothing was tuned on."""

SHORT_NAMES = (
    "origin_critical",
    "balance",
    "zero_preserving",
    "kkt",
    "dead_neuron",
    "partial_homogeneity",
    "relu_kinks",
    "hessian_blocks",
    "not_minimum",
)
"""The statements that take a second or less."""


def piece(measured: float, kind: str = "numerical", sense: str = "at most", bound: float = 1.0) -> Evidence:
    return Evidence(kind, "a size", measured, sense, bound, 3, "because")  # type: ignore[arg-type]


def row(*evidence: Evidence) -> Row:
    return Row("name", "title", "source", evidence)


# -- what counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "good", "margin"),
    [
        (piece(0.5), True, 2.0),
        (piece(2.0), False, 0.5),
        (piece(2.0, sense="at least"), True, 2.0),
        (piece(0.5, sense="at least"), False, 0.5),
        (piece(0.0, bound=0.0), True, math.inf),
        (piece(1e-300, bound=0.0), False, 0.0),
        (piece(math.nan), False, 0.0),
        (piece(2.0, "control"), True, 2.0),
        (piece(0.5, "control"), False, 0.5),
        (piece(0.0, "control", bound=0.0), False, 0.0),
        (piece(0.5, "control", "at least"), True, 2.0),
        (piece(math.nan, "control"), False, 0.0),
        (piece(math.nan, "control", "at least"), False, 0.0),
    ],
)
def test_evidence_and_its_margin(evidence: Evidence, good: bool, margin: float) -> None:
    assert evidence.as_it_should is good
    assert evidence.margin == margin


def test_a_statement_needs_a_claim_and_a_control_that_fails() -> None:
    assert row(piece(0.5), piece(2.0, "control")).holds
    assert not row(piece(0.5)).holds
    assert not row(piece(2.0, "control")).holds
    assert not row(piece(0.5), piece(0.5, "control")).holds
    assert not row(piece(0.5), piece(2.0), piece(2.0, "control")).holds
    assert not dataclasses.replace(row(piece(0.5), piece(2.0, "control")), error="broke").holds


def test_ledger_keeps_the_instance_nearest_to_failure() -> None:
    ledger = Ledger()
    ledger.at_most("a", [1.0, 3.0, 2.0], 5.0, "")
    ledger.at_least("b", [1.0, 3.0, 2.0], 0.5, "")
    ledger.control("c", [1.0, 3.0, 2.0], 0.5, "")
    ledger.control("d", [1.0, 3.0, 2.0], 9.0, "", sense="at least")
    ledger.at_least("e", [1.0, math.nan, 2.0], 0.5, "")
    assert [e.measured for e in ledger.evidence[:4]] == [3.0, 1.0, 1.0, 3.0]
    assert math.isnan(ledger.evidence[4].measured)
    with pytest.raises(InvalidInput, match="no instance"):
        ledger.at_most("f", [], 1.0, "")
    with pytest.raises(InvalidInput, match="sizes of deviations"):
        ledger.at_most("g", [-2.0], 1.0, "")


def test_symbolic_evidence_counts_what_does_not_vanish() -> None:
    import sympy

    x = sympy.Symbol("x")
    ledger = Ledger()
    ledger.identity("true", [(x + 1) ** 2 - x**2 - 2 * x - 1, 0.5 * x - x / 2])
    ledger.identity("one is false", [x - x, x**2 - x])
    ledger.proved("one is open", [sympy.true, x > 0])
    assert [e.measured for e in ledger.evidence] == [0.0, 1.0, 1.0]


def test_draws_depend_on_the_seed_and_the_key_alone() -> None:
    one, two = Context(seed=1), Context(seed=2)
    assert next(one.draws("a", 1)).random() == next(one.draws("a", 5)).random()
    assert next(one.draws("a", 1)).random() != next(one.draws("b", 1)).random()
    assert next(one.draws("a", 1)).random() != next(two.draws("a", 1)).random()


# -- exponents and frequencies -------------------------------------------------------------------------

DECADES = np.logspace(-1, -5, 9)


def test_power_law_and_its_standard_error() -> None:
    exact = power_law(DECADES, 3.0 * DECADES**1.5)
    assert exact.slope == pytest.approx(1.5, abs=1e-12)
    assert exact.constant == pytest.approx(3.0, rel=1e-10)
    assert exact.decades == pytest.approx(4.0)
    rng = np.random.default_rng(0)
    fits = [power_law(DECADES, DECADES * np.exp(0.1 * rng.standard_normal(9))) for _ in range(400)]
    spread = float(np.std([f.slope for f in fits]))
    assert np.mean([f.error for f in fits]) == pytest.approx(spread, rel=0.15)  # the error is that of the slope


def test_power_law_tells_a_bend_from_a_slope() -> None:
    bent = DECADES * (1 + 5 * DECADES)
    assert abs(power_law(DECADES, bent).slope - 1) > EQUAL / 2
    # the bend enters its logarithm as 5 delta - 12.5 delta^2 + ...: most of it is taken away, the rest is in the error
    better = power_law(DECADES[2:], bent[2:], correction=1.0)
    assert abs(better.slope - 1) < 1e-3
    assert abs(better.slope - 1) < 2 * better.error + 1e-3


def test_power_law_of_zeros_and_of_what_is_no_number() -> None:
    assert power_law(DECADES, 0 * DECADES).slope == math.inf
    for spoilt in (math.nan, 0.0):
        sizes = DECADES.copy()
        sizes[4] = spoilt
        fit = power_law(DECADES, sizes)
        assert math.isnan(fit.slope)
        assert fit.error == math.inf
    with pytest.raises(InvalidInput, match="3 pairs or more"):
        power_law(DECADES[:2], DECADES[:2])


def fit(slope: float, error: float = 0.0, decades: float = 4.0) -> Fit:
    return Fit(slope, error, 1.0, decades)


@pytest.mark.parametrize(
    ("slope", "error", "met"),
    [(2.0, 0.0, True), (2.015, 0.001, True), (2.025, 0.0, False), (2.0, 0.011, False), (math.nan, math.inf, False)],
)
def test_an_exact_exponent_is_met_with_its_error(slope: float, error: float, met: bool) -> None:
    ledger = Ledger()
    ledger.exponent("a", [fit(2.0), fit(slope, error)], 2.0, "because")
    assert ledger.evidence[0].met is met


@pytest.mark.parametrize(
    ("slope", "error", "met"),
    [
        (3.0, 0.0, True),
        (0.2, 0.0, True),
        (0.19, 0.0, False),
        (0.21, 0.01, False),
        (-1.0, 0.0, False),
        (math.inf, 0.0, True),
    ],
)
def test_an_upper_bound_may_be_exceeded(slope: float, error: float, met: bool) -> None:
    ledger = Ledger()
    ledger.upper_bound("a", [fit(slope, error)], [0.2], "because")
    assert ledger.evidence[0].met is met


def test_an_exponent_needs_four_decades() -> None:
    with pytest.raises(InvalidInput, match=r"3\.5 decades"):
        Ledger().exponent("a", [fit(1.0, decades=3.5)], 1.0, "because")


def test_a_control_is_not_refuted_by_a_wild_fit() -> None:
    ledger = Ledger()
    ledger.exponent_control("a", [fit(1.0, error=5.0)], 1.0, "broken")
    ledger.exponent_control("b", [fit(0.0, error=5.0)], 1.0, "broken")
    ledger.upper_bound_control("c", [fit(0.0)], 1.0, "broken")
    assert [e.as_it_should for e in ledger.evidence] == [False, True, True]


def test_exponents_are_shown_with_what_they_exceed() -> None:
    ledger = Ledger()
    ledger.upper_bound("gap", [fit(1.0, 0.001), fit(2.0)], [0.5, 0.1], "because")
    ledger.exponent("rate", [fit(0.99, 0.002)], 1.0, "because")
    ledger.note("a note")
    shown = exponents([Row("name", "title", "source", tuple(ledger.evidence))]).splitlines()
    assert ">= 0.5" in shown[2]
    assert "1.0000 +- 1e-03" in shown[2]
    assert shown[2].endswith("x2")
    assert "= 1" in shown[3]
    assert shown[3].endswith("off by 1.0e-02")
    assert exponents([row(piece(0.5))]) == ""
    assert notes([Row("name", "title", "source", (), notes=("a note",))]) == "name: a note"


def test_frequency_has_wilsons_interval() -> None:
    # Wilson 1927; values of the closed form at z = 1.959964
    assert Frequency(45, 50).low == pytest.approx(0.7864, abs=1e-4)
    assert Frequency(45, 50).high == pytest.approx(0.9565, abs=1e-4)
    assert Frequency(0, 10).low == 0.0
    assert Frequency(10, 10).high == pytest.approx(1.0)
    ledger = Ledger()
    ledger.frequency("often", Frequency(45, 50), 0.5, "")
    ledger.frequency("not surely often", Frequency(27, 50), 0.5, "")
    ledger.frequency_control("rare", Frequency(10, 50), 0.5, "")
    ledger.frequency_control("not surely rare", Frequency(24, 50), 0.5, "")
    assert [e.as_it_should for e in ledger.evidence] == [True, False, True, False]
    assert ledger.evidence[0].instances == 50


# -- the statements themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("statement", registry.STATEMENTS, ids=lambda s: s.name)
def test_every_module_states_its_statement(statement: registry.Statement) -> None:
    text = sys.modules[statement.load().__module__].__doc__ or ""
    for part in ("Hypotheses.", "Conclusion.", "Source.", "Control."):
        assert part in text


SHORT = [s for s in registry.STATEMENTS if s.name in SHORT_NAMES]
LONG = [s for s in registry.STATEMENTS if s.name not in SHORT_NAMES]


@pytest.mark.parametrize("statement", SHORT, ids=lambda s: s.name)
def test_statement_holds_on_a_seed_of_its_own(statement: registry.Statement) -> None:
    outcome = registry.run(statement, ELSEWHERE)
    assert outcome.holds, problems([outcome])


@pytest.mark.slow
@pytest.mark.parametrize("statement", LONG, ids=lambda s: s.name)
def test_long_statement_holds_on_a_seed_of_its_own(statement: registry.Statement) -> None:
    outcome = registry.run(statement, ELSEWHERE)
    assert outcome.holds, problems([outcome])


# -- the command ---------------------------------------------------------------------------------------


def test_list_imports_no_check() -> None:
    code = (
        "import sys; from gfsim.cli import main; main(['check', '--list']); "
        "print(sorted(m for m in sys.modules if m in ('sympy', 'scipy', 'proofs_checks.toy')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")
    assert all(s.name in out for s in registry.STATEMENTS)


def test_command_prints_the_table_and_writes_the_record(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "out.json"
    assert main(["check", "dead_neuron", "balance", "--seed", "3", "--details", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "2 of 2 statements hold" in out
    assert "the factor p = 2 is left out" in out
    record = json.loads(file.read_text())
    assert record["holds"] is True
    assert record["seed"] == 3
    assert [s["name"] for s in record["statements"]] == ["balance", "dead_neuron"]  # registry order
    assert all(s["evidence"] for s in record["statements"])
    assert [f.name for f in tmp_path.iterdir()] == ["out.json"]


def test_command_fails_with_a_statement_in_error(monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    def broken(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(FeedForward, "conserved", broken)
    assert main(["check", "balance", "dead_neuron"]) == 1
    out = capsys.readouterr().out
    assert "ERROR" in out
    assert "ZeroDivisionError" in out
    assert "1 of 2 statements hold; not: balance" in out


def test_command_refuses_what_it_cannot_do(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["check", "balence"]) == 2
    assert "balance" in capsys.readouterr().err
    assert main(["check", "balance", "--json", str(tmp_path / "none" / "x.json")]) == 2
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(UnknownName):
        registry.select(["nothing"])


def test_table_shows_a_control_that_does_not_fail() -> None:
    bad = row(piece(0.5), piece(0.5, "control"))
    assert "DOES NOT FAIL" in table([bad])
    assert "NOT AS IT SHOULD BE" in problems([bad])
    assert "NONE" in table([row(piece(0.5))])
    assert verdict([bad]).startswith("0 of 1 statements hold; not: name")


def test_ctrl_c_keeps_the_statements_that_are_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also when a flow inside the check takes the signal for the end of its own run."""
    done = registry.run

    def interrupted(statement: Statement, context: Context) -> Row:
        if statement.name == "kkt":
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return done(statement, context)

    monkeypatch.setattr(registry, "run", interrupted)
    file = tmp_path / "checks.json"
    handler = signal.getsignal(signal.SIGINT)
    assert main(["check", "balance", "kkt", "dead_neuron", "--json", str(file)]) == 130
    assert signal.getsignal(signal.SIGINT) == handler
    out, err = capsys.readouterr()
    assert "1 of 1 statements hold" in out
    assert "interrupted; not checked: kkt, dead_neuron" in err
    record = json.loads(file.read_text())
    assert [row["name"] for row in record["statements"]] == ["balance"]
    assert record["missing"] == ["kkt", "dead_neuron"]
    assert record["holds"] is False
