"""Words aligned by a model of phones: pronunciations that the recording chooses, manifests of phones with times."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from wavasr import cli
from wavasr.corpora.manifest import SILENCE, read_manifest
from wavasr.decoding.config import NOTHING
from wavasr.decoding.times import Word, forced_align
from wavasr.decoding.trellis import ctc_log_probs
from wavasr.decoding.wordlist import read_out
from wavasr.errors import TextError
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import Lexicon
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.files import change_model, language_of
from wavasr.network.recognizer import Recognizer, save_model
from wavasr.recognition.align import Spoken, align, as_written, chosen, lexicon_of, pronounced, with_silences
from wavasr.recognition.models import load_acoustic_model

LEXICON = "the  DH AH\nthe(2)  DH IY\nend  EH N D\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A random model of phones with a lexicon."""
    torch.manual_seed(1)
    encoder = EncoderConfig(
        preset="custom", stages=(StageConfig(channels=8, window=320, stride=160, dilations=(1, 2)),)
    )
    recognizer = Recognizer(encoder, Units.phones(["DH", "AH", "IY", "EH", "N", "D"]), TextConfig())
    path = tmp_path / "m" / "phones.wavasr"
    save_model(recognizer, path)
    change_model(path, language={"lexicon.txt": LEXICON.encode()})
    return path


def test_the_recording_chooses_the_best_of_all_pronunciations() -> None:
    """On clear output, one word at a time finds what trying every combination finds."""
    rng = np.random.default_rng(5)
    words = [Spoken("the", ((1, 2), (1, 3))), Spoken("end", ((4, 5, 6),)), Spoken("a", ((2,), (4, 3)))]
    for said in itertools.product(*(word.pronunciations for word in words)):
        path = [label for ids in said for label in ids for _ in range(3)]
        scores = rng.normal(size=(len(path), 7)) + 6 * np.eye(7)[path]
        log_probs = (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)
        every = list(itertools.product(*(word.pronunciations for word in words)))
        best = max(every, key=lambda one: ctc_log_probs(log_probs, [sum(one, ())])[0])
        assert [word.pronunciations[0] for word in chosen(log_probs, words)] == list(best) == list(said)


def test_a_choice_that_does_not_fit_is_not_made() -> None:
    log_probs = np.log(np.full((3, 4), 0.25, np.float32))
    words = [Spoken("a", ((1,), (2, 3, 2))), Spoken("b", ((3,),))]
    said = [word.pronunciations[0] for word in chosen(log_probs, words)]
    assert len(forced_align(log_probs, [label for ids in said for label in ids])) == sum(map(len, said))


def test_silences_are_gaps_of_forty_milliseconds() -> None:
    times = [("a", 0.03, 0.2), ("b", 0.22, 0.5), ("c", 0.6, 0.9)]
    found = list(with_silences([Word(p, start, end, 1.0) for p, start, end in times], 1.0))
    assert found == [
        ("a", 0.03, 0.22), ("b", 0.22, 0.5), (SILENCE, 0.5, 0.6), ("c", 0.6, 0.9), (SILENCE, 0.9, 1.0)
    ]  # fmt: skip
    assert list(with_silences([], 1.0)) == [(SILENCE, 0.0, 1.0)]


def test_words_are_aligned_through_their_phones(model: Path, speech: Path) -> None:
    found = align(speech, "The END!", model)
    assert (found.text, found.unit_kind) == ("the end", "phones")
    assert [word.word for word in found.words] == ["the", "end"]
    phones = [unit.word for unit in found.units]
    assert phones[:1] + phones[2:] == ["DH", "EH", "N", "D"] and phones[1] in ("AH", "IY")
    assert list(found.tiers) == ["words", "phones"]
    assert found.words[0].start_s == found.units[0].start_s and found.words[1].start_s == found.units[2].start_s
    only = Lexicon({"the": (("DH", "IY"),), "end": (("EH", "N", "D"),)})
    assert align(speech, "the end", model, lexicon=only).units[1].word == "IY"
    assert [word.word for word in align(speech, "DH EH", model, lexicon=NOTHING).words] == ["DH", "EH"]
    with pytest.raises(TextError, match="'beginning' not in the lexicon; add how it is pronounced"):
        align(speech, "the beginning", model)


