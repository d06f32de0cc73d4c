"""The command line: exit codes, one-line errors, files written, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import gfsim
from gfsim.cli import config, experiment, main
from gfsim.cli.experiment import build_clock, build_data, build_objective, build_start
from gfsim.cli.tabular import read_csv
from gfsim.errors import GfsimError, InvalidInput, UnknownName
from gfsim.flow.events import Event
from paper_repro import registry
from paper_repro.registry import Entry

SMALL = """
seed = 3
[model]
widths = [3, 4, 1]
activation = "square"
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
t_end = 5.0
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command, in this process."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a wrong request is answered with."""
    code, out, err = run(capsys, *arguments)
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, f"not one line: {err!r}"
    assert "Traceback" not in err
    return err


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


# -- the command itself --------------------------------------------------------------------------------


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"gfsim {gfsim.__version__}\n", "")
    for command in ([], ["reproduce"], ["simulate"], ["pursue"]):
        code, out, _ = run(capsys, *command, "--help")
        assert code == 0
        assert "exit codes" in out
    code, _, err = run(capsys)
    assert code == 2
    assert "usage: gfsim" in err


def test_misspelt_commands_and_options_name_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean reproduce?" in refused(capsys, "reproduse")
    assert "did you mean --full?" in refused(capsys, "reproduce", "--ful")
    assert "'-1' is not a seed" in refused(capsys, "reproduce", "--seed=-1")
    assert "'0' is not a count" in refused(capsys, "reproduce", "--jobs", "0")
    assert "'first_saddle'" in refused(capsys, "reproduce", "first_sadle")
    assert "'toy'" in refused(capsys, "reproduce", "--list", "tyo")


def test_an_internal_error_is_one_line_unless_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\nbug")

    monkeypatch.setattr(config, "read", broken)
    monkeypatch.delenv("GFSIM_DEBUG", raising=False)
    code, _, err = run(capsys, "simulate", small, "--check")
    assert (code, err) == (
        1,
        "gfsim: internal error: ZeroDivisionError: a bug; run with GFSIM_DEBUG=1 for the traceback\n",
    )
    monkeypatch.setenv("GFSIM_DEBUG", "1")
    code, _, err = run(capsys, "simulate", small, "--check")
    assert code == 1
    assert "Traceback" in err


def test_running_out_of_memory_is_no_internal_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 74.5 GiB")

    monkeypatch.setattr(config, "read", greedy)
    code, _, err = run(capsys, "simulate", small, "--check")
    assert code == 1
    assert err.count("\n") == 1
    assert "not enough memory (Unable to allocate 74.5 GiB)" in err
    assert "internal" not in err


