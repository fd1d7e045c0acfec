"""Parts c to e: `wavasr` as a process on an hour, on shorter recordings, and how soon commands answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Cost, Section, in_turns, process, speech_file, wavasr
from wavasr.cli import COMMANDS

_MEGABYTES_FROM_S = 600.0


def _transcription(folder: Path, seconds: float, model: str) -> Cost:
    return process(wavasr("transcribe", speech_file(folder, seconds), "--model", model))


def lengths(folder: Path, seconds: Sequence[float], model: str) -> Section:
    """Time and peak memory of a process for each length; start-up is in all of them."""
    report = Section("d. How cost grows with length (whole processes)")
    costs = {s: _transcription(folder, s, model) for s in sorted(seconds)}
    rows = [
        [f"{s:g} s", f"{c.wall_s:.2f} s", f"{c.cpu_s:.2f} s", f"{s / c.wall_s:.0f}", f"{c.peak_mb:.0f}"]
        for s, c in costs.items()
    ]
    report.table(["audio", "wall", "processor", "x real time", "peak MB"], rows)
    shortest, longest = min(costs), max(costs)
    if longest > shortest:
        more_s = costs[longest].wall_s - costs[shortest].wall_s
        speed = (longest - shortest) / max(more_s, 1e-9)
        report.note(f"Beyond the shortest, without start-up, that is {speed:.0f} x real time.")
    report.lines["seconds, whole process"] = [(s, c.wall_s) for s, c in costs.items()]
    return report


def hour(folder: Path, seconds: float, model: str) -> Section:
    """One long file, and whether memory is flat from ten minutes on."""
    report = Section(f"c. One file of {seconds / 60:g} minutes")
    cost = _transcription(folder, seconds, model)
    rows = [["all of it", f"{cost.wall_s:.1f} s", f"{seconds / cost.wall_s:.0f}", f"{cost.peak_mb:.0f}"]]
    part = min(_MEGABYTES_FROM_S, seconds / 2)
    earlier = _transcription(folder, part, model)
    rows.append([f"{part / 60:g} minutes", f"{earlier.wall_s:.1f} s", f"{part / earlier.wall_s:.0f}"])
    rows[-1].append(f"{earlier.peak_mb:.0f}")
    report.table(["audio", "wall", "x real time", "peak MB"], rows)
    if cost.peak_mb:
        report.note(f"The longer one needs {cost.peak_mb - earlier.peak_mb:+.0f} MB.")
    return report


def start_up(folder: Path, rounds: int, model: str, commands: Sequence[str] = tuple(COMMANDS)) -> Section:
    """The help of every command, mistakes, and a short recording into text."""
    report = Section("e. Start-up")
    sides = {"wavasr --help": wavasr("--help"), "import wavasr": [sys.executable, "-c", "import wavasr"]}
    sides |= {f"wavasr {command} --help": wavasr(command, "--help") for command in commands}
    sides["wavasr info"] = wavasr("info", model)
    five = speech_file(folder, 5.0)
    sides["wavasr transcribe, 5 s into text"] = wavasr("transcribe", five, "--model", model)
    sides["python -c pass"] = [sys.executable, "-c", "pass"]
    costs = in_turns({name: lambda command=command: process(command) for name, command in sides.items()}, rounds, False)
    table = [[f"`{n}`", f"{c.wall_s:.2f} s", f"{c.cpu_s:.2f} s", f"{c.peak_mb:.0f}"] for n, c in costs.items()]
    report.table(["command", "wall", "processor", "peak MB"], table)
    return report
