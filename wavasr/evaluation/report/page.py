"""report.html: one file with its own style, pictures and a few lines of script; it loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from wavasr.evaluation.metrics import Op
from wavasr.evaluation.report import analysis, charts, wording
from wavasr.evaluation.report.comparison import Comparison
from wavasr.evaluation.results import Evaluation, Rate, UtteranceResult, speaker_rates

_WORST = 20
_LISTED = 1000
_CHANGES = 8
_MOST = 15


def html(evaluation: Evaluation, comparison: Comparison | None = None, folder: Path | None = None) -> str:
    """The whole page.

    Args:
        evaluation: what it shows.
        comparison: shown below the headline where given.
        folder: where the page will lie, so that links to the recordings are relative.
    """
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = f"{evaluation.metric.upper()} {wording.percent(evaluation.rate.value)}, {wording.system_name(evaluation)}"
    sections = [
        _header(evaluation, comparison is not None),
        _notes(evaluation),
        _headline(evaluation),
        _compared(comparison) if comparison else "",
        _decoder(evaluation),
        _speakers(evaluation),
        _profiles(evaluation),
        _calibration(evaluation),
        _confusions(evaluation),
        _matrix(evaluation),
        _worst(evaluation, folder),
        _all(evaluation, folder),
        _provenance(evaluation),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{charts.PATTERNS}
<main>
{"".join(sections)}
</main>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return (resources.files("wavasr.evaluation.report") / name).read_text(encoding="utf-8")


def _header(evaluation: Evaluation, compared: bool) -> str:
    p = evaluation.provenance
    manifest = Path(p.manifest).name
    parts = [f"on <b>{escape(manifest)}</b>" if manifest else "", escape(p.date.replace("T", " ")[:16])]
    about = " · ".join(part for part in parts if part)
    links = [("Comparison", "comparison")] if compared else []
    links += [("Language model", "decoder")] if evaluation.greedy_rate or evaluation.vocabulary else []
    links += [("Speakers", "speakers")] if evaluation.speakers() else []
    links += [("Profile", "profile")]
    links += [("Calibration", "calibration")] if evaluation.reliability() else []
    links += [("Confusions", "confusions"), ("Utterances", "utterances")]
    links += [("Provenance", "provenance")]
    menu = "".join(f'<a href="#{target}">{name}</a>' for name, target in links)
    name = escape(wording.system_name(evaluation))
    heading = f'<div><h1>{name}</h1><p class="about">{about}</p></div>'
    return f'<header>{heading}<nav aria-label="Sections">{menu}</nav></header>'


def _notes(evaluation: Evaluation) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in evaluation.notes)
    failures = "".join(
        f"<li><code>{escape(failure.id)}</code> {escape(failure.message)}</li>" for failure in evaluation.failures
    )
    listed = f"<details><summary>Which, and why</summary><ul>{failures}</ul></details>" if failures else ""
    return f'<aside class="notes" role="note">{notes}{listed}</aside>' if notes or listed else ""


def _headline(evaluation: Evaluation) -> str:
    rate = evaluation.rate
    what = wording.symbols(evaluation)
    named = [(name, ci) for name, ci in (("utterances", rate.ci95), ("speakers", rate.ci95_speakers)) if ci]
    ranges = "".join(f"<li><b>{wording.interval(ci)}</b> resampling {name}</li>" for name, ci in named)
    intervals = (
        f'<h3>95 % interval</h3><ul class="plain">{ranges}</ul>{charts.ruler(rate.value, named)}'
        if named
        else f"<p>No interval: {'too few utterances' if rate.counts.reference else 'the references are empty'}.</p>"
    )
    kinds = "".join(
        f'<li><i class="key {kind}"></i><b>{getattr(rate.counts, kind):,}</b> {label}</li>'
        for kind, label in (("substitutions", "substituted"), ("deletions", "deleted"), ("insertions", "inserted"))
    )
    scored = f'<p class="small">Scored on {escape(evaluation.phone_set)}.</p>' if evaluation.phone_set else ""
    return f"""<section class="hero" aria-label="Headline">
