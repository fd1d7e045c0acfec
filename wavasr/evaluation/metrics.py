"""Error rates as counts: alignment, WER, CER, PER, bootstrap intervals, paired comparison.

Counts are summed over the corpus and divided once; nothing here averages rates. Alignments come from jiwer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import jiwer
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from wavasr.errors import TextError
from wavasr.language.lexicon import fold

PhoneSet = Literal[61, 48, 39]
OpKind = Literal["equal", "substitute", "insert", "delete"]

_LARGEST_PAIRED_BLOCK = 2500
_RESAMPLES_AT_ONCE = 1000


@dataclass(frozen=True)
class ErrorCounts:
    """Edit operations between references and hypotheses, and how many symbols the references have."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    reference: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors over reference symbols (1.0 = 100 %); infinite where symbols were invented on an empty reference."""
        if self.reference == 0:
            return 0.0 if self.errors == 0 else math.inf
        return self.errors / self.reference

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.reference + other.reference,
        )

    @classmethod
    def total(cls, counts: Iterable[ErrorCounts]) -> ErrorCounts:
        """The sum over a corpus."""
        return sum(counts, cls())


@dataclass(frozen=True)
class Op:
    """One step of an alignment; an insertion has no reference, a deletion no hypothesis."""

    kind: OpKind
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Alignment:
    """How one hypothesis became its reference."""

    ops: tuple[Op, ...]

    @property
    def counts(self) -> ErrorCounts:
        kinds = [op.kind for op in self.ops]
        inserted = kinds.count("insert")
        return ErrorCounts(kinds.count("substitute"), inserted, kinds.count("delete"), len(kinds) - inserted)


@dataclass(frozen=True)
class Interval:
    """A bootstrap 95 % interval of a rate."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedResult:
    """System B against system A on the same utterances; rates as fractions, negative differences favour B.

    Attributes:
        difference: rate of B minus rate of A.
        interval: bootstrap 95 % interval of the difference.
        probability_b_better: share of the resamples in which B makes fewer errors (a tie is no improvement).
        b_wins: utterances in which B makes fewer errors than A.
        a_wins: utterances in which A makes fewer errors than B.
        ties: utterances with the same number of errors.
    """

    difference: float
    interval: Interval
    probability_b_better: float
    b_wins: int
    a_wins: int
    ties: int


def words(text: str) -> list[str]:
    """Symbols of the word error rate."""
    return text.split()


def characters(text: str) -> list[str]:
    """Symbols of the character error rate: spaces between words count, as in jiwer; runs of spaces are one."""
    return list(" ".join(text.split()))


def phones(text: str, phone_set: PhoneSet | None = 39) -> list[str]:
    """Symbols of the phone error rate.

    Args:
        text: phone labels separated by spaces.
        phone_set: the TIMIT set to score on (Lee & Hon 1989 for 48 and 39; `q` is deleted there), 61 for TIMIT's own
            labels as they are, or None for labels that are not TIMIT's.

    Raises:
        TextError: a label is not one of TIMIT's.
    """
    labels = text.split()
    return labels if phone_set is None else fold(labels, phone_set)


def phone_set_name(phone_set: PhoneSet | None) -> str:
    """The scored phone set in words; a phone error rate means nothing without it."""
    return "the model's own phones" if phone_set is None else f"TIMIT {phone_set} phones"


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Alignment:
    """The alignment with the fewest errors."""
    return align_all([reference], [hypothesis])[0]


def align_all(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> list[Alignment]:
    """`align` for every pair.

    Where a stretch of errors is longer on one side, any choice of partners costs the same: symbols spelled alike
    are paired, so that tables of confusions say what was recognised as what.
    """
    aligned = []
    for reference, hypothesis, chunks in zip(references, hypotheses, _chunks(references, hypotheses), strict=True):
        ops: list[Op] = []
        for same, (i, j), (k, m) in _blocks(chunks):
            if same:
                ops += [Op("equal", symbol, symbol) for symbol in reference[i:j]]
            else:
                ops += _pair(reference[i:j], hypothesis[k:m])
        aligned.append(Alignment(tuple(ops)))
    return aligned


def count_all(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> list[ErrorCounts]:
    """The counts of every pair, without the alignment's symbols (for characters, where there are many)."""
    counts = []
    for reference, chunks in zip(references, _chunks(references, hypotheses), strict=True):
        spans = {"substitute": 0, "insert": 0, "delete": 0, "equal": 0}
        for chunk in chunks:
            reference_span = chunk.ref_end_idx - chunk.ref_start_idx
            spans[chunk.type] += reference_span or chunk.hyp_end_idx - chunk.hyp_start_idx
        counts.append(ErrorCounts(spans["substitute"], spans["insert"], spans["delete"], len(reference)))
    return counts


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Word errors summed over the texts; `.rate` is the word error rate."""
    return ErrorCounts.total(count_all([words(t) for t in references], [words(t) for t in hypotheses]))


def cer(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Character errors summed over the texts; `.rate` is the character error rate."""
    return ErrorCounts.total(count_all([characters(t) for t in references], [characters(t) for t in hypotheses]))


