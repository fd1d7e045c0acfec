"""Recordings without text: they train by the generative loss alone, in the stated share of the batches."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from wavasr.corpora.manifest import Utterance
from wavasr.corpora.shards import write_shards
from wavasr.errors import ConfigError, CorpusError
from wavasr.training.config import DataConfig
from wavasr.training.dataset import Batch
from wavasr.training.recipe import parse
from wavasr.training.run import fit
from wavasr.training.splits import fingerprints, read_splits, refuse_overlap
from wavasr.training.unlabelled import MixedLoader, UnlabelledBatches, read_unlabelled

RATE = 8000
STAGES = [
    {"channels": 8, "window": 32, "stride": 8, "dilations": [1, 2], "pool": 10, "pooling": "energy"},
    {"channels": 8, "dilations": [1], "pool": 2},
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight utterances in train.jsonl, and a folder of three recordings without text."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    (root / "talk").mkdir()
    lines = []
    for index in range(11):
        text = "ab"[index % 2] * 2
        samples = 0.3 * np.sin(np.arange(RATE // 2) * (0.3 if text == "aa" else 1.1)) + 0.01 * rng.normal(
            size=RATE // 2
        )
        name = f"{index}.wav" if index < 8 else f"talk/{index}.wav"
        soundfile.write(root / name, np.tile(samples, 1 if index < 8 else 10), RATE)
        if index < 8:
            lines.append({"audio_filepath": name, "text": text, "speaker": f"s{index % 4}", "duration": 0.5})
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return root


def train(folder: Path, corpus: Path, **data: Any) -> list[dict[str, str]]:
    recipe = {
        "encoder": {"stages": STAGES, "sample_rate": RATE, "init": "random"},
        "auxiliary": {"weight": 0.5},
        "data": {"root": str(corpus), "train": ["train.jsonl"], "dev_speakers": 1, "batch_s": 1, "workers": 0, **data},
        "trainer": {"max_epochs": 2, "precision": "32-true", "log_every_n_steps": 1, "enable_progress_bar": False},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    parsed = parse(["--config", str(path), "--run_dir", str(folder / "run")])
    fit(parsed, read_splits(parsed.config))
    with (folder / "run" / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_unlabelled_batches_train_by_the_generative_loss_alone(corpus: Path, tmp_path: Path) -> None:
    rows = train(tmp_path, corpus, unlabelled=["talk"], unlabelled_share=0.5)
    steps = [row for row in rows if row["train_loss"]]
    without = [row for row in steps if not row["train_ctc_nats_per_label"]]
    assert len(without) == len(steps) / 2
    for row in steps:
        ctc = float(row["train_ctc_nats_per_label"] or 0)
        assert float(row["train_loss"]) == pytest.approx(
            ctc + 0.5 * float(row["train_generative_nats_per_sample"]), rel=1e-4
        )
    nats = [float(row["dev_generative_nats_per_sample"]) for row in rows if row["dev_generative_nats_per_sample"]]
    assert len(nats) == 2 and nats[1] < nats[0] < 5.6


def test_pre_training_has_no_labelled_batches_and_keeps_the_likeliest_epoch(corpus: Path, tmp_path: Path) -> None:
    rows = train(tmp_path, corpus, unlabelled=["talk"], unlabelled_share=1.0)
    assert not any(row["train_ctc_nats_per_label"] for row in rows)
    assert sum(bool(row["train_generative_nats_per_sample"]) for row in rows) == 12  # 6 utterances in each of 2 epochs
    assert (tmp_path / "run" / "model.wavasr").exists()


def batches_of(utterances: list[Utterance], seed: int = 0) -> UnlabelledBatches:
    return UnlabelledBatches(utterances, RATE, 9.0, lambda crop, rng: crop, seed)


def test_a_batch_is_decided_by_its_number(corpus: Path) -> None:
    found = read_unlabelled(DataConfig(root=corpus, dev_speakers=1, unlabelled=("talk", "train.jsonl")))
    assert len(found) == 11 and found[0].duration_s == 5.0
    first, again, other = batches_of(found)(7), batches_of(found)(7), batches_of(found)(8)
    assert torch.equal(first.waveform, again.waveform) and not torch.equal(first.waveform, other.waveform)
    assert first.waveform.shape == (3, 3 * RATE) and not first.target_lengths.any()
    talks = {utterance.id for utterance in found[:3]}
    long = sum(name in talks for number in range(20) for name in batches_of(found)(number).ids)
    assert long > 60 * 0.6  # 15 of 19 s


def test_recordings_to_measure_on_are_found_in_a_folder_with_a_relative_name(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus)
    found = read_unlabelled(DataConfig(dev_speakers=1, unlabelled=("talk",)))
    dev = [Utterance("dev", corpus / "talk" / "9.wav", 5.0, "aa")]
    with pytest.raises(CorpusError, match=r"9\.wav: is in the training set and in a dev or test set"):
        refuse_overlap(found, dev)


def test_shards_are_read_as_their_recordings(corpus: Path, tmp_path: Path) -> None:
    found = read_unlabelled(DataConfig(root=corpus, dev_speakers=1, unlabelled=("train.jsonl",)))
    list(write_shards(found, tmp_path / "shards"))
    for name in (str(tmp_path / "shards"), f"file://{tmp_path}/shards/index.jsonl"):
        config = DataConfig(root=corpus, dev_speakers=1, unlabelled=(name,))
        assert torch.equal(batches_of(read_unlabelled(config))(7).waveform, batches_of(found)(7).waveform)
        assert list(fingerprints(config)) == ["train.jsonl", name]


class Counting:
    """A loader of labelled batches that knows where it is, as `SpeechLoader`."""

    def __init__(self, batches: int) -> None:
        self._batches, self._epoch, self._batch = batches, 0, 0

    def __len__(self) -> int:
        return self._batches

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._batch = state["epoch"], state["batch"]

    def __iter__(self) -> Any:
        epoch = self._epoch
        for number in range(self._batch, self._batches):
            over = number + 1 == self._batches
            self._epoch, self._batch = epoch + over, 0 if over else number + 1
            yield ("labelled", epoch, number)


def mixed(batches: int, share: float) -> MixedLoader:
    def unlabelled(number: int) -> Batch:
        return ("unlabelled", number)  # type: ignore[return-value]

    return MixedLoader(Counting(batches), unlabelled, share)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8, 1.0])
def test_the_share_is_kept_and_a_resumed_run_goes_on_with_the_next_batch(share: float) -> None:
    whole: list[Any] = []
    loader = mixed(12, share)
    for _ in range(3):
        epoch = list(loader)
        assert len(epoch) == len(loader)
        whole += epoch
    kinds = [batch[0] for batch in whole]
    assert kinds.count("unlabelled") / len(kinds) == pytest.approx(share, abs=0.05)
    assert [batch[1] for batch in whole if batch[0] == "unlabelled"] == list(range(kinds.count("unlabelled")))
    for stop in range(1, len(whole)):
        killed, seen = mixed(12, share), 0
        while seen < stop:
            for _ in killed:
                seen += 1
                if seen == stop:
                    state = killed.state_dict()
                    break
        resumed = mixed(12, share)
        resumed.load_state_dict(state)
        rest: list[Any] = []
        while len(rest) < len(whole) - stop:
            rest += list(resumed)
        assert rest[: len(whole) - stop] == whole[stop:]


def test_what_can_not_be_used_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"empty: holds no recordings"):
        read_unlabelled(DataConfig(root=tmp_path, dev_speakers=1, unlabelled=("empty",)))
    with pytest.raises(CorpusError, match="is in the training set and in a dev or test set"):
        train(tmp_path, corpus, unlabelled=["train.jsonl"], dev_speakers=0, dev=["train.jsonl"], train=["train.jsonl"])
    with pytest.raises(ConfigError, match=r"data.unlabelled is given, and auxiliary.weight is 0"):
        parse(["--config", "an4", "--data.unlabelled", "[more.jsonl]"])
    with pytest.raises(ConfigError, match=r"data.unlabelled_share is 0.0"):
        parse(["--config", "timit", "--data.unlabelled_share", "0"])
