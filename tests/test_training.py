"""Training: a tiny corpus of tones is learnt, a killed run goes on exactly, bad runs end in one line."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from wavasr.config import EncoderConfig, FitConfig, OptimConfig, StageConfig, UnitsConfig, from_dict
from wavasr.dataset import IGNORED, Batch
from wavasr.errors import ConfigError, CorpusError, TextError, WavasrError
from wavasr.manifest import AlignedPhone, Utterance, write_manifest
from wavasr.model import Recognizer, load_model
from wavasr.recipe import parse
from wavasr.splits import read_splits
from wavasr.text import Units
from wavasr.training import fit
from wavasr.training.callbacks import CsvLog
from wavasr.training.task import RecognitionTask, ctc_nats, ear_parameters, lr_scale, seed_of

RATE = 8000
TONES = {"a": 400.0, "b": 900.0, "c": 1900.0}
WORDS = ["ab", "ba", "ac", "ca", "bc", "cb", "a b", "b c", "c a"]


def sound(text: str, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """A tone for each letter, a pause for each space."""
    pieces = [np.zeros(400)]
    for letter in text:
        time_s = np.arange(rng.integers(900, 1300)) / RATE
        pieces += [
            0.3 * np.sin(2 * math.pi * TONES[letter] * time_s) if letter in TONES else 0.0 * time_s,
            np.zeros(200),
        ]
    return np.concatenate(pieces)


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl: 36 utterances of four speakers."""
    root = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(1)
    utterances = []
    for index in range(36):
        text = WORDS[index % len(WORDS)]
        samples = sound(text, rng)
        soundfile.write(root / f"{index}.wav", samples, RATE)
        seconds = len(samples) / RATE
        spans = tuple(
            AlignedPhone(phone, t * seconds / 2, (t + 1) * seconds / 2) for t, phone in enumerate(("aa", "q"))
        )
        utterances.append(Utterance(str(index), root / f"{index}.wav", seconds, text, f"s{index % 4}", 0.0, spans))
    write_manifest(root / "train.jsonl", utterances)
    return root


def recipe_file(folder: Path, tones: Path, **changes: Any) -> Path:
    """A recipe for a miniature recogniser of the tones."""
    recipe: dict[str, Any] = {
        "encoder": {
            "stages": [
                {
                    "channels": 32,
                    "window": 32,
                    "stride": 8,
                    "level_frames": 32,
                    "dilations": [1, 2],
                    "pool": 20,
                    "pooling": "energy",
                },
                {"channels": 32, "dilations": [1, 2]},
            ],
            "sample_rate": RATE,
            "init": "random",
            "dropout": 0.0,
        },
        "augment": {"speed": [0.95, 1.05], "gain_db": [-3, 3], "time_masks": 0, "band_masks": 0},
        "data": {
            "root": str(tones),
            "train": ["train.jsonl"],
            "dev_speakers": 1,
            "batch_s": 4,
            "buckets": 3,
            "workers": 0,
        },
        "optim": {"lr": 0.004, "warmup_steps": 20, "average_decay": 0.9, "ear_lr_scale": 1.0},
        "trainer": {"max_epochs": 2, "precision": "32-true", "log_every_n_steps": 1, "enable_progress_bar": False},
    }
    for name, values in changes.items():
        recipe[name] = {**recipe.get(name, {}), **values} if isinstance(values, dict) else values
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def train(folder: Path, tones: Path, *arguments: str, **changes: Any) -> Path:
    """Fit in this process; the run's folder."""
    path = recipe_file(folder, tones, **changes)
    recipe = parse(["--config", str(path), "--run_dir", str(folder / "run"), *arguments])
    fit(recipe, read_splits(recipe.config))
    return folder / "run"


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def curve(run: Path) -> list[tuple[str, ...]]:
    """What must not depend on interruptions: everything but speeds."""
    timeless = [name for name in CsvLog.COLUMNS if name not in ("audio_s_per_s", "data_wait_share")]
    return [tuple(row[name] for name in timeless) for row in rows(run)]


def test_learns_the_tones(tones: Path, tmp_path: Path) -> None:
    trainer = {"max_epochs": 35, "check_val_every_n_epoch": 5, "log_every_n_steps": 50}
    run = train(tmp_path, tones, trainer=trainer, augment={"speed": [1.0, 1.0]}, data={"batch_s": 1.0})
    last = rows(run)[-1]
    assert float(last["dev_ctc_nats_per_label"]) < 0.3
    assert float(last["dev_wer"]) <= 0.2
    model = load_model(run / "model.wavasr")
    assert model.units.symbols == ("<blank>", " ", "a", "b", "c")
    best = model.metadata["best"]
    assert best["dev_wer"] == pytest.approx(min(float(row["dev_wer"]) for row in rows(run) if row["dev_wer"]), abs=1e-6)
    assert set(model.metadata) >= {"config", "manifests_sha256", "versions", "best"}
    assert from_dict(FitConfig, model.metadata["config"]).encoder == model.encoder_config


KILLED = """
import sys
from wavasr.recipe import parse
from wavasr.splits import read_splits
from wavasr.training import fit
recipe = parse(sys.argv[1:])
fit(recipe, read_splits(recipe.config))
"""


RESUMED: dict[str, Any] = {
    "trainer": {"max_epochs": 3},
    "auxiliary": {"weight": 0.1},
    "data": {"workers": 1},
    "optim": {"ear_frozen_epochs": 1},
}


@pytest.fixture(scope="module")
def uninterrupted(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole"), tones, **RESUMED)


@pytest.mark.parametrize("minutes", [1e-9, 1000.0], ids=["within an epoch", "after an epoch"])
def test_resumes_exactly_after_kill(tones: Path, uninterrupted: Path, tmp_path: Path, minutes: float) -> None:
    path = recipe_file(tmp_path, tones, checkpoint_minutes=minutes, **RESUMED)
    run = tmp_path / "run"
    arguments = ["--config", str(path), "--run_dir", str(run)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (run / "metrics.csv").exists() or len(rows(run)) < 10:  # in the second epoch
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no second epoch: {process.communicate()[1]}")
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert 0 < len(rows(run)) < len(rows(uninterrupted))
    train(tmp_path, tones, "--resume", checkpoint_minutes=minutes, **RESUMED)
    assert curve(run) == curve(uninterrupted)
    states = [torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (run, uninterrupted)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    models = [load_model(folder / "model.wavasr") for folder in (run, uninterrupted)]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
