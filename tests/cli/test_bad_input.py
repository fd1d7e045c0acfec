"""Bad input by the dozen: one line that names the file and the remedy, the right exit code, never a traceback."""

import contextlib
import errno
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from wavasr import cli
from wavasr.archive import members_of, write_archive

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Workshop:
    """Where a case makes its bad input, and what is good: a model, half a second of sound."""

    folder: Path
    model: Path
    speech: Path

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def wav(self, name: str, samples: Any, rate: int = 16000, subtype: str | None = None) -> Path:
        path = self.folder / name
        soundfile.write(path, np.asarray(samples), rate, subtype)
        return path

    def manifest(self, *entries: dict[str, Any] | str | bytes) -> Path:
        lines = [json.dumps(entry) if isinstance(entry, dict) else entry for entry in entries]
        encoded = [line.encode() if isinstance(line, str) else line for line in lines]
        return self.file("m.jsonl", b"".join(line + b"\n" for line in encoded))

    def entry(self, **changes: Any) -> dict[str, Any]:
        full = {"audio_filepath": str(self.speech), "duration": 0.5, "text": "the fox", "speaker": "s"} | changes
        return {key: value for key, value in full.items() if value is not None}

    def recipe(self, text: str) -> Path:
        return self.file("recipe.yaml", text)


@pytest.fixture
def workshop(tmp_path: Path, tiny_model: Path, speech: Path) -> Workshop:
    return Workshop(tmp_path, tiny_model, speech)


Arguments = list[Any]


@dataclass(frozen=True)
class Case:
    """How the arguments are made, the exit code, and what the line on stderr must contain."""

    name: str
    make: Callable[[Workshop], Arguments]
    code: int
    says: str


def ends_in_one_line(case: Case, code: int, error: str) -> None:
    assert "Traceback" not in error
    assert code == case.code, error
    lines = [line for line in error.splitlines() if line.strip()]
    if case.code == 2:
        assert len(lines) == 1, error
    assert case.says in error
    assert len(lines) <= 3 or case.code == 0


def noise(seconds: float, rate: int = 16000, channels: int = 1) -> Any:
    shape = (round(seconds * rate), channels)
    return 0.1 * np.random.default_rng(1).standard_normal(shape if channels > 1 else shape[0])


