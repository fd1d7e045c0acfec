"""What a generator is told of each frame of 10 ms: mel spectrum, voicing, pitch, and the linear prediction from them.

A vocoder's frames describe the sound that it is to make. A generator that is told nothing looks at its own past: the
same numbers, of the samples before the frame.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavasr.audio.features import mel_filters
from wavasr.audio.pitch import Pitch, autocorrelation, lag_range, track_pitch
from wavasr.audio.scores import Note
from wavasr.generation.notes import NOTES_SMOOTHING_HZ, guide, note_lags, pitch_of, sounding
from wavasr.generation.prediction import Prediction, pre_emphasise, predict_from_mel, predict_from_past
from wavasr.network.config import MEL_BANDS, GeneratorConfig

Array = npt.NDArray[np.float32]

PAST_MS = 60.0  # of its own samples, that a generator looks back on to describe a frame
ACTIVE_LEVEL = 0.1  # root mean square that recordings are brought to, where there is sound
_MEL_WINDOW_MS = 40.0
_FLOOR = 1e-9  # power of a sample in silence
REFERENCE_LAG = 100.0
_VOICING = MEL_BANDS  # its column among the features
_VOICED_FROM, _VOICED_TO = 0.4, 0.8  # voicing between noise and a tone


@dataclass(frozen=True)
class Frames:
    """F frames of one sound.

    Attributes:
        features: (F, D) log-mel bands, voicing, log lag: what the network is conditioned on; D may be 0.
        coefficients: (F, order) of the linear prediction; order 0 where there is none.
        level: (F,) of the excitation: the classes are of excitation / level.
        lag_samples: (F,) int64 pitch period.
        guide: (F, hop) the tone of the notes that are played; (F, 0) where none are told.
    """

    features: Array
    coefficients: Array
    level: Array
    lag_samples: npt.NDArray[np.int64]
    guide: Array

    def __len__(self) -> int:
        return len(self.level)

    @property
    def voiced(self) -> Array:
        """How far each frame is a tone, (F,) in [0, 1]; the features have to tell voicing."""
        share = (self.features[:, _VOICING] - _VOICED_FROM) / (_VOICED_TO - _VOICED_FROM)
        return np.asarray(np.clip(share, 0, 1), dtype=np.float32)

    def __getitem__(self, part: slice | npt.NDArray[np.int64]) -> Frames:
        return Frames(*(values[part] for values in vars(self).values()))


def frames_of(samples: Array, config: GeneratorConfig, notes: Sequence[Note] = ()) -> Frames:
    """The frames of a recording at the active level, as the config asks for them: (S,) -> S // hop frames.

    `notes` are what is played, for condition "notes".
    """
    if config.condition in ("mel", "notes"):
        log_mel = log_mel_of(samples, config)
    if config.condition == "notes":
        return described_notes(log_mel, notes, config)
    if config.condition == "mel":
        return described(log_mel, track_pitch(samples, config.sample_rate, config.hop_samples), config)
    count = len(samples) // config.hop_samples
    if config.condition == "none":
        return plain_frames(count, config)
    emphasised = pre_emphasise(samples[: count * config.hop_samples], config.pre_emphasis)
    width = past_samples(config)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(emphasised, (width, 0)), width)
    return frames_of_past(windows[:: config.hop_samples][:count], config)


def described_notes(log_mel: Array, notes: Sequence[Note], config: GeneratorConfig) -> Frames:
    """The frames of notes that are played, with their mel spectra (F, bands)."""
    count, hop, rate = len(log_mel), config.hop_samples, config.sample_rate
    pitch = pitch_of(sounding(notes, count, hop / rate), count, rate)
    return described(log_mel, pitch, config, guide(notes, count, hop, rate))


def described(log_mel: Array, pitch: Pitch, config: GeneratorConfig, tone: Array | None = None) -> Frames:
    """The frames of a sound that is described by mel spectra (F, bands), pitch and perhaps a tone, not by samples."""
    # A narrow peak of the prediction rings with any excitation at its own pitch, not at that of the notes.
    narrowest = {"smoothing_hz": NOTES_SMOOTHING_HZ} if config.condition == "notes" else {}
    if config.excitation == "lpc":
        prediction = predict_from_mel(
            log_mel, config.sample_rate, config.prediction_order, config.pre_emphasis, **narrowest
        )
    else:
        prediction = _no_prediction(len(log_mel))
    shortest, longest = note_lags(config.sample_rate) if narrowest else lag_range(config.sample_rate)
    lags = np.clip(np.rint(pitch.lag_samples), shortest, longest).astype(np.int64)
    tone = _no_guide(len(lags)) if tone is None else tone
    return Frames(_features(log_mel, pitch), prediction.coefficients, prediction.level, lags, tone)


def frames_of_past(past: Array, config: GeneratorConfig) -> Frames:
    """The frames that follow N stretches of pre-emphasised samples: (N, `past_samples`) -> N frames."""
    if config.condition == "none":
        return plain_frames(len(past), config)
    shortest, longest = lag_range(config.sample_rate)
    scores = autocorrelation(past[:, -2 * longest - shortest :], shortest, longest)
    best = scores.argmax(axis=1)
    voicing = np.clip(np.take_along_axis(scores, best[:, None], axis=1)[:, 0], 0, 1)
    pitch = Pitch((best + shortest).astype(np.float32), voicing)
    log_mel = _log_mel(past[:, -mel_window(config) :], config)
    if config.excitation == "lpc":
        prediction = predict_from_past(past, config.sample_rate, config.prediction_order)
    else:
        prediction = _no_prediction(len(past))
    lags = best + shortest
    return Frames(_features(log_mel, pitch), prediction.coefficients, prediction.level, lags, _no_guide(len(lags)))


def plain_frames(count: int, config: GeneratorConfig) -> Frames:
    """Frames that tell nothing."""
    shortest, _ = lag_range(config.sample_rate)
    lags = np.full(count, shortest, np.int64)
    return Frames(np.zeros((count, 0), np.float32), *_no_prediction(count), lags, _no_guide(count))


def _no_guide(count: int) -> Array:
    return np.zeros((count, 0), np.float32)


def _no_prediction(count: int) -> Prediction:
    return Prediction(np.zeros((count, 0), np.float32), np.ones(count, np.float32))


def past_samples(config: GeneratorConfig) -> int:
    """Samples before a frame that describe it, where nothing else does."""
    return round(PAST_MS / 1000 * config.sample_rate)


def _features(log_mel: Array, pitch: Pitch) -> Array:
    log_lag = np.log(pitch.lag_samples / REFERENCE_LAG)
    return np.concatenate([log_mel, pitch.voicing[:, None], log_lag[:, None]], axis=1).astype(np.float32)


def log_mel_of(samples: Array, config: GeneratorConfig) -> Array:
    """Log-mel powers of a recording, frame f centred on samples [f * hop, (f + 1) * hop): (S,) -> (F, bands)."""
    window, hop = mel_window(config), config.hop_samples
    count = len(samples) // hop
    if count == 0:
        return np.zeros((0, MEL_BANDS), np.float32)
    padded = np.pad(samples, ((window - hop) // 2, window))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]
    return _log_mel(windows, config)


def mel_window(config: GeneratorConfig) -> int:
    """Samples that a frame's mel spectrum is of."""
    return round(_MEL_WINDOW_MS / 1000 * config.sample_rate)


