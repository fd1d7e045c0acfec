"""Recordings with their texts as lessons: phones with durations, and the frames that they became.

Each recording is aligned once (`wavasr.recognition.align`); what was found is kept in the run's folder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wavasr.corpora.manifest import Utterance, report_dropped
from wavasr.corpora.recordings import load_utterance
from wavasr.errors import AudioError, CorpusError, TextError
from wavasr.files import atomic_bytes
from wavasr.generation import phrases
from wavasr.generation.frames import active_gain, frames_of
from wavasr.generation.phrases import PAUSE, Word
from wavasr.generation.text_to_frames import SpeechScale, places_in
from wavasr.language.spoken import spoken
from wavasr.network.config import MEL_BANDS, GeneratorConfig, SpeechConfig
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.align import AlignedText, align
from wavasr.recognition.models import opened
from wavasr.training.generate.data import Voices
from wavasr.training.generators import EpochLoader, epoch_and_place
from wavasr.training.speak.config import SpeakConfig

log = logging.getLogger("wavasr")

Array = npt.NDArray[np.float32]
_SHORTEST_PAUSE_S = 0.06
VOICED = 0.6  # voicing from which on a frame counts as voiced
_LONGEST_FRAMES = 1500


@dataclass(frozen=True)
class Lesson:
    """A recording as the network learns it: P phones, F frames.

    Attributes:
        phones: (P,) int64.
        places: (P, PHONE_PLACES).
        durations: (P,) int64 frames, which add up to F.
        log_mel: (F, bands).
        log_lag: (F,) of the pitch period; in unvoiced frames between those around.
        voicing: (F,).
        speaker: its number.
    """

    phones: npt.NDArray[np.int64]
    places: Array
    durations: npt.NDArray[np.int64]
    log_mel: Array
    log_lag: Array
    voicing: Array
    speaker: int


def lessons_of(utterances: Sequence[Utterance], voices: Voices, config: SpeakConfig) -> list[Lesson]:
    """The lessons of recordings, aligned now; those that cannot be used are left out and named.

    Raises:
        CorpusError: nothing is left.
    """
    aligner, generator = opened(config.data.aligner), GeneratorConfig()
    found: list[Lesson] = []
    dropped: dict[str, str] = {}
    for utterance in tqdm(utterances, desc="aligning", unit=" recordings", leave=False, delay=2.0, disable=None):
        try:
            lesson = _lesson(utterance, voices.number(utterance), aligner, generator, config)
        except (AudioError, TextError) as error:
            dropped[utterance.id] = str(error)
            continue
        found.append(lesson)
    report_dropped("a text that does not fit the recording", dropped)
    if not found:
        raise CorpusError(f"{config.data.root}: no recording can be learnt from")
    return found


def _lesson(
    utterance: Utterance, speaker: int, aligner: AcousticModel, generator: GeneratorConfig, config: SpeakConfig
) -> Lesson:
    samples = load_utterance(utterance, generator.sample_rate)
    text = spoken(utterance.text)
    aligned = align(samples, text, aligner, sample_rate=generator.sample_rate)
    if (aligned.confidence or 0.0) < config.data.least_confidence:
        raise TextError(f"the text has a mean probability of {aligned.confidence:.2f} only")
    frames = frames_of(samples * active_gain(samples), generator)
    if len(frames) > _LONGEST_FRAMES:
        raise TextError(f"{len(frames)} frames are more than {_LONGEST_FRAMES}; cut the recording into sentences")
    words, starts, pauses = _timed_words(text, aligned, len(frames) * generator.hop_samples / generator.sample_rate)
    found = phrases.tokens(words, pauses)
    phones, places = phrases.arrays(found, config.speech.phones)
    durations = _durations(starts, generator.sample_rate / generator.hop_samples, len(frames))
    if len(durations) != len(phones):
        raise TextError("its phones cannot be told apart")
    features = frames.features
    voicing, log_lag = features[:, MEL_BANDS], features[:, MEL_BANDS + 1]
    return Lesson(phones, places, durations, features[:, :MEL_BANDS], _bridged(log_lag, voicing), voicing, speaker)


def _timed_words(text: str, aligned: AlignedText, duration_s: float) -> tuple[list[Word], list[float], list[bool]]:
    """Words with the phones that were said, when each token starts (and the last ends), and where there are pauses.

    Raises:
        TextError: the aligner's words are not those of the text.
    """
    written = [word for sentence in phrases.sentences(text, lambda _: ("AH",)) for word in sentence]
    if [_letters(word.text) for word in written] != [_letters(word.word) for word in aligned.words]:
        raise TextError("its words are not those that were aligned")
    units = list(aligned.units)
    words: list[Word] = []
    starts: list[float] = [0.0]
    pauses: list[bool] = []
    for index, (word, timed) in enumerate(zip(written, aligned.words, strict=True)):
        own = [unit for unit in units if timed.start_s - 1e-6 <= unit.start_s < timed.end_s]
        if not own:
            raise TextError(f"the word {word.text!r} has no phones of its own")
        starts += [unit.start_s for unit in own]
        is_last = index == len(written) - 1
        until_s = duration_s if is_last else aligned.words[index + 1].start_s
        pause = is_last or until_s - timed.end_s >= _SHORTEST_PAUSE_S
        if pause:
            starts.append(min(timed.end_s, until_s))
        pauses.append(pause)
        words.append(Word(word.text, tuple(unit.word for unit in own), word.ending))
    return words, [*starts, duration_s], pauses


def _letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalpha())


def _durations(starts: Sequence[float], frame_rate: float, frames: int) -> npt.NDArray[np.int64]:
    """Frames of each token, one at least, that add up to all frames: (P + 1,) times -> (P,)."""
    edges = np.rint(np.asarray(starts) * frame_rate).astype(np.int64)
    edges[0], edges[-1] = 0, frames
    count = len(edges) - 1
    if frames < count:
        raise TextError(f"{frames} frames are too few for {count} phones")
    for index in range(1, count):  # forwards each begins after the one before, backwards before the one behind
        edges[index] = max(edges[index], edges[index - 1] + 1)
    for index in range(count - 1, 0, -1):
        edges[index] = min(edges[index], edges[index + 1] - 1)
    return np.diff(edges)


def _bridged(log_lag: Array, voicing: Array) -> Array:
    """The pitch in unvoiced frames runs straight from the voiced frame before to the one behind."""
    voiced = np.flatnonzero(voicing >= VOICED)
    if not len(voiced):
        return log_lag
    return np.interp(np.arange(len(log_lag)), voiced, log_lag[voiced]).astype(np.float32)


def scale_of(lessons: Sequence[Lesson]) -> SpeechScale:
    """What brings spectra and pitch to zero mean and unit deviation."""
    mel = np.concatenate([lesson.log_mel for lesson in lessons])
    voicing = np.concatenate([lesson.voicing for lesson in lessons])
    log_lag = np.concatenate([lesson.log_lag for lesson in lessons])[voicing >= VOICED]
    return SpeechScale(
        mel_mean=mel.mean(axis=0),
        mel_scale=mel.std(axis=0) + np.float32(1e-3),
        log_lag_mean=float(log_lag.mean()) if len(log_lag) else 0.0,
        log_lag_scale=float(log_lag.std()) + 1e-3 if len(log_lag) else 1.0,
    )


# Lessons in a file ----------------------------------------------------------------------------------------------------


def save_lessons(path: Path, lessons: Sequence[Lesson]) -> None:
    """Keep lessons for a run that goes on; the file appears whole or not at all."""
    with atomic_bytes(path) as stream:
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(lesson, name) for lesson in lessons])
            for name in ("phones", "places", "durations", "log_mel", "log_lag", "voicing")
        }
        arrays["phone_counts"] = [len(lesson.phones) for lesson in lessons]
        arrays["frame_counts"] = [len(lesson.log_mel) for lesson in lessons]
        arrays["speakers"] = [lesson.speaker for lesson in lessons]
        np.savez(stream, **arrays)


def load_lessons(path: Path) -> list[Lesson]:
    """What `save_lessons` wrote."""
    with np.load(path) as stored:
        phone_ends, frame_ends = np.cumsum(stored["phone_counts"])[:-1], np.cumsum(stored["frame_counts"])[:-1]
        parts: list[Any] = [np.split(stored[name], phone_ends) for name in ("phones", "places", "durations")]
        parts += [np.split(stored[name], frame_ends) for name in ("log_mel", "log_lag", "voicing")]
        return [Lesson(*values) for values in zip(*parts, stored["speakers"].tolist(), strict=True)]


# Batches --------------------------------------------------------------------------------------------------------------


class LessonBatch(NamedTuple):
    """What `TextToFrames.forward` takes, and what it should answer; padded with zeros.

    Attributes:
        phones: (B, P) int64.
        places: (B, P, PHONE_PLACES).
        lengths: (B,) phones.
        durations: (B, P).
        indices: (B, F) int64.
        within: (B, FRAME_PLACES, F).
        frames: (B,) how many.
        pitch: (B, 2, F) normalised log period, voicing.
        mel: (B, bands, F) normalised.
        speaker: (B,) int64.
    """

    phones: Tensor
    places: Tensor
    lengths: Tensor
    durations: Tensor
    indices: Tensor
    within: Tensor
    frames: Tensor
    pitch: Tensor
    mel: Tensor
    speaker: Tensor


def batched(lessons: Sequence[Lesson], scale: SpeechScale) -> LessonBatch:
    """Lessons as one batch."""
    rows: list[dict[str, npt.NDArray[Any]]] = []
    for lesson in lessons:
        indices, within = places_in(lesson.durations)
        lag = (lesson.log_lag - scale.log_lag_mean) / scale.log_lag_scale
        rows.append(
            {
                "phones": lesson.phones,
                "places": lesson.places,
                "lengths": np.array(len(lesson.phones)),
                "durations": lesson.durations.astype(np.float32),
                "indices": indices,
                "within": within,
                "frames": np.array(len(indices)),
                "pitch": np.stack([lag, lesson.voicing]).astype(np.float32),
                "mel": ((lesson.log_mel - scale.mel_mean) / scale.mel_scale).T.astype(np.float32),
                "speaker": np.array(lesson.speaker),
            }
        )
    return LessonBatch(*(_padded([row[name] for row in rows]) for name in LessonBatch._fields))


def _padded(values: Sequence[npt.NDArray[Any]]) -> Tensor:
    shape = tuple(max(sizes) for sizes in zip(*(value.shape for value in values), strict=True))
    out = np.zeros((len(values), *shape), values[0].dtype)
    for index, value in enumerate(values):
        place: tuple[Any, ...] = (index, *(slice(size) for size in value.shape))
        out[place] = value
    return torch.from_numpy(out)


class LessonData(pl.LightningDataModule):
    """Batches of lessons of like length, in an order that the epoch decides."""

    def __init__(self, train: Sequence[Lesson], dev: Sequence[Lesson], scale: SpeechScale, config: SpeakConfig) -> None:
        super().__init__()
        self.train, self.dev, self.scale, self.config = train, dev, scale, config

    def train_dataloader(self) -> DataLoader[LessonBatch]:
        """The batches of the trainer's epoch."""
        epoch, *place = epoch_and_place(self.trainer)
        plan = [own_part(one, *place) for one in order(self.train, self.config.data.batch, self.config.seed, epoch)]
        return EpochLoader(_Batches(self.train, plan, self.scale))

    def val_dataloader(self) -> DataLoader[LessonBatch]:
        """The held out lessons."""
        size = self.config.data.batch
        plan = [list(range(start, min(start + size, len(self.dev)))) for start in range(0, len(self.dev), size)]
        return DataLoader(_Batches(self.dev, plan, self.scale), batch_size=None)


