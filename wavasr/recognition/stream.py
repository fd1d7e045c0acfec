"""Live recognition: samples are pushed as they come, events are returned as they are known.

    samples -> log-probabilities -> decoder -> stretch complete: Final, Endpoint
                                          '--> what it has so far, and a draft of the last frames: Partial

The texts of all `Final` events, joined by spaces, are the transcript: that of the file with the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from wavasr.audio.arrays import check_rate, checked_samples
from wavasr.audio.reading import Samples
from wavasr.decoding.config import DEFAULT, DecodingConfig
from wavasr.decoding.decoder import Decoder, Running
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.greedy import Hypothesis
from wavasr.decoding.times import Word
from wavasr.errors import AudioError
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.chunks import Floats, frames_in, seconds_of
from wavasr.recognition.models import calibration_of, opened
from wavasr.recognition.stretches import SURELY_WHOLE_S, Stretch, Stretches, accepted, sureness, words_of

_STEP_S = 0.3  # from one partial text to the next
_LONGEST_DRAFT_S = 6.0  # of what is decoded anew for each partial text
_CONTEXT_WORDS = 2
_MARGIN_S = 0.4  # that a word of the search has behind it, of frames with all their context
_AGREE_S = 1.0  # from one look at all hypotheses to the next


@dataclass(frozen=True)
class Partial:
    """What has been said since the last `Final`, as far as it is known.

    Attributes:
        stable: words with which the next `Final` begins, unless there is none because all of it was no speech; until
            then it only grows.
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
        check_rate(sample_rate)
        self._model = opened(model)
        self._decode = decoder_of(decoder, self._model)
        self._calibration = calibration_of(self._model, self._decode)
        self._resampler = None
        if sample_rate != self._model.sample_rate:
            self._resampler = soxr.ResampleStream(sample_rate, self._model.sample_rate, 1, "float32", "HQ")
        self._stretches = Stretches(self._model, self._decode)
        self._partial = PartialText(self._model, self._decode) if partials else None
        self._step = round(_STEP_S * self._model.sample_rate)
        self._shown = 0  # samples with which the last partial text was made
        self._ended = False

    @property
    def duration_s(self) -> float:
        """Seconds of audio that were fed."""
        return self._stretches.samples / self._model.sample_rate

    def feed(self, samples: npt.ArrayLike, partial: bool = True) -> list[Event]:
        """Push samples, (S,) float32 in [-1, 1] or int16, of any number; what is known with them.

        Args:
            samples: the next ones.
            partial: whether to return a `Partial`; False saves most of the work, for callers that lag behind.

        Raises:
            AudioError: they are not one channel of numbers, or the stream has ended.
        """
        if self._ended:
            raise AudioError("the stream has ended; begin a new one")
        values = checked_samples(samples)
        if self._resampler is not None:
            values = self._resampler.resample_chunk(np.ascontiguousarray(values))
        events = self._finals(values)
        return events + self.partial() if partial else events

    @property
    def partial_is_due(self) -> bool:
        """Whether enough was fed since the last partial text for another one."""
        return self._partial is not None and self._stretches.samples - self._shown >= self._step

    def partial(self) -> list[Event]:
        """The partial text that is due, if it has changed: for callers that left it out of `feed`."""
        if self._partial is None or self._ended or not self.partial_is_due:
            return []
        self._shown = self._stretches.samples
        return [*self._partial.update(self._stretches)]

    @property
    def backlog_s(self) -> float:
        """Seconds of speech that `advance` would deal with, else the next partial or final text."""
        if self._partial is None or self._ended:
            return 0.0
        return seconds_of(self._partial.backlog(self._stretches), self._model)

    def advance(self) -> list[Event]:
        """Run part of the search that the final text needs anyway, so that it comes sooner; no events."""
        if self._partial is not None and self.backlog_s:
            self._partial.advance(self._stretches)
        return []

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

    A search goes on with the frames that have all their context. Words that all its hypotheses have in common are
    stable: the final text comes from that search. What is behind its last words, frames that lack right context at the
    end, is drafted anew each time.
    """

    def __init__(self, model: AcousticModel, decoder: Decoder) -> None:
        self._units = model.units
        self._decoder = decoder
        seconds = _MARGIN_S, _LONGEST_DRAFT_S, _AGREE_S, SURELY_WHOLE_S
        self._margin, self._longest, self._interval, self._whole = (frames_in(one, model) for one in seconds)
        self._ended: Running | None = None
        self._reset(-1)

    def _reset(self, first: int) -> None:
        self._first = first
        self._ended = None
        self._running = self._decoder.begin()
        self._stable = 0  # words
        self._compared = 0  # frames after which the hypotheses were compared
        self._shown = Partial("", "")

    def backlog(self, stretches: Stretches) -> int:
        """Frames with which the search could go on."""
        first, ready = stretches.ready
        return max(0, ready - (self._running.frames if self._first == first else 0))

    def advance(self, stretches: Stretches) -> None:
        """Go on with them."""
        first, ready = stretches.ready
        if first != self._first:
            self._reset(first)
        self._running.push(stretches.advance()[self._running.frames : ready])

    def update(self, stretches: Stretches) -> list[Partial]:
        """The text now, if it has changed."""
        first, values, certain = stretches.preview()
        if first != self._first:
            self._reset(first)
        if certain > self._running.frames:
            self._running.push(values[self._running.frames : certain])
            self._compare()
        words = self._words(values, certain)
        partial = Partial(" ".join(words[: self._stable]), " ".join(words[self._stable :]))
        if partial == self._shown:
            return []
        self._shown = partial
        return [partial]

    def _compare(self) -> None:
        """What do all hypotheses have in common? Not where the stretch may be cut in what they have seen."""
        if self._compared + self._interval <= self._running.frames <= self._whole:
            self._compared = self._running.frames
            self._stable = self._running.agreed()

    def _words(self, values: Floats, certain: int) -> list[str]:
        """Those that the search has and that lie a bit back, and a draft of what follows.

        The last of them are decoded again, as the language model's context.
        """
        best = self._running.best()
        found = [(word, best.spans[end - 1][1]) for word, _, end in best.words_in(self._units)]
        known = [one for at, one in enumerate(found) if at < self._stable or one[1] <= certain - self._margin]
        words, ends = [word for word, _ in known], [0, *(end for _, end in known)]
        context = words[-_CONTEXT_WORDS:]
        start = ends[-len(context) - 1]
        if len(values) - start > self._longest:
            start, context = len(values) - self._longest, []
        draft = self._decoder.draft(values[start:])
        drafted = [(word, start + draft.spans[end - 1][1]) for word, _, end in draft.words_in(self._units)]
        if [word for word, _ in drafted[: len(context)]] == context:
            return words + [word for word, _ in drafted[len(context) :]]
        return words + [word for word, end in drafted if end > ends[-1]]

    def finish(self, stretch: Stretch) -> Hypothesis:
        """A stretch is complete: its hypothesis."""
        running, first = self._running, self._first
        self._reset(-1)
        self._ended = running  # to forget it takes a while: when there is time, and the final text is out
        if first != stretch.first or running.frames > stretch.frames or isinstance(stretch.values, tuple):
            return self._decoder(stretch.values)
        running.push(stretch.values[running.frames :])
        return running.finish()
