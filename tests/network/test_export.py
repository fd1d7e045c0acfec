"""Exported models against torch's: the same numbers for every block, length and batch; bad input in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from wavasr.corpora.manifest import Utterance
from wavasr.errors import ConfigError, ModelError
from wavasr.evaluation.evaluate import evaluate
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import PRESETS, EncoderConfig, StageConfig
from wavasr.network.export import export_model
from wavasr.network.files import read_header
from wavasr.network.inference import FastModel
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.recognition.transcribe import Plan, log_probs_of, transcribe, transcribe_many

UNITS = Units.characters(["the quick brown fox jumps over the lazy dog"])
# Each has what another lacks: level, energy and mean pooling, windows, kernels of 1 to 3, skips of another width.
ENCODERS = {
    "ear": (
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


def exported(model: Recognizer, folder: Path, **options: Any) -> FastModel:
    save_model(model, folder / "model.wavasr")
    export_model(folder / "model.wavasr", folder / "model.onnx", **options)
    return FastModel(folder / "model.onnx")


def sound(samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loudness = 0.2 * np.abs(np.sin(np.arange(samples) / 3000.0)) + 0.001
    return (rng.standard_normal(samples) * loudness).astype(np.float32)


@pytest.fixture(scope="module")
def ear() -> Recognizer:
    return network(ENCODERS["ear"])


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
def test_short_and_long(ear: Recognizer, seconds: float, tmp_path: Path) -> None:
    batch, lengths = sound(round(16_000 * seconds))[None], np.array([round(16_000 * seconds)])
    runtime = exported(ear, tmp_path)
    assert np.abs(runtime.infer(batch, lengths)[0] - ear.infer(batch, lengths)[0]).max() < 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset(preset: str, tmp_path: Path) -> None:
    model = network(PRESETS[preset])
    waveform, lengths = sound(8000)[None], np.array([7900])
    found, frames = exported(model, tmp_path).infer(waveform, lengths)
    assert np.abs(found - model.infer(waveform, lengths)[0])[0, : frames[0]].max() < 1e-3


def test_eight_bits_are_near_and_do_not_depend_on_neighbours(ear: Recognizer, tmp_path: Path) -> None:
    exact, near = exported(ear, tmp_path), exported(ear, tmp_path, int8=True)
    lengths = np.array([16_000, 9_000])
    batch = np.stack([sound(16_000), 30 * sound(16_000, 1)])
    expected, found = exact.infer(batch, lengths)[0], near.infer(batch, lengths)[0]
    difference = np.abs(np.exp(found[0]) - np.exp(expected[0]))
    assert 0 < difference.max() < 0.1 and difference.mean() < 0.01
    alone = near.infer(batch[1:, :9_000], lengths[1:])[0]
    assert np.abs(alone[0] - found[1, : len(alone[0])]).max() < 1e-4


@pytest.mark.parametrize("int8", [False, True])
def test_chunked_is_whole(ear: Recognizer, int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = exported(ear, tmp_path, int8=int8)
    monkeypatch.setattr("wavasr.recognition.transcribe.CHUNK_S", 0.5)
    assert Plan.of(runtime) == Plan.of(ear)
    waveform = sound(40_000)
    whole, _ = runtime.infer(waveform[None], np.array([40_000]))
    assert np.abs(log_probs_of(runtime, waveform) - whole[0]).max() < 1e-3


def test_the_file_alone_is_a_model(ear: Recognizer, tmp_path: Path, speech: Path) -> None:
    runtime = exported(ear, tmp_path)
    header, original = (read_header(tmp_path / f"model.{suffix}") for suffix in ("onnx", "wavasr"))
    assert header.pop("export") == {"precision": "float32", "parameters": sum(p.numel() for p in ear.parameters())}
    assert header == original
    assert (runtime.units, runtime.text, runtime.metadata) == (ear.units, ear.text, ear.metadata)
    assert (runtime.sample_rate, runtime.hop_samples) == (ear.sample_rate, ear.hop_samples)
    assert runtime.receptive_field == ear.receptive_field
    for decoder in ("greedy", "beam"):
        found = transcribe(speech, tmp_path / "model.onnx", decoder=decoder)  # type: ignore[arg-type]
        expected = transcribe(speech, ear, decoder=decoder, model_name=found.model)  # type: ignore[arg-type]
        assert found.text == expected.text != "" and len(found.words) == len(expected.words)


def test_evaluation_is_torchs(ear: Recognizer, tmp_path: Path, speech: Path) -> None:
    runtime = exported(ear, tmp_path)
    utterances = [Utterance("one", speech, 0.5, "the fox")]
    found, expected = (evaluate(model, utterances, progress=False) for model in (runtime, ear))
    assert found.utterances[0].hypothesis == expected.utterances[0].hypothesis
    assert found.provenance.parameters == expected.provenance.parameters
    assert len(found.provenance.model_sha256) == 64 and found.provenance.device.startswith("cpu, onnxruntime")


def test_torch_is_not_imported(tmp_path: Path, tiny_model: Path, speech: Path) -> None:
    """Export, transcribe and evaluate in one process where importing torch is an error."""
    manifest = tmp_path / "test.jsonl"
    line = {"audio_filepath": str(speech), "duration": 0.5, "text": "fox", "speaker": "a"}
    manifest.write_text(json.dumps(line) + "\n", encoding="utf-8")
    target = str(tmp_path / "out" / "tiny.onnx")
    program = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchaudio"):
            raise AssertionError(name)
sys.meta_path.insert(0, Forbid())
from wavasr.cli import main
assert main(["export", {str(tiny_model)!r}, "--output", {target!r}, "--int8"]) == 0
assert main(["info", {target!r}]) == 0
assert main(["transcribe", {str(speech)!r}, "--model", {target!r}, "--beam", "4"]) == 0
assert main(["evaluate", "--manifest", {str(manifest)!r}, "--model", {target!r}, "--report", {str(tmp_path)!r}]) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny.onnx"]


# Bad input ------------------------------------------------------------------------------------------------------------


def test_wrong_files_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give e\.g\. tiny\.onnx"):
        export_model(tiny_model, tmp_path / "tiny.pb")
    with pytest.raises(ModelError, match="no such model file"):
        export_model(tmp_path / "gone.wavasr", tmp_path / "tiny.onnx")
    export_model(tiny_model, tmp_path / "tiny.onnx")
    with pytest.raises(ModelError, match="is an exported model"):
        export_model(tmp_path / "tiny.onnx", tmp_path / "again.onnx")
    with pytest.raises(ModelError, match="is an exported model"):
        load_model(tmp_path / "tiny.onnx")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "other", "broken"])
def test_damaged_exports_are_told(damage: str, tiny_model: Path, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    export_model(tiny_model, path)
    content = path.read_bytes()
    if damage == "other":
        import onnx

        model = onnx.load(path)
        del model.metadata_props[:]
        content = model.SerializeToString()
    broken = content.replace(b"LogSoftmax", b"LogSoftmix")
    changed = {"empty": b"", "text": b"hello " * 99, "cut": content[: len(content) // 2], "broken": broken}
    path.write_bytes(changed.get(damage, content))
    with pytest.raises(ModelError, match=r"tiny\.onnx: (not a wavasr model file|onnxruntime cannot run it)") as error:
        list(transcribe_many([speech], path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", ["missing", "shape", "extra"])
def test_weights_that_do_not_fit_are_named(change: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, path = network(ENCODERS["odd"]), tmp_path / "model.wavasr"
    save_model(model, path)
    header, weights = {"wavasr": json.dumps(read_header(path))}, load_file(path)
    if change == "extra":
        weights["encoder.attention"] = torch.zeros(3)
    else:
        bias = weights.pop("encoder.stages.1.project.bias")
        weights |= {"encoder.stages.1.project.bias": bias[1:]} if change == "shape" else {}
    save_file(weights, path, header)
    with pytest.raises(ModelError, match="do not make a model"):
        export_model(path, tmp_path / "model.onnx")


def test_the_file_takes_a_wav_of_another_rate(ear: Recognizer, tmp_path: Path) -> None:
    exported(ear, tmp_path)
    soundfile.write(tmp_path / "studio.wav", np.stack([sound(48_000)] * 2, axis=1), 48_000)
    assert transcribe(tmp_path / "studio.wav", tmp_path / "model.onnx").duration_s == pytest.approx(1.0, abs=1e-3)
