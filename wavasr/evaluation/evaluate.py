"""How good a model is on a manifest: every utterance through the path of `transcribe`, scored and counted.

    utterances -> load -> batches of like length -> model -> decode -> Evaluation

Nothing is skipped in silence: an utterance that cannot be read is a `Failure`, named in every report.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import wavasr
from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.decoding.confidence import FEWEST_WORDS, fit_map, mean
from wavasr.decoding.confidence import KEY as CALIBRATION
from wavasr.decoding.config import DecodingConfig
from wavasr.decoding.greedy import Hypothesis, greedy
from wavasr.decoding.search import LMDecoder
from wavasr.errors import ConfigError, TextError, WavasrError
from wavasr.evaluation import metrics
from wavasr.evaluation.metrics import ErrorCounts, PhoneSet
from wavasr.evaluation.results import Evaluation, Failure, Provenance, UtteranceResult, Vocabulary, assemble
from wavasr.language.config import TextConfig
from wavasr.language.lexicon import TIMIT_39, TIMIT_48, TIMIT_61
from wavasr.language.text import Units, normalise
from wavasr.network.files import read_header, write_metadata
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.transcribe import (
    DEFAULT_DECODER,
    Decode,
    Decoder,
    calibration_of,
    decoded,
    decoder_of,
    is_thorough,
    joined,
    words_of,
    worth_workers,
)
from wavasr.recognition.workers import Workers

_TIMIT_LABELS = {*TIMIT_61, *TIMIT_48, *TIMIT_39}
_PACKAGES = ("torch", "torchaudio", "onnxruntime", "numpy", "soundfile", "soxr", "jiwer")


@dataclass(frozen=True)
class Heard:
    """What came out for one recording; the confidence is between 0 and 1, None where the decoder gives none.

    `words` are the words' confidences before calibration, empty where the decoder gives none. `greedy` is the text
    without word list and language model, None where it was not asked for.
    """

    text: str
    confidence: float | None = None
    words: tuple[float, ...] = ()
    greedy: str | None = None


Recognise = Callable[[Sequence[NDArray[np.float32]]], Sequence[Heard]]
BothWays = tuple[Hypothesis, Hypothesis]  # of the decoder, and greedily


def evaluate(
    model: AcousticModel,
    utterances: Sequence[Utterance],
    *,
    batch_s: float = 60.0,
    decoder: Decoder = DEFAULT_DECODER,
    beam: int = 16,
    phone_set: PhoneSet = 39,
    merge_silences: bool = False,
    model_name: str = "",
    manifest: Path | None = None,
    command: str = "",
    recognise: Recognise | None = None,
    progress: bool = True,
    processes: int = 0,
) -> Evaluation:
    """Recognise and score every utterance.

    Args:
        model: a model in eval mode.
        utterances: what `read_manifest` returns.
        batch_s: seconds of audio, padding included, that go through the network together; longer recordings go in
            chunks. The results do not depend on it.
        decoder: as in `transcribe`. Phones with a lexicon come out as words, and are scored as words.
        beam: hypotheses that the prefix beam search keeps.
        phone_set: for models of TIMIT phones: the set to score on.
        merge_silences: for phones: count a run of silences as one.
        model_name: the model's file or shipped name, for the report.
        manifest: where the utterances come from, for the report.
        command: the command line that gives these figures, for the report.
        recognise: stands in for the model's network and decoder; called with float32 samples at the model's rate.
        progress: show a bar on stderr.
        processes: workers that decode with a language model, see `workers.usable_processes`; 0: none.

    Raises:
        WavasrError: there is no utterance, or none could be recognised.
    """
    if not utterances:
        raise TextError("there are no utterances to evaluate; expected a manifest with at least one line")
    # Mistakes in settings and transcripts show before the network runs, not after.
    decode = decoder_of(decoder, beam, model)
    spells_words = isinstance(decode, LMDecoder) and decode.spells_words
    scale = Scale.of(model.units, model.text, phone_set, merge_silences, spells_words)
    references = [scale.reference(u) for u in utterances]
    also_greedy = isinstance(decode, LMDecoder) and not spells_words
    start = time.perf_counter()
    with Workers(both_ways(decode), worth_workers(decode, processes)) as workers:
        recognise = recognise or model_recogniser(model, decode, also_greedy=also_greedy, workers=workers)
        outcomes = _recognise_all(utterances, batch_s, model.sample_rate, recognise, progress)
    wall_s = time.perf_counter() - start
    heard = {i: o for i, o in sorted(outcomes.items()) if not isinstance(o, Failure)}
    failures = tuple(o for _, o in sorted(outcomes.items()) if isinstance(o, Failure))
    if not heard:
        raise WavasrError(
            f"none of the {len(failures)} utterances could be recognised; the first: {failures[0].message}"
        )
    results = _score([utterances[i] for i in heard], [references[i] for i in heard], list(heard.values()), scale)
    known = Provenance(
        model=model_name,
        manifest=manifest.as_posix() if manifest else "",
        manifest_sha256=file_sha256(manifest) if manifest else "",
        decoder=_name_of_decoder(decode, decoder, beam),
        batch_s=batch_s,
        command=command,
    )
    return assemble(
        results,
        failures,
        metric="per" if scale.is_phones else "wer",
        phone_set=metrics.phone_set_name(scale.phone_set, merge_silences) if scale.is_phones else "",
        notes=_notes(results, failures, model.units),
        wall_s=wall_s,
        provenance=_fill(known, model),
        calibration=calibration_of(model, decode),
        vocabulary=_vocabulary(decode, model.units, [references[i] for i in heard]),
    )


def _vocabulary(decode: Decode, units: Units, references: Iterable[Sequence[str]]) -> Vocabulary | None:
    """What is known of the references' words, where there is a list of words."""
    listed: Sequence[str] = ()
    source, unigrams = "", {}
    if isinstance(decode, LMDecoder) and decode.words:
        listed, source, unigrams = decode.words, decode.word_source, decode.unigrams()
    elif units.kind == "words":
        listed, source = units.symbols[1:], "the model's words"
    if not listed:
        return None
    said = sorted({word for reference in references for word in reference})
    known = set(listed)
    per_million = {word: round(1e6 * unigrams[word], 3) for word in said if word in unigrams}
    return Vocabulary(source, len(listed), tuple(word for word in said if word not in known), per_million)


