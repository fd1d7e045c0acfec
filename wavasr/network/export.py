"""Model files written: the network's graph is made here, so that nothing that uses a model needs onnx."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import ConfigError
from wavasr.files import write_whole
from wavasr.network.files import (
    ONNX_SUFFIX,
    SUFFIX,
    WEIGHTS,
    language_of,
    language_parts,
    read_arrays,
    read_header,
    resolve,
    write_model,
)


def save_parts(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]], stored: bytes, source: Path | None
) -> None:
    """Write a model file from a header and weights.

    Args:
        path: the file.
        header: encoder, units, text and metadata.
        arrays: the weights as they are read back.
        stored: the same as they are stored, a safetensors archive.
        source: the model file whose lexicon, language model and decoding weights go with it; None for none.

    Raises:
        ModelError: the source is damaged, or header and weights do not make a model.
        OSError: it cannot be written.
    """
    from wavasr.network.onnx import write_parts

    network = {
        "precision": "int8",
        "parameters": sum(values.size for values in arrays.values()),
        "sha256": fingerprint(arrays),
    }
    header = {**header, "network": network}
    parts: dict[str, Any] = {WEIGHTS: stored, **write_parts(header, arrays, str(path))}
    if source:
        language = language_of(source)
        parts |= language_parts(language.lexicon, language.lm, language.rescorer)
        header |= {key: value for key, value in read_header(source).items() if key == "decoding"}
    write_model(path, header, parts)


def fingerprint(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """Fingerprint of weights, float32, the same whatever file they came from."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def export_graph(model: str | Path, output: Path, int8: bool = False) -> None:
    """Write a model's network as an ONNX graph, for other programs; see `wavasr.network.onnx.write_graph`.

    Units, spelling and encoder stand in its metadata as JSON. The file appears whole or not at all.

    Args:
        model: a model file or a shipped name.
        output: the file to write, `.onnx`.
        int8: matrix products of the blocks in 8 bits: smaller and faster, with onnxruntime alone.

    Raises:
        ModelError: the model cannot be read or exported.
        ConfigError: the output is not named `.onnx`.
    """
    from onnx import checker

    from wavasr.network.onnx import write_graph

    path = resolve(model)
    if output.suffix.lower() != ONNX_SUFFIX:
        raise ConfigError(f"{output}: expected a name in {ONNX_SUFFIX} (a graph) or {SUFFIX} (a model file)")
    header, arrays = read_header(path), read_arrays(path)
    content = write_graph(header, arrays, int8, str(path), described=True)
    checker.check_model(content)
    write_whole(output, content)
