"""One line a figure on standard error: what runs, what it is doing, for how long."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

TICK = 0.5


class Progress:
    """Progress of a list of figures.

    On a terminal the line of the running figure is redrawn twice a second; elsewhere (a log file) one
    line says that a figure has started and one that it has ended.
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

    def start(self, number: int, name: str) -> None:
        self._head, self._note = f"[{number:>{self._width}}/{self._total}] {name}", ""
        self._began = time.perf_counter()
        if not self._live:
            self._line(f"{self._head} ...")
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
        self._line(f"{self._head}  {time.perf_counter() - self._began:.1f} s  {outcome}")

    def _tick(self) -> None:
        while True:
            with self._lock:
                text = f"{self._head}  {time.perf_counter() - self._began:.0f} s  {self._note}"[:110]
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
