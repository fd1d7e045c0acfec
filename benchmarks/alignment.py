"""How well forced alignment finds word and phone boundaries, against TIMIT's hand-made .WRD and .PHN.

    python benchmarks/alignment.py ROOT [--model default] [--part TRAIN] [--tails] [--figures FILE.json]

ROOT holds TIMIT in the layout of its disc: the corpus, or a sample of it. Prints the distribution of absolute errors in
ms as a Markdown table. A phone model without a lexicon is measured on phones, others on words. `--tails` tries how
long a word should last after its last label (`decoding.times.TAIL_S`): on the TRAIN speakers, to keep TEST unseen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import wavasr.decoding.times
from wavasr.decoding.times import Word
from wavasr.errors import TextError
from wavasr.files import write_whole
from wavasr.language.lexicon import PHONE_SETS, fold_phone
from wavasr.language.text import normalise
from wavasr.network.recognizer import Recognizer, load_model
from wavasr.recognition.align import AlignedText, align, lexicon_of

RATE = 16000
TAILS_S = (0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.3, 0.4)


@dataclass(frozen=True)
class Sentence:
    """A recording, its words or phones with their times by hand, and whether it lies under TRAIN or TEST."""

    audio: Path
    part: str
    spoken: list[Word]


@dataclass(frozen=True)
class Boundaries:
    """Found minus true times of starts, ends and both, in ms."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]

    @property
    def both(self) -> NDArray[np.float64]:
        return np.concatenate([self.starts, self.ends])


def sentences(root: Path, model: Recognizer) -> Iterator[Sentence]:
    """Every recording with the file of times that the model's units ask for, as the model spells it."""
    suffix = ".wrd" if times_words(model) else ".phn"
    for times in sorted(path for path in root.rglob("*") if path.suffix.lower() == suffix):
        audio = next(p for p in times.parent.iterdir() if p.stem == times.stem and p.suffix.lower() == ".wav")
        part = next((name for name in ("TRAIN", "TEST") if name in map(str.upper, times.parts)), "")
        rows = [line.split() for line in times.read_text(encoding="ascii").splitlines() if line.strip()]
        spoken = [Word(spelled(row[2], model), int(row[0]) / RATE, int(row[1]) / RATE, 1.0) for row in rows]
        yield Sentence(audio, part, [word for word in spoken if word.word])


def times_words(model: Recognizer) -> bool:
    """Whether words are aligned: by models that spell, and by phone models with a lexicon."""
    return not model.units.is_phones or lexicon_of(model) is not None


def spelled(symbol: str, model: Recognizer) -> str:
    """A word or phone as the model writes it; "" where it leaves it out (TIMIT's `q`)."""
    units = model.units
    if times_words(model):
        # A model that lacks the apostrophe spells "don't" as "dont": one word, as it is in the reference.
        text = normalise(symbol, model.text)
        has_apostrophe = "'" in units.symbols or units.kind in ("sentencepiece", "phones")
        return text if has_apostrophe else text.replace("'", "")
    size = next((size for size in (39, 48, 61) if set(units.symbols[1:]) <= set(PHONE_SETS[size])), 61)
    return fold_phone(symbol, size) or ""


def measured(sentence: Sentence, model: Recognizer) -> AlignedText:
    """The words found, one for one with those by hand.

    Raises:
        TextError: the model cannot spell them, or spells one as two.
    """
    found = align(sentence.audio, " ".join(word.word for word in sentence.spoken), model)
    if [word.word for word in found.words] != [word.word for word in sentence.spoken]:
        raise TextError(f"{sentence.audio}: its words are not one for one with those of the model")
    return found


def errors(pairs: list[tuple[AlignedText, Sentence]]) -> Boundaries:
    """Found minus true times over all words."""
    both = [words for found, sentence in pairs for words in zip(found.words, sentence.spoken, strict=True)]
    starts = np.array([1000 * (ours.start_s - theirs.start_s) for ours, theirs in both])
    return Boundaries(starts, np.array([1000 * (ours.end_s - theirs.end_s) for ours, theirs in both]))


def row(name: str, signed: NDArray[np.float64]) -> tuple[str, dict[str, float]]:
    """A line of the table, and its figures."""
    size = np.abs(signed)
    figures = {
        "boundaries": len(size),
        "median_ms": float(np.median(size)),
        "mean_ms": float(size.mean()),
        "p90_ms": float(np.quantile(size, 0.9)),
        "within_20_ms": float(np.mean(size <= 20)),
        "within_40_ms": float(np.mean(size <= 40)),
        "within_100_ms": float(np.mean(size <= 100)),
        "bias_ms": float(np.median(signed)),
    }
    shares = " | ".join(f"{100 * figures[f'within_{limit}_ms']:.0f} %" for limit in (20, 40, 100))
    line = (
        f"| {name} | {len(size):,} | {figures['median_ms']:.0f} | {figures['mean_ms']:.0f} | {figures['p90_ms']:.0f} | "
        f"{shares} | {figures['bias_ms']:+.0f} |"
    )
    return line, figures


def tails(pairs: list[tuple[AlignedText, Sentence]]) -> None:
    """Print the error of word ends, found without a tail, for several tails; each is cut off by the next word."""
    print("\n| tail, s | median error of the end, ms | mean |\n|---|---|---|")
    for tail_s in TAILS_S:
        off = []
        for found, sentence in pairs:
            limits = [*(word.start_s for word in found.words[1:]), found.duration_s]
            off += [
                1000 * abs(min(word.end_s + tail_s, limit) - truth.end_s)
                for word, limit, truth in zip(found.words, limits, sentence.spoken, strict=True)
            ]
        print(f"| {tail_s:g} | {np.median(off):.0f} | {np.mean(off):.0f} |")


def main() -> int:
    """Align everything and print the table."""
    parser = argparse.ArgumentParser(description="Errors of word and phone boundaries on TIMIT.")
    parser.add_argument("root", type=Path, help="TIMIT in the layout of its disc")
    parser.add_argument("--model", default="default", help="a model file or a shipped name")
    parser.add_argument("--part", choices=("TRAIN", "TEST"), help="only these speakers (default: both)")
    parser.add_argument("--tails", action="store_true", help="try tails of words on the speakers under TRAIN")
    parser.add_argument("--figures", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    model = load_model(args.model)
    found = [s for s in sentences(args.root, model) if not args.part or s.part == args.part]
    if args.tails:
        found = [s for s in found if s.part == "TRAIN"]
        wavasr.decoding.times.TAIL_S = 0.0
    pairs, left_out = [], []
    for sentence in tqdm(found, unit="sentence", disable=not sys.stderr.isatty()):
        try:
            pairs.append((measured(sentence, model), sentence))
        except TextError as error:
            left_out.append(str(error))
    if not pairs:
        print(left_out[0] if left_out else f"{args.root}: no recordings with times", file=sys.stderr)
        return 2
    kind = "words" if times_words(model) else "phones"
    print(f"{args.model}: {kind} of {len(pairs)} sentences; {len(left_out)} left out\n")
    if args.tails:
        tails(pairs)
        return 0
    measure = errors(pairs)
    print("| boundary | number | median, ms | mean | 90 % below | within 20 ms | 40 ms | 100 ms | median, signed |")
    print("|---|---|---|---|---|---|---|---|---|")
    figures = {}
    for name, signed in (("start", measure.starts), ("end", measure.ends), ("both", measure.both)):
        line, figures[name] = row(name, signed)
        print(line)
    if args.figures:
        record = {"model": args.model, "sentences": len(pairs), **figures}
        write_whole(args.figures, json.dumps(record).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
