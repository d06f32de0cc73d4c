"""A few processes that work through a list of tasks, one task at a time each.

The processes are spawned, compute with one thread each and write no file: they can be ended at any moment.  A process
that dies loses the task it had, and another one takes its place.  Ctrl-C is the caller's business; it does not reach
the processes, which end with the generator (or with the caller, however that ends).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

TICK = 0.2
"""Seconds between two looks of the caller, if nothing happens."""

GRACE = 5.0
"""Seconds that a process which has hung up may take to end by itself, and so to say how."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Started:
    """Task ``number`` was given to a process."""

    number: int


@dataclass(frozen=True)
class Noted:
    """Task ``number`` says what it is doing."""

    number: int
    text: str


@dataclass(frozen=True)
class Ended(Generic[Result]):
    """Task ``number`` returned ``result``."""

    number: int
    result: Result


@dataclass(frozen=True)
class Lost:
    """The process of task ``number`` died; ``how`` says of what."""

    number: int
    how: str


def work(
    function: Callable[[Task, Callable[[str], None]], Result], tasks: Sequence[Task], jobs: int
) -> Generator[Started | Noted | Ended[Result] | Lost | None, None, None]:
    """Call ``function(task, note)`` for every task, in order, in up to ``jobs`` processes; yield what happens.

    None is yielded every ``TICK`` seconds in which nothing happens.  Close the generator to end all processes at once.

    Parameters
    ----------
    function : callable
        Found by its name in a module, which a spawned process imports.  It catches its own exceptions: one that gets
        out ends the process.
    """
    waiting = deque(enumerate(tasks))
    crew: list[_Worker] = []
    try:
        while waiting or crew:
            while waiting and len(crew) < jobs:
                crew.append(_Worker(function, *waiting.popleft()))
                yield Started(crew[-1].number)
            ready = wait([worker.connection for worker in crew], TICK)
            if not ready:
                yield None
            for worker in [worker for worker in crew if worker.connection in ready]:
                happened = worker.take()
                yield happened
                if isinstance(happened, Ended) and waiting:
                    worker.give(*waiting.popleft())
                    yield Started(worker.number)
                elif not isinstance(happened, Noted):
                    worker.end()
                    crew.remove(worker)
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """One process, and the number of the task that it has."""

    def __init__(self, function: Callable[..., Any], number: int, task: object) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        # a daemon: Python ends it with the caller
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(function, theirs), daemon=True
        )
        with _one_thread(), _without_interrupts():
            self._process.start()
        theirs.close()
        self.give(number, task)

    def give(self, number: int, task: object) -> None:
        self.number = number
        with contextlib.suppress(OSError):  # a process that has died says so when it is asked
            self.connection.send(task)

    def take(self) -> Noted | Ended[Any] | Lost:
        """The next thing it says; waits for it."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(GRACE)
            return Lost(self.number, _cause(self._process.exitcode))
        return Noted(self.number, value) if kind == "note" else Ended(self.number, value)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()


def _serve(function: Callable[..., Any], connection: Connection) -> None:
    """What a process does: take a task, say what it does and what came out, until there are no more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(("end", function(task, lambda text: connection.send(("note", text)))))


def _end_with_parent() -> None:
    """A caller that was killed cannot end its processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _cause(code: int | None) -> str:
    if code is None:
        return "closed its connection"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was killed by {name}"
    return f"ended with exit code {code}"


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started in the block compute with one thread each: more would wait for each other."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started in the block never see the terminal's Ctrl-C; one that comes meanwhile is put off."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
