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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wavasr.audio.pitch import track_pitch
from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import Utterance
from wavasr.errors import CorpusError
from wavasr.evaluation.notes import NotesResult
from wavasr.files import atomic_text
from wavasr.generation.frames import active_gain, frames_of, log_mel_of
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
        f0_within_6_percent: share of the voiced frames of all recordings whose pitch is kept.
        voiced_autocorrelation: mean normalised autocorrelation at the pitch period in these frames, 1 for a clean tone.
        natural_voiced_autocorrelation: of the recordings themselves.
        mcd_db: mel-cepstral distortion with time warping, mean over the recordings.
    """

    recordings: int
    audio_s: float
    f0_within_6_percent: float
    voiced_autocorrelation: float
    natural_voiced_autocorrelation: float
    mcd_db: float


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
        level_drift_db: level of the last fifth over that of the first fifth.
    """

    audio_s: float
    spectral_flatness: float
    natural_spectral_flatness: float
    autocorrelation: float
    natural_autocorrelation: float
    level_drift_db: float


def compare(natural: Array, synthetic: Array, sample_rate: int = 16000) -> Likeness:
    """Two sounds (S,) float32 of equal length."""
    first, second = (track_pitch(sound, sample_rate, _HOP) for sound in (natural, synthetic))
    count = min(len(first.voicing), len(second.voicing))
    power = np.square(natural[: count * _HOP]).reshape(count, -1).mean(axis=1)
    voiced = (first.voicing[:count] > _VOICED) & (power > power.max() * _LOUD)
    ratio = np.abs(np.log(second.lag_samples[:count] / first.lag_samples[:count]))
    hits = int(((ratio < np.log(_PITCH_RATIO)) & voiced).sum())
    return Likeness(
        hits,
        int(voiced.sum()),
        float(first.voicing[:count][voiced].sum()),
        float(second.voicing[:count][voiced].sum()),
        mel_cepstral_distortion(natural, synthetic, sample_rate),
    )


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
    audio_s = 0.0
    for first in range(0, len(utterances), TOGETHER):
        here = utterances[first : first + TOGETHER]
        sounds = [load_audio(u.audio, rate, u.offset_s, u.duration_s if u.offset_s else None) for u in here]
        sounds = [np.asarray(sound * active_gain(sound), dtype=np.float32) for sound in sounds]
        names = [u.speaker if u.speaker in known else None for u in here]
        made = voice.render_all([frames_of(sound, voice.config) for sound in sounds], names, [seed] * len(here))
        for natural, synthetic in zip(sounds, made, strict=True):
            found.append(compare(natural[: len(synthetic)], synthetic, rate))
            audio_s += len(natural) / rate
    voiced = max(1, sum(one.voiced_frames for one in found))
    return VocoderResult(
        recordings=len(found),
        audio_s=round(audio_s, 2),
        f0_within_6_percent=sum(one.pitch_hits for one in found) / voiced,
        voiced_autocorrelation=sum(one.synthetic_periodicity for one in found) / voiced,
        natural_voiced_autocorrelation=sum(one.natural_periodicity for one in found) / voiced,
        mcd_db=float(np.nanmean([one.distortion_db for one in found])),
    )


def evaluate_music(voice: Voice, recordings: Sequence[Array], seconds: float = 20.0, seed: int = 0) -> MusicResult:
    """Improvise, and compare with recordings (S,) float32 at the model's rate."""
    rate = voice.config.sample_rate
    made = voice.improvise(seconds, seed=seed)
    natural = [np.asarray(one * active_gain(one), dtype=np.float32) for one in recordings]
    fifth = len(made) // 5
    drift = 10 * np.log10((np.square(made[-fifth:]).mean() + 1e-12) / (np.square(made[:fifth]).mean() + 1e-12))
    return MusicResult(
        audio_s=len(made) / rate,
        spectral_flatness=spectral_flatness(made),
        natural_spectral_flatness=float(np.mean([spectral_flatness(one) for one in natural])),
        autocorrelation=periodicity(made, rate),
        natural_autocorrelation=float(np.mean([periodicity(one, rate) for one in natural])),
        level_drift_db=float(drift),
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


def write_result(result: VocoderResult | MusicResult | NotesResult, folder: Path, model: str) -> Path:
    """`report.json` in a folder, which is made.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / REPORT_NAME
    with atomic_text(path) as stream:
        json.dump({"model": model, "kind": type(result).__name__, **asdict(result)}, stream, indent=2)
    return path


def summary(result: VocoderResult | MusicResult | NotesResult) -> str:
    """The figures, a line each, natural sound beside the generator's."""
    if isinstance(result, VocoderResult):
        rows = [
            f"{result.recordings} recordings, {result.audio_s:.0f} s, spoken again",
            f"pitch within 6 % in voiced frames  {100 * result.f0_within_6_percent:.1f} %",
            f"autocorrelation of voiced frames   {result.voiced_autocorrelation:.3f} "
            f"(natural {result.natural_voiced_autocorrelation:.3f})",
            f"mel-cepstral distortion            {result.mcd_db:.2f} dB",
        ]
    elif isinstance(result, NotesResult):
        rows = [
            f"{result.recordings} recordings, {result.audio_s:.0f} s, played from their notes",
            f"notes found within 50 cents  {100 * result.within_50_cents:.1f} % of {result.notes} "
            f"(in the recordings {100 * result.natural_within_50_cents:.1f} %)",
        ]
    else:
        rows = [
            f"{result.audio_s:.0f} s improvised",
            f"spectral flatness  {result.spectral_flatness:.4f} (natural {result.natural_spectral_flatness:.4f})",
            f"autocorrelation    {result.autocorrelation:.3f} (natural {result.natural_autocorrelation:.3f})",
            f"level, end over beginning  {result.level_drift_db:+.1f} dB",
        ]
    return "\n".join(rows)
