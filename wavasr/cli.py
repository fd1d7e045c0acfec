"""The command `wavasr`: parse, call one function, exit code.

Exit codes: 0 done, 1 some of several files failed (they are named), 2 bad input or bad usage, 130 interrupted.
Results go to standard output, everything else to standard error. The commands import what they need themselves, so
that help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import wavasr
from wavasr.errors import ConfigError, ModelError, TextError, WavasrError

if TYPE_CHECKING:
    from wavasr.config import DecodingConfig

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
FORMATS = ("txt", "json", "srt", "vtt", "tsv", "ctm", "textgrid")
ALIGN_FORMATS = ("textgrid", "ctm", "json")
ONE_RECORDING_FORMATS = ("srt", "vtt", "textgrid")

FIT_HELP = """\
usage: wavasr fit --config FILE.yaml [--KEY VALUE ...] [--resume]

Train a recogniser; at the end the best model is evaluated and the path of its report printed.

  --config FILE   the recipe: a path, or the bare name of a shipped one ({recipes})
  --KEY VALUE     any key of the recipe, dotted: --data.root DIR, --trainer.max_epochs 20
  --resume        go on where an interrupted run stopped
  --print_config  print every key with its value and meaning, and stop

examples:
  wavasr fit --config an4.yaml
  wavasr fit --config timit.yaml --data.root /corpora/TIMIT
  wavasr fit --config an4.yaml --resume
  wavasr fit --config an4.yaml --print_config > mine.yaml && wavasr fit --config mine.yaml
"""

WARMUP_HELP = """\
usage: wavasr warmup --train JSONL ... --dev JSONL ... --output FILE [options]

Warm up an ear: train the first stages of an encoder, without labels, to tell the log-mel spectrum of what they hear.
Recipes start from the ear that ships with the package; make your own for other recordings or another encoder.

  --train JSONL ...  manifests of audio to hear; their texts are not used
  --dev JSONL ...    manifests of other speakers, to score the ear on
  --output FILE      the ear to write
  --noise DIR        noise recordings, mixed in and heard alone
  --rooms DIR        room impulse responses
  --preset NAME      the encoder whose first stages are warmed up: base, small or paper
  --context NAME     noncausal (default) or causal
  --minutes M        how long to train
  --batch, --learning-rate, --seed, --init     as in a recipe

examples:
  wavasr warmup --train train.jsonl --dev dev.jsonl --output ear.safetensors
  wavasr fit --config an4.yaml --encoder.init ear.safetensors
"""

LM_HELP = """\
usage: wavasr lm build TEXT ... -o LM.arpa [options]
       wavasr lm tune --model M --manifest DEV.jsonl --lm LM.arpa [options]

Language models for transcribe and evaluate.

  build  estimate an n-gram model from text, and prune it
  tune   choose its weight and the word score on a dev set

