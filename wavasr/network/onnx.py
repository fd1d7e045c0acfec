"""A trained network as an ONNX graph, in float32 or with 8-bit matrix products, without torch.

    header and weights of a model file -> graph -> bytes

The graph is written down node by node from the encoder's config. It computes what `wavenet` does, with frames as
(B, T, C), so that a convolution is one product of the frames at its taps, (B, T, K), with a constant matrix (K, N).
Constants are folded: a stage's skip connections are summed inside one product, the post-net too where nothing lies
between.

With 8 bits those products take bytes. A normalised frame of C channels never leaves +-sqrt(C) and a gated one +-1, so
the steps are constants: no calibration, and nothing that depends on other frames, hence on batch, padding or chunks.
Weights have a step for each output and 7 bits, with which no processor's 16-bit sums overflow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wavasr.config import from_dict
from wavasr.errors import ConfigError, ModelError
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.files import BACK, FRONT, GRAPH, METADATA_KEY
from wavasr.network.geometry import (
    ENERGY_FLOOR,
    LEVEL_FLOOR,
    LEVEL_SCALE,
    LEVEL_SHIFT,
    NORM_FLOOR,
    dilated_reach,
    split_reach,
)

Floats = NDArray[np.float32]

_OPSET, _IR_VERSION = 17, 8
_RUNTIME_OPSET = ("com.microsoft", 1)  # onnxruntime's own operators
_LOUDEST = 6.0  # of a normalised channel; louder ones are rare and are clipped
_STEPS = 127  # of a byte to either side of its zero, 128
_WEIGHT_STEPS = 63
_TO_THE_END = np.iinfo(np.int64).max


def write_graph(
    header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]], int8: bool, name: str, described: bool = False
) -> bytes:
    """The network of a model as ONNX.

    Inputs: `waveform` (B, S) float32 at the model's rate, `lengths` (B,) int64. Outputs: `log_probs` (B, T, V),
    `frames` (B,) int64. B and S are free.

    Args:
        header: of its file.
        arrays: its weights by name.
        int8: matrix products of the blocks in 8 bits: smaller and faster, for onnxruntime alone.
        name: of the model file, for error messages.
        described: whether the graph's metadata carry the header.

    Raises:
        ModelError: header and weights do not make a model.
    """
    whole = _network(header, arrays, int8, name).whole()
    return _serialised(whole, json.dumps(header, ensure_ascii=False) if described else "")


def write_parts(header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]], name: str) -> dict[str, bytes]:
    """The network in 8 bits as members of a model file: two graphs, see `wavasr.network.halves`, or one.

    Raises:
        ModelError: header and weights do not make a model.
    """
    network = _network(header, arrays, True, name)
    if network.cut is None:
        return {GRAPH: _serialised(network.whole())}
    front, back = network.halves(*network.cut)
    return {FRONT: _serialised(front), BACK: _serialised(back)}


def _network(header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]], int8: bool, name: str) -> Network:
    try:
        units = Units.from_dict(header["units"])
        return Network(from_dict(EncoderConfig, header["encoder"]), len(units), Parameters(arrays), int8)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"{name}: its header and weights do not make a model ({error}); train it again") from error


def _serialised(graph: Any, header: str = "") -> bytes:
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(*_RUNTIME_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="wavasr")
    if header:
        helper.set_model_props(model, {METADATA_KEY: header})
    return bytes(model.SerializeToString())


class GraphWriter:
    """Nodes and constants of an ONNX graph; every method returns the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """An array; a number is one without dimensions."""
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(values, dtype).reshape(np.shape(values))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        """(N,) int64."""
        return self.constant(values, np.int64)

    def add(self, operation: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        name = output or f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [name], domain=domain, **attributes))
        return name

    def graph(self, inputs: Sequence[Any], outputs: Sequence[Any], first: int = 0, end: int | None = None) -> Any:
        """The graph of the nodes from `first` to before `end`, between values of `_value`."""
        nodes = self.nodes[first:end]
        used = {name for node in nodes for name in node.input}
        constants = [constant for constant in self.constants if constant.name in used]
        return helper.make_graph(nodes, "wavasr", inputs, outputs, constants)


def _value(name: str, *shape: str | int) -> Any:
    """An input or output; what counts samples or frames is called `lengths` or `frames`."""
    kind = TensorProto.INT64 if name in ("lengths", "frames") else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, shape)


