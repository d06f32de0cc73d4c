"""Every code block of the README and of docs/ runs, and prints what the page shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("markdown_it", reason="the pages are read with markdown-it-py, part of the extra 'docs'")

from doc_blocks import ROOT, Session, agree, blocks, difference, not_run, pages

NAMES = [str(page.relative_to(ROOT)) for page in pages()]


def houses(folder: Path) -> None:
    """The tables that the README's commands speak of."""
    rng = np.random.default_rng(0)
    rooms, area = rng.integers(1, 8, 120), rng.uniform(40, 200, 120)
    price = 2.0 * area + 10.0 * rooms + rng.standard_normal(120)
    table = np.column_stack([rooms, area, price])
    for name, rows, columns in (
        ("houses.csv", table, "rooms,area,price"),
        ("new-houses.csv", table[:5, :2], "rooms,area"),
    ):
        np.savetxt(folder / name, rows, delimiter=",", header=columns, comments="", fmt="%.6g")


def certificates(folder: Path) -> None:
    """The requests that docs/certificates.md speaks of, at the path it gives."""
    shutil.copytree(ROOT / "docs" / "certificates", folder / "docs" / "certificates")


NEEDS = {"README.md": houses, "docs/certificates.md": certificates}
"""Files that a page takes for granted; everything else is made by its own blocks."""


@pytest.mark.parametrize("name", [n for n, page in zip(NAMES, pages(), strict=True) if blocks(page)])
def test_the_blocks_of_a_page_run_and_print_what_is_shown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    NEEDS.get(name, lambda _: None)(tmp_path)
    session = Session(tmp_path)
    for block in blocks(ROOT / name):
        printed = session.run(block)
        if block.output is not None:
            wrong = difference(block.output, printed)
            assert wrong is None, f"{block}: {wrong}"
    pyplot = session.names.get("plt")
    if pyplot is not None:
        pyplot.close("all")


def test_few_commands_are_shown_and_not_run() -> None:
    """A reason on the page is needed for anything but making the environment."""
    shown = {line.split("  #")[0].strip() for page in pages() for block in blocks(page) for line in not_run(block)}
    made = {line for line in shown if line.startswith(("make ", "pip install "))}
    assert shown - made == set()
    assert len(made) <= 12


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("loss 7.258 -> 1.882", "loss 7.2581 -> 1.8823"),
        ("drift 1.8e-12", "drift 3.0e-11"),
        ("drift 1e-16", "drift 0"),
        ("368 steps, layer 1", "371 steps,  layer 1"),
        ("a\n...\nz", "a\nb\nc\nz"),
        ("[-0.93 0.10]", "[-0.934  0.1]"),
    ],
)
def test_outputs_that_agree(shown: str, real: str) -> None:
    assert difference(shown, real) is None


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("loss 7.258", "loss 7.458"),
        ("drift 1.8e-12", "drift 1.8e-9"),
        ("drift 1.8e-12", "drift 1.8e-3"),
        ("layer 1", "layer 2"),
        ("368 steps", "468 steps"),
        ("cosine 0.19", "cosine 0.21"),
        ("escape 0.83", "collapse 0.83"),
        ("1 - cos 0.5", "1 - cos -0.5"),
        ("a", "a\nb"),
    ],
)
def test_outputs_that_do_not_agree(shown: str, real: str) -> None:
    assert difference(shown, real) is not None


def test_numbers_agree_by_their_kind() -> None:
    assert agree("20", "21")
    assert not agree("19", "20")
