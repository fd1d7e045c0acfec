"""Frames out of nothing, drawn one after the other from a WaveNet over frames, in NumPy.

The torch network is `wavasr.network.improviser.Improviser`; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from wavasr.audio.pitch import Pitch
from wavasr.generation.frames import REFERENCE_LAG, Frames, described
from wavasr.network.config import GeneratorConfig, ImproviserConfig

Array = npt.NDArray[np.float32]

_SMOOTH = np.array([0.25, 0.5, 0.25])  # over frames: codes jump, spectra do not


class FrameSampler:
    """The network's state, and its draws.

    Args:
        config: of the network.
        arrays: its weights.
        speaker: whose frames.
        seed: start of the random choices.
        temperature: of the draws.
    """

    def __init__(
        self, config: ImproviserConfig, arrays: Mapping[str, Array], speaker: int, seed: int, temperature: float
    ) -> None:
        self._config, self._arrays = config, arrays
        self._voice = arrays["speaker.weight"][speaker]
        self._mean = arrays["means"][speaker]
        self._random, self._temperature = np.random.default_rng(seed), temperature
        self._rings = [np.zeros(((config.kernel - 1) * d, config.channels), np.float32) for d in config.dilations]
        self._time = 0
        quiet = int(arrays["spectra"].sum(axis=1).argmin())  # it begins in silence
        self.last = quiet, int(arrays["pitches"][:, 0].argmin())

    def draw(self) -> tuple[int, int]:
        """The next frame's code and pitch code."""
        weights = self._arrays
        hidden = self.hidden(*self.last)
        code = self._choose(weights["output.weight"][..., 0] @ np.maximum(hidden, 0) + weights["output.bias"])
        given = np.maximum(hidden + weights["drawn.weight"][code], 0)
        pitch = self._choose(weights["pitch_output.weight"][..., 0] @ given + weights["pitch_output.bias"])
        self.last = code, pitch
        return self.last

    def hidden(self, code: int, pitch_code: int) -> Array:
        """One step: the frame before, (C,) before the outputs."""
        weights, channels = self._arrays, self._config.channels
        x = weights["code.weight"][code] + weights["pitch_code.weight"][pitch_code] + self._voice
        total = np.zeros(channels, np.float32)
        for layer, (ring, dilation) in enumerate(zip(self._rings, self._config.dilations, strict=True)):
            place = self._time % len(ring)
            taps = [ring[(place + tap * dilation) % len(ring)] for tap in range(self._config.kernel - 1)]
            kernel = weights[f"blocks.{layer}.dilated.weight"]  # (2C, C, k)
            inner = sum(kernel[..., tap] @ value for tap, value in enumerate([*taps, x]))
            inner = np.tanh((inner + weights[f"blocks.{layer}.dilated.bias"]) / 2)
            gated = inner[:channels] * (1 + inner[channels:]) / 2
            ring[place] = x
            mixed = weights[f"blocks.{layer}.mix.weight"][..., 0] @ gated + weights[f"blocks.{layer}.mix.bias"]
            x, total = x + mixed[:channels], total + mixed[channels:]
        self._time += 1
        hidden: Array = weights["post.weight"][..., 0] @ np.maximum(total, 0) + weights["post.bias"]
        return hidden

    def _choose(self, logits: Array) -> int:
        heights = np.exp((logits - logits.max()).astype(np.float64) / self._temperature).cumsum()
        return int((heights < self._random.random() * heights[-1]).sum())

    def frames(self, count: int, config: GeneratorConfig) -> Frames:
        """So many frames as the vocoder takes them."""
        codes, pitch_codes = np.array([self.draw() for _ in range(count)]).T
        log_mel = _smoothed(self._arrays["spectra"][codes] + self._mean[:-1])
        pitches = self._arrays["pitches"][pitch_codes]
        log_lag = _smoothed((pitches[:, 1] + self._mean[-1])[:, None])[:, 0]
        lags = (REFERENCE_LAG * np.exp(log_lag)).astype(np.float32)
        return described(log_mel, Pitch(lags, np.clip(pitches[:, 0], 0, 1).astype(np.float32)), config)


def _smoothed(rows: npt.NDArray[np.floating]) -> Array:
    """(F, D) averaged over three frames."""
    padded = np.pad(rows, ((1, 1), (0, 0)), mode="edge")
    parts = [weight * padded[shift : shift + len(rows)] for shift, weight in enumerate(_SMOOTH)]
    return np.asarray(parts[0] + parts[1] + parts[2], dtype=np.float32)
