"""The network of a recogniser written plainly: the reference that speed is compared with.

Textbook modules in float32, one operation after the other: strided and dilated convolutions as they stand in the
paper, tanh and sigmoid, a norm left to autograd, a mask multiplied in, a convolution each for residual and skip.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.network.geometry import (
    ENERGY_FLOOR,
    LEVEL_FLOOR,
    LEVEL_SCALE,
    LEVEL_SHIFT,
    NORM_FLOOR,
    dilated_reach,
    frames_of,
    split_reach,
)
from wavasr.network.recognizer import Recognizer
from wavasr.network.wavenet import GatedBlock, Stage


class PlainNetwork(nn.Module):
    """(B, S) samples, (B,) lengths -> log-probabilities (B, T, V), (B,) frames, with the recogniser's own weights."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model
        self.causal = model.encoder_config.context == "causal"

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        first = self.model.encoder_config.stages[0]
        waveform = F.pad(waveform * _mask(lengths, waveform.shape[1]), (0, -waveform.shape[1] % first.stride))
        x, rate, level = waveform[:, None], first.stride, None
        if first.level_frames:
            power = F.avg_pool1d(x**2, first.stride)
            around = F.pad(power, split_reach(first.level_frames - 1, self.causal))
            level = torch.sqrt(F.avg_pool1d(around, first.level_frames, stride=1) + LEVEL_FLOOR)
            x = x / level.repeat_interleave(first.stride, dim=2)
        for index, stage in enumerate(self.model.encoder.stages):
            x = self._stage(cast(Stage, stage), x, frames_of(lengths, rate))
            if index == 0 and level is not None:
                scaled = (torch.log(level) + LEVEL_SHIFT) * LEVEL_SCALE
                scaled = scaled * _mask(frames_of(lengths, rate), scaled.shape[2])[:, None]
                x = torch.cat([x, _pool(scaled, first.pool)], dim=1)
            rate *= cast(Stage, stage).config.pool
        logits = self.model.output(torch.relu(x)).transpose(1, 2)
        return torch.log_softmax(logits, dim=2), frames_of(lengths, rate)

    def _stage(self, stage: Stage, x: Tensor, lengths: Tensor) -> Tensor:
        config, width = stage.config, stage.config.channels
        before, after = (taps * config.stride for taps in split_reach(config.window // config.stride - 1, self.causal))
        if config.window > 1:  # on the waveform itself, with a stride
            kernel = stage.project.weight.transpose(1, 2).reshape(width, 1, config.window)
            x = F.conv1d(F.pad(x, (before, after)), kernel, stage.project.bias, stride=config.stride)
        else:
            x = stage.project(x)
        mask = _mask(lengths, x.shape[2])[:, None]
        total = x if config.filter_bank else torch.zeros_like(x[:, :1])
        for block, dilation in zip(stage.blocks, config.dilations, strict=True):
            x, skip = self._block(cast(GatedBlock, block), dilation, x, mask, config.kernel)
            total = total + skip
        y = stage.post(total if config.pooling == "energy" else torch.relu(total)) * mask
        if config.pooling == "mean":
            return _pool(y, config.pool)
        energy = torch.log(_pool(y**2, config.pool) + ENERGY_FLOOR)
        energy = energy * _mask(frames_of(lengths, config.pool), energy.shape[2])[:, None]
        return torch.cat([_pool(y, config.pool), energy], dim=1)

    def _block(self, block: GatedBlock, dilation: int, x: Tensor, mask: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
        width = x.shape[1]
        normal = x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + NORM_FLOOR) * mask
        hidden = block.dilated(F.pad(normal, dilated_reach(kernel, dilation, self.causal)))
        z = torch.tanh(hidden[:, :width] / 2) * torch.sigmoid(hidden[:, width:])
        weight, bias = block.mix.weight, cast(Tensor, block.mix.bias)
        return x + F.conv1d(z, weight[:width], bias[:width]), F.conv1d(z, weight[width:], bias[width:])


def _mask(lengths: Tensor, frames: int) -> Tensor:
    """(B,) -> (B, T) with 1.0 where a frame is the utterance's."""
    return (torch.arange(frames) < lengths[:, None]).float()


def _pool(x: Tensor, pool: int) -> Tensor:
    return F.avg_pool1d(F.pad(x, (0, -x.shape[2] % pool)), pool)
