"""Measures of generators: what they say of sounds whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavasr.audio.pitch import autocorrelation, track_pitch
from wavasr.evaluation.generation import (
    ReadingResult,
    VocoderResult,
    _warped_mean,
    compare,
    mel_cepstral_distortion,
    melody,
    periodicity,
    spectral_flatness,
    summary,
    write_results,
)

RATE = 16000


def vowel(hz: float, seconds: float = 1.0, seed: int = 0, formant: float = 0.9) -> np.ndarray:
    """Pulses through a resonance, and a little noise."""
    count = round(RATE * seconds)
    pulses = np.diff(np.floor(np.arange(count + 1) * hz / RATE)) - hz / RATE
    sound = np.zeros(count)
    for index in range(2, count):
        sound[index] = pulses[index] + 1.6 * formant * sound[index - 1] - formant**2 * sound[index - 2]
    return (0.1 * sound + 0.002 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def noise(seconds: float = 1.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(9).standard_normal(round(RATE * seconds))).astype(np.float32)


@pytest.mark.parametrize("hz", [70.0, 120.0, 203.0, 380.0])
def test_pitch_of_a_vowel(hz: float) -> None:
    pitch = track_pitch(vowel(hz), RATE, 160)
    assert len(pitch.voicing) == 100
    inner = slice(5, 95)
    assert np.abs(np.log(pitch.hz(RATE)[inner] / hz)).max() < 0.02
    assert pitch.voicing[inner].min() > 0.85


def test_pitch_of_noise_and_silence() -> None:
    assert track_pitch(noise(), RATE, 160).voicing.mean() < 0.5
    silent = track_pitch(np.zeros(1600, np.float32), RATE, 160)
    assert not silent.voicing.any() and np.isfinite(silent.lag_samples).all()
    assert len(track_pitch(np.zeros(100, np.float32), RATE, 160).voicing) == 0


def test_pitch_follows_a_glide() -> None:
    hz = np.linspace(100, 200, RATE)
    sound = np.sign(np.sin(2 * np.pi * np.cumsum(hz) / RATE)).astype(np.float32)
    found = track_pitch(sound, RATE, 160).hz(RATE)
    assert np.abs(np.log(found / hz[80::160]))[5:95].max() < 0.03


def test_autocorrelation_is_the_correlation_of_stretches() -> None:
    windows = np.random.default_rng(0).standard_normal((3, 200)).astype(np.float32)
    found = autocorrelation(windows, 10, 60)
    centred = windows - windows.mean(axis=1, keepdims=True)
    for lag in (10, 33, 60):
        one, other = centred[:, :-lag], centred[:, lag:]
        expected = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
        assert np.allclose(found[:, lag - 10], expected, atol=1e-3)


def test_a_sound_is_like_itself_and_unlike_others() -> None:
    one = vowel(120)
    same = compare(one, vowel(120, seed=1))
    assert same.voiced_frames > 90 and same.pitch_hits == same.voiced_frames
    assert same.synthetic_periodicity / same.voiced_frames > 0.9
    other = compare(one, vowel(150))
    assert other.pitch_hits < 0.1 * other.voiced_frames
    rough = compare(one, noise())
    assert rough.synthetic_periodicity < 0.6 * rough.natural_periodicity


def test_distortion_hears_the_spectrum_not_level_or_timing() -> None:
    one = np.concatenate([vowel(120, 0.5), noise(0.5)])
    assert mel_cepstral_distortion(one, one) == 0
    assert mel_cepstral_distortion(one, 0.3 * one) < 0.1
    slower = np.concatenate([vowel(120, 0.7), noise(0.4)])
    assert mel_cepstral_distortion(one, slower) < 0.5 * mel_cepstral_distortion(one, noise(1.0))


def test_warping_finds_the_cheapest_path() -> None:
    costs = np.random.default_rng(3).random((4, 5))

    def cheapest(i: int, j: int) -> tuple[float, int]:
        if i < 0 or j < 0:
            return np.inf, 0
        if i == j == 0:
            return float(costs[0, 0]), 1
        total, steps = min(cheapest(i - 1, j - 1), cheapest(i - 1, j), cheapest(i, j - 1))
        return total + float(costs[i, j]), steps + 1

    total, steps = cheapest(3, 4)
    assert _warped_mean(costs) == pytest.approx(total / steps)


def test_flatness_and_periodicity_tell_tones_from_noise() -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    assert spectral_flatness(tone) < 1e-3 and 0.5 < spectral_flatness(noise()) < 0.62
    assert periodicity(tone, RATE) > 0.95 and periodicity(noise(), RATE) < 0.5


def test_results_become_a_file_and_lines(tmp_path: Path) -> None:
    results = [VocoderResult(3, 9.0, 7.25, 0.951, 0.83, 0.91, 3.26), ReadingResult(2, 4.0, 1.02, 3.1, 3.3)]
    path = write_results(results, tmp_path / "new", "voice")
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["vocoder"]["mcd_db"] == 3.26 and figures["reading"]["texts"] == 2
    said = summary(results)
    assert "95.1 %" in said and "(natural 0.910)" in said and "3.10 st (natural 3.30 st)" in said


@pytest.mark.parametrize("hz", [110.0, 220.0])
def test_the_melody_is_in_semitones(hz: float) -> None:
    steps = melody(np.concatenate([vowel(hz), vowel(hz * 2 ** (3 / 12)), noise()]), RATE)
    assert 150 < len(steps) < 230 and abs(steps.std() - 1.5) < 0.1


def test_natural_speech_is_voiced(shared_data: Path) -> None:
    path = sorted((shared_data / "kathleen" / "audio").glob("*.opus"))[0]
    sound, rate = soundfile.read(path, dtype="float32")
    assert 0.5 < periodicity(sound[::3].copy() if rate == 48000 else sound, 16000) < 1
