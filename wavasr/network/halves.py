"""A recogniser's graph in two: samples to the features of its last stage, and those to log-probabilities.

    samples -> front -> features -> back -> log-probabilities
    (S,)                (T, C)              (T, V)

The front sees a few frames around each, the last stage about a second to either side. So whoever recognises while
samples come runs the front, most of the work, once for each of them, and only the last stage again and again.

The parts are cut out of the graph of a model file. That is a protocol buffer, of which a few fields are enough
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), so `onnx` is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from wavasr.network.config import EncoderConfig
from wavasr.network.geometry import dilated_reach, receptive_field
from wavasr.network.runtime import Floats
from wavasr.network.session import new_session

_FLOAT, _INT64 = 1, 7
_GRAPH, _NODE, _CONSTANT, _INPUT, _OUTPUT = 7, 1, 5, 11, 12  # fields of a model, and of its graph
_NAME_OF_CONSTANT = 8


class Halves:
    """Both parts of a network.

    Attributes:
        front_reach: frames before and after its own that a feature sees.
        back_reach: features before and after its own that a frame of log-probabilities sees.
    """

    def __init__(self, graph: bytes, name: str, config: EncoderConfig, features: str) -> None:
        self._hop = config.hop_samples
        self._features = features
        last, causal = config.stages[-1], config.context == "causal"
        reaches = [dilated_reach(last.kernel, dilation, causal) for dilation in last.dilations]
        self.back_reach = sum(before for before, _ in reaches), sum(after for _, after in reaches)
        before, after = (-(-samples // self._hop) for samples in receptive_field(config))
        self.front_reach = before - self.back_reach[0], after - self.back_reach[1]
        given = {"waveform": _FLOAT, "lengths": _INT64}
        self._front = new_session(part(graph, given, {features: _FLOAT}), name)
        self._back = new_session(part(graph, {features: _FLOAT, **given}, {"log_probs": _FLOAT}), name)

    def front(self, samples: Floats) -> Floats:
        """(S,) -> (T, C); frames at the ends are those of samples that nothing surrounds."""
        given = {"waveform": samples[None], "lengths": np.array([len(samples)])}
        features: Floats = self._front.run([self._features], given)[0][0]
        return features

    def back(self, features: Floats) -> Floats:
        """(T, C) -> (T, V)."""
        samples = len(features) * self._hop  # of the waveform, which is not given, only the length counts
        given = {self._features: features[None], "waveform": np.zeros((1, samples), np.float32)}
        log_probs: Floats = self._back.run(["log_probs"], {**given, "lengths": np.array([samples])})[0][0]
        return log_probs


def halves_of(graph: bytes, name: str, config: EncoderConfig) -> Halves | None:
    """The halves of a graph of `network.onnx`; None where the last stage has no features of its own."""
    if config.stages[-1].pool > 1 or len(config.stages) < 2 or config.stages[-1].window > 1:
        return None
    features = _last_pooled(_nodes(_graph(graph)))
    return Halves(graph, name, config, features) if features else None


def part(model: bytes, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
    """The part of an ONNX file between tensors that are given and those that are wanted, with their element types."""
    graph = _graph(model)
    wanted, kept = set(outputs), []
    for node in reversed(_nodes(graph)):
        if node.outputs & wanted - set(inputs):
            kept.append(_entry(_NODE, node.content))
            wanted |= node.inputs
    constants = [content for number, content in _fields(graph) if number == _CONSTANT]
    kept = kept[::-1] + [_entry(_CONSTANT, one) for one in constants if _text(one, _NAME_OF_CONSTANT) <= wanted]
    kept += [_entry(_INPUT, _described(name, kind)) for name, kind in inputs.items() if name in wanted]
    kept += [_entry(_OUTPUT, _described(name, kind)) for name, kind in outputs.items()]
    named = [_entry(number, content) for number, content in _fields(graph) if number == 2]
    others = [_entry(number, content) for number, content in _fields(model) if number != _GRAPH]
    return b"".join([*others, _entry(_GRAPH, b"".join([*named, *kept]))])


class _Node(NamedTuple):
    """An operation of a graph: its name, the tensors that it takes and gives, and all of it as it is in the file."""

    operation: set[str]
    inputs: set[str]
    outputs: set[str]
    content: bytes | int


def _graph(model: bytes) -> bytes:
    return next(content for number, content in _fields(model) if number == _GRAPH and isinstance(content, bytes))


def _nodes(graph: bytes) -> list[_Node]:
    found = [content for number, content in _fields(graph) if number == _NODE]
    return [_Node(_text(one, 4), _text(one, 1), _text(one, 2), one) for one in found]


def _last_pooled(nodes: list[_Node]) -> str:
    """What the last pooling gives, the mean over one axis of what was reshaped; "" where there is none."""
    reshaped: set[str] = set().union(*(node.outputs for node in nodes if node.operation == {"Reshape"}))
    pooled = [node for node in nodes if node.operation == {"ReduceMean"} and node.inputs & reshaped]
    users = [node.operation for node in nodes if pooled and node.inputs & pooled[-1].outputs]
    return next(iter(pooled[-1].outputs)) if users == [{"MatMul"}] else ""


# Protocol buffers -----------------------------------------------------------------------------------------------------


def _fields(message: bytes | int) -> Iterator[tuple[int, bytes | int]]:
    """The numbers and contents of a message's fields: whole numbers, and bytes; those of fixed width are left out."""
    assert isinstance(message, bytes)
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _number(message, at)
            yield tag >> 3, value
        elif kind == 2:
            length, at = _number(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            at += 8 if kind == 1 else 4


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first; and where it ends."""
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at


def _encoded(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _entry(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return _encoded(number << 3) + _encoded(content)
    return _encoded(number << 3 | 2) + _encoded(len(content)) + content


def _text(message: bytes | int, field: int) -> set[str]:
    return {content.decode() for number, content in _fields(message) if number == field and isinstance(content, bytes)}


def _described(name: str, kind: int) -> bytes:
    """A tensor's name and the type of its elements, of any shape."""
    return _entry(1, name.encode()) + _entry(2, _entry(1, _entry(1, kind)))
