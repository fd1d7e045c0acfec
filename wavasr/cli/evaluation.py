"""`wavasr evaluate` and `wavasr calibrate`: how good a model is, and how sure it should be."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from wavasr.cli.console import OK, SOME_FAILED, complain, configure_logging, tell_about, tell_written
from wavasr.cli.options import Parser, add_decoding, add_manifest, add_model, decoding_config
from wavasr.errors import WavasrError, counted


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
    add_model(parser)
    add_manifest(parser)
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page, and report.json, here")
    parser.add_argument("--with-audio", action="store_true", help="put the sound of the worst utterances into the page")
    parser.add_argument(
        "--compare", type=Path, metavar="REPORT", help="report.json of another system on the same manifest"
    )
    add_decoding(parser)
    args = parser.parse_args(arguments)
    configure_logging()
    from wavasr.network.files import FORMAT, GENERATOR_FORMAT, read_header

    if read_header(args.model, FORMAT, GENERATOR_FORMAT)["format"] == GENERATOR_FORMAT:
        from wavasr.cli.generation import evaluate_generator

        return evaluate_generator(args)
    return _evaluate_recogniser(args, shlex.join(["wavasr", "evaluate", *arguments]))


def _evaluate_recogniser(args: argparse.Namespace, command: str) -> int:
    from wavasr.corpora.manifest import read_manifest
    from wavasr.evaluation import report
    from wavasr.evaluation.evaluate import evaluate as measure
    from wavasr.files import check_writable_folder
    from wavasr.recognition.models import load_acoustic_model
    from wavasr.recognition.workers import usable_processes

    baseline = report.read(args.compare) if args.compare else None
    utterances = read_manifest(args.manifest)
    if baseline is not None:
        known = [u.id for u in baseline.utterances] + [failure.id for failure in baseline.failures]
        report.refuse_other_utterances((u.id for u in utterances), known)
    if args.report:
        check_writable_folder(args.report)
    model = load_acoustic_model(args.model)
    evaluation = measure(
        model,
        utterances,
        decoder=decoding_config(args),
        model_name=args.model,
        manifest=args.manifest,
        command=command,
        progress=sys.stderr.isatty(),
        processes=usable_processes(),
    )
    print(report.summary(evaluation))
    incomparable = ""
    if baseline is not None:
        try:
            print(report.compare(evaluation, baseline))
        except WavasrError as error:
            # A recording could not be read this time, say: the report is written all the same.
            baseline, incomparable = None, str(error)
            complain(incomparable)
    if args.report:
        print(report.write_report(evaluation, args.report, baseline, with_audio=args.with_audio))
    for failure in evaluation.failures:
        complain(failure.message)
    if evaluation.failures:
        total = len(evaluation.failures) + len(evaluation.utterances)
        complain(f"{len(evaluation.failures)} of {counted(total, 'utterance')} failed; they are not in the figures")
    return SOME_FAILED if evaluation.failures or incomparable else OK


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
    add_model(parser)
    add_manifest(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="F", help="write a copy of the model instead of changing it"
    )
    add_decoding(parser)
    args = parser.parse_args(arguments)
    configure_logging()
    from wavasr.cli.models import own_file
    from wavasr.corpora.manifest import read_manifest
    from wavasr.decoding.factory import decoder_of
    from wavasr.evaluation import report
    from wavasr.evaluation.evaluate import calibrate as fit_confidences
    from wavasr.evaluation.evaluate import evaluate as measure
    from wavasr.recognition.models import load_acoustic_model
    from wavasr.recognition.workers import usable_processes

    path = own_file(args.model, args.output)
    utterances = read_manifest(args.manifest)
    model = load_acoustic_model(args.model)
    decode = decoder_of(decoding_config(args), model)
    evaluation = measure(
        model,
        utterances,
        decoder=decode,
        manifest=args.manifest,
        progress=sys.stderr.isatty(),
        processes=usable_processes(),
    )
    calibrated = fit_confidences(evaluation, path, decode.calibration_key, args.output)
    assert calibrated.calibration is not None
    output = args.output or args.model
    tell_about(output, report.fitted(calibrated.calibration))
    tell_written(output)
    for failure in evaluation.failures:
        complain(failure.message)
    return SOME_FAILED if evaluation.failures else OK
