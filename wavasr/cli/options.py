"""The argument parser, and the options that several commands have."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from wavasr.cli.console import BAD_INPUT, did_you_mean, one_line

if TYPE_CHECKING:
    from wavasr.decoding.config import DecodingConfig


# Options of whisper's command and its kin, and what is meant here.
OTHERS_OPTIONS = {
    "--output_format": "--format here",
    "--output-format": "--format here",
    "--output_dir": "--output-dir here",
    "--word_timestamps": "not needed here: json, tsv, ctm and textgrid have the times of words",
    "--word-timestamps": "not needed here: json, tsv, ctm and textgrid have the times of words",
    "--language": "not needed here: a model has one language, see wavasr info MODEL",
    "--task": "not needed here: there is transcription only",
    "--beam_size": "--beam here",
    "--initial_prompt": "not known here; words to expect are named by --hotword",
    "--hotwords": "--hotword here, once for each word or phrase",
    "--vad_filter": "not needed here: voice activity detection is on, --no-vad turns it off",
    "--compute_type": "not needed here: models run in 8 bits",
    "--fp16": "not needed here: models run in 8 bits",
    "--batch_size": "not needed here: results and speed do not depend on one",
    "--temperature": "not needed here: nothing is drawn at random",
    "--no_speech_threshold": "not needed here: voice activity detection is on, --no-vad turns it off",
    "--condition_on_previous_text": "not needed here: a text does not depend on the one before",
    "--diarize": "not known here: speakers are not told apart",
    "--output-srt": "--format srt here",
    "--output-file": "--output-dir here",
    "-l": "not needed here: a model has one language, see wavasr info MODEL",
    "-t": "--threads here",
    "--model_dir": "not needed here: --model takes a file",
    "--verbose": "not known here; -q is for silence",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line with a suggestion."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print the mistake, what was probably meant and where help is; exit code 2."""
        unknown = re.search(r"unrecognized arguments: ([^\s=]+)", message)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            if advice := OTHERS_OPTIONS.get(unknown[1]):
                self.exit(BAD_INPUT, f"{self.prog}: {unknown[1]} is {advice}; see {self.prog} --help\n")
            advice = did_you_mean(unknown[1], options) or (
                f" (the file: ./{unknown[1]})" if Path(unknown[1]).exists() else ""
            )
            message = f"unknown argument {unknown[1]}{advice}"
        self.exit(BAD_INPUT, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def add_model(parser: Parser) -> None:
    """--model."""
    parser.add_argument(
        "-m",
        "--model",
        default="default",
        metavar="MODEL",
        help="a model file or a shipped name (default: %(default)s)",
    )


def add_manifest(parser: Parser) -> None:
    """--manifest: what is evaluated, tuned or calibrated on."""
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="JSON lines with audio and text")


def add_language_model(parser: argparse._ActionsContainer) -> None:
    """--lm and --lexicon."""
    parser.add_argument(
        "--lm",
        type=Path,
        metavar="F",
        help="n-gram language model: ARPA (also .gz), KenLM binary, or a model file that has one (default: the "
        "model's own; none: without)",
    )
    parser.add_argument(
        "--lexicon",
        type=Path,
        metavar="F",
        help="the words that can be recognised, one per line; for phone models with pronunciations, as in CMUdict "
        "(default: the model's own)",
    )


def add_decoding(parser: Parser) -> None:
    """The options that make a `DecodingConfig`."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--beam",
        type=count,
        default=0,
        metavar="N",
        help="hypotheses of a beam search (default: 500 with a language model or lexicon, 700 if phones or "
        "SentencePiece, 100 with hotwords alone)",
    )
    group.add_argument("--n-best", type=count, default=1, metavar="N", help="give the N best texts (--format json)")
    add_language_model(group)
    add_weights(group)
    group.add_argument(
        "--hotword", action="append", default=[], metavar="W", help="a word or phrase to expect; may be repeated"
    )
    group.add_argument(
        "--hotword-boost",
        type=float,
        default=5.0,
        metavar="B",
        help="nats added for each word of a hotword (default: %(default)s)",
    )
    group.add_argument(
        "--thorough",
        action="store_true",
        help="recognise at three slightly different speeds: fewer errors, a third as fast",
    )
    group.add_argument(
        "--no-rescoring",
        dest="rescoring",
        action="store_false",
        help="choose the text by the n-gram language model alone, without the second language model",
    )
    group.add_argument(
        "--no-vad",
        dest="vad",
        action="store_false",
        help="decode everything, also what voice activity detection takes for noise or silence",
    )


def add_weights(parser: argparse._ActionsContainer) -> None:
    """--lm-weight, --word-score and --blank-penalty."""
    parser.add_argument(
        "--lm-weight",
        type=float,
        metavar="W",
        help="weight of the language model (default: the model's own, chosen by lm tune)",
    )
    parser.add_argument("--word-score", type=float, metavar="S", help="nats added for each word (default: likewise)")
    parser.add_argument(
        "--blank-penalty", type=float, metavar="P", help="nats subtracted for each blank frame (default: likewise)"
    )


def decoding_config(args: argparse.Namespace) -> DecodingConfig:
    """What `add_decoding`'s options say."""
    from wavasr.decoding.config import NOTHING, DecodingConfig

    return DecodingConfig(
        beam=args.beam,
        n_best=args.n_best,
        lm=args.lm,
        lexicon=args.lexicon,
        lm_weight=args.lm_weight,
        word_score=args.word_score,
        blank_penalty=args.blank_penalty,
        hotwords=tuple(args.hotword),
        hotword_boost=args.hotword_boost,
        thorough=args.thorough,
        rescorer=None if args.rescoring else NOTHING,
        vad=args.vad,
    )


def count(value: str) -> int:
    """A type of argument: a whole number from 0 on."""
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number from 0 on")
    return int(value)


def add_choice(parser: Parser, option: str, choices: Iterable[str], default: str, text: str, short: str = "") -> None:
    """An option that takes one of some names."""
    parser.add_argument(
        *([short] if short else []),
        option,
        type=one_of(choices),
        default=default,
        metavar="NAME",
        help=f"{text}: {', '.join(choices)} (default: {default})",
    )


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    """A type of argument: one of some names, in any case; others get a suggestion."""

    def check(value: str) -> str:
        if value.lower() in choices:
            return value.lower()
        hint = did_you_mean(value, choices) or f"; expected one of {', '.join(choices)}"
        raise argparse.ArgumentTypeError(f"unknown name {value!r}{hint}")

    return check
