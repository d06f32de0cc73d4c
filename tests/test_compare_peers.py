"""Other libraries in processes of their own: absent ones are named, lost ones are failed runs."""

from __future__ import annotations

import dataclasses
import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from gfsim.compare import Problem, Reference, compare, peers, problem, reference_for
from gfsim.compare.adapters import Counter, Unsupported
from gfsim.compare.measure import OutOfTime
from gfsim.compare.peers import LIBRARIES, OWN, Worker, environment, missing_packages
from gfsim.errors import UnknownName


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.fixture(scope="module")
def net() -> Problem:
    whole = problem("logistic")
    return dataclasses.replace(whole, name="net", sections=whole.sections[:1])


@pytest.fixture(scope="module")
def net_reference(net: Problem, cache: Path) -> Reference:
    return reference_for(net, folder=cache)


def test_an_absent_library_is_skipped_with_a_word(
    net: Problem, net_reference: Reference, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del net_reference
    monkeypatch.setitem(LIBRARIES, "nowhere", ("nowhere", ("a_package_that_is_not_there",)))
    result = compare(net, methods=["scipy:LSODA"], rtols=(1e-4,), peers=["nowhere"], cache=cache)
    assert [run.ok for run in result.runs] == [True]
    assert "nowhere: a_package_that_is_not_there not installed (pip install 'gfsim[bench]')" in result.table()
    with pytest.raises(UnknownName, match="unknown peer"):
        missing_packages("nowhere else")


def test_a_problem_that_a_library_cannot_take_is_skipped_with_the_reason(cache: Path) -> None:
    result = compare(problem("toy"), methods=["scipy:LSODA"], rtols=(1e-4,), peers=["torch"], cache=cache)
    assert result.skipped == ["torch: the torch twin is written for feed-forward nets with max(z, alpha z)^p"]


def test_a_worker_runs_what_this_process_would_run(net: Problem, net_reference: Reference) -> None:
    here = compare_one(net, net_reference, "scipy:LSODA")
    with Worker(OWN, net, net_reference) as worker:
        assert not worker.methods["scipy:LSODA"]
        run = worker.run("scipy:LSODA", 1e-4, 20.0)
    assert run.failure == ""
    assert run.error == pytest.approx(here.error, rel=1e-6)
    assert run.counts == here.counts


def compare_one(net: Problem, found: Reference, name: str):  # type: ignore[no-untyped-def]
    from gfsim.compare.methods import choose

    return choose([name])[0].run(net, found, 1e-4, limit=20.0)


def test_a_process_that_is_lost_is_a_failed_run_and_the_next_one_works(
    net: Problem, net_reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Worker(OWN, net, net_reference) as worker:
        assert worker._process is not None
        worker._process.kill()
        worker._process.wait()
        run = worker.run("scipy:RK45", 1e-4, 20.0)
        assert not run.ok
        assert (run.library, run.method) == ("scipy", "RK45")
        assert "has ended" in run.failure
        assert worker.run("scipy:RK45", 1e-4, 20.0).ok
        monkeypatch.setattr(peers, "COMPILE_ALLOWANCE", -1e9)
        run = worker.run("scipy:RK45", 1e-4, 20.0)
        assert "no answer within" in run.failure
        assert worker._process is None


def test_threads_are_said_to_every_library() -> None:
    env = environment(1)
    assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "1"
    assert "intra_op_parallelism_threads=1" in env["XLA_FLAGS"]


def test_the_counter_stops_a_solver() -> None:
    patient = Counter(math.inf)
    patient.tick()
    assert patient.calls == 1
    with pytest.raises(OutOfTime):
        Counter(-1.0).tick()


def test_torch_descent_is_the_bare_loop(cache: Path) -> None:
    """The same iteration by autograd and by closed formulas: the same number of steps."""
    pytest.importorskip("torch")
    from gfsim.compare.adapters import torch_sgd
    from gfsim.compare.methods import choose

    task = problem("deep-linear")
    found = reference_for(task, folder=cache)
    bare = choose(["gd"])[0].run(task, found, 0.3, limit=60.0)
    outcome = torch_sgd.prepare(task).solve("sgd", 0.3, found, 60.0)
    assert outcome.counts["rhs"] == bare.counts["rhs"]
    with pytest.raises(Unsupported, match="square loss"):
        torch_sgd.prepare(problem("logistic"))


PEER_METHODS = [
    ("torchdiffeq", "torchdiffeq", "dopri5"),
    ("torchode", "torchode", "dopri5"),
    ("diffrax", "diffrax", "Tsit5"),
    ("sundials", "sksundae", "BDF"),
    ("sundials", "sksundae", "BDF-GMRES"),
]


@pytest.mark.parametrize(("library", "package", "method"), PEER_METHODS)
def test_the_peers_that_are_installed_agree_with_the_reference(
    library: str, package: str, method: str, net: Problem, net_reference: Reference
) -> None:
    pytest.importorskip(package)
    with Worker(library, net, net_reference) as worker:
        assert worker.refusal == ""
        run = worker.run(method, 1e-6, 60.0)
    assert run.failure == ""
    assert run.error < 1e-3
    assert run.counts["rhs"] > 10
    assert np.isfinite(run.wall)


def test_every_library_has_its_adapter() -> None:
    folder = Path(peers.__file__).parent / "adapters"
    for library, (module, packages) in LIBRARIES.items():
        assert (folder / f"{module}.py").is_file(), library
        if not missing_packages(library) and "jax" not in packages:
            assert importlib.import_module(f"gfsim.compare.adapters.{module}").METHODS
