"""`wavasr generate` and `wavasr.generate`: what comes out, and one line about what cannot be done."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
import torch

import wavasr
from wavasr import cli
from wavasr.archive import members_of
from wavasr.errors import ModelError, WavasrError
from wavasr.generation.voice import Voice
from wavasr.network.config import GeneratorConfig
from wavasr.network.files import GENERATOR_FORMAT, WEIGHTS, read_header, write_model
from wavasr.network.generator import Generator, load_generator, save_generator
from wavasr.network.instrument import Instrument

TINY = dict(channels=4, skip_channels=8, dilations=(1, 2), condition_channels=4, speaker_channels=2)


def model_file(path: Path, **options: Any) -> Path:
    torch.manual_seed(0)
    model = Generator(GeneratorConfig(**{**TINY, **options}))
    model.excitation_gain.fill_(0.1)
    model.sample_gain.fill_(5.0)
    instrument = Instrument() if model.config.condition == "notes" else None
    metadata = {
        "config": {"data": {"sources": ["noise, CC0"]}},
        "best": {"dev_density_bits": 6.971327, "epoch": 3},
        "manifests_sha256": {"train.jsonl": "0"},
    }
    save_generator(model, path, metadata, instrument=instrument)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("voices")
    model_file(path / "vocoder.wavasr", speakers=("anna", "bert"))
    model_file(path / "music.wavasr", condition="past")
    model_file(path / "piano.wavasr", condition="notes")
    (path / "no.mid").write_bytes(b"no music")
    score = mido.MidiFile()
    score.tracks.append(mido.MidiTrack([mido.Message("note_on", note=60), mido.Message("note_off", note=60, time=100)]))
    score.save(path / "a.mid")
    rng = np.random.default_rng(0)
    buzz = 0.2 * ((np.arange(4000) * 0.01) % 1 - 0.5) + 0.01 * rng.standard_normal(4000)
    soundfile.write(path / "buzz.wav", buzz, 8000)  # half a second, at another rate
    return path


@pytest.fixture(autouse=True)
def plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than these sounds."""
    monkeypatch.setattr("wavasr.generation.sampler.has_numba", lambda: False)


def run(folder: Path, *arguments: str) -> int:
    return cli.main(["generate", *[a.replace("@", f"{folder}/") for a in arguments]])


def test_a_recording_is_spoken_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again.wav"
    arguments = ["--model", "@vocoder.wavasr", "--like", "@buzz.wav", "-o", str(out)]
    assert run(folder, *arguments, "--speaker", "bert") == 0
    assert capsys.readouterr().out == f"{out}\n"
    samples, rate = soundfile.read(out)
    original, _ = soundfile.read(folder / "buzz.wav")
    assert rate == 16000 and len(samples) == 8000
    assert 0.2 < samples.std() / original.std() < 5  # as loud as the recording, about
    first = out.read_bytes()
    assert run(folder, *arguments, "--speaker", "bert") == 0 and out.read_bytes() == first
    assert run(folder, *arguments, "--speaker", "anna") == 0 and out.read_bytes() != first
    assert run(folder, *arguments, "--speaker", "bert", "--seed", "1") == 0 and out.read_bytes() != first


def test_music_is_improvised(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "music.wav"
    assert run(folder, "--model", "@music.wavasr", "--seconds", "0.25", "-o", str(out)) == 0
    samples, rate = soundfile.read(out)
    assert rate == 16000 and len(samples) == 4000 and samples.std() > 0
    python, rate = wavasr.generate(folder / "music.wavasr", 0.25)
    assert rate == 16000 and np.abs(python - samples).max() < 1e-4


def test_python_takes_files_bytes_and_samples(folder: Path) -> None:
    path = folder / "buzz.wav"
    model = folder / "vocoder.wavasr"
    samples, rate = soundfile.read(path, dtype="float32")
    found = [
        wavasr.generate(model, like=path, seed=3)[0],
        wavasr.generate(model, like=path.read_bytes(), seed=3)[0],
        wavasr.generate(model, like=samples, sample_rate=rate, seed=3)[0],
    ]
    assert all(one.shape == (8000,) and one.dtype == np.float32 for one in found)
    assert np.array_equal(found[0], found[1]) and np.abs(found[0]).max() <= 1


def test_blocks_are_the_whole(folder: Path) -> None:
    voice = Voice.load(folder / "vocoder.wavasr")
    samples = np.random.default_rng(1).standard_normal(9600).astype(np.float32)
    blocks = list(voice.copy_blocks(samples, "anna", 2))
    assert [len(block) for block in blocks] == [6080, 3520]  # the post-filter looks 12 frames ahead
    assert np.array_equal(np.concatenate(blocks), voice.copy(samples, "anna", 2))


def test_standard_output(folder: Path) -> None:
    command = ["--model", str(folder / "music.wavasr"), "--seconds", "0.1", "-o", "-"]
    done = subprocess.run([sys.executable, "-m", "wavasr", "generate", *command], capture_output=True, check=True)
    assert done.stdout[:4] == b"RIFF" and len(done.stdout) == 44 + 2 * 1600


def test_info_lists_speakers_and_licences(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(folder / "vocoder.wavasr")]) == 0
    told = capsys.readouterr().out
    assert "anna, bert" in told and "noise, CC0" in told and "a vocoder" in told
    assert "best         dev_density_bits 6.971, epoch 3" in told and "sha256" not in told
    assert cli.main(["info", "--json", str(folder / "music.wavasr")]) == 0


