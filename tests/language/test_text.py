"""Normalisation and unit inventories: spelling by hand-written expectations, coding by round trips."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from itertools import groupby, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavasr.errors import ConfigError, ModelError, TextError
from wavasr.language.config import TextConfig, UnitsConfig
from wavasr.language.text import Units, build_units, ctc_frames_needed, normalise

SENTENCES = [
    "she had your dark suit in greasy wash water all year",
    "don't ask me to carry an oily rag like that",
    "the year's dark water carried all the suits",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("“Don’t  STOP!”, she said.", "don't stop she said"),
        ("\u2018Tis the dogs\u2019 rock \u2019n\u2019 roll", "tis the dogs rock n roll"),
        ("o`clock o\u00b4clock o\u02bcclock o\uff07clock", "o'clock o'clock o'clock o'clock"),
        ("a well-known one\u2014two\u2026three", "a well known one two three"),
        ("''quoted''", "quoted"),
        ("$5 & 10% #tag", "5 10 tag"),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufefffoo\u00adbar\u00a0baz\t\r\n\x00qux\u200b", "foobar baz qux"),
        ("Сто́ит  ли, кто-то? Д’Артаньян — ЁЛКА", "сто\u0301ит ли кто то д'артаньян ёлка"),
        ("می\u200cخواهم \u200c", "می\u200cخواهم"),
        ("¿Qué?", "qué"),
        ("'", ""),
        ("", ""),
        ("\ud800broken", "broken"),
    ],
)
def test_normalise_default(text: str, expected: str) -> None:
    assert normalise(text, TextConfig()) == expected


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        (TextConfig(case="upper"), "straße", "STRASSE"),
        (TextConfig(case="keep"), "McDonald, Ian", "McDonald Ian"),
        (TextConfig(punctuation="keep"), " Well \u2013  it\u2019s  done! ", "well \u2013 it's done!"),
        (TextConfig(punctuation="keep", case="keep"), "h# ax-h", "h# ax-h"),
        (TextConfig(strip_symbols="+"), "вол+ос, к+орень", "волос корень"),
        (TextConfig(strip_symbols="\u0301"), "сто\u0301ит", "стоит"),
        (TextConfig(digits="spell"), "B52, 3.5", "b five two three five"),
        (TextConfig(digits="spell", case="upper"), "٤٢", "FOUR TWO"),
        (TextConfig(digits="keep"), "B52", "b52"),
    ],
)
def test_normalise_as_configured(config: TextConfig, text: str, expected: str) -> None:
    assert normalise(text, config) == expected


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=32), st.sampled_from(["lower", "upper", "keep"]), st.sampled_from(["drop", "keep"]))
def test_normalise_twice_changes_nothing(text: str, case: str, punctuation: str) -> None:
    config = TextConfig(case=case, punctuation=punctuation, digits="spell")  # type: ignore[arg-type]
    once = normalise(text, config)
    assert normalise(once, config) == once
    assert once == " ".join(once.split())


def test_characters_are_sorted_and_start_with_the_blank() -> None:
    units = Units.characters(["b a", "ёж"])
    assert units.symbols == ("<blank>", " ", "a", "b", "ж", "ё")
    assert len(units) == 6
    assert units.encode(" b  a\n") == [3, 1, 2]
    assert not units.is_phones


@pytest.fixture(params=["characters", "sentencepiece", "phones"])
def units(request: pytest.FixtureRequest) -> Units:
    return build_units(SENTENCES, UnitsConfig(kind=request.param, size=32))


def test_round_trip_of_text(units: Units) -> None:
    for text in [*SENTENCES, "dark suit", ""]:
        ids = units.encode(text)
        assert all(0 < label < len(units) for label in ids)
        assert units.decode(ids) == text
        assert [word for word, _, _ in units.words(ids)] == text.split()


def test_words_point_at_their_own_labels(units: Units) -> None:
    ids = units.encode(SENTENCES[1])
    previous_end = 0
    for word, first, end in units.words(ids):
        assert previous_end <= first < end <= len(ids)
        assert units.decode(ids[first:end]) == word
        previous_end = end


def test_odd_outputs_still_decode() -> None:
    units = Units.characters(["ab c"])
    a, space = units.encode("a")[0], units.symbols.index(" ")
    assert units.decode([space, space, a, space, space, 0, a, 0, a, space]) == "a aa"
    assert units.words([space, space, a, space, 0, a, 0, a]) == [("a", 2, 3), ("aa", 5, 8)]
    pieces = Units.sentencepiece(SENTENCES, 32)
    bare = pieces.symbols.index("\u2581")
    d, r = pieces.symbols.index("d"), pieces.symbols.index("r")
    assert pieces.words([d, bare, bare, r, d, bare]) == [("d", 0, 1), ("rd", 3, 5)]


def test_json_and_pickle_give_the_same_units(units: Units) -> None:
    units.encode(SENTENCES[0])  # fills the caches
    for copy in (Units.from_dict(json.loads(json.dumps(units.to_dict()))), pickle.loads(pickle.dumps(units))):
        assert copy == units
        assert hash(copy) == hash(units)
        assert copy.encode(SENTENCES[2]) == units.encode(SENTENCES[2])


def test_sentencepiece_is_the_same_every_time() -> None:
    assert Units.sentencepiece(SENTENCES, 32) == Units.sentencepiece(iter(SENTENCES), 32)
    assert len(Units.sentencepiece(SENTENCES, 32)) == 32


def test_sentencepiece_reads_long_lines() -> None:
    units = Units.sentencepiece(["ab " * 3000 + "q"], 5)  # the library's own limit would skip this line
    assert units.decode(units.encode("q ab")) == "q ab"


def test_unknown_symbols_are_named() -> None:
    for kind in ("characters", "sentencepiece"):
        units = build_units(SENTENCES, UnitsConfig(kind=kind, size=32))  # type: ignore[arg-type]
        with pytest.raises(TextError, match=r"'é' \(U\+00E9 LATIN SMALL LETTER E WITH ACUTE\).*text normalisation"):
            units.encode("dark é suit")
        with pytest.raises(TextError, match=r"U\+0431.* and 2 more not in"):
            units.encode("абвгдежз"[1:])
    with pytest.raises(TextError, match=r"'zh' not in the inventory of 2 phones.*phone set"):
        Units.phones(["sh", "aa"]).encode("sh zh aa")


def test_phones() -> None:
    units = Units.phones(["sil", "sh", "ix", "sh"])
    assert units.symbols == ("<blank>", "ix", "sh", "sil")
    assert units.is_phones
    assert units.words([3, 2, 2]) == [("sil", 0, 1), ("sh", 1, 2), ("sh", 2, 3)]
    with pytest.raises(TextError, match="cannot be a phone"):
        Units.phones(["sh", "a b"])


@pytest.mark.parametrize("kind", ["characters", "sentencepiece", "phones"])
def test_nothing_to_learn_from(kind: str) -> None:
    with pytest.raises(TextError, match="check the manifest"):
        build_units(["", "  "], UnitsConfig(kind=kind))  # type: ignore[arg-type]


def test_sentencepiece_size_out_of_reach() -> None:
    with pytest.raises(ConfigError, match=r"units.size is 5000; .* at most \d+ labels: lower units.size"):
        Units.sentencepiece(SENTENCES, 5000)
    with pytest.raises(ConfigError, match=r"units.size is 5; .* need \d+: raise units.size"):
        Units.sentencepiece(SENTENCES, 5)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "syllables", "symbols": ["<blank>", "a"]},
        {"kind": "characters"},
        {"kind": "characters", "symbols": "ab"},
        {"kind": "characters", "symbols": ["a", "b"]},
        {"kind": "characters", "symbols": ["<blank>"]},
        {"kind": "characters", "symbols": ["<blank>", "a", "a"]},
        {"kind": "characters", "symbols": ["<blank>", "ab"]},
        {"kind": "characters", "symbols": ["<blank>", 3]},
        {"kind": "sentencepiece", "symbols": ["<blank>", "a"]},
        {"kind": "sentencepiece", "symbols": ["<blank>", "a"], "model": 7},
        {"kind": "sentencepiece", "symbols": ["<blank>", "a"], "model": "not base64!"},
        {"kind": "sentencepiece", "symbols": ["<blank>", "a"], "model": "AAAA"},
        {**Units.sentencepiece(SENTENCES, 32).to_dict(), "symbols": ["<blank>", "a"]},
    ],
)
def test_damaged_units_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"^units\.[^\n]+$"):
        Units.from_dict(values)


def test_frames_needed_is_the_shortest_path_that_collapses_to_the_labels() -> None:
    def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(label for label, _ in groupby(path) if label)

    shortest: dict[tuple[int, ...], int] = {}
    for frames in range(6):
        for path in product(range(3), repeat=frames):
            shortest.setdefault(collapse(path), frames)
    for ids, frames in shortest.items():
        assert ctc_frames_needed(ids) == frames


def test_misspelt_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"text.case is 'Lower'; expected one of lower, upper, keep"):
        TextConfig(case="Lower")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"units.kind is 'bpe'"):
        UnitsConfig(kind="bpe")  # type: ignore[arg-type]


def test_no_torch() -> None:
    code = "import sys, wavasr.language.text; sys.exit('torch' in sys.modules or 'sentencepiece' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_transcripts(shared_data: Path) -> None:
    expected = {
        "an4/train.jsonl": (TextConfig(), " abcdefghijklmnopqrstuvwxyz"),
        "festvox-ru/all.jsonl": (TextConfig(strip_symbols="+"), " 'абвгдежзийклмнопрстуфхцчшщъыьэюяё"),
        "ljspeech-385/all.jsonl": (TextConfig(), " 'abcdefghijklmnopqrstuvwxyz"),
    }
    for manifest, (config, alphabet) in expected.items():
        lines = (shared_data / manifest).read_text(encoding="utf-8").splitlines()
        texts = [normalise(json.loads(line)["text"], config) for line in lines]
        units = Units.characters(texts)
        assert "".join(units.symbols[1:]) == alphabet
        assert all(units.decode(units.encode(text)) == text for text in texts)


def test_words_as_units_are_a_closed_vocabulary() -> None:
    units = build_units(["two one", "three two"], UnitsConfig(kind="words"))
    assert units.symbols == ("<blank>", "one", "three", "two")
    assert units.encode("two three") == [3, 2]
    assert units.decode([3, 0, 2]) == "two three"
    assert units.words([3, 2]) == [("two", 0, 1), ("three", 1, 2)]
    assert Units.from_dict(units.to_dict()) == units
    assert not units.is_phones
    with pytest.raises(TextError, match="four"):
        units.encode("two four")
