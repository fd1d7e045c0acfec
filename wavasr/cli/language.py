"""`wavasr lm`: language models made and tuned; `wavasr pronounce`: words for lexicons."""

from __future__ import annotations

import sys
from pathlib import Path

from wavasr.cli.console import (
    BAD_INPUT,
    OK,
    complain,
    configure_logging,
    did_you_mean,
    help_stream,
    tell_about,
    tell_written,
)
from wavasr.cli.options import Parser, add_language_model, add_manifest, add_model, count
from wavasr.errors import ConfigError, TextError

LM_HELP = """\
usage: wavasr lm build TEXT ... -o LM.arpa [options]
       wavasr lm tune --model M --manifest DEV.jsonl --lm LM.arpa [options]

Language models for transcribe and evaluate.

  build  estimate an n-gram model from text, and prune it
  tune   choose its weight and the word score on a dev set

examples:
  wavasr lm build books.txt.xz -o lm.arpa.gz --words 60000 --ngrams 2000000
  wavasr lm tune --manifest dev.jsonl --lm lm.arpa.gz
  wavasr lm build --help
"""


def lm(arguments: list[str]) -> int:
    """`wavasr lm`: make a language model, or choose its weights."""
    verbs = {"build": _lm_build, "tune": _lm_tune}
    if arguments and arguments[0] in verbs:
        return verbs[arguments[0]](arguments[1:])
    if arguments and arguments[0] not in ("-h", "--help"):
        hint = did_you_mean(arguments[0], verbs) or "; expected build or tune"
        complain(f"unknown command {arguments[0]!r} of wavasr lm{hint}; see wavasr lm --help")
        return BAD_INPUT
    print(LM_HELP, end="", file=help_stream(arguments))
    return OK if arguments else BAD_INPUT


def _lm_build(arguments: list[str]) -> int:
    args = _lm_build_parser().parse_args(arguments)
    configure_logging()
    from wavasr.files import check_writable
    from wavasr.language.arpa import write_arpa
    from wavasr.language.lexicon import read_words
    from wavasr.language.ngrams import estimate
    from wavasr.language.pruning import prune
    from wavasr.language.sentences import read_sentences
    from wavasr.network.files import spelling_of

    check_writable(args.output)
    progress = sys.stderr.isatty()
    sentences = read_sentences(args.texts, spelling_of(args.model, args.phones), progress=progress)
    model = estimate(
        sentences,
        order=args.order,
        words=args.words,
        vocabulary=read_words(args.vocabulary) if args.vocabulary else (),
        drop_singletons=args.drop_singletons,
    )
    model = prune(model, args.prune, args.ngrams)
    write_arpa(model, args.output, progress=progress)
    sizes = ", ".join(f"{size} {length}-grams" for length, size in enumerate(model.sizes, 1))
    tell_written(args.output, f"{args.output}: {sizes}")
    return OK


def _lm_build_parser() -> Parser:
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
    parser.add_argument("--order", type=count, default=3, metavar="N", help="longest n-gram (default: %(default)s)")
    parser.add_argument(
        "--words", type=count, default=0, metavar="N", help="only the N most frequent words (default: all)"
    )
    parser.add_argument(
        "--vocabulary", type=Path, metavar="F", help="only the words of this list or lexicon (default: any)"
    )
    parser.add_argument(
        "--drop-singletons",
        action="store_true",
        help="count, but do not store, n-grams of three words and more that occur once: for more text than memory\n"
        "(200 million words: 6 GB)",
    )
    parser.add_argument(
        "--prune",
        type=float,
        default=0.0,
        metavar="T",
        help="leave out what raises the perplexity by less than this share, e.g. 1e-7 (default: keep all)",
    )
    parser.add_argument("--ngrams", type=count, default=0, metavar="N", help="prune to N n-grams of two words and more")
    parser.add_argument(
        "--model", default="default", metavar="MODEL", help="whose spelling the text gets (default: %(default)s)"
    )
    parser.add_argument(
        "--phones", action="store_true", help="the texts are phones: for phone models without a lexicon"
    )
    return parser