def _name_of_decoder(decode: Decode, decoder: Decoder, beam: int) -> str:
    if isinstance(decode, LMDecoder):
        return decode.description
    width = (decoder.beam or max(16, decoder.n_best)) if isinstance(decoder, DecodingConfig) else beam
    return "greedy" if decode is greedy else f"beam of {width}"


def calibrate(evaluation: Evaluation, path: Path, key: str = "ctc", output: Path | None = None) -> Evaluation:
    """Fit confidences on what was evaluated, write the map into the model file; the evaluation with that map.

    Args:
        evaluation: of the model in `path`, on speech that it was not trained on.
        path: the model file.
        key: the decoder's, see `calibration_key`; the maps of other decoders stay.
        output: write a copy of the model here instead.

    Raises:
        TextError: too few words were recognised.
        ModelError: not a model file that can be changed.
    """
    found = fit_map([utterance.judged for utterance in evaluation.utterances])
    if found is None:
        raise TextError(f"fewer than {FEWEST_WORDS} words were recognised: too few to calibrate confidences on")
    maps = read_header(path)["metadata"].get(CALIBRATION) or {}
    write_metadata(path, {CALIBRATION: {**maps, key: found.to_dict()}}, output)
    return evaluation.calibrated(found)


def score(
    utterance: Utterance, hypothesis: str, *, units: Units, text: TextConfig, compute_s: float = 0.0
) -> UtteranceResult:
    """Score one hypothesis as `evaluate` does (39 TIMIT phones where the units are those)."""
    scale = Scale.of(units, text, 39, False)
    return _score([utterance], [scale.reference(utterance)], [(Heard(hypothesis), compute_s)], scale)[0]


def model_recogniser(
    model: AcousticModel,
    decoder: Decoder = "greedy",
    beam: int = 16,
    *,
    also_greedy: bool = False,
    workers: Workers[BothWays] | None = None,
) -> Recognise:
    """The path of `transcribe`, for several waveforms at once; with `also_greedy` they are decoded both ways.

    Args:
        model: in eval mode.
        decoder: as in `transcribe`.
        beam: as in `transcribe`.
        also_greedy: whether `Heard.greedy` is wanted.
        workers: that decode, with `both_ways` of the decoder; None: this process does.

    Raises:
        ConfigError: an unknown decoder.
    """
    decode = decoder_of(decoder, beam, model)
    calibration = calibration_of(model, decode)
    work = workers or Workers(both_ways(decode))

    def heard(parts: Sequence[BothWays]) -> Heard:
        chosen, plain = (joined(side) for side in zip(*parts, strict=True)) if parts else (joined([]), joined([]))
        own = tuple(round(word.confidence, 6) for word in words_of(chosen, model))
        confidence = mean(map(calibration, own) if calibration else own)
        return Heard(chosen.text(model.units), confidence, own, plain.text(model.units) if also_greedy else None)

    return lambda waveforms: [heard(parts) for parts in decoded(model, waveforms, work, is_thorough(decode))]


