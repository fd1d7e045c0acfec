"""Pieces lie end to end, no phone is cut, and their times are those of the whole."""

from pathlib import Path

import pytest

from wavasr.corpora.manifest import AlignedPhone, Utterance
from wavasr.corpora.pieces import in_pieces, pieces_of
from wavasr.errors import ConfigError

ENDS_S = (0.2, 0.25, 0.6, 1.0, 1.1, 1.5, 1.95)
NAMES = "sil aa b aa k iy sil".split()


def utterance(text: str = " ".join(NAMES)) -> Utterance:
    starts_s = (0.0, *ENDS_S[:-1])
    spans = tuple(AlignedPhone(n, a, b) for n, a, b in zip(NAMES, starts_s, ENDS_S, strict=True))
    return Utterance("u", Path("u.wav"), 2.0, text, "me", offset_s=3.0, alignment=spans)


def test_pieces_make_the_whole() -> None:
    whole = utterance()
    pieces = pieces_of(whole, 0.7)
    assert [piece.text for piece in pieces] == ["sil aa b", "aa k iy", "sil"]
    assert [piece.offset_s for piece in pieces] == pytest.approx([3.0, 3.6, 4.5])
    assert [piece.duration_s for piece in pieces] == pytest.approx([0.6, 0.9, 0.5])
    assert len({piece.id for piece in pieces}) == 3 and {piece.speaker for piece in pieces} == {"me"}
    again = [
        (p.phone, p.start_s + piece.offset_s, p.end_s + piece.offset_s) for piece in pieces for p in piece.alignment
    ]
    expected = [(p.phone, p.start_s + 3.0, p.end_s + 3.0) for p in whole.alignment]
    assert [name for name, _, _ in again] == NAMES
    assert [t for _, *ts in again for t in ts] == pytest.approx([t for _, *ts in expected for t in ts])


def test_what_stays_whole() -> None:
    words = utterance("a word")
    assert in_pieces([words, words], 0.0) == [words, words]
    assert pieces_of(words, 0.7) == [words]
    assert pieces_of(utterance(), 1.9) == [utterance()]
    assert len(in_pieces([words, utterance()], 0.7)) == 4
    with pytest.raises(ConfigError, match=r"data.piece_s is 0.7, and no training utterance has the times"):
        in_pieces([words], 0.7)


def test_silences_that_no_text_has() -> None:
    """As `wavasr align` writes them: they are no part of a text, and a piece of nothing else is left out."""
    pieces = pieces_of(utterance("aa b aa k iy"), 0.7)
    assert [piece.text for piece in pieces] == ["aa b", "aa k iy"]
    assert [[phone.phone for phone in piece.alignment] for piece in pieces] == [["sil", "aa", "b"], ["aa", "k", "iy"]]
