"""From the head's log-probabilities to labels: greedy, and prefix beam search without a language model.

Both return `Hypothesis`: the labels, and for each label the frames it was found in. Nothing here is random, and equal
input gives equal output. Log-probabilities are arrays or tensors; the work is done on arrays, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from wavasr.decoding.trellis import Piece, most_probable_path, most_probable_path_of
from wavasr.errors import ModelError
from wavasr.language.text import Units, ctc_frames_needed

if TYPE_CHECKING:
    from torch import Tensor

LogProbs: TypeAlias = "NDArray[np.floating[Any]] | Tensor"

PRIORS = "label_priors"  # in a model file's metadata

_BLANK = 0
_PRIOR_SCALE = 0.5
_LEAST_PRIOR = 1e-4  # a label that is hardly ever probable is not to be found everywhere
_LOWEST = -200.0  # keeps sums over frames finite; e^-200 of a probability decides nothing


@dataclass(frozen=True)
class Hypothesis:
    """What was recognised.

    Attributes:
        ids: labels, without blanks.
        score: natural logarithm of a probability: of the best path (greedy) or of all the paths that were kept (beam).
        spans: for each label its first frame and the frame after its last, on the best path of these labels.
        confidences: for each label its mean probability over its span, 0 to 1.
        frames: how many frames the log-probabilities had, where known.
        words: (word, first label, label after the last), where the labels do not spell the words: phones of a lexicon.
        alternatives: the n best hypotheses, this one first, where they were asked for.
    """

    ids: tuple[int, ...]
    score: float
    spans: tuple[tuple[int, int], ...]
    confidences: tuple[float, ...]
    frames: int | None = None
    words: tuple[tuple[str, int, int], ...] | None = None
    alternatives: tuple[Hypothesis, ...] = ()

    def words_in(self, units: Units) -> list[tuple[str, int, int]]:
        """Its words as `Units.words` gives them: (word, index of its first label, index after its last)."""
        return units.words(self.ids) if self.words is None else list(self.words)

    def stretched(self, frames: int) -> Hypothesis:
        """The same of a recording played slower or faster, that has so many frames; every label keeps one at least."""
        if not self.frames or frames == self.frames:
            return replace(self, frames=frames)
        spans, before = [], 0
        for left, (first, end) in zip(reversed(range(len(self.spans))), self.spans, strict=True):
            start = min(max(before, round(first * frames / self.frames)), frames - 1 - left)
            before = min(max(start + 1, round(end * frames / self.frames)), frames - left)
            spans.append((start, before))
        alternatives = tuple(one.stretched(frames) for one in self.alternatives)
        return replace(self, spans=tuple(spans), frames=frames, alternatives=alternatives)

    def text(self, units: Units) -> str:
        """Its words, separated by spaces."""
        return " ".join(word for word, _, _ in self.words_in(units))


def greedy(log_probs: LogProbs) -> Hypothesis:
    """The best label of every frame, repeats merged, blanks removed.

    Args:
        log_probs: (T, V) natural log-probabilities, label 0 the blank; T may be 0.

    Raises:
        ModelError: the log-probabilities are not numbers.
    """
    values = checked(log_probs)
    best = values.max(axis=-1)
    ids, spans, confidences = _labels_of_path(values.argmax(axis=-1), best)
    return Hypothesis(ids, float(best.sum(dtype=np.float64)), spans, confidences, len(values))


def prefix_beam(log_probs: LogProbs, beam: int = 16, n_best: int = 1, min_log_prob: float = -7.0) -> list[Hypothesis]:
    """CTC prefix beam search: labels whose paths together are most probable, best first.

    Every prefix carries the probability of its paths that end in a blank and of those that end in its last label, so
    that a label after a blank is a new one and without it a repeat (Graves & Jaitly 2014; Hannun et al. 2014,
    arXiv 1408.2873, algorithm 1). Exact when `beam` and `min_log_prob` exclude nothing.

    Args:
        log_probs: (T, V) natural log-probabilities, label 0 the blank; T may be 0.
        beam: prefixes kept after each frame.
        n_best: hypotheses returned, at most `beam`; fewer when the beam found fewer.
        min_log_prob: a frame's labels below this do not extend a prefix (they still lengthen or rejoin one).

    Raises:
        ValueError: not 1 <= n_best <= beam.
        ModelError: the log-probabilities are not numbers.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"n_best is {n_best} and beam {beam}; expected 1 <= n_best <= beam")
    log_probs = checked(log_probs)
    search = _PrefixSearch(beam)
    values = log_probs.astype(np.float64)
    for frame, extensions in zip(values, _extensions(values, min_log_prob), strict=True):
        search.step(frame, extensions)
    hypotheses = []
    for ids, score in search.results()[:n_best]:
        spans, confidences = best_path(log_probs, ids)
        hypotheses.append(Hypothesis(ids, score, spans, confidences, len(log_probs)))
    return hypotheses


