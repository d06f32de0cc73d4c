"""Passes over the rows of a large table, on as many threads as BLAS may use.

BLAS threads pay off in large square products.  Those of a pass are long and thin, one for each chunk of
rows, and between them lie entrywise operations that one thread makes: whole chunks on threads of their
own, each with BLAS on one thread, are about twice as fast, and results do not depend on their number.
``OMP_NUM_THREADS`` and ``threadpoolctl`` limit them as they limit BLAS.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np

Part = TypeVar("Part")
Out = TypeVar("Out")

_limiting = threading.Lock()

FEW = 50_000
"""Numbers in an array over which more than one thread of BLAS does not pay."""


def over(parts: Iterable[Part], function: Callable[[Part], Out]) -> list[Out]:
    """``function`` of every part, in the order of the parts.

    One part alone is worked on by BLAS as it is.  So are all of them, one after the other, when BLAS has one thread:
    within a part that is on a thread already, and beside another call from another thread.
    """
    todo = list(parts)
    if len(todo) < 2:
        return [function(part) for part in todo]
    with _one_for_blas() as threads:
        if threads < 2:
            return [function(part) for part in todo]
        errors = np.geterr()

        def within(part: Part) -> Out:
            with np.errstate(**errors):  # a new thread has the default ones
                return function(part)

        pool = ThreadPoolExecutor(min(threads, len(todo)))
        try:
            return list(pool.map(within, todo))
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def alone(numbers: int) -> Iterator[None]:
    """BLAS on one thread meanwhile, process-wide, if the largest array of what follows holds only FEW ``numbers``.

    Its threads would wait for each other longer than they compute: on a machine with other work for milliseconds where
    one alone takes microseconds.
    """
    if numbers > FEW:
        yield
        return
    with _one_for_blas():
        yield


@contextmanager
def _one_for_blas() -> Iterator[int]:
    """BLAS on one thread meanwhile, process-wide; gives the number that it had."""
    with _limiting:
        threads = _blas_threads()
        limit = _blas().limit(limits=1, user_api="blas") if threads > 1 else None
    try:
        yield threads
    finally:
        if limit is not None:
            with _limiting:
                limit.restore_original_limits()


def _blas_threads() -> int:
    return max((int(library.num_threads) for library in _blas().lib_controllers), default=1)


@cache
def _blas() -> Any:
    """Handles of the BLAS libraries in this process; to look for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
