"""OpenAI's speech API: POST /v1/audio/speech, a text to sound.

Shapes: https://github.com/openai/openai-openapi, `CreateSpeechRequest`.
"""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from wavasr.serving.pool import BadRequestError, Busy, WorkerLost
from wavasr.serving.state import State
from wavasr.serving.transcriptions import Refused

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


async def speech(request: Request) -> Response:
    """POST /v1/audio/speech."""
    state: State = request.app.state.wavasr
    try:
        return await _spoken(state, await _body(request))
    except Refused as refused:
        state.metrics.finished(ROUTE, refused.status)
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


async def _spoken(state: State, body: dict[str, Any]) -> Response:
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
    samples, rate = await collected(state, text, voice, float(np.clip(speed, 0.5, 2.0)))
    state.metrics.finished(ROUTE, 200, len(samples) / rate)
    return Response(encoded(samples, rate, format), media_type=FORMATS[format][2])


async def collected(state: State, text: str, voice: str, speed: float) -> tuple[NDArray[np.float32], int]:
    """The whole sound of a text, and its sample rate.

    Raises:
        Refused: it cannot be said, or the server is busy.
    """
    blocks: list[NDArray[np.float32]] = []
    rate = 0
    try:
        async with contextlib.aclosing(state.pool.speak(text, voice, speed)) as answers:
            async for answer in answers:
                rate = answer.sample_rate
                if answer.sound is not None:
                    blocks.append(answer.sound)
    except Busy as error:
        raise Refused(429, f"the server is busy: {error}; try again later", code="rate_limit_exceeded") from error
    except BadRequestError as error:
        raise Refused(400, str(error), "input") from error
    except (WorkerLost, RuntimeError) as error:
        raise Refused(500, f"the voice failed ({error}); send the request again") from error
    return np.concatenate(blocks), rate


def encoded(samples: NDArray[np.float32], rate: int, format: str) -> bytes:
    """Samples (S,) as a file of this format."""
    container, codec, _ = FORMATS[format]
    content = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    if format == "pcm":
        return content.tobytes()
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(content[None], "s16", "mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()
