"""A generator's weights as the sampler takes them, and its conditioning network, in NumPy.

The torch network (`wavasr.network.generator.Generator`) is the same; tests compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavasr.config import from_dict
from wavasr.errors import ConfigError, ModelError
from wavasr.generation.inputs import Gains
from wavasr.network.config import CONDITION_REACH, GeneratorConfig, ImproviserConfig
from wavasr.network.files import GENERATOR_FORMAT, IMPROVISER, INSTRUMENT, read_arrays, read_header, resolve

Array = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StepWeights:
    """What one step multiplies by; all matrices (inputs, outputs). L blocks, C channels, S skip channels, k taps.

    Attributes:
        project: (I, C) and its bias (C,).
        dilated: (L, kC, 2C), the oldest tap first; both halves halved, so that the gate is tanh(f) (1 + tanh(g)).
        residual: (L, C, C) and its bias (L, C); the gate's factor 1/2 is inside.
        skip: (L * C, S) and its bias (S,); likewise.
        post: (S, S) and its bias (S,).
        output: (S, levels) and its bias (levels,).
    """

    project: Array
    project_bias: Array
    dilated: Array
    residual: Array
    residual_bias: Array
    skip: Array
    skip_bias: Array
    post: Array
    post_bias: Array
    output: Array
    output_bias: Array


class Network:
    """A generator without torch.

    Attributes:
        config: its shape.
        gains: what brings signals to its range.
        weights: of one step.
        metadata: what the model file says of its training.
        improviser: configuration and weights of what makes up frames; None where there is none.
        instrument: weights of what makes frames of notes; None where there is none.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        arrays: Mapping[str, Array],
        metadata: Mapping[str, Any] | None = None,
        improviser: tuple[ImproviserConfig, Mapping[str, Array]] | None = None,
        instrument: Mapping[str, Array] | None = None,
    ) -> None:
        self.config = config
        self.improviser = improviser
        self.instrument = instrument
        self.metadata = dict(metadata or {})
        self.gains = Gains(float(arrays["sample_gain"]), float(arrays["excitation_gain"]))
        self.weights = _step_weights(config, arrays)
        self._mean, self._scale = (arrays[name].astype(np.float64) for name in ("frame_mean", "frame_scale"))
        self._conditioning = {
            name.removeprefix("conditioning."): values.astype(np.float64)
            for name, values in arrays.items()
            if name.startswith("conditioning.")
        }
        biases = [arrays[f"blocks.{index}.dilated.bias"] for index in range(len(config.dilations))]
        self._bias = np.stack(biases).astype(np.float64)  # (L, 2C)

    @classmethod
    def read(cls, model: str | Path) -> Network:
        """From a model file or the name of a shipped one.

        Raises:
            ModelError: not a generator's model file, or damaged.
        """
        path = resolve(model)
        header = read_header(path, GENERATOR_FORMAT)
        try:
            improviser = None
            if "improviser" in header:
                shape = from_dict(ImproviserConfig, header["improviser"])
                improviser = shape, read_arrays(path, IMPROVISER)
            config = from_dict(GeneratorConfig, header["generator"])
            instrument = read_arrays(path, INSTRUMENT) if config.condition == "notes" else None
            return cls(config, read_arrays(path), header.get("metadata"), improviser, instrument)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ModelError(f"{path}: its weights do not fit its configuration; train the model again") from error

    def speaker(self, name: str | None) -> int:
        """The number of a speaker; None: the first.

        Raises:
            ModelError: no such speaker; the message names those that there are.
        """
        known = self.config.speakers
        if name is None or (not known and name == ""):
            return 0
        if name not in known:
            raise ModelError(
                f"unknown speaker {name!r}; "
                + (f"known speakers: {', '.join(known)}" if known else "this model has one voice: leave --speaker out")
            )
        return known.index(name)

    def condition(self, features: Wide | Array, speaker: int) -> Array:
        """Half of what the blocks add to their gates, their bias included: (F + 4, D) -> (F, L, 2C) float32.

        It is computed in double precision and rounded once: the same whatever frames are computed together.
        """
        weights = self._conditioning
        if self.config.frame_features:
            normal = (features - self._mean) / self._scale
            hidden = _convolve(normal, weights["first.weight"], weights["first.bias"])
            hidden = _convolve(np.maximum(hidden, 0), weights["second.weight"], weights["second.bias"])
        else:
            hidden = np.zeros((len(features) - 2 * CONDITION_REACH, self.config.condition_channels))
        if self.config.speakers:
            hidden = hidden + weights["voice.weight"] @ weights["speakers.weight"][speaker]
        condition = np.maximum(hidden, 0) @ weights["output.weight"][..., 0].T
        total = condition.reshape(len(hidden), *self._bias.shape) + self._bias
        return np.asarray(total / 2, dtype=np.float32)

    def skips(self, inputs: Array, condition: Array) -> Array:
        """The summed skip connections of T samples from what is known before each: (I, T), (F, L, 2C) -> (T, S)."""
        weights, config = self.weights, self.config
        x = inputs.T @ weights.project + weights.project_bias  # (T, C)
        gated = []
        for layer, dilation in enumerate(config.dilations):
            delays = [dilation * tap for tap in reversed(range(config.kernel))]
            taps = [np.pad(x, ((delay, 0), (0, 0)))[: len(x)] for delay in delays]
            hidden = np.concatenate(taps, axis=1) @ weights.dilated[layer]
            value, gate = np.split(np.tanh(hidden + np.repeat(condition[:, layer], config.hop_samples, axis=0)), 2, 1)
            gated.append(value * (1 + gate))
            x = x + gated[-1] @ weights.residual[layer] + weights.residual_bias[layer]
        return np.asarray(np.concatenate(gated, axis=1) @ weights.skip + weights.skip_bias, np.float32)

    def log_probs(self, skips: Array) -> Array:
        """The distribution of each sample's class: (T, S) -> (T, levels)."""
        weights = self.weights
        hidden = np.maximum(np.maximum(skips, 0) @ weights.post + weights.post_bias, 0)
        logits = hidden @ weights.output + weights.output_bias
        logits -= logits.max(axis=1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), np.float32)