def both_ways(decode: Decode) -> Callable[[Any], BothWays]:
    """A decoder that also decodes greedily, of several versions the first."""
    return lambda versions: (decode(versions), greedy(versions[0] if isinstance(versions, tuple) else versions))


@dataclass(frozen=True)
class Scale:
    """What a reference and a hypothesis are counted in."""

    text: TextConfig
    is_phones: bool
    phone_set: PhoneSet | None
    merge_silences: bool

    @classmethod
    def of(
        cls, units: Units, text: TextConfig, phone_set: PhoneSet = 39, merge_silences: bool = False, words: bool = False
    ) -> Scale:
        """The scale of a model; `words`: its phones come out as words."""
        if words:
            return cls(text, False, None, False)
        scored: PhoneSet | None = phone_set if units.is_phones and set(units.symbols[1:]) <= _TIMIT_LABELS else None
        if scored == 61 and not set(units.symbols[1:]) <= set(TIMIT_61):
            raise ConfigError(f"phone_set is 61, but the model knows {len(units) - 1} folded phones; score on 48 or 39")
        # "h#" and "ax-h" are labels, not punctuation, and CMUdict's AE is not ae.
        case = text.case if scored else "keep"
        spelling = replace(text, punctuation="keep", digits="keep", case=case) if units.is_phones else text
        return cls(spelling, units.is_phones, scored, merge_silences)

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
            return metrics.phones(text, self.phone_set, self.merge_silences)
        return metrics.words(text)


def _batches(utterances: Sequence[Utterance], batch_s: float) -> Iterator[list[int]]:
    """Indices of utterances of like length, longest first, so that running out of memory shows at once."""
    batch: list[int] = []
    longest = 0.0
    for i in sorted(range(len(utterances)), key=lambda i: -utterances[i].duration_s):
        if batch and longest * (len(batch) + 1) > batch_s:
            yield batch
            batch = []
        longest = longest if batch else utterances[i].duration_s
        batch.append(i)
    if batch:
        yield batch


def _recognise_all(
    utterances: Sequence[Utterance], batch_s: float, sample_rate: int, recognise: Recognise, progress: bool
) -> dict[int, tuple[Heard, float] | Failure]:
    outcomes: dict[int, tuple[Heard, float] | Failure] = {}
    total = round(sum(u.duration_s for u in utterances))
    with tqdm(total=total, desc="evaluate", unit="s", disable=not progress) as bar:
        for indices in _batches(utterances, batch_s):
            outcomes.update(_recognise_batch(indices, utterances, sample_rate, recognise))
            bar.update(min(round(sum(utterances[i].duration_s for i in indices)), total - bar.n))
    return outcomes


def _recognise_batch(
    indices: Sequence[int], utterances: Sequence[Utterance], sample_rate: int, recognise: Recognise
) -> dict[int, tuple[Heard, float] | Failure]:
    """(heard, compute seconds) or the failure, for each index."""
    outcomes: dict[int, tuple[Heard, float] | Failure] = {}
    waveforms: dict[int, NDArray[np.float32]] = {}
    for i in indices:
        u = utterances[i]
        try:
            waveforms[i] = load_utterance(u, sample_rate)
        except WavasrError as error:
            outcomes[i] = Failure(u.id, u.audio.as_posix(), str(error))
    try:
        outcomes.update(_timed(waveforms, recognise))
    except WavasrError:
        # One of them cannot be recognised: find out which, and keep the others.
        for i, waveform in waveforms.items():
            try:
                outcomes.update(_timed({i: waveform}, recognise))
            except WavasrError as error:
                outcomes[i] = Failure(utterances[i].id, utterances[i].audio.as_posix(), str(error))
    return outcomes


