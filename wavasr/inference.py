"""The network as `transcribe` and `evaluate` run it on a CPU: the same weights, folded for large products; no torch.

    (S,) samples -> frames (T, C), channels last -> per stage: tiles of rows -> products -> pooled -> (T, V)

It computes what `wavasr.wavenet` does, for each utterance by itself, so that padding costs nothing and neighbours
cannot matter. Frames are rows: a dilated convolution is one product of the frames at its taps with a matrix, the norm
and the gate run over contiguous channels, all skip connections of a stage are one product (with the post-net where
nothing lies between). A stage goes through in tiles of rows, with as many rows before and after as it reaches, so that
what a block writes is still in the cache when the next one reads it.

Everything is float32 in numpy, whose products use all cores. torch would be half as fast again in bfloat16, but takes
longer to import than minutes of speech to recognise, and as much memory as all the rest (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wavasr.config import EncoderConfig, StageConfig, TextConfig, from_dict
from wavasr.errors import ModelError, WavasrError
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
from wavasr.modelfile import Weights, read_header, resolve
from wavasr.runtime import Facts, Framing
from wavasr.text import Units

Floats = NDArray[np.float32]

_TILE_ROWS = 1000
_TILE_REACHES = 8  # a tile is at least so many times as long as what it repeats of its neighbours


class FastModel(Framing):
    """A model file for `transcribe` and `evaluate` on a CPU; a `Listener`."""

    def __init__(self, path: str | Path) -> None:
        """Load a model file or a shipped model.

        Raises:
            ModelError: no such file, not a model, damaged, of a newer version, or weights that do not fit its header.
        """
        path = resolve(path)
        header = read_header(path)
        weights = Weights.read(path)
        try:
            self.encoder_config = from_dict(EncoderConfig, header["encoder"])
            self.units = Units.from_dict(header["units"])
            self.text = from_dict(TextConfig, header["text"])
            self.metadata: dict[str, Any] = dict(header["metadata"])
            self._facts = Facts(weights.sha256(), weights.parameters(), "cpu, numpy")
            self._causal = self.encoder_config.context == "causal"
            self._stages: list[_Folded] = []
            width = self.encoder_config.stages[0].stride
            for index, stage in enumerate(self.encoder_config.stages):
                self._stages.append(_Folded(stage, width, weights, f"encoder.stages.{index}.", self._causal))
                width = stage.output_channels
            labels = len(self.units)
            self._output = _Product(weights.kernel("output.weight", labels, width), weights.take("output.bias", labels))
            weights.finish()
        except (WavasrError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: its header and weights do not make a model ({error}); train it again") from error
        self.file: Path | None = path

    def facts(self) -> Facts:
        """Fingerprint of the weights, parameters, and what computes."""
        return self._facts

    def infer(self, waveform: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """(B, S) samples, (B,) how many each -> log-probabilities (B, T, V), (B,) how many frames each.

        Frames past an utterance's end are 0.
        """
        frames = np.asarray(frames_of(lengths, self.hop_samples))
        total = int(frames_of(waveform.shape[1], self.hop_samples))
        outputs = np.zeros((len(waveform), total, len(self.units)), np.float32)
        with np.errstate(all="ignore"):  # a diverged network is told from its output
            for output, samples, length, count in zip(outputs, waveform, lengths, frames, strict=True):
                if count:
                    output[:count] = self._log_probs(samples[:length])
        return outputs, frames

    def _log_probs(self, samples: Floats) -> Floats:
        """(S,) -> (T, V)."""
        first = self.encoder_config.stages[0]
        x = np.pad(samples, (0, -len(samples) % first.stride)).reshape(-1, first.stride)
        level = None
        if first.level_frames:
            x, level = _levelled(x, first.level_frames, self._causal)
        for index, stage in enumerate(self._stages):
            x = stage.pool(stage.stack(x))
            if index == 0 and level is not None:
                x = np.concatenate([x, _pooled(level, first.pool)], axis=1)
        scores = self._output(np.maximum(x, 0, out=x))
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores


class _Product(NamedTuple):
    """x @ matrix + bias."""

    matrix: Floats
    bias: Floats

    def __call__(self, x: Floats, out: Floats | None = None) -> Floats:
        product: Floats = np.matmul(x, self.matrix, out=out)
        product += self.bias
        return product


class _FoldedBlock(NamedTuple):
    """A gated block without its skip connection."""

    offsets: tuple[int, ...]  # of the taps, in rows
    dilated: _Product  # (kernel * C, 2C), of half the filter and half the gate
    residual: _Product  # (C, C), of twice the gated unit


class _Folded:
    """A stage: rows (T, C_in) -> (T, skip) -> pooled."""

    def __init__(self, config: StageConfig, inputs: int, weights: Weights, prefix: str, causal: bool) -> None:
        self.config = config
        width, skip = config.channels, config.skip_width
        taps = config.window // config.stride
        before, after = split_reach(taps - 1, causal)
        self.window = tuple(range(-before, taps - before))
        self.project = _Product(
            weights.kernel(f"{prefix}project.weight", width, inputs, taps), weights.take(f"{prefix}project.bias", width)
        )
        self.blocks: list[_FoldedBlock] = []
        skips, bias, half = [], np.zeros(skip, np.float32), np.float32(0.5)
        for index, dilation in enumerate(config.dilations):
            name = f"{prefix}blocks.{index}."
            left, right = dilated_reach(config.kernel, dilation, causal)
            before, after = before + left, after + right
            dilated = half * weights.kernel(f"{name}dilated.weight", 2 * width, width, config.kernel)
            mix = half * weights.kernel(f"{name}mix.weight", width + skip, width)
            mix_bias = weights.take(f"{name}mix.bias", width + skip)
            self.blocks.append(
                _FoldedBlock(
                    tuple(range(-left, config.kernel * dilation - left, dilation)),
                    _Product(dilated, half * weights.take(f"{name}dilated.bias", 2 * width)),
                    _Product(np.ascontiguousarray(mix[:, :width]), mix_bias[:width]),
                )
            )
            skips.append(mix[:, width:])
            bias += mix_bias[width:]
        self.reach = before, after
        summed, post = np.concatenate(skips), weights.kernel(f"{prefix}post.weight", skip, skip)
        post_bias = weights.take(f"{prefix}post.bias", skip)
        self.post: _Product | None = None
        self.bypass: Floats | None = None  # from the input projection to where the skips go
        if config.pooling == "energy":  # no rectifier: both are one product
            self.skip = _Product(summed @ post, bias @ post + post_bias)
            self.bypass = post if config.filter_bank else None
        else:
            self.skip = _Product(summed, bias)
            self.post = _Product(post, post_bias)

    def stack(self, frames: Floats) -> Floats:
        """The blocks and the post-net: (T, C_in) -> (T, skip), tile by tile."""
        before, after = self.reach
        tile = max(_TILE_ROWS, _TILE_REACHES * (before + after))
        total = len(frames)
        output = np.empty((total, self.config.skip_width), np.float32)
        for start in range(0, total, tile):
            end = min(start + tile, total)
            first = max(0, start - before)
            heard = self.project(_taps(frames[first : min(total, end + after)], self.window))
            own = slice(start - first, end - first)
            bypass = None if self.bypass is None else heard[own] @ self.bypass  # before the blocks add to `heard`
            found = self.skip(self._gated(heard)[own])
            if bypass is not None:
                found += bypass
            output[start:end] = found if self.post is None else self.post(np.maximum(found, 0, out=found))
        return output

    def _gated(self, x: Floats) -> Floats:
        """Projected rows of a tile (N, C) -> twice its blocks' gated units beside each other, (N, blocks * C)."""
        count, width = x.shape
        gated = np.empty((count, width * len(self.blocks)), np.float32)
        hidden = np.empty((count, 2 * width), np.float32)
        moved = np.empty_like(x)
        beside = np.empty((count, width * self.config.kernel), np.float32)
        for index, block in enumerate(self.blocks):
            heard = _taps(_normal(x, moved), block.offsets, beside)
            np.tanh(block.dilated(heard, hidden), out=hidden)
            # 2 tanh(f / 2) sigmoid(g) = tanh(f / 2) (1 + tanh(g / 2)), see `wavenet.gate`
            f, g = hidden[:, :width], hidden[:, width:]
            g += 1
            z = gated[:, index * width : (index + 1) * width]
            np.multiply(f, g, out=z)
            if index + 1 < len(self.blocks):
                x += block.residual(z, moved)
        return gated

    def pool(self, frames: Floats) -> Floats:
        """As `Stage.pool`: (T, skip) -> (ceil(T / pool), skip or twice that)."""
        mean = _pooled(frames, self.config.pool)
        if self.config.pooling == "mean":
            return mean
        energy = _pooled(np.square(frames), self.config.pool)
        return np.concatenate([mean, np.log(energy + np.float32(ENERGY_FLOOR))], axis=1)


