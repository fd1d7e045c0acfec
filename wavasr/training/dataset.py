"""Utterances as batches: as much audio as memory may hold is decoded once, the rest when it is needed.

Every random choice is a pure function of (seed, epoch, utterance), so a run gives the same batches with any number
of workers, and a resumed run goes on with the batch that it would have seen.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wavasr.corpora.listing import durations_s, take
from wavasr.corpora.manifest import AlignedPhone, Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.language.lexicon import fold_phone
from wavasr.network.runtime import usable_cores
from wavasr.training.frame_cache import CachedFrames
from wavasr.training.plan import Draw, RankBatches
from wavasr.training.splits import Labels
from wavasr.training.workers import loaded, worker_context

log = logging.getLogger("wavasr")

Waveform = npt.NDArray[np.float32]
IGNORED = -100  # frame without a phone: padding, or a phone that the set deletes
_FULL_SCALE = np.float32(32768.0)
_SLACK = 16  # samples by which resampling may miss what the manifest says


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
        front_end_frames: (B, C, T) float16 of a frozen front end, from files; the waveform is then (B, 0).
        counts: False for a batch that only keeps this process in step with others: nothing is learnt of it.
    """

    waveform: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    ids: list[str]
    places: list[int]
    frame_targets: Tensor
    front_end_frames: Tensor | None = None
    counts: bool = True


class Item(NamedTuple):
    """One utterance as the workers hand it to `collate`; `front_end_frames` are (C, T) instead of a waveform."""

    id: str
    place: int
    waveform: Waveform
    samples: int
    labels: Sequence[int]
    padded_samples: int
    frame_labels: npt.NDArray[np.int64]
    front_end_frames: Tensor | None
    counts: bool = True


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
    """The audio of many utterances, as 16-bit samples.

    The first of them, as many as `limit_mb` holds, are decoded once into one array, which forked workers share without
    copies; the others are read from their files each time. Either way the samples are the same.

    Attributes:
        lengths: samples of each utterance: as decoded, or as the manifest says.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        sample_rate: int,
        *,
        limit_mb: float = math.inf,
        progress: bool = True,
    ) -> None:
        """Decode what is kept, on all cores.

        Raises:
            AudioError: a file cannot be read, or is shorter than its manifest says.
        """
        self._utterances, self._sample_rate = utterances, sample_rate
        self.lengths = np.rint(durations_s(utterances) * sample_rate).astype(np.int64)
        ends = np.cumsum(self.lengths + _SLACK)
        self._kept = int(np.searchsorted(ends, min(limit_mb, 1e12) * 2**20 / 2, side="right"))
        self._starts = (ends - self.lengths - _SLACK)[: self._kept]
        self._samples = np.zeros(int(ends[self._kept - 1]) if self._kept else 0, np.int16)
        with ThreadPoolExecutor(usable_cores()) as pool:
            decoded = pool.map(self._decode, range(self._kept))
            hidden = None if progress else True  # None: no bar where there is no terminal
            for index, piece in enumerate(tqdm(decoded, "decoding audio", self._kept, "file", disable=hidden, delay=1)):
                start = self._starts[index]
                self.lengths[index] = len(piece)
                self._samples[start : start + len(piece)] = piece

    def _decode(self, index: int) -> npt.NDArray[np.int16]:
        utterance = self._utterances[index]
        waveform = load_utterance(utterance, self._sample_rate)
        most = round(utterance.duration_s * self._sample_rate) + _SLACK
        rounded = np.clip(np.rint(waveform[:most] * _FULL_SCALE), -32768, 32767)
        return np.asarray(rounded, np.int16)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Waveform:
        """The waveform (S,) float32 of one utterance."""
        if index < self._kept:
            start = self._starts[index]
            piece = self._samples[start : start + self.lengths[index]]
        else:
            piece = self._decode(index)
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
        cache_mb: how much audio is kept decoded in memory; the rest is read at each use.

    Raises:
        AudioError: a file cannot be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        labels: Labels,
        sample_rate: int,
        *,
        augment: Callable[[Waveform, np.random.Generator], Waveform] | None = None,
        frame_labels: FrameLabels | None = None,
        seed: int = 0,
        cache_mb: float = math.inf,
    ) -> None:
        self.utterances = utterances
        self.labels = labels
        self.sample_rate = sample_rate
        self._augment = augment
        self._frame_labels = frame_labels
        self._seed = seed
        self.cached: CachedFrames | None = None
        self._store = AudioStore(utterances, sample_rate, limit_mb=cache_mb)
        self._kept = np.arange(len(utterances))

    @contextlib.contextmanager
    def augmented_by(self, augment: Callable[[Waveform, np.random.Generator], Waveform]) -> Iterator[None]:
        """Another augmentation for a while."""
        before, self._augment = self._augment, augment
        try:
            yield
        finally:
            self._augment = before

    def drop(self, indices: npt.NDArray[np.int64]) -> None:
        """Leave these utterances out."""
        if not len(indices):
            return
        left = np.delete(np.arange(len(self)), indices)
        self._kept = self._kept[left]
        self.utterances, self.labels = take(self.utterances, left), self.labels.take(left)

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Samples of each utterance: as decoded, or as the manifest says."""
        return self._store.lengths[self._kept]

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, draw: Draw) -> Item:
        utterance = self.utterances[draw.utterance]
        rng = np.random.default_rng((self._seed, draw.epoch, draw.utterance))
        front_end_frames, waveform = None, np.zeros(0, np.float32)
        if self.cached is not None and draw.epoch < self.cached.epochs:
            front_end_frames, samples = self.cached(utterance, draw.epoch, draw.padded_samples, rng)
        else:
            waveform = self._store[int(self._kept[draw.utterance])]
            if self._augment is not None:
                waveform = self._augment(waveform, rng)
            samples = len(waveform)
        frame_labels = np.zeros(0, np.int64)
        if self._frame_labels is not None:
            before = int(self._store.lengths[self._kept[draw.utterance]])
            samples_per_s = self.sample_rate * samples / before  # faster speech passes in fewer samples
            frame_labels = self._frame_labels(utterance.alignment, samples, samples_per_s)
        return Item(
            utterance.id,
            draw.utterance,
            waveform,
            samples,
            self.labels[draw.utterance],
            draw.padded_samples,
            frame_labels,
            front_end_frames,
            draw.counts,
        )


