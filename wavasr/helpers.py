"""Processes that decode while this one listens: flashlight's search holds Python's lock, so threads would only wait.

They are forked, so that they share what has been read, such as the language model. Where that is not safe (macOS,
Windows) or there is one core only, the work is done at once in this process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_PENDING = 4  # pieces of work that a process may have before it; more would only fill memory
_ORPHAN_CHECK_S = 2.0

_work: Callable[[NDArray[np.float32]], Any] | None = None  # of this process, where it is a helper


def usable_processes() -> int:
    """How many helpers keep the cores busy: as many as OMP_NUM_THREADS says, else one for each core; 0 for none."""
    if sys.platform != "linux":
        return 0
    cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    count = min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) else cores
    return count if count > 1 else 0


class Helpers(Generic[T]):
    """`work` on one array after the other, by `count` helpers, or with 0 by this process; a context manager.

    The helpers are forked with the first array, and know what this process knew then.
    """

    def __init__(self, work: Callable[[NDArray[np.float32]], T], count: int = 0) -> None:
        self._work = work
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[Future[T]] = deque()

    def submit(self, values: NDArray[np.float32]) -> Future[T]:
        """Begin; the result is what `work` returns or raises. Waits while all helpers have enough to do."""
        if not self._count:
            return self._done(values)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._count, get_context("fork"), initializer=_become_helper, initargs=(self._work, os.getpid())
            )
        while len(self._pending) >= _PENDING * self._count:
            self._pending.popleft().exception()
        future = self._pool.submit(_run, values)
        self._pending.append(future)
        return future

    def _done(self, values: NDArray[np.float32]) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(self._work(values))
        except Exception as error:  # whoever asks for the result gets it
            future.set_exception(error)
        return future

    def __enter__(self) -> Helpers[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _become_helper(work: Callable[[NDArray[np.float32]], Any], parent: int) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process tells whoever interrupts
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A process that is killed cannot stop its helpers."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK_S)
    os._exit(1)


def _run(values: NDArray[np.float32]) -> Any:
    assert _work is not None
    return _work(values)
