"""The HTTP application: routes, the page, health, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

import wavasr
from wavasr.serving import realtime, speech, streams, transcriptions
from wavasr.serving.security import Gate, error_body
from wavasr.serving.state import State

# The files of the page, all that are ever served, and their types.
_PAGE = {"page.css": "text/css", "page.js": "text/javascript", "recorder.js": "text/javascript"}


def application(state: State) -> Starlette:
    """The application of one server whose workers run."""
    settings = state.settings
    middleware = [Middleware(Gate, settings=settings)]
    if settings.origins:
        cors = Middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"])
        middleware.insert(0, cors)
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/page/{name}", page_file),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/docs", docs),
            Route(transcriptions.ROUTE, transcriptions.transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", transcriptions.translations, methods=["POST"]),
            Route(speech.ROUTE, speech.speech, methods=["POST"]),
            Route("/v1/audio/voices", speech.voices),
            Route("/v1/models", transcriptions.models),
            Route("/v1/models/{id:path}", transcriptions.model),
            WebSocketRoute(realtime.ROUTE, realtime.realtime),
            WebSocketRoute("/v1/stream", streams.stream),
            WebSocketRoute("/", streams.vosk),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
    )
    app.state.wavasr = state
    return app


async def page(request: Request) -> Response:
    """GET /: the page, which needs nothing from elsewhere."""
    return HTMLResponse(_read("index.html"))


async def page_file(request: Request) -> Response:
    """GET /page/NAME."""
    name = request.path_params["name"]
    if name not in _PAGE:
        raise HTTPException(404)
    return Response(_read(name), media_type=_PAGE[name])


async def docs(request: Request) -> Response:
    """GET /docs: what can be asked for, in a page of text."""
    return PlainTextResponse(_read("docs.txt"))


async def health(request: Request) -> Response:
    """GET /health."""
    state: State = request.app.state.wavasr
    if state.stopping.is_set():
        return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ok", "version": wavasr.__version__, "models": list(state.settings.models)})


async def metrics(request: Request) -> Response:
    """GET /metrics."""
    state: State = request.app.state.wavasr
    gauges: Mapping[str, tuple[str, float]] = {
        "uploads_waiting": ("uploads that wait for a worker", state.pool.waiting),
        "live_sessions": ("live sessions", state.pool.sessions),
        "workers_lost": ("worker processes that ended by themselves", state.pool.lost),
    }
    return PlainTextResponse(state.metrics.text(gauges), media_type="text/plain; version=0.0.4; charset=utf-8")


def _read(name: str) -> str:
    return (files("wavasr") / "serving" / "page" / name).read_text(encoding="utf-8")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail.lower()}; see /docs"
    return JSONResponse(error_body(message, "invalid_request_error"), error.status_code, error.headers)


async def _server_error(request: Request, error: Exception) -> Response:
    return JSONResponse(error_body(f"internal error: {type(error).__name__}", "server_error"), 500)
