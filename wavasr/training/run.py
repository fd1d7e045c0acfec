"""From a recipe to a trained model and its reports, and on from where a killed run stopped.

What a run leaves behind:

    runs/an4/run.json        configuration and fingerprints of the data
    runs/an4/metrics.csv     losses and error rates; tensorboard/ has the same
    runs/an4/last.ckpt       to resume from
    runs/an4/model.wavasr    the best epoch, ready for use
    runs/an4/dev/, test/     reports of the model
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tqdm.contrib.logging import logging_redirect_tqdm

import wavasr
from wavasr.config import to_dict
from wavasr.errors import ConfigError, TextError
from wavasr.evaluation.evaluate import calibrate, evaluate
from wavasr.evaluation.report import write_report
from wavasr.files import atomic_text
from wavasr.language.text import Units, build_units
from wavasr.network.files import copy_companions, read_header, resolve
from wavasr.network.recognizer import Recognizer, load_ear, start_from
from wavasr.recognition.transcribe import load_acoustic_model
from wavasr.training.callbacks import (
    LAST_NAME,
    MODEL_NAME,
    CsvLog,
    FrozenEar,
    Keeper,
    ProgressBar,
    Stopwatch,
    process_rank,
)
from wavasr.training.config import FitConfig
from wavasr.training.data import SpeechData
from wavasr.training.processes import has_fast_bfloat16
from wavasr.training.recipe import Recipe, parse
from wavasr.training.recognize import RecognitionTask
from wavasr.training.splits import Split, Splits, fingerprints, read_splits

log = logging.getLogger("wavasr")

RECORD_NAME = "run.json"
METRICS_NAME = "metrics.csv"
# Keys that may change between a run and its resumption: they decide nothing about what is learnt.
_FREE_KEYS = (
    "run_dir",
    "checkpoint_minutes",
    "data.root",
    "data.workers",
    "data.cache",
    "data.test",
    "optim.ear_cache",
)


def main(argv: Sequence[str]) -> int:
    """`wavasr fit`: train, evaluate the best model, print where it and its reports are.

    Raises:
        WavasrError: the recipe, the data or the run folder cannot be used.
    """
    recipe = parse(argv)
    if process_rank() != 0:  # one of several processes tells
        log.setLevel(logging.ERROR)
    with _quiet_lightning(), logging_redirect_tqdm():
        splits = read_splits(recipe.config)
        model = fit(recipe, splits)
        if process_rank() != 0:  # and measures
            return 0
        results = [measure(recipe.config, name, split) for name, split in (("dev", splits.dev), ("test", splits.test))]
    print("\n".join([f"model: {model}", *filter(None, results)]))
    return 0


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
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


def fit(recipe: Recipe, splits: Splits) -> Path:
    """Train, and return the file of the best model.

    Raises:
        WavasrError: the data or the run folder cannot be used, or the loss is not finite.
    """
    config = recipe.config
    record = describe(config)
    last = claim_run_dir(config, record, recipe.resume)
    torch.manual_seed(config.seed)
    units, owner = _units(config, splits)
    recognizer = Recognizer(config.encoder, units, config.text)
    if last is None and config.start:
        start_from(recognizer, config.start)
    elif last is None:
        load_ear(recognizer, config.encoder.init)
    data = SpeechData(config, splits, recognizer)
    phones = len(data.frame_labels.phones) if data.frame_labels else 0
    task = RecognitionTask(recognizer, config, phones, data.train.labels)
    log.info(
        "training on %.2f h in %d utterances, validating on %.2f h in %d; %d %s; %.1f million parameters",
        splits.train.hours, len(data.train), splits.dev.hours, len(data.dev), len(recognizer.units) - 1,
        recognizer.units.kind, sum(p.numel() for p in recognizer.parameters()) / 1e6,
    )  # fmt: skip
    trainer = make_trainer(recipe, record, last)
    trainer.fit(task, data, ckpt_path=last, weights_only=True)
    path = config.run_dir / MODEL_NAME
    if not path.exists():
        raise ConfigError(f"{config.run_dir}: training stopped before the first validation; raise trainer.max_time")
    if trainer.max_epochs and trainer.current_epoch < trainer.max_epochs:
        log.info("stopped in epoch %d of %d (trainer.max_time, max_steps)", trainer.current_epoch, trainer.max_epochs)
    if owner and process_rank() == 0:
        copy_companions(owner, path)
    return path


def _units(config: FitConfig, splits: Splits) -> tuple[Units, Path | None]:
    """The start model's units and its file, where they spell all training texts; else units of these texts."""
    if config.start:
        start = resolve(config.start)
        units = Units.from_dict(read_header(start)["units"])
        if units.kind == config.units.kind:
            with contextlib.suppress(TextError):
                for text in splits.train.texts:
                    units.encode(text)
                return units, start
    return build_units(splits.train.texts, config.units), None


