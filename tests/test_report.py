"""``gfsim report``: what it finds in a folder, what it refuses, and that nothing gets out of its quotes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
import types
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from report_tools import DIAGONAL, DIVERGING, HOSTILE, ROOT, claim, figure, hostile_folder, simulate

from gfsim.cli import main
from gfsim.errors import InvalidInput, MissingExtra
from gfsim.report import trajectory
from gfsim.report.collect import Content, collect
from gfsim.report.page import data_block, render, tally
from gfsim.report.sections import Section, View


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def stairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("flows") / "stairs")


@pytest.fixture
def copy(stairs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stairs, tmp_path / "copy"))


def only(content: Content) -> Section:
    (section,) = content.sections
    return section


def verdicts(section: Section) -> list[str]:
    return [claim.verdict for claim in section.claims]


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# -- what is found ---------------------------------------------------------------------------------------


def test_the_gallery_shows_every_claim_and_picture() -> None:
    content = collect(ROOT / "figures")
    records = {path.stem: json.loads(path.read_text()) for path in (ROOT / "figures").glob("*.json")}
    assert len(content.sections) == len(records)
    for section in content.sections:
        (record,) = [r for r in records.values() if r["title"] == section.title]
        assert [c.name for c in section.claims] == [c["name"] for c in record["claims"]]
        assert verdicts(section) == ["held" if c["holds"] else "failed" for c in record["claims"]]
        assert section.pictures[0].caption == record["caption"]
        moving = [name for name in record["files"] if name.endswith(".gif")]
        assert [p.file for p in section.pictures[1:]] == moving  # the still first, then its animation
        assert f"gfsim reproduce {record['name']} --seed {record['seed']}" in dict(section.provenance)["made by"]
    assert content.others == []


def test_a_flow_is_found_with_its_stages(stairs: Path) -> None:
    section = only(collect(stairs))
    assert (section.kind, section.title) == ("flow", "A two-layer net climbs down three stairs")
    assert verdicts(section) == ["held"]
    assert section.view is not None
    data = section.view.data
    stages = data["stages"]
    assert isinstance(stages, list)
    assert [stage["active"] for stage in stages] == [
        stage["active"] for stage in json.loads((stairs / "stages.json").read_text())["stages"]
    ]
    (table,) = [table for table in section.tables if table.title == "Saddle by saddle"]
    assert [row[2] for row in table.rows] == ["none", "layer 1: 2", "layer 1: 2, 6", "layer 1: 1, 2, 6"]
    assert [row[5:] for row in table.rows] == [
        ("one of every layer", "layer 1: 2"),
        ("layer 1: 6", "layer 1: 6"),
        ("layer 1: 1", "layer 1: 1"),
        ("none", "the flow ends here"),
    ]
    files = {"summary.json", "trajectory.npz", "stages.json", "stages.npz", "flow.svg"}
    assert {source.path for source in section.sources} == files
    for source in section.sources:
        assert source.sha256 == hashlib.sha256((stairs / source.path).read_bytes()).hexdigest()


def test_a_flow_without_stages_and_one_that_diverges(tmp_path: Path) -> None:
    simulate(tmp_path / "diagonal", DIAGONAL)
    simulate(tmp_path / "diverging", DIVERGING, expected=1)
    content = collect(tmp_path)
    diagonal, diverging = content.sections
    assert (diagonal.where, diverging.where) == ("diagonal", "diverging")
    assert diagonal.view is not None
    assert diagonal.view.data["stages"] == []
    assert verdicts(diverging) == ["failed"]
    assert diverging.claims[0].measured == "overflow"
    assert tally(content) == "1 of 2 claims held, 1 did not"
    assert 'class="verdict failed"' in render(content)


def test_the_outputs_of_all_commands_share_a_page(stairs: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 2))
    table = np.column_stack([X, np.maximum(X[:, 0], 0)])
    data = tmp_path / "rows.csv"
    data.write_text("a,b,price\n" + "\n".join(",".join(map(str, row)) for row in table.tolist()))
    out = tmp_path / "out"
    (out / "checks").mkdir(parents=True)
    for command in (
        ["pursue", data, "--target", "price", "--max-neurons", "2", "--out", out / "pursuit"],
        ["compare", "toy", "--methods", "gfsim:RK45", "--rtol", "1e-5", "--out", out],
        ["check", "balance", "--json", out / "checks" / "all.json", "--plots", out / "checks"],
    ):
        assert main([str(word) for word in command]) == 0
    shutil.copytree(stairs, out / "flow")
    shutil.copy(ROOT / "docs" / "checks" / "kkt.png", out / "checks")
    (out / "notes.json").write_text('{"mine": 1}')
    (out / "thesis.docx").write_bytes(b"PK")
    content = collect(out)
    assert sorted(section.kind for section in content.sections) == [
        "check", "comparison", "flow", "pictures", "pursuit",
    ]  # fmt: skip
    assert content.others == ["notes.json", "thesis.docx"]
    by_kind = {section.kind: section for section in content.sections}
    assert [picture.caption for picture in by_kind["pictures"].pictures] == ["kkt"]
    assert [picture.file for picture in by_kind["check"].pictures] == ["checks/balance.png"]
    assert any(c.name.startswith("control, must fail") for c in by_kind["check"].claims)
    assert "Tables and advice" in [text.title for text in by_kind["comparison"].texts]
    assert {table.title for table in by_kind["pursuit"].tables} >= {"Errors by part of the rows", "Growth", "Settings"}
    assert {v for section in content.sections for v in verdicts(section)} == {"held"}
    page = render(content)
    assert "notes.json, thesis.docx" in page
    assert len(page) < 5e6


def test_an_error_of_a_figure_is_a_claim_that_failed(tmp_path: Path) -> None:
    (tmp_path / "toy.error.txt").write_text("Traceback\nValueError: it broke\n")
    section = only(collect(tmp_path))
    assert verdicts(section) == ["failed"]
    assert section.claims[0].measured == "ValueError: it broke"


# -- claims are computed again ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "held"),
        ({"measured": 1e-3, "holds": False}, "failed"),
        ({"measured": 1e-3}, "failed"),  # the file says that it holds
        ({"holds": False}, "failed"),  # its numbers say that it does, so the file was changed
        ({"measured": "nan"}, "failed"),
        ({"measured": [1e-9, 1e-8]}, "held"),
        ({"measured": [1e-9, 1e-3], "holds": False}, "failed"),
    ],
)
def test_a_verdict_needs_numbers_and_file_to_agree(tmp_path: Path, changes: dict[str, object], verdict: str) -> None:
    section = only(collect(figure(tmp_path, claims=[claim(**changes)])))
    assert verdicts(section) == [verdict]
    told = "the file was changed" in section.claims[0].detail
    assert told == (claim(**changes)["holds"] is not (verdict == "held") or changes == {"holds": False})


def test_a_check_whose_numbers_were_changed_does_not_hold(tmp_path: Path) -> None:
    assert main(["check", "homogeneity", "--json", str(tmp_path / "c.json")]) == 0
    record = json.loads((tmp_path / "c.json").read_text())
    assert set(verdicts(only(collect(tmp_path)))) == {"held"}
    for evidence in record["statements"][0]["evidence"]:
        evidence["measured"] = 1e9 if evidence["sense"] == "at most" else 0.0  # breaks claims, suits controls
        if evidence["kind"] == "control":
            evidence["measured"] = "nan"
    (tmp_path / "c.json").write_text(json.dumps(record))
    assert set(verdicts(only(collect(tmp_path)))) == {"failed"}


def test_certificates_are_verified_again(tmp_path: Path) -> None:
    pytest.importorskip("flint")
    path = tmp_path / "saddle.json"
    shutil.copy(ROOT / "docs" / "certificates" / "saddle.json", path)
    section = only(collect(tmp_path))
    assert set(verdicts(section)) == {"held"}
    assert any("sparse saddle" in c.name for c in section.claims)
    change(path, precision=64)
    section = only(collect(tmp_path))
    assert verdicts(section) == ["failed"]
    assert "SHA-256" in section.claims[0].measured


def test_a_certificate_that_cannot_be_checked_here_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "docs" / "certificates" / "origin.json", tmp_path)

    def refuse(_: object) -> None:
        raise MissingExtra("pip install 'gfsim[rigor]'")

    monkeypatch.setitem(sys.modules, "gfsim.rigor.verify", types.SimpleNamespace(verify=refuse))
    content = collect(tmp_path)
    assert verdicts(only(content)) == ["unchecked"]
    assert tally(content) == "0 of 1 claims held, 1 could not be checked"
    assert "not checked" in render(content)


# -- what is refused -------------------------------------------------------------------------------------


def test_folders_without_output_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist; name a folder"):
        collect(tmp_path / "none")
    with pytest.raises(InvalidInput, match="it is empty: run a command"):
        collect(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InvalidInput, match=r"holds a\.txt: run a command"):
        collect(tmp_path)
    with pytest.raises(InvalidInput, match="is a file; name the folder"):
        collect(tmp_path / "a.txt")


def test_broken_files_are_named(copy: Path) -> None:
    for name, content, expected in (
        ("summary.json", b'{"half": ', r"summary\.json is not valid JSON .*run the command"),
        ("summary.json", b"\xff\xfe", r"summary\.json is not valid JSON"),
        ("summary.json", b"[1]", r"summary\.json: a JSON object is expected, not a list"),
        ("summary.json", b"{}", r"summary\.json: ok: missing; it must be true or false"),
        ("trajectory.npz", b"PK\x03\x04", r"trajectory\.npz is not a \.npz of plain arrays .*run the command"),
        ("trajectory.npz", None, r"trajectory\.npz is missing beside it"),
        ("stages.npz", None, r"stages\.json: stages\.npz is missing beside it"),
        ("stages.json", b"{}", r"stages\.json: stages: missing"),
    ):
        kept = (copy / name).read_bytes()
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=expected):
            collect(copy)
        (copy / name).write_bytes(kept)
    assert only(collect(copy)).kind == "flow"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"claims": "all"}, r"made_up\.json: claims: a text; it must be a list"),
        ({"claims": [7]}, r"made_up\.json: claims\[0\]: a JSON object is expected, not a number"),
        ({"claims": [claim(relation="~")]}, r"claims\[0\]: not a claim"),
        ({"claims": [{"name": "x"}]}, r"claims\[0\]: not a claim .*measured"),
        ({"seed": "five"}, r"seed: a text; it must be a whole number"),
        ({"seed": True}, r"seed: a truth value; it must be a whole number"),
        ({"seconds": "long"}, r"seconds: 'long'; it must be a number"),
        ({"versions": None}, r"versions: null; it must be an object"),
    ],
)
def test_records_of_another_shape_are_refused(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        collect(figure(tmp_path, **changes))


def test_misshapen_stages_are_refused(copy: Path) -> None:
    path = copy / "stages.json"
    record = json.loads(path.read_text())
    for key, value, expected in (
        ("active", [[0, "x"]], r"stages\[1\]\.active: it must be a list of units"),
        ("active", None, r"stages\[1\]\.active: null; it must be a list"),
        ("rows", {"begin": 0}, r"stages\[1\]\.rows\.enter: missing"),
        ("kkt", [{"layer": 1}], r"stages\[1\]\.kkt\[0\]"),
    ):
        changed = json.loads(json.dumps(record))
        changed["stages"][1][key] = value
        path.write_text(json.dumps(changed))
        with pytest.raises(InvalidInput, match=expected):
            collect(copy)


def test_arrays_that_do_not_fit_the_summary_are_refused(copy: Path) -> None:
    path = copy / "trajectory.npz"
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    for changes, expected in (
        ({"loss": None}, "has no array 'loss'"),
        ({"norms_1": arrays["norms_1"][:5]}, "hidden layer 1 has 5 rows"),
        ({"w": arrays["w"][:, :7]}, "does not hold the blocks"),
        ({"t": np.array(["now"])}, "t is not an array of numbers"),
        ({key: arrays[key][:100] for key in ("t", "s", "w", "loss", "speed", "norms_1")}, "fewer than the JSON files"),
    ):
        kept = {key: value for key, value in (arrays | changes).items() if value is not None}
        np.savez(path, allow_pickle=False, **kept)
        with pytest.raises(InvalidInput, match=expected):
            collect(copy)
    np.savez(path, allow_pickle=False, **arrays)
    np.savez(copy / "stages.npz", rows_1=np.arange(3), cosines_1=np.zeros((2, 2)))
    with pytest.raises(InvalidInput, match="cosines_1 has the shape"):
        collect(copy)


# -- the command -----------------------------------------------------------------------------------------


def test_the_command_writes_one_page(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(copy)]) == 0
    assert "report.html (" in capsys.readouterr().out
    first = (copy / "report.html").read_text()
    assert main(["report", str(copy)]) == 0  # the page of an earlier run is no output to be shown
    assert "not shown" not in capsys.readouterr().out
    assert (copy / "report.html").read_text() == first
    assert main(["report", str(copy), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").read_text() != ""


def test_the_command_refuses_in_one_line(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        ([tmp_path / "none"], "does not exist"),
        ([copy, "--out", tmp_path / "page.pdf"], "a page is an .html file; name one, such as"),
        ([copy, "--out", tmp_path], "a page is an .html file"),
    ):
        assert main(["report", *map(str, arguments)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert expected in err


# -- nothing gets out of its quotes ----------------------------------------------------------------------


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    content = collect(hostile_folder(tmp_path / "out"))
    page = render(content)
    seen = Elements(page)
    assert len(seen.of("script")) == 2  # the data of the flow, and the page's own
    assert len(seen.of("img")) == 2
    assert all(str(image["src"]).startswith("data:image/") for image in seen.of("img"))
    assert not seen.of("svg")
    for tag, attributes in seen.found:
        assert not any(name.startswith("on") for name in attributes), tag
        assert not str(attributes.get("href", "#")).lstrip().lower().startswith("javascript")
        assert "style" not in attributes
    for text in HOSTILE:
        assert text in seen.text  # shown as it is
    page.encode()  # half a character has become a question mark


def test_data_cannot_end_its_element() -> None:
    block = data_block(View({"title": "".join(HOSTILE)}), 'x"y')
    inside = block.removeprefix('<script type="application/json" id="x&quot;y">').removesuffix("</script>")
    assert not set("<>&\u2028\u2029") & set(inside)
    assert json.loads(inside) == {"title": "".join(HOSTILE)}


def test_the_policy_names_exactly_this_style_and_this_script(stairs: Path) -> None:
    page = render(collect(stairs))
    seen = Elements(page)
    policy = next(str(m["content"]) for m in seen.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", re.sub(r'src="data:[^"]*"', "", page))


def test_the_script_builds_no_html_from_text() -> None:
    script = "".join(path.read_text() for path in (ROOT / "gfsim" / "report" / "script").glob("*.js"))
    assert "textContent" in script
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "import(",
    ):
        assert word not in script


# -- thinning --------------------------------------------------------------------------------------------


def test_frames_are_few_and_keep_what_is_required() -> None:
    path = np.concatenate([np.linspace(0, 1, 50_000), [2.0], np.linspace(2, 2.001, 50_000)])
    frames = trajectory.choose_frames(path, 100, [0, 60_000, 100_000])
    assert len(frames) <= 103
    assert {0, 60_000, 100_000} <= set(frames.tolist())
    assert (np.diff(frames) > 0).all()
    moves = np.diff(path[frames])
    assert moves[moves < 0.9].max() < 0.05  # but for the jump no step of the slider is a large one
    assert trajectory.choose_frames(np.arange(5.0), 100, []).tolist() == [0, 1, 2, 3, 4]
    assert trajectory.choose_frames(np.zeros(500), 100, [0, 499]).tolist() == [0, 499]  # nothing happens


def test_change_survives_what_a_diverging_flow_leaves() -> None:
    s = np.arange(6.0)
    loss = np.array([1.0, 0.5, 0.0, np.inf, np.nan, np.nan])
    w = np.array([[1.0, 0], [0, 0], [1e308, 1e308], [np.inf, 1], [np.nan, 0], [0, 1]])
    path = trajectory.change(s, loss, w)
    assert np.isfinite(path).all()
    assert (np.diff(path) >= 0).all()


def test_half_precision_keeps_two_digits_and_the_range() -> None:
    values = np.array([0.0, 1.0, -1 / 3, 1e-30, -3e38, 1.005, np.inf, -np.inf, np.nan], dtype="<f4")
    back = (trajectory.half(values).astype("<u4") << 16).view("<f4")
    np.testing.assert_allclose(back[:6], values[:6], rtol=2.0**-8)
    np.testing.assert_array_equal(back[6:], values[6:])


def test_large_nets_make_small_pages(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, widths = 100, (150, 300, 200, 1)
    blocks = [{"name": f"W{l}", "rows": b, "columns": a} for l, (a, b) in enumerate(pairwise(widths), 1)]
    w = rng.standard_normal((rows, sum(b["rows"] * b["columns"] for b in blocks)))  # type: ignore[operator]
    w[:, 150 * 7 + 3] = 1e3  # row 7, column 3 of W1
    summary = {
        "what": "large", "convention": "sum", "clock": "t", "weights": blocks, "events": [],
        "norms": {"what": "norm of each neuron", "groups": ["hidden layer 1"]},
    }  # fmt: skip
    arrays = {"t": np.arange(rows), "s": np.arange(rows), "w": w, "loss": np.ones(rows), "speed": np.ones(rows)}
    arrays["norms_1"] = rng.random((rows, 300))
    from gfsim.report.folder import Folder
    from gfsim.report.record import Record

    data = trajectory.view(
        Record(Folder(tmp_path, tmp_path), "summary.json", summary), arrays, "x.npz", trajectory.Stages()
    ).data
    assert len(data_block(View(data), "x")) < 5e6
    first = data["matrices"][0]  # type: ignore[index, call-overload]
    assert isinstance(first, dict)
    assert (len(first["rows"]), len(first["columns"])) == (trajectory.ROWS, trajectory.COLUMNS)
    assert 7 in first["rows"]
    assert 3 in first["columns"]
    assert len(data["weightFrames"]) < rows  # type: ignore[arg-type]
    assert len(data["nearestWeights"]) == rows  # type: ignore[arg-type]
