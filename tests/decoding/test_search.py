"""The decoder with words and a language model against the enumeration of every path, and against a second library."""

from __future__ import annotations

import gc
import logging
import math
import random
import sys
import weakref
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wavasr.audio.augment import change_speed
from wavasr.audio.reading import load_audio
from wavasr.decoding import search as decoding_lm
from wavasr.decoding.config import GREEDY, NOTHING, DecodingConfig
from wavasr.decoding.decoder import BeamDecoder, Decoder, GreedyDecoder
from wavasr.decoding.factory import complete, decoder_of, lm_decoder
from wavasr.decoding.greedy import Hypothesis, greedy, penalised, prefix_beam, priors_of
from wavasr.decoding.hotwords import Phrases
from wavasr.decoding.search import DEFAULT_WEIGHTS, LMDecoder, _cuts, _Found, _pauses
from wavasr.decoding.trellis import Piece, ctc_log_probs
from wavasr.errors import ConfigError, ModelError, TextError
from wavasr.language.arpa import vocabulary, write_arpa
from wavasr.language.config import TextConfig
from wavasr.language.ngrams import estimate
from wavasr.language.text import BLANK, Units
from wavasr.language.weights import Weights
from wavasr.network.files import change_model, language_of, language_parts, resolve
from wavasr.recognition.chunks import log_probs_of
from wavasr.recognition.models import load_acoustic_model
from wavasr.recognition.stretches import OTHER_SPEEDS, joined
from wavasr.recognition.transcribe import recognise, transcribe

TEXT = TextConfig()
WIDE = 5000
SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def lattice(frames: int, labels: int, seed: int, sharpness: float = 1.5) -> NDArray[np.float32]:
    values = sharpness * np.random.default_rng(seed).standard_normal((frames, labels))
    return (values - np.logaddexp.reduce(values, axis=1, keepdims=True)).astype(np.float32)


def read_arpa(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """{words: (log10 probability, log10 back-off)}"""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = line.split("\t")
        if len(parts) > 1:
            found[tuple(parts[1].split())] = (float(parts[0]), float(parts[2]) if len(parts) > 2 else 0.0)
    return found


def arpa_log10(arpa: dict[tuple[str, ...], tuple[float, float]], history: tuple[str, ...], word: str) -> float:
    if (word,) not in arpa:
        word = "<unk>"
    if (*history, word) in arpa:
        return arpa[*history, word][0]
    if not history:
        return arpa["<unk>",][0]
    return arpa.get(history, (0.0, 0.0))[1] + arpa_log10(arpa, history[1:], word)


def sentence_nats(arpa: dict[tuple[str, ...], tuple[float, float]], words: tuple[str, ...], order: int = 3) -> float:
    said = ("<s>", *words, "</s>")
    total = sum(arpa_log10(arpa, said[max(0, i - order + 1) : i], said[i]) for i in range(1, len(said)))
    return total * math.log(10)


def every_labelling(values: NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """Log-probability of each label sequence, by summing over all V^T paths."""
    total: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(values.shape[1]), repeat=len(values)):
        ids = tuple(label for label, _ in groupby(path) if label)
        total[ids] += math.exp(sum(float(row[label]) for row, label in zip(values, path, strict=True)))
    return {ids: math.log(probability) for ids, probability in total.items()}


def segmentations(ids: tuple[int, ...], spellings: dict[str, list[tuple[int, ...]]]) -> list[tuple[str, ...]]:
    """The word sequences, each as often as there are ways to it, that these labels spell without separators."""
    if not ids:
        return [()]
    found = []
    for word, variants in spellings.items():
        for spelling in variants:
            if ids[: len(spelling)] == spelling:
                found += [(word, *rest) for rest in segmentations(ids[len(spelling) :], spellings)]
    return found


def every_sentence(
    values: NDArray[np.float32], units: Units, spellings: dict[str, list[tuple[int, ...]]]
) -> dict[tuple[str, ...], float]:
    """Log-probability of each word sequence: all paths of all its spellings."""
    total: dict[tuple[str, ...], float] = {}
    for ids, score in every_labelling(values).items():
        if units.kind == "characters":
            words = tuple(units.decode(ids).split())
            sentences = [words] if set(words) <= set(spellings) else []
        else:
            sentences = segmentations(ids, spellings)
        for sentence in sentences:
            total[sentence] = float(np.logaddexp(total.get(sentence, -math.inf), score))
    return total


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["a b a", "ab a", "b b ab", "bab", "a ab bab", "b a"], order=3), path)
    return path


CHARACTERS = Units.characters(["a b"])
PHONES = Units("phones", (BLANK, "x", "y"))


def said(hypothesis: Hypothesis, units: Units) -> tuple[str, ...]:
    return tuple(word for word, _, _ in hypothesis.words_in(units))


def check(found: Hypothesis, units: Units, expected: dict[tuple[str, ...], float]) -> None:
    """The n best are the n best of all sentences, with their exact scores."""
    assert found.alternatives[0] == replace(found, alternatives=())
    best = sorted(expected.items(), key=lambda item: -item[1])[: len(found.alternatives)]
    assert [one.score for one in found.alternatives] == pytest.approx([score for _, score in best], abs=1e-3)
    for one in found.alternatives:
        assert expected[said(one, units)] == pytest.approx(one.score, abs=1e-3)
        assert len(one.spans) == len(one.confidences) == len(one.ids)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("weight", "score"), [(0.0, 0.0), (0.5, 1.0), (1.5, -0.5)])
def test_characters_against_every_path(lm: Path, seed: int, weight: float, score: float) -> None:
    values = lattice(6, len(CHARACTERS), seed)
    arpa = read_arpa(lm)
    spellings = {word: [tuple(CHARACTERS.encode(word))] for word in ("a", "b", "ab", "bab")}
    expected = {
        words: acoustic + weight * sentence_nats(arpa, words) + score * len(words)
        for words, acoustic in every_sentence(values, CHARACTERS, spellings).items()
    }
    config = DecodingConfig(beam=WIDE, n_best=5, lm=lm, lm_weight=weight, word_score=score)
    decoder = lm_decoder(config, CHARACTERS, TEXT)
    assert decoder is not None
    check(decoder(values), CHARACTERS, expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("sharpness", "penalty"), [(0.5, 0.0), (2.0, 0.0), (2.0, 1.5)])
