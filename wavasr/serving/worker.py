"""A process that recognises: live streams first, and beside them one upload, piece by piece.

server                         worker
Open, Feed, Finish, Close  ->  a stream of the recogniser for each live session
Upload, Cancel             ->  recordings, which are decoded and recognised in pieces of a few seconds
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
from wavasr.recognition.models import opened
from wavasr.recognition.stream import Event, Stream

LATE_S = 0.5  # that samples waited here; their session gets no partial text this time, which saves most of the work
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
        late: whether the samples had to wait so long that no partial text was made.
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


def run(connection: Connection, models: tuple[str, ...]) -> None:
    """The worker's life: load the models, then answer until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    os.environ["OMP_NUM_THREADS"] = "1"  # one core each: the workers are as many as there are cores
    try:
        for model in models:
            Stream(model)
    except WavasrError as error:
        connection.send(Answer(-1, error=str(error), is_client_error=True))
        return
    connection.send(Answer(-1))
    try:
        _Worker(connection).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class _Worker:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._streams: dict[int, tuple[Stream, Open]] = {}
        self._uploads: dict[int, Iterator[Answer]] = {}
        self._has_closed = False

    def serve(self) -> None:
        """Answer messages; while there are none, go on with the oldest upload."""
        while True:
            while not self._uploads or self._connection.poll():
                if self._has_closed and not self._connection.poll(IDLE_S):
                    self._has_closed = False
                    give_back_memory()
                self._handle(self._connection.recv())
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
                self._streams.pop(message.id, None)
                self._uploads.pop(message.id, None)
            case Open():
                self._connection.send(_answered(message.id, lambda: self._opened(message)))
            case Feed():
                self._connection.send(_answered(message.id, lambda: self._fed(message)))
            case Finish():
                self._connection.send(_answered(message.id, lambda: self._finished(message)))

    def _opened(self, message: Open) -> Answer:
        self._streams[message.id] = _stream(message.options, message.sample_rate), message
        return Answer(message.id)

    def _fed(self, message: Feed) -> Answer:
        stream, _ = self._streams[message.id]
        late = time.monotonic() - message.sent_s > LATE_S
        return Answer(message.id, tuple(stream.feed(message.samples, partial=not late)), late=late)

    def _finished(self, message: Finish) -> Answer:
        stream, opened = self._streams[message.id]
        events = tuple(stream.finish())
        self._streams[message.id] = _stream(opened.options, opened.sample_rate), opened
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