<div class="figure"><p class="name">{wording.rate_name(evaluation.metric)}</p>
<p class="big">{_big(rate)}</p>
<p>{rate.counts.errors:,} errors in {rate.counts.reference:,} {what}</p>{scored}
{charts.shares(rate)}<ul class="legend">{kinds}</ul></div>
<div class="interval">{intervals}</div>
</section>
{_cards(evaluation)}"""


def _big(rate: Rate) -> str:
    number, _, unit = wording.percent(rate.value).partition(" %")
    return f"{number}<small>%</small>" if not unit and rate.counts.reference else "–"


def _cards(evaluation: Evaluation) -> str:
    total = len(evaluation.utterances)
    right = total - evaluation.sentence_errors
    cards = []
    if evaluation.character_rate is not None:
        rate = evaluation.character_rate
        cards.append(
            ("Character error rate", wording.percent(rate.value), f"95 % interval {wording.interval(rate.ci95)}")
        )
    cards.append(("Without an error", wording.percent(right / total, 1), f"{right:,} of {total:,} utterances"))
    speakers = len(evaluation.speakers())
    spoken = f"{speakers:,} speakers" if speakers else f"{total:,} utterances"
    cards.append(("Speech scored", wording.duration(evaluation.audio_s), spoken))
    factor = f"real time (factor {evaluation.real_time_factor:.3g})"
    device = f" on {evaluation.provenance.device}" if evaluation.provenance.device else ""
    cards.append(("Speed", wording.speed(evaluation).removesuffix(" real time"), factor + device))
    if evaluation.failures:
        failed = f"{len(evaluation.failures):,}"
        cards.append(("Not recognised", failed, "not in the counts"))
    items = "".join(
        f'<div class="card"><p class="name">{name}</p><p class="value">{escape(value)}</p><p>{escape(more)}</p></div>'
        for name, value, more in cards
    )
    return f'<section class="cards" aria-label="More figures">{items}</section>'


def _compared(comparison: Comparison) -> str:
    paired = comparison.paired
    named = [("utterances", paired.interval)]
    if comparison.paired_speakers:
        named.append(("speakers", comparison.paired_speakers.interval))
    css = "undecided" if not comparison.decided else "better" if paired.difference < 0 else "worse"
    rows = [
        [
            role,
            escape(name),
            f"<b>{wording.percent(rate.value)}</b>",
            wording.interval(rate.ci95),
            f"{rate.counts.errors:,}",
        ]
        for role, name, rate in (
            ("this", comparison.name, comparison.rate),
            ("baseline", comparison.baseline_name, comparison.baseline_rate),
        )
    ]
    table = _table(["", "System", comparison.metric.upper(), "95 % interval", "Errors"], rows, numeric=(2, 3, 4))
    return f"""<section id="comparison"><h2>Compared with the baseline</h2>
<p class="verdict {css}">{escape(comparison.verdict)}</p>{table}
<div class="two"><div><h3>Difference, in points</h3>{charts.ruler(paired.difference, named, zero=True, unit="points")}
<p class="small">Left of zero: fewer errors than the baseline. The same utterances are drawn for both.</p>
</div><div><h3>In figures</h3><ul><li>{wording.difference(paired)}</li>
<li>fewer errors than the baseline in <b>{wording.percent(paired.probability_b_better, 1)}</b> of the resamples</li>
<li><b>{paired.b_wins:,}</b> utterances better, <b>{paired.a_wins:,}</b> worse, {paired.ties:,} with as many errors</li>
</ul></div></div>
{_changes("Most improved", comparison.improved)}{_changes("Most worsened", comparison.worsened)}</section>"""


def _decoder(evaluation: Evaluation) -> str:
    """The decoder against the model alone, and what its word list lacks."""
    panels = [_without_lm(evaluation), _unlisted(evaluation)]
    if not any(panels):
        return ""
    body = "".join(f"<div>{panel}</div>" for panel in panels if panel)
    return f"""<section id="decoder"><h2>Language model and word list</h2>
