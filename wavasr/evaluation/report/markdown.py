"""report.md: the report for a README, an issue or a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wavasr.evaluation.metrics import Op
from wavasr.evaluation.report import analysis, wording
from wavasr.evaluation.report.comparison import Comparison
from wavasr.evaluation.results import Evaluation, UtteranceResult, speaker_rates

_WORST = 10
_MOST = 15
_LINE = 100


def markdown(evaluation: Evaluation, comparison: Comparison | None = None) -> str:
    """The whole report as GitHub Markdown."""
    sections = [
        f"# {wording.rate_name(evaluation.metric)}: {wording.percent(evaluation.rate.value)}",
        _headline(evaluation),
        wording.scope(evaluation) + ".",
        *(f"> **Note:** {_inline(note)}" for note in evaluation.notes),
        *(_comparison(comparison) if comparison else []),
        *_decoder(evaluation),
        *_failures(evaluation),
        *_speakers(evaluation),
        *_worst(evaluation),
        *_confusions(evaluation),
        *_profiles(evaluation),
        *_calibration(evaluation),
        *_provenance(evaluation),
    ]
    return "\n\n".join(sections) + "\n"


def _headline(evaluation: Evaluation) -> str:
    rows = []
    for name, rate in wording.headline(evaluation):
        c = rate.counts
        rows.append(
            [
                name.upper(),
                f"**{wording.percent(rate.value)}**",
                wording.interval(rate.ci95),
                wording.interval(rate.ci95_speakers),
                *(f"{n:,}" for n in (c.substitutions, c.insertions, c.deletions, c.reference)),
            ]
        )
    title = ["", "rate", "95 % interval", "by speakers", "substituted", "inserted", "deleted", "reference"]
    table = _table(title, rows)
    return f"{table}\n\nScored on {evaluation.phone_set}." if evaluation.phone_set else table


def _comparison(comparison: Comparison) -> list[str]:
    rows = [
        ["this", _inline(comparison.name), wording.percent(comparison.rate.value)],
        ["baseline", _inline(comparison.baseline_name), wording.percent(comparison.baseline_rate.value)],
    ]
    paired = comparison.paired
    lines = [
        f"- difference: {wording.difference(paired)}; fewer errors than the baseline in "
        f"{wording.percent(paired.probability_b_better, 1)} of the resamples",
        f"- utterances: {paired.b_wins} better, {paired.a_wins} worse, {paired.ties} with as many errors as before",
    ]
    if comparison.paired_speakers:
        lines.insert(1, f"- resampling speakers: {wording.difference(comparison.paired_speakers)}")
    return [
        "## Compared with the baseline",
        f"**{_inline(comparison.verdict)}**",
        _table(["", "system", comparison.metric.upper()], rows),
        "\n".join(lines),
    ]


def _failures(evaluation: Evaluation) -> list[str]:
    if not evaluation.failures:
        return []
    lines = [f"- {_inline(failure.id)}: {_inline(failure.message)}" for failure in evaluation.failures]
    return ["## Not recognised, not counted", "\n".join(lines)]


def _speakers(evaluation: Evaluation) -> list[str]:
    spoken = evaluation.speakers()
    if not spoken:
        return []
    rows = [
        [
            _inline(speaker or "(no name)"),
            str(len(spoken[speaker])),
            f"{rate.counts.reference:,}",
            wording.percent(rate.value),
            wording.interval(rate.ci95),
            f"{rate.counts.substitutions} / {rate.counts.insertions} / {rate.counts.deletions}",
        ]
        for speaker, rate in speaker_rates(evaluation).items()
    ]
    what = wording.symbols(evaluation)
    title = ["speaker", "utterances", what, evaluation.metric.upper(), "95 % interval", "sub / ins / del"]
    return ["## Speakers", _table(title, rows)]


def _worst(evaluation: Evaluation) -> list[str]:
    found = analysis.worst(evaluation)[:_WORST]
    if not found:
        return []
    return ["## Utterances with the most errors", *(_aligned(utterance) for utterance in found)]


def _aligned(utterance: UtteranceResult) -> str:
    title = (
        f"**{_inline(utterance.id)}**, {utterance.counts.errors} errors, {wording.percent(utterance.counts.rate, 0)}"
    )
    # Four spaces make a code block that no transcript can end.
    return f"{title}\n\n" + "\n".join(f"    {line}".rstrip() for line in alignment_lines(utterance.ops))


def alignment_lines(ops: Sequence[Op], width: int = _LINE) -> list[str]:
    """The alignment in fixed-width text: reference, hypothesis and marks (S, I, D), wrapped at `width`."""
    marks = {"equal": "", "substitute": "S", "insert": "I", "delete": "D"}
    rows: list[list[str]] = [["REF:", "HYP:", "    "]]
    for op in ops:
        cell = [op.reference or "*" * len(op.hypothesis), op.hypothesis or "*" * len(op.reference), marks[op.kind]]
        size = max(map(len, cell))
        if len(rows[-1][0]) + size + 1 > width and rows[-1][0] != "REF:":
            rows.append(["REF:", "HYP:", "    "])
        rows[-1] = [f"{line} {part:<{size}}" for line, part in zip(rows[-1], cell, strict=True)]
    return [line.rstrip() for row in rows for line in row]


def _confusions(evaluation: Evaluation) -> list[str]:
    found = analysis.confusions(evaluation, _MOST)
    tables = [
        ("substituted", "heard as", [[r, h, str(n)] for r, h, n in found.substitutions]),
        ("inserted", "", [[s, "", str(n)] for s, n in found.insertions]),
        ("deleted", "of", [[s, str(of), str(n)] for s, n, of in found.deletions]),
    ]
    parts = [
        _table([name, column, "times"], [[_inline(cell) for cell in row] for row in rows])
        for name, column, rows in tables
        if rows
    ]
    return ["## Most frequent errors", *parts] if parts else []


def _profiles(evaluation: Evaluation) -> list[str]:
    what, rate = wording.symbols(evaluation), evaluation.metric.upper()
    found = [
        ("seconds", "utterances", rate, analysis.duration_profile(evaluation)),
        (what, "utterances", rate, analysis.length_profile(evaluation)),
    ]
    if frequencies := analysis.frequency_profile(evaluation):
        found.append((wording.frequency_source(evaluation), what, "missed", frequencies))
    tables = [_bins(title, members, rate, bins) for title, members, rate, bins in found]
    return ["## By duration, length and word frequency" if frequencies else "## By duration and length", *tables]


def _bins(title: str, members: str, rate: str, bins: Iterable[analysis.Bin]) -> str:
    rows = [
        [b.label, f"{b.size:,}", wording.percent(b.rate.value), wording.interval(b.rate.ci95)] for b in bins if b.size
    ]
    return _table([title, members, rate, "95 % interval"], rows)


def _decoder(evaluation: Evaluation) -> list[str]:
    found = analysis.unlisted(evaluation)
    lines = [line for line in (wording.without_lm(evaluation), wording.unlisted(evaluation)) if line]
    if lines and evaluation.provenance.decoder:
        lines.insert(0, f"decoder: {evaluation.provenance.decoder}")
    parts = ["\n".join(f"- {_inline(line)}" for line in lines)] if lines else []
    if found and found.words:
        parts.append("Not listed: " + _inline(wording.examples(found.examples)))
        parts.append(_bins("utterances", "how many", evaluation.metric.upper(), found.utterances))
    return ["## Language model and word list", *parts] if parts else []


def _calibration(evaluation: Evaluation) -> list[str]:
    found = evaluation.reliability(evaluation.calibration)
    if found is None:
        return []
    rows = [
        [f"{b.low:.1f} – {b.high:.1f}", f"{b.words:,}", f"{b.confidence:.2f}", f"{b.right:.2f}"]
        for b in found.bins
        if b.words
    ]
    title = ["confidence", wording.symbols(evaluation), "on average", "share right"]
    return ["## Calibration", wording.calibration(evaluation).capitalize() + ".", _table(title, rows)]


def _provenance(evaluation: Evaluation) -> list[str]:
    lines = [f"- {name}: {_inline(value)}" for name, value in wording.provenance(evaluation)]
    method = "Intervals: percentile bootstrap, 10,000 resamples of the utterances (or of whole speakers)."
    return ["## Where these figures come from", "\n".join(lines), method]


def _table(title: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [title, ["---"] * len(title), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _inline(text: str) -> str:
    """Text that Markdown shows as it is."""
    escaped = "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~" else c for c in text)
    return " ".join(escaped.split())
