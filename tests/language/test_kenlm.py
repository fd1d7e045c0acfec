"""Damaged KenLM binaries, which KenLM itself would follow out of its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from wavasr.errors import TextError
from wavasr.language import kenlm

BINARIES = sorted((Path(__file__).parent.parent / "decoding").glob("kenlm-*.bin"))
TRIE = next(path for path in BINARIES if path.stem == "kenlm-trie")
PROBING = next(path for path in BINARIES if path.stem == "kenlm-probing")
COUNTS_AT, VOCABULARY_AT, UNIGRAMS_AT, BIGRAMS_AT = 108, 136, 200, 344  # of TRIE, which has 7, 14 and 13 n-grams


@pytest.mark.parametrize("path", BINARIES, ids=lambda path: path.stem)
def test_whole_ones_pass_and_every_part_must_be_there(path: Path, tmp_path: Path) -> None:
    kenlm.check(path)
    content = path.read_bytes()
    words = content.rindex(b"<unk>\0")
    for size in range(60, words, 61):
        (tmp_path / "cut.bin").write_bytes(content[:size])
        with pytest.raises(TextError, match=r"cut.bin: this KenLM binary is damaged .*build it anew"):
            kenlm.check(tmp_path / "cut.bin")


@pytest.mark.parametrize(
    ("binary", "at", "content", "message"),
    [
        (TRIE, 88, b"\x09", "order 9"),
        (TRIE, 96, b"\x09", "kind 9"),
        (TRIE, COUNTS_AT + 5, b"\xff", "header announces"),
        (TRIE, VOCABULARY_AT, b"\x07", "8 words, but 7 1-grams"),
        (TRIE, UNIGRAMS_AT + 8 + 16, b"\x50", "pointers of its 1-grams"),
        (TRIE, UNIGRAMS_AT + 8 + 16 * 7, b"\x0f", "pointers of its 1-grams"),
        (TRIE, BIGRAMS_AT + 8, b"\x7f", "pointers of its 2-grams"),
        (PROBING, VOCABULARY_AT + 4, b"\x77", "words beyond its 1-grams"),
        (PROBING, 92, b"\0\0\xc0\x7f", "hash tables of nan times"),
        (PROBING, VOCABULARY_AT + 8, b"\x01" * 120, "words beyond its 1-grams|is full"),
    ],
)
def test_a_number_that_leads_nowhere_is_one_line(
    tmp_path: Path, binary: Path, at: int, content: bytes, message: str
) -> None:
    path = tmp_path / "lm.bin"
    whole = binary.read_bytes()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    with pytest.raises(TextError, match=message) as caught:
        kenlm.check(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text("\\data\\\n", encoding="utf-8")
    kenlm.check(tmp_path / "lm.arpa")