def _convolve(frames: Wide, weight: Wide, bias: Wide) -> Wide:
    """(F + 2, D) and a kernel of three taps (N, D, 3) -> (F, N)."""
    count = len(frames) - 2
    taps = [frames[tap : tap + count] @ weight[..., tap].T for tap in range(3)]
    return np.asarray(taps[0] + taps[1] + taps[2] + bias, dtype=np.float64)


def _step_weights(config: GeneratorConfig, arrays: Mapping[str, Array]) -> StepWeights:
    channels, layers = config.channels, len(config.dilations)

    def block(name: str) -> Array:
        return np.stack([arrays[f"blocks.{index}.{name}"] for index in range(layers)])

    dilated = block("dilated.weight")  # (L, 2C, C, k)
    mix, mix_bias = block("mix.weight")[..., 0], block("mix.bias")  # (L, C + S, C)
    found = {
        "project": arrays["project.weight"][..., 0].T,
        "project_bias": arrays["project.bias"],
        "dilated": dilated.transpose(0, 3, 2, 1).reshape(layers, -1, 2 * channels) / 2,
        "residual": mix[:, :channels].transpose(0, 2, 1) / 2,
        "residual_bias": mix_bias[:, :channels],
        "skip": mix[:, channels:].transpose(0, 2, 1).reshape(layers * channels, -1) / 2,
        "skip_bias": mix_bias[:, channels:].sum(axis=0),
        "post": arrays["post.weight"][..., 0].T,
        "post_bias": arrays["post.bias"],
        "output": arrays["output.weight"][..., 0].T,
        "output_bias": arrays["output.bias"],
    }
    return StepWeights(**{name: np.ascontiguousarray(values, dtype=np.float32) for name, values in found.items()})
