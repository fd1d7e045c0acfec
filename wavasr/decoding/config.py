"""How log-probabilities become text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wavasr.archive import Source
from wavasr.config import check, require

NOTHING = Path("none")


@dataclass(frozen=True)
class DecodingConfig:
    """How log-probabilities become text.

    Attributes:
        beam: hypotheses that the beam keeps; 0: as many as are usual with a language model, greedy decoding without.
        n_best: hypotheses in the result.
        lm: an n-gram model of words (of phones, for phones without a lexicon): ARPA, also as .gz, or KenLM binary.
            None: the model file's own, if any; `NOTHING`: none.
        lexicon: the words that may be said, one a line; for phones with how they are pronounced, as in CMUdict. None:
            likewise the model file's own, otherwise the words of the language model; `NOTHING`: no list.
        lm_words_only: whether words of the lexicon that the language model does not know are left out. So it is where a
            language model is named and the lexicon is the model file's own.
        lm_weight: weight of the language model's logarithms; None: as tuned for the model, else the decoder's own.
        word_score: nats that a word (a phone, for phones without a lexicon) earns; None: likewise.
        blank_penalty: nats that a frame without a label costs, so that less is left out; None: likewise, else 0.
        hotwords: words and phrases to expect.
        hotword_boost: nats that each word of a hotword earns.
        thorough: whether a recording is also decoded a bit slower and faster; of the three texts the one is kept that
            costs least. It takes three times as long, and needs words or a language model.
        rescorer: a second language model, that chooses among the texts that the search finds best; None: that of the
            model file which the language model is from, if any; `NOTHING`: none.
        rescorer_weight: of its logarithms; None: as tuned for the model file.
        vad: whether only what voice activity detection takes for speech is decoded.
    """

    beam: int = 0
    n_best: int = 1
    lm: Source | None = None
    lexicon: Source | None = None
    lm_words_only: bool = False
    lm_weight: float | None = None
    word_score: float | None = None
    blank_penalty: float | None = None
    hotwords: tuple[str, ...] = ()
    hotword_boost: float = 5.0
    thorough: bool = False
    rescorer: Source | None = None
    rescorer_weight: float | None = None
    vad: bool = True

    def __post_init__(self) -> None:
        check(self, "", beam="[0, inf)", n_best="[1, inf)", lm_weight="[0, inf)", rescorer_weight="[0, inf)")
        check(self, "", word_score="(-inf, inf)", blank_penalty="(-inf, inf)", hotword_boost="(-inf, inf)")
        require(
            self.beam == 0 or self.n_best <= self.beam,
            f"n_best is {self.n_best} and beam {self.beam}; the beam cannot give more than it keeps",
        )

    @property
    def searches(self) -> bool:
        """Whether it takes more than the model's own output to decode."""
        return bool(self.lm or self.lexicon or self.hotwords)

    @property
    def only_lm_words(self) -> bool:
        """Whether a language model limits the words to its own."""
        return self.lm is not None and self.lm_words_only


DEFAULT = DecodingConfig()
GREEDY = DecodingConfig(lm=NOTHING, lexicon=NOTHING)
