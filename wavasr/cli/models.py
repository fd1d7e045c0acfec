"""`wavasr info` and `wavasr export`: what a model file carries, and files made from it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavasr.cli.console import OK, configure_logging, one_line, plain, tell_written
from wavasr.cli.options import Parser, add_language_model, add_weights
from wavasr.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from wavasr.decoding.config import DecodingConfig


_WEIGHTS = ("lm_weight", "word_score", "blank_penalty", "rescorer_weight")  # of decoding, that a model file may carry


def info(arguments: list[str]) -> int:
    """`wavasr info`: what a model file carries."""
    parser = Parser(
        prog="wavasr info",
        description="Show what a model file holds: encoder, units, sample rate, text normalisation, decoding weights,\n"
        "training, data and licences.",
        epilog="examples:\n  wavasr info\n  wavasr info runs/an4/model.wavasr\n  wavasr info --json",
    )
    parser.add_argument("model", nargs="?", default="default", metavar="MODEL", help="a file or a shipped name")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    args = parser.parse_args(arguments)
    from wavasr.network.files import FORMAT, GENERATOR_FORMAT, read_header, resolve

    path = resolve(args.model)
    header = read_header(path, FORMAT, GENERATOR_FORMAT)
    if header["format"] == GENERATOR_FORMAT:
        from wavasr.cli.generation import describe_generator

        print(json.dumps(header, ensure_ascii=False, indent=2) if args.json else describe_generator(path, header))
        return OK
    facts = measures(path, header)
    if args.json:
        print(json.dumps({**header, **facts}, ensure_ascii=False, indent=2))
    else:
        print(describe_model(path, header, facts))
    return OK


def measures(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Sizes and times that follow from a model file.

    Raises:
        ModelError: its header is damaged.
    """
    from wavasr.archive import members_of
    from wavasr.config import from_dict
    from wavasr.network.config import EncoderConfig
    from wavasr.network.geometry import receptive_field

    try:
        encoder = from_dict(EncoderConfig, header["encoder"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{path}: its header is damaged ({error}); train the model again") from error
    before, after = (round(1000 * samples / encoder.sample_rate, 1) for samples in receptive_field(encoder))
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "members": {name: member.size() for name, member in members_of(path).items()},
        "frame_ms": 1000 * encoder.hop_samples / encoder.sample_rate,
        "left_context_ms": before,
        "look_ahead_ms": after,
        "receptive_field_ms": round(before + 1000 * encoder.hop_samples / encoder.sample_rate + after, 1),
    }


def describe_model(path: Path, header: dict[str, Any], facts: dict[str, Any]) -> str:
    """The header of a model file for people, a line for each thing."""
    from wavasr.config import from_dict
    from wavasr.decoding.greedy import PRIORS
    from wavasr.language.config import TextConfig
    from wavasr.language.text import Units
    from wavasr.network.config import EncoderConfig

    try:
        encoder = from_dict(EncoderConfig, header["encoder"])
        text = from_dict(TextConfig, header["text"])
        units = Units.from_dict(header["units"])
        parameters = int(header["network"]["parameters"])
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"{path}: its header is damaged ({error}); train the model again") from error
    stages = " -> ".join(f"{len(stage.dilations)} x {stage.channels}" for stage in encoder.stages)
    sizes = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in facts["members"].items())
    lines = {
        "file": f"{path}, {facts['bytes'] / 1e6:.1f} MB: {sizes}",
        "encoder": f"{encoder.preset}, {encoder.context}, {parameters / 1e6:.1f} million parameters; "
        f"blocks x channels of its stages: {stages}",
        "sample rate": f"{encoder.sample_rate} Hz; others are resampled",
        "frame": f"{facts['frame_ms']:g} ms; sees {facts['left_context_ms']:.0f} ms before it",
        "look-ahead": f"{facts['look_ahead_ms']:.0f} ms (receptive field {facts['receptive_field_ms']:.0f} ms)",
        "units": f"{len(units) - 1} {units.kind} and the blank: {' '.join(units.symbols[1:])[:200]}",
        "text": f"{text.case} case; punctuation: {text.punctuation}; digits: {text.digits}",
    }
    if decoding := header.get("decoding"):
        lines["decoding"] = plain(decoding)
    metadata = dict(header["metadata"])
    config = metadata.pop("config", {})  # all of it with --json, and the priors
    metadata.pop(PRIORS, None)
    attribution = metadata.pop("attribution", [])
    metadata.pop("manifests_sha256", None)
    lines |= {str(key): one_line(plain(value))[:200] for key, value in metadata.items()}
    width = max(map(len, [*lines, "trained on", "attribution"]))
    rows = [f"{key:<{width}}  {value}" for key, value in lines.items()]
    sources = config.get("data", {}).get("sources", []) if isinstance(config, dict) else []
    rows += [f"{'trained on':<{width}}  {one_line(str(source))}" for source in sources]
    return "\n".join([*rows, *(f"{'attribution':<{width}}  {one_line(str(text))}" for text in attribution)])