def test_the_lexicon_is_read_once(model: Path, speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    real = Lexicon.read
    monkeypatch.setattr(Lexicon, "read", lambda path: reads.append(path) or real(path))
    for _ in range(3):
        first = align(speech, "the end", model)
    lexicon = language_of(model).lexicon
    assert reads == [lexicon]
    other = LEXICON.replace("DH IY", "IY DH").replace("DH AH", "AH DH")
    change_model(model, language={"lexicon.txt": other.encode()})
    assert align(speech, "the end", model).units[0].word != first.units[0].word == "DH"
    assert reads == [lexicon] * 2


def test_a_manifest_of_phones_is_made(
    model: Path,
    speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest, output = tmp_path / "words.jsonl", tmp_path / "phones.jsonl"
    line = '{{"id": "{}", "audio_filepath": "{}", "duration": 0.5, "text": "{}"}}\n'
    texts = {"1": "The end.", "2": "The beginning"}
    manifest.write_text(
        "".join(line.format(name, speech.as_posix(), text) for name, text in texts.items()).replace(
            '"duration": 0.5, "text": "The b', '"offset": 0.1, "duration": 0.4, "text": "The b'
        ),
        encoding="utf-8",
    )
    assert cli.main(["align", "--manifest", str(manifest), "--model", str(model), "--output", str(output)]) == 0
    assert "1 of 2 utterances aligned" in capsys.readouterr().out
    assert "2: the text: 'beginning' not in the lexicon" in caplog.text
    [found] = read_manifest(output)
    aligned = align(speech, "the end", model)
    assert found.text.split() == [unit.word for unit in aligned.units]
    assert dataclasses.replace(found, text="", alignment=()) == dataclasses.replace(read_manifest(manifest)[0], text="")
    starts = {span.start_s for span in found.alignment if span.phone != SILENCE}
    assert starts == {round(unit.start_s, 3) for unit in aligned.units}


def test_before_there_is_a_model_words_become_their_first_pronunciations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    manifest, output, lexicon = tmp_path / "words.jsonl", tmp_path / "phones.jsonl", tmp_path / "lexicon.txt"
    lexicon.write_text(LEXICON + "four  F AO R\n", encoding="utf-8")
    line = '{{"id": "{}", "audio_filepath": "gone.wav", "duration": 0.5, "text": "{}"}}\n'
    texts = {"1": "The end, the 4!", "2": "The beginning", "3": "..."}
    manifest.write_text("".join(line.format(name, text) for name, text in texts.items()), encoding="utf-8")
    arguments = ["align", "--manifest", str(manifest), "--model", "none", "--output", str(output)]
    assert cli.main([*arguments, "--lexicon", str(lexicon)]) == 0
    assert "1 of 3 utterances pronounced" in capsys.readouterr().out
    assert "2: 'beginning' is not in the lexicon; 3: no words" in caplog.text
    [found] = read_manifest(output)
    assert (found.text, found.alignment) == ("DH AH EH N D DH AH F AO R", ())
    assert cli.main([*arguments, "--lexicon", str(tmp_path / "no.txt")]) == 2
    assert "no.txt" in capsys.readouterr().err


def test_before_there_is_a_model_the_shipped_lexicon_serves(tmp_path: Path) -> None:
    manifest, output = tmp_path / "words.jsonl", tmp_path / "phones.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "duration": 1, "text": "Speech"}\n', encoding="utf-8")
    assert cli.main(["align", "--manifest", str(manifest), "--model", "none", "--output", str(output)]) == 0
    assert read_manifest(output)[0].text == "S P IY CH"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav", "--manifest", "m.jsonl"], "expected FILE with --text or --text-file, or --manifest"),
        (["--text", "a"], "expected FILE with --text"),
        (["--manifest", "m.jsonl"], "--manifest needs --output"),
        (["--manifest", "none.jsonl", "--output", "o.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(["align", *arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    error = capsys.readouterr().err
    assert code == 2 and message in error and "Traceback" not in error


def test_numbers_and_abbreviations_are_read_out() -> None:
    """Only of English, which a lexicon of its common words tells."""
    model = load_acoustic_model("default")
    lexicon = lexicon_of(model)
    assert lexicon is not None
    said = [word.text for word in pronounced("On the 23rd Dr. Lee had 2 dogs", model, lexicon)]
    assert said == "on the twenty third doctor lee had two dogs".split()
    few = Lexicon({"lee": lexicon["lee"]})
    with pytest.raises(TextError, match="'2' not in the lexicon"):
        pronounced("Lee 2", model, few)


def test_what_was_read_out_is_shown_as_it_is_written() -> None:
    known = Lexicon({word: [("AH",)] for word in ("twenty", "doctor", "the")})

    def shown(text: str) -> list[tuple[str, float, float]]:
        said = [Word(word, at, at + 1, 1.0) for at, word in enumerate(read_out(text, TextConfig(), known))]
        return [(word.word, word.start_s, word.end_s) for word in as_written(text, said, TextConfig(), known)]

    assert shown("Dr. Lee met the 23rd - really!") == [
        *(("Dr.", 0, 1), ("lee", 1, 2), ("met", 2, 3), ("the", 3, 4), ("23rd", 4, 6), ("really", 6, 7))
    ]
    assert " ".join(word for word, *_ in shown("On May 3, 1999 it cost $2.50")) == "on may 3, 1999 it cost $2.50"
    assert shown("42") == [("42", 0, 2)]
    assert shown("the old man, walked") == [(word, at, at + 1) for at, word in enumerate("the old man walked".split())]
