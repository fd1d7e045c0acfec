"""Every shipped recipe is parsed and its network built; mistakes in recipes are one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.tones import RATE, rows
from wavasr.audio.config import AugmentConfig
from wavasr.config import from_dict, to_dict
from wavasr.errors import ConfigError
from wavasr.language.text import Units
from wavasr.network.recognizer import Recognizer, load_model
from wavasr.training.config import DataConfig, FitConfig
from wavasr.training.folder import portable
from wavasr.training.recipe import BASE_NAME, parse, shipped_dir, task_of
from wavasr.training.run import fit
from wavasr.training.splits import read_splits

ALL = sorted(path.name for path in shipped_dir().glob("*.yaml") if path.name != BASE_NAME)
SHIPPED = [
    name for name in ALL if task_of(["--config", name]) == "recognise"
]  # the others: test_generate.py, test_speak.py


def keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    return {
        found
        for name, value in values.items()
        for found in (keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"})
    }


def test_the_promised_recipes_ship() -> None:
    assert {"an4.yaml", "fsdd.yaml", "librispeech.yaml", "timit.yaml", "timit-sample.yaml"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_recipe_becomes_a_network(name: str) -> None:
    recipe = parse(["--config", name])
    config = recipe.config
    model = Recognizer(config.encoder, Units.characters(["ab"]), config.text)
    lengths = torch.tensor([config.encoder.sample_rate // 4])
    with torch.no_grad():
        log_probs, frames = model.eval()(torch.zeros(1, int(lengths)), lengths)
    assert log_probs.shape == (1, int(frames), 3)
    assert 0.005 <= config.encoder.hop_samples / config.encoder.sample_rate <= 0.04  # labels come about as fast
    assert recipe.trainer["max_epochs"] > 0 and recipe.trainer["gradient_clip_val"]
    assert from_dict(FitConfig, to_dict(config)) == config


MINIATURE = {
    "encoder.stages": [
        {"channels": 8, "window": 32, "stride": 8, "level_frames": 32, "dilations": [1, 2], "pool": 10},
        {"channels": 8, "dilations": [1], "pool": 2},
    ],
    "encoder.sample_rate": RATE,
    "encoder.init": "random",
    "units.kind": "characters",
    "data.train": ["train.jsonl"],
    "data.dev": [],
    "data.dev_every": 0,
    "data.dev_speakers": 1,
    "data.test": [],
    "data.align": False,
    "data.batch_s": 2,
    "data.workers": 0,
    "trainer.max_steps": 1,
    "trainer.limit_val_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.enable_progress_bar": False,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_recipe_takes_a_step(name: str, tones: Path, tmp_path: Path) -> None:
    """Its losses, optimiser, augmentation and precision, on a miniature network and corpus."""
    given = MINIATURE | {"data.root": str(tones), "run_dir": str(tmp_path / "run")}
    overrides = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]
    recipe = parse(["--config", name, "--start=", *overrides])
    fit(recipe, read_splits(recipe.config))
    losses = [float(row["train_loss"]) for row in rows(tmp_path / "run") if row["train_loss"]]
    assert len(losses) == 1 and math.isfinite(losses[0])
    assert all(torch.isfinite(p).all() for p in load_model(tmp_path / "run" / "model.wavasr").parameters())


@pytest.mark.parametrize("name", SHIPPED)
def test_recipe_is_a_small_delta_on_the_base(name: str) -> None:
    base = yaml.safe_load((shipped_dir() / BASE_NAME).read_text(encoding="utf-8"))
    recipe = yaml.safe_load((shipped_dir() / name).read_text(encoding="utf-8"))
    assert len(keys(recipe)) <= 30

    def value(values: Any, key: str) -> Any:
        for part in key.split("."):
            values = values.get(part) if isinstance(values, dict) else None
        return values

    repeated = {key for key in keys(recipe) if value(base, key) == value(recipe, key)}
    assert not repeated, f"{name} repeats {sorted(repeated)} of {BASE_NAME}"


def test_names_paths_and_overrides(tmp_path: Path) -> None:
    assert parse(["--config", "an4"]).config == parse(["--config=an4.yaml"]).config
    own = tmp_path / "mine.yaml"
    own.write_text("data: {dev: [mine.jsonl]}\noptim: {lr: 0.5}\n", encoding="utf-8")
    recipe = parse(["--config", str(own), "--optim.lr", "0.25", "--data.root=/corpora/x", "--resume"])
    assert recipe.config.run_dir == Path("runs/mine") and recipe.resume
    assert recipe.config.optim.lr == 0.25 and recipe.config.data.root == Path("/corpora/x")
    assert recipe.config.augment.speed == (0.9, 1.1)  # from the base
    both = parse(["--config", "an4.yaml", "--config", str(own), "--run_dir", "elsewhere"]).config
    assert both.units.phone_set == 0 and both.data.dev == ("mine.jsonl",) and both.run_dir == Path("elsewhere")


def test_a_path_goes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("an4.yaml").write_text("data: {dev_speakers: 5}\n", encoding="utf-8")
    assert parse(["--config", "an4.yaml"]).config.data.dev_speakers == 5


def test_stages_can_be_written_out(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    stages = [{"channels": 8, "window": 16, "stride": 8, "dilations": [1, 2], "pool": 20}]
    own.write_text(yaml.safe_dump({"encoder": {"stages": stages}, "data": {"dev_every": 9}}), encoding="utf-8")
    encoder = parse(["--config", str(own)]).config.encoder
    assert [stage.channels for stage in encoder.stages] == [8] and encoder.stages[0].dilations == (1, 2)


def test_print_config_is_a_recipe_that_gives_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--config", "timit.yaml", "--optim.lr", "0.125", "--print_config"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "\n  lr: 0.125  # highest learning rate; " in printed
    assert "\n  max_epochs: " in printed and "\nencoder:\n" in printed
    (tmp_path / "timit.yaml").write_text(printed, encoding="utf-8")
    again = parse(["--config", str(tmp_path / "timit.yaml")])
    assert again == parse(["--config", "timit.yaml", "--optim.lr", "0.125"])


MISTAKES = [
    (["--config", "an4", "--data.cache_mb", "lots"], r"^data\.cache_mb is 'lots'; expected a number$"),
    (
        ["--config", "an4", "--trainer.max_epochs", "1.5"],
        r"^trainer\.max_epochs is '1.5'; expected a whole number or null$",
    ),
    (["--config", "an4", "--logger", "foo"], r"^logger is 'foo'; expected tensorboard, wandb, mlflow, csv$"),
    (["--config", "an4", "--encoder.stages", "5"], r"^encoder\.stages is '5'; expected a list$"),
    (["--config", "an5.yaml"], r"--config an5\.yaml: no such file; shipped recipes: .*did you mean an4\.yaml\?"),
    (["--config", "gone/an4.yaml"], r"--config gone/an4\.yaml: no such file"),
    (["--config", "an4", "--data.rot", "x"], r"unknown key data\.rot; did you mean data\.root\?"),
    (["--config", "an4", "--optim.learning_rate=1"], r"unknown key optim\.learning_rate"),
    (
        ["--config", "an4", "--trainer.max_epoch", "3"],
        r"unknown key trainer\.max_epoch; did you mean trainer\.max_epochs",
    ),
    (["--config", "an4", "--encoder.preset", "bass"], r"encoder\.preset is 'bass'; expected one of"),
    (["--config", "an4", "--optim.lr", "-1"], r"optim\.lr is -1"),
    (["--config", "an4", "--units.kind", "letters"], r"units\.kind.*letters"),
    (["--config", "an4", "--augment.speed", "[1.1, 0.9]"], r"augment\.speed"),
    (["--config", "an4", "--seed", "-3"], r"seed is -3"),
    (["--config", "an4", "extra"], r"extra"),
    (["--config", "an4", "--optim.method", "sgd"], r"optim\.method.*sgd"),
    (
        ["--config", "an4", "--encoder.stages", '[{"channels": 8, "pooling": "energy", "filter_bank": true}]'],
        "a stage.window of 2 or more; found 8, 0, energy and 1",
    ),
    ([], "set exactly one of them"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) or "nothing" for a, _ in MISTAKES])
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder: {presett: small}", r"unknown key encoder\.presett; did you mean encoder\.preset\?"),
        ("encodr: {preset: small}", r"unknown key encodr; did you mean encoder\?"),
        ("data: {dev_speakers: [a]}", r"dev_speakers"),
        ("encoder: {stages: [{channels: 3, foo: 2}]}", r"foo"),
        ("optim: [", r"recipe\.yaml: is not YAML"),
        ("just words", r"recipe\.yaml: is no recipe"),
        ("", r"recipe\.yaml: is no recipe"),
        ("\xff", r"recipe\.yaml: not UTF-8"),
    ],
)
def test_mistakes_in_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    own = tmp_path / "recipe.yaml"
    own.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=message) as caught:
        parse(["--config", str(own)])
    assert "\n" not in str(caught.value)


def test_a_model_file_does_not_tell_the_folders_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    augment = AugmentConfig(noise_dir=tmp_path / "noises", room_dir=tmp_path / "rooms")
    data = DataConfig(root=tmp_path / "corpus", dev=("dev.jsonl",))
    config = FitConfig(tmp_path / "run", start=str(tmp_path / "old.wavasr"), augment=augment, data=data)
    record = {"config": to_dict(config), "manifests_sha256": {"dev.jsonl": "0"}, "versions": {}}
    told = portable(record)
    assert str(tmp_path) not in json.dumps(told)
    assert (told["config"]["start"], told["config"]["augment"]["noise_dir"]) == ("old.wavasr", "noises")
    assert record["config"]["run_dir"] == (tmp_path / "run").as_posix()
