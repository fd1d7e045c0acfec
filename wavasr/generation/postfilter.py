"""What a vocoder said, brought closer to the frames that it was told: noise between harmonics and in valleys goes.

    samples --> comb at the pitch period --> each mel band to the power that was told, twice --> samples

Drawing classes at random leaves noise where a recording has next to none: below the first harmonic, between harmonics,
above the formants. Both filters look a little ahead, so blocks come out `MARGIN` frames late.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from wavasr.generation.frames import Frames, analysis, log_mel_of, mel_window
from wavasr.network.config import MEL_BANDS, GeneratorConfig

Array = npt.NDArray[np.float32]

MARGIN = 12  # frames on either side of a sample, that it depends on
_PASSES = 2
_LEAST, _MOST = -6.0, 2.0  # nats of power that a band is changed by


def filtered_blocks(blocks: Iterable[Array], frames: Frames, config: GeneratorConfig) -> Iterator[Array]:
    """The blocks of a sound, whole frames each, filtered; in flat memory.

    What comes after the last frame is left out. Networks that are told nothing keep theirs.

    Args:
        blocks: (S,) each, together `len(frames)` frames.
        frames: what was told.
        config: of the vocoder.
    """
    if config.condition not in ("mel", "notes"):  # nothing was told
        yield from blocks
        return
    hop, start, done = config.hop_samples, 0, 0  # frames: of the first sample that is kept, and that are out
    kept = np.zeros(0, np.float32)
    for block in blocks:
        kept = np.concatenate([kept, block])[: (len(frames) - start) * hop]
        have = start + len(kept) // hop
        end = have if have == len(frames) else have - MARGIN
        if end <= done:
            continue
        new = filtered(kept, frames[start:have], config)
        yield new[(done - start) * hop : (end - start) * hop]
        first = max(end - MARGIN, 0)
        kept, start, done = kept[(first - start) * hop :], first, end


def filtered(samples: Array, frames: Frames, config: GeneratorConfig) -> Array:
    """A sound (F * hop,) filtered, of F frames with mel spectra."""
    if config.condition == "mel":  # of chords the common period is too rough
        samples = _combed(samples, frames, config.hop_samples)
    for _ in range(_PASSES):
        samples = _matched(samples, frames.features[:, :MEL_BANDS], config)
    return samples


def _combed(samples: Array, frames: Frames, hop: int) -> Array:
    """The mean of each sample and those a pitch period before and behind it, the more so the more voiced."""
    share, lags = np.repeat(frames.voiced, hop), np.repeat(frames.lag_samples, hop)
    here, last = np.arange(len(samples)), len(samples) - 1
    before, behind = here - lags, here + lags
    around = np.where(before >= 0, samples[np.maximum(before, 0)], 0)
    around += np.where(behind <= last, samples[np.minimum(behind, last)], 0)
    return np.asarray((samples + share * around / 2) / (1 + share), dtype=np.float32)


def _matched(samples: Array, log_mel: Array, config: GeneratorConfig) -> Array:
    """The sound with mel spectra (F, bands): in overlapping windows each bin is scaled as the bands over it need."""
    window, hop = mel_window(config), config.hop_samples
    taper, _ = analysis(window, config.sample_rate)
    over = _bands_over_bins(window, config.sample_rate)
    size, before = 2 * (over.shape[1] - 1), (window - hop) // 2
    change = np.clip(log_mel - log_mel_of(samples, config), _LEAST, _MOST) / 2
    gain = np.exp(np.einsum("fb,bk->fk", change, over))  # sums in one order, with however many threads
    padded = np.pad(samples, (before, window))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][: len(log_mel)]
    parts = np.fft.irfft(np.fft.rfft(windows * taper, size) * gain, size)[:, :window] * taper
    total, weight = np.zeros((2, len(padded)))
    for place, part in enumerate(parts):
        total[place * hop : place * hop + window] += part
        weight[place * hop : place * hop + window] += taper**2
    found = total / np.maximum(weight, 1e-9)
    return np.asarray(found[before : before + len(samples)], dtype=np.float32)


@functools.lru_cache(maxsize=4)
def _bands_over_bins(window: int, sample_rate: int) -> Array:
    """For each bin of a spectrum the shares of the mel bands that it is in: (bands, bins)."""
    _, filters = analysis(window, sample_rate)
    total = filters.sum(axis=1)
    return np.where(total > 0, filters.T / np.maximum(total, 1e-9), 0).astype(np.float32)
