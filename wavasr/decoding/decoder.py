"""The decoder: what makes a hypothesis of log-probabilities, and what others need to know of it.

    DecodingConfig + model -> Decoder: (T, V) -> Hypothesis

`decoding.factory.decoder_of` makes one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.greedy import Hypothesis, LogProbs, as_array, greedy, penalised, prefix_beam

Labels = tuple[int, ...]


class Running(ABC):
    """Decoding under way.

    Attributes:
        frames: how many have come.
    """

    frames: int

    @abstractmethod
    def push(self, log_probs: LogProbs) -> None:
        """Go on with (t, V) log-probabilities."""

    @abstractmethod
    def best(self) -> Hypothesis:
        """What is best so far, as in `Decoder.draft`; what follows may change it."""

    def agreed(self) -> int:
        """How many of the first words of `best` will be those of the result, whatever follows."""
        return 0

    @abstractmethod
    def finish(self) -> Hypothesis:
        """The hypothesis of all frames; nothing follows."""


class Decoder(ABC):
    """Log-probabilities to a hypothesis. Threads may share it: each call works by itself.

    Attributes:
        config: what it was made from.
    """

    def __init__(self, config: DecodingConfig) -> None:
        self.config = config

    @abstractmethod
    def __call__(self, log_probs: LogProbs | tuple[LogProbs, ...]) -> Hypothesis:
        """Decode (T, V) natural log-probabilities, label 0 the blank; T may be 0.

        Several versions of a recording, played at other speeds, give the hypothesis of the one that costs least, in the
        frames of the first.

        Raises:
            ModelError: the log-probabilities are not numbers.
        """

    @property
    @abstractmethod
    def description(self) -> str:
        """What decodes, in words, for reports."""

    @property
    def words(self) -> Sequence[str]:
        """The words that may come out; empty where the units are searched freely."""
        return ()

    @property
    def spells_words(self) -> bool:
        """Whether phones come out as words."""
        return False

    @property
    def word_source(self) -> str:
        """What lists the words that may come out, for reports; "" where the units are searched freely."""
        return ""

    @property
    def is_search(self) -> bool:
        """Whether it searches with words, a language model or hotwords: results differ from greedy ones, and it takes
        long enough to be worth worker processes.
        """
        return False

    @property
    def thorough(self) -> bool:
        """Whether it wants recordings at several speeds."""
        return False

    @property
    def calibration_key(self) -> str:
        """The decoders that share a calibration: "lm" for those that search, "ctc" for the others."""
        return "lm" if self.is_search else "ctc"

    @property
    def separator(self) -> Labels:
        """The labels between two words: a space, or none where the units have none."""
        return ()

    def spellings(self) -> Mapping[str, Labels]:
        """The words that may come out, each with the first way to spell it in labels."""
        return {}

    def unigrams(self) -> Mapping[str, float]:
        """Probabilities of the words with nothing before them, of those that the language model knows."""
        return {}

    def draft(self, log_probs: LogProbs) -> Hypothesis:
        """A quick hypothesis, for a text that is soon replaced; the spans of its labels are those of their words."""
        return greedy(log_probs)

    def begin(self) -> Running:
        """Decoding of log-probabilities that come bit by bit; the result is that of all of them at once."""
        return _Held(self)


class _Held(Running):
    """Waits for the last frame: for decoders that take no time."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._parts: list[NDArray[np.float32]] = []
        self.frames = 0

    def push(self, log_probs: LogProbs) -> None:
        """Go on with (t, V) log-probabilities."""
        self._parts.append(as_array(log_probs))
        self.frames += len(self._parts[-1])

    def best(self) -> Hypothesis:
        """What is best so far."""
        return self._decoder.draft(np.concatenate(self._parts)) if self.frames else Hypothesis((), 0.0, (), (), 0)

    def finish(self) -> Hypothesis:
        """The hypothesis of all frames."""
        return self._decoder(np.concatenate(self._parts)) if self.frames else Hypothesis((), 0.0, (), (), 0)


class GreedyDecoder(Decoder):
    """The best label of every frame, repeats merged, blanks removed."""

    def __call__(self, log_probs: LogProbs | tuple[LogProbs, ...]) -> Hypothesis:
        values = log_probs[0] if isinstance(log_probs, tuple) else log_probs
        penalty = self.config.blank_penalty
        return greedy(penalised(values, penalty) if penalty else values)

    @property
    def description(self) -> str:
        """What decodes, in words, for reports."""
        return "greedy"


class BeamDecoder(Decoder):
    """Prefix beam search over the units, without words."""

    def __call__(self, log_probs: LogProbs | tuple[LogProbs, ...]) -> Hypothesis:
        values = log_probs[0] if isinstance(log_probs, tuple) else log_probs
        n_best = self.config.n_best
        found = prefix_beam(penalised(values, self.config.blank_penalty or 0.0), self._beam, n_best)
        return replace(found[0], alternatives=tuple(found)) if n_best > 1 else found[0]

    @property
    def _beam(self) -> int:
        return self.config.beam or max(16, self.config.n_best)

    @property
    def description(self) -> str:
        """What decodes, in words, for reports."""
        return f"beam of {self._beam}"
