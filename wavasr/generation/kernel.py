# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, call-arg, unreachable, no-any-return"
"""The sampler's steps compiled by numba: several times faster than real time on one thread.

A step of 32 residual and 64 skip channels in 20 layers is 164,000 multiply-adds over 656 kB of weights, which lie in
the second-level cache. So the time goes into reading weights; what makes that fast:
- a matrix-vector product holds its sums in registers and reads each weight once, whole vectors at a time. numba would
  store them in every round, so the product is written out in LLVM's own vectors (which suit any processor);
- the taps of a layer lie beside each other, so that it is one product; the skip connections are one product at the end;
- several streams share one reading of the weights.

All streams are computed in the same order whatever their number: a batch of n gives the bytes of n singles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from wavasr.audio.pitch import lag_range
from wavasr.generation.inputs import INPUT_SCALE
from wavasr.generation.network import Network
from wavasr.generation.quantise import centres
from wavasr.generation.stepping import LOUDEST, Drawn, Orders, ring_size

Array = npt.NDArray[np.float32]

WIDTH = 16  # floats in a vector
TOGETHER = 4  # streams that share one reading of the weights
_SUMS = 4  # vectors of sums at least, so that additions do not wait for each other

f4 = np.float32


@intrinsic(prefer_literal=True)
def _product(
    context, rows, inputs, streams, rectify, out, out_at, out_step, weight, weight_at, x, x_at, x_step, bias, bias_at,
    bias_step,
):  # fmt: skip
    """Out = bias + weight.T @ x for each stream; all arrays flat, with a start and a step from stream to stream.

    `rows` outputs, a multiple of WIDTH, of `inputs` inputs; with `rectify` 1 of the positive part of x.
    """
    sizes = [int(size.literal_value) for size in (rows, inputs, streams, rectify)]
    plain = types.unliteral
    places = (out_at, out_step), (weight_at,), (x_at, x_step), (bias_at, bias_step)
    arguments = [
        part
        for array, numbers in zip((out, weight, x, bias), places, strict=True)
        for part in (array, *map(plain, numbers))
    ]
    signature = types.void(rows, inputs, streams, rectify, *arguments)
    arrays = out, weight, x, bias

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _emit_product(builder, sizes, values[4:], [
            context.make_array(array)(context, builder, value).data
            for array, value in zip(arrays, (values[4], values[7], values[9], values[12]), strict=True)
        ])  # fmt: skip
        return context.get_dummy_value()

    return signature, generate


def _emit_product(builder: Any, sizes: list[int], values: Any, pointers: list[Any]) -> None:
    """The instructions of `_product`."""
    rows, inputs, streams, rectify = sizes
    _, out_at, out_step, _, weight_at, _, x_at, x_step, _, bias_at, bias_step = values
    out, weight, x, bias = pointers
    index = out_at.type
    number, vector = ir.FloatType(), ir.VectorType(ir.FloatType(), WIDTH)
    multiply_add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{WIDTH}f32"
    )
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)

    def at(start: Any, step: Any, stream: int) -> Any:
        return builder.add(start, builder.mul(step, ir.Constant(index, stream)))

    def place(pointer: Any, offset: Any) -> Any:
        return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

    def load(pointer: Any, offset: Any) -> Any:
        loaded = builder.load(place(pointer, offset))
        loaded.align = 4
        return loaded

    def spread(value: Any) -> Any:
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, undefined, lanes)

    parts = range(rows // WIDTH)
    sums: dict[tuple[int, int, int], Any] = {}
    count = max(1, min(_SUMS // len(parts), inputs))
    for stream in range(streams):
        for part in parts:
            for term in range(count):
                sums[stream, part, term] = cgutils.alloca_once(builder, vector)
                offset = builder.add(at(bias_at, bias_step, stream), ir.Constant(index, part * WIDTH))
                start = load(bias, offset) if term == 0 else ir.Constant(vector, [0.0] * WIDTH)
                builder.store(start, sums[stream, part, term])

    def accumulate(k: Any, term: int) -> None:
        row = builder.add(weight_at, builder.mul(k, ir.Constant(index, rows)))
        columns = [load(weight, builder.add(row, ir.Constant(index, part * WIDTH))) for part in parts]
        for stream in range(streams):
            value = builder.load(builder.gep(x, [builder.add(at(x_at, x_step, stream), k)]))
            if rectify:
                zero = ir.Constant(number, 0.0)
                value = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
            spread_value = spread(value)
            for part in parts:
                total = sums[stream, part, term]
                builder.store(builder.call(multiply_add, [columns[part], spread_value, builder.load(total)]), total)

    unrolled = count * max(1, 4 // count)
    with cgutils.for_range(builder, ir.Constant(index, inputs // unrolled)) as loop:
        first = builder.mul(loop.index, ir.Constant(index, unrolled))
        for offset in range(unrolled):
            accumulate(builder.add(first, ir.Constant(index, offset)), offset % count)
    for rest in range(inputs - inputs % unrolled, inputs):
        accumulate(ir.Constant(index, rest), rest % count)
    for stream in range(streams):
        for part in parts:
            total = builder.load(sums[stream, part, 0])
            for term in range(1, count):
                total = builder.fadd(total, builder.load(sums[stream, part, term]))
            offset = builder.add(at(out_at, out_step, stream), ir.Constant(index, part * WIDTH))
            builder.store(total, place(out, offset)).align = 4


@njit(inline="always")
def _tanh(x):
    """A quotient of polynomials, within 3e-7 of tanh; the coefficients are Eigen's (`generic_fast_tanh_float`)."""
    x = min(max(x, f4(-7.9)), f4(7.9))
    y = x * x
    p = f4(2.00018790482477e-13) + y * f4(-2.76076847742355e-16)
    p = f4(5.12229709037114e-08) + y * (f4(-8.60467152213735e-11) + y * p)
    p = f4(6.37261928875436e-04) + y * (f4(1.48572235717979e-05) + y * p)
    p = x * (f4(4.89352455891786e-03) + y * p)
    q = f4(1.18534705686654e-04) + y * f4(1.19825839466702e-06)
    q = f4(4.89352518554385e-03) + y * (f4(2.26843463243900e-03) + y * q)
    return p / q


