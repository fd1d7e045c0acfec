"""What a report says, each section written once as data; the page and the Markdown text are two templates over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from wavasr.errors import counted
from wavasr.evaluation.metrics import Interval
from wavasr.evaluation.report import analysis, charts, wording
from wavasr.evaluation.report.comparison import Comparison
from wavasr.evaluation.results import Evaluation, Rate, UtteranceResult, speaker_rates

WORST = 20
_MOST = 15
_CHANGES = 8


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        texts: how many columns from the left are text; the others are figures, set to the right.
        pictures: one for each row, shown on the page after the last column of text.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    pictures: Sequence[Markup] = ()
    sortable: bool = False


@dataclass(frozen=True)
class Changes:
    """Utterances whose number of errors changed: (baseline's, this system's) results, the first few of `total`."""

    title: str
    total: int
    pairs: Sequence[tuple[UtteranceResult, UtteranceResult]]


@dataclass(frozen=True)
class Panel:
    """A block of a section; what is empty is not shown.

    Attributes:
        picture: for the page; Markdown shows `figures` in its place.
        axis: what the picture's horizontal axis is.
    """

    title: str = ""
    text: str = ""
    points: Sequence[str] = ()
    table: Table | None = None
    picture: Markup | None = None
    axis: str = ""
    figures: Table | None = None
    key: str = ""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        note: small print at its end.
        verdict: a sentence at its beginning, and whether it is good news ("better", "worse", "undecided").
        legend: whether the page explains the marks of the three kinds of errors.
        narrow: whether its panels are small, four in a row of a wide page.
    """

    id: str
    title: str
    panels: Sequence[Panel]
    note: str = ""
    verdict: tuple[str, str] = ("", "")
    legend: bool = False
    narrow: bool = False
    changes: Sequence[Changes] = field(default=())


def sections(evaluation: Evaluation, comparison: Comparison | None = None) -> list[Section]:
    """The sections between the headline and the utterances."""
    found = [
        _comparison(comparison) if comparison else None,
        _decoder(evaluation),
        _speakers(evaluation),
        _profile(evaluation),
        _calibration(evaluation),
        _confusions(evaluation),
        _matrix(evaluation),
    ]
    return [section for section in found if section]


def closing(evaluation: Evaluation) -> list[Section]:
    """The sections after the utterances."""
    return [section for section in (_failures(evaluation), _provenance(evaluation)) if section]


def headline(evaluation: Evaluation) -> Table:
    """The corpus rates."""
    rows = []
    for name, rate in wording.headline(evaluation):
        counts = rate.counts
        figures = (counts.substitutions, counts.insertions, counts.deletions, counts.reference)
        intervals = wording.interval(rate.ci95), wording.interval(rate.ci95_speakers)
        rows.append([name.upper(), wording.percent(rate.value), *intervals, *(f"{n:,}" for n in figures)])
    names = ["", "rate", "95 % interval", "by speakers", "substituted", "inserted", "deleted", "reference"]
    return Table(names, rows)


