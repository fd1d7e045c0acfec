"""What is done to training audio: other tempi, rooms, noises, microphones, telephones, levels, holes.

    (S,) -> speed -> room -> noise -> equaliser -> telephone -> gain -> time masks -> band masks -> (S',) float32

Every effect is a function of the waveform and of values drawn before, so that each can be checked by itself. All
randomness comes from the generator that `Augmenter` is called with: the same seed gives the same samples, whichever
worker computes them. Only `speed` changes the length, and no effect shifts speech against its labels.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from wavasr.audio.config import AugmentConfig
from wavasr.audio.features import hz_to_mel, mel_to_hz
from wavasr.audio.reading import AUDIO_SUFFIXES, Samples, load_audio
from wavasr.errors import AudioError, ConfigError

_log = logging.getLogger("wavasr")
_NOISE_CACHE_SAMPLES = 1 << 27
_QUIETEST_POWER = 1e-10
_ROOM_LONGEST_S = 1.0
_ROOM_TAIL = 1e-4
# Of 37 recordings in a folder sold as impulse responses, the real ones had at least 0.53 there, music at most 0.34.
_ROOM_EARLY_SHARE = 0.4
_ROOM_EARLY_S = 0.05
_FADE_S = 0.002
_TELEPHONE_RATE = 8000
_TELEPHONE_HZ = (300.0, 3400.0)
_EDGE_HZ = 60.0
_EQUALISER_KNOTS = 7


class Augmenter:
    """Applies an `AugmentConfig` to waveforms; noises and rooms are read when first needed, once per process.

    Args:
        config: which effects, how often and how strong.
        sample_rate: of the waveforms.

    Raises:
        ConfigError: a noise or room folder that is not there or holds no audio.
    """

    def __init__(self, config: AugmentConfig, sample_rate: int) -> None:
        self.config = config
        self.sample_rate = sample_rate
        self.noises = NoiseClips(_listed(config.noise_dir, "noise_dir"), sample_rate)
        self._room_files = _listed(config.room_dir, "room_dir")
        self._rooms: list[Samples] | None = None

    def __call__(self, waveform: Samples, rng: np.random.Generator) -> Samples:
        """(S,) float32 -> (S',) float32, at least one sample; the input is left as it is."""
        c, rate = self.config, self.sample_rate
        x = change_speed(waveform, rng.uniform(*c.speed)) if c.speed != (1.0, 1.0) else waveform
        if self._room_files and rng.random() < c.room_probability:
            x = add_room(x, self.rooms[rng.integers(len(self.rooms))])
        if self.noises and rng.random() < c.noise_probability:
            x = add_noise(x, self.noises.draw(len(x), rng), rng.uniform(*c.snr_db))
        if c.equaliser_db > 0:
            x = equalise(x, rng.uniform(0.0, c.equaliser_db) * rng.uniform(-1.0, 1.0, _EQUALISER_KNOTS), rate)
        if c.telephone_probability and rng.random() < c.telephone_probability:
            x = telephone(x, rate)
        if c.gain_db != (0.0, 0.0):
            x = x * np.float32(10 ** (rng.uniform(*c.gain_db) / 20))
        if c.time_masks > 0:
            x = mask_times(x, draw_time_masks(c, len(x), rate, rng), rate)
        if c.band_masks > 0:
            x = mask_bands(x, draw_band_masks(c, rate, rng), rate)
        return np.ascontiguousarray(x, dtype=np.float32)

    @property
    def rooms(self) -> list[Samples]:
        """The impulse responses, each from its direct sound on."""
        if self._rooms is None:
            self._rooms = read_rooms(self._room_files, self.sample_rate)
        return self._rooms


class NoiseClips:
    """Noise recordings, decoded when first drawn, kept as 16-bit integers up to a limit of memory."""

    def __init__(self, files: list[Path], sample_rate: int) -> None:
        self.files = files
        self.sample_rate = sample_rate
        self._kept: OrderedDict[int, npt.NDArray[np.int16]] = OrderedDict()
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.files)

    def draw(self, count: int, rng: np.random.Generator) -> Samples:
        """A stretch of (count,) samples of a random recording, from a random place, repeated where it is too short."""
        noise = self._recording(int(rng.integers(len(self.files))))
        start = int(rng.integers(max(1, len(noise) - count + 1)))
        if len(noise) < count:
            start = int(rng.integers(len(noise)))
            noise = np.tile(noise, 1 + math.ceil(count / len(noise)))
        return noise[start : start + count].astype(np.float32) * np.float32(1 / 32767)

    def _recording(self, index: int) -> npt.NDArray[np.int16]:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        while index in self._broken:
            index = (index + 1) % len(self.files)
        try:
            noise = _without_digital_silence(load_audio(self.files[index], self.sample_rate))
        except AudioError as error:
            # Found hours into a training, a bad noise file is no reason to lose it; the next file takes its place.
            _log.warning("augment.noise_dir: left out: %s", error)
            self._broken.add(index)
            if len(self._broken) == len(self.files):
                raise ConfigError(f"augment.noise_dir: none of {len(self.files)} files can be read: {error}") from error
            return self._recording(index)
        noise = noise / np.float32(max(1e-9, float(np.abs(noise).max())))
        self._kept[index] = np.round(noise * 32767).astype(np.int16)
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _NOISE_CACHE_SAMPLES:
            self._kept.popitem(last=False)
        return self._kept[index]