@njit(inline="always")
def _choose(logits, levels, sharpness, uniform, heights, exponents, exponents_as_floats):
    """The class in whose share of the probability `uniform` falls. exp is 2^whole times a polynomial of the rest."""
    highest = logits[0]
    for i in range(1, levels):
        highest = max(highest, logits[i])
    scale = sharpness * f4(1.4426950408889634)
    for i in range(levels):
        power = max((logits[i] - highest) * scale, f4(-60.0))
        whole = np.int32(power)  # towards zero: the rest lies in (-1, 0]
        rest = power - f4(whole)
        p = f4(1.5403530e-4) * rest + f4(1.3333558e-3)
        p = p * rest + f4(9.6181291e-3)
        p = p * rest + f4(5.5504109e-2)
        p = p * rest + f4(2.4022651e-1)
        p = p * rest + f4(6.9314718e-1)
        heights[i] = p * rest + f4(1.0)
        exponents[i] = (whole + np.int32(127)) << np.int32(23)
    for i in range(levels):
        heights[i] *= exponents_as_floats[i]
    total = 0.0
    for i in range(levels):
        total += np.float64(heights[i])
    goal = np.float64(uniform) * total
    reached = 0.0
    for i in range(levels - 1):
        reached += np.float64(heights[i])
        if reached >= goal:
            return i
    return levels - 1


