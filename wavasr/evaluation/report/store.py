"""report.json: an evaluation written so that it can be read back, checked and compared."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wavasr.decoding.confidence import ConfidenceMap
from wavasr.errors import ModelError, WavasrError
from wavasr.evaluation.metrics import ErrorCounts, Interval, Op, OpKind
from wavasr.evaluation.report import analysis
from wavasr.evaluation.results import Evaluation, Failure, Provenance, Rate, UtteranceResult, Vocabulary, speaker_rates

T = TypeVar("T")

FORMAT = 1
_CODES: dict[OpKind, str] = {"equal": "=", "substitute": "S", "insert": "I", "delete": "D"}
_KINDS: dict[str, OpKind] = {code: kind for kind, code in _CODES.items()}


def to_json(evaluation: Evaluation, comparison: dict[str, Any] | None = None) -> str:
    """The text of report.json. Rates are fractions (0.05 = 5 %), null where there is no reference; times in seconds.

    `comparison` is what stands under that key.

    `utterances[].ops` is the alignment: ["=", symbol], ["S", reference, hypothesis], ["D", reference] and
    ["I", hypothesis].
    """
    words = evaluation.metric == "wer"
    per = None if words else _rate(evaluation.rate) | {"phone_set": evaluation.phone_set}
    spoken = evaluation.speakers()
    head = {
        "format": FORMAT,
        "wer": _rate(evaluation.rate) if words else None,
        "cer": _rate(evaluation.character_rate) if evaluation.character_rate else None,
        "per": per,
        "sentence_errors": evaluation.sentence_errors,
        "audio_s": round(evaluation.audio_s, 3),
        "compute_s": round(evaluation.compute_s, 4),
        "wall_s": evaluation.wall_s,
        "speakers": {
            speaker: _rate(rate)
            | {
                "utterances": len(spoken[speaker]),
                "audio_s": round(math.fsum(u.duration_s for u in spoken[speaker]), 3),
            }
            for speaker, rate in speaker_rates(evaluation).items()
        },
        "failures": [dataclasses.asdict(failure) for failure in evaluation.failures],
        "notes": list(evaluation.notes),
        "comparison": comparison,
        "calibration": _calibration(evaluation),
        "greedy": _greedy(evaluation),
        "vocabulary": _vocabulary(evaluation),
        "profiles": _profiles(evaluation),
        "provenance": dataclasses.asdict(evaluation.provenance),
    }
    # One utterance a line: the file can be read by eye and by line tools, and stays a third of the indented size.
    lines = ",\n  ".join(json.dumps(_utterance(u), ensure_ascii=False, allow_nan=False) for u in evaluation.utterances)
    start = json.dumps(head, ensure_ascii=False, allow_nan=False, indent=1).removesuffix("\n}")
    return f'{start},\n "utterances": [\n  {lines}\n ]\n}}\n'


def _calibration(evaluation: Evaluation) -> dict[str, Any] | None:
    """The map, and how reliable confidences are without and with it; null where the decoder gives none."""
    own = evaluation.reliability()
    if own is None:
        return None
    found = evaluation.calibration
    mapped = evaluation.reliability(found) if found else None
    return {
        "map": found.to_dict() if found else None,
        "own": dataclasses.asdict(own),
        "calibrated": dataclasses.asdict(mapped) if mapped else None,
    }


def _greedy(evaluation: Evaluation) -> dict[str, Any] | None:
    """The same model without word list and language model, and what these change (negative: fewer errors with them)."""
    if evaluation.greedy_rate is None:
        return None
    gain = analysis.gain(evaluation)
    change = {"difference": gain.difference, "ci95_difference": _interval(gain.interval)} if gain else {}
    return _rate(evaluation.greedy_rate) | change


def _vocabulary(evaluation: Evaluation) -> dict[str, Any] | None:
    """What is known of the references' words, and the errors of utterances with and without words not listed."""
    found = analysis.unlisted(evaluation)
    if evaluation.vocabulary is None or found is None:
        return None
    groups = {f"utterances_{group.label}": _bin(group) for group in found.utterances}
    return dataclasses.asdict(evaluation.vocabulary) | {"words_missing": found.words, "share": found.share} | groups


def _profiles(evaluation: Evaluation) -> dict[str, Any]:
    """Errors by class of utterances, or of words (there without insertions, which have no reference word)."""
    by = "language model" if evaluation.vocabulary and evaluation.vocabulary.per_million else "references"
    return {
        "duration_s": [_bin(b) for b in analysis.duration_profile(evaluation)],
        "word_frequency": {"by": by, "classes": [_bin(b) for b in analysis.frequency_profile(evaluation)]},
    }


def _bin(found: analysis.Bin) -> dict[str, Any]:
    return {"label": found.label, "size": found.size, **_rate(found.rate)}


