"""Entropy pruning of n-gram models: the n-grams that raise the perplexity least are left out.

Source: Stolcke 1998, "Entropy-based pruning of backoff language models".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wavasr.errors import ConfigError
from wavasr.language.ngrams import BEGIN_LABEL, UNKNOWN_LABEL, Floats, NgramModel, Order, pieces, sums_by_history

log = logging.getLogger("wavasr")
Flags = NDArray[np.bool_]


def prune(model: NgramModel, threshold: float = 0.0, ngrams: int = 0) -> NgramModel:
    """Leave out the n-grams that are worth least.

    An n-gram stays when leaving it out alone would raise the perplexity by `threshold` or more (relatively), or when a
    longer one that stays begins or ends with it. How often a history occurs is counted, not taken from the model, whose
    shorter n-grams are about continuations (Chelba et al. 2010). Those with <unk> go in any case.

    Args:
        model: an unpruned model of `estimate`.
        threshold: relative rise of the perplexity; 0 keeps everything.
        ngrams: at most this many n-grams of two words and more: raises the threshold as needed; 0 for any number.

    Raises:
        ConfigError: a negative value.
    """
    if not threshold >= 0 or ngrams < 0:
        raise ConfigError(f"--prune is {threshold:g} and --ngrams {ngrams}; expected 0 or more")
    worth = _worth(model)
    kept = _kept(model, worth, threshold)
    if ngrams and _count(kept) > ngrams:
        threshold = _threshold_for(model, worth, threshold, ngrams)
        kept = _kept(model, worth, threshold)
        log.info("pruned at %.2e to keep at most %d n-grams of two words and more", threshold, ngrams)
    return _without(model, kept)


def _threshold_for(model: NgramModel, worth: Sequence[Floats], lowest: float, ngrams: int) -> float:
    """The lowest threshold above `lowest` that keeps at most so many n-grams.

    Positive 32-bit numbers are ordered as the integers of the same bits are: 31 halvings find the very number.
    """
    low, high = (int(np.float32(value).view(np.int32)) for value in (lowest, math.inf))
    while high - low > 1:
        middle = (low + high) // 2
        if _count(_kept(model, worth, _of_bits(middle))) > ngrams:
            low = middle
        else:
            high = middle
    return _of_bits(high)


def _of_bits(bits: int) -> float:
    return float(np.int32(bits).view(np.float32))


def _worth(model: NgramModel) -> list[Floats]:
    """For each n-gram the relative rise of the perplexity without it; -inf for those with <unk>."""
    words = max(1, int(model.orders[0].counts.sum(dtype=np.int64) - model.orders[0].counts[BEGIN_LABEL]))
    found = [np.full(len(model.orders[0]), np.inf, np.float32)]
    unknown = model.orders[0].word == UNKNOWN_LABEL
    for below, here in zip(model.orders, model.orders[1:], strict=False):
        shorter = np.concatenate([[np.float32(0)], *(below.prob[here.suffix[part]] for part in pieces(len(here)))])[1:]
        free = np.maximum(1.0 - sums_by_history(here, shorter, len(below)), 1e-12)
        worth = np.empty(len(here), np.float32)
        flags = np.empty(len(here), bool)
        for part in pieces(len(here)):
            history, prob, lower = here.history[part], here.prob[part].astype(np.float64), shorter[part]
            weight = below.backoff[history].astype(np.float64)
            left = free[history] * weight  # probability of what the history leaves to back-off
            weight_after = (left + prob) / (free[history] + lower)
            change = prob * (np.log(lower * weight_after) - np.log(prob)) + left * np.log(weight_after / weight)
            flags[part] = unknown[history] | (here.word[part] == UNKNOWN_LABEL)
            worth[part] = np.where(flags[part], -np.inf, np.expm1(-below.counts[history] / words * change))
        found.append(worth)
        unknown = flags
    return found


def _kept(model: NgramModel, worth: Sequence[Floats], threshold: float) -> list[Flags]:
    kept: list[Flags] = []
    above: Order | None = None
    for here, values in zip(reversed(model.orders), reversed(worth), strict=True):
        stays = (values >= np.float32(threshold)) if threshold else values > -np.inf
        if above is not None:
            stays[above.history[kept[-1]]] = True
            stays[above.suffix[kept[-1]]] = True
        kept.append(stays)
        above = here
    return kept[::-1]


def _count(kept: Sequence[Flags]) -> int:
    return sum(int(np.count_nonzero(stays)) for stays in kept[1:])


def _without(model: NgramModel, kept: Sequence[Flags]) -> NgramModel:
    """The n-grams that are kept; the histories that lost some give what is left to back-off."""
    orders = [model.orders[0]]
    renumbered = np.arange(len(orders[0]), dtype=np.int32)
    for below, here, stays in zip(model.orders, model.orders[1:], kept[1:], strict=False):
        lost = np.zeros(len(below), bool)
        lost[here.history[~stays]] = True
        rest = Order(*(getattr(here, name)[stays] for name in Order.__dataclass_fields__))
        given = sums_by_history(rest, rest.prob, len(below))
        shorter = sums_by_history(rest, below.prob[rest.suffix], len(below))
        backoff = np.where(lost, np.maximum(1 - given, 1e-12) / np.maximum(1 - shorter, 1e-12), below.backoff)
        kept_below = renumbered >= 0
        orders[-1] = replace(orders[-1], backoff=backoff[kept_below].astype(np.float32))
        if not len(rest):
            break
        orders.append(replace(rest, history=renumbered[rest.history], suffix=renumbered[rest.suffix]))
        renumbered = np.where(stays, np.cumsum(stays, dtype=np.int32) - np.int32(1), np.int32(-1))
    return replace(model, orders=tuple(orders))
