"""n-gram language models estimated from text: modified Kneser-Ney smoothing on whole arrays.

    sentences -> labels -> n-grams and counts -> modified Kneser-Ney -> NgramModel  (pruning.py, arpa.py)

Arrays are 32 bits wide and everything large is done in pieces: 200 million words take less than 6 GB when n-grams that
occur once are counted but not stored.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import ConfigError, TextError

UNKNOWN, BEGIN, END = SPECIAL = ("<unk>", "<s>", "</s>")
UNKNOWN_LABEL, BEGIN_LABEL, END_LABEL = range(3)
MIN_ORDER, MAX_ORDER = 2, 6  # what KenLM, as it is built, can read
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_PIECE = 1 << 24  # entries, or occurrences to be sorted, at a time
_NONE, _DROPPED = -1, -2  # rows of n-grams that are not there, and that occur once and are not stored

Labels = NDArray[np.int32]
Counts = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Order:
    """All n-grams of one length, sorted by (history, word).

    Attributes:
        history: (N,) for each n-gram the row of its first n-1 words in the order below.
        word: (N,) its last word.
        suffix: (N,) the row of its last n-1 words in the order below.
        counts: (N,) how often it occurs.
        prob: (N,) probability of the word after the history.
        backoff: (N,) what multiplies the shorter history's probabilities when this n-gram is the history.
    """

    history: Labels
    word: Labels
    suffix: Labels
    counts: Labels
    prob: Floats
    backoff: Floats

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True)
class NgramModel:
    """A back-off model.

    Attributes:
        words: the first three are <unk>, <s>, </s>.
        orders: its n-grams by order.
        unknown: how many different words <unk> stands for, together.
    """

    words: tuple[str, ...]
    orders: tuple[Order, ...]
    unknown: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many n-grams of each order there are."""
        return tuple(len(order) for order in self.orders)


def estimate(
    sentences: Iterable[str],
    *,
    order: int = 3,
    words: int = 0,
    vocabulary: Collection[str] = (),
    drop_singletons: bool = False,
) -> NgramModel:
    """Estimate an interpolated modified Kneser-Ney model (Chen & Goodman 1999, section 3), unpruned.

    Args:
        sentences: words separated by spaces.
        order: longest n-gram, 2 to 6.
        words: keep only this many words, the most frequent; 0 keeps all. The rest is <unk>, which has in ARPA files the
            probability of one of them.
        vocabulary: keep only words of this list; empty for any word.
        drop_singletons: n-grams of three words and more that occur once are not stored, as in most published models of
            large texts. They count all the same: for discounts, for continuations, and for what their histories leave
            to back-off.

    Raises:
        ConfigError: `order` or `words` is out of range.
        TextError: there is no word, or none of the vocabulary.
    """
    if not MIN_ORDER <= order <= MAX_ORDER:
        raise ConfigError(f"--order is {order}; expected {MIN_ORDER} to {MAX_ORDER}")
    if words < 0:
        raise ConfigError(f"--words is {words}; expected 1 or more, or 0 for all")
    inventory, unknown, text = _read(sentences, words, frozenset(vocabulary))
    counted = _count(text, len(inventory), order, drop_singletons)
    del text
    orders: list[Order] = []
    while counted:
        tally = counted.pop(0)
        prob, backoff = _smooth(tally, orders[-1].prob if orders else None)
        if orders:
            orders[-1] = replace(orders[-1], backoff=backoff)
        orders.append(replace(tally.grams, prob=prob, backoff=np.ones(len(prob), np.float32)))
    return NgramModel(inventory, tuple(orders), max(1, unknown))


def pieces(total: int) -> Iterator[slice]:
    """Slices that cover `total` entries, so that temporary arrays stay small."""
    return (slice(first, min(first + _PIECE, total)) for first in range(0, total, _PIECE))


def sums_by_history(order: Order, values: NDArray[Any] | None, histories: int) -> NDArray[np.float64]:
    """Sums of values (N,), or of ones, over the n-grams of each history: (histories,)."""
    total = np.zeros(histories)
    for part in pieces(len(order)):
        rows = order.history[part]
        first, last = int(rows[0]), int(rows[-1])  # they are sorted
        weights = None if values is None else values[part]
        total[first : last + 1] += np.bincount(rows - first, weights, last + 1 - first)
    return total


# Words ----------------------------------------------------------------------------------------------------------------