MISTAKES = [
    (["--model", "@vocoder.wavasr", "--like", "@buzz.wav", "--speaker", "carl"], "'carl'; known speakers: anna, bert"),
    (["--model", "@music.wavasr", "--speaker", "anna"], "this model has one voice"),
    (["--model", "@music.wavasr", "--seconds", "0"], "the length is 0 s; expected 0.01 to 3600"),
    (["--model", "@music.wavasr", "--seconds", "-1"], "the length is -1 s"),
    (["--model", "@music.wavasr", "--seconds", "nan"], "the length is nan s"),
    (["--model", "@music.wavasr", "--like", "@buzz.wav"], "improvises; leave --like out"),
    (["--model", "@music.wavasr", "--notes", "@no.mid"], "no.mid: is no MIDI file"),
    (["--model", "@vocoder.wavasr", "--notes", "@a.mid"], "this model plays no notes; train an instrument"),
    (["--model", "@piano.wavasr"], "is an instrument: it needs notes to play (--notes FILE)"),
    (
        ["--model", "@piano.wavasr", "--like", "@buzz.wav"],
        "it plays notes; give --notes FILE",
    ),
    (["--model", "@vocoder.wavasr"], "is a vocoder: it needs a recording to speak again (--like FILE)"),
    (["--model", "@vocoder.wavasr", "--like", "@gone.wav"], "gone.wav: no such file"),
    (["--model", "@vocoder.wavasr", "--like", "@vocoder.wavasr"], "not a readable recording|no readable|not audio"),
    (["--model", "@music.wavasr", "--temperature", "0"], "the temperature is 0; expected 0.05 to 5"),
    (["--model", "default"], "is a recogniser; expected a generator"),
    (["--model", "tenor"], "tenor: no such model file; shipped models:"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = tmp_path / "out.wav"
    assert run(folder, *arguments, "-o", str(out)) == 2
    told = capsys.readouterr()
    assert any(part in told.err for part in message.split("|")), told.err
    assert told.err.count("\n") == 1 and not told.out and not out.exists()


def test_generators_do_not_recognise(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", str(folder / "buzz.wav"), "--model", str(folder / "music.wavasr")]) == 2
    assert "is a generator; expected a recogniser" in capsys.readouterr().err


def test_python_refuses_what_is_no_sound(folder: Path) -> None:
    for bad in (np.zeros((2, 9), np.float32), np.full(9000, np.nan, np.float32), np.zeros(20, np.float32)):
        with pytest.raises(WavasrError):
            wavasr.generate(folder / "vocoder.wavasr", like=bad)
    silent, _ = wavasr.generate(folder / "vocoder.wavasr", like=np.zeros(1600, np.float32))
    assert silent.shape == (1600,) and np.isfinite(silent).all()


def test_a_damaged_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    network = Generator(GeneratorConfig(**TINY))  # type: ignore[arg-type]
    del network.post
    save_generator(network, tmp_path / "half.wavasr")
    with pytest.raises(WavasrError, match="train the model again"):
        Voice.load(tmp_path / "half.wavasr")
    header, parts = read_header(tmp_path / "half.wavasr", GENERATOR_FORMAT), members_of(tmp_path / "half.wavasr")
    for damaged in (5, None, {"channels": "x"}, {"chanels": 1}):
        write_model(tmp_path / "bad.wavasr", {**header, "generator": damaged}, {WEIGHTS: parts[WEIGHTS]})
        for load in (Voice.load, load_generator):
            with pytest.raises(ModelError, match=r"bad\.wavasr: .*train the model again"):
                load(tmp_path / "bad.wavasr")
