"""Shards: many recordings in few tar files, as object stores and network disks like them.

    DIR/000000.tar      <key>.flac and <key>.json, one pair an utterance: what WebDataset and plain tar read
    DIR/index.jsonl     a manifest whose recordings are stretches of those files: `000000.tar#1536+20480`

Every command that takes a manifest takes the index. Recordings are copied byte for byte; pieces of longer ones become
FLAC of 16 bits.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import INDEX_NAME, Utterance, manifest_line
from wavasr.corpora.remote import read_bytes, write_bytes
from wavasr.errors import AudioError, CorpusError

_STRETCH = re.compile(r"(.+\.tar)#(\d+)\+(\d+)")
_RATE = 16000  # of pieces that are encoded anew
_LARGEST = 1 << 62  # bytes; no file is larger, and offsets beyond 63 bits cannot be asked for


def stretch_of(audio: Path) -> tuple[Path, int, int] | None:
    """The file, first byte and size that `x.tar#first+size` means; None for a recording of its own."""
    found = _STRETCH.fullmatch(str(audio))
    return (Path(found[1]), int(found[2]), int(found[3])) if found else None


def recording_bytes(audio: Path) -> bytes:
    """The bytes of a recording, wherever it lies.

    Raises:
        OSError: it cannot be read.
        CorpusError: a URL cannot be read, or a shard ends before its recording does.
    """
    stretch = stretch_of(audio)
    if stretch is None:
        return read_bytes(audio)
    path, first, size = stretch
    within = first + size <= _LARGEST
    content = read_bytes(path, first, size) if within else b""
    if not within or len(content) < size:
        raise CorpusError(f"{path}: ends before the recording at byte {first} does; copy the shard again")
    return content


@contextlib.contextmanager
def reading_bytes(audio: Path) -> Iterator[None]:
    """What goes wrong with the bytes of a recording names the recording."""
    try:
        yield
    except OSError as error:
        raise AudioError(f"{audio}: cannot be read ({error.strerror}); check the path") from error
    except AudioError as error:  # names the bytes
        raise AudioError(f"{audio}: {str(error).partition(': ')[2] or error}") from error


def write_shards(utterances: Iterable[Utterance], output: Path, shard_mb: float = 100.0) -> Iterator[tuple[str, int]]:
    """Write shards and then their index, each whole or not at all.

    Args:
        utterances: what goes into them, in this order.
        output: a folder or URL.
        shard_mb: how large a shard may grow.

    Yields:
        (name, utterances) of each shard that is written.

    Raises:
        WavasrError: a recording cannot be read, or a shard cannot be written.
    """
    lines: list[str] = []
    for number, group in enumerate(_groups(utterances, shard_mb * 2**20)):
        name = f"{number:06d}.tar"
        content, places = _tar(group, number)
        write_bytes(output / name, content)
        for (utterance, _, _), (first, size) in zip(group, places, strict=True):
            stored = replace(utterance, audio=Path(f"{name}#{first}+{size}"), offset_s=0.0)
            lines.append(manifest_line(stored, stored.audio.as_posix()))
        yield name, len(group)
    if not lines:
        raise CorpusError(f"{output}: there is nothing to write; the manifest is empty")
    write_bytes(output / INDEX_NAME, "".join(f"{line}\n" for line in lines).encode())


Entry = tuple[Utterance, str, bytes]  # with the suffix and the bytes of its recording


def _groups(utterances: Iterable[Utterance], limit: float) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    total = 0
    for utterance in utterances:
        entry = (utterance, *_recording(utterance))
        if group and total + len(entry[2]) > limit:
            yield group
            group, total = [], 0
        group.append(entry)
        total += len(entry[2])
    if group:
        yield group


def _recording(utterance: Utterance) -> tuple[str, bytes]:
    """Suffix and bytes; a piece of a longer recording is cut out."""
    with reading_bytes(utterance.audio):
        whole = recording_bytes(utterance.audio)
        if not utterance.offset_s and _is_all(whole, utterance):
            return _suffix(utterance.audio), whole
        piece = load_audio(whole, _RATE, utterance.offset_s, utterance.duration_s)
    import soundfile

    encoded = io.BytesIO()
    soundfile.write(encoded, np.clip(np.rint(piece * 32768), -32768, 32767).astype(np.int16), _RATE, format="FLAC")
    return ".flac", encoded.getvalue()


def _suffix(audio: Path) -> str:
    """How a recording's name ends; the name of one in a tar file stands 512 bytes before it."""
    stretch = stretch_of(audio)
    if stretch is None:
        return audio.suffix.lower()
    path, first, _ = stretch
    name = read_bytes(path, max(0, first - tarfile.BLOCKSIZE), tarfile.LENGTH_NAME)
    return Path(name.partition(b"\0")[0].decode("utf-8", "replace")).suffix.lower() or ".flac"


def _is_all(recording: bytes, utterance: Utterance) -> bool:
    """Whether an utterance that starts with its recording is all of it."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(recording)) as sound:
            return bool(sound.frames / sound.samplerate <= utterance.duration_s + 0.05)
    except soundfile.LibsndfileError:  # of another container: its bytes are kept
        return True


def _tar(group: list[Entry], number: int) -> tuple[bytes, list[tuple[int, int]]]:
    """A tar file, and where in it each recording lies: (first byte, size)."""
    stream = io.BytesIO()
    places = []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index, (utterance, suffix, content) in enumerate(group):
            key = f"{number:06d}-{index:06d}"
            places.append((_add(tar, stream, key + suffix, content), len(content)))
            record: dict[str, Any] = json.loads(manifest_line(replace(utterance, offset_s=0.0), key + suffix))
            _add(tar, stream, f"{key}.json", json.dumps(record, ensure_ascii=False).encode())
    return stream.getvalue(), places


def _add(tar: tarfile.TarFile, stream: io.BytesIO, name: str, content: bytes) -> int:
    """Add a member; the first byte of its content."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    blocks = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return stream.tell() - blocks