def make_trainer(recipe: Recipe, record: Mapping[str, Any], last: Path | None) -> pl.Trainer:
    """Lightning's trainer with this package's logs and files."""
    run_dir = recipe.config.run_dir
    first_step = torch.load(last, map_location="cpu", weights_only=True)["global_step"] if last else 0
    options = dict(recipe.trainer)
    if options["precision"] == "bf16-mixed" and _slow_in_bfloat16(options["accelerator"]):
        log.info("trainer.precision: 32-true instead of bf16-mixed, which this processor computes very slowly")
        options["precision"] = "32-true"
    if options["enable_progress_bar"] is None:
        options["enable_progress_bar"] = sys.stderr.isatty()
    if options["strategy"] in ("auto", "ddp") and recipe.config.optim.ear_frozen_epochs:
        # Several processes wait for the gradient of every weight, and a frozen ear has none.
        several = options["strategy"] == "ddp" or options["devices"] not in ("auto", 1, "1")
        options["strategy"] = "ddp_find_unused_parameters_true" if several else options["strategy"]
    keeper = Keeper(run_dir, recipe.config.checkpoint_minutes, portable(record))
    bar = [ProgressBar()] if options["enable_progress_bar"] else []
    return pl.Trainer(
        **options,
        default_root_dir=run_dir,
        logger=[CsvLog(run_dir / METRICS_NAME, first_step), TensorBoardLogger(run_dir, name="", version="tensorboard")],
        callbacks=[FrozenEar(), keeper, Stopwatch(), *bar],
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def _slow_in_bfloat16(accelerator: str) -> bool:
    """Whether training is going to run on a processor without instructions for bfloat16."""
    others = torch.cuda.is_available() or torch.backends.mps.is_available()
    return (accelerator == "cpu" or (accelerator == "auto" and not others)) and not has_fast_bfloat16()


def measure(config: FitConfig, name: str, split: Split) -> str:
    """Evaluate the finished model's own output, decoded greedily, and write its report: a line about both.

    On dev its confidences are calibrated first.
    """
    if not split.utterances:
        return ""
    path = config.run_dir / MODEL_NAME
    names = config.data.test if name == "test" else config.data.dev
    manifest = config.data.root / names[0] if len(names) == 1 else None
    evaluation = evaluate(
        load_acoustic_model(path), split.utterances, decoder="greedy", model_name=path.as_posix(), manifest=manifest
    )
    if name == "dev":
        try:
            evaluation = calibrate(evaluation, path)
        except TextError as error:
            log.info("confidences stay as they are: %s", error)
    page = write_report(evaluation, config.run_dir / name)
    rate = evaluation.rate
    interval = f" (95 %: {100 * rate.ci95.low:.1f} to {100 * rate.ci95.high:.1f})" if rate.ci95 else ""
    return f"{name}: {evaluation.metric.upper()} {100 * rate.value:.1f} %{interval}; report: {page}"


def describe(config: FitConfig) -> dict[str, Any]:
    """What the run's folder and the model file say about how the model was made."""
    versions = {name: metadata.version(name) for name in ("torch", "pytorch-lightning", "numpy")}
    return {
        "config": to_dict(config),
        "manifests_sha256": fingerprints(config.data),
        "versions": {"wavasr": wavasr.__version__, "python": platform.python_version(), **versions},
    }


def portable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record for a model file, which travels: of folders and files on this machine only their names remain."""

    def name(path: Any) -> str | None:
        return Path(path).name if path else path

    config = {key: dict(value) if isinstance(value, Mapping) else value for key, value in record["config"].items()}
    config |= {key: name(config[key]) for key in ("run_dir", "start")}
    config["data"]["root"] = name(config["data"]["root"])
    config["encoder"]["init"] = name(config["encoder"]["init"])
    config["optim"] |= {"ear_cache": name(config["optim"]["ear_cache"])}
    config["augment"] |= {key: name(config["augment"][key]) for key in ("noise_dir", "room_dir")}
    return {**record, "config": config}


def claim_run_dir(config: FitConfig, record: Mapping[str, Any], resume: bool) -> Path | None:
    """Make the run's folder; the checkpoint to go on from, if there is one.

    Raises:
        ConfigError: the folder holds a run that nobody asked to resume, or one of another configuration or data.
    """
    run_dir = config.run_dir
    last = run_dir / LAST_NAME
    if last.exists() and not resume:
        raise ConfigError(f"{run_dir} already holds a run; add --resume to go on with it, or name another --run_dir")
    if last.exists():
        refuse_other(json.loads((run_dir / RECORD_NAME).read_text(encoding="utf-8")), record, run_dir)
        return last
    if resume:
        log.warning("nothing to resume in %s; starting from the beginning", run_dir)
    with atomic_text(run_dir / RECORD_NAME) as stream:
        json.dump(record, stream, indent=2, ensure_ascii=False)
    return None


def refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    """Raise a ConfigError that names the first key in which a run and its resumption differ."""
    old, new = (_flat({"": r["config"], ".sha256": r["manifests_sha256"]}) for r in (before, now))
    for key in sorted(old.keys() | new.keys()):
        name = key.lstrip(".")
        if (key in old) != (key in new) and not name.startswith((*_FREE_KEYS, "sha256")):
            version = before.get("versions", {}).get("wavasr", "another version")
            raise ConfigError(
                f"{run_dir} was begun by wavasr {version}, which differs in {name}; finish it with that one, or name "
                "another --run_dir"
            )
        if old.get(key) != new.get(key) and not name.startswith(_FREE_KEYS):
            raise ConfigError(
                f"{run_dir} was trained with {name} {old.get(key)!r}, not {new.get(key)!r}; resume with the same "
                "recipe and data, or name another --run_dir"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        inside = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return found
