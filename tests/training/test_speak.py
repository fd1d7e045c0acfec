"""A voice learns to read the clips that ship, and reads; all of it as a user would."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

import wavasr
from tests.training.tones import rows, several, together
from wavasr import cli
from wavasr.config import from_dict
from wavasr.errors import ConfigError, ModelError, TextError
from wavasr.generation import speaking
from wavasr.generation.reader import Reader, save_reader
from wavasr.generation.speaking import Pronunciations, reader_of, write_wav
from wavasr.generation.text_to_frames import SpeechScale
from wavasr.network.config import GeneratorConfig, ImproviserConfig, SpeechConfig
from wavasr.network.files import read_header
from wavasr.network.generator import Generator, save_generator
from wavasr.network.improviser import Improviser
from wavasr.network.text_to_frames import TextToFrames
from wavasr.training.recipe import shipped_dir, task_of
from wavasr.training.speak.data import _durations, load_lessons, order, own_part
from wavasr.training.speak.run import main, parse

RECIPES = sorted(p.name for p in shipped_dir().glob("*.yaml") if task_of(["--config", p.name]) == "speak")
TEXT = "Stop, go left!"


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained one."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vocoder") / "vocoder.wavasr"
    save_generator(Generator(GeneratorConfig(channels=16, skip_channels=16, dilations=(1, 2, 4))), path)
    return path


@pytest.fixture(scope="module")
def trained(vocoder: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on the clips that ship."""
    folder = tmp_path_factory.mktemp("speak")
    recipe: dict[str, Any] = {
        "task": "speak",
        "voice": str(vocoder),
        "speech": {"channels": 16, "layers": 1, "frame_channels": 16, "pitch_dilations": [1], "mel_dilations": [1]},
        "data": {
            "root": str(repository / "data" / "samples"),
            "train": ["samples.jsonl"],
            "speakers": ["flite-rms-150-50"],
            "least_confidence": 0.0,
            "batch": 2,
        },
        "optim": {"warmup_steps": 2, "average_decay": 0.5},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1},
    }
    (folder / "speak.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert cli.main(["fit", "--config", str(folder / "speak.yaml"), "--run_dir", str(folder / "run")]) == 0
    return folder / "run"


def lessons_file(run: Path) -> Path:
    (found,) = run.glob("train-lessons-*.npz")
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_are_read(name: str) -> None:
    recipe = parse(["--config", name])
    assert recipe.config.data.sources and recipe.config.voice


def test_lessons_add_up(trained: Path) -> None:
    lessons = load_lessons(lessons_file(trained))
    assert len(lessons) >= 2
    for lesson in lessons:
        assert lesson.durations.sum() == len(lesson.log_mel) == len(lesson.voicing)
        assert len(lesson.phones) == len(lesson.durations) == len(lesson.places)
        assert lesson.durations.min() >= 1
        assert np.isfinite(lesson.log_mel).all()


def test_the_loss_falls_and_a_run_goes_on(trained: Path) -> None:
    before_rows = rows(trained)
    losses = [float(row["train_loss"]) for row in before_rows if row["train_loss"]]
    assert losses[-1] < losses[0]
    before = lessons_file(trained).stat().st_mtime_ns
    assert cli.main(["fit", "--run_dir", str(trained), "--resume", "--trainer.max_epochs", "3"]) == 0
    assert lessons_file(trained).stat().st_mtime_ns == before  # nothing is aligned again
    assert len(rows(trained)) > len(before_rows)


def test_lessons_of_another_recipe_are_made_anew(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was killed before its first checkpoint, and is begun again with other settings."""
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "last.ckpt").unlink()
    recipe = ["--config", str(trained / "recipe.yaml"), "--run_dir", str(tmp_path / "run")]
    assert cli.main(["fit", *recipe, "--data.least_confidence", "1"]) == 2
    assert "no recording can be learnt from" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_two_processes_go_on_with_a_run(trained: Path, tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    for run in (both, alone):
        shutil.copytree(trained, run)
    goes_on = ["--resume", "--trainer.max_epochs", "4"]
    assert together(2, lambda: main(["--run_dir", str(both), *goes_on, *several(2, "ddp")])) == [0, 0]
    assert main(["--run_dir", str(alone), *goes_on]) == 0
    losses = [[float(row["dev_loss"]) for row in rows(run) if row["dev_loss"]] for run in (both, alone)]
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_one_file_holds_vocoder_and_network(trained: Path, vocoder: Path) -> None:
    header = read_header(trained / "model.wavasr", "wavasr-generator")
    assert header["generator"] == read_header(vocoder, "wavasr-generator")["generator"]
    assert header["speech"]["scale"]["pitch_spread"] >= 1


def test_a_vocoder_that_makes_up_frames_still_does(trained: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(channels=16, skip_channels=16, dilations=(1, 2, 4))
    improviser = Improviser(ImproviserConfig(codes=4, pitch_codes=4, channels=8, dilations=(1, 2)), 1)
    improviser.pitches[:] = 0.5
    save_generator(Generator(config), tmp_path / "vocoder.wavasr", improviser=improviser)
    stored = read_header(trained / "model.wavasr", "wavasr-generator")["speech"]
    speech = from_dict(SpeechConfig, stored["config"])
    weights = {name: values.numpy() for name, values in TextToFrames(speech).state_dict().items()}
    scale = SpeechScale(np.zeros(80, np.float32), np.ones(80, np.float32), 0.0, 1.0)
    save_reader(tmp_path / "reader.wavasr", tmp_path / "vocoder.wavasr", speech, weights, scale, {})
    made = [wavasr.generate(tmp_path / name, 0.05)[0] for name in ("vocoder.wavasr", "reader.wavasr")]
    assert made[0].tobytes() == made[1].tobytes()
    assert len(made[0]) == 800
    assert Reader.load(tmp_path / "reader.wavasr", Pronunciations()).sample_rate == 16000


def test_it_speaks(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = trained / "model.wavasr", tmp_path / "a.wav"
    assert cli.main(["speak", *TEXT.split(), "--voice", str(model), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    samples, rate = wavasr.speak(TEXT, model)
    written, written_rate = soundfile.read(out, dtype="int16")
    assert rate == written_rate == 16000
    np.testing.assert_array_equal(np.round(samples * 32767).astype(np.int16), written)
    assert 0.1 < len(samples) / rate < 20


def test_the_same_seed_is_the_same_sound_and_blocks_are_the_whole(trained: Path) -> None:
    model = trained / "model.wavasr"
    one, other = (wavasr.speak("Stop. Go left.", model, seed=seed)[0] for seed in (3, 3))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, np.concatenate(list(reader_of(model).blocks("Stop. Go left.", seed=3))))
    assert not np.array_equal(one, wavasr.speak("Stop. Go left.", model, seed=4)[0])


def test_a_pipe_gets_sound_as_it_comes(trained: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    stream = Pipe()
    write_wav(stream, iter([np.full(8, 0.5, np.float32)] * 2), 16000)
    content = stream.getvalue()
    assert content[40:44] == b"\xff\xff\xff\xff"
    assert len(content) == 44 + 2 * 16
    seekable = io.BytesIO()
    write_wav(seekable, iter([np.full(8, 0.5, np.float32)] * 2), 16000)
    assert len(soundfile.read(io.BytesIO(seekable.getvalue()))[0]) == 16
    assert speaking._header(16000, 1 << 32)[40:] == b"\xff\xff\xff\xff"  # 37 hours


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a text to say"),
        (["hello", "--file", "x.txt"], "give a text to say or --file FILE, not both"),
        (["..."], "nothing that can be said"),
        (["hello", "--rate", "9"], "expected 0.5 to 2"),
        (["hello", "--rate", "nan"], "expected 0.5 to 2"),
        (["hello", "--pitch", "40"], "semitones"),
        (["hello", "--speaker", "nobody"], "unknown speaker 'nobody'"),
        (["--file", "missing.txt"], "missing.txt"),
        (["--file", "@latin.txt"], "latin.txt: line 2 is not UTF-8"),
        (["--file", "@empty.txt"], "nothing that can be said"),
    ],
)
def test_mistakes_are_one_line(
    trained: Path, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    (tmp_path / "latin.txt").write_bytes(b"Go left.\ncaf\xe9\n")
    (tmp_path / "empty.txt").write_bytes(b"\xef\xbb\xbf\n")
    arguments = [argument.replace("@", f"{tmp_path}/") for argument in arguments]
    assert cli.main(["speak", *arguments, "--voice", str(trained / "model.wavasr"), "-o", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_other_models_read_no_text(vocoder: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="reads no text"):
        Reader.load(vocoder, lambda word: None)
    with pytest.raises(ModelError, match="is a recogniser; expected a generator"):
        Reader.load(tiny_model, lambda word: None)


def test_standard_input_and_bytes_that_are_no_text(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["speak", "-", "--voice", str(trained / "model.wavasr"), "-o", str(tmp_path / "a.wav")]

    class Input:
        def __init__(self, content: bytes) -> None:
            self.buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Input(b"go left"))
    assert cli.main(arguments) == 0
    monkeypatch.setattr(sys, "stdin", Input(b"\xff\xfe\x00"))
    assert cli.main(arguments) == 2


def test_words_are_looked_up_and_guessed() -> None:
    pronounce = Pronunciations()
    assert pronounce("river") == ("R", "IH", "V", "ER")
    guessed = pronounce("zorblax")
    assert guessed is not None and len(guessed) >= 5
    assert speaking._guess.cache_parameters()["maxsize"] == 10_000  # a server meets new words without end
    assert pronounce("éé") == ("IY",) and pronounce("жж") is None


def test_durations_are_whole_frames() -> None:
    assert _durations([0, 0.001, 0.002, 0.05, 0.1], 100, 10).tolist() == [1, 1, 3, 5]
    assert _durations([0, 0.099, 0.0995, 0.1], 100, 10).tolist() == [8, 1, 1]
    with pytest.raises(TextError, match="too few"):
        _durations([0, 0.01, 0.02, 0.03], 100, 2)


def test_every_recording_once_an_epoch(trained: Path) -> None:
    lessons = load_lessons(lessons_file(trained))
    first, again, next_epoch = (list(order(lessons, 2, 0, epoch)) for epoch in (0, 0, 1))
    assert sorted(index for batch in first for index in batch) == list(range(len(lessons)))
    assert first == again
    assert len(next_epoch) == len(first)


def test_processes_divide_every_batch() -> None:
    assert [own_part([5, 3, 8], rank, 2) for rank in range(2)] == [[5, 8], [3]]
    assert [own_part([5, 3], rank, 3) for rank in range(3)] == [[5], [3], [5]]  # none may wait for the others


def test_a_recipe_without_a_voice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: speak\ndata: {train: [x.jsonl]}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="voice is not set"):
        parse(["--config", str(tmp_path / "a.yaml")])
    (tmp_path / "b.yaml").write_text("task: sing\n", encoding="utf-8")
    assert cli.main(["fit", "--config", str(tmp_path / "b.yaml")]) == 2
