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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavasr.config import NOTHING, DecodingConfig, TextConfig
from wavasr.decoding import Hypothesis, LogProbs, best_path, checked, penalised
from wavasr.hotwords import LanguageScore, biased, read_language_model
from wavasr.lm import Weights, tuned_weights, vocabulary, weights_path
from wavasr.modelfile import LEXICON_SUFFIX, LM_SUFFIXES, SUFFIX, asset, companion
from wavasr.runtime import Shelf, stamp
from wavasr.text import Units, ctc_frames_needed
from wavasr.wordlist import WordList, word_list

DEFAULT_BEAM = 500  # 6 points of WER better than 64 on LibriSpeech dev with the model `default`; 1000 another point
_FREE_HOTWORD_BEAM = 100  # without a list of words the scores of hotwords are made in Python
DEFAULT_WEIGHTS = Weights(0.4, 1.5)  # near the best on AN4 dev
_BEAM_THRESHOLD = 15.0  # nats behind the best hypothesis at which one is given up
_COPIED_BEAM_THRESHOLD = 9.0  # see `_endings`; as good as 10.5 on LibriSpeech dev, in three quarters of the time
_COLUMNS_A_FRAME = 24  # as good as 64 on LibriSpeech dev, in half the time
_COPIED_COLUMNS_A_FRAME = 16  # see `_endings`; as good as 24, in four fifths of the time
_HOMOPHONES = 6  # flashlight keeps no more words of one pronunciation; the most frequent ones stay
_NEVER = -1e5
_COPY_NATS = -1e-3
_BLANK = 0
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


class _Expected(NamedTuple):
    """A hotword, said in one way.

    Attributes:
        words: numbers and labels of its words.
        searched_as: for each the word that the language model takes it for.
        nats: what it earns.
    """

    words: tuple[tuple[int, tuple[int, ...]], ...]
    searched_as: tuple[int, ...]
    nats: float


class _Read(NamedTuple):
    """What a result of the search says: labels, words as (number, first label, end), the words that the language model
    takes them for, and what hotwords earn.
    """

    ids: tuple[int, ...]
    words: tuple[tuple[int, int, int], ...] = ()
    searched_as: tuple[int, ...] = ()
    nats: float = 0.0


