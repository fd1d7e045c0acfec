"""Pages with figures that stand alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wavasr.pictures.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 130


def render(template: str, content: Mapping[str, Any]) -> str:
    """The text of a page; what it is given is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("wavasr.pictures", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(content)


@styled
def embedded(figure: Figure, drawn: bool) -> str:
    """The figure as the address of its data: SVG where it is drawn of lines, PNG where it holds images."""
    stream = io.BytesIO()
    if drawn:
        figure.savefig(stream, format="svg", metadata={"Date": None})
    else:
        figure.savefig(stream, format="png", dpi=_DPI)
    kind = "svg+xml" if drawn else "png"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
