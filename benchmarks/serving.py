"""Does a server hold? Live streams in real time, uploads, malformed and aborted requests, a worker that is killed.

    python -m benchmarks.serving MANIFEST [--streams 50] [--uploads 200] [--seconds 30] [--rounds 0]

With --rounds, streams, malformed and aborted requests come again so many times, and the memory and the descriptors of
each process after each time are printed: they grow with the most that was ever done at once, but not with the rounds.

MANIFEST lists real speech (../shared/data/librispeech/dev.jsonl). The server is started here, on this machine. Prints a
Markdown table; exits with 1 if a text differs, a request is lost, or memory or descriptors grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import wavasr
from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import read_manifest

RATE = 16000
PIECE_S = 0.1
SETTLE_S = 3.0  # that the server gets to forget what has ended
PATH = "/v1/audio/transcriptions"


@dataclass
class Server:
    """A server process."""

    process: subprocess.Popen[str]
    url: str

    def pids(self) -> list[int]:
        """The server and its workers."""
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout
        return [self.process.pid, *map(int, listed.split())]

    def memory_mb(self) -> list[float]:
        """Resident memory of each process."""
        return [_resident_mb(pid) for pid in self.pids()]

    def descriptors(self) -> int:
        """Open files and sockets of all processes."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids())


