"""OpenAI's transcription API: POST /v1/audio/transcriptions and GET /v1/models.

Shapes: https://github.com/openai/openai-openapi, `CreateTranscriptionRequest` and the responses beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from wavasr.decoding.times import Word
from wavasr.errors import ConfigError
from wavasr.recognition.formats import render
from wavasr.recognition.stream import Final
from wavasr.recognition.stretches import sureness
from wavasr.recognition.transcribe import Transcript
from wavasr.serving.pool import BadRequestError, Busy, WorkerLost
from wavasr.serving.security import error_body
from wavasr.serving.state import State
from wavasr.serving.worker import Options

ROUTE = "/v1/audio/transcriptions"
FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_MOST_FIELDS = 1000  # a keyword is one
_WATCH_S = 0.5


class Refused(Exception):  # noqa: N818 - an answer to clients, not a mistake
    """A request that cannot be carried out, with the response that says so."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
        self.status = status
        self.body = error_body(message, "server_error" if status >= 500 else kind, param, code)
        self.headers = {"retry-after": str(Busy.retry_after_s)} if status == 429 else None

    @property
    def response(self) -> JSONResponse:
        """The error as OpenAI's clients expect it."""
        return JSONResponse(self.body, self.status, self.headers)


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    content: bytes
    options: Options
    format: str
    language: str
    words: bool
    segments: bool
    streams: bool


@dataclass(frozen=True)
class Transcription:
    """What came of a recording, or of a piece of it: its utterances, and the seconds of audio so far."""

    finals: list[Final]
    duration_s: float = 0.0

    @property
    def text(self) -> str:
        """The whole text."""
        return " ".join(final.text for final in self.finals)

    @property
    def words(self) -> tuple[Word, ...]:
        """All words, in order."""
        return tuple(word for final in self.finals for word in final.words)

    @property
    def usage(self) -> dict[str, Any]:
        """How OpenAI reports what was used."""
        return {"type": "duration", "seconds": math.ceil(self.duration_s)}


async def transcriptions(request: Request) -> Response:
    """POST /v1/audio/transcriptions."""
    state: State = request.app.state.wavasr
    try:
        wanted = await _wanted(request, state)
    except Refused as refused:
        state.metrics.finished(ROUTE, refused.status)
        return refused.response
    if wanted.streams and state.pool.has_room:
        return StreamingResponse(_server_sent_events(state, wanted), media_type="text/event-stream")
    try:
        return await while_connected(request, _whole(state, wanted))
    except Refused as refused:  # counted with its pieces
        return refused.response


async def models(request: Request) -> Response:
    """GET /v1/models."""
    state: State = request.app.state.wavasr
    return JSONResponse({"object": "list", "data": [_model(name) for name in state.settings.models]})


async def model(request: Request) -> Response:
    """GET /v1/models/{id}."""
    state: State = request.app.state.wavasr
    name = request.path_params["id"]
    if name not in state.settings.models:
        return Refused(404, f"there is no model {name!r}; see /v1/models", "model", "model_not_found").response
    return JSONResponse(_model(name))


async def translations(request: Request) -> Response:
    """POST /v1/audio/translations: these models write down what is said, in its language."""
    return Refused(400, "this server does not translate; use /v1/audio/transcriptions", None, "unsupported").response


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "wavasr"}


# The request ----------------------------------------------------------------------------------------------------------


async def _wanted(request: Request, state: State) -> Wanted:
    form = await _form(request, state.settings.limits.upload_mb)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Refused(400, "the field 'file' is missing; send the recording in it as multipart/form-data", "file")
    format = str(form.get("response_format") or "json")
    if format not in FORMATS:
        raise Refused(400, f"response_format is {format!r}; expected one of {', '.join(FORMATS)}", "response_format")
    granularities = _list(form, "timestamp_granularities")
    if unknown := set(granularities) - {"word", "segment"}:
        message = f"timestamp_granularities has {sorted(unknown)}; expected word or segment"
        raise Refused(400, message, "timestamp_granularities")
    if granularities and format != "verbose_json":
        raise Refused(400, "timestamp_granularities need response_format verbose_json", "timestamp_granularities")
    name = str(form.get("model") or "")
    try:
        options = state.options(name, tuple(_list(form, "keywords")))
    except ConfigError as error:
        raise Refused(400, str(error), "keywords") from error
    if options is None:
        raise Refused(404, f"there is no model {name!r}; see /v1/models", "model", "model_not_found")
    content = await file.read()
    await form.close()  # its copy of the file lies on the disk, and the request may wait for long
    return Wanted(
        content=content,
        options=options,
        format=format,
        language=str(form.get("language") or "english"),
        words="word" in granularities,
        segments="segment" in granularities or not granularities,
        streams=str(form.get("stream") or "").lower() in ("true", "1"),
    )


