"""Augmentation: what each effect promises, in numbers; the same seed gives the same samples."""

import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavasr.audio import augment
from wavasr.audio.augment import Augmenter
from wavasr.audio.config import AugmentConfig
from wavasr.audio.reading import load_audio
from wavasr.errors import ConfigError

RATE = 16000


def noise(samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def tone(seconds: float, hz: float, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def power(samples: np.ndarray) -> float:
    return float(np.mean(samples.astype(np.float64) ** 2))


def band_power(samples: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(spectrum[(hz >= low_hz) & (hz < high_hz)].mean())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two noises (one short, between zeros, at another rate) in subfolders, and two impulse responses."""
    noises, rooms = tmp_path / "noises", tmp_path / "rooms"
    (noises / "inner").mkdir(parents=True)
    rooms.mkdir()
    soundfile.write(noises / "long.wav", noise(RATE * 4, 1), RATE)
    padded = np.concatenate([np.zeros(2000), noise(4410, 2), np.zeros(20000)])
    soundfile.write(noises / "inner" / "short.flac", padded, 44100)
    for i, decay_s in enumerate((0.02, 0.2)):
        echo = noise(RATE // 2, i, 0.05) * np.exp(-np.arange(RATE // 2) / decay_s / RATE)
        soundfile.write(rooms / f"{i}.wav", np.concatenate([np.zeros(100 + 50 * i), [0.9], echo]), RATE)
    return noises, rooms


def full_config(folders: tuple[Path, Path]) -> AugmentConfig:
    return AugmentConfig(
        speed=(0.9, 1.1),
        gain_db=(-20.0, 10.0),
        noise_dir=folders[0],
        noise_probability=0.7,
        room_dir=folders[1],
        room_probability=0.7,
        time_masks=2.0,
        band_masks=2,
        equaliser_db=6.0,
        telephone_probability=0.3,
    )


def test_the_seed_decides_everything(folders: tuple[Path, Path]) -> None:
    config = full_config(folders)
    x = noise(RATE)
    before = x.copy()
    first, other = Augmenter(config, RATE), pickle.loads(pickle.dumps(Augmenter(config, RATE)))
    made = [first(x, np.random.default_rng(seed)) for seed in range(12)]
    again = [other(x, np.random.default_rng(seed)) for seed in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert len({a.tobytes() for a in made}) == 12
    assert all(a.dtype == np.float32 and a.ndim == 1 and np.isfinite(a).all() for a in made)
    assert np.array_equal(x, before), "the input is left as it is"


def test_without_effects_nothing_changes() -> None:
    x = noise(1000)
    assert np.array_equal(Augmenter(AugmentConfig(), RATE)(x, np.random.default_rng(0)), x)


@pytest.mark.parametrize("samples", [1, 2, 50])
def test_the_shortest_input(samples: int, folders: tuple[Path, Path]) -> None:
    augmenter = Augmenter(full_config(folders), RATE)
    for seed in range(20):
        for x in (noise(samples), np.zeros(samples, dtype=np.float32)):
            y = augmenter(x, np.random.default_rng(seed))
            assert len(y) >= 1 and np.isfinite(y).all()


@pytest.mark.parametrize("factor", [0.9, 1.0 / 1.1, 1.0, 1.037, 1.1])
def test_speed_changes_duration_and_pitch_by_the_factor(factor: float) -> None:
    y = augment.change_speed(tone(2.0, 1000.0), factor)
    assert len(y) == pytest.approx(2 * RATE / factor, abs=1)
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y)), 1 << 18))
    assert np.argmax(spectrum) * RATE / (1 << 18) == pytest.approx(1000.0 * factor, rel=1e-3)
    assert power(y[1000:-1000]) == pytest.approx(0.3**2 / 2, rel=1e-2)


def test_faster_speech_does_not_alias() -> None:
    assert power(augment.change_speed(tone(1.0, 7900.0), 1.1)[500:-500]) < 1e-6


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.5, 40.0])
def test_noise_is_at_the_ratio_asked_for(snr_db: float) -> None:
    x, n = tone(1.0, 500.0), noise(RATE, 1, 3.0)
    added = augment.add_noise(x, n, snr_db).astype(np.float64) - x
    assert 10 * math.log10(power(x) / power(added)) == pytest.approx(snr_db, abs=0.05)
    assert np.corrcoef(added, n)[0, 1] > 0.99


def test_silence_has_no_ratio() -> None:
    silence = np.zeros(100, dtype=np.float32)
    assert np.array_equal(augment.add_noise(silence, noise(100), 10), silence)
    assert np.array_equal(augment.add_noise(noise(100), silence, 10), noise(100))


def test_noise_shelf_crops_repeats_and_reads_once(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    monkeypatch.setattr(augment, "load_audio", lambda path, rate: reads.append(path) or load_audio(path, rate))
    shelf = Augmenter(full_config(folders), RATE).noises
    rng = np.random.default_rng(0)
    for count in (10, 1600, RATE, 5 * RATE, 100_000):
        for _ in range(4):
            crop = shelf.draw(count, rng)
            assert crop.shape == (count,) and power(crop) > (1e-4 if count > 10 else 0)
    assert sorted(path.name for path in reads) == ["long.wav", "short.flac"]


def test_noise_shelf_forgets_beyond_its_limit(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_NOISE_CACHE_SAMPLES", 1000)
    shelf = Augmenter(full_config(folders), RATE).noises
    for seed in range(10):
        shelf.draw(100, np.random.default_rng(seed))
    assert len(shelf._kept) == 1


def test_a_broken_noise_is_replaced_and_named(folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    (folders[0] / "broken.wav").write_bytes(b"not audio")
    shelf = Augmenter(full_config(folders), RATE).noises
    assert all(len(shelf.draw(10, np.random.default_rng(seed))) == 10 for seed in range(20))
    assert caplog.text.count("broken.wav") == 1


def test_folders_without_recordings(tmp_path: Path) -> None:
    for config, message in (
        (AugmentConfig(noise_dir=tmp_path / "gone"), r"augment\.noise_dir: .*is no folder"),
        (AugmentConfig(room_dir=tmp_path), r"augment\.room_dir: .*holds no recordings"),
    ):
        with pytest.raises(ConfigError, match=message):
            Augmenter(config, RATE)
    (tmp_path / "bad.wav").write_bytes(b"text")
    with pytest.raises(ConfigError, match="none of 1 files can be read"):
        Augmenter(AugmentConfig(noise_dir=tmp_path), RATE).noises.draw(5, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="none of 1 files is an impulse response"):
        _ = Augmenter(AugmentConfig(room_dir=tmp_path), RATE).rooms


def test_rooms_are_convolved_in_time_and_at_the_same_power(folders: tuple[Path, Path]) -> None:
    rooms = Augmenter(full_config(folders), RATE).rooms
    x = noise(RATE) * np.repeat([1.0, 0.0, 1.0, 0.2], RATE // 4).astype(np.float32)
    for room in rooms:
        assert np.argmax(np.abs(room)) == 0 and power(room) * len(room) == pytest.approx(1.0)
        wet = augment.add_room(x, room)
        exact = np.convolve(x.astype(np.float64), room.astype(np.float64))[: len(x)]
        exact *= math.sqrt(power(x) / power(exact))
        assert np.allclose(wet, exact, atol=1e-5)
        assert len(wet) == len(x) and power(wet) == pytest.approx(power(x), rel=1e-4)
        lag = int(np.argmax(np.correlate(wet[:4000], x[:4000], "full"))) - 3999
        assert lag == 0, "the direct sound stays in time"


def test_what_is_no_impulse_response_is_left_out(folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(folders[1] / "music.wav", noise(RATE), RATE)
    soundfile.write(folders[1] / "silence.wav", np.zeros(RATE), RATE)
    assert len(Augmenter(full_config(folders), RATE).rooms) == 2
    assert "music.wav" in caplog.text and "silence.wav" in caplog.text and "0.wav" not in caplog.text


def test_real_rooms(shared_data: Path) -> None:
    files = sorted((shared_data / "rir").glob("*.flac"))
    kept = augment.read_rooms(files, RATE)
    assert len(kept) == 11
    assert {path.name[:6] for path in files if augment._trimmed_room(load_audio(path), RATE) is None} <= {
        *("data_c", "data_r", "data_x", "sfa_no", "sfa_xm")
    }


def test_equaliser_gives_each_part_of_the_spectrum_its_gain() -> None:
    x = noise(8 * RATE)
    gains = np.array([-6.0, 0.0, 6.0, -3.0])
    y = augment.equalise(x, gains, RATE)
    assert len(y) == len(x) and power(y) == pytest.approx(power(x), rel=1e-5)
    hz = augment.mel_to_hz(np.linspace(0.0, float(augment.hz_to_mel(RATE / 2)), 4))
    found = [
        10 * math.log10(band_power(y, at - 40, at + 40) / band_power(x, at - 40, at + 40))
        for at in (50.0, hz[1], hz[2], RATE / 2 - 50)
    ]
    assert np.array(found) - found[1] == pytest.approx(gains - gains[1], abs=0.5)
    # No delay: a click stays where it was, nearly all of it within 5 ms.
    click = np.zeros(RATE, dtype=np.float32)
    click[5000] = 1.0
    filtered = augment.equalise(click, gains, RATE)
    assert np.argmax(np.abs(filtered)) == 5000 and power(filtered[4920:5081]) * 161 > 0.99 * power(filtered) * RATE
    assert np.array_equal(augment.equalise(np.zeros(99, np.float32), gains, RATE), np.zeros(99))


def test_telephone_keeps_its_band_and_level() -> None:
    y = augment.telephone(noise(4 * RATE), RATE)
    assert len(y) == 4 * RATE
    inside = band_power(y, 500, 3000)
    assert inside == pytest.approx(band_power(noise(4 * RATE), 500, 3000), rel=0.1)
    assert band_power(y, 0, 200) < 0.01 * inside and band_power(y, 3600, 3900) < 0.01 * inside
    assert band_power(y, 4200, 8000) < 1e-4 * inside
    voice = tone(1.0, 1000.0)
    filtered = augment.telephone(voice, RATE)
    assert 30 < 10 * math.log10(power(voice) / power((filtered - voice)[800:-800])) < 45, "8-bit mu-law: about 38 dB"
    assert len(augment.telephone(noise(4001), 8000)) == 4001


def test_gain_is_within_its_limits() -> None:
    augmenter = Augmenter(AugmentConfig(gain_db=(-12.0, 6.0)), RATE)
    gains = [
        10 * math.log10(power(augmenter(noise(99), np.random.default_rng(s))) / power(noise(99))) for s in range(200)
    ]
    assert -12.01 <= min(gains) < -10 and 4 < max(gains) <= 6.01


def test_time_masks_are_silent_few_and_short() -> None:
    config = AugmentConfig(time_masks=2.0, time_mask_s=0.1)
    counts = []
    for seed in range(200):
        spans = augment.draw_time_masks(config, 3 * RATE, RATE, np.random.default_rng(seed))
        assert all(0 <= first <= end <= 3 * RATE and end - first <= 1600 for first, end in spans)
        counts.append(len(spans))
    assert max(counts) == 6 and min(counts) == 0 and np.mean(counts) == pytest.approx(3, abs=0.5)
    x = np.ones(RATE, dtype=np.float32)
    y = augment.mask_times(x, [(1000, 2000)], RATE)
    assert np.all(y[:1000] == 1) and np.all(y[2000:] == 1) and np.all(y[1032:1968] == 0)
    assert np.abs(np.diff(y)).max() < 0.06, "no clicks"
    rare = AugmentConfig(time_masks=0.2)
    drawn = [len(augment.draw_time_masks(rare, RATE, RATE, np.random.default_rng(s))) for s in range(500)]
    assert 0 < np.mean(drawn) < 0.2


@pytest.mark.parametrize("band", [(500.0, 700.0), (2000.0, 3500.0), (0.0, 300.0), (7000.0, 8000.0)])
def test_a_masked_band_is_gone_and_nothing_else(band: tuple[float, float]) -> None:
    x = noise(2 * RATE)
    y = augment.mask_bands(x, [band], RATE)
    low, high = band
    edge = min(60.0, (high - low) / 4)
    inner = (low + edge if low > 0 else 0, high - edge if high < 8000 else 8000)
    assert band_power(y, *inner) < 1e-3 * band_power(x, *inner)
    hz = np.fft.rfftfreq(len(x), 1 / RATE)
    outside = (hz < low - 10) | (hz > high + 10)
    before, after = (np.fft.rfft(z * np.hanning(len(z)))[outside] for z in (x, y))
    assert np.abs(after - before).max() < 0.02 * np.abs(before).mean()


def test_bands_are_drawn_evenly_on_the_mel_scale() -> None:
    config = AugmentConfig(band_masks=3, band_mask_mel=0.2)
    bands = [b for s in range(500) for b in augment.draw_band_masks(config, RATE, np.random.default_rng(s))]
    assert len(bands) / 500 == pytest.approx(1.5, abs=0.15)
    mels = augment.hz_to_mel(np.array(bands)) / augment.hz_to_mel(8000)
    assert mels.min() >= 0 and mels.max() <= 1 and (mels[:, 1] - mels[:, 0]).max() <= 0.2
    assert mels.mean() == pytest.approx(0.5, abs=0.05)


def test_probabilities_are_those_asked_for(folders: tuple[Path, Path]) -> None:
    x = noise(400)
    for key, value in (("noise_probability", 0.3), ("room_probability", 0.6), ("telephone_probability", 0.2)):
        zero = {"noise_probability": 0.0, "room_probability": 0.0, "telephone_probability": 0.0}
        plain = AugmentConfig(noise_dir=folders[0], room_dir=folders[1], **zero)
        augmenter = Augmenter(dataclasses.replace(plain, **{key: value}), RATE)
        changed = [not np.array_equal(augmenter(x, np.random.default_rng(s)), x) for s in range(400)]
        assert np.mean(changed) == pytest.approx(value, abs=0.08)


def test_fast_lengths() -> None:
    for count in [1, 2, 3, 7, 11, 97, 1000, 1023, 16001, 160_001, 1_000_003]:
        length = augment.fast_length(count)
        assert count <= length <= 1.2 * count + 2 and length % 2 == 0
        for prime in (2, 3, 5):
            while length % prime == 0:
                length //= prime
        assert length == 1
