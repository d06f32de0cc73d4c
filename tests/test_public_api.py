"""The public interface: complete, resolvable, and cheap to import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gfsim

HEAVY = ("torch", "sklearn", "matplotlib", "scipy.integrate", "sympy", "tqdm", "flint")


def loaded_by(code: str) -> set[str]:
    """Modules in a fresh interpreter after running ``code``."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("name", [n for n in gfsim.__all__ if n != "__version__"])
def test_every_public_name_resolves_to_an_object_of_that_name(name: str) -> None:
    value = getattr(gfsim, name)
    assert value.__name__ == name
    assert value.__module__ == gfsim._HOME[name]
    assert value.__doc__, "a public object without documentation"


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING and the lazy table are two copies of one list: they must agree."""
    tree = ast.parse(Path(gfsim.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == gfsim._HOME
    assert set(dir(gfsim)) >= set(gfsim.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        gfsim.simulat  # noqa: B018
    assert not hasattr(gfsim, "pytest")


def test_importing_gfsim_imports_nothing_heavy() -> None:
    assert not loaded_by("import gfsim") & {*HEAVY, "numpy", "scipy"}


def test_a_net_and_its_flow_need_no_torch() -> None:
    loaded = loaded_by("import gfsim; gfsim.FeedForward((2, 3, 1)); gfsim.simulate; gfsim.find_saddle; gfsim.pursue")
    assert not loaded & {"torch", "sklearn", "matplotlib", "sympy"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["reproduce", "--help"],
        ["simulate", "--help"],
        ["pursue", "--help"],
        ["check", "--help"],
        ["certify", "--help"],
        ["verify", "--help"],
        ["compare", "--help"],
    ],
)
def test_help_and_version_import_nothing_numerical(arguments: list[str]) -> None:
    code = (
        "from gfsim.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
    )
    assert not loaded_by(code) & {*HEAVY, "numpy", "scipy"}


def test_listing_the_figures_imports_no_figure() -> None:
    loaded = loaded_by("from gfsim.cli import main\nassert main(['reproduce', '--list']) == 0")
    assert not loaded & {*HEAVY, "paper_repro.toy", "paper_repro.pursuit", "scipy"}


def test_the_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(gfsim.__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("saddle: |grad L|")
    assert "stopped by the event |w_z| >= 0.1" in out
    assert "stopped: loss" in out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: gfsim.FeedForward((3, 2, 1), None), "activation = None is a NoneType"),
        (lambda _: gfsim.FeedForward((3, 2, 1), 3), "activation = 3 is a int; give one of"),
        (lambda o: gfsim.simulate(o.model, np.ones(8), t_end=1), "problem is a FeedForward; pass an Objective"),
        (lambda o: gfsim.simulate(o, np.ones(8), t_end=1, clock=3), "clock = 3; give 'rescaled'"),
        (lambda o: gfsim.simulate(o, np.ones(8), t_end=1, events=gfsim.loss_level(1.0)), "give a list of events"),
        (lambda o: gfsim.simulate(o, np.ones(8), t_end=1, events=["loss"]), "give a list of events"),
        (lambda o: gfsim.simulate(o, np.ones(8), t_end=1, max_steps="many"), "max_steps = 'many'"),
        (lambda o: gfsim.find_saddle(o, [1], rng=0), "pass numpy.random.default_rng"),
        (lambda o: gfsim.find_saddle(o, None, rng=np.random.default_rng(0)), "active = None; give a list"),
        (lambda o: gfsim.find_saddle(o, [1], rng=np.random.default_rng(0), rank=-1), "rank = -1"),
        (lambda o: gfsim.pursue(o.X, o.y, {"delta": 1}, rng=np.random.default_rng(0)), "config is a dict"),
        (lambda o: gfsim.pursue(o.X, o.y, rng=0), "pass numpy.random.default_rng"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_by_name(call: Any, message: str) -> None:
    rng = np.random.default_rng(0)
    model = gfsim.FeedForward((3, 2, 1), "square")
    objective = gfsim.Objective(model, rng.normal(size=(9, 3)), rng.normal(size=9))
    with pytest.raises(gfsim.InvalidInput, match=message):
        call(objective)
