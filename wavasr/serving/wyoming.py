"""The Wyoming protocol of Home Assistant's voice pipelines, over TCP (https://github.com/OHF-Voice/wyoming).

message: a line of JSON {"type", "data"?, "data_length"?, "payload_length"?}, data_length bytes of JSON, the payload
describe -> info;  transcribe, audio-start, audio-chunk ..., audio-stop -> transcript
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import wavasr
from wavasr.errors import AudioError, WavasrError
from wavasr.recognition.stream import Event, Final
from wavasr.serving.live import LimitReached, Live, live_session
from wavasr.serving.pool import Busy, WorkerLost
from wavasr.serving.samples import Floats, checked_rate
from wavasr.serving.state import State

_LONGEST_LINE = 1 << 16
_MOST_DATA = 1 << 20
_MOST_PAYLOAD = 1 << 22
_SITE = {"name": "wavasr", "url": "https://pypi.org/project/wavasr"}

log = logging.getLogger("wavasr")


@dataclass(frozen=True)
class Message:
    """One message, with its data merged from the line and the block behind it."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end.

    Raises:
        AudioError: it is not as the protocol says, or larger than it may be.
    """
    try:
        line = await reader.readline()
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise AudioError("a Wyoming header is too long") from error
    if not line:
        return None
    try:
        header = json.loads(line)
        type, data = str(header["type"]), dict(header.get("data") or {})
        lengths = int(header.get("data_length") or 0), int(header.get("payload_length") or 0)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise AudioError("a Wyoming header is not JSON with a type") from error
    if not (0 <= lengths[0] <= _MOST_DATA and 0 <= lengths[1] <= _MOST_PAYLOAD):
        raise AudioError("a Wyoming message is too large")
    try:
        block = await reader.readexactly(lengths[0])
        payload = await reader.readexactly(lengths[1])
        return Message(type, {**data, **(json.loads(block) if block else {})}, payload)
    except asyncio.IncompleteReadError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise AudioError("the data of a Wyoming message is not a JSON object") from error


def packed(type: str, data: dict[str, Any] | None = None, payload: bytes = b"") -> bytes:
    """A message as bytes."""
    block = json.dumps(data or {}, ensure_ascii=False).encode()
    header = {"type": type, "version": wavasr.__version__, "data_length": len(block), "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + block + payload


def _about(description: str) -> dict[str, Any]:
    return {"description": description, "attribution": _SITE, "installed": True, "version": wavasr.__version__}


def info(state: State) -> dict[str, Any]:
    """What this server offers, as `describe` asks."""
    models = [{**_about(f"wavasr model {name}"), "name": name, "languages": ["en"]} for name in state.settings.models]
    program = {**_about("WaveNet speech recognition from the raw waveform"), "name": "wavasr", "models": models}
    program["supports_transcript_streaming"] = False
    voices = [{**_about(f"wavasr voice {name}"), "name": name, "languages": ["en"]} for name in state.settings.voices]
    speaker = {**_about("WaveNet text to speech"), "name": "wavasr", "voices": voices}
    others: dict[str, Any] = {"handle": [], "intent": [], "wake": [], "mic": [], "snd": [], "satellite": None}
    return {"asr": [program], "tts": [speaker], **others}


async def serve(state: State, host: str, port: int) -> asyncio.Server:
    """Listen; each connection is one client.

    Raises:
        OSError: the port is taken.
    """

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = "error"
        state.open_sessions += 1
        try:
            await state.carry_out(_Client(state, reader, writer).serve())
            status = "ok"
        except (ConnectionError, TimeoutError):
            status = "disconnected"
        except (WavasrError, Busy, LimitReached, WorkerLost, RuntimeError) as error:
            with contextlib.suppress(ConnectionError):
                writer.write(packed("error", {"text": str(error), "code": type(error).__name__}))
                await writer.drain()
        finally:
            state.open_sessions -= 1
            state.metrics.finished("wyoming", status)
            writer.close()

    return await asyncio.start_server(client, host, port, limit=_LONGEST_LINE)


class _Client:
    def __init__(self, state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._state = state
        self._reader = reader
        self._writer = writer
        self._model = ""

    async def serve(self) -> None:
        while (message := await self._next()) is not None:
            match message.type:
                case "describe":
                    await self._send("info", info(self._state))
                case "ping":
                    await self._send("pong", message.data)
                case "transcribe":
                    self._model = str(message.data.get("name") or "")
                case "audio-start":
                    await self._utterance(message)
                case "audio-stop":
                    await self._send("transcript", {"text": ""})
                case "synthesize":
                    await self._synthesize(message)

    async def _next(self) -> Message | None:
        return await asyncio.wait_for(read_message(self._reader), self._state.settings.limits.idle_s)

    async def _utterance(self, start: Message) -> None:
        """From audio-start to audio-stop; a client that falls silent or goes gets what there is."""
        rate = checked_rate(start.data.get("rate", 16000))
        width, channels = start.data.get("width", 2), start.data.get("channels", 1)
        if width not in (1, 2, 4) or channels not in range(1, 17):
            raise AudioError(f"the audio has {channels!r} channels of {width!r} bytes; expected 16-bit samples")
        options = self._state.options(self._model)
        if options is None:
            raise AudioError(f"there is no model {self._model!r}")
        texts: list[str] = []

        async def emit(event: Event) -> None:
            if isinstance(event, Final):
                texts.append(event.text)

        async with live_session(self._state, "wyoming", options, rate, emit) as live:
            await self._push_until_stop(live, int(width), int(channels))  # JSON may have them as 2.0
            await live.finish()
        await self._send("transcript", {"text": " ".join(texts)})

    async def _synthesize(self, message: Message) -> None:
        """A text to audio-start, audio-chunk, ..., audio-stop."""
        wanted = message.data.get("voice")
        name = str(wanted.get("name") or "") if isinstance(wanted, dict) else ""
        voice = self._state.settings.voice_for(name)
        if voice is None:
            raise AudioError(f"there is no voice {name!r}")
        text, began = str(message.data.get("text") or ""), False
        async with contextlib.aclosing(self._state.pool.speak(text, voice, 1.0)) as answers:
            async for answer in answers:
                form = {"rate": answer.sample_rate, "width": 2, "channels": 1}
                if not began:
                    await self._send("audio-start", form)
                    began = True
                if answer.sound is not None:
                    content = np.round(np.clip(answer.sound, -1, 1) * 32767).astype("<i2").tobytes()
                    self._writer.write(packed("audio-chunk", form, content))
                    await self._writer.drain()
        await self._send("audio-stop", {})

    async def _push_until_stop(self, live: Live, width: int, channels: int) -> None:
        with contextlib.suppress(TimeoutError):  # some clients never send audio-stop
            while (message := await self._next()) is not None and message.type != "audio-stop":
                if message.type == "audio-chunk":
                    live.push(_samples(message.payload, width, channels))

    async def _send(self, type: str, data: dict[str, Any]) -> None:
        self._writer.write(packed(type, data))
        await self._writer.drain()


def _samples(payload: bytes, width: int, channels: int) -> Floats:
    """Interleaved integer samples to (S,) float32, the mean of the channels."""
    whole = payload[: len(payload) - len(payload) % (width * channels)]
    values = np.frombuffer(whole, {1: "u1", 2: "<i2", 4: "<i4"}[width]).astype(np.float32)
    if width == 1:
        values -= 128
    scaled = values / np.float32(2 ** (8 * width - 1))
    return np.asarray(scaled.reshape(-1, channels).mean(axis=1), np.float32)
