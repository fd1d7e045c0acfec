"""What commands write to: devices, pipes and links are written through, failures name what was given."""

import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wavasr import cli
from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import Utterance, write_manifest
from wavasr.generation import sampler
from wavasr.generation.speaking import write_wav
from wavasr.generation.stepping import Stepper
from wavasr.network.files import read_header

Make = Callable[[Path, Path, Path], list[str]]
WRITERS: dict[str, Make] = {
    "lm build": lambda output, model, speech: [
        "lm", "build", str(speech.with_name("text.txt")), "-o", str(output), "--model", str(model)
    ],
    "align": lambda output, model, speech: [
        "align", str(speech), "--text", "fox", "--model", str(model), "--output", str(output), "--format", "json"
    ],
    "export": lambda output, model, speech: ["export", str(model), "-o", str(output)],
    "adapt": lambda output, model, speech: [
        "adapt", str(speech), "--model", str(model), "--lm", str(speech.with_name("small.arpa")), "-o", str(output)
    ],
    "calibrate": lambda output, model, speech: [
        "calibrate", "--manifest", str(speech.with_name("b.jsonl")), "--model", str(model), "--output", str(output)
    ],
    "lm tune": lambda output, model, speech: [
        "lm", "tune", "--manifest", str(speech.with_name("a.jsonl")), "--model", str(model),
        "--lm", str(speech.with_name("small.arpa")), "--beam", "5", "-o", str(output)
    ],
    "warmup": lambda output, model, speech: [
        "warmup", "--data.train", str(speech.with_name("a.jsonl")), "--data.dev", str(speech.with_name("b.jsonl")),
        "--output", str(output), "--encoder.preset", "swift", "--minutes", "0.0001", "--batch", "2"
    ],
}  # fmt: skip
SUFFIX = {"lm build": ".arpa", "align": ".json", "warmup": ".safetensors"}  # of the others .wavasr


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest, tiny_model: Path, speech: Path) -> Callable[[Path], list[str]]:
    """Output -> a command that writes it."""
    speech.with_name("text.txt").write_text("the quick fox\n", encoding="utf-8")
    arpa = speech.with_name("small.arpa")
    assert (
        cli.main(["lm", "build", str(speech.with_name("text.txt")), "-o", str(arpa), "--model", str(tiny_model)]) == 0
    )
    for speaker, count in ("a", 2), ("b", 60):  # confidences need fifty words
        utterances = [Utterance(str(number), speech, 0.5, "the fox", speaker) for number in range(count)]
        write_manifest(speech.with_name(f"{speaker}.jsonl"), utterances)
    return lambda output: WRITERS[request.param](output, tiny_model, speech)


@pytest.fixture
def suffix(writer: object, request: pytest.FixtureRequest) -> str:
    return SUFFIX.get(request.node.callspec.params["writer"], ".wavasr")


def test_a_link_stays_one(writer: Callable[[Path], list[str]], suffix: str, tmp_path: Path) -> None:
    link, target, plain = (tmp_path / f"{name}{suffix}" for name in ("link", "target", "plain"))
    target.write_text("real", encoding="utf-8")
    link.symlink_to(target.name)
    assert cli.main(writer(link)) == cli.main(writer(plain)) == 0
    assert link.is_symlink() and target.read_bytes() == plain.read_bytes() != b"real"


def test_a_pipe_gets_what_a_file_would(writer: Callable[[Path], list[str]], suffix: str, tmp_path: Path) -> None:
    fifo, plain, found = tmp_path / f"fifo{suffix}", tmp_path / f"plain{suffix}", list[bytes]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert cli.main(writer(fifo)) == cli.main(writer(plain)) == 0
    reader.join(20)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    if suffix == ".wavasr":  # sizes come after what they are of, where there is no way back
        plain.write_bytes(found[0])
        assert read_header(plain)["format"] == "wavasr-model"
    else:
        assert found == [plain.read_bytes()]


