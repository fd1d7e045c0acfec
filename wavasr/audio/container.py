"""What the bytes of a file tell beside its sound: is it audio, what its header announces, is all of it there.

FFmpeg plays what it finds: a recording that was cut off in copying becomes a shorter one without a word. The sizes in
its header tell. Headers that were written to a pipe say "unknown" in some way of their own; those promise nothing.

Functions take `peek(at, count)`, which returns the `count` bytes from `at` on, or what there is of them (of a pipe:
what has been read already), and the `size` in bytes, None for a pipe.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Peek = Callable[[int, int], bytes]

# 32-bit sizes from here on stand for "not known yet", as do 64-bit sizes that no disk holds.
_UNKNOWN_SIZE = 0x7FFF0000
_UNKNOWN_LONG = 1 << 60
_SLACK_BYTES = (64, 4096)
_SLACK_SHARE = 0.01
_MOST_CHUNKS = 100_000
_MOST_SAMPLES = (1 << 36) - 1
_MOST_PADDING = 1 << 16
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"

_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<smil", b"<MPD", b"v=0", b"[playlist]", b"[Reference]")
_NO_AUDIO = (
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"BZh", "a bzip2 archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"%PDF", "a PDF document", "give a recording"),
    (b"\x89PNG", "a picture", "give a recording"),
    (b"\xff\xd8\xff", "a picture", "give a recording"),
    (b"GIF8", "a picture", "give a recording"),
)
# Of these joined ones FFmpeg plays the first only, or the first two.
_JOINABLE = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff", b".snd", b"\x1a\x45\xdf\xa3")
RIFFS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")
# Of these the first bytes come again where another begins; needed where the header does not say how long the first is.
_TOLD_BY_HEAD = (*_JOINABLE[:-1], b"FLV\x01", b"TTA1", b"Crea", b"\x30\x26\xb2\x75", b"#!AM")
_HEAD_TOLD, _AMR_HEAD, _SCANNED = 16, 6, 1 << 20
_FLAC = rb"fLaC[\0\x80]\0\0\x22"  # the marker, and the head of the block that follows it
FLAC_BYTES = 8
_W64_GUID = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # of all chunks behind their names
# Containers that are read front to back. Others may keep their index at the end.
_STREAMABLE = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"fLaC", b"OggS", b"ID3", b".snd", b"NIST_1A", b"\x1a\x45\xdf\xa3")

# G.721 and, of AU, G.723 with 3 and 5 bits; of WAV NMS.
_AU_ADPCM = (b"\0\0\0\x17", b"\0\0\0\x19", b"\0\0\0\x1a")
_WAV_ADPCM = (b"\x40\0", b"\x38\0")


@dataclass(frozen=True)
class Announced:
    """What a header promises.

    Attributes:
        end: the byte at which the file, or this part of it, ends; None where the header does not say.
        samples: so many samples in each channel; None where the header does not say.
        mp3_frames: so many MPEG frames; None where the header does not say.
        flac_at: where a FLAC stream begins; None in other containers.
        mended: sizes by their offsets, where FFmpeg would stop at the ones in the header.
    """

    end: int | None = None
    samples: int | None = None
    mp3_frames: int | None = None
    flac_at: int | None = None
    mended: dict[int, bytes] = field(default_factory=dict)


def refusal(head: bytes) -> str | None:
    """Why a file with these first bytes is no recording, with the remedy; None where it may be one."""
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the recording; fetch it with: git lfs pull"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLISTS):
        return "is a playlist or description, not a recording; give the recordings that it names"
    for magic, what, remedy in _NO_AUDIO:
        if head.startswith(magic):
            return f"is {what}, not audio; {remedy}"
    if is_text(head):
        return "is a text file, not audio; give a recording (WAV, FLAC, Ogg, MP3, M4A, SPHERE ...)"
    return None


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 text."""
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    # A SPHERE header is text, padded by spaces.
    return not head.startswith(b"NIST_1A") and all(c.isprintable() or c in "\r\n\t\f\ufeff" for c in text)


def is_streamable(head: bytes) -> bool:
    """Whether a container that begins so can be read from a pipe as it comes."""
    return head.startswith(_STREAMABLE) or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


