"""Training with Lightning: what is optimised, how batches arrive, what is written, and how a run goes on after a kill.

Every random draw is derived from (seed, epoch, batch or utterance), and the averaged weights are part of the
checkpoint, so a resumed run repeats exactly what an uninterrupted one would have done.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import Tensor

from wavasr import metrics
from wavasr.config import FitConfig, OptimConfig, TextConfig, UnitsConfig, to_dict
from wavasr.dataset import AudioStore, Batch, BucketBatches, SpeechDataset, SpeechLoader
from wavasr.decoding import greedy
from wavasr.errors import ConfigError, CorpusError
from wavasr.lexicon import fold
from wavasr.manifest import Utterance, atomic_text, read_manifest
from wavasr.model import Recognizer, load_ear, save_model
from wavasr.recipe import parse
from wavasr.text import Units, build_units, ctc_frames_needed, encode_texts, normalise

try:
    from wavasr.augment import Augmenter
except ImportError:
    Augmenter = lambda *a: lambda waveform, rng: waveform  # noqa: E731
try:
    from wavasr.generative import AuxiliaryLoss
except ImportError:
    pass
log = logging.getLogger("wavasr")

MODEL_NAME = "model.wavasr"
LAST_NAME = "last.ckpt"
METRICS_NAME = "metrics.csv"


# --- What is optimised ------------------------------------------------------------------------------------------------


class RecognitionTask(pl.LightningModule):
    """The losses, the optimiser and the validation of a `Recognizer`, which itself knows nothing of them."""

    def __init__(self, recognizer: Recognizer, config: FitConfig) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.config = config
        self.average = copy.deepcopy(recognizer).requires_grad_(False) if config.optim.average_decay else None
        self.auxiliary = AuxiliaryLoss(config.encoder, config.auxiliary) if config.auxiliary.weight else None
        self._heard: list[tuple[str, str]] = []
        self._dev_nats = self._dev_labels = 0.0

    @property
    def listener(self) -> Recognizer:
        """The network that is validated and saved: the averaged one, where there is an average."""
        return self.average if self.average is not None else self.recognizer

    @property
    def error_name(self) -> str:
        """What the best epoch is chosen by."""
        return "dev_per" if self.recognizer.units.is_phones else "dev_wer"

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of CTC (nats per label) and the auxiliary loss (nats per sample)."""
        seed = hash((self.config.seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63
        torch.manual_seed(seed)  # dropout and hidden spans: a resumed run draws what this one would
        losses = self._losses(batch, torch.Generator().manual_seed(seed))
        total = losses["ctc_nats_per_label"]
        if self.auxiliary is not None:
            total = total + self.config.auxiliary.weight * losses["auxiliary_nats_per_sample"]
        self.log_dict({f"train_{name}": value.detach() for name, value in losses.items()}, batch_size=1)
        self.log("train_loss", total.detach(), prog_bar=True, batch_size=1)
        self.log("lr", self.optimizers().param_groups[0]["lr"], batch_size=1)  # type: ignore[union-attr]
        return total

    def _losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        hidden = None
        waveform = batch.waveform
        if self.auxiliary is not None:
            hidden = self.auxiliary.hide(waveform, batch.lengths, generator)
            waveform = hidden.waveform
        features = self.recognizer.features(waveform, batch.lengths)
        log_probs = self.recognizer.head(features[-1])
        losses = {"ctc_nats_per_label": ctc_nats(log_probs, features[-1].lengths, batch) / batch.target_lengths.sum()}
        if self.auxiliary is not None:
            losses["auxiliary_nats_per_sample"] = self.auxiliary(features, hidden)
        return losses

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the loss and the greedy transcripts of the averaged network."""
        listener = self.listener
        log_probs, frames = listener(batch.waveform, batch.lengths)
        self._dev_nats += float(ctc_nats(log_probs, frames, batch))
        self._dev_labels += float(batch.target_lengths.sum())
        for row in range(len(frames)):
            best = greedy(log_probs[row, : int(frames[row])].float().cpu())
            reference = batch.targets[row, : int(batch.target_lengths[row])].tolist()
            self._heard.append((listener.units.decode(reference), listener.units.decode(best.ids)))

    def on_validation_epoch_end(self) -> None:
        """Turn what was collected into error rates: counts are summed over the set and divided once."""
        references, hypotheses = [list(side) for side in zip(*self._heard, strict=True)]
        if self.recognizer.units.is_phones:
            rates = {"dev_per": metrics.per(references, hypotheses).rate}
        else:
            rates = {
                name: f(references, hypotheses).rate for name, f in (("dev_wer", metrics.wer), ("dev_cer", metrics.cer))
            }
        if not any(hypotheses):
            log.warning(
                "after epoch %d the output is all blanks. The first epochs may pass so; if it stays, raise optim.lr or "
                "warm the ear up (encoder.init)",
                self.current_epoch,
            )
        self.log("dev_ctc_nats_per_label", self._dev_nats / max(self._dev_labels, 1.0))
        for name, rate in rates.items():
            self.log(name, rate, prog_bar=True)
        self._heard, self._dev_nats, self._dev_labels = [], 0.0, 0.0

    def configure_optimizers(self) -> Any:
        """AdamW with a rate of its own for the ear, and no decay for vectors."""
        optim = self.config.optim
        ear = {id(p) for p in ear_parameters(self.recognizer)}
        groups = []
        learned = [p for p in self.parameters() if p.requires_grad]
        for is_ear in (False, True):
            for is_matrix in (True, False):
                chosen = [p for p in learned if (id(p) in ear) == is_ear and (p.ndim > 1) == is_matrix]
                rate = optim.lr * (optim.ear_lr_scale if is_ear else 1.0)
                groups.append({"params": chosen, "lr": rate, "weight_decay": optim.weight_decay * is_matrix})
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=optim.lr, betas=optim.betas)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_scale(step, steps, optim))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Freeze the ear in the first epochs, so that only the network above it is computed backwards."""
        self._freeze_ear()

    def on_train_start(self) -> None:
        """A run that resumes within an epoch does not pass `on_train_epoch_start`."""
        self._freeze_ear()

    def _freeze_ear(self) -> None:
        frozen = self.current_epoch < self.config.optim.ear_frozen_epochs
        for parameter in ear_parameters(self.recognizer):
            parameter.requires_grad_(not frozen)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After each step the average follows the weights."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            step = self.global_step
            decay = min(self.config.optim.average_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.recognizer.parameters()), 1 - decay)


def ear_parameters(recognizer: Recognizer) -> list[torch.nn.Parameter]:
    """Everything of the encoder that is not above the ear; nothing where there is no ear."""
    count = recognizer.encoder_config.ear_stages
    above = {id(p) for stage in list(recognizer.encoder.stages)[count:] for p in stage.parameters()}
    return [p for p in recognizer.encoder.parameters() if id(p) not in above] if count else []


def ctc_nats(log_probs: Tensor, frames: Tensor, batch: Batch) -> Tensor:
    """CTC in nats, summed over the batch: log_probs (B, T, V), frames (B,) -> scalar float32.

    Source: Graves et al. 2006, "Connectionist temporal classification".
    """
    return F.ctc_loss(
        log_probs.float().transpose(0, 1),  # (T, B, V)
        batch.targets,
        frames,
        batch.target_lengths,
        blank=Units.blank,
        reduction="sum",
    )


def lr_scale(step: int, steps: int, optim: OptimConfig) -> float:
    """The learning rate at a step, as a share of the highest: a linear rise, then the decay of the config."""
    warmup = min(optim.warmup_steps, max(steps // 4, 1))
    if step < warmup:
        return (step + 1) / warmup
    if optim.decay == "inverse_sqrt":
        return math.sqrt(max(warmup, 1) / max(step, 1))
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return optim.final_lr_scale + (1 - optim.final_lr_scale) * 0.5 * (1 + math.cos(math.pi * progress))


# --- What it is trained on --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Utterances with their normalised texts."""

    utterances: Sequence[Utterance]
    texts: Sequence[str]

    @property
    def hours(self) -> float:
        return sum(u.duration_s for u in self.utterances) / 3600


def read_splits(config: FitConfig) -> tuple[Split, Split]:
    """The training and validation utterances that `config.data` names.

    Raises:
        CorpusError: a manifest cannot be used.
        ConfigError: there are not enough speakers to hold out.
    """
    data = config.data
    train = read_manifests(data.root, data.train)
    if data.dev:
        dev = read_manifests(data.root, data.dev)
    else:
        train, dev = hold_out_speakers(train, data.dev_speakers)
    if data.max_s:
        kept = [u for u in train if u.duration_s <= data.max_s]
        if len(kept) < len(train):
            log.warning(
                "left out %d training utterances longer than %g s (data.max_s)", len(train) - len(kept), data.max_s
            )
        train = kept
    return tuple(Split(us, [spell(u.text, config.text, config.units) for u in us]) for us in (train, dev))  # type: ignore[return-value]


def read_manifests(root: Path, names: Iterable[str]) -> list[Utterance]:
    """The utterances of several manifests; ids stay unique by the manifest's name where they repeat."""
    found: list[Utterance] = []
    seen: set[str] = set()
    for name in names:
        for utterance in read_manifest(root / name):
            if utterance.id in seen:
                utterance = replace(utterance, id=f"{Path(name).with_suffix('').as_posix()}/{utterance.id}")
            seen.add(utterance.id)
            found.append(utterance)
    return found


def hold_out_speakers(utterances: Sequence[Utterance], count: int) -> tuple[list[Utterance], list[Utterance]]:
    """Split by speaker: every k-th of the sorted names is held out, the same ones in every run.

    Raises:
        ConfigError: there are not more than `count` speakers.
    """
    speakers = sorted({u.speaker for u in utterances})
    if count >= len(speakers):
        raise ConfigError(
            f"data.dev_speakers is {count}, and the training manifests name {len(speakers)} speakers; "
            "hold out fewer, or give data.dev a manifest"
        )
    held = {speakers[(2 * i + 1) * len(speakers) // (2 * count)] for i in range(count)}
    return [u for u in utterances if u.speaker not in held], [u for u in utterances if u.speaker in held]


def spell(text: str, text_config: TextConfig, units: UnitsConfig) -> str:
    """A transcript as it is encoded: folded phones, or normalised text."""
    if units.kind != "phones":
        return normalise(text, text_config)
    phones = text.split()
    return " ".join(phones if units.phone_set == 61 else fold(phones, to=units.phone_set))


class SpeechData(pl.LightningDataModule):
    """Encoded, checked and cached splits, and the loaders over them."""

    def __init__(self, config: FitConfig, train: Split, dev: Split, recognizer: Recognizer) -> None:
        super().__init__()
        self.config = config
        self._fastest = config.augment.speed[1]
        self.train = self._dataset(train, recognizer, Augmenter(config.augment, recognizer.sample_rate))
        self.dev = self._dataset(dev, recognizer, None)

    def _dataset(self, split: Split, recognizer: Recognizer, augmenter: Augmenter | None) -> SpeechDataset:
        config = self.config
        encoded = encode_texts(
            zip((u.id for u in split.utterances), split.texts, strict=True),
            recognizer.units,
            config.units.out_of_inventory,
        )
        report_dropped("a symbol outside the inventory", encoded.dropped)
        kept = [u for u in split.utterances if u.id in encoded.labels]
        needed = {u.id: ctc_frames_needed(encoded.labels[u.id]) for u in kept}
        fastest = self._fastest if augmenter else 1.0
        kept = feasible(kept, needed, recognizer, fastest, config.data.infeasible)
        if not kept:
            raise CorpusError("no utterance is left to train or validate on; the messages above say why")
        store = AudioStore(kept, recognizer.sample_rate) if config.data.cache == "memory" else None
        labels = [encoded.labels[u.id] for u in kept]
        return SpeechDataset(kept, labels, recognizer.sample_rate, augment=augmenter, seed=config.seed, store=store)

    def train_dataloader(self) -> SpeechLoader:
        """Augmented batches, shuffled anew each epoch."""
        return self._loader(self.train, 1 / self.config.augment.speed[0], shuffle=True)

    def val_dataloader(self) -> SpeechLoader:
        """The dev set as it is."""
        return self._loader(self.dev, 1.0, shuffle=False)

    def _loader(self, dataset: SpeechDataset, stretch: float, *, shuffle: bool) -> SpeechLoader:
        data = self.config.data
        trainer = self.trainer
        batches = BucketBatches(
            [u.duration_s * stretch for u in dataset.utterances],
            data.batch_s,
            dataset.sample_rate,
            buckets=data.buckets,
            seed=self.config.seed,
            shuffle=shuffle,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        return SpeechLoader(dataset, batches, data.workers if shuffle else 0)


def feasible(
    utterances: Sequence[Utterance], needed: Mapping[str, int], recognizer: Recognizer, fastest: float, policy: str
) -> list[Utterance]:
    """The utterances with enough frames for their labels even at the fastest speed.

    Raises:
        CorpusError: there is another, and the policy is "error".
    """
    samples = [int(u.duration_s * recognizer.sample_rate / fastest) for u in utterances]
    frames = recognizer.frame_lengths(torch.tensor(samples)).tolist()
    short = {
        u.id: f"{u.audio}: {n} frames at speed {fastest:g}, CTC needs {needed[u.id]} for {u.text!r}"
        for u, n in zip(utterances, frames, strict=True)
        if n < needed[u.id] or needed[u.id] == 0
    }
    if short and policy == "error":
        name, why = next(iter(short.items()))
        raise CorpusError(
            f"{len(short)} utterances cannot be learnt, the first is {name}: {why}; correct the manifest, pool less, or "
            "set data.infeasible: drop"
        )
    report_dropped("too few frames for their labels", short)
    return [u for u in utterances if u.id not in short]


def report_dropped(reason: str, dropped: Mapping[str, str]) -> None:
    """Name what is left out of training."""
    if dropped:
        named = "; ".join(f"{name}: {why}" for name, why in list(dropped.items())[:3])
        log.warning(
            "left out %d utterances with %s: %s%s", len(dropped), reason, named, " ..." if len(dropped) > 3 else ""
        )


# --- What it writes ---------------------------------------------------------------------------------------------------


class Keeper(pl.Callback):
    """Keeps the best model as a finished model file, and a checkpoint to resume from.

    Args:
        run_dir: where both go.
        minutes: how often the checkpoint is written within an epoch; it is always written after one.
        metadata: what the model file says about the run.
    """

    def __init__(self, run_dir: Path, minutes: float, metadata: Mapping[str, Any]) -> None:
        self.run_dir = run_dir
        self._seconds = minutes * 60
        self._metadata = metadata
        self._saved = time.monotonic()
        self.best = math.inf
        self.best_epoch = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last_batch = batch_idx + 1 >= trainer.num_training_batches
        if time.monotonic() - self._saved > self._seconds and not last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.run_dir / LAST_NAME)
        self._saved = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RecognitionTask)
        rate = float(trainer.callback_metrics[pl_module.error_name])
        if rate < self.best:
            self.best, self.best_epoch = rate, trainer.current_epoch
            if trainer.is_global_zero:
                found = {pl_module.error_name: rate, "epoch": trainer.current_epoch, "step": trainer.global_step}
                save_model(pl_module.listener, self.run_dir / MODEL_NAME, {**self._metadata, "best": found})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


class CsvLog(Logger):
    """One row per logged step in a CSV file that a resumed run goes on with, as if it had never stopped."""

    COLUMNS = (
        "epoch", "step", "lr", "train_loss", "train_ctc_nats_per_label", "train_auxiliary_nats_per_sample",
        "dev_ctc_nats_per_label", "dev_wer", "dev_cer", "dev_per", "audio_s_per_s", "data_wait_share",
    )  # fmt: skip

    def __init__(self, path: Path, first_step: int) -> None:
        super().__init__()
        self._path = path
        kept: list[dict[str, str]] = []
        if first_step:
            with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", newline="") as stream:
                kept = [row for row in csv.DictReader(stream) if int(row["step"]) < first_step]
        with atomic_text(path) as stream:
            writer = csv.DictWriter(stream, self.COLUMNS)
            writer.writeheader()
            writer.writerows(kept)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {name: f"{value:.6g}" for name, value in metrics.items() if name in self.COLUMNS}
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            csv.DictWriter(stream, self.COLUMNS).writerow({**row, "epoch": int(metrics.get("epoch", 0)), "step": step})


class Stopwatch(pl.Callback):
    """Logs how fast training goes and which share of the time it waited for data."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart(trainer)

    def _restart(self, trainer: pl.Trainer) -> None:
        self._started, self._audio_s, self._waited = time.perf_counter(), 0.0, self._waited_s(trainer)

    def _waited_s(self, trainer: pl.Trainer) -> float:
        loader = trainer.train_dataloader
        return loader.waited_s if isinstance(loader, SpeechLoader) else 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, RecognitionTask)
        self._audio_s += float(batch.lengths.sum()) / pl_module.recognizer.sample_rate
        elapsed = time.perf_counter() - self._started
        pl_module.log("audio_s_per_s", self._audio_s / elapsed, prog_bar=True, batch_size=1)
        pl_module.log("data_wait_share", (self._waited_s(trainer) - self._waited) / elapsed, batch_size=1)


# --- The story --------------------------------------------------------------------------------------------------------


def fit(config: FitConfig, trainer_options: Mapping[str, Any], *, resume: bool = False) -> Path:
    """Train, keep the best model in `config.run_dir`, and return its path.

    Raises:
        WavasrError: data, configuration or run folder cannot be used.
    """
    run_dir = config.run_dir
    last = claim_run_dir(config, resume)
    torch.manual_seed(config.seed)
    train, dev = read_splits(config)
    units = build_units(train.texts, config.units)
    recognizer = Recognizer(config.encoder, units, config.text)
    load_ear(recognizer, config.encoder.init)
    data = SpeechData(config, train, dev, recognizer)
    log.info(
        "training on %.2f h in %d utterances, validating on %.2f h in %d; %s; %.1f M parameters",
        train.hours,
        len(data.train),
        dev.hours,
        len(data.dev),
        units,
        sum(p.numel() for p in recognizer.parameters()) / 1e6,
    )
    step = torch.load(last, map_location="cpu", weights_only=True)["global_step"] if last else 0
    trainer = pl.Trainer(
        **trainer_options,
        default_root_dir=run_dir,
        logger=[CsvLog(run_dir / METRICS_NAME, step), TensorBoardLogger(run_dir, name="", version="tensorboard")],
        callbacks=[Keeper(run_dir, config.checkpoint_minutes, describe(config)), Stopwatch()],
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    with contextlib.redirect_stdout(sys.stderr):  # the progress bar; standard output is for results
        trainer.fit(RecognitionTask(recognizer, config), data, ckpt_path=last, weights_only=True)
    return run_dir / MODEL_NAME


def claim_run_dir(config: FitConfig, resume: bool) -> Path | None:
    """The checkpoint to go on from, if any.

    Raises:
        ConfigError: the folder holds a run that nobody asked to resume.
    """
    last = config.run_dir / LAST_NAME
    if last.exists() and not resume:
        raise ConfigError(
            f"run_dir {config.run_dir} already holds a run; add --resume to go on with it, or name another --run_dir"
        )
    if resume and not last.exists():
        log.warning("nothing to resume in %s; starting from the beginning", config.run_dir)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    return last if last.exists() else None


def describe(config: FitConfig) -> dict[str, Any]:
    """What a model file says about how it was made."""
    return {"config": to_dict(config)}


def main(argv: Sequence[str]) -> int:
    """`wavasr fit`: parse, train, evaluate, print where everything is."""
    config, trainer_options, resume = parse(argv)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    model = fit(config, trainer_options, resume=resume)
    print(model)
    return 0
