"""What all routes of one running server share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from wavasr.config import require
from wavasr.serving.metrics import Metrics
from wavasr.serving.pool import Pool
from wavasr.serving.settings import Settings
from wavasr.serving.worker import Options

MOST_HOTWORDS, LONGEST_HOTWORD = 100, 100  # a worker builds a search for them, while its other sessions wait


@dataclass
class State:
    """The settings, the workers, and the counters.

    Attributes:
        settings: as the server was started.
        pool: the worker processes.
        metrics: the counters of `/metrics`.
        stopping: set when the server was asked to end: `/health` says so, and live sessions are closed.
        open_sessions: live sessions whose sockets are not closed yet.
    """

    settings: Settings
    pool: Pool
    metrics: Metrics = field(default_factory=Metrics)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    open_sessions: int = 0

    async def carry_out(self, session: Coroutine[Any, Any, None]) -> bool:
        """A session until it ends, or until the server stops, which ends it; whether it ended by itself."""
        serving, stopping = asyncio.ensure_future(session), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
                return True
            return False
        finally:
            stopping.cancel()
            serving.cancel()
            await asyncio.wait({serving})

    def options(self, model: str = "", hotwords: tuple[str, ...] = ()) -> Options | None:
        """What a worker needs for a client's choice of model; None where there is no such model.

        Raises:
            ConfigError: more or longer hotwords than a client may give.
        """
        require(len(hotwords) <= MOST_HOTWORDS, f"{len(hotwords)} hotwords; give {MOST_HOTWORDS} at most")
        longest = max(map(len, hotwords), default=0)
        require(
            longest <= LONGEST_HOTWORD, f"a hotword of {longest} characters; give {LONGEST_HOTWORD} characters at most"
        )
        name = self.settings.model_for(model)
        if name is None:
            return None
        return Options(self.settings.models[name], hotwords, self.settings.voice_activity)
