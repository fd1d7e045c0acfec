"""`wavasr transcribe` and `wavasr align` as people call them: folders, flags, names, and the examples of their help."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wavasr.audio.reading import load_audio
from wavasr.cli import main
from wavasr.cli.options import OTHERS_OPTIONS
from wavasr.errors import AudioError
from wavasr.language.arpa import write_arpa
from wavasr.language.ngrams import estimate
from wavasr.recognition.align import align
from wavasr.recognition.transcribe import transcribe

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


@pytest.fixture
def folder(speech: Path, tmp_path: Path) -> Path:
    """Two recordings of one name, and a file that is none."""
    for name in ("a", "b"):
        (tmp_path / "talks" / name).mkdir(parents=True)
        shutil.copy(speech, tmp_path / "talks" / name / "x.wav")
    (tmp_path / "talks" / "notes.txt").write_text("no recording", encoding="utf-8")
    return tmp_path / "talks"


def test_a_folder_stands_for_its_recordings(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["transcribe", str(folder), "-m", str(tiny_model), "-f", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["file"]).relative_to(folder).as_posix() for line in lines] == ["a/x.wav", "b/x.wav"]
    (tmp_path / "empty").mkdir()
    assert main(["transcribe", str(tmp_path / "empty"), "-m", str(tiny_model)]) == 2
    assert "a folder without recordings" in capsys.readouterr().err
    assert main(["transcribe", str(tmp_path / "empty"), str(folder), "-m", str(tiny_model)]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2 and "1 of 3 recordings failed" in said.err


def test_recordings_of_one_name_have_different_names_in_ctm(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", str(folder), "-m", str(tiny_model), "-f", "ctm"]) == 0
    names = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}
    assert names == {"a-x.wav", "b-x.wav"}


def test_what_is_done_is_left_out(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["transcribe", str(folder), "-m", str(tiny_model), "-o", str(tmp_path / "out"), "--skip-existing"]
    assert main(command) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 2
    Path(written[0]).unlink()
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == written[:1]
    assert main([*command[:4], "--skip-existing"]) == 2
    assert "--skip-existing needs --output-dir" in capsys.readouterr().err


def test_names_that_begin_with_a_dash(
    speech: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(speech.parent)
    shutil.copy(speech, "-yes.wav")
    for command in (["--", "-yes.wav"], [speech.name, "--", "-yes.wav"]):
        assert main(["transcribe", "-m", str(tiny_model), "-q", *command]) == 0
        assert len(capsys.readouterr().out.splitlines()) == len(command) - command.index("--") - 1 + command.index("--")
    assert main(["transcribe", "-yes.wav"]) == 2
    assert "unknown argument -yes.wav (the file: ./-yes.wav)" in capsys.readouterr().err
    assert main(["transcribe", "--"]) == 2
    assert "required: FILE" in capsys.readouterr().err


@pytest.mark.parametrize("option", OTHERS_OPTIONS)
def test_options_of_whisper_are_answered_with_ours(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "x.wav", option, "en"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{option} is " in said and "--help" in said


def test_samples_are_a_source(speech: Path, tiny_model: Path) -> None:
    samples, rate = soundfile.read(speech, dtype="int16")
    expected = transcribe(speech, tiny_model)
    assert transcribe(samples, tiny_model, sample_rate=rate).words == expected.words != ()
    floats = load_audio(speech)
    assert transcribe(floats, tiny_model, sample_rate=rate).text == expected.text
    assert transcribe(np.repeat(floats, 3), tiny_model, sample_rate=3 * rate).duration_s == expected.duration_s
    for bad, options in ((floats, {}), (floats, {"sample_rate": 1}), (floats[None], {"sample_rate": rate})):
        with pytest.raises(AudioError):
            transcribe(bad, tiny_model, **options)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="its own sample rate"):
        transcribe(speech, tiny_model, sample_rate=8000)


def test_no_word_ends_after_the_recording(tmp_path: Path) -> None:
    for samples in (33_450, 21_003, 34_231):
        path = tmp_path / "cut.wav"
        soundfile.write(path, load_audio(SAMPLES / "plain-sentence.flac")[:samples], 16000)
        found = transcribe(path)
        assert found.words and max(word.end_s for word in found.words) <= found.duration_s == samples / 16000
        timed = align(path, "the old man walked")
        assert max(word.end_s for word in (*timed.words, *timed.units)) <= timed.duration_s
        for written in (found.to_dict(), timed.to_dict()):  # rounded alike
            ends = [one["end_s"] for one in (*written["words"], *written.get("units", ()))]
            assert max(*ends, written["segments"][-1]["end"]) <= written["duration_s"]


def test_a_recording_that_cannot_be_read_does_not_end_an_alignment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = SAMPLES / "plain-sentence.flac"
    lines = [{"audio_filepath": str(path), "text": "the old man walked slowly"} for path in ("gone.wav", clip)]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps({**line, "duration": 2.4}) + "\n" for line in lines), encoding="utf-8")
    assert main(["align", "--manifest", str(manifest), "--output", str(tmp_path / "out.jsonl")]) == 1
    said = capsys.readouterr()
    assert "1 of 2 utterances aligned" in said.out and "gone.wav: no such file" in said.err
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def examples(command: str) -> list[str]:
    """The lines of a command's help that are examples."""
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        main([command, "--help"])
    text = stream.getvalue().partition("examples:\n")[2]
    return re.findall(rf"wavasr {command} .*", text)


