"""Confidences that mean what they say: of the words at 0.8, eight in ten are right (no torch).

A model's own confidences are mean probabilities of labels. A logistic map of two numbers, fitted on words that were
recognised and compared with what was said, makes them probabilities of being right. It rises everywhere, so which of
two words is surer does not change. Platt 1999; Guo et al. 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import ModelError

BINS = 10
FEWEST_WORDS = 50
KEY = "calibration"
_EDGE = 1e-4  # confidences of 0 and 1 have no logit
_LEAST_SCALE = 0.05
_FOLDS = 5
_PRIOR = 1.0  # how many words the fit must overcome to leave "as it is"

Judged = Sequence[tuple[float, bool]]


@dataclass(frozen=True)
class ConfidenceMap:
    """Confidence c becomes 1 / (1 + exp(-(scale * logit(c) + shift))).

    Attributes:
        words: how many words it was fitted on.
        ece_before: their expected calibration error as they were, as a fraction.
        ece_after: with the map, each fifth of the utterances mapped by what the other four fifths taught.
    """

    scale: float
    shift: float
    words: int = 0
    ece_before: float = 0.0
    ece_after: float = 0.0

    def __call__(self, confidence: float) -> float:
        """The probability of being right: 0 to 1, rising with the confidence."""
        return float(_logistic(self.scale * _logit(np.array([confidence])) + self.shift)[0])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> ConfidenceMap:
        """The inverse of `to_dict`.

        Raises:
            ModelError: the values are not those of a map.
        """
        try:
            scale, shift, before, after = (float(values[key]) for key in ("scale", "shift", "ece_before", "ece_after"))
            found = cls(scale, shift, int(values["words"]), before, after)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError("the calibration is damaged; run wavasr calibrate again") from error
        if not (math.isfinite(found.shift) and 0 < found.scale < math.inf):
            raise ModelError("the calibration is not a rising map; run wavasr calibrate again")
        return found

    @classmethod
    def of(cls, metadata: Mapping[str, Any], decoder: str) -> ConfidenceMap | None:
        """The map that a model file carries for a decoder ("ctc" or "lm"); None where it was never calibrated.

        Raises:
            ModelError: it is damaged.
        """
        values = metadata.get(KEY)
        if isinstance(values, Mapping) and decoder in values:
            return cls.from_dict(values[decoder])
        return None


@dataclass(frozen=True)
class Bin:
    """Words whose confidence lies in [low, high): how many, their mean confidence, and the share that is right."""

    low: float
    high: float
    words: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Reliability:
    """How far confidences are from shares of right words.

    Attributes:
        ece: the expected calibration error, a fraction: the mean over words of the distance between their bin's mean
            confidence and its share of right words.
        bins: ten of equal width; empty ones too.
    """

    ece: float
    bins: tuple[Bin, ...]

    @property
    def words(self) -> int:
        """How many words were judged."""
        return sum(bin.words for bin in self.bins)


def reliability(judged: Judged, bins: int = BINS) -> Reliability:
    """Compare confidences, 0 to 1, with which words are right: (confidence, right) for each word.

    Source: Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    confidences, right = _arrays(judged)
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.maximum(counts, 1)
    means = np.bincount(place, confidences, bins) / filled
    shares = np.bincount(place, right, bins) / filled
    ece = float(np.sum(counts * np.abs(means - shares)) / max(1, len(confidences)))
    rows = zip(counts.tolist(), means.tolist(), shares.tolist(), strict=True)
    return Reliability(ece, tuple(Bin(i / bins, (i + 1) / bins, *row) for i, row in enumerate(rows)))


def fit_map(utterances: Sequence[Judged]) -> ConfidenceMap | None:
    """The map of most likelihood, with a weak pull towards "as it is".

    The pull keeps few words, or words that are all right, from giving an extreme map.

    Args:
        utterances: for each utterance (confidence, right) of its recognised words.

    Returns:
        None with fewer than 50 words.
    """
    used = [judged for judged in utterances if judged]
    words = [word for judged in used for word in judged]
    if len(words) < FEWEST_WORDS:
        return None
    scale, shift = _fit(words)
    return ConfidenceMap(scale, shift, len(words), reliability(words).ece, _cross_validated(used))


def _cross_validated(utterances: Sequence[Judged]) -> float:
    """The calibration error over all folds, each mapped by what is fitted on the others."""
    mapped: list[tuple[float, bool]] = []
    for fold in range(_FOLDS):
        others = [word for i, judged in enumerate(utterances) if i % _FOLDS != fold for word in judged]
        found = ConfidenceMap(*_fit(others))
        mapped += [(found(c), right) for judged in utterances[fold::_FOLDS] for c, right in judged]
    return reliability(mapped).ece


def _fit(words: Judged) -> tuple[float, float]:
    """Scale and shift by Newton's method on the penalised likelihood."""
    confidences, right = _arrays(words)
    inputs = np.stack([_logit(confidences), np.ones(len(words))], axis=1)  # (N, 2)
    start = np.array([1.0, 0.0])
    found = start.copy()
    for _ in range(50):
        probability = _logistic(inputs @ found)
        slope = inputs.T @ (probability - right) + _PRIOR * (found - start)
        curvature = (inputs * (probability * (1 - probability))[:, None]).T @ inputs + _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        found -= np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-9:
            break
    return max(_LEAST_SCALE, float(found[0])), float(found[1])


def _arrays(judged: Judged) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    confidences = np.array([confidence for confidence, _ in judged], dtype=np.float64)
    return confidences, np.array([right for _, right in judged], dtype=np.float64)


def _logit(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(confidence, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _logistic(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -50, 50))))


def mean(confidences: Iterable[float]) -> float | None:
    """The mean, None of nothing: how sure a text is, from its words."""
    found = list(confidences)
    return sum(found) / len(found) if found else None
