"""A page about a generator: its measures, and recordings beside what it makes of them, to see and to hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wavasr.files import atomic_text
from wavasr.pictures.page import embedded, render
from wavasr.pictures.voices import spectrograms

PAGE_NAME = "report.html"


@dataclass(frozen=True)
class Measure:
    """A figure of the model beside that of natural sound ("" where there is none), in words that can be read alone."""

    name: str
    value: str
    natural: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Example:
    """Sounds (S,) float32 that belong together, by what they are, e.g. "natural" and "spoken again"."""

    name: str
    text: str
    sounds: Mapping[str, NDArray[np.float32]]


def write_page(
    folder: Path,
    *,
    title: str,
    verdict: str,
    measures: Sequence[Measure],
    examples: Sequence[Example],
    sample_rate: int,
    about: str = "",
) -> Path:
    """Write report.html into a folder, which is made; the page stands alone.

    Raises:
        OSError: it cannot be written.
    """
    from wavasr.evaluation.report.render import sound_address

    shown = [
        (
            example,
            embedded(spectrograms(example.sounds, sample_rate), drawn=False),
            {name: sound_address(sound, sample_rate) for name, sound in example.sounds.items()},
        )
        for example in examples
    ]
    content = {"title": title, "verdict": verdict, "measures": measures, "examples": shown, "about": about}
    path = folder / PAGE_NAME
    with atomic_text(path) as stream:
        stream.write(render("generation.html.j2", content))
    return path
