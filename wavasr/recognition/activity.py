"""Voice activity: where in a recording somebody speaks, found while the samples come (no torch).

    samples -> level -> windows of 32 ms -> silero's network -> probabilities of speech -> utterances

The network is silero's (MIT, see assets/silero-vad.LICENSE.txt), run by onnxruntime. The probability of a window
depends on the samples before it alone, and not on how they were cut into pieces.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from wavasr.audio.reading import Samples
from wavasr.errors import ModelError
from wavasr.network.files import asset
from wavasr.network.session import new_session

Floats = NDArray[np.float32]

RATE = 16000
WINDOW = 512  # samples
# A recording as short as this is a word that somebody cut out, too tightly perhaps for the network to notice; a longer
# one is kept whole where the network, which has to settle first, was unsure.
SHORT_S, UNSURE_S, UNSURE = 1.5, 3.0, 0.4
_CONTEXT = 64  # samples before a window that the network gets too
_BLOCK = 1000  # windows in one call

# The level at which speech is usual: quiet recordings are raised to it. Loud ones the network takes as they are.
_USUAL_LEVEL = 10 ** (-35 / 20)
_MOST_GAIN = 10 ** (46 / 20)
_DECAY = 10 ** (-0.5 / 20)  # of the level a second


@dataclass(frozen=True)
class ActivityConfig:
    """When somebody is taken to speak. Chosen on LibriSpeech's and speechocean762's dev sets and ESC-10.

    Attributes:
        begin: the probability of a window at which an utterance begins.
        go_on: the probability down to which it goes on.
        pause_s: so long without speech ends it.
        sure: the probability of a window that is certainly speech.
        least_s: with fewer windows of certain speech it is none.
        before_s: what belongs to it before the first window.
        after_s: what belongs to it after the last window.
    """

    begin: float = 0.5
    go_on: float = 0.35
    pause_s: float = 0.7
    sure: float = 0.7
    least_s: float = 0.15
    before_s: float = 0.6
    after_s: float = 0.32


@functools.cache
def _session() -> Any:
    path = asset("silero-vad.onnx")
    try:
        graph = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); install wavasr again") from error
    return new_session(graph, str(path), threads=1)  # its products are too small to share


class SpeechProbability:
    """The probability of speech in each window of 32 ms: (S,) samples pushed -> (N,) of the windows complete."""

    def __init__(self, sample_rate: int = RATE) -> None:
        self._resampler = None if sample_rate == RATE else soxr.ResampleStream(sample_rate, RATE, 1, "float32", "HQ")
        self._held = np.zeros(_CONTEXT, np.float32)
        self._state = [np.zeros((1, 1, 128), np.float32) for _ in range(2)]
        self._level = _Level()

    def push(self, samples: Samples, last: bool = False) -> Floats:
        """Add samples; the windows that they complete, at the `last` also the one that they begin."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(np.ascontiguousarray(samples), last=last)
        if last:
            missing = -(len(self._held) + len(samples) - _CONTEXT) % WINDOW
            samples = np.concatenate([samples, np.zeros(missing, np.float32)])
        self._held = np.concatenate([self._held, samples])
        count = (len(self._held) - _CONTEXT) // WINDOW
        found = []
        for start in range(0, count, _BLOCK):
            end = min(count, start + _BLOCK)
            piece = self._held[start * WINDOW : end * WINDOW + _CONTEXT]
            size = piece.itemsize  # `sliding_window_view` takes as long for a few windows as the network
            windows = np.ndarray((end - start, WINDOW + _CONTEXT), piece.dtype, piece, 0, (WINDOW * size, size))
            inputs = {"input": self._level(windows), "h": self._state[0], "c": self._state[1]}
            probabilities, *self._state = _session().run(["speech_probs", "hn", "cn"], inputs)
            found.append(probabilities)
        self._held = self._held[count * WINDOW :].copy()
        return np.concatenate(found) if found else np.zeros(0, np.float32)


