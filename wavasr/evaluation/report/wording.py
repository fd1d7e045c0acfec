"""Figures in words, alike in every form of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath

from wavasr.decoding.confidence import ConfidenceMap
from wavasr.errors import counted
from wavasr.evaluation.metrics import ErrorCounts, Interval, PairedResult
from wavasr.evaluation.report import analysis
from wavasr.evaluation.results import Evaluation, Rate, speaker_rates


def percent(rate: float, digits: int = 2) -> str:
    """0.0595 -> "5.95 %"."""
    return f"{100 * rate:.{digits}f} %" if math.isfinite(rate) else "no reference"


def points(difference: float) -> str:
    """-0.012 -> "−1.20", in percentage points."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def interval(ci: Interval | None, digits: int = 2) -> str:
    """The interval in percent: "4.60 – 7.40"."""
    return f"{100 * ci.low:.{digits}f} – {100 * ci.high:.{digits}f}" if ci else "none"


def difference(paired: PairedResult) -> str:
    """In percentage points: "−1.20 points (95 % interval −2.10 to −0.31)"."""
    low, high = points(paired.interval.low), points(paired.interval.high)
    return f"{points(paired.difference)} points (95 % interval {low} to {high})"


def duration(seconds: float) -> str:
    """3725 -> "1 h 2 min", 75 -> "1.2 min", 12.34 -> "12.3 s"."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def speed(evaluation: Evaluation) -> str:
    """How much faster than speech: "12.3 × real time"."""
    factor = evaluation.real_time_factor
    return f"{1 / factor:,.1f} × real time" if factor else "not measured"


def symbols(evaluation: Evaluation) -> str:
    """What is counted."""
    return "phones" if evaluation.metric == "per" else "words"


def rate_name(metric: str) -> str:
    """A metric's full name: "wer" -> "Word error rate"."""
    return {"wer": "Word", "cer": "Character", "per": "Phone"}[metric] + " error rate"


def title(evaluation: Evaluation) -> str:
    """What was evaluated on what: "default on dev.jsonl"."""
    manifest = PurePosixPath(evaluation.provenance.manifest.replace("\\", "/")).name
    return f"Evaluation of {model_name(evaluation)}" + (f" on {manifest}" if manifest else "")


def verdict(evaluation: Evaluation) -> str:
    """The result in plain words: how many errors of which kind in a hundred words, and the speakers' range."""
    found, one = evaluation.rate.counts, symbols(evaluation).removesuffix("s")
    if not found.reference:
        return "The references are empty, so there is no error rate."
    if not found.errors:
        return f"Every {one} is right."
    kinds = (found.substitutions, found.deletions, found.insertions)
    replaced, missed, added = (_of_hundred(n / found.reference) for n in kinds)
    text = f"Of 100 {one}s {replaced} are replaced by others and {missed} are missing; {added} are added."
    rates = [(rate.value, name) for name, rate in speaker_rates(evaluation).items() if rate.counts.reference]
    if len(rates) < 2:
        return text
    (low, best), (high, worst) = min(rates), max(rates)
    return f"{text} Speaker {best} has the fewest errors ({percent(low, 1)}), {worst} the most ({percent(high, 1)})."


def _of_hundred(share: float) -> str:
    """Whole numbers; below ten, where they come from, one decimal."""
    return f"{100 * share:,.0f}" if share >= 0.0995 else f"{100 * share:.2g}"


def model_name(evaluation: Evaluation) -> str:
    """The model by its file's name."""
    provenance = evaluation.provenance
    return PurePosixPath(provenance.model.replace("\\", "/")).name or provenance.model_sha256[:12] or "the model"


def system_name(evaluation: Evaluation) -> str:
    """The model, by its file's name, and its decoder."""
    decoder = evaluation.provenance.decoder
    return f"{model_name(evaluation)} ({decoder})" if decoder else model_name(evaluation)


def counts(found: ErrorCounts, what: str) -> str:
    """In words: "46 errors in 773 words: 30 substituted, 5 inserted, 11 deleted"."""
    return (
        f"{counted(found.errors, 'error')} in {counted(found.reference, what.removesuffix('s'))}: "
        f"{found.substitutions:,} substituted, {found.insertions:,} inserted, {found.deletions:,} deleted"
    )


def headline(evaluation: Evaluation) -> list[tuple[str, Rate]]:
    """The corpus rates with their short names."""
    rates: list[tuple[str, Rate]] = [(evaluation.metric, evaluation.rate)]
    if evaluation.character_rate is not None:
        rates.append(("cer", evaluation.character_rate))
    return rates


