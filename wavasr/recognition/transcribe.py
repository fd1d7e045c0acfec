"""From a recording to its text, top down:

    recording -> pieces of samples -> windows -> network -> log-probabilities -> stretches -> decoder -> words
      file          (P,)               (W,)                     (T, V)             (t, V)

A window is a chunk with as many samples before and after it as a frame sees, so the log-probabilities are those of one
pass over the whole recording. The decoder gets stretches that end in a blank. Neither keeps what it has dealt with, so
memory does not grow with the recording.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavasr.audio.augment import change_speed
from wavasr.audio.reading import Samples, Source, audio_duration_s, stream_audio
from wavasr.decoding.confidence import ConfidenceMap, mean
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.greedy import Hypothesis, LogProbs, as_array, greedy, penalised, prefix_beam, priors_of
from wavasr.decoding.search import LMDecoder, complete, lm_decoder
from wavasr.decoding.times import Word, word_times
from wavasr.errors import ConfigError, WavasrError
from wavasr.network.files import resolve
from wavasr.network.inference import FastModel
from wavasr.network.runtime import AcousticModel, Cache, cache_of, stamp
from wavasr.recognition.workers import Pending, Versions, Workers

T = TypeVar("T")
Floats = NDArray[np.float32]
Decode = Callable[[Any], Hypothesis]  # (T, V) log-probabilities; with `is_thorough` several versions of them
OnError = Callable[[Any, Exception], None]
Decoder = Literal["greedy", "beam"] | DecodingConfig | Decode

DEFAULT_DECODER = DecodingConfig()
CHUNK_S = 20.0
PIECE_S = 10.0
OTHER_SPEEDS = 0.95, 1.05  # at which a thorough decoder has a recording heard, besides its own
_STRETCH_S = 30.0
# Below -80 dB of full scale there is nothing but the noise of a converter, whatever the network makes of it.
_SILENCE = 1e-4
_STREAM = "-"
_NOTHING = Hypothesis((), 0.0, (), (), 0)
_OPENED = Cache()

log = logging.getLogger("wavasr")


@dataclass(frozen=True)
class Alternative:
    """One of the n best: its text, its score in nats (comparable within a recording), and its confidence."""

    text: str
    score: float
    confidence: float | None


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording.

    Attributes:
        file: the recording as it was named; "-" for a stream.
        duration_s: seconds of audio.
        text: what was said, in the spelling that the model was trained on; "" where nothing was.
        confidence: mean confidence of the words, 0 to 1; None where nothing was said.
        words: each with its times and confidence (with phone units: the phones).
        model: the name of the model that heard it.
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
    def tiers(self) -> Mapping[str, tuple[Word, ...]]:
        """What a TextGrid shows, by name."""
        return {"words": self.words}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: file, duration_s, text, confidence, words (word, start_s, end_s, confidence), model.

        And the alternatives (text, score, confidence) where there are any.
        """
        rounded: dict[str, Any] = asdict(self)
        rounded["duration_s"] = round(self.duration_s, 3)
        rounded["confidence"] = None if self.confidence is None else round(self.confidence, 4)
        for name in ("words", "alternatives"):
            rounded[name] = [
                {key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()}
                for entry in rounded[name]
            ]
        if not self.alternatives:
            del rounded["alternatives"]
        return rounded


def transcribe(
    source: Source,
    model: AcousticModel | str | Path = "default",
    *,
    decoder: Decoder = DEFAULT_DECODER,
    beam: int = 16,
    model_name: str = "",
    progress: bool = False,
) -> Transcript:
    """Recognise one recording of any length.

    What is read is kept for the next call, and read again when its files have changed: the language model and the words
    as long as the model, a model given by its file or name until another one is.

    Args:
        source: a path, "-" for standard input, the bytes of a file, or a binary stream.
        model: a loaded model, a model file (.wavasr or .onnx), or the name of a shipped model.
        decoder: a `DecodingConfig` with a language model, words, hotwords or n best (what it leaves open lies beside
            the model file, see `DecodingConfig.lm`); "greedy", or "beam" for the prefix beam search, without any; or
            what `decoder_of` returns.
        beam: hypotheses that the prefix beam search keeps.
        model_name: what the transcript calls the model; by default its file or shipped name.
        progress: show a bar on stderr when it takes more than two seconds.

    Raises:
        AudioError: the recording cannot be read.
        ModelError: the model cannot be loaded, or its output is not a number.
        ConfigError: there is no such decoder, or it does not fit the model.
        TextError: the language model is damaged.
    """
    options = {"decoder": decoder, "beam": beam, "model_name": model_name, "progress": progress}
    return next(transcribe_many([source], model, **options))  # type: ignore[arg-type]


