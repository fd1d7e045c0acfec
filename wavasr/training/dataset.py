"""Utterances as batches: audio kept in memory as 16-bit samples, batches of similar length cut by seconds of audio.

Every random choice is a pure function of (seed, epoch, utterance), so a run gives the same batches with any number
of workers, and a resumed run goes on with the batch that it would have seen.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from wavasr.corpora.manifest import AlignedPhone, Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.language.lexicon import fold_phone
from wavasr.training.heard import EarFrames

Waveform = npt.NDArray[np.float32]
IGNORED = -100  # frame without a phone: padding, or a phone that the set deletes
_FULL_SCALE = np.float32(32768.0)
_GRID_S = 0.1  # padded lengths are multiples of this


class Batch(NamedTuple):
    """What the network is trained on.

    Attributes:
        waveform: (B, S) float32, padded with zeros.
        lengths: (B,) int64, samples that are not padding.
        targets: (B, L) int64, padded with 0 (the blank).
        target_lengths: (B,) int64.
        ids: the B utterance ids.
        places: their B indices in the dataset.
        frame_targets: (B, T) int64 phone classes of the longest utterance's CTC frames, `IGNORED` where there is none;
            (B, 0) when frames are not classified.
        ear_frames: (B, C, T) float16 where the ear has heard these utterances before; the waveform is then (B, 0).
    """

    waveform: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    ids: list[str]
    places: list[int]
    frame_targets: Tensor
    ear_frames: Tensor | None = None


class Draw(NamedTuple):
    """One utterance of a batch: which one, for which epoch, padded to how many samples."""

    epoch: int
    utterance: int
    padded_samples: int


class Item(NamedTuple):
    """One utterance as the workers hand it to `collate`; `ear_frames` are (C, T) instead of a waveform."""

    id: str
    place: int
    waveform: Waveform
    samples: int
    labels: Sequence[int]
    padded_samples: int
    frame_labels: npt.NDArray[np.int64]
    ear_frames: Tensor | None


class FrameLabels:
    """Phone classes of CTC frames, from time-aligned phones.

    Args:
        utterances: their alignments' phones are the classes.
        phone_set: the folding of `UnitsConfig.phone_set`.
        hop_samples: samples of a CTC frame.
    """

    def __init__(self, utterances: Iterable[Utterance], phone_set: int, hop_samples: int) -> None:
        self._phone_set = phone_set
        self.hop_samples = hop_samples
        found = {span.phone for utterance in utterances for span in utterance.alignment}
        self.phones = sorted({folded for phone in found if (folded := self._fold(phone)) is not None})
        self._classes = {phone: index for index, phone in enumerate(self.phones)}

    def _fold(self, phone: str) -> str | None:
        return fold_phone(phone, self._phone_set) if self._phone_set else phone

    def __call__(self, spans: Sequence[AlignedPhone], samples: int, samples_per_s: float) -> npt.NDArray[np.int64]:
        """The class of the phone at each frame's centre: (T,)."""
        frames = -(-samples // self.hop_samples)
        labels = np.full(frames, IGNORED, np.int64)
        for span in spans:
            folded = self._fold(span.phone)
            first, end = (round(t * samples_per_s / self.hop_samples) for t in (span.start_s, span.end_s))
            if folded in self._classes:
                labels[first:end] = self._classes[folded]
        return labels


class AudioStore:
    """Decoded audio of many utterances in one flat 16-bit array, which forked workers share without copies."""

    def __init__(self, utterances: Sequence[Utterance], sample_rate: int, *, progress: bool = True) -> None:
        """Decode everything, on all cores.

        Raises:
            AudioError: a file cannot be read.
        """

        def decode(utterance: Utterance) -> npt.NDArray[np.int16]:
            waveform = load_utterance(utterance, sample_rate)
            rounded = np.clip(np.rint(waveform * _FULL_SCALE), -32768, 32767)
            return np.asarray(rounded, np.int16)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            decoded = pool.map(decode, utterances)
            hidden = None if progress else True  # None: no bar where there is no terminal
            pieces = list(tqdm(decoded, "decoding audio", len(utterances), unit="file", disable=hidden, delay=1))
        self.lengths = np.array([len(piece) for piece in pieces], np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Waveform:
        """The waveform (S,) float32 of one utterance."""
        start = self._starts[index]
        piece = self._samples[start : start + self.lengths[index]]
        return np.asarray(piece, np.float32) / _FULL_SCALE


class SpeechDataset(Dataset[Item]):
    """Utterances with their labels, augmented when an augmenter is given.

    Args:
        utterances: what to read.
        labels: the label ids of each utterance.
        sample_rate: samples per second of the waveforms handed out.
        augment: changes a waveform with the generator it is given; None for validation.
        frame_labels: makes the classes of the frames out of alignments; None when frames are not classified.
        seed: start of the generator of every (epoch, utterance).
        cache: keep all audio decoded in memory; otherwise files are read at each use.

    Raises:
        AudioError: a file cannot be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[Sequence[int]],
        sample_rate: int,
        *,
        augment: Callable[[Waveform, np.random.Generator], Waveform] | None = None,
        frame_labels: FrameLabels | None = None,
        seed: int = 0,
        cache: bool = True,
    ) -> None:
        self.utterances = utterances
        self.labels = labels
        self.sample_rate = sample_rate
        self._augment = augment
        self._frame_labels = frame_labels
        self._seed = seed
        self.heard: EarFrames | None = None
        self._store = AudioStore(utterances, sample_rate) if cache else None
        self._kept = np.arange(len(utterances))

    @contextlib.contextmanager
    def augmented_by(self, augment: Callable[[Waveform, np.random.Generator], Waveform]) -> Iterator[None]:
        """Another augmentation for a while."""
        before, self._augment = self._augment, augment
        try:
            yield
        finally:
            self._augment = before

    def keep(self, indices: Sequence[int]) -> None:
        """Reduce the dataset to these utterances."""
        self._kept = self._kept[list(indices)]
        self.utterances = [self.utterances[i] for i in indices]
        self.labels = [self.labels[i] for i in indices]

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Samples of each utterance: as decoded, or as the manifest says where audio is not cached."""
        return np.array([self._samples(index) for index in range(len(self))], np.int64)

    def _samples(self, index: int) -> int:
        if self._store is not None:
            return int(self._store.lengths[self._kept[index]])
        return round(self.utterances[index].duration_s * self.sample_rate)

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, draw: Draw) -> Item:
        utterance = self.utterances[draw.utterance]
        rng = np.random.default_rng((self._seed, draw.epoch, draw.utterance))
        ear_frames, waveform = None, np.zeros(0, np.float32)
        if self.heard is not None and draw.epoch < self.heard.epochs:
            ear_frames, samples = self.heard(utterance, draw.epoch, draw.padded_samples, rng)
        else:
            waveform = self._waveform(draw.utterance)
            if self._augment is not None:
                waveform = self._augment(waveform, rng)
            samples = len(waveform)
        frame_labels = np.zeros(0, np.int64)
        if self._frame_labels is not None:
            before = self._samples(draw.utterance)
            samples_per_s = self.sample_rate * samples / before  # faster speech passes in fewer samples
            frame_labels = self._frame_labels(utterance.alignment, samples, samples_per_s)
        labels = self.labels[draw.utterance]
        return Item(
            utterance.id, draw.utterance, waveform, samples, labels, draw.padded_samples, frame_labels, ear_frames
        )

    def _waveform(self, index: int) -> Waveform:
        if self._store is not None:
            return self._store[self._kept[index]]
        return load_utterance(self.utterances[index], self.sample_rate)


def collate(items: Sequence[Item]) -> Batch:
    """Pad utterances into one batch, at least as long as the batch was planned."""
    longest = max(max(item.samples, item.padded_samples) for item in items)
    heard = [item.ear_frames for item in items if item.ear_frames is not None]
    waveform = np.zeros((len(items), 0 if heard else longest), np.float32)
    targets = np.zeros((len(items), max(1, *(len(item.labels) for item in items))), np.int64)
    frame_targets = np.full((len(items), max(len(item.frame_labels) for item in items)), IGNORED, np.int64)
    for row, item in enumerate(items):
        waveform[row, : len(item.waveform)] = item.waveform
        targets[row, : len(item.labels)] = item.labels
        frame_targets[row, : len(item.frame_labels)] = item.frame_labels
    return Batch(
        waveform=torch.from_numpy(waveform),
        lengths=torch.tensor([item.samples for item in items], dtype=torch.int64),
        targets=torch.from_numpy(targets),
        target_lengths=torch.tensor([len(item.labels) for item in items], dtype=torch.int64),
        ids=[item.id for item in items],
        places=[item.place for item in items],
        frame_targets=torch.from_numpy(frame_targets),
        ear_frames=torch.stack(heard) if heard else None,
    )


def bucket_edges(durations_s: Sequence[float], buckets: int) -> list[float]:
    """At most `buckets` batch lengths in seconds that waste the least padding, by dynamic programming.

    Convolutions on CPUs plan anew for every shape they have not met, so lengths must be few.
    """
    steps, counts = np.unique(np.ceil(np.asarray(durations_s) / _GRID_S - 1e-9).astype(int), return_counts=True)
    total = np.concatenate([[0], np.cumsum(counts)])
    # best[j]: least padded length of the first j distinct durations, in the number of buckets of this round
    best = np.concatenate([[0.0], np.full(len(steps), np.inf)])
    choices: list[npt.NDArray[np.int64]] = []
    for _ in range(min(buckets, len(steps))):
        candidates = best[None, :] + steps[:, None] * (total[1:, None] - total[None, :])  # (last step, first step)
        candidates[np.triu_indices(len(steps), 1, len(steps) + 1)] = np.inf
        choice = candidates.argmin(axis=1)
        choices.append(choice)
        best = np.concatenate([[0.0], candidates[np.arange(len(steps)), choice]])
    edges, end = [], len(steps)
    for choice in reversed(choices):
        if end == 0:
            break
        edges.append(round(float(steps[end - 1]) * _GRID_S, 6))
        end = int(choice[end - 1])
    return edges[::-1]


class BucketBatches(Sampler[list[Draw]]):
    """Batches of utterances of similar length; all batches of a bucket are padded to the same length.

    Args:
        durations_s: longest length that each utterance may have (after augmentation).
        batch_s: seconds of audio in a batch, padding included; an utterance longer than this is a batch of its own.
        sample_rate: samples per second.
        buckets: how many different lengths.
        seed: start of the shuffling.
        shuffle: a new order each epoch; without it always the same, short utterances first.
        short_first_epochs: epochs whose batches are shuffled within a length only, the short ones first.
        rank: which of `world_size` processes this is; each sees other batches, and all see as many.
        world_size: number of processes.
    """

    def __init__(
        self,
        durations_s: Sequence[float],
        batch_s: float,
        sample_rate: int,
        *,
        buckets: int = 8,
        seed: int = 0,
        shuffle: bool = True,
        short_first_epochs: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        edges = np.asarray(bucket_edges(durations_s, buckets))
        which = np.searchsorted(edges, np.asarray(durations_s) - 1e-6)
        self._members = [np.flatnonzero(which == bucket) for bucket in range(len(edges))]
        self._sizes = [max(1, int(batch_s / edge)) for edge in edges]
        self._padded_samples = [round(float(edge) * sample_rate) for edge in edges]
        self._short_first_epochs = short_first_epochs
        self._seed, self._shuffle, self._rank, self._world_size = seed, shuffle, rank, world_size
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        batches = sum(-(-len(members) // size) for members, size in zip(self._members, self._sizes, strict=True))
        return -(-batches // self._world_size)

    def batches(self, epoch: int) -> list[list[Draw]]:
        """All batches of this process in an epoch."""
        rng = np.random.default_rng((self._seed, epoch))
        planned = []
        for members, size, samples in zip(self._members, self._sizes, self._padded_samples, strict=True):
            order = rng.permutation(members) if self._shuffle else members
            draws = [Draw(epoch, int(index), samples) for index in order]
            planned += [draws[start : start + size] for start in range(0, len(draws), size)]
        if self._shuffle and epoch >= self._short_first_epochs:
            planned = [planned[i] for i in rng.permutation(len(planned))]
        missing = -len(planned) % self._world_size
        return (planned + planned[:missing])[self._rank :: self._world_size]

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.batches(self.epoch)[self.first_batch :])


class SpeechLoader(DataLoader[Batch]):
    """A `DataLoader` that knows where it is: its state is (epoch, next batch), and each pass begins the next epoch.

    `waited_s` sums the seconds in which the consumer had to wait for a batch.
    """

    def __init__(self, dataset: SpeechDataset, batches: BucketBatches, workers: int) -> None:
        super().__init__(
            dataset,  # type: ignore[arg-type]  # of items, which `collate` makes batches of
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
        )
        self.batches = batches
        self.waited_s = 0.0
        self._epoch = self._batch = 0

    def state_dict(self) -> dict[str, int]:
        """The position after the last batch handed out."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a position."""
        self._epoch, self._batch = state["epoch"], state["batch"]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        epoch = self.batches.epoch = self._epoch
        first = self.batches.first_batch = self._batch
        loaded = super().__iter__()
        for number in range(first + 1, len(self.batches) + 1):
            started = time.perf_counter()
            batch = next(loaded)
            self.waited_s += time.perf_counter() - started
            # The consumer may save its state as soon as it has the batch, and does not come back after the last one.
            self._epoch, self._batch = (epoch, number) if number < len(self.batches) else (epoch + 1, 0)
            yield batch
