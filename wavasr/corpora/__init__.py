"""From a corpus on disk to manifests: one module for each layout, each with a `read(root, ...) -> Corpus`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wavasr.audio.source import AUDIO_SUFFIXES
from wavasr.corpora.base import Corpus
from wavasr.corpora.manifest import write_manifest
from wavasr.errors import CorpusError

__all__ = ["NAMES", "Corpus", "guess", "options_of", "parse_options", "prepare", "read", "summary"]

NAMES: dict[str, str] = {
    "timit": "TIMIT in the layout of its disc, with the official dev and core-test speakers",
    "librispeech": "LibriSpeech and mini LibriSpeech",
    "an4": "CMU AN4 with its etc/ lists (sph, wav or raw)",
    "ljspeech": "LJ Speech",
    "commonvoice": "Common Voice, one language (TSV tables and clips)",
    "fsdd": "Free Spoken Digit Dataset",
    "speech-commands": "Speech Commands, one word a file",
    "kaldi": "Kaldi data directories (wav.scp, text, segments, utt2spk)",
    "folder": "a folder of recordings with a .txt beside each",
    "shar": "Lhotse Shar (cuts.*.jsonl.gz and recording.*.tar)",
    "jsonl": "JSON-lines manifests, checked and copied",
}

# Given by `prepare` itself, not by its callers.
_INTERNAL = ("root", "progress", "converted")


# What lies in a corpus and in no other, up to three folders deep.
_MARKS = {
    "timit": "[Tt][Rr][Aa][Ii][Nn]/[Dd][Rr]1",
    "librispeech": "*/*/*.trans.txt",
    "an4": "etc/an4_train.fileids",
    "ljspeech": "metadata.csv",
    "commonvoice": "validated.tsv",
    "fsdd": "recordings/[0-9]_*_*.*",
    "speech-commands": "testing_list.txt",
    "kaldi": "wav.scp",
}


def guess(root: Path) -> str | None:
    """The corpus whose layout a folder has, a key of `NAMES`; None if it has none."""
    for name, mark in _MARKS.items():
        if any(next(root.glob(f"{depth}{mark}"), None) for depth in ("", "*/", "*/*/")):
            return name
    pairs = (path for depth in ("", "*/") for path in root.glob(f"{depth}*.txt"))
    return "folder" if any(find_audio_beside(path) for path in itertools.islice(pairs, 100)) else None


def find_audio_beside(text: Path) -> bool:
    """Whether a recording lies beside a transcript."""
    return any(text.with_suffix(suffix).is_file() for suffix in AUDIO_SUFFIXES)


def read(name: str, root: Path | str, **options: Any) -> Corpus:
    """Read a corpus and check its files, without writing anything.

    Args:
        name: the layout, a key of `NAMES`.
        root: the corpus's folder.
        options: what the layout's `read` takes, see `options_of`.

    Raises:
        CorpusError: an unknown layout or option, or a corpus that is not as its layout says.
    """
    reader = _reader(name)
    known = inspect.signature(reader).parameters
    for key in options:
        if key not in known:
            offered = ", ".join(options_of(name)) or "none"
            raise CorpusError(f"{name} has no option {key!r}; its options: {offered}")
    try:
        return reader(Path(root), **options)
    except OSError as error:
        raise CorpusError(f"{error.filename or root}: {error.strerror}; check the disk and its permissions") from error


def prepare(name: str, root: Path | str, output: Path | str, **options: Any) -> Corpus:
    """Read a corpus, check every sound file, and write `<output>/<split>.jsonl` for each split.

    Nothing is written unless every split has utterances; each manifest appears complete or not at all. Files that
    cannot be used are left out and named in `Corpus.problems`.

    Args:
        name: the layout, a key of `NAMES`.
        root: the corpus's folder.
        output: where the manifests go.
        options: what the layout's `read` takes, see `options_of`; `progress=False` hides the bar.

    Raises:
        CorpusError: as `read`, and where the manifests cannot be written.
    """
    root, output = Path(root), Path(output)
    source = root.parent if root.is_file() else root
    if name == "jsonl" and source.resolve() == output.resolve():
        raise CorpusError(f"{output}: the manifests that are read lie there; give another folder for the copies")
    if "converted" in inspect.signature(_reader(name)).parameters:
        options.setdefault("converted", output / "audio")
    corpus = read(name, root, **options)
    for split, utterances in corpus.splits.items():
        write_manifest(output / f"{split}.jsonl", utterances)
    return corpus


def options_of(name: str) -> dict[str, Any]:
    """The options of a layout with their defaults, e.g. {"labels": "phones", "phone_set": 48}."""
    parameters = inspect.signature(_reader(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in _INTERNAL}


def parse_options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Options from the command line, "key=value" each, as values of the type of their defaults.

    Raises:
        CorpusError: no such option, or a value of another type.
    """
    known = options_of(name)
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in known:
            offered = ", ".join(f"{k}={v}" for k, v in known.items()) or "none"
            raise CorpusError(f"{name} has no option {setting!r}; its options and their defaults: {offered}")
        try:
            parsed[key] = _like(known[key], value.strip())
        except ValueError as error:
            raise CorpusError(f"{key} is {value!r}; expected a {type(known[key]).__name__}") from error
    return parsed


def summary(corpus: Corpus) -> str:
    """What was read, for people: a line for each split, then notes, then every problem."""
    lines = [f"{'split':<20} {'utterances':>10} {'hours':>8} {'speakers':>8}"]
    for split, utterances in corpus.splits.items():
        hours = sum(u.duration_s for u in utterances) / 3600
        speakers = len({u.speaker for u in utterances} - {""})
        lines.append(f"{split:<20} {len(utterances):>10,} {hours:>8.2f} {speakers or '?':>8}")
    lines.extend(f"note: {note}" for note in corpus.notes)
    lines.extend(f"problem: {problem}" for problem in corpus.problems)
    return "\n".join(lines)


def _reader(name: str) -> Callable[..., Corpus]:
    if name not in NAMES:
        close = difflib.get_close_matches(name.lower(), NAMES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(NAMES)}"
        raise CorpusError(f"no corpus is called {name!r}; {hint}")
    module = importlib.import_module(f"wavasr.corpora.{name.replace('-', '_')}")
    reader: Callable[..., Corpus] = module.read
    return reader


def _like(default: Any, value: str) -> Any:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise ValueError(value)
        return value.lower() in ("true", "yes", "1")
    return type(default)(value)