def _counts(counts: ErrorCounts) -> dict[str, int]:
    return dataclasses.asdict(counts)


def _interval(ci: Interval | None) -> list[float] | None:
    return [ci.low, ci.high] if ci else None


def _rate(rate: Rate) -> dict[str, Any]:
    value = rate.value if math.isfinite(rate.value) else None
    found = {"value": value, "ci95": _interval(rate.ci95), **_counts(rate.counts)}
    return found | ({"ci95_speakers": _interval(rate.ci95_speakers)} if rate.ci95_speakers else {})


def _op(op: Op) -> list[str]:
    sides = {"equal": [op.reference], "delete": [op.reference], "insert": [op.hypothesis]}
    return [_CODES[op.kind], *sides.get(op.kind, [op.reference, op.hypothesis])]


def _utterance(u: UtteranceResult) -> dict[str, Any]:
    return {
        "id": u.id,
        "speaker": u.speaker,
        "audio": u.audio,
        "offset_s": u.offset_s,
        "duration_s": u.duration_s,
        "compute_s": u.compute_s,
        "reference": u.reference,
        "hypothesis": u.hypothesis,
        "confidence": u.confidence,
        "word_confidences": list(u.word_confidences),
        "errors": _counts(u.counts),
        "character_errors": _counts(u.character_counts) if u.character_counts else None,
        "ops": [_op(op) for op in u.ops],
    } | ({"greedy": u.greedy, "greedy_errors": _counts(u.greedy_counts)} if u.greedy_counts else {})


def read(path: Path | str) -> Evaluation:
    """Read a report.json and check it: keys, types, and that its totals are the sums of its utterances.

    Raises:
        WavasrError: names the file and the key that is not as it should be.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    return _evaluation(_Reader(path, _load(path)))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _load(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise WavasrError(f"{path}: there is no such report; give the report.json that wavasr evaluate wrote") from None
    except OSError as error:
        raise WavasrError(f"{path}: cannot be read ({error.strerror}); give a report.json") from error
    except (ValueError, RecursionError):
        raise WavasrError(f"{path}: is not JSON in UTF-8; give the report.json that wavasr evaluate wrote") from None
    if not isinstance(values, dict) or "utterances" not in values:
        raise WavasrError(f"{path}: is not a report (no key 'utterances'); give the report.json of wavasr evaluate")
    if values.get("format") != FORMAT:
        raise WavasrError(
            f"{path}: format is {values.get('format')!r}, expected {FORMAT}; read it with the wavasr that wrote it, "
            "or evaluate again"
        )
    return values


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Typed look-ups in a JSON object; mistakes name the file and the key."""

    path: Path
    values: dict[str, Any]
    where: str = ""

    def get(self, key: str, kind: type[T] | tuple[type[T], ...]) -> T:
        if key not in self.values:
            raise self.wrong(key, "is missing")
        value = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(key, f"is {str(value)[:40]!r}")
        return value

    def number(self, key: str) -> float:
        return float(self.get(key, (int, float)))

    def wrong(self, key: str, what: str) -> WavasrError:
        return WavasrError(f"{self.path}: {self.where}{key} {what}; the report is damaged, evaluate again")

    def inner(self, key: str) -> _Reader:
        return _Reader(self.path, self.get(key, dict), f"{self.where}{key}.")

    def each(self, key: str, make: Callable[[_Reader], T]) -> tuple[T, ...]:
        found = []
        for i, value in enumerate(self.get(key, list)):
            if not isinstance(value, dict):
                raise self.wrong(f"{key}[{i}]", "is not an object")
            found.append(make(_Reader(self.path, value, f"{self.where}{key}[{i}].")))
        return tuple(found)


def _evaluation(reader: _Reader) -> Evaluation:
    metric = "per" if reader.values.get("per") is not None else "wer"
    headline = reader.inner(metric)
    utterances = reader.each("utterances", _read_utterance)
    characters = [u.character_counts for u in utterances if u.character_counts is not None]
    rate = _read_rate(headline, ErrorCounts.total(u.counts for u in utterances))
    character_rate = None
    if metric == "wer":
        character_rate = _read_rate(reader.inner("cer"), ErrorCounts.total(characters))
    return Evaluation(
        metric="per" if metric == "per" else "wer",
        phone_set=headline.get("phone_set", str) if metric == "per" else "",
        utterances=utterances,
        failures=reader.each("failures", lambda r: Failure(*(r.get(k, str) for k in ("id", "audio", "message")))),
        rate=rate,
        character_rate=character_rate,
        notes=tuple(str(note) for note in reader.get("notes", list)),
        wall_s=reader.number("wall_s"),
        provenance=_read_provenance(reader.inner("provenance")),
        calibration=_read_calibration(reader),
        greedy_rate=_read_greedy(reader, utterances),
        vocabulary=_read_vocabulary(reader),
    )


