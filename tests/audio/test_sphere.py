"""SPHERE files whose line ends a copy has changed are read as they were recorded."""

from pathlib import Path

import numpy as np
import pytest

from wavasr.audio.container import sphere_fields
from wavasr.audio.reading import load_audio
from wavasr.audio.sphere import mended

RATE = 16000


def sphere(samples: np.ndarray, big_endian: bool = False) -> tuple[bytes, bytes]:
    """Header and samples of a recording."""
    fields = (
        f"NIST_1A\n   1024\nsample_count -i {len(samples)}\nsample_rate -i {RATE}\nchannel_count -i 1\n"
        f"sample_n_bytes -i 2\nsample_byte_format -s2 {'10' if big_endian else '01'}\nsample_sig_bits -i 16\nend_head\n"
    )
    return fields.encode().ljust(1024), samples.astype(">i2" if big_endian else "<i2").tobytes()


def lost(path: Path) -> int:
    """How many bytes a file is shorter than its header says."""
    content = path.read_bytes()
    return 1024 + 2 * int(sphere_fields(content[:1024])["sample_count"]) - len(content)


def speech(seed: int, big_endian: bool, line_ends: int) -> np.ndarray:
    """Smooth int16 samples with no byte 13 but in so many "\\r\\n", far from each other."""
    rng = np.random.default_rng(seed)
    smooth = np.convolve(rng.standard_normal(20_000), np.hanning(30), "same")
    samples = np.round(1500 * smooth / smooth.std()).astype(int)
    pair = int.from_bytes(b"\r\n", "big" if big_endian else "little")  # a sample that is "\r\n"
    odd = [(value & 255) == 13 or (value >> 8) & 255 == 13 for value in samples.tolist()]
    samples[odd] += 1  # 14, or
    samples[[(value >> 8) & 255 == 13 for value in samples.tolist()]] = 0x0E00
    near = np.flatnonzero(np.abs(samples - pair) < 150)
    places = near[:: max(1, len(near) // max(1, line_ends))][:line_ends]
    samples[places] = pair
    return samples


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("line_ends", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_lost_bytes_are_put_back(seed: int, line_ends: int, big_endian: bool, tmp_path: Path) -> None:
    samples = speech(seed, big_endian, line_ends)
    header, data = sphere(samples, big_endian)
    assert data.count(b"\r") == data.count(b"\r\n") == line_ends
    path = tmp_path / "copied.wav"
    path.write_bytes(header + data.replace(b"\r\n", b"\n"))
    assert np.array_equal(load_audio(path, RATE), samples.astype(np.float32) / 32768)


def test_what_is_whole_or_otherwise_damaged_stays_as_it_is() -> None:
    samples = speech(0, False, 0)
    header, data = sphere(samples)
    assert mended(header + data, 0) is None
    assert mended(header + data[:-6], 6) is None  # the last samples are missing
    with_return = data.replace(b"\n", b"\r", 1)
    assert mended(header + with_return[:5001] + with_return[5002:], 1) is None  # no line ends were changed: a "\r"
    assert mended(b"RIFF" + data, 1) is None


def test_the_timit_sample_is_as_its_headers_say(shared_data: Path) -> None:
    """The headers tell the loudest sample; where it was lost with its byte, smoothness brought it back."""
    damaged = [path for path in sorted((shared_data / "timit-sample").rglob("*.WAV")) if lost(path)]
    assert len(damaged) >= 30
    exact = 0
    for path in damaged:
        fields = sphere_fields(path.read_bytes()[:1024])
        samples = np.round(load_audio(path, RATE) * 32768)
        assert len(samples) == int(fields["sample_count"])
        exact += samples.min() == int(fields["sample_min"]) and samples.max() == int(fields["sample_max"])
    assert exact >= len(damaged) - 1
