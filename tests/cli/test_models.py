"""`wavasr export` and `wavasr info`: one file that carries everything, and what it says of itself."""

import json
from pathlib import Path

import pytest

from wavasr import cli
from wavasr.archive import members_of
from wavasr.decoding.confidence import KEY, ConfidenceMap
from wavasr.language.arpa import write_arpa
from wavasr.language.ngrams import estimate
from wavasr.network.files import change_model, language_of, read_header


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mine.wavasr"
    maps = {name: ConfidenceMap(1.0, 0.5).to_dict() for name in ("ctc", "lm")}
    sources = {"data": {"sources": ["tones (nobody; CC0)"]}}
    change_model(tiny_model, path, metadata={KEY: maps, "config": sources, "note": "Über ∑"})
    return path


@pytest.fixture
def words(tmp_path: Path) -> tuple[Path, Path]:
    lexicon, lm = tmp_path / "words.txt", tmp_path / "lm.arpa"
    lexicon.write_text("fox\nthe\ndog\n", encoding="utf-8")
    write_arpa(estimate(["the fox", "the lazy dog"], order=2), lm)
    return lexicon, lm


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_a_model_with_other_words(
    model: Path, words: tuple[Path, Path], speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lexicon, lm = words
    output = tmp_path / "elsewhere" / "new.wavasr"
    options = ["--lexicon", lexicon, "--lm", lm, "--lm-weight", 0.7, "--word-score", 1.5]
    assert run("export", model, *options, "--attribution", "words: mine (CC BY 4.0)", "-o", output) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert run("transcribe", speech, "--no-vad", "--model", model, *options) == 0
    expected = capsys.readouterr().out
    lexicon.unlink()
    lm.unlink()
    assert run("transcribe", speech, "--no-vad", "--model", output) == 0
    assert capsys.readouterr().out == expected != ""
    language = language_of(output)
    assert language.weights == {"lm_weight": 0.7, "word_score": 1.5} and not language.lm_words_only
    metadata = read_header(output)["metadata"]
    assert metadata[KEY].keys() == {"ctc"}, "other words, other confidences"
    before, after = (
        {name: member.read_bytes() for name, member in members_of(path).items()} for path in (model, output)
    )
    assert all(after[name] == content for name, content in before.items() if name != "model.json")

    assert run("info", output) == 0
    said = capsys.readouterr().out
    for line in ("trained on   tones (nobody; CC0)", "attribution  words: mine (CC BY 4.0)", "note         Über ∑"):
        assert line in said.splitlines()
    assert run("export", output, "--lm", "none", "--lexicon", "none", "-o", output) == 0
    assert language_of(output).lexicon is language_of(output).lm is None
    assert read_header(output)["metadata"]["attribution"] == ["words: mine (CC BY 4.0)"]


def test_info_says_what_follows(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", model, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == model.stat().st_size and facts["members"].keys() == members_of(model).keys()
    assert facts["frame_ms"] == 20.0
    # Stages of 1 and 10 ms a frame, of 3 taps at dilations of 1 and 2; the first also sees 32 samples at a time.
    assert facts["look_ahead_ms"] == pytest.approx(3 * 1 + 3 * 10, abs=10)
    total = facts["left_context_ms"] + facts["frame_ms"] + facts["look_ahead_ms"]
    assert facts["receptive_field_ms"] == pytest.approx(total, abs=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lm", "none.arpa", "-o", "x.wavasr"], "none.arpa: no such file"),
        (["--lexicon", "model", "-o", "x.wavasr"], "this model carries no such file"),
        (["--lm", "bad.arpa", "-o", "x.wavasr"], "bad.arpa"),
        (["--lm", "none", "-o", "x.onnx"], "a graph carries no words; give a name in .wavasr"),
        (["-o", "x.pb"], "expected a name in .onnx (a graph) or .wavasr (a model file)"),
        (["--int8", "-o", "x.wavasr"], "expected a name in .onnx"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_exported(
    options: list[str],
    message: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.arpa").write_text("\\data\\\nnothing", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    assert run("export", model, *[model if option == "model" else option for option in options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
