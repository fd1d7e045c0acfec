"""Several files in one: a ZIP archive whose members are stored as they are, not compressed.

Any program that knows ZIP reads it. Members are found by the table at its end and read one by one; each has a checksum,
which is compared when it is read to its end. Nothing is ever unpacked to a path that the archive names.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

from wavasr.errors import ModelError
from wavasr.files import atomic_bytes

_BEGIN = b"PK\x03\x04"
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the same content makes the same file
_UNIX = 3
_BLOCK = 1 << 20
_NAMES_AT, _LOCAL_HEADER = 26, 30  # where the lengths of its two texts stand, and how long it is without them
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class Member(NamedTuple):
    """A file inside an archive; it can be read like a `Path`.

    Attributes:
        archive: the file that it is in.
        part: its name there.
    """

    archive: Path
    part: str

    @property
    def name(self) -> str:
        """For messages and reports: "default.lm.bin" is lm.bin in default.wavasr."""
        return f"{self.archive.stem}.{self.part}"

    @property
    def suffix(self) -> str:
        """The end of its name, as of a path."""
        return Path(self.part).suffix

    def __str__(self) -> str:
        return f"{self.archive} ({self.part})"

    def stat(self) -> os.stat_result:
        """The archive's."""
        return self.archive.stat()

    def size(self) -> int:
        """Bytes."""
        return _info(self).file_size

    def is_file(self) -> bool:
        """Whether it is there."""
        return self.archive.is_file() and self.part in members_of(self.archive)

    @contextlib.contextmanager
    def open(self, mode: str = "rb") -> Iterator[BinaryIO]:
        """Its bytes as a stream.

        Raises:
            ModelError: it is damaged; told at the end of the stream at the latest.
            OSError: the archive cannot be read.
        """
        assert mode == "rb"
        with _opened(self.archive) as archive, archive.open(self.part) as stream:
            yield cast(BinaryIO, stream)

    def read_bytes(self) -> bytes:
        """All of it; raises as `open` does."""
        with self.open() as stream:
            return stream.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of it; raises as `open` does, and UnicodeDecodeError."""
        return self.read_bytes().decode(encoding).replace("\r\n", "\n")


Source = Path | Member
Content = bytes | Source


def is_archive(path: Path) -> bool:
    """Whether a file begins like an archive.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_BEGIN)) == _BEGIN


def members_of(path: Path) -> dict[str, Member]:
    """The members of an archive by name.

    Raises:
        ModelError: it is none, or damaged.
        OSError: it cannot be read.
    """
    with _opened(path) as archive:
        return {name: Member(path, name) for name in archive.namelist()}


def write_archive(path: Path, contents: Mapping[str, Content]) -> None:
    """Write an archive, whole or not at all; one of its sources may be the file that it replaces.

    Raises:
        ModelError: a member of another archive is damaged.
        OSError: a source cannot be read, or the archive not be written.
    """
    with atomic_bytes(path) as stream, zipfile.ZipFile(cast(IO[bytes], stream), "w") as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name, _FIRST_DAY)
            info.create_system, info.external_attr = _UNIX, 0o644 << 16
            if isinstance(content, bytes):
                archive.writestr(info, content)
            else:
                with content.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, _BLOCK)


@contextlib.contextmanager
def mapped(source: Source) -> Iterator[tuple[mmap.mmap, int, int]]:
    """A mapping that holds a file's bytes, and where in it they begin and end; no checksum is compared.

    Raises:
        ModelError: the archive that it is in is damaged.
        OSError: it cannot be read.
        ValueError: it is empty.
    """
    if isinstance(source, Path):
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content, 0, len(content)
        return
    info = _info(source)
    with mapped(source.archive) as (content, _, _):
        names = content[info.header_offset + _NAMES_AT : info.header_offset + _LOCAL_HEADER]
        begin = info.header_offset + _LOCAL_HEADER + sum(names[0::2]) + 256 * sum(names[1::2])
        if begin + info.file_size > len(content):
            raise ModelError(f"{source.archive}: is damaged (cut off); copy or make it again")
        yield content, begin, begin + info.file_size


@contextlib.contextmanager
def local_file(source: Source) -> Iterator[Path]:
    """A path by which a library can open a file: for a member that of a copy, which is gone when the block ends.

    The library may keep it mapped. On Linux the copy lies in memory and has no name.

    Raises:
        ModelError: the member is damaged.
        OSError: it cannot be read, or there is no room for the copy.
    """
    if isinstance(source, Path):
        yield source
        return
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
            handle = os.memfd_create(source.part)
            stack.callback(os.close, handle)
            path = Path(f"/proc/self/fd/{handle}")
        else:  # Windows does not remove what is still mapped
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wavasr-", ignore_cleanup_errors=True))
            path = Path(folder) / "copy"
        with mapped(source) as (content, begin, end), memoryview(content)[begin:end] as view, path.open("wb") as copy:
            if zlib.crc32(view) != _info(source).CRC:
                raise ModelError(f"{source.archive}: is damaged (checksum of {source.part}); copy or make it again")
            copy.write(view)
        yield path


def _info(member: Member) -> zipfile.ZipInfo:
    with _opened(member.archive) as archive:
        return archive.getinfo(member.part)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len({info.filename for info in infos}) < len(infos):
                raise ValueError("two members have the same name")
            if any(info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size for info in infos):
                raise ValueError("a member is compressed")
            yield archive
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the beginning
            raise
        raise ModelError(f"{path}: is damaged ({' '.join(str(error).split())}); copy or make it again") from error