def test_pronunciations_against_every_path(
    lm: Path, tmp_path: Path, seed: int, sharpness: float, penalty: float
) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("a  X\nb  Y\nab  X Y X\nbab  Y Y\n", encoding="utf-8")
    spellings = {"a": [(1,)], "b": [(2,)], "ab": [(1, 2, 1)], "bab": [(2, 2)]}
    values = lattice(7, 3, seed, sharpness)
    arpa = read_arpa(lm)
    shares = np.exp(values.astype(np.float64)) * np.exp([-penalty, 0.0, 0.0])
    searched = np.log(shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    expected = {
        words: acoustic + 0.7 * sentence_nats(arpa, words) + 0.3 * len(words)
        for words, acoustic in every_sentence(searched, PHONES, spellings).items()
    }
    config = DecodingConfig(
        beam=WIDE, n_best=4, lm=lm, lexicon=lexicon, lm_weight=0.7, word_score=0.3, blank_penalty=penalty
    )
    decoder = lm_decoder(config, PHONES, TEXT)
    assert decoder is not None
    assert decoder.spells_words
    check(decoder(values), PHONES, expected)


def earned(words: tuple[str, ...], hotwords: dict[tuple[str, ...], float]) -> float:
    """The most that hotwords, none over another, earn in these words."""
    if not words:
        return 0.0
    ways = [nats + earned(words[len(h) :], hotwords) for h, nats in hotwords.items() if words[: len(h)] == h]
    return max([earned(words[1:], hotwords), *ways])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("hotwords", [("bab",), ("a", "ab"), ("b a",), ("ab", "b a b")])
@pytest.mark.parametrize("units", [CHARACTERS, PHONES], ids=["characters", "phones"])
def test_hotwords_against_every_path(
    lm: Path, tmp_path: Path, units: Units, hotwords: tuple[str, ...], seed: int
) -> None:
    lexicon = None
    spellings = {word: [tuple(units.encode(word))] for word in ("a", "b", "ab", "bab")} if units is CHARACTERS else {}
    if units is PHONES:
        lexicon = tmp_path / "lexicon.txt"
        lexicon.write_text("a  X\nb  Y\nab  X Y X\nbab  Y Y\n", encoding="utf-8")
        spellings = {"a": [(1,)], "b": [(2,)], "ab": [(1, 2, 1)], "bab": [(2, 2)]}
    values = lattice(6, len(units), seed, 2.0)
    arpa = read_arpa(lm)
    config = DecodingConfig(beam=WIDE, n_best=4, lm=lm, lexicon=lexicon, lm_weight=0.7, word_score=0.3)
    boost = 2.2 if any(" " in hotword for hotword in hotwords) else 1.3
    decoder = lm_decoder(replace(config, hotwords=hotwords, hotword_boost=boost), units, TEXT)
    assert decoder is not None
    nats = {tuple(decoder.words[number] for number in one.labels): one.nats for one in decoder._score.hotwords}
    assert all(0.0 <= value <= boost * len(words) for words, value in nats.items())
    sentences = every_sentence(values, units, spellings)
    has_phrases = max(map(len, nats)) > 1
    if has_phrases and units is CHARACTERS:  # ways with more than a space between words do not count then
        labellings = every_labelling(values)
        sentences = {words: labellings.get(tuple(units.encode(" ".join(words))), -math.inf) for words in sentences}
    expected = {
        words: acoustic + 0.7 * sentence_nats(arpa, words) + 0.3 * len(words) + earned(words, nats)
        for words, acoustic in sentences.items()
    }
    found = decoder(values)
    if not has_phrases:
        check(found, units, expected)
        return
    assert expected[said(found, units)] == pytest.approx(max(expected.values()), abs=1e-3)
    for one in found.alternatives:  # which may be said without the phrase: the search takes it for its last word
        assert (
            one.score == pytest.approx(expected[said(one, units)], abs=1e-3) or one.score < expected[said(one, units)]
        )


def test_a_word_with_two_pronunciations(lm: Path, tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("a  X\na(2)  X Y\nbab  Y Y Y\n", encoding="utf-8")
    decoder = lm_decoder(DecodingConfig(n_best=3, lm=lm, lexicon=lexicon), PHONES, TEXT)
    assert decoder is not None
    for ids in [(1,), (1, 2), (1, 1, 2), (2, 2, 2, 1)]:
        values = np.log(np.full((3 * len(ids), 3), 0.01, np.float32))
        for place, label in enumerate(ids):
            values[3 * place : 3 * place + 2, label] = math.log(0.98)
            values[3 * place + 2, 0] = math.log(0.98)
        found = decoder(values)
        assert found.ids == ids
        assert found.words is not None and all(first < end for _, first, end in found.words)
        assert found.words[-1][0] == "a" and found.words[-1][2] == len(ids)
        assert found.spans[0][0] == 0


@pytest.mark.parametrize("seed", range(4))
def test_phones_without_words_against_every_path(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "phones.arpa"
    write_arpa(estimate(["x y x", "x x y", "y x"], order=2), path)
    arpa = read_arpa(path)
    values = lattice(6, 3, seed)
    expected = {}
    for ids, acoustic in every_labelling(values).items():
        phones = tuple(PHONES.symbols[label] for label in ids)
        expected[phones] = acoustic + 0.8 * sentence_nats(arpa, phones, order=2) + 0.4 * len(phones)
    config = DecodingConfig(beam=WIDE, n_best=5, lm=path, lm_weight=0.8, word_score=0.4)
    decoder = lm_decoder(config, PHONES, TEXT)
    assert decoder is not None and not decoder.spells_words
    check(decoder(values), PHONES, expected)


@pytest.mark.parametrize("seed", range(4))
def test_sentencepiece_against_every_path(lm: Path, seed: int) -> None:
    generator = random.Random(0)
    units = Units.sentencepiece([" ".join(generator.choices(["a", "b", "ab", "bab"], k=8)) for _ in range(300)], size=6)
    values = lattice(5, len(units), seed)
    spellings = {word: [tuple(units.encode(word))] for word in ("a", "b", "ab", "bab")}
    arpa = read_arpa(lm)
    expected = {
        words: acoustic + 0.5 * sentence_nats(arpa, words) + len(words)
        for words, acoustic in every_sentence(values, units, spellings).items()
    }
    decoder = lm_decoder(DecodingConfig(beam=WIDE, n_best=3, lm=lm, lm_weight=0.5, word_score=1.0), units, TEXT)
    assert decoder is not None
    check(decoder(values), units, expected)


def test_the_forward_pass_against_every_path() -> None:
    values = lattice(6, 4, seed=9)
    table = every_labelling(values)
    labellings = [(), (1,), (2, 2), (1, 2, 3), (3, 3, 1), (1, 1, 1, 1)]
    found = ctc_log_probs(values, labellings)
    assert found[:-1] == pytest.approx([table[ids] for ids in labellings[:-1]], abs=1e-5)
    assert found[-1] == -math.inf  # four equal labels need seven frames


@pytest.mark.parametrize("seed", range(8))
def test_the_texts_of_a_second_library(lm: Path, seed: int) -> None:
    """ctc-beam-decoder, which decodes as pyctcdecode does."""
    second = pytest.importorskip("ctc_beam_decoder")
    values = lattice(40, len(CHARACTERS), seed, sharpness=4.0)
    labels = ["", *CHARACTERS.symbols[1:]]
    other = second.build_ctcdecoder(labels, kenlm_model_path=str(lm), alpha=0.5, beta=0.7, unk_score_offset=-1000.0)
    beams = other.decode_beams(values, beam_width=500, beam_prune_logp=-100.0, token_min_logp=-100.0)
    decoder = lm_decoder(DecodingConfig(beam=500, n_best=50, lm=lm, lm_weight=0.5, word_score=0.7), CHARACTERS, TEXT)
    assert decoder is not None
    found = {one.text(CHARACTERS): one.score for one in decoder(values).alternatives}
    theirs, *_, their_score = beams[0]
    # Scores agree; the search here misses nothing that the other finds (the other misses some).
    assert found.get(theirs, their_score) == pytest.approx(their_score, abs=0.02)
    assert theirs in found or min(found.values()) >= their_score - 0.02


def spoken(text: str, units: Units, doubt: float = 0.05) -> NDArray[np.float32]:
    """Log-probabilities in which greedy decoding reads `text`."""
    ids = [label for label in units.encode(text) for _ in range(2)]
    values = np.full((len(ids), len(units)), doubt / (len(units) - 1))
    for place, label in enumerate(ids):
        values[place, label if place % 2 == 0 else 0] = 1 - doubt
    return np.log(values).astype(np.float32)


LETTERS = Units.characters(["abcdefghijklmnopqrstuvwxyz '"])


def test_hotwords_are_recognised_and_boosts_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["the cat sat", "a cat sat on the mat", "the mat"]), path)
    values = spoken("the kat sat", LETTERS, doubt=0.2)
    config = DecodingConfig(lm=path, lm_weight=0.5, word_score=0.0)

    def best(**changes: object) -> Hypothesis:
        decoder = lm_decoder(replace(config, **changes), LETTERS, TEXT)  # type: ignore[arg-type]
        assert decoder is not None
        return decoder(values)

    assert best().text(LETTERS) == "the cat sat"
    boosted = best(hotwords=("Kat", "sat"), hotword_boost=3.0)
    assert boosted.text(LETTERS) == "the kat sat"
    more = best(hotwords=("kat", "sat"), hotword_boost=3.5)
    assert more.text(LETTERS) == "the kat sat"
    assert more.score - boosted.score == pytest.approx(2 * 0.5, abs=1e-3)


def test_a_phrase_earns_no_more_than_makes_it_a_boosted_rare_word(tmp_path: Path) -> None:
    """By hand: unigrams without history, bigrams after it; the median word is the rare one."""
    path = tmp_path / "lm.arpa"
    path.write_text(
        "\\data\\\nngram 1=6\nngram 2=1\n\n\\1-grams:\n-9\t<unk>\n-99\t<s>\t0\n-1\t</s>\n-0.5\ta\t-0.1\n"
        "-2\tb\t0\n-3\tc\t0\n\n\\2-grams:\n-0.25\ta b\n\n\\end\\\n",
        encoding="utf-8",
    )
    config = DecodingConfig(lm=path, lm_weight=0.5, word_score=-1.0, hotword_boost=4.0)
    found = []
    for hotword in ("a b", "c a", "b c c", "c"):
        decoder = lm_decoder(replace(config, hotwords=(hotword,)), LETTERS, TEXT)
        assert decoder is not None
        found.append(decoder._score.hotwords[0].nats)
    nat = 0.5 * math.log(10)
    said = [-0.5 - 0.25, -3 - 0.5, -2 - 3 - 3]  # log10 of the phrases
    by_hand = [4.0 + nat * (-2 - said[0]) + 1, 4.0 + nat * (-2 - said[1]) + 1, 4.0 + nat * (-2 - said[2]) + 2]
    assert found == pytest.approx([by_hand[0], by_hand[1], min(12.0, by_hand[2]), 4.0])


def test_phrases_of_common_words_that_are_not_said_change_nothing() -> None:
    model = load_acoustic_model("default")
    phrases = "and so on", "in the united states of america"
    plain, expecting = (decoder_of(DecodingConfig(hotwords=words), model) for words in ((), phrases))
    for name in ("plain-sentence.flac", "telephone-number.wav"):
        values = log_probs_of(model, load_audio(SAMPLES / name))
        assert plain(values).text(model.units) == expecting(values).text(model.units) != ""


def test_numbers_and_abbreviations_in_hotwords_are_read_out() -> None:
    decoder = decoder_of(DecodingConfig(hotwords=("Dr. Zarathustra", "May 23rd")), load_acoustic_model("default"))
    assert isinstance(decoder, LMDecoder)
    said = {" ".join(decoder.words[number] for number in one.labels) for one in decoder._score.hotwords}
    assert said == {"doctor zarathustra", "may twenty third"}


def test_hotwords_alone_and_weights_of_nothing(lm: Path) -> None:
    values = spoken("say wodehaus now", LETTERS, doubt=0.4)
    plain = BeamDecoder(DecodingConfig(beam=50))(values)
    assert plain.text(LETTERS) == "say wodehaus now"
    decoder = lm_decoder(DecodingConfig(hotwords=("Wodehouse",), hotword_boost=25.0), LETTERS, TEXT)
    assert decoder is not None
    assert "wodehouse" in decoder(values).text(LETTERS)
    none = lm_decoder(DecodingConfig(beam=WIDE, hotwords=("ab",), hotword_boost=0.0), CHARACTERS, TEXT)
    assert none is not None
    values = lattice(8, 4, seed=3)
    assert none(values).score == pytest.approx(prefix_beam(values, WIDE, min_log_prob=-20.0)[0].score, abs=0.001)
    free = lm_decoder(DecodingConfig(lm=lm, lm_weight=0.0, hotwords=("a b",), n_best=2), CHARACTERS, TEXT)
    assert free is not None
    assert free(spoken("a b", CHARACTERS)).text(CHARACTERS) == "a b"


def test_phrases_earn_in_part_and_give_back() -> None:
    phrases = Phrases([((1, 2), 4.0), ((1, 2, 3, 4), 8.0), ((2, 5), 2.0)])

    def earned(*labels: int) -> float:
        node, total = 0, 0.0
        for label in labels:
            node, more = phrases.step(node, label)
            total += more
        return total + phrases.finish(node)

    assert earned(9) == 0.0
    assert earned(1) == 0.0
    assert earned(1, 2) == 4.0
    assert earned(1, 2, 3) == 4.0
    assert earned(1, 2, 3, 4) == 8.0
    assert earned(1, 2, 5) == 4.0 + 2.0  # the end of one phrase begins another
    assert earned(2, 5, 9, 1, 2) == 6.0
    assert earned(1, 1, 2) == 4.0


class Model:
    """What decoders ask of one."""

    file = None
    units, text, metadata = CHARACTERS, TEXT, {}


def test_a_language_model_or_lexicon_that_is_not_there_is_an_error(tmp_path: Path, lm: Path) -> None:
    for config in (DecodingConfig(lm=tmp_path / "none.arpa"), DecodingConfig(lm=lm, lexicon=tmp_path / "none.txt")):
        with pytest.raises(ConfigError, match=r"none\.\w+: no such (language model|lexicon); check the path"):
            decoder_of(config, Model())  # type: ignore[arg-type]


def test_a_missing_library_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, lm: Path
) -> None:
    values = lattice(20, len(CHARACTERS), seed=1, sharpness=3.0)
    monkeypatch.setitem(sys.modules, "flashlight.lib.text.decoder.kenlm", None)
    with caplog.at_level(logging.WARNING):
        assert decoder_of(DecodingConfig(lm=lm), Model())(values) == greedy(values)  # type: ignore[arg-type]
        found = decoder_of(DecodingConfig(lm=lm, beam=8), Model())(values)  # type: ignore[arg-type]
    assert found == prefix_beam(values, 8)[0]
    assert len(caplog.messages) == 2
    assert "flashlight-text" in caplog.messages[0]


