"""From a command line and YAML files to a training configuration.

`base.yaml` is read first, then each `--config` in order, then the dotted overrides: `--data.root DIR`.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from wavasr.audio.config import AugmentConfig
from wavasr.errors import ConfigError, reading
from wavasr.language.config import TextConfig, UnitsConfig
from wavasr.network.config import AuxiliaryConfig, EncoderConfig
from wavasr.training.config import DataConfig, FitConfig, LoggerName, OptimConfig
from wavasr.training.folder import LAST_NAME, RECIPE_NAME

Config = TypeVar("Config")  # of a task

BASE_NAME = "base.yaml"
_PRINT = "--print_config"
# Of these one value may stand without brackets.
_LIST_KEYS = ("data.train", "data.dev", "data.test", "data.unlabelled", "data.speakers", "data.sources")
_GROUPS = {
    "encoder": EncoderConfig,
    "auxiliary": AuxiliaryConfig,
    "text": TextConfig,
    "units": UnitsConfig,
    "augment": AugmentConfig,
    "data": DataConfig,
    "optim": OptimConfig,
}
# What a run decides by itself, or what would break resuming.
_OWN_TRAINER_KEYS = {
    "barebones", "benchmark", "callbacks", "default_root_dir", "enable_autolog_hparams", "enable_checkpointing",
    "enable_model_summary", "fast_dev_run", "inference_mode", "limit_predict_batches", "limit_test_batches", "logger",
    "model_registry", "num_sanity_val_steps", "overfit_batches", "plugins", "profiler",
    "reload_dataloaders_every_n_epochs", "sync_batchnorm", "use_distributed_sampler", "val_check_interval",
}  # fmt: skip


class Recipe(NamedTuple, Generic[Config]):
    """A parsed command line.

    Attributes:
        config: what to train.
        trainer: keyword arguments of Lightning's Trainer.
        resume: whether to go on with the run in the folder.
        text: all keys as YAML.
    """

    config: Config
    trainer: dict[str, Any]
    resume: bool
    text: str = ""


def parse(argv: Sequence[str]) -> Recipe[FitConfig]:
    """Read the command line of `wavasr fit`.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value of the wrong kind, a file that is missing, a
            generative loss that can not act.
        SystemExit: after `--help` and `--print_config`.
    """
    found = read(argv, _parser())
    config = FitConfig(
        run_dir=found.run_dir,
        seed=found.values.seed,
        start=found.values.start,
        checkpoint_minutes=found.values.checkpoint_minutes,
        patience=found.values.patience,
        logger=found.values.logger,
        **{name: found.made[name] for name in _GROUPS},
    )
    recipe = Recipe(config, found.values.trainer.as_dict(), found.values.resume, found.text)
    _check_generative_loss(recipe)
    return recipe


class Read(NamedTuple):
    """A command line that a parser has read.

    Attributes:
        values: as they were given.
        made: the groups as dataclasses.
        run_dir: the run's folder, by default called after the last recipe.
        text: all keys as YAML.
    """

    values: Namespace
    made: Namespace
    run_dir: Path
    text: str


def read(argv: Sequence[str], parser: ArgumentParser) -> Read:
    """Read a command line with the parser of its task; see `parse`."""
    argv, names = _resolve_configs(_with_stored_recipe(list(argv)))
    for name in names:
        _check_file(_find(name), list(parser.get_defaults().keys()))
    for argument in argv:
        _refuse_classes({"class_path": ""} if "class_path" in argument else argument, f"the argument {argument[:80]}")
    try:
        values = parser.parse_args([_as_list(argument) for argument in argv if argument != _PRINT])
        text = _annotated(parser, values)
        if _PRINT in argv:
            print(text, flush=True)
            parser.exit(0)
        made = parser.instantiate(values)
    except (argparse.ArgumentError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(_one_line(str(error), parser)) from error
    run_dir = values.get("run_dir") or Path("runs") / (Path(names[-1]).stem if names else "fit")
    return Read(values, made, Path(run_dir), f"{text}\n")


def task_of(argv: Sequence[str]) -> str:
    """What the recipes of a command line train, "recognise" unless they say; what is wrong with them `parse` says."""
    try:
        _, names = _resolve_configs(_with_stored_recipe(list(argv)))
        found = [yaml.safe_load(_find(name).read_text(encoding="utf-8")) for name in names]
    except (ConfigError, OSError, ValueError, yaml.YAMLError):
        return "recognise"
    tasks = [str(recipe["task"]) for recipe in found if isinstance(recipe, dict) and "task" in recipe]
    return tasks[-1] if tasks else "recognise"


def _check_generative_loss(recipe: Recipe[FitConfig]) -> None:
    """Refuse a recipe whose generative loss can not train the front end, which it is for."""
    weight, frozen, epochs = (
        recipe.config.auxiliary.weight,
        recipe.config.optim.front_end_frozen_epochs,
        recipe.trainer["max_epochs"],
    )
    if weight and frozen and epochs is not None and 0 <= epochs <= frozen:
        raise ConfigError(
            f"auxiliary.weight is {weight:g}, but optim.front_end_frozen_epochs {frozen} freezes the front end in all "
            f"{epochs} epochs, and the generative loss is there to train it; set auxiliary.weight to 0, or let the "
            "front end learn"
        )


def shipped_dir() -> Path:
    """The folder of the shipped recipes: inside an installed package, beside it in a source tree."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _with_stored_recipe(argv: list[str]) -> list[str]:
    """With `--run_dir R --resume` and no --config: the recipe that the run in R has stored."""
    named = any(argument.split("=")[0] == "--config" for argument in argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--run_dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:  # the real parser says what is wrong
        return argv
    stored = known.run_dir / RECIPE_NAME if known.run_dir else None
    if named or not known.resume or stored is None:
        return argv
    if not stored.is_file():
        lies = "holds a checkpoint but no" if (known.run_dir / LAST_NAME).exists() else "holds no"
        raise ConfigError(f"{known.run_dir}: {lies} {RECIPE_NAME}; give the recipe as well (--config)")
    return ["--config", str(stored), *argv]


def _as_list(argument: str) -> str:
    """`--data.train=FILE` as the list that the key holds; `--data.train FILE` has become that."""
    name, equals, value = argument.partition("=")
    if equals and name.removeprefix("--") in _LIST_KEYS and not value.lstrip().startswith("["):
        return f"{name}={json.dumps([value], ensure_ascii=False)}"
    return argument


def _resolve_configs(argv: list[str]) -> tuple[list[str], list[str]]:
    """Replace the bare names of shipped recipes by their paths; also the names as they were given."""
    names = []
    for index, argument in enumerate(argv):
        if argument.startswith("--config="):
            names.append(argument.removeprefix("--config="))
            argv[index] = f"--config={_find(names[-1])}"
        elif argument == "--config" and index + 1 < len(argv):
            names.append(argv[index + 1])
            argv[index + 1] = str(_find(names[-1]))
        elif argument.removeprefix("--") in _LIST_KEYS and index + 1 < len(argv):
            argv[index : index + 2] = [f"{argument}={argv[index + 1]}"]
    return argv, names


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_dir() / (name if path.suffix else f"{name}.yaml")
    if path.name == name and shipped.is_file():
        return shipped
    known = [p.name for p in sorted(shipped_dir().glob("*.yaml")) if p.name != BASE_NAME]
    raise ConfigError(f"--config {name}: no such file; shipped recipes: {', '.join(known)}{_suggest(name, known)}")


def _check_file(path: Path, known: Sequence[str]) -> None:
    """Raise a ConfigError that names the file, for what is no recipe and for keys that nobody reads."""
    with reading(path, "recipe", "expected a YAML file", ConfigError):
        text = path.read_text(encoding="utf-8")
    try:
        recipe = yaml.safe_load(text)
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply for a recipe") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date that is none, a number of 5,000 digits
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    _refuse_classes(recipe, str(path))
    if not isinstance(recipe, dict):
        raise ConfigError(f"{path}: is no recipe; expected YAML with keys such as data, encoder, trainer")
    groups = {key.split(".")[0] for key in known if "." in key}
    for name, values in recipe.items():
        if name not in groups and name not in known:
            raise ConfigError(f"{path}: unknown key {name}{_suggest(str(name), [*groups, *known])}")
        for key in values if name in groups and isinstance(values, dict) else ():
            if not any(f"{other}.".startswith(f"{name}.{key}.") for other in known):
                raise ConfigError(f"{path}: unknown key {name}.{key}{_suggest(f'{name}.{key}', known)}")


def _refuse_classes(values: Any, where: str) -> None:
    """A recipe names values, not classes: importing one would run its code."""
    if isinstance(values, str) and values.startswith("--"):
        name = values.partition("=")[0]
        if {"class_path", "init_args", "help"} & set(name.removeprefix("--").split(".")[1:]):
            values = {"class_path": ""}
    if isinstance(values, dict):
        if "class_path" in values or "init_args" in values:
            raise ConfigError(f"{where}: class_path is not allowed in a recipe; give names and numbers")
        values = list(values.values())
    for value in values if isinstance(values, list) else ():
        _refuse_classes(value, where)


def _parser() -> ArgumentParser:
    parser = new_parser("Train a recogniser from a recipe; any key can be overridden.", [shipped_dir() / BASE_NAME])
    parser.add_argument("--start", default=FitConfig.start, help="a model file to go on from: fine-tuning; '' for none")
    parser.add_argument(
        "--checkpoint_minutes",
        type=float,
        default=FitConfig.checkpoint_minutes,
        help="a checkpoint this often, and after every epoch",
    )
    parser.add_argument(
        "--patience", type=int, default=FitConfig.patience, help="stop after so many validations without a better one"
    )
    add_groups(parser, _GROUPS)
    add_run(parser)
    return parser


def new_parser(description: str, base: Sequence[Path] = (), prog: str = "wavasr fit") -> ArgumentParser:
    """A parser with the options that every task has; `base` is read before any recipe."""
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=["wavasr"]
    )  # or a value such as os.system would be imported

    parser = ArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        default_config_files=[str(path) for path in base],
    )
    parser.add_argument("--config", action="config", help="a recipe: a path or the name of a shipped one")
    parser.add_argument("--seed", type=int, default=FitConfig.seed, help="start of every random choice")
    return parser


