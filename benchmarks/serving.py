"""Does a server hold? Live streams in real time, uploads, malformed and aborted requests, a worker that is killed.

    python -m benchmarks.serving MANIFEST [--streams 50] [--uploads 200] [--seconds 30]

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

import wavasr
from wavasr.corpora.manifest import Utterance, read_manifest
from wavasr.corpora.recordings import load_utterance

RATE = 16000
PIECE_S = 0.1
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

    def memory_mb(self) -> float:
        """Resident memory of all processes."""
        return sum(_resident_mb(pid) for pid in self.pids())

    def descriptors(self) -> int:
        """Open files and sockets of the server itself."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


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


async def measure(arguments: argparse.Namespace) -> int:
    """All of it; the exit code."""
    chosen: list[Utterance] = read_manifest(arguments.manifest)[:: max(1, arguments.every)][:12]
    waves = [load_utterance(utterance, RATE) for utterance in chosen]
    files = [utterance.audio.read_bytes() for utterance in chosen]
    expected = [wavasr.transcribe(utterance.audio).text for utterance in chosen]
    server = start()
    rows: list[tuple[str, str]] = []
    bad = 0
    try:
        wrong, seconds = await uploads(server, files, expected, arguments.uploads)
        bad += wrong
        rows.append(
            (
                f"{arguments.uploads} uploads by 16 clients",
                f"{wrong} texts differ; {arguments.uploads / seconds:.1f} a second",
            )
        )
        before = server.memory_mb(), server.descriptors()
        long = [np.resize(wave, round(arguments.seconds * RATE)) for wave in waves]
        streams = [live(server, long[i % len(long)], i * 0.05) for i in range(arguments.streams)]
        found = await asyncio.gather(*streams, return_exceptions=True)
        lost = [each for each in found if isinstance(each, BaseException)]
        bad += len(lost)
        delays = sorted(delay for each in found if isinstance(each, Live) for delay in each.final_delays_s)
        late = delays[int(0.95 * len(delays))] if delays else float("nan")
        rows.append(
            (
                f"{arguments.streams} live streams of {arguments.seconds:g} s in real time",
                f"{len(lost)} lost; finals {statistics.median(delays):.2f} s after the last word (95 %: {late:.2f} s)",
            )
        )
        wrong = await malformed(server, files[0], arguments.malformed)
        bad += wrong
        rows.append((f"{arguments.malformed} malformed requests", f"{wrong} answered neither with a text nor with 400"))
        await aborted(server, files[0] * 1, 100)
        await asyncio.sleep(3)
        after = server.memory_mb(), server.descriptors()
        rows.append(
            (
                "memory before and after the streams, malformed and aborted requests",
                f"{before[0]:.0f} and {after[0]:.0f} MB",
            )
        )
        rows.append(("descriptors before and after", f"{before[1]} and {after[1]}"))
        bad += after[1] > before[1] + 4
        failed = await killed(server, files[0])
        rows.append(("a worker killed while ten uploads are under way", f"{failed} failed"))
        bad += failed > 1
    finally:
        server.process.terminate()
        server.process.wait()
    print("| | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    return int(bad > 0)


class _Rows(list[tuple[str, str]]):
    """Results, shown as they come."""

    def append(self, row: tuple[str, str]) -> None:
        print(f"{row[0]}: {row[1]}", file=sys.stderr)
        super().append(row)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--malformed", type=int, default=500)
    parser.add_argument("--every", type=int, default=10, help="of the manifest's utterances")
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
