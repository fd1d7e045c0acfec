"""Recordings to stretches of speech, pushed or whole, and what decoders make of them put together again.

    samples -> utterances -> log-probabilities -> stretches -> hypotheses -> words
    (P,)       voice         (T, V)               (t, V)
               activity

A stretch is what a decoder gets at once: an utterance, or of a long one the part until a pause. It does not depend on
how the samples were cut into pieces: a file is a stream that ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wavasr.audio.augment import change_speed
from wavasr.audio.reading import Samples
from wavasr.decoding.confidence import ConfidenceMap, mean
from wavasr.decoding.decoder import Decoder
from wavasr.decoding.greedy import Hypothesis
from wavasr.decoding.times import Word, word_times
from wavasr.language.text import Units
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.activity import ActivityConfig, Utterance, Utterances
from wavasr.recognition.chunks import ChunkPlan, Floats, LevelChange, Posteriors, frames_in, log_probs_of
from wavasr.recognition.workers import Versions

DEFAULT_ACTIVITY: ActivityConfig | None = ActivityConfig()
OTHER_SPEEDS = 0.95, 1.05  # at which a thorough decoder gets a recording, besides its own
_STRETCH_S = 30.0
SURELY_WHOLE_S = _STRETCH_S / 2  # no stretch of an utterance that goes on is shorter
_RETRY_S = 5.0  # after a stretch in which there was no blank to cut at
_LONGEST_S = 60.0
_LEVEL_S = 1.2  # of an utterance by which its level is judged
# Mean confidence of a stretch's words below which it is taken for noise. Sneezes become a word or two of less than a
# second, of which the model is less sure than of a word that somebody said.
_LEAST_SURE, _BRIEF_S, _LEAST_SURE_OF_BRIEF = 0.35, 1.0, 0.67
_SILENCE = 1e-4  # below -80 dB of full scale there is nothing but the noise of a converter


@dataclass(frozen=True)
class Stretch:
    """What a decoder gets at once.

    Attributes:
        first: its first frame, counted from the start of the recording.
        frames: how many it has.
        values: (frames, V) log-probabilities; for a thorough decoder at all speeds, its own first.
        ends: whether an utterance ends with it.
    """

    first: int
    frames: int
    values: Versions
    ends: bool


class Stretches:
    """The stretches of a recording whose samples are pushed as they come.

    Args:
        model: in eval mode.
        decoder: whose configuration says what it wants of a recording.
    """

    def __init__(self, model: AcousticModel, decoder: Decoder) -> None:
        self._model = model
        self._thorough = decoder.thorough
        activity = DEFAULT_ACTIVITY if decoder.config.vad else None
        self._by_activity = activity is not None
        self._utterances = Utterances(model.sample_rate, model.hop_samples, activity)
        self._posteriors = Posteriors(model)
        self._chunk = ChunkPlan.of(model).chunk // model.hop_samples
        self._cutter = Cutter(model)
        self._levelled: Utterance | None = None  # the utterance that the posteriors have the level of
        self._audible = False
        self._first = 0  # the first frame that is in no stretch
        self._ended = False

    @property
    def samples(self) -> int:
        """How many were pushed."""
        return self._posteriors.samples

    def push(self, samples: Samples, last: bool = False) -> Iterator[Stretch]:
        """Add (S,) float32 at the model's rate; the stretches that they complete, at the `last` all."""
        self._audible = self._audible or is_audible(samples)
        self._posteriors.push(samples)
        self._ended = last
        if last:
            self._posteriors.end()
        hop = self._model.hop_samples
        frames = -(-self.samples // hop) if last else self.samples // hop
        self._utterances.push(samples, frames, last)
        while self._utterances.found:
            utterance = self._utterances.found[0]
            ready = self._ready(utterance)
            yield from self._taken(utterance, ready)
            if not (utterance.ended and ready >= utterance.known):
                return
            self._utterances.found.popleft()
        self._posteriors.skip(self._utterances.earliest)

    def preview(self) -> tuple[int, Floats, int]:
        """What has come of the current utterance and is in no stretch yet: its first frame, (t, V) log-probabilities,
        and how many of these frames have all their right context.
        """
        utterance = self._utterances.found[0] if self._utterances.found else None
        if utterance is None or not self._has_level(utterance):
            return 0, self._cutter.held[:0], 0
        self._begin(utterance)
        certain, coming = self._posteriors.take_with_preview(utterance.known)
        self._cutter.add(certain)
        values = np.concatenate([self._cutter.held, coming[: max(0, utterance.known - self._posteriors.taken)]])
        return self._first, values, len(self._cutter.held)

    @property
    def ready(self) -> tuple[int, int]:
        """The first frame of the current utterance that is in no stretch yet, and how many have all right context."""
        utterance = self._utterances.found[0] if self._utterances.found else None
        if utterance is None:
            return 0, 0
        first = self._first if self._levelled is utterance else utterance.first
        return first, max(0, self._ready(utterance) - first)

    def advance(self) -> Floats:
        """The (t, V) log-probabilities of these frames."""
        if self.ready[1]:
            utterance = self._utterances.found[0]
            self._begin(utterance)
            for values in self._posteriors.take(self._ready(utterance)):
                self._cutter.add(values)
        return self._cutter.held

    def _ready(self, utterance: Utterance) -> int:
        """The end of its frames that can be had for good."""
        return min(utterance.known, self._posteriors.complete) if self._has_level(utterance) else 0

    def _taken(self, utterance: Utterance, ready: int) -> Iterator[Stretch]:
        """The stretches that its frames until `ready` complete; frames are waited for until they are worth a chunk."""
        whole = utterance.ended and ready >= utterance.known
        if not whole and ready - self._posteriors.taken < self._chunk:
            ready = 0
        if ready or self._levelled is utterance:
            self._begin(utterance)
            for values in self._posteriors.take(ready):
                self._cutter.add(values)
            yield from (self._stretch(values, False) for values in self._cutter.cuts())
        if whole:
            yield self._stretch(self._cutter.rest(), True)
            self._posteriors.keep(None)

    def _begin(self, utterance: Utterance) -> None:
        if self._levelled is not utterance:
            self._posteriors.skip(utterance.first)
            self._posteriors.level = self._level(utterance)
            self._levelled = utterance
            self._first = utterance.first
            self._posteriors.keep(utterance.first if self._thorough else None)

    def _has_level(self, utterance: Utterance) -> bool:
        return (
            self._ended or not self._by_activity or self.samples >= self._level_end(utterance) * self._model.hop_samples
        )

    def _level_end(self, utterance: Utterance) -> int:
        return utterance.first + frames_in(_LEVEL_S, self._model)

    def _level(self, utterance: Utterance) -> LevelChange:
        if not self._by_activity:
            return LevelChange()
        return LevelChange.of(self._posteriors.samples_between(utterance.first, self._level_end(utterance)))

    def _stretch(self, values: Floats, ends: bool) -> Stretch:
        first, self._first = self._first, self._first + len(values)
        versions: Versions = values
        if self._thorough:
            own = self._posteriors.level(self._posteriors.samples_between(first, self._first))
            versions = (values, *(log_probs_of(self._model, change_speed(own, speed)) for speed in OTHER_SPEEDS))
            self._posteriors.keep(self._first)
        return Stretch(first, len(values), versions, ends)

    @property
    def audible(self) -> bool:
        """Whether anything that was pushed is louder than -80 dB of full scale."""
        return self._audible


class Cutter:
    """Cuts frames that are pushed as they come into stretches of half a minute or less that end amid blanks.

    Where it cuts does not depend on how the frames came.
    """

    def __init__(self, model: AcousticModel) -> None:
        self._least, self._retry, self._longest = (frames_in(s, model) for s in (_STRETCH_S, _RETRY_S, _LONGEST_S))
        self.held = np.zeros((0, len(model.units)), np.float32)

    def add(self, values: Floats) -> None:
        """Add (t, V) log-probabilities."""
        self.held = np.concatenate([self.held, values])

    def cuts(self) -> Iterator[Floats]:
        """The stretches that are complete, taken out."""
        while cut := self._cut():
            yield self.held[:cut]
            self.held = self.held[cut:].copy()

    def rest(self) -> Floats:
        """What is left; nothing is held then."""
        rest, self.held = self.held, self.held[:0]
        return rest

    def _cut(self) -> int:
        for end in range(self._least, min(len(self.held), self._longest) + 1, self._retry):
            if cut := _amid_blanks(self.held[:end]):
                return cut
        if len(self.held) < self._longest:
            return 0
        start = self._longest // 2  # nobody pauses: where the blank is likeliest
        return start + 1 + int(self.held[start : self._longest, 0].argmax())


def _amid_blanks(log_probs: Floats) -> int:
    """The middle of the longest run of blank frames in the second half; 0 where there is none."""
    start = len(log_probs) // 2
    blank = log_probs[start:].argmax(axis=-1) == 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]]).astype(np.int8)))
    if not len(edges):
        return 0
    firsts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - firsts))
    return start + int(firsts[longest] + ends[longest]) // 2


