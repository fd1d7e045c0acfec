"""A worker that is behind leaves out partial texts, and one that always is takes no more sessions."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wavasr.audio.reading import load_audio
from wavasr.recognition.stream import Partial
from wavasr.serving.pool import Busy, Pool, Session, _Process
from wavasr.serving.worker import Answer, Feed, Open, Options, _Worker


@pytest.fixture
def asked() -> Callable[[Any], Answer]:
    """Sends a message to a worker of this process; its answer."""
    ours, theirs = Pipe()
    worker = _Worker(theirs)

    def ask(message: Any) -> Answer:
        worker._handle(message)
        answer: Answer = ours.recv()
        return answer

    return ask


def test_samples_that_waited_get_no_partial_text(asked: Callable[[Any], Answer], repository: Path) -> None:
    speech = load_audio(repository / "data" / "samples" / "plain-sentence.flac")[:32000]
    for id, sent_s, late in ((0, math.inf, False), (1, 0.0, True)):
        assert not asked(Open(id, Options("default"), 16000)).error
        answer = asked(Feed(id, speech, sent_s))
        assert answer.late == late and any(isinstance(event, Partial) for event in answer.events) != late


def test_a_worker_that_is_late_for_everybody_is_full() -> None:
    process = object.__new__(_Process)
    process.sessions, process._late = 3, 0.0
    for _ in range(100):
        process.note(True)
    assert not process.is_full  # for a moment only
    for _ in range(100):
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
