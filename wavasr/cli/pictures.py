"""`wavasr show`: pictures of recordings, models and training runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wavasr.cli.console import OK, tell_written
from wavasr.cli.options import Parser

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(arguments: list[str]) -> int:
    """`wavasr show`: draw a recording, a model, a run, or a lecture on WaveNet."""
    parser = Parser(
        prog="wavasr show",
        description="Draw a recording (waveform, spectrogram, mel spectrum, pitch, words and phones), a model\n"
        "(layers, dilations, receptive field), the learning curves of a run, or a page of figures about WaveNet.",
        epilog="examples:\n"
        "  wavasr show interview.mp3 -o interview.png\n"
        '  wavasr show yes.wav --text "yes" -o yes.svg\n'
        "  wavasr show interview.mp3 --from 60 --to 70 --model none -o minute.png\n"
        "  wavasr show --model default -o model.png\n"
        "  wavasr show runs/an4 -o curves.png\n"
        "  wavasr show interview.mp3 --model runs/voice/model.wavasr --likelihood -o likelihood.png\n"
        "  wavasr show --lecture lecture\n"
        "  wavasr show --lecture lecture interview.mp3 --voice runs/voice/model.wavasr",
    )
    parser.add_argument("source", nargs="?", type=Path, metavar="FILE|RUN", help="a recording, or the folder of a run")
    parser.add_argument("-o", "--output", type=Path, metavar="PICTURE", help="a .png, .svg, .pdf, .jpg or .webp file")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="what recognises the words (default: default; none: no words); without FILE: the model that is drawn",
    )
    parser.add_argument("--text", metavar="TEXT", help="what is said in FILE, to be aligned instead of recognised")
    parser.add_argument("--from", type=float, default=0.0, dest="start_s", metavar="S", help="begin here, in seconds")
    parser.add_argument("--to", type=float, dest="end_s", metavar="S", help="end here (default: 20 s later at most)")
    parser.add_argument(
        "--likelihood",
        action="store_true",
        help="how hard each sample of FILE is to predict, for a generator or a recogniser trained with that loss",
    )
    parser.add_argument(
        "--lecture", type=Path, metavar="DIR", help="write DIR/lecture.html about FILE, or a sentence that MODEL says"
    )
    parser.add_argument(
        "--voice",
        default="kathleen",
        metavar="MODEL",
        help="the voice of the lecture's last chapters (default: kathleen)",
    )
    args = parser.parse_args(arguments)
    if args.lecture is None and args.output is None:
        parser.error("--output PICTURE is missing")
    if args.source is None and args.model is None and args.lecture is None:
        parser.error("give a recording, the folder of a run, or --model MODEL")
    if args.lecture is not None:
        print(_lecture(args.lecture, args.source, args.model or "default", args.voice))
        return OK
    from wavasr.files import check_writable
    from wavasr.pictures import style

    style.check_suffix(args.output)
    check_writable(args.output)
    style.save(_drawn(args), args.output)
    tell_written(args.output)
    return OK


def _drawn(args: argparse.Namespace) -> Figure:
    """A model, the curves of a run, or a recording."""
    if args.source is None:
        from wavasr.pictures.network import network

        return network(args.model)
    if args.source.is_dir() or args.source.suffix == ".csv":
        from wavasr.pictures.training import learning_curves

        return learning_curves(args.source)
    return _recording(args)


def _recording(args: argparse.Namespace) -> Figure:
    from wavasr.pictures.network import is_generator
    from wavasr.pictures.recording import recording
    from wavasr.pictures.voices import likelihood_of

    model, start_s, end_s = args.model or "default", args.start_s, args.end_s
    if args.likelihood or (model != "none" and is_generator(model)):
        return likelihood_of(args.source, model, start_s=start_s, end_s=end_s)
    model = None if model == "none" else model
    return recording(args.source, model=model, text=args.text, start_s=start_s, end_s=end_s)


def _lecture(directory: Path, source: Path | None, model: str, voice: str) -> Path:
    from wavasr.files import check_writable_folder
    from wavasr.pictures.lecture import lecture

    check_writable_folder(directory)
    return lecture(directory, source, model, voice)
