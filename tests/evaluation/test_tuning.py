"""Tuning on a constructed case; and the commands with a language model, from files to JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from wavasr.cli import main
from wavasr.corpora.manifest import Utterance
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.factory import lm_decoder
from wavasr.evaluation.metrics import ErrorCounts
from wavasr.evaluation.tuning import BLANK_PENALTIES, LM_WEIGHTS, Trial, Tuning, chosen, table, tune
from wavasr.language.arpa import write_arpa
from wavasr.language.config import TextConfig
from wavasr.language.ngrams import estimate
from wavasr.language.text import Units
from wavasr.language.weights import Weights
from wavasr.network.files import read_header

pytestmark = pytest.mark.usefixtures("noise_is_speech")

LETTERS = Units.characters(["abcdefghijklm nopqrstuvwxyz"])
RATE = 1600
HOP = 80


class Prepared:
    """An acoustic model whose log-probabilities are chosen by the loudness of a recording."""

    units = LETTERS
    text = TextConfig()
    metadata: dict[str, Any] = {}  # noqa: RUF012
    sample_rate, hop_samples, receptive_field = RATE, HOP, (0, 0)

    def __init__(self, answers: list[NDArray[np.float32]]) -> None:
        self.answers = answers

    def infer(self, waveform: NDArray[np.float32], lengths: NDArray[np.int64]) -> tuple[Any, Any]:
        numbers = np.rint(np.abs(waveform).max(axis=1) * 10).astype(int) - 1
        longest = max(len(self.answers[number]) for number in numbers)
        batch = np.zeros((len(numbers), longest, len(LETTERS)), np.float32)
        for row, number in zip(batch, numbers, strict=True):
            row[: len(self.answers[number])] = self.answers[number]
        return batch, np.array([len(self.answers[number]) for number in numbers])

    def facts(self) -> Any:
        raise NotImplementedError


def spoken(text: str, other: str, share: float) -> NDArray[np.float32]:
    """Log-probabilities of `text`, which with `share` sounds like `other` (of the same length)."""
    values = np.full((2 * len(text), len(LETTERS)), 1e-4)
    for place, (letter, second) in enumerate(zip(LETTERS.encode(text), LETTERS.encode(other), strict=True)):
        values[2 * place, letter] += 1 - share
        values[2 * place, second] += share
        values[2 * place + 1, 0] = 1.0
    return np.log(values / values.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def dev(tmp_path: Path) -> list[Utterance]:
    found = []
    for number, text in enumerate(["i see", "i see", "the see"]):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(RATE, 0.1 * (number + 1)), RATE, subtype="FLOAT")
        found.append(Utterance(id=str(number), audio=path, duration_s=1.0, text=text))
    return found


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["i see"] * 20 + ["the sea"] * 20 + ["the", "i", "see the sea"], order=2), path)
    return path


def test_the_better_weight_is_chosen(dev: list[Utterance], lm: Path) -> None:
    # Twice the acoustic model prefers "sea" where the text says "see": without a language model that is wrong. The
    # third text is one that the language model does not expect, but the acoustic model is sure: with too much weight it
    # becomes "the sea".
    model = Prepared([spoken("i see", "i sea", 0.6), spoken("i see", "i sea", 0.6), spoken("the see", "the sea", 0.02)])
    decoder = lm_decoder(DecodingConfig(lm=lm), LETTERS, TextConfig())
    assert decoder is not None
    tuning = tune(model, dev, decoder, progress=False)
    assert tuning.greedy.errors == 2
    assert tuning.best.counts.errors == 0
    errors = {trial.weights: trial.counts.errors for trial in tuning.trials}
    assert len(errors) == len(tuning.trials) >= len(LM_WEIGHTS) * len(BLANK_PENALTIES)
    assert errors[Weights(LM_WEIGHTS[-1], 0.0)] == 1
    assert decoder.with_weights(Weights(0.01, 0.0))(model.answers[0]).text(LETTERS) == "i sea"
    assert f"--lm-weight {tuning.best.weights.lm_weight:g}" in table(tuning)
    values = chosen(tuning)
    assert values["errors"] == 0 and Weights(*(values[name] for name in Weights._fields)) == tuning.best.weights
    best = decoder.with_weights(tuning.best.weights)
    assert [best(values).text(LETTERS) for values in model.answers] == ["i see", "i see", "the see"]


def test_of_equal_trials_the_middle_one_is_chosen() -> None:
    errors = {0.15: 5, 0.3: 4, 0.5: 4, 0.8: 4, 1.2: 4, 1.6: 6}
    trials = tuple(Trial(Weights(weight, 0.0), ErrorCounts(count, 0, 0, 50)) for weight, count in errors.items())
    assert Tuning(trials, ErrorCounts(0, 0, 0, 50)).best.weights == Weights(0.5, 0.0)
    alone = (*trials, Trial(Weights(1.6, 1.0), ErrorCounts(3, 0, 0, 50)))
    assert Tuning(alone, ErrorCounts(0, 0, 0, 50)).best.weights == Weights(1.6, 1.0)


def test_the_commands(
    tmp_path: Path, tiny_model: Path, speech: Path, lm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "dev.jsonl"
    entry = {"audio_filepath": speech.name, "duration": 0.5, "text": "i see"}
    manifest.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    tuned = tmp_path / "tuned.wavasr"
    common = ["--model", str(tiny_model), "--lm", str(lm), "--beam", "20"]
    assert main(["lm", "tune", "--manifest", str(manifest), *common, "-o", str(tuned)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[-1] == str(tuned)
    decoding = read_header(tuned)["decoding"]
    best = [f"--{name.replace('_', '-')} {decoding[name]:g}" for name in Weights._fields]
    assert " ".join(best) in table[-2]
    lm.rename(tmp_path / "moved.arpa")
    assert main(["transcribe", str(speech), "--model", str(tuned), "--beam", "20"]) == 0
    alone = capsys.readouterr().out
    (tmp_path / "moved.arpa").rename(lm)
    assert main(["transcribe", str(speech), *common, *" ".join(best).split()]) == 0
    assert capsys.readouterr().out == alone != ""
    assert main(["lm", "tune", "--manifest", str(manifest), "--model", str(tuned), "--beam", "20"]) == 0
    assert capsys.readouterr().out.splitlines() == [*table[:-1], str(tuned)]

    options = [*common, "--n-best", "3", "--hotword", "big dog", "--hotword", "fox", "--word-score", "4"]
    assert main(["transcribe", str(speech), "--format", "json", *options]) == 0
    transcript = json.loads(capsys.readouterr().out)
    assert set(transcript["text"].split()) <= {"i", "see", "the", "sea", "big", "dog", "fox"}
    assert transcript["alternatives"][0]["text"] == transcript["text"]
    assert 1 < len(transcript["alternatives"]) <= 3
    assert len(transcript["words"]) == len(transcript["text"].split())

    report = tmp_path / "report"
    assert main(["evaluate", "--manifest", str(manifest), "--report", str(report), *options]) == 0
    decoder = json.loads((report / "report.json").read_text(encoding="utf-8"))["provenance"]["decoder"]
    assert decoder.startswith("beam of 20, language model lm.arpa (weight ")
    assert "word score 4" in decoder and "2 hotwords" in decoder
    capsys.readouterr()

    assert main(["transcribe", str(speech), "--model", str(tiny_model)]) == 0
    plain = capsys.readouterr().out
    assert plain.strip()
    assert main(["transcribe", str(speech), "--model", str(tiny_model), "--lm", str(tmp_path / "no.arpa")]) == 2
    assert "no.arpa: no such language model" in capsys.readouterr().err
    for wrong, complaint in [
        (["--model", str(tuned), "--lm", str(tmp_path / "no.arpa")], "no.arpa: no such file"),
        (["--lm", str(lm)], "default: ships with wavasr and is not changed; give --output"),
        (["--model", str(tuned), "--lm", "none"], "carries no language model; give one"),
    ]:
        assert main(["lm", "tune", "--manifest", str(manifest), *wrong]) == 2
        assert complaint in capsys.readouterr().err
    for options, complaint in [
        (["--n-best", "9", "--beam", "3"], "n_best is 9 and beam 3"),
        (["--lm", str(manifest)], "dev.jsonl:1: begins with"),
        (["--lm", str(lm), "--lm-weight", "-1"], "lm_weight is -1.0"),
        (["--lm", str(lm), "--hotword", "привет"], "hotword 'привет'"),
        (["--lexicon", str(tmp_path / "none")], "none: no such lexicon"),
    ]:
        assert main(["transcribe", str(speech), "--model", str(tiny_model), *options]) == 2
        message = capsys.readouterr().err
        assert complaint in message and message.count("\n") == 1


def test_n_best_without_a_language_model(tiny_model: Path, speech: Path) -> None:
    from wavasr.recognition.transcribe import transcribe

    found = transcribe(speech, tiny_model, decoder=DecodingConfig(n_best=4))
    assert len(found.alternatives) == 4
    assert found.alternatives[0].text == found.text
    assert "alternatives" not in replace(found, alternatives=()).to_dict()
