"""From a recipe to a trained model and its reports, and on from where a killed run stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.strategies.launchers import subprocess_script
from tqdm.contrib.logging import logging_redirect_tqdm

from wavasr.config import to_dict
from wavasr.corpora.manifest import Utterance, read_manifest
from wavasr.corpora.remote import join
from wavasr.decoding.config import GREEDY, DecodingConfig
from wavasr.decoding.factory import decoder_of
from wavasr.errors import ConfigError, TextError, WavasrError, counted
from wavasr.evaluation.evaluate import calibrate, evaluate
from wavasr.evaluation.report import write_report
from wavasr.language.text import Units, build_units
from wavasr.network.files import read_header, resolve
from wavasr.network.recognizer import Recognizer, load_front_end, start_from
from wavasr.recognition.models import load_acoustic_model
from wavasr.training import folder
from wavasr.training.aligning import said, with_phones, words_of
from wavasr.training.callbacks import (
    CsvLog,
    FrozenFrontEnd,
    Keeper,
    ProgressBar,
    Stopwatch,
    process_rank,
)
from wavasr.training.config import FitConfig
from wavasr.training.cost import GenerativeCost
from wavasr.training.data import SpeechData
from wavasr.training.folder import LAST_NAME, METRICS_NAME, MODEL_NAME, WholeCheckpoints
from wavasr.training.interruption import Interrupted, Interruption, requeue, requeued
from wavasr.training.processes import connected, has_fast_bfloat16, is_lost_connection, lost_process, watch
from wavasr.training.recipe import Recipe, parse
from wavasr.training.recognize import RecognitionTask
from wavasr.training.sharding import Sharded
from wavasr.training.splits import Splits, fingerprints, known_share, read_splits

log = logging.getLogger("wavasr")

_OWN_UNITS = 0.8  # of the symbols in the texts: what a model knows less of is trained with units of the texts
_SCORED_S = 300.0  # of dev, after each best epoch
_DRAWN = 2  # utterances of dev


def main(argv: Sequence[str], finished: Callable[[Path, Sequence[Utterance]], None] | None = None) -> int:
    """`wavasr fit`: train, evaluate the best model, print where it and its reports are.

    Args:
        argv: the command line.
        finished: what is done at the end with the run's folder, and some utterances of dev.

    Raises:
        WavasrError: the recipe, the data or the run folder cannot be used.
    """
    recipe = parse(argv)
    run_dir = recipe.config.run_dir
    refuse_missing_gpu(recipe.trainer["accelerator"])
    with running(run_dir) as stop:
        splits = read_splits(with_phones(recipe.config, process_rank() == 0))
        model = fit(recipe, splits, stop)
        if process_rank():  # one of several processes measures
            return 0
        results = [measure(recipe.config, name, split) for name, split in evaluated(recipe.config, splits)]
    if finished is not None:
        finished(run_dir, splits.dev.utterances[:_DRAWN])
    print("\n".join([f"model: {model}", *filter(None, results)]))
    return 0


def tell_how_to_go_on(signal: Interrupted, run_dir: Path) -> None:
    """Say how a run that a signal ended is resumed."""
    last = run_dir / LAST_NAME
    queue = f"; {said}" if signal.requeues and process_rank() == 0 and (said := requeue()) else ""
    if last.exists():
        log.warning("%s; `wavasr fit --run_dir %s --resume` goes on from %s%s", signal, run_dir, last.name, queue)
    else:
        log.warning("%s before the first checkpoint: the same command begins anew%s", signal, queue)


@contextlib.contextmanager
def running(run_dir: Path) -> Iterator[Interruption]:
    """A run, or one of its processes: the first holds the folder and logs, each keeps Lightning quiet.

    Raises:
        WavasrError: another run holds the folder, or another process of this one was lost.
        Interrupted: a signal ended it; how to go on is told.
    """
    first = process_rank() == 0
    if not first:
        log.setLevel(logging.ERROR)
    with Interruption() as stop, quiet_lightning(), logging_redirect_tqdm(), contextlib.ExitStack() as lock:
        try:
            if first:
                lock.enter_context(folder.held(run_dir))
            yield stop
        except Interrupted as signal:
            tell_how_to_go_on(signal, run_dir)
            raise
        except RuntimeError as error:
            if not (connected() and is_lost_connection(error)):
                raise
            raise WavasrError(f"{lost_process()}; `wavasr fit --run_dir {run_dir} --resume` goes on") from error


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's advice, and its deprecations on this torch; its progress bar belongs on standard error."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        for message in (".*LeafSpec.*", ".*does not have many workers.*", ".*smaller than the logging interval.*"):
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def fit(recipe: Recipe[FitConfig], splits: Splits, stop: Interruption | None = None) -> Path:
    """Train, and return the file of the best model.

    Args:
        recipe: what to train.
        splits: what on.
        stop: what signals ask of the run.

    Raises:
        WavasrError: the data or the run folder cannot be used, or the loss is not finite.
    """
    config = recipe.config
    record = folder.describe(config, fingerprints(config.data))
    last = folder.claim(config.run_dir, record, recipe.text, recipe.resume or requeued())
    if last is None and recipe.resume:
        log.warning("nothing to resume in %s; starting from the beginning", config.run_dir)
    torch.manual_seed(config.seed)
    units, owner = _units(config, splits)
    recognizer = Recognizer(config.encoder, units, config.text)
    recognizer.file = owner  # its lexicon and language model go on with this one
    if last is None and config.start:
        start_from(recognizer, config.start)
    elif last is None:
        load_front_end(recognizer, config.encoder.init)
    data = SpeechData(config, splits, recognizer)
    phones = len(data.frame_labels.phones) if data.frame_labels else 0
    task = RecognitionTask(recognizer, config, phones, data.train.labels)
    log.info(
        "training on %.2f h in %s, validating on %.2f h in %d; %d %s; %.1f million parameters",
        splits.train.hours, counted(len(data.train), "utterance"), splits.dev.hours, len(data.dev),
        len(recognizer.units) - 1, recognizer.units.kind, sum(p.numel() for p in recognizer.parameters()) / 1e6,
    )  # fmt: skip
    folder.require_space(config.run_dir, sum(p.numel() for p in recognizer.parameters()))
    trainer = make_trainer(recipe, record, last, stop or Interruption(), word_score(config, splits))
    log.info("the best epoch is that with the lowest %s on dev", task.chosen_by[0].removeprefix("dev_"))
    if trainer.world_size > 1:
        log.info(
            "%d processes, %.2f h of each epoch for each; %.0f %% padding",
            trainer.world_size, splits.train.hours / trainer.world_size, 100 * data.plan().padding_share,
        )  # fmt: skip
    trainer.fit(task, data, ckpt_path=last, weights_only=True)
    path = config.run_dir / MODEL_NAME
    if not path.exists():  # stopped by max_steps or max_time within the first epoch
        trainer.validate(task, data, verbose=False)
    if trainer.max_epochs and trainer.current_epoch < trainer.max_epochs:
        reasons = "patience, trainer.max_time or trainer.max_steps"
        log.info("stopped after %d of %d epochs (%s)", trainer.current_epoch, trainer.max_epochs, reasons)
    return path


def _units(config: FitConfig, splits: Splits) -> tuple[Units, Path | None]:
    """The start model's units and its file, where they have most symbols of the texts; else units of these texts."""
    if config.start:
        start = resolve(config.start)
        units = Units.from_dict(read_header(start)["units"])
        if units.kind == config.units.kind and known_share(splits.train, units) > _OWN_UNITS:
            return units, start
    return build_units(splits.train.texts, config.units), None