class LMDecoder:
    """Log-probabilities (T, V) to the best `Hypothesis`, the n best in its `alternatives`.

    flashlight knows words that end in a space. Units without one (phones, SentencePiece) get a second copy of every
    column, so that the last label of a word may last: see `_endings`. What this lets through wrongly, such as a word
    repeated without a blank between, is put right by the exact score of each result.

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
        self._space = units.symbols.index(" ") if units.kind == "characters" and " " in units.symbols else None
        self._copies = words is not None and self._space is None
        self.weights = self._chosen_weights()
        self._rarest = -1  # as which the words are searched that the language model does not know
        self._strangers: dict[tuple[int, ...], int] = {}  # these, by their spelling
        self._expected: dict[tuple[int, ...], _Expected] = {}  # hotwords, by their labels
        self._hotword_ends: list[tuple[int, float]] = []  # their last labels, and what they earn
        self._has_phrases = False
        # The search is not exact about words without a space between them, and takes phrases for their last word.
        self._scored_again = self._copies
        self._label_of = list(range(len(units)))  # the label that each column of the search stands for
        self._trie = self._new_trie(words) if words else None

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

    @property
    def _first_hotword_column(self) -> int:
        return len(self._units) * (2 if self._copies else 1)

    @property
    def _silence(self) -> int:
        return len(self._label_of) - 1 if self._space is None else self._space

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

        columns = (_COPIED_COLUMNS_A_FRAME if self._copies else _COLUMNS_A_FRAME) + len(self._hotword_ends)
        options: dict[str, Any] = {
            "beam_size": self._beam,
            "beam_size_token": min(len(self._label_of), columns),
            "beam_threshold": _COPIED_BEAM_THRESHOLD if self._copies else _BEAM_THRESHOLD,
            "lm_weight": self._lm_scale,
            "sil_score": 0.0,
            "log_add": True,
            "criterion_type": flashlight.CriterionType.CTC,
        }
        if self._words is None:
            free = flashlight.LexiconFreeDecoderOptions(**options)
            return flashlight.LexiconFreeDecoder(free, lm, _BLANK, _BLANK, [])
        chosen = flashlight.LexiconDecoderOptions(word_score=self.weights.word_score, unk_score=-math.inf, **options)
        return flashlight.LexiconDecoder(chosen, self._trie, lm, self._silence, _BLANK, -1, [], False)

    def _new_trie(self, words: WordList) -> Any:
        """The words' spellings.

        What a language model says of words that it does not know is said of all such words together, or of nothing that
        it saw: heard at that rate, they would be everywhere. So they are searched as its least probable word, and told
        apart by their spelling. Hotwords among them are as probable as the median word, and have their boost.
        """
        from flashlight.lib.text import decoder as flashlight

        lm = self._new_lm()
        start = lm.start(False)
        scores = [lm.score(start, number)[1] for number in range(len(words.spellings))]
        strangers = words.strangers
        known = set(range(len(scores))) - strangers
        if known:
            self._rarest = min(known, key=lambda number: (scores[number], number))
            for number in strangers:
                scores[number] = scores[self._rarest]
        else:
            strangers = frozenset()
        median = (
            sorted(known, key=lambda number: (scores[number], number))[len(known) // 2]
            if known and self._score.hotwords
            else -1
        )
        self._expected = self._expectations(words, strangers, median)
        self._hotword_ends = sorted({(self._last(ids), hotword.nats) for ids, hotword in self._expected.items()})
        ends, labels = [label for label, _ in self._hotword_ends], self._label_of
        self._label_of = [*labels, *labels, *ends, _BLANK] if self._copies else [*labels, *ends]
        self._has_phrases = any(len(hotword.words) > 1 for hotword in self._expected.values())
        self._scored_again |= self._has_phrases
        trie = flashlight.Trie(len(self._label_of), self._silence)
        insert, endings = trie.insert, self._endings  # a word counts 50,000 times
        for ids, hotword in self._expected.items():
            number = hotword.searched_as[-1]
            column = self._first_hotword_column + self._hotword_ends.index((self._last(ids), hotword.nats))
            for spelling in endings(ids, column):
                insert(spelling, number, lm.score(start, number)[1] + hotword.nats / self._lm_scale)
        alike: dict[tuple[int, ...], int] = {}
        for number in sorted(range(len(scores)), key=lambda number: (-scores[number], number in strangers)):
            searched_as = number
            for ids in words.spellings[number]:
                if ids in self._expected and self._expected[ids].words == ((number, ids),):
                    continue
                if number in strangers:
                    if ids in self._strangers or ids in words.spellings[self._rarest]:
                        continue
                    self._strangers[ids] = number
                    searched_as = self._rarest
                alike[ids] = count = alike.get(ids, 0) + 1
                if count <= _HOMOPHONES:
                    for spelling in endings(ids):
                        insert(spelling, searched_as, scores[number])
        trie.smear(flashlight.SmearingMode.MAX)
        return trie

    def _expectations(
        self, words: WordList, strangers: frozenset[int], stand_in: int
    ) -> dict[tuple[int, ...], _Expected]:
        """The hotwords by their labels: each way to say one is a word of its own for the search.

        Its last label has a column of its own, which is worth more by what the hotword earns. A phrase's words but the
        last are nothing to the language model until the whole result is scored.
        """
        found: dict[tuple[int, ...], _Expected] = {}
        space = () if self._space is None else (self._space,)
        for hotword in sorted(self._score.hotwords, key=lambda hotword: -hotword.nats):
            searched_as = tuple(stand_in if number in strangers else number for number in hotword.labels)
            ways = itertools.product(*(words.spellings[number] for number in hotword.labels))
            for spelled in itertools.islice(ways, _HOMOPHONES):
                ids = tuple(itertools.chain(spelled[0], *((*space, *part) for part in spelled[1:])))
                parts = tuple(zip(hotword.labels, spelled, strict=True))
                found.setdefault(ids, _Expected(parts, searched_as, hotword.nats))
        return found

    def _last(self, ids: tuple[int, ...]) -> int:
        """The label that ends a word."""
        return ids[-1] if self._space is None else self._space

    def _endings(self, ids: tuple[int, ...], column: int = -1) -> tuple[tuple[int, ...], ...]:
        """The paths of a word through the trie; `column` is that of its last label, if it is not the label itself.

        A word ends in a space. Without spaces its last label would have one frame only, since flashlight leaves the
        trie with it: so the frames before the last one go to the label's copy, `label + V` of V labels. Two equal
        labels at the end get the blank's copy between them, which flashlight would forget.
        """
        if self._space is not None:
            return ((*ids, self._space if column < 0 else column),)
        labels = len(self._units)
        first, last = ids[:-1], ids[-1]
        end = last if column < 0 else column
        if first and first[-1] == last:
            first += (_BLANK + labels,)
        return (*first, end), (*first, last + labels, end)

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
        emissions = self._emissions(values)
        lm = self._new_lm()
        results = self._new_search(lm).decode(emissions.ctypes.data, *emissions.shape)
        joined: dict[_Read, float] = {}
        for result in results[: 4 * self._config.n_best + 8]:
            read = self._read(result)
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

    def _emissions(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        ends = [values[:, label, None] + np.float32(nats) for label, nats in self._hotword_ends]
        if self._copies:
            # Equal scores flashlight ranks by address, which changes from run to run: so a copy is worth a bit less.
            never = np.full((len(values), 1), _NEVER, np.float32)
            return np.concatenate([values, values + np.float32(_COPY_NATS), *ends, never], axis=1)
        if self._words is None:
            return np.ascontiguousarray(values)
        last = np.full((1, len(self._label_of)), _NEVER, np.float32)
        last[0, self._space] = 0.0  # the last word ends with the recording
        last[0, values.shape[1] :] = [nats for _, nats in self._hotword_ends]
        return np.concatenate([np.concatenate([values, *ends], axis=1), last])

    def _read(self, result: Any) -> _Read:
        if self._words is None:
            return _Read(tuple(label for label, _ in itertools.groupby(result.tokens[1:-1]) if label))
        said = [(place, number) for place, number in enumerate(result.words) if number >= 0]
        ids: list[int] = []
        words: list[tuple[int, int, int]] = []
        searched_as: list[int] = []
        nats, before = 0.0, 1
        for place, number in said:
            hotword = self._said(number, result.tokens[before : place + 1])
            for word, spelled in hotword.words:
                if ids and not self._copies:
                    ids.append(self._space or 0)
                words.append((word, len(ids), len(ids) + len(spelled)))
                ids += spelled
            searched_as += hotword.searched_as
            nats += hotword.nats
            before = place + 1
        return _Read(tuple(ids), tuple(words), tuple(searched_as), nats)

    def _said(self, number: int, tokens: Sequence[int]) -> _Expected:
        """What a word of the search is: a hotword by its last column, another one by its number and labels."""
        if self._expected and 0 <= tokens[-1] - self._first_hotword_column < len(self._hotword_ends):
            heard = self._heard(tokens)
            return self._expected[heard if heard in self._expected else heard[:-1]]
        spelled = self._spelling(number, tokens)
        word = self._strangers.get(spelled, number) if number == self._rarest else number
        return _Expected(((word, spelled),), (number,), 0.0)

    def _heard(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The labels of a word's frames. A blank between the last label's copy and the label itself makes two of it; in
        words that end in a space that follows.
        """
        heard = [label for label, _ in itertools.groupby(self._label_of[token] for token in tokens) if label]
        while heard and heard[0] == self._space:
            del heard[0]
        return tuple(heard)

    def _spelling(self, number: int, tokens: Sequence[int]) -> tuple[int, ...]:
        """Which of the word's spellings the tokens of its frames are."""
        assert self._words is not None
        own = self._words.spellings[number]
        others = self._strangers if number == self._rarest else {}
        if len(own) == 1 and not others:
            return own[0]
        heard = self._heard(tokens)
        return next((ids for ids in (heard, heard[:-1]) if ids in own or ids in others), own[0])

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
        if self._words is not None and self._copies and self._units.kind != "sentencepiece":
            # The labels do not tell where words begin.
            words = tuple((self._words.words[number], first, end) for number, first, end in found.words)
        return Hypothesis(found.ids, found.score, spans, confidences, len(values), words)


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
            scale = moved.sum(axis=1, keepdims=True)
            total += np.log(scale[:, 0])
            alpha = np.divide(moved, scale, out=moved, where=scale > 0)  # what is impossible stays 0
    ends = [
        alpha[row, 2 * len(ids)] + (alpha[row, 2 * len(ids) - 1] if ids else 0.0) for row, ids in enumerate(labellings)
    ]
    with np.errstate(divide="ignore"):
        return [float(score) for score in total + np.log(ends)]
