"""SPHERE recordings that were copied as if they were text (no torch).

Some tools take CR LF (bytes 13, 10) and CR alone for a line's end, and write LF. A recording that lost one byte so is
noise from there on, since each sample now has the halves of two. Copies of the TIMIT sample are around in which a fifth
of the files is so. The size in the header tells how many bytes are missing, and smooth samples tell where they were.
(Where CR alone became LF, a sample is off by 3 or 768 of 32768, and stays so.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.container import sphere_fields

_MOST_LOST = 64
_NEWLINE, _RETURN = 0x0A, 0x0D


def mended(whole: bytes, lost: int) -> bytes | None:
    """A copy with the lost bytes put back; None where that does not explain what is missing.

    Only 16-bit samples of one channel are mended.

    Args:
        whole: the file's content.
        lost: how many bytes it is shorter than its header says.
    """
    fields = sphere_fields(whole[:4096])
    if not 0 < lost <= _MOST_LOST or fields.get("channel_count", "1") != "1" or fields.get("sample_n_bytes") != "2":
        return None
    start = int(whole.split(b"\n", 2)[1])
    data = np.frombuffer(whole, np.uint8, offset=start)
    ends = np.flatnonzero(data == _NEWLINE)
    if len(ends) < lost or (data == _RETURN).any():
        return None
    jumps = _jumps(data, fields.get("sample_byte_format") == "10")
    places = _places(jumps, ends, lost)
    restored = np.insert(data, places, _RETURN)
    if _aligned(_jumps(restored, fields.get("sample_byte_format") == "10")) >= _aligned(jumps):
        return None
    return whole[:start] + restored.tobytes()


def _jumps(data: NDArray[np.uint8], big_endian: bool) -> NDArray[np.float64]:
    """For each byte, if a sample began there: how far it lies from the sample two bytes before; (N,) -> (N,)."""
    low, high = (data[1:], data[:-1]) if big_endian else (data[:-1], data[1:])
    samples = high.astype(np.int8).astype(np.float64) * 256 + low
    jumps = np.zeros(len(data))
    jumps[2:-1] = np.abs(samples[2:] - samples[:-2])
    return jumps


def _aligned(jumps: NDArray[np.float64]) -> float:
    return float(jumps[::2].sum())


def _places(jumps: NDArray[np.float64], ends: NDArray[np.int64], lost: int) -> NDArray[np.int64]:
    """Before which of the line ends the lost bytes go, so that the jumps of the samples are smallest.

    After n bytes have been put back, samples begin at bytes of n's parity. Dynamic programming over n.
    """
    sums = [np.concatenate([[0.0], np.cumsum(jumps * (np.arange(len(jumps)) % 2 == parity))]) for parity in (0, 1)]
    costs = sums[0][ends]
    origins = []
    for count in range(1, lost):
        before = costs - sums[count % 2][ends]
        before = np.concatenate([[np.inf], before[:-1]])
        least = np.minimum.accumulate(before)
        origins.append(np.maximum.accumulate(np.where(before == least, np.arange(len(ends)) - 1, -1)))
        costs = least + sums[count % 2][ends]
    last = int(np.argmin(costs - sums[lost % 2][ends]))
    chosen = [last]
    for origin in reversed(origins):
        chosen.append(int(origin[chosen[-1]]))
    return np.asarray(ends[chosen[::-1]])