def test_what_a_decoder_is_asked(lm: Path) -> None:
    search: Decoder = decoder_of(DecodingConfig(lm=lm), Model())  # type: ignore[arg-type]
    plain: Decoder = decoder_of(DecodingConfig(), Model())  # type: ignore[arg-type]
    assert (search.is_search, search.calibration_key, bool(search.words), search.thorough) == (True, "lm", True, False)
    assert (plain.is_search, plain.calibration_key, list(plain.words), plain.description) == (
        False,
        "ctc",
        [],
        "greedy",
    )
    assert decoder_of(DecodingConfig(n_best=3), Model()).description == "beam of 16"  # type: ignore[arg-type]
    values = lattice(20, len(CHARACTERS), seed=1, sharpness=6.0)
    draft, best = search.draft(values), search(values)
    assert draft.text(CHARACTERS) == best.text(CHARACTERS) != "" and draft.frames == 20
    assert plain.draft(values) == plain(values)
    for (word, first, end), (_, place, stop) in zip(draft.words_in(CHARACTERS), best.words_in(CHARACTERS), strict=True):
        assert abs(draft.spans[end - 1][1] - best.spans[stop - 1][1]) <= 2 and first == place, word
    assert decoder_of(search, Model()) is search  # type: ignore[arg-type]