async def _form(request: Request, upload_mb: float) -> FormData:
    """The fields of a form; its size is counted while it is read."""
    too_large = Refused(413, f"the upload is larger than {upload_mb:g} MB, the limit of this server", "file")
    limit = round(upload_mb * 1e6)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    received, receive = 0, request._receive

    async def counted() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    request._receive = counted
    try:
        return await request.form(max_files=4, max_fields=_MOST_FIELDS)
    except (MultiPartException, HTTPException) as error:
        detail = error.message if isinstance(error, MultiPartException) else error.detail
        raise Refused(400, f"the form cannot be read ({detail}); send multipart/form-data") from error
    except ClientDisconnect as error:
        raise Refused(499, "the client has gone") from error
    except (KeyError, ValueError, UnicodeError) as error:
        raise Refused(400, "the form cannot be read; send multipart/form-data") from error
    finally:
        request._receive = receive


def _list(form: FormData, name: str) -> list[str]:
    """A field that may be repeated; OpenAI's client writes `name[]`, others `name`."""
    return [str(value) for key in (name, f"{name}[]") for value in form.getlist(key) if isinstance(value, str)]


# The answer -----------------------------------------------------------------------------------------------------------


async def _pieces(state: State, wanted: Wanted) -> AsyncIterator[Transcription]:
    """What each piece of the recording gives; counted in the metrics. Whatever goes wrong is a `Refused`."""
    began_s, duration_s, status = time.monotonic(), 0.0, 499
    answers = state.pool.recognise(wanted.content, wanted.options, state.settings.limits.audio_s)
    try:
        async with contextlib.aclosing(answers):
            async for answer in answers:
                duration_s = answer.duration_s
                yield Transcription([event for event in answer.events if isinstance(event, Final)], duration_s)
        status = 200
        state.metrics.took(duration_s, time.monotonic() - began_s)
    except Busy as error:
        status = 429
        raise Refused(429, f"the server is busy: {error}; try again later", code="rate_limit_exceeded") from error
    except BadRequestError as error:
        status = 400
        raise Refused(400, str(error), "file", "invalid_audio") from error
    except (WorkerLost, RuntimeError) as error:
        status = 500
        raise Refused(500, f"the recogniser failed ({error}); send the request again") from error
    finally:
        state.metrics.finished(ROUTE, status, duration_s)


async def _whole(state: State, wanted: Wanted) -> Response:
    """One response with everything."""
    found = Transcription([])
    async for piece in _pieces(state, wanted):
        found = Transcription([*found.finals, *piece.finals], piece.duration_s)
    return _RESPONSES[wanted.format](found, wanted)


async def _server_sent_events(state: State, wanted: Wanted) -> AsyncIterator[str]:
    """The text as it is found: deltas that are to be appended, then the whole."""
    yield ": recognising\n\n"  # clients wait only seconds for the first byte
    found = Transcription([])
    try:
        async for piece in _pieces(state, wanted):
            for final in piece.finals:
                delta = f" {final.text}" if found.finals else final.text
                found.finals.append(final)
                yield _event({"type": "transcript.text.delta", "delta": delta})
            found = Transcription(found.finals, piece.duration_s)
        yield _event({"type": "transcript.text.done", "text": found.text, "usage": found.usage})
    except Refused as refused:
        yield _event(refused.body)
    yield "data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Carry out work until it is done, or give up when the client has gone."""
    working = asyncio.create_task(work)
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=_WATCH_S)
            if not working.done() and await request.is_disconnected():
                raise Refused(499, "the client has gone")
        return working.result()
    finally:
        working.cancel()


def _json(found: Transcription, wanted: Wanted) -> Response:
    return JSONResponse({"text": found.text, "usage": found.usage})


def _verbose_json(found: Transcription, wanted: Wanted) -> Response:
    segments = [_segment(index, final) for index, final in enumerate(found.finals)]
    words = [_word(word) for word in found.words]
    return JSONResponse(
        {
            "task": "transcribe",
            "language": wanted.language,
            "duration": round(found.duration_s, 3),
            "text": found.text,
            "segments": segments if wanted.segments else None,
            "words": words if wanted.words else None,
            "usage": found.usage,
        }
    )


def _word(word: Word) -> dict[str, Any]:
    """As OpenAI has it, and the confidence beside it."""
    times = {"start": round(word.start_s, 3), "end": round(word.end_s, 3)}
    return {"word": word.word, **times, "confidence": round(word.confidence, 4)}


def _segment(index: int, final: Final) -> dict[str, Any]:
    content = final.text.encode()
    return {
        "id": index,
        "seek": round(final.start_s * 100),
        "start": round(final.start_s, 3),
        "end": round(final.end_s, 3),
        "text": final.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": math.log(max(final.confidence or 0.0, 1e-6)),
        "compression_ratio": len(content) / max(1, len(zlib.compress(content))),
        "no_speech_prob": 0.0,
    }


def _rendered(found: Transcription, wanted: Wanted) -> Response:
    words, model = found.words, wanted.options.model
    transcript = Transcript("upload", found.duration_s, found.text, sureness(words), words, model)
    return PlainTextResponse(render([transcript], {"text": "txt"}.get(wanted.format, wanted.format)))


_RESPONSES: dict[str, Callable[[Transcription, Wanted], Response]] = {
    "json": _json,
    "verbose_json": _verbose_json,
    "text": _rendered,
    "srt": _rendered,
    "vtt": _rendered,
}
