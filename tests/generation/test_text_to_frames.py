"""The network from phones to frames: NumPy's answer is torch's; durations, pitch and rate do what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from wavasr.errors import ConfigError
from wavasr.generation.text_to_frames import Speech, SpeechScale, places_in
from wavasr.network.config import PHONE_PLACES, SpeechConfig
from wavasr.network.text_to_frames import TextToFrames

CONFIG = SpeechConfig(
    phones=("sil", "A", "B", "C"), channels=8, layers=2, frame_channels=12, pitch_dilations=(1, 2),
    mel_dilations=(1, 2, 4), bands=5, speakers=("x", "y"),
)  # fmt: skip
SCALE = SpeechScale(np.zeros(5, np.float32), np.ones(5, np.float32), 4.5, 0.2)


@pytest.fixture
def network() -> TextToFrames:
    torch.manual_seed(0)
    made = TextToFrames(CONFIG).eval()
    with torch.no_grad():
        made.duration.bias.fill_(1.5)
    return made


def speech(network: TextToFrames, scale: SpeechScale = SCALE) -> Speech:
    return Speech(CONFIG, {name: values.numpy() for name, values in network.state_dict().items()}, scale)


PHONES = np.array([0, 1, 2, 3, 3, 1, 0])
PLACES = np.random.default_rng(0).random((7, PHONE_PLACES)).astype(np.float32)


def test_numpy_equals_torch(network: TextToFrames) -> None:
    found = speech(network)(PHONES, PLACES, speaker=1)
    indices, within = places_in(found.durations)
    pitch = np.stack([(found.log_lag - SCALE.log_lag_mean) / SCALE.log_lag_scale, found.voicing])
    with torch.no_grad():
        said = network(
            torch.from_numpy(PHONES)[None],
            torch.from_numpy(PLACES)[None],
            torch.tensor([len(PHONES)]),
            torch.from_numpy(indices)[None],
            torch.from_numpy(within)[None],
            torch.tensor([len(indices)]),
            torch.from_numpy(pitch.astype(np.float32))[None],
            torch.tensor([1]),
        )
    assert found.durations.sum() == pytest.approx(said.log_durations.exp().sum().item(), abs=1)
    np.testing.assert_allclose(found.log_mel, said.mel[0].T, atol=1e-4)
    np.testing.assert_allclose(pitch[0], said.pitch[0, 0], atol=1e-4)
    np.testing.assert_allclose(pitch[1], said.pitch[0, 1].clamp(0, 1), atol=1e-4)


def test_padding_changes_nothing(network: TextToFrames) -> None:
    def said(extra: int) -> list[torch.Tensor]:
        durations = np.array([3, 2, 4, 1, 2, 3, 5])
        indices, within = places_in(durations)
        pad = torch.nn.functional.pad
        with torch.no_grad():
            found = network(
                pad(torch.from_numpy(PHONES)[None], (0, extra)),
                pad(torch.from_numpy(PLACES)[None], (0, 0, 0, extra)),
                torch.tensor([7]),
                pad(torch.from_numpy(indices)[None], (0, extra)),
                pad(torch.from_numpy(within)[None], (0, extra)),
                torch.tensor([20]),
                torch.zeros(1, 2, 20 + extra),
                torch.tensor([0]),
            )
        return [found.log_durations[:, :7], found.pitch[..., :20], found.mel[..., :20]]

    for one, other in zip(said(0), said(9), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_rate_and_pitch(network: TextToFrames) -> None:
    usual = speech(network)(PHONES, PLACES)
    fast = speech(network)(PHONES, PLACES, rate=2.0)
    assert len(fast.log_mel) == pytest.approx(len(usual.log_mel) / 2, abs=2)
    high = speech(network)(PHONES, PLACES, semitones=12.0)
    np.testing.assert_allclose(high.log_lag, usual.log_lag - np.log(2), atol=1e-5)


def test_spreads_widen_the_melody_and_the_spectrum(network: TextToFrames) -> None:
    usual = speech(network)(PHONES, PLACES)
    scale = SpeechScale(SCALE.mel_mean, SCALE.mel_scale, 4.5, 0.2, 1.5, 2.0, np.full(5, 1.25, np.float32))
    wide = speech(network, scale)(PHONES, PLACES)
    assert len(wide.log_mel) == pytest.approx(1.5 * len(usual.log_mel), abs=2)
    melodic = speech(network, replace(SCALE, pitch_spread=2.0))(PHONES, PLACES)
    np.testing.assert_allclose(melodic.log_lag - 4.5, 2 * (usual.log_lag - 4.5), atol=1e-5)  # about the mean of all


def test_places_in_phones() -> None:
    indices, within = places_in(np.array([2, 1]))
    assert indices.tolist() == [0, 0, 1]
    np.testing.assert_allclose(within[0], [0.25, 0.75, 0.5])


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="kernel is 4"):
        SpeechConfig(kernel=4)
    with pytest.raises(ConfigError, match="dropout is 1"):
        SpeechConfig(dropout=1.0)


def test_pitch_reaches_the_vocoder_in_samples() -> None:
    """What is taken from a recording as log lag comes out as its pitch period."""
    from wavasr.generation import reader
    from wavasr.generation.frames import frames_of
    from wavasr.network.config import MEL_BANDS, GeneratorConfig

    config = GeneratorConfig()
    times = np.arange(16000) / 16000
    frames = frames_of((0.1 * np.sign(np.sin(2 * np.pi * 100 * times))).astype(np.float32), config)
    log_lag = float(np.median(frames.features[:, MEL_BANDS + 1]))
    assert np.exp(log_lag) * reader.REFERENCE_LAG == pytest.approx(160, rel=0.02)
    assert np.median(frames.lag_samples) == pytest.approx(160, abs=3)
