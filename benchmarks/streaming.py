"""What live streams take of a core: samples pushed in real time by a simulated clock.

    python benchmarks/streaming.py MANIFEST [--every N] [--piece-ms MS] [--streams N --seconds S]
    python benchmarks/streaming.py MANIFEST --equal HOURS

Utterances of a manifest, a pause behind each, are pushed piece by piece into streams that share one core: a piece waits
until the core is free, what has come meanwhile goes with it, and a stream that had to wait long gets no partial text.
Work takes the processor time that it takes here. Prints how long after the end of a word it stood in a partial text,
how long after the last word of an utterance its final text came, what of the stable texts was wrong, and the share of a
core.

With --equal, utterances without pauses between them, as many as last so long, are pushed as fast as they are taken, in
pieces of 1 sample to 5 s, twice with other sizes. Prints memory on the way and whether words, times and confidences are
those of `wavasr.transcribe`; exits with 1 if not.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")

from wavasr.corpora.manifest import read_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.recognition.stream import Event, Final, Partial, Stream
from wavasr.recognition.transcribe import transcribe

PAUSE_S = 2.0
LATE_S = 0.5  # that a piece waited: no partial text this time
RATE = 16000


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
    fed: int = 0
    late: int = 0


@dataclass
class Simulated:
    """One of the streams.

    Attributes:
        samples: (S,) all that it will get.
        begins_s: when its first sample is said.
    """

    samples: np.ndarray
    begins_s: float
    stream: Stream
    given: int = 0
    # When, the words of the utterance so far, how many are stable.
    shown: list[tuple[float, list[str], int]] = field(default_factory=list)
    done: list[Final] = field(default_factory=list)

    def said(self, now_s: float, piece: int) -> int:
        """Samples that have come in whole pieces."""
        return min(len(self.samples), int((now_s - self.begins_s) * RATE / piece + 1e-6) * piece)

    def next_s(self, now_s: float, piece: int) -> float:
        """When there is something to do again."""
        if self.said(now_s, piece) > self.given:
            return now_s
        return self.begins_s + min(len(self.samples), self.given + piece) / RATE + 1e-6

    def note(self, events: list[Event], now_s: float, measured: Measured) -> None:
        """What was recognised."""
        for event in events:
            if isinstance(event, Partial):
                stable = event.stable.split()
                self.shown.append((now_s - self.begins_s, stable + event.volatile.split(), len(stable)))
            elif isinstance(event, Final):
                self.done.append(event)
            else:
                if self.done:
                    judge(self.done, self.shown, now_s - self.begins_s, measured)
                self.shown, self.done = [], []


def simulate(streams: list[Simulated], piece: int, measured: Measured) -> None:
    """All streams on one core."""
    waiting = [(one.next_s(0.0, piece), index) for index, one in enumerate(streams)]
    heapq.heapify(waiting)
    free_s = 0.0
    while waiting:
        sent_s, index = heapq.heappop(waiting)
        one = streams[index]
        free_s = max(free_s, sent_s)
        late = free_s - sent_s > LATE_S
        end = max(one.said(sent_s, piece), min(len(one.samples), one.given + piece))
        began = time.process_time()
        events = one.stream.feed(one.samples[one.given : end], partial=not late)
        took = time.process_time() - began
        one.given, free_s = end, free_s + took
        measured.work_s += took
        measured.longest_s = max(measured.longest_s, took)
        measured.fed += 1
        measured.late += late
        one.note(events, free_s, measured)
        if one.given < len(one.samples):
            heapq.heappush(waiting, (one.next_s(free_s, piece), index))
        else:
            one.note(one.stream.finish(), free_s, measured)
    measured.audio_s += sum(len(one.samples) for one in streams) / RATE


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


def equal(manifest: Path, model: str, hours: float) -> int:
    """Is a long stream what the file is, however it is cut? How many of two are not."""
    recordings = (load_utterance(one, RATE) for one in itertools.cycle(read_manifest(manifest)))
    samples, wanted = np.zeros(round(3600 * hours * RATE), np.float32), 0
    while wanted < len(samples):
        part = next(recordings)[: len(samples) - wanted]
        samples[wanted : wanted + len(part)] = part
        wanted += len(part)
    expected = transcribe(samples, model, sample_rate=RATE).words
    different = 0
    for seed in (1, 2):
        words = tuple(word for final in cut_at_random(samples, model, seed) for word in final.words)
        same = sum(one == other for one, other in zip(words, expected, strict=False))
        print(f"cut with seed {seed}: {len(words)} words, {len(expected)} of the file, {same} equal with times")
        different += words != expected
    return different


def cut_at_random(samples: np.ndarray, model: str, seed: int) -> Iterator[Final]:
    """Final texts of samples in pieces whose lengths are as likely to be short as long."""
    chance, stream, given, told_s = np.random.default_rng(seed), Stream(model), 0, 0.0
    while given < len(samples):
        piece = int(np.exp(chance.uniform(0.0, np.log(5 * RATE))))
        yield from (event for event in stream.feed(samples[given : given + piece]) if isinstance(event, Final))
        given += piece
        if given / RATE >= told_s:
            resident = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
            print(f"{told_s / 60:.0f} min: {int(resident) * os.sysconf('SC_PAGE_SIZE') >> 20} MB", flush=True)
            told_s += 600
    yield from (event for event in stream.finish() if isinstance(event, Final))


def main() -> int:
    """Parse, push, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--every", type=int, default=1, help="take every N-th utterance")
    parser.add_argument("--piece-ms", type=float, default=100.0)
    parser.add_argument("--streams", type=int, default=1, help="at the same time, on one core")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each stream; default: as its utterances last")
    parser.add_argument("--equal", type=float, default=0.0, help="hours: is such a stream what the file is?")
    args = parser.parse_args()
    if args.equal:
        return equal(args.manifest, args.model, args.equal)
    measured = Measured()
    warm = Stream(args.model)
    warm.feed(np.zeros(RATE, np.float32))
    pause = np.zeros(round(PAUSE_S * RATE), np.float32)
    parts = [np.concatenate([load_utterance(one, RATE), pause]) for one in read_manifest(args.manifest)[:: args.every]]
    streams = []
    for number in range(args.streams):
        samples = np.concatenate(parts[number % len(parts) :: args.streams])
        if args.seconds:
            samples = np.resize(samples, round(args.seconds * RATE))
        streams.append(Simulated(samples, number * args.piece_ms / 1000 / args.streams, Stream(args.model)))
    simulate(streams, round(args.piece_ms / 1000 * RATE), measured)
    print(f"{args.streams} streams, {measured.audio_s:.0f} s of audio, {measured.words} words")
    print(f"partial words after they were said: {quantiles(measured.partial_s)}")
    print(f"final texts after the last word: {quantiles(measured.final_s)}, at most {max(measured.final_s):.2f} s")
    print(f"stable words that the final text does not have there: {measured.wrong} of {measured.stable}")
    print(f"pieces without a partial text because they waited: {100 * measured.late / measured.fed:.0f} %")
    share = 100 * measured.work_s / measured.audio_s
    print(f"a stream takes {share:.1f} % of a core; longest step {measured.longest_s:.3f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
