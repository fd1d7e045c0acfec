"""Live recognition over plain WebSockets: wavasr's own protocol at /v1/stream, and vosk's at /.

wavasr's own, which the page uses:
    client: {"sample_rate": 16000, "encoding": "s16le", "model": "", "hotwords": []}    optional, first
            binary messages of samples; {"type": "finish"}
    server: {"type": "partial", "stable", "volatile"}, {"type": "final", "text", "start_s", "end_s", "confidence",
            "words"}, {"type": "endpoint", "time_s"}, {"type": "finished", "duration_s"}, {"type": "error", "message"}

vosk's (https://github.com/alphacep/vosk-server): the client waits for one answer to each message of samples.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from wavasr.errors import AudioError, WavasrError
from wavasr.recognition.stream import Endpoint, Event, Final, Partial
from wavasr.serving.live import LimitReached, live_session
from wavasr.serving.pool import Busy, Session, WorkerLost
from wavasr.serving.samples import Samples, checked_rate
from wavasr.serving.state import State

NORMAL, GOING_AWAY, UNSUPPORTED, TOO_BIG, FAILED, TRY_AGAIN = 1000, 1001, 1003, 1009, 1011, 1013
_VOSK_RATE = 8000  # of vosk's server, where the client says nothing


async def guarded(socket: WebSocket, route: str, serve: Callable[[State], Coroutine[Any, Any, None]]) -> None:
    """Run one session; every way in which it can end closes the socket with the code that tells which.

    Args:
        socket: accepted.
        route: its name in the metrics.
        serve: the session.
    """
    state: State = socket.app.state.wavasr
    code, reason = FAILED, "internal error"
    state.open_sessions += 1
    try:
        by_itself = await state.carry_out(serve(state))
        code, reason = (NORMAL, "") if by_itself else (GOING_AWAY, "the server stops")
    except WebSocketDisconnect:
        code = NORMAL
    except Busy as error:
        code, reason = TRY_AGAIN, str(error)
    except LimitReached as error:
        code, reason = TOO_BIG, str(error)
    except TimeoutError:
        code, reason = NORMAL, f"no message for {state.settings.limits.idle_s:g} s"
    except WavasrError as error:
        code, reason = UNSUPPORTED, str(error)
    except (WorkerLost, RuntimeError) as error:
        code, reason = FAILED, f"the recogniser failed: {error}"
    finally:
        try:
            if socket.application_state is WebSocketState.CONNECTED and socket.client_state is WebSocketState.CONNECTED:
                await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
        finally:
            state.open_sessions -= 1
        state.metrics.finished(route, code)


async def received(socket: WebSocket, idle_s: float) -> str | bytes:
    """The next message.

    Raises:
        WebSocketDisconnect: the client has gone.
        TimeoutError: none came in time.
    """
    message = await asyncio.wait_for(socket.receive(), idle_s)
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", NORMAL))
    return message["bytes"] if message.get("bytes") is not None else str(message.get("text") or "")


def parsed(text: str) -> dict[str, Any]:
    """A message of JSON.

    Raises:
        AudioError: it is not an object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AudioError("a text message is not JSON") from error
    if not isinstance(found, dict):
        raise AudioError("a text message is not a JSON object")
    return found


# wavasr's own ---------------------------------------------------------------------------------------------------------


async def stream(socket: WebSocket) -> None:
    """WebSocket /v1/stream."""
    offered = [name.strip() for name in socket.headers.get("sec-websocket-protocol", "").split(",")]
    await socket.accept("wavasr" if "wavasr" in offered else None)  # browsers that offer some need one back
    await guarded(socket, "/v1/stream", lambda state: _stream(socket, state))


async def _stream(socket: WebSocket, state: State) -> None:
    limits = state.settings.limits
    first = await received(socket, limits.idle_s)
    config = parsed(first) if isinstance(first, str) else {}
    options = state.options(str(config.get("model") or ""), _phrases(config.get("hotwords")))
    if options is None:
        raise AudioError(f"there is no model {config['model']!r}")
    rate = checked_rate(config.get("sample_rate", 16000))
    decode = Samples(str(config.get("encoding", "s16le")))

    async def emit(event: Event) -> None:
        await socket.send_text(json.dumps(to_dict(event), ensure_ascii=False))

    async with live_session(state, "/v1/stream", options, rate, emit) as live:
        if isinstance(first, bytes):
            live.push(decode(first))
        while True:
            message = await received(socket, limits.idle_s)
            if isinstance(message, bytes):
                live.push(decode(message))
            elif parsed(message).get("type") == "finish":
                await live.finish()
                await socket.send_json({"type": "finished", "duration_s": round(live.audio_s, 3)})
                return


