"""Listings: the same utterances as `read_manifest` gives, with a few numbers of each in memory."""

import json
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from wavasr.corpora.listing import Listing, read_listing
from wavasr.corpora.manifest import AlignedPhone, Utterance, read_manifest, write_manifest
from wavasr.errors import CorpusError
from wavasr.training.plan import Plan


def write(path: Path, *lines: dict[str, object]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n\n" for line in lines), encoding="utf-8-sig")
    return path


def line(audio: str, **more: object) -> dict[str, object]:
    return {"audio_filepath": audio, "duration": 1.5, "text": "yes", **more}


def test_utterances_are_those_of_the_manifest(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        line("x/1.wav", speaker="anna", text="ünï"),
        line("y/1.wav", speaker=7, alignment=[["aa", 0, 0.5]]),
        line("z/2.wav", id="given"),
        line("z/2.wav", offset=2),
        line("z/2.wav", offset=4),
        line("w/given.wav"),
    )
    listing, read = read_listing([path]), read_manifest(path)
    assert list(listing) == read and len(listing) == 6
    assert [u.id for u in read] == ["x/1.wav", "y/1.wav", "given", "z/2.wav@2", "z/2.wav@4", "w/given.wav"]
    assert list(listing[1:3]) == read[1:3] and listing[-1] == read[-1]
    assert list(listing.texts()) == [u.text for u in read]
    assert listing.duration_s.tolist() == [1.5] * 6
    assert [listing.speakers[number] for number in listing.speaker] == [u.speaker for u in read]
    assert len(np.unique(listing.place)) == 6
    assert list(pickle.loads(pickle.dumps(listing.take([4, 0])))) == [read[4], read[0]]


def test_an_id_that_repeats_in_another_manifest_gets_its_name(tmp_path: Path) -> None:
    paths = [write(tmp_path / name / "all.jsonl", line("1.wav", id="u"), line("2.wav")) for name in ("a", "b")]
    ids = [u.id for u in read_listing(paths)]
    assert len(set(ids)) == 4 and ids[:2] == ["u", "2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no utterances"),
        (b"\n\n", "no utterances"),
        (b'{"audio_filepath": "a"}\n', ":1: no key 'duration'"),
        (b'{"audio_filepath": "a.wav", "duration": 1, "text": ""}\n\nx', ":3: not JSON"),
        (b'{"audio_filepath": "a.wav", "duration": 1, "text": "\xff"}', ":1: not UTF-8"),
        (
            b'{"id": 1, "audio_filepath": "a", "duration": 1, "text": "x"}\n' * 2,
            ":2: duplicate id '1', first on line 1",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_listing([tmp_path / "m.jsonl"])
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(CorpusError):
            read_listing([path])


def test_memory_and_time_hardly_grow_with_the_corpus(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spans, text = (AlignedPhone("aa", 0.0, 0.5),), "some words that were said " * 3
    utterances = [
        Utterance(f"u{n}", tmp_path / f"{n % 99}" / f"{n}.wav", float(seconds), text, f"s{n % 99}", 0.0, spans)
        for n, seconds in enumerate(rng.uniform(0.5, 20, 20_000).round(2))
    ]
    write_manifest(tmp_path / "many.jsonl", utterances)
    last = utterances[-1]
    del utterances
    Plan(read_listing([tmp_path / "many.jsonl"]).duration_s, 60.0, 16000).epoch(0)  # what is made once
    tracemalloc.start()
    started = time.process_time()
    listing = read_listing([tmp_path / "many.jsonl"])
    plan = Plan(listing.duration_s, 60.0, 16000)
    assert sum(len(batch.utterances) for batch in plan.epoch(3)) == 20_000
    elapsed_s = time.process_time() - started
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(listing, Listing) and listing[-1] == last
    assert kept < 20_000 * 600 and peak < 20_000 * 1000  # bytes: under a gigabyte for a million
    assert elapsed_s < 30  # with the tracing of memory; some 20 s for a million without
