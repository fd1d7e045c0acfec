"""An evaluation as JSON, Markdown and a page that stands alone; two of them compared.

Evaluation -> sections, once -> render: report.html and report.md; store: report.json and utterances.csv; all or none
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from wavasr.evaluation.report.comparison import Comparison, compare, refuse_other_utterances
from wavasr.evaluation.report.render import html, markdown
from wavasr.evaluation.report.store import read, to_csv, to_json
from wavasr.evaluation.report.wording import fitted, summary
from wavasr.evaluation.results import Evaluation
from wavasr.files import atomic_text

__all__ = [
    "Comparison",
    "compare",
    "fitted",
    "html",
    "markdown",
    "read",
    "refuse_other_utterances",
    "summary",
    "to_json",
    "write_report",
]


def write_report(
    evaluation: Evaluation,
    directory: Path | str,
    baseline: Evaluation | None = None,
    *,
    with_audio: bool = False,
) -> Path:
    """Write report.html, report.md, report.json and utterances.csv; the old ones stay whole until all are written.

    Args:
        evaluation: what the report shows.
        directory: made where it does not exist.
        baseline: adds a section that compares with it.
        with_audio: put the recordings of the utterances with the most errors into the page, to be heard anywhere.

    Returns:
        The path of report.html.

    Raises:
        OSError: a file cannot be written.
        WavasrError: the baseline was scored on other utterances.
    """
    directory = Path(directory)
    comparison = compare(evaluation, baseline) if baseline is not None else None
    texts = {
        "report.json": to_json(evaluation, comparison.to_dict() if comparison else None),
        "utterances.csv": to_csv(evaluation),
        "report.md": markdown(evaluation, comparison),
        "report.html": html(evaluation, comparison, directory, with_audio=with_audio),
    }
    with contextlib.ExitStack() as stack:
        for name, text in texts.items():
            stream = stack.enter_context(atomic_text(directory / name))
            stream.write(text)
            stream.flush()  # a full disk shows before the first file is replaced
    return directory / "report.html"