def word_score(config: FitConfig, splits: Splits) -> Callable[[Path], str] | None:
    """The word error rate of a model file on some minutes of dev, where training made phones of words."""
    if not config.data.align:
        return None
    chosen, total_s = [], 0.0
    for utterance in words_of(config, config.data.dev or config.data.train, splits.dev.utterances):
        total_s += utterance.duration_s
        if total_s <= _SCORED_S:
            chosen.append(utterance)

    def score(path: Path) -> str:
        return f"WER {100 * evaluate(load_acoustic_model(path), chosen, progress=False).rate.value:.1f} %"

    return score if chosen else None


def logger_of(config: Any, text: str) -> list[Logger]:
    """What `logger` names, beside metrics.csv; it gets the whole recipe too.

    MLflow's runs go to `MLFLOW_TRACKING_URI`, without one into the run's folder; W&B's and TensorBoard's lie there.

    Raises:
        ConfigError: its package is not installed, or its service refuses.
    """
    made: Logger
    try:
        if config.logger == "tensorboard":
            made = TensorBoardLogger(config.run_dir, name="", version="tensorboard")
            if process_rank() == 0:
                made.experiment.add_text("recipe", f"<pre>{text}</pre>")
        elif config.logger == "wandb":
            made = WandbLogger(name=config.run_dir.name, save_dir=config.run_dir, project="wavasr")
        elif config.logger == "mlflow":
            given, place = os.environ.get("MLFLOW_TRACKING_URI"), config.run_dir.absolute()
            made = MLFlowLogger(
                "wavasr",
                config.run_dir.name,
                tracking_uri=given or f"sqlite:///{place}/mlflow.db",  # MLflow 3 refuses a store of plain files
                artifact_location=None if given else (place / "mlruns").as_uri(),
            )
            if process_rank() == 0:
                made.experiment.log_text(made.run_id, text, "recipe.yaml")
        else:
            return []
        if config.logger != "tensorboard":
            made.log_hyperparams(to_dict(config) | ({"recipe": text} if config.logger == "wandb" else {}))
    except ImportError as error:
        remedy = f"pip install 'wavasr[{config.logger}]'"
        raise ConfigError(f"logger is {config.logger}, which is not installed; {remedy}") from error
    except Exception as error:  # the services' exceptions have no common class but this
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ConfigError(f"logger {config.logger}: {reason}; or train with --logger csv") from error
    return [made]


