"""The checks of the theory: what counts as evidence, and that a wrong library turns the right row red."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import proofs_checks.ncf_flow
import proofs_checks.partial_homogeneity
import proofs_checks.registry as registry
from gfsim.cli import main
from gfsim.errors import InvalidInput, UnknownName
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.neuron import NeuronNCF
from gfsim.ncf.origin import OriginNCF
from gfsim.saddles.neurons import ActiveNeurons
from proofs_checks.registry import Statement
from proofs_checks.report import problems, table, verdict
from proofs_checks.statement import Context, Evidence, Ledger, Row

ELSEWHERE = Context(seed=20_261)
"""A seed that nothing was tuned on."""

LONG = ("near_saddle", "greedy_modes", "first_saddle", "origin_escape", "one_neuron", "homogeneity", "ncf_flow", "toy")


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


# -- the statements themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("statement", registry.STATEMENTS, ids=lambda s: s.name)
def test_every_module_states_its_statement(statement: registry.Statement) -> None:
    text = sys.modules[statement.load().__module__].__doc__ or ""
    for part in ("Hypotheses.", "Conclusion.", "Source.", "Control."):
        assert part in text


SHORT = [s for s in registry.STATEMENTS if s.name not in LONG]


@pytest.mark.parametrize("statement", SHORT, ids=lambda s: s.name)
def test_statement_holds_on_a_seed_of_its_own(statement: registry.Statement) -> None:
    outcome = registry.run(statement, ELSEWHERE)
    assert outcome.holds, problems([outcome])


@pytest.mark.slow
@pytest.mark.parametrize("statement", [s for s in registry.STATEMENTS if s.name in LONG], ids=lambda s: s.name)
def test_long_statement_holds_on_a_seed_of_its_own(statement: registry.Statement) -> None:
    outcome = registry.run(statement, ELSEWHERE)
    assert outcome.holds, problems([outcome])


# -- a wrong library -----------------------------------------------------------------------------------


def failing(name: str) -> set[str]:
    """What is not as it should be in the row of that name; the row must be there and red."""
    (statement,) = registry.select([name])
    outcome = registry.run(statement, Context())
    assert not outcome.holds
    return {e.what for e in outcome.evidence if not e.as_it_should} | {outcome.error}


def test_wrong_degree_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FeedForward, "degree", property(lambda self: float(self.activation.power * (self.depth - 1) + 1))
    )
    assert "declared degree against the formula" in failing("homogeneity")


def test_balance_without_its_factor_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unscaled(self: FeedForward, w: np.ndarray) -> np.ndarray:
        matrices = self.unpack(w)
        return np.concatenate([(W * W).sum(-1) - (V * V).sum(-2) for W, V in pairwise(matrices)], -1)

    monkeypatch.setattr(FeedForward, "conserved", unscaled)
    found = failing("balance")
    assert "rate of change of the neuron balances, relative to |w| |dw/dt|" in found
    assert "<grad B, grad C.H> = 0 for symbols, s = z^p" in found


def test_wrong_sign_of_the_ncf_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OriginNCF.gradient
    monkeypatch.setattr(OriginNCF, "gradient", lambda self, u: -right(self, u))
    for name in ("kkt", "ncf_flow"):
        assert failing(name)


def test_wrong_blow_up_constant_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proofs_checks.ncf_flow.limit

    def late(ncf, z, **options):  # type: ignore[no-untyped-def]
        found = right(ncf, z, **options)
        # 1/(D (D-1)) in place of 1/(D (D-2)) in the remainder that is added to the integrated time
        rest = found.time - float(found.path.t[-1])
        return dataclasses.replace(found, time=float(found.path.t[-1]) + rest * (ncf.degree - 2) / (ncf.degree - 1))

    monkeypatch.setattr(proofs_checks.ncf_flow, "limit", late)
    assert "the library's time scale against the same laws, relative" in failing("ncf_flow")


def test_wrong_order_of_the_remainder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = HomogeneousActivation.value

    def bent(self: HomogeneousActivation, z: np.ndarray) -> np.ndarray:
        return right(self, z) + right(self, z) * z / 1000

    monkeypatch.setattr(HomogeneousActivation, "value", bent)
    monkeypatch.setattr(proofs_checks.partial_homogeneity, "_symbols", lambda _: None)  # they see it too, slowly
    found = failing("partial_homogeneity")
    assert "R at delta = 1/2, depth 2 or last hidden layer only" in found
    assert "fitted degree of R against 2p + 1, adjacent layers" in found


def test_incomplete_set_of_inactive_weights_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ActiveNeurons.index_z
    monkeypatch.setattr(ActiveNeurons, "index_z", lambda self, model: right(self, model)[1:])
    assert "places where w_z differs from the neurons' rows and columns" in failing("zero_preserving")


def test_wrong_hessian_block_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = NeuronNCF.hessian
    monkeypatch.setattr(NeuronNCF, "hessian", lambda self, u: 2.0 * right(self, u))
    assert "block of w_z plus Hess N(0), relative" in failing("hessian_blocks")


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
