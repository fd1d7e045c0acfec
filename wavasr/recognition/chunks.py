"""Samples to log-probabilities, in chunks or as they come.

    samples -> windows -> network -> log-probabilities
    (P,)       (W,)                  (T, V)

A window is a chunk with as many samples before and after it as a frame sees, so the log-probabilities are those of one
pass over the whole recording. Nothing that has been dealt with is kept, so memory does not grow with the recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavasr.audio.reading import Samples
from wavasr.network.halves import Halves
from wavasr.network.runtime import AcousticModel

Floats = NDArray[np.float32]

CHUNK_S = 20.0
LEVEL_SAMPLES = 512
# Root mean square of the loudest of such windows in an utterance's first second: outside this range word errors rise.
QUIETEST, USUAL, LOUDEST = 0.03, 0.1, 1.0
MOST_GAIN = 1000.0


@dataclass(frozen=True)
class ChunkPlan:
    """How long audio is cut, in samples, all multiples of the hop.

    |- before -|------------ chunk ------------|- after -|      a window; its chunk's frames are kept
                                    |- before -|------------ chunk ------------|- after -|
    """

    before: int
    chunk: int
    after: int

    @classmethod
    def of(cls, model: AcousticModel) -> ChunkPlan:
        """The plan of a model: its receptive field around chunks of about 20 s."""
        hop = model.hop_samples
        before, after = (math.ceil(samples / hop) * hop for samples in model.receptive_field)
        return cls(before, frames_in(CHUNK_S, model) * hop, after)

    @property
    def window(self) -> int:
        """Samples that the network gets at once."""
        return self.before + self.chunk + self.after


def frames_in(seconds: float, model: AcousticModel) -> int:
    """So many frames, rounded up."""
    return math.ceil(seconds * model.sample_rate / model.hop_samples)


def seconds_of(frames: int, model: AcousticModel) -> float:
    """How long frames last."""
    return frames * model.hop_samples / model.sample_rate


class LevelChange(NamedTuple):
    """What brings speech to a usual level: an offset that is taken away, and a factor."""

    offset: float = 0.0
    gain: float = 1.0

    def __call__(self, samples: Samples) -> Samples:
        """(S,) -> (S,)."""
        if self == SAME:
            return samples
        return (samples - np.float32(self.offset)) * np.float32(self.gain)

    @classmethod
    def of(cls, samples: Samples) -> LevelChange:
        """What the beginning of an utterance, (S,), asks for; nothing where it is usual."""
        count = len(samples) // LEVEL_SAMPLES
        if not count:
            return SAME
        offset = float(samples.mean(dtype=np.float64))
        windows = samples[: count * LEVEL_SAMPLES].reshape(count, LEVEL_SAMPLES) - np.float32(offset)
        loudest = float(np.sqrt(np.mean(windows**2, axis=1, dtype=np.float64)).max())
        usual = loudest <= 0.0 or QUIETEST <= loudest <= LOUDEST
        gain = 1.0 if usual else USUAL / max(loudest, USUAL / MOST_GAIN)
        return cls(offset if abs(offset) > max(0.1 * loudest, 1e-5) else 0.0, gain)


SAME = LevelChange()


class Posteriors:
    """The log-probabilities of samples that are pushed as they come, from the first frame that is not taken yet.

    Attributes:
        samples: how many were pushed.
        taken: the first frame that has neither been taken nor skipped.
    """

    def __init__(self, model: AcousticModel) -> None:
        self._model = model
        self._hop = model.hop_samples
        self._plan = ChunkPlan.of(model)
        self._held = np.zeros(0, np.float32)
        self._first = 0  # the frame at whose first sample `_held` begins
        self._ended = False
        self._kept: int | None = None
        self.samples = 0
        self.taken = 0
        self._level = SAME
        self._halves: Halves | None = getattr(model, "halves", None)
        self._features: Floats | None = None  # of the level, from a frame on
        self._features_first = 0

    @property
    def level(self) -> LevelChange:
        """What is done to the samples before the network gets them."""
        return self._level

    @level.setter
    def level(self, level: LevelChange) -> None:
        if level != self._level:
            self._level, self._features = level, None

    def push(self, samples: Samples) -> None:
        """Add (S,) float32 at the model's rate."""
        self._held = np.concatenate([self._held, samples])
        self.samples += len(samples)

    def end(self) -> None:
        """No samples will follow."""
        self._ended = True

    @property
    def complete(self) -> int:
        """The end of the frames whose right context has come."""
        if self._ended:
            return math.ceil(self.samples / self._hop)
        return max(0, self.samples - self._plan.after) // self._hop

    def take(self, end: int) -> Iterator[Floats]:
        """The next frames until `end`, which is at most `complete`, in chunks: (t, V) each."""
        while self.taken < end:
            stop = min(end, self.taken + self._plan.chunk // self._hop)
            yield self._run(stop * self._hop + self._plan.after)[: stop - self.taken]
            self.skip(stop)

    def take_with_preview(self, end: int) -> tuple[Floats, Floats]:
        """The next frames until `end`, and those behind them as far as there are samples, as if none followed."""
        values = self._run(self.samples)
        count = max(0, min(end, self.complete) - self.taken)
        self.skip(self.taken + count)
        return values[:count], values[count:]

    def keep(self, frame: int | None) -> None:
        """Forget no samples from this frame on; None: those that are needed no more."""
        self._kept = frame

    def samples_between(self, first: int, end: int) -> Samples:
        """The samples of frames that have not been forgotten, at their own level."""
        return self._held[max(0, first - self._first) * self._hop : (end - self._first) * self._hop]

    def skip(self, frame: int) -> None:
        """Go on at a frame; what is before it and its left context is forgotten."""
        self.taken = max(self.taken, frame)
        needed = max(0, self.taken - self._plan.before // self._hop)
        dropped = (needed if self._kept is None else min(needed, self._kept)) - self._first
        if dropped > 0:
            self._held = self._held[dropped * self._hop :].copy()
            self._first += dropped

    def _run(self, stop: int) -> Floats:
        """The frames from `taken` on, of the samples before `stop`."""
        stop = min(stop, self.samples)
        if self._halves is not None:
            start = max(0, self.taken - self._halves.back_reach[0])
            features = self._features_between(self._halves, start, stop)
            if not len(features):
                return np.zeros((0, len(self._model.units)), np.float32)
            return self._halves.back(features)[self.taken - start :]
        start = max(0, self.taken - self._plan.before // self._hop)
        window = self._window(start, stop)
        if not len(window):
            return np.zeros((0, len(self._model.units)), np.float32)
        return forward(self._model, [self.level(window)])[0][self.taken - start :]

    def _window(self, first: int, stop: int) -> Samples:
        """The samples from a frame on, before `stop`."""
        return self._held[(first - self._first) * self._hop : stop - self._first * self._hop]

    def _features_between(self, halves: Halves, start: int, stop: int) -> Floats:
        """The features from a frame on, of the samples before `stop`. Those that no further sample changes are kept."""
        held, first = self._features, self._features_first
        if held is None or not first <= start <= first + len(held):
            kept, end = None, start
        else:
            kept, end = held[start - first :], first + len(held)
        every = kept if kept is not None else np.zeros((0, 0), np.float32)
        if stop > end * self._hop:
            before, after = halves.front_reach
            begin = max(0, end - before)
            new = halves.front(self.level(self._window(begin, stop)))[end - begin :]
            certain = max(0, stop // self._hop - after - end)
            every = new if kept is None else np.concatenate([kept, new])
            self._features_first, self._features = start, every[: end - start + certain]
        return every


def log_probs_of(model: AcousticModel, waveform: Samples) -> Floats:
    """Log-probabilities of one waveform of any length: (S,) float32 at the model's rate -> (T, V), as in one pass."""
    parts = list(stream_log_probs(model, [waveform]))
    return np.concatenate(parts) if parts else np.zeros((0, len(model.units)), np.float32)


def stream_log_probs(model: AcousticModel, pieces: Iterable[Samples]) -> Iterator[Floats]:
    """Log-probabilities of a stream of samples: the (t, V) that this yields, joined, are those of one pass.

    Args:
        model: in eval mode.
        pieces: consecutive stretches of one recording, each (P,) float32 of any length, at the model's rate.
    """
    posteriors = Posteriors(model)
    chunk = ChunkPlan.of(model).chunk // model.hop_samples
    for piece in pieces:
        posteriors.push(piece)
        if posteriors.complete - posteriors.taken >= chunk:
            yield from posteriors.take(posteriors.complete)
    posteriors.end()
    yield from posteriors.take(posteriors.complete)


def forward(model: AcousticModel, waveforms: Sequence[Samples]) -> list[Floats]:
    """(S_i,) each -> (T_i, V) each."""
    batch = np.zeros((len(waveforms), max(map(len, waveforms))), dtype=np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    lengths = np.array([len(waveform) for waveform in waveforms], dtype=np.int64)
    log_probs, frames = model.infer(batch, lengths)  # (B, T, V), (B,)
    return [values[:count] for values, count in zip(log_probs, frames, strict=True)]
