"""OpenAI's speech API: POST /v1/audio/speech, a text to sound that is sent while it is spoken.

Shapes: https://github.com/openai/openai-openapi, `CreateSpeechRequest`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from wavasr.serving.pool import BadRequestError, Busy, WorkerLost
from wavasr.serving.state import State
from wavasr.serving.transcriptions import Refused, while_connected

log = logging.getLogger("wavasr")

ROUTE = "/v1/audio/speech"
MOST_CHARACTERS = 100_000
# The name of each format: FFmpeg's container and codec, and what HTTP calls it.
FORMATS = {
    "mp3": ("mp3", "libmp3lame", "audio/mpeg"),
    "opus": ("ogg", "libopus", "audio/ogg"),
    "aac": ("adts", "aac", "audio/aac"),
    "flac": ("flac", "flac", "audio/flac"),
    "wav": ("wav", "pcm_s16le", "audio/wav"),
    "pcm": ("s16le", "pcm_s16le", "audio/pcm"),
}


@dataclass(frozen=True)
class _Wanted:
    """What a request asks for."""

    text: str
    voice: str
    speed: float
    format: str


async def speech(request: Request) -> Response:
    """POST /v1/audio/speech."""
    state: State = request.app.state.wavasr
    try:
        wanted = _wanted(state, await _body(request))
    except Refused as refused:
        state.metrics.finished(ROUTE, refused.status)
        return refused.response
    try:
        return await while_connected(request, _spoken(state, wanted))
    except Refused as refused:  # counted where it was said
        return refused.response


async def voices(request: Request) -> Response:
    """GET /v1/audio/voices: the names that `voice` may have."""
    state: State = request.app.state.wavasr
    return JSONResponse({"voices": list(state.settings.voices)})


async def _body(request: Request) -> dict[str, Any]:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > 8 * MOST_CHARACTERS:
            raise Refused(413, f"the text is longer than {MOST_CHARACTERS} characters", "input")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(400, 'the body is not JSON; send {"input": TEXT}') from error
    if not isinstance(found, dict):
        raise Refused(400, 'the body is not a JSON object; send {"input": TEXT}')
    return found


def _wanted(state: State, body: dict[str, Any]) -> _Wanted:
    text, format = body.get("input"), str(body.get("response_format") or "mp3")
    if not isinstance(text, str) or not 0 < len(text) <= MOST_CHARACTERS:
        raise Refused(400, f"input is missing; expected a text of at most {MOST_CHARACTERS} characters", "input")
    if format not in FORMATS:
        raise Refused(400, f"response_format is {format!r}; expected one of {', '.join(FORMATS)}", "response_format")
    speed = body.get("speed", 1.0)
    if not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
        raise Refused(400, f"speed is {speed!r}; expected 0.25 to 4", "speed")
    voice = state.settings.voice_for(str(body.get("voice") or ""))
    if voice is None:
        raise Refused(404, f"there is no voice {body['voice']!r}; see /v1/audio/voices", "voice", "voice_not_found")
    return _Wanted(text, voice, float(np.clip(speed, 0.5, 2.0)), format)


async def _spoken(state: State, wanted: _Wanted) -> Response:
    sound = _said(state, wanted)
    first, rate = await anext(sound)  # before the answer begins: there may be nothing to say
    media_type = FORMATS[wanted.format][2]
    if wanted.format == "wav":  # its header says how long it is
        samples = np.concatenate([first, *[block async for block, _ in sound]])
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
        return Response(file.getvalue(), media_type=media_type)
    return _Sound(_encoded(first, sound, Encoder(wanted.format, rate)), media_type=media_type)


async def _said(state: State, wanted: _Wanted) -> AsyncGenerator[tuple[NDArray[np.float32], int], None]:
    """The sound of a text as it is made, counted in the metrics: blocks (S,) and the sample rate.

    Raises:
        Refused: it cannot be said, or the server is busy.
    """
    seconds, status = 0.0, 499
    try:
        async with contextlib.aclosing(state.pool.speak(wanted.text, wanted.voice, wanted.speed)) as answers:
            async for answer in answers:
                if answer.sound is not None:
                    seconds += len(answer.sound) / answer.sample_rate
                    yield answer.sound, answer.sample_rate
        status = 200
    except Busy as error:
        status = 429
        raise Refused(429, f"the server is busy: {error}; try again later", code="rate_limit_exceeded") from error
    except BadRequestError as error:
        status = 400
        raise Refused(400, str(error), "input") from error
    except (WorkerLost, RuntimeError) as error:
        status = 500
        raise Refused(500, f"the voice failed ({error}); send the request again") from error
    finally:
        state.metrics.finished(ROUTE, status, seconds)


async def _encoded(
    first: NDArray[np.float32], sound: AsyncGenerator[tuple[NDArray[np.float32], int], None], encoder: Encoder
) -> AsyncGenerator[bytes, None]:
    """What is sent, while it is spoken; a client that goes away stops the voice.

    Raises:
        Refused: the voice failed after its first sound; what came before is a whole file.
    """
    failure: Refused | None = None
    async with contextlib.aclosing(sound):
        yield encoder.feed(first)
        try:
            async for block, _ in sound:
                yield encoder.feed(block)
        except Refused as refused:
            failure = refused
    yield encoder.finish()
    if failure:
        raise failure


class _Sound(StreamingResponse):
    """Sound that is sent while it is spoken. Where the voice fails, the body stays without its end: clients notice."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except Refused as refused:
            log.error("%s: an answer that had begun is cut off: %s", ROUTE, refused)


class Encoder:
    """Samples to the bytes of a file that is written from its beginning to its end.

    Args:
        format: of `FORMATS`; WAV would not know its length.
        rate: samples per second.
    """

    def __init__(self, format: str, rate: int) -> None:
        container, codec, _ = FORMATS[format]
        self._parts: list[bytes] = []
        self._rate = rate
        pages = {"page_duration": "200000"} if container == "ogg" else {}  # microseconds; else of a second and more
        self._output = av.open(self, "w", format=container, options=pages)
        self._stream = self._output.add_stream(codec, rate=rate, layout="mono")

    def write(self, content: bytes) -> int:
        """What the container calls."""
        self._parts.append(bytes(content))
        return len(content)

    def feed(self, samples: NDArray[np.float32]) -> bytes:
        """The bytes that samples (S,) add."""
        content = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
        frame = av.AudioFrame.from_ndarray(content[None], "s16", "mono")
        frame.sample_rate = self._rate
        return self._packed(frame)

    def finish(self) -> bytes:
        """The last bytes."""
        rest = self._packed(None)
        self._output.close()
        return rest + self._taken()

    def _packed(self, frame: av.AudioFrame | None) -> bytes:
        assert isinstance(self._stream, av.AudioStream)
        for packet in self._stream.encode(frame):
            self._output.mux(packet)
        return self._taken()

    def _taken(self) -> bytes:
        found = b"".join(self._parts)
        self._parts.clear()
        return found
