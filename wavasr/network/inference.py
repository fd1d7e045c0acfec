"""The network as `transcribe`, `evaluate` and `align` run it on a CPU: by onnxruntime, with 8-bit products; no torch.

A graph of the network is made from the model file at each start, in a tenth of a second. torch takes longer to import
than minutes of speech to recognise, and as much memory as all the rest (benchmarks/README.md).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnxruntime

from wavasr.config import from_dict
from wavasr.errors import ModelError, WavasrError
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig
from wavasr.network.files import ONNX_SUFFIX, read_header, resolve
from wavasr.network.runtime import Facts, Floats, Framing, Ints, wanted_threads


class FastModel(Framing):
    """A model file, in 8 bits, or an exported model as it is; a `AcousticModel`.

    As many threads as OMP_NUM_THREADS says, else one for each core that this process may use.
    """

    def __init__(self, path: str | Path) -> None:
        """Load a model file, a model that `wavasr export` wrote, or a shipped model.

        Raises:
            ModelError: no such file, not a model, damaged, of a newer version, or weights that do not fit its header.
        """
        path = resolve(path)
        content = None
        if path.suffix.lower() == ONNX_SUFFIX:
            header, sha256 = read_header(path), ""
        else:
            from wavasr.network.onnx import write_graph  # onnx, which exported models do not need

            header, sha256, content = write_graph(path, int8=True)
        try:
            self.encoder_config = from_dict(EncoderConfig, header["encoder"])
            self.units = Units.from_dict(header["units"])
            self.text = from_dict(TextConfig, header["text"])
            self.metadata: dict[str, Any] = dict(header["metadata"])
            self._precision = str(header["export"]["precision"])
            self._parameters = int(header["export"]["parameters"])
        except (WavasrError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: its header is damaged ({error}); train or export it again") from error
        self.file: Path | None = path
        self._path = path
        self._sha256 = sha256
        self._session = _session(path, content)

    def infer(self, waveform: Floats, lengths: Ints) -> tuple[Floats, Ints]:
        """(B, S) samples, (B,) how many each -> log-probabilities (B, T, V), (B,) how many frames each."""
        log_probs, frames = self._session.run(["log_probs", "frames"], {"waveform": waveform, "lengths": lengths})
        return log_probs, frames

    def facts(self) -> Facts:
        """Fingerprint of the weights (of the file, if it was exported), parameters, and what computes."""
        sha256 = self._sha256 or hashlib.sha256(self._path.read_bytes()).hexdigest()
        return Facts(sha256, self._parameters, f"cpu, onnxruntime {onnxruntime.__version__}, {self._precision}")


def _session(path: Path, content: bytes | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings tell of nothing that a user could change
    options.intra_op_num_threads = wanted_threads()  # by itself it would leave out the second thread of each core
    # Spinning threads would take the time of the decoder and of other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content or path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class but this
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: onnxruntime cannot run it ({reason}); export it again") from error
