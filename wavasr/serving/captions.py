"""Live captions in a terminal: what may still change is grey and redrawn, what is final stays."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from wavasr.decoding.confidence import mean
from wavasr.decoding.times import Word
from wavasr.files import atomic_text
from wavasr.recognition.formats import render
from wavasr.recognition.stream import Event, Final, Partial, Stream
from wavasr.recognition.transcribe import Transcript
from wavasr.serving.microphone import Floats

_GREY, _PLAIN, _CLEAR = "\x1b[90m", "\x1b[0m", "\r\x1b[2K"
PAUSE_KEYS, END_KEYS = " p", "q"


@dataclass
class Captions:
    """Shows events, and keeps the final ones for a file.

    Attributes:
        screen: where text goes.
        live: whether `screen` is a terminal, on which a line can be redrawn.
        output: a file that gets all that is final, rewritten with each utterance; None: none.
        format: of that file, as in `formats.render`.
    """

    screen: TextIO
    live: bool
    output: Path | None = None
    format: str = "txt"
    words: list[Word] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def show(self, events: Iterable[Event], duration_s: float) -> None:
        """Show what has been recognised after so many seconds."""
        for event in events:
            if isinstance(event, Final):
                self._print(f"{_CLEAR if self.live else ''}{event.text}\n")
                self.words += event.words
                self.texts.append(event.text)
                self._save(duration_s)
            elif isinstance(event, Partial) and self.live:
                self._print(_CLEAR + self._fitting(event.stable, event.volatile))

    def note(self, text: str) -> None:
        """A message in place of the partial text."""
        if self.live:
            self._print(f"{_CLEAR}{_GREY}[{text}]{_PLAIN}")

    def close(self, duration_s: float) -> None:
        """The end: no partial text stays, and the file is complete, even if nothing was said."""
        if self.live:
            self._print(_CLEAR)
        self._save(duration_s)

    def _fitting(self, stable: str, volatile: str) -> str:
        """The end of the text, as much as fits into one line, so that it can be redrawn."""
        room = shutil.get_terminal_size().columns - 1
        volatile = volatile[-room:]
        stable = stable[max(0, len(stable) - max(0, room - len(volatile) - 1)) :]
        return f"{stable}{' ' if stable and volatile else ''}{_GREY}{volatile}{_PLAIN}"

    def _print(self, text: str) -> None:
        self.screen.write(text)
        self.screen.flush()

    def _save(self, duration_s: float) -> None:
        if self.output is None:
            return
        words = tuple(self.words)
        confidence = mean(word.confidence for word in words)
        transcript = Transcript("live", duration_s, " ".join(self.texts), confidence, words, "")
        with atomic_text(self.output) as stream:
            stream.write(render([transcript], self.format))


def caption(
    blocks: Iterable[Floats], stream: Stream, rate: int, captions: Captions, keys: queue.SimpleQueue[str]
) -> None:
    """Recognise blocks of samples until they end, or a key ends it.

    While it is paused, samples are dropped. What was said before is shown as final at an interruption, too.
    """
    samples, paused = 0, False
    try:
        for block in blocks:
            while not keys.empty():
                key = keys.get()
                if key in END_KEYS:
                    return
                if key in PAUSE_KEYS:
                    paused = not paused
                    captions.note("paused; space goes on" if paused else "listening")
            if paused:
                block = np.zeros(0, np.float32)
            samples += len(block)
            captions.show(stream.feed(block), samples / rate)
    finally:
        captions.show(stream.finish(), samples / rate)
        captions.close(samples / rate)
