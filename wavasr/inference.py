"""The network as it hears fastest on a CPU: the same weights, ordered and folded for large matrix products.

    (S,) samples -> frames (T, C), channels last -> per stage: tiles of rows -> products -> pooled -> (T, V)

It computes what `wavasr.wavenet` does, for each utterance by itself, so that padding costs nothing and neighbours
cannot matter. Frames are rows: a dilated convolution is one product of the frames at its taps with a matrix, the norm
and the gate run over contiguous channels, all skip connections of a stage are one product (with the post-net where
nothing lies between). A stage goes through in tiles of rows, with as many rows before and after as it reaches, so that
what a block writes is still in the cache when the next one reads it.

The large products, those of dilated convolutions and residuals, are bfloat16 where the processor multiplies it faster
than float32; all that is summed over blocks, the norms and the levels stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wavasr.geometry import (
    ENERGY_FLOOR,
    LEVEL_FLOOR,
    LEVEL_SCALE,
    LEVEL_SHIFT,
    NORM_FLOOR,
    dilated_reach,
    frames_of,
    split_reach,
)
from wavasr.model import Recognizer
from wavasr.runtime import Facts, Framing
from wavasr.wavenet import GatedBlock, Stage

Precision = Literal["float32", "bfloat16"]

_TILE_ROWS = 4000
_TILE_REACHES = 8  # a tile is at least so many times as long as what it repeats of its neighbours


class FastModel(Framing):
    """A recogniser for `transcribe` and `evaluate` on a CPU; a `Listener`."""

    def __init__(self, model: Recognizer, precision: Precision | None = None) -> None:
        """Fold a model's weights as they are now.

        Args:
            model: on the CPU, in eval mode.
            precision: of the large products; None: bfloat16 where the processor has instructions for it.
        """
        self.model = model
        self.units, self.text, self.metadata = model.units, model.text, model.metadata
        self.encoder_config, self.file = model.encoder_config, model.file
        self.precision: Precision = precision or ("bfloat16" if has_fast_bfloat16() else "float32")
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        causal = model.encoder_config.context == "causal"
        with torch.inference_mode():
            self._stages = [_Folded(cast(Stage, stage), causal, dtype) for stage in model.encoder.stages]
            self._output = _Product.of(_matrix(model.output.weight), model.output.bias, torch.float32)

    def facts(self) -> Facts:
        """Fingerprint of the weights, parameters, and what the products are computed in."""
        return self.model.facts()._replace(device=f"cpu, {self.precision}")

    def infer(
        self, waveform: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(B, S) samples, (B,) how many each -> log-probabilities (B, T, V), (B,) how many frames each.

        Frames past an utterance's end are 0.
        """
        frames = np.asarray(frames_of(lengths, self.hop_samples))
        total = int(frames_of(waveform.shape[1], self.hop_samples))
        outputs = np.zeros((len(waveform), total, len(self.units)), np.float32)
        with torch.inference_mode():
            for output, samples, length, count in zip(outputs, waveform, lengths, frames, strict=True):
                if count:
                    output[:count] = self._log_probs(torch.from_numpy(samples[:length])).numpy()
        return outputs, frames

    def _log_probs(self, samples: Tensor) -> Tensor:
        """(S,) -> (T, V) float32."""
        first = self.model.encoder_config.stages[0]
        x = F.pad(samples, (0, -len(samples) % first.stride)).view(-1, first.stride)
        level = None
        if first.level_frames:
            x, level = _levelled(x, first.level_frames, self.model.encoder_config.context == "causal")
        for index, stage in enumerate(self._stages):
            x = stage.pool(stage.stack(x))
            if index == 0 and level is not None:
                x = torch.cat([x, _pooled(level, first.pool)], dim=1)
        return F.log_softmax(self._output(x.relu_()), dim=1)


def has_fast_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products (AVX-512 BF16, AMX)."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


class _Product(NamedTuple):
    """x @ matrix + bias."""

    matrix: Tensor
    bias: Tensor

    @classmethod
    def of(cls, matrix: Tensor, bias: Tensor | None, dtype: torch.dtype) -> _Product:
        assert bias is not None
        return cls(matrix.to(dtype).clone(memory_format=torch.contiguous_format), bias.to(dtype, copy=True))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.matrix)


class _FoldedBlock(NamedTuple):
    """A gated block without its skip connection."""

    offsets: tuple[int, ...]  # of the taps, in rows
    dilated: _Product  # (kernel * C, 2C)
    residual: _Product  # (C, C), of the negative gate


