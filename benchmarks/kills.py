"""Kill a command at random times with -9 and run it again: are its results those of an uninterrupted run?

    python -m benchmarks.kills --data DIR --output OUT [--kills 12] [--recipe own.yaml]

DIR holds train.jsonl and dev.jsonl of words (`wavasr prepare folder`). `wavasr fit` of the recipe is killed KILLS times
in one run and resumed each time; prepare, align, lm build, export and shard are killed three times each and run again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

WAVASR = [sys.executable, "-m", "wavasr"]


def run(arguments: list[str], after_s: float | None = None) -> float | None:
    """Run a command, killed after some seconds; the seconds that it took, None where it was killed."""
    started = time.monotonic()
    process = subprocess.Popen([*WAVASR, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=after_s)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}: {said.strip().splitlines()[-1]}")
    return time.monotonic() - started


def fit_survives(recipe_name: str, data: Path, output: Path, kills: int, rng: random.Random) -> str:
    """Kill a training at random times; what became of it."""
    recipe = [
        *("fit", "--config", recipe_name, "--data.root", str(data), "--checkpoint_minutes", "0.02"),
        *("--trainer.max_epochs", "3", "--logger", "csv"),
    ]
    whole, killed = output / "whole", output / "killed"
    whole_s = run([*recipe, "--run_dir", str(whole)])
    assert whole_s is not None
    begun, done, lost = 0, None, 0
    while done is None:
        resume = ["--resume"] if (killed / "last.ckpt").exists() else []
        after_s = rng.uniform(0.2, 0.9) * whole_s if begun < kills else None
        done = run([*recipe, "--run_dir", str(killed), *resume], after_s)
        lost += done is None
        begun += 1
    states = [torch.load(run_dir / "last.ckpt", weights_only=True)["state_dict"] for run_dir in (whole, killed)]
    same = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    left = [path.name for path in killed.rglob("*.part")]
    return f"fit: {lost} kills; weights {'equal to the bit' if same else 'DIFFER'}; leftovers: {left or 'none'}"


def command_survives(name: str, arguments: list[str], made: Path, rng: random.Random) -> str:
    """Kill a command three times; whether a rerun makes the same files."""
    whole_s = run(arguments)
    assert whole_s is not None
    expected = fingerprint(made)
    half = 0
    for _ in range(3):
        remove(made)
        run(arguments, rng.uniform(0.3, 0.95) * whole_s)
        found = fingerprint(made)
        half += any(file in expected and expected[file] != digest for file, digest in found.items())
    run(arguments)
    same = fingerprint(made) == expected
    return f"{name}: 3 kills; {half} half-written files; the rerun {'is equal' if same else 'DIFFERS'}"


def fingerprint(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of all in a folder; leftovers too."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.exists() else []
    return {str(p.relative_to(path.parent)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def remove(path: Path) -> None:
    """A file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--recipe", default="own.yaml")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    print(fit_survives(args.recipe, args.data, args.output, args.kills, rng), flush=True)
    dev, out = str(args.data / "dev.jsonl"), args.output
    commands = {
        "prepare": (["prepare", "jsonl", dev, "--output", str(out / "prepared")], out / "prepared"),
        "align": (["align", "--manifest", dev, "--output", str(out / "phones.jsonl")], out / "phones.jsonl"),
        "lm build": (["lm", "build", dev, "-o", str(out / "lm.arpa")], out / "lm.arpa"),
        "export": (["export", "default", "-o", str(out / "model.onnx")], out / "model.onnx"),
        "shard": (["shard", dev, "--output", str(out / "shards")], out / "shards"),
    }
    for name, (arguments, made) in commands.items():
        print(command_survives(name, arguments, made, rng), flush=True)


if __name__ == "__main__":
    main()