def export(arguments: list[str]) -> int:
    """`wavasr export`: a model file with another lexicon or language model, or the network as an ONNX graph."""
    parser = Parser(
        prog="wavasr export",
        description="Write a copy of a model file with another lexicon, language model or decoding weights. With a\n"
        "name in .onnx write the network alone, for other programs: inputs waveform (B, S) float32 and lengths\n"
        "(B,) int64, outputs log_probs (B, T, V) and frames (B,); metadata: units, spelling and encoder as JSON.",
        epilog="examples:\n"
        "  wavasr export runs/mine/model.wavasr --lexicon words.txt --lm lm.arpa -o mine.wavasr\n"
        "  wavasr export default --lm none -o phones.wavasr\n"
        "  wavasr export default -o default.onnx\n"
        "  wavasr export runs/an4/model.wavasr --int8 -o an4.onnx",
    )
    parser.add_argument("model", nargs="?", default="default", metavar="MODEL", help="a file or a shipped name")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .wavasr or .onnx file")
    parser.add_argument("--int8", action="store_true", help="8-bit weights in the .onnx file: smaller and faster")
    add_language_model(parser)
    add_weights(parser)
    parser.add_argument(
        "--rescorer",
        type=Path,
        metavar="F",
        help="second language model; see data/lm/README.md (default: the model's own; none: without)",
    )
    parser.add_argument(
        "--rescorer-weight",
        type=float,
        metavar="W",
        help="weight of the second language model (default: the model's own)",
    )
    parser.add_argument(
        "--attribution",
        action="append",
        metavar="TEXT",
        help="source and licence of what is added; may be repeated; wavasr info prints it",
    )
    args = parser.parse_args(arguments)
    from wavasr.files import check_writable
    from wavasr.network.files import SUFFIX

    check_writable(args.output)
    if args.output.suffix.lower() == SUFFIX and not args.int8:
        configure_logging()
        _export_model(args)
    elif args.lm or args.lexicon or args.rescorer or args.attribution:
        raise ConfigError(f"{args.output}: a graph carries no words; give a name in {SUFFIX}")
    else:
        from wavasr.network.export import export_graph

        export_graph(args.model, args.output, args.int8)
    tell_written(args.output)
    return OK


def _export_model(args: argparse.Namespace) -> None:
    from wavasr.decoding.config import DecodingConfig
    from wavasr.decoding.factory import complete, decoder_of
    from wavasr.network.files import change_model, resolve
    from wavasr.recognition.models import load_acoustic_model

    path = resolve(args.model)
    weights = {name: getattr(args, name) for name in _WEIGHTS}
    config = complete(DecodingConfig(lm=args.lm, lexicon=args.lexicon, rescorer=args.rescorer, **weights), path)
    changes = language_changes(config, path)
    if args.lm or args.lexicon or args.rescorer:
        decoder_of(config, load_acoustic_model(path))  # tells what does not fit together
    if args.attribution:
        changes["metadata"]["attribution"] = args.attribution
    change_model(path, args.output, **changes)


def language_changes(config: DecodingConfig, path: Path) -> dict[str, Any]:
    """What `change_model` has to change for a model file to decode as a complete configuration says.

    Raises:
        ConfigError: a file is missing.
        ModelError: the model file is damaged.
    """
    from wavasr.decoding.confidence import KEY
    from wavasr.network.files import language_of, language_parts, read_header

    own = language_of(path)
    decoding = {name: getattr(config, name) for name in _WEIGHTS}
    decoding = {name: value for name, value in decoding.items() if value is not None}
    changes: dict[str, Any] = {"decoding": {**decoding, "lm_words_only": config.lm_words_only}, "metadata": {}}
    if (config.lm, config.lexicon, config.rescorer) != (own.lm, own.lexicon, own.rescorer):
        maps = read_header(path)["metadata"].get(KEY) or {}  # that of other words tells nothing about these
        changes["metadata"][KEY] = {key: value for key, value in maps.items() if key != "lm"}
        changes["language"] = language_parts(config.lexicon, config.lm, config.rescorer)
    return changes


def own_file(model: str, output: Path | None) -> Path:
    """The file of a model that is to be changed; what ships is not, without an output.

    Raises:
        ModelError: there is no such model, or it ships.
        OSError: the file to write cannot be written.
    """
    from wavasr.files import check_writable
    from wavasr.network.files import resolve

    path = resolve(model)
    if output is None and not Path(model).is_file():
        raise ModelError(f"{model}: ships with wavasr and is not changed; give --output FILE for a changed copy")
    check_writable(output or path)
    return path
