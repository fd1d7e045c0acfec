"""A folder of recordings, each with its transcript in a .txt file beside it: talk.wav and talk.txt."""

from __future__ import annotations

import glob
from pathlib import Path

from wavasr.audio.source import AUDIO_SUFFIXES
from wavasr.corpora.base import Corpus, Draft, build, find_audio, folders, hold_out, need_folder, read_lines
from wavasr.errors import CorpusError, counted

LAYOUT = "sound files, each with a .txt of the same name beside it"
_SPLITS = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
           "test": "test", "testing": "test", "eval": "test"}  # fmt: skip


def read(root: Path, *, dev_share: float = 0.1, progress: bool = True) -> Corpus:
    """Read recordings with the texts beside them.

    Subfolders called train, dev (or valid, validation, val) and test (or eval) are the splits; without any of them
    everything is training speech. Below that, the folder in which a recording lies names its speaker.

    Args:
        root: the folder.
        dev_share: where there is no dev folder, the share of the training utterances held out as "dev", whole
            speakers at a time if there are enough; 0 for none.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: no recordings there, two folders for one split, or a split without a usable utterance.
    """
    parts = _parts(need_folder(root, LAYOUT))
    problems: list[str] = []
    notes: list[str] = []
    drafts = {split: _drafts(root, part, problems, notes) for split, part in parts.items()}
    outside = sum(not any(audio.is_relative_to(part) for part in parts.values()) for audio in find_audio(root))
    if outside:
        notes.append(f"{counted(outside, 'recording')} outside {', '.join(p.name for p in parts.values())}: left out")
    if "train" in drafts and "dev" not in drafts:
        held, note = hold_out(drafts.pop("train"), dev_share)
        drafts, notes = held | drafts, notes + note
    return build("folder", drafts, problems=problems, notes=notes, progress=progress)


def _parts(root: Path) -> dict[str, Path]:
    parts: dict[str, Path] = {}
    for folder in folders(root):
        split = _SPLITS.get(folder.name.lower())
        if split in parts:
            raise CorpusError(f"{root}: {parts[split].name} and {folder.name} are both {split!r}; merge or rename one")
        if split is not None:
            parts[split] = folder
    return parts or {"train": root}


def _drafts(root: Path, part: Path, problems: list[str], notes: list[str]) -> list[Draft]:
    drafts = []
    used: set[Path] = set()
    for audio in find_audio(part):
        beside = [audio.with_suffix(".txt"), audio.with_suffix(".TXT"), audio.with_name(audio.name + ".txt")]
        transcript = next((path for path in beside if path.is_file()), None)
        if transcript is None:
            problems.append(f"{audio}: no transcript; expected {beside[0].name} beside it")
            continue
        used.add(transcript)
        try:
            text = " ".join(read_lines(transcript))
        except CorpusError as error:
            problems.append(str(error))
            continue
        name = audio.relative_to(root).with_suffix("").as_posix()
        speaker = audio.parent.relative_to(part).as_posix()
        drafts.append(Draft(name, audio, text, "" if speaker == "." else speaker))
    _name_passed_over(part, used, problems, notes)
    return drafts


def _name_passed_over(part: Path, used: set[Path], problems: list[str], notes: list[str]) -> None:
    """Texts that belong to no recording: what lies beside them may be one under a suffix that nobody knows."""
    alone = []
    for text in sorted(path for path in part.rglob("*.txt") if path not in used and path.is_file()):
        others = [path for path in sorted(text.parent.glob(f"{glob.escape(text.stem)}.*")) if path != text]
        problems.extend(f"{path}: passed over; expected one of {' '.join(AUDIO_SUFFIXES)}" for path in others)
        if not others:
            alone.append(text)
    if alone:
        notes.append(
            f"texts without a recording beside them: {len(alone)}, passed over, e.g. {alone[0].relative_to(part)}"
        )
