"""The framework that runs figures: claims, files, interruptions.

Figures here are small modules written into a temporary folder, so that each way of going wrong can be made.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsim import cli
from gfsim.errors import InvalidInput, OutputError, UnknownName
from gfsim.jsonable import dumps, to_jsonable
from gfsim.output import OutputDirectory
from paper_repro import registry, report, runner, workers
from paper_repro.claims import Claim, check_basis, show
from paper_repro.figure import FAILED, Context, Outcome, load_data, mark_failures, styled
from paper_repro.progress import Progress, spoken
from paper_repro.registry import Entry
from paper_repro.runner import Summary, earlier_report, run_figures

TEMPLATE = """
import numpy as np
from paper_repro.claims import Claim, THEOREM
from paper_repro.figure import Outcome

def run(ctx):
    x = ctx.rng("points").uniform(size=5)
    ctx.note("drawing points")
    fig, ax = ctx.subplots()
    ax.plot(x)
    return Outcome(
        figure=fig,
        claims=[Claim.at_most("largest point", x.max(), BOUND, of="x", source=THEOREM)],
        numbers={"x": x, "nothing": float("nan")},
        caption="Five points.",
        convention="sum",
    )
"""


def drawing(bound: float = 1.0) -> str:
    """A figure module whose one claim holds unless ``bound`` is small."""
    return TEMPLATE.replace("BOUND", str(bound))


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Entry]]:
    """``figures(one="source", two="source")``: entries of freshly written figure modules."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    # a module written anew within a second, as long as before, would be read from its old bytecode
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(**sources: str) -> list[Entry]:
        entries = []
        for name, source in sources.items():
            module = f"figure_{name}_{abs(hash(tmp_path)) % 10**9}"
            (folder / f"{module}.py").write_text(textwrap.dedent(source))
            sys.modules.pop(module, None)
            entries.append(Entry(name, module, f"Title of {name}", "a test"))
        return entries

    return make


def go(entries: list[Entry], out: Path, **options: Any) -> Summary:
    return run_figures(entries, OutputDirectory(out), progress=Progress(len(entries), io.StringIO()), **options)


