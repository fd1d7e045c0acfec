"""One look for all pictures. Colours are those of Okabe and Ito, told apart by colour-blind readers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from wavasr.errors import WavasrError
from wavasr.files import atomic_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, INK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#222222", "#8a8a8a",
)  # fmt: skip
SPECTRUM = "magma"  # a colour map whose lightness rises evenly
SUFFIXES = (".png", ".svg", ".pdf", ".jpg", ".webp")
_SETTINGS: Any = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "wavasr",
    "savefig.dpi": 150,
}

P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """A function that draws, in this package's style; the caller's own settings stay as they are."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        from matplotlib import rc_context

        with rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure that belongs to nobody: pyplot does not know it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix tells the format.

    Raises:
        WavasrError: no such format.
        OSError: the file cannot be written.
    """
    check_suffix(path)
    with atomic_bytes(path) as stream:
        figure.savefig(stream, format=path.suffix[1:].lower())


def check_suffix(path: Path) -> None:
    """Raise a WavasrError unless pictures of this suffix can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise WavasrError(
            f"{path}: no picture format {path.suffix or 'without a suffix'}; use one of {' '.join(SUFFIXES)}"
        )


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Name both axes."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title)


def plain(axes: Axes) -> Axes:
    """An axes without frame and ticks."""
    axes.set_axis_off()
    return axes


def image(axes: Axes, values: Any, extent: tuple[float, float, float, float], **options: Any) -> Any:
    """A matrix (rows bottom to top) with pixels as they are; `extent` is left, right, bottom, top."""
    return axes.imshow(values, origin="lower", aspect="auto", extent=extent, interpolation="nearest", **options)
