"""Batches: what is read, how it is padded, in which order; splits of a corpus."""

import logging
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import AlignedPhone, Utterance, write_manifest
from wavasr.errors import AudioError, ConfigError, CorpusError, TextError
from wavasr.language.config import TextConfig, UnitsConfig
from wavasr.language.text import Units, ctc_frames_needed
from wavasr.training.aligning import with_phones
from wavasr.training.config import DataConfig, FitConfig
from wavasr.training.dataset import (
    IGNORED,
    AudioStore,
    FrameLabels,
    SpeechDataset,
    SpeechLoader,
    collate,
)
from wavasr.training.plan import Draw, Plan, RankBatches, bucket_edges
from wavasr.training.recipe import parse
from wavasr.training.splits import (
    Labels,
    Split,
    encode_split,
    hold_out_speakers,
    infeasible,
    read_splits,
    refuse_other_kind,
    spell,
)

RATE = 8000


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Nine utterances of 0.1 to 0.9 s; the samples of the n-th are all about n / 10. Two are parts of one file."""
    found = []
    for n in range(1, 10):
        soundfile.write(tmp_path / f"{n}.wav", np.full(n * 800, n / 10), RATE, subtype="PCM_16")
        found.append(Utterance(f"u{n}", tmp_path / f"{n}.wav", n / 10, "ab" * n, f"s{n % 3}"))
    return found


def dataset(utterances: list[Utterance], **options: Any) -> SpeechDataset:
    units = Units.characters(u.text for u in utterances)
    return SpeechDataset(utterances, Labels.of(units.encode(u.text) for u in utterances), RATE, **options)


def halve_and_jitter(waveform: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return waveform[::2] * np.float32(rng.uniform(0.5, 1.0))


@pytest.mark.parametrize("cache_mb", [1000.0, 0.05, 0.0])
def test_reads_what_the_files_hold(utterances: list[Utterance], cache_mb: float) -> None:
    part = Utterance("part", utterances[8].audio, 0.25, "ab", "s", offset_s=0.5)
    data = dataset([*utterances, part], cache_mb=cache_mb)
    assert data.samples.tolist() == [n * 800 for n in range(1, 10)] + [2000]
    for index in (0, 4, 8):
        item = data[Draw(0, index, 8000)]
        assert item.waveform.dtype == np.float32 and item.waveform.shape == ((index + 1) * 800,)
        assert np.allclose(item.waveform, (index + 1) / 10, atol=1e-4)
    assert len(data[Draw(0, 9, 0)].waveform) == 2000
    beginning = Utterance("beginning", utterances[8].audio, 0.25, "ab", "s")
    assert len(dataset([beginning], cache_mb=cache_mb)[Draw(0, 0, 0)].waveform) == 2000  # where the file does


@pytest.mark.parametrize("limit_mb", [1.0, 0.0])
def test_audio_is_16_bit_and_exact_kept_or_not(tmp_path: Path, limit_mb: float) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    store = AudioStore([Utterance("a", tmp_path / "a.flac", 5000 / RATE, "")], RATE, limit_mb=limit_mb)
    assert np.array_equal(store[0], load_audio(tmp_path / "a.flac", RATE))


def test_what_memory_may_not_hold_is_read_again(utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def load(utterance: Utterance, rate: int) -> Any:
        read.append(utterance.id)
        return load_audio(utterance.audio, rate)

    monkeypatch.setattr("wavasr.training.dataset.load_utterance", load)
    store = AudioStore(utterances, RATE, limit_mb=2 * 2500 / 2**20)  # of 0.1 and 0.2 s
    assert sorted(read) == ["u1", "u2"] and len(store._samples) < 2500
    for _ in range(2):
        assert [len(store[index]) for index in range(9)] == [n * 800 for n in range(1, 10)]
    assert Counter(read) == {"u1": 1, "u2": 1, **{f"u{n}": 2 for n in range(3, 10)}}


def test_unreadable_file_is_named(utterances: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav"):
        AudioStore([*utterances, Utterance("x", tmp_path / "gone.wav", 1.0, "")], RATE)


def test_augmentation_depends_on_seed_epoch_and_utterance_only(utterances: list[Utterance]) -> None:
    first, again, other_seed = (dataset(utterances, augment=halve_and_jitter, seed=seed) for seed in (1, 1, 2))
    draw = Draw(3, 5, 0)
    assert np.array_equal(first[draw].waveform, again[draw].waveform)
    for other in (first[Draw(4, 5, 0)], other_seed[draw]):
        assert not np.array_equal(first[draw].waveform, other.waveform)


def test_collate_pads_with_silence_and_blanks(utterances: list[Utterance]) -> None:
    data = dataset(utterances)
    batch = collate([data[Draw(0, 2, 4000)], data[Draw(0, 0, 4000)]])
    assert batch.waveform.shape == (2, 4000) and batch.waveform.dtype == torch.float32
    assert batch.lengths.tolist() == [2400, 800] and batch.lengths.dtype == torch.int64
    assert batch.waveform[1, 800:].abs().max() == 0 and batch.waveform[1, :800].min() > 0
    assert batch.targets.tolist() == [[1, 2, 1, 2, 1, 2], [1, 2, 0, 0, 0, 0]]
    assert batch.target_lengths.tolist() == [6, 2] and batch.ids == ["u3", "u1"]
    assert batch.frame_targets.shape == (2, 0)


def test_collate_grows_for_a_recording_longer_than_planned(utterances: list[Utterance]) -> None:
    assert collate([dataset(utterances)[Draw(0, 8, 100)]]).waveform.shape == (1, 7200)


def test_frame_labels_follow_speed(tmp_path: Path) -> None:
    spans = (
        AlignedPhone("h#", 0.0, 0.1),
        AlignedPhone("aa", 0.1, 0.2),
        AlignedPhone("q", 0.2, 0.3),
        AlignedPhone("bcl", 0.3, 0.4),
    )
    soundfile.write(tmp_path / "a.wav", np.zeros(3200), RATE)
    utterance = Utterance("a", tmp_path / "a.wav", 0.4, "ab", "s", 0.0, spans)
    labels = FrameLabels([utterance], 48, hop_samples=400)
    assert labels.phones == ["aa", "sil", "vcl"]
    sil, aa, vcl = (labels.phones.index(p) for p in ("sil", "aa", "vcl"))
    assert labels(spans, 3200, RATE).tolist() == [sil, sil, aa, aa, IGNORED, IGNORED, vcl, vcl]
    data = dataset([utterance], augment=halve_and_jitter, frame_labels=labels)
    batch = collate([data[Draw(0, 0, 4000)]])
    assert batch.frame_targets.tolist() == [[sil, aa, IGNORED, vcl]]


@given(st.lists(st.floats(0.05, 20.0), min_size=1, max_size=60), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_bucket_edges_waste_least(durations: list[float], buckets: int) -> None:
    edges = bucket_edges(durations, buckets)
    assert 1 <= len(edges) <= buckets and edges == sorted(set(edges)) and edges[-1] >= max(durations) - 1e-6

    def padded(edges: list[float]) -> float:
        return sum(min(edge for edge in edges if edge >= d - 1e-6) for d in durations)

    steps = sorted({float(np.ceil(d * 10 - 1e-9)) / 10 for d in durations})
    spread = steps[:: max(1, len(steps) // buckets)][: buckets - 1]  # some other choice of as many edges
    assert padded(edges) <= padded(sorted({*spread, steps[-1]})) + 1e-6


def test_bucket_edges_against_all_choices() -> None:
    from itertools import combinations

    rng = np.random.default_rng(0)
    durations = rng.uniform(0.1, 2.0, 40).tolist()
    steps = sorted({round(float(np.ceil(d * 10)) / 10, 6) for d in durations})

    def padded(edges: tuple[float, ...]) -> float:
        return sum(min(edge for edge in edges if edge >= d - 1e-6) for d in durations)

    best = min(padded((*chosen, steps[-1])) for chosen in combinations(steps[:-1], 2))
    assert padded(tuple(bucket_edges(durations, 3))) == pytest.approx(best)


def batches_of(rank: int = 0, world_size: int = 1, **options: Any) -> RankBatches:
    durations = np.random.default_rng(0).uniform(0.5, 8.0, 200).tolist()
    return RankBatches(Plan(durations, 20.0, RATE, **{"buckets": 5, "seed": 7, **options}), rank, world_size)


def test_short_utterances_come_first_for_a_while() -> None:
    batches = batches_of(short_first_epochs=1)
    lengths = [[batch[0].padded_samples for batch in batches.batches(epoch)] for epoch in (0, 1)]
    assert lengths[0] == sorted(lengths[1]) != lengths[1]
    first, plain = ({draw.utterance for batch in b.batches(0) for draw in batch} for b in (batches, batches_of()))
    assert first == plain and batches.batches(0) != batches_of(seed=8, short_first_epochs=1).batches(0)


def test_batches_cover_every_utterance_once_in_few_shapes() -> None:
    batches = batches_of()
    for epoch in (0, 1):
        plan = batches.batches(epoch)
        assert len(plan) == len(batches)
        assert sorted(draw.utterance for batch in plan for draw in batch) == list(range(200))
        assert all(len({draw.padded_samples for draw in batch}) == 1 for batch in plan)
        assert all(len(batch) * batch[0].padded_samples / RATE <= 20.0 for batch in plan)
        assert len({batch[0].padded_samples for batch in plan}) <= 5
        assert len({(len(batch), batch[0].padded_samples) for batch in plan}) <= 10  # full ones and one rest a bucket
    assert batches.batches(0) == batches_of().batches(0) != batches.batches(1)
    assert batches_of(seed=8).batches(0) != batches.batches(0)


def test_an_utterance_longer_than_a_batch_is_a_batch() -> None:
    assert [len(batch.utterances) for batch in Plan([1.0, 30.0, 40.0], 5.0, RATE, buckets=3).epoch(0)] == [1, 1, 1]


def test_without_shuffling_always_the_same_order() -> None:
    batches = batches_of(shuffle=False)
    plain = [[draw.utterance for draw in batch] for batch in batches.batches(0)]
    assert plain == [[draw.utterance for draw in batch] for batch in batches.batches(3)]


@pytest.mark.parametrize("world_size", [2, 3, 50])
def test_processes_share_each_batch(world_size: int) -> None:
    """Another number of processes keeps the order of the data, and all have as many steps."""
    alone = batches_of().batches(2)
    ranks = [batches_of(rank=rank, world_size=world_size).batches(2) for rank in range(world_size)]
    assert {len(plan) for plan in ranks} == {len(alone)}
    for step, whole in enumerate(alone):
        parts = [plan[step] for plan in ranks]
        assert all(parts) and {draw.padded_samples for part in parts for draw in part} == {whole[0].padded_samples}
        counted = [[draw for draw in part if draw.counts] for part in parts]
        assert sorted(draw.utterance for part in counted for draw in part) == sorted(draw.utterance for draw in whole)
        assert [part[0] for part in counted if part] == whole[:world_size]


def test_the_share_of_padding_is_told() -> None:
    assert Plan([1.0, 3.0, 3.0, 3.0], 6.0, RATE, buckets=1).padding_share == pytest.approx(2 / 12)
    assert Plan([1.0, 3.0], 6.0, RATE, buckets=2).padding_share == pytest.approx(0.0)


def test_killed_data_workers_are_replaced(utterances: list[Utterance], caplog: pytest.LogCaptureFixture) -> None:
    batches = RankBatches(Plan([u.duration_s for u in utterances], 0.9, RATE, buckets=3))
    straight = [batch.waveform for batch in SpeechLoader(dataset(utterances), batches, 0)]
    loader = SpeechLoader(dataset(utterances), batches, 1)
    found = []
    for batch in loader:
        found.append(batch.waveform)
        if len(found) == 1:
            for worker in loader._iterator._workers:  # type: ignore[union-attr]
                os.kill(worker.pid, signal.SIGKILL)
    assert "a data worker was killed" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(found, straight, strict=True))


def test_an_unreadable_recording_is_one_line_from_a_worker_too(utterances: list[Utterance], tmp_path: Path) -> None:
    gone = [*utterances, Utterance("x", tmp_path / "gone.wav", 1.0, "ab")]
    data = dataset(gone, cache_mb=0.0)
    loader = SpeechLoader(data, RankBatches(Plan([u.duration_s for u in gone], 9.0, RATE, buckets=1)), 1)
    with pytest.raises(AudioError, match=r"gone\.wav") as caught:
        list(loader)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_goes_on_from_any_position(utterances: list[Utterance], workers: int) -> None:
    def loader() -> SpeechLoader:
        data = dataset(utterances, augment=halve_and_jitter)
        plan = Plan([u.duration_s for u in utterances], 1.0, RATE, buckets=3)
        return SpeechLoader(data, RankBatches(plan), workers)

    straight = loader()
    epochs = [[batch.waveform for batch in straight] for _ in range(2)]
    assert straight.state_dict() == {"epoch": 2, "batch": 0}
    first = loader()
    iterator = iter(first)
    next(iterator), next(iterator)
    resumed = loader()
    resumed.load_state_dict(first.state_dict())
    rest = [batch.waveform for batch in resumed]
    assert len(rest) == len(epochs[0]) - 2
    assert all(torch.equal(a, b) for a, b in zip(rest, epochs[0][2:], strict=True))
    assert all(torch.equal(a.waveform, b) for a, b in zip(resumed, epochs[1], strict=True))
    assert resumed.waited_s > 0


# --- splits ---


def test_speakers_are_held_out_whole_and_always_the_same(utterances: list[Utterance]) -> None:
    train, dev = hold_out_speakers(utterances, 1)
    assert {u.speaker for u in dev} == {"s0"} and {u.speaker for u in train} == {"s1", "s2"}
    assert {u.speaker for u in hold_out_speakers(utterances[::-1], 1)[1]} == {"s0"}
    with pytest.raises(ConfigError, match="3 speakers"):
        hold_out_speakers(utterances, 3)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("characters", "HH AH L OW W ER L D", "units.kind is characters, and the training texts are phones"),
        ("words", "sh ix hv eh dcl jh ih", "units.kind is words, and the training texts are phones"),
        ("phones", "people say hello to everybody", "units.kind is phones, and the training texts are words"),
        ("characters", "see oh em at four a b c", ""),
        ("phones", "a b ə tʃ x 1 2 ts", ""),
    ],
)
def test_phones_and_words_are_told_apart(utterances: list[Utterance], kind: Any, text: str, message: str) -> None:
    split = Split(utterances, [text] * len(utterances))
    if not message:
        return refuse_other_kind(split, UnitsConfig(kind=kind, phone_set=0))
    with pytest.raises(ConfigError, match=message):
        refuse_other_kind(split, UnitsConfig(kind=kind, phone_set=0))


def test_manifests_that_are_missing_are_told_how_they_are_made(tmp_path: Path) -> None:
    config = parse(["--config", "own.yaml", "--data.root", str(tmp_path / "none")]).config
    for read in read_splits, with_phones:
        with pytest.raises(CorpusError, match=r"none/train\.jsonl: no such manifest; `wavasr prepare` .*--data\.root"):
            read(replace(config, run_dir=tmp_path / "r"))
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_instead_of_manifests_is_told_how_it_is_prepared(utterances: list[Utterance], tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("ab", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"is a corpus and has no train\.jsonl; make .* `wavasr prepare folder"):
        read_splits(fit_config(tmp_path, dev_every=2))
    with pytest.raises(CorpusError, match=r"is a corpus and has no train\.jsonl; make .* `wavasr prepare folder"):
        with_phones(
            replace(parse(["--config", "own.yaml", "--data.root", str(tmp_path)]).config, run_dir=tmp_path / "r")
        )


def fit_config(root: Path, **data: Any) -> FitConfig:
    return FitConfig(run_dir=root, data=DataConfig(root=root, **data))


def test_held_out_utterances(utterances: list[Utterance], tmp_path: Path) -> None:
    write_manifest(tmp_path / "train.jsonl", utterances)
    splits = read_splits(fit_config(tmp_path, dev_every=4))
    assert [u.id for u in splits.dev.utterances] == ["u1", "u5", "u9"]
    assert len(splits.train.utterances) == 6 and not splits.test.utterances


def test_a_recording_in_two_sets_is_refused(utterances: list[Utterance], tmp_path: Path) -> None:
    write_manifest(tmp_path / "train.jsonl", utterances)
    write_manifest(tmp_path / "dev.jsonl", utterances[3:4])
    with pytest.raises(CorpusError, match=r"4\.wav: is in the training set and in a dev or test set"):
        read_splits(fit_config(tmp_path, dev=("dev.jsonl",)))


def test_long_utterances_are_counted(utterances: list[Utterance], tmp_path: Path, caplog: Any) -> None:
    write_manifest(tmp_path / "train.jsonl", utterances)
    with caplog.at_level(logging.WARNING, "wavasr"):
        splits = read_splits(fit_config(tmp_path, dev_speakers=1, max_s=0.75))
    assert [u.id for u in splits.train.utterances] == ["u1", "u2", "u4", "u5", "u7"]
    assert "left out 1 utterances with more than 0.75 s of audio (data.max_s): u8: 0.8 s" in caplog.text


def test_ids_that_repeat_in_another_manifest(utterances: list[Utterance], tmp_path: Path) -> None:
    write_manifest(tmp_path / "train.jsonl", utterances[:6])
    (tmp_path / "b").mkdir()
    soundfile.write(tmp_path / "b" / "1.wav", np.zeros(800), RATE)
    write_manifest(tmp_path / "b" / "more.jsonl", [Utterance("u1", tmp_path / "b" / "1.wav", 0.1, "x", "s9")])
    splits = read_splits(fit_config(tmp_path, train=("train.jsonl", "b/more.jsonl"), dev_speakers=1))
    ids = [u.id for part in (splits.train, splits.dev) for u in part.utterances]
    assert sorted(ids) == ["b/more/u1", "u1", "u2", "u3", "u4", "u5", "u6"]


def test_unknown_symbols_are_refused_or_dropped(utterances: list[Utterance], caplog: Any) -> None:
    units = Units.characters(["ab"])
    split = Split(utterances[:3], ["ab", "a?b", "b"])
    with pytest.raises(TextError, match=r"utterance u2: .*'\?'"):
        encode_split(split, units, UnitsConfig())
    with caplog.at_level(logging.WARNING, "wavasr"):
        kept, labels = encode_split(split, units, UnitsConfig(out_of_inventory="drop"))
    assert [u.id for u in kept] == ["u1", "u3"] and [list(ids) for ids in labels] == [[1, 2], [2]]
    assert "left out 1 utterances with symbols outside the inventory: u2" in caplog.text


def test_infeasible_utterances_are_refused_or_dropped(utterances: list[Utterance], caplog: Any) -> None:
    labels = Labels.of([[1, 2], [1, 1], [3]])
    enough, few = np.array([2, 3, 1]), np.array([2, 2, 1])
    assert not len(infeasible(utterances[:3], labels, enough, DataConfig(dev_speakers=1)))
    with pytest.raises(CorpusError, match="utterance u2 cannot be learnt: 2 frames for 'abab', which needs 3"):
        infeasible(utterances[:3], labels, few, DataConfig(dev_speakers=1))
    with caplog.at_level(logging.WARNING, "wavasr"):
        assert infeasible(utterances[:3], labels, few, DataConfig(dev_speakers=1, infeasible="drop")).tolist() == [1]
    assert "left out 1 utterances with fewer frames than labels: u2" in caplog.text


@given(st.lists(st.lists(st.integers(1, 3), max_size=6), max_size=8))
def test_frames_needed_are_those_of_each_row(rows: list[list[int]]) -> None:
    labels = Labels.of(rows)
    assert labels.frames_needed().tolist() == [ctc_frames_needed(row) for row in rows]
    assert [labels[i] for i in range(len(rows))] == rows


def test_spelling() -> None:
    assert spell("Don't STOP!", TextConfig(), UnitsConfig()) == "don't stop"
    assert spell("h# q aa bcl", TextConfig(), UnitsConfig(kind="phones")) == "sil aa vcl"
    assert spell("h# q aa", TextConfig(), UnitsConfig(kind="phones", phone_set=61)) == "h# q aa"
    assert spell("A1 ż", TextConfig(), UnitsConfig(kind="phones", phone_set=0)) == "A1 ż"
    with pytest.raises(TextError, match="A1"):
        spell("A1", TextConfig(), UnitsConfig(kind="phones"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "set exactly one of them"),
        ({"dev": ("dev.jsonl",), "dev_speakers": 2}, "set exactly one of them"),
        ({"dev_speakers": -1}, r"data\.dev_speakers is -1"),
        ({"dev_every": 1}, "leaves nothing to train on"),
        ({"dev_speakers": 1, "batch_s": 0.0}, r"data\.batch_s is 0"),
        ({"dev_speakers": 1, "train": ()}, r"data\.train is empty"),
        ({"dev_speakers": 1, "buckets": 0}, r"data\.buckets is 0"),
    ],
)
def test_impossible_data_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**values)
