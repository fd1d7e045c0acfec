"""ARPA files of n-gram models, written; and the words of language models, read."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import numpy as np
from tqdm import tqdm

from wavasr.archive import Source
from wavasr.errors import TextError, reading
from wavasr.files import atomic_bytes
from wavasr.language import kenlm
from wavasr.language.ngrams import SPECIAL, UNKNOWN_LABEL, Floats, NgramModel
from wavasr.language.sentences import read_lines

_LOWEST_LOG10 = -99.0
_ADVICE = "expected an ARPA file as wavasr lm build writes it, or a KenLM binary"
_SHORTEST_ENTRY = 4  # bytes: a digit, a tab, a letter, the line's end
_MOST_PACKED = 1032  # times that gzip can make a file smaller


def write_arpa(model: NgramModel, path: Path, *, progress: bool = False) -> None:
    """Write an ARPA file (packed where the name ends in .gz), whole or not at all."""
    with atomic_bytes(path) as plain, _encoded(plain, path) as file:
        file.write("\\data\\\n")
        for length, size in enumerate(model.sizes, 1):
            file.write(f"ngram {length}={size}\n")
        with tqdm(total=sum(model.sizes), desc=path.name, unit=" n-grams", disable=not progress, delay=2.0) as bar:
            for length, line in _entries(model):
                file.write(line)
                bar.update(length)
        file.write("\n\\end\\\n")


@contextlib.contextmanager
def _encoded(plain: BinaryIO, path: Path) -> Iterator[TextIO]:
    """A stream of text into this one, compressed where the name ends in .gz."""
    packed = gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) if path.suffix == ".gz" else plain
    stream = io.TextIOWrapper(cast(BinaryIO, packed), encoding="utf-8", newline="\n")
    yield stream
    stream.detach()
    if packed is not plain:
        packed.close()


def _entries(model: NgramModel, chunk: int = 10_000) -> Iterator[tuple[int, str]]:
    """The n-grams as lines, so many at a time: (how many, the text)."""
    spelled = list(model.words)  # of every n-gram of the order below
    for length, order in enumerate(model.orders, 1):
        if length > 1:
            spelled = [
                f"{spelled[history]} {model.words[word]}"
                for history, word in zip(order.history.tolist(), order.word.tolist(), strict=True)
            ]
        # A lexicon may list words that are not here: each is as probable as one of those that <unk> stands for.
        one = np.where(order.word == UNKNOWN_LABEL, 1.0 / model.unknown, 1.0)
        probs, backoffs = _log10(order.prob * one), _log10(order.backoff)
        header = f"\n\\{length}-grams:\n"
        for first in range(0, len(order), chunk):
            part = slice(first, first + chunk)
            entries = zip(probs[part], spelled[part], backoffs[part], strict=True)
            lines = [
                f"{prob:.5g}\t{text}\t{backoff:.5g}\n" if backoff else f"{prob:.5g}\t{text}\n"
                for prob, text, backoff in entries
            ]
            yield len(lines), header + "".join(lines)
            header = ""


def _log10(values: Floats) -> list[float]:
    with np.errstate(divide="ignore"):
        found = np.maximum(np.log10(values), _LOWEST_LOG10)
    return [float(value) for value in np.round(found, 5)]


def vocabulary(path: Source) -> list[str]:
    """The words of an ARPA file (also .gz) or a KenLM binary, each once, without <unk>, <s> and </s>.

    Raises:
        TextError: the file is neither, or is damaged, or is a binary made without its words.
    """
    with reading(path, "language model", "give an ARPA file or a KenLM binary", TextError):
        with path.open("rb") as file:
            binary = file.read(len(kenlm.MAGIC)) == kenlm.MAGIC
        words = kenlm.words_of(path) if binary else _words_of_arpa(path)
    found = [word for word in dict.fromkeys(words) if word.lower() not in SPECIAL]
    if not found:
        raise TextError(f"{path}: this language model has no words; build it anew, e.g. with wavasr lm build")
    return found


def _words_of_arpa(path: Source) -> Iterator[str]:
    """The single words, as KenLM reads them: lines of # are comments, and only tabs and spaces part a line."""
    with contextlib.closing(read_lines(path)) as file:
        lines = enumerate(file, 1)
        declared, found = _declared(path, lines), 0
        for number, raw in lines:
            line = _decoded(raw, path, number)
            if line.startswith("\\"):
                if found != declared:
                    raise TextError(f"{path}:{number}: {found} words, but \\data\\ announces {declared}; {_ADVICE}")
                return
            if line:
                entry = [part for part in re.split("[\t ]", line) if part]
                if len(entry) not in (2, 3) or not _is_log10(entry[0]):
                    raise TextError(f"{path}:{number}: {line[:40]!r} is no entry of \\1-grams; {_ADVICE}")
                found += 1
                yield entry[1]
    raise TextError(f"{path}: ends before its \\1-grams do; it is damaged: {_ADVICE}")


def _declared(path: Source, lines: Iterator[tuple[int, bytes]]) -> int:
    """How many words the head announces; the lines up to the first word are read.

    KenLM makes room for as many n-grams as the head says, before it reads any.
    """
    most = path.stat().st_size * (_MOST_PACKED if path.suffix == ".gz" else 1)
    sizes: list[int] = []
    inside = False
    for number, raw in lines:
        line = _decoded(raw, path, number)
        if inside and line == "\\1-grams:":
            return sizes[0] if sizes else 0
        if not line or (line.startswith("#") and not inside):
            continue
        if not inside:
            if line != "\\data\\":
                raise TextError(f"{path}:{number}: begins with {line[:40]!r} instead of \\data\\; {_ADVICE}")
            inside = True
            continue
        size = re.fullmatch(r"ngram +(\d) *= *(\d{1,12})", line)
        if not size or int(size[1]) != len(sizes) + 1 or int(size[2]) * _SHORTEST_ENTRY > most:
            raise TextError(f"{path}:{number}: {line[:40]!r} is no size of this file's n-grams; {_ADVICE}")
        sizes.append(int(size[2]))
    raise TextError(f"{path}: ends before its \\1-grams do; it is damaged: {_ADVICE}")


def _decoded(raw: bytes, path: Source, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
    except UnicodeDecodeError as error:
        raise TextError(f"{path}:{number}: not UTF-8; {_ADVICE}") from error


def _is_log10(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False
