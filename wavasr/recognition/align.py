"""When known words were said: forced alignment of a text, or of phones, to a recording.

The recording's log-probabilities (T, V) and the labels (L,) of the normalised text meet in the most probable path of
these labels, which gives the times of units and words. A model of phones gets them from a lexicon, and the recording
chooses between the pronunciations of a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from wavasr.audio.arrays import is_recording, pieces_of
from wavasr.audio.reading import Samples, Source
from wavasr.corpora.manifest import SILENCE, AlignedPhone, Utterance, report_dropped
from wavasr.corpora.recordings import load_utterance
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.factory import complete
from wavasr.decoding.greedy import Hypothesis
from wavasr.decoding.times import Word, forced_align, unit_times, word_times
from wavasr.decoding.trellis import ctc_log_probs
from wavasr.decoding.wordlist import pronunciations, read_out
from wavasr.errors import AudioError, TextError
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import PHONE_SETS, Lexicon, fold
from wavasr.language.pronunciation import completed
from wavasr.language.text import Units, ctc_frames_needed, normalise
from wavasr.network.runtime import AcousticModel, cache_of, stamp
from wavasr.recognition.chunks import log_probs_of, stream_log_probs
from wavasr.recognition.models import name_of, opened
from wavasr.recognition.stretches import is_audible
from wavasr.recognition.transcribe import PIECE_S, Transcript, file_name, rounded_values

_PAUSE_S = 0.04


@dataclass(frozen=True)
class AlignedText(Transcript):
    """A text and when it was said.

    Confidences are mean probabilities of the labels at their place: low ones show where text and recording differ.

    Attributes:
        text: as the model spells it; numbers and abbreviations that were read out as they are written.
        words: each with its times (with phone units: the phones).
        units: the labels of the words, spaces left out.
        unit_kind: "characters", "phones", "sentencepiece" or "words".
    """

    units: tuple[Word, ...] = ()
    unit_kind: str = "characters"

    @property
    def tiers(self) -> Mapping[str, tuple[Word, ...]]:
        """What a TextGrid shows: words and units, or the units alone where they are the words."""
        if [word.word for word in self.words] == [unit.word for unit in self.units]:
            return {self.unit_kind: self.words}
        return {"words": self.words, self.unit_kind: self.units}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: that of a transcript, with unit_kind and units (unit, start_s, end_s, confidence)."""
        values = super().to_dict()
        values["unit_kind"] = values.pop("unit_kind")
        values["units"] = [{"unit": unit.pop("word"), **rounded_values(unit)} for unit in values.pop("units")]
        return values


