"""Which utterances make up each step of a run: a pure function of (seed, epoch), the same in every process.

A plan is a list of global batches. Process r of n takes every n-th utterance of each, so that all processes have as
many steps by construction, another number of processes keeps the order of the data, and where a run stands is two
integers: the epoch and the next batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

_GRID_S = 0.1  # padded lengths are multiples of this


class Draw(NamedTuple):
    """One utterance of a batch.

    Attributes:
        epoch: for which epoch it is drawn.
        utterance: its index.
        padded_samples: to how many samples it is padded.
        counts: False where a process has no utterance of a batch and takes one only to keep step with the others.
    """

    epoch: int
    utterance: int
    padded_samples: int
    counts: bool = True


class Planned(NamedTuple):
    """One global batch: (N,) utterances, all padded to the same length."""

    utterances: npt.NDArray[np.int64]
    padded_samples: int


class Plan:
    """Batches of utterances of similar length; all batches of a bucket are padded to the same length.

    Args:
        durations_s: longest length that each utterance may have (after augmentation).
        batch_s: seconds of audio in a global batch, padding included; an utterance longer than this is a batch of its
            own.
        sample_rate: samples per second.
        buckets: how many different lengths.
        seed: start of the shuffling.
        shuffle: a new order each epoch; without it always the same, short utterances first.
        short_first_epochs: epochs whose batches are shuffled within a length only, the short ones first.
    """

    def __init__(
        self,
        durations_s: Sequence[float] | npt.NDArray[np.float64],
        batch_s: float,
        sample_rate: int,
        *,
        buckets: int = 8,
        seed: int = 0,
        shuffle: bool = True,
        short_first_epochs: int = 0,
    ) -> None:
        durations = np.asarray(durations_s, np.float64)
        edges = np.asarray(bucket_edges(durations, buckets))
        which = np.searchsorted(edges, durations - 1e-6)
        self._members = [np.flatnonzero(which == bucket) for bucket in range(len(edges))]
        self._sizes = [max(1, int(batch_s / edge)) for edge in edges]
        self._padded_samples = [round(float(edge) * sample_rate) for edge in edges]
        self._short_first_epochs = short_first_epochs
        self._seed, self._shuffle = seed, shuffle
        padded_s = sum(len(members) * edge for members, edge in zip(self._members, edges, strict=True))
        self.padding_share = 1.0 - float(durations.sum()) / max(float(padded_s), 1e-9)

    def __len__(self) -> int:
        return sum(-(-len(members) // size) for members, size in zip(self._members, self._sizes, strict=True))

    def epoch(self, epoch: int) -> list[Planned]:
        """All global batches of an epoch, in order."""
        rng = np.random.default_rng((self._seed, epoch))
        planned = []
        for members, size, samples in zip(self._members, self._sizes, self._padded_samples, strict=True):
            order = rng.permutation(members) if self._shuffle else members
            planned += [Planned(order[start : start + size], samples) for start in range(0, len(order), size)]
        if self._shuffle and epoch >= self._short_first_epochs:
            planned = [planned[i] for i in rng.permutation(len(planned))]
        return planned


class RankBatches(Sampler[list[Draw]]):
    """This process's part of each global batch.

    Attributes:
        epoch: which is planned next.
        first_batch: where in it to begin.
    """

    def __init__(self, plan: Plan, rank: int = 0, world_size: int = 1) -> None:
        self.plan, self._rank, self._world_size = plan, rank, world_size
        self.epoch = self.first_batch = 0

    def __len__(self) -> int:
        return len(self.plan)

    def draws(self, planned: Planned, epoch: int) -> list[Draw]:
        """Every n-th utterance of a global batch."""
        own = planned.utterances[self._rank :: self._world_size]
        if len(own):
            return [Draw(epoch, int(index), planned.padded_samples) for index in own]
        return [Draw(epoch, int(planned.utterances[0]), planned.padded_samples, counts=False)]

    def batches(self, epoch: int) -> list[list[Draw]]:
        """All batches of this process in an epoch."""
        return [self.draws(planned, epoch) for planned in self.plan.epoch(epoch)]

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = self.epoch
        for planned in self.plan.epoch(epoch)[self.first_batch :]:
            yield self.draws(planned, epoch)


def bucket_edges(durations_s: Sequence[float] | npt.NDArray[np.float64], buckets: int) -> list[float]:
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
