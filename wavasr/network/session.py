"""The one place that imports onnxruntime: without its telemetry, and with the settings that suit short work."""

from __future__ import annotations

import functools
import os
from typing import Any

from wavasr.errors import ConfigError, ModelError
from wavasr.network.runtime import wanted_threads

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}  # by the device that they compute on
_MOST_MEMORY = 1 << 30  # bytes, of all graphs of a process together; the largest preset takes an eighth of it
_ASKS_TOO_MUCH = "smaller than requested bytes"  # what onnxruntime says where memory ends


def load_onnxruntime() -> Any:
    """The module. By itself it would write a queue of events for its makers into the home folder, and send them."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read while it is imported
    import onnxruntime

    return onnxruntime


def providers_of(device: str) -> list[str]:
    """What onnxruntime computes a graph with on a device, the best first.

    Raises:
        ConfigError: this onnxruntime is not made for it.
    """
    found = load_onnxruntime().get_available_providers()
    if PROVIDERS[device] not in found:
        raise ConfigError(
            f"device {device}: this onnxruntime has no {PROVIDERS[device]}, but {', '.join(found)}; "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu, or stay with the CPU"
        )
    return list(dict.fromkeys([PROVIDERS[device], PROVIDERS["cpu"]]))


class Session:
    """A graph that onnxruntime computes; what fails in it, which a damaged one may at any length, is one line."""

    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self._name = name

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        """The outputs of that name.

        Raises:
            ModelError: it cannot be computed.
        """
        try:
            return list(self._session.run(outputs, inputs))
        except Exception as error:  # its exceptions have no common class but this
            raise _cannot_run(self._name, error) from error


def _cannot_run(name: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    if _ASKS_TOO_MUCH in reason:
        reason = f"it asks for more than {_MOST_MEMORY >> 20} MiB at once"
    return ModelError(f"{name}: onnxruntime cannot run it ({reason}); make the model file again")


@functools.cache
def _limit_memory() -> None:
    """A graph is a program, and a damaged one may ask for all memory that there is."""
    onnxruntime = load_onnxruntime()
    arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": _MOST_MEMORY}))


def new_session(graph: bytes, name: str, threads: int | None = None, device: str = "cpu") -> Session:
    """A graph, ready to be computed.

    Args:
        graph: an ONNX file.
        name: what error messages call it.
        threads: as many as OMP_NUM_THREADS says, else one for each core that this process may use, by default.
        device: where it computes, of `PROVIDERS`.

    Raises:
        ModelError: onnxruntime cannot run it.
        ConfigError: it cannot use the device.
    """
    onnxruntime, providers = load_onnxruntime(), providers_of(device)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # warnings tell of nothing that a user could change, errors are raised too
    options.intra_op_num_threads = threads or wanted_threads()  # it would leave out the second thread of each core
    options.enable_mem_pattern = False  # one would be kept for each length of input, for ever
    _limit_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Spinning threads would take the time of the decoder and of other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Without its second try, which prints to standard output.
        session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise _cannot_run(name, error) from error
    if session.get_providers()[0] != providers[0]:  # it goes on with the CPU, without a word
        raise ConfigError(f"device {device}: {providers[0]} cannot be loaded; are CUDA and cuDNN installed?")
    return Session(session, name)
