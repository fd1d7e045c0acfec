"""What all parts of the benchmark share: processes and their cost, turns, speech of any length, sections (no torch)."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from wavasr.audio.reading import load_audio

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "data" / "samples"
RATE = 16000


class Cost(NamedTuple):
    """What a process or an action took; `peak_mb` is 0 where it is not known."""

    wall_s: float
    cpu_s: float
    peak_mb: float = 0.0


@dataclass
class Section:
    """A part of the report: Markdown, and what the plot shows of it.

    Attributes:
        bars: a name and its figure, larger is better.
        lines: for each side (x, y) points.
    """

    title: str
    lines_of_text: list[str] = field(default_factory=list)
    bars: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Append a table."""
        self.lines_of_text += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        self.lines_of_text += ["| " + " | ".join(row) + " |" for row in rows] + [""]

    def note(self, text: str) -> None:
        """Append a line."""
        self.lines_of_text += ["", text]


def process(command: Sequence[str | Path], output: Path | None = None) -> Cost:
    """Run a process: wall time, processor time and peak memory of its own.

    Raises:
        RuntimeError: it failed; with the last line of what it complained.
    """
    start = time.perf_counter()
    sink = output.open("wb") if output else subprocess.DEVNULL
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(list(map(str, command)), stdout=sink, stderr=subprocess.PIPE, env=environment)
    assert child.stderr is not None
    complaints = child.stderr.read().decode("utf-8", errors="replace").strip().splitlines()
    if hasattr(os, "wait4"):
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        unit = 1e6 if sys.platform == "darwin" else 1e3
        cpu_s, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit
    else:
        child.wait()
        cpu_s = peak_mb = 0.0
    child.stderr.close()
    if output and not isinstance(sink, int):
        sink.close()
    if child.returncode:
        raise RuntimeError(complaints[-1] if complaints else f"exit code {child.returncode}")
    return Cost(time.perf_counter() - start, cpu_s, peak_mb)


def wavasr(*arguments: str | Path) -> list[str | Path]:
    """The command line of `wavasr` in this environment."""
    return [sys.executable, "-m", "wavasr", *arguments]


def in_turns(sides: Mapping[str, Callable[[], Any]], rounds: int, warm: bool = True) -> dict[str, Cost]:
    """The median of some rounds for each side, all sides in each round, so that other work slows them alike."""
    spent: dict[str, list[Cost]] = {name: [] for name in sides}
    for turn in range(rounds + warm):
        for name, action in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found = action()
            cost = found if isinstance(found, Cost) else Cost(time.perf_counter() - wall, time.process_time() - cpu)
            if turn or not warm:
                spent[name].append(cost)
    return {name: median(costs) for name, costs in spent.items()}


def median(costs: Sequence[Cost]) -> Cost:
    """Of each figure; of the peaks the highest."""
    walls, cpus, peaks = zip(*costs, strict=True)
    return Cost(statistics.median(walls), statistics.median(cpus), max(peaks))


def speech(seconds: float) -> NDArray[np.float32]:
    """The sample clips, as often as needed: (S,) float32 at 16 kHz."""
    return np.resize(_samples(), round(seconds * RATE))


@cache
def _samples() -> NDArray[np.float32]:
    clips = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".flac", ".mp3", ".ogg"))
    return np.concatenate([load_audio(path, RATE) for path in clips])


def speech_file(folder: Path, seconds: float) -> Path:
    """So much speech as a WAV file, written in pieces."""
    path = folder / f"{seconds:g}s.wav"
    if not path.exists():
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            left, piece = round(seconds * RATE), speech(min(seconds, 60.0))
            while left > 0:
                file.write(piece[:left])
                left -= len(piece)
    return path


def machine_facts() -> list[str]:
    """Processor, memory, threads, load and versions, one line each."""
    from importlib import metadata

    from wavasr.evaluation.provenance import machine

    pages = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9 if pages else 0
    load = f"{os.getloadavg()[0]:.1f} processes wanted to run" if hasattr(os, "getloadavg") else "load unknown"
    return [
        f"{machine()}, {memory_gb:.0f} GB memory, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}",
        f"when the benchmark began, {load}",
        ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "soundfile"))
        + f", Python {sys.version.split()[0]}",
    ]