def joined(parts: Sequence[Hypothesis], units: Units) -> Hypothesis:
    """Hypotheses of consecutive stretches as one of the whole, with as many alternatives as the stretches have.

    No word crosses from one stretch into the next.
    """
    best = _concatenated(parts, units)
    count = max((len(part.alternatives) for part in parts), default=0)
    if not count:
        return best
    ranked: list[tuple[float, tuple[Hypothesis, ...]]] = [(0.0, ())]
    for part in parts:
        longer = [(score + one.score, (*said, one)) for score, said in ranked for one in part.alternatives or (part,)]
        ranked = sorted(longer, key=lambda one: -one[0])[:count]
    return replace(best, alternatives=tuple(_concatenated(said, units) for _, said in ranked))


def _concatenated(parts: Sequence[Hypothesis], units: Units) -> Hypothesis:
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    confidences: list[float] = []
    words: list[tuple[str, int, int]] = []
    frames = 0
    several = sum(bool(part.ids) for part in parts) > 1 or any(part.words for part in parts)
    for part in parts:
        if several:
            words += [(word, first + len(ids), end + len(ids)) for word, first, end in part.words_in(units)]
        ids += part.ids
        spans += [(first + frames, end + frames) for first, end in part.spans]
        confidences += part.confidences
        frames += part.frames or 0
    score = sum(part.score for part in parts)
    return Hypothesis(tuple(ids), score, tuple(spans), tuple(confidences), frames, tuple(words) or None)