def summary(evaluation: Evaluation) -> str:
    """A few lines for a terminal."""
    lines = []
    for name, rate in headline(evaluation):
        what = "characters" if name == "cer" else symbols(evaluation)
        ci = f" (95 % interval {interval(rate.ci95)})" if rate.ci95 else ""
        lines.append(f"{name.upper()} {percent(rate.value)}{ci}: {counts(rate.counts, what)}")
    if evaluation.phone_set:
        lines.append(f"scored on {evaluation.phone_set}")
    lines.append(scope(evaluation))
    if evaluation.greedy_rate and evaluation.provenance.decoder:
        lines.append(f"decoded with a {evaluation.provenance.decoder}")
    lines += [line for line in (without_lm(evaluation), unlisted(evaluation), calibration(evaluation)) if line]
    return "\n".join([*lines, *(f"note: {note}" for note in evaluation.notes)])


def without_lm(evaluation: Evaluation) -> str:
    """What the same model says without word list and language model, in one line; "" where it was not decoded so."""
    rate, gain = evaluation.greedy_rate, analysis.gain(evaluation)
    if rate is None or gain is None:
        return ""
    return (
        f"without language model and word list (greedy): {evaluation.metric.upper()} {percent(rate.value)}; "
        f"with them {difference(gain)}"
    )


def unlisted(evaluation: Evaluation) -> str:
    """The share of out-of-vocabulary words, in one line; "" where any word can be spelled."""
    found, vocabulary = analysis.unlisted(evaluation), evaluation.vocabulary
    if found is None or vocabulary is None:
        return ""
    different = f", {len(found.examples):,} different" if found.words else ""
    return (
        f"out of vocabulary ({vocabulary.size:,} words of {vocabulary.source}): {percent(found.share)}, "
        f"{found.words:,} of {counted(found.reference, 'word')}{different}"
    )


def examples(found: Sequence[tuple[str, int]], most: int = 12) -> str:
    """Words and how often they occur: "zen (3), oslo, …"; those that occur once without a number."""
    shown = [f"{word} ({times:,})" if times > 1 else word for word, times in found[:most]]
    return ", ".join(shown + (["…"] if len(found) > most else []))


def frequency_source(evaluation: Evaluation) -> str:
    """Where the frequencies of words come from."""
    if evaluation.vocabulary and evaluation.vocabulary.per_million:
        return "times in a million words, as the language model expects"
    return "times in these references"


def calibration(evaluation: Evaluation) -> str:
    """How far confidences are from shares of right words, in one line; "" where the decoder gives none."""
    own = evaluation.reliability()
    if own is None:
        return ""
    what = f"{own.words:,} {symbols(evaluation)}"
    if evaluation.calibration is None:
        return f"confidences: expected calibration error {percent(own.ece)} on {what}; not calibrated"
    mapped = evaluation.reliability(evaluation.calibration)
    assert mapped is not None
    return (
        f"confidences: expected calibration error {percent(mapped.ece)} on {what}; "
        f"{percent(own.ece)} without the model's calibration"
    )


def fitted(found: ConfidenceMap) -> str:
    """What a calibration was fitted on and what it changed."""
    return (
        f"fitted on {found.words:,} words: expected calibration error {percent(found.ece_before)} before, "
        f"{percent(found.ece_after)} after (cross-validated in five folds)"
    )


def scope(evaluation: Evaluation) -> str:
    """What was scored and how fast, in one line."""
    utterances = len(evaluation.utterances)
    speakers = len(evaluation.speakers())
    parts = [
        f"{counted(utterances, 'utterance')} ({utterances - evaluation.sentence_errors:,} without an error)",
        counted(speakers, "speaker") if speakers else "",
        f"{duration(evaluation.audio_s)} of speech",
        speed(evaluation) if evaluation.compute_s else "",
    ]
    return ", ".join(part for part in parts if part)


def provenance(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Model, data, settings and machine as (name, value); what is unknown is left out."""
    p = evaluation.provenance
    entries = [
        ("model", p.model),
        ("weights (SHA-256)", p.model_sha256),
        ("parameters", f"{p.parameters:,}" if p.parameters else ""),
        ("units", p.units),
        ("text normalisation", p.text),
        ("phone set", evaluation.phone_set),
        ("manifest", p.manifest),
        ("manifest (SHA-256)", p.manifest_sha256),
        ("decoder", p.decoder),
        ("compute time", f"{duration(evaluation.compute_s)} for {duration(evaluation.audio_s)} of speech"),
        ("with reading", duration(evaluation.wall_s) if evaluation.wall_s else ""),
        ("device", p.device),
        ("machine", p.machine),
        ("date", p.date),
        ("command", p.command),
        ("versions", ", ".join(f"{name} {version}" for name, version in p.versions.items())),
    ]
    return [(name, value) for name, value in entries if value]
