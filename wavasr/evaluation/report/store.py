"""report.json: an evaluation written so that it can be read back, checked and compared."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wavasr.decoding.confidence import ConfidenceMap
from wavasr.errors import ModelError, WavasrError
from wavasr.evaluation.metrics import ErrorCounts, Interval, Op, OpKind
from wavasr.evaluation.report import analysis
from wavasr.evaluation.results import Evaluation, Failure, Provenance, Rate, UtteranceResult, Vocabulary, speaker_rates

FORMAT = 1
_LARGEST = 1e15  # of a number; what is larger, or not a number, is damage
_CODES: dict[OpKind, str] = {"equal": "=", "substitute": "S", "insert": "I", "delete": "D"}


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


def to_csv(evaluation: Evaluation) -> str:
    """A row an utterance, for a spreadsheet."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        "id speaker audio offset_s duration_s errors substitutions insertions deletions reference_symbols "
        "confidence reference hypothesis".split()
    )
    for u in evaluation.utterances:
        c = u.counts
        counts = (c.errors, c.substitutions, c.insertions, c.deletions, c.reference)
        confidence = "" if u.confidence is None else u.confidence
        row = (u.id, u.speaker, u.audio, u.offset_s, u.duration_s, *counts, confidence, u.reference, u.hypothesis)
        writer.writerow(row)
    return stream.getvalue()


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


def _interval(ci: Interval | None) -> list[float] | None:
    return [ci.low, ci.high] if ci else None


def _rate(rate: Rate) -> dict[str, Any]:
    value = rate.value if math.isfinite(rate.value) else None
    found = {"value": value, "ci95": _interval(rate.ci95), **dataclasses.asdict(rate.counts)}
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
        "errors": dataclasses.asdict(u.counts),
        "character_errors": dataclasses.asdict(u.character_counts) if u.character_counts else None,
        "ops": [_op(op) for op in u.ops],
    } | ({"greedy": u.greedy, "greedy_errors": dataclasses.asdict(u.greedy_counts)} if u.greedy_counts else {})


