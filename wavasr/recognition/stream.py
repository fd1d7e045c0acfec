"""Live recognition: samples are pushed as they come, events are returned as they are known.

    samples -> network -> log-probabilities -> partial text | stretch that ends in a pause -> final text
    (S,)                  (T, V)

The texts of all `Final` events, joined by spaces, are the transcript.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from wavasr.audio.reading import Samples
from wavasr.decoding.confidence import mean
from wavasr.decoding.times import Word
from wavasr.errors import AudioError
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.transcribe import (
    DEFAULT_DECODER,
    Decoder,
    Floats,
    Plan,
    _forward,
    calibration_of,
    decoder_of,
    opened,
    words_of,
)

_STEP_S = 0.24
_PAUSE_S = 0.5
_LONGEST_S = 20.0


@dataclass(frozen=True)
class Partial:
    """What has been said since the last `Final`, as far as it is known.

    Attributes:
        stable: words that will hardly change; it only grows until the next `Final`.
        volatile: words after those, which may still change.
    """

    stable: str
    volatile: str


@dataclass(frozen=True)
class Final:
    """What was said, not to change any more.

    Attributes:
        text: at least one word.
        words: with times from the start of the stream, and confidences.
        confidence: the mean of the words', 0 to 1.
        start_s: when the first word begins.
        end_s: when the last word ends.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Endpoint:
    """The speaker paused: an utterance ended at `time_s` from the start of the stream."""

    time_s: float


Event = Partial | Final | Endpoint


class Stream:
    """Recognises speech while it is being said.

    Not safe to share between threads; several streams may share a loaded model.

    Args:
        model: a loaded model, a model file, or the name of a shipped model.
        sample_rate: of the samples that are fed, in Hz.
        decoder: as in `transcribe`.
        partials: whether `feed` returns `Partial` events.
    """

    def __init__(
        self,
        model: AcousticModel | str | Path = "default",
        sample_rate: int = 16000,
        *,
        decoder: Decoder = DEFAULT_DECODER,
        partials: bool = True,
    ) -> None:
        if not 1000 <= sample_rate <= 768_000:
            raise AudioError(f"sample_rate is {sample_rate} Hz; expected 1000 to 768000")
        self._model = opened(model)
        self._decode: Any = decoder_of(decoder, model=self._model)
        self._calibration = calibration_of(self._model, self._decode)
        self._partials = partials
        self._resampler = None
        if sample_rate != self._model.sample_rate:
            self._resampler = soxr.ResampleStream(sample_rate, self._model.sample_rate, 1, "float32", "HQ")
        self._plan = Plan.of(self._model)
        self._samples = np.zeros(0, np.float32)  # from `_known` frames minus the left context on
        self._context = 0  # frames at the start of `_samples` that are known already
        self._frames = np.zeros((0, len(self._model.units)), np.float32)  # log-probabilities that wait for a pause
        self._start = 0  # the number of their first frame
        self._unheard = 0  # samples that came since the network last ran
        self._last = Partial("", "")
        self._ended = False

    def feed(self, samples: Samples) -> list[Event]:
        """Push samples, (S,) float32 in [-1, 1] or int16, of any number; what is known now."""
        if self._ended:
            raise ValueError("the stream has ended; begin a new one")
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise AudioError(f"samples have the shape {samples.shape}; expected one channel, (S,)")
        if samples.dtype == np.int16:
            samples = samples / np.float32(32768)
        samples = samples.astype(np.float32, copy=False)
        if not np.isfinite(samples).all():
            raise AudioError("samples are not numbers (NaN or infinite)")
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(np.ascontiguousarray(samples))
        return self._push(samples)

    def finish(self) -> list[Event]:
        """The stream ends; what is left of it."""
        if self._ended:
            return []
        events = []
        if self._resampler is not None:
            events = self._push(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        self._ended = True
        if len(self._samples) > self._context * self._model.hop_samples:
            rest = _forward(self._model, [self._samples])[0][self._context :]
            self._frames = np.concatenate([self._frames, rest])
        return events + self._final(len(self._frames))

    def _push(self, samples: Samples) -> list[Event]:
        events: list[Event] = []
        step = math.ceil(_STEP_S * self._model.sample_rate)
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            self._samples = np.concatenate([self._samples, part])
            self._unheard += len(part)
            if self._unheard >= step:
                self._unheard = 0
                events += self._step()
        return events

    def _step(self) -> list[Event]:
        """Run the network over what is held: frames with all their context are kept, the others make a partial."""
        hop = self._model.hop_samples
        values = _forward(self._model, [self._samples])[0]
        known = max(self._context, (len(self._samples) - self._plan.after) // hop)
        self._frames = np.concatenate([self._frames, values[self._context : known]])
        dropped = max(0, known - self._plan.before // hop)
        self._samples, self._context = self._samples[dropped * hop :].copy(), known - dropped
        events: list[Event] = []
        if end := self._pause():
            events += self._final(end)
        if self._partials:
            events += self._partial(values[known:])
        return events

    def _pause(self) -> int:
        """The frame in the middle of a pause that has ended an utterance; 0 where there is none."""
        frame_s = self._model.hop_samples / self._model.sample_rate
        spoken = np.flatnonzero(self._frames.argmax(axis=1))
        silent = len(self._frames) - (int(spoken[-1]) + 1 if len(spoken) else 0)
        if silent * frame_s >= _PAUSE_S:
            return len(self._frames) - silent // 2
        return len(self._frames) if len(self._frames) * frame_s >= _LONGEST_S else 0

    def _final(self, end: int) -> list[Event]:
        values, self._frames = self._frames[:end], self._frames[end:].copy()
        start_s = self._start * self._model.hop_samples / self._model.sample_rate
        self._start += end
        words = self._words(values, start_s)
        if not words:
            return []
        self._last = Partial("", "")
        text = " ".join(word.word for word in words)
        confidence = mean(word.confidence for word in words) or 0.0
        end_s = self._start * self._model.hop_samples / self._model.sample_rate
        return [Final(text, words, confidence, words[0].start_s, words[-1].end_s), Endpoint(end_s)]

    def _words(self, values: Floats, start_s: float) -> tuple[Word, ...]:
        found = words_of(self._decode(values), self._model, self._calibration)
        return tuple(Word(w.word, w.start_s + start_s, w.end_s + start_s, w.confidence) for w in found)

    def _partial(self, coming: Floats) -> list[Event]:
        values = np.concatenate([self._frames, coming])
        words = self._words(values, 0.0) if values.argmax(axis=1).any() else ()
        certain_s = len(self._frames) * self._model.hop_samples / self._model.sample_rate
        stable = " ".join(word.word for word in words if word.end_s <= certain_s)
        if not stable.startswith(self._last.stable):
            stable = self._last.stable
        text = " ".join(word.word for word in words)
        volatile = text[len(stable) :].strip() if text.startswith(stable) else ""
        partial = Partial(stable, volatile)
        if partial == self._last:
            return []
        self._last = partial
        return [partial]
