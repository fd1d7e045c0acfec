"""Lhotse Shar: cuts.NNNNNN.jsonl.gz and recording.NNNNNN.tar beside each other. Nothing is copied: the manifest names
stretches of the tar files.
"""

from __future__ import annotations

import gzip
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wavasr.corpora.base import Corpus, need_folder
from wavasr.corpora.manifest import Utterance
from wavasr.errors import CorpusError

LAYOUT = "cuts.000000.jsonl.gz and recording.000000.tar"


def read(root: Path, *, split: str = "train", progress: bool = True) -> Corpus:
    """Read the cuts that have a text and a recording.

    Args:
        root: the folder of the shards.
        split: what to call them.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: it is no such folder, or a file in it is damaged.
    """
    cuts = sorted(need_folder(root, LAYOUT).glob("cuts.*.jsonl.gz"))
    if not cuts:
        raise CorpusError(f"{root}: no cuts.*.jsonl.gz; expected {LAYOUT}")
    found: list[Utterance] = []
    problems: list[str] = []
    for path in tqdm(cuts, "reading shar", unit="file", disable=None if progress else True, delay=1):
        tar = root / path.name.replace("cuts.", "recording.").removesuffix(".jsonl.gz")
        recordings = _stretches(tar.with_name(f"{tar.name}.tar"))
        for cut in _cuts(path):
            try:
                found.append(_utterance(cut, recordings))
            except (AttributeError, KeyError, TypeError, ValueError):
                problems.append(f"{path}: cut {cut.get('id')!r} has no text, no duration or no recording")
    if not found:
        raise CorpusError(f"{root}: no cut can be used, e.g. {problems[0]}")
    return Corpus("shar", {split: found}, problems, [])


def _cuts(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                if not isinstance(cut := json.loads(line), dict):
                    raise ValueError("a line is no JSON object")
                yield cut
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


def _utterance(cut: dict[str, Any], recordings: dict[str, str]) -> Utterance:
    """Raises all kinds where the cut lacks something."""
    name = str(cut["id"])
    said = [one for one in cut["supervisions"] if one.get("text")]
    text = " ".join(" ".join(one["text"].split()) for one in said)
    speaker = str(said[0].get("speaker") or "") if said else ""
    duration_s = float(cut["duration"])
    if not text or not 0 < duration_s < math.inf:
        raise ValueError(name)
    return Utterance(name, Path(recordings[name]), duration_s, text, speaker)
