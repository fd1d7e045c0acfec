"""What language model, word list and word frequency do to errors, by hand and by second paths; and odd evaluations."""

import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest

from wavasr.corpora.manifest import Utterance
from wavasr.decoding.confidence import reliability
from wavasr.errors import WavasrError
from wavasr.evaluation import report
from wavasr.evaluation.metrics import ErrorCounts, count_all, share_interval
from wavasr.evaluation.report import analysis, charts
from wavasr.evaluation.results import Evaluation, Failure, Provenance, UtteranceResult, Vocabulary, assemble
from wavasr.evaluation.scoring import score
from wavasr.language.config import TextConfig
from wavasr.language.text import Units

LETTERS = Units.characters(["abcdefghijklmnopqrstuvwxyz "])
KNOWN = {"the": 60_000.0, "a": 20_000.0, "cat": 300.0, "sat": 90.0, "axolotl": 0.4}


def result(
    name: str, said: str, recognised: str, greedy: str | None = None, duration_s: float = 2.0
) -> UtteranceResult:
    utterance = Utterance(name, Path(f"{name}.wav"), duration_s, said, f"s{len(name) % 2}")
    found = score(utterance, recognised, units=LETTERS, text=TextConfig())
    if greedy is None:
        return found
    return replace(found, greedy=greedy, greedy_counts=count_all([said.split()], [greedy.split()])[0])


@pytest.fixture
def evaluation() -> Evaluation:
    results = [
        result("a", "the cat sat", "the cat sat", "the cut sat"),
        result("bb", "the axolotl sat", "the lot sat on", "the axlotl sat"),
        result("c", "zorro sat", "sorrow", "zoro sad"),
        result("dd", "the the zorro", "the the", "the the zorro"),
        result("e", "", "", ""),
    ]
    vocabulary = Vocabulary("language model lm.arpa", 5, ("zorro",), KNOWN)
    provenance = Provenance(decoder="beam of 100, language model lm.arpa (weight 0.4, word score 1.5)")
    return assemble(results, vocabulary=vocabulary, provenance=provenance)


def rows(bins: list[analysis.Bin]) -> list[tuple[str, int, int, int]]:
    """(label, size, substitutions, deletions)"""
    return [(b.label, b.size, b.rate.counts.substitutions, b.rate.counts.deletions) for b in bins]


def test_frequency_as_the_language_model_has_it(evaluation: Evaluation) -> None:
    # zorro is missed twice ("sorrow", and missing); axolotl once; sat once: "zorro sat" became one word.
    assert rows(analysis.frequency_profile(evaluation)) == [
        ("unknown", 2, 1, 1),
        ("0–1", 1, 1, 0),
        ("1–10", 0, 0, 0),
        ("10–100", 3, 0, 1),
        ("100–1k", 1, 0, 0),
        ("1k–10k", 0, 0, 0),
        ("10k+", 4, 0, 0),
    ]
    assert sum(b.rate.counts.insertions for b in analysis.frequency_profile(evaluation)) == 0


def test_frequency_in_the_references_where_nothing_else_tells(evaluation: Evaluation) -> None:
    plain = replace(evaluation, vocabulary=None)
    # once: cat, axolotl; twice and more: the (4), sat (3), zorro (2)
    assert rows(analysis.frequency_profile(plain)) == [("1", 2, 1, 0), ("2+", 9, 1, 2)]
    listed = replace(evaluation, vocabulary=Vocabulary("lexicon words.txt", 4, ("zorro",)))
    assert rows(analysis.frequency_profile(listed)) == rows(analysis.frequency_profile(plain))


def test_every_reference_word_is_in_one_class() -> None:
    rng = random.Random(1)
    names = [f"w{i}" for i in range(200)]
    weights = [1 / (i + 1) for i in range(200)]
    results = []
    for i in range(300):
        said = rng.choices(names, weights, k=8)
        recognised = [word for word in said if rng.random() > 0.1] + ["more"]
        results.append(result(f"u{i}", " ".join(said), " ".join(recognised)))
    shown = assemble(results)
    bins = analysis.frequency_profile(shown)
    assert sum(b.size for b in bins) == shown.rate.counts.reference == 2400
    missed = [b.rate.counts.substitutions + b.rate.counts.deletions for b in bins]
    assert sum(missed) == shown.rate.counts.substitutions + shown.rate.counts.deletions
    assert 4 <= len(bins) <= 8 and all(b.size for b in bins[:2])
    # The interval against a plain resampling of utterances, in another way.
    aligned = [[op for op in u.ops if op.kind != "insert"] for u in results]
    times = Counter(op.reference for ops in aligned for op in ops)
    frequent = [[op for op in ops if times[op.reference] >= 300] for ops in aligned]
    per_utterance = np.array([[sum(op.kind != "equal" for op in ops), len(ops)] for ops in frequent])
    last = bins[-1]
    assert last.label == "300+" and last.size == per_utterance[:, 1].sum()
    drawn = per_utterance[np.random.default_rng(3).integers(0, 300, (4000, 300))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    assert last.rate.ci95 is not None
    assert (last.rate.ci95.low, last.rate.ci95.high) == pytest.approx((low, high), abs=0.004)


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        ([], []),
        ([1.0], [1]),
        ([3.0, 40.0], [2, 5, 10, 20]),
        ([0.2, 0.5], [0]),
        ([0.2, 7.0], [0, 1, 2, 5]),
        ([1.0, 700.0], [1, 3, 10, 30, 100, 300]),
        ([0.01, 60_000.0], [0, 1, 10, 100, 1000, 10_000]),
    ],
)
def test_classes_of_frequency_are_round_and_few(values: list[float], edges: list[float]) -> None:
    assert analysis._rounds(values) == edges