def transcribe_many(
    sources: Iterable[Source],
    model: AcousticModel | str | Path = "default",
    on_error: OnError | None = None,
    *,
    decoder: Decoder = DEFAULT_DECODER,
    beam: int = 16,
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
        beam: as in `transcribe`.
        model_name: as in `transcribe`.
        progress: as in `transcribe`.
        processes: workers that decode while this process listens, see `workers.usable_processes`; 0: none.
    """
    recognizer = opened(model)
    name = model_name or name_of(model)
    decode = decoder_of(decoder, beam, recognizer)
    waiting: deque[tuple[Source, Callable[[], Transcript]]] = deque()
    processes = worth_workers(decode, processes)
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
            waiting.append((source, _begun(source, recognizer, decode, workers, name, progress)))
            while len(waiting) > 2 * processes:
                yield from finished()
        while waiting:
            yield from finished()


def _begun(
    source: Source, model: AcousticModel, decode: Decode, workers: Workers[Hypothesis], name: str, progress: bool
) -> Callable[[], Transcript]:
    """Listen to a recording and have it decoded; what is returned waits for that, and raises what went wrong."""
    pieces = stream_audio(source, model.sample_rate, PIECE_S)
    meter = Meter(_with_bar(pieces, source, model.sample_rate) if progress else pieces)
    failure: Exception | None = None
    parts: list[Pending[Hypothesis]] = []
    try:
        parts.extend(map(workers.submit, _heard(model, meter, is_thorough(decode))))
    except (WavasrError, OSError) as error:
        failure = error

    def finish() -> Transcript:
        if failure is not None:
            raise failure
        hypothesis = joined([part.result() for part in parts])
        return Transcript(
            file=file_name(source),
            duration_s=meter.samples / model.sample_rate,
            model=name,
            **_said(hypothesis if meter.audible else _NOTHING, model, calibration_of(model, decode)),
        )

    return finish


def worth_workers(decode: Decode, processes: int) -> int:
    """So many workers as are offered for a search with words or a language model; none for what takes no time."""
    return processes if isinstance(decode, LMDecoder) else 0


def is_thorough(decode: Decode) -> bool:
    """Whether a decoder wants to have recordings heard at several speeds."""
    return isinstance(decode, LMDecoder) and decode.thorough


def opened(model: AcousticModel | str | Path) -> AcousticModel:
    """A loaded model as it is; one that is named loaded, and kept until another one is.

    Raises:
        ModelError: it cannot be loaded.
    """
    if not isinstance(model, str | Path):
        return model
    path = resolve(model)
    return _OPENED.get("model", (path, stamp(path)), lambda: load_acoustic_model(path))


def load_acoustic_model(model: str | Path) -> AcousticModel:
    """A model file, an exported model, or the shipped model of that name, to run without torch.

    Raises:
        ModelError: it cannot be loaded.
    """
    return FastModel(model)


def recognise(model: AcousticModel, waveforms: Sequence[Samples], decode: Decode = greedy) -> list[Hypothesis]:
    """Recognise several waveforms in one batch (long ones by themselves, in chunks); each as if it were alone.

    Args:
        model: in eval mode.
        waveforms: (S,) float32 each, at the model's rate.
        decode: (T, V) log-probabilities to a hypothesis.
    """
    return [joined(parts) for parts in decoded(model, waveforms, Workers(decode), is_thorough(decode))]


def decoded(
    model: AcousticModel, waveforms: Sequence[Samples], workers: Workers[T], thorough: bool = False
) -> list[list[T]]:
    """What the workers make of the stretches of each waveform, as in `recognise`; nothing where there is no sound."""
    longest = 0 if thorough else Plan.of(model).window
    short = [i for i, waveform in enumerate(waveforms) if 0 < len(waveform) <= longest]
    outputs = dict(zip(short, _forward(model, [waveforms[i] for i in short]), strict=True)) if short else {}
    begun: list[list[Pending[T]]] = []
    for i, waveform in enumerate(waveforms):
        heard: Iterable[Versions] = _heard(model, [waveform], thorough)
        if i in outputs:
            heard = stretches([outputs[i]], _stretch_frames(model))
        audible = is_audible(waveform)
        begun.append([workers.submit(part) for part in heard if audible])
    return [[part.result() for part in parts] for parts in begun]


def decoder_of(decoder: Decoder, beam: int = 16, model: AcousticModel | None = None) -> Decode:
    """A decoder, named or configured, as a function of (T, V) log-probabilities.

    Args:
        decoder: as in `transcribe`.
        beam: as in `transcribe`.
        model: whose output is decoded; only a `DecodingConfig` needs it.

    Raises:
        ConfigError: there is none, the beam is empty, or the parts of the configuration do not fit together.
        TextError: the language model is damaged.
    """
    if isinstance(decoder, DecodingConfig):
        return _configured(decoder, model)
    if not isinstance(decoder, str):
        return decoder
    if decoder == "greedy":
        return greedy
    if decoder != "beam":
        raise ConfigError(f"decoder is {decoder!r}; expected greedy or beam")
    if beam < 1:
        raise ConfigError(f"beam is {beam}; expected at least 1")
    return lambda log_probs: prefix_beam(log_probs, beam)[0]


def _configured(config: DecodingConfig, model: AcousticModel | None) -> Decode:
    if model is not None:
        config = complete(config, model.file)
    if config.searches:
        if model is None:
            raise ConfigError("a decoder with a language model or hotwords needs the model whose output it decodes")
        priors = priors_of(model.metadata, len(model.units))
        if found := lm_decoder(config, model.units, model.text, cache_of(model), priors):
            return found
    if config.thorough:
        log.warning("thorough: there are no words and no language model to choose by; going on with one speed")
    penalty = config.blank_penalty or 0.0
    if not config.beam and config.n_best == 1:
        return (lambda log_probs: greedy(penalised(log_probs, penalty))) if penalty else greedy
    beam, n_best = config.beam or max(16, config.n_best), config.n_best

    def decode(log_probs: LogProbs) -> Hypothesis:
        found = prefix_beam(penalised(log_probs, penalty), beam, n_best)
        return replace(found[0], alternatives=tuple(found)) if n_best > 1 else found[0]

    return decode


# Samples to log-probabilities -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How long audio is cut, in samples, all multiples of the hop.

    |- before -|------------ chunk ------------|- after -|      a window; its chunk's frames are kept
                                    |- before -|------------ chunk ------------|- after -|
    """

    before: int
    chunk: int
    after: int

    @classmethod
    def of(cls, model: AcousticModel) -> Plan:
        """The plan of a model: its receptive field around chunks of about 20 s."""
        hop = model.hop_samples
        before, after = (math.ceil(samples / hop) * hop for samples in model.receptive_field)
        return cls(before, math.ceil(CHUNK_S * model.sample_rate / hop) * hop, after)

    @property
    def window(self) -> int:
        """Samples that the network gets at once."""
        return self.before + self.chunk + self.after


def log_probs_of(model: AcousticModel, waveform: Samples) -> Floats:
    """Log-probabilities of one waveform of any length: (S,) float32 at the model's rate -> (T, V), as in one pass."""
    parts = list(stream_log_probs(model, [waveform]))
    return np.concatenate(parts) if parts else np.zeros((0, len(model.units)), np.float32)


def stream_log_probs(model: AcousticModel, pieces: Iterable[Samples]) -> Iterator[Floats]:
    """Log-probabilities of a stream of samples: the (t, V) that this yields, joined, are those of one pass.

    Args:
        model: in eval mode.
        pieces: consecutive stretches of one recording, each (P,) float32 of any length, at the model's rate.
    """
    plan, hop = Plan.of(model), model.hop_samples
    held = np.zeros(0, dtype=np.float32)
    known = 0  # frames at the start of what is held that have been yielded
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) > plan.window:
            yield _forward(model, [held[: plan.window]])[0][known : (plan.window - plan.after) // hop]
            held, known = held[plan.chunk :], plan.before // hop
    if len(held):
        yield _forward(model, [held])[0][known:]


def _heard(model: AcousticModel, pieces: Iterable[Samples], thorough: bool) -> Iterator[Versions]:
    """The stretches of a recording as a decoder gets them: (t, V), with `thorough` at all speeds, its own first."""
    held = np.zeros(0, dtype=np.float32)

    def passed() -> Iterator[Samples]:
        nonlocal held
        for piece in pieces:
            held = np.concatenate([held, piece])
            yield piece

    least = _stretch_frames(model)
    if not thorough:
        yield from stretches(stream_log_probs(model, pieces), least)
        return
    for values in stretches(stream_log_probs(model, passed()), least):
        own, held = np.split(held, [len(values) * model.hop_samples])
        yield (values, *(log_probs_of(model, change_speed(own, speed)) for speed in OTHER_SPEEDS))


def _forward(model: AcousticModel, waveforms: Sequence[Samples]) -> list[Floats]:
    """(S_i,) each -> (T_i, V) each."""
    batch = np.zeros((len(waveforms), max(map(len, waveforms))), dtype=np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    lengths = np.array([len(waveform) for waveform in waveforms], dtype=np.int64)
    log_probs, frames = model.infer(batch, lengths)  # (B, T, V), (B,)
    return [values[:count] for values, count in zip(log_probs, frames, strict=True)]


# Log-probabilities to words -------------------------------------------------------------------------------------------


def stretches(log_probs: Iterable[LogProbs], least: int) -> Iterator[Floats]:
    """A stream of (t, V) log-probabilities in stretches of at least `least` frames that end amid blanks.

    Greedy decoding of each gives what it would give of the whole; a beam starts afresh.
    """
    held: Floats | None = None
    for values in map(as_array, log_probs):
        held = values if held is None else np.concatenate([held, values])
        if len(held) >= least and (cut := _amid_blanks(held)):
            yield held[:cut]
            held = held[cut:].copy()
    if held is not None and len(held):
        yield held


def _amid_blanks(log_probs: Floats) -> int:
    """The middle of the longest run of blank frames in the second half; 0 where there is none."""
    start = len(log_probs) // 2
    blank = log_probs[start:].argmax(axis=-1) == 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]]).astype(np.int8)))
    if not len(edges):
        return 0
    firsts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - firsts))
    return start + int(firsts[longest] + ends[longest]) // 2


