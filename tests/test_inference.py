"""The fast network against the plain one, and the same numbers however audio is cut, padded and batched."""

import numpy as np
import pytest
import torch

from wavasr.config import EncoderConfig, StageConfig, TextConfig
from wavasr.inference import FastModel, Precision
from wavasr.model import Recognizer
from wavasr.text import Units
from wavasr.transcribe import log_probs_of

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


@pytest.mark.parametrize("context", ["noncausal", "causal"])
@pytest.mark.parametrize("stages", list(STAGES))
@pytest.mark.parametrize("samples", [1, 159, 160, 8_000, 20_123])
def test_it_computes_what_the_network_does(stages: str, context: str, samples: int) -> None:
    plain = model(stages, context)
    batch, lengths = sound(samples)[None], np.array([samples])
    expected, expected_frames = plain.infer(batch, lengths)
    found, frames = FastModel(plain, "float32").infer(batch, lengths)
    assert frames.tolist() == expected_frames.tolist()
    assert np.abs(found - expected).max() < 1e-4
    near, _ = FastModel(plain, "bfloat16").infer(batch, lengths)
    assert np.abs(np.exp(near) - np.exp(expected)).max() < 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stages", list(STAGES))
def test_batch_padding_tiles_and_chunks_change_nothing(
    stages: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = FastModel(model(stages), precision)
    waveform = sound(40_000)
    batch = np.full((2, 48_000), np.nan, np.float32)
    batch[0, :40_000], batch[1, :9_001] = waveform, sound(9_001, 1)
    together, frames = fast.infer(batch, np.array([40_000, 9_001]))
    alone, _ = fast.infer(waveform[None], np.array([40_000]))
    assert np.abs(together[0, : frames[0]] - alone[0]).max() < 1e-4
    assert np.abs(together[1, : frames[1]] - fast.infer(sound(9_001, 1)[None], np.array([9_001]))[0][0]).max() < 1e-4
    monkeypatch.setattr("wavasr.transcribe.CHUNK_S", 0.5)
    assert np.abs(log_probs_of(fast, waveform) - alone[0]).max() < 1e-4
    monkeypatch.setattr("wavasr.inference._TILE_ROWS", 100)
    monkeypatch.setattr("wavasr.inference._TILE_REACHES", 1)
    assert np.abs(fast.infer(waveform[None], np.array([40_000]))[0] - alone).max() < 1e-4


def test_no_samples_no_frames() -> None:
    fast = FastModel(model())
    found, frames = fast.infer(np.zeros((1, 0), np.float32), np.array([0]))
    assert found.shape == (1, 0, len(fast.units))
    assert frames.tolist() == [0]


def test_reports_say_what_it_computed_in() -> None:
    plain = model()
    fast = FastModel(plain, "bfloat16")
    assert fast.facts() == plain.facts()._replace(device="cpu, bfloat16")
    assert (fast.hop_samples, fast.sample_rate, fast.receptive_field) == (160, 16000, plain.receptive_field)


def test_the_weights_are_those_of_the_time() -> None:
    found = model()
    fast = FastModel(found, "float32")
    waveform, lengths = sound(8000)[None], np.array([8000])
    before, _ = fast.infer(waveform, lengths)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(3)
    after, _ = fast.infer(waveform, lengths)
    assert np.array_equal(before, after)
