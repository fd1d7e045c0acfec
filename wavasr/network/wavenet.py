"""The WaveNet encoder: stages of dilated, gated, residual convolutions over the raw waveform.

One tensor runs through this file: samples (B, S) become frames (B, C, T), stage by stage, and an integer length
per utterance travels with them. What a frame past an utterance's end holds never reaches a frame before it, so
nothing depends on padding, neighbours or batch size.

Sources: van den Oord et al. 2016, "WaveNet", arXiv 1609.03499, section 2 (dilations, gate, residual and skip
connections) and section 3.4 (mean-pooling over a raw-audio stack for recognition).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavasr.audio.features import band_filters
from wavasr.network.columns import StackWeights, run_columns
from wavasr.network.config import EncoderConfig, StageConfig
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

RESIDUAL_START = 0.3
MOST_COLUMN_CHANNELS = 64  # of blocks that columns compute faster than convolutions


class Features(NamedTuple):
    """Frames (B, C, T) and how many of them each utterance has, (B,) int64."""

    frames: Tensor
    lengths: Tensor


def mask_of(lengths: Tensor, frames: int) -> Tensor:
    """1.0 where a frame belongs to its utterance, else 0.0: (B,) int64 -> (B, 1, T)."""
    return (torch.arange(frames, device=lengths.device) < lengths[:, None])[:, None].float()


class _Gate(torch.autograd.Function):
    """tanh(f / 2) * sigmoid(g), written 2 sigmoid(f) sigmoid(g) - sigmoid(g).

    A vectorised sigmoid costs a sixth of tanh on a CPU, and only the sigmoids are kept for the way back.
    The factor 1/2 is absorbed by the filter's weights.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        gates = torch.sigmoid(hidden)
        ctx.save_for_backward(gates)
        f, g = gates.chunk(2, dim=1)
        return torch.mul(f, 2).sub_(1).mul_(g)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gates,) = ctx.saved_tensors
        f, g = gates.chunk(2, dim=1)
        inner = torch.empty_like(gates)
        inner_f, inner_g = inner.chunk(2, dim=1)
        torch.mul(grads[0], g, out=inner_f).mul_(2)
        torch.mul(f, 2, out=inner_g).sub_(1).mul_(grads[0])
        return cast(Tensor, torch.ops.aten.sigmoid_backward(inner, gates))


def gate(hidden: Tensor) -> Tensor:
    """The gated unit (paper, equation 2): (B, 2C, T) of filter and gate -> tanh(f / 2) * sigmoid(g), (B, C, T)."""
    return cast(Tensor, _Gate.apply(hidden))  # type: ignore[no-untyped-call]


class _FrameNorm(torch.autograd.Function):
    """x * r with r = mask / rms(x); written out because autograd's own way back takes three times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        # Squaring and summing is four times as fast as torch.linalg.vector_norm over this dimension.
        power = (x * x).sum(dim=1, keepdim=True, dtype=_at_least_float32(x)) / x.shape[1]
        scale = mask * torch.rsqrt(power + NORM_FLOOR)
        ctx.save_for_backward(x, scale)
        return x * scale.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, scale = ctx.saved_tensors
        along = (grads[0] * x).sum(dim=1, keepdim=True, dtype=_at_least_float32(x))
        shrink = (along * scale.pow(3) / -x.shape[1]).to(x.dtype)
        return torch.addcmul(x * shrink, grads[0], scale.to(x.dtype)), None


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def normalise_frames(x: Tensor, mask: Tensor) -> Tensor:
    """RMS norm over the channels of each frame, zero outside the utterance: (B, C, T), (B, 1, T) -> (B, C, T).

    It uses no statistics over time or batch. The mask rides on the small (B, 1, T) factor, so it costs nothing.
    """
    return cast(Tensor, _FrameNorm.apply(x, mask))  # type: ignore[no-untyped-call]


class GatedBlock(nn.Module):
    """A gated residual block.

                       condition
                           |
        x --+-- norm -- dilated conv (2C) -- tanh * sigmoid -- 1x1 --+-- + --> x
            |                                                        |   |
            +--------------------------------------------------------|---+
                                                                     +-------> skip

    Frames are (B, C, T) throughout; the filter's factor 1/2 inside tanh is part of its weights (see `gate`).
    The generator's blocks have no norm: they are called without a mask.
    """

    def __init__(self, stage: StageConfig, dilation: int, causal: bool, dropout: float) -> None:
        super().__init__()
        channels = stage.channels
        self.padding = dilated_reach(stage.kernel, dilation, causal)
        self.delays = tuple(self.padding[0] - tap * dilation for tap in range(stage.kernel))
        self.dilated = nn.Conv1d(channels, 2 * channels, stage.kernel, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels + stage.skip_width, 1)
        self.dropout = dropout
        with torch.no_grad():  # deep stacks start close to the identity
            self.mix.weight[:channels] *= RESIDUAL_START

    def forward(self, x: Tensor, mask: Tensor | None, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, T), (B, 1, T) -> the next block's input (B, C, T) and this block's skip (B, skip, T).

        `condition`, (B, 2C, F) with T a multiple of F, is added to the gate's input; each of its frames holds for
        T / F of the block's (paper, equation 3). Without a `mask` the input is not normalised.
        """
        hidden = self._convolve(x if mask is None else normalise_frames(x, mask))
        if condition is not None:
            frames = hidden.view(*condition.shape, -1)  # (B, 2C, F, T / F)
            hidden = (frames + condition[..., None]).flatten(2)
        z = gate(hidden)
        if self.dropout and self.training:
            z = F.dropout1d(z, self.dropout)  # whole channels of an utterance: strong, and nearly free
        residual, skip = self.mix(z).split([x.shape[1], self.mix.out_channels - x.shape[1]], dim=1)
        return x + residual, skip

    def _convolve(self, x: Tensor) -> Tensor:
        before, after = self.padding
        if before == after:
            return F.conv1d(x, self.dilated.weight, self.dilated.bias, padding=before, dilation=self.dilated.dilation)
        return cast(Tensor, self.dilated(F.pad(x, self.padding)))