def joined(parts: Sequence[Hypothesis]) -> Hypothesis:
    """Hypotheses of consecutive stretches as one of the whole, with as many alternatives as the stretches have."""
    best = _concatenated(parts)
    count = max((len(part.alternatives) for part in parts), default=0)
    if not count:
        return best
    ranked: list[tuple[float, tuple[Hypothesis, ...]]] = [(0.0, ())]
    for part in parts:
        longer = [(score + one.score, (*said, one)) for score, said in ranked for one in part.alternatives or (part,)]
        ranked = sorted(longer, key=lambda one: -one[0])[:count]
    return replace(best, alternatives=tuple(_concatenated(said) for _, said in ranked))


def _concatenated(parts: Sequence[Hypothesis]) -> Hypothesis:
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    confidences: list[float] = []
    words: list[tuple[str, int, int]] = []
    frames = 0
    for part in parts:
        words += [(word, first + len(ids), end + len(ids)) for word, first, end in part.words or ()]
        ids += part.ids
        spans += [(first + frames, end + frames) for first, end in part.spans]
        confidences += part.confidences
        frames += part.frames or 0
    score = sum(part.score for part in parts)
    return Hypothesis(tuple(ids), score, tuple(spans), tuple(confidences), frames, tuple(words) or None)


def calibration_of(model: AcousticModel, decode: Decode) -> ConfidenceMap | None:
    """What makes this decoder's confidences probabilities of being right; None where the model does not carry it.

    Raises:
        ModelError: it is damaged.
    """
    return ConfidenceMap.of(model.metadata, calibration_key(decode))


