"""Speech Commands (Warden 2018, arXiv 1804.03209): <word>/<speaker>_nohash_<number>.wav, one second each."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wavasr.corpora.base import Corpus, Draft, build, find_audio, folders, read_lines, search

LAYOUT = "<word>/<speaker>_nohash_<number>.wav"
_LISTS = {"dev": "validation_list.txt", "test": "testing_list.txt"}
_MARK = "_nohash_"
_HASH_RANGE = 2**27


def read(root: Path, *, words: str = "", progress: bool = True) -> Corpus:
    """Read the recordings with the official split, from its lists or, without these, from its rule.

    Args:
        root: the folder of the word folders, or one that holds it.
        words: only these words, separated by commas.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: no recordings there, or a split without a usable utterance.
    """
    home = search(root, lambda folder: any(map(_is_word, folders(folder))), LAYOUT)
    lists = {split: home / name for split, name in _LISTS.items() if (home / name).is_file()}
    listed = {line.strip(): split for split, path in lists.items() for line in read_lines(path)}
    chosen = {word.strip() for word in words.split(",") if word.strip()}
    splits: dict[str, list[Draft]] = {"train": [], "dev": [], "test": []}
    problems = []
    for folder in folders(home):
        # _background_noise_ is no word.
        if folder.name.startswith("_") or (chosen and folder.name not in chosen):
            continue
        for audio in find_audio(folder):
            speaker, mark, _ = audio.stem.partition(_MARK)
            if not mark:
                problems.append(f"{audio}: expected a name like 0a7c2a8d_nohash_0{audio.suffix}")
                continue
            official = f"{folder.name}/{audio.stem}.wav"
            split = listed.get(official, "train") if len(lists) == len(_LISTS) else split_of(speaker)
            splits[split].append(Draft(f"{folder.name}_{audio.stem}", audio, folder.name, speaker))
    notes = (
        [] if len(lists) == len(_LISTS) else ["no split lists here: split by the official rule, a hash of the speaker"]
    )
    return build("speech-commands", splits, problems=problems, notes=notes, progress=progress)


def split_of(speaker: str) -> str:
    """The official rule, which keeps a speaker in one split: 10 % dev, 10 % test (`which_set` in the data's README)."""
    digest = hashlib.sha1(speaker.encode("utf-8"), usedforsecurity=False).hexdigest()
    percentage = int(digest, 16) % _HASH_RANGE * (100.0 / (_HASH_RANGE - 1))
    return "dev" if percentage < 10 else "test" if percentage < 20 else "train"


def _is_word(folder: Path) -> bool:
    return next(folder.glob(f"*{_MARK}*.*"), None) is not None
