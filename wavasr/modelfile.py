"""Where model files are, and what they say of themselves.

A model file is a safetensors archive: weights, and JSON in its metadata. Reading that JSON needs neither the weights
nor torch, and runs no code from the file.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from wavasr.errors import ModelError

FORMAT = "wavasr-model"
EAR_FORMAT = "wavasr-model-ear"
FORMAT_VERSION = 1
SUFFIX = ".wavasr"
METADATA_KEY = "wavasr"


def asset(name: str) -> Path:
    """A file that ships inside the package."""
    return Path(str(resources.files("wavasr"))) / "assets" / name


def resolve(model: str | Path) -> Path:
    """A path as it is, or the shipped model of that name ("default").

    Raises:
        ModelError: neither a file nor a shipped name.
    """
    path = Path(model)
    if path.is_file():
        return path
    shipped = asset(f"{model}{SUFFIX}")
    if path.name == str(model) and shipped.is_file():  # even where a corpus folder has the same name
        return shipped
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; expected a model file ({SUFFIX})")
    names = sorted(p.stem for p in asset("").glob(f"*{SUFFIX}")) if asset("").is_dir() else []
    raise ModelError(f"{model}: no such model file; shipped models: {', '.join(names) or 'none'}")


def read_header(path: str | Path, *expected: str) -> dict[str, Any]:
    """The JSON that a model file carries, without loading its weights.

    Args:
        path: a file, or the name of a shipped model.
        expected: what the file may be, `FORMAT` unless told otherwise, or `EAR_FORMAT`.

    Raises:
        ModelError: not such a file, damaged, or written by a newer version.
    """
    path = resolve(path)
    try:
        with safe_open(path, framework="numpy") as archive:
            header = json.loads((archive.metadata() or {})[METADATA_KEY])
        found, version = header["format"], int(header["format_version"])
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path}: not a wavasr model file, or damaged; expected one written by `wavasr fit`"
        ) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    expected = expected or (FORMAT,)
    if found not in expected:
        raise ModelError(f"{path}: holds {found!r}; expected {' or '.join(map(repr, expected))}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: written by a newer wavasr (format {version}, this one reads up to {FORMAT_VERSION}); "
            "upgrade with `pip install --upgrade wavasr`"
        )
    return dict(header)
