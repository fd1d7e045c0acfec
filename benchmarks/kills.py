"""Kill a command at random times with -9 and run it again: are its results those of an uninterrupted run?

    python -m benchmarks.kills --data DIR --output OUT [--kills 12] [--recipe own.yaml] [--only NAME,NAME]

DIR holds train.jsonl and dev.jsonl of words (`wavasr prepare folder`). `wavasr fit` of the recipe is killed KILLS times
in one run and resumed each time; every other command that writes files is killed three times and run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from wavasr.corpora.manifest import read_manifest, write_manifest
from wavasr.language.arpa import write_arpa
from wavasr.language.ngrams import estimate
from wavasr.network.files import asset

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"
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


def command_survives(name: str, arguments: list[str], folder: Path, rng: random.Random) -> str:
    """Kill a command that writes into a folder three times; whether a rerun makes the same files, and none beside."""
    whole_s = run(arguments)
    assert whole_s is not None
    expected = fingerprint(folder)
    half = kills = 0
    for _ in range(3):
        remove(folder)
        kills += run(arguments, rng.uniform(0.3, 0.95) * whole_s) is None
        found = fingerprint(folder)
        half += any(file in expected and expected[file] != digest for file, digest in found.items())
    run(arguments)
    same = fingerprint(folder) == expected
    return f"{name}: {kills} kills; {half} half-written files; the rerun {'is equal' if same else 'DIFFERS'}"


def fingerprint(folder: Path) -> dict[str, str]:
    """What is in each file of a folder; leftovers too. Of what depends on the time that it took, how large it is."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(path: Path) -> str:
    if path.name == "report.json":
        return f"{len(json.loads(path.read_text(encoding='utf-8')))} entries"
    if path.name in ("report.html", "report.md"):
        return str(path.read_text(encoding="utf-8").rstrip().endswith("</html>") or path.suffix == ".md")
    if path.suffix == ".safetensors":  # of `warmup --minutes`
        return f"{path.stat().st_size} bytes"
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    parser.add_argument("--only", help="names of commands, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    wanted = args.only.split(",") if args.only else None
    if wanted is None or "fit" in wanted:
        print(fit_survives(args.recipe, args.data, args.output, args.kills, rng), flush=True)
    for name, arguments in commands(args.data, args.output).items():
        if wanted is None or name in wanted:
            folder = args.output / name.replace(" ", "-")
            remove(folder)
            told = [argument.replace("@", str(folder)) for argument in (*name.split(), *arguments)]
            print(command_survives(name, told, folder, rng), flush=True)


def commands(data: Path, output: Path) -> dict[str, list[str]]:
    """The arguments of each command; @ stands for the folder that it writes into."""
    train, dev, clip = str(data / "train.jsonl"), str(data / "dev.jsonl"), str(SAMPLES / "plain-sentence.flac")
    few = output / "few.jsonl"
    write_manifest(few, read_manifest(data / "dev.jsonl")[:3])
    model = output / "model.wavasr"
    shutil.copy(asset("default.wavasr"), model)
    arpa = output / "small.arpa"
    write_arpa(estimate([utterance.text.lower() for utterance in read_manifest(data / "dev.jsonl")]), arpa)
    return {
        "prepare": ["jsonl", dev, "--output", "@"],
        "align": ["--manifest", dev, "--output", "@/phones.jsonl"],
        "lm build": [dev, "-o", "@/lm.arpa"],
        "lm tune": ["--manifest", str(few), "--lm", str(arpa), "-o", "@/tuned.wavasr"],
        "export": ["default", "-o", "@/model.onnx"],
        "shard": [dev, "--output", "@"],
        "evaluate": ["--manifest", str(few), "--report", "@"],
        "transcribe": [*map(str, sorted(SAMPLES.glob("*.flac"))), "--format", "srt", "--output-dir", "@"],
        "calibrate": ["--model", str(model), "--manifest", str(few), "--output", "@/calibrated.wavasr"],
        "adapt": [clip, "-o", "@/adapted.wavasr"],
        "warmup": [
            "--data.train",
            train,
            "--data.dev",
            dev,
            "--output",
            "@/front-end.safetensors",
            "--minutes",
            "0.05",
        ],
        "speak": ["The old man walked.", "-o", "@/spoken.wav"],
        "generate": ["--model", "violin", "--seconds", "0.5", "-o", "@/made.wav"],
        "show": [clip, "-o", "@/picture.png"],
    }


if __name__ == "__main__":
    main()
