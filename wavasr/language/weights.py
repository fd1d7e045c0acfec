"""The weights that were tuned for a language model: a JSON file beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from wavasr.errors import ConfigError

WEIGHTS_SUFFIX = ".json"


def weights_path(path: Path) -> Path:
    """Where `wavasr lm tune` leaves its choice for a language model."""
    return path.with_name(path.name + WEIGHTS_SUFFIX)


class Weights(NamedTuple):
    """What a decoder weighs a language model with, in the terms of `DecodingConfig`."""

    lm_weight: float
    word_score: float
    blank_penalty: float = 0.0


def tuned_weights(path: Path) -> Weights | None:
    """The weights that were tuned for a language model; None where they were not.

    Raises:
        ConfigError: the file beside the language model is damaged.
    """
    file = weights_path(path)
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        found = Weights(**{name: float(values[name]) for name in Weights._fields if name in values})
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{file}: expected JSON with lm_weight and word_score; run wavasr lm tune again") from error
    if not all(map(math.isfinite, found)) or found.lm_weight < 0:
        raise ConfigError(f"{file}: {found} cannot be used; run wavasr lm tune again")
    return found