def test_check_refuses_a_folder_for_a_file_before_it_computes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "that is a folder" in refused(capsys, "check", "balance", "--json", tmp_path)
    assert "does not exist" in refused(capsys, "check", "balance", "--json", tmp_path / "none" / "x.json")


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("2", "2")])
def test_linear_algebra_has_one_thread_unless_told_otherwise(given: str | None, used: str) -> None:
    """Threads waiting for each other made small matrices many times slower; numpy reads this when it is imported."""
    code = (
        "import os, sys\nfrom gfsim.cli import main\nassert 'numpy' not in sys.modules\nmain(['--version'])\n"
        "import numpy\nfrom threadpoolctl import threadpool_info\n"
        "print(os.environ['OPENBLAS_NUM_THREADS'], max(p['num_threads'] for p in threadpool_info()))"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    if given is not None:
        env["OPENBLAS_NUM_THREADS"] = given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    said, threads = done.stdout.splitlines()[-1].split()
    assert said == used
    assert int(threads) <= int(used)


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m gfsim simulate --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


# -- reproduce -----------------------------------------------------------------------------------------

FIGURE = """
import sys, time
from paper_repro.claims import Claim
from paper_repro.figure import Outcome

def run(ctx):
    if WAIT:
        print("ready", file=sys.stderr, flush=True)
        time.sleep(60)
    fig, ax = ctx.subplots()
    return Outcome(fig, [Claim.at_most("seed", ctx.seed, 5, of="seed")], {"seed": ctx.seed}, "Nothing.")
"""


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    for name in ("quick", "slow"):
        (tmp_path / f"cli_{name}.py").write_text(FIGURE.replace("WAIT", str(name == "slow")))
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [Entry(name, f"cli_{name}", f"A {name} figure", "a test") for name in ("quick", "slow")]
    monkeypatch.setattr(registry, "FIGURES", tuple(entries))
    return entries


@pytest.mark.usefixtures("figures")
def test_reproduce_lists_runs_and_reports(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "reproduce", "--list")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("quick")
    folder = tmp_path / "out"
    code, out, err = run(capsys, "reproduce", "quick", "--out", folder, "--seed", 5)
    assert code == 0
    assert "1 of 1 claims hold" in out
    assert "[1/1] quick" in err
    assert {p.name for p in folder.iterdir()} == {"quick.png", "quick.svg", "quick.json", "claims.md"}
    _, out, err = run(capsys, "reproduce", "quick", "--out", folder, "--seed", 5)
    assert "unchanged" in out
    assert "unchanged: 1 of 1 claims hold" in err
    _, out, err = run(capsys, "reproduce", "quick", "--out", folder, "--seed", 5, "--again")
    assert "unchanged" not in out + err
    code, out, _ = run(capsys, "reproduce", "quick", "--out", folder, "--seed", 6)
    assert code == 1
    assert json.loads((folder / "quick.json").read_text())["claims"][0]["holds"] is False
    assert "**NO**" in (folder / "claims.md").read_text()


@pytest.mark.usefixtures("figures")
def test_reproduce_refuses_a_bad_directory_before_it_computes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file" in refused(capsys, "reproduce", "slow", "--out", file)
    assert "cannot write" in refused(capsys, "reproduce", "slow", "--out", "/proc/self")
    assert "no such folder" in refused(capsys, "reproduce", "slow", "--data", file)


def test_an_unavailable_figure_is_said_and_does_not_break_the_list(
    capsys: pytest.CaptureFixture[str], figures: list[Entry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "FIGURES", (Entry("gone", "paper_repro.gone", "Gone", "nowhere"), figures[0]))
    code, out, _ = run(capsys, "reproduce", "--list")
    assert code == 0
    assert "[not available: the module paper_repro.gone is missing]" in out
    code, out, _ = run(capsys, "reproduce", "--out", tmp_path / "out")
    assert code == 1
    assert "No module named 'paper_repro.gone'" in " ".join(out.split())
    assert "1 of 1 claims hold; in error: gone" in out


def interrupt_when_ready(code: str, marker: str, cwd: Path, *others: str) -> tuple[int, str, str]:
    """Run ``code`` in an interpreter of its own and send it SIGINT once the markers are on its standard error.

    As from a terminal, the signal goes to all processes that it has started, too.
    """
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(gfsim.__file__).parents[1]), str(cwd)])}
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )
    assert child.stderr is not None
    seen = ""
    while not all(text in seen for text in (marker, *others)):
        line = child.stderr.readline()
        assert line, f"ended before {marker!r}: {seen}"
        seen += line
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, seen + err


@pytest.mark.parametrize("jobs", [1, 2])
def test_reproduce_keeps_partial_results_on_ctrl_c(figures: list[Entry], tmp_path: Path, jobs: int) -> None:
    rows = [(e.name, e.module, e.title, e.source) for e in figures]
    code, out, err = interrupt_when_ready(
        f"""
        import sys
        from paper_repro import registry
        registry.FIGURES = tuple(registry.Entry(*row) for row in {rows!r})
        from gfsim.cli import main
        sys.exit(main(["reproduce", "--out", "out", "--jobs", "{jobs}"]))
        """,
        "ready",
        tmp_path,
        "1 of 1 claims hold",
    )
    assert code == 130, err
    assert "Traceback" not in err
    assert "complete are quick; missing are slow" in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"quick.png", "quick.svg", "quick.json", "claims.md"}
    assert "**Missing**" in (tmp_path / "out" / "claims.md").read_text()


# -- simulate: the request -----------------------------------------------------------------------------


def test_the_example_is_valid_and_says_what_it_does() -> None:
    request = config.parse(config.EXAMPLE)
    assert request.model.widths == (10, 10, 10, 1)
    objective = build_objective(request)
    start = build_start(request.start, request.data, objective)
    assert start.saddle is not None
    assert start.certificate is not None
    assert start.certificate.verdict == "saddle"
    assert build_clock(request, start) == start.saddle.clock
    w_z = start.w[start.saddle.index_z]
    assert np.linalg.norm(w_z) == pytest.approx(request.start.delta)


