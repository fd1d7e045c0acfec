"""Sentences for language models: the lines of text files, packed or not, and the texts of manifests."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from wavasr.archive import Source
from wavasr.errors import TextError


def read_sentences(paths: Iterable[Path], spell: Callable[[str], str], *, progress: bool = False) -> Iterator[str]:
    """The lines of texts (.txt, .gz, .xz) and the "text" of JSON-lines manifests, spelled, without empty ones.

    Raises:
        TextError: "file:line: ..." for bytes that are not UTF-8 and JSON lines without text; a file that is damaged.
    """
    for path in paths:
        manifest = ".jsonl" in path.suffixes
        with tqdm(desc=path.name, unit=" lines", disable=not progress, leave=False, delay=2.0) as bar:
            for number, line in enumerate(read_lines(path), 1):
                if sentence := spell(_text_of(line, path, number, manifest=manifest)):
                    yield sentence
                if not number % 1000:
                    bar.update(1000)


def read_lines(path: Source) -> Generator[bytes, None, None]:
    """The lines of a file, unpacked where its name ends in .gz or .xz.

    Raises:
        TextError: it is not there, cannot be read, or is damaged.
    """
    try:
        with _opened(path) as file:
            yield from file
    except FileNotFoundError as error:
        raise TextError(f"{path}: no such file; give a text with a sentence a line, or a manifest") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise TextError(f"{path}: cannot be unpacked ({error}); it is damaged, or no {path.suffix} file") from error
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error.strerror or error}); give a readable file") from error


@contextlib.contextmanager
def _opened(path: Source) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if path.suffix == ".gz":
            with gzip.open(file) as unpacked:
                yield cast(IO[bytes], unpacked)
        elif path.suffix == ".xz":
            with lzma.open(file) as unpacked:
                yield unpacked
        else:
            yield file


def _text_of(line: bytes, path: Path, number: int, *, manifest: bool) -> str:
    try:
        text = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{path}:{number}: not UTF-8; convert it, e.g. `iconv -f latin1 -t utf-8`") from error
    if not manifest or not text.strip():
        return text
    try:
        spoken = json.loads(text)["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TextError(f'{path}:{number}: expected a JSON object with "text"') from error
    if not isinstance(spoken, str):
        raise TextError(f'{path}:{number}: "text" is {spoken!r:.40}; expected a string')
    return spoken
