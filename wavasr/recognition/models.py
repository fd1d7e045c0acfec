"""The model that a recognition names, loaded once, and what it carries."""

from __future__ import annotations

from pathlib import Path

from wavasr.decoding.confidence import ConfidenceMap
from wavasr.decoding.decoder import Decoder
from wavasr.network.files import resolve
from wavasr.network.inference import FastModel
from wavasr.network.runtime import AcousticModel, Cache, stamp

_OPENED = Cache()


def opened(model: AcousticModel | str | Path, device: str = "cpu") -> AcousticModel:
    """A loaded model as it is; one that is named loaded, and kept until another one is.

    Raises:
        ModelError: it cannot be loaded.
        ConfigError: onnxruntime cannot use the device.
    """
    if not isinstance(model, str | Path):
        return model
    path = resolve(model)
    return _OPENED.get("model", (path, stamp(path), device), lambda: load_acoustic_model(path, device))


def load_acoustic_model(model: str | Path, device: str = "cpu") -> AcousticModel:
    """A model file, an exported model, or the shipped model of that name, to run without torch.

    Raises:
        ModelError: it cannot be loaded.
        ConfigError: onnxruntime cannot use the device, "cpu" or "cuda".
    """
    return FastModel(model, device)


def name_of(model: AcousticModel | str | Path) -> str:
    """What a model is called: as it was named, or as its file says."""
    return str(model) if isinstance(model, str | Path) else str(model.metadata.get("name", ""))


def calibration_of(model: AcousticModel, decoder: Decoder) -> ConfidenceMap | None:
    """What makes this decoder's confidences probabilities of being right; None where the model does not carry it.

    Raises:
        ModelError: it is damaged.
    """
    return ConfidenceMap.of(model.metadata, decoder.calibration_key)
