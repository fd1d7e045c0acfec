"""Exported models against torch's: the same numbers for every block, length and batch; bad input in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from wavasr.archive import members_of, write_archive
from wavasr.corpora.manifest import Utterance
from wavasr.decoding.config import DecodingConfig
from wavasr.errors import ConfigError, ModelError
from wavasr.evaluation.evaluate import evaluate
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import PRESETS, EncoderConfig, StageConfig
from wavasr.network.export import export_graph
from wavasr.network.files import BACK, FRONT, GRAPH, WEIGHTS, read_arrays, read_header
from wavasr.network.inference import FastModel
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.recognition.chunks import ChunkPlan, log_probs_of
from wavasr.recognition.transcribe import transcribe, transcribe_many

NOISE = DecodingConfig(vad=False)
UNITS = Units.characters(["the quick brown fox jumps over the lazy dog"])
# Each has what another lacks: level, energy and mean pooling, windows, kernels of 1 to 3, skips of another width.
ENCODERS = {
    "front-end": (
        StageConfig(
            8, window=32, stride=8, level_frames=16, filter_bank=True, dilations=(1, 2, 4), pool=5, pooling="energy"
        ),
        StageConfig(channels=8, dilations=(1, 2), pool=4, pooling="energy"),
        StageConfig(channels=16, dilations=(1, 2), pool=2),
        StageConfig(channels=16, dilations=(1, 4)),
    ),
    "paper": (
        StageConfig(channels=8, skip_channels=12, kernel=2, dilations=(1, 2, 4, 8), pool=160),
        StageConfig(channels=8, dilations=(1, 1)),
    ),
    "odd": (
        StageConfig(channels=8, window=12, stride=4, kernel=1, dilations=(1, 1), pool=3, pooling="energy"),
        StageConfig(channels=9, skip_channels=5, kernel=2, dilations=(3, 1), level_frames=0, pool=7),
    ),
    "level": (StageConfig(channels=8, stride=4, window=4, level_frames=5, dilations=(1, 8), pool=1),),
}


def network(stages: tuple[StageConfig, ...], context: str = "noncausal") -> Recognizer:
    torch.manual_seed(0)
    config = EncoderConfig(preset="custom", stages=stages, context=context, init="random")  # type: ignore[arg-type]
    model = Recognizer(config, UNITS, TextConfig(), {"name": "tiny", "note": "Über ∑"}).eval()
    with torch.no_grad():  # biases that matter, and outputs that differ
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
            else:  # a filter bank starts with zeros
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.output.weight.mul_(4)
    return model


def exported(model: Recognizer, folder: Path, int8: bool = False) -> FastModel:
    """The model with the graph that is exported."""
    save_model(model, folder / "model.wavasr")
    export_graph(folder / "model.wavasr", folder / "model.onnx", int8)
    parts = dict[str, Any](members_of(folder / "model.wavasr"))
    parts.pop(FRONT, None)
    write_archive(folder / "exported.wavasr", parts | {GRAPH: (folder / "model.onnx").read_bytes()})
    return FastModel(folder / "exported.wavasr")


def sound(samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loudness = 0.2 * np.abs(np.sin(np.arange(samples) / 3000.0)) + 0.001
    return (rng.standard_normal(samples) * loudness).astype(np.float32)


@pytest.fixture(scope="module")
def front_end() -> Recognizer:
    return network(ENCODERS["front-end"])


@pytest.mark.parametrize("context", ["noncausal", "causal"])
@pytest.mark.parametrize("name", ENCODERS)
def test_log_probabilities_are_torchs(name: str, context: str, tmp_path: Path) -> None:
    """Alone and in a batch of different lengths whose padding holds anything, from 0.3 s on."""
    model = network(ENCODERS[name], context)
    runtime = exported(model, tmp_path)
    for longest in (1, 4800, 4801, 16_000, 33_333):
        lengths = np.array([longest, 1, max(1, longest // 2), max(1, longest - 1)])
        batch = np.stack([sound(longest, seed) for seed in range(4)])
        expected, frames = model.infer(batch, lengths)
        dirty = batch.copy()
        for row, length in zip(dirty, lengths, strict=True):
            row[length:] = np.nan
        found, found_frames = runtime.infer(dirty, lengths)
        assert found.shape == expected.shape and found.dtype == np.float32
        assert found_frames.tolist() == frames.tolist()
        for one, other, count in zip(found, expected, frames, strict=True):
            assert np.abs(one[:count] - other[:count]).max() < 1e-3
        alone, _ = runtime.infer(batch[:1], lengths[:1])
        assert np.abs(alone[0] - found[0]).max() < 1e-4


@pytest.mark.parametrize("seconds", [0.3, 60.0])
def test_short_and_long(front_end: Recognizer, seconds: float, tmp_path: Path) -> None:
    batch, lengths = sound(round(16_000 * seconds))[None], np.array([round(16_000 * seconds)])
    runtime = exported(front_end, tmp_path)
    assert np.abs(runtime.infer(batch, lengths)[0] - front_end.infer(batch, lengths)[0]).max() < 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset(preset: str, tmp_path: Path) -> None:
    model = network(PRESETS[preset])
    waveform, lengths = sound(8000)[None], np.array([7900])
    found, frames = exported(model, tmp_path).infer(waveform, lengths)
    assert np.abs(found - model.infer(waveform, lengths)[0])[0, : frames[0]].max() < 1e-3


def test_eight_bits_are_near_and_do_not_depend_on_neighbours(front_end: Recognizer, tmp_path: Path) -> None:
    exact, near = exported(front_end, tmp_path), exported(front_end, tmp_path, int8=True)
    lengths = np.array([16_000, 9_000])
    batch = np.stack([sound(16_000), 30 * sound(16_000, 1)])
    expected, found = exact.infer(batch, lengths)[0], near.infer(batch, lengths)[0]
    difference = np.abs(np.exp(found[0]) - np.exp(expected[0]))
    assert 0 < difference.max() < 0.1 and difference.mean() < 0.01
    alone = near.infer(batch[1:, :9_000], lengths[1:])[0]
    assert np.abs(alone[0] - found[1, : len(alone[0])]).max() < 1e-4


@pytest.mark.parametrize("int8", [False, True])
def test_chunked_is_whole(front_end: Recognizer, int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = exported(front_end, tmp_path, int8=int8)
    monkeypatch.setattr("wavasr.recognition.chunks.CHUNK_S", 0.5)
    assert ChunkPlan.of(runtime) == ChunkPlan.of(front_end)
    waveform = sound(40_000)
    whole, _ = runtime.infer(waveform[None], np.array([40_000]))
    assert np.abs(log_probs_of(runtime, waveform) - whole[0]).max() < 1e-3


def test_the_graph_says_what_it_is(front_end: Recognizer, tmp_path: Path) -> None:
    exported(front_end, tmp_path)
    import onnx

    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(metadata["wavasr"]) == read_header(tmp_path / "model.wavasr")


def test_evaluation_is_torchs(front_end: Recognizer, tmp_path: Path, speech: Path) -> None:
    runtime = exported(front_end, tmp_path)
    for decoder in (NOISE, replace(NOISE, beam=4)):
        found = transcribe(speech, runtime, decoder=decoder)
        expected = transcribe(speech, front_end, decoder=decoder, model_name=found.model)
        assert found.text == expected.text != "" and len(found.words) == len(expected.words)
    utterances = [Utterance("one", speech, 0.5, "the fox")]
    evaluations = [evaluate(model, utterances, progress=False) for model in (runtime, front_end)]
    assert evaluations[0].utterances[0].hypothesis == evaluations[1].utterances[0].hypothesis
    assert evaluations[0].provenance.parameters == evaluations[1].provenance.parameters
    assert evaluations[0].provenance.model_sha256 == evaluations[1].provenance.model_sha256


# Bad input ------------------------------------------------------------------------------------------------------------


def test_wrong_files_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tiny\.pb: expected a name in \.onnx"):
        export_graph(tiny_model, tmp_path / "tiny.pb")
    with pytest.raises(ModelError, match="no such model file"):
        export_graph(tmp_path / "gone.wavasr", tmp_path / "tiny.onnx")
    export_graph(tiny_model, tmp_path / "tiny.onnx")
    for use in (lambda path: export_graph(path, tmp_path / "again.onnx"), load_model, FastModel):
        with pytest.raises(ModelError, match=r"tiny\.onnx: is a graph for other programs; give the \.wavasr file"):
            use(tmp_path / "tiny.onnx")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "broken", "name", "missing"])
def test_damaged_graphs_are_told(
    damage: str, tiny_model: Path, speech: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts: dict[str, Any] = dict(members_of(tiny_model))
    name = BACK if BACK in parts else GRAPH
    graph = parts.pop(name).read_bytes()
    changed = {"empty": b"", "text": b"hello " * 99, "cut": graph[: len(graph) // 2]}
    if damage != "missing":
        broken = b"LogSoftm\xff\xff" if damage == "name" else b"LogSoftmix"
        parts[name] = changed.get(damage, graph.replace(b"LogSoftmax", broken))
    path = tmp_path / "tiny.wavasr"
    write_archive(path, parts)
    with pytest.raises(ModelError, match=r"tiny\.wavasr: (is damaged|onnxruntime cannot run it)") as error:
        list(transcribe_many([speech], path))
    assert "\n" not in str(error.value) and not capfd.readouterr().out


@pytest.mark.parametrize("change", ["missing", "shape", "extra"])
def test_weights_that_do_not_fit_are_named(change: str, tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = tmp_path / "model.wavasr"
    save_model(network(ENCODERS["odd"]), path)
    weights = dict(read_arrays(path))
    if change == "extra":
        weights["encoder.attention"] = np.zeros(3, np.float32)
    else:
        bias = weights.pop("encoder.stages.1.project.bias")
        weights |= {"encoder.stages.1.project.bias": bias[1:]} if change == "shape" else {}
    write_archive(path, {**members_of(path), WEIGHTS: save(weights)})
    with pytest.raises(ModelError, match="do not make a model"):
        export_graph(path, tmp_path / "model.onnx")


def test_the_file_takes_a_wav_of_another_rate(front_end: Recognizer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "studio.wav", np.stack([sound(48_000)] * 2, axis=1), 48_000)
    assert transcribe(tmp_path / "studio.wav", exported(front_end, tmp_path)).duration_s == pytest.approx(1.0, abs=1e-3)