def best_path(
    log_probs: LogProbs, ids: Sequence[int], pieces: Sequence[Piece] = ()
) -> tuple[tuple[tuple[int, int], ...], tuple[float, ...]]:
    """Where the labels lie on their most probable CTC path (Viterbi): spans and mean probabilities, as in `Hypothesis`.

    Args:
        log_probs: (T, V) natural log-probabilities, label 0 the blank.
        ids: labels without blanks; T must be at least `ctc_frames_needed(ids)`.
        pieces: the same labels with the frames that they lie in, all T of them, where that is known.
    """
    if not ids:
        return (), ()
    assert len(log_probs) >= ctc_frames_needed(ids), "too few frames for these labels"
    values = checked(log_probs)
    labels = np.asarray(ids, np.intp)
    path = most_probable_path_of(values, pieces) if pieces else most_probable_path(values, labels)
    frames = np.flatnonzero(path >= 0)
    states = path[frames]
    firsts = np.searchsorted(states, np.arange(len(labels)))
    lasts = np.append(firsts[1:], len(states)) - 1
    probabilities = np.exp(values[frames, labels[states]].astype(np.float64))
    means = np.minimum(np.add.reduceat(probabilities, firsts) / (lasts - firsts + 1), 1.0)
    return tuple(zip(frames[firsts].tolist(), (frames[lasts] + 1).tolist(), strict=True)), tuple(means.tolist())


def as_array(log_probs: LogProbs) -> NDArray[np.float32]:
    """The log-probabilities as float32 on the CPU; shared memory where they are that already."""
    if isinstance(log_probs, np.ndarray):
        return log_probs.astype(np.float32, copy=False)
    return cast(NDArray[np.float32], log_probs.detach().float().cpu().numpy())


def checked(log_probs: LogProbs) -> NDArray[np.float32]:
    """The same, all of them finite.

    Raises:
        ModelError: they are not numbers.
    """
    values = as_array(log_probs)
    if np.isnan(values).any():
        raise ModelError("the model's output is not a number; its training diverged: train again or use another model")
    return np.maximum(values, np.float32(_LOWEST))


def penalised(log_probs: LogProbs, penalty: float, priors: Sequence[float] | None = None) -> NDArray[np.float32]:
    """Log-probabilities whose blank has `penalty` nats less than before, in frames that again sum to one.

    Args:
        log_probs: (T, V) natural log-probabilities, label 0 the blank.
        penalty: nats.
        priors: of the labels: the square root of each is taken off too. The network's output contains how
            frequent each label was in training, which a language model knows better (hybrid systems remove all of it).

    Raises:
        ModelError: they are not numbers.
    """
    values = checked(log_probs)
    if not (penalty or priors) or not len(values):
        return values
    if priors:
        values = values - np.float32(_PRIOR_SCALE) * np.log(np.maximum(priors, _LEAST_PRIOR)).astype(np.float32)
    values[:, _BLANK] -= penalty
    return values - np.logaddexp.reduce(values, axis=1, keepdims=True)


def priors_of(metadata: Mapping[str, Any], labels: int) -> tuple[float, ...] | None:
    """The mean probability of each label on the dev set, which `fit` writes into the model file; None without.

    Raises:
        ModelError: they are damaged.
    """
    found = metadata.get(PRIORS)
    if found is None:
        return None
    try:
        priors = tuple(float(value) for value in found)
    except (TypeError, ValueError):
        priors = ()
    if len(priors) != labels or not all(0 <= value <= 1 for value in priors):
        raise ModelError(f"{PRIORS} of the model file is damaged; train it again")
    return priors


def _labels_of_path(
    path: NDArray[np.int64], log_prob: NDArray[np.float32]
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[float, ...]]:
    """Collapse a path (T,) of labels with log-probabilities (T,) to labels, spans and mean probabilities."""
    if not len(path):
        return (), (), ()
    starts = np.concatenate([[0], np.flatnonzero(path[1:] != path[:-1]) + 1])
    ends = np.append(starts[1:], len(path))
    means = np.add.reduceat(np.exp(log_prob.astype(np.float64)), starts) / (ends - starts)
    kept = np.flatnonzero(path[starts] != _BLANK)
    ids = tuple(path[starts[kept]].tolist())
    spans = tuple(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))
    return ids, spans, tuple(np.minimum(means[kept], 1.0).tolist())


