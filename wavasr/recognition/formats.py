"""Transcripts as text that other programs read: txt, json, srt, vtt, tsv, ctm, TextGrid (no torch)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wavasr.errors import ConfigError
from wavasr.files import atomic_text

if TYPE_CHECKING:
    from wavasr.decoding.times import Word
    from wavasr.recognition.transcribe import Transcript

LINE_CHARACTERS = 42
CUE_LONGEST_S = 7.0
CUE_SHORTEST_S = 1.0
PAUSE_S = 0.8
PARAGRAPHS_FROM_S, PARAGRAPH_WORDS, LONG_PAUSE_S = 120.0, 30, 1.2
TSV_HEADER = "file\tstart_s\tend_s\tconfidence\tword\n"
_SUFFIXES = {"txt": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv", "ctm": ".ctm"}
_SUFFIXES["textgrid"] = ".TextGrid"


@dataclass(frozen=True)
class Cue:
    """What a subtitle shows at once: at most two lines."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def render(
    transcripts: Iterable[Transcript],
    format: str,
    header: bool = True,
    names: Mapping[str, str] | None = None,
    paragraphs: bool = False,
) -> str:
    r"""Transcripts in a format, ending in "\n" where anything is in it.

    txt has a line for each recording, json an object a line, tsv and ctm a line for each word; srt, vtt and textgrid
    hold one recording.

    Args:
        transcripts: in the order in which they are written.
        format: txt, json, srt, vtt, tsv, ctm or textgrid.
        header: whether tsv begins with the names of its columns; False for what is appended.
        names: what ctm calls the recordings, by their files, see `distinct_stems`; else their stems.
        paragraphs: whether txt begins a new line after long pauses of a long recording.

    Raises:
        ConfigError: there is no such format, or several transcripts for one that holds one.
    """
    found = list(transcripts)
    if format == "ctm":
        return "".join(_ctm(one, (names or {}).get(one.file) or _stem(one.file)) for one in found)
    if format == "txt" and paragraphs:
        return "".join(f"{line}\n" for one in found for line in paragraphs_of(one))
    if format in _LINES:
        body = "".join(_LINES[format](transcript) for transcript in found)
        return TSV_HEADER + body if format == "tsv" and header else body
    if format not in _WHOLE:
        raise ConfigError(f"format is {format!r}; expected one of {', '.join(_SUFFIXES)}")
    if len(found) != 1:
        raise ConfigError(f"format {format} holds one recording, not {len(found)}; write one file for each")
    return _WHOLE[format](found[0])


