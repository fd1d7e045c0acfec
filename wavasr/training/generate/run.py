"""A generator's training, from a recipe to a model file, and on from where a killed run stopped.

Beside what every run leaves in its folder (`wavasr.training.folder`), `samples/` holds a sound of each validation.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

import wavasr
from wavasr.config import to_dict
from wavasr.errors import ConfigError
from wavasr.files import atomic_text
from wavasr.generation.network import Network
from wavasr.generation.voice import Voice, write_sound
from wavasr.network.files import GENERATOR_FORMAT, read_header
from wavasr.network.generator import Generator, load_generator, save_generator, start_generator
from wavasr.training import folder
from wavasr.training.callbacks import CsvLog, Keeper, ProgressBar
from wavasr.training.folder import METRICS_NAME, MODEL_NAME, WholeCheckpoints
from wavasr.training.generate.config import GenerateConfig
from wavasr.training.generate.data import CropData, Studio, baselines, gains_of, read_voices
from wavasr.training.generate.improviser import train_improviser
from wavasr.training.generate.instrument import train_instrument
from wavasr.training.generate.recipe import parse
from wavasr.training.generate.task import GenerationTask
from wavasr.training.interruption import Interruption
from wavasr.training.recipe import Recipe
from wavasr.training.run import interruptible

log = logging.getLogger("wavasr")

BASELINES_NAME = "baselines.json"
_SAMPLE_S = 4.0  # of the sound written at each validation


def main(argv: Sequence[str]) -> int:
    """`wavasr fit` of a generator: train it, print where it is.

    Raises:
        WavasrError: the recipe, the data or the run folder cannot be used.
    """
    recipe = parse(argv)
    with interruptible(recipe.config.run_dir) as stop:
        path = fit(recipe, stop)
    print(f"model: {path}")
    return 0


def fit(recipe: Recipe[GenerateConfig], stop: Interruption | None = None) -> Path:
    """Train, and return the file of the best model.

    Raises:
        WavasrError: the data or the run folder cannot be used.
    """
    voices = read_voices(recipe.config.data)
    config = replace(recipe.config, generator=replace(recipe.config.generator, speakers=voices.names))
    record = describe(config)
    last = folder.claim(config.run_dir, record, recipe.text, recipe.resume)
    torch.manual_seed(config.seed)
    generator, studio = Generator(config.generator), Studio(voices, config)
    if config.start:
        start_generator(generator, config.start)
    else:
        studio.measure(generator)
    task = GenerationTask(generator, config)
    data = CropData(studio, gains_of(generator.state_dict()))
    log.info(
        "training on %.2f h of %d speakers, validating on %.2f h; %d weights; %d past samples are seen",
        sum(u.duration_s for u in voices.train) / 3600, len(voices.names) or 1,
        sum(u.duration_s for u in voices.dev) / 3600, sum(p.numel() for p in generator.parameters()),
        config.generator.receptive_samples,
    )  # fmt: skip
    tell_baselines(data, config)
    keeper = GeneratorKeeper(config.run_dir, math.inf, portable(record), stop or Interruption())
    trainer = make_trainer(recipe.trainer, BitsLog(config.run_dir / METRICS_NAME, folder.first_step(last)), keeper)
    trainer.fit(task, data, ckpt_path=last, weights_only=True)
    path = config.run_dir / MODEL_NAME
    if not path.exists():
        raise ConfigError(f"{config.run_dir}: training stopped before the first validation; raise trainer.max_time")
    improviser = train_improviser(studio, config.improviser, config.seed) if config.improviser.steps else None
    instrument = train_instrument(studio, config.seed) if config.generator.condition == "notes" else None
    if improviser or instrument:
        header = read_header(path, GENERATOR_FORMAT)
        save_generator(load_generator(path), path, header["metadata"], improviser, instrument)
    return path


def tell_baselines(data: CropData, config: GenerateConfig) -> None:
    """What is reached without a network on the same samples goes to the log and to a file."""
    found = baselines(data.places, config.generator)
    with atomic_text(config.run_dir / BASELINES_NAME) as stream:
        json.dump(found, stream, indent=2)
    told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in found.items())
    log.info("without a network, bits per 16-bit step: %s", told)


def describe(config: Any) -> dict[str, Any]:
    """What the run's folder and the model file say of how it was made: a task's config, with manifests in `data`."""
    data = config.data
    prints = {
        name: hashlib.sha256((data.root / name).read_bytes()).hexdigest()
        for name in data.train
        if (data.root / name).is_file()
    }
    versions = {name: metadata.version(name) for name in ("torch", "pytorch-lightning", "numpy")}
    return {
        "config": to_dict(config),
        "manifests_sha256": prints,
        "versions": {"wavasr": wavasr.__version__, "python": platform.python_version(), **versions},
    }


def portable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record for a model file, which travels: of folders and files on this machine only their names remain."""
    config = {**record["config"], "data": dict(record["config"]["data"])}
    config["run_dir"] = Path(config["run_dir"]).name
    for key in {"start", "voice"} & set(config):
        config[key] = Path(config[key]).name if config[key] else ""
    config["data"]["root"] = Path(config["data"]["root"]).name
    return {**record, "config": config}