def _listed(folder: Path | None, key: str) -> list[Path]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(f"augment.{key}: {folder} is no folder; give one with recordings, or leave the key out")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ConfigError(f"augment.{key}: {folder} holds no recordings; expected {' '.join(AUDIO_SUFFIXES)}")
    return files


def _without_digital_silence(noise: Samples) -> Samples:
    """Short clips are often padded with zeros; a crop of zeros has no signal-to-noise ratio."""
    sounding = np.flatnonzero(np.abs(noise) > 1e-4)
    return noise[sounding[0] : sounding[-1] + 1] if len(sounding) else noise


def read_rooms(files: list[Path], sample_rate: int) -> list[Samples]:
    """Impulse responses cut to (L,) from their direct sound on, with energy one; what is none is left out and named.

    Raises:
        ConfigError: no file is an impulse response.
    """
    rooms, refused = [], []
    for path in files:
        try:
            room = _trimmed_room(load_audio(path, sample_rate), sample_rate)
        except AudioError:
            room = None
        if room is None:
            refused.append(path.name)
        else:
            rooms.append(room)
    if not rooms:
        raise ConfigError(f"augment.room_dir: none of {len(files)} files is an impulse response; leave the key out")
    if refused:
        _log.warning("augment.room_dir: %d files are no impulse responses, left out: %s", len(refused), refused)
    return rooms


def _trimmed_room(response: Samples, sample_rate: int) -> Samples | None:
    """The response from its direct sound to its inaudible tail; None where the energy does not decay like a room's."""
    energy = np.square(response.astype(np.float64))
    total = float(energy.sum())
    if total <= 0:
        return None
    direct = int(np.argmax(np.abs(response) >= 0.5 * np.abs(response).max()))
    early = slice(max(0, direct - 1), direct + round(_ROOM_EARLY_S * sample_rate))
    if float(energy[early].sum()) < _ROOM_EARLY_SHARE * total:
        return None
    left = np.cumsum(energy[::-1])[::-1] / total
    end = int(np.argmax(left < _ROOM_TAIL)) or len(response)
    end = min(max(end, direct + 1), direct + round(_ROOM_LONGEST_S * sample_rate))
    room = response[direct:end]
    return np.asarray(room / math.sqrt(float(np.square(room).sum())), dtype=np.float32)


# The effects ----------------------------------------------------------------------------------------------------------


def change_speed(waveform: Samples, factor: float) -> Samples:
    """Play `factor` times as fast, tempo and pitch together: (S,) -> (about S / factor,), low-pass filtered by soxr."""
    changed = soxr.resample(np.ascontiguousarray(waveform, dtype=np.float32), factor, 1.0, "HQ")
    return changed if len(changed) else np.asarray(waveform[:1], dtype=np.float32)


def add_room(waveform: Samples, room: Samples) -> Samples:
    """The waveform as in a room: convolution, the direct sound stays in time, the power as it was; (S,) -> (S,)."""
    size = fast_length(len(waveform) + len(room) - 1)
    product = np.fft.rfft(waveform, size) * np.fft.rfft(room, size)
    wet = np.fft.irfft(product, size)[: len(waveform)].astype(np.float32)
    power = _power(wet)
    return wet * np.float32(math.sqrt(_power(waveform) / power)) if power > _QUIETEST_POWER else waveform


def add_noise(waveform: Samples, noise: Samples, snr_db: float) -> Samples:
    """The sum of both, the noise scaled to the given ratio of mean powers; unchanged where either is silence."""
    speech, loudness = _power(waveform), _power(noise)
    if speech < _QUIETEST_POWER or loudness < _QUIETEST_POWER:
        return waveform
    return waveform + noise * np.float32(math.sqrt(speech / loudness / 10 ** (snr_db / 10)))


