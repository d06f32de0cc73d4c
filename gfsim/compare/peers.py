"""Peer libraries, each in a process of its own, driven one at a time.

A peer that is not installed takes no part, and that is said.  ``pip install gfsim[bench]`` brings them all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gfsim.compare.measure import Run
from gfsim.compare.methods import STEPS
from gfsim.compare.problems import Problem
from gfsim.compare.reference import Reference
from gfsim.errors import GfsimError, unknown_name
from gfsim.interrupt import Stop

if TYPE_CHECKING:
    from gfsim.compare.runner import Comparison

LIBRARIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "torchdiffeq": ("torchdiffeq", ("torchdiffeq",)),
    "torchode": ("torchode", ("torchode",)),
    "diffrax": ("diffrax", ("diffrax", "jax", "optimistix")),
    "sundials": ("sundials", ("sksundae",)),
    "torch": ("torch_sgd", ("torch",)),
}
"""Library -> (module in :mod:`gfsim.compare.adapters`, packages it needs)."""

OWN = "gfsim"
"""The worker that runs gfsim's and scipy's methods, for benchmarks in which every library has its process."""

COMPILE_ALLOWANCE = 120.0
"""Seconds that a first call may take beyond its limit before the process is ended."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class PeerLost(GfsimError, RuntimeError):
    """A peer's process ended, or did not answer in time."""


def adapter_name(library: str) -> str:
    return LIBRARIES[library][0]


def missing_packages(library: str) -> list[str]:
    """Packages that a library needs and that are not installed."""
    if library not in LIBRARIES:
        raise unknown_name("peer", library, LIBRARIES)
    return [package for package in LIBRARIES[library][1] if util.find_spec(package) is None]


def environment(threads: int) -> dict[str, str]:
    """The environment of a worker, with the number of threads said to every library that listens."""
    env = dict(os.environ)
    env |= {name: str(threads) for name in THREADS}
    env["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return env


class Worker:
    """A library's process on one problem; use it as a context manager.

    Attributes
    ----------
    methods : dict of name -> whether it takes a fixed step
    refusal : str
        Why the library cannot take the problem; empty if it can.
    """

    def __init__(self, library: str, problem: Problem, reference: Reference, *, threads: int = 1) -> None:
        self.library, self._threads = library, threads
        self._folder = tempfile.TemporaryDirectory(prefix="gfsim-compare-")
        self._path = Path(self._folder.name) / "problem.pickle"
        with open(self._path, "wb") as handle:
            pickle.dump((problem, reference), handle)
        self._process: subprocess.Popen[str] | None = None
        self.methods: dict[str, bool] = {}
        self.refusal = ""

    def __enter__(self) -> Worker:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._folder.cleanup()

    def run(self, method: str, setting: float, limit: float) -> Run:
        """One run; a process that is lost is a failed run, and the next request starts a new one."""
        lost = Run(self.library, method, "t", setting, self.methods.get(method, False))
        if self.library == OWN:
            lost.library, lost.method = method.split(":")
        try:
            if self._process is None:
                self._start()
            self._ask({"method": method, "setting": setting, "limit": limit})
            return Run.from_json(self._answer(limit + COMPILE_ALLOWANCE)["run"])
        except PeerLost as exc:
            self._end()
            lost.failure = str(exc)
            return lost

    # -- the process ---------------------------------------------------------------------------------

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gfsim.compare.worker", self.library, str(self._path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(self._threads),
            start_new_session=True,  # Ctrl-C is the parent's affair
        )
        hello = self._answer(COMPILE_ALLOWANCE)
        self.methods, self.refusal = hello["methods"], hello["refusal"]

    def _ask(self, request: dict[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise PeerLost(f"{self.library} has no process")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            raise PeerLost(f"the process of {self.library} has ended") from None

    def _answer(self, seconds: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            raise PeerLost(f"{self.library} has no process")
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            deadline = time.monotonic() + seconds
            while True:
                if selector.select(timeout=min(1.0, max(deadline - time.monotonic(), 0.0))):
                    line = process.stdout.readline()
                    if not line:
                        raise PeerLost(
                            f"the process of {self.library} has ended with code {process.wait()} before it answered"
                        )
                    answer: dict[str, Any] = json.loads(line)
                    return answer
                if time.monotonic() >= deadline:
                    raise PeerLost(f"no answer within {seconds:g} s: the process was ended")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not yet sent has nobody to go to
                    stream.close()


def sweep_peers(
    result: Comparison,
    peers: Sequence[str],
    rtols: Sequence[float],
    limit: float,
    note: Callable[[str], None],
    stop: Stop | None,
) -> None:
    """Add the runs of the peers to a comparison; those that cannot take part are named in ``skipped``."""
    from gfsim.compare.runner import describe, out_of_time

    for library in peers:
        absent = missing_packages(library)
        if absent:
            result.skipped.append(f"{library}: {', '.join(absent)} not installed (pip install 'gfsim[bench]')")
            continue
        note(f"starting {library}")
        try:
            with Worker(library, result.problem, result.reference) as worker:
                if worker.refusal:
                    result.skipped.append(f"{library}: {worker.refusal}")
                    continue
                for method, fixed in worker.methods.items():
                    hopeless = ""
                    for setting in STEPS if fixed else rtols:
                        if stop is not None and stop.is_set():
                            raise KeyboardInterrupt
                        if hopeless:
                            run = Run(library, method, "t", setting, fixed, failure=f"not tried: {hopeless}")
                        else:
                            note(f"{library}:{method} {describe(fixed, setting)}")
                            run = worker.run(method, setting, limit)
                            if not run.failure and run.wall > limit:
                                run.failure = f"took {run.wall:.3g} s, more than the time limit of {limit:g} s"
                                run.error = math.nan
                        hopeless = hopeless or out_of_time(run, setting)
                        result.runs.append(run)
        except (PeerLost, pickle.PicklingError, AttributeError, TypeError) as exc:
            result.skipped.append(f"{library}: {' '.join(str(exc).split())}")