<p class="small">{escape(evaluation.provenance.decoder)}</p><div class="two">{body}</div></section>"""


def _without_lm(evaluation: Evaluation) -> str:
    rate, gain = evaluation.greedy_rate, analysis.gain(evaluation)
    if rate is None or gain is None:
        return ""
    rows = [
        [name, f"<b>{wording.percent(r.value)}</b>", wording.interval(r.ci95), f"{r.counts.errors:,}"]
        for name, r in (("with", evaluation.rate), ("without (greedy)", rate))
    ]
    table = _table(["", evaluation.metric.upper(), "95 % interval", "Errors"], rows, numeric=(1, 2, 3))
    ruler = charts.ruler(gain.difference, [("utterances", gain.interval)], zero=True, unit="points")
    return f"""<h3>With and without</h3>{table}{ruler}
<p class="small">Difference: {wording.difference(gain)}; left of zero: fewer errors with the language model
or word list. <b>{gain.b_wins:,}</b> utterances better, <b>{gain.a_wins:,}</b> worse, {gain.ties:,} with as many
errors.</p>"""


def _unlisted(evaluation: Evaluation) -> str:
    found, vocabulary = analysis.unlisted(evaluation), evaluation.vocabulary
    if found is None or vocabulary is None:
        return ""
    heading = f"<h3>Out of vocabulary: {wording.percent(found.share)}</h3>"
    listed = f"the {vocabulary.size:,} words of {escape(vocabulary.source)}"
    if not found.words:
        return f"{heading}<p>All {found.reference:,} words of the references are among {listed}.</p>"
    rows = [
        [
            f"{b.label} such words",
            f"{b.size:,}",
            f"<b>{wording.percent(b.rate.value)}</b>",
            wording.interval(b.rate.ci95),
        ]
        for b in found.utterances
        if b.size
    ]
    title = ["Utterances", "How many", evaluation.metric.upper(), "95 % interval"]
    return f"""{heading}<p>{found.words:,} of {found.reference:,} words of the references are not among {listed}:
{escape(wording.examples(found.examples))}.</p>{_table(title, rows, numeric=(1, 2, 3))}"""


def _changes(title: str, pairs: Sequence[tuple[UtteranceResult, UtteranceResult]]) -> str:
    if not pairs:
        return ""
    items = "".join(
        f'<div class="utterance"><p class="meta"><b>{escape(new.id)}</b>'
        f"<span>{old.counts.errors} → {new.counts.errors} errors</span></p>"
        f'<p class="side">baseline</p>{_aligned(old.ops)}<p class="side">this</p>{_aligned(new.ops)}</div>'
        for old, new in pairs[:_CHANGES]
    )
    shown = f" (first {_CHANGES})" if len(pairs) > _CHANGES else ""
    return f"<details><summary>{title}: {len(pairs):,} utterances{shown}</summary>{items}</details>"


def _speakers(evaluation: Evaluation) -> str:
    rates = speaker_rates(evaluation)
    if not rates:
        return ""
    spoken = evaluation.speakers()
    whisker = max((r.ci95.high for r in rates.values() if r.ci95), default=0.0)
    highest = max((r.value for r in rates.values() if r.counts.reference), default=0.0)
    top = max(highest, min(1.0, whisker), 0.01)
    rows = [
        [
            escape(speaker or "(no name)"),
            f"{100 * rate.value:.2f}" if rate.counts.reference else "–",
            f'<div class="cell-bar">{charts.rate_bar(rate, top) if rate.counts.reference else ""}</div>',
            wording.interval(rate.ci95, 1),
            *(f"{n:,}" for n in (rate.counts.substitutions, rate.counts.deletions, rate.counts.insertions)),
            f"{rate.counts.reference:,}",
            f"{len(spoken[speaker]):,}",
        ]
        for speaker, rate in rates.items()
    ]
    what = wording.symbols(evaluation).capitalize()
    title = ["Speaker", f"{evaluation.metric.upper()} %", "", "95 % interval", "Sub", "Del", "Ins", what, "Utterances"]
    table = _table(title, rows, numeric=(1, 3, 4, 5, 6, 7, 8), css="sortable scroll", wide=2)
    return f'<section id="speakers"><h2>Speakers</h2>{_legend()}{table}</section>'


def _profiles(evaluation: Evaluation) -> str:
    rate, what = evaluation.metric.upper(), wording.symbols(evaluation)
    profiles = [
        (f"{rate} by duration", "seconds", "utterances", analysis.duration_profile(evaluation)),
        (f"{rate} by length", f"{what} in the reference", "utterances", analysis.length_profile(evaluation)),
        (
            f"Missed {what} by how frequent they are",
            wording.frequency_source(evaluation),
            what,
            analysis.frequency_profile(evaluation),
        ),
        (
            f"Missed {what} by place in the utterance",
            "from its beginning to its end",
            what,
            analysis.position_profile(evaluation),
        ),
        (f"{rate} by the model's confidence", "confidence", "utterances", analysis.confidence_profile(evaluation)),
    ]
    panels = [
        f'<div class="panel"><h3>{escape(title)}</h3>{charts.columns(bins, title, members)}'
        f'<p class="axis-name">{escape(axis)}</p></div>'
        for title, axis, members, bins in profiles
        if bins
    ]
    accuracy = charts.histogram(analysis.accuracy_profile(evaluation), "Utterances by error rate")
    panels.append(f'<div class="panel"><h3>Utterances by {rate}</h3>{accuracy}<p class="axis-name">{rate}</p></div>')
    return f"""<section id="profile"><h2>Profile</h2>{_legend()}<div class="panels">{"".join(panels)}</div>
