"""Beam search with a word list or pronunciations, an n-gram language model and hotwords, on flashlight-text.

    log-probabilities -> flashlight's search over a trie of spellings -> word sequences -> `Hypothesis`

A hypothesis scores, in nats,

    log P(its labels | audio) + lm_weight * log P(its words) + word_score * (number of words) + boosts of its hotwords

where P(labels | audio) is the sum over all CTC paths (Graves et al. 2006, arXiv 1609.03193 for the search). Before that
each label's probability is divided by the square root of its prior, where the model file tells it, and the blank gets
`blank_penalty` nats less: a trained network prefers what is frequent, blanks above all, and words would be left out.
The first few results are ranked anew with what a second language model says of their words, see `language.rescoring`.
Without a word list the search is over the units themselves: phones with a model of phones, or hotwords alone.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.decoder import Decoder
from wavasr.decoding.greedy import Hypothesis, LogProbs, best_path, checked, penalised
from wavasr.decoding.hotwords import LanguageScore, biased
from wavasr.decoding.running import Emissions, Search
from wavasr.decoding.searchtree import Read, SearchTree
from wavasr.decoding.trellis import Piece, log_likelihoods
from wavasr.decoding.wordlist import WordList
from wavasr.language.arpa import vocabulary
from wavasr.language.rescoring import Rescorer
from wavasr.language.text import Units, ctc_frames_needed
from wavasr.language.weights import Weights

DEFAULT_BEAM = 500
_COPIED_BEAM = 700  # where labels have copies; docs/ablations.md has what other numbers give
_FREE_HOTWORD_BEAM = 100  # without a list of words the scores of hotwords are made in Python
DEFAULT_WEIGHTS = Weights(0.4, 1.5)  # near the best on AN4 dev
_UNGUIDED_WORD_SCORE = -5.0  # of pronunciations without a language model, or all would be words of one phone
_DRAFT_BEAM = 64
_BEAM_THRESHOLD = 15.0  # nats behind the best hypothesis at which one is given up
_COPIED_BEAM_THRESHOLD = 9.5
_COLUMNS_A_FRAME = 24  # as good as 64 on LibriSpeech dev, in half the time
_COPIED_COLUMNS_A_FRAME = 12
_BLANK = 0
_SURELY = 0.995  # probable, a blank is one: that changes no word in a thousand
_RESCORED = 8  # texts at most; as good as 20 on LibriSpeech dev
_RESCORED_NATS = 2.5  # behind the best one; of 226 stretches the second model preferred none further behind than 2
_PIECE_FRAMES = 40  # in fewer, results are not cut for their scores
_NATS = math.log(10)  # KenLM's logarithms are decimal


@dataclass(frozen=True)
class _Found:
    """One result of the search.

    Attributes:
        ids: labels.
        words: (number, first label, end) of each.
        score: in nats.
        ends: for each word the frame after its last.
        pauses: (T,) whether a frame is between words.
    """

    ids: tuple[int, ...]
    words: tuple[tuple[int, int, int], ...]
    score: float
    ends: tuple[int, ...]
    pauses: NDArray[np.bool_]

    def pieces(self, cuts: Sequence[int]) -> list[Piece]:
        """Its labels between these frames, at pauses, the first and the last one included."""
        firsts = [first for _, first, _ in self.words] + [len(self.ids)]
        places = [0, *(firsts[bisect_right(self.ends, cut)] for cut in cuts[1:-1]), len(self.ids)]
        bounds = zip(itertools.pairwise(cuts), itertools.pairwise(places), strict=True)
        return [Piece(start, end, self.ids[first:last]) for (start, end), (first, last) in bounds]


class LMDecoder(Decoder):
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
        rescorer: Rescorer | None = None,
    ) -> None:
        self._units = units
        self._rescorer = rescorer if words else None
        self._priors = priors
        self._words = words
        self._score = score
        super().__init__(config)
        self.weights = self._chosen_weights()
        self._score = score.balanced(words, config.hotword_boost, self._lm_scale, self.weights.word_score)
        self._tree = SearchTree(units, words, self._score.hotwords, self.new_lm(), self._lm_scale) if words else None
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
    def is_search(self) -> bool:
        """It is."""
        return True

    @property
    def thorough(self) -> bool:
        """Whether it wants recordings at several speeds."""
        return self.config.thorough

    @property
    def description(self) -> str:
        """What decodes, in words, for reports."""
        config = self.config
        parts = [f"beam of {self._beam}"]
        if config.lm:
            weight, score, penalty = self.weights
            parts.append(
                f"language model {config.lm.name} (weight {weight:g}, word score {score:g}, blank penalty {penalty:g})"
            )
        if self._rescorer:
            parts.append(f"rescored (weight {config.rescorer_weight:g})")
        if config.lexicon:
            parts.append(f"lexicon {config.lexicon.name}")
        if self._priors:
            parts.append("labels over the root of their priors")
        if config.hotwords:
            parts.append(f"{len(config.hotwords)} hotwords (boost {config.hotword_boost:g})")
        if config.thorough:
            parts.append("at several speeds")
        return ", ".join(parts)

    @property
    def word_source(self) -> str:
        """What lists the words that may come out, for reports; "" where the units are searched freely."""
        if self._words is None:
            return ""
        config = self.config
        if config.lexicon and not config.only_lm_words:
            return f"lexicon {config.lexicon.name}"
        return f"language model {config.lm.name}" if config.lm else ""

    @property
    def words(self) -> Sequence[str]:
        """The words that may come out; empty where the units are searched freely."""
        return self._words.words if self._words else ()

    def spellings(self) -> dict[str, tuple[int, ...]]:
        """The words that may come out, each with the first way to spell it in labels."""
        if self._words is None:
            return {}
        return {word: ways[0] for word, ways in zip(self._words.words, self._words.spellings, strict=True)}

    @property
    def ending(self) -> NDArray[np.float32] | None:
        """What the search gets behind the last frame."""
        return None if self._tree is None else self._tree.ending()

    @property
    def separator(self) -> tuple[int, ...]:
        """The labels between two words: a space, or none where the units have none."""
        return () if self._tree is None or self._copied else (self._tree.silence,)

    def unigrams(self) -> dict[str, float]:
        """Probabilities of the words with nothing before them, of those that the language model knows."""
        config, words = self.config, self._words
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
        """As configured; else the defaults."""
        weights = DEFAULT_WEIGHTS if self._words else DEFAULT_WEIGHTS._replace(word_score=0.0)
        if self.spells_words and self.config.lm is None:
            weights = weights._replace(word_score=_UNGUIDED_WORD_SCORE)
        given = {name: getattr(self.config, name) for name in Weights._fields}
        return weights._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def _beam(self) -> int:
        slow = self._score.hotwords and self._words is None
        default = _COPIED_BEAM if self._copied else DEFAULT_BEAM
        return self.config.beam or (_FREE_HOTWORD_BEAM if slow else default)

    @property
    def _is_zero(self) -> bool:
        return self._score.is_zero or self.weights.lm_weight == 0

    @property
    def _lm_scale(self) -> float:
        """Nats of a unit of the language model's logarithms, weighted."""
        return 1.0 if self._is_zero else self.weights.lm_weight * _NATS

    def new_lm(self) -> Any:
        """The language model as flashlight takes it; without words with hotwords' and units' bonus, for one search."""
        from flashlight.lib.text.decoder import ZeroLM

        lm = ZeroLM() if self._is_zero else self._score.lm
        if self._words is None and (self._score.hotwords or self.weights.word_score):
            return biased(lm, self._score.hotwords, self.weights.word_score, 1.0 / self._lm_scale)
        return lm

    def new_search(self, lm: Any, beam: int) -> Any:
        """A search, which holds the state of one recording; `lm` has to be kept beside it."""
        from flashlight.lib.text import decoder as flashlight

        tree = self._tree
        columns = (_COPIED_COLUMNS_A_FRAME if self._copied else _COLUMNS_A_FRAME) + (tree.extra if tree else 0)
        options: dict[str, Any] = {
            "beam_size": beam,
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

    def __call__(self, log_probs: LogProbs | tuple[LogProbs, ...]) -> Hypothesis:
        """Decode (T, V) natural log-probabilities, label 0 the blank; T may be 0.

        Of several versions of a recording, decoded at other speeds, that is chosen whose words cost least: their score
        beside that of the likeliest label of every frame. Its frames become those of the first version.

        Raises:
            ModelError: the log-probabilities are not numbers.
        """
        if not isinstance(log_probs, tuple):
            return self._decoded(log_probs)[0]
        best, _ = max(map(self._decoded, log_probs), key=lambda found: found[1])
        return best.stretched(len(log_probs[0]))

    def draft(self, log_probs: LogProbs) -> Hypothesis:
        """What a narrow search finds best, whose score is not exact, with the frames of its words."""
        search = Search(self, min(self._beam, _DRAFT_BEAM))
        search.push(log_probs)
        search.close()
        return search.best()

    def begin(self) -> Search:
        """A search of log-probabilities that come bit by bit."""
        return Search(self, self._beam)

    def _decoded(self, log_probs: LogProbs) -> tuple[Hypothesis, float]:
        """A hypothesis, and its score less that of the likeliest label of every frame."""
        search = self.begin()
        search.push(log_probs)
        return search.decoded()

    def read_best(self, search: Any, frames: int, closed: bool) -> Hypothesis:
        """What flashlight's search finds best after so many frames; its score is not exact."""
        best = search.get_best_hypothesis(0)
        end = -1 if closed else None
        columns, numbers = best.tokens[1:end], best.words[1:end]
        read = self._tree.read(columns, numbers) if self._tree else _read_freely(columns)
        spans = [(0, 0)] * len(read.ids)
        for (_, first, last), start, end in zip(read.words, (0, *read.ends), read.ends, strict=False):
            spans[first:last] = [(start, end)] * (last - first)
        if self._tree is None:
            spans = [(end - 1, end) for end in _ends_of_runs(columns)]
            return Hypothesis(read.ids, best.score, tuple(spans), (), frames)
        words = tuple((self.words[number], first, last) for number, first, last in read.words)
        return Hypothesis(read.ids, best.score, tuple(spans), (), frames, words)

    def agreed(self, search: Any) -> int:
        """How many words all hypotheses of a search under way begin with."""
        tree = self._tree
        if tree is None:
            return 0
        results = search.get_all_final_hypothesis()
        common = _common([[number for number in result.words if number >= 0] for result in results])
        if tree.are_words(common):
            return len(common)
        read = (tree.read(result.tokens[1:], result.words[1:]) for result in results)
        return len(_common([[number for number, _, _ in one.words] for one in read]))

    def emissions(self, log_probs: LogProbs) -> Emissions:
        """What the search gets of (T, V) log-probabilities."""
        values = checked(log_probs)
        searched = penalised(values, self.weights.blank_penalty, self._priors)
        sure = (searched[:, _BLANK] > math.log(_SURELY)) & (self._tree is not None)
        columns = self._tree.emissions(searched) if self._tree else np.ascontiguousarray(searched)
        return Emissions(values, searched, sure, columns)

    def chosen(self, lm: Any, search: Any, given: Emissions) -> tuple[Hypothesis, float]:
        """The hypothesis of a search that has ended, and its score less that of the likeliest label of every frame."""
        values, searched, sure, _ = given
        results = self._results(lm, search.get_all_final_hypothesis(), len(values))
        hypotheses: list[Hypothesis] = []
        # Uncut, if labels need more frames than their pieces have.
        for cuts in (_cuts(results, sure), [0, len(values)]):
            found = self._rescored(self._ranked(searched, results, cuts))
            if hypotheses := [self._hypothesis(values, one, cuts) for one in found[: self.config.n_best]]:
                break
        if not hypotheses:
            return Hypothesis((), 0.0, (), (), len(values)), -math.inf
        best = replace(hypotheses[0], alternatives=tuple(hypotheses) if self.config.n_best > 1 else ())
        return best, best.score - float(searched.max(axis=1).sum(dtype=np.float64))

    def _results(self, lm: Any, results: Sequence[Any], frames: int) -> list[_Found]:
        """What the search found in so many frames, equal results joined, best first.

        Where they are scored again (`_ranked`), the score is only what language model, words and hotwords make of them.
        """
        tree = self._tree
        found: dict[tuple[Any, ...], _Found] = {}
        # What the search says of phrases is rough, so more of its results are scored again.
        count = (4 * self.config.n_best + 8) * (3 if self._has_phrases else 1)
        for result in results[:count]:
            columns = result.tokens[1:-1]
            read = tree.read(columns, result.words[1:-1]) if tree else _read_freely(columns)
            key = read.ids, read.words
            score = result.score
            if self._scored_again:
                said, nats = result.lmScore, read.nats
                if self._tree is not None and self._has_phrases:
                    said = self._sentence_score(lm, read.searched_as)
                    nats = self._tree.earned([number for number, _, _ in read.words])
                score = self._lm_scale * said + self.weights.word_score * len(read.words) + nats
            if key not in found:
                found[key] = _Found(*key, score, read.ends, _pauses(columns, read.ends)[:frames])
            elif self._scored_again:  # a phrase was found as such, and as its words
                found[key] = replace(found[key], score=max(score, found[key].score))
            else:
                found[key] = replace(found[key], score=float(np.logaddexp(score, found[key].score)))
        return list(found.values())

    @staticmethod
    def _sentence_score(lm: Any, numbers: Sequence[int]) -> float:
        state, total = lm.start(False), 0.0
        for number in numbers:
            state, score = lm.score(state, number)
            total += score
        return total + float(lm.finish(state)[1])

    def _ranked(self, values: NDArray[np.float32], found: Sequence[_Found], cuts: Sequence[int]) -> list[_Found]:
        """The results with their whole score, best first; ways to say the same words are joined."""
        if self._scored_again:
            pieces = [one.pieces(cuts) for one in found]
            each = list(dict.fromkeys(itertools.chain.from_iterable(pieces)))  # most results differ in a few words
            likelihood = dict(zip(each, log_likelihoods(values, each).tolist(), strict=True))
            found = [
                replace(one, score=one.score + sum(likelihood[piece] for piece in its))
                for one, its in zip(found, pieces, strict=True)
            ]
        found = sorted(found, key=lambda one: (-one.score, one.ids, one.words))
        joined: dict[tuple[Any, ...], _Found] = {}
        for one in found:
            if len(values) < ctc_frames_needed(one.ids) or one.score == -math.inf:
                continue
            key = tuple(number for number, _, _ in one.words) if self._words else one.ids
            best = joined.get(key)
            joined[key] = one if best is None else replace(best, score=float(np.logaddexp(best.score, one.score)))
        return sorted(joined.values(), key=lambda one: -one.score)

    def _rescored(self, found: list[_Found]) -> list[_Found]:
        """The likeliest results with what the second language model says of their words, best first; then the rest."""
        weight = self.config.rescorer_weight
        if self._rescorer is None or self._words is None or weight is None:
            return found
        near = sum(one.score >= found[0].score - _RESCORED_NATS for one in found[:_RESCORED])
        first = found[: max(near, self.config.n_best)]  # all whose scores are told
        said = self._rescorer([" ".join(self._words.words[number] for number, _, _ in one.words) for one in first])
        pairs = zip(first, said.tolist(), strict=True)
        first = [replace(one, score=one.score + weight * nats) for one, nats in pairs]
        return sorted(first, key=lambda one: -one.score) + found[len(first) :]

    def _hypothesis(self, values: NDArray[np.float32], found: _Found, cuts: Sequence[int]) -> Hypothesis:
        spans, confidences = best_path(values, found.ids, found.pieces(cuts))
        words = None
        if self._words is not None and self._copied and self._units.kind != "sentencepiece":
            # The labels do not tell where words begin.
            words = tuple((self._words.words[number], first, end) for number, first, end in found.words)
        return Hypothesis(found.ids, found.score, spans, confidences, len(values), words)


def _common(said: Sequence[Sequence[int]]) -> list[int]:
    """What all begin with."""
    together = itertools.takewhile(lambda numbers: len(set(numbers)) == 1, zip(*said, strict=False))
    return [numbers[0] for numbers in together]


def _pauses(columns: Sequence[int], ends: Sequence[int]) -> NDArray[np.bool_]:
    """Whether a frame (T,) of a path is between words: a blank, with no label since the last word ended."""
    spoken = np.asarray(columns) != _BLANK
    labels = np.cumsum(spoken)
    said = np.zeros_like(labels)
    last = np.array(ends, np.intp) - 1
    said[last] = labels[last]
    return np.asarray(~spoken & (labels == np.maximum.accumulate(said)))


def _cuts(found: Sequence[_Found], sure: NDArray[np.bool_]) -> list[int]:
    """Surely blank frames amid pauses of all results, the first and the end: what is between them is scored apart."""
    cuts = [0]
    for frame in np.flatnonzero(np.logical_and.reduce([sure, *(one.pauses for one in found)])).tolist():
        if frame - cuts[-1] >= _PIECE_FRAMES:
            cuts.append(frame)
    return [*cuts, len(sure)]


def _ends_of_runs(labels: Sequence[int]) -> list[int]:
    """For each run of a label that is no blank the frame after it."""
    ends = np.cumsum([len(list(run)) for _, run in itertools.groupby(labels)])
    return [int(end) for end in ends if labels[end - 1]]


def _read_freely(labels: Sequence[int]) -> Read:
    """What a result of the search without a word list says: of each frame its label."""
    return Read(tuple(label for label, _ in itertools.groupby(labels) if label))