def equalise(waveform: Samples, gains_db: npt.NDArray[np.float64], sample_rate: int) -> Samples:
    """The sound of another microphone: gains at points evenly spaced over the mel axis, from 0 Hz to half the
    sample rate, straight in decibels between them; no delay, the power kept; (S,), (K,) -> (S,).
    """
    size = fast_length(len(waveform) + sample_rate // 20)
    spectrum = np.fft.rfft(waveform, size)
    mel = hz_to_mel(np.arange(len(spectrum)) * (sample_rate / size))
    gains = np.interp(mel, np.linspace(0.0, mel[-1], len(gains_db)), gains_db)
    filtered = np.fft.irfft(spectrum * 10 ** (gains / 20), size)[: len(waveform)].astype(np.float32)
    power = _power(filtered)
    return filtered * np.float32(math.sqrt(_power(waveform) / power)) if power > _QUIETEST_POWER else waveform


def telephone(waveform: Samples, sample_rate: int) -> Samples:
    """What a telephone line leaves: 300-3400 Hz, 8 kHz, 8-bit mu-law (ITU-T G.711's law); (S,) -> (S,)."""
    narrow = soxr.resample(waveform, sample_rate, _TELEPHONE_RATE) if sample_rate != _TELEPHONE_RATE else waveform
    low, high = _TELEPHONE_HZ
    bands = ((0.0, low), (high, _TELEPHONE_RATE / 2))
    narrow = mask_bands(narrow, bands, _TELEPHONE_RATE)
    scale = max(1.0, float(np.abs(narrow).max(initial=0.0)))
    narrow = _through_mu_law(narrow / np.float32(scale)) * np.float32(scale)
    wide = soxr.resample(narrow, _TELEPHONE_RATE, sample_rate) if sample_rate != _TELEPHONE_RATE else narrow
    return np.pad(wide[: len(waveform)], (0, max(0, len(waveform) - len(wide))))


def _through_mu_law(waveform: Samples) -> Samples:
    mu = 255.0
    companded = np.sign(waveform) * np.log1p(mu * np.abs(waveform)) / math.log1p(mu)
    companded = np.round(companded * 127) / 127
    return np.asarray(np.sign(companded) * np.expm1(np.abs(companded) * math.log1p(mu)) / mu, dtype=np.float32)


def draw_time_masks(
    config: AugmentConfig, count: int, sample_rate: float, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Up to `time_masks` spans for each second, as (first, end) samples, each up to `time_mask_s` long."""
    spans = rng.integers(math.floor(config.time_masks * count / sample_rate + rng.random()) + 1)
    lengths = (rng.uniform(0.0, config.time_mask_s, spans) * sample_rate).astype(int)
    starts = (rng.random(spans) * np.maximum(1, count - lengths)).astype(int)
    return [(int(start), min(count, int(start + length))) for start, length in zip(starts, lengths, strict=True)]


def mask_times(waveform: Samples, spans: list[tuple[int, int]], sample_rate: int) -> Samples:
    """Spans set to zero, faded over 2 ms inside the span so that the edges do not click; (S,) -> (S,)."""
    masked = waveform.copy()
    fade = round(_FADE_S * sample_rate)
    ramp = (0.5 + 0.5 * np.cos(np.pi * (np.arange(fade) + 1) / (fade + 1))).astype(np.float32)
    for first, end in spans:
        if end - first < 2 * fade:
            continue
        masked[first : first + fade] *= ramp
        masked[first + fade : end - fade] = 0.0
        masked[end - fade : end] *= ramp[::-1]
    return masked


def draw_band_masks(config: AugmentConfig, sample_rate: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Up to `band_masks` bands as (low, high) in Hz, each up to `band_mask_mel` of the mel axis wide."""
    top = float(hz_to_mel(sample_rate / 2))
    bands = []
    for _ in range(rng.integers(config.band_masks + 1)):
        width = rng.uniform(0.0, config.band_mask_mel) * top
        low = rng.uniform(0.0, top - width)
        bands.append((float(mel_to_hz(low)), float(mel_to_hz(low + width))))
    return bands


def mask_bands(
    waveform: Samples, bands: tuple[tuple[float, float], ...] | list[tuple[float, float]], rate: int
) -> Samples:
    """Frequency bands removed by zero-phase band-stop filters with smooth edges inside the band; (S,) -> (S,)."""
    if not bands:
        return waveform
    size = fast_length(len(waveform) + rate // 20)
    hz_per_bin = rate / size
    spectrum = np.fft.rfft(waveform, size)
    for low, high in bands:
        first, end = math.ceil(low / hz_per_bin), min(len(spectrum), math.floor(high / hz_per_bin) + 1)
        if end <= first:
            continue
        hz = np.arange(first, end) * hz_per_bin
        edge = min(_EDGE_HZ, (high - low) / 4)
        below = np.inf if low <= 0 else (hz - low) / edge
        above = np.inf if high >= rate / 2 else (high - hz) / edge
        inside = np.clip(np.minimum(below, above), 0.0, 1.0)
        spectrum[first:end] *= (0.5 + 0.5 * np.cos(np.pi * inside)).astype(np.float32)
    return np.asarray(np.fft.irfft(spectrum, size)[: len(waveform)], dtype=np.float32)


def _power(waveform: Samples) -> float:
    return float(np.dot(waveform, waveform)) / max(1, len(waveform))


def fast_length(count: int) -> int:
    """The least even number >= count with no prime factor above 5: lengths at which Fourier transforms are fast."""
    best = 1 << max(1, (count - 1).bit_length())
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            twos = 2 * threes
            while twos < count:
                twos *= 2
            best = min(best, twos)
            threes *= 3
        fives *= 5
    return best
