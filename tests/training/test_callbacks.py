"""What a run tells as it goes: the model that it starts from, examples, when and why it stops, curves."""

import logging
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.training.tones import recipe_file, rows, train
from wavasr import cli
from wavasr.cli.training import draw
from wavasr.errors import ConfigError
from wavasr.network.recognizer import load_model
from wavasr.training import run
from wavasr.training.interruption import Interruption
from wavasr.training.recipe import parse
from wavasr.training.run import logger_of, main, make_trainer


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wavasr")


def test_the_model_that_training_starts_from_is_scored_and_kept_where_it_is_best(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = train(tmp_path / "first", tones, trainer={"max_epochs": 1})
    start = str(first / "model.wavasr")
    changes: dict[str, Any] = {"trainer": {"max_epochs": 2}, "optim": {"lr": 1e-12, "average_decay": 0.0}}
    second = train(tmp_path / "second", tones, "--start", start, **changes)
    assert "before training: dev " in caplog.text and "best so far: the model before training" in caplog.text
    assert load_model(second / "model.wavasr").metadata["best"]["epoch"] == -1
    assert "the best epoch is that with the lowest wer on dev" in caplog.text
    assert "said " in caplog.text and "| recognised" in caplog.text


def test_patience_ends_a_run(tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes: dict[str, Any] = {"trainer": {"max_epochs": 50}, "optim": {"lr": 1e-12, "average_decay": 0.0}}
    run = train(tmp_path, tones, "--patience", "2", **changes)
    assert {row["epoch"] for row in rows(run) if row["dev_wer"]} == {"0", "1", "2"}
    assert "none of the last 2 validations was better (patience): training stops" in caplog.text


def test_a_run_that_ends_within_an_epoch_still_gives_a_model(
    tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(tmp_path, tones, "--trainer.max_steps", "2")
    assert load_model(run / "model.wavasr").metadata["best"]["step"] == 2
    assert "nan" not in caplog.text and "epoch -1" not in caplog.text


def test_no_gpu_is_one_line(tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = parse(["--config", str(recipe_file(tmp_path, tones)), "--run_dir", str(tmp_path / "run")])
    make_trainer(recipe, {"config": _config(recipe)}, None, Interruption())
    assert "no GPU: training on" in caplog.text


@pytest.mark.parametrize("recipe", ["own.yaml", "voice.yaml", "speak.yaml"])
def test_a_gpu_that_is_missing_is_told_before_anything_is_written(
    recipe: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    command = ["fit", "--config", recipe, "--run_dir", str(tmp_path / "run"), "--trainer.accelerator", "gpu"]
    assert cli.main(command) == 2
    assert "trainer.accelerator is gpu, and PyTorch finds no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def _config(recipe: Any) -> dict[str, Any]:
    from wavasr.config import to_dict

    return to_dict(recipe.config)


def test_loggers(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe_file(tmp_path, tones)
    config = parse(["--config", str(path), "--run_dir", str(tmp_path / "run")]).config
    assert len(logger_of(config, "text")) == 1
    assert logger_of(parse(["--config", str(path), "--logger", "csv"]).config, "text") == []
    for name, kind in (("wandb", "WandbLogger"), ("mlflow", "MLFlowLogger")):
        refused = Mock(side_effect=RuntimeError("No API key configured. Use `wandb login` to log in.\nand more"))
        monkeypatch.setattr(run, kind, refused)
        with pytest.raises(ConfigError, match=rf"logger {name}: No API key .* to log in; or train with --logger csv$"):
            logger_of(parse(["--config", str(path), "--logger", name]).config, "text")
        monkeypatch.setattr(run, kind, Mock(side_effect=ModuleNotFoundError(name)))
        with pytest.raises(ConfigError, match=rf"logger is {name}, which is not installed; .*'wavasr\[{name}\]'"):
            logger_of(parse(["--config", str(path), "--logger", name]).config, "text")


def test_a_finished_run_has_its_curves(tones: Path, tmp_path: Path) -> None:
    path = recipe_file(tmp_path, tones, trainer={"max_epochs": 1})
    assert main(["--config", str(path), "--run_dir", str(tmp_path / "run"), "--logger", "csv"], draw) == 0
    for name in ("curves.png", "example-1.png"):
        assert (tmp_path / "run" / name).stat().st_size > 10_000
    assert not (tmp_path / "run" / "tensorboard").exists()