def _padded(rows: int) -> int:
    return -(-rows // WIDTH) * WIDTH


def _pad(matrix: Array) -> Array:
    """Rows of outputs filled up to whole vectors, and flat: (..., outputs) -> (-1,)."""
    missing = _padded(matrix.shape[-1]) - matrix.shape[-1]
    widths = [(0, 0)] * (matrix.ndim - 1) + [(0, missing)]
    return np.ascontiguousarray(np.pad(matrix, widths), dtype=np.float32).ravel()


@functools.lru_cache(maxsize=8)
def compiled(
    channels: int, skip: int, levels: int, kernel: int, dilations: tuple[int, ...], inputs: int, hop: int, streams: int
) -> Callable[..., None]:
    """The steps of one shape of network, compiled when first called, and kept on disk."""
    layers = len(dilations)
    taps = kernel * channels  # inputs of a layer's product
    both, single, wide = _padded(2 * channels), _padded(channels), layers * channels
    skips, classes_wide = _padded(skip), _padded(levels)
    reach = tuple((kernel - 1) * d for d in dilations)
    starts = tuple(int(sum(reach[:layer])) * streams * channels for layer in range(layers))
    newest = (kernel - 1) * channels
    half = f4(0.0)
    loudest = f4(LOUDEST)
    input_scale = f4(INPUT_SCALE)

    def steps(
        project, project_bias, dilated, residual, residual_bias, skip_weight, skip_bias, post, post_bias, output,
        output_bias, table, condition, coefficients, level, lags, sharpness, guide, uniform, sample_gain,
        excitation_gain, emphasis, rings, places, past, excitation, last, clock, samples, emphasised, classes,
    ):  # fmt: skip
        x = np.zeros(streams * taps, f4)
        hidden = np.zeros(streams * both, f4)
        gated = np.zeros(streams * wide, f4)
        change = np.zeros(streams * single, f4)
        summed = np.zeros(streams * skips, f4)
        posted = np.zeros(streams * skips, f4)
        logits = np.zeros(streams * classes_wide, f4)
        heights = np.zeros(classes_wide, f4)
        exponents = np.zeros(classes_wide, np.int32)
        exponents_as_floats = exponents.view(f4)
        known = np.zeros(inputs, f4)
        predicted = np.zeros(streams, f4)
        flat = condition.reshape(-1)
        frames, order = coefficients.shape[1], coefficients.shape[2]
        ring_mask, past_mask = excitation.shape[1] - 1, past.shape[1] - 1
        for index in range(frames * hop):
            frame = index // hop
            now = clock[0]
            for n in range(streams):
                guess = half
                for lag in range(order):
                    guess += coefficients[n, frame, lag] * past[n, (now - 1 - lag) & past_mask]
                predicted[n] = guess
                known[0] = past[n, (now - 1) & past_mask] * sample_gain
                if inputs >= 6:
                    scale = input_scale * (excitation_gain / level[n, frame])
                    period = now - lags[n, frame]
                    known[1] = guess * sample_gain
                    known[2] = excitation[n, (now - 1) & ring_mask] * scale
                    known[3] = excitation[n, (period - 1) & ring_mask] * scale
                    known[4] = excitation[n, period & ring_mask] * scale
                    known[5] = excitation[n, (period + 1) & ring_mask] * scale
                if inputs == 7:
                    known[6] = guide[n, index]
                at = n * taps + newest
                for i in range(channels):
                    x[at + i] = project_bias[i]
                for j in range(inputs):
                    for i in range(channels):
                        x[at + i] += project[j * channels + i] * known[j]
            for layer in range(layers):
                place, length = places[layer], reach[layer]
                for n in range(streams):
                    at = n * taps
                    for tap in range(kernel - 1):
                        slot = place + tap * dilations[layer]
                        if slot >= length:
                            slot -= length
                        start = starts[layer] + (slot * streams + n) * channels
                        for i in range(channels):
                            x[at + tap * channels + i] = rings[start + i]
                    start = starts[layer] + (place * streams + n) * channels
                    for i in range(channels):
                        rings[start + i] = x[at + newest + i]
                places[layer] = place + 1 if place + 1 < length else 0
                _product(
                    both, taps, streams, 0, hidden, 0, both, dilated, layer * taps * both, x, 0, taps,
                    flat, (frame * layers + layer) * both, frames * layers * both,
                )  # fmt: skip
                for n in range(streams):
                    for i in range(channels):
                        filtered = _tanh(hidden[n * both + i])
                        gate = _tanh(hidden[n * both + channels + i])
                        gated[n * wide + layer * channels + i] = filtered * (f4(1.0) + gate)
                if layer < layers - 1:
                    _product(
                        single, channels, streams, 0, change, 0, single, residual, layer * channels * single, gated,
                        layer * channels, wide, residual_bias, layer * single, 0,
                    )  # fmt: skip
                    for n in range(streams):
                        for i in range(channels):
                            x[n * taps + newest + i] += change[n * single + i]
            _product(skips, wide, streams, 0, summed, 0, skips, skip_weight, 0, gated, 0, wide, skip_bias, 0, 0)
            _product(skips, skip, streams, 1, posted, 0, skips, post, 0, summed, 0, skips, post_bias, 0, 0)
            for n in range(streams):
                _product(classes_wide, skip, 1, 1, logits, 0, 0, output, 0, posted, n * skips, 0, output_bias, 0, 0)
                chosen = _choose(
                    logits, levels, sharpness[n, frame], uniform[n, index], heights, exponents, exponents_as_floats
                )
                drawn = table[chosen] / (excitation_gain / level[n, frame])
                sample = min(max(drawn + predicted[n], -loudest), loudest)
                excitation[n, now & ring_mask] = drawn
                past[n, now & past_mask] = sample
                last[n] = sample + emphasis * last[n]
                samples[n, index] = last[n]
                emphasised[n, index] = sample
                classes[n, index] = chosen
            clock[0] = now + 1

    return njit(cache=True, boundscheck=False, error_model="numpy")(steps)


class Kernel:
    """The state of N streams, moved on by compiled steps; as `wavasr.generation.stepping.Stepper`."""

    def __init__(self, network: Network, streams: int) -> None:
        config = network.config
        self.network, self.streams = network, streams
        self._width = 1 if streams == 1 else TOGETHER
        self._groups = [_Group(network, self._width) for _ in range(-(-streams // self._width))]
        shape = config.channels, config.skip_channels, config.levels, config.kernel, config.dilations, config.inputs
        self._steps = compiled(*shape, config.hop_samples, self._width)
        weights = network.weights
        self._weights = [
            weights.project.ravel(), weights.project_bias, _pad(weights.dilated), _pad(weights.residual),
            _pad(weights.residual_bias), _pad(weights.skip), _pad(weights.skip_bias), _pad(weights.post),
            _pad(weights.post_bias), _pad(weights.output), _pad(weights.output_bias), centres(config.levels),
        ]  # fmt: skip

    def draw(self, orders: Orders) -> Drawn:
        """F frames more."""
        parts = []
        for first, group in zip(range(0, self.streams, self._width), self._groups, strict=True):
            parts.append(self._draw(group, _stretch(orders, first, self._width)))
        return Drawn(*(np.concatenate(found)[: self.streams] for found in zip(*parts, strict=True)))

    def _draw(self, group: _Group, orders: Orders) -> tuple[Array, Array, npt.NDArray[np.int16]]:
        config, gains = self.network.config, self.network.gains
        shape = self._width, orders.level.shape[1] * config.hop_samples
        found = np.zeros(shape, f4), np.zeros(shape, f4), np.zeros(shape, np.int16)
        missing = _padded(2 * config.channels) - 2 * config.channels
        condition = np.pad(orders.condition, ((0, 0), (0, 0), (0, 0), (0, missing)))
        self._steps(
            *self._weights, np.ascontiguousarray(condition), np.ascontiguousarray(orders.coefficients), orders.level,
            orders.lag_samples, orders.sharpness, orders.guide, orders.uniform, f4(gains.sample), f4(gains.excitation),
            f4(config.pre_emphasis), group.rings, group.places, group.past, group.excitation, group.last, group.clock,
            *found,
        )  # fmt: skip
        return found


class _Group:
    """The ring buffers of streams that are computed together."""

    def __init__(self, network: Network, streams: int) -> None:
        config = network.config
        reach = (config.kernel - 1) * sum(config.dilations)
        longest = ring_size(max(config.prediction_order, lag_range(config.sample_rate)[1] + 2))
        self.rings = np.zeros(reach * streams * config.channels, f4)
        self.places = np.zeros(len(config.dilations), np.int64)
        self.past = np.zeros((streams, longest), f4)
        self.excitation = np.zeros((streams, longest), f4)
        self.last = np.zeros(streams, f4)
        self.clock = np.zeros(1, np.int64)


def _stretch(orders: Orders, first: int, width: int) -> Orders:
    """The orders of `width` streams from `first` on; the last is repeated where there are none."""
    rows = np.minimum(np.arange(first, first + width), len(orders.level) - 1)
    return Orders(**{name: np.ascontiguousarray(values[rows]) for name, values in vars(orders).items()})
