# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, call-arg, unreachable, no-any-return"
"""The sampler's steps compiled by numba: several times faster than real time on one thread.

A step of 32 residual and 64 skip channels in 20 layers is 164,000 multiply-adds, one for each weight. So the time goes
into reading weights from the second-level cache, or from memory where they do not fit into it; what makes that fast:
- weights are kept in half precision, as model files have them, and widened in registers: the same sums, half the bytes;
- a matrix-vector product holds its sums in registers and reads each weight once, whole vectors at a time. numba would
  store them in every round, so the product is written out in LLVM's own vectors (which suit any processor);
- the taps of a layer lie beside each other, so that it is one product; the skip connections are one product at the end;
- several streams share one reading of the weights.

All streams are computed in the same order whatever their number: a batch of n gives the bytes of n singles. NumPy adds
up in another order and has another tanh: see `wavasr.generation.stepping`.
"""

from __future__ import annotations

import functools
import itertools
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
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


class _Vectors:
    """Instructions on vectors of WIDTH floats."""

    def __init__(self, builder: Any) -> None:
        self.type = ir.VectorType(ir.FloatType(), WIDTH)
        self._builder = builder
        self._multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.type, [self.type] * 3), f"llvm.fmuladd.v{WIDTH}f32"
        )

    def _place(self, pointer: Any, offset: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(pointer, [offset]), self.type.as_pointer())

    def load(self, pointer: Any, offset: Any) -> Any:
        """WIDTH floats, or halves as floats."""
        if pointer.type.pointee != ir.FloatType():
            halves = ir.VectorType(ir.HalfType(), WIDTH)
            place = self._builder.bitcast(self._builder.gep(pointer, [offset]), halves.as_pointer())
            loaded = self._builder.load(place)
            loaded.align = 2
            return self._builder.fpext(loaded, self.type)
        loaded = self._builder.load(self._place(pointer, offset))
        loaded.align = 4
        return loaded

    def store(self, value: Any, pointer: Any, offset: Any) -> None:
        self._builder.store(value, self._place(pointer, offset)).align = 4

    def spread(self, value: Any) -> Any:
        """One number in all places."""
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self._builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return self._builder.shuffle_vector(first, undefined, lanes)

    def add_product(self, total: Any, one: Any, other: Any) -> None:
        """Add one * other to what stands at the address `total`."""
        self._builder.store(self._builder.call(self._multiply_add, [one, other, self._builder.load(total)]), total)


