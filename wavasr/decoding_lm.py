"""Beam search with a word list or pronunciations, an n-gram language model and hotwords, on flashlight-text.

    log-probabilities -> flashlight's search over a trie of spellings -> word sequences -> `Hypothesis`

A hypothesis scores, in nats,

    log P(its labels | audio) + lm_weight * log P(its words) + word_score * (number of words) + boosts of its hotwords

where P(labels | audio) is the sum over all CTC paths (Graves et al. 2006, arXiv 1609.03193 for the search). Before that
each label's probability is divided by the square root of its prior, where the model file tells it, and the blank gets
`blank_penalty` nats less: a trained network prefers what is frequent, blanks above all, and words would be left out.
Without a word list the search is over the units themselves: phones with a model of phones, or hotwords alone.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavasr.config import NOTHING, DecodingConfig, TextConfig
from wavasr.decoding import Hypothesis, LogProbs, best_path, checked, penalised
from wavasr.hotwords import LanguageScore, biased, read_language_model
from wavasr.lm import Weights, tuned_weights, vocabulary, weights_path
from wavasr.modelfile import LEXICON_SUFFIX, LM_SUFFIXES, SUFFIX, asset, companion
from wavasr.runtime import Shelf, stamp
from wavasr.searchtree import Read, SearchTree
from wavasr.text import Units, ctc_frames_needed
from wavasr.wordlist import WordList, word_list

DEFAULT_BEAM = 500  # 6 points of WER better than 64 on LibriSpeech dev with the model `default`; 1000 another point
_FREE_HOTWORD_BEAM = 100  # without a list of words the scores of hotwords are made in Python
DEFAULT_WEIGHTS = Weights(0.4, 1.5)  # near the best on AN4 dev
_BEAM_THRESHOLD = 15.0  # nats behind the best hypothesis at which one is given up
_COPIED_BEAM_THRESHOLD = 9.0  # where labels have copies: as good as 10.5 on LibriSpeech dev, in 3/4 of the time
_COLUMNS_A_FRAME = 24  # as good as 64 on LibriSpeech dev, in half the time
_COPIED_COLUMNS_A_FRAME = 16  # likewise; as good as 24, in four fifths of the time
_BLANK = 0
_SCALED_FRAMES = 4  # a forward pass is scaled each so many, before its probabilities underflow
_NATS = math.log(10)  # KenLM's logarithms are decimal

log = logging.getLogger("wavasr")


def complete(config: DecodingConfig, model: Path | None) -> DecodingConfig:
    """The configuration with the language model and the lexicon that lie beside a model file, unless it says others.

    The name of a shipped model ("default") stands for what lies beside that. A language model that is named alone
    brings its own words: from the lexicon beside the model come their spellings.
    """
    named_alone = config.lm not in (None, NOTHING) and config.lexicon is None
    lm = _beside_shipped(config.lm, *LM_SUFFIXES) or companion(model, *LM_SUFFIXES)
    lexicon = _beside_shipped(config.lexicon, LEXICON_SUFFIX) or companion(model, LEXICON_SUFFIX)
    return replace(
        config,
        lm=None if lm == NOTHING else lm,
        lexicon=None if lexicon == NOTHING else lexicon,
        lm_words_only=config.lm_words_only or named_alone,
    )


def _beside_shipped(path: Path | None, *suffixes: str) -> Path | None:
    """A path as it is; for the name of a shipped model, which is no file, what lies beside that."""
    if path is None or path.is_file():
        return path
    shipped = companion(asset(f"{path}{SUFFIX}"), *suffixes) if path.name == str(path) else None
    return shipped or path


def lm_decoder(
    config: DecodingConfig,
    units: Units,
    text: TextConfig,
    shelf: Shelf | None = None,
    priors: tuple[float, ...] | None = None,
) -> LMDecoder | None:
    """The decoder that `config` asks for, or None, with a warning, where a language model or the library is missing.

    Args:
        config: with a language model, a lexicon or hotwords.
        units: the model's inventory.
        text: the model's spelling.
        shelf: the model's, where a decoder of the same files and configuration may be, or what was read for another
            configuration; what is made here stays there.
        priors: of the labels, see `decoding.penalised`.

    Raises:
        TextError: the language model is damaged.
        CorpusError: the lexicon is missing or damaged.
        ConfigError: the parts do not fit together, or a hotword cannot be spelled.
    """
    if config.lm and not config.lm.is_file():
        log.warning("%s: no such language model; going on without it (wavasr lm build makes one)", config.lm)
        config = replace(config, lm=None)
    if not config.searches:
        return None
    try:
        import flashlight.lib.text.decoder.kenlm  # noqa: F401
    except ImportError as error:
        log.warning("no language model, lexicon or hotwords: flashlight-text is missing (%s); pip install it", error)
        return None
    shelf = shelf or Shelf()
    files = config.lm, stamp(config.lm), config.lexicon, stamp(config.lexicon)
    key = config, files, stamp(config.lm and weights_path(config.lm)), priors
    return shelf.get("decoder", key, lambda: _new_decoder(config, files, units, text, shelf, priors))


def _new_decoder(
    config: DecodingConfig,
    files: Hashable,
    units: Units,
    text: TextConfig,
    shelf: Shelf,
    priors: tuple[float, ...] | None,
) -> LMDecoder:
    def read() -> tuple[WordList | None, Any]:
        words = word_list(config, units, text)
        return words, read_language_model(config.lm, units, words)

    words, lm = shelf.get("language", (files, config.lm_words_only, config.hotwords), read)
    return LMDecoder(units, words, LanguageScore.of(config, lm, units, words, text), config, priors)


@dataclass(frozen=True)
class _Found:
    """One result of the search: labels, words as (number, first label, end) and a score."""

    ids: tuple[int, ...]
    words: tuple[tuple[int, int, int], ...]
    score: float


class LMDecoder:
    """Log-probabilities (T, V) to the best `Hypothesis`, the n best in its `alternatives`.

    Where the search is not exact (see `SearchTree`), the exact score of each result puts that right.

    Threads may share it: each call searches by itself.
    """

    def __init__(
        self,
        units: Units,
        words: WordList | None,
        score: LanguageScore,
        config: DecodingConfig,
        priors: tuple[float, ...] | None = None,
    ) -> None:
        self._units = units
        self._priors = priors
        self._words = words
        self._score = score
        self._config = config
        self.weights = self._chosen_weights()
        self._tree = SearchTree(units, words, score.hotwords, self._new_lm(), self._lm_scale) if words else None
        self._copied = self._tree is not None and self._tree.copied
        self._has_phrases = self._tree is not None and self._tree.has_phrases
        self._scored_again = self._copied or self._has_phrases

    def with_weights(self, weights: Weights) -> LMDecoder:
        """The same decoder with other weights; the language model and the words are shared."""
        other = object.__new__(LMDecoder)
        other.__dict__.update(self.__dict__)
        other.weights = weights
        return other

    @property
    def spells_words(self) -> bool:
        """Whether phones come out as words."""
        return self._units.is_phones and self._words is not None

    @property
    def description(self) -> str:
        """What decodes, in words, for reports."""
        config = self._config
        parts = [f"beam of {self._beam}"]
        if config.lm:
            weight, score, penalty = self.weights
            parts.append(
                f"language model {config.lm.name} (weight {weight:g}, word score {score:g}, blank penalty {penalty:g})"
            )
        if config.lexicon:
            parts.append(f"lexicon {config.lexicon.name}")
        if self._priors:
            parts.append("labels over the root of their priors")
        if config.hotwords:
            parts.append(f"{len(config.hotwords)} hotwords (boost {config.hotword_boost:g})")
        return ", ".join(parts)

    @property
    def word_source(self) -> str:
        """What lists the words that may come out, for reports; "" where the units are searched freely."""
        if self._words is None:
            return ""
        config = self._config
        if config.lexicon and not config.only_lm_words:
            return f"lexicon {config.lexicon.name}"
        return f"language model {config.lm.name}" if config.lm else ""

    @property
    def words(self) -> Sequence[str]:
        """The words that may come out; empty where the units are searched freely."""
        return self._words.words if self._words else ()

    def unigrams(self) -> dict[str, float]:
        """Probabilities of the words with nothing before them, of those that the language model knows."""
        config, words = self._config, self._words
        if words is None or config.lm is None:
            return {}
        # Without a lexicon and hotwords the list is the language model's own.
        known = set(vocabulary(config.lm)) if config.lexicon or config.hotwords else None
        start = self._score.lm.start(True)
        return {
            word: 10 ** float(self._score.lm.score(start, number)[1])
            for number, (word, name) in enumerate(zip(words.words, words.names, strict=True))
            if known is None or name in known
        }

    def _chosen_weights(self) -> Weights:
        """As configured; else as tuned beside the language model; else the defaults."""
        weights = DEFAULT_WEIGHTS if self._words else DEFAULT_WEIGHTS._replace(word_score=0.0)
        if self._config.lm:
            weights = tuned_weights(self._config.lm) or weights
        given = {name: getattr(self._config, name) for name in Weights._fields}
        return weights._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def _beam(self) -> int:
        slow = self._score.hotwords and self._words is None
        return self._config.beam or (_FREE_HOTWORD_BEAM if slow else DEFAULT_BEAM)

    @property
    def _is_zero(self) -> bool:
        return self._score.is_zero or self.weights.lm_weight == 0

    @property
    def _lm_scale(self) -> float:
        """Nats of a unit of the language model's logarithms, weighted."""
        return 1.0 if self._is_zero else self.weights.lm_weight * _NATS

    def _new_lm(self) -> Any:
        """The language model as flashlight takes it; without words with hotwords' and units' bonus, for one search."""
        from flashlight.lib.text.decoder import ZeroLM

        lm = ZeroLM() if self._is_zero else self._score.lm
        if self._words is None and (self._score.hotwords or self.weights.word_score):
            return biased(lm, self._score.hotwords, self.weights.word_score, 1.0 / self._lm_scale)
        return lm

    def _new_search(self, lm: Any) -> Any:
        """A search, which holds the state of one recording; `lm` has to be kept beside it."""
        from flashlight.lib.text import decoder as flashlight

        tree = self._tree
        columns = (_COPIED_COLUMNS_A_FRAME if self._copied else _COLUMNS_A_FRAME) + (tree.extra if tree else 0)
        options: dict[str, Any] = {
            "beam_size": self._beam,
            "beam_size_token": min(tree.columns if tree else len(self._units), columns),
            "beam_threshold": _COPIED_BEAM_THRESHOLD if self._copied else _BEAM_THRESHOLD,
            "lm_weight": self._lm_scale,
            "sil_score": 0.0,
            "log_add": True,
            "criterion_type": flashlight.CriterionType.CTC,
        }
        if tree is None:
            free = flashlight.LexiconFreeDecoderOptions(**options)
            return flashlight.LexiconFreeDecoder(free, lm, _BLANK, _BLANK, [])
        chosen = flashlight.LexiconDecoderOptions(word_score=self.weights.word_score, unk_score=-math.inf, **options)
        return flashlight.LexiconDecoder(chosen, tree.trie, lm, tree.silence, _BLANK, -1, [], False)

    def __call__(self, log_probs: LogProbs) -> Hypothesis:
        """Decode (T, V) natural log-probabilities, label 0 the blank; T may be 0.

        Raises:
            ModelError: the log-probabilities are not numbers.
        """
        values = checked(log_probs)
        searched = penalised(values, self.weights.blank_penalty, self._priors)
        n_best = self._config.n_best
        found = self._ranked(searched, self._results(searched)) if len(values) else []
        hypotheses = [self._hypothesis(values, one) for one in found[:n_best]]
        if not hypotheses:
            return Hypothesis((), 0.0, (), (), len(values))
        return replace(hypotheses[0], alternatives=tuple(hypotheses) if n_best > 1 else ())

    def _results(self, values: NDArray[np.float32]) -> list[_Found]:
        """What flashlight finds, equal results joined, best first.

        Where they are scored again (`_ranked`), the score is only what language model, words and hotwords make of them.
        """
        tree = self._tree
        emissions = tree.emissions(values) if tree else np.ascontiguousarray(values)
        lm = self._new_lm()
        results = self._new_search(lm).decode(emissions.ctypes.data, *emissions.shape)
        joined: dict[Read, float] = {}
        for result in results[: 4 * self._config.n_best + 8]:
            read = tree.read(result) if tree else _read_freely(result)
            if self._scored_again:
                said = self._sentence_score(lm, read.searched_as) if self._has_phrases else result.lmScore
                words = self.weights.word_score * len(read.words)
                joined.setdefault(read, self._lm_scale * said + words + read.nats)
            else:
                joined[read] = float(np.logaddexp(joined.get(read, -math.inf), result.score))
        found: dict[tuple[Any, ...], _Found] = {}
        for read, score in joined.items():  # a phrase can be found as such, and as its words
            key = read.ids, read.words
            if key not in found or score > found[key].score:
                found[key] = _Found(read.ids, read.words, score)
        return list(found.values())

    @staticmethod
    def _sentence_score(lm: Any, numbers: Sequence[int]) -> float:
        state, total = lm.start(False), 0.0
        for number in numbers:
            state, score = lm.score(state, number)
            total += score
        return total + float(lm.finish(state)[1])

    def _ranked(self, values: NDArray[np.float32], found: Sequence[_Found]) -> list[_Found]:
        """The results with their whole score, best first; ways to say the same words are joined."""
        if self._scored_again:
            heard = ctc_log_probs(values, [one.ids for one in found])
            found = [replace(one, score=one.score + more) for one, more in zip(found, heard, strict=True)]
        found = sorted(found, key=lambda one: (-one.score, one.ids, one.words))
        joined: dict[tuple[Any, ...], _Found] = {}
        for one in found:
            if len(values) < ctc_frames_needed(one.ids) or one.score == -math.inf:
                continue
            key = tuple(number for number, _, _ in one.words) if self._words else one.ids
            best = joined.get(key)
            joined[key] = one if best is None else replace(best, score=float(np.logaddexp(best.score, one.score)))
        return sorted(joined.values(), key=lambda one: -one.score)

    def _hypothesis(self, values: NDArray[np.float32], found: _Found) -> Hypothesis:
        spans, confidences = best_path(values, found.ids)
        words = None
        if self._words is not None and self._copied and self._units.kind != "sentencepiece":
            # The labels do not tell where words begin.
            words = tuple((self._words.words[number], first, end) for number, first, end in found.words)
        return Hypothesis(found.ids, found.score, spans, confidences, len(values), words)