def change(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (change("widths", "widhts"), r"\[model\]: widths is missing.*'widhts': a misspelling"),
        (change('activation = "square"', 'activaton = "square"'), r"\[model\] has no key 'activaton'.*'activation'"),
        (change('"square"', '"squre"'), "did you mean 'square'"),
        (change("[3, 4, 1]", "[3, 4.5, 1]"), r"widths = 4.5 is not allowed.*whole numbers"),
        (change("[3, 4, 1]", "3"), "widths = 3 is not allowed"),
        (change("samples = 12", "samples = 0"), "samples = 0 is not allowed; it must be a whole number >= 1"),
        (change("samples = 12", "samples = true"), "samples = True is not allowed"),
        (change("samples = 12", "samples = 12\nrank = 2"), r"\[data\] has no key 'rank' for kind = 'teacher'"),
        (change("teacher_hidden = [2]", "teacher_hidden = [2, 2]"), "one width for each of the 1 hidden layers"),
        (change('"teacher"', '"techer"'), "did you mean 'teacher'"),
        (change("delta = 0.1", "delta = 0"), "delta = 0 is not allowed; it must be a finite number > 0"),
        (change("delta = 0.1", "delta = nan"), "delta = nan is not allowed"),
        (change("delta = 0.1", 'delta = "small"'), "delta = 'small' is not allowed"),
        (change('reduction = "mean"', 'reduction = "avg"'), "one of sum, mean"),
        (change("t_end = 5.0", "t_end = inf"), r"no \[\[event\]\] has stop = true"),
        (change("t_end = 5.0", 't_end = 5.0\nmethod = "euler"'), r"step is missing"),
        (change("t_end = 5.0", 't_end = 5.0\nmethod = "rk_4"'), "did you mean 'rk4'"),
        (change("t_end = 5.0", "t_end = 5.0\nstep = 0.1"), "has no key 'step' for method = 'LSODA'"),
        (SMALL + '[[event]]\nkind = "norm"\nof = "small"\nlevel = 1', "start of kind 'saddle'"),
        (SMALL + '[[event]]\nkind = "loss"', r"\[\[event\]\] number 1: level is missing"),
        (change('kind = "origin"', 'kind = "published"'), "goes only with data kind 'published'"),
        (change("seed = 3", "seed = 3\nmodle = 1"), "has no key 'modle'.*Did you mean 'model'"),
        ("loss = 1\n" + change('[loss]\nreduction = "mean"', ""), r"loss = 1 is not allowed; it must be a table"),
        ("seed = ", "not valid TOML"),
        ("", r"model is missing; it must be a table: start it with a line \[model\]"),
    ],
)  # fmt: skip
def test_wrong_requests_are_named(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        config.parse(text)


def test_mutually_exclusive_kinds() -> None:
    diagonal = change('widths = [3, 4, 1]\nactivation = "square"', 'kind = "diagonal"\ninputs = 3')
    with pytest.raises(InvalidInput, match="use 'random'"):
        config.parse(diagonal)
    diagonal = diagonal.replace('"teacher"', '"random"').replace("teacher_hidden = [2]", "")
    assert build_objective(config.parse(diagonal)).model.name == "diagonal linear net, 3 inputs, depth 2"
    with pytest.raises(InvalidInput, match="sparse saddles are defined by its neurons"):
        config.parse(diagonal.replace('"origin"', '"saddle"'))


def test_recipes_are_fixed_by_their_seed() -> None:
    request = config.parse(SMALL)
    first, again = (build_objective(request) for _ in range(2))
    other = build_objective(config.parse(SMALL, seed=4))
    np.testing.assert_array_equal(first.X, again.X)
    np.testing.assert_array_equal(first.y, again.y)
    assert (first.X != other.X).all()
    assert np.sqrt(np.mean(first.y**2)) == pytest.approx(1.0)
    # the start has a stream of its own: other data, same direction
    w = build_start(request.start, request.data, first).w
    bigger = config.parse(change("samples = 12", "samples = 13"))
    np.testing.assert_array_equal(build_start(bigger.start, bigger.data, build_objective(bigger)).w, w)
    assert np.linalg.norm(w) == pytest.approx(0.1)


@pytest.mark.parametrize("inputs", ["normal", "sphere", "signs"])
def test_input_distributions(inputs: str) -> None:
    request = config.parse(change("samples = 12", f'samples = 50\ninputs = "{inputs}"'))
    X = build_objective(request).X
    if inputs == "sphere":
        np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1.0)
    if inputs == "signs":
        assert set(np.unique(X)) == {-1.0, 1.0}


