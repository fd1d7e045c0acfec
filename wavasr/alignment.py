"""When each label and word was said: forced alignment, word times, confidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavasr.decoding import Hypothesis, LogProbs, checked
from wavasr.errors import TextError
from wavasr.text import WORD_START, Units, ctc_frames_needed

# A CTC label is a peak early in its sound: a word's first peak is its beginning, give or take a frame, but its last one
# comes long before its end. Measured by benchmarks/alignment.py on the TIMIT sample's training speakers, with two
# models: 0.16 s to 0.2 s of tail halve the error of the ends, and spelled letters (AN4) before pauses ask for 0.25 s.
TAIL_S = 0.2
BLOCK_FRAMES = 2048


@dataclass(frozen=True)
class Word:
    """A word (with phone units: a phone), when it was said in seconds, and how sure the model is, 0 to 1."""

    word: str
    start_s: float
    end_s: float
    confidence: float


def forced_align(log_probs: LogProbs, ids: Sequence[int]) -> list[tuple[int, int, float]]:
    """Align known labels: for each its first frame, the frame after its last, and its mean probability over them.

    The most probable CTC path of these labels is taken (Viterbi); frames between two labels are blanks. The result is
    exact, and memory stays small: scores are kept every 2048 frames, and the way back is found from them block by
    block. An hour of 20 ms frames with 50,000 characters takes 80 MB besides the log-probabilities, in place of the
    18 GB of one byte a frame and state; its 9,000,000,000 steps take a minute or two.

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
    if not ids:
        return []
    values = checked(log_probs)
    path = most_probable_path(values, np.asarray(ids, np.intp))
    frames = np.flatnonzero(path >= 0)
    states = path[frames]
    firsts = np.searchsorted(states, np.arange(len(ids)))
    ends = np.append(firsts[1:], len(states))
    probabilities = np.exp(values[frames, np.asarray(ids)[states]].astype(np.float64))
    means = np.minimum(np.add.reduceat(probabilities, firsts) / (ends - firsts), 1.0)
    return list(zip(frames[firsts].tolist(), (frames[ends - 1] + 1).tolist(), means.tolist(), strict=True))


def most_probable_path(
    log_probs: NDArray[np.float32], labels: NDArray[np.intp], block: int = BLOCK_FRAMES
) -> NDArray[np.int32]:
    """The best CTC path of labels: (T, V), (L,) -> (T,) the index of each frame's label, -1 for a blank.

    Scores of all states are kept before every `block`-th frame, 16 bytes a label; then blocks are run again, last
    first, with 2 bytes a frame and label for the way back. In a block no more labels can pass than it has frames, so
    that a block needs no more than 2 * block * (block + 2) bytes.
    """
    trellis = _Trellis(labels)
    count, total = len(labels), len(log_probs)
    blank, label = np.full(count + 1, -np.inf), np.full(count, -np.inf)
    blank[0] = 0.0
    kept = []
    for t in range(total):
        if t % block == 0:
            kept.append((blank.copy(), label.copy()))
            heard = log_probs[t : t + block].astype(np.float64)
        # States that the first frame cannot have led to, or from which the last frame cannot be reached, are left out.
        low, high = max(0, count - (total - t) - 1), min(count, t + 1)
        trellis.step(blank[low : high + 1], label[low:high], heard[t % block], low)
    path = np.full(total, -1, np.int32)
    state = 2 * count - 1 if label[-1] > blank[-1] else 2 * count  # blank, label 0, blank, label 1, ..., blank
    for first in reversed(range(0, total, block)):
        blank, label = kept.pop()
        heard = log_probs[first : first + block].astype(np.float64)
        high = (state + 1) // 2
        low = max(0, high - len(heard) - 1)
        if high == 0:
            break
        state = trellis.trace(blank[low : high + 1], label[low:high], heard, low, state, path[first : first + block])
    return path


class _Trellis:
    """States of the CTC paths of L labels: the blanks around them and the labels, as arrays (L + 1,) and (L,)."""

    def __init__(self, labels: NDArray[np.intp]) -> None:
        self._labels = labels
        # A label can follow the one before without a blank, unless they are equal.
        self._skip = np.where(np.diff(labels, prepend=-1) == 0, -np.inf, 0.0)
        self._moved = np.empty(len(labels))
        self._heard = np.empty(len(labels))

    def step(
        self,
        blank: NDArray[np.float64],
        label: NDArray[np.float64],
        frame: NDArray[np.float64],
        low: int,
        back: NDArray[np.int8] | None = None,
    ) -> None:
        """Take one frame (V,): scores of the labels from `low` on and of the blanks around them, in place.

        `back` gets where the best way into each state came from: back[0] is 1 for a blank that a label led to; back[1]
        is 0 for a label that stayed, 1 from the blank before it, 2 from the label before it.
        """
        moved, heard = self._moved[: len(label)], self._heard[: len(label)]
        moved[0] = -np.inf
        np.add(label[:-1], self._skip[low + 1 : low + len(label)], out=moved[1:])
        if back is not None:
            back[0, 1:] = label > blank[1:]
            back[1, :-1] = np.where(moved > np.maximum(label, blank[:-1]), 2, blank[:-1] > label)
        np.maximum(moved, blank[:-1], out=moved)
        np.maximum(blank[1:], label, out=blank[1:])
        np.add(blank, frame[0], out=blank)
        np.maximum(label, moved, out=label)
        np.take(frame, self._labels[low : low + len(label)], out=heard, mode="clip")
        np.add(label, heard, out=label)

    def trace(
        self,
        blank: NDArray[np.float64],
        label: NDArray[np.float64],
        heard: NDArray[np.float64],
        low: int,
        state: int,
        path: NDArray[np.int32],
    ) -> int:
        """The way back from a state through a block (N, V): fills its (N,) of the path, returns the state before it."""
        back = np.zeros((len(heard), 2, len(blank)), np.int8)
        for frame, came in zip(heard, back, strict=True):
            self.step(blank, label, frame, low, came)
        for t in reversed(range(len(heard))):
            index, is_label = divmod(state, 2)
            if is_label:
                path[t] = index
            state -= int(back[t, is_label, index - low])
        return state


def word_times(hypothesis: Hypothesis, units: Units, frame_s: float) -> list[Word]:
    """The words of a hypothesis in order, none overlapping the next, all within its frames.

    A word starts with the first frame of its first label. It ends at most 0.2 s after the last frame of its last
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
    starts = [hypothesis.spans[first][0] * frame_s for _, first, _ in words]
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
    for (_, first, end), word in zip(hypothesis.words_in(units), word_times(hypothesis, units, frame_s), strict=True):
        starts = [hypothesis.spans[i][0] * frame_s for i in range(first, end)]
        for i, start_s, end_s in zip(range(first, end), starts, (*starts[1:], word.end_s), strict=True):
            symbol = units.symbols[hypothesis.ids[i]].lstrip(WORD_START)
            found.append(Word(symbol, start_s, end_s, hypothesis.confidences[i]))
    return found
