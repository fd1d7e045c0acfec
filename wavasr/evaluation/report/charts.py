"""Small SVG pictures, coloured by the page's style sheet; widths are in percent, so that text keeps its size.

Substitutions are plain, deletions hatched, insertions dotted: no picture needs colour to be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from wavasr.decoding.confidence import Reliability
from wavasr.evaluation.metrics import Interval, share_interval
from wavasr.evaluation.report import wording
from wavasr.evaluation.report.analysis import Bin
from wavasr.evaluation.results import Rate

_HEIGHT = 170
_TOP = 12
_BOTTOM = _TOP + _HEIGHT
KINDS = ("substitutions", "deletions", "insertions")


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element. Text and attributes are escaped; `text_anchor` becomes text-anchor, `class_` class."""
    listed = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else f"{value:.1f}"
        )
        for key, value in attributes.items()
    )
    return Markup("<{}{}>{}</{}>").format(Markup(name), listed, Markup("").join(children), Markup(name))


def shares(rate: Rate) -> Markup:
    """One bar: how the errors divide into the three kinds."""
    label = ", ".join(f"{getattr(rate.counts, kind)} {kind}" for kind in KINDS)
    bar = _stacked_row(rate, max(1, rate.counts.errors), y="0", height="100%")
    return tag("svg", *bar, class_="shares", role="img", aria_label=label)


def rate_bar(rate: Rate, top: float) -> Markup:
    """A table row's bar: the three kinds of errors, and the 95 % interval as a whisker; `top` is the full width."""
    parts = _stacked_row(rate, max(1, rate.counts.reference) * top, y="3", height="10")
    if rate.ci95:
        low, high = (_percent(min(1.0, x / top)) for x in (rate.ci95.low, rate.ci95.high))
        parts.append(tag("line", class_="whisker", x1=low, x2=high, y1=8, y2=8))
        parts += [tag("line", class_="whisker", x1=x, x2=x, y1=5, y2=11) for x in (low, high)]
    return tag("svg", *parts, class_="rate-bar", aria_hidden="true")


def _stacked_row(rate: Rate, full: float, **size: str) -> list[Markup]:
    parts, left = [], 0.0
    for kind in KINDS:
        width = min(1 - left, getattr(rate.counts, kind) / full)
        title = tag("title", f"{getattr(rate.counts, kind):,} {kind}")
        parts.append(tag("rect", title, class_=kind, x=_percent(left), width=_percent(width), **size))
        left += width
    return parts


def ruler(value: float, intervals: Sequence[tuple[str, Interval]], *, zero: bool = False) -> Markup:
    """A scale in percent (points with `zero`, which is marked): a line for each named interval, a dot at the value."""
    unit = "points" if zero else "%"
    ends = [value, *(x for _, ci in intervals for x in (ci.low, ci.high)), *([0.0] if zero else [])]
    margin = max(0.15 * (max(ends) - min(ends)), 0.002)
    low, high = min(ends) - margin, max(ends) + margin
    low = low if zero else max(0.0, low)
    step = _step(high - low, 5)
    bottom = 8 + 26 * len(intervals)

    def x(rate: float) -> str:
        return _percent((rate - low) / (high - low))

    parts = []
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        css = "zero" if zero and i == 0 else "grid"
        text = f"{100 * i * step:+g}".replace("-", "−") if zero and i else f"{100 * i * step:g}"
        parts.append(tag("line", class_=css, x1=x(i * step), x2=x(i * step), y1=0, y2=bottom))
        parts.append(tag("text", text, class_="tick", x=x(i * step), y=bottom + 14, text_anchor="middle"))
    labels = [f"{name}: {100 * ci.low:.2f} to {100 * ci.high:.2f} {unit}" for name, ci in intervals]
    for row, (name, ci) in enumerate(intervals):
        y = 20 + 26 * row
        line = tag("line", tag("title", labels[row]), class_="range", x1=x(ci.low), x2=x(ci.high), y1=y, y2=y)
        middle = x((ci.low + ci.high) / 2)
        parts += [line, tag("circle", class_="dot", cx=x(value), cy=y, r=5)]
        parts.append(tag("text", name, class_="range-name", x=middle, y=y - 8, text_anchor="middle"))
    return tag("svg", *parts, class_="ruler", role="img", aria_label="; ".join(labels), height=bottom + 20)


def columns(bins: Sequence[Bin], name: str, members: str) -> Markup:
    """Error rate of classes of utterances or words: stacked columns with whiskers, and under each its members."""
    filled = [b for b in bins if b.rate.counts.reference]
    highest = max((b.rate.value for b in filled), default=0.0)
    whisker = max((b.rate.ci95.high for b in filled if b.rate.ci95), default=0.0)
    top = max(highest, min(whisker, 1.6 * highest), 0.001)
    top = math.ceil(top / _step(top, 4) - 1e-9) * _step(top, 4)
    parts = _grid(top)
    for i, b in enumerate(bins):
        parts.append(_column(b, (i + 0.5) / len(bins), 0.62 / len(bins), top, members))
    label = "; ".join(f"{b.label}: {wording.percent(b.rate.value, 1)}, {b.size} {members}" for b in filled)
    return _chart(parts, f"{name}. {label}")


