"""`wavasr generate`: sound from a generator; and what `wavasr info` says of one."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavasr.cli.console import OK, configure_logging, one_line, plain, tell_written
from wavasr.cli.options import Parser, count

log = logging.getLogger("wavasr")

if TYPE_CHECKING:
    from wavasr.generation.voice import Array, Voice


def generate(arguments: list[str]) -> int:
    """`wavasr generate`: improvise, speak a recording again, or fill in hidden parts of one."""
    parser = Parser(
        prog="wavasr generate",
        description="Make sound with a generative WaveNet. With --like a recording is spoken again, in its own or in\n"
        "another speaker's voice: only its spectrum and pitch, every 10 ms, reach the network. With --notes an\n"
        "instrument plays the notes of a MIDI file. Without either, the model improvises. With --inpaint a recogniser\n"
        "that was trained with the generative loss fills in hidden parts of a recording from what is around them.\n"
        "The same seed gives the same sound.",
        epilog="examples:\n"
        "  wavasr generate --model violin --seconds 10 -o violin.wav\n"
        "  wavasr generate --like interview.mp3 --speaker 1088 -o another.wav\n"
        "  wavasr generate --model voices --like hello.wav --speaker kathleen --seed 7 -o again.wav\n"
        "  wavasr generate --notes tune.mid -o tune.wav\n"
        "  wavasr generate --inpaint hello.wav --hide 0.5-0.6 --model runs/paper/model.wavasr -o filled-in.wav",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a file or a shipped name (default: voices with --like, piano with --notes, or violin)",
    )
    parser.add_argument("--like", metavar="FILE", help="the recording to speak again; - reads it from standard input")
    parser.add_argument("--notes", metavar="FILE", help="a MIDI file that an instrument plays")
    parser.add_argument(
        "--speaker", metavar="NAME", help="whose voice, of a model with several; wavasr info lists them"
    )
    parser.add_argument("--inpaint", metavar="FILE", help="a recording to fill in; --model is a trained recogniser")
    parser.add_argument(
        "--hide", metavar="A-B", nargs="+", type=_span, help="seconds to hide and fill in, e.g. 1.2-1.5 2.0-2.1"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="how long to improvise (default: 5)")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="start of the random choices (default: 0)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="below 1 less random, above 1 more (default: 1)"
    )
    add_sound_output(parser)
    args = parser.parse_args(arguments)
    configure_logging()
    _check(parser, args)
    from wavasr.files import check_writable
    from wavasr.generation.voice import Voice, default_model, write_sound

    check_writable(output := args.output)
    if args.inpaint:
        write_sound(output, *_filled_in(args))
        tell_written(output)
        return OK
    warn_if_slow()
    voice = Voice.load(args.model or default_model(bool(args.like), bool(args.notes)), args.temperature)
    write_sound(output, _made(voice, args), voice.config.sample_rate)
    tell_written(output)
    return OK


def add_sound_output(parser: Parser) -> None:
    """--output of a command that makes sound: a path, that of standard output for `-`."""
    parser.add_argument(
        "-o",
        "--output",
        type=_wav_file,
        required=True,
        metavar="FILE",
        help="the WAV file to write; - for standard output",
    )


def _wav_file(name: str) -> Path:
    path = Path("/dev/stdout" if name == "-" else name)
    if path.suffix and path.suffix.lower() != ".wav" and not path.is_relative_to("/dev"):
        raise argparse.ArgumentTypeError(f"{name!r} is not a .wav file; only WAV is written, convert it afterwards")
    return path


def warn_if_slow() -> None:
    """Why the sound takes so long, where it does."""
    from wavasr.generation.sampler import has_numba

    if not has_numba():
        log.warning("without numba this takes about thirty times as long; pip install 'wavasr[generate]'")


def _span(text: str) -> tuple[float, float]:
    """Seconds from and to: "1.2-1.5"."""
    try:
        start, end = (float(part) for part in text.split("-"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no span; expected seconds such as 1.2-1.5") from None
    return start, end


def _filled_in(args: argparse.Namespace) -> tuple[Array, int]:
    """The recording with its hidden spans sampled anew, and its sample rate."""
    from wavasr.audio.reading import load_audio
    from wavasr.network.inpainting import inpaint, load_likelihood

    model = load_likelihood(Path(args.model))
    rate = model.encoder.config.sample_rate
    samples = load_audio(args.inpaint, rate)
    for start_s, end_s in args.hide:
        samples = inpaint(model, samples, start_s, end_s, args.seed)
    return samples, rate


def _check(parser: Parser, args: argparse.Namespace) -> None:
    if args.inpaint and not (args.hide and args.model):
        parser.error("--inpaint needs --hide A-B, seconds to fill in, and --model, a recogniser that you trained")
    if args.hide and not args.inpaint:
        parser.error("--hide is for --inpaint FILE")
    if sum(map(bool, (args.inpaint, args.like, args.notes))) > 1:
        parser.error("--inpaint fills in a recording, --like speaks one again, --notes plays a tune; give one of them")
    if (args.like or args.notes or args.inpaint) and args.seconds is not None:
        parser.error("--seconds is for improvising; recordings and tunes have their own lengths")


def _made(voice: Voice, args: argparse.Namespace) -> Array:
    import numpy as np
    from tqdm import tqdm

    from wavasr.audio.reading import load_audio
    from wavasr.audio.scores import read_midi
    from wavasr.generation.voice import check_seconds

    rate = voice.config.sample_rate
    if args.notes:
        notes = read_midi(args.notes)
        seconds = notes[-1].end_s
        blocks: Iterable[Array] = voice.play_blocks(notes, args.seed)
    elif args.like:
        samples = load_audio(args.like, rate)
        seconds = len(samples) / rate
        blocks = voice.copy_blocks(samples, args.speaker, args.seed)
    else:
        seconds = 5.0 if args.seconds is None else args.seconds
        check_seconds(seconds)
        blocks = voice.improvise_blocks(seconds, args.speaker, args.seed)
    found = []
    hidden = None if sys.stderr.isatty() else True
    with tqdm(total=round(seconds), unit="s", desc="generating", delay=2.0, leave=False, disable=hidden) as bar:
        for block in blocks:
            found.append(block)
            bar.update(len(block) / rate)
    return np.concatenate(found)


def evaluate_generator(args: argparse.Namespace) -> int:
    """`wavasr evaluate` of a generator: recordings spoken again, read, played or improvised, beside natural sound."""
    from wavasr.corpora.manifest import read_manifest
    from wavasr.evaluation.generation import (
        Result,
        evaluate_music,
        evaluate_reading,
        evaluate_vocoder,
        summary,
        write_results,
    )
    from wavasr.evaluation.notes import evaluate_notes
    from wavasr.files import check_writable_folder
    from wavasr.generation.speaking import reader_of
    from wavasr.generation.voice import Voice
    from wavasr.network.files import GENERATOR_FORMAT, read_header

    utterances = read_manifest(args.manifest)
    if args.report:
        check_writable_folder(args.report)
    warn_if_slow()
    voice = Voice.load(args.model)
    reader = reader_of(args.model) if "speech" in read_header(args.model, GENERATOR_FORMAT) else None
    results: list[Result] = []
    if voice.config.condition == "mel":
        results.append(evaluate_vocoder(voice, utterances))
    elif voice.config.condition == "notes":
        results.append(evaluate_notes(voice, utterances))
    if voice.network.improviser or voice.config.condition in ("past", "none"):
        results.append(evaluate_music(voice, utterances))
    if reader and all(u.text for u in utterances):
        results.append(evaluate_reading(reader, utterances))
    print(summary(results))
    if args.report:
        print(write_results(results, args.report, str(args.model)))
        from wavasr.pictures.generation import generator_page

        print(generator_page(voice, reader, utterances, results, args.report, str(args.model)))
    return OK


def describe_generator(path: Path, header: dict[str, Any]) -> str:
    """The header of a generator's model file for people, a line for each thing.

    Raises:
        ModelError: it is damaged.
    """
    from wavasr.config import from_dict
    from wavasr.errors import ConfigError, ModelError
    from wavasr.network.config import GeneratorConfig

    try:
        config = from_dict(GeneratorConfig, header["generator"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{path}: its header is damaged ({error}); train the model again") from error
    kinds = {
        "mel": "a vocoder: mel spectrum and pitch to sound",
        "notes": "an instrument: notes to sound",
        "past": "improvises from its past",
        "none": "improvises",
    }
    lines = {
        "file": f"{path}, {path.stat().st_size / 1e6:.1f} MB",
        "generator": f"{kinds[config.condition]}; {len(config.dilations)} blocks x {config.channels}, skip "
        f"{config.skip_channels}, kernel {config.kernel}",
        "classes": f"{config.levels}, mu-law of the {'excitation' if config.excitation == 'lpc' else 'samples'}",
        "sample rate": f"{config.sample_rate} Hz",
        "past": f"{1000 * config.receptive_samples / config.sample_rate:.0f} ms",
        "speakers": ", ".join(config.speakers) or "one",
    }
    metadata = dict(header["metadata"])
    trained = metadata.pop("config", {})
    metadata.pop("manifests_sha256", None)
    lines |= {str(key): one_line(plain(value))[:200] for key, value in metadata.items()}
    width = max(map(len, [*lines, "trained on"]))
    sources = trained.get("data", {}).get("sources", []) if isinstance(trained, dict) else []
    rows = [f"{key:<{width}}  {value}" for key, value in lines.items()]
    return "\n".join([*rows, *(f"{'trained on':<{width}}  {one_line(str(source))}" for source in sources)])
