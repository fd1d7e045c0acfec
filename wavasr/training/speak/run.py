"""A voice learns to read: from a recipe to a model file that holds a vocoder and the network from text to its frames.

Beside what every run leaves in its folder (`wavasr.training.folder`), `lessons.npz` holds the aligned recordings.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wavasr.errors import ConfigError
from wavasr.network.config import SpeechConfig
from wavasr.network.files import GENERATOR_FORMAT, read_header
from wavasr.recognition.models import opened
from wavasr.training import folder
from wavasr.training.callbacks import CsvLog, Keeper
from wavasr.training.folder import METRICS_NAME, MODEL_NAME
from wavasr.training.generate.config import RecordingsConfig, StepsConfig
from wavasr.training.generate.data import Voices, read_voices
from wavasr.training.generate.run import describe, make_trainer, portable
from wavasr.training.interruption import Interruption
from wavasr.training.recipe import Recipe, add_groups, add_run, new_parser, read
from wavasr.training.run import interruptible
from wavasr.training.speak.config import ReadingConfig, SpeakConfig
from wavasr.training.speak.data import (
    LESSONS_NAME,
    Lesson,
    LessonData,
    lessons_of,
    load_lessons,
    new_speech,
    save_lessons,
    scale_of,
)
from wavasr.training.speak.task import SpeakTask

TASK = "speak"
_GROUPS = {"speech": SpeechConfig, "data": ReadingConfig, "optim": StepsConfig}

log = logging.getLogger("wavasr")


def parse(argv: Sequence[str]) -> Recipe[SpeakConfig]:
    """Read the command line of `wavasr fit` for a voice that is to read.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value of the wrong kind, a file that is missing.
        SystemExit: after `--help` and `--print_config`.
    """
    parser = new_parser("Teach a voice to read from a recipe; any key can be overridden.")
    parser.add_argument("--task", default=TASK, help="what is trained: a network from text to a vocoder's frames")
    parser.add_argument("--voice", default="", help="the vocoder: a generator's model file, or a shipped name")
    add_groups(parser, _GROUPS)
    add_run(parser)
    parser.set_defaults({"trainer.max_epochs": 60, "trainer.gradient_clip_val": 1.0, "trainer.log_every_n_steps": 10})
    found = read(argv, parser)
    values = found.values
    config = SpeakConfig(
        found.run_dir, voice=values.voice, seed=values.seed, **{name: found.made[name] for name in _GROUPS}
    )
    return Recipe(config, values.trainer.as_dict(), values.resume, found.text)


def main(argv: Sequence[str]) -> int:
    """`wavasr fit` of a voice that is to read: train it, print where it is.

    Raises:
        WavasrError: the recipe, the data or the run folder cannot be used.
    """
    recipe = parse(argv)
    with interruptible(recipe.config.run_dir) as stop:
        path = fit(recipe, stop)
    print(f"model: {path}")
    return 0


def fit(recipe: Recipe[SpeakConfig], stop: Interruption | None = None) -> Path:
    """Train, and return the file of the best model.

    Raises:
        WavasrError: the data or the run folder cannot be used.
    """
    config = recipe.config
    known = tuple(read_header(config.voice, GENERATOR_FORMAT)["generator"].get("speakers", ()))
    voices = read_voices(_recordings(config.data))
    if voices.names and voices.names != known:
        raise ConfigError(
            f"data.train has the speakers {', '.join(voices.names)}; the vocoder's are {', '.join(known)}"
        )
    config = replace(config, speech=new_speech(config.speech, opened(config.data.aligner), voices.names))
    record = describe(config)
    last = folder.claim(config.run_dir, record, recipe.text, recipe.resume)
    torch.manual_seed(config.seed)
    train, dev = _lessons(voices, config)
    scale = scale_of(train)
    task = SpeakTask(config.speech, scale, config)
    frames = sum(len(lesson.log_mel) for lesson in train)
    weights = sum(p.numel() for p in task.network.parameters())
    log.info("learning from %.2f h, validating on %d recordings; %d weights", frames / 360_000, len(dev), weights)
    keeper = Keeper(config.run_dir, math.inf, portable(record), stop or Interruption())
    trainer = make_trainer(recipe.trainer, SpeakLog(config.run_dir / METRICS_NAME, folder.first_step(last)), keeper)
    trainer.fit(task, LessonData(train, dev, scale, config), ckpt_path=last, weights_only=True)
    path = config.run_dir / MODEL_NAME
    if not path.exists():
        raise ConfigError(f"{config.run_dir}: training stopped before the first validation; raise trainer.max_time")
    return path


def _recordings(data: ReadingConfig) -> RecordingsConfig:
    return RecordingsConfig(data.root, data.train, data.speakers, data.names, data.dev_share)


def _lessons(voices: Voices, config: SpeakConfig) -> tuple[list[Lesson], list[Lesson]]:
    """Those of training and of validation: kept in the run's folder from the first time on."""
    found = []
    for part, utterances in (("train", voices.train), ("dev", voices.dev)):
        path = config.run_dir / f"{part}-{LESSONS_NAME}"
        if not path.is_file():
            save_lessons(path, lessons_of(utterances, voices, config))
        found.append(load_lessons(path))
    return found[0], found[1]


class SpeakLog(CsvLog):
    """A row per logged step in a CSV file."""

    COLUMNS = ("epoch", "step", "lr", "train_loss", "dev_loss", "dev_mel", "dev_duration", "dev_pitch", "dev_voicing")