def align(
    source: Source | npt.ArrayLike,
    text: str,
    model: AcousticModel | str | Path = "default",
    *,
    sample_rate: int | None = None,
    lexicon: Lexicon | Path | None = None,
    model_name: str = "",
) -> AlignedText:
    """Find when each word of a text was said.

    Exact for recordings of any length; see `forced_align` for what long ones cost. The model and its lexicon are kept
    for the next call, as `transcribe` keeps what it reads.

    Args:
        source: a recording or samples, as in `transcribe`.
        text: what was said; for a phone model without a lexicon phones separated by spaces (TIMIT's are folded into the
            model's set).
        model: a loaded model, a model file, or the name of a shipped model.
        sample_rate: of samples, in Hz; files tell theirs.
        lexicon: for a phone model, how words are pronounced; None: as the model's own lexicon says, `NOTHING`: the
            text is phones. Words that it lacks are pronounced as its own suggest, where it has enough of them.
        model_name: what the result calls the model; by default its file or shipped name.

    Raises:
        TextError: the text is empty, has a symbol that the model lacks, or is too long for the recording.
        AudioError: the recording cannot be read.
        ModelError: the model cannot be loaded, or its output is not a number.
    """
    acoustic = opened(model)
    name = file_name(source if is_recording(source) else "-")
    words: list[Spoken] = []
    lexicon = lexicon if isinstance(lexicon, Lexicon) else lexicon_of(acoustic, lexicon)
    if lexicon:
        words = pronounced(text, acoustic, completed(lexicon, read_out(text, acoustic.text, lexicon)), name)
        ids = _labels(words)
    else:
        ids = labels_of(text, acoustic.units, acoustic.text, name)
    log_probs, samples = _log_probs(pieces_of(source, sample_rate, acoustic.sample_rate, PIECE_S), acoustic, name)
    frame_s, duration_s = acoustic.hop_samples / acoustic.sample_rate, samples / acoustic.sample_rate
    if (needed := ctc_frames_needed(ids)) > len(log_probs):
        raise TextError(
            f"{name}: the text takes at least {needed * frame_s:.2f} s and the recording has {duration_s:.2f} s; "
            "check that they belong together"
        )
    if words:
        ids = _labels(words := chosen(log_probs, words))
    found = _aligned(log_probs, ids, words)
    said = word_times(found, acoustic.units, frame_s)
    timed = tuple(_within(as_written(text, said, acoustic.text, lexicon) if lexicon else said, duration_s))
    return AlignedText(
        file=name,
        duration_s=duration_s,
        text=" ".join(word.word for word in timed) if words else acoustic.units.decode(ids),
        confidence=sum(word.confidence for word in timed) / len(timed),
        words=timed,
        model=model_name or name_of(model),
        units=tuple(_within(unit_times(found, acoustic.units, frame_s), duration_s)),
        unit_kind=acoustic.units.kind,
    )


def _log_probs(pieces: Iterable[Samples], model: AcousticModel, name: str) -> tuple[npt.NDArray[np.float32], int]:
    """The log-probabilities (T, V) of a recording and its samples; a TextError if it is silent."""
    samples, audible = 0, False

    def noted() -> Iterator[Samples]:
        nonlocal samples, audible
        for piece in pieces:
            samples, audible = samples + len(piece), audible or is_audible(piece)
            yield piece

    parts = list(stream_log_probs(model, noted()))
    if not audible:
        raise TextError(f"{name}: is silent, so no text can be aligned; check the recording")
    return np.concatenate(parts), samples


def as_written(text: str, words: Sequence[Word], config: TextConfig, lexicon: Lexicon) -> Iterator[Word]:
    """The words of a text that was read out; what was not said as it is written, such as "Dr.", as it is written.

    Where the same is read otherwise in its place than alone, as in dates, its parts stay together: "May 3, 1999".
    """
    pieces = [(piece, read_out(piece, config, lexicon)) for piece in text.split()]
    alone = [word for _, read in pieces for word in read]
    place: dict[int, int] = {}  # in `words`, of places in `alone`
    for block in SequenceMatcher(None, alone, [word.word for word in words], autojunk=False).get_matching_blocks():
        for offset in range(block.size + 1):
            place.setdefault(block.a + offset, block.b + offset)
    waiting: list[str] = []
    start = read_to = 0
    for piece, read in pieces:
        read_to += len(read)
        waiting.append(piece)
        end = place.get(read_to, -1) if read_to < len(alone) else len(words)
        if end < start or not read:
            waiting = waiting if read else waiting[:-1]
            continue
        said = words[start:end]
        if [word.word for word in said] == normalise(" ".join(waiting), config).split():
            yield from said
        elif said:
            confidence = sum(word.confidence for word in said) / len(said)
            yield Word(" ".join(waiting), said[0].start_s, said[-1].end_s, confidence)
        waiting, start = [], end


def _within(words: Iterable[Word], duration_s: float) -> Iterator[Word]:
    """The words, none of which ends after the recording does; its last frame may."""
    for word in words:
        yield replace(word, start_s=min(word.start_s, duration_s), end_s=min(word.end_s, duration_s))


