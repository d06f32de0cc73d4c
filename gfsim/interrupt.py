"""Ctrl-C that is not lost: remembered if a solver swallows it, put off while files are written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Whether the user has asked to stop.

    A flow turns Ctrl-C into the status INTERRUPTED and returns what it has; the caller learns from
    ``is_set()`` that the whole command was meant.
    """

    def __init__(self) -> None:
        self._asked = False
        self._held = False

    def is_set(self) -> bool:
        return self._asked

    def request(self) -> None:
        """Remember the wish, and raise ``KeyboardInterrupt`` unless :meth:`held`."""
        self._asked = True
        if not self._held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block a wish to stop is only remembered: files are written as a set."""
        self._held = True
        try:
            yield
        finally:
            self._held = False


@contextlib.contextmanager
def interruptible() -> Iterator[Stop]:
    """Within the block Ctrl-C and SIGTERM go through a :class:`Stop`.

    Outside the main thread, where Python handles no signals, the Stop is never set.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
