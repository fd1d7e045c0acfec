"""Phones to frames by NumPy: what `wavasr.network.text_to_frames` learnt, for one sentence at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavasr.network.config import PHONE_PLACES, SpeechConfig

Array = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
_SHORTEST_FRAMES, _LONGEST_FRAMES = 1, 120


@dataclass(frozen=True)
class SpeechScale:
    """What brings the network's numbers to those of speech, measured on recordings.

    Attributes:
        mel_mean: (bands,) of the log-mel spectrum.
        mel_scale: (bands,) its standard deviation.
        log_lag_mean: of the logarithm of the pitch period, in voiced frames.
        log_lag_scale: its standard deviation.
        duration: durations are multiplied by it, so that their sums are right: the network finds the mean logarithm.
        pitch_spread: how much wider the melody of the recordings is than the network's, about the recordings' mean; a
            regression flattens it.
        mel_spread: (bands,) the same of the spectrum.
    """

    mel_mean: Array
    mel_scale: Array
    log_lag_mean: float
    log_lag_scale: float
    duration: float = 1.0
    pitch_spread: float = 1.0
    mel_spread: Array | None = None


@dataclass(frozen=True)
class SpokenFeatures:
    """A sentence as a vocoder takes it.

    Attributes:
        log_mel: (F, bands).
        log_lag: (F,) natural logarithm of the pitch period, in units of `frames.REFERENCE_LAG` samples.
        voicing: (F,) from 0 to 1.
        durations: (P,) frames of each phone.
    """

    log_mel: Array
    log_lag: Array
    voicing: Array
    durations: npt.NDArray[np.int64]


def places_in(durations: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Array]:
    """For frames of phones with these durations: the phone of each, (F,), and its place there, (FRAME_PLACES, F)."""
    indices = np.repeat(np.arange(len(durations)), durations)
    starts = np.cumsum(durations) - durations
    done = (np.arange(len(indices)) - starts[indices] + 0.5) / durations[indices]
    length = np.log(durations[indices]) - 2.0
    return indices, np.stack([done, done**2, np.sin(np.pi * done), length]).astype(np.float32)


class Speech:
    """The network from phones to frames.

    It computes in double precision and rounds once: the same frames on any number of threads.

    Args:
        config: its shape.
        weights: by the names of `network.text_to_frames.TextToFrames`, float32.
        scale: of its numbers.
    """

    def __init__(self, config: SpeechConfig, weights: Mapping[str, Array], scale: SpeechScale) -> None:
        self.config = config
        self.scale = scale
        self._weights = {name: values.astype(np.float64) for name, values in weights.items()}

    def __call__(
        self,
        phones: npt.NDArray[np.int64],
        places: Array,
        speaker: int = 0,
        rate: float = 1.0,
        semitones: float = 0.0,
    ) -> SpokenFeatures:
        """The frames of a sentence.

        Args:
            phones: (P,) indices into `config.phones`.
            places: (P, PHONE_PLACES).
            speaker: index into `config.speakers`.
            rate: speed; 2 speaks twice as fast.
            semitones: added to the pitch.
        """
        assert places.shape == (len(phones), PHONE_PLACES)
        x = self._weights["phones.weight"][phones] + self._linear("places", places.astype(np.float64))  # (P, C)
        if "speakers.weight" in self._weights:
            x = x + self._weights["speakers.weight"][speaker]
        x = self._blocks("encoder", x, (1,) * self.config.layers)
        frames = np.exp(self._linear("duration", x)[:, 0]) * self.scale.duration / rate
        durations = np.clip(_carried(frames), _SHORTEST_FRAMES, _LONGEST_FRAMES).astype(np.int64)
        indices, within = places_in(durations)
        placed = np.concatenate([x[indices], within.T], axis=1)
        pitch = self._pitch(placed, semitones)
        spectrum = self._linear("to_mel", np.concatenate([placed, pitch], axis=1))
        mel = self._linear("mel", self._blocks("mel_blocks", spectrum, self.config.mel_dilations))
        return self._in_units(mel, pitch, durations)

    def _pitch(self, placed: Wide, semitones: float) -> Wide:
        """Normalised log period with its natural spread, and voicing: (F, 2)."""
        melody = self._blocks("pitch_blocks", self._linear("to_pitch", placed), self.config.pitch_dilations)
        pitch = self._linear("pitch", melody)
        pitch[:, 0] *= self.scale.pitch_spread  # about the recordings' mean: sentences differ from each other too
        pitch[:, 0] -= semitones * np.log(2) / 12 / self.scale.log_lag_scale
        pitch[:, 1] = np.clip(pitch[:, 1], 0.0, 1.0)
        return pitch

    def _in_units(self, mel: Wide, pitch: Wide, durations: npt.NDArray[np.int64]) -> SpokenFeatures:
        scale = self.scale
        if scale.mel_spread is not None:
            mel = mel.mean(axis=0) + (mel - mel.mean(axis=0)) * scale.mel_spread
        return SpokenFeatures(
            log_mel=(mel * scale.mel_scale + scale.mel_mean).astype(np.float32),
            log_lag=(pitch[:, 0] * scale.log_lag_scale + scale.log_lag_mean).astype(np.float32),
            voicing=pitch[:, 1].astype(np.float32),
            durations=durations,
        )

    def _linear(self, name: str, x: Wide) -> Wide:
        """A linear layer, or a convolution of one tap: (T, C) -> (T, D)."""
        weight = self._weights[f"{name}.weight"].reshape(len(self._weights[f"{name}.bias"]), -1)
        return np.asarray(x @ weight.T + self._weights[f"{name}.bias"], np.float64)

    def _blocks(self, name: str, x: Wide, dilations: tuple[int, ...]) -> Wide:
        """`network.text_to_frames.GatedConvolution` for each dilation: (T, C) -> (T, C)."""
        for index, dilation in enumerate(dilations):
            block = f"{name}.{index}"
            centred = x - x.mean(axis=1, keepdims=True)
            normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
            normal = normal * self._weights[f"{block}.norm.weight"] + self._weights[f"{block}.norm.bias"]
            weight = self._weights[f"{block}.conv.weight"]  # (2C, C, taps)
            reach = dilation * (weight.shape[2] // 2)
            padded = np.pad(normal, ((reach, reach), (0, 0)))
            taps = [padded[tap * dilation : tap * dilation + len(x)] for tap in range(weight.shape[2])]
            out = np.concatenate(taps, axis=1) @ weight.transpose(2, 1, 0).reshape(-1, len(weight))
            value, gate = np.split(out + self._weights[f"{block}.conv.bias"], 2, axis=1)
            x = x + value / (1 + np.exp(-gate))
        return x


def _carried(frames: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Durations whose rounded sums follow the sums: what rounding takes from one phone goes to the next."""
    ends = np.rint(np.cumsum(frames))
    return np.asarray(np.diff(ends, prepend=0.0), np.float64)
