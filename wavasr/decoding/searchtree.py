"""The words of a list as flashlight searches them: paths through a trie, over columns that stand for labels.

    labels | their copies | last labels of hotwords | never
    V      | V            | a column for each       | 1

flashlight knows words that end in a space. Units without one (phones, SentencePiece) get a second copy of every column,
so that the last label of a word may last, and a column that never is in the place of the space. The last label of a
hotword has a column of its own, which is worth more by what the hotword earns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavasr.decoding.hotwords import Hotword
from wavasr.decoding.wordlist import WordList
from wavasr.language.text import Units

_HOMOPHONES = 6  # flashlight keeps no more words of one pronunciation; the most frequent ones stay
_NEVER = -1e5
_COPY_NATS = -1e-3
_BLANK = 0


class Expected(NamedTuple):
    """A hotword, said in one way.

    Attributes:
        words: numbers and labels of its words.
        searched_as: for each the word that the language model takes it for.
        nats: what it earns.
        column_nats: what its last column is worth more: what it earns, less what the language model says of all its
            words but the last one, which the search does not ask it for.
    """

    words: tuple[tuple[int, tuple[int, ...]], ...]
    searched_as: tuple[int, ...]
    nats: float
    column_nats: float = 0.0


class Read(NamedTuple):
    """What a result of the search says.

    Attributes:
        ids: labels.
        words: their words, as (number, first label, end).
        ends: for each word the frame after its last.
        searched_as: the words that the language model takes them for.
        nats: what hotwords earn.
    """

    ids: tuple[int, ...]
    words: tuple[tuple[int, int, int], ...] = ()
    ends: tuple[int, ...] = ()
    searched_as: tuple[int, ...] = ()
    nats: float = 0.0


class SearchTree:
    """The spellings of words as a trie; log-probabilities as its columns; and what a path through it says.

    Args:
        units: the model's inventory.
        words: what may be said.
        hotwords: of these words.
        lm: flashlight's language model of them.
        scale: nats of a unit of `lm`'s logarithms.

    Attributes:
        trie: flashlight's.
        columns: how many there are.
        silence: the column that stands between words.
        extra: columns of hotwords.
        copied: whether labels have copies. What these let through wrongly, such as a word repeated without a blank
            between, the caller has to put right.
        has_phrases: whether a hotword has several words. All but the last are nothing to the language model in the
            search; the caller has to score the whole result.
    """

    def __init__(self, units: Units, words: WordList, hotwords: Sequence[Hotword], lm: Any, scale: float) -> None:
        self._units = units
        self._words = words
        self._space = units.symbols.index(" ") if units.kind == "characters" and " " in units.symbols else None
        self.copied = self._space is None
        self._rarest = -1  # as which the words are searched that the language model does not know
        self._lm_unknown: dict[tuple[int, ...], int] = {}  # these, by their spelling
        self._fill(hotwords, lm, scale)

    def _fill(self, hotwords: Sequence[Hotword], lm: Any, scale: float) -> None:
        """Make the trie.

        `<unk>` pools the probability of all unknown words: used for one word it would win everywhere. So words that
        the language model does not know are searched as its least probable word, and told apart by their spelling.
        Hotwords among them are as probable as the median word, and have their boost.
        """
        from flashlight.lib.text import decoder as flashlight

        words, lm_unknown = self._words, self._words.lm_unknown
        start = lm.start(False)
        probs = np.array([lm.score(start, number)[1] for number in range(len(words.spellings))])
        unknown = np.zeros(len(probs), np.bool_)
        unknown[list(lm_unknown)] = True
        known = np.flatnonzero(~unknown)
        if len(known):
            self._rarest = int(known[np.argmin(probs[known])])
            probs[unknown] = probs[self._rarest]
        else:
            lm_unknown = frozenset()
        by_rarity = known[np.argsort(probs[known], kind="stable")]
        median = int(by_rarity[len(known) // 2]) if len(known) else -1
        self._expected = {
            ids: one._replace(column_nats=one.nats + scale * _before_last(lm, one.searched_as))
            for ids, one in self._expectations(hotwords, lm_unknown, median).items()
        }
        self._earning = {tuple(hotword.labels): hotword.nats for hotword in hotwords}
        self._ends = sorted({(self._last(ids), hotword.column_nats) for ids, hotword in self._expected.items()})
        ends, labels = [label for label, _ in self._ends], list(range(len(self._units)))
        self._label_of = [*labels, *labels, *ends, _BLANK] if self.copied else [*labels, *ends]
        self._first_end = len(labels) * (2 if self.copied else 1)
        self.columns, self.extra = len(self._label_of), len(ends)
        self.silence = self.columns - 1 if self._space is None else self._space
        self.has_phrases = any(len(hotword.words) > 1 for hotword in self._expected.values())
        self.trie = flashlight.Trie(self.columns, self.silence)
        insert, endings = self.trie.insert, self._endings  # a word counts 50,000 times
        for ids, hotword in self._expected.items():
            number = hotword.searched_as[-1]
            column = self._first_end + self._ends.index((self._last(ids), hotword.column_nats))
            for spelling in endings(ids, column):
                insert(spelling, number, lm.score(start, number)[1] + hotword.column_nats / scale)
        scores = probs.tolist()
        # By spelling: what begins alike lies together in memory, so that the tree is made and freed sooner.
        for ids, numbers in sorted(self._by_spelling(np.lexsort((unknown, -probs)), lm_unknown).items()):
            for number in numbers[:_HOMOPHONES]:
                for spelling in endings(ids):
                    insert(spelling, number, scores[number])
        self.trie.smear(flashlight.SmearingMode.MAX)

    def _by_spelling(self, order: NDArray[np.intp], lm_unknown: frozenset[int]) -> dict[tuple[int, ...], list[int]]:
        """The words to search, under each spelling in this order, beside the hotwords."""
        found: dict[tuple[int, ...], list[int]] = {}
        for number in order.tolist():
            searched_as = number
            for ids in self._words.spellings[number]:
                if ids in self._expected and self._expected[ids].words == ((number, ids),):
                    continue
                if number in lm_unknown:
                    if ids in self._lm_unknown or ids in self._words.spellings[self._rarest]:
                        continue
                    self._lm_unknown[ids] = number
                    searched_as = self._rarest
                found.setdefault(ids, []).append(searched_as)
        return found

    def _expectations(
        self, hotwords: Sequence[Hotword], lm_unknown: frozenset[int], stand_in: int
    ) -> dict[tuple[int, ...], Expected]:
        """The hotwords by their labels: each way to say one is a word of its own for the search."""
        found: dict[tuple[int, ...], Expected] = {}
        space = () if self._space is None else (self._space,)
        for hotword in sorted(hotwords, key=lambda hotword: -hotword.nats):
            searched_as = tuple(stand_in if number in lm_unknown else number for number in hotword.labels)
            ways = itertools.product(*(self._words.spellings[number] for number in hotword.labels))
            for spelled in itertools.islice(ways, _HOMOPHONES):
                ids = tuple(itertools.chain(spelled[0], *((*space, *part) for part in spelled[1:])))
                parts = tuple(zip(hotword.labels, spelled, strict=True))
                found.setdefault(ids, Expected(parts, searched_as, hotword.nats))
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

    def emissions(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each column says in each frame: (T, V) log-probabilities -> (T, `columns`)."""
        ends = [values[:, label, None] + np.float32(nats) for label, nats in self._ends]
        if self.copied:
            # Equal scores flashlight ranks by address, which changes from run to run: so a copy is worth a bit less.
            never = np.full((len(values), 1), _NEVER, np.float32)
            return np.concatenate([values, values + np.float32(_COPY_NATS), *ends, never], axis=1)
        return np.concatenate([values, *ends], axis=1)

    def ending(self) -> NDArray[np.float32]:
        """What the columns say behind the last frame: (1 or 0, `columns`). There a word ends that needs a space."""
        if self._space is None:
            return np.zeros((0, self.columns), np.float32)
        last = np.full((1, self.columns), _NEVER, np.float32)
        last[0, self._space] = 0.0
        last[0, len(self._units) :] = [nats for _, nats in self._ends]
        return last

    def earned(self, words: Sequence[int]) -> float:
        """The most that hotwords, none over another, earn among these words."""
        best = [0.0] * (len(words) + 1)
        for first in reversed(range(len(words))):
            best[first] = best[first + 1]
            for labels, nats in self._earning.items():
                if tuple(words[first : first + len(labels)]) == labels:
                    best[first] = max(best[first], nats + best[first + len(labels)])
        return best[0]

    def read(self, columns: Sequence[int], words: Sequence[int]) -> Read:
        """What a result of flashlight's search says: of each frame its column, and the word that ends there or -1."""
        said = [(frame, number) for frame, number in enumerate(words) if number >= 0]
        ids: list[int] = []
        read: list[tuple[int, int, int]] = []
        ends: list[int] = []
        searched_as: list[int] = []
        nats, before = 0.0, 0
        for frame, number in said:
            hotword = self._said(number, columns[before : frame + 1])
            for word, spelled in hotword.words:
                if ids and self._space is not None:
                    ids.append(self._space)
                read.append((word, len(ids), len(ids) + len(spelled)))
                ids += spelled
                ends.append(frame + 1)
            searched_as += hotword.searched_as
            nats += hotword.nats
            before = frame + 1
        return Read(tuple(ids), tuple(read), tuple(ends), tuple(searched_as), nats)

    def are_words(self, numbers: Sequence[int]) -> bool:
        """Whether a result's numbers are its words: hotwords, and words that are searched as another one, are not."""
        return not self._expected and not (self._lm_unknown and self._rarest in numbers)

    def _said(self, number: int, columns: Sequence[int]) -> Expected:
        """What a word of the search is: a hotword by its last column, another one by its number and labels."""
        if self._expected and 0 <= columns[-1] - self._first_end < self.extra:
            labels = self._labels_in(columns)
            return self._expected[labels if labels in self._expected else labels[:-1]]
        spelled = self._spelling(number, columns)
        word = self._lm_unknown.get(spelled, number) if number == self._rarest else number
        return Expected(((word, spelled),), (number,), 0.0)

    def _labels_in(self, columns: Sequence[int]) -> tuple[int, ...]:
        """The labels of a word's frames. A blank between the last label's copy and the label itself makes two of it; in
        words that end in a space that follows.
        """
        labels = [label for label, _ in itertools.groupby(self._label_of[column] for column in columns) if label]
        while labels and labels[0] == self._space:
            del labels[0]
        return tuple(labels)

    def _spelling(self, number: int, columns: Sequence[int]) -> tuple[int, ...]:
        """Which of the word's spellings the columns of its frames are."""
        own = self._words.spellings[number]
        others = self._lm_unknown if number == self._rarest else {}
        if len(own) == 1 and not others:
            return own[0]
        labels = self._labels_in(columns)
        return next((ids for ids in (labels, labels[:-1]) if ids in own or ids in others), own[0])


def _before_last(lm: Any, numbers: Sequence[int]) -> float:
    """The language model's logarithm for words of a phrase, beyond that of the last one alone."""
    if len(numbers) < 2:
        return 0.0
    state, total = lm.start(True), 0.0
    for number in numbers:
        state, score = lm.score(state, number)
        total += float(score)
    return total - float(lm.score(lm.start(True), numbers[-1])[1])
