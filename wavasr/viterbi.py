"""The most probable CTC path of known labels (Viterbi).

The result is exact, and memory stays small: scores are kept every 2048 frames, and the way back is found from them
block by block. An hour of 20 ms frames with 50,000 characters takes 80 MB besides the log-probabilities, in place of
the 18 GB of one byte a frame and state; its 9,000,000,000 steps take a minute or two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_FRAMES = 2048


def most_probable_path(
    log_probs: NDArray[np.float32], labels: NDArray[np.intp], block: int = BLOCK_FRAMES
) -> NDArray[np.int32]:
    """The best CTC path of labels: (T, V), (L,) -> (T,) the index of each frame's label, -1 for a blank.

    Scores of all states are kept before every `block`-th frame, 16 bytes a label; then blocks are run again, last
    first, with 2 bytes a frame and label for the way back (the last one is run but once). In a block no more labels can
    pass than it has frames, so that a block needs no more than 2 * block * (block + 2) bytes.
    """
    trellis = _Trellis(labels)
    count, total = len(labels), len(log_probs)
    blank, label = np.full(count + 1, -np.inf), np.full(count, -np.inf)
    blank[0] = 0.0
    kept = []
    starts = range(0, total, block)
    for first in starts:
        kept.append((blank.copy(), label.copy()))
        if first == starts[-1]:
            break
        for t, frame in enumerate(log_probs[first : first + block].astype(np.float64), first):
            # States that the first frame cannot have led to, or that lead to no end, are left out.
            low, high = max(0, count - (total - t) - 1), min(count, t + 1)
            trellis.step(blank[low : high + 1], label[low:high], frame, low)
    path = np.full(total, -1, np.int32)
    state = None
    for first in reversed(starts):
        blank, label = kept.pop()
        heard = log_probs[first : first + block].astype(np.float64)
        high = count if state is None else (state + 1) // 2
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
        state: int | None,
        path: NDArray[np.int32],
    ) -> int:
        """The way back from a state through a block (N, V): fills its (N,) of the path, returns the state before it.

        States are blank, label 0, blank, label 1, ..., blank; None: the better one of the last two.
        """
        back = np.zeros((len(heard), 2, len(blank)), np.int8)
        for frame, came in zip(heard, back, strict=True):
            self.step(blank, label, frame, low, came)
        if state is None:
            state = 2 * len(self._labels) - int(label[-1] > blank[-1])
        for t in reversed(range(len(heard))):
            index, is_label = divmod(state, 2)
            if is_label:
                path[t] = index
            state -= int(back[t, is_label, index - low])
        return state
