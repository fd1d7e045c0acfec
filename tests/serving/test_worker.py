"""A worker that is behind makes partial texts later, and one that always is takes no more sessions."""

import asyncio
import time
from collections.abc import AsyncIterator
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wavasr.audio.reading import load_audio
from wavasr.recognition.stream import Partial
from wavasr.serving.pool import Busy, Pool, Session, _Process
from wavasr.serving.worker import BEHIND_S, LATE_S, PATIENCE_S, Answer, Close, Feed, Open, Options, Worker


class Asked:
    """A worker of this process, and the time that it takes it to be."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._ours, theirs = Pipe()
        self.worker = Worker(theirs, lambda: self.now_s)
        self.ids = iter(range(9))

    def open(self) -> int:
        id = next(self.ids)
        self.worker._handle(Open(id, Options("default"), 16000))
        answer: Answer = self._ours.recv()
        assert not answer.error
        return id

    def feed(self, id: int, samples: np.ndarray, sent_s: float = 0.0) -> None:
        self.worker._handle(Feed(id, samples, sent_s))

    def answers(self) -> list[Answer]:
        """Those to be had after one turn of the worker."""
        self.worker.work()
        return [self._ours.recv() for _ in iter(self._ours.poll, False)]


@pytest.fixture(scope="module")
def speech(repository: Path) -> np.ndarray:
    return load_audio(repository / "data" / "samples" / "plain-sentence.flac")


def has_partial(answer: Answer) -> bool:
    return any(isinstance(event, Partial) for event in answer.events)


def test_samples_that_waited_get_their_partial_text_with_the_next_ones(speech: np.ndarray) -> None:
    asked = Asked()
    id, other = asked.open(), asked.open()
    asked.feed(other, speech[:24000])
    (answer,) = asked.answers()
    assert has_partial(answer) and not answer.late
    asked.now_s = LATE_S + 0.1
    asked.feed(id, speech[:24000])
    (answer,) = asked.answers()
    assert answer.late and not has_partial(answer)
    assert asked.answers() == []  # the partial text is made
    asked.feed(id, speech[24000:25000], asked.now_s)
    (answer,) = asked.answers()
    assert not answer.late and has_partial(answer)


def test_samples_wait_for_partial_texts_for_a_while(speech: np.ndarray) -> None:
    asked = Asked()
    first, second = asked.open(), asked.open()
    asked.now_s = LATE_S
    asked.feed(first, speech[:24000])
    assert [answer.id for answer in asked.answers()] == [first]
    asked.feed(second, speech[:24000], asked.now_s)
    assert asked.answers() == []  # what is due of the first
    assert [answer.id for answer in asked.answers()] == [second]
    asked.feed(first, speech[24000:40000], asked.now_s - PATIENCE_S)
    asked.worker._due.setdefault(second)
    assert [answer.id for answer in asked.answers()] == [first]


def test_the_search_that_is_most_behind_goes_on_first(speech: np.ndarray) -> None:
    asked = Asked()
    behind, other = asked.open(), asked.open()
    for id, samples in ((other, speech[:20000]), (behind, speech)):
        asked.worker._sessions[id].stream.feed(samples, partial=False)
        asked.worker._due.setdefault(id)
    stream = asked.worker._sessions[behind].stream
    assert stream.backlog_s >= BEHIND_S
    asked.answers()
    assert stream.backlog_s == 0.0 and list(asked.worker._due) == [other, behind]
    asked.answers()
    assert list(asked.worker._due) == [behind] and has_partial(asked.worker._sessions[other].made)


def test_a_closed_session_is_forgotten(speech: np.ndarray) -> None:
    asked = Asked()
    id = asked.open()
    asked.now_s = LATE_S
    asked.feed(id, speech[:24000])
    asked.answers()
    asked.feed(id, speech[24000:], asked.now_s)
    asked.worker._handle(Close(id))
    assert asked.answers() == []


def test_a_worker_that_is_late_for_everybody_is_full() -> None:
    process = object.__new__(_Process)
    process.sessions, process._late = 3, 0.0
    for _ in range(10):
        process.note(True)
    assert not process.is_full  # for a moment only
    process.note(True)
    assert process.is_full
    process.sessions = 0
    assert not process.is_full

    async def opened() -> None:
        pool = Pool(["default"], 1, 1, 64)
        pool._workers = [SimpleNamespace(sessions=3, is_full=True)]  # type: ignore[list-item]
        await pool.open(Options("default"), 16000)

    with pytest.raises(Busy, match="as many as can be recognised in time"):
        asyncio.run(opened())


def test_long_samples_go_to_the_worker_in_pieces() -> None:
    fed: list[int] = []

    class Worker:
        async def ask(self, message: Feed) -> AsyncIterator[Answer]:
            fed.append(len(message.samples))
            yield Answer(message.id)

        def note(self, late: bool) -> None:
            assert not late

    pool = Pool(["default"], 1, 1, 64)
    asyncio.run(Session(0, Worker(), pool, 1000).feed(np.zeros(2500, np.float32)))  # type: ignore[arg-type]
    assert fed == [1000, 1000, 500]


def test_a_worker_that_cannot_start_says_why_and_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wavasr.serving.pool.RESTART_S", 0.5)

    async def claimed() -> None:
        pool = Pool(["missing"], 1, 1, 64)
        first = _Process(("missing",), pool._replace)
        first.has_upload = True
        pool._workers = [first]
        try:
            assert await asyncio.wait_for(pool._claimed(), 120) is not first
            assert time.time() - caplog.records[0].created >= 0.5
            assert pool.lost == 1
        finally:
            await pool.stop()

    asyncio.run(claimed())
    assert "could not start (missing: no such model" in caplog.records[0].getMessage()
