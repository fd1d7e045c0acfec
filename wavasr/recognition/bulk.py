"""A corpus to texts, in units that are done once: what a run leaves undone, killed or not, the next one does.

    manifests, shards, folders -> units -> workers -> DIR/NAME.jsonl          one object an utterance
                                                      DIR/NAME.errors.jsonl   what could not be read, if any

A unit is a shard, or a block of a manifest or folder. Its result appears whole, and last: where it is, the unit is
done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from wavasr.corpora.base import find_audio
from wavasr.corpora.listing import read_listing
from wavasr.corpora.manifest import INDEX_NAME, Utterance, file_of
from wavasr.corpora.recordings import load_utterance
from wavasr.corpora.remote import url_of
from wavasr.corpora.shards import stretch_of
from wavasr.decoding.config import DEFAULT, DecodingConfig
from wavasr.decoding.decoder import Decoder
from wavasr.decoding.factory import decoder_of
from wavasr.errors import ConfigError, CorpusError, WavasrError
from wavasr.files import atomic_text, check_writable_folder
from wavasr.network.files import resolve
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.models import opened
from wavasr.recognition.transcribe import Transcript, transcribe

BLOCK = 200  # utterances in a unit of a manifest or folder
SETTINGS_NAME = "bulk.json"


@dataclass(frozen=True)
class Unit:
    """Some recordings with one result file; an utterance of 0 s is a whole file, whose length nobody knows yet."""

    name: str
    utterances: Sequence[Utterance]


@dataclass(frozen=True)
class Done:
    """What came of a unit.

    Attributes:
        name: the unit's.
        recordings: how many are transcribed.
        failed: how many could not be read; all of them where the unit is lost.
        duration_s: seconds of audio that were transcribed.
        lost: whether its workers were killed, each time.
    """

    name: str
    recordings: int
    failed: int
    duration_s: float
    lost: bool = False


def units_of(sources: Sequence[str | Path], block: int = BLOCK) -> list[Unit]:
    """The units of manifests, folders of shards, single shards beside their index, and folders of recordings.

    Raises:
        CorpusError: one of them cannot be read or is empty, or two units would have one name.
    """
    units = [unit for source in sources for unit in _units(Path(source), block)]
    names: set[str] = set()
    for unit in units:
        if unit.name in names:
            raise CorpusError(f"{unit.name}: two inputs have units of this name; give each an --output of its own")
        names.add(unit.name)
    return units


def _units(source: Path, block: int) -> Iterator[Unit]:
    wanted = source if source.suffix == ".tar" else None
    path = source.parent / INDEX_NAME if wanted else file_of(source)
    if url_of(path) is None and path.is_dir():
        yield from _blocks(path.absolute().name, _recordings(path), block)
        return
    listing = read_listing([path])
    if path.name != INDEX_NAME:
        yield from _blocks(path.stem, listing, block)
        return
    first, found = 0, False
    for shard, group in groupby(_files(listing)):
        end = first + sum(1 for _ in group)
        if wanted is None or shard == wanted.name:
            found = True
            yield Unit(f"{path.absolute().parent.name}-{Path(shard).stem}", listing[first:end])
        first = end
    if not found:
        raise CorpusError(f"{source}: is not in {path}; expected a shard that the index beside it lists")


def _files(utterances: Sequence[Utterance]) -> Iterator[str]:
    """The name of the file that each utterance lies in."""
    for utterance in utterances:
        stretch = stretch_of(utterance.audio)
        yield (stretch[0] if stretch else utterance.audio).name


def _recordings(folder: Path) -> list[Utterance]:
    found = [Utterance(path.relative_to(folder).as_posix(), path, 0.0, "") for path in find_audio(folder)]
    if not found:
        raise CorpusError(f"{folder}: is a folder without recordings; give a manifest, or another folder")
    return found


def _blocks(name: str, utterances: Sequence[Utterance], size: int) -> Iterator[Unit]:
    for number, first in enumerate(range(0, len(utterances), size)):
        yield Unit(f"{name}-{number:06d}", utterances[first : first + size])


class Bulk:
    """The results in a folder: what is done, and what is still to do.

    Args:
        output: the folder.
        model: a model file or shipped name.
        decoding: how log-probabilities become text.
        block: as in `units_of`.

    Raises:
        WavasrError: the model cannot be used, or the folder has results of another model or with other settings.
        OSError: the folder cannot be written.
    """

    def __init__(
        self, output: Path, model: str = "default", decoding: DecodingConfig = DEFAULT, block: int = BLOCK
    ) -> None:
        self.output, self.model, self.decoding = output, model, decoding
        check_writable_folder(output)
        decoder_of(decoding, opened(model))  # mistakes show before the work
        settings: dict[str, Any] = {"model_sha256": _sha256(resolve(model)), "decoding": repr(decoding), "block": block}
        parts = [part for part in (decoding.lm, decoding.lexicon, decoding.rescorer) if isinstance(part, Path)]
        if files := {path.as_posix(): _sha256(path) for path in parts if path.is_file()}:
            settings["files_sha256"] = files
        self._settle(f"{json.dumps(settings, ensure_ascii=False)}\n")

    def _settle(self, settings: str) -> None:
        path = self.output / SETTINGS_NAME
        if not path.is_file():
            with atomic_text(path) as stream:
                stream.write(settings)
        elif path.read_text(encoding="utf-8") != settings:
            raise ConfigError(f"{path}: results here come from another model or settings; choose another --output")

    def finished(self, unit: Unit) -> Done | None:
        """What came of a unit in an earlier run; None where it is still to do.

        Raises:
            CorpusError: its result is of other recordings.
        """
        result = result_of(self.output, unit.name)
        if not result.is_file():
            return None
        recordings, failed = _lines(result), _lines(errors_of(self.output, unit.name))
        if recordings + failed != len(unit.utterances):
            raise CorpusError(
                f"{result}: has {recordings + failed} recordings where the input now has {len(unit.utterances)}; "
                "remove it, or choose another --output"
            )
        return Done(unit.name, recordings, failed, 0.0)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def result_of(output: Path, name: str) -> Path:
    """The file with a unit's texts."""
    return output / f"{name}.jsonl"


