"""What a recipe trains, validates and tests on: utterances read from manifests, speakers held out, texts spelled.

Nothing is left out in silence: what cannot be learnt is an error that names it, or is dropped and counted where the
config says so.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavasr.corpora import guess
from wavasr.corpora.base import in_order
from wavasr.corpora.listing import Listing, durations_s, places, read_listing, speakers, take
from wavasr.corpora.manifest import HOW_TO_MAKE, Utterance, file_of, report_dropped
from wavasr.corpora.pieces import in_pieces
from wavasr.corpora.remote import join, read_bytes, url_of
from wavasr.errors import ConfigError, CorpusError, TextError
from wavasr.language.config import TextConfig, UnitsConfig
from wavasr.language.lexicon import TIMIT_61, fold
from wavasr.language.text import Units, normalise
from wavasr.training.config import DataConfig, FitConfig

log = logging.getLogger("wavasr")

_ARPABET = """AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z
ZH""".split()
_PHONES = {*_ARPABET, *(phone.upper() for phone in TIMIT_61), "SIL", "CL", "VCL"}
_LOOKED_AT, _FEWEST_TOKENS = 1000, 20  # transcripts; symbols in them, to tell words from phones
_MOSTLY = 0.9
_LONGEST_PHONE = 4  # letters


@dataclass(frozen=True)
class Split:
    """Utterances and, for each, its text as it is encoded."""

    utterances: Sequence[Utterance]
    texts: Collection[str]

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return float(durations_s(self.utterances).sum()) / 3600


@dataclass(frozen=True)
class Splits:
    """The parts of a corpus; `test` is empty where the recipe names none."""

    train: Split
    dev: Split
    test: Split


def read_splits(config: FitConfig) -> Splits:
    """The utterances that `config.data` names.

    Raises:
        CorpusError: a manifest cannot be used, or an utterance is both trained and validated on.
        ConfigError: there are not enough speakers to hold out, or no times of phones to cut between.
        TextError: a transcript that should be TIMIT phones is not.
    """
    data = config.data
    train = read_manifests(data.root, data.train)
    if data.dev:
        dev = read_manifests(data.root, data.dev)
    elif data.dev_speakers:
        train, dev = hold_out_speakers(train, data.dev_speakers)
    else:
        number = np.arange(len(train))
        train, dev = (take(train, number[held]) for held in (number % data.dev_every > 0, number % data.dev_every == 0))
    test = read_manifests(data.root, data.test)
    for other in (dev, test):
        refuse_overlap(train, other)
    parts = (in_pieces(within(train, data.max_s), data.piece_s), dev, test)
    splits = Splits(*(Split(part, Spelled(part, config)) for part in parts))
    refuse_other_kind(splits.train, config.units)
    return splits


def read_manifests(root: Path, names: Iterable[str]) -> Sequence[Utterance]:
    """The utterances of several manifests; an id that repeats is made unique by its manifest's name.

    Raises:
        CorpusError: one cannot be used; where `root` is a corpus instead, the message has the command that prepares it.
    """
    names = list(names)
    require_manifests(root, names)
    return read_listing((join(root, name) for name in names), names)


def require_manifests(root: Path, names: Iterable[str]) -> None:
    """See to it that a folder with a corpus is not taken for one with its manifests.

    Raises:
        CorpusError: it was; the message has the command that prepares the corpus.
    """
    missing = [name for name in names if url_of(join(root, name)) is None and not (root / name).exists()]
    if missing and (corpus := guess(root)):
        raise CorpusError(
            f"{root}: is a corpus and has no {missing[0]}; make manifests with `wavasr prepare {corpus} {root} "
            f"--output data/{corpus}`, then give --data.root data/{corpus}"
        )
    if missing:
        raise CorpusError(f"{root / missing[0]}: no such manifest; {HOW_TO_MAKE}; --data.root names their folder")


def fingerprints(data: DataConfig) -> dict[str, str]:
    """SHA-256 of every manifest that the recipe names."""
    unlabelled = (name for name in data.unlabelled if not file_of(join(data.root, name)).is_dir())
    names = dict.fromkeys((*data.train, *data.dev, *data.test, *unlabelled))
    return {name: hashlib.sha256(read_bytes(file_of(join(data.root, name)))).hexdigest() for name in names}


def hold_out_speakers(utterances: Sequence[Utterance], count: int) -> tuple[Sequence[Utterance], Sequence[Utterance]]:
    """Split by speaker into (kept, held out): the first `count` as `in_order` sorts them.

    Raises:
        ConfigError: there are not more than `count` speakers.
    """
    number, names = speakers(utterances)
    present = in_order(names[index] for index in np.unique(number))
    if count >= len(present):
        raise ConfigError(
            f"data.dev_speakers is {count}, and the training manifests name {len(present)} speakers; hold out fewer, "
            "or give data.dev a manifest"
        )
    held = np.isin(number, [names.index(name) for name in present[:count]])
    return take(utterances, np.flatnonzero(~held)), take(utterances, np.flatnonzero(held))


def refuse_overlap(train: Sequence[Utterance], other: Sequence[Utterance]) -> None:
    """Raise a CorpusError when a recording is trained on and measured on."""
    shared = np.flatnonzero(np.isin(places(other), places(train)))
    if len(shared):
        audio = other[int(shared[0])].audio
        raise CorpusError(f"{audio}: is in the training set and in a dev or test set; keep it in one")


def within(utterances: Sequence[Utterance], max_s: float) -> Sequence[Utterance]:
    """The utterances of at most `max_s` seconds (0: all)."""
    if not max_s:
        return utterances
    long = np.flatnonzero(durations_s(utterances) > max_s)
    _report(utterances, long, f"more than {max_s:g} s of audio (data.max_s)", lambda u: f"{u.duration_s:.1f} s")
    return take(utterances, np.flatnonzero(durations_s(utterances) <= max_s))


def _report(
    utterances: Sequence[Utterance], dropped: NDArray[np.int64], reason: str, why: Callable[[Utterance], str]
) -> None:
    """Count what is left out, and name the first few."""
    named = {u.id: why(u) for u in take(utterances, dropped[:4])}
    report_dropped(reason, named, len(dropped))


def spell(text: str, text_config: TextConfig, units: UnitsConfig) -> str:
    """A transcript as it is encoded: folded phones, or normalised text.

    Raises:
        TextError: the units are TIMIT phones and a symbol is none.
    """
    if units.kind != "phones":
        return normalise(text, text_config)
    phones = text.split()
    return " ".join(fold(phones, to=units.phone_set) if units.phone_set else phones)


class Spelled(Collection[str]):
    """Transcripts as they are encoded, spelled each time that they are asked for.

    Raises:
        TextError: while iterating, for a transcript that should be TIMIT phones and is not.
    """

    def __init__(self, utterances: Sequence[Utterance], config: FitConfig) -> None:
        self._utterances = utterances
        self._config = config

    def __len__(self) -> int:
        return len(self._utterances)

    def __contains__(self, text: object) -> bool:
        return any(text == other for other in self)

    def __iter__(self) -> Iterator[str]:
        listed = self._utterances
        texts = listed.texts() if isinstance(listed, Listing) else (u.text for u in listed)
        for index, text in enumerate(texts):
            try:
                yield spell(text, self._config.text, self._config.units)
            except TextError as error:
                name = listed[index].id
                raise TextError(f"utterance {name}: {error}; or set units.phone_set: 0") from error


def refuse_other_kind(split: Split, units: UnitsConfig) -> None:
    """Raise a ConfigError where the texts are phones and the units are not, or the other way."""
    tokens = [token for text in itertools.islice(split.texts, _LOOKED_AT) for token in text.split()]
    if len(tokens) < _FEWEST_TOKENS:
        return
    known = sum(token.upper().rstrip("012") in _PHONES for token in tokens) / len(tokens)
    words = sum(len(token) > _LONGEST_PHONE for token in tokens) / len(tokens)
    example = " ".join(tokens[:5])
    if units.kind != "phones" and known > _MOSTLY:
        raise ConfigError(
            f"units.kind is {units.kind}, and the training texts are phones ({example!r} ...); set units.kind: phones, "
            "or give data.train a manifest of words"
        )
    if units.kind == "phones" and known < 1 - _MOSTLY and words > 1 - _MOSTLY:
        raise ConfigError(
            f"units.kind is phones, and the training texts are words ({example!r} ...); make phones of them with "
            "`wavasr align --manifest FILE --output PHONES`, or set units.kind: characters"
        )


def known_share(split: Split, units: Units) -> float:
    """How many of the symbols in the texts, of the first thousand, these units have."""
    spaced = units.kind in ("phones", "words")
    known = set(units.symbols) if spaced else {character for symbol in units.symbols[1:] for character in symbol}
    texts = itertools.islice(split.texts, _LOOKED_AT)
    symbols = [symbol for text in texts for symbol in (text.split() if spaced else text.replace(" ", ""))]
    return sum(symbol in known for symbol in symbols) / max(1, len(symbols))


@dataclass(frozen=True)
class Labels(Sequence[Sequence[int]]):
    """Labels of many utterances in one array.

    Attributes:
        flat: all labels, one utterance after the other.
        ends: where each utterance's labels end.
    """

    flat: NDArray[np.uint16]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Labels:
        """From rows of labels."""
        flat = array("H")
        ends: list[int] = []
        for row in rows:
            flat.extend(row)
            ends.append(len(flat))
        return cls(np.frombuffer(flat, np.uint16) if flat else np.zeros(0, np.uint16), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        start = self.ends[index - 1] if index else 0
        return self.flat[start : self.ends[index]].tolist()

    def take(self, indices: NDArray[np.int64]) -> Labels:
        """The labels of these utterances."""
        return Labels.of(self[int(index)] for index in indices)

    def frames_needed(self) -> NDArray[np.int64]:
        """Frames of the shortest CTC path of each: one a label, and a blank between equal neighbours."""
        starts = np.concatenate([[0], self.ends[:-1]])
        equal = np.concatenate([[0], np.cumsum(self.flat[1:] == self.flat[:-1])]) if len(self.flat) else np.zeros(1)
        # equal[i]: pairs of equal neighbours up to label i
        last, first = np.maximum(self.ends - 1, 0), np.minimum(starts, max(0, len(self.flat) - 1))
        found: NDArray[np.int64] = self.ends - starts + np.where(self.ends > starts, equal[last] - equal[first], 0)
        return found.astype(np.int64)


def encode_split(split: Split, units: Units, config: UnitsConfig) -> tuple[Sequence[Utterance], Labels]:
    """The utterances that `units` can spell, and their labels.

    Raises:
        TextError: a text has a symbol outside the inventory, and the config does not say to drop it.
    """
    dropped: dict[int, str] = {}

    def rows() -> Iterator[Sequence[int]]:
        for index, text in enumerate(split.texts):
            try:
                yield units.encode(text)
            except TextError as error:
                if config.out_of_inventory == "error":
                    raise TextError(f"utterance {split.utterances[index].id}: {error}") from error
                dropped[index] = str(error)

    labels = Labels.of(rows())
    if not dropped:
        return split.utterances, labels
    lost = np.fromiter(dropped, np.int64)
    reasons = {split.utterances[index].id: why for index, why in itertools.islice(dropped.items(), 4)}
    report_dropped("symbols outside the inventory", reasons, len(dropped))
    kept = np.delete(np.arange(len(split.utterances)), lost)
    return take(split.utterances, kept), labels


def infeasible(
    utterances: Sequence[Utterance], labels: Labels, frames: NDArray[np.int64], config: DataConfig
) -> NDArray[np.int64]:
    """Indices of the utterances with fewer frames than CTC needs for their labels, if those may be dropped.

    Args:
        utterances: what is to be learnt.
        labels: their label ids.
        frames: their CTC frames, at the fastest speed that augmentation may draw.
        config: whether to raise or to drop.

    Raises:
        CorpusError: there are some, and `data.infeasible` is "error".
    """
    needed = labels.frames_needed()
    short = np.flatnonzero(needed > frames)
    why = {
        utterances[int(i)].id: f"{frames[i]} frames for {utterances[int(i)].text!r}, which needs {needed[i]}"
        for i in short[:4]
    }
    if len(short) and config.infeasible == "error":
        name, reason = next(iter(why.items()))
        raise CorpusError(
            f"utterance {name} cannot be learnt: {reason} ({len(short)} such utterances, counted at the fastest speed "
            "of augment.speed); correct the manifest, or set data.infeasible: drop"
        )
    report_dropped("fewer frames than labels", why, len(short))
    return short
