"""Does the memory of a worker of `wavasr bulk` grow with what it has done? A manifest again and again, and its memory.

python -m benchmarks.bulk_memory MANIFEST --hours 20 [bulk's options, such as --model own.wavasr --no-vad]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

from wavasr.corpora.manifest import read_manifest, write_manifest


def memory_mb(root: int, field: str) -> float:
    """Memory of a process and all below it, as Linux counts it: VmRSS now, VmHWM at each process's highest."""
    total, waiting = 0.0, [root]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            status = (process / "status").read_text(encoding="utf-8")
            waiting += map(int, (process / "task" / process.name / "children").read_text(encoding="utf-8").split())
        except OSError:  # it has ended meanwhile
            continue
        total += sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{field}:"))
    return total


def main() -> None:
    """Print megabytes after each hour of audio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--hours", type=float, default=20.0)
    args, options = parser.parse_known_args()
    utterances, chosen, total_s = read_manifest(args.manifest), [], 0.0
    for number in count():
        if total_s >= 3600 * args.hours:
            break
        utterance = utterances[number % len(utterances)]
        chosen.append(replace(utterance, id=f"{number}"))
        total_s += utterance.duration_s
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder) / "many.jsonl", chosen)
        output, block = Path(folder) / "texts", 50
        command = ["bulk", f"{folder}/many.jsonl", "--output", str(output), "--workers", "1", "--block", str(block)]
        bulk = subprocess.Popen([sys.executable, "-m", "wavasr", *command, "--quiet", *options])
        told = 0.0
        while bulk.poll() is None:
            done = len(list(output.glob("many-*.jsonl")))
            hours = sum(utterance.duration_s for utterance in chosen[: done * block]) / 3600
            if done and hours >= told:
                now, highest = memory_mb(bulk.pid, "VmRSS"), memory_mb(bulk.pid, "VmHWM")
                print(f"{hours:6.2f} h of audio done: {now:.0f} MB, {highest:.0f} MB at the highest", flush=True)
                told = float(int(hours) + 1)
            time.sleep(1)
        raise SystemExit(bulk.returncode)


if __name__ == "__main__":
    main()
