"""How good a generator is, by measures: each is printed for natural sound and for the generator's.

A vocoder speaks recordings again that it has not learnt; pitch, harmonicity and spectrum of both are compared. What
improvises is compared with recordings as a whole. Nobody listens: these figures say what they measure, and no more.

Sources: mel-cepstral distortion: Kubichek 1993; dynamic time warping: Sakoe and Chiba 1978.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from wavasr.audio.pitch import Pitch, track_pitch
from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.errors import CorpusError, counted
from wavasr.files import atomic_text
from wavasr.generation.expectation import expected
from wavasr.generation.frames import active_gain, frames_of, log_mel_of
from wavasr.generation.reader import Reader
from wavasr.generation.voice import Voice
from wavasr.network.config import GeneratorConfig

Array = npt.NDArray[np.float32]

REPORT_NAME = "report.json"
TOGETHER = 4  # recordings that are spoken side by side
_VOICED = 0.75  # normalised autocorrelation of a voiced frame
_LOUD = 1e-3  # of the loudest frame's power
_PITCH_RATIO = 1.06
_CEPSTRA = 24
_ACTIVE_NATS = 10.0  # below the loudest frame's mean log power: 43 dB
_FLATNESS_WINDOW = 1024
_HOP = 160


class Measure(NamedTuple):
    """A figure of the model beside that of natural sound ("" where there is none), in words that can be read alone."""

    name: str
    value: str
    natural: str = ""
    meaning: str = ""


class Result(Protocol):
    """What was measured of a generator: a dataclass of figures."""

    @property
    def verdict(self) -> str:
        """What was done."""

    @property
    def measures(self) -> list[Measure]:
        """The figures for people."""


class Likeness(NamedTuple):
    """A recording and what a vocoder made of it, compared; see `VocoderResult`."""

    pitch_hits: int
    voiced_frames: int
    natural_periodicity: float
    synthetic_periodicity: float
    distortion_db: float


@dataclass(frozen=True)
class VocoderResult:
    """What recordings sound like when they are spoken again.

    Attributes:
        recordings: how many.
        audio_s: how long together.
        density_bits: of the recordings under the model, per step of a 16-bit sample.
        f0_within_6_percent: share of the voiced frames of all recordings whose pitch is kept.
        voiced_autocorrelation: mean normalised autocorrelation at the pitch period in these frames, 1 for a clean tone.
        natural_voiced_autocorrelation: of the recordings themselves.
        mcd_db: mel-cepstral distortion with time warping, mean over the recordings.
    """

    recordings: int
    audio_s: float
    density_bits: float
    f0_within_6_percent: float
    voiced_autocorrelation: float
    natural_voiced_autocorrelation: float
    mcd_db: float

    @property
    def verdict(self) -> str:
        """What was done."""
        return f"{counted(self.recordings, 'recording')}, {self.audio_s:.0f} s, spoken again"

    @property
    def measures(self) -> list[Measure]:
        """The figures for people."""
        own, natural = f"{self.voiced_autocorrelation:.3f}", f"{self.natural_voiced_autocorrelation:.3f}"
        kept = f"{100 * self.f0_within_6_percent:.1f} %"
        return [
            density_measure(self.density_bits),
            Measure("pitch kept", kept, "", "voiced frames whose pitch is within 6 % of the recording's"),
            Measure("periodicity", own, natural, "autocorrelation of voiced frames; 1 is a clean tone"),
            Measure("mel-cepstral distortion", f"{self.mcd_db:.2f} dB", "", "distance of the spectra; 0 dB: the same"),
        ]


@dataclass(frozen=True)
class ReadingResult:
    """Texts that a voice says, beside recordings of them.

    Attributes:
        texts: how many.
        audio_s: how long they are, said by the voice.
        length_ratio: by how long the recordings are.
        pitch_spread_semitones: standard deviation of the pitch in voiced frames.
        natural_pitch_spread_semitones: of the recordings.
    """

    texts: int
    audio_s: float
    length_ratio: float
    pitch_spread_semitones: float
    natural_pitch_spread_semitones: float

    @property
    def verdict(self) -> str:
        """What was done."""
        return f"{self.texts:,} texts read, {self.audio_s:.0f} s"

    @property
    def measures(self) -> list[Measure]:
        """The figures for people."""
        own, natural = (f"{one:.2f} st" for one in (self.pitch_spread_semitones, self.natural_pitch_spread_semitones))
        return [
            Measure("melody", own, natural, "standard deviation of the pitch of voiced frames, in semitones"),
            Measure("length", f"{self.length_ratio:.2f}", "1", "of what is read, by that of the recordings"),
        ]


@dataclass(frozen=True)
class MusicResult:
    """What is improvised, beside recordings.

    Attributes:
        audio_s: how long it is.
        spectral_flatness: geometric over arithmetic mean of the power spectrum, mean over frames: 0 for a tone, 0.56
            for white noise.
        natural_spectral_flatness: of the recordings.
        autocorrelation: mean over frames of the highest normalised autocorrelation between 60 and 400 Hz.
        natural_autocorrelation: of the recordings.
        level_range_db: of its sixths, the loudest over the softest.
    """

    audio_s: float
    spectral_flatness: float
    natural_spectral_flatness: float
    autocorrelation: float
    natural_autocorrelation: float
    level_range_db: float

    @property
    def verdict(self) -> str:
        """What was done."""
        return f"{self.audio_s:.0f} s improvised"

    @property
    def measures(self) -> list[Measure]:
        """The figures for people."""
        flat, natural_flat = f"{self.spectral_flatness:.4f}", f"{self.natural_spectral_flatness:.4f}"
        own, natural = f"{self.autocorrelation:.3f}", f"{self.natural_autocorrelation:.3f}"
        return [
            Measure("spectral flatness", flat, natural_flat, "0 is a tone, 0.56 white noise"),
            Measure("periodicity", own, natural, "highest autocorrelation of each frame; 1 is a clean tone"),
            Measure("level", f"{self.level_range_db:.1f} dB", "", "the loudest sixth over the softest"),
        ]


def compare(natural: Array, synthetic: Array, sample_rate: int = 16000) -> Likeness:
    """Two sounds (S,) float32 of equal length."""
    first, second = (track_pitch(sound, sample_rate, _HOP) for sound in (natural, synthetic))
    count = min(len(first.voicing), len(second.voicing))
    voiced = _is_voiced(first, natural)[:count]
    ratio = np.abs(np.log(second.lag_samples[:count] / first.lag_samples[:count]))
    hits = int(((ratio < np.log(_PITCH_RATIO)) & voiced).sum())
    return Likeness(
        hits,
        int(voiced.sum()),
        float(first.voicing[:count][voiced].sum()),
        float(second.voicing[:count][voiced].sum()),
        mel_cepstral_distortion(natural, synthetic, sample_rate),
    )


def _is_voiced(pitch: Pitch, sound: Array) -> npt.NDArray[np.bool_]:
    """(F,) whether a frame has a pitch, and is not much softer than the loudest."""
    power = np.square(sound[: len(pitch.voicing) * _HOP]).reshape(-1, _HOP).mean(axis=1)
    return np.asarray((pitch.voicing > _VOICED) & (power > power.max() * _LOUD))


def mel_cepstral_distortion(natural: Array, synthetic: Array, sample_rate: int = 16000) -> float:
    """Mean distance in dB of mel cepstra 1 to 24 along the best time warping, where there is sound."""
    one, other = (_cepstra(sound, sample_rate) for sound in (natural, synthetic))
    if not len(one) or not len(other):
        return float("nan")
    distances = np.sqrt(2 * np.square(one[:, None] - other[None]).sum(axis=2)) * (10 / np.log(10))
    return _warped_mean(distances)


def _cepstra(sound: Array, sample_rate: int) -> npt.NDArray[np.float64]:
    log_mel = log_mel_of(sound * np.float32(active_gain(sound)), GeneratorConfig(sample_rate=sample_rate)).astype(float)
    loud = log_mel.mean(axis=1)
    active = log_mel[loud > loud.max() - _ACTIVE_NATS] if len(loud) else log_mel
    bands = log_mel.shape[1]
    cosines = np.cos(np.pi / bands * (np.arange(bands)[:, None] + 0.5) * np.arange(1, _CEPSTRA + 1))
    return np.asarray(active / 2 @ cosines * (2 / bands), dtype=np.float64)  # of log magnitudes


def _warped_mean(distances: npt.NDArray[np.float64]) -> float:
    """The smallest mean cost of a path through (N, M) from corner to corner, by steps of one in either or both."""
    rows, columns = distances.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1))
    total[0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        best = before.argmin(axis=0)
        length = np.stack([steps[i - 1, j - 1], steps[i - 1, j], steps[i, j - 1]])
        row = np.arange(len(i))
        total[i, j] = before[best, row] + distances[i - 1, j - 1]
        steps[i, j] = length[best, row] + 1
    return float(total[rows, columns] / steps[rows, columns])


def evaluate_vocoder(voice: Voice, utterances: Sequence[Utterance], seed: int = 0) -> VocoderResult:
    """Speak recordings again, each in its own speaker's voice where the model has it, and compare.

    Raises:
        AudioError: a recording cannot be read.
        CorpusError: there are none.
    """
    if not utterances:
        raise CorpusError("no recordings to speak again; give a manifest with some")
    known, rate = voice.config.speakers, voice.config.sample_rate
    found: list[Likeness] = []
    bits: list[Array] = []
    audio_s = 0.0
    for first in range(0, len(utterances), TOGETHER):
        here = utterances[first : first + TOGETHER]
        recordings = [load_utterance(u, rate) for u in here]
        sounds = [np.asarray(sound * active_gain(sound), dtype=np.float32) for sound in recordings]
        names = [u.speaker if u.speaker in known else None for u in here]
        made = voice.render_all([frames_of(sound, voice.config) for sound in sounds], names, [seed] * len(here))
        for sound, natural, synthetic, name in zip(recordings, sounds, made, names, strict=True):
            found.append(compare(natural[: len(synthetic)], synthetic, rate))
            bits.append(expected(voice.network, sound, voice.network.speaker(name)).density)
            audio_s += len(natural) / rate
    voiced = max(1, sum(one.voiced_frames for one in found))
    return VocoderResult(
        recordings=len(found),
        audio_s=round(audio_s, 2),
        density_bits=float(np.concatenate(bits).mean()),
        f0_within_6_percent=sum(one.pitch_hits for one in found) / voiced,
        voiced_autocorrelation=sum(one.synthetic_periodicity for one in found) / voiced,
        natural_voiced_autocorrelation=sum(one.natural_periodicity for one in found) / voiced,
        mcd_db=float(np.nanmean([one.distortion_db for one in found])),
    )


def evaluate_reading(reader: Reader, utterances: Sequence[Utterance], seed: int = 0) -> ReadingResult:
    """Say the texts of recordings, and compare length and melody.

    Raises:
        AudioError: a recording cannot be read.
        TextError: a text has nothing that can be said.
    """
    rate, known = reader.sample_rate, reader.speakers
    lengths = np.zeros(2)
    melodies: tuple[list[Array], list[Array]] = [], []
    for u in utterances:
        said = np.concatenate(list(reader.blocks(u.text.lower(), u.speaker if u.speaker in known else None, seed=seed)))
        for side, sound in enumerate((said, load_utterance(u, rate))):
            lengths[side] += len(sound) / rate
            melodies[side].append(melody(sound, rate))
    own, natural = (float(np.concatenate(side).std()) for side in melodies)
    return ReadingResult(len(utterances), float(lengths[0]), float(lengths[0] / lengths[1]), own, natural)


def melody(sound: Array, sample_rate: int) -> Array:
    """The pitch of the voiced frames in semitones."""
    pitch = track_pitch(sound, sample_rate, _HOP)
    return np.asarray(12 * np.log2(pitch.hz(sample_rate)[_is_voiced(pitch, sound)]), np.float32)


def evaluate_music(voice: Voice, utterances: Sequence[Utterance], seconds: float = 60.0, seed: int = 0) -> MusicResult:
    """Improvise, and compare with recordings.

    Raises:
        AudioError: a recording cannot be read.
    """
    rate = voice.config.sample_rate
    made = voice.improvise(seconds, seed=seed)
    natural = [load_utterance(u, rate) for u in utterances]
    levels = [10 * np.log10(np.square(part).mean() + 1e-12) for part in np.array_split(made, 6)]
    return MusicResult(
        audio_s=len(made) / rate,
        spectral_flatness=spectral_flatness(made),
        natural_spectral_flatness=float(np.mean([spectral_flatness(one) for one in natural])),
        autocorrelation=periodicity(made, rate),
        natural_autocorrelation=float(np.mean([periodicity(one, rate) for one in natural])),
        level_range_db=float(max(levels) - min(levels)),
    )


def spectral_flatness(sound: Array) -> float:
    """Mean over the frames with sound; see `MusicResult`."""
    count = len(sound) // _FLATNESS_WINDOW
    frames = sound[: count * _FLATNESS_WINDOW].reshape(count, -1) * np.hanning(_FLATNESS_WINDOW)
    power = np.square(np.abs(np.fft.rfft(frames)))[:, 1:] + 1e-12
    level = power.mean(axis=1)
    flat = np.exp(np.log(power).mean(axis=1)) / level
    return float(flat[level > level.max() * _LOUD].mean())


def periodicity(sound: Array, sample_rate: int) -> float:
    """Mean normalised autocorrelation at the pitch period over the frames with sound."""
    pitch = track_pitch(sound, sample_rate, _HOP)
    power = np.square(sound[: len(pitch.voicing) * _HOP]).reshape(-1, _HOP).mean(axis=1)
    return float(pitch.voicing[power > power.max() * _LOUD].mean())


def density_measure(bits: float) -> Measure:
    """How surprising recordings are."""
    return Measure("density", f"{bits:.3f} bits", "", "that a step of a 16-bit sample takes, with the model's help")


def write_results(results: Sequence[Result], folder: Path, model: str) -> Path:
    """`report.json` in a folder, which is made.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / REPORT_NAME
    figures = {type(result).__name__.removesuffix("Result").lower(): asdict(cast(Any, result)) for result in results}
    with atomic_text(path) as stream:
        json.dump({"model": model, **figures}, stream, indent=2)
    return path


def summary(results: Sequence[Result]) -> str:
    """The figures, a line each, natural sound beside the generator's."""
    rows = []
    for result in results:
        rows.append(result.verdict)
        for measure in result.measures:
            natural = f" (natural {measure.natural})" if measure.natural else ""
            rows.append(f"  {measure.name:<24} {measure.value}{natural}")
    return "\n".join(rows)
