"""A generator's training, from a recipe to a model file, and on from where a killed run stopped.

Beside what every run leaves in its folder (`wavasr.training.folder`), `samples/` holds a sound of each validation.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from wavasr.errors import counted
from wavasr.files import atomic_text
from wavasr.generation.network import Network
from wavasr.generation.voice import Voice, write_sound
from wavasr.network.files import GENERATOR_FORMAT, read_header
from wavasr.network.generator import Generator, load_generator, save_generator, start_generator
from wavasr.training import folder
from wavasr.training.callbacks import CsvLog, Keeper, process_rank
from wavasr.training.folder import METRICS_NAME
from wavasr.training.generate.config import GenerateConfig
from wavasr.training.generate.data import CropData, Studio, baselines, gains_of, read_voices
from wavasr.training.generate.improviser import train_improviser
from wavasr.training.generate.instrument import train_instrument
from wavasr.training.generate.recipe import parse
from wavasr.training.generate.task import GenerationTask
from wavasr.training.generators import claim, run, train
from wavasr.training.interruption import Interruption
from wavasr.training.recipe import Recipe

log = logging.getLogger("wavasr")

BASELINES_NAME = "baselines.json"
_SAMPLE_S = 4.0  # of the sound written at each validation


def main(argv: Sequence[str]) -> int:
    """`wavasr fit` of a generator: train it, print where it is.

    Raises:
        WavasrError: the recipe, the data or the run folder cannot be used.
    """
    return run(parse(argv), fit)


def fit(recipe: Recipe[GenerateConfig], stop: Interruption | None = None) -> Path:
    """Train, and return the file of the best model.

    Raises:
        WavasrError: the data or the run folder cannot be used.
    """
    voices = read_voices(recipe.config.data, recipe.config.data.crop_frames + 2)
    config = replace(recipe.config, generator=replace(recipe.config.generator, speakers=voices.names))
    record, last = claim(recipe, config)
    torch.manual_seed(config.seed)
    generator, studio = Generator(config.generator), Studio(voices, config)
    if config.start:
        start_generator(generator, config.start)
    else:
        studio.measure(generator)
    task = GenerationTask(generator, config)
    data = CropData(studio, gains_of(generator.state_dict()))
    log.info(
        "training on %.2f h of %s, validating on %.2f h; %s; %s of past",
        sum(u.duration_s for u in voices.train) / 3600, counted(len(voices.names) or 1, "speaker"),
        sum(u.duration_s for u in voices.dev) / 3600, counted(sum(p.numel() for p in generator.parameters()), "weight"),
        counted(config.generator.receptive_samples, "sample"),
    )  # fmt: skip
    tell_baselines(data, config)
    rows = BitsLog(config.run_dir / METRICS_NAME, folder.first_step(last))
    keeper = GeneratorKeeper(config.run_dir, math.inf, folder.portable(record), stop)
    path = train(recipe, task, data, rows, keeper, last)
    if process_rank():
        return path
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
