"""Workers give what one process gives, in its order, and end with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wavasr.errors import ModelError
from wavasr.recognition.workers import Workers, usable_processes

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


def arrays(count: int) -> list[np.ndarray]:
    return [np.full(i + 1, i, np.float32) for i in range(count)]


def total(values: np.ndarray) -> tuple[float, int]:
    if len(values) == 4:
        raise ModelError("no fours")
    return float(values.sum()), os.getpid()


@pytest.mark.parametrize("count", [0, pytest.param(1, marks=needs_fork), pytest.param(3, marks=needs_fork)])
def test_results_come_in_order_and_errors_with_them(count: int) -> None:
    with Workers(total, count) as workers:
        begun = [workers.submit(values) for values in arrays(40)]
        with pytest.raises(ModelError, match="no fours"):
            begun[3].result()
        found = [one.result() for one in begun[:3] + begun[4:]]
    assert [value for value, _ in found] == [float(v.sum()) for v in arrays(40) if len(v) != 4]
    others = {process for _, process in found} - {os.getpid()}
    assert (len(others) in range(1, count + 1)) if count else not others
    assert all(not Path(f"/proc/{process}").exists() for process in others), "they have ended"


@needs_fork
def test_helpers_know_what_this_process_knew() -> None:
    known = {"bias": 1.0}
    with Workers(lambda values: float(values.sum()) + known["bias"], 2) as workers:
        assert [one.result() for one in [workers.submit(np.ones(3, np.float32)) for _ in range(3)]] == [4.0] * 3


@needs_fork
def test_one_array_alone_is_worth_no_helper() -> None:
    with Workers(total, 2) as workers:
        assert workers.submit(np.ones(3, np.float32)).result() == (3.0, os.getpid())
        assert workers.submit(np.ones(3, np.float32)).result()[1] != os.getpid()


@needs_fork
def test_what_a_killed_worker_was_to_do_is_done_here(caplog: pytest.LogCaptureFixture) -> None:
    own = os.getpid()

    def work(values: np.ndarray) -> float:
        if len(values) == 2 and os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(values.sum())

    with Workers(work, 1) as workers:
        begun = [workers.submit(values) for values in arrays(20)]
        assert [one.result() for one in begun] == [float(values.sum()) for values in arrays(20)]
    assert caplog.messages == ["a worker process was ended, perhaps for lack of memory; going on without workers"]


def test_without_processes_it_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no semaphores")

    monkeypatch.setattr("wavasr.recognition.workers.ProcessPoolExecutor", refuse)
    with Workers(total, 2) as workers:
        found = [workers.submit(np.ones(3, np.float32)) for _ in range(3)]
        assert [one.result() for one in found] == [(3.0, os.getpid())] * 3


@needs_fork
def test_helpers_end_with_a_process_that_is_killed() -> None:
    script = """
import os, time, numpy as np
from wavasr.recognition.workers import Workers
workers = Workers(lambda values: os.getpid(), 2)
begun = [workers.submit(np.ones(1, np.float32)) for _ in range(8)]
print(*{one.result() for one in begun}, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        assert workers
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.1)


def alive(process: int) -> bool:
    """Whether it runs; one that has ended may stay listed until somebody asks for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    for threads, count in (("", 4), ("2", 2), ("1", 0), ("16", 4), ("many", 4), ("0", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert usable_processes() == count
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    assert usable_processes() == 0
    monkeypatch.setattr(sys, "platform", "darwin")
    assert usable_processes() == 0


_PRODUCTS = """
import ctypes
from pathlib import Path
import numpy
libraries = [ctypes.CDLL(str(path)) for path in (Path(numpy.__file__).parent.parent / "numpy.libs").glob("*openblas*")]
names = [f"{first}openblas_{{}}_num_threads{last}" for first in ("scipy_", "") for last in ("64_", "")]
found = [(one, name) for one in libraries for name in names if hasattr(one, name.format("get"))]
for library, name in found:
    getattr(library, name.format("set"))(3)
from wavasr.network.runtime import multiply_on_one_thread
threads = [[getattr(library, name.format("get"))() for library, name in found]]
multiply_on_one_thread()
threads.append([getattr(library, name.format("get"))() for library, name in found])
print(threads)
"""


@needs_fork
def test_products_are_kept_to_one_thread() -> None:
    """In a process of its own: what else this one has loaded does not matter."""
    done = subprocess.run([sys.executable, "-c", _PRODUCTS], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "[[], []]":
        pytest.skip("NumPy here has no OpenBLAS of its own")
    assert done.stdout.strip() == "[[3], [1]]"
