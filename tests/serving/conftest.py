"""Servers that run as users run them: the shipped model without a key, and a tiny one with a key and small limits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

START_S = 60.0


@dataclass
class Running:
    """A server process, and what it says."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    port: int = 0
    wyoming_port: int = 0
    reader: threading.Thread = field(default_factory=threading.Thread)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def workers(self) -> list[int]:
        """The ids of its worker processes."""
        listed = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "spawn_main"], capture_output=True, text=True
        )
        return [int(line) for line in listed.stdout.split()]


def started(*arguments: str, environment: dict[str, str] | None = None) -> Running:
    command = [sys.executable, "-m", "wavasr", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    )
    running = Running(process)
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                running.lines.append(line)
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    running.port = int(found[1])
                    ready.set()
        ready.set()

    running.reader = threading.Thread(target=read, daemon=True)
    running.reader.start()
    if not ready.wait(START_S) or not running.port:
        process.kill()
        pytest.fail(f"the server did not start: {running.lines}")
    return running


def stopped(running: Running, sign: int = signal.SIGTERM) -> int:
    running.process.send_signal(sign)
    code = running.process.wait(30)
    running.reader.join(30)
    return code


@pytest.fixture(scope="session")
def server(free_port: int) -> Iterator[Running]:
    """The shipped model, for everybody on this machine, with the Wyoming protocol."""
    running = started("--workers", "2", "--wyoming-port", str(free_port))
    running.wyoming_port = free_port
    yield running
    stopped(running)


@pytest.fixture(scope="session")
def small(tiny_model: Path) -> Iterator[Running]:
    """A tiny model, with a key and small limits."""
    limits = ["--upload-mb", "0.3", "--audio-s", "8", "--sessions", "1", "--idle-s", "20"]
    arguments = ["--workers", "1", "--wyoming-port", "0", "--model", f"tiny={tiny_model}", "--strict-models", *limits]
    running = started(*arguments, environment={"WAVASR_API_KEY": "secret"})
    yield running
    stopped(running)


@pytest.fixture(scope="session")
def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
