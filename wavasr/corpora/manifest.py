"""Utterances and the JSON-lines manifests that list them: one JSON object a line.

    {"audio_filepath": "clips/a.wav", "duration": 2.5, "text": "yes", "speaker": "anna"}

Optional keys: `id`, `speaker`, `offset` (s, where the utterance begins in its file) and `alignment` (time-aligned
phones, a list of [phone, start_s, end_s] with times relative to the utterance). Other keys are ignored, so the
manifests of other toolkits can be read as they are.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from wavasr.audio.source import printable
from wavasr.corpora.remote import read_bytes, url_of
from wavasr.errors import CorpusError, reading
from wavasr.files import atomic_text

log = logging.getLogger("wavasr")

HOW_TO_MAKE = "`wavasr prepare` makes manifests such as train.jsonl, `wavasr align --manifest` those of phones"
INDEX_NAME = "index.jsonl"  # the manifest in a folder of shards
SILENCE = "sil"  # between aligned phones


class AlignedPhone(NamedTuple):
    """One time-aligned phone; times in seconds from the utterance's start."""

    phone: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech and what was said in it.

    Attributes:
        id: unique within its manifest.
        audio: the sound file.
        duration_s: length of the utterance in seconds.
        text: the transcript as the corpus gives it; for phone recognition, phones separated by spaces.
        speaker: who speaks; empty where nobody knows.
        offset_s: where the utterance begins in its file, in seconds.
        alignment: time-aligned phones, in order and without overlap; empty where there are none.
    """

    id: str
    audio: Path
    duration_s: float
    text: str
    speaker: str = ""
    offset_s: float = 0.0
    alignment: tuple[AlignedPhone, ...] = ()


def read_manifest(path: Path | str) -> list[Utterance]:
    """Read a JSON-lines manifest; `audio_filepath` is relative to the manifest's folder, or absolute.

    An utterance without `id` is called after its file's stem, and after its path where stems repeat. The sound
    files are not opened.

    Raises:
        CorpusError: "file:line: ..." for a line that is not JSON, lacks a key, holds an impossible value or repeats
            another; also for a manifest that is missing, empty or not UTF-8.
    """
    path = file_of(path)
    folder = folder_of(path)
    utterances: list[Utterance] = []
    lines: list[int] = []
    for number, line in _numbered_lines(path):
        where = f"{path}:{number}"
        utterances.append(_utterance(_json_object(line, where), folder, where))
        lines.append(number)
    if not utterances:
        raise CorpusError(f"{path}: no utterances; expected one JSON object a line with audio_filepath, duration, text")
    utterances = _name(utterances, folder)
    _refuse_duplicates(utterances, lines, path)
    return utterances


def file_of(path: Path | str) -> Path:
    """The manifest that a path means: a file, a URL, or the index in a folder of shards."""
    path = Path(path)
    index = path / INDEX_NAME
    return index if url_of(path) is None and index.is_file() else path


def folder_of(path: Path) -> Path:
    """What the sound files of a manifest are relative to."""
    return path.parent if url_of(path) else path.parent.absolute()


def parse_line(raw: bytes, folder: Path, where: str, first: bool = False) -> Utterance:
    """One line of a manifest; its `id` is empty where the line gives none.

    Args:
        raw: the line, UTF-8.
        folder: what its sound file is relative to.
        where: what errors begin with.
        first: whether it is the first line, which may begin with a byte-order mark.

    Raises:
        CorpusError: the line is not UTF-8 or JSON, lacks a key or holds an impossible value.
    """
    try:
        line = raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: not UTF-8; save the manifest as UTF-8 text") from error
    return _utterance(_json_object(line, where), folder, where)


def write_manifest(path: Path | str, utterances: Iterable[Utterance]) -> None:
    """Write a manifest atomically: it appears complete, or the old one stays.

    Files beneath the manifest's folder are written as relative POSIX paths, so that the folder can be moved; others
    as absolute paths. Bytes of a file's name that are not UTF-8 are written as the escapes that Python reads them as.

    Raises:
        CorpusError: the file cannot be written.
    """
    path = Path(path)
    folder = _normal(path.parent.absolute())
    try:
        with atomic_text(path) as stream:
            for utterance in utterances:
                stream.write(manifest_line(utterance, _portable(utterance.audio, folder)) + "\n")
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be written ({error.strerror}); choose a folder with room and access"
        ) from error


def report_dropped(reason: str, dropped: Mapping[str, str], count: int | None = None) -> None:
    """Count and name what is left out; `count` says how many there are where only some are given."""
    if dropped:
        count = len(dropped) if count is None else count
        named = "; ".join(f"{name}: {why}" for name, why in list(dropped.items())[:3])
        more = "; ..." if count > 3 else ""
        log.warning("left out %d utterances with %s: %s%s", count, reason, named, more)


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    with reading_manifest(path), io.BytesIO(read_bytes(path)) if url_of(path) else path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            with reading_manifest(f"{path}:{number}"):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if line:
                yield number, line


def reading_manifest(path: object) -> contextlib.AbstractContextManager[None]:
    """What goes wrong while a manifest is read becomes a CorpusError of one line."""
    return reading(path, "manifest", HOW_TO_MAKE, CorpusError)


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "unusable value"
        raise CorpusError(f"{where}: not JSON ({reason}); expected one JSON object a line") from error
    if not isinstance(value, dict):
        raise CorpusError(f"{where}: {type(value).__name__} found; expected one JSON object a line")
    return value


def _utterance(values: dict[str, Any], folder: Path, where: str) -> Utterance:
    missing = [key for key in ("audio_filepath", "duration", "text") if values.get(key) is None]
    if missing:
        raise CorpusError(f"{where}: no key {missing[0]!r}; expected audio_filepath, duration (s) and text")
    audio = _string(values, "audio_filepath", where)
    if not audio or "\0" in audio:
        raise CorpusError(f"{where}: audio_filepath is {audio!r}; expected the path of a sound file")
    return Utterance(
        id=_string(values, "id", where),
        audio=folder / _local(audio),
        duration_s=_seconds(values, "duration", where, positive=True),
        text=_string(values, "text", where),
        speaker=_string(values, "speaker", where),
        offset_s=_seconds(values, "offset", where, positive=False),
        alignment=_alignment(values.get("alignment") or (), where),
    )


def _local(name: str) -> str:
    """A file's name as this system's file functions take it; manifests hold UTF-8 whatever the locale is."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def _string(values: dict[str, Any], key: str, where: str) -> str:
    value = values.get(key)
    if value is None:
        return ""
    # Speakers and ids that look like numbers are often written as such.
    if key in ("id", "speaker") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise CorpusError(f"{where}: {key} is {_short(value)}; expected a string")
    # A file's name may hold bytes that are not UTF-8, which Python reads as surrogates.
    try:
        value.encode("utf-8", "surrogateescape" if key == "audio_filepath" else "strict")
    except UnicodeEncodeError as error:
        raise CorpusError(f"{where}: {key} is {_short(value)}, which is not valid Unicode; correct it") from error
    return value


