"""What a run keeps and logs: model file, checkpoint, metrics, speed, progress."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from wavasr.files import atomic_text
from wavasr.training.data import SpeechData
from wavasr.training.dataset import SpeechLoader
from wavasr.training.folder import LAST_NAME, MODEL_NAME
from wavasr.training.frame_cache import delete_frames
from wavasr.training.interruption import Interrupted, Interruption
from wavasr.training.processes import most
from wavasr.training.recognize import RecognitionTask
from wavasr.training.sharding import Sharded
from wavasr.training.task import Task
from wavasr.training.unlabelled import MixedLoader

log = logging.getLogger("wavasr")


def process_rank() -> int:
    """Which of several training processes this is; 0 writes the files."""
    return int(getattr(rank_zero_only, "rank", 0))


class Keeper(pl.Callback):
    """Keeps the best model as a finished model file, and a checkpoint to resume from; tells how each epoch went.

    Args:
        run_dir: where both go.
        minutes: how often the checkpoint is written within an epoch; it is always written after one.
        record: what the model file says about the run.
        stop: what signals ask of the run.
        patience: validations without a better one after which training stops; 0: never.
        score: what else to write into the model file of the best epoch so far.
    """

    def __init__(
        self,
        run_dir: Path,
        minutes: float,
        record: Mapping[str, Any],
        stop: Interruption | None = None,
        *,
        patience: int = 0,
        score: Callable[[Path], str] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.best = (math.inf, math.inf)
        self.best_epoch = -1  # the model that training starts from
        self._patience, self._since_best, self._score, self._said = patience, 0, score, ""
        self._seconds = minutes * 60
        self._record = record
        self._saved = time.monotonic()
        self._stop = stop or Interruption()
        self._stopping = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Signals end the run as this package says, not as Lightning does."""
        self._stop.stand()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """By now Lightning has installed its own handlers."""
        self._stop.stand()
        self._stop.waits = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is half done from here on."""
        self._stop.waits = False

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Nothing is left to wait for."""
        self._stop.waits = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if a signal came: the step before is saved and logged."""
        self._raise_if_stopping()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop here if a signal came: validation may be long."""
        self._stopping = most(self._stop.asked, trainer.strategy.root_device)
        self._raise_if_stopping()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save from time to time and when a signal came, but not when the epoch's end is about to."""
        due = time.monotonic() - self._saved > self._seconds
        # Processes save and stop together, whatever their clocks say and whoever got the signal.
        wanted = most(2 * self._stop.asked + due, trainer.strategy.root_device)
        self._stopping = wanted // 2
        if wanted and batch_idx + 1 < trainer.num_training_batches:
            self._save(trainer)

    def _raise_if_stopping(self) -> None:
        if self._stopping:
            raise Interrupted(self._stopping)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and write a line about the epoch."""
        self._save(trainer)
        assert isinstance(pl_module, Task)
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        losses = pl_module.epoch_losses
        validated = pl_module.chosen_by[0] in found
        best = f"epoch {self.best_epoch}" if self.best_epoch >= 0 else "the model before training"
        log.info(
            "epoch %d of %s: loss %.3f, %s%.0f audio-s/s",
            trainer.current_epoch,
            trainer.max_epochs,
            sum(losses) / max(1, len(losses)),
            f"{_dev(found)} (best so far: {best}{self._said}), " if validated else "",
            found.get("audio_s_per_s", math.nan),
        )
        for reference, hypothesis in pl_module.examples:
            log.info("  said %s | recognised %s", reference, hypothesis or "nothing")
        self._raise_if_stopping()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the model if it is the best so far; stop when none has been for long."""
        assert isinstance(pl_module, Task)
        names = pl_module.chosen_by
        found = pl_module.trainer.callback_metrics
        reached = (float(found[names[0]]), float(found[names[1]]))
        before = trainer.sanity_checking
        self._since_best += 1
        if reached < self.best:
            self.best, self.best_epoch, self._since_best = reached, -1 if before else trainer.current_epoch, 0
            strategy = trainer.strategy
            with strategy.whole_weights() if isinstance(strategy, Sharded) else nullcontext():
                self._keep(trainer, pl_module, dict(zip(names, reached, strict=True)))
        if before:
            log.info("before training: %s%s", _dev({name: float(value) for name, value in found.items()}), self._said)
        if self._patience and self._since_best >= self._patience:
            log.info("none of the last %d validations was better (patience): training stops", self._since_best)
            trainer.should_stop = True

    @rank_zero_only
    def _keep(self, trainer: pl.Trainer, task: Task[Any], reached: Mapping[str, float]) -> None:
        best = {**reached, "epoch": self.best_epoch, "step": trainer.global_step}
        task.save(self.run_dir / MODEL_NAME, {**self._record, "best": best})
        self._said = f", {self._score(self.run_dir / MODEL_NAME)}" if self._score else ""

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.run_dir / LAST_NAME)
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Part of the checkpoint."""
        return {
            "best": list(self.best),
            "best_epoch": self.best_epoch,
            "since_best": self._since_best,
            "said": self._said,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.best, self.best_epoch = tuple(state_dict["best"]), state_dict["best_epoch"]
        self._since_best, self._said = state_dict.get("since_best", 0), state_dict.get("said", "")


def _dev(found: Mapping[str, float]) -> str:
    """The measures of a validation, for a line of the log."""
    nats = found.get("dev_crf_nats_per_label", found.get("dev_ctc_nats_per_label", math.nan))
    rates = (
        f"{name.removeprefix('dev_').upper()} {100 * found[name]:.1f} %"
        for name in ("dev_per", "dev_wer", "dev_cer")
        if name in found
    )
    return ", ".join([f"dev {nats:.3f} nats/label", *rates])


class FrozenFrontEnd(pl.Callback):
    """Caches what a frozen front end computes of the training speech, before the first step."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The weights are those to start with or to go on with; the trainer has not moved them to its device yet."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        assert isinstance(pl_module, RecognitionTask) and isinstance(data, SpeechData)
        data.cache_front_end(
            pl_module.recognizer, trainer.strategy.root_device, str(trainer.precision).startswith("bf16")
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The cached frames are of no use once the front end learns, or training has ended."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SpeechData)
        optim, epochs = data.config.optim, trainer.current_epoch + 1
        if trainer.is_global_zero and epochs in (optim.front_end_frozen_epochs, trainer.max_epochs):
            delete_frames(data.front_end_folder)


class CsvLog(Logger):
    """A row per logged step in a CSV file; a resumed run goes on with it as if it had never stopped.

    Args:
        path: the file.
        first_step: the step that is logged next; later rows come from a run that was killed after its checkpoint.
    """

    COLUMNS: tuple[str, ...] = (
        "epoch", "step", "lr", "train_loss", "train_ctc_nats_per_label", "train_generative_nats_per_sample",
        "train_frame_nats_per_frame", "train_crf_denominator_nats_per_label", "dev_ctc_nats_per_label",
        "dev_crf_nats_per_label", "dev_wer", "dev_cer", "dev_per", "audio_s_per_s", "data_wait_share",
        "dev_generative_nats_per_sample",
    )  # fmt: skip

    def __init__(self, path: Path, first_step: int) -> None:
        super().__init__()
        self._path = path
        if process_rank() == 0:
            self._begin(first_step)

    def _begin(self, first_step: int) -> None:
        kept = [row for row in self._rows() if int(row["step"]) < first_step] if first_step else []
        with atomic_text(self._path) as stream:
            writer = csv.DictWriter(stream, self.COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)

    def _rows(self) -> list[dict[str, str]]:
        """The rows that are whole; a full disk or a crash leaves others, which are logged."""
        try:
            text = self._path.read_bytes().decode("utf-8", "replace").replace("\0", "?")
        except FileNotFoundError:
            return []
        found: list[dict[str, str]] = []
        damaged: list[dict[str, str]] = []
        for row in csv.DictReader(text.splitlines()):
            whole = set(row) == set(self.COLUMNS) and None not in row.values()
            (found if whole and str(row["step"]).isdecimal() else damaged).append(row)
        if damaged:
            log.warning("%s: %d damaged rows are left out; the rest is kept", self._path, len(damaged))
        return found

    @property
    def name(self) -> str:
        """Lightning asks for one."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning asks for one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in run.json."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row: in place, since a log grows by a row a step; a row that was cut off is left out when read."""
        row: dict[str, Any] = {
            name: f"{value:.7g}" for name, value in metrics.items() if name in self.COLUMNS and not math.isnan(value)
        }
        row |= {"epoch": int(metrics.get("epoch", 0)), "step": step}
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            csv.DictWriter(stream, self.COLUMNS, lineterminator="\n").writerow(row)


class Stopwatch(pl.Callback):
    """Logs, since the epoch's start, how fast training goes and which share of the time it waited for data."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that resumes within an epoch does not pass `on_train_epoch_start`."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start anew."""
        self._started, self._audio_s, self._waited_s = time.perf_counter(), 0.0, _waited_s(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log."""
        assert isinstance(pl_module, Task)
        # All processes take batches of about the same length.
        self._audio_s += pl_module.audio_s(batch) * trainer.world_size
        elapsed_s = time.perf_counter() - self._started
        pl_module.log("audio_s_per_s", self._audio_s / elapsed_s, prog_bar=True, batch_size=1)
        pl_module.log("data_wait_share", (_waited_s(trainer) - self._waited_s) / elapsed_s, batch_size=1)


def _waited_s(trainer: pl.Trainer) -> float:
    loader = trainer.train_dataloader
    return loader.waited_s if isinstance(loader, SpeechLoader | MixedLoader) else 0.0


class ProgressBar(TQDMProgressBar):
    """Lightning's bar without the loggers' version."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        shown = dict(super().get_metrics(trainer, pl_module))
        shown.pop("v_num", None)
        return shown