def test_nothing_recognised_and_long_recordings(lm: Path) -> None:
    decoder = lm_decoder(DecodingConfig(lm=lm, n_best=3, beam=20), CHARACTERS, TEXT)
    assert decoder is not None
    assert decoder(np.zeros((0, 4), np.float32)) == Hypothesis((), 0.0, (), (), 0)
    silence = np.log(np.full((5, 4), 1e-9, np.float32))
    silence[:, 0] = 0.0
    assert decoder(silence).ids == ()
    parts = [decoder(lattice(12, 4, seed)) for seed in range(3)]
    whole = joined(parts, CHARACTERS)
    assert whole.alternatives[0] == replace(whole, alternatives=())
    scores = [one.score for one in whole.alternatives]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    every = sorted((a.score + b.score + c.score for a in parts[0].alternatives for b in parts[1].alternatives
                    for c in parts[2].alternatives), reverse=True)  # fmt: skip
    assert scores == pytest.approx(every[:3])


def test_a_penalty_for_blanks_without_words() -> None:
    """Greedy decoding and the beam without words take it too; without one both are as they were."""
    silent = np.log(np.array([[0.8, 0.15, 0.05]] * 2, np.float32))
    for beam in (0, 4):
        plain, more = (
            (BeamDecoder if beam else GreedyDecoder)(DecodingConfig(beam=beam, blank_penalty=penalty))(silent)
            for penalty in (None, math.log(8))
        )
        assert (plain.ids, more.ids) == ((), (1,)), beam
    assert (greedy(silent).score, penalised(silent, 0.0).tolist()) == (
        pytest.approx(2 * math.log(0.8)),
        silent.tolist(),
    )
    assert np.exp(penalised(silent, math.log(8))).tolist() == [pytest.approx([1 / 3, 1 / 2, 1 / 6])] * 2


def test_labels_are_divided_by_the_root_of_their_priors(lm: Path) -> None:
    values = lattice(6, 5, 3, 1.0)
    priors = (0.64, 0.16, 0.04, 0.16, 0.0)
    shares = np.exp(values.astype(np.float64)) / np.sqrt(np.maximum(priors, 1e-4)) * [math.exp(-1.5), 1, 1, 1, 1]
    expected = np.log(shares / shares.sum(axis=1, keepdims=True))
    before = values.copy()
    found = penalised(values, 1.5, priors)
    assert found == pytest.approx(expected, abs=1e-5) and np.array_equal(values, before)
    config = DecodingConfig(beam=WIDE, n_best=3, lm=lm, lm_weight=0.5, word_score=0.1, blank_penalty=1.5)
    plain = lm_decoder(replace(config, blank_penalty=0.0), CHARACTERS, TEXT)
    scaled = lm_decoder(config, CHARACTERS, TEXT, priors=priors[: len(CHARACTERS)])
    assert plain is not None and scaled is not None and "root of their priors" in scaled.description
    few = lattice(6, len(CHARACTERS), 3, 1.0)
    one, other = scaled(few), plain(penalised(few, 1.5, priors[: len(CHARACTERS)]))
    assert (one.ids, one.score) == (other.ids, pytest.approx(other.score, abs=1e-4))


def test_priors_of_a_model_file() -> None:
    assert priors_of({}, 3) is None
    assert priors_of({"label_priors": [0.5, 0.25, 0.25]}, 3) == (0.5, 0.25, 0.25)
    for damaged in ([0.5, 0.5], "abc", 3, [0.5, 0.5, 2], [0.5, 0.5, "x"]):
        with pytest.raises(ModelError, match="label_priors of the model file is damaged"):
            priors_of({"label_priors": damaged}, 3)


def test_tuned_weights_are_the_defaults(lm: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.wavasr"

    def weights(config: DecodingConfig) -> Weights:
        decoder = lm_decoder(complete(config, model), CHARACTERS, TEXT)
        assert decoder is not None
        return decoder.weights

    change_model(tiny_model, model, language={"lm.arpa": lm}, decoding={"lm_weight": 1.25, "word_score": -0.5})
    assert weights(DecodingConfig()) == Weights(1.25, -0.5, 0.0)
    assert weights(DecodingConfig(word_score=2.0)) == Weights(1.25, 2.0, 0.0)
    assert weights(DecodingConfig(lm=lm)) == Weights(1.25, -0.5, 0.0), "of another language model too"
    assert weights(DecodingConfig(lm=lm, lexicon=NOTHING)) == DEFAULT_WEIGHTS, "but not for phones or characters alone"
    for damaged in ({"lm_weight": "x", "word_score": 1}, {"lm_weight": -1, "word_score": 1}):
        change_model(tiny_model, model, language={"lm.arpa": lm}, decoding=damaged)
        with pytest.raises(ModelError, match=r"m\.wavasr: its decoding weights are damaged; run wavasr lm tune again"):
            weights(DecodingConfig())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends before"),
        (b"hello\n", r"begins with 'hello' instead of"),
        (b"\\data\\\nngram 1=2\n\n\\1-grams:\n-1 a\nnonsense here\n", "no entry"),
        (b"\\data\\\nngram 1=9\n\n\\1-grams:\n-1\ta\n-1\tb\n\n\\end\\\n", "2 words, but"),
        (b"\\data\\\n\xff\xfe\n", "not UTF-8"),
    ],
)
def test_a_damaged_model_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.arpa"
    path.write_bytes(content)
    with pytest.raises(TextError, match=message) as caught:
        lm_decoder(DecodingConfig(lm=path), CHARACTERS, TEXT)
    assert "\n" not in str(caught.value) and "bad.arpa" in str(caught.value)


