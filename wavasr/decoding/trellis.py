"""CTC paths of known labels: the most probable one (Viterbi), and the sum over all of them (forward).

`most_probable_path` is exact for a recording of any length: scores are kept every 2048 frames, and the way back is
found from them block by block. An hour of 20 ms frames with 50,000 characters takes 80 MB besides the
log-probabilities, in place of the 18 GB of one byte a frame and state; its 9,000,000,000 steps take a minute or two.

Where it is known which labels lie in which frames, these are `Piece`s, computed beside each other as rows of arrays: a
thirtieth of the steps of whole utterances, and of the labels in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_FRAMES = 2048
_SCALED_FRAMES = 4  # a forward pass is scaled each so many, before its probabilities underflow
_SHORT_FRAMES = 64  # pieces this short are computed together
_BLANK = 0


class Piece(NamedTuple):
    """Labels, without blanks, that lie in the frames from `first` to before `end`."""

    first: int
    end: int
    ids: tuple[int, ...]


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
        emitted = log_probs[first : first + block].astype(np.float64)
        high = count if state is None else (state + 1) // 2
        low = max(0, high - len(emitted) - 1)
        if high == 0:
            break
        state = trellis.trace(blank[low : high + 1], label[low:high], emitted, low, state, path[first : first + block])
    return path


def most_probable_path_of(log_probs: NDArray[np.float32], pieces: Sequence[Piece]) -> NDArray[np.int32]:
    """The best CTC path of pieces that make up an utterance: (T, V) -> (T,) as in `most_probable_path`."""
    path = np.full(len(log_probs), -1, np.int32)
    for group in _alike(pieces):
        if len(group) == 1:  # perhaps a long one
            first, end, ids = pieces[group[0]]
            if ids:
                path[first:end] = most_probable_path(log_probs[first:end], np.array(ids))
            continue
        for index, found in zip(group, _paths(log_probs, [pieces[index] for index in group]), strict=True):
            first, end, _ = pieces[index]
            path[first:end] = found[first - end :]
    before = 0
    for first, end, ids in pieces:
        path[first:end][path[first:end] >= 0] += before
        before += len(ids)
    return path


def _paths(log_probs: NDArray[np.float32], pieces: Sequence[Piece]) -> NDArray[np.int32]:
    """The best path of each piece, (R, F), behind the frames in which it waits for longer ones."""
    rows = _Rows(pieces)
    waiting = np.full((1, log_probs.shape[1]), -np.inf)
    waiting[0, _BLANK] = 0.0
    frames = np.concatenate([log_probs, waiting])
    blank, label = np.full(rows.blanks, -np.inf), np.full(rows.labels.shape, -np.inf)
    blank[:, 0] = 0.0
    skip, moved = np.where(rows.repeats, -np.inf, 0.0), np.empty(label.shape)
    back = np.zeros((rows.longest, 2, *rows.blanks), np.int8)
    for t, came in enumerate(back):
        _step(blank, label, skip, *rows.at(frames, t), moved, came)
    each, last = np.arange(len(pieces)), np.maximum(rows.counts - 1, 0)
    state = 2 * rows.counts - ((rows.counts > 0) & (label[each, last] > blank[each, rows.counts]))
    path = np.empty((len(pieces), rows.longest), np.int32)
    for t in reversed(range(rows.longest)):
        index, is_label = np.divmod(state, 2)
        path[:, t] = np.where(is_label, index, -1)
        state -= back[t, is_label, each, index]
    return path


def log_likelihoods(log_probs: NDArray[np.float32], pieces: Sequence[Piece]) -> NDArray[np.float64]:
    """Log-probability of each piece's labels in its frames, summed over all CTC paths: (T, V), R of them -> (R,).

    Source: Graves et al. 2006, equation 6.

    Args:
        log_probs: natural log-probabilities, label 0 the blank.
        pieces: of at least one frame each; they may overlap.
    """
    total = np.zeros(len(pieces))
    if len(pieces):
        probs = np.exp(log_probs.astype(np.float64))
        for group in _alike(pieces):
            total[group] = _sums(probs, [pieces[index] for index in group])
    return total


def ctc_log_probs(log_probs: NDArray[np.float32], labellings: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability of each labelling of all frames, (T, V), see `log_likelihoods`."""
    found = log_likelihoods(log_probs, [Piece(0, len(log_probs), tuple(ids)) for ids in labellings])
    return [float(score) for score in found]


def _sums(probs: NDArray[np.float64], pieces: Sequence[Piece]) -> NDArray[np.float64]:
    rows = _Rows(pieces)
    waiting = np.zeros((1, probs.shape[1]))
    waiting[0, _BLANK] = 1.0
    frames = np.concatenate([probs, waiting])
    blank, label = np.zeros(rows.blanks), np.zeros(rows.labels.shape)
    blank[:, 0] = 1.0
    skips = np.where(rows.repeats, 0.0, 1.0)[:, 1:]
    total = np.zeros(len(pieces))
    with np.errstate(divide="ignore"):
        for t in range(rows.longest):
            silent, emitted = rows.at(frames, t)
            moved = label + blank[:, :-1]
            moved[:, 1:] += label[:, :-1] * skips
            blank[:, 1:] += label
            blank *= silent
            label = np.multiply(moved, emitted, out=moved)
            if t % _SCALED_FRAMES == 0:
                scale = blank.sum(axis=1) + label.sum(axis=1)
                total += np.log(scale)
                scale[scale == 0] = 1.0  # what is impossible stays 0
                blank /= scale[:, None]
                label /= scale[:, None]
        each, last = np.arange(len(pieces)), np.maximum(rows.counts - 1, 0)
        in_label = np.where(rows.counts > 0, label[each, last], 0.0)
        return np.asarray(total + np.log(blank[each, rows.counts] + in_label))