def _resident_mb(pid: int) -> float:
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    except OSError:  # it has just ended
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def start() -> Server:
    """A server on a free port."""
    command = [sys.executable, "-m", "wavasr", "serve", "--port", "0", "--wyoming-port", "0", "--queue", "400"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://[\d.]+:\d+", line):
            return Server(process, found[0])
    raise SystemExit("the server did not start")


@dataclass
class Live:
    """What one live stream gave."""

    texts: list[str] = field(default_factory=list)
    final_delays_s: list[float] = field(default_factory=list)


async def live(server: Server, samples: np.ndarray, delay_s: float) -> Live:
    """Push samples in real time; how long after a word was said its final text came."""
    await asyncio.sleep(delay_s)
    found = Live()
    content = np.round(samples * 32767).astype("<i2").tobytes()
    async with connect(server.url.replace("http", "ws") + "/v1/stream", open_timeout=30) as socket:
        await socket.send(json.dumps({"sample_rate": RATE}))
        began_s = time.monotonic()

        async def push() -> None:
            step = 2 * round(PIECE_S * RATE)
            for start in range(0, len(content), step):
                await asyncio.sleep(max(0.0, began_s + start / 2 / RATE + PIECE_S - time.monotonic()))
                await socket.send(content[start : start + step])
            await socket.send('{"type": "finish"}')

        pushing = asyncio.create_task(push())
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "final":
                found.texts.append(event["text"])
                found.final_delays_s.append(time.monotonic() - began_s - event["end_s"])
        await pushing
    return found


async def upload(client: httpx.AsyncClient, server: Server, content: bytes) -> httpx.Response:
    """One request."""
    return await client.post(server.url + PATH, files={"file": ("a", content)}, timeout=600)


async def in_parallel(work: Sequence[Callable[[], Awaitable[None]]], workers: int) -> None:
    """Do all of it, so many at a time."""
    waiting = list(work)[::-1]

    async def worker() -> None:
        while waiting:
            await waiting.pop()()

    await asyncio.gather(*(worker() for _ in range(workers)))


async def uploads(server: Server, files: Sequence[bytes], expected: Sequence[str], count: int) -> tuple[int, float]:
    """How many of the texts differ, and seconds in all."""
    wrong = 0

    async def one(index: int) -> None:
        nonlocal wrong
        response = await upload(client, server, files[index % len(files)])
        wrong += response.status_code != 200 or response.json()["text"] != expected[index % len(files)]

    began_s = time.monotonic()
    async with httpx.AsyncClient() as client:
        await in_parallel([lambda index=index: one(index) for index in range(count)], 16)  # type: ignore[misc]
    return wrong, time.monotonic() - began_s


async def malformed(server: Server, file: bytes, count: int) -> int:
    """Requests that are damaged at random; how many were answered otherwise than as the client's mistake or a text."""
    wrong, chance = 0, random.Random(0)

    async def one() -> None:
        nonlocal wrong
        content = bytearray(file[: chance.randrange(1, len(file))])
        for _ in range(20):
            content[chance.randrange(len(content))] = chance.randrange(256)
        response = await upload(client, server, bytes(content))
        wrong += response.status_code not in (200, 400)

    async with httpx.AsyncClient() as client:
        await in_parallel([one] * count, 16)
    return wrong


async def aborted(server: Server, file: bytes, count: int) -> None:
    """Requests whose client goes after a random time."""
    chance = random.Random(1)

    async def one() -> None:
        try:
            async with httpx.AsyncClient() as client:
                await asyncio.wait_for(upload(client, server, file), chance.uniform(0.01, 0.5))
        except (TimeoutError, httpx.HTTPError):
            return

    await in_parallel([one] * count, 16)


async def killed(server: Server, file: bytes) -> int:
    """Kill a worker while ten uploads are under way; how many of them failed."""
    async with httpx.AsyncClient() as client:
        asked = [asyncio.create_task(upload(client, server, file)) for _ in range(10)]
        await asyncio.sleep(0.5)
        workers = [pid for pid in server.pids()[1:] if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(workers[0], signal.SIGKILL)
        return sum(answer.status_code != 200 for answer in await asyncio.gather(*asked))


class Measured:
    """Rows of a table, shown as they come, and how many things went wrong."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.bad = 0

    def add(self, name: str, value: str, bad: int = 0) -> None:
        """One row."""
        print(f"{name}: {value}", file=sys.stderr)
        self.rows.append((name, value))
        self.bad += bad


async def streams(server: Server, waves: Sequence[np.ndarray], count: int, seconds: float, measured: Measured) -> None:
    """So many live streams at once."""
    long = [np.resize(wave, round(seconds * RATE)) for wave in waves]
    work = [live(server, long[i % len(long)], i * 0.05) for i in range(count)]
    found = await asyncio.gather(*work, return_exceptions=True)
    refused = [one for one in found if isinstance(one, ConnectionClosed) and one.rcvd and one.rcvd.code == 1013]
    lost = sum(isinstance(one, BaseException) for one in found) - len(refused)
    delays = sorted(delay for one in found if isinstance(one, Live) for delay in one.final_delays_s) or [float("nan")]
    text = f"{len(refused)} refused, {lost} lost; finals {statistics.median(delays):.2f} s after the last word"
    late = f" (95 %: {delays[int(0.95 * len(delays))]:.2f} s, at most {delays[-1]:.2f} s)"
    measured.add(f"{count} live streams of {seconds:g} s in real time", text + late, lost)


async def rounds(server: Server, files: Sequence[bytes], waves: Sequence[np.ndarray], args: argparse.Namespace) -> int:
    """The same again and again; whether memory or descriptors grew after the second time."""
    kept: list[tuple[list[float], int]] = []
    for number in range(1, args.rounds + 1):
        await streams(server, waves, args.streams, args.seconds, Measured())
        await malformed(server, files[0], args.malformed // args.rounds)
        await aborted(server, files[0], 100 // args.rounds)
        await asyncio.sleep(SETTLE_S)
        kept.append((server.memory_mb(), server.descriptors()))
        each = ", ".join(f"{one:.0f}" for one in kept[-1][0])
        print(f"| {number} | {each} | {sum(kept[-1][0]):.0f} | {kept[-1][1]} |", flush=True)
    first, last = kept[min(1, len(kept) - 1)], kept[-1]
    return int(sum(last[0]) > 1.1 * sum(first[0]) or last[1] > first[1])


async def measure(server: Server, files: Sequence[bytes], expected: Sequence[str], args: argparse.Namespace) -> int:
    """All of it once; how many things went wrong."""
    waves = [load_audio(file, RATE) for file in files]
    if args.rounds:
        print("| round | MB: server, workers | MB in all | descriptors |\n|---|---|---|---|")
        return await rounds(server, files, waves, args)
    measured = Measured()
    wrong, seconds = await uploads(server, files, expected, args.uploads)
    each = f"{wrong} texts differ; {args.uploads / seconds:.1f} a second"
    measured.add(f"{args.uploads} uploads by 16 clients", each, wrong)
    before = sum(server.memory_mb()), server.descriptors()
    await streams(server, waves, args.streams, args.seconds, measured)
    wrong = await malformed(server, files[0], args.malformed)
    measured.add(f"{args.malformed} malformed requests", f"{wrong} answered neither with a text nor with 400", wrong)
    await aborted(server, files[0], 100)
    await asyncio.sleep(SETTLE_S)
    after = sum(server.memory_mb()), server.descriptors()
    what = "before and after the streams, malformed and aborted requests"
    measured.add(f"memory {what}", f"{before[0]:.0f} and {after[0]:.0f} MB", after[0] > 1.3 * before[0])
    measured.add(f"descriptors {what}", f"{before[1]} and {after[1]}", after[1] > before[1] + 4)
    failed = await killed(server, files[0])
    measured.add("a worker killed while ten uploads are under way", f"{failed} failed", failed)
    print("| | |\n|---|---|")
    for name, value in measured.rows:
        print(f"| {name} | {value} |")
    return measured.bad


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--malformed", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--every", type=int, default=10, help="of the manifest's utterances")
    args = parser.parse_args()
    chosen = read_manifest(args.manifest)[:: max(1, args.every)][:12]
    files = [utterance.audio.read_bytes() for utterance in chosen]
    expected = [] if args.rounds else [wavasr.transcribe(utterance.audio).text for utterance in chosen]
    server = start()
    try:
        return int(asyncio.run(measure(server, files, expected, args)) > 0)
    finally:
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    sys.exit(main())