def strict(path: Path) -> Any:
    """JSON as a strict parser reads it: NaN and Infinity are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# -- claims ------------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
finite = st.floats(-1e6, 1e6)


@given(st.one_of(numbers, st.lists(numbers, min_size=1, max_size=4)), finite, finite)
def test_claims_agree_with_plain_comparisons(measured: Any, a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    each = measured if isinstance(measured, list) else [measured]
    assert Claim.at_most("c", measured, a, of="n").holds == all(m <= a for m in each)
    assert Claim.at_least("c", measured, a, of="n").holds == all(m >= a for m in each)
    assert Claim.between("c", measured, low, high, of="n").holds == all(low <= m <= high for m in each)
    close = Claim.close("c", measured, a, rtol=1e-3, of="n").holds
    assert close == all(abs(m - a) <= 1e-3 * abs(a) for m in each)


@given(st.one_of(numbers, st.lists(numbers, min_size=1, max_size=4)), finite)
def test_a_claim_survives_its_json(measured: Any, bound: float) -> None:
    for claim in (
        Claim.at_most("c", measured, bound, of=["n", "m"]),
        Claim.close("c", measured, bound, atol=1.0, of="n"),
    ):
        text = dumps(claim.to_json())
        again = Claim.from_json(json.loads(text, parse_constant=lambda word: pytest.fail(word)))
        assert again == claim
        assert again.holds == claim.holds


def test_claims_that_cannot_fail_or_be_recomputed_are_refused() -> None:
    with pytest.raises(InvalidInput, match="could not fail"):
        Claim.at_most("c", 1.0, math.inf, of="n")
    with pytest.raises(InvalidInput, match="could not fail"):
        Claim.at_least("c", 1.0, math.nan, of="n")
    with pytest.raises(InvalidInput, match="one must be > 0"):
        Claim.close("c", 1.0, 1.0, of="n")
    with pytest.raises(InvalidInput, match="names no entry"):
        Claim.equal("c", 1, 1, of=[])
    with pytest.raises(InvalidInput, match="which is not in numbers"):
        check_basis([Claim.equal("c", 1, 1, of="a.b")], {"a": {"c": 1}})
    with pytest.raises(InvalidInput, match="two claims"):
        check_basis([Claim.equal("c", 1, 1, of="a")] * 2, {"a": 1})
    with pytest.raises(InvalidInput, match="no claim"):
        check_basis([], {"a": 1})
    check_basis([Claim.equal("c", 1, 1, of="a.b")], {"a": {"b": 1}})


def test_nothing_measured_does_not_hold() -> None:
    assert not Claim.at_most("c", [], 1.0, of="n").holds
    assert not Claim.close("c", [1.0], [1.0, 2.0], rtol=1.0, of="n").holds


def test_equal_compares_nested_lists_exactly() -> None:
    widths = np.array([[1, 1], [2, 1]])
    assert Claim.equal("c", widths, [[1, 1], [2, 1]], of="n").holds
    assert not Claim.equal("c", widths, [[1, 1], [2, 2]], of="n").holds
    assert Claim.equal("c", widths, [[1, 1], [2, 1]], of="n").to_json()["expected"] == [[1, 1], [2, 1]]


def test_a_table_shows_the_digits_that_decide() -> None:
    claim = Claim.close("c", 388.9445271, 388.94453, atol=5e-6, of="n")
    assert claim.expected == "388.94453 ± 5e-06"
    assert show(claim.measured, digits=claim.digits) == "388.944527"
    assert Claim.close("c", 1.0, 0.54, atol=0.1, of="n").digits == 4
    assert Claim.close("c", [1.0, 2.0], [0.0, 2.0], rtol=1e-3, of="n").digits == 4
    assert Claim.at_most("c", 1.23456789, 2.0, of="n").digits == 4


# -- JSON --------------------------------------------------------------------------------------------


@given(st.recursive(numbers | st.integers() | st.text() | st.booleans() | st.none(), st.lists, max_leaves=20))
def test_json_is_strict_and_exact(value: Any) -> None:
    back = json.loads(dumps({"v": value}), parse_constant=lambda word: pytest.fail(word))["v"]
    assert back == to_jsonable(value)


def test_json_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(InvalidInput, match=r"value\.a\[1\] is a complex"):
        to_jsonable({"a": [1, 2j]})
    with pytest.raises(InvalidInput, match="complex128"):
        to_jsonable(np.array([1j]))
    assert to_jsonable({1: np.float32(0.5), "n": np.array([[1.0, np.inf]])}) == {"1": 0.5, "n": [[1.0, "inf"]]}


# -- a run that goes well ----------------------------------------------------------------------------


def test_a_complete_run(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    entries = figures(one=drawing(), two=drawing())
    out = tmp_path / "deep" / "out"
    summary = go(entries, out, seed=3, full=True)
    assert summary.ok
    assert summary.exit_code == 0
    assert report.markdown(summary).count("\n\nFive points.\n\n") == 2
    assert names(out) == {f"{n}.{e}" for n in ("one", "two") for e in ("png", "svg", "json")}
    record = strict(out / "one.json")
    assert set(record) == {
        *("name", "title", "source", "caption", "convention", "full", "seed", "claims", "notes", "versions"),
        *("inputs", "seconds", "numbers", "files"),
    }
    assert record["files"] == ["one.png", "one.svg"]
    assert (record["seed"], record["full"], record["name"], record["convention"]) == (3, True, "one", "sum")
    (claim,) = record["claims"]
    assert claim["expected"] == "<= 1"
    assert claim["holds"] is True
    assert claim["measured"] == max(record["numbers"]["x"])
    assert record["numbers"]["nothing"] == "nan"
    assert {"gfsim", "python", "numpy", "scipy", "torch"} <= set(record["versions"])
    assert record["seconds"] > 0

    from PIL import Image

    with Image.open(out / "one.png") as image:
        assert min(image.info["dpi"]) >= 150 - 0.5
    assert ET.parse(out / "one.svg").getroot().tag.endswith("svg")


ANIMATED = (
    drawing()
    .replace("import Outcome", "import Outcome, gif")
    .replace("claims=[", "animation=gif(fig, lambda k: ax.set_title(str(k)), 3, hold=700), claims=[")
)


def test_an_animation_is_written_listed_and_removed_with_its_figure(
    figures: Callable[..., list[Entry]], tmp_path: Path
) -> None:
    """Without the removal, a still figure would keep the film of another run beside it."""
    from PIL import Image

    out = tmp_path / "out"
    go(figures(one=ANIMATED), out)
    first = (out / "one.gif").read_bytes()
    assert strict(out / "one.json")["files"] == ["one.png", "one.svg", "one.gif"]
    with Image.open(io.BytesIO(first)) as film:
        durations = []
        for k in range(3):
            film.seek(k)
            durations.append(film.info["duration"])
        assert film.n_frames == 3
    assert durations == [140, 140, 700]
    go(figures(one=ANIMATED), tmp_path / "again")
    assert (tmp_path / "again" / "one.gif").read_bytes() == first
    go(figures(one=drawing()), out)
    assert names(out) == {"one.png", "one.svg", "one.json"}
    go(figures(one=ANIMATED), out)
    go(figures(one="def run(ctx):\n    raise RuntimeError('no')"), out)
    assert names(out) == {"one.error.txt"}


def test_the_same_seed_gives_the_same_files(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    entries = figures(one=drawing())
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        go(entries, tmp_path / folder, seed=seed)
    assert (tmp_path / "a/one.svg").read_bytes() == (tmp_path / "b/one.svg").read_bytes()
    assert (tmp_path / "a/one.png").read_bytes() == (tmp_path / "b/one.png").read_bytes()
    assert strict(tmp_path / "a/one.json")["numbers"] == strict(tmp_path / "b/one.json")["numbers"]
    assert strict(tmp_path / "a/one.json")["numbers"] != strict(tmp_path / "c/one.json")["numbers"]


def test_equal_pictures_are_equal_files_wherever_they_lie_in_memory() -> None:
    """matplotlib names a clip path by its address, so that one seed gave two files."""
    from matplotlib.patches import Circle

    def drawn() -> tuple[Outcome, bytes]:
        fig, ax = Context("f").subplots()
        for radius in (0.2, 0.4):
            (line,) = ax.plot([0, 1])
            line.set_clip_path(Circle((0.5, 0.5), radius, transform=ax.transData))
        outcome = Outcome(fig, [], {}, "")
        with styled():
            return outcome, runner._pictures(outcome)["svg"]

    kept, one = drawn()
    other, two = drawn()
    assert kept.figure is not other.figure
    assert one == two
    assert one.count(b'id="clip') >= 2
    assert one.count(b"url(#clip1)") == 1


def test_random_streams_do_not_depend_on_each_other() -> None:
    first = Context("f", seed=1).rng("data").normal(size=4)
    ctx = Context("f", seed=1)
    ctx.rng("start").normal(size=100)
    assert (ctx.rng("data").normal(size=4) == first).all()
    for other in (Context("g", seed=1).rng("data"), Context("f", seed=2).rng("data"), Context("f", seed=1).rng("x")):
        assert (other.normal(size=4) != first).all()


# -- runs that do not --------------------------------------------------------------------------------


def test_a_claim_that_fails(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    summary = go(figures(one=drawing(-1.0)), tmp_path / "out")
    assert summary.exit_code == 1
    assert strict(tmp_path / "out/one.json")["claims"][0]["holds"] is False
    assert "NO" in report.plain_table(summary)
    assert "**NO**" in report.markdown(summary)
    assert "0 of 1 claims hold" in report.verdict(summary)


@pytest.mark.parametrize(
    "source",
    [
        "def run(ctx):\n    raise RuntimeError('the solver | gave up')",
        "import a_module_that_does_not_exist",
        drawing().replace('of="x"', 'of="y"'),
        drawing().replace('"x": x', '"x": x, "f": run'),
        "def run(ctx):\n    return None",
    ],
    ids=["raises", "import", "claim without basis", "no JSON", "no outcome"],
)
def test_an_error_loses_one_figure_only(figures: Callable[..., list[Entry]], tmp_path: Path, source: str) -> None:
    out = tmp_path / "out"
    go(figures(bad=drawing()), out)  # an earlier success, which must not pass for this run's
    summary = go(figures(bad=source, good=drawing()), out)
    assert summary.exit_code == 1
    assert [r.state for r in summary.reports] == ["error", "complete"]
    assert names(out) == {"bad.error.txt", "good.png", "good.svg", "good.json"}
    assert "Traceback" in (out / "bad.error.txt").read_text()
    assert "ERROR" in report.plain_table(summary)
    assert "in error: bad" in report.verdict(summary)
    again = go(figures(bad=drawing()), out)
    assert again.ok
    assert "bad.error.txt" not in names(out)


INTERRUPT = """
import os, signal
def run(ctx):
    os.kill(os.getpid(), signal.{signal})
    for _ in range(10**9):
        pass
