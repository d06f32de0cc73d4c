"""The API reference is complete, and its docstrings say what they must."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gfsim
import gfsim.errors

ROOT = Path(__file__).resolve().parents[1]
EXTENSIONS = ROOT / "docs" / "_ext"

INTERNAL = {
    "gfsim.arrays": "checks of arguments",
    "gfsim.interrupt": "Ctrl-C",
    "gfsim.jsonable": "numbers to JSON",
    "gfsim.output": "files written whole or not at all",
    "gfsim.provenance": "versions for records",
    "gfsim.threads": "chunks of rows on threads",
    "gfsim.__main__": "python -m gfsim",
    "gfsim.flow.batch_run": "the loop of simulate_batch",
    "gfsim.flow.driver": "the loop of simulate",
    "gfsim.flow.fixed_rows": "a part of fixed-step batches",
    "gfsim.flow.fixed_stepper": "fixed-step methods as steppers",
    "gfsim.flow.one_row": "an integrator as a stepper",
    "gfsim.flow.rows": "fields on rows of a batch",
    "gfsim.flow.settings": "arguments of simulate, checked",
    "gfsim.flow.standstill": "when nothing moves",
    "gfsim.flow.tableaus": "coefficients",
    "gfsim.models.custom_check": "the trial of a user's function",
    "gfsim.pursuit.descent_loop": "the inner loop of gradient descent",
    "gfsim.rigor.ball": "matrices of balls",
    "gfsim.rigor.enclosure": "the checker's own derivatives",
    "gfsim.rigor.systems": "the systems of Krawczyk's test",
    "gfsim.compare.peers": "other packages",
    "gfsim.compare.plots": "diagrams",
    "gfsim.compare.report": "tables",
    "gfsim.compare.section": "where states are compared",
    "gfsim.compare.worker": "a process of a peer",
}
"""Modules without a page, and why; gfsim.cli, gfsim.report and the adapters of other packages have none either."""


def documented() -> set[str]:
    """The modules that a page of docs/api shows."""
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    return set(re.findall(r"^\.\. automodule:: (\S+)", pages, flags=re.MULTILINE))


def public_objects() -> dict[str, Any]:
    return {name: getattr(gfsim, name) for name in gfsim.__all__ if name != "__version__"}


def test_every_public_name_has_a_page() -> None:
    assert {obj.__module__ for obj in public_objects().values()} <= documented()


def test_every_module_has_a_page_or_a_reason() -> None:
    packages = {"gfsim.cli", "gfsim.report", "gfsim.compare.adapters"}
    found = {
        module.name
        for module in pkgutil.walk_packages(gfsim.__path__, "gfsim.")
        if not module.ispkg and not any(module.name.startswith(f"{package}.") for package in packages)
    }
    assert found - documented() - set(INTERNAL) == set(), "list them in docs/api, or here with a reason"
    assert set(INTERNAL) <= found, "no longer there"
    assert not set(INTERNAL) & documented()


@pytest.mark.parametrize("name", sorted(documented()))
def test_documented_modules_exist_and_say_what_they_are(name: str) -> None:
    if name.startswith("gfsim.rigor"):
        pytest.importorskip("flint")
    assert importlib.import_module(name).__doc__


def members(obj: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class itself defines."""
    for name, member in vars(obj).items():
        target = getattr(member, "func", getattr(member, "fget", getattr(member, "__func__", member)))
        if not name.startswith("_") and inspect.isfunction(target):
            yield name, target


def callables() -> Iterator[tuple[str, Any, str]]:
    """(label, function whose parameters count, docstring that must name them) of everything public."""
    for name, obj in public_objects().items():
        if inspect.isfunction(obj) or (inspect.isclass(obj) and not issubclass(obj, Exception) and name != "Status"):
            yield name, obj, inspect.getdoc(obj) or ""


