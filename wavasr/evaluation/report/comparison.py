"""Two systems on the same utterances: is one better, or is it chance?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavasr.errors import WavasrError
from wavasr.evaluation.metrics import PairedResult, paired_bootstrap
from wavasr.evaluation.report import wording
from wavasr.evaluation.report.store import read
from wavasr.evaluation.results import Evaluation, Rate, UtteranceResult


@dataclass(frozen=True)
class Comparison:
    """This system against a baseline; `str()` gives it in words.

    Attributes:
        paired: this system minus the baseline; utterances resampled.
        paired_speakers: the same with whole speakers resampled; None with fewer than two speakers.
        changes: (of the baseline, of this system) for every utterance whose number of errors differs, those most
            improved first.
    """

    metric: str
    name: str
    baseline_name: str
    rate: Rate
    baseline_rate: Rate
    paired: PairedResult
    paired_speakers: PairedResult | None
    changes: tuple[tuple[UtteranceResult, UtteranceResult], ...]

    @property
    def decided(self) -> bool:
        """Whether the 95 % interval of the difference leaves out zero; one utterance decides nothing."""
        outside = self.paired.interval.low > 0 or self.paired.interval.high < 0
        return outside and self.rate.ci95 is not None

    @property
    def verdict(self) -> str:
        """One sentence, in words."""
        size = f"{100 * abs(self.paired.difference):.2f} points"
        if not self.decided:
            return f"No difference shown: {size} lie within what chance gives on these utterances."
        better, other = (
            ("This system", "the baseline") if self.paired.difference < 0 else ("The baseline", "this system")
        )
        return f"{better} makes fewer errors than {other}, by {size} of {self.metric.upper()}."

    @property
    def improved(self) -> tuple[tuple[UtteranceResult, UtteranceResult], ...]:
        return tuple(pair for pair in self.changes if pair[1].counts.errors < pair[0].counts.errors)

    @property
    def worsened(self) -> tuple[tuple[UtteranceResult, UtteranceResult], ...]:
        """Those most worsened first."""
        return tuple(pair for pair in reversed(self.changes) if pair[1].counts.errors > pair[0].counts.errors)

    def to_dict(self) -> dict[str, Any]:
        """What report.json says of it; rates as fractions."""
        speakers = self.paired_speakers.interval if self.paired_speakers else None
        return {
            "baseline": self.baseline_name,
            "baseline_value": self.baseline_rate.value,
            "difference": self.paired.difference,
            "ci95": [self.paired.interval.low, self.paired.interval.high],
            "ci95_speakers": [speakers.low, speakers.high] if speakers else None,
            "probability_better": self.paired.probability_b_better,
            "utterances_better": self.paired.b_wins,
            "utterances_worse": self.paired.a_wins,
            "utterances_tied": self.paired.ties,
        }

    @property
    def points(self) -> list[str]:
        """The figures in words."""
        paired = self.paired
        found = [
            f"difference {wording.difference(paired)}",
            f"fewer errors than the baseline in {wording.percent(paired.probability_b_better, 1)} of the resamples",
            f"utterances better: {paired.b_wins:,}, worse: {paired.a_wins:,}, equal: {paired.ties:,}",
        ]
        if self.paired_speakers:
            found.insert(1, f"resampling speakers: {wording.difference(self.paired_speakers)}")
        return found

    def __str__(self) -> str:
        systems = (("this", self.rate, self.name), ("baseline", self.baseline_rate, self.baseline_name))
        rows = [
            f"{role:<9} {wording.percent(rate.value):>9}  ({wording.interval(rate.ci95)})  {name}"
            for role, rate, name in systems
        ]
        return "\n  ".join([self.verdict, *rows, *self.points])


def compare(system: Evaluation | Path | str, baseline: Evaluation | Path | str) -> Comparison:
    """Compare a system with a baseline, each an `Evaluation` or the path of a report.json.

    Raises:
        WavasrError: they were not scored on the same utterances, references or phone set.
    """
    this = system if isinstance(system, Evaluation) else read(system)
    other = baseline if isinstance(baseline, Evaluation) else read(baseline)
    pairs = _pairs(this, other)
    counts = [other_u.counts for other_u, _ in pairs], [this_u.counts for _, this_u in pairs]
    speakers = [this_u.speaker for _, this_u in pairs]
    changed = [pair for pair in pairs if pair[0].counts.errors != pair[1].counts.errors]
    return Comparison(
        metric=this.metric,
        name=_name(this, other),
        baseline_name=_name(other, this),
        rate=this.rate,
        baseline_rate=other.rate,
        paired=paired_bootstrap(*counts),
        paired_speakers=paired_bootstrap(*counts, groups=speakers) if len(set(speakers)) > 1 else None,
        changes=tuple(sorted(changed, key=lambda p: (p[1].counts.errors - p[0].counts.errors, p[1].id))),
    )


def refuse_other_utterances(mine: Iterable[str], theirs: Iterable[str]) -> None:
    """Raise a WavasrError unless this evaluation's utterances and the baseline's have the same ids."""
    ours, others = set(mine), set(theirs)
    only = {"this evaluation": sorted(ours - others), "the baseline": sorted(others - ours)}
    found = [f"{len(ids)} only in {name} (first: {ids[0]})" for name, ids in only.items() if ids]
    if found:
        raise WavasrError(
            f"the two systems were not scored on the same utterances: {', '.join(found)}; evaluate both on one manifest"
        )


def _name(one: Evaluation, other: Evaluation) -> str:
    """The system's name; with its folder, else its weights, where both have the same."""
    name = wording.system_name(one)
    if name != wording.system_name(other):
        return name
    if one.provenance.model != other.provenance.model:
        return f"{one.provenance.model} ({one.provenance.decoder})"
    return f"{name} ({one.provenance.model_sha256[:8] or 'weights unknown'}, {one.provenance.date[:16]})"


def _pairs(this: Evaluation, other: Evaluation) -> list[tuple[UtteranceResult, UtteranceResult]]:
    """(baseline's, this system's) result of each utterance."""
    if (this.metric, this.phone_set) != (other.metric, other.phone_set):
        scales = [f"{e.metric.upper()} {e.phone_set}".strip() for e in (this, other)]
        raise WavasrError(f"one system was scored by {scales[0]}, the baseline by {scales[1]}; score both alike")
    mine = {u.id: u for u in this.utterances}
    theirs = {u.id: u for u in other.utterances}
    refuse_other_utterances(mine, theirs)
    for name, utterance in mine.items():
        if utterance.reference != theirs[name].reference:
            raise WavasrError(
                f"the references of utterance {name} differ ({utterance.reference[:40]!r} here, "
                f"{theirs[name].reference[:40]!r} in the baseline); evaluate both with the same text normalisation"
            )
    return [(theirs[name], utterance) for name, utterance in mine.items()]
