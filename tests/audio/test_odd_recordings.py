"""Recordings as other programs leave them: unknown, wrapped and wrong sizes, joined files, odd MP3s, pipes, traps."""

import contextlib
import io
import os
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from wavasr.audio.reading import audio_duration_s, load_audio, stream_audio
from wavasr.errors import AudioError

RATE = 16000
SAMPLES = 24_000
SOUND = (0.3 * np.sin(np.arange(SAMPLES) / 9) * np.hanning(SAMPLES)).astype(np.float32)
PCM = np.round(SOUND * 32767).astype("<i2")


def encoded(
    kind: str, code: str | None = None, samples: np.ndarray = SOUND, rate: int = RATE, endian: str = "FILE"
) -> bytes:
    """By libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, code, endian, kind)
    return buffer.getvalue()


def muxed(form: str, codec: str, *, rate: int = RATE, pipe: bool = False, **options: str) -> bytes:
    """By FFmpeg; to a pipe, it cannot go back and fill in the sizes."""
    buffer = io.BytesIO()
    target = type("Pipe", (), {"write": staticmethod(buffer.write)})() if pipe else buffer
    with av.open(target, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(PCM.astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def wav(size: int | None = None, data: bytes = PCM.tobytes(), after: bytes = b"", riff: bytes = b"RIFF") -> bytes:
    order = ">" if riff == b"RIFX" else "<"
    size = len(data) if size is None else size
    form = struct.pack(f"{order}4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    length = struct.pack(f"{order}I", min(0xFFFFFFFF, 36 + size + len(after)))
    return riff + length + b"WAVE" + form + b"data" + struct.pack(f"{order}I", size) + data + after


def rf64(riff_size: int, data_size: int) -> bytes:
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, riff_size, data_size, 0, 0)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return b"RF64\xff\xff\xff\xffWAVE" + ds64 + form + b"data\xff\xff\xff\xff" + PCM.tobytes()


def aiff(form_size: int | None = None, sound_size: int | None = None, frames: int = SAMPLES) -> bytes:
    rate = b"\x40\x0c\xfa\x00\x00\x00\x00\x00\x00\x00"  # 16,000 as an 80-bit float
    common = b"COMM" + struct.pack(">IHIH", 18, 1, frames, 16) + rate
    data = PCM.astype(">i2").tobytes()
    size = 8 + len(data) if sound_size is None else sound_size
    content = b"AIFF" + common + b"SSND" + struct.pack(">III", size, 0, 0) + data
    return b"FORM" + struct.pack(">I", len(content) if form_size is None else form_size) + content


def au(size: int, data: bytes = PCM.astype(">i2").tobytes()) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, size, 3, RATE, 1) + data


def sphere(count: str) -> bytes:
    head = f"NIST_1A\n   1024\n{count}sample_rate -i {RATE}\nchannel_count -i 1\nsample_n_bytes -i 2\n"
    return f"{head}sample_byte_format -s2 01\nsample_coding -s3 pcm\nend_head\n".encode().ljust(1024) + PCM.tobytes()


LONG = b"LIST" + struct.pack("<I", 4000) + b"INFO".ljust(4000)
WHOLE = {
    "wav": wav(),
    "wav with chunks behind": wav(after=LONG),
    "wav of a pipe": wav(0xFFFFFFFF),
    "wav of size 0": wav(0),
    "wav of sox": wav(0x7FFFF000),
    "wav of 2 GiB": wav(0x80000000),
    "wav whose size was wrapped": wav(1000),
    "wav whose size was never filled in": wav(36),
    "wav whose size was wrapped, behind a long chunk": wav(1000).replace(b"fmt ", LONG + LONG + b"fmt ", 1),
    "wav with padding": wav(after=bytes(500)),
    "wav, big-endian": wav(data=PCM.astype(">i2").tobytes(), riff=b"RIFX"),
    "wav, big-endian, 24 bits": encoded("WAV", "PCM_24", PCM, endian="BIG"),
    "wav, big-endian, float": encoded("WAV", "FLOAT", (PCM / 32768).astype(np.float32), endian="BIG"),
    "rf64": rf64(72 + 2 * SAMPLES, 2 * SAMPLES),
    "rf64 of a pipe": rf64(0, 0),
    "rf64 of unknown size": rf64((1 << 64) - 1, (1 << 64) - 1),
    "w64": encoded("W64", "PCM_16", PCM),
    "w64 of a pipe": muxed("w64", "pcm_s16le", pipe=True),
    "aiff": aiff(),
    "aiff of a pipe": aiff(0, 0, 0),
    "aiff of unknown size": aiff(0x7FFFFFFF, 0x7FFFFFFF),
    "aiff of size -1": aiff(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
    "aiff of ffmpeg to a pipe": muxed("aiff", "pcm_s16be", pipe=True),
    "au": au(2 * SAMPLES),
    "au of unknown size": au(0xFFFFFFFF),
    "au of size 0": au(0),
    "au whose size is too small": au(1000),
    "caf": encoded("CAF", "PCM_16", PCM),
    "caf of a pipe": muxed("caf", "pcm_s16be", pipe=True),
    "caf with ALAC": encoded("CAF", "ALAC_16", PCM),
    "flac": encoded("FLAC", "PCM_16", PCM),
    "flac of a pipe": muxed("flac", "flac", pipe=True),
    "sphere": sphere(f"sample_count -i {SAMPLES}\n"),
    "sphere without a count": sphere(""),
    "sphere of unknown count": sphere("sample_count -i 0\n"),
    "matroska of a pipe": muxed("matroska", "flac", pipe=True),
    "flac in ogg": muxed("ogg", "flac"),
}


def through_a_pipe(content: bytes) -> np.ndarray:
    reader, writer = os.pipe()

    def feed() -> None:
        with os.fdopen(writer, "wb") as stream, contextlib.suppress(BrokenPipeError):
            stream.write(content)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with os.fdopen(reader, "rb") as stream:
            return load_audio(stream)
    finally:
        feeder.join()


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_there_is_played_to_the_bit(name: str, tmp_path: Path) -> None:
    expected = PCM.astype(np.float32) / 32768
    (tmp_path / "x").write_bytes(WHOLE[name])
    assert np.array_equal(load_audio(tmp_path / "x"), expected)
    assert np.array_equal(load_audio(WHOLE[name]), expected)
    assert audio_duration_s(tmp_path / "x") == pytest.approx(SAMPLES / RATE, abs=1e-4)
    if "wrapped" not in name and "never" not in name and "ALAC" not in name:  # of a pipe nobody sees what follows
        assert np.array_equal(through_a_pipe(WHOLE[name]), expected)


def mp3(**options: str) -> bytes:
    return muxed("mp3", "libmp3lame", id3v2_version="0", write_xing="0", **options)


def id3(size: int, version: int = 3, footer: bool = False) -> bytes:
    length = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3" + bytes([version, 0, 0x10 if footer else 0]) + length + bytes(size)
    return tag + b"3DI" + bytes([version, 0, 0x10]) + length if footer else tag


def xing(frames: int | None) -> bytes:
    """A silent first frame that says how many frames follow, or does not."""
    stated = b"Xing" + (struct.pack(">II", 1, frames) if frames is not None else struct.pack(">I", 0))
    return (mp3()[:4] + bytes(9 if mp3()[1] & 8 == 0 else 17) + stated).ljust(len(mp3()) // 40, b"\0")


JOINED = {
    "wav": wav(),
    "wav with a chunk": wav(after=LONG),
    "aiff": aiff(),
    "au": au(0xFFFFFFFF),
    "w64": encoded("W64", "PCM_16", PCM),
    "flac": encoded("FLAC", "PCM_16", PCM),
    "ogg vorbis": encoded("OGG", "VORBIS"),
    "ogg opus": encoded("OGG", "OPUS"),
    "mp3": mp3(),
    "mp3 with an index": encoded("MP3"),
    "aac": muxed("adts", "aac"),
    "amr": muxed("amr", "libopencore_amrnb", rate=8000),
    "ogg opus of one page": muxed("ogg", "libopus", rate=48000, page_duration="10000000"),
    "flac in ogg": muxed("ogg", "flac"),
    "m4a": muxed("ipod", "aac"),
    "webm": muxed("webm", "libopus", rate=48000),
    "caf with chunks behind": encoded("CAF", "ALAC_16", PCM),
    "flv": muxed("flv", "libmp3lame", rate=44100),
    "tta": muxed("tta", "tta"),
    "voc": encoded("VOC", "PCM_16", PCM),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined_files_are_read_to_the_end(name: str, tmp_path: Path) -> None:
    one = load_audio(JOINED[name])
    path = tmp_path / "joined"
    path.write_bytes(JOINED[name] * 3)
    joined = load_audio(path)
    assert len(joined) / RATE == pytest.approx(3 * len(one) / RATE, abs=0.3)
    last = joined[-len(one) :][2000:-2000]
    assert max(np.corrcoef(last, joined[2000 + lag : 2000 + lag + len(last)])[0, 1] for lag in range(-900, 900)) > 0.9
    assert audio_duration_s(path) == pytest.approx(len(joined) / RATE, abs=0.15)
    assert len(through_a_pipe(path.read_bytes())) == pytest.approx(len(joined), abs=0.1 * RATE)
    part = load_audio(path, offset_s=1.0, duration_s=2.0)
    assert np.abs(part - joined[RATE : 3 * RATE])[200:-200].max() < 1e-2  # but for the resampler's edges


LOSSLESS = {
    **{kind: encoded(kind, "PCM_16") for kind in ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")},
    "FLAC with a tag": id3(20) + encoded("FLAC", "PCM_16"),
    "FLAC to a pipe": muxed("flac", "flac", pipe=True),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_joined_files_lose_no_sample(name: str, tmp_path: Path) -> None:
    path = tmp_path / "joined"
    path.write_bytes(LOSSLESS[name] * 3)
    expected = np.tile(load_audio(LOSSLESS[name]), 3)
    assert len(expected) == 3 * SAMPLES
    assert np.array_equal(load_audio(path), expected) and np.array_equal(through_a_pipe(path.read_bytes()), expected)
    assert audio_duration_s(path) == pytest.approx(3 * SAMPLES / RATE)


def test_joined_files_of_two_rates() -> None:
    joined = encoded("MP3", None, SOUND, 16000) + encoded("MP3", None, SOUND, 44100)
    assert len(load_audio(joined)) / RATE == pytest.approx(SAMPLES / 16000 + SAMPLES / 44100, abs=0.15)


def with_size(kind: str, mark: bytes, behind: int, form: str, value: int) -> bytes:
    """A file with another number in its header, `behind` the mark."""
    content = bytearray(encoded(kind, "PCM_16"))
    struct.pack_into(form, content, content.find(mark) + behind, value)
    return bytes(content)


WRONG_SIZES = {
    "AIFF, half the frames": with_size("AIFF", b"COMM", 10, ">I", SAMPLES // 2),
    "AIFF, twice the frames": with_size("AIFF", b"COMM", 10, ">I", 2 * SAMPLES),
    "AIFF, frames unknown": with_size("AIFF", b"COMM", 10, ">I", 0xFFFFFFFF),
    "AIFF, form of nothing": with_size("AIFF", b"FORM", 4, ">I", 0),
    "W64, file of nothing": with_size("W64", b"riff", 16, "<Q", 0),
    "W64, little data": with_size("W64", b"data\xf3", 16, "<Q", 100),
    "CAF, little data": with_size("CAF", b"data", 4, ">q", 5),
    "CAF, more than a disk holds": with_size("CAF", b"data", 4, ">q", 1 << 61),
    "RF64, little data": with_size("RF64", b"ds64", 16, "<Q", 5),
    "FLAC, unknown by ones": with_size("FLAC", b"fLaC", 21, ">Q", 0xFFFFFFFFFF << 24 | 0x123456),
}


@pytest.mark.parametrize("name", WRONG_SIZES)
def test_wrong_sizes_do_not_hide_sound(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong"
    path.write_bytes(WRONG_SIZES[name])
    assert np.abs(load_audio(path) - SOUND).max() < 1e-4
    assert audio_duration_s(path) == pytest.approx(SAMPLES / RATE)
    assert capfd.readouterr().err == ""


def test_a_pipe_that_goes_on_behind_its_end_is_told() -> None:
    with pytest.raises(AudioError, match="goes on behind the end that its header announces; save it as a file"):
        through_a_pipe(WRONG_SIZES["RF64, little data"])


MP3 = {
    "plain": mp3(),
    "variable bit rate": muxed("mp3", "libmp3lame", id3v2_version="0", write_xing="0", compression_level="0"),
    "tag": id3(500) + mp3(),
    "two tags": id3(500) + id3(300) + mp3(),
    "padding behind the tag": id3(500) + bytes(1000) + mp3(),
    "footer": id3(500, 4, footer=True) + mp3(),
    "large picture": id3(300_000) + mp3(),
    "ID3v1": mp3() + b"TAG".ljust(128, b"\0"),
    "index without a count": xing(None) + mp3(),
    "index with a count that is too small": xing(5) + mp3(),
    "begins within a frame": mp3()[50:],
    "junk before": b"\x12\x34" * 200 + mp3(),
}


@pytest.mark.parametrize("name", MP3)
def test_mp3_without_a_good_index_is_read_to_the_end(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.mp3").write_bytes(MP3[name])
    expected = len(load_audio(MP3["plain"])) / RATE
    assert expected == pytest.approx(1.5, abs=0.12)
    assert len(load_audio(tmp_path / "x.mp3")) / RATE == pytest.approx(expected, abs=0.08)
    assert audio_duration_s(tmp_path / "x.mp3") == pytest.approx(expected, abs=0.08)


def test_mp3_in_wav_is_whole() -> None:
    assert len(load_audio(muxed("wav", "libmp3lame"))) / RATE == pytest.approx(1.5, abs=0.1)


CUT = {
    "m4a": muxed("ipod", "aac"),
    "m4a in fragments": muxed("ipod", "aac", movflags="frag_keyframe+empty_moov"),
    "webm": muxed("webm", "libopus", rate=48000),
    "caf": WHOLE["caf"],
    "w64": WHOLE["w64"],
    "rf64": WHOLE["rf64"],
    "flac": WHOLE["flac"],
    "mp3 with an index": encoded("MP3"),
    "avi": muxed("avi", "pcm_s16le"),
}


@pytest.mark.parametrize("share", [0.4, 0.85])
@pytest.mark.parametrize("name", CUT)
def test_what_was_promised_and_is_missing_is_named(name: str, share: float, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CUT[name][: int(share * len(CUT[name]))])
    for read in (load_audio, audio_duration_s):
        with pytest.raises(AudioError, match="cut off") as caught:
            read(tmp_path / "x")
        assert "\n" not in str(caught.value)
    with pytest.raises(AudioError, match="cut off"):
        through_a_pipe((tmp_path / "x").read_bytes())


# Pipes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wav of a pipe", "flac of a pipe", "mp3", "ogg"])
def test_a_pipe_is_read_as_it_comes(name: str) -> None:
    """The first piece is there before the last byte has been written."""
    long = np.tile(PCM, 8)
    content = {
        "wav of a pipe": wav(0xFFFFFFFF, long.tobytes()),
        "flac of a pipe": encoded("FLAC", "PCM_16", long),
        "mp3": encoded("MP3", None, long / 32768),
        "ogg": encoded("OGG", "OPUS", long[:96_000] / 32768) * 2,
    }[name]
    reader, writer = os.pipe()
    received = threading.Event()

    def feed() -> None:
        with os.fdopen(writer, "wb", buffering=0) as sink:
            sink.write(content[: len(content) // 2])
            assert received.wait(20)
            sink.write(content[len(content) // 2 :])

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reader, "rb") as stream:
        pieces = stream_audio(stream, RATE, 0.5)
        assert len(next(pieces)) == RATE // 2
        received.set()
        assert sum(map(len, pieces)) / RATE == pytest.approx(11.5, abs=0.2)
    feeder.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_opened_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert audio_duration_s(tmp_path / "fifo") == 0.0
    feeder = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(wav(),))
    feeder.start()
    assert len(load_audio(tmp_path / "fifo")) == SAMPLES
    feeder.join()


@pytest.mark.parametrize("rate", [16000, 44100])
def test_padding_of_an_mp3_is_cut_in_a_pipe_too(rate: int) -> None:
    content = encoded("MP3", None, np.tile(SOUND, 4), rate)
    read = through_a_pipe(content)
    assert np.array_equal(read, load_audio(content)) and len(read) == round(4 * SAMPLES / rate * RATE)


def test_what_needs_its_end_is_read_from_a_pipe_too() -> None:
    m4a = muxed("ipod", "aac")
    assert np.array_equal(through_a_pipe(m4a), load_audio(m4a))


def test_an_interrupted_read_is_passed_on() -> None:
    class Interrupted(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            if self.tell() > 40_000:
                raise KeyboardInterrupt
            return super().read(count)

        read1 = read

        def seekable(self) -> bool:
            return False

    with pytest.raises(KeyboardInterrupt):
        load_audio(Interrupted(wav()))


# Traps ----------------------------------------------------------------------------------------------------------------


def test_nothing_else_is_opened(tmp_path: Path) -> None:
    """Playlists and the like that FFmpeg would follow to other recordings of this machine."""
    other = tmp_path / "secret.wav"
    other.write_bytes(wav())
    traps = {
        "playlist": f"#EXTM3U\n#EXTINF:9,\n{other}\n".encode(),
        "playlist with a byte that is no text": f"#EXTM3U\n#\xff\n#EXTINF:9,\n{other}\n".encode("latin-1"),
        "with a byte order mark": b"\xef\xbb\xbf" + f"#EXTM3U\n#EXTINF:9,\n{other}\n".encode(),
        "segments": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#\xff\n#EXTINF:9,\nfile://{other}\n".encode("latin-1"),
        "concat": f"ffconcat version 1.0\n#\xff\nfile {other.name}\n".encode("latin-1"),
        "dash": f'<?xml version="1.0"?>\n<!--\xff--><MPD><BaseURL>{other}</BaseURL></MPD>'.encode("latin-1"),
        "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=\xff\r\nc=IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
        "pls": f"[playlist]\nFile1={other}\n#\xff".encode("latin-1"),
    }
    for name, content in traps.items():
        for suffix in (".wav", ".mp3", ".m3u8"):
            path = tmp_path / f"trap{suffix}"
            path.write_bytes(content)
            with pytest.raises(AudioError) as caught:
                load_audio(path)
            assert "playlist" in str(caught.value) or "text" in str(caught.value), name


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *(("AU", code) for code in ("G721_32", "G723_24", "G723_40")),
        *(("WAV", code) for code in ("G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32")),
    ],
)
def test_what_ffmpeg_takes_for_another_encoding(kind: str, code: str, tmp_path: Path) -> None:
    content = encoded(kind, code)
    expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
    assert np.corrcoef(expected[: len(SOUND)], SOUND)[0, 1] > 0.8
    for found in (load_audio(content), through_a_pipe(content), *([load_audio(content * 2)] if kind == "WAV" else [])):
        assert np.abs(found[: len(expected)] - expected).max() < 1e-4 and len(found) % len(expected) == 0
    (tmp_path / "x").write_bytes(content)
    assert audio_duration_s(tmp_path / "x") == len(expected) / RATE
    with pytest.raises(AudioError, match="cut off"):
        load_audio(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("rate", [0, 1, 2, 100, 999, 1_000_000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", ["wav", "au", "aiff", "sphere"])
def test_rates_that_cannot_be(kind: str, rate: int) -> None:
    content = {
        "wav": wav().replace(struct.pack("<II", RATE, 2 * RATE), struct.pack("<II", rate, (2 * rate) & 0xFFFFFFFF)),
        "au": au(2 * SAMPLES).replace(struct.pack(">I", RATE), struct.pack(">I", rate), 1),
        "aiff": aiff().replace(b"\x40\x0c\xfa\x00", struct.pack(">HH", 0x3FFF + 1, rate & 0xFFFF), 1),
        "sphere": sphere("").replace(b"sample_rate -i 16000", b"sample_rate -i %d" % rate).ljust(1024 + 2 * SAMPLES),
    }[kind]
    with pytest.raises(AudioError, match=r"sample rate|damaged|no audio|no samples"):
        load_audio(content)


def test_more_channels_than_anybody_has() -> None:
    many = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1000, RATE, 2000 * RATE, 2000, 16)
    content = wav().replace(struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16), many)
    with pytest.raises(AudioError, match=r"channels|damaged"):
        load_audio(content)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("largest", [32, 127, 32767, 2**31])
def test_integers_written_as_floats_are_refused(kind: str, largest: int) -> None:
    with pytest.raises(AudioError, match="expected about -1 to 1"):
        load_audio(encoded("WAV", kind, SOUND / np.abs(SOUND).max() * largest * 1.01))


def test_channels_that_cancel_each_other(caplog: pytest.LogCaptureFixture) -> None:
    silence = np.zeros(5000, dtype=np.float32)
    left = np.concatenate([silence, SOUND])
    for right in (-left, -0.9 * left):
        caplog.clear()
        read = load_audio(encoded("WAV", "FLOAT", np.stack([left, right], axis=1)))
        assert np.array_equal(read, left)
        assert "cancel each other out" in caplog.text
    caplog.clear()
    read = load_audio(encoded("WAV", "FLOAT", np.stack([left, 0.5 * left], axis=1)))
    assert np.allclose(read, 0.75 * left, atol=1e-6) and not caplog.text


def test_damaged_packets_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(encoded("FLAC", "PCM_16", np.tile(PCM, 40)))
    for at in range(len(content) // 4, len(content) * 3 // 4, len(content) // 12):
        content[at] ^= 0xFF
    read = load_audio(bytes(content))
    assert 0.5 * 40 * SAMPLES < len(read) <= 40 * SAMPLES
    assert "damaged" in caplog.text


@pytest.mark.parametrize("codec", ["flac", "libopus"])
def test_a_damaged_page_of_ogg_is_not_left_out_in_silence(codec: str, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(muxed("ogg", codec, rate=48000, page_duration="200000"))
    assert len(load_audio(bytes(content))) == pytest.approx(SAMPLES, abs=200) and not caplog.text
    content[len(content) // 2] ^= 0xFF
    assert len(load_audio(bytes(content))) < SAMPLES - 2000
    assert " s of it are damaged and left out" in caplog.text


def test_twenty_megabytes_of_ff_are_refused_at_once() -> None:
    with pytest.raises(AudioError):
        load_audio(b"\xff" * 20_000_000)


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("kind", ["WAV", "RF64", "FLAC", "OGG", "AIFF", "AU", "W64", "CAF", "NIST"])
@pytest.mark.parametrize("size", [100, 300_000])
def test_tags_of_mp3_before_other_recordings(kind: str, size: int) -> None:
    made = io.BytesIO()
    soundfile.write(made, np.sin(np.arange(8000) / 9) / 3, 16000, format=kind)
    tag = b"ID3\x03\0\0" + bytes([size >> shift & 127 for shift in (21, 14, 7, 0)]) + bytes(size)
    expected = load_audio(made.getvalue())
    assert len(expected) > 7000
    np.testing.assert_array_equal(load_audio(tag + made.getvalue()), expected)
    np.testing.assert_array_equal(load_audio(Unseekable(tag + made.getvalue())), expected)