<p class="small">Columns in percent; the line in a column is the 95 % interval; the number below it counts utterances,
or {what} where {what} are missed: there insertions do not count.</p></section>"""


def _calibration(evaluation: Evaluation) -> str:
    own, calibration = evaluation.reliability(), evaluation.calibration
    if own is None:
        return ""
    what = wording.symbols(evaluation)
    shown = [("The model's own" if calibration else "Not calibrated", own)]
    if calibration and (mapped := evaluation.reliability(calibration)):
        shown.insert(0, ("Calibrated", mapped))
    panels = "".join(
        f'<div class="panel reliability"><h3>{title}: expected calibration error {wording.percent(found.ece)}</h3>'
        f'{charts.reliability(found, title, what)}<p class="axis-name">confidence</p></div>'
        for title, found in shown
    )
    fitted = f" The map was {wording.fitted(calibration)}." if calibration else ""
    return f"""<section id="calibration"><h2>Calibration</h2><div class="panels">{panels}</div>
<p class="small">Columns: percent of the {what} of a confidence that are right, with the 95 % interval; the number below
counts them; the dot is at their mean confidence. On the dashed line confidences are probabilities; the expected
calibration error is the mean length of the blue lines, each as often as its column has {what}.{fitted}</p></section>"""


def _confusions(evaluation: Evaluation) -> str:
    found = analysis.confusions(evaluation, _MOST)
    parts = [
        (
            "Substituted",
            ["Said", "Heard", "Times"],
            [[_cell(r), _cell(h), f"{n:,}"] for r, h, n in found.substitutions],
        ),
        ("Deleted", ["Said", "Times", "of"], [[_cell(s), f"{n:,}", f"{of:,}"] for s, n, of in found.deletions]),
        ("Inserted", ["Heard", "Times"], [[_cell(s), f"{n:,}"] for s, n in found.insertions]),
        (
            f"Most often missed {wording.symbols(evaluation)}",
            ["Said", "Missed", "of", "%"],
            [[_cell(s), f"{n:,}", f"{of:,}", f"{100 * n / of:.0f}"] for s, n, of in found.missed],
        ),
    ]
    keys = {"Substituted": "substitutions", "Deleted": "deletions", "Inserted": "insertions"}
    panels = []
    for title, columns, rows in parts:
        key = f'<i class="key {keys[title]}"></i> ' if title in keys else ""
        numeric = tuple(i for i, name in enumerate(columns) if name not in ("Said", "Heard"))
        body = _table(columns, rows, numeric=numeric) if rows else "<p>None.</p>"
        panels.append(f'<div class="panel"><h3>{key}{title}</h3>{body}</div>')
    body = f'<div class="panels four">{"".join(panels)}</div>'
    return f'<section id="confusions"><h2>Most frequent errors</h2>{body}</section>'


def _matrix(evaluation: Evaluation) -> str:
    if evaluation.metric != "per":
        return ""
    picture = charts.matrix(*analysis.confusion_matrix(evaluation))
    return f"""<section id="matrix"><h2>Confusion matrix</h2>
