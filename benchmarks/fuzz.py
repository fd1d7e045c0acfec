"""Damaged files of every kind: each is read, or refused in one line.

    python -m benchmarks.fuzz [--minutes 5 | --cases N] [--only audio,arpa] [--seed 0] [--output DIR] [--replay FILE...]

Good files of each kind are made, then damaged at random and read in processes of their own. A failure is any exception
but a WavasrError, a crash, more than 20 seconds, or more than 2 GB of memory; the damaged file is kept beside a line
that says what happened.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fuzz_kinds import EXAMPLES, GRAPHS, READERS, ROOT

_LIMIT_S = 20.0  # of processor time
_LONGEST_S = 300.0  # of a busy machine's time, imports too
_LIMIT_BYTES = 2 << 30
_AHEAD = 100
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, 1 << 63)
_TEXTS = (
    b"-1",
    b"0",
    b"9" * 400,
    b"1e999",
    b"nan",
    b"-inf",
    b"[" * 5000,
    b'{"a":' * 2000,
    b"\0",
    b"\xff\xfe",
    b"\n" * 50,
)
_TEXTS += (b'"\\ud800"', b"\xe2\x80\xa8", b"null", b"true", b"../" * 90, b"%s%n", b"\t", b"!!python/object:os.system x")


def main() -> int:
    """Damage and read until the time is over; 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--cases", type=int, help="so many of each kind, however long that takes")
    parser.add_argument("--only", default=",".join(READERS), help="kinds, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "fuzz")
    parser.add_argument("--replay", type=Path, nargs="+", help="read these files, named KIND-..., once")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return _serve()
    if args.replay:
        cases = ((path.name.partition("-")[0], path.name, path.read_bytes()) for path in args.replay)
        return _run(cases, args.output, float("inf"))
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        examples = {kind: EXAMPLES[kind](Path(folder)) for kind in args.only.split(",")}
    cases = _damaged(examples, args.seed)
    if args.cases:
        return _run(itertools.islice(cases, args.cases * len(examples)), args.output, float("inf"))
    return _run(cases, args.output, time.monotonic() + 60 * args.minutes)


# Damage ---------------------------------------------------------------------------------------------------------------


def _damaged(examples: dict[str, list[bytes]], seed: int) -> Iterator[tuple[str, str, bytes]]:
    """(kind, name, content) without end, of each kind in turn; the same for the same seed and examples."""
    for kind in itertools.cycle(examples):
        rng = random.Random(seed)
        content = bytearray(rng.choice(examples[kind]))
        damage = _replace_byte if kind in GRAPHS and rng.random() < 0.8 else _damage
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            damage(content, rng, rng.choice(examples[kind]))
        yield kind, f"{kind}-{seed}", bytes(content)
        seed += 1


def _replace_byte(content: bytearray, rng: random.Random, other: bytes) -> None:
    """Of protocol buffers nearly all other damage ends at the first wrong size."""
    at = rng.randrange(len(content))
    content[at] = rng.choice((content[at] ^ 1 << rng.randrange(8), 0, 1, 0x7F, 0xFF, rng.randrange(256)))


def _damage(content: bytearray, rng: random.Random, other: bytes) -> None:
    # Headers matter most: every other place lies in the first 256 bytes.
    at = rng.randrange(max(1, min(len(content), rng.choice((256, 1 << 40)))))
    size = rng.choice((1, 2, 4, 8, 100, 4000))
    match rng.randrange(9):
        case 0:
            content[at : at + 1] = bytes([rng.randrange(256)])
        case 1:
            width = rng.choice(("<B", ">H", "<H", ">I", "<I", ">Q", "<Q"))
            number = rng.choice(_NUMBERS) & ((1 << 8 * struct.calcsize(width)) - 1)
            content[at : at + struct.calcsize(width)] = struct.pack(width, number)
        case 2:
            del content[at:]
        case 3:
            del content[at : at + size]
        case 4:
            content[at:at] = rng.randbytes(size)
        case 5:
            content[at:at] = content[at : at + size]
        case 6:
            content[at : at + size] = other[at : at + 2 * size]
        case 7:
            content[at : at + size] = bytes(size)
        case 8:
            content[at : at + rng.choice((0, 1, 4))] = rng.choice(_TEXTS)


# Processes ------------------------------------------------------------------------------------------------------------


def _run(cases: Iterator[tuple[str, str, bytes]], output: Path, until: float) -> int:
    counts: Counter[str] = Counter()
    output.mkdir(parents=True, exist_ok=True)
    child = None
    try:
        while time.monotonic() < until and (waiting := list(itertools.islice(cases, _AHEAD))):
            for _, name, content in waiting:
                (output / f"{name}.part").write_bytes(content)
            while waiting:
                child = child or _start()
                # Asked ahead: on a busy machine a question at a time would wait for its turn each time.
                asked = [json.dumps([kind, str(output / f"{name}.part")]) for kind, name, _ in waiting]
                _tell(child, "".join(f"{line}\n" for line in asked))
                while waiting:
                    kind, name, _ = waiting.pop(0)
                    answer = _answer(child)
                    is_good = answer in ("read", "refused")
                    counts[f"{kind} {answer if is_good else 'failed'}"] += 1
                    if is_good:
                        (output / f"{name}.part").unlink()
                        continue
                    (output / f"{name}.part").replace(output / name)
                    print(f"{output / name}: {answer}", flush=True)
                    _stop(child)
                    child = None
                    break
    finally:
        if child is not None:
            _stop(child)
    for what, count in sorted(counts.items()):
        print(f"{what:24} {count:>8,}")
    failures = sum(count for what, count in counts.items() if what.endswith("failed"))
    print(f"{sum(counts.values()):,} cases, {failures} failures")
    return 1 if failures else 0


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--child"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert child.stdout is not None
    child.stdout.readline()  # it is ready
    return child


def _stop(child: subprocess.Popen[str]) -> None:
    with child:  # closes its pipes, and waits
        child.kill()


def _tell(child: subprocess.Popen[str], lines: str) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone, which its answer tells
        child.stdin.write(lines)
        child.stdin.flush()


def _answer(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    watch = threading.Timer(_LONGEST_S, child.kill)
    watch.start()
    answer = child.stdout.readline().strip()
    watch.cancel()
    if not answer:
        return f"crash, or no end within {_LONGEST_S:.0f} s: exit code {child.wait()}"
    status, used_s, message = json.loads(answer)
    if used_s > _LIMIT_S:
        return f"took {used_s:.0f} s"
    return str(message if status == "failed" else status)


def _serve() -> int:
    """Read the files that standard input names, and say how each one went."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from wavasr.errors import WavasrError

    with contextlib.suppress(ValueError, OSError):  # macOS does not know it
        resource.setrlimit(resource.RLIMIT_AS, (4 * _LIMIT_BYTES, 4 * _LIMIT_BYTES))
    answers.write("ready\n")
    answers.flush()
    warm = set()
    for line in sys.stdin:
        kind, path = json.loads(line)
        if kind not in warm:  # imports take time and memory, which are not the file's
            warm.add(kind)
            any_text = Path(path).with_name("any.part")  # here, for readers put what they need beside it
            shutil.copy(ROOT / "LICENSE", any_text)
            try:
                with contextlib.suppress(WavasrError):
                    READERS[kind](any_text)
            finally:
                any_text.unlink()
        started, before, message = time.process_time(), _peak_bytes(), ""
        try:
            status = READERS[kind](Path(path))
        except WavasrError as error:
            status = "refused" if "\n" not in str(error) and len(str(error)) < 2000 else "failed"
            message = f"a message of several lines, or a very long one: {str(error)[:200]!r}"
        except BaseException as error:
            status, message = "failed", f"{type(error).__name__}: {str(error)[:200]}"
        if _peak_bytes() > max(_LIMIT_BYTES, before):
            status, message = "failed", f"used {_peak_bytes() / 1e9:.1f} GB"
        answers.write(json.dumps([status, time.process_time() - started, message]) + "\n")
        answers.flush()
    return 0


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
