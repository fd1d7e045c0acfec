"""Frames of a frozen front end, kept in files: the layers above it learn from them many times, without computing them.

    <folder>/<key>/<name>.f16     frames of many utterances, one after the other: (T, C) float16
    <folder>/<key>/<name>.json    where each utterance lies in it: {utterance: [first frame, frames, samples]}

The key stands for what the frames depend on beside the utterance: weights and one version of the augmentation.
The index appears when its frames are complete: a killed run loses little, and several processes may write beside each
other.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavasr.audio.augment import draw_time_masks
from wavasr.audio.config import AugmentConfig
from wavasr.corpora.manifest import Utterance
from wavasr.errors import ConfigError
from wavasr.files import atomic_text
from wavasr.network.geometry import frames_of

_INDEX_EVERY = 200 * 2**20  # bytes of frames after which an index is written: about an hour of speech


def name_of(utterance: Utterance) -> str:
    """What tells an utterance from all others, whichever manifest lists it."""
    return f"{utterance.audio.as_posix()} {utterance.offset_s:g} {utterance.duration_s:g}"


class Version:
    """The frames of one version of many utterances.

    Args:
        folder: the files of one key; made when something is written.
        channels: of a frame.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        self._folder = folder
        self._channels = channels
        self._places: dict[str, tuple[int, int, int, int]] = {}  # file, first frame, frames, samples
        self._files: list[NDArray[np.float16]] = []
        for index in sorted(folder.glob("*.json")):
            places = json.loads(index.read_text(encoding="utf-8"))
            file = len(self._files)
            stored = np.memmap(index.with_suffix(".f16"), np.float16, "r")
            self._files.append(stored.reshape(-1, channels))
            self._places |= {name: (file, *place) for name, place in places.items()}

    def __contains__(self, utterance: Utterance) -> bool:
        return name_of(utterance) in self._places

    def __getitem__(self, utterance: Utterance) -> tuple[NDArray[np.float16], int]:
        """Frames (T, C) and the samples that they stand for."""
        file, first, frames, samples = self._places[name_of(utterance)]
        return self._files[file][first : first + frames], samples

    def write(self, rows: Iterable[tuple[Utterance, Tensor, int]]) -> None:
        """Add utterances: each with its frames (C, T) and samples. They can be read after the version is opened again.

        Raises:
            ConfigError: the folder cannot be written.
        """
        rows = iter(rows)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while self._write_one(rows):
                pass
        except OSError as error:
            raise ConfigError(
                f"{self._folder}: cannot be written ({error.strerror}); give --run_dir a disk with 185 MB for each "
                "hour and version, or lower optim.front_end_copies"
            ) from error

    def _write_one(self, rows: Iterator[tuple[Utterance, Tensor, int]]) -> bool:
        """Write one file and its index; whether there may be more."""
        path = self._folder / f"{uuid.uuid4().hex}.f16"
        places: dict[str, tuple[int, int, int]] = {}
        total = 0
        # Hundreds of megabytes, and nobody reads them before their index is there: that one is written atomically.
        with path.open("wb") as stream:
            for utterance, frames, samples in rows:
                block = frames.T.contiguous().to(torch.float16).numpy()
                places[name_of(utterance)] = (total, len(block), samples)
                total += len(block)
                stream.write(block.tobytes())
                if total * self._channels * 2 >= _INDEX_EVERY:
                    break
        if not places:
            path.unlink()
            return False
        with atomic_text(path.with_suffix(".json")) as index:
            json.dump(places, index)
        return True


class CachedFrames:
    """Frames of augmented versions of the training speech; epoch e gets version e modulo their number.

    Args:
        versions: each with every utterance.
        epochs: the first epochs, in which the front end is frozen.
        hop_samples: samples from one frame to the next.
        augment: its time masks are drawn for every epoch, and set frames to zero.
        frames_per_s: frames in a second.
    """

    def __init__(
        self, versions: Sequence[Version], epochs: int, hop_samples: int, augment: AugmentConfig, frames_per_s: float
    ) -> None:
        self.epochs = epochs
        self._hop_samples = hop_samples
        self._versions = versions
        self._augment = augment
        self._frames_per_s = frames_per_s

    def __call__(
        self, utterance: Utterance, epoch: int, padded_samples: int, rng: np.random.Generator
    ) -> tuple[Tensor, int]:
        """Masked frames (C, T), padded with zeros as the batch was planned, and their samples."""
        frames, samples = self._versions[epoch % len(self._versions)][utterance]
        count = len(frames)
        masked = torch.zeros(
            frames.shape[1], max(count, frames_of(padded_samples, self._hop_samples)), dtype=torch.half
        )
        masked[:, :count] = torch.from_numpy(np.array(frames)).T
        for first, end in draw_time_masks(self._augment, count, self._frames_per_s, rng):
            masked[:, first:end] = 0.0
        return masked, samples


def delete_frames(folder: Path) -> None:
    """Delete all versions in a folder, and the folder if nothing else is in it.

    The indices go first: frames without one, which a run leaves that is killed here, are ignored.
    """
    for path in (*folder.glob("*/*.json"), *folder.glob("*/*.f16")):
        with contextlib.suppress(OSError):  # Windows keeps what a worker still reads
            path.unlink()
    for path in (*folder.glob("*"), folder):
        with contextlib.suppress(OSError):  # not empty, or not there
            path.rmdir()