def _alike(pieces: Sequence[Piece]) -> list[list[int]]:
    """The numbers of pieces in groups of like length: none waits much longer than it takes."""
    groups: list[list[int]] = []
    longest = 0
    for frames, index in sorted((end - first, index) for index, (first, end, _) in enumerate(pieces)):
        if frames > longest:
            groups.append([])
            longest = 2 * frames + _SHORT_FRAMES
        groups[-1].append(index)
    return groups


class _Rows:
    """Pieces beside each other. They end together: one that is shorter than the others begins later.

    Attributes:
        longest: F, frames of the longest one.
        labels: (R, L), padded with blanks behind each one's own.
        counts: (R,) how many are its own.
        blanks: the shape (R, L + 1) of the blanks around them.
        repeats: (R, L) whether a label cannot follow the one before without a blank; so for the first one.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        firsts = np.array([piece.first for piece in pieces])[:, None]
        ends = np.array([piece.end for piece in pieces])[:, None]
        self.longest = int((ends - firsts).max())
        self._frames = ends + np.arange(-self.longest, 0)
        self._frames[self._frames < firsts] = -1  # the frame behind all others, in which they wait
        self.counts = np.array([len(piece.ids) for piece in pieces])
        self.labels = np.full((len(pieces), max(1, int(self.counts.max()))), _BLANK)
        for row, piece in zip(self.labels, pieces, strict=True):
            row[: len(piece.ids)] = piece.ids
        self.blanks = (len(pieces), self.labels.shape[1] + 1)
        self.repeats = np.diff(self.labels, axis=1, prepend=self.labels[:, :1]) == 0

    def at(self, frames: NDArray[np.float64], t: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The blank, (R, 1), and the labels, (R, L), in the frame t of the rows; `frames` is (T + 1, V)."""
        numbers = self._frames[:, t, None]
        return frames[numbers, _BLANK], frames[numbers, self.labels]


def _step(
    blank: NDArray[np.float64],
    label: NDArray[np.float64],
    skip: NDArray[np.float64],
    silent: NDArray[np.float64] | np.float64,
    emitted: NDArray[np.float64],
    moved: NDArray[np.float64],
    back: NDArray[np.int8] | None = None,
) -> None:
    """Take one frame: scores of labels (..., L) and of the blanks around them (..., L + 1), in place.

    Args:
        blank: scores of the blanks.
        label: scores of the labels.
        skip: (..., L) 0, or -inf where a label cannot follow the one before it without a blank.
        silent: log-probability of the blank in this frame.
        emitted: (..., L) those of the labels.
        moved: room for as many.
        back: (2, ..., L + 1), gets where the best way into each state came from: back[0] is 1 for a blank that a label
            led to; back[1] is 0 for a label that stayed, 1 from the blank before it, 2 from the label before it.
    """
    moved[..., 0] = -np.inf
    np.add(label[..., :-1], skip[..., 1:], out=moved[..., 1:])
    if back is not None:
        back[0, ..., 1:] = label > blank[..., 1:]
        back[1, ..., :-1] = np.where(moved > np.maximum(label, blank[..., :-1]), 2, blank[..., :-1] > label)
    np.maximum(moved, blank[..., :-1], out=moved)
    np.maximum(blank[..., 1:], label, out=blank[..., 1:])
    np.add(blank, silent, out=blank)
    np.maximum(label, moved, out=label)
    np.add(label, emitted, out=label)


class _Trellis:
    """States of the CTC paths of L labels: the blanks around them and the labels, as arrays (L + 1,) and (L,)."""

    def __init__(self, labels: NDArray[np.intp]) -> None:
        self._labels = labels
        # A label can follow the one before without a blank, unless they are equal.
        self._skip = np.where(np.diff(labels, prepend=-1) == 0, -np.inf, 0.0)
        self._moved = np.empty(len(labels))
        self._emitted = np.empty(len(labels))

    def step(
        self,
        blank: NDArray[np.float64],
        label: NDArray[np.float64],
        frame: NDArray[np.float64],
        low: int,
        back: NDArray[np.int8] | None = None,
    ) -> None:
        """Take one frame (V,): scores of the labels from `low` on and of the blanks around them, see `_step`."""
        places = slice(low, low + len(label))
        emitted = np.take(frame, self._labels[places], out=self._emitted[: len(label)], mode="clip")
        _step(blank, label, self._skip[places], frame[_BLANK], emitted, self._moved[: len(label)], back)

    def trace(
        self,
        blank: NDArray[np.float64],
        label: NDArray[np.float64],
        emitted: NDArray[np.float64],
        low: int,
        state: int | None,
        path: NDArray[np.int32],
    ) -> int:
        """The way back from a state through a block (N, V): fills its (N,) of the path, returns the state before it.

        States are blank, label 0, blank, label 1, ..., blank; None: the better one of the last two.
        """
        back = np.zeros((len(emitted), 2, len(blank)), np.int8)
        for frame, came in zip(emitted, back, strict=True):
            self.step(blank, label, frame, low, came)
        if state is None:
            state = 2 * len(self._labels) - int(label[-1] > blank[-1])
        for t in reversed(range(len(emitted))):
            index, is_label = divmod(state, 2)
            if is_label:
                path[t] = index
            state -= int(back[t, is_label, index - low])
        return state