examples:
  wavasr lm build books.txt.xz -o lm.arpa.gz --words 60000 --ngrams 2000000
  wavasr lm tune --model an4 --manifest dev.jsonl --lm lm.arpa.gz
  wavasr lm build --help
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line with a suggestion."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print the mistake, what was probably meant and where help is; exit code 2."""
        unknown = re.search(r"unrecognized arguments: ([^\s=]+)", message)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            message = f"unknown argument {unknown[1]}{did_you_mean(unknown[1], options)}"
        self.exit(BAD_INPUT, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


@dataclass(frozen=True)
class Command:
    """One command: the line about it in `wavasr --help`, and what carries it out: arguments -> exit code."""

    summary: str
    run: Callable[[list[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line (without the program's name) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
        return code
    except WavasrError as error:
        complain(str(error))
        return BAD_INPUT
    except BrokenPipeError:
        _abandon_unwritten_output()
        return BROKEN_PIPE
    except OSError as error:
        complain(describe_os_error(error))
        _abandon_unwritten_output()
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else BAD_INPUT if stop.code else OK


def dispatch(arguments: list[str]) -> int:
    """Find the command that the first argument names and run it with the others."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and arguments[1] in COMMANDS:
            return COMMANDS[arguments[1]].run(["--help"])
        print(overview(), file=sys.stdout if arguments else sys.stderr)
        return OK if arguments else BAD_INPUT
    if arguments[0] in ("-V", "--version"):
        print(f"wavasr {wavasr.__version__}")
        return OK
    if arguments[0] not in COMMANDS:
        kind = "option" if arguments[0].startswith("-") else "command"
        hint = did_you_mean(arguments[0], [*COMMANDS, "--help", "--version"])
        complain(f"unknown {kind} {arguments[0]!r}{hint}; see wavasr --help")
        return BAD_INPUT
    return COMMANDS[arguments[0]].run(arguments[1:])


def overview() -> str:
    """What `wavasr --help` prints."""
    commands = "\n".join(f"  {name:<11} {command.summary}" for name, command in COMMANDS.items())
    return f"""\
usage: wavasr COMMAND ...

Speech recognition from the raw waveform.

commands:
{commands}

  wavasr COMMAND --help tells more about one, with examples.

examples:
  wavasr transcribe interview.mp3
  wavasr prepare librispeech /corpora/LibriSpeech --output manifests
  wavasr fit --config an4.yaml
  wavasr evaluate --model runs/an4/model.wavasr --manifest test.jsonl --report reports/an4"""


def fit(arguments: list[str]) -> int:
    """`wavasr fit`: everything is passed on to `wavasr.training`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(FIT_HELP.format(recipes=", ".join(shipped_recipes())), end="", file=_help_stream(arguments))
        return OK if arguments else BAD_INPUT
    _configure_logging()
    from wavasr.training import main as train

    return train(arguments) or OK


def warmup(arguments: list[str]) -> int:
    """`wavasr warmup`: everything is passed on to `wavasr.training`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(WARMUP_HELP, end="", file=_help_stream(arguments))
        return OK if arguments else BAD_INPUT
    _configure_logging()
    from wavasr.warmup import main as warm_up

    return warm_up(arguments) or OK


def transcribe(arguments: list[str]) -> int:
    """`wavasr transcribe`: recordings to text on standard output, or to one file each in a folder."""
    args = _transcribe_parser().parse_intermixed_args(arguments)
    if args.format in ONE_RECORDING_FORMATS and len(args.files) > 1 and args.output_dir is None:
        raise WavasrError(f"--format {args.format} holds one recording; give --output-dir to write one file for each")
    if args.files.count("-") > 1:
        raise WavasrError("-: standard input is named twice; it can be read once")
    _configure_logging()
    from wavasr.formats import Folder, render
    from wavasr.transcribe import load_listener, transcribe_many

    model = load_listener(args.model)
    failures = Failures(len(args.files))
    folder = Folder(args.output_dir, args.format, args.files) if args.output_dir else None
    done = transcribe_many(
        sources(args.files, failures),
        model,
        failures.add,
        decoder=_decoding(args),
        model_name=args.model,
        progress=sys.stderr.isatty(),
    )
    for index, transcript in enumerate(done):
        if folder is not None:
            print(folder.write(transcript), flush=True)
        else:
            print(render([transcript], args.format, header=index == 0), end="", flush=True)
    return failures.exit_code()


def _transcribe_parser() -> Parser:
    parser = Parser(
        prog="wavasr transcribe",
        description="Turn recordings into text. Any sample rate and number of channels; wav, flac, ogg, opus, mp3,\n"
        "NIST SPHERE, and with an ffmpeg on the PATH also m4a, webm and mp4.",
        epilog="examples:\n"
        "  wavasr transcribe interview.mp3\n"
        "  wavasr transcribe *.wav --format json > transcripts.jsonl\n"
        "  wavasr transcribe talk.flac --format srt --output-dir subtitles\n"
        "  wavasr transcribe talk.wav --lm lm.arpa --hotword Zarathustra\n"
        "  ffmpeg -i film.mkv -f wav - | wavasr transcribe -",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recording; - reads one from standard input")
    _add_model(parser)
    _add_choice(parser, "--format", FORMATS, "txt", "how the text is written")
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="write one file for each recording here and print its path"
    )
    _add_decoding(parser)
    return parser


class Failures:
    """The recordings of a batch that could not be transcribed: each is named at once, and again counted at the end."""

    def __init__(self, files: int) -> None:
        self.files = files
        self.count = 0

    def add(self, source: object, error: Exception) -> None:
        """Note one."""
        self.count += 1
        complain(describe_os_error(error) if isinstance(error, OSError) else str(error))

    def exit_code(self) -> int:
        """0 when there were none, 2 when the only recording failed, 1 when some of several did."""
        if self.count == 0:
            return OK
        if self.files == 1:
            return BAD_INPUT
        complain(f"{self.count} of {self.files} recordings failed; the others are done")
        return SOME_FAILED


def sources(files: Iterable[str], failures: Failures) -> Iterator[Path | BinaryIO]:
    """What the arguments name: paths, or the standard input for `-`; folders are failures with advice."""
    for name in files:
        path = Path(name)
        if name == "-":
            if sys.stdin is None or sys.stdin.isatty():
                failures.add(name, WavasrError("-: standard input is a terminal; pipe a recording into the command"))
                continue
            yield sys.stdin.buffer
        elif path.is_dir():
            advice = f"give the recordings in it, e.g. {(path / '*.wav').as_posix()}"
            failures.add(name, WavasrError(f"{path}: is a folder; {advice}"))
        else:
            yield path


def align(arguments: list[str]) -> int:
    """`wavasr align`: when the words of a known text were said."""
    parser = Parser(
        prog="wavasr align",
        description="Find when each word and unit of a known text was said: forced alignment. The text is spelled as\n"
        "the model's own normalisation has it; a phone model without a lexicon takes phones separated by spaces.\n"
        "With --manifest, a manifest of phones with their times for a phone model to learn from.",
        epilog="examples:\n"
        '  wavasr align yes.wav --text "yes please" > yes.TextGrid\n'
        "  wavasr align chapter.flac --text-file chapter.txt --output chapter.TextGrid\n"
        '  wavasr align call.wav --text "one two" --format json\n'
        "  wavasr align --manifest train.jsonl --output phones/train.jsonl",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a recording; - reads one from standard input")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="what was said")
    text.add_argument("--text-file", type=Path, metavar="F", help="a UTF-8 file with what was said")
    text.add_argument("--manifest", type=Path, metavar="F", help="instead of FILE: JSON lines with audio and text")
    _add_model(parser)
    parser.add_argument(
        "--lexicon",
        type=Path,
        metavar="F",
        help="for phone models: how words are pronounced, as in CMUdict (default: the model's own; none: without)",
    )
    parser.add_argument(
        "--format",
        type=_one_of(ALIGN_FORMATS),
        metavar="NAME",
        help=f"how times are written: {', '.join(ALIGN_FORMATS)} (default: as --output ends, or textgrid)",
    )
    parser.add_argument("--output", type=Path, metavar="F", help="write here instead of standard output")
    args = parser.parse_args(arguments)
    if (args.file is None) == (args.manifest is None):
        parser.error("expected FILE with --text or --text-file, or --manifest")
    if args.manifest:
        return _align_manifest(parser, args)
    suffix = args.output.suffix.lower().removeprefix(".") if args.output else ""
    written = args.format or (suffix if suffix in ALIGN_FORMATS else "textgrid")
    spoken = args.text if args.text is not None else read_text(args.text_file)
    _configure_logging()
    from wavasr.aligner import align as find_times
    from wavasr.formats import render
    from wavasr.manifest import atomic_text

    failures = Failures(1)
    for source in sources([args.file], failures):
        rendered = render([find_times(source, spoken, args.model, lexicon=args.lexicon)], written)
        if args.output is None:
            print(rendered, end="")
            continue
        with atomic_text(args.output) as stream:
            stream.write(rendered)
        print(args.output)
    return failures.exit_code()


def _align_manifest(parser: Parser, args: argparse.Namespace) -> int:
    if args.output is None or args.format:
        parser.error("--manifest needs --output F, a manifest too, and no --format")
    _configure_logging()
    from wavasr.aligner import align_manifest, lexicon_of
    from wavasr.manifest import read_manifest, write_manifest
    from wavasr.transcribe import load_listener

    utterances = read_manifest(args.manifest)
    model = load_listener(args.model)
    lexicon = lexicon_of(model, args.lexicon)
    if lexicon is None:
        raise ConfigError(f"{args.model}: --manifest takes a model of phones with a lexicon; give --lexicon")
    aligned = list(align_manifest(utterances, model, lexicon))
    if not aligned:
        raise TextError(f"{args.manifest}: none of its texts can be aligned; see the messages above")
    write_manifest(args.output, aligned)
    print(f"{args.output}: {len(aligned)} of {len(utterances)} utterances aligned")
    return 0


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        TextError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: is not UTF-8 text; save it as UTF-8") from error


def evaluate(arguments: list[str]) -> int:
    """`wavasr evaluate`: error rates of a model on a manifest, and a report."""
    parser = Parser(
        prog="wavasr evaluate",
        description="Measure a model on a manifest: word, character or phone error rate with a 95 % interval, per\n"
        "speaker, with the worst utterances aligned. Prints a summary; --report writes JSON, Markdown and HTML.",
        epilog="examples:\n"
        "  wavasr evaluate --manifest test.jsonl\n"
        "  wavasr evaluate --model runs/an4/model.wavasr --manifest test.jsonl --report reports/an4\n"
        "  wavasr evaluate --model new.wavasr --manifest test.jsonl --compare reports/an4/report.json",
    )
    _add_model(parser)
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="JSON lines with audio and text")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.json, report.md and report.html here")
    parser.add_argument(
        "--compare", type=Path, metavar="REPORT", help="report.json of another system on the same manifest"
    )
    _add_decoding(parser)
    args = parser.parse_args(arguments)
    _configure_logging()
    from wavasr import report
    from wavasr.evaluate import evaluate as measure
    from wavasr.manifest import read_manifest
    from wavasr.transcribe import load_listener

    baseline = report.read(args.compare) if args.compare else None
    utterances = read_manifest(args.manifest)
    model = load_listener(args.model)
    if args.report:
        report.prepare_directory(args.report)
    evaluation = measure(
        model,
        utterances,
        decoder=_decoding(args),
        model_name=args.model,
        manifest=args.manifest,
        command=shlex.join(["wavasr", "evaluate", *arguments]),
        progress=sys.stderr.isatty(),
    )
    print(report.summary(evaluation))
    if baseline is not None:
        print(report.compare(evaluation, baseline))
    if args.report:
        print(report.write_report(evaluation, args.report, baseline))
    for failure in evaluation.failures:
        complain(failure.message)
    if evaluation.failures:
        total = len(evaluation.failures) + len(evaluation.utterances)
        complain(f"{len(evaluation.failures)} of {total} utterances failed; they are not in the figures")
    return SOME_FAILED if evaluation.failures else OK


def calibrate(arguments: list[str]) -> int:
    """`wavasr calibrate`: make a model's confidences probabilities of being right."""
    parser = Parser(
        prog="wavasr calibrate",
        description="Fit a model's confidences on speech that it was not trained on: of the words at 0.8 eight in ten\n"
        "are then right. The map goes into the model file, and transcribe applies it. `wavasr fit` does this on its\n"
        "dev set; decoding with a language model has a map of its own.",
        epilog="examples:\n"
        "  wavasr calibrate --model runs/an4/model.wavasr --manifest dev.jsonl\n"
        "  wavasr calibrate --model default --manifest dev.jsonl --lm lm.arpa --output mine.wavasr",
    )
    _add_model(parser)
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="JSON lines with audio and text")
    parser.add_argument("--output", type=Path, metavar="F", help="write a copy of the model instead of changing it")
    _add_decoding(parser)
    args = parser.parse_args(arguments)
    if args.output is None and not Path(args.model).is_file():
        raise ModelError(f"{args.model}: is no model file of yours; give --output to calibrate a copy of a shipped one")
    _configure_logging()
    from wavasr import report
    from wavasr.evaluate import calibrate as fit_confidences
    from wavasr.evaluate import evaluate as measure
    from wavasr.manifest import read_manifest
    from wavasr.model import load_model
    from wavasr.modelfile import resolve
    from wavasr.transcribe import calibration_key, decoder_of

    utterances = read_manifest(args.manifest)
    model = load_model(args.model)
    decode = decoder_of(_decoding(args), model=model)
    progress = sys.stderr.isatty()
    evaluation = measure(model, utterances, decoder=decode, manifest=args.manifest, progress=progress)
    calibrated = fit_confidences(evaluation, resolve(args.model), calibration_key(decode), args.output)
    assert calibrated.calibration is not None
    print(report.fitted(calibrated.calibration))
    print(args.output or args.model)
    for failure in evaluation.failures:
        complain(failure.message)
    return SOME_FAILED if evaluation.failures else OK


def prepare(arguments: list[str]) -> int:
    """`wavasr prepare`: a corpus on disk to one manifest for each split."""
    from wavasr import corpora

    names = "\n".join(f"  {name:<16} {line}" for name, line in corpora.NAMES.items())
    parser = Parser(
        prog="wavasr prepare",
        description=f"Read a corpus, check every recording, write DIR/SPLIT.jsonl for each split.\n\ncorpora:\n{names}",
        epilog="examples:\n"
        "  wavasr prepare librispeech /corpora/LibriSpeech --output manifests\n"
        "  wavasr prepare timit /corpora/TIMIT --option labels=words --output manifests\n"
        "  wavasr prepare folder my-recordings --output manifests",
    )
    parser.add_argument("corpus", metavar="CORPUS", type=_one_of(corpora.NAMES), help="how the corpus is laid out")
    parser.add_argument("root", metavar="ROOT", type=Path, help="the corpus's folder, or a manifest for jsonl")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the manifests go")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the layout, as often as needed; a wrong one lists those that there are",
    )
    args = parser.parse_args(arguments)
    _configure_logging()
    options = corpora.parse_options(args.corpus, args.option)
    corpus = corpora.prepare(args.corpus, args.root, args.output, **options)
    print(corpora.summary(corpus))
    for split in corpus.splits:
        print(args.output / f"{split}.jsonl")
    return SOME_FAILED if corpus.problems else OK


def export(arguments: list[str]) -> int:
    """`wavasr export`: a model file to ONNX."""
    parser = Parser(
        prog="wavasr export",
        description="Write a model as one ONNX file, which transcribe, evaluate and info take like any model and run\n"
        "with onnxruntime, without torch. Inputs: waveform (B, S) float32, lengths (B,) int64; outputs: log_probs\n"
        "(B, T, V), frames (B,). Its metadata carry units, spelling and encoder.",
        epilog="examples:\n"
        "  wavasr export default --output default.onnx\n"
        "  wavasr export runs/an4/model.wavasr --int8 --output an4-int8.onnx\n"
        "  wavasr transcribe interview.mp3 --model an4-int8.onnx",
    )
    parser.add_argument("model", nargs="?", default="default", metavar="MODEL", help="a file or a shipped name")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .onnx file to write")
    parser.add_argument("--int8", action="store_true", help="8-bit products: smaller and faster, for onnxruntime alone")
    args = parser.parse_args(arguments)
    from wavasr.export import export_model

    export_model(args.model, args.output, args.int8)
    print(args.output)
    return OK


def lm(arguments: list[str]) -> int:
    """`wavasr lm`: make a language model, or choose its weights."""
    verbs = {"build": _lm_build, "tune": _lm_tune}
    if arguments and arguments[0] in verbs:
        return verbs[arguments[0]](arguments[1:])
    if arguments and arguments[0] not in ("-h", "--help"):
        hint = did_you_mean(arguments[0], verbs) or "; expected build or tune"
        complain(f"unknown command {arguments[0]!r} of wavasr lm{hint}; see wavasr lm --help")
        return BAD_INPUT
    print(LM_HELP, end="", file=_help_stream(arguments))
    return OK if arguments else BAD_INPUT


def _lm_build(arguments: list[str]) -> int:
    parser = Parser(
        prog="wavasr lm build",
        description="Estimate an n-gram language model (modified Kneser-Ney), prune it by entropy, write it as ARPA.",
        epilog="examples:\n"
        "  wavasr lm build books.txt.xz -o lm.arpa.gz --words 60000 --ngrams 2000000\n"
        "  wavasr lm build train.jsonl --model runs/an4/model.wavasr -o an4.arpa",
    )
    parser.add_argument(
        "texts", nargs="+", type=Path, metavar="TEXT", help="a sentence a line (.txt, .gz, .xz), or a manifest (.jsonl)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="F", help="lm.arpa, or lm.arpa.gz: packed")
    parser.add_argument("--order", type=_count, default=3, metavar="N", help="longest n-gram (default: %(default)s)")
    parser.add_argument(
        "--words", type=_count, default=0, metavar="N", help="only the N most frequent words (default: all)"
    )
    parser.add_argument(
        "--prune",
        type=float,
        default=0.0,
        metavar="T",
        help="leave out what raises the perplexity by less than this share, e.g. 1e-7 (default: keep all)",
    )
    parser.add_argument(
        "--ngrams", type=_count, default=0, metavar="N", help="prune to N n-grams of two words and more"
    )
    parser.add_argument(
        "--model", default="default", metavar="MODEL", help="whose spelling the text gets (default: %(default)s)"
    )
    parser.add_argument(
        "--phones", action="store_true", help="the texts are phones: for phone models without a lexicon"
    )
    args = parser.parse_args(arguments)
    _configure_logging()
    from wavasr.lm import estimate, prune, read_sentences, spelling_of, write_arpa

    progress = sys.stderr.isatty()
    sentences = read_sentences(args.texts, spelling_of(args.model, args.phones), progress=progress)
    model = estimate(sentences, order=args.order, words=args.words)
    model = prune(model, args.prune, args.ngrams)
    write_arpa(model, args.output, progress=progress)
    sizes = ", ".join(f"{size} {length}-grams" for length, size in enumerate(model.sizes, 1))
    print(f"{args.output}: {sizes}, {args.output.stat().st_size / 1e6:.1f} MB")
    return OK


def _lm_tune(arguments: list[str]) -> int:
    parser = Parser(
        prog="wavasr lm tune",
        description="Choose a language model's weight and the word score on a dev set: the fewest errors of a grid.\n"
        "Prints the table, and writes the choice to LM.json, which transcribe and evaluate read.",
        epilog="examples:\n"
        "  wavasr lm tune --model runs/an4/model.wavasr --manifest dev.jsonl --lm an4.arpa\n"
        "  wavasr lm tune --model timit.wavasr --manifest dev.jsonl --lm lm.arpa --lexicon cmudict.txt",
    )
    _add_model(parser)
    parser.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="JSON lines with audio and text")
    parser.add_argument("--lm", type=Path, required=True, metavar="F", help="ARPA (also .gz) or KenLM binary")
    parser.add_argument("--lexicon", type=Path, metavar="F", help="as in wavasr transcribe")
    parser.add_argument("--beam", type=_count, default=0, metavar="N", help="hypotheses (default: 100)")
    args = parser.parse_args(arguments)
    if not args.lm.is_file():
        raise TextError(f"{args.lm}: no such language model; make one with wavasr lm build")
    _configure_logging()
    from wavasr.config import DecodingConfig
    from wavasr.decoding_lm import complete, lm_decoder
    from wavasr.manifest import read_manifest
    from wavasr.transcribe import load_listener
    from wavasr.tuning import table, tune, write_weights

    utterances = read_manifest(args.manifest)
    model = load_listener(args.model)
    config = complete(DecodingConfig(beam=args.beam, lm=args.lm, lexicon=args.lexicon), model.file)
    decoder = lm_decoder(config, model.units, model.text)
    if decoder is None:
        return BAD_INPUT  # the reason has been told
    tuning = tune(model, utterances, decoder, progress=sys.stderr.isatty())
    print(table(tuning))
    print(write_weights(tuning, args.lm, {"model": args.model, "manifest": args.manifest.as_posix()}))
    return OK


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
    from wavasr.modelfile import read_header, resolve

    path = resolve(args.model)
    header = read_header(path)
    print(json.dumps(header, ensure_ascii=False, indent=2) if args.json else describe_model(path, header))
    return OK


def describe_model(path: Path, header: dict[str, Any]) -> str:
    """The header of a model file for people, a line for each thing."""
    from wavasr.config import EncoderConfig, TextConfig, from_dict
    from wavasr.geometry import receptive_field
    from wavasr.text import Units

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
    metadata = dict(header["metadata"])
    config = metadata.pop("config", {})  # all of it with --json
    lines |= {str(key): one_line(str(value))[:200] for key, value in metadata.items()}
    width = max(map(len, lines))
    rows = [f"{key:<{width}}  {value}" for key, value in lines.items()]
    sources = config.get("data", {}).get("sources", []) if isinstance(config, dict) else []
    return "\n".join([*rows, *(f"{'trained on':<{width}}  {one_line(str(source))}" for source in sources)])


COMMANDS = {
    "transcribe": Command("recordings to text, subtitles or JSON", transcribe),
    "align": Command("when the words of a known text were said", align),
    "fit": Command("train a recogniser from a recipe", fit),
    "evaluate": Command("error rates of a model on a manifest, with a report", evaluate),
    "calibrate": Command("make a model's confidences probabilities", calibrate),
    "prepare": Command("a corpus on disk to manifests", prepare),
    "warmup": Command("train the first stages without labels", warmup),
    "export": Command("a model to ONNX, also in 8 bits", export),
    "lm": Command("make a language model, or choose its weights", lm),
    "info": Command("what a model file carries", info),
}


def _add_model(parser: Parser) -> None:
    parser.add_argument(
        "--model", default="default", metavar="MODEL", help="a model file or a shipped name (default: %(default)s)"
    )


_LM_HELP = "n-gram language model: ARPA (also .gz) or KenLM binary (default: the model's own; none: without)"


def _add_decoding(parser: Parser) -> None:
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--beam",
        type=_count,
        default=0,
        metavar="N",
        help="beam search with N hypotheses (default: greedy; 100 with a language model, a lexicon or hotwords)",
    )
    group.add_argument("--n-best", type=_count, default=1, metavar="N", help="the N best texts, in JSON")
    group.add_argument("--lm", type=Path, metavar="F", help=_LM_HELP)
    group.add_argument(
        "--lexicon",
        type=Path,
        metavar="F",
        help="the words that may be said, one a line; for phone models with pronunciations, as in CMUdict "
        "(default: the model's own)",
    )
    group.add_argument("--lm-weight", type=float, metavar="W", help="of the language model (default: as lm tune chose)")
    group.add_argument("--word-score", type=float, metavar="S", help="nats for each word (default: as lm tune chose)")
    group.add_argument(
        "--hotword", action="append", default=[], metavar="W", help="a word or phrase to expect, as often as needed"
    )
    group.add_argument(
        "--hotword-boost",
        type=float,
        default=5.0,
        metavar="B",
        help="nats for each of its words (default: %(default)s)",
    )


def _decoding(args: argparse.Namespace) -> DecodingConfig:
    from wavasr.config import DecodingConfig

    return DecodingConfig(
        beam=args.beam,
        n_best=args.n_best,
        lm=args.lm,
        lexicon=args.lexicon,
        lm_weight=args.lm_weight,
        word_score=args.word_score,
        hotwords=tuple(args.hotword),
        hotword_boost=args.hotword_boost,
    )


def _count(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number from 0 on")
    return int(value)


def _add_choice(parser: Parser, option: str, choices: Iterable[str], default: str, text: str) -> None:
    parser.add_argument(
        option,
        type=_one_of(choices),
        default=default,
        metavar="NAME",
        help=f"{text}: {', '.join(choices)} (default: {default})",
    )


def _one_of(choices: Iterable[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value.lower() in choices:
            return value.lower()
        hint = did_you_mean(value, choices) or f"; expected one of {', '.join(choices)}"
        raise argparse.ArgumentTypeError(f"unknown name {value!r}{hint}")

    return check


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def shipped_recipes() -> list[str]:
    """File names of the recipes in the package (or, in a source tree, beside it)."""
    package = Path(__file__).resolve().parent
    folders = (package.parent / "configs", package / "configs")
    return next((sorted(path.name for path in folder.glob("*.yaml")) for folder in folders if folder.is_dir()), [])


def describe_os_error(error: OSError) -> str:
    """One line about a failed read or write: file, reason, remedy."""
    remedies = {
        errno.ENOSPC: "free some space, or choose another folder",
        errno.EDQUOT: "free some space, or choose another folder",
        errno.EACCES: "change its permissions, or choose another place",
        errno.EPERM: "change its permissions, or choose another place",
        errno.EROFS: "choose a folder that can be written",
        errno.ENOENT: "check the path",
        errno.EISDIR: "give a file",
        errno.ENOTDIR: "check the path",
        errno.EEXIST: "choose another place",
    }
    place = f"{error.filename}: " if error.filename else ""
    remedy = remedies.get(error.errno or 0)
    return f"{place}{(error.strerror or str(error)).lower()}" + (f"; {remedy}" if remedy else "")


def complain(message: str) -> None:
    """One line on standard error."""
    printable = one_line(message).encode("utf-8", "backslashreplace").decode("utf-8")
    print(f"wavasr: {printable}", file=sys.stderr, flush=True)


def one_line(message: str) -> str:
    """The message with its line breaks turned into spaces."""
    return " ".join(message.split())


def _help_stream(arguments: list[str]) -> Any:
    return sys.stdout if arguments else sys.stderr


def _prepare_streams() -> None:
    r"""Write UTF-8 wherever Python would not (Windows, old locales), and names that are not UTF-8 as \udcff."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _abandon_unwritten_output() -> None:
    """Where standard output cannot be written (full disk, reader gone), let the interpreter's last flush succeed."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _configure_logging() -> None:
    """Messages of this package to standard error, one line each; those of other packages from warnings on."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("wavasr").setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