def cards(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """The page's smaller figures: name, value, and what more there is to say of it."""
    total, wrong = len(evaluation.utterances), evaluation.sentence_errors
    found = []
    if (rate := evaluation.character_rate) is not None:
        interval = f"95 % interval {wording.interval(rate.ci95)}"
        found.append(("Character error rate", wording.percent(rate.value), interval))
    right = total - wrong
    found.append(("Without an error", wording.percent(right / total, 1), f"{right:,} of {total:,} utterances"))
    speakers = len(evaluation.speakers())
    spoken = counted(speakers, "speaker") if speakers else counted(total, "utterance")
    found.append(("Speech scored", wording.duration(evaluation.audio_s), spoken))
    device = f" on {evaluation.provenance.device}" if evaluation.provenance.device else ""
    factor = f"real time (factor {evaluation.real_time_factor:.3g}){device}"
    found.append(("Speed", wording.speed(evaluation).removesuffix(" real time"), factor))
    if evaluation.failures:
        found.append(("Not recognised", f"{len(evaluation.failures):,}", "not in the counts"))
    return found


def intervals(rate: Rate) -> list[tuple[str, Interval]]:
    """The intervals that there are, named by what is resampled."""
    return [(name, ci) for name, ci in (("utterances", rate.ci95), ("speakers", rate.ci95_speakers)) if ci]


def _comparison(found: Comparison) -> Section:
    paired, metric = found.paired, found.metric.upper()
    named = [("utterances", paired.interval)]
    if found.paired_speakers:
        named.append(("speakers", found.paired_speakers.interval))
    rows = [
        [role, name, wording.percent(rate.value), wording.interval(rate.ci95), f"{rate.counts.errors:,}"]
        for role, name, rate in (
            ("this", found.name, found.rate),
            ("baseline", found.baseline_name, found.baseline_rate),
        )
    ]
    ruler = charts.ruler(paired.difference, named, zero=True)
    panels = [
        Panel(table=Table(["", "System", metric, "95 % interval", "Errors"], rows, texts=2)),
        Panel("Difference, in points", picture=ruler, axis="left of zero: fewer errors than the baseline"),
        Panel("In figures", points=found.points),
    ]
    changes = [
        Changes(title, len(pairs), pairs[:_CHANGES])
        for title, pairs in (("Most improved", found.improved), ("Most worsened", found.worsened))
        if pairs
    ]
    better = "better" if paired.difference < 0 else "worse"
    verdict = (found.verdict, better if found.decided else "undecided")
    note = "The same utterances are drawn for both systems."
    return Section("comparison", "Compared with the baseline", panels, note, verdict, changes=changes)


def _decoder(evaluation: Evaluation) -> Section | None:
    panels = [panel for panel in (_without_lm(evaluation), _out_of_vocabulary(evaluation)) if panel]
    name = f"Decoder: {evaluation.provenance.decoder}." if evaluation.provenance.decoder else ""
    return Section("decoder", "Language model and word list", panels, name) if panels else None


def _without_lm(evaluation: Evaluation) -> Panel | None:
    rate, gain, metric = evaluation.greedy_rate, analysis.gain(evaluation), evaluation.metric.upper()
    if rate is None or gain is None:
        return None
    rows = [
        [name, wording.percent(r.value), wording.interval(r.ci95), f"{r.counts.errors:,}"]
        for name, r in (("with", evaluation.rate), ("without (greedy)", rate))
    ]
    points = [
        f"difference: {wording.difference(gain)}",
        f"utterances better: {gain.b_wins:,}, worse: {gain.a_wins:,}, equal: {gain.ties:,}",
    ]
    return Panel(
        "With and without",
        points=points,
        table=Table(["", metric, "95 % interval", "Errors"], rows),
        picture=charts.ruler(gain.difference, [("utterances", gain.interval)], zero=True),
        axis="left of zero: fewer errors with the language model or word list",
    )


def _out_of_vocabulary(evaluation: Evaluation) -> Panel | None:
    found, vocabulary = analysis.unlisted(evaluation), evaluation.vocabulary
    if found is None or vocabulary is None:
        return None
    title, listed = (
        f"Out of vocabulary: {wording.percent(found.share)}",
        f"{vocabulary.size:,} words of {vocabulary.source}",
    )
    if not found.words:
        return Panel(title, f"All {found.reference:,} words of the references are among the {listed}.")
    text = (
        f"{found.words:,} of {found.reference:,} words of the references, {len(found.examples):,} different, are not "
        f"among the {listed}: {wording.examples(found.examples)}"
    )
    rows = [_bin(b, f"{b.label} such words") for b in found.utterances if b.size]
    return Panel(title, text, table=Table(["Utterances", "How many", evaluation.metric.upper(), "95 % interval"], rows))


def _bin(b: analysis.Bin, label: str = "") -> list[str]:
    return [label or b.label, f"{b.size:,}", wording.percent(b.rate.value), wording.interval(b.rate.ci95)]


def _speakers(evaluation: Evaluation) -> Section | None:
    rates, spoken = speaker_rates(evaluation), evaluation.speakers()
    if not rates:
        return None
    whisker = max((rate.ci95.high for rate in rates.values() if rate.ci95), default=0.0)
    highest = max((rate.value for rate in rates.values() if rate.counts.reference), default=0.0)
    top = max(highest, min(1.0, whisker), 0.01)
    rows = []
    for speaker, rate in rates.items():
        counts = rate.counts
        figures = (counts.substitutions, counts.deletions, counts.insertions, counts.reference, len(spoken[speaker]))
        figures_text = [f"{n:,}" for n in figures]
        rows.append([speaker or "(no name)", wording.percent(rate.value), wording.interval(rate.ci95), *figures_text])
    bars = [charts.rate_bar(rate, top) if rate.counts.reference else Markup("") for rate in rates.values()]
    what = wording.symbols(evaluation).capitalize()
    names = ["Speaker", evaluation.metric.upper(), "95 % interval", "Sub", "Del", "Ins", what, "Utterances"]
    return Section("speakers", "Speakers", [Panel(table=Table(names, rows, 1, bars, sortable=True))], legend=True)


def _profile(evaluation: Evaluation) -> Section:
    rate, what = evaluation.metric.upper(), wording.symbols(evaluation)
    profiles = [
        (f"{rate} by duration", "seconds", "utterances", rate, analysis.duration_profile(evaluation)),
        (
            f"Missed {what} by how frequent they are",
            wording.frequency_source(evaluation),
            what,
            "missed",
            analysis.frequency_profile(evaluation),
        ),
    ]
    panels = []
    for title, axis, members, share, bins in profiles:
        if bins:
            figures = Table([axis, members, share, "95 % interval"], [_bin(b) for b in bins if b.size])
            panels.append(Panel(title, picture=charts.columns(bins, title, members), axis=axis, figures=figures))
    note = (
        "Columns in percent; the line in a column is the 95 % interval; the number below it counts utterances, or "
        f"{what} where {what} are missed: there insertions do not count."
    )
    return Section("profile", "Profile", panels, note, legend=True)


def _calibration(evaluation: Evaluation) -> Section | None:
    own, calibration, what = evaluation.reliability(), evaluation.calibration, wording.symbols(evaluation)
    if own is None:
        return None
    shown = [("The model's own" if calibration else "Not calibrated", own)]
    if calibration and (mapped := evaluation.reliability(calibration)):
        shown.insert(0, ("Calibrated", mapped))
    panels = []
    for name, found in shown:
        rows = [
            [f"{b.low:.1f} – {b.high:.1f}", f"{b.words:,}", f"{b.confidence:.2f}", f"{b.right:.2f}"]
            for b in found.bins
            if b.words
        ]
        title = f"{name}: expected calibration error {wording.percent(found.ece)}"
        figures = Table(["confidence", what, "on average", "share right"], rows)
        panels.append(Panel(title, picture=charts.reliability(found, name, what), axis="confidence", figures=figures))
    note = (
        f"Columns: percent of the {what} of a confidence that are right, with the 95 % interval; the number below "
        "counts them; the dot is at their mean confidence. On the dashed line confidences are probabilities; the "
        f"expected calibration error is the mean length of the blue lines, weighted by the {what} of their columns."
    )
    fitted = f" The map was {wording.fitted(calibration)}." if calibration else ""
    return Section("calibration", "Calibration", panels, note + fitted)


def _confusions(evaluation: Evaluation) -> Section:
    found, what = analysis.confusions(evaluation, _MOST), wording.symbols(evaluation)
    substituted = [[reference, guess, f"{n:,}"] for reference, guess, n in found.substitutions]
    deleted = [[symbol, f"{n:,}", f"{of:,}"] for symbol, n, of in found.deletions]
    inserted = [[symbol, f"{n:,}"] for symbol, n in found.insertions]
    missed = [[symbol, f"{n:,}", f"{of:,}", wording.percent(n / of, 0)] for symbol, n, of in found.missed]
    panels = [
        ("Substituted", "substitutions", Table(["Said", "Recognised", "Times"], substituted, texts=2)),
        ("Deleted", "deletions", Table(["Said", "Times", "of"], deleted)),
        ("Inserted", "insertions", Table(["Recognised", "Times"], inserted)),
        (f"Most often missed {what}", "", Table(["Said", "Missed", "of", "Share"], missed)),
    ]
    shown = [
        Panel(title, key=key, table=table) if table.rows else Panel(title, "None.", key=key)
        for title, key, table in panels
    ]
    return Section("confusions", "Most frequent errors", shown, narrow=True)


def _matrix(evaluation: Evaluation) -> Section | None:
    if evaluation.metric != "per":
        return None
    picture = charts.matrix(*analysis.confusion_matrix(evaluation))
    note = (
        "Rows: the phone that was said; columns: what was recognised. Fuller squares are larger shares of the row; the "
        "diagonal is right. Rest the pointer on a square for its counts."
    )
    return Section("matrix", "Confusion matrix", [Panel(picture=picture)], note)


def _failures(evaluation: Evaluation) -> Section | None:
    if not evaluation.failures:
        return None
    points = [f"{failure.id}: {failure.message}" for failure in evaluation.failures]
    return Section("failures", "Not recognised, not counted", [Panel(points=points)])


def _provenance(evaluation: Evaluation) -> Section:
    rows = [list(entry) for entry in wording.provenance(evaluation)]
    note = (
        f"Errors are summed over all utterances and divided once by the number of {wording.symbols(evaluation)} in the "
        "references. Intervals: percentile bootstrap (Bisani & Ney 2004), 10,000 resamples of the utterances, or of "
        "whole speakers, whose utterances go well or badly together; speakers and columns: fewer resamples. In the "
        "calibration plot, and where there is no error: Wilson's interval of a share."
    )
    title = "Where these figures come from"
    return Section("provenance", title, [Panel(table=Table(["", ""], rows, texts=2))], note)
