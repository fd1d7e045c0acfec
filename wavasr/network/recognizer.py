"""The recogniser: a WaveNet encoder with a CTC head, and the one file that carries it.

What a model file carries stands in `wavasr.network.files`, which reads it without torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from wavasr.config import from_dict, to_dict
from wavasr.errors import ConfigError, ModelError, WavasrError
from wavasr.files import write_whole
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import EncoderConfig, StageConfig
from wavasr.network.export import fingerprint, save_parts
from wavasr.network.files import (
    FORMAT,
    FORMAT_VERSION,
    FRONT_END_FORMAT,
    METADATA_KEY,
    asset,
    read_arrays,
    read_header,
    resolve,
)
from wavasr.network.geometry import frames_of
from wavasr.network.runtime import Facts, Framing
from wavasr.network.wavenet import Encoder, Features


class Recognizer(Framing, nn.Module):
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
    def front_end_hop_samples(self) -> int:
        """Samples from one frame of the front end to the next."""
        stages = self.encoder_config.stages
        return stages[0].stride * math.prod(stage.pool for stage in stages[: self.encoder_config.front_end_stages])

    @property
    def front_end(self) -> nn.ModuleList:
        """The first stages, which the shipped warm-up starts."""
        return self.encoder.stages[: self.encoder_config.front_end_stages]

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """CTC frames of utterances of `lengths` samples: (B,) int64 -> (B,) int64."""
        return cast(Tensor, frames_of(lengths, self.hop_samples))

    def features(self, waveform: Tensor, lengths: Tensor) -> list[Features]:
        """The first stage's frames before pooling, then every stage's; the last feed `head`."""
        return cast(list[Features], self.encoder(waveform, lengths))

    def front_end_frames(self, waveform: Tensor, lengths: Tensor) -> Features:
        """What the front end hands on: the last of its stages."""
        return cast(list[Features], self.encoder(waveform, lengths, self.encoder_config.front_end_stages))[-1]

    def features_above_front_end(self, frames: Features) -> list[Features]:
        """`front_end_frames` -> the outputs of the later stages; the last feed `head`."""
        return self.encoder.above(frames, self.encoder_config.front_end_stages)

    def head(self, features: Features) -> Tensor:
        """(B, C, T) frames -> log-probabilities (B, T, V) in float32."""
        logits = self.output(F.relu(features.frames)).transpose(1, 2)  # (B, T, V)
        return F.log_softmax(logits.float(), dim=-1)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) float32 at `sample_rate`, (B,) int64 -> log-probabilities (B, T, V) and frame lengths (B,)."""
        last = self.features(waveform, lengths)[-1]
        return self.head(last), last.lengths

    def infer(
        self, waveform: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """`forward` without gradients, from arrays to arrays, wherever the weights are.

        Padded to whole seconds, since convolutions on a CPU plan each length anew.
        """
        device, samples = self.output.weight.device, waveform.shape[1]
        padded = np.pad(waveform, ((0, 0), (0, -samples % self.sample_rate)))
        with torch.inference_mode():
            log_probs, frames = self(torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device))
        return log_probs[:, : frames_of(samples, self.hop_samples)].cpu().numpy(), frames.cpu().numpy()

    def facts(self) -> Facts:
        """What a report says of this network."""
        parameters = sum(p.numel() for p in self.parameters())
        return Facts(weights_sha256(self), parameters, str(self.output.weight.device))


def save_model(model: Recognizer, path: Path, metadata: Mapping[str, Any] | None = None, half: bool = False) -> None:
    """Write the model file, with the graph that runs without torch, whole or not at all.

    The lexicon and the language model of the file that the model was loaded from go with it.

    Args:
        model: what is written.
        path: the file.
        metadata: entries beside the model's own.
        half: store the weights as float16.

    Raises:
        ModelError: the file that the model was loaded from is damaged.
        OSError: it cannot be written.
    """
    stored = _stored(model, torch.float16 if half else torch.float32)
    arrays = {name: tensor.float().numpy() for name, tensor in stored.items()}
    header = {
        "encoder": to_dict(model.encoder_config),
        "units": model.units.to_dict(),
        "text": to_dict(model.text),
        "metadata": {**model.metadata, **(metadata or {})},
    }
    save_parts(path, header, arrays, save(stored), model.file)


