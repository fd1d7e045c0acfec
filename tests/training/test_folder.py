"""A run's folder: one run at a time, damaged files in one line, signals that leave a checkpoint."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.tones import curve, recipe_file, train
from wavasr.errors import ConfigError
from wavasr.training.callbacks import CsvLog
from wavasr.training.folder import held, require_space
from wavasr.training.recognize import RecognitionTask
from wavasr.training.run import main

DAMAGED = [b"", b"half", b"[]", b"{}", b'{"config": 3, "manifests_sha256": {}}', b"\xff\0" * 9]


@pytest.fixture(scope="module")
def run(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("damaged"), tones, trainer={"max_epochs": 1})


@pytest.mark.parametrize(
    "content", [b"", b"half", b"[]", b"{}", b'{"config": 3, "manifests_sha256": {}}', b"\xff\0" * 9]
)
@pytest.mark.parametrize("name", ["run.json", "last.ckpt"])
def test_damaged_files_are_one_line(tones: Path, run: Path, name: str, content: bytes) -> None:
    before = (run / name).read_bytes()
    try:
        (run / name).write_bytes(content if content != b"half" else before[: len(before) // 2])
        with pytest.raises(ConfigError, match=rf"{name}: is .*; .*to begin anew delete") as caught:
            train(run.parent, tones, "--resume", trainer={"max_epochs": 1})
        assert "\n" not in str(caught.value)
    finally:
        (run / name).write_bytes(before)


def test_a_lost_record_is_one_line(tones: Path, run: Path) -> None:
    before = (run / "run.json").read_bytes()
    (run / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"run\.json: is missing"):
        train(run.parent, tones, "--resume", trainer={"max_epochs": 1})
    (run / "run.json").write_bytes(before)


@pytest.mark.parametrize("tail", [b"1", b"1,2\n", b"\0\0\0\n", b"\xe9,\xe9\n", b"0,x,1\n"])
def test_rows_of_metrics_that_are_not_whole_are_left_out(
    tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    log = CsvLog(tmp_path / "metrics.csv", 0)
    for step in range(3):
        log.log_metrics({"epoch": 0, "train_loss": 1.5}, step)
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole + tail)
    CsvLog(tmp_path / "metrics.csv", 3)
    assert (tmp_path / "metrics.csv").read_bytes() == whole
    assert "1 damaged rows" in caplog.text


def test_a_folder_holds_one_run_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from wavasr.training.folder import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"process {other.pid} on .* is training there"), held(tmp_path):
            pass
        other.kill()
    (tmp_path / ".0123-4567.part").write_bytes(b"left")
    with held(tmp_path):
        assert not list(tmp_path.glob(".*.part"))


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(ConfigError, match=r"file: cannot be written \(.*\); name another --run_dir"),
        held(tmp_path / "file"),
    ):
        pass
    with pytest.raises(ConfigError, match="MB are free there, and a run needs about"):
        require_space(tmp_path, 10**15)


def signalled(monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, step: int) -> None:
    """Let this process get a signal in the middle of a step."""
    original = RecognitionTask.training_step

    def training_step(self: RecognitionTask, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            os.kill(os.getpid(), signum)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(RecognitionTask, "training_step", training_step)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [1, 5])
def test_a_signal_leaves_a_checkpoint_and_tells_how_to_go_on(
    tones: Path, tmp_path: Path, signum: signal.Signals, code: int, step: int, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, run_of_three: Path,
) -> None:  # fmt: skip
    recipe = recipe_file(tmp_path, tones, trainer={"max_epochs": 3})
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        signalled(patch, signum, step)
        with pytest.raises(SystemExit) as stop:
            main(["--config", str(recipe), "--run_dir", str(folder)])
    assert stop.value.code == code and signal.getsignal(signum) is not None
    assert f"wavasr fit --run_dir {folder} --resume` goes on from last.ckpt" in caplog.text
    assert main(["--run_dir", str(folder), "--resume"]) == 0
    assert curve(folder) == curve(run_of_three)


@pytest.fixture(scope="module")
def run_of_three(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("three"), tones, trainer={"max_epochs": 3})


def test_a_signal_before_the_first_checkpoint_promises_none(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wavasr.training.run.fit", lambda *arguments: os.kill(os.getpid(), signal.SIGINT))
    recipe = recipe_file(tmp_path, tones)
    with pytest.raises(SystemExit, match="interrupted"):
        main(["--config", str(recipe), "--run_dir", str(tmp_path / "run")])
    assert "interrupted before the first checkpoint: the same command begins anew" in caplog.text


def test_slurm_puts_the_job_into_the_queue_again(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n', encoding="utf-8")
    scontrol.chmod(0o755)
    for name, value in (("JOB_ID", "77"), ("JOB_NAME", "x"), ("NTASKS", "1"), ("PROCID", "0"), ("LOCALID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    recipe = recipe_file(tmp_path, tones, trainer={"max_epochs": 3})
    arguments = ["--config", str(recipe), "--run_dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGUSR1, 1)
        with pytest.raises(SystemExit) as stop:
            main(arguments)
    assert stop.value.code == 128 + signal.SIGUSR1 and "job 77 is in the queue again" in caplog.text
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "requeue 77\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # the same command line, without --resume
    assert main(arguments) == 0


def test_the_recipe_is_stored(run: Path) -> None:
    assert "max_epochs: 1" in (run / "recipe.yaml").read_text(encoding="utf-8")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["data"]["train"] == ["train.jsonl"]
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        assert tuple(next(csv.reader(stream))) == CsvLog.COLUMNS
