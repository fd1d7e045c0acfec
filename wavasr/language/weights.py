"""The weights of a language model in decoding."""

from __future__ import annotations

from typing import NamedTuple


class Weights(NamedTuple):
    """What a decoder weighs a language model with, in the terms of `DecodingConfig`."""

    lm_weight: float
    word_score: float
    blank_penalty: float = 0.0
