"""A process that recognises: live streams first, and beside them one upload, piece by piece.

Where time is short, samples wait a little, since a few large pieces take less of it than many small ones; meanwhile the
searches go on, so that little is left for final texts, and only then partial texts are made.

server                         worker
Open, Feed, Finish, Close  ->  a stream of the recogniser for each live session
Upload, Speak, Close       ->  recordings and texts, which are recognised or said in pieces of a few seconds
                           <-  Answer: the events of one message, or the reason why there are none
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.reading import stream_audio
from wavasr.decoding.config import DecodingConfig
from wavasr.errors import AudioError, WavasrError
from wavasr.network.runtime import multiply_on_one_thread
from wavasr.recognition.models import opened
from wavasr.recognition.stream import Event, Stream
from wavasr.recognition.workers import show_warnings

PROMPT_S = 0.1  # that samples waited here at most where their partial text is made at once
PATIENCE_S = 0.5  # that samples wait while there is other work
LATE_S = 1.0  # that they waited: there is too much to do even without partial texts
BEHIND_S = 1.0  # of speech that is not searched: before partial texts its search goes on
IDLE_S = 1.0  # after which memory that is free goes back to the system
PIECE_S = 5.0  # of an upload: live sessions wait at most as long as recognising that takes


@dataclass(frozen=True)
class Options:
    """What a client may choose: a model by its path, phrases to expect, and whether to leave out what is not speech."""

    model: str
    hotwords: tuple[str, ...] = ()
    voice_activity: bool = True


@dataclass(frozen=True)
class Open:
    """Begin a live session whose samples have this rate."""

    id: int
    options: Options
    sample_rate: int


@dataclass(frozen=True)
class Feed:
    """More samples of a live session: (S,) float32, sent at `sent_s` of the clock `time.monotonic`."""

    id: int
    samples: NDArray[np.float32]
    sent_s: float


@dataclass(frozen=True)
class Finish:
    """The samples of a live session are complete; what follows begins a new utterance."""

    id: int


@dataclass(frozen=True)
class Close:
    """Forget a live session or an upload, whatever its state."""

    id: int


@dataclass(frozen=True)
class Upload:
    """A whole recording: the bytes of a file, of at most so many seconds."""

    id: int
    options: Options
    content: bytes
    longest_s: float


@dataclass(frozen=True)
class Speak:
    """A text to say, with a voice by its path or shipped name."""

    id: int
    text: str
    voice: str
    rate: float


@dataclass(frozen=True)
class Answer:
    """What came of one message.

    Attributes:
        id: of the session or upload; -1: the worker is ready, or could not start.
        events: what was recognised.
        done: whether no further answer to this message comes.
        late: whether the samples had to wait for long.
        duration_s: seconds of audio so far.
        sound: (S,) float32, of a text that is said.
        sample_rate: of the sound.
        error: why it failed; "" if it did not.
        is_client_error: whether the input was at fault.
    """

    id: int
    events: tuple[Event, ...] = ()
    done: bool = True
    late: bool = False
    duration_s: float = 0.0
    sound: NDArray[np.float32] | None = None
    sample_rate: int = 0
    error: str = ""
    is_client_error: bool = False


Message = Open | Feed | Finish | Close | Upload | Speak


def run(connection: Connection, models: tuple[str, ...], log_level: int) -> None:
    """The worker's life: load the models, then answer until the server is gone."""
    show_warnings(log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    os.environ["OMP_NUM_THREADS"] = "1"  # one core each: the workers are as many as there are cores
    multiply_on_one_thread()
    try:
        for model in models:
            Stream(model)
    except WavasrError as error:
        connection.send(Answer(-1, error=str(error), is_client_error=True))
        return
    connection.send(Answer(-1))
    try:
        Worker(connection).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


@dataclass
class _Session:
    """A live session: its stream, how it was opened, and what was made since the last answer, for the next one."""

    stream: Stream
    opened: Open
    made: Answer


class Worker:
    """Answers messages, the samples of live sessions in their order.

    Args:
        connection: to the server.
        clock: the seconds in which messages are dated.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._sessions: dict[int, _Session] = {}
        self._uploads: dict[int, Iterator[Answer]] = {}
        self._feeds: dict[int, Feed] = {}  # samples that wait, of each session once
        self._due: dict[int, None] = {}  # sessions that wait for a partial text, the first for longest
        self._ended: list[Stream] = []  # to forget one takes a while
        self._has_closed = False

    def serve(self) -> None:
        """Answer messages until the server is gone."""
        while True:
            self._receive()
            self.work()

    def work(self) -> None:
        """The samples that wait for longest; while there are none or they may wait, what is due, then an upload."""
        if self._feeds and (not self._due or self._must_feed()):
            feed = self._feeds.pop(next(iter(self._feeds)))
            self._connection.send(_answered(feed.id, partial(self._fed, feed)))
            return
        if self._due:
            self._work_on_due()
        else:
            self._ended.clear()
        if self._uploads and not self._must_feed():
            self._go_on()

    def _receive(self) -> None:
        """Take messages, and wait for one where there is nothing else to do."""
        while self._connection.poll() or not (self._feeds or self._due or self._uploads):
            if self._has_closed and not self._connection.poll(IDLE_S):
                self._has_closed = False
                give_back_memory()
            self._handle(self._connection.recv())

    def _must_feed(self) -> bool:
        oldest = next(iter(self._feeds.values()), None)
        return oldest is not None and self._clock() - oldest.sent_s >= PATIENCE_S

    def _work_on_due(self) -> None:
        """Go on with the search that is most behind, or make the partial text that waits for longest."""
        backlogs = {id: self._sessions[id].stream.backlog_s for id in self._due}
        id = max(backlogs, key=lambda one: backlogs[one])
        is_behind = backlogs[id] >= BEHIND_S
        id = id if is_behind else next(iter(self._due))
        session = self._sessions[id]
        work = session.stream.advance if is_behind else session.stream.partial
        answer = _answered(id, lambda: Answer(id, (*session.made.events, *work())))
        if answer.error or not is_behind:
            del self._due[id]
        session.made = answer

    def _go_on(self) -> None:
        """A piece of the oldest upload."""
        id, pieces = next(iter(self._uploads.items()))
        answer = _answered(id, partial(next, pieces))
        if answer.done:
            del self._uploads[id]
        self._connection.send(answer)

    def _handle(self, message: Message) -> None:
        match message:
            case Upload():
                self._uploads[message.id] = _recognised(message)
            case Speak():
                self._uploads[message.id] = _spoken(message)
            case Close():
                self._has_closed = True
                for held in (self._sessions, self._uploads, self._feeds, self._due):
                    held.pop(message.id, None)
            case Feed():
                self._feeds[message.id] = message
            case Open():
                self._connection.send(_answered(message.id, lambda: self._opened(message)))
            case Finish():
                self._connection.send(_answered(message.id, lambda: self._finished(message)))

    def _opened(self, message: Open) -> Answer:
        stream = _stream(message.options, message.sample_rate)
        self._sessions[message.id] = _Session(stream, message, Answer(message.id))
        return Answer(message.id)

    def _fed(self, feed: Feed) -> Answer:
        session = self._sessions[feed.id]
        made, session.made = session.made, Answer(feed.id)
        if made.error:
            return made
        waited_s = self._clock() - feed.sent_s
        events = session.stream.feed(feed.samples, partial=waited_s <= PROMPT_S and not self._due)
        if session.stream.partial_is_due:
            self._due.setdefault(feed.id)
        return Answer(feed.id, (*made.events, *events), late=waited_s > LATE_S)

    def _finished(self, message: Finish) -> Answer:
        session = self._sessions[message.id]
        self._due.pop(message.id, None)
        events = (*session.made.events, *session.stream.finish())
        self._ended.append(session.stream)
        self._opened(session.opened)
        return Answer(message.id, events)


def _stream(options: Options, sample_rate: int, partials: bool = True) -> Stream:
    return Stream(
        options.model,
        sample_rate,
        decoder=DecodingConfig(hotwords=options.hotwords, vad=options.voice_activity),
        partials=partials,
    )


def _recognised(upload: Upload) -> Iterator[Answer]:
    """One answer for each piece; the last one is done."""
    rate = opened(upload.options.model).sample_rate
    stream = _stream(upload.options, rate, partials=False)
    samples = 0
    for piece in stream_audio(upload.content, rate, PIECE_S):
        samples += len(piece)
        if samples > upload.longest_s * rate:
            raise AudioError(f"the recording is longer than {upload.longest_s:g} s, the limit of this server")
        yield Answer(upload.id, tuple(stream.feed(piece)), done=False, duration_s=samples / rate)
    yield Answer(upload.id, tuple(stream.finish()), duration_s=samples / rate)


def _spoken(message: Speak) -> Iterator[Answer]:
    """One answer for each half second of sound; the last one is done."""
    from wavasr.generation.speaking import reader_of

    reader = reader_of(message.voice)
    samples = 0
    for block in reader.blocks(message.text, rate=message.rate):
        samples += len(block)
        seconds = samples / reader.sample_rate
        yield Answer(message.id, done=False, duration_s=seconds, sound=block, sample_rate=reader.sample_rate)
    yield Answer(message.id, duration_s=samples / reader.sample_rate, sample_rate=reader.sample_rate)


def give_back_memory() -> None:
    """Return what was freed to the system: a search takes some 3 MB for a second of speech, and glibc keeps them."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _answered(id: int, work: Callable[[], Answer]) -> Answer:
    """What some work gives, or why it failed: no request ends the worker."""
    try:
        return work()
    except WavasrError as error:
        return Answer(id, error=str(error), is_client_error=True)
    except Exception as error:  # a bug: this request fails, the others go on
        return Answer(id, error=f"{type(error).__name__}: {error}")
