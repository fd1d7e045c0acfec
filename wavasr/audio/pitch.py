"""The pitch period of each frame, by normalised autocorrelation, smoothed over time by the Viterbi algorithm.

Sources: Talkin 1995, "A robust algorithm for pitch tracking (RAPT)"; de Cheveigne and Kawahara 2002, "YIN".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_WINDOW_S = 0.050
_CANDIDATES = 8
_JUMP_COST = 0.5  # of a change by an octave between two frames
_SHORT_LAG_BONUS = 0.02  # for each octave: twice the period fits as well as the period


class Pitch(NamedTuple):
    """The pitch of F frames.

    Attributes:
        lag_samples: (F,) the period; in unvoiced frames what fits best.
        voicing: (F,) the normalised autocorrelation at that lag: near 1 in voiced frames, near 0 in noise and silence.
    """

    lag_samples: Array
    voicing: Array

    def hz(self, sample_rate: int) -> Array:
        """The fundamental frequency, (F,)."""
        return (sample_rate / self.lag_samples).astype(np.float32)


def lag_range(sample_rate: int, lowest_hz: float = 60.0, highest_hz: float = 400.0) -> tuple[int, int]:
    """The shortest and the longest period in samples, both included."""
    return int(np.floor(sample_rate / highest_hz)), int(np.ceil(sample_rate / lowest_hz))


def track_pitch(
    samples: Array, sample_rate: int, hop_samples: int, lowest_hz: float = 60.0, highest_hz: float = 400.0
) -> Pitch:
    """The pitch of a recording.

    Args:
        samples: (S,) float32.
        sample_rate: samples per second.
        hop_samples: samples from frame to frame; frame f is centred on samples [f * hop, (f + 1) * hop).
        lowest_hz: lowest fundamental frequency that is looked for.
        highest_hz: highest.

    Returns:
        F = S // hop_samples frames.
    """
    window = round(_WINDOW_S * sample_rate)
    frames = len(samples) // hop_samples
    if frames == 0:
        return Pitch(np.zeros(0, np.float32), np.zeros(0, np.float32))
    before = (window - hop_samples) // 2
    padded = np.pad(samples, (before, window))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop_samples][:frames]
    shortest, longest = lag_range(sample_rate, lowest_hz, highest_hz)
    scores = autocorrelation(windows, shortest, longest)  # (F, lags)
    lags, strengths = _candidates(scores, shortest)
    path = _smoothest(lags, strengths)
    row = np.arange(frames)
    return Pitch(_refined(scores, lags[row, path] - shortest) + shortest, np.clip(strengths[row, path], 0, 1))


def autocorrelation(windows: Array, shortest: int, longest: int) -> Array:
    """The correlation of each window with itself, `shortest` to `longest` samples later: (N, W) -> (N, lags).

    It is normalised by the energies of the two stretches that are compared: 1 where one is a multiple of the other.
    """
    width = windows.shape[1]
    centred = windows - windows.mean(axis=1, keepdims=True)
    size = 1 << (width + longest - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    products = np.fft.irfft(power, size)[:, shortest : longest + 1]
    energy = np.pad(np.cumsum(centred.astype(np.float64) ** 2, axis=1), ((0, 0), (1, 0)))  # (N, W + 1)
    lags = np.arange(shortest, longest + 1)
    first, second = energy[:, width - lags], energy[:, -1:] - energy[:, lags]
    floor = 1e-6 * width
    return np.asarray(products / np.sqrt((first + floor) * (second + floor)), dtype=np.float32)


def _candidates(scores: Array, shortest: int) -> tuple[npt.NDArray[np.int64], Array]:
    """The lags of the highest peaks of each frame and their strengths, both (F, candidates)."""
    padded = np.pad(scores, ((0, 0), (1, 1)), constant_values=-np.inf)
    is_peak = (scores >= padded[:, :-2]) & (scores >= padded[:, 2:])
    peaks = np.where(is_peak, scores, -1.0)
    count = min(_CANDIDATES, scores.shape[1])
    places = np.argpartition(-peaks, count - 1, axis=1)[:, :count]
    return places + shortest, np.take_along_axis(scores, places, axis=1)


def _smoothest(lags: npt.NDArray[np.int64], strengths: Array) -> npt.NDArray[np.int64]:
    """The candidate of each frame on the path that is strong and jumps little: (F, K), (F, K) -> (F,)."""
    octaves = np.log2(lags)
    gains = strengths - _SHORT_LAG_BONUS * octaves
    best = gains[0]
    came_from = np.zeros(lags.shape, np.int64)
    for frame in range(1, len(lags)):
        jumps = np.abs(octaves[frame][:, None] - octaves[frame - 1])  # (K now, K before)
        totals = best - _JUMP_COST * jumps
        came_from[frame] = totals.argmax(axis=1)
        best = totals.max(axis=1) + gains[frame]
    path = np.zeros(len(lags), np.int64)
    path[-1] = best.argmax()
    for frame in range(len(lags) - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path


def _refined(scores: Array, places: npt.NDArray[np.int64]) -> Array:
    """Peaks between the lags, by a parabola through three points: (F, lags), (F,) -> (F,)."""
    row = np.arange(len(scores))
    middle = np.clip(places, 1, scores.shape[1] - 2)
    left, top, right = scores[row, middle - 1], scores[row, middle], scores[row, middle + 1]
    bend = left - 2 * top + right
    shift = np.where(bend < 0, 0.5 * (left - right) / np.minimum(bend, -1e-9), 0.0)
    inside = (places == middle) & (np.abs(shift) <= 1)
    return np.asarray(np.where(inside, middle + shift, places), dtype=np.float32)