def collate(items: Sequence[Item]) -> Batch:
    """Pad utterances into one batch, at least as long as the batch was planned."""
    longest = max(max(item.samples, item.padded_samples) for item in items)
    cached = [item.front_end_frames for item in items if item.front_end_frames is not None]
    waveform = np.zeros((len(items), 0 if cached else longest), np.float32)
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
        front_end_frames=torch.stack(cached) if cached else None,
        counts=all(item.counts for item in items),
    )


class SpeechLoader(DataLoader[Batch]):
    """A `DataLoader` that knows where it is: its state is (epoch, next batch), and each pass begins the next epoch.

    `waited_s` sums the seconds in which the consumer had to wait for a batch.
    """

    def __init__(self, dataset: SpeechDataset, batches: RankBatches, workers: int, pin_memory: bool = False) -> None:
        super().__init__(
            dataset,  # type: ignore[arg-type]  # of items, which `collate` makes batches of
            batch_sampler=batches,
            num_workers=workers,
            multiprocessing_context=worker_context(workers),
            collate_fn=collate,
            pin_memory=pin_memory,
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
        epoch, first, total = self._epoch, self._batch, len(self.batches)
        begin, begun = super().__iter__, False

        def from_place(number: int) -> Iterator[Batch]:
            nonlocal begun
            if begun:
                self._iterator = None  # with the workers that were killed
            begun = True
            self.batches.epoch, self.batches.first_batch = epoch, first + number
            return begin()

        items = loaded(from_place, self.num_workers)
        for number in range(first + 1, total + 1):
            started = time.perf_counter()
            batch = next(items)
            self.waited_s += time.perf_counter() - started
            # The consumer may save its state as soon as it has the batch, and does not come back after the last one.
            self._epoch, self._batch = (epoch, number) if number < total else (epoch + 1, 0)
            yield batch
