"""Any recording, from any file or stream, as float32 samples in [-1, 1] at the rate of a model.

    source -> Input -> FFmpeg (PyAV) -> mean of the channels -> soxr -> blocks of (S,) float32

`load_audio` is the concatenation of what `stream_audio` yields: there is one path, and it needs memory for a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from wavasr.audio.source import AUDIO_SUFFIXES, Input, Source, is_pipe, name_of, opened
from wavasr.audio.track import Samples, Track
from wavasr.errors import AudioError

__all__ = ["AUDIO_SUFFIXES", "Samples", "Source", "audio_duration_s", "load_audio", "stream_audio"]

_SLACK_S = 0.1


def load_audio(
    source: Source, sample_rate: int = 16000, offset_s: float = 0.0, duration_s: float | None = None
) -> Samples:
    """Read a recording as one channel at one rate.

    Args:
        source: a path, `"-"` for standard input, the bytes of a file, or a binary stream.
        sample_rate: rate of the result; the recording is resampled by soxr's high-quality filter where it differs.
        offset_s: where to start, in seconds.
        duration_s: how much to read; None reads to the end.

    Returns:
        (S,) float32, the mean of the channels.

    Raises:
        AudioError: no recording there, not audio, cut off, without samples, or with samples that are not numbers.
    """
    return np.concatenate(list(_decode(source, sample_rate, offset_s, duration_s)))


def stream_audio(source: Source, sample_rate: int = 16000, chunk_s: float = 30.0) -> Iterator[Samples]:
    """Read a recording piece by piece in flat memory; the pieces joined are what `load_audio` returns.

    Args:
        source: as in `load_audio`.
        sample_rate: rate of the result.
        chunk_s: seconds in each piece but the last, which may be shorter.

    Yields:
        (S,) float32 with S = round(chunk_s * sample_rate).

    Raises:
        AudioError: as in `load_audio`; possibly after the first pieces, when the fault lies further on.
    """
    size = round(chunk_s * sample_rate)
    if size < 1:
        raise ValueError(f"chunk_s is {chunk_s}; expected at least one sample at {sample_rate} Hz")
    held: list[Samples] = []
    count = 0
    for block in _decode(source, sample_rate, 0.0, None):
        held.append(block)
        count += len(block)
        if count >= size:
            joined = np.concatenate(held)
            whole = count - count % size
            yield from (joined[start : start + size] for start in range(0, whole, size))
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def audio_duration_s(path: Path | str) -> float:
    """Seconds of audio in a file, mostly without decoding it; to a frame what `load_audio` reads.

    Of a pipe it is 0.0: to know would be to use it up.

    Raises:
        AudioError: as in `load_audio`, as far as the header, the packets and the file's size tell.
    """
    if is_pipe(path):
        return 0.0
    told_s = _in_all_tracks(path, Track.packets_s)
    if told_s is None:
        told_s = _in_all_tracks(path, lambda track: sum(len(block) / rate for rate, block in track.blocks()))
    _refuse_empty(bool(told_s), name_of(path))
    return told_s or 0.0


def _in_all_tracks(path: Path | str, length_s: Callable[[Track], float | None]) -> float | None:
    total_s = 0.0
    with opened(path) as file:
        for track in _tracks(file):
            with track:
                if (track_s := length_s(track)) is None:
                    return None
                total_s += track_s
    return total_s


def _decode(source: Source, sample_rate: int, offset_s: float, duration_s: float | None) -> Iterator[Samples]:
    """Blocks of (S,) float32 at `sample_rate`, checked."""
    name = name_of(source)
    if offset_s < 0 or (duration_s is not None and duration_s <= 0):
        raise AudioError(f"{name}: asked for {duration_s} s from {offset_s} s on; expected positive times")
    with opened(source) as file:
        count = 0
        for block in _resampled(_between(file, offset_s, duration_s), sample_rate):
            if len(block):
                count += len(block)
                yield block
    _refuse_empty(count > 0, name)
    if duration_s is not None and count / sample_rate < duration_s - _SLACK_S:
        raise AudioError(
            f"{name}: asked for {duration_s:g} s from {offset_s:g} s on, but it ends after"
            f" {offset_s + count / sample_rate:.2f} s; correct the offset or duration"
        )


def _between(file: Input, offset_s: float, duration_s: float | None) -> Iterator[tuple[int, Samples]]:
    """(rate, (S,) float32) of the recordings in a file, one behind the other, from an offset on."""
    before_s, left_s = 0.0, duration_s
    found = False
    for track in _tracks(file):
        with track:
            for rate, block in track.blocks(max(0, round((offset_s - before_s) * track.rate))):
                found = True
                if left_s is None:
                    yield rate, block
                    continue
                yield rate, block[: round(left_s * rate)]
                left_s -= len(block) / rate
                if round(left_s * rate) <= 0:
                    return
            before_s += track.end / track.rate
    if offset_s and not found:
        raise AudioError(
            f"{file.source_name}: asked to start at {offset_s:g} s, but it ends at {before_s:.2f} s; lower the offset"
        )


def _tracks(file: Input) -> Iterator[Track]:
    yield Track(file)
    while file.next_part():
        yield Track(file)


def _resampled(blocks: Iterable[tuple[int, Samples]], wanted: int) -> Iterator[Samples]:
    """One stream at the wanted rate; where the rate of the recording changes, another filter begins."""
    import soxr

    rate, stream = wanted, None
    for block_rate, block in blocks:
        if block_rate != rate:
            if stream is not None:
                yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            rate, stream = block_rate, None
            if rate != wanted:
                stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
        yield block if stream is None else stream.resample_chunk(np.ascontiguousarray(block))
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _refuse_empty(is_there: bool, name: str) -> None:
    if not is_there:
        raise AudioError(f"{name}: has no samples, or too few; record or convert it again")