def stack_weights(blocks: Sequence[GatedBlock]) -> StackWeights:
    """The weights of a stack of blocks as `wavasr.network.columns` and the sampler take them."""
    channels = blocks[0].dilated.in_channels
    mixes = torch.stack([block.mix.weight[..., 0] for block in blocks])  # (L, C + S, C)
    biases = torch.stack([cast(Tensor, block.mix.bias) for block in blocks])  # (L, C + S)
    return StackWeights(
        dilated=torch.stack([block.dilated.weight.transpose(1, 2).flatten(1) for block in blocks]),
        residual=mixes[:, :channels],
        residual_bias=biases[:, :channels],
        skip=mixes[:, channels:].transpose(0, 1).flatten(1),
        skip_bias=biases[:, channels:].sum(0),
    )


def skips_in_columns(blocks: Sequence[GatedBlock], x: Tensor, lengths: Tensor) -> Tensor:
    """The summed skip connections of a stack, several times as fast to train on a CPU: (B, C, T) -> (B, skip, T).

    Utterance by utterance, without their padding: one fits a processor's cache better than a batch.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    weights = StackWeights(*(weight.to(dtype) for weight in stack_weights(blocks)))
    bias = torch.stack([cast(Tensor, block.dilated.bias) for block in blocks])[..., None].to(dtype)  # (L, 2C, 1)
    delays = [block.delays for block in blocks]
    skips = []
    for row, length in enumerate(lengths.tolist()):
        columns = x[row, :, : max(length, 1)].to(dtype)
        skip = run_columns(columns, weights, bias, delays, 1, columns.shape[1], norm=True)
        skips.append(F.pad(skip, (0, x.shape[2] - columns.shape[1])))
    return torch.stack(skips)


class Stage(nn.Module):
    """Gated blocks at one rate, summed skips, post-net, pooling: (B, C_in, T) -> (B, C_out, ceil(T / pool))."""

    def __init__(self, stage: StageConfig, inputs: int, causal: bool, dropout: float, sample_rate: int) -> None:
        super().__init__()
        self.config = stage
        taps = stage.window // stage.stride
        self.padding = split_reach(taps - 1, causal)
        self.project = nn.Conv1d(inputs, stage.channels, taps)
        self.blocks = nn.ModuleList(GatedBlock(stage, d, causal, dropout) for d in stage.dilations)
        self.post = nn.Conv1d(stage.skip_width, stage.skip_width, 1)
        if stage.filter_bank:
            self._start_as_filters(sample_rate)

    @torch.no_grad()
    def _start_as_filters(self, sample_rate: int) -> None:
        """At first the stage hands on what its filters give, and the blocks add nothing to it."""
        width, window, stride = self.config.channels, self.config.window, self.config.stride
        filters = torch.from_numpy(band_filters(width // 2, window, sample_rate))  # (width, window)
        self.project.weight.copy_(filters.view(width, window // stride, stride).transpose(1, 2))
        self.post.weight.copy_(torch.eye(width)[..., None])
        for vector in (self.project.bias, self.post.bias):
            cast(Tensor, vector).zero_()
        for block in cast(Sequence[GatedBlock], self.blocks):
            block.mix.weight[width:] = 0
            cast(Tensor, block.mix.bias)[width:] = 0

    def forward(self, frames: Tensor, lengths: Tensor) -> Features:
        """Frames (B, C_in, T) and lengths (B,) at the stage's rate -> pooled Features."""
        return self.pool(self.stack(frames, lengths))

    def stack(self, frames: Tensor, lengths: Tensor) -> Features:
        """The blocks and the post-net: (B, C_in, T) -> Features (B, skip, T) at the stage's own rate."""
        mask = mask_of(lengths, frames.shape[2])
        x = self.project(F.pad(frames, self.padding))
        total = x if self.config.filter_bank else torch.zeros((), dtype=x.dtype, device=x.device)
        blocks = cast(Sequence[GatedBlock], self.blocks)
        if self._in_columns(x):
            total = total + skips_in_columns(blocks, x, lengths)
        else:
            for block in blocks:
                x, skip = block(x, mask)
                total = total + skip
        # Energy pooling wants band signals, whose power it averages: no rectifier then.
        rectified = total if self.config.pooling == "energy" else F.relu(total)
        return Features(self.post(rectified) * mask.to(total.dtype), lengths)

    def _in_columns(self, x: Tensor) -> bool:
        """Whether the blocks are computed as columns: to train narrow ones on a CPU."""
        dropout = any(block.dropout for block in cast(Sequence[GatedBlock], self.blocks))
        narrow = self.config.channels <= MOST_COLUMN_CHANNELS
        return narrow and not dropout and x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled()

    def pool(self, features: Features) -> Features:
        """Frames at the stage's rate -> at the next one's. A started group is averaged as if silence followed."""
        pool = self.config.pool
        lengths = frames_of(features.lengths, pool)
        frames = _pad_to(features.frames, pool)
        mean = F.avg_pool1d(frames, pool) if pool > 1 else frames
        if self.config.pooling == "mean":
            return Features(mean, lengths)
        energy = torch.log(F.avg_pool1d(frames.to(_at_least_float32(frames)).square(), pool) + ENERGY_FLOOR)
        energy = energy * mask_of(lengths, energy.shape[2])
        return Features(torch.cat([mean, energy.to(mean.dtype)], dim=1), lengths)