def make_trainer(
    recipe: Recipe[FitConfig],
    record: Mapping[str, Any],
    last: Path | None,
    stop: Interruption,
    score: Callable[[Path], str] | None = None,
) -> pl.Trainer:
    """Lightning's trainer with this package's logs and files."""
    run_dir = recipe.config.run_dir
    first_step = folder.first_step(last)
    options = dict(recipe.trainer)
    if options["precision"] == "bf16-mixed" and _slow_in_bfloat16(options["accelerator"]):
        log.info("trainer.precision: 32-true instead of bf16-mixed, which this processor computes very slowly")
        options["precision"] = "32-true"
    if options["enable_progress_bar"] is None:
        options["enable_progress_bar"] = sys.stderr.isatty()
    options["strategy"] = strategy_of(options, recipe.config)
    if options["accelerator"] == "auto" and not _has_gpu():
        log.info("no GPU: training on %s of the processor", counted(torch.get_num_threads(), "thread"))
    config = recipe.config
    keeper = Keeper(
        run_dir, config.checkpoint_minutes, folder.portable(record), stop, patience=config.patience, score=score
    )
    bar = [ProgressBar()] if options["enable_progress_bar"] else []
    cost = [] if isinstance(options["strategy"], Sharded) else [GenerativeCost()]  # it computes on its own
    return pl.Trainer(
        **options,
        default_root_dir=run_dir,
        logger=[CsvLog(run_dir / METRICS_NAME, first_step), *logger_of(config, recipe.text)],
        callbacks=[FrozenFrontEnd(), keeper, Stopwatch(), *cost, *bar],
        plugins=plugins(),
        enable_checkpointing=False,
        num_sanity_val_steps=-1 if config.start and last is None else 0,  # how good is the model that it starts from?
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def plugins() -> list[Any]:
    """What every trainer is given, so that this package looks after checkpoints, lost processes and SLURM's signals."""
    # Lightning's own observer would kill this process within seconds of another's end, without a word.
    setattr(subprocess_script, "_launch_process_observer", watch)  # noqa: B010
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return [WholeCheckpoints(), *slurm]


def strategy_of(options: Mapping[str, Any], config: FitConfig) -> str | Strategy:
    """What `trainer.strategy` means for this configuration.

    Raises:
        ConfigError: it is none of those that are tested.
    """
    wanted = str(options["strategy"])
    if wanted == "fsdp":
        return Sharded()
    if wanted not in ("auto", "ddp"):
        raise ConfigError(f"trainer.strategy is {wanted!r}; expected auto, ddp or fsdp")
    several = wanted == "ddp" or options["devices"] not in ("auto", 1, "1") or options["num_nodes"] > 1
    if several and (config.optim.front_end_frozen_epochs or config.data.unlabelled):
        # Several processes wait for the gradient of every weight; a frozen front end has none, nor has the CTC head for
        # recordings without text.
        return "ddp_find_unused_parameters_true"
    return wanted


def refuse_missing_gpu(accelerator: str) -> None:
    """Before anything is read or written.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    if accelerator in ("gpu", "cuda", "mps") and not _has_gpu():
        raise ConfigError(
            f"trainer.accelerator is {accelerator}, and PyTorch finds no GPU here; install a PyTorch for your GPU "
            "(pytorch.org), or set trainer.accelerator: cpu"
        )


def _has_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _slow_in_bfloat16(accelerator: str) -> bool:
    """Whether training is going to run on a processor without instructions for bfloat16."""
    return (accelerator == "cpu" or (accelerator == "auto" and not _has_gpu())) and not has_fast_bfloat16()


def evaluated(config: FitConfig, splits: Splits) -> Iterator[tuple[str, Sequence[Utterance]]]:
    """What the finished model is evaluated on; where training made phones of words, on the words."""
    data = config.data
    if not data.align:
        yield from (("dev", splits.dev.utterances), ("test", splits.test.utterances))
        return
    yield "dev", words_of(config, data.dev or data.train, splits.dev.utterances)
    yield "test", said(u for name in data.test for u in read_manifest(join(data.root, name)))


def measure(config: FitConfig, name: str, utterances: Sequence[Utterance]) -> str:
    """Evaluate the finished model, and write its report: a line about both.

    Texts of words are decoded as `transcribe` does, phones greedily. On dev the confidences are calibrated first.
    """
    if not utterances:
        return ""
    path = config.run_dir / MODEL_NAME
    names = config.data.test if name == "test" else config.data.dev
    manifest = join(config.data.root, names[0]) if len(names) == 1 else None
    model = load_acoustic_model(path)
    decoder = decoder_of(GREEDY if model.units.is_phones and not config.data.align else DecodingConfig(), model)
    evaluation = evaluate(
        model, utterances, decoder=decoder, model_name=path.as_posix(), manifest=manifest, progress=sys.stderr.isatty()
    )
    if name == "dev":
        try:
            evaluation = calibrate(evaluation, path, decoder.calibration_key)
        except TextError as error:
            log.info("confidences are not calibrated: %s", error)
    page = write_report(evaluation, config.run_dir / name)
    rate = evaluation.rate
    interval = f" (95 %: {100 * rate.ci95.low:.1f} to {100 * rate.ci95.high:.1f})" if rate.ci95 else ""
    return f"{name}: {evaluation.metric.upper()} {100 * rate.value:.1f} %{interval}; report: {page}"
