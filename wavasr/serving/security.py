"""Who may use the server: keys, the origins of web pages, and the names under which it is reached.

Checked for each request before anything of its body is read, and for WebSockets before they are accepted.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from wavasr.serving.settings import Settings, is_loopback

OPEN_PATHS = frozenset({"/", "/health", "/docs"})  # the page asks its user for the key; it holds no secret
_SUBPROTOCOL_KEY = "openai-insecure-api-key."  # how browsers, which cannot set headers, send a key
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; media-src blob:; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": _POLICY.encode(),
}


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, object]:
    """An error as OpenAI's clients expect it: all four keys are always there."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Gate:
    """ASGI middleware that refuses requests without a key, from other sites' pages, or under a foreign host name."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in settings.keys]
        self._origins = {origin.rstrip("/").lower() for origin in settings.origins}
        self._only_loopback = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by itself what is refused; hand the rest on, with security headers on the response."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await _deny(refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._only_loopback and not is_loopback(_host_name(headers.get("host", "localhost"))):
            # A page of another site whose name resolves to this machine (DNS rebinding).
            return _refused(403, "this server answers to localhost only; see --host", "permission_error")
        if not self._is_own_origin(headers):
            return _refused(403, "pages of other origins may not connect; see --origin", "permission_error")
        is_open = scope["type"] == "http" and (scope["path"] in OPEN_PATHS or scope["path"].startswith("/page/"))
        if self._digests and not is_open and not self._has_key(headers):
            return _refused(401, "no valid API key; send Authorization: Bearer KEY", "authentication_error")
        return None

    def _is_own_origin(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or origin.rstrip("/").lower() in self._origins:
            return True
        try:
            return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        except ValueError:  # such as "http://["
            return False

    def _has_key(self, headers: Headers) -> bool:
        candidates = [headers.get("x-api-key", "")]
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            candidates.append(token.strip())
        for name in headers.get("sec-websocket-protocol", "").split(","):
            if name.strip().startswith(_SUBPROTOCOL_KEY):
                candidates.append(name.strip().removeprefix(_SUBPROTOCOL_KEY))
        found = False
        for candidate in candidates:  # every comparison is made, each in constant time
            digest = hashlib.sha256(candidate.encode()).digest()
            for known in self._digests:
                found |= hmac.compare_digest(digest, known)
        return found


def _host_name(host: str) -> str:
    """The name without the port: "[::1]:80" -> "::1"; "" of what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _refused(status: int, message: str, kind: str) -> Response:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(error_body(message, kind), status, headers)


async def _deny(refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket before it is accepted, with a response where the server can send one."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await refusal(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008})


def _with_headers(send: Send) -> Send:
    async def sending(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))  # type: ignore[call-overload]
            message = {**message, "headers": [*headers, *_HEADERS.items()]}
        await send(message)

    return sending  # type: ignore[return-value]