class Level(nn.Module):
    """Divides the samples by their local level and tells its logarithm: (B, stride, T) -> the same, (B, 1, T).

    The level is the root mean square over `frames` frames around each frame. The blocks' norm forgets how loud a
    frame is; this channel keeps it, and the division makes quiet and loud recordings look alike.
    """

    def __init__(self, frames: int, causal: bool) -> None:
        super().__init__()
        self.frames = frames
        self.padding = split_reach(frames - 1, causal)

    def forward(self, phases: Tensor) -> tuple[Tensor, Tensor]:
        power = phases.square().mean(dim=1, keepdim=True)
        around = F.avg_pool1d(F.pad(power, self.padding), self.frames, stride=1)
        level = torch.sqrt(around + LEVEL_FLOOR)
        return phases / level, torch.log(level)


def _pad_to(x: Tensor, multiple: int) -> Tensor:
    """Zeros after the last frame until the length is a multiple."""
    missing = -x.shape[-1] % multiple
    return F.pad(x, (0, missing)) if missing else x


class Encoder(nn.Module):
    """Stages over the raw waveform: (B, S) float32 and lengths (B,) -> Features, the last ones for CTC.

    The first stage's window is a convolution of `window` taps and stride `stride`, computed on the waveform folded
    into `stride` phases (B, stride, S / stride): the same matrix product without overlapping reads.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        causal = config.context == "causal"
        first = config.stages[0]
        self.level = Level(first.level_frames, causal) if first.level_frames else None
        inputs = [first.stride] + [stage.output_channels for stage in config.stages[:-1]]
        self.stages = nn.ModuleList(
            Stage(stage, width, causal, config.dropout if index >= config.front_end_stages else 0.0, config.sample_rate)
            for index, (stage, width) in enumerate(zip(config.stages, inputs, strict=True))
        )

    def forward(self, waveform: Tensor, lengths: Tensor, stages: int | None = None) -> list[Features]:
        """(B, S) float32, (B,) int64 -> the first stage's frames before pooling, then every stage's output.

        `stages` stops after that many stages.
        """
        first = self.config.stages[0]
        # Filled, not multiplied: padding may hold anything, and NaN * 0 is NaN.
        padding = mask_of(lengths, waveform.shape[1])[:, 0] == 0
        samples = _pad_to(waveform.masked_fill(padding, 0.0), first.stride)
        phases = samples.reshape(len(samples), -1, first.stride).transpose(1, 2)  # (B, stride, T)
        steps = frames_of(lengths, first.stride)
        log_level = None
        if self.level is not None:
            phases, log_level = self.level(phases)
        stage = cast(Stage, self.stages[0])
        outputs = [stage.stack(phases, steps)]
        outputs.append(stage.pool(outputs[0]))
        if log_level is not None:
            outputs[1] = _append_level(outputs[1], Features(log_level, steps), first.pool)
        return outputs + self.above(outputs[-1], 1, stages)

    def above(self, below: Features, first: int, end: int | None = None) -> list[Features]:
        """The output of stage `first - 1` -> the outputs of the stages from `first` to before `end`."""
        outputs = [below]
        for stage in list(self.stages)[first:end]:
            outputs.append(stage(*outputs[-1]))
        return outputs[1:]


def _append_level(features: Features, log_level: Features, pool: int) -> Features:
    """The pooled level as one more channel, brought to about unit range: (B, C, T) -> (B, C + 1, T)."""
    level, steps = log_level
    # Masked after the shift: the utterance's last group must not depend on how much padding the batch gives it.
    scaled = (level + LEVEL_SHIFT) * LEVEL_SCALE * mask_of(steps, level.shape[2])
    pooled = F.avg_pool1d(_pad_to(scaled, pool), pool)
    return Features(torch.cat([features.frames, pooled.to(features.frames.dtype)], dim=1), features.lengths)
