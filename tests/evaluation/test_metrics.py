"""Error rates against kaldialign, jiwer, exact small cases, and a brute-force minimum."""

import itertools
import random
import time

import jiwer
import kaldialign
import numpy as np
import pytest

from wavasr.errors import TextError
from wavasr.evaluation import metrics
from wavasr.evaluation.metrics import Alignment, ErrorCounts, Op, align, bootstrap_ci, cer, paired_bootstrap, per, wer

VOCABULARY = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "oh",
    "erase",
    "rubout",
    "go",
    "stop",
    "help",
    "yes",
    "no",
]


def corrupt(words: list[str], rng: random.Random, rate: float) -> list[str]:
    kept = [rng.choice(VOCABULARY) if rng.random() < rate else w for w in words if rng.random() > rate / 2]
    return [x for w in kept for x in ([w, rng.choice(VOCABULARY)] if rng.random() < rate / 3 else [w])]


def corpus(n: int, rate: float, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    rng = random.Random(seed)
    references = [[rng.choice(VOCABULARY) for _ in range(rng.randint(1, 12))] for _ in range(n)]
    # Some utterances are harder than others, as with real speakers.
    return references, [corrupt(words, rng, rate * rng.choice([0.2, 1.0, 2.0])) for words in references]


def test_counts_are_those_of_jiwer_and_kaldialign() -> None:
    references, hypotheses = corpus(200, 0.3)
    texts = [" ".join(r) for r in references], [" ".join(h) for h in hypotheses]
    counts = wer(*texts)
    judged = jiwer.process_words(*(list(t) for t in texts))
    assert (counts.substitutions, counts.insertions, counts.deletions) == (
        judged.substitutions,
        judged.insertions,
        judged.deletions,
    )
    assert counts.rate == pytest.approx(kaldialign.batch_error_rate(references, hypotheses)["err_rate"])
    assert cer(*texts).rate == pytest.approx(jiwer.cer(*(list(t) for t in texts)))


def test_alignment_agrees_with_the_counts_and_spells_both_sides() -> None:
    references, hypotheses = corpus(200, 0.5, seed=1)
    for reference, hypothesis, counts in zip(
        references, hypotheses, metrics.count_all(references, hypotheses), strict=True
    ):
        alignment = align(reference, hypothesis)
        assert alignment.counts == counts
        assert [op.reference for op in alignment.ops if op.kind != "insert"] == reference
        assert [op.hypothesis for op in alignment.ops if op.kind != "delete"] == hypothesis
        assert counts.errors == kaldialign.edit_distance(reference, hypothesis)["total"]


def test_fewest_errors_by_brute_force() -> None:
    def distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    sequences = [s for n in range(4) for s in itertools.product("ab", repeat=n)]
    for a, b in itertools.product(sequences, sequences):
        assert align(a, b).counts.errors == distance(a, b)


def test_partners_in_a_stretch_of_errors_are_spelled_alike() -> None:
    alignment = align(["please", "call", "again"], ["cold", "a", "gain"])
    assert alignment.counts == ErrorCounts(3, 0, 0, 3)
    alignment = align(["rubout", "g"], ["ruba", "out", "gee"])
    assert alignment.ops == (Op("substitute", "rubout", "ruba"), Op("insert", "", "out"), Op("substitute", "g", "gee"))
    alignment = align(["the", "seventeen", "x"], ["seventy", "x"])
    assert alignment == Alignment(
        (Op("delete", "the", ""), Op("substitute", "seventeen", "seventy"), Op("equal", "x", "x"))
    )


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("", "", ErrorCounts()),
        ("", "a b", ErrorCounts(0, 2, 0, 0)),
        ("a b", "", ErrorCounts(0, 0, 2, 2)),
        ("  a   b ", "a b", ErrorCounts(0, 0, 0, 2)),
        ("a,b", "a b", ErrorCounts(1, 1, 0, 1)),
        ("один два", "один три", ErrorCounts(1, 0, 0, 2)),
    ],
)
def test_edges(reference: str, hypothesis: str, counts: ErrorCounts) -> None:
    assert wer([reference], [hypothesis]) == counts


def test_rate_without_reference() -> None:
    assert ErrorCounts().rate == 0.0
    assert ErrorCounts(insertions=2).rate == float("inf")
    assert wer([], []) == ErrorCounts()


def test_counts_are_summed_and_divided_once() -> None:
    counts = ErrorCounts.total([ErrorCounts(1, 0, 0, 1), ErrorCounts(0, 0, 0, 9)])
    assert counts.rate == 0.1


def test_cer_counts_spaces_once() -> None:
    assert cer(["a  b"], ["ab"]) == ErrorCounts(0, 0, 1, 3)


def test_per_folds_to_39_phones() -> None:
    reference = "h# sh ix hv eh dcl jh ih q h#"
    hypothesis = "sil sh ih hh ah sil jh ih sil"
    assert per([reference], [hypothesis]) == ErrorCounts(1, 0, 0, 9)
    assert per([reference], ["h# sh ix"], phone_set=61).reference == 10
    assert per(["sil sil aa"], ["sil aa"]).errors == 1
    assert per(["A1 B"], ["A1 C"], phone_set=None).substitutions == 1
    with pytest.raises(TextError):
        per(["not_a_phone"], [""])


