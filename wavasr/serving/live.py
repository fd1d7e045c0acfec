"""A live session of any protocol: samples in, events out, within the server's limits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from wavasr.recognition.stream import Event
from wavasr.serving.pool import Session
from wavasr.serving.settings import Limits
from wavasr.serving.state import State
from wavasr.serving.worker import Options

Floats = NDArray[np.float32]
Emit = Callable[[Event], Awaitable[None]]


class LimitReached(Exception):  # noqa: N818 - an answer to clients, not a mistake
    """A session is longer, or further ahead of the recogniser, than the server allows."""


class Live:
    """Feeds one session. What arrives while the recogniser is busy is fed in one piece, so that it catches up.

    Args:
        session: of the worker pool.
        sample_rate: of the samples that are pushed.
        emit: called with each event, in order.
        limits: of the server.
    """

    def __init__(self, session: Session, sample_rate: int, emit: Emit, limits: Limits) -> None:
        self._session = session
        self._rate = sample_rate
        self._emit = emit
        self._limits = limits
        self._pieces: list[Floats] = []
        self._waiting_samples = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._began_s = time.monotonic()
        self._feeding = asyncio.create_task(self._feed())
        self.samples = 0

    @property
    def audio_s(self) -> float:
        """Seconds of audio that were pushed."""
        return self.samples / self._rate

    def push(self, samples: Floats) -> None:
        """Take (S,) samples; they are recognised in the background.

        Raises:
            LimitReached: the session is too long, or the recogniser too far behind.
            Exception: what went wrong with samples that were pushed before.
        """
        if self._feeding.done():
            self._feeding.result()
        if time.monotonic() - self._began_s > self._limits.session_s:
            raise LimitReached(f"a session may last {self._limits.session_s:g} s")
        if self._waiting_samples > self._limits.backlog_s * self._rate:
            raise LimitReached(f"more than {self._limits.backlog_s:g} s of audio wait to be recognised; send slower")
        if len(samples):
            self.samples += len(samples)
            self._waiting_samples += len(samples)
            self._pieces.append(samples)
            self._idle.clear()
            self._arrived.set()

    async def finish(self) -> None:
        """Recognise all that was pushed and emit what is left; a new utterance may follow."""
        await self._until_idle()
        for event in await self._session.finish():
            await self._emit(event)

    async def discard(self) -> None:
        """Forget all that was pushed since the last `finish`, without events; a new utterance may follow."""
        self._forget_waiting()
        await self._until_idle()
        await self._session.finish()

    async def close(self) -> None:
        """End the session; safe to call twice."""
        self._feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):  # it was raised where it matters, by `push`
            await self._feeding
        await self._session.close()

    async def _until_idle(self) -> None:
        waiting = asyncio.create_task(self._idle.wait())
        await asyncio.wait({waiting, self._feeding}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._feeding.done():
            self._feeding.result()

    async def _feed(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._pieces:
                samples = np.concatenate(self._pieces)
                self._forget_waiting()
                for event in await self._session.feed(samples):
                    await self._emit(event)
            self._idle.set()

    def _forget_waiting(self) -> None:
        self._pieces.clear()
        self._waiting_samples = 0


@contextlib.asynccontextmanager
async def live_session(state: State, route: str, options: Options, sample_rate: int, emit: Emit) -> AsyncIterator[Live]:
    """A session that is closed at the end of the block, whatever happens, and whose audio is counted.

    Args:
        state: of the server.
        route: the session's name in the metrics.
        options: what the client chose.
        sample_rate: of its samples.
        emit: called with each event, in order.

    Raises:
        Busy: the server has as many sessions as it allows.
    """
    live = Live(await state.pool.open(options, sample_rate), sample_rate, emit, state.settings.limits)
    try:
        yield live
    finally:
        state.metrics.audio_s[route] += live.audio_s
        await live.close()