def _lm_tune(arguments: list[str]) -> int:
    parser = Parser(
        prog="wavasr lm tune",
        description="Choose a language model's weight, the word score and the blank penalty on a dev set: the fewest\n"
        "errors of a grid. Prints the table, and writes the choice into the model file, with the language model and\n"
        "the lexicon where they are given.",
        epilog="examples:\n"
        "  wavasr lm tune --model runs/an4/model.wavasr --manifest dev.jsonl --lm an4.arpa\n"
        "  wavasr lm tune --model timit.wavasr --manifest dev.jsonl --lm lm.arpa --lexicon cmudict.txt -o words.wavasr",
    )
    add_model(parser)
    add_manifest(parser)
    add_language_model(parser)
    parser.add_argument(
        "--beam", type=count, default=0, metavar="N", help="hypotheses of the search (default: as for transcribe)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write a copy of the model instead of changing it"
    )
    args = parser.parse_args(arguments)
    configure_logging()
    from wavasr.cli.models import language_changes, own_file
    from wavasr.corpora.manifest import read_manifest
    from wavasr.decoding.config import DecodingConfig
    from wavasr.decoding.factory import complete, decoder_of
    from wavasr.decoding.search import LMDecoder
    from wavasr.evaluation.tuning import chosen, table, tune
    from wavasr.network.files import change_model
    from wavasr.recognition.models import load_acoustic_model
    from wavasr.recognition.workers import usable_processes

    path = own_file(args.model, args.output)
    config = complete(DecodingConfig(beam=args.beam, lm=args.lm, lexicon=args.lexicon), path)
    changes = language_changes(config, path)
    if config.lm is None:
        raise TextError(f"{args.model}: carries no language model; give one (--lm), made with wavasr lm build")
    utterances = read_manifest(args.manifest)
    model = load_acoustic_model(path)
    decoder = decoder_of(config, model)
    if not isinstance(decoder, LMDecoder):
        return BAD_INPUT  # the reason has been printed
    tuning = tune(model, utterances, decoder, progress=sys.stderr.isatty(), processes=usable_processes())
    output = args.output or path
    tell_about(output, table(tuning))
    changes["decoding"] |= {**chosen(tuning), "manifest": args.manifest.name}
    change_model(path, args.output, **changes)
    tell_written(output)
    return OK


def pronounce(arguments: list[str]) -> int:
    """`wavasr pronounce`: lines of a lexicon."""
    parser = Parser(
        prog="wavasr pronounce",
        description="Print how words are pronounced, as lines of a lexicon. Words that it lacks are guessed as its\n"
        "own words suggest, and marked: correct them, and append them to a copy of the lexicon, for --lexicon.\n"
        "wavasr export --lexicon puts one into a model.",
        epilog="examples:\n"
        "  wavasr pronounce Zarathustra Wodehouse --n-best 3\n"
        "  wavasr pronounce $(cat names.txt) --lexicon cmudict.txt > names.lexicon.txt",
    )
    parser.add_argument("words", nargs="+", metavar="WORD", help="a word")
    add_model(parser)
    parser.add_argument(
        "--lexicon", type=Path, metavar="F", help="whose words are known, as in CMUdict (default: the model's own)"
    )
    parser.add_argument("--n-best", type=count, default=1, metavar="N", help="at most N guesses (default: %(default)s)")
    args = parser.parse_args(arguments)
    from wavasr.decoding.config import DecodingConfig
    from wavasr.decoding.factory import complete
    from wavasr.language.config import TextConfig
    from wavasr.language.lexicon import Lexicon
    from wavasr.language.pronunciation import FEWEST_WORDS, completed
    from wavasr.language.text import normalise
    from wavasr.network.files import resolve

    path = complete(DecodingConfig(lexicon=args.lexicon), resolve(args.model)).lexicon
    if path is None:
        raise ConfigError(f"{args.model}: carries no lexicon; give one (--lexicon)")
    words = normalise(" ".join(args.words), TextConfig()).split()
    known = Lexicon.read(path)
    lexicon = completed(known, words, args.n_best)
    missing = lexicon.missing(words)
    for word in dict.fromkeys(words):
        for number, phones in enumerate([] if word in missing else lexicon[word], 1):
            variant = f"({number})" if number > 1 else ""
            print(
                f"{word}{variant}  {' '.join(phones)}{'' if word in known or word.upper() in known else '  # guessed'}"
            )
    if missing:
        complain(
            f"{missing[0]!r} cannot be pronounced: {path} has none of its letters, or fewer than {FEWEST_WORDS} words "
            "to learn from"
        )
        return BAD_INPUT
    return OK
