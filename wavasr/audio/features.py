"""What networks see or predict instead of samples: mu-law classes, spectrogram, log-mel spectrum."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


def mu_law_encode(waveform: Tensor, levels: int = 256) -> Tensor:
    """Mu-law classes of samples: f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu), mu = levels - 1, evenly quantised.

    From WaveNet, arXiv 1609.03499, section 2.2. Samples beyond -1 and 1 count as -1 and 1.

    Args:
        waveform: any shape, float.
        levels: number of classes.

    Returns:
        The same shape, int64 in [0, levels).
    """
    from torchaudio.functional import mu_law_encoding

    classes: Tensor = mu_law_encoding(waveform.clamp(-1.0, 1.0), levels)
    return classes


def mu_law_decode(classes: Tensor, levels: int = 256) -> Tensor:
    """The samples in [-1, 1], float32, at the centres of mu-law classes; the inverse of `mu_law_encode`."""
    from torchaudio.functional import mu_law_decoding

    samples: Tensor = mu_law_decoding(classes, levels)
    return samples


def spectrogram(waveform: Tensor, sample_rate: int, window_ms: float = 25.0, hop_ms: float = 10.0) -> Tensor:
    """Power spectrogram under a Hann window; differentiable.

    Frame t is centred on the middle of samples [t * hop, (t + 1) * hop), as the frames of an encoder are; beyond
    its ends a waveform counts as silence.

    Args:
        waveform: (B, S) float.
        sample_rate: samples per second.
        window_ms: length of the window; the transform is the next power of two.
        hop_ms: step from frame to frame.

    Returns:
        (B, F, T) with F = transform / 2 + 1 and T = S // hop.
    """
    import torch

    hop = round(sample_rate * hop_ms / 1000)
    window = round(sample_rate * window_ms / 1000)
    size = _transform_size(sample_rate, window_ms)
    frames = waveform.shape[-1] // hop
    if frames == 0:
        return waveform.new_zeros(waveform.shape[0], size // 2 + 1, 0)
    before = (size - hop) // 2
    after = (frames - 1) * hop + size - before - waveform.shape[-1]
    padded = torch.nn.functional.pad(waveform, (before, after))
    taper = torch.hann_window(window, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.stft(padded, size, hop, window, taper, center=False, return_complex=True)  # (B, F, T)
    return spectrum.real.square() + spectrum.imag.square()


def log_mel(
    waveform: Tensor,
    sample_rate: int,
    bands: int = 80,
    window_ms: float = 25.0,
    hop_ms: float = 10.0,
    floor: float = 1e-6,
) -> Tensor:
    """Natural logarithm of mel-band energies (HTK's scale, triangles from 0 Hz to half the rate); differentiable.

    Args:
        waveform: (B, S) float.
        sample_rate: samples per second.
        bands: number of mel bands.
        window_ms: as in `spectrogram`.
        hop_ms: as in `spectrogram`.
        floor: added to the energies, so that silence has a logarithm.

    Returns:
        (B, bands, T) with T = S // hop.
    """
    import torch

    power = spectrogram(waveform, sample_rate, window_ms, hop_ms)
    triangles = torch.from_numpy(mel_filters(sample_rate, _transform_size(sample_rate, window_ms), bands))
    return torch.log(triangles.to(power) @ power + floor)


def _transform_size(sample_rate: int, window_ms: float) -> int:
    return 1 << (round(sample_rate * window_ms / 1000) - 1).bit_length()


def hz_to_mel(hz: npt.ArrayLike) -> Any:
    """HTK's mel scale: 2595 log10(1 + hz / 700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def mel_to_hz(mel: npt.ArrayLike) -> Any:
    """The inverse of `hz_to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0)


def band_filters(bands: int, window: int, sample_rate: int) -> npt.NDArray[np.float32]:
    """Gabor filters at equal distances on the mel scale, as long as their bands are narrow: (2 * bands, window).

    Each band has a cosine and a sine, whose energies together do not depend on the phase; every filter has unit norm.
    The bands lie between 60 Hz and 0.48 of the sample rate.

    Source: Zeghidour et al. 2018, "Learning filterbanks from raw speech for phone recognition", arXiv 1711.01161.
    """
    edges = mel_to_hz(np.linspace(hz_to_mel(60.0), hz_to_mel(0.48 * sample_rate), bands + 2))
    centres, deviations = edges[1:-1, None], (edges[2:, None] - edges[:-2, None]) / 4
    times = (np.arange(window) - (window - 1) / 2) / sample_rate
    envelopes = np.exp(-0.5 * (2 * np.pi * deviations * times) ** 2)
    phases = 2 * np.pi * centres * times
    filters = np.stack([envelopes * np.cos(phases), envelopes * np.sin(phases)], axis=1).reshape(2 * bands, window)
    unit: npt.NDArray[np.float32] = (filters / np.linalg.norm(filters, axis=1, keepdims=True)).astype(np.float32)
    return unit


@functools.lru_cache(maxsize=8)
def mel_filters(sample_rate: int, transform: int, bands: int) -> npt.NDArray[np.float32]:
    """(bands, transform // 2 + 1) triangles of height one, evenly spaced on the mel scale."""
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(sample_rate / 2), bands + 2))
    bins = np.linspace(0.0, sample_rate / 2, transform // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)), dtype=np.float32)
