"""What `transcribe` and `evaluate` need of a model, whatever runs it.

What is read for a model, such as its language model, is kept with it: see `cache_of`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from wavasr.archive import Source
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig
from wavasr.network.geometry import receptive_field

_SET_THREADS = tuple(  # of OpenBLAS, by how it was built
    f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
T = TypeVar("T")


class Facts(NamedTuple):
    """What a report says of a network: a fingerprint, how many parameters it has, and what it runs on."""

    sha256: str
    parameters: int
    device: str


class AcousticModel(Protocol):
    """A network with the units that it spells in; `Recognizer` is one, `FastModel` another."""

    units: Units
    text: TextConfig
    metadata: dict[str, Any]
    file: Path | None  # that it was loaded from

    @property
    def sample_rate(self) -> int:
        """Samples per second that `infer` expects."""

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Samples that a frame sees (before, after) its own hop."""

    def infer(self, waveform: Floats, lengths: Ints) -> tuple[Floats, Ints]:
        """(B, S) samples, (B,) how many each -> log-probabilities (B, T, V), (B,) how many frames each."""

    def facts(self) -> Facts:
        """Where the network comes from, for reports."""


class Framing:
    """How samples become frames, as the encoder's config says; for every kind of model that has one."""

    encoder_config: EncoderConfig
    file: Path | None = None

    @property
    def sample_rate(self) -> int:
        """Samples per second that `infer` expects."""
        return self.encoder_config.sample_rate

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return self.encoder_config.hop_samples

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Samples that a frame sees (before, after) its own hop."""
        return receptive_field(self.encoder_config)


class Cache:
    """What was read last, one thing of each kind, until another one is asked for. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: dict[str, tuple[Hashable, Any]] = {}

    def get(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """What is there under this key, else what `make` returns, which then takes the place of its kind."""
        with self._lock:
            held = self._held.get(kind)
            if held is None or held[0] != key:
                self._held.pop(kind, None)  # two language models at once may be too much
                held = self._held[kind] = key, make()
            return cast(T, held[1])


# Not in the models themselves, which are copied and pickled.
_CACHES: weakref.WeakKeyDictionary[Any, Cache] = weakref.WeakKeyDictionary()
_CACHES_LOCK = threading.Lock()


def cache_of(model: object) -> Cache:
    """The cache of a model, which goes when the model does; a new one if such objects cannot be told apart."""
    try:
        with _CACHES_LOCK:
            return _CACHES.setdefault(model, Cache())
    except TypeError:  # without a hash, or without weak references
        return Cache()


def multiply_on_one_thread() -> None:
    """Keep NumPy's products to one thread in this process, on Linux: in workers, of which there is one for each core.

    The other threads of its OpenBLAS would turn in circles between products, and take the cores from other workers.
    """
    with contextlib.suppress(OSError):
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        for path in {line.split(maxsplit=5)[-1] for line in mapped if "openblas" in line}:
            library = ctypes.CDLL(path)
            for name in _SET_THREADS:
                if hasattr(library, name):
                    getattr(library, name)(1)


def wanted_threads() -> int:
    """As many as OMP_NUM_THREADS says, as torch does; else one for each core that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return usable_cores()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def stamp(path: Source | None) -> Hashable:
    """What changes when a file does; None where there is none."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
