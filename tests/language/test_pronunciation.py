"""Grapheme to phoneme: alignment and search against everything written out, and words of the shipped lexicon."""

import itertools
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.decoding.test_search import read_arpa, sentence_nats
from wavasr import cli
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.factory import lm_decoder
from wavasr.errors import TextError
from wavasr.language import pronunciation as g2p
from wavasr.language.arpa import write_arpa
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import Lexicon
from wavasr.language.pronunciation import Pronouncer, completed
from wavasr.language.text import Units
from wavasr.network.files import language_of, resolve
from wavasr.recognition.align import align
from wavasr.recognition.models import load_acoustic_model

TOY = Lexicon(
    {
        word: (tuple(phones.split()),)
        for word, phones in {
            "ship": "SH IH P",
            "chip": "CH IH P",
            "hip": "HH IH P",
            "sip": "S IH P",
            "six": "S IH K S",
            "ox": "AA K S",
            "shox": "SH AA K S",
            "chop": "CH AA P",
            "hop": "HH AA P",
            "his": "HH IH S",
            "xxxx": "A B C D E F G H I",
        }.items()
    }
)
WORDS = [([0, 1, 2], [0, 1]), ([0, 2, 1], [1, 0, 2, 2]), ([1, 1, 0], [2]), ([2, 0, 1], [0, 1, 2, 0, 1, 2])]


@pytest.fixture(scope="module")
def shipped() -> Lexicon:
    lexicon = language_of(resolve("default")).lexicon
    assert lexicon is not None
    return Lexicon.read(lexicon)


