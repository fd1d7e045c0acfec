"""A voice learns to read: from a recipe to a model file that holds a vocoder and the network from text to its frames.

Beside what every run leaves in its folder (`wavasr.training.folder`), `*-lessons-*.npz` hold the aligned recordings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wavasr.config import to_dict
from wavasr.errors import ConfigError, counted
from wavasr.network.config import SpeechConfig
from wavasr.network.files import GENERATOR_FORMAT, read_header
from wavasr.recognition.models import opened
from wavasr.training import folder
from wavasr.training.callbacks import CsvLog, Keeper
from wavasr.training.folder import METRICS_NAME
from wavasr.training.generate.config import StepsConfig
from wavasr.training.generate.data import Voices, read_voices
from wavasr.training.generators import claim, parse_recipe, run, train
from wavasr.training.interruption import Interruption
from wavasr.training.recipe import Recipe
from wavasr.training.speak.config import ReadingConfig, SpeakConfig
from wavasr.training.speak.data import (
    Lesson,
    LessonData,
    lessons_of,
    load_lessons,
    new_speech,
    save_lessons,
    scale_of,
)
from wavasr.training.speak.task import SpeakTask

_GROUPS = {"speech": SpeechConfig, "data": ReadingConfig, "optim": StepsConfig}

log = logging.getLogger("wavasr")


def parse(argv: Sequence[str]) -> Recipe[SpeakConfig]:
    """Read the command line of `wavasr fit` for a voice that is to read; see `parse_recipe`."""
    voice = "the vocoder: a generator's model file, or a shipped name"
    return parse_recipe(argv, SpeakConfig, "speak", _GROUPS, {"voice": voice})


def main(argv: Sequence[str]) -> int:
    """`wavasr fit` of a voice that is to read: train it, print where it is.

    Raises:
        WavasrError: the recipe, the data or the run folder cannot be used.
    """
    return run(parse(argv), fit)


def fit(recipe: Recipe[SpeakConfig], stop: Interruption | None = None) -> Path:
    """Train, and return the file of the best model.

    Raises:
        WavasrError: the data or the run folder cannot be used.
    """
    config = recipe.config
    known = tuple(read_header(config.voice, GENERATOR_FORMAT)["generator"].get("speakers", ()))
    voices = read_voices(config.data)
    if voices.names and voices.names != known:
        raise ConfigError(
            f"data.train has the speakers {', '.join(voices.names)}; the vocoder's are {', '.join(known)}"
        )
    config = replace(config, speech=new_speech(config.speech, opened(config.data.aligner), voices.names))
    record, last = claim(recipe, config)
    torch.manual_seed(config.seed)
    train_lessons, dev = _lessons(voices, config, record["manifests_sha256"])
    scale = scale_of(train_lessons)
    task = SpeakTask(config.speech, scale, config)
    frames = sum(len(lesson.log_mel) for lesson in train_lessons)
    weights = sum(p.numel() for p in task.network.parameters())
    held_out, size = counted(len(dev), "recording"), counted(weights, "weight")
    log.info("training on %.2f h, validating on %s; %s", frames / 360_000, held_out, size)
    rows = SpeakLog(config.run_dir / METRICS_NAME, folder.first_step(last))
    keeper = Keeper(config.run_dir, math.inf, folder.portable(record), stop)
    return train(recipe, task, LessonData(train_lessons, dev, scale, config), rows, keeper, last)


def _lessons(voices: Voices, config: SpeakConfig, prints: dict[str, str]) -> tuple[list[Lesson], list[Lesson]]:
    """Those of training and of validation: kept in the run's folder, under a name that tells what they were made of."""
    data = {key: value for key, value in to_dict(config.data).items() if key not in ("root", "sources", "batch")}
    made_of = json.dumps([data, config.speech.phones, prints], sort_keys=True)
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    found = []
    for part, utterances in (("train", voices.train), ("dev", voices.dev)):
        path = config.run_dir / f"{part}-lessons-{digest}.npz"
        if not path.is_file():
            save_lessons(path, lessons_of(utterances, voices, config))
        found.append(load_lessons(path))
    return found[0], found[1]


class SpeakLog(CsvLog):
    """A row per logged step in a CSV file."""

    COLUMNS = ("epoch", "step", "lr", "train_loss", "dev_loss", "dev_mel", "dev_duration", "dev_pitch", "dev_voicing")
