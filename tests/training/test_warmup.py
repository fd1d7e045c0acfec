"""The front end's warm-up: what it aims at, how it is scored, that it learns, and what it refuses before it starts."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from wavasr import cli
from wavasr.audio.augment import Augmenter
from wavasr.audio.config import AugmentConfig
from wavasr.audio.features import log_mel
from wavasr.corpora.manifest import Utterance, read_manifest
from wavasr.errors import ConfigError
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network import config
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.files import FRONT_END_FORMAT, read_header
from wavasr.network.recognizer import Recognizer, load_front_end
from wavasr.training import warmup
from wavasr.training.dataset import AudioStore
from wavasr.training.warmup import (
    BANDS,
    CROP_S,
    LOG_MEL_SCALE,
    FrontEndTask,
    RandomCrops,
    WarmupConfig,
    explained_variance,
    warm_up,
)

RATE = 16000
FRONT_END = StageConfig(channels=8, window=32, stride=16, level_frames=8, dilations=(1, 2), pool=10, pooling="energy")
TINY = (FRONT_END, StageConfig(channels=4, dilations=(1,), pool=2))


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(config.PRESETS, "tiny", TINY)
    return "tiny"


def task_of(seed: int = 0) -> FrontEndTask:
    torch.manual_seed(seed)
    return FrontEndTask(EncoderConfig(preset="custom", stages=TINY)).eval()


def sweep(seconds: float, seed: int) -> np.ndarray:
    """Tones that come and go over noise that swells and fades."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE)) / RATE
    pitch_hz = 300 + 2500 * (0.5 + 0.5 * np.sin(2 * np.pi * 0.7 * time_s + seed))
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE) * (np.sin(2 * np.pi * 2 * time_s) > 0)
    hiss = 10 ** (-2 + np.sin(2 * np.pi * 3 * time_s + seed)) * rng.standard_normal(len(time_s))  # 40 dB up and down
    return np.asarray(tone + 0.3 * hiss, dtype=np.float32)