def add_groups(parser: ArgumentParser, groups: Mapping[str, type]) -> None:
    """The keys of some dataclasses."""
    for name, group in groups.items():
        parser.add_class_arguments(group, name)


def add_run(parser: ArgumentParser) -> None:
    """The keys of a run: its folder, whether it goes on, where its losses go, and Lightning's Trainer."""
    from pytorch_lightning import Trainer

    parser.add_argument(
        "--logger", type=LoggerName, default=FitConfig.logger, help="where losses go beside metrics.csv"
    )
    parser.add_argument("--resume", action="store_true", help="go on where the run in run_dir stopped")
    parser.add_argument(
        "--run_dir", type=Path | None, default=None, help="logs, checkpoints, model, reports; default: runs/<recipe>"
    )
    parser.add_class_arguments(Trainer, "trainer", skip=_OWN_TRAINER_KEYS, instantiate=False)


def _annotated(parser: ArgumentParser, values: Namespace) -> str:
    """The configuration as YAML, each key with the first sentence of its meaning."""
    meanings = {action.dest: " ".join((action.help or "").split()) for action in parser._actions}
    groups = {key.rpartition(".")[0] for key in meanings}
    path: list[str] = []
    lines = []
    for line in parser.dump(values, skip_unset=False).splitlines():
        if key := re.match(r"( *)(\w+):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            meaning = re.split(r"(?<=[a-z)])\. ", meanings.get(".".join(path), ""))[0].rstrip(".")
            line += f"  # {meaning}" if meaning and ".".join(path) not in groups else ""
        if path[0] != "resume":
            lines.append(line)
    return "\n".join(lines)