def test_other_recipes() -> None:
    logistic = config.parse(change('reduction = "mean"', 'name = "logistic"'))
    assert set(np.unique(build_objective(logistic).y)) == {-1.0, 1.0}
    low_rank = config.parse(
        """
        [model]
        kind = "factorisation"
        rows = 4
        cols = 5
        rank = 4
        [data]
        kind = "low_rank"
        rank = 2
        [start]
        kind = "origin"
        delta = 1e-3
        [flow]
        t_end = 1.0
        """
    )
    objective = build_objective(low_rank)
    assert np.linalg.matrix_rank(np.asarray(objective.y).reshape(4, 5)) == 2


def test_published_data_and_start_give_the_printed_loss() -> None:
    request = config.parse(
        """
        [model]
        widths = [20, 50, 1]
        activation = "square"
        [data]
        kind = "published"
        name = "two_layer_square"
        [loss]
        reduction = "mean"
        [start]
        kind = "published"
        [flow]
        t_end = 1.0
        """
    )
    objective = build_objective(request)
    w = build_start(request.start, request.data, objective).w
    assert float(objective.value(w)) == pytest.approx(10.72923, abs=5e-6)


def test_data_and_starts_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(7, 3)), rng.normal(size=7), rng.normal(size=16)
    np.savez(tmp_path / "data.npz", X=X.T, y=y)
    np.savez(tmp_path / "w.npz", W1=w[:12].reshape(4, 3), W2=w[12:].reshape(1, 4))
    text = change('kind = "teacher"\nsamples = 12\nteacher_hidden = [2]', 'kind = "file"\npath = "data.npz"\nCOLUMNS')
    text = text.replace('kind = "origin"\ndelta = 0.1', 'kind = "file"\npath = "w.npz"\nfactor = 0.5')
    request = config.parse(text.replace("COLUMNS", "samples_are_columns = true"), folder=tmp_path)
    objective = build_objective(request)
    np.testing.assert_array_equal(objective.X, X)
    np.testing.assert_array_equal(build_start(request.start, request.data, objective).w, 0.5 * w)
    np.savez(tmp_path / "w.npz", w=np.stack([w, 2 * w]))  # a trajectory: its end is the start
    np.testing.assert_array_equal(build_start(request.start, request.data, objective).w, w)
    with pytest.raises(InvalidInput, match="takes 3 inputs"):
        build_objective(config.parse(text.replace("COLUMNS", ""), folder=tmp_path))
    for content, message in (({"X": X}, "no array 'y'"), ({"X": X, "y": y * np.nan}, "must be finite")):
        np.savez(tmp_path / "data.npz", **content)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match=message):
            build_objective(request)
    (tmp_path / "data.npz").write_text("no zip")
    with pytest.raises(InvalidInput, match=r"is not a \.npz"):
        build_data(request.data, objective.model, binary=False)
    (tmp_path / "data.npz").unlink()
    with pytest.raises(InvalidInput, match=r"cannot read .*data\.npz: .*; give a \.npz file"):
        build_data(request.data, objective.model, binary=False)


def test_a_request_may_name_every_method_of_simulate() -> None:
    # a method that simulate gained was once unknown to the command
    from gfsim.flow.fixed_stepper import RULES
    from gfsim.flow.one_row import OWN
    from gfsim.flow.scipy_stepper import METHODS

    assert set(config.METHODS) == {"auto", *OWN, *METHODS, *RULES}
    assert set(config.FIXED_STEP) == set(RULES)


# -- simulate: the command -----------------------------------------------------------------------------


