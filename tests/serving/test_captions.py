"""Captions: pauses, the end by a key, one line however narrow the terminal."""

from __future__ import annotations

import io
import json
import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wavasr.decoding.times import Word
from wavasr.recognition.stream import Event, Final, Partial
from wavasr.serving.captions import Captions, caption


class Script:
    """In place of a stream: what was fed is remembered, events are given."""

    def __init__(self, events: list[list[Event]]) -> None:
        self.events = events
        self.fed: list[int] = []

    def feed(self, samples: Any) -> list[Event]:
        self.fed.append(len(samples))
        return self.events.pop(0) if self.events else []

    def finish(self) -> list[Event]:
        return [final("end")]


def final(text: str) -> Final:
    return Final(text, (Word(text, 0.0, 1.0, 0.5),), 0.5, 0.0, 1.0)


def run(script: Script, captions: Captions, blocks: int, keys: str = "") -> None:
    pressed: queue.SimpleQueue[str] = queue.SimpleQueue()
    for key in keys:
        pressed.put(key)
    caption([np.zeros(1600, np.float32)] * blocks, script, 16000, captions, pressed)  # type: ignore[arg-type]


def test_q_ends_with_what_was_said() -> None:
    script, captions = Script([]), Captions(io.StringIO(), live=False)
    run(script, captions, 5, "q")
    assert script.fed == []
    assert captions.texts == ["end"]


def test_space_pauses_and_goes_on() -> None:
    script, captions = Script([]), Captions(io.StringIO(), live=True)
    run(script, captions, 2, " ")
    assert script.fed == [0, 0]
    run(script, captions, 1, "  ")
    assert script.fed[-1] == 1600


def test_an_interruption_leaves_a_complete_file(tmp_path: Path) -> None:
    class Interrupted(Script):
        def feed(self, samples: Any) -> list[Event]:
            if len(self.fed) == 1:
                raise KeyboardInterrupt
            return super().feed(samples)

    captions = Captions(io.StringIO(), live=False, output=tmp_path / "a.json", format="json")
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted([[final("one")]]), captions, 3)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["text"] == "one end"


@pytest.mark.parametrize("columns", [10, 40])
def test_partial_text_fits_into_one_line(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "20")
    screen = io.StringIO()
    Captions(screen, live=True).show([Partial("a long stable text that goes on", "and a volatile end")], 1.0)
    visible = screen.getvalue()
    for code in ("\x1b[90m", "\x1b[0m", "\r\x1b[2K"):
        visible = visible.replace(code, "")
    assert len(visible) < columns
    assert visible.endswith("end")
