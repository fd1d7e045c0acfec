"""Training: a tiny corpus of tones is learnt, a killed run goes on exactly, bad runs end in one line."""

import dataclasses
import itertools
import json
import math
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from tests.training.tones import RATE, curve, recipe_file, rows, several, together, train
from wavasr.audio.config import AugmentConfig
from wavasr.config import from_dict
from wavasr.corpora.listing import read_listing
from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.corpora.shards import write_shards
from wavasr.errors import WavasrError
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.files import Language, change_model, language_of
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.network.wavenet import Features
from wavasr.recognition.chunks import log_probs_of
from wavasr.training.callbacks import Keeper
from wavasr.training.config import DataConfig, FitConfig, OptimConfig
from wavasr.training.data import SpeechData
from wavasr.training.dataset import Batch
from wavasr.training.frame_cache import CachedFrames, Version, delete_frames
from wavasr.training.interruption import Interrupted
from wavasr.training.losses import ctc_nats
from wavasr.training.recipe import parse
from wavasr.training.recognize import RecognitionTask, Validated, error_rates, front_end_parameters
from wavasr.training.run import main
from wavasr.training.splits import read_splits
from wavasr.training.task import lr_scale, seed_of

forked = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")


def test_learns_the_tones(tones: Path, tmp_path: Path) -> None:
    stages = [
        {
            "channels": 24,
            "window": 32,
            "stride": 8,
            "level_frames": 32,
            "dilations": [1, 2, 4],
            "pool": 10,
            "pooling": "energy",
        },
        {"channels": 32, "dilations": [1, 2, 4], "pool": 2},
    ]
    run = train(
        tmp_path,
        tones,
        encoder={"stages": stages},
        trainer={"max_epochs": 24, "check_val_every_n_epoch": 12},
        data={"batch_s": 1.0},
        augment={"speed": [1.0, 1.0]},
        auxiliary={"frame_weight": 1.0},
        optim={"lr": 0.03},
    )
    last = rows(run)[-1]
    assert float(last["dev_ctc_nats_per_label"]) < 0.3
    assert float(last["dev_wer"]) <= 0.2
    frame_losses = [float(row["train_frame_nats_per_frame"]) for row in rows(run) if row["train_loss"]]
    assert np.mean(frame_losses[-10:]) < 0.3 < 1.0 < frame_losses[0]
    model = load_model(run / "model.wavasr")
    assert model.units.symbols == ("<blank>", " ", "a", "b", "c")
    best = model.metadata["best"]
    assert best["dev_wer"] == pytest.approx(min(float(row["dev_wer"]) for row in rows(run) if row["dev_wer"]), abs=1e-6)
    assert set(model.metadata) >= {"config", "manifests_sha256", "versions", "best"}
    assert from_dict(FitConfig, model.metadata["config"]).encoder == model.encoder_config


