"""When each label and word was said: forced alignment, word times, confidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from wavasr.decoding import Hypothesis, best_path
from wavasr.errors import TextError
from wavasr.text import Units, ctc_frames_needed

# A CTC label is a peak somewhere inside its sound, so a word's last peak is not its end. The word is drawn out by
# about half a phone, unless the next word begins before.
_TAIL_S = 0.08


@dataclass(frozen=True)
class Word:
    """A word (with phone units: a phone), when it was said in seconds, and how sure the model is, 0 to 1."""

    word: str
    start_s: float
    end_s: float
    confidence: float


def forced_align(log_probs: Tensor, ids: Sequence[int]) -> list[tuple[int, int, float]]:
    """Align known labels: for each its first frame, the frame after its last, and its mean probability over them.

    The most probable CTC path of these labels is taken (Viterbi); frames between two labels are blanks. Cost grows
    with frames times labels: align long recordings in pieces.

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

    A word starts with the first frame of its first label. It ends at most 80 ms after the last frame of its last
    label, and no later than the next word's start or the last frame. Its confidence is the mean of its labels'
    confidences (their mean probabilities on the best path): comparable between words, not yet a calibrated
    probability of being right.

    Args:
        hypothesis: with spans and confidences, as the decoders give it.
        units: the inventory that spells its labels.
        frame_s: seconds from one frame to the next.
    """
    words = units.words(hypothesis.ids)
    if not words:
        return []
    starts = [hypothesis.spans[first][0] * frame_s for _, first, _ in words]
    limit = float("inf") if hypothesis.frames is None else hypothesis.frames * frame_s
    found = []
    for (word, first, end), start_s, next_s in zip(words, starts, (*starts[1:], limit), strict=True):
        end_s = min(hypothesis.spans[end - 1][1] * frame_s + _TAIL_S, next_s)
        confidence = sum(hypothesis.confidences[first:end]) / (end - first)
        found.append(Word(word, start_s, end_s, confidence))
    return found
