"""The decoder with words and a language model against the enumeration of every path, and against a second library."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections import defaultdict
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wavasr import decoding_lm
from wavasr.config import DecodingConfig, TextConfig
from wavasr.decoding import Hypothesis, prefix_beam
from wavasr.decoding_lm import Phrases, ctc_log_probs, lm_decoder
from wavasr.errors import ConfigError, TextError
from wavasr.lm import estimate, prune, weights_path, write_arpa
from wavasr.text import BLANK, Units

TEXT = TextConfig()
WIDE = 5000


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
        words: heard + weight * sentence_nats(arpa, words) + score * len(words)
        for words, heard in every_sentence(values, CHARACTERS, spellings).items()
    }
    config = DecodingConfig(beam=WIDE, n_best=5, lm=lm, lm_weight=weight, word_score=score)
    decoder = lm_decoder(config, CHARACTERS, TEXT)
    assert decoder is not None
    check(decoder(values), CHARACTERS, expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_pronunciations_against_every_path(lm: Path, tmp_path: Path, seed: int, sharpness: float) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("a  X\nb  Y\nab  X Y X\nbab  Y Y\n", encoding="utf-8")
    spellings = {"a": [(1,)], "b": [(2,)], "ab": [(1, 2, 1)], "bab": [(2, 2)]}
    values = lattice(7, 3, seed, sharpness)
    arpa = read_arpa(lm)
    expected = {
        words: heard + 0.7 * sentence_nats(arpa, words) + 0.3 * len(words)
        for words, heard in every_sentence(values, PHONES, spellings).items()
    }
    config = DecodingConfig(beam=WIDE, n_best=4, lm=lm, lexicon=lexicon, lm_weight=0.7, word_score=0.3)
    decoder = lm_decoder(config, PHONES, TEXT)
    assert decoder is not None
    assert decoder.spells_words
    check(decoder(values), PHONES, expected)


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