def make_trainer(options: Mapping[str, Any], rows: CsvLog, keeper: Keeper) -> pl.Trainer:
    """Lightning's trainer with this package's logs and files. The network chooses its own precision.

    Raises:
        ConfigError: the strategy is none for generators.
    """
    if options["strategy"] not in ("auto", "ddp"):
        raise ConfigError(f"trainer.strategy is {options['strategy']!r}; a generator is trained with auto or ddp")
    options = {**options, "precision": "32-true"}
    if options["enable_progress_bar"] is None:
        options["enable_progress_bar"] = sys.stderr.isatty()
    bar = [ProgressBar()] if options["enable_progress_bar"] else []
    return pl.Trainer(
        **options,
        default_root_dir=keeper.run_dir,
        logger=[rows, TensorBoardLogger(keeper.run_dir, name="", version="tensorboard")],
        callbacks=[keeper, *bar],
        plugins=[WholeCheckpoints()],
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
    )


class BitsLog(CsvLog):
    """A row per logged step in a CSV file."""

    COLUMNS = ("epoch", "step", "lr", "train_bits", "dev_class_bits", "dev_density_bits")


class GeneratorKeeper(Keeper):
    """Also writes a sound at each validation. Checkpoints are written between epochs, which are short."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the model if it is the best so far; write what it sounds like."""
        super().on_validation_end(trainer, pl_module)
        assert isinstance(pl_module, GenerationTask)
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        if trainer.is_global_zero and isinstance(data, CropData):
            path = self.run_dir / "samples" / f"{trainer.global_step:07d}.wav"
            write_sound(path, sample(pl_module.evaluated, data.studio), pl_module.config.generator.sample_rate)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and write a line about the epoch."""
        self._save(trainer)
        assert isinstance(pl_module, GenerationTask)
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        losses = pl_module.epoch_losses
        log.info(
            "epoch %d of %s: step %d, train %.3f bits, dev %.3f bits, density %.3f bits per 16-bit step "
            "(best so far: epoch %d)",
            trainer.current_epoch, trainer.max_epochs, trainer.global_step, sum(losses) / max(1, len(losses)),
            found.get("dev_class_bits", math.nan), found.get("dev_density_bits", math.nan), self.best_epoch,
        )  # fmt: skip
        self._raise_if_stopping()


def sample(model: Generator, studio: Studio) -> Any:
    """Some seconds of the network: a recording held out that it speaks again, or what it improvises: (S,) float32."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    voice = Voice(Network(model.config, arrays))
    utterance = studio.voices.dev[0]
    if model.config.condition == "notes":
        frames = studio.recording(utterance).frames[: round(100 * _SAMPLE_S)]
        return np.concatenate(list(voice.render_blocks(frames)))
    if model.config.condition != "mel":
        return voice.improvise(_SAMPLE_S, seed=0)
    samples = studio.audio(utterance)[: round(_SAMPLE_S * model.config.sample_rate)]
    return voice.copy(samples, speaker=utterance.speaker if model.config.speakers else None, seed=0)
