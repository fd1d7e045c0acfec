"""Mu-law classes of samples, as `wavasr.audio.features` computes them in torch, and how wide the classes are."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def encode(samples: npt.NDArray[np.floating], levels: int = 256) -> npt.NDArray[np.int64]:
    """Classes in [0, levels) of samples; those beyond -1 and 1 count as -1 and 1 (arXiv 1609.03499, section 2.2)."""
    mu = levels - 1.0
    x = np.clip(samples, -1.0, 1.0)
    companded = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    return np.asarray((companded + 1) / 2 * mu + 0.5, dtype=np.int64)


@functools.lru_cache(maxsize=4)
def centres(levels: int = 256) -> Array:
    """The sample in [-1, 1] that each class stands for: (levels,) float32."""
    return _expand(np.arange(levels) / (levels - 1.0) * 2 - 1, levels).astype(np.float32)


@functools.lru_cache(maxsize=4)
def log2_widths(levels: int = 256) -> Array:
    """The logarithm of the width of each class: (levels,) float32; the classes fill -1 to 1."""
    inner = (np.arange(levels - 1) + 0.5) / (levels - 1.0) * 2 - 1
    edges = np.pad(_expand(inner, levels), 1, constant_values=(-1.0, 1.0))
    return np.asarray(np.log2(np.diff(edges)), dtype=np.float32)


def _expand(companded: npt.NDArray[np.floating], levels: int) -> npt.NDArray[np.float64]:
    mu = levels - 1.0
    return np.asarray(np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu, dtype=np.float64)
