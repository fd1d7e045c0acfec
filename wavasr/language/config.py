"""How transcripts are spelled, and the units that a recogniser spells with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wavasr.config import check


@dataclass(frozen=True)
class TextConfig:
    """How a transcript is spelled before it becomes labels; the model file carries it.

    Attributes:
        case: "lower", "upper" or "keep".
        punctuation: "drop" (apostrophes inside words stay) or "keep".
        strip_symbols: characters removed wherever they stand, e.g. "+" for festvox-ru's stress marks.
        digits: "keep" digits as they are, or "spell" them one by one in English ("42" -> "four two").
    """

    case: Literal["lower", "upper", "keep"] = "lower"
    punctuation: Literal["drop", "keep"] = "drop"
    strip_symbols: str = ""
    digits: Literal["keep", "spell"] = "keep"

    def __post_init__(self) -> None:
        check(self, "text.")


@dataclass(frozen=True)
class UnitsConfig:
    """What the CTC head spells with.

    Attributes:
        kind: "characters" or "words" (collected from the training text), "sentencepiece" (trained on it), "phones" (the
            transcripts are phone sequences).
        size: vocabulary size of SentencePiece; unused by the others.
        phone_set: for TIMIT phones: which folding the labels use (61, 48 or 39); 0 for phones of another set, which
            are taken as they are.
        out_of_inventory: what a validation or training transcript with an unknown symbol does: an "error" naming
            utterance and symbol, or "drop" it and count it.
    """

    kind: Literal["characters", "words", "sentencepiece", "phones"] = "characters"
    size: int = 128
    phone_set: Literal[61, 48, 39, 0] = 48
    out_of_inventory: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        check(self, "units.", size="[2, inf)")
