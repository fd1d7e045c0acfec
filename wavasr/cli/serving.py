"""`wavasr serve` and `wavasr listen`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wavasr.cli.console import OK, configure_logging, require
from wavasr.cli.options import Parser, add_model, count
from wavasr.errors import ConfigError


def serve(arguments: list[str]) -> int:
    """The command `wavasr serve`."""
    args = _serve_parser().parse_args(arguments)
    configure_logging()
    require("starlette", "uvicorn", "websockets", "python_multipart")
    from wavasr.network.runtime import usable_cores
    from wavasr.serving.server import serve as run
    from wavasr.serving.settings import Limits, Settings

    environment = os.environ.get("WAVASR_API_KEY")
    run(
        Settings(
            host=args.host,
            port=args.port,
            wyoming_port=args.wyoming_port,
            models=_named(args.model),
            keys=(*args.api_key, *([environment] if environment else [])),
            insecure=args.insecure,
            origins=tuple(args.origin),
            strict_models=args.strict_models,
            workers=args.workers or usable_cores(),
            voice_activity=not args.no_vad,
            limits=Limits(**{name: getattr(args, name) for name in _LIMITS}),
        )
    )
    return OK


def _serve_parser() -> Parser:
    from wavasr.serving.settings import DEFAULT_PORT, WYOMING_PORT, Limits

    parser = Parser(
        prog="wavasr serve",
        description="A server that recognises speech: a page for browsers, and the protocols of OpenAI (transcription "
        "and realtime), Wyoming (Home Assistant) and vosk. It answers to this machine only, unless --host says more.",
        epilog="""\
examples:
  wavasr serve
  curl -F file=@talk.mp3 http://127.0.0.1:8000/v1/audio/transcriptions
  wavasr serve --model runs/an4/model.wavasr --port 8001
  WAVASR_API_KEY=secret wavasr serve --host 0.0.0.0""",
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="A", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=count, default=DEFAULT_PORT, metavar="N", help="0: any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--wyoming-port",
        type=count,
        default=WYOMING_PORT,
        metavar="N",
        help="of the Wyoming protocol; 0: none (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]MODEL",
        help="a model to offer, may be repeated; the first is used where clients name none (default: default)",
    )
    parser.add_argument("--strict-models", action="store_true", help="refuse model names that are not offered")
    parser.add_argument(
        "--api-key", action="append", default=[], metavar="KEY", help="clients must send one (also: WAVASR_API_KEY)"
    )
    parser.add_argument("--insecure", action="store_true", help="serve other machines without a key")
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="whose pages may connect, besides its own"
    )
    parser.add_argument(
        "--workers", type=count, default=0, metavar="N", help="processes that recognise (default: one per core)"
    )
    parser.add_argument("--no-vad", action="store_true", help="decode all sound, not only what may be speech")
    limits, usual = parser.add_argument_group("limits"), Limits()
    for name, text in _LIMITS.items():
        option, default = f"--{name.replace('_', '-')}", getattr(usual, name)
        limits.add_argument(
            option, type=type(default), default=default, metavar="N", help=f"{text} (default: %(default)g)"
        )
    return parser


def listen(arguments: list[str]) -> int:
    """The command `wavasr listen`."""
    parser = Parser(
        prog="wavasr listen",
        description="Live captions: what is said into the microphone, as text, while it is said. Space pauses, q ends.",
        epilog="""\
examples:
  wavasr listen
  wavasr listen --output meeting.srt
  wavasr listen --input talk.mp3
  arecord -q -f S16_LE -r 16000 -t raw | wavasr listen --input -""",
    )
    parser.add_argument("--devices", action="store_true", help="list the microphones")
    parser.add_argument("--device", default="", metavar="N", help="number of a microphone, or a part of its name")
    parser.add_argument("--input", metavar="FILE", help="a recording instead of a microphone; -: raw 16-bit samples")
    parser.add_argument("--rate", type=count, default=16000, metavar="HZ", help="of the samples (default: %(default)s)")
    parser.add_argument("--real-time", action="store_true", help="take --input as slowly as it was said")
    add_model(parser)
    parser.add_argument("--hotword", action="append", default=[], metavar="W", help="a word or phrase to expect")
    parser.add_argument("--no-vad", action="store_true", help="decode all sound, not only what may be speech")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="also write a file: .txt .srt .vtt .json .tsv"
    )
    args = parser.parse_args(arguments)
    configure_logging()
    format = args.output.suffix.removeprefix(".").lower() if args.output else "txt"
    if format not in _CAPTION_FORMATS:
        raise ConfigError(f"--output {args.output}: expected a name that ends in .{', .'.join(_CAPTION_FORMATS)}")
    if args.input is None or args.devices:
        require("sounddevice")
    from wavasr.decoding.config import DecodingConfig
    from wavasr.files import check_writable
    from wavasr.recognition.stream import Stream
    from wavasr.serving import microphone
    from wavasr.serving.captions import Captions, caption
    from wavasr.serving.samples import checked_rate

    if args.devices:
        print("\n".join(microphone.devices()) or "no microphone was found")
        return OK
    if args.output:
        check_writable(args.output)
    rate = checked_rate(args.rate)
    stream = Stream(args.model, rate, decoder=DecodingConfig(hotwords=tuple(args.hotword), vad=not args.no_vad))
    if args.input is None:
        blocks = microphone.microphone(args.device, rate)
    else:
        blocks = microphone.stand_in(args.input, rate, args.real_time)
    with microphone.keys() as keys:
        caption(blocks, stream, rate, Captions(sys.stdout, sys.stdout.isatty(), args.output, format), keys)
    return OK


_CAPTION_FORMATS = ("txt", "srt", "vtt", "json", "tsv")
_LIMITS = {  # of `serving.settings.Limits`
    "upload_mb": "largest upload in MB",
    "audio_s": "longest recording in seconds",
    "queue": "uploads that may wait; more get 429",
    "sessions": "live sessions; more are refused",
    "session_s": "longest live session in seconds",
    "idle_s": "seconds after which a silent client is disconnected",
}


def _named(models: list[str]) -> dict[str, str]:
    """Models by name, of `name=file` or a file or shipped name, which is then called by its stem."""
    found: dict[str, str] = {}
    for text in models or ["default"]:
        name, separator, place = text.partition("=")
        found[name if separator and place else Path(text).stem] = place if separator and place else text
    return found
