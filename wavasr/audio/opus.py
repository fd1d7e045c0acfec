"""Ogg Opus whose page times are untidy, made readable (no torch).

Each Ogg page says at which sample it ends (RFC 7845, section 4). Recorders and remuxers that round their clock write
pages that end earlier than the packets in them last; players shrug, libsndfile stops there with "file is malformed".
Here those times are made consistent in a copy of the compressed stream.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_HEADER = struct.Struct("<4sBBqIIIB")
_LAST_PAGE = 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FRAME_48K = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)


@dataclass
class _Page:
    start: int
    end: int
    flags: int
    ends_at: int
    samples: int
    packets: int


def tidied(path: Path) -> io.BytesIO | None:
    """A copy of an Ogg Opus file with consistent page times; None where the file needs none or is another format."""
    with path.open("rb") as file:
        if b"OpusHead" not in file.read(64):
            return None
        file.seek(0)
        data = file.read()
    pages = _audio_pages(data)
    if len(pages) < 2 or not _is_untidy(pages):
        return None
    times = _consistent_times(pages)
    copy = bytearray(data)
    for page, time in zip(pages, times, strict=True):
        struct.pack_into("<q", copy, page.start + 6, time)
        struct.pack_into("<I", copy, page.start + 22, 0)
        struct.pack_into("<I", copy, page.start + 22, _ogg_crc(bytes(copy[page.start : page.end])))
    return io.BytesIO(bytes(copy))


def _audio_pages(data: bytes) -> list[_Page]:
    """The pages after the two header packets on which a packet ends; empty for chained or multiplexed streams."""
    pages: list[_Page] = []
    at, serial, packets_seen = 0, None, 0
    toc = b""
    while at + 27 <= len(data):
        mark, _, flags, ends_at, page_serial, _, _, count = _HEADER.unpack_from(data, at)
        if mark != b"OggS" or page_serial != (page_serial if serial is None else serial):
            return []
        serial = page_serial
        lacing = data[at + 27 : at + 27 + count]
        body = at + 27 + count
        samples = packets = 0
        for length in lacing:
            toc = (toc + data[body : body + min(length, 2)])[:2]
            body += length
            if length < 255:
                packets_seen += 1
                if packets_seen > 2:
                    packets += 1
                    samples += _packet_samples(toc)
                toc = b""
        if packets:
            pages.append(_Page(at, body, flags, ends_at, samples, packets))
        at = body
    return pages


def _packet_samples(toc: bytes) -> int:
    """Samples at 48 kHz of a packet, from its first two bytes (RFC 6716, section 3.1)."""
    if not toc:
        return 0
    frames = (1, 2, 2, (toc[1] & 0x3F) if len(toc) > 1 else 0)[toc[0] & 3]
    return frames * _FRAME_48K[toc[0] >> 3]


def _is_untidy(pages: list[_Page]) -> bool:
    return any(b.ends_at - a.ends_at < b.samples for a, b in pairwise(pages) if not b.flags & _LAST_PAGE)


def _consistent_times(pages: list[_Page]) -> list[int]:
    """Ends no later than announced, early enough for the next page's packets, and none before its own packets."""
    times = [page.ends_at for page in pages]
    for i in range(len(pages) - 2, -1, -1):
        following = pages[i + 1]
        trimmed = bool(following.flags & _LAST_PAGE)
        if not trimmed or times[i + 1] < times[i]:
            times[i] = min(times[i], times[i + 1] - (0 if trimmed else following.samples))
    shift = max(0, pages[0].samples - times[0])
    return [time + shift for time in times]


def _ogg_crc(page: bytes) -> int:
    """CRC-32 with Ogg's polynomial, not reflected, from zero: zlib's on mirrored bits, without its inversions."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
