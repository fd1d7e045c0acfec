"""What planning an epoch of a large corpus takes: processor time and memory.

python -m benchmarks.planning [--utterances 1000000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from wavasr.corpora.listing import read_listing
from wavasr.training.plan import Plan, RankBatches


def write_manifest(path: Path, utterances: int) -> None:
    """A manifest of recordings that are not there."""
    seconds = np.random.default_rng(0).uniform(1, 20, utterances).round(2)
    words = " ".join(["some words that were said"] * 3)
    with path.open("w", encoding="utf-8") as stream:
        for number, duration_s in enumerate(seconds):
            told = {
                "id": f"u{number}",
                "audio_filepath": f"audio/{number % 999}/{number}.flac",
                "duration": float(duration_s),
            }
            stream.write(json.dumps({**told, "text": words, "speaker": f"s{number % 999}"}) + "\n")


def plan(path: Path) -> str:
    """Read a manifest and plan an epoch for the second of four processes."""
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.process_time()
    listing = read_listing([path])
    read_s = time.process_time() - started
    batches = RankBatches(Plan(listing.duration_s, 600.0, 16000), 1, 4).batches(0)
    planned_s = time.process_time() - started - read_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{len(listing)} utterances, {path.stat().st_size / 1e6:.0f} MB: read in {read_s:.1f} s of processor time, an "
        f"epoch of {len(batches)} batches "
        f"planned in {planned_s:.1f} s; {before_mb:.0f} MB before, {peak_mb:.0f} at most"
    )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=1_000_000)
    parser.add_argument("--manifest", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.manifest:
        print(plan(args.manifest))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.jsonl"
        write_manifest(path, args.utterances)
        subprocess.run([sys.executable, "-m", "benchmarks.planning", "--manifest", str(path)], check=True)


if __name__ == "__main__":
    main()
