"""Ctrl-C, SIGTERM and SLURM's warning end a run between two steps, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any


class Interrupted(SystemExit):
    """A run that a signal ended; its code is the one that shells give such processes."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    @property
    def requeues(self) -> bool:
        """Whether it is SLURM's warning that the job's time is nearly over."""
        return sys.platform != "win32" and self.signum == signal.SIGUSR1

    def __str__(self) -> str:
        names = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
        return names.get(signal.Signals(self.signum), f"ended by {signal.Signals(self.signum).name}")


class Interruption:
    """What signals ask of a run; as a context it has its handlers in place while it is open.

    Attributes:
        asked: the number of the signal that has come, 0 for none.
        waits: whether a first signal waits until it is asked for: an exception in the middle of a step, or of a
            logger, would leave half of it done.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self.stand()
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    def stand(self) -> None:
        """Install the handlers, again where Lightning has replaced them."""
        if threading.current_thread() is not threading.main_thread():
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32" and "SLURM_JOB_ID" in os.environ:
            signals.append(signal.SIGUSR1)
        for signum in signals:
            before = signal.signal(signum, self._handle)
            self._before.setdefault(signum, before)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.waits and not self.asked:
            self.asked = signum
            if signum == signal.SIGINT:
                print("wavasr: stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)
            return
        raise Interrupted(signum)


def requeue() -> str:
    """Put this SLURM job back into the queue: what became of that, in words; "" where it is none."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not job:
        return ""
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"job {job} could not be requeued ({error.strerror})"
    return f"job {job} is in the queue again" if done.returncode == 0 else f"scontrol requeue {job}: {done.stderr}"


def requeued() -> bool:
    """Whether SLURM has started this job before."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
