"""`wavasr speak`: text to speech."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from wavasr.cli.console import OK, configure_logging, tell_written
from wavasr.cli.generation import add_sound_output, warn_if_slow
from wavasr.cli.options import Parser, count
from wavasr.errors import TextError


def speak(arguments: list[str]) -> int:
    """The command `wavasr speak`."""
    parser = Parser(
        prog="wavasr speak",
        description="Speak a text. Numbers, dates, money and abbreviations are read out; long texts are spoken\n"
        "sentence by sentence. The same seed gives the same sound.",
        epilog="examples:\n"
        '  wavasr speak "The old man walked slowly down to the river." -o river.wav\n'
        '  wavasr speak "It is 10:30." --rate 0.8 --pitch +2 -o time.wav\n'
        '  wavasr speak "Good morning." --voice 1088 -o morning.wav\n'
        "  wavasr speak --file story.txt -o story.wav\n"
        "  echo Hello there. | wavasr speak - -o - | aplay",
    )
    parser.add_argument("text", nargs="*", metavar="TEXT", help="what to say; - reads it from standard input")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="a text file to say; - for standard input, line by line"
    )
    parser.add_argument(
        "--voice",
        default="kathleen",
        metavar="V",
        help="a shipped name, a speaker of voices (wavasr info voices), or a file (default: kathleen)",
    )
    parser.add_argument("--speaker", metavar="NAME", help="of a voice with several; wavasr info lists them")
    parser.add_argument("--rate", type=float, default=1.0, metavar="R", help="2 is twice as fast (default: 1)")
    parser.add_argument("--pitch", type=float, default=0.0, metavar="N", help="semitones to add (default: 0)")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="start of the random choices (default: 0)")
    add_sound_output(parser)
    args = parser.parse_args(arguments)
    configure_logging()
    text = _text(args.text, args.file)
    from wavasr.files import atomic_bytes, check_writable
    from wavasr.generation.speaking import reader_of, write_wav

    check_writable(output := args.output)
    reader = reader_of(args.voice)
    warn_if_slow()
    blocks = reader.blocks(text, args.speaker, args.rate, args.pitch, args.seed)
    with atomic_bytes(output) as stream:
        write_wav(stream, blocks, reader.sample_rate)
    tell_written(output)
    return OK


def _text(words: list[str], file: Path | None) -> str | Iterator[str]:
    """The text of the command line, or the lines of a file or of standard input.

    Raises:
        TextError: none or two are given.
        OSError: the file cannot be read.
    """
    if bool(words) == bool(file):
        raise TextError("give a text to say or --file FILE" + (", not both" if words else ""))
    if str(file) == "-" or words == ["-"]:
        return _lines(sys.stdin.buffer, "standard input")
    return _lines(file.open("rb"), str(file)) if file else " ".join(words)


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """As they come.

    Raises:
        TextError: they are not UTF-8.
    """
    with stream:
        for index, line in enumerate(stream):
            try:
                yield line.decode("utf-8-sig" if index == 0 else "utf-8")
            except UnicodeDecodeError as error:
                raise TextError(f"{name}: line {index + 1} is not UTF-8 ({error.reason}); convert it") from error
