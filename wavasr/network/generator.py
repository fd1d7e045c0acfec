"""The generative WaveNet: causal blocks that give the distribution of the next sample's mu-law class.

    frames (B, D, F) -- conv 3 -- conv 3 (+ speaker) -- 1x1 --> condition of every block, at frame rate
                                                                   |
    inputs (B, I, T) -- 1x1 -- gated blocks, summed skips -- relu -- 1x1 -- relu -- 1x1 --> logits (B, levels, T)

The input at t is known before sample t: the sample before it and, with linear prediction, the prediction of sample t,
the excitation before it, and the excitation one pitch period ago. `wavasr.generation.sampler` runs the same network
one sample at a time.

Sources: van den Oord et al. 2016, "WaveNet", arXiv 1609.03499; prediction first: Valin and Skoglund 2019, "LPCNet",
arXiv 1810.11846; taps one period ago: Wu et al. 2019, "Quasi-periodic WaveNet vocoder", arXiv 1907.00797.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from wavasr.archive import Content
from wavasr.config import from_dict, to_dict
from wavasr.errors import ConfigError, ModelError
from wavasr.network.columns import StackWeights, run_columns
from wavasr.network.config import CONDITION_REACH, GeneratorConfig, StageConfig
from wavasr.network.files import (
    GENERATOR_FORMAT,
    IMPROVISER,
    INSTRUMENT,
    WEIGHTS,
    read_arrays,
    read_header,
    resolve,
    write_model,
)
from wavasr.network.improviser import Improviser
from wavasr.network.instrument import Instrument
from wavasr.network.wavenet import GatedBlock, stack_weights


class Conditioning(nn.Module):
    """Frames, and a speaker, to what every block adds to its gate.

    Of "mel" frames the past and the future are known, so the convolutions are centred; of "past" only the past.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width, outputs = config.condition_channels, 2 * config.channels * len(config.dilations)
        self.first = nn.Conv1d(config.frame_features, width, 3) if config.frame_features else None
        self.second = nn.Conv1d(width, width, 3) if config.frame_features else None
        self.speakers = nn.Embedding(len(config.speakers), config.speaker_channels) if config.speakers else None
        self.voice = nn.Linear(config.speaker_channels, width, bias=False) if config.speakers else None
        self.output = nn.Conv1d(width, outputs, 1, bias=False)
        self.layers = len(config.dilations)
        with torch.no_grad():
            self.output.weight *= 0.7
            if self.speakers is not None:
                self.speakers.weight *= 0.3

    def forward(self, frames: Tensor, speaker: Tensor | None) -> Tensor:
        """Frames with `CONDITION_REACH` more on both sides (or twice that before), speakers (B,) int64.

        (B, D, F + 4) -> (B, L, 2C, F).
        """
        if self.first is None or self.second is None:
            hidden = frames.new_zeros(len(frames), self.output.in_channels, frames.shape[2] - 2 * CONDITION_REACH)
        else:
            hidden = self.second(F.relu(self.first(frames)))
        if self.speakers is not None and self.voice is not None and speaker is not None:
            hidden = hidden + self.voice(self.speakers(speaker))[..., None]
        condition: Tensor = self.output(F.relu(hidden))  # (B, L * 2C, F)
        return condition.view(len(condition), self.layers, -1, condition.shape[2])


