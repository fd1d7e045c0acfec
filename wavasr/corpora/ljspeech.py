"""LJ Speech: LJSpeech-1.1/metadata.csv (id|text|normalised text) and wavs/<id>.wav; one reader."""

from __future__ import annotations

from pathlib import Path

from wavasr.audio.source import AUDIO_SUFFIXES
from wavasr.corpora.base import Corpus, Draft, build, read_lines, search, with_suffix_of
from wavasr.errors import CorpusError

LAYOUT = "LJSpeech-1.1/metadata.csv and wavs/*.wav"


def read(root: Path, *, held_out: float = 0.05, normalised: bool = True, progress: bool = True) -> Corpus:
    """Read the clips; the corpus has no official split.

    The last clips in the order of their ids become "test" and those before them "dev": whole chapters but for the
    borders, so that neighbouring sentences do not straddle the split.

    Args:
        root: the folder LJSpeech-1.1, or one that holds it.
        held_out: share of the clips for each of "dev" and "test"; 0 for none.
        normalised: take the texts with numbers and abbreviations spelled out.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: metadata.csv is missing or malformed, or a split has no usable utterance.
    """
    if not 0.0 <= held_out < 0.5:
        raise CorpusError(f"held_out is {held_out}; expected 0 to below 0.5")
    home = search(root, lambda folder: (folder / "metadata.csv").is_file() and (folder / "wavs").is_dir(), LAYOUT)
    metadata = home / "metadata.csv"
    drafts = []
    for number, line in enumerate(read_lines(metadata), start=1):
        if not line.strip():
            continue
        # No quoting: the file's quotation marks are part of the texts.
        fields = line.split("|")
        if len(fields) != 3:
            raise CorpusError(f"{metadata}:{number}: {len(fields)} fields; expected id|text|normalised text")
        audio = with_suffix_of(home / "wavs" / fields[0], AUDIO_SUFFIXES)
        drafts.append(Draft(fields[0], audio, fields[2 if normalised else 1], speaker="lj"))
    drafts.sort(key=lambda draft: draft.id)
    count = round(held_out * len(drafts))
    splits = {"train": drafts[: len(drafts) - 2 * count]}
    notes = []
    if count:
        splits |= {"dev": drafts[-2 * count : -count], "test": drafts[-count:]}
        notes.append(f"no official split: test is the last {count} clips, dev the {count} before them")
    return build("ljspeech", splits, notes=notes, progress=progress)