<p class="small">Rows: the phone that was said; columns: what was heard. Fuller squares are larger shares of the row;
the diagonal is right. Rest the pointer on a square for its counts.</p><div class="scroll">{picture}</div></section>"""


def _worst(evaluation: Evaluation, folder: Path | None) -> str:
    found = analysis.worst(evaluation)
    if not found:
        return '<section id="utterances"><h2>Utterances</h2><p>Not one error.</p></section>'
    items = "".join(_utterance(u, folder) for u in found[:_WORST])
    return f"""<section id="utterances"><h2>Utterances with the most errors</h2>
<ul class="legend"><li><span class="op substitute"><span>said</span><span>heard</span></span> substituted</li>
<li><span class="op delete"><span>said</span><span>–</span></span> deleted</li>
<li><span class="op insert"><span>+</span><span>heard</span></span> inserted</li></ul>
{items}</section>"""


def _utterance(u: UtteranceResult, folder: Path | None) -> str:
    counts = u.counts
    facts = [
        f"<b>{escape(u.id)}</b>",
        escape(u.speaker),
        f"{counts.errors} of {counts.reference} wrong",
        wording.percent(counts.rate, 0) if counts.reference else "",
        f"{u.duration_s:.1f} s",
        f"confidence {u.confidence:.2f}" if u.confidence is not None else "",
        _link(u, folder),
    ]
    meta = "".join(f"<span>{fact}</span>" for fact in facts if fact)
    return f'<article class="utterance"><p class="meta">{meta}</p>{_aligned(u.ops)}</article>'


def _aligned(ops: Iterable[Op]) -> str:
    """Reference above hypothesis, symbol by symbol; words for readers of the page who do not see it."""
    cells = []
    for op in ops:
        said, heard = escape(op.reference), escape(op.hypothesis)
        match op.kind:
            case "equal":
                cells.append(f'<span class="op"><span>{said}</span></span>')
            case "substitute":
                between = '<span class="unseen"> heard as </span>'
                cells.append(f'<span class="op substitute"><span>{said}</span>{between}<span>{heard}</span></span>')
            case "delete":
                cells.append(
                    f'<span class="op delete"><span class="unseen">deleted: </span><span><s>{said}</s></span>'
                    '<span aria-hidden="true">–</span></span>'
                )
            case "insert":
                cells.append(
                    '<span class="op insert"><span class="unseen">inserted: </span><span aria-hidden="true">+</span>'
                    f"<span><u>{heard}</u></span></span>"
                )
    return f'<p class="aligned" dir="auto">{" ".join(cells)}</p>' if cells else '<p class="aligned">(both empty)</p>'


def _all(evaluation: Evaluation, folder: Path | None) -> str:
    found = analysis.worst(evaluation)
    if len(found) <= _WORST:
        return ""
    rows = [
        [
            f"{_cell(u.id)} {_link(u, folder)}",
            _cell(u.speaker),
            f"{u.duration_s:.1f}",
            f"{u.counts.errors}",
            f"{100 * u.counts.rate:.0f}" if u.counts.reference else "–",
            _inline(u.ops),
        ]
        for u in found[:_LISTED]
    ]
    title = ["Utterance", "Speaker", "s", "Errors", f"{evaluation.metric.upper()} %", "Text"]
    table = _table(title, rows, numeric=(2, 3, 4), css="sortable texts")
    cut = f" The first {_LISTED:,}; report.json has all." if len(found) > _LISTED else ""
    return f"""<section id="all"><details><summary>All {len(found):,} utterances with errors</summary>
