"""`wavasr align`: times that agree with the network's output, tiers that Praat reads, mistakes that are one line."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import wavasr
from wavasr import cli
from wavasr.decoding.times import Word, forced_align
from wavasr.errors import TextError
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import TIMIT_39
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.recognizer import Recognizer, load_model, save_model
from wavasr.recognition.align import AlignedText, align, labels_of
from wavasr.recognition.formats import render
from wavasr.recognition.models import load_acoustic_model

ROOT = Path(__file__).resolve().parents[2]


def tiers_of(textgrid: str) -> dict[str, list[tuple[float, float, str]]]:
    """A reader of its own, and of the rule that intervals cover the recording without gaps."""
    end = float(re.search(r"^xmax = (\S+)$", textgrid, re.MULTILINE)[1])  # type: ignore[index]
    head, *items = re.split(r"^    item \[\d+\]:\n", textgrid, flags=re.MULTILINE)
    assert int(re.search(r"^size = (\d+)$", head, re.MULTILINE)[1]) == len(items)  # type: ignore[index]
    found = {}
    for item in items:
        name = re.search(r'name = "(.*)"', item)[1]  # type: ignore[index]
        intervals = re.findall(r'xmin = (\S+)\n +xmax = (\S+)\n +text = "(.*)"', item)
        rows = [(float(first), float(last), text) for first, last, text in intervals]
        assert int(re.search(r"intervals: size = (\d+)", item)[1]) == len(rows)  # type: ignore[index]
        assert rows[0][0] == 0.0 and rows[-1][1] == end
        assert all(before[1] == after[0] for before, after in pairwise(rows))
        found[name] = rows
    return found


def test_times_are_those_of_the_best_path(tiny_model: Path, speech: Path) -> None:
    found = align(speech, "Quick, FOX!", tiny_model)
    model = load_acoustic_model(tiny_model)
    waveform, rate = soundfile.read(speech, dtype="float32")
    log_probs = model.infer(waveform[None], np.array([len(waveform)]))[0][0]
    spans = forced_align(log_probs, model.units.encode("quick fox"))
    frame_s = model.hop_samples / rate
    assert (found.text, found.duration_s, found.unit_kind) == ("quick fox", 0.5, "characters")
    assert [word.word for word in found.words] == ["quick", "fox"]
    assert [word.start_s for word in found.words] == pytest.approx([spans[0][0] * frame_s, spans[6][0] * frame_s])
    means = [sum(mean for _, _, mean in part) / len(part) for part in (spans[:5], spans[6:])]
    assert [word.confidence for word in found.words] == pytest.approx(means, abs=1e-5)
    assert found.confidence == pytest.approx(sum(means) / 2, abs=1e-5)
    assert "".join(unit.word for unit in found.units) == "quickfox"
    for unit, following in pairwise(found.units):
        assert 0 <= unit.start_s < unit.end_s <= following.start_s
    assert [found.units[4].end_s, found.units[7].end_s] == [word.end_s for word in found.words]


def test_the_package_offers_it(tiny_model: Path, speech: Path) -> None:
    by_name = wavasr.align(speech, "fox", model=tiny_model)
    assert by_name.words == align(speech.read_bytes(), "fox", load_acoustic_model(tiny_model)).words
    assert (by_name.file, by_name.model) == (str(speech), str(tiny_model))


def test_a_long_recording_is_aligned_as_one(tiny_model: Path, tmp_path: Path) -> None:
    """Longer than a window of the network and than the pieces that are read."""
    waveform = 0.1 * np.random.default_rng(1).standard_normal(16000 * 45).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", waveform, 16000, subtype="FLOAT")
    text = "the quick brown fox jumps over the lazy dog " * 20
    model = load_model(tiny_model)
    with torch.no_grad():
        model.output.weight *= 50.0  # so that no two paths are nearly as probable as each other
    found = align(tmp_path / "long.wav", text, model)
    with torch.inference_mode():
        log_probs = model(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))[0][0]
    ids = model.units.encode(text)
    starts = [start for start, _, _ in forced_align(log_probs, ids)]
    frame_s = model.hop_samples / 16000
    expected = [starts[first] * frame_s for _, first, _ in model.units.words(ids)]
    assert [word.start_s for word in found.words] == pytest.approx(expected)


def test_textgrid_has_a_tier_of_words_and_one_of_units(tiny_model: Path, speech: Path) -> None:
    found = align(speech, "the fox", tiny_model)
    tiers = tiers_of(render([found], "textgrid"))
    assert list(tiers) == ["words", "characters"]
    assert [text for _, _, text in tiers["words"] if text] == ["the", "fox"]
    assert [text for _, _, text in tiers["characters"] if text] == list("thefox")
    spoken = [(start, end) for start, end, text in tiers["words"] if text]
    assert spoken == [pytest.approx((word.start_s, word.end_s)) for word in found.words]


def test_units_that_are_words_have_one_tier() -> None:
    words = (Word("yes", 0.1, 0.4, 0.9),)
    found = AlignedText("a.wav", 1.0, "yes", 0.9, words, "m", units=words, unit_kind="words")
    assert list(tiers_of(render([found], "textgrid"))) == ["words"]


@pytest.fixture(scope="module")
def phone_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    stages = (StageConfig(channels=8, window=32, stride=16, pool=10), StageConfig(channels=8, dilations=(1,)))
    encoder = EncoderConfig(stages=stages, init="random")
    path = tmp_path_factory.mktemp("phones") / "phones.wavasr"
    save_model(Recognizer(encoder, Units.phones(TIMIT_39), TextConfig()), path)
    return path


def test_phones_are_folded_and_aligned(phone_model: Path, speech: Path) -> None:
    found = align(speech, "h# sh ix q hv ae h#", phone_model)
    assert found.text == "sil sh ih hh ae sil"
    assert [word.word for word in found.words] == found.text.split()
    assert list(tiers_of(render([found], "textgrid"))) == ["phones"]


def test_what_cannot_be_aligned_is_named(tiny_model: Path, phone_model: Path, speech: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet.wav"
    soundfile.write(quiet, np.zeros(8000), 16000)
    short = re.escape(str(speech))
    for text, model, message in (
        ("", tiny_model, f"{short}: there is nothing to say in the text ''"),
        (" ?! ", tiny_model, f"{short}: there is nothing to say"),
        ("fox 7; fox", tiny_model, r"'7' \(U\+0037 DIGIT SEVEN\) not in the inventory of 27 characters; write the"),
        ("fox " * 30, tiny_model, r"takes at least 2\.38 s and the recording has 0\.50 s; check"),
        ("sh xx", phone_model, f"{short}: .*xx"),
    ):
        with pytest.raises(TextError, match=message) as caught:
            align(speech, text, model)
        assert "\n" not in str(caught.value) and "out_of_inventory" not in str(caught.value)
    with pytest.raises(TextError, match="is silent"):
        align(quiet, "fox", tiny_model)
    with pytest.raises(TextError, match="is silent"):
        align(np.zeros(0, np.float32), "fox", tiny_model, sample_rate=16000)


def test_labels_follow_the_models_own_normalisation() -> None:
    units = Units.characters(["DONE THREE"])
    config = TextConfig(case="upper", digits="spell", strip_symbols="+")
    assert labels_of("d+one, 3", units, config) == units.encode("DONE THREE")


def run(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "wavasr", "align", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT, timeout=300)


def test_command_line_in_a_process(tiny_model: Path, speech: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\ufeffThe quick\nfox.\n", encoding="utf-8")
    output = tmp_path / "made" / "fox.json"
    done = run("-", "--text-file", text, "--model", tiny_model, "--output", output, stdin=speech.read_bytes())
    assert (done.returncode, done.stderr, done.stdout.decode().strip()) == (0, b"", str(output))
    values = json.loads(output.read_text(encoding="utf-8"))
    keys = ["file", "duration_s", "text", "confidence", "segments", "words", "model", "unit_kind", "units"]
    assert (list(values), values["file"], values["text"]) == (keys, "-", "the quick fox")
    assert list(values["words"][0]) == ["word", "start_s", "end_s", "confidence"]
    assert list(values["units"][0]) == ["unit", "start_s", "end_s", "confidence"]
    assert "".join(unit["unit"] for unit in values["units"]) == "thequickfox"


def test_command_line_formats(
    tiny_model: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["align", str(speech), "--text", "the fox", "--model", str(tiny_model)]
    assert cli.main([*base, "--format", "ctm"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[1], row[4]) for row in rows] == [("speech", "1", "the"), ("speech", "1", "fox")]
    assert cli.main(base) == 0
    assert set(tiers_of(capsys.readouterr().out)) == {"words", "characters"}
    assert cli.main([*base, "--output", str(tmp_path / "a.CTM")]) == 0
    assert (tmp_path / "a.CTM").read_text(encoding="utf-8").startswith("speech 1 ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --text --text-file --manifest is required"),
        (["--text", "a", "--text-file", "b"], "not allowed with"),
        (["--text", "fox", "--format", "srt"], "unknown name 'srt'"),
        (["--text", "fox 7"], "'7'"),
        (["--text", ""], "there is nothing to say"),
        (["--text", "fox " * 99], "check that they belong together"),
        (["--text-file", "missing.txt"], "missing.txt"),
        (["--text-file", "bytes.txt"], "not UTF-8"),
        (["--text", "fox", "--output", "."], "."),
        (["--text", "fox", "--model", "none"], "no such model file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tiny_model: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9")
    model = [] if "--model" in arguments else ["--model", str(tiny_model)]
    assert cli.main(["align", str(speech), *arguments, *model]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_recordings_that_are_none(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    for name in ("missing.wav", "empty.wav", "."):
        assert cli.main(["align", str(tmp_path / name), "--text", "fox", "--model", str(tiny_model)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
