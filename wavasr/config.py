"""Typed, frozen configuration: what a network is, how its text is spelled, how it is trained.

Every dataclass here can be written in YAML (`wavasr fit --config`), is checked when it is made, and those that
a model needs (`EncoderConfig`, `TextConfig`) travel inside the model file as JSON.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from wavasr.errors import ConfigError

T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class StageConfig:
    """One stage of the encoder: a stack of gated residual blocks at one rate, then pooling.

    Attributes:
        channels: width of the residual stream.
        dilations: one gated block per entry, e.g. (1, 2, 4, 8).
        kernel: taps of each dilated convolution.
        skip_channels: width of the summed skip connections; 0 means as wide as `channels`.
        pool: how many frames are averaged into one at the stage's end.
        pooling: "mean" of the post-net's output, or "energy": the mean beside the logarithm of the mean square.
        window: samples that the first stage's input projection sees (1 = the 1x1 projection of the WaveNet paper).
        stride: samples between two input frames of the first stage.
    """

    channels: int
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    kernel: int = 3
    skip_channels: int = 0
    pool: int = 1
    pooling: Literal["mean", "energy"] = "mean"
    window: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        _require(self.channels >= 1, f"stage.channels is {self.channels}; expected at least 1")
        _require(self.skip_channels >= 0, f"stage.skip_channels is {self.skip_channels}; expected 0 or more")
        _require(len(self.dilations) >= 1, "stage.dilations is empty; expected at least one dilation")
        _require(all(d >= 1 for d in self.dilations), f"stage.dilations is {self.dilations}; each must be at least 1")
        _require(self.kernel >= 1, f"stage.kernel is {self.kernel}; expected at least 1")
        _require(self.pool >= 1, f"stage.pool is {self.pool}; expected at least 1")
        _require(
            1 <= self.stride <= self.window, f"stage.stride is {self.stride}; expected 1 to window ({self.window})"
        )


@dataclass(frozen=True)
class TextConfig:
    """How a transcript is spelled before it becomes labels; the model file carries it.

    Attributes:
        case: "lower", "upper" or "keep".
        punctuation: "drop" (apostrophes inside words stay) or "keep".
        strip_symbols: characters removed wherever they stand, e.g. "+" for festvox-ru's stress marks.
        digits: "keep" digits as they are, or "spell" them one by one in English ("42" -> "four two").
    """

    case: Literal["lower", "upper", "keep"] = "lower"
    punctuation: Literal["drop", "keep"] = "drop"
    strip_symbols: str = ""
    digits: Literal["keep", "spell"] = "keep"


@dataclass(frozen=True)
class UnitsConfig:
    """What the CTC head spells with.

    Attributes:
        kind: "characters" (collected from the training text), "sentencepiece" (trained on it), "phones" (the
            transcripts are phone sequences).
        size: vocabulary size of SentencePiece; unused by the others.
        phone_set: for TIMIT phones: which folding the labels use (61, 48 or 39).
        out_of_inventory: what a validation or training transcript with an unknown symbol does: an "error" naming
            utterance and symbol, or "drop" it and count it.
    """

    kind: Literal["characters", "sentencepiece", "phones"] = "characters"
    size: int = 128
    phone_set: Literal[61, 48, 39] = 48
    out_of_inventory: Literal["error", "drop"] = "error"


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to training audio (never to validation audio); probabilities are per utterance.

    Attributes:
        speed: resampling factors are drawn uniformly from [1/speed.., speed] given as (low, high).
        gain_db: random gain in dB, uniform in (low, high).
        noise_dir: folder of noise recordings (searched recursively); None for no noise.
        noise_probability: share of utterances that get noise.
        snr_db: signal-to-noise ratio in dB, uniform in (low, high).
        room_dir: folder of room impulse responses; None for none.
        room_probability: share of utterances convolved with a room.
        time_masks: most spans set to silence per second of audio.
        time_mask_s: longest masked span in seconds.
        band_masks: most frequency bands removed per utterance.
        band_mask_mel: widest removed band, as a share of the mel axis.
        telephone_probability: share of utterances limited to 300-3400 Hz.
    """

    speed: tuple[float, float] = (1.0, 1.0)
    gain_db: tuple[float, float] = (0.0, 0.0)
    noise_dir: Path | None = None
    noise_probability: float = 0.0
    snr_db: tuple[float, float] = (5.0, 30.0)
    room_dir: Path | None = None
    room_probability: float = 0.0
    time_masks: float = 0.0
    time_mask_s: float = 0.1
    band_masks: int = 0
    band_mask_mel: float = 0.15
    telephone_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in ("speed", "gain_db", "snr_db"):
            low, high = getattr(self, name)
            _require(low <= high, f"augment.{name} is ({low}, {high}); expected (low, high)")
        _require(self.speed[0] > 0, f"augment.speed is {self.speed}; factors must be above 0")
        for name in ("noise_probability", "room_probability", "telephone_probability"):
            value = getattr(self, name)
            _require(0.0 <= value <= 1.0, f"augment.{name} is {value}; expected 0 to 1")


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build a dataclass from JSON values (lists become tuples, dicts nested dataclasses).

    Raises:
        ConfigError: an unknown key, or a key without value and default.
    """
    hints = typing.get_type_hints(cls)
    unknown = set(values) - set(hints)
    _require(not unknown, f"{cls.__name__} has no key {sorted(unknown)}; known keys: {sorted(hints)}")
    try:
        return cls(**{key: _convert(hints[key], value) for key, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from error


def _convert(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [h for h in typing.get_args(hint) if h is not type(None)]
        return None if value is None else _convert(inner[0], value)
    if origin is tuple:
        return tuple(_convert(typing.get_args(hint)[0], v) for v in value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value)
    return Path(value) if hint is Path else value


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as JSON-ready values (tuples become lists, paths strings)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return value.as_posix() if isinstance(value, Path) else value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))
