"""Several processes compute what one would: the same gradients, the same counts; one that is lost ends the others."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch

from tests.training.tones import recipe_file, rows, several, together, train
from wavasr.errors import ConfigError
from wavasr.network.recognizer import Recognizer
from wavasr.training.callbacks import Keeper
from wavasr.training.data import SpeechData
from wavasr.training.dataset import collate
from wavasr.training.generators import make_trainer
from wavasr.training.plan import RankBatches
from wavasr.training.recipe import parse
from wavasr.training.recognize import RecognitionTask
from wavasr.training.run import build_units, strategy_of
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


def test_two_processes_train_and_count_as_one(tones: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"trainer": {"max_epochs": 2}, "data": {"batch_s": 2.0, "workers": 1}}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert together(2, lambda: train(tmp_path / "two", tones, *several(2, "ddp"), **changes)) == [0, 0]
    alone, shared = rows(train(tmp_path / "one", tones, **changes)), rows(tmp_path / "two" / "run")
    assert len(alone) == len(shared)
    for one, two in zip(alone, shared, strict=True):
        for name in ("epoch", "step", "lr", "dev_wer", "dev_cer"):  # counts are the same, not nearly the same
            assert one[name] == two[name], name
        for name in ("train_loss", "train_ctc_nats_per_label", "dev_ctc_nats_per_label"):
            assert float(one[name] or 0) == pytest.approx(float(two[name] or 0), rel=2e-3), name


def test_a_killed_run_goes_on_with_other_processes_and_another_strategy(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        "trainer": {"max_epochs": 2},
        "data": {"batch_s": 3.0},
        "checkpoint_minutes": 1e-9,
        "auxiliary": {"weight": 0.1},
        "logger": "csv",
    }
    folders = {name: tmp_path / name for name in ("whole", "killed", "one", "four")}
    for folder in folders.values():
        folder.mkdir()
    whole = rows(train(folders["whole"], tones, **changes))
    steps = len([row for row in whole if row["train_loss"]])

    def die(keeper: Keeper, trainer: pl.Trainer, *others: Any) -> None:
        if trainer.global_step == steps * 2 // 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_train_batch_start", die)
        ended = together(2, lambda: train(folders["killed"], tones, *several(2, "fsdp"), **changes))
    assert ended == [-signal.SIGKILL] * 2
    for name in ("one", "four"):
        shutil.copytree(folders["killed"] / "run", folders[name] / "run")
    train(folders["one"], tones, "--resume", **changes)
    assert together(4, lambda: train(folders["four"], tones, "--resume", *several(4, "fsdp"), **changes)) == [0] * 4
    for name in ("one", "four"):
        resumed = rows(folders[name] / "run")
        assert len(resumed) == len(whole)
        for before, after in zip(whole, resumed, strict=True):
            for column in ("epoch", "step", "lr", "dev_wer", "dev_cer"):  # counts
                assert before[column] == after[column], column
            for column in ("train_loss", "train_generative_nats_per_sample", "dev_ctc_nats_per_label"):
                assert float(before[column] or 0) == pytest.approx(float(after[column] or 0), rel=2e-3), column


def free_port() -> int:
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])
    except OSError as error:
        pytest.skip(f"torchrun's agents need a port of this machine: {error}")


def test_two_nodes_of_torchrun_train_and_count_as_one(tones: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"trainer": {"max_epochs": 1, "max_steps": 4}, "data": {"batch_s": 3.0}, "logger": "csv"}
    recipe, endpoint = recipe_file(tmp_path, tones, **changes), f"127.0.0.1:{free_port()}"
    agent = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", "--local_addr", "127.0.0.1"]
    agent += ["--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint, "-m", "wavasr", "fit", "--config", str(recipe)]
    agent += ["--run_dir", str(tmp_path / "two"), *several(1, "auto"), "--trainer.num_nodes=2"]
    nodes = [subprocess.Popen([sys.executable, *agent], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        said = [node.communicate(timeout=200)[1] for node in nodes]
    finally:
        for node in nodes:  # ends the processes below it
            node.terminate()
            node.wait()
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "2 processes, " in "".join(said)
    alone, shared = rows(train(tmp_path, tones, **changes)), rows(tmp_path / "two")
    assert len(alone) == len(shared) == 5
    for one, two in zip(alone, shared, strict=True):
        for name in ("epoch", "step", "lr", "dev_wer", "dev_cer"):
            assert one[name] == two[name], name
        for name in ("train_loss", "dev_ctc_nats_per_label"):
            assert float(one[name] or 0) == pytest.approx(float(two[name] or 0), rel=2e-3), name


def test_other_strategies_are_refused(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.strategy is 'deepspeed'; expected auto, ddp or fsdp"):
        train(tmp_path, tones, "--trainer.strategy=deepspeed")
    with pytest.raises(ConfigError, match=r"'fsdp'; a generator is trained with auto or ddp"):
        make_trainer(Mock(trainer={"strategy": "fsdp"}), Mock(), Mock())


@pytest.mark.parametrize(("devices", "nodes", "several"), [(1, 1, False), (2, 1, True), (1, 2, True)])
def test_weights_without_a_gradient_are_expected_where_several_train(
    tones: Path, tmp_path: Path, devices: int, nodes: int, several: bool
) -> None:
    for frozen in (0, 1):
        recipe = recipe_file(tmp_path, tones, optim={"front_end_frozen_epochs": frozen})
        options = [f"--trainer.devices={devices}", f"--trainer.num_nodes={nodes}"]
        parsed = parse(["--config", str(recipe), *options])
        wanted = "ddp_find_unused_parameters_true" if several and frozen else "auto"
        assert strategy_of(parsed.trainer, parsed.config) == wanted


def test_a_lost_process_ends_the_others_with_its_name(tones: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, tones, trainer={"max_epochs": 500})
    run = tmp_path / "run"
    command = ["-m", "wavasr", "fit", "--config", str(recipe), "--run_dir", str(run), *several(2, "ddp")]
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True) as first:
        try:
            deadline = time.monotonic() + 200
            while not (run / "metrics.csv").exists() or len(rows(run)) < 3:
                assert first.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text(encoding="utf-8").split()
            ranks = [child for child in children if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes()]
            os.kill(int(ranks[0]), signal.SIGKILL)
            said = first.communicate(timeout=60)[1]
        except BaseException:  # else this would wait for its 500 epochs
            first.kill()
            raise
    assert first.returncode not in (0, None)
    assert "2 processes, " in said and "% padding" in said
    assert "rank 1 of 2 was lost (killed by signal 9)" in said and "--resume" in said
    assert "Traceback" not in said
