"""One line a figure on standard error: what runs, what it is doing, for how long, and how long the rest will take."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

TICK = 0.5
WIDTH = 110
"""Characters of a line that is redrawn."""


@dataclass
class _Running:
    head: str
    began: float
    note: str = ""

    @property
    def spent(self) -> float:
        return time.perf_counter() - self.began


class Progress:
    """Progress of a list of figures, of which several may run at a time.

    On a terminal one line for the running figures is redrawn twice a second; elsewhere (a log file) one
    line says that a figure has started and one that it has ended.

    Parameters
    ----------
    total : int
        Number of figures.
    stream : text stream, optional
        Standard error by default.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._total = total
        self._width = max(len(str(total)), 1)
        self._count = 0
        self._shown = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._jobs = 1
        self._ahead: dict[str, float | None] = {}
        self._running: dict[str, _Running] = {}
        self._taken: list[float] = []

    def expect(self, seconds: Mapping[str, float | None], jobs: int = 1) -> None:
        """What each figure that is to be run took the last time, None where that is not known; how many run at once."""
        self._ahead, self._jobs = dict(seconds), jobs

    def left(self) -> float | None:
        """Seconds until the last figure is done, or None while nothing is known.

        A figure of which no time is known is taken to need the mean of the others.
        """
        known = [t for t in self._ahead.values() if t is not None] + self._taken
        if not self._ahead or not known:
            return None
        mean = sum(known) / len(known)
        rest = []
        for name, expected in self._ahead.items():
            spent = self._running[name].spent if name in self._running else 0.0
            rest.append(max((mean if expected is None else expected) - spent, 0.0))
        return max(sum(rest) / self._jobs, *rest)

    def start(self, name: str) -> None:
        with self._lock:
            self._running[name] = _Running(f"{self._number()} {name}", time.perf_counter())
        if not self._live:
            left = self.left()
            self._line(f"{self._running[name].head} ..." + ("" if left is None else f"  {spoken(left)} left"))
        elif self._thread is None:
            self._done.clear()
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()

    def note(self, name: str, text: str) -> None:
        self._running[name].note = " ".join(text.split())

    def finish(self, name: str, outcome: str) -> None:
        with self._lock:
            ended = self._running.pop(name)
            self._ahead.pop(name, None)
            self._taken.append(ended.spent)
        if self._thread is not None and not self._running:
            self._done.set()
            self._thread.join()
            self._thread = None
        self._line(f"{ended.head}  {ended.spent:.1f} s  {outcome}")

    def skip(self, name: str, outcome: str) -> None:
        """One line for a figure of which nothing is to be done."""
        self._line(f"{self._number()} {name}  {outcome}")

    def _number(self) -> str:
        self._count += 1
        return f"[{self._count:>{self._width}}/{self._total}]"

    def _tick(self) -> None:
        while not self._done.is_set():
            with self._lock:
                text = self._now()
                self._stream.write("\r" + text.ljust(self._shown))
                self._stream.flush()
                self._shown = len(text)
            self._done.wait(TICK)

    def _now(self) -> str:
        """The line of the running figures; each has an equal part of it."""
        left = self.left()
        when = "" if left is None else f"{spoken(left)} left  "
        part = (WIDTH - len(when)) // max(len(self._running), 1) - 3
        return when + " | ".join(f"{r.head}  {r.spent:.0f} s  {r.note}"[:part] for r in self._running.values())

    def _line(self, text: str) -> None:
        with self._lock:
            self._stream.write(("\r" + text.ljust(self._shown) if self._live else text) + "\n")
            self._stream.flush()
            self._shown = 0


def spoken(seconds: float) -> str:
    """``12 s``, ``4 min`` or ``1.5 h``, never less than is left."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