@pytest.mark.parametrize("command", ["transcribe", "align"])
def test_the_examples_of_the_help_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = SAMPLES / "plain-sentence.flac"
    for name in ("interview.mp3", "talk.flac", "talk.wav", "yes.wav", "chapter.flac", "call.wav", "meetings/a.wav"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(clip, name)
    Path("chapter.txt").write_text("the old man walked", encoding="utf-8")
    Path("cmudict.txt").write_text("the  DH AH0\nold  OW1 L D\nman  M AE1 N\n", encoding="utf-8")
    Path("train.jsonl").write_text(
        json.dumps({"audio_filepath": "talk.wav", "text": "the old man", "duration": 2.4}) + "\n", encoding="utf-8"
    )
    Path("phones").mkdir()
    write_arpa(estimate(["the old man walked", "the river"], order=2), Path("lm.arpa"))
    found = examples(command)
    assert len(found) >= 5
    for line in found:
        arguments = shlex.split(line.partition(">")[0])[1:]
        arguments = [
            name for one in arguments for name in (sorted(map(str, Path().glob(one))) if "*" in one else [one])
        ]
        if "-" in arguments:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(clip.read_bytes())))
        assert main(arguments) == 0, (line, capsys.readouterr().err)
        assert capsys.readouterr().out.strip(), line


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's way of closing streams")
@pytest.mark.parametrize(("closed", "code", "said"), [(">&-", 2, "standard output: is closed"), ("2>&-", 2, "")])
def test_closed_streams_end_in_a_line(closed: str, code: int, said: str, speech: Path, tiny_model: Path) -> None:
    file = speech if closed == ">&-" else "gone.wav"
    command = f"{sys.executable} -m wavasr transcribe {file} -m {tiny_model} {closed}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr


def test_worker_processes_and_threads_change_nothing() -> None:
    """The way most users take: the shipped model, searched in workers while the network goes on, on several threads."""
    clips = [str(SAMPLES / name) for name in ("date.flac", "go-left.flac", "stop.flac")]
    command = [sys.executable, "-m", "wavasr", "transcribe", *clips, "--format", "json", "--threads"]
    said = [subprocess.run([*command, threads], capture_output=True, check=True).stdout for threads in ("1", "3")]
    texts = [json.loads(line)["text"] for line in said[1].splitlines()]
    assert texts == ["january twenty third nineteen eighty five", "go left", "stop"]
    assert said[0] == said[1]
