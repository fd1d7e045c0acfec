"""Evaluation with an oracle in place of the network, and with a real, tiny network against its own second path."""

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.greedy import greedy
from wavasr.errors import AudioError, ConfigError, TextError, WavasrError
from wavasr.evaluation.evaluate import evaluate, model_recogniser
from wavasr.evaluation.metrics import ErrorCounts, PhoneSet, bootstrap_ci
from wavasr.evaluation.provenance import file_sha256, machine
from wavasr.evaluation.results import Vocabulary, assemble, speaker_rates
from wavasr.evaluation.scoring import Recognised, score
from wavasr.language.arpa import write_arpa
from wavasr.language.config import TextConfig
from wavasr.language.ngrams import estimate
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.recognizer import Recognizer, weights_sha256
from wavasr.recognition.transcribe import transcribe

NOISE = DecodingConfig(vad=False)  # what is to be recognised here is noise
RATE = 8000
TEXTS = ["One two!", "three", "", "four five six", "Seven, eight nine ten"]


def tiny(units: Units, text: TextConfig | None = None) -> Recognizer:
    torch.manual_seed(0)
    stages = (StageConfig(channels=8, window=16, stride=8, dilations=(1, 2), pool=10),)
    return Recognizer(EncoderConfig(stages=stages, sample_rate=RATE), units, text or TextConfig()).eval()


@pytest.fixture
def model() -> Recognizer:
    return tiny(Units.characters(["abcdefghijklmnopqrstuvwxyz '"]))


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Noise whose length names the utterance: utterance i lasts 0.2 s + i * 0.1 s."""
    rng = np.random.default_rng(0)
    found = []
    for i, text in enumerate(TEXTS):
        path = tmp_path / f"u{i}.wav"
        samples = int(RATE * (0.2 + 0.1 * i))
        soundfile.write(path, 0.1 * rng.standard_normal(samples), RATE)
        found.append(Utterance(f"u{i}", path, samples / RATE, text, speaker="ab"[i % 2]))
    return found


class Oracle:
    """Knows every transcript by the recording's length, answers with given texts, and notes what it was asked."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = answers
        self.batches: list[list[int]] = []

    def __call__(self, waveforms: Sequence[NDArray[np.float32]]) -> list[Recognised]:
        found = [round((len(w) / RATE - 0.2) / 0.1) for w in waveforms]
        self.batches.append(found)
        return [Recognised(self.answers[i], 0.9) for i in found]


def test_a_perfect_oracle_makes_no_error(model: Recognizer, utterances: list[Utterance]) -> None:
    oracle = Oracle(["one two", "three", "", "four five six", "seven eight nine ten"])
    found = evaluate(model, utterances, recognise=oracle, progress=False)
    assert found.metric == "wer"
    assert found.rate.counts == ErrorCounts(0, 0, 0, 10)
    assert found.character_rate is not None and found.character_rate.value == 0
    assert [u.id for u in found.utterances] == [u.id for u in utterances], "the manifest's order"
    assert found.utterances[0].reference == "one two", "normalised as the model's text is"
    assert found.sentence_errors == 0


def test_counts_are_summed_over_the_corpus(model: Recognizer, utterances: list[Utterance]) -> None:
    oracle = Oracle(["one", "tree", "oh", "four five six", "seven eight eight nine ten"])
    found = evaluate(model, utterances, recognise=oracle, progress=False)
    assert found.rate.counts == ErrorCounts(1, 2, 1, 10)
    assert found.rate.value == 0.4
    assert found.rate.ci95 == bootstrap_ci([u.counts for u in found.utterances])
    assert found.rate.ci95_speakers is not None
    assert found.sentence_errors == 4
    speakers = speaker_rates(found)
    assert {name: rate.counts.reference for name, rate in speakers.items()} == {"a": 6, "b": 4}
    assert sum((rate.counts for rate in speakers.values()), ErrorCounts()) == found.rate.counts
    assert any("1 references are empty" in note for note in found.notes)


def test_batches_are_neighbours_and_bounded(model: Recognizer, utterances: list[Utterance]) -> None:
    oracle = Oracle([""] * 5)
    evaluate(model, utterances, batch_s=1.0, recognise=oracle, progress=False)
    assert oracle.batches == [[0, 1, 2], [3], [4]]
    oracle = Oracle([""] * 5)
    evaluate(model, utterances, batch_s=0.01, recognise=oracle, progress=False)
    assert oracle.batches == [[0], [1], [2], [3], [4]], "one longer than the batch goes alone"


