"""The statements, in the order of docs/theory.md; their modules are imported when they are run."""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gfsim.errors import MissingExtra, unknown_name
from proofs_checks.statement import Context, Ledger, Row

TWO = "[2L] arXiv 2402.09226"
DEEP = "[DEEP] arXiv 2403.08121"
BEYOND = "[BEYOND] JMLR 26(269), 2025"
READING = "[NP] arXiv 2509.12154, Theorem 7; our reading"


@dataclass(frozen=True)
class Statement:
    """A statement: its command-line name, a title, and where it comes from."""

    name: str
    title: str
    source: str

    @property
    def module(self) -> str:
        return f"proofs_checks.{self.name}"

    def load(self) -> Callable[[Context, Ledger], None]:
        check: Callable[[Context, Ledger], None] = importlib.import_module(self.module).check
        return check


STATEMENTS: tuple[Statement, ...] = (
    Statement("homogeneity", "Homogeneity, Euler's identity and the degree", f"{TWO}, {DEEP}, section 2"),
    Statement("origin_critical", "The origin is critical; the loss near it", f"{BEYOND}, Lemma 1"),
    Statement("balance", "The balance of every neuron is conserved", "Du, Hu and Lee 2018 for p = 1"),
    Statement("zero_preserving", "Sets of neurons are zero-preserving", f"{BEYOND}, Lemma 16"),
    Statement("kkt", "KKT points: equation, balance, second order", f"{BEYOND}, section 2 and Lemma 17"),
    Statement("dead_neuron", "A dead neuron is a zero KKT point and never escapes", f"{BEYOND}, Lemma 33"),
    Statement("ncf_flow", "The NCF flow: growth, monotonicity, blow-up, limits", f"{TWO}, Lemma 2; {DEEP}, section 3"),
    Statement("toy", "The escape from the origin in closed form", f"{BEYOND}, Example 1 and Theorem 4"),
    Statement(
        "early_direction", "Early directional convergence, horizon T/delta^(D-2)", f"{BEYOND}, Lemma 3; {TWO}, {DEEP}"
    ),
    Statement("origin_escape", "Escape times from the origin", f"{TWO}, Theorem 3; {DEEP}, Theorem 1"),
    Statement("escape_path", "The path p(t) out of the origin, its limit and its gap", f"{BEYOND}, Theorems 4 and 10"),
    Statement("first_saddle", "The first saddle is reached within eps", f"{BEYOND}, Corollaries 5 and 11"),
    Statement("logistic_infinity", "The logistic loss: far along p(t), sparsely", f"{BEYOND}, Cor. 6, 12; our reading"),
    Statement("sparsity", "Vanishing weights stay small up to the first saddle", f"{BEYOND}, Theorem 18"),
    Statement("partial_homogeneity", "Expansion of a net in its inactive neurons", READING),
    Statement(
        "relu_kinks", "Plain ReLU: the expansion at a kink and beside it", f"docs/theory.md, section 4; {READING}"
    ),
    Statement("one_neuron", "The NCF at a saddle: a sum over neurons, maxima on one", READING),
    Statement("hessian_blocks", "The Hessian at a sparse saddle is block diagonal", READING),
    Statement("near_saddle", "The flow near a sparse saddle follows the NCF flow", READING),
    Statement("not_minimum", "Where wbar_n is no minimum, w_n leaves first", "ours; hypothesis of near_saddle"),
    Statement("certified_kkt", "KKT points proved in interval arithmetic", f"{BEYOND}, section 2"),
    Statement("certified_saddle", "Sparse saddles and their inertia, proved", READING),
    Statement("next_saddle", "The next saddle is the predicted one: how often", "[NP], observed; a frequency"),
    Statement("greedy_modes", "Two-layer linear nets learn singular modes in order", "Saxe et al. 2014"),
    Statement("deep_modes", "Deep linear nets learn singular modes in order", "Saxe et al. 2014; Arora et al. 2018"),
    Statement("diagonal_jumps", "Diagonal linear nets jump as an algorithm tells", "Pesme and Flammarion 2023"),
    Statement("greedy_rank", "Matrix factorisation is greedy in the rank", "Li, Luo and Lyu 2021"),
    Statement("orthogonal_relu", "ReLU on orthogonal inputs: one sign, then the other", "Boursier et al. 2022"),
)


def select(names: Sequence[str], statements: Sequence[Statement] | None = None) -> list[Statement]:
    """The named statements in registry order, all of them when ``names`` is empty; each once.

    Raises :class:`gfsim.errors.UnknownName` with the nearest right name.
    """
    known = STATEMENTS if statements is None else statements
    for name in names:
        if name not in [s.name for s in known]:
            raise unknown_name("statement", name, [s.name for s in known])
    return [s for s in known if not names or s.name in names]


def run(statement: Statement, context: Context) -> Row:
    """Check one statement.  An exception ends this statement only, and is what its row reports.

    A package that is not installed leaves the statement unchecked: it is skipped, which is not to hold.
    """
    ledger, error, skipped, begun = Ledger(), "", "", time.perf_counter()
    try:
        statement.load()(context, ledger)
    except MissingExtra as exc:
        skipped = str(exc)
    except Exception as exc:
        place = traceback.extract_tb(exc.__traceback__)[-1]
        error = f"{type(exc).__name__}: {exc} ({place.filename.rsplit('/', 1)[-1]}, line {place.lineno})"
    seconds = time.perf_counter() - begun
    evidence, curves, notes = tuple(ledger.evidence), tuple(ledger.curves), tuple(ledger.notes)
    return Row(statement.name, statement.title, statement.source, evidence, seconds, error, skipped, curves, notes)
