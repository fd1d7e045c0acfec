"""KenLM's binaries (github.com/kpu/kenlm, lm/binary_format.cc): their words, and whether they are whole.

KenLM follows the numbers of a binary wherever they lead: one damaged byte can end the process, or keep it in a loop. So
every number that leads somewhere is looked at first. A binary is

    header      what it holds, and how many n-grams of each order
    vocabulary  the hashes of the words
    search      hash tables; or a trie, in which each n-gram tells where those begin that are a word longer
    words       each ended by a zero byte, in the order of their numbers
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavasr.archive import Source, mapped
from wavasr.errors import TextError
from wavasr.language.ngrams import MAX_ORDER, MIN_ORDER, UNKNOWN

MAGIC = b"mmap lm http://kheafield.com/code"
_VERSION = MAGIC + b" format version 5\n\0"
_FIXED = struct.Struct("<Bxxxf I ?xxx I")  # order, probing multiplier, kind, whether it has words, the kind's version
_FIXED_AT = 88
_PROBING, _REST, _TRIE, _QUANTIZED, _ARRAY, _QUANTIZED_ARRAY = range(6)
_QUANTIZER_VERSION, _MOST_BITS = 2, 25
_PIECE = 1 << 22  # entries at a time; a multiple of 8

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.uint64]


class _DamageError(Exception):
    """A number that leads nowhere."""


def words_of(path: Source) -> list[str]:
    """The words of a binary in the order of their numbers: <unk> is the first.

    Raises:
        TextError: it is of another version, without words, or cut off.
        OSError: it cannot be read.
    """
    with mapped(path) as (content, begin, end):
        if content[begin : begin + len(_VERSION)] != _VERSION:
            raise TextError(f"{path}: a KenLM binary of another version, or an unfinished one; build it anew")
        if content[begin + 100 : begin + 101] == b"\0":
            raise TextError(f"{path}: a KenLM binary without its words; build it anew, without build_binary's -v")
        start = content.rfind(b"\0" + UNKNOWN.encode() + b"\0", begin, end)
        if start < 0:
            start = content.rfind(UNKNOWN.encode() + b"\0", begin, end) - 1
        words = content[start + 1 : end].split(b"\0")[:-1] if start >= begin else []
        if not words or len(words) < int.from_bytes(content[begin + 108 : begin + 116], "little"):
            raise TextError(f"{path}: this KenLM binary is cut off; copy it again, or build it anew")
        if b"" in words or len(set(words)) < len(words):
            raise TextError(f"{path}: this KenLM binary has damaged words; copy it again, or build it anew")
    return [word.decode("utf-8", "replace") for word in words]


def check(path: Path, name: object = None) -> None:
    """Whether KenLM can open a binary, and search in it, without leaving it; takes 0.1 s a million n-grams.

    Args:
        path: the file; one that is no binary passes.
        name: what messages call it, the path by default.

    Raises:
        TextError: it is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
    try:
        _check(np.memmap(path, np.uint8, "r"))
    except (_DamageError, struct.error) as error:
        reason = f"this KenLM binary is damaged ({error}); copy it again, or build it anew"
        raise TextError(f"{name or path}: {reason}") from error


@dataclass
class _Parts:
    """The bytes of a binary, taken part by part."""

    content: Bytes
    at: int = 0

    def take(self, size: int, what: str) -> Bytes:
        """The next `size` bytes."""
        if size > len(self.content) - self.at:
            raise _DamageError(f"it ends within its {what}")
        self.at += size
        return self.content[self.at - size : self.at]


def _check(content: Bytes) -> None:
    order, multiplier, kind, _, _ = _FIXED.unpack_from(content.data, _FIXED_AT)
    if not MIN_ORDER <= order <= MAX_ORDER or kind > _QUANTIZED_ARRAY:
        raise _DamageError(f"order {order}, kind {kind}")
    parts = _Parts(content, _FIXED_AT + _FIXED.size)
    counts = [int(count) for count in parts.take(8 * order, "header").view("<u8")]
    if not all(counts[:2]) or max(counts) > 8 * len(content):
        raise _DamageError(f"its header announces {max(counts)} n-grams")
    parts.at = _aligned(parts.at)
    if kind in (_PROBING, _REST):
        if not 1.0 < multiplier < 1e6:
            raise _DamageError(f"hash tables of {multiplier:g} times their content")
        _check_tables(parts, counts, multiplier, 8 if kind == _PROBING else 12)
    else:
        _check_trie(parts, counts, kind)


