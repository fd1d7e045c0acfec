"""How `wavasr bulk` would fare on a thousand machines: its own scheduler, measured service times, simulated time.

    python -m benchmarks.scheduling MANIFEST [--workers 1000] [--recordings 1000000]

Some recordings of the manifest are transcribed here; the simulated ones are drawn from their lengths and their
processor time a second of audio. Machines differ in speed, some are stragglers, and each dies at a random time.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavasr.corpora.manifest import read_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.recognition.bulk import Done, Unit
from wavasr.recognition.models import opened
from wavasr.recognition.runners import carry_out
from wavasr.recognition.transcribe import transcribe

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """What machines are like: seconds, but for `spread` (of the logarithm of their speed) and the stragglers' share."""

    start_s: float = 10.0  # of the process and the model
    replace_s: float = 60.0  # until there is a new machine
    between_failures_s: float = 7200.0  # of one machine, on average
    spread: float = 0.1
    stragglers: float = 0.02
    times_slower: float = 5.0


@dataclass(order=True)
class Event:
    """When a machine tells of a unit, or is lost."""

    end_s: float
    number: int
    unit: Unit = field(compare=False)
    machine: Machine = field(compare=False)
    begun_s: float = field(compare=False)
    survives: bool = field(compare=False)


@dataclass
class Machine:
    """Seconds that it takes for one of an average machine, when it is ready, and when it dies."""

    slowness: float
    ready_s: float
    dies_s: float


class Simulated:
    """The workers of `carry_out`, in simulated time."""

    def __init__(self, seconds: dict[str, float], world: World, rng: np.random.Generator, backups: bool) -> None:
        self.backups = backups
        self.now_s = self.busy_s = self.lost_s = 0.0
        self.failures = 0
        self.useful_s: dict[str, float] = {}  # of the first who did a unit
        self._seconds, self._world, self._rng = seconds, world, rng
        self._events: list[Event] = []
        self._idle: list[Machine] = []
        self._count = itertools.count()
        self._new_s = 0.0

    @property
    def processors(self) -> int:
        """Nobody asks."""
        return 1

    def begin(self, unit: Unit) -> None:
        """On a machine that has nothing to do, else on a new one."""
        machine = self._idle.pop() if self._idle else self._new()
        begun_s = max(self.now_s, machine.ready_s)
        end_s = begun_s + self._seconds[unit.name] * machine.slowness
        survives = end_s < machine.dies_s
        event = Event(
            end_s if survives else max(begun_s, machine.dies_s), next(self._count), unit, machine, begun_s, survives
        )
        heapq.heappush(self._events, event)

    def ended(self) -> list[tuple[Unit, Done | Exception | None]]:
        """What happens next."""
        event = heapq.heappop(self._events)
        self.now_s = event.end_s
        self._account(event)
        if not event.survives:
            self.failures += 1
            self.lost_s += event.end_s - event.begun_s
            self._new_s = self._world.replace_s  # the machine that takes its place
            return [(event.unit, None)]
        self._idle.append(event.machine)
        self.useful_s.setdefault(event.unit.name, event.end_s - event.begun_s)
        return [(event.unit, Done(event.unit.name, len(event.unit.utterances), 0, 0.0))]

    def close(self) -> None:
        """What others have done already is dropped."""
        for event in self._events:
            event.end_s = min(event.end_s, self.now_s)
            self._account(event)
        self._events.clear()
        self._idle.clear()

    def _account(self, event: Event) -> None:
        self.busy_s += max(0.0, event.end_s - event.begun_s)

    def _new(self) -> Machine:
        world, rng = self._world, self._rng
        slowness = float(np.exp(rng.normal(0, world.spread)))
        if rng.random() < world.stragglers:
            slowness *= world.times_slower
        born_s = self.now_s + self._new_s
        self._new_s = 0.0
        return Machine(slowness, born_s + world.start_s, born_s + float(rng.exponential(world.between_failures_s)))


def simulate(units: list[Unit], workers: Simulated, number: int) -> int:
    """Run until all is done, again where units were given up; how many that were."""
    given_up = 0
    while units:
        lost = {done.name for done in carry_out(units, workers, number) if done.lost}
        given_up += len(lost)
        units = [unit for unit in units if unit.name in lost]
    return given_up


def row(name: str, parts: list[Simulated], given_up: int, number: int) -> str:
    """What became of a run, as a line of a Markdown table."""
    span_s = max(part.now_s for part in parts)
    busy_s, lost_s = sum(p.busy_s for p in parts), sum(p.lost_s for p in parts)
    twice_s = busy_s - lost_s - sum(sum(p.useful_s.values()) for p in parts)
    failures = sum(p.failures for p in parts)
    return (
        f"| {name} | {span_s / 60:.1f} min | {failures} | {100 * lost_s / busy_s:.2f} % | "
        f"{100 * twice_s / busy_s:.2f} % | {100 * (1 - busy_s / span_s / number):.0f} % | {given_up} |"
    )


def measure(manifest: Path, recordings: int, model: str) -> tuple[Floats, Floats]:
    """Lengths of the manifest's recordings, and processor seconds a second of audio of some of them."""
    utterances = read_manifest(manifest)
    network = opened(model)
    costs = []
    chosen = np.random.default_rng(0).choice(len(utterances), min(recordings + 1, len(utterances)), replace=False)
    for index in chosen:
        samples = load_utterance(utterances[index], network.sample_rate)
        started = time.process_time()
        transcribe(samples, network, sample_rate=network.sample_rate)
        costs.append((time.process_time() - started) / utterances[index].duration_s)
    return np.array([u.duration_s for u in utterances]), np.array(costs[1:])  # the first one reads the language model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--recordings", type=int, default=1_000_000)
    parser.add_argument("--measured", type=int, default=16, help="recordings that are transcribed here")
    parser.add_argument("--model", default="default")
    args = parser.parse_args()
    lengths, costs = measure(args.manifest, args.measured, args.model)
    rng = np.random.default_rng(0)
    drawn_s = rng.choice(lengths, args.recordings)
    service_s = drawn_s * rng.choice(costs, args.recordings)
    world = World()
    print(f"measured: {3600 * costs.mean():.0f} processor seconds an hour of audio ({len(costs)} recordings)")
    print(
        f"{drawn_s.sum() / 3600:.0f} h in {args.recordings} recordings on {args.workers} machines: "
        f"{service_s.sum() / args.workers / 60:.1f} min of work for each; {world}\n"
    )
    print("| runner | until all is done | machines lost | work lost | done twice | idle | given up, done by a rerun |")
    print("|---|---|---|---|---|---|---|")
    for block in (20, 50, 200):
        starts = range(0, args.recordings, block)
        units = [Unit(f"{n:06d}", range(min(block, args.recordings - first))) for n, first in enumerate(starts)]
        sums = np.add.reduceat(service_s, np.array(starts))
        seconds = {unit.name: float(total) for unit, total in zip(units, sums, strict=True)}
        for backups in (True, False):
            one = Simulated(seconds, world, np.random.default_rng(1), backups)
            given_up = simulate(units, one, args.workers)
            name = f"`--ray`, blocks of {block}" if backups else f"the same without backups, {block}"
            print(row(name, [one], given_up, args.workers))
        shares = []
        given_up = 0
        for index in range(args.workers):
            share = Simulated(seconds, world, np.random.default_rng((1, index)), False)
            given_up += simulate(units[index :: args.workers], share, 1)
            shares.append(share)
        print(row(f"`--shard i/{args.workers}`, {block}", shares, given_up, args.workers))


if __name__ == "__main__":
    main()
