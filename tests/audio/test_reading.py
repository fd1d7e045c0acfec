"""Reading recordings, and the views of them: against soundfile, torchaudio and what was written."""

import io
import math
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from wavasr.audio import container, opus
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
    assert np.abs(part - read[4000:12000]).max() < 2e-3


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
    assert files and all(container.head_of(path, 7) == b"NIST_1A" for path in files)
    for path in files:
        header = container.head_of(path, 1024).decode("latin-1")
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
    ("song.m4a", b"\0\0\0\x20ftypM4A " + bytes(400), "M4A container; install ffmpeg"),
    ("talk.webm", b"\x1a\x45\xdf\xa3" + bytes(400), "WebM.* install ffmpeg"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[name for name, _, _ in BAD])
def test_bad_recordings(
    name: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
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


def test_opus_with_untidy_page_times(tmp_path: Path) -> None:
    sound = tone(5.0, 16000, 300.0)
    path = written(tmp_path, "opus", sound, 16000, "OGG", "OPUS")
    expected = load_audio(path)
    assert opus.tidied(path) is None
    pages = opus._audio_pages(path.read_bytes())
    data = bytearray(path.read_bytes())
    page = pages[1]
    struct.pack_into("<q", data, page.start + 6, page.ends_at + 489)
    struct.pack_into("<I", data, page.start + 22, 0)
    struct.pack_into("<I", data, page.start + 22, opus._ogg_crc(bytes(data[page.start : page.end])))
    path.write_bytes(bytes(data))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(path)
    assert np.array_equal(load_audio(path), expected)


def mp3_frames(data: bytes) -> list[bytes]:
    """The frames of an MP3 without the index in the first."""
    frames, at = [], 0
    while length := container._mp3_frame_bytes(data[at : at + 4]):
        frames.append(data[at : at + length])
        at += length
    assert any(tag in frames[0] for tag in (b"Xing", b"Info"))
    return frames[1:]


@pytest.mark.parametrize("rate", [16000, 44100])
def test_mp3_of_varying_bit_rate_without_index_is_read_to_its_end(rate: int, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * rate).astype(np.float32)
    sound = np.concatenate([noisy, tone(8.0, rate)])
    path = tmp_path / "sound.mp3"
    with soundfile.SoundFile(path, "w", rate, 1, bitrate_mode="VARIABLE", compression_level=0.5) as file:
        file.write(sound)
    path.write_bytes(b"".join(mp3_frames(path.read_bytes())))
    assert soundfile.info(path).duration < 8.0, "this is what has to be mended"
    assert audio_duration_s(path) == pytest.approx(10.0, abs=0.2)
    read = load_audio(path, rate)
    assert len(read) / rate == pytest.approx(10.0, abs=0.2)
    assert peak_hz(read[-rate - 3000 : -3000], rate) == pytest.approx(440.0, abs=1.0)
    assert np.abs(load_audio(path, rate, offset_s=5.0, duration_s=1.0) - read[5 * rate : 6 * rate]).max() < 1e-6


def test_mp3_is_read_in_blocks_without_clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sound.mp3"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32) * np.hanning(32000)
    with soundfile.SoundFile(path, "w", 16000, 1, bitrate_mode="VARIABLE", compression_level=0.5) as file:
        file.write(sound)
    expected = load_audio(path)
    monkeypatch.setattr("wavasr.audio.reading._BLOCK_SAMPLES", 1000)
    assert np.abs(load_audio(path) - expected).max() < 1e-6


def test_checksum_is_that_of_the_ogg_pages(tmp_path: Path) -> None:
    data = written(tmp_path, "opus", tone(3.0, 16000), 16000, "OGG", "OPUS").read_bytes()
    for page in opus._audio_pages(data):
        blank = bytearray(data[page.start : page.end])
        blank[22:26] = bytes(4)
        assert opus._ogg_crc(bytes(blank)) == struct.unpack_from("<I", data, page.start + 22)[0]


def test_noise_recordings_all_load(shared_data: Path) -> None:
    files = sorted((shared_data / "noise-esc10").glob("007-*.opus"))
    tidied = [path for path in files if opus.tidied(path) is not None]
    assert tidied, "the folder is known to have some"
    for path in tidied:
        packets_s = sum(page.samples for page in opus._audio_pages(path.read_bytes())) / 48000
        assert len(load_audio(path)) / 16000 == pytest.approx(packets_s, abs=0.03)


# A stand-in for ffmpeg: a program of that name which writes what it is told, or complains.
FAKE_FFMPEG = """#!{python}
import struct, sys
arguments = sys.argv[1:]
if "f32le" not in arguments:
    sys.stderr.write("  Duration: 00:00:01.50, start: 0\\n  Stream #0:0: Audio: aac\\n")
    sys.exit(1)
rate = int(arguments[arguments.index("-ar") + 1])
content = open(arguments[arguments.index("-i") + 1].removeprefix("file:"), "rb").read()
sys.stdout.buffer.write(struct.pack("<f", 0.25) * (rate * 3 // 2))
sys.stdout.flush()
if b"partial" in content:
    sys.stderr.write("[mov @ 0x1] stream 0, offset 0x99: partial file\\n")
if b"silent" in content:
    sys.stderr.write("Output file does not contain any stream\\n")
    sys.exit(1)
if b"broken" in content:
    sys.stderr.write("Invalid data found when processing input\\n")
    sys.exit(1)
"""


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("needs a program without suffix")
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(FAKE_FFMPEG.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("fake_ffmpeg")
def test_other_containers_go_through_ffmpeg(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(400))
    read = load_audio(path, 8000)
    assert len(read) == 12000 and np.all(read == 0.25)
    assert audio_duration_s(path) == 1.5
    assert np.array_equal(load_audio(path.read_bytes(), 8000), read)
    pieces = stream_audio(path, 8000, 0.1)
    assert len(next(pieces)) == 800
    pieces.close()  # type: ignore[attr-defined]
    for fault, message in (("partial", "cut off"), ("silent", "no audio track"), ("broken", "ffmpeg cannot read it")):
        path.write_bytes(b"\0\0\0\x20ftypM4A " + fault.encode() + bytes(400))
        with pytest.raises(AudioError, match=message):
            load_audio(path, 8000)


# Views ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_mu_law_is_that_of_torchaudio(levels: int) -> None:
    x = torch.linspace(-1, 1, 4001)
    classes = mu_law_encode(x, levels)
    assert classes.dtype == torch.int64
    assert torch.equal(classes, torchaudio.functional.mu_law_encoding(x, levels))
    decoded = mu_law_decode(classes, levels)
    assert torch.allclose(decoded, torchaudio.functional.mu_law_decoding(classes, levels), atol=1e-6)
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


def test_band_filters_hear_their_band_whatever_the_phase() -> None:
    bands, window, rate = 48, 400, 16000
    filters = band_filters(bands, window, rate)
    assert filters.shape == (2 * bands, window) and filters.dtype == np.float32
    assert np.allclose(np.linalg.norm(filters, axis=1), 1.0, atol=1e-5)
    edges = mel_to_hz(np.linspace(hz_to_mel(60.0), hz_to_mel(0.48 * rate), bands + 2))
    times = np.arange(window) / rate
    for band in (0, 10, 25, 47):
        powers = []
        for phase in (0.0, 0.7, 1.9):
            heard = filters @ np.cos(2 * np.pi * edges[band + 1] * times + phase)
            powers.append((heard**2).reshape(bands, 2).sum(axis=1))
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