def test_out_of_vocabulary_by_hand(evaluation: Evaluation) -> None:
    found = analysis.unlisted(evaluation)
    assert found is not None
    assert (found.words, found.reference, found.examples) == (2, 11, (("zorro", 2),))
    assert found.share == pytest.approx(2 / 11)
    with_them, without = found.utterances
    # c: one substitution, one deletion in two words; dd: one deletion in three.
    assert (with_them.size, with_them.rate.counts) == (2, ErrorCounts(1, 0, 2, 5))
    # a: right; bb: one substitution, one insertion; e: nothing said.
    assert (without.size, without.rate.counts) == (3, ErrorCounts(1, 1, 0, 6))
    assert ErrorCounts.total(b.rate.counts for b in found.utterances) == evaluation.rate.counts
    assert analysis.unlisted(replace(evaluation, vocabulary=None)) is None


def test_with_and_without_the_language_model(evaluation: Evaluation) -> None:
    said = [u.reference for u in evaluation.utterances]
    greedy = [u.greedy or "" for u in evaluation.utterances]
    judged = jiwer.process_words(said[:-1], greedy[:-1])  # it takes no empty reference
    assert evaluation.greedy_rate is not None
    assert evaluation.greedy_rate.value == pytest.approx(judged.wer) == pytest.approx(4 / 11)
    gain = analysis.gain(evaluation)
    assert gain is not None
    assert gain.difference == pytest.approx(evaluation.rate.value - judged.wer)
    # fewer errors in a; more in bb and dd; as many in c and e
    assert (gain.b_wins, gain.a_wins, gain.ties) == (1, 2, 2)
    assert analysis.gain(replace(evaluation, greedy_rate=None)) is None


def test_the_three_forms_say_it(evaluation: Evaluation, tmp_path: Path) -> None:
    page = report.write_report(evaluation, tmp_path)
    assert report.read(tmp_path) == evaluation
    values: dict[str, Any] = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert values["greedy"]["value"] == pytest.approx(4 / 11)
    assert values["greedy"]["difference"] == pytest.approx(1 / 11)
    assert values["vocabulary"]["share"] == pytest.approx(2 / 11)
    assert values["vocabulary"]["utterances_with"]["value"] == pytest.approx(3 / 5)
    assert values["vocabulary"]["utterances_without"]["size"] == 3
    assert values["profiles"]["word_frequency"]["by"] == "language model"
    assert [c["size"] for c in values["profiles"]["word_frequency"]["classes"]] == [2, 1, 0, 3, 1, 0, 4]
    assert sum(c["size"] for c in values["profiles"]["duration_s"]) == 5
    summary, text = report.summary(evaluation), (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "(greedy): WER 36.36 %; with them +9.09 points" in summary
    assert "out of vocabulary (5 words of language model lm.arpa): 18.18 %, 2 of 11 words, 1 different" in summary
    for part in ("| without (greedy) | 36.36 %", "- difference: +9.09 points", "**Out of vocabulary: 18.18 %**"):
        assert part in text, part
    for form in (summary, text):
        assert "beam of 100, language model lm.arpa (weight 0.4, word score 1.5)" in form
    html = page.read_text(encoding="utf-8")
    for part in ("Out of vocabulary: 18.18 %", "zorro (2)", "without (greedy)", 'id="decoder"', "10k+: 0.0 %, 4 words"):
        assert part in html, part


def test_greedy_reports_have_no_such_section(tmp_path: Path) -> None:
    plain = assemble([result("a", "the cat", "the cut"), result("b", "sat", "sat")])
    html = report.write_report(plain, tmp_path).read_text(encoding="utf-8")
    assert 'id="decoder"' not in html and "times in these references" in html
    values = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert values["greedy"] is None and values["vocabulary"] is None
    assert values["profiles"]["word_frequency"]["by"] == "references"
    assert "vocabulary" not in report.summary(plain) and "greedy" not in report.summary(plain)


def test_reports_from_before_are_read(evaluation: Evaluation, tmp_path: Path) -> None:
    values = json.loads(report.to_json(evaluation))
    for key in ("greedy", "vocabulary", "profiles"):
        del values[key]
    for utterance in values["utterances"]:
        del utterance["greedy"], utterance["greedy_errors"]
    old = tmp_path / "report.json"
    old.write_text(json.dumps(values), encoding="utf-8")
    found = report.read(old)
    assert found.greedy_rate is None and found.vocabulary is None
    assert found.rate == evaluation.rate


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("greedy", lambda v: v["greedy"].update(substitutions=99)),
        ("greedy", lambda v: v["utterances"][0].pop("greedy_errors")),
        ("Vocabulary.missing", lambda v: v["vocabulary"].update(missing=[1])),
        ("Vocabulary.per_million", lambda v: v["vocabulary"]["per_million"].update(cat="often")),
        ("Vocabulary.size", lambda v: v["vocabulary"].update(size="many")),
    ],
)
def test_damage_is_named(evaluation: Evaluation, tmp_path: Path, key: str, change: Any) -> None:
    values = json.loads(report.to_json(evaluation))
    change(values)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(WavasrError, match=key.replace(".", r"\.")):
        report.read(path)


