"""``gfsim compare`` and the benchmarks' targets and page."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, run, targets
from gfsim.cli import main
from gfsim.cli.own_problem import own_problem
from gfsim.compare.section import LossLevel, SizeLevel
from gfsim.errors import InvalidInput

OWN = """
[model]
widths = [3, 4, 1]
activation = "{activation}"
[data]
kind = "teacher"
samples = 12
teacher_hidden = [2]
[loss]
reduction = "mean"
[start]
kind = "origin"
delta = 0.1
[flow]
t_end = {t_end}
{event}
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GFSIM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def config(path: Path, *, activation: str = "square", t_end: str = "5.0", event: str = "") -> Path:
    path.write_text(OWN.format(activation=activation, t_end=t_end, event=event))
    return path


def test_the_list_names_problems_methods_and_peers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, "compare", "--list")
    assert code == 0
    for word in ("saddle-relu2-1e-6", "degree7-1e-2", "LSODA", "descent", "torchdiffeq"):
        assert word in out


def test_a_comparison_writes_diagram_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code, text, err = command(
        capsys, "compare", "toy", "--methods", "RK45", "gd", "--rtol", "1e-3", "1e-6", "--out", out
    )
    assert code == 0
    assert "At an error of at most 0.001 use" in text
    assert "scipy:RK45" in text
    assert "descent:gd (t): least error" in text
    assert "toy: gfsim:RK45 rtol 1e-06" in err
    assert {path.name for path in out.iterdir()} == {"toy.png", "toy.svg", "toy.txt", "toy.json"}
    record = json.loads((out / "toy.json").read_text())
    assert {run["method"] for run in record["runs"]} == {"RK45", "gd"}
    assert record["reference"]["solvers"][0].startswith("DOP853")
    assert "every run" in (out / "toy.txt").read_text()
    code, text, _ = command(
        capsys, "compare", "toy", "--methods", "scipy:LSODA", "--rtol", "1e-3", "--all", "--out", out, "--goal", "1e-9"
    )
    assert code == 0
    assert "No run reached an error of 1e-09" in text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["tooy"], "Did you mean 'toy'"),
        (["toy", "--methods", "RK46"], "unknown method"),
        (["toy", "--peers", "jaxx"], "unknown peer"),
        (["toy", "--rtol", "2"], "between 1e-13 and 0.5"),
        (["toy", "--goal", "-1"], "an error to reach"),
        (["toy", "--seed", "3"], "--seed goes with --own"),
        (["toy", "--own", "x.toml"], "not both"),
        (["--own", "absent.toml"], "cannot read"),
    ],
)
def test_wrong_requests_are_one_line(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = command(capsys, "compare", *arguments, "--out", tmp_path)
    assert code == 2
    assert word in err
    assert "Traceback" not in err


def test_a_flow_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path / "mine.toml")
    code, text, _ = command(
        capsys, "compare", "--own", file, "--methods", "LSODA", "--rtol", "1e-6", "--out", tmp_path / "out"
    )
    assert code == 0, text
    assert (tmp_path / "out" / "mine.json").is_file()
    assert "mean of square" in text


def test_where_an_own_flow_is_compared(tmp_path: Path) -> None:
    ends_by_time = own_problem(config(tmp_path / "a.toml"))
    first, last = ends_by_time.sections
    assert isinstance(first, LossLevel)
    assert isinstance(last, LossLevel)
    start = float(ends_by_time.objective.value(ends_by_time.w0))
    assert last.level < first.level < start
    event = '[[event]]\nkind = "norm"\nlevel = 0.5\n'
    by_norm = own_problem(config(tmp_path / "b.toml", event=event, t_end="inf"))
    (only,) = by_norm.sections
    assert isinstance(only, SizeLevel)
    assert only.level == 0.5
    assert own_problem(config(tmp_path / "c.toml", activation="relu")).kinked
    with pytest.raises(InvalidInput, match="the loss falls from"):
        own_problem(config(tmp_path / "d.toml", t_end="1e-12"))


