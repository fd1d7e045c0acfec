"""What an evaluation found: every utterance's result, the corpus rates with their intervals, where they come from."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from wavasr.decoding.confidence import ConfidenceMap, Reliability, mean, reliability
from wavasr.evaluation import metrics
from wavasr.evaluation.metrics import Alignment, ErrorCounts, Interval, Op

_SPEAKER_RESAMPLES = 1000


@dataclass(frozen=True)
class UtteranceResult:
    """One scored utterance.

    Attributes:
        reference: the transcript as the model's text normalisation spells it; folded phones for a phone error rate.
        hypothesis: what the model made of it, folded alike.
        ops: the alignment of the two in words or phones.
        character_counts: None for phones.
        compute_s: network and decoder, its share of the batch by duration.
        confidence: mean confidence of the words, calibrated where the model is; None where nothing was recognised.
        word_confidences: of each word (or phone) of the hypothesis, before calibration; empty where unknown.
        greedy: what the model says without word list and language model, where it was decoded with one.
        greedy_counts: its errors.
    """

    id: str
    speaker: str
    audio: str
    offset_s: float
    duration_s: float
    compute_s: float
    reference: str
    hypothesis: str
    confidence: float | None
    ops: tuple[Op, ...]
    character_counts: ErrorCounts | None
    word_confidences: tuple[float, ...] = ()
    greedy: str | None = None
    greedy_counts: ErrorCounts | None = None

    @functools.cached_property
    def counts(self) -> ErrorCounts:
        """Errors in words or phones."""
        return Alignment(self.ops).counts

    @property
    def judged(self) -> list[tuple[float, bool]]:
        """For each word of the hypothesis its confidence before calibration, and whether it is right."""
        if not self.word_confidences:
            return []
        right = [op.kind == "equal" for op in self.ops if op.kind != "delete"]
        return list(zip(self.word_confidences, right, strict=True))


@dataclass(frozen=True)
class Failure:
    """An utterance that could not be recognised, and why; it is not in the counts."""

    id: str
    audio: str
    message: str


@dataclass(frozen=True)
class Rate:
    """Counts of a whole corpus or of one speaker, with bootstrap 95 % intervals of the rate.

    Attributes:
        ci95: utterances resampled; None with fewer than two references that are not empty.
        ci95_speakers: whole speakers resampled; None with fewer than two speakers.
    """

    counts: ErrorCounts
    ci95: Interval | None
    ci95_speakers: Interval | None = None

    @property
    def value(self) -> float:
        return self.counts.rate


@dataclass(frozen=True)
class Provenance:
    """What somebody needs to get the same figures again."""

    model: str = ""
    model_sha256: str = ""
    parameters: int = 0
    units: str = ""
    text: str = ""
    manifest: str = ""
    manifest_sha256: str = ""
    decoder: str = ""
    batch_s: float = 0.0
    device: str = ""
    machine: str = ""
    date: str = ""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Vocabulary:
    """What the decoder's word list, or the model, knows of the words in the references.

    Attributes:
        source: what lists the words.
        size: how many it lists.
        missing: the different words of the references that it does not, sorted.
        per_million: for words of the references how often the language model expects them in a million words, with
            nothing before them; empty without a language model.
    """

    source: str
    size: int
    missing: tuple[str, ...] = ()
    per_million: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Every utterance's result in the manifest's order, the corpus rates, and where they come from.

    Attributes:
        metric: "wer" (with `cer`) for words, "per" for phones.
        phone_set: the scored phone set in words; "" for words.
        rate: word or phone errors.
        character_rate: None for phones.
        notes: what a reader of the figures should know.
        wall_s: from the first file read to the last text, reading included.
        calibration: the model's map from its own confidences to probabilities of being right; None where it has none.
        greedy_rate: errors of the same model without word list and language model; None where it was decoded without.
        vocabulary: None where any word can be spelled, or phones are counted.
    """

    metric: Literal["wer", "per"]
    phone_set: str
    utterances: tuple[UtteranceResult, ...]
    failures: tuple[Failure, ...]
    rate: Rate
    character_rate: Rate | None
    notes: tuple[str, ...]
    wall_s: float
    provenance: Provenance
    calibration: ConfidenceMap | None = None
    greedy_rate: Rate | None = None
    vocabulary: Vocabulary | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of speech that were scored."""
        return math.fsum(u.duration_s for u in self.utterances)

    @property
    def compute_s(self) -> float:
        """Seconds that network and decoder took."""
        return math.fsum(u.compute_s for u in self.utterances)

    @property
    def real_time_factor(self) -> float:
        """Compute seconds per second of audio; below 1 is faster than speech."""
        return self.compute_s / self.audio_s if self.audio_s else 0.0

    @property
    def sentence_errors(self) -> int:
        """Utterances with at least one error."""
        return sum(u.counts.errors > 0 for u in self.utterances)

    def reliability(self, calibration: ConfidenceMap | None = None) -> Reliability | None:
        """How far the words' confidences are from the share of right words; None where there are none.

        Args:
            calibration: maps them before; None: the model's own confidences.
        """
        judged = [word for utterance in self.utterances for word in utterance.judged]
        if calibration is not None:
            judged = [(calibration(confidence), right) for confidence, right in judged]
        return reliability(judged) if judged else None

    def calibrated(self, calibration: ConfidenceMap) -> Evaluation:
        """The same with another calibration."""
        utterances = tuple(
            replace(u, confidence=mean(map(calibration, u.word_confidences))) if u.word_confidences else u
            for u in self.utterances
        )
        return replace(self, utterances=utterances, calibration=calibration)

    def speakers(self) -> dict[str, list[UtteranceResult]]:
        """Results by speaker, in order of appearance; empty when the manifest names none."""
        grouped: dict[str, list[UtteranceResult]] = {}
        for utterance in self.utterances:
            grouped.setdefault(utterance.speaker, []).append(utterance)
        return {} if set(grouped) <= {""} else grouped


def assemble(
    results: Sequence[UtteranceResult],
    failures: Sequence[Failure] = (),
    *,
    metric: Literal["wer", "per"] = "wer",
    phone_set: str = "",
    notes: Sequence[str] = (),
    wall_s: float = 0.0,
    provenance: Provenance | None = None,
    calibration: ConfidenceMap | None = None,
    vocabulary: Vocabulary | None = None,
) -> Evaluation:
    """An `Evaluation` from scored utterances: counts summed, divided once, with their intervals."""
    speakers = [u.speaker for u in results]
    characters = [u.character_counts for u in results if u.character_counts is not None]
    greedy = [u.greedy_counts for u in results if u.greedy_counts is not None]
    return Evaluation(
        metric=metric,
        phone_set=phone_set,
        utterances=tuple(results),
        failures=tuple(failures),
        rate=rate_of([u.counts for u in results], speakers),
        character_rate=rate_of(characters, speakers) if metric == "wer" else None,
        notes=tuple(notes),
        wall_s=wall_s,
        provenance=provenance or Provenance(),
        calibration=calibration,
        greedy_rate=rate_of(greedy, speakers) if len(greedy) == len(results) > 0 else None,
        vocabulary=vocabulary,
    )


def rate_of(counts: Sequence[ErrorCounts], speakers: Sequence[str] = (), *, resamples: int = 10_000) -> Rate:
    """Sum the counts of utterances; intervals by utterance and, with two or more speakers, by speaker.

    One utterance alone has no interval: nothing is known of others. Where there is no error, resampling finds
    none either: then the interval is Wilson's, of a share of 0 of as many words.
    """
    total = ErrorCounts.total(counts)
    if sum(c.reference > 0 for c in counts) < 2:
        return Rate(total, None)
    if not total.errors:
        return Rate(total, metrics.share_interval(0, total.reference))
    by_speaker = None
    if len(set(speakers)) > 1:
        by_speaker = metrics.bootstrap_ci(counts, groups=speakers, resamples=resamples)
    return Rate(total, metrics.bootstrap_ci(counts, resamples=resamples), by_speaker)


def speaker_rates(evaluation: Evaluation) -> dict[str, Rate]:
    """The rate of each speaker, highest first."""
    rates = {
        speaker: rate_of([u.counts for u in results], resamples=_SPEAKER_RESAMPLES)
        for speaker, results in evaluation.speakers().items()
    }
    return dict(sorted(rates.items(), key=lambda item: (-item[1].value, item[0])))