def _read(sentences: Iterable[str], limit: int, wanted: frozenset[str]) -> tuple[tuple[str, ...], int, Labels]:
    """The inventory, most frequent first after the three special words; how many words are not in it; and the text as
    <s> word ... </s> <s> ...
    """
    known: defaultdict[str, int] = defaultdict(int, dict.fromkeys(SPECIAL, UNKNOWN_LABEL))  # spelled out they are none
    known.default_factory = known.__len__
    stream = array("i")
    for sentence in sentences:
        stream.append(BEGIN_LABEL)
        stream.extend(map(known.__getitem__, sentence.split()))
        stream.append(END_LABEL)
    text = np.frombuffer(stream, np.int32)
    names = list(known)
    counts = _occurrences(text, len(names))
    ranked = sorted(range(len(SPECIAL), len(names)), key=lambda label: (-counts[label], names[label]))
    kept = [label for label in ranked if not wanted or names[label] in wanted][: limit or None]
    if not kept:
        of_these = "words of the vocabulary" if wanted and ranked else "words"
        raise TextError(f"the texts have no {of_these}; expected a sentence a line")
    labels = np.full(len(names), UNKNOWN_LABEL, np.int32)
    labels[[BEGIN_LABEL, END_LABEL]] = BEGIN_LABEL, END_LABEL
    labels[kept] = np.arange(len(SPECIAL), len(SPECIAL) + len(kept))
    for part in pieces(len(text)):
        text[part] = labels[text[part]]
    return (*SPECIAL, *(names[label] for label in kept)), len(ranked) - len(kept), text


def _occurrences(text: Labels, size: int) -> Counts:
    counts = np.zeros(size, np.int64)
    for part in pieces(len(text)):
        counts += np.bincount(text[part], minlength=size)
    return counts


