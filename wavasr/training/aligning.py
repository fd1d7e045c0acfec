"""Transcripts in words become phones: the model that a run starts from aligns them once, before training.

The aligned manifests lie in the run's folder (`phones/`), so that a resumed run does not align again. Numbers and
abbreviations are read out first, as a speaker of English would.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from wavasr.corpora.listing import places
from wavasr.corpora.manifest import Utterance, file_of, read_manifest, write_manifest
from wavasr.corpora.remote import join, read_bytes
from wavasr.errors import ConfigError, TextError, counted
from wavasr.language.spoken import spoken
from wavasr.language.text import normalise
from wavasr.network.files import resolve
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.align import align_manifest, lexicon_of
from wavasr.recognition.models import load_acoustic_model
from wavasr.training.config import FitConfig
from wavasr.training.splits import require_manifests

log = logging.getLogger("wavasr")

_NAMED = 10  # words that the lexicon lacks


def with_phones(config: FitConfig, first: bool = True) -> FitConfig:
    """The configuration with manifests of phones, where `data.align` says that those named hold words.

    Args:
        config: the run's.
        first: whether this process aligns; the others wait for what it writes.

    Raises:
        ConfigError: there is no model of phones with a lexicon to start from.
        CorpusError: `data.root` is a corpus instead of its manifests.
        TextError: none of a manifest's texts can be aligned.
    """
    data = config.data
    if not data.align:
        return config
    if not config.start or config.units.kind != "phones":
        raise ConfigError("data.align needs a model of phones to start from; set start: default, units.kind: phones")
    require_manifests(data.root, (*data.train, *data.dev))
    names = {name: aligned_name(config, name) for name in (*data.train, *data.dev)}
    for name, made in names.items():
        path = config.run_dir / made
        while not first and not path.exists():
            time.sleep(0.5)
        if not path.exists():
            _align(join(data.root, name), path, load_acoustic_model(config.start))
    train, dev = (tuple(names[name] for name in part) for part in (data.train, data.dev))
    return replace(config, data=replace(data, root=config.run_dir, train=train, dev=dev, test=()))


def aligned_name(config: FitConfig, name: str) -> str:
    """Where the phones of a manifest lie in the run's folder: another start model or other texts, another file."""
    digest = hashlib.sha256(read_bytes(file_of(join(config.data.root, name))))
    digest.update(resolve(config.start).read_bytes())
    return f"phones/{Path(name).stem}-{digest.hexdigest()[:12]}.jsonl"


def _align(source: Path, target: Path, model: AcousticModel) -> None:
    lexicon = lexicon_of(model)
    if lexicon is None:
        raise ConfigError(f"{model.file}: has no phones or no lexicon to align with; start from `default`")
    utterances = said(read_manifest(source))
    words = (word for u in utterances for word in normalise(u.text, model.text).split())
    if missing := sorted(set(lexicon.missing(list(dict.fromkeys(words))))):
        more = ", ..." if len(missing) > _NAMED else ""
        log.info(
            "%s: %s not in the lexicon, pronounced by rule: %s%s",
            source, counted(len(missing), "word"), ", ".join(missing[:_NAMED]), more,
        )  # fmt: skip
    aligned = list(align_manifest(utterances, model, lexicon))
    if not aligned:
        raise TextError(f"{source}: none of its texts can be aligned; see the messages above")
    write_manifest(target, aligned)


def said(utterances: Iterable[Utterance]) -> list[Utterance]:
    """The utterances with numbers and abbreviations read out."""
    return [replace(utterance, text=spoken(utterance.text)) for utterance in utterances]


def words_of(config: FitConfig, names: Sequence[str], chosen: Sequence[Utterance]) -> list[Utterance]:
    """The chosen utterances with the words of their manifests, numbers read out."""
    wanted = set(places(chosen).tolist())
    found = [u for name in names for u in read_manifest(join(config.data.root, name))]
    return said(u for u, place in zip(found, places(found).tolist(), strict=True) if place in wanted)
