"""Recordings of speakers, and the crops of them that a generator learns."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wavasr.audio.scores import Note, read_midi
from wavasr.corpora.manifest import Utterance, report_dropped
from wavasr.corpora.recordings import load_utterance, read_recordings
from wavasr.corpora.remote import join
from wavasr.errors import AudioError, ConfigError, CorpusError
from wavasr.generation.frames import Frames, frames_of_past, past_samples
from wavasr.generation.inputs import QUANTILE, QUANTILE_AT, Gains, density_bits, excitation, fit_gains, lesson, prepared
from wavasr.generation.notes import stretch
from wavasr.generation.quantise import encode, log2_widths
from wavasr.network.config import CONDITION_REACH, GeneratorConfig
from wavasr.network.generator import Generator
from wavasr.training.generate.config import GenerateConfig, RecordingsConfig
from wavasr.training.generators import EpochLoader, epoch_and_place

log = logging.getLogger("wavasr")

Array = npt.NDArray[np.float32]

MARGIN_FRAMES = 2  # before a crop, whose excitation the pitch taps of the first frames see
DEV_CROP_FRAMES = 60
_PIECE_S = 30.0  # longer recordings are learnt in pieces of this length
_ROUGH_LEVEL, _ROUGH_NOISE = 0.4, 0.6  # of the past of notes; see `_roughened`
_KEPT_S = 3000.0  # of prepared recordings in memory


class Crop(NamedTuple):
    """A stretch of a recording, or a batch of them.

    Attributes:
        inputs: (I, T) float32.
        classes: (T,) int64.
        frames: (D, F + 4) float32 features, with two more frames on both sides ("mel") or four more before.
        speaker: () int64.
        density: (T,) float32 to add to a class's bits, see `density_bits`.
    """

    inputs: Tensor
    classes: Tensor
    frames: Tensor
    speaker: Tensor
    density: Tensor


@dataclass(frozen=True)
class Recording:
    """A recording prepared for learning.

    Attributes:
        samples: (F * hop,) pre-emphasised, at the active level.
        frames: F of them.
        speaker: its number.
        gain: what the recording was multiplied by.
    """

    samples: Array
    frames: Frames
    speaker: int
    gain: float


@dataclass(frozen=True)
class Voices:
    """Who is learnt from what.

    Attributes:
        names: of the speakers, sorted; empty where there is only one.
        train: utterances to learn.
        dev: utterances held out.
    """

    names: tuple[str, ...]
    train: Sequence[Utterance]
    dev: Sequence[Utterance]

    def number(self, utterance: Utterance) -> int:
        """Of an utterance's speaker."""
        return self.names.index(utterance.speaker) if self.names else 0


def read_voices(config: RecordingsConfig, frames: int = 26) -> Voices:
    """The recordings of at least so many frames that the recipe names, and each speaker's last ones held out.

    Raises:
        CorpusError: a manifest or recording cannot be used.
        ConfigError: a speaker is not in the manifests.
    """
    whole = [utterance for name in config.train for utterance in read_recordings(join(config.root, name))]
    found = [piece for utterance in whole for piece in _pieces(utterance)]
    found = [replace(u, speaker=config.names.get(u.speaker, u.speaker)) for u in found]
    known = sorted({u.speaker for u in found})
    if unknown := sorted(set(config.speakers) - set(known)):
        raise ConfigError(f"data.speakers: {unknown[0]} is not in the manifests; known: {', '.join(known)}")
    if config.speakers:
        found = [u for u in found if u.speaker in config.speakers]
    short = {u.id: f"{u.duration_s:.2f} s" for u in found if u.duration_s < 0.01 * frames}
    report_dropped(f"less than {frames} frames", short)
    found = [u for u in found if u.id not in short]
    spoken = {name: [u for u in found if u.speaker == name] for name in sorted({u.speaker for u in found})}
    lone = {own[0].id: f"speaker {name!r}" for name, own in spoken.items() if len(own) == 1}
    report_dropped("no second recording of their speaker", lone)
    names = [name for name, own in spoken.items() if len(own) > 1]
    train: list[Utterance] = []
    dev: list[Utterance] = []
    for name in names:
        own = spoken[name]
        held = _last(own, config.dev_share * sum(u.duration_s for u in own))
        train += own[:-held]
        dev += own[-held:]
    if not train:
        raise CorpusError(f"{config.root}: nothing is left to train on; give each speaker two recordings or more")
    return Voices(tuple(names) if len(names) > 1 else (), train, dev)


