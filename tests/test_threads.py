"""Chunks of rows on threads: the same results as one after the other, whatever the number of threads; BLAS on one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gfsim import threads
from gfsim.flow.batch import simulate_batch
from gfsim.flow.events import Event, Probe
from gfsim.flow.simulate import simulate
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.pursuit import problem as problem_module
from gfsim.pursuit.estimator import NeuronPursuitRegressor
from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk


def give_blas(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose BLAS may use so many threads."""
    monkeypatch.setattr(threads, "_blas_threads", lambda: count)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    give_blas(count, monkeypatch)
    names = set()

    def square(k: int) -> int:
        names.add(threading.current_thread().name)
        return k * k

    assert threads.over(range(100), square) == [k * k for k in range(100)]
    assert threads.over([], square) == []
    assert (threading.current_thread().name in names) == (count == 1)
    names.clear()
    assert threads.over([3], square) == [9]
    assert names == {threading.current_thread().name}


def test_a_pass_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_module, "CHUNK_ENTRIES", 400)
    rng = np.random.default_rng(0)
    net = Network((rng.normal(size=(4, 5)), rng.normal(size=(1, 4))), np.zeros(1), HomogeneousActivation(1, 0.0))
    task = Problem(rng.normal(size=(1000, 5)), rng.normal(size=(1000, 1)), np.full(1000, 1e-3), make_risk("square"))
    results = []
    with threadpool_limits(1):
        for count in (1, 2, 3):
            give_blas(count, monkeypatch)
            results.append(task.loss_and_gradient(net))
    for loss, slope in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(slope, results[0][1])


def test_blas_has_one_thread_meanwhile_and_its_own_number_after(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threads._blas_threads
    with threadpool_limits(2):
        if real() != 2:
            pytest.skip("this BLAS has one thread")
        assert threads.over(range(4), lambda _: real()) == [1] * 4
        assert real() == 2
        # a pass within a pass is made on the thread that it is on
        nested = threads.over(range(2), lambda _: threads.over(range(3), lambda _: threading.current_thread().name))
        assert all(len(set(names)) == 1 for names in nested)
        with pytest.raises(ZeroDivisionError):
            threads.over([1, 0, 2], lambda k: 1 / k)
        assert real() == 2
    give_blas(1, monkeypatch)
    assert threads.over(range(3), str) == ["0", "1", "2"]


def test_floating_point_settings_hold_on_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    give_blas(2, monkeypatch)
    huge = np.array([1e300])
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.over(range(4), lambda _: huge * huge)
    with np.errstate(over="ignore"):
        assert all(np.isinf(out) for out in threads.over(range(4), lambda _: huge * huge))


def test_small_flows_leave_blas_one_thread_and_large_ones_all() -> None:
    """Where other programs run, threads of BLAS wait for milliseconds over products that take microseconds."""
    seen: list[int] = []

    def watching(probe: Probe) -> Any:
        seen.append(threads._blas_threads())
        return probe.potential - 0.5

    def follow(n_samples: int, how: Callable[..., object]) -> set[int]:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(n_samples, 3))
        task = Objective(FeedForward((3, 2, 1), "relu", p=2), X, X[:, 0] ** 2, reduction="mean")
        seen.clear()
        how(task, rng.normal(size=(2, task.model.n_params)))
        return set(seen)

    def one(method: str) -> Callable[..., object]:
        return lambda task, w: simulate(
            task, w[0], t_end=1e-3, method=method, events=[Event("watch", watching)], max_steps=3
        )

    def several(task: Objective, w: np.ndarray) -> object:
        return simulate_batch(task, w, t_end=1e-3, events=[Event("watch", watching)], threads=2, max_steps=3)

    with threadpool_limits(2):
        if threads._blas_threads() != 2:
            pytest.skip("this BLAS has one thread")
        assert follow(20, one("auto")) == {1}
        assert follow(20, one("BDF")) == {1}
        assert follow(threads.FEW, one("auto")) == {2}
        assert follow(20, several) == {1}
        assert follow(threads.FEW, several) == {1}  # each of its two loops is on a thread of its own
        assert threads._blas_threads() == 2


def test_fits_to_small_tables_leave_blas_one_thread() -> None:
    seen: set[int] = set()
    X = np.random.default_rng(0).normal(size=(60, 2))
    with threadpool_limits(2):
        if threads._blas_threads() != 2:
            pytest.skip("this BLAS has one thread")
        NeuronPursuitRegressor(random_state=0, callback=lambda *_: seen.add(threads._blas_threads())).fit(
            X, np.maximum(X[:, 0], 0.0)
        )
        assert seen == {1}
        assert threads._blas_threads() == 2
