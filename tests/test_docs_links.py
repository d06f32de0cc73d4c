"""The links of the documentation resolve, and the theory page leads to every check and every figure."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from paper_repro.registry import FIGURES
from proofs_checks.registry import STATEMENTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]\n]*\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)")


def prose(page: Path) -> str:
    """The text of a page without its code blocks, and without links that are shown as code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`\[[^`\n]*`", "", text)


@cache
def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, made as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def theory() -> str:
    return prose(ROOT / "docs" / "theory.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_resolves(page: Path) -> None:
    for path, anchor in LINK.findall(prose(page)):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to #{anchor}, which {target.name} does not have"


def test_the_theory_leads_to_every_check() -> None:
    missing = [
        s.name
        for s in STATEMENTS
        if f"[`{s.name}`](checks.md#{s.name})" not in theory() or f"(../proofs_checks/{s.name}.py)" not in theory()
    ]
    lines = [f"* Check: [`{name}`](checks.md#{name}) ([module](../proofs_checks/{name}.py))" for name in missing]
    assert not missing, "add to docs/theory.md, under the statements that they check:\n" + "\n".join(lines)


def test_the_theory_leads_to_every_figure() -> None:
    missing = []
    for entry in FIGURES:
        module = f"../{entry.module.replace('.', '/')}.py"
        line = f"[`{entry.name}`](../figures/{entry.name}.png) ([module]({module}))"
        if line not in theory():
            missing.append(f"* Figure: {line}, {entry.title}")
    assert not missing, "add to docs/theory.md, under the statements that they show:\n" + "\n".join(missing)


def test_the_theory_names_no_check_or_figure_that_is_gone() -> None:
    checks = set(re.findall(r"\(\.\./proofs_checks/(\w+)\.py\)", theory()))
    figures = set(re.findall(r"\(\.\./figures/(\w+)\.png\)", theory()))
    assert checks == {s.name for s in STATEMENTS}
    assert figures == {entry.name for entry in FIGURES}


def test_every_statement_says_where_it_lives() -> None:
    """A paragraph that opens with a bold name is a statement; a list of code, check or figure follows it."""
    body = theory().split("## 1. Setting")[1]
    statements = re.split(r"^(?=\*\*|## )", body, flags=re.MULTILINE)
    named = [text for text in statements if text.startswith("**")]
    assert len(named) >= 25
    for text in named:
        assert re.search(r"^\* (Code|Check|Figure)s?\b", text, flags=re.MULTILINE), f"where does this live?\n{text}"


def test_every_committed_picture_has_its_numbers_and_the_gallery_takes_both() -> None:
    pictures = {path.stem for path in (ROOT / "figures").glob("*.png")}
    numbers = {path.stem for path in (ROOT / "figures").glob("*.json")}
    assert pictures == numbers