class _Folded:
    """A stage: rows (T, C_in) float32 -> (T, skip) float32 -> pooled."""

    def __init__(self, stage: Stage, causal: bool, dtype: torch.dtype) -> None:
        self.config, self.dtype = stage.config, dtype
        config, width = stage.config, stage.config.channels
        taps = config.window // config.stride
        before, after = split_reach(taps - 1, causal)
        self.window = tuple(range(-before, taps - before))
        # Samples need more than bfloat16's eight bits; their product is a small one.
        self.project = _Product.of(_matrix(stage.project.weight), stage.project.bias, torch.float32)
        self.blocks: list[_FoldedBlock] = []
        skips, bias = [], torch.zeros(config.skip_width)
        for block, dilation in zip(cast(Sequence[GatedBlock], stage.blocks), config.dilations, strict=True):
            left, right = dilated_reach(config.kernel, dilation, causal)
            before, after = before + left, after + right
            mix, mix_bias = -_matrix(block.mix.weight), cast(Tensor, block.mix.bias)
            self.blocks.append(
                _FoldedBlock(
                    tuple(range(-left, config.kernel * dilation - left, dilation)),
                    _Product.of(_matrix(block.dilated.weight), block.dilated.bias, dtype),
                    _Product.of(mix[:, :width], mix_bias[:width], dtype),
                )
            )
            skips.append(mix[:, width:])
            bias = bias + mix_bias[width:]
        self.reach = before, after
        skip, post = torch.cat(skips), _matrix(stage.post.weight)
        post_bias = cast(Tensor, stage.post.bias)
        self.post: _Product | None = None
        self.bypass: Tensor | None = None  # from the input projection to where the skips go
        if config.pooling == "energy":  # no rectifier: both are one product
            self.skip = _Product.of(skip @ post, bias @ post + post_bias, torch.float32)
            self.bypass = post.clone() if config.filter_bank else None
        else:
            self.skip = _Product.of(skip, bias, torch.float32)
            self.post = _Product.of(post, post_bias, torch.float32)

    def stack(self, frames: Tensor) -> Tensor:
        """The blocks and the post-net: (T, C_in) -> (T, skip), tile by tile."""
        before, after = self.reach
        tile = max(_TILE_ROWS, _TILE_REACHES * (before + after))
        total = len(frames)
        output = torch.empty(total, self.config.skip_width)
        for start in range(0, total, tile):
            end = min(start + tile, total)
            first = max(0, start - before)
            heard = self.project(_taps(frames[first : min(total, end + after)], self.window))
            own = slice(start - first, end - first)
            bypass = None if self.bypass is None else heard[own] @ self.bypass  # before the blocks add to `heard`
            found = self.skip(self._gated(heard)[own].float())
            if bypass is not None:
                found += bypass
            output[start:end] = found if self.post is None else self.post(found.relu_())
        return output

    def _gated(self, x: Tensor) -> Tensor:
        """Projected rows of a tile (N, C) -> its blocks' gates beside each other, negative: (N, blocks * C)."""
        width = self.config.channels
        gates = torch.empty(len(x), width * len(self.blocks), dtype=self.dtype)
        for index, block in enumerate(self.blocks):
            hidden = block.dilated(_taps(_normal(x).to(self.dtype), block.offsets)).sigmoid_()
            f, g = hidden[:, :width], hidden[:, width:]
            z = gates[:, index * width : (index + 1) * width]
            torch.addcmul(g, f, g, value=-2, out=z)  # -(2 f g - g), see `wavenet.gate`
            if index + 1 < len(self.blocks):
                x += block.residual(z)
        return gates

    def pool(self, frames: Tensor) -> Tensor:
        """As `Stage.pool`: (T, skip) -> (ceil(T / pool), skip or twice that)."""
        mean = _pooled(frames, self.config.pool)
        if self.config.pooling == "mean":
            return mean
        return torch.cat([mean, torch.log(_pooled(frames.square_(), self.config.pool) + ENERGY_FLOOR)], dim=1)


def _matrix(weight: Tensor) -> Tensor:
    """A convolution's weight (N, C, taps) as (taps * C, N)."""
    return weight.detach().permute(2, 1, 0).flatten(0, 1)


def _taps(x: Tensor, offsets: Sequence[int]) -> Tensor:
    """The rows at these offsets beside each other, zeros where there are none: (N, C) -> (N, taps * C)."""
    if len(offsets) == 1:
        return x
    count, width = x.shape
    beside = x.new_empty(count, width * len(offsets))
    for index, offset in enumerate(offsets):
        part = beside[:, index * width : (index + 1) * width]
        missing = min(abs(offset), count)
        if offset < 0:
            part[:missing] = 0
            part[missing:] = x[: count - missing]
        else:
            part[count - missing :] = 0
            part[: count - missing] = x[missing:]
    return beside


def _normal(x: Tensor) -> Tensor:
    """RMS norm of each row: (N, C) -> the same."""
    power = x.square().sum(dim=1, keepdim=True).div_(x.shape[1])
    return x * power.add_(NORM_FLOOR).rsqrt_()


def _pooled(x: Tensor, pool: int) -> Tensor:
    """(T, C) -> (ceil(T / pool), C), the mean, as if zeros followed."""
    if pool == 1:
        return x
    return F.pad(x, (0, 0, 0, -len(x) % pool)).view(-1, pool, x.shape[1]).mean(dim=1)


def _levelled(phases: Tensor, frames: int, causal: bool) -> tuple[Tensor, Tensor]:
    """`wavenet.Level`: (T, stride) -> the same over their level, and its scaled logarithm (T, 1)."""
    power = phases.square().mean(dim=1)[None]
    around: Any = F.avg_pool1d(F.pad(power, split_reach(frames - 1, causal)), frames, stride=1)
    level = torch.sqrt(around[0][:, None] + LEVEL_FLOOR)
    return phases / level, (torch.log(level) + LEVEL_SHIFT) * LEVEL_SCALE
