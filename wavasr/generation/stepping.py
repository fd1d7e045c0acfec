"""One sample after the other, in NumPy: many streams together, the past in ring buffers.

The compiled kernel (`wavasr.generation.kernel`) does the same steps. Sums in single precision depend on their order:
from the same past both choose the same class, unless the number that chooses lies within 1e-6 of the border between
two, which happens once in some ten thousand samples. From there on the two sound as different as two seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavasr.audio.pitch import lag_range
from wavasr.generation.inputs import INPUT_SCALE
from wavasr.generation.network import Network
from wavasr.generation.quantise import centres

Array = npt.NDArray[np.float32]

LOUDEST = 4.0  # a pre-emphasised sample at the active level


@dataclass(frozen=True)
class Orders:
    """What is to be drawn: F frames of N streams.

    Attributes:
        condition: (N, F, L, 2C) added to the gates, biases included.
        coefficients: (N, F, order) of the linear prediction; order 0: none.
        level: (N, F) of the excitation.
        lag_samples: (N, F) int64.
        sharpness: (N, F) the logits are multiplied by it: 1 draws from the network's distribution.
        guide: (N, F * hop) a tone as a further input; (N, 0) where the network has none.
        uniform: (N, F * hop) numbers in [0, 1) that choose the classes.
    """

    condition: Array
    coefficients: Array
    level: Array
    lag_samples: npt.NDArray[np.int64]
    sharpness: Array
    guide: Array
    uniform: Array


@dataclass(frozen=True)
class Drawn:
    """Samples of N streams.

    Attributes:
        samples: (N, T) float32 as they sound.
        emphasised: (N, T) float32 as they are modelled.
        classes: (N, T) int16.
    """

    samples: Array
    emphasised: Array
    classes: npt.NDArray[np.int16]


def ring_size(longest: int) -> int:
    """A power of two that holds so many past values."""
    return 1 << int(longest).bit_length()


class Stepper:
    """The state of N streams, and the steps that move them on."""

    def __init__(self, network: Network, streams: int) -> None:
        config = network.config
        self.network, self.streams = network, streams
        reach = [(config.kernel - 1) * d for d in config.dilations]
        self.rings = [np.zeros((length, streams, config.channels), np.float32) for length in reach]
        self.time = 0
        longest = max(config.prediction_order, lag_range(config.sample_rate)[1] + 2)
        self.past = np.zeros((ring_size(longest), streams), np.float32)
        self.excitation = np.zeros((ring_size(longest), streams), np.float32)
        self.output = np.zeros(streams, np.float32)

    def draw(self, orders: Orders) -> Drawn:
        """F frames more."""
        hop = self.network.config.hop_samples
        count = orders.level.shape[1] * hop
        drawn = Drawn(
            np.zeros((self.streams, count), np.float32),
            np.zeros((self.streams, count), np.float32),
            np.zeros((self.streams, count), np.int16),
        )
        for index in range(count):
            self._step(orders, index, index // hop, drawn)
        return drawn

    def _step(self, orders: Orders, index: int, frame: int, drawn: Drawn) -> None:
        config, gains = self.network.config, self.network.gains
        predicted = self._predicted(orders.coefficients[:, frame])
        scale = np.float32(gains.excitation) / orders.level[:, frame]
        inputs = self._inputs(predicted, scale, orders.lag_samples[:, frame])
        if config.condition == "notes":
            inputs = np.concatenate([inputs, orders.guide[:, index, None]], axis=1)
        logits = self.logits(inputs, orders.condition[:, frame])
        classes = choose(logits * orders.sharpness[:, frame, None], orders.uniform[:, index])
        excitation = centres(config.levels)[classes] / scale
        sample = np.clip(excitation + predicted, -LOUDEST, LOUDEST)
        self.excitation[self.time & (len(self.excitation) - 1)] = excitation
        self.past[self.time & (len(self.past) - 1)] = sample
        self.output = sample + np.float32(config.pre_emphasis) * self.output
        self.time += 1
        drawn.samples[:, index] = self.output
        drawn.emphasised[:, index] = sample
        drawn.classes[:, index] = classes

    def _predicted(self, coefficients: Array) -> Array:
        total: Array = np.zeros(self.streams, np.float32)
        for lag in range(coefficients.shape[1]):
            total = total + coefficients[:, lag] * self.past[(self.time - 1 - lag) & (len(self.past) - 1)]
        return np.asarray(total, dtype=np.float32)

    def _inputs(self, predicted: Array, scale: Array, lags: npt.NDArray[np.int64]) -> Array:
        """What is known before the sample: (N, I)."""
        mask = len(self.excitation) - 1
        sample_gain = np.float32(self.network.gains.sample)
        last: Array = self.past[(self.time - 1) & mask] * sample_gain
        if self.network.config.excitation == "none":
            return last[:, None]
        row = np.arange(self.streams)
        places = [np.full(self.streams, self.time - 1), *(self.time - lags + shift for shift in (-1, 0, 1))]
        known = [self.excitation[place & mask, row] * (np.float32(INPUT_SCALE) * scale) for place in places]
        return np.asarray(np.stack([last, predicted * sample_gain, *known], axis=1), dtype=np.float32)

    def logits(self, inputs: Array, condition: Array) -> Array:
        """One step of the network: (N, I), (N, L, 2C) -> (N, levels)."""
        config, weights = self.network.config, self.network.weights
        channels = config.channels
        x = inputs @ weights.project + weights.project_bias
        gated = []
        for layer, (ring, dilation) in enumerate(zip(self.rings, config.dilations, strict=True)):
            place = self.time % len(ring)
            taps = [ring[(place + tap * dilation) % len(ring)] for tap in range(config.kernel - 1)]
            hidden = np.concatenate([*taps, x], axis=1) @ weights.dilated[layer] + condition[:, layer]
            ring[place] = x
            hidden = np.tanh(hidden)
            gated.append(hidden[:, :channels] * (1 + hidden[:, channels:]))
            x = x + gated[-1] @ weights.residual[layer] + weights.residual_bias[layer]
        skip = np.concatenate(gated, axis=1) @ weights.skip + weights.skip_bias
        hidden = np.maximum(skip, 0) @ weights.post + weights.post_bias
        logits: Array = np.maximum(hidden, 0) @ weights.output + weights.output_bias
        return logits


def choose(logits: Array, uniform: Array) -> npt.NDArray[np.int64]:
    """The class in whose share of the probability each number falls: (N, levels), (N,) -> (N,)."""
    heights = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64).cumsum(axis=1)
    return np.asarray((heights < uniform[:, None] * heights[:, -1:]).sum(axis=1), dtype=np.int64)
