"""A tiny corpus of tones, a recipe for it, and what the tests of training ask of a run."""

import csv
import math
import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from pytorch_lightning.utilities import rank_zero_only

from wavasr.corpora.manifest import AlignedPhone, Utterance, write_manifest
from wavasr.files import write_whole
from wavasr.training.callbacks import CsvLog
from wavasr.training.recipe import parse
from wavasr.training.run import fit
from wavasr.training.splits import read_splits

RATE = 8000
TONES = {"a": (400.0, 0.01), "b": (900.0, 0.08), "c": (1900.0, 0.6)}  # Hz, amplitude
WORDS = ["ab", "ba", "ac", "ca", "bc", "cb", "a b", "b c", "c a"]


PHONES = {"a": "aa", "b": "iy", "c": "s", " ": "h#"}


def sound(text: str, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], tuple[AlignedPhone, ...]]:
    """A tone for each letter, a pause for each space; and where they are."""
    pieces, spans, start = [], [], 0
    for letter in f" {text} ":
        count = int(rng.integers(900, 1300)) if letter in TONES else 400
        hz, amplitude = TONES.get(letter, (0.0, 0.0))
        pieces.append(amplitude * np.sin(2 * math.pi * hz * np.arange(count) / RATE))
        spans.append(AlignedPhone(PHONES[letter], start / RATE, (start + count) / RATE))
        start += count
    return np.concatenate(pieces), tuple(spans)


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
        "augment": {"speed": [0.95, 1.05], "gain_db": [-1, 1], "time_masks": 0, "band_masks": 0},
        "data": {
            "root": str(tones),
            "train": ["train.jsonl"],
            "dev_speakers": 1,
            "batch_s": 4,
            "buckets": 3,
            "workers": 0,
        },
        "optim": {"lr": 0.004, "warmup_steps": 20, "average_decay": 0.9, "front_end_lr_scale": 1.0},
        "trainer": {"max_epochs": 2, "precision": "32-true", "log_every_n_steps": 1, "enable_progress_bar": False},
    }
    for name, values in changes.items():
        recipe[name] = {**recipe.get(name, {}), **values} if isinstance(values, dict) else values
    path = folder / "recipe.yaml"
    write_whole(path, yaml.safe_dump(recipe).encode())  # several processes write and read it at once
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
    timed = ("audio_s_per_s", "data_wait_share", "generative_step_share")
    timeless = [name for name in CsvLog.COLUMNS if name not in timed]
    return [tuple(row[name] for name in timeless) for row in rows(run)]


def write_tones(root: Path) -> Path:
    """A folder with train.jsonl: 36 utterances of four speakers."""
    rng = np.random.default_rng(1)
    utterances = []
    for index in range(36):
        text = WORDS[index % len(WORDS)]
        samples, spans = sound(text, rng)
        soundfile.write(root / f"{index}.wav", samples, RATE)
        seconds = len(samples) / RATE
        utterances.append(Utterance(str(index), root / f"{index}.wav", seconds, text, f"s{index % 4}", 0.0, spans))
    write_manifest(root / "train.jsonl", utterances)
    return root


def elastic(rank: int, world_size: int, port: int, train_here: Any) -> None:
    """One of the processes that torchrun would have started."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in places.items()}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
    rank_zero_only.rank = rank
    train_here()


def together(world_size: int, train_here: Any) -> list[int | None]:
    """Call it in several processes that know of each other; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=elastic, args=(r, world_size, port, train_here)) for r in range(world_size)]
    for one in processes:
        one.start()
    deadline = time.monotonic() + 200
    while any(one.is_alive() for one in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
        if any(one.exitcode for one in processes):  # the others may wait for it: they get some seconds
            deadline = min(deadline, time.monotonic() + 20)
    for one in processes:
        one.kill()
        one.join()
    return [one.exitcode for one in processes]


def several(processes: int, strategy: str) -> list[str]:
    options = {"accelerator": "cpu", "devices": processes, "strategy": strategy}
    return [f"--trainer.{name}={value}" for name, value in options.items()]
