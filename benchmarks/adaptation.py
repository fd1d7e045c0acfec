"""What `wavasr adapt` gives the speakers of a manifest: word error rates.

    python benchmarks/adaptation.py MANIFEST [--model default] [--unseen] [--epochs N] [--batch-s S] [--learning-rate R]

A model is adapted to each speaker's recordings, without their transcripts, and transcribes them again. With `--unseen`
it is adapted to every second one and transcribes the others, and the other way round. Prints a Markdown table: the
model as it is and adapted, both also with `--thorough`, the interval of the paired difference over utterances, and how
far the words' confidences are from their chance of being right (expected calibration error).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from wavasr.corpora.manifest import Utterance, read_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.decoding.confidence import reliability
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.times import Word
from wavasr.evaluation.metrics import Alignment, ErrorCounts, align_all, bootstrap_ci, paired_bootstrap
from wavasr.language.text import normalise
from wavasr.network.recognizer import save_model
from wavasr.recognition.adapt import AdaptationConfig, adapt
from wavasr.recognition.models import calibration_of, load_acoustic_model
from wavasr.recognition.stretches import words_of
from wavasr.recognition.transcribe import recognise

WAYS = {"": False, ", thorough": True}


def transcripts(model: str | Path, utterances: Sequence[Utterance]) -> dict[str, list[list[Word]]]:
    """The words that a model recognises in each utterance, plainly and thoroughly."""
    acoustic = load_acoustic_model(model)
    waveforms = [load_utterance(utterance, acoustic.sample_rate) for utterance in utterances]
    recognised = {}
    for way, thorough in WAYS.items():
        decode = decoder_of(DecodingConfig(thorough=thorough), acoustic)
        calibration = calibration_of(acoustic, decode)
        results = (recognise(acoustic, [waveform], decode)[0] for waveform in waveforms)
        recognised[way] = [list(words_of(result, acoustic, calibration)) for result in results]
    return recognised


def parts(utterances: Sequence[Utterance], unseen: bool) -> Iterator[tuple[list[Utterance], list[Utterance]]]:
    """What is adapted to, and what is transcribed then: of each speaker."""
    for speaker in sorted({utterance.speaker for utterance in utterances}):
        own = [utterance for utterance in utterances if utterance.speaker == speaker]
        if unseen:
            yield own[::2], own[1::2]
            yield own[1::2], own[::2]
        else:
            yield own, own


def judged(aligned: Sequence[Alignment], hypotheses: Sequence[Sequence[Word]]) -> list[tuple[float, bool]]:
    """How sure the model is of each word that it recognised, and whether the word is right."""
    right = [op.kind == "equal" for alignment in aligned for op in alignment.ops if op.kind != "delete"]
    return list(zip((word.confidence for words in hypotheses for word in words), right, strict=True))


def main() -> int:
    """Adapt to everyone and print the table."""
    parser = argparse.ArgumentParser(description="Word error rates before and after adaptation to each speaker.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--unseen", action="store_true", help="transcribe what was not adapted to")
    parser.add_argument("--epochs", type=int, default=AdaptationConfig.epochs)
    parser.add_argument("--batch-s", type=float, default=AdaptationConfig.batch_s)
    parser.add_argument("--learning-rate", type=float, default=AdaptationConfig.learning_rate)
    args = parser.parse_args()
    config = AdaptationConfig(args.epochs, args.batch_s, args.learning_rate)
    acoustic = load_acoustic_model(args.model)
    references: list[list[str]] = []
    said: dict[str, list[list[Word]]] = {}
    for used, spoken in tqdm(list(parts(read_manifest(args.manifest), args.unseen)), disable=None):
        references += [normalise(utterance.text, acoustic.text).split() for utterance in spoken]
        waveforms = [load_utterance(utterance, acoustic.sample_rate) for utterance in used]
        with tempfile.TemporaryDirectory() as folder:
            adapted = Path(folder) / "adapted.wavasr"
            save_model(adapt(waveforms, args.model, config=config), adapted, half=True)
            for name, model in (("as it is", args.model), ("adapted", adapted)):
                for way, hypotheses in transcripts(model, spoken).items():
                    said.setdefault(name + way, []).extend(hypotheses)
    print("| model | errors | words | WER | 95 % | to the first row | ECE |\n|---|---|---|---|---|---|---|")
    first: list[ErrorCounts] = []
    for name, hypotheses in said.items():
        aligned = align_all(references, [[word.word for word in words] for words in hypotheses])
        each = [alignment.counts for alignment in aligned]
        first = first or each
        total, interval, paired = ErrorCounts.total(each), bootstrap_ci(each), paired_bootstrap(first, each)
        print(
            f"| {name} | {total.errors} | {total.reference} | {100 * total.rate:.1f} % | {100 * interval.low:.1f} to "
            f"{100 * interval.high:.1f} | {100 * paired.interval.low:+.1f} to {100 * paired.interval.high:+.1f} | "
            f"{100 * reliability(judged(aligned, hypotheses)).ece:.1f} % |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
