"""Where live captions get their samples: a microphone, a recording that stands in for it, or a pipe of raw samples."""

from __future__ import annotations

import contextlib
import queue
import sys
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.reading import stream_audio
from wavasr.errors import AudioError
from wavasr.serving.samples import Samples

Floats = NDArray[np.float32]
BLOCK_S = 0.1
_MOST_BLOCKS = 600  # a minute, in which the recogniser may catch up
_SILENT_S = 5.0  # without a block: the microphone is gone


def devices() -> list[str]:
    """A line for each microphone: number, name, channels, rate; the default is marked.

    Raises:
        AudioError: PortAudio is missing.
    """
    found = _sounddevice()
    usual = found.default.device[0]
    return [
        f"{'*' if index == usual else ' '} {index:3d}  {device['name']} "
        f"({device['max_input_channels']} channels, {device['default_samplerate']:.0f} Hz)"
        for index, device in enumerate(found.query_devices())
        if device["max_input_channels"] > 0
    ]


def microphone(device: str, rate: int) -> Iterator[Floats]:
    """Blocks of (S,) samples until the caller stops asking; what is not fetched in time is lost, and that is said.

    Args:
        device: number or part of the name; "": the default one.
        rate: samples a second.

    Raises:
        AudioError: there is no such microphone, PortAudio is missing, the microphone is unplugged, or the recogniser is
            too slow.
    """
    found = _sounddevice()
    blocks: queue.Queue[Floats] = queue.Queue(_MOST_BLOCKS)
    overflowed = False

    def take(samples: Floats, frames: int, when: Any, status: Any) -> None:
        nonlocal overflowed
        try:
            blocks.put_nowait(samples[:, 0].copy())
        except queue.Full:
            overflowed = True

    name = int(device) if device.isdecimal() else device or None
    try:
        stream = found.InputStream(rate, round(BLOCK_S * rate), device=name, channels=1, dtype="float32", callback=take)
    except (found.PortAudioError, ValueError) as error:
        raise AudioError(f"the microphone cannot be used ({error}); see wavasr listen --devices") from error
    with stream:
        while not overflowed:
            yield _next(blocks)
    raise AudioError(
        f"the recogniser is more than {_MOST_BLOCKS * BLOCK_S:g} s behind the microphone; close other programs"
    )


def _next(blocks: queue.Queue[Floats]) -> Floats:
    try:
        return blocks.get(timeout=_SILENT_S)
    except queue.Empty:
        message = f"the microphone has sent nothing for {_SILENT_S:g} s; connect it again, see wavasr listen --devices"
        raise AudioError(message) from None


def stand_in(source: str, rate: int, paced: bool) -> Iterator[Floats]:
    """Blocks of a recording, or of raw 16-bit samples from standard input ("-"), instead of a microphone.

    Args:
        source: a file, or "-".
        rate: samples a second of the blocks, and of raw samples.
        paced: whether blocks come as slowly as from a microphone.

    Raises:
        AudioError: the recording cannot be read.
    """
    began_s, samples = time.monotonic(), 0
    for block in _raw(rate) if source == "-" else stream_audio(Path(source), rate, BLOCK_S):
        samples += len(block)
        if paced:
            time.sleep(max(0.0, began_s + samples / rate - time.monotonic()))
        yield block


def _raw(rate: int) -> Iterator[Floats]:
    decode = Samples("s16le")
    while content := cast(BufferedReader, sys.stdin.buffer).read1(2 * round(BLOCK_S * rate)):
        yield decode(content)


def _sounddevice() -> Any:
    try:
        import sounddevice
    except OSError as error:
        remedy = "apt install libportaudio2" if sys.platform == "linux" else "install PortAudio"
        raise AudioError(f"the microphone needs the library PortAudio; {remedy}") from error
    return sounddevice


@contextlib.contextmanager
def keys() -> Iterator[queue.SimpleQueue[str]]:
    """The keys that are pressed, one at a time, while the block runs; none where there is no keyboard.

    Reading in a thread keeps this the same on all systems; only the terminal's mode differs.
    """
    import threading

    pressed: queue.SimpleQueue[str] = queue.SimpleQueue()
    if not sys.stdin or not sys.stdin.isatty():
        yield pressed
        return

    def read() -> None:
        while character := _character():
            pressed.put(character)

    with _unbuffered():
        threading.Thread(target=read, daemon=True).start()
        yield pressed


if sys.platform == "win32":
    import msvcrt

    _unbuffered = contextlib.nullcontext

    def _character() -> str:
        return msvcrt.getwch()

else:

    @contextlib.contextmanager
    def _unbuffered() -> Iterator[None]:
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def _character() -> str:
        return sys.stdin.read(1)