def per(
    references: Sequence[str],
    hypotheses: Sequence[str],
    phone_set: PhoneSet | None = 39,
) -> ErrorCounts:
    """Phone errors summed over the texts, on the phone set named; `.rate` is the phone error rate.

    Raises:
        TextError: a label is not one of TIMIT's.
    """
    sides = [[phones(text, phone_set) for text in side] for side in (references, hypotheses)]
    return ErrorCounts.total(count_all(*sides))


def bootstrap_ci(
    counts: Sequence[ErrorCounts], *, groups: Sequence[str] | None = None, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap 95 % interval of the corpus rate (Bisani & Ney 2004).

    Args:
        counts: one entry per utterance.
        groups: one name per utterance, e.g. its speaker: whole groups are resampled. Utterances of one speaker go
            well or badly together, so this interval is usually wider, and says what new speakers would give.
        resamples: how many corpora are drawn.
        seed: makes the result repeatable.

    Raises:
        TextError: the references are empty.
    """
    rows = _rows([counts], groups)
    errors, reference = _resample(rows, resamples, seed)
    return _percentiles(errors / reference)


def paired_bootstrap(
    a: Sequence[ErrorCounts],
    b: Sequence[ErrorCounts],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedResult:
    """Compare system B with system A on the same utterances (Bisani & Ney 2004, section 4).

    Args: as `bootstrap_ci`; `a` and `b` are in the same order.

    Raises:
        TextError: the references differ or are empty.
    """
    if [x.reference for x in a] != [y.reference for y in b]:
        raise TextError("the two systems were scored on different references; score both on the same utterances")
    rows = _rows([a, b], groups)
    errors_a, errors_b, reference = _resample(rows, resamples, seed)
    gains = [x.errors - y.errors for x, y in zip(a, b, strict=True)]
    return PairedResult(
        difference=-sum(gains) / int(rows[:, -1].sum()),
        interval=_percentiles((errors_b - errors_a) / reference),
        probability_b_better=float(np.mean(errors_b < errors_a)),
        b_wins=sum(g > 0 for g in gains),
        a_wins=sum(g < 0 for g in gains),
        ties=gains.count(0),
    )


def share_interval(hits: int, of: int) -> Interval:
    """The 95 % interval of a share of independent cases (Wilson 1927)."""
    z = 1.959964
    share, more = hits / of, z * z / of
    centre, half = share + more / 2, math.sqrt(more * share * (1 - share) + more * more / 4)
    return Interval(max(0.0, (centre - half) / (1 + more)), min(1.0, (centre + half) / (1 + more)))


def _chunks(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]
) -> list[list[jiwer.AlignmentChunk]]:
    if not references and not hypotheses:
        return []
    # An empty chain of transforms hands jiwer the symbols as they are: no splitting, no stripping.
    as_given = jiwer.Compose([])
    lists = [cast(Any, [list(symbols) for symbols in side]) for side in (references, hypotheses)]
    return jiwer.process_words(lists[0], lists[1], as_given, as_given).alignments


def _blocks(
    chunks: Sequence[jiwer.AlignmentChunk],
) -> Iterator[tuple[bool, tuple[int, int], tuple[int, int]]]:
    """Neighbouring chunks of errors joined: (all equal?, reference span, hypothesis span)."""
    pending: tuple[int, int] | None = None
    end = (0, 0)
    for chunk in chunks:
        if chunk.type == "equal":
            if pending is not None:
                yield False, (pending[0], chunk.ref_start_idx), (pending[1], chunk.hyp_start_idx)
            yield True, (chunk.ref_start_idx, chunk.ref_end_idx), (chunk.hyp_start_idx, chunk.hyp_end_idx)
            pending = None
        elif pending is None:
            pending = (chunk.ref_start_idx, chunk.hyp_start_idx)
        end = (chunk.ref_end_idx, chunk.hyp_end_idx)
    if pending is not None:
        yield False, (pending[0], end[0]), (pending[1], end[1])


def _pair(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Op]:
    """Partners inside a block of errors: the shorter side is matched whole, in order, to what is spelled most alike."""
    n, m = len(reference), len(hypothesis)
    partners = _partners(reference, hypothesis) if n <= m else _partners(hypothesis, reference)
    pairs = [(i, j) for i, j in enumerate(partners)] if n <= m else [(j, i) for i, j in enumerate(partners)]
    ops: list[Op] = []
    row = column = 0
    for i, j in [*pairs, (n, m)]:
        ops += [Op("delete", symbol, "") for symbol in reference[row:i]]
        ops += [Op("insert", "", symbol) for symbol in hypothesis[column:j]]
        if i < n and j < m:
            ops.append(Op("substitute", reference[i], hypothesis[j]))
        row, column = i + 1, j + 1
    return ops


def _partners(short: Sequence[str], long: Sequence[str]) -> list[int]:
    """For each symbol of `short` the index of its partner in `long`, increasing, least spelling distance in all."""
    n, m = len(short), len(long)
    if n == m or n == 0 or n * m > _LARGEST_PAIRED_BLOCK:
        return list(range(n))
    cost = np.full((n + 1, m + 1), np.inf)
    cost[0] = 0.0
    for i in range(1, n + 1):
        for j in range(i, m - n + i + 1):
            match = cost[i - 1, j - 1] + Levenshtein.normalized_distance(short[i - 1], long[j - 1])
            cost[i, j] = min(cost[i, j - 1], match)
    partners = []
    j = m
    for i in range(n, 0, -1):
        while cost[i, j - 1] == cost[i, j]:
            j -= 1
        partners.append(j - 1)
        j -= 1
    return partners[::-1]


def _rows(systems: Sequence[Sequence[ErrorCounts]], groups: Sequence[str] | None) -> NDArray[np.int64]:
    """(N, systems + 1): errors of each system, then reference symbols, per utterance or per group."""
    columns = [[c.errors for c in system] for system in systems] + [[c.reference for c in systems[0]]]
    rows = np.array(columns, dtype=np.int64).T
    if groups is not None:
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        summed = np.zeros((len(names), rows.shape[1]), dtype=np.int64)
        np.add.at(summed, index, rows)
        rows = summed
    if rows.size == 0 or rows[:, -1].sum() == 0:
        raise TextError("no reference symbols to score against; expected transcripts that are not empty")
    return rows


def _resample(rows: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.int64]:
    """(columns, resamples) sums over N rows drawn with replacement.

    Rows that are equal are interchangeable, so how often each distinct row is drawn is multinomial: the cost depends
    on the distinct rows (some hundreds), not on the utterances.
    """
    distinct, multiplicity = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    shares = multiplicity / len(rows)
    sums = []
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        drawn = rng.multinomial(len(rows), shares, size=min(_RESAMPLES_AT_ONCE, resamples - start))
        sums.append(drawn @ distinct)
    totals = np.concatenate(sums).T
    # A resample of nothing but empty references has no rate.
    return cast("NDArray[np.int64]", totals[:, totals[-1] > 0])


def _percentiles(rates: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(rates, [2.5, 97.5])
    return Interval(float(low), float(high))
