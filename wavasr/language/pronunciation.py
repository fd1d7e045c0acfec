"""Grapheme to phoneme: how words are probably pronounced that a lexicon lacks, learnt from the words that it has.

    lexicon -> which letter says which phones -> n-grams of these pairs -> the most probable pronunciations of a word

Each letter says up to two phones (x says K S, the h of sh nothing); which, expectation maximisation finds. An n-gram
model of pairs then knows that a p before ph ... and any language that has a lexicon gets one (Bisani & Ney 2008,
"Joint-sequence models for grapheme-to-phoneme conversion").
"""

from __future__ import annotations

import functools
import itertools
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from wavasr.language.lexicon import Lexicon
from wavasr.language.ngrams import BEGIN, END, NgramModel, estimate

FEWEST_WORDS = 1000  # of a lexicon that teaches anything
_ORDER = 6
_BEAM = 40
_MOST_PHONES = 2  # that a letter says
_LONGEST_WORD = 100  # letters: more are no word, and would take minutes
_ROUNDS = 5
_WORDS_TO_ALIGN_BY = 12_000  # of a larger lexicon these teach the alignment
_LIKELY = 0.2  # of the best pronunciation's probability, for another one

log = logging.getLogger("wavasr")
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Pair = tuple[str, tuple[str, ...]]


def completed(lexicon: Lexicon, words: Iterable[str], n_best: int = 1) -> Lexicon:
    """The lexicon, and those of the words that it lacks, pronounced as its own suggest; they are logged.

    Words without its letters are still missing, and all are where it has fewer than `FEWEST_WORDS` to learn from. Those
    that it has in capitals, as CMUdict does, are not missing. Nobody says words of more than a hundred letters.
    """
    missing = lexicon.missing(words)
    found = {word: lexicon[word.upper()] for word in missing if word.upper() in lexicon}
    unknown = [word for word in missing if word not in found and len(word) <= _LONGEST_WORD]
    if unknown and len(lexicon) >= FEWEST_WORDS:
        pronounce = pronouncer(lexicon)
        guessed = {word: tuple(spoken) for word in unknown if (spoken := pronounce(word, n_best))}
        if guessed:
            named = "; ".join(f"{word}  {' '.join(spoken[0])}" for word, spoken in list(guessed.items())[:3])
            more = "; ..." if len(guessed) > 3 else ""
            log.info("pronounced as the words of the lexicon suggest, which lacks them: %s%s", named, more)
        found |= guessed
    return Lexicon({**lexicon.pronunciations, **found}) if found else lexicon


@functools.lru_cache(maxsize=1)
def pronouncer(lexicon: Lexicon) -> Pronouncer:
    """What a lexicon teaches, learnt once."""
    return Pronouncer(lexicon)


class _Group(NamedTuple):
    """Words of L letters: (W, L) letters; (W, P) phones, -1 behind the last; (W,) how many phones."""

    letters: Ints
    phones: Ints
    lengths: Ints