def lexicon_of(model: AcousticModel, path: Path | None = None) -> Lexicon | None:
    """The lexicon of a phone model: the file, or with None the model's own; None if it has none."""
    source = complete(DecodingConfig(lexicon=path), model.file).lexicon if model.units.is_phones else None
    return cache_of(model).get("lexicon", (source, stamp(source)), lambda: Lexicon.read(source)) if source else None


def align_manifest(
    utterances: Sequence[Utterance],
    model: AcousticModel,
    lexicon: Lexicon,
    on_error: Callable[[Utterance, Exception], None] | None = None,
) -> Iterator[Utterance]:
    """The utterances as a phone model learns them: phones as the text, and the times of phones and silences.

    What cannot be aligned is left out with a warning that names it; so are recordings that cannot be read.

    Args:
        utterances: transcribed in words.
        model: of phones.
        lexicon: how the words are pronounced; those that it lacks as its own suggest.
        on_error: called with the utterance and the error when a recording cannot be read. None: the error is raised.
    """
    lexicon = completed(lexicon, _words(utterances, model.text, lexicon))
    dropped = {}
    for utterance in tqdm(utterances, "aligning", disable=None):
        try:
            waveform = load_utterance(utterance, model.sample_rate)
        except (AudioError, OSError) as error:
            if on_error is None:
                raise
            on_error(utterance, error)
            continue
        try:
            words = pronounced(utterance.text, model, lexicon)
            log_probs = log_probs_of(model, waveform)
            words = chosen(log_probs, words)
            found = _aligned(log_probs, _labels(words), words)
        except TextError as error:
            dropped[utterance.id] = str(error)
            continue
        times = unit_times(found, model.units, model.hop_samples / model.sample_rate)
        alignment = tuple(with_silences(times, utterance.duration_s))
        yield replace(utterance, text=" ".join(unit.word for unit in times), alignment=alignment)
    report_dropped("texts that cannot be aligned", dropped)


def pronounce_manifest(utterances: Sequence[Utterance], lexicon: Lexicon) -> Iterator[Utterance]:
    """The utterances as a phone model can learn them before any model aligns them: the first pronunciations, no times.

    Words that the lexicon lacks are pronounced as its own suggest; utterances with others are left out with a warning.
    """
    text = TextConfig(digits="spell")
    lexicon = completed(lexicon, _words(utterances, text, lexicon))
    dropped = {}
    for utterance in utterances:
        words = read_out(utterance.text, text, lexicon)
        if words and not (missing := lexicon.missing(words)):
            yield replace(utterance, text=" ".join(phone for word in words for phone in lexicon[word][0]))
        else:
            dropped[utterance.id] = f"{missing[0]!r} is not in the lexicon" if words else "no words"
    report_dropped("words that cannot be pronounced", dropped)


def _words(utterances: Iterable[Utterance], text: TextConfig, lexicon: Lexicon) -> Iterator[str]:
    return (word for utterance in utterances for word in read_out(utterance.text, text, lexicon))


def with_silences(units: Sequence[Word], duration_s: float) -> Iterator[AlignedPhone]:
    """Aligned phones, and SILENCE where none is said for 40 ms or more; shorter gaps belong to the phone before."""
    at = 0.0
    for index, unit in enumerate(units):
        if unit.start_s - at >= _PAUSE_S:
            yield AlignedPhone(SILENCE, round(at, 6), round(unit.start_s, 6))
        following = units[index + 1].start_s if index + 1 < len(units) else duration_s
        at = following if following - unit.end_s < _PAUSE_S else unit.end_s
        yield AlignedPhone(unit.word, round(unit.start_s, 6), round(at, 6))
    if duration_s - at >= _PAUSE_S:
        yield AlignedPhone(SILENCE, round(at, 6), round(duration_s, 6))


class Spoken(NamedTuple):
    """A word and the labels of its pronunciations, at least one."""

    text: str
    pronunciations: Sequence[tuple[int, ...]]