def silence(frames: int) -> Hypothesis:
    """Nothing, for so many frames."""
    return Hypothesis((), 0.0, (), (), frames)


def is_audible(waveform: Samples) -> bool:
    """Whether any sample is louder than -80 dB of full scale."""
    return bool(len(waveform)) and float(np.abs(waveform).max()) > _SILENCE


def words_of(
    hypothesis: Hypothesis,
    model: AcousticModel,
    calibration: ConfidenceMap | None = None,
    start_s: float = 0.0,
    duration_s: float = math.inf,
) -> tuple[Word, ...]:
    """The words of a hypothesis that begins at `start_s`, with times up to `duration_s` at most, and confidences."""
    words = word_times(hypothesis, model.units, model.hop_samples / model.sample_rate)
    return tuple(
        Word(
            word.word,
            min(word.start_s + start_s, duration_s),
            min(word.end_s + start_s, duration_s),
            calibration(word.confidence) if calibration else word.confidence,
        )
        for word in words
    )


def accepted(
    hypothesis: Hypothesis, decoder: Decoder, model: AcousticModel, calibration: ConfidenceMap | None
) -> Hypothesis:
    """A hypothesis of a stretch, or nothing where its words are so unsure that the stretch is hardly speech.

    Only words that a search chose, with calibrated confidences, tell that.
    """
    if not decoder.config.vad or not decoder.is_search or calibration is None:
        return hypothesis
    words = words_of(hypothesis, model, calibration)
    if not words:
        return hypothesis
    brief = words[-1].end_s - words[0].start_s < _BRIEF_S
    sure = (sureness(words) or 0.0) >= (_LEAST_SURE_OF_BRIEF if brief else _LEAST_SURE)
    return hypothesis if sure else silence(hypothesis.frames or 0)


def sureness(words: Sequence[Word]) -> float | None:
    """How sure a text is: the mean confidence of its words; None without any."""
    return mean(word.confidence for word in words)