# Counts ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """n-grams of one length, and what smoothing has to know of them and of those that are not stored.

    Attributes:
        grams: those that are stored.
        before: (N,) how many different words stand before each; empty for the longest.
        dropped: how many are not stored.
        dropped_after: how many of these each history of the order below begins.
    """

    grams: Order
    before: Labels = field(default_factory=lambda: np.zeros(0, np.int32))
    dropped: int = 0
    dropped_after: Labels = field(default_factory=lambda: np.zeros(0, np.int32))

    @property
    def weights(self) -> Labels:
        """(N,) What stands for the counts: of the longest n-grams and of those that begin a sentence (nothing stands
        before them) how often they occur, of others `before`. Each that was dropped would have 1.
        """
        counts = self.grams.counts
        return np.where(self.before == 0, counts, self.before) if len(self.before) else counts


def _count(text: Labels, vocabulary: int, order: int, drop_singletons: bool) -> list[_Tally]:
    """The n-grams of each order within sentences."""
    counts = _occurrences(text, vocabulary).astype(np.int32)
    nothing = np.zeros(vocabulary, np.int32)
    tallies = [_Tally(_order(nothing, np.arange(vocabulary, dtype=np.int32), nothing, counts))]
    rows = text  # of the n-gram that ends at each place of the text
    for length in range(2, order + 1):
        tally, rows = _extend(
            text, rows, tallies[-1], vocabulary, drop=drop_singletons and length > 2, last=length == order
        )
        tallies.append(tally)
    return tallies


def _extend(
    text: Labels, rows: Labels, below: _Tally, vocabulary: int, *, drop: bool, last: bool
) -> tuple[_Tally, Labels]:
    """The n-grams that are a word longer than those of `below`, and the row of that which ends at each place.

    `below.before` and its like are filled in.
    """
    after = rows[:0] if last else np.full(len(text), _NONE, np.int32)
    below.before = np.zeros(len(below.grams), np.int32)
    dropped_after = np.zeros(len(below.grams), np.int32) if drop else rows[:0]
    dropped = _extend_dropped(text, rows, below.before, after) if drop else 0
    parts: list[tuple[Labels, Labels, Labels, Labels]] = []
    stored = 0
    for first, end in _history_ranges(below.grams.counts, vocabulary):
        places = _places(text, rows, first, end)
        if not len(places):
            continue
        sorted_places, starts, keys = _grouped(text, rows, places, first, vocabulary)
        counts = np.diff(starts, append=len(sorted_places)).astype(np.int32)
        history = (keys // vocabulary).astype(np.int32) + np.int32(first)
        word, suffix = (keys % vocabulary).astype(np.int32), rows[sorted_places[starts]]
        np.add.at(below.before, suffix[suffix >= 0], 1)
        stays = counts > 1 if drop else np.ones(len(counts), bool)
        if drop:
            np.add.at(dropped_after, history[~stays], 1)
            dropped += int(np.count_nonzero(~stays))
        if not last:
            ids = np.where(stays, stored + np.cumsum(stays, dtype=np.int32) - np.int32(1), np.int32(_DROPPED))
            after[sorted_places] = np.repeat(ids.astype(np.int32), counts)
        parts.append((history[stays], word[stays], suffix[stays], counts[stays]))
        stored += len(parts[-1][0])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [rows[:0]] * 4
    return _Tally(_order(*columns), dropped=dropped, dropped_after=dropped_after), after


def _extend_dropped(text: Labels, rows: Labels, before: Labels, after: Labels) -> int:
    """What is a word longer than an n-gram that is not stored is none that is: counts how many there are."""
    found = 0
    for part in pieces(len(text) - 1):
        word = text[part.start + 1 : part.stop + 1]
        ends = part.start + 1 + np.flatnonzero((rows[part] == _DROPPED) & (word != BEGIN_LABEL))
        suffix = rows[ends]
        np.add.at(before, suffix[suffix >= 0], 1)
        if len(after):
            after[ends] = _DROPPED
        found += len(ends)
    return found


def _history_ranges(counts: Labels, vocabulary: int) -> Iterator[tuple[int, int]]:
    """Ranges of histories, each with at most about `_PIECE` occurrences and keys of 64 bits."""
    widest = max(1, (1 << 38) // vocabulary)  # 26 more bits tell the place
    first = 0
    while first < len(counts):
        occurrences = np.cumsum(counts[first : first + widest], dtype=np.int64)
        end = first + max(1, int(np.searchsorted(occurrences, _PIECE, side="right")))
        yield first, end
        first = end


def _places(text: Labels, rows: Labels, first: int, end: int) -> Labels:
    """Where an n-gram with a history of these rows ends."""
    found = []
    for part in pieces(len(text) - 1):
        history, word = rows[part], text[part.start + 1 : part.stop + 1]
        inside = np.flatnonzero((history >= first) & (history < end) & (word != BEGIN_LABEL))
        found.append((part.start + 1 + inside).astype(np.int32))
    return np.concatenate(found) if found else np.zeros(0, np.int32)


def _grouped(
    text: Labels, rows: Labels, places: Labels, first: int, vocabulary: int
) -> tuple[Labels, Counts, NDArray[np.uint64]]:
    """The places sorted by (history, word); where each n-gram starts among them; and its key."""
    bits = np.uint64(len(places).bit_length())
    keys = (rows[places - 1] - first).astype(np.uint64) * np.uint64(vocabulary) + text[places].astype(np.uint64)
    keys = keys << bits | np.arange(len(places), dtype=np.uint64)  # one sort of numbers instead of an argsort
    keys.sort()
    sorted_places = places[keys & ((np.uint64(1) << bits) - np.uint64(1))]
    keys >>= bits
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return sorted_places, starts, keys[starts]


def _order(history: Labels, word: Labels, suffix: Labels, counts: Labels) -> Order:
    nothing = np.zeros(0, np.float32)
    return Order(history, word, suffix, counts, nothing, nothing)


# Smoothing ------------------------------------------------------------------------------------------------------------


def _smooth(tally: _Tally, lower: Floats | None) -> tuple[Floats, Floats]:
    """Probabilities of one order, and the back-off weights of the order below that go with them.

    Args:
        tally: the n-grams.
        lower: probabilities of the order below; None: these are single words.
    """
    grams, weights = tally.grams, tally.weights
    if lower is None:
        weights[BEGIN_LABEL] = 0  # nothing predicts it
    discounts = _discounts(weights, tally.dropped)
    taken = discounts[np.minimum(weights, 3)]
    if lower is None:
        total = weights.sum(dtype=np.int64)
        prob = (weights - taken) / total + taken.sum(dtype=np.float64) / total / (len(grams) - 1)
        prob[BEGIN_LABEL] = 0.0
        return prob.astype(np.float32), np.zeros(0, np.float32)
    dropped = tally.dropped_after if len(tally.dropped_after) else 0
    totals = sums_by_history(grams, weights, len(lower)) + dropped
    seen = totals > 0
    left = np.divide(sums_by_history(grams, taken, len(lower)) + dropped, totals, out=np.ones(len(lower)), where=seen)
    prob = np.empty(len(grams), np.float32)
    for part in pieces(len(grams)):
        history = grams.history[part]
        prob[part] = (weights[part] - taken[part]) / totals[history] + left[history] * lower[grams.suffix[part]]
    return prob, left.astype(np.float32)


def _discounts(weights: Labels, dropped: int = 0) -> Floats:
    """What is taken from counts of 0, 1, 2, and 3 or more; texts too small to tell get fixed discounts, as in KenLM.

    Args:
        weights: the counts.
        dropped: how many more have a count of 1.
    """
    ones, twos, threes, fours = (int(np.count_nonzero(weights == count)) for count in (1, 2, 3, 4))
    ones += dropped
    if ones and twos and threes:
        y = ones / (ones + 2 * twos)
        found = (1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes)
        if all(0 < discount < count for count, discount in enumerate(found, 1)):
            return np.array([0.0, *found], np.float32)
    return np.array([0.0, *_FALLBACK_DISCOUNTS], np.float32)
