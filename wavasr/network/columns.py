"""The generator's blocks for training: one matrix of columns, one product for all taps, one way back.

A stack over (B, C, T) spends most of its time in small convolutions. Here every tensor is (channels, N) with the
N = T * B columns ordered by time first: a shift by one sample is a shift by B columns, whatever the batch. The taps of
a dilated convolution lie above each other, so that a layer is one product; the skip connections of all layers are one
product at the end, over the kept outputs of the gates. `Generator.forward` computes the same with `GatedBlock`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor


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
    x: Tensor, weights: StackWeights, condition: Tensor, dilations: Sequence[int], batch: int, hop: int
) -> Tensor:
    """The summed skip connections of causal blocks: (C, T * B) -> (S, T * B).

    Args:
        x: the first block's input.
        weights: of all blocks.
        condition: (L, 2C, F * B) with F * hop = T, the bias of the dilated convolutions included.
        dilations: of each block.
        batch: B.
        hop: columns of one utterance that a frame of the condition holds for.
    """
    return cast(Tensor, _Columns.apply(x, *weights, condition, tuple(dilations), batch, hop))  # type: ignore[no-untyped-call]


def _stack_taps(x: Tensor, shift: int, stacked: Tensor) -> Tensor:
    """What each tap sees of x, the oldest above: (C, N) -> `stacked`, (kC, N); before the first column is silence."""
    channels, columns = x.shape
    taps = stacked.shape[0] // channels
    for tap in range(taps):
        late = min((taps - 1 - tap) * shift, columns)
        rows = stacked[tap * channels : (tap + 1) * channels]
        rows[:, :late].zero_()
        rows[:, late:].copy_(x[:, : columns - late])
    return stacked


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
        dilations: tuple[int, ...],
        batch: int,
        hop: int,
    ) -> Tensor:
        layers, channels = residual.shape[:2]
        columns = x.shape[1]
        gates = x.new_empty(layers, 2 * channels, columns)
        outputs = x.new_empty(layers, channels, columns)
        stacked = x.new_empty(dilated.shape[2], columns)
        inputs = []
        for layer in range(layers):
            inputs.append(x)
            hidden, z = gates[layer], outputs[layer]
            torch.mm(dilated[layer], _stack_taps(x, dilations[layer] * batch, stacked), out=hidden)
            hidden.view(2 * channels, -1, hop, batch).add_(condition[layer].view(2 * channels, -1, 1, batch))
            hidden.sigmoid_()
            torch.mul(hidden[:channels], 2, out=z).sub_(1).mul_(hidden[channels:])
            if layer + 1 < layers:  # nothing reads what the last block would hand on
                x = torch.addmm(residual_bias[layer, :, None], residual[layer], z).add_(x)
        ctx.save_for_backward(dilated, residual, skip, gates, outputs, *inputs)
        ctx.shape = dilations, batch, hop
        return torch.addmm(skip_bias[:, None], skip, outputs.view(layers * channels, columns))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dilated, residual, skip, gates, outputs, *inputs = ctx.saved_tensors
        dilations, batch, hop = ctx.shape
        layers, channels, columns = outputs.shape
        (above,) = grads
        d_skip = above @ outputs.view(layers * channels, columns).t()
        d_outputs = (skip.t() @ above).view(layers, channels, columns)
        d_dilated, d_residual = torch.empty_like(dilated), torch.zeros_like(residual)
        d_residual_bias = residual.new_zeros(layers, channels)
        d_condition = gates.new_empty(layers, 2 * channels, columns // hop)
        d_x = gates.new_zeros(channels, columns)
        stacked = gates.new_empty(dilated.shape[2], columns)
        for layer in range(layers - 1, -1, -1):
            d_z = d_outputs[layer]
            if layer + 1 < layers:
                d_z.addmm_(residual[layer].t(), d_x)
                torch.mm(d_x, outputs[layer].t(), out=d_residual[layer])
                d_residual_bias[layer] = d_x.sum(1)
            d_hidden = _gate_backward(d_z, gates[layer])
            torch.sum(
                d_hidden.view(2 * channels, -1, hop, batch), 2, out=d_condition[layer].view(2 * channels, -1, batch)
            )
            _stack_taps(inputs[layer], dilations[layer] * batch, stacked)
            torch.mm(d_hidden, stacked.t(), out=d_dilated[layer])
            _add_taps(d_x, dilated[layer].t() @ d_hidden, dilations[layer] * batch)
        d_skip_bias = above.sum(1)
        return d_x, d_dilated, d_residual, d_residual_bias, d_skip, d_skip_bias, d_condition, None, None, None


def _gate_backward(d_z: Tensor, gates: Tensor) -> Tensor:
    """The gradient of the gate's input: (C, N) and the kept sigmoids (2C, N) -> (2C, N)."""
    channels = len(d_z)
    inner = torch.empty_like(gates)
    torch.mul(d_z, gates[channels:], out=inner[:channels]).mul_(2)
    torch.mul(gates[:channels], 2, out=inner[channels:]).sub_(1).mul_(d_z)
    return cast(Tensor, torch.ops.aten.sigmoid_backward(inner, gates))


def _add_taps(d_x: Tensor, d_stacked: Tensor, shift: int) -> None:
    """The way back of `_stack_taps`: adds (kC, N) to (C, N)."""
    channels, columns = d_x.shape
    taps = len(d_stacked) // channels
    for tap in range(taps):
        late = min((taps - 1 - tap) * shift, columns)
        d_x[:, : columns - late].add_(d_stacked[tap * channels : (tap + 1) * channels, late:])
