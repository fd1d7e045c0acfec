"""Kaldi data directories: wav.scp and text, with utt2spk and segments where there are such.

A wav.scp line that is a command ("sph2pipe ... |") is refused: data files run no programs here.
"""

from __future__ import annotations

import math
from pathlib import Path

from wavasr.corpora.base import Corpus, Draft, build, folders, read_lines, search
from wavasr.errors import CorpusError

LAYOUT = "a Kaldi data directory (wav.scp, text, and perhaps segments and utt2spk), or a folder of such"


def read(root: Path, *, progress: bool = True) -> Corpus:
    """Read one data directory, or each of the data directories in a folder; splits are called after them.

    Paths in wav.scp may be relative to the data directory, to one of the two folders above it, or to the working
    directory.

    Args:
        root: a data directory, or a folder with data directories in it.
        progress: show a progress bar on stderr.

    Raises:
        CorpusError: wav.scp or text is missing or malformed, wav.scp has commands, or a split has no usable
            utterance.
    """
    found = search(root, lambda folder: _is_data(folder) or any(map(_is_data, folders(folder))), LAYOUT)
    directories = [found] if _is_data(found) else [folder for folder in folders(found) if _is_data(folder)]
    problems: list[str] = []
    drafts = {directory.resolve().name: _directory(directory, problems) for directory in directories}
    return build("kaldi", drafts, problems=problems, progress=progress)


def _is_data(folder: Path) -> bool:
    return (folder / "wav.scp").is_file()


def _directory(folder: Path, problems: list[str]) -> list[Draft]:
    recordings = _recordings(folder)
    texts = _table(folder / "text", allow_empty=True)
    speakers = _table(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    segments = _segments(folder / "segments") if (folder / "segments").is_file() else {}
    spans = segments or {name: (name, 0.0, None) for name in recordings}
    for name in texts:
        if name not in spans:
            problems.append(f"{folder / 'text'}: {name!r} has a text and no recording")
    drafts = []
    for name, (recording, start_s, duration_s) in spans.items():
        if recording not in recordings:
            problems.append(f"{folder / 'segments'}: {name!r} is of recording {recording!r}, which is not in wav.scp")
        elif name not in texts:
            problems.append(f"{folder / 'text'}: no text for {name!r}")
        else:
            text, speaker = texts[name], speakers.get(name, "")
            drafts.append(Draft(name, recordings[recording], text, speaker, start_s, duration_s))
    return drafts


def _recordings(folder: Path) -> dict[str, Path]:
    table = _table(folder / "wav.scp")
    commands = {name: value for name, value in table.items() if value.endswith("|")}
    if commands:
        name, command = next(iter(commands.items()))
        raise CorpusError(
            f"{folder / 'wav.scp'}: {len(commands)} of {len(table)} lines are commands, e.g. {name} {command[:60]!r}; "
            "commands are not run: convert the audio to files and list their paths"
        )
    bases = (folder, folder.parent, folder.parent.parent, Path())
    return {
        name: next((b / value for b in bases if (b / value).is_file()), folder / value) for name, value in table.items()
    }


def _segments(path: Path) -> dict[str, tuple[str, float, float | None]]:
    spans: dict[str, tuple[str, float, float | None]] = {}
    for name, value in _table(path).items():
        fields = value.split()
        try:
            recording, start_s, end_s = fields[0], float(fields[1]), float(fields[2])
        except (IndexError, ValueError) as error:
            raise CorpusError(
                f"{path}: {name} {value!r} found; expected <utterance> <recording> <start> <end>"
            ) from error
        # An end of -1 means the end of the recording.
        if not (0 <= start_s < math.inf) or not (end_s == -1 or start_s < end_s < math.inf):
            raise CorpusError(f"{path}: {name} lies from {start_s:g} to {end_s:g} s; expected a start before its end")
        spans[name] = (recording, start_s, None if end_s == -1 else round(end_s - start_s, 6))
    return spans


def _table(path: Path, *, allow_empty: bool = False) -> dict[str, str]:
    """A file of `key value` lines."""
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, *value = line.split(maxsplit=1) if line.strip() else ("",)
        if not key:
            continue
        if key in table:
            raise CorpusError(f"{path}:{number}: {key!r} for the second time; expected every key once")
        if not value and not allow_empty:
            raise CorpusError(f"{path}:{number}: {key!r} stands alone; expected a key and its value")
        table[key] = value[0].strip() if value else ""
    return table
