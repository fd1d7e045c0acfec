"""Transcribing: chunked equals whole, memory stays flat, stretches decode as one, failures are told apart."""

import io
import json
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from wavasr.audio.reading import load_audio
from wavasr.decoding.config import GREEDY, DecodingConfig
from wavasr.decoding.decoder import BeamDecoder, Decoder, GreedyDecoder
from wavasr.decoding.greedy import Hypothesis, greedy, prefix_beam
from wavasr.errors import AudioError, ModelError
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.geometry import frames_of
from wavasr.network.recognizer import Recognizer, load_model
from wavasr.recognition.chunks import ChunkPlan, log_probs_of, stream_log_probs
from wavasr.recognition.stretches import Cutter, joined
from wavasr.recognition.transcribe import Transcript, recognise
from wavasr.recognition.transcribe import transcribe as transcribe_speech
from wavasr.recognition.transcribe import transcribe_many as transcribe_many_speech

WITHOUT_VAD = DecodingConfig(vad=False)  # noise is speech here
UNITS = Units.characters(["the quick brown fox jumps over the lazy dog"])


def untrained(context: str = "noncausal", rate: int = 16000) -> Recognizer:
    """Small, with a receptive field of odd sizes."""
    stages = (
        StageConfig(channels=8, window=32, stride=16, dilations=(1, 2), pool=5, pooling="energy"),
        StageConfig(channels=8, dilations=(1, 4), kernel=2, pool=2),
        StageConfig(channels=8, dilations=(1, 2)),
    )
    torch.manual_seed(1)
    config = EncoderConfig(stages=stages, context=context, sample_rate=rate, init="random")  # type: ignore[arg-type]
    return Recognizer(config, UNITS, TextConfig()).eval()


def talkative(rate: int = 16000) -> Recognizer:
    """The same, whose output changes from frame to frame: blanks, spaces, letters."""
    model = untrained(rate=rate)
    with torch.no_grad():
        frames = model.features(torch.from_numpy(sound(32_000))[None], torch.tensor([32_000]))[-1].frames
        logits = model.output(torch.relu(frames))[0]  # (V, T)
        scale = 3 / logits.std(dim=1, keepdim=True)
        model.output.weight.mul_(scale[..., None])
        model.output.bias.sub_(logits.mean(dim=1)).mul_(scale[:, 0])
        model.output.bias[:2] += torch.tensor([6.0, 4.0])
    return model


