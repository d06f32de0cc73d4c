"""The import graph obeys the layers of docs/architecture.md, and has no cycle."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gfsim", "paper_repro", "proofs_checks", "benchmarks")

LAYERS: tuple[tuple[str, ...], ...] = (
    ("gfsim.errors",),
    ("gfsim.arrays", "gfsim.jsonable", "gfsim.interrupt", "gfsim.output", "gfsim.provenance", "gfsim.threads"),
    ("gfsim.models",),
    ("gfsim.losses", "gfsim.objective"),
    ("gfsim.flow",),
    ("gfsim.saddles", "gfsim.ncf"),
    ("gfsim.rigor", "gfsim.pursuit"),
    ("paper_repro",),
    ("proofs_checks",),
    ("gfsim.compare", "gfsim.report"),
    ("gfsim.cli", "benchmarks"),
    ("gfsim.__main__",),
)
"""Lowest first.  A module imports from its own part, its own layer and those below."""

TOGETHER = ({"gfsim.saddles", "gfsim.ncf"}, {"gfsim.losses", "gfsim.objective"}, {"gfsim.output", "gfsim.jsonable"})
"""Parts of one layer that may import each other; other parts of one layer do not know of each other."""


LATE = {"gfsim.compare.runner": {f"gfsim.compare.{name}" for name in ("report", "advice", "plots", "peers")}}
"""Imports that would close a cycle and are made inside functions: a comparison shows itself, and runs other
packages, by modules that are about comparisons."""


@cache
def modules() -> dict[str, Path]:
    """Module name -> file, of everything in the repository's packages."""
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


def imported(tree: ast.AST, known: set[str], *, annotations: bool = True) -> set[str]:
    """The known modules that a module imports, wherever in its text; with or without those for type checkers only."""
    out: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not annotations and isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            out |= inner or ({node.module} & known)
        elif isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names} & known
    return out


@cache
def graph(*, annotations: bool = True) -> dict[str, set[str]]:
    known = set(modules())
    edges = {
        name: imported(ast.parse(file.read_text()), known, annotations=annotations) - {name}
        for name, file in modules().items()
    }
    edges["gfsim"] = set()  # the public names, imported when first used; tests/test_public_api.py checks that
    return edges


def part(module: str) -> str:
    """The entry of LAYERS that a module belongs to."""
    pieces = module.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "gfsim" and len(pieces) > 1 else pieces[0]


def rank(name: str) -> int:
    for k, layer in enumerate(LAYERS):
        if name in layer:
            return k
    raise AssertionError(
        f"{name} has no layer; give it one in LAYERS here, in docs/architecture.md and in CONTRIBUTING.md"
    )


def forbidden(module: str, target: str) -> bool:
    """Whether ``module`` may not import ``target``."""
    mine, theirs = part(module), part(target)
    if mine == theirs or target == "gfsim":
        return False
    if rank(mine) == rank(theirs):
        return {mine, theirs} not in TOGETHER
    return rank(theirs) > rank(mine)


@pytest.mark.parametrize("module", [name for name in modules() if name != "gfsim"])
def test_imports_go_downwards(module: str) -> None:
    wrong = [target for target in sorted(graph()[module]) if forbidden(module, target)]
    assert not wrong, f"{module} imports {wrong}, which lie above it or beside it"


def test_there_is_no_cycle() -> None:
    assert all(LATE[name] <= graph()[name] for name in LATE), "LATE lists an import that is gone"
    edges = {name: targets - LATE.get(name, set()) for name, targets in graph(annotations=False).items()}
    try:
        order = list(TopologicalSorter(edges).static_order())
    except CycleError as exc:
        raise AssertionError(f"modules import each other: {' -> '.join(exc.args[1])}") from None
    assert set(order) == set(modules())


def test_the_graph_is_seen() -> None:
    """The reader of imports finds the ones that are there: in functions and under TYPE_CHECKING too."""
    text = """
from gfsim.flow import clock
def f():
    import gfsim.errors
if TYPE_CHECKING:
    from gfsim.models.base import Model
"""
    known = {"gfsim.flow", "gfsim.flow.clock", "gfsim.errors", "gfsim.models.base"}
    assert imported(ast.parse(text), known) == {"gfsim.flow.clock", "gfsim.errors", "gfsim.models.base"}
    assert imported(ast.parse(text), known, annotations=False) == {"gfsim.flow.clock", "gfsim.errors"}
    assert "gfsim.models.base" in graph()["gfsim.objective"]
    assert len(modules()) > 100


def test_what_is_forbidden() -> None:
    assert forbidden("gfsim.models.base", "gfsim.flow.clock")
    assert forbidden("gfsim.pursuit.fit", "gfsim.rigor.verify")
    assert forbidden("gfsim.ncf.phi", "paper_repro.claims")
    assert not forbidden("gfsim.saddles.find", "gfsim.ncf.kkt")


def test_the_page_and_its_picture_name_every_part() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    present = {part(name) for name in modules()} - {"gfsim", "gfsim.__main__"}
    for name in present & {entry for layer in LAYERS[2:-1] for entry in layer}:
        short = name.removeprefix("gfsim.")
        assert re.search(rf"\b{short}\b", page), f"docs/architecture.md does not name {name}"
        assert re.search(rf">[^<]*\b{short}\b", picture), f"docs/architecture.svg does not name {name}"
