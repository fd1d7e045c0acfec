"""Live recognition: samples are pushed as they come, events are returned as they are known.

    samples -> log-probabilities -> decoder -> stretch complete: Final, Endpoint
                                          '--> what it has so far, and a draft of the last frames: Partial

The texts of all `Final` events, joined by spaces, are the transcript: that of the file with the same samples.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from wavasr.audio.reading import Samples
from wavasr.decoding.config import DEFAULT, DecodingConfig
from wavasr.decoding.decoder import Decoder
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.greedy import Hypothesis
from wavasr.decoding.times import Word
from wavasr.errors import AudioError
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.chunks import Floats, checked_samples, frames_in, seconds_of
from wavasr.recognition.models import calibration_of, opened
from wavasr.recognition.stretches import Stretch, Stretches, accepted, sureness, words_of

_STEP_S = 0.2  # from one partial text to the next
_LONGEST_DRAFT_S = 6.0  # of what is decoded anew for each partial text
_CONTEXT_WORDS = 3
_MARGIN_S = 0.8  # that a stable word has behind it, of frames with all their context


@dataclass(frozen=True)
class Partial:
    """What has been said since the last `Final`, as far as it is known.

    Attributes:
        stable: words that will hardly change; until the next `Final` or `Endpoint` it only grows.
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

    Several streams may share a loaded model; one stream belongs to one thread at a time.

    Args:
        model: a loaded model, a model file, or the name of a shipped model.
        sample_rate: of the samples that are fed, in Hz.
        decoder: as in `transcribe`.
        partials: whether `feed` returns `Partial` events, which take most of the computing time.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: the decoder does not fit the model.
        AudioError: there is no such sample rate.
    """

    def __init__(
        self,
        model: AcousticModel | str | Path = "default",
        sample_rate: int = 16000,
        *,
        decoder: DecodingConfig | Decoder = DEFAULT,
        partials: bool = True,
    ) -> None:
        if not 1000 <= sample_rate <= 768_000:
            raise AudioError(f"sample_rate is {sample_rate} Hz; expected 1000 to 768000")
        self._model = opened(model)
        self._decode = decoder_of(decoder, self._model)
        self._calibration = calibration_of(self._model, self._decode)
        self._resampler = None
        if sample_rate != self._model.sample_rate:
            self._resampler = soxr.ResampleStream(sample_rate, self._model.sample_rate, 1, "float32", "HQ")
        self._stretches = Stretches(self._model, self._decode)
        self._partial = PartialText(self._model, self._decode) if partials else None
        self._step = round(_STEP_S * self._model.sample_rate)
        self._ended = False

    @property
    def duration_s(self) -> float:
        """Seconds of audio that were fed."""
        return self._stretches.samples / self._model.sample_rate

    def feed(self, samples: npt.ArrayLike) -> list[Event]:
        """Push samples, (S,) float32 in [-1, 1] or int16, of any number; what is known with them.

        Raises:
            AudioError: they are not one channel of numbers.
            ValueError: the stream has ended.
        """
        if self._ended:
            raise ValueError("the stream has ended; begin a new one")
        values = checked_samples(samples)
        if self._resampler is not None:
            values = self._resampler.resample_chunk(np.ascontiguousarray(values))
        events: list[Event] = []
        for start in range(0, len(values), self._step):
            part = values[start : start + self._step]
            before = self._stretches.samples // self._step
            events += self._finals(part)
            if self._partial is not None and self._stretches.samples // self._step > before:
                events += self._partial.update(self._stretches)
        return events

    def finish(self) -> list[Event]:
        """The stream ends; what is left of it."""
        if self._ended:
            return []
        self._ended = True
        rest: Samples = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(rest, last=True)
        return self._finals(rest, last=True)

    def _finals(self, samples: Samples, last: bool = False) -> list[Event]:
        return [event for stretch in self._stretches.push(samples, last) for event in self._final(stretch)]

    def _final(self, stretch: Stretch) -> list[Event]:
        events: list[Event] = []
        start_s, duration_s = seconds_of(stretch.first, self._model), self.duration_s
        found = self._partial.finish(stretch) if self._partial else self._decode(stretch.values)
        found = accepted(found, self._decode, self._model, self._calibration)
        if words := words_of(found, self._model, self._calibration, start_s, duration_s):
            text = " ".join(word.word for word in words)
            events.append(Final(text, words, sureness(words) or 0.0, words[0].start_s, words[-1].end_s))
        if stretch.ends:
            events.append(Endpoint(min(duration_s, seconds_of(stretch.first + stretch.frames, self._model))))
        return events


class PartialText:
    """The text of what is in no stretch yet.

    The decoder goes on with the frames that have all their context: words that it has had twice and that lie a bit back
    are stable. The frames behind those, which lack right context at the end, are drafted anew each time.
    """

    def __init__(self, model: AcousticModel, decoder: Decoder) -> None:
        self._units = model.units
        self._decoder = decoder
        self._margin, self._longest = (frames_in(seconds, model) for seconds in (_MARGIN_S, _LONGEST_DRAFT_S))
        self._reset(-1)

    def _reset(self, first: int) -> None:
        self._first = first
        self._running = self._decoder.begin()
        self._stable: list[str] = []
        self._ends: list[int] = []  # the frame after each of them
        self._before: list[str] = []  # what the decoder had last time
        self._shown = Partial("", "")

    def update(self, stretches: Stretches) -> list[Partial]:
        """The text now, if it has changed."""
        first, values, certain = stretches.preview()
        if first != self._first:
            self._reset(first)
        if certain > self._running.frames:
            self._running.push(values[self._running.frames : certain])
            self._settle(certain - self._margin)
        partial = Partial(" ".join(self._stable), " ".join(self._drafted(values)))
        if partial == self._shown:
            return []
        self._shown = partial
        return [partial]

    def _drafted(self, values: Floats) -> list[str]:
        """The words behind the stable ones. The last stable ones are decoded again, as the language model's context."""
        known = self._stable[-_CONTEXT_WORDS:]
        start = self._ends[-_CONTEXT_WORDS - 1] if len(self._ends) > _CONTEXT_WORDS else 0
        if len(values) - start > self._longest:
            start, known = len(values) - self._longest, []
        draft = self._decoder.draft(values[start:])
        words = [word for word, _, _ in draft.words_in(self._units)]
        if not self._ends or (known and words[: len(known)] == known):
            return words[len(known) :]
        ends = (start + draft.spans[end - 1][1] for _, _, end in draft.words_in(self._units))
        return [word for word, end in zip(words, ends, strict=True) if end > self._ends[-1]]

    def _settle(self, until: int) -> None:
        """Words that end before a frame, and that the decoder has now as it had them before, are stable."""
        best = self._running.best()
        words = [word for word, _, _ in best.words_in(self._units)]
        ends = [best.spans[end - 1][1] for _, _, end in best.words_in(self._units)]
        if words[: len(self._stable)] == self._stable:
            agreed = zip(words, self._before, ends, strict=False)
            count = sum(1 for _ in itertools.takewhile(lambda one: one[0] == one[1] and one[2] <= until, agreed))
            if count > len(self._stable):
                self._stable, self._ends = words[:count], ends[:count]
        self._before = words

    def finish(self, stretch: Stretch) -> Hypothesis:
        """A stretch is complete: its hypothesis."""
        running, first = self._running, self._first
        self._reset(-1)
        if first != stretch.first or running.frames > stretch.frames or isinstance(stretch.values, tuple):
            return self._decoder(stretch.values)
        running.push(stretch.values[running.frames :])
        return running.finish()