def test_parts_that_do_not_fit(lm: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a language model of phones, or --lexicon"):
        lm_decoder(DecodingConfig(lm=lm), PHONES, TEXT)
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("a  Q Q\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'Q'"):
        lm_decoder(DecodingConfig(lm=lm, lexicon=lexicon), PHONES, TEXT)
    with pytest.raises(ConfigError, match="hotword 'zoo'"):
        lm_decoder(DecodingConfig(lm=lm, hotwords=("zoo",)), CHARACTERS, TEXT)
    lexicon.write_text("zoo\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="can spell none of its 1 words"):
        lm_decoder(DecodingConfig(lexicon=lexicon), CHARACTERS, TEXT)
    with pytest.raises(ConfigError, match="n_best is 5 and beam 2"):
        DecodingConfig(beam=2, n_best=5)


def test_words_in_another_case_are_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "upper.arpa"
    write_arpa(estimate(["THE CAT SAT", "THE MAT"]), path)
    decoder = lm_decoder(DecodingConfig(lm=path), LETTERS, TEXT)
    assert decoder is not None
    assert decoder(spoken("the cat", LETTERS)).text(LETTERS) == "the cat"
    words = tmp_path / "words.txt"
    words.write_text("the\nmat\n", encoding="utf-8")
    listed = lm_decoder(DecodingConfig(lm=path, lexicon=words), LETTERS, TEXT)
    assert listed is not None
    assert listed(spoken("the cat", LETTERS, doubt=0.6)).text(LETTERS) == "the mat"


def test_a_second_language_model_chooses_among_the_results(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["the cat sat", "the mat sat"]), path)
    values = spoken("the cat sat", LETTERS, doubt=0.2)

    class Second:
        def __call__(self, texts: list[str]) -> NDArray[np.float64]:
            return np.array([0.0 if "mat" in text else -20.0 for text in texts])

    def found(weight: float) -> Hypothesis:
        config = DecodingConfig(lm=path, n_best=6, rescorer_weight=weight)
        decoder = lm_decoder(config, LETTERS, TEXT)
        assert decoder is not None
        decoder._rescorer = Second()  # type: ignore[assignment]
        return decoder(values)

    plain, rescored = found(0.0), found(1.0)
    before, after = ({one.text(LETTERS): one.score for one in best.alternatives} for best in (plain, rescored))
    assert plain.text(LETTERS) == "the cat sat" and rescored.text(LETTERS) == "the mat sat"
    both = before.keys() & after.keys()
    assert len(both) >= 3
    assert [after[text] for text in both] == pytest.approx([before[text] - 20 * ("mat" not in text) for text in both])
    assert list(after.values()) == sorted(after.values(), reverse=True)


def test_a_second_language_model_is_asked_for_near_results_alone(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["the cat sat", "the mat sat"]), path)
    asked: list[str] = []

    class Second:
        def __call__(self, texts: list[str]) -> NDArray[np.float64]:
            asked[:] = texts
            return np.zeros(len(texts))

    decoder = lm_decoder(DecodingConfig(lm=path, rescorer_weight=1.0), LETTERS, TEXT)
    wide = lm_decoder(DecodingConfig(lm=path, rescorer_weight=1.0, n_best=3), LETTERS, TEXT)
    assert decoder is not None and wide is not None
    decoder._rescorer = wide._rescorer = Second()  # type: ignore[assignment]
    decoder(np.logaddexp(spoken("the cat sat", LETTERS), spoken("the mat sat", LETTERS)) - np.log(2).astype(np.float32))
    assert sorted(asked)[:2] == ["the cat sat", "the mat sat"]
    decoder(spoken("the cat sat", LETTERS, doubt=0.001))
    assert asked == ["the cat sat"]
    wide(spoken("the cat sat", LETTERS, doubt=0.001))
    assert len(asked) == 3  # each alternative's score has both


def test_the_second_language_model_goes_with_the_first(lm: Path) -> None:
    default = resolve("default")
    own = language_of(default)
    assert own.rescorer is not None and own.rescorer_weight > 0
    config = complete(DecodingConfig(), default)
    assert (config.rescorer, config.rescorer_weight) == (own.rescorer, own.rescorer_weight)
    assert complete(DecodingConfig(lexicon=NOTHING), default).rescorer == own.rescorer
    for other in (DecodingConfig(lm=lm), DecodingConfig(rescorer=NOTHING), GREEDY):
        assert complete(other, default).rescorer is None
    assert complete(complete(DecodingConfig(), default), default) == config
    assert complete(DecodingConfig(rescorer=own.rescorer, lm=lm), default).rescorer_weight == 0.15


def test_what_a_model_carries_is_used(tiny_model: Path, speech: Path, tmp_path: Path) -> None:
    """A language model, its weights and a word list in a model file; others, or none, when one says so."""
    model, lm = tmp_path / "m.wavasr", tmp_path / "m.lm.arpa"
    write_arpa(estimate(["the fox", "the lazy dog"], order=2), lm)
    plain = transcribe(speech, tiny_model, decoder=GREEDY).text
    weights = {"lm_weight": 0.3, "word_score": 2.0}
    change_model(tiny_model, model, language=language_parts(None, lm), decoding=weights)
    explicit = transcribe(speech, tiny_model, decoder=DecodingConfig(lm=lm, **weights))  # type: ignore[arg-type]
    own = transcribe(speech, model)
    assert own.text == explicit.text != plain and set(own.text.split()) <= {"the", "fox", "lazy", "dog"}
    assert transcribe(speech, model, decoder=DecodingConfig(lm=NOTHING)).text == plain
    assert transcribe(speech, model, decoder=GREEDY).text == plain
    words = tmp_path / "words.txt"
    words.write_text("fox\ndog\n", encoding="utf-8")
    change_model(model, language=language_parts(words, lm))
    assert set(transcribe(speech, model).text.split()) <= {"fox", "dog"}
    assert transcribe(speech, model, decoder=DecodingConfig(lexicon=NOTHING)).text == own.text
    others = tmp_path / "others.arpa"
    write_arpa(estimate(["the fox", "the lazy dog"], order=2), others)
    with_others = decoder_of(DecodingConfig(lm=others), model=load_acoustic_model(model))
    assert set(with_others.words) == {"the", "fox", "lazy", "dog"}
    # Alone in another folder it gives the same text.
    moved = tmp_path / "elsewhere" / "n.wavasr"
    moved.parent.mkdir()
    moved.write_bytes(model.read_bytes())
    expected = transcribe(speech, model).text
    for path in (model, lm, words, others):
        path.unlink()
    assert transcribe(speech, moved).text == expected


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "lm.bin"])
def test_every_kind_of_language_model_in_a_model_file(
    name: str, tiny_model: Path, speech: Path, tmp_path: Path
) -> None:
    model, lm = tmp_path / "m.wavasr", tmp_path / f"x.{name}"
    if name == "lm.bin":
        lm = Path(__file__).parent / "kenlm-trie.bin"
    else:
        write_arpa(estimate(["the fox", "the lazy dog"], order=2), lm)
    change_model(tiny_model, model, language=language_parts(None, lm))
    found = language_of(model).lm
    assert found is not None and found.part == name and vocabulary(found) == vocabulary(lm)
    expected = transcribe(speech, tiny_model, decoder=DecodingConfig(lm=lm)).text
    assert transcribe(speech, model).text == expected
    content = bytearray(model.read_bytes())
    content[content.index(lm.read_bytes()[:100]) + 99] ^= 1
    model.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.wavasr: is damaged \(.*lm\..*\); copy or make it again"):
        transcribe(speech, model)