def sound(samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loudness = 0.2 * np.abs(np.sin(np.arange(samples) / 3000.0)) + 0.01
    return (rng.standard_normal(samples) * loudness).astype(np.float32)


def transcribe(source: Any, model: Any, decoder: DecodingConfig = WITHOUT_VAD, **options: Any) -> Transcript:
    return transcribe_speech(source, model, decoder=decoder, **options)


def transcribe_many(sources: Any, model: Any, **options: Any) -> Iterator[Transcript]:
    return transcribe_many_speech(sources, model, decoder=WITHOUT_VAD, **options)


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return talkative()


@pytest.fixture(scope="module")
def plain() -> Recognizer:
    return untrained()


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavasr.recognition.chunks.CHUNK_S", 0.5)


def one_pass(model: Recognizer, samples: np.ndarray) -> Tensor:
    with torch.inference_mode():
        log_probs, frames = model(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    assert frames.tolist() == [frames_of(len(samples), model.hop_samples)]
    return log_probs[0]


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("context", ["noncausal", "causal"])
@pytest.mark.parametrize("samples", [1, 159, 160, 161, 7999, 16000, 33333, 8000 * 7])
def test_chunked_is_the_one_pass(context: str, samples: int) -> None:
    model = untrained(context)
    chunked = log_probs_of(model, sound(samples))
    assert chunked.shape == (frames_of(samples, model.hop_samples), len(UNITS))
    assert np.allclose(chunked, one_pass(model, sound(samples)), atol=1e-4)


@pytest.mark.usefixtures("short_chunks")
def test_every_length_around_the_edges_of_windows(plain: Recognizer) -> None:
    plan = ChunkPlan.of(plain)
    for windows in (0, 1, 2):
        for extra in (-161, -160, -1, 0, 1, 160, 161):
            samples = plan.window + windows * plan.chunk + extra
            assert np.allclose(log_probs_of(plain, sound(samples)), one_pass(plain, sound(samples)), atol=1e-4)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("piece", [1000, 1601, 8000, 50_000])
def test_the_pieces_of_a_stream_do_not_matter(plain: Recognizer, piece: int) -> None:
    samples = sound(50_000)
    pieces = [samples[start : start + piece] for start in range(0, len(samples), piece)]
    assert np.allclose(np.concatenate(list(stream_log_probs(plain, pieces))), one_pass(plain, samples), atol=1e-4)


def test_plan_is_in_hops_and_covers_what_a_frame_sees(model: Recognizer) -> None:
    plan, (before, after) = ChunkPlan.of(model), model.receptive_field
    assert 0 <= plan.before - before < 160 and 0 <= plan.after - after < 160
    assert plan.before % 160 == plan.chunk % 160 == plan.after % 160 == 0


@pytest.mark.usefixtures("short_chunks")
def test_windows_have_few_lengths(model: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = set()
    real = model.features
    monkeypatch.setattr(model, "features", lambda x, n: shapes.add(tuple(x.shape)) or real(x, n))
    for samples in range(30_000, 60_000, 2777):
        log_probs_of(model, sound(samples))
    assert shapes == {(1, 16000)}


@pytest.mark.usefixtures("short_chunks")
def test_batches_give_what_each_gives_alone(model: Recognizer) -> None:
    waveforms = [sound(n, n) for n in (0, 1, 5000, 12_000, 40_000)]
    together = recognise(model, waveforms, WITHOUT_VAD)
    for waveform, hypothesis in zip(waveforms, together, strict=True):
        alone = recognise(model, [waveform], WITHOUT_VAD)[0]
        assert hypothesis.ids == alone.ids and hypothesis.spans == alone.spans
        assert hypothesis.confidences == pytest.approx(alone.confidences, abs=1e-4)
    assert together[0].ids == () and len(together[-1].ids) > 3
    assert recognise(model, []) == []


def test_long_recordings_need_no_more_memory(
    model: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavasr.recognition.chunks.CHUNK_S", 3.0)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(sound(16000), 240), 16000)
    tracemalloc.start()
    result = transcribe(path, model)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.duration_s == 240.0
    assert most < 7e6 < 4 * 240 * 16000 / 2


# Stretches ------------------------------------------------------------------------------------------------------------


LETTERS = Units.characters(["abcd"])
GREEDY_DECODER = GreedyDecoder(GREEDY)


def lattice(frames: int, seed: int, blanks: float = 2.0) -> Tensor:
    values = torch.randn(frames, 5, generator=torch.Generator().manual_seed(seed)) * 2
    values[:, 0] += blanks
    return values.log_softmax(dim=-1)


def in_stretches(model: Recognizer, log_probs: Iterable[Tensor], decode: Decoder, least: int) -> Hypothesis:
    cutter = Cutter(model)
    cutter._least, cutter._retry, cutter._longest = least, least // 4, 2 * least
    cutter.held = np.zeros((0, 5), np.float32)
    parts = []
    for values in log_probs:
        cutter.add(values.numpy())
        parts += [decode(part) for part in cutter.cuts()]
    return joined([*parts, decode(cutter.rest())], LETTERS)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_greedy_in_stretches_is_greedy(model: Recognizer, seed: int, size: int) -> None:
    values = lattice(400, seed)
    whole, parts = greedy(values), in_stretches(model, values.split(size), GREEDY_DECODER, 50)
    assert parts.ids == whole.ids and parts.spans == whole.spans and parts.frames == 400
    assert parts.confidences == pytest.approx(whole.confidences)
    assert parts.score == pytest.approx(whole.score, rel=1e-5)


def test_where_stretches_are_cut_does_not_depend_on_the_pieces(model: Recognizer) -> None:
    values, decode = lattice(300, 3, blanks=3.0), BeamDecoder(DecodingConfig(beam=8))
    assert decode(values) == prefix_beam(values, 8)[0]
    assert in_stretches(model, [values], decode, 1000) == decode(values)
    whole = in_stretches(model, [values], decode, 60)
    assert whole.frames == 300 and whole.spans == tuple(sorted(whole.spans))
    for size in (1, 30, 59, 60, 61):
        assert in_stretches(model, values.split(size), decode, 60) == whole


def test_stretches_are_bounded_where_there_is_no_blank(model: Recognizer) -> None:
    cutter = Cutter(model)
    cutter._least, cutter._retry, cutter._longest = 20, 5, 40
    cutter.held = lattice(200, 0, blanks=-50.0).numpy()
    assert [len(part) for part in cutter.cuts()] and len(cutter.held) < 40


def test_joined_spans_go_on_where_the_last_ended() -> None:
    parts = [Hypothesis((1,), -1.0, ((2, 3),), (0.5,), 10), Hypothesis((2, 3), -2.0, ((0, 1), (4, 6)), (0.6, 0.7), 20)]
    whole = joined(parts, LETTERS)
    assert whole.spans == ((2, 3), (10, 11), (14, 16)) and (whole.score, whole.frames) == (-3.0, 30)
    assert whole.words == (("a", 0, 1), ("bc", 1, 3)), "no word crosses from one stretch into the next"
    assert joined([], LETTERS) == Hypothesis((), 0, (), (), 0)


# Recordings -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.flac"
    soundfile.write(path, sound(40_000), 16000)
    return path


def test_a_transcript_says_what_the_design_says(model: Recognizer, recording: Path) -> None:
    result = transcribe(recording, model, model_name="mine")
    values = result.to_dict()
    assert list(values) == ["file", "duration_s", "text", "confidence", "segments", "words", "model"]
    assert values == json.loads(json.dumps(values))
    assert values["file"] == str(recording) and values["duration_s"] == 2.5 and values["model"] == "mine"
    hypothesis = greedy(one_pass(model, load_audio(recording)))
    assert values["text"] == UNITS.decode(hypothesis.ids) != ""
    assert [word["word"] for word in values["words"]] == values["text"].split()
    ends = [0.0, *(time for word in values["words"] for time in (word["start_s"], word["end_s"])), 2.51]
    assert ends == sorted(ends)
    assert 0 < values["confidence"] < 1


@pytest.mark.usefixtures("short_chunks")
def test_chunks_do_not_change_words(model: Recognizer, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunked = transcribe(recording, model)
    monkeypatch.setattr("wavasr.recognition.chunks.CHUNK_S", 100.0)
    whole = transcribe(recording, model)
    assert chunked.text == whole.text and len(whole.text) > 3
    for one, other in zip(chunked.words, whole.words, strict=True):
        assert (one.word, one.start_s, one.end_s) == (other.word, other.start_s, other.end_s)


def test_streams_are_files(model: Recognizer, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = transcribe(recording, model)
    content = recording.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    for source in (content, io.BytesIO(content), "-"):
        result = transcribe(source, model)
        assert result.text == expected.text and result.file == "-"


def test_a_file_at_another_rate_and_with_more_channels(model: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "studio.wav"
    soundfile.write(path, np.stack([sound(48_000)] * 6, axis=1), 48_000)
    result = transcribe(path, model)
    assert result.duration_s == pytest.approx(1.0, abs=1e-3)
    assert transcribe(path, talkative(rate=8000)).duration_s == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("samples", [1, 10, 159, 160, 1600])
def test_the_shortest_recordings(model: Recognizer, samples: int, tmp_path: Path) -> None:
    path = tmp_path / "blip.wav"
    soundfile.write(path, sound(samples), 16000)
    result = transcribe(path, model)
    assert result.duration_s == pytest.approx(samples / 16000)
    assert all(word.end_s <= frames_of(samples, model.hop_samples) * 0.01 + 1e-9 for word in result.words)


@pytest.mark.parametrize("level", [0.0, 5e-5])
def test_nothing_is_invented_where_there_is_nothing_to_hear(model: Recognizer, level: float, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, level * np.sign(sound(32_000)), 16000, "FLOAT")
    result = transcribe(path, model)
    assert (result.text, result.words, result.confidence, result.duration_s) == ("", (), None, 2.0)
    assert recognise(model, [load_audio(path)], WITHOUT_VAD)[0].ids == ()


def test_failures_are_told_and_the_others_done(model: Recognizer, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello", encoding="utf-8")
    sources = [recording, tmp_path / "gone.wav", tmp_path / "text.wav", str(recording)]
    failures: list[tuple[object, str]] = []
    done = list(transcribe_many(sources, model, on_error=lambda source, error: failures.append((source, str(error)))))
    assert [result.file for result in done] == [str(recording)] * 2
    assert [source for source, _ in failures] == sources[1:3]
    assert "no such file" in failures[0][1] and "text file" in failures[1][1]
    with pytest.raises(AudioError, match=r"gone\.wav"):
        list(transcribe_many(sources, model))


def test_many_is_lazy(model: Recognizer, recording: Path) -> None:
    def endless() -> Iterator[Path]:
        while True:
            yield recording

    results = transcribe_many(endless(), model)
    assert next(results) == next(results)


def test_models_by_path_and_name(recording: Path, tiny_model: Path) -> None:
    result = transcribe(recording, str(tiny_model), decoder=DecodingConfig(beam=4, vad=False))
    assert result.model == str(tiny_model)
    assert transcribe(recording, load_model(tiny_model), decoder=DecodingConfig(beam=4, vad=False)).text == result.text
    with pytest.raises(ModelError, match="no such model"):
        transcribe(recording, tmp := tiny_model.parent / "other.wavasr")
    assert not tmp.exists()


def test_a_diverged_model_is_named(recording: Path) -> None:
    model = talkative()
    with torch.no_grad():
        model.output.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not a number"):
        transcribe(recording, model)


def test_progress_bar_goes_to_stderr(
    model: Recognizer, recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transcribe(recording, model, progress=True) == transcribe(recording, model)
    assert capsys.readouterr().out == ""