def _taps(x: Floats, offsets: Sequence[int], out: Floats | None = None) -> Floats:
    """The rows at these offsets beside each other, zeros where there are none: (N, C) -> (N, taps * C)."""
    if len(offsets) == 1:
        return x
    count, width = x.shape
    beside = np.empty((count, width * len(offsets)), np.float32) if out is None else out
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


def _normal(x: Floats, out: Floats) -> Floats:
    """RMS norm of each row: (N, C) -> the same."""
    power = np.einsum("ij,ij->i", x, x) / np.float32(x.shape[1])
    np.multiply(x, (1 / np.sqrt(power + np.float32(NORM_FLOOR)))[:, None], out=out)
    return out


def _pooled(x: Floats, pool: int) -> Floats:
    """(T, C) -> (ceil(T / pool), C), the mean, as if zeros followed."""
    if pool == 1:
        return x
    groups = np.pad(x, ((0, -len(x) % pool), (0, 0))).reshape(-1, pool, x.shape[1])
    return np.asarray(groups.mean(axis=1))


def _levelled(phases: Floats, frames: int, causal: bool) -> tuple[Floats, Floats]:
    """`wavenet.Level`: (T, stride) -> the same over their level, and its scaled logarithm (T, 1)."""
    power = np.pad(np.square(phases).mean(axis=1), split_reach(frames - 1, causal))
    around = sliding_window_view(power, frames).mean(axis=1)[:, None]
    level = np.sqrt(around + np.float32(LEVEL_FLOOR))
    scaled = (np.log(level) + np.float32(LEVEL_SHIFT)) * np.float32(LEVEL_SCALE)
    return phases / level, scaled
