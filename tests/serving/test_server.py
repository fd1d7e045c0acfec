"""Who may use a server, and how it lives on: keys, origins, lost workers, signals, metrics."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import signal
import time
from pathlib import Path
from socket import create_connection as socket_to

import httpx
import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.serving.conftest import Running, started, stopped
from wavasr import cli
from wavasr.errors import ConfigError
from wavasr.serving.settings import Limits, Settings

PATH = "/v1/audio/transcriptions"
KEY = {"authorization": "Bearer secret"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic secret"}, 401),
        ({"authorization": "bearer secret"}, 200),
        ({"x-api-key": "secret"}, 200),
        ({**KEY, "origin": "http://evil.example"}, 403),
        ({**KEY, "host": "evil.example"}, 403),
        ({**KEY, "origin": "http://["}, 403),
        ({**KEY, "host": "[::1"}, 403),
    ],
)
def test_who_may_ask(small: Running, headers: dict[str, str], status: int) -> None:
    response = httpx.get(small.url + "/v1/models", headers=headers)
    assert response.status_code == status
    assert ("www-authenticate" in response.headers) == (status == 401)


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/page/page.js"])
def test_the_page_and_the_health_need_no_key(small: Running, path: str) -> None:
    response = httpx.get(small.url + path)
    assert response.status_code == 200
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/%2e%2e%2fapp.py", "/page/docs.txt", "/nothing"])
def test_no_other_file_is_served(server: Running, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 404


def test_a_websocket_is_refused_before_it_is_accepted(small: Running) -> None:
    for path in ("/", "/v1/stream", "/v1/realtime"):
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://{small.host}{path}"):
            pass
        assert refused.value.response.status_code == 401
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://{small.host}/v1/stream", origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


def test_browsers_send_the_key_as_a_subprotocol(small: Running) -> None:
    with connect(f"ws://{small.host}/v1/stream", subprotocols=["wavasr", "openai-insecure-api-key.secret"]) as socket:
        assert socket.subprotocol == "wavasr"


def test_sessions_beyond_the_limit_are_told_to_come_later(small: Running) -> None:
    with connect(f"ws://{small.host}/v1/stream", additional_headers=KEY) as first:
        first.send('{"sample_rate": 16000}')
        first.send(bytes(32000))
        first.send(bytes(32000))
        deadline = time.monotonic() + 10
        while "wavasr_live_sessions 1" not in httpx.get(small.url + "/metrics", headers=KEY).text:
            assert time.monotonic() < deadline
        with connect(f"ws://{small.host}/v1/stream", additional_headers=KEY) as second:
            second.send('{"sample_rate": 16000}')
            with pytest.raises(ConnectionClosed):
                second.recv()
        assert second.close_code == 1013


def test_a_lost_worker_loses_no_upload(tiny_model: Path, tmp_path: Path) -> None:
    running = started("--workers", "1", "--wyoming-port", "0", "--model", f"tiny={tiny_model}")
    try:
        soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000 * 200), 16000)
        content = (tmp_path / "a.wav").read_bytes()
        before = running.workers()

        def ask() -> httpx.Response:
            return httpx.post(running.url + PATH, files={"file": content}, timeout=120)

        with connect(f"ws://{running.host}/v1/stream") as live, concurrent.futures.ThreadPoolExecutor() as threads:
            live.send('{"sample_rate": 16000}')
            live.send(bytes(3200))
            asked = threads.submit(ask)
            time.sleep(0.3)
            os.kill(before[0], signal.SIGKILL)
            interrupted = asked.result()
            with pytest.raises(ConnectionClosed):
                for _ in range(100):
                    live.send(bytes(3200))
                    time.sleep(0.05)
        assert live.close_code == 1011
        assert running.workers() != before
        whole = ask()
        assert whole.status_code == interrupted.status_code == 200 and whole.text == interrupted.text
        assert "wavasr_workers_lost 1" in httpx.get(running.url + "/metrics").text
    finally:
        stopped(running)


def test_metrics_count_the_audio_of_sessions_whose_client_just_goes(server: Running) -> None:
    def seconds(route: str) -> float:
        lines = httpx.get(server.url + "/metrics").text.splitlines()
        return sum(
            float(line.split()[1]) for line in lines if line.startswith(f'wavasr_audio_seconds_total{{route="{route}"')
        )

    second = {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(48000)).decode()}
    started = {"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}
    chunk = {"type": "audio-chunk", "payload_length": 32000}
    routes = ("/v1/stream", "/v1/realtime", "vosk", "wyoming")
    before = {route: seconds(route) for route in routes}
    for path, messages in (
        ("/v1/stream", ['{"sample_rate": 16000}', bytes(32000)]),
        ("/v1/realtime", [json.dumps(second)]),
        ("/", ['{"config": {"sample_rate": 16000}}', bytes(32000)]),
    ):
        with connect(f"ws://{server.host}{path}") as socket:
            for message in messages:
                socket.send(message)
    with socket_to(("127.0.0.1", server.wyoming_port)) as plain:
        plain.sendall(json.dumps(started).encode() + b"\n" + json.dumps(chunk).encode() + b"\n" + bytes(32000))
    deadline = time.monotonic() + 20
    while (found := {route: seconds(route) - before[route] for route in routes}) != pytest.approx(
        dict.fromkeys(routes, 1.0)
    ):
        assert time.monotonic() < deadline, found


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_signals_end_sessions_and_the_workers(tiny_model: Path, free_port: int, sign: int, code: int) -> None:
    wyoming = free_port + 1
    running = started("--workers", "1", "--wyoming-port", str(wyoming), "--model", f"tiny={tiny_model}")
    workers = running.workers()
    with connect(f"ws://{running.host}/v1/stream") as live, socket_to(("127.0.0.1", wyoming)) as plain:
        live.send('{"sample_rate": 16000}')
        live.send(bytes(3200))
        time.sleep(0.2)
        assert stopped(running, sign) == code
        with pytest.raises(ConnectionClosed):
            while True:
                live.recv(5)
        assert plain.recv(1) == b""  # closed
    assert live.close_code == 1001
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
    assert not any("Traceback" in line for line in running.lines)


def test_metrics_count_requests_and_audio(server: Running, repository: Path) -> None:
    def value(name: str) -> float:
        lines = httpx.get(server.url + "/metrics").text.splitlines()
        return sum(
            float(line.split()[1]) for line in lines if line.startswith(name + "{") or line.startswith(name + " ")
        )

    count, seconds, speeds = (
        value("wavasr_requests_total"),
        value("wavasr_audio_seconds_total"),
        value("wavasr_speed_count"),
    )
    clip = repository / "data" / "samples" / "plain-sentence.flac"
    httpx.post(server.url + PATH, files={"file": clip.read_bytes()}, timeout=60)
    assert value("wavasr_requests_total") == count + 1
    assert value("wavasr_audio_seconds_total") == pytest.approx(seconds + soundfile.info(clip).duration, abs=0.01)
    assert value("wavasr_speed_count") == speeds + 1
    for content in (clip.read_bytes()[:50], b""):  # what is refused counts once too
        assert httpx.post(server.url + PATH, files={"file": content}, timeout=60).status_code == 400
    for said in ({"input": "..."}, {}):
        assert httpx.post(server.url + "/v1/audio/speech", json=said, timeout=60).status_code == 400
    assert value("wavasr_requests_total") == count + 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "give --api-key, or --insecure"),
        (["--port", "99999"], "expected 0 to 65535"),
        (["--model", "missing.wavasr"], "no such model file"),
        (["--upload-mb", "0"], "--upload-mb is 0"),
        (["--api-key", ""], "an empty API key"),
    ],
)
def test_mistakes_at_start_are_one_line(arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--port", "0", "--wyoming-port", "0", *arguments]) == 2
    said = capfd.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_one_line(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--port", str(server.port), "--wyoming-port", "0"]) == 2
    assert "is taken; give another one with --port" in capsys.readouterr().err


def test_settings_name_the_wrong_value() -> None:
    with pytest.raises(ConfigError, match="--queue is 0"):
        Limits(queue=0)
    assert Settings(host="::1").default_model == "default"
    with pytest.raises(ConfigError, match="other machines"):
        Settings(host="192.0.2.1")
    assert Settings(host="192.0.2.1", insecure=True).model_for("whisper-1") == "default"
    assert Settings(strict_models=True).model_for("whisper-1") is None


def test_health(server: Running) -> None:
    assert httpx.get(server.url + "/health").json()["status"] == "ok"
    assert json.loads(httpx.get(server.url + "/nothing").text)["error"]["message"].startswith("GET /nothing: not found")