"""

SWALLOW = drawing().replace(
    'ctx.note("drawing points")',
    """import os, signal
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10**9):
            pass
    except KeyboardInterrupt:
        AFTER""",
)


@pytest.mark.parametrize(
    "source",
    [
        INTERRUPT.format(signal="SIGINT"),
        INTERRUPT.format(signal="SIGTERM"),
        SWALLOW.replace("AFTER", "pass"),
        SWALLOW.replace("AFTER", 'ctx.note("going on"); os._exit(9)'),
        SWALLOW.replace("AFTER", 'raise RuntimeError("the flow did not reach its end")'),
    ],
    ids=["SIGINT", "SIGTERM", "swallowed", "swallowed before a note", "swallowed and stumbled over"],
)
def test_an_interruption_keeps_what_is_complete(
    figures: Callable[..., list[Entry]], tmp_path: Path, source: str
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    good = drawing()
    summary = go(figures(first=good, second=source, third=good), tmp_path / "out")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert summary.exit_code == 130
    assert [r.state for r in summary.reports] == ["complete", "missing", "missing"]
    assert names(tmp_path / "out") == {"first.png", "first.svg", "first.json"}
    assert "complete are first; missing are second, third" in report.verdict(summary)
    assert "MISSING" in report.plain_table(summary)


@pytest.mark.parametrize(
    "source", [INTERRUPT.format(signal="SIGINT"), SWALLOW.replace("AFTER", 'raise RuntimeError("half a run")')]
)
def test_an_interruption_says_what_is_left_of_an_earlier_run(
    figures: Callable[..., list[Entry]], tmp_path: Path, source: str
) -> None:
    out = tmp_path / "out"
    go(figures(one=drawing()), out)
    before = (out / "one.json").read_bytes()
    summary = go(figures(one=source), out)
    assert summary.exit_code == 130
    assert (out / "one.json").read_bytes() == before
    assert "an earlier run)" in report.plain_table(summary)
    assert "those of an earlier run" in report.markdown(summary)


def test_an_interruption_while_files_are_written_waits_for_them(
    figures: Callable[..., list[Entry]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(source: Any, target: Any) -> None:
        replace(source, target)
        if str(target).endswith("one.png"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "replace", interrupted)
    good = drawing()
    summary = go(figures(one=good, two=good), tmp_path / "out")
    assert summary.exit_code == 130
    assert names(tmp_path / "out") == {"one.png", "one.svg", "one.json"}
    assert go(figures(one=good), tmp_path / "out").ok  # nothing was missing: the wish came too late to matter


# -- output directories ------------------------------------------------------------------------------


def test_files_are_replaced_as_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = OutputDirectory(tmp_path / "out")
    out.write({"a": b"old", "b": b"old"})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="no space left"):
            out.write({"a": b"new", "b": b"new"})
    assert {p.name: p.read_bytes() for p in out.path.iterdir()} == {"a": b"old", "b": b"old"}

    replace = os.replace

    def cut_off(source: Any, target: Any) -> None:
        if str(target).endswith("b"):
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut_off)
        with pytest.raises(OutputError, match="input/output error"):
            out.write({"a": b"new", "b": b"new"})
    # never a new a beside an old b: b, written last, says that the set is complete
    assert {p.name: p.read_bytes() for p in out.path.iterdir()} == {"a": b"new"}


def test_half_written_leftovers_are_swept(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    dead = 2**22 + 1  # above the largest process id of Linux
    (out / f".one.png.{dead}.gfsim-partial").write_text("half")
    (out / f".one.svg.{os.getppid()}.gfsim-partial").write_text("another run, alive")
    (out / "one.png").write_text("picture without numbers")
    (out / "two.png").write_text("picture")
    (out / "two.json").write_text('{"claims": [')
    (out / "mine.png").write_text("not gfsim's")
    directory = OutputDirectory(out)
    assert directory.swept == (f".one.png.{dead}.gfsim-partial",)
    stop = "def run(ctx):\n    raise KeyboardInterrupt"
    assert go(figures(one=stop, two=stop), out).exit_code == 130
    assert names(out) == {f".one.svg.{os.getppid()}.gfsim-partial", "mine.png"}


def test_unusable_directories_are_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below"):
        with pytest.raises(OutputError, match=f"{file} is a file"):
            OutputDirectory(path)
    with pytest.raises(OutputError, match="cannot write in the directory /proc/self"):
        OutputDirectory("/proc/self")
    with pytest.raises(OutputError, match="cannot create the directory /proc/none"):
        OutputDirectory("/proc/none/out")
    with pytest.raises(OutputError, match="empty string"):
        OutputDirectory("")


# -- tables, registry, data --------------------------------------------------------------------------


def test_the_table_keeps_figures_of_earlier_runs(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    out = OutputDirectory(tmp_path / "out")
    one, two = figures(one=drawing(-1.0), two=drawing())
    go([one], out.path, seed=5)
    summary = go([two], out.path, seed=6)
    earlier = earlier_report(one, out)
    assert earlier is not None
    text = report.markdown(summary, [earlier])
    assert "1 of 1 claims hold" in text.splitlines()[2]  # the run's own verdict
    assert "Seed 5" in text
    assert "From an earlier run." in text
    assert "**NO**" in text
    (out / "one.json").write_text("{}")
    assert earlier_report(one, out) is None


def test_captions_are_shown_as_they_are(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    source = drawing().replace("Five points.", "|W_1| of *five* <points>")
    text = report.markdown(go(figures(one=source), tmp_path / "out"))
    assert r"\|W\_1\| of \*five\* \<points\>" in text


def test_long_claims_are_wrapped_not_cut(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    words = " ".join(f"word{k}" for k in range(30))
    source = drawing().replace("largest point", words)
    table = report.plain_table(go(figures(one=source), tmp_path / "out"))
    assert all(f"word{k}" in table for k in range(30))
    assert max(map(len, table.splitlines())) <= 121


def test_figures_are_selected_by_name_in_registry_order() -> None:
    everything = [e.name for e in registry.select([])]
    assert everything == [e.name for e in registry.FIGURES]
    assert len(set(everything)) == len(everything)
    assert [e.name for e in registry.select(["pursuit", "toy", "toy"])] == ["toy", "pursuit"]
    with pytest.raises(UnknownName, match="Did you mean 'first_saddle'"):
        registry.select(["first_sadle"])


def test_shipped_data_are_the_published_experiments() -> None:
    data = load_data("two_layer_square")
    assert {k: v.shape for k, v in data.items()} == {"X": (20, 100), "y": (100,), "W1": (50, 20), "W2": (1, 50)}
    assert all(v.dtype == np.float64 for v in data.values())
    np.testing.assert_allclose(np.linalg.norm(data["X"], axis=0), 1, rtol=1e-6)
    # the first loss that the authors printed
    out = data["W2"] @ (data["W1"] @ data["X"]) ** 2
    assert np.mean((out - data["y"]) ** 2) == pytest.approx(10.72923, abs=5e-6)
    relu = load_data("three_layer_relu")
    out = relu["W3"] @ np.maximum(relu["W2"] @ np.maximum(relu["W1"] @ relu["X"], 0), 0)
    assert np.sum((out - relu["y"]) ** 2) == pytest.approx(191.11114, abs=5e-6)
    with pytest.raises(UnknownName, match="three_layer_relu"):
        load_data("three_layer_rel")


# -- runs that have less to do -----------------------------------------------------------------------------

COUNTING = drawing().replace(
    'ctx.note("drawing points")', 'with open(r"LOG", "a") as log:\n        log.write("run\\n")'
)


class TestUnchangedFigures:
    """A figure is run again exactly when something that it is computed from has changed."""

    @pytest.fixture
    def one(self, figures: Callable[..., list[Entry]], tmp_path: Path) -> list[Entry]:
        return figures(one=COUNTING.replace("LOG", str(tmp_path / "log")))

    @staticmethod
    def runs(tmp_path: Path) -> int:
        return len((tmp_path / "log").read_text().splitlines())

    def test_it_is_left_out_and_reported(self, one: list[Entry], tmp_path: Path) -> None:
        first = go(one, tmp_path / "out")
        before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
        stream = io.StringIO()
        second = run_figures(one, OutputDirectory(tmp_path / "out"), progress=Progress(1, stream))
        assert self.runs(tmp_path) == 1
        assert second.ok
        assert second.reports[0].unchanged
        assert second.reports[0].claims == first.reports[0].claims
        assert "unchanged: 1 of 1 claims hold" in stream.getvalue()
        assert "unchanged" in report.plain_table(second)
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before

    @pytest.mark.parametrize("options", [{"seed": 1}, {"full": True}, {"again": True}], ids=str)
    def test_other_inputs_or_the_wish_run_it(self, one: list[Entry], tmp_path: Path, options: dict[str, Any]) -> None:
        go(one, tmp_path / "out")
        summary = go(one, tmp_path / "out", **options)
        assert self.runs(tmp_path) == 2
        assert not summary.reports[0].unchanged

    def test_a_changed_source_runs_it(
        self, figures: Callable[..., list[Entry]], one: list[Entry], tmp_path: Path
    ) -> None:
        go(one, tmp_path / "out")
        changed = figures(one=COUNTING.replace("LOG", str(tmp_path / "log")).replace("size=5", "size=6"))
        summary = go(changed, tmp_path / "out")
        assert self.runs(tmp_path) == 2
        assert len(strict(tmp_path / "out/one.json")["numbers"]["x"]) == 6
        assert summary.ok

    def test_a_lost_picture_runs_it(self, one: list[Entry], tmp_path: Path) -> None:
        go(one, tmp_path / "out")
        (tmp_path / "out/one.svg").unlink()
        go(one, tmp_path / "out")
        assert self.runs(tmp_path) == 2
        assert (tmp_path / "out/one.svg").exists()

    def test_a_record_without_inputs_runs_it(self, one: list[Entry], tmp_path: Path) -> None:
        """As those of earlier releases are."""
        go(one, tmp_path / "out")
        record = strict(tmp_path / "out/one.json")
        del record["inputs"]
        (tmp_path / "out/one.json").write_text(json.dumps(record))
        go(one, tmp_path / "out")
        assert self.runs(tmp_path) == 2

    def test_a_claim_that_failed_still_fails(self, figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
        entries = figures(one=drawing(-1.0))
        assert go(entries, tmp_path / "out").exit_code == 1
        again = go(entries, tmp_path / "out")
        assert again.reports[0].unchanged
        assert again.exit_code == 1

    def test_a_run_that_was_cut_off_goes_on(self, figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
        counting = COUNTING.replace("LOG", str(tmp_path / "log"))
        cut = go(figures(one=counting, two=INTERRUPT.format(signal="SIGINT")), tmp_path / "out")
        assert [r.state for r in cut.reports] == ["complete", "missing"]
        summary = go(figures(one=counting, two=drawing()), tmp_path / "out")
        assert [(r.state, r.unchanged) for r in summary.reports] == [("complete", True), ("complete", False)]
        assert self.runs(tmp_path) == 1


def test_a_figure_is_given_the_users_folder_of_data(figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
    """And runs again when a file in it changes."""
    source = drawing().replace('"x": x', '"x": x, "files": sorted(p.name for p in ctx.data_folder.iterdir())')
    entries, data = figures(one=source), tmp_path / "data"
    data.mkdir()
    for expected in (["a"], ["a", "b"]):
        (data / expected[-1]).write_text("")
        summary = go(entries, tmp_path / "out", data=data)
        assert not summary.reports[0].unchanged
        assert strict(tmp_path / "out/one.json")["numbers"]["files"] == expected
    assert go(entries, tmp_path / "out", data=data).reports[0].unchanged


def test_a_figure_whose_claim_fails_says_so_in_red() -> None:
    def drawn(bound: float) -> Any:
        fig, _ = Context("f").subplots()
        mark_failures(fig, [Claim.at_most("the size of x", 1.0, bound, of="x")])
        return fig

    assert drawn(2.0).get_suptitle() == ""
    text = drawn(0.5).get_suptitle()
    assert text.startswith("NOT HELD: the size of x: 1, expected <= 0.5")
    assert drawn(0.5)._suptitle.get_color() == FAILED


def test_progress_tells_how_long_the_rest_takes() -> None:
    stream = io.StringIO()
    progress = Progress(4, stream)
    assert progress.left() is None  # nothing is known
    progress.expect({"one": 10.0, "two": None, "four": 20.0})
    assert progress.left() == pytest.approx(10 + 15 + 20)  # the unknown one: the mean of the others
    progress.expect({"one": 10.0, "two": None, "four": 20.0}, jobs=2)
    assert progress.left() == pytest.approx((10 + 15 + 20) / 2)
    progress.expect({"one": 1.0, "two": 1.0, "four": 20.0}, jobs=2)
    assert progress.left() == pytest.approx(20)  # one figure is not divided
    progress.expect({"four": 20.0})
    progress.start("four")
    assert 19 < progress.left() <= 20
    assert "20 s left" in stream.getvalue()
    assert [spoken(s) for s in (3.2, 89.0, 200.0, 7200.0)] == ["4 s", "89 s", "4 min", "2.0 h"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_redraws_one_line() -> None:
    stream = Terminal()
    progress = Progress(2, stream)
    progress.start("one")
    progress.note("one", "at\nwork")
    progress.finish("one", "done")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("done\n")
    assert "\r[1/2] one" in text


def test_figures_that_run_together_share_the_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paper_repro.progress.TICK", 0.01)
    stream = Terminal()
    progress = Progress(3, stream)
    progress.expect({"one": 100.0, "two": 100.0}, jobs=2)
    progress.skip("zero", "unchanged")
    for name in ("one", "two"):
        progress.start(name)
        progress.note(name, f"note of {name} " + 80 * "x")
    until = time.monotonic() + 20
    while "note of two" not in stream.getvalue() and time.monotonic() < until:
        time.sleep(0.01)
    progress.finish("two", "done")
    progress.finish("one", "done")
    first, *ended = stream.getvalue().split("\n")[:3]
    assert first == "\r[1/3] zero  unchanged"
    assert [line.split("\r")[-1].split()[:2] for line in ended] == [["[3/3]", "two"], ["[2/3]", "one"]]
    redrawn = [piece for piece in ended[0].split("\r") if "note of two" in piece]
    assert "2 min left  [2/3] one  0 s  note of one" in redrawn[-1]
    assert all(len(piece) <= 110 for piece in ended[0].split("\r"))


# -- several at a time -------------------------------------------------------------------------------------

SLEEPING = """
import os, time
def run(ctx):
    with open(r"LOG", "a") as log:
        log.write(f"{os.getpid()}\\n")
    THEN
    time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether a process ends within 20 s; a process that has ended but was not waited for counts as gone."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


