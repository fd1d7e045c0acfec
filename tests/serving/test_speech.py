"""Speech from a running server: OpenAI's API, and Wyoming's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import httpx
import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize

import wavasr
from tests.serving.conftest import Running
from wavasr.audio.reading import load_audio
from wavasr.serving.pool import Pool, WorkerLost
from wavasr.serving.server import _Server, bound
from wavasr.serving.settings import Settings
from wavasr.serving.speech import FORMATS, Encoder
from wavasr.serving.state import State
from wavasr.serving.worker import Answer

PATH = "/v1/audio/speech"
TEXT = "Go left."


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus", "aac"])
def test_formats_hold_the_same_sound(server: Running, format: str) -> None:
    response = httpx.post(
        server.url + PATH, json={"input": TEXT, "response_format": format, "voice": "alloy"}, timeout=60
    )
    assert response.status_code == 200, response.text
    expected, rate = wavasr.speak(TEXT)
    samples = load_audio(response.content, rate)
    if format in ("wav", "flac"):
        np.testing.assert_allclose(samples, expected, atol=2e-4)
    assert len(samples) == pytest.approx(len(expected), abs=rate / 8)  # ADTS has no place to say what is padding


def test_sound_is_sent_while_it_is_spoken(server: Running) -> None:
    body = {"input": "Go left. " * 40, "response_format": "pcm"}
    with httpx.stream("POST", server.url + PATH, json=body, timeout=60) as response:
        assert "content-length" not in response.headers
        first = next(response.iter_raw())
    assert 0 < len(first) < 2 * 16000 * 10  # of more than 20 s; and a client that goes away stops the voice
    again = httpx.post(server.url + PATH, json={"input": TEXT, "response_format": "pcm"}, timeout=60)
    assert len(again.content) == 2 * len(wavasr.speak(TEXT)[0])


class Failing:
    """A pool whose voice fails after a second of sound."""

    sessions = waiting = lost = 0

    async def speak(self, text: str, voice: str, rate: float) -> AsyncIterator[Answer]:
        for _ in range(2):
            sound = (0.3 * np.sin(np.arange(8000) / 10)).astype(np.float32)
            yield Answer(0, done=False, sound=sound, sample_rate=16000)
        raise WorkerLost("its process ended")


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_voice_that_fails_amid_its_sound_is_told(format: str, caplog: pytest.LogCaptureFixture) -> None:
    async def use() -> tuple[bytes, str]:
        listening = bound("127.0.0.1", 0)
        server = _Server(State(Settings(), cast(Pool, Failing())))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        url, content = f"http://127.0.0.1:{listening.getsockname()[1]}", b""
        body = {"input": TEXT, "response_format": format}
        async with httpx.AsyncClient(base_url=url) as client:
            async with client.stream("POST", PATH, json=body) as response:
                if format == "wav":  # sent at the end: nothing has begun
                    assert response.status_code == 500
                else:
                    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                        async for part in response.aiter_raw():
                            content += part
            counted = (await client.get("/metrics")).text
        server.should_exit = True
        await serving
        return content, counted

    content, counted = asyncio.run(use())
    assert f'wavasr_requests_total{{route="{PATH}",status="500"}} 1\n' in counted
    assert f'wavasr_audio_seconds_total{{route="{PATH}"}} 1.000\n' in counted
    if format == "wav":
        return
    assert caplog.messages == [
        f"{PATH}: an answer that had begun is cut off: the voice failed (its process ended); send the request again"
    ]
    samples = np.frombuffer(content, "<i2") / 32768 if format == "pcm" else load_audio(content, 16000)
    assert len(samples) == pytest.approx(16000, abs=2000)  # what was said is a whole file


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"wav", "pcm"}))
def test_pieces_are_one_file(format: str) -> None:
    samples = (0.3 * np.sin(np.arange(48000) / 10)).astype(np.float32)
    encoder = Encoder(format, 16000)
    pieces = [encoder.feed(samples[start : start + 8000]) for start in range(0, 48000, 8000)] + [encoder.finish()]
    assert sum(map(bool, pieces)) >= 4  # sent as it comes, not at the end
    decoded = load_audio(b"".join(pieces), 16000)
    assert len(decoded) == pytest.approx(48000, abs=2000)
    assert np.sqrt(np.square(decoded[4000:44000]).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


def test_raw_samples(server: Running) -> None:
    response = httpx.post(server.url + PATH, json={"input": TEXT, "response_format": "pcm", "speed": 1.0}, timeout=60)
    assert len(response.content) == 2 * len(wavasr.speak(TEXT)[0])
    assert httpx.get(server.url + "/v1/audio/voices").json() == {"voices": ["kathleen"]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": "..."}, "input"),
        ({"input": "x" * 100_001}, "input"),
        ({"input": TEXT, "response_format": "exe"}, "response_format"),
        ({"input": TEXT, "speed": 9}, "speed"),
        ({"input": TEXT, "speed": "fast"}, "speed"),
    ],
)
def test_mistakes_name_the_field(server: Running, body: dict[str, object], param: str) -> None:
    response = httpx.post(server.url + PATH, json=body, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"[" * 100_000])
def test_a_body_that_is_no_json_is_a_mistake(server: Running, content: bytes) -> None:
    assert httpx.post(server.url + PATH, content=content, timeout=60).status_code == 400


def test_unknown_voices_are_refused_where_names_are_strict(small: Running) -> None:
    headers = {"authorization": "Bearer secret"}
    response = httpx.post(small.url + PATH, json={"input": TEXT, "voice": "alloy"}, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "voice_not_found")


def test_wyoming_speaks(server: Running) -> None:
    async def use() -> tuple[Info, AudioStart, bytes]:
        async with AsyncTcpClient("127.0.0.1", server.wyoming_port) as client:
            await client.write_event(Describe().event())
            described = await client.read_event()
            assert described is not None
            await client.write_event(Synthesize(TEXT).event())
            start, content = None, b""
            while (event := await client.read_event()) is not None and not AudioStop.is_type(event.type):
                if AudioStart.is_type(event.type):
                    start = AudioStart.from_event(event)
                elif AudioChunk.is_type(event.type):
                    content += AudioChunk.from_event(event).audio
            assert start is not None
            return Info.from_event(described), start, content

    info, start, content = asyncio.run(use())
    assert [voice.name for voice in info.tts[0].voices] == ["kathleen"]
    assert start.rate == 16000
    assert len(content) == 2 * len(wavasr.speak(TEXT)[0])
