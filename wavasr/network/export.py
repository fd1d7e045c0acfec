"""A trained model as one ONNX file, for onnxruntime anywhere."""

from __future__ import annotations

from pathlib import Path

from onnx import checker

from wavasr.errors import ConfigError, ModelError
from wavasr.files import write_whole
from wavasr.network.files import ONNX_SUFFIX, SUFFIX, copy_companions, resolve
from wavasr.network.onnx import write_graph


def export_model(model: str | Path, output: Path, int8: bool = False) -> None:
    """Write a model as ONNX, see `write_graph`. The file appears whole or not at all.

    The language model and the lexicon beside the model are copied beside it.

    Args:
        model: a model file or a shipped name.
        output: the file to write, `.onnx`.
        int8: matrix products of the blocks in 8 bits: smaller and faster, with onnxruntime alone.

    Raises:
        ModelError: the model cannot be read or exported.
        ConfigError: the output is not named `.onnx`.
    """
    path = resolve(model)
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelError(f"{path}: is an exported model; give the {SUFFIX} file that it came from")
    if output.suffix.lower() != ONNX_SUFFIX:
        example = f"{output.stem}{ONNX_SUFFIX}"
        raise ConfigError(
            f"{output}: exported models are named {ONNX_SUFFIX}, or {SUFFIX} with --int8; give e.g. {example}"
        )
    content = write_graph(path, int8).content
    checker.check_model(content)
    write_whole(output, content)
    copy_companions(path, output)
