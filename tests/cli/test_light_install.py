"""What the plain install can do, without the packages of the extras; and what is said where one of those is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wavasr.cli.console import EXTRAS

CLIP = Path(__file__).parents[2] / "data" / "samples" / "date.flac"
FORBID = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRAS)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Forbid())
from wavasr.cli import main
"""


def light(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program as where only the plain install is there."""
    return subprocess.run(
        [sys.executable, "-c", FORBID + program], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_everything_but_training_works(tmp_path: Path, tiny_model: Path, speech: Path) -> None:
    manifest, home = tmp_path / "test.jsonl", tmp_path / "home"
    home.mkdir()
    line = {"audio_filepath": str(speech), "duration": 0.5, "text": "fox", "speaker": "a"}
    manifest.write_text(json.dumps(line) + "\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("fox\ndog\nthe\n", encoding="utf-8")
    program = f"""
def wavasr(*arguments):
    assert main([str(argument) for argument in arguments]) == 0, arguments
folder, model, speech, manifest = {str(tmp_path)!r}, {str(tiny_model)!r}, {str(speech)!r}, {str(manifest)!r}
wavasr("transcribe", {str(CLIP)!r})
wavasr("transcribe", speech, "--model", model, "--beam", "4", "--format", "json")
wavasr("evaluate", "--manifest", manifest, "--model", model, "--report", folder + "/report")
wavasr("align", speech, "--text", "fox", "--model", model)
wavasr("info", model)
wavasr("info", "--json")
wavasr("lm", "build", folder + "/words.txt", "-o", folder + "/lm.arpa", "--model", model)
wavasr("export", model, "--lm", folder + "/lm.arpa", "-o", folder + "/words.wavasr")
wavasr("lm", "tune", "--model", folder + "/words.wavasr", "--manifest", manifest, "--beam", "4")
wavasr("pronounce", "zarathustra")
wavasr("prepare", "jsonl", manifest, "--output", folder + "/prepared")
"""
    done = light(program, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("january ")
    assert list(home.rglob("*")) == [], "nothing is written where nobody asked for it, telemetry least of all"


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["fit", "--config", "an4.yaml"], "PyTorch: pip install 'wavasr[train]'"),
        (["warmup", "--config", "x.yaml"], "PyTorch: pip install 'wavasr[train]'"),
        (["adapt", str(CLIP), "-o", "x.wavasr"], "PyTorch: pip install 'wavasr[train]'"),
        (["export", "-o", "x.onnx"], "onnx: pip install 'wavasr[train]'"),
        (["serve"], "starlette: pip install 'wavasr[serve]'"),
        (["listen"], "sounddevice: pip install 'wavasr[mic]'"),
        (["show", str(CLIP), "-o", "x.png"], "matplotlib: pip install 'wavasr[show]'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_missing_extra_is_named(arguments: list[str], package: str, tmp_path: Path) -> None:
    done = light(f"import os; os.chdir({str(tmp_path)!r}); sys.exit(main({arguments!r}))")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"wavasr: wavasr {arguments[0]} needs {package}\n"
    assert list(tmp_path.iterdir()) == []


def test_every_extra_is_one_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert {extra for _, extra in EXTRAS.values()} <= extras.keys()


def test_a_run_without_matplotlib_has_no_curves(tmp_path: Path) -> None:
    done = light(f"from pathlib import Path; from wavasr.cli.training import draw; draw(Path({str(tmp_path)!r}), [])")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_python_interface_says_it_too() -> None:
    done = light("import wavasr; wavasr.load()")
    assert "ModuleNotFoundError: wavasr.load needs PyTorch: pip install 'wavasr[train]'" in done.stderr


def test_no_home_is_no_matter(tmp_path: Path) -> None:
    program = f"sys.exit(main(['transcribe', {str(CLIP)!r}]))"
    done = light(program, HOME=str(tmp_path / "missing" / "home"))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