def test_a_named_language_model_brings_its_own_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a lexicon that was not named come the pronunciations only; what has none is told, and hotwords stay."""
    units, path = Units("phones", (BLANK, "AE", "B", "K", "T")), tmp_path / "few.arpa"
    lexicon = tmp_path / "model.lexicon.txt"
    lexicon.write_text("cat  K AE T\nbat  B AE T\ntab  T AE B\n", encoding="utf-8")
    write_arpa(estimate(["the cat tab", "cat"], order=2), path)
    config = DecodingConfig(lm=path, lexicon=lexicon)

    def text(**changes: Any) -> str:
        decoder = lm_decoder(replace(config, **changes), units, TEXT)
        assert decoder is not None
        return decoder(spoken("B AE T", units, doubt=0.1)).text(units)

    assert text() == "bat"
    with caplog.at_level(logging.INFO, logger="wavasr"):
        assert text(lm_words_only=True) in ("cat", "tab")
    assert "1 of its 3 words" in caplog.text and "'the'" in caplog.text
    assert text(lm_words_only=True, hotwords=("bat",)) == "bat"
    lexicon.write_text("bat  B AE T\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="share no word"):
        lm_decoder(replace(config, lm_words_only=True), units, TEXT)


def test_words_that_the_language_model_does_not_tell_apart(tmp_path: Path) -> None:
    """Dictionaries have boys and boys' and Boys; as one word they are written as the language model has it."""
    units, lm, lexicon = Units("phones", (BLANK, "AE", "B", "K", "T")), tmp_path / "lm.arpa", tmp_path / "words.txt"
    lexicon.write_text("Bat'  T AE B\nbat  B AE T\nBAT  K AE T\nCAB'  K AE B\nCab  K AE\n", encoding="utf-8")
    write_arpa(estimate(["the bat", "cab"], order=2), lm)
    decoder = lm_decoder(DecodingConfig(lm=lm, lexicon=lexicon), units, TEXT)
    assert decoder is not None and decoder.words == ["bat", "cab"]
    for phones, word in (("T AE B", "bat"), ("B AE T", "bat"), ("K AE T", "bat"), ("K AE B", "cab"), ("K AE", "cab")):
        assert decoder(spoken(phones, units, doubt=0.01)).text(units) == word


@pytest.mark.parametrize("kind", ["phones", "characters"])
def test_words_that_the_language_model_does_not_know(kind: str, tmp_path: Path) -> None:
    """They are as probable as its least probable word, not as all unknown words together; hotwords have their boost."""
    lm, lexicon = tmp_path / "lm.arpa", tmp_path / "words.txt"
    write_arpa(estimate(["ab ab ab ab ba", "ab ba ab x y z"], order=2, words=2), lm)
    arpa = read_arpa(lm)
    assert arpa["<unk>",][0] < arpa["ba",][0]
    fat = lm.read_text(encoding="utf-8").replace(f"{arpa['<unk>',][0]:.5g}\t<unk>", "-0.1\t<unk>")
    lm.write_text(fat, encoding="utf-8")
    if kind == "phones":
        units = Units("phones", (BLANK, "A", "B"))
        lexicon.write_text("ab  A B\nba  B A\nbb  B B\nb  B\nbeh  B\naab  A A B\n", encoding="utf-8")
    else:
        units = Units.characters(["a b"])
        lexicon.write_text("ab\nba\nbb\nb\naab\n", encoding="utf-8")
    config = DecodingConfig(lm=lm, lexicon=lexicon, lm_weight=0.5, word_score=0.0, beam=WIDE)
    decoder = lm_decoder(config, units, TEXT)
    assert decoder is not None
    for said, word in (("B B", "bb"), ("B", "b"), ("A A B", "aab"), ("B A", "ba"), ("A B", "ab")):
        values = spoken(said if kind == "phones" else said.replace(" ", "").lower(), units, doubt=1e-4)
        found = decoder(values)
        assert found.text(units) == word
        known = word if word in ("ab", "ba") else "ba"
        expected = ctc_log_probs(values, [found.ids])[0] + 0.5 * sentence_nats(arpa, (known,))
        assert found.score == pytest.approx(expected, abs=1e-3)
    boosted = lm_decoder(replace(config, hotwords=("bb",), hotword_boost=9.0), units, TEXT)
    assert boosted is not None
    mumbled = spoken("B B" if kind == "phones" else "bb", units, doubt=0.3)
    assert boosted(mumbled).text(units) == "bb"


