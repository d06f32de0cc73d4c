"""One line a figure on standard error: what runs, what it is doing, for how long, and how long the rest will take."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

TICK = 0.5


class Progress:
    """Progress of a list of figures.

    On a terminal the line of the running figure is redrawn twice a second; elsewhere (a log file) one
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
        self._head = ""
        self._note = ""
        self._shown = 0
        self._began = 0.0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._expected: list[float | None] = [None] * total
        self._taken: list[float] = []
        self._running = -1

    def expect(self, seconds: Sequence[float | None]) -> None:
        """What each figure took when it was last run; None where that is not known, 0 where nothing is to be done."""
        self._expected = list(seconds)

    def left(self) -> float | None:
        """Seconds until the last figure is done, or None while nothing is known.

        A figure of which no time is known is taken to need the mean of the others.
        """
        ahead = self._expected[max(self._running, 0) :]
        known = [t for t in self._expected if t] + self._taken
        if not ahead or (not known and None in ahead):
            return None
        mean = sum(known) / len(known) if known else 0.0
        spent = time.perf_counter() - self._began if self._running >= 0 else 0.0
        first, *rest = [mean if t is None else t for t in ahead]
        return max(first - spent, 0.0) + sum(rest)

    def start(self, number: int, name: str) -> None:
        self._head, self._note = f"[{number:>{self._width}}/{self._total}] {name}", ""
        self._began, self._running = time.perf_counter(), number - 1
        if not self._live:
            left = self.left()
            self._line(f"{self._head} ..." + ("" if left is None else f"  {spoken(left)} left"))
            return
        self._done.clear()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()

    def note(self, text: str) -> None:
        self._note = " ".join(text.split())

    def finish(self, outcome: str) -> None:
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None
        spent = time.perf_counter() - self._began
        if self._expected[self._running] != 0:
            self._taken.append(spent)
        self._line(f"{self._head}  {spent:.1f} s  {outcome}")

    def skip(self, number: int, name: str, outcome: str) -> None:
        """One line for a figure of which nothing is to be done."""
        self._line(f"[{number:>{self._width}}/{self._total}] {name}  {outcome}")

    def _tick(self) -> None:
        while True:
            with self._lock:
                left = self.left()
                when = "" if left is None else f", {spoken(left)} left"
                text = f"{self._head}  {time.perf_counter() - self._began:.0f} s{when}  {self._note}"[:110]
                self._stream.write("\r" + text.ljust(self._shown))
                self._stream.flush()
                self._shown = len(text)
            if self._done.wait(TICK):
                return

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