def to_dict(event: Event) -> dict[str, Any]:
    """An event as JSON."""
    match event:
        case Partial():
            return {"type": "partial", "stable": event.stable, "volatile": event.volatile}
        case Final():
            return {
                "type": "final",
                "text": event.text,
                "start_s": round(event.start_s, 3),
                "end_s": round(event.end_s, 3),
                "confidence": event.confidence,
                "words": [asdict(word) for word in event.words],
            }
        case Endpoint():
            return {"type": "endpoint", "time_s": round(event.time_s, 3)}


def _phrases(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


# vosk's ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _VoskConfig:
    rate: int = _VOSK_RATE
    words: bool = True
    phrases: tuple[str, ...] = ()
    alternatives: bool = False

    @classmethod
    def of(cls, values: dict[str, Any]) -> _VoskConfig:
        return cls(
            checked_rate(values.get("sample_rate", _VOSK_RATE)),
            bool(values.get("words", True)),
            _phrases(values.get("phrase_list")),
            bool(values.get("max_alternatives")),
        )


async def vosk(socket: WebSocket) -> None:
    """WebSocket /: vosk's clients connect to the root."""
    await socket.accept()
    await guarded(socket, "vosk", lambda state: _vosk(socket, state))


async def _vosk(socket: WebSocket, state: State) -> None:
    config, session, samples, decode, partial = _VoskConfig(), None, 0, Samples(), ""
    try:
        while True:
            message = await received(socket, state.settings.limits.idle_s)
            command = parsed(message) if isinstance(message, str) else _command_in(message)
            if isinstance(command.get("config"), dict):
                config = _VoskConfig.of(command["config"])
            elif "eof" in command or "reset" in command:
                await socket.send_text(_vosk_result(await session.finish() if session else (), config))
                if "eof" in command:
                    return
            elif isinstance(message, bytes):
                session = session or await _vosk_session(state, config)
                piece = decode(message)
                samples += len(piece)
                if samples > state.settings.limits.session_s * config.rate:
                    raise LimitReached(f"a session may last {state.settings.limits.session_s:g} s")
                events = await session.feed(piece)
                partial = _partial_after(events, partial)
                found = any(isinstance(event, Final) for event in events)
                await socket.send_text(_vosk_result(events, config) if found else _vosk_partial(partial))
    finally:
        state.metrics.audio_s["vosk"] += samples / config.rate
        if session:
            await session.close()


async def _vosk_session(state: State, config: _VoskConfig) -> Session:
    options = state.options("", config.phrases)
    assert options is not None, "no name means the default model"
    return await state.pool.open(options, config.rate)


def _command_in(message: bytes) -> dict[str, Any]:
    """Some clients send {"eof" : 1} as a binary message."""
    if message[:1] == b"{" and len(message) < 100:
        try:
            return parsed(message.decode())
        except (AudioError, UnicodeError):
            return {}
    return {}


def _partial_after(events: tuple[Event, ...], partial: str) -> str:
    """What has been said since the last final text."""
    for event in events:
        if isinstance(event, Partial):
            partial = " ".join(filter(None, (event.stable, event.volatile)))
        elif isinstance(event, Final):
            partial = ""
    return partial


def _vosk_partial(text: str) -> str:
    return json.dumps({"partial": text}, ensure_ascii=False)


def _vosk_result(events: tuple[Event, ...], config: _VoskConfig) -> str:
    finals = [event for event in events if isinstance(event, Final)]
    text = " ".join(final.text for final in finals)
    words = [
        {
            "conf": round(word.confidence, 6),
            "start": round(word.start_s, 3),
            "end": round(word.end_s, 3),
            "word": word.word,
        }
        for final in finals
        for word in final.words
    ]
    body: dict[str, Any] = {"result": words, "text": text} if config.words and words else {"text": text}
    if config.alternatives:
        confidences = [final.confidence for final in finals]
        body = {"alternatives": [{"confidence": sum(confidences) / max(1, len(finals)), **body}]}
    return json.dumps(body, ensure_ascii=False)