def _timed(waveforms: dict[int, NDArray[np.float32]], recognise: Recognise) -> dict[int, tuple[Heard, float]]:
    if not waveforms:
        return {}
    start = time.perf_counter()
    heard = recognise(list(waveforms.values()))
    per_sample = (time.perf_counter() - start) / sum(len(w) for w in waveforms.values())
    return {i: (h, per_sample * len(w)) for (i, w), h in zip(waveforms.items(), heard, strict=True)}


def _score(
    utterances: Sequence[Utterance],
    references: Sequence[Sequence[str]],
    heard: Sequence[tuple[Heard, float]],
    scale: Scale,
) -> list[UtteranceResult]:
    hypotheses = [scale.symbols(h.text) for h, _ in heard]
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
            compute_s=compute_s,
            reference=reference,
            hypothesis=hypothesis,
            confidence=h.confidence,
            ops=alignment.ops,
            character_counts=character_counts,
            word_confidences=_by_symbol(h, scale, alignment.counts),
            greedy=plain,
            greedy_counts=plain_counts,
        )
        for u, (h, compute_s), reference, hypothesis, alignment, character_counts, (plain, plain_counts) in zip(
            utterances, heard, *texts, alignments, characters, _greedy(references, heard, scale), strict=True
        )
    ]


def _greedy(
    references: Sequence[Sequence[str]], heard: Sequence[tuple[Heard, float]], scale: Scale
) -> list[tuple[str | None, ErrorCounts | None]]:
    """Text and errors of the greedy decoding, where there was one."""
    spelled = [None if h.greedy is None else scale.symbols(h.greedy) for h, _ in heard]
    counts = metrics.count_all(references, [symbols or [] for symbols in spelled])
    return [
        (None, None) if symbols is None else (" ".join(symbols), found)
        for symbols, found in zip(spelled, counts, strict=True)
    ]


def _by_symbol(heard: Heard, scale: Scale, counts: ErrorCounts) -> tuple[float, ...]:
    """A confidence for each symbol that is counted: folding deletes phones; where it merges them, nobody knows."""
    words = heard.text.split()
    if len(words) != len(heard.words):
        return ()
    found = tuple(c for word, c in zip(words, heard.words, strict=True) for _ in scale.symbols(word))
    return found if len(found) == counts.reference - counts.deletions + counts.insertions else ()


def _notes(results: Sequence[UtteranceResult], failures: Sequence[Failure], units: Units) -> tuple[str, ...]:
    notes = []
    if failures:
        total = len(results) + len(failures)
        notes.append(f"{len(failures)} of {total} utterances could not be recognised and are not in the counts.")
    if empty := sum(not u.reference for u in results):
        notes.append(f"{empty} references are empty: every symbol heard there is an insertion.")
    if len(results) > 1 and not any(u.hypothesis for u in results):
        notes.append("The model heard nothing in any utterance: its output is all blanks.")
    if not units.is_phones and (lacking := [u.id for u in results if not _can_spell(units, u.reference)]):
        notes.append(
            f"{len(lacking)} references have symbols that the model cannot output (first: {lacking[0]}); "
            "they count as errors."
        )
    return tuple(notes)


def _can_spell(units: Units, text: str) -> bool:
    try:
        units.encode(text)
    except TextError:
        return False
    return True


def _fill(known: Provenance, model: AcousticModel) -> Provenance:
    """Complete what the caller knows with what can be measured here."""
    facts = model.facts()
    versions = {"wavasr": wavasr.__version__, "python": platform.python_version()}
    # Of the two runtimes only the one that ran: the other may be absent.
    versions |= {name: metadata.version(name) for name in _PACKAGES if name in sys.modules}
    return replace(
        known,
        model_sha256=facts.sha256,
        parameters=facts.parameters,
        units=f"{len(model.units) - 1} {model.units.kind} and the blank",
        text=_describe(model.text),
        device=facts.device,
        machine=machine(),
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=versions,
    )


def _describe(text: TextConfig) -> str:
    parts = [f"{text.case} case", f"punctuation: {text.punctuation}", f"digits: {text.digits}"]
    return ", ".join(parts + ([f"without {text.strip_symbols!r}"] if text.strip_symbols else []))


def file_sha256(path: Path) -> str:
    """Fingerprint of a manifest."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def machine() -> str:
    """Processor, cores and system; no host name, since reports are passed on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {platform.system()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "linux" and cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
