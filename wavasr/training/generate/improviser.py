"""A vocoder's frames become codes, and a WaveNet learns what follows on what: the vocoder can then improvise."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from wavasr.generation.conversion import manner
from wavasr.network.config import MEL_BANDS, ImproviserConfig
from wavasr.network.improviser import Improviser
from wavasr.training.generate.config import ImproviseConfig
from wavasr.training.generate.data import Studio

log = logging.getLogger("wavasr")

Array = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]

_ROUNDS = 12  # of k-means
_SAMPLE = 60000  # frames that k-means sees
_CROP_FRAMES = 400
_BATCH = 4
_WARMUP = 30
_LAG_WEIGHT = 4.0  # a pitch that is off is worse than a voicing that is


class Spoken(NamedTuple):
    """Frames of a recording: features (F, bands + 2), and the speaker's number."""

    features: Array
    speaker: int


def train_improviser(studio: Studio, config: ImproviseConfig, seed: int) -> Improviser:
    """A network that improvises frames like those of the recordings."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 2))
    spoken = collect(studio, config.minutes, rng)
    model = Improviser(config.network, max(1, len(studio.voices.names)))
    recordings = _encode(model, spoken, config.network, rng)
    held = max(1, len(recordings) // 20)
    _learn(model, recordings[:-held], config.steps, rng)
    nats, pitch_nats = _held_out(model, recordings[-held:])
    counts = np.bincount(np.concatenate([codes for codes, _, _ in recordings]), minlength=config.network.codes)
    shares = counts / counts.sum()
    unigram = -(shares * np.log2(np.maximum(shares, 1e-12))).sum()
    log.info(
        "improviser: %d frames, held-out %.2f bits of the spectrum and %.2f of the pitch (unigram %.2f)",
        int(counts.sum()), nats / math.log(2), pitch_nats / math.log(2), unigram,
    )  # fmt: skip
    return model.eval()


def collect(studio: Studio, minutes: float, rng: np.random.Generator) -> list[Spoken]:
    """Frames of at most so many minutes of each speaker."""
    found = []
    for name in sorted({u.speaker for u in studio.voices.train}):
        own = [u for u in studio.voices.train if u.speaker == name]
        left_s = 60 * minutes
        for index in rng.permutation(len(own)):
            if left_s <= 0:
                break
            recording = studio.recording(own[index])
            found.append(Spoken(recording.frames.features, recording.speaker))
            left_s -= own[index].duration_s
    return [found[index] for index in rng.permutation(len(found))]


def _encode(
    model: Improviser, spoken: list[Spoken], config: ImproviserConfig, rng: np.random.Generator
) -> list[tuple[Codes, Codes, int]]:
    """Set the model's tables; the recordings as codes, pitch codes and speakers."""
    means = np.zeros((model.means.shape[0], MEL_BANDS + 1), np.float32)
    for speaker in {one.speaker for one in spoken}:
        own = [one.features for one in spoken if one.speaker == speaker]
        model.manners[speaker] = torch.from_numpy(manner([one[:, :MEL_BANDS] for one in own]))
        rows = np.concatenate(own)
        voiced = rows[rows[:, MEL_BANDS] > 0.6] if (rows[:, MEL_BANDS] > 0.6).any() else rows
        means[speaker] = [*rows[:, :MEL_BANDS].mean(axis=0), voiced[:, -1].mean()]
    spectra = [one.features[:, :MEL_BANDS] - means[one.speaker, :-1] for one in spoken]
    pitches = [one.features[:, MEL_BANDS:] - np.array([0, means[one.speaker, -1]]) for one in spoken]
    weights = np.array([1, _LAG_WEIGHT])
    spectrum_table = k_means(_some(np.concatenate(spectra), rng), config.codes, rng)
    pitch_table = k_means(_some(np.concatenate(pitches) * weights, rng), config.pitch_codes, rng)
    model.means.copy_(torch.from_numpy(means))
    model.spectra.copy_(torch.from_numpy(spectrum_table))
    model.pitches.copy_(torch.from_numpy(pitch_table / weights))
    return [
        (nearest(spectrum, spectrum_table), nearest(pitch * weights, pitch_table), one.speaker)
        for spectrum, pitch, one in zip(spectra, pitches, spoken, strict=True)
    ]


def _some(rows: npt.NDArray[np.floating], rng: np.random.Generator) -> npt.NDArray[np.floating]:
    return rows[rng.permutation(len(rows))[:_SAMPLE]]


def k_means(rows: npt.NDArray[np.floating], count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Centres of clusters (Lloyd's algorithm): (N, D) -> (count, D). An empty cluster takes a random row."""
    centres = rows[rng.choice(len(rows), count, replace=len(rows) < count)].astype(np.float64)
    for _ in range(_ROUNDS):
        own = nearest(rows, centres)
        sizes = np.bincount(own, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, own, rows)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
        empty = np.flatnonzero(sizes == 0)
        centres[empty] = rows[rng.choice(len(rows), len(empty))]
    return centres


def nearest(rows: npt.NDArray[np.floating], centres: npt.NDArray[np.floating]) -> Codes:
    """The number of the nearest centre of each row: (N, D), (K, D) -> (N,)."""
    return np.asarray((np.square(centres).sum(axis=1) - 2 * rows @ centres.T).argmin(axis=1), dtype=np.int64)


def _learn(model: Improviser, recordings: list[tuple[Codes, Codes, int]], steps: int, rng: np.random.Generator) -> None:
    adam = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    lengths = np.array([len(codes) for codes, _, _ in recordings], float)
    for step in range(steps):
        left = 1 - step / steps
        for group in adam.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / _WARMUP) * min(1.0, 0.05 + 2 * left)
        batch = [recordings[i] for i in rng.choice(len(recordings), _BATCH, p=lengths / lengths.sum())]
        nats, pitch_nats = _nats(model, [_crop(one, rng) for one in batch])
        adam.zero_grad()
        (nats + pitch_nats).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        if step % 100 == 99:
            log.info("improviser: step %d of %d, %.2f bits", step + 1, steps, float(nats.detach()) / math.log(2))


def _crop(recording: tuple[Codes, Codes, int], rng: np.random.Generator) -> tuple[Codes, Codes, int]:
    """A stretch of fixed length; a shorter recording is repeated."""
    codes, pitches, speaker = recording
    if len(codes) <= _CROP_FRAMES:
        rows = np.arange(_CROP_FRAMES + 1) % len(codes)
    else:
        first = int(rng.integers(len(codes) - _CROP_FRAMES))
        rows = np.arange(first, first + _CROP_FRAMES + 1)
    return codes[rows], pitches[rows], speaker


def _nats(model: Improviser, batch: list[tuple[Codes, Codes, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    codes, pitches, speakers = (torch.from_numpy(np.stack(part)) for part in zip(*batch, strict=True))
    logits = model(codes, pitches, speakers)
    return F.cross_entropy(logits.codes, codes[:, 1:]), F.cross_entropy(logits.pitch_codes, pitches[:, 1:])


@torch.no_grad()
def _held_out(model: Improviser, recordings: list[tuple[Codes, Codes, int]]) -> tuple[float, float]:
    """Nats per frame of both codes."""
    sums, count = np.zeros(2), 0
    for recording in recordings:
        found = _nats(model, [recording])
        frames = len(recording[0]) - 1
        sums += [float(nats) * frames for nats in found]
        count += frames
    return float(sums[0] / count), float(sums[1] / count)
