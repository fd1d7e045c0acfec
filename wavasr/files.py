"""The one way in which this package writes files: whole or not at all.

    with atomic_text(path) as stream: ...    a regular file or a new name: replaced when the block ends without an error
                                             a symbolic link: its target is replaced
                                             a device, a pipe, /dev/stdout: written through

Every failure is an `OSError` whose `filename` is the path that was given, never that of a temporary file.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO, cast

GZIP = b"\x1f\x8b"
_MOST_UNPACKED = 256 << 20  # bytes
_MOST_LINKS = 40  # as Linux has it
_OPEN_FILE = re.compile(r"/(?:dev/(?P<name>stdout|stderr)|(?:dev|proc/(?:self|thread-self))/fd/(?P<number>\d+))")
_LOOKS: dict[Path, tuple[float, list[str]]] = {}  # of a folder: when to look again, and the temporary files seen there
_PART = re.compile(r"\.[0-9a-f]{8}-[0-9a-f]{8}\.part")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")  # a Path keeps s3://bucket/x as s3:/bucket/x
_WINDOWS = sys.platform == "win32"


def read_text(path: Any) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, as some Windows programs save it; packed by gzip or not.

    Args:
        path: a Path, or a member of a model file.

    Raises:
        UnicodeDecodeError: it is in another encoding.
        ValueError: its packing is damaged.
        OSError: it cannot be read.
    """
    raw = path.read_bytes()
    if raw.startswith(GZIP):
        packing = zlib.decompressobj(wbits=31)
        try:
            raw = packing.decompress(raw, _MOST_UNPACKED)
        except zlib.error as error:
            raise ValueError(f"its packing is damaged: {error}") from error
        if not packing.eof:
            raise ValueError("its packing is cut off, or holds more than 256 MiB")
    is_wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return io.TextIOWrapper(io.BytesIO(raw), "utf-16" if is_wide else "utf-8-sig").read()


@contextlib.contextmanager
def atomic_text(path: str | Path) -> Iterator[TextIO]:
    r"""A UTF-8 text file that takes its name only when the block ends without an error; its folder is made.

    Parts of file names that are no UTF-8 are written as \\udcff, which JSON reads back.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_bytes(path) as binary:
        stream = io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="\n")
        try:
            yield stream
            stream.flush()
        finally:
            with contextlib.suppress(OSError, ValueError):  # reported already
                stream.detach()


@contextlib.contextmanager
def atomic_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """Like `atomic_text`, of bytes.

    Raises:
        OSError: it cannot be written.
    """
    given = Path(path)
    with _naming(given):
        target = _destination(given)
        if isinstance(target, int) or _is_special(target):
            part, handle = None, _open_through(target)
        else:
            _make_folder(target.parent)
            _look_for_leftovers(target)
            part, handle = _new_part(target)
    try:
        with io.BufferedWriter(NamedSink(handle, given)) as stream:
            yield cast(BinaryIO, stream)
            stream.flush()
            if part is not None:
                with _naming(given):
                    _make_durable(handle, cast(Path, target))
                    if not _WINDOWS:  # while it is open, its lock says that it is no leftover
                        part.replace(cast(Path, target))
        if part is not None and _WINDOWS:
            with _naming(given):
                part.replace(cast(Path, target))
    except BaseException:
        if part is not None:
            part.unlink(missing_ok=True)
        raise


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file that appears whole or not at all; its folder is made where there is none.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_bytes(path) as stream:
        stream.write(content)


def check_writable(path: str | Path) -> None:
    """Find out before long work whether `atomic_text` could write this file. Nothing is made or changed.

    Raises:
        OSError: it could not; the reason is the one that the writing would end with.
    """
    given = Path(path)
    with _naming(given):
        target = _destination(given)
        if isinstance(target, int):
            os.fstat(target)
        elif _is_special(target):
            _require_access(target)
        else:
            _try_folder(target.parent)


def check_writable_folder(path: str | Path) -> None:
    """Find out before long work whether files can be written into this folder, which need not exist yet.

    Raises:
        OSError: they could not.
    """
    with _naming(Path(path)):
        _refuse_url(Path(path))
        _try_folder(Path(path))


def is_standard_output(path: str | Path) -> bool:
    """Whether what is written to this path comes out of standard output: /dev/stdout, a link to it."""
    try:
        return _destination(Path(path)) == 1
    except OSError:
        return False


class NamedSink(io.FileIO):
    """A file whose failures to write name the path that was given."""

    def __init__(self, handle: int, given: Path, closefd: bool = True) -> None:
        super().__init__(handle, "w", closefd)
        self._given = given
        self._has_places = super().seekable() and stat.S_ISREG(os.fstat(handle).st_mode)

    def seekable(self) -> bool:
        """Whether it can be rewound; /dev/null claims so, but has no positions."""
        return self._has_places

    def tell(self) -> int:
        """The place of the next byte."""
        if not self._has_places:
            raise io.UnsupportedOperation("tell")
        return super().tell()

    def write(self, data: Any, /) -> int:
        with _naming(self._given):
            return super().write(data)


@contextlib.contextmanager
def _naming(given: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(given)) from error


def _refuse_url(path: Path) -> None:
    """A folder called s3: is not what anybody means."""
    if _URL.match(path.as_posix()):
        raise OSError(errno.EINVAL, "is an address, to which shards alone are written; name a place of this machine")


def _destination(path: Path) -> Path | int:
    """Where a path leads through symbolic links: a file, there or not, or the descriptor of one that is open."""
    _refuse_url(path)
    for _ in range(_MOST_LINKS):
        if (handle := open_file(path)) is not None:
            return handle
        if not path.is_symlink() or path.is_relative_to("/proc"):  # the texts of links there are no paths
            return _checked(path)
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def open_file(path: PurePath) -> int | None:
    """The descriptor that a path means where it names a file that is open already, as /dev/stdout does; else None."""
    found = _OPEN_FILE.fullmatch(path.as_posix())
    if found is None:
        return None
    return int(found["number"]) if found["number"] else ("stdout", "stderr").index(found["name"]) + 1


def _checked(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISREG(mode):
        _require_access(path)  # replacing would get around a file's own permissions
    return path


def _require_access(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _open_through(target: Path | int) -> int:
    # A copy of an open file goes on where that one is, and works for sockets too.
    return os.dup(target) if isinstance(target, int) else os.open(target, os.O_WRONLY | getattr(os, "O_BINARY", 0))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _try_folder(folder: Path) -> None:
    """Make and remove a file in a folder, or in the nearest one above it that is there."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    part, handle = _new_part(existing / "x")
    os.close(handle)
    part.unlink()


