"""What the corpus readers share: drafts of utterances, the check of every sound file, held-out speakers."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wavasr.audio.source import AUDIO_SUFFIXES, printable
from wavasr.corpora.manifest import AlignedPhone, Utterance
from wavasr.errors import AudioError, CorpusError, counted, reading
from wavasr.files import read_text

# A segment may end this much after its file: transcribers' clocks are not the sound card's.
OVERSHOOT_S = 0.5

# What may be missing at a file's end, which copies of corpora have lost.
TOLERATED_S = 0.01

_BATCH_FILES = 1024

# From so many speakers on a share of them is held out; of fewer, but this least number, one.
_MANY_SPEAKERS, _LEAST_SPEAKERS = 5, 3


@dataclass(frozen=True)
class Corpus:
    """A corpus as it was read.

    Attributes:
        name: the layout's name, a key of `wavasr.corpora.NAMES`.
        splits: utterances by split ("train", "dev", "test", or the corpus's own names).
        problems: one line for every file that cannot be used and every count that is not as it should be.
        notes: one line for every decision a reader of results should know.
    """

    name: str
    splits: dict[str, list[Utterance]]
    problems: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Draft:
    """An utterance before its sound file has been opened.

    Attributes:
        duration_s: length where the corpus states it; None means to the end of the file.
    """

    id: str
    audio: Path
    text: str
    speaker: str = ""
    offset_s: float = 0.0
    duration_s: float | None = None
    alignment: tuple[AlignedPhone, ...] = ()


def build(
    name: str,
    drafts: Mapping[str, Sequence[Draft]],
    *,
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
    progress: bool = True,
) -> Corpus:
    """Open every sound file's header, and make utterances of the drafts whose files are sound.

    Args:
        name: the layout's name.
        drafts: drafts by split.
        problems: what the reader found already; what is found here is added.
        notes: as in `Corpus`.
        progress: show a bar on stderr when that is a terminal.

    Raises:
        CorpusError: two utterances of a split have one id, or a split's every utterance is unusable.
    """
    files = list(dict.fromkeys(draft.audio for group in drafts.values() for draft in group))
    lengths = dict(zip(files, _measure_all(files, name, progress), strict=True))
    found = list(problems) + [str(error) for error in lengths.values() if isinstance(error, AudioError)]
    said = list(notes)
    splits: dict[str, list[Utterance]] = {}
    for split, group in drafts.items():
        _refuse_duplicates(name, split, group)
        usable = [u for draft in group if (u := _utterance(draft, lengths[draft.audio], found)) is not None]
        if clipped := sum(_overshoots(draft, lengths[draft.audio]) for draft in group):
            said.append(
                f"{counted(clipped, 'utterance')} of {split} cut at the end of the file, by {OVERSHOOT_S} s at most"
            )
        if not usable:
            reason = f", e.g. {found[-1]}" if found else ""
            raise CorpusError(f"{name}: no utterance of {split!r} can be used{reason}")
        splits[split] = usable
    if not splits:
        raise CorpusError(f"{name}: no utterances found{': ' + found[0] if found else ''}")
    problems = [printable(problem) for problem in found + _shared_recordings(splits)]
    return Corpus(name, splits, problems, [printable(note) for note in said + _shared_speakers(splits)])


def hold_out(drafts: Sequence[Draft], share: float) -> tuple[dict[str, list[Draft]], list[str]]:
    """Set about `share` of the training utterances aside, whole speakers where that can be, the same on every machine.

    Speakers are taken in the order of a hash of their names. Of three or four speakers the one with the fewest
    utterances is held out, if these are a third at most. Otherwise single utterances are, and a note says so.

    Returns:
        {"train": what remains, "dev": what is held out}, without "dev" when `share` is 0; and the notes on it.

    Raises:
        CorpusError: `share` is not from 0 to below 1, or nothing would remain.
    """
    if not 0.0 <= share < 1.0:
        raise CorpusError(f"dev_share is {share}; expected 0 to below 1")
    if share == 0.0 or not drafts:
        return {"train": list(drafts)}, []
    speakers = Counter(draft.speaker for draft in drafts if draft.speaker)
    held = _held_speakers(speakers, share * len(drafts), len(drafts))
    by_speaker = bool(held)
    if not by_speaker:
        held = _first(Counter(draft.id for draft in drafts), share * len(drafts))
    splits: dict[str, list[Draft]] = {"train": [], "dev": []}
    for draft in drafts:
        splits["dev" if (draft.speaker if by_speaker else draft.id) in held else "train"].append(draft)
    count = len(splits["dev"])
    if count == len(drafts):
        raise CorpusError(
            f"dev_share={share:g} of {len(drafts)} utterances leaves none for training; give a smaller one"
        )
    what = counted(len(held), "speaker") if by_speaker else counted(count, "utterance")
    notes = [f"dev is {what} held out of train; the corpus has no dev set of its own"]
    if not by_speaker:
        notes.append("too few speakers are known to hold whole ones out: dev has the voices of train")
    return splits, notes


def _held_speakers(sizes: Counter[str], wanted: float, total: int) -> set[str]:
    if len(sizes) >= _MANY_SPEAKERS:
        return _first(sizes, wanted)
    fewest = min(in_order(sizes), key=lambda speaker: sizes[speaker], default="")
    return {fewest} if len(sizes) >= _LEAST_SPEAKERS and sizes[fewest] <= total / _LEAST_SPEAKERS else set()


def _first(sizes: Counter[str], wanted: float) -> set[str]:
    """The first keys, `in_order`, that come to at least so many utterances."""
    chosen: set[str] = set()
    count = 0
    for key in in_order(sizes):
        if count >= wanted:
            break
        chosen.add(key)
        count += sizes[key]
    return chosen


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which they are held out: that of their hashes, the same everywhere."""

    def digest(name: str) -> str:
        return hashlib.sha1(name.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()

    return sorted(names, key=digest)


def need_folder(root: Path, layout: str) -> Path:
    """`root` if it is a folder.

    Raises:
        CorpusError: it is not; the message says what layout was expected.
    """
    if root.is_file():
        raise CorpusError(f"{root}: is a file; unpack it, and give the folder that holds {layout}")
    if not root.is_dir():
        raise CorpusError(f"{root}: no such folder; expected {layout}")
    return root


def search(root: Path, is_it: Callable[[Path], bool], layout: str) -> Path:
    """The first folder that `is_it` accepts: `root`, its subfolders, or theirs.

    People give the folder that they unpacked an archive into as often as the one inside it.

    Raises:
        CorpusError: `root` is no folder, or none is accepted; the message says what layout was expected.
    """
    level = [need_folder(root, layout)]
    for _ in range(3):
        for folder in level:
            if is_it(folder):
                return folder
        level = [child for folder in level for child in folders(folder)]
    raise CorpusError(f"{root}: expected {layout} in it; is it another corpus?")


def folders(parent: Path) -> list[Path]:
    """The subfolders, sorted, without the hidden ones."""
    return sorted(child for child in parent.iterdir() if child.is_dir() and not child.name.startswith("."))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without line ends.

    Raises:
        CorpusError: the file is missing, unreadable or not UTF-8.
    """
    with reading(path, "file of this corpus", "unpack the corpus again", CorpusError):
        # Not splitlines(): transcripts may hold U+2028 and other characters that it takes for line ends.
        return read_text(path).rstrip("\n").split("\n")


def find_audio(folder: Path, suffixes: Sequence[str] = AUDIO_SUFFIXES) -> Iterator[Path]:
    """Sound files beneath a folder, sorted; hidden files and folders are passed over."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield path


def with_suffix_of(stem: Path, suffixes: Sequence[str]) -> Path:
    """`stem` plus the first suffix for which there is a file; the first of all where there is none."""
    candidates = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _measure_all(files: Sequence[Path], name: str, progress: bool) -> list[float | AudioError]:
    from tqdm import tqdm

    from wavasr.audio.reading import audio_duration_s

    def attempt(path: Path) -> float | AudioError:
        try:
            return audio_duration_s(path)
        except AudioError as error:
            return error

    results: list[float | AudioError] = []
    hidden = None if progress else True  # None: hidden where stderr is no terminal
    bar = tqdm(total=len(files), desc=f"checking {name}", unit="file", disable=hidden, delay=1)
    # Opening is waiting, on network drives above all, so there are more threads than cores.
    with bar, ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        # In batches, so that Ctrl-C need not wait for the whole corpus, nor memory hold a task for each of its files.
        for start in range(0, len(files), _BATCH_FILES):
            for result in pool.map(attempt, files[start : start + _BATCH_FILES]):
                results.append(result)
                bar.update()
    return results


def _utterance(draft: Draft, length_s: float | AudioError, problems: list[str]) -> Utterance | None:
    if isinstance(length_s, AudioError):
        return None
    if not draft.text.strip():
        problems.append(f"{draft.audio}: the text of utterance {draft.id!r} is empty; write what is said")
        return None
    duration_s = length_s - draft.offset_s if draft.duration_s is None else draft.duration_s
    end_s = draft.offset_s + duration_s
    if duration_s <= 0 or end_s > length_s + OVERSHOOT_S:
        span = f"from {draft.offset_s:g} to {end_s:g} s"
        problems.append(f"{draft.audio}: utterance {draft.id!r} lies {span}, but the file has {length_s:g} s")
        return None
    duration_s = round(min(duration_s, length_s - draft.offset_s), 6)
    text = " ".join(draft.text.split())
    named, speaker = printable(draft.id), printable(draft.speaker)
    return Utterance(named, draft.audio, duration_s, text, speaker, draft.offset_s, draft.alignment)


def _overshoots(draft: Draft, length_s: float | AudioError) -> bool:
    if isinstance(length_s, AudioError) or draft.duration_s is None:
        return False
    return length_s + TOLERATED_S < draft.offset_s + draft.duration_s <= length_s + OVERSHOOT_S


def _refuse_duplicates(name: str, split: str, drafts: Sequence[Draft]) -> None:
    repeated = [key for key, uses in Counter(draft.id for draft in drafts).items() if uses > 1]
    if repeated:
        raise CorpusError(f"{name}: {split!r} has {len(repeated)} ids more than once, e.g. {repeated[0]!r}")


def _shared_speakers(splits: Mapping[str, Sequence[Utterance]]) -> list[str]:
    """A note for each evaluation split whose speakers are also trained on."""
    trained = {u.speaker for split, group in splits.items() if split.startswith("train") for u in group} - {""}
    notes = []
    for split, group in splits.items():
        shared = trained & {u.speaker for u in group}
        if shared and not split.startswith("train"):
            notes.append(f"speakers of {split} who are also in train: {len(shared)}; it does not measure new voices")
    return notes


def _shared_recordings(splits: Mapping[str, Sequence[Utterance]]) -> list[str]:
    trained = {(u.audio, u.offset_s) for split, group in splits.items() if split.startswith("train") for u in group}
    problems = []
    for split, group in splits.items():
        shared = [u for u in group if (u.audio, u.offset_s) in trained and not split.startswith("train")]
        if shared:
            problems.append(f"utterances of {split} that are also in train: {len(shared)}, e.g. {shared[0].audio}")
    return problems
