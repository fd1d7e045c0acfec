"""Data workers that are killed are replaced, whoever loads."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from wavasr.audio.augment import Augmenter
from wavasr.audio.config import AugmentConfig
from wavasr.errors import WavasrError
from wavasr.training.generators import EpochLoader
from wavasr.training.warmup import Crops
from wavasr.training.workers import loaded


def kill_workers() -> None:
    for worker in multiprocessing.active_children():
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()


def test_an_epoch_of_a_generator_has_every_item_once(caplog: pytest.LogCaptureFixture) -> None:
    items = TensorDataset(torch.arange(600))
    found = []
    for (batch,) in EpochLoader(items, 2, workers=1):
        found += batch.tolist()
        if len(found) == 20:
            kill_workers()
    assert found == list(range(600))
    assert "a data worker was killed" in caplog.text


def test_crops_of_a_warm_up_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Store:
        lengths = (50_000,)

        def __getitem__(self, place: int) -> np.ndarray:
            return np.linspace(-1.0, 1.0, 50_000, dtype=np.float32)

    crops = Crops(Store(), Augmenter(AugmentConfig(), 16000), 16000, seed=1)  # type: ignore[arg-type]
    found = []
    for crop in itertools.islice(loaded(crops.batches(1), 1), 30):
        found.append(crop)
        if len(found) == 2:
            kill_workers()
    assert len(found) == 30 and all(crop.shape == found[0].shape for crop in found)
    assert len({float(crop[0, 0]) for crop in found}) == 30, "no crop comes twice"
    assert "a data worker was killed" in caplog.text


def test_killed_again_and_again_is_one_line() -> None:
    def begin(number: int) -> Iterator[int]:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
        yield number

    with pytest.raises(WavasrError, match="data workers are killed again and again"):
        list(loaded(begin, 1))


def test_what_a_living_worker_met_is_raised() -> None:
    def begin(number: int) -> Iterator[int]:
        raise RuntimeError("Caught ValueError in DataLoader worker process 0.")
        yield number

    with pytest.raises(RuntimeError, match="Caught ValueError"):
        list(loaded(begin, 1))