def test_bfloat16_trains_as_float32_does(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavasr.training.run._slow_in_bfloat16", lambda accelerator: False)
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        (tmp_path / precision).mkdir()
        auxiliary = {"weight": 0.1, "frame_weight": 1.0, "crf_weight": 0.5}
        run = train(tmp_path / precision, tones, trainer={"max_epochs": 1, "precision": precision}, auxiliary=auxiliary)
        losses.append([float(row["train_loss"]) for row in rows(run) if row["train_loss"]])
        assert all(p.dtype == torch.float32 for p in load_model(run / "model.wavasr").parameters())
    exact, rounded = losses
    assert exact != rounded and rounded == pytest.approx(exact, rel=0.05)


RESUMED: dict[str, Any] = {
    "trainer": {"max_epochs": 3},
    "auxiliary": {"weight": 0.1},
    "data": {"workers": 1},
    "optim": {"front_end_frozen_epochs": 1},
}


@pytest.fixture(scope="module")
def uninterrupted(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole"), tones, **RESUMED)


@forked
@pytest.mark.parametrize("minutes", [1e-9, 1000.0], ids=["within an epoch", "after an epoch"])
def test_resumes_exactly_after_kill(tones: Path, uninterrupted: Path, tmp_path: Path, minutes: float) -> None:
    kill_and_resume(tones, uninterrupted, tmp_path, minutes, RESUMED)


@forked
def test_resumes_exactly_with_a_cached_front_end(tones: Path, tmp_path: Path) -> None:
    changes = {**RESUMED, "auxiliary": {}, "augment": {"time_masks": 2}}
    changes["optim"] = {"front_end_frozen_epochs": 2, "front_end_copies": 2}
    (tmp_path / "whole").mkdir()
    kill_and_resume(tones, train(tmp_path / "whole", tones, **changes), tmp_path, 1e-9, changes)


def kill_and_resume(tones: Path, uninterrupted: Path, folder: Path, minutes: float, changes: dict[str, Any]) -> None:
    def die(keeper: Keeper, trainer: pl.Trainer, *others: Any) -> None:
        if trainer.current_epoch == 1 and trainer.global_step == steps // 3 + 2:
            os.kill(os.getpid(), signal.SIGKILL)

    steps = len([row for row in rows(uninterrupted) if row["train_loss"]])
    run = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "on_train_batch_start", die)
        ended = together(1, lambda: train(folder, tones, checkpoint_minutes=minutes, **changes))
    assert ended == [-signal.SIGKILL]
    assert 0 < len(rows(run)) < len(rows(uninterrupted))
    train(folder, tones, "--resume", checkpoint_minutes=minutes, **changes)
    assert curve(run) == curve(uninterrupted)
    states = [torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (run, uninterrupted)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    models = [load_model(folder / "model.wavasr") for folder in (run, uninterrupted)]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


# --- the run's folder ---


def refused(folder: Path, tones: Path, *arguments: str, **changes: Any) -> str:
    with pytest.raises(WavasrError) as caught:
        train(folder, tones, *arguments, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_is_not_overwritten(tones: Path, uninterrupted: Path) -> None:
    assert "already holds a run; add --resume" in refused(uninterrupted.parent, tones, **RESUMED)


def test_a_run_is_resumed_with_its_own_recipe_only(tones: Path, uninterrupted: Path) -> None:
    other = {**RESUMED, "optim": {"lr": 0.5, "front_end_frozen_epochs": 1}}
    assert "was trained with optim.lr 0.004, not 0.5" in refused(uninterrupted.parent, tones, "--resume", **other)
    folder = uninterrupted.parent
    assert "was trained with seed 0, not 3" in refused(folder, tones, "--resume", "--seed", "3", **RESUMED)


def test_a_run_is_resumed_with_its_own_data_only(tones: Path, uninterrupted: Path, tmp_path: Path) -> None:
    manifest = (tones / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for sound_file in tones.glob("*.wav"):
        (tmp_path / sound_file.name).symlink_to(sound_file)
    (tmp_path / "train.jsonl").write_text("\n".join(manifest[1:]), encoding="utf-8")
    message = refused(uninterrupted.parent, tmp_path, "--resume", **RESUMED)
    assert "was trained with sha256.train.jsonl" in message


def test_a_finished_run_is_left_as_it_is(tones: Path, uninterrupted: Path) -> None:
    before = curve(uninterrupted)
    train(uninterrupted.parent, tones, "--resume", **RESUMED)
    assert curve(uninterrupted) == before


def test_resuming_nothing_begins(tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(tmp_path, tones, "--resume", trainer={"max_epochs": 1})
    assert "nothing to resume" in caplog.text and (run / "model.wavasr").exists()


def test_a_run_leaves_logs_for_people_and_tensorboard(uninterrupted: Path) -> None:
    assert list((uninterrupted / "tensorboard").glob("events.out.tfevents.*"))
    record = json.loads((uninterrupted / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["auxiliary"]["weight"] == 0.1 and set(record["manifests_sha256"]) == {"train.jsonl"}
    found = rows(uninterrupted)
    steps = [row for row in found if row["train_loss"]]
    assert [int(row["step"]) for row in steps] == list(range(len(steps)))
    for row in steps:
        whole = float(row["train_ctc_nats_per_label"]) + 0.1 * float(row["train_generative_nats_per_sample"])
        assert float(row["train_loss"]) == pytest.approx(whole, rel=1e-5)
        assert float(row["audio_s_per_s"]) > 0 and 0 <= float(row["data_wait_share"]) < 1
    assert sum(bool(row["dev_wer"]) for row in found) == 3


def test_the_model_file_tells_how_frequent_its_labels_are(uninterrupted: Path) -> None:
    model = load_model(uninterrupted / "model.wavasr")
    priors = model.metadata["label_priors"]
    config = from_dict(FitConfig, json.loads((uninterrupted / "run.json").read_text(encoding="utf-8"))["config"])
    found = [log_probs_of(model, load_utterance(u, model.sample_rate)) for u in read_splits(config).dev.utterances]
    assert priors == pytest.approx(np.exp(np.concatenate(found)).mean(axis=0), abs=2e-3)
    assert sum(priors) == pytest.approx(1.0, abs=1e-4)


def test_a_random_field_is_chosen_by_its_own_loss(tones: Path, tmp_path: Path) -> None:
    run = train(tmp_path, tones, auxiliary={"crf_weight": 0.9}, trainer={"max_epochs": 4}, optim={"lr": 0.03})
    for row in (row for row in rows(run) if row["train_loss"]):
        ctc, competitors = (float(row[f"train_{name}_nats_per_label"]) for name in ("ctc", "crf_denominator"))
        assert float(row["train_loss"]) == pytest.approx(ctc + 0.9 * competitors, rel=1e-4, abs=1e-4)
        assert ctc + competitors >= 0  # -log of a probability
    reached = [float(row["dev_crf_nats_per_label"]) for row in rows(run) if row["dev_crf_nats_per_label"]]
    assert len(reached) == 4 and reached[-1] < reached[0]
    model = load_model(run / "model.wavasr")
    assert model.metadata["best"]["dev_crf_nats_per_label"] == pytest.approx(min(reached), abs=1e-6)
    assert "label_priors" not in model.metadata


def test_main_prints_the_model_and_its_reports(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tones / "other.jsonl").write_text((tones / "train.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr("wavasr.training.splits.refuse_overlap", lambda train, other: None)
    path = recipe_file(tmp_path, tones, trainer={"max_epochs": 1}, data={"test": [f"file://{tones}/other.jsonl"]})
    assert main(["--config", str(path), "--run_dir", str(tmp_path / "run")]) == 0
    model, dev, test = capsys.readouterr().out.splitlines()
    assert model == f"model: {tmp_path / 'run' / 'model.wavasr'}"
    for name, line in (("dev", dev), ("test", test)):
        assert line.startswith(f"{name}: WER ") and line.endswith(f"report: {tmp_path / 'run' / name / 'report.html'}")
    report = json.loads((tmp_path / "run" / "dev" / "report.json").read_text(encoding="utf-8"))
    assert len(report["utterances"]) == 9


def test_a_time_limit_still_gives_a_model(tones: Path, tmp_path: Path) -> None:
    run = train(tmp_path, tones, "--trainer.max_time", "00:00:00:01", trainer={"max_epochs": 1000})
    assert load_model(run / "model.wavasr").metadata["best"]["epoch"] < 100


# --- bad data ---


def test_infeasible_utterances_are_named_before_training(tones: Path, tmp_path: Path) -> None:
    deep = [{"channels": 4, "window": 8, "stride": 8, "dilations": [1], "pool": 250}]
    encoder = {"stages": deep, "sample_rate": RATE, "init": "random"}
    message = refused(tmp_path, tones, encoder=encoder)
    assert re.match(r"utterance \d+ cannot be learnt: 2 frames for '. .', which needs 3 \(\d+ such utterances", message)
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_loss_that_is_not_finite_stops(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = torch.tensor(math.nan, requires_grad=True)
    monkeypatch.setattr("wavasr.training.losses.ctc_nats", lambda *arguments: nothing)
    assert "the loss is nan in epoch 0, batch 0" in refused(tmp_path, tones)


def test_frame_loss_needs_alignments(tones: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (tones / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["audio_filepath"] = str(tones / line["audio_filepath"])
        del line["alignment"]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert "needs time-aligned phones" in refused(tmp_path, tmp_path, auxiliary={"frame_weight": 1.0})


# --- pieces ---


def tiny_task(**optim: Any) -> RecognitionTask:
    stages = (
        StageConfig(channels=8, window=16, stride=8, dilations=(1,), pool=10),
        StageConfig(channels=8, dilations=(1,), pool=2),
    )
    encoder = EncoderConfig(stages=stages, sample_rate=RATE, init="random")
    config = FitConfig(
        run_dir=Path("unused"), encoder=encoder, data=DataConfig(dev_speakers=1), optim=OptimConfig(**optim)
    )
    return RecognitionTask(Recognizer(encoder, Units.characters(["abc"]), config.text), config)


def brute_force_nats(log_probs: torch.Tensor, labels: list[int]) -> float:
    """Every path of blanks and labels that collapses to `labels`."""
    total = -math.inf
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        if [label for label, _ in itertools.groupby(path) if label] == labels:
            total = np.logaddexp(total, sum(float(log_probs[t, label]) for t, label in enumerate(path)))
    return -float(total)


def test_ctc_against_brute_force() -> None:
    log_probs = torch.log_softmax(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    empty = torch.zeros(2, 0, dtype=torch.int64)
    batch = Batch(
        torch.zeros(2, 1), torch.ones(2), torch.tensor([[1, 1], [2, 0]]), torch.tensor([2, 1]), ["", ""], [0, 1], empty
    )
    frames = torch.tensor([5, 3])
    expected = [brute_force_nats(log_probs[0], [1, 1]), brute_force_nats(log_probs[1, :3], [2])]
    assert ctc_nats(log_probs, frames, batch).tolist() == pytest.approx(expected, rel=1e-5)
    assert ctc_nats(log_probs.bfloat16(), frames, batch).dtype == torch.float32


def test_learning_rate_rises_then_falls() -> None:
    optim = OptimConfig(warmup_steps=10)
    scales = [lr_scale(step, 100, optim) for step in range(101)]
    assert scales[0] == pytest.approx(0.1) and scales[9] == scales[10] == pytest.approx(1.0)
    assert all(a > b for a, b in itertools.pairwise(scales[10:]))
    assert scales[100] == pytest.approx(0.02)
    assert lr_scale(0, 3, optim) == 1.0  # too few steps for a warm-up


def test_the_front_end_has_its_own_rate_and_vectors_no_decay() -> None:
    task = tiny_task(lr=0.01, front_end_lr_scale=0.1, weight_decay=0.5)
    task._trainer = SimpleNamespace(estimated_stepping_batches=100)  # type: ignore[assignment]
    optimizer = task.configure_optimizers()["optimizer"]
    front_end = {id(p) for p in front_end_parameters(task.recognizer)}
    assert front_end
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen.append(id(parameter))
            assert group["initial_lr"] == pytest.approx(0.001 if id(parameter) in front_end else 0.01)
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)
    assert sorted(seen) == sorted(id(p) for p in task.recognizer.parameters())


def test_the_front_end_is_what_the_warm_up_gives() -> None:
    recognizer = tiny_task().recognizer
    names = {name for name, p in recognizer.named_parameters() if any(p is q for q in front_end_parameters(recognizer))}
    assert {name for name in names if name.startswith("encoder.stages.0.")}
    assert not {name for name in names if name.startswith(("encoder.stages.1.", "output."))}


def test_fine_tuning_keeps_what_the_model_can_spell_and_its_words(tones: Path, tmp_path: Path) -> None:
    """Units that the new texts lack stay, and so does the lexicon; texts with other symbols get units of their own."""
    (tmp_path / "first").mkdir()
    first = train(tmp_path / "first", tones, trainer={"max_epochs": 1}) / "model.wavasr"
    few = Recognizer((known := load_model(first)).encoder_config, Units.characters(["a b c d"]), known.text)
    save_model(few, tmp_path / "wide.wavasr", {})
    words = {"lexicon.txt": b"a\nb\n"}
    change_model(tmp_path / "wide.wavasr", language=words, decoding={"word_score": 2.0})
    run = train(tmp_path, tones, start=str(tmp_path / "wide.wavasr"), trainer={"max_epochs": 1})
    assert load_model(run / "model.wavasr").units == few.units
    carried = language_of(run / "model.wavasr")
    assert carried.lexicon is not None and carried.lexicon.read_text() == "a\nb\n"
    assert carried.weights == {"word_score": 2.0}
    narrow = Recognizer(known.encoder_config, Units.characters(["a b"]), known.text)
    save_model(narrow, tmp_path / "narrow.wavasr", {})
    change_model(tmp_path / "narrow.wavasr", language=words)
    (tmp_path / "other").mkdir()
    other = train(tmp_path / "other", tones, start=str(tmp_path / "narrow.wavasr"), trainer={"max_epochs": 1})
    assert load_model(other / "model.wavasr").units == known.units
    assert language_of(other / "model.wavasr") == Language()


def test_a_frozen_front_end_does_not_move(tones: Path, tmp_path: Path) -> None:
    run = train(tmp_path, tones, optim={"average_decay": 0.0, "front_end_frozen_epochs": 9})
    frozen = load_model(run / "model.wavasr")
    torch.manual_seed(0)
    start = Recognizer(frozen.encoder_config, frozen.units, frozen.text)
    front_end = {id(p) for p in front_end_parameters(frozen)}
    for (name, after), before in zip(frozen.named_parameters(), start.parameters(), strict=True):
        moved = float((after - before).detach().abs().max())
        assert (moved < 2e-4) if id(after) in front_end else (moved > 1e-3), name  # model files hold float16


def test_frames_of_a_cached_front_end_are_those_of_the_whole_network(tones: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "optim": {"front_end_frozen_epochs": 3, "front_end_copies": 2},
        "augment": {"time_masks": 0},
    }
    config = parse(["--config", str(recipe_file(tmp_path, tones, **changes)), "--run_dir", str(tmp_path)]).config
    splits = read_splits(config)
    recognizer = Recognizer(config.encoder, Units.characters(["a b c"]), config.text).eval()
    fresh, cached = (SpeechData(config, splits, recognizer) for _ in range(2))
    cached.cache_front_end(recognizer, torch.device("cpu"), autocast=False)
    cached_loader, fresh_loader = cached.train_dataloader(), fresh.train_dataloader()
    seen = set()
    for epoch in range(4):
        for a, b in zip(cached_loader, fresh_loader, strict=True):
            assert a.ids == b.ids and torch.equal(a.targets, b.targets)
            assert (a.front_end_frames is None) == (epoch == 3)
            if epoch < 2:  # the third epoch gets the first version again
                assert a.front_end_frames is not None and torch.equal(a.lengths, b.lengths)
                above = recognizer.features_above_front_end(
                    Features(a.front_end_frames.float(), b.lengths.add(159) // 160)
                )
                whole = recognizer.features(b.waveform, b.lengths)
                torch.testing.assert_close(above[-1].frames, whole[-1].frames, rtol=0.01, atol=0.01)
                seen |= set(a.ids)
    assert len(seen) == len(cached.train)


def test_cached_frames_come_back_from_files_and_are_masked_anew(tmp_path: Path) -> None:
    said = [Utterance(str(n), Path(f"{n}.wav"), 2.0, "a") for n in range(3)]
    frames = [torch.randn(3, 200) + 5 for _ in said]
    Version(tmp_path / "v", 3).write((u, f, 32000) for u, f in zip(said[:2], frames, strict=False))
    (tmp_path / "v" / "killed.f16").write_bytes(b"1234567")  # without an index
    Version(tmp_path / "v", 3).write([(said[2], frames[2], 31999)])
    version = Version(tmp_path / "v", 3)
    for one, expected, samples in zip(said, frames, (32000, 32000, 31999), strict=True):
        found, count = version[one]
        assert one in version and count == samples
        np.testing.assert_array_equal(found.T, expected.half().numpy())
    assert dataclasses.replace(said[0], offset_s=1.0) not in version
    cached = CachedFrames([version], 9, 160, AugmentConfig(time_masks=5), 100.0)
    masks = [cached(said[0], epoch, 33000, np.random.default_rng(epoch))[0] for epoch in range(20)]
    assert all(mask.shape == (3, 207) and float(mask[:, 200:].abs().sum()) == 0 for mask in masks)
    shares = [float((mask[:, :200] == 0).float().mean()) for mask in masks]
    assert len(set(shares)) > 10 and 0.02 < np.mean(shares) < 0.5 and float(abs(version[said[0]][0]).min()) > 0
    delete_frames(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("deleted", range(4))
def test_a_run_killed_while_it_deletes_frames_can_compute_them_again(
    deleted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [Utterance(str(number), Path("a.wav"), 1.0, "a", offset_s=float(number)) for number in range(2)]
    for utterance in said:
        Version(tmp_path / "v", 3).write([(utterance, torch.zeros(3, 5), 100)])
    unlink = Path.unlink
    left = iter(range(deleted))

    def killed(path: Path, missing_ok: bool = False) -> None:
        next(left)  # StopIteration when it is time
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(StopIteration):
        delete_frames(tmp_path)
    monkeypatch.undo()
    version = Version(tmp_path / "v", 3)
    assert sum(utterance in version for utterance in said) == max(0, 2 - deleted)
    assert all(version[utterance][0].shape == (5, 3) for utterance in said if utterance in version)


@forked
def test_two_processes_share_the_work_of_a_frozen_front_end(tones: Path, tmp_path: Path) -> None:
    frozen = {"front_end_frozen_epochs": 1, "front_end_copies": 1}
    run = tmp_path / "run"
    assert together(2, lambda: train(tmp_path, tones, *several(2, "ddp"), optim=frozen)) == [0, 0]
    assert (
        load_model(run / "model.wavasr").metadata["best"]["epoch"] in (0, 1) and not (run / "front-end-frames").exists()
    )
    (tmp_path / "alone").mkdir()
    alone = train(tmp_path / "alone", tones, "--trainer.max_epochs", "1")
    steps, steps_alone = (max(int(row["step"]) for row in rows(one)) + 1 for one in (run, alone))
    assert steps == 2 * steps_alone  # two epochs; each batch is shared


@pytest.mark.parametrize("agreed", [0, 1, 2 * signal.SIGTERM])
def test_processes_save_and_stop_together(agreed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    saved: list[Path] = []

    def most(number: int, device: torch.device) -> int:
        asked.append(number)
        return agreed

    monkeypatch.setattr("wavasr.training.callbacks.most", most)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(num_training_batches=3, strategy=strategy, save_checkpoint=saved.append)
    for minutes in (0.0, 60.0):  # of a process that finds it due, and of one that does not
        keeper = Keeper(tmp_path, minutes, {})
        for batch in range(3):
            keeper.on_train_batch_end(trainer, tiny_task(), None, None, batch)
        if agreed > 1:
            with pytest.raises(Interrupted):
                keeper.on_train_batch_start(trainer, tiny_task(), None, 3)
    assert asked == [1] * 3 + [0] * 3
    assert saved == [tmp_path / "last.ckpt"] * (4 if agreed else 0)  # not at the epoch's end, where it is saved anyway


def test_samples_are_predicted_once_the_front_end_learns(tones: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "optim": {"front_end_frozen_epochs": 1, "front_end_copies": 1},
        "auxiliary": {"weight": 0.1},
    }
    steps = [row for row in rows(train(tmp_path, tones, **changes)) if row["train_loss"]]
    assert {row["epoch"] for row in steps} == {"0", "1"}
    assert all(bool(row["train_generative_nats_per_sample"]) == (row["epoch"] == "1") for row in steps)


def test_blank_output_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task()
    monkeypatch.setattr(task, "log", lambda *arguments, **options: None)
    task._validated = {"1": Validated("a b", "", 3.0, 3.0, 3), "2": Validated("c", "", 1.0, 1.0, 1)}
    task.on_validation_epoch_end()
    assert "the output is all blanks" in caplog.text
    caplog.clear()
    task._validated = {"1": Validated("a b", "", 3.0, 3.0, 3), "2": Validated("c", "c", 1.0, 1.0, 1)}
    task.on_validation_epoch_end()
    assert not caplog.text


def test_rates_are_counted_over_the_set_and_divided_once() -> None:
    words = Units.characters(["a b c"])
    rates = error_rates(["a b c c", "a"], ["a b c", "b"], words)
    assert rates["dev_wer"] == pytest.approx(2 / 5) and rates["dev_cer"] == pytest.approx(3 / 8)
    phones = Units.phones(["ao", "aa", "sil"])
    assert error_rates(["ao sil"], ["aa sil"], phones, 48) == {"dev_per": 0.0}  # both are "aa" in the 39
    assert error_rates(["ao sil"], ["aa sil"], phones, 0) == {"dev_per": 0.5}


def test_seeds_differ_in_every_place() -> None:
    seeds = {seed_of(*numbers) for numbers in itertools.product(range(4), repeat=3)}
    assert len(seeds) == 64 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("where", ["file", "memory"])
def test_shards_train_as_their_manifest_does(where: str, tones: Path, tmp_path: Path) -> None:
    folder = Path(f"file://{tmp_path}/shards" if where == "file" else f"memory://{tmp_path.name}/shards")
    list(write_shards(read_listing([tones / "train.jsonl"]), folder, 0.1))
    curves = []
    for name, source in (("of-manifest", "train.jsonl"), ("of-shards", str(folder / "index.jsonl"))):
        (tmp_path / name).mkdir()
        changes: dict[str, Any] = {"data": {"train": [source]}, "trainer": {"max_epochs": 1, "limit_train_batches": 3}}
        curves.append(curve(train(tmp_path / name, tones, logger="csv", **changes)))
    assert curves[0] == curves[1] and len(curves[0]) > 3
