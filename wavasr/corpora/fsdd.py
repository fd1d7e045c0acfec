"""Free Spoken Digit Dataset: recordings/<digit>_<speaker>_<index>.wav at 8 kHz.

The official test set is the recordings with index 0 to 4; its speakers also speak in the training set.
"""

from __future__ import annotations

import re
from pathlib import Path

from wavasr.corpora.base import Corpus, Draft, build, find_audio, search

LAYOUT = "recordings/<digit>_<speaker>_<index>.wav"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_INDICES = 5
_NAME = re.compile(r"^(?P<digit>\d)_(?P<speaker>.+)_(?P<index>\d+)$")


def read(root: Path, *, dev_indices: int = 5, progress: bool = True) -> Corpus:
    """Read the official test set, and the rest as training set without a part for "dev".

    Args:
        root: the folder with `recordings`, one that holds it, or `recordings` itself.
        dev_indices: so many recordings of each digit and speaker are "dev", those after the test's: 5 means index 5
            to 9. With 0 the training set is the official one.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: no recordings there, or a split without a usable utterance.
    """
    home = search(root, lambda folder: any(_NAME.match(p.stem) for p in folder.glob("[0-9]_*_*.*")), LAYOUT)
    splits: dict[str, list[Draft]] = {"train": [], "dev": [], "test": []}
    problems = []
    for audio in find_audio(home):
        match = _NAME.match(audio.stem)
        if match is None:
            problems.append(f"{audio}: expected a name like 7_jackson_32{audio.suffix}")
            continue
        index = int(match["index"])
        split = "test" if index < TEST_INDICES else "dev" if index < TEST_INDICES + dev_indices else "train"
        splits[split].append(Draft(audio.stem, audio, DIGITS[int(match["digit"])], match["speaker"]))
    note = f"dev is index {TEST_INDICES} to {TEST_INDICES + dev_indices - 1}, taken from the official training set"
    if dev_indices == 0:
        del splits["dev"]
    return build("fsdd", splits, problems=problems, notes=[note] if dev_indices else [], progress=progress)
