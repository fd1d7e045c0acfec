"""Data workers that are killed are replaced, whoever loads."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from wavasr.audio.augment import Augmenter
from wavasr.audio.config import AugmentConfig
from wavasr.errors import AudioError, WavasrError
from wavasr.training.generators import EpochLoader
from wavasr.training.warmup import RandomCrops
from wavasr.training.workers import loaded, worker_context


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

    crops = RandomCrops(Store(), Augmenter(AugmentConfig(), 16000), 16000, seed=1)  # type: ignore[arg-type]
    found = []
    for crop in itertools.islice(loaded(crops.batches(1), 1), 30):
        found.append(crop)
        if len(found) == 2:
            kill_workers()
    assert len(found) == 30 and all(crop.shape == found[0].shape for crop in found)
    assert len({float(crop[0, 0]) for crop in found}) == 30, "no crop comes twice"
    assert "a data worker was killed" in caplog.text


@pytest.mark.parametrize(
    ("said", "failure", "message"),
    [
        ("DataLoader worker (pid 1) is killed by signal: Killed.", WavasrError, "are killed again and again"),
        ("Caught ValueError in DataLoader worker process 0.", RuntimeError, "Caught ValueError"),
    ],
)
def test_what_ends_the_loading(said: str, failure: type[Exception], message: str) -> None:
    def begin(number: int) -> Iterator[int]:
        raise RuntimeError(said)
        yield number

    with pytest.raises(failure, match=message):
        list(loaded(begin, 1))


class Unreadable(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise AudioError(f"{'long/' * 200}a.wav: Error: is cut off")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_that_a_worker_met_is_one_line(workers: int) -> None:
    with pytest.raises(AudioError) as caught:
        list(loaded(lambda number: iter(DataLoader(Unreadable(), num_workers=workers)), workers))
    assert "DataLoader" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert str(caught.value).endswith("is cut off")


def test_a_worker_that_is_killed_holds_no_lock_of_the_others() -> None:
    """Python's own event has one: whoever asks it after a process was killed while it asked would wait for ever."""
    context = worker_context(1)
    assert context is not None and worker_context(0) is None
    ended = context.Event()
    assert not ended.is_set()
    process = context.Process(target=ended.set)  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert ended.is_set() and process.exitcode == 0
    assert hasattr(multiprocessing.Event(), "_cond") and not hasattr(ended, "_cond")
