"""What the first bytes of a file tell before a decoder reads it: is it audio, and is all of it there (no torch).

Decoders read a file that was cut off in copying as if it were a shorter recording; the sizes in its header tell.
"""

from __future__ import annotations

import io
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

# Sizes from 2 GiB less a little on stand for "not known yet" in headers that were written to a pipe.
_UNKNOWN_SIZE = 0x7FFF0000
# Files of real corpora, cut by whoever copied them, lack a sample or two at the end.
_SLACK_FRAMES = 16
_OGG_TAIL = 1 << 17
_INSTALL = "install ffmpeg so that it can be read, or convert it to WAV or FLAC"

_FOREIGN = (
    (4, b"ftyp", "an MP4 or M4A container"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska container"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a Windows Media container"),
    (0, b"#!AMR", "an AMR recording"),
    (0, b"FLV\x01", "a Flash video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"MAC ", "a Monkey's Audio recording"),
    (0, b"wvpk", "a WavPack recording"),
    (0, b"\xff\xf1", "an AAC recording"),
    (0, b"\xff\xf9", "an AAC recording"),
    (4, b"moov", "a QuickTime container"),
    (4, b"mdat", "a QuickTime container"),
    (4, b"wide", "a QuickTime container"),
)

_KNOWN = (
    (0, b"RIFF", "WAV"),
    (0, b"RIFX", "WAV"),
    (0, b"RF64", "WAV"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (0, b"FORM", "AIFF"),
    (0, b"NIST_1A", "NIST SPHERE"),
    (0, b"caff", "CAF"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
)

_OTHER = (
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    (0, b"%PDF", "a PDF document", "give a recording"),
    (0, b"\x89PNG", "a picture", "give a recording"),
    (0, b"\xff\xd8\xff", "a picture", "give a recording"),
)


def head_of(path: Path, count: int, start: int = 0) -> bytes:
    """The `count` bytes of a file from `start` on, or what there is of them."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)


def reason_unreadable(path: Path) -> tuple[str, bool]:
    """Why soundfile could not open a file that is there, with the remedy; and whether ffmpeg might read it."""
    head = head_of(path, 2048)
    if head.startswith(b"NIST_1A") and b"shorten" in head:
        return "is a SPHERE file compressed with shorten; unpack it first: sph2pipe -f wav IN OUT", False
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the recording; fetch it with: git lfs pull", False
    for at, magic, what, remedy in _OTHER:
        if head[at : at + len(magic)] == magic:
            return f"is {what}, not audio; {remedy}", False
    for at, magic, what in _FOREIGN:
        if head[at : at + len(magic)] == magic:
            return f"is {what}; {_INSTALL}", True
    if _is_text(head):
        return "is a text file, not audio; give a recording (WAV, FLAC, Ogg, MP3, SPHERE)", False
    for at, magic, what in _KNOWN:
        if head[at : at + len(magic)] == magic:
            fault = f"begins as {what}, but its header is damaged or cut off, or its encoding is an uncommon one"
            return f"{fault}; copy it again, or convert it to WAV or FLAC", True
    return f"is not audio in a known format; {_INSTALL if not shutil.which('ffmpeg') else 'convert it'}", True


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\r\n\t\f\ufeff" for c in text)


# MP3 ------------------------------------------------------------------------------------------------------------------

_MP3_KBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def indexed_mp3(path: Path) -> io.BytesIO | None:
    """A copy of an MP3 that says how many frames it has; None where it says so already or is another format.

    Without that, libsndfile takes the first frame's bit rate for all and drops what lies beyond the length it guesses:
    most of a recording, where the bit rate varies.
    """
    head = head_of(path, 10)
    start = 0
    if head[:3] == b"ID3":
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    first = head_of(path, 256, start)
    if _mp3_frame_bytes(first[:4]) == 0 or any(tag in first for tag in (b"Xing", b"Info", b"VBRI")):
        return None
    data = head_of(path, -1, start)
    return io.BytesIO(_mp3_index(data, _count_mp3_frames(data)) + data)


def _mp3_frame_bytes(header: bytes) -> int:
    """Length of the layer III frame that begins with these four bytes; 0 where none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, kbits, rate = (header[1] >> 3) & 3, header[2] >> 4, (header[2] >> 2) & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return 0
    bytes_per_kbit = 144_000 if version == 3 else 72_000
    return bytes_per_kbit * _MP3_KBITS[3 if version == 3 else 2][kbits] // _MP3_RATES[version][rate] + (
        (header[2] >> 1) & 1
    )


def _count_mp3_frames(data: bytes) -> int:
    count = at = 0
    while 0 <= at < len(data) - 3:
        length = _mp3_frame_bytes(data[at : at + 4])
        if length and at + length <= len(data):
            count += 1
            at += length
        else:
            at = data.find(b"\xff", at + 1)
    return count


def _mp3_index(data: bytes, frames: int) -> bytes:
    """A silent frame like the first, of the highest bit rate, with the number of frames where players look for it."""
    header = bytes([0xFF, data[1] | 1, (data[2] & 0x0C) | 0xE0, data[3]])
    mono, mpeg1 = data[3] >> 6 == 3, (data[1] >> 3) & 3 == 3
    side_information = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    tag = header + bytes(side_information) + b"Xing" + struct.pack(">II", 1, frames)
    return tag.ljust(_mp3_frame_bytes(header), b"\0")


# What is missing ------------------------------------------------------------------------------------------------------


def missing_bytes(path: Path) -> int:
    """How many bytes a file is shorter than its header announces; 0 when it is whole or the header does not say."""
    size = path.stat().st_size
    head = head_of(path, 4096)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _missing_of_riff(path, size, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _shortage(8 + struct.unpack(">I", head[4:8])[0], size, slack=1)
    if head.startswith(b".snd") and len(head) >= 12:
        start, length = struct.unpack(">II", head[4:12])
        return _shortage(start + length, size) if length < _UNKNOWN_SIZE else 0
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _shortage(int(struct.unpack("<Q", head[16:24])[0]), size, slack=8)
    if head.startswith(b"NIST_1A"):
        return _missing_of_sphere(head, size)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _missing_of_matroska(head, size)
    if head.startswith(b"OggS"):
        return _missing_of_ogg(path, size)
    return 0


def _shortage(announced: int, size: int, slack: int = 0) -> int:
    if announced >= _UNKNOWN_SIZE and size < _UNKNOWN_SIZE:
        return 0
    return announced - size if announced - size > slack else 0


def _missing_of_riff(path: Path, size: int, order: str) -> int:
    """Walk the chunks up to the samples."""
    at, frame, long_length = 12, 1, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            name, length = struct.unpack(f"{order}4sI", file.read(8))
            if name == b"fmt ":
                frame = max(1, struct.unpack(f"{order}12xH", file.read(14).ljust(14, b"\1"))[0])
            if name == b"ds64":
                long_length = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
            if name == b"data":
                if length >= _UNKNOWN_SIZE and not long_length:
                    return 0
                return _shortage(at + 8 + (long_length or length), size, slack=_SLACK_FRAMES * frame)
            at += 8 + length + length % 2
    return 0


class SphereLayout(NamedTuple):
    """Where the samples of a SPHERE file begin and should end, bytes of a sample of all channels, and their order."""

    start: int
    end: int
    frame: int
    big_endian: bool


def sphere_layout(head: bytes) -> SphereLayout | None:
    """What the first bytes of a file say, if it is a SPHERE file with plain samples."""
    lines = [line.split() for line in head.decode("latin-1").split("end_head")[0].splitlines()]
    fields = {parts[0]: parts[2] for parts in lines if len(parts) == 3}
    if not head.startswith(b"NIST_1A") or "shorten" in fields.get("sample_coding", ""):
        return None
    try:
        start = int(lines[1][0])
        frame = int(fields.get("channel_count", "1")) * int(fields["sample_n_bytes"])
        end = start + int(fields["sample_count"]) * frame
    except (KeyError, ValueError, IndexError):
        return None
    return SphereLayout(start, end, frame, fields.get("sample_byte_format") == "10")


def _missing_of_sphere(head: bytes, size: int) -> int:
    layout = sphere_layout(head)
    return _shortage(layout.end, size, slack=_SLACK_FRAMES * layout.frame) if layout else 0


def _missing_of_matroska(head: bytes, size: int) -> int:
    """An EBML header, then one segment; lengths have as many bytes as the first byte has leading zeros, plus one."""

    def length_at(at: int) -> tuple[int, int]:
        count = 9 - head[at].bit_length()
        value = int.from_bytes(head[at : at + count], "big") & ((1 << 7 * count) - 1)
        return at + count, value if value != (1 << 7 * count) - 1 else 0

    try:
        at, length = length_at(4)
        if head[at + length : at + length + 4] != b"\x18\x53\x80\x67":
            return 0
        at, length = length_at(at + length + 4)
    except IndexError:
        return 0
    return max(0, at + length - size)


def _missing_of_ogg(path: Path, size: int) -> int:
    """The last page names its own length."""
    start = max(0, size - _OGG_TAIL)
    tail = head_of(path, _OGG_TAIL, start)
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return 0
    if len(tail) < at + 27:
        return at + 27 - len(tail)
    segments = tail[26 + at]
    end = at + 27 + segments + sum(tail[at + 27 : at + 27 + segments])
    if end < len(tail) and b"OggS".startswith(tail[end : end + 4]):
        return 27 - (len(tail) - end)
    return max(0, end - len(tail))
