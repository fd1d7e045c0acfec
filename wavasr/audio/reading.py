"""Any recording, from any file or stream, as float32 samples in [-1, 1] at the rate a model listens at.

    source -> whole? -> soundfile, else ffmpeg -> mean of the channels -> soxr -> blocks of (S,) float32

`load_audio` is the concatenation of what `stream_audio` yields: there is one path, and it needs memory for a block.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from wavasr.audio.container import indexed_mp3, missing_bytes, reason_unreadable
from wavasr.audio.opus import tidied
from wavasr.audio.sphere import mended
from wavasr.errors import AudioError

if TYPE_CHECKING:
    pass

Samples = npt.NDArray[np.float32]
Source = Path | str | bytes | BinaryIO

_BLOCK_SAMPLES = 1 << 18
_LOUDEST = 1e6
_SLACK_S = 0.1
_DECODER_SLACK_S = 0.02
# Some encoders count the frame that holds the index.
_MP3_SLACK_SAMPLES = 1152
_MP3_RUN_UP_SAMPLES = 10 * 1152


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
    """Seconds of audio in a file, from its header alone.

    Raises:
        AudioError: as in `load_audio`, as far as the header and the file's size tell.
    """
    with _local_file(path) as (file, name):
        opened = _open(file, name)
        if opened is None:
            return _ffmpeg_duration_s(file, name)
        with opened:
            _refuse_empty(opened.frames, name)
            return float(opened.frames / opened.samplerate)


def _decode(source: Source, sample_rate: int, offset_s: float, duration_s: float | None) -> Iterator[Samples]:
    """Blocks of (S,) float32 at `sample_rate`, checked."""
    if offset_s < 0 or (duration_s is not None and duration_s <= 0):
        raise AudioError(f"{_name(source)}: asked for {duration_s} s from {offset_s} s on; expected positive times")
    with _local_file(source) as (file, name):
        opened = _open(file, name)
        if opened is None:
            blocks: Iterable[Samples] = _read_ffmpeg(file, name, sample_rate, offset_s, duration_s)
        else:
            blocks = _resampled(_read_soundfile(opened, name, offset_s, duration_s), opened.samplerate, sample_rate)
        count = 0
        for block in blocks:
            if len(block):
                _refuse_bad_samples(block, name)
                count += len(block)
                yield block
        _refuse_empty(count, name)
        if duration_s is not None and count / sample_rate < duration_s - _SLACK_S:
            raise AudioError(
                f"{name}: asked for {duration_s:g} s from {offset_s:g} s on, but it ends after"
                f" {offset_s + count / sample_rate:.2f} s; correct the offset or duration"
            )


def _name(source: Source) -> str:
    if isinstance(source, Path | str):
        return "standard input" if source == "-" else str(source)
    if isinstance(source, bytes):
        return "audio bytes"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and not name.startswith("<") else "standard input"


@contextlib.contextmanager
def _local_file(source: Source) -> Iterator[tuple[Path, str]]:
    """The recording as a file that is there and not empty: decoders need to seek, so streams are spooled to disk."""
    name = _name(source)
    if isinstance(source, Path) or (isinstance(source, str) and source != "-"):
        _refuse_missing(Path(source), name)
        yield Path(source), name
        return
    with tempfile.TemporaryDirectory(prefix="wavasr-") as folder:
        path = Path(folder) / "stream"
        with path.open("wb") as spool:
            if isinstance(source, bytes):
                spool.write(source)
            else:
                shutil.copyfileobj(sys.stdin.buffer if isinstance(source, str) else source, spool)
        _refuse_missing(path, name)
        yield path, name


def _refuse_missing(path: Path, name: str) -> None:
    try:
        if path.is_dir():
            raise AudioError(f"{name}: is a folder; give the recordings in it, e.g. {path / '*.wav'}")
        if not path.exists():
            raise AudioError(f"{name}: no such file; check the path")
        if path.stat().st_size == 0 and path.is_file():
            raise AudioError(f"{name}: the file is empty (0 bytes); record or copy it again")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{name}: cannot be opened ({reason}); check the path and its permissions") from error


def _refuse_empty(count: int, name: str) -> None:
    if count == 0:
        raise AudioError(f"{name}: holds no samples (a header only); record or convert it again")


def _refuse_bad_samples(block: Samples, name: str) -> None:
    loudest = float(np.abs(block).max())
    if not math.isfinite(loudest):
        raise AudioError(f"{name}: has samples that are not numbers (NaN or infinite); export it again as 16-bit PCM")
    if loudest > _LOUDEST:
        raise AudioError(f"{name}: has samples of {loudest:.3g}; expected about -1 to 1: scale it or export it as PCM")


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read on from where it is.

    soundfile seeks to where it is after every read; an MP3 decoder loses what frames lean on and clicks each time.
    """

    def seekable(self) -> bool:
        return False


