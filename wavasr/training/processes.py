"""What a run computes on: alone or with other processes, with or without fast bfloat16."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import torch

log = logging.getLogger("wavasr")

_LOOK_S, _PATIENCE_S = 0.5, 30.0
_CONNECTION = ("gloo", "nccl", "processgroup", "connection closed", "connection reset", "timed out", "broken pipe")
_INTERRUPTED = (130, 138, 143)  # what processes end with that a signal asked to stop
_children: list[subprocess.Popen[bytes]] = []


def watch(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Look after the processes that this one started: where one is lost, this one ends too, and says so.

    Usually it fails at once when it waits for the lost one; where it does not, it is ended after half a minute.
    """
    _children[:] = children

    def look() -> None:
        while all(child.poll() in (None, 0) for child in children):
            if all(child.poll() == 0 for child in children):
                return
            time.sleep(_LOOK_S)
        if any(child.poll() in _INTERRUPTED for child in children):
            return
        time.sleep(_PATIENCE_S)
        print(f"wavasr: {lost_process()}", file=sys.stderr, flush=True)
        for child in children:
            child.kill()
        os._exit(2)

    threading.Thread(target=look, daemon=True, name="watch").start()


def is_lost_connection(error: Exception) -> bool:
    """Whether an error says that another process does not answer."""
    return any(word in str(error).lower() for word in _CONNECTION)


def lost_process() -> str:
    """Which process was lost, as far as that is known here."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        for rank, child in enumerate(_children, start=1):
            if code := child.poll():
                how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                return f"rank {rank} of {len(_children) + 1} was lost ({how})"
        if not _children:
            break
        time.sleep(0.1)
    own, size = os.environ.get("RANK") or os.environ.get("LOCAL_RANK", "0"), os.environ.get("WORLD_SIZE", "?")
    return f"rank {own} of {size} lost its connection to another one, which has ended or does not answer"


def connected() -> bool:
    """Whether this process exchanges with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def most(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers."""
    if not connected():
        return number
    found = torch.tensor(number, device=device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return int(found)


def has_fast_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products (AVX-512 BF16, AMX)."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)
