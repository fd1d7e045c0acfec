"""Model files: where they are, what they carry, and their weights as arrays. No torch, and no code from the file runs.

A model file is one archive (`wavasr.archive`) that carries everything a transcription needs:

    model.json            encoder, units, text normalisation, decoding weights, calibration, data and licences
    weights.safetensors   float16, to train on from
    front.onnx, back.onnx the network in 8 bits, as onnxruntime runs it (or graph.onnx, where it cannot be cut in two)
    lexicon.txt           the words and their pronunciations            } where it has them
    lm.bin                a language model (or lm.arpa, lm.arpa.gz)     }

Weights that are no model by themselves, such as a front end, are a safetensors file with that JSON in its metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

import wavasr
from wavasr.archive import Content, Member, Source, is_archive, members_of, write_archive
from wavasr.config import from_dict
from wavasr.errors import ConfigError, ModelError
from wavasr.files import GZIP
from wavasr.language import kenlm
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import TIMIT_39, TIMIT_48, fold
from wavasr.language.text import Units, normalise
from wavasr.language.weights import Weights

FORMAT = "wavasr-model"
FRONT_END_FORMAT = "wavasr-model-front-end"
GENERATOR_FORMAT = "wavasr-generator"
_KINDS = {FORMAT: "a recogniser", FRONT_END_FORMAT: "a front end", GENERATOR_FORMAT: "a generator"}
FORMAT_VERSION = 3
SUFFIX = ".wavasr"
ONNX_SUFFIX = ".onnx"
METADATA_KEY = "wavasr"
HEADER, WEIGHTS = "model.json", "weights.safetensors"
FRONT, BACK, GRAPH = "front.onnx", "back.onnx", "graph.onnx"
LEXICONS = ("lexicon.txt", "lexicon.txt.gz")
RESCORER = "rescorer.safetensors"
IMPROVISER, INSTRUMENT = "improviser.safetensors", "instrument.safetensors"
LANGUAGE_MODELS = ("lm.bin", "lm.arpa", "lm.arpa.gz")
_LANGUAGE = (*LEXICONS, *LANGUAGE_MODELS, RESCORER)
_LONGEST_HEADER = 100_000_000  # bytes


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
    if path.exists():
        raise ModelError(f"{path}: is a pipe or device; copy the model into a file")
    names = sorted(p.stem for p in asset("").glob(f"*{SUFFIX}")) if asset("").is_dir() else []
    raise ModelError(f"{model}: no such model file; shipped models: {', '.join(names) or 'none'}")


def read_header(path: str | Path, *expected: str) -> dict[str, Any]:
    """The JSON that a model file carries, without loading its weights.

    Args:
        path: a file, or the name of a shipped model.
        expected: what the file may be, `FORMAT` by default, or `FRONT_END_FORMAT`.

    Raises:
        ModelError: not such a file, damaged, or written by another version.
    """
    path = resolve(path)
    if path.suffix.lower() == ONNX_SUFFIX:
        raise ModelError(f"{path}: is a graph for other programs; give the {SUFFIX} file that it was exported from")
    try:
        header = json.loads(_header_text(path))
        found, version = header["format"], int(header["format_version"])
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, ModelError) as error:
        raise ModelError(
            f"{path}: not a wavasr model file, or damaged; expected one written by `wavasr fit` or `wavasr export`"
        ) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    expected = expected or (FORMAT,)
    if found not in expected:
        kinds = " or ".join(_KINDS.get(kind, repr(kind)) for kind in expected)
        raise ModelError(f"{path}: is {_KINDS.get(found, repr(found))}; expected {kinds}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: written by a newer wavasr (format {version}, this one reads {FORMAT_VERSION}); "
            "upgrade with `pip install --upgrade wavasr`"
        )
    if found == FORMAT and version < FORMAT_VERSION:
        raise ModelError(f"{path}: written by an older wavasr (format {version}); train or export the model again")
    return dict(header)


def _header_text(path: Path) -> str | bytes:
    if not is_archive(path):
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {})[METADATA_KEY])
    with members_of(path)[HEADER].open() as stream:
        text = stream.read(_LONGEST_HEADER + 1)
    if len(text) > _LONGEST_HEADER:
        raise ValueError("its header is too long")
    return text


def read_arrays(path: Path, member: str = WEIGHTS) -> dict[str, NDArray[np.float32]]:
    """The weights of a model or front end file by name, float32.

    Raises:
        ModelError: the file cannot be read, or is damaged.
    """
    try:
        source: Source = members_of(path)[member] if is_archive(path) else path
        return {name: values.astype(np.float32) for name, values in load(source.read_bytes()).items()}
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: its weights cannot be read ({error}); copy or make it again") from error


def write_model(path: Path, header: Mapping[str, Any], parts: Mapping[str, Content]) -> None:
    """Write a model file, whole or not at all. The header says which version wrote it.

    Raises:
        OSError: it cannot be written.
    """
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "wavasr": wavasr.__version__, **header}
    write_archive(path, {HEADER: json.dumps(header, ensure_ascii=False, indent=1).encode(), **parts})


class Language(NamedTuple):
    """What a model file decodes with, unless somebody names other files.

    Attributes:
        lexicon: its words and their pronunciations.
        lm: its language model.
        weights: of this language model, as `wavasr lm tune` chose them, in the terms of `Weights`.
        lm_words_only: whether words of the lexicon that the language model does not know are left out.
        rescorer: its second language model.
        rescorer_weight: of that one's logarithms.
    """

    lexicon: Member | None = None
    lm: Member | None = None
    weights: Mapping[str, float] = MappingProxyType({})
    lm_words_only: bool = False
    rescorer: Member | None = None
    rescorer_weight: float = 0.0


def language_of(path: Path | None) -> Language:
    """What a model file carries for decoding; nothing for a model that is no file.

    Raises:
        ModelError: it is damaged.
    """
    if path is None:
        return Language()
    decoding, parts = read_header(path).get("decoding") or {}, members_of(path)
    lexicon, lm = (
        next((parts[name] for name in names if name in parts), None) for names in (LEXICONS, LANGUAGE_MODELS)
    )
    try:
        weights = {name: float(decoding[name]) for name in Weights._fields if name in decoding}
        second = float(decoding.get("rescorer_weight", 0.0))
        if not all(map(math.isfinite, (second, *weights.values()))) or min(second, weights.get("lm_weight", 0.0)) < 0:
            raise ValueError
        return Language(lexicon, lm, weights, bool(decoding.get("lm_words_only")), parts.get(RESCORER), second)
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its decoding weights are damaged; run wavasr lm tune again") from error


def language_parts(lexicon: Source | None, lm: Source | None, rescorer: Source | None = None) -> dict[str, Content]:
    """A lexicon and language models as members of a model file.

    Raises:
        ConfigError: there is no such file.
    """
    for source in (lexicon, lm, rescorer):
        if source and not source.is_file():
            raise ConfigError(f"{source}: no such file; check the path")
    parts: dict[str, Content] = {RESCORER: rescorer} if rescorer else {}
    if lexicon:
        with lexicon.open("rb") as stream:
            parts[LEXICONS[stream.read(len(GZIP)) == GZIP]] = lexicon
    if lm:
        with lm.open("rb") as stream:
            begin = stream.read(len(kenlm.MAGIC))
        name = "lm.bin" if begin == kenlm.MAGIC else "lm.arpa.gz" if begin.startswith(GZIP) else "lm.arpa"
        parts[name] = lm
    return parts


def change_model(
    path: Path,
    output: Path | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    decoding: Mapping[str, Any] | None = None,
    language: Mapping[str, Content] | None = None,
) -> None:
    """Change what a model file says of itself or decodes with; its weights stay as they are, bit for bit.

    Args:
        path: the model file.
        output: write here instead. Either way the file appears whole or not at all.
        metadata: entries to set; others stay.
        decoding: the weights of decoding, with what is known of them.
        language: the lexicon and the language model, see `language_parts`.

    Raises:
        ModelError: not a model file, or damaged.
        OSError: it cannot be written.
    """
    header, parts = read_header(path), dict[str, Content](members_of(path))
    header["metadata"] = {**header["metadata"], **(metadata or {})}
    if decoding is not None:
        header["decoding"] = dict(decoding)
    if language is not None:
        parts = {name: part for name, part in parts.items() if name not in _LANGUAGE} | dict(language)
    del parts[HEADER]
    write_model(output or path, header, parts)


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
