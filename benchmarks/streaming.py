"""What a live stream takes: samples pushed in real time by a simulated clock.

    python benchmarks/streaming.py MANIFEST [--every N] [--piece-ms MS]

Utterances of a manifest, a pause behind each, are pushed piece by piece. A piece arrives when its last sample has been
said; work on it takes as long as it takes here. Prints how long after the end of a word it stood in a partial text, how
long after the last word of an utterance its final text came, what of the stable texts was wrong, and the share of a
core.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")

from wavasr.corpora.manifest import read_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.recognition.stream import Endpoint, Final, Partial, Stream

PAUSE_S = 2.0


@dataclass
class Measured:
    """What came of all streams: delays in seconds, and counts of words."""

    partial_s: list[float] = field(default_factory=list)
    final_s: list[float] = field(default_factory=list)
    words: int = 0
    stable: int = 0
    wrong: int = 0
    audio_s: float = 0.0
    work_s: float = 0.0
    longest_s: float = 0.0


def push(samples: np.ndarray, model: str, piece_s: float, measured: Measured) -> None:
    """One stream in simulated real time."""
    stream, rate = Stream(model), 16000
    piece, free_s = round(piece_s * rate), 0.0
    shown: list[tuple[float, list[str], int]] = []  # when, the words of the utterance so far, how many are stable
    done: list[Final] = []
    for start in range(0, len(samples), piece):
        part = samples[start : start + piece]
        began = time.process_time()
        events = stream.feed(part)
        took = time.process_time() - began
        free_s = max(free_s, (start + len(part)) / rate) + took
        measured.work_s += took
        measured.longest_s = max(measured.longest_s, took)
        for event in events:
            if isinstance(event, Partial):
                stable = event.stable.split()
                shown.append((free_s, stable + event.volatile.split(), len(stable)))
            elif isinstance(event, Final):
                done.append(event)
            elif isinstance(event, Endpoint):
                if done:
                    judge(done, shown, free_s, measured)
                shown, done = [], []
    measured.audio_s += len(samples) / rate
    stream.finish()


def judge(done: list[Final], shown: list[tuple[float, list[str], int]], now_s: float, measured: Measured) -> None:
    """An utterance is over: when did its words come?"""
    words = [word for final in done for word in final.words]
    measured.final_s.append(now_s - words[-1].end_s)
    measured.words += len(words)
    for index, word in enumerate(words):
        first = next((when for when, said, _ in shown if said[index : index + 1] == [word.word]), now_s)
        measured.partial_s.append(first - word.end_s)
    stable = max((said[:count] for _, said, count in shown), key=len, default=[])
    measured.stable += len(stable)
    measured.wrong += sum(said != word.word for said, word in zip(stable, words, strict=False))
    measured.wrong += max(0, len(stable) - len(words))


def quantiles(values: list[float]) -> str:
    """Median and the last tenth."""
    low, high = np.quantile(values, [0.5, 0.9]) if values else (0.0, 0.0)
    return f"median {1000 * low:.0f} ms, 90 % within {1000 * high:.0f} ms"


def main() -> None:
    """Parse, push, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--every", type=int, default=1, help="take every N-th utterance")
    parser.add_argument("--piece-ms", type=float, default=100.0)
    args = parser.parse_args()
    measured = Measured()
    warm = Stream(args.model)
    warm.feed(np.zeros(16000, np.float32))
    for utterance in read_manifest(args.manifest)[:: args.every]:
        samples = np.concatenate([load_utterance(utterance, 16000), np.zeros(round(PAUSE_S * 16000), np.float32)])
        push(samples, args.model, args.piece_ms / 1000, measured)
    print(f"{measured.audio_s:.0f} s of audio, {measured.words} words, pieces of {args.piece_ms:g} ms")
    print(f"partial words after they were said: {quantiles(measured.partial_s)}")
    print(f"final texts after the last word: {quantiles(measured.final_s)}")
    print(f"stable words that the final text does not have there: {measured.wrong} of {measured.stable}")
    print(f"share of a core: {100 * measured.work_s / measured.audio_s:.1f} %; longest step {measured.longest_s:.3f} s")


if __name__ == "__main__":
    main()