class Generator(nn.Module):
    """A generative WaveNet. Its outputs are not samples but logits; the sampler draws from them."""

    # What the sampler must know of the training speech; training sets them once, before the first step.
    sample_gain: Tensor  # () brings samples to about unit range at the input
    excitation_gain: Tensor  # () brings what is quantised to mu-law's range
    frame_mean: Tensor  # (D,)
    frame_scale: Tensor  # (D,)

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        stage = StageConfig(
            channels=config.channels,
            skip_channels=config.skip_channels,
            kernel=config.kernel,
            dilations=config.dilations,
        )
        skip = config.skip_channels
        self.conditioning = Conditioning(config)
        self.project = nn.Conv1d(config.inputs, config.channels, 1)
        self.blocks = nn.ModuleList(GatedBlock(stage, d, causal=True, dropout=0.0) for d in config.dilations)
        self.post = nn.Conv1d(skip, skip, 1)
        self.output = nn.Conv1d(skip, config.levels, 1)
        for name in ("sample_gain", "excitation_gain"):
            self.register_buffer(name, torch.ones(()))
        self.register_buffer("frame_mean", torch.zeros(config.frame_features))
        self.register_buffer("frame_scale", torch.ones(config.frame_features))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Weights to start from: signals keep their size through the stack, the softmax begins almost flat."""
        config = self.config
        channels, layers = config.channels, len(config.dilations)
        self.project.weight.normal_(0, 1.0 if config.inputs == 1 else 0.6)
        for block in self._gated_blocks():
            block.dilated.weight.normal_(0, 1 / math.sqrt(config.kernel * channels))
            block.dilated.weight[:channels] *= 2  # the gate halves its filter's input
            block.mix.weight[:channels].normal_(0, 0.5 / math.sqrt(channels))
            block.mix.weight[channels:].normal_(0, 1.5 / math.sqrt(layers * channels))
        self.post.weight.normal_(0, 1.4 / math.sqrt(config.skip_channels))
        self.output.weight.normal_(0, 0.3 / math.sqrt(config.skip_channels))
        for layer in (self.project, self.post, self.output, *(b.dilated for b in self._gated_blocks())):
            cast(Tensor, layer.bias).zero_()
        for block in self._gated_blocks():
            cast(Tensor, block.mix.bias).zero_()

    def _gated_blocks(self) -> Sequence[GatedBlock]:
        return cast(Sequence[GatedBlock], self.blocks)

    def condition(self, frames: Tensor, speaker: Tensor | None = None) -> Tensor:
        """What the blocks add to their gates, without their bias: (B, D, F + 4) and (B,) int64 -> (B, L, 2C, F)."""
        normal = (frames - self.frame_mean[:, None]) / self.frame_scale[:, None]
        return cast(Tensor, self.conditioning(normal, speaker))

    def forward(self, inputs: Tensor, condition: Tensor) -> Tensor:
        """Logits of each sample's class from what is known before it; block by block, the reference.

        Args:
            inputs: (B, I, T), T = F * hop_samples.
            condition: (B, L, 2C, F).

        Returns:
            (B, levels, T).
        """
        x = self.project(inputs)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for index, block in enumerate(self._gated_blocks()):
            x, skip = block(x, None, condition[:, index])
            total = total + skip
        return cast(Tensor, self.output(F.relu(self.post(F.relu(total)))))

    def forward_columns(self, inputs: Tensor, condition: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `forward`, several times as fast on a CPU: (B, I, T), (B, L, 2C, F) -> (T * B, levels), time first."""
        batch = len(inputs)
        columns = inputs.permute(1, 2, 0).flatten(1).to(dtype)  # (I, T * B)
        x = torch.addmm(cast(Tensor, self.project.bias).to(dtype)[:, None], _matrix(self.project, dtype), columns)
        blocks = self._gated_blocks()
        bias = torch.stack([cast(Tensor, block.dilated.bias) for block in blocks])  # (L, 2C)
        frames = condition.permute(1, 2, 3, 0).flatten(2) + bias[..., None]  # (L, 2C, F * B)
        weights = StackWeights(*(weight.to(dtype) for weight in stack_weights(blocks)))
        delays = [block.delays for block in blocks]
        skip = run_columns(x, weights, frames.to(dtype), delays, batch, self.config.hop_samples)
        hidden = torch.addmm(cast(Tensor, self.post.bias).to(dtype)[:, None], _matrix(self.post, dtype), F.relu(skip))
        logits = F.relu(hidden).t() @ _matrix(self.output, dtype).t() + cast(Tensor, self.output.bias).to(dtype)
        return logits.float()


def _matrix(layer: nn.Conv1d, dtype: torch.dtype) -> Tensor:
    return layer.weight[..., 0].to(dtype)


def save_generator(
    model: Generator,
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    improviser: Improviser | None = None,
    instrument: Instrument | None = None,
) -> None:
    """Write the model file: matrices as float16, vectors as they are. It appears whole or not at all.

    Args:
        model: what is written.
        path: the file.
        metadata: what it says of its training.
        improviser: what makes up frames for it.
        instrument: what makes frames of notes for it.
    """
    header = {"format": GENERATOR_FORMAT, "generator": to_dict(model.config), "metadata": dict(metadata or {})}
    parts: dict[str, Content] = {WEIGHTS: save(_stored(model))}
    if improviser is not None:
        header["improviser"] = to_dict(improviser.config)
        parts[IMPROVISER] = save(_stored(improviser))
    if instrument is not None:
        parts[INSTRUMENT] = save(_stored(instrument))
    write_model(path, header, parts)


def _stored(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().to(torch.float16 if tensor.dim() > 1 else torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
    }


def start_generator(network: Generator, model: str | Path) -> None:
    """Set a new network's weights to those of a trained one, but its speakers' vectors; they may be others.

    Inputs that the trained network lacks (the tone of notes) start at zero.

    Raises:
        ModelError: not a generator's model file, damaged, or of another shape.
    """
    path = resolve(model)
    read_header(path, GENERATOR_FORMAT)
    arrays = read_arrays(path)
    own = network.state_dict()
    for name, tensor in own.items():
        if name.startswith(("conditioning.speakers.", "conditioning.voice.")):
            continue
        if name == "project.weight" and name in arrays and arrays[name].shape[1] < tensor.shape[1]:
            missing = tensor.shape[1] - arrays[name].shape[1]
            arrays[name] = np.pad(arrays[name], ((0, 0), (0, missing), (0, 0)))
        if name not in arrays or arrays[name].shape != tuple(tensor.shape):
            raise ModelError(f"{path}: its {name} does not fit generator.*; start from a model of the same shape")
        tensor.copy_(torch.from_numpy(arrays[name]))


def load_generator(model: str | Path) -> Generator:
    """The network of a generator's model file, in eval mode.

    Raises:
        ModelError: not such a file, or damaged.
    """
    path = resolve(model)
    header = read_header(path, GENERATOR_FORMAT)
    arrays = read_arrays(path)
    try:
        network = Generator(from_dict(GeneratorConfig, header["generator"]))
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in network.state_dict()})
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        raise ModelError(f"{path}: its weights do not fit its configuration; train the model again") from error
    return network.eval()
