"""One search of an `LMDecoder`, under way: frames may come bit by bit, and the result is that of all at once."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavasr.decoding.decoder import Running
from wavasr.decoding.greedy import Hypothesis, LogProbs

if TYPE_CHECKING:
    from wavasr.decoding.search import LMDecoder

NOTHING_FOUND = Hypothesis((), 0.0, (), (), 0)


class Emissions(NamedTuple):
    """What a search gets: log-probabilities (T, V) as they are and as they are searched, frames that are surely blank
    (T,), and columns (T, C).
    """

    values: NDArray[np.float32]
    searched: NDArray[np.float32]
    sure: NDArray[np.bool_]
    columns: NDArray[np.float32]


class Search(Running):
    """One search of an `LMDecoder`, whose frames may come bit by bit."""

    def __init__(self, decoder: LMDecoder, beam: int) -> None:
        self._decoder = decoder
        self._lm = decoder.new_lm()
        self._search = decoder.new_search(self._lm, beam)
        self._search.decode_begin()
        self._given: list[Emissions] = []
        self._closed = False
        self.frames = 0

    def push(self, log_probs: LogProbs) -> None:
        """Go on with (t, V) log-probabilities."""
        given = self._decoder.emissions(log_probs)
        self._given.append(given)
        self.frames += len(given.values)
        self._step(given.columns, given.sure)

    def _step(self, columns: NDArray[np.float32], sure: NDArray[np.bool_]) -> None:
        """Of a frame that is surely blank flashlight gets the first column alone, the blank: no label begins there,
        and those that go on it finds behind that column. So half of the frames cost next to nothing.
        """
        data, frame_bytes = columns.ctypes.data, columns.strides[0]
        edges = np.flatnonzero(np.diff(sure)) + 1
        for first, end in itertools.pairwise([0, *edges.tolist(), len(columns)]):
            if first < len(sure) and sure[first]:
                for frame in range(first, end):
                    self._search.decode_step(data + frame * frame_bytes, 1, 1)
            elif end > first:
                self._search.decode_step(data + first * frame_bytes, end - first, columns.shape[1])

    def best(self) -> Hypothesis:
        """What is best so far."""
        return self._decoder.read_best(self._search, self.frames, self._closed) if self.frames else NOTHING_FOUND

    def agreed(self) -> int:
        """How many of the first words of `best` will be those of the result: all hypotheses have them."""
        return self._decoder.agreed(self._search) if self.frames else 0

    def close(self) -> None:
        """No frames will follow."""
        if (ending := self._decoder.ending) is not None:
            self._step(ending, np.zeros(len(ending), np.bool_))
        self._search.decode_end()
        self._closed = True

    def finish(self) -> Hypothesis:
        """The hypothesis of all frames."""
        return self.decoded()[0]

    def decoded(self) -> tuple[Hypothesis, float]:
        """A hypothesis, and its score less that of the likeliest label of every frame."""
        if not self.frames:
            return NOTHING_FOUND, -math.inf
        self.close()
        given = Emissions(*map(np.concatenate, zip(*self._given, strict=True)))
        return self._decoder.chosen(self._lm, self._search, given)
