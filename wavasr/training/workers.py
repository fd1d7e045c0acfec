"""Processes that load data: those that are killed, most likely for want of memory, are replaced."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from wavasr.errors import WavasrError

_CAUGHT = "Caught "  # how torch's messages about what a living worker met begin
_MOST_TRIES = 3  # how often they may be killed at one item before that is an error
Item = TypeVar("Item")
log = logging.getLogger("wavasr")


class _Flag:
    """An event of several processes without a lock, which a process that is killed would hold for ever."""

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue("b", 0)

    def set(self) -> None:
        self._value.value = 1

    def is_set(self) -> bool:
        return bool(self._value.value)


def worker_context(workers: int) -> BaseContext | None:
    """What a `DataLoader` starts so many workers with: the usual, but what tells them to end has no lock."""
    if not workers:
        return None
    usual: Any = type(multiprocessing.get_context())

    class Context(usual):  # type: ignore[misc]
        def Event(self) -> _Flag:  # noqa: N802  # the name that torch calls
            return _Flag(self)

    context: BaseContext = Context()
    return context


def loaded(begin: Callable[[int], Iterator[Item]], workers: int) -> Iterator[Item]:
    """What data workers load, in order.

    Args:
        begin: number of an item -> an iterator of a `DataLoader` from that item on, with new workers.
        workers: how many it has.

    Raises:
        WavasrError: they are killed again and again, or what one of them met.
    """
    number, tries, items = 0, 0, _with_own_signals(functools.partial(begin, 0))
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (RuntimeError, EOFError, OSError) as error:
            tries += 1
            _tell_killed(error, tries, workers)
            del items
            items = _with_own_signals(functools.partial(begin, number))
            continue
        except WavasrError as error:
            said = str(error.args[0])
            if not said.startswith(_CAUGHT):
                raise
            raise type(error)(said.rstrip().rpartition("Error: ")[2]) from None  # without the worker's traceback
        tries, number = 0, number + 1
        yield item


def _with_own_signals(begin: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """Begin, and keep this process's signal handler."""
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    items = begin()
    if handler is not None and threading.current_thread() is threading.main_thread():
        # torch's own would raise wherever this process happens to be; `next` finds dead workers too.
        signal.signal(signal.SIGCHLD, handler)
    return items


def _tell_killed(error: Exception, tries: int, workers: int) -> None:
    """Raise what is no killed worker; a killed one's work is done again by new ones."""
    gone = "DataLoader worker" in str(error) if isinstance(error, RuntimeError) else workers > 0
    if not gone or str(error).startswith(_CAUGHT):  # which is what a living worker met
        raise error
    if tries >= _MOST_TRIES:
        raise WavasrError(
            "data workers are killed again and again, most likely for want of memory; lower data.workers, "
            "data.cache_mb or data.batch_s"
        ) from error
    log.warning("a data worker was killed, most likely for want of memory; new ones do its work again")