def _read_counts(reader: _Reader) -> ErrorCounts:
    return ErrorCounts(*(reader.get(f.name, int) for f in dataclasses.fields(ErrorCounts)))


def _read_rate(reader: _Reader, summed: ErrorCounts) -> Rate:
    if _read_counts(reader) != summed:
        raise reader.wrong("counts", "are not the sums of the utterances' errors")
    return Rate(summed, _read_interval(reader, "ci95"), _read_interval(reader, "ci95_speakers"))


def _read_calibration(reader: _Reader) -> ConfidenceMap | None:
    stated = reader.values.get("calibration")
    if not isinstance(stated, dict) or stated.get("map") is None:
        return None
    try:
        return ConfidenceMap.from_dict(stated["map"])
    except ModelError as error:
        raise reader.wrong("calibration.map", "is no rising map") from error


def _read_greedy(reader: _Reader, utterances: Sequence[UtteranceResult]) -> Rate | None:
    if reader.values.get("greedy") is None:
        return None
    found = [u.greedy_counts for u in utterances if u.greedy_counts is not None]
    if len(found) != len(utterances):
        raise reader.wrong("greedy", "lacks errors of some utterances")
    return _read_rate(reader.inner("greedy"), ErrorCounts.total(found))


def _read_vocabulary(reader: _Reader) -> Vocabulary | None:
    if reader.values.get("vocabulary") is None:
        return None
    stated = reader.inner("vocabulary")
    missing, per_million = stated.get("missing", list), stated.get("per_million", dict)
    if not all(isinstance(word, str) for word in missing):
        raise stated.wrong("missing", "are not words")
    if not all(isinstance(x, int | float) and 0 <= x <= 1e6 for x in per_million.values()):
        raise stated.wrong("per_million", "are not numbers from 0 to a million")
    return Vocabulary(stated.get("source", str), stated.get("size", int), tuple(missing), per_million)


def _read_interval(reader: _Reader, key: str) -> Interval | None:
    value = reader.values.get(key)
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(x, int | float) for x in value)):
        raise reader.wrong(key, "is not [low, high]")
    return Interval(float(value[0]), float(value[1]))


def _read_op(reader: _Reader, value: Any) -> Op:
    match value:
        case ["=", str(symbol)]:
            return Op("equal", symbol, symbol)
        case ["S", str(reference), str(hypothesis)]:
            return Op("substitute", reference, hypothesis)
        case ["D", str(symbol)]:
            return Op("delete", symbol, "")
        case ["I", str(symbol)]:
            return Op("insert", "", symbol)
    raise reader.wrong("ops", f"has {str(value)[:40]!r}")


def _read_utterance(reader: _Reader) -> UtteranceResult:
    confidence = None if reader.values.get("confidence") is None else reader.number("confidence")
    has_characters = reader.values.get("character_errors") is not None
    has_greedy = reader.values.get("greedy_errors") is not None
    utterance = UtteranceResult(
        id=reader.get("id", str),
        speaker=reader.get("speaker", str),
        audio=reader.get("audio", str),
        offset_s=reader.number("offset_s"),
        duration_s=reader.number("duration_s"),
        compute_s=reader.number("compute_s"),
        reference=reader.get("reference", str),
        hypothesis=reader.get("hypothesis", str),
        confidence=confidence,
        ops=tuple(_read_op(reader, value) for value in reader.get("ops", list)),
        character_counts=_read_counts(reader.inner("character_errors")) if has_characters else None,
        word_confidences=_read_confidences(reader),
        greedy=reader.get("greedy", str) if has_greedy else None,
        greedy_counts=_read_counts(reader.inner("greedy_errors")) if has_greedy else None,
    )
    if utterance.counts != _read_counts(reader.inner("errors")):
        raise reader.wrong("errors", "are not those of its ops")
    return utterance


def _read_confidences(reader: _Reader) -> tuple[float, ...]:
    values = reader.values.get("word_confidences") or []
    heard = sum(op[0] != "D" for op in reader.get("ops", list) if op)
    if not isinstance(values, list) or not all(isinstance(x, int | float) and 0 <= x <= 1 for x in values):
        raise reader.wrong("word_confidences", "are not numbers from 0 to 1")
    if values and len(values) != heard:
        raise reader.wrong("word_confidences", "are not one for each symbol that was heard")
    return tuple(float(x) for x in values)


def _read_provenance(reader: _Reader) -> Provenance:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Provenance):
        default = field.default_factory() if callable(field.default_factory) else field.default
        values[field.name] = reader.get(field.name, (int, float) if isinstance(default, int | float) else type(default))
    return Provenance(**values)