def _short(value: Any) -> str:
    """A value for a message, however long it is."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _seconds(values: dict[str, Any], key: str, where: str, *, positive: bool) -> float:
    value = values.get(key)
    if value is None:
        return 0.0
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf or (positive and number == 0):
        expected = f"seconds, {'above 0' if positive else '0 or more'}"
        raise CorpusError(f"{where}: {key} is {_short(value)}; expected {expected}")
    return number


def _alignment(values: Any, where: str) -> tuple[AlignedPhone, ...]:
    spans: list[AlignedPhone] = []
    end_s = 0.0
    try:
        for phone, start, end in values:
            str(phone).encode("utf-8")  # a phone is text that reports can hold
            span = AlignedPhone(str(phone), float(start), float(end))
            # Times are rounded to microseconds when corpora are read; a rounding is no overlap.
            if not end_s - 1e-5 <= span.start_s <= span.end_s < math.inf:
                raise ValueError("out of order")
            spans.append(span)
            end_s = span.end_s
    except (TypeError, ValueError, OverflowError) as error:
        raise CorpusError(
            f"{where}: alignment entry {len(spans) + 1} is unusable; expected [phone, start_s, end_s] in order of time"
        ) from error
    return tuple(spans)


def _name(utterances: Sequence[Utterance], folder: Path) -> list[Utterance]:
    """Give every utterance without an id its file's stem, or where that is taken a longer name."""
    taken = Counter(u.id for u in utterances if u.id)
    named = list(utterances)
    waiting = [i for i, u in enumerate(utterances) if not u.id]
    for propose in names_of:
        proposals = {i: propose(utterances[i], folder) for i in waiting}
        uses = taken + Counter(proposals.values())
        for i, name in proposals.items():
            if uses[name] == 1 or propose is _relative_and_offset:
                named[i] = replace(utterances[i], id=name)
                taken[name] += 1
        waiting = [i for i in waiting if not named[i].id]
    return named


def _stem(utterance: Utterance, folder: Path) -> str:
    return printable(utterance.audio.stem)


def _relative(utterance: Utterance, folder: Path) -> str:
    return printable(_portable(utterance.audio, folder))


def _relative_and_offset(utterance: Utterance, folder: Path) -> str:
    return f"{printable(_portable(utterance.audio, folder))}@{utterance.offset_s:g}"


# How an utterance without an id is called: by the first of these that no other has.
names_of = (_stem, _relative, _relative_and_offset)


def _refuse_duplicates(utterances: Sequence[Utterance], lines: Sequence[int], path: Path) -> None:
    seen: dict[str, int] = {}
    for utterance, line in zip(utterances, lines, strict=True):
        if utterance.id in seen:
            raise CorpusError(
                f"{path}:{line}: duplicate id {utterance.id!r}, first on line {seen[utterance.id]}; "
                "expected every utterance once"
            )
        seen[utterance.id] = line


def manifest_line(utterance: Utterance, audio: str) -> str:
    """An utterance as a line of a manifest that calls its recording `audio`."""
    values: dict[str, Any] = {
        "id": utterance.id,
        "audio_filepath": audio,
        "duration": utterance.duration_s,
        "text": utterance.text,
        "speaker": utterance.speaker,
    }
    if utterance.offset_s:
        values["offset"] = utterance.offset_s
    if utterance.alignment:
        values["alignment"] = [list(span) for span in utterance.alignment]
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def _portable(audio: Path, folder: Path) -> str:
    if url := url_of(audio):
        return url
    absolute = _normal(audio.absolute())
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else absolute.as_posix()


def _normal(path: Path) -> Path:
    """Without `..`, and without following links: a corpus reached through a link keeps the link's name."""
    return Path(os.path.normpath(path)) if ".." in path.parts else path
