"""How fast wavasr is on this machine: one Markdown report and one plot.

    python -m benchmarks [--only a,c] [--output runs/bench] [--quick] [--no-peers] [--model default]

Parts: a networks, b other recognisers, c an hour, d growth with length and batch, e start-up. Processes are measured
before anything is computed here, because the peak memory of a process begins with that of its parent.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import peers, processes
from benchmarks.measure import ROOT, Section, machine_facts, process
from wavasr.files import atomic_bytes, atomic_text
from wavasr.network.config import PRESETS

PARTS = "abcde"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts that are asked for, and write the report after each."""
    args = _parser().parse_args(arguments)
    wanted = args.only.replace(",", "")
    if not set(wanted) <= set(PARTS):
        print(f"--only is {args.only}; expected some of {','.join(PARTS)}", file=sys.stderr)
        return 2
    args.output.mkdir(parents=True, exist_ok=True)
    facts, sections = machine_facts(), []
    with tempfile.TemporaryDirectory(dir=args.output) as folder:
        for part in sorted(wanted, key="ecdba".index):  # the quickest first
            start = time.perf_counter()
            sections += _measure(part, args, Path(folder))
            print(f"part {part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
            write(args.output, facts, sorted(sections, key=lambda section: section.title))
    print(args.output / "report.md")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast wavasr is on this machine.")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help="e.g. a,c (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "bench", metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tries the benchmark, not the machine")
    parser.add_argument("--no-peers", action="store_true", help="install nothing; part b without other recognisers")
    parser.add_argument("--model", default="default", help="what transcribes")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), metavar="NAME", help="of part a")
    return parser


def _measure(part: str, args: argparse.Namespace, folder: Path) -> list[Section]:
    quick, model = args.quick, args.model
    measure: dict[str, Callable[[], list[Section]]] = {
        "a": lambda: [_networks(args)],
        "b": lambda: [peers.best_effort(args.output, 2 if quick else 12, 1 if quick else 2, model, not args.no_peers)],
        "c": lambda: [processes.hour(folder, 40 if quick else 3600, model)],
        "d": lambda: [
            processes.lengths(folder, (2, 10) if quick else (10, 60, 600, 3600), model),
            _batches("swift", 1 if quick else 3),
        ],
        "e": lambda: [processes.start_up(folder, 1 if quick else 3, model)],
    }
    return measure[part]()


def _json_of(*arguments: str) -> Any:
    """What `benchmarks.networks` prints in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        process([sys.executable, "-m", "benchmarks.networks", *arguments], output)
        return json.loads(output.read_text(encoding="utf-8"))


def _networks(args: argparse.Namespace) -> Section:
    seconds, rounds = (2.0, 1) if args.quick else (10.0, 3)
    memory: dict[tuple[str, str], float] = {}
    sides = ("plain float32", "transcribe, 8 bits", "step, plain float32", "step, wavasr bfloat16")
    command = [sys.executable, "-m", "benchmarks.networks", "--seconds", str(seconds), "--once"]
    for preset in () if args.quick else args.presets:
        memory |= {(preset, side): process([*command, side, preset]).peak_mb for side in sides}
    curves = "2" if args.quick else "40"
    found = _json_of("--seconds", str(seconds), "--rounds", str(rounds), "--curves", curves, *args.presets)
    from benchmarks.networks import rows

    return rows(found, memory)


def _batches(preset: str, rounds: int) -> Section:
    section = Section("d. How cost grows with the batch (network, recordings of 5 s)")
    found = _json_of("--batches", "--rounds", str(rounds), preset)
    sides = list(next(iter(found.values())))
    table = [[size, *(f"{speeds[side]:.0f}" for side in sides)] for size, speeds in found.items()]
    section.table(["recordings at once", *(f"{side}, audio s / s" for side in sides)], table)
    section.note(f"Preset {preset}. Growth with the size of the model is in part a.")
    section.lines = {f"{side}, x real time, by batch": [(int(n), s[side]) for n, s in found.items()] for side in sides}
    return section


def write(folder: Path, facts: Sequence[str], sections: Sequence[Section]) -> None:
    """`report.md` and `plot.svg`."""
    text = ["# Speed", "", *(f"- {fact}" for fact in facts), "", "![plot](plot.svg)", ""]
    for section in sections:
        text += [f"## {section.title}", *section.lines_of_text, ""]
    with atomic_text(folder / "report.md") as stream:
        stream.write("\n".join(text).replace("\n\n\n", "\n\n") + "\n")
    _plot(folder / "plot.svg", sections)


def _plot(path: Path, sections: Sequence[Section]) -> None:
    """Bars on the left, growth on the right."""
    from matplotlib.figure import Figure

    bars = {name: value for section in sections for name, value in section.bars.items()}
    lines = {name: points for section in sections for name, points in section.lines.items()}
    figure = Figure(figsize=(14, max(4.0, 0.22 * len(bars))), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.barh(list(bars), list(bars.values()), color="#4477aa")
    left.invert_yaxis()
    if bars:
        left.set_xscale("log")
    left.set_xlabel("seconds of audio per second")
    for name, points in lines.items():
        right.plot(*zip(*points, strict=True), marker="o", label=name)
    if lines:
        right.set(xscale="log", yscale="log", xlabel="seconds of audio, or recordings at once")
        right.legend()
    with atomic_bytes(path) as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