def errors_of(output: Path, name: str) -> Path:
    """The file with a unit's recordings that could not be read; absent where there are none."""
    return output / f"{name}.errors.jsonl"


def _lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(2**20), b""))


def transcribe_unit(unit: Unit, output: Path, model: AcousticModel, decoder: Decoder) -> Done:
    """Write the result of one unit, and what could not be read.

    Raises:
        OSError: they cannot be written.
    """
    errors: list[dict[str, str]] = []
    duration_s = 0.0
    with atomic_text(result_of(output, unit.name)) as stream:
        for utterance in unit.utterances:
            try:
                transcript = _transcript(utterance, model, decoder)
            except (WavasrError, OSError) as error:
                errors.append({"id": utterance.id, "audio": utterance.audio.as_posix(), "error": str(error)})
                continue
            duration_s += transcript.duration_s
            record = {"id": utterance.id, **transcript.to_dict()}
            stream.write(_line({key: record[key] for key in _KEYS if key in record}))
        if errors:  # before the result takes its name
            with atomic_text(errors_of(output, unit.name)) as failed:
                failed.writelines(map(_line, errors))
        else:
            errors_of(output, unit.name).unlink(missing_ok=True)
    return Done(unit.name, len(unit.utterances) - len(errors), len(errors), duration_s)


_KEYS = ("id", "text", "confidence", "duration_s", "words", "alternatives")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _transcript(utterance: Utterance, model: AcousticModel, decoder: Decoder) -> Transcript:
    if not utterance.duration_s:
        return transcribe(utterance.audio, model, decoder=decoder)
    samples = load_utterance(utterance, model.sample_rate)
    return transcribe(samples, model, sample_rate=model.sample_rate, decoder=decoder)
