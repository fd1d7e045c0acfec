"""Output formats, parsed back by small readers of their own; files that never overwrite each other."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from wavasr.decoding.times import Word
from wavasr.errors import ConfigError
from wavasr.recognition import formats
from wavasr.recognition.formats import Folder, cues, distinct_stems, render, write
from wavasr.recognition.transcribe import Transcript

ALL = ("txt", "json", "srt", "vtt", "tsv", "ctm", "textgrid")


def words_of(text: str, start_s: float = 0.2, word_s: float = 0.3, gap_s: float = 0.1) -> tuple[Word, ...]:
    found = []
    for i, word in enumerate(text.split()):
        start = start_s + i * (word_s + gap_s)
        found.append(Word(word, start, start + word_s, 0.9 - 0.01 * (i % 10)))
    return tuple(found)


def transcript(text: str, file: str = "talk.wav", duration_s: float = 0.0, words: tuple[Word, ...] = ()) -> Transcript:
    words = words or words_of(text)
    duration_s = duration_s or (words[-1].end_s + 0.5 if words else 1.0)
    return Transcript(file, duration_s, text, 0.85 if words else None, words, "default")


LONG = transcript(" ".join(f"word{i}" for i in range(120)))
SPEECH = transcript("one two three")
NOTHING = transcript("")
QUOTES = transcript('he said "no" <b> & --> café Привет')


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def parse_srt(text: str) -> list[tuple[float, float, str]]:
    if not text:
        return []
    blocks = [block.split("\n") for block in text.rstrip("\n").split("\n\n")]
    assert [int(block[0]) for block in blocks] == list(range(1, len(blocks) + 1))
    found = []
    for _, times, *lines in blocks:
        match = re.fullmatch(r"(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})", times)
        assert match
        found.append((seconds(match[1]), seconds(match[2]), "\n".join(lines)))
    return found


def parse_vtt(text: str) -> list[tuple[float, float, str]]:
    head, *blocks = text.rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    found = []
    for block in blocks:
        times, *lines = block.split("\n")
        start, end = times.split(" --> ")
        body = "\n".join(lines)
        assert not re.search(r"<|>|&(?!amp;|lt;|gt;)", body)
        body = body.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        found.append((seconds(start), seconds(end), body))
    return found


def parse_textgrid(text: str) -> tuple[str, float, list[tuple[float, float, str]]]:
    """Praat reads the free-standing strings and numbers in their order and nothing else."""
    tokens = re.findall(r'"(?:[^"]|"")*"|(?<=[\s=])-?\d+(?:\.\d+)?(?=\s|$)|<exists>', text)
    values = [t[1:-1].replace('""', '"') if t[0] == '"' else t if t[0] == "<" else float(t) for t in tokens]
    kind, cls, xmin, xmax, exists, tiers, tier_class, name, tier_min, tier_max, size, *rest = values
    assert (kind, cls, exists, tiers, tier_class) == ("ooTextFile", "TextGrid", "<exists>", 1.0, "IntervalTier")
    assert xmin == tier_min == 0.0 and xmax == tier_max
    assert len(rest) == 3 * size
    return name, xmax, [(rest[i], rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)]


@pytest.mark.parametrize("one", [SPEECH, NOTHING, QUOTES, LONG], ids=["speech", "nothing", "quotes", "long"])
def test_textgrid_covers_the_recording_without_gaps(one: Transcript) -> None:
    name, end, intervals = parse_textgrid(render([one], "textgrid"))
    assert name == "words" and end == pytest.approx(one.duration_s, abs=1e-6)
    assert intervals[0][0] == 0.0 and intervals[-1][1] == end
    assert all(a[1] == b[0] for a, b in pairwise(intervals))
    assert all(first < last for first, last, _ in intervals)
    said = [(first, last, text) for first, last, text in intervals if text]
    assert [text for *_, text in said] == [word.word for word in one.words]
    assert np.allclose([s[:2] for s in said], [[w.start_s, w.end_s] for w in one.words], atol=1e-6)


def test_textgrid_of_words_that_touch_and_reach_beyond_the_end() -> None:
    words = (Word("a", 0.0, 0.4, 1.0), Word("b", 0.4, 1.02, 1.0))
    _, end, intervals = parse_textgrid(render([transcript("a b", duration_s=1.01, words=words)], "textgrid"))
    assert intervals == [(0.0, 0.4, "a"), (0.4, 1.01, "b")] and end == 1.01


@pytest.mark.parametrize("one", [SPEECH, NOTHING, QUOTES, LONG], ids=["speech", "nothing", "quotes", "long"])
@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_hold_every_word_once_and_can_be_read(one: Transcript, format: str) -> None:
    parsed = (parse_srt if format == "srt" else parse_vtt)(render([one], format))
    text = " ".join(body.replace("\n", " ") for *_, body in parsed)
    assert text == (one.text if format == "vtt" else one.text.replace("-->", "->"))
    for start, end, body in parsed:
        assert 0 <= start < end <= one.duration_s + 1e-3 and end - start <= formats.CUE_LONGEST_S + 1e-3
        assert len(body.split("\n")) <= 2 and all(0 < len(line) <= 42 for line in body.split("\n"))
    assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(parsed))


def test_cues_break_at_pauses_and_sentences() -> None:
    words = (*words_of("a b c"), *words_of("d e f", start_s=2.4))
    assert [cue.lines for cue in cues(words, 5.0)] == [("a b c",), ("d e f",)]
    sentence = words_of(
        "this is the first of two sentences, here. and that is the other one of the two sentences here."
    )
    broken = cues(sentence, 60.0)
    assert " ".join(broken[0].lines).endswith("here.") and len(broken) == 2


def test_short_cues_stay_on_for_a_second_where_there_is_room() -> None:
    lone, crowded = Word("hm", 1.0, 1.1, 1.0), Word("oh", 5.0, 5.1, 1.0)
    assert [(cue.start_s, cue.end_s) for cue in cues((lone, crowded), 5.5)] == [(1.0, 2.0), (5.0, 5.5)]
    assert cues((lone, Word("yes", 1.95, 2.0, 1.0)), 3.0)[0].end_s == 1.95


def test_cues_with_words_longer_than_a_line() -> None:
    endless = Word("x" * 60, 0.0, 1.0, 1.0)
    assert cues((endless,), 2.0)[0].lines == ("x" * 60,)
    assert [cue.lines for cue in cues((endless, *words_of("a b", 1.1)), 5.0)] == [("x" * 60,), ("a b",)]
    slow = tuple(Word(f"w{i}", 5.0 * i, 5.0 * i + 4.9, 1.0) for i in range(3))
    assert len(cues(slow, 20.0)) == 3


def test_clock_beyond_an_hour_and_rounding() -> None:
    assert formats._clock(3661.9996, ",") == "01:01:02,000"
    assert formats._clock(0.0004, ".") == "00:00:00.000"
    assert formats._clock(360000.5, ".") == "100:00:00.500"


def test_json_is_the_contract_one_object_a_line() -> None:
    lines = render([SPEECH, NOTHING, QUOTES], "json").splitlines()
    first, second, third = map(json.loads, lines)
    assert list(first) == ["file", "duration_s", "text", "confidence", "segments", "words", "model"]
    assert list(first["words"][0]) == ["word", "start_s", "end_s", "confidence"]
    assert first["words"][1] == {"word": "two", "start_s": 0.6, "end_s": 0.9, "confidence": 0.89}
    assert second["text"] == "" and second["words"] == [] and second["confidence"] is None
    assert third["text"] == QUOTES.text and "Привет" in lines[2]


def test_tables() -> None:
    odd = transcript("a b", file="my\ttalk (1).wav")
    header, *rows = [line.split("\t") for line in render([odd, SPEECH], "tsv").splitlines()]
    assert header == ["file", "start_s", "end_s", "confidence", "word"]
    assert rows[0] == ["my talk (1).wav", "0.200", "0.500", "0.9000", "a"] and len(rows) == 5
    assert render([SPEECH], "tsv", header=False) == "".join("\t".join(row) + "\n" for row in rows[2:])
    ctm = [line.split(" ") for line in render([odd, SPEECH], "ctm").splitlines()]
    assert ctm[0] == ["my_talk_(1)", "1", "0.200", "0.300", "a", "0.9000"]
    assert [line[4] for line in ctm] == ["a", "b", "one", "two", "three"]
    assert render([SPEECH, NOTHING], "txt") == "one two three\n\n"


def test_unknown_formats_and_several_recordings_in_one() -> None:
    with pytest.raises(ConfigError, match="expected one of txt, json, srt"):
        render([SPEECH], "pdf")
    with pytest.raises(ConfigError, match="expected one of"):
        Folder(Path("x"), "pdf")
    with pytest.raises(ConfigError, match="holds one recording, not 2"):
        render([SPEECH, SPEECH], "srt")
    assert all(render([], format) in ("", formats.TSV_HEADER) for format in ("txt", "json", "tsv", "ctm"))


def test_stems_that_differ() -> None:
    files = ["a.wav", "a.flac", "./a.wav", "x/b.wav", "y/b.wav", "c.wav", "C.mp3", "-", "../d.wav", "e.tar.gz"]
    stems = distinct_stems(files)
    assert stems["./a.wav"] == stems["a.wav"] == "a.wav" and stems["a.flac"] == "a.flac"
    assert stems["x/b.wav"] == "x-b.wav" and stems["y/b.wav"] == "y-b.wav"
    assert stems["c.wav"] == "c.wav" and stems["C.mp3"] == "C.mp3"
    assert stems["-"] == "stdin" and stems["../d.wav"] == "d" and stems["e.tar.gz"] == "e.tar"
    assert distinct_stems([]) == {}


@pytest.mark.parametrize(
    "files",
    [
        ["p/q/a.wav", "r/q/a.wav", "q/a.wav", "q-a.wav", "a.wav.flac", "a.wav"],
        ["/a/b.wav", "a/b.wav", "../a/b.wav", "a-b.wav"],
        ["stdin.wav", "-", "stdin"],
    ],
)
def test_stems_never_collide(files: list[str]) -> None:
    stems = distinct_stems(files)
    assert len({stem.casefold() for stem in stems.values()}) == len(files)
    assert all("/" not in stem and stem not in ("", ".", "..") for stem in stems.values())


def test_many_stems_are_quick() -> None:
    files = [f"speaker{i % 40}/utterance{i // 40}.wav" for i in range(4000)]
    assert len(set(distinct_stems(files).values())) == 4000


@pytest.mark.parametrize("format", ALL)
def test_files_are_written_whole_and_again(format: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    path = write(QUOTES, format, folder)
    assert path.parent == folder and path.stem == "talk"
    assert path.read_text(encoding="utf-8") == render([QUOTES], format)
    assert write(QUOTES, format, folder) == path, "a second run replaces its own files"
    assert list(folder.iterdir()) == [path]


def test_two_recordings_of_one_name_get_two_files(tmp_path: Path) -> None:
    files = ["in/a.wav", "in/a.flac", "b.wav"]
    folder = Folder(tmp_path, "txt", files)
    paths = [folder.write(transcript(file.replace("/", " "), file)) for file in reversed(files)]
    assert {path.name for path in paths} == {"a.wav.txt", "a.flac.txt", "b.txt"}
    assert (tmp_path / "a.flac.txt").read_text(encoding="utf-8") == "in a.flac\n"


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SPEECH, "txt", tmp_path)

    def fail(*_: object, **options: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(formats, "render", fail)
    with pytest.raises(OSError, match="disk full"):
        write(QUOTES, "txt", tmp_path)
    assert path.read_text(encoding="utf-8") == "one two three\n" and list(tmp_path.iterdir()) == [path]