def test_a_refused_reference_is_told_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gfsim.compare.reference.RECIPES", (("RK23", 1e-4, 1000), ("RK45", 1e-4, 1000)))
    code, text, _ = command(capsys, "compare", "toy", "--out", tmp_path)
    assert code == 1
    assert "differ by" in text


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gfsim",
            "compare",
            "toy",
            "passage-relu2",
            "--rtol",
            "1e-4",
            "--limit",
            "20",
            "--out",
            str(out),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GFSIM_CACHE": str(tmp_path / "cache")},
    )
    deadline = time.monotonic() + 120
    while not (out / "toy.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    text, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "passage-relu2 not complete" in err
    assert json.loads((out / "toy.json").read_text())["name"] == "toy"
    assert not list(out.glob(".*"))
    del text


# -- benchmarks ----------------------------------------------------------------------------------------


def timed(who: str, wall: float, **counts: int) -> dict[str, Any]:
    library, method = who.split(":")
    row: dict[str, Any] = {"id": who, "library": library, "method": method, "clock": "s", "setting": 1e-3}
    return row | {
        "fixed": False,
        "error": 1e-4,
        "counts": counts,
        "wall": wall,
        "cpu": wall,
        "compile_seconds": 0.0,
        "evaluation_seconds": 0.8 * wall,
    }


def depth_run(rtol: float, error: float, velocities: int, seconds: float) -> dict[str, Any]:
    """One run of the extra ``depth``, whose error was ten times as large early on."""
    return {
        "rtol": rtol,
        "errors": {"doubling": 10.0 * error, "escape": error},
        "steps": 5,
        "velocities": velocities,
        "products": 10,
        "seconds": seconds,
    }


def results() -> dict[str, Any]:
    reference = {"t_end": 1.0, "largest_curvature": 2.0, "stiffness": 3.0, "accuracy": 1e-9}
    unit = {"rhs": 1.0, "hvp": 2.0, "jacobian": 50.0, "factorisations": 50.0}
    rows = {
        "saddle-relu2-1e-2": [timed("gfsim:auto", 1.0), timed("scipy:BDF", 2.0), timed("scipy:RK45", 20.0)],
        "saddle-relu2-1e-6": [timed("gfsim:auto", 2.0), timed("scipy:BDF", 2.0)],
        "passage-relu2": [
            timed("gfsim:auto", 1.0, rhs=2000, jacobian=100, factorisations=3),
            timed("scipy:BDF", math.nan),
        ],
    }
    problems = {
        name: {
            "title": name,
            "weights": 390,
            "samples": 100,
            "convention": "mean",
            "reference": reference,
            "unit_seconds": unit,
            "goal": 1e-3,
            "timed": found,
            "runs": [{"library": "scipy", "method": "RK45", "failure": "too slow", "error": math.nan}],
            "skipped": ["diffrax: not installed"],
        }
        for name, found in rows.items()
    }
    batch = {"starts": 4, "scipy": {"wall": 9.0, "norms": [1.0]}, "gfsim": {"wall": 1.0, "norms": [1.1]}}
    batch["torchode"] = {"wall": 9.0, "stopped": True}
    return {
        "command": "python -m benchmarks.run toy",
        "batch_threads": 2,
        "machine": {
            "cpu": "x",
            "cores": 2,
            "threads": 1,
            "load_at_start": [0.1],
            "date": "2000-01-01",
        },
        "versions": {"gfsim": "1", "torchode": "absent"},
        "goal": 1e-3,
        "rounds": 3,
        "limit": 60.0,
        "problems": problems,
        "extras": {
            "degree7": {"relative_difference": 1e-4, "method": "auto"},
            "batch": batch,
            "depth": {
                "method": "auto",
                "runs": {
                    "1e-2": [
                        depth_run(1e-3, 5e-3, 90, 0.4),
                        depth_run(1e-4, 2e-4, 100, 0.5),
                        depth_run(1e-5, 5e-5, 120, 0.6),
                    ],
                    "1e-6": [
                        depth_run(1e-3, 3e-4, 160, 0.7),
                        depth_run(1e-4, 2e-4, 170, 0.6),
                        depth_run(1e-5, 5e-5, 240, 1.2),
                    ],
                },
            },
        },
        "failures": {"large": "refused"},
    }


def test_targets_are_computed_from_the_numbers() -> None:
    rows = {row["name"]: row for row in targets.rows(results())}
    worst = rows["auto against the best single scipy method, worst problem"]
    assert (worst["measured"], worst["met"]) == (1.0, True)
    assert rows["sparse saddle, delta = 0.01: ours over scipy BDF"]["met"] is True
    assert rows["sparse saddle, delta = 0.01: ours over scipy RK45"]["met"] is False  # 1/20 > 1/30
    depth = "sparse saddle: cost to the first escape at delta = 1e-6 over 1e-2, error <= 1e-3 there"
    counted = rows[f"{depth}: evaluations"]
    assert (counted["measured"], counted["met"]) == (170 / 110, False)  # not over 100: that run is too far off
    timed = rows[f"{depth}: CPU seconds"]
    assert (timed["measured"], timed["met"]) == (0.6 / 0.5, True)
    assert timed["note"] == "rtol 1.0e-04, 5 steps and rtol 1.0e-04, 5 steps, the cheapest of 3 tolerances"
    both = rows[f"{depth} and where w_z has doubled: CPU seconds"]
    assert (both["measured"], both["met"]) == (1.2 / 0.6, False)  # ten times the error there
    each = rows["sparse saddle: the same, both at one tolerance, median of all"]
    assert (each["measured"], each["note"]) == (0.7 / 0.4, "CPU seconds, from 1.20 to 2.00; the errors differ")
    alone = "sparse saddle: the same on the suite's few tolerances, a factor of three apart"
    assert rows[alone]["met"] is None
    late = "sparse saddle: the same to half the loss, where a second plateau lies between"
    assert rows[late]["met"] is False
    assert rows["origin to L < 1e-4 L0: evaluations, each counted once"]["measured"] == 2100
    seconds = rows["the same by the seconds that they and the factorisations took"]
    assert (seconds["measured"], seconds["met"]) == (0.8 + 3 * 50.0, True)
    assert rows["origin to L < 1e-4 L0: ours over scipy RK45"]["note"] == "scipy:RK45: too slow"
    assert rows["degree 7: T delta^5 at 1e-6 against 1e-2"]["met"] is False
    assert rows["4 saddle starts in one batch: scipy over ours"]["met"] is False  # fast, but ends elsewhere
    assert rows["4 saddle starts in one batch: torchode over ours"]["met"] is True
    assert rows["4 saddle starts in one batch: diffrax over ours"]["met"] is None
    assert rows["figure-1 run: ours over the authors' loop of descent in numpy"]["met"] is None
    stopped = results()
    stopped["problems"]["passage-relu2"]["runs"][0]["failure"] = "stopped after the time limit of 60 s"
    bound = {row["name"]: row for row in targets.rows(stopped)}["origin to L < 1e-4 L0: ours over scipy RK45"]
    assert (bound["measured"], bound["met"]) == (1 / 60, True)
    stopped["limit"] = 5.0  # 1/5 is no evidence for 1/10, nor against it
    bound = {row["name"]: row for row in targets.rows(stopped)}["origin to L < 1e-4 L0: ours over scipy RK45"]
    assert bound["met"] is None


def test_the_page_is_made_from_the_results_alone() -> None:
    content = results()
    content["targets"] = targets.rows(content)
    text = page.page(content)
    assert "| sparse saddle, delta = 0.01: ours over scipy BDF | <= 1 | 0.5 | yes | gfsim:auto |" in text
    assert "`python -m benchmarks.run toy`" in text
    assert "1 thread(s) a library (2 for the batch of starts)" in text
    assert "scipy:RK45 (too slow)" in text
    assert "Not taking part: diffrax: not installed." in text
    assert "Not measured: refused" in text
    assert "torchode absent" not in text
    assert page.overview(content).axes
    assert "gfsim:auto" in run.ratios(content)
    assert "MISSED" in run.target_table(content["targets"])


def test_results_files_are_read_back_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"a": ["nan", 1, "inf"], "b": {"c": "-inf", "d": "word"}}')
    back = run.load(path)
    assert math.isnan(back["a"][0])
    assert back["a"][1:] == [1, math.inf]
    assert back["b"] == {"c": -math.inf, "d": "word"}