def corpus(folder: Path, speaker: str, clips: int = 2, seconds: float = 2.0) -> Path:
    """A manifest of synthesised clips of one "speaker"."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(clips):
        soundfile.write(folder / f"{speaker}{i}.wav", sweep(seconds, seed=i + 10 * len(speaker)), RATE)
        lines.append({"audio_filepath": f"{speaker}{i}.wav", "duration": seconds, "text": "", "speaker": speaker})
    path = folder / f"{speaker}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


# Aim and score --------------------------------------------------------------------------------------------------------


def test_target_is_log_mel_in_about_unit_range() -> None:
    task = task_of()
    waveform = torch.from_numpy(sweep(1.0, 0))[None]
    target = task.target(waveform)
    mean, deviation = LOG_MEL_SCALE
    assert target.shape == (1, BANDS, 100)
    assert torch.allclose(target * deviation + mean, log_mel(waveform, RATE, BANDS), atol=1e-4)
    assert target.abs().max() < 5


def test_the_task_trains_on_frames_of_ten_milliseconds() -> None:
    task = task_of()
    waveform = torch.zeros(2, round(CROP_S * RATE))
    assert task(waveform).shape == task.target(waveform).shape == (2, BANDS, 150)


class Answering(FrontEndTask):
    """Predicts the target, spoilt as told."""

    def __init__(self, share: float, noise: float) -> None:
        super().__init__(EncoderConfig(preset="custom", stages=TINY))
        self.share, self.noise = share, noise

    def forward(self, waveform: Tensor) -> Tensor:
        target = self.target(waveform)
        spoilt = self.share * target + self.noise * torch.randn(
            target.shape, generator=torch.Generator().manual_seed(0)
        )
        return torch.cat([spoilt, torch.full((1, BANDS, 1), 99.0)], dim=2)  # a started frame more, as a front end gives


def variance_explained(predicted: list[np.ndarray], targets: list[np.ndarray]) -> float:
    """By its definition, over the frames of all utterances: 1 - residual / variance, averaged over bands."""
    p, t = np.concatenate(predicted, axis=1), np.concatenate(targets, axis=1)
    return float(np.mean([1 - np.sum((p[b] - t[b]) ** 2) / np.sum((t[b] - t[b].mean()) ** 2) for b in range(BANDS)]))


@pytest.mark.parametrize(("share", "noise"), [(1.0, 0.0), (0.9, 0.0), (1.0, 0.3), (0.0, 0.0)])
def test_explained_variance_is_that_of_its_definition(share: float, noise: float) -> None:
    task = Answering(share, noise)
    waveforms = [torch.from_numpy(sweep(seconds, seed)) for seed, seconds in enumerate((0.7, 1.0, 0.31))]
    targets = [task.target(w[None])[0].double().numpy() for w in waveforms]
    predicted = [task(w[None])[0, :, : t.shape[1]].double().numpy() for w, t in zip(waveforms, targets, strict=True)]
    found = explained_variance(task, waveforms)
    assert found == pytest.approx(variance_explained(predicted, targets), abs=1e-9)
    if (share, noise) == (1.0, 0.0):
        assert found == pytest.approx(1.0)


def test_explained_variance_of_a_front_end_is_that_of_its_definition() -> None:
    task = task_of()
    waveforms = [torch.from_numpy(sweep(0.5, seed)) for seed in range(2)]
    with torch.no_grad():
        targets = [task.target(w[None])[0].double().numpy() for w in waveforms]
        predicted = [task(w[None])[0].double().numpy() for w in waveforms]
    assert explained_variance(task, waveforms) == pytest.approx(variance_explained(predicted, targets), abs=1e-6)


# Crops ----------------------------------------------------------------------------------------------------------------


def test_crops_are_pieces_of_the_audio(tmp_path: Path) -> None:
    utterances = []
    for name, seconds in (("long", 4.0), ("short", 0.2)):
        # A ramp: a sample tells where it was.
        ramp = np.linspace(0.01, 0.9, round(seconds * RATE), dtype=np.float32)
        soundfile.write(tmp_path / f"{name}.wav", ramp if name == "long" else -ramp, RATE)
        utterances.append(Utterance(name, tmp_path / f"{name}.wav", seconds, ""))
    store = AudioStore(utterances, RATE, progress=False)
    crops = iter(RandomCrops(store, Augmenter(AugmentConfig(), RATE), RATE, seed=0))
    found = [next(crops).numpy() for _ in range(200)]
    assert {crop.shape for crop in found} == {(round(CROP_S * RATE),)}
    long = [crop for crop in found if crop[0] > 0]
    # Chosen by length: 0.2 of 4.2 seconds are about 10 of 200.
    assert 180 <= len(long) <= 199
    starts = [crop[0] for crop in long]
    assert min(starts) < 0.1
    assert max(starts) > 0.5  # the last start is at 2.5 of 4 s
    for crop in long:
        assert (np.diff(crop) >= -1e-4).all()
    for crop in found:
        if crop[0] < 0:
            assert (crop[: round(0.2 * RATE)] < 0).all()
            assert not crop[round(0.2 * RATE) :].any()


def test_crops_repeat_with_their_seed(tmp_path: Path) -> None:
    store = AudioStore(read_manifest(corpus(tmp_path, "a")), RATE, progress=False)
    augmenter = Augmenter(AugmentConfig(gain_db=(-20.0, 10.0)), RATE)
    first, again, other = (next(iter(RandomCrops(store, augmenter, RATE, seed))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Learning -------------------------------------------------------------------------------------------------------------


def clock_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, so that the machine's load does not decide how many there are."""
    seconds = itertools.count()
    monkeypatch.setattr(warmup, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


def test_warming_up_explains_more_of_the_spectrum(
    tmp_path: Path, tiny_preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_of_steps(monkeypatch)
    seen, unseen = read_manifest(corpus(tmp_path, "a", clips=3)), read_manifest(corpus(tmp_path, "bb", clips=1))
    encoder = EncoderConfig(preset=tiny_preset, init="random")
    settings = WarmupConfig(2.5, batch=2, lr=1e-2, encoder=encoder, augment=AugmentConfig(gain_db=(-10.0, 5.0)))
    task, figures = warm_up(settings, seen, unseen)
    assert not task.training
    waveforms = [torch.from_numpy(soundfile.read(u.audio, dtype="float32")[0]) for u in unseen]
    assert figures["explained_variance"] == pytest.approx(explained_variance(task, waveforms), abs=1e-3)
    assert figures["steps"] == 150
    assert figures["explained_variance"] > 0.1 > explained_variance(task_of(), waveforms)
    assert all(torch.isfinite(p).all() for p in task.parameters())


def arguments(tmp_path: Path, *more: str) -> list[str]:
    train, dev = corpus(tmp_path / "data", "a"), corpus(tmp_path / "data", "bb", clips=1)
    given = ["--data.train", str(train), "--data.dev", str(dev), "--output", str(tmp_path / "front-end.safetensors")]
    return [*given, "--encoder.preset", "tiny", "--minutes", "0.001", "--batch", "2", *more]


def test_the_command_writes_a_front_end_that_starts_a_model(
    tmp_path: Path, tiny_preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noises = tmp_path / "private" / "noises"
    corpus(noises, "n", clips=1, seconds=0.5)  # shorter than a crop
    rooms = tmp_path / "private" / "rooms"
    rooms.mkdir()
    soundfile.write(rooms / "room.wav", np.exp(-np.arange(800) / 40.0), 16000)
    assert warmup.main(arguments(tmp_path, "--augment.noise_dir", str(noises), "--augment.room_dir", str(rooms))) == 0
    path = tmp_path / "front-end.safetensors"
    assert capsys.readouterr().out.splitlines() == [str(path)]
    header = read_header(path, FRONT_END_FORMAT)
    record = header["metadata"]
    assert record["warmup"]["encoder"]["preset"] == "tiny" and record["warmup"]["augment"]["gain_db"] == [-25.0, 10.0]
    assert record["figures"]["steps"] >= 1
    assert record["warmup"]["augment"]["noise_dir"] == "noises"
    assert str(tmp_path) not in json.dumps(header)  # a shipped file says nothing of the machine it was made on
    model = Recognizer(EncoderConfig(preset="tiny"), Units.characters(["a"]), TextConfig())
    before = next(model.front_end.parameters()).clone()
    load_front_end(model, str(path))
    assert not torch.equal(before, next(model.front_end.parameters()))


def test_a_front_end_can_be_warmed_further(tmp_path: Path, tiny_preset: str) -> None:
    given = arguments(tmp_path)
    assert warmup.main(given) == 0
    assert warmup.main([*given, "--encoder.init", str(tmp_path / "front-end.safetensors")]) == 0
    assert (
        read_header(tmp_path / "front-end.safetensors", FRONT_END_FORMAT)["metadata"]["warmup"]["encoder"]["init"]
        == "front-end.safetensors"
    )


# Mistakes -------------------------------------------------------------------------------------------------------------


def refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr with which the command line refuses."""
    assert cli.main(["warmup", *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_speaker_on_both_sides_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = corpus(tmp_path, "a")
    given = ["--data.train", str(train), "--data.dev", str(train), "--output", str(tmp_path / "front-end")]
    with pytest.raises(ConfigError, match=r"speaker a is in data\.train too"):
        warmup.main(given)
    assert "speaker a is in data.train too" in refused(given, capsys)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--minutes", "0"], "minutes is 0.0; expected more than 0"),
        (["--batch", "-1"], "batch is -1; expected 1 or more"),
        (["--lr", "0"], "lr is 0.0"),
        (["--minutes", "soon"], "minutes"),
        (["--encoder.preset", "tyni"], "tyni"),
        (["--encoder.context", "both"], "both"),
        (["--encoder.init", "missing.safetensors"], "missing.safetensors"),
        (["--augment.noise_dir", "missing"], "missing"),
        (["--augment.room_dir", "missing"], "missing"),
        (["--augment.noise_probabilty", "1"], "did you mean augment.noise_probability?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    more: list[str], named: str, tmp_path: Path, tiny_preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refused(arguments(tmp_path, *more), capsys)
    assert not (tmp_path / "front-end.safetensors").exists()


def test_a_folder_as_output_is_noticed_before_the_work(
    tmp_path: Path, tiny_preset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    given = arguments(tmp_path)
    monkeypatch.setattr(warmup, "warm_up", never)
    (tmp_path / "front-end.safetensors").mkdir()
    assert "is a folder" in refused(given, capsys)