def save_front_end(model: Recognizer, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write the front end alone (float16), for `EncoderConfig.init`."""
    header = {
        "format": FRONT_END_FORMAT,
        "format_version": FORMAT_VERSION,
        "encoder": to_dict(model.encoder_config),
        "metadata": dict(metadata or {}),
    }
    write_whole(
        path, save(_stored(model.front_end, torch.float16), {METADATA_KEY: json.dumps(header, ensure_ascii=False)})
    )


def _stored(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in module.state_dict().items()}


def load_model(path: str | Path = "default") -> Recognizer:
    """Load a model file or a shipped model, in eval mode, float32.

    Raises:
        ModelError: no such file, not a model, damaged, of a newer version, or weights that do not fit its header.
    """
    path = resolve(path)
    header = read_header(path)
    try:
        with torch.device("meta"):  # the weights come from the file; a random start would cost time and random numbers
            model = Recognizer(
                from_dict(EncoderConfig, header["encoder"]),
                Units.from_dict(header["units"]),
                from_dict(TextConfig, header["text"]),
                header["metadata"],
            )
        model.load_state_dict(_read_tensors(path), assign=True)
    except (WavasrError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: its header and weights do not make a model ({reason}); train it again") from error
    model.file = path
    return model.eval()


def load_front_end(model: Recognizer, source: str) -> None:
    """Start the front end from a shipped one ("front-end") or from a file, or leave it as it is ("random").

    Raises:
        ModelError: the file is no front end or model, or its front end is not built as the model's.
    """
    if source == "random":
        return
    path = _shipped_front_end(model) if source == "front-end" else resolve(source)
    header = read_header(path, FRONT_END_FORMAT, FORMAT)
    tensors = _read_tensors(path)
    if header["format"] == FORMAT:
        prefix = "encoder.stages."
        stages = tuple(f"{prefix}{index}." for index in range(model.encoder_config.front_end_stages))
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(stages)}
    try:
        # Dilations, pools and the level's window leave no trace in the shapes of weights.
        if _front_end_stages(from_dict(EncoderConfig, header["encoder"])) != _front_end_stages(model.encoder_config):
            raise ConfigError("encoder.stages differ")
        model.front_end.load_state_dict(tensors)
    except (ConfigError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"{path}: its front end differs from encoder.stages; set encoder.init to random, or use its preset"
        ) from error


def _shipped_front_end(model: Recognizer) -> Path:
    """The shipped front end that is built as the model's: the one warmed up without labels, or the default model's."""
    front_end = asset("front-end.safetensors")
    built = from_dict(EncoderConfig, read_header(front_end, FRONT_END_FORMAT)["encoder"])
    return front_end if _front_end_stages(built) == _front_end_stages(model.encoder_config) else resolve("default")


def start_from(model: Recognizer, path: str | Path) -> None:
    """Start a model from another one's weights: the whole encoder, and the output of every unit that both have, in
    whatever case. Where they share none the blank's output is new too: the old one would drown the new units.

    Raises:
        ModelError: no model file, or its encoder is not built as the model's.
    """
    source = load_model(path)
    built, wanted = ((e.context, e.sample_rate, e.stages) for e in (source.encoder_config, model.encoder_config))
    if built != wanted:
        raise ModelError(f"{path}: its encoder is not built as encoder.* says; use the recipe that it was trained with")
    model.encoder.load_state_dict(source.encoder.state_dict())
    # CMUdict's phone AE is TIMIT's ae.
    label_of = {symbol.lower(): label for label, symbol in enumerate(source.units.symbols)}
    label_of |= {symbol: label for label, symbol in enumerate(source.units.symbols)}
    named = [(label, s if s in label_of else s.lower()) for label, s in enumerate(model.units.symbols)]
    pairs = [(label, label_of[s]) for label, s in named if s in label_of]
    if len(pairs) == 1:
        return
    ours, theirs = (torch.tensor(side) for side in zip(*pairs, strict=True))
    with torch.no_grad():
        model.output.weight[ours] = source.output.weight[theirs]
        assert model.output.bias is not None and source.output.bias is not None
        model.output.bias[ours] = source.output.bias[theirs]


def weights_sha256(model: nn.Module) -> str:
    """Fingerprint of a module's parameters and buffers, the same whatever file they came from."""
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    # NumPy has no bfloat16.
    return fingerprint({name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in tensors.items()})


def _front_end_stages(encoder: EncoderConfig) -> tuple[int, tuple[StageConfig, ...]]:
    return encoder.sample_rate, encoder.stages[: encoder.front_end_stages]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in read_arrays(path).items()}