def test_a_small_benchmark_runs_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["toy", "--methods", "scipy:LSODA", "gfsim:LSODA", "--rounds", "2", "--limit", "20", "--peers"]
    monkeypatch.setattr(sys, "argv", ["run", *arguments, "--extras", "--out", str(tmp_path)])
    assert run.main() == 0
    assert "1.00x" in capsys.readouterr().out
    found = run.load(tmp_path / "results.json")
    assert [len(row["walls"]) for row in found["problems"]["toy"]["timed"]] == [2, 2]
    assert found["machine"]["threads"] == 1
    assert any(row["met"] is None for row in found["targets"])
    again = ["--known", str(tmp_path / "results.json"), "--out", str(tmp_path / "again")]
    monkeypatch.setattr(sys, "argv", ["run", "deep-linear", *arguments[1:], "--extras", *again])
    assert run.main() == 0
    both = run.load(tmp_path / "again" / "results.json")
    assert both["problems"].keys() == {"toy", "deep-linear"}
    assert both["problems"]["toy"] == found["problems"]["toy"]
    monkeypatch.setattr(sys, "argv", ["run", "toy", "--known", "nosuch.json", "--out", str(tmp_path / "none")])
    assert run.main() == 2
    assert "--known nosuch.json holds no results" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["page", str(tmp_path / "again" / "results.json"), str(tmp_path / "both")])
    assert page.main() == 0
    assert f"what `{found['command']}` measured" in (tmp_path / "both" / "benchmarks.md").read_text()
    monkeypatch.setattr(sys, "argv", ["page", str(tmp_path / "results.json"), str(tmp_path / "docs")])
    assert page.main() == 0
    assert (tmp_path / "docs" / "benchmarks.md").read_text().startswith("# Benchmarks")
    monkeypatch.setattr(sys, "argv", ["page", str(tmp_path / "nosuch.json"), str(tmp_path / "docs")])
    assert page.main() == 2
    assert "nosuch.json holds no results" in capsys.readouterr().err
