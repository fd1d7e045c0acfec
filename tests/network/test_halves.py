"""A network in two parts gives what the whole one gives, and a stream runs the first part once for each sample."""

from pathlib import Path

import numpy as np
import pytest

from wavasr.archive import Content, members_of, write_archive
from wavasr.network.export import export_graph
from wavasr.network.files import BACK, FRONT, GRAPH, resolve
from wavasr.network.inference import FastModel
from wavasr.recognition.chunks import Posteriors, forward

SAMPLES = 0.1 * np.random.default_rng(0).standard_normal(9 * 16000 + 77).astype(np.float32)  # pieces of the front: 4 s


@pytest.fixture(scope="module")
def model() -> FastModel:
    return FastModel("default")


def test_both_halves_are_the_whole(model: FastModel, tmp_path: Path) -> None:
    assert model.halves is not None
    export_graph("default", tmp_path / "whole.onnx", int8=True)
    parts = dict[str, Content](members_of(resolve("default")))
    parts = {name: part for name, part in parts.items() if name not in (FRONT, BACK, GRAPH, "lm.bin")}
    write_archive(tmp_path / "whole.wavasr", parts | {GRAPH: tmp_path / "whole.onnx"})
    whole = FastModel(tmp_path / "whole.wavasr")
    expected = forward(whole, [SAMPLES, SAMPLES[:20_000]])
    assert whole.halves is None
    for found, row in zip(forward(model, [SAMPLES, SAMPLES[:20_000]]), expected, strict=True):
        assert np.array_equal(found, row)
    assert np.array_equal(model.halves.back(model.halves.front(SAMPLES)), expected[0])


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
