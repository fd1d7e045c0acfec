"""Common Voice: <language>/{train,dev,test}.tsv (client_id, path, sentence, ...) and clips/*.mp3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wavasr.audio.source import AUDIO_SUFFIXES
from wavasr.corpora.base import Corpus, Draft, build, folders, read_lines, search
from wavasr.errors import CorpusError

LAYOUT = "<language>/{train,dev,test}.tsv and clips/"
SPLITS = ("train", "dev", "test")
# 128 hexadecimal digits name a speaker; so many keep apart more speakers than there are.
_SPEAKER_DIGITS = 16


def read(root: Path, *, language: str = "", splits: str = "", progress: bool = True) -> Corpus:
    """Read one language with its official split.

    Args:
        root: the language's folder (which holds the TSV files), or one that holds it.
        language: which language to take where there are several, e.g. "cy".
        splits: TSV files to take, separated by commas, e.g. "validated,test"; by default train, dev and test.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: no TSV files, several languages without `language`, a missing column, or a split without a
            usable utterance.
    """
    home = _language(root, language)
    wanted = [name.strip() for name in splits.split(",") if name.strip()] if splits else list(SPLITS)
    missing = [name for name in wanted if not (home / f"{name}.tsv").is_file()]
    if missing and (splits or len(missing) == len(SPLITS)):
        raise CorpusError(f"{home / missing[0]}.tsv: no such file; expected {LAYOUT}")
    present = [name for name in wanted if name not in missing]
    notes = [f"no {name}.tsv here, so no split {name!r}" for name in missing]
    drafts = {name: list(_rows(home, home / f"{name}.tsv")) for name in present}
    return build("commonvoice", drafts, notes=notes, progress=progress)


def _is_language(folder: Path) -> bool:
    return (folder / "clips").is_dir() and next(folder.glob("*.tsv"), None) is not None


def _language(root: Path, language: str) -> Path:
    found = search(root, lambda folder: _is_language(folder) or any(map(_is_language, folders(folder))), LAYOUT)
    if _is_language(found):
        return found
    languages = {folder.name: folder for folder in folders(found) if _is_language(folder)}
    if language in languages:
        return languages[language]
    if language or len(languages) > 1:
        raise CorpusError(f"{found}: language {language!r}; expected one of {', '.join(languages)} (option language)")
    return next(iter(languages.values()))


def _rows(home: Path, table: Path) -> Iterator[Draft]:
    # No quoting: the sentences' quotation marks are their own.
    header, *rows = (line.split("\t") for line in read_lines(table))
    columns = {name: index for index, name in enumerate(header)}
    absent = [name for name in ("path", "sentence") if name not in columns]
    if absent:
        raise CorpusError(f"{table}:1: no column {absent[0]!r}; expected client_id, path, sentence, ...")
    for number, fields in enumerate(rows, start=2):
        if fields == [""]:
            continue
        if len(fields) != len(header):
            raise CorpusError(f"{table}:{number}: {len(fields)} columns; expected {len(header)} as in its first line")
        row = dict(zip(header, fields, strict=True))
        speaker = row.get("client_id", "")[:_SPEAKER_DIGITS]
        audio = _clip(home / "clips", row["path"])
        yield Draft(audio.stem, audio, row["sentence"], speaker)


def _clip(clips: Path, name: str) -> Path:
    """The clip as listed, or converted to another format (and the oldest releases list no suffix)."""
    listed = clips / name
    if listed.is_file():
        return listed
    stem = listed.stem if listed.suffix.lower() in AUDIO_SUFFIXES else listed.name
    others = (clips / f"{stem}{suffix}" for suffix in (".mp3", *AUDIO_SUFFIXES))
    return next((path for path in others if path.is_file()), listed)