def test_times_add_up(model: Recognizer, utterances: list[Utterance]) -> None:
    found = evaluate(model, utterances, recognise=Oracle([""] * 5), progress=False)
    assert found.audio_s == pytest.approx(2.0)
    assert 0 < found.compute_s <= found.wall_s
    assert found.real_time_factor == pytest.approx(found.compute_s / 2.0)


def test_an_unreadable_recording_is_a_failure_not_an_error(model: Recognizer, utterances: list[Utterance]) -> None:
    broken = [*utterances, Utterance("gone", Path("/nowhere/gone.wav"), 0.3, "lost words", "c")]
    found = evaluate(model, broken, recognise=Oracle(["one two", "", "", "", ""]), progress=False)
    assert [failure.id for failure in found.failures] == ["gone"]
    assert "gone.wav" in found.failures[0].message
    assert len(found.utterances) == 5
    assert found.rate.counts.reference == 10, "its words are not counted"
    assert "1 of 6 utterances" in found.notes[0]


def test_a_disk_that_cannot_be_read_is_a_failure_too(
    model: Recognizer, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(utterance: Utterance, sample_rate: int) -> NDArray[np.float32]:
        if utterance.id == "u2":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(utterance.audio))
        return load_utterance(utterance, sample_rate)

    monkeypatch.setattr("wavasr.evaluation.evaluate.load_utterance", load)
    found = evaluate(model, utterances, recognise=Oracle(["one two", "three", "", "", ""]), progress=False)
    assert [failure.id for failure in found.failures] == ["u2"] and "Input/output error" in found.failures[0].message
    assert len(found.utterances) == 4


def test_one_refused_waveform_does_not_take_its_batch_along(model: Recognizer, utterances: list[Utterance]) -> None:
    oracle = Oracle(["one two", "three", "", "", ""])

    def refuse(waveforms: Sequence[NDArray[np.float32]]) -> list[Recognised]:
        if any(len(w) == int(0.4 * RATE) for w in waveforms):
            raise AudioError("u2.wav: too odd")
        return oracle(waveforms)

    found = evaluate(model, utterances, recognise=refuse, progress=False)
    assert [(f.id, f.message) for f in found.failures] == [("u2", "u2.wav: too odd")]
    assert [u.hypothesis for u in found.utterances] == ["one two", "three", "", ""]


def test_nothing_recognised_or_nothing_given_is_an_error(model: Recognizer) -> None:
    with pytest.raises(WavasrError, match=r"none of the 1 utterances.*x\.wav"):
        evaluate(model, [Utterance("x", Path("/nowhere/x.wav"), 1.0, "x")], progress=False)
    with pytest.raises(TextError, match="no utterances"):
        evaluate(model, [])


def test_silence_and_foreign_symbols_are_noted(model: Recognizer, utterances: list[Utterance]) -> None:
    foreign = [replace(utterances[0], text="één 2"), *utterances[1:]]
    found = evaluate(model, foreign, recognise=Oracle([""] * 5), progress=False)
    assert any("all blanks" in note for note in found.notes)
    assert any("cannot output (first: u0)" in note for note in found.notes)
    assert found.utterances[0].reference == "één 2", "scored as it is, not dropped"


def test_the_network_gives_the_same_in_any_batch(model: Recognizer, utterances: list[Utterance]) -> None:
    together = evaluate(model, utterances, decoder=NOISE, progress=False)
    alone = evaluate(model, utterances, decoder=NOISE, batch_s=0.01, progress=False)
    assert [u.hypothesis for u in together.utterances] == [u.hypothesis for u in alone.utterances]
    assert any(u.hypothesis for u in together.utterances), "an untrained network says something, or this tests nothing"
    for utterance in utterances:
        samples = torch.from_numpy(soundfile.read(utterance.audio, dtype="float32")[0])
        log_probs, _ = model(samples[None], torch.tensor([len(samples)]))
        text = model.units.decode(greedy(log_probs[0]).ids)
        assert text.split() == next(u for u in together.utterances if u.id == utterance.id).hypothesis.split()