class _Level:
    """Raises quiet recordings to a usual level, and takes a constant offset away, window by window, causally."""

    def __init__(self) -> None:
        self._loudest = 0.0  # root mean square of the loudest window, which is forgotten slowly

    def __call__(self, windows: Floats) -> Floats:
        """(N, 576) -> (N, 576)."""
        offset = windows.mean(axis=1, keepdims=True)
        levels = np.sqrt(np.mean((windows - offset) ** 2, axis=1, dtype=np.float64))
        decay = _DECAY ** (WINDOW / RATE)
        gains = np.empty(len(levels), np.float32)
        for index, level in enumerate(levels.tolist()):
            self._loudest = max(level, self._loudest * decay)
            gains[index] = min(max(1.0, _USUAL_LEVEL / max(self._loudest, 1e-9)), _MOST_GAIN)
        return np.ascontiguousarray((windows - offset) * gains[:, None])


@dataclass
class Utterance:
    """Speech between two pauses, in frames of the model.

    Attributes:
        first: its first frame.
        known: the end of the frames that belong to it for certain.
        ended: whether these are all.
    """

    first: int
    known: int
    ended: bool = False


class Utterances:
    """The utterances of a recording whose samples are pushed as they come.

    Args:
        sample_rate: of the samples, in Hz.
        hop_samples: samples of a frame.
        config: when somebody is taken to speak; None: always.

    Attributes:
        found: those that nobody has taken out yet; all but the last have ended.
    """

    def __init__(self, sample_rate: int, hop_samples: int, config: ActivityConfig | None) -> None:
        self._frames_a_second = sample_rate / hop_samples
        self._config = config
        self._probability = SpeechProbability(sample_rate)
        self._window = 0  # the number of the next one
        self._spoken = 0  # windows of certain speech in the current utterance
        self._current: Utterance | None = None
        self._last = 0  # the window after its last one of speech
        self._free = 0  # the frame after the last utterance
        self._spoke = False
        self._likeliest = 0.0
        self.found: deque[Utterance] = deque([] if config else [Utterance(0, 0)])

    def push(self, samples: Samples, frames: int, last: bool = False) -> None:
        """Add samples, (S,) float32, with which there are so many frames; with the `last` all utterances end."""
        if self._config is None:
            self.found[-1].known, self.found[-1].ended = frames, last
            return
        for probability in self._probability.push(samples, last).tolist():
            self._add(probability, self._config)
        if last:
            self._end()
            longest_s = UNSURE_S if self._likeliest >= UNSURE else SHORT_S
            if not self._spoke and 0 < frames <= longest_s * self._frames_a_second:
                self.found.append(Utterance(0, frames, ended=True))
            for utterance in self.found:
                utterance.known = min(utterance.known, frames)

    def _add(self, probability: float, config: ActivityConfig) -> None:
        start_s, self._window = self._window * WINDOW / RATE, self._window + 1
        end_s = self._window * WINDOW / RATE
        self._likeliest = max(self._likeliest, probability)
        if self._current is None and probability >= config.begin:
            first = max(self._free, int((start_s - config.before_s) * self._frames_a_second))
            self._current, self._spoken = Utterance(first, first), 0
        if self._current is None:
            return
        if probability >= config.go_on:
            self._last = self._window
            self._current.known = int((end_s + config.after_s) * self._frames_a_second)
        elif (self._window - self._last) * WINDOW / RATE >= config.pause_s:
            self._end()
            return
        before = self._spoken * WINDOW / RATE
        self._spoken += probability >= config.sure
        if before < config.least_s <= self._spoken * WINDOW / RATE:
            self.found.append(self._current)
            self._spoke = True

    @property
    def earliest(self) -> int:
        """The first frame that an utterance to come may have."""
        if self._current is not None:
            return self._current.first
        if not self._spoke and self._window * WINDOW / RATE <= UNSURE_S:
            return 0
        before_s = self._config.before_s if self._config else 0.0
        return max(self._free, int((self._window * WINDOW / RATE - before_s) * self._frames_a_second))

    def _end(self) -> None:
        if self._current is not None:
            self._current.ended = True
            self._free = self._current.known
            self._current = None
