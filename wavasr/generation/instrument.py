"""Notes to mel spectra, in NumPy: what `wavasr.network.instrument.Instrument` learnt; a test compares them.

key, velocity, age, time since its end -- two hidden layers --> log-mel power of one note
the powers of all notes that sound, added                  --> the frame's mel spectrum
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wavasr.audio.scores import LOWEST_KEY, Note
from wavasr.generation.frames import Frames, described_notes
from wavasr.generation.notes import Sounding, sounding
from wavasr.network.config import GeneratorConfig

Array = npt.NDArray[np.float32]


def places_of(heard: Sounding) -> Array:
    """How hard and how long ago each note was struck and let go: (N, NOTE_PLACES)."""
    age, released = heard.ages_s, np.maximum(heard.released_s, 0)
    parts: list[npt.NDArray[Any]] = [
        heard.velocities,
        np.log(np.maximum(age, -0.02) + 0.025) / 2,
        np.minimum(age, 4.0),
        released * 5,
    ]
    return np.stack([*parts, heard.released_s > 0], axis=1).astype(np.float32)


class Instrument:
    """The network, ready for use.

    Args:
        weights: its own, by name.
    """

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._weights = weights

    def log_mel(self, heard: Sounding, count: int) -> Array:
        """The spectra of so many frames: (count, bands)."""
        weights = self._weights
        x = weights["key.weight"][heard.keys - LOWEST_KEY] + self._layer("place", places_of(heard))
        x = self._layer("second", np.maximum(x, 0))
        power = np.exp(self._layer("output", np.maximum(x, 0)))
        total = np.tile(np.exp(weights["floor"]), (count, 1))
        np.add.at(total, heard.frames, power)
        return np.asarray(np.log(total), np.float32)

    def _layer(self, name: str, x: Array) -> Array:
        return np.asarray(x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"], np.float32)

    def frames(self, notes: Sequence[Note], count: int, config: GeneratorConfig) -> Frames:
        """So many frames as the vocoder takes them."""
        heard = sounding(notes, count, config.hop_samples / config.sample_rate)
        return described_notes(self.log_mel(heard, count), notes, config)
