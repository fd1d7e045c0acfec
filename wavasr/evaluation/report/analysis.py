"""What goes wrong, where: tables and profiles drawn from an evaluation's alignments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from wavasr.evaluation.metrics import ErrorCounts, PairedResult, paired_bootstrap
from wavasr.evaluation.results import Evaluation, Rate, UtteranceResult, rate_of

T = TypeVar("T", str, tuple[str, str])

_PROFILE_RESAMPLES = 2000


@dataclass(frozen=True)
class Confusions:
    """The most frequent errors with how often they happened.

    Attributes:
        substitutions: (reference, hypothesis, times).
        insertions: (symbol, times).
        deletions: (symbol, times, times it occurs in the references).
        missed: (symbol, times not recognised, times it occurs in the references): where the most errors are.
    """

    substitutions: tuple[tuple[str, str, int], ...]
    insertions: tuple[tuple[str, int], ...]
    deletions: tuple[tuple[str, int, int], ...]
    missed: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Bin:
    """A class of utterances or of words, how many they are, and their errors."""

    label: str
    size: int
    rate: Rate


@dataclass(frozen=True)
class Unlisted:
    """Words of the references that the decoder's word list does not hold.

    Attributes:
        words: how many there are, each as often as it is said.
        reference: how many words were said in all.
        examples: (word, times), the most frequent first.
        utterances: those with such words, and those without.
    """

    words: int
    reference: int
    examples: tuple[tuple[str, int], ...]
    utterances: tuple[Bin, Bin]

    @property
    def share(self) -> float:
        """The out-of-vocabulary share, a fraction."""
        return self.words / self.reference if self.reference else 0.0


def confusions(evaluation: Evaluation, most: int = 20) -> Confusions:
    """Count operations by symbol; equal counts in alphabetical order."""
    ops = [op for utterance in evaluation.utterances for op in utterance.ops]
    occurrences = Counter(op.reference for op in ops if op.kind != "insert")
    substituted = Counter((op.reference, op.hypothesis) for op in ops if op.kind == "substitute")
    inserted = Counter(op.hypothesis for op in ops if op.kind == "insert")
    deleted = Counter(op.reference for op in ops if op.kind == "delete")
    missed = deleted + Counter(op.reference for op in ops if op.kind == "substitute")
    return Confusions(
        tuple((*pair, times) for pair, times in _top(substituted, most)),
        tuple(_top(inserted, most)),
        tuple((symbol, times, occurrences[symbol]) for symbol, times in _top(deleted, most)),
        tuple((symbol, times, occurrences[symbol]) for symbol, times in _top(missed, most)),
    )


def _top(counter: Counter[T], most: int) -> list[tuple[T, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:most]


def worst(evaluation: Evaluation) -> list[UtteranceResult]:
    """Utterances with errors, those that add most to the rate first."""
    wrong = [u for u in evaluation.utterances if u.counts.errors]
    return sorted(wrong, key=lambda u: (-u.counts.errors, -u.counts.rate, u.id))


def duration_profile(evaluation: Evaluation) -> list[Bin]:
    """Error rate by the utterance's duration in seconds."""
    edges = _edges([u.duration_s for u in evaluation.utterances])
    members: list[list[UtteranceResult]] = [[] for _ in edges]
    for utterance in evaluation.utterances:
        members[max(i for i, edge in enumerate(edges) if edge <= utterance.duration_s)].append(utterance)
    return [_bin(label, group) for label, group in zip(_spans(edges, whole=False), members, strict=True)]


def gain(evaluation: Evaluation) -> PairedResult | None:
    """The decoder against greedy decoding of the same output; None where it is greedy, or nothing was said."""
    greedy = evaluation.greedy_rate
    if greedy is None or not greedy.counts.reference:
        return None
    plain = [u.greedy_counts for u in evaluation.utterances if u.greedy_counts is not None]
    return paired_bootstrap(plain, [u.counts for u in evaluation.utterances])