def test_the_phone_set_has_a_name() -> None:
    assert metrics.phone_set_name(39) == "TIMIT 39 phones"
    assert "own" in metrics.phone_set_name(None)


def test_interval_is_that_of_kaldialign() -> None:
    references, hypotheses = corpus(300, 0.25)
    judged = kaldialign.bootstrap_wer_ci(references, hypotheses, replications=10_000)
    interval = bootstrap_ci(metrics.count_all(references, hypotheses))
    assert interval.low == pytest.approx(judged["ci95min"], abs=0.003)
    assert interval.high == pytest.approx(judged["ci95max"], abs=0.003)


def test_interval_covers_the_true_rate() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        errors = rng.binomial(8, 0.2, size=60)
        interval = bootstrap_ci([ErrorCounts(int(e), 0, 0, 8) for e in errors], resamples=500, seed=trial)
        covered += interval.low <= 0.2 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_grouped_resampling_is_plain_resampling_of_the_sums() -> None:
    counts = [ErrorCounts(i % 3, 0, 0, 5) for i in range(40)]
    speakers = [f"s{i // 4}" for i in range(40)]
    summed = [ErrorCounts.total(counts[4 * i : 4 * i + 4]) for i in range(10)]
    assert bootstrap_ci(counts, groups=speakers) == bootstrap_ci(summed)
    # All errors in one speaker: resampling speakers must say that far more is open.
    skewed = [ErrorCounts(5 if i < 4 else 0, 0, 0, 5) for i in range(40)]
    plain, by_speaker = bootstrap_ci(skewed), bootstrap_ci(skewed, groups=speakers)
    assert by_speaker.high - by_speaker.low > 1.5 * (plain.high - plain.low)


def test_bootstrap_repeats_with_its_seed() -> None:
    counts = metrics.count_all(*corpus(50, 0.3))
    assert bootstrap_ci(counts, seed=3) == bootstrap_ci(counts, seed=3)
    assert bootstrap_ci(counts, seed=3) != bootstrap_ci(counts, seed=4)


def test_no_errors_and_empty_references() -> None:
    interval = bootstrap_ci([ErrorCounts(0, 0, 0, 4)] * 10)
    assert (interval.low, interval.high) == (0.0, 0.0)
    assert bootstrap_ci([ErrorCounts(0, 0, 0, 4), ErrorCounts()]).high == 0.0
    with pytest.raises(TextError, match="no reference"):
        bootstrap_ci([ErrorCounts()])
    with pytest.raises(TextError, match="no reference"):
        bootstrap_ci([])


def test_paired_comparison_is_that_of_kaldialign() -> None:
    references, worse = corpus(300, 0.30, seed=1)
    rng = random.Random(9)
    better = [r if rng.random() < 0.1 else h for r, h in zip(references, worse, strict=True)]
    better = [corrupt(h, rng, 0.04) for h in better]
    judged = kaldialign.bootstrap_wer_ci(references, worse, better, replications=10_000)
    a, b = metrics.count_all(references, worse), metrics.count_all(references, better)
    result = paired_bootstrap(a, b)
    assert 0.02 < judged["p_s2_improv_over_s1"] < 0.98, "the case should be undecided, or it tests nothing"
    assert result.probability_b_better == pytest.approx(judged["p_s2_improv_over_s1"], abs=0.02)
    assert result.difference == pytest.approx(ErrorCounts.total(b).rate - ErrorCounts.total(a).rate)
    assert result.interval.low < result.difference < result.interval.high
    assert result.a_wins + result.b_wins + result.ties == 300
    swapped = paired_bootstrap(b, a)
    assert (swapped.a_wins, swapped.difference) == (result.b_wins, -result.difference)


def test_a_system_does_not_improve_on_itself() -> None:
    counts = metrics.count_all(*corpus(50, 0.3))
    result = paired_bootstrap(counts, counts)
    assert (result.probability_b_better, result.difference, result.ties) == (0.0, 0.0, 50)
    assert (result.interval.low, result.interval.high) == (0.0, 0.0)


def test_pairing_reduces_the_uncertainty() -> None:
    references, worse = corpus(200, 0.5, seed=2)
    a = metrics.count_all(references, worse)
    b = [
        ErrorCounts(max(0, c.substitutions - (i % 4 == 0)), c.insertions, c.deletions, c.reference)
        for i, c in enumerate(a)
    ]
    result = paired_bootstrap(a, b)
    assert bootstrap_ci(a).low < bootstrap_ci(b).high, "the plain intervals overlap"
    assert result.probability_b_better == 1.0


def test_different_references_are_refused() -> None:
    with pytest.raises(TextError, match="different references"):
        paired_bootstrap([ErrorCounts(0, 0, 0, 3)], [ErrorCounts(0, 0, 0, 4)])


def test_a_large_test_set_takes_a_moment() -> None:
    counts = metrics.count_all(*corpus(5000, 0.2)) * 20
    start = time.perf_counter()
    bootstrap_ci(counts)
    assert time.perf_counter() - start < 5, "100,000 utterances, 10,000 resamples"


def test_long_stretches_of_errors_stay_cheap() -> None:
    alignment = align([f"r{i}" for i in range(300)], [f"h{i}" for i in range(400)])
    assert alignment.counts == ErrorCounts(300, 100, 0, 300)
