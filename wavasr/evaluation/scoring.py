"""Transcripts and hypotheses made comparable, aligned and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wavasr.corpora.manifest import Utterance
from wavasr.errors import ConfigError, TextError, WavasrError
from wavasr.evaluation import metrics
from wavasr.evaluation.metrics import ErrorCounts, PhoneSet
from wavasr.evaluation.results import UtteranceResult
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import TIMIT_39, TIMIT_48, TIMIT_61
from wavasr.language.text import Units, normalise

_TIMIT_LABELS = {*TIMIT_61, *TIMIT_48, *TIMIT_39}


@dataclass(frozen=True)
class Recognised:
    """What came out for one recording.

    Attributes:
        confidence: 0 to 1; None where the decoder gives none.
        words: the words' confidences before calibration; empty where the decoder gives none.
        greedy: the text without word list and language model; None where it was not asked for.
        compute_s: seconds of network and decoder.
    """

    text: str
    confidence: float | None = None
    words: tuple[float, ...] = ()
    greedy: str | None = None
    compute_s: float = 0.0


@dataclass(frozen=True)
class Scale:
    """What a reference and a hypothesis are counted in."""

    text: TextConfig
    is_phones: bool
    phone_set: PhoneSet | None

    @classmethod
    def of(cls, units: Units, text: TextConfig, phone_set: PhoneSet = 39, words: bool = False) -> Scale:
        """The scale of a model; `words`: its phones come out as words."""
        if words:
            return cls(text, False, None)
        scored: PhoneSet | None = phone_set if units.is_phones and set(units.symbols[1:]) <= _TIMIT_LABELS else None
        if scored == 61 and not set(units.symbols[1:]) <= set(TIMIT_61):
            raise ConfigError(f"phone_set is 61, but the model knows {len(units) - 1} folded phones; score on 48 or 39")
        # "h#" and "ax-h" are labels, not punctuation, and CMUdict's AE is not ae.
        case = text.case if scored else "keep"
        spelling = replace(text, punctuation="keep", digits="keep", case=case) if units.is_phones else text
        return cls(spelling, units.is_phones, scored)

    def reference(self, utterance: Utterance) -> list[str]:
        """The words or phones of a transcript.

        Raises:
            TextError: the transcript cannot be spelled.
        """
        try:
            return self.symbols(normalise(utterance.text, self.text))
        except WavasrError as error:
            raise TextError(f"reference of utterance {utterance.id}: {error}") from error

    def symbols(self, text: str) -> list[str]:
        """The words or phones of a hypothesis."""
        if self.is_phones:
            return metrics.phones(text, self.phone_set)
        return metrics.words(text)


def score(
    utterance: Utterance, hypothesis: str, *, units: Units, text: TextConfig, compute_s: float = 0.0
) -> UtteranceResult:
    """Score one hypothesis as `evaluate` does (39 TIMIT phones where the units are those)."""
    scale = Scale.of(units, text)
    recognised = Recognised(hypothesis, compute_s=compute_s)
    return score_all([utterance], [scale.reference(utterance)], [recognised], scale)[0]


def score_all(
    utterances: Sequence[Utterance],
    references: Sequence[Sequence[str]],
    recognised: Sequence[Recognised],
    scale: Scale,
) -> list[UtteranceResult]:
    """Align and count every utterance; references are in the scale's symbols."""
    hypotheses = [scale.symbols(found.text) for found in recognised]
    alignments = metrics.align_all(references, hypotheses)
    texts = [[" ".join(symbols) for symbols in side] for side in (references, hypotheses)]
    characters: list[ErrorCounts] | list[None] = [None] * len(utterances)
    if not scale.is_phones:
        characters = metrics.count_all(*[[metrics.characters(t) for t in side] for side in texts])
    return [
        UtteranceResult(
            id=u.id,
            speaker=u.speaker,
            audio=u.audio.as_posix(),
            offset_s=u.offset_s,
            duration_s=u.duration_s,
            compute_s=found.compute_s,
            reference=reference,
            hypothesis=hypothesis,
            confidence=found.confidence,
            ops=alignment.ops,
            character_counts=character_counts,
            word_confidences=_by_symbol(found, scale, alignment.counts),
            greedy=greedy,
            greedy_counts=greedy_counts,
        )
        for u, found, reference, hypothesis, alignment, character_counts, (greedy, greedy_counts) in zip(
            utterances, recognised, *texts, alignments, characters, _greedy(references, recognised, scale), strict=True
        )
    ]


def _greedy(
    references: Sequence[Sequence[str]], recognised: Sequence[Recognised], scale: Scale
) -> list[tuple[str | None, ErrorCounts | None]]:
    """Text and errors of the greedy decoding, where there was one."""
    spelled = [None if found.greedy is None else scale.symbols(found.greedy) for found in recognised]
    counts = metrics.count_all(references, [symbols or [] for symbols in spelled])
    return [
        (None, None) if symbols is None else (" ".join(symbols), found)
        for symbols, found in zip(spelled, counts, strict=True)
    ]


def _by_symbol(recognised: Recognised, scale: Scale, counts: ErrorCounts) -> tuple[float, ...]:
    """A confidence for each symbol that is counted; none where folding merges phones that have one each."""
    words = recognised.text.split()
    if len(words) != len(recognised.words):
        return ()
    found = tuple(c for word, c in zip(words, recognised.words, strict=True) for _ in scale.symbols(word))
    return found if len(found) == counts.reference - counts.deletions + counts.insertions else ()
