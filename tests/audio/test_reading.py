"""Reading recordings: against soundfile and what was written."""

import io
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavasr.audio import track
from wavasr.audio.reading import audio_duration_s, load_audio, stream_audio
from wavasr.errors import AudioError

FORMATS = [
    ("wav", "WAV", "PCM_U8"),
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_32"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "DOUBLE"),
    ("wav", "WAV", "ULAW"),
    ("wav", "RF64", "PCM_16"),
    ("w64", "W64", "PCM_16"),
    ("aiff", "AIFF", "PCM_16"),
    ("au", "AU", "PCM_16"),
    ("caf", "CAF", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("flac", "FLAC", "PCM_24"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("sph", "NIST", "PCM_16"),
    ("sph", "NIST", "ULAW"),
]


def tone(seconds: float, rate: int, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def peak_hz(samples: np.ndarray, rate: int) -> float:
    windowed = samples * np.hanning(len(samples))
    return float(np.argmax(np.abs(np.fft.rfft(windowed))) * rate / len(samples))


def written(folder: Path, extension: str, samples: np.ndarray, rate: int, kind: str = "WAV", code: str = "") -> Path:
    path = folder / f"sound.{extension}"
    soundfile.write(path, samples, rate, code or None, format=kind)
    return path


@pytest.mark.parametrize(("extension", "kind", "code"), FORMATS)
def test_every_format_gives_the_sound_that_was_written(extension: str, kind: str, code: str, tmp_path: Path) -> None:
    sound = tone(1.0, 16000)
    path = written(tmp_path, extension, sound, 16000, kind, code)
    read = load_audio(path, 16000)
    assert read.dtype == np.float32 and len(read) == 16000
    assert np.sqrt(np.mean((read - sound)[800:-800] ** 2)) < (0.02 if extension in ("ogg", "opus", "mp3") else 0.008)
    assert audio_duration_s(path) == pytest.approx(1.0, abs=1e-3)
    assert np.array_equal(load_audio(path.read_bytes()), read)
    part = load_audio(path, 16000, offset_s=0.25, duration_s=0.5)
    assert len(part) == 8000
    # A resampler that begins there does not know what came before.
    assert np.abs(part - read[4000:12000]).max() < (0.01 if extension == "opus" else 2e-3)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_every_rate_keeps_pitch_and_duration(rate: int, tmp_path: Path) -> None:
    path = written(tmp_path, "wav", tone(2.0, rate, 1000.0), rate, code="FLOAT")
    read = load_audio(path, 16000)
    assert abs(len(read) - 32000) <= 1
    assert peak_hz(read, 16000) == pytest.approx(1000.0, abs=0.6)
    assert np.abs(read - tone(2.0, 16000, 1000.0)[: len(read)])[500:-500].max() < 1e-3


def test_what_the_lower_rate_cannot_carry_is_filtered_out(tmp_path: Path) -> None:
    path = written(tmp_path, "wav", tone(1.0, 44100, 12000.0), 44100)
    assert np.abs(load_audio(path, 16000))[200:-200].max() < 1e-3


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(channels: int, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1600, channels)).astype(np.float32)
    read = load_audio(written(tmp_path, "wav", sound, 16000, code="FLOAT"))
    assert np.allclose(read, sound.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("chunk_s", [0.1, 0.73, 100.0])
def test_streamed_pieces_joined_are_the_whole(rate: int, chunk_s: float, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, rate * 3 + 17).astype(np.float32)
    path = written(tmp_path, "wav", sound, rate)
    pieces = list(stream_audio(path, 16000, chunk_s))
    assert np.array_equal(np.concatenate(pieces), load_audio(path, 16000))
    assert {len(piece) for piece in pieces[:-1]} <= {round(chunk_s * 16000)}


def test_opus_goes_on_with_the_reference_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising = tone(3.0, 16000) * np.linspace(0, 1, 48000, dtype=np.float32)
    path = written(tmp_path, "opus", rising, 16000, "OGG", "OPUS")
    expected = load_audio(path)
    monkeypatch.setattr(track, "_LOUDEST_OPUS", 0.25)  # half of its packets
    read = load_audio(path)
    assert len(read) == len(expected) == 48000 and not np.array_equal(read, expected)
    assert np.array_equal(read[:20000], expected[:20000])
    assert np.sqrt(np.mean((read - rising) ** 2)) < 0.03


def test_opus_has_no_bursts(shared_data: Path) -> None:
    path = shared_data / "ljspeech-385" / "audio" / "LJ002-0042.opus"  # with AVX-512, FFmpeg's decoder gives a burst
    expected, _ = soundfile.read(path, dtype="float32")
    read = load_audio(path)
    assert len(read) == len(expected) and np.abs(read).max() == pytest.approx(np.abs(expected).max(), abs=0.02)


def test_streaming_needs_memory_for_a_block_only(tmp_path: Path) -> None:
    path = written(tmp_path, "wav", np.zeros(8000 * 300, dtype=np.int16), 8000, code="PCM_U8")
    tracemalloc.start()
    samples = sum(len(piece) for piece in stream_audio(path, 16000, 5.0))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert samples == 300 * 16000
    assert most < 12e6 < 4 * samples


def test_bytes_streams_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "flac", tone(0.5, 16000), 16000, "FLAC")
    expected = load_audio(path)
    assert np.array_equal(load_audio(io.BytesIO(path.read_bytes())), expected)
    with path.open("rb") as stream:
        assert np.array_equal(load_audio(stream), expected)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert np.array_equal(load_audio("-"), expected)
    with pytest.raises(AudioError, match="audio bytes: the file is empty"):
        load_audio(b"")


def test_sphere_files_of_timit(shared_data: Path) -> None:
    files = sorted((shared_data / "timit-sample").rglob("*.WAV"))[:20]
    assert files and all(path.read_bytes()[:7] == b"NIST_1A" for path in files)
    for path in files:
        header = path.read_bytes()[:1024].decode("latin-1")
        count = int(header.split("sample_count -i ")[1].split()[0])
        if path.stat().st_size < 1024 + 2 * count:
            continue  # of those tells test_sphere.py
        body = path.read_bytes()[1024 : 1024 + 2 * count]
        pcm = np.frombuffer(body[: len(body) // 2 * 2], dtype="<i2")
        read = load_audio(path)
        assert abs(len(read) - count) <= 16
        assert np.array_equal(np.round(read * 32768), pcm[: len(read)])


# Bad recordings -------------------------------------------------------------------------------------------------------


def wav_bytes(samples: np.ndarray, code: str = "FLOAT", kind: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, code, format=kind)
    return buffer.getvalue()


NAN = np.array([0.0, np.nan, 0.1] * 100, dtype=np.float32)
SHORTEN = b"NIST_1A\n   1024\nsample_count -i 16000\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
BAD = [
    ("empty.wav", b"", "the file is empty"),
    ("header.wav", wav_bytes(np.zeros(0)), "no samples"),
    ("nan.wav", wav_bytes(NAN), "not numbers"),
    ("inf.wav", wav_bytes(np.where(np.isnan(NAN), np.inf, NAN)), "not numbers"),
    ("loud.wav", wav_bytes(np.full(100, 1e20, dtype=np.float32)), "expected about -1 to 1"),
    ("text.wav", b"Dear all,\nplease find attached\n" * 99, "text file"),
    ("utf8.wav", "Привет, мир\n".encode() * 1001, "text file"),
    ("page.mp3", b"<!DOCTYPE html><html>404</html>", "text file"),
    ("pointer.wav", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ("noise.wav", bytes(range(256)) * 20, "not audio in a known format"),
    ("archive.wav", b"PK\x03\x04" + bytes(400), "ZIP"),
    ("picture.flac", b"\x89PNG\r\n\x1a\n" + bytes(400), "picture"),
    ("short.sph", SHORTEN.ljust(4096, b"\0"), "sph2pipe"),
    ("raw.raw", bytes(4000), "not audio in a known format"),
    ("song.m4a", b"\0\0\0\x20ftypM4A " + bytes(400), "begins as MP4 or M4A, but is damaged"),
    ("talk.webm", b"\x1a\x45\xdf\xa3" + bytes(400), "begins as WebM"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[name for name, _, _ in BAD])
def test_bad_recordings(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_folder_and_forbidden(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        load_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="is a folder"):
        load_audio(tmp_path)
    with pytest.raises(AudioError, match=r"no such file|cannot be opened"):
        load_audio("a\0b.wav")
    path = written(tmp_path, "wav", tone(0.1, 16000), 16000)
    path.chmod(0)
    if not os.access(path, os.R_OK):
        with pytest.raises(AudioError, match="permissions"):
            load_audio(path)


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize(("extension", "kind", "code"), [f for f in FORMATS if f[0] != "caf"])
def test_cut_off_recordings_are_named(extension: str, kind: str, code: str, share: float, tmp_path: Path) -> None:
    path = written(tmp_path, extension, np.random.default_rng(0).uniform(-0.5, 0.5, 32000), 16000, kind, code)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(AudioError, match="cut off"):
        load_audio(path)


def test_headers_written_to_a_pipe_do_not_count_as_cut_off(tmp_path: Path) -> None:
    sound = wav_bytes(tone(0.5, 16000), "PCM_16")
    at = sound.index(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000):
        piped = sound[:4] + struct.pack("<I", size) + sound[8:at] + struct.pack("<I", size) + sound[at + 4 :]
        assert len(load_audio(piped)) == 8000


def test_a_sample_or_two_missing_is_forgiven(tmp_path: Path) -> None:
    assert len(load_audio(wav_bytes(tone(0.5, 16000), "PCM_16")[:-4])) == 7998


def test_times_outside_the_recording(tmp_path: Path) -> None:
    path = written(tmp_path, "wav", tone(1.0, 16000), 16000)
    with pytest.raises(AudioError, match=r"ends at 1\.00 s"):
        load_audio(path, offset_s=1.5)
    with pytest.raises(AudioError, match=r"ends after 1\.00 s"):
        load_audio(path, offset_s=0.5, duration_s=2.0)
    with pytest.raises(AudioError, match="positive"):
        load_audio(path, offset_s=-1.0)
    assert len(load_audio(path, offset_s=0.5, duration_s=0.55)) == 8000