class Folder:
    """Writes one file for each transcript into a folder, each whole or not at all, none over another's.

    Files are named after the recordings; where two recordings would share a name (a.wav and a.flac, or a.wav of two
    folders) theirs keep as much of the path as tells them apart, whichever comes first and whichever fails.

    Args:
        folder: made when the first transcript is written.
        format: as in `render`.
        files: all recordings that are to be written, as they are named.
    """

    def __init__(self, folder: Path, format: str, files: Sequence[str] = ()) -> None:
        if format not in _SUFFIXES:
            raise ConfigError(f"format is {format!r}; expected one of {', '.join(_SUFFIXES)}")
        self.folder = folder
        self.format = format
        self._stems = {Path(file): stem for file, stem in distinct_stems(files).items()}

    def path_of(self, file: str) -> Path:
        """Where the transcript of a recording is written."""
        return self.folder / f"{self._stems.get(Path(file)) or _stem(file)}{_SUFFIXES[self.format]}"

    def write(self, transcript: Transcript) -> Path:
        """Write one transcript and return the path.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.path_of(transcript.file)
        with atomic_text(path) as stream:
            stream.write(render([transcript], self.format, paragraphs=True))
        return path


def write(transcript: Transcript, format: str, folder: Path) -> Path:
    """Write one transcript, named after its recording, into a folder; for several of them use `Folder`."""
    return Folder(folder, format).write(transcript)


def distinct_stems(files: Sequence[str]) -> dict[str, str]:
    """Names without suffix, one for each different file, that differ also on file systems that ignore case."""
    levels = [Counter(map(str.casefold, level)) for level in zip(*map(_candidates, _unique(files)), strict=True)]
    stems: dict[Path, str] = {}
    taken: set[str] = set()
    for file in _unique(files):
        clear = (c for c, used in zip(_candidates(file), levels, strict=True) if used[c.casefold()] == 1)
        stem = wanted = next(clear, _candidates(file)[-1])
        while stem.casefold() in taken:
            stem = f"{wanted}-{sum(name.startswith(wanted.casefold()) for name in taken) + 1}"
        taken.add(stem.casefold())
        stems[Path(file)] = stem
    return {file: stems[Path(file)] for file in files}


def _unique(files: Sequence[str]) -> list[str]:
    return [str(path) for path in dict.fromkeys(map(Path, files))]


def _candidates(file: str) -> tuple[str, ...]:
    """From the shortest name to the one with the whole path in it."""
    if file == "-":
        return ("stdin",) * 4
    path = Path(file)
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    return path.stem, path.name, "-".join(parts[-2:]), "-".join(parts)


def _stem(file: str) -> str:
    return _candidates(file)[0]


# Subtitles ------------------------------------------------------------------------------------------------------------


def cues(words: Sequence[Word], duration_s: float) -> list[Cue]:
    """Words as subtitles: at most two lines of 42 characters and 7 s; broken at pauses, then near the middle."""
    pending = [list(group) for group in _split_at_pauses(words)][::-1]
    groups = []
    while pending:
        group = pending.pop()
        if len(group) == 1 or _fits(group):
            groups.append(group)
        else:
            at = _best_break(group)
            pending += [group[at:], group[:at]]
    starts = [group[0].start_s for group in groups[1:]]
    found = []
    for group, next_s in zip(groups, [*starts, duration_s], strict=False):
        shown_until = max(group[-1].end_s, min(group[0].start_s + CUE_SHORTEST_S, next_s))
        lines = _lines(" ".join(word.word for word in group))
        found.append(Cue(group[0].start_s, min(shown_until, max(next_s, group[0].start_s)), lines))
    return found


def _split_at_pauses(words: Sequence[Word]) -> list[list[Word]]:
    groups: list[list[Word]] = []
    for word in words:
        if groups and word.start_s - groups[-1][-1].end_s < PAUSE_S:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _fits(words: Sequence[Word]) -> bool:
    if words[-1].end_s - words[0].start_s > CUE_LONGEST_S:
        return False
    lines = _lines(" ".join(word.word for word in words))
    return len(lines) <= 2 and all(len(line) <= LINE_CHARACTERS for line in lines)


def _best_break(words: Sequence[Word]) -> int:
    """Where to cut: after a sentence, at a pause, towards the middle."""

    def merit(at: int) -> float:
        before = words[at - 1]
        pause_s = max(0.0, words[at].start_s - before.end_s)
        ends = 1.0 if before.word[-1:] in ".?!" else 0.4 if before.word[-1:] in ",;:" else 0.0
        return ends + 2.0 * pause_s - 2.0 * abs(at / len(words) - 0.5)

    return max(range(1, len(words)), key=merit)


def _lines(text: str) -> tuple[str, ...]:
    """One line, or two of about the same length; a longer text in as many as it needs."""
    if len(text) <= LINE_CHARACTERS:
        return (text,)
    words = text.split(" ")
    halves = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words))]
    return min(halves, key=lambda pair: max(map(len, pair)), default=(text,))


def _clock(seconds: float, separator: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"


def _srt(transcript: Transcript) -> str:
    parts = []
    for number, cue in enumerate(cues(transcript.words, transcript.duration_s), 1):
        text = "\n".join(cue.lines).replace("-->", "->")
        parts.append(f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{text}\n")
    return "\n".join(parts)


def _vtt(transcript: Transcript) -> str:
    parts = ["WEBVTT\n"]
    for cue in cues(transcript.words, transcript.duration_s):
        text = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        parts.append(f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{text}\n")
    return "\n".join(parts)


# Tables and tiers -----------------------------------------------------------------------------------------------------


def _txt(transcript: Transcript) -> str:
    return transcript.text + "\n"


def paragraphs_of(transcript: Transcript) -> list[str]:
    """The text of a long recording in paragraphs, that of a short one as it is.

    A paragraph ends at a long pause once it has some words, and at a shorter one when it has many.
    """
    if transcript.duration_s < PARAGRAPHS_FROM_S:
        return [transcript.text]
    paragraphs: list[list[str]] = [[]]
    last_s = 0.0
    for segment in transcript.segments:
        pause_s, words = segment.start_s - last_s, len(paragraphs[-1])
        if (words >= PARAGRAPH_WORDS and pause_s >= LONG_PAUSE_S) or words >= 4 * PARAGRAPH_WORDS:
            paragraphs.append([])
        paragraphs[-1] += segment.text.split()
        last_s = segment.end_s
    return [" ".join(words) for words in paragraphs]


def _json(transcript: Transcript) -> str:
    return json.dumps(transcript.to_dict(), ensure_ascii=False) + "\n"


def _tsv(transcript: Transcript) -> str:
    file = re.sub(r"[\t\r\n]", " ", transcript.file)
    rows = (f"{file}\t{w.start_s:.3f}\t{w.end_s:.3f}\t{w.confidence:.4f}\t{w.word}\n" for w in transcript.words)
    return "".join(rows)


def _ctm(transcript: Transcript, name: str) -> str:
    """NIST's time-marked conversation: recording, channel, start, duration, word, confidence."""
    name = re.sub(r"\s", "_", name)
    times = [(round(word.start_s, 3), round(word.end_s, 3)) for word in transcript.words]
    rows = (
        f"{name} 1 {start_s:.3f} {end_s - start_s:.3f} {word.word} {word.confidence:.4f}\n"
        for word, (start_s, end_s) in zip(transcript.words, times, strict=True)
    )
    return "".join(rows)