def announced(peek: Peek, size: int | None) -> Announced:
    """What the header of the container at byte 0 promises."""
    head = peek(0, 64)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _riff(peek, size) if head[8:12] == b"WAVE" else Announced(end=_form_end(head, "<"))
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _aiff(peek, size)
    if head[:16] == _W64_RIFF:
        return _w64(peek, size)
    if head[:4] == b"caff":
        return _caf(peek, size)
    if head[:4] == b".snd" and len(head) >= 24:
        return _au(head, size)
    if head[:7] == b"NIST_1A":
        return Announced(end=_sphere_end(peek(0, 4096)))
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Announced(end=_matroska_end(head))
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return Announced(end=_mov_end(peek))
    start = after_id3(peek)
    if peek(start, 4) == b"fLaC":
        samples = int.from_bytes(peek(start + 21, 5), "big") & _MOST_SAMPLES
        return Announced(samples=samples if 0 < samples < _MOST_SAMPLES else None, flac_at=start)
    return _mp3(peek(start, 4096))


def missing_bytes(promise: Announced, size: int, tail: bytes) -> int:
    """How many bytes a file is shorter than promised, 0 where it is whole or not clearly shorter.

    Args:
        promise: of its header.
        size: how many bytes there are.
        tail: of an Ogg file the last 128 KiB, since its last page names its own length; else nothing.
    """
    if promise.end is None:
        return _missing_of_ogg(tail)
    least, most = _SLACK_BYTES
    slack = max(least, min(most, round(promise.end * _SLACK_SHARE)))
    return promise.end - size if promise.end - size > slack else 0


def joined_at(promise: Announced, head: bytes, peek: Peek | None) -> int | None:
    """Where a second recording of the same container begins behind the first; None where none does.

    In others FFmpeg goes on by itself. Of a pipe (`peek` is None) this is where one may begin.
    """
    if head[:4] == b"OggS":
        return 0 if peek is None else _second_link(peek)
    if promise.flac_at is not None:
        return None if peek is None else next_flac(peek, promise.flac_at + FLAC_BYTES)
    has_chunks_behind = head[:4] == b"caff"
    is_told = has_chunks_behind or (promise.end is None and head[:4] in _TOLD_BY_HEAD)
    if is_told and peek is not None:
        told = _AMR_HEAD if head[:4] == b"#!AM" else _HEAD_TOLD
        return _again(head[:told], peek, promise.end or told)
    if promise.end is None or (head[:4] not in _JOINABLE and head[4:8] != b"ftyp"):
        return None
    if peek is None:
        is_riff = head[:4] in RIFFS
        order = ">" if head[:4] in (b"RIFX", b"FORM") else "<"
        end = max(promise.end, (_form_end(head, order) or 0) if is_riff else 0)
        return end + end % 2 if is_riff else end
    magic = slice(4, 8) if head[4:8] == b"ftyp" else slice(0, 4)
    ends = (promise.end, promise.end + promise.end % 2)
    return next((at for at in ends if peek(at, 8)[magic] == head[magic]), None)


def ogg_page(peek: Peek, at: int) -> tuple[int, bool] | None:
    """(its end, whether it is the first of a stream) of the Ogg page that begins there; None where none does."""
    head = peek(at, 27)
    if len(head) < 27 or head[:4] != b"OggS":
        return None
    return at + 27 + head[26] + sum(peek(at + 27, head[26])), bool(head[5] & 2)


def _second_link(peek: Peek) -> int | None:
    """Where the first pages of another recording follow the pages of this one (RFC 3533, section 4).

    FFmpeg goes on by itself, but loses links of one page.
    """
    at, is_within = 0, False
    while (page := ogg_page(peek, at)) is not None:
        end, is_first = page
        if is_first and is_within:
            return at
        at, is_within = end, not is_first
    return None


def next_flac(peek: Peek, at: int) -> int | None:
    """Where another FLAC stream begins; FFmpeg takes its header for a damaged frame, and loses what is around it."""
    while len(block := peek(at, _SCANNED)) >= FLAC_BYTES:
        if found := re.search(_FLAC, block):
            return at + found.start()
        at += len(block) - FLAC_BYTES + 1
    return None


def _again(head: bytes, peek: Peek, at: int) -> int | None:
    """Where the same bytes come again, from `at` on."""
    while len(block := peek(at, _SCANNED)) >= len(head):
        if (found := block.find(head)) >= 0:
            return at + found
        at += len(block) - len(head) + 1
    return None


# Containers -----------------------------------------------------------------------------------------------------------


def _chunks(peek: Peek, at: int, order: str) -> Iterator[tuple[int, bytes, int]]:
    """(where its content begins, name, size) of each chunk of a RIFF or IFF file."""
    for _ in range(_MOST_CHUNKS):
        header = peek(at, 8)
        if len(header) < 8:
            return
        name, size = struct.unpack(f"{order}4sI", header)
        yield at + 8, name, size
        at += 8 + size + size % 2


def _form_end(head: bytes, order: str) -> int | None:
    length = int(struct.unpack(f"{order}I", head[4:8].ljust(4, b"\0"))[0])
    return 8 + length if 0 < length < _UNKNOWN_SIZE else None


