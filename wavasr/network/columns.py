"""Stacks of gated blocks for training: matrices of columns, one product for all taps, one way back.

A stack over (B, C, T) spends most of its time in small convolutions. Here every tensor is (channels, N) with the
N = T * B columns ordered by time first: a shift by one sample is a shift by B columns, whatever the batch. The taps of
a dilated convolution lie above each other, so that a layer is one product; the skip connections of all layers are one
product at the end, over the kept outputs of the gates. It computes what `wavasr.network.wavenet.GatedBlock`s do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from wavasr.network.geometry import NORM_FLOOR


class StackWeights(NamedTuple):
    """The weights of L blocks with C channels, S skip channels and k taps, as the products want them.

    Attributes:
        dilated: (L, 2C, kC), the oldest tap first.
        residual: (L, C, C).
        residual_bias: (L, C).
        skip: (S, L * C).
        skip_bias: (S,), summed over the blocks.
    """

    dilated: Tensor
    residual: Tensor
    residual_bias: Tensor
    skip: Tensor
    skip_bias: Tensor


def run_columns(
    x: Tensor,
    weights: StackWeights,
    condition: Tensor,
    delays: Sequence[Sequence[int]],
    batch: int,
    hop: int,
    *,
    norm: bool = False,
) -> Tensor:
    """The summed skip connections of gated blocks: (C, T * B) -> (S, T * B).

    Args:
        x: the first block's input.
        weights: of all blocks.
        condition: (L, 2C, F * B) with F * hop = T, the bias of the dilated convolutions included.
        delays: of each block's taps, the oldest first, in samples of one utterance; negative where it looks ahead.
        batch: B.
        hop: columns of one utterance that a frame of the condition holds for.
        norm: the blocks have an RMS norm over the channels of each column.
    """
    shape = _Shape(tuple(tuple(delay * batch for delay in taps) for taps in delays), batch, hop, norm)
    return cast(Tensor, _Columns.apply(x, *weights, condition, shape))  # type: ignore[no-untyped-call]


class _Shape(NamedTuple):
    """How the columns hang together: delays in columns for each layer and tap; see `run_columns`."""

    delays: tuple[tuple[int, ...], ...]
    batch: int
    hop: int
    norm: bool

    def spread(self, columns: Tensor) -> Tensor:
        """(2C, N) -> (2C, F, hop, B)."""
        return columns.view(len(columns), -1, self.hop, self.batch)


class _Columns(torch.autograd.Function):
    """The gate is tanh(f / 2) * sigmoid(g) = (2 sigmoid(f) - 1) sigmoid(g), as in `wavasr.network.wavenet.gate`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dilated: Tensor,
        residual: Tensor,
        residual_bias: Tensor,
        skip: Tensor,
        skip_bias: Tensor,
        condition: Tensor,
        shape: _Shape,
    ) -> Tensor:
        layers, channels = residual.shape[:2]
        columns = x.shape[1]
        gates = x.new_empty(layers, 2 * channels, columns)
        outputs = x.new_empty(layers, channels, columns)
        stacked = x.new_empty(dilated.shape[2], columns)
        inputs, scales = [], []
        for layer in range(layers):
            scale = _norm_scale(x) if shape.norm else x.new_empty(0)
            inputs.append(x * scale if shape.norm else x)
            scales.append(scale)
            hidden, z = gates[layer], outputs[layer]
            torch.mm(dilated[layer], _stack_taps(inputs[-1], shape.delays[layer], stacked), out=hidden)
            shape.spread(hidden).add_(condition[layer].view(2 * channels, -1, 1, shape.batch))
            hidden.sigmoid_()
            torch.mul(hidden[:channels], 2, out=z).sub_(1).mul_(hidden[channels:])
            if layer + 1 < layers:  # nothing reads what the last block would hand on
                x = torch.addmm(residual_bias[layer, :, None], residual[layer], z).add_(x)
        ctx.save_for_backward(dilated, residual, skip, gates, outputs, *inputs, *scales)
        ctx.shape = shape
        return torch.addmm(skip_bias[:, None], skip, outputs.view(layers * channels, columns))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dilated, residual, skip, gates, outputs, *kept = ctx.saved_tensors
        shape: _Shape = ctx.shape
        layers, channels, columns = outputs.shape
        inputs, scales = kept[:layers], kept[layers:]
        (above,) = grads
        d_skip = above @ outputs.view(layers * channels, columns).t()
        d_outputs = (skip.t() @ above).view(layers, channels, columns)
        d_dilated, d_residual = torch.empty_like(dilated), torch.zeros_like(residual)
        d_residual_bias = residual.new_zeros(layers, channels)
        d_condition = gates.new_empty(layers, 2 * channels, columns // shape.hop)
        d_x = gates.new_zeros(channels, columns)
        stacked = gates.new_empty(dilated.shape[2], columns)
        for layer in range(layers - 1, -1, -1):
            d_z = d_outputs[layer]
            if layer + 1 < layers:
                d_z.addmm_(residual[layer].t(), d_x)
                torch.mm(d_x, outputs[layer].t(), out=d_residual[layer])
                d_residual_bias[layer] = d_x.sum(1)
            d_hidden = _gate_backward(d_z, gates[layer])
            torch.sum(shape.spread(d_hidden), 2, out=d_condition[layer].view(2 * channels, -1, shape.batch))
            torch.mm(d_hidden, _stack_taps(inputs[layer], shape.delays[layer], stacked).t(), out=d_dilated[layer])
            torch.mm(dilated[layer].t(), d_hidden, out=stacked)
            if shape.norm:
                d_normal = torch.zeros_like(d_x)
                _add_taps(d_normal, stacked, shape.delays[layer])
                _add_norm_backward(d_x, d_normal, inputs[layer], scales[layer])
            else:
                _add_taps(d_x, stacked, shape.delays[layer])
        return d_x, d_dilated, d_residual, d_residual_bias, d_skip, above.sum(1), d_condition, None


def _norm_scale(x: Tensor) -> Tensor:
    """1 / rms of each column, as in `wavasr.network.wavenet.normalise_frames`: (C, N) -> (N,) of x's type."""
    power = (x * x).sum(0, dtype=torch.promote_types(x.dtype, torch.float32)) / len(x)
    return torch.rsqrt(power + NORM_FLOOR).to(x.dtype)


def _add_norm_backward(d_x: Tensor, d_normal: Tensor, normal: Tensor, scale: Tensor) -> None:
    """Add to d_x what comes back through n = x * scale(x) from d_n: (d_n - n mean(n d_n)) * scale, all (C, N)."""
    along = (d_normal * normal).sum(0, dtype=torch.promote_types(d_x.dtype, torch.float32)) / -len(d_x)
    d_x.addcmul_(d_normal.addcmul_(normal, along.to(d_x.dtype)), scale)


def _reach(delay: int, columns: int) -> tuple[int, int]:
    """How many of the columns that a tap reads lie before the first one, and after the last."""
    return min(max(delay, 0), columns), min(max(-delay, 0), columns)


def _stack_taps(x: Tensor, delays: Sequence[int], stacked: Tensor) -> Tensor:
    """What each tap sees of x, the oldest above: (C, N) -> `stacked`, (kC, N); outside x is silence."""
    channels, columns = x.shape
    for tap, delay in enumerate(delays):
        rows = stacked[tap * channels : (tap + 1) * channels]
        before, after = _reach(delay, columns)
        rows[:, :before].zero_()
        rows[:, columns - after :].zero_()
        rows[:, before : columns - after] = x[:, after : columns - before]
    return stacked


def _add_taps(d_x: Tensor, d_stacked: Tensor, delays: Sequence[int]) -> None:
    """The way back of `_stack_taps`: adds (kC, N) to (C, N)."""
    channels, columns = d_x.shape
    for tap, delay in enumerate(delays):
        before, after = _reach(delay, columns)
        rows = d_stacked[tap * channels : (tap + 1) * channels]
        d_x[:, after : columns - before].add_(rows[:, before : columns - after])


def _gate_backward(d_z: Tensor, gates: Tensor) -> Tensor:
    """The gradient of the gate's input: (C, N) and the kept sigmoids (2C, N) -> (2C, N)."""
    channels = len(d_z)
    inner = torch.empty_like(gates)
    torch.mul(d_z, gates[channels:], out=inner[:channels]).mul_(2)
    torch.mul(gates[:channels], 2, out=inner[channels:]).sub_(1).mul_(d_z)
    return cast(Tensor, torch.ops.aten.sigmoid_backward(inner, gates))