<p class="small"><s class="deletions">Struck out</s> was said and not heard; <u class="insertions">underlined</u> was
heard and not said.{cut}</p><input class="filter" type="search" placeholder="Filter by name, speaker or word"
aria-label="Filter the utterances" hidden>{table}</details></section>"""


def _inline(ops: Iterable[Op]) -> str:
    parts = []
    for op in ops:
        if op.kind == "equal":
            parts.append(escape(op.reference))
            continue
        if op.reference:
            parts.append(f'<s class="deletions">{escape(op.reference)}</s>')
        if op.hypothesis:
            parts.append(f'<u class="insertions">{escape(op.hypothesis)}</u>')
    return f'<span dir="auto">{" ".join(parts)}</span>'


def _provenance(evaluation: Evaluation) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in wording.provenance(evaluation))
    return f"""<section id="provenance"><h2>Where these figures come from</h2><dl>{rows}</dl>
<p class="small">Errors are summed over all utterances and divided once by the number of {wording.symbols(evaluation)}
in the references. Intervals: percentile bootstrap (Bisani &amp; Ney 2004), 10,000 resamples of the utterances, or of
whole speakers, whose utterances go well or badly together. Speakers and columns: fewer resamples. Without an error, and
in the calibration plot: Wilson's interval of a share.</p></section>"""


def _legend() -> str:
    kinds = "".join(
        f'<li><i class="key {kind}"></i>{kind}</li>' for kind in ("substitutions", "deletions", "insertions")
    )
    return f'<ul class="legend">{kinds}<li><i class="key-whisker"></i>95 % interval</li></ul>'


def _table(
    title: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Sequence[int] = (),
    css: str = "",
    wide: int | None = None,
) -> str:
    """A table of cells that are HTML already."""

    def cell(tag: str, i: int, content: str) -> str:
        name = "number" if i in numeric else "wide" if i == wide else ""
        return f"<{tag}{f' class={chr(34)}{name}{chr(34)}' if name else ''}>{content}</{tag}>"

    head = "".join(cell("th", i, escape(name)) for i, name in enumerate(title))
    body = "".join(f"<tr>{''.join(cell('td', i, content) for i, content in enumerate(row))}</tr>" for row in rows)
    return f'<div class="table"><table class="{css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    return f"<bdi>{escape(text)}</bdi>"


def _link(u: UtteranceResult, folder: Path | None) -> str:
    """A link that plays the recording (and the utterance's stretch of it) where it can still be found."""
    if not u.audio:
        return ""
    try:
        target = quote(Path(os.path.relpath(u.audio, folder or ".")).as_posix())
    except ValueError:  # another drive on Windows
        target = Path(u.audio).absolute().as_uri()
    stretch = f"#t={u.offset_s:g},{u.offset_s + u.duration_s:g}" if u.offset_s else ""
    return f'<a class="listen" href="{escape(target)}{stretch}">listen</a>'