def frequency_profile(evaluation: Evaluation) -> list[Bin]:
    """Substitutions and deletions of reference words, by how frequent the words are, rare ones first.

    How frequent: as the language model expects where there is one (times in a million words), else as often as they
    occur in these references. Words that the language model does not know come first. Empty for phones.
    """
    if evaluation.metric == "per":
        return []
    said = Counter(op.reference for u in evaluation.utterances for op in u.ops if op.kind != "insert")
    per_million = evaluation.vocabulary.per_million if evaluation.vocabulary else {}
    frequency = per_million or {word: float(times) for word, times in said.items()}
    known = [frequency[word] for word in said if word in frequency]
    edges = _rounds(known)
    place = {word: _place(edges, frequency.get(word)) for word in said}
    counts = []
    for utterance in evaluation.utterances:
        cells = [[0, 0, 0] for _ in range(len(edges) + 1)]  # substituted, deleted, said
        for op in utterance.ops:
            if op.kind != "insert":
                cell = cells[place[op.reference]]
                cell[0] += op.kind == "substitute"
                cell[1] += op.kind == "delete"
                cell[2] += 1
        counts.append([ErrorCounts(substituted, 0, deleted, words) for substituted, deleted, words in cells])
    labels = ["unknown", *_spans(edges, whole=not per_million)]
    bins = []
    for label, column in zip(labels, zip(*counts, strict=True), strict=True):
        rate = rate_of(column, resamples=_PROFILE_RESAMPLES)
        bins.append(Bin(label, rate.counts.reference, rate))
    return bins if bins[0].size else bins[1:]


def _place(edges: Sequence[float], frequency: float | None) -> int:
    """0 for the unknown, else one more than the class's place."""
    return 0 if frequency is None else 1 + max((i for i, edge in enumerate(edges) if edge <= frequency), default=0)


def _rounds(values: Sequence[float], most: int = 7) -> list[float]:
    """Round lower edges from 1 on, about as far apart in proportion; the first is 0 where values lie below it."""
    if not values:
        return []
    low, high = min(values), max(values)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        edges = [step * 10.0**power for power in range(7) for step in steps if step * 10.0**power <= high]
        kept = edges[max(0, sum(edge <= low for edge in edges) - 1) :]
        if len(kept) <= most:
            break
    return kept if kept and kept[0] <= low else [0.0, *kept]


def unlisted(evaluation: Evaluation) -> Unlisted | None:
    """The share of out-of-vocabulary words, the errors of utterances with and without; None without a word list."""
    if evaluation.vocabulary is None:
        return None
    missing = set(evaluation.vocabulary.missing)
    said = Counter(word for u in evaluation.utterances for word in u.reference.split())
    found = Counter({word: times for word, times in said.items() if word in missing})
    groups: tuple[list[UtteranceResult], list[UtteranceResult]] = ([], [])
    for utterance in evaluation.utterances:
        groups[missing.isdisjoint(utterance.reference.split())].append(utterance)
    with_them, without = (_bin(label, group) for label, group in zip(("with", "without"), groups, strict=True))
    return Unlisted(found.total(), said.total(), tuple(_top(found, len(found))), (with_them, without))


def confusion_matrix(evaluation: Evaluation, most: int = 40) -> tuple[list[str], dict[tuple[str, str], int]]:
    """The most frequent symbols, and how often each was recognised as each ("" = deleted)."""
    ops = [op for utterance in evaluation.utterances for op in utterance.ops if op.kind != "insert"]
    names = [name for name, _ in _top(Counter(op.reference for op in ops), most)]
    cells = Counter((op.reference, op.hypothesis) for op in ops if op.reference in names)
    return sorted(names), dict(cells)


def _edges(values: Sequence[float], most: int = 8) -> list[float]:
    """Round lower edges of at most `most` classes; the last is open, and begins where few values are left."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.97 * len(ordered)))]
    steps = [m * 10.0**e for e in range(-1, 4) for m in (1, 2, 5)]
    step = next((s for s in steps if high // s - low // s < most), steps[-1])
    first = math.floor(low / step)
    return [round(i * step, 3) for i in range(first, max(first, math.floor(high / step)) + 1)]


def _spans(edges: Sequence[float], *, whole: bool) -> list[str]:
    """Labels of classes between edges; the last is open."""
    return [_span(low, high, whole=whole) for low, high in zip(edges, [*edges[1:], None], strict=bool(edges))]


def _span(low: float, high: float | None, *, whole: bool) -> str:
    if high is None:
        return f"{_short(low)}+"
    if whole:
        return f"{low:g}" if high - low == 1 else f"{low:g}–{high - 1:g}"
    return f"{_short(low)}–{_short(high)}"


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _bin(label: str, members: Sequence[UtteranceResult]) -> Bin:
    return Bin(label, len(members), rate_of([u.counts for u in members], resamples=_PROFILE_RESAMPLES))
