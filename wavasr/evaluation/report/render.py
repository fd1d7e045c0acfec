"""report.html and report.md: the same sections through two templates, both of which escape what they are given.

The page is one file with its own style, pictures and a few lines of script; it loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from wavasr.errors import WavasrError
from wavasr.evaluation.metrics import Op
from wavasr.evaluation.report import analysis, charts, sections, wording
from wavasr.evaluation.report.comparison import Comparison
from wavasr.evaluation.results import Evaluation, UtteranceResult

_LISTED = 1000
_LINE = 100
_AUDIO_HZ = 16000


def html(
    evaluation: Evaluation,
    comparison: Comparison | None = None,
    folder: Path | None = None,
    *,
    with_audio: bool = False,
) -> str:
    """The whole page.

    Args:
        evaluation: what it shows.
        comparison: shown below the headline where given.
        folder: where the page will lie, so that links to the recordings are relative.
        with_audio: put the recordings of the utterances with the most errors into the page.
    """
    environment = _environment()
    worst = analysis.worst(evaluation)
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        _content(evaluation, comparison),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; media-src data:",
        style=Markup(_asset("report.css")),
        script=Markup(script),
        charts=charts,
        audio={u.id: _embedded(u) for u in worst[: sections.WORST]} if with_audio else {},
        link=lambda u: _link(u, folder),
        listed=worst[:_LISTED] if len(worst) > sections.WORST else [],
        total=len(worst),
    )


def markdown(evaluation: Evaluation, comparison: Comparison | None = None) -> str:
    """The report for a README, an issue or a terminal, as GitHub Markdown."""
    environment = _environment(finalize=_inline)
    environment.filters["code"] = lambda u: Markup("\n").join(
        # Four spaces make a code block that no transcript can end.
        Markup(f"    {line}".rstrip())
        for line in alignment_lines(u.ops)
    )
    text = environment.get_template("report.md.j2").render(_content(evaluation, comparison))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _content(evaluation: Evaluation, comparison: Comparison | None) -> dict[str, object]:
    """What both templates show."""
    return {
        "evaluation": evaluation,
        "comparison": comparison,
        "wording": wording,
        "headline": sections.headline(evaluation),
        "cards": sections.cards(evaluation),
        "intervals": sections.intervals(evaluation.rate),
        "sections": sections.sections(evaluation, comparison),
        "closing": sections.closing(evaluation),
        "worst": analysis.worst(evaluation)[: sections.WORST],
    }


def _environment(finalize: Callable[[object], object] | None = None) -> Environment:
    return Environment(
        loader=PackageLoader("wavasr.evaluation.report", ""),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return (resources.files("wavasr.evaluation.report") / name).read_text(encoding="utf-8")


def _inline(value: object) -> Markup:
    """Text that Markdown shows as it is."""
    if isinstance(value, Markup):
        return value
    escaped = "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~" else c for c in str(value))
    return Markup(" ".join(escaped.split()))


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


def _link(u: UtteranceResult, folder: Path | None) -> str:
    """The address of the recording (with the stretch in it), relative to the page; "" where there is none."""
    if not u.audio:
        return ""
    try:
        path = Path(u.audio) if _on_another_drive(u.audio, folder) else Path(os.path.relpath(u.audio, folder or "."))
        target = path.absolute().as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))
    except UnicodeEncodeError:  # no file has such a name
        return ""
    return target + (f"#t={u.offset_s:g},{u.offset_s + u.duration_s:g}" if u.offset_s else "")


def _on_another_drive(audio: str, folder: Path | None) -> bool:
    return Path(audio).absolute().drive != Path(folder or ".").absolute().drive


def _embedded(u: UtteranceResult) -> str:
    """The utterance's sound as the address of MP3 data; "" where the recording cannot be read any more."""
    from wavasr.corpora.manifest import Utterance
    from wavasr.corpora.recordings import load_utterance

    try:
        utterance = Utterance(u.id, Path(u.audio), u.duration_s, u.reference, offset_s=u.offset_s)
        samples = load_utterance(utterance, _AUDIO_HZ)
    except (WavasrError, OSError):
        return ""
    return sound_address(samples, _AUDIO_HZ)


def sound_address(samples: NDArray[np.float32], sample_rate: int) -> str:
    """Samples (S,) as the address of MP3 data, for a page that stands alone."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1, 1), sample_rate, format="MP3", subtype="MPEG_LAYER_III")
    return "data:audio/mpeg;base64," + base64.b64encode(stream.getvalue()).decode()
