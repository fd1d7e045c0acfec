"""Small SVG pictures whose colours come from the page's style sheet; sizes across are in percent, so text keeps its.

Substitutions are plain, deletions hatched, insertions dotted: no picture needs colour to be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from wavasr.decoding.confidence import Reliability
from wavasr.evaluation.metrics import Interval, share_interval
from wavasr.evaluation.report import wording
from wavasr.evaluation.report.analysis import Bin
from wavasr.evaluation.results import Rate

_HEIGHT = 170
_TOP = 12
_KINDS = ("substitutions", "deletions", "insertions")

PATTERNS = """<svg class="defs" aria-hidden="true" width="0" height="0"><defs>
<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect class="deletions-ground" width="6" height="6"/><rect class="deletions-ink" width="2.5" height="6"/></pattern>
<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">
<rect class="insertions-ground" width="6" height="6"/><circle class="insertions-ink" cx="3" cy="3" r="1.4"/></pattern>
</defs></svg>"""


def shares(rate: Rate) -> str:
    """One bar: how the errors divide into the three kinds."""
    total = max(1, rate.counts.errors)
    parts, left = [], 0.0
    for kind in _KINDS:
        width = 100 * getattr(rate.counts, kind) / total
        title = f"{kind}: {getattr(rate.counts, kind):,}"
        parts.append(_rect(kind, f"{left:.2f}%", "0", f"{width:.2f}%", "100%", title))
        left += width
    label = ", ".join(f"{getattr(rate.counts, kind)} {kind}" for kind in _KINDS)
    return f'<svg class="shares" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def rate_bar(rate: Rate, top: float) -> str:
    """A row's bar: the three kinds of errors in a row, and the 95 % interval as a whisker; `top` is the full width."""
    reference = max(1, rate.counts.reference)
    parts, left = [], 0.0
    for kind in _KINDS:
        width = min(100 - left, 100 * getattr(rate.counts, kind) / reference / top)
        parts.append(_rect(kind, f"{left:.2f}%", "3", f"{width:.2f}%", "10"))
        left += width
    if rate.ci95:
        low, high = (min(100.0, 100 * x / top) for x in (rate.ci95.low, rate.ci95.high))
        parts.append(f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="8" y2="8"/>')
        for x in (low, high):
            parts.append(f'<line class="whisker" x1="{x:.2f}%" x2="{x:.2f}%" y1="5" y2="11"/>')
    return f'<svg class="rate-bar" aria-hidden="true">{"".join(parts)}</svg>'


def ruler(value: float, intervals: Sequence[tuple[str, Interval]], *, zero: bool = False, unit: str = "%") -> str:
    """A scale with one line per named interval and a dot at the value; with `zero` the zero is marked."""
    ends = [value, *(x for _, ci in intervals for x in (ci.low, ci.high)), *([0.0] if zero else [])]
    low, high = min(ends), max(ends)
    margin = max(0.15 * (high - low), 0.002)
    low, high = (low - margin, high + margin) if zero else (max(0.0, low - margin), high + margin)
    step = _step(high - low, 5)

    def x(rate: float) -> str:
        return f"{100 * (rate - low) / (high - low):.2f}%"

    parts = []
    bottom = 8 + 26 * len(intervals)
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        css = "zero" if zero and i == 0 else "grid"
        text = wording.points(i * step).removesuffix(".00") if zero else f"{100 * i * step:g}"
        text = "0" if i == 0 else _trim(text)
        parts.append(f'<line class="{css}" x1="{x(i * step)}" x2="{x(i * step)}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x(i * step)}" y="{bottom + 14}" text-anchor="middle">{text}</text>')
    for row, (name, ci) in enumerate(intervals):
        y = 20 + 26 * row
        title = f"<title>{escape(name)}: {100 * ci.low:.2f} to {100 * ci.high:.2f} {unit}</title>"
        parts.append(f'<g>{title}<line class="range" x1="{x(ci.low)}" x2="{x(ci.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{x(value)}" cy="{y}" r="5"/></g>')
        parts.append(f'<text class="range-name" x="{x((ci.low + ci.high) / 2)}" y="{y - 8}">{escape(name)}</text>')
    label = "; ".join(f"{name}: {100 * ci.low:.2f} to {100 * ci.high:.2f} {unit}" for name, ci in intervals)
    size = f'height="{bottom + 20}"'
    return f'<svg class="ruler" role="img" aria-label="{escape(label)}" {size}>{"".join(parts)}</svg>'


def columns(bins: Sequence[Bin], name: str, members: str = "utterances") -> str:
    """Error rate of classes of utterances (or words): stacked columns with whiskers, and under each its members."""
    filled = [b for b in bins if b.rate.counts.reference]
    highest = max((b.rate.value for b in filled), default=0.0)
    whisker = max((b.rate.ci95.high for b in filled if b.rate.ci95), default=0.0)
    top = _ceiling(max(highest, min(whisker, 1.6 * highest), 0.001))
    parts = [_grid(top)]
    for i, b in enumerate(bins):
        parts.append(_column(b, (i + 0.5) / len(bins), 0.62 / len(bins), top, members))
    label = "; ".join(f"{b.label}: {wording.percent(b.rate.value, 1)}, {b.size} {members}" for b in filled)
    return _chart(parts, f"{name}. {label}")


def histogram(bars: Sequence[tuple[str, int]], name: str) -> str:
    """How many utterances are in each class."""
    total = sum(n for _, n in bars)
    top = max(max((n for _, n in bars), default=0), 1) * 1.12
    parts = []
    for i, (label, n) in enumerate(bars):
        height = _HEIGHT * n / top
        x, y = (i + 0.5) / len(bars), _TOP + _HEIGHT - height
        css = "good" if i == 0 else "plain"
        title = f"{label}: {n:,} utterances, {wording.percent(n / max(1, total), 1)}"
        parts.append(
            _rect(css, _percent(x - 0.31 / len(bars)), f"{y:.1f}", _percent(0.62 / len(bars)), f"{height:.1f}", title)
        )
        parts.append(_text("value", x, y - 5, f"{n:,}"))
        parts.append(_text("tick", x, _TOP + _HEIGHT + 16, label))
    parts.append(f'<line class="axis" x1="0" x2="100%" y1="{_TOP + _HEIGHT}" y2="{_TOP + _HEIGHT}"/>')
    return _chart(parts, f"{name}. " + "; ".join(f"{label}: {n}" for label, n in bars), count=False)


def reliability(found: Reliability, name: str, what: str) -> str:
    """Share of right words in each class of confidence, against the diagonal where confidences mean what they say."""
    bottom = _TOP + _HEIGHT

    def y(share: float) -> str:
        return f"{bottom - _HEIGHT * share:.1f}"

    parts = [_grid(1.0), _text("tick", 1.0, bottom + 16, "1")]
    dots = [f'<line class="zero" x1="0" y1="{bottom}" x2="100%" y2="{_TOP}" stroke-dasharray="5 4"/>']
    for b in found.bins:
        centre, width = (b.low + b.high) / 2, b.high - b.low
        parts.append(_text("tick", b.low, bottom + 16, f"{b.low:.1g}"))
        parts.append(_text("count", centre, bottom + 31, f"{b.words:,}"))
        if not b.words:
            continue
        ci = share_interval(round(b.right * b.words), b.words)
        title = (
            f"confidence {b.low:.1f} to {b.high:.1f}, {b.confidence:.2f} on average: {wording.percent(b.right, 1)} "
            f"({wording.interval(ci, 1)}) of {b.words:,} {what} right"
        )
        box = (_percent(b.low + 0.1 * width), y(b.right), _percent(0.8 * width), f"{_HEIGHT * b.right:.1f}")
        parts.append(_rect("plain", *box, title))
        x, sure = _percent(centre), _percent(b.confidence)
        parts.append(f'<line class="whisker" x1="{x}" x2="{x}" y1="{y(ci.low)}" y2="{y(ci.high)}"/>')
        dots.append(f'<line class="gap" x1="{sure}" x2="{sure}" y1="{y(b.right)}" y2="{y(b.confidence)}"/>')
        dots.append(f'<circle class="dot" cx="{sure}" cy="{y(b.right)}" r="4"/>')
    label = "; ".join(f"{b.low:.1f}: {wording.percent(b.right, 0)} of {b.words}" for b in found.bins if b.words)
    return _chart([*parts, *dots], f"{name}. {label}")


def matrix(names: Sequence[str], cells: Mapping[tuple[str, str], int]) -> str:
    """A confusion matrix as squares: rows are the reference, columns what was heard, darker is more often."""
    side, margin = 20, 52
    columns = [*names, ""]
    totals = {name: sum(n for (reference, _), n in cells.items() if reference == name) for name in names}
    parts = []
    for j, heard in enumerate(columns):
        parts.append(
            f'<text class="tick" transform="translate({margin + side * j + 13} {margin - 6}) rotate(-60)">'
            f"{escape(heard) or 'deleted'}</text>"
        )
    for i, said in enumerate(names):
        parts.append(
            f'<text class="tick" x="{margin - 5}" y="{margin + side * i + 14}" text-anchor="end">{escape(said)}</text>'
        )
        for j, heard in enumerate(columns):
            share = cells.get((said, heard), 0) / max(1, totals[said])
            css = "right" if said == heard else "wrong"
            title = f"{said} heard as {heard or 'nothing'}: {cells.get((said, heard), 0)} of {totals[said]}"
            opacity = 0.04 if share == 0 else 0.12 + 0.88 * math.sqrt(share)
            parts.append(
                f'<rect class="{css}" x="{margin + side * j}" y="{margin + side * i}" width="{side - 1}" '
                f'height="{side - 1}" fill-opacity="{opacity:.2f}"><title>{escape(title)}</title></rect>'
            )
    width, height = margin + side * len(columns) + 30, margin + side * len(names)
    return (
        f'<svg class="matrix" role="img" aria-label="Confusion matrix" viewBox="0 0 {width} {height}" '
        f'width="{width}">{"".join(parts)}</svg>'
    )


def _column(b: Bin, centre: float, width: float, top: float, members: str) -> str:
    """One stacked column with whisker, label and number of members; centre and width are fractions."""
    title = f"{b.label}: {wording.percent(b.rate.value)} ({wording.interval(b.rate.ci95)}), {b.size:,} {members}"
    parts, floor = [f"<title>{escape(title)}</title>"], float(_TOP + _HEIGHT)
    for kind in _KINDS:
        height = _HEIGHT * getattr(b.rate.counts, kind) / max(1, b.rate.counts.reference) / top
        floor -= height
        parts.append(_rect(kind, _percent(centre - width / 2), f"{floor:.1f}", _percent(width), f"{height:.1f}"))
    if b.rate.ci95:
        low, high = (_TOP + _HEIGHT * (1 - min(1.0, x / top)) for x in (b.rate.ci95.low, b.rate.ci95.high))
        x = _percent(centre)
        parts.append(f'<line class="whisker" x1="{x}" x2="{x}" y1="{low:.1f}" y2="{high:.1f}"/>')
    parts.append(_text("tick", centre, _TOP + _HEIGHT + 16, b.label))
    parts.append(_text("count", centre, _TOP + _HEIGHT + 31, f"{b.size:,}"))
    return f"<g>{''.join(parts)}</g>"


def _grid(top: float) -> str:
    step = _step(top, 4)
    parts = []
    for i in range(math.floor(top / step + 1e-9) + 1):
        y = _TOP + _HEIGHT * (1 - i * step / top)
        parts.append(f'<line class="{"grid" if i else "axis"}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="-8" y="{y + 4:.1f}" text-anchor="end">{100 * i * step:g}</text>')
    return "".join(parts)


def _chart(parts: Sequence[str], label: str, count: bool = True) -> str:
    height = _TOP + _HEIGHT + (38 if count else 24)
    css = "chart with-axis" if count else "chart"
    svg = f'<svg role="img" aria-label="{escape(label)}" width="100%" height="{height}">{"".join(parts)}</svg>'
    return f'<div class="{css}">{svg}</div>'


def _rect(css: str, x: str, y: str, width: str, height: str, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect class="{css}" x="{x}" y="{y}" width="{width}" height="{height}">{inner}</rect>'


def _text(css: str, x: float, y: float, text: str) -> str:
    return f'<text class="{css}" x="{_percent(x)}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _step(span: float, lines: int) -> float:
    """A round distance between grid lines: about `lines` of them in `span`."""
    raw = span / lines
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)


def _ceiling(value: float) -> float:
    step = _step(value, 4)
    return math.ceil(value / step - 1e-9) * step
