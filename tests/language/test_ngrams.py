"""Estimated models against counts by hand and the sum of all probabilities; pruning; files in and out."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import lzma
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.decoding.test_search import arpa_log10, read_arpa
from wavasr.cli import main
from wavasr.errors import ConfigError, TextError
from wavasr.language.arpa import vocabulary, write_arpa
from wavasr.language.ngrams import NgramModel, _discounts, estimate
from wavasr.language.pruning import prune
from wavasr.language.sentences import read_sentences
from wavasr.network.files import spelling_of

_PACKED = bytearray(gzip.compress(b"one two three " * 100, mtime=0))
_PACKED[20] ^= 0xFF
FLIPPED = bytes(_PACKED)
CORPUS = ["a b a", "a b", "b c a", "a"]


def text(seed: int, sentences: int = 400) -> list[str]:
    """Sentences of a made-up language, in which a word depends on the one before."""
    generator = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(12)]
    table = generator.dirichlet(np.full(12, 0.3), size=12)
    found = []
    for _ in range(sentences):
        said = [int(generator.integers(12))]
        while generator.random() < 0.8:
            said.append(int(generator.choice(12, p=table[said[-1]])))
        found.append(" ".join(words[word] for word in said))
    return found


def written(model: NgramModel, folder: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    path = folder / "model.arpa"
    write_arpa(model, path)
    return read_arpa(path)


def check_sums(arpa: dict[tuple[str, ...], tuple[float, float]], order: int) -> None:
    """After every history that the model knows, and some that it does not, all words together have probability 1."""
    words = [gram[0] for gram in arpa if len(gram) == 1 and gram[0] != "<s>"]
    histories = [gram for gram in arpa if len(gram) < order and gram[-1] != "</s>"]
    histories += [(), ("<unk>",), *itertools.islice(itertools.product(words[:4], repeat=order - 1), 20)]
    for history in histories:
        total = sum(10 ** arpa_log10(arpa, history[-order + 1 :] if order > 1 else (), word) for word in words)
        assert total == pytest.approx(1.0, abs=1e-3), history


def test_a_miniature_by_hand(tmp_path: Path) -> None:
    """Bigrams of four sentences. The corpus is too small to tell discounts: 0.5, 1, 1.5 for counts of 1, 2, 3 up."""
    arpa = written(estimate(CORPUS, order=2), tmp_path)
    assert {gram for gram in arpa if len(gram) == 2} == {
        *(("<s>", "a"), ("<s>", "b"), ("a", "b"), ("a", "</s>"), ("b", "a"), ("b", "</s>"), ("b", "c"), ("c", "a"))
    }
    # Words: after how many different words they stand. a: <s> b c; b: <s> a; c: b; </s>: a b. Together 8.
    unseen = (1.5 + 1.0 + 0.5 + 1.0) / 8 / 5  # what is taken, shared by a b c </s> <unk>
    single = {
        "a": 1.5 / 8 + unseen,
        "b": 1 / 8 + unseen,
        "c": 0.5 / 8 + unseen,
        "</s>": 1 / 8 + unseen,
        "<unk>": unseen,
    }
    for word, expected in single.items():
        assert 10 ** arpa[word,][0] == pytest.approx(expected, rel=1e-4)
    # <s> a: 3 of 4, <s> b: 1 of 4. a b: 2, a </s>: 3, of 5.
    left = (1.5 + 0.5) / 4
    assert 10 ** arpa["<s>",][1] == pytest.approx(left, rel=1e-4)
    assert 10 ** arpa["<s>", "a"][0] == pytest.approx((3 - 1.5) / 4 + left * single["a"], rel=1e-4)
    left = (1.0 + 1.5) / 5
    assert 10 ** arpa["a", "b"][0] == pytest.approx((2 - 1.0) / 5 + left * single["b"], rel=1e-4)
    check_sums(arpa, 2)


def test_discounts_by_hand() -> None:
    """Six counts of 1, three of 2, two of 3, one of 4; Chen and Goodman 1998, equation 17."""
    # Y = 6 / (6 + 2 * 3) = 1/2; D1 = 1 - 2Y 3/6, D2 = 2 - 3Y 2/3, D3 = 3 - 4Y 1/2
    counts = np.array([1] * 6 + [2] * 3 + [3] * 2 + [4])
    assert _discounts(counts).tolist() == pytest.approx([0.0, 0.5, 1.0, 2.0])
    # Ten of 1, four of 2, three of 3, two of 4: Y = 10/18 = 5/9; D1 = 1 - (10/9) 4/10, D2 = 2 - (15/9) 3/4, ...
    counts = np.array([1] * 10 + [2] * 4 + [3] * 3 + [4] * 2)
    assert _discounts(counts).tolist() == pytest.approx([0.0, 5 / 9, 3 / 4, 41 / 27])
    # No count of 3: nothing to tell D2 and D3 by.
    assert _discounts(np.array([1, 1, 1, 2, 2, 4])).tolist() == [0.0, 0.5, 1.0, 1.5]


def test_bigrams_are_discounted_by_their_own_counts(tmp_path: Path) -> None:
    """The probabilities of a larger text, from counts of counts that are made here."""
    sentences = text(1)
    pairs = Counter(pair for words in sentences for pair in itertools.pairwise(["<s>", *words.split(), "</s>"]))
    n1, n2, n3, n4 = (sum(count == k for count in pairs.values()) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    discount = {1: 1 - 2 * y * n2 / n1, 2: 2 - 3 * y * n3 / n2, 3: 3 - 4 * y * n4 / n3}
    arpa = written(estimate(sentences, order=2), tmp_path)
    for (before, word), count in pairs.items():
        total = sum(n for (first, _), n in pairs.items() if first == before)
        taken = sum(discount[min(n, 3)] for (first, _), n in pairs.items() if first == before)
        assert 10 ** arpa[before,][1] == pytest.approx(taken / total, rel=1e-3)
        expected = (count - discount[min(count, 3)]) / total + taken / total * 10 ** arpa[word,][0]
        assert 10 ** arpa[before, word][0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_sum_to_one(tmp_path: Path, order: int) -> None:
    model = estimate(text(0), order=order)
    check_sums(written(model, tmp_path), order)
    for threshold, ngrams in [(1e-4, 0), (1e-2, 0), (0.0, 30)]:
        check_sums(written(prune(model, threshold, ngrams), tmp_path), order)


@pytest.mark.parametrize("order", [3, 4, 5])
def test_singletons_are_counted_but_not_stored(tmp_path: Path, order: int) -> None:
    whole, dropped = (estimate(text(4), order=order, drop_singletons=drop) for drop in (False, True))
    check_sums(written(dropped, tmp_path), order)
    assert dropped.sizes[:2] == whole.sizes[:2]
    for full, part in zip(whole.orders[2:], dropped.orders[2:], strict=True):
        assert part.counts.tolist() == full.counts[full.counts > 1].tolist()
        assert 0 < len(part) < len(full)
    # Discounts and continuations are those of all n-grams, so that words and pairs stay what they were.
    for full, part in zip(whole.orders[:2], dropped.orders[:2], strict=True):
        assert part.prob == pytest.approx(full.prob, rel=1e-5)


def test_a_text_in_pieces_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [prune(estimate(text(5), order=4, drop_singletons=drop), ngrams=100) for drop in (False, True)]
    monkeypatch.setattr("wavasr.language.ngrams._PIECE", 64)
    parts = [prune(estimate(text(5), order=4, drop_singletons=drop), ngrams=100) for drop in (False, True)]
    for one, other in zip(whole, parts, strict=True):
        assert one.sizes == other.sizes
        for first, second in zip(one.orders, other.orders, strict=True):
            assert first.history.tolist() == second.history.tolist()
            assert first.word.tolist() == second.word.tolist()
            assert first.prob == pytest.approx(second.prob, rel=1e-5)
            assert first.backoff == pytest.approx(second.backoff, rel=1e-4)


def test_only_words_of_a_vocabulary(tmp_path: Path) -> None:
    model = estimate(CORPUS, order=2, vocabulary=["c", "a", "z"])
    assert model.words == ("<unk>", "<s>", "</s>", "a", "c")
    assert model.unknown == 1
    with pytest.raises(TextError, match="no words of the vocabulary"):
        estimate(CORPUS, vocabulary=["z"])
    (tmp_path / "t.txt").write_text("b c\nc c a\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("\ufeffc  K\r\na  AH\r\n", encoding="utf-8")
    command = ["lm", "build", str(tmp_path / "t.txt"), "-o", str(tmp_path / "o.arpa"), "--drop-singletons"]
    assert main([*command, "--vocabulary", str(tmp_path / "words.txt")]) == 0
    assert vocabulary(tmp_path / "o.arpa") == ["c", "a"]


def test_rare_words_are_unknown(tmp_path: Path) -> None:
    model = prune(estimate(text(1), order=3, words=6))
    assert len(model.words) == 9
    arpa = written(model, tmp_path)
    assert not any("<unk>" in gram for gram in arpa if len(gram) > 1)
    cut = len({word for line in text(1) for word in line.split()}) - 6
    assert model.unknown == cut > 1
    prob, backoff = arpa["<unk>",]
    assert prob + math.log10(cut) > math.log10(0.05)  # half of the words are such, and it is one of them
    arpa["<unk>",] = prob + math.log10(cut), backoff
    check_sums(arpa, 3)


def test_pruning_leaves_what_is_worth_most(tmp_path: Path) -> None:
    model = estimate(text(2), order=3)
    held_out = text(2, 600)[400:]

    def perplexity(pruned: NgramModel) -> float:
        arpa = written(pruned, tmp_path)
        total, count = 0.0, 0
        for sentence in held_out:
            said = ("<s>", *sentence.split(), "</s>")
            for i in range(1, len(said)):
                total += arpa_log10(arpa, said[max(0, i - 2) : i], said[i])
                count += 1
        return float(10 ** (-total / count))

    sizes = [prune(model, ngrams=ngrams) for ngrams in (10, 40, 80)]
    assert [sum(one.sizes[1:]) for one in sizes] == pytest.approx([10, 40, 80], abs=8)
    assert all(sum(one.sizes[1:]) <= ngrams for one, ngrams in zip(sizes, (10, 40, 80), strict=True))
    worth = [perplexity(one) for one in sizes]
    assert worth[0] > worth[1] > worth[2]
    # Every n-gram that stays has its beginning and its end in the model.
    grams = set(written(sizes[1], tmp_path))
    assert all(gram[:-1] in grams and gram[1:] in grams for gram in grams if len(gram) > 1)
    assert prune(model).sizes == model.sizes
    assert prune(model, ngrams=10**6).sizes == model.sizes
    assert sum(prune(model, 1e9).sizes[1:]) == 0


def test_the_same_text_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("one.arpa.gz", "two.arpa.gz"):
        write_arpa(prune(estimate(text(3)), ngrams=50), tmp_path / name)
    assert (tmp_path / "one.arpa.gz").read_bytes() == (tmp_path / "two.arpa.gz").read_bytes()
    plain = gzip.decompress((tmp_path / "one.arpa.gz").read_bytes())
    assert plain.startswith(b"\\data\\\nngram 1=15\n") and plain.endswith(b"\n\\end\\\n")
    assert sorted(vocabulary(tmp_path / "one.arpa.gz")) == sorted(f"w{number}" for number in range(12))


def test_special_words_in_a_text_are_unknown(tmp_path: Path) -> None:
    model = estimate(["a <s> b", "</s> a <unk>"])
    assert model.words == ("<unk>", "<s>", "</s>", "a", "b")
    check_sums(written(model, tmp_path), 3)


def test_texts_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffOne, Two!\n\nThree\n", encoding="utf-8")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"four\n"))
    (tmp_path / "c.xz").write_bytes(lzma.compress(b"five\n"))
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "Six"}) + "\n\n", encoding="utf-8")
    paths = [tmp_path / name for name in ("a.txt", "b.gz", "c.xz", "d.jsonl")]
    assert list(read_sentences(paths, str.strip)) == ["One, Two!", "Three", "four", "five", "Six"]
    assert list(read_sentences(paths[:1], spelling_of("default"))) == ["one two", "three"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "no such file"),
        ("latin.txt", b"ok\ncaf\xe9\n", r"latin.txt:2: not UTF-8"),
        ("bad.gz", b"no gzip", "cannot be unpacked"),
        ("short.gz", gzip.compress(b"word " * 1000, mtime=0)[:40], "cannot be unpacked"),
        ("bad.xz", b"no xz", "cannot be unpacked"),
        ("flipped.gz", FLIPPED, "cannot be unpacked"),
        ("deep.jsonl", b"[" * 200_000, r'deep.jsonl:1: expected a JSON object with "text"'),
        ("bad.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r'bad.jsonl:2: expected a JSON object with "text"'),
        ("number.jsonl", b'{"text": 5}\n', "number.jsonl:1"),
        ("list.jsonl", b"[1]\n", "list.jsonl:1"),
    ],
)
def test_bad_texts_are_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError, match=message) as caught:
        list(read_sentences([tmp_path / name], str.strip))
    assert "\n" not in str(caught.value)


def test_bad_settings() -> None:
    with pytest.raises(TextError, match="no words"):
        estimate(["", " "])
    for arguments in ({"order": 1}, {"order": 7}, {"words": -1}):
        with pytest.raises(ConfigError, match="--"):
            estimate(CORPUS, **arguments)
    with pytest.raises(ConfigError, match="--prune"):
        prune(estimate(CORPUS), -1.0)


def test_the_command_builds_whole_files_or_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source, output = tmp_path / "text.txt", tmp_path / "new" / "lm.arpa"
    source.write_text("One two\ntwo one\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        assert main(["lm", "build", str(source), "-o", str(output), "--order", "2"]) == 0
    assert "5 1-grams" in capsys.readouterr().out
    assert vocabulary(output) == ["one", "two"]
    source.write_text("\n", encoding="utf-8")
    before = output.read_bytes()
    assert main(["lm", "build", str(source), "-o", str(output)]) == 2
    assert output.read_bytes() == before
    assert "the texts have no words" in capsys.readouterr().err
    assert main(["lm", "biuld"]) == 2
    assert "did you mean 'build'" in capsys.readouterr().err
    assert sorted(path.name for path in output.parent.iterdir()) == ["lm.arpa"]
