"""Recordings without text: batches that train by the generative loss alone, mixed with those that have labels.

A batch is a pure function of (seed, its number), so that a resumed run goes on with the batch that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance, read_recordings
from wavasr.corpora.remote import join
from wavasr.training.config import DataConfig
from wavasr.training.dataset import Batch, SpeechLoader, Waveform

CROP_S = 3.0  # all crops are as long: one shape for the convolutions


def read_unlabelled(data: DataConfig) -> list[Utterance]:
    """The recordings that `data.unlabelled` names: manifests, whose texts are not read, or folders of sound files.

    Raises:
        CorpusError: a manifest can not be used, or a folder holds no sound files.
        AudioError: a sound file can not be read.
    """
    return [utterance for name in data.unlabelled for utterance in read_recordings(join(data.root, name))]


class UnlabelledBatches:
    """Batches of random crops, long recordings in proportion to their length.

    Args:
        utterances: what is cropped; they are decoded when they are needed.
        sample_rate: samples per second of the crops.
        batch_s: seconds of audio in a batch.
        augment: changes a crop with the generator that it is given.
        seed: start of every random choice.
        rank: which of `world_size` processes this is; each makes its part of a batch.
        world_size: number of processes.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        sample_rate: int,
        batch_s: float,
        augment: Callable[[Waveform, np.random.Generator], Waveform],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._utterances = utterances
        self._ends_s = np.cumsum([utterance.duration_s for utterance in utterances])
        self._rate = sample_rate
        self._crops = max(1, round(batch_s / CROP_S))
        self._augment = augment
        self._seed, self._rank, self._world_size = seed, rank, world_size

    def __call__(self, number: int) -> Batch:
        """The batch of this number: no labels, no phones of frames."""
        own = range(self._rank, self._crops, self._world_size) or range(1)
        samples = round(CROP_S * self._rate)
        waveform = np.zeros((len(own), samples), np.float32)
        lengths, ids = [], []
        for crop_number, row in zip(own, waveform, strict=True):
            rng = np.random.default_rng((self._seed, number, crop_number, 1))
            place_s = rng.uniform(0, self._ends_s[-1])
            utterance = self._utterances[int(np.searchsorted(self._ends_s, place_s, side="right"))]
            crop = self._augment(self._crop(utterance, rng), rng)[:samples]
            row[: len(crop)] = crop
            lengths.append(len(crop))
            ids.append(utterance.id)
        empty = torch.zeros(len(own), 1, dtype=torch.int64)
        return Batch(
            waveform=torch.from_numpy(waveform),
            lengths=torch.tensor(lengths, dtype=torch.int64),
            targets=empty,
            target_lengths=empty[:, 0],
            ids=ids,
            places=[-1 - crop_number for crop_number in own],
            frame_targets=empty[:, :0],
            counts=self._rank < self._crops,
        )

    def _crop(self, utterance: Utterance, rng: np.random.Generator) -> Waveform:
        """A part of CROP_S, and a little more for faster speech; all of a shorter recording."""
        wanted_s = min(utterance.duration_s, 1.3 * CROP_S)
        start_s = rng.uniform(0, utterance.duration_s - wanted_s)
        part = Utterance(utterance.id, utterance.audio, wanted_s, "", offset_s=utterance.offset_s + start_s)
        return load_utterance(part, self._rate)


class MixedLoader:
    """Labelled batches with unlabelled ones between them, as many as makes the stated share of all.

    Args:
        labelled: the loader of the labelled batches; an epoch is one pass over them.
        unlabelled: gives the batch of a number.
        share: of all batches; with 1 there are as many as labelled ones would be, and none of those.
    """

    def __init__(self, labelled: SpeechLoader, unlabelled: Callable[[int], Batch], share: float) -> None:
        self.labelled = labelled
        self._unlabelled = unlabelled
        self._share = share
        self._given = 0  # unlabelled batches since the last labelled one

    def __len__(self) -> int:
        return self._before(len(self.labelled)) + (len(self.labelled) if self._share < 1 else 0)

    def _before(self, labelled: int) -> int:
        """How many unlabelled batches an epoch has had when this many labelled ones are over."""
        return labelled if self._share == 1 else int(labelled * self._share / (1 - self._share) + 1e-9)

    @property
    def waited_s(self) -> float:
        """As of `SpeechLoader`."""
        return self.labelled.waited_s

    def state_dict(self) -> dict[str, int]:
        """The position after the last batch handed out."""
        return {**self.labelled.state_dict(), "unlabelled": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a position."""
        self.labelled.load_state_dict(state)
        self._given = state.get("unlabelled", 0)

    def __iter__(self) -> Iterator[Batch]:
        position: dict[str, Any] = self.labelled.state_dict()
        first = position["epoch"] * self._before(len(self.labelled))
        labelled = iter(self.labelled) if self._share < 1 else None
        for number in range(position["batch"], len(self.labelled)):
            due = self._before(number + 1) - self._before(number)
            for extra in range(self._given, due):
                self._given = extra + 1
                if labelled is None:
                    self._skip(position["epoch"], number + 1)
                yield self._unlabelled(first + self._before(number) + extra)
            if labelled is not None:
                batch = next(labelled)
                self._given = 0
                yield batch

    def _skip(self, epoch: int, number: int) -> None:
        """Without labelled batches their loader's position is still the position in the epoch."""
        self._given = 0
        over = number == len(self.labelled)
        self.labelled.load_state_dict({"epoch": epoch + over, "batch": 0 if over else number})
