"""How good a model is on a manifest: every utterance through the path of `transcribe`, scored and counted.

    utterances -> load some -> network, one after the other -> decode, in workers -> score -> Evaluation

Nothing is skipped in silence: an utterance that cannot be read is a `Failure`, named in every report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wavasr.corpora.manifest import Utterance
from wavasr.corpora.recordings import load_utterance
from wavasr.decoding.confidence import FEWEST_WORDS, fit_map, mean
from wavasr.decoding.confidence import KEY as CALIBRATION
from wavasr.decoding.config import DEFAULT, GREEDY, DecodingConfig
from wavasr.decoding.decoder import Decoder
from wavasr.decoding.factory import decoder_of
from wavasr.decoding.greedy import Hypothesis, greedy
from wavasr.errors import TextError, WavasrError
from wavasr.evaluation import metrics, provenance
from wavasr.evaluation.metrics import PhoneSet
from wavasr.evaluation.results import Evaluation, Failure, Provenance, UtteranceResult, Vocabulary, assemble
from wavasr.evaluation.scoring import Recognised, Scale, score_all
from wavasr.language.text import Units
from wavasr.network.files import change_model, read_header
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.models import calibration_of
from wavasr.recognition.stretches import accepted, joined, words_of
from wavasr.recognition.transcribe import decoded
from wavasr.recognition.workers import Workers

Recognise = Callable[[Sequence[NDArray[np.float32]]], Sequence[Recognised]]
BothWays = tuple[Hypothesis, Hypothesis]  # of the decoder, and greedily


def evaluate(
    model: AcousticModel,
    utterances: Sequence[Utterance],
    *,
    batch_s: float = 60.0,
    decoder: DecodingConfig | Decoder = DEFAULT,
    phone_set: PhoneSet = 39,
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
        batch_s: seconds of audio that are in memory together. The results do not depend on it.
        decoder: as in `transcribe`. Phones with a lexicon come out as words, and are scored as words.
        phone_set: for models of TIMIT phones: the set to score on.
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
    decode = decoder_of(decoder, model)
    scale = Scale.of(model.units, model.text, phone_set, decode.spells_words)
    references = [scale.reference(u) for u in utterances]
    start = time.perf_counter()
    with Workers(both_ways(decode), processes if decode.is_search else 0) as workers:
        also_greedy = decode.is_search and not decode.spells_words
        recognise = recognise or model_recogniser(model, decode, also_greedy=also_greedy, workers=workers)
        done, failures = _recognise_all(utterances, batch_s, model.sample_rate, recognise, progress)
    wall_s = time.perf_counter() - start
    said = [references[i] for i in done]
    results = score_all([utterances[i] for i in done], said, list(done.values()), scale)
    known = Provenance(model=model_name, decoder=decode.description, batch_s=batch_s, command=command)
    return assemble(
        results,
        failures,
        metric="per" if scale.is_phones else "wer",
        phone_set=metrics.phone_set_name(scale.phone_set) if scale.is_phones else "",
        notes=_notes(results, failures, model.units),
        wall_s=wall_s,
        provenance=provenance.complete(known, model, manifest),
        calibration=calibration_of(model, decode),
        vocabulary=_vocabulary(decode, model.units, said),
    )


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
        raise TextError(f"fewer than {FEWEST_WORDS} words were recognised; calibrate confidences on more")
    maps = read_header(path)["metadata"].get(CALIBRATION) or {}
    change_model(path, output, metadata={CALIBRATION: {**maps, key: found.to_dict()}})
    return evaluation.calibrated(found)


def model_recogniser(
    model: AcousticModel,
    decoder: DecodingConfig | Decoder = GREEDY,
    *,
    also_greedy: bool = False,
    workers: Workers[BothWays] | None = None,
) -> Recognise:
    """The path of `transcribe`, for several waveforms at once; with `also_greedy` they are decoded both ways.

    Args:
        model: in eval mode.
        decoder: as in `transcribe`.
        also_greedy: whether `Recognised.greedy` is wanted.
        workers: that decode, with `both_ways` of the decoder; None: this process does.

    Raises:
        ConfigError: an unknown decoder.
    """
    decode = decoder_of(decoder, model)
    calibration = calibration_of(model, decode)
    work = workers or Workers(both_ways(decode))

    def spelled(parts: Sequence[BothWays]) -> Recognised:
        chosen = joined([accepted(one, decode, model, calibration) for one, _ in parts], model.units)
        plain = joined([one for _, one in parts], model.units)
        own = tuple(round(word.confidence, 6) for word in words_of(chosen, model))
        confidence = mean(map(calibration, own) if calibration else own)
        return Recognised(chosen.text(model.units), confidence, own, plain.text(model.units) if also_greedy else None)

    return lambda waveforms: [spelled(parts) for parts in decoded(model, waveforms, decode, work)]


def both_ways(decode: Decoder) -> Callable[[Any], BothWays]:
    """A decoder that also decodes greedily, of several versions the first."""
    return lambda versions: (decode(versions), greedy(versions[0] if isinstance(versions, tuple) else versions))


def _batches(utterances: Sequence[Utterance], batch_s: float) -> Iterator[list[int]]:
    """Indices of neighbours that last at most so long together, of one at least."""
    batch: list[int] = []
    total_s = 0.0
    for i, utterance in enumerate(utterances):
        if batch and total_s + utterance.duration_s > batch_s:
            yield batch
            batch, total_s = [], 0.0
        batch.append(i)
        total_s += utterance.duration_s
    if batch:
        yield batch


def _recognise_all(
    utterances: Sequence[Utterance], batch_s: float, sample_rate: int, recognise: Recognise, progress: bool
) -> tuple[dict[int, Recognised], list[Failure]]:
    """What came out for the utterances, by their places and in their order, and those that failed.

    Raises:
        WavasrError: all failed.
    """
    outcomes: dict[int, Recognised | Failure] = {}
    total = round(sum(u.duration_s for u in utterances))
    with tqdm(total=total, desc="evaluate", unit="s", disable=not progress) as bar:
        for indices in _batches(utterances, batch_s):
            outcomes.update(_recognise_batch(indices, utterances, sample_rate, recognise))
            bar.update(min(round(sum(utterances[i].duration_s for i in indices)), total - bar.n))
    ordered = sorted(outcomes.items())
    failures = [found for _, found in ordered if isinstance(found, Failure)]
    if len(failures) == len(ordered):
        first = failures[0].message
        raise WavasrError(f"none of the {len(failures)} utterances could be recognised; the first: {first}")
    return {i: found for i, found in ordered if not isinstance(found, Failure)}, failures


def _recognise_batch(
    indices: Sequence[int], utterances: Sequence[Utterance], sample_rate: int, recognise: Recognise
) -> dict[int, Recognised | Failure]:
    outcomes: dict[int, Recognised | Failure] = {}
    waveforms: dict[int, NDArray[np.float32]] = {}
    for i in indices:
        try:
            waveforms[i] = load_utterance(utterances[i], sample_rate)
        except (WavasrError, OSError) as error:
            outcomes[i] = _failure(utterances[i], error)
    try:
        return outcomes | _timed(waveforms, recognise)
    except WavasrError:
        # One of them cannot be recognised: find out which, and keep the others.
        for i, waveform in waveforms.items():
            try:
                outcomes |= _timed({i: waveform}, recognise)
            except WavasrError as error:
                outcomes[i] = _failure(utterances[i], error)
    return outcomes


def _failure(utterance: Utterance, error: Exception) -> Failure:
    return Failure(utterance.id, utterance.audio.as_posix(), str(error))


def _timed(waveforms: dict[int, NDArray[np.float32]], recognise: Recognise) -> dict[int, Recognised]:
    """Recognised together; each takes its share of the time by its length."""
    if not waveforms:
        return {}
    start = time.perf_counter()
    recognised = recognise(list(waveforms.values()))
    per_sample_s = (time.perf_counter() - start) / sum(len(w) for w in waveforms.values())
    return {
        i: replace(found, compute_s=per_sample_s * len(waveform))
        for (i, waveform), found in zip(waveforms.items(), recognised, strict=True)
    }


def _vocabulary(decode: Decoder, units: Units, references: Iterable[Sequence[str]]) -> Vocabulary | None:
    """What is known of the references' words, where there is a list of words."""
    listed: Sequence[str] = ()
    source, unigrams = "", dict[str, float]()
    if decode.words:
        listed, source, unigrams = decode.words, decode.word_source, dict(decode.unigrams())
    elif units.kind == "words":
        listed, source = units.symbols[1:], "the model's words"
    if not listed:
        return None
    said = sorted({word for reference in references for word in reference})
    known = set(listed)
    per_million = {word: round(1e6 * unigrams[word], 3) for word in said if word in unigrams}
    return Vocabulary(source, len(listed), tuple(word for word in said if word not in known), per_million)


def _notes(results: Sequence[UtteranceResult], failures: Sequence[Failure], units: Units) -> tuple[str, ...]:
    notes = []
    if failures:
        total = len(results) + len(failures)
        notes.append(f"{len(failures)} of {total} utterances could not be recognised and are not in the counts.")
    if empty := sum(not u.reference for u in results):
        notes.append(f"{empty} references are empty: every symbol recognised there is an insertion.")
    if len(results) > 1 and not any(u.hypothesis for u in results):
        notes.append("The model recognised nothing in any utterance: its output is all blanks.")
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