def test_simulate_writes_a_whole_set(capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "simulate", small, "--out", tmp_path / "out")
    assert code == 0
    assert "mean of the square loss" in out
    folder = tmp_path / "out"
    files = {"trajectory.npz", "summary.json", "flow.png", "flow.svg", "stages.json", "stages.npz"}
    assert {p.name for p in folder.iterdir()} == files
    record = json.loads((folder / "summary.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert (record["ok"], record["status"], record["convention"], record["t_end"]) == (True, "end_time", "mean", 5.0)
    assert record["config"] == SMALL
    with np.load(folder / "trajectory.npz") as saved:
        request = config.parse(SMALL)
        objective = build_objective(request)
        np.testing.assert_array_equal(saved["X"], objective.X)
        assert saved["loss"][-1] == pytest.approx(float(objective.value(saved["w"][-1])), rel=1e-12)
        assert saved["speed"][0] == pytest.approx(np.linalg.norm(objective.gradient(saved["w"][0])), rel=1e-12)
        assert saved["norms_1"].shape == (len(saved["t"]), 4)
        assert record["loss_end"] == saved["loss"][-1]
    assert record["conserved_drift"] < 1e-5


def test_simulate_near_a_saddle_stops_at_its_event(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = change('kind = "origin"\ndelta = 0.1', 'kind = "saddle"\ndelta = 1e-6\nactive = [1]\ndirection = "kkt"')
    text = text.replace("t_end = 5.0", 't_end = inf\n[[event]]\nkind = "norm"\nof = "small"\nlevel = 1e-2')
    (tmp_path / "saddle.toml").write_text(text)
    code, _, err = run(capsys, "simulate", tmp_path / "saddle.toml", "--out", tmp_path / "out")
    assert code == 0, err
    record = json.loads((tmp_path / "out/summary.json").read_text())
    assert record["saddle"]["verdict"] == "saddle"
    # from the KKT point itself t_escape is the blow-up time 1 / (K (K-2) N* delta) of the NCF flow, K = 3,
    # up to the time that is left at |w_z| = level
    expected = 1 / (3 * record["saddle"]["escape_value"]) * (1 / 1e-6 - 1 / 1e-2)
    assert record["events"][0]["t"] == pytest.approx(expected, rel=1e-2)
    with np.load(tmp_path / "out/trajectory.npz") as saved:
        assert np.linalg.norm(saved["w"][-1, saved["index_z"]]) == pytest.approx(1e-2, rel=1e-6)


def test_a_flow_that_ends_early_is_exit_code_1_with_its_files(
    capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path
) -> None:
    small.write_text(change("t_end = 5.0", "t_end = 5.0\nmax_steps = 3"))
    code, out, _ = run(capsys, "simulate", small, "--out", tmp_path / "out")
    assert code == 1
    assert "raise max_steps" in out
    assert json.loads((tmp_path / "out/summary.json").read_text())["ok"] is False


def test_check_and_example_compute_nothing(capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path) -> None:
    assert run(capsys, "simulate", "--example") == (0, config.EXAMPLE, "")
    code, out, _ = run(capsys, "simulate", small, "--check")
    assert code == 0
    assert "3-4-1 square net, n = 12" in out
    assert "start: kind = origin, seed = 3, delta = 0.1, direction = random" in out
    assert "Spec(" not in out
    assert "None" not in out
    assert [p.name for p in tmp_path.iterdir()] == ["small.toml"]


def test_simulate_refuses_in_one_line(capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path) -> None:
    assert "--example prints one" in refused(capsys, "simulate")
    assert "--out DIR" in refused(capsys, "simulate", small)
    absent = refused(capsys, "simulate", tmp_path / "none.toml", "--out", tmp_path / "o")
    assert "none.toml: no such file" in absent
    assert "--example prints one" in absent
    assert "is a file" in refused(capsys, "simulate", small, "--out", small)
    small.write_text(change("delta = 0.1", "delta = -1"))
    assert "delta = -1" in refused(capsys, "simulate", small, "--out", tmp_path / "o")
    small.write_text(change('"square"', '"tanh"\np = 2'))
    assert "neither p nor alpha" in refused(capsys, "simulate", small, "--out", tmp_path / "o")
    small.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(capsys, "simulate", small, "--out", tmp_path / "o")


def test_files_that_are_no_npz_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.npz"
    small.write_text(
        change('kind = "teacher"\nsamples = 12\nteacher_hidden = [2]', f'kind = "file"\npath = "{data.as_posix()}"')
    )
    with open(data, "wb") as handle:
        np.save(handle, np.ones((3, 3)))  # one array, not an archive
    assert "holds one array" in refused(capsys, "simulate", small, "--out", tmp_path / "o")
    data.write_bytes(b"")
    assert "not a .npz" in refused(capsys, "simulate", small, "--out", tmp_path / "o")
    data.write_bytes(b"PK\x03\x04 cut off")
    assert "not a .npz" in refused(capsys, "simulate", small, "--out", tmp_path / "o")


def test_a_saddle_without_inactive_neurons_is_refused_before_it_trains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small: Path, tmp_path: Path
) -> None:
    def trained(*_: object, **__: object) -> None:
        raise AssertionError("the subnet was trained")

    monkeypatch.setattr("gfsim.saddles.find.subnet_minima", trained)
    small.write_text(change('kind = "origin"\ndelta = 0.1', 'kind = "saddle"\ndelta = 1e-3\nactive = [4]'))
    assert "active = [4] leaves no hidden neuron" in refused(capsys, "simulate", small, "--out", tmp_path / "o")


def test_no_saddle_is_exit_code_1(capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path) -> None:
    text = change('kind = "origin"\ndelta = 0.1', 'kind = "saddle"\ndelta = 1e-3\nactive = [1]\nrank = 99\nstarts = 2')
    small.write_text(text)
    code, _, err = run(capsys, "simulate", small, "--out", tmp_path / "out")
    assert code == 1
    assert err.count("\n") == 1
    assert "raise starts" in err


def test_simulate_keeps_the_trajectory_on_ctrl_c(
    capsys: pytest.CaptureFixture[str], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow turns Ctrl-C into a status of its own; the command must still end as interrupted."""
    probes = 0

    def press(_: object) -> float:
        nonlocal probes
        probes += 1
        if probes == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    monkeypatch.setattr(experiment, "build_event", lambda *_: Event("Ctrl-C", press))
    small.write_text(change("t_end = 5.0", "t_end = 1e9") + '[[event]]\nkind = "loss"\nlevel = 1e-9')
    code, _, err = run(capsys, "simulate", small, "--out", tmp_path / "out")
    assert code == 130
    assert "the trajectory up to there is kept" in err
    record = json.loads((tmp_path / "out/summary.json").read_text())
    assert record["status"] == "interrupted"
    with np.load(tmp_path / "out/trajectory.npz") as saved:
        assert len(saved["t"]) > 2


# -- CSV -----------------------------------------------------------------------------------------------


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_columns_become_arrays(tmp_path: Path) -> None:
    path = table(tmp_path, '\ufeffa, "b, c",id ,y\n1,2,x7,3\n\n-4.5,5e-1,x8,6\n')
    samples = read_csv(path, "y", drop=["id"])
    assert samples.features == ("a", "b, c")
    np.testing.assert_array_equal(samples.X, [[1, 2], [-4.5, 0.5]])
    np.testing.assert_array_equal(samples.y, [3, 6])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a,y\n1,2\n", UnknownName, "unknown column .* 'z'"),
        ("a,zz\n1,2\n", UnknownName, "Did you mean 'zz'"),
        ("a,z\n1,2\n3,\n", InvalidInput, "line 3, column 'z': the value '' is missing"),
        ("a,z\n1,2\nNA,4\n", InvalidInput, "line 3, column 'a': the value 'NA' is missing"),
        ("a,z\n1,2\nred,4\n", InvalidInput, "column 'a': 'red' is not a number.*--drop a"),
        ("a,z\n1,2\n1_000,4\n", InvalidInput, "'1_000' is not a number"),
        ("a,z\n1,2\ninf,4\n", InvalidInput, "'inf' is not finite"),
        ("a,z\n1,2\n3\n", InvalidInput, "line 3: 1 values for 2 columns"),
        ("1,2\n3,4\n", InvalidInput, "holds numbers only; a header line"),
        ("a;z\n1;2\n", InvalidInput, "pass --delimiter semicolon"),
        ("a,a,z\n1,2,3\n", InvalidInput, "two columns called 'a'"),
        ("a,,z\n1,2,3\n", InvalidInput, "column 2 of .* has no name"),
        ("z\n1\n", InvalidInput, "no column besides the target"),
        ("a,z\n", InvalidInput, "no data rows"),
        ("", InvalidInput, "is empty"),
        ('a,z\n"1,2\n', InvalidInput, "not well-formed CSV.*; quote cells"),
    ],
)
def test_bad_tables_name_the_place(tmp_path: Path, text: str, error: type[GfsimError], message: str) -> None:
    with pytest.raises(error, match=message):
        read_csv(table(tmp_path, text), "z")


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read .*none\.csv: .*; give a CSV file"):
        read_csv(tmp_path / "none.csv", "z")
    with pytest.raises(InvalidInput, match="cannot be both"):
        read_csv(table(tmp_path, "a,z\n1,2\n"), "z", drop=["z"])
