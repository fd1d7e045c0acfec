"""JSON-lines manifests that exist already, of this package or another: checked against their sound files."""

from __future__ import annotations

from pathlib import Path

from wavasr.corpora.base import Corpus, Draft, build, need_folder
from wavasr.corpora.manifest import read_manifest
from wavasr.errors import CorpusError

LAYOUT = "a JSON-lines manifest (*.jsonl), or a folder of such"


def read(root: Path, *, progress: bool = True) -> Corpus:
    """Read one manifest, or every *.jsonl of a folder; splits are called after the files.

    Keys that are not ours are dropped, and durations that reach beyond the file's end are corrected or, by more than
    half a second, refused.

    Args:
        root: a manifest, or a folder of manifests.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: no manifests there, a bad line in one, or one without a usable utterance.
    """
    manifests = [root] if root.is_file() else sorted(need_folder(root, LAYOUT).glob("*.jsonl"))
    if not manifests:
        raise CorpusError(f"{root}: no *.jsonl; expected {LAYOUT}")
    return build("jsonl", {path.stem: _drafts(path) for path in manifests}, progress=progress)


def _drafts(path: Path) -> list[Draft]:
    return [Draft(u.id, u.audio, u.text, u.speaker, u.offset_s, u.duration_s, u.alignment) for u in read_manifest(path)]
