"""The command line: help and mistakes answered at once, results on stdout, exit codes, signals and pipes."""

import functools
import inspect
import io
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wavasr
from wavasr import cli
from wavasr.cli.console import describe_os_error
from wavasr.cli.recordings import FORMATS

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "wavasr"]


def run(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, cwd=ROOT, timeout=120, **kwargs)  # type: ignore[call-overload,no-any-return]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in cli.COMMANDS)
    assert "examples:" in output


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_examples_in_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    captured = capsys.readouterr()
    assert "examples:" in captured.out
    assert f"wavasr {command}" in captured.out.split("examples:")[1]
    assert captured.err == ""
    assert cli.main(["help", command]) == 0
    assert capsys.readouterr().out == captured.out


def test_help_and_mistakes_do_not_load_torch() -> None:
    program = """
import sys
sys.modules["torch"] = None
from wavasr import cli
for name in cli.COMMANDS:
    assert cli.main([name, "--help"]) == 0
assert cli.main(["transcrib"]) == 2
assert cli.main(["transcribe"]) == 2
assert cli.main(["transcribe", "a.wav", "--fromat", "txt"]) == 2
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()


def test_using_a_model_does_not_load_torch(tmp_path: Path) -> None:
    """Its import would take longer than the recognition of minutes of speech."""
    program = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from wavasr import cli
from wavasr.corpora.manifest import Utterance, write_manifest
manifest = Path({str(tmp_path)!r}) / "one.jsonl"
clip = Path("data/samples/go-left.flac")
write_manifest(manifest, [Utterance("one", clip.resolve(), 0.8, "go left")])
assert cli.main(["transcribe", str(clip)]) == 0
assert cli.main(["evaluate", "--manifest", str(manifest)]) == 0
assert cli.main(["align", str(clip), "--text", "go left"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()


def test_help_takes_under_half_a_second() -> None:
    """Computing time, since other processes may keep the machine busy."""

    def seconds() -> float:
        before = os.times()
        assert run("--help").returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"wavasr {wavasr.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["transcrbe"], "did you mean 'transcribe'"),
        (["Fit"], "did you mean 'fit'"),
        (["--halp"], "did you mean '--help'"),
        (["xyzzy"], "see wavasr --help"),
        (["transcribe", "a.wav", "--fromat", "json"], "did you mean '--format'"),
        (["transcribe", "a.wav", "--format", "jsn"], "did you mean 'json'"),
        (["transcribe", "a.wav", "--format", "pdf"], "expected one of txt, json, srt"),
        (["transcribe", "a.wav", "--model"], "expected one argument"),
        (["transcribe"], "required: FILE"),
        (["evaluate"], "required: --manifest"),
        (["prepare", "libri", "x", "--output", "y"], "unknown name 'libri'"),
        (["prepare", "librispech", "x", "--output", "y"], "did you mean 'librispeech'"),
        (["info", "a", "b"], "unknown argument b"),
    ],
)
def test_mistakes_are_one_line_with_a_hint(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert expected in captured.err


def test_without_arguments_the_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "commands:" in captured.err


def test_transcribe_prints_text_and_json(tiny_model: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", str(speech), "--model", str(tiny_model)]) == 0
    text = capsys.readouterr().out
    assert text.endswith("\n")
    assert cli.main(["transcribe", str(speech), str(speech), "--model", str(tiny_model), "--format", "json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    parsed = json.loads(lines[0])
    assert set(parsed) == {"file", "duration_s", "text", "confidence", "segments", "words", "model"}
    assert parsed["text"] == text.strip()
    assert parsed["duration_s"] == pytest.approx(0.5)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_to_a_folder(format: str, tiny_model: Path, speech: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    arguments = ["transcribe", str(speech), "--model", str(tiny_model), "--format", format, "--output-dir", str(folder)]
    assert cli.main(arguments) == 0
    written = list(folder.iterdir())
    assert len(written) == 1
    assert written[0].name.startswith("speech.")


def test_same_names_from_two_folders_are_not_overwritten(tiny_model: Path, speech: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / speech.name
    other.parent.mkdir()
    other.write_bytes(speech.read_bytes())
    folder = tmp_path / "out"
    arguments = ["transcribe", str(speech), str(other), "--model", str(tiny_model), "--output-dir", str(folder)]
    code = cli.main(arguments)
    assert len(list(folder.iterdir())) == 2 if code == 0 else code == 2


def test_options_may_stand_between_files(tiny_model: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", str(speech), "--model", str(tiny_model), str(speech)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_one_bad_file_of_three_is_named_and_the_others_are_done(
    tiny_model: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["transcribe", str(speech), "nowhere.wav", str(speech), "--model", str(tiny_model)]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "nowhere.wav" in captured.err
    assert "1 of 3 recordings failed; the others are done" in captured.err


def test_formats_of_one_recording_ask_for_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", "a.wav", "b.wav", "--format", "srt"]) == 2
    assert "--output-dir" in capsys.readouterr().err


def test_standard_input(
    tiny_model: Path, speech: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["transcribe", str(speech), "--model", str(tiny_model)]) == 0
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(speech.read_bytes())))
    assert cli.main(["transcribe", "-", "--model", str(tiny_model)]) == 0
    assert capsys.readouterr().out == expected


def test_standard_input_through_a_real_pipe(tiny_model: Path, speech: Path) -> None:
    done = run("transcribe", "-", "--model", tiny_model, "--format", "json", input=speech.read_bytes())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["duration_s"] == pytest.approx(0.5)


def test_evaluate_writes_the_reports(
    tiny_model: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "test.jsonl"
    line = {"audio_filepath": speech.name, "duration": 0.5, "text": "the quick fox", "speaker": "noise"}
    manifest.write_text(json.dumps(line) + "\n", encoding="utf-8")
    folder = tmp_path / "report"
    arguments = ["evaluate", "--model", str(tiny_model), "--manifest", str(manifest), "--report", str(folder)]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "WER" in captured.out
    assert str(folder / "report.html") in captured.out
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["wer"]["reference"] == 3
    assert cli.main([*arguments[:5], "--compare", str(folder / "report.json")]) == 0


def test_a_comparison_that_fails_loses_no_report(
    tiny_model: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, folder = tmp_path / "test.jsonl", tmp_path / "report"
    second = tmp_path / "second.wav"
    second.write_bytes(speech.read_bytes())
    lines = [
        {"id": n, "audio_filepath": p.name, "duration": 0.5, "text": "fox"} for n, p in (("a", speech), ("b", second))
    ]
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    arguments = ["evaluate", "--model", str(tiny_model), "--manifest", str(manifest), "--report", str(folder)]
    assert cli.main(arguments) == 0
    second.unlink()
    new = tmp_path / "new"
    assert cli.main([*arguments[:-1], str(new), "--compare", str(folder)]) == 1
    assert "1 only in the baseline (first: b)" in capsys.readouterr().err
    assert (new / "report.html").is_file()
    # Another manifest is refused before the work.
    manifest.write_text(json.dumps(lines[0]), encoding="utf-8")
    assert cli.main([*arguments[:-1], str(tmp_path / "other"), "--compare", str(folder)]) == 2
    assert not (tmp_path / "other").exists()


def test_prepare_a_folder_of_recordings(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech.with_suffix(".txt").write_text("the quick fox", encoding="utf-8")
    arguments = ["prepare", "folder", str(tmp_path), "--option", "dev_share=0", "--output", str(tmp_path / "manifests")]
    assert cli.main(arguments) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line.endswith(".jsonl")]
    assert len(listed) == 1
    assert "the quick fox" in Path(listed[0]).read_text(encoding="utf-8")


def test_info_tells_what_a_model_carries(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(tiny_model)]) == 0
    output = capsys.readouterr().out
    assert "16000" in output and "characters" in output


def test_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "info", cli.Command("", interrupt))
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "wavasr: interrupted\n"


def test_an_interrupt_in_a_library_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Called:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def work(arguments: list[str]) -> int:
        called = Called()
        del called  # Python cannot raise what is raised there, as in a callback of libsndfile
        for _ in range(1000):
            time.sleep(0.01)
        return 0

    monkeypatch.setitem(cli.COMMANDS, "info", cli.Command("", work))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may be started deaf to it
    try:
        assert cli.main(["info"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "wavasr: interrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to one process")
def test_a_real_interrupt(tiny_model: Path) -> None:
    arguments = [*COMMAND, "transcribe", "-", "--model", str(tiny_model)]
    # Shells start what runs in the background deaf to interrupts, and that is inherited.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, preexec_fn=listening)
    with process:
        assert process.stdin is not None
        process.stdin.write(bytes(1 << 20))  # far more than a pipe holds: it returns when the command is reading
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        error = process.stderr.read().decode()
        assert process.wait(60) == 130
    assert error == "wavasr: interrupted\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_training_keeps_the_memory_of_large_tensors() -> None:
    """Freed blocks come back without page faults; as glibc is by itself, each is cleared anew."""
    code = """