def _column(b: Bin, centre: float, width: float, top: float, members: str) -> Markup:
    title = f"{b.label}: {wording.percent(b.rate.value)} ({wording.interval(b.rate.ci95)}), {b.size:,} {members}"
    parts, floor = [tag("title", title)], float(_BOTTOM)
    for kind in KINDS:
        height = _HEIGHT * getattr(b.rate.counts, kind) / max(1, b.rate.counts.reference) / top
        floor -= height
        parts.append(_rect(kind, centre - width / 2, floor, width, height))
    if b.rate.ci95:
        low, high = (min(1.0, x / top) for x in (b.rate.ci95.low, b.rate.ci95.high))
        parts.append(_whisker(centre, low, high))
    parts += [_tick(centre, 16, b.label), _tick(centre, 31, f"{b.size:,}")]
    return tag("g", *parts)


def reliability(found: Reliability, name: str, what: str) -> Markup:
    """Share of right words in each class of confidence; the diagonal is where confidences are probabilities."""
    parts = [*_grid(1.0), _tick(1.0, 16, "1")]
    marks = [tag("line", class_="zero", x1="0", y1=_BOTTOM, x2="100%", y2=_TOP, stroke_dasharray="5 4")]
    for b in found.bins:
        centre, width = (b.low + b.high) / 2, b.high - b.low
        parts += [_tick(b.low, 16, f"{b.low:.1g}"), _tick(centre, 31, f"{b.words:,}")]
        if not b.words:
            continue
        ci = share_interval(round(b.right * b.words), b.words)
        title = (
            f"confidence {b.low:.1f} to {b.high:.1f}, {b.confidence:.2f} on average: {wording.percent(b.right, 1)} "
            f"({wording.interval(ci, 1)}) of {b.words:,} {what} right"
        )
        height = _HEIGHT * b.right
        parts.append(_rect("plain", b.low + 0.1 * width, _BOTTOM - height, 0.8 * width, height, title))
        parts.append(_whisker(centre, ci.low, ci.high))
        x, ends = _percent(b.confidence), (_BOTTOM - height, _BOTTOM - _HEIGHT * b.confidence)
        marks.append(tag("line", class_="gap", x1=x, x2=x, y1=ends[0], y2=ends[1]))
        marks.append(tag("circle", class_="dot", cx=x, cy=ends[0], r=4))
    label = "; ".join(f"{b.low:.1f}: {wording.percent(b.right, 0)} of {b.words}" for b in found.bins if b.words)
    return _chart([*parts, *marks], f"{name}. {label}")


def matrix(names: Sequence[str], cells: Mapping[tuple[str, str], int]) -> Markup:
    """A confusion matrix as squares: rows are the reference, columns the hypothesis, fuller is more often."""
    side, margin = 20, 52
    guesses = [*names, ""]
    parts = []
    for j, guess in enumerate(guesses):
        turned = f"translate({margin + side * j + 13} {margin - 6}) rotate(-60)"
        parts.append(tag("text", guess or "deleted", class_="tick", transform=turned))
    for i, name in enumerate(names):
        y, total = margin + side * i, max(1, sum(n for (reference, _), n in cells.items() if reference == name))
        parts.append(tag("text", name, class_="tick", x=margin - 5, y=y + 14, text_anchor="end"))
        for j, guess in enumerate(guesses):
            n = cells.get((name, guess), 0)
            title = tag("title", f"{name} recognised as {guess or 'nothing'}: {n} of {total}")
            css, ink = "right" if name == guess else "wrong", 0.12 + 0.88 * math.sqrt(n / total) if n else 0.04
            square = {"x": margin + side * j, "y": y, "width": side - 1, "height": side - 1}
            parts.append(tag("rect", title, class_=css, fill_opacity=f"{ink:.2f}", **square))
    width, height = margin + side * len(guesses) + 30, margin + side * len(names)
    box = f"0 0 {width} {height}"
    return tag("svg", *parts, class_="matrix", role="img", aria_label="Confusion matrix", viewBox=box, width=width)


def _grid(top: float) -> list[Markup]:
    step = _step(top, 4)
    parts = []
    for i in range(math.floor(top / step + 1e-9) + 1):
        y = _BOTTOM - _HEIGHT * i * step / top
        parts.append(tag("line", class_="grid" if i else "axis", x1="0", x2="100%", y1=y, y2=y))
        parts.append(tag("text", f"{100 * i * step:g}", class_="tick", x=-8, y=y + 4, text_anchor="end"))
    return parts


def _chart(parts: Sequence[Markup], label: str) -> Markup:
    svg = tag("svg", *parts, role="img", aria_label=label, width="100%", height=_BOTTOM + 38)
    return tag("div", svg, class_="chart")


def _rect(css: str, x: float, y: float, width: float, height: float, title: str = "") -> Markup:
    inner = [tag("title", title)] if title else []
    return tag("rect", *inner, class_=css, x=_percent(x), y=y, width=_percent(width), height=height)


def _whisker(centre: float, low: float, high: float) -> Markup:
    """From low to high, shares of the plot's height."""
    x = _percent(centre)
    return tag("line", class_="whisker", x1=x, x2=x, y1=_BOTTOM - _HEIGHT * low, y2=_BOTTOM - _HEIGHT * high)


def _tick(x: float, below: float, text: str) -> Markup:
    """Text `below` pixels under the axis."""
    return tag("text", text, class_="tick", x=_percent(x), y=_BOTTOM + below, text_anchor="middle")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"


def _step(span: float, lines: int) -> float:
    """A round distance between grid lines: about `lines` of them in `span`."""
    raw = span / lines
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
