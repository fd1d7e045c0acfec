"""Batches: what is read, how it is padded, in which order; splits of a corpus."""

import logging
from collections import Counter
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
from wavasr.language.text import Units
from wavasr.training.config import DataConfig, FitConfig
from wavasr.training.dataset import (
    IGNORED,
    AudioStore,
    BucketBatches,
    Draw,
    FrameLabels,
    SpeechDataset,
    SpeechLoader,
    bucket_edges,
    collate,
)
from wavasr.training.splits import Split, encode_split, hold_out_speakers, infeasible, read_splits, spell

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
    return SpeechDataset(utterances, [units.encode(u.text) for u in utterances], RATE, **options)


def halve_and_jitter(waveform: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return waveform[::2] * np.float32(rng.uniform(0.5, 1.0))


@pytest.mark.parametrize("cache", [True, False])
def test_reads_what_the_files_hold(utterances: list[Utterance], cache: bool) -> None:
    part = Utterance("part", utterances[8].audio, 0.25, "ab", "s", offset_s=0.5)
    data = dataset([*utterances, part], cache=cache)
    assert data.samples.tolist() == [n * 800 for n in range(1, 10)] + [2000]
    for index in (0, 4, 8):
        item = data[Draw(0, index, 8000)]
        assert item.waveform.dtype == np.float32 and item.waveform.shape == ((index + 1) * 800,)
        assert np.allclose(item.waveform, (index + 1) / 10, atol=1e-4)
    assert len(data[Draw(0, 9, 0)].waveform) == 2000
    beginning = Utterance("beginning", utterances[8].audio, 0.25, "ab", "s")
    assert len(dataset([beginning], cache=cache)[Draw(0, 0, 0)].waveform) == 2000  # where the file does


def test_cache_is_16_bit_and_exact(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    store = AudioStore([Utterance("a", tmp_path / "a.flac", 5000 / RATE, "")], RATE)
    assert np.array_equal(store[0], load_audio(tmp_path / "a.flac", RATE))


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


def batches_of(**options: Any) -> BucketBatches:
    durations = np.random.default_rng(0).uniform(0.5, 8.0, 200).tolist()
    return BucketBatches(durations, 20.0, RATE, **{"buckets": 5, "seed": 7, **options})


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
    assert [len(batch) for batch in BucketBatches([1.0, 30.0, 40.0], 5.0, RATE, buckets=3).batches(0)] == [1, 1, 1]


def test_without_shuffling_always_the_same_order() -> None:
    batches = batches_of(shuffle=False)
    plain = [[draw.utterance for draw in batch] for batch in batches.batches(0)]
    assert plain == [[draw.utterance for draw in batch] for batch in batches.batches(3)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches(world_size: int) -> None:
    ranks = [batches_of(rank=rank, world_size=world_size).batches(2) for rank in range(world_size)]
    assert len({len(plan) for plan in ranks}) == 1
    seen = Counter(draw.utterance for plan in ranks for batch in plan for draw in batch)
    assert set(seen) == set(range(200))
    assert sum(seen.values()) < 200 + 60  # at most a batch or two are seen twice


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_goes_on_from_any_position(utterances: list[Utterance], workers: int) -> None:
    def loader() -> SpeechLoader:
        data = dataset(utterances, augment=halve_and_jitter)
        return SpeechLoader(data, BucketBatches([u.duration_s for u in utterances], 1.0, RATE, buckets=3), workers)

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
    assert {u.speaker for u in dev} == {"s1"} and {u.speaker for u in train} == {"s0", "s2"}
    assert (train, dev) == hold_out_speakers(list(reversed(utterances))[::-1], 1)
    with pytest.raises(ConfigError, match="3 speakers"):
        hold_out_speakers(utterances, 3)


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
    assert [u.id for u in splits.train.utterances] == ["u2", "u3", "u5", "u6"]
    assert "left out 2 utterances with more than 0.75 s of audio (data.max_s): u8: 0.8 s; u9: 0.9 s" in caplog.text


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
    labels = [[1, 2], [1, 1], [3]]
    assert infeasible(utterances[:3], labels, [2, 3, 1], DataConfig(dev_speakers=1)) == set()
    with pytest.raises(CorpusError, match="utterance u2 cannot be learnt: 2 frames for 'abab', which needs 3"):
        infeasible(utterances[:3], labels, [2, 2, 1], DataConfig(dev_speakers=1))
    with caplog.at_level(logging.WARNING, "wavasr"):
        assert infeasible(utterances[:3], labels, [2, 2, 1], DataConfig(dev_speakers=1, infeasible="drop")) == {"u2"}
    assert "left out 1 utterances with fewer frames than labels: u2" in caplog.text


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
