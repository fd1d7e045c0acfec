"""A network in two parts gives what the whole one gives, and a stream runs the first part once for each sample."""

import numpy as np
import pytest

from wavasr.network.halves import part
from wavasr.network.inference import FastModel
from wavasr.recognition.chunks import Posteriors, forward

SAMPLES = 0.1 * np.random.default_rng(0).standard_normal(3 * 16000 + 77).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> FastModel:
    return FastModel("default")


def test_both_halves_are_the_whole(model: FastModel) -> None:
    assert model.halves is not None
    assert np.array_equal(model.halves.back(model.halves.front(SAMPLES)), forward(model, [SAMPLES])[0])


@pytest.mark.parametrize("size", [5000, 12_345])
def test_samples_that_come_bit_by_bit_give_the_same(model: FastModel, size: int) -> None:
    posteriors, found = Posteriors(model), []
    for start in range(0, len(SAMPLES), size):
        posteriors.push(SAMPLES[start : start + size])
        found.append(posteriors.take_with_preview(len(SAMPLES))[0])
    posteriors.end()
    found += posteriors.take(posteriors.complete)
    assert np.array_equal(np.concatenate(found), forward(model, [SAMPLES])[0])


def test_the_front_gets_each_sample_about_once(model: FastModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given, front = [], model.halves.front if model.halves else None
    assert front is not None
    monkeypatch.setattr(model.halves, "front", lambda samples: given.append(len(samples)) or front(samples))
    posteriors = Posteriors(model)
    for start in range(0, len(SAMPLES), 4800):
        posteriors.push(SAMPLES[start : start + 4800])
        posteriors.take_with_preview(len(SAMPLES))
    assert sum(given) < 2.5 * len(SAMPLES)  # beside a few frames of context


def test_a_part_is_a_graph_with_other_ends(model: FastModel) -> None:
    onnx = pytest.importorskip("onnx")
    found = onnx.load_from_string(part(model._graph, {"waveform": 1, "lengths": 7}, {"frames": 7}))
    assert [one.name for one in found.graph.output] == ["frames"]
    assert [one.name for one in found.graph.input] == ["lengths"] and len(found.graph.node) == 3
