"""Training of generators: recipes, crops, a run that learns, resumes, and leaves a model that sounds."""

import itertools
import json
import math
import re
import signal
import sys
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
import torch
import yaml

import wavasr
from tests.training.tones import rows as metrics
from tests.training.tones import several, together
from wavasr import cli
from wavasr.audio.scores import Note
from wavasr.config import from_dict, to_dict
from wavasr.corpora.manifest import Utterance, read_manifest, write_manifest
from wavasr.corpora.shards import write_shards
from wavasr.errors import AudioError, ConfigError, CorpusError, ModelError, WavasrError
from wavasr.generation.expectation import expected
from wavasr.generation.inputs import Gains, lesson
from wavasr.generation.network import Network
from wavasr.generation.notes import TAIL_S
from wavasr.generation.voice import Voice
from wavasr.network.config import GeneratorConfig
from wavasr.network.generator import Generator, load_generator
from wavasr.training.generate.config import CropsConfig, GenerateConfig, RecordingsConfig, StepsConfig
from wavasr.training.generate.data import Crops, Studio, baselines, crop, dev_places, prepare, read_voices
from wavasr.training.generate.recipe import parse
from wavasr.training.generate.run import fit, main
from wavasr.training.generators import EpochLoader
from wavasr.training.interruption import Interrupted, Interruption
from wavasr.training.recipe import shipped_dir, task_of

RATE = 16000
RECIPES = sorted(p.name for p in shipped_dir().glob("*.yaml") if task_of(["--config", p.name]) == "generate")