def names_in(doc: str, section: str) -> set[str]:
    """The entries of a section of a docstring."""
    match = re.search(rf"^{section}\n-+\n(.*?)(?=^\w[^\n]*\n-{{3,}}\n|\Z)", doc, flags=re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^(\*{0,2}\w[\w, *]*?)(?: : .*)?$", match[1], flags=re.MULTILINE) if match else []
    return {part.strip(" *") for entry in entries for part in re.split(r", | or ", entry)}


@pytest.mark.parametrize(("label", "function", "doc"), list(callables()), ids=[label for label, _, _ in callables()])
def test_docstrings_name_the_parameters_there_are(label: str, function: Any, doc: str) -> None:
    """No parameter that is gone; and each that is there is named, as an entry or in the text."""
    parameters = {p for p in inspect.signature(function).parameters if p not in ("self", "args", "kwargs")}
    stale = names_in(doc, "Parameters") - parameters
    assert not stale, f"{label} documents {stale}, which it does not take"
    missing = {p for p in parameters if not re.search(rf"\b{re.escape(p)}\b", doc)}
    assert not missing, f"{label} says nothing of {sorted(missing)}"


@pytest.mark.parametrize("name", [n for n, obj in public_objects().items() if inspect.isclass(obj)])
def test_methods_have_docstrings(name: str) -> None:
    """Their own, or those of the method that they override."""
    cls = public_objects()[name]
    silent = [method for method, _ in members(cls) if not inspect.getdoc(getattr(cls, method))]
    assert not silent, f"{name}: {silent} say nothing"


def sources(obj: Any) -> str:
    """The code that a call of ``obj`` runs first: its own, or that of a class's construction."""
    if inspect.isfunction(obj):
        return inspect.getsource(obj)
    made = [vars(obj).get(name) for name in ("__init__", "__post_init__")]
    return "".join(inspect.getsource(part) for part in made if part and part.__code__.co_filename != "<string>")


@pytest.mark.parametrize("name", [name for name, obj in public_objects().items() if "raise " in sources(obj)])
def test_what_raises_says_so(name: str) -> None:
    obj = public_objects()[name]
    text = sources(obj).replace("raise unknown_name(", "raise UnknownName(")
    raised = set(re.findall(r"raise (\w+)\(", text)) & set(vars(gfsim.errors))
    missing = {error for error in raised if error not in (inspect.getdoc(obj) or "")}
    assert not missing, f"{name} raises {missing} and does not say when"


@pytest.mark.parametrize("name", [n for n, obj in public_objects().items() if dataclasses.is_dataclass(obj)])
def test_attributes_that_are_documented_exist(name: str) -> None:
    cls = public_objects()[name]
    fields = {f.name for f in dataclasses.fields(cls)}
    stale = {
        entry for entry in names_in(inspect.getdoc(cls) or "", "Attributes") if entry not in fields | set(dir(cls))
    }
    assert not stale, f"{name} documents {stale}"


# -- the site's own extensions ---------------------------------------------------------------------


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx", reason="part of the extra 'docs'")
    monkeypatch.syspath_prepend(str(EXTENSIONS))


@pytest.mark.usefixtures("extensions")
def test_formulas_in_docstrings_are_no_markup() -> None:
    from plain_docstrings import convert, plain

    assert plain("|w_z| = O(delta) at u*, see coef_ and ``|kept_|``") == (
        r"\|w_z\| = O(delta) at u\*, see coef\_ and ``|kept_|``"
    )
    assert plain("*Ties.*  Where a* b* c, :func:`f`") == r"*Ties.*  Where a\* b\* c, :func:`f`"
    out = "\n".join(
        convert(["Text.", "", "    N = 2 * u", "", "Parameters", "----------", "w : (..., P)", "    Weights."])
    )
    assert "::\n\n    N = 2 * u" in out
    assert "``w`` : (..., P)" in out


@pytest.mark.usefixtures("extensions")
def test_a_formula_with_an_unknown_command_is_refused() -> None:
    from mathml import mathml

    assert mathml(r"\dot w = -\nabla L", block=False).startswith("<math")
    with pytest.raises(ValueError, match="not known"):
        mathml(r"\nosuchcommand w", block=False)


@pytest.mark.usefixtures("extensions")
def test_references_to_what_does_not_exist_are_not_resolved() -> None:
    """They then end the build, as the site is built with nitpicky and warnings as errors."""
    from source_pages import _import

    assert _import("gfsim.flow.driver") == "gfsim.flow.driver"
    assert _import("gfsim.flow.result.FlowResult.time_between") == "gfsim.flow.result"
    assert _import("gfsim.flow.result.FlowResult.time_betwixt") is None
    assert _import("gfsim.flow.no_such_module") is None


@pytest.mark.usefixtures("extensions")
def test_what_a_page_would_load_is_seen() -> None:
    from offline import loads

    assert loads('<script async src="https://example.org/x.js"></script>')
    assert loads('<link rel="stylesheet" href="//example.org/x.css">')
    assert loads('@font-face { src: url("https://example.org/x.woff") }')
    assert not loads('<a href="https://example.org">a link</a> <script src="_static/x.js"></script>')


@pytest.mark.usefixtures("extensions")
def test_a_claim_that_fails_is_red_in_the_gallery() -> None:
    from gallery import _table, figures

    claims = figures()[0]["claims"]
    table = _table([{**claims[0], "holds": True}, {**claims[0], "holds": False}])
    rows = [row["classes"] for row in table.findall() if row.tagname == "row"]
    assert rows == [[], ["held"], ["failed"]]
    assert "does not hold" in table.astext()
    assert "conf" not in sys.modules
