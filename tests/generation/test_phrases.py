"""Text to words, phones, pauses and places."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wavasr.errors import TextError
from wavasr.generation.phrases import PAUSE, Word, arrays, sentences, tokens
from wavasr.network.config import PHONE_PLACES

LEXICON = {"hello": "HH AH L OW", "there": "DH EH R", "doctor": "D AA K T ER", "lee": "L IY", "nasa": "N AE S AH"}
LEXICON |= {"i": "AY", "stop": "S T AA P", "twelve": "T W EH L V", "it's": "IH T S"}


def pronounce(word: str) -> list[str] | None:
    return LEXICON[word].split() if word in LEXICON else None


def said(text: str) -> list[list[tuple[str, str]]]:
    return [[(word.text, word.ending) for word in sentence] for sentence in sentences(text, pronounce)]


def test_punctuation_belongs_to_the_word_before_it() -> None:
    assert said("Hello there, Dr. Lee.") == [[("hello", ""), ("there", ","), ("doctor", ""), ("lee", ".")]]
    assert said("Hello?! There... it's") == [[("hello", "!")], [("there", ".")], [("it's", "")]]
    assert said("hello (there) - lee; 12") == [
        [("hello", ","), ("there", ","), ("lee", ","), ("twelve", "")],
    ]


def test_a_paragraph_ends_a_sentence() -> None:
    assert said("Café")[0] == [("cafe", "")]
    assert said("Hello\nthere\n\nLee") == [[("hello", ""), ("there", "")], [("lee", "")]]


def test_lines_are_taken_as_they_are_needed() -> None:
    lines = ["Hello\n", "there. Stop!\n", "I stop\n", "\n", "...\n", "Lee\n"]
    taken: list[str] = []

    def coming() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    found = sentences(coming(), pronounce)
    assert [word.text for word in next(found)] == ["hello", "there"] and len(taken) == 2
    assert [[word.text for word in sentence] for sentence in found] == [["stop"], ["i", "stop"], ["lee"]]
    with pytest.raises(TextError, match=r"nothing that can be said \('\.\.\.'\)"):
        list(sentences(iter(["...\n", "\n", "!"]), pronounce))


def test_capitals_are_words_or_letters() -> None:
    found = {word.text: " ".join(word.phones) for s in sentences("NASA FBI STOP I B", pronounce) for word in s}
    assert found == {
        "nasa": "N AE S AH",
        "fbi": "EH F B IY AY",
        "stop": "S T AA P",
        "i": "AY",
        "b": "B IY",
    }


def test_a_text_in_capitals_is_words() -> None:
    (sentence,) = sentences("IT'S I, LEE!", pronounce)
    assert [word.phones for word in sentence] == [("IH", "T", "S"), ("AY",), ("L", "IY")]


def test_a_hyphen_in_a_word_is_no_pause() -> None:
    assert said("hello-there - lee") == [[("hello", ""), ("there", ","), ("lee", "")]]


def test_what_has_no_pronunciation_is_spelled() -> None:
    ((word,),) = sentences("xz", pronounce)
    assert " ".join(word.phones) == "EH K S Z IY"


def test_sentences_that_do_not_end_are_cut() -> None:
    found = said("hello " * 130)
    assert [len(sentence) for sentence in found] == [60, 60, 10]
    assert [len(sentence) for sentence in said("hello " * 40 + ", " + "there " * 30)] == [40, 30]


@pytest.mark.parametrize("text", ["", " \n", "...", "日本語", "😀 !"])
def test_nothing_to_say_is_an_error(text: str) -> None:
    with pytest.raises(TextError, match="nothing that can be said"):
        list(sentences(text, pronounce))


def test_no_word_is_longer_than_forty_letters() -> None:
    found = list(sentences("x" * 100_000, pronounce))
    words = [word for sentence in found for word in sentence]
    assert max(sum(len(word.phones) for word in sentence) for sentence in found) <= 520
    assert {len(word.text) for word in words} == {40} and len(words) == 2500


def test_what_cannot_be_read_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert said("Hello — Привет, “naïve” 🎉 café. 你好")
    assert [record.getMessage() for record in caplog.records] == [
        "left out, because only English is read: Привет, 🎉, 你好"
    ]


def test_tokens_have_pauses_and_places() -> None:
    words = [Word("hello", ("HH", "OW"), ","), Word("the", ("DH", "AH")), Word("lee", ("L", "IY"), "?")]
    found = tokens(words)
    assert [token.phone for token in found] == [PAUSE, "HH", "OW", PAUSE, "DH", "AH", "L", "IY", PAUSE]
    assert [token.ending for token in found] == [",", ",", ",", ",", "?", "?", "?", "?", "?"]
    assert [token.starts_word for token in found] == [False, True, False, False, True, False, True, False, False]
    assert [token.is_function_word for token in found] == [False] * 4 + [True, True] + [False] * 3
    assert [(token.before, token.after) for token in found[4:8]] == [(0, 3), (1, 2), (2, 1), (3, 0)]
    assert [token.phone for token in tokens(words, [False, True, True])].count(PAUSE) == 3


def test_arrays_name_a_phone_that_the_voice_lacks() -> None:
    found = tokens([Word("hello", ("HH", "XX"))])
    ids, places = arrays(found, (PAUSE, "HH", "XX"))
    assert ids.tolist() == [0, 1, 2, 0]
    assert places.shape == (4, PHONE_PLACES)
    assert ((places >= -0.5) & (places <= 1)).all()
    with pytest.raises(TextError, match="no phone XX"):
        arrays(found, (PAUSE, "HH"))
