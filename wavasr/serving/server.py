"""Run the server: start the workers, listen, and end in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from types import FrameType

import uvicorn

from wavasr.errors import ConfigError, counted
from wavasr.serving import wyoming
from wavasr.serving.app import application
from wavasr.serving.pool import Pool
from wavasr.serving.settings import WYOMING_PORT, Settings
from wavasr.serving.state import State

GRACE_S = 10  # that requests get to finish when the server is asked to end
_CLOSE_S = 2.0  # that live sessions get to close their sockets
_LARGEST_MESSAGE = 16 << 20

log = logging.getLogger("wavasr")


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: a model cannot be loaded, or the port is taken.
    """
    if asyncio.run(_serve(settings)) == signal.SIGINT:
        raise KeyboardInterrupt


async def _serve(settings: Settings) -> int:
    """Serve; the signal that ended it, 0 for none."""
    listening = bound(settings.host, settings.port)
    models = tuple(dict.fromkeys(settings.models.values()))
    pool = Pool(models, settings.workers, settings.limits.queue, settings.limits.sessions)
    state = State(settings, pool)
    try:
        await pool.start()
        async with _wyoming(state):
            host, port = listening.getsockname()[:2]
            log.info(
                "listening on http://%s:%s with %s",
                f"[{host}]" if ":" in host else host,
                port,
                counted(pool.count, "worker"),
            )
            server = _Server(state)
            await server.serve(sockets=[listening])
            return server.signal
    finally:
        listening.close()
        await pool.stop()


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the address is not one of this machine, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as unused:
            listening = unused.enter_context(socket.socket(family, kind, protocol))
            if os.name == "posix":  # Windows would let two servers have one port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
            listening.setblocking(False)
            unused.pop_all()
        return listening
    except OSError as error:
        raise ConfigError(_unbound(host, port, error)) from error


def _unbound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; give another one with --port"
    return f"{host}:{port} cannot be listened on ({error.strerror}); check --host and --port"


@contextlib.asynccontextmanager
async def _wyoming(state: State) -> AsyncIterator[None]:
    """The Wyoming protocol beside HTTP. Its usual port may be taken by another server; one that was chosen may not."""
    host, port = state.settings.host, state.settings.wyoming_port
    if not port:
        yield
        return
    if state.settings.keys:
        log.info("the Wyoming protocol knows no keys and is not offered; start another server for it")
        yield
        return
    try:
        server = await wyoming.serve(state, host, port)
    except OSError as error:
        if port != WYOMING_PORT:
            raise ConfigError(_unbound(host, port, error).replace("--port", "--wyoming-port")) from error
        log.warning("port %d is taken: the Wyoming protocol is not offered; see --wyoming-port", port)
        yield
        return
    async with server:
        log.info("listening for Wyoming on tcp://%s:%d", host, port)
        yield


def _is_news(record: logging.LogRecord) -> bool:
    """`speech` says itself why it leaves an answer without its end."""
    return "without completing response" not in str(record.msg)


class _Server(uvicorn.Server):
    """uvicorn, which tells the sessions when it has been asked to end."""

    def __init__(self, state: State) -> None:
        super().__init__(
            uvicorn.Config(
                application(state),
                ws="websockets-sansio",
                ws_max_size=_LARGEST_MESSAGE,
                ws_per_message_deflate=False,  # it would take the event loop's time for audio that does not shrink
                timeout_graceful_shutdown=GRACE_S,
                log_config=None,
                access_log=False,
                server_header=False,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        self._state = state
        self._loop = asyncio.get_running_loop()
        self.signal = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT or SIGTERM: `/health` says so, and live sessions end."""
        self.signal = sig
        self._loop.call_soon_threadsafe(self._state.stopping.set)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything; live sessions close themselves before, since uvicorn would give them a code of its own."""
        self._state.stopping.set()
        latest = self._loop.time() + _CLOSE_S
        while self._state.open_sessions and self._loop.time() < latest:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)
