"""When each label and word was said: forced alignment, word times, confidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wavasr.decoding.greedy import Hypothesis, LogProbs, best_path
from wavasr.errors import TextError
from wavasr.language.text import WORD_START, Units, ctc_frames_needed

# A CTC label is a peak early in its sound: a word's first peak is its beginning, give or take a frame, but its last one
# comes long before its end. Measured by benchmarks/alignment.py on the TIMIT sample's training speakers, with two
# models: 0.16 s to 0.2 s of tail halve the error of the ends, and spelled letters (AN4) before pauses ask for 0.25 s.
TAIL_S = 0.2
# A phone's peak lies in its middle rather than at its beginning: by the same measurement, with the model `default`,
# 0.07 s halve the error of the starts.
PHONE_LEAD_S = 0.07


@dataclass(frozen=True)
class Word:
    """A word (with phone units: a phone), when it was said in seconds, and how sure the model is, 0 to 1."""

    word: str
    start_s: float
    end_s: float
    confidence: float


def forced_align(log_probs: LogProbs, ids: Sequence[int]) -> list[tuple[int, int, float]]:
    """Align known labels: for each its first frame, the frame after its last, and its mean probability over them.

    The most probable CTC path of these labels is taken (`decoding.trellis`); frames between two labels are blanks.

    Args:
        log_probs: (T, V) natural log-probabilities, label 0 the blank.
        ids: labels of `Units.encode`; [] gives [].

    Raises:
        TextError: the labels need more frames than there are.
    """
    needed = ctc_frames_needed(ids)
    if needed > len(log_probs):
        raise TextError(
            f"the text needs at least {needed} frames and the recording has {len(log_probs)}; "
            "check that they belong together"
        )
    spans, confidences = best_path(log_probs, ids)
    return [(start, end, mean) for (start, end), mean in zip(spans, confidences, strict=True)]


def word_times(hypothesis: Hypothesis, units: Units, frame_s: float) -> list[Word]:
    """The words of a hypothesis in order, none overlapping the next, all within its frames.

    A word starts with the first frame of its first label, or if that is a phone 0.07 s before it, yet not before the
    phone in front of it has been found. It ends at most 0.2 s after the last frame of its last
    label, and no later than the next word's start or the last frame. Its confidence is the mean of its labels'
    confidences (their mean probabilities on the best path): comparable between words, not yet a calibrated
    probability of being right.

    Args:
        hypothesis: with spans and confidences, as the decoders give it.
        units: the inventory that spells its labels.
        frame_s: seconds from one frame to the next.
    """
    words = hypothesis.words_in(units)
    if not words:
        return []
    begins = _label_starts(hypothesis, units, frame_s)
    starts = [begins[first] for _, first, _ in words]
    limit = float("inf") if hypothesis.frames is None else hypothesis.frames * frame_s
    found = []
    for (word, first, end), start_s, next_s in zip(words, starts, (*starts[1:], limit), strict=True):
        end_s = min(hypothesis.spans[end - 1][1] * frame_s + TAIL_S, next_s)
        confidence = sum(hypothesis.confidences[first:end]) / (end - first)
        found.append(Word(word, start_s, end_s, confidence))
    return found


def unit_times(hypothesis: Hypothesis, units: Units, frame_s: float) -> list[Word]:
    """The labels of the words of `word_times`, each until the next one of its word, the last one until the word ends.

    Labels of spaces belong to no word and are left out.
    """
    found = []
    begins = _label_starts(hypothesis, units, frame_s)
    for (_, first, end), word in zip(hypothesis.words_in(units), word_times(hypothesis, units, frame_s), strict=True):
        starts = begins[first:end]
        for i, start_s, end_s in zip(range(first, end), starts, (*starts[1:], word.end_s), strict=True):
            symbol = units.symbols[hypothesis.ids[i]].lstrip(WORD_START)
            found.append(Word(symbol, start_s, end_s, hypothesis.confidences[i]))
    return found


def _label_starts(hypothesis: Hypothesis, units: Units, frame_s: float) -> list[float]:
    """When each label begins, in seconds."""
    lead_s = PHONE_LEAD_S if units.is_phones else 0.0
    found_s = [0.0, *(end * frame_s for _, end in hypothesis.spans)]
    return [
        max(before_s, start * frame_s - lead_s) for (start, _), before_s in zip(hypothesis.spans, found_s, strict=False)
    ]
