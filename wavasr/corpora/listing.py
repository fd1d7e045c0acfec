"""Manifests of any length: a few numbers of each utterance in memory, the rest read from the file when it is asked for.

A million utterances take about 40 MB; as `Utterance` objects they would take a gigabyte, in every process.
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from wavasr.corpora.manifest import Utterance, file_of, folder_of, names_of, parse_line, reading_manifest
from wavasr.corpora.remote import read_bytes, url_of
from wavasr.errors import CorpusError

_GIVEN = 3  # names of utterances: 0 to 2 as `names_of` proposes, 3 as the manifest says


class Manifest:
    """One manifest, mapped into memory; `line(start)` is an utterance without its name settled."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name = file_of(path), name or path.name
        self.folder = folder_of(self.path)
        self._map: mmap.mmap | bytes = b""
        self._open()

    def _open(self) -> None:
        if url_of(self.path):
            self._map = read_bytes(self.path)
            return
        with reading_manifest(self.path), self.path.open("rb") as stream:
            size = stream.seek(0, 2)
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __getstate__(self) -> tuple[Path, str]:
        return self.path, self.name

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def starts(self) -> Iterator[int]:
        """Where each line begins."""
        start, size = 0, len(self._map)
        while start < size:
            yield start
            found = self._map.find(b"\n", start)
            start = size if found < 0 else found + 1

    def raw(self, start: int) -> bytes:
        """The line that begins there."""
        end = self._map.find(b"\n", start)
        return self._map[start : end if end >= 0 else len(self._map)]

    def utterance(self, start: int) -> Utterance:
        """The utterance of a line that has been read before."""
        return parse_line(self.raw(start), self.folder, f"{self.path} at byte {start}", start == 0)


class Listing(Sequence[Utterance]):
    """Utterances of some manifests, in order, each read when it is asked for.

    Attributes:
        duration_s: seconds of each.
        speaker: a number for each, an index of `speakers`.
        speakers: names of speakers.
        place: what tells recordings apart: a hash of (sound file, offset).
    """

    def __init__(
        self, manifests: Sequence[Manifest], columns: dict[str, NDArray[Any]], speakers: Sequence[str]
    ) -> None:
        self._manifests = manifests
        self._columns = columns
        self.speakers = speakers

    @property
    def duration_s(self) -> NDArray[np.float64]:
        """Seconds of each utterance."""
        return self._columns["duration_s"]

    @property
    def speaker(self) -> NDArray[np.int32]:
        """The number of each utterance's speaker."""
        return self._columns["speaker"]

    @property
    def place(self) -> NDArray[np.int64]:
        """What tells recordings apart."""
        return self._columns["place"]

    def __len__(self) -> int:
        return len(self._columns["start"])

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Listing: ...
    def __getitem__(self, index: int | slice) -> Utterance | Listing:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        columns = self._columns
        manifest = self._manifests[columns["manifest"][index]]
        utterance: Utterance = manifest.utterance(int(columns["start"][index]))
        level = int(columns["level"][index])
        if level != _GIVEN:
            utterance = replace(utterance, id=names_of[level](utterance, manifest.folder))
        if columns["repeats"][index]:
            name = f"{Path(manifest.name).with_suffix('').as_posix()}/{utterance.id}"
            return replace(utterance, id=name)
        return utterance

    def take(self, indices: NDArray[Any] | Sequence[int]) -> Listing:
        """These utterances, in this order."""
        chosen = np.asarray(indices, np.int64)
        return Listing(self._manifests, {name: values[chosen] for name, values in self._columns.items()}, self.speakers)

    def texts(self) -> Iterator[str]:
        """The transcripts, faster than utterance by utterance."""
        for manifest, start in zip(self._columns["manifest"], self._columns["start"], strict=True):
            text: str = json.loads(self._manifests[manifest].raw(int(start)).decode("utf-8-sig"))["text"]
            yield text


def read_listing(paths: Iterable[Path], names: Sequence[str] = ()) -> Listing:
    """Read manifests, in order, as one list; an id that repeats in another manifest is made unique by that one's name.

    Args:
        paths: the manifests.
        names: what to call them, by default as their files.

    Raises:
        CorpusError: as `read_manifest`.
    """
    paths = list(paths)
    manifests = [Manifest(path, name) for path, name in zip(paths, names or [""] * len(paths), strict=True)]
    speakers: dict[str, int] = {}
    parts = [_columns(manifest, number, speakers) for number, manifest in enumerate(manifests)]
    if not parts:
        parts = [_empty()]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ids = columns.pop("id")
    first = np.zeros(len(ids), bool)
    first[np.unique(ids, return_index=True)[1]] = True
    return Listing(manifests, {**columns, "repeats": ~first}, list(speakers))