def _last(utterances: Sequence[Utterance], seconds: float) -> int:
    """How many of the last utterances are at least so long, one at least."""
    count, total = 0, 0.0
    while count == 0 or (total < seconds and count < len(utterances) - 1):
        count += 1
        total += utterances[-count].duration_s
    return count


def _pieces(utterance: Utterance) -> list[Utterance]:
    if utterance.duration_s <= 1.5 * _PIECE_S:
        return [utterance]
    count = int(utterance.duration_s // _PIECE_S)
    return [
        replace(utterance, id=f"{utterance.id}@{i}", offset_s=utterance.offset_s + i * _PIECE_S, duration_s=_PIECE_S)
        for i in range(count)
    ]


def prepare(samples: Array, speaker: int, config: GeneratorConfig, notes: Sequence[Note] = ()) -> Recording:
    """A recording (S,) float32 as it is learnt, with the notes that are played where they are the condition."""
    emphasised, frames, gain = prepared(samples, config, notes)
    return Recording(emphasised, frames, speaker, gain)


def crop(recording: Recording, first: int, count: int, config: GeneratorConfig, gains: Gains) -> Crop:
    """Frames `first` to `first + count` of a recording."""
    hop, order = config.hop_samples, recording.frames.coefficients.shape[1]
    before = min(MARGIN_FRAMES, first)
    start = first - before
    frames = recording.frames[start : first + count]
    begin = start * hop - order
    samples = np.pad(recording.samples[max(0, begin) : (first + count) * hop], (max(0, -begin), 0))
    inputs, classes = lesson(samples, frames, config, gains)
    density = density_bits(frames, classes, config, gains, recording.gain)
    skipped = before * hop
    reach = (2 * CONDITION_REACH, 0) if config.condition == "past" else (CONDITION_REACH, CONDITION_REACH)
    rows = np.clip(np.arange(first - reach[0], first + count + reach[1]), 0, len(recording.frames) - 1)
    return Crop(
        torch.from_numpy(inputs[:, skipped:].copy()),
        torch.from_numpy(classes[skipped:].copy()),
        torch.from_numpy(recording.frames.features[rows].T.copy()),
        torch.tensor(recording.speaker),
        torch.from_numpy(density[skipped:].copy()),
    )


class Studio:
    """Prepares recordings, and keeps those that were used last."""

    def __init__(self, voices: Voices, config: GenerateConfig) -> None:
        self.voices, self.config = voices, config
        mean_s = sum(u.duration_s for u in voices.train) / len(voices.train)
        self.recording: Callable[[Utterance], Recording] = functools.lru_cache(
            maxsize=max(16, config.data.crops_per_recording, int(_KEPT_S / mean_s))
        )(self._prepare)

    def _prepare(self, utterance: Utterance) -> Recording:
        config = self.config.generator
        notes = self.notes(utterance) if config.condition == "notes" else ()
        return prepare(self.audio(utterance), self.voices.number(utterance), config, notes)

    def notes(self, utterance: Utterance) -> list[Note]:
        """The notes of an utterance, from the MIDI file beside it.

        Raises:
            AudioError: there is none, or it cannot be used.
        """
        path = utterance.audio.with_suffix(".mid")
        if not path.is_file():
            raise AudioError(f"{utterance.audio}: its notes are missing; expected {path.name} beside it")
        return stretch(read_midi(path), utterance.offset_s, utterance.duration_s)

    def audio(self, utterance: Utterance) -> Array:
        """The samples of an utterance."""
        whole = utterance.offset_s == 0 and not utterance.id.endswith("@0")
        return load_utterance(utterance, self.config.generator.sample_rate, to_end=whole)

    def measure(self, generator: Generator, utterances: int = 40) -> None:
        """Set what the network must know of the training speech: gains, and the frames' mean and spread."""
        rng = np.random.default_rng(self.config.seed)
        chosen = rng.permutation(len(self.voices.train))[:utterances]
        excerpts, features = [], []
        for index in chosen:
            one = self.recording(self.voices.train[index])
            hop, order = self.config.generator.hop_samples, one.frames.coefficients.shape[1]
            left = excitation(np.pad(one.samples, (order, 0)), one.frames, hop)
            ratios = np.asarray(left / np.repeat(one.frames.level, hop), dtype=np.float32)
            excerpts.append((one.samples[::7], ratios[::7]))
            features.append(one.frames.features)
        gains, rows = fit_gains(excerpts), np.concatenate(features)
        generator.sample_gain.fill_(gains.sample)
        generator.excitation_gain.fill_(gains.excitation)
        if rows.shape[1]:
            generator.frame_mean.copy_(torch.from_numpy(rows.mean(axis=0)))
            generator.frame_scale.copy_(torch.from_numpy(np.maximum(rows.std(axis=0), 1e-3)))


class Crops(Dataset[Crop]):
    """An epoch's crops, the same in every run: speakers equally often, then their recordings."""

    def __init__(self, studio: Studio, gains: Gains, epoch: int) -> None:
        data = studio.config.data
        self._studio, self._gains, self._epoch = studio, gains, epoch
        rng = np.random.default_rng((studio.config.seed, 1, epoch))
        by_speaker = _by_speaker(studio.voices)
        plan: list[tuple[Utterance, float]] = []
        while len(plan) < data.epoch_crops:
            own = by_speaker[int(rng.integers(len(by_speaker)))]
            utterance = own[int(rng.integers(len(own)))]
            plan += [(utterance, float(rng.random())) for _ in range(data.crops_per_recording)]
        self._plan = [plan[index] for index in rng.permutation(len(plan))[: data.epoch_crops]]

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Crop:
        utterance, place = self._plan[index]
        config = self._studio.config
        recording = self._studio.recording(utterance)
        count = config.data.crop_frames
        first = int(place * (len(recording.frames) - count + 1))
        found = crop(recording, first, count, config.generator, self._gains)
        if config.generator.condition != "notes":
            return found
        return found._replace(
            inputs=_roughened(found.inputs, np.random.default_rng((config.seed, 2, self._epoch, index)))
        )


def _roughened(inputs: Tensor, rng: np.random.Generator) -> Tensor:
    """The past (all inputs but the tone) louder or softer than it was, and noisy, as it is when the network plays.

    Long tones are copied from the past, period by period: without this, so are all errors, which grow. In the manner of
    LPCNet (arXiv 1810.11846), whose past is noisy too.
    """
    past, tone = inputs[:-1], inputs[-1:]
    louder, noise = float(np.exp(_ROUGH_LEVEL * rng.standard_normal())), float(_ROUGH_NOISE * rng.random())
    scale = past.std(dim=1, keepdim=True) * noise
    rough = past * louder + scale * torch.from_numpy(rng.standard_normal(past.shape, dtype=np.float32))
    return torch.cat([rough, tone])


def _by_speaker(voices: Voices) -> list[list[Utterance]]:
    names = sorted({u.speaker for u in voices.train})
    return [[u for u in voices.train if u.speaker == name] for name in names]


def dev_places(studio: Studio) -> list[tuple[Recording, int]]:
    """The crops that are validated on, by their first frames: long ones, all speakers in turn."""
    config = studio.config
    rng = np.random.default_rng(5)
    long = [u for u in studio.voices.dev if u.duration_s >= 0.01 * (DEV_CROP_FRAMES + 2)]
    if not long:
        raise CorpusError(
            f"the recordings held out are all shorter than {DEV_CROP_FRAMES / 100} s; raise data.dev_share"
        )
    names = sorted({u.speaker for u in long})
    found = []
    for index in range(config.data.dev_crops):
        own = [u for u in long if u.speaker == names[index % len(names)]]
        recording = studio.recording(own[int(rng.integers(len(own)))])
        found.append((recording, int(rng.integers(len(recording.frames) - DEV_CROP_FRAMES + 1))))
    return found


def baselines(places: Sequence[tuple[Recording, int]], config: GeneratorConfig) -> dict[str, float]:
    """Bits per 16-bit step of validation samples without a network.

    The unigram entropy of mu-law classes; a Gaussian, and what linear prediction leaves as a Laplacian, each with its
    true level in every 10 ms, which no model is told.
    """
    skipped = -(-min(config.receptive_samples, DEV_CROP_FRAMES * config.hop_samples // 2) // config.hop_samples)
    past = replace(config, condition="past", excitation="lpc")
    kinds = {"lpc_past_laplace": past} | ({"lpc_mel_laplace": config} if config.condition in ("mel", "notes") else {})
    found: dict[str, list[float]] = {}
    scaled = []
    for recording, first in places:
        part = slice(first + skipped, first + DEV_CROP_FRAMES)
        step = 15 - np.log2(recording.gain)
        own = recording.samples.reshape(-1, config.hop_samples)[part]
        scaled.append(own.ravel() / recording.gain)
        level = np.sqrt(np.square(own).mean(axis=1) + 1e-12)
        found.setdefault("gaussian", []).append(float(np.log2(np.sqrt(2 * np.pi * np.e) * level).mean() + step))
        for name, kind in kinds.items():
            frames = _past(recording, kind) if kind is past else recording.frames
            order = frames.coefficients.shape[1]
            left = excitation(np.pad(recording.samples, (order, 0)), frames, config.hop_samples)
            size = np.abs(left.reshape(-1, config.hop_samples)[part]).mean(axis=1) + 1e-9
            found.setdefault(name, []).append(float(np.log2(2 * np.e * size).mean() + step))
    return {"unigram": _unigram(np.concatenate(scaled)), **{name: float(np.mean(bits)) for name, bits in found.items()}}


def _past(recording: Recording, config: GeneratorConfig) -> Frames:
    width = past_samples(config)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(recording.samples, (width, 0)), width)
    return frames_of_past(windows[:: config.hop_samples][: len(recording.frames)], config)


def _unigram(samples: Array) -> float:
    gain = QUANTILE_AT / float(np.quantile(np.abs(samples), QUANTILE))
    classes = encode(samples * gain)
    shares = np.bincount(classes, minlength=256) / len(classes)
    entropy = -(shares * np.log2(np.maximum(shares, 1e-12))).sum()
    return float(entropy + log2_widths()[classes].mean() - np.log2(gain) + 15)


class CropData(pl.LightningDataModule):
    """Training crops, anew in each epoch, and the crops that are validated on."""

    def __init__(self, studio: Studio, gains: Gains) -> None:
        super().__init__()
        self.studio, self.gains = studio, gains
        self.places = dev_places(studio)
        config = studio.config.generator
        self.dev = [crop(recording, first, DEV_CROP_FRAMES, config, gains) for recording, first in self.places]

    def train_dataloader(self) -> DataLoader[Crop]:
        """This epoch's; Lightning asks in every epoch."""
        data = self.studio.config.data
        epoch, *place = epoch_and_place(self.trainer)
        return EpochLoader(Crops(self.studio, self.gains, epoch), data.batch, data.workers, *place)

    def val_dataloader(self) -> Iterable[Any]:
        """Always the same."""
        return DataLoader(_Listed(self.dev), 4)


class _Listed(Dataset[Crop]):
    def __init__(self, crops: Sequence[Crop]) -> None:
        self._crops = crops

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: int) -> Crop:
        return self._crops[index]


def gains_of(buffers: Mapping[str, Any]) -> Gains:
    """The gains that a network's state holds."""
    return Gains(float(buffers["sample_gain"]), float(buffers["excitation_gain"]))
