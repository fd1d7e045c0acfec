"""Samples as clients send them, as float32 in [-1, 1]: 16-bit PCM, and the two companding laws of G.711."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import AudioError

Floats = NDArray[np.float32]
LOWEST_HZ, HIGHEST_HZ = 4000, 192_000
_BYTES = {"s16le": 2, "f32le": 4, "mulaw": 1, "alaw": 1}


class Samples:
    """Decodes a stream of bytes; a sample that is cut in two by a message's end waits for the next one."""

    def __init__(self, encoding: str = "s16le") -> None:
        if encoding not in _BYTES:
            raise AudioError(f"the audio format is {encoding!r}; expected one of {', '.join(_BYTES)}")
        self._encoding = encoding
        self._rest = b""

    def __call__(self, content: bytes) -> Floats:
        """Bytes to (S,) float32.

        Raises:
            AudioError: samples that are not numbers.
        """
        content = self._rest + content
        whole = len(content) - len(content) % _BYTES[self._encoding]
        self._rest = content[whole:]
        return decode(content[:whole], self._encoding)


def decode(content: bytes, encoding: str) -> Floats:
    """Whole samples to (S,) float32.

    Raises:
        AudioError: samples that are not numbers.
    """
    if encoding == "s16le":
        return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(32768)
    if encoding == "f32le":
        samples = np.frombuffer(content, "<f4").astype(np.float32)
        if not np.isfinite(samples).all():
            raise AudioError("the audio has samples that are not numbers")
        return samples
    table = _mu_law() if encoding == "mulaw" else _a_law()
    return table[np.frombuffer(content, np.uint8)]


def checked_rate(value: object) -> int:
    """A sample rate that a client gives.

    Raises:
        AudioError: not a number, or out of range.
    """
    if not isinstance(value, int | float) or not LOWEST_HZ <= value <= HIGHEST_HZ:
        raise AudioError(f"the sample rate is {value!r}; expected {LOWEST_HZ} to {HIGHEST_HZ}")
    return int(value)


@functools.cache
def _mu_law() -> Floats:
    """ITU-T G.711, table 2a: complemented sign, three bits of exponent, four of mantissa."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = ((mantissa.astype(np.int32) * 8 + 132) << exponent) - 132
    return (np.where(code & 128, -magnitude, magnitude) / np.float32(32768)).astype(np.float32)


@functools.cache
def _a_law() -> Floats:
    """ITU-T G.711, table 1a: even bits inverted, sign, three bits of exponent, four of mantissa."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = np.where(exponent == 0, mantissa * 16 + 8, (mantissa * 16 + 264) << np.maximum(exponent - 1, 0))
    return (np.where(code & 128, magnitude, -magnitude) / np.float32(32768)).astype(np.float32)
