"""The command `wavasr`: find the command, call it, exit code.

Exit codes: 0 done, 1 some of several files failed (they are named), 2 bad input or bad usage, 130 interrupted.
Results go to standard output, everything else to standard error. Each group of commands has a module here, imported
when one of them runs, and imports what it needs inside the command: help and mistakes are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import cast

import wavasr
from wavasr.cli.console import (
    BAD_INPUT,
    BROKEN_PIPE,
    INTERRUPTED,
    OK,
    abandon_unwritten_output,
    complain,
    describe_os_error,
    did_you_mean,
    interrupts_kept,
    missing_extra,
    prepare_streams,
)
from wavasr.errors import WavasrError


@dataclass(frozen=True)
class Command:
    """One command: the line about it in `wavasr --help`, and what carries it out: arguments -> exit code."""

    summary: str
    run: Callable[[list[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line (without the program's name) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        prepare_streams()
        try:
            with interrupts_kept():
                code = dispatch(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else BAD_INPUT if stop.code else OK
        sys.stdout.flush()
        return code
    except WavasrError as error:
        complain(str(error))
        return BAD_INPUT
    except ModuleNotFoundError as error:
        advice = missing_extra(error, arguments[0] if arguments else "")
        if advice is None:
            raise
        complain(advice)
        return BAD_INPUT
    except BrokenPipeError:
        abandon_unwritten_output()
        return BROKEN_PIPE
    except OSError as error:
        complain(describe_os_error(error))
        abandon_unwritten_output()
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED


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

  wavasr COMMAND --help shows its options and examples.

examples:
  wavasr transcribe interview.mp3
  wavasr prepare librispeech /corpora/LibriSpeech --output manifests
  wavasr fit --config an4.yaml
  wavasr evaluate --model runs/an4/model.wavasr --manifest test.jsonl --report reports/an4"""


def _command(summary: str, place: str) -> Command:
    """A command that is found when it runs; `place` is "module.function" in this package."""

    def run(arguments: list[str]) -> int:
        module, _, function = place.partition(".")
        return cast(int, getattr(import_module(f"wavasr.cli.{module}"), function)(arguments))

    return Command(summary, run)


COMMANDS = {
    "transcribe": _command("recordings to text, subtitles or JSON", "recordings.transcribe"),
    "bulk": _command("transcribe a corpus; an interrupted run goes on", "bulk.bulk"),
    "listen": _command("live captions from a microphone", "serving.listen"),
    "serve": _command("a server: OpenAI, realtime, Wyoming and vosk protocols, and a page", "serving.serve"),
    "align": _command("forced alignment: when the words of a text were said", "recordings.align"),
    "speak": _command("text to speech", "speaking.speak"),
    "generate": _command("sound from a generator: music, a recording in another voice", "generation.generate"),
    "fit": _command("train a recogniser or a generator from a recipe", "training.fit"),
    "adapt": _command("a model adapted to a speaker, without transcripts", "training.adapt"),
    "evaluate": _command("error rates of a model on a manifest, with a report", "evaluation.evaluate"),
    "calibrate": _command("fit a model's confidences to its error rate", "evaluation.calibrate"),
    "prepare": _command("a corpus on disk to manifests", "training.prepare"),
    "shard": _command("the recordings of a manifest to tar files", "training.shard"),
    "warmup": _command("train the first stages without labels", "training.warmup"),
    "export": _command("a model with another language model or lexicon, or as ONNX", "models.export"),
    "lm": _command("make a language model, or choose its weights", "language.lm"),
    "pronounce": _command("words to lines of a lexicon", "language.pronounce"),
    "show": _command("a recording, a model or a run as a picture", "pictures.show"),
    "info": _command("what a model file carries", "models.info"),
}
