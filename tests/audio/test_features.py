"""The views of recordings that networks see and predict: against torchaudio and what was put in."""

import math

import numpy as np
import pytest
import torch
import torchaudio

from wavasr.audio.features import (
    band_filters,
    hz_to_mel,
    log_mel,
    mel_filters,
    mel_to_hz,
    mu_law_decode,
    mu_law_encode,
    spectrogram,
)


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_mu_law_is_its_formula(levels: int) -> None:
    x, mu = np.linspace(-1, 1, 4001, dtype=np.float32), levels - 1
    companded = np.sign(x) * np.log1p(mu * np.abs(x).astype(float)) / math.log1p(mu)
    classes = mu_law_encode(torch.from_numpy(x), levels)
    edges = np.abs((companded + 1) / 2 * mu % 1 - 0.5) < 1e-4  # which rounding decides
    assert classes.dtype == torch.int64
    assert np.array_equal(classes.numpy()[~edges], np.round((companded + 1) / 2 * mu)[~edges])
    decoded = mu_law_decode(classes, levels)
    centres = classes.numpy() / mu * 2 - 1
    expected = np.sign(centres) * np.expm1(np.abs(centres) * math.log1p(mu)) / mu
    assert decoded.dtype == torch.float32 and np.allclose(decoded, expected, atol=1e-6)
    assert torch.equal(mu_law_encode(decoded, levels), classes)


def test_mu_law_beyond_full_scale_and_its_precision() -> None:
    assert mu_law_encode(torch.tensor([-7.0, 0.0, 7.0])).tolist() == [0, 128, 255]
    x = torch.linspace(-1, 1, 999)
    error = (mu_law_decode(mu_law_encode(x)) - x).abs()
    assert error.max() < 0.025 and error[x.abs() < 0.01].max() < 4e-4


def test_log_mel_is_that_of_torchaudio() -> None:
    x = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    reference = torchaudio.transforms.MelSpectrogram(16000, 512, 400, 160, n_mels=80, center=False)
    padded = torch.nn.functional.pad(x, (176, 512))
    expected = torch.log(reference(padded)[..., :100] + 1e-6)
    assert log_mel(x, 16000).shape == (2, 80, 100)
    assert torch.allclose(log_mel(x, 16000), expected, atol=1e-3)


def test_frames_lie_in_the_middle_of_their_hop() -> None:
    x = torch.zeros(1, 1600)
    x[0, 5 * 160 + 80] = 1.0  # an impulse in the middle of hop 5
    energy = spectrogram(x, 16000).sum(dim=1)[0]
    assert energy.shape == (10,) and int(energy.argmax()) == 5
    assert energy[4] == pytest.approx(float(energy[6]), rel=0.05)


def test_log_mel_is_differentiable_and_takes_short_input() -> None:
    x = torch.randn(1, 1000, requires_grad=True)
    log_mel(x, 16000).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad[0, :960].abs().min() > 0
    assert log_mel(torch.zeros(3, 100), 16000).shape == (3, 80, 0)
    assert log_mel(torch.zeros(1, 160), 16000)[0, 0, 0] == pytest.approx(math.log(1e-6), abs=1e-4)


def test_band_filters_pass_their_band_whatever_the_phase() -> None:
    bands, window, rate = 48, 400, 16000
    filters = band_filters(bands, window, rate)
    assert filters.shape == (2 * bands, window) and filters.dtype == np.float32
    assert np.allclose(np.linalg.norm(filters, axis=1), 1.0, atol=1e-5)
    edges = mel_to_hz(np.linspace(hz_to_mel(60.0), hz_to_mel(0.48 * rate), bands + 2))
    times = np.arange(window) / rate
    for band in (0, 10, 25, 47):
        powers = []
        for phase in (0.0, 0.7, 1.9):
            response = filters @ np.cos(2 * np.pi * edges[band + 1] * times + phase)
            powers.append((response**2).reshape(bands, 2).sum(axis=1))
            assert np.argmax(powers[-1]) == band
            assert (
                powers[-1][[other for other in range(bands) if abs(other - band) > 3]].max() < 0.01 * powers[-1][band]
            )
        assert np.ptp([power[band] for power in powers]) < 0.05 * powers[0][band]


def test_mel_scale() -> None:
    assert float(mel_to_hz(hz_to_mel(1234.5))) == pytest.approx(1234.5)
    assert float(hz_to_mel(1000.0)) == pytest.approx(1000.0, abs=0.1)
    theirs = torchaudio.functional.melscale_fbanks(257, 0.0, 8000.0, 40, 16000).T.numpy()
    assert np.allclose(mel_filters(16000, 512, 40), theirs, atol=1e-5)
