"""The server's side of its workers: who does what, and what happens when one is lost.

A live session stays with one worker, since its state is there. An upload goes to the worker with the least to do; a
worker has one at a time, so that one that is lost loses one, and that one is begun again: the answers that were given
are skipped, since the same recording gives the same answers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import ConfigError, WavasrError
from wavasr.recognition.stream import Event
from wavasr.serving.worker import Answer, Close, Feed, Finish, Message, Open, Options, Speak, Upload, run

START_S = 300.0
STOP_S = 5.0
RESTART_S = 10.0  # after a worker that could not start: the next one would hardly fare better at once
ATTEMPTS = 2
MOST_LATE = 0.1  # share of the recent samples that waited too long: no room for another session; see docs/serving.md
_RECENT = 100  # messages with samples
_PIECE_S = 2.0  # of samples at once, so that other sessions wait no longer than for that

log = logging.getLogger("wavasr")


class Busy(Exception):  # noqa: N818 - an answer to clients, not a mistake
    """There is no room for another request; it may be sent again after some seconds."""

    retry_after_s = 2


class WorkerLost(Exception):  # noqa: N818
    """The process that had the request is gone."""


class BadRequestError(WavasrError):
    """What a client sent cannot be recognised."""


class Pool:
    """Worker processes, as many as asked for at any time.

    Args:
        models: paths or shipped names that every worker loads at start.
        count: processes.
        queue_length: uploads that may wait.
        most_sessions: live sessions at the same time.
    """

    def __init__(self, models: Sequence[str], count: int, queue_length: int, most_sessions: int) -> None:
        self._models = tuple(models)
        self.count = count
        self._queue_length = queue_length
        self._most_sessions = most_sessions
        self._ids = itertools.count()
        self._workers: list[_Process] = []
        self._free = asyncio.Condition()
        self.waiting = 0  # uploads that no worker has begun
        self.sessions = 0
        self.lost = 0  # workers that ended by themselves
        self._stopping = False

    async def start(self) -> None:
        """Start the workers and wait until each has loaded the models.

        Raises:
            ConfigError: a model cannot be loaded.
        """
        self._workers = [_Process(self._models, self._replace) for _ in range(self.count)]
        await asyncio.gather(*(worker.ready() for worker in self._workers))

    async def stop(self) -> None:
        """End the workers; what they have not answered fails."""
        self._stopping = True
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self._workers))

    def _replace(self, lost: _Process) -> None:
        """Start another worker for one that has ended; its sessions and its upload know."""
        if self._stopping:
            return
        self.lost += 1
        if lost.has_started:
            log.warning("a worker process ended (exit code %s); another one starts", lost.exit_code)
            self._renew(lost)
        else:
            reason = lost.failure or f"exit code {lost.exit_code}"
            log.warning("a worker process could not start (%s); another one tries in %g s", reason, RESTART_S)
            asyncio.get_running_loop().call_later(RESTART_S, self._renew, lost)

    def _renew(self, lost: _Process) -> None:
        if self._stopping:
            return
        self._workers[self._workers.index(lost)] = _Process(self._models, self._replace)
        task = asyncio.ensure_future(self._wake())
        task.add_done_callback(lambda done: done.exception())

    async def _wake(self) -> None:
        async with self._free:
            self._free.notify_all()

    @property
    def has_room(self) -> bool:
        """Whether another upload may wait."""
        return self.waiting < self._queue_length

    # Uploads ----------------------------------------------------------------------------------------------------------

    def recognise(self, content: bytes, options: Options, longest_s: float) -> AsyncGenerator[Answer, None]:
        """Recognise a whole recording; yields an answer for each piece. Closing the iterator cancels the work.

        Raises:
            Busy: too many uploads wait.
            BadRequestError: the recording cannot be used.
            WorkerLost: it was begun twice, and both times the worker was lost.
        """
        return self._job(lambda id: Upload(id, options, content, longest_s))

    def speak(self, text: str, voice: str, rate: float) -> AsyncGenerator[Answer, None]:
        """Say a text; yields an answer with sound for each half second, and fails as `recognise` does."""
        return self._job(lambda id: Speak(id, text, voice, rate))

    async def _job(self, make: Callable[[int], Message]) -> AsyncGenerator[Answer, None]:
        given = 0
        for attempt in range(1, ATTEMPTS + 1):
            worker = await self._claimed()
            message = make(next(self._ids))
            number = 0
            try:
                async for answer in worker.ask(message):
                    number += 1
                    if number > given:  # the second time gives what the first did
                        given = number
                        yield answer
                return
            except WorkerLost:
                if attempt == ATTEMPTS:
                    raise
            finally:
                worker.has_upload = False
                worker.tell(Close(message.id))
                await self._wake()

    async def _claimed(self) -> _Process:
        """A worker without an upload, after waiting for one."""
        if not self.has_room:
            raise Busy(f"{self.waiting} recordings wait already")
        self.waiting += 1
        try:
            async with self._free:
                while True:
                    free = [worker for worker in self._workers if worker.is_alive and not worker.has_upload]
                    if free:
                        worker = min(free, key=lambda candidate: candidate.sessions)
                        worker.has_upload = True
                        return worker
                    await self._free.wait()
        finally:
            self.waiting -= 1

    # Live sessions ----------------------------------------------------------------------------------------------------

    async def open(self, options: Options, sample_rate: int) -> Session:
        """Begin a live session with the worker that has the fewest.

        Raises:
            Busy: there are as many as there may be, or as the workers have time for.
        """
        if self.sessions >= self._most_sessions:
            raise Busy(f"{self.sessions} sessions are live already")
        worker = min(self._workers, key=lambda candidate: candidate.sessions)
        if worker.is_full:
            raise Busy(f"{self.sessions} sessions are live already, as many as can be recognised in time")
        session = Session(next(self._ids), worker, self, round(_PIECE_S * sample_rate))
        worker.sessions += 1
        self.sessions += 1
        try:
            await session.request(Open(session.id, options, sample_rate))
        except BaseException:
            await session.close()
            raise
        return session


class Session:
    """A live stream of one client, whose samples go to the worker in pieces of bounded length."""

    def __init__(self, id: int, worker: _Process, pool: Pool, piece: int) -> None:
        self.id = id
        self._worker = worker
        self._pool = pool
        self._piece = piece
        self._closed = False

    async def feed(self, samples: NDArray[np.float32]) -> tuple[Event, ...]:
        """What (S,) more samples give.

        Raises:
            WorkerLost: the worker is gone, and the session with it.
        """
        events: tuple[Event, ...] = ()
        for start in range(0, len(samples), self._piece):
            events += await self.request(Feed(self.id, samples[start : start + self._piece], time.monotonic()))
        return events

    async def finish(self) -> tuple[Event, ...]:
        """What is left; samples that are fed afterwards begin a new utterance."""
        return await self.request(Finish(self.id))

    async def request(self, message: Message) -> tuple[Event, ...]:
        """The events that answer one message."""
        events: tuple[Event, ...] = ()
        async for answer in self._worker.ask(message):
            events += answer.events
            if isinstance(message, Feed):
                self._worker.note(answer.late)
        return events

    async def close(self) -> None:
        """Forget the session; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._worker.sessions -= 1
        self._pool.sessions -= 1
        self._worker.tell(Close(self.id))


