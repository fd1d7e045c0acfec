"""Adaptation without transcripts: what is learnt from, the loss, what moves, and the command from files to a model."""

import functools
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavasr import cli
from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import read_manifest
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.search import LMDecoder
from wavasr.decoding.trellis import ctc_log_probs
from wavasr.evaluation.metrics import wer
from wavasr.network.crf import Competitors
from wavasr.network.files import language_of, read_header, resolve
from wavasr.network.recognizer import Recognizer, load_model, weights_sha256
from wavasr.recognition.adapt import (
    METADATA_KEY,
    AdaptationConfig,
    Understood,
    _batches,
    adapt,
    nats,
    sentences,
    understood,
)
from wavasr.recognition.models import opened
from wavasr.recognition.transcribe import transcribe

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
CLIPS = [SAMPLES / name for name in ("plain-sentence.flac", "date.flac", "telephone-number.wav")]


@pytest.fixture(scope="module")
def decode() -> LMDecoder:
    found = decoder_of(DecodingConfig(thorough=True, vad=False), opened("default"))
    assert isinstance(found, LMDecoder)
    return found


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    return [load_audio(path, 16000) for path in CLIPS]


@pytest.fixture(scope="module")
def adapted(waveforms: list[np.ndarray]) -> Recognizer:
    return adapt(waveforms[:1], config=AdaptationConfig(epochs=2, batch_s=4.0))


def test_only_biases_move_and_the_labels_become_likelier(adapted: Recognizer) -> None:
    start = load_model("default")
    moved = {
        name
        for (name, before), after in zip(start.named_parameters(), adapted.parameters(), strict=True)
        if not torch.equal(before, after)
    }
    assert moved and all(name.endswith("bias") for name in moved)
    assert all(parameter.requires_grad for parameter in adapted.parameters())
    record = adapted.metadata[METADATA_KEY]
    first, last = record["nats_per_label"]
    assert 0 < last < first
    assert record["from_sha256"] == weights_sha256(start) != weights_sha256(adapted)


def test_the_same_recordings_give_the_same_model(adapted: Recognizer, waveforms: list[np.ndarray]) -> None:
    again = adapt(waveforms[:1], config=AdaptationConfig(epochs=2, batch_s=4.0))
    assert weights_sha256(again) == weights_sha256(adapted)


def test_what_was_understood_is_what_transcribe_says(decode: LMDecoder, waveforms: list[np.ndarray]) -> None:
    stretches = list(understood(waveforms, opened("default"), decode))
    assert [len(one.waveform) for one in stretches] == [len(waveform) for waveform in waveforms]
    spelled: list[set[tuple[int, ...]]] = [set(), set(), set()]
    for found, path in zip(spelled, CLIPS, strict=True):
        words = transcribe(path, decoder=decode).text.split()
        ways: set[tuple[int, ...]] = {()}
        for word in words:
            number = decode.words.index(word)
            assert decode._words is not None
            ways = {(*way, *said) for way in ways for said in decode._words.spellings[number]}
        found.update(ways)
    assert all(one.ids in ways for one, ways in zip(stretches, spelled, strict=True))


def test_the_loss_is_that_of_the_paths_whatever_the_padding(decode: LMDecoder, waveforms: list[np.ndarray]) -> None:
    model = load_model("default")
    competitors = Competitors(sentences(decode, 0), len(model.units))
    one = Understood(waveforms[0][:20011], (3, 9, 9, 17))
    with torch.no_grad():
        log_probs, frames = model(torch.from_numpy(one.waveform)[None], torch.tensor([len(one.waveform)]))
        beside = competitors(log_probs, frames, torch.tensor([one.ids]), torch.tensor([4]))
        found = float(nats(model, competitors, one))
    expected = float(beside) - ctc_log_probs(log_probs[0].numpy(), [one.ids])[0]
    assert found == pytest.approx(expected, rel=1e-4)


