"""Damaged files: a few hundred of each kind in this process, and what `benchmarks.fuzz` found once."""

import itertools
import json
import struct
from pathlib import Path

import pytest

from wavasr.audio.reading import load_audio
from wavasr.config import from_dict
from wavasr.corpora.manifest import read_manifest
from wavasr.errors import AudioError, ConfigError, CorpusError, WavasrError
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import Lexicon


@pytest.fixture(autouse=True)
def repository_on_path(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(repository)


@pytest.mark.parametrize("kind", ["audio", "manifest", "arpa", "lexicon"])
def test_damaged_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    from benchmarks.fuzz import _damaged
    from benchmarks.fuzz_kinds import EXAMPLES, READERS

    outcomes = set()
    for _, name, content in itertools.islice(_damaged({kind: EXAMPLES[kind](tmp_path)}, seed=1), 200):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            outcomes.add(READERS[kind](path))
        except WavasrError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_failures_of_every_sort_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import fuzz

    cases = [
        ("lexicon", "lexicon-a", b"YES  Y EH S\n"),
        ("lexicon", "lexicon-b", b"YES\n"),
        ("nothing", "nothing-c", b""),
    ]
    assert fuzz._run(iter(cases[:2]), tmp_path / "good", float("inf")) == 0
    assert not list((tmp_path / "good").iterdir())
    assert fuzz._run(iter(cases), tmp_path / "bad", float("inf")) == 1
    assert [path.name for path in (tmp_path / "bad").iterdir()] == ["nothing-c"]


def test_an_encoding_that_nobody_knows() -> None:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 0x1234, 1, 16000, 32000, 2, 16)
    body = b"WAVE" + form + b"data" + struct.pack("<I", 4000) + bytes(4000)
    with pytest.raises(AudioError, match="uncommon encoding"):
        load_audio(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_very_long_word_is_quoted_in_part(tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text("A" * 100_000, encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        Lexicon.read(tmp_path / "lexicon.txt")
    assert len(str(caught.value)) < 500


def test_a_very_long_key_is_quoted_in_part() -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(TextConfig, {"a" * 5000: 1})
    assert len(str(caught.value)) < 500


def test_a_very_long_path_is_cut_in_the_middle(tmp_path: Path) -> None:
    path = "/".join(["a" * 200] * 30)
    (tmp_path / "index.jsonl").write_text(json.dumps({"audio_filepath": path, "duration": 1, "text": "yes"}))
    (utterance,) = read_manifest(tmp_path / "index.jsonl")
    with pytest.raises(AudioError) as caught:
        load_audio(utterance.audio)
    told = str(caught.value)
    assert len(told) < 700 and told.startswith(str(tmp_path)) and "aaa ... aaa" in told and told.endswith("permissions")
