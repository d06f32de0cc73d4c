"""The pictures of statements: nothing measured is left out, and every statement has one in the docs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfsim.cli import main
from paper_repro.figure import styled
from proofs_checks.plots import figure, png, ratio
from proofs_checks.registry import STATEMENTS, Statement, run
from proofs_checks.statement import Context, Curve, Evidence, Ledger, Row

DOCS = Path(__file__).parents[1] / "docs"


def row(*evidence: Evidence, curves: tuple[Curve, ...] = ()) -> Row:
    return Row("name", "title", "source", evidence, curves=curves)


def piece(values: tuple[float, ...], kind: str = "numerical", sense: str = "at most", bound: float = 1.0) -> Evidence:
    return Evidence(kind, "a size", values[0], sense, bound, len(values), "because", values)  # type: ignore[arg-type]


def drawn(picture_row: Row) -> list[np.ndarray]:
    """Horizontal places of the marks, a line of evidence each."""
    with styled():
        ax = figure(picture_row).axes[0]
    return [np.asarray(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "None"]


def test_ledger_keeps_every_instance_and_curve() -> None:
    ledger = Ledger()
    ledger.at_most("a", [1.0, 3.0, 2.0], 5.0, "")
    ledger.curve("size", "one", [1, 2], [3, 4], stated=1.0)
    assert ledger.evidence[0].values == (1.0, 3.0, 2.0)
    assert ledger.curves == [Curve("size", "one", (1.0, 2.0), (3.0, 4.0), 1.0)]


@pytest.mark.parametrize(
    ("value", "sense", "bound", "expected"),
    [
        (0.5, "at most", 2.0, 0.25),
        (0.5, "at least", 2.0, 4.0),
        (0.0, "at most", 0.0, 0.0),
        (1e-300, "at most", 0.0, math.inf),
        (0.0, "at least", 2.0, math.inf),
        (math.inf, "at least", 2.0, 0.0),
        (math.inf, "at most", 2.0, math.inf),
    ],
)
def test_ratio_is_below_one_where_the_inequality_holds(value: float, sense: str, bound: float, expected: float) -> None:
    assert ratio(value, piece((value,), sense=sense, bound=bound)) == expected


SIZES = st.floats(0, 1e300) | st.sampled_from([0.0, math.inf, 1e-300, 1.0])


@settings(max_examples=20)
@given(
    st.lists(SIZES, min_size=1, max_size=5), st.sampled_from(["at most", "at least"]), st.sampled_from([0.0, 1e-9, 2.0])
)
def test_every_instance_is_drawn_on_its_side_of_the_bound(values: list[float], sense: str, bound: float) -> None:
    if sense == "at least" and bound == 0.0:
        return  # claims nothing
    claim = piece(tuple(values), sense=sense, bound=bound)
    control = piece(tuple(values), "control", sense, bound)
    for places in drawn(row(claim, control)):
        assert len(places) == len(values)
        for place, value in zip(places, values, strict=True):
            inside = value <= bound if sense == "at most" else value >= bound
            assert place <= 0 if inside else place >= 0


def test_a_nan_is_shown_as_such_and_not_as_a_mark() -> None:
    bad = row(piece((0.5, math.nan)))
    assert [len(places) for places in drawn(bad)] == [1]
    with styled():
        picture = figure(bad)
    assert "NaN" in [text.get_text() for text in picture.axes[0].texts]
    assert "DOES NOT HOLD" in picture.get_suptitle()


def test_curves_show_fitted_and_stated_slopes() -> None:
    x = (1e-1, 1e-2, 1e-3)
    curves = (
        Curve("size", "cubic", x, tuple(7 * t**3 for t in x), 3.0),
        Curve("time", "log", x, tuple(2 - 5 * math.log(t) for t in x), 4.0, "semilog"),
        Curve("free", "anything", x, (1.0, math.nan, 0.0)),  # one point left on log axes: nothing to join
    )
    with styled():
        picture = figure(row(piece((0.5,)), curves=curves))
    assert len(picture.axes) == 4
    legends = [
        [t.get_text() for t in ax.get_legend().get_texts()] if ax.get_legend() else [] for ax in picture.axes[1:]
    ]
    assert legends == [["cubic: 3.000"], ["log: 5.000"], []]
    assert "slopes fitted: 3\nstated (dotted): 3" in picture.axes[1].get_title(loc="left")
    dotted = [line for line in picture.axes[2].lines if line.get_linestyle() == ":"]
    (t0, t1), (y0, y1) = dotted[0].get_xdata(), dotted[0].get_ydata()
    assert (y1 - y0) / math.log(t0 / t1) == pytest.approx(4.0)


def test_a_picture_is_the_same_every_time() -> None:
    sample = row(piece((0.5, 1e-4)), piece((3.0,), "control"))
    assert png(sample) == png(sample)


def test_the_command_draws_what_it_ran(tmp_path: Path) -> None:
    assert main(["check", "dead_neuron", "zero_preserving", "--plots", str(tmp_path / "new")]) == 0
    assert sorted(f.name for f in (tmp_path / "new").iterdir()) == ["dead_neuron.png", "zero_preserving.png"]
    assert (tmp_path / "new" / "dead_neuron.png").read_bytes().startswith(b"\x89PNG")


def test_curves_are_drawn_from_the_run() -> None:
    (toy,) = [s for s in STATEMENTS if s.name == "toy"]
    outcome = run(toy, Context())
    (curve,) = outcome.curves
    slope = np.polyfit(-np.log(curve.x), curve.y, 1)[0]
    assert slope == pytest.approx(curve.stated, rel=0.02)


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.name)
def test_every_statement_has_its_picture_in_the_docs(statement: Statement) -> None:
    """After adding a statement: `make pictures`, and in docs/checks.md a heading, a sentence and the picture."""
    text = (DOCS / "checks.md").read_text()
    assert f"### {statement.name}\n" in text
    assert f"![{statement.name}](checks/{statement.name}.png)" in text
    assert f"| `{statement.name}` |" in text
    assert (DOCS / "checks" / f"{statement.name}.png").is_file()


def test_no_picture_is_left_of_a_statement_that_has_gone() -> None:
    names = {s.name for s in STATEMENTS}
    assert {f.stem for f in (DOCS / "checks").glob("*.png")} == names
    assert set(re.findall(r"\(checks/(\w+)\.png\)", (DOCS / "checks.md").read_text())) == names
