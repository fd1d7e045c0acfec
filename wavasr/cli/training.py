"""`wavasr prepare`, `wavasr warmup`, `wavasr fit` and `wavasr adapt`: from recordings to a model."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from wavasr.cli.console import BAD_INPUT, OK, SOME_FAILED, configure_logging, help_stream, require, tell_written
from wavasr.cli.options import Parser, add_language_model, add_model, one_of
from wavasr.cli.recordings import Failures, sources
from wavasr.errors import ConfigError, WavasrError, counted

if TYPE_CHECKING:
    from wavasr.corpora.manifest import Utterance

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as malloc.h names them

_TASKS = {
    "recognise": "wavasr.training.run",
    "generate": "wavasr.training.generate.run",
    "speak": "wavasr.training.speak.run",
}

FIT_HELP = """\
usage: wavasr fit --config FILE.yaml [--KEY VALUE ...] [--resume]

Train a recogniser or, with a recipe of a voice, a generator; at the end the best model is evaluated and the path of
its report printed.

  --config FILE   the recipe: a path, or the bare name of a shipped one:
{recipes}
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
usage: wavasr warmup --data.train JSONL --data.dev JSONL --output FILE [--key value ...]

Warm up a front end: train the first stages of an encoder, without labels, to predict the log-mel spectrum.
Recipes start from the front end that ships with the package; make your own for other recordings or another encoder.

  --data.train JSONL      manifest of audio, or '[a.jsonl, b.jsonl]'; texts are not used
  --data.dev JSONL        manifest of other speakers, to score the front end on
  --output FILE           the front end to write
  --minutes M             how long to train (default: 15)
  --encoder.preset NAME   the encoder whose first stages are warmed up: base (default), swift or paper
  --augment.noise_dir D   noise recordings, mixed in and used alone; --augment.room_dir D: room impulse responses
  --print_config          print every key of the result, each with its meaning, and stop

Keys and --config are as in wavasr fit.

examples:
  wavasr warmup --data.train train.jsonl --data.dev dev.jsonl --output front-end.safetensors
  wavasr fit --config an4.yaml --encoder.init front-end.safetensors
"""


def fit(arguments: list[str]) -> int:
    """`wavasr fit`: everything is passed on to `wavasr.training`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        recipes = textwrap.indent(textwrap.fill(" ".join(shipped_recipes()), 82, break_on_hyphens=False), " " * 18)
        print(FIT_HELP.format(recipes=recipes), end="", file=help_stream(arguments))
        return OK if arguments else BAD_INPUT
    configure_logging()
    require("torch")
    keep_large_memory()
    from wavasr.training.recipe import task_of

    task = task_of(arguments)
    if task not in _TASKS:
        raise ConfigError(f"task is {task!r}; expected one of {', '.join(_TASKS)}")
    train = import_module(_TASKS[task]).main
    return int((train(arguments, draw) if task == "recognise" else train(arguments)) or OK)


def draw(run_dir: Path, examples: Sequence[Utterance]) -> None:
    """The learning curves of a run, and what its model recognises in examples, as pictures in the run's folder.

    Only where matplotlib is installed.
    """
    with contextlib.suppress(ImportError):
        from wavasr.pictures.recording import recording
        from wavasr.pictures.training import learning_curves

        learning_curves(run_dir).savefig(run_dir / "curves.png")
        for number, utterance in enumerate(examples, 1):
            end_s = utterance.offset_s + utterance.duration_s
            with contextlib.suppress(WavasrError):  # of a shard, say
                picture = recording(
                    utterance.audio, model=run_dir / "model.wavasr", start_s=utterance.offset_s, end_s=end_s
                )
                picture.savefig(run_dir / f"example-{number}.png")


