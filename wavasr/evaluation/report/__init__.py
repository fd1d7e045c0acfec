"""An evaluation as JSON, Markdown and a page that stands alone; two of them compared.

Evaluation -> sections, once -> render: report.html and report.md; store: report.json and utterances.csv; all or none
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from wavasr.errors import WavasrError
from wavasr.evaluation.report.comparison import Comparison, compare
from wavasr.evaluation.report.render import html, markdown
from wavasr.evaluation.report.store import read, to_csv, to_json
from wavasr.evaluation.report.wording import fitted, summary
from wavasr.evaluation.results import Evaluation

__all__ = [
    "Comparison",
    "compare",
    "fitted",
    "html",
    "markdown",
    "prepare_directory",
    "read",
    "summary",
    "to_json",
    "write_report",
]


def prepare_directory(directory: Path | str) -> Path:
    """Make the report's folder and see that it can be written, before the work whose result goes there.

    Raises:
        WavasrError: it cannot be made or written.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except FileExistsError:
        raise WavasrError(f"{directory}: is a file; give a folder for the report") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise WavasrError(
            f"{directory}: the report cannot be written here ({reason}); choose another folder"
        ) from error
    return directory


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
        WavasrError: the folder cannot be written, the disk is full, or the baseline was scored on other utterances.
    """
    directory = prepare_directory(directory)
    comparison = compare(evaluation, baseline) if baseline is not None else None
    texts = {
        "report.json": to_json(evaluation, comparison.to_dict() if comparison else None),
        "utterances.csv": to_csv(evaluation),
        "report.md": markdown(evaluation, comparison),
        "report.html": html(evaluation, comparison, directory, with_audio=with_audio),
    }
    new = Path(tempfile.mkdtemp(prefix=".report-", dir=directory))
    try:
        for name, text in texts.items():
            # Names of files and speakers may hold half a character; in JSON the escape stands for itself.
            (new / name).write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        for name in texts:
            (new / name).replace(directory / name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise WavasrError(
            f"{directory}: the report was not written ({reason}); free space or choose another"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return directory / "report.html"
