"""Trains a queue of recipes one after the other and keeps a row of figures for each: what the generative loss is worth.

    python benchmarks/auxiliary.py QUEUE.yaml --output runs/auxiliary

The queue is a list of trials; each is a recipe and what differs from it:

    - {name: paper-0, config: paper.yaml, seeds: [0, 1, 2], auxiliary.weight: 0}

A first seed of every trial comes before a second of any. The queue is read again after each run, so that it can be
changed meanwhile. What stopped is resumed; what is in results.csv is not run again. A file `stop` in the output folder
ends it after the current run.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

COLUMNS = (
    "trial", "seed", "dev_per", "dev_low", "dev_high", "test_per", "test_low", "test_high", "epochs", "steps",
    "ctc_nats_per_label", "generative_nats_per_sample", "cpu_s", "wall_s", "failure", "command",
)  # fmt: skip


class Run(NamedTuple):
    """One seed of one trial."""

    name: str
    seed: int
    arguments: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything that has no row yet."""
    parser = argparse.ArgumentParser(description="Train a queue of recipes, one after the other.")
    parser.add_argument("queue", type=Path, metavar="QUEUE.yaml")
    parser.add_argument("--output", type=Path, metavar="DIR", help="runs and results.csv")
    parser.add_argument(
        "--cut", type=float, metavar="S", help="print so many seconds of a manifest, all speakers alike"
    )
    args = parser.parse_args(arguments)
    if args.cut:
        print("\n".join(cut(args.queue, args.cut)))
        return 0
    if args.output is None:
        parser.error("--output is missing; give a folder for the runs")
    args.output.mkdir(parents=True, exist_ok=True)
    while run := next(waiting(args.queue, args.output), None):
        row = train(run, args.output)
        write_row(args.output / "results.csv", row)
        print(f"{run.name}, seed {run.seed}: dev PER {row['dev_per']} {row['failure']}", flush=True)
        if (args.output / "stop").exists():
            break
    return 0


def cut(manifest: Path, seconds: float) -> list[str]:
    """Lines of about this many seconds in all, an utterance of each speaker in turn; their paths absolute."""
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    turns: dict[str, int] = {}
    order = []
    for line in lines:
        turns[line["speaker"]] = turns.get(line["speaker"], 0) + 1
        order.append((turns[line["speaker"]], len(order)))
    chosen, total_s = [], 0.0
    for _, place in sorted(order):
        if total_s >= seconds:
            break
        total_s += lines[place]["duration"]
        audio = (manifest.parent / lines[place]["audio_filepath"]).resolve()
        chosen.append(json.dumps({**lines[place], "audio_filepath": audio.as_posix()}))
    return chosen


def waiting(queue: Path, output: Path) -> Iterator[Run]:
    """The runs of the queue that have no row, a seed of every trial before the next seed of any."""
    trials: list[dict[str, Any]] = yaml.safe_load(queue.read_text(encoding="utf-8"))
    path = output / "results.csv"
    done = set()
    if path.exists():
        with path.open(encoding="utf-8", newline="") as stream:
            done = {(row["trial"], int(row["seed"])) for row in csv.DictReader(stream)}
    for place in range(max(len(trial["seeds"]) for trial in trials)):
        for trial in trials:
            for seed in trial["seeds"][place : place + 1]:
                if (trial["name"], seed) not in done:
                    options = {key: value for key, value in trial.items() if key not in ("name", "seeds")}
                    yield Run(trial["name"], seed, [part for pair in options.items() for part in _argument(*pair)])


def _argument(key: str, value: Any) -> tuple[str, str]:
    return f"--{key}", value if isinstance(value, str) else json.dumps(value)


def train(run: Run, output: Path) -> dict[str, Any]:
    """Fit, from where an earlier attempt stopped, and collect the row."""
    folder = output / f"{run.name}-seed{run.seed}"
    command = [sys.executable, "-m", "wavasr", "fit", *run.arguments, "--seed", str(run.seed), "--run_dir", str(folder)]
    started, before = time.monotonic(), os.times()
    with (output / f"{folder.name}.log").open("a", encoding="utf-8") as log:
        resume = ["--resume"] if (folder / "last.ckpt").exists() else []
        done = subprocess.run([*command, *resume], stdout=log, stderr=subprocess.STDOUT)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {"trial": run.name, "seed": run.seed, "cpu_s": round(cpu_s), "wall_s": round(time.monotonic() - started)}
    row |= {"command": " ".join(command[2:]), "failure": f"exit code {done.returncode}" if done.returncode else ""}
    return row | (figures(folder) if not done.returncode else {})


def figures(folder: Path) -> dict[str, Any]:
    """Error rates with 95 % intervals in per cent; the mean losses of the last tenth of the steps."""
    found: dict[str, Any] = {}
    for split in ("dev", "test"):
        if (path := folder / split / "report.json").exists():
            rate = json.loads(path.read_text(encoding="utf-8"))["per"]
            low, high = rate["ci95"] or (math.nan, math.nan)
            values = (rate["value"], low, high)
            found |= {
                f"{split}_{name}": f"{100 * v:.1f}" for name, v in zip(("per", "low", "high"), values, strict=True)
            }
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found |= {"epochs": int(rows[-1]["epoch"]) + 1, "steps": int(rows[-1]["step"]) + 1}
    for key in ("ctc_nats_per_label", "generative_nats_per_sample"):
        values = [float(row[f"train_{key}"]) for row in rows if row.get(f"train_{key}")]
        last = values[-max(1, len(values) // 10) :]
        found[key] = f"{sum(last) / len(last):.3f}" if last else ""
    return found


def write_row(path: Path, row: dict[str, Any]) -> None:
    """Append to the CSV."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    sys.exit(main())