def _riff(peek: Peek, size: int | None) -> Announced:
    order = ">" if peek(0, 4) == b"RIFX" else "<"
    long_size, long_at = 0, 0
    for at, name, length in _chunks(peek, 12, order):
        if name == b"ds64":
            long_size, long_at = int(struct.unpack("<8xQ", peek(at, 16).ljust(16, b"\0"))[0]), at + 8
        if name == b"data":
            known = length if length != 0xFFFFFFFF else long_size
            is_known = 0 < known < (_UNKNOWN_SIZE if length != 0xFFFFFFFF else _UNKNOWN_LONG) or (
                # Beyond 2 GiB a size is known when the file really is that large.
                size is not None and 0 < known <= size
            )
            if is_known and _ends_chunk(peek, at + known, order, size):
                return Announced(end=max(at + known, _joined_form(peek, order)))
            if long_at:
                there = size - at if size is not None else _UNKNOWN_LONG
                return Announced(mended={long_at: struct.pack("<Q", there)})
            return Announced(mended={at - 4: b"\xff\xff\xff\xff"})
    return Announced()


def is_for_libsndfile(head: bytes) -> bool:
    """Whether FFmpeg would take the samples for others, as it does with big-endian WAV and with some ADPCM.

    It reads G.721 and G.723 as G.726, and NMS as AMR: what comes is distorted or noise.
    """
    if head[:4] == b".snd":
        return head[12:16] in _AU_ADPCM
    at = head.find(b"fmt ") + 8
    return head[:4] == b"RIFX" or (head[:4] in (b"RIFF", b"RF64") and at > 8 and head[at : at + 2] in _WAV_ADPCM)


def _joined_form(peek: Peek, order: str) -> int:
    """The end of the whole form where another begins; else 0."""
    end = _form_end(peek(0, 12), order) or 0
    end += end % 2
    return end if end and peek(end, 4) == peek(0, 4) else 0


def _ends_chunk(peek: Peek, end: int, order: str, size: int | None) -> bool:
    """Whether a chunk may end there: at the file's end or beyond, or another begins; else its size is wrong."""
    if size is None or end + 8 >= size:
        return True
    for at in (end, end + end % 2):
        name, length = struct.unpack(f"{order}4sI", peek(at, 8))
        if re.fullmatch(rb"[ -~]{4}", name) and (at + 8 + length <= size + 1 or name == peek(0, 4)):
            return True
    return size - end <= _MOST_PADDING and not any(peek(end, size - end))


def is_no_chunk(coming: bytes) -> bool:
    """Whether these bytes are sound rather than a chunk's beginning, padding or a tag."""
    return len(coming) > 1024 and any(coming) and not any(re.match(rb"[ -~]{4}", coming[at : at + 4]) for at in (0, 1))


def _aiff(peek: Peek, size: int | None) -> Announced:
    mended = {}
    for at, name, length in _chunks(peek, 12, ">"):
        if name == b"COMM" and int.from_bytes(peek(at + 2, 4), "big") >= _UNKNOWN_SIZE:
            mended[at + 2] = bytes(4)
        if name == b"SSND":
            if 8 < length < _UNKNOWN_SIZE and _ends_chunk(peek, at + length, ">", size):
                if (_form_end(peek(0, 12), ">") or 0) < at + length:
                    mended[4] = struct.pack(">I", at + length - 8)
                return Announced(end=max(at + length, _joined_form(peek, ">")), mended=mended)
            there = struct.pack(">I", min(size - at if size is not None else _UNKNOWN_SIZE, 0xFFFFFFFE))
            return Announced(mended=mended | {4: struct.pack(">I", 0x7FFFFFFF), at - 4: there})
    return Announced()


def _au(head: bytes, size: int | None) -> Announced:
    """No chunks: all behind the header is sound."""
    start, length = struct.unpack(">II", head[4:12])
    if 0 < length < _UNKNOWN_SIZE and (size is None or start + length + _SLACK_BYTES[0] > size):
        return Announced(end=start + length)
    return Announced(mended={8: b"\xff\xff\xff\xff"})


def _w64(peek: Peek, size: int | None) -> Announced:
    at = 40
    for _ in range(_MOST_CHUNKS):
        header = peek(at, 24)
        if len(header) < 24:
            break
        length = int(struct.unpack("<16xQ", header)[0])
        if header[:4] == b"data":
            if 24 < length < _UNKNOWN_LONG and _ends_w64(peek, at + length + -length % 8, size):
                form = int(struct.unpack("<Q", peek(16, 8))[0])
                return Announced(end=at + length, mended={} if form >= at else {16: struct.pack("<Q", at + length)})
            there = size - at if size is not None else _UNKNOWN_LONG
            return Announced(mended={16: struct.pack("<Q", there + at), at + 16: struct.pack("<Q", there)})
        at += max(24, length + -length % 8)
    return Announced()


