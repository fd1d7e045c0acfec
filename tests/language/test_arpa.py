"""The words of language models as KenLM reads them, and files that would make it crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from wavasr.decoding.hotwords import _load
from wavasr.errors import TextError
from wavasr.language.arpa import vocabulary

GOOD = """# made by hand
\\data\\
ngram 1=4
ngram 2=1

\\1-grams:
-1.0\t<unk>
-inf\t<s>\t-0.3
-0.5\t</s>
-0.4\tnew\u00a0york\t0
\\2-grams:
-0.1\t<s> new\u00a0york

\\end\\
"""


def test_what_kenlm_reads_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    for content in (GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace("\t", "  ")):
        path.write_bytes(content.encode())
        assert vocabulary(path) == ["new\u00a0york"]


def test_the_mark_of_windows_before_a_file(tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain.arpa", tmp_path / "marked.arpa"
    plain.write_bytes(GOOD.encode())
    marked.write_bytes("\ufeff".encode() + GOOD.encode())
    assert vocabulary(marked) == ["new\u00a0york"]
    scores = [lm.score(lm.start(False), 0)[1] for lm in (_load(path, ["new\u00a0york"]) for path in (plain, marked))]
    assert scores[0] == scores[1] == pytest.approx(-0.1)


def test_a_word_that_is_there_twice_is_one_word(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    entry = "-0.4\tnew\u00a0york\t0\n"
    path.write_text(GOOD.replace("ngram 1=4", "ngram 1=5").replace(entry, 2 * entry), encoding="utf-8")
    assert vocabulary(path) == ["new\u00a0york"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ngram 1=4", "ngram 1=-4", r"'ngram 1=-4' is no size"),
        ("ngram 2=1", "ngram 2=99999999999", "is no size"),
        ("ngram 2=1", "ngram 2=" + "9" * 400, "is no size"),
        ("ngram 1=4", "ngram 1=5", "4 words, but .* announces 5"),
        ("ngram 1=4", "ngram 1=3", "4 words, but .* announces 3"),
        ("ngram 1=4\n", "", "is no size"),
        ("-0.4\t", "nan\t", "is no entry"),
        ("-0.4\t", "", "is no entry"),
        ("\\data\\", "data", "instead of"),
        ("\\2-grams:", "", "5 words, but .* announces 4"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(TextError, match=message) as caught:
        vocabulary(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_bytes(GOOD.encode().replace(b"-0.1\t<s> new", b"-0.1\t<s> n\xff"))
    assert vocabulary(path)  # it looks no further than the words; KenLM does
    with pytest.raises(TextError, match=r"lm.arpa: is no usable language model"):
        _load(path, ["<unk>", "new\u00a0york"])


def test_the_words_of_a_kenlm_binary(tmp_path: Path) -> None:
    path = tmp_path / "lm.bin"
    header = b"mmap lm http://kheafield.com/code format version 5\n\0".ljust(100, b"\0") + b"\1".ljust(8, b"\0")
    words = "<unk>\0a\0</s>\0<s>\0ét\0".encode()
    path.write_bytes(header + (5).to_bytes(8, "little") + bytes(80) + words)
    assert vocabulary(path) == ["a", "ét"]
    path.write_bytes(header + (5).to_bytes(8, "little") + bytes(80) + words[:-1])
    with pytest.raises(TextError, match="cut off"):
        vocabulary(path)