class _Process:
    """One worker process, its pipe, and a thread that waits for its answers."""

    def __init__(self, models: tuple[str, ...], on_end: Callable[[_Process], None]) -> None:
        context = get_context("spawn")  # the server has threads, which do not survive a fork
        self._connection, theirs = context.Pipe()
        level = logging.getLogger("wavasr").getEffectiveLevel()
        self._process = context.Process(target=run, args=(theirs, models, level), daemon=True, name="wavasr worker")
        self._process.start()
        theirs.close()
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._answers: dict[int, asyncio.Queue[Answer]] = {-1: asyncio.Queue()}
        self._outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.has_upload = False
        self.sessions = 0
        self._late = 0.0
        self.is_alive = True
        self.has_started = False  # its models are loaded
        self.failure = ""  # why they could not be
        threading.Thread(target=_listen, args=(self._connection, self._loop, self._receive), daemon=True).start()
        threading.Thread(target=_send, args=(self._connection, self._outgoing), daemon=True).start()

    @property
    def exit_code(self) -> int | None:
        """As the process ended; None while it runs."""
        self._process.join(1.0)
        return self._process.exitcode

    def note(self, late: bool) -> None:
        """Samples of a live session were answered; whether they waited too long."""
        self._late += (late - self._late) / _RECENT

    @property
    def is_full(self) -> bool:
        """Whether another live session would make the final texts of all late."""
        return bool(self.sessions) and self._late > MOST_LATE

    async def ready(self) -> None:
        """Wait until the models are loaded.

        Raises:
            ConfigError: one cannot be loaded, that took too long, or the process ended.
        """
        try:
            answer = await asyncio.wait_for(self._answers[-1].get(), START_S)
        except TimeoutError as error:
            raise ConfigError(
                f"no worker was ready after {START_S:g} s; is this machine busy with other work?"
            ) from error
        if answer.error:
            raise ConfigError(answer.error)

    async def ask(self, message: Message) -> AsyncIterator[Answer]:
        """Send a message and yield its answers."""
        if not self.is_alive:
            raise WorkerLost("the recogniser's process ended")
        answers = self._answers.setdefault(message.id, asyncio.Queue())
        self.tell(message)
        while True:
            answer = await answers.get()
            if answer.error == _LOST:
                raise WorkerLost("the recogniser's process ended")
            if answer.error:
                raise BadRequestError(answer.error) if answer.is_client_error else RuntimeError(answer.error)
            yield answer
            if answer.done:
                return

    def tell(self, message: Message) -> None:
        """Send a message that may stay without an answer."""
        if isinstance(message, Close):
            self._answers.pop(message.id, None)
        self._outgoing.put(message)

    def _receive(self, answer: Answer | None) -> None:
        """An answer, or None when the process has ended."""
        if answer is not None:
            if answer.id == -1:
                self.has_started, self.failure = not answer.error, answer.error
            if answer.id in self._answers:  # else nobody waits any more
                self._answers[answer.id].put_nowait(answer)
        elif self.is_alive:
            self.is_alive = False
            self._outgoing.put(None)  # its thread waits for messages that nobody will send
            for id, queue in self._answers.items():
                queue.put_nowait(Answer(id, error=_LOST))
            self._on_end(self)

    def stop(self) -> None:
        """End the process."""
        self._outgoing.put(None)
        self._process.terminate()
        self._process.join(STOP_S)
        if self._process.is_alive():
            self._process.kill()


_LOST = "the worker is lost"


def _send(connection: Connection, outgoing: queue.SimpleQueue[Message | None]) -> None:
    """Write messages in a thread of its own: a pipe takes no more than its reader has room for."""
    while (message := outgoing.get()) is not None:
        try:
            connection.send(message)
        except OSError:  # the reader is gone, which `_listen` notices
            return


def _listen(connection: Connection, loop: asyncio.AbstractEventLoop, receive: Callable[[Answer | None], None]) -> None:
    answer: Answer | None = None
    while True:
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            answer = None
        try:
            loop.call_soon_threadsafe(receive, answer)
        except RuntimeError:  # the loop is closed: the server has stopped
            return
        if answer is None:
            return