def _open(path: Path, name: str) -> soundfile.SoundFile | None:
    """The file opened by soundfile, or None where it is to be read by ffmpeg."""
    missing = missing_bytes(path)
    if missing:
        raise AudioError(f"{name}: is cut off, {missing} bytes of what its header announces are missing; copy it again")
    try:
        return _ForwardFile(tidied(path) or indexed_mp3(path) or mended(path) or path)
    except (soundfile.LibsndfileError, TypeError) as error:
        reason, ffmpeg_may_help = reason_unreadable(path)
        if ffmpeg_may_help and shutil.which("ffmpeg"):
            return None
        raise AudioError(f"{name}: {reason}") from error


def _read_soundfile(
    opened: soundfile.SoundFile, name: str, offset_s: float, duration_s: float | None
) -> Iterator[Samples]:
    """Blocks of (S,) float32 at the file's own rate, channels averaged."""
    with opened:
        is_mp3 = opened.format in ("MP3", "MPEG")
        start = round(offset_s * opened.samplerate)
        if start and start >= opened.frames:
            end_s = opened.frames / opened.samplerate
            raise AudioError(
                f"{name}: asked to start at {offset_s:g} s, but it ends at {end_s:.2f} s; lower the offset"
            )
        left = opened.frames - start
        if duration_s is not None:
            left = min(left, round(duration_s * opened.samplerate))
        try:
            if start:
                # An MP3 frame leans on those before it.
                run_up = min(start, _MP3_RUN_UP_SAMPLES) if is_mp3 else 0
                opened.seek(start - run_up)
                opened.read(run_up, dtype="float32")
            while left > 0:
                block = opened.read(min(left, _BLOCK_SAMPLES), dtype="float32", always_2d=True)
                if not len(block):
                    break
                left -= len(block)
                yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        except soundfile.LibsndfileError as error:
            reason = str(error.error_string).removeprefix("Error : ").rstrip(".")
            raise AudioError(f"{name}: is damaged or cut off ({reason}); copy it again") from error
        if left > (_MP3_SLACK_SAMPLES if is_mp3 else _DECODER_SLACK_S * opened.samplerate):
            missing_s = left / opened.samplerate
            raise AudioError(
                f"{name}: is cut off, {missing_s:.2f} s of what its header announces are missing; copy it again"
            )


def _resampled(blocks: Iterable[Samples], rate: int, wanted: int) -> Iterator[Samples]:
    if rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _read_ffmpeg(
    path: Path, name: str, sample_rate: int, offset_s: float, duration_s: float | None
) -> Iterator[Samples]:
    """What ffmpeg makes of a container that soundfile does not know, as blocks of (S,) float32."""
    command = ["ffmpeg", "-nostdin", "-v", "error", *(("-ss", str(offset_s)) if offset_s else ())]
    command += ["-i", f"file:{path}", *(("-t", str(duration_s)) if duration_s is not None else ()), "-vn"]
    command += ["-ac", "1", "-ar", str(sample_rate), "-f", "f32le", "pipe:1"]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        try:
            while data := process.stdout.read(4 * _BLOCK_SAMPLES):
                yield np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4").astype(np.float32, copy=False)
            code = process.wait()
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.kill()
                process.wait()
        complaints.seek(0)
        said = complaints.read().decode("utf-8", errors="replace").strip()
    _refuse_failed_ffmpeg(code, said, path, name)


def _refuse_failed_ffmpeg(code: int, said: str, path: Path, name: str) -> None:
    last = said.splitlines()[-1].replace(f"file:{path}", "") if said else f"exit code {code}"
    last = re.sub(r"\[[^]]*\]", "", last).strip(" :.")
    if "partial file" in said or "moov atom not found" in said:
        raise AudioError(f"{name}: is cut off (ffmpeg: {last}); copy it again")
    if "does not contain any stream" in said or "matches no streams" in said:
        raise AudioError(f"{name}: has no audio track; give a recording")
    if code:
        raise AudioError(f"{name}: ffmpeg cannot read it ({last}); convert it to WAV or FLAC")


def _ffmpeg_duration_s(path: Path, name: str) -> float:
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-i", f"file:{path}"]
    said = subprocess.run(command, capture_output=True, check=False).stderr.decode("utf-8", errors="replace")
    found = re.search(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", said)
    if found and "Audio:" in said:
        return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    return sum(len(block) for block in _read_ffmpeg(path, name, 16000, 0.0, None)) / 16000


# What networks see and predict ----------------------------------------------------------------------------------------