class TestSeveralAtATime:
    def test_files_and_reports_are_those_of_one_at_a_time(
        self, figures: Callable[..., list[Entry]], tmp_path: Path
    ) -> None:
        entries = figures(one=drawing(), two=ANIMATED, three=drawing(-1.0), four="import nothing_of_this_name")
        a, b = (go(entries, tmp_path / f"{jobs}", seed=4, jobs=jobs) for jobs in (1, 2))
        assert names(tmp_path / "1") == names(tmp_path / "2")
        for name in names(tmp_path / "1"):
            this, other = tmp_path / "1" / name, tmp_path / "2" / name
            if name.endswith(".json"):
                records = strict(this), strict(other)
                for record in records:
                    del record["seconds"]
                assert dumps(records[0]) == dumps(records[1])
            elif not name.endswith(".txt"):  # where a traceback starts differs
                assert this.read_bytes() == other.read_bytes(), name
        for one, two in zip(a.reports, b.reports, strict=True):
            two.seconds = one.seconds
        assert report.markdown(a) == report.markdown(b)
        assert report.plain_table(a) == report.plain_table(b)
        assert a.exit_code == b.exit_code == 1

    def test_the_longest_begin_first(self, figures: Callable[..., list[Entry]], tmp_path: Path) -> None:
        """By an earlier run in the folder, else by the registry's rough seconds."""
        entries = figures(one=drawing(), two=drawing(), three=drawing())
        rough = [replace(entry, seconds=seconds) for entry, seconds in zip(entries, (1.0, 9.0, 5.0), strict=True)]

        def order() -> list[str]:
            stream = io.StringIO()
            out = OutputDirectory(tmp_path / "out")
            summary = run_figures(rough, out, jobs=2, again=True, progress=Progress(3, stream))
            assert [r.entry.name for r in summary.reports] == ["one", "two", "three"]
            return [line.split()[1] for line in stream.getvalue().splitlines() if "..." in line]

        assert order() == ["two", "three", "one"]
        for name, seconds in (("one", 30.0), ("two", 20.0), ("three", 40.0)):
            record = strict(tmp_path / "out" / f"{name}.json")
            (tmp_path / "out" / f"{name}.json").write_text(json.dumps(record | {"seconds": seconds}))
        assert order() == ["three", "one", "two"]

    @pytest.mark.parametrize(
        ("end", "how"),
        [("os.kill(os.getpid(), 9)", "was killed by SIGKILL"), ("os._exit(3)", "ended with exit code 3")],
    )
    def test_a_process_that_dies_loses_one_figure_only(
        self, figures: Callable[..., list[Entry]], tmp_path: Path, end: str, how: str
    ) -> None:
        out = tmp_path / "out"
        go(figures(bad=drawing()), out)  # an earlier success, which must not pass for this run's
        dies = f"import os\ndef run(ctx):\n    ctx.note('so far')\n    {end}"
        summary = go(figures(bad=dies, worse=dies, good=drawing(), better=drawing()), out, jobs=2)
        assert [r.state for r in summary.reports] == ["error", "error", "complete", "complete"]
        assert summary.exit_code == 1
        assert how in summary.reports[0].problem
        assert "gfsim reproduce bad --jobs 1" in (out / "bad.error.txt").read_text()
        assert {n for n in names(out) if n.startswith(("bad", "worse"))} == {"bad.error.txt", "worse.error.txt"}

    @pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
    def test_an_interruption_ends_all_processes_and_keeps_what_is_complete(
        self, figures: Callable[..., list[Entry]], tmp_path: Path, number: str
    ) -> None:
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        sleeping = SLEEPING.replace("LOG", str(tmp_path / "log"))
        stop = sleeping.replace("THEN", f"import signal; os.kill(os.getppid(), signal.{number})")
        stays = sleeping.replace("THEN", "")
        out = tmp_path / "out"
        go(figures(stays=drawing()), out)
        record = strict(out / "stays.json") | {"seconds": 1000.0}  # so that it begins first
        (out / "stays.json").write_text(json.dumps(record))
        before = (out / "stays.json").read_bytes()
        summary = go(figures(first=drawing(), stays=stays, stop=stop, later=drawing()), out, jobs=2)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
        assert summary.exit_code == 130
        assert [r.state for r in summary.reports] == ["complete", "missing", "missing", "missing"]
        assert (out / "stays.json").read_bytes() == before
        assert "complete are first; missing are stays, stop, later" in report.verdict(summary)
        assert {name.split(".")[0] for name in names(out)} == {"first", "stays"}
        started = (tmp_path / "log").read_text().split()
        assert len(started) == 2
        assert all(gone(int(pid)) for pid in started)

    def test_processes_end_with_a_caller_that_is_killed(
        self, figures: Callable[..., list[Entry]], tmp_path: Path
    ) -> None:
        """Without this, an hour's figure goes on computing for nobody."""
        stays = SLEEPING.replace("LOG", str(tmp_path / "log"))
        rows = [(e.name, e.module, e.title, e.source) for e in figures(one=stays, two=stays)]
        code = f"""
        import sys
        sys.path[:0] = {sys.path[:]!r}
        from gfsim.output import OutputDirectory
        from paper_repro.registry import Entry
        from paper_repro.runner import run_figures
        run_figures([Entry(*row) for row in {rows!r}], OutputDirectory({str(tmp_path / "out")!r}), jobs=2)
        """
        caller = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        log = tmp_path / "log"
        while not (log.exists() and log.read_text().count("\n") == 2) and time.monotonic() < until:
            time.sleep(0.05)
        caller.kill()
        caller.wait()
        started = log.read_text().split()
        assert len(started) == 2
        assert all(gone(int(pid)) for pid in started)

    def test_unchanged_figures_need_no_process(
        self, figures: Callable[..., list[Entry]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "work", lambda *_: pytest.fail("a process was started"))
        counting = COUNTING.replace("LOG", str(tmp_path / "log"))
        entries = figures(one=counting, two=counting)
        for entry in entries:
            assert go([entry], tmp_path / "out", jobs=2).ok  # one figure runs in the caller's process
        summary = go(entries, tmp_path / "out", jobs=2)
        assert [r.unchanged for r in summary.reports] == [True, True]
        assert len((tmp_path / "log").read_text().splitlines()) == 2

    def test_each_process_has_one_thread(
        self, figures: Callable[..., list[Entry]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert workers.THREADS == cli.THREADS
        for variable in workers.THREADS:
            monkeypatch.setenv(variable, "3")
        monkeypatch.delenv(workers.THREADS[-1])
        before = dict(os.environ)
        source = drawing().replace('"x": x', f'"x": x, "env": [__import__("os").environ[v] for v in {workers.THREADS}]')
        go(figures(one=source, two=source), tmp_path / "out", jobs=2)
        assert strict(tmp_path / "out/two.json")["numbers"]["env"] == ["1", "1", "1"]
        assert dict(os.environ) == before

    def test_no_process_at_all_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="jobs = 0"):
            go([], tmp_path / "out", jobs=0)