def pronounced(text: str, model: AcousticModel, lexicon: Lexicon, name: str = "the text") -> list[Spoken]:
    """The words of a text with their pronunciations in the phones of a model; `name` is what errors begin with.

    Raises:
        TextError: nothing is left of the text, or the lexicon lacks a word, or the model its phones.
    """
    words = read_out(text, model.text, lexicon)
    if missing := lexicon.missing(words):
        more = f" and {len(missing) - 1} other words" if len(missing) > 1 else ""
        raise TextError(f"{name}: {missing[0]!r}{more} not in the lexicon; add how it is pronounced (--lexicon)")
    if not words:
        raise TextError(f"{name}: there is nothing to say in the text {text[:40]!r}; give the words of the recording")
    spellings = pronunciations(Lexicon({word: lexicon[word] for word in words}), model.units, name)
    if unknown := [word for word in words if word not in spellings]:
        raise TextError(f"{name}: the model does not know the phones of {unknown[0]!r}; give a lexicon in its phones")
    return [Spoken(word, spellings[word]) for word in words]


def chosen(log_probs: npt.NDArray[np.float32], words: Sequence[Spoken]) -> list[Spoken]:
    """The words, each with only the pronunciation that fits the recording best.

    The first pronunciations are aligned; a word with several then takes the likeliest of them in its stretch of frames,
    from the last frame of the word before to the first frame of the word after.
    """
    spans = forced_align(log_probs, _labels(words))
    found: list[Spoken] = []
    for word, first, end in _places(words):
        said = words[len(found)].pronunciations
        if len(said) > 1:
            start = spans[first - 1][1] if first else 0
            stop = spans[end][0] if end < len(spans) else len(log_probs)
            scores = ctc_log_probs(log_probs[start:stop], said) if stop > start else [0.0]
            said = (said[int(np.argmax(scores))],)
        found.append(Spoken(word, said))
    # What was chosen may need more frames than there are; what was aligned did not.
    fits = ctc_frames_needed(_labels(found)) <= len(log_probs)
    return found if fits else [Spoken(word.text, word.pronunciations[:1]) for word in words]


def _labels(words: Sequence[Spoken]) -> list[int]:
    """The labels of the words' first pronunciations."""
    return [label for word in words for label in word.pronunciations[0]]


def _aligned(log_probs: npt.NDArray[np.float32], ids: Sequence[int], words: Sequence[Spoken]) -> Hypothesis:
    """Labels at their most probable place; with the words that they are, where units do not tell."""
    starts, ends, means = zip(*forced_align(log_probs, ids), strict=True)
    spans = tuple(zip(starts, ends, strict=True))
    return Hypothesis(tuple(ids), 0.0, spans, means, len(log_probs), _places(words) if words else None)


def _places(words: Sequence[Spoken]) -> tuple[tuple[str, int, int], ...]:
    """Each word with its first label and its last label's successor."""
    ends = np.cumsum([len(word.pronunciations[0]) for word in words]).tolist()
    return tuple((word.text, end - len(word.pronunciations[0]), end) for word, end in zip(words, ends, strict=True))


def labels_of(text: str, units: Units, config: TextConfig, name: str = "the text") -> list[int]:
    """The labels of a text as a model spells it; `name` is what errors begin with.

    Raises:
        TextError: nothing is left of it, or it has a symbol that the model lacks.
    """
    try:
        if units.is_phones:
            set_of = next((size for size in (39, 48, 61) if set(units.symbols[1:]) <= set(PHONE_SETS[size])), None)
            spelled = " ".join(fold(text.split(), set_of) if set_of else text.split())
        else:
            spelled = normalise(text, config)
        ids = units.encode(spelled)
    except TextError as error:
        problem = str(error).rpartition(";")[0] or str(error)
        raise TextError(f"{name}: {problem}; write the text with the units that wavasr info MODEL lists") from error
    if not ids:
        raise TextError(f"{name}: there is nothing to say in the text {text[:40]!r}; give the words of the recording")
    return ids
