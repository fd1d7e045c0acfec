"""OpenAI's realtime transcription: WebSocket /v1/realtime?intent=transcription.

Shapes: https://github.com/openai/openai-openapi, `RealtimeTranscriptionSessionCreateRequestGA`, and its events.
Deltas are appended by clients, so only the stable part of what is recognised is sent; `completed` has the whole text.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket

from wavasr.errors import AudioError
from wavasr.recognition.stream import Endpoint, Event, Final, Partial
from wavasr.serving.live import Live, live_session
from wavasr.serving.samples import Samples, checked_rate
from wavasr.serving.security import error_body
from wavasr.serving.state import State
from wavasr.serving.streams import guarded, parsed, received

ROUTE = "/v1/realtime"
_ENCODINGS = {"audio/pcm": "s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
_OLD_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_RATES = {"audio/pcm": 24000, "audio/pcmu": 8000, "audio/pcma": 8000}
_DETECTIONS = ("server_vad", "semantic_vad")


async def realtime(socket: WebSocket) -> None:
    """WebSocket /v1/realtime."""
    offered = socket.headers.get("sec-websocket-protocol", "")
    await socket.accept("realtime" if "realtime" in [name.strip() for name in offered.split(",")] else None)
    await guarded(socket, ROUTE, lambda state: _Session(socket, state).serve())


class _Mistake(Exception):  # noqa: N818 - an answer to the client: the session goes on
    """A message that cannot be carried out."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


