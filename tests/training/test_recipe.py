"""Command lines and YAML of `wavasr fit`: nothing is imported or run, odd values are one line."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.tones import recipe_file, train
from wavasr.errors import ConfigError, TextError
from wavasr.training.recipe import parse

EVIL = "wavasr_test_evil"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a module that must not be imported."""
    (tmp_path / f"{EVIL}.py").write_text("raise SystemExit('executed')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_old_key_names_the_new_one(tones: Path, tmp_path: Path) -> None:
    for old in ("frozen_epochs", "copies", "lr_scale"):
        expected = rf"unknown key optim\.ear_{old}; did you mean optim\.front_end_{old}\?"
        with pytest.raises(ConfigError, match=expected):
            parse(["--config", str(recipe_file(tmp_path, tones)), f"--optim.ear_{old}", "1"])
        with pytest.raises(ConfigError, match=expected):
            parse(["--config", str(recipe_file(tmp_path, tones, optim={f"ear_{old}": 1}))])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--trainer.strategy.class_path", f"{EVIL}.X"],
        ["--trainer.strategy", f'{{"class_path": "{EVIL}.X"}}'],
        ["--trainer.strategy.help", f"{EVIL}.X"],
        ["--encoder.stages", f'["{EVIL}.X"]'],
        ["--encoder", f"{EVIL}.X"],
        [f"--data={EVIL}.X"],
        ["--text", f"{EVIL}.X"],
    ],
)
def test_arguments_import_nothing(evil: Path, tones: Path, arguments: list[str]) -> None:
    recipe = recipe_file(evil, tones)
    with pytest.raises(ConfigError) as caught:
        parse(["--config", str(recipe), *arguments])
    assert "\n" not in str(caught.value) and EVIL not in sys.modules


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer": {"strategy": {"class_path": f"{EVIL}.X"}}},
        {"trainer": {"accelerator": {"class_path": f"{EVIL}.X", "init_args": {}}}},
        {"encoder": {"stages": [{"class_path": f"{EVIL}.X"}]}},
        {"encoder": {"class_path": f"{EVIL}.X"}},
    ],
)
def test_recipes_import_nothing(evil: Path, tones: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"class_path is not allowed in a recipe|unknown key"):
        parse(["--config", str(recipe_file(evil, tones, **changes))])
    assert EVIL not in sys.modules


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 2024-13-45\n", "is not YAML"),
        (f"seed: {'9' * 5000}\n", "is not YAML"),
        (f"seed: {'[' * 3000}\n", "nested too deeply|is not YAML"),
        ("? [a]\n: b\n", "is not YAML"),
        ("!!python/object/apply:os.system [true]\n", "is not YAML"),
        ("- a\n", "is no recipe"),
    ],
)
def test_odd_yaml_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "odd.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        parse(["--config", str(tmp_path / "odd.yaml")])
    assert "\n" not in str(caught.value)


def test_one_manifest_needs_no_brackets(tmp_path: Path, tones: Path) -> None:
    path = str(recipe_file(tmp_path, tones))
    for arguments in (["--data.train", "a.jsonl"], ["--data.train=a.jsonl"], ["--data.train", '["a.jsonl"]']):
        assert parse(["--config", path, *arguments]).config.data.train == ("a.jsonl",)


def test_every_key_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--config", "own", "--print_config"])
    printed = capsys.readouterr().out
    assert "run_dir: null" in printed and "noise_dir: null" in printed


def test_a_symbol_that_the_start_model_lacks_is_named(tmp_path: Path, tones: Path) -> None:
    (tmp_path / "first").mkdir()
    start = str(train(tmp_path / "first", tones, trainer={"max_epochs": 1}) / "model.wavasr")
    lines = (
        (tones / "train.jsonl")
        .read_text(encoding="utf-8")
        .replace('"audio_filepath": "', f'"audio_filepath": "{tones}/')
    )
    lines = lines.replace('"text": "ab"', '"text": "aqb"', 1)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(TextError, match=r"utterance \S+: 'q' .* not in the inventory of 4 characters"):
        train(tmp_path, tmp_path, "--start", start)
