"""Several processes compute what one would: the same gradients, the same counts; one that is lost ends the others."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tones import recipe_file, rows, train
from wavasr.network.recognizer import Recognizer
from wavasr.training.data import SpeechData
from wavasr.training.dataset import collate
from wavasr.training.plan import RankBatches
from wavasr.training.recipe import parse
from wavasr.training.recognize import RecognitionTask
from wavasr.training.run import build_units
from wavasr.training.splits import read_splits

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
STEPS = 3


def gradients(recipe: Path, rank: int = 0, world_size: int = 1) -> list[dict[str, torch.Tensor]]:
    """The gradients of the first steps of the second epoch, summed over the processes as DDP does."""
    config = parse(["--config", str(recipe)]).config
    splits = read_splits(config)
    torch.manual_seed(0)
    recognizer = Recognizer(config.encoder, build_units(splits.train.texts, config.units), config.text)
    data = SpeechData(config, splits, recognizer)
    phones = len(data.frame_labels.phones) if data.frame_labels else 0
    task = RecognitionTask(recognizer, config, phones, data.train.labels)
    batches = RankBatches(data.plan(), rank, world_size)
    found = []
    for step, draws in enumerate(batches.batches(1)[:STEPS]):
        task.zero_grad()
        task.total(task.objective(collate([data.train[draw] for draw in draws]), 1, step)).backward()
        named = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
        for gradient in named.values():
            if world_size > 1:
                torch.distributed.all_reduce(gradient)
                gradient /= world_size
        found.append({name: gradient.clone() for name, gradient in named.items()})
    return found


def process(recipe: Path, folder: Path, rank: int, world_size: int) -> None:
    store = torch.distributed.FileStore(str(folder / f"store{world_size}"), world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    found = gradients(recipe, rank, world_size)
    if rank == 0:
        torch.save(found, folder / f"{world_size}.pt")
    torch.distributed.destroy_process_group()


def test_gradients_are_those_of_one_process(tones: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "auxiliary": {"weight": 0.1, "frame_weight": 0.5, "crf_weight": 0.3},
        "data": {"batch_s": 1.2},
        "augment": {"time_masks": 1},
    }
    recipe = recipe_file(tmp_path, tones, **changes)
    alone = gradients(recipe)
    assert len(alone) == STEPS
    context = multiprocessing.get_context("fork")
    for world_size in (2, 4):
        others = [context.Process(target=process, args=(recipe, tmp_path, r, world_size)) for r in range(world_size)]
        for other in others:
            other.start()
        for other in others:
            other.join(100)
        assert [other.exitcode for other in others] == [0] * world_size
        shared = torch.load(tmp_path / f"{world_size}.pt", weights_only=True)
        for ours, theirs in zip(alone, shared, strict=True):
            assert ours.keys() == theirs.keys()
            for name, gradient in ours.items():
                torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


def command(recipe: Path, run: Path, *arguments: str) -> list[str]:
    several = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    return [sys.executable, "-m", "wavasr", "fit", "--config", str(recipe), "--run_dir", str(run), *several, *arguments]


def test_two_processes_train_and_count_as_one(tones: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"trainer": {"max_epochs": 2}, "data": {"batch_s": 2.0, "workers": 1}}
    recipe = recipe_file(tmp_path, tones, **changes)
    done = subprocess.run(command(recipe, tmp_path / "two"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "2 processes, " in done.stderr and "% padding" in done.stderr
    (tmp_path / "one").mkdir()
    alone = rows(train(tmp_path / "one", tones, **changes))
    shared = rows(tmp_path / "two")
    assert len(alone) == len(shared)
    for one, two in zip(alone, shared, strict=True):
        for name in ("epoch", "step", "lr", "dev_wer", "dev_cer"):  # counts are the same, not nearly the same
            assert one[name] == two[name], name
        for name in ("train_loss", "train_ctc_nats_per_label", "dev_ctc_nats_per_label"):
            assert float(one[name] or 0) == pytest.approx(float(two[name] or 0), rel=2e-3), name


def test_a_lost_process_ends_the_others_with_its_name(tones: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, tones, trainer={"max_epochs": 500})
    run = tmp_path / "run"
    with subprocess.Popen(command(recipe, run), stderr=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 200
        while not (run / "metrics.csv").exists() or len(rows(run)) < 3:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text(encoding="utf-8").split()
        ranks = [child for child in children if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes()]
        os.kill(int(ranks[0]), signal.SIGKILL)
        said = first.communicate(timeout=60)[1]
    assert first.returncode not in (0, None)
    assert "rank 1 of 2 was lost (killed by signal 9)" in said and "--resume" in said
    assert "Traceback" not in said