def test_competitors_have_words_as_often_as_the_language_model(decode: LMDecoder) -> None:
    unigrams, spellings = decode.unigrams(), decode.spellings()
    most = sorted(unigrams, key=lambda word: -unigrams[word])[:1]
    lengths = Counter(map(len, spellings.values()))
    assert lengths.keys() > {2, 3, 4}
    drawn = sentences(decode, 0)
    assert drawn == sentences(decode, 0) != sentences(decode, 1)
    # Labels a word: by draws, and by the probabilities.
    total = sum(unigrams[word] for word in spellings if word in unigrams)
    expected = sum(unigrams[word] * len(ids) for word, ids in spellings.items() if word in unigrams) / total
    assert sum(map(len, drawn)) / (len(drawn) * 12) == pytest.approx(expected, rel=0.02)
    # The most frequent word begins as many sentences as it should.
    begins = sum(tuple(labels[: len(spellings[most[0]])]) == spellings[most[0]] for labels in drawn) / len(drawn)
    assert begins >= 0.8 * unigrams[most[0]] / total


def test_every_stretch_is_in_one_batch_and_batches_are_long_enough() -> None:
    rng = np.random.default_rng(0)
    stretches = [Understood(np.zeros(size, np.float32), (size,)) for size in rng.integers(1, 50, 40).tolist()]
    batches = _batches(stretches, 60, np.random.default_rng(1))
    assert Counter(one.ids for batch in batches for one in batch) == Counter(one.ids for one in stretches)
    sizes = [[len(one.waveform) for one in batch] for batch in batches]
    assert all(sum(size) >= 60 > sum(size[:-1]) for size in sizes[:-1])
    assert [one.ids for batch in batches for one in batch] != [one.ids for one in stretches]


def test_the_command_makes_a_model_and_names_what_it_could_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, missing = tmp_path / "voice.wavasr", tmp_path / "none.wav"
    assert cli.main(["adapt", str(CLIPS[0]), str(missing), "-o", str(output)]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(output)] and str(missing) in said.err
    assert read_header(output)["metadata"][METADATA_KEY]["epochs"] == AdaptationConfig().epochs
    carried, shipped = (language_of(resolve(model)) for model in (output, "default"))
    assert carried.weights == shipped.weights and carried.lm is not None and shipped.lm is not None
    assert carried.lm.size() == shipped.lm.size()
    said_there = next(u.text for u in read_manifest(SAMPLES / "samples.jsonl") if u.audio == CLIPS[0])
    errors = {
        model: wer([said_there.lower()], [transcribe(CLIPS[0], model).text]).errors for model in (output, "default")
    }
    assert errors[output] <= errors["default"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lm", "none", "--lexicon", "none"], "default: has no words to understand recordings by"),
        ([], "no words were understood"),
        (["--model", "nowhere.wavasr"], "nowhere.wavasr"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000, np.float32), 16000)
    output = tmp_path / "out.wavasr"
    assert cli.main(["adapt", str(tmp_path / "silence.wav"), "-o", str(output), *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and len(errors.splitlines()) == 1 and not output.exists()


def test_the_output_has_to_be_a_model_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["adapt", str(CLIPS[0]), "-o", str(tmp_path / "voice.onnx")]) == 2
    assert "voice.onnx" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_examples_of_the_help_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lecture.mp3", "monday/a.wav", "monday/b.wav"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(CLIPS[0], name)
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/model.wavasr").symlink_to(resolve("default"))
    once = functools.partial(adapt, config=AdaptationConfig(epochs=1))
    monkeypatch.setattr("wavasr.recognition.adapt.adapt", once)
    assert cli.main(["adapt", "--help"]) == 0
    lines = re.findall(r"wavasr (.*)", capsys.readouterr().out.partition("examples:")[2])
    assert len(lines) == 3
    for line in lines:
        files = [sorted(map(str, Path().glob(one))) if "*" in one else [one] for one in shlex.split(line)]
        assert cli.main([file for found in files for file in found]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "lecturer.wavasr" and "river" in said[1] and said[2] == "mine-monday.wavasr"
