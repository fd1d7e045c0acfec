"""Where model files are, what they say of themselves, and their weights as arrays.

A model file is a safetensors archive: weights, and JSON in its metadata. A packed one has the large weights in bytes,
and all of it is compressed. An exported model carries the same JSON in the metadata of its ONNX graph. Reading them
needs neither torch nor onnx, and runs no code from the file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from wavasr.config import from_dict
from wavasr.errors import ConfigError, ModelError
from wavasr.files import write_whole
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import TIMIT_39, TIMIT_48, fold
from wavasr.language.text import Units, normalise
from wavasr.language.weights import WEIGHTS_SUFFIX

FORMAT = "wavasr-model"
EAR_FORMAT = "wavasr-model-ear"
FORMAT_VERSION = 1
PACKED_VERSION = 2  # some weights are bytes; such files are compressed now
SUFFIX = ".wavasr"
ONNX_SUFFIX = ".onnx"
METADATA_KEY = "wavasr"
# What a model is decoded with unless told otherwise lies beside it: default.wavasr, default.lm.arpa.gz, ...
LM_SUFFIXES = (".lm.arpa.gz", ".lm.arpa", ".lm.bin")
LEXICON_SUFFIX = ".lexicon.txt"
_STEP = ".step"  # of a weight stored in bytes: what one is worth, for each output
_FIRST_STAGE = ".stages.0."
_FEWEST_PACKED = 4096  # weights of an array, to be stored in bytes
_PACKED_STEPS = 63  # to either side of zero, as in the 8-bit products (`wavasr.network.onnx`): those lose nothing more
_GZIP = b"\x1f\x8b"
_LONGEST_HEADER = 100_000_000  # bytes, as safetensors defines it


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
        raise ModelError(f"{path}: is a folder; expected a model file ({SUFFIX}, {ONNX_SUFFIX})")
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
        header = json.loads(_metadata(path)[METADATA_KEY])
        found, version = header["format"], int(header["format_version"])
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, EOFError, zlib.error) as error:
        raise ModelError(
            f"{path}: not a wavasr model file, or damaged; expected one written by `wavasr fit` or `wavasr export`"
        ) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    expected = expected or (FORMAT,)
    if found not in expected:
        raise ModelError(f"{path}: holds {found!r}; expected {' or '.join(map(repr, expected))}")
    if version > PACKED_VERSION:
        raise ModelError(
            f"{path}: written by a newer wavasr (format {version}, this one reads up to {PACKED_VERSION}); "
            "upgrade with `pip install --upgrade wavasr`"
        )
    return dict(header)


def read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    """The weights of a model or ear file by name, float32.

    Raises:
        ModelError: the file cannot be read, or is damaged.
    """
    stored = _stored(path)
    steps = {name.removesuffix(_STEP): stored.pop(name) for name in list(stored) if name.endswith(_STEP)}
    arrays = {name: values.astype(np.float32) for name, values in stored.items()}
    try:
        for name, step in steps.items():
            arrays[name] *= step
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as a wavasr file, or damaged") from error
    return arrays


class Rounded(NamedTuple):
    """An array in bytes, (N, ...) int8, and what one is worth for each output, (N, 1, ...) float32."""

    values: NDArray[np.int8]
    step: NDArray[np.float32]


def is_packed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a packed file has this array in bytes.

    What hears the samples keeps its precision: soft sounds are far below the loudest that its filters pass.
    """
    return len(shape) > 1 and math.prod(shape) >= _FEWEST_PACKED and _FIRST_STAGE not in name


def steps_of(weights: NDArray[Any], count: int) -> NDArray[np.float32]:
    """The step of each output, of which its largest weight is `count`: (N, ...) -> (N, 1, ...)."""
    largest = np.abs(weights.astype(np.float32)).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    return np.where(largest > 0, largest / count, 1).astype(np.float32)