def _ends_w64(peek: Peek, end: int, size: int | None) -> bool:
    """Whether a chunk may end there, as in `_ends_chunk`."""
    return size is None or end + 24 >= size or peek(end, 16)[4:] in (_W64_GUID, _W64_RIFF[4:])


def _caf(peek: Peek, size: int | None) -> Announced:
    at = 8
    for _ in range(_MOST_CHUNKS):
        header = peek(at, 12)
        if len(header) < 12:
            break
        name, length = struct.unpack(">4sq", header)
        if name == b"data":
            if 0 < length < _UNKNOWN_LONG and _ends_caf(peek, at + 12 + length, size):
                return Announced(end=at + 12 + length)
            return Announced(mended={at + 4: b"\xff" * 8})  # as those that are recorded have it
        if length < 0:
            break
        at += 12 + length
    return Announced()


def _ends_caf(peek: Peek, end: int, size: int | None) -> bool:
    """Whether a chunk may end there, as in `_ends_chunk`."""
    return size is None or end + 12 >= size or re.match(rb"\0{0,3}[ -~]{4}", peek(end, 8)) is not None


def sphere_fields(head: bytes) -> dict[str, str]:
    """The fields of a SPHERE header, e.g. {"sample_count": "16000"}."""
    lines = [line.split() for line in head.decode("latin-1").split("end_head")[0].splitlines()]
    return {parts[0]: parts[2] for parts in lines if len(parts) == 3}


def _sphere_end(head: bytes) -> int | None:
    fields = sphere_fields(head)
    if "shorten" in fields.get("sample_coding", ""):
        return None
    try:
        count = int(fields["sample_count"]) * int(fields.get("channel_count", "1")) * int(fields["sample_n_bytes"])
        return int(head.split(b"\n")[1]) + count if 0 < count < _UNKNOWN_LONG else None
    except (KeyError, ValueError, IndexError):
        return None


def _matroska_end(head: bytes) -> int | None:
    """An EBML header, then one segment; lengths have as many bytes as the first byte has leading zeros, plus one."""

    def length_at(at: int) -> tuple[int, int | None]:
        count = 9 - head[at].bit_length()
        value, unknown = int.from_bytes(head[at : at + count], "big") & ((1 << 7 * count) - 1), (1 << 7 * count) - 1
        return at + count, value if value != unknown else None

    try:
        at, length = length_at(4)
        if length is None or head[at + length : at + length + 4] != b"\x18\x53\x80\x67":
            return None
        at, length = length_at(at + length + 4)
    except IndexError:
        return None
    return at + length if length else None


def _mov_end(peek: Peek) -> int | None:
    """Where the last box ends, or the first that lies beyond the end; a second `ftyp` begins another recording."""
    at = 0
    for number in range(_MOST_CHUNKS):
        header = peek(at, 16)
        if len(header) < 8 or (number and header[4:8] == b"ftyp"):
            break
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not re.fullmatch(rb"[ -~\xa9]{4}", header[4:8]):
            break
        at += length
    return at if 0 < at < _UNKNOWN_LONG else None


def after_id3(peek: Peek) -> int:
    """Where the first ID3v2 tags end."""
    at = 0
    for _ in range(16):
        head = peek(at, 10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        length = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        at += 10 + length + (10 if head[5] & 0x10 else 0)
    return at


def _mp3(first: bytes) -> Announced:
    """What the first frame of an MP3 states: how many frames follow, and what an encoder put before and behind."""
    at = next((at for tag in (b"Xing", b"Info") if 0 < (at := first.find(tag)) < 256), -1)
    if at < 0 or len(first) < at + 12 or not first[at + 7] & 1 or first[0] != 0xFF:
        return Announced()
    frames = int.from_bytes(first[at + 8 : at + 12], "big")
    frames = frames if frames < _UNKNOWN_SIZE else 0
    # Behind flags: number of frames and of bytes, table of contents, quality; then the encoder's own 21 bytes.
    padding = at + 8 + sum(size for bit, size in enumerate((4, 4, 100, 4)) if first[at + 7] >> bit & 1) + 21
    delays = int.from_bytes(first[padding : padding + 3], "big")
    if not frames or not delays:
        return Announced(mp3_frames=frames or None)
    in_frame = 1152 if first[1] & 8 else 576
    return Announced(mp3_frames=frames, samples=frames * in_frame - (delays >> 12) - (delays & 4095))


def _missing_of_ogg(tail: bytes) -> int:
    """The last page names its own length."""
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
