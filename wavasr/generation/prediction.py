"""Linear prediction: each sample as a weighted sum of those before it, with new weights for each frame.

The weights come from a frame's mel spectrum, where that is given, or from the samples before the frame. What the
prediction leaves over, the excitation, is what the network models.

Sources: Makhoul 1975, "Linear prediction: a tutorial review"; weights from a mel spectrum: Valin and Skoglund 2019,
"LPCNet", arXiv 1810.11846, section 3.1.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wavasr.audio.features import hz_to_mel, mel_to_hz

Array = npt.NDArray[np.float32]

_BINS = 256  # of the spectrum that a mel spectrum is interpolated to
_LAG_WINDOW_HZ = 30.0
_WHITE = 5e-4  # share of white noise added, so that no spectrum is too steep
_SILENCE = 1e-9  # power of a sample
_SOFTEST = 1e-3  # level of an excitation that is known from the past alone: what follows may be louder


class Prediction(NamedTuple):
    """The linear prediction of F frames.

    Attributes:
        coefficients: (F, order) p[t] = sum of coefficients[k] * s[t - 1 - k].
        level: (F,) root mean square of what the prediction is expected to leave.
    """

    coefficients: Array
    level: Array


def pre_emphasise(samples: Array, share: float) -> Array:
    """x[t] - share * x[t - 1]; before the first sample is silence."""
    return np.asarray(samples - share * np.concatenate([samples[:1] * 0, samples[:-1]]), dtype=np.float32)


def levinson(correlation: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The best prediction of signals with these autocorrelations, by Levinson and Durbin's recursion.

    Args:
        correlation: (F, order + 1), at the lags from 0 on.

    Returns:
        The coefficients (F, order) and the power that they leave (F,).
    """
    frames, order = correlation.shape[0], correlation.shape[1] - 1
    coefficients = np.zeros((frames, order))
    error = correlation[:, 0].copy()
    for i in range(order):
        known = (coefficients[:, :i] * correlation[:, i:0:-1]).sum(axis=1)
        reflection = (correlation[:, i + 1] - known) / error
        coefficients[:, :i] -= reflection[:, None] * coefficients[:, :i][:, ::-1].copy()
        coefficients[:, i] = reflection
        error = error * (1 - reflection**2)
    return coefficients, error


def _solve(correlation: npt.NDArray[np.float64], sample_rate: int, smoothing_hz: float = _LAG_WINDOW_HZ) -> Prediction:
    """Autocorrelations (F, order + 1) per sample -> the prediction, made robust."""
    lags = np.arange(correlation.shape[1])
    smoothed = correlation * np.exp(-0.5 * (2 * np.pi * smoothing_hz * lags / sample_rate) ** 2)
    smoothed[:, 0] = smoothed[:, 0] * (1 + _WHITE) + _SILENCE
    coefficients, error = levinson(smoothed)
    return Prediction(coefficients.astype(np.float32), np.sqrt(error).astype(np.float32))


def predict_from_mel(
    log_mel: Array, sample_rate: int, order: int, pre_emphasis: float, smoothing_hz: float = _LAG_WINDOW_HZ
) -> Prediction:
    """The prediction of the pre-emphasised signal from log-mel powers: (F, bands) -> F frames.

    `log_mel` holds the natural logarithm of each band's mean power per sample and bin (`wavasr.generation.frames`).
    `smoothing_hz` is the width of the narrowest peak of its spectrum.
    """
    spread = _interpolation(log_mel.shape[1], sample_rate)  # (bands, bins)
    omega = np.pi * np.arange(_BINS + 1) / _BINS
    emphasis = np.abs(1 - pre_emphasis * np.exp(-1j * omega)) ** 2
    spectrum = np.exp(log_mel.astype(np.float64) @ spread) * emphasis
    return _solve(np.fft.irfft(spectrum, axis=1)[:, : order + 1], sample_rate, smoothing_hz)


@functools.lru_cache(maxsize=4)
def _interpolation(bands: int, sample_rate: int) -> npt.NDArray[np.float64]:
    """(bands, bins) weights that draw a line through the bands' centres."""
    centres = mel_to_hz(np.linspace(0.0, hz_to_mel(sample_rate / 2), bands + 2))[1:-1]
    bins = np.linspace(0.0, sample_rate / 2, _BINS + 1)
    return np.stack([np.interp(bins, centres, row) for row in np.eye(bands)])


def predict_from_past(past: Array, sample_rate: int, order: int) -> Prediction:
    """The prediction of what follows from the samples before it: (N, W) -> N frames.

    The level is that of the excitation in the last third of the past.
    """
    width = past.shape[1]
    taper = _recent(width)
    size = 1 << (width + order).bit_length()
    power = np.abs(np.fft.rfft(past * taper, size)) ** 2
    correlation = np.fft.irfft(power, size, axis=1)[:, : order + 1] / np.square(taper, dtype=np.float64).sum()
    prediction = _solve(correlation, sample_rate)
    last = width // 3
    tail = excitation_of(past[:, width - last - order :], prediction.coefficients[:, None], last)
    level = np.sqrt(np.square(tail).mean(axis=1) + _SOFTEST**2)
    return Prediction(prediction.coefficients, level.astype(np.float32))


@functools.lru_cache(maxsize=4)
def _recent(width: int) -> Array:
    """A window that rises slowly and falls fast at the end, where the samples matter most."""
    fall = width // 12
    rise = width - fall
    rising = np.sin(np.pi / 2 * (np.arange(rise) + 0.5) / rise) ** 2
    falling = np.cos(np.pi / 2 * (np.arange(fall) + 0.5) / fall)
    return np.concatenate([rising, falling]).astype(np.float32)


def excitation_of(samples: Array, coefficients: Array, hop: int) -> Array:
    """What the prediction leaves: (N, order + F * hop), (N, F, order) -> (N, F * hop).

    Each row begins with the `order` samples before its first frame.
    """
    count, frames, order = coefficients.shape
    windows = np.lib.stride_tricks.sliding_window_view(samples, order, axis=1)[:, :-1, ::-1]  # newest first
    windows = windows.reshape(count, frames, hop, order)
    predicted = np.matmul(windows, coefficients[..., None])[..., 0].reshape(count, frames * hop)
    return np.asarray(samples[:, order:] - predicted, dtype=np.float32)