def _textgrid(transcript: Transcript) -> str:
    """Praat's long text format: tiers whose intervals cover the recording, empty ones between the words."""
    end, tiers = _seconds(transcript.duration_s), transcript.tiers
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n'
    head += f"xmax = {end}\ntiers? <exists>\nsize = {len(tiers)}\nitem []:\n"
    return head + "".join(
        _tier(number, name, words, transcript.duration_s) for number, (name, words) in enumerate(tiers.items(), 1)
    )


def _tier(item: int, name: str, words: Sequence[Word], duration_s: float) -> str:
    end = _seconds(duration_s)
    intervals: list[tuple[str, str, str]] = []
    last_s = 0.0
    for word in words:
        start_s, end_s = max(word.start_s, last_s), min(word.end_s, duration_s)
        if _seconds(start_s) != _seconds(last_s):
            intervals.append((_seconds(last_s), _seconds(start_s), ""))
        intervals.append((_seconds(start_s), _seconds(end_s), word.word.replace('"', '""')))
        last_s = end_s
    if _seconds(last_s) != end:
        intervals.append((_seconds(last_s), end, ""))
    tier = f'    item [{item}]:\n        class = "IntervalTier"\n        name = "{name}"\n        xmin = 0\n'
    tier += f"        xmax = {end}\n        intervals: size = {len(intervals)}\n"
    for number, (first, last, text) in enumerate(intervals, 1):
        tier += f"        intervals [{number}]:\n            xmin = {first}\n            xmax = {last}\n"
        tier += f'            text = "{text}"\n'
    return tier


def _seconds(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".") or "0"


_LINES: dict[str, Callable[[Transcript], str]] = {"txt": _txt, "json": _json, "tsv": _tsv}
_WHOLE: dict[str, Callable[[Transcript], str]] = {"srt": _srt, "vtt": _vtt, "textgrid": _textgrid}
