"""Who does the units of a bulk run: processes of this machine or actors of a Ray cluster, by one schedule.

carry_out(units, Processes(work), 2)    or    carry_out(units, Actors(work, "auto"), 100)
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol, cast

from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.factory import decoder_of
from wavasr.errors import ConfigError, WavasrError
from wavasr.files import remove_leftovers
from wavasr.network.runtime import usable_cores
from wavasr.recognition.bulk import Bulk, Done, Unit, result_of, transcribe_unit
from wavasr.recognition.models import opened
from wavasr.recognition.workers import show_warnings

_ATTEMPTS = 2
_END_S = 10.0  # that an actor may take to end
_COPIES = 2  # of a unit, where workers have nothing else to do


class Schedule:
    """Which unit is begun next. One whose worker is lost is begun again once, then given up.

    Args:
        units: in the order in which they are begun.
        backups: whether a worker for whom nothing is left begins a unit that another has had for longest, so that a
            slow machine holds nobody up (the backup tasks of MapReduce, Dean and Ghemawat 2004). Both write the same
            bytes, each file whole; it does not matter who is first.
    """

    def __init__(self, units: Sequence[Unit], backups: bool = False) -> None:
        self._waiting = deque(units)
        self._backups = backups
        self._lost: Counter[str] = Counter()
        self._running: dict[str, tuple[Unit, int]] = {}  # with the number of its workers; the oldest first

    @property
    def is_over(self) -> bool:
        """Whether all units are done or given up."""
        return not self._waiting and not self._running

    def next(self) -> Unit | None:
        """What a free worker begins; None where there is nothing to do."""
        if self._waiting:
            unit = self._waiting.popleft()
        else:
            backups = (unit for unit, workers in self._running.values() if workers < _COPIES)
            found = next(backups, None) if self._backups else None
            if found is None:
                return None
            unit = found
        self._running[unit.name] = unit, self._running.get(unit.name, (unit, 0))[1] + 1
        return unit

    def done(self, unit: Unit) -> bool:
        """A worker has done a unit; whether it is the first."""
        return self._running.pop(unit.name, None) is not None

    def lost(self, unit: Unit) -> Done | None:
        """A worker is lost that had a unit; what is to be said of the unit where it is given up."""
        if unit.name not in self._running:  # another one has done it
            return None
        self._lost[unit.name] += 1
        _, workers = self._running.pop(unit.name)
        if workers > 1:
            self._running[unit.name] = unit, workers - 1
        elif self._lost[unit.name] < _ATTEMPTS:
            self._waiting.appendleft(unit)
        else:
            return Done(unit.name, 0, len(unit.utterances), 0.0, lost=True)
        return None


class Runners(Protocol):
    """What carries out units: processes or actors."""

    backups: bool  # whether their machines may be of different speed

    @property
    def processors(self) -> int:
        """How many can work at a time."""

    def begin(self, unit: Unit) -> None:
        """Let a free worker, or a new one, begin a unit."""

    def ended(self) -> list[tuple[Unit, Done | Exception | None]]:
        """Wait until some are done; what came of their units, None where the worker is lost."""

    def close(self) -> None:
        """End them all."""


def carry_out(units: Sequence[Unit], workers: Runners, number: int) -> Iterator[Done]:
    """Do units, `number` at a time, and tell of each when it is done.

    Raises:
        WavasrError: a worker cannot use the model.
        OSError: a result cannot be written.
    """
    schedule = Schedule(units, workers.backups)
    busy = 0
    try:
        while not schedule.is_over:
            while busy < number and (unit := schedule.next()) is not None:
                workers.begin(unit)
                busy += 1
            for unit, outcome in workers.ended():
                busy -= 1
                if isinstance(outcome, Exception):
                    raise outcome
                if outcome is None:
                    if given_up := schedule.lost(unit):
                        yield given_up
                elif schedule.done(unit):
                    yield outcome
    finally:
        workers.close()


# Processes of this machine --------------------------------------------------------------------------------------------


class Processes:
    """Worker processes; they take OMP_NUM_THREADS from this one."""

    backups = False

    def __init__(self, work: Bulk) -> None:
        self._arguments = work.output, work.model, work.decoding, logging.getLogger("wavasr").getEffectiveLevel()
        self._busy: dict[Connection, tuple[SpawnProcess, Unit]] = {}
        self._idle: list[tuple[SpawnProcess, Connection]] = []

    @property
    def processors(self) -> int:
        """Those that this process may use."""
        return usable_cores()

    def begin(self, unit: Unit) -> None:
        """Send it to a process."""
        process, pipe = self._idle.pop() if self._idle else self._new()
        self._busy[pipe] = process, unit
        with suppress(OSError):  # a process that is gone is found when it should answer
            pipe.send(Unit(unit.name, list(unit.utterances)))

    def ended(self) -> list[tuple[Unit, Done | Exception | None]]:
        """Wait for some."""
        found: list[tuple[Unit, Done | Exception | None]] = []
        for pipe in cast(list[Connection], wait(list(self._busy))):
            process, unit = self._busy.pop(pipe)
            outcome = _received(pipe)
            if outcome is not None:
                self._idle.append((process, pipe))
            found.append((unit, outcome))
        return found

    def close(self) -> None:
        """End all processes; what they have half-written they remove."""
        for process in [process for process, _ in (*self._busy.values(), *self._idle)]:
            process.terminate()
            process.join()

    def _new(self) -> tuple[SpawnProcess, Connection]:
        context = get_context("spawn")  # the same everywhere, and nothing of this process's threads
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def _received(pipe: Connection) -> Done | Exception | None:
    """What a process says; None where it is gone."""
    try:
        outcome: Done | Exception = pipe.recv()
        return outcome
    except (EOFError, OSError):
        return None


def _work(pipe: Connection, output: Path, model: str, decoding: DecodingConfig, log_level: int) -> None:
    """Do units as they come, until the first process is done or gone."""
    show_warnings(log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process reports it
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # removes what is half-written
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        acoustic = opened(model)
        decoder = decoder_of(decoding, acoustic)
        while True:
            pipe.send(transcribe_unit(pipe.recv(), output, acoustic, decoder))
    except EOFError:
        return
    except (WavasrError, OSError) as error:
        with suppress(OSError):
            pipe.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# Actors of a Ray cluster ----------------------------------------------------------------------------------------------


class Actors:
    """One actor for each processor of a cluster whose machines see the same folders; they end with this process.

    Only names of files go through Ray, never audio or texts.

    Args:
        work: what they need to know.
        address: of the cluster, as `ray.init` takes it: HOST:PORT, "auto", or "local" for one on this machine.

    Raises:
        ConfigError: there is no such cluster.
    """

    backups = True

    def __init__(self, work: Bulk, address: str) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # else it sends them to its makers
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray: Any = ray
        try:
            self._ray.init(address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except Exception as error:  # a node that starts too slowly raises this very class
            reason = next(iter(str(error).splitlines()), "no answer").rstrip(".")
            raise ConfigError(f"--ray {address}: {reason}; give HOST:PORT of a Ray cluster, auto or local") from error
        self._arguments = Path.cwd(), work.output, work.model, work.decoding
        self._output = work.output
        self._busy: dict[Any, tuple[Any, Unit]] = {}
        self._idle: list[Any] = []

    @property
    def processors(self) -> int:
        """Of the whole cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def begin(self, unit: Unit) -> None:
        """Send it to an actor."""
        actor = self._idle.pop() if self._idle else self._new()
        self._busy[actor.do.remote(Unit(unit.name, list(unit.utterances)))] = actor, unit

    def ended(self) -> list[tuple[Unit, Done | Exception | None]]:
        """Wait for one."""
        found: list[tuple[Unit, Done | Exception | None]] = []
        for answer in self._ray.wait(list(self._busy), num_returns=1)[0]:
            actor, unit = self._busy.pop(answer)
            outcome: Done | Exception | None = None
            try:
                outcome = self._ray.get(answer)
                self._idle.append(actor)
            except self._ray.exceptions.RayTaskError:
                raise  # a fault of this program
            except self._ray.exceptions.RayError:  # the actor, or its machine, is gone
                self._ray.kill(actor)
            found.append((unit, outcome))
        return found

    def close(self) -> None:
        """End all actors, and remove what they have half-written: Ray kills them."""
        for actor, _ in self._busy.values():
            self._ray.kill(actor)
        for answer, (_, unit) in self._busy.items():
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(answer, timeout=_END_S)
            latest = time.monotonic() + _END_S  # Ray says that an actor is gone while its process still holds the file
            while not remove_leftovers(result_of(self._output, unit.name)) and time.monotonic() < latest:
                time.sleep(0.05)
        self._ray.shutdown()

    def _new(self) -> Any:
        actor = self._ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        return actor.remote(*self._arguments)


class _Actor:
    """Does units; errors are returned, since Ray wraps what is raised."""

    def __init__(self, folder: Path, output: Path, model: str, decoding: DecodingConfig) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # sums are rounded alike
        self._folder, self._output, self._model, self._decoding = folder, output, model, decoding

    def do(self, unit: Unit) -> Done | Exception:
        try:
            os.chdir(self._folder)  # relative names mean the same everywhere
            model = opened(self._model)
            return transcribe_unit(unit, self._output, model, decoder_of(self._decoding, model))
        except (WavasrError, OSError) as error:
            return error