_TYPES = {"start": "q", "duration_s": "d", "speaker": "i", "place": "q", "level": "b"}  # as arrays name them


def _empty() -> dict[str, NDArray[Any]]:
    types = {**_TYPES, "id": "q", "manifest": "h"}
    return {name: np.zeros(0, kind) for name, kind in types.items()}


def _columns(manifest: Manifest, number: int, speakers: dict[str, int]) -> dict[str, NDArray[Any]]:
    """What is kept of each line; every line is checked, and names are settled."""
    rows: dict[str, array[Any]] = {name: array(kind) for name, kind in _TYPES.items()}
    lines, ids = array("q"), array("q")
    for line, start in enumerate(manifest.starts(), start=1):
        raw = manifest.raw(start)
        if not raw.strip():
            continue
        utterance = parse_line(raw, manifest.folder, f"{manifest.path}:{line}", line == 1)
        lines.append(line)
        ids.append(hash(utterance.id))
        rows["start"].append(start)
        rows["duration_s"].append(utterance.duration_s)
        rows["speaker"].append(speakers.setdefault(utterance.speaker, len(speakers)))
        rows["place"].append(hash((str(utterance.audio), utterance.offset_s)))
        rows["level"].append(_GIVEN if utterance.id else 0)
    if not lines:
        raise CorpusError(
            f"{manifest.path}: no utterances; expected one JSON object a line with audio_filepath, duration, text"
        )
    columns = {name: np.array(values) for name, values in rows.items()}
    columns |= {"id": np.array(ids), "manifest": np.full(len(lines), number, np.int16)}
    _settle_names(manifest, columns)
    _refuse_duplicates(manifest, columns, lines)
    return columns


def _settle_names(manifest: Manifest, columns: dict[str, NDArray[Any]]) -> None:
    """Each utterance without an id is called after its file's stem, or where that is taken by a longer name."""
    waiting = np.flatnonzero(columns["level"] != _GIVEN)
    taken = columns["id"][columns["level"] == _GIVEN]
    for level, propose in enumerate(cast(Sequence[Callable[[Utterance, Path], str]], names_of)):
        if not len(waiting):
            return
        starts = columns["start"][waiting]
        proposed = np.array([hash(propose(manifest.utterance(int(s)), manifest.folder)) for s in starts], np.int64)
        found, uses = np.unique(np.concatenate([taken, proposed]), return_counts=True)
        alone = uses[np.searchsorted(found, proposed)] == 1
        settled = alone if level + 1 < len(names_of) else np.ones(len(waiting), bool)
        columns["id"][waiting[settled]] = proposed[settled]
        columns["level"][waiting[settled]] = level
        taken = np.concatenate([taken, proposed[settled]])
        waiting = waiting[~settled]


def _refuse_duplicates(manifest: Manifest, columns: dict[str, NDArray[Any]], lines: Sequence[int]) -> None:
    _, first, inverse = np.unique(columns["id"], return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse] != np.arange(len(lines)))
    if len(repeated):
        again = int(repeated[0])
        utterance = manifest.utterance(int(columns["start"][again]))
        name = utterance.id or names_of[-1](utterance, manifest.folder)
        before = lines[int(first[inverse[again]])]
        raise CorpusError(
            f"{manifest.path}:{lines[again]}: duplicate id {name!r}, first on line {before}; "
            "expected every utterance once"
        )


def take(utterances: Sequence[Utterance], indices: NDArray[Any] | Sequence[int]) -> Sequence[Utterance]:
    """Some of the utterances, in the order of the indices; of a `Listing` another one."""
    if isinstance(utterances, Listing):
        return utterances.take(indices)
    return [utterances[int(index)] for index in indices]


def durations_s(utterances: Sequence[Utterance]) -> NDArray[np.float64]:
    """Seconds of each utterance."""
    if isinstance(utterances, Listing):
        return utterances.duration_s
    return np.array([utterance.duration_s for utterance in utterances], np.float64)


def places(utterances: Sequence[Utterance]) -> NDArray[np.int64]:
    """What tells recordings apart, in this process."""
    if isinstance(utterances, Listing):
        return utterances.place
    return np.array([hash((str(u.audio), u.offset_s)) for u in utterances], np.int64)


def speakers(utterances: Sequence[Utterance]) -> tuple[NDArray[np.int32], list[str]]:
    """A number for each utterance, and the speakers' names by number."""
    if isinstance(utterances, Listing):
        return utterances.speaker, list(utterances.speakers)
    names = sorted({utterance.speaker for utterance in utterances})
    return np.array([names.index(utterance.speaker) for utterance in utterances], np.int32), names