def test_the_texts_are_those_of_transcribe(model: Recognizer, utterances: list[Utterance]) -> None:
    for beam in (0, 4):
        decoder = DecodingConfig(beam=beam, vad=False)
        found = evaluate(model, utterances, decoder=decoder, progress=False)
        for utterance, said in zip(utterances, found.utterances, strict=True):
            transcript = transcribe(utterance.audio, model, decoder=decoder)
            assert said.hypothesis == transcript.text
            assert said.confidence == pytest.approx(transcript.confidence, abs=1e-4)
        assert found.provenance.decoder == ("beam of 4" if beam else "greedy")


def test_part_of_a_recording_is_read(model: Recognizer, utterances: list[Utterance]) -> None:
    lengths = []

    def measure(waveforms: Sequence[NDArray[np.float32]]) -> list[Recognised]:
        lengths.extend(len(w) for w in waveforms)
        return [Recognised("")] * len(waveforms)

    evaluate(model, [replace(utterances[4], offset_s=0.1, duration_s=0.25)], recognise=measure, progress=False)
    assert lengths == [round(0.25 * RATE)]


@pytest.mark.parametrize(
    ("symbols", "phone_set", "reference", "hypothesis", "counts", "name"),
    [
        (["sil", "sh", "ix", "ax"], 39, "h# sh ix q h#", "sil sh ax sil", ErrorCounts(1, 0, 0, 4), "TIMIT 39 phones"),
        (["sil", "sh", "ix", "ax"], 48, "h# sh ix q h#", "sil sh ix", ErrorCounts(0, 0, 1, 4), "TIMIT 48 phones"),
        (["AA", "K", "S"], 39, "K AA S", "K S", ErrorCounts(0, 0, 1, 3), "the model's own phones"),
    ],
)
def test_phones_are_folded_and_the_set_named(
    utterances: list[Utterance],
    symbols: list[str],
    phone_set: PhoneSet,
    reference: str,
    hypothesis: str,
    counts: ErrorCounts,
    name: str,
) -> None:
    model = tiny(Units.phones(symbols), TextConfig())
    said = [replace(utterances[0], text=reference)]
    found = evaluate(model, said, phone_set=phone_set, recognise=Oracle([hypothesis]), progress=False)
    assert (found.metric, found.phone_set, found.rate.counts) == ("per", name, counts)
    assert found.character_rate is None
    assert found.utterances[0].character_counts is None


def test_a_reference_that_is_no_phone_names_its_utterance(utterances: list[Utterance]) -> None:
    model = tiny(Units.phones(["sil", "sh"]))
    with pytest.raises(TextError, match="utterance u0"):
        evaluate(model, [replace(utterances[0], text="sh nonsense")], recognise=Oracle(["sh"]), progress=False)


def test_folded_phones_cannot_be_scored_on_61(utterances: list[Utterance]) -> None:
    with pytest.raises(ConfigError, match="score on 48 or 39"):
        evaluate(tiny(Units.phones(["sil", "sh"])), utterances, phone_set=61, recognise=Oracle([""]), progress=False)


def test_provenance_says_how_to_get_the_figures_again(
    model: Recognizer, utterances: list[Utterance], tmp_path: Path
) -> None:
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("{}\n", encoding="utf-8")
    found = evaluate(
        model,
        utterances,
        recognise=Oracle([""] * 5),
        model_name="m.wavasr",
        manifest=manifest,
        command="wavasr evaluate",
        progress=False,
    ).provenance
    assert (found.model, found.command, found.decoder, found.device) == ("m.wavasr", "wavasr evaluate", "greedy", "cpu")
    assert found.manifest_sha256 == file_sha256(manifest) and len(found.manifest_sha256) == 64
    assert found.model_sha256 == weights_sha256(model)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.units == "28 characters and the blank"
    assert {"wavasr", "python", "torch", "jiwer"} <= found.versions.keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", found.date)
    assert re.search(r", (1 core|[1-9]\d* cores), ", machine())


def test_the_fingerprint_follows_the_weights(model: Recognizer) -> None:
    before = weights_sha256(model)
    assert before == weights_sha256(tiny(model.units))
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert weights_sha256(model) != before
    assert len(weights_sha256(model.bfloat16())) == 64


def test_progress_goes_to_stderr(
    model: Recognizer, utterances: list[Utterance], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(model, utterances, recognise=Oracle([""] * 5))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "evaluate: 100%" in captured.err


def test_only_empty_references_have_no_rate(utterances: list[Utterance]) -> None:
    units = Units.characters(["abc"])
    silent = score(utterances[2], "a b", units=units, text=TextConfig())
    found = assemble([silent])
    assert found.rate.counts == ErrorCounts(0, 2, 0, 0)
    assert found.rate.ci95 is None


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["one two", "three", "two three", "one two three four"] * 3, order=2), path)
    return path


