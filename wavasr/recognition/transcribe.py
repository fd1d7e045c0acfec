"""Recordings to their texts: a file is a stream that ends, of which only the end matters.

file -> pieces of samples -> stretches -> decoder -> words -> Transcript
        (P,)                 (t, V)       (in workers)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from wavasr.audio.arrays import is_recording, pieces_of
from wavasr.audio.reading import Samples, Source, audio_duration_s, stream_audio
from wavasr.decoding.config import DEFAULT, DecodingConfig
from wavasr.decoding.decoder import Decoder
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.greedy import Hypothesis
from wavasr.decoding.times import Word
from wavasr.errors import WavasrError
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.chunks import seconds_of
from wavasr.recognition.models import calibration_of, name_of, opened
from wavasr.recognition.stretches import Stretch, Stretches, accepted, joined, sureness, words_of
from wavasr.recognition.workers import Pending, Workers

T = TypeVar("T")
OnError = Callable[[Any, Exception], None]

PIECE_S = 10.0
_SEGMENT_PAUSE_S = 0.5
_STREAM = "-"


@dataclass(frozen=True)
class Alternative:
    """One of the n best: its text, its score in nats (comparable within a recording), and its confidence."""

    text: str
    score: float
    confidence: float | None


@dataclass(frozen=True)
class Segment:
    """What was said between two pauses."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording.

    Attributes:
        file: the recording as it was named; "-" for a stream.
        duration_s: seconds of audio.
        text: what was said, in the spelling that the model was trained on; "" where nothing was.
        confidence: mean confidence of the words, 0 to 1; None where nothing was said.
        words: each with its times and confidence (with phone units: the phones).
        model: the name of the model that recognised it.
        alternatives: the n best, this text first, where they were asked for.
    """

    file: str
    duration_s: float
    text: str
    confidence: float | None
    words: tuple[Word, ...]
    model: str
    alternatives: tuple[Alternative, ...] = ()

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The text between pauses of half a second."""
        found: list[list[Word]] = []
        for word in self.words:
            if not found or word.start_s - found[-1][-1].end_s >= _SEGMENT_PAUSE_S:
                found.append([])
            found[-1].append(word)
        return tuple(Segment(one[0].start_s, one[-1].end_s, " ".join(word.word for word in one)) for one in found)

    @property
    def tiers(self) -> Mapping[str, tuple[Word, ...]]:
        """What a TextGrid shows, by name."""
        return {"words": self.words}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: file, duration_s, text, confidence, segments, words (word, start_s, end_s, confidence), model.

        Segments are id, start, end and text, as whisper writes them. And the alternatives (text, score, confidence)
        where there are any.
        """
        rounded: dict[str, Any] = asdict(self)
        rounded["duration_s"] = round(self.duration_s, 3)
        rounded["confidence"] = None if self.confidence is None else round(self.confidence, 4)
        for name in ("words", "alternatives"):
            rounded[name] = [rounded_values(entry) for entry in rounded[name]]
        if not self.alternatives:
            del rounded["alternatives"]
        segments = [
            {"id": number, "start": round(one.start_s, 3), "end": round(one.end_s, 3), "text": one.text}
            for number, one in enumerate(self.segments)
        ]
        at = list(rounded).index("words")
        return dict([*list(rounded.items())[:at], ("segments", segments), *list(rounded.items())[at:]])


def rounded_values(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Times as exact as the recording's duration is told, or the last word would end after it; other numbers finer."""
    return {
        key: round(value, 3 if key.endswith("_s") else 4) if isinstance(value, float) else value
        for key, value in entry.items()
    }


def transcribe(
    source: Source | npt.ArrayLike,
    model: AcousticModel | str | Path = "default",
    *,
    sample_rate: int | None = None,
    decoder: DecodingConfig | Decoder = DEFAULT,
    model_name: str = "",
    progress: bool = False,
) -> Transcript:
    """Recognise one recording of any length.

    What is read is kept for the next call, and read again when its files have changed: the language model and the words
    as long as the model, a model given by its file or name until another one is.

    Args:
        source: a path, "-" for standard input, the bytes of a file, a binary stream; or samples, (S,) float in [-1, 1]
            or int16.
        sample_rate: of samples, in Hz; files tell theirs.
        model: a loaded model, a model file, or the name of a shipped model.
        decoder: how log-probabilities become text: a configuration (what it leaves open is as the model file says, see
            `DecodingConfig.lm`), or what `decoding.factory.decoder_of` returns.
        model_name: what the transcript calls the model; by default its file or shipped name.
        progress: show a bar on stderr when it takes more than two seconds.

    Raises:
        AudioError: the recording cannot be read.
        ModelError: the model cannot be loaded, or its output is not a number.
        ConfigError: the parts of the configuration do not fit together or the model.
        TextError: the language model is damaged.
    """
    if is_recording(source) and sample_rate is None:
        return next(transcribe_many([source], model, decoder=decoder, model_name=model_name, progress=progress))
    acoustic = opened(model)
    pieces = pieces_of(source, sample_rate, acoustic.sample_rate, PIECE_S)
    decode = decoder_of(decoder, acoustic)
    return _begun(_STREAM, pieces, acoustic, decode, Workers(decode), model_name or name_of(model))()


