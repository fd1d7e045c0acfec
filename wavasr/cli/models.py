"""`wavasr info` and `wavasr export`: what a model file carries, and the same as ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wavasr.cli.console import OK, one_line
from wavasr.cli.options import Parser
from wavasr.errors import ModelError


def info(arguments: list[str]) -> int:
    """`wavasr info`: what a model file carries."""
    parser = Parser(
        prog="wavasr info",
        description="Tell what a model file carries: encoder, units, sample rate, text normalisation, training.",
        epilog="examples:\n  wavasr info\n  wavasr info runs/an4/model.wavasr\n  wavasr info --json",
    )
    parser.add_argument("model", nargs="?", default="default", metavar="MODEL", help="a file or a shipped name")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    args = parser.parse_args(arguments)
    from wavasr.network.files import read_header, resolve

    path = resolve(args.model)
    header = read_header(path)
    print(json.dumps(header, ensure_ascii=False, indent=2) if args.json else describe_model(path, header))
    return OK


def describe_model(path: Path, header: dict[str, Any]) -> str:
    """The header of a model file for people, a line for each thing."""
    from wavasr.config import from_dict
    from wavasr.decoding.greedy import PRIORS
    from wavasr.language.config import TextConfig
    from wavasr.language.text import Units
    from wavasr.network.config import EncoderConfig
    from wavasr.network.files import LEXICON_SUFFIX, LM_SUFFIXES, companion
    from wavasr.network.geometry import receptive_field

    try:
        encoder = from_dict(EncoderConfig, header["encoder"])
        text = from_dict(TextConfig, header["text"])
        units = Units.from_dict(header["units"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path}: its header is damaged ({error}); train the model again") from error
    rate = encoder.sample_rate
    before, after = (1000 * samples / rate for samples in receptive_field(encoder))
    stages = " -> ".join(f"{len(stage.dilations)} x {stage.channels}" for stage in encoder.stages)
    lines = {
        "file": f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        "encoder": f"{encoder.preset}, {encoder.context}; blocks x channels of its stages: {stages}",
        "sample rate": f"{rate} Hz; others are resampled",
        "frame": f"{1000 * encoder.hop_samples / rate:g} ms; hears {before:.0f} ms before and {after:.0f} ms after it",
        "units": f"{len(units) - 1} {units.kind} and the blank: {' '.join(units.symbols[1:])[:200]}",
        "text": f"{text.case} case; punctuation: {text.punctuation}; digits: {text.digits}",
    }
    beside = (companion(path, *suffixes) for suffixes in (LM_SUFFIXES, (LEXICON_SUFFIX,)))
    if names := [found.name for found in beside if found]:
        lines["decoded with"] = f"{', '.join(names)}, which lie beside it"
    metadata = dict(header["metadata"])
    config = metadata.pop("config", {})  # all of it with --json, and the priors
    metadata.pop(PRIORS, None)
    lines |= {str(key): one_line(str(value))[:200] for key, value in metadata.items()}
    width = max(map(len, lines))
    rows = [f"{key:<{width}}  {value}" for key, value in lines.items()]
    sources = config.get("data", {}).get("sources", []) if isinstance(config, dict) else []
    return "\n".join([*rows, *(f"{'trained on':<{width}}  {one_line(str(source))}" for source in sources)])


def export(arguments: list[str]) -> int:
    """`wavasr export`: a model file to ONNX, or to a smaller model file."""
    parser = Parser(
        prog="wavasr export",
        description="Write a model as one ONNX file, which transcribe, evaluate and info take like any model and run\n"
        "with onnxruntime, without torch. Inputs: waveform (B, S) float32, lengths (B,) int64; outputs: log_probs\n"
        "(B, T, V), frames (B,). Its metadata carry units, spelling and encoder. With --int8 and a name in .wavasr: a\n"
        "model file of two fifths the size, with which everything works as before; with --manifest too, a third.",
        epilog="examples:\n"
        "  wavasr export default --output default.onnx\n"
        "  wavasr export runs/an4/model.wavasr --int8 --output an4-int8.onnx\n"
        "  wavasr export runs/an4/model.wavasr --int8 --output an4-small.wavasr --manifest data/an4/train.jsonl\n"
        "  wavasr transcribe interview.mp3 --model an4-int8.onnx",
    )
    parser.add_argument("model", nargs="?", default="default", metavar="MODEL", help="a file or a shipped name")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .onnx or .wavasr file")
    parser.add_argument("--int8", action="store_true", help="8 bits: smaller; as ONNX faster too")
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="speech that the weights are rounded by, best of what the model was trained on (a .wavasr with --int8)",
    )
    args = parser.parse_args(arguments)
    from wavasr.files import check_writable
    from wavasr.network.export import export_model
    from wavasr.network.files import SUFFIX, pack_model

    check_writable(args.output)
    packs = args.int8 and args.output.suffix.lower() == SUFFIX
    if args.manifest and not packs:
        parser.error(f"--manifest goes with --int8 and an --output in {SUFFIX}")
    if args.manifest:
        from wavasr.corpora.manifest import read_manifest
        from wavasr.network.rounding import round_to_speech

        pack_model(args.model, args.output, round_to_speech(args.model, read_manifest(args.manifest)))
    elif packs:
        pack_model(args.model, args.output)
    else:
        export_model(args.model, args.output, args.int8)
    print(args.output)
    return OK