def pack_model(model: str | Path, output: Path, rounded: Mapping[str, Rounded] | None = None) -> None:
    """Write a model file with the large weights in bytes, compressed: two fifths as large as with 16 bits.

    It is used, trained on from and exported like any model file. The language model and the lexicon beside the model
    are copied beside it. The file appears whole or not at all.

    Args:
        model: a model file or a shipped name.
        output: the file to write.
        rounded: arrays rounded with more care (`wavasr.network.rounding`); the others go to the nearest step.

    Raises:
        ModelError: not a model file, an exported one, or damaged.
    """
    path = resolve(model)
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelError(f"{path}: is an exported model; give the {SUFFIX} file that it came from")
    header = {**read_header(path), "format_version": PACKED_VERSION}
    arrays = _stored(path)
    for name, values in list(arrays.items()):
        if not np.isfinite(values).all():
            raise ModelError(f"{path}: {name} is not all numbers; train the model again")
        if rounded and name in rounded:
            arrays[name], arrays[name + _STEP] = rounded[name]
        elif values.dtype != np.int8 and is_packed(name, values.shape):
            step = steps_of(values, _PACKED_STEPS)
            arrays[name], arrays[name + _STEP] = np.rint(values / step).astype(np.int8), step
    write_whole(output, _zipped(save(arrays, {METADATA_KEY: json.dumps(header, ensure_ascii=False)})))
    copy_companions(path, output)


