"""Processes that search while this one runs the network: flashlight holds Python's lock, so threads would only wait.

They are forked, so that they share what has been read, such as the language model. Where that is not safe (macOS,
Windows) or there is one core only, the work is done at once in this process.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from wavasr.network.runtime import multiply_on_one_thread, usable_cores, wanted_threads

T = TypeVar("T")
Floats = NDArray[np.float32]
Versions = Floats | tuple[Floats, ...]  # of a stretch of a recording: one, or several
Work = Callable[[Versions], T]

_MOST = 8  # more could not be given enough to do
_BEGUN = 4  # pieces of work that a process may have before it; more would only fill memory
_ORPHAN_CHECK_S = 2.0

log = logging.getLogger("wavasr")


def show_warnings(level: int) -> None:
    """In a process that was spawned: warnings as the first process prints them, unless its level is higher."""
    logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
    log.setLevel(max(level, logging.WARNING))


_work: Work[Any] | None = None  # of this process, where it is a worker


def usable_processes() -> int:
    """How many workers keep the cores busy: as OMP_NUM_THREADS says, else one for each core, 8 at most; 0 for none."""
    if sys.platform != "linux":
        return 0
    count = min(_MOST, usable_cores(), wanted_threads())
    return count if count > 1 else 0


class Pending(Generic[T]):
    """A result that may not be there yet."""

    def __init__(self, work: Work[T], values: Versions, on_lost: Callable[[], None]) -> None:
        self._work = work
        self._on_lost = on_lost
        self._values: Versions | None = values  # kept until there is a result, since a worker may be lost
        self._future: Future[T] | None = None

    @property
    def waits(self) -> bool:
        """Whether nobody has begun."""
        return self._future is None

    def begin(self, pool: ProcessPoolExecutor | None = None) -> Future[T]:
        """Have a worker do the work, or do it now.

        Raises:
            BrokenProcessPool: a worker was lost; nobody has begun.
        """
        assert self._values is not None
        if pool is not None:
            self._future = pool.submit(_run, self._values)
        else:
            self._future = Future()
            try:
                self._future.set_result(self._work(self._values))
            except Exception as error:  # whoever asks for the result gets it
                self._future.set_exception(error)
        self._future.add_done_callback(self._release)
        return self._future

    def _release(self, future: Future[T]) -> None:
        if future.cancelled() or not is_lost(future):
            self._values = None

    def result(self) -> T:
        """Wait for it; what went wrong is raised. What a lost worker was to do is done here."""
        future = self._future or self.begin()
        if is_lost(future):
            self._on_lost()
            future = self.begin()
        return future.result()


def is_lost(future: Future[Any]) -> bool:
    """Whether the worker ended, killed perhaps, before the result was there. Waits for the one or the other."""
    return isinstance(future.exception(), BrokenProcessPool)


class Workers(Generic[T]):
    """`work` on one array after the other, by `count` workers, or with 0 by this process; a context manager.

    The workers are forked with the second array (one alone is not worth it), and know what this process knew then.
    """

    def __init__(self, work: Work[T], count: int = 0) -> None:
        self._work = work
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self._first: Pending[T] | None = None
        self._begun: deque[Future[T]] = deque()

    def submit(self, values: Versions) -> Pending[T]:
        """Begin; the result is what `work` returns or raises. Waits while all workers have enough to do."""
        pending = Pending(self._work, values, self._go_on_alone)
        if self._count and self._pool is None:
            if self._first is None:
                self._first = pending
                return pending
            self._pool = self._new_pool()
            if self._first.waits:
                self._begin(self._first)
        self._begin(pending)
        return pending

    def _begin(self, pending: Pending[T]) -> None:
        while len(self._begun) >= _BEGUN * self._count > 0:
            if is_lost(self._begun.popleft()):
                self._go_on_alone()
        try:
            future = pending.begin(self._pool)
        except BrokenProcessPool:
            self._go_on_alone()
            future = pending.begin()
        if self._pool is not None:
            self._begun.append(future)

    def _go_on_alone(self) -> None:
        """Say that a worker was lost, once, and do the rest in this process."""
        if not self._count:
            return
        log.warning("a worker process was ended, perhaps for lack of memory; going on without workers")
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool, self._count = None, 0
        self._begun.clear()

    def _new_pool(self) -> ProcessPoolExecutor | None:
        try:
            return ProcessPoolExecutor(
                self._count, get_context("fork"), initializer=_become_worker, initargs=(self._work, os.getpid())
            )
        except (ImportError, NotImplementedError, OSError):  # no shared memory here, or no more processes
            self._count = 0
            return None

    def __enter__(self) -> Workers[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _become_worker(work: Work[Any], parent: int) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process reports it
    multiply_on_one_thread()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A process that is killed cannot stop its workers."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK_S)
    os._exit(1)


def _run(values: Versions) -> Any:
    assert _work is not None
    return _work(values)
