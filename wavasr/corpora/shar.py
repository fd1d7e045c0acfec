"""Lhotse Shar: cuts.NNNNNN.jsonl.gz and recording.NNNNNN.tar beside each other. Nothing is copied: the manifest names
stretches of the tar files.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wavasr.corpora.base import Corpus, need_folder
from wavasr.corpora.manifest import Utterance
from wavasr.errors import CorpusError

LAYOUT = "cuts.000000.jsonl.gz and recording.000000.tar"


def read(root: Path, *, split: str = "train") -> Corpus:
    """Read the cuts that have a text and a recording.

    Args:
        root: the folder of the shards.
        split: what to call them.

    Raises:
        CorpusError: it is no such folder, or a file in it is damaged.
    """
    cuts = sorted(need_folder(root, LAYOUT).glob("cuts.*.jsonl.gz"))
    if not cuts:
        raise CorpusError(f"{root}: no cuts.*.jsonl.gz; expected {LAYOUT}")
    found: list[Utterance] = []
    problems: list[str] = []
    for path in cuts:
        tar = root / path.name.replace("cuts.", "recording.").removesuffix(".jsonl.gz")
        recordings = _stretches(tar.with_name(f"{tar.name}.tar"))
        for cut in _cuts(path):
            utterance = _utterance(cut, recordings)
            if utterance is None:
                problems.append(f"{path}: cut {cut.get('id')!r} has no text or no recording")
            else:
                found.append(utterance)
    if not found:
        raise CorpusError(f"{root}: no cut can be used, e.g. {problems[0]}")
    return Corpus("shar", {split: found}, problems, [])


def _cuts(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); copy it again") from error


def _stretches(path: Path) -> dict[str, str]:
    """Where the recording of each cut lies: `x.tar#first+size`."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar if not member.name.endswith((".json", ".nometa", ".nodata"))]
            return {Path(m.name).stem: f"{path.absolute()}#{m.offset_data}+{m.size}" for m in members}
    except (OSError, tarfile.TarError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); copy it again") from error


def _utterance(cut: dict[str, Any], recordings: dict[str, str]) -> Utterance | None:
    said = [one for one in cut.get("supervisions") or () if one.get("text")]
    audio = recordings.get(str(cut.get("id")))
    if not said or audio is None:
        return None
    text = " ".join(" ".join(one["text"].split()) for one in said)
    return Utterance(str(cut["id"]), Path(audio), float(cut["duration"]), text, str(said[0].get("speaker") or ""))
