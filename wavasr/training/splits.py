"""What a recipe trains, validates and tests on: utterances read from manifests, speakers held out, texts spelled.

Nothing is left out in silence: what cannot be learnt is an error that names it, or is dropped and counted where the
config says so.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wavasr.corpora.manifest import Utterance, read_manifest, report_dropped
from wavasr.errors import ConfigError, CorpusError, TextError
from wavasr.language.config import TextConfig, UnitsConfig
from wavasr.language.lexicon import fold
from wavasr.language.text import Units, ctc_frames_needed, encode_texts, normalise
from wavasr.training.config import DataConfig, FitConfig

log = logging.getLogger("wavasr")


@dataclass(frozen=True)
class Split:
    """Utterances and, for each, its text as it is encoded."""

    utterances: Sequence[Utterance]
    texts: Sequence[str]

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return sum(u.duration_s for u in self.utterances) / 3600


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
        ConfigError: there are not enough speakers to hold out.
        TextError: a transcript that should be TIMIT phones is not.
    """
    data = config.data
    train = read_manifests(data.root, data.train)
    if data.dev:
        dev = read_manifests(data.root, data.dev)
    elif data.dev_speakers:
        train, dev = hold_out_speakers(train, data.dev_speakers)
    else:
        dev, train = train[:: data.dev_every], [u for i, u in enumerate(train) if i % data.dev_every]
    test = read_manifests(data.root, data.test)
    refuse_overlap(train, dev + test)
    return Splits(*(_spelled(part, config) for part in (within(train, data.max_s), dev, test)))


def read_manifests(root: Path, names: Iterable[str]) -> list[Utterance]:
    """The utterances of several manifests; an id that repeats is told apart by its manifest's name."""
    found: list[Utterance] = []
    seen: set[str] = set()
    for name in names:
        for utterance in read_manifest(root / name):
            if utterance.id in seen:
                utterance = replace(utterance, id=f"{Path(name).with_suffix('').as_posix()}/{utterance.id}")
            seen.add(utterance.id)
            found.append(utterance)
    return found


def fingerprints(data: DataConfig) -> dict[str, str]:
    """SHA-256 of every manifest that the recipe names."""
    unlabelled = (name for name in data.unlabelled if not (data.root / name).is_dir())
    names = dict.fromkeys((*data.train, *data.dev, *data.test, *unlabelled))
    return {name: hashlib.sha256((data.root / name).read_bytes()).hexdigest() for name in names}


def hold_out_speakers(utterances: Sequence[Utterance], count: int) -> tuple[list[Utterance], list[Utterance]]:
    """Split by speaker into (kept, held out): `count` of the sorted names at equal distances, the same in every run.

    Raises:
        ConfigError: there are not more than `count` speakers.
    """
    speakers = sorted({u.speaker for u in utterances})
    if count >= len(speakers):
        raise ConfigError(
            f"data.dev_speakers is {count}, and the training manifests name {len(speakers)} speakers; hold out fewer, "
            "or give data.dev a manifest"
        )
    held = {speakers[(2 * i + 1) * len(speakers) // (2 * count)] for i in range(count)}
    return [u for u in utterances if u.speaker not in held], [u for u in utterances if u.speaker in held]


def refuse_overlap(train: Iterable[Utterance], other: Iterable[Utterance]) -> None:
    """Raise a CorpusError when a recording is trained on and measured on."""
    trained = {(u.audio, u.offset_s) for u in train}
    for utterance in other:
        if (utterance.audio, utterance.offset_s) in trained:
            raise CorpusError(f"{utterance.audio}: is in the training set and in a dev or test set; keep it in one")


def within(utterances: Sequence[Utterance], max_s: float) -> list[Utterance]:
    """The utterances of at most `max_s` seconds (0: all)."""
    long = {u.id: f"{u.duration_s:.1f} s" for u in utterances if max_s and u.duration_s > max_s}
    report_dropped(f"more than {max_s:g} s of audio (data.max_s)", long)
    return [u for u in utterances if u.id not in long]


def spell(text: str, text_config: TextConfig, units: UnitsConfig) -> str:
    """A transcript as it is encoded: folded phones, or normalised text.

    Raises:
        TextError: the units are TIMIT phones and a symbol is none.
    """
    if units.kind != "phones":
        return normalise(text, text_config)
    phones = text.split()
    return " ".join(fold(phones, to=units.phone_set) if units.phone_set else phones)


def _spelled(utterances: Sequence[Utterance], config: FitConfig) -> Split:
    texts = []
    for utterance in utterances:
        try:
            texts.append(spell(utterance.text, config.text, config.units))
        except TextError as error:
            raise TextError(f"utterance {utterance.id}: {error}; or set units.phone_set: 0") from error
    return Split(utterances, texts)


def encode_split(split: Split, units: Units, config: UnitsConfig) -> tuple[list[Utterance], list[Sequence[int]]]:
    """The utterances that `units` can spell, and their labels.

    Raises:
        TextError: a text has a symbol outside the inventory, and the config does not say to drop it.
    """
    pairs = zip((u.id for u in split.utterances), split.texts, strict=True)
    encoded = encode_texts(pairs, units, config.out_of_inventory)
    report_dropped("symbols outside the inventory", encoded.dropped)
    kept = [u for u in split.utterances if u.id in encoded.labels]
    return kept, [encoded.labels[u.id] for u in kept]


def infeasible(
    utterances: Sequence[Utterance], labels: Sequence[Sequence[int]], frames: Sequence[int], config: DataConfig
) -> set[str]:
    """Ids of the utterances with fewer frames than CTC needs for their labels, if those may be dropped.

    Args:
        utterances: what is to be learnt.
        labels: their label ids.
        frames: their CTC frames, at the fastest speed that augmentation may draw.
        config: whether to raise or to drop.

    Raises:
        CorpusError: there are some, and `data.infeasible` is "error".
    """
    short = {}
    for utterance, ids, available in zip(utterances, labels, frames, strict=True):
        if (needed := ctc_frames_needed(ids)) > available:
            short[utterance.id] = f"{available} frames for {utterance.text!r}, which needs {needed}"
    if short and config.infeasible == "error":
        name, why = next(iter(short.items()))
        raise CorpusError(
            f"utterance {name} cannot be learnt: {why} ({len(short)} such utterances, counted at the fastest speed of "
            "augment.speed); correct the manifest, or set data.infeasible: drop"
        )
    report_dropped("fewer frames than labels", short)
    return set(short)