def test_greedy_beside_the_language_model_is_what_greedy_gives(
    model: Recognizer, utterances: list[Utterance], lm: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long.wav"  # more than one stretch and one window
    soundfile.write(long, 0.1 * np.random.default_rng(1).standard_normal(RATE * 35), RATE)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    said = [*utterances, Utterance("long", long, 35.0, "one"), Utterance("silent", silent, 1.0, "")]
    with_lm = evaluate(model, said, decoder=DecodingConfig(vad=False, beam=4, lm=lm), progress=False)
    plain = evaluate(model, said, decoder=NOISE, progress=False)
    assert [u.greedy for u in with_lm.utterances] == [u.hypothesis for u in plain.utterances]
    assert [u.greedy_counts for u in with_lm.utterances] == [u.counts for u in plain.utterances]
    assert with_lm.greedy_rate == plain.rate
    assert plain.greedy_rate is None and plain.utterances[0].greedy is None
    recognise = model_recogniser(model, DecodingConfig(vad=False, beam=4, lm=lm))
    waveforms = [load_audio(u.audio, RATE) for u in said]
    assert [u.hypothesis for u in with_lm.utterances] == [found.text for found in recognise(waveforms)]


def test_what_the_word_list_knows(model: Recognizer, utterances: list[Utterance], lm: Path, tmp_path: Path) -> None:
    found = evaluate(model, utterances, decoder=DecodingConfig(vad=False, beam=4, lm=lm), progress=False).vocabulary
    assert found is not None
    assert (found.source, found.size) == ("language model lm.arpa", 4)
    assert found.missing == ("eight", "five", "nine", "seven", "six", "ten")
    lines = [line.split("\t") for line in lm.read_text(encoding="utf-8").split("\\2-grams")[0].splitlines()]
    log10 = {line[1]: float(line[0]) for line in lines if len(line) > 1}
    assert found.per_million.keys() == {"one", "two", "three", "four"}
    for word, per_million in found.per_million.items():
        assert per_million == pytest.approx(1e6 * 10 ** log10[word], rel=1e-5)

    words = tmp_path / "words.txt"
    words.write_text("one\nfive\nsix\n", encoding="utf-8")
    found = evaluate(
        model, utterances, decoder=DecodingConfig(vad=False, beam=4, lexicon=words), progress=False
    ).vocabulary
    assert found == Vocabulary("lexicon words.txt", 3, ("eight", "four", "nine", "seven", "ten", "three", "two"))
    both = DecodingConfig(vad=False, beam=4, lexicon=words, lm=lm)
    found = evaluate(model, utterances, decoder=both, progress=False).vocabulary
    assert found is not None and found.per_million.keys() == {"one"}, "the language model does not know the others"
    hotwords = DecodingConfig(vad=False, beam=4, hotwords=("five",))
    assert evaluate(model, utterances, decoder=hotwords, progress=False).vocabulary is None, "any word can be spelled"
    assert evaluate(model, utterances, decoder=NOISE, progress=False).vocabulary is None


def test_a_model_of_words_knows_its_own(utterances: list[Utterance]) -> None:
    found = evaluate(tiny(Units.words_of(["one two three"])), utterances[:2], progress=False).vocabulary
    assert found == Vocabulary("the model's words", 3)


def test_utterances_that_fail_are_not_in_the_vocabulary(
    model: Recognizer, utterances: list[Utterance], lm: Path
) -> None:
    lost = replace(utterances[4], audio=utterances[4].audio.with_name("lost.wav"))
    found = evaluate(model, [utterances[0], lost], decoder=DecodingConfig(vad=False, beam=4, lm=lm), progress=False)
    assert len(found.failures) == 1
    assert found.vocabulary is not None and found.vocabulary.missing == ()


def test_phones_with_a_lexicon_have_no_greedy_words(utterances: list[Utterance], tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("one  W AH N\ntwo  T UW\n", encoding="utf-8")
    phones = tiny(Units.phones(["w", "ah", "n", "t", "uw"]))
    found = evaluate(phones, utterances[:2], decoder=DecodingConfig(lexicon=lexicon, vad=False), progress=False)
    assert found.metric == "wer" and found.greedy_rate is None
    assert found.vocabulary == Vocabulary("lexicon lexicon.txt", 2, ("three",))