def order(lessons: Sequence[Lesson], batch: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Indices of each batch of an epoch: shuffled, then sorted by length in groups of some batches."""
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lessons)).tolist()
    group = 8 * batch
    plan: list[list[int]] = []
    for start in range(0, len(shuffled), group):
        part = sorted(shuffled[start : start + group], key=lambda index: len(lessons[index].log_mel))
        plan += [part[first : first + batch] for first in range(0, len(part), batch)]
    return (plan[index] for index in random.permutation(len(plan)))


def own_part(batch: Sequence[int], rank: int, processes: int) -> Sequence[int]:
    """What rank r of n learns of a batch: every n-th, or one that another learns too where there are fewer than n."""
    return batch[rank::processes] or [batch[rank % len(batch)]]


class _Batches(Dataset[LessonBatch]):
    def __init__(self, lessons: Sequence[Lesson], plan: Sequence[Sequence[int]], scale: SpeechScale) -> None:
        self._lessons, self._plan, self._scale = lessons, plan, scale

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> LessonBatch:
        return batched([self._lessons[number] for number in self._plan[index]], self._scale)


def phones_of(aligner: AcousticModel) -> tuple[str, ...]:
    """The phones of a model that aligns, the pause before them."""
    return (PAUSE, *(symbol for symbol in aligner.units.symbols[1:] if symbol != PAUSE))


def new_speech(config: SpeechConfig, aligner: AcousticModel, speakers: Sequence[str]) -> SpeechConfig:
    """The network's shape with its phones and speakers filled in."""
    return replace(config, phones=config.phones or phones_of(aligner), speakers=tuple(speakers))