def _emit_product(builder: Any, sizes: list[int], values: Any, pointers: list[Any]) -> None:
    """The instructions of `_product`."""
    rows, inputs, streams, rectify = sizes
    _, out_at, out_step, _, weight_at, _, x_at, x_step, _, bias_at, bias_step = values
    out, weight, x, bias = pointers
    index, vectors = out_at.type, _Vectors(builder)
    zero = ir.Constant(ir.FloatType(), 0.0)
    parts = range(rows // WIDTH)
    count = max(1, min(_SUMS // len(parts), inputs))  # sums of each part

    def at(start: Any, step: Any, stream: int, part: int = 0) -> Any:
        place = builder.add(start, builder.mul(step, ir.Constant(index, stream)))
        return builder.add(place, ir.Constant(index, part * WIDTH))

    sums: dict[tuple[int, int, int], Any] = {}
    for place in itertools.product(range(streams), parts, range(count)):
        stream, part, term = place
        sums[place] = cgutils.alloca_once(builder, vectors.type)
        start = vectors.load(bias, at(bias_at, bias_step, stream, part)) if term == 0 else vectors.spread(zero)
        builder.store(start, sums[place])

    def accumulate(k: Any, term: int) -> None:
        row = builder.add(weight_at, builder.mul(k, ir.Constant(index, rows)))
        columns = [vectors.load(weight, builder.add(row, ir.Constant(index, part * WIDTH))) for part in parts]
        for stream in range(streams):
            value = builder.load(builder.gep(x, [builder.add(at(x_at, x_step, stream), k)]))
            if rectify:
                value = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
            spread = vectors.spread(value)
            for part in parts:
                vectors.add_product(sums[stream, part, term], columns[part], spread)

    unrolled = count * max(1, 4 // count)
    with cgutils.for_range(builder, ir.Constant(index, inputs // unrolled)) as loop:
        first = builder.mul(loop.index, ir.Constant(index, unrolled))
        for offset in range(unrolled):
            accumulate(builder.add(first, ir.Constant(index, offset)), offset % count)
    for rest in range(inputs - inputs % unrolled, inputs):
        accumulate(ir.Constant(index, rest), rest % count)
    for stream, part in itertools.product(range(streams), parts):
        total = builder.load(sums[stream, part, 0])
        for term in range(1, count):
            total = builder.fadd(total, builder.load(sums[stream, part, term]))
        vectors.store(total, out, at(out_at, out_step, stream, part))


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
def _choose(logits, levels, sharpness, uniform, heights, exponents):
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
    powers = exponents.view(f4)
    for i in range(levels):
        heights[i] *= powers[i]
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


def _compact(matrices: Sequence[Array]) -> list[npt.NDArray[Any]]:
    """Padded; in half precision where all are exactly that, as in model files, and the processor reads it."""
    reads_halves = platform.machine() in ("arm64", "aarch64") or get_host_cpu_features().get("f16c")
    padded = [_pad(matrix) for matrix in matrices]
    with np.errstate(over="ignore"):
        halves = [matrix.astype(np.float16) for matrix in padded]
    exact = all((half == matrix).all() for half, matrix in zip(halves, padded, strict=True))
    return [half.view(np.uint16) for half in halves] if exact and reads_halves else list(padded)


@njit(inline="always")
def _look_back(known, guess, past, excitation, level, lags, gains, n, frame, now):
    """What the network gets of the past of stream n: the last sample; with linear prediction five numbers more."""
    sample_gain, excitation_gain = gains
    known[0] = past[n, (now - 1) & (past.shape[1] - 1)] * sample_gain
    if len(known) >= 6:
        mask = excitation.shape[1] - 1
        scale = f4(INPUT_SCALE) * (excitation_gain / level[n, frame])
        period = now - lags[n, frame]
        known[1] = guess * sample_gain
        known[2] = excitation[n, (now - 1) & mask] * scale
        known[3] = excitation[n, (period - 1) & mask] * scale
        known[4] = excitation[n, period & mask] * scale
        known[5] = excitation[n, (period + 1) & mask] * scale


@njit(inline="always")
def _predict(coefficients, past, n, frame, now):
    """The linear prediction of a sample from those before it."""
    guess = f4(0.0)
    for lag in range(coefficients.shape[2]):
        guess += coefficients[n, frame, lag] * past[n, (now - 1 - lag) & (past.shape[1] - 1)]
    return guess


@njit(inline="always")
def _enter(x, known, project, project_bias):
    """The input projection: x = bias + project.T @ known. Views, whose indices are not negative, can be vectorised."""
    for i in range(len(x)):
        x[i] = project_bias[i]
    for j in range(len(known)):
        row = project[j * len(x) : (j + 1) * len(x)]
        for i in range(len(x)):
            x[i] += row[i] * known[j]


@njit(inline="always")
def _exchange(x, rings, start, place, length, dilation, kernel, channels, streams):
    """Of a layer: the older taps of each stream go before its newest one in x, which goes into the ring."""
    for n in range(streams):
        taps = x[n * kernel * channels : (n + 1) * kernel * channels]
        for tap in range(kernel - 1):
            slot = place + tap * dilation
            if slot >= length:
                slot -= length
            first = start + (slot * streams + n) * channels
            old, here = rings[first : first + channels], taps[tap * channels : (tap + 1) * channels]
            for i in range(channels):
                here[i] = old[i]
        first = start + (place * streams + n) * channels
        old, newest = rings[first : first + channels], taps[(kernel - 1) * channels :]
        for i in range(channels):
            old[i] = newest[i]


@njit(inline="always")
def _gate(hidden, gated, channels):
    """Gated = tanh(filter / 2) * sigmoid(gate) of one stream and layer."""
    filters, gates = hidden[:channels], hidden[channels : 2 * channels]
    for i in range(channels):
        gated[i] = _tanh(f4(0.5) * filters[i]) * (f4(0.5) + f4(0.5) * _tanh(f4(0.5) * gates[i]))


@njit(inline="always")
def _add(x, change):
    """X += change."""
    for i in range(len(x)):
        x[i] += change[i]


@njit(inline="always")
def _keep(drawn, predicted, emphasis, excitation, past, last, n, now):
    """The sample of stream n with the excitation that was drawn; it becomes the past."""
    sample = min(max(drawn + predicted, f4(-LOUDEST)), f4(LOUDEST))
    excitation[n, now & (excitation.shape[1] - 1)] = drawn
    past[n, now & (past.shape[1] - 1)] = sample
    last[n] = sample + emphasis * last[n]
    return sample


@functools.lru_cache(maxsize=8)
def compiled(
    channels: int, skip: int, levels: int, kernel: int, dilations: tuple[int, ...], inputs: int, hop: int, streams: int
) -> Callable[..., None]:
    """The steps of one shape of network, compiled when first called; kept on disk where there is a place for it."""
    layers, taps, newest = len(dilations), kernel * channels, (kernel - 1) * channels
    both, single, wide = _padded(2 * channels), _padded(channels), layers * channels
    skips, classes_wide = _padded(skip), _padded(levels)
    reach = tuple((kernel - 1) * d for d in dilations)
    starts = tuple(int(sum(reach[:layer])) * streams * channels for layer in range(layers))

    def steps(
        project, project_bias, dilated, residual, residual_bias, skip_weight, skip_bias, post, post_bias, output,
        output_bias, table, condition, coefficients, level, lags, sharpness, guide, uniform, gains, emphasis, rings,
        places, past, excitation, last, clock, samples, emphasised, classes,
    ):  # fmt: skip
        x, hidden, gated = np.zeros(streams * taps, f4), np.zeros(streams * both, f4), np.zeros(streams * wide, f4)
        change, logits = np.zeros(streams * single, f4), np.zeros(streams * classes_wide, f4)
        summed, posted = np.zeros(streams * skips, f4), np.zeros(streams * skips, f4)
        heights, exponents = np.zeros(classes_wide, f4), np.zeros(classes_wide, np.int32)
        known, predicted, flat = np.zeros(inputs, f4), np.zeros(streams, f4), condition.reshape(-1)
        frames = coefficients.shape[1]
        for index in range(frames * hop):
            frame, now = index // hop, clock[0]
            for n in range(streams):
                predicted[n] = _predict(coefficients, past, n, frame, now)
                _look_back(known, predicted[n], past, excitation, level, lags, gains, n, frame, now)
                if inputs == 7:
                    known[6] = guide[n, index]
                _enter(x[n * taps + newest : (n + 1) * taps], known, project, project_bias)
            for layer in range(layers):
                place, length = places[layer], reach[layer]
                _exchange(x, rings, starts[layer], place, length, dilations[layer], kernel, channels, streams)
                places[layer] = place + 1 if place + 1 < length else 0
                _product(
                    both, taps, streams, 0, hidden, 0, both, dilated, layer * taps * both, x, 0, taps,
                    flat, (frame * layers + layer) * both, frames * layers * both,
                )  # fmt: skip
                for n in range(streams):
                    first = n * wide + layer * channels
                    _gate(hidden[n * both : (n + 1) * both], gated[first : first + channels], channels)
                if layer < layers - 1:
                    _product(
                        single, channels, streams, 0, change, 0, single, residual, layer * channels * single, gated,
                        layer * channels, wide, residual_bias, layer * single, 0,
                    )  # fmt: skip
                    for n in range(streams):
                        _add(x[n * taps + newest : (n + 1) * taps], change[n * single : (n + 1) * single])
            _product(skips, wide, streams, 0, summed, 0, skips, skip_weight, 0, gated, 0, wide, skip_bias, 0, 0)
            _product(skips, skip, streams, 1, posted, 0, skips, post, 0, summed, 0, skips, post_bias, 0, 0)
            for n in range(streams):
                _product(classes_wide, skip, 1, 1, logits, 0, 0, output, 0, posted, n * skips, 0, output_bias, 0, 0)
                chosen = _choose(logits, levels, sharpness[n, frame], uniform[n, index], heights, exponents)
                drawn = table[chosen] / (gains[1] / level[n, frame])
                sample = _keep(drawn, predicted[n], emphasis, excitation, past, last, n, now)
                samples[n, index], emphasised[n, index], classes[n, index] = last[n], sample, chosen
            clock[0] = now + 1

    return _compiled(steps)


def _compiled(steps: Callable[..., None]) -> Callable[..., None]:
    options: Any = {"boundscheck": False, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(steps)
    except RuntimeError:  # neither the package nor the home folder can be written, as in some containers
        return njit(**options)(steps)


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
        dilated, residual, skip, post, output = _compact(
            [2 * weights.dilated, 2 * weights.residual, 2 * weights.skip, weights.post, weights.output]
        )
        self._weights = [
            weights.project.ravel(), weights.project_bias, dilated, residual, _pad(weights.residual_bias), skip,
            _pad(weights.skip_bias), post, _pad(weights.post_bias), output, _pad(weights.output_bias),
            centres(config.levels),
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
        condition = 2 * np.pad(orders.condition, ((0, 0), (0, 0), (0, 0), (0, missing)))
        self._steps(
            *self._weights, np.ascontiguousarray(condition), np.ascontiguousarray(orders.coefficients), orders.level,
            orders.lag_samples, orders.sharpness, orders.guide, orders.uniform,
            (f4(gains.sample), f4(gains.excitation)), f4(config.pre_emphasis), group.rings, group.places, group.past,
            group.excitation, group.last, group.clock, *found,
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
