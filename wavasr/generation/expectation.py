"""What a generator expects of a recording, every sample given the true past: its likelihood, all samples at once.

The torch network (`wavasr.network.generator.Generator.forward`) computes the same; a test compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavasr.audio.scores import Note
from wavasr.errors import AudioError
from wavasr.generation.inputs import density_bits, lesson, prepared
from wavasr.generation.network import Network
from wavasr.network.config import CONDITION_REACH

Array = npt.NDArray[np.float32]
_PIECE_FRAMES = 100  # that are computed together


@dataclass(frozen=True)
class Expected:
    """What is expected of T samples, and what came.

    Attributes:
        network: that expects.
        hidden: (T, S) the summed skip connections.
        classes: (T,) int64, those that came.
        nats: (T,) minus the logarithm of the probability of what came.
        density: (T,) bits per step of a 16-bit sample, comparable across quantisers.
        samples: (T,) as they were given, without the generator's emphasis.
    """

    network: Network
    hidden: Array
    classes: npt.NDArray[np.int64]
    nats: Array
    density: Array
    samples: Array

    def log_probs(self, part: slice) -> Array:
        """Of each class of some samples, from what is known before each: (N, levels)."""
        return self.network.log_probs(self.hidden[part])


def expected(network: Network, samples: Array, speaker: int = 0, notes: Sequence[Note] = ()) -> Expected:
    """Run a generator over a recording.

    Args:
        network: of a model file.
        samples: (S,) float32 at its rate.
        speaker: the number of its voice.
        notes: that are played, for an instrument.

    Raises:
        AudioError: the recording is shorter than a frame.
    """
    config = network.config
    if len(samples) < config.hop_samples:
        raise AudioError(f"the recording has {len(samples)} samples; expected a frame of {config.hop_samples} or more")
    emphasised, frames, gain = prepared(samples, config, notes)
    inputs, classes = lesson(np.pad(emphasised, (frames.coefficients.shape[1], 0)), frames, config, network.gains)
    reach = 2 * CONDITION_REACH
    before = reach if config.condition == "past" else CONDITION_REACH
    features = np.pad(frames.features, ((before, reach - before), (0, 0)), mode="edge")
    condition, hop = network.condition(features, speaker), config.hop_samples
    past = -(-config.receptive_samples // hop)
    hidden = np.zeros((len(classes), config.skip_channels), np.float32)
    nats = np.zeros(len(classes), np.float32)
    for first in range(0, len(frames), _PIECE_FRAMES):
        start, end = max(0, first - past), min(first + _PIECE_FRAMES, len(frames))
        part = slice(first * hop, end * hop)
        hidden[part] = network.skips(inputs[:, start * hop : end * hop], condition[start:end])[(first - start) * hop :]
        nats[part] = -np.take_along_axis(network.log_probs(hidden[part]), classes[part, None], axis=1)[:, 0]
    density = nats / np.float32(np.log(2)) + density_bits(frames, classes, config, network.gains, gain)
    return Expected(network, hidden, classes, nats, density, samples[: len(classes)])
