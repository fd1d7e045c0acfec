"""report.json: an evaluation written so that it can be read back, checked and compared."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from wavasr.config import from_dict
from wavasr.decoding.confidence import ConfidenceMap
from wavasr.errors import WavasrError, reading
from wavasr.evaluation.metrics import Interval, Op, OpKind
from wavasr.evaluation.report import analysis
from wavasr.evaluation.results import (
    Evaluation,
    Failure,
    Provenance,
    Rate,
    UtteranceResult,
    Vocabulary,
    assemble,
    speaker_rates,
)

FORMAT = 1
_KINDS: dict[str, OpKind] = {"=": "equal", "S": "substitute", "I": "insert", "D": "delete"}
_CODES = {kind: code for code, kind in _KINDS.items()}


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
    """Read a report.json, or that of a folder. Rates are made anew from the utterances; they must agree with its own.

    Raises:
        WavasrError: names the file and what is not as it should be.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    values = _load(path)
    try:
        return _evaluation(values)
    except (WavasrError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        damage = f"{error} is missing" if isinstance(error, KeyError) else error
        raise WavasrError(f"{path}: is damaged ({damage}); evaluate again") from None


def _load(path: Path) -> dict[str, Any]:
    remedy = "give the report.json that wavasr evaluate wrote"
    with reading(path, "report", remedy, WavasrError):
        text = path.read_text(encoding="utf-8")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise WavasrError(f"{path}: is not JSON; {remedy}") from None
    if not isinstance(values, dict) or "utterances" not in values:
        raise WavasrError(f"{path}: is not a report (no key 'utterances'); {remedy}")
    if values.get("format") != FORMAT:
        raise WavasrError(
            f"{path}: format is {str(values.get('format'))[:40]}, expected {FORMAT}; read it with the wavasr that "
            "wrote it, or evaluate again"
        )
    return values


def _evaluation(values: dict[str, Any]) -> Evaluation:
    per, calibration, vocabulary = values["per"], values.get("calibration"), values.get("vocabulary")
    known = {field.name for field in dataclasses.fields(Vocabulary)}
    found = assemble(
        [_utterance_of(utterance) for utterance in values["utterances"]],
        [from_dict(Failure, failure) for failure in values["failures"]],
        metric="per" if per else "wer",
        phone_set=str(per["phone_set"]) if per else "",
        notes=[str(note) for note in values["notes"]],
        wall_s=float(values["wall_s"]),
        provenance=from_dict(Provenance, values["provenance"]),
        calibration=ConfidenceMap.from_dict(calibration["map"]) if calibration and calibration["map"] else None,
        vocabulary=from_dict(Vocabulary, {k: vocabulary[k] for k in known}) if vocabulary else None,
    )
    for key, rate in ((found.metric, found.rate), ("cer", found.character_rate), ("greedy", found.greedy_rate)):
        stated = values.get(key) or {}
        if stated != ({**stated, **dataclasses.asdict(rate.counts)} if rate else {}):
            raise ValueError(f"{key} is not the sum of the utterances' errors")
    if not 0 <= found.wall_s < math.inf:
        raise ValueError(f"wall_s is {found.wall_s}")
    return found


def _utterance_of(values: dict[str, Any]) -> UtteranceResult:
    renamed = {
        "ops": [_op_of(*op) for op in values["ops"]],
        "character_counts": values["character_errors"],
        "greedy_counts": values.get("greedy_errors"),
    }
    known = {field.name for field in dataclasses.fields(UtteranceResult)}
    found = from_dict(UtteranceResult, {key: value for key, value in (values | renamed).items() if key in known})
    if dataclasses.asdict(found.counts) != values["errors"]:
        raise ValueError(f"errors of utterance {found.id} are not those of its ops")
    if len(found.judged) != len(found.word_confidences) or not all(0 <= c <= 1 for c in found.word_confidences):
        raise ValueError(f"word_confidences of utterance {found.id} are not one for each symbol, from 0 to 1")
    return found


def _op_of(code: str, symbol: str, hypothesis: str = "") -> Op:
    kind = _KINDS[code]
    if kind == "insert":
        return Op(kind, "", symbol)
    return Op(kind, symbol, symbol if kind == "equal" else hypothesis)