def cut(path: Path, keep: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


# --- Recordings ---------------------------------------------------------------------------------------------------


def transcribe(make: Callable[[Workshop], Any]) -> Callable[[Workshop], Arguments]:
    def arguments(w: Workshop) -> Arguments:
        made = make(w)
        return ["transcribe", *(made if isinstance(made, list) else [made]), "--model", w.model]

    return arguments


def empty_folder(w: Workshop) -> Path:
    path = w.folder / "empty"
    path.mkdir()
    return path


def link(w: Workshop) -> Path:
    path = w.folder / "link.wav"
    path.symlink_to(w.folder / "gone.wav")
    return path


def header_of_a_gigabyte(w: Workshop) -> Path:
    content = bytearray(w.speech.read_bytes())
    content[40:44] = struct.pack("<I", 1 << 30)
    return w.file("huge.wav", bytes(content))


RECORDINGS = [
    Case("missing file", transcribe(lambda w: w.folder / "gone.wav"), 2, "gone.wav"),
    Case("directory without recordings", transcribe(empty_folder), 2, "empty"),
    Case("empty file", transcribe(lambda w: w.file("empty.wav", b"")), 2, "empty.wav"),
    Case("header only", transcribe(lambda w: w.wav("header.wav", noise(0))), 2, "header.wav"),
    Case("first bytes of a header", transcribe(lambda w: w.file("four.wav", b"RIFF")), 2, "four.wav"),
    Case("truncated wav", transcribe(lambda w: cut(w.wav("t.wav", noise(1)), 0.5)), 2, "t.wav"),
    Case("truncated flac", transcribe(lambda w: cut(w.wav("t.flac", noise(1)), 0.5)), 2, "t.flac"),
    Case("truncated ogg", transcribe(lambda w: cut(w.wav("t.ogg", noise(3)), 0.5)), 2, "t.ogg"),
    Case("a size that is not there", transcribe(header_of_a_gigabyte), 2, "huge.wav"),
    Case("text renamed", transcribe(lambda w: w.file("letter.wav", "Dear reader,\n" * 99)), 2, "letter.wav"),
    Case("random bytes", transcribe(lambda w: w.file("r.mp3", np.random.default_rng(0).bytes(9999))), 2, "r.mp3"),
    Case("zeros", transcribe(lambda w: w.file("z.flac", bytes(9999))), 2, "z.flac"),
    Case("a picture", transcribe(lambda w: w.file("p.wav", b"\x89PNG\r\n\x1a\n" + bytes(99))), 2, "p.wav"),
    Case("a zip", transcribe(lambda w: w.file("a.wav", b"PK\x03\x04" + bytes(99))), 2, "a.wav"),
    Case("a model", transcribe(lambda w: w.model), 2, "tiny.wavasr"),
    Case("NaN samples", transcribe(lambda w: w.wav("n.wav", [0.0, np.nan] * 99, subtype="FLOAT")), 2, "n.wav"),
    Case("infinite samples", transcribe(lambda w: w.wav("i.wav", [0.0, np.inf] * 99, subtype="FLOAT")), 2, "i.wav"),
    Case("a link to nowhere", transcribe(link), 2, "link.wav"),
    Case("a path through a file", transcribe(lambda w: w.speech / "x.wav"), 2, "x.wav"),
    Case("a name too long", transcribe(lambda w: w.folder / ("x" * 300 + ".wav")), 2, "xxx.wav"),
    Case("a line break in the name", transcribe(lambda w: w.folder / "a\nb.wav"), 2, "a b.wav"),
    Case(
        "a name that is not UTF-8", transcribe(lambda w: os.fsdecode(os.fsencode(w.folder) + b"/\xff.wav")), 2, ".wav"
    ),
    Case("the null device", transcribe(lambda w: "/dev/null"), 2, "/dev/null"),
    Case("standard input twice", transcribe(lambda w: ["-", "-"]), 2, "twice"),
    Case("a bad one of two", transcribe(lambda w: [w.file("e.wav", b""), w.speech]), 1, "e.wav"),
    Case("two bad ones", transcribe(lambda w: [w.file("e.wav", b""), w.folder / "gone.wav"]), 1, "2 of 2"),
    Case("output folder is a file", transcribe(lambda w: [w.speech, "--output-dir", w.speech]), 2, "speech.wav"),
]

# Odd, but sound: these are transcribed.
FINE = [
    Case("silence", transcribe(lambda w: w.wav("f.wav", np.zeros(16000))), 0, ""),
    Case("one sample", transcribe(lambda w: w.wav("f.wav", [0.1])), 0, ""),
    Case("10 ms", transcribe(lambda w: w.wav("f.wav", noise(0.01))), 0, ""),
    Case("8 kHz", transcribe(lambda w: w.wav("f.wav", noise(0.5, 8000), 8000)), 0, ""),
    Case("11025 Hz", transcribe(lambda w: w.wav("f.wav", noise(0.5, 11025), 11025)), 0, ""),
    Case("96 kHz", transcribe(lambda w: w.wav("f.wav", noise(0.5, 96000), 96000)), 0, ""),
    Case("6 channels", transcribe(lambda w: w.wav("f.wav", noise(0.5, 16000, 6))), 0, ""),
    Case("8 bits", transcribe(lambda w: w.wav("f.wav", noise(0.5), subtype="PCM_U8")), 0, ""),
    Case("mu-law", transcribe(lambda w: w.wav("f.wav", noise(0.5), 8000, subtype="ULAW")), 0, ""),
    Case("64-bit floats", transcribe(lambda w: w.wav("f.wav", noise(0.5), subtype="DOUBLE")), 0, ""),
    Case("integers as floats", transcribe(lambda w: w.wav("f.wav", 3e4 * noise(0.5), subtype="FLOAT")), 2, "-1 to 1"),
    Case("20 dB too loud", transcribe(lambda w: w.wav("f.wav", 10 * noise(0.5), subtype="FLOAT")), 0, ""),
    Case("tiny gain", transcribe(lambda w: w.wav("f.wav", 1e-30 * noise(0.5), subtype="FLOAT")), 0, ""),
    Case("a large offset", transcribe(lambda w: w.wav("f.wav", 0.8 + noise(0.5), subtype="FLOAT")), 0, ""),
    Case("the wrong suffix", transcribe(lambda w: w.file("f.mp3", w.speech.read_bytes())), 0, ""),
    Case("no suffix", transcribe(lambda w: w.file("f", w.speech.read_bytes())), 0, ""),
    Case("a space and an accent", transcribe(lambda w: w.file("l'\xe9t\xe9 1.wav", w.speech.read_bytes())), 0, ""),
    Case("the same twice", transcribe(lambda w: [w.speech, w.speech]), 0, ""),
]


# --- Models -------------------------------------------------------------------------------------------------------


def with_model(make: Callable[[Workshop], Any]) -> Callable[[Workshop], Arguments]:
    return lambda w: ["transcribe", w.speech, "--model", make(w)]


def zipped(w: Workshop) -> Path:
    path = w.folder / "m.wavasr"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return path


class Exploit:
    """Unpickling it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def pickled(w: Workshop) -> Path:
    return w.file("m.wavasr", pickle.dumps(Exploit(str(w.folder / "exploited"))))


def with_header(change: Callable[[dict[str, Any]], None]) -> Callable[[Workshop], Path]:
    """The good model with another header."""

    def make(w: Workshop) -> Path:
        parts = members_of(w.model)
        header = json.loads(parts["model.json"].read_bytes())
        change(header)
        write_archive(w.folder / "m.wavasr", {**parts, "model.json": json.dumps(header).encode()})
        return w.folder / "m.wavasr"

    return make


def without_header(w: Workshop) -> Path:
    from safetensors.numpy import save

    return w.file("m.wavasr", save({"x": np.zeros(3)}))


def other_units(header: dict[str, Any]) -> None:
    header["units"]["symbols"] = header["units"]["symbols"][:-2]


def another_rate(header: dict[str, Any]) -> None:
    header["encoder"]["stages"][0]["pool"] += 1


MODELS = [
    Case("missing model", with_model(lambda w: w.folder / "gone.wavasr"), 2, "gone.wavasr"),
    Case("misspelt name", with_model(lambda w: "defualt"), 2, "defualt"),
    Case("model is a folder", with_model(lambda w: w.folder), 2, "folder"),
    Case("empty model", with_model(lambda w: w.file("m.wavasr", b"")), 2, "m.wavasr"),
    Case("a zip as model", with_model(zipped), 2, "m.wavasr"),
    Case("a pickle with code", with_model(pickled), 2, "m.wavasr"),
    Case("text as model", with_model(lambda w: w.file("m.wavasr", "hello " * 99)), 2, "m.wavasr"),
    Case("a recording as model", with_model(lambda w: w.speech), 2, "speech.wav"),
    Case("truncated model", with_model(lambda w: cut(w.file("m.wavasr", w.model.read_bytes()), 0.7)), 2, "m.wavasr"),
    Case("no wavasr header", with_model(without_header), 2, "m.wavasr"),
    Case("a later version", with_model(with_header(lambda h: h.update(format_version=99))), 2, "newer"),
    Case("version is a word", with_model(with_header(lambda h: h.update(format_version="x"))), 2, "m.wavasr"),
    Case("another kind of file", with_model(with_header(lambda h: h.update(format="front-end"))), 2, "m.wavasr"),
    Case("no units", with_model(with_header(lambda h: h.pop("units"))), 2, "m.wavasr"),
    Case("other units", with_model(with_header(other_units)), 2, "m.wavasr"),
    Case("no encoder", with_model(with_header(lambda h: h.pop("encoder"))), 2, "m.wavasr"),
    Case("frames of another length", with_model(with_header(another_rate)), 2, "m.wavasr"),
    Case("unknown encoder key", with_model(with_header(lambda h: h["encoder"].update(depth=3))), 2, "depth"),
    Case("info of no model", lambda w: ["info", w.speech], 2, "speech.wav"),
    Case("info of a header without units", lambda w: ["info", with_header(lambda h: h.pop("units"))(w)], 2, "m.wavasr"),
]


# --- Manifests ----------------------------------------------------------------------------------------------------


def evaluate(make: Callable[[Workshop], Any]) -> Callable[[Workshop], Arguments]:
    def arguments(w: Workshop) -> Arguments:
        made = make(w)
        return ["evaluate", "--model", w.model, "--manifest", *(made if isinstance(made, list) else [made])]

    return arguments


def entries(*changes: dict[str, Any]) -> Callable[[Workshop], Arguments]:
    return evaluate(lambda w: w.manifest(*(w.entry(**change) for change in changes)))


MANIFESTS = [
    Case("missing manifest", evaluate(lambda w: w.folder / "gone.jsonl"), 2, "gone.jsonl"),
    Case("manifest is a folder", evaluate(lambda w: w.folder), 2, ""),
    Case("manifest is a recording", evaluate(lambda w: w.speech), 2, "speech.wav"),
    Case("empty manifest", evaluate(lambda w: w.file("m.jsonl", b"")), 2, "m.jsonl"),
    Case("a bad line", evaluate(lambda w: w.manifest(w.entry(), "{bad")), 2, "m.jsonl:2"),
    Case("a list", evaluate(lambda w: w.manifest("[1, 2]")), 2, "m.jsonl:1"),
    Case("not UTF-8", evaluate(lambda w: w.manifest(w.entry(), b'{"text": "\xff"}')), 2, "m.jsonl:2"),
    Case("no text", entries({"text": None}), 2, "text"),
    Case("no duration", entries({"duration": None}), 2, "duration"),
    Case("no audio", entries({"audio_filepath": None}), 2, "audio_filepath"),
    Case("duplicate id", entries({"id": "a"}, {"id": "a"}), 2, "m.jsonl:2"),
    Case("duration 0", entries({"duration": 0}), 2, "duration"),
    Case("duration below 0", entries({"duration": -1.0}), 2, "duration"),
    Case("duration is a word", entries({"duration": "long"}), 2, "duration"),
    Case("duration NaN", evaluate(lambda w: w.manifest(w.entry(duration=float("nan")))), 2, "duration"),
    Case("text is a number", entries({"text": 3}), 2, "text"),
    Case("duration beyond the end", entries({"duration": 9.0}), 2, "speech.wav"),
    Case("offset beyond the end", entries({"offset": 9.0}), 2, "speech.wav"),
    Case("every recording missing", entries({"audio_filepath": "gone.wav"}), 2, "gone.wav"),
    Case("one of two missing", entries({"id": "a"}, {"id": "b", "audio_filepath": "gone.wav"}), 1, "1 of 2"),
    Case("unknown letters in the text", entries({"text": "\u0416\u0416"}), 0, ""),
    Case("comparison missing", evaluate(lambda w: [w.manifest(w.entry()), "--compare", "gone.json"]), 2, "gone.json"),
    Case(
        "comparison is no report",
        evaluate(lambda w: [w.manifest(w.entry()), "--compare", w.file("c.json", "{}")]),
        2,
        "c.json",
    ),
    Case("report is a file", evaluate(lambda w: [w.manifest(w.entry()), "--report", w.speech]), 2, "speech.wav"),
]


# --- Corpora and recipes ------------------------------------------------------------------------------------------


def prepare(corpus: str, make: Callable[[Workshop], Any]) -> Callable[[Workshop], Arguments]:
    def arguments(w: Workshop) -> Arguments:
        made = make(w)
        return ["prepare", corpus, *(made if isinstance(made, list) else [made]), "--output", w.folder / "out"]

    return arguments


def fit(make: Callable[[Workshop], Any]) -> Callable[[Workshop], Arguments]:
    def arguments(w: Workshop) -> Arguments:
        made = make(w)
        return ["fit", "--config", *(made if isinstance(made, list) else [made]), "--run_dir", w.folder / "run"]

    return arguments


def data(w: Workshop, extra: str = "") -> str:
    return (
        f"data: {{root: {w.folder.as_posix()}, train: [m.jsonl], dev: [m.jsonl]}}\nencoder: {{init: random}}\n{extra}"
    )


CORPORA = [
    Case("root missing", prepare("librispeech", lambda w: w.folder / "gone"), 2, "gone"),
    Case("root is a file", prepare("librispeech", lambda w: w.speech), 2, "speech.wav"),
    Case("another layout", prepare("timit", lambda w: w.folder), 2, ""),
    Case("no transcripts", prepare("folder", lambda w: w.folder), 2, ""),
    Case("misspelt corpus", prepare("librispeach", lambda w: w.folder), 2, "did you mean 'librispeech'"),
    Case("unknown option", prepare("folder", lambda w: [w.folder, "--option", "x=1"]), 2, "dev_share"),
    Case("option without value", prepare("folder", lambda w: [w.folder, "--option", "dev_share"]), 2, "dev_share"),
]

RECIPES = [
    Case("recipe missing", fit(lambda w: w.folder / "gone.yaml"), 2, "gone.yaml"),
    Case("misspelt recipe", fit(lambda w: "an5.yaml"), 2, "an4.yaml"),
    Case("recipe is a folder", fit(lambda w: w.folder), 2, ""),
    Case("recipe is no YAML", fit(lambda w: w.recipe("a: [1\nb: }")), 2, ""),
    Case("recipe is a word", fit(lambda w: w.recipe("hello")), 2, ""),
    Case("recipe is a recording", fit(lambda w: w.speech), 2, ""),
    Case("unknown section", fit(lambda w: w.recipe("optimiser: {lr: 1}")), 2, "optimiser"),
    Case("unknown key", fit(lambda w: w.recipe("optim: {lrr: 1}")), 2, "did you mean"),
    Case("unknown key on the command line", fit(lambda w: [w.recipe(data(w)), "--optim.lrr", 1]), 2, "optim.lr"),
    Case("a word for a number", fit(lambda w: w.recipe("optim: {lr: fast}")), 2, "lr"),
    Case("a value out of range", fit(lambda w: w.recipe(data(w, "optim: {lr: -1}"))), 2, "lr"),
    Case("unknown preset", fit(lambda w: w.recipe("encoder: {preset: huge}")), 2, "huge"),
    Case("no training manifest", fit(lambda w: w.recipe(data(w))), 2, "m.jsonl"),
    Case("a bad training line", fit(lambda w: [w.manifest("{") and w.recipe(data(w))]), 2, "m.jsonl:1"),
    Case(
        "a run folder that is a file",
        fit(lambda w: [w.manifest(w.entry()) and w.recipe(data(w)), "--run_dir", w.speech]),
        2,
        "",
    ),
]

USAGE = [
    Case("misspelt command", lambda w: ["transcirbe", w.speech], 2, "did you mean 'transcribe'"),
    Case("misspelt option", lambda w: ["transcribe", w.speech, "--modle", w.model], 2, "did you mean '--model'"),
    Case("misspelt format", lambda w: ["transcribe", w.speech, "--format", "strt"], 2, "did you mean 'srt'"),
    Case("option without a value", lambda w: ["evaluate", "--manifest"], 2, "--manifest"),
]

CASES = [*RECORDINGS, *FINE, *MODELS, *MANIFESTS, *CORPORA, *RECIPES, *USAGE]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input(case: Case, workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main([str(argument) for argument in case.make(workshop)])
    captured = capsys.readouterr()
    ends_in_one_line(case, code, strip_progress(captured.err))
    assert not (workshop.folder / "exploited").exists(), "the code in the pickle was run"
    if case.code == 2:
        assert captured.out == ""


def strip_progress(error: str) -> str:
    """Standard error without what a progress bar drew: everything up to the last carriage return of a line."""
    lines = [line.rpartition("\r")[2] for line in error.split("\n")]
    return "\n".join(line for line in lines if "%|" not in line and "it/s" not in line)


def subprocess_cases() -> list[Case]:
    names = {"missing file", "a pickle with code", "bad line", "NaN samples", "unknown key", "truncated flac"}
    return [case for case in CASES if case.name in names]


@pytest.mark.parametrize("case", subprocess_cases(), ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input_in_a_process(case: Case, workshop: Workshop) -> None:
    arguments = [sys.executable, "-m", "wavasr", *map(str, case.make(workshop))]
    done = subprocess.run(arguments, capture_output=True, cwd=ROOT, timeout=120)
    ends_in_one_line(case, done.returncode, strip_progress(done.stderr.decode()))
    assert done.stdout == b""


@pytest.mark.parametrize("content", [b"", b"not audio at all" * 99, b"RIFF"], ids=["empty", "text", "cut"])
def test_bad_standard_input(content: bytes, tiny_model: Path) -> None:
    arguments = [sys.executable, "-m", "wavasr", "transcribe", "-", "--model", str(tiny_model)]
    done = subprocess.run(arguments, input=content, capture_output=True, cwd=ROOT, timeout=120)
    ends_in_one_line(Case("", lambda w: [], 2, ""), done.returncode, done.stderr.decode())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("buffering", ["buffered", "unbuffered"])
def test_a_full_standard_output_names_itself(
    buffering: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, speech, manifest = str(workshop.model), str(workshop.speech), str(workshop.manifest(workshop.entry()))
    text, fox = workshop.file("text.txt", "the fox\n"), ["--text", "fox"]
    for arguments in (
        *(["--help"], ["--version"], ["transcribe", "--help"], ["fit", "--help"], ["lm", "--help"]),
        *(["transcribe", speech, "--model", model], ["align", speech, *fox, "--model", model], ["info", model]),
        ["transcribe", speech, "--model", model, "--output-dir", str(workshop.folder / "o")],
        ["lm", "build", str(text), "-o", str(workshop.folder / "lm.arpa"), "--model", model],
        ["evaluate", "--model", model, "--manifest", manifest],
        ["shard", manifest, "-o", str(workshop.folder / "shards")],
        ["export", model, "-o", str(workshop.folder / "copy.wavasr")],
        ["fit", "--config", "an4", "--print_config"],
    ):
        raw = io.FileIO("/dev/full", "w")
        full = io.TextIOWrapper(raw if buffering == "unbuffered" else io.BufferedWriter(raw))  # type: ignore[type-var]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full)
            code = cli.main(arguments)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wavasr: ")]
        assert code == 2 and said[-1].startswith("wavasr: standard output: no space left on device; "), arguments
        with contextlib.suppress(OSError):
            full.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_error_changes_no_exit_code(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(workshop.model)
    for arguments in (["nonsense"], ["transcribe", "gone.wav", "--model", model], ["transcribe", "--nonsense"]):
        full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)  # type: ignore[type-var]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", full)
            assert cli.main(arguments) == 2, arguments
        with contextlib.suppress(OSError):
            full.close()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes")
def test_a_report_that_does_not_fit_leaves_nothing_behind(workshop: Workshop) -> None:
    """A limit of 1,000 bytes for each file stands in for a full disk."""
    manifest, folder = workshop.manifest(workshop.entry()), workshop.folder / "report"
    arguments = ["evaluate", "--model", str(workshop.model), "--manifest", str(manifest), "--report", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "wavasr", *arguments],
        capture_output=True,
        cwd=ROOT,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    error = strip_progress(done.stderr.decode())
    ends_in_one_line(Case("", lambda w: [], 2, "too large"), done.returncode, error)
    assert not [path for path in folder.glob("*") if path.suffix in (".html", ".json")]


def test_no_permission(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Root may read everything, so that the refusal is made here."""

    path, opened = workshop.manifest(workshop.entry()), Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # which the other ways of reading call
    code = cli.main(["evaluate", "--model", str(workshop.model), "--manifest", str(path)])
    monkeypatch.undo()
    ends_in_one_line(Case("", lambda w: [], 2, "m.jsonl"), code, capsys.readouterr().err)


def test_there_are_enough_cases() -> None:
    assert len([case for case in CASES if case.code]) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