# Temporary files: .TARGET-RANDOM.part, where TARGET is a hash of the file's name --------------------------------------


def _prefix(target: Path) -> str:
    return f".{hashlib.blake2b(os.fsencode(target.name), digest_size=4).hexdigest()}-"


def _new_part(target: Path) -> tuple[Path, int]:
    """A new file beside the target, open and locked. Its permissions are what the umask leaves."""
    while True:
        part = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}.part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        _lock(handle)
        if _WINDOWS or os.fstat(handle).st_nlink:  # else somebody took it for a leftover before it was locked
            return part, handle
        os.close(handle)


def _look_for_leftovers(target: Path) -> None:
    """Remove the target's leftovers. Listing folders, however large, takes a tenth of the time at most."""
    started = time.monotonic()
    next_look, parts = _LOOKS.get(target.parent, (0.0, []))
    if started >= next_look:
        parts = _temporary_files(target.parent)
        now = time.monotonic()
        _LOOKS[target.parent] = now + 10 * (now - started), parts
    _remove(target, parts)


def remove_leftovers(target: Path) -> bool:
    """Remove what killed writers of the same file left: temporary files that nobody holds a lock on.

    Returns:
        Whether none is there any more.
    """
    _remove(target, _temporary_files(target.parent))
    return not any(name.startswith(_prefix(target)) for name in _temporary_files(target.parent))


def _temporary_files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _PART.fullmatch(entry.name)]


def _remove(target: Path, names: list[str]) -> None:
    prefix = _prefix(target)
    for part in [target.with_name(name) for name in names if name.startswith(prefix)]:
        with contextlib.suppress(OSError):  # held by its writer, somebody else's, or gone meanwhile
            if _WINDOWS:
                part.unlink()  # fails while it is open
                continue
            handle = os.open(part, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                _lock(handle, wait=False)
                part.unlink()
            finally:
                os.close(handle)


if _WINDOWS:

    def _lock(handle: int, wait: bool = True) -> None:
        """Not needed: open files cannot be removed."""

    def _make_durable(handle: int, target: Path) -> None:
        os.fsync(handle)

else:
    import fcntl

    def _lock(handle: int, wait: bool = True) -> None:
        """Until the file is closed.

        Raises:
            OSError: held by another process (without `wait` only).
        """
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            if not wait:  # a file system without locks: leftovers stay there
                raise

    def _make_durable(handle: int, target: Path) -> None:
        """On the disk, with the permissions of the file that it replaces, where there is one."""
        with contextlib.suppress(OSError):
            os.fchmod(handle, stat.S_IMODE(target.stat().st_mode) & 0o777)
        os.fsync(handle)