def read(path: Path | str) -> Evaluation:
    """Read a report.json and check it: keys, types, and that its totals are the sums of its utterances.

    Raises:
        WavasrError: names the file and the key that is not as it should be.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    values = _load(path)
    try:
        return _evaluation(values)
    except _DamagedError as damage:
        raise WavasrError(f"{path}: {damage}; the report is damaged, evaluate again") from None


class _DamagedError(Exception):
    """The message begins with the key."""


def _load(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
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
            f"{path}: format is {str(values.get('format'))[:40]}, expected {FORMAT}; read it with the wavasr that "
            "wrote it, or evaluate again"
        )
    return values


def _typed(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as the type says: numbers are finite, lists become tuples, objects dataclasses of those keys."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(inner[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _typed(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint in (Op, Interval):
        return _op_of(value, where) if hint is Op else _interval_of(value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _object(hint, value, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)
    if hint in (int, str, list, dict) and type(value) is hint:
        return value
    raise _DamagedError(f"{where} is {str(value)[:40]!r}")


def _object(cls: Any, values: dict[str, Any], where: str) -> Any:
    """A dataclass from the keys of its fields, all of which are needed; other keys are left alone."""
    hints, found = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        key = f"{where}.{field.name}"
        if field.name not in values:
            raise _DamagedError(f"{key} is missing")
        found[field.name] = _typed(hints[field.name], values[field.name], key)
    return cls(**found)


def _key(values: dict[str, Any], key: str, hint: Any) -> Any:
    if key not in values:
        raise _DamagedError(f"{key} is missing")
    return _typed(hint, values[key], key)


def _evaluation(values: dict[str, Any]) -> Evaluation:
    metric: Literal["wer", "per"] = "wer" if values.get("per") is None else "per"
    utterances = tuple(_utterance_of(u, f"utterances[{i}]") for i, u in enumerate(_key(values, "utterances", list)))
    greedy = [u.greedy_counts for u in utterances if u.greedy_counts is not None]
    if values.get("greedy") is not None and len(greedy) != len(utterances):
        raise _DamagedError("greedy lacks errors of some utterances")
    characters = [u.character_counts for u in utterances if u.character_counts is not None]
    return Evaluation(
        metric=metric,
        utterances=utterances,
        rate=_rate_of(values, metric, [u.counts for u in utterances]),
        phone_set=_key(values["per"], "phone_set", str) if metric == "per" else "",
        character_rate=_rate_of(values, "cer", characters) if metric == "wer" else None,
        greedy_rate=_rate_of(values, "greedy", greedy) if greedy else None,
        failures=_key(values, "failures", tuple[Failure, ...]),
        notes=_key(values, "notes", tuple[str, ...]),
        wall_s=_key(values, "wall_s", float),
        provenance=_key(values, "provenance", Provenance),
        calibration=_calibration_of(values.get("calibration")),
        vocabulary=_vocabulary_of(values.get("vocabulary")),
    )


def _rate_of(values: dict[str, Any], key: str, counts: Sequence[ErrorCounts]) -> Rate:
    stated = _key(values, key, dict)
    if _object(ErrorCounts, stated, key) != ErrorCounts.total(counts):
        raise _DamagedError(f"{key}.counts are not the sums of the utterances' errors")
    intervals = (_typed(Interval | None, stated.get(name), f"{key}.{name}") for name in ("ci95", "ci95_speakers"))
    return Rate(ErrorCounts.total(counts), *intervals)


def _interval_of(value: Any, where: str) -> Interval:
    match value:
        case [float() | int() as low, float() | int() as high] if max(abs(low), abs(high)) < _LARGEST:
            return Interval(float(low), float(high))
    raise _DamagedError(f"{where} is not [low, high]")


def _op_of(value: Any, where: str) -> Op:
    match value:
        case ["=", str(symbol)]:
            return Op("equal", symbol, symbol)
        case ["S", str(reference), str(hypothesis)]:
            return Op("substitute", reference, hypothesis)
        case ["D", str(symbol)]:
            return Op("delete", symbol, "")
        case ["I", str(symbol)]:
            return Op("insert", "", symbol)
    raise _DamagedError(f"{where} has {str(value)[:40]!r}")


def _utterance_of(values: Any, where: str) -> UtteranceResult:
    if not isinstance(values, dict):
        raise _DamagedError(f"{where} is not an object")
    renamed = {"character_counts": values.get("character_errors"), "greedy_counts": values.get("greedy_errors")}
    older: dict[str, Any] = {"word_confidences": [], "greedy": None}
    found: UtteranceResult = _object(UtteranceResult, older | values | renamed, where)
    if found.counts != _object(ErrorCounts, _key(values, "errors", dict), f"{where}.errors"):
        raise _DamagedError(f"{where}.errors are not those of its ops")
    symbols = sum(op.kind != "delete" for op in found.ops)
    if found.word_confidences and len(found.word_confidences) != symbols:
        raise _DamagedError(f"{where}.word_confidences are not one for each symbol of the hypothesis")
    if not all(0 <= confidence <= 1 for confidence in found.word_confidences):
        raise _DamagedError(f"{where}.word_confidences are not numbers from 0 to 1")
    return found


def _calibration_of(stated: Any) -> ConfidenceMap | None:
    if not isinstance(stated, dict) or stated.get("map") is None:
        return None
    try:
        return ConfidenceMap.from_dict(stated["map"])
    except ModelError as error:
        raise _DamagedError("calibration.map is no rising map") from error


def _vocabulary_of(stated: Any) -> Vocabulary | None:
    found: Vocabulary | None = _typed(Vocabulary | None, stated, "vocabulary")
    if found and not all(0 <= times <= 1e6 for times in found.per_million.values()):
        raise _DamagedError("vocabulary.per_million are not numbers from 0 to a million")
    return found