def calibration_key(decode: Decode) -> str:
    """The decoders that share a calibration: "lm" for those with words to choose from, "ctc" for the others."""
    return "lm" if isinstance(decode, LMDecoder) else "ctc"


def words_of(
    hypothesis: Hypothesis, model: AcousticModel, calibration: ConfidenceMap | None = None
) -> tuple[Word, ...]:
    """The words of a hypothesis with their times and, calibrated or not, their confidences."""
    words = word_times(hypothesis, model.units, model.hop_samples / model.sample_rate)
    return tuple(replace(w, confidence=calibration(w.confidence)) if calibration else w for w in words)


def _said(hypothesis: Hypothesis, model: AcousticModel, calibration: ConfidenceMap | None) -> dict[str, Any]:
    def sure(words: Iterable[Word]) -> float | None:
        return mean(word.confidence for word in words)

    words = words_of(hypothesis, model, calibration)
    return {
        "text": hypothesis.text(model.units),
        "confidence": sure(words),
        "words": words,
        "alternatives": tuple(
            Alternative(one.text(model.units), one.score, sure(words_of(one, model, calibration)))
            for one in hypothesis.alternatives
        ),
    }


# Bookkeeping ----------------------------------------------------------------------------------------------------------


class Meter:
    """Passes pieces of samples on, counts them, and notes whether there is anything to hear."""

    def __init__(self, pieces: Iterable[Samples]) -> None:
        self._pieces = pieces
        self.samples = 0
        self.audible = False

    def __iter__(self) -> Iterator[Samples]:
        for piece in self._pieces:
            self.samples += len(piece)
            self.audible = self.audible or is_audible(piece)
            yield piece


def is_audible(waveform: Samples) -> bool:
    """Whether any sample is louder than -80 dB of full scale."""
    return bool(len(waveform)) and float(np.abs(waveform).max()) > _SILENCE


def _stretch_frames(model: AcousticModel) -> int:
    return math.ceil(_STRETCH_S * model.sample_rate / model.hop_samples)


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


def name_of(model: AcousticModel | str | Path) -> str:
    """What a model is called: as it was named, or as its file says."""
    return str(model) if isinstance(model, str | Path) else str(model.metadata.get("name", ""))
