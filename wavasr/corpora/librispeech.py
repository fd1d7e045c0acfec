"""LibriSpeech: LibriSpeech/<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac, texts in *.trans.txt.

The subsets keep their names (train-clean-100, dev-other, ...). Mini LibriSpeech has the same layout.
"""

from __future__ import annotations

from pathlib import Path

from wavasr.audio.source import AUDIO_SUFFIXES
from wavasr.corpora.base import Corpus, Draft, build, find_audio, folders, read_lines, search, with_suffix_of

LAYOUT = "LibriSpeech/<subset>/<speaker>/<chapter>/*.flac with a .trans.txt"


def read(root: Path, *, progress: bool = True) -> Corpus:
    """Read every subset there is.

    Args:
        root: the folder LibriSpeech, one that holds it, or one subset.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: no subset there, or one without a usable utterance.
    """
    found = search(root, lambda folder: _is_subset(folder) or any(map(_is_subset, folders(folder))), LAYOUT)
    subsets = [found] if _is_subset(found) else [folder for folder in folders(found) if _is_subset(folder)]
    problems: list[str] = []
    drafts = {subset.name: _subset(subset, problems) for subset in subsets}
    return build("librispeech", drafts, problems=problems, progress=progress)


def _is_subset(folder: Path) -> bool:
    return next(folder.glob("*/*/*.trans.txt"), None) is not None


def _subset(subset: Path, problems: list[str]) -> list[Draft]:
    drafts = []
    for transcripts in sorted(subset.glob("*/*/*.trans.txt")):
        chapter = transcripts.parent
        for line in read_lines(transcripts):
            name, _, text = line.partition(" ")
            if name:
                audio = with_suffix_of(chapter / name, (".flac", *AUDIO_SUFFIXES))
                drafts.append(Draft(name, audio, text, speaker=chapter.parent.name))
    listed = {draft.audio for draft in drafts}
    problems.extend(f"{audio}: not in its chapter's .trans.txt" for audio in find_audio(subset) if audio not in listed)
    return drafts
