"""Files that lie elsewhere: `s3://bucket/x`, `memory://x` and every other URL that fsspec reads (`wavasr[remote]`).

A `Path` keeps a URL as `s3:/bucket/x`; here it is made whole again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wavasr.errors import CorpusError

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+(.*)", re.DOTALL)  # one letter would be a drive of Windows


def url_of(path: Path | str) -> str | None:
    """The URL that a path stands for; None for a file of this machine."""
    found = _URL.fullmatch(path.as_posix() if isinstance(path, Path) else path)
    if found is None:
        return None
    return f"file:///{found[2]}" if found[1] == "file" else f"{found[1]}://{found[2]}"


def join(folder: Path, name: str | Path) -> Path:
    """A file in a folder; a URL or an absolute path stays what it is."""
    return Path(name) if url_of(name) else folder / name


def read_bytes(path: Path, start: int = 0, size: int | None = None) -> bytes:
    """A file, or `size` bytes of it from `start` on.

    Raises:
        OSError: a file of this machine cannot be read.
        CorpusError: a URL cannot be read.
    """
    if url := url_of(path):
        system, name = _file_system(url)
        try:
            content: bytes = system.cat_file(name, start=start, end=None if size is None else start + size)
        except Exception as error:  # every file system has its own kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CorpusError(f"{url}: cannot be read ({reason}); check the address and the access to it") from error
        return content
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read() if size is None else stream.read(size)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of this machine or a URL, whole or not at all.

    Raises:
        OSError: it cannot be written.
        CorpusError: a URL cannot be written.
    """
    if url := url_of(path):
        system, name = _file_system(url)
        try:
            system.makedirs(name.rpartition("/")[0], exist_ok=True)
            system.pipe_file(name, content)
        except Exception as error:
            raise CorpusError(f"{url}: cannot be written ({error}); check the address and the access to it") from error
        return
    from wavasr.files import write_whole

    write_whole(path, content)


def _file_system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise CorpusError(f"{url}: reading URLs needs fsspec; pip install 'wavasr[remote]'") from error
    try:
        system, name = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise CorpusError(f"{url}: {' '.join(str(error).split())}") from error
    return system, name
