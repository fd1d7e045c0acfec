"""The recogniser: a WaveNet encoder with a CTC head, and the one file that carries it.

A model file is a safetensors archive: the weights, and JSON that says everything needed to use them (encoder, units,
text normalisation, sample rate, version, training record). Reading it runs no code from the file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wavasr.config import EncoderConfig, TextConfig, from_dict, to_dict
from wavasr.errors import ModelError, WavasrError
from wavasr.text import Units
from wavasr.wavenet import Encoder, Features, frames_of, receptive_field

FORMAT = "wavasr-model"
FORMAT_VERSION = 1
SUFFIX = ".wavasr"


class Recognizer(nn.Module):
    """Waveform to log-probabilities of units: (B, S) float32, (B,) int64 -> (B, T, V), (B,) int64.

    Frame t owns samples [t * hop_samples, (t + 1) * hop_samples); there is one for every started hop.
    """

    def __init__(
        self, encoder: EncoderConfig, units: Units, text: TextConfig, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.encoder_config = encoder
        self.units = units
        self.text = text
        self.metadata = dict(metadata or {})
        self.encoder = Encoder(encoder)
        self.output = nn.Conv1d(encoder.stages[-1].output_channels, len(units), 1)

    @property
    def sample_rate(self) -> int:
        """Samples per second that `forward` expects."""
        return self.encoder_config.sample_rate

    @property
    def hop_samples(self) -> int:
        """Samples from one CTC frame to the next."""
        return self.encoder_config.hop_samples

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Samples that a frame sees (before, after) its own hop."""
        return receptive_field(self.encoder_config)

    @property
    def ear(self) -> nn.ModuleList:
        """The first stages, which the shipped warm-up starts."""
        return self.encoder.stages[: self.encoder_config.ear_stages]

    def frame_length(self, samples: int) -> int:
        """CTC frames of an utterance of `samples` samples."""
        return int(frames_of(samples, self.hop_samples))

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """CTC frames of utterances of `lengths` samples: (B,) int64 -> (B,) int64."""
        return cast(Tensor, frames_of(lengths, self.hop_samples))

    def features(self, waveform: Tensor, lengths: Tensor) -> list[Features]:
        """The first stage's frames before pooling, then every stage's; the last feed `head`."""
        return cast(list[Features], self.encoder(waveform, lengths))

    def head(self, features: Features) -> Tensor:
        """(B, C, T) frames -> log-probabilities (B, T, V) in float32."""
        logits = self.output(F.relu(features.frames)).transpose(1, 2)  # (B, T, V)
        return F.log_softmax(logits.float(), dim=-1)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) float32 at `sample_rate`, (B,) int64 -> log-probabilities (B, T, V) and frame lengths (B,)."""
        last = self.features(waveform, lengths)[-1]
        return self.head(last), last.lengths


def save_model(model: Recognizer, path: Path, metadata: Mapping[str, Any] | None = None, half: bool = False) -> None:
    """Write the model file; with `half` the weights are stored as float16. The file appears whole or not at all."""
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "encoder": to_dict(model.encoder_config),
        "units": model.units.to_dict(),
        "text": to_dict(model.text),
        "metadata": {**model.metadata, **(metadata or {})},
    }
    dtype = torch.float16 if half else torch.float32
    _write(path, {name: tensor.detach().to("cpu", dtype) for name, tensor in model.state_dict().items()}, header)


def save_ear(model: Recognizer, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write the ear alone (float16), for `EncoderConfig.init`."""
    header = {
        "format": FORMAT + "-ear",
        "format_version": FORMAT_VERSION,
        "encoder": to_dict(model.encoder_config),
        "metadata": dict(metadata or {}),
    }
    _write(path, {name: tensor.detach().to("cpu", torch.float16) for name, tensor in _ear_state(model).items()}, header)


def _ear_state(model: Recognizer) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.ear.state_dict().items()}


def _write(path: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"wavasr": json.dumps(header, ensure_ascii=False)})
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def asset(name: str) -> Path:
    """A file that ships inside the package."""
    return Path(str(resources.files("wavasr"))) / "assets" / name


def resolve(model: str | Path) -> Path:
    """A path as it is, or the shipped model of that name ("default").

    Raises:
        ModelError: neither a file nor a shipped name.
    """
    path = Path(model)
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; expected a model file ({SUFFIX})")
    if path.is_file():
        return path
    shipped = asset(f"{model}{SUFFIX}")
    if path.name == str(model) and shipped.is_file():
        return shipped
    names = sorted(p.stem for p in asset("").glob(f"*{SUFFIX}")) if asset("").is_dir() else []
    raise ModelError(f"{model}: no such model file; shipped models: {', '.join(names) or 'none'}")


def read_header(path: str | Path, expected: str = FORMAT) -> dict[str, Any]:
    """The JSON that a model file carries, without loading its weights.

    Raises:
        ModelError: not a model file, damaged, or written by a newer version.
    """
    path = resolve(path)
    try:
        with safe_open(path, framework="numpy") as archive:
            header = json.loads((archive.metadata() or {})["wavasr"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{path}: not a wavasr model file, or damaged; expected one written by `wavasr fit`"
        ) from error
    if header.get("format") != expected:
        raise ModelError(f"{path}: holds {header.get('format')!r}; expected {expected!r}")
    if header.get("format_version", 0) > FORMAT_VERSION:
        raise ModelError(
            f"{path}: written by a newer wavasr (format {header['format_version']}, this one reads up to "
            f"{FORMAT_VERSION}); upgrade with `pip install --upgrade wavasr`"
        )
    return cast(dict[str, Any], header)


def load_model(path: str | Path = "default") -> Recognizer:
    """Load a model file or a shipped model, in eval mode, float32.

    Raises:
        ModelError: no such file, not a model, damaged, of a newer version, or weights that do not fit its header.
    """
    path = resolve(path)
    header = read_header(path)
    try:
        model = Recognizer(
            from_dict(EncoderConfig, header["encoder"]),
            Units.from_dict(header["units"]),
            from_dict(TextConfig, header["text"]),
            header["metadata"],
        )
        model.load_state_dict(_read_tensors(path))
    except (WavasrError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: its header and weights do not make a model ({reason}); train it again") from error
    return model.eval()


def load_ear(model: Recognizer, source: str) -> None:
    """Start the model's ear from the shipped one ("ear"), from a model or ear file, or leave it as it is ("random").

    Raises:
        ModelError: the file is no ear or model, or its ear has another shape.
    """
    if source == "random":
        return
    path = asset("ear.safetensors") if source == "ear" else resolve(source)
    tensors = _read_tensors(path)
    prefix = "encoder.stages."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        stages = tuple(f"{index}." for index in range(model.encoder_config.ear_stages))
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(stages)}
    try:
        model.ear.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: its ear has another shape than encoder.stages; set encoder.init to random, or use its preset"
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as archive:
            return {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as a wavasr file, or damaged") from error