@pytest.fixture(scope="module")
def some(shipped: Lexicon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dictionary of 3,000 words of it: fast to learn."""
    words = {*sorted(shipped)[::22], "lady", "no", "less", "the"}
    path = tmp_path_factory.mktemp("lexicon") / "some.txt"
    lines = [f"{word}  {' '.join(shipped[word][0])}" for word in sorted(words)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def ways(letters: int, phones: int) -> list[tuple[int, ...]]:
    """How many phones each letter may say."""
    return [counts for counts in itertools.product(range(3), repeat=letters) if sum(counts) == phones]


def probability(table: g2p._Table, word: tuple[list[int], list[int]], counts: tuple[int, ...]) -> float:
    letters, phones = word
    total, at = 1.0, 0
    for letter, count in zip(letters, counts, strict=True):
        said = phones[at : at + count]
        total *= float([table.nothing, table.one, table.two][count][(letter, *said)])
        at += count
    return total


def random_table(seed: int) -> g2p._Table:
    rng = np.random.default_rng(seed)
    return g2p._table(rng.random(3), rng.random((3, 4)), rng.random((3, 4, 4)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_round_counts_every_alignment(seed: int) -> None:
    table = random_table(seed)
    expected: dict[tuple[int, ...], float] = defaultdict(float)
    for word in WORDS:
        letters, phones = word
        found = {counts: probability(table, word, counts) for counts in ways(len(letters), len(phones))}
        for counts, weight in found.items():
            ends = list(itertools.accumulate(counts, initial=0))
            for place, letter in enumerate(letters):
                expected[(letter, *phones[ends[place] : ends[place + 1]])] += weight / sum(found.values())
    total = {letter: sum(count for key, count in expected.items() if key[0] == letter) for letter in range(3)}
    found = g2p._reestimated(table, [g2p._group(WORDS)])
    for key in [(a, *rest) for a in range(3) for n in range(3) for rest in itertools.product(range(3), repeat=n)]:
        part = (found.nothing, found.one, found.two)[len(key) - 1]
        assert part[key] == pytest.approx(expected[key] / total[key[0]] + 1e-7, rel=1e-6)
    assert not found.one[:, -1].any() and not found.two[:, -1].any() and not found.two[:, :, -1].any()


@pytest.mark.parametrize("seed", range(5))
def test_the_best_alignment_is_the_best_of_all(seed: int) -> None:
    table = random_table(seed)
    for word, ends in zip(WORDS, g2p._best_ends(table, g2p._group(WORDS)), strict=True):
        found = tuple(end - start for start, end in itertools.pairwise([0, *ends]))
        every = [probability(table, word, counts) for counts in ways(len(word[0]), len(word[1]))]
        assert probability(table, word, found) == pytest.approx(max(every))


def test_letters_learn_what_they_say() -> None:
    aligned = g2p._aligned([(word, TOY[word][0]) for word in TOY])
    said = {"".join(letter for letter, _ in pairs): pairs for pairs in aligned}
    assert said["six"] == [("s", ("S",)), ("i", ("IH",)), ("x", ("K", "S"))]
    assert len(said) == len(TOY) - 1, "nine phones are too many for four letters"
    assert [phone for _, phones in said["shox"] for phone in phones] == ["SH", "AA", "K", "S"]


def test_a_pronunciation_is_the_best_of_all(tmp_path: Path) -> None:
    """Over every sequence of pairs, by the ARPA file of the same model."""
    pronouncer = Pronouncer(TOY)
    write_arpa(pronouncer._model, tmp_path / "pairs.arpa")
    arpa = read_arpa(tmp_path / "pairs.arpa")
    for word in ("hops", "xis", "chis"):
        total: dict[tuple[str, ...], float] = defaultdict(float)
        for labels in itertools.product(*(pronouncer._says[letter] for letter in word)):
            names = tuple(pronouncer._model.words[label] for label in labels)
            spoken = tuple(itertools.chain.from_iterable(pronouncer._pairs[label][1] for label in labels))
            total[spoken] += math.exp(sentence_nats(arpa, names, order=6))
        found = pronouncer(word, 2)
        ranked = sorted(total, key=lambda spoken: -total[spoken])
        likely = [spoken for spoken in ranked[:2] if total[spoken] >= 0.2 * total[ranked[0]]]
        assert found == likely, word


def test_little_to_learn() -> None:
    assert Pronouncer(Lexicon({"a": (("AH",),)}))("aa") == [("AH", "AH")]
    assert Pronouncer(Lexicon({"1": (("W", "AH", "N"),)}))("11") == []


def test_left_out_words_of_the_shipped_lexicon(shipped: Lexicon) -> None:
    """Every 20th word, learnt from the others: about 7 % of the phones are wrong, and one word in four."""
    words = sorted(shipped)
    left_out = set(words[::20])
    pronounce = Pronouncer(Lexicon({word: shipped[word] for word in words if word not in left_out}))
    right, errors, phones = 0, 0, 0
    asked = sorted(left_out)[::6]
    for word in asked:
        [found] = pronounce(word)
        distances = [(distance(found, spoken), len(spoken)) for spoken in shipped[word]]
        errors, phones = errors + min(distances)[0], phones + min(distances)[1]
        right += found in shipped[word]
    assert len(asked) > 400
    assert errors / phones < 0.09
    assert right / len(asked) > 0.68


def distance(found: tuple[str, ...], wanted: tuple[str, ...]) -> int:
    row = list(range(len(wanted) + 1))
    for place, phone in enumerate(found, 1):
        before, row[0] = row[0], place
        for column, other in enumerate(wanted, 1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (phone != other))
    return row[-1]


def test_what_a_lexicon_cannot_teach(shipped: Lexicon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "wavasr")
    assert completed(TOY, ["shops"]) is TOY, "too few words to learn from"
    assert completed(shipped, ["speech", "the"]) is shipped
    assert completed(Lexicon({"OX": (("AA", "K", "S"),)}), ["ox", "six"]).missing(["ox", "six"]) == ["six"]
    assert not caplog.messages
    more = completed(shipped, ["speech", "naïve", "Wodehouse", "мир", "4"], 3)
    assert more.missing(["naïve", "Wodehouse", "мир", "4"]) == ["мир", "4"]
    assert more["speech"] == shipped["speech"] and len(more) == len(shipped) + 2
    assert 1 <= len(more["Wodehouse"]) <= 3
    [message] = caplog.messages
    assert message.endswith(f"which lacks them: naïve  {' '.join(more['naïve'][0])}; Wodehouse  W UH D HH AW S")


def test_a_hotword_that_the_lexicon_lacks_can_be_recognised(some: Path) -> None:
    """What sounds like lady knollys is lady no less, until Knollys is expected."""
    acoustic = load_acoustic_model("default")
    units, lm, lexicon = acoustic.units, language_of(acoustic.file).lm, Lexicon.read(some)
    assert "knollys" not in lexicon
    [lady], no_less = lexicon["lady"], (*lexicon["no"][0], *lexicon["less"][0])
    [knollys, *_] = Pronouncer(lexicon)("knollys")
    values = spoken((*lady, *knollys), (*lady, *no_less), units)
    for hotwords, text in (((), "lady no less"), (("Knollys",), "lady knollys"), (("Zarathustra",), "lady no less")):
        decoder = lm_decoder(DecodingConfig(lm=lm, lexicon=some, hotwords=hotwords), units, TextConfig())
        assert decoder is not None
        assert decoder(values).text(units) == text


def spoken(phones: tuple[str, ...], others: tuple[str, ...], units: Units) -> NDArray[np.float32]:
    """Log-probabilities of phones that sound like others too, each two frames long and followed by a blank."""
    values = np.full((3 * len(phones), len(units)), 1e-4, np.float32)
    for place, pair in enumerate(zip(phones, others, strict=True)):
        for phone in pair:
            values[3 * place : 3 * place + 2, units.symbols.index(phone)] += 0.5
        values[3 * place + 2, 0] += 1.0
    return np.log(values / values.sum(1, keepdims=True))


def test_a_text_with_an_unknown_word_is_aligned(some: Path) -> None:
    clip = Path(__file__).parents[2] / "data" / "samples" / "date.flac"
    acoustic = load_acoustic_model("default")
    found = align(clip, "The zarathustra", acoustic, lexicon=some)
    [wanted] = Pronouncer(Lexicon.read(some))("zarathustra")
    assert tuple(unit.word for unit in found.units) == ("DH", "AH", *wanted)
    assert [word.word for word in found.words] == ["the", "zarathustra"]
    with pytest.raises(TextError, match="'4' not in the lexicon"):
        align(clip, "4 ever", acoustic, lexicon=some)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], shipped: Lexicon, some: Path) -> None:
    assert cli.main(["pronounce", "Speech"]) == 0
    assert capsys.readouterr().out == "speech  S P IY CH\n"
    assert cli.main(["pronounce", "The", "knollys", "--n-best", "3", "--lexicon", str(some)]) == 0
    output = capsys.readouterr().out
    (tmp_path / "words.txt").write_text(output, encoding="utf-8")
    read = Lexicon.read(tmp_path / "words.txt")
    assert read["the"] == shipped["the"][:1]
    assert list(read["knollys"]) == Pronouncer(Lexicon.read(some))("knollys", 3)
    assert "# guessed" in output.splitlines()[-1] and "#" not in output.splitlines()[0]
    small = tmp_path / "small.txt"
    small.write_text("ox  AA K S\n", encoding="utf-8")
    assert cli.main(["pronounce", "ox", "six", "--lexicon", str(small)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "ox  AA K S\n"
    assert "'six' cannot be pronounced" in captured.err and "1000 words" in captured.err
