"""The network in 8 bits against torch's, and the same numbers however audio is cut, padded and batched."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from wavasr.audio.reading import load_audio
from wavasr.cli import main
from wavasr.corpora.manifest import read_manifest
from wavasr.decoding.greedy import greedy
from wavasr.errors import ConfigError, ModelError
from wavasr.evaluation.metrics import cer
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network import session
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.inference import FastModel
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.recognition.chunks import log_probs_of

STAGES = {
    "pooled": (
        StageConfig(
            8, window=32, stride=8, level_frames=16, filter_bank=True, dilations=(1, 2), pool=5, pooling="energy"
        ),
        StageConfig(channels=12, skip_channels=8, kernel=2, dilations=(1, 2, 4), pool=4),
        StageConfig(channels=8, dilations=(1, 4)),
    ),
    "full rate": (
        StageConfig(channels=4, skip_channels=8, kernel=2, dilations=(1, 2, 4, 8), pool=160),
        StageConfig(channels=8, dilations=(1, 1)),
    ),
}


def model(stages: str = "pooled", context: str = "noncausal") -> Recognizer:
    torch.manual_seed(0)
    encoder = EncoderConfig(stages=STAGES[stages], context=context, init="random")  # type: ignore[arg-type]
    found = Recognizer(encoder, Units.characters(["abcdefgh "]), TextConfig()).eval()
    with torch.no_grad():
        for parameter in found.parameters():  # outputs that differ, so that differences show; no zeros
            parameter.mul_(1.5).add_(0.05 * torch.randn_like(parameter))
    return found


def sound(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def fast(plain: Recognizer, folder: Path) -> FastModel:
    """The network as `transcribe` runs it, from its file."""
    save_model(plain, folder / "model.wavasr")
    return FastModel(folder / "model.wavasr")


@pytest.mark.parametrize("context", ["noncausal", "causal"])
@pytest.mark.parametrize("stages", list(STAGES))
@pytest.mark.parametrize("samples", [1, 159, 160, 8_000, 20_123])
def test_it_computes_what_the_network_does(stages: str, context: str, samples: int, tmp_path: Path) -> None:
    plain = model(stages, context)
    batch, lengths = sound(samples)[None], np.array([samples])
    expected, expected_frames = plain.infer(batch, lengths)
    found, frames = fast(plain, tmp_path).infer(batch, lengths)
    assert frames.tolist() == expected_frames.tolist()
    difference = np.abs(np.exp(found) - np.exp(expected))
    assert difference.max() < 0.1 and difference.mean() < 0.01


@pytest.mark.parametrize("stages", list(STAGES))
def test_batch_padding_and_chunks_change_nothing(stages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fast(model(stages), tmp_path)
    waveform = sound(40_000)
    batch = np.full((2, 48_000), np.nan, np.float32)
    batch[0, :40_000], batch[1, :9_001] = waveform, sound(9_001, 1)
    together, frames = found.infer(batch, np.array([40_000, 9_001]))
    alone, _ = found.infer(waveform[None], np.array([40_000]))
    assert np.abs(together[0, : frames[0]] - alone[0]).max() < 1e-4
    assert np.abs(together[1, : frames[1]] - found.infer(sound(9_001, 1)[None], np.array([9_001]))[0][0]).max() < 1e-4
    monkeypatch.setattr("wavasr.recognition.chunks.CHUNK_S", 0.5)
    assert np.abs(log_probs_of(found, waveform) - alone[0]).max() < 1e-4


def test_no_samples_no_frames(tmp_path: Path) -> None:
    network = fast(model(), tmp_path)
    found, frames = network.infer(np.zeros((1, 0), np.float32), np.array([0]))
    assert found.shape == (1, 0, len(network.units))
    assert frames.tolist() == [0]


def test_it_is_the_model_of_the_file(tmp_path: Path) -> None:
    plain = model()
    plain.metadata = {"best": {"dev_wer": 0.5}}
    found = fast(plain, tmp_path)
    facts = found.facts()
    assert facts == plain.facts()._replace(device=facts.device)
    assert facts.device.startswith("cpu, onnxruntime ") and facts.device.endswith(", int8")
    assert (found.units, found.text, found.metadata) == (plain.units, plain.text, plain.metadata)
    assert (found.hop_samples, found.sample_rate, found.receptive_field) == (160, 16000, plain.receptive_field)
    assert found.file == tmp_path / "model.wavasr"


def test_the_shipped_model_hears_what_torch_hears(shared_data: Path) -> None:
    """Nearly to the label, on real speech."""
    plain, found = load_model("default"), FastModel("default")
    assert found.facts().sha256 == plain.facts().sha256
    texts: list[list[str]] = []
    waveforms = [load_audio(u.audio) for u in read_manifest(shared_data / "an4" / "train.jsonl")[:200:20]]
    for network in (plain, found):
        texts.append([network.units.decode(greedy(log_probs_of(network, waveform)).ids) for waveform in waveforms])
    assert cer(*texts).rate < 0.05


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("output.bias"), "output.bias"),
        (lambda w: w.update({"output.bias": w["output.bias"][:-1]}), r"output.bias is \(8,\), expected \(9,\)"),
        (lambda w: w.update({"else": w["output.bias"].clone()}), "else has no place in the encoder"),
    ],
)
def test_weights_that_do_not_fit_the_header(
    change: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = model()
    weights = dict(plain.state_dict())
    change(weights)
    monkeypatch.setattr(plain, "state_dict", lambda: weights)
    with pytest.raises(ModelError, match=rf"bad.wavasr: its header and weights do not make a model \(.*{said}"):
        save_model(plain, tmp_path / "bad.wavasr")
    assert not (tmp_path / "bad.wavasr").exists()


def test_a_device_that_onnxruntime_lacks_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "CUDAExecutionProvider" in session.load_onnxruntime().get_available_providers():
        pytest.skip("it has CUDA here")
    save_model(model(), tmp_path / "model.wavasr")
    assert main(["transcribe", "--device", "cuda", "--model", str(tmp_path / "model.wavasr"), "talk.wav"]) == 2
    said = capsys.readouterr().err
    assert "device cuda: this onnxruntime has no CUDAExecutionProvider, but " in said and "onnxruntime-gpu" in said
    assert said.count("\n") == 1


class FakeRuntime:
    """Of onnxruntime what chooses a provider; `loads` is which can be loaded."""

    SessionOptions = type("SessionOptions", (), {"add_session_config_entry": lambda *arguments: None})

    def __init__(self, *loads: str) -> None:
        self.loads = loads

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, graph: bytes, options: Any, providers: list[str], **more: int) -> Any:  # noqa: N802
        used = [name for name in providers if name in self.loads]
        return type("Session", (), {"get_providers": lambda self: used})()


def test_cuda_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_limit_memory", lambda: None)
    for device, providers in {
        "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
        "cpu": ["CPUExecutionProvider"],
    }.items():
        monkeypatch.setattr(session, "load_onnxruntime", lambda: FakeRuntime(*session.PROVIDERS.values()))
        assert session.new_session(b"", "model", device=device)._session.get_providers() == providers
    monkeypatch.setattr(session, "load_onnxruntime", lambda: FakeRuntime("CPUExecutionProvider"))
    with pytest.raises(ConfigError, match="CUDAExecutionProvider cannot be loaded; are CUDA and cuDNN installed"):
        session.new_session(b"", "model", device="cuda")


def test_cuda_computes_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(session.PROVIDERS, "cuda", "CPUExecutionProvider")  # the same graph, where it can run
    plain = model()
    save_model(plain, tmp_path / "model.wavasr")
    exact = FastModel(tmp_path / "model.wavasr", "cuda")
    samples, lengths = sound(8_000)[None], np.array([8_000])
    np.testing.assert_allclose(exact.infer(samples, lengths)[0], plain.infer(samples, lengths)[0], atol=1e-4)
    assert exact.facts().device.startswith("cuda, onnxruntime ") and exact.facts().device.endswith("float32")


def test_a_graph_that_fails_at_some_length_is_one_line() -> None:
    class Damaged:
        def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
            raise RuntimeError("Non-zero status code\nwhile running Concat node")

    with pytest.raises(ModelError, match=r"m\.wavasr: onnxruntime cannot run it \(Non-zero status code while"):
        session.Session(Damaged(), "m.wavasr").run(["log_probs"], {})


def test_a_graph_gets_a_gibibyte_at_most() -> None:
    size = [helper.make_tensor_value_info("size", TensorProto.INT64, [1])]
    zeros = [helper.make_tensor_value_info("zeros", TensorProto.FLOAT, ["N"])]
    graph = helper.make_graph([helper.make_node("ConstantOfShape", ["size"], ["zeros"])], "graph", size, zeros)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    asking = session.new_session(content, "m.wavasr")
    assert asking.run(["zeros"], {"size": np.array([1000])})[0].shape == (1000,)
    with pytest.raises(ModelError, match=r"m\.wavasr: .*it asks for more than 1024 MiB at once\); make the model file"):
        asking.run(["zeros"], {"size": np.array([(1 << 28) + 1])})  # of four bytes each
    assert asking.run(["zeros"], {"size": np.array([10])})[0].shape == (10,)
