"""`wavasr listen`: captions from recordings, pipes, a pretended microphone, and in a pretended terminal."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

import wavasr
from wavasr import cli
from wavasr.audio.reading import load_audio
from wavasr.errors import AudioError
from wavasr.serving import microphone


@pytest.fixture
def clip(repository: Path) -> Path:
    return repository / "data" / "samples" / "plain-sentence.flac"


def test_a_recording_stands_in(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["listen", "--input", str(clip), "--output", str(tmp_path / "text.srt")]) == 0
    text = wavasr.transcribe(clip).text
    assert " ".join(capsys.readouterr().out.split()) == text
    srt = (tmp_path / "text.srt").read_text(encoding="utf-8")
    assert srt.startswith("1\n00:00:00")
    assert text in " ".join(srt.split())


def test_raw_samples_come_through_a_pipe(clip: Path, tiny_model: Path) -> None:
    import subprocess

    content = np.round(load_audio(clip, 8000) * 32767).astype("<i2").tobytes()
    command = [sys.executable, "-m", "wavasr", "listen", "--input", "-", "--rate", "8000", "--model", "default"]
    done = subprocess.run(command, input=content, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    words, expected = done.stdout.decode().split(), wavasr.transcribe(clip).text.split()
    assert len(set(words) & set(expected)) >= len(expected) // 2  # telephone band


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_redraws_one_line(clip: Path) -> None:
    import pty
    import subprocess

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "wavasr", "listen", "--input", str(clip)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, close_fds=True)
    os.close(theirs)
    shown = b"".join(_output(ours))
    assert process.wait(60) == 0
    text = wavasr.transcribe(clip).text.encode()
    assert b"\x1b[90m" in shown  # what may still change is grey
    assert b"\r\x1b[2K" + text + b"\r\n" in shown  # what is final replaces it
    assert shown.count(b"\n") == 1


def _output(handle: int) -> Iterator[bytes]:
    try:
        while content := os.read(handle, 65536):
            yield content
    except OSError:  # how Linux tells that the other side has closed
        pass
    os.close(handle)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The module sounddevice with one microphone that gives ten blocks, and how it was opened."""
    opened: list[dict[str, Any]] = []

    class InputStream:
        def __init__(self, rate: int, size: int, *, device: object, callback: Any, **options: object) -> None:
            if device == "missing":
                raise ValueError("No input device matching 'missing'")
            opened.append({"rate": rate, "device": device, **options})
            self._give = lambda: [callback(np.full((size, 1), i / 10, np.float32), size, None, None) for i in range(10)]

        def __enter__(self) -> None:
            self._give()

        def __exit__(self, *_: object) -> None:
            opened.append({"closed": True})

    listed = [
        {"name": "Built-in", "max_input_channels": 2, "default_samplerate": 48000.0},
        {"name": "Speakers", "max_input_channels": 0, "default_samplerate": 48000.0},
    ]
    module = SimpleNamespace(
        InputStream=InputStream,
        PortAudioError=RuntimeError,
        default=SimpleNamespace(device=(0, 1)),
        query_devices=lambda: listed,
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return opened


def test_the_microphone_gives_blocks_and_is_closed(pretended: list[dict[str, Any]]) -> None:
    blocks = microphone.microphone("", 16000)
    assert [float(next(blocks)[0]) for _ in range(10)] == pytest.approx([i / 10 for i in range(10)])
    blocks.close()  # type: ignore[attr-defined]
    assert pretended == [{"rate": 16000, "device": None, "channels": 1, "dtype": "float32"}, {"closed": True}]


def test_a_recogniser_that_is_too_slow_is_told(pretended: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "_MOST_BLOCKS", 5)
    with pytest.raises(AudioError, match="behind the microphone"):
        list(microphone.microphone("0", 16000))


def test_a_microphone_that_is_unplugged_is_told(pretended: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "_SILENT_S", 0.05)
    blocks = microphone.microphone("", 16000)
    assert len(list(itertools.islice(blocks, 10))) == 10
    with pytest.raises(AudioError, match=r"has sent nothing for 0\.05 s; connect it again"):
        next(blocks)
    assert pretended[-1] == {"closed": True}


def test_microphones_are_listed(pretended: list[Any]) -> None:
    assert microphone.devices() == ["*   0  Built-in (2 channels, 48000 Hz)"]
    with pytest.raises(AudioError, match="see wavasr listen --devices"):
        next(microphone.microphone("missing", 16000))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(AudioError, match="PortAudio"):
        microphone.devices()


def test_blocks_come_as_slowly_as_they_were_said(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16000)
    began_s = time.monotonic()
    assert sum(map(len, microphone.stand_in(str(tmp_path / "a.wav"), 16000, paced=True))) == 8000
    assert time.monotonic() - began_s >= 0.49  # it waits; how much longer is the machine's affair


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input", "missing.wav"], "missing.wav: no such file"),
        (["--input", "x.wav", "--output", "text.doc"], "expected a name that ends in .txt"),
        (["--input", "x.wav", "--rate", "1"], "the sample rate is 1"),
        (["--input", "x.wav", "--model", "missing"], "no such model file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["listen", *arguments]) == 2
    assert says in capsys.readouterr().err
