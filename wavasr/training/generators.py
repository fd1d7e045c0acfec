"""What the trainings of generators and of voices that read have in common: from a command line to a model file."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler

from wavasr.corpora.manifest import file_of
from wavasr.corpora.remote import join, read_bytes
from wavasr.errors import ConfigError
from wavasr.training import folder
from wavasr.training.callbacks import CsvLog, Keeper, ProgressBar, process_rank
from wavasr.training.folder import MODEL_NAME
from wavasr.training.interruption import Interruption, requeued
from wavasr.training.recipe import Config, Recipe, add_groups, add_run, new_parser, read
from wavasr.training.run import logger_of, plugins, refuse_missing_gpu, running
from wavasr.training.task import Task
from wavasr.training.workers import loaded, worker_context

Item = TypeVar("Item")


class EpochLoader(DataLoader[Item]):
    """The batches of an epoch in the order of their dataset; a resumed run goes on with the next one.

    Of several processes each takes its part of every batch: rank r of n every n-th item.

    Args:
        dataset: of an epoch.
        batch: items in a batch of all processes; None: the items are batches, of this process alone.
        workers: processes that prepare them.
        rank: which of the processes this is.
        processes: that train together.

    Raises:
        ConfigError: a batch cannot be divided among the processes.
    """

    def __init__(
        self, dataset: Dataset[Item], batch: int | None = None, workers: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        if batch is not None and batch % processes:
            raise ConfigError(f"data.batch is {batch}; give a multiple of {processes}, the processes that share it")
        self._order = _From(dataset, batch or 1, rank, processes if batch else 1)
        super().__init__(
            dataset,
            batch and batch // processes,
            sampler=self._order,
            num_workers=workers,
            multiprocessing_context=worker_context(workers),
        )

    def state_dict(self) -> dict[str, int]:
        """How many items have been handed out, to all processes."""
        return {"done": self._order.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after so many."""
        self._order.done = state["done"]

    def __iter__(self) -> Iterator[Item]:  # type: ignore[override]
        done, begin = self._order.done, super().__iter__  # it goes on with the next one that was not handed out
        for batch in loaded(lambda number: begin(), self.num_workers):
            done += self._order.batch
            self._order.done = done if done < self._order.count else 0
            yield batch


class _From(Sampler[int]):
    """This process's indices in order, without the first `done` of all; those left over that not all can have go."""

    def __init__(self, dataset: Any, batch: int, rank: int, processes: int) -> None:
        self.done, self.count, self.batch = 0, len(dataset) - len(dataset) % processes, batch
        self._rank, self._processes = rank, processes

    def __len__(self) -> int:
        return self.count // self._processes

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.done + self._rank, self.count, self._processes))


def epoch_and_place(trainer: pl.Trainer | None) -> tuple[int, int, int]:
    """Which epoch's batches are wanted, by which of how many processes."""
    return (trainer.current_epoch, trainer.global_rank, trainer.world_size) if trainer else (0, 0, 1)


def parse_recipe(
    argv: Sequence[str], make: Callable[..., Config], task: str, groups: Mapping[str, type], options: Mapping[str, str]
) -> Recipe[Config]:
    """Read the command line of `wavasr fit`.

    Args:
        argv: the command line.
        make: the task's config, made of its folder, seed, logger, options and groups.
        task: what is trained.
        groups: dataclasses with the dotted keys.
        options: single keys, text, each with its meaning.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value of the wrong kind, a file that is missing.
        SystemExit: after `--help` and `--print_config`.
    """
    parser = new_parser("Train from a recipe; any key can be overridden.")
    parser.add_argument("--task", default=task, help="what is trained")
    for name, meaning in options.items():
        parser.add_argument(f"--{name}", default="", help=meaning)
    add_groups(parser, groups)
    add_run(parser)
    parser.set_defaults({"trainer.max_epochs": 60, "trainer.gradient_clip_val": 1.0, "trainer.log_every_n_steps": 10})
    found = read(argv, parser)
    values = found.values
    given = {name: values[name] for name in ("seed", "logger", *options)}
    config = make(found.run_dir, **given, **{name: found.made[name] for name in groups})
    return Recipe(config, values.trainer.as_dict(), values.resume, found.text)


def run(recipe: Recipe[Any], fit: Callable[[Recipe[Any], Interruption], Path]) -> int:
    """Train by `fit`, print where the model is.

    Raises:
        WavasrError: the data or the run folder cannot be used.
    """
    refuse_missing_gpu(recipe.trainer["accelerator"])
    with running(recipe.config.run_dir) as stop:
        path = fit(recipe, stop)
    if process_rank() == 0:
        print(f"model: {path}")
    return 0


def claim(recipe: Recipe[Any], config: Any) -> tuple[dict[str, Any], Path | None]:
    """The record of a run that begins or goes on in its folder, and the checkpoint that it goes on from.

    Raises:
        ConfigError: see `folder.claim`.
    """
    files = {name: file_of(join(config.data.root, name)) for name in config.data.train}
    prints = {name: hashlib.sha256(read_bytes(file)).hexdigest() for name, file in files.items() if not file.is_dir()}
    record = folder.describe(config, prints)
    return record, folder.claim(config.run_dir, record, recipe.text, recipe.resume or requeued())


def train(
    recipe: Recipe[Any],
    task: Task[Any],
    data: pl.LightningDataModule,
    rows: CsvLog,
    keeper: Keeper,
    last: Path | None,
) -> Path:
    """Train from the beginning or from a checkpoint; the file of the best model.

    Raises:
        ConfigError: nothing was validated, or the trainer's options cannot be used.
    """
    make_trainer(recipe, rows, keeper).fit(task, data, ckpt_path=last, weights_only=True)
    path = keeper.run_dir / MODEL_NAME
    if not path.exists():
        raise ConfigError(f"{keeper.run_dir}: training stopped before the first validation; raise trainer.max_time")
    return path


def make_trainer(recipe: Recipe[Any], rows: CsvLog, keeper: Keeper) -> pl.Trainer:
    """Lightning's trainer with this package's logs and files. The network chooses its own precision.

    Raises:
        ConfigError: the strategy is none for generators, or a logger is not installed.
    """
    options = {**recipe.trainer, "precision": "32-true"}
    if options["strategy"] not in ("auto", "ddp"):
        raise ConfigError(f"trainer.strategy is {options['strategy']!r}; a generator is trained with auto or ddp")
    if options["enable_progress_bar"] is None:
        options["enable_progress_bar"] = sys.stderr.isatty()
    bar = [ProgressBar()] if options["enable_progress_bar"] else []
    return pl.Trainer(
        **options,
        default_root_dir=keeper.run_dir,
        logger=[rows, *logger_of(recipe.config, recipe.text)],
        callbacks=[keeper, *bar],
        plugins=plugins(),
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
    )