def test_a_model_stands_for_what_it_carries(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default, model, lexicon = Path("default"), tmp_path / "m.wavasr", tmp_path / "words.txt"
    lexicon.write_text("a  AH\n", encoding="utf-8")
    change_model(tiny_model, model, language=language_parts(lexicon, None))
    shipped, own = language_of(resolve("default")), language_of(model)
    config = complete(DecodingConfig(lm=default, lexicon=default), model)
    assert (config.lm, config.lexicon) == (shipped.lm, shipped.lexicon)
    assert (config.lm_weight, config.word_score, config.blank_penalty) == tuple(shipped.weights.values())
    assert complete(DecodingConfig(), model).lexicon == own.lexicon
    assert complete(DecodingConfig(lexicon=model), None).lexicon == own.lexicon
    assert complete(DecodingConfig(lexicon=NOTHING), model).lexicon is None
    for other in (Path("defualt"), Path("x") / "default", lexicon):
        assert complete(DecodingConfig(lexicon=other), model).lexicon == other
    with pytest.raises(ConfigError, match=r"m\.wavasr: this model carries no such file"):
        complete(DecodingConfig(lm=model), None)
    default.write_text("a  AH\n", encoding="utf-8")
    assert complete(DecodingConfig(lexicon=default), model).lexicon == default, "a file is itself"


def test_without_a_language_model_few_long_words_win(tmp_path: Path) -> None:
    """Nothing else would tell cat from two words of its phones; a score that is named holds."""
    units, lexicon = Units("phones", (BLANK, "AE", "K", "T")), tmp_path / "words.txt"
    lexicon.write_text("cat  K AE T\nka  K AE\nt  T\n", encoding="utf-8")

    def text(**named: float) -> str:
        decoder = lm_decoder(DecodingConfig(lexicon=lexicon, **named), units, TEXT)
        assert decoder is not None
        return decoder(spoken("K AE T", units, doubt=0.1)).text(units)

    assert text() == "cat"
    assert text(word_score=1.5) == "ka t"


def test_more_homophones_than_the_search_can_hold(tmp_path: Path) -> None:
    """Of words that sound alike the most frequent stay, without a word of complaint."""
    names = [f"w{number}" for number in range(9)]
    lexicon, lm = tmp_path / "lexicon.txt", tmp_path / "lm.arpa"
    lexicon.write_text("".join(f"{name} AA B\n" for name in names), encoding="utf-8")
    write_arpa(estimate([name for number, name in enumerate(names) for _ in range(1 + number)], order=2), lm)
    units = Units.phones(["AA", "B"])
    values = np.log(np.array([[0.02, 0.96, 0.02], [0.02, 0.02, 0.96], [0.9, 0.05, 0.05]], np.float32))
    decoder = lm_decoder(DecodingConfig(lm=lm, lexicon=lexicon, n_best=6), units, TextConfig())
    assert decoder is not None
    texts = [one.text(units) for one in decoder(values).alternatives]
    assert texts == names[:2:-1]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often models, language models and lexicons are read."""
    counts: Counter[str] = Counter()

    def counted(module: str, name: str) -> None:
        real = getattr(sys.modules[module], name)

        def read(*args: object) -> object:
            counts[name] += 1
            return real(*args)

        monkeypatch.setattr(f"{module}.{name}", read)

    counted("wavasr.recognition.models", "load_acoustic_model")
    counted("wavasr.decoding.factory", "read_language_model")
    counted("wavasr.decoding.factory", "word_list")
    return counts


def arpa(path: Path, sentences: list[str]) -> Path:
    write_arpa(estimate(sentences, order=2), path)
    return path


def test_what_was_read_is_kept_until_it_changes(
    tiny_model: Path, speech: Path, tmp_path: Path, reads: Counter[str]
) -> None:
    model, lm = tmp_path / "m.wavasr", arpa(tmp_path / "lm.arpa", ["the fox", "the lazy dog"])
    change_model(tiny_model, model, language=language_parts(None, lm))
    first = transcribe(speech, model)
    assert transcribe(speech, str(model)).text == first.text and transcribe(speech, model).text == first.text
    assert reads == {"load_acoustic_model": 1, "read_language_model": 1, "word_list": 1}
    # Another configuration needs another search, but what was read stays.
    assert len(transcribe(speech, model, decoder=DecodingConfig(n_best=2)).alternatives) == 2
    weights = transcribe(speech, model, decoder=DecodingConfig(lm_weight=0.0, word_score=-9.0))
    assert weights.text != first.text and transcribe(speech, model).text == first.text
    assert reads == {"load_acoustic_model": 1, "read_language_model": 1, "word_list": 1}
    change_model(model, decoding={"lm_weight": 0.0, "word_score": -9.0})
    assert transcribe(speech, model).text == weights.text
    other = arpa(tmp_path / "lm.arpa", ["brown"])
    named = DecodingConfig(lm=other)
    for _ in range(2):
        assert set(transcribe(speech, model, decoder=named).text.split()) <= {"brown"}
    assert reads == {"load_acoustic_model": 2, "read_language_model": 3, "word_list": 3}
    arpa(other, ["over"])
    assert set(transcribe(speech, model, decoder=named).text.split()) <= {"over"}
    assert reads == {"load_acoustic_model": 2, "read_language_model": 4, "word_list": 4}
    change_model(model, language={})
    assert transcribe(speech, model) == transcribe(speech, model, decoder=GREEDY)
    assert reads["load_acoustic_model"] == 3


def test_a_decoder_goes_with_its_model(tiny_model: Path, speech: Path, tmp_path: Path, reads: Counter[str]) -> None:
    lm = arpa(tmp_path / "m.lm.arpa", ["the fox", "the lazy dog"])
    model = load_acoustic_model(tiny_model)
    for _ in range(2):
        transcribe(speech, model, decoder=DecodingConfig(lm=lm))
    assert reads["read_language_model"] == 1
    decoder = weakref.ref(decoder_of(DecodingConfig(lm=lm), model=model))
    gc.collect()
    assert decoder() is not None
    del model
    gc.collect()
    assert decoder() is None


def test_threads_share_a_decoder(tiny_model: Path, tmp_path: Path, reads: Counter[str]) -> None:
    model = load_acoustic_model(tiny_model)
    config = DecodingConfig(lm=arpa(tmp_path / "m.lm.arpa", ["the fox", "the lazy dog"]), hotwords=("lazy dog",))
    inputs = [lattice(60 + seed, len(model.units), seed, sharpness=2.0) for seed in range(12)]
    alone = [decoder_of(config, model=model)(values) for values in inputs]
    other = load_acoustic_model(tiny_model)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda values: decoder_of(config, model=other)(values), inputs))
    assert found == alone
    assert reads["read_language_model"] == 2


def test_a_damaged_language_model_is_told_each_time(tiny_model: Path, speech: Path, tmp_path: Path) -> None:
    lm = tmp_path / "m.lm.arpa"
    lm.write_text("\\data\\\nnothing", encoding="utf-8")
    model = tmp_path / "m.wavasr"
    change_model(tiny_model, model, language={"lm.arpa": lm})
    for _ in range(2):
        with pytest.raises(TextError, match=r"m\.wavasr \(lm\.arpa\)"):
            transcribe(speech, model)


BINARIES = ("kenlm-probing.bin", "kenlm-trie.bin")  # of the fixture `lm`, by KenLM's `build_binary TYPE lm.arpa FILE`


@pytest.mark.parametrize("name", BINARIES)
@pytest.mark.parametrize("seed", range(3))
def test_a_binary_gives_what_its_arpa_gives(lm: Path, tmp_path: Path, name: str, seed: int) -> None:
    binary = Path(__file__).with_name(name)
    assert sorted(vocabulary(binary)) == sorted(vocabulary(lm))
    words = tmp_path / "words.txt"
    words.write_text("a\nb\nab\nbab\n", encoding="utf-8")  # the order of the words decides between equal scores
    values = lattice(12, len(CHARACTERS), seed)
    config = DecodingConfig(beam=WIDE, n_best=5, lexicon=words, lm_weight=0.7, word_score=0.5)
    found = [lm_decoder(replace(config, lm=path), CHARACTERS, TEXT) for path in (lm, binary)]
    assert found[0] is not None and found[1] is not None
    assert found[0](values) == found[1](values)
    own = lm_decoder(DecodingConfig(lm=binary), CHARACTERS, TEXT)
    assert own is not None and sorted(own.words) == ["a", "ab", "b", "bab"]


@pytest.mark.parametrize("name", BINARIES)
def test_a_damaged_binary_is_one_line(tmp_path: Path, name: str) -> None:
    whole = Path(__file__).with_name(name).read_bytes()
    path = tmp_path / "bad.bin"
    wrong_machine = whole[:64] + b"\0\0\0\0" + whole[68:]
    damaged = {
        whole[:49] + b"4" + whole[50:]: "of another version, or an unfinished one",
        whole[:33] + b" incomplete\n" + bytes(len(whole)): "of another version, or an unfinished one",
        whole[:100] + b"\0" + whole[101:]: "without its words; build it anew, without build_binary's -v",
        wrong_machine: "is no usable language model: .*test values don't match",
        **{whole[:length]: "cut off|of another version" for length in range(40, len(whole))},
    }
    for content, message in damaged.items():
        path.write_bytes(content)
        with pytest.raises(TextError, match=message) as caught:
            lm_decoder(DecodingConfig(lm=path), CHARACTERS, TEXT)
        assert "\n" not in str(caught.value) and "bad.bin" in str(caught.value)


def test_a_narrow_beam_finds_the_same_every_time(tmp_path: Path) -> None:
    """Though flashlight ranks equal scores by address; no two words are worth the same here."""
    generator = random.Random(3)
    units = Units.phones([f"P{number}" for number in range(6)])
    words = {f"w{number}": generator.choices(units.symbols[1:], k=generator.randint(2, 4)) for number in range(150)}
    lexicon, lm = tmp_path / "lexicon.txt", tmp_path / "lm.arpa"
    lexicon.write_text("".join(f"{word}  {' '.join(phones)}\n" for word, phones in words.items()), encoding="utf-8")
    entries = "".join(f"{generator.uniform(-3, -1):.5f}\t{word}\t-0.1\n" for word in ("<unk>", "</s>", *words))
    lm.write_text(
        f"\\data\\\nngram 1={len(words) + 3}\nngram 2=1\n\n\\1-grams:\n-99\t<s>\t-0.1\n{entries}\n"
        "\\2-grams:\n-0.5\tw0 w1\n\n\\end\\\n",
        encoding="utf-8",
    )
    decoder = lm_decoder(DecodingConfig(beam=6, lm=lm, lexicon=lexicon, lm_weight=0.5), units, TEXT)
    assert decoder is not None
    for seed in range(6):
        values = lattice(50, len(units), seed)
        held = []  # memory that the next search cannot get, so that its addresses are others
        for _ in range(5):
            held.append((decoder(values), [bytes(generator.randint(16, 200)) for _ in range(2000)]))
            del held[-1][1][::2]
        assert len({found for found, _ in held}) == 1


@pytest.mark.parametrize("name", ["plain-sentence.flac", "plain-sentence-2.mp3", "telephone-number.wav", "rubout.ogg"])
def test_surely_blank_frames_change_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What they spare the search, and the pieces that they cut results into, beside the whole of both."""
    model = load_acoustic_model("default")
    values = log_probs_of(model, load_audio(SAMPLES / name, model.sample_rate))
    decode = decoder_of(DecodingConfig(n_best=3), model=model)
    found = decode(values)
    assert (values[:, 0] > math.log(decoding_lm._SURELY)).mean() > 0.3
    monkeypatch.setattr(decoding_lm, "_SURELY", 1.0)
    whole = decode(values)
    assert found.words == whole.words
    assert found.spans == whole.spans
    assert found.confidences == pytest.approx(whole.confidences)
    scores = [[one.score for one in hypothesis.alternatives] for hypothesis in (found, whole)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_results_are_cut_between_words_of_all_of_them() -> None:
    sure = np.array([True] * 4 + [False] * 8 + [True] * 4)
    one = _Found(
        (1, 2, 3), ((0, 0, 2), (1, 2, 3)), 0.0, (7, 12), _pauses([0] * 4 + [1, 0, 2, 0, 3, 3, 3, 3] + [0] * 4, (7, 12))
    )
    other = replace(
        one, ids=(1, 2), words=((2, 0, 2),), ends=(14,), pauses=_pauses([0] * 5 + [1] * 8 + [2, 0, 0], (14,))
    )
    assert one.pauses.tolist() == [True] * 4 + [False] * 3 + [True] + [False] * 4 + [True] * 4
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding_lm, "_PIECE_FRAMES", 3)
        cuts = _cuts([one, other], sure)
    assert cuts == [0, 3, 14, 16]
    assert one.pieces(cuts) == [Piece(0, 3, ()), Piece(3, 14, (1, 2, 3)), Piece(14, 16, ())]
    assert one.pieces([0, 7, 16]) == [Piece(0, 7, (1, 2)), Piece(7, 16, (3,))]


def test_thorough_keeps_the_speed_whose_words_cost_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each speed decoded by hand; the one kept is that of the transcript, whose times stay those of the recording."""
    model = load_acoustic_model("default")
    plain, thorough = (decoder_of(DecodingConfig(thorough=each), model=model) for each in (False, True))
    chosen = set()
    for name in ("plain-sentence.flac", "plain-sentence-2.mp3", "six-microphones.flac", "street.opus", "date.flac"):
        waveform = load_audio(SAMPLES / name, model.sample_rate)
        others = [log_probs_of(model, change_speed(waveform, speed)) for speed in OTHER_SPEEDS]
        versions = [log_probs_of(model, waveform), *others]
        costs = [greedy(values).score - plain(values).score for values in versions]
        best = int(np.argmin(costs))
        chosen.add(best)
        expected = plain(versions[best])
        found = thorough(tuple(versions))
        assert found.words == expected.words
        assert found.frames == len(versions[0])
        ratio = len(versions[0]) / len(versions[best])
        np.testing.assert_allclose(found.spans, np.array(expected.spans) * ratio, atol=1.01)
        said = transcribe(SAMPLES / name, model, decoder=thorough)
        assert said.text == expected.text(model.units) == recognise(model, [waveform], thorough)[0].text(model.units)
    assert len(chosen) > 1


def test_a_longer_or_shorter_recording_keeps_every_label() -> None:
    spans = ((0, 1), (1, 2), (4, 9), (9, 10))
    found = Hypothesis((1, 2, 1, 3), -1.0, spans, (0.5,) * 4, 10)
    assert found.stretched(20).spans == ((0, 2), (2, 4), (8, 18), (18, 20))
    assert found.stretched(5).spans == ((0, 1), (1, 2), (2, 4), (4, 5))
    assert found.stretched(4).spans == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert found.stretched(10) == found


def test_thorough_without_words_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = load_acoustic_model("default")
    config = DecodingConfig(lm=Path(NOTHING), lexicon=Path(NOTHING), thorough=True)
    with caplog.at_level(logging.WARNING, logger="wavasr"):
        assert isinstance(decoder_of(config, model), GreedyDecoder)
    assert "thorough" in caplog.text


def test_very_long_words_and_phrases_do_not_end_the_process(tmp_path: Path) -> None:
    lexicon, letters = tmp_path / "lexicon.txt", tmp_path / "letters.txt"
    lexicon.write_text(f"a  X\nb  {'Y X ' * 60_000}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"lexicon\.txt: 'b' has 120000 phones; expected 1000 or fewer"):
        lm_decoder(DecodingConfig(lexicon=lexicon), PHONES, TEXT)
    letters.write_text(f"a\n{'ab' * 60_000}\n", encoding="utf-8")
    assert lm_decoder(DecodingConfig(lexicon=letters), CHARACTERS, TEXT).words == ["a"]
    for config in (
        DecodingConfig(hotwords=("a " * 60_000,)),
        DecodingConfig(hotwords=("a " * 60_000,), lexicon=letters),
    ):
        with pytest.raises(ConfigError, match=r"hotword 'a a .* is too long; give words or short phrases"):
            lm_decoder(config, CHARACTERS, TEXT)