class _Session:
    """One client: its settings, and the item that its audio belongs to."""

    def __init__(self, socket: WebSocket, state: State) -> None:
        self._socket = socket
        self._state = state
        self._id = f"sess_{secrets.token_hex(8)}"
        self._format, self._rate = "audio/pcm", _RATES["audio/pcm"]
        self._model = socket.query_params.get("model", "")
        self._language = ""
        self._detects = True
        self._decode = Samples()
        self._live: Live | None = None
        self._item = _Item()
        self._previous: str | None = None
        self._committed_samples = 0

    async def serve(self) -> None:
        """Until the client goes."""
        await self._send("session.created", session=self._described())
        while self._live is None:  # the format is known when the first audio comes
            message = await self._next()
            if message.get("type") != "input_audio_buffer.append":
                await self._guard(message)
                continue
            options = self._state.options(self._model)
            if options is None:
                raise AudioError(f"there is no model {self._model!r}")
            async with live_session(self._state, ROUTE, options, self._rate, self._emit) as self._live:
                await self._guard(message)
                while True:
                    await self._guard(await self._next())

    async def _next(self) -> dict[str, Any]:
        message = await received(self._socket, self._state.settings.limits.idle_s)
        if isinstance(message, bytes):
            raise AudioError("a binary message; realtime sessions take JSON, with audio in base64")
        return parsed(message)

    async def _guard(self, message: Mapping[str, Any]) -> None:
        """Carry out one message; a mistake is answered, and the session goes on."""
        try:
            await self._handle(message)
        except _Mistake as mistake:
            error = error_body(str(mistake), "invalid_request_error", mistake.param, mistake.code)["error"]
            assert isinstance(error, dict)
            await self._send("error", error={**error, "event_id": message.get("event_id")})

    async def _handle(self, message: Mapping[str, Any]) -> None:
        match message.get("type"):
            case "session.update" | "transcription_session.update":
                self._update(message.get("session"))
                await self._send("session.updated", session=self._described())
            case "input_audio_buffer.append":
                self._append(message.get("audio"))
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                if self._live:
                    await self._live.discard()
                    self._committed_samples, self._item = self._live.samples, _Item()
                await self._send("input_audio_buffer.cleared")
            case other:
                raise _Mistake(f"unknown event type {other!r}", "unknown_event", "type")

    # What the client says ---------------------------------------------------------------------------------------------

    def _update(self, session: object) -> None:
        if not isinstance(session, Mapping):
            raise _Mistake("session.update needs an object `session`", "invalid_value", "session")
        audio = _mapping(_mapping(session.get("audio")).get("input"))
        format = audio.get("format", session.get("input_audio_format"))
        if format is not None:
            self._set_format(format)
        transcription = _mapping(audio.get("transcription", session.get("input_audio_transcription")))
        self._model = str(transcription.get("model") or self._model)
        self._language = str(transcription.get("language") or self._language)
        for values in (session, audio):
            if "turn_detection" in values:
                self._set_detection(values["turn_detection"])

    def _set_format(self, format: object) -> None:
        if isinstance(format, str):
            format = {"type": _OLD_FORMATS.get(format, format)}
        kind = str(_mapping(format).get("type", "audio/pcm"))
        if kind not in _ENCODINGS:
            raise _Mistake(f"format is {kind!r}; expected one of {', '.join(_ENCODINGS)}", "invalid_value", "format")
        try:
            rate = checked_rate(_mapping(format).get("rate", _RATES[kind]))
        except AudioError as error:
            raise _Mistake(str(error), "invalid_value", "format.rate") from error
        if self._live and (kind, rate) != (self._format, self._rate):
            raise _Mistake("the format cannot change after the first audio", "invalid_value", "format")
        self._format, self._rate, self._decode = kind, rate, Samples(_ENCODINGS[kind])

    def _set_detection(self, detection: object) -> None:
        kind = _mapping(detection).get("type", "server_vad")
        if detection is not None and kind not in _DETECTIONS:
            message = f"turn_detection is {kind!r}; expected null or one of {', '.join(_DETECTIONS)}"
            raise _Mistake(message, "invalid_value", "turn_detection")
        self._detects = detection is not None

    def _append(self, audio: object) -> None:
        if not isinstance(audio, str):
            raise _Mistake("append needs `audio` in base64", "invalid_value", "audio")
        try:
            content = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _Mistake("`audio` is not base64", "invalid_value", "audio") from error
        assert self._live is not None
        self._live.push(self._decode(content))

    async def _commit(self) -> None:
        if self._live is None or self._live.samples == self._committed_samples:
            raise _Mistake("the audio buffer is empty", "input_audio_buffer_commit_empty")
        self._committed_samples = self._live.samples
        await self._live.finish()
        if not self._detects or self._item.finals or self._item.began:
            await self._complete(committed=True)

    # What the recogniser says -----------------------------------------------------------------------------------------

    async def _emit(self, event: Event) -> None:
        match event:
            case Partial():
                if event.stable or event.volatile:
                    await self._begin(None)
                await self._delta(event.stable)
            case Final():
                await self._begin(event.start_s)
                self._item.finals.append(event)
                if self._detects:
                    await self._complete(committed=False)
            case Endpoint():
                return

    async def _begin(self, start_s: float | None) -> None:
        if self._detects and not self._item.began:
            at_s = start_s if start_s is not None else self._live.audio_s if self._live else 0.0
            fields = {"audio_start_ms": round(at_s * 1000), "item_id": self._item.id}
            await self._send("input_audio_buffer.speech_started", **fields)
        self._item.began = True

    async def _delta(self, stable: str) -> None:
        """Send what has become stable since the last delta."""
        whole = " ".join([*(final.text for final in self._item.finals), *filter(None, [stable])])
        if whole.startswith(self._item.sent) and whole != self._item.sent:
            delta = whole[len(self._item.sent) :]
            self._item.sent = whole
            await self._transcription("delta", delta=delta)

    async def _complete(self, committed: bool) -> None:
        """End the item: what the recogniser found between two commits, or, if it detects turns, an utterance."""
        item = self._item
        if self._detects and not committed and item.finals:
            end_ms = round(item.finals[-1].end_s * 1000)
            await self._send("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=item.id)
        await self._send("input_audio_buffer.committed", item_id=item.id, previous_item_id=self._previous)
        await self._delta("")
        transcript = " ".join(final.text for final in item.finals)
        seconds = sum(final.end_s - final.start_s for final in item.finals)
        usage = {"type": "duration", "seconds": math.ceil(seconds)}
        await self._transcription("completed", transcript=transcript, usage=usage)
        self._previous, self._item = item.id, _Item()

    async def _transcription(self, kind: str, **fields: Any) -> None:
        name = f"conversation.item.input_audio_transcription.{kind}"
        await self._send(name, item_id=self._item.id, content_index=0, **fields)

    async def _send(self, type: str, **fields: Any) -> None:
        body = {"type": type, "event_id": f"event_{secrets.token_hex(8)}", **fields}
        await self._socket.send_text(json.dumps(body, ensure_ascii=False))

    def _described(self) -> dict[str, Any]:
        name = self._state.settings.model_for(self._model) or self._model
        return {
            "id": self._id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": self._format, "rate": self._rate},
                    "transcription": {"model": name, "language": self._language or None, "prompt": ""},
                    "turn_detection": {"type": "server_vad"} if self._detects else None,
                    "noise_reduction": None,
                }
            },
            "include": None,
        }


class _Item:
    """An utterance, or what lies between two commits."""

    def __init__(self) -> None:
        self.id = f"item_{secrets.token_hex(8)}"
        self.finals: list[Final] = []
        self.sent = ""
        self.began = False


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