def _one_line(message: str, parser: ArgumentParser) -> str:
    """The parser's complaint in one line, with the key that was probably meant."""
    known = list(parser.get_defaults().keys())
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return f"unknown key {found[1]}.{found[2]}{_suggest(f'{found[1]}.{found[2]}', known)}"
    if found := re.search(r"Importing '([^']+)' is not allowed", message):
        return f"{found[1]!r} is no value of {_key_of(message)}; a recipe holds names and numbers, not classes"
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        key = found[1].lstrip("-").split("=")[0]
        return f"unknown key {key}{_suggest(key, known)}"
    return _wrong_value(message) or " ".join(message.split())


_KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "NoneType": "null", "tuple": "a list"}


def _wrong_value(message: str) -> str:
    """The parser's complaint about a value, as other keys have it; "" where it is about something else."""
    found = re.search(
        r'Parser key "([\w.]+)":(.*)(?:Got value|Given value type.*Given value): ?(.*)', message, re.DOTALL
    )
    if not found:
        return ""
    key, reason, value = found.groups()
    names = re.findall(r"<class '(\w+)'>|Literal\[(.*?)\]", reason)
    wanted = [_KINDS.get(kind, kind) if kind else choices.replace("'", "") for kind, choices in names]
    return f"{key} is {value.strip()!r}; expected {' or '.join(dict.fromkeys(wanted))}" if wanted else ""


def _key_of(message: str) -> str:
    found = re.search(r'Parser key "([\w.]+)"', message)
    return found[1] if found else "this key"


def _suggest(name: str, known: Sequence[str]) -> str:
    """The key that was probably meant; `optim.ear_*` was the name of `optim.front_end_*` until 0.1."""
    renamed = name.replace("optim.ear_", "optim.front_end_")
    close = [renamed] if renamed in known else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