class Parameters:
    """The weights of a model, float32; each is taken once, in the shape that its encoder's config asks for."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        self._arrays = dict(arrays)

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """One array.

        Raises:
            KeyError: there is none of that name.
            ValueError: it has another shape.
        """
        values = self._arrays.pop(name)
        if values.shape != shape:
            raise ValueError(f"{name} is {values.shape}, expected {shape}")
        return values

    def kernel(self, name: str, outputs: int, inputs: int, taps: int = 1) -> NDArray[np.float32]:
        """A convolution's weight (N, C, taps) as the matrix (taps * C, N)."""
        weight = self.take(name, outputs, inputs, taps)
        return np.ascontiguousarray(weight.transpose(2, 1, 0)).reshape(taps * inputs, outputs)

    def finish(self) -> None:
        """Raise a ValueError if one has not been taken."""
        if self._arrays:
            raise ValueError(f"{min(self._arrays)} has no place in the encoder")


class Network:
    """The graph of one model. Frames are (B, T, C), masks (B, T, 1) with 1.0 where a frame is the utterance's."""

    def __init__(self, encoder: EncoderConfig, labels: int, weights: Parameters, int8: bool) -> None:
        self.encoder = encoder
        self.labels = labels
        self.weights = weights
        self.int8 = int8
        self.causal = encoder.context == "causal"
        self.writer = GraphWriter()
        self.steps: dict[str, float] = {}  # the step of every value that is bytes
        self.padded = ""  # samples after padding to whole frames, (1,) int64
        self.cut: tuple[int, int] | None = None  # the first node of the last stage, and the channels that it gets
        self._write()

    def whole(self) -> Any:
        """Everything from the samples to the log-probabilities."""
        return self.writer.graph([_value("waveform", "B", "S"), _value("lengths", "B")], self._outputs())

    def halves(self, node: int, channels: int) -> tuple[Any, Any]:
        """What is before a cut, and what follows it."""
        waveform, lengths, features = (
            _value("waveform", "B", "S"),
            _value("lengths", "B"),
            _value("features", "B", "T", channels),
        )
        front = self.writer.graph([waveform, lengths], [features], 0, node)
        return front, self.writer.graph([features, lengths], self._outputs(), node)

    def _outputs(self) -> list[Any]:
        return [_value("log_probs", "B", "T", self.labels), _value("frames", "B")]

    def _write(self) -> None:
        """The nodes from the samples to the log-probabilities.

        Raises:
            KeyError: a weight is missing.
            ValueError: a weight has the wrong shape, or no place in the encoder.
        """
        add, first = self.writer.add, self.encoder.stages[0]
        frames, level = self._phases()
        if first.level_frames:
            frames, level = self._level(frames)
        rate, channels = first.stride, first.stride
        last = len(self.encoder.stages) - 1
        for index, stage in enumerate(self.encoder.stages):
            if index == last > 0 and stage.pool == stage.window == 1:
                frames = self._cut(frames, channels, rate)
            mask = self._mask(rate)
            frames = self._stack(stage, f"encoder.stages.{index}.", channels, frames, mask)
            rate *= stage.pool
            frames = self._pool(stage, frames, rate)
            if index == 0 and first.level_frames:
                frames = add("Concat", frames, self._pooled(add("Mul", level, mask), 1, stage.pool), axis=2)
            channels = stage.output_channels
        labels = self.labels
        matrix, bias = self.weights.kernel("output.weight", labels, channels), self.weights.take("output.bias", labels)
        add("LogSoftmax", self._product(add("Relu", frames), matrix, bias), axis=2, output="log_probs")
        add("Identity", self._lengths(rate), output="frames")
        self.weights.finish()

    def _cut(self, frames: str, channels: int, rate: int) -> str:
        """Name the frames `features`; all that follows needs them and `lengths` alone."""
        features = self.writer.add("Identity", frames, output="features")
        self.cut = len(self.writer.nodes), channels
        count = self.writer.add("Shape", features, start=1, end=2)
        self.padded = self.writer.add("Mul", count, self.writer.integers(rate))
        return features

    # --- samples and lengths ---

    def _phases(self) -> tuple[str, str]:
        """Samples in whole frames, zero after each utterance's end, folded: (B, S) -> (B, T, stride); no level."""
        add, integers = self.writer.add, self.writer.integers
        hop = self.encoder.hop_samples
        samples = add("Shape", "waveform", start=1, end=2)
        self.padded = add("Mul", add("Div", add("Add", samples, integers(hop - 1)), integers(hop)), integers(hop))
        ends = add("Concat", integers(0, 0, 0), add("Sub", self.padded, samples), axis=0)
        # Chosen, not multiplied: padding may hold anything, and NaN * 0 is NaN.
        clean = add("Where", self._within(1), add("Pad", "waveform", ends), self.writer.constant(0.0))
        return add("Reshape", clean, integers(0, -1, self.encoder.stages[0].stride)), ""

    def _lengths(self, rate: int) -> str:
        """Frames of `rate` samples that each utterance has: (B,) int64."""
        add, integers = self.writer.add, self.writer.integers
        return "lengths" if rate == 1 else add("Div", add("Add", "lengths", integers(rate - 1)), integers(rate))

    def _within(self, rate: int) -> str:
        """(B, T) whether a frame of `rate` samples is its utterance's."""
        add, integers, constant = self.writer.add, self.writer.integers, self.writer.constant
        count = add("Squeeze", add("Div", self.padded, integers(rate)), integers(0))
        steps = add("Range", constant(0, np.int64), count, constant(1, np.int64))
        return add("Less", steps, add("Unsqueeze", self._lengths(rate), integers(1)))

    def _mask(self, rate: int) -> str:
        mask = self.writer.add("Unsqueeze", self._within(rate), self.writer.integers(2))
        return self.writer.add("Cast", mask, to=1)

    def _level(self, phases: str) -> tuple[str, str]:
        """`wavenet.Level`: (B, T, stride) -> the same over their level, and its scaled logarithm (B, T, 1)."""
        add, integers, constant = self.writer.add, self.writer.integers, self.writer.constant
        frames = self.encoder.stages[0].level_frames
        before, after = split_reach(frames - 1, self.causal)
        power = add("Squeeze", self._mean_square(phases), integers(2))
        row = add("Unsqueeze", add("Pad", power, integers(0, before, 0, after)), integers(1))
        around = add("AveragePool", row, kernel_shape=[frames], strides=[1])  # (B, 1, T)
        around = add("Unsqueeze", add("Squeeze", around, integers(1)), integers(2))
        level = add("Sqrt", add("Add", around, constant(LEVEL_FLOOR)))
        scaled = add("Mul", add("Add", add("Log", level), constant(LEVEL_SHIFT)), constant(LEVEL_SCALE))
        return add("Div", phases, level), scaled

    # --- stages ---

    def _stack(self, stage: StageConfig, prefix: str, inputs: int, frames: str, mask: str) -> str:
        """`wavenet.Stage.stack`: (B, T, inputs) -> (B, T, skip), zero outside the utterance."""
        add, width, skip = self.writer.add, stage.channels, stage.skip_width
        taps = stage.window // stage.stride
        before, _ = split_reach(taps - 1, self.causal)
        matrix = self.weights.kernel(f"{prefix}project.weight", width, inputs, taps)
        windows = self._taps(frames, range(-before, taps - before))
        x = projected = self._product(windows, matrix, self.weights.take(f"{prefix}project.bias", width))
        gated, skips, skip_bias = [], [], np.zeros(skip, np.float32)
        for index, dilation in enumerate(stage.dilations):
            name = f"{prefix}blocks.{index}."
            z = self._gated(stage, name, dilation, x, mask)
            matrix = self.weights.kernel(f"{name}mix.weight", width + skip, width)
            bias = self.weights.take(f"{name}mix.bias", width + skip)
            if index + 1 < len(stage.dilations):
                x = add("Add", x, self._product(z, matrix[:, :width], bias[:width]))
            gated.append(z)
            skips.append(matrix[:, width:])
            skip_bias += bias[width:]
        joined = self._beside(gated)
        post = self.weights.kernel(f"{prefix}post.weight", skip, skip)
        bias = self.weights.take(f"{prefix}post.bias", skip)
        matrix = np.concatenate(skips)
        if stage.pooling == "energy":  # no rectifier: both are one product
            total = self._product(joined, matrix @ post, skip_bias @ post + bias)
            if stage.filter_bank:
                total = add("Add", total, self._product(projected, post, np.zeros(skip, np.float32)))
            return add("Mul", total, mask)
        rectified = add("Relu", self._product(joined, matrix, skip_bias))
        return add("Mul", self._product(rectified, post, bias), mask)

    def _gated(self, stage: StageConfig, name: str, dilation: int, x: str, mask: str) -> str:
        """Norm, dilated convolution and gate of a block: (B, T, C) -> (B, T, C), in bytes with int8."""
        add, width = self.writer.add, stage.channels
        rms = add("Sqrt", add("Add", self._mean_square(x), self.writer.constant(NORM_FLOOR)))
        normal = self._bytes(add("Mul", x, add("Div", mask, rms)), min(_LOUDEST, math.sqrt(width)))
        before, _ = dilated_reach(stage.kernel, dilation, self.causal)
        windows = self._taps(normal, range(-before, stage.kernel * dilation - before, dilation))
        matrix = self.weights.kernel(f"{name}dilated.weight", 2 * width, width, stage.kernel)
        bias = self.weights.take(f"{name}dilated.bias", 2 * width)
        # The filter's factor 1/2 (see `wavenet.gate`) is in its weights here.
        half = np.float32(0.5)
        z = add("Tanh", self._product(windows, half * matrix[:, :width], half * bias[:width]))
        z = add("Mul", z, add("Sigmoid", self._product(windows, matrix[:, width:], bias[width:])))
        return self._bytes(z, 1.0)

    def _pool(self, stage: StageConfig, frames: str, rate: int) -> str:
        """`wavenet.Stage.pool`, to frames of `rate` samples: (B, T, skip) -> (B, T / pool, skip or twice that)."""
        add = self.writer.add
        mean = self._pooled(frames, stage.skip_width, stage.pool)
        if stage.pooling == "mean":
            return mean
        power = self._pooled(add("Mul", frames, frames), stage.skip_width, stage.pool)
        energy = add("Log", add("Add", power, self.writer.constant(ENERGY_FLOOR)))
        return add("Concat", mean, add("Mul", energy, self._mask(rate)), axis=2)

    def _pooled(self, frames: str, channels: int, pool: int) -> str:
        """(B, T, C) -> (B, T / pool, C), the mean; T is a multiple."""
        if pool == 1:
            return frames
        groups = self.writer.add("Reshape", frames, self.writer.integers(0, -1, pool, channels))
        return self.writer.add("ReduceMean", groups, axes=[2], keepdims=0)

    def _mean_square(self, frames: str) -> str:
        """(B, T, C) -> (B, T, 1)."""
        return self.writer.add("ReduceMean", self.writer.add("Mul", frames, frames), axes=[2], keepdims=1)

    # --- products ---

    def _bytes(self, frames: str, bound: float) -> str:
        """Frames within +-bound as bytes around 128; as they are without int8."""
        if not self.int8:
            return frames
        step = bound / _STEPS
        zero = self.writer.constant(128, np.uint8)
        name = self.writer.add("QuantizeLinear", frames, self.writer.constant(step), zero)
        self.steps[name] = step
        return name

    def _taps(self, frames: str, offsets: Sequence[int]) -> str:
        """The frames at these offsets beside each other, zeros where there are none: (B, T, C) -> (B, T, taps * C)."""
        if list(offsets) == [0]:
            return frames
        add, integers = self.writer.add, self.writer.integers
        before, after = max(0, -min(offsets)), max(0, *offsets)
        zero = [self.writer.constant(128, np.uint8)] if frames in self.steps else []
        wide = add("Pad", frames, integers(0, before, 0, 0, after, 0), *zero)
        parts = []
        for offset in offsets:
            end = offset - after if offset < after else _TO_THE_END
            parts.append(add("Slice", wide, integers(before + offset), integers(end), integers(1)))
        return self._beside(parts, frames)

    def _beside(self, parts: Sequence[str], like: str = "") -> str:
        joined = self.writer.add("Concat", *parts, axis=2)
        if (like or parts[0]) in self.steps:
            self.steps[joined] = self.steps[like or parts[0]]
        return joined

    def _product(self, frames: str, matrix: Floats, bias: Floats) -> str:
        """Frames times matrix, plus bias: (B, T, K), (K, N), (N,) -> (B, T, N) float32."""
        add, constant = self.writer.add, self.writer.constant
        if frames not in self.steps:
            return add("Add", add("MatMul", frames, constant(matrix)), constant(bias))
        scales = np.maximum(np.abs(matrix).max(axis=0), np.finfo(np.float32).tiny) / _WEIGHT_STEPS  # (N,)
        with np.errstate(invalid="ignore"):  # a diverged network shows in its output
            rounded = np.rint(matrix / scales).astype(np.int8)
        return add(
            "MatMulIntegerToFloat",
            *(frames, constant(rounded, np.int8), constant(self.steps[frames]), constant(scales)),
            *(constant(128, np.uint8), constant(np.zeros(len(scales)), np.int8), constant(bias)),
            domain=_RUNTIME_OPSET[0],
        )