def _stored(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with _opened(path) as file:
            return load(file.read())
    except (SafetensorError, OSError, ValueError, EOFError, zlib.error) as error:
        raise ModelError(f"{path}: cannot be read as a wavasr file, or damaged") from error


def _is_zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _opened(path: Path) -> BinaryIO:
    """A safetensors archive from its first byte on, whether compressed or not."""
    return cast(BinaryIO, gzip.open(path)) if _is_zipped(path) else path.open("rb")


def _zipped(content: bytes) -> bytes:
    """Compressed by gzip, without a time in it. Weights hardly repeat: "filtered" spends bits on their values alone."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return packer.compress(content) + packer.flush()


def _inner_header(file: BinaryIO) -> dict[str, Any]:
    """What a safetensors archive begins with: its length, then JSON of the arrays' places and of its metadata.

    Raises:
        ValueError: no such header.
    """
    size = int.from_bytes(file.read(8), "little")
    if size > _LONGEST_HEADER:
        raise ValueError("not a safetensors archive")
    return dict(json.loads(file.read(size)))


class Weights:
    """The weights of a model file, float32; each is taken once, in the shape that its encoder's config asks for."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        self._arrays = dict(arrays)

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Read all of them.

        Raises:
            ModelError: the file cannot be read, or is damaged.
        """
        return cls(read_arrays(path))

    def parameters(self) -> int:
        """How many numbers are left."""
        return sum(values.size for values in self._arrays.values())

    def sha256(self) -> str:
        """Their fingerprint, equal to that of the network with them (`wavasr.network.recognizer.weights_sha256`)."""
        digest = hashlib.sha256()
        for name, values in sorted(self._arrays.items()):
            digest.update(name.encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """One array.

        Raises:
            KeyError: there is none of that name.
            ValueError: it has another shape.
        """
        values = self._arrays.pop(name)
        if values.shape != shape:
            raise ValueError(f"{name} is {values.shape}, expected {shape}")
        return values

    def kernel(self, name: str, outputs: int, inputs: int, taps: int = 1) -> NDArray[np.float32]:
        """A convolution's weight (N, C, taps) as the matrix (taps * C, N)."""
        weight = self.take(name, outputs, inputs, taps)
        return np.ascontiguousarray(weight.transpose(2, 1, 0)).reshape(taps * inputs, outputs)

    def finish(self) -> None:
        """Raise a ValueError if one has not been taken."""
        if self._arrays:
            raise ValueError(f"{min(self._arrays)} has no place in the encoder")


def spelling_of(model: str | Path, phones: bool = False) -> Callable[[str], str]:
    """How texts are spelled for a model: normalised; or, where they are phones, folded into its set.

    Args:
        model: a model file or a shipped name.
        phones: whether the texts are phones separated by spaces.

    Raises:
        ModelError: the model cannot be read.
    """
    path = resolve(model)
    header = read_header(path)
    try:
        text, units = from_dict(TextConfig, header["text"]), Units.from_dict(header["units"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{path}: its header is damaged ({error}); train the model again") from error
    if not phones:
        return lambda line: normalise(line, text)
    size = next((len(known) for known in (TIMIT_39, TIMIT_48) if set(units.symbols[1:]) <= set(known)), 0)
    return lambda line: " ".join(fold(line.split(), size) if size else line.split())


def companion(model: Path | None, *suffixes: str) -> Path | None:
    """The file of one of these suffixes that lies beside a model file, if there is one."""
    if model is None:
        return None
    stem = model.name.removesuffix(model.suffix)
    return next((path for suffix in suffixes if (path := model.with_name(stem + suffix)).is_file()), None)


def copy_companions(model: Path, output: Path) -> None:
    """Copy what lies beside a model file, for decoding, beside another one; what is there already is replaced."""
    for suffix in (*LM_SUFFIXES, *(suffix + WEIGHTS_SUFFIX for suffix in LM_SUFFIXES), LEXICON_SUFFIX):
        if path := companion(model, suffix):
            write_whole(output.with_name(output.name.removesuffix(output.suffix) + suffix), path.read_bytes())


def write_metadata(path: Path, metadata: Mapping[str, Any], output: Path | None = None) -> None:
    """Change entries of a model file's `metadata`; its weights stay as they are, bit for bit.

    Args:
        path: the model file.
        metadata: the entries to set; others stay.
        output: write here instead. Either way the file appears whole or not at all.

    Raises:
        ModelError: not a model file, an exported one, or damaged.
    """
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelError(f"{path}: is an exported model; change the {SUFFIX} that it came from, and export that again")
    header = read_header(path)
    header["metadata"] = {**header["metadata"], **metadata}
    with _opened(path) as file:
        inner, weights = _inner_header(file), file.read()  # places of weights count from the header's end
    inner["__metadata__"][METADATA_KEY] = json.dumps(header, ensure_ascii=False)
    text = json.dumps(inner, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + weights
    write_whole(output or path, _zipped(content) if _is_zipped(path) else content)


def _metadata(path: Path) -> dict[str, str]:
    """The texts that a file carries beside its weights."""
    if path.suffix.lower() == ONNX_SUFFIX:
        with path.open("rb") as file:
            return dict(_onnx_metadata(file, path.stat().st_size))
    if _is_zipped(path):
        with _opened(path) as file:
            return dict(_inner_header(file).get("__metadata__") or {})
    with safe_open(path, framework="numpy") as archive:
        return archive.metadata() or {}


def _onnx_metadata(file: BinaryIO, end: int) -> Iterator[tuple[str, str]]:
    """`metadata_props` of a ModelProto: field 14, a message of key (1) and value (2). The graph is passed over.

    Source: protobuf.dev/programming-guides/encoding and onnx.proto3.

    Raises:
        ValueError: no such message.
    """
    for field, content in _fields(file, end):
        if field == 14 and isinstance(content, range):
            file.seek(content.start)
            entry = dict(_fields(file, content.stop))
            texts = []
            for part in (entry.get(1), entry.get(2)):
                if not isinstance(part, range):
                    raise ValueError("not a message of key and value")
                file.seek(part.start)
                texts.append(file.read(len(part)).decode("utf-8"))
            yield texts[0], texts[1]
            file.seek(content.stop)


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int | range]]:
    """The fields of a protobuf message from here to `end`: number, and the integer or the bytes' place in the file."""
    while file.tell() < end:
        tag = _varint(file)
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, _varint(file)
            continue
        size = _varint(file) if kind == 2 else {1: 8, 5: 4}.get(kind)
        start = file.tell()
        if size is None or tag < 8 or start + size > end:
            raise ValueError("not a protobuf message, or cut off")
        yield tag >> 3, range(start, start + size)
        file.seek(start + size)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("cut off")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("not a number")
