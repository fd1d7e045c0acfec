"""Frames of one speaker in the manner of another: mean and spread of each cepstral coefficient, and the mean pitch."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wavasr.network.config import MEL_BANDS

Array = npt.NDArray[np.float32]

_LOUD = 8.0  # nats of a frame's mean log power below the loudest, 35 dB
_LEAST, _MOST = 0.6, 1.6  # factors of a spread


def manner(log_mels: list[Array]) -> Array:
    """Mean and spread of the cepstra of all frames with sound of recordings, (F, bands) each: (2, bands)."""
    loudness = [one.mean(axis=1) for one in log_mels]
    loud = np.concatenate([one[mean > mean.max() - _LOUD] for one, mean in zip(log_mels, loudness, strict=True)])
    cepstra = loud @ _cosines()
    return np.stack([cepstra.mean(axis=0), cepstra.std(axis=0)]).astype(np.float32)


class Conversion(NamedTuple):
    """From one speaker to another.

    Attributes:
        own: mean and spread of the first one's cepstra (2, bands), see `manner`.
        other: those of the second.
        log_lag: what the second one's pitch period has more.
    """

    own: Array
    other: Array
    log_lag: float

    def spectrum(self, log_mel: Array) -> Array:
        """Log-mel spectra (F, bands) as the second speaker has them, as loud as before."""
        cepstra = log_mel @ _cosines()
        wider = np.clip(self.other[1] / np.maximum(self.own[1], 1e-3), _LEAST, _MOST)
        found = self.other[0] + wider * (cepstra - self.own[0])
        found[:, 0] = cepstra[:, 0]
        return np.asarray(found @ _cosines().T, dtype=np.float32)


@functools.cache
def _cosines() -> npt.NDArray[np.float64]:
    """The orthonormal discrete cosine transform of the mel bands, (bands, coefficients)."""
    bands = np.arange(MEL_BANDS)
    scale = np.sqrt(np.where(bands == 0, 1, 2) / MEL_BANDS)
    return np.asarray(scale * np.cos(np.pi / MEL_BANDS * (bands[:, None] + 0.5) * bands), np.float64)
