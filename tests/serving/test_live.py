"""Live sessions by every protocol against a running server: the text is that of the whole recording."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info

import wavasr
from tests.serving.conftest import Running
from wavasr.audio.reading import load_audio

RATE = 16000


@pytest.fixture(scope="module")
def clip(repository: Path) -> Path:
    return repository / "data" / "samples" / "plain-sentence.flac"


@pytest.fixture(scope="module")
def pcm(clip: Path) -> bytes:
    return np.round(load_audio(clip, RATE) * 32768).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def text(clip: Path) -> str:
    return wavasr.transcribe(clip).text


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def messages(socket: ClientConnection) -> Iterator[dict[str, Any]]:
    for message in socket:
        yield json.loads(message)


# wavasr's own ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3200, 999, 1_000_000])  # an odd number of bytes cuts samples in two
def test_stream_gives_the_whole_text(server: Running, pcm: bytes, text: str, size: int) -> None:
    with connect(f"ws://{server.host}/v1/stream") as socket:
        socket.send(json.dumps({"sample_rate": RATE}))
        for piece in pieces(pcm, size):
            socket.send(piece)
        socket.send('{"type": "finish"}')
        events = list(messages(socket))
    assert events[-1] == {"type": "finished", "duration_s": round(len(pcm) / 2 / RATE, 3)}
    finals = [event for event in events if event["type"] == "final"]
    assert " ".join(final["text"] for final in finals) == text
    assert [word["word"] for final in finals for word in final["words"]] == text.split()
    assert all(set(event) == {"type", "stable", "volatile"} for event in events if event["type"] == "partial")


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ("hello", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"sample_rate": 1}', "sample rate is 1"),
        ('{"sample_rate": "fast"}', "sample rate is 'fast'"),
        ('{"encoding": "mp3"}', "expected one of s16le"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({"hotwords": ["left"] * 101}), "101 hotwords; give 100 at most"),
        (json.dumps({"hotwords": ["x" * 101]}), "a hotword of 101 characters; give 100 characters at most"),
    ],
)
def test_stream_names_what_is_wrong(server: Running, first: str, says: str) -> None:
    with connect(f"ws://{server.host}/v1/stream") as socket:
        socket.send(first)
        with pytest.raises(ConnectionClosed):
            socket.recv()
    assert socket.close_code == 1003
    assert says in (socket.close_reason or "")


# OpenAI's realtime ----------------------------------------------------------------------------------------------------


def realtime(server: Running, session: dict[str, Any], content: bytes) -> list[dict[str, Any]]:
    with connect(f"ws://{server.host}/v1/realtime?intent=transcription") as socket:
        assert json.loads(socket.recv())["type"] == "session.created"
        socket.send(
            json.dumps({"type": "session.update", "session": {"type": "transcription", "audio": {"input": session}}})
        )
        for piece in pieces(content, 3200):
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode()}))
        socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
        events = []
        for event in messages(socket):
            events.append(event)
            if event["type"].endswith(".completed"):
                return events
    return events


@pytest.mark.parametrize("detection", [None, {"type": "server_vad"}])
def test_realtime_deltas_are_the_beginning_of_the_transcript(
    server: Running, pcm: bytes, text: str, detection: dict[str, Any] | None
) -> None:
    session = {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": detection}
    events = realtime(server, session, pcm)
    completed = events[-1]
    assert completed["transcript"] == text
    deltas = "".join(event["delta"] for event in events if event["type"].endswith(".delta"))
    assert text.startswith(deltas)
    kinds = [event["type"].rpartition(".")[2] for event in events]
    assert "committed" in kinds
    assert ("speech_started" in kinds) == ("speech_stopped" in kinds) == (detection is not None)
    assert {event["item_id"] for event in events if "item_id" in event} == {completed["item_id"]}


def test_realtime_takes_the_telephones_format(server: Running, clip: Path) -> None:
    import av

    resampled = av.AudioResampler("s16", "mono", 8000)
    encoder = av.CodecContext.create("pcm_mulaw", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.format, encoder.layout = 8000, "s16", "mono"
    samples = np.round(load_audio(clip, 8000) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate = 8000
    content = b"".join(bytes(packet) for part in resampled.resample(frame) for packet in encoder.encode(part))
    events = realtime(server, {"format": {"type": "audio/pcmu"}, "turn_detection": None}, content)
    assert len(events[-1]["transcript"].split()) > 3


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
        ({"type": "response.create"}, "unknown_event"),
        ({"type": "session.update", "session": 1}, "invalid_value"),
        ({"type": "session.update", "session": {"audio": {"input": {"format": "mp3"}}}}, "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "%%%"}, "invalid_value"),
    ],
)
def test_realtime_answers_mistakes_and_goes_on(server: Running, message: dict[str, Any], code: str) -> None:
    with connect(f"ws://{server.host}/v1/realtime") as socket:
        socket.recv()
        for _ in range(2):
            socket.send(json.dumps({**message, "event_id": "mine"}))
            event = json.loads(socket.recv())
            assert event["type"] == "error"
            assert set(event["error"]) == {"message", "type", "param", "code", "event_id"}
            assert (event["error"]["code"], event["error"]["event_id"]) == (code, "mine")


@pytest.mark.parametrize("detection", [None, {"type": "server_vad"}])
def test_realtime_forgets_what_is_cleared(server: Running, pcm: bytes, detection: dict[str, Any] | None) -> None:
    """Also what the recogniser has been given already."""
    session = {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": detection}
    append = {"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()}
    with connect(f"ws://{server.host}/v1/realtime") as socket:
        for message in (
            {"type": "session.update", "session": {"audio": {"input": session}}},
            append,
            {"type": "input_audio_buffer.clear"},
            {"type": "input_audio_buffer.commit"},
        ):
            socket.send(json.dumps(message))
        events = list(itertools.takewhile(lambda event: event["type"] != "error", messages(socket)))
    assert not any(event["type"].endswith((".committed", ".completed")) for event in events)


# vosk -----------------------------------------------------------------------------------------------------------------


def test_vosk_answers_each_message(server: Running, pcm: bytes, text: str) -> None:
    with connect(f"ws://{server.host}") as socket:
        socket.send(json.dumps({"config": {"sample_rate": RATE}}))
        answers = []
        for piece in pieces(pcm, 8000):
            socket.send(piece)
            answers.append(json.loads(socket.recv()))
        assert any(answer.get("partial") for answer in answers)
        socket.send('{"eof" : 1}')
        answers.append(json.loads(socket.recv()))
    results = [word for answer in answers for word in answer.get("result", [])]
    assert " ".join(word["word"] for word in results) == text
    assert all(set(word) == {"conf", "start", "end", "word"} for word in results)


def test_vosk_names_a_list_that_is_too_long(server: Running) -> None:
    with connect(f"ws://{server.host}") as socket:
        socket.send(json.dumps({"config": {"phrase_list": ["left"] * 101}}))
        socket.send(bytes(800))
        with pytest.raises(ConnectionClosed):
            socket.recv()
    assert (socket.close_code, socket.close_reason) == (1003, "101 hotwords; give 100 at most")


def test_vosk_resets(server: Running, pcm: bytes, text: str) -> None:
    with connect(f"ws://{server.host}") as socket:
        socket.send(json.dumps({"config": {"sample_rate": RATE, "words": False}}))
        for end in ('{"reset" : 1}', '{"eof" : 1}'):
            answers = []
            socket.send(pcm)
            answers.append(json.loads(socket.recv()))
            socket.send(end)
            answers.append(json.loads(socket.recv()))
            assert " ".join(answer["text"] for answer in answers if answer.get("text")) == text
            assert "result" not in answers[-1]


# Wyoming --------------------------------------------------------------------------------------------------------------


async def answer_to(server: Running, content: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.wyoming_port)
    writer.write(content)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def test_wyoming_client(server: Running, pcm: bytes, text: str) -> None:
    async def use() -> tuple[Info, list[str]]:
        async with AsyncTcpClient("127.0.0.1", server.wyoming_port) as client:
            await client.write_event(Describe().event())
            described = await client.read_event()
            assert described is not None
            texts = []
            for content in (pcm, b"", pcm):
                await client.write_event(Transcribe().event())
                await client.write_event(AudioStart(RATE, 2, 1).event())
                for piece in pieces(content, 2048):
                    await client.write_event(AudioChunk(RATE, 2, 1, piece).event())
                await client.write_event(AudioStop().event())
                answer = await client.read_event()
                assert answer is not None
                texts.append(Transcript.from_event(answer).text)
            return Info.from_event(described), texts

    info, texts = asyncio.run(use())
    assert [program.name for program in info.asr] == ["wavasr"]
    assert [model.name for model in info.asr[0].models] == ["default"]
    assert texts == [text, "", text]


def test_wyoming_takes_whole_numbers_with_a_decimal_point(server: Running) -> None:
    content = b'{"type": "audio-start", "data": {"rate": 16000.0, "width": 2.0, "channels": 1.0}}\n'
    content += b'{"type": "audio-chunk", "payload_length": 2}\n' + bytes(2) + b'{"type": "audio-stop"}\n'
    assert b'"type": "transcript"' in asyncio.run(answer_to(server, content))


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
        b'{"type": "x", "data_length": -1}\n',
        b"{" * 70_000,
        b'{"type": "audio-start", "data": {"rate": 1}}\n',
        b'{"type": "audio-start", "data": {"rate": "fast"}}\n',
        b'{"type": "audio-start", "data": {"channels": 1e400}}\n',
        b'{"type": "audio-start", "data": {"width": [2]}}\n',
        b'{"type": "x", "data_length": 1e400}\n',
    ],
)
def test_wyoming_refuses_what_is_not_its_protocol(server: Running, content: bytes) -> None:
    assert b'"type": "error"' in asyncio.run(answer_to(server, content))
