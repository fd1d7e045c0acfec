"""The learning curves of a run."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wavasr.errors import WavasrError
from wavasr.pictures.style import BLUE, GREEN, ORANGE, PURPLE, RED, SKY, label, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
_METRICS = "metrics.csv"
_SPLITS = ("train_", "dev_", "test_")
_COUNTERS = {"epoch", "step", "lr", "seconds"}

Curve = list[tuple[float, float]]


@styled
def learning_curves(run_dir: str | Path) -> Figure:
    """Every measure of a run over its steps, training and dev in one panel.

    Args:
        run_dir: what `wavasr fit` wrote, or its metrics.csv.

    Raises:
        WavasrError: there are no metrics.
    """
    curves = read_curves(Path(run_dir))
    measures = list(dict.fromkeys(_measure(name) for name in curves))
    columns = min(3, len(measures))
    rows = math.ceil(len(measures) / columns)
    figure = new_figure(4.6 * columns, 3.1 * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for measure, axes in zip(measures, panels, strict=False):  # in this order: a panel taken is not put back
        names = [name for name in curves if _measure(name) == measure]
        for name, colour in zip(names, _COLOURS, strict=False):
            steps, values = zip(*curves[name], strict=True)
            split = name.partition("_")[0] if name.startswith(_SPLITS) else name
            marker = "o" if len(steps) < 60 and not name.startswith("train_") else ""
            axes.plot(steps, values, color=colour, linewidth=1.4, marker=marker, markersize=3, label=split)
        if len(names) > 1 or names[0].startswith(_SPLITS):
            axes.legend()
        label(axes, "step", "", measure.replace("_", " "))
        axes.grid(color="#e5e5e5", linewidth=0.6)
    for axes in list(panels):
        axes.set_axis_off()
    figure.suptitle(f"{Path(run_dir).resolve().name}: learning curves", fontweight="bold")
    return figure


def read_curves(run_dir: Path) -> dict[str, Curve]:
    """(step, value) of each measure in metrics.csv; what is not a finite number is left out.

    Raises:
        WavasrError: there is no such file, or nothing in it.
    """
    path = run_dir if run_dir.suffix == ".csv" else run_dir / _METRICS
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            rows = list(csv.DictReader(line.replace("\0", "") for line in stream))
    except OSError as error:
        raise WavasrError(
            f"{path}: cannot be read ({error.strerror}); give the folder of a run of wavasr fit"
        ) from None
    except csv.Error as error:
        raise WavasrError(f"{path}: is not CSV ({error}); give the folder of a run of wavasr fit") from None
    curves: dict[str, Curve] = {}
    for row in rows:
        step = _number(row.get("step"))
        for name, text in row.items():
            value = _number(text)
            if name and name not in _COUNTERS and step is not None and value is not None:
                curves.setdefault(name, []).append((step, value))
    if not curves:
        raise WavasrError(f"{path}: holds no measure; the run has not come to its first one")
    return dict(sorted(curves.items(), key=lambda item: _measure(item[0])))


def _number(text: str | Sequence[str] | None) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _measure(name: str) -> str:
    return next((name.removeprefix(split) for split in _SPLITS if name.startswith(split)), name)
