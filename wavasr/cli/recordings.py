"""`wavasr transcribe` and `wavasr align`: what was said, and when."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from wavasr.cli.console import (
    BAD_INPUT,
    OK,
    SOME_FAILED,
    complain,
    configure_logging,
    describe_os_error,
    starting,
    tell_written,
)
from wavasr.cli.options import Parser, add_choice, add_decoding, add_model, count, decoding_config, one_of
from wavasr.errors import ConfigError, TextError, WavasrError, counted, reading
from wavasr.files import read_text

FORMATS = ("txt", "json", "srt", "vtt", "tsv", "ctm", "textgrid")
ALIGN_FORMATS = ("textgrid", "ctm", "json")
log = logging.getLogger("wavasr")
ONE_RECORDING_FORMATS = ("srt", "vtt", "textgrid")


def transcribe(arguments: list[str]) -> int:
    """`wavasr transcribe`: recordings to text on standard output, or to one file each in a folder."""
    # What follows -- are files, whatever they begin with; argparse does not see to that among intermixed arguments.
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _transcribe_parser()
    args = parser.parse_intermixed_args(arguments[:at])
    args.files += arguments[at + 1 :]
    if not args.files:
        parser.error("the following arguments are required: FILE")
    if args.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, args.threads))
    args.files = list(recordings(args.files))
    if args.skip_existing and args.output_dir is None:
        parser.error("--skip-existing needs --output-dir, where it looks for what is there")
    if args.format in ONE_RECORDING_FORMATS and len(args.files) > 1 and args.output_dir is None:
        raise WavasrError(f"--format {args.format} holds one recording; give --output-dir to write one file for each")
    if args.files.count("-") > 1:
        raise WavasrError("-: standard input is named twice; it can be read once")
    configure_logging(args.quiet)
    with starting():
        from wavasr.decoding.factory import decoder_of
        from wavasr.files import check_writable_folder
        from wavasr.recognition.formats import Folder, distinct_stems, render
        from wavasr.recognition.models import opened
        from wavasr.recognition.transcribe import transcribe_many
        from wavasr.recognition.workers import usable_processes

        model = opened(args.model, args.device)
        decoder = decoder_of(decoding_config(args), model)
    if args.output_dir:
        check_writable_folder(args.output_dir)
    failures = Failures(len(args.files))
    folder = Folder(args.output_dir, args.format, args.files) if args.output_dir else None
    files = args.files
    if folder is not None and args.skip_existing:
        files = [file for file in files if not folder.path_of(file).is_file()]
        if len(files) < len(args.files):
            log.info("%d of %d recordings are done already", len(args.files) - len(files), len(args.files))
    names = distinct_stems(args.files)
    done = transcribe_many(
        sources(files, failures),
        model,
        failures.add,
        decoder=decoder,
        model_name=args.model,
        progress=sys.stderr.isatty() and not args.quiet,
        processes=usable_processes(),
    )
    alone = len(args.files) == 1
    for index, transcript in enumerate(done):
        if folder is None:
            print(render([transcript], args.format, index == 0, names, paragraphs=alone), end="", flush=True)
            continue
        try:
            written = folder.write(transcript)
        except OSError as error:  # one result that cannot be written; the others may
            failures.add(transcript.file, error)
        else:
            print(written, flush=True)
    return failures.exit_code()


def _transcribe_parser() -> Parser:
    parser = Parser(
        prog="wavasr transcribe",
        description="Turn recordings into text. Any sample rate and number of channels; wav, flac, ogg, opus, mp3,\n"
        "m4a, NIST SPHERE, the sound of videos (mp4, webm, mkv), and what else FFmpeg reads.",
        epilog="examples:\n"
        "  wavasr transcribe interview.mp3\n"
        "  wavasr transcribe *.wav --format json > transcripts.jsonl\n"
        "  wavasr transcribe talk.flac --format srt --output-dir subtitles\n"
        "  wavasr transcribe talk.wav --lm lm.arpa --hotword Zarathustra\n"
        "  wavasr transcribe meetings -f json -o transcripts --skip-existing\n"
        "  ffmpeg -i film.mkv -f wav - | wavasr transcribe -",
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a recording, or a folder of recordings; - reads one from standard input",
    )
    add_model(parser)
    add_choice(parser, "--format", FORMATS, "txt", "output format; tsv has a line for each word", "-f")
    parser.add_argument(
        "-o", "--output-dir", type=Path, metavar="DIR", help="write one file for each recording here and print its path"
    )
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave out recordings that have a file in --output-dir already"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages but errors")
    parser.add_argument("--threads", type=count, metavar="N", help="threads and processes (default: one per core)")
    add_choice(
        parser, "--device", ("cpu", "cuda"), "cpu", "where the network runs; cuda needs onnxruntime-gpu and onnx"
    )
    add_decoding(parser)
    return parser


def recordings(names: Iterable[str]) -> Iterator[str]:
    """The names, with the recordings beneath a folder, sorted, in its place.

    Raises:
        WavasrError: there is none in the only folder; among several names, the folder's own fails in its turn.
    """
    names = list(names)
    for name in names:
        if name == "-" or not Path(name).is_dir():
            yield name
            continue
        from wavasr.corpora.base import find_audio

        found = [str(path) for path in find_audio(Path(name))]
        if not found and len(names) == 1:
            raise WavasrError(f"{name}: is a folder without recordings; give a file, or another folder")
        yield from found or [name]


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
        some = self.count < self.files
        complain(
            f"{self.count} of {counted(self.files, 'recording')} failed" + ("; the others are done" if some else "")
        )
        return SOME_FAILED


def sources(files: Iterable[str], failures: Failures) -> Iterator[Path | BinaryIO]:
    """What the arguments name: paths, or the standard input for `-`, a failure where that is a terminal."""
    for name in files:
        path = Path(name)
        if name == "-":
            if sys.stdin is None or sys.stdin.isatty():
                failures.add(name, WavasrError("-: standard input is a terminal; pipe a recording into the command"))
                continue
            yield sys.stdin.buffer
        else:
            yield path


def align(arguments: list[str]) -> int:
    """`wavasr align`: when the words of a known text were said."""
    parser = _align_parser()
    args = parser.parse_args(arguments)
    if (args.file is None) == (args.manifest is None):
        parser.error("expected FILE with --text or --text-file, or --manifest")
    if args.manifest:
        return _align_manifest(parser, args)
    suffix = args.output.suffix.lower().removeprefix(".") if args.output else ""
    if not args.format and suffix in set(FORMATS) - {*ALIGN_FORMATS, "txt"}:
        parser.error(f"{args.output}: times are not written as {suffix}; give a name in .textgrid, .ctm or .json")
    written = args.format or (suffix if suffix in ALIGN_FORMATS else "textgrid")
    spoken = args.text if args.text is not None else text_of(args.text_file)
    configure_logging()
    with starting():
        from wavasr.files import atomic_text, check_writable
        from wavasr.recognition.align import align as find_times
        from wavasr.recognition.formats import render
        from wavasr.recognition.models import opened

        if args.output:
            check_writable(args.output)
        model = opened(args.model)
    failures = Failures(1)
    for source in sources([args.file], failures):
        found = find_times(source, spoken, model, lexicon=args.lexicon, model_name=args.model)
        rendered = render([found], written)
        if args.output is None:
            print(rendered, end="")
            continue
        with atomic_text(args.output) as stream:
            stream.write(rendered)
        tell_written(args.output)
    return failures.exit_code()


def _align_parser() -> Parser:
    parser = Parser(
        prog="wavasr align",
        description="Forced alignment: find when each word and phone of a known text was said. For a phone model\n"
        "without a lexicon give phones, separated by spaces. With --manifest, write a manifest of phones and their\n"
        "times, to train a phone model on; with --model none each word gets its first pronunciation, without times.",
        epilog="examples:\n"
        '  wavasr align yes.wav --text "yes please" > yes.TextGrid\n'
        "  wavasr align chapter.flac --text-file chapter.txt --output chapter.TextGrid\n"
        '  wavasr align call.wav --text "one two" --format json\n'
        "  wavasr align --manifest train.jsonl --output phones/train.jsonl\n"
        "  wavasr align --manifest train.jsonl --model none --lexicon cmudict.txt --output phones/train.jsonl",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a recording; - reads one from standard input")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="what was said")
    text.add_argument("--text-file", type=Path, metavar="F", help="a UTF-8 file with what was said")
    text.add_argument("--manifest", type=Path, metavar="F", help="instead of FILE: JSON lines with audio and text")
    add_model(parser)
    parser.add_argument(
        "--lexicon",
        type=Path,
        metavar="F",
        help="for phone models: how words are pronounced, as in CMUdict (default: the model's own; none: without)",
    )
    parser.add_argument(
        "--format",
        type=one_of(ALIGN_FORMATS),
        metavar="NAME",
        help=f"output format: {', '.join(ALIGN_FORMATS)} (default: as --output ends, or textgrid)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="F", help="write here instead of standard output")
    return parser


def _align_manifest(parser: Parser, args: argparse.Namespace) -> int:
    if args.output is None or args.format:
        parser.error("--manifest needs --output F, a manifest too, and no --format")
    configure_logging()
    from wavasr.corpora.manifest import read_manifest, write_manifest
    from wavasr.decoding.config import NOTHING
    from wavasr.files import check_writable
    from wavasr.recognition.align import align_manifest, lexicon_of, pronounce_manifest
    from wavasr.recognition.models import load_acoustic_model

    check_writable(args.output)
    utterances = read_manifest(args.manifest)
    without_model = args.model == str(NOTHING)
    model = load_acoustic_model("default" if without_model else args.model)
    lexicon = lexicon_of(model, args.lexicon)
    if lexicon is None:
        raise ConfigError(f"{args.model}: --manifest takes a model of phones with a lexicon; give --lexicon")
    failures = Failures(len(utterances))
    if without_model:
        aligned = list(pronounce_manifest(utterances, lexicon))
    else:
        aligned = list(align_manifest(utterances, model, lexicon, failures.add))
    if not aligned:
        raise TextError(f"{args.manifest}: none of its texts can be aligned; see the messages above")
    write_manifest(args.output, aligned)
    done = "pronounced" if without_model else "aligned"
    tell_written(args.output, f"{args.output}: {len(aligned)} of {counted(len(utterances), 'utterance')} {done}")
    return SOME_FAILED if failures.count else OK


def text_of(path: Path) -> str:
    """A text file.

    Raises:
        TextError: it cannot be read, or is not UTF-8.
    """
    with reading(path, "text", "check the path", TextError):
        return read_text(path)