@pytest.fixture(scope="module")
def buzzes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers, who buzz at different pitch: five recordings of a second each."""
    folder = tmp_path_factory.mktemp("buzzes")
    rng = np.random.default_rng(0)
    found = []
    for speaker, hz in (("low", 90), ("high", 190)):
        for index in range(5):
            times = np.arange(RATE) / RATE
            wave = 0.3 * ((times * hz * (1 + 0.1 * np.sin(3 * times + index))) % 1 - 0.5)
            samples = wave + 0.003 * rng.standard_normal(RATE)
            path = folder / f"{speaker}{index}.wav"
            soundfile.write(path, samples, RATE)
            found.append(Utterance(path.stem, path, 1.0, "", speaker))
    write_manifest(folder / "all.jsonl", found)
    return folder


def recipe_file(folder: Path, data: Path, **changes: Any) -> Path:
    recipe: dict[str, Any] = {
        "task": "generate",
        "generator": {"channels": 8, "skip_channels": 16, "dilations": [1, 2, 4, 8, 16], "condition_channels": 16},
        "data": {"root": str(data), "train": ["all.jsonl"], "epoch_crops": 12, "dev_crops": 4, "crop_frames": 20},
        "optim": {"warmup_steps": 5, "average_decay": 0.9, "lr": 0.01},
        "improviser": {"steps": 0, "network": {"codes": 8, "pitch_codes": 8, "channels": 8, "dilations": [1, 2]}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1},
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        recipe[group][name] = value
    path = folder / "buzz.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_become_networks(name: str) -> None:
    recipe = parse(["--config", name])
    assert recipe.trainer["max_epochs"] > 0 and recipe.config.data.sources
    assert from_dict(GenerateConfig, to_dict(recipe.config)) == recipe.config
    model = Generator(recipe.config.generator)
    frames = torch.zeros(1, model.config.frame_features, 5)
    with torch.no_grad():
        logits = model.forward_columns(torch.zeros(1, model.config.inputs, 160), model.condition(frames))
    assert logits.shape == (160, 256)
    assert abs(float(torch.log_softmax(logits, 1).mean()) + math.log(256)) < 0.5  # it begins almost flat


def test_the_promised_recipes_ship() -> None:
    assert {"piano.yaml", "violin.yaml", "voice.yaml", "voice-paper.yaml", "voices.yaml"} <= set(RECIPES)
    assert task_of(["--config", "an4.yaml"]) == task_of(["--config", "gone.yaml"]) == "recognise"


def test_a_run_learns_and_sounds(buzzes: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, buzzes, improviser__steps=5)
    whole = tmp_path / "whole"
    model = fit(parse(["--config", str(recipe), "--run_dir", str(whole)]))
    record = json.loads((whole / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["generator"]["speakers"] == ["high", "low"]
    sounds = sorted((whole / "samples").glob("*.wav"))
    assert [path.stem for path in sounds] == ["0000012", "0000024"]
    samples, rate = soundfile.read(sounds[-1])
    assert rate == RATE and len(samples) == RATE and 0.01 < samples.std() < 0.5
    voice = Voice.load(model)
    assert voice.config.speakers == ("high", "low")
    assert str(buzzes) not in json.dumps(voice.network.metadata)
    assert len(voice.improvise(0.2, "low", seed=1)) == 3200
    network = load_generator(model)
    assert network.sample_gain == voice.network.gains.sample
    bits = [json.loads((whole / "baselines.json").read_text(encoding="utf-8"))["gaussian"]]
    rows = (whole / "metrics.csv").read_text(encoding="utf-8").splitlines()
    bits += [float(row.split(",")[-1]) for row in rows[1:] if row.split(",")[-1]]
    assert bits[2] < bits[1]
    with pytest.raises(ConfigError, match="add --resume"):
        fit(parse(["--config", str(recipe), "--run_dir", str(whole)]))


@pytest.mark.parametrize(("processes", "batches"), [(2, 4), (3, 3)])  # two crops are too few for three
def test_processes_divide_every_batch(processes: int, batches: int) -> None:
    items: Any = list(range(20))
    alone = [batch.tolist() for batch in EpochLoader(items, 6)]
    loaders = [EpochLoader(items, 6, 0, rank, processes) for rank in range(processes)]
    assert {len(loader) for loader in loaders} == {batches}
    parts = [[batch.tolist() for batch in loader] for loader in loaders]
    assert [sorted(itertools.chain(*each)) for each in zip(*parts, strict=True)] == alone[:batches]
    with pytest.raises(ConfigError, match="is 4; give a multiple of 3"):
        EpochLoader(items, 4, 0, 0, 3)


def test_processes_that_load_go_on_where_they_stopped() -> None:
    items: Any = list(range(12))
    loader, again = EpochLoader(items, 4, 0, 1, 2), EpochLoader(items, 4, 0, 1, 2)
    next(iter(loader))
    again.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in again] == [[5, 7], [9, 11]]
    assert again.state_dict() == {"done": 0}


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_two_processes_learn_as_one(buzzes: Path, tmp_path: Path) -> None:
    """Each its own crops: what they reach is what one reaches with all of them."""
    recipe = str(recipe_file(tmp_path, buzzes, data__batch=4))
    one, two = tmp_path / "one", tmp_path / "two"
    assert together(2, lambda: main(["--config", recipe, "--run_dir", str(two), *several(2, "ddp")])) == [0, 0]
    assert main(["--config", recipe, "--run_dir", str(one)]) == 0
    validated = [[row for row in metrics(run) if row["dev_density_bits"]] for run in (one, two)]
    for alone, shared in zip(*validated, strict=True):
        assert alone["step"] == shared["step"]
        for name in ("dev_class_bits", "dev_density_bits"):  # with half the crops they are 5e-3 more
            assert float(alone[name]) == pytest.approx(float(shared[name]), abs=3e-4), name


def test_a_resumed_run_is_an_uninterrupted_one(buzzes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = str(recipe_file(tmp_path, buzzes, optim__decay_share=0.0, data__epoch_crops=4))
    once, twice = str(tmp_path / "once"), str(tmp_path / "twice")
    fit(parse(["--config", recipe, "--run_dir", once]))
    fit(parse(["--config", recipe, "--run_dir", twice, "--trainer.max_epochs", "1"]))
    for _ in range(2):
        with Interruption() as stop, pytest.raises(Interrupted):  # after a step
            stop.asked = signal.SIGTERM
            fit(parse(["--config", recipe, "--run_dir", twice, "--resume"]), stop)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # of a job that was requeued
    fit(parse(["--config", recipe, "--run_dir", twice]))
    states = [torch.load(Path(run) / "last.ckpt", weights_only=True)["state_dict"] for run in (once, twice)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_shards_train_as_their_manifest_does(buzzes: Path, tmp_path: Path) -> None:
    list(write_shards(read_manifest(buzzes / "all.jsonl"), tmp_path / "shards", 0.1))
    curves = []
    for name in ("all.jsonl", str(tmp_path / "shards"), f"file://{tmp_path}/shards/index.jsonl"):
        recipe = recipe_file(tmp_path, buzzes, data__train=[name], data__epoch_crops=4, trainer__max_epochs=1)
        run = tmp_path / str(len(curves))
        fit(parse(["--config", str(recipe), "--run_dir", str(run)]))
        curves.append(metrics(run))
    assert curves[0] == curves[1] == curves[2] and len(curves[0]) > 1


def test_a_start_keeps_the_network_and_takes_other_speakers(buzzes: Path, tmp_path: Path) -> None:
    recipe = str(recipe_file(tmp_path, buzzes, data__epoch_crops=2, trainer__max_epochs=1))
    both = fit(parse(["--config", recipe, "--run_dir", str(tmp_path / "both")]))
    options = [
        "--config",
        recipe,
        "--data.speakers",
        '["low"]',
        "--start",
        str(both),
        "--optim.lr",
        "1e-9",
        "--logger",
        "csv",
    ]
    one = fit(parse([*options, "--run_dir", str(tmp_path / "one")]))
    old, new = load_generator(both), load_generator(one)
    assert new.config.speakers == () and torch.allclose(old.output.weight, new.output.weight, atol=1e-3)
    assert new.excitation_gain == old.excitation_gain
    assert (tmp_path / "both" / "tensorboard").is_dir() and not (tmp_path / "one" / "tensorboard").exists()
    with pytest.raises(ModelError, match="does not fit"):
        fit(parse([*options, "--generator.channels", "4", "--run_dir", str(tmp_path / "other")]))


def studio_of(buzzes: Path, **options: Any) -> Studio:
    data = CropsConfig(root=buzzes, train=("all.jsonl",), epoch_crops=40, dev_crops=6, crop_frames=20)
    config = GenerateConfig(buzzes, data, generator=GeneratorConfig(**options))
    return Studio(read_voices(data), config)


@pytest.mark.parametrize("condition", ["mel", "past"])
def test_a_crop_is_a_stretch_of_the_whole(buzzes: Path, condition: Any) -> None:
    studio = studio_of(buzzes, condition=condition)
    config, gains = studio.config.generator, Gains(5.0, 0.1)
    recording = studio.recording(studio.voices.train[0])
    order, hop = config.prediction_order, config.hop_samples
    inputs, classes = lesson(np.pad(recording.samples, (order, 0)), recording.frames, config, gains)
    for first in (0, 1, 40):
        found = crop(recording, first, 20, config, gains)
        part = slice(first * hop, (first + 20) * hop)
        assert (found.classes.numpy() == classes[part]).all()
        settled = 2 * hop if first == 1 else 0  # pitch taps that reach back further than the margin
        assert np.allclose(found.inputs.numpy()[:, settled:], inputs[:, part][:, settled:], atol=1e-5)
        assert found.frames.shape == (82, 24) and found.density.shape == (20 * hop,)
    shown = crop(recording, 40, 20, config, gains).frames.numpy().T
    reach = 4 if condition == "past" else 2
    assert np.allclose(shown, recording.frames.features[40 - reach : 64 - reach])


@pytest.mark.parametrize("options", [{}, {"condition": "past"}, {"excitation": "none", "kernel": 3}])
def test_what_is_expected_of_a_recording_is_what_its_training_measures(buzzes: Path, options: Any) -> None:
    torch.manual_seed(0)
    shape = dict(channels=4, skip_channels=8, dilations=(1, 2, 4), condition_channels=4, speakers=("high", "low"))
    studio = studio_of(buzzes, **shape, **options)
    model = Generator(studio.config.generator).eval()
    samples = np.tile(studio.audio(studio.voices.train[0]), 2)  # longer than what is computed together
    found = expected(Network(model.config, {name: v.numpy() for name, v in model.state_dict().items()}), samples, 1)
    batch = crop(prepare(samples, 1, model.config), 0, len(samples) // 160, model.config, Gains(1.0, 1.0))
    with torch.no_grad():
        logits = model(batch.inputs[None], model.condition(batch.frames[None], batch.speaker[None]))
        nats = torch.nn.functional.cross_entropy(logits, batch.classes[None], reduction="none")[0].numpy()
    assert found.nats == pytest.approx(nats, abs=1e-4)
    assert found.density == pytest.approx(nats / np.log(2) + batch.density.numpy(), abs=1e-3)
    assert np.exp(found.log_probs(slice(0, 50))).sum(axis=1) == pytest.approx(np.ones(50), abs=1e-4)
    with pytest.raises(AudioError, match="has 159 samples; expected a frame of 160 or more"):
        expected(found.network, samples[:159])


def test_density_does_not_depend_on_the_level_of_a_recording_or_on_the_quantiser(buzzes: Path) -> None:
    """Of a flat distribution over the classes: louder means more steps, by as many bits as it is louder."""
    studio = studio_of(buzzes)
    config = studio.config.generator
    samples = studio.audio(studio.voices.train[0])

    def bits(gain: float, scale: float) -> float:
        found = crop(prepare(samples * np.float32(gain), 0, config), 30, 20, config, Gains(5.0, scale))
        true = np.float64(found.density).mean()
        return float(true)

    assert abs(bits(0.5, 0.1) - (bits(1.0, 0.1) - 1)) < 0.01
    # Classes twice as fine: a bit less width each, while a true model would pay a bit more for each class.
    assert abs(bits(1.0, 0.02) - bits(1.0, 0.01)) < 1


def test_crops_take_speakers_in_turn_and_are_the_same_in_every_run(buzzes: Path) -> None:
    studio = studio_of(buzzes)
    gains = Gains(5.0, 0.1)
    crops = [Crops(studio, gains, 0)[index] for index in range(40)]
    share = np.mean([int(one.speaker) for one in crops])
    assert 0.2 < share < 0.8
    again, other = Crops(studio, gains, 0)[3], Crops(studio, gains, 1)[3]
    assert torch.equal(again.classes, crops[3].classes) and not torch.equal(other.classes, crops[3].classes)


def test_the_baselines_order_as_they_should(buzzes: Path) -> None:
    studio = studio_of(buzzes)
    found = baselines(dev_places(studio), studio.config.generator)
    assert found["lpc_past_laplace"] < found["gaussian"] and found["lpc_mel_laplace"] < found["gaussian"]


def test_held_out_recordings_are_the_last_of_each_speaker(buzzes: Path) -> None:
    voices = read_voices(RecordingsConfig(root=buzzes, train=("all.jsonl",), names={"low": "bass"}, dev_share=0.3))
    assert voices.names == ("bass", "high")
    assert [u.id for u in voices.dev] == ["low3", "low4", "high3", "high4"]
    assert not {u.id for u in voices.train} & {u.id for u in voices.dev}


def test_a_speaker_with_one_recording_is_left_out_and_named(
    buzzes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = read_manifest(buzzes / "all.jsonl")[:6]  # five of one speaker, one of the other
    write_manifest(tmp_path / "few.jsonl", few)
    voices = read_voices(RecordingsConfig(root=tmp_path, train=("few.jsonl",)))
    assert voices.names == () and {u.speaker for u in (*voices.train, *voices.dev)} == {"low"}
    assert "left out 1 utterances with no second recording of their speaker: high0: speaker 'high'" in caplog.text


def test_folders_of_recordings_are_learnt_in_pieces(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(8000 * 95), 8000)
    voices = read_voices(RecordingsConfig(root=tmp_path.parent, train=(tmp_path.name,), dev_share=0.1))
    assert [(u.offset_s, u.duration_s) for u in (*voices.train, *voices.dev)] == [(0, 30), (30, 30), (60, 30)]
    assert voices.names == ()


def test_an_instrument_learns_recordings_with_their_notes(
    tmp_path: Path, buzzes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavasr.training.generate.instrument._STEPS", 3)
    for path in sorted(buzzes.glob("low*.wav")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        score = mido.MidiFile()
        on, off = (mido.Message(kind, note=42, time=time) for kind, time in (("note_on", 0), ("note_off", 900)))
        score.tracks.append(mido.MidiTrack([on, off]))
        score.save(tmp_path / f"{path.stem}.mid")
    changes: dict[str, Any] = {"data__train": ["."], "data__epoch_crops": 2, "trainer__max_epochs": 1}
    recipe = str(recipe_file(tmp_path, tmp_path, generator__condition="notes", **changes))
    model = fit(parse(["--config", recipe, "--run_dir", str(tmp_path / "run")]))
    sound, rate = wavasr.generate(model, notes=tmp_path / "low0.mid")
    assert rate == RATE and abs(len(sound) / rate - (900 / 480 / 2 + TAIL_S)) < 0.02 and sound.std() > 0
    assert np.array_equal(sound, wavasr.generate(model, notes=[Note(0.0, 0.9375, 42, 64 / 127)])[0])
    manifest, report = tmp_path / "all.jsonl", tmp_path / "report"
    write_manifest(manifest, [Utterance("low0", tmp_path / "low0.wav", 1.0, "", "low")])
    assert cli.main(["evaluate", "--model", str(model), "--manifest", str(manifest), "--report", str(report)]) == 0
    assert json.loads((report / "report.json").read_text(encoding="utf-8"))["notes"]["notes"] == 1
    assert (report / "report.html").read_text(encoding="utf-8").count("<audio") == 2
    for wrong in (dict(like=sound), {}):
        with pytest.raises(WavasrError, match="--notes FILE"):
            wavasr.generate(model, **wrong)  # type: ignore[arg-type]
    (tmp_path / "low1.mid").unlink()
    with pytest.raises(AudioError, match=r"its notes are missing; expected low1\.mid beside it"):
        fit(parse(["--config", recipe, "--run_dir", str(tmp_path / "again")]))


MISTAKES = [
    (["--data.train", "[]"], "data.train is empty"),
    (["--data.speakers", '["tenor"]'], "data.speakers: tenor is not in the manifests; known: high, low"),
    (["--data.dev_share", "1"], "data.dev_share is 1"),
    (["--generator.excitation", "vocal"], "generator.excitation"),
    (["--generator.chanels", "8"], "unknown key generator.chanels; did you mean generator.channels"),
    (["--generator.excitation", "none", "--generator.condition", "notes"], "set generator.excitation to lpc"),
    (["--improviser.steps", "3", "--generator.condition", "past"], "only a vocoder is told frames"),
    (["--start", "gone.wavasr"], "no such model file"),
    (["--start", "default"], "is a recogniser; expected a generator"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_mistakes_are_one_line(buzzes: Path, tmp_path: Path, options: list[str], message: str) -> None:
    recipe = recipe_file(tmp_path, buzzes)
    with pytest.raises((ConfigError, CorpusError, ModelError), match=re.escape(message)) as caught:
        fit(parse(["--config", str(recipe), "--run_dir", str(tmp_path / "run"), *options]))
    assert "\n" not in str(caught.value)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    steps = StepsConfig(warmup_steps=10, decay_share=0.5, final_lr_scale=0.1)
    scales = [steps.scale(step, 100) for step in range(100)]
    assert scales[0] == 0.1 and scales[9] == 1 and scales[49] == 1
    assert scales[75] == pytest.approx(0.5) and scales[99] == pytest.approx(0.1)


def test_the_network_read_without_torch_is_the_one_written(buzzes: Path, tmp_path: Path) -> None:
    recipe = str(recipe_file(tmp_path, buzzes, data__epoch_crops=2, trainer__max_epochs=1))
    path = fit(parse(["--config", recipe, "--run_dir", str(tmp_path / "run")]))
    read, network = Network.read(path), load_generator(path)
    assert read.config == network.config
    assert np.allclose(read.weights.output, network.output.weight[..., 0].detach().numpy().T)
    with pytest.raises(ModelError, match="unknown speaker 'tenor'; known speakers: high, low"):
        read.speaker("tenor")