def test_a_device_stays_one(writer: Callable[[Path], list[str]], suffix: str, tmp_path: Path) -> None:
    device = tmp_path / f"null{suffix}"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"x")
    except OSError:
        pytest.skip("this user cannot make devices here")
    assert cli.main(writer(device)) == 0
    assert stat.S_ISCHR(device.stat().st_mode)


@pytest.mark.parametrize("place", ["folder", "file/below", "x" * 255])
def test_an_output_that_cannot_be(
    place: str, writer: Callable[[Path], list[str]], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "file").touch()
    output = tmp_path / f"{place}{suffix}"
    assert cli.main(writer(output)) == 2
    message = capsys.readouterr().err
    assert message.startswith("wavasr: ") and str(output) in message and message.count("\n") == 1
    assert "; " in message, "with a remedy"


def test_a_full_disk_names_the_file(
    writer: Callable[[Path], list[str]], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if suffix == ".safetensors":
        pytest.skip("the limit would hold for the memory that the processes which read its recordings share")
    output = tmp_path / f"new{suffix}"
    before = sorted(path.name for path in tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        code = cli.main(writer(output))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = capsys.readouterr().err
    assert code == 2 and message.startswith(f"wavasr: {output}: file too large; ") and message.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_one_result_that_cannot_be_written_is_one_failure(
    tiny_model: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, long = tmp_path / "out", tmp_path / f"{'x' * 240}.wav"
    long.write_bytes(speech.read_bytes())
    (folder / "speech.txt").mkdir(parents=True)
    assert (
        cli.main(["transcribe", str(speech), str(long), "--model", str(tiny_model), "--output-dir", str(folder)]) == 1
    )
    said = capsys.readouterr()
    assert said.out == f"{folder / ('x' * 240 + '.txt')}\n"
    assert f"{folder / 'speech.txt'}: is a directory; give a file" in said.err


def test_standard_output_holds_the_file_and_nothing_else(
    writer: Callable[[Path], list[str]], suffix: str, tmp_path: Path
) -> None:
    link, plain = tmp_path / f"stdout{suffix}", tmp_path / f"plain{suffix}"
    link.symlink_to("/proc/self/fd/1")
    done = subprocess.run([sys.executable, "-m", "wavasr", *writer(link)], capture_output=True, check=True)
    if suffix == ".wavasr":  # sizes come after what they are of, where there is no way back
        plain.write_bytes(done.stdout)
        assert read_header(plain)["format"] == "wavasr-model"
    else:
        assert cli.main(writer(plain)) == 0
        assert done.stdout == plain.read_bytes()


def test_sound_begins_where_its_stream_is(tmp_path: Path) -> None:
    sound = np.linspace(-0.5, 0.5, 400, dtype=np.float32)
    with (tmp_path / "all.bin").open("wb") as file:
        file.write(b"before")
        write_wav(file, [sound[:100], sound[100:]], 8000)
    content = (tmp_path / "all.bin").read_bytes()
    assert content[:10] == b"beforeRIFF"
    assert np.abs(load_audio(content[6:], 8000) - sound).max() < 1e-4


@pytest.mark.parametrize(
    "command", [["speak", "Hello."], ["generate", "--seconds", "1"], ["align", "x.wav", "--text", "x"]]
)
@pytest.mark.parametrize("name", ["x.mp3", "x.srt"])
def test_a_name_of_another_format_is_refused(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command[0] == "align" and name == "x.mp3":
        name = "x.vtt"
    output = tmp_path / name
    assert cli.main([*command, "-o", str(output)]) == 2
    message = capsys.readouterr().err
    assert str(output) in message and message.count("\n") == 1
    assert (".ctm" if command[0] == "align" else ".wav") in message, "with a remedy"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compiled", [True, False])
def test_why_sound_takes_so_long_is_told(
    compiled: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "has_numba", lambda: compiled)
    monkeypatch.setattr(sampler, "make_steps", lambda network, streams, backend: Stepper(network, streams))
    assert cli.main(["generate", "--seconds", "0.02", "-o", str(tmp_path / "x.wav")]) == 0
    assert ("pip install 'wavasr[generate]'" in caplog.text) is not compiled
