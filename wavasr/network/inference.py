"""The network as `transcribe`, `evaluate` and `align` run it on a CPU: by onnxruntime, with 8-bit products.

The model file carries the graph, so this takes neither torch nor onnx. torch takes longer to import than minutes of
speech to recognise, and as much memory as all the rest (benchmarks/README.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wavasr.archive import members_of
from wavasr.config import from_dict
from wavasr.errors import ModelError, WavasrError
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig
from wavasr.network.files import BACK, FRONT, GRAPH, read_arrays, read_header, resolve
from wavasr.network.halves import Halves
from wavasr.network.runtime import Facts, Floats, Framing, Ints
from wavasr.network.session import load_onnxruntime, new_session, providers_of

_TRIED = 10  # frames


class FastModel(Framing):
    """A model file, run in 8 bits; an `AcousticModel`.

    As many threads as OMP_NUM_THREADS says, else one for each core that this process may use.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        """Load a model file or a shipped model.

        Args:
            path: the file or the name.
            device: "cpu"; or "cuda", which computes in float32: it has no 8-bit products, and needs the package onnx.

        Raises:
            ModelError: no such file, not a model, damaged, or of another version.
            ConfigError: onnxruntime cannot use the device.
        """
        providers_of(device)
        path = resolve(path)
        header = read_header(path)
        try:
            self.encoder_config = from_dict(EncoderConfig, header["encoder"])
            self.units = Units.from_dict(header["units"])
            self.text = from_dict(TextConfig, header["text"])
            self.metadata: dict[str, Any] = dict(header["metadata"])
            network = header["network"]
            self._facts = Facts(
                str(network["sha256"]),
                int(network["parameters"]),
                f"{device}, onnxruntime {load_onnxruntime().__version__}, "
                f"{network['precision'] if device == 'cpu' else 'float32'}",
            )
            graphs = _graphs(path) if device == "cpu" else [_float_graph(path, header)]
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (WavasrError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: is damaged ({error}); train or export it again") from error
        self.file: Path | None = path
        self.halves: Halves | None = None  # the network in two parts, where it can be cut and runs on the CPU
        if len(graphs) > 1:
            self.halves = Halves(graphs[0], graphs[1], str(path), self.encoder_config)
        else:
            self._session = new_session(graphs[0], str(path), device=device)
        self._check(path)

    def _check(self, path: Path) -> None:
        """Whether the graph is that of the header: its frames and its labels."""
        samples = _TRIED * self.hop_samples
        message = f"{path}: its header and its graph do not make a model; train or export it again"
        try:
            log_probs, _ = self.infer(np.zeros((1, samples), np.float32), np.array([samples]))
        except Exception as error:  # onnxruntime has a kind of its own for each step that fails
            raise ModelError(message) from error
        if log_probs.shape != (1, _TRIED, len(self.units)):
            raise ModelError(message)

    def infer(self, waveform: Floats, lengths: Ints) -> tuple[Floats, Ints]:
        """(B, S) samples, (B,) how many each -> log-probabilities (B, T, V), (B,) how many frames each."""
        if self.halves:
            return self.halves.infer(waveform, lengths)
        log_probs, frames = self._session.run(["log_probs", "frames"], {"waveform": waveform, "lengths": lengths})
        return log_probs, frames

    def facts(self) -> Facts:
        """Fingerprint of the weights, parameters, and what computes."""
        return self._facts


def _graphs(path: Path) -> list[bytes]:
    parts = members_of(path)
    return [parts[name].read_bytes() for name in ((FRONT, BACK) if FRONT in parts else (GRAPH,))]


def _float_graph(path: Path, header: dict[str, Any]) -> bytes:
    from wavasr.network.onnx import write_graph

    return write_graph(header, read_arrays(path), False, str(path))