def _check_tables(parts: _Parts, counts: list[int], multiplier: float, value: int) -> None:
    """Hash tables: a search goes on until an empty place, so each needs one; words are places in the first order."""

    def table(count: int, width: int, what: str) -> Bytes:
        places = max(count + 1, int(np.float32(multiplier) * np.float32(count)))
        entries = parts.take(places * width, what).reshape(places, width)
        if entries[:, :8].any(axis=1).all():
            raise _DamageError(f"the hash table of its {what} is full")
        return entries

    _, bound = parts.take(8, "vocabulary").view("<u4")
    words = np.ascontiguousarray(table(counts[0], 12, "vocabulary")[:, 8:]).view("<u4")
    if max(int(bound) - 1, int(words.max())) > counts[0]:
        raise _DamageError("it has words beyond its 1-grams")
    parts.take((counts[0] + 1) * value, "1-grams")
    for order, count in enumerate(counts[1:-1], 2):
        table(count, 8 + value, f"{order}-grams")
    table(counts[-1], 12, f"{len(counts)}-grams")


def _check_trie(parts: _Parts, counts: list[int], kind: int) -> None:
    """A trie: where the continuations of an n-gram begin, those of the one before end; all lie in the next order."""
    size = int(parts.take(8, "vocabulary").view("<u8")[0])
    if size + 1 != counts[0]:
        raise _DamageError(f"{size + 1} words, but {counts[0]} 1-grams")
    parts.take(8 * counts[0], "vocabulary")
    middle_bits, longest_bits = 63, 31
    if kind in (_QUANTIZED, _QUANTIZED_ARRAY):
        version, longest_bits, backoff_bits = (int(byte) for byte in parts.take(8, "tables")[:3])
        if version != _QUANTIZER_VERSION or max(longest_bits, backoff_bits) > _MOST_BITS:
            raise _DamageError("the head of its tables")
        parts.take(4 * ((len(counts) - 1 << longest_bits) + (len(counts) - 2 << backoff_bits)), "tables")
        middle_bits = longest_bits + backoff_bits
    unigrams = parts.take((counts[0] + 2) * 16, "1-grams").view("<u8").reshape(-1, 2)
    _check_rising([unigrams[: counts[0] + 1, 1]], counts[1], 1)
    most_chopped = _most_chopped(parts) if kind in (_ARRAY, _QUANTIZED_ARRAY) and len(counts) > 2 else None
    for order, (count, following) in enumerate(itertools.pairwise(counts[1:]), 2):
        inline, high = following.bit_length(), np.zeros(1, np.uint64)
        if most_chopped is not None:
            chopped = _chopped(count + 1, following, most_chopped)
            inline -= chopped
            high = _high_parts(parts, (following >> inline) + 1, order)
        width = counts[0].bit_length() + middle_bits + inline
        packed = parts.take(((1 + count) * width + 7) // 8 + 8, f"{order}-grams")
        _check_rising(_pointers(packed, count + 1, width, inline, high), following, order)
    width = counts[0].bit_length() + longest_bits
    parts.take(((1 + counts[-1]) * width + 7) // 8 + 8, f"{len(counts)}-grams")


def _most_chopped(parts: _Parts) -> int:
    version, bits = (int(byte) for byte in parts.content[parts.at : parts.at + 2])
    if version or bits > 64:
        raise _DamageError("the head of its pointers")
    return bits


def _chopped(entries: int, following: int, most: int) -> int:
    """How many high bits of the pointers stand in a table, as KenLM chooses it (lm/bhiksha.cc)."""
    bits = following.bit_length()
    return min(range(min(bits, most) + 1), key=lambda chop: (following >> (bits - chop)) * 64 - entries * chop)


def _high_parts(parts: _Parts, size: int, order: int) -> Numbers:
    """The table of high bits: the first n-gram of each."""
    start = _aligned(parts.at) + 8 - parts.at
    high = parts.take(8 * (size + 1) + 7, f"{order}-grams")[start : start + 8 * size].view("<u8")
    if high[0] or (high[1:] < high[:-1]).any():
        raise _DamageError(f"the pointers of its {order}-grams")
    return high


def _pointers(packed: Bytes, entries: int, width: int, inline: int, high: Numbers) -> Iterator[Numbers]:
    """The last `inline` bits of each entry of `width` bits, below the high bits of the table, a piece at a time."""
    mask = np.uint64((1 << inline) - 1)
    for first in range(0, entries, _PIECE):
        found = np.empty(min(_PIECE, entries - first), np.uint64)
        for phase in range(min(8, len(found))):  # every eighth begins at the same bit of a byte
            byte, bit = divmod((first + phase + 1) * width - inline, 8)
            part = found[phase::8]
            view = np.ndarray(len(part), "<u8", packed.data, byte, (width,))
            part[:] = view >> np.uint64(bit) & mask
        index = np.arange(first, first + len(found), dtype=np.uint64)
        yield found | (np.searchsorted(high, index, side="right") - 1).astype(np.uint64) << np.uint64(inline)


def _check_rising(pieces: Iterator[Numbers] | list[Any], most: int, order: int) -> None:
    last = 0
    for piece in pieces:
        if int(piece[0]) < last or (piece[1:] < piece[:-1]).any() or int(piece[-1]) > most:
            raise _DamageError(f"the pointers of its {order}-grams")
        last = int(piece[-1])


def _aligned(at: int) -> int:
    return (at + 7) // 8 * 8
