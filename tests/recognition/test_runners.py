"""Runners of bulk: nothing is done twice without need, nothing is lost; Ray's actors give the bytes of processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from wavasr.cli import main
from wavasr.cli.bulk import _Counts
from wavasr.corpora.manifest import Utterance, write_manifest
from wavasr.files import _lock, _prefix
from wavasr.recognition.bulk import Done, Unit
from wavasr.recognition.runners import Schedule, carry_out


def units(number: int) -> list[Unit]:
    return [Unit(str(n), range(2)) for n in range(number)]


class Scripted:
    """Workers whose fates are written down: for each beginning of a unit, whether the worker lives."""

    processors = 2

    def __init__(self, fates: dict[str, list[bool | Exception]], backups: bool = False) -> None:
        self.backups, self.fates, self.closed = backups, fates, False
        self.begun: list[str] = []
        self.busy: list[Unit] = []

    def begin(self, unit: Unit) -> None:
        self.begun.append(unit.name)
        self.busy.append(unit)

    def ended(self) -> list[tuple[Unit, Done | Exception | None]]:
        unit = self.busy.pop()  # the youngest first, so that the oldest is the straggler
        fate = self.fates.get(unit.name, []).pop(0) if self.fates.get(unit.name) else True
        if isinstance(fate, Exception):
            return [(unit, fate)]
        return [(unit, Done(unit.name, 2, 0, 1800.0) if fate else None)]

    def close(self) -> None:
        self.closed = True


def test_each_unit_is_done_once_and_a_lost_one_begun_again_once() -> None:
    workers = Scripted({"1": [False], "2": [False, False]})
    done = list(carry_out(units(4), workers, 2))
    assert sorted((one.name, one.lost) for one in done) == [("0", False), ("1", False), ("2", True), ("3", False)]
    assert next(one for one in done if one.lost).failed == 2
    assert sorted(workers.begun) == ["0", "1", "1", "2", "2", "3"] and workers.closed


def test_an_error_ends_the_run_and_its_workers() -> None:
    workers = Scripted({"0": [OSError("disk full")]})
    with pytest.raises(OSError, match="disk full"):
        list(carry_out(units(3), workers, 1))
    assert workers.closed and workers.begun == ["0"]


def test_who_has_nothing_to_do_begins_the_oldest_unit_again() -> None:
    workers = Scripted({}, backups=True)
    done = list(carry_out(units(3), workers, 2))
    assert [one.name for one in done] == ["1", "2", "0"]
    assert workers.begun == ["0", "1", "2", "0"] and [unit.name for unit in workers.busy] == ["0"]


def test_hours_done_and_left_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("tqdm.tqdm.set_postfix_str", lambda bar, text: told.append(text))
    earlier = Done("0", 2, 0, 0.0)
    work: Any = SimpleNamespace(output=tmp_path, finished=lambda unit: earlier if unit.name == "0" else None)
    assert _Counts(work, units(4), True, None).carry_out(Scripted({}), 1) == 0
    left = {0.5: 1.0, 1.0: 0.5, 1.5: 0.0}
    assert told == [f"{done:.2f} h of audio done, about {more:.2f} left" for done, more in left.items()]


def test_a_lost_backup_costs_nothing() -> None:
    schedule = Schedule(units(1), backups=True)
    first, second = schedule.next(), schedule.next()
    assert first is second and first is not None and schedule.next() is None
    assert schedule.lost(first) is None and not schedule.is_over
    assert schedule.done(first) and schedule.is_over
    assert schedule.lost(first) is None and not schedule.done(first)


# Ray ------------------------------------------------------------------------------------------------------------------


RECORDINGS = 60


@pytest.fixture
def corpus(tmp_path: Path, speech: Path) -> Path:
    shutil.copy(speech, tmp_path / "call.wav")
    utterances = [Utterance(str(n), tmp_path / "call.wav", 0.3 + 0.004 * n, "unknown") for n in range(RECORDINGS)]
    write_manifest(tmp_path / "calls.jsonl", utterances)
    return tmp_path / "calls.jsonl"


def arguments(corpus: Path, output: Path, model: Path, *more: str) -> list[str]:
    return ["bulk", str(corpus), "--output", str(output), "--model", str(model), "--block", "1", "--quiet", *more]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".part"}


class FakeRay(ModuleType):
    """What `Actors` needs of Ray, in this process; the second task's actor dies amid its writing."""

    exceptions = SimpleNamespace(RayError=OSError, RayTaskError=ZeroDivisionError)

    def __init__(self, output: Path) -> None:
        super().__init__("ray")
        self.output, self.tasks, self.killed, self.asked = output, 0, 0, list[str]()
        self.held = -1  # of the straggler's file

    def init(self, address: str, **options: Any) -> None:
        if address == "nowhere:1":
            raise ConnectionError("Could not find any running Ray instance.\nand more")

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **options: Any) -> Any:
        return lambda kind: SimpleNamespace(remote=lambda *arguments: self.actor(kind(*arguments)))

    def actor(self, instance: Any) -> Any:
        def begin(unit: Unit) -> Any:
            self.tasks += 1
            self.asked.append(unit.name)
            number = self.tasks

            def answer() -> Any:
                if number == 2:
                    return OSError("gone")
                return instance.do(unit)

            return answer

        return SimpleNamespace(do=SimpleNamespace(remote=begin))

    def wait(self, answers: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return answers[-1:], answers[:-1]  # the first one is a straggler

    def get(self, answer: Any, timeout: float = 0.0) -> Any:
        told = OSError("killed") if timeout else answer()
        if isinstance(told, OSError):
            raise told
        return told

    def kill(self, actor: Any) -> None:
        self.killed += 1
        if self.killed == 2:  # its process is still there for a moment
            threading.Timer(0.2, os.close, (self.held,)).start()

    def shutdown(self) -> None:
        self.tasks = -1


def test_actors_are_replaced_and_leave_nothing(
    corpus: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    corpus.write_text("".join(corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:4]), encoding="utf-8")
    assert main(arguments(corpus, whole, tiny_model, "--workers", "1")) == 0
    ray = FakeRay(output)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(tmp_path)
    assert main([*arguments(corpus, output, tiny_model), "--ray", "nowhere:1"]) == 2
    assert "--ray nowhere:1: Could not find any running Ray instance; give HOST:PORT" in capsys.readouterr().err
    part = output / f"{_prefix(output / 'calls-000000.jsonl')}{'0' * 8}.part"
    part.write_text("half", encoding="utf-8")  # of an actor that is going to be killed
    ray.held = os.open(part, os.O_WRONLY)
    _lock(ray.held)
    assert main([*arguments(corpus, output, tiny_model), "--ray", "auto"]) == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == files(whole)
    # The straggler is begun again by who has nothing to do, and killed at the end.
    assert ray.asked == [f"calls-00000{n}" for n in (0, 1, 1, 2, 3, 0)] and ray.killed == 2 and ray.tasks == -1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for actors in /proc")
def test_ray_gives_the_same_bytes_whatever_is_killed(corpus: Path, tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("ray")
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert main(arguments(corpus, whole, tiny_model, "--workers", "1")) == 0
    ray = [*arguments(corpus, output, tiny_model, "--workers", "2"), "--ray", "local"]
    for victim in ("driver", "actor"):
        before = files(output) if output.exists() else {}
        with subprocess.Popen([sys.executable, "-m", "wavasr", *ray], stdout=subprocess.DEVNULL) as driver:
            wait_for(partial(has_more_than, len(before) + 2, output))
            os.kill(driver.pid if victim == "driver" else actors_of(driver.pid)[0], signal.SIGKILL)
        assert driver.returncode == (-signal.SIGKILL if victim == "driver" else 0)
        assert victim == "actor" or 0 < len(files(output)) < RECORDINGS
        assert before.items() <= files(output).items()
    assert files(output) == files(whole)
    assert all(json.loads(content)["text"] for name, content in files(output).items() if name.endswith(".jsonl"))


def has_more_than(number: int, folder: Path) -> bool:
    return folder.exists() and len(files(folder)) > number


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def actors_of(driver: int) -> list[int]:
    """Not those of another run of these tests."""
    actors, below = [], [driver]
    while below:
        process = Path(f"/proc/{below.pop()}")
        with suppress(OSError):  # it has just ended
            below += map(int, (process / "task" / process.name / "children").read_text(encoding="utf-8").split())
            if (process / "cmdline").read_bytes().startswith(b"ray::_Actor"):
                actors.append(int(process.name))
    return actors


def test_ray_that_is_missing_or_does_not_answer_is_told(
    corpus: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*arguments(corpus, tmp_path / "out", tiny_model), "--ray", "auto"]) == 2
    assert "wavasr bulk needs Ray: pip install 'wavasr[ray]'" in capsys.readouterr().err