def _extensions(values: NDArray[np.float64], min_log_prob: float) -> list[NDArray[np.int64]]:
    """For each frame of (T, V) the labels that may extend a prefix: those above the threshold, and the best one."""
    if not len(values):
        return []
    allowed = values >= min_log_prob
    allowed[np.arange(len(values)), values.argmax(axis=1)] = True
    allowed[:, _BLANK] = False
    frames, labels = np.nonzero(allowed)
    return np.split(labels, np.searchsorted(frames, np.arange(1, len(values))))


class _PrefixSearch:
    """The beam: N prefixes as arrays, each a node of a tree in which a prefix has one node only.

    A prefix's node is found by (parent's node, label), so that a prefix that fell out of the beam and is reached anew
    is the same one for those of its continuations that stayed.
    """

    def __init__(self, beam: int) -> None:
        self._beam = beam
        self._parent_of = [-1]
        self._label_of = [_BLANK]
        self._children: dict[tuple[int, int], int] = {}
        self._set_prefixes(np.zeros(1, np.int64))
        self._ends_in_blank = np.zeros(1)
        self._ends_in_label = np.full(1, -np.inf)

    def _set_prefixes(self, nodes: NDArray[np.int64]) -> None:
        self._nodes = nodes
        self._last = np.array([self._label_of[node] for node in nodes.tolist()])
        parents = np.array([self._parent_of[node] for node in nodes.tolist()])
        # Prefix `longer[k]` is prefix `shorter[k]` and one label more: both are in the beam.
        self._longer, self._shorter = np.nonzero(parents[:, None] == nodes)
        self._doubled = self._last[self._longer] == self._last[self._shorter]

    def step(self, frame: NDArray[np.float64], extensions: NDArray[np.int64]) -> None:
        """Take one frame (V,) of log-probabilities; `extensions` are the labels that may lengthen a prefix."""
        either = np.logaddexp(self._ends_in_blank, self._ends_in_label)
        blank = either + frame[_BLANK]
        label = self._ends_in_label + frame[self._last]
        if len(self._longer):
            # A repeat of the last label is new only after a blank.
            source = np.where(self._doubled, self._ends_in_blank[self._shorter], either[self._shorter])
            rejoined = source + frame[self._last[self._longer]]
            label[self._longer] = np.logaddexp(label[self._longer], rejoined)
        if len(extensions):
            longer = either[:, None] + frame[extensions]
            rows, columns = np.nonzero(self._last[:, None] == extensions)
            longer[rows, columns] = self._ends_in_blank[rows] + frame[self._last[rows]]
            if len(self._longer):
                rows, columns = np.nonzero(self._last[self._longer][:, None] == extensions)
                longer[self._shorter[rows], columns] = -np.inf
            if self._keep_best(blank, label, longer, extensions):
                return
        self._ends_in_blank, self._ends_in_label = blank, label

    def _keep_best(
        self,
        blank: NDArray[np.float64],
        label: NDArray[np.float64],
        longer: NDArray[np.float64],
        extensions: NDArray[np.int64],
    ) -> bool:
        """Prune to the beam the prefixes that stay (N,) and those one label longer (N, K); False if none is new."""
        count = len(blank)
        scores = np.concatenate([np.logaddexp(blank, label), longer.ravel()])
        kept = np.flatnonzero(scores > -np.inf)
        if len(kept) > self._beam:
            kept = np.sort(np.argpartition(-scores, self._beam - 1)[: self._beam])
        if len(kept) == count and kept[-1] < count:
            return False
        old, new = kept[kept < count], kept[kept >= count] - count
        rows, columns = np.divmod(new, len(extensions))
        added = [
            self._child(parent, symbol)
            for parent, symbol in zip(self._nodes[rows].tolist(), extensions[columns].tolist(), strict=True)
        ]
        self._ends_in_blank = np.concatenate([blank[old], np.full(len(new), -np.inf)])
        self._ends_in_label = np.concatenate([label[old], longer.ravel()[new]])
        self._set_prefixes(np.concatenate([self._nodes[old], np.array(added, np.int64)]))
        return True

    def _child(self, parent: int, symbol: int) -> int:
        node = self._children.setdefault((parent, symbol), len(self._parent_of))
        if node == len(self._parent_of):
            self._parent_of.append(parent)
            self._label_of.append(symbol)
        return node

    def results(self) -> list[tuple[tuple[int, ...], float]]:
        """The prefixes of the beam with their log-probabilities, best first; equal ones in the order of labels."""
        scores = np.logaddexp(self._ends_in_blank, self._ends_in_label)
        found = [(self._prefix(node), float(score)) for node, score in zip(self._nodes.tolist(), scores, strict=True)]
        return sorted(found, key=lambda result: (-result[1], result[0]))

    def _prefix(self, node: int) -> tuple[int, ...]:
        symbols = []
        while node:
            symbols.append(self._label_of[node])
            node = self._parent_of[node]
        return tuple(reversed(symbols))
