"""Where a recording's bytes come from: a file, standard input, a pipe, bytes or a binary stream.

FFmpeg is never given a name to open. It reads from an `Input`, which knows what has been read, hands out no more than
was asked for, and puts right the sizes in a header that would stop it.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from wavasr.audio.container import (
    FLAC_BYTES,
    RIFFS,
    after_id3,
    announced,
    is_for_libsndfile,
    is_no_chunk,
    is_streamable,
    joined_at,
    missing_bytes,
    next_flac,
    ogg_page,
    refusal,
)
from wavasr.errors import AudioError

Source = Path | str | bytes | BinaryIO

# What a folder is searched for; files that are named may be called anything.
AUDIO_SUFFIXES = tuple(
    ".wav .flac .ogg .oga .opus .mp3 .m4a .mp4 .webm .mka .mkv .mov .aac .wma .amr .3gp .sph .nist .aiff .aif .aifc"
    " .au .snd .w64 .rf64 .caf .wv .ape .mp2".split()
)

_HEAD_BYTES = 4096
_TAIL_BYTES = 1 << 17
_MOST_TAGS = 1 << 20  # bytes, of a pipe
_TAGGED = (*RIFFS, b"riff", b"caff", b".snd", b"NIST", b"OggS", b"fLaC")
_STDIN = "-"


class Input:
    """The bytes of one recording as a file that FFmpeg can read; of a pipe, as they come.

    Attributes:
        source_name: for messages (PyAV would take a `name` for the file's, and encode it).
        size: bytes from the beginning of this part to the end; None for a pipe.
        head: the first bytes.
        promise: what its header announces.
        interruption: what ended a read; FFmpeg is in between, and cannot pass it on.
    """

    def __init__(self, stream: BinaryIO, name: str, *, is_pipe: bool) -> None:
        self.source_name = name
        self.interruption: BaseException | None = None
        self.size: int | None = None
        self._stream = stream
        self._is_pipe = is_pipe
        self._start = 0 if is_pipe else stream.tell()
        self._ahead = b""
        self._tail = b""
        self.begin()

    def begin(self) -> None:
        """Look at the header of the part that begins here."""
        self._position = 0
        self._is_within_ogg = False
        self._skip_tags()
        if not self._is_pipe:
            self.size = self._stream.seek(0, io.SEEK_END) - self._start
        self.head = self.peek(0, _HEAD_BYTES)
        self.promise = announced(self.peek, self.size)
        # Where to stop: before another part, or, in a pipe, where one may follow.
        self._limit = joined_at(self.promise, self.head, None if self._is_pipe else self.peek)
        if not self._is_pipe:
            self.size = self._limit or self.size
            self._stream.seek(self._start)

    def _skip_tags(self) -> None:
        """Begin behind ID3 tags that stand before another container than MP3."""
        peek = self.peek
        if self._is_pipe:
            peek = lambda at, count: self._coming(at, count) if at < _MOST_TAGS else b""  # noqa: E731
        at = after_id3(peek)
        if not at or peek(at, 4) not in _TAGGED:
            return
        if self._is_pipe:
            self._ahead = self._ahead[at:]
        else:
            self._start += at

    def peek(self, at: int, count: int) -> bytes:
        """Bytes of this part, without reading on; of a pipe only the first of them."""
        if self._is_pipe:
            return self._coming(at, count) if at < _HEAD_BYTES else self._ahead[at : at + count]
        self._stream.seek(self._start + at)
        return self._stream.read(count)

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes; none at the end, or where reading was interrupted."""
        try:
            if self._is_pipe and self._limit is not None and self._position >= self._limit:
                self._limit = self._next_limit()
            if self._limit is not None:
                left = max(0, self._limit - self._position)
                count = left if count < 0 else min(count, left)
            data = self._read(count) if count else b""
            if self._is_pipe and self.promise.flac_at is not None:
                data = self._before_next_flac(data)
        except BaseException as error:
            self.interruption = error
            return b""
        if self.promise.mended and self._position < max(self.promise.mended) + 8:
            data = self._mended(data)
        self._position += len(data)
        if self._is_pipe:
            self._tail = (self._tail + data)[-_TAIL_BYTES:] if len(data) < _TAIL_BYTES else data[-_TAIL_BYTES:]
        return data

    def seekable(self) -> bool:
        return not self._is_pipe

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of files; the end is that of this part."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size or 0}[whence]
        self._position = max(0, base + offset)
        # Damaged sizes lead to places that no file has.
        self._stream.seek(self._start + min(self._position, self.size or 0))
        return self._position

    def tell(self) -> int:
        return self._position

    def next_part(self) -> bool:
        """Go on to the recording that was joined behind this one, if there is one."""
        if self._is_pipe:
            while self.read(_TAIL_BYTES):
                pass
        if self._limit is None:
            return False
        self._start += self._limit
        self.begin()
        return True

    def copy_to(self, spool: IO[bytes]) -> None:
        """Write all that is left, whatever is joined to what."""
        self._limit = None
        shutil.copyfileobj(self, spool)
        if self.interruption is not None:
            raise self.interruption

    def missing(self) -> int:
        """How many bytes the header announces beyond those there are; of a pipe, when all has been read."""
        if not self.head.startswith(b"OggS"):
            tail = b""
        elif self._is_pipe:
            tail = self._tail
        else:
            tail = self.peek(max(0, (self.size or 0) - _TAIL_BYTES), _TAIL_BYTES)
            self._stream.seek(self._start + self._position)
        return missing_bytes(self.promise, self._position if self.size is None else self.size, tail)

    def _next_limit(self) -> int | None:
        """In a pipe: this place where another part begins here, None where none can follow any more."""
        if self.promise.flac_at is not None:
            return self._limit
        if self.head[:4] != b"OggS":
            begins_again = self._coming(0, 4) == self.head[:4]
            if self.head[:4] in RIFFS and not begins_again and is_no_chunk(self._coming(0, _HEAD_BYTES)):
                raise AudioError(
                    f"{self.source_name}: goes on behind the end that its header announces;"
                    " save it as a file, which is read whole"
                )
            return self._position if begins_again else None
        page = ogg_page(self._coming, 0)
        if page is None:
            return None
        end, is_first = page
        if is_first and self._is_within_ogg:
            return self._position
        self._is_within_ogg = not is_first
        return self._position + end

    def _before_next_flac(self, data: bytes) -> bytes:
        """In a pipe, what comes before another FLAC stream, which waits."""
        own = FLAC_BYTES + (self.promise.flac_at or 0) - self._position
        may_begin = b"f" in data[1 - FLAC_BYTES :]
        joined = data + self._coming(0, FLAC_BYTES - 1) if may_begin else data
        found = next_flac(lambda at, count: joined[at : at + count], max(0, own))
        if found is None:
            return data
        self._ahead = data[found:] + self._ahead
        self._limit = self._position + found
        return data[:found]

    def _coming(self, at: int, count: int) -> bytes:
        """The bytes of a pipe that will be read next, from `at` of them on."""
        while len(self._ahead) < at + count and (more := self._next(at + count - len(self._ahead))):
            self._ahead += more
        return self._ahead[at : at + count]

    def _read(self, count: int) -> bytes:
        if self._ahead:
            data = self._ahead if count < 0 else self._ahead[:count]
            self._ahead = self._ahead[len(data) :]
            return data
        return self._next(count)

    def _next(self, count: int) -> bytes:
        # What is there is enough: a pipe's `read` would wait until it can return all that was asked for.
        read = getattr(self._stream, "read1", self._stream.read)
        data = bytes(read(count) or b"")
        if count >= 0 and len(data) > count:
            raise AudioError(
                f"{self.source_name}: the stream gave {len(data)} bytes instead of {count}; is it a binary one?"
            )
        return data

    def _mended(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for at, size in self.promise.mended.items():
            for offset, byte in enumerate(size, at - self._position):
                if 0 <= offset < len(changed):
                    changed[offset] = byte
        return bytes(changed)


def name_of(source: Source) -> str:
    """What messages call a source."""
    if isinstance(source, Path | str):
        return "standard input" if source == _STDIN else printable(source)
    if isinstance(source, bytes):
        return "audio bytes"
    name = getattr(source, "name", None)
    return printable(name) if isinstance(name, str) and not name.startswith("<") else "standard input"


def printable(path: Path | str) -> str:
    r"""A path as text that can be written anywhere; bytes of a name that are not UTF-8 as \xe9."""
    try:
        return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def is_pipe(path: Path | str) -> bool:
    """Whether a path is a pipe, a socket or a device, which can be read once only."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Input]:
    """The bytes of a recording, opened once. What needs its end first and comes through a pipe is kept on disk.

    Raises:
        AudioError: nothing there, or what is no audio by its first bytes.
    """
    name = name_of(source)
    with contextlib.ExitStack() as stack:
        try:
            stream, is_pipe = _stream(source, name, stack)
            file = Input(stream, name, is_pipe=is_pipe)
            if not file.head:
                raise AudioError(f"{name}: the file is empty (0 bytes); record or copy it again")
            if reason := refusal(file.head):
                raise AudioError(f"{name}: {reason}")
            converts = is_for_libsndfile(file.head)
            if is_pipe and (converts or not is_streamable(file.head)):
                spool = stack.enter_context(tempfile.TemporaryFile(prefix="wavasr-"))
                file.copy_to(spool)
                spool.seek(0)
                file = Input(spool, name, is_pipe=False)
            file = _with_line_ends(file)
            if converts and not file.missing():  # what is cut off is told by its reader
                file = _converted(file, stack.enter_context(tempfile.TemporaryFile(prefix="wavasr-")))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise AudioError(f"{name}: cannot be opened ({reason}); check the path and its permissions") from error
        yield file


def _with_line_ends(file: Input) -> Input:
    """A SPHERE file without the damage of a copy that took it for text."""
    end = file.promise.end
    if not file.head.startswith(b"NIST_1A") or end is None or file.size is None or not 0 < end - file.size <= 64:
        return file
    from wavasr.audio.sphere import mended

    whole = mended(file.peek(0, file.size), end - file.size)
    file.seek(0)
    return file if whole is None else Input(io.BytesIO(whole), file.source_name, is_pipe=False)


def _converted(file: Input, spool: IO[bytes]) -> Input:
    """What libsndfile reads of a recording, and of those joined behind it, as samples of float32."""
    import soundfile

    shape, target = None, None
    try:
        while shape is None or file.next_part():
            file.seek(0)
            with soundfile.SoundFile(file) as part:
                found = (part.samplerate, part.channels)
                if target is None:
                    target = soundfile.SoundFile(spool, "w", *found, "FLOAT", format="W64")
                elif found != shape:
                    raise AudioError(f"{file.source_name}: has parts of {shape} and {found} Hz and channels; part them")
                shape = found
                while len(block := part.read(_TAIL_BYTES, dtype="float32", always_2d=True)):
                    target.write(block)
    except soundfile.LibsndfileError as error:
        reason = f"is damaged, or in an uncommon encoding ({error.error_string.rstrip('.')})"
        raise AudioError(f"{file.source_name}: {reason}; copy it again, or convert it to WAV or FLAC") from error
    finally:
        if target is not None:
            target.close()
    spool.seek(0)
    return Input(cast(BinaryIO, spool), file.source_name, is_pipe=False)


def _stream(source: Source, name: str, stack: contextlib.ExitStack) -> tuple[BinaryIO, bool]:
    """A binary stream, and whether it can only be read on."""
    if isinstance(source, bytes):
        return io.BytesIO(source), False
    if isinstance(source, Path | str) and source != _STDIN:
        path = Path(source)
        try:
            mode = path.stat().st_mode
        except FileNotFoundError as error:
            raise AudioError(f"{name}: no such file; check the path") from error
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name}: is a folder; give the recordings in it, e.g. {name}/*.wav")
        file = stack.enter_context(path.open("rb"))
        return file, not file.seekable()
    stream = sys.stdin.buffer if isinstance(source, str) and sys.stdin is not None else source
    if isinstance(stream, str | Path):
        raise AudioError(f"{name}: is closed; give a file")
    seekable = getattr(stream, "seekable", None)
    return stream, not (seekable is not None and seekable())