def transcribe_many(
    sources: Iterable[Source],
    model: AcousticModel | str | Path = "default",
    on_error: OnError | None = None,
    *,
    decoder: DecodingConfig | Decoder = DEFAULT,
    model_name: str = "",
    progress: bool = False,
    processes: int = 0,
) -> Iterator[Transcript]:
    """Recognise recordings one after another, in their order, with one model.

    Args:
        sources: as in `transcribe`.
        model: as in `transcribe`; loaded once.
        on_error: called with the source and the error when a recording fails; the others are still done. None: the
            error is raised.
        decoder: as in `transcribe`.
        model_name: as in `transcribe`.
        progress: as in `transcribe`.
        processes: workers that decode while this process runs the network, see `workers.usable_processes`; 0: none.
    """
    acoustic = opened(model)
    name = model_name or name_of(model)
    decode = decoder_of(decoder, acoustic)
    waiting: deque[tuple[Source, Callable[[], Transcript]]] = deque()
    processes = processes if decode.is_search else 0
    with Workers(decode, processes) as workers:

        def finished() -> Iterator[Transcript]:
            source, finish = waiting.popleft()
            try:
                yield finish()
            except (WavasrError, OSError) as error:
                if on_error is None:
                    raise
                on_error(source, error)

        for source in sources:
            pieces = stream_audio(source, acoustic.sample_rate, PIECE_S)
            pieces = _with_bar(pieces, source, acoustic.sample_rate) if progress else pieces
            waiting.append((source, _begun(source, pieces, acoustic, decode, workers, name)))
            while len(waiting) > 2 * processes:
                yield from finished()
        while waiting:
            yield from finished()


def _begun(
    source: Source,
    pieces: Iterable[Samples],
    model: AcousticModel,
    decode: Decoder,
    workers: Workers[Hypothesis],
    name: str,
) -> Callable[[], Transcript]:
    """Read a recording and have it decoded; what is returned waits for that, and raises what went wrong."""
    stretches = Stretches(model, decode)
    failure: Exception | None = None
    parts: list[tuple[int, Pending[Hypothesis]]] = []  # with the first frame of each
    try:
        for stretch in stretches_of(pieces, stretches):
            parts.append((stretch.first, workers.submit(stretch.values)))
    except (WavasrError, OSError) as error:
        failure = error

    def finish() -> Transcript:
        if failure is not None:
            raise failure
        found = [(first, pending.result()) for first, pending in parts] if stretches.audible else []
        duration_s = stretches.samples / model.sample_rate
        return Transcript(file_name(source), duration_s, model=name, **_said(found, duration_s, model, decode))

    return finish


def stretches_of(pieces: Iterable[Samples], stretches: Stretches) -> Iterator[Stretch]:
    """The stretches of a whole recording, given in pieces."""
    for piece in pieces:
        yield from stretches.push(piece)
    yield from stretches.push(np.zeros(0, np.float32), last=True)


def recognise(
    model: AcousticModel, waveforms: Sequence[Samples], decoder: DecodingConfig | Decoder = DEFAULT
) -> list[Hypothesis]:
    """Recognise several waveforms, each as if it were alone.

    Args:
        model: in eval mode.
        waveforms: (S,) float32 each, at the model's rate.
        decoder: as in `transcribe`.
    """
    decode = decoder_of(decoder, model)
    return [joined(parts, model.units) for parts in decoded(model, waveforms, decode, Workers(decode))]


def decoded(model: AcousticModel, waveforms: Sequence[Samples], decoder: Decoder, workers: Workers[T]) -> list[list[T]]:
    """What the workers make of the stretches of each waveform; nothing where there is no sound.

    Args:
        model: in eval mode.
        waveforms: as in `recognise`.
        decoder: whose configuration says what it wants of a recording.
        workers: that decode, or do something else with the log-probabilities.
    """
    begun: list[list[Pending[T]]] = []
    for waveform in waveforms:
        stretches = Stretches(model, decoder)
        begun.append([workers.submit(stretch.values) for stretch in stretches_of([waveform], stretches)])
        if not stretches.audible:
            begun[-1].clear()
    return [[part.result() for part in parts] for parts in begun]


def _said(
    found: Sequence[tuple[int, Hypothesis]], duration_s: float, model: AcousticModel, decode: Decoder
) -> dict[str, Any]:
    calibration = calibration_of(model, decode)
    kept = [(first, accepted(one, decode, model, calibration)) for first, one in found]
    words = tuple(
        word for first, one in kept for word in words_of(one, model, calibration, seconds_of(first, model), duration_s)
    )
    whole = joined([one for _, one in kept], model.units)
    return {
        "text": whole.text(model.units),
        "confidence": sureness(words),
        "words": words,
        "alternatives": tuple(
            Alternative(one.text(model.units), one.score, sureness(words_of(one, model, calibration)))
            for one in whole.alternatives
        ),
    }


def _with_bar(pieces: Iterable[Samples], source: Source, sample_rate: int) -> Iterator[Samples]:
    known = isinstance(source, Path) or (isinstance(source, str) and source != _STREAM)
    total = audio_duration_s(source) if known and isinstance(source, Path | str) else None
    with tqdm(total=total and round(total), unit="s", desc=file_name(source), delay=2.0, leave=False) as bar:
        for piece in pieces:
            yield piece
            bar.update(round(len(piece) / sample_rate))


def file_name(source: Source) -> str:
    """What a source is called; "-" where nobody knows."""
    if isinstance(source, Path | str):
        return str(source)
    name = getattr(source, "name", _STREAM)
    return name if isinstance(name, str) and not name.startswith("<") else _STREAM
