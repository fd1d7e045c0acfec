"""Samples that a caller has in an array: checked, and brought to a model's rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import soxr

from wavasr.audio.reading import Samples, Source, stream_audio
from wavasr.audio.source import name_of
from wavasr.audio.track import LEAST_RATE, MOST_RATE
from wavasr.errors import AudioError


def is_recording(source: object) -> TypeGuard[Source]:
    """Whether something is a path, the bytes of a file or a binary stream, not samples."""
    return isinstance(source, str | Path | bytes) or hasattr(source, "read")


def pieces_of(
    source: Source | npt.ArrayLike, sample_rate: int | None, wanted: int, piece_s: float
) -> Iterator[Samples]:
    """(P,) float32 at the wanted rate, of a recording, or of samples (S,) whose rate is given.

    Raises:
        AudioError: the recording cannot be read, the samples are no sound, or whose rate is given is not clear.
    """
    if is_recording(source):
        if sample_rate is not None:
            raise AudioError(f"{name_of(source)}: a file tells its own sample rate; sample_rate is for arrays")
        return stream_audio(source, wanted, piece_s)
    samples = checked_samples(source)
    if sample_rate is None:
        raise AudioError("samples come without their rate; give sample_rate, in Hz")
    return _resampled(samples, sample_rate, wanted, piece_s)


def checked_samples(samples: object) -> Samples:
    """(S,) samples as float32; integers of 16 bits become [-1, 1].

    Raises:
        AudioError: they are not one channel of numbers.
    """
    values: npt.NDArray[Any] = np.asarray(samples)
    if values.ndim == 0:
        raise AudioError(f"{type(samples).__name__} is no recording; give a path, bytes, a binary file or samples")
    if values.ndim != 1:
        shape = values.shape
        raise AudioError(f"samples have the shape {shape}; expected one channel, (S,): choose one, or take their mean")
    if values.dtype == np.int16:
        return np.asarray(values / np.float32(32768), np.float32)
    if values.dtype.kind != "f":
        raise AudioError(f"samples are {values.dtype}; expected floats in [-1, 1], or int16")
    if not np.isfinite(values).all():
        raise AudioError("samples are not numbers (NaN or infinite)")
    return values.astype(np.float32, copy=False)


def check_rate(sample_rate: object) -> None:
    """Raise an AudioError for what is no sample rate in Hz."""
    if (
        not isinstance(sample_rate, int | float | np.integer | np.floating)
        or not LEAST_RATE <= float(sample_rate) <= MOST_RATE
    ):
        raise AudioError(f"sample_rate is {sample_rate!r}; expected {LEAST_RATE} to {MOST_RATE}, in Hz")


def _resampled(samples: Samples, sample_rate: int, wanted: int, piece_s: float) -> Iterator[Samples]:
    check_rate(sample_rate)
    size = round(piece_s * sample_rate)
    pieces = (samples[start : start + size] for start in range(0, len(samples), size))
    if sample_rate == wanted:
        yield from pieces
        return
    stream = soxr.ResampleStream(sample_rate, wanted, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield stream.resample_chunk(np.ascontiguousarray(piece))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