def _read_freely(result: Any) -> Read:
    """What a result of the search without a word list says."""
    return Read(tuple(label for label, _ in itertools.groupby(result.tokens[1:-1]) if label))


def ctc_log_probs(log_probs: NDArray[np.float32], labellings: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability of each labelling, summed over all its CTC paths: the forward pass (Graves et al. 2006, eq. 6).

    Args:
        log_probs: (T, V) natural log-probabilities, label 0 the blank; T at least 1.
        labellings: labels without blanks.
    """
    if not labellings:
        return []
    states = 2 * max(map(len, labellings)) + 1
    spelled = np.full((len(labellings), states), _BLANK)
    for row, ids in zip(spelled, labellings, strict=True):
        row[1 : 2 * len(ids) : 2] = ids
    skips = np.zeros(spelled.shape)  # into a label from the one before it, when they differ
    skips[:, 3::2] = spelled[:, 3::2] != spelled[:, 1:-2:2]
    alpha = np.zeros(spelled.shape)
    alpha[:, 0] = 1.0
    total = np.zeros(len(labellings))
    with np.errstate(divide="ignore"):
        for t, frame in enumerate(np.exp(log_probs.astype(np.float64))):
            moved = alpha.copy()
            moved[:, 1:] += alpha[:, :-1]
            if t:
                moved[:, 2:] += alpha[:, :-2] * skips[:, 2:]
            moved *= frame[spelled]
            alpha = moved
            if t % _SCALED_FRAMES == 0:
                scale = alpha.sum(axis=1, keepdims=True)
                total += np.log(scale[:, 0])
                alpha = np.divide(alpha, scale, out=alpha, where=scale > 0)  # what is impossible stays 0
    ends = [
        alpha[row, 2 * len(ids)] + (alpha[row, 2 * len(ids) - 1] if ids else 0.0) for row, ids in enumerate(labellings)
    ]
    with np.errstate(divide="ignore"):
        return [float(score) for score in total + np.log(ends)]