import resource, sys
import numpy as np
from wavasr.cli.training import keep_large_memory
if sys.argv[1] == "kept":
    keep_large_memory()
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(64 << 20, 1, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fill()
print(fill())
"""
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, check=True).stdout)
        for mode in ("kept", "plain")
    }
    assert faults["kept"] < 10 < faults["plain"]


@pytest.mark.skipif(sys.platform == "win32", reason="another kind of pipe")
def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([*COMMAND, "--help"], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writing)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (141, b"")


def test_text_is_utf8_where_the_locale_is_not() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    program = "from wavasr import cli; cli.prepare_streams(); print('\\u0416')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, env=environment)
    assert done.stdout.decode("utf-8").strip() == "\u0416", done.stderr


def test_disk_trouble_is_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(arguments: list[str]) -> int:
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setitem(cli.COMMANDS, "info", cli.Command("", full))
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err.startswith("wavasr: report.json: no space left on device; free some space")


def test_the_package_has_the_functions_that_it_names(tiny_model: Path, speech: Path) -> None:
    first = wavasr.transcribe(speech, model=wavasr.load(tiny_model))
    assert list(inspect.signature(wavasr.transcribe).parameters)[:2] == ["source", "model"]
    assert "Args:" in (wavasr.transcribe.__doc__ or "")
    assert wavasr.transcribe(speech, model=str(tiny_model)).text == first.text
    with pytest.raises(AttributeError, match="no attribute 'trancribe'"):
        wavasr.trancribe  # noqa: B018


def test_no_message_is_empty() -> None:
    assert describe_os_error(TimeoutError()) == "timeouterror"
