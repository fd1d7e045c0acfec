"""What a server is started with: where it listens, which models it offers, what it refuses."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from wavasr.config import check, require

DEFAULT_PORT = 8000
WYOMING_PORT = 10300


@dataclass(frozen=True)
class Limits:
    """Bounds on what one client may ask for.

    Attributes:
        upload_mb: largest request body, in millions of bytes.
        audio_s: longest recording of a request, counted while it is decoded.
        queue: uploads that may wait for a worker; beyond that clients get 429.
        sessions: live sessions at the same time; beyond that clients get 503.
        session_s: longest live session.
        idle_s: a live session without a message for this long ends.
        backlog_s: audio that a live session may be ahead of the recogniser.
    """

    upload_mb: float = 100.0
    audio_s: float = 4 * 3600.0
    queue: int = 32
    sessions: int = 64
    session_s: float = 4 * 3600.0
    idle_s: float = 60.0
    backlog_s: float = 60.0

    def __post_init__(self) -> None:
        check(self, "--", **dict.fromkeys((field.name for field in fields(self)), "(0, inf)"))


@dataclass(frozen=True)
class Settings:
    """Everything that `wavasr serve` decides at start.

    Attributes:
        host: address to listen on.
        port: TCP port of HTTP and WebSocket; 0: any free one.
        wyoming_port: TCP port of the Wyoming protocol; 0: not offered.
        models: models that clients may name, by the name they use; the first is the default.
        voices: that clients may name for speech, by the name they use; the first is the default.
        keys: clients must send one of these; none: everybody may.
        insecure: allow other addresses than loopback without a key.
        origins: web origins, besides the server's own, whose pages may connect.
        strict_models: refuse unknown model names, instead of using the default model.
        workers: processes that recognise.
        voice_activity: leave out what is not speech.
        limits: see `Limits`.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    wyoming_port: int = WYOMING_PORT
    models: Mapping[str, str] = field(default_factory=lambda: {"default": "default"})
    voices: Mapping[str, str] = field(default_factory=lambda: {"kathleen": "kathleen"})
    keys: tuple[str, ...] = ()
    insecure: bool = False
    origins: tuple[str, ...] = ()
    strict_models: bool = False
    workers: int = 2
    voice_activity: bool = True
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check(self, "--", port="[0, 65535]", wyoming_port="[0, 65535]", workers="[1, inf)")
        require(bool(self.models), "no model to serve")
        require(all(self.keys), "an empty API key lets everybody in; give --api-key a value, or none")
        require(
            self.insecure or bool(self.keys) or is_loopback(self.host),
            f"--host {self.host} can be reached from other machines; give --api-key, or --insecure to let everybody in",
        )

    @property
    def default_model(self) -> str:
        """The name of the model for requests that name none."""
        return next(iter(self.models))

    def voice_for(self, name: str) -> str | None:
        """The offered voice that a client means, by its place; None where it must be refused."""
        if name in self.voices:
            return self.voices[name]
        return None if self.strict_models and name else next(iter(self.voices.values()), None)

    def model_for(self, name: str) -> str | None:
        """The offered model that a client means; None where it must be refused."""
        if name in self.models:
            return name
        return None if self.strict_models and name else self.default_model


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