class Pronouncer:
    """How a word is pronounced, as a lexicon suggests.

    It takes a second or two to learn from 50,000 words, and some milliseconds for each word.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._says: dict[str, list[int]] = {}  # the labels of its pairs, for each letter
        aligned = list(_aligned([(word, lexicon[word][0]) for word in lexicon]))
        if not aligned:
            return
        pairs = sorted({pair for word in aligned for pair in word})
        name_of = {pair: str(number) for number, pair in enumerate(pairs)}
        self._model = estimate((" ".join(name_of[pair] for pair in word) for word in aligned), order=_ORDER)
        self._pairs: list[Pair] = [("", ())] * len(self._model.words)
        for label, name in enumerate(self._model.words):
            if name.isdigit():
                self._pairs[label] = pairs[int(name)]
                self._says.setdefault(self._pairs[label][0], []).append(label)
        orders = tuple(order for order in self._model.orders if len(order))  # short words have no long n-grams
        self._model = replace(self._model, orders=orders)
        self._keys = [order.history.astype(np.int64) * len(self._model.words) + order.word for order in orders]

    def __call__(self, word: str, n_best: int = 1) -> list[tuple[str, ...]]:
        """The most probable pronunciations, best first: at most `n_best`, those less likely by far left out.

        Empty where the lexicon's words have none of the word's letters, and for more than 60 letters.
        """
        letters = [letter for letter in _letters(word) if letter in self._says]
        if not letters or len(letters) > _LONGEST_WORD:
            return []
        model = self._model
        rows, scores = np.full((1, len(model.orders)), -1), np.zeros(1)
        rows[0, 0] = model.words.index(BEGIN)
        steps: list[tuple[Ints, Ints]] = []  # for each letter: the hypothesis that goes on, and its pair
        for letter in letters:
            said = np.array(self._says[letter])
            source, label = np.repeat(np.arange(len(rows)), len(said)), np.tile(said, len(rows))
            after, more = self._step(rows[source], label)
            after_scores = scores[source] + more
            best = np.argsort(-after_scores, kind="stable")[:_BEAM]
            rows, scores = after[best], after_scores[best]
            steps.append((source[best], label[best]))
        scores = scores + self._step(rows, np.full(len(rows), model.words.index(END)))[1]
        found: dict[tuple[str, ...], float] = {}
        for last, score in enumerate(scores):
            at, chunks = last, []
            for source, label in reversed(steps):
                chunks.append(self._pairs[label[at]][1])
                at = int(source[at])
            if spoken := tuple(itertools.chain.from_iterable(reversed(chunks))):
                found[spoken] = found.get(spoken, 0.0) + float(np.exp(score - scores.max()))
        ranked = sorted(found, key=lambda spoken: (-found[spoken], spoken))
        return [spoken for spoken in ranked[:n_best] if found[spoken] >= _LIKELY * found[ranked[0]]]

    def _step(self, rows: Ints, label: Ints) -> tuple[Ints, Floats]:
        """What comes after: (B, N) rows of the last 1 ... N pairs in the model's orders, -1 where it has none, and the
        next pair (B,), to the same after it and its natural logarithm of probability.
        """
        after = np.full_like(rows, -1)
        after[:, 0] = label
        prob = self._model.orders[0].prob[label]
        for length in range(1, rows.shape[1]):
            order, keys, history = self._model.orders[length], self._keys[length], rows[:, length - 1]
            key = history * len(self._model.words) + label
            place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            known = (history >= 0) & (keys[place] == key)
            after[:, length] = np.where(known, place, -1)
            prob = np.where(known, order.prob[place], prob * _backoff(self._model, length, history))
        return after, np.log(prob)


def _backoff(model: NgramModel, length: int, history: Ints) -> Floats:
    """What going on without the history of `length` pairs costs; nothing where the model does not know it."""
    return np.where(history >= 0, model.orders[length - 1].backoff[history], 1.0)


def _letters(word: str) -> list[str]:
    """Lower-case letters; accents are letters of their own where they can be taken off."""
    return list(unicodedata.normalize("NFD", word.casefold()))


def _aligned(entries: Sequence[tuple[str, tuple[str, ...]]]) -> Iterator[list[Pair]]:
    """For each word its letters, each with the phones that it says; words with too many phones are left out."""
    usable = [(_letters(word), phones) for word, phones in entries]
    usable = [(letters, phones) for letters, phones in usable if 0 < len(phones) <= _MOST_PHONES * len(letters)]
    if not usable:
        return
    alphabet = sorted({letter for letters, _ in usable for letter in letters})
    inventory = sorted({phone for _, phones in usable for phone in phones})
    label_of = {letter: label for label, letter in enumerate(alphabet)}
    number_of = {phone: number for number, phone in enumerate(inventory)}
    by_length: dict[int, list[tuple[list[int], list[int]]]] = {}
    for letters, phones in usable:
        spelled = [label_of[letter] for letter in letters], [number_of[phone] for phone in phones]
        by_length.setdefault(len(letters), []).append(spelled)
    scores = _uniform(len(alphabet), len(inventory))
    every = max(1, len(usable) // _WORDS_TO_ALIGN_BY)
    teachers = [_group(words[::every]) for words in by_length.values()]
    for _ in range(_ROUNDS):
        scores = _reestimated(scores, teachers)
    for words in by_length.values():
        for (letters_of, phones_of), ends in zip(words, _best_ends(scores, _group(words)), strict=True):
            starts = [0, *ends[:-1]]
            yield [
                (alphabet[label], tuple(inventory[phone] for phone in phones_of[start:end]))
                for label, start, end in zip(letters_of, starts, ends, strict=True)
            ]


class _Table(NamedTuple):
    """Probabilities that one of A letters says nothing (A,), a phone (A, F + 1), or two (A, F + 1, F + 1).

    F stands behind the last phone of a word, and is never said.
    """

    nothing: Floats
    one: Floats
    two: Floats

    def moves(self, letters: Ints, phones: Ints) -> tuple[Floats, Floats, Floats]:
        """Of the letters (W,) at each of the phones (W, P): (W, 1), (W, P) and (W, P - 1)."""
        at = letters[:, None]
        return self.nothing[at], self.one[at, phones], self.two[at, phones[:, :-1], phones[:, 1:]]


def _table(nothing: Floats, one: Floats, two: Floats, floor: float = 0.0) -> _Table:
    """Weights as probabilities, none below `floor`, of the phones that there are."""
    one[:, -1] = two[:, -1] = two[:, :, -1] = 0.0
    total = np.maximum(nothing + one.sum(1) + two.sum((1, 2)), 1e-300)
    table = _Table(nothing / total + floor, one / total[:, None] + floor, two / total[:, None, None] + floor)
    table.one[:, -1] = table.two[:, -1] = table.two[:, :, -1] = 0.0
    return table


def _uniform(letters: int, phones: int) -> _Table:
    one, two = np.full((letters, phones + 1), 0.7 / phones), np.full((letters, phones + 1, phones + 1), 0.1 / phones**2)
    return _table(np.full(letters, 0.2), one, two)


def _group(words: Sequence[tuple[list[int], list[int]]]) -> _Group:
    lengths = np.array([len(phones) for _, phones in words])
    phones = np.full((len(words), lengths.max()), -1)
    for row, (_, said) in zip(phones, words, strict=True):
        row[: len(said)] = said
    return _Group(np.array([letters for letters, _ in words]), phones, lengths)


def _reestimated(table: _Table, groups: Sequence[_Group]) -> _Table:
    """One round of expectation maximisation."""
    counts = [np.zeros_like(part) for part in table]
    flat = [part.reshape(-1) for part in counts]
    phones_of = table.one.shape[1]
    for letters, phones, lengths in groups:
        everyone = np.arange(len(letters))
        said = np.where(phones < 0, phones_of - 1, phones)
        forward = np.zeros((letters.shape[1] + 1, len(letters), phones.shape[1] + 1))
        forward[0, :, 0] = 1.0
        for place in range(letters.shape[1]):
            nothing, one, two = table.moves(letters[:, place], said)
            before, after = forward[place : place + 2]
            after += before * nothing
            after[:, 1:] += before[:, :-1] * one
            after[:, 2:] += before[:, :-2] * two
        total = forward[-1, everyone, lengths]
        backward = np.zeros(forward.shape[1:])
        backward[everyone, lengths] = np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)
        for place in reversed(range(letters.shape[1])):
            letter, before = letters[:, place], forward[place]
            nothing, one, two = table.moves(letter, said)
            by_one, by_two = one * backward[:, 1:], two * backward[:, 2:]
            first = letter[:, None] * phones_of + said
            second = first[:, :-1] * phones_of + said[:, 1:]
            silent = (before * nothing * backward).sum(1)
            for target, where, weights in (
                (flat[0], letter, silent),
                (flat[1], first, before[:, :-1] * by_one),
                (flat[2], second, before[:, :-2] * by_two),
            ):
                target += np.bincount(where.reshape(-1), weights.reshape(-1), minlength=len(target))
            backward = backward * nothing
            backward[:, :-1] += by_one
            backward[:, :-2] += by_two
    return _table(counts[0], counts[1], counts[2], 1e-7)


def _best_ends(table: _Table, group: _Group) -> list[list[int]]:
    """How many of a word's phones are said after each of its letters, on the most probable way."""
    letters, phones, lengths = group
    said = np.where(phones < 0, table.one.shape[1] - 1, phones)
    best = np.zeros((len(letters), phones.shape[1] + 1))
    best[:, 0] = 1.0
    chosen = np.zeros((letters.shape[1], *best.shape), np.int8)
    for place in range(letters.shape[1]):
        ways = np.zeros((_MOST_PHONES + 1, *best.shape))
        for count, move in enumerate(table.moves(letters[:, place], said)):
            ways[count, :, count:] = best[:, : best.shape[1] - count] * move
        chosen[place], best = ways.argmax(0), ways.max(0)
    ends = np.empty(letters.shape, np.int64)
    at, everyone = lengths, np.arange(len(letters))
    for place in reversed(range(letters.shape[1])):
        ends[:, place] = at
        at = at - chosen[place, everyone, at]
    return cast(list[list[int]], ends.tolist())