def warmup(arguments: list[str]) -> int:
    """`wavasr warmup`: everything is passed on to `wavasr.training`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(WARMUP_HELP, end="", file=help_stream(arguments))
        return OK if arguments else BAD_INPUT
    configure_logging()
    require("torch")
    keep_large_memory()
    from wavasr.training.warmup import main as warm_up

    return warm_up(arguments) or OK


def adapt(arguments: list[str]) -> int:
    """`wavasr adapt`: a model adapted to recordings that nobody has transcribed."""
    parser = Parser(
        prog="wavasr adapt",
        description="Adapt a model to a speaker, a room or a microphone: it recognises the recordings and learns\n"
        "from that; no transcripts are needed. Give recordings of one speaker, some minutes if possible, then\n"
        "transcribe these or others with the new model.",
        epilog="examples:\n"
        "  wavasr adapt lecture.mp3 -o lecturer.wavasr\n"
        "  wavasr transcribe lecture.mp3 --model lecturer.wavasr\n"
        "  wavasr adapt monday/*.wav --model runs/mine/model.wavasr -o mine-monday.wavasr",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recording; - reads one from standard input")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the model file to write")
    add_model(parser)
    add_language_model(parser)
    args = parser.parse_intermixed_args(arguments)
    configure_logging()
    keep_large_memory()
    from wavasr.audio.reading import load_audio
    from wavasr.decoding.config import DecodingConfig
    from wavasr.files import check_writable
    from wavasr.network.files import SUFFIX
    from wavasr.network.recognizer import save_model
    from wavasr.recognition.adapt import adapt as adapted
    from wavasr.recognition.models import opened

    if args.output.suffix.lower() != SUFFIX:
        raise ConfigError(f"--output: {args.output} is no name of a model file; give one in {SUFFIX}")
    check_writable(args.output)
    rate = opened(args.model).sample_rate
    failures = Failures(len(args.files))
    waveforms = []
    for source in sources(args.files, failures):
        try:
            waveforms.append(load_audio(source, rate))
        except (WavasrError, OSError) as error:
            failures.add(source, error)
    if waveforms:
        decoding = DecodingConfig(lm=args.lm, lexicon=args.lexicon)
        model = adapted(waveforms, args.model, decoding, progress=sys.stderr.isatty())
        save_model(model, args.output, half=True)
        tell_written(args.output)
    return failures.exit_code()


def keep_large_memory() -> None:
    """Let this process keep the memory of large tensors from step to step, on Linux; to be called before torch starts.

    Huge pages make steps 5 to 20 % shorter. glibc gives large blocks back to the kernel at once and gets them cleared,
    page by page, in the next step; keeping them saves another 8 to 15 %.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def prepare(arguments: list[str]) -> int:
    """`wavasr prepare`: a corpus on disk to one manifest for each split."""
    from wavasr import corpora
    from wavasr.files import check_writable_folder

    names = "\n".join(f"  {name:<16} {line}" for name, line in corpora.NAMES.items())
    parser = Parser(
        prog="wavasr prepare",
        description=f"Read a corpus, check every recording, write DIR/SPLIT.jsonl for each split.\n\ncorpora:\n{names}",
        epilog="examples:\n"
        "  wavasr prepare librispeech /corpora/LibriSpeech --output manifests\n"
        "  wavasr prepare timit /corpora/TIMIT --option labels=words --output manifests\n"
        "  wavasr prepare folder my-recordings --output manifests",
    )
    parser.add_argument("corpus", metavar="CORPUS", type=one_of(corpora.NAMES), help="how the corpus is laid out")
    parser.add_argument("root", metavar="ROOT", type=Path, help="the corpus's folder, or a manifest for jsonl")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the manifests go")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the layout; may be repeated; a wrong KEY lists the valid ones",
    )
    args = parser.parse_args(arguments)
    configure_logging()
    options = corpora.parse_options(args.corpus, args.option)
    check_writable_folder(args.output)
    corpus = corpora.prepare(args.corpus, args.root, args.output, **options)
    print(corpora.summary(corpus))
    for split in corpus.splits:
        print(args.output / f"{split}.jsonl")
    return SOME_FAILED if corpus.problems else OK


def shipped_recipes() -> list[str]:
    """File names of the recipes in the package (or, in a source tree, beside it), without what they all begin with."""
    package = Path(__file__).resolve().parent.parent
    folder = next((one for one in (package.parent / "configs", package / "configs") if one.is_dir()), package)
    return sorted(path.name for path in folder.glob("*.yaml") if path.name != "base.yaml")


def shard(arguments: list[str]) -> int:
    """`wavasr shard`: the recordings of a manifest to few tar files."""
    parser = Parser(
        prog="wavasr shard",
        description="Copy the recordings of a manifest into tar files that WebDataset and tar read, with an index\n"
        "that every command takes instead of a manifest. DIR may be a URL (s3://bucket/corpus; wavasr[remote]).",
        epilog="examples:\n"
        "  wavasr shard data/librispeech/train.jsonl --output shards/train\n"
        "  wavasr fit --config librispeech.yaml --data.root shards --data.train train\n"
        "  wavasr evaluate --model default --manifest shards/dev",
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="JSON lines with audio and text")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the shards go")
    parser.add_argument("--size", type=float, default=100.0, metavar="MB", help="of a shard (default: %(default)g)")
    args = parser.parse_args(arguments)
    configure_logging()
    from tqdm import tqdm

    from wavasr.corpora.listing import read_listing
    from wavasr.corpora.remote import url_of
    from wavasr.corpora.shards import write_shards
    from wavasr.files import check_writable_folder

    if not args.size > 0:
        parser.error(f"--size is {args.size:g}; expected megabytes above 0")
    if url_of(args.output) is None:
        check_writable_folder(args.output)
    utterances = read_listing([args.manifest])
    shards = 0
    bar = tqdm(utterances, "writing shards", unit=" utterances", disable=None, delay=1)
    for _ in write_shards(bar, args.output, args.size):
        shards += 1
    print(
        f"{url_of(args.output) or args.output}: {counted(len(utterances), 'utterance')} in "
        f"{counted(shards, 'shard')} and index.jsonl"
    )
    return OK
