"""The audio track of one container, decoded by FFmpeg (PyAV) into blocks of one channel of float32.

Packets become frames of a few hundred samples, these are joined to blocks of 65,536, which are checked and averaged.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from wavasr.audio.source import Input
from wavasr.errors import AudioError

Samples = npt.NDArray[np.float32]

_log = logging.getLogger("wavasr")

# Containers that hold sound and nothing that points elsewhere: FFmpeg also reads playlists, scripts and pictures.
_FORMATS = (
    "wav,w64,aiff,au,caf,flac,mp3,ogg,nistsphere,mov,matroska,aac,asf,avi,flv,mpegts,mpeg,amr,ape,wv,tta,tak,ac3,eac3,"
    "dts,voc,sox,ircam,rm,nut,loas,xwma,mpc,mpc8,dsf"
)
# Where times are exact to the sample, a part is read without all that lies before it, and packets tell the duration.
_EXACT_TIMES = ("wav", "w64", "aiff", "au", "caf", "flac", "mp3", "nistsphere", "mov,mp4,m4a,3gp,3g2,mj2")
_SEEK_FROM_S = 5.0
_RUN_UP_S = 1.0

_BLOCK_SAMPLES = 1 << 16
LEAST_RATE, MOST_RATE = 1_000, 768_000  # in Hz
_MOST_CHANNELS = 64
# 30 dB above full scale: not loud, but integers that were never divided.
_LOUDEST = 32.0
_LOUDEST_OPUS = 4.0  # it codes sound up to full scale
_SLACK_S = 0.05
_MP3_SLACK_FRAMES = 2
_TOLERATED_FAULTS, _TOLERATED_S = 2, 0.15  # the times of Vorbis may jump by a block
# Durations are unsigned: from here on they are negative.
_NEGATIVE = 1 << 31
_MOST_SURPLUS = 8192
# Divisors that bring integers to [-1, 1).
_FULL_SCALE = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0}
_AUDIBLE_POWER = 1e-7
_CANCELLED_SHARE = 0.1


class Track:
    """The audio track of the container that begins where an `Input` is.

    Attributes:
        rate: of the frames read last, in Hz.
        end: samples so far, counted from its beginning.

    Raises:
        AudioError: no container that FFmpeg reads, no audio track in it, or less of it than its header announces.
    """

    def __init__(self, file: Input) -> None:
        self.file = file
        self.end = 0
        self._packets = self._faults = self._last_fault = self._lost = 0
        self._last: Any = None
        self._has_sought = False
        if file.seekable():
            self._refuse_missing_bytes()
        self._container = _open(file)
        try:
            self._stream, self._codec = _audio_stream(self._container, file.source_name, file.head)
            self._decode = _Opus(self._codec) if self._codec.name == "opus" else _decode
            self.rate = int(self._codec.sample_rate)
            self._check_shape(self.rate, int(self._codec.channels))
            self._has_pages = self._container.format.name == "ogg"
        except AudioError:
            self._container.close()
            raise

    def __enter__(self) -> Track:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def blocks(self, start: int = 0) -> Iterator[tuple[int, Samples]]:
        """(rate, (S,) float32) of one block after another, from sample `start` on.

        Raises:
            AudioError: cut off, damaged beyond use, or with samples that are not numbers.
        """
        mixer = _Mixer(self.file.source_name)
        # What comes through a pipe may be said just now.
        room = _BLOCK_SAMPLES if self.file.seekable() else max(1, self.rate // 4)
        fifo, shape = av.AudioFifo(), None
        for frame in self._frames(start):
            frame_shape = (frame.format.name, frame.layout.nb_channels, frame.sample_rate)
            if frame_shape != shape or fifo.samples >= room:
                yield from self._mixed(fifo, mixer, start)
            if frame_shape != shape:
                self._check_shape(frame.sample_rate, frame.layout.nb_channels)
                fifo, shape = av.AudioFifo(), frame_shape
                start, self.end = (round(n * frame.sample_rate / self.rate) for n in (start, self.end))
                self.rate = frame.sample_rate
            frame.pts = None
            fifo.write(frame)
            self.end += frame.samples
        surplus = self._surplus()
        for rate, block in self._mixed(fifo, mixer, start):
            yield rate, block[: max(0, len(block) - surplus)]
        self.end -= surplus
        self._check_end()

    def packets_s(self) -> float | None:
        """Its length as header and packets tell it to the sample, without decoding; None where they do not.

        Raises:
            AudioError: as `blocks`.
        """
        stream, form = self._stream, self._container.format.name
        is_pcm = self._codec.name.startswith("pcm_")
        # Of AIFF it would be the number of frames in another place of the header.
        if is_pcm and form != "aiff" and self.file.promise.end is not None and stream.duration:
            return float(stream.duration * stream.time_base)
        if is_pcm or form not in (*_EXACT_TIMES, "ogg", "aac") or self._codec.name == "alac":
            return None
        length = end = last = 0
        for packet in self._demuxed():
            if not packet.duration:
                continue
            if packet.pts is None or packet.pts < last:
                return None  # another recording was joined, and the times begin anew
            length += packet.duration - self._skipped(packet)
            last, end = packet.pts, _end_of(packet)
        self.end = round((end if form == "ogg" else length) * stream.time_base * self.rate)
        if form == "flac" and self.end != self.file.promise.samples:
            return None
        self._check_end()
        return self.end / self.rate

    def _skipped(self, packet: Any) -> int:
        """How much of a packet is an encoder's run-up or padding, in units of the stream's time."""
        if not packet.has_sidedata("skip_samples"):
            return 0
        samples = sum(struct.unpack("<II", bytes(packet.get_sidedata("skip_samples"))[:8]))
        return int(samples / (self.rate * self._stream.time_base))

    def _frames(self, start: int) -> Iterator[Any]:
        """Decoded frames, the first of them at sample `self.end`, which is not behind `start`."""
        frames = self._decoded()
        if (first := next(frames, None)) is None:
            return
        if start < _SEEK_FROM_S * self.rate or not self._can_seek() or first.pts is None:
            yield from chain([first], frames)
            return
        origin, time_base = first.pts, first.time_base
        for run_up in (round(_RUN_UP_S * self.rate), start):
            self._container.seek(origin + int((start - run_up) / (self.rate * time_base)), stream=self._stream)
            self._has_sought = True
            frames = self._decoded()
            if (first := next(frames, None)) is None:
                continue
            self.end = round((first.pts - origin) * time_base * self.rate)
            if self.end <= start:
                yield from chain([first], frames)
                return

    def _can_seek(self) -> bool:
        codec = self._codec.name
        exact = self._container.format.name in _EXACT_TIMES and "adpcm" not in codec and codec != "opus"
        return exact and self.file.seekable()

    def _decoded(self) -> Iterator[Any]:
        """Frames; packets that cannot be decoded are counted and left out."""
        for packet in self._demuxed():
            try:
                yield from self._decode(packet)
            except av.EOFError:
                return
            except av.FFmpegError:
                self._faults += 1
                self._lost += packet.duration or 0
                self._last_fault = self._packets

    def _demuxed(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                reason = str(error.strerror or error).rstrip(".")
                raise AudioError(f"{self.file.source_name}: is damaged or cut off ({reason}); copy it again") from error
            finally:
                if self.file.interruption is not None:
                    raise self.file.interruption
            self._packets += 1
            if self._has_pages and packet.pts is not None and self._last is not None:
                # Pages whose checksum is wrong are passed over.
                gap = packet.pts - _end_of(self._last)
                self._lost += gap if gap * self._stream.time_base > _TOLERATED_S else 0
            self._last = packet if packet.duration else self._last
            yield packet

    def _surplus(self) -> int:
        """Samples decoded beyond the end: of an MP3 from a pipe, of an Ogg stream of one page. FFmpeg cuts others."""
        promise = self.file.promise
        if promise.mp3_frames and promise.samples and not self.file.seekable():
            is_joined = self._packets > promise.mp3_frames + _MP3_SLACK_FRAMES
            return 0 if is_joined else max(0, min(_MOST_SURPLUS, self.end - promise.samples))
        if self._last is None or self._last.duration < _NEGATIVE or self._last.pts is None:
            return 0
        surplus = self.end - _end_of(self._last)
        return surplus if 0 < surplus < _MOST_SURPLUS else 0

    def _mixed(self, fifo: av.AudioFifo, mixer: _Mixer, start: int) -> Iterator[tuple[int, Samples]]:
        count = fifo.samples
        frame = fifo.read()
        if frame is not None:
            block = mixer(_channels(frame, self.file.source_name))[max(0, start - self.end + count) :]
            if len(block):
                yield frame.sample_rate, block

    def _check_shape(self, rate: int, channels: int) -> None:
        if not LEAST_RATE <= rate <= MOST_RATE:
            expected = f"{LEAST_RATE:,} to {MOST_RATE:,}; mend its header"
            raise AudioError(f"{self.file.source_name}: has a sample rate of {rate:,} Hz; expected {expected}")
        if not 1 <= channels <= _MOST_CHANNELS:
            raise AudioError(f"{self.file.source_name}: has {channels} channels; expected 1 to {_MOST_CHANNELS}")

    def _check_end(self) -> None:
        """What can only be told when all has been read."""
        self._refuse_missing_bytes()
        promise = self.file.promise
        samples = 0 if promise.mp3_frames else promise.samples or 0
        missing_s = (samples - self.end) / self.rate
        if missing_s > _SLACK_S and self._has_reached(samples):
            _log.warning("%s: %.2f s of it are damaged and left out", self.file.source_name, missing_s)
            missing_s = 0.0
        if promise.mp3_frames and self._packets + _MP3_SLACK_FRAMES < promise.mp3_frames and not self._has_sought:
            missing_s = (promise.mp3_frames - self._packets) * 1152 / self.rate
        if missing_s > _SLACK_S:
            raise self._cut_off(f"{missing_s:.2f} s")
        if 4 * self._faults > self._packets:
            raise AudioError(
                f"{self.file.source_name}: is damaged ({self._faults} of {self._packets} packets cannot be decoded);"
                " copy it again, or convert it to WAV or FLAC"
            )
        if (lost_s := float(self._lost * self._stream.time_base)) > _TOLERATED_S:
            _log.warning("%s: %.2f s of it are damaged and left out", self.file.source_name, lost_s)
        elif self._faults > _TOLERATED_FAULTS:
            _log.warning("%s: %d damaged packets of %d left out", self.file.source_name, self._faults, self._packets)

    def _has_reached(self, sample: int) -> bool:
        """Whether the last packet ends there and could be decoded: what is missing is missing within."""
        if self._last is None or self._last.pts is None or self._last_fault >= self._packets - 1:
            return False
        return bool(_end_of(self._last) * self._stream.time_base * self.rate >= sample)

    def _refuse_missing_bytes(self) -> None:
        if missing := self.file.missing():
            raise self._cut_off(f"{missing} bytes")

    def _cut_off(self, missing: str) -> AudioError:
        return AudioError(
            f"{self.file.source_name}: is cut off: {missing} announced by its header are missing; copy it again"
        )


# Opening --------------------------------------------------------------------------------------------------------------


def _open(file: Input) -> Any:
    options = {"format_whitelist": _FORMATS}
    if file.head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        # Of WAV FFmpeg reads five seconds to see whether they are another format in disguise.
        options |= {"probesize": "2048", "max_size": "16384"}
    try:
        return av.open(file, mode="r", options=options, metadata_errors="replace", io_open=_refuse_to_open)
    except (av.FFmpegError, ValueError, LookupError, OSError) as error:
        if file.interruption is not None:
            raise file.interruption from error
        raise AudioError(f"{file.source_name}: {_unreadable(file.head)}") from error


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError("a recording may not open other files")


def _unreadable(head: bytes) -> str:
    if head.startswith(b"NIST_1A") and b"shorten" in head:
        return "is a damaged SPHERE file compressed with shorten; try to unpack it: sph2pipe -f wav IN OUT"
    for at, magic, what in _KNOWN:
        if head[at : at + len(magic)] == magic:
            return (
                f"begins as {what}, but is damaged, cut off or in an uncommon encoding;"
                " copy it again, or convert it to WAV or FLAC"
            )
    return "is not audio in a known format; convert it to WAV or FLAC"


_KNOWN = (
    (0, b"RIFF", "WAV"),
    (0, b"RIFX", "WAV"),
    (0, b"RF64", "WAV"),
    (0, b"riff", "Wave64"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (0, b"FORM", "AIFF"),
    (0, b"NIST_1A", "NIST SPHERE"),
    (0, b"caff", "CAF"),
    (0, b".snd", "AU"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
    (4, b"ftyp", "MP4 or M4A"),
    (4, b"mdat", "MP4 or QuickTime"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
)


def _audio_stream(container: Any, name: str, head: bytes) -> tuple[Any, Any]:
    stream = container.streams.best("audio")
    codec = None if stream is None else stream.codec_context
    if codec is None:
        reason = _unreadable(head) if container.streams.audio else "has no audio track; give a recording"
        raise AudioError(f"{name}: {reason}")
    # Frames whose checksum is wrong are noise; FFmpeg would play them.
    codec.options = {"err_detect": "crccheck"}
    if codec.name == "alac" and container.format.name == "caf":
        # The padding that the header states is not in the last packet; FFmpeg would cut real samples instead.
        codec.options = {"flags2": "+skip_manual"}
    return stream, codec


def _decode(packet: Any) -> list[Any]:
    return list(packet.decode())


class _Opus:
    """Packets of Opus to frames.

    On processors with AVX-512 FFmpeg's own decoder makes of a few sound packets a burst a thousand times too loud. From
    such a packet on the format's reference decoder goes on, which is soon where the other one was.
    """

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self._reference: Any = None

    def __call__(self, packet: Any) -> list[Any]:
        if self._reference is None:
            frames = _decode(packet)
            if all(np.abs(frame.to_ndarray()).max(initial=0.0) <= _LOUDEST_OPUS for frame in frames):
                return frames
            self._reference = av.CodecContext.create("libopus", "r")
            if head := bytes(self._codec.extradata or b""):  # a transport stream has none
                self._reference.extradata = head[:10] + b"\0\0" + head[12:]  # the run-up is out already
            self._reference.sample_rate, self._reference.layout = self._codec.sample_rate, self._codec.layout
        return list(self._reference.decode(packet if packet.size else None))


def _end_of(packet: Any) -> int:
    return int(packet.pts + packet.duration - (1 << 32 if packet.duration >= _NEGATIVE else 0))


# Samples --------------------------------------------------------------------------------------------------------------


def _channels(frame: Any, name: str) -> Samples:
    """The samples of a frame of any format; (C, S) float32, integers scaled to [-1, 1)."""
    form = frame.format.name.removesuffix("p")
    if form not in ("flt", "dbl", *_FULL_SCALE):
        raise AudioError(f"{name}: has samples of an uncommon kind ({form}); convert it to WAV or FLAC")
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    with np.errstate(over="ignore"):
        values: Samples = samples.astype(np.float32)
    if form in _FULL_SCALE:
        values -= 128.0 if form == "u8" else 0.0
        values *= np.float32(1.0 / _FULL_SCALE[form])
    else:
        _refuse_bad_samples(values, name)
    return values


def _refuse_bad_samples(values: Samples, name: str) -> None:
    loudest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(loudest):
        raise AudioError(f"{name}: has samples that are not numbers (NaN or infinite); export it again as 16-bit PCM")
    if loudest > _LOUDEST:
        raise AudioError(
            f"{name}: has samples of {loudest:.3g}; expected about -1 to 1: divide them by the largest, e.g. 32768,"
            " or export it as PCM"
        )


class _Mixer:
    """The mean of the channels; where they cancel each other out, as in phase-inverted stereo, the loudest of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._channel: int | None = None
        self._is_decided = False

    def __call__(self, values: Samples) -> Samples:
        """(C, S) -> (S,)"""
        if len(values) == 1:
            only: Samples = values[0]
            return only
        mean: Samples = values.mean(axis=0)
        if not self._is_decided:
            powers = np.square(values).mean(axis=1)
            if powers.mean() > _AUDIBLE_POWER:
                self._is_decided = True
                if float(np.square(mean).mean()) < _CANCELLED_SHARE / len(values) * powers.mean():
                    self._channel = int(powers.argmax())
                    _log.warning("%s: its channels cancel each other out; one of them is read", self._name)
        chosen: Samples = mean if self._channel is None or self._channel >= len(values) else values[self._channel]
        return chosen