@pytest.mark.parametrize("case", ["one", "empty", "all unknown", "failures", "one each"])
def test_odd_evaluations_make_a_report(case: str, tmp_path: Path) -> None:
    nothing_known = Vocabulary("lexicon <b>.txt", 1, ("cat", "the"))
    made = {
        "one": lambda: assemble([result("a", "the cat", "the", "cat")], vocabulary=Vocabulary("lexicon x", 2)),
        "empty": lambda: assemble([result("a", "", "x", ""), result("b", "", "", "")], vocabulary=Vocabulary("x", 1)),
        "all unknown": lambda: assemble([result("a", "the cat", "", "")] * 2, vocabulary=nothing_known),
        "failures": lambda: assemble([result("a", "the", "the", "a")], [Failure("x", "x.wav", "x.wav: cut off")]),
        "one each": lambda: assemble([result("a", "the", "a", "the"), result("bb", "cat", "cat", "cat")]),
    }
    shown = made[case]()
    page = report.write_report(shown, tmp_path / "report")
    assert report.read(page.parent) == shown
    assert report.summary(shown)
    for name in ("report.html", "report.md", "report.json"):
        assert not re.search(r"\b(nan|inf)\b", (page.parent / name).read_text(encoding="utf-8"), re.IGNORECASE)
    assert "<b>.txt" not in page.read_text(encoding="utf-8")


def test_one_utterance_has_no_interval_and_decides_nothing(tmp_path: Path) -> None:
    one, better = assemble([result("a", "the cat", "a cut")]), assemble([result("a", "the cat", "the cat")])
    assert one.rate.ci95 is None
    assert assemble([result("a", "the cat", "a"), result("b", "", "")]).rate.ci95 is None
    found = report.compare(better, one)
    assert not found.decided and found.verdict.startswith("No difference shown")
    page = report.write_report(better, tmp_path, one).read_text(encoding="utf-8")
    assert "No interval: too few utterances" in page


def test_no_error_is_no_certainty() -> None:
    shown = assemble([result("a", "the cat", "the cat"), result("bb", "the cat", "the cat")])
    assert shown.rate.ci95 is not None and shown.rate.ci95_speakers is None
    # 0 of 4: z^2 / (4 + z^2)
    assert (shown.rate.ci95.low, shown.rate.ci95.high) == (0.0, pytest.approx(3.8415 / 7.8415, abs=1e-4))


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (1, 1), (3, 7), (90, 144), (0, 50)])
def test_interval_of_a_share(hits: int, of: int) -> None:
    # Its ends are the shares p from which hits/of is 1.96 standard errors of p away.
    found = share_interval(hits, of)
    assert 0 <= found.low <= hits / of <= found.high <= 1
    for p in {found.low, found.high} - {0.0, 1.0, hits / of}:
        assert abs(p - hits / of) / np.sqrt(p * (1 - p) / of) == pytest.approx(1.96, abs=1e-3)


def test_the_calibration_plot_stands_on_its_axis() -> None:
    picture = charts.reliability(reliability([(0.95, True)] * 9 + [(0.95, False), (0.25, True)]), "Own", "words")
    # Ticks lie at the edges of the columns, so that the diagonal is where both axes are alike.
    for edge in ("0", "0.1", "0.9", "1"):
        assert f'x="{100 * float(edge):.2f}%" y="198.0" text-anchor="middle">{edge}<' in picture
    assert 'cx="95.00%" cy="29.0"' in picture, "nine of ten are right: 12 + 0.1 * 170"
    assert '<line class="gap" x1="95.00%" x2="95.00%" y1="29.0" y2="20.5">' in picture
    assert "confidence 0.9 to 1.0, 0.95 on average: 90.0 % (59.6 – 98.2) of 10 words right" in picture


def test_figures_in_words_of_one_and_of_many() -> None:
    alone = assemble([result("a", "the", "the cat sat on the cat sat on a cat and sat")])
    assert "Of 100 words 0 are replaced by others and 0 are missing; 1,100 are added." in report.markdown(alone)
    assert "11 errors in 1 word: " in report.summary(alone) and "1 utterance (0 without an error)" in report.summary(
        alone
    )
    hundred = ["the"] * 200
    few = assemble([result("a", " ".join(hundred), " ".join(["cat", *hundred[1:]]))])
    assert "Of 100 words 0.5 are replaced by others" in report.markdown(few)
    assert "1 error in 200 words: " in report.summary(few)