def _log_mel(windows: Array, config: GeneratorConfig) -> Array:
    """The natural logarithm of each band's mean power: (N, W) -> (N, bands)."""
    taper, filters = analysis(windows.shape[1], config.sample_rate)
    size = 2 * (filters.shape[0] - 1)
    power = np.abs(np.fft.rfft(windows * taper, size).astype(np.complex64)) ** 2
    bands = np.einsum("nk,kb->nb", power, filters)  # sums in one order, with however many threads
    return np.asarray(np.log(bands + _FLOOR), dtype=np.float32)


@functools.lru_cache(maxsize=4)
def analysis(window: int, sample_rate: int) -> tuple[Array, Array]:
    """A Hann window of unit energy, and mel filters (bins, bands) whose weights sum to one."""
    taper = np.hanning(window + 1)[:-1]
    size = 1 << (window - 1).bit_length()
    filters = mel_filters(sample_rate, size, MEL_BANDS).T.astype(np.float64)
    normal = filters / np.maximum(filters.sum(axis=0), 1e-6)
    return (taper / np.sqrt((taper**2).sum())).astype(np.float32), normal.astype(np.float32)


def active_gain(samples: Array, hop: int = 160) -> float:
    """The factor that brings a recording to `ACTIVE_LEVEL` where there is sound: frames within 40 dB of the loudest."""
    count = max(1, len(samples) // hop)
    power = np.square(samples[: count * hop].astype(np.float64)).reshape(count, -1).mean(axis=1)
    loud = power[power >= power.max() * 1e-4]
    return float(ACTIVE_LEVEL / np.sqrt(loud.mean())) if power.max() > 1e-12 else 1.0
